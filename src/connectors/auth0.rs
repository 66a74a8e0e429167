//! Auth0: clients by its Management API, as ourselves by an access token for it; what they may ask for by client grants;
//! the scopes of one of its APIs, which is the first of `audience`; and users' profiles.
//!
//! Its access tokens are JWTs that are verified here: Auth0 neither introspects nor revokes one, and tells of none.

use std::{borrow::Cow, collections::BTreeMap};

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use url::Url;

use super::{
    Means,
    api::Reply,
    auth0_rows::{self, Client, Grant},
    call::{self, Call},
    common::{same, texts},
    directory::Endpoint,
    endpoint,
    oauth::{ClientSecret, OAuth},
    oidc::Place,
    refusal::Refusal,
};
use crate::{
    keymanager::{
        AccessTokenInfo, AccessTokenRequest, Error, KeyManager, OAuthApplicationInfo, Operation, Rehearsal, Result,
        Scope, Sensitive,
    },
    net::Reach,
    problem::Problem,
    token::settings::KeyManagerSettings,
};

/// One tenant, and one of its APIs.
#[derive(Debug)]
pub(super) struct Auth0 {
    oauth: OAuth,
    /// The Management API, whose address is its audience too.
    management: Place,
    token: Place,
    /// Identifier of the API whose scopes are managed, and which tokens are for.
    audience: Option<String>,
    /// Held by whoever changes the scopes, which are one list.
    scopes: Semaphore,
}

impl Auth0 {
    pub(super) fn new(
        settings: &KeyManagerSettings,
        field: &str,
        means: Means<'_>,
    ) -> std::result::Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut address = |name: &str, text: &str| {
            let wrong = |why: &str| problems.push(Problem::new(format!("{field}.{name}"), why));
            endpoint(text, settings.allow_http).map_err(wrong).ok()
        };
        let issuer = address("issuer", &settings.issuer);
        let management = match &settings.endpoint {
            Some(text) => address("endpoint", text),
            None => issuer.clone().map(|issuer| at(issuer, "/api/v2/")),
        };
        let token = match &settings.token_endpoint {
            Some(text) => address("token_endpoint", text),
            None => issuer.clone().map(|issuer| at(issuer, "/oauth/token")),
        };
        let oauth = OAuth::new(settings, field, means).map_err(|found| problems.extend(found)).ok();
        let (Some(mut oauth), Some(management), Some(token), true) = (oauth, management, token, problems.is_empty())
        else {
            return Err(problems);
        };
        let place = |url| Place { url, reach: Reach::Local };
        let (management, token) = (place(management), place(token));
        oauth.api = oauth.api.asking(&[("audience", management.url.to_string())]);
        oauth.directory = oauth.directory.known(Endpoint::Token, token.clone());
        Ok(Self { oauth, management, token, audience: settings.audience.first().cloned(), scopes: Semaphore::new(1) })
    }

    fn at<'s>(&self, path: impl IntoIterator<Item = &'s str>) -> Place {
        call::below(&self.management, path)
    }

    fn client_at(&self, consumer_key: &str) -> Place {
        self.at(["clients", consumer_key])
    }

    /// Makes a call of the Management API. `what`: what there is none of, where there is none.
    async fn send(&self, call: Call<'_>, what: &'static str) -> Result<Reply> {
        self.oauth.api.send_reading(call.own_token(&self.token).absent(what), refused).await
    }

    async fn client(&self, consumer_key: &str) -> Result<Client> {
        self.send(Call::get(&self.client_at(consumer_key)), CLIENT).await?.json()
    }

    /// What the client may ask for.
    async fn grants(&self, consumer_key: &str) -> Result<Vec<Grant>> {
        let place = call::asking(&self.at(["client-grants"]), [("client_id", consumer_key), ("per_page", "100")]);
        self.send(Call::get(&place), CLIENT).await?.json()
    }

    /// Lets a client with these grant types ask for tokens of the APIs that it names. Of those it may ask for from
    /// before, the key manager's own is taken away where it is not wanted, and no other: people grant those by hand.
    async fn grant(&self, consumer_key: &str, application: &OAuthApplicationInfo, types: &[String]) -> Result<()> {
        let wanted = auth0_rows::audiences(application, types, self.audience.as_deref());
        let scopes = application.parameters.contains_key("scope").then(|| application.list("scope"));
        let there = self.grants(consumer_key).await?;
        for audience in &wanted {
            match (there.iter().find(|grant| grant.audience == *audience), &scopes) {
                (Some(grant), Some(scopes)) => {
                    let place = self.at(["client-grants", &grant.id]);
                    let call = Call::new(Method::PATCH, &place).json(&json!({ "scope": scopes }));
                    self.send(call, GRANT).await?;
                }
                (Some(_), None) => {}
                (None, scopes) => {
                    let scopes = scopes.clone().unwrap_or_default();
                    let body = json!({ "client_id": consumer_key, "audience": audience, "scope": scopes });
                    self.send(Call::post(&self.at(["client-grants"])).json(&body), API).await?;
                }
            }
        }
        let own = self.audience.as_ref().filter(|own| !wanted.contains(own));
        for grant in there.iter().filter(|grant| Some(&grant.audience) == own) {
            self.send(Call::delete(&self.at(["client-grants", &grant.id])), GRANT).await?;
        }
        Ok(())
    }

    /// The scopes of the API, in Auth0's form.
    async fn own_scopes(&self) -> Result<Vec<Map<String, Value>>> {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            scopes: Vec<Map<String, Value>>,
        }
        let body: Body = self.send(Call::get(&self.server()?), API).await?.json()?;
        Ok(body.scopes)
    }

    /// Puts `change`d scopes in place of those there are; one at a time, since there is only the whole list.
    async fn change_scopes<T>(
        &self,
        change: impl FnOnce(&mut Vec<Map<String, Value>>) -> Result<T> + Send,
    ) -> Result<T> {
        let _turn = self.scopes.acquire().await.map_err(|_| Error::Unreachable("it is being ended".into()))?;
        let mut scopes = self.own_scopes().await?;
        let outcome = change(&mut scopes)?;
        let place = self.server()?;
        let call = Call::new(Method::PATCH, &place).json(&json!({ "scopes": scopes }));
        self.send(call, API).await?;
        Ok(outcome)
    }

    fn server(&self) -> Result<Place> {
        let audience = self.audience.as_deref().ok_or_else(|| Error::invalid("audience", NO_API))?;
        Ok(self.at(["resource-servers", audience]))
    }

    /// The user of that id, mail address or user name.
    async fn user(&self, name: &str) -> Result<Map<String, Value>> {
        // An id begins with the connection: `auth0|5f…`.
        if name.contains('|') {
            return self.send(Call::get(&self.at(["users", name])), USER).await?.json();
        }
        let place = if name.contains('@') {
            call::asking(&self.at(["users-by-email"]), [("email", name)])
        } else {
            let quoted = format!("username:\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
            call::asking(&self.at(["users"]), [("q", quoted.as_str()), ("search_engine", "v3"), ("per_page", "2")])
        };
        let mut found: Vec<Map<String, Value>> = self.send(Call::get(&place), USER).await?.json()?;
        match found.len() {
            0 => Err(Error::NotFound(USER)),
            1 => Ok(found.remove(0)),
            _ => Err(Error::invalid("name", "is the name of several users: give a user's id")),
        }
    }
}

#[async_trait]
impl KeyManager for Auth0 {
    fn connector(&self) -> &'static str {
        "auth0"
    }

    fn cannot(&self, operation: Operation) -> Option<Cow<'static, str>> {
        use Operation as Op;
        let known = self.oauth.api.has_credential();
        let reason = match operation {
            Op::TokenMetaData => "Auth0 has no introspection (RFC 7662): its JWTs are verified here",
            Op::RevokeToken | Op::RevokeOneTimeToken => "Auth0 revokes refresh tokens, and no access token",
            Op::AccessTokenByConsumerKey | Op::ActiveTokensByConsumerKey => "Auth0 tells of no token it has issued",
            Op::GenerateConsumerSecret | Op::RetrieveConsumerSecrets | Op::DeleteConsumerSecret => {
                "Auth0's clients have one secret each, without an id"
            }
            op if op.is_about_resources() => {
                "Auth0's APIs hold no addresses: a scope belongs to the API of an audience"
            }
            op if op.is_about_scopes() && self.audience.is_none() => NO_API,
            op if op.is_about_scopes() && !known => NOBODY,
            Op::CreateApplication
            | Op::UpdateApplication
            | Op::RetrieveApplication
            | Op::DeleteApplication
            | Op::UpdateApplicationOwner
            | Op::MapOAuthApplication
            | Op::NewApplicationConsumerSecret
            | Op::UserClaims
                if !known =>
            {
                NOBODY
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
        auth0_rows::check_wishes(application)?;
        let body = auth0_rows::body(application, None)?;
        let reply = self.send(Call::post(&self.at(["clients"])).json(&body), CLIENT).await?;
        let client: Client = reply.json().map_err(|error| Error::HalfDone {
            what: error.settled().to_string(),
            left: "a client whose id is not known".into(),
        })?;
        let id = client.client_id.clone();
        let types = auth0_rows::grant_types(application, None);
        let Err(error) = self.grant(&id, application, &types).await else { return Ok(client.told(true)) };
        // A client that may ask for nothing is not what was asked for.
        Err(error.undone(self.delete_application(&id).await, format_args!("the client {id}")))
    }

    async fn update_application(
        &self,
        consumer_key: &str,
        application: &OAuthApplicationInfo,
    ) -> Result<OAuthApplicationInfo> {
        self.may(Operation::UpdateApplication)?;
        let before = self.client(consumer_key).await?;
        let body = auth0_rows::body(application, Some(&before))?;
        let place = self.client_at(consumer_key);
        let client: Client = self.send(Call::new(Method::PATCH, &place).json(&body), CLIENT).await?.json()?;
        let types = auth0_rows::grant_types(application, Some(&before));
        self.grant(consumer_key, application, &types).await.map_err(|error| Error::HalfDone {
            what: error.to_string(),
            left: format!("client {consumer_key}, changed but for the APIs it may ask for"),
        })?;
        Ok(client.told(false))
    }

    async fn retrieve_application(&self, consumer_key: &str) -> Result<OAuthApplicationInfo> {
        self.may(Operation::RetrieveApplication)?;
        Ok(self.client(consumer_key).await?.told(false))
    }

    async fn delete_application(&self, consumer_key: &str) -> Result<()> {
        self.may(Operation::DeleteApplication)?;
        // Auth0 answers 204 for one that is not there.
        self.client(consumer_key).await?;
        self.send(Call::delete(&self.client_at(consumer_key)), CLIENT).await.map(drop)
    }

    async fn update_application_owner(&self, consumer_key: &str, owner: &str) -> Result<OAuthApplicationInfo> {
        self.may(Operation::UpdateApplicationOwner)?;
        auth0_rows::check_metadata("owner", owner)?;
        let place = self.client_at(consumer_key);
        let body = json!({ "client_metadata": { "owner": owner } });
        let client: Client = self.send(Call::new(Method::PATCH, &place).json(&body), CLIENT).await?.json()?;
        Ok(client.told(false))
    }

    async fn map_application(&self, consumer_key: &str, secret: Option<&Sensitive>) -> Result<OAuthApplicationInfo> {
        self.may(Operation::MapOAuthApplication)?;
        let client = self.client(consumer_key).await?;
        match (secret, &client.client_secret) {
            (None, _) => Ok(client.told(false)),
            (Some(given), Some(own)) if same(own, given) => Ok(client.told(false)),
            (Some(_), Some(_)) => Err(Error::invalid("clientSecret", "is not this client's")),
            (Some(_), None) => Err(Error::Credentials("the secret cannot be compared without read:client_keys".into())),
        }
    }

    async fn new_access_token(&self, request: &AccessTokenRequest) -> Result<AccessTokenInfo> {
        let Some(id) = request.client_id.as_deref() else { return Err(Error::invalid("clientId", "is needed")) };
        if request.token_to_revoke.is_some() {
            return Err(Error::invalid("tokenToRevoke", "must be left out: Auth0 revokes no access token"));
        }
        let secret = match &request.client_secret {
            Some(secret) => secret.clone(),
            None if !self.oauth.api.has_credential() => return Err(Error::invalid("clientSecret", "is needed")),
            None => {
                let own = self.client(id).await?.client_secret;
                own.ok_or_else(|| Error::invalid("clientSecret", "is needed without read:client_keys"))?
            }
        };
        let mut request = request.clone();
        if let Some(audience) = &self.audience {
            request.request_parameters.entry("audience".into()).or_insert_with(|| audience.clone());
        }
        self.oauth.new_access_token(&request, id, ClientSecret::Post(secret.reveal())).await
    }

    async fn new_secret(&self, consumer_key: &str) -> Result<Sensitive> {
        self.may(Operation::NewApplicationConsumerSecret)?;
        let place = self.at(["clients", consumer_key, "rotate-secret"]);
        let client: Client = self.send(Call::post(&place), CLIENT).await?.json()?;
        client.client_secret.ok_or_else(|| Error::Answer("there is no client_secret in its answer".into()).unclear())
    }

    async fn register_scope(&self, scope: &Scope) -> Result<Scope> {
        self.may(Operation::RegisterScope)?;
        let row = auth0_rows::scope_row(scope)?;
        self.change_scopes(|scopes| {
            if scopes.iter().any(|one| auth0_rows::is(one, &scope.key)) {
                return Err(Error::conflict("key", "there is a scope of that key"));
            }
            scopes.push(row.clone());
            auth0_rows::scope(&row)
        })
        .await
    }

    async fn scope(&self, key: &str) -> Result<Scope> {
        self.may(Operation::ScopeByName)?;
        let all = self.own_scopes().await?;
        auth0_rows::scope(all.iter().find(|one| auth0_rows::is(one, key)).ok_or(Error::NotFound(SCOPE))?)
    }

    async fn scopes(&self) -> Result<Vec<Scope>> {
        self.may(Operation::AllScopes)?;
        self.own_scopes().await?.iter().map(auth0_rows::scope).collect()
    }

    async fn update_scope(&self, scope: &Scope) -> Result<Scope> {
        self.may(Operation::UpdateScope)?;
        let row = auth0_rows::scope_row(scope)?;
        self.change_scopes(|scopes| {
            let one = scopes.iter_mut().find(|one| auth0_rows::is(one, &scope.key)).ok_or(Error::NotFound(SCOPE))?;
            one.extend(row);
            auth0_rows::scope(one)
        })
        .await
    }

    async fn delete_scope(&self, key: &str) -> Result<()> {
        self.may(Operation::DeleteScope)?;
        self.change_scopes(|scopes| {
            let before = scopes.len();
            scopes.retain(|one| !auth0_rows::is(one, key));
            if scopes.len() == before { Err(Error::NotFound(SCOPE)) } else { Ok(()) }
        })
        .await
    }

    async fn user_claims(&self, username: &str) -> Result<BTreeMap<String, String>> {
        self.may(Operation::UserClaims)?;
        Ok(texts(&self.user(username).await?))
    }
}

/// Auth0's own errors: `{"statusCode", "error", "message", "errorCode"}`.
fn refused(refusal: &Refusal<'_>) -> Option<Error> {
    let conflict = refusal.status == StatusCode::BAD_REQUEST && refusal.words.contains("already exists");
    conflict.then(|| Error::Conflict(refusal.words.clone().into()))
}

fn at(mut issuer: Url, path: &str) -> Url {
    issuer.set_path(path);
    issuer
}

const CLIENT: &str = "client";
const GRANT: &str = "client grant";
const API: &str = "API of that audience";
const SCOPE: &str = "scope";
const USER: &str = "user";
const NOBODY: &str = "client_id and client_secret are not set, by which Auth0's Management API is used";
const NO_API: &str = "audience is not set, whose first is the API that scopes belong to";
