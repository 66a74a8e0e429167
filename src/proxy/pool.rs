//! Connections to one upstream server, kept by one worker: idle HTTP/1.1 ones, last in first out, and one HTTP/2
//! connection that all requests share.

use std::{
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    body::RequestBody,
    connect::{self, Sender, Tls},
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
    sender: http1::SendRequest<RequestBody>,
    since: CoarseInstant,
}

/// A connection that stood already.
#[derive(Debug)]
pub(super) struct Reused {
    pub(super) sender: Sender,
    /// Idle for so long that the server may be closing it at this moment.
    pub(super) rested: bool,
}

/// An HTTP/1.1 connection lent for one request.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) pool: Arc<Pool>,
}

impl Lease {
    /// Puts the connection back: its answer was read to the end.
    pub(super) fn give_back(self) {
        let Self { mut sender, pool } = self;
        if sender.is_ready() {
            return pool.put(sender);
        }
        if sender.is_closed() {
            return;
        }
        // The connection's own task has not come round yet.
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                pool.put(sender);
            }
        });
    }
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
    pub(super) fn reuse(&self, http1_only: bool) -> Option<Reused> {
        if matches!(self.key.scheme, UpstreamScheme::H2c | UpstreamScheme::Https)
            && !http1_only
            && let Some(shared) = self.shared()
        {
            return Some(Reused { sender: Sender::Http2(shared), rested: false });
        }
        let mut idle = self.idle.lock();
        while let Some(Idle { sender, since }) = idle.pop() {
            if sender.is_ready() {
                let rested = since.elapsed() >= RESTED;
                return Some(Reused { sender: Sender::Http1(sender), rested });
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

    fn put(&self, sender: http1::SendRequest<RequestBody>) {
        let mut idle = self.idle.lock();
        if idle.len() < MOST_IDLE {
            idle.push(Idle { sender, since: CoarseInstant::now() });
        }
    }

    /// Closes connections that are closed already, or have been idle for longer than `limit`.
    pub(super) fn sweep(&self, limit: Duration) {
        self.idle.lock().retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < limit);
    }
}

const MOST_IDLE: usize = 256;
/// Far below the idle time of any server; under load, connections rest for less.
const RESTED: Duration = Duration::from_millis(10);
