//! Connections to one upstream server, kept by one worker: idle HTTP/1.1 ones, last in first out, and one HTTP/2
//! connection that all requests share.

use std::{pin::Pin, sync::atomic::AtomicUsize, time::Duration};

use hyper::client::conn::http2;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    body::RequestBody,
    connect::{self, Sender, Tls},
    http1::Connection,
};
use crate::{
    net::CoarseInstant,
    store::{Upstream, UpstreamScheme},
};

/// A server, whatever base path it is configured with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) scheme: UpstreamScheme,
    pub(super) host: Box<str>,
    pub(super) port: u16,
}

impl From<&Upstream> for Key {
    fn from(upstream: &Upstream) -> Self {
        Self { scheme: upstream.scheme, host: upstream.host.clone(), port: upstream.port }
    }
}

/// The connections to one server.
#[derive(Debug)]
pub(super) struct Pool {
    key: Key,
    tls: Tls,
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Option<http2::SendRequest<RequestBody>>>,
    /// One opens the shared connection, the others wait for it.
    opening: Semaphore,
    /// Whose turn it is in the lists that begin with this server.
    pub(super) turn: AtomicUsize,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: CoarseInstant,
}

impl Pool {
    pub(super) fn new(key: Key, tls: Tls) -> Self {
        Self {
            key,
            tls,
            idle: Mutex::default(),
            shared: Mutex::default(),
            opening: Semaphore::new(1),
            turn: AtomicUsize::new(0),
        }
    }

    /// A connection that stands and has nothing to do.
    pub(super) fn reuse(&self, http1_only: bool) -> Option<Sender> {
        if matches!(self.key.scheme, UpstreamScheme::H2c | UpstreamScheme::Https)
            && !http1_only
            && let Some(shared) = self.shared()
        {
            return Some(Sender::Http2(shared));
        }
        let mut idle = self.idle.lock();
        while let Some(Idle { mut connection, .. }) = idle.pop() {
            if connection.is_idle() {
                return Some(Sender::Http1(connection));
            }
        }
        None
    }

    /// A new connection; where HTTP/2 is spoken, the shared one.
    pub(super) async fn open(&self, http1_only: bool, limit: Duration) -> Result<Sender, connect::Error> {
        if self.key.scheme != UpstreamScheme::H2c {
            let sender = self.connect(http1_only, limit).await?;
            return Ok(self.share(sender));
        }
        let _turn = self.opening.acquire().await;
        if let Some(shared) = self.shared() {
            return Ok(Sender::Http2(shared));
        }
        self.connect(false, limit).await.map(|sender| self.share(sender))
    }

    /// Boxed, since it is rare and large: every request would carry room for it.
    fn connect(
        &self,
        http1_only: bool,
        limit: Duration,
    ) -> Pin<Box<impl Future<Output = Result<Sender, connect::Error>> + Send>> {
        Box::pin(connect::connect(&self.key, &self.tls, http1_only, limit))
    }

    fn share(&self, sender: Sender) -> Sender {
        if let Sender::Http2(shared) = &sender {
            *self.shared.lock() = Some(shared.clone());
        }
        sender
    }

    fn shared(&self) -> Option<http2::SendRequest<RequestBody>> {
        let mut shared = self.shared.lock();
        if shared.as_ref().is_some_and(http2::SendRequest::is_closed) {
            *shared = None;
        }
        shared.clone()
    }

    /// The shared connection takes no more requests, though it still stands.
    pub(super) fn forget_shared(&self) {
        *self.shared.lock() = None;
    }

    /// Takes a connection back: its answer was read to the end.
    pub(super) fn put(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        if idle.len() < MOST_IDLE {
            idle.push(Idle { connection, since: CoarseInstant::now() });
        }
    }

    /// How many have nothing to do.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle.lock().len()
    }

    /// Closes connections that are closed already, or have been idle for longer than `limit`.
    pub(super) fn sweep(&self, limit: Duration) {
        self.idle.lock().retain_mut(|idle| idle.since.elapsed() < limit && idle.connection.is_idle());
    }
}

/// Above what one worker has under way at a time; the sweep closes those that rest. Fewer than are in use at once would
/// have connections closed and opened anew for every tenth request.
const MOST_IDLE: usize = 4096;
