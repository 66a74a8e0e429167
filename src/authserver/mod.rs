//! The embedded OAuth provider, for trying out and for tests: discovery, keys and the client credentials
//! grant (RFC 6749 section 4.4) with access tokens by RFC 9068, signed with a key made at start.
//!
//! Knows the clients of the configuration and nothing else: no users, no refresh, no registration. Keeps
//! no secret in the clear, and never leaves this machine unless `allow_remote` says so.

mod key;
mod terms;
mod token;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::sync::watch;
use url::Url;

use crate::{
    net::{Address, Clock, side},
    problem::Problem,
    token::settings::{KeyManagerSettings, TokenForm},
};
use key::SigningKey;

pub use terms::Terms;

/// The provider: one signing key for the process's life, and the present clients.
#[derive(Debug)]
pub struct Provider {
    issuer: String,
    key: SigningKey,
    terms: ArcSwap<Terms>,
    clock: Arc<Clock>,
}

impl Provider {
    /// A provider with a new key, or every mistake in its settings. `field` is their path:
    /// `key_managers[0]`.
    pub fn new(settings: &KeyManagerSettings, field: &str, clock: Arc<Clock>) -> Result<Arc<Self>, Vec<Problem>> {
        let mut problems = problems(settings, field);
        let terms = Terms::new(settings, field).map_err(|more| problems.extend(more)).ok();
        let key = SigningKey::generate().map_err(|why| problems.push(Problem::new(field, why.to_string()))).ok();
        match (terms, key) {
            (Some(terms), Some(key)) if problems.is_empty() => {
                Ok(Arc::new(Self { issuer: settings.issuer.clone(), key, terms: ArcSwap::from_pointee(terms), clock }))
            }
            _ => Err(problems),
        }
    }

    /// Puts new clients, audience and lifetime in force. Key, issuer and listener stay, so tokens issued
    /// before stay good.
    pub fn replace_clients(&self, terms: Terms) {
        self.terms.store(Arc::new(terms));
    }

    /// Its issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public keys, as `/jwks` shows them (RFC 7517).
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.key.public()] })
    }

    /// Serves until `stop` says so.
    pub async fn serve(self: Arc<Self>, listener: impl Into<side::Listener>, stop: watch::Receiver<bool>) {
        let service = TowerToHyperService::new(self.routes());
        side::serve(listener.into(), MOST_CONNECTIONS, service, stop).await;
    }

    fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/jwks", get(jwks))
            .route("/token", post(token::endpoint))
            .with_state(self)
    }
}

/// Metadata by RFC 8414 and OpenID Connect Discovery. The latter demands the last two members, though no
/// ID token is ever issued here.
async fn metadata(State(provider): State<Arc<Provider>>) -> Json<Value> {
    let base = provider.issuer.trim_end_matches('/');
    Json(json!({
        "issuer": provider.issuer,
        "token_endpoint": format!("{base}/token"),
        "jwks_uri": format!("{base}/jwks"),
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

async fn jwks(State(provider): State<Arc<Provider>>) -> Json<Value> {
    Json(provider.jwks())
}

/// What is wrong with the settings that hold for the provider's whole life.
fn problems(settings: &KeyManagerSettings, field: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |name: &str, message: &str| problems.push(Problem::new(format!("{field}.{name}"), message));
    match settings.listen.as_deref().map(str::parse::<Address>) {
        None => problem("listen", "is needed by the embedded provider"),
        Some(Err(form)) => problem("listen", form),
        Some(Ok(address)) if !address.is_local() && !settings.allow_remote => {
            problem("listen", "is no loopback address; allow_remote = true allows it");
        }
        Some(Ok(_)) => {}
    }
    if !is_bare_origin(&settings.issuer) {
        problem("issuer", "must be http:// or https:// with a host and a port, and nothing behind them");
    }
    if settings.tokens == TokenForm::Opaque {
        problems.push(Problem::not_in_this_build(format!("{field}.tokens")));
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

#[cfg(test)]
mod tests;
