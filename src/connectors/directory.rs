//! Where a provider's endpoints are: as the configuration says, or as its metadata does (OpenID Connect Discovery 1.0,
//! RFC 8414, UMA 2.0).
//!
//! The metadata is got once for all who wait, and again when it is old; while it cannot be had, what it said before
//! counts.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{sync::OnceCell, time::timeout};
use url::Url;

use super::{
    api::LEAST_TIMEOUT,
    endpoint,
    oidc::{self, Place, Provider},
};
use crate::{
    keymanager::{Error, Operation, Result},
    net::{Reach, client::Client},
    problem::Problem,
    token::{FetchError, settings::KeyManagerSettings},
};

/// An endpoint of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Token,
    Introspection,
    Revocation,
    Registration,
    /// Of UMA 2.0 (Federated Authorization section 2).
    ResourceRegistration,
}

/// One provider's endpoints.
#[derive(Debug)]
pub(super) struct Directory {
    by_hand: Vec<(Endpoint, Place)>,
    /// None: there is only what stands in the configuration.
    provider: Option<Provider>,
    /// How long whoever only wants to know what there is waits for all of the metadata.
    patience: Duration,
    found: ArcSwap<Discovery>,
}

/// What the metadata says, once it was asked for.
#[derive(Debug, Default)]
struct Discovery {
    now: OnceCell<Arc<Said>>,
    /// What it said before.
    before: Option<Arc<Said>>,
}

#[derive(Debug)]
struct Said {
    places: Vec<(Endpoint, Place)>,
    at: Instant,
}

/// The part of the metadata that counts here.
#[derive(Debug, Deserialize)]
struct Metadata {
    issuer: String,
    token_endpoint: Option<String>,
    introspection_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    registration_endpoint: Option<String>,
}

/// The part of UMA 2.0's.
#[derive(Debug, Deserialize)]
struct UmaMetadata {
    issuer: String,
    resource_registration_endpoint: Option<String>,
}

impl Directory {
    /// The endpoints of the key manager at `field`. Contacts nobody.
    pub(super) fn new(
        settings: &KeyManagerSettings,
        field: &str,
        client: &Client,
    ) -> std::result::Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut by_hand = Vec::new();
        for (kind, name, text) in [
            (Endpoint::Token, "token_endpoint", &settings.token_endpoint),
            (Endpoint::Introspection, "introspection_endpoint", &settings.introspection_endpoint),
            (Endpoint::Revocation, "revocation_endpoint", &settings.revocation_endpoint),
            (Endpoint::Registration, "registration_endpoint", &settings.registration_endpoint),
        ] {
            match text.as_ref().map(|text| endpoint(text, settings.allow_http)) {
                Some(Ok(url)) => by_hand.push((kind, Place { url, reach: Reach::Local })),
                Some(Err(why)) => problems.push(Problem::new(format!("{field}.{name}"), why)),
                None => {}
            }
        }
        let provider = settings.discovery.then(|| oidc::provider(settings, field, client)).transpose();
        let provider = provider.map_err(|problem| problems.push(problem)).unwrap_or_default();
        if !problems.is_empty() {
            return Err(problems);
        }
        // As long as any other call of an operation: nobody's request waits for it.
        let patience = settings.timeout.0.max(LEAST_TIMEOUT);
        let provider = provider.map(|provider| provider.within(patience));
        Ok(Self { by_hand, provider, patience, found: ArcSwap::default() })
    }

    /// Puts an endpoint where the provider is known to have it, unless the configuration says otherwise.
    pub(super) fn known(mut self, endpoint: Endpoint, place: Place) -> Self {
        if !self.by_hand.iter().any(|(known, _)| *known == endpoint) {
            self.by_hand.push((endpoint, place));
        }
        self
    }

    /// Why there is no such endpoint, as far as is known without asking.
    pub(super) fn lacks(&self, endpoint: Endpoint) -> Option<Cow<'static, str>> {
        if self.by_hand.iter().any(|(known, _)| *known == endpoint) {
            return None;
        }
        if self.provider.is_none() {
            return Some(format!("the configuration names no {} and has discovery off", endpoint.name()).into());
        }
        let found = self.found.load();
        let said = found.now.get().or(found.before.as_ref())?;
        said.place(endpoint).is_none().then(|| unannounced(endpoint))
    }

    /// Asks for the metadata, unless it is known.
    pub(super) async fn learn(&self) -> Result<()> {
        let late = |_| Error::TimedOut("its metadata".into());
        timeout(self.patience, self.said()).await.map_err(late)?.map(drop)
    }

    /// Where it is, for the sake of `operation`.
    pub(super) async fn place(&self, endpoint: Endpoint, operation: Operation) -> Result<Place> {
        let place = match self.by_hand.iter().find(|(known, _)| *known == endpoint) {
            Some((_, place)) => Some(place.clone()),
            None => self.said().await?.and_then(|said| said.place(endpoint).cloned()),
        };
        place.ok_or_else(|| {
            let reason = self.lacks(endpoint).unwrap_or_else(|| unannounced(endpoint));
            Error::Unsupported { operation, reason }
        })
    }

    /// An address that the provider itself names, such as a `registration_client_uri`: no further than `beside` is.
    pub(super) fn led_to(&self, name: &'static str, named: &str, beside: &Place) -> Result<Place> {
        let url = match &self.provider {
            Some(provider) => provider.led_to(name, named).map_err(unknown)?,
            None => {
                let same = Url::parse(named).ok().filter(|url| url.origin() == beside.url.origin());
                same.ok_or_else(|| Error::Answer(format!("{name} leads to another host than its endpoint's")))?
            }
        };
        // Who was found at a private address may name one; whom the configuration puts there too.
        Ok(Place { url, reach: beside.reach })
    }

    async fn said(&self) -> Result<Option<Arc<Said>>> {
        let Some(provider) = &self.provider else { return Ok(None) };
        let found = self.found.load_full();
        let found = match found.now.get() {
            Some(said) if said.at.elapsed() > LOOK_AGAIN => {
                let next = Discovery { now: OnceCell::new(), before: Some(Arc::clone(said)) };
                self.found.compare_and_swap(&found, Arc::new(next));
                self.found.load_full()
            }
            _ => found,
        };
        let outcome = found.now.get_or_try_init(|| async { look(provider).await.map(Arc::new) }).await;
        match outcome {
            Ok(said) => Ok(Some(Arc::clone(said))),
            Err(error) => found.before.clone().map(Some).ok_or_else(|| unknown(error)),
        }
    }
}

async fn look(provider: &Provider) -> std::result::Result<Said, FetchError> {
    let answer = provider.described().await?;
    let metadata: Metadata = parse(&answer.body)?;
    provider.is_for_us(&metadata.issuer)?;
    let mut places = Vec::new();
    let mut keep = |kind: Endpoint, named: Option<String>, reach| -> std::result::Result<(), FetchError> {
        let Some(named) = named else { return Ok(()) };
        let url = provider.led_to(kind.name(), &named)?;
        places.push((kind, Place { url, reach }));
        Ok(())
    };
    keep(Endpoint::Token, metadata.token_endpoint, answer.from)?;
    keep(Endpoint::Introspection, metadata.introspection_endpoint, answer.from)?;
    keep(Endpoint::Revocation, metadata.revocation_endpoint, answer.from)?;
    keep(Endpoint::Registration, metadata.registration_endpoint, answer.from)?;
    if let Some(answer) = provider.beside(UMA).await?
        && let Ok(metadata) = parse::<UmaMetadata>(&answer.body)
        && provider.is_for_us(&metadata.issuer).is_ok()
    {
        keep(Endpoint::ResourceRegistration, metadata.resource_registration_endpoint, answer.from)?;
    }
    Ok(Said { places, at: Instant::now() })
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> std::result::Result<T, FetchError> {
    serde_json::from_slice(text).map_err(|_| FetchError::Metadata("the metadata is not the JSON that is due".into()))
}

impl Said {
    fn place(&self, endpoint: Endpoint) -> Option<&Place> {
        self.places.iter().find(|(known, _)| *known == endpoint).map(|(_, place)| place)
    }
}

impl Endpoint {
    /// As metadata has it.
    const fn name(self) -> &'static str {
        match self {
            Self::Token => "token_endpoint",
            Self::Introspection => "introspection_endpoint",
            Self::Revocation => "revocation_endpoint",
            Self::Registration => "registration_endpoint",
            Self::ResourceRegistration => "resource_registration_endpoint (UMA 2.0)",
        }
    }
}

fn unannounced(endpoint: Endpoint) -> Cow<'static, str> {
    format!("the provider announces no {}", endpoint.name()).into()
}

fn unknown(error: FetchError) -> Error {
    match error {
        FetchError::Unreachable(why) => Error::Unreachable(why),
        FetchError::Forbidden(why) => Error::Unreachable(why),
        other => Error::Answer(other.to_string()),
    }
}

/// How long metadata is believed.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
const UMA: &str = "/.well-known/uma2-configuration";
