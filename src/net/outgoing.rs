//! A message on its way out: its head, and its body's pieces with what frames them, written together (RFC 9112).

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::fields::{write_field, write_trailers};

/// A message whose body is sent as it comes.
#[derive(Debug, Default)]
pub struct Message<B> {
    out: Outgoing,
    length: Length,
    /// Until all of it is in `out`.
    body: Option<B>,
    /// The other end takes trailers.
    trailers: bool,
}

/// Why a message is not sent to its end.
#[derive(Debug)]
pub enum Failed<E> {
    /// The socket.
    Io(io::Error),
    /// Its body came to no good end.
    Body(E),
    /// Its body is longer or shorter than its head says.
    Misframed,
}

/// What waits to be written.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// The head, or what stands before a chunk.
    framing: Vec<u8>,
    /// Bytes of `framing` that are written.
    sent: usize,
    data: Bytes,
    /// What stands behind a chunk.
    tail: &'static [u8],
    begun: bool,
}

/// How a body's end is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Length {
    /// By a count: so many bytes are to come.
    Sized(u64),
    /// By chunks.
    #[default]
    Chunked,
}

impl Length {
    /// Writes the field that says it.
    pub fn write(self, into: &mut Vec<u8>) {
        match self {
            Self::Sized(length) => {
                write_field(into, "content-length", itoa::Buffer::new().format(length).as_bytes());
            }
            Self::Chunked => write_field(into, "transfer-encoding", b"chunked"),
        }
    }
}

/// A body is longer or shorter than its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misframed;

impl<E> From<Misframed> for Failed<E> {
    fn from(_: Misframed) -> Self {
        Self::Misframed
    }
}

impl<B: Body<Data = Bytes> + Unpin> Message<B> {
    /// Begins with `head`, which says `length`; without a body that is 0. Trailers are sent where the other end
    /// takes them and the body is chunked, else dropped.
    pub fn new(head: Vec<u8>, length: Length, body: Option<B>, trailers: bool) -> Self {
        Self { out: Outgoing::new(head), length, body, trailers }
    }

    /// Sends until all is sent.
    pub fn poll<S: AsyncWrite + Unpin + ?Sized>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failed<B::Error>>> {
        loop {
            // Before anything is written, so that a short body goes along with the head.
            let filled = self.poll_fill(cx)?;
            ready!(self.out.poll_write(io, cx)).map_err(Failed::Io)?;
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            ready!(filled);
        }
    }

    /// What waits to be written.
    pub fn out(&mut self) -> &mut Outgoing {
        &mut self.out
    }

    /// Fetches the body's next frame, where none waits to be sent.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Failed<B::Error>> {
        let Some(body) = self.body.as_mut().filter(|_| self.out.has_room()) else { return Ok(Poll::Ready(())) };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else { return Ok(Poll::Pending) };
        let frame = frame.transpose().map_err(Failed::Body)?;
        let over = frame.is_none() || body.is_end_stream();
        match frame.map(Frame::into_data) {
            Some(Ok(data)) => self.out.put(data, &mut self.length)?,
            Some(Err(frame)) if self.trailers && self.length == Length::Chunked => {
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

impl Outgoing {
    /// A message that begins with `head`.
    pub fn new(head: Vec<u8>) -> Self {
        Self { framing: head, ..Self::default() }
    }

    /// Whether it is another piece's turn.
    pub fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty()
    }

    /// Puts a piece of the body behind what waits. Only where there is room.
    pub fn put(&mut self, data: Bytes, length: &mut Length) -> Result<(), Misframed> {
        match length {
            Length::Sized(left) => *left = left.checked_sub(data.len() as u64).ok_or(Misframed)?,
            // An empty chunk would be the last.
            Length::Chunked if data.is_empty() => return Ok(()),
            Length::Chunked => {
                // Memory takes every write.
                let _ = write!(self.framing(), "{:x}\r\n", data.len());
                self.tail = b"\r\n";
            }
        }
        self.data = data;
        Ok(())
    }

    /// No piece follows.
    pub fn end(&mut self, length: Length) -> Result<(), Misframed> {
        match length {
            Length::Sized(0) => {}
            Length::Sized(_) => return Err(Misframed),
            Length::Chunked if self.data.is_empty() => self.tail = b"0\r\n\r\n",
            Length::Chunked => self.tail = b"\r\n0\r\n\r\n",
        }
        Ok(())
    }

    /// Trailers end a chunked body.
    pub fn end_with(&mut self, trailers: &HeaderMap) {
        let framing = self.framing();
        framing.extend_from_slice(b"0\r\n");
        write_trailers(framing, trailers);
        framing.extend_from_slice(b"\r\n");
    }

    /// Writes until nothing waits, and flushes.
    pub fn poll_write<S: AsyncWrite + Unpin + ?Sized>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.framing.len() || !self.has_room() {
            let pieces = [&self.framing[self.sent..], &self.data, self.tail].map(IoSlice::new);
            let wrote = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &pieces))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun = true;
            self.wrote(wrote);
        }
        Pin::new(io).poll_flush(cx)
    }

    /// Something was written.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Begins anew: only a message that is its head alone, or of which nothing was written.
    pub fn rewind(&mut self) {
        (self.sent, self.begun) = (0, false);
    }

    fn wrote(&mut self, wrote: usize) {
        let framing = wrote.min(self.framing.len() - self.sent);
        self.sent += framing;
        let data = (wrote - framing).min(self.data.len());
        self.data.advance(data);
        self.tail = &self.tail[wrote - framing - data..];
    }

    fn framing(&mut self) -> &mut Vec<u8> {
        if self.sent == self.framing.len() {
            self.framing.clear();
            self.sent = 0;
        }
        &mut self.framing
    }
}
