//! Keeps a connection's time: heads that take too long, idle connections, clients that take nothing of an answer,
//! and the phases of going away. One timer a connection, re-armed only when it fires.

use std::{
    error::Error,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::HttpService,
};
use tokio::{
    sync::futures::Notified,
    time::{Instant, Sleep, sleep},
};

use super::{
    connection::{Connection, Doing},
    drain::{Drain, Phase},
    message::{Request, Response},
    plain::{End, Failure, Plain},
    server::{CONNECTION_WINDOW, Limits},
};
use crate::telemetry::ConnectionError;

/// Runs a connection to its end, or to the end of its time.
pub(super) async fn drive<C: Http>(
    mut http: Pin<&mut C>,
    connection: &Connection,
    limits: &Limits,
    drain: &Drain,
) -> Result<Option<C::End>, ConnectionError> {
    let timer = pin!(sleep(limits.tick()));
    let changed = pin!(drain.changed());
    let mut watchdog = Watchdog {
        connection,
        limits,
        drain,
        timer,
        armed: false,
        changed,
        closing_at: None,
        told: false,
        farewell: None,
    };
    poll_fn(move |cx| {
        loop {
            if let Poll::Ready(done) = http.as_mut().poll(cx) {
                return Poll::Ready(match done {
                    Ok(end) => Ok(Some(end)),
                    Err(error) => C::reason(&error, connection).map_or(Ok(None), Err),
                });
            }
            match watchdog.poll(cx) {
                Verdict::GoOn => return Poll::Pending,
                Verdict::Finish => http.as_mut().finish(),
                Verdict::Cut(reason) => return Poll::Ready(reason.map_or(Ok(None), Err)),
            }
        }
    })
    .await
}

/// A kind of connection.
pub(super) trait Http: Future<Output = Result<Self::End, Self::Error>> {
    /// How it ends well.
    type End;
    /// How it fails.
    type Error;

    /// Lets requests under way finish, and takes no more.
    fn finish(self: Pin<&mut Self>);

    /// How a failure is counted; none: as connections end.
    fn reason(error: &Self::Error, connection: &Connection) -> Option<ConnectionError>;
}

impl<S, F, B, E> Http for Plain<S, F, B>
where
    S: Fn(Request) -> F,
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type End = End;
    type Error = Failure;

    fn finish(self: Pin<&mut Self>) {
        self.end();
    }

    fn reason(failure: &Failure, connection: &Connection) -> Option<ConnectionError> {
        // A client that has nothing left to ask may go as it likes.
        let gone = matches!(failure, Failure::Client) && connection.doing().0 != Doing::Idle;
        gone.then_some(ConnectionError::Reset)
    }
}

impl<I, S, B> Http for http1::UpgradeableConnection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type End = ();
    type Error = hyper::Error;

    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }

    fn reason(error: &hyper::Error, connection: &Connection) -> Option<ConnectionError> {
        reason(error, connection)
    }
}

impl<I, S, B, E> Http for http2::Connection<I, S, E>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    S: HttpService<Incoming, ResBody = B>,
    S::Future: 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    type End = ();
    type Error = hyper::Error;

    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }

    fn reason(error: &hyper::Error, connection: &Connection) -> Option<ConnectionError> {
        reason(error, connection)
    }
}

struct Watchdog<'t, 'd> {
    connection: &'d Connection,
    limits: &'d Limits,
    drain: &'d Drain,
    timer: Pin<&'t mut Sleep>,
    armed: bool,
    changed: Pin<&'t mut Notified<'d>>,
    closing_at: Option<Instant>,
    /// [`Http::finish`] was called.
    told: bool,
    /// Until when an idle client that was told may take its leave.
    farewell: Option<Instant>,
}

enum Verdict {
    GoOn,
    Finish,
    Cut(Option<ConnectionError>),
}

impl Watchdog<'_, '_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Verdict {
        let phase = self.phase(cx);
        if phase == Phase::Cut {
            return Verdict::Cut(None);
        }
        if self.connection.is_opaque() && self.connection.is_flood(self.limits.chatter()) {
            return Verdict::Cut(Some(ConnectionError::Http2));
        }
        if let Some(verdict) = self.time(cx) {
            return verdict;
        }
        if !self.told && self.should_finish(phase) {
            if self.connection.doing().0 == Doing::Accepted {
                return Verdict::Cut(None);
            }
            self.told = true;
            return Verdict::Finish;
        }
        Verdict::GoOn
    }

    /// The phase; the task is woken when it changes.
    fn phase(&mut self, cx: &mut Context<'_>) -> Phase {
        let phase = self.drain.phase();
        if self.armed && phase == Phase::Serving {
            return phase;
        }
        while self.changed.as_mut().poll(cx).is_ready() {
            let next = self.drain.changed();
            self.changed.set(next);
        }
        let phase = self.drain.phase();
        if phase == Phase::Closing && self.closing_at.is_none() {
            // Bytes that are already on their way to us shall still be seen.
            self.closing_at = Some(Instant::now() + LINGER);
            self.armed = false;
        }
        phase
    }

    fn should_finish(&self, phase: Phase) -> bool {
        let connection = self.connection;
        let doing = || connection.doing().0;
        match phase {
            _ if connection.is_opaque() && phase == Phase::Draining => connection.has_served(),
            Phase::Serving | Phase::Draining => connection.is_closing() && doing() != Doing::Head,
            Phase::Closing | Phase::Cut => {
                self.closing_at.is_some_and(|at| at <= Instant::now()) && doing() != Doing::Head
            }
        }
    }

    /// Looks at the clock when the timer has fired, and sets it anew.
    fn time(&mut self, cx: &mut Context<'_>) -> Option<Verdict> {
        while !self.armed || self.timer.is_elapsed() {
            let next = match self.left() {
                Ok(left) => Instant::now() + left,
                Err(ConnectionError::IdleTimeout) if self.connection.is_opaque() => match self.farewell {
                    Some(until) if until > Instant::now() => until,
                    None if !self.told => {
                        self.told = true;
                        self.farewell = Some(Instant::now() + self.limits.header);
                        return Some(Verdict::Finish);
                    }
                    _ => return Some(Verdict::Cut(None)),
                },
                Err(reason) => return Some(Verdict::Cut(Some(reason))),
            };
            let closing = self.closing_at.filter(|at| *at > Instant::now());
            self.timer.as_mut().reset(closing.map_or(next, |at| at.min(next)));
            self.armed = true;
            let _ = self.timer.as_mut().poll(cx);
        }
        None
    }

    /// Until when there is nothing to look at, or what took too long. Never more than a tick, since the next thing
    /// the connection does may have less time than what it does now.
    fn left(&self) -> Result<Duration, ConnectionError> {
        let (doing, since) = self.connection.doing();
        let (limit, since, reason) = match doing {
            Doing::Accepted | Doing::Head => (self.limits.header, since, ConnectionError::HeaderTimeout),
            Doing::Idle => (self.limits.idle, since, ConnectionError::IdleTimeout),
            Doing::Busy => (self.limits.idle, self.connection.blocked(), ConnectionError::BodyTimeout),
        };
        match limit.checked_sub(since) {
            None | Some(Duration::ZERO) => Err(reason),
            Some(left) => Ok(left.min(self.limits.tick()).max(SHORTEST)),
        }
    }
}

impl Limits {
    fn tick(&self) -> Duration {
        self.header.min(self.idle)
    }

    /// Most bytes of HTTP/2 without a request: what may still come of uploads that were answered early, a head, and
    /// as much again for PINGs and the like.
    fn chatter(&self) -> u32 {
        let head = u32::try_from(self.max_header_bytes).unwrap_or(u32::MAX);
        (CONNECTION_WINDOW + head.min(u32::MAX / 4)) * 2
    }
}

/// Why a connection failed; none: as connections end.
fn reason(error: &hyper::Error, connection: &Connection) -> Option<ConnectionError> {
    if error.is_parse() {
        return Some(ConnectionError::Parse);
    }
    // Our side gave up on an answer whose upstream broke off.
    if error.is_user() || error.is_canceled() || error.is_shutdown() {
        return None;
    }
    let broken_off = error.is_incomplete_message() || error.is_body_write_aborted() || is_io(error);
    // A client that has nothing left to ask may go as it likes. What is no HTTP/2 is that between requests, too.
    let gone = broken_off || error.is_timeout() || !connection.is_opaque();
    if gone && connection.doing().0 == Doing::Idle {
        return None;
    }
    if broken_off {
        return Some(ConnectionError::Reset);
    }
    Some(if connection.is_opaque() { ConnectionError::Http2 } else { ConnectionError::Other })
}

fn is_io(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if error.is::<io::Error>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// How long a connection without a request may still bring one that is on its way, once we are closing.
pub(super) const LINGER: Duration = Duration::from_millis(100);
/// The timer's granularity: nothing is looked at more often.
const SHORTEST: Duration = Duration::from_millis(1);
