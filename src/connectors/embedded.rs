//! Connector `embedded`: the operations of a Key Manager, done by the provider in this process.
//!
//! It can do all of them. Clients and users of the configuration are seen, and changed in the file alone.
//!
//! In a client's `parameters`, these mean something: `grant_types`, `response_types` (none), `scope`,
//! `token_endpoint_auth_method`, `client_secret_description` and `client_secret_expires_in` (of a new client), and in `additionalProperties` the three lifetimes
//! `application_access_token_expiry_time`, `user_access_token_expiry_time` and `refresh_token_expiry_time` (seconds, at
//! most the provider's own; `N/A`: those). What would ask for more than there is here (ID tokens, PKCE) is refused.
//! Everything else is kept as it is, and told again.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::embedded_client::{assert_no_secret_wished, first_secret, spec, told};
use crate::{
    authserver::{Asked, Bind, LiveToken, ManageError, NewSecret, Provider, ResourceInfo, ScopeInfo, SecretInfo},
    keymanager::{
        AccessTokenInfo, AccessTokenRequest, ApiResource, CLIENT_CREDENTIALS, ConsumerSecretInfo,
        ConsumerSecretRequest, Error, KeyManager, OAuthApplicationInfo, Operation, Rehearsal, Result, Scope, Sensitive,
        TOKEN_EXCHANGE, split_list,
    },
};

/// The embedded provider as a Key Manager.
#[derive(Debug)]
pub(super) struct Embedded {
    provider: Arc<Provider>,
}

impl Embedded {
    /// That of this provider.
    pub(super) const fn new(provider: Arc<Provider>) -> Self {
        Self { provider }
    }
}

#[async_trait]
impl KeyManager for Embedded {
    fn connector(&self) -> &'static str {
        "embedded"
    }

    fn cannot(&self, operation: Operation) -> Option<Cow<'static, str>> {
        match operation {
            Operation::SetTenantDomain => Some(Cow::Borrowed("it has no meaning here: one organization a process")),
            _ => None,
        }
    }

    fn rehearsal(&self) -> Rehearsal {
        Rehearsal::At(Arc::new(Self::new(self.provider.rehearsal())))
    }

    async fn create_application(&self, application: &OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
        let spec = spec(application, &self.provider)?;
        let (id, first) = (application.client_id.as_deref(), first_secret(application)?);
        let (client, secret) = self.provider.create_client(spec, id, first).await?;
        Ok(OAuthApplicationInfo { client_secret: Some(secret.as_str().into()), ..told(client) })
    }

    async fn update_application(
        &self,
        consumer_key: &str,
        application: &OAuthApplicationInfo,
    ) -> Result<OAuthApplicationInfo> {
        if application.client_id.as_deref().is_some_and(|id| id != consumer_key) {
            return Err(Error::invalid("clientId", "must be the client's own, or be left out"));
        }
        assert_no_secret_wished(application)?;
        let spec = spec(application, &self.provider)?;
        if let Some(secret) = &application.client_secret
            && !self.provider.is_secret(consumer_key, secret.reveal())?
        {
            return Err(Error::invalid("clientSecret", "must be a present one, or be left out"));
        }
        Ok(told(self.provider.update_client(consumer_key, spec).await?))
    }

    async fn retrieve_application(&self, consumer_key: &str) -> Result<OAuthApplicationInfo> {
        Ok(told(self.provider.client(consumer_key)?))
    }

    async fn delete_application(&self, consumer_key: &str) -> Result<()> {
        Ok(self.provider.delete_client(consumer_key).await?)
    }

    async fn update_application_owner(&self, consumer_key: &str, owner: &str) -> Result<OAuthApplicationInfo> {
        Ok(told(self.provider.change_owner(consumer_key, owner).await?))
    }

    async fn map_application(&self, consumer_key: &str, secret: Option<&Sensitive>) -> Result<OAuthApplicationInfo> {
        let client = self.provider.client(consumer_key)?;
        match secret {
            Some(secret) if !self.provider.is_secret(consumer_key, secret.reveal())? => Err(not_its_secret()),
            _ => Ok(told(client)),
        }
    }

    async fn new_access_token(&self, request: &AccessTokenRequest) -> Result<AccessTokenInfo> {
        let asked = asked(request)?;
        if let Some(token) = &request.token_to_revoke {
            if let Some(secret) = &asked.secret
                && !self.provider.is_secret(&asked.client_id, secret)?
            {
                return Err(not_its_secret());
            }
            self.provider.revoke(token.reveal(), Some(&asked.client_id)).await.map_err(|error| match error {
                ManageError::Invalid { .. } => Error::invalid("tokenToRevoke", "was issued to another client"),
                error => error.into(),
            })?;
        }
        let issued_at = self.provider.now();
        let granted = self.provider.token(&asked).await.map_err(|error| {
            let error = not_granted(error, &asked.grant);
            if request.token_to_revoke.is_some() { error.revoked() } else { error }
        })?;
        Ok(AccessTokenInfo {
            is_token_valid: true,
            is_application_token: asked.grant == CLIENT_CREDENTIALS,
            consumer_key: Some(asked.client_id),
            scope: granted.scope,
            access_token: Some(granted.access_token.as_str().into()),
            refresh_token: granted.refresh_token.as_ref().map(|token| token.as_str().into()),
            issued_time: Some(issued_at.saturating_mul(1000)),
            validity_period: Some(seconds(granted.expires_in)),
            ..AccessTokenInfo::default()
        })
    }

    async fn token_meta_data(&self, token: &Sensitive) -> Result<AccessTokenInfo> {
        Ok(self.provider.said_of(token.reveal())?.map_or_else(no_good, meta_data))
    }

    fn has_issued(&self, token: &Sensitive) -> Option<bool> {
        self.provider.has_issued(token.reveal()).ok()
    }

    /// The newest one that is good, without its text: that is kept nowhere.
    async fn access_token(&self, consumer_key: &str) -> Result<AccessTokenInfo> {
        let newest = self.provider.live_tokens(consumer_key)?.pop();
        let info = newest.map_or_else(no_good, known_by_name);
        Ok(AccessTokenInfo { consumer_key: Some(consumer_key.to_owned()), ..info })
    }

    async fn active_tokens(&self, consumer_key: &str) -> Result<Vec<String>> {
        Ok(self.provider.live_tokens(consumer_key)?.into_iter().map(|token| token.name).collect())
    }

    async fn new_secret(&self, consumer_key: &str) -> Result<Sensitive> {
        Ok(self.provider.new_secret(consumer_key).await?.as_str().into())
    }

    async fn add_secret(&self, consumer_key: &str, request: &ConsumerSecretRequest) -> Result<ConsumerSecretInfo> {
        let (info, secret) = self.provider.add_secret(consumer_key, new_secret(request)?).await?;
        Ok(ConsumerSecretInfo { client_secret: Some(secret.as_str().into()), ..masked(info) })
    }

    async fn secrets(&self, consumer_key: &str) -> Result<Vec<ConsumerSecretInfo>> {
        Ok(self.provider.secrets(consumer_key)?.into_iter().map(masked).collect())
    }

    async fn delete_secret(&self, consumer_key: &str, secret_id: &str) -> Result<()> {
        Ok(self.provider.delete_secret(consumer_key, secret_id).await?)
    }

    async fn revoke_token(&self, token: &Sensitive) -> Result<()> {
        Ok(self.provider.revoke(token.reveal(), None).await?)
    }

    async fn revoke_one_time_token(&self, token: &Sensitive, consumer_key: &str) -> Result<()> {
        Ok(self.provider.revoke(token.reveal(), Some(consumer_key)).await?)
    }

    async fn register_resource(&self, resource: &ApiResource) -> Result<ApiResource> {
        let info = info_of(resource);
        self.provider.register_resource(info.clone()).await?;
        Ok(resource_of(info))
    }

    async fn resource(&self, api_id: &str) -> Result<ApiResource> {
        Ok(resource_of(self.provider.resource(api_id)?))
    }

    async fn update_resource(&self, resource: &ApiResource) -> Result<ApiResource> {
        let info = info_of(resource);
        self.provider.update_resource(info.clone()).await?;
        Ok(resource_of(info))
    }

    async fn delete_resource(&self, api_id: &str) -> Result<()> {
        Ok(self.provider.delete_resource(api_id).await?)
    }

    async fn register_scope(&self, scope: &Scope) -> Result<Scope> {
        let info = scope_info(scope);
        self.provider.register_scope(info.clone()).await?;
        Ok(scope_of(info))
    }

    async fn scope(&self, key: &str) -> Result<Scope> {
        Ok(scope_of(self.provider.scope(key)?))
    }

    async fn scopes(&self) -> Result<Vec<Scope>> {
        Ok(self.provider.scopes()?.into_iter().map(scope_of).collect())
    }

    async fn update_scope(&self, scope: &Scope) -> Result<Scope> {
        let info = scope_info(scope);
        self.provider.update_scope(info.clone()).await?;
        Ok(scope_of(info))
    }

    async fn delete_scope(&self, key: &str) -> Result<()> {
        Ok(self.provider.delete_scope(key).await?)
    }

    async fn attach_scopes(&self, api_id: &str, keys: &[String]) -> Result<ApiResource> {
        Ok(resource_of(self.provider.bind_scopes(api_id, keys, Bind::Attach).await?))
    }

    async fn replace_scopes(&self, api_id: &str, keys: &[String]) -> Result<ApiResource> {
        Ok(resource_of(self.provider.bind_scopes(api_id, keys, Bind::Replace).await?))
    }

    async fn detach_scopes(&self, api_id: &str, keys: &[String]) -> Result<()> {
        self.provider.bind_scopes(api_id, keys, Bind::Detach).await?;
        Ok(())
    }

    async fn scopes_for_apis(&self, api_ids: &[String]) -> Result<BTreeMap<String, Vec<Scope>>> {
        let mut all = BTreeMap::new();
        for api_id in api_ids {
            let scopes = self.provider.scopes_of(api_id)?.ok_or(Error::NotFound("API"))?;
            all.insert(api_id.clone(), scopes.into_iter().map(scope_of).collect());
        }
        Ok(all)
    }

    async fn user_claims(&self, username: &str) -> Result<BTreeMap<String, String>> {
        let claims = self.provider.user_claims(username).ok_or(Error::NotFound("user"))?;
        let mut texts: BTreeMap<String, String> =
            claims.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        texts.insert("sub".to_owned(), username.to_owned());
        Ok(texts)
    }
}

impl From<ManageError> for Error {
    fn from(error: ManageError) -> Self {
        match error {
            ManageError::Invalid { field, why } => Self::invalid(field, why),
            ManageError::NotFound(what) => Self::NotFound(what),
            ManageError::Conflict(why) => Self::Conflict(why.into()),
            ManageError::Clash { field, why } => Self::conflict(field, why),
            ManageError::Full(why) => Self::Refused { status: 503, detail: why.to_owned() },
            ManageError::Refused { status, error, why } => Self::Refused { status, detail: format!("{error}: {why}") },
            ManageError::Unavailable => Self::Record(error.to_string()),
        }
    }
}

/// Why there is no token (RFC 6749 section 5.2), with the field that it is about.
fn not_granted(error: ManageError, grant: &str) -> Error {
    let ManageError::Refused { error: code, why, .. } = &error else { return error.into() };
    let field = match (*code, grant) {
        ("invalid_scope", _) => "scope",
        ("unsupported_grant_type" | "unauthorized_client", _) => "grantType",
        ("invalid_grant", REFRESH_TOKEN) => "refreshToken",
        ("invalid_grant", PASSWORD) => "resourceOwnerPassword",
        _ => return error.into(),
    };
    Error::invalid(field, format!("{code}: {why}"))
}

/// What a request for a token says, if a token can be had that way.
fn asked(request: &AccessTokenRequest) -> Result<Asked> {
    let client_id = request.client_id.clone().ok_or_else(|| Error::invalid("clientId", "is needed"))?;
    let grant = request.grant_type.as_deref().filter(|grant| !grant.is_empty()).unwrap_or(CLIENT_CREDENTIALS);
    let needed = |field: &'static str, value: Option<&str>| match value {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(Error::invalid(field, format!("is needed by the grant {grant}"))),
    };
    let mut asked = Asked {
        client_id,
        secret: request.client_secret.as_ref().map(|secret| Zeroizing::new(secret.reveal().to_owned())),
        grant: grant.to_owned(),
        scope: request.scope.join(" "),
        ..Asked::default()
    };
    match grant {
        CLIENT_CREDENTIALS => {}
        PASSWORD => {
            asked.username = needed("resourceOwnerUsername", request.resource_owner_username.as_deref())?;
            let password = request.resource_owner_password.as_ref().map(Sensitive::reveal);
            asked.password = Zeroizing::new(needed("resourceOwnerPassword", password)?);
        }
        REFRESH_TOKEN => {
            let token = request.refresh_token.as_ref().map(Sensitive::reveal);
            asked.refresh_token = Zeroizing::new(needed("refreshToken", token)?);
        }
        TOKEN_EXCHANGE | "TOKEN_EXCHANGE" => {
            let why = "the embedded provider trusts no other issuer, and so exchanges no tokens (RFC 8693)";
            return Err(Error::invalid("grantType", why));
        }
        _ => {
            return Err(Error::invalid("grantType", "must be client_credentials, password or refresh_token"));
        }
    }
    // Lost unseen, they would be taken for heeded.
    if let Some(name) = request.request_parameters.keys().next() {
        return Err(Error::invalid(format!("requestParameters.{name}"), NO_PLACE));
    }
    if request.callback_uri.is_some() {
        return Err(Error::invalid("callbackURI", NO_PLACE));
    }
    // WSO2's -1 and -2 leave it to the provider.
    asked.lifetime = match request.validity_period {
        Some(0) => return Err(Error::invalid("validityPeriod", "must be at least 1 second")),
        period => period.and_then(|seconds| u64::try_from(seconds).ok()),
    };
    Ok(asked)
}

/// What a good token says, as WSO2 has it of an introspection: times in milliseconds.
fn meta_data(mut said: Map<String, Value>) -> AccessTokenInfo {
    let number = |name: &str| said.get(name).and_then(Value::as_u64);
    let (issued, expires) = (number("iat"), number("exp"));
    let words = |name: &str| said.get(name).and_then(Value::as_str).map(str::to_owned);
    let info = AccessTokenInfo {
        is_token_valid: true,
        is_application_token: words("aut").is_some_and(|aut| aut.eq_ignore_ascii_case("APPLICATION")),
        consumer_key: words("client_id"),
        scope: split_list(&words("scope").unwrap_or_default()).into_iter().map(str::to_owned).collect(),
        issued_time: issued.map(|issued| issued.saturating_mul(1000)),
        validity_period: issued.zip(expires).map(|(issued, expires)| millis(expires.saturating_sub(issued))),
        end_user_name: words("username").or_else(|| words("sub")),
        ..AccessTokenInfo::default()
    };
    for told in ["active", "client_id", "scope", "username"] {
        said.remove(told);
    }
    AccessTokenInfo { parameters: said, ..info }
}

fn known_by_name(token: LiveToken) -> AccessTokenInfo {
    AccessTokenInfo {
        is_token_valid: true,
        is_application_token: token.user.is_none(),
        scope: token.scope,
        issued_time: Some(token.issued_at.saturating_mul(1000)),
        validity_period: Some(millis(token.expires_at.saturating_sub(token.issued_at))),
        end_user_name: token.user,
        parameters: Map::from_iter([("name".to_owned(), json!(token.name))]),
        ..AccessTokenInfo::default()
    }
}

fn no_good() -> AccessTokenInfo {
    AccessTokenInfo { errorcode: Some(NOT_VALID), ..AccessTokenInfo::default() }
}

fn new_secret(request: &ConsumerSecretRequest) -> Result<NewSecret> {
    let mut new = NewSecret {
        secret: request.client_secret.as_ref().map(|secret| Zeroizing::new(secret.reveal().to_owned())),
        ..NewSecret::default()
    };
    for (name, value) in &request.parameters {
        match (&**name, value) {
            ("description", Value::String(text)) => new.description = Some(text.clone()),
            ("expiresIn", Value::Number(seconds)) if seconds.as_u64().is_some_and(|seconds| seconds > 0) => {
                new.expires_in = seconds.as_u64();
            }
            ("description" | "expiresIn", Value::Null) => {}
            ("description", _) => return Err(Error::invalid("parameters.description", "must be a text")),
            ("expiresIn", _) => {
                return Err(Error::invalid(
                    "parameters.expiresIn",
                    "must be seconds, at least 1; left out, it does not expire",
                ));
            }
            _ => return Err(Error::invalid("parameters", "may hold description and expiresIn")),
        }
    }
    Ok(new)
}

fn masked(info: SecretInfo) -> ConsumerSecretInfo {
    let mut parameters = Map::from_iter([("expiresAt".to_owned(), json!(info.expires_at))]);
    if let Some(description) = info.description {
        parameters.insert("description".to_owned(), json!(description));
    }
    ConsumerSecretInfo { secret_id: info.id, client_secret: Some(MASK.into()), parameters }
}

fn info_of(resource: &ApiResource) -> ResourceInfo {
    let ApiResource { api_id, name, uris, scopes, .. } = resource.clone();
    ResourceInfo { api_id, name, uris, scopes }
}

fn resource_of(info: ResourceInfo) -> ApiResource {
    ApiResource {
        id: Some(info.api_id.clone()),
        api_id: info.api_id,
        name: info.name,
        uris: info.uris,
        scopes: info.scopes,
    }
}

fn scope_info(scope: &Scope) -> ScopeInfo {
    let roles = scope.roles.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|role| !role.is_empty());
    ScopeInfo {
        key: scope.key.clone(),
        name: scope.name.clone(),
        roles: roles.map(str::to_owned).collect(),
        description: scope.description.clone(),
    }
}

fn scope_of(info: ScopeInfo) -> Scope {
    let roles = (!info.roles.is_empty()).then(|| info.roles.join(","));
    Scope { id: Some(info.key.clone()), key: info.key, name: info.name, roles, description: info.description }
}

/// A claim as one text.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(members) => members.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn not_its_secret() -> Error {
    Error::invalid("clientSecret", "is not the client's")
}

fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}

fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

const NO_PLACE: &str = "must be left out: the embedded provider's grants take no such thing";
const PASSWORD: &str = "password";
const REFRESH_TOKEN: &str = "refresh_token";
/// WSO2's code of a token that is not good.
const NOT_VALID: u32 = 900_901;
/// In place of a secret.
const MASK: &str = "********";

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;
