//! Connector `oidc`: a provider that does what the standards say. Clients by RFC 7591 and RFC 7592, tokens by RFC 6749,
//! RFC 7662, RFC 7009 and RFC 8693, resources by UMA 2.0 where it is announced.
//!
//! What the standards have no place for is remembered here: the client's owner and application; and what only whoever
//! registered the client was told: the registration access token, by which it is managed, and the secret, without which
//! none of its tokens is revoked (RFC 7009 section 2.1).

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{
    Means,
    api::Reply,
    call::Call,
    client_metadata,
    directory::Endpoint,
    oauth::{ClientSecret, OAuth, issued_to},
    oidc::Place,
    standard_rows::{ResourceRow, Row, client_key, read, resource_key, written},
    uma::{self, RESOURCE, Resources},
};
use crate::{
    keymanager::{
        AccessTokenInfo, AccessTokenRequest, ApiResource, Error, KeyManager, Memory, OAuthApplicationInfo, Operation,
        Rehearsal, Result, Sensitive, check, go_on,
    },
    problem::Problem,
    token::settings::KeyManagerSettings,
};

/// A provider by the standards.
#[derive(Debug)]
struct Standard {
    oauth: OAuth,
    /// Initial access token (RFC 7591 section 3).
    initial: Option<Zeroizing<String>>,
    memory: Arc<dyn Memory>,
}

/// The connector of the key manager at `field`.
pub(super) fn key_manager(
    settings: &KeyManagerSettings,
    field: &str,
    means: Means<'_>,
) -> std::result::Result<Arc<dyn KeyManager>, Vec<Problem>> {
    let mut oauth = OAuth::new(settings, field, means)?;
    // Only UMA is spoken by an access token of ours, and it wants this scope (section 1.3).
    oauth.api = oauth.api.asking(&[("scope", "uma_protection".into())]);
    let initial = settings.registration_token.as_ref().map(|token| token.read()).transpose();
    let initial =
        initial.map_err(|error| vec![Problem::new(format!("{field}.registration_token"), error.to_string())])?;
    Ok(Arc::new(Standard { oauth, initial, memory: Arc::clone(means.memory) }))
}

#[async_trait]
impl KeyManager for Standard {
    fn connector(&self) -> &'static str {
        "oidc"
    }

    fn cannot(&self, operation: Operation) -> Option<Cow<'static, str>> {
        use Operation as Op;
        let directory = &self.oauth.directory;
        let as_ourselves = || (!self.oauth.api.has_credential()).then_some(NOBODY.into());
        match operation {
            Op::CreateApplication => directory.lacks(Endpoint::Registration),
            Op::NewApplicationAccessToken => directory.lacks(Endpoint::Token),
            Op::TokenMetaData => as_ourselves().or_else(|| directory.lacks(Endpoint::Introspection)),
            Op::RevokeToken | Op::RevokeOneTimeToken => {
                as_ourselves().or_else(|| directory.lacks(Endpoint::Revocation))
            }
            op if op.is_about_resources() => as_ourselves().or_else(|| directory.lacks(Endpoint::ResourceRegistration)),
            Op::AccessTokenByConsumerKey | Op::ActiveTokensByConsumerKey => {
                Some("no standard tells which tokens a client has".into())
            }
            Op::NewApplicationConsumerSecret => Some("RFC 7592 has no way to ask for another secret".into()),
            Op::GenerateConsumerSecret | Op::RetrieveConsumerSecrets | Op::DeleteConsumerSecret => {
                Some("a client of RFC 7591 has one secret".into())
            }
            op if op.is_about_scopes() => Some("no standard has a way to manage scopes".into()),
            Op::UserClaims => Some("userinfo is told to a user's own token, and to nobody by the user's name".into()),
            _ => None,
        }
    }

    async fn learn(&self) -> Result<()> {
        self.oauth.directory.learn().await
    }

    fn rehearsal(&self) -> Rehearsal {
        Rehearsal::Halting
    }

    async fn create_application(&self, application: &OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
        for (wish, field) in
            [(application.client_id.is_some(), "clientId"), (application.client_secret.is_some(), "clientSecret")]
        {
            if wish {
                return Err(Error::invalid(field, "must be left out: the provider chooses it (RFC 7591)"));
            }
        }
        let place = self.oauth.directory.place(Endpoint::Registration, Operation::CreateApplication).await?;
        let mut call = Call::post(&place).json(&client_metadata::metadata(application)?.into());
        if let Some(token) = &self.initial {
            call = call.bearer(token)?.ours();
        }
        let reply = self.oauth.api.send(call).await?;
        let told: Map<String, Value> = reply.json()?;
        let mut row = Row::of(application);
        row.learn(&told);
        let made = client_metadata::application(&told).and_then(|made| match &made.client_id {
            Some(id) => check::name("client_id", id).map(|()| made).map_err(|error| Error::Answer(error.to_string())),
            None => Ok(made),
        });
        let made = match made {
            Ok(made) => made,
            Err(error) => return Err(self.undo("whose id is not known", &row, error).await),
        };
        let id = made.client_id.clone().unwrap_or_default();
        // An id that is given again (RFC 7591 section 3) may be another application's client. What is remembered of that one
        // stays, and it is not taken back; but the newest token and secret are the good ones (RFC 7592 section 3).
        if let Ok(Some(mut known)) = self.row(&id).await {
            known.learn(&told);
            return match self.keep(&id, &known).await {
                Ok(()) => Ok(row.tell(made)),
                Err(error) => Err(error.given_twice(&id)),
            };
        }
        if let Err(error) = self.keep(&id, &row).await {
            return Err(self.undo(&id, &row, error).await);
        }
        Ok(row.tell(made))
    }

    async fn update_application(
        &self,
        consumer_key: &str,
        application: &OAuthApplicationInfo,
    ) -> Result<OAuthApplicationInfo> {
        let operation = Operation::UpdateApplication;
        let (row, place, token) = self.managed(consumer_key, operation).await?;
        let mut metadata = client_metadata::metadata(application)?;
        metadata.insert("client_id".into(), json!(consumer_key));
        let call = Call::put(&place).json(&metadata.into()).bearer(token.reveal())?;
        let reply = self.oauth.api.send(call).await?;
        let after =
            Row { access: row.access, secret: row.secret, auth_method: row.auth_method, ..Row::of(application) };
        self.learned(consumer_key, after, &reply).await.map_err(Error::unclear)
    }

    async fn retrieve_application(&self, consumer_key: &str) -> Result<OAuthApplicationInfo> {
        let (row, place, token) = self.managed(consumer_key, Operation::RetrieveApplication).await?;
        let reply = self.oauth.api.send(Call::get(&place).bearer(token.reveal())?).await?;
        self.learned(consumer_key, row, &reply).await
    }

    /// Of one that was made elsewhere nothing is remembered, and there is no other way to read it.
    fn tells_of_every_client(&self) -> bool {
        false
    }

    async fn delete_application(&self, consumer_key: &str) -> Result<()> {
        let (_, place, token) = self.managed(consumer_key, Operation::DeleteApplication).await?;
        let outcome = self.oauth.api.send(Call::delete(&place).bearer(token.reveal())?).await;
        match outcome {
            Ok(_) => self.memory.forget(&client_key(consumer_key)).await,
            // The provider knows neither it nor the token (RFC 7592 section 2.3): nothing more can be done with it.
            Err(Error::Refused { status: 401 | 404, .. }) => {
                self.memory.forget(&client_key(consumer_key)).await?;
                Err(Error::NotFound(CLIENT))
            }
            Err(error) => Err(error),
        }
    }

    async fn unmanaged(&self, consumer_key: &str) -> Result<Option<Cow<'static, str>>> {
        let row = self.row(consumer_key).await?;
        Ok(row.is_none_or(|row| row.access.is_none()).then_some(UNMANAGED.into()))
    }

    /// No standard has owners: it is kept here.
    async fn update_application_owner(&self, consumer_key: &str, owner: &str) -> Result<OAuthApplicationInfo> {
        let mut row = self.row(consumer_key).await?.ok_or(Error::NotFound(CLIENT))?;
        row.owner = Some(owner.to_owned());
        self.keep(consumer_key, &row).await?;
        if row.access.is_some() {
            return self.retrieve_application(consumer_key).await;
        }
        Ok(row.tell(OAuthApplicationInfo { client_id: Some(consumer_key.to_owned()), ..Default::default() }))
    }

    async fn map_application(&self, consumer_key: &str, secret: Option<&Sensitive>) -> Result<OAuthApplicationInfo> {
        let row = self.row(consumer_key).await?;
        let method = row.as_ref().and_then(|row| row.auth_method.clone());
        let Some(secret) = secret else {
            return match row {
                Some(Row { access: Some(_), .. }) => self.retrieve_application(consumer_key).await,
                _ => Err(Error::invalid("clientSecret", "is needed: only a client itself is told that it is there")),
            };
        };
        let own = credentials(method.as_deref(), Some(secret))?;
        if !self.oauth.is_its_secret(consumer_key, own).await? {
            return Err(match row {
                Some(_) => Error::invalid("clientSecret", "is not the secret of this client"),
                // Which of both is wrong the provider tells nobody.
                None => Error::NotFound("client with this secret"),
            });
        }
        if row.is_none() {
            self.keep(consumer_key, &Row::default()).await?;
        }
        Ok(row
            .unwrap_or_default()
            .tell(OAuthApplicationInfo { client_id: Some(consumer_key.to_owned()), ..Default::default() }))
    }

    /// One that can be managed by what is remembered of it is not left without that.
    async fn delete_mapped_application(&self, consumer_key: &str) -> Result<()> {
        match self.row(consumer_key).await? {
            Some(Row { access: None, .. }) => {
                go_on()?;
                self.memory.forget(&client_key(consumer_key)).await
            }
            _ => Ok(()),
        }
    }

    async fn new_access_token(&self, request: &AccessTokenRequest) -> Result<AccessTokenInfo> {
        let id = request.client_id.as_deref().ok_or_else(|| Error::invalid("clientId", "is needed"))?;
        let row = self.row(id).await?.unwrap_or_default();
        let secret = credentials(row.auth_method.as_deref(), request.client_secret.as_ref().or(row.secret.as_ref()))?;
        self.oauth.new_access_token(request, id, secret).await
    }

    async fn token_meta_data(&self, token: &Sensitive) -> Result<AccessTokenInfo> {
        self.oauth.token_meta_data(token, true).await
    }

    async fn revoke_token(&self, token: &Sensitive) -> Result<()> {
        self.revoke(token, Operation::RevokeToken).await
    }

    async fn revoke_one_time_token(&self, token: &Sensitive, _consumer_key: &str) -> Result<()> {
        self.revoke(token, Operation::RevokeOneTimeToken).await
    }

    async fn register_resource(&self, resource: &ApiResource) -> Result<ApiResource> {
        let resources = Resources::of(&self.oauth, Operation::RegisterNewResource).await?;
        if self.resource_row(&resource.api_id).await?.is_some() {
            return Err(Error::conflict("apiId", "the resources of this API are registered already"));
        }
        let id = resources.create(description(resource)).await?;
        let row = ResourceRow { id: id.clone(), resource: ApiResource { id: Some(id), ..resource.clone() } };
        let Err(error) = self.keep_resource(&row).await else { return Ok(row.resource) };
        Err(error.undone(resources.remove(&row.id).await, format_args!("the resource {}", row.id)))
    }

    async fn resource(&self, api_id: &str) -> Result<ApiResource> {
        let resources = Resources::of(&self.oauth, Operation::ResourceByApiId).await?;
        let row = self.resource_row(api_id).await?.ok_or(Error::NotFound(RESOURCE))?;
        let scopes = resources.read(&row.id).await?.scopes();
        Ok(ApiResource { scopes, ..row.resource })
    }

    async fn update_resource(&self, resource: &ApiResource) -> Result<ApiResource> {
        self.replace_resource(resource, Operation::UpdateRegisteredResource).await
    }

    async fn delete_resource(&self, api_id: &str) -> Result<()> {
        let resources = Resources::of(&self.oauth, Operation::DeleteRegisteredResourceByApiId).await?;
        let row = self.resource_row(api_id).await?.ok_or(Error::NotFound(RESOURCE))?;
        match resources.remove(&row.id).await {
            Ok(()) | Err(Error::NotFound(_)) => self.memory.forget(&resource_key(api_id)).await,
            Err(error) => Err(error),
        }
    }

    async fn attach_scopes(&self, api_id: &str, keys: &[String]) -> Result<ApiResource> {
        let resource = uma::attached(self.resource(api_id).await?, keys);
        self.replace_resource(&resource, Operation::AttachResourceScopes).await
    }

    async fn replace_scopes(&self, api_id: &str, keys: &[String]) -> Result<ApiResource> {
        let resource = ApiResource { scopes: keys.to_vec(), ..self.resource(api_id).await? };
        self.replace_resource(&resource, Operation::UpdateResourceScopes).await
    }

    async fn detach_scopes(&self, api_id: &str, keys: &[String]) -> Result<()> {
        let resource = uma::detached(self.resource(api_id).await?, keys);
        self.replace_resource(&resource, Operation::DetachResourceScopes).await.map(drop)
    }
}

impl Standard {
    async fn row(&self, consumer_key: &str) -> Result<Option<Row>> {
        read(self.memory.recall(&client_key(consumer_key)).await?)
    }

    async fn keep(&self, consumer_key: &str, row: &Row) -> Result<()> {
        go_on()?;
        self.memory.remember(&client_key(consumer_key), &written(row)?).await
    }

    async fn resource_row(&self, api_id: &str) -> Result<Option<ResourceRow>> {
        read(self.memory.recall(&resource_key(api_id)).await?)
    }

    async fn keep_resource(&self, row: &ResourceRow) -> Result<()> {
        self.memory.remember(&resource_key(&row.resource.api_id), &written(row)?).await
    }

    /// How a client is managed (RFC 7592).
    async fn managed(&self, consumer_key: &str, operation: Operation) -> Result<(Row, Place, Sensitive)> {
        let row = self.row(consumer_key).await?.ok_or(Error::NotFound(CLIENT))?;
        let (place, token) = self.access(&row, operation).await?;
        Ok((row, place, token))
    }

    async fn access(&self, row: &Row, operation: Operation) -> Result<(Place, Sensitive)> {
        let access = row.access.as_ref().ok_or_else(|| Error::Unsupported { operation, reason: UNMANAGED.into() })?;
        let beside = self.oauth.directory.place(Endpoint::Registration, operation).await?;
        let place = self.oauth.directory.led_to("registration_client_uri", &access.uri, &beside)?;
        Ok((place, access.token.clone()))
    }

    /// The client in an answer, without its secret. The answer may hold a new registration access token, and the one
    /// before be void from then on.
    async fn learned(&self, consumer_key: &str, mut row: Row, reply: &Reply) -> Result<OAuthApplicationInfo> {
        let told: Map<String, Value> = reply.json()?;
        let before = written(&row)?;
        row.learn(&told);
        let known = self.memory.recall(&client_key(consumer_key)).await?;
        let after = written(&row)?;
        if known.as_deref() != Some(&*after) {
            let kept = self.memory.remember(&client_key(consumer_key), &after).await;
            let turned = before != after;
            kept.map_err(|error| match turned {
                true => Error::HalfDone {
                    what: error.to_string(),
                    left: format!("the registration access token of client {consumer_key} has changed"),
                },
                false => error,
            })?;
        }
        let mut application = client_metadata::application(&told)?;
        application.client_secret = None;
        Ok(row.tell(application))
    }

    /// A client that is not as it must be, or could not be remembered, is removed again; nobody could ever manage it.
    async fn undo(&self, id: &str, row: &Row, error: Error) -> Error {
        let removed = async {
            let (place, token) = self.access(row, Operation::DeleteApplication).await?;
            self.oauth.api.send(Call::delete(&place).bearer(token.reveal())?.absent(CLIENT)).await.map(drop)
        };
        error.undone(removed.await, format_args!("the client {id}"))
    }

    /// As the client that it was issued to, where its secret is known here; as ourselves otherwise.
    async fn revoke(&self, token: &Sensitive, operation: Operation) -> Result<()> {
        let said = match self.oauth.token_meta_data(token, true).await {
            Ok(said) => said.consumer_key,
            // It may not tell about tokens at all.
            Err(Error::Unsupported { .. }) => None,
            Err(error) => return Err(error),
        };
        let Some(id) = said.or_else(|| issued_to(token.reveal())) else {
            return self.oauth.revoke(token, operation).await;
        };
        match self.row(&id).await? {
            Some(Row { secret: Some(secret), auth_method, .. }) => {
                let secret = credentials(auth_method.as_deref(), Some(&secret))?;
                self.oauth.revoke_by(token, &id, secret, operation).await?;
                self.oauth.is_revoked(token).await
            }
            _ => self.oauth.revoke(token, operation).await,
        }
    }

    async fn replace_resource(&self, resource: &ApiResource, operation: Operation) -> Result<ApiResource> {
        let resources = Resources::of(&self.oauth, operation).await?;
        let row = self.resource_row(&resource.api_id).await?.ok_or(Error::NotFound(RESOURCE))?;
        resources.replace(&row.id, description(resource)).await?;
        let resource = ApiResource { id: Some(row.id.clone()), ..resource.clone() };
        self.keep_resource(&ResourceRow { id: row.id, resource: resource.clone() }).await?;
        Ok(resource)
    }
}

/// How the client says who it is: as it was registered, where that is known.
fn credentials<'s>(method: Option<&str>, secret: Option<&'s Sensitive>) -> Result<ClientSecret<'s>> {
    Ok(match (method, secret.map(Sensitive::reveal)) {
        (Some("none") | None, None) => ClientSecret::None,
        (Some("client_secret_post"), Some(secret)) => ClientSecret::Post(secret),
        (Some("client_secret_basic") | None, Some(secret)) => ClientSecret::Basic(secret),
        (Some("client_secret_post" | "client_secret_basic"), None) => {
            return Err(Error::invalid("clientSecret", "is needed: the provider has told it to others alone"));
        }
        (Some(other), _) => {
            return Err(Error::invalid("clientId", format!("names a client that says who it is by {other}")));
        }
    })
}

/// UMA 2.0 has no place for an API's addresses: they are kept here.
fn description(resource: &ApiResource) -> Map<String, Value> {
    let name = resource.name.as_deref().unwrap_or(&resource.api_id);
    Map::from_iter([("name".into(), json!(name)), ("resource_scopes".into(), json!(resource.scopes))])
}

const CLIENT: &str = "client";
const NOBODY: &str = "the configuration does not say who we are there: client_id, client_secret";
const UNMANAGED: &str =
    "RFC 7592 wants the registration access token, which only whoever registered the client was told";
