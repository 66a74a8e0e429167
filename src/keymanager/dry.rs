//! What a dry run tells beyond the request itself: what reading shows that the change would be refused for. Nothing is
//! changed anywhere; what only the change itself would find out stays unknown.

use super::{Error, Managed, OAuthApplicationInfo, Operation, Result, engine::Asked};

/// What would refuse it: a thing that is not there, or is there already.
pub(super) async fn foresee(asked: &Asked, managed: &Managed) -> Result<()> {
    let (connector, subject) = (&managed.connector, asked.subject.as_str());
    let reads = |operation| managed.cannot(operation).is_none();
    match asked.operation {
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

/// The same of a client that is to be made.
pub(super) async fn foresee_client(app: &OAuthApplicationInfo, managed: &Managed) -> Result<()> {
    if let Some(id) = &app.client_id
        && managed.cannot(Operation::RetrieveApplication).is_none()
    {
        absent(managed.connector.retrieve_application(id).await, "clientId", "there is a client of this id")?;
    }
    managed.connector.would_create(app).await
}

fn absent<T>(found: Result<T>, field: &'static str, why: &'static str) -> Result<()> {
    match found {
        Ok(_) => Err(Error::conflict(field, why)),
        Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
