//! Asking a provider about a token over HTTP (RFC 7662): where, as whom, how many at one time, how long, and
//! when no more.
//!
//! The token goes nowhere but into the form that is sent. What the provider answers is read elsewhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::ACCEPT};
use serde::Deserialize;
use tokio::{
    sync::{OnceCell, Semaphore},
    time,
};
use url::{Url, form_urlencoded::Serializer};
use zeroize::Zeroizing;

use super::{
    breaker::Breaker,
    client_auth::{self, Credential},
    endpoint,
    oidc::{self, Place, Provider},
};
use crate::{
    net::{
        Clock, Reach,
        client::{Answer, Client, ClientError, Form},
    },
    problem::Problem,
    token::{
        AnswerForm, Circuit, FetchError, Introspect, IntrospectError, IntrospectFuture, IntrospectionAnswer,
        settings::{KeyManagerSettings, ResponseForm, Validation},
    },
};

/// One provider's introspection.
#[derive(Debug)]
struct Introspector {
    client: Client,
    credential: Credential,
    endpoint: Endpoint,
    accept: HeaderValue,
    timeout: Duration,
    /// Calls under way.
    permits: Semaphore,
    concurrency: usize,
    /// Calls under way and those that wait for their turn.
    present: AtomicUsize,
    breaker: Breaker,
}

/// Where the provider is asked.
#[derive(Debug)]
enum Endpoint {
    ByHand(Place),
    Discovered { provider: Provider, found: ArcSwap<Discovery> },
}

/// What the metadata says, once it was asked for.
#[derive(Debug, Default)]
struct Discovery {
    now: OnceCell<Said>,
    /// Where it was before.
    before: Option<Place>,
}

#[derive(Debug)]
struct Said {
    /// None: it offers no introspection.
    place: Option<Place>,
    at: Instant,
}

/// A place among those who call or wait, given back when dropped.
struct Present<'i>(&'i AtomicUsize);

/// Who is asked about the tokens of the key manager at `field`; `None`: nobody, since they are verified, or
/// since the settings do not say who we are there. Contacts nobody.
pub(super) fn introspection(
    settings: &KeyManagerSettings,
    field: &str,
    client: &Client,
    clock: &Arc<Clock>,
) -> Result<Option<Arc<dyn Introspect>>, Vec<Problem>> {
    let wanted = matches!(settings.validation, Validation::Introspect | Validation::Both)
        || settings.token_pattern.is_some()
        || settings.introspection_endpoint.is_some();
    let by_hand = settings.introspection_endpoint.as_deref();
    let nowhere = by_hand.is_none() && !settings.discovery;
    if settings.validation == Validation::Jwt || (!wanted && (nowhere || !client_auth::says_who_we_are(settings))) {
        return Ok(None);
    }
    let at = |name: &str| format!("{field}.{name}");
    let mut problems = Vec::new();
    if nowhere {
        problems.push(Problem::new(at("introspection_endpoint"), "is needed where discovery = false"));
    }
    if settings.introspection_response == ResponseForm::Jwt && settings.client_id.is_none() {
        problems.push(Problem::new(at("client_id"), "is needed by introspection_response = \"jwt\": answers name it"));
    }
    let mut keep = |found: Vec<Problem>| problems.extend(found);
    let credential = Credential::new(settings, field, clock).map_err(&mut keep).ok();
    let client = client_auth::client(settings, field, client).map_err(|problem| keep(vec![problem])).ok();
    let endpoint = client
        .as_ref()
        .and_then(|client| Endpoint::new(by_hand, settings, field, client).map_err(|problem| keep(vec![problem])).ok());
    let (Some(credential), Some(client), Some(endpoint), true) = (credential, client, endpoint, problems.is_empty())
    else {
        return Err(problems);
    };
    let concurrency = usize::try_from(settings.concurrency).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    Ok(Some(Arc::new(Introspector {
        client,
        credential,
        endpoint,
        accept: HeaderValue::from_static(match settings.introspection_response {
            ResponseForm::Json => JSON,
            ResponseForm::Jwt => JWT,
        }),
        timeout: settings.timeout.0,
        permits: Semaphore::new(concurrency),
        concurrency,
        present: AtomicUsize::new(0),
        breaker: Breaker::new(&settings.name),
    })))
}

impl Introspect for Introspector {
    fn introspect<'a>(&'a self, token: &'a str) -> IntrospectFuture<'a> {
        Box::pin(async move {
            let _present = self.enter()?;
            let end = time::Instant::now() + self.timeout;
            let _turn = match time::timeout_at(end, self.permits.acquire()).await {
                Ok(Ok(turn)) if time::Instant::now() < end => turn,
                // Its turn has not come in time, or came with no time left.
                _ => return Err(IntrospectError::Saturated),
            };
            // Only now: while we waited, others may have found it gone.
            let permit = self.breaker.admit(Instant::now()).map_err(|wait| IntrospectError::CircuitOpen {
                retry_after: u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1),
            })?;
            let outcome = time::timeout_at(end, self.call(token)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(IntrospectError::Timeout(self.endpoint.shown())));
            match &outcome {
                // Whoever brings tokens that it turns down must not take it away from everybody else.
                Ok(_) | Err(IntrospectError::NotOffered | IntrospectError::TurnedDown(_)) => permit.succeeded(),
                Err(_) => permit.failed(Instant::now()),
            }
            outcome
        })
    }

    fn circuit(&self) -> Circuit {
        self.breaker.circuit(Instant::now())
    }
}

impl Introspector {
    /// A place among those who wait: there are not so many that what waits is a burden of its own.
    fn enter(&self) -> Result<Present<'_>, IntrospectError> {
        let most = self.concurrency.saturating_mul(MOST_WAITING);
        let place = Present(&self.present);
        if self.present.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(IntrospectError::Saturated);
        }
        Ok(place)
    }

    /// Asks; once more where the connection failed, since asking changes nothing.
    async fn call(&self, token: &str) -> Result<IntrospectionAnswer, IntrospectError> {
        let Place { url, reach } = self.endpoint.place().await?;
        let answer = match self.send(&url, reach, token).await {
            Err(IntrospectError::Unreachable(_)) => self.send(&url, reach, token).await,
            outcome => outcome,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.endpoint.doubt(&error);
                return Err(error);
            }
        };
        match read(&url, &answer) {
            Err(error) => {
                self.endpoint.doubt(&error);
                Err(error)
            }
            Ok(form) => Ok(IntrospectionAnswer { body: answer.body, form }),
        }
    }

    async fn send(&self, url: &Url, reach: Reach, token: &str) -> Result<Answer, IntrospectError> {
        let form = self.form(token)?;
        self.client.post(url, reach, form, MAX_ANSWER, self.timeout).await.map_err(|error| match error {
            ClientError::TimedOut(place) => IntrospectError::Timeout(place),
            ClientError::TooLarge { .. } | ClientError::Forbidden(_) => IntrospectError::Answer(error.to_string()),
            other => IntrospectError::Unreachable(other.to_string()),
        })
    }

    fn form(&self, token: &str) -> Result<Form, IntrospectError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, self.accept.clone());
        let mut body = Serializer::new(String::new());
        body.append_pair("token", token).append_pair("token_type_hint", "access_token");
        self.credential
            .sign(&mut headers, &mut body)
            .map_err(|error| IntrospectError::Credentials(error.to_string()))?;
        Ok(Form { headers, body: Zeroizing::new(body.finish()) })
    }
}

/// Whether it is an introspection response at all, and in which form. A provider that does not take our
/// credentials has said nothing of the token (RFC 7662 section 2.3).
fn read(url: &Url, answer: &Answer) -> Result<AnswerForm, IntrospectError> {
    let status = answer.status;
    let place = shown(url);
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(IntrospectError::Credentials(format!("{place}: answered {status}")));
        }
        StatusCode::BAD_REQUEST if is_about_us(&answer.body) => {
            return Err(IntrospectError::Credentials(format!("{place}: answered {status}")));
        }
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::URI_TOO_LONG
        | StatusCode::UNPROCESSABLE_ENTITY => {
            return Err(IntrospectError::TurnedDown(format!("{place}: answered {status}")));
        }
        _ => return Err(IntrospectError::Answer(format!("{place}: answered {status}"))),
    }
    match &*answer.media_type {
        // A page that calls itself JSON is told here, so that the provider is left alone.
        JSON if answer.body.trim_ascii_start().starts_with(b"{") => Ok(AnswerForm::Json),
        JWT => Ok(AnswerForm::Jwt),
        _ => Err(IntrospectError::Answer(format!("{place}: the answer is no introspection response"))),
    }
}

/// An error of RFC 6749 section 5.2 that says our own credentials are not taken.
fn is_about_us(body: &Bytes) -> bool {
    #[derive(Deserialize)]
    struct ErrorBody {
        error: String,
    }
    serde_json::from_slice::<ErrorBody>(body)
        .is_ok_and(|body| matches!(body.error.as_str(), "invalid_client" | "unauthorized_client"))
}

impl Endpoint {
    fn new(
        by_hand: Option<&str>,
        settings: &KeyManagerSettings,
        field: &str,
        client: &Client,
    ) -> Result<Self, Problem> {
        match by_hand {
            Some(text) => endpoint(text, settings.allow_http)
                .map(|url| Self::ByHand(Place { url, reach: Reach::Local }))
                .map_err(|why| Problem::new(format!("{field}.introspection_endpoint"), why)),
            None => {
                let provider = oidc::provider(settings, field, client)?;
                Ok(Self::Discovered { provider, found: ArcSwap::default() })
            }
        }
    }

    /// Where to ask: looked for once, whoever waits, and again when it is old and there was nothing.
    async fn place(&self) -> Result<Place, IntrospectError> {
        let (provider, found) = match self {
            Self::ByHand(place) => return Ok(place.clone()),
            Self::Discovered { provider, found } => (provider, found),
        };
        let stale = |said: &Said| said.place.is_none() && said.at.elapsed() > LOOK_AGAIN;
        let discovery = found.load_full();
        let discovery = if discovery.now.get().is_some_and(stale) {
            found.compare_and_swap(&discovery, Arc::default());
            found.load_full()
        } else {
            discovery
        };
        let look = || async {
            let place = provider.introspection_endpoint().await?;
            Ok(Said { place, at: Instant::now() })
        };
        match discovery.now.get_or_try_init(look).await {
            Ok(said) => said.place.clone().ok_or(IntrospectError::NotOffered),
            Err(FetchError::Unreachable(why)) => discovery.before.clone().ok_or(IntrospectError::Unreachable(why)),
            Err(FetchError::Answer(why)) => discovery.before.clone().ok_or(IntrospectError::Answer(why)),
            Err(other) => Err(IntrospectError::Metadata(other.to_string())),
        }
    }

    /// What was found may have moved: it is looked for again before the next call, and asked where it was as
    /// long as nobody says.
    fn doubt(&self, error: &IntrospectError) {
        let Self::Discovered { found, .. } = self else { return };
        if matches!(error, IntrospectError::Unreachable(_) | IntrospectError::Answer(_)) {
            found.rcu(|known| {
                let now = known.now.get().and_then(|said| said.place.clone());
                Discovery { now: OnceCell::new(), before: now.or_else(|| known.before.clone()) }
            });
        }
    }

    /// For an error.
    fn shown(&self) -> String {
        match self {
            Self::ByHand(place) => shown(&place.url),
            Self::Discovered { found, .. } => {
                let known = found.load();
                let place = known.now.get().and_then(|said| said.place.as_ref()).or(known.before.as_ref());
                place.map_or_else(|| "the provider's metadata".into(), |place| shown(&place.url))
            }
        }
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Without user, query and fragment, where secrets may stand.
fn shown(url: &Url) -> String {
    url.origin().ascii_serialization() + url.path()
}

const JSON: &str = "application/json";
const JWT: &str = "application/token-introspection+jwt";
const MAX_ANSWER: usize = 64 << 10;
/// Of those that call and wait, how many times as many as may call.
const MOST_WAITING: usize = 16;
/// How long a provider without introspection is believed to have none.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
