//! Limits of size and time that the server beneath does not keep.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::Version;
use http_body::Body as _;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep_until, timeout};

use super::{Settings, body::Fate, headers};
use crate::{
    authz::Denial,
    net::{Connection, connection::Raw, message::Head, server::Inbound},
    store::PathFlaw,
};

/// The limits that the parser does not keep.
pub(super) fn admit(head: &Head, body: &Inbound, raw: Raw, settings: &Settings) -> Result<(), Denial> {
    // The parser's buffer is never smaller than this.
    let small = settings.max_header_bytes.0 < SMALLEST_BUFFER;
    if head.fields.len() > settings.max_headers || (small && headers::size(head) > settings.max_header_bytes.0) {
        return Err(Denial::HeaderTooLarge);
    }
    if head.uri.path_and_query().map_or(0, |target| target.as_str().len()) as u64 > settings.max_uri.0 {
        return Err(Denial::UriTooLong);
    }
    if settings.max_body.0 > 0 && body.size_hint().lower() > settings.max_body.0 {
        return Err(Denial::BodyTooLarge);
    }
    if raw.fragment { Err(Denial::Path(PathFlaw::Fragment)) } else { Ok(()) }
}

/// Waits for the head of an answer, `limit` from `begun` on. An upload that goes on has time: it is the upstream's
/// time that is limited, and the client's between two pieces.
pub(super) async fn in_time<F: Future>(
    mut answer: Pin<&mut F>,
    begun: Instant,
    limit: Duration,
    upload: Option<&Fate>,
    timers: &Timers,
) -> Result<F::Output, Elapsed> {
    let mut frames = 0;
    let mut timer = timers.take(begun + limit);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(ended));
            }
            ready!(timer.poll(cx));
            let Some(upload) = upload.filter(|upload| upload.frames() != frames) else {
                return Poll::Ready(Err(Elapsed));
            };
            frames = upload.frames();
            timer.set(Instant::now() + limit);
        }
    })
    .await
}

/// Time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Elapsed;

/// One worker's timers, which its requests use in turn: to move one on costs an atomic, to make one a place in the
/// runtime's wheel, and another to give it up.
#[derive(Debug, Default)]
pub(super) struct Timers(Mutex<Vec<Pin<Box<Sleep>>>>);

/// A timer in use.
struct Timer<'a> {
    timers: &'a Timers,
    /// There until it is dropped.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timers {
    fn take(&self, deadline: Instant) -> Timer<'_> {
        let spare = self.0.lock().pop();
        let sleep = match spare {
            Some(mut sleep) => {
                sleep.as_mut().reset(deadline.into());
                sleep
            }
            None => Box::pin(sleep_until(deadline.into())),
        };
        Timer { timers: self, sleep: Some(sleep) }
    }
}

impl Timer<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().map_or(Poll::Ready(()), |sleep| sleep.as_mut().poll(cx))
    }

    fn set(&mut self, deadline: Instant) {
        self.sleep.iter_mut().for_each(|sleep| sleep.as_mut().reset(deadline.into()));
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let mut spare = self.timers.0.lock();
        if spare.len() < MOST_SPARE {
            spare.extend(self.sleep.take());
        }
    }
}

/// Reads the rest of a refused request, so that the connection can go on: only as much as a client sends before it
/// looks for an answer, and nothing that still waits for `100 Continue`.
pub(super) async fn discard(mut body: Inbound, head: &Head, connection: &Connection, limit: Duration) {
    if head.version >= Version::HTTP_2 {
        return;
    }
    let small = body.size_hint().lower() <= DISCARDED && !head.fields.contains("expect");
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
const MOST_SPARE: usize = 256;
