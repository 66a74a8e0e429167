//! What is wanted of a provider, so told that it may be done twice: what waits in the queue is done by this.

use std::{collections::BTreeSet, future::Future};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ApiResource, Error, Managed, Operation, Result, Scope, attach, detach, split_list, told::was};

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
    pub(super) const fn overtaken_by(&self) -> &'static [Operation] {
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
    pub(super) fn is_over(&self, error: &Error) -> bool {
        match self {
            Self::Scope(_) | Self::Resource(_) => matches!(error, Error::Conflict(_)),
            Self::ScopeUpdate(_) | Self::ResourceUpdate(_) => matches!(error, Error::NotFound(_)),
            _ => false,
        }
    }

    /// Does it, whatever has been done of it already. Gives what was there before, as far as that can be read.
    pub(super) async fn perform(&self, managed: &Managed) -> Result<Value> {
        let before = self.present(managed).await?;
        self.run(managed).await.map(|()| before)
    }

    async fn present(&self, managed: &Managed) -> Result<Value> {
        let provider = &managed.connector;
        match self {
            Self::ScopeUpdate(_) | Self::ScopePut(_) | Self::NoScope { .. } => {
                was(provider.scope(self.subject()).await)
            }
            Self::ResourceUpdate(_)
            | Self::ResourcePut(_)
            | Self::NoResource { .. }
            | Self::Attach { .. }
            | Self::Replace { .. }
            | Self::Detach { .. } => was(provider.resource(self.subject()).await),
            _ => Ok(Value::Null),
        }
    }

    async fn run(&self, managed: &Managed) -> Result<()> {
        let provider = &managed.connector;
        match self {
            Self::Scope(scope) => {
                let made = provider.register_scope(scope).await;
                unless_there(made, provider.scope(&scope.key), |there| is_scope(there, scope)).await
            }
            Self::ScopeUpdate(scope) => provider.update_scope(scope).await.map(drop),
            Self::ScopePut(scope) => match provider.register_scope(scope).await {
                Err(Error::Conflict(_)) => provider.update_scope(scope).await.map(drop),
                outcome => outcome.map(drop),
            },
            Self::NoScope { key } => gone(provider.delete_scope(key).await),
            Self::Resource(resource) => {
                let made = provider.register_resource(resource).await;
                unless_there(made, provider.resource(&resource.api_id), |there| is_resource(there, resource)).await
            }
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

/// Whether something that waits may be overtaken by it.
pub(super) fn overtakes(operation: Operation) -> bool {
    [&OF_SCOPES[..], &OF_RESOURCES, &OF_REMOVALS, &OF_BINDINGS, &OF_CLIENTS]
        .iter()
        .any(|some| some.contains(&operation))
}

/// What came of registering it, which may have been done before. What is there and is not the same is another's.
async fn unless_there<T>(
    made: Result<T>,
    read: impl Future<Output = Result<T>>,
    is_same: impl FnOnce(&T) -> bool,
) -> Result<()> {
    match made {
        Err(Error::Conflict(why)) => match read.await {
            Ok(there) if is_same(&there) => Ok(()),
            _ => Err(Error::Conflict(why)),
        },
        made => made.map(drop),
    }
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
    there.unwrap_or(id) == asked.unwrap_or(id)
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
