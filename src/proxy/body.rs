//! Bodies on their way through: streamed, never buffered, counted, and cut at the configured size.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    exchange::Exchange,
    headers,
    http1::{self, Download},
    meter::Gauge,
};
use crate::{
    net::{Connection, server::Inbound},
    store::Gate,
};

/// An answer's body. Dropping it, at its end or before, writes the access line.
#[derive(Debug, Default)]
pub struct Body {
    kind: Kind,
    exchange: Option<Box<Exchange>>,
    gauge: Option<Box<Gauge>>,
}

#[derive(Debug, Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    /// By HTTP/1.1.
    Download(Box<Download>),
    /// By HTTP/2, or what is to be upgraded.
    Incoming(Incoming),
}

/// Why an upstream's body broke off.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Cause);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Download(http1::Error),
    #[error(transparent)]
    Incoming(hyper::Error),
}

impl Body {
    /// A body at hand.
    pub(super) fn full(bytes: Bytes) -> Self {
        Self { kind: if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) }, exchange: None, gauge: None }
    }

    /// An upstream's body as it comes.
    pub(super) fn upstream(download: Download) -> Self {
        Self { kind: Kind::Download(Box::new(download)), exchange: None, gauge: None }
    }

    /// One that hyper reads.
    pub(super) fn incoming(incoming: Incoming) -> Self {
        Self { kind: Kind::Incoming(incoming), exchange: None, gauge: None }
    }

    /// Ends `exchange` with this body.
    pub(super) fn with(mut self, exchange: Box<Exchange>) -> Self {
        self.exchange = Some(exchange);
        self
    }

    /// Counts what it uses.
    pub(super) fn measured(mut self, gauge: Gauge) -> Self {
        self.gauge = Some(Box::new(gauge));
        self
    }
}

impl Body {
    /// Counts what passes; at the end all is counted before the client sees it.
    fn measure(&mut self, frame: &Option<Result<Frame<Bytes>, Error>>) {
        if let (Some(gauge), Some(Ok(frame))) = (&mut self.gauge, frame) {
            gauge.pass(frame.data_ref().map_or(&[], |data| data));
        }
        if frame.is_none() || self.is_end_stream() {
            self.gauge = None;
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let frame = match &mut this.kind {
            Kind::Empty => None,
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Kind::Download(download) => {
                ready!(download.poll_frame(cx)).map(|frame| frame.map_err(|error| Error(Cause::Download(error))))
            }
            Kind::Incoming(incoming) => ready!(Pin::new(incoming).poll_frame(cx))
                .map(|frame| frame.map_err(|error| Error(Cause::Incoming(error)))),
        };
        match (&mut this.exchange, &frame) {
            (Some(exchange), Some(Ok(frame))) => {
                exchange.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            (Some(exchange), Some(Err(_))) => exchange.broke_off(),
            _ => {}
        }
        if this.gauge.is_some() {
            this.measure(&frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Download(download) => download.is_end_stream(),
            Kind::Incoming(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Download(download) => download.size_hint(),
            Kind::Incoming(incoming) => incoming.size_hint(),
        }
    }
}

/// A client's body on its way to the upstream.
#[derive(Debug, Default)]
pub(super) struct RequestBody(Option<Box<Streaming>>);

#[derive(Debug)]
struct Streaming {
    incoming: Inbound,
    /// Bytes it may still bring; none is no limit.
    room: Option<u64>,
    ended: bool,
    fate: Arc<Fate>,
    /// HTTP/1: closed when the body is not read to its end, since what follows is then no request.
    connection: Option<Arc<Connection>>,
    gate: Arc<Gate>,
    gauge: Option<Box<Gauge>>,
}

/// How a client's body fares, for whoever waits for the upstream's answer.
#[derive(Debug, Default)]
pub(super) struct Fate {
    broken: AtomicU8,
    /// Frames that came, wrapping.
    frames: AtomicU32,
    /// The upstream has room, the client sends nothing.
    waiting: AtomicBool,
}

/// Why a client's body broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// It was larger than allowed.
    #[error("the request's body is too large")]
    TooLarge,
    /// The client, or what it sent.
    #[error("the client's body broke off")]
    Client(#[source] hyper::Error),
    /// It was longer or shorter than it said.
    #[error("the request's body is not as long as it said")]
    Misframed,
}

impl RequestBody {
    /// `limit` 0 is none. Without a body there is nothing to keep track of.
    pub(super) fn new(
        incoming: Inbound,
        limit: u64,
        connection: Option<&Arc<Connection>>,
        gate: &Arc<Gate>,
        gauge: Option<Box<Gauge>>,
    ) -> (Self, Option<Arc<Fate>>) {
        if incoming.is_end_stream() {
            return (Self(None), None);
        }
        let fate = Arc::new(Fate::default());
        let streaming = Streaming {
            incoming,
            room: (limit > 0).then_some(limit),
            ended: false,
            fate: fate.clone(),
            connection: connection.cloned(),
            gate: gate.clone(),
            gauge,
        };
        (Self(Some(Box::new(streaming))), Some(fate))
    }
}

impl Fate {
    pub(super) fn is_too_large(&self) -> bool {
        self.broken.load(Relaxed) == TOO_LARGE
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed) == BROKEN
    }

    /// Whether nothing went wrong with it so far.
    pub(super) fn is_whole(&self) -> bool {
        self.broken.load(Relaxed) == 0
    }

    /// Whether it is the client that everybody waits for.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(Relaxed)
    }

    pub(super) fn frames(&self) -> u32 {
        self.frames.load(Relaxed)
    }
}

impl Streaming {
    /// Passes a frame on, if there is room for it, without trailers that only we may set.
    fn admit(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Broken> {
        if let (Some(room), Some(data)) = (&mut self.room, frame.data_ref()) {
            let Some(left) = room.checked_sub(data.len() as u64) else {
                self.fate.broken.store(TOO_LARGE, Relaxed);
                return Err(Broken::TooLarge);
            };
            *room = left;
        }
        if let (Some(gauge), Some(data)) = (&mut self.gauge, frame.data_ref()) {
            gauge.pass(data);
        }
        Ok(match frame.into_trailers() {
            Ok(mut trailers) => {
                headers::clean_trailers(&mut trailers, &self.gate);
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        })
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(streaming) = &mut self.0 else { return Poll::Ready(None) };
        let polled = Pin::new(&mut streaming.incoming).poll_frame(cx);
        streaming.fate.waiting.store(polled.is_pending(), Relaxed);
        Poll::Ready(match ready!(polled) {
            Some(Ok(frame)) => {
                streaming.fate.frames.fetch_add(1, Relaxed);
                Some(streaming.admit(frame))
            }
            Some(Err(error)) => {
                streaming.fate.broken.store(BROKEN, Relaxed);
                Some(Err(Broken::Client(error)))
            }
            None => {
                streaming.ended = true;
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|streaming| streaming.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |streaming| streaming.incoming.size_hint())
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection
            && !self.ended
            && !self.incoming.is_end_stream()
        {
            connection.close_after();
        }
    }
}

const TOO_LARGE: u8 = 1;
const BROKEN: u8 = 2;
