//! A request on its way to an upstream.

use std::task::{Context, Poll};

use http::Method;
use http_body::Body as _;

use super::Io;
use crate::{
    net::{
        Fields,
        fields::write_field,
        outgoing::{Failed, Length, Message},
    },
    proxy::body::{Broken, RequestBody},
};

/// What a request's head says.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Asked<'a> {
    pub(in crate::proxy) method: &'a Method,
    /// Path and query.
    pub(in crate::proxy) target: &'a str,
    pub(in crate::proxy) host: &'a [u8],
    /// All others, as the upstream shall see them.
    pub(in crate::proxy) fields: &'a Fields,
    /// What `Connection` lists.
    pub(in crate::proxy) connection: Option<&'a [u8]>,
    /// It says how long its body is, though there may be none.
    pub(in crate::proxy) says_length: bool,
}

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
    /// What says where its body ends is written anew.
    pub(in crate::proxy) fn new(asked: Asked<'_>, body: RequestBody) -> Self {
        let empty = body.is_end_stream();
        let length = if empty { Some(0) } else { body.size_hint().exact() };
        let length = length.map_or(Length::Chunked, Length::Sized);
        let mut text = Vec::with_capacity(HEAD + asked.target.len() + asked.fields.size());
        for part in [asked.method.as_str(), " ", asked.target, " HTTP/1.1\r\n"] {
            text.extend_from_slice(part.as_bytes());
        }
        write_field(&mut text, "host", asked.host);
        asked.fields.write_to(&mut text);
        if let Some(listed) = asked.connection {
            write_field(&mut text, "connection", listed);
        }
        if asked.says_length || length != Length::Sized(0) {
            length.write(&mut text);
        }
        text.extend_from_slice(b"\r\n");
        Self {
            safe: empty && matches!(*asked.method, Method::GET | Method::HEAD | Method::OPTIONS),
            to_head: *asked.method == Method::HEAD,
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

/// More than what is written of a head besides its target and its fields.
const HEAD: usize = 256;
