//! Dry runs: they are refused what the change would be refused, with the same answer, and change nothing anywhere.
//!
//! The change itself is made, as far as its provider can be rehearsed ([`Rehearsal`]). What only a change in earnest
//! would find out stays unknown, and the answer says so.

use std::{future::Future, sync::Arc};

use serde_json::Value;

use super::{
    AccessTokenRequest, Engine, Error, Managed, Operation, Rehearsal, Result,
    engine::{Asked, Effect, made},
    halting::tried,
    parse::CLIENT_CREDENTIALS,
    rows::RowChange,
};

impl Engine {
    /// What stands against `work`, which is what the change would do; else what could not be tried of it.
    pub(super) async fn dry_run<T, F>(
        &self,
        asked: &Asked,
        managed: Arc<Managed>,
        work: impl FnOnce(Arc<Managed>) -> F,
    ) -> Result<Option<&'static str>>
    where
        F: Future<Output = Result<Effect<T>>>,
    {
        let rehearsal = managed.connector.rehearsal();
        // Whoever tries one has looked at its client before, by [`foresee_token`].
        let has_looked =
            matches!(rehearsal, Rehearsal::Halting) && asked.operation == Operation::NewApplicationAccessToken;
        let done = match rehearsal {
            Rehearsal::Looking => None,
            Rehearsal::Halting => tried(work(Arc::clone(&managed))).await?,
            Rehearsal::At(connector) => {
                let managed = Managed { connector, ..Managed::clone(&managed) };
                Some(work(Arc::new(managed)).await.map_err(nothing_revoked)?)
            }
        };
        let Some(effect) = done else {
            if !has_looked {
                self.foresee(asked, &managed).await?;
            }
            return Ok(Some(match asked.operation {
                Operation::NewApplicationAccessToken => UNTRIED_TOKEN,
                _ => UNTRIED,
            }));
        };
        self.would_change(effect.rows).await.map(|()| None)
    }

    async fn foresee(&self, asked: &Asked, managed: &Managed) -> Result<()> {
        match asked.operation {
            // What only its mapping knows of is deleted too.
            Operation::DeleteApplication if self.mapping(&asked.key_manager, &asked.subject)?.is_some() => Ok(()),
            _ => foresee(asked, managed).await,
        }
    }

    /// What [`Self::change`] would refuse of these.
    pub(super) async fn would_change(&self, rows: Vec<RowChange>) -> Result<()> {
        made(&self.record(Operation::LoadConfiguration)?.rehearsal(), rows).await?
    }
}

/// Nor was anything revoked.
fn nothing_revoked(error: Error) -> Error {
    match error {
        Error::Revoked(why) => *why,
        error => error,
    }
}

/// What would refuse it: a thing that is not there, or is there already.
async fn foresee(asked: &Asked, managed: &Managed) -> Result<()> {
    let (connector, subject) = (&managed.connector, asked.subject.as_str());
    let reads = |operation| managed.cannot(operation).is_none();
    match asked.operation {
        Operation::CreateApplication if reads(Operation::RetrieveApplication) => {
            match asked.request.get("clientId").and_then(Value::as_str) {
                Some(id) => {
                    absent(connector.retrieve_application(id).await, "clientId", "there is a client of this id")
                }
                None => Ok(()),
            }
        }
        Operation::NewApplicationAccessToken if !connector.tells_of_every_client() => Ok(()),
        Operation::UpdateApplication
        | Operation::DeleteApplication
        | Operation::UpdateApplicationOwner
        | Operation::NewApplicationConsumerSecret
        | Operation::GenerateConsumerSecret
        | Operation::NewApplicationAccessToken
            if reads(Operation::RetrieveApplication) =>
        {
            connector.retrieve_application(subject).await.map(drop)
        }
        Operation::DeleteConsumerSecret if reads(Operation::RetrieveConsumerSecrets) => {
            let id = asked.request.get("secretId").and_then(Value::as_str).unwrap_or_default();
            let all = connector.secrets(subject).await?;
            all.iter().find(|secret| secret.secret_id == id).map(drop).ok_or(Error::NotFound("secret"))
        }
        Operation::RegisterScope if reads(Operation::IsScopeExists) => match connector.scope_exists(subject).await? {
            true => Err(Error::conflict("key", "there is a scope of this key")),
            false => Ok(()),
        },
        Operation::UpdateScope | Operation::DeleteScope if reads(Operation::IsScopeExists) => {
            match connector.scope_exists(subject).await? {
                true => Ok(()),
                false => Err(Error::NotFound("scope")),
            }
        }
        Operation::RegisterNewResource if reads(Operation::ResourceByApiId) => {
            foresee_bound(asked, managed).await?;
            absent(connector.resource(subject).await, "apiId", "the resources of this API are registered already")
        }
        Operation::UpdateRegisteredResource
        | Operation::DeleteRegisteredResourceByApiId
        | Operation::AttachResourceScopes
        | Operation::UpdateResourceScopes
        | Operation::DetachResourceScopes
            if reads(Operation::ResourceByApiId) =>
        {
            connector.resource(subject).await?;
            foresee_bound(asked, managed).await
        }
        _ => Ok(()),
    }
}

/// Scopes that are to be bound and are not registered, where that is refused.
async fn foresee_bound(asked: &Asked, managed: &Managed) -> Result<()> {
    let connector = &managed.connector;
    let takes_any = !connector.is_strict() || managed.cannot(Operation::IsScopeExists).is_some();
    if takes_any || asked.operation == Operation::DetachResourceScopes {
        return Ok(());
    }
    let keys = asked.request.get("scopes").and_then(Value::as_array).into_iter().flatten();
    for key in keys.filter_map(Value::as_str) {
        if !connector.scope_exists(key).await? {
            return Err(Error::conflict("scopes", format!("not registered: {key}")));
        }
    }
    Ok(())
}

/// What of a token's request reading shows to be refused: a secret that can be compared, and the grant.
pub(super) async fn foresee_token(managed: &Managed, client: &str, request: &AccessTokenRequest) -> Result<()> {
    let connector = &managed.connector;
    let reads = |operation| managed.cannot(operation).is_none();
    // One that does not tell of every client compares by letting the client in.
    if !reads(Operation::RetrieveApplication) || !connector.tells_of_every_client() {
        return Ok(());
    }
    let known = connector.retrieve_application(client).await?;
    let is_public = known.parameter("token_endpoint_auth_method") == Some("none");
    if let Some(secret) = request.client_secret.as_ref().filter(|_| !is_public)
        && connector.cannot(Operation::MapOAuthApplication).is_none()
        && let Err(error @ Error::Invalid { .. }) = connector.map_application(client, Some(secret)).await
    {
        return Err(error);
    }
    let own = known.list("grant_types");
    let grant = request.grant_type.as_deref().unwrap_or(CLIENT_CREDENTIALS);
    if connector.is_strict() && !own.is_empty() && !own.contains(&grant) {
        return Err(Error::invalid("grantType", "is not one of this client's"));
    }
    Ok(())
}

fn absent<T>(found: Result<T>, field: &'static str, why: &'static str) -> Result<()> {
    match found {
        Ok(_) => Err(Error::conflict(field, why)),
        Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

const UNTRIED: &str = "what only the provider's own answer to the change tells was not tried: its policies and limits";
const UNTRIED_TOKEN: &str = "what only the provider's own answer to the request tells was not tried: passwords, codes and \
    refresh tokens, a client's secret that cannot be compared otherwise, its policies and limits";
