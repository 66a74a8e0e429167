//! Calls of a provider's management interface: the one way by which every connector's operations go out.
//!
//! A call ends in bounded time, in no more than so many at once, and not at all while the provider keeps failing.
//! GET, HEAD, PUT and DELETE are tried once more where nobody answered or a gateway said that nobody is there; POST and
//! PATCH never, since they may have been done. Our own access token is got once for all who wait, and once more where
//! the provider no longer takes it. What a refusal says is the provider's own words, without any secret of the call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time,
};
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::{
    breaker::Breaker,
    client_auth::{self, Credential},
    oidc::Place,
    own_token::OwnToken,
    refusal::{self, Refusal, Secrets, is_nobody_there},
};
use crate::{
    keymanager::{Error, Result},
    net::{
        Clock,
        client::{Answer, Client, ClientError, Request},
    },
    problem::Problem,
    token::settings::KeyManagerSettings,
};

/// One provider's management interface.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    /// Who we are; none: the settings do not say, and only calls that need no credential of ours are made.
    credential: Option<Credential>,
    token: OwnToken,
    timeout: Duration,
    permits: Semaphore,
    concurrency: usize,
    /// Calls under way and those that wait for their turn.
    present: AtomicUsize,
    breaker: Breaker,
}

/// One call. Built by its methods: `Call::get(&place).own_token(&token_endpoint).absent("client")`.
#[derive(Debug)]
pub(super) struct Call<'c> {
    method: Method,
    place: &'c Place,
    headers: HeaderMap,
    body: Body,
    who: Who<'c>,
    /// Whether a refusal of the credentials is one of ours.
    ours: bool,
    absent: Option<&'static str>,
    /// Whether it makes something that nobody would know of if the answer were lost.
    makes: bool,
    secrets: Secrets,
}

#[derive(Debug)]
enum Body {
    None,
    Json(Zeroizing<String>),
    Form(Vec<(String, Zeroizing<String>)>),
}

/// As whom a call is made.
#[derive(Debug, Clone, Copy)]
enum Who<'c> {
    /// Nobody, or whom the headers say.
    Open,
    /// Ourselves, by what the settings say.
    Own,
    /// Ourselves, by an access token of this token endpoint.
    OwnToken(&'c Place),
}

/// A good answer: its status is 2xx.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    body: bytes::Bytes,
    /// Who answered, for an error.
    from: String,
    makes: bool,
}

/// A place among those who call or wait, given back when dropped.
struct Present<'a>(&'a AtomicUsize);

impl Api {
    /// The interface of the key manager at `field`; its credential is there if the settings say who we are. Contacts
    /// nobody.
    pub(super) fn new(
        settings: &KeyManagerSettings,
        field: &str,
        client: &Client,
        clock: &Arc<Clock>,
    ) -> std::result::Result<Self, Vec<Problem>> {
        let known = client_auth::says_who_we_are(settings);
        let credential = known.then(|| Credential::new(settings, field, clock)).transpose();
        let client = client_auth::client(settings, field, client);
        let (client, credential) = match (client, credential) {
            (Ok(client), Ok(credential)) => (client, credential),
            (client, credential) => {
                return Err(client.err().into_iter().chain(credential.err().unwrap_or_default()).collect());
            }
        };
        let concurrency = usize::try_from(settings.concurrency).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Ok(Self {
            client,
            credential,
            token: OwnToken::default(),
            timeout: settings.timeout.0.max(LEAST_TIMEOUT),
            permits: Semaphore::new(concurrency),
            concurrency,
            present: AtomicUsize::new(0),
            breaker: Breaker::new(&settings.name),
        })
    }

    /// The same, whose own token is asked for with these parameters besides (`scope`, `audience`).
    pub(super) fn asking(mut self, parameters: &[(&'static str, String)]) -> Self {
        self.token = OwnToken::asking(parameters);
        self
    }

    /// The same with another limit for a whole call.
    #[cfg(test)]
    pub(super) const fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What it is reached with.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the settings say who we are.
    pub(super) const fn has_credential(&self) -> bool {
        self.credential.is_some()
    }

    /// Makes a call. A status other than 2xx is an error.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Reply> {
        self.send_reading(call, |_| None).await
    }

    /// The same, where the provider's refusals say more than their status: `read` is the first to look at one.
    pub(super) async fn send_reading(
        &self,
        call: Call<'_>,
        read: impl FnOnce(&Refusal<'_>) -> Option<Error> + Send,
    ) -> Result<Reply> {
        let _present = self.enter()?;
        let end = time::Instant::now() + self.timeout;
        let (answer, secrets) = self.answer(&call, end).await?;
        let from = refusal::shown(&call.place.url);
        if answer.status.is_success() {
            return Ok(Reply { headers: answer.headers, body: answer.body, from, makes: call.makes });
        }
        let otherwise = || refusal::error(&answer, &from, call.absent, call.ours, &secrets);
        let error = read(&Refusal::new(&answer, &secrets)).unwrap_or_else(otherwise);
        let fell_over = matches!(error, Error::Refused { status: 500 | 502.., .. });
        Err(if call.makes && fell_over { error.unclear() } else { error })
    }

    /// The same for a call whose subject may well be gone already: none where the provider says so.
    pub(super) async fn send_if_there(&self, call: Call<'_>) -> Result<Option<Reply>> {
        match self.send(call.absent("subject")).await {
            Ok(reply) => Ok(Some(reply)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn answer(&self, call: &Call<'_>, end: time::Instant) -> Result<(Answer, Secrets)> {
        let Who::OwnToken(endpoint) = call.who else { return self.tries(call, None, end).await };
        // A credential that is itself a bearer token is our access token.
        if matches!(&self.credential, Some(Credential::Field { field, .. }) if field.as_bytes().starts_with(b"Bearer "))
        {
            return self.tries(call, None, end).await;
        }
        let token = self.token.get(self, endpoint, end).await?;
        let first = self.tries(call, Some(&token.field), end).await?;
        if first.0.status != StatusCode::UNAUTHORIZED {
            return Ok(first);
        }
        // It may have been revoked, or the provider's keys be new.
        self.token.forget(&token);
        let token = self.token.get(self, endpoint, end).await?;
        self.tries(call, Some(&token.field), end).await
    }

    /// Sends it; once more where that does no harm.
    pub(super) async fn tries(
        &self,
        call: &Call<'_>,
        token: Option<&HeaderValue>,
        end: time::Instant,
    ) -> Result<(Answer, Secrets)> {
        let _turn = self.turn(end).await?;
        let first = self.once(call, token, end).await;
        let again = match &first {
            Err(Error::Unreachable(_)) => true,
            Ok((answer, _)) => is_nobody_there(answer.status),
            Err(_) => false,
        };
        let harmless = matches!(call.method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE);
        let pause = PAUSE.mul_f64(0.5 + fastrand::f64());
        if !again || !harmless || time::Instant::now() + pause >= end {
            return first;
        }
        time::sleep(pause).await;
        self.once(call, token, end).await
    }

    async fn once(
        &self,
        call: &Call<'_>,
        token: Option<&HeaderValue>,
        end: time::Instant,
    ) -> Result<(Answer, Secrets)> {
        let mut secrets = call.secrets.clone();
        let (headers, body) = self.signed(call, token, &mut secrets)?;
        // Only now: while we waited, others may have found it gone.
        let permit = self.breaker.admit(Instant::now()).map_err(|wait| {
            let wait = wait.as_millis().div_ceil(1000).max(1);
            Error::Unreachable(format!("it keeps failing, and is asked again in {wait} s"))
        })?;
        let Place { url, reach } = call.place;
        let timeout = end.saturating_duration_since(time::Instant::now());
        let request =
            Request { method: call.method.clone(), url, reach: *reach, headers, body, limit: MAX_ANSWER, timeout };
        let outcome = self.client.send(request).await;
        match &outcome {
            Ok(answer) if !is_nobody_there(answer.status) => permit.succeeded(),
            Err(ClientError::TooLarge { .. }) => permit.succeeded(),
            _ => permit.failed(Instant::now()),
        }
        outcome.map(|answer| (answer, secrets)).map_err(|error| refusal::unanswered(error, call.makes))
    }

    /// Header fields and body, with what says who we are. What is secret in them is noted.
    fn signed(
        &self,
        call: &Call<'_>,
        token: Option<&HeaderValue>,
        secrets: &mut Secrets,
    ) -> Result<(HeaderMap, Option<Zeroizing<String>>)> {
        let mut headers = call.headers.clone();
        let (kind, mut body) = match &call.body {
            Body::None => (None, None),
            Body::Json(text) => (Some("application/json"), Some(text.clone())),
            Body::Form(fields) => {
                let mut form = Serializer::new(String::new());
                form.extend_pairs(fields.iter().map(|(name, value)| (name, value.as_str())));
                (Some("application/x-www-form-urlencoded"), Some(Zeroizing::new(form.finish())))
            }
        };
        match (token, call.who) {
            (Some(field), _) => {
                headers.insert(AUTHORIZATION, field.clone());
                secrets.note_field(field);
            }
            (None, Who::Open) => {}
            (None, Who::Own | Who::OwnToken(_)) => self.sign(call, &mut headers, &mut body, secrets)?,
        }
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        Ok((headers, body))
    }

    fn sign(
        &self,
        call: &Call<'_>,
        headers: &mut HeaderMap,
        body: &mut Option<Zeroizing<String>>,
        secrets: &mut Secrets,
    ) -> Result<()> {
        let Some(credential) = &self.credential else {
            return Err(Error::Credentials("the configuration gives us none: client_id, client_secret".into()));
        };
        credential.secret().into_iter().for_each(|secret| secrets.note(secret));
        let of_form = matches!(call.body, Body::Form(_));
        let before = body.as_deref().map(String::as_str).unwrap_or_default();
        let mut form = Serializer::new(if of_form { before.to_owned() } else { String::new() });
        credential.sign(headers, &mut form).map_err(|error| Error::Credentials(error.to_string()))?;
        let form = Zeroizing::new(form.finish());
        if of_form {
            *body = Some(form);
        } else if !form.is_empty() && !matches!(credential, Credential::Certificate { .. }) {
            return Err(Error::Credentials("this client_auth signs forms alone: use basic, bearer or mtls".into()));
        }
        headers.get(AUTHORIZATION).into_iter().for_each(|field| secrets.note_field(field));
        Ok(())
    }

    /// A place among those who wait: there are not so many that what waits is a burden of its own.
    fn enter(&self) -> Result<Present<'_>> {
        let most = self.concurrency.saturating_mul(MOST_WAITING);
        let place = Present(&self.present);
        if self.present.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(Error::Unreachable("too many calls wait for their turn".into()));
        }
        Ok(place)
    }

    async fn turn(&self, end: time::Instant) -> Result<SemaphorePermit<'_>> {
        match time::timeout_at(end, self.permits.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Error::TimedOut("it has too many calls of ours to answer".into())),
        }
    }
}

impl<'c> Call<'c> {
    pub(super) fn new(method: Method, place: &'c Place) -> Self {
        let (headers, secrets) = (HeaderMap::new(), Secrets::default());
        let (who, body) = (Who::Open, Body::None);
        Self { method, place, headers, body, who, ours: false, absent: None, makes: false, secrets }
    }

    pub(super) fn get(place: &'c Place) -> Self {
        Self::new(Method::GET, place)
    }

    pub(super) fn post(place: &'c Place) -> Self {
        Self::new(Method::POST, place)
    }

    pub(super) fn put(place: &'c Place) -> Self {
        Self::new(Method::PUT, place)
    }

    pub(super) fn delete(place: &'c Place) -> Self {
        Self::new(Method::DELETE, place)
    }

    /// As ourselves, by the credential of the settings.
    pub(super) const fn own(mut self) -> Self {
        (self.who, self.ours) = (Who::Own, true);
        self
    }

    /// As ourselves, by an access token from `endpoint`; by the credential itself where that is a bearer token.
    pub(super) const fn own_token(mut self, endpoint: &'c Place) -> Self {
        (self.who, self.ours) = (Who::OwnToken(endpoint), true);
        self
    }

    /// As whoever has this token. It is no credential of ours: a 401 is the provider's refusal.
    pub(super) fn bearer(self, token: &str) -> Result<Self> {
        self.authorization(&format!("Bearer {token}"), token)
    }

    /// As this client, by RFC 6749 section 2.3.1. A 401 is the provider's refusal.
    pub(super) fn basic(mut self, id: &str, secret: &str) -> Result<Self> {
        let field = client_auth::basic(id, secret).ok_or_else(|| Error::invalid("clientId", NO_FIELD))?;
        self.secrets.note(secret);
        self.secrets.note_field(&field);
        self.headers.insert(AUTHORIZATION, field);
        Ok(self)
    }

    /// With this `Authorization` field, in which `secret` stands.
    pub(super) fn authorization(mut self, field: &str, secret: &str) -> Result<Self> {
        let field = client_auth::sensitive(field).ok_or_else(|| Error::invalid("token", NO_FIELD))?;
        self.secrets.note(secret);
        self.headers.insert(AUTHORIZATION, field);
        Ok(self)
    }

    /// What is sent as credentials is ours, of the configuration: a 401 or 403 is told as such.
    pub(super) const fn ours(mut self) -> Self {
        self.ours = true;
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With a JSON body. Members whose names say so are secret.
    pub(super) fn json(mut self, body: &Value) -> Self {
        self.secrets.note_members(body);
        self.body = Body::Json(Zeroizing::new(body.to_string()));
        self
    }

    /// With a form. Fields whose names say so are secret.
    pub(super) fn form<'f>(mut self, fields: impl IntoIterator<Item = (&'f str, &'f str)>) -> Self {
        let fields = fields.into_iter().map(|(name, value)| {
            self.secrets.note_named(name, value);
            (name.to_owned(), Zeroizing::new(value.to_owned()))
        });
        self.body = Body::Form(fields.collect());
        self
    }

    /// What a 404 says there is none of; without it a 404 is a refusal.
    pub(super) const fn absent(mut self, what: &'static str) -> Self {
        if self.absent.is_none() {
            self.absent = Some(what);
        }
        self
    }

    /// It makes a client or a secret: where it was sent and its answer is lost, of no use, or a 5xx, that is
    /// [`Error::Unclear`].
    pub(super) const fn makes(mut self) -> Self {
        self.makes = true;
        self
    }

    /// Marks another secret of the call.
    pub(super) fn secret(mut self, secret: &str) -> Self {
        self.secrets.note(secret);
        self
    }
}

impl Reply {
    /// The body as JSON of that shape.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // What serde says may quote the body, where secrets stand.
            let (line, column) = (error.line(), error.column());
            let error =
                Error::Answer(format!("{}: not the JSON that is due, at line {line}, column {column}", self.from));
            if self.makes { error.unclear() } else { error }
        })
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place below `base`, whose `segments` are percent-encoded, slashes too.
pub(super) fn below<'s>(base: &Place, segments: impl IntoIterator<Item = &'s str>) -> Place {
    let mut url = base.url.clone();
    // An http or https URL always has a path.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty();
        for segment in segments {
            // In a URL these are steps in the tree, however they are encoded: encoded twice they lead nowhere else, to
            // a name that hardly anything has.
            match segment {
                "." => path.push("%2E"),
                ".." => path.push("%2E%2E"),
                name => path.push(name),
            };
        }
    }
    Place { url, reach: base.reach }
}

/// The place with this query.
pub(super) fn asking<'q>(place: &Place, query: impl IntoIterator<Item = (&'q str, &'q str)>) -> Place {
    let mut url = place.url.clone();
    url.query_pairs_mut().extend_pairs(query);
    Place { url, reach: place.reach }
}

const NO_FIELD: &str = "must be visible ASCII characters";
/// Changing a client takes longer than asking about a token.
pub(super) const LEAST_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
const MAX_ANSWER: usize = 1 << 20;
/// Of those that call and wait, how many times as many as may call.
const MOST_WAITING: usize = 16;
