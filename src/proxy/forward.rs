//! A granted request goes to the upstream, and its answer back.
//!
//! What was judged is what is forwarded: the path is the canonical one of the grant, never the one sent.

use std::{borrow::Cow, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, Version, header, uri::PathAndQuery};
use http_body::Body as _;

use super::{
    body::{Body, RequestBody},
    connect::{self, Sender},
    echo,
    http1::{self, Asked, Upload},
    upstream::{Upstreams, Way},
};
use crate::{
    authz::{Denial, ForwardQuery},
    net::{
        Fields,
        message::{Head, Response},
    },
    store::{Upstream, UpstreamScheme},
    telemetry::UpstreamError,
};

/// How a request is to be sent, whichever upstream takes it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) method: Method,
    /// Canonical path towards the upstream, and query.
    pub(super) target: Target,
    /// As the upstream shall see them, save what each way there says anew.
    pub(super) fields: Fields,
    /// The client said how long its body is.
    pub(super) said_length: bool,
    /// The client's `Host`, where it is preserved.
    pub(super) preserved_host: Option<HeaderValue>,
    pub(super) websocket: bool,
    /// The client takes trailers.
    pub(super) trailers: bool,
    pub(super) connect_timeout: Duration,
}

/// The body of a request on its way; empty once it was sent.
pub(super) type Slot = Option<RequestBody>;

/// Path and query towards the upstream, before a base path.
#[derive(Debug)]
pub(super) enum Target {
    /// As the client sent it.
    AsSent(PathAndQuery),
    /// Changed by the grant.
    Rewritten(String),
}

/// Why there is no answer to pass on.
#[derive(Debug)]
pub(super) enum Failure {
    Connect(connect::Error),
    /// An HTTP/1.1 connection broke, or what came over it is no HTTP.
    Http1(http1::Error),
    /// The same of what hyper speaks.
    Http(hyper::Error),
    /// There is no way to say it, such as an authority that is no URI's.
    Unspeakable,
}

impl Failure {
    pub(super) fn denial(&self) -> Denial {
        match self {
            Self::Connect(connect::Error::TimedOut) => Denial::UpstreamTimedOut,
            _ => Denial::UpstreamFailed,
        }
    }

    /// How it is counted.
    pub(super) fn reason(&self) -> UpstreamError {
        match self {
            Self::Connect(connect::Error::TimedOut) => UpstreamError::Timeout,
            Self::Connect(_) => UpstreamError::Connect,
            Self::Http1(http1::Error::Malformed(_)) => UpstreamError::Protocol,
            Self::Http(error) if error.is_parse() => UpstreamError::Protocol,
            Self::Http1(_) | Self::Http(_) => UpstreamError::Reset,
            Self::Unspeakable => UpstreamError::Protocol,
        }
    }
}

impl Target {
    /// The canonical path (`None`: as sent) without its first `cut` bytes, and the query that may pass.
    pub(super) fn of(path: Option<&str>, cut: usize, query: &ForwardQuery, uri: &Uri) -> Self {
        if let (None, 0, ForwardQuery::AsSent, Some(sent)) = (path, cut, query, uri.path_and_query()) {
            return Self::AsSent(sent.clone());
        }
        let tail = path.unwrap_or_else(|| uri.path()).get(cut..).unwrap_or_default();
        let query = match query {
            ForwardQuery::AsSent => uri.query(),
            ForwardQuery::Without(rest) => rest.as_deref(),
        };
        Self::Rewritten(join("", tail, query))
    }

    fn text(&self, base_path: &str) -> Cow<'_, str> {
        let text = match self {
            Self::AsSent(sent) => sent.as_str(),
            Self::Rewritten(path) => path,
        };
        if base_path.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(join(base_path, text, None)) }
    }

    fn path_and_query(&self, base_path: &str) -> Option<PathAndQuery> {
        match self {
            Self::AsSent(sent) if base_path.is_empty() => Some(sent.clone()),
            _ => PathAndQuery::from_maybe_shared(Bytes::from(self.text(base_path).into_owned())).ok(),
        }
    }
}

/// `base` + `tail` + `?query`, with a slash at the tail's front.
fn join(base: &str, tail: &str, query: Option<&str>) -> String {
    let mut text = String::with_capacity(base.len() + tail.len() + query.map_or(0, str::len) + 2);
    text.push_str(base);
    if !tail.starts_with('/') {
        text.push('/');
    }
    text.push_str(tail);
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    text
}

impl Plan {
    /// Sends the request, whose body is in `slot`, by the first of `list`, in turn, to which a connection stands. The body
    /// is lent, not given: moving it from one future into the next costs more than what is done with it.
    pub(super) async fn send(
        &self,
        slot: &mut Slot,
        upstreams: &Upstreams,
        list: &[Arc<Upstream>],
    ) -> Result<Response<Body>, Failure> {
        let mut failure = Failure::Unspeakable;
        for way in upstreams.in_turn(list) {
            if way.scheme == UpstreamScheme::Echo {
                // Boxed: for trying out only, and every request would carry room for it.
                return Box::pin(self.echo(&way, slot)).await.ok_or(Failure::Unspeakable);
            }
            let (sender, reused) = match way.pool.reuse(self.websocket) {
                Some(sender) => (sender, true),
                None => match self.open(&way, self.websocket).await {
                    Ok(sender) => (sender, false),
                    Err(why) => {
                        failure = why;
                        continue;
                    }
                },
            };
            return match sender {
                Sender::Http1(connection) if !self.websocket => self.send_http1(&way, connection, reused, slot).await,
                sender => self.send_by_hyper(&way, sender, reused, slot).await,
            };
        }
        Err(failure)
    }

    async fn echo(&self, way: &Way, slot: &mut Slot) -> Option<Response<Body>> {
        let mut fields = self.fields.clone();
        fields.set(&header::HOST, self.host(way));
        let uri = self.target.path_and_query(&way.base_path)?.into();
        let head = Head { method: self.method.clone(), uri, version: Version::HTTP_11, fields };
        echo::answer(head, slot.take()?).await
    }

    async fn open(&self, way: &Way, http1_only: bool) -> Result<Sender, Failure> {
        way.pool.open(http1_only, self.connect_timeout).await.map_err(Failure::Connect)
    }

    /// An idle connection that is `reused` may turn out closed: what was not sent at all, or may be sent twice, goes over
    /// a new one, once.
    async fn send_http1(
        &self,
        way: &Arc<Way>,
        connection: http1::Connection,
        reused: bool,
        slot: &mut Slot,
    ) -> Result<Response<Body>, Failure> {
        let mut upload = self.upload(way, slot).ok_or(Failure::Unspeakable)?;
        let failure = match connection.exchange(&mut upload, &way.pool).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        if !reused || !matches!(failure, http1::Error::Closed(_)) || !upload.rewind() {
            return Err(Failure::Http1(failure));
        }
        // It is written for HTTP/1.1.
        let Sender::Http1(connection) = self.open(way, true).await? else { return Err(Failure::Http1(failure)) };
        connection.exchange(&mut upload, &way.pool).await.map_err(Failure::Http1)
    }

    fn upload(&self, way: &Way, slot: &mut Slot) -> Option<Upload> {
        let target = self.target.text(&way.base_path);
        // It was judged, and cannot be otherwise: a blank would end it, and a line's end the whole request line.
        if target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return None;
        }
        let asked = Asked {
            method: &self.method,
            target: &target,
            host: self.host(way).as_bytes(),
            fields: &self.fields,
            // HTTP/1 lists `TE` there (RFC 9110 section 10.1.4).
            connection: self.trailers.then_some(b"TE"),
            says_length: self.said_length,
        };
        Some(Upload::new(asked, slot.take()?))
    }

    /// The same over HTTP/2, or to be upgraded. Boxed: the others would carry room for it.
    fn send_by_hyper<'a>(
        &'a self,
        way: &'a Arc<Way>,
        sender: Sender,
        reused: bool,
        slot: &'a mut Slot,
    ) -> Pin<Box<impl Future<Output = Result<Response<Body>, Failure>> + Send + 'a>> {
        Box::pin(async move {
            let failure = match self.send_once_by_hyper(way, sender, slot).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            if !reused || slot.is_none() {
                return Err(failure);
            }
            way.pool.forget_shared();
            match self.open(way, self.websocket).await? {
                Sender::Http1(connection) if !self.websocket => self.send_http1(way, connection, false, slot).await,
                sender => self.send_once_by_hyper(way, sender, slot).await,
            }
        })
    }

    /// Takes the body out of `slot`; puts it back where nothing of the request was sent.
    async fn send_once_by_hyper(&self, way: &Way, sender: Sender, slot: &mut Slot) -> Result<Response<Body>, Failure> {
        let sent = match sender {
            Sender::Http1(connection) => {
                let mut sender = connect::upgradable(connection).await.map_err(Failure::Http)?;
                sender.try_send_request(self.request(way, slot, false).ok_or(Failure::Unspeakable)?).await
            }
            Sender::Http2(mut sender) => {
                sender.try_send_request(self.request(way, slot, true).ok_or(Failure::Unspeakable)?).await
            }
        };
        match sent {
            Ok(response) => Ok(Response::from(response).map(Body::incoming)),
            Err(mut error) => {
                *slot = error.take_message().map(Request::into_body);
                Err(Failure::Http(error.into_error()))
            }
        }
    }

    /// The request as hyper takes it.
    fn request(&self, way: &Way, slot: &mut Slot, h2: bool) -> Option<Request<RequestBody>> {
        let path = self.target.path_and_query(&way.base_path)?;
        let mut headers = self.fields.to_map()?;
        let body = slot.take()?;
        let uri = if h2 { way.absolute(path, self.preserved_host.as_ref())? } else { Uri::from(path) };
        if !h2 {
            headers.insert(header::HOST, self.host(way).clone());
            if self.trailers {
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade, TE"));
            }
            // Unless told, hyper takes it that a GET has no body.
            if !body.is_end_stream() {
                match body.size_hint().exact() {
                    Some(length) => headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length)),
                    None => headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
                };
            }
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = if h2 { Version::HTTP_2 } else { Version::HTTP_11 };
        *request.headers_mut() = headers;
        Some(request)
    }

    /// `Host` of HTTP/1.1.
    fn host<'a>(&'a self, way: &'a Way) -> &'a HeaderValue {
        static LOCALHOST: HeaderValue = HeaderValue::from_static("localhost");
        self.preserved_host.as_ref().or(way.host.as_ref()).unwrap_or(&LOCALHOST)
    }
}
