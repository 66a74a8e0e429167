//! An answer under way: the future of it, and the body that follows. Both keep their connection busy.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{connection::Connection, message::Response};

pin_project! {
    /// Waits for an answer. By hand, since hyper moves it whole into the connection and an async block would hold what it
    /// awaits twice: once captured, once under way.
    pub(super) struct Answering<F, B> {
        #[pin]
        reply: Reply<F, B>,
        busy: Option<Busy>,
        version: Version,
    }
}

pin_project! {
    /// Where an answer comes from.
    #[project = ReplyProjection]
    pub(super) enum Reply<F, B> {
        Handled { #[pin] future: F },
        Ready { response: Option<Response<B>> },
    }
}

impl<F, B> Reply<F, B> {
    /// From a handler.
    pub(super) fn handled(future: F) -> Self {
        Self::Handled { future }
    }

    /// Known already.
    pub(super) fn ready(response: Response<B>) -> Self {
        Self::Ready { response: Some(response) }
    }
}

impl<F, B> Answering<F, B> {
    pub(super) fn new(reply: Reply<F, B>, busy: Busy, version: Version) -> Self {
        Self { reply, busy: Some(busy), version }
    }
}

impl<F: Future<Output = Response<B>>, B> Future for Answering<F, B> {
    type Output = Result<Response<Answer<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.reply.project() {
            ReplyProjection::Handled { future } => ready!(future.poll(cx)),
            ReplyProjection::Ready { response } => response.take().expect("not polled after its end"),
        };
        let busy = this.busy.take().expect("not polled after its end");
        Poll::Ready(Ok(busy.answer(response, *this.version)))
    }
}

pin_project! {
    /// The same for hyper, which has types of its own.
    pub(super) struct ForHyper<F> {
        #[pin]
        answering: F,
    }
}

impl<F> ForHyper<F> {
    pub(super) fn new(answering: F) -> Self {
        Self { answering }
    }
}

impl<F, B, E> Future for ForHyper<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<http::Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().answering.poll(cx).map_ok(Response::into_http)
    }
}

/// Counts a request as under way until it is dropped.
#[derive(Debug)]
pub(super) struct Busy {
    connection: Arc<Connection>,
    /// When it came, as the connection counts time.
    since: u32,
    /// It got an answer; else the client took it back.
    answered: bool,
}

impl Busy {
    pub(super) fn new(connection: Arc<Connection>, since: u32) -> Self {
        Self { connection, since, answered: false }
    }

    /// The answer's head is there: says whether it is the connection's last.
    fn answer<B>(mut self, mut response: Response<B>, version: Version) -> Response<Answer<B>> {
        self.answered = true;
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            self.connection.set_opaque();
        } else if version < Version::HTTP_2 && self.connection.is_last_answer() {
            response.fields.set(&header::CONNECTION, &HeaderValue::from_static("close"));
        }
        let tracked = version >= Version::HTTP_2;
        response.map(|body| Answer { body, busy: self, tracked, waits: None })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.connection.end(self.since, self.answered);
    }
}

/// An answer's body, which keeps its connection busy.
pub(super) struct Answer<B> {
    body: B,
    busy: Busy,
    /// HTTP/2: what is handed over may wait for room of its own. HTTP/1 has none but the socket's.
    tracked: bool,
    /// Since when the last part waits to be taken.
    waits: Option<u64>,
}

impl<B> Answer<B> {
    /// Being polled again or dropped, its last part is no longer waited for.
    fn taken(&mut self) {
        if let Some(since) = self.waits.take() {
            self.busy.connection.taken(since);
        }
    }
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.taken();
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = &mut *self;
        this.taken();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if this.tracked
            && let Poll::Ready(Some(Ok(frame))) = &polled
            && frame.is_data()
        {
            this.waits = Some(this.busy.connection.waits());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
