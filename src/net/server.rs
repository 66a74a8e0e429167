//! The server of every door: accepts, shakes hands, speaks HTTP/1.1 and HTTP/2, keeps time, and goes away politely.
//!
//! Knows nothing of what is answered: that is its [`Handler`]. One [`Server::run`] serves one listener on the
//! runtime it is called in (RFC 9112, RFC 9113).

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

use super::{
    answer::{Answer, Answering, Busy, ForHyper, Reply},
    connection::{BadFraming, Connection, Raw},
    drain::{Drain, Phase},
    listener::{Accepted, Arrival, Incoming as Connections, Listener},
    message::{Request, Response},
    plain::{End, Plain},
    room::{Room, Seat},
    stream::{Stream, Watched},
    tls::Acceptor,
    watchdog::{self, LINGER},
};
use crate::telemetry::{ConnectionError, Door, Metrics};

/// A request's body.
#[derive(Debug)]
pub enum Inbound {
    /// It has none.
    Empty,
    /// As it comes.
    Hyper(hyper::body::Incoming),
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Hyper(incoming) => Pin::new(incoming).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Hyper(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Hyper(incoming) => incoming.size_hint(),
        }
    }
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// An answer's body; its default is empty.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Default + Unpin + Send + 'static;

    /// The answer.
    fn call(
        self: Arc<Self>,
        request: Request,
        connection: Arc<Connection>,
        raw: Raw,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Limits and times of new connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most open connections.
    pub max_connections: usize,
    /// Most requests under way on one HTTP/2 connection.
    pub max_streams: u32,
    /// Most header fields of a request.
    pub max_headers: usize,
    /// Largest request head.
    pub max_header_bytes: usize,
    /// Until a head is read, from its first byte; until a new connection has brought its first one; the handshake.
    pub header: Duration,
    /// How long a connection may be idle, or take nothing of an answer.
    pub idle: Duration,
}

/// A door's server. Clones serve further listeners.
#[derive(Debug)]
pub struct Server<H> {
    /// Which door it is, for its count of open connections.
    pub door: Door,
    /// Who answers.
    pub handler: Arc<H>,
    /// Limits; new connections take the newest.
    pub limits: Arc<ArcSwap<Limits>>,
    /// Where connections find a place.
    pub room: Room,
    /// TLS, if it is served.
    pub tls: Option<Acceptor>,
    /// Counts failed connections.
    pub metrics: Arc<Metrics>,
    /// When to go away.
    pub drain: Drain,
}

impl<H> Clone for Server<H> {
    fn clone(&self) -> Self {
        Self {
            door: self.door,
            handler: self.handler.clone(),
            limits: self.limits.clone(),
            room: self.room.clone(),
            tls: self.tls.clone(),
            metrics: self.metrics.clone(),
            drain: self.drain.clone(),
        }
    }
}

impl<H: Handler> Server<H> {
    /// Serves until everything is drained: returns when the last connection is gone, or cut.
    pub async fn run(self, listener: Listener) -> io::Result<()> {
        let mut connections = listener.into_incoming()?;
        let worker = connections.worker();
        let (alive, mut gone) = mpsc::channel(1);
        let closing = self.drain.reached(Phase::Closing);
        let mut closing = pin!(closing);
        loop {
            let arrived = tokio::select! {
                arrived = connections.next() => arrived,
                () = &mut closing => break,
            };
            match arrived.and_then(|arrived| self.receive(arrived, &connections)) {
                Ok(Some((accepted, seat))) => self.spawn(accepted, seat, &alive),
                Ok(None) => {}
                Err(error) if is_of_one_connection(&error) => {}
                // Out of descriptors or memory: others may free some.
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        for arrived in connections.close().await {
            match arrived {
                Arrival::Handed(accepted, seat) => self.spawn(accepted, seat, &alive),
                Arrival::Here(accepted) => {
                    if let Some(seat) = self.seat(worker) {
                        self.spawn(accepted, seat.with(worker), &alive);
                    }
                }
            }
        }
        drop(alive);
        tokio::select! {
            _ = gone.recv() => {}
            () = self.drain.reached(Phase::Cut) => {}
        }
        Ok(())
    }

    /// The connection, where it is this worker's to serve.
    fn receive(&self, arrived: Arrival, connections: &Connections) -> io::Result<Option<(Accepted, Seat)>> {
        match arrived {
            Arrival::Handed(accepted, seat) => Ok(Some((accepted, seat))),
            Arrival::Here(accepted) => match self.seat(connections.worker()) {
                Some(seat) => connections.hand_over(accepted, seat),
                None => Ok(None),
            },
        }
    }

    /// A place for what `worker` has accepted; none: the cap is reached, which is counted.
    fn seat(&self, worker: usize) -> Option<Seat> {
        let seat = self.room.enter(worker, self.limits.load().max_connections);
        if seat.is_none() {
            self.metrics.connection_error(ConnectionError::TooMany);
        }
        seat
    }

    fn spawn(&self, accepted: Accepted, seat: Seat, alive: &mpsc::Sender<Infallible>) {
        let limits = self.limits.load_full();
        let (stream, peer) = match accepted {
            Accepted::Tcp(stream, peer) => {
                let _ = stream.set_nodelay(true);
                (Stream::Tcp(stream), Some(peer.ip()))
            }
            Accepted::Unix(stream) => (Stream::Unix(stream), None),
        };
        let (server, alive) = (self.clone(), alive.clone());
        tokio::spawn(async move {
            if let Err(reason) = server.serve(stream, peer, alive, limits, seat).await {
                server.metrics.connection_error(reason);
            }
        });
    }

    async fn serve(
        &self,
        stream: Stream,
        peer: Option<IpAddr>,
        alive: mpsc::Sender<Infallible>,
        limits: Arc<Limits>,
        _seat: Seat,
    ) -> Result<(), ConnectionError> {
        let open = self.metrics.connection_opened(self.door);
        let connection = Arc::new(Connection::new(peer, self.tls.is_some(), self.drain.clone(), alive, open));
        let opened = self.open(stream, connection.clone(), Instant::now() + limits.header);
        let (io, h2) = tokio::select! {
            opened = opened => opened?,
            () = self.silent_too_long() => return Ok(()),
        };
        let serve = |request| self.answer(&connection, request);
        let service = service_fn(|request: http::Request<_>| ForHyper::new(serve(request.into())));
        if h2 {
            let io = TokioIo::new(io);
            let mut http = Box::pin(http2_builder(&limits).serve_connection(io, service));
            Box::pin(watchdog::drive(http.as_mut(), &connection, &limits, &self.drain)).await.map(|_| ())
        } else {
            // Boxed, so that who says nothing has no room for an answer.
            let mut plain = Box::pin(Plain::new(io, limits.clone(), serve));
            let ended = watchdog::drive(plain.as_mut(), &connection, &limits, &self.drain).await?;
            drop(plain);
            let Some(End::Handed(io)) = ended else { return Ok(()) };
            let http = http1_builder(&limits).serve_connection(TokioIo::new(io), service).with_upgrades();
            // Boxed, as HTTP/2 is: plain connections would have room for it.
            Box::pin(watchdog::drive(Box::pin(http).as_mut(), &connection, &limits, &self.drain)).await.map(|_| ())
        }
    }

    /// The TLS handshake, and the first bytes, `until` then.
    async fn open(
        &self,
        stream: Stream,
        connection: Arc<Connection>,
        until: Instant,
    ) -> Result<(Watched, bool), ConnectionError> {
        let stream = match &self.tls {
            None => stream,
            Some(tls) => {
                // Boxed, as HTTP/2 is below: every connection would have room for it as long as it lives.
                let shaken = timeout_at(until, Box::pin(tls.current().accept(stream))).await;
                let shaken = shaken.map_err(|_| ConnectionError::TlsHandshake)?;
                Stream::Tls(Box::new(shaken.map_err(|_| ConnectionError::TlsHandshake)?))
            }
        };
        let opened = timeout_at(until, Watched::new(stream, connection)).await;
        opened.map_err(|_| ConnectionError::HeaderTimeout)?.map_err(|_| ConnectionError::Reset)
    }

    /// A connection that has said nothing is of no use once we are closing.
    async fn silent_too_long(&self) {
        self.drain.reached(Phase::Closing).await;
        sleep(LINGER).await;
    }

    /// One request, from its head to its answer's end.
    fn answer(
        &self,
        connection: &Arc<Connection>,
        request: Request,
    ) -> impl Future<Output = Result<Response<Answer<H::Body>>, Infallible>> + Send + 'static + use<H> {
        let version = request.head.version;
        let (since, begun) = connection.begin(&request.head);
        let busy = Busy::new(connection.clone(), since);
        let reply = match begun {
            Ok(raw) => Reply::handled(self.handler.clone().call(request, connection.clone(), raw)),
            Err(BadFraming) => {
                connection.close_after();
                self.metrics.connection_error(ConnectionError::Parse);
                let mut response = Response::new(H::Body::default());
                response.status = StatusCode::BAD_REQUEST;
                Reply::ready(response)
            }
        };
        Answering::new(reply, busy, version)
    }
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.max_buf_size(limits.max_header_bytes.max(SMALLEST_HEAD));
    // The parser's own default needs no allocation.
    if limits.max_headers != 100 {
        http.max_headers(limits.max_headers);
    }
    http
}

fn http2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.max_streams)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESET_ERRORS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY);
    http
}

/// Whether only the one connection failed that was to be accepted, not accepting as such.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// hyper accepts no smaller buffer.
const SMALLEST_HEAD: usize = 8192;
/// Requests that a client takes back before they are looked at (CVE-2023-44487); those that are looked at already
/// count in [`Connection::end`].
const MAX_RESETS: usize = 20;
/// Requests that a client makes us take back, by what is no HTTP/2 (CVE-2025-8671).
const MAX_RESET_ERRORS: usize = 256;
/// What of an answer waits in memory for a client's window, per request.
const SEND_BUFFER: usize = 64 << 10;
const STREAM_WINDOW: u32 = 256 << 10;
/// What of all uploads on a connection may wait in memory.
pub(super) const CONNECTION_WINDOW: u32 = 1 << 20;
const PING_EVERY: Duration = Duration::from_secs(20);

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
