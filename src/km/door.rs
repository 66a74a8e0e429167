//! The management door, as the command line reaches it: where it is, who asks, what comes back.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::{
    Error,
    call::{Call, Inputs},
    text::text,
};
use crate::{
    explain::clean,
    keymanager::Sensitive,
    management::{Offer, offers},
    net::{
        client::is_loopback,
        visit::{self, Question, Trust, Visitor},
    },
    units::Span,
};

/// Where the door is, and who asks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Door")]
pub(super) struct Connection {
    /// The management door: a URL or unix:/path. Without it TOLLGATE_MANAGEMENT_URL, else http://127.0.0.1:9443.
    #[arg(id = "door_url", long = "url", global = true, value_name = "URL")]
    url: Option<String>,
    /// Bearer token to call with. Others of this machine may see it: rather --token-file, or TOLLGATE_MANAGEMENT_TOKEN.
    #[arg(id = "door_token", long = "token", global = true, value_name = "TOKEN")]
    #[arg(value_parser = text::<Sensitive>, allow_hyphen_values = true)]
    token: Option<Sensitive>,
    /// File of the bearer token; - reads standard input.
    #[arg(id = "door_token_file", long = "token-file", global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The door's bootstrap key, on the same machine.
    #[arg(id = "door_bootstrap_key", long = "bootstrap-key", global = true, value_name = "FILE")]
    bootstrap_key: Option<PathBuf>,
    /// PEM of the only authorities trusted for https; without it the system's.
    #[arg(id = "door_ca", long = "ca", global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM of a client certificate to call with.
    #[arg(id = "door_cert", long = "cert", global = true, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// PEM of its key.
    #[arg(id = "door_key", long = "key", global = true, value_name = "FILE")]
    key: Option<PathBuf>,
    /// How long to wait for an answer, such as 30s.
    #[arg(id = "door_timeout", long = "timeout", global = true, value_name = "TIME", default_value = "60s")]
    timeout: Span,
}

/// On what terms it is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    pub(super) dry_run: bool,
    pub(super) if_match: Option<String>,
    pub(super) idempotency_key: Option<String>,
}

/// The door.
pub(super) struct Door {
    visitor: Visitor,
    /// Without a slash at its end.
    base: String,
    /// As it is told.
    name: String,
    credential: Option<HeaderValue>,
    has_certificate: bool,
}

/// What it answered, where that is no problem.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) method: Method,
    /// None: it had no body.
    pub(super) body: Option<Value>,
    /// The body's text.
    pub(super) text: String,
    pub(super) etag: Option<String>,
}

impl Door {
    /// Reads files and variables; contacts nobody.
    pub(super) fn open(connection: &Connection, inputs: &Inputs) -> Result<Self, Error> {
        let url = match &connection.url {
            Some(url) => url.clone(),
            None => variable(URL)?.unwrap_or_else(|| DEFAULT_URL.to_owned()),
        };
        let (base, socket) = place(&url)?;
        let is_here = socket.is_some() || Url::parse(&base).is_ok_and(|base| is_loopback(&base));
        if connection.bootstrap_key.is_some() && !is_here {
            return Err(Error::Usage(
                "--bootstrap-key: counts on loopback and Unix sockets only, and goes nowhere else".into(),
            ));
        }
        let certificate = match (&connection.cert, &connection.key) {
            (Some(cert), Some(key)) => Some((cert.as_path(), key.as_path())),
            (None, None) => None,
            _ => return Err(Error::Usage("--cert and --key belong together".into())),
        };
        let trust = Trust { ca: connection.ca.as_deref(), certificate };
        let Span(timeout) = connection.timeout;
        let visitor = Visitor::new(trust, socket, timeout.max(Duration::from_millis(1)))
            .map_err(|error| Error::Unreadable(error.to_string()))?;
        let credential = credential(connection, inputs)?;
        Ok(Self { visitor, base, name: clean(&url), credential, has_certificate: certificate.is_some() })
    }

    /// Asks once.
    pub(super) async fn ask(&self, call: &Call, terms: &Terms) -> Result<Answer, Error> {
        let offer = offers().into_iter().find(|offer| offer.operation == call.operation);
        let offer = offer.ok_or_else(|| Error::Fault(format!("the door has no {}", call.operation)))?;
        let question = Question {
            url: self.url(&offer, call, terms)?,
            headers: self.headers(&offer, call, terms)?,
            body: body(call)?,
            method: offer.method.clone(),
        };
        let answer = self.visitor.ask(question, MOST_ANSWER).await.map_err(|error| match error {
            visit::Error::TooLarge(_) => Error::Fault(format!("{}: {error}", self.name)),
            _ => Error::Unreachable(format!("{}: {}", self.name, clean(&error.to_string()))),
        })?;
        self.read(offer.method, &answer)
    }

    fn url(&self, offer: &Offer, call: &Call, terms: &Terms) -> Result<Url, Error> {
        if terms.dry_run && !offer.changes {
            return Err(Error::Usage("--dry-run: this command has none".into()));
        }
        let mut path = String::new();
        let mut parts = call.parts.iter();
        for piece in offer.path.split('/').skip(1) {
            path.push('/');
            match piece.starts_with('{').then(|| parts.next()) {
                None => path.push_str(piece),
                Some(part) => path.extend(utf8_percent_encode(segment(part)?, PATH)),
            }
        }
        let wrong = |error| Error::Usage(format!("--url: {error}"));
        let mut url = Url::parse(&format!("{}{path}", self.base)).map_err(wrong)?;
        for (name, value) in &call.query {
            url.query_pairs_mut().append_pair(name, value);
        }
        if terms.dry_run {
            url.query_pairs_mut().append_pair("dry_run", "true");
        }
        Ok(url)
    }

    fn headers(&self, offer: &Offer, call: &Call, terms: &Terms) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, application/problem+json"));
        headers.extend(self.credential.clone().map(|credential| (header::AUTHORIZATION, credential)));
        if call.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let takes_key = offer.changes && offer.method == Method::POST;
        for (flag, name, value, taken) in [
            ("--if-match", header::IF_MATCH, &terms.if_match, offer.conditional),
            ("--idempotency-key", IDEMPOTENCY_KEY, &terms.idempotency_key, takes_key),
        ] {
            let Some(value) = value else { continue };
            if !taken {
                return Err(Error::Usage(format!("{flag}: this command has none")));
            }
            let wrong = |_| Error::Usage(format!("{flag}: must be visible ASCII characters"));
            headers.insert(name, HeaderValue::from_str(value).map_err(wrong)?);
        }
        Ok(headers)
    }

    fn read(&self, method: Method, answer: &visit::Answer) -> Result<Answer, Error> {
        let text = String::from_utf8_lossy(&answer.body).trim_end().to_owned();
        if !answer.status.is_success() {
            return Err(self.refused(&method, answer.status, &text));
        }
        let body = match text.as_str() {
            "" if answer.status == StatusCode::NO_CONTENT || method == Method::HEAD => None,
            text => Some(serde_json::from_str(text).map_err(|_| self.is_none())?),
        };
        let etag = answer.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        Ok(Answer { method, body, text, etag })
    }

    /// What answers says what no door would.
    pub(super) fn is_none(&self) -> Error {
        Error::Fault(format!("{}: what answers is no management door", self.name))
    }

    fn refused(&self, method: &Method, status: StatusCode, text: &str) -> Error {
        let reason = status.canonical_reason().unwrap_or("unknown status");
        let mut told = match serde_json::from_str::<Problem>(text) {
            Ok(problem) => problem.told(status, reason),
            Err(_) if *method == Method::HEAD => {
                format!(
                    "{} {reason}: whether there is one is answered without words; `scope get` tells why",
                    status.as_u16()
                )
            }
            // Its words are left out: they are none of the door's.
            Err(_) => format!("{}: {} {reason}", self.name, status.as_u16()),
        };
        if status == StatusCode::UNAUTHORIZED && self.credential.is_none() && !self.has_certificate {
            told.push_str("\nnone was given: --token-file, --bootstrap-key, --cert or TOLLGATE_MANAGEMENT_TOKEN");
        }
        Error::Refused { status, text: told }
    }
}

/// Problem details (RFC 9457) of the door.
#[derive(Debug, Deserialize)]
struct Problem {
    title: String,
    detail: String,
    code: Option<String>,
    field: Option<String>,
}

impl Problem {
    fn told(&self, status: StatusCode, reason: &str) -> String {
        let title = if self.title.is_empty() { reason } else { &self.title };
        let mut told = format!("{} {title}: {}", status.as_u16(), self.detail);
        let marks = [("field", &self.field), ("code", &self.code)];
        let marks = marks.iter().filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)));
        let marks = marks.collect::<Vec<_>>().join(", ");
        if !marks.is_empty() {
            told.push_str(&format!(" ({marks})"));
        }
        clean(&told)
    }
}

/// A base URL, and the Unix socket that it stands for.
fn place(url: &str) -> Result<(String, Option<PathBuf>), Error> {
    if let Some(path) = url.strip_prefix("unix:") {
        return match path.starts_with('/') {
            true => Ok(("http://localhost".into(), Some(path.into()))),
            false => Err(Error::Usage("--url: unix: needs an absolute path".into())),
        };
    }
    let wrong = |why: &str| Error::Usage(format!("--url: {why}"));
    let parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.cannot_be_a_base() {
        return Err(wrong("must begin with http://, https:// or unix:/"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(wrong("must have no user: give --token-file"));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(wrong("must have no query and no fragment"));
    }
    if parsed.scheme() == "http" && !is_loopback(&parsed) {
        return Err(wrong("must be https: over http what is sent can be read on its way, unless it stays on loopback"));
    }
    Ok((parsed.as_str().trim_end_matches('/').to_owned(), None))
}

fn credential(connection: &Connection, inputs: &Inputs) -> Result<Option<HeaderValue>, Error> {
    let Connection { token, token_file, bootstrap_key, .. } = connection;
    let secret = match (token, token_file, bootstrap_key) {
        (None, None, None) => match variable(TOKEN)? {
            None => return Ok(None),
            Some(token) => Zeroizing::new(token),
        },
        (Some(token), None, None) => Zeroizing::new(token.reveal().to_owned()),
        (None, Some(file), None) | (None, None, Some(file)) => inputs.secret(file)?,
        _ => return Err(Error::Usage("only one of --token, --token-file and --bootstrap-key".into())),
    };
    inputs.hide(&secret);
    let field = Zeroizing::new(format!("Bearer {}", secret.as_str()));
    let mut value = HeaderValue::from_str(&field)
        .map_err(|_| Error::Unreadable("the token holds characters that no token has".into()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// An environment variable; an empty one is none.
fn variable(name: &str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Error::Unreadable(format!("{name}: is not UTF-8"))),
    }
}

/// A part of the path; those that a URL would take for a way up can be asked for by no client.
fn segment(part: Option<&String>) -> Result<&str, Error> {
    match part.map(String::as_str) {
        None => Err(Error::Fault("the path has more parts than the command".into())),
        Some("" | "." | "..") => Err(Error::Usage("a name must not be empty, . or ..".into())),
        Some(part) => Ok(part),
    }
}

fn body(call: &Call) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let text = call.body.as_ref().map(serde_json::to_vec).transpose();
    Ok(text.map_err(|error| Error::Fault(error.to_string()))?.map(Zeroizing::new))
}

/// The unreserved characters of RFC 3986 stay as they are.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const URL: &str = "TOLLGATE_MANAGEMENT_URL";
const TOKEN: &str = "TOLLGATE_MANAGEMENT_TOKEN";
const DEFAULT_URL: &str = "http://127.0.0.1:9443";
/// Bytes of an answer that are read: a page of a thousand rows of the audit is less.
const MOST_ANSWER: usize = 64 << 20;
