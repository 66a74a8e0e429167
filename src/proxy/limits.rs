//! Limits of size and time that the server beneath does not keep.

use std::{pin::Pin, time::Duration};

use http::{Version, header, request::Parts};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{error::Elapsed, timeout};

use super::{Settings, body::Fate, headers};
use crate::{
    authz::Denial,
    net::{Connection, connection::Raw},
    store::PathFlaw,
};

/// The limits that the parser does not keep.
pub(super) fn admit(parts: &Parts, body: &Incoming, raw: Raw, settings: &Settings) -> Result<(), Denial> {
    // The parser's buffer is never smaller than this.
    let small = settings.max_header_bytes.0 < SMALLEST_BUFFER;
    if parts.headers.len() > settings.max_headers || (small && headers::size(parts) > settings.max_header_bytes.0) {
        return Err(Denial::HeaderTooLarge);
    }
    if parts.uri.path_and_query().map_or(0, |target| target.as_str().len()) as u64 > settings.max_uri.0 {
        return Err(Denial::UriTooLong);
    }
    if settings.max_body.0 > 0 && body.size_hint().lower() > settings.max_body.0 {
        return Err(Denial::BodyTooLarge);
    }
    if raw.fragment { Err(Denial::Path(PathFlaw::Fragment)) } else { Ok(()) }
}

/// Waits for the head of an answer. An upload that goes on has time: it is the upstream's time that is limited, and
/// the client's between two pieces.
pub(super) async fn in_time<F: Future>(
    mut answer: Pin<&mut F>,
    limit: Duration,
    upload: Option<&Fate>,
) -> Result<F::Output, Elapsed> {
    let mut frames = 0;
    loop {
        match timeout(limit, answer.as_mut()).await {
            Err(_) if upload.is_some_and(|upload| upload.frames() != frames) => {
                frames = upload.map_or(0, Fate::frames);
            }
            ended => return ended,
        }
    }
}

/// Reads the rest of a refused request, so that the connection can go on: only as much as a client sends before it
/// looks for an answer, and nothing that still waits for `100 Continue`.
pub(super) async fn discard(mut body: Incoming, parts: &Parts, connection: &Connection, limit: Duration) {
    if parts.version >= Version::HTTP_2 {
        return;
    }
    let small = body.size_hint().lower() <= DISCARDED && !parts.headers.contains_key(header::EXPECT);
    let read = async {
        let mut left = DISCARDED;
        while let Some(frame) = body.frame().await {
            let read =
                frame.ok().and_then(|frame| left.checked_sub(frame.data_ref().map_or(0, |data| data.len() as u64)));
            let Some(rest) = read else { return false };
            left = rest;
        }
        true
    };
    if !small || !timeout(limit, read).await.unwrap_or(false) {
        connection.close_after();
    }
}

const SMALLEST_BUFFER: u64 = 8192;
const DISCARDED: u64 = 64 << 10;
