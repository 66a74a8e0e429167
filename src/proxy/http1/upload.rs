//! A request on its way to an upstream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Method, Request};
use http_body::{Body as _, Frame};

use super::Io;
use crate::{
    net::outgoing::{Length, Misframed, Outgoing, write_fields},
    proxy::body::{Broken, RequestBody},
};

/// A request as bytes: those at hand, and where more come from.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Upload {
    out: Outgoing,
    /// Until all of it is at hand.
    body: Option<RequestBody>,
    length: Length,
    state: State,
    /// It is a HEAD.
    to_head: bool,
    /// It changes nothing and has no body: it may be sent twice.
    safe: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    UnderWay,
    Whole,
    /// The upstream takes no more of it; it may have answered all the same.
    Failed,
}

impl Upload {
    /// Takes the request, whose target and fields are as the upstream shall see them; what says where its body ends
    /// is written anew.
    pub(in crate::proxy) fn new(request: Request<RequestBody>) -> Self {
        let (head, body) = request.into_parts();
        let empty = body.is_end_stream();
        let length = if empty { Some(0) } else { body.size_hint().exact() };
        let length = length.map_or(Length::Chunked, Length::Sized);
        let mut text = Vec::with_capacity(HEAD);
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            text.extend_from_slice(part.as_bytes());
        }
        let said_length = write_fields(&mut text, &head.headers);
        if said_length || length != Length::Sized(0) {
            length.write(&mut text);
        }
        text.extend_from_slice(b"\r\n");
        Self {
            out: Outgoing::new(text),
            safe: empty && matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS),
            to_head: head.method == Method::HEAD,
            body: (!empty).then_some(body),
            length,
            state: State::UnderWay,
        }
    }

    pub(super) fn asks_for_head(&self) -> bool {
        self.to_head
    }

    /// All of it was sent.
    pub(super) fn is_whole(&self) -> bool {
        self.state == State::Whole
    }

    /// Begins anew on another connection; false: it must not, or cannot.
    pub(in crate::proxy) fn rewind(&mut self) -> bool {
        let may = self.safe || !self.out.has_begun();
        if may {
            self.out.rewind();
            self.state = State::UnderWay;
        }
        may
    }

    /// Sends what can be sent now. Where the upstream takes no more, its answer is still to be read.
    pub(super) fn advance(&mut self, io: &mut dyn Io, cx: &mut Context<'_>) -> Result<(), Broken> {
        if self.state != State::UnderWay {
            return Ok(());
        }
        match self.poll_send(io, cx)? {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.state = State::Whole,
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "an upstream takes no more of a request");
                self.state = State::Failed;
            }
        }
        Ok(())
    }

    fn poll_send(&mut self, io: &mut dyn Io, cx: &mut Context<'_>) -> Result<Poll<io::Result<()>>, Broken> {
        loop {
            // Before anything is written, so that a short body goes along with the head.
            let filled = self.poll_fill(cx)?;
            let wrote = self.out.poll_write(&mut *io, cx);
            let goes_on = matches!(wrote, Poll::Ready(Ok(()))) && self.body.is_some();
            if !goes_on {
                return Ok(wrote);
            }
            if filled.is_pending() {
                return Ok(Poll::Pending);
            }
        }
    }

    /// Fetches the body's next frame, where none waits to be sent.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Broken> {
        let Some(body) = self.body.as_mut().filter(|_| self.out.has_room()) else { return Ok(Poll::Ready(())) };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else { return Ok(Poll::Pending) };
        let frame = frame.transpose()?;
        let over = frame.is_none() || body.is_end_stream();
        match frame.map(Frame::into_data) {
            Some(Ok(data)) => self.out.put(data, &mut self.length)?,
            Some(Err(frame)) if self.length == Length::Chunked => {
                frame.trailers_ref().into_iter().for_each(|trailers| self.out.end_with(trailers));
                self.body = None;
            }
            Some(Err(_)) | None => {}
        }
        if over && self.body.take().is_some() {
            self.out.end(self.length)?;
        }
        Ok(Poll::Ready(()))
    }
}

impl From<Misframed> for Broken {
    fn from(_: Misframed) -> Self {
        Self::Misframed
    }
}

/// More than most heads have.
const HEAD: usize = 1 << 10;
