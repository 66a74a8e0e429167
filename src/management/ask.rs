//! What is asked: a request taken apart, each part judged before any handler sees it.

use std::{collections::BTreeMap, future::Future, time::Duration};

use axum::{
    RequestExt,
    body::{Body, to_bytes},
    extract::{RawPathParams, Request},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body::Body as _;
use percent_encoding::percent_decode_str;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::OwnedMutexGuard, time::timeout};
use url::form_urlencoded::parse;

use super::{
    Door,
    answer::{Problem, etag},
    body,
    route::Route,
};
use crate::keymanager::{Caller, Error, Result as Outcome, check, fault};

/// A request of someone who may ask it.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) caller: Caller,
    pub(super) body: Bytes,
    path: BTreeMap<String, String>,
    query: BTreeMap<String, String>,
    if_match: Option<String>,
    /// Only what is not there yet may be made.
    if_absent: bool,
}

impl Ask {
    /// Reads what the route takes, and refuses everything else.
    pub(super) async fn read(mut request: Request, route: &Route, mut caller: Caller) -> Result<Self, Problem> {
        check_encoding(request.uri().path())?;
        let path = request
            .extract_parts::<RawPathParams>()
            .await
            .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the path is not UTF-8 once it is percent-decoded"))?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let query = query(request.uri().query().unwrap_or_default(), route)?;
        caller.dry_run = match query.get("dry_run").map(String::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Problem::field("dry_run", "must be true or false")),
        };
        let if_match = header_text(request.headers(), &header::IF_MATCH)?;
        if if_match.as_deref().is_some_and(str::is_empty) {
            return Err(Problem::field(header::IF_MATCH.as_str(), "must name an ETag, or be *"));
        }
        if if_match.is_some() && !route.conditional && !request.method().is_safe() {
            let why = "is not for this route: there is no one thing here that has an ETag";
            return Err(Problem::field(header::IF_MATCH.as_str(), why));
        }
        let if_absent = if_absent(&request, route)?;
        let body = read_body(request, route).await?;
        Ok(Self { caller, body, path, query, if_match, if_absent })
    }

    /// A part of the path; the route has it.
    pub(super) fn path(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    pub(super) fn km(&self) -> &str {
        self.path("km")
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// The body as what the route takes; the first field that is wrong is named.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        body::check(&self.body)?;
        let mut text = serde_json::Deserializer::from_slice(&self.body);
        let read = serde_path_to_error::deserialize(&mut text).map_err(|error| {
            let path = error.path().to_string();
            let inner = error.into_inner();
            let (field, why) = fault(&path, &inner.to_string());
            match inner.classify() {
                serde_json::error::Category::Data => Problem::field(field, why),
                _ => {
                    let place = format!("at line {} column {}", inner.line(), inner.column());
                    Problem::field("body", format!("is no JSON: {why} {place}"))
                }
            }
        })?;
        text.end().map_err(|_| Problem::field("body", "holds more than one JSON value"))?;
        Ok(read)
    }

    /// Like [`Self::json`]; no body is the default.
    pub(super) fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        self.json_if_any().map(Option::unwrap_or_default)
    }

    /// Like [`Self::json`]; none without a body.
    pub(super) fn json_if_any<T: DeserializeOwned>(&self) -> Result<Option<T>, Problem> {
        if self.body.is_empty() { Ok(None) } else { self.json().map(Some) }
    }

    /// How many of a list, and after which; the cursor is text of ours that tells the last one before.
    pub(super) fn page(&self) -> Result<(usize, Option<&str>), Problem> {
        let limit = match self.query("limit") {
            None => DEFAULT_LIMIT,
            Some(text) => match text.parse() {
                Ok(limit) if (1..=MOST_LIMIT).contains(&limit) => limit,
                _ => return Err(Problem::field("limit", format!("must be from 1 to {MOST_LIMIT}"))),
            },
        };
        Ok((limit, self.query("cursor")))
    }

    /// The same where rows are numbered.
    pub(super) fn numbered_page(&self) -> Result<(usize, u64), Problem> {
        let (limit, cursor) = self.page()?;
        let digits = |text: &&str| text.len() <= 19 && text.bytes().all(|byte| byte.is_ascii_digit());
        let after = cursor.map_or(Some(0), |text| Some(text).filter(digits)?.parse().ok());
        Ok((limit, after.ok_or_else(|| Problem::field("cursor", "is none of ours"))?))
    }

    /// The turn of what is to be made under this name: nothing that waits is tried over it meanwhile. None for a name that
    /// is refused anyhow.
    pub(super) async fn turn_of_new(&self, door: &Door, kind: &str, name: &str) -> Option<OwnedMutexGuard<()>> {
        check::name("name", name).ok()?;
        Some(door.engine.turn([kind, self.km(), name].join("\0")).await)
    }

    /// Whoever changes `subject` has its turn until the guard is gone. Where the request depends on what was read, that
    /// is what there must be now: else 412. The same where it is there and must not be.
    pub(super) async fn turn<T, F>(
        &self,
        door: &Door,
        subject: &[&str],
        now: impl FnOnce() -> F,
    ) -> Result<OwnedMutexGuard<()>, Problem>
    where
        T: Serialize,
        F: Future<Output = Outcome<T>>,
    {
        let turn = door.engine.turn(subject.join("\0")).await;
        if self.if_absent {
            return match now().await {
                Ok(_) => Err(Problem::new(StatusCode::PRECONDITION_FAILED, "it is there already (If-None-Match)")),
                // What is not there meets no If-Match either.
                Err(Error::NotFound(_)) if self.if_match.is_none() => Ok(turn),
                Err(error) => Err(error.into()),
            };
        }
        let Some(wanted) = &self.if_match else { return Ok(turn) };
        let is = etag(&now().await?);
        if wanted.split(',').map(str::trim).any(|tag| tag == "*" || tag == is) {
            return Ok(turn);
        }
        Err(Problem::new(StatusCode::PRECONDITION_FAILED, "it has changed since it was read (If-Match)"))
    }
}

fn check_encoding(path: &str) -> Result<(), Problem> {
    match is_encoded(path) {
        true => Ok(()),
        false => {
            Err(Problem::new(StatusCode::BAD_REQUEST, "the path has a % without two hexadecimal digits behind it"))
        }
    }
}

/// Each `%` is followed by two hexadecimal digits (RFC 3986 section 2.1).
fn is_encoded(text: &str) -> bool {
    let digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    text.split('%').skip(1).all(|rest| digit(rest.as_bytes().first()) && digit(rest.as_bytes().get(1)))
}

/// `If-None-Match` on a change (RFC 9110 section 13.1.2): `*` alone means something, where one thing is changed.
fn if_absent(request: &Request, route: &Route) -> Result<bool, Problem> {
    let name = header::IF_NONE_MATCH;
    if request.method().is_safe() {
        return Ok(false);
    }
    match header_text(request.headers(), &name)?.as_deref() {
        None => Ok(false),
        Some(_) if !route.conditional => {
            Err(Problem::field(name.as_str(), "is not for this route: there is no one thing here that may be there"))
        }
        Some("*") => Ok(true),
        Some(_) => Err(Problem::field(name.as_str(), "must be *: only that it is not there yet can be asked for")),
    }
}

/// One page of rows that `key` tells apart, in its order; and the cursor of the next, where there is one.
pub(super) fn paged<T>(
    (limit, after): (usize, Option<&str>),
    mut rows: Vec<T>,
    key: impl Fn(&T) -> &str,
) -> (Vec<T>, Option<String>) {
    rows.retain(|row| after.is_none_or(|after| key(row) > after));
    rows.sort_by(|a, b| key(a).cmp(key(b)));
    let more = rows.len() > limit;
    rows.truncate(limit);
    let cursor = rows.last().filter(|_| more).map(|last| key(last).to_owned());
    (rows, cursor)
}

fn query(text: &str, route: &Route) -> Result<BTreeMap<String, String>, Problem> {
    let mut query = BTreeMap::new();
    // One by one: what cannot be decoded would be read as another text, and no longer tell whose value it was.
    for pair in text.split('&') {
        let Some((name, value)) = parse(pair.as_bytes()).next() else { continue };
        if !route.takes_query(&name) {
            return Err(Problem::field(check::printable(&name), "is no query parameter of this route"));
        }
        if !is_encoded(pair) {
            return Err(Problem::field(name, "has a % without two hexadecimal digits behind it"));
        }
        if percent_decode_str(pair).decode_utf8().is_err() {
            return Err(Problem::field(name, "is not UTF-8 once it is percent-decoded"));
        }
        if query.insert(name.clone().into_owned(), value.into_owned()).is_some() {
            return Err(Problem::field(name, "is there twice"));
        }
    }
    Ok(query)
}

async fn read_body(request: Request, route: &Route) -> Result<Bytes, Problem> {
    let kind = header_text(request.headers(), &header::CONTENT_TYPE)?;
    let coding = header_text(request.headers(), &header::CONTENT_ENCODING)?;
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed")
            .header(header::ACCEPT_ENCODING, "identity"));
    }
    let (parts, body) = request.into_parts();
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let most = if announced.is_some_and(|length: u64| length > MOST_BODY as u64) { 0 } else { MOST_BODY };
    if most == 0 {
        return Err(too_large());
    }
    let body = match body.is_end_stream() {
        true => Bytes::new(),
        // On the heap: a timer is large and aligned widely, and would make every request's future so.
        false => Box::pin(whole(body)).await?,
    };
    if route.body.is_none() {
        return match body.is_empty() {
            true => Ok(body),
            false => Err(Problem::field("body", "is none of this route's")),
        };
    }
    if body.is_empty() && route.body_optional {
        return Ok(body);
    }
    let is_json =
        |kind: &str| kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    match kind {
        Some(kind) if is_json(&kind) => Ok(body),
        _ => Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")
            .header(header::ACCEPT, "application/json")),
    }
}

async fn whole(body: Body) -> Result<Bytes, Problem> {
    let Ok(body) = timeout(BODY_TIMEOUT, to_bytes(body, MOST_BODY)).await else {
        return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"));
    };
    body.map_err(|_| too_large())
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body must have at most {MOST_BODY} bytes"))
}

pub(super) fn header_text(headers: &HeaderMap, name: &header::HeaderName) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        // What HTTP takes for a space is none in any of our values.
        (Ok(text), None) if !text.contains('\t') => Ok(Some(text.to_owned())),
        _ => Err(Problem::field(name.as_str(), "must be there once, in visible ASCII characters")),
    }
}

const MOST_BODY: usize = 256 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_LIMIT: usize = 100;
const MOST_LIMIT: usize = 1000;
