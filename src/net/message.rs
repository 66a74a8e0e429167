//! Requests and answers as a door's handler sees them, whatever protocol brings or takes them.

use http::{HeaderMap, Method, StatusCode, Uri, Version, header};
use hyper::upgrade::OnUpgrade;

use super::{fields::Fields, server::Inbound};

/// What a request asks.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// Verb.
    pub method: Method,
    /// Target; with an authority where the request line or HTTP/2 has one.
    pub uri: Uri,
    /// The protocol it came by.
    pub version: Version,
    /// Its header fields.
    pub fields: Fields,
}

/// A request.
#[derive(Debug)]
pub struct Request {
    /// What it asks.
    pub head: Head,
    /// Its body.
    pub body: Inbound,
    /// The connection, once protocols are switched; only where it asks for that.
    pub upgrade: Option<OnUpgrade>,
}

/// An answer.
#[derive(Debug)]
pub struct Response<B> {
    /// Status.
    pub status: StatusCode,
    /// The protocol it came by.
    pub version: Version,
    /// Its header fields.
    pub fields: Fields,
    /// Its body.
    pub body: B,
    /// The connection, once protocols are switched; only where it says so, and comes by hyper.
    pub upgrade: Option<OnUpgrade>,
}

impl From<http::request::Parts> for Head {
    fn from(parts: http::request::Parts) -> Self {
        let http::request::Parts { method, uri, version, headers, .. } = parts;
        Self { method, uri, version, fields: Fields::from(&headers) }
    }
}

impl From<http::Request<hyper::body::Incoming>> for Request {
    fn from(mut request: http::Request<hyper::body::Incoming>) -> Self {
        let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        Self { head: parts.into(), body: Inbound::Hyper(body), upgrade }
    }
}

impl<B> Response<B> {
    /// 200 without fields.
    pub fn new(body: B) -> Self {
        Self { status: StatusCode::OK, version: Version::HTTP_11, fields: Fields::default(), body, upgrade: None }
    }

    /// The same with another body.
    pub fn map<C>(self, map: impl FnOnce(B) -> C) -> Response<C> {
        let Self { status, version, fields, body, upgrade } = self;
        Response { status, version, fields, body: map(body), upgrade }
    }

    /// For hyper. What cannot be said is 502.
    pub(super) fn into_http(self) -> http::Response<B> {
        let (status, headers) = match self.fields.to_map() {
            Some(headers) => (self.status, headers),
            None => (StatusCode::BAD_GATEWAY, HeaderMap::new()),
        };
        let mut response = http::Response::new(self.body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

impl<B> From<http::Response<B>> for Response<B> {
    fn from(mut response: http::Response<B>) -> Self {
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let upgrade = switches.then(|| hyper::upgrade::on(&mut response));
        let (parts, body) = response.into_parts();
        let http::response::Parts { status, version, headers, .. } = parts;
        Self { status, version, fields: Fields::from(&headers), body, upgrade }
    }
}
