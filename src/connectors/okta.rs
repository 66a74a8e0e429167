//! Okta: clients by its dynamic client registration, their secrets by the client secrets API, the scopes of one
//! authorization server, and users' profiles; all as whoever owns the API token. Tokens by the clients' own credentials.
//!
//! A client's secrets are readable for that token: by them a secret is compared, and a token revoked as its client.

use std::{borrow::Cow, collections::BTreeMap};

use async_trait::async_trait;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use super::{
    Means,
    api::Reply,
    call::{self, Call},
    common::{same, texts},
    directory::Endpoint,
    endpoint,
    oauth::{ClientSecret, OAuth},
    oidc::Place,
    okta_rows::{self, Client, Secret},
    refusal::Refusal,
};
use crate::{
    keymanager::{
        AccessTokenInfo, AccessTokenRequest, ConsumerSecretInfo, ConsumerSecretRequest, Error, KeyManager,
        OAuthApplicationInfo, Operation, Rehearsal, Result, Scope, Sensitive,
    },
    net::Reach,
    problem::Problem,
    token::settings::KeyManagerSettings,
};

/// One organization, and one of its authorization servers.
#[derive(Debug)]
pub(super) struct Okta {
    oauth: OAuth,
    org: Place,
    /// The authorization server, where it is not the organization's own.
    server: Option<Place>,
    /// The API token.
    key: Option<Sensitive>,
}

impl Okta {
    pub(super) fn new(
        settings: &KeyManagerSettings,
        field: &str,
        means: Means<'_>,
    ) -> std::result::Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut wrong = |name: &str, why: String| problems.push(Problem::new(format!("{field}.{name}"), why));
        let mut address =
            |name: &str, text: &str| endpoint(text, settings.allow_http).map_err(|why| wrong(name, why.into())).ok();
        let issuer = address("issuer", &settings.issuer);
        let org = settings.endpoint.as_deref().map_or_else(|| issuer.clone(), |text| address("endpoint", text));
        let key = settings.token.as_ref().map(|token| token.read()).transpose();
        let key = key.map_err(|error| wrong("token", error.to_string())).ok().flatten();
        let oauth = OAuth::new(settings, field, means).map_err(|found| problems.extend(found)).ok();
        let (Some(mut oauth), Some(issuer), Some(org), true) = (oauth, issuer, org, problems.is_empty()) else {
            return Err(problems);
        };
        let org = Place { url: root(&org), reach: Reach::Local };
        let server = server_of(&issuer);
        let base = Place { url: issuer, reach: Reach::Local };
        let base = if server.is_some() { base } else { call::below(&base, ["oauth2"]) };
        for (endpoint, name) in
            [(Endpoint::Token, "token"), (Endpoint::Introspection, "introspect"), (Endpoint::Revocation, "revoke")]
        {
            oauth.directory = oauth.directory.known(endpoint, call::below(&base, ["v1", name]));
        }
        Ok(Self {
            oauth,
            server: server.map(|id| call::below(&org, ["api", "v1", "authorizationServers", &id])),
            key: key.map(|key| key.as_str().into()),
            org,
        })
    }

    fn at<'s>(&self, path: impl IntoIterator<Item = &'s str>) -> Place {
        call::below(&self.org, path)
    }

    fn client_at(&self, consumer_key: &str) -> Place {
        self.at(["oauth2", "v1", "clients", consumer_key])
    }

    fn secrets_at(&self, consumer_key: &str) -> Place {
        self.at(["api", "v1", "apps", consumer_key, "credentials", "secrets"])
    }

    /// Makes a call with the API token. `what`: what there is none of, where there is none.
    async fn send(&self, call: Call<'_>, what: &'static str) -> Result<Reply> {
        let Some(key) = &self.key else { return Err(Error::Credentials(NO_KEY.into())) };
        let call = call.authorization(&format!("SSWS {}", key.reveal()), key.reveal())?.absent(what);
        self.oauth.api.send_reading(call, |refusal| refused(refusal, what)).await
    }

    async fn client(&self, consumer_key: &str) -> Result<Map<String, Value>> {
        self.send(Call::get(&self.client_at(consumer_key)), CLIENT).await?.json()
    }

    async fn all_secrets(&self, consumer_key: &str) -> Result<Vec<Secret>> {
        self.send(Call::get(&self.secrets_at(consumer_key)), CLIENT).await?.json()
    }

    /// The client's newest secret that is good.
    async fn own_secret(&self, consumer_key: &str) -> Result<Sensitive> {
        let secrets = self.all_secrets(consumer_key).await?.into_iter().filter(Secret::is_active);
        let newest = secrets.max_by(|one, other| one.created.cmp(&other.created)).and_then(|one| one.client_secret);
        newest.ok_or_else(|| Error::invalid("clientSecret", "is needed: the provider keeps none of this client"))
    }

    /// Drops a secret, which has to be inactive before.
    async fn drop_secret(&self, consumer_key: &str, id: &str, active: bool) -> Result<()> {
        let place = call::below(&self.secrets_at(consumer_key), [id]);
        if active {
            let deactivate = call::below(&place, ["lifecycle", "deactivate"]);
            self.send(Call::post(&deactivate), SECRET).await?;
        }
        match self.send(Call::delete(&place), SECRET).await {
            Ok(_) => Ok(()),
            Err(error) if active => {
                Err(Error::HalfDone { what: error.to_string(), left: format!("secret {id}, which is inactive") })
            }
            Err(error) => Err(error),
        }
    }

    async fn revoke_as(&self, token: &Sensitive, consumer_key: &str, operation: Operation) -> Result<()> {
        let secret = self.own_secret(consumer_key).await?;
        self.oauth.revoke_by(token, consumer_key, ClientSecret::Basic(secret.reveal()), operation).await
    }

    fn scopes_at(&self) -> Result<Place> {
        let server = self.server.as_ref();
        server.map(|server| call::below(server, ["scopes"])).ok_or_else(|| Error::invalid("issuer", NO_SERVER))
    }

    async fn all_scopes(&self) -> Result<Vec<Map<String, Value>>> {
        let place = self.scopes_at()?;
        let (mut found, mut after) = (Vec::new(), None::<String>);
        for _ in 0..MOST_PAGES {
            let page = [("limit", "200")].into_iter().chain(after.as_deref().map(|after| ("after", after)));
            let reply = self.send(Call::get(&call::asking(&place, page)), SCOPE).await?;
            found.extend(reply.json::<Vec<Map<String, Value>>>()?);
            after = okta_rows::next(&reply.headers);
            if after.is_none() {
                return Ok(found);
            }
        }
        Err(Error::Answer(format!("there are more than {MOST_PAGES} pages of scopes")))
    }

    async fn own_scope(&self, key: &str) -> Result<Map<String, Value>> {
        let mut all = self.all_scopes().await?.into_iter();
        all.find(|scope| scope.get("name").and_then(Value::as_str) == Some(key)).ok_or(Error::NotFound(SCOPE))
    }

    async fn scope_at(&self, key: &str) -> Result<(Map<String, Value>, Place)> {
        let scope = self.own_scope(key).await?;
        let id = scope.get("id").and_then(Value::as_str);
        let place = call::below(&self.scopes_at()?, [id.ok_or_else(|| Error::Answer("a scope has no id".into()))?]);
        Ok((scope, place))
    }
}

#[async_trait]
impl KeyManager for Okta {
    fn connector(&self) -> &'static str {
        "okta"
    }

    fn cannot(&self, operation: Operation) -> Option<Cow<'static, str>> {
        use Operation as Op;
        let (key, client) = (self.key.is_some(), self.oauth.api.has_credential());
        let reason = match operation {
            Op::UpdateApplicationOwner => "Okta's clients have no owner",
            Op::AccessTokenByConsumerKey | Op::ActiveTokensByConsumerKey => {
                "Okta tells of no access token it has issued"
            }
            op if op.is_about_resources() => "Okta keeps no APIs: its scopes belong to an authorization server",
            op if op.is_about_scopes() && self.server.is_none() => NO_SERVER,
            Op::TokenMetaData | Op::RevokeToken if !client => {
                "client_id and client_secret are not set: Okta tells of a token only to a client"
            }
            op if op.is_about_scopes() && !key => NO_KEY,
            Op::CreateApplication
            | Op::UpdateApplication
            | Op::RetrieveApplication
            | Op::DeleteApplication
            | Op::MapOAuthApplication
            | Op::NewApplicationConsumerSecret
            | Op::GenerateConsumerSecret
            | Op::RetrieveConsumerSecrets
            | Op::DeleteConsumerSecret
            | Op::RevokeToken
            | Op::RevokeOneTimeToken
            | Op::UserClaims
                if !key =>
            {
                NO_KEY
            }
            _ => return None,
        };
        Some(reason.into())
    }

    fn rehearsal(&self) -> Rehearsal {
        Rehearsal::Halting
    }

    async fn create_application(&self, application: &OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
        self.may(Operation::CreateApplication)?;
        okta_rows::check_wishes(application)?;
        let body = okta_rows::metadata(application, &Map::new())?;
        let place = self.at(["oauth2", "v1", "clients"]);
        let reply = self.send(Call::post(&place).json(&body.into()), CLIENT).await?;
        match reply.json::<Client>() {
            Ok(client) => Ok(client.told(true)),
            Err(error) => {
                let what = error.settled().to_string();
                Err(Error::HalfDone { what, left: "a client whose id is not known".into() })
            }
        }
    }

    async fn update_application(
        &self,
        consumer_key: &str,
        application: &OAuthApplicationInfo,
    ) -> Result<OAuthApplicationInfo> {
        self.may(Operation::UpdateApplication)?;
        // All of it has to be sent: what the Key Manager knows nothing of stays as it is.
        let before = self.client(consumer_key).await?;
        let body = okta_rows::metadata(application, &before)?;
        let place = self.client_at(consumer_key);
        let client: Client = self.send(Call::put(&place).json(&body.into()), CLIENT).await?.json()?;
        Ok(client.told(false))
    }

    async fn retrieve_application(&self, consumer_key: &str) -> Result<OAuthApplicationInfo> {
        self.may(Operation::RetrieveApplication)?;
        let client: Client = self.send(Call::get(&self.client_at(consumer_key)), CLIENT).await?.json()?;
        Ok(client.told(false))
    }

    async fn delete_application(&self, consumer_key: &str) -> Result<()> {
        self.may(Operation::DeleteApplication)?;
        self.send(Call::delete(&self.client_at(consumer_key)), CLIENT).await.map(drop)
    }

    async fn map_application(&self, consumer_key: &str, secret: Option<&Sensitive>) -> Result<OAuthApplicationInfo> {
        self.may(Operation::MapOAuthApplication)?;
        let application = self.retrieve_application(consumer_key).await?;
        let Some(secret) = secret else { return Ok(application) };
        let live = self.all_secrets(consumer_key).await?.into_iter().filter(Secret::is_active);
        // Each is compared, whichever it is.
        let good = live.filter(|one| one.client_secret.as_ref().is_some_and(|own| same(own, secret))).count();
        if good == 0 {
            return Err(Error::invalid("clientSecret", "is not this client's"));
        }
        Ok(application)
    }

    async fn new_access_token(&self, request: &AccessTokenRequest) -> Result<AccessTokenInfo> {
        let Some(id) = request.client_id.as_deref() else { return Err(Error::invalid("clientId", "is needed")) };
        let secret = match &request.client_secret {
            Some(secret) => secret.clone(),
            None if self.key.is_none() => return Err(Error::invalid("clientSecret", "is needed without an API token")),
            None => self.own_secret(id).await?,
        };
        self.oauth.new_access_token(request, id, ClientSecret::Basic(secret.reveal())).await
    }

    async fn token_meta_data(&self, token: &Sensitive) -> Result<AccessTokenInfo> {
        self.may(Operation::TokenMetaData)?;
        self.oauth.token_meta_data(token, true).await
    }

    async fn new_secret(&self, consumer_key: &str) -> Result<Sensitive> {
        self.may(Operation::NewApplicationConsumerSecret)?;
        let place = call::below(&self.client_at(consumer_key), ["lifecycle", "newSecret"]);
        let client: Client = self.send(Call::post(&place), CLIENT).await?.json()?;
        let Some(secret) = client.client_secret else {
            return Err(Error::Answer("there is no client_secret in its answer".into()).unclear());
        };
        // Okta voids one of two: the other must not stay good.
        let others = self.all_secrets(consumer_key).await.map_err(Error::unclear)?.into_iter();
        for other in others.filter(|one| one.client_secret.as_ref() != Some(&secret)) {
            if let Err(error) = self.drop_secret(consumer_key, &other.id, other.is_active()).await {
                return Err(Error::HalfDone {
                    what: error.to_string(),
                    left: format!("secret {} from before", other.id),
                });
            }
        }
        Ok(secret)
    }

    async fn add_secret(&self, consumer_key: &str, request: &ConsumerSecretRequest) -> Result<ConsumerSecretInfo> {
        self.may(Operation::GenerateConsumerSecret)?;
        if request.parameters.contains_key("expiresIn") {
            return Err(Error::invalid("parameters.expiresIn", "must be left out: Okta's secrets do not expire"));
        }
        let mut body = json!({ "status": "ACTIVE" });
        if let Some(secret) = &request.client_secret {
            body["client_secret"] = json!(secret);
        }
        let place = self.secrets_at(consumer_key);
        let secret: Secret = self.send(Call::post(&place).json(&body), CLIENT).await?.json()?;
        Ok(secret.told(true))
    }

    async fn secrets(&self, consumer_key: &str) -> Result<Vec<ConsumerSecretInfo>> {
        self.may(Operation::RetrieveConsumerSecrets)?;
        let all = self.all_secrets(consumer_key).await?;
        Ok(all.into_iter().map(|secret| secret.told(false)).collect())
    }

    async fn delete_secret(&self, consumer_key: &str, secret_id: &str) -> Result<()> {
        self.may(Operation::DeleteConsumerSecret)?;
        let all = self.all_secrets(consumer_key).await?;
        let secret = all.iter().find(|secret| secret.id == secret_id).ok_or(Error::NotFound(SECRET))?;
        self.drop_secret(consumer_key, secret_id, secret.is_active()).await
    }

    async fn revoke_token(&self, token: &Sensitive) -> Result<()> {
        self.may(Operation::RevokeToken)?;
        // Only its own client may (RFC 7009 section 2.1); one that is not good needs nothing.
        let said = self.oauth.token_meta_data(token, true).await?;
        let Some(client) = said.consumer_key.filter(|_| said.is_token_valid) else { return Ok(()) };
        self.revoke_as(token, &client, Operation::RevokeToken).await
    }

    async fn revoke_one_time_token(&self, token: &Sensitive, consumer_key: &str) -> Result<()> {
        self.may(Operation::RevokeOneTimeToken)?;
        self.revoke_as(token, consumer_key, Operation::RevokeOneTimeToken).await
    }

    async fn register_scope(&self, scope: &Scope) -> Result<Scope> {
        self.may(Operation::RegisterScope)?;
        let body = okta_rows::scope_body(scope, Map::new())?;
        match self.own_scope(&scope.key).await {
            Ok(_) => return Err(Error::conflict("key", "there is a scope of that key")),
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let reply = self.send(Call::post(&self.scopes_at()?).json(&body.into()), SCOPE).await?;
        okta_rows::scope(&reply.json()?).map_err(Error::unclear)
    }

    async fn scope(&self, key: &str) -> Result<Scope> {
        self.may(Operation::ScopeByName)?;
        okta_rows::scope(&self.own_scope(key).await?)
    }

    async fn scopes(&self) -> Result<Vec<Scope>> {
        self.may(Operation::AllScopes)?;
        self.all_scopes().await?.iter().map(okta_rows::scope).collect()
    }

    async fn update_scope(&self, scope: &Scope) -> Result<Scope> {
        self.may(Operation::UpdateScope)?;
        let (before, place) = self.scope_at(&scope.key).await?;
        let body = okta_rows::scope_body(scope, before)?;
        let reply = self.send(Call::put(&place).json(&body.into()), SCOPE).await?;
        okta_rows::scope(&reply.json()?).map_err(Error::unclear)
    }

    async fn delete_scope(&self, key: &str) -> Result<()> {
        self.may(Operation::DeleteScope)?;
        let (_, place) = self.scope_at(key).await?;
        self.send(Call::delete(&place), SCOPE).await.map(drop)
    }

    async fn user_claims(&self, username: &str) -> Result<BTreeMap<String, String>> {
        self.may(Operation::UserClaims)?;
        #[derive(Deserialize)]
        struct User {
            profile: Map<String, Value>,
        }
        let user: User = self.send(Call::get(&self.at(["api", "v1", "users", username])), "user").await?.json()?;
        Ok(texts(&user.profile))
    }
}

/// Okta's own errors: `{"errorCode", "errorSummary", "errorCauses"}`, and those of RFC 7591.
fn refused(refusal: &Refusal<'_>, what: &'static str) -> Option<Error> {
    let cause = refusal.text("/errorCauses/0/errorSummary").unwrap_or_else(|| refusal.words.clone());
    match refusal.status {
        // Registration says so of a client that is not there.
        StatusCode::UNAUTHORIZED if refusal.text("/error").as_deref() == Some("invalid_client") => {
            Some(Error::NotFound(what))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(Error::Credentials(cause)),
        StatusCode::BAD_REQUEST if cause.contains("already exists") => Some(Error::Conflict(cause.into())),
        status if status.is_client_error() && status != StatusCode::NOT_FOUND => {
            Some(Error::Refused { status: status.as_u16(), detail: cause })
        }
        _ => None,
    }
}

/// The id of a custom authorization server: `default` of `https://…/oauth2/default`.
fn server_of(issuer: &Url) -> Option<String> {
    match issuer.path_segments()?.filter(|segment| !segment.is_empty()).collect::<Vec<_>>().as_slice() {
        ["oauth2", id] => Some((*id).to_owned()),
        _ => None,
    }
}

fn root(url: &Url) -> Url {
    let mut root = url.clone();
    root.set_path("/");
    root.set_query(None);
    root
}

const CLIENT: &str = "client";
const SECRET: &str = "secret";
const SCOPE: &str = "scope";
const NO_KEY: &str = "token is not set, which is Okta's API token";
const NO_SERVER: &str = "scopes belong to a custom authorization server: the issuer would be https://…/oauth2/{id}";
const MOST_PAGES: usize = 50;
