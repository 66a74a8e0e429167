//! A client's byte stream, watched: tells its [`Connection`] what arrives and whether writing gets on.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::server::TlsStream;

use super::{
    connection::{Connection, Doing, Scan},
    gather,
};

/// A connected socket, with TLS where the listener has it.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<Self>>),
}

/// A stream and what was read of it ahead.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Stream,
    ahead: Bytes,
    scan: Scan,
    connection: Arc<Connection>,
}

impl Stream {
    /// Whether ALPN chose a protocol, and whether that is HTTP/2.
    fn negotiated(&self) -> Option<bool> {
        match self {
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol().map(|protocol| protocol == b"h2"),
            _ => None,
        }
    }

    /// Waits for bytes without a place to put them, where that can be told.
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
            Self::Tls(_) => Ok(()),
        }
    }
}

/// Runs `$body` with `$stream` pinned, whichever it is.
macro_rules! with {
    ($self:expr, $stream:ident => $body:expr) => {
        match $self.get_mut() {
            Self::Tcp($stream) => {
                let $stream = Pin::new($stream);
                $body
            }
            Self::Unix($stream) => {
                let $stream = Pin::new($stream);
                $body
            }
            Self::Tls($stream) => {
                let $stream = Pin::new($stream.as_mut());
                $body
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        with!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        with!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => gather::poll_write(Pin::new(stream), cx, bufs),
            Self::Unix(stream) => gather::poll_write(Pin::new(stream), cx, bufs),
            // It joins what it encrypts.
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self, stream => stream.poll_shutdown(cx))
    }
}

impl Watched {
    /// Finds out whether the client speaks HTTP/2, by ALPN or by its preface, and watches it from then on.
    pub(super) async fn new(mut stream: Stream, connection: Arc<Connection>) -> io::Result<(Self, bool)> {
        let (ahead, h2) = match stream.negotiated() {
            Some(h2) => (Bytes::new(), h2),
            None => read_ahead(&mut stream).await?,
        };
        if h2 {
            connection.set_opaque();
        }
        Ok((Self { stream, ahead, scan: Scan::default(), connection }, h2))
    }

    /// Whether [`Self::poll_readable`] knows: not what was read ahead, or is within TLS.
    pub(super) fn tells_readable(&self) -> bool {
        self.ahead.is_empty() && !matches!(self.stream, Stream::Tls(_))
    }

    /// Waits until something has arrived, and leaves it where it is.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is seen when it is read.
        match &self.stream {
            Stream::Tcp(stream) => stream.poll_read_ready(cx).map(drop),
            Stream::Unix(stream) => stream.poll_read_ready(cx).map(drop),
            Stream::Tls(_) => Poll::Ready(()),
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Reads `read` again, the beginning of a request that is under way.
    pub(super) fn again(mut self, read: Bytes) -> Self {
        (self.ahead, self.scan) = (read, Scan::within_line());
        self
    }
}

impl Watched {
    /// Whether the request answered last still has a body on its way, so that what arrives is no head. Whoever
    /// passes that body on holds the connection until it has ended; else only its server and this stream do.
    fn is_uploading(&self) -> bool {
        !self.connection.is_opaque()
            && self.connection.current() == Doing::Idle
            && Arc::strong_count(&self.connection) > OWN_HOLDERS
    }
}

/// Reads until it is clear whether the bytes are HTTP/2's preface (RFC 9113 section 3.4).
async fn read_ahead(stream: &mut Stream) -> io::Result<(Bytes, bool)> {
    // Who says nothing costs no buffer.
    stream.readable().await?;
    let mut ahead = BytesMut::with_capacity(READ_AHEAD);
    loop {
        let read = stream.read_buf(&mut ahead).await?;
        let known = ahead.len().min(PREFACE.len());
        if read == 0 || ahead[..known] != PREFACE[..known] {
            return Ok((ahead.freeze(), false));
        }
        if known == PREFACE.len() {
            return Ok((ahead.freeze(), true));
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.ahead.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            // No more than a read would bring: whoever reads it looks at its size in between.
            let n = this.ahead.len().min(buf.remaining()).min(READ_AHEAD);
            buf.put_slice(&this.ahead[..n]);
            this.ahead.advance(n);
            if this.ahead.is_empty() {
                this.ahead = Bytes::new();
            }
        }
        let read = &buf.filled()[before..];
        if !read.is_empty() && this.is_uploading() {
            this.connection.set(Doing::Idle);
        } else {
            this.scan.observe(read, &this.connection);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.connection.wrote(polled.is_ready());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.connection.wrote(polled.is_ready());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const READ_AHEAD: usize = 4096;
/// [`super::server`]'s task and [`Watched`].
const OWN_HOLDERS: usize = 2;
