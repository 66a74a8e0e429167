//! A granted request goes to the upstream, and its answer back.
//!
//! What was judged is what is forwarded: the path is the canonical one of the grant, never the one sent.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version, header, uri::PathAndQuery};
use http_body::Body as _;

use super::{
    body::{Body, RequestBody},
    connect::{self, Sender},
    echo,
    http1::{self, Upload},
    upstream::{Upstreams, Way},
};
use crate::{
    authz::{Denial, ForwardQuery},
    store::{Upstream, UpstreamScheme},
    telemetry::UpstreamError,
};

/// How a request is to be sent, whichever upstream takes it.
#[derive(Debug)]
pub(super) struct Plan {
    /// Canonical path towards the upstream, and query.
    pub(super) target: Target,
    /// The client's `Host`, where it is preserved.
    pub(super) preserved_host: Option<HeaderValue>,
    pub(super) websocket: bool,
    /// The client takes trailers.
    pub(super) trailers: bool,
    pub(super) connect_timeout: Duration,
}

/// A request on its way; empty once it was sent.
pub(super) type Slot = Option<Request<RequestBody>>;

/// Path and query towards the upstream, before a base path.
#[derive(Debug)]
pub(super) enum Target {
    /// As the client sent it.
    AsSent(PathAndQuery),
    /// Changed by the grant.
    Rewritten(Bytes),
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
        Self::Rewritten(join("", tail, query).into())
    }

    fn path_and_query(&self, base_path: &str) -> Option<PathAndQuery> {
        let text: Bytes = match self {
            Self::AsSent(sent) if base_path.is_empty() => return Some(sent.clone()),
            Self::AsSent(sent) => join(base_path, sent.as_str(), None).into(),
            Self::Rewritten(path) if base_path.is_empty() => path.clone(),
            Self::Rewritten(path) => join(base_path, str::from_utf8(path).ok()?, None).into(),
        };
        PathAndQuery::from_maybe_shared(text).ok()
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
    /// Sends the request in `slot` by the first of `list`, in turn, to which a connection stands. It is lent, not
    /// given: moving it from one future into the next would cost more than everything else here.
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
            if let Some(reused) = way.pool.reuse(self.websocket) {
                return self.send_reused(&way, reused, slot).await;
            }
            match way.pool.open(self.websocket, self.connect_timeout).await {
                Ok(sender) => return self.send_by(&way, sender, slot).await,
                Err(error) => failure = Failure::Connect(error),
            }
        }
        Err(failure)
    }

    async fn echo(&self, way: &Way, slot: &mut Slot) -> Option<Response<Body>> {
        let mut request = slot.take()?;
        self.address(&mut request, way, false)?;
        echo::answer(request).await
    }

    /// An idle connection may turn out closed: what was not sent at all, or may be sent twice, goes over a new one,
    /// once.
    async fn send_reused(&self, way: &Arc<Way>, sender: Sender, slot: &mut Slot) -> Result<Response<Body>, Failure> {
        let failure = match sender {
            Sender::Http1(connection) if !self.websocket => {
                let mut upload = self.upload(way, slot)?;
                let failure = match connection.exchange(&mut upload, &way.pool).await {
                    Ok(response) => return Ok(response),
                    Err(failure) => failure,
                };
                if !matches!(failure, http1::Error::Closed(_)) || !upload.rewind() {
                    return Err(Failure::Http1(failure));
                }
                // It is written for HTTP/1.1.
                let Sender::Http1(connection) = self.open(way, true).await? else {
                    return Err(Failure::Http1(failure));
                };
                return connection.exchange(&mut upload, &way.pool).await.map_err(Failure::Http1);
            }
            sender => match self.send_by(way, sender, slot).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            },
        };
        if slot.is_none() {
            return Err(failure);
        }
        way.pool.forget_shared();
        let sender = self.open(way, self.websocket).await?;
        self.send_by(way, sender, slot).await
    }

    async fn open(&self, way: &Way, http1_only: bool) -> Result<Sender, Failure> {
        way.pool.open(http1_only, self.connect_timeout).await.map_err(Failure::Connect)
    }

    /// Takes the request out of `slot`; puts it back where nothing of it was sent.
    async fn send_by(&self, way: &Arc<Way>, sender: Sender, slot: &mut Slot) -> Result<Response<Body>, Failure> {
        let sent = match sender {
            Sender::Http1(connection) if !self.websocket => {
                let mut upload = self.upload(way, slot)?;
                return connection.exchange(&mut upload, &way.pool).await.map_err(Failure::Http1);
            }
            Sender::Http1(connection) => {
                let mut sender = connect::upgradable(connection).await.map_err(Failure::Http)?;
                sender.try_send_request(self.request(way, slot, false)?).await
            }
            Sender::Http2(mut sender) => sender.try_send_request(self.request(way, slot, true)?).await,
        };
        match sent {
            Ok(incoming) => Ok(incoming.map(Body::incoming)),
            Err(mut error) => {
                *slot = error.take_message();
                Err(Failure::Http(error.into_error()))
            }
        }
    }

    fn upload(&self, way: &Way, slot: &mut Slot) -> Result<Upload, Failure> {
        self.request(way, slot, false).map(Upload::new)
    }

    /// The request as `way` wants it.
    fn request(&self, way: &Way, slot: &mut Slot, h2: bool) -> Result<Request<RequestBody>, Failure> {
        let mut request = slot.take().ok_or(Failure::Unspeakable)?;
        self.address(&mut request, way, h2).ok_or(Failure::Unspeakable)?;
        if !h2 {
            join_cookies(request.headers_mut());
        }
        // Unless told, hyper takes it that a GET has no body.
        if self.websocket && !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
            request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if self.trailers && !h2 {
            // HTTP/1 lists `TE` there (RFC 9110 section 10.1.4), HTTP/2 has no such field.
            let listed = if self.websocket { "upgrade, TE" } else { "TE" };
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static(listed));
        }
        Ok(request)
    }

    /// Makes target, version and `Host` what this connection needs.
    fn address(&self, request: &mut Request<RequestBody>, way: &Way, h2: bool) -> Option<()> {
        let path = self.target.path_and_query(&way.base_path)?;
        if h2 {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = way.absolute(path, self.preserved_host.as_ref())?;
            request.headers_mut().remove(header::HOST);
        } else {
            *request.version_mut() = Version::HTTP_11;
            *request.uri_mut() = Uri::from(path);
            let host = self.preserved_host.as_ref().or(way.host.as_ref()).cloned();
            request.headers_mut().insert(header::HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
        }
        Some(())
    }
}

/// HTTP/2 may split cookies over several fields, HTTP/1 must not (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in [second].into_iter().chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    let mut joined = HeaderValue::from_maybe_shared(Bytes::from(joined)).expect("fields joined are a field");
    joined.set_sensitive(true);
    headers.insert(header::COOKIE, joined);
}
