//! What a door tells the engine of a request: borrows only.

use std::net::IpAddr;

use http::Method;

use crate::net::{Fields, Now};

/// A request to judge. Every door fills one in; the engine copies nothing out of it but what is granted.
#[derive(Debug, Clone, Copy)]
pub struct CheckRequest<'a> {
    /// Verb.
    pub method: &'a Method,
    /// Authority the client asked for: lower case, without port and trailing dot; empty if none.
    pub host: &'a str,
    /// Path as sent, percent-encoded, without query.
    pub path: &'a str,
    /// Query as sent, without `?`.
    pub query: Option<&'a str>,
    /// All header fields as sent.
    pub headers: &'a Fields,
    /// The client's address, after trusted proxies; none on Unix sockets.
    pub client: Option<IpAddr>,
    /// The moment of the request.
    pub now: Now,
}
