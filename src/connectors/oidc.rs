//! A provider that is found by OpenID Connect Discovery 1.0, or by RFC 8414.
//!
//! The metadata must be for exactly the issuer that is configured, and may not lead from https to http, nor from a
//! public issuer to this machine or into a private network: it does only where the issuer itself was found there.
//! Addresses that the configuration names may be anywhere but where nothing of ours ever goes.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use parking_lot::Mutex;
use serde::Deserialize;
use url::Url;

use super::endpoint;
use crate::{
    net::{
        Reach,
        client::{Answer, Client, ClientError},
    },
    problem::Problem,
    token::{FetchError, FetchFuture, FetchKeys, Fetched, KeySource, MAX_JWKS, settings::KeyManagerSettings},
};

/// The part of a provider's metadata that counts here. A member that occurs twice is refused.
#[derive(Debug, Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: Option<String>,
    introspection_endpoint: Option<String>,
}

/// What is looked for in a provider's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    JwksUri,
    IntrospectionEndpoint,
}

/// A provider that has metadata, and its key set.
#[derive(Debug)]
pub(super) struct Provider {
    client: Client,
    issuer: String,
    /// Where the metadata may be, in the order of asking; none where the key set's address is given.
    metadata: Vec<Url>,
    /// Where the key set is, as far as known. Forgotten when it cannot be had there: it may have moved.
    jwks_uri: Mutex<Option<Place>>,
    allow_http: bool,
    timeout: Duration,
}

/// An address, and how far it may lead.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) url: Url,
    pub(super) reach: Reach,
}

/// The source of the keys, as the settings say: an address given by hand comes before discovery.
pub(super) fn key_source(
    settings: &KeyManagerSettings,
    field: &str,
    client: &Client,
) -> Result<KeySource, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut check = |name: &str, text: &str| {
        endpoint(text, settings.allow_http)
            .map_err(|why| problems.push(Problem::new(format!("{field}.{name}"), why)))
            .ok()
    };
    let issuer = check("issuer", &settings.issuer);
    let jwks_uri = settings.jwks_uri.as_deref().and_then(|text| check("jwks_uri", text));
    if issuer.as_ref().is_some_and(|issuer| issuer.query().is_some()) {
        problems.push(Problem::new(format!("{field}.issuer"), "must have no query"));
    }
    if settings.jwks_uri.is_none() && !settings.discovery {
        problems.push(Problem::new(format!("{field}.jwks_uri"), "is needed where discovery = false"));
    }
    let (Some(issuer), true) = (issuer, problems.is_empty()) else { return Err(problems) };
    let metadata = if jwks_uri.is_some() { Vec::new() } else { metadata_urls(&issuer).into() };
    let by_hand = jwks_uri.map(|url| Place { url, reach: Reach::Local });
    Ok(KeySource::Remote(Arc::new(Provider {
        client: client.clone(),
        issuer: settings.issuer.clone(),
        metadata,
        jwks_uri: Mutex::new(by_hand),
        allow_http: settings.allow_http,
        timeout: settings.timeout.0,
    })))
}

/// The provider whose metadata names the introspection endpoint.
pub(super) fn provider(settings: &KeyManagerSettings, field: &str, client: &Client) -> Result<Provider, Problem> {
    let issuer =
        endpoint(&settings.issuer, settings.allow_http).map_err(|why| Problem::new(format!("{field}.issuer"), why))?;
    Ok(Provider {
        client: client.clone(),
        issuer: settings.issuer.clone(),
        metadata: metadata_urls(&issuer).into(),
        jwks_uri: Mutex::new(None),
        allow_http: settings.allow_http,
        timeout: settings.timeout.0,
    })
}

/// OpenID Connect Discovery 1.0 section 4 puts the well-known path behind the issuer's, RFC 8414
/// section 3 before it.
fn metadata_urls(issuer: &Url) -> [Url; 2] {
    let path = issuer.path().trim_end_matches('/').to_owned();
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url
    };
    [at(format!("{path}{OPENID}")), at(format!("/.well-known/oauth-authorization-server{path}"))]
}

impl FetchKeys for Provider {
    fn fetch(&self, rediscover: bool) -> FetchFuture<'_> {
        Box::pin(async move {
            let known = self.jwks_uri.lock().clone();
            let place = match known {
                Some(place) if self.metadata.is_empty() || !rediscover => place,
                known => self.locate(known).await?,
            };
            let outcome = self.document(&place, JWKS_TYPES, MAX_JWKS).await;
            if !self.metadata.is_empty() {
                *self.jwks_uri.lock() = outcome.is_ok().then_some(place);
            }
            outcome.map(|answer| Fetched { text: answer.body, max_age: answer.max_age })
        })
    }
}

impl Provider {
    /// The key set's address as the metadata has it now; the one known where the metadata cannot be had.
    async fn locate(&self, known: Option<Place>) -> Result<Place, FetchError> {
        match self.discover(Member::JwksUri).await {
            Err(error @ (FetchError::Unreachable(_) | FetchError::Answer(_))) => known.ok_or(error),
            outcome => outcome?.ok_or_else(|| FetchError::Metadata(NOT_OURS.into())),
        }
    }

    /// Where tokens are asked about, as the metadata has it now; none: it offers no introspection.
    pub(super) async fn introspection_endpoint(&self) -> Result<Option<Place>, FetchError> {
        self.discover(Member::IntrospectionEndpoint).await
    }

    /// The address of a member; none where the metadata lacks it.
    async fn discover(&self, member: Member) -> Result<Option<Place>, FetchError> {
        let answer = self.described().await?;
        let url = self.read(&answer.body, member)?;
        // It may lead as far as it comes from.
        Ok(url.map(|url| Place { url, reach: answer.from }))
    }

    /// The same with another limit for each document.
    pub(super) fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The metadata as it stands, from the first place that has any. Whose it is has not been looked at.
    pub(super) async fn described(&self) -> Result<Answer, FetchError> {
        let mut first = None;
        for url in &self.metadata {
            let place = Place { url: url.clone(), reach: Reach::Local };
            match self.document(&place, "application/json", MAX_METADATA).await {
                Ok(answer) => return Ok(answer),
                // Nobody there: nobody at the other path either.
                Err(error @ FetchError::Unreachable(_)) => return Err(first.unwrap_or(error)),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| FetchError::Metadata("there is nowhere to look for metadata".into())))
    }

    fn read(&self, text: &[u8], member: Member) -> Result<Option<Url>, FetchError> {
        let refuse = |why: &str| FetchError::Metadata(why.to_owned());
        let metadata: Metadata = serde_json::from_slice(text).map_err(|_| refuse(NOT_OURS))?;
        if metadata.issuer != self.issuer {
            return Err(refuse(OTHERS));
        }
        let (name, named) = match member {
            Member::JwksUri => ("jwks_uri", metadata.jwks_uri),
            Member::IntrospectionEndpoint => ("introspection_endpoint", metadata.introspection_endpoint),
        };
        named.map(|named| self.led_to(name, &named)).transpose()
    }

    /// Whether the metadata is for our issuer.
    pub(super) fn is_for_us(&self, issuer: &str) -> Result<(), FetchError> {
        (issuer == self.issuer).then_some(()).ok_or_else(|| FetchError::Metadata(OTHERS.to_owned()))
    }

    /// The address that the member `name` of the provider's own words leads to, if it may.
    pub(super) fn led_to(&self, name: &str, named: &str) -> Result<Url, FetchError> {
        let url = endpoint(named, self.allow_http)
            .map_err(|why| FetchError::Metadata(format!("the metadata's {name} {why}")))?;
        if url.scheme() == "http" && self.issuer.starts_with("https:") && !self.allow_http {
            return Err(FetchError::Metadata(format!("the metadata's {name} leads from https to http")));
        }
        Ok(url)
    }

    /// A document of the provider below its issuer's path, which not every provider has.
    pub(super) async fn beside(&self, well_known: &str) -> Result<Option<Answer>, FetchError> {
        let Some(first) = self.metadata.first() else { return Ok(None) };
        let mut url = first.clone();
        let path = url.path().trim_end_matches(OPENID).to_owned();
        url.set_path(&format!("{path}{well_known}"));
        let place = Place { url, reach: Reach::Local };
        match self.document(&place, "application/json", MAX_METADATA).await {
            Ok(answer) => Ok(Some(answer)),
            Err(FetchError::Answer(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn document(&self, place: &Place, accept: &str, limit: usize) -> Result<Answer, FetchError> {
        let Place { url, reach } = place;
        let answer = self.client.get(url, *reach, accept, limit, self.timeout).await.map_err(|error| match error {
            ClientError::TooLarge { .. } => FetchError::Answer(error.to_string()),
            ClientError::Forbidden(_) => FetchError::Forbidden(error.to_string()),
            other => FetchError::Unreachable(other.to_string()),
        })?;
        if answer.status != StatusCode::OK {
            let place = url.origin().ascii_serialization() + url.path();
            return Err(FetchError::Answer(format!("{place}: answered {}", answer.status)));
        }
        Ok(answer)
    }
}

const OPENID: &str = "/.well-known/openid-configuration";
const OTHERS: &str = "the metadata is for another issuer than the one configured";
const NOT_OURS: &str = "the metadata is not JSON with issuer and jwks_uri";
const JWKS_TYPES: &str = "application/jwk-set+json, application/json";
const MAX_METADATA: usize = 256 << 10;
