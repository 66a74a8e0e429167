//! Calls of a provider's management interface: the one way by which every connector's operations go out.
//!
//! A call ends in bounded time, in no more than so many at once, and not at all while the provider keeps failing.
//! GET, HEAD, PUT and DELETE are tried once more where nobody answered or a gateway said that nobody is there; POST and
//! PATCH never, since they may have been done. Of a change whose answer is lost or tells nothing, nobody knows whether it
//! was done ([`Error::Unclear`]); what was never sent was not. Our own access token is got once for all who wait, and once more where
//! the provider no longer takes it. What a refusal says is the provider's own words, without any secret of the call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time,
};
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::{
    breaker::Breaker,
    call::{Body, Call, Who},
    client_auth::{self, Credential},
    oidc::Place,
    own_token::OwnToken,
    refusal::{self, Refusal, Secrets, is_nobody_there},
};
use crate::{
    keymanager::{Error, Result, before_end, go_on},
    net::{
        Clock,
        client::{Answer, CONNECT, Client, ClientError, Request},
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

/// A good answer: its status is 2xx.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    body: bytes::Bytes,
    /// Who answered, for an error.
    from: String,
    reads: bool,
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
        if !call.reads {
            go_on()?;
        }
        let _present = self.enter()?;
        let end = time::Instant::now() + self.timeout;
        let (answer, secrets) = self.answer(&call, end).await?;
        let from = refusal::shown(&call.place.url);
        if answer.status.is_success() {
            return Ok(Reply { headers: answer.headers, body: answer.body, from, reads: call.reads });
        }
        let otherwise = || refusal::error(&answer, &from, call.absent, call.ours, &secrets);
        let error = read(&Refusal::new(&answer, &secrets)).unwrap_or_else(otherwise);
        Err(if !call.reads && refusal::may_have_done(&error) { error.unclear() } else { error })
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
        // Without one nothing of the call is sent.
        let own_token = async || self.token.get(self, endpoint, end).await.map_err(Error::of_reading);
        let token = own_token().await?;
        let first = self.tries(call, Some(&token.field), end).await?;
        if first.0.status != StatusCode::UNAUTHORIZED {
            return Ok(first);
        }
        // It may have been revoked, or the provider's keys be new.
        self.token.forget(&token);
        let token = own_token().await?;
        self.tries(call, Some(&token.field), end).await
    }

    /// Sends it; once more where that does no harm. What the first attempt may have done is not forgotten for the second.
    pub(super) async fn tries(
        &self,
        call: &Call<'_>,
        token: Option<&HeaderValue>,
        end: time::Instant,
    ) -> Result<(Answer, Secrets)> {
        let _turn = self.turn(end).await?;
        let first = self.once(call, token, end).await;
        let (again, sent) = match &first {
            Err(Error::Unreachable(_)) => (true, false),
            Err(Error::Unclear(why)) => (matches!(**why, Error::Unreachable(_)), true),
            Ok((answer, _)) => (is_nobody_there(answer.status), true),
            Err(_) => (false, false),
        };
        let harmless = matches!(call.method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE);
        let pause = PAUSE.mul_f64(0.5 + fastrand::f64());
        let left = end.saturating_duration_since(time::Instant::now() + pause);
        // With less time than a connection may take, one that is never made could not be told from a lost answer.
        let would_tell = sent || call.reads || left >= CONNECT;
        if !again || !harmless || left.is_zero() || !would_tell {
            return first;
        }
        if before_end(call.reads, time::sleep(pause)).await.is_err() {
            return first;
        }
        match self.once(call, token, end).await {
            // Gone: what was wanted is so.
            Ok((answer, secrets)) if sent && call.method == Method::DELETE && is_gone(answer.status) => {
                Ok((Answer { status: StatusCode::NO_CONTENT, ..answer }, secrets))
            }
            Err(error) if sent && !call.reads => Err(error.unclear()),
            second => second,
        }
    }

    async fn once(
        &self,
        call: &Call<'_>,
        token: Option<&HeaderValue>,
        end: time::Instant,
    ) -> Result<(Answer, Secrets)> {
        let left = end.saturating_duration_since(time::Instant::now());
        if left < LEAST_LEFT {
            return Err(Error::Unreachable("no time was left to ask it".into()));
        }
        let mut secrets = call.secrets.clone();
        let (headers, body) = self.signed(call, token, &mut secrets)?;
        // Only now: while we waited, others may have found it gone.
        let permit = self.breaker.admit(Instant::now()).map_err(|wait| {
            let wait = u64::try_from(wait.as_millis().div_ceil(1000).max(1)).unwrap_or(u64::MAX);
            Error::LeftAlone { wait }
        })?;
        let Place { url, reach } = call.place;
        let (method, limit) = (call.method.clone(), MAX_ANSWER);
        let request = Request { method, url, reach: *reach, headers, body, limit, timeout: left };
        let outcome = before_end(call.reads, self.client.send(request)).await?;
        match &outcome {
            Ok(answer) if !is_nobody_there(answer.status) => permit.succeeded(),
            Err(ClientError::TooLarge { .. }) => permit.succeeded(),
            _ => permit.failed(Instant::now()),
        }
        outcome.map(|answer| (answer, secrets)).map_err(|error| refusal::unanswered(error, call.reads))
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

    /// One of the calls that may be under way.
    pub(super) async fn turn(&self, end: time::Instant) -> Result<SemaphorePermit<'_>> {
        // Nothing is sent by it.
        match before_end(true, time::timeout_at(end, self.permits.acquire())).await? {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Error::Unreachable("it has too many calls of ours to answer".into())),
        }
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
            if self.reads { error } else { error.unclear() }
        })
    }
}

const fn is_gone(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Changing a client takes longer than asking about a token.
pub(super) const LEAST_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
/// With less nothing is sent: it would break off before anybody could answer.
const LEAST_LEFT: Duration = Duration::from_millis(10);
const MAX_ANSWER: usize = 1 << 20;
/// Of those that call and wait, how many times as many as may call.
const MOST_WAITING: usize = 16;
