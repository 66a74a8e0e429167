//! A connector outside the process, in any language: the JSON over HTTP of `config/connector-openapi.yaml`.
//!
//! What it cannot do it says itself (`GET /capabilities`), and is believed for a minute. Before it has said so for the
//! first time, nothing is asked of it.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    Means,
    api::{Api, Reply},
    call::{self, Call},
    endpoint,
    http_answers::{Known, api, broken, client, drop_secrets, made, named, of_apis, of_client},
    oidc::Place,
    refusal::{Refusal, Secrets},
};
use crate::{
    keymanager::{
        AccessTokenInfo, AccessTokenRequest, ApiResource, ConsumerSecretInfo, ConsumerSecretRequest, Error, KeyManager,
        OAuthApplicationInfo, Operation, Rehearsal, Result, Scope, Sensitive,
    },
    net::Reach,
    problem::Problem,
    token::settings::{ClientAuth, ConnectorKind, KeyManagerSettings},
};

/// A connector at an address.
#[derive(Debug)]
pub(super) struct Http {
    api: Api,
    base: Place,
    secret: Sensitive,
    said: ArcSwapOption<Capabilities>,
}

/// What it cannot do, as it has said.
#[derive(Debug, Clone)]
struct Capabilities {
    cannot: BTreeMap<Operation, String>,
    at: Instant,
}

/// One call.
#[derive(Debug)]
struct Ask<'a> {
    operation: Operation,
    method: Method,
    /// The path's segments.
    path: &'a [&'a str],
    body: Option<Value>,
    /// What a `not_found` says there is none of.
    what: &'static str,
}

impl Http {
    pub(super) fn new(
        settings: &KeyManagerSettings,
        field: &str,
        means: Means<'_>,
    ) -> std::result::Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut wrong = |name: &str, why: String| problems.push(Problem::new(format!("{field}.{name}"), why));
        let base = settings.endpoint.as_deref().ok_or("is needed by connector \"http\"");
        let base = base.and_then(|text| endpoint(text, settings.allow_http));
        let base = base.map_err(|why| wrong("endpoint", why.into())).ok();
        let secret = settings.token.as_ref().map(|token| token.read());
        let secret = secret.unwrap_or_else(|| Ok(Zeroizing::default()));
        let secret = secret.map_err(|error| wrong("token", error.to_string())).unwrap_or_default();
        let api = Api::new(settings, field, means.client, means.clock).map_err(|found| problems.extend(found)).ok();
        let (Some(api), Some(url), true) = (api, base, problems.is_empty()) else { return Err(problems) };
        let base = Place { url, reach: Reach::Local };
        Ok(Self { api, base, secret: secret.as_str().into(), said: ArcSwapOption::empty() })
    }

    /// What it cannot do; asked once a minute, and believed longer while it does not answer.
    async fn capabilities(&self) -> Result<Arc<Capabilities>> {
        let known = self.said.load_full();
        match known {
            Some(known) if known.at.elapsed() < BELIEVED => Ok(known),
            Some(known) => {
                // Whoever comes meanwhile takes what is known.
                self.said.store(Some(Arc::new(Capabilities { at: Instant::now(), ..(*known).clone() })));
                Ok(self.ask_capabilities().await.unwrap_or(known))
            }
            None => self.ask_capabilities().await.map_err(|error| match error.of_reading() {
                error @ (Error::Credentials(_) | Error::Unreachable(_) | Error::LeftAlone { .. }) => error,
                other => Error::Unreachable(format!("it does not say what it cannot do: {other}")),
            }),
        }
    }

    async fn ask_capabilities(&self) -> Result<Arc<Capabilities>> {
        #[derive(Deserialize)]
        struct Body {
            cannot: BTreeMap<String, String>,
        }
        let place = call::below(&self.base, ["capabilities"]);
        let body: Body = self.send(Call::get(&place), |_| None).await?.json()?;
        let asked = Operation::ALL.into_iter().filter(|operation| operation.is_providers());
        let cannot = asked.filter_map(|operation| {
            let reason = body.cannot.get(source(operation).name())?;
            Some((operation, self.told(reason)))
        });
        let said = Arc::new(Capabilities { cannot: cannot.collect(), at: Instant::now() });
        self.said.store(Some(Arc::clone(&said)));
        Ok(said)
    }

    /// A reason as it may be told: bounded, without control characters and without our secret.
    fn told(&self, reason: &str) -> String {
        let mut secrets = Secrets::default();
        secrets.note(self.secret.reveal());
        secrets.redact(reason).chars().take(MOST_CHARACTERS).collect()
    }

    async fn ask(&self, ask: Ask<'_>) -> Result<Reply> {
        let place = call::below(&self.base, ask.path.iter().copied());
        self.ask_at(&place, ask).await
    }

    async fn ask_at(&self, place: &Place, ask: Ask<'_>) -> Result<Reply> {
        let Ask { operation, method, body, what, .. } = ask;
        if let Some(reason) = self.capabilities().await?.cannot.get(&operation) {
            return Err(Error::Unsupported { operation, reason: reason.clone().into() });
        }
        let call = Call::new(method, place);
        let call = if operation.writes() { call } else { call.reads() };
        let call = if let Some(body) = &body { call.json(body) } else { call };
        self.send(call, |refusal| problem(operation, what, refusal)).await
    }

    async fn send(&self, call: Call<'_>, read: impl FnOnce(&Refusal<'_>) -> Option<Error> + Send) -> Result<Reply> {
        let secret = self.secret.reveal();
        let call = call.authorization(&format!("Bearer {secret}"), secret)?;
        self.api
            .send_reading(call, |refusal| match refusal.status {
                StatusCode::UNAUTHORIZED => Some(Error::Credentials(refusal.words.clone())),
                _ => read(refusal),
            })
            .await
    }

    async fn get<T: DeserializeOwned>(&self, operation: Operation, path: &[&str], what: &'static str) -> Result<T> {
        self.ask(Ask { operation, method: Method::GET, path, body: None, what }).await?.json()
    }

    async fn post<T: DeserializeOwned>(
        &self,
        operation: Operation,
        path: &[&str],
        body: &(impl Serialize + Sync),
        what: &'static str,
    ) -> Result<T> {
        self.ask(Ask { operation, method: Method::POST, path, body: Some(written(body)?), what }).await?.json()
    }

    async fn put<T: DeserializeOwned>(
        &self,
        operation: Operation,
        path: &[&str],
        body: &(impl Serialize + Sync),
        what: &'static str,
    ) -> Result<T> {
        self.ask(Ask { operation, method: Method::PUT, path, body: Some(written(body)?), what }).await?.json()
    }

    async fn delete(&self, operation: Operation, path: &[&str], what: &'static str) -> Result<()> {
        self.ask(Ask { operation, method: Method::DELETE, path, body: None, what }).await.map(drop)
    }
}

#[async_trait]
impl KeyManager for Http {
    fn connector(&self) -> &'static str {
        "http"
    }

    fn cannot(&self, operation: Operation) -> Option<Cow<'static, str>> {
        let said = self.said.load();
        said.as_ref()?.cannot.get(&operation).map(|reason| reason.clone().into())
    }

    async fn learn(&self) -> Result<()> {
        self.capabilities().await.map(drop)
    }

    fn rehearsal(&self) -> Rehearsal {
        Rehearsal::Halting
    }

    /// So it is asked to be, by its interface.
    fn is_strict(&self) -> bool {
        true
    }

    async fn create_application(&self, application: &OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
        made(self.post(Operation::CreateApplication, &["clients"], application, CLIENT).await?)
    }

    async fn update_application(
        &self,
        consumer_key: &str,
        application: &OAuthApplicationInfo,
    ) -> Result<OAuthApplicationInfo> {
        let application = OAuthApplicationInfo { client_secret: None, ..application.clone() };
        let (operation, path) = (Operation::UpdateApplication, ["clients", consumer_key]);
        client(operation, consumer_key, self.put(operation, &path, &application, CLIENT).await?)
    }

    async fn retrieve_application(&self, consumer_key: &str) -> Result<OAuthApplicationInfo> {
        let operation = Operation::RetrieveApplication;
        client(operation, consumer_key, self.get(operation, &["clients", consumer_key], CLIENT).await?)
    }

    async fn delete_application(&self, consumer_key: &str) -> Result<()> {
        self.delete(Operation::DeleteApplication, &["clients", consumer_key], CLIENT).await
    }

    async fn update_application_owner(&self, consumer_key: &str, owner: &str) -> Result<OAuthApplicationInfo> {
        let (operation, path) = (Operation::UpdateApplicationOwner, ["clients", consumer_key, "owner"]);
        client(operation, consumer_key, self.put(operation, &path, &json!({ "owner": owner }), CLIENT).await?)
    }

    async fn map_application(&self, consumer_key: &str, secret: Option<&Sensitive>) -> Result<OAuthApplicationInfo> {
        let body = secret.map_or_else(|| json!({}), |secret| json!({ "clientSecret": secret }));
        let (operation, path) = (Operation::MapOAuthApplication, ["clients", consumer_key, "map"]);
        client(operation, consumer_key, self.post(operation, &path, &body, CLIENT).await?)
    }

    async fn new_access_token(&self, request: &AccessTokenRequest) -> Result<AccessTokenInfo> {
        let operation = Operation::NewApplicationAccessToken;
        let issued: AccessTokenInfo = self.post(operation, &["tokens"], request, CLIENT).await?;
        match &issued.access_token {
            Some(token) if !token.reveal().is_empty() => of_client(operation, request.client_id.as_deref(), issued),
            _ => Err(broken(operation, "there is no accessToken in its answer")),
        }
    }

    async fn token_meta_data(&self, token: &Sensitive) -> Result<AccessTokenInfo> {
        let (operation, body) = (Operation::TokenMetaData, json!({ "token": token }));
        let known: Known = self.post(operation, &["tokens", "introspect"], &body, "token").await?;
        known.info(operation)
    }

    async fn access_token(&self, consumer_key: &str) -> Result<AccessTokenInfo> {
        let operation = Operation::AccessTokenByConsumerKey;
        let known: Known = self.get(operation, &["clients", consumer_key, "token"], "token").await?;
        of_client(operation, Some(consumer_key), known.info(operation)?)
    }

    async fn active_tokens(&self, consumer_key: &str) -> Result<Vec<String>> {
        self.get(Operation::ActiveTokensByConsumerKey, &["clients", consumer_key, "tokens"], CLIENT).await
    }

    async fn new_secret(&self, consumer_key: &str) -> Result<Sensitive> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Body {
            client_secret: Sensitive,
        }
        let (operation, path) = (Operation::NewApplicationConsumerSecret, ["clients", consumer_key, "secret"]);
        let body: Body = self.post(operation, &path, &json!({}), CLIENT).await?;
        match body.client_secret.reveal() {
            "" => Err(broken(operation, "there is no clientSecret in its answer")),
            _ => Ok(body.client_secret),
        }
    }

    async fn add_secret(&self, consumer_key: &str, request: &ConsumerSecretRequest) -> Result<ConsumerSecretInfo> {
        let (operation, path) = (Operation::GenerateConsumerSecret, ["clients", consumer_key, "secrets"]);
        let made: ConsumerSecretInfo = self.post(operation, &path, request, CLIENT).await?;
        match &made.client_secret {
            Some(secret) if !secret.reveal().is_empty() && !made.secret_id.is_empty() => Ok(made),
            _ => Err(broken(operation, "there is no secretId and clientSecret in its answer")),
        }
    }

    async fn secrets(&self, consumer_key: &str) -> Result<Vec<ConsumerSecretInfo>> {
        let path = ["clients", consumer_key, "secrets"];
        let mut secrets: Vec<ConsumerSecretInfo> = self.get(Operation::RetrieveConsumerSecrets, &path, CLIENT).await?;
        for secret in &mut secrets {
            // Whatever it thinks masked is.
            secret.client_secret = Some(MASK.into());
            drop_secrets(&mut secret.parameters);
        }
        Ok(secrets)
    }

    async fn delete_secret(&self, consumer_key: &str, secret_id: &str) -> Result<()> {
        let path = ["clients", consumer_key, "secrets", secret_id];
        self.delete(Operation::DeleteConsumerSecret, &path, "secret").await
    }

    async fn revoke_token(&self, token: &Sensitive) -> Result<()> {
        let (operation, path, body) = (Operation::RevokeToken, &["tokens", "revoke"], Some(json!({ "token": token })));
        self.ask(Ask { operation, method: Method::POST, path, body, what: "token" }).await.map(drop)
    }

    async fn revoke_one_time_token(&self, token: &Sensitive, consumer_key: &str) -> Result<()> {
        let body = Some(json!({ "token": token, "consumerKey": consumer_key }));
        let (operation, path) = (Operation::RevokeOneTimeToken, &["tokens", "revoke-one-time"]);
        self.ask(Ask { operation, method: Method::POST, path, body, what: "token" }).await.map(drop)
    }

    async fn register_resource(&self, resource: &ApiResource) -> Result<ApiResource> {
        let operation = Operation::RegisterNewResource;
        api(operation, &resource.api_id, self.post(operation, &["resources"], resource, BOUND).await?)
    }

    async fn resource(&self, api_id: &str) -> Result<ApiResource> {
        let operation = Operation::ResourceByApiId;
        api(operation, api_id, self.get(operation, &["resources", api_id], RESOURCE).await?)
    }

    async fn update_resource(&self, resource: &ApiResource) -> Result<ApiResource> {
        let (operation, path) = (Operation::UpdateRegisteredResource, ["resources", &resource.api_id]);
        api(operation, &resource.api_id, self.put(operation, &path, resource, BOUND).await?)
    }

    async fn delete_resource(&self, api_id: &str) -> Result<()> {
        self.delete(Operation::DeleteRegisteredResourceByApiId, &["resources", api_id], RESOURCE).await
    }

    async fn register_scope(&self, scope: &Scope) -> Result<Scope> {
        let operation = Operation::RegisterScope;
        named(operation, &scope.key, self.post(operation, &["scopes"], scope, SCOPE).await?)
    }

    async fn scope(&self, key: &str) -> Result<Scope> {
        let operation = Operation::ScopeByName;
        named(operation, key, self.get(operation, &["scopes", key], SCOPE).await?)
    }

    async fn scopes(&self) -> Result<Vec<Scope>> {
        self.get(Operation::AllScopes, &["scopes"], SCOPE).await
    }

    async fn update_scope(&self, scope: &Scope) -> Result<Scope> {
        let operation = Operation::UpdateScope;
        named(operation, &scope.key, self.put(operation, &["scopes", &scope.key], scope, SCOPE).await?)
    }

    async fn delete_scope(&self, key: &str) -> Result<()> {
        self.delete(Operation::DeleteScope, &["scopes", key], SCOPE).await
    }

    async fn attach_scopes(&self, api_id: &str, keys: &[String]) -> Result<ApiResource> {
        let (operation, path) = (Operation::AttachResourceScopes, ["resources", api_id, "scopes"]);
        api(operation, api_id, self.put(operation, &path, &json!({ "scopes": keys }), BOUND).await?)
    }

    async fn replace_scopes(&self, api_id: &str, keys: &[String]) -> Result<ApiResource> {
        let (operation, path) = (Operation::UpdateResourceScopes, &["resources", api_id, "scopes"]);
        let body = Some(json!({ "scopes": keys }));
        let reply = self.ask(Ask { operation, method: Method::PATCH, path, body, what: BOUND }).await?;
        api(operation, api_id, reply.json()?)
    }

    async fn detach_scopes(&self, api_id: &str, keys: &[String]) -> Result<()> {
        let (operation, path) = (Operation::DetachResourceScopes, &["resources", api_id, "scopes"]);
        let body = Some(json!({ "scopes": keys }));
        self.ask(Ask { operation, method: Method::DELETE, path, body, what: RESOURCE }).await.map(drop)
    }

    async fn scopes_for_apis(&self, api_ids: &[String]) -> Result<BTreeMap<String, Vec<Scope>>> {
        let place = call::below(&self.base, ["resource-scopes"]);
        let place = call::asking(&place, api_ids.iter().map(|id| ("api", id.as_str())));
        let operation = Operation::ScopesForApis;
        let ask = Ask { operation, method: Method::GET, path: &[], body: None, what: RESOURCE };
        of_apis(api_ids, self.ask_at(&place, ask).await?.json()?)
    }

    async fn user_claims(&self, username: &str) -> Result<BTreeMap<String, String>> {
        self.get(Operation::UserClaims, &["users", username, "claims"], "user").await
    }
}

/// The settings by which its opaque tokens are asked about (RFC 7662): at `introspect` below `endpoint`, with the same
/// bearer secret, unless they name another place.
pub(super) fn introspected(settings: &KeyManagerSettings) -> Cow<'_, KeyManagerSettings> {
    let own = settings.connector == ConnectorKind::Http && settings.introspection_endpoint.is_none();
    let Some(base) = settings.endpoint.as_deref().filter(|_| own) else { return Cow::Borrowed(settings) };
    Cow::Owned(KeyManagerSettings {
        introspection_endpoint: Some(format!("{}/introspect", base.trim_end_matches('/'))),
        client_auth: ClientAuth::Bearer,
        client_secret: settings.token.clone(),
        ..settings.clone()
    })
}

/// What a problem says (RFC 9457); none: it is none of ours, and is what such a status is elsewhere.
fn problem(operation: Operation, what: &'static str, refusal: &Refusal<'_>) -> Option<Error> {
    let (status, words) = (refusal.status, refusal.words.clone());
    // With these a change may have been done, whatever is said of it.
    let is_open = status.is_redirection() || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
    Some(match refusal.text("/code")?.as_str() {
        "refused" => Error::Refused { status: status.as_u16(), detail: words },
        _ if is_open => return None,
        "unsupported" => Error::Unsupported { operation, reason: words.into() },
        "invalid" => {
            let field = refusal.text("/field").unwrap_or_else(|| "request".into());
            Error::invalid(field, words)
        }
        "not_found" => Error::NotFound(what),
        "conflict" => match refusal.text("/field") {
            Some(field) => Error::conflict(field, words),
            None => Error::Conflict(words.into()),
        },
        _ => return None,
    })
}

/// The operation that it is made of.
const fn source(operation: Operation) -> Operation {
    match operation {
        Operation::IsScopeExists | Operation::ValidateScopes => Operation::ScopeByName,
        itself => itself,
    }
}

fn written(body: &impl Serialize) -> Result<Value> {
    serde_json::to_value(body).map_err(|_| Error::invalid("request", "cannot be written as JSON"))
}

const CLIENT: &str = "client";
const RESOURCE: &str = "resource";
/// Its `not_found` does not say which.
const BOUND: &str = "resource, or scope to bind to it";
const SCOPE: &str = "scope";
const MASK: &str = "********";
const MOST_CHARACTERS: usize = 500;
/// How long what it says it cannot do is believed before it is asked again.
const BELIEVED: Duration = Duration::from_secs(60);

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
