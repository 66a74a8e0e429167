//! A refusal as an HTTP answer: WSO2's body or RFC 9457's, and gRPC's way of saying no.

use bytes::Bytes;
use http::{HeaderMap, Response};

use super::{Denial, Found};
use crate::net::Now;

/// The answer to a refused request. `request` are the request's header fields: `content-type:
/// application/grpc*` is answered HTTP 200 with `grpc-status`.
pub fn render(denial: &Denial, found: &Found, request: &HeaderMap, now: Now) -> Response<Bytes> {
    let _ = (denial, found, request, now);
    unimplemented!()
}
