//! A request on its way to an upstream.

use std::task::{Context, Poll};

use http::{Method, Request};
use http_body::Body as _;

use super::Io;
use crate::{
    net::{
        fields::write_fields,
        outgoing::{Failed, Length, Message},
    },
    proxy::body::{Broken, RequestBody},
};

/// A request as bytes: those at hand, and where more come from.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Upload {
    message: Message<RequestBody>,
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
            safe: empty && matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS),
            to_head: head.method == Method::HEAD,
            message: Message::new(text, length, (!empty).then_some(body), true),
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
        let may = self.safe || !self.message.out().has_begun();
        if may {
            self.message.out().rewind();
            self.state = State::UnderWay;
        }
        may
    }

    /// Sends what can be sent now. Where the upstream takes no more, its answer is still to be read.
    pub(super) fn advance(&mut self, io: &mut dyn Io, cx: &mut Context<'_>) -> Result<(), Broken> {
        if self.state != State::UnderWay {
            return Ok(());
        }
        match self.message.poll(io, cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) => {
                self.state = State::Whole;
                Ok(())
            }
            Poll::Ready(Err(Failed::Io(error))) => {
                tracing::debug!(%error, "an upstream takes no more of a request");
                self.state = State::Failed;
                Ok(())
            }
            Poll::Ready(Err(Failed::Body(broken))) => Err(broken),
            Poll::Ready(Err(Failed::Misframed)) => Err(Broken::Misframed),
        }
    }
}

/// More than most heads have.
const HEAD: usize = 1 << 10;
