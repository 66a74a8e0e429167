//! An answer's body as it comes.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Connection, Error, Io, Upload, chunks::Chunks};
use crate::{
    net::incoming::{append, poll_read},
    proxy::pool::Pool,
};

/// An answer's body under way. The rest of the request's goes on meanwhile.
pub(in crate::proxy) struct Download {
    /// None: it has ended.
    pub(super) io: Option<Box<dyn Io>>,
    pub(super) upload: Upload,
    pub(super) framing: Framing,
    /// Read, but not handed on.
    pub(super) read: Bytes,
    /// Where the connection goes afterwards; none: it is closed.
    pub(super) home: Option<Arc<Pool>>,
}

/// How a body's end is told.
#[derive(Debug)]
pub(super) enum Framing {
    /// So many bytes are to come.
    Sized(u64),
    Chunked(Chunks),
    UntilClose,
}

/// The next of a body.
#[derive(Debug)]
pub(super) enum Piece {
    Frame(Frame<Bytes>),
    /// More must be read: at least so many bytes will come, as far as is known.
    Missing(u64),
    End,
}

impl Framing {
    /// The body, where `read` begins with all of it.
    pub(super) fn whole(&self, read: &Bytes) -> Option<Bytes> {
        let Self::Sized(size) = self else { return None };
        let size = usize::try_from(*size).ok().filter(|size| *size <= read.len())?;
        Some(read.slice(..size))
    }

    fn take(&mut self, read: &mut Bytes) -> Result<Piece, Error> {
        match self {
            Self::Chunked(chunks) => chunks.take(read),
            Self::Sized(0) => Ok(Piece::End),
            Self::Sized(left) if read.is_empty() => Ok(Piece::Missing(*left)),
            Self::Sized(left) => {
                let data = read.split_to(usize::try_from(*left).unwrap_or(usize::MAX).min(read.len()));
                *left -= data.len() as u64;
                Ok(Piece::Frame(Frame::data(data)))
            }
            Self::UntilClose if read.is_empty() => Ok(Piece::Missing(0)),
            Self::UntilClose => Ok(Piece::Frame(Frame::data(std::mem::take(read)))),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Chunked(chunks) => chunks.is_over(),
            Self::Sized(left) => *left == 0,
            Self::UntilClose => false,
        }
    }
}

impl Download {
    /// As [`http_body::Body::poll_frame`].
    pub(in crate::proxy) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let next = ready!(self.poll_next(cx)).transpose();
        match &next {
            Some(Ok(_)) if !self.framing.is_over() => {}
            Some(Err(_)) => self.io = None,
            _ => self.end(),
        }
        Poll::Ready(next)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Error>> {
        let Some(io) = self.io.as_deref_mut() else { return Poll::Ready(Ok(None)) };
        self.upload.advance(io, cx)?;
        loop {
            let expected = match self.framing.take(&mut self.read)? {
                Piece::Frame(frame) => return Poll::Ready(Ok(Some(frame))),
                Piece::End => return Poll::Ready(Ok(None)),
                Piece::Missing(expected) => expected,
            };
            let more = ready!(poll_read(io, expected, cx)).map_err(|error| Error::BrokeOff(Some(error)))?;
            match (more.is_empty(), &self.framing) {
                (false, _) => append(&mut self.read, more),
                (true, Framing::UntilClose) => return Poll::Ready(Ok(None)),
                (true, _) => return Poll::Ready(Err(Error::BrokeOff(None))),
            }
        }
    }

    /// The connection can take another request, unless bytes came that nobody asked for.
    fn end(&mut self) {
        if let (Some(io), Some(pool)) = (self.io.take(), self.home.take())
            && self.upload.is_whole()
            && self.read.is_empty()
        {
            pool.put(Connection(io));
        }
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.io.is_none()
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Sized(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("framing", &self.framing).finish_non_exhaustive()
    }
}
