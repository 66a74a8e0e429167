//! Connectors: how each kind of OAuth provider is spoken to.
//!
//! They answer three questions: where a key manager's keys come from, who is asked about its tokens, and who does the
//! operations of a Key Manager. Only addresses that the configuration or the provider's own metadata names are asked,
//! never one from a token.
//!
//! # How to write a connector
//!
//! One file, one type that implements [`KeyManager`], and one line in [`key_manager`]. The setting's word is a variant of
//! [`ConnectorKind`]; where there is one, the compiler asks for that line, and for its name in [`key_source`].
//!
//! 1. The constructor takes the settings and their path (`key_managers[0]`), contacts nobody, and gives the connector
//!    or every mistake in the settings.
//! 2. [`KeyManager::cannot`] comes first: a `match` over [`Operation`](crate::keymanager::Operation) that gives a reason
//!    for what the provider has no way to do, and `None` for the rest. A method for which it gives a reason is not
//!    written: the trait answers [`Error::Unsupported`](crate::keymanager::Error::Unsupported) with that reason. No
//!    method answers success and does nothing.
//! 3. Arguments are valid in general (not empty, bounded, without control characters), but may hold anything else: what
//!    goes into a path is percent-encoded, what the provider does not take is
//!    [`Error::Invalid`](crate::keymanager::Error::Invalid) with the field's name.
//! 4. What is not there is `NotFound`, what is there already `Conflict`, with the field of the request where one is known,
//!    and a provider's refusal keeps its own words. A secret stands in a [`Sensitive`](crate::keymanager::Sensitive) and
//!    in no error.
//! 5. Each call ends in bounded time, and what was half done is undone, or told as `HalfDone`. Where the answer to a
//!    change is lost, or tells nothing, that is `Unclear`, as is what fails after the change: the engine keeps a record of it. Where no token is issued after
//!    one was revoked for it, that is `Revoked`.
//! 6. A dry run does what the change does, up to the first call that would change anything: [`KeyManager::rehearsal`] says
//!    so by [`Rehearsal::Halting`](crate::keymanager::Rehearsal). Calls are asked about one by one; one that changes
//!    nothing though it is no GET is marked by `reads`, and what is changed here alone asks
//!    [`go_on`](crate::keymanager::go_on) first.
//! 7. `tests/it/connector` runs any connector through `conforms`: what it refuses must be refused with its reason, and
//!    everything else must be done.

mod api;
#[cfg(test)]
mod api_tests;
mod auth0;
mod auth0_rows;
mod breaker;
mod call;
mod client_auth;
mod client_metadata;
mod common;
mod directory;
mod embedded;
mod embedded_client;
mod http;
mod http_answers;
mod introspection;
#[cfg(test)]
mod introspection_tests;
mod keycloak;
mod keycloak_client;
mod keycloak_rows;
#[cfg(test)]
mod lost_tests;
mod oauth;
mod oidc;
mod okta;
mod okta_rows;
mod own_token;
#[cfg(test)]
mod reach_tests;
mod refusal;
#[cfg(test)]
mod secret_tests;
mod standard;
mod standard_rows;
#[cfg(test)]
mod tests;
mod uma;
#[cfg(test)]
mod unclear_tests;
mod wso2_client;
mod wso2is;

use std::{mem, sync::Arc};

use bytes::Bytes;
use url::Url;

pub(crate) use client_auth::proxy;

use crate::{
    authserver::Provider,
    file,
    keymanager::{KeyManager, Memory},
    net::{
        Clock,
        client::{Client, is_loopback},
    },
    problem::Problem,
    token::{
        KeySource, Sources,
        settings::{ConnectorKind, JwksFile, KeyManagerSettings, ResponseForm, Validation},
    },
};

/// How the provider of the key manager at `field` is reached. Contacts nobody.
pub fn sources(
    settings: &KeyManagerSettings,
    field: &str,
    client: &Client,
    clock: &Arc<Clock>,
) -> Result<Sources, Vec<Problem>> {
    let keys = key_source(settings, field, client);
    let introspection = introspection::introspection(&http::introspected(settings), field, client, clock);
    match (keys, introspection) {
        (Ok(keys), Ok(introspection)) => Ok(Sources { keys, introspection }),
        (keys, introspection) => {
            let found = keys.err().into_iter().chain(introspection.err());
            Err(found.flatten().collect())
        }
    }
}

/// What a connector may use of the process.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    /// The client towards providers.
    pub client: &'a Client,
    /// The time.
    pub clock: &'a Arc<Clock>,
    /// What the connector may remember of this key manager.
    pub memory: &'a Arc<dyn Memory>,
}

/// Who does the operations of the key manager at `field`, or every mistake in its settings. Contacts nobody. The
/// embedded provider is in our own process: see [`embedded()`].
pub fn key_manager(
    settings: &KeyManagerSettings,
    field: &str,
    means: Means<'_>,
) -> Result<Arc<dyn KeyManager>, Vec<Problem>> {
    match settings.connector {
        ConnectorKind::Embedded => Err(vec![not_asked(field)]),
        ConnectorKind::Okta => Ok(Arc::new(okta::Okta::new(settings, field, means)?)),
        ConnectorKind::Auth0 => Ok(Arc::new(auth0::Auth0::new(settings, field, means)?)),
        ConnectorKind::Http => Ok(Arc::new(http::Http::new(settings, field, means)?)),
        ConnectorKind::Oidc => standard::key_manager(settings, field, means),
        ConnectorKind::Keycloak => keycloak::key_manager(settings, field, means),
        ConnectorKind::Wso2is => wso2is::key_manager(settings, field, means),
    }
}

/// Who does the operations of an embedded provider.
pub fn embedded(provider: Arc<Provider>) -> Arc<dyn KeyManager> {
    Arc::new(embedded::Embedded::new(provider))
}

/// The embedded provider is not reached from here.
fn not_asked(field: &str) -> Problem {
    Problem::new(format!("{field}.connector"), "the embedded provider is asked directly")
}

/// Where the keys of the key manager at `field` come from. Contacts nobody. The embedded provider is in
/// our own process: its keys are a [`KeySource::fixed`] that `app` makes.
pub fn key_source(settings: &KeyManagerSettings, field: &str, client: &Client) -> Result<KeySource, Vec<Problem>> {
    match settings.connector {
        // As far as tokens go, they are what OpenID Connect and RFC 7662 say.
        ConnectorKind::Oidc | ConnectorKind::Keycloak | ConnectorKind::Wso2is => {}
        ConnectorKind::Okta | ConnectorKind::Auth0 | ConnectorKind::Http => {}
        ConnectorKind::Embedded => {
            return Err(vec![Problem::new(
                format!("{field}.connector"),
                "the embedded provider hands its keys over itself",
            )]);
        }
    }
    if let Some(file) = &settings.jwks {
        return read_keys(file).map(KeySource::Fixed).map_err(|why| vec![Problem::new(format!("{field}.jwks"), why)]);
    }
    let no_set = !settings.discovery && settings.jwks_uri.is_none();
    if no_set && !settings.secret_keys.is_empty() {
        return Ok(KeySource::NONE);
    }
    // Where nothing is ever verified there may be no keys at all (RFC 8414 does not ask for `jwks_uri`).
    let verifies_nothing = settings.validation == Validation::Introspect
        && settings.introspection_response == ResponseForm::Json
        && settings.secret_keys.is_empty();
    if verifies_nothing && settings.jwks_uri.is_none() {
        return Ok(KeySource::NONE);
    }
    let client = client_auth::client(settings, field, client).map_err(|problem| vec![problem])?;
    oidc::key_source(settings, field, &client)
}

fn read_keys(JwksFile { file }: &JwksFile) -> Result<Bytes, String> {
    let mut text = file::read(file).map_err(|error| format!("cannot read the file: {error}"))?;
    Ok(mem::take(&mut *text).into())
}

/// An address of a provider: https, or http to this machine or where the settings allow it.
fn endpoint(text: &str, allow_http: bool) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is no URL")?;
    match url.scheme() {
        "https" => {}
        "http" if allow_http || is_loopback(&url) => {}
        "http" => return Err("must be https; http is for loopback, or with allow_http = true"),
        _ => return Err("must be https"),
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must have no user, password or fragment");
    }
    Ok(url)
}
