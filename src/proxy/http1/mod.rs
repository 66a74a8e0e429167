//! HTTP/1.1 towards an upstream (RFC 9112), spoken by the request's own task.
//!
//! A client library gives each connection a task, which requests and answers reach through channels; here the request
//! writes and reads by itself: nobody is woken for it, and a connection that waits holds no buffer. HTTP/2, and what
//! is to be upgraded, goes by hyper ([`super::connect`]).

mod chunks;
mod download;
mod head;
mod upload;

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::unconstrained,
};

use self::head::Head;
pub(super) use self::{
    download::Download,
    upload::{Asked, Upload},
};
use super::{
    body::{Body, Broken},
    pool::Pool,
};
use crate::net::{
    incoming::{append, poll_read},
    message::Response,
};

/// A socket, with TLS or without.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Io for S {}

/// A connection on which nothing is under way.
pub(super) struct Connection(Box<dyn Io>);

/// Why there is no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The connection ended before a byte of an answer.
    #[error("the upstream closed the connection")]
    Closed(#[source] Option<io::Error>),
    /// It ended in the midst of one.
    #[error("the upstream's answer broke off")]
    BrokeOff(#[source] Option<io::Error>),
    /// What came is no answer, or its end cannot be told.
    #[error("the upstream's answer is no HTTP/1.1: {0}")]
    Malformed(&'static str),
    /// The client's body.
    #[error(transparent)]
    Upload(#[from] Broken),
}

impl Connection {
    pub(super) fn new(io: impl Io + 'static) -> Self {
        Self(Box::new(io))
    }

    /// The bare socket.
    pub(super) fn into_io(self) -> Box<dyn Io> {
        self.0
    }

    /// Whether it still stands. An upstream that speaks without being asked is not listened to.
    pub(super) fn is_idle(&mut self) -> bool {
        let mut byte = [0];
        let read = poll_fn(|cx| Pin::new(&mut self.0).poll_read(cx, &mut ReadBuf::new(&mut byte)));
        // Unconstrained: a task that has read enough for its turn is told to wait, too.
        pin!(unconstrained(read)).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Sends a request, and gives its answer once the head is there. The connection goes to `pool` when all was sent
    /// and read. After an error, `upload` tells whether it may be sent again.
    pub(super) async fn exchange(mut self, upload: &mut Upload, pool: &Arc<Pool>) -> Result<Response<Body>, Error> {
        let mut read = Bytes::new();
        give_way().await;
        let Head { response, framing, persists, .. } = poll_fn(|cx| {
            upload.advance(&mut *self.0, cx)?;
            poll_head(&mut *self.0, &mut read, upload.asks_for_head(), cx)
        })
        .await?;
        if let Some(body) = framing.whole(&read)
            && upload.is_whole()
        {
            if persists && body.len() == read.len() {
                pool.put(self);
            }
            return Ok(response.map(|()| Body::full(body)));
        }
        let upload = std::mem::take(upload);
        let download = Download { io: Some(self.0), upload, framing, read, home: persists.then(|| pool.clone()) };
        Ok(response.map(|()| Body::upstream(download)))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// Lets the worker's other tasks have their turn: requests that came together are written one after the other, while
/// the upstream is awake, and not each when it has just fallen asleep.
async fn give_way() {
    let mut gave = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut gave, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Reads on until a final answer's head is whole; `read` keeps what follows it.
fn poll_head(io: &mut dyn Io, read: &mut Bytes, to_head: bool, cx: &mut Context<'_>) -> Poll<Result<Head, Error>> {
    loop {
        let more = match ready!(poll_read(io, 0, cx)) {
            Ok(more) if !more.is_empty() => more,
            ended => {
                let why = ended.err();
                return Poll::Ready(Err(if read.is_empty() { Error::Closed(why) } else { Error::BrokeOff(why) }));
            }
        };
        // A head that comes in crumbs is not looked at for each of them.
        let ends_line = memchr::memchr(b'\n', &more).is_some();
        append(read, more);
        while ends_line && !read.is_empty() {
            let Some(head) = head::parse(read, to_head)? else { break };
            read.advance(head.len);
            if !head.is_interim() {
                return Poll::Ready(Ok(head));
            }
        }
        if read.len() > LARGEST_HEAD {
            return Poll::Ready(Err(Error::Malformed("its head is too large")));
        }
    }
}

const LARGEST_HEAD: usize = 256 << 10;

#[cfg(test)]
mod tests;
