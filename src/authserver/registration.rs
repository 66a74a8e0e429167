//! Dynamic client registration: `POST /register` (RFC 7591), and `GET`, `PUT`, `DELETE /register/{client_id}`
//! (RFC 7592) for whoever holds the registration access token.
//!
//! What a registered client may do is bounded by the configuration: its scopes by `registration_scopes`, its grants by
//! those of `/token`.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Request, StatusCode};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use url::Url;

use super::{
    Provider,
    clients::{CLIENTS, Client, ClientSecret, GrantType, PROOFS, Platform, Proof},
    error::{Error, unkept},
    issued::ISSUED,
    random,
    request::{self, bearer},
    state::Hash,
    terms::Terms,
};
use crate::{store::record, token::settings::Registration};

/// What a client says of itself (RFC 7591 section 2). What is not known is ignored, as section 2 has it.
#[derive(Deserialize)]
struct Metadata {
    client_id: Option<String>,
    client_secret: Option<String>,
    client_name: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
    redirect_uris: Option<Vec<String>>,
    token_endpoint_auth_method: Option<String>,
    scope: Option<String>,
    software_statement: Option<IgnoredAny>,
    registration_access_token: Option<IgnoredAny>,
    registration_client_uri: Option<IgnoredAny>,
    client_secret_expires_at: Option<IgnoredAny>,
    client_id_issued_at: Option<IgnoredAny>,
}

pub(super) async fn register(State(provider): State<Arc<Provider>>, request: Request<Body>) -> Response {
    let registered = async {
        let terms = provider.terms.load_full();
        match terms.registration {
            Registration::Off => return Err(Error::RegistrationOff),
            Registration::Token => {
                let brought = bearer(request.headers()).unwrap_or_default();
                terms.may_register(brought).then_some(()).ok_or(Error::InvalidToken)?;
            }
            Registration::Open => {}
        }
        let (_, body) = request::body(request, "application/json").await?;
        let client = Metadata::parse(&body)?.client(&terms, random::id()?, provider.clock.now().unix())?;
        provider.register(client).await
    };
    unkept(registered.await)
}

pub(super) async fn read(
    State(provider): State<Arc<Provider>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let client = provider.managed(&id, &headers);
    unkept(client.map(|client| Json(provider.told(&client, None, bearer(&headers).unwrap_or_default()))))
}

pub(super) async fn replace(
    State(provider): State<Arc<Provider>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let replaced = async {
        let before = provider.managed(&id, request.headers())?;
        let (headers, body) = request::body(request, "application/json").await?;
        let metadata = Metadata::parse(&body)?;
        metadata.assert_replaces(&provider, &id)?;
        let client = metadata.client(&provider.terms.load(), id, before.client_id_issued_at)?;
        let client = provider.put_client(client).await?;
        Ok(Json(provider.told(&client, None, bearer(&headers).unwrap_or_default())))
    };
    unkept(replaced.await)
}

pub(super) async fn remove(
    State(provider): State<Arc<Provider>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let removed = async {
        provider.managed(&id, &headers)?;
        provider.remove_client(&id).await
    };
    unkept(removed.await.map(|_| StatusCode::NO_CONTENT))
}

impl Provider {
    async fn register(&self, client: Client) -> Result<Response, Error> {
        let (secret, token) = (random::secret(random::CLIENT_SECRET)?, random::secret(random::REGISTRATION)?);
        let hash = Hash::from(&random::digest(&secret));
        let only = ClientSecret { id: random::id()?, hash, description: None, expires_at: 0 };
        let proof = Proof::new(vec![only], Some(&random::digest(&token)));
        let told = self.told(&client, Some(&secret), &token);
        let state = self.state()?;
        let (key, most) = (state.key(&client.client_id), state.limits.clients);
        let change = move |changes: &record::Changes<'_>| {
            if changes.len(&CLIENTS)? >= most {
                return Ok(false);
            }
            changes.put(&PROOFS, &key, &proof)?;
            changes.put(&CLIENTS, &key, &client)?;
            Ok(true)
        };
        match state.record.change(change).await? {
            true => Ok((StatusCode::CREATED, Json(told)).into_response()),
            false => Err(Error::Full("too many clients are registered")),
        }
    }

    /// The client whose registration access token the request brings. One answer for an unknown client and for a
    /// wrong token.
    fn managed(&self, id: &str, headers: &HeaderMap) -> Result<Client, Error> {
        if self.terms.load().registration == Registration::Off {
            return Err(Error::RegistrationOff);
        }
        self.state()?.registered(id, bearer(headers).unwrap_or_default())?.ok_or(Error::InvalidToken)
    }

    /// Puts this in place of what the client said before, and gives what it is now. What the Key Manager decided on is
    /// not the client's to change: its scopes, its grants, what the platform says of it.
    async fn put_client(&self, client: Client) -> Result<Client, Error> {
        let state = self.state()?;
        let key = state.key(&client.client_id);
        let change = move |changes: &record::Changes<'_>| {
            let Some(before) = changes.get(&CLIENTS, &key)? else { return Ok(None) };
            let mut next = client.clone();
            if before.platform.managed {
                (next.scope, next.grant_types) = (before.scope, before.grant_types);
            }
            next.platform = before.platform;
            changes.put(&CLIENTS, &key, &next)?;
            Ok(Some(next))
        };
        // It may have been removed meanwhile.
        state.record.change(change).await?.ok_or(Error::InvalidToken)
    }

    /// What was issued to it is revoked: durably, and at every door, before the answer goes out. False: there is none.
    pub(super) async fn remove_client(&self, id: &str) -> Result<bool, Error> {
        let state = self.state()?;
        let (key, gone) = (state.key(id), state.client_gone(id, self.clock.now().unix())?);
        let written = gone.clone();
        let change = move |changes: &record::Changes<'_>| {
            if !changes.remove(&CLIENTS, &key)? {
                return Ok(false);
            }
            changes.remove(&PROOFS, &key)?;
            changes.remove(&ISSUED, &key)?;
            written.write(changes)?;
            Ok(true)
        };
        let removed = state.record.change(change).await?;
        if removed {
            state.tell_client_gone(&gone);
            self.names.forget(id);
        }
        Ok(removed)
    }

    /// The client information response (RFC 7591 section 3.2.1, RFC 7592 section 3).
    fn told(&self, client: &Client, secret: Option<&str>, registration_token: &str) -> Value {
        let mut told = json!(client);
        if let Some(told) = told.as_object_mut() {
            told.remove("platform");
        }
        told["registration_client_uri"] = json!(format!("{}/register/{}", self.base(), client.client_id));
        told["registration_access_token"] = json!(registration_token);
        if let Some(secret) = secret {
            told["client_secret"] = json!(secret);
            told["client_secret_expires_at"] = json!(0);
        }
        told
    }
}

impl Metadata {
    fn parse(body: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(body).map_err(|_| NO_METADATA)?;
        serde_json::from_str(text).map_err(|_| NO_METADATA)
    }

    /// The client that this describes, if it can be one here.
    fn client(self, terms: &Terms, client_id: String, client_id_issued_at: u64) -> Result<Client, Error> {
        if self.software_statement.is_some() {
            return Err(Error::UnapprovedSoftwareStatement);
        }
        let name = self.client_name.as_ref();
        if name.is_some_and(|name| name.len() > MOST_NAME || name.chars().any(char::is_control)) {
            return Err(Error::InvalidClientMetadata("client_name is too long or has control characters"));
        }
        let grant_types = match self.grant_types {
            // RFC 7591's own default has no place here: there are no authorization codes.
            None => vec![GrantType::ClientCredentials],
            Some(names) => {
                let known = names.iter().map(|name| GrantType::of(name)).collect::<Option<Vec<_>>>();
                known.filter(|grants| !grants.is_empty() && grants.len() <= 3).ok_or(NO_SUCH_GRANT)?
            }
        };
        if self.response_types.is_some_and(|types| !types.is_empty()) {
            return Err(Error::InvalidClientMetadata(
                "response_types must be empty: there is no authorization endpoint",
            ));
        }
        let method = self.token_endpoint_auth_method.unwrap_or_else(|| "client_secret_basic".to_owned());
        if !matches!(&*method, "client_secret_basic" | "client_secret_post") {
            let why = "token_endpoint_auth_method must be client_secret_basic or client_secret_post";
            return Err(Error::InvalidClientMetadata(why));
        }
        let redirect_uris = self.redirect_uris.unwrap_or_default();
        if redirect_uris.len() > MOST_URIS || !redirect_uris.iter().all(|uri| is_redirect_uri(uri)) {
            return Err(Error::InvalidRedirectUri);
        }
        let scope = match self.scope {
            None => terms.registration_scopes.join(" "),
            Some(scope) => {
                let allowed = |scope: &str| terms.registration_scopes.iter().any(|allowed| **allowed == *scope);
                if !scope.split(' ').filter(|scope| !scope.is_empty()).all(allowed) {
                    return Err(Error::InvalidClientMetadata("scope is more than registered clients may have"));
                }
                scope
            }
        };
        Ok(Client {
            client_id,
            client_id_issued_at,
            client_name: self.client_name,
            grant_types,
            response_types: Vec::new(),
            redirect_uris,
            token_endpoint_auth_method: method,
            scope,
            platform: Platform::default(),
        })
    }

    /// Whether this may take the place of what the client `id` said before (RFC 7592 section 2.2).
    fn assert_replaces(&self, provider: &Provider, id: &str) -> Result<(), Error> {
        if self.client_id.as_deref() != Some(id) {
            return Err(Error::InvalidClientMetadata("client_id must be the client's own"));
        }
        let not_the_clients = self.registration_access_token.is_some()
            || self.registration_client_uri.is_some()
            || self.client_secret_expires_at.is_some()
            || self.client_id_issued_at.is_some();
        if not_the_clients {
            let why = "registration_access_token, registration_client_uri, client_secret_expires_at and \
                       client_id_issued_at are not the client's to say";
            return Err(Error::InvalidClientMetadata(why));
        }
        match &self.client_secret {
            Some(secret) if provider.state()?.authenticate(id, secret, provider.clock.now().unix())?.is_none() => {
                Err(Error::InvalidClientMetadata("client_secret must be the present one, or be left out"))
            }
            _ => Ok(()),
        }
    }
}

/// RFC 6749 section 3.1.2.
pub(super) fn is_redirect_uri(uri: &str) -> bool {
    uri.len() <= MOST_URI && Url::parse(uri).is_ok_and(|url| url.fragment().is_none())
}

pub(super) const MOST_NAME: usize = 200;
pub(super) const MOST_URIS: usize = 16;
pub(super) const MOST_URI: usize = 2000;
const NO_METADATA: Error = Error::InvalidClientMetadata("the body is no client metadata");
const NO_SUCH_GRANT: Error =
    Error::InvalidClientMetadata("grant_types must be of client_credentials, password and refresh_token");
