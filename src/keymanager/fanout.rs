//! The same change at every key manager: each outcome is told, and what may yet succeed is tried again.

use std::{future::Future, sync::Arc};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use utoipa::ToSchema;

use super::{
    ApiResource, Caller, Done, Engine, Error, Operation, Result, Scope, check,
    engine::Asked,
    rows::{AuditEntry, RowChange},
    task::Task,
    told::told,
};

/// What became of it at one key manager.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The key manager.
    pub key_manager: String,
    /// `done`; `dry_run`: it would be; `unsupported`; `pending`: it is tried again, or would be; or `failed`.
    pub outcome: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What it gave.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub result: Value,
    /// Why it failed, where it did.
    #[serde(skip)]
    pub error: Option<Error>,
}

/// A change for every key manager.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the operation of that name")]
pub enum Everywhere {
    RegisterScope(Scope),
    UpdateScope(String, Scope),
    DeleteScope(String),
    RegisterResource(ApiResource),
    UpdateResource(String, ApiResource),
    DeleteResource(String),
    BindScopes(Operation, String, Vec<String>),
}

impl Everywhere {
    fn operation(&self) -> Operation {
        match self {
            Self::RegisterScope(_) => Operation::RegisterScope,
            Self::UpdateScope(..) => Operation::UpdateScope,
            Self::DeleteScope(_) => Operation::DeleteScope,
            Self::RegisterResource(_) => Operation::RegisterNewResource,
            Self::UpdateResource(..) => Operation::UpdateRegisteredResource,
            Self::DeleteResource(_) => Operation::DeleteRegisteredResourceByApiId,
            Self::BindScopes(operation, ..) => *operation,
        }
    }

    fn subject(&self) -> &str {
        match self {
            Self::RegisterScope(scope) => &scope.key,
            Self::RegisterResource(resource) => &resource.api_id,
            Self::UpdateScope(name, _)
            | Self::DeleteScope(name)
            | Self::UpdateResource(name, _)
            | Self::DeleteResource(name)
            | Self::BindScopes(_, name, _) => name,
        }
    }

    /// Wrong for one is wrong for all: then nobody is asked.
    fn check(&self) -> Result<()> {
        match self {
            Self::RegisterScope(scope) => check::new_scope(scope),
            Self::UpdateScope(key, scope) => check::scope(&Scope { key: key.clone(), ..scope.clone() }),
            Self::DeleteScope(key) => check::scope_key("key", key),
            Self::RegisterResource(resource) => check::new_resource(resource),
            Self::UpdateResource(id, it) => check::resource(&ApiResource { api_id: id.clone(), ..it.clone() }),
            Self::DeleteResource(id) => check::name("apiId", id),
            Self::BindScopes(operation, id, keys) => {
                check::name("apiId", id).and_then(|()| check::bound_scopes(*operation, keys))
            }
        }
    }

    fn task(self) -> Task {
        match self {
            Self::RegisterScope(scope) => Task::Scope(scope),
            Self::UpdateScope(key, scope) => Task::ScopeUpdate(Scope { key, ..scope }),
            Self::DeleteScope(key) => Task::NoScope { key },
            Self::RegisterResource(resource) => Task::Resource(resource),
            Self::UpdateResource(api_id, resource) => Task::ResourceUpdate(ApiResource { api_id, ..resource }),
            Self::DeleteResource(api_id) => Task::NoResource { api_id },
            Self::BindScopes(Operation::AttachResourceScopes, api_id, scopes) => Task::Attach { api_id, scopes },
            Self::BindScopes(Operation::UpdateResourceScopes, api_id, scopes) => Task::Replace { api_id, scopes },
            Self::BindScopes(_, api_id, scopes) => Task::Detach { api_id, scopes },
        }
    }
}

impl Engine {
    /// Makes the change at every key manager at the same time.
    pub async fn everywhere(self: &Arc<Self>, caller: &Caller, change: Everywhere) -> Result<Vec<Outcome>> {
        self.record(change.operation())?;
        change.check()?;
        let (engine, caller) = (Arc::clone(self), Caller { tries_again: true, ..caller.clone() });
        let one = move |name: String| {
            let (engine, caller, change) = (Arc::clone(&engine), caller.clone(), change.clone());
            async move {
                let _turn = engine.turn(change.clone().task().turn(&name)).await;
                let outcome = engine.at_one(&caller, &name, change.clone()).await;
                engine.outcome(&caller, name, change, outcome).await
            }
        };
        Ok(self.at_each(one).await)
    }

    /// Reads from every key manager at the same time.
    pub async fn read_everywhere<F>(
        self: &Arc<Self>,
        read: impl Fn(Arc<Self>, String) -> F + Clone + Send + 'static,
    ) -> Vec<Outcome>
    where
        F: Future<Output = Result<Value>> + Send + 'static,
    {
        let engine = Arc::clone(self);
        self.at_each(move |name| {
            let reading = read(Arc::clone(&engine), name.clone());
            async move { plain(name, reading.await) }
        })
        .await
    }

    async fn at_each<F>(&self, one: impl Fn(String) -> F) -> Vec<Outcome>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut running = JoinSet::new();
        let managers = self.registry.all();
        for (number, managed) in managers.iter().enumerate() {
            let outcome = one(managed.name().to_owned());
            running.spawn(async move { (number, outcome.await) });
        }
        let mut outcomes = running.join_all().await;
        outcomes.sort_by_key(|(number, _)| *number);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    async fn at_one(&self, caller: &Caller, name: &str, change: Everywhere) -> Result<Done<Value>> {
        fn shown<T: Serialize>(done: Done<T>) -> Done<Value> {
            done.map(|gave| json!(gave))
        }
        match change {
            Everywhere::RegisterScope(scope) => self.register_scope(caller, name, scope).await.map(shown),
            Everywhere::UpdateScope(key, scope) => self.update_scope(caller, name, &key, scope).await.map(shown),
            Everywhere::DeleteScope(key) => self.delete_scope(caller, name, &key).await.map(shown),
            Everywhere::RegisterResource(it) => self.register_resource(caller, name, it).await.map(shown),
            Everywhere::UpdateResource(id, it) => self.update_resource(caller, name, &id, it).await.map(shown),
            Everywhere::DeleteResource(id) => self.delete_resource(caller, name, &id).await.map(shown),
            Everywhere::BindScopes(operation, id, keys) => {
                let done = self.bind_scopes(caller, name, operation, &id, keys).await?;
                Ok(match done {
                    // What is left of the resource no provider has told.
                    Done::Did(_) if operation == Operation::DetachResourceScopes => Done::Did(Value::Null),
                    done => shown(done),
                })
            }
        }
    }

    /// Puts off what may yet succeed; a dry run only says so.
    async fn outcome(
        &self,
        caller: &Caller,
        name: String,
        change: Everywhere,
        outcome: Result<Done<Value>>,
    ) -> Outcome {
        let error = match outcome {
            Ok(done) => return done_at(name, done),
            Err(error) if !error.may_pass() => return plain(name, Err(error)),
            Err(error) => error,
        };
        let asked = Asked::new(caller, &name, change.operation(), change.subject());
        if !self.has_room_to_wait() {
            if caller.dry_run {
                return plain(name, Err(error));
            }
            let once = Caller { tries_again: false, ..caller.clone() };
            self.note_failure(&Asked { caller: once, ..asked }, &error).await;
            return plain(name, Err(error));
        }
        let task = change.task();
        let entry = AuditEntry {
            after: told(&task),
            outcome: "pending".into(),
            detail: Some(error.to_string()),
            ..self.entry(&asked)
        };
        let row = self.waiting(&asked, task, &error);
        let rows = vec![RowChange::Wait(row), RowChange::Audit(entry)];
        let kept = if caller.dry_run { self.would_change(rows).await } else { self.change(rows).await };
        match kept {
            Ok(()) => Outcome {
                key_manager: name,
                outcome: "pending".into(),
                detail: Some(error.to_string()),
                result: Value::Null,
                error: None,
            },
            Err(unkept) => plain(name, Err(unkept)),
        }
    }
}

fn done_at(name: String, done: Done<Value>) -> Outcome {
    let (outcome, result) = match done {
        Done::Did(result) => ("done", result),
        Done::Would(plan) => ("dry_run", json!(plan)),
    };
    Outcome { key_manager: name, outcome: outcome.into(), detail: None, result, error: None }
}

fn plain(name: String, outcome: Result<Value>) -> Outcome {
    match outcome {
        Ok(result) => done_at(name, Done::Did(result)),
        Err(error) => Outcome {
            key_manager: name,
            outcome: if matches!(error, Error::Unsupported { .. } | Error::SwitchedOff { .. }) {
                "unsupported"
            } else {
                "failed"
            }
            .into(),
            detail: Some(error.to_string()),
            result: Value::Null,
            error: Some(error),
        },
    }
}
