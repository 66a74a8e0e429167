//! Dry runs: they are refused what the change would be refused, with the same answer, and change nothing anywhere.
//!
//! The change itself is made, as far as its provider can be rehearsed ([`Rehearsal`]). What only a change in earnest
//! would find out stays unknown.

use std::{future::Future, sync::Arc};

use serde_json::Value;

use super::{
    Engine, Error, Managed, Operation, Rehearsal, Result,
    engine::{Asked, Effect, made},
    halting::tried,
    rows::RowChange,
};

impl Engine {
    /// What stands against `work`, which is what the change would do.
    pub(super) async fn dry_run<T, F>(
        &self,
        asked: &Asked,
        managed: Arc<Managed>,
        work: impl FnOnce(Arc<Managed>) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<Effect<T>>>,
    {
        let done = match managed.connector.rehearsal() {
            Rehearsal::Looking => None,
            Rehearsal::Halting => tried(work(Arc::clone(&managed))).await?,
            Rehearsal::At(connector) => {
                let managed = Managed { connector, ..Managed::clone(&managed) };
                Some(work(Arc::new(managed)).await.map_err(nothing_revoked)?)
            }
        };
        match done {
            // What only its mapping knows of is deleted too.
            None if asked.operation == Operation::DeleteApplication
                && self.mapping(&asked.key_manager, &asked.subject)?.is_some() =>
            {
                Ok(())
            }
            None => foresee(asked, &managed).await,
            Some(effect) => self.would_change(effect.rows).await,
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
        | Operation::DeleteConsumerSecret
        | Operation::NewApplicationAccessToken
            if reads(Operation::RetrieveApplication) =>
        {
            connector.retrieve_application(subject).await.map(drop)
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
            absent(connector.resource(subject).await, "apiId", "the resources of this API are registered already")
        }
        Operation::UpdateRegisteredResource
        | Operation::DeleteRegisteredResourceByApiId
        | Operation::AttachResourceScopes
        | Operation::UpdateResourceScopes
        | Operation::DetachResourceScopes
            if reads(Operation::ResourceByApiId) =>
        {
            connector.resource(subject).await.map(drop)
        }
        _ => Ok(()),
    }
}

fn absent<T>(found: Result<T>, field: &'static str, why: &'static str) -> Result<()> {
    match found {
        Ok(_) => Err(Error::conflict(field, why)),
        Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
