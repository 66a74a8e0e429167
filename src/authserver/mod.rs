//! The embedded OAuth provider, for trying out and for tests: discovery, keys, tokens by client_credentials,
//! password and refresh_token, introspection (RFC 7662), revocation (RFC 7009) and registration (RFC 7591, 7592).
//!
//! Clients and users are those of the configuration, clients that registered, and clients that the Key Manager made,
//! which also keeps scopes and APIs here (`manage`, `secrets`, `scopes`, `live`). What it must remember stands in the
//! record: a file where `[store]` names one, else memory. It keeps no secret and no token in the clear, save the
//! private halves of its signing keys, and never leaves this machine unless `allow_remote` says so.

mod clients;
mod error;
mod introspection;
mod issued;
mod keys;
mod live;
mod manage;
mod random;
mod registration;
mod rehearsal;
mod request;
mod revocation;
mod rows;
mod scopes;
mod secrets;
mod state;
mod terms;
mod token;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::{sync::watch, time};
use url::Url;

use crate::{
    net::{Address, Clock, side},
    problem::Problem,
    store::{Revocations, recent::Recent, record::Record},
    token::{
        LocalKeys,
        settings::{Algorithm, KeyManagerSettings, Registration},
    },
};
use error::{Error as Refused, unkept};
use issued::Names;
use keys::Keys;
use state::Limits;

pub use clients::Lifetimes;
pub use live::{Asked, Granted, LiveToken};
pub use manage::{ClientInfo, ClientSpec, Error as ManageError};
pub use scopes::{Bind, ResourceInfo, ScopeInfo};
pub use secrets::{NewSecret, SecretInfo};
pub use terms::Terms;

/// The provider: what it promises, and once it is open what it remembers.
#[derive(Debug)]
pub struct Provider {
    issuer: String,
    terms: ArcSwap<Terms>,
    clock: Arc<Clock>,
    published: Arc<LocalKeys>,
    open: OnceLock<Open>,
    names: Names,
}

/// What the record holds.
#[derive(Debug)]
struct Open {
    keys: Arc<Keys>,
    state: state::State,
}

/// Why a provider cannot begin.
#[derive(Debug, thiserror::Error)]
#[error("the embedded provider {issuer} cannot begin: {why}")]
pub struct Error {
    issuer: String,
    why: String,
}

impl Provider {
    /// A provider that is not yet open, or every mistake in its settings. `field` is their path:
    /// `key_managers[0]`.
    pub fn new(settings: &KeyManagerSettings, field: &str, clock: Arc<Clock>) -> Result<Arc<Self>, Vec<Problem>> {
        let mut problems = problems(settings, field);
        match Terms::new(settings, field) {
            Ok(terms) if problems.is_empty() => Ok(Arc::new(Self {
                issuer: settings.issuer.clone(),
                terms: ArcSwap::from_pointee(terms),
                clock,
                published: Arc::default(),
                open: OnceLock::new(),
                names: Names::default(),
            })),
            Ok(_) => Err(problems),
            Err(more) => {
                problems.extend(more);
                Err(problems)
            }
        }
    }

    /// Reads, or begins, what it remembers in `record`, and puts its live revocations in force. Blocks for as long
    /// as a commit takes. Before this it answers 503.
    pub fn open(&self, record: Record, revocations: Arc<Revocations>) -> Result<(), Error> {
        let now = self.clock.now().unix();
        let failed = |why: String| Error { issuer: self.issuer.clone(), why };
        let keys = Keys::open(&record, &self.issuer, Arc::clone(&self.published), now)
            .map_err(|error| failed(error.to_string()))?;
        let limits = Limits::of(&record);
        let state = state::State {
            record: record.followed(),
            revocations,
            issuer: self.issuer.as_str().into(),
            limits,
            clients: Recent::new(clients::CLIENTS),
        };
        let terms = self.terms.load();
        state
            .restore(now.saturating_sub(terms.leeway))
            .and_then(|()| state.reconcile(terms.configured(), terms.lifetimes(), now))
            .map_err(|error| failed(error.to_string()))?;
        self.open.set(Open { keys: Arc::new(keys), state }).map_err(|_| failed("it is open already".into()))
    }

    /// Puts new clients, users, audience and lifetimes in force. What was issued to those who are gone is revoked at
    /// once. Keys, issuer and listener stay, so tokens issued to others before stay good.
    pub fn replace_terms(&self, terms: Terms) {
        let (configured, lifetimes) = (terms.configured(), terms.lifetimes());
        let before = self.terms.swap(Arc::new(terms));
        let (Some(open), now) = (self.open.get(), self.clock.now().unix()) else { return };
        if let Err(error) = open.state.reconcile(configured.clone(), lifetimes, now) {
            // The next start finds them gone, and records it then.
            tracing::error!(%error, "who left the configuration cannot be recorded; their tokens are refused here");
            open.state.refuse_gone(&before.configured(), &configured, before.lifetimes(), now);
        }
    }

    /// Its issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Its keys, as they change.
    pub fn local_keys(&self) -> Arc<LocalKeys> {
        Arc::clone(&self.published)
    }

    /// Serves until `stop` says so.
    pub async fn serve(self: Arc<Self>, listener: impl Into<side::Listener>, stop: watch::Receiver<bool>) {
        let service = TowerToHyperService::new(self.routes());
        side::serve(listener.into(), MOST_CONNECTIONS, service, stop).await;
    }

    /// Turns its keys over and forgets what has expired, for as long as it is polled.
    pub async fn tend(self: Arc<Self>) {
        let mut ticks = time::interval(TEND_EVERY);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.tend_once().await {
                tracing::warn!(%error, "the embedded provider cannot tidy up");
                time::sleep(TEND_AGAIN).await;
            }
        }
    }

    async fn tend_once(&self) -> Result<(), keys::Error> {
        let Some(Open { keys, state }) = self.open.get() else { return Ok(()) };
        let (terms, now) = (self.terms.load_full(), self.clock.now().unix());
        self.record_names(state, now).await?;
        keys.prune(&state.record, now).await?;
        let due = keys.made_at().saturating_add(terms.key_rotation);
        if terms.key_rotation > 0 && now >= due && keys.has_room() {
            // A token that is being signed just now is a moment younger.
            let stays = state.longest()?.access.saturating_add(terms.leeway).saturating_add(MOMENT_S);
            keys.rotate(&state.record, now, now.saturating_add(stays)).await?;
            tracing::info!(issuer = self.issuer, "the embedded provider signs with a new key");
        }
        // Requests come first: a large heap of expired rows is taken away bit by bit.
        state.sweep(now.saturating_sub(terms.leeway)).await?;
        Ok(())
    }

    fn routes(self: Arc<Self>) -> Router {
        let client = get(registration::read).put(registration::replace).delete(registration::remove);
        Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/jwks", get(jwks))
            .route("/token", post(token::endpoint))
            .route("/introspect", post(introspection::endpoint))
            .route("/revoke", post(revocation::endpoint))
            .route("/register", post(registration::register))
            .route("/register/{client_id}", client)
            .with_state(self)
    }

    fn base(&self) -> &str {
        self.issuer.trim_end_matches('/')
    }

    fn state(&self) -> Result<&state::State, Refused> {
        self.open.get().map(|open| &open.state).ok_or(Refused::Unavailable)
    }

    fn keys(&self) -> Result<&Keys, Refused> {
        self.open.get().map(|open| &*open.keys).ok_or(Refused::Unavailable)
    }
}

/// Metadata by RFC 8414 and OpenID Connect Discovery. The latter demands the last two members, though no
/// ID token is ever issued here.
async fn metadata(State(provider): State<Arc<Provider>>) -> Json<Value> {
    let (base, terms) = (provider.base(), provider.terms.load());
    let methods = json!(["client_secret_basic", "client_secret_post"]);
    let mut metadata = json!({
        "issuer": provider.issuer,
        "token_endpoint": format!("{base}/token"),
        "jwks_uri": format!("{base}/jwks"),
        "introspection_endpoint": format!("{base}/introspect"),
        "revocation_endpoint": format!("{base}/revoke"),
        "grant_types_supported": ["client_credentials", "refresh_token"],
        "token_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    if terms.has_users() {
        metadata["grant_types_supported"] = json!(["client_credentials", "refresh_token", "password"]);
    }
    if terms.registration != Registration::Off {
        metadata["registration_endpoint"] = json!(format!("{base}/register"));
    }
    Json(metadata)
}

async fn jwks(State(provider): State<Arc<Provider>>) -> Response {
    match provider.keys() {
        Ok(keys) => Json(keys.jwks()).into_response(),
        Err(refused) => unkept(Err::<(), _>(refused)),
    }
}

/// What is wrong with the settings that hold for the provider's whole life.
fn problems(settings: &KeyManagerSettings, field: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |name: &str, message: &str| problems.push(Problem::new(format!("{field}.{name}"), message));
    match settings.listen.as_deref().map(str::parse::<Address>) {
        None => problem("listen", "is needed by the embedded provider"),
        Some(Err(form)) => problem("listen", form),
        Some(Ok(address)) if !address.is_local() && !settings.allow_remote => {
            problem("listen", "must be a loopback address, unless allow_remote = true");
        }
        Some(Ok(_)) => {}
    }
    if !is_bare_origin(&settings.issuer) {
        problem("issuer", "must be http:// or https:// with a host and a port, and nothing behind them");
    }
    if !settings.algorithms.contains(&Algorithm::ES256) {
        problem("algorithms", "must hold ES256, by which the embedded provider signs");
    }
    problems
}

/// An issuer with a path would have its metadata elsewhere (RFC 8414 section 3.1).
fn is_bare_origin(issuer: &str) -> bool {
    Url::parse(issuer).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    })
}

const MOST_CONNECTIONS: usize = 512;
const TEND_EVERY: Duration = Duration::from_millis(500);
/// After it could not.
const TEND_AGAIN: Duration = Duration::from_secs(10);
const MOMENT_S: u64 = 2;

#[cfg(test)]
mod flows;
#[cfg(test)]
mod managed;
#[cfg(test)]
mod managed_scopes;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
