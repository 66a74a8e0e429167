//! Plain requests of HTTP/1.1 (RFC 9112): without a body, or anything to negotiate. Most are, and they cost less here
//! than by a library for everything.
//!
//! Whatever else comes is not looked into, much less refused: the connection goes to hyper, with that request's first
//! byte, and stays there. So what is read here is a strict part of what hyper reads, and what is refused, it refuses.

use std::{
    error::Error,
    mem::{self, MaybeUninit},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{Method, StatusCode, Uri, Version};
use http_body::Body;
use httparse::{ParserConfig, Status};
use pin_project_lite::pin_project;
use tokio::io::AsyncWrite;

use super::{
    connection::Doing,
    fields::{Fields, lists, write_field},
    incoming::{append, poll_read},
    message::{self, Request, Response},
    outgoing::{Failed, Length, Message},
    pace::{self, Begun},
    server::{Inbound, Limits},
    stream::Watched,
};

pin_project! {
    /// A connection, as long as plain requests come.
    pub(super) struct Plain<S, F, B> {
        io: Option<Watched>,
        // Read, and not yet answered.
        read: Bytes,
        serve: S,
        limits: Arc<Limits>,
        #[pin]
        state: State<F, B>,
        // No request is taken any more.
        finishing: bool,
        // A request waits in line, unread.
        lined_up: bool,
    }
}

pin_project! {
    /// What a connection is at.
    #[project = StateProjection]
    enum State<F, B> {
        // Waits for a request.
        Head,
        // Waits for an answer. Boxed: what few requests need is warm, what each connection has room for is not.
        Answering { future: Pin<Box<F>>, last: bool, to_head: bool, begun: Begun },
        // Writes one.
        Writing { answer: Writing<B> },
        // Says that nothing follows.
        Closing,
    }
}

/// An answer under way.
struct Writing<B> {
    message: Message<B>,
    /// The connection ends with it.
    last: bool,
}

/// Why plain requests came to an end.
#[derive(Debug)]
pub(super) enum End {
    /// The connection is closed.
    Closed,
    /// Something else was asked: hyper goes on with it.
    Handed(Watched),
}

/// Why the connection failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client, or its network.
    Client,
    /// The answer broke off.
    Answer,
}

/// What was read.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once, and the large one is the usual one")]
enum Head {
    Partial,
    Plain { request: Request, last: bool, len: usize },
    Other,
}

impl<S, F, B> Plain<S, F, B> {
    pub(super) fn new(io: Watched, limits: Arc<Limits>, serve: S) -> Self {
        Self { io: Some(io), read: Bytes::new(), serve, limits, state: State::Head, finishing: false, lined_up: false }
    }

    /// Lets a request under way finish, and takes no more.
    pub(super) fn end(self: Pin<&mut Self>) {
        *self.project().finishing = true;
    }
}

impl<S, F, B, E> Future for Plain<S, F, B>
where
    S: Fn(Request) -> F,
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = Result<End, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let Some(io) = this.io.as_mut() else { return Poll::Ready(Ok(End::Closed)) };
            match this.state.as_mut().project() {
                StateProjection::Head if !*this.lined_up && *this.finishing && this.read.is_empty() => {
                    this.state.set(State::Closing);
                }
                StateProjection::Head
                    if !*this.lined_up && this.read.is_empty() && pace::is_full() && io.tells_readable() =>
                {
                    ready!(io.poll_readable(cx));
                    *this.lined_up = true;
                    pace::line_up(cx);
                    return Poll::Pending;
                }
                StateProjection::Head => {
                    *this.lined_up = false;
                    match ready!(poll_head(io, this.read, this.limits, cx))? {
                        Some(Head::Plain { request, last, len }) => {
                            this.read.advance(len);
                            let to_head = request.head.method == Method::HEAD;
                            let (begun, future) = (Begun::new(), Box::pin((this.serve)(request)));
                            this.state.set(State::Answering { future, last, to_head, begun });
                        }
                        Some(_) => {
                            let handed = this.io.take().map(|io| io.again(mem::take(this.read)));
                            return Poll::Ready(Ok(handed.map_or(End::Closed, End::Handed)));
                        }
                        None => this.state.set(State::Closing),
                    }
                }
                StateProjection::Answering { future, last, to_head, .. } => match future.as_mut().poll(cx) {
                    Poll::Ready(Ok(response)) => {
                        let last = *last || *this.finishing;
                        let answer = Writing::new(response, last, *to_head);
                        this.state.set(State::Writing { answer });
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::Answer)),
                    Poll::Pending => {
                        ready!(poll_ahead(io, this.read, this.limits, cx));
                        return Poll::Ready(Err(Failure::Client));
                    }
                },
                StateProjection::Writing { answer } => {
                    ready!(answer.poll(io, cx))?;
                    let last = answer.last;
                    // The answer ends before anything else begins.
                    this.state.set(if last { State::Closing } else { State::Head });
                    if !last && !this.read.is_empty() {
                        io.connection().set(Doing::Head);
                    }
                }
                StateProjection::Closing => {
                    let _ = ready!(Pin::new(io).poll_shutdown(cx));
                    return Poll::Ready(Ok(End::Closed));
                }
            }
        }
    }
}

/// Reads until it is clear what comes; none: nothing does.
fn poll_head(
    io: &mut Watched,
    read: &mut Bytes,
    limits: &Limits,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Head>, Failure>> {
    let mut fresh = !read.is_empty();
    loop {
        if fresh {
            match parse(read, limits) {
                Head::Partial if read.len() < limits.max_header_bytes => {}
                Head::Partial => return Poll::Ready(Ok(Some(Head::Other))),
                head => return Poll::Ready(Ok(Some(head))),
            }
        }
        let more = ready!(poll_read(io, 0, cx)).map_err(|_| Failure::Client)?;
        if more.is_empty() {
            // Half a head: hyper knows what that is.
            return Poll::Ready(Ok((!read.is_empty()).then_some(Head::Other)));
        }
        // A head that comes in crumbs is not looked at for each of them.
        fresh = memchr::memchr(b'\n', &more).is_some();
        append(read, more);
    }
}

/// While an answer is waited for, notes what the client sends; ready when it has gone.
fn poll_ahead(io: &mut Watched, read: &mut Bytes, limits: &Limits, cx: &mut Context<'_>) -> Poll<()> {
    while read.len() < limits.max_header_bytes {
        match ready!(poll_read(io, 0, cx)) {
            Ok(more) if !more.is_empty() => append(read, more),
            _ => return Poll::Ready(()),
        }
    }
    Poll::Pending
}

/// A plain request at the beginning of `read`, something else, or neither yet.
fn parse(read: &Bytes, limits: &Limits) -> Head {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let len = match ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, read, &mut fields) {
        Ok(Status::Complete(len)) if len <= limits.max_header_bytes => len,
        Ok(Status::Partial) => return Head::Partial,
        _ => return Head::Other,
    };
    plain(read, &parsed).map_or(Head::Other, |(request, last)| Head::Plain { request, last, len })
}

/// The request, and whether its client wants no more answers; none: it is not plain.
fn plain(read: &Bytes, parsed: &httparse::Request<'_, '_>) -> Option<(Request, bool)> {
    let (Some(method), Some(target), Some(1)) = (parsed.method, parsed.path, parsed.version) else { return None };
    // A fragment is seen there, an authority is compared with `Host`.
    if !target.starts_with('/') || target.contains('#') {
        return None;
    }
    let method = Method::from_bytes(method.as_bytes()).ok().filter(|method| *method != Method::CONNECT)?;
    let (mut last, mut said_length) = (false, false);
    let fields = Fields::parsed(read, parsed.headers, |field| {
        let is = |other: &str| field.name.eq_ignore_ascii_case(other);
        let is_plain = match field.name.len() {
            2 => !is("te"),
            6 => !is("expect"),
            7 => !is("upgrade"),
            10 => {
                last |= is("connection") && lists(field.value, "close");
                true
            }
            14 if is("content-length") => field.value == b"0" && !mem::replace(&mut said_length, true),
            17 => !is("transfer-encoding"),
            _ => true,
        };
        if is_plain { Ok(true) } else { Err(()) }
    });
    let fields = fields.ok().flatten()?;
    let uri = Uri::from_maybe_shared(read.slice_ref(target.as_bytes())).ok()?;
    let head = message::Head { method, uri, version: Version::HTTP_11, fields };
    Some((Request { head, body: Inbound::Empty, upgrade: None }, last))
}

impl<B> Writing<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    fn new(response: Response<B>, last: bool, to_head: bool) -> Self {
        let Response { status, fields, body, .. } = response;
        let bodiless = to_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let mut text = Vec::with_capacity(HEAD + fields.size());
        for part in ["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or_default(), "\r\n"] {
            text.extend_from_slice(part.as_bytes());
        }
        fields.write_to(&mut text);
        let (length, body) = if bodiless || body.is_end_stream() {
            (Length::Sized(0), None)
        } else {
            (body.size_hint().exact().map_or(Length::Chunked, Length::Sized), Some(body))
        };
        if !bodiless {
            length.write(&mut text);
        } else if status != StatusCode::NO_CONTENT
            && let Some(said) = fields.get("content-length")
        {
            // Of the answer that is not sent.
            write_field(&mut text, "content-length", said);
        }
        if !fields.contains("date") {
            date::with(|date| write_field(&mut text, "date", date));
        }
        let said = fields.get("connection");
        if last && said.is_none() {
            write_field(&mut text, "connection", b"close");
        }
        text.extend_from_slice(b"\r\n");
        let last = last || said.is_some_and(|said| lists(said, "close"));
        // Who asks for trailers is not answered here.
        Self { message: Message::new(text, length, body, false), last }
    }

    fn poll(&mut self, io: &mut Watched, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match ready!(self.message.poll(io, cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Failed::Io(_)) => Poll::Ready(Err(Failure::Client)),
            Err(Failed::Body(_) | Failed::Misframed) => {
                // The head may still wait: the client shall know what broke off.
                let _ = self.message.out().poll_write(io, cx);
                Poll::Ready(Err(Failure::Answer))
            }
        }
    }
}

/// The time of day as a field's value, made twice a second.
mod date {
    use std::cell::RefCell;

    use crate::net::{CoarseInstant, clock::http_date};

    pub(super) fn with(write: impl FnOnce(&[u8])) {
        DATE.with_borrow_mut(|date| {
            let fresh = date.take().filter(|(made, _)| made.elapsed_ms() < STALE_MS);
            let made = || (CoarseInstant::now(), http_date());
            write(date.insert(fresh.unwrap_or_else(made)).1.as_bytes());
        });
    }

    thread_local! {
        static DATE: RefCell<Option<(CoarseInstant, String)>> = const { RefCell::new(None) };
    }

    const STALE_MS: u64 = 500;
}

/// As many as hyper takes, unless it is told otherwise.
const MOST_FIELDS: usize = 100;
/// More than what is written of a head besides its fields.
const HEAD: usize = 256;

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
