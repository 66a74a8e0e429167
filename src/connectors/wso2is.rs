//! Connector `wso2is`: WSO2 Identity Server, by the calls that WSO2's own API manager makes.
//!
//! We are its administrator, or a user who may manage clients and scopes: `client_id` and `client_secret` are the
//! user's name and password. Endpoints that the settings do not name are where the server has them beside `issuer`, in
//! the tenant that stands there (`/t/{tenant}/…`).
//!
//! Two things are not done as the original does them: a changed client's secret never stands in for its id, and a
//! client that is adopted without a secret is no crash.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{
    Means,
    call::{Call, asking, below},
    client_auth::same,
    directory::Endpoint,
    endpoint,
    oauth::{ClientSecret, OAuth, introspected},
    oidc::Place,
    wso2_client as client,
};
use crate::{
    keymanager::{
        AccessTokenInfo, AccessTokenRequest, ConsumerSecretInfo, ConsumerSecretRequest, Error, KeyManager,
        OAuthApplicationInfo, Operation, Rehearsal, Result, Scope, Sensitive, TOKEN_EXCHANGE,
    },
    net::Reach,
    problem::Problem,
    token::settings::{ClientAuth, KeyManagerSettings},
};

/// An identity server, in one tenant.
#[derive(Debug)]
struct IdentityServer {
    oauth: OAuth,
    user: Box<str>,
    password: Zeroizing<String>,
    tenant: Box<str>,
    tenant_field: HeaderValue,
    clients: Place,
    scopes: Place,
    claims: Place,
    one_time: Place,
    introspection: Place,
}

#[derive(Debug, Deserialize)]
struct ScopeBody {
    name: String,
    #[serde(rename = "displayName")]
    display_name: Option<String>,
    description: Option<String>,
    #[serde(default)]
    bindings: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct SecretBody {
    id: Option<String>,
    description: Option<String>,
    client_secret: Option<Sensitive>,
    client_secret_expires_at: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Listed<T> {
    #[serde(default = "Vec::new")]
    list: Vec<T>,
}

#[derive(Debug, Deserialize)]
struct Claim {
    uri: String,
    value: Option<String>,
}

/// The connector of the key manager at `field`.
pub(super) fn key_manager(
    settings: &KeyManagerSettings,
    field: &str,
    means: Means<'_>,
) -> std::result::Result<Arc<dyn KeyManager>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut wrong = |name: &str, why: &str| problems.push(Problem::new(format!("{field}.{name}"), why));
    if settings.client_auth != ClientAuth::Basic {
        wrong("client_auth", "must be basic: the server's management takes a user's name and password");
    }
    let (user, password) = (settings.client_id.clone(), settings.client_secret.as_ref().map(|secret| secret.read()));
    if user.as_ref().is_none_or(|user| user.is_empty() || user.contains(':')) {
        wrong("client_id", "is needed, without a colon: the user that manages clients");
    }
    let password = match password {
        Some(Ok(password)) => password,
        Some(Err(error)) => {
            wrong("client_secret", &error.to_string());
            Zeroizing::default()
        }
        None => {
            wrong("client_secret", "is needed: the password of the user that manages clients");
            Zeroizing::default()
        }
    };
    let base = endpoint(&settings.issuer, settings.allow_http).map_err(|why| wrong("issuer", why)).ok();
    let (Some(base), Some(user), true) = (base, user, problems.is_empty()) else { return Err(problems) };
    let tenant = base.path().strip_prefix("/t/").and_then(|rest| rest.split('/').next()).map(str::to_owned);
    let context = tenant.as_ref().map(|tenant| format!("/t/{tenant}")).unwrap_or_default();
    let at = |path: &str| {
        let mut url = base.clone();
        url.set_path(path);
        Place { url, reach: Reach::Local }
    };
    let in_tenant = |path: &str| at(&format!("{context}{path}"));
    let by_hand = |text: &Option<String>, name: &str, otherwise: Place| match text {
        None => Ok(otherwise),
        Some(text) => endpoint(text, settings.allow_http)
            .map(|url| Place { url, reach: Reach::Local })
            .map_err(|why| vec![Problem::new(format!("{field}.{name}"), why)]),
    };
    let clients = in_tenant("/keymanager-operations/dcr/register");
    let users = in_tenant("/keymanager-operations/user-info");
    let introspection = in_tenant("/oauth2/introspect");
    let users = by_hand(&settings.userinfo_endpoint, "userinfo_endpoint", users)?;
    let tenant = tenant.unwrap_or_else(|| SUPER_TENANT.to_owned());
    let tenant_field = HeaderValue::try_from(&tenant)
        .map_err(|_| vec![Problem::new(format!("{field}.issuer"), "names a tenant that is no header field")])?;
    let mut oauth = OAuth::new(settings, field, means)?;
    oauth.directory =
        oauth.directory.known(Endpoint::Token, at("/oauth2/token")).known(Endpoint::Revocation, at("/oauth2/revoke"));
    Ok(Arc::new(IdentityServer {
        oauth,
        user: user.into(),
        password,
        tenant: tenant.into(),
        tenant_field,
        clients: by_hand(&settings.registration_endpoint, "registration_endpoint", clients)?,
        scopes: by_hand(&settings.scope_endpoint, "scope_endpoint", in_tenant("/api/identity/oauth2/v1.0/scopes"))?,
        claims: below(&users, ["claims", "generate"]),
        one_time: in_tenant("/keymanager-operations/revoke-one-time-token"),
        introspection: by_hand(&settings.introspection_endpoint, "introspection_endpoint", introspection)?,
    }))
}

#[async_trait]
impl KeyManager for IdentityServer {
    fn connector(&self) -> &'static str {
        "wso2is"
    }

    fn cannot(&self, operation: Operation) -> Option<Cow<'static, str>> {
        use Operation as Op;
        match operation {
            Op::AccessTokenByConsumerKey | Op::ActiveTokensByConsumerKey => {
                Some("the server does not tell which tokens a client has".into())
            }
            op if op.is_about_resources() => {
                Some("the server keeps no resources of APIs: WSO2's API manager does itself".into())
            }
            _ => None,
        }
    }

    fn rehearsal(&self) -> Rehearsal {
        Rehearsal::Halting
    }

    async fn create_application(&self, application: &OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
        let mut body = client::body(application, self.owner(application))?;
        let kind = if application.token_type.as_deref() == Some("JWT") { "JWT" } else { "DEFAULT" };
        body.insert("token_type_extension".into(), json!(kind));
        // Where nobody wishes for an id it is chosen here, so that it is known whatever becomes of the answer.
        let chosen = match &application.client_id {
            Some(_) => None,
            None => Some(client::random_id()?),
        };
        if let Some(id) = application.client_id.as_ref().or(chosen.as_ref()) {
            body.insert("ext_param_client_id".into(), json!(id));
        }
        if let Some(secret) = &application.client_secret {
            body.insert("ext_param_client_secret".into(), json!(secret.reveal()));
        }
        let told = self.send(Call::post(&self.clients).json(&body.into())).await;
        let made = told.and_then(|told: Map<String, Value>| {
            let secret = told.get("client_secret").and_then(Value::as_str).map(Sensitive::from);
            let made = client::read(&told).map_err(Error::unclear)?;
            Ok(OAuthApplicationInfo { client_secret: secret, ..made })
        });
        match (made, &chosen) {
            (Err(error @ (Error::Unclear(_) | Error::TimedOut(_))), Some(id)) => Err(self.undo(id, error).await),
            (made, _) => made,
        }
    }

    async fn update_application(
        &self,
        consumer_key: &str,
        application: &OAuthApplicationInfo,
    ) -> Result<OAuthApplicationInfo> {
        let present = self.told(consumer_key).await?;
        let present = present.get("token_type_extension").and_then(Value::as_str);
        let mut body = client::body(application, self.owner(application))?;
        body.insert("client_id".into(), json!(consumer_key));
        let kind = client::token_type(present, application.token_type.as_deref());
        body.insert("token_type_extension".into(), json!(kind));
        let place = self.place(consumer_key);
        client::read(&self.send(Call::put(&place).json(&body.into()).absent(CLIENT)).await?).map_err(Error::unclear)
    }

    async fn retrieve_application(&self, consumer_key: &str) -> Result<OAuthApplicationInfo> {
        client::read(&self.told(consumer_key).await?)
    }

    async fn delete_application(&self, consumer_key: &str) -> Result<()> {
        self.done(Call::delete(&self.place(consumer_key)).absent(CLIENT)).await
    }

    async fn update_application_owner(&self, consumer_key: &str, owner: &str) -> Result<OAuthApplicationInfo> {
        let place = below(&self.place(consumer_key), ["change-owner"]);
        let place = asking(&place, [("applicationOwner", self.without_tenant(owner))]);
        self.done(Call::post(&place).absent(CLIENT)).await?;
        self.retrieve_application(consumer_key).await.map_err(Error::unclear)
    }

    async fn map_application(&self, consumer_key: &str, secret: Option<&Sensitive>) -> Result<OAuthApplicationInfo> {
        let told = self.told(consumer_key).await?;
        if let Some(secret) = secret {
            let is_its = match own_secret(&told) {
                Some(own) => same(own, secret.reveal()),
                // With several secrets none is told: the client itself is let in, or not.
                None => self.oauth.is_its_secret(consumer_key, ClientSecret::Post(secret.reveal())).await?,
            };
            if !is_its {
                return Err(Error::invalid("clientSecret", "is not the secret of this client"));
            }
        }
        client::read(&told)
    }

    async fn new_access_token(&self, request: &AccessTokenRequest) -> Result<AccessTokenInfo> {
        let id = request.client_id.as_deref().ok_or_else(|| Error::invalid("clientId", "is needed"))?;
        let secret = match &request.client_secret {
            Some(secret) => secret.clone(),
            None => {
                let told = self.told(id).await?;
                let own = own_secret(&told).map(Sensitive::from);
                own.ok_or_else(|| Error::invalid("clientSecret", "is needed: the server does not tell it"))?
            }
        };
        // It revokes by the form alone.
        let form = ClientSecret::Post(secret.reveal());
        if request.grant_type.as_deref() != Some(TOKEN_EXCHANGE) {
            let basic = ClientSecret::Basic(secret.reveal());
            return self.oauth.new_access_token_after(request, id, basic, form).await;
        }
        let mut request = request.clone();
        request.request_parameters.entry("subject_token_type".into()).or_insert_with(|| JWT.into());
        self.oauth.new_access_token(&request, id, form).await
    }

    async fn token_meta_data(&self, token: &Sensitive) -> Result<AccessTokenInfo> {
        let call = Call::post(&self.introspection).reads().form([("token", token.reveal())]);
        let body: Map<String, Value> = self.send(call).await?;
        // Whether it is the client's own, it says by `aut` and by nothing else.
        let own = body.get("aut").and_then(Value::as_str).is_some_and(|aut| aut.eq_ignore_ascii_case("application"));
        let user = body.get("username").and_then(Value::as_str).map(str::to_owned);
        let mut said = introspected(body)?;
        if said.is_token_valid {
            (said.is_application_token, said.end_user_name) = (own, user);
        }
        Ok(said)
    }

    async fn new_secret(&self, consumer_key: &str) -> Result<Sensitive> {
        let place = below(&self.place(consumer_key), ["regenerate-consumer-secret"]);
        let made: SecretBody = self.send(Call::post(&place).absent(CLIENT)).await?;
        made.client_secret.ok_or_else(|| Error::Answer("there is no client_secret in the answer".into()).unclear())
    }

    async fn add_secret(&self, consumer_key: &str, request: &ConsumerSecretRequest) -> Result<ConsumerSecretInfo> {
        let parameter = |name: &str| request.parameters.get(name).cloned().unwrap_or(Value::Null);
        let body = json!({
            "expires_in": parameter("expiresIn"),
            "description": parameter("description"),
            "client_secret": request.client_secret.as_ref().map(Sensitive::reveal),
        });
        let place = below(&self.place(consumer_key), ["generate-secret"]);
        let made: SecretBody = self.send(Call::post(&place).json(&body).absent(CLIENT)).await?;
        made.told(false).map_err(Error::unclear)
    }

    async fn secrets(&self, consumer_key: &str) -> Result<Vec<ConsumerSecretInfo>> {
        let place = below(&self.place(consumer_key), ["secrets"]);
        let found: Listed<SecretBody> = self.send(Call::get(&place).absent(CLIENT)).await?;
        found.list.into_iter().map(|secret| secret.told(true)).collect()
    }

    async fn delete_secret(&self, consumer_key: &str, secret_id: &str) -> Result<()> {
        let place = below(&self.place(consumer_key), ["secrets", &encoded(secret_id)]);
        self.done(Call::delete(&place).absent("secret")).await
    }

    /// As the client that it was issued to, whose secret the server tells us: it revokes for nobody else.
    async fn revoke_token(&self, token: &Sensitive) -> Result<()> {
        let said = self.token_meta_data(token).await?;
        let (true, Some(id)) = (said.is_token_valid, said.consumer_key) else { return Ok(()) };
        let told = self.told(&id).await?;
        let secret = own_secret(&told)
            .ok_or(Error::Unsupported { operation: Operation::RevokeToken, reason: Cow::Borrowed(NO_SECRET) })?;
        self.oauth.revoke_by(token, &id, ClientSecret::Post(secret), Operation::RevokeToken).await
    }

    async fn revoke_one_time_token(&self, token: &Sensitive, consumer_key: &str) -> Result<()> {
        let body = json!({"token": token.reveal(), "consumer_key": consumer_key});
        self.done(Call::post(&self.one_time).json(&body)).await
    }

    async fn register_scope(&self, scope: &Scope) -> Result<Scope> {
        let mut body = scope_body(scope);
        body.insert("name".into(), json!(scope.key));
        let made = self.done(Call::post(&self.scopes).json(&body.into())).await;
        made.map_err(|error| error.about("key")).map(|()| scope.clone())
    }

    async fn scope(&self, key: &str) -> Result<Scope> {
        let place = below(&self.scopes, ["name", key]);
        self.send::<ScopeBody>(Call::get(&place).absent(SCOPE)).await.map(ScopeBody::told)
    }

    async fn scopes(&self) -> Result<Vec<Scope>> {
        let found: Vec<ScopeBody> = self.send(Call::get(&self.scopes)).await?;
        Ok(found.into_iter().map(ScopeBody::told).collect())
    }

    async fn scope_exists(&self, key: &str) -> Result<bool> {
        let place = asking(&below(&self.scopes, ["name", key]), [("includeOIDCScopes", "true")]);
        match self.done(Call::new(Method::HEAD, &place).absent(SCOPE)).await {
            Ok(()) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn update_scope(&self, scope: &Scope) -> Result<Scope> {
        let place = below(&self.scopes, ["name", &scope.key]);
        self.done(Call::put(&place).json(&scope_body(scope).into()).absent(SCOPE)).await?;
        Ok(scope.clone())
    }

    async fn delete_scope(&self, key: &str) -> Result<()> {
        self.done(Call::delete(&below(&self.scopes, ["name", key])).absent(SCOPE)).await
    }

    async fn user_claims(&self, username: &str) -> Result<BTreeMap<String, String>> {
        let name = self.without_tenant(username);
        let (domain, name) = match name.split_once('/') {
            Some((domain, name)) => (Some(domain), name),
            None => (None, name),
        };
        let body = json!({
            "username": name, "domain": domain, "dialect": DIALECT, "accessToken": null, "bindFederatedUserClaims": false,
        });
        let found: Listed<Claim> = self.send(Call::post(&self.claims).reads().json(&body).absent(USER)).await?;
        // It has an empty list for whom it does not know.
        if found.list.is_empty() {
            return Err(Error::NotFound(USER));
        }
        Ok(found.list.into_iter().filter_map(|claim| Some((claim.uri, claim.value?))).collect())
    }
}

impl IdentityServer {
    /// A call as its administrator, in our tenant.
    fn signed<'c>(&self, call: Call<'c>) -> Result<Call<'c>> {
        let pair = Zeroizing::new(format!("{}:{}", self.user, *self.password));
        let pair = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        let call = call.secret(&self.password).authorization(&format!("Basic {}", *pair), &pair)?;
        Ok(call.ours().header(TENANT, self.tenant_field.clone()))
    }

    async fn send<T: for<'d> Deserialize<'d>>(&self, call: Call<'_>) -> Result<T> {
        self.oauth.api.send(self.signed(call)?).await?.json()
    }

    async fn done(&self, call: Call<'_>) -> Result<()> {
        self.oauth.api.send(self.signed(call)?).await.map(drop)
    }

    /// Takes a client away of which nobody knows whether it was made. Its id is ours, so that it is no other's.
    async fn undo(&self, id: &str, error: Error) -> Error {
        error.undone(self.delete_application(id).await, format_args!("the client {id}"))
    }

    /// Where a client is: its id, in base64url with padding.
    fn place(&self, consumer_key: &str) -> Place {
        below(&self.clients, [&*encoded(consumer_key)])
    }

    async fn told(&self, consumer_key: &str) -> Result<Map<String, Value>> {
        self.send(Call::get(&self.place(consumer_key)).absent(CLIENT)).await
    }

    fn owner<'a>(&'a self, application: &'a OAuthApplicationInfo) -> &'a str {
        self.without_tenant(application.app_owner.as_deref().unwrap_or(&self.user))
    }

    /// A user's name without our tenant's, which may stand behind it. Any other `@` is of a mail address.
    fn without_tenant<'n>(&self, name: &'n str) -> &'n str {
        let short = name.strip_suffix(&*self.tenant).and_then(|name| name.strip_suffix('@'));
        short.filter(|name| !name.is_empty()).unwrap_or(name)
    }
}

impl ScopeBody {
    fn told(self) -> Scope {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        Scope {
            key: self.name,
            name: filled(self.display_name),
            roles: (!self.bindings.is_empty()).then(|| self.bindings.join(",")),
            description: filled(self.description),
            id: None,
        }
    }
}

impl SecretBody {
    fn told(self, masked: bool) -> Result<ConsumerSecretInfo> {
        let mut parameters = Map::new();
        if let Some(description) = self.description {
            parameters.insert("description".into(), description.into());
        }
        parameters.insert("expiresAt".into(), json!(self.client_secret_expires_at.unwrap_or_default()));
        Ok(ConsumerSecretInfo {
            secret_id: self.id.ok_or_else(|| Error::Answer("the secret has no id".into()))?,
            client_secret: if masked { Some(MASK.into()) } else { self.client_secret },
            parameters,
        })
    }
}

fn scope_body(scope: &Scope) -> Map<String, Value> {
    let roles = scope.roles.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|role| !role.is_empty());
    Map::from_iter([
        ("displayName".into(), json!(scope.name.as_deref().unwrap_or(&scope.key))),
        ("description".into(), json!(scope.description.as_deref().unwrap_or_default())),
        ("bindings".into(), json!(roles.collect::<Vec<_>>())),
    ])
}

/// The client's secret, where the server tells it: with several of them it is masked.
fn own_secret(told: &Map<String, Value>) -> Option<&str> {
    told.get("client_secret").and_then(Value::as_str).filter(|secret| !secret.is_empty() && !secret.contains("***"))
}

fn encoded(id: &str) -> String {
    URL_SAFE.encode(id)
}

const NO_SECRET: &str =
    "the client has several secrets, none of which the server tells, and it revokes for the client alone";
const TENANT: HeaderName = HeaderName::from_static("x-wso2-tenant");
const SUPER_TENANT: &str = "carbon.super";
const DIALECT: &str = "http://wso2.org/claims";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const MASK: &str = "********";
const CLIENT: &str = "client";
const SCOPE: &str = "scope";
const USER: &str = "user";
