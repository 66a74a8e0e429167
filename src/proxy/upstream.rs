//! Upstreams as one worker sees them: which one's turn it is, and the pool behind it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderValue, Uri, uri};
use parking_lot::Mutex;

use super::{
    connect::Tls,
    pool::{Key, Pool},
};
use crate::store::{Upstream, UpstreamScheme};

/// One worker's connections to all upstreams.
#[derive(Debug)]
pub(super) struct Upstreams {
    tls: Tls,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    /// By the address of the configured upstream: a `Weak` keeps it from being used again.
    ways: HashMap<usize, Arc<Way>>,
    pools: HashMap<Key, Arc<Pool>>,
}

/// The way to one configured upstream.
#[derive(Debug)]
pub(super) struct Way {
    upstream: Weak<Upstream>,
    pub(super) scheme: UpstreamScheme,
    /// `Host` to send.
    pub(super) host: Option<HeaderValue>,
    authority: Option<uri::Authority>,
    pub(super) base_path: Box<str>,
    pub(super) pool: Arc<Pool>,
    /// A sweep has found its upstream gone from the tables.
    gone: AtomicBool,
}

impl Upstreams {
    pub(super) fn new(tls: Tls) -> Self {
        Self { tls, tables: Mutex::default() }
    }

    /// The ways to try, in order: whose turn it is, then the others.
    pub(super) fn in_turn<'a>(&'a self, list: &'a [Arc<Upstream>]) -> impl Iterator<Item = Arc<Way>> + Send + 'a {
        let first = match list {
            [] => 0,
            [_] => 0,
            [first, ..] => self.way(first).pool.turn.fetch_add(1, Relaxed) % list.len(),
        };
        list[first..].iter().chain(&list[..first]).map(|upstream| self.way(upstream))
    }

    fn way(&self, upstream: &Arc<Upstream>) -> Arc<Way> {
        let mut tables = self.tables.lock();
        let Tables { ways, pools } = &mut *tables;
        let address = Arc::as_ptr(upstream).addr();
        if let Some(way) = ways.get(&address) {
            return way.clone();
        }
        let key = Key::from(&**upstream);
        let pool = pools.entry(key.clone()).or_insert_with(|| Arc::new(Pool::new(key, self.tls.clone())));
        let way = Arc::new(Way::new(upstream, pool.clone()));
        ways.insert(address, way.clone());
        way
    }

    /// Closes what has been idle for longer than `limit`, and forgets upstreams that are in no tables any more.
    /// Called about once a `limit`.
    pub(super) fn sweep(&self, limit: Duration) {
        let mut tables = self.tables.lock();
        let Tables { ways, pools } = &mut *tables;
        ways.retain(|_, way| way.upstream.strong_count() > 0 || !way.gone.swap(true, Relaxed));
        pools.retain(|_, pool| {
            pool.sweep(limit);
            Arc::strong_count(pool) > 1
        });
    }
}

impl Way {
    fn new(upstream: &Arc<Upstream>, pool: Arc<Pool>) -> Self {
        Self {
            upstream: Arc::downgrade(upstream),
            scheme: upstream.scheme,
            host: HeaderValue::from_str(&upstream.authority).ok().filter(|host| !host.is_empty()),
            authority: upstream.authority.parse().ok(),
            base_path: upstream.base_path.clone(),
            pool,
            gone: AtomicBool::new(false),
        }
    }

    /// The target of an HTTP/2 request: `path` with scheme and authority, the client's when that is preserved.
    pub(super) fn absolute(&self, path: uri::PathAndQuery, preserved: Option<&HeaderValue>) -> Option<Uri> {
        let mut parts = uri::Parts::default();
        let https = self.scheme == UpstreamScheme::Https;
        parts.scheme = Some(if https { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
        parts.authority =
            preserved.and_then(|host| host.to_str().ok()?.parse().ok()).or_else(|| self.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).ok()
    }
}
