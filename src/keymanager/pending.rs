//! What is out of step: changes that a provider has not taken, tried again with growing pauses, and what only a human
//! can clear up. All of it stands in the record, so that a restart forgets none.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time;
use utoipa::ToSchema;

use super::{
    ApiResource, Done, Engine, Error, Managed, Operation, Plan, Result, Scope, attach, detach,
    engine::{Asked, Caller, plan, told, unkept},
    rows::{AuditEntry, MOST_PENDING, PENDING, PendingRow, RowChange},
    split_list,
};

/// What is to be done at a provider. Each says what is wanted in the end, so that it may be done twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Task {
    /// To be registered.
    Scope(Scope),
    ScopeUpdate(Scope),
    /// To be registered, or changed, whichever it takes: it is wanted in place of what waited.
    ScopePut(Scope),
    NoScope {
        key: String,
    },
    /// To be registered.
    Resource(ApiResource),
    ResourceUpdate(ApiResource),
    /// As with scopes.
    ResourcePut(ApiResource),
    NoResource {
        api_id: String,
    },
    Attach {
        api_id: String,
        scopes: Vec<String>,
    },
    Replace {
        api_id: String,
        scopes: Vec<String>,
    },
    Detach {
        api_id: String,
        scopes: Vec<String>,
    },
    DeleteClient {
        consumer_key: String,
    },
    /// Nothing that we know how to do.
    Left {
        left: String,
    },
}

/// Something that is not done yet.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// Its number.
    pub id: u64,
    /// The key manager.
    pub key_manager: String,
    /// What is to be done; `none`: it is for a human, who clears it by `DELETE`.
    pub operation: String,
    /// What it is about.
    pub subject: String,
    /// Who asked for it.
    pub who: String,
    /// Since when, in milliseconds since the epoch.
    pub since: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next, in milliseconds since the epoch; none: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<u64>,
    /// Why it failed last.
    pub last_error: String,
}

impl Task {
    pub(super) const fn operation(&self) -> Option<Operation> {
        Some(match self {
            Self::Scope(_) => Operation::RegisterScope,
            Self::ScopeUpdate(_) | Self::ScopePut(_) => Operation::UpdateScope,
            Self::NoScope { .. } => Operation::DeleteScope,
            Self::Resource(_) => Operation::RegisterNewResource,
            Self::ResourceUpdate(_) | Self::ResourcePut(_) => Operation::UpdateRegisteredResource,
            Self::NoResource { .. } => Operation::DeleteRegisteredResourceByApiId,
            Self::Attach { .. } => Operation::AttachResourceScopes,
            Self::Replace { .. } => Operation::UpdateResourceScopes,
            Self::Detach { .. } => Operation::DetachResourceScopes,
            Self::DeleteClient { .. } => Operation::DeleteApplication,
            Self::Left { .. } => return None,
        })
    }

    pub(super) fn subject(&self) -> &str {
        match self {
            Self::Scope(scope) | Self::ScopeUpdate(scope) | Self::ScopePut(scope) => &scope.key,
            Self::NoScope { key } => key,
            Self::Resource(resource) | Self::ResourceUpdate(resource) | Self::ResourcePut(resource) => &resource.api_id,
            Self::NoResource { api_id }
            | Self::Attach { api_id, .. }
            | Self::Replace { api_id, .. }
            | Self::Detach { api_id, .. } => api_id,
            Self::DeleteClient { consumer_key } => consumer_key,
            Self::Left { left } => left,
        }
    }

    /// The operations after which nothing of it is wanted any more: each says anew what is to become of the same thing.
    const fn overtaken_by(&self) -> &'static [Operation] {
        match self {
            Self::Scope(_) | Self::ScopeUpdate(_) | Self::ScopePut(_) | Self::NoScope { .. } => &OF_SCOPES,
            Self::Resource(_) | Self::ResourceUpdate(_) | Self::ResourcePut(_) => &OF_RESOURCES,
            Self::NoResource { .. } => &OF_REMOVALS,
            Self::Attach { .. } | Self::Replace { .. } | Self::Detach { .. } => &OF_BINDINGS,
            Self::DeleteClient { .. } => &OF_CLIENTS,
            Self::Left { .. } => &[],
        }
    }

    /// The same once scopes were bound by `operation` since, which it is not to undo; none: nothing of it is left.
    pub(super) fn bound(&self, operation: Operation, keys: &[String]) -> Option<Self> {
        let mut task = self.clone();
        match (&mut task, operation) {
            (
                Self::Resource(ApiResource { scopes, .. })
                | Self::ResourceUpdate(ApiResource { scopes, .. })
                | Self::ResourcePut(ApiResource { scopes, .. })
                | Self::Replace { scopes, .. },
                Operation::AttachResourceScopes,
            ) => attach(scopes, keys),
            (
                Self::Resource(ApiResource { scopes, .. })
                | Self::ResourceUpdate(ApiResource { scopes, .. })
                | Self::ResourcePut(ApiResource { scopes, .. })
                | Self::Replace { scopes, .. }
                | Self::Attach { scopes, .. },
                Operation::DetachResourceScopes,
            ) => detach(scopes, keys),
            (
                Self::Resource(ApiResource { scopes, .. })
                | Self::ResourceUpdate(ApiResource { scopes, .. })
                | Self::ResourcePut(ApiResource { scopes, .. }),
                Operation::UpdateResourceScopes,
            ) => *scopes = keys.to_vec(),
            (Self::Detach { api_id, scopes }, Operation::AttachResourceScopes) if scopes.is_empty() => {
                task = Self::Replace { api_id: api_id.clone(), scopes: keys.to_vec() };
            }
            (Self::Detach { scopes, .. }, Operation::AttachResourceScopes) => {
                detach(scopes, keys);
                // None named would be all.
                return (!scopes.is_empty()).then_some(task);
            }
            _ => {}
        }
        let nothing = matches!(&task, Self::Attach { scopes, .. } if scopes.is_empty());
        (!nothing).then_some(task)
    }

    /// Whose turn it takes: what is changed by it at its key manager, as the management door names it.
    pub(super) fn turn(&self, key_manager: &str) -> String {
        let kind = match self {
            Self::Scope(_) | Self::ScopeUpdate(_) | Self::ScopePut(_) | Self::NoScope { .. } => "scope",
            Self::DeleteClient { .. } => "client",
            Self::Left { .. } => "left",
            _ => "resource",
        };
        [kind, key_manager, self.subject()].join("\0")
    }

    /// The same where it is wanted in place of `old`, which may have been done, or not: then what is there now may be
    /// what that would have changed.
    pub(super) fn instead_of(self, old: &Self) -> Self {
        match (self, old) {
            (Self::ScopeUpdate(scope), Self::Scope(_) | Self::ScopePut(_))
            | (Self::Scope(scope), Self::NoScope { .. } | Self::ScopePut(_)) => Self::ScopePut(scope),
            (Self::ResourceUpdate(resource), Self::Resource(_) | Self::ResourcePut(_))
            | (Self::Resource(resource), Self::NoResource { .. } | Self::ResourcePut(_)) => Self::ResourcePut(resource),
            (task, _) => task,
        }
    }

    /// Whether this is an answer that no other attempt would change, and that somebody has to look at.
    fn is_over(&self, error: &Error) -> bool {
        match self {
            Self::Scope(_) | Self::Resource(_) => matches!(error, Error::Conflict(_)),
            Self::ScopeUpdate(_) | Self::ResourceUpdate(_) => matches!(error, Error::NotFound(_)),
            _ => false,
        }
    }

    /// What it is about, as it stands there, as far as that can be read.
    async fn present(&self, managed: &Managed) -> Value {
        let provider = &managed.connector;
        match self {
            Self::ScopeUpdate(_) | Self::ScopePut(_) | Self::NoScope { .. } => {
                provider.scope(self.subject()).await.map(|it| told(&it))
            }
            Self::ResourceUpdate(_)
            | Self::ResourcePut(_)
            | Self::NoResource { .. }
            | Self::Attach { .. }
            | Self::Replace { .. }
            | Self::Detach { .. } => provider.resource(self.subject()).await.map(|it| told(&it)),
            _ => Ok(Value::Null),
        }
        .unwrap_or_default()
    }

    /// Does it, whatever has been done of it already. What is there and is not what was to be registered is another's.
    async fn run(&self, managed: &Managed) -> Result<()> {
        let provider = &managed.connector;
        match self {
            Self::Scope(scope) => match provider.register_scope(scope).await {
                Err(Error::Conflict(why)) => match provider.scope(&scope.key).await {
                    Ok(there) if is_scope(&there, scope) => Ok(()),
                    _ => Err(Error::Conflict(why)),
                },
                outcome => outcome.map(drop),
            },
            Self::ScopeUpdate(scope) => provider.update_scope(scope).await.map(drop),
            Self::ScopePut(scope) => match provider.register_scope(scope).await {
                Err(Error::Conflict(_)) => provider.update_scope(scope).await.map(drop),
                outcome => outcome.map(drop),
            },
            Self::NoScope { key } => gone(provider.delete_scope(key).await),
            Self::Resource(resource) => match provider.register_resource(resource).await {
                Err(Error::Conflict(why)) => match provider.resource(&resource.api_id).await {
                    Ok(there) if is_resource(&there, resource) => Ok(()),
                    _ => Err(Error::Conflict(why)),
                },
                outcome => outcome.map(drop),
            },
            Self::ResourceUpdate(resource) => provider.update_resource(resource).await.map(drop),
            Self::ResourcePut(resource) => match provider.update_resource(resource).await {
                Err(Error::NotFound(_) | Error::Unsupported { .. }) => {
                    provider.register_resource(resource).await.map(drop)
                }
                outcome => outcome.map(drop),
            },
            Self::NoResource { api_id } => gone(provider.delete_resource(api_id).await),
            Self::Attach { api_id, scopes } => provider.attach_scopes(api_id, scopes).await.map(drop),
            Self::Replace { api_id, scopes } => provider.replace_scopes(api_id, scopes).await.map(drop),
            Self::Detach { api_id, scopes } => gone(provider.detach_scopes(api_id, scopes).await),
            Self::DeleteClient { consumer_key } => gone(provider.delete_application(consumer_key).await),
            Self::Left { .. } => Ok(()),
        }
    }
}

impl PendingRow {
    /// Whether it counts no more once `operation` was done, or is wanted, of `subject`.
    pub(super) fn is_overtaken(&self, key_manager: &str, operation: Operation, subject: &str) -> bool {
        self.key_manager == key_manager
            && self.task.subject() == subject
            && self.task.overtaken_by().contains(&operation)
    }
}

/// Whether something that waits may be overtaken by it.
pub(super) fn overtakes(operation: Operation) -> bool {
    [&OF_SCOPES[..], &OF_RESOURCES, &OF_REMOVALS, &OF_BINDINGS, &OF_CLIENTS]
        .iter()
        .any(|some| some.contains(&operation))
}

/// Whether a scope that is there is the one that was to be registered, as a provider may have completed it.
fn is_scope(there: &Scope, asked: &Scope) -> bool {
    is_named(there.name.as_deref(), asked.name.as_deref(), &asked.key)
        && same(&roles(there), &roles(asked))
        && there.description.as_deref().unwrap_or_default() == asked.description.as_deref().unwrap_or_default()
}

/// The same of an API's resources.
fn is_resource(there: &ApiResource, asked: &ApiResource) -> bool {
    is_named(there.name.as_deref(), asked.name.as_deref(), &asked.api_id)
        && same(&there.uris, &asked.uris)
        && same(&there.scopes, &asked.scopes)
}

fn is_named(there: Option<&str>, asked: Option<&str>, id: &str) -> bool {
    there == asked || there.unwrap_or(id) == asked.unwrap_or(id)
}

fn roles(scope: &Scope) -> Vec<&str> {
    scope.roles.as_deref().map(split_list).unwrap_or_default()
}

fn same<T: Ord>(there: &[T], asked: &[T]) -> bool {
    BTreeSet::from_iter(there) == BTreeSet::from_iter(asked)
}

fn gone(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(Error::NotFound(_)) => Ok(()),
        outcome => outcome,
    }
}

impl Engine {
    /// What waits at a key manager, in the order it came, after the number `after`.
    pub fn pending(&self, key_manager: &str, after: u64, most: usize) -> Result<Vec<Pending>> {
        self.registry.find(key_manager)?;
        let rows = self.pending_rows(after)?;
        Ok(rows.into_iter().filter(|row| row.key_manager == key_manager).take(most).map(shown).collect())
    }

    /// Forgets what waits: someone has cleared it up.
    pub async fn forget_pending(&self, caller: &Caller, key_manager: &str, id: u64) -> Result<Done<()>> {
        self.registry.find(key_manager)?;
        let record = self.record(Operation::LoadConfiguration)?;
        let row = record.get(&PENDING, &id.to_be_bytes()).map_err(unkept)?;
        let row = row.filter(|row| row.key_manager == key_manager).ok_or(Error::NotFound("pending change"))?;
        let asked = Asked::new(caller, key_manager, Operation::LoadConfiguration, row.task.subject());
        if caller.dry_run {
            return Ok(Done::Would(Plan { operation: FORGET.into(), ..plan(&asked) }));
        }
        let entry = AuditEntry {
            operation: FORGET.into(),
            before: serde_json::json!(shown(row)),
            outcome: "done".into(),
            ..self.entry(&asked)
        };
        self.change(vec![RowChange::Settle(id), RowChange::Audit(entry)]).await.map(Done::Did)
    }

    fn pending_rows(&self, after: u64) -> Result<Vec<PendingRow>> {
        let Some(record) = self.store() else { return Ok(Vec::new()) };
        let rows = record.view().and_then(|view| view.page(&PENDING, &[], &after.to_be_bytes(), MOST_PENDING));
        Ok(rows.map_err(unkept)?.into_iter().map(|(_, row)| row).collect())
    }

    pub(super) fn count_pending(&self) {
        if let Ok(rows) = self.pending_rows(0) {
            self.metrics.pending.set(rows.len().try_into().unwrap_or(i64::MAX));
        }
    }

    /// Whether more can be put off.
    pub(super) fn has_room_to_wait(&self) -> bool {
        self.metrics.pending.get() < MOST_PENDING as i64
    }

    /// Tries what waits, and lets revocations go that have expired, for as long as it is polled.
    pub async fn tend(self: Arc<Self>) {
        if let Err(error) = self.own_up().await {
            tracing::error!(%error, "what a process before this one did not end cannot be put into the audit");
        }
        self.count_pending();
        let mut ticks = time::interval(TEND_EVERY);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        for tick in 0_u64.. {
            ticks.tick().await;
            if let Err(error) = self.retry().await {
                tracing::warn!(%error, "what waits to be done at providers cannot be read or written");
                time::sleep(TEND_AGAIN).await;
            }
            if tick.is_multiple_of(SWEEP_EVERY)
                && let Err(error) = self.sweep_revoked().await
            {
                tracing::warn!(%error, "expired revocations cannot be removed");
            }
        }
    }

    /// Tries what is due, in order; of what is about one thing only the oldest.
    async fn retry(&self) -> Result<()> {
        if self.metrics.pending.get() == 0 {
            return Ok(());
        }
        let now = self.clock.now().unix_ms;
        let mut met: Vec<(String, String)> = Vec::new();
        // What is for a human keeps nothing else up.
        for row in self.pending_rows(0)?.into_iter().filter(|row| row.task.operation().is_some()) {
            let about = (row.key_manager.clone(), row.task.subject().to_owned());
            let first = !met.contains(&about);
            met.push(about);
            if first && row.next_attempt <= now {
                self.retry_one(row).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn retry_one(&self, row: PendingRow) -> Result<()> {
        let Some(operation) = row.task.operation() else { return Ok(()) };
        let _turn = self.turn(row.task.turn(&row.key_manager)).await;
        let record = self.record(operation)?;
        // Something else may have been wanted meanwhile, or somebody have forgotten it.
        let Some(row) = record.get(&PENDING, &row.id.to_be_bytes()).map_err(unkept)? else { return Ok(()) };
        let Some(operation) = row.task.operation() else { return Ok(()) };
        // Its key manager may have left the configuration, and may come back.
        let (before, outcome) = match self.registry.find(&row.key_manager) {
            Ok(managed) => (row.task.present(&managed).await, row.task.run(&managed).await),
            Err(error) => (Value::Null, Err(error)),
        };
        let asked = Asked::new(
            &Caller { who: row.who.clone(), ..Caller::default() },
            &row.key_manager,
            operation,
            row.task.subject(),
        );
        match outcome {
            Ok(()) => {
                let entry = AuditEntry {
                    before,
                    after: told(&row.task),
                    outcome: "done".into(),
                    detail: Some("tried again".into()),
                    ..self.entry(&asked)
                };
                self.change(vec![RowChange::Settle(row.id), RowChange::Audit(entry)]).await
            }
            // It was not tried.
            Err(Error::LeftAlone { wait }) => {
                let next_attempt = self.clock.now().unix_ms.saturating_add(wait.saturating_mul(1000));
                self.change(vec![RowChange::Later(PendingRow { next_attempt, ..row })]).await
            }
            // It stays, for a human to see and to clear.
            Err(error) if row.task.is_over(&error) => {
                let detail = Some(error.to_string());
                let entry = AuditEntry { outcome: "failed".into(), detail, ..self.entry(&asked) };
                let left = Task::Left { left: row.task.subject().to_owned() };
                let last_error = format!("{}: {error}", operation.name());
                let row = PendingRow { attempts: row.attempts.saturating_add(1), last_error, task: left, ..row };
                self.change(vec![RowChange::Later(row), RowChange::Audit(entry)]).await
            }
            Err(error) => {
                let attempts = row.attempts.saturating_add(1);
                let next_attempt = self.clock.now().unix_ms.saturating_add(pause_ms(attempts));
                self.change(vec![RowChange::Later(PendingRow {
                    attempts,
                    next_attempt,
                    last_error: error.to_string(),
                    ..row
                })])
                .await
            }
        }
    }
}

/// A row as it is told.
pub(super) fn shown(row: PendingRow) -> Pending {
    let operation = row.task.operation();
    Pending {
        id: row.id,
        key_manager: row.key_manager,
        operation: operation.map_or("none", Operation::name).to_owned(),
        subject: row.task.subject().to_owned(),
        who: row.who,
        since: row.since,
        attempts: row.attempts,
        next_attempt: operation.map(|_| row.next_attempt),
        last_error: row.last_error,
    }
}

/// Twice as long each time, up to five minutes.
fn pause_ms(attempts: u32) -> u64 {
    FIRST_WAIT_MS.saturating_mul(1 << attempts.saturating_sub(1).min(12)).min(LONGEST_WAIT_MS)
}

/// No operation of WSO2's interface.
const FORGET: &str = "forgetPending";
const OF_SCOPES: [Operation; 3] = [Operation::RegisterScope, Operation::UpdateScope, Operation::DeleteScope];
const OF_RESOURCES: [Operation; 3] =
    [Operation::RegisterNewResource, Operation::UpdateRegisteredResource, Operation::DeleteRegisteredResourceByApiId];
/// An API that is to go, and to which scopes are then bound, is to stay.
const OF_REMOVALS: [Operation; 5] = [
    OF_RESOURCES[0],
    OF_RESOURCES[1],
    OF_RESOURCES[2],
    Operation::AttachResourceScopes,
    Operation::UpdateResourceScopes,
];
const OF_BINDINGS: [Operation; 4] =
    [Operation::UpdateResourceScopes, OF_RESOURCES[0], OF_RESOURCES[1], OF_RESOURCES[2]];
/// A client that is to go, and is then made, adopted or changed, is to stay.
const OF_CLIENTS: [Operation; 8] = [
    Operation::CreateApplication,
    Operation::MapOAuthApplication,
    Operation::UpdateApplication,
    Operation::UpdateApplicationOwner,
    Operation::DeleteApplication,
    Operation::NewApplicationConsumerSecret,
    Operation::GenerateConsumerSecret,
    Operation::DeleteConsumerSecret,
];
pub(super) const FIRST_WAIT_MS: u64 = 1000;
const LONGEST_WAIT_MS: u64 = 300_000;
const TEND_EVERY: Duration = Duration::from_millis(500);
/// In ticks: half an hour.
const SWEEP_EVERY: u64 = 3600;
const TEND_AGAIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_somewhere() {
        assert_eq!([1, 2, 3, 9, 40].map(pause_ms), [1000, 2000, 4000, 256_000, 300_000]);
    }
}
