//! The Key Manager: what an API platform asks of an OAuth provider, whichever that is.
//!
//! [`KeyManager`] is what a connector implements: the operations that need the provider. What a provider cannot do is
//! told by [`KeyManager::cannot`] and answered [`Error::Unsupported`]; nothing answers success and does nothing. Those
//! who call are the operations of this module's engine, never a door itself.
//!
//! The names are WSO2's (`org.wso2.carbon.apimgt.api.model.KeyManager`), without its `get`.

mod begun;
mod belonging;
pub mod check;
mod clients;
mod configuration;
mod dry;
mod end;
mod engine;
mod error;
mod fanout;
mod halting;
mod handling;
mod issue;
mod memory;
mod metrics;
mod model;
mod operation;
mod parse;
mod pending;
mod redacted;
mod registry;
mod rows;
mod scopes;
mod shape;
mod task;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod told;
mod unmanaged;
mod whole;

use std::{borrow::Cow, collections::BTreeMap, fmt::Debug, sync::Arc};

use async_trait::async_trait;

pub use clients::MapRequest;
pub use configuration::{KeyManagerConfiguration, Loaded, stored};
pub use end::before_end;
pub use engine::{Assembly, Caller, Done, Engine, Plan, changes};
pub use error::{Clash, Error};
pub use fanout::{Everywhere, Outcome};
pub use halting::go_on;
pub use memory::{Kept, Memory, Passing};
pub use model::{
    AccessTokenInfo, AccessTokenRequest, ApiResource, ConsumerSecretInfo, ConsumerSecretRequest, OAuthApplicationInfo,
    Scope, Sensitive, attach, detach, split_list,
};
pub use operation::Operation;
pub use parse::{CLIENT_CREDENTIALS, TOKEN_EXCHANGE, fault};
pub use pending::Pending;
pub use registry::{Managed, Origin, Ready, Registry, fingerprint};
pub use rows::{AuditEntry, Mapping, Mode, RevokedRow, hex};
pub use shape::{
    Attributes, KeyType, LongText, Name, NameList, Parameters, RequestParameters, ScopeKey, SecretParameters,
    SecretText, Text, TokenText, Uri,
};
pub(crate) use tokens::random_id;
pub use tokens::{RevocationKind, RevocationRequest, restore};

/// What an operation gives.
pub type Result<T> = std::result::Result<T, Error>;

/// An OAuth provider, as a Key Manager has to speak to it. Called on the management thread, never by a worker that
/// serves requests; each call ends in bounded time. Arguments have been validated: names are not empty, hold no
/// control characters and are bounded; a connector percent-encodes what it puts into a path.
///
/// A method that is not written answers [`Error::Unsupported`] with the reason that [`Self::cannot`] gives.
#[async_trait]
pub trait KeyManager: Debug + Send + Sync {
    /// The connector's name in the configuration (`getType`).
    fn connector(&self) -> &'static str;

    /// Why the provider cannot do this; none: it can. Asked before each call, and for `capabilities`. What holds only
    /// for this configuration counts too: no endpoint, no credentials.
    fn cannot(&self, operation: Operation) -> Option<Cow<'static, str>>;

    /// Asks the provider what it can do, where only it tells and has not told yet: [`Self::cannot`] knows from then on.
    async fn learn(&self) -> Result<()> {
        Ok(())
    }

    /// Refuses what [`Self::cannot`] gives a reason against.
    fn may(&self, operation: Operation) -> Result<()> {
        match self.cannot(operation) {
            Some(reason) => Err(Error::Unsupported { operation, reason }),
            None => Ok(()),
        }
    }

    /// Members of `parameters.additionalProperties` without which no client is made.
    fn required_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// How a change is tried there.
    fn rehearsal(&self) -> Rehearsal {
        Rehearsal::Looking
    }

    /// Whether none but registered scopes are bound there, and a client gets tokens by none but its own grants: then a
    /// dry run reads which those are.
    fn is_strict(&self) -> bool {
        false
    }

    /// `createApplication`. The answer has the consumer key, and the secret where there is one.
    async fn create_application(&self, _application: &OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
        unsupported(self, Operation::CreateApplication)
    }

    /// Whether a client that [`Self::retrieve_application`] does not find is none of the provider's; else it may be one
    /// that only nothing is remembered of here.
    fn tells_of_every_client(&self) -> bool {
        true
    }

    /// `updateApplication`: `application` takes the place of what was there, but for the secret.
    async fn update_application(
        &self,
        _consumer_key: &str,
        _application: &OAuthApplicationInfo,
    ) -> Result<OAuthApplicationInfo> {
        unsupported(self, Operation::UpdateApplication)
    }

    /// `retrieveApplication`, without its secret.
    async fn retrieve_application(&self, _consumer_key: &str) -> Result<OAuthApplicationInfo> {
        unsupported(self, Operation::RetrieveApplication)
    }

    /// `deleteApplication`.
    async fn delete_application(&self, _consumer_key: &str) -> Result<()> {
        unsupported(self, Operation::DeleteApplication)
    }

    /// Why the provider cannot be asked about this client, though about others; none: as far as is known here, it can.
    async fn unmanaged(&self, _consumer_key: &str) -> Result<Option<Cow<'static, str>>> {
        Ok(None)
    }

    /// `updateApplicationOwner`.
    async fn update_application_owner(&self, _consumer_key: &str, _owner: &str) -> Result<OAuthApplicationInfo> {
        unsupported(self, Operation::UpdateApplicationOwner)
    }

    /// `mapOAuthApplication`: the client of that id, if the provider has it and `secret` is its own. Without a secret
    /// nothing but its being there is checked. A wrong secret is [`Error::Invalid`] of `clientSecret`.
    async fn map_application(&self, _consumer_key: &str, _secret: Option<&Sensitive>) -> Result<OAuthApplicationInfo> {
        unsupported(self, Operation::MapOAuthApplication)
    }

    /// `deleteMappedApplication`: drops what is remembered here of a client that its provider keeps.
    async fn delete_mapped_application(&self, _consumer_key: &str) -> Result<()> {
        Ok(())
    }

    /// `getNewApplicationAccessToken`. A secret that is wrong, or missing, is [`Error::Invalid`] of `clientSecret`. A token
    /// to revoke is revoked once the client is known by its secret, where it gives one, and what fails after that is
    /// [`Error::Revoked`]; one of another client is [`Error::Invalid`] of `tokenToRevoke`.
    async fn new_access_token(&self, _request: &AccessTokenRequest) -> Result<AccessTokenInfo> {
        unsupported(self, Operation::NewApplicationAccessToken)
    }

    /// `getTokenMetaData`. A token that is not good is no error.
    async fn token_meta_data(&self, _token: &Sensitive) -> Result<AccessTokenInfo> {
        unsupported(self, Operation::TokenMetaData)
    }

    /// Whether the provider has issued this token and it may still be good; none: that is not known without asking it.
    fn has_issued(&self, _token: &Sensitive) -> Option<bool> {
        None
    }

    /// `getAccessTokenByConsumerKey`.
    async fn access_token(&self, _consumer_key: &str) -> Result<AccessTokenInfo> {
        unsupported(self, Operation::AccessTokenByConsumerKey)
    }

    /// `getActiveTokensByConsumerKey`: names of tokens that can be told (their `jti`, a session, a digest), never the
    /// tokens.
    async fn active_tokens(&self, _consumer_key: &str) -> Result<Vec<String>> {
        unsupported(self, Operation::ActiveTokensByConsumerKey)
    }

    /// `getNewApplicationConsumerSecret`: all secrets from before are void.
    async fn new_secret(&self, _consumer_key: &str) -> Result<Sensitive> {
        unsupported(self, Operation::NewApplicationConsumerSecret)
    }

    /// `generateNewApplicationConsumerSecret`: one more beside those there are.
    async fn add_secret(&self, _consumer_key: &str, _request: &ConsumerSecretRequest) -> Result<ConsumerSecretInfo> {
        unsupported(self, Operation::GenerateConsumerSecret)
    }

    /// `retrieveApplicationConsumerSecrets`, masked.
    async fn secrets(&self, _consumer_key: &str) -> Result<Vec<ConsumerSecretInfo>> {
        unsupported(self, Operation::RetrieveConsumerSecrets)
    }

    /// `deleteApplicationConsumerSecret`.
    async fn delete_secret(&self, _consumer_key: &str, _secret_id: &str) -> Result<()> {
        unsupported(self, Operation::DeleteConsumerSecret)
    }

    /// Revokes a token (RFC 7009). One that is unknown counts as revoked.
    async fn revoke_token(&self, _token: &Sensitive) -> Result<()> {
        unsupported(self, Operation::RevokeToken)
    }

    /// `revokeOneTimeToken`.
    async fn revoke_one_time_token(&self, _token: &Sensitive, _consumer_key: &str) -> Result<()> {
        unsupported(self, Operation::RevokeOneTimeToken)
    }

    /// `registerNewResource`. The answer has the provider's id.
    async fn register_resource(&self, _resource: &ApiResource) -> Result<ApiResource> {
        unsupported(self, Operation::RegisterNewResource)
    }

    /// `getResourceByApiId`.
    async fn resource(&self, _api_id: &str) -> Result<ApiResource> {
        unsupported(self, Operation::ResourceByApiId)
    }

    /// `updateRegisteredResource`.
    async fn update_resource(&self, _resource: &ApiResource) -> Result<ApiResource> {
        unsupported(self, Operation::UpdateRegisteredResource)
    }

    /// `deleteRegisteredResourceByAPIId`.
    async fn delete_resource(&self, _api_id: &str) -> Result<()> {
        unsupported(self, Operation::DeleteRegisteredResourceByApiId)
    }

    /// `registerScope`. One that is there is [`Error::Conflict`].
    async fn register_scope(&self, _scope: &Scope) -> Result<Scope> {
        unsupported(self, Operation::RegisterScope)
    }

    /// `getScopeByName`, by its key.
    async fn scope(&self, _key: &str) -> Result<Scope> {
        unsupported(self, Operation::ScopeByName)
    }

    /// `getAllScopes`.
    async fn scopes(&self) -> Result<Vec<Scope>> {
        unsupported(self, Operation::AllScopes)
    }

    /// `isScopeExists`.
    async fn scope_exists(&self, key: &str) -> Result<bool> {
        if self.cannot(Operation::IsScopeExists).is_some() {
            return unsupported(self, Operation::IsScopeExists);
        }
        match self.scope(key).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `updateScope`.
    async fn update_scope(&self, _scope: &Scope) -> Result<Scope> {
        unsupported(self, Operation::UpdateScope)
    }

    /// `deleteScope`.
    async fn delete_scope(&self, _key: &str) -> Result<()> {
        unsupported(self, Operation::DeleteScope)
    }

    /// `validateScopes`: each as the provider has it; [`Error::Invalid`] names those that it lacks.
    async fn validate_scopes(&self, keys: &[String]) -> Result<Vec<Scope>> {
        if self.cannot(Operation::ValidateScopes).is_some() {
            return unsupported(self, Operation::ValidateScopes);
        }
        let (mut found, mut lacking) = (Vec::with_capacity(keys.len()), Vec::new());
        for key in keys {
            match self.scope(key).await {
                Ok(scope) => found.push(scope),
                Err(Error::NotFound(_)) => lacking.push(key.as_str()),
                Err(error) => return Err(error),
            }
        }
        match lacking.as_slice() {
            [] => Ok(found),
            lacking => Err(Error::invalid("scopes", format!("the provider has none of: {}", lacking.join(", ")))),
        }
    }

    /// `attachResourceScopes`: these beside those that are bound.
    async fn attach_scopes(&self, _api_id: &str, _keys: &[String]) -> Result<ApiResource> {
        unsupported(self, Operation::AttachResourceScopes)
    }

    /// `updateResourceScopes`: these in place of those that were bound.
    async fn replace_scopes(&self, _api_id: &str, _keys: &[String]) -> Result<ApiResource> {
        unsupported(self, Operation::UpdateResourceScopes)
    }

    /// `detachResourceScopes`; none named: all.
    async fn detach_scopes(&self, _api_id: &str, _keys: &[String]) -> Result<()> {
        unsupported(self, Operation::DetachResourceScopes)
    }

    /// `getScopesForAPIS`. A provider that tells of its scopes no more than their keys needs no way of its own.
    async fn scopes_for_apis(&self, api_ids: &[String]) -> Result<BTreeMap<String, Vec<Scope>>> {
        self.may(Operation::ScopesForApis)?;
        let mut found = BTreeMap::new();
        for api_id in api_ids {
            let scopes = self.resource(api_id).await?.scopes.into_iter();
            found.insert(api_id.clone(), scopes.map(|key| Scope { key, ..Scope::default() }).collect());
        }
        Ok(found)
    }

    /// `getUserClaims`. An unknown user is [`Error::NotFound`].
    async fn user_claims(&self, _username: &str) -> Result<BTreeMap<String, String>> {
        unsupported(self, Operation::UserClaims)
    }
}

/// How a dry run finds out what a change would be refused for.
#[derive(Debug)]
pub enum Rehearsal {
    /// By reading whether what it is about is there.
    Looking,
    /// By that too, once the connector has done all that it does before it changes anything: it asks [`go_on`] first.
    Halting,
    /// By making the change here, where nothing is kept.
    At(Arc<dyn KeyManager>),
}

/// What a method answers that a connector has not written.
pub fn unsupported<T>(manager: &(impl KeyManager + ?Sized), operation: Operation) -> Result<T> {
    let reason = manager.cannot(operation).unwrap_or(Cow::Borrowed("the connector has no way to do it"));
    Err(Error::Unsupported { operation, reason })
}
