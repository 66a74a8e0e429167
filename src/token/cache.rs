//! What is remembered of tokens: facts about good ones, and for a few seconds that one is no good.
//!
//! A token's text is not kept: it is known by its digest, and by the key managers that were asked. Whether what is
//! remembered still holds is judged on every hit.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use quick_cache::{
    OptionsBuilder, Weighter,
    sync::{Cache as Bounded, DefaultLifecycle},
};

use super::{
    Flaw, Identity, Issuer,
    claims::Validity,
    common::{Commons, value_bytes},
    digest::{Digest, Spread},
    jwks::Key,
    metrics::Metrics,
    settings::CacheSettings,
};
use crate::net::Now;

/// The caches.
#[derive(Debug)]
pub(super) struct Cache {
    good: Kept<Entry>,
    bad: Kept<Bad>,
    pub(super) commons: Commons,
    /// Held while a token is verified; which one, says its digest.
    verifying: [Mutex<()>; LOCKS],
    negative_ttl_ms: AtomicU64,
    introspection_ttl_ms: AtomicU64,
}

/// Facts by digest, within a number of bytes. A look-up shares its part of the cache with other look-ups; an insertion has
/// it alone, for as long as it takes to make room.
type Kept<T> = Bounded<Digest, Arc<T>, Weigh, Spread>;

/// What facts hold in memory beside their slot; the same as long as they are kept.
trait Weight {
    fn bytes(&self) -> usize;
}

/// Weighs what is kept.
#[derive(Debug, Clone, Copy)]
struct Weigh;

/// A good token.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) identity: Arc<Identity>,
    pub(super) validity: Validity,
    pub(super) issuer: Arc<Issuer>,
    /// The key that vouches for it; none where only its provider's answer does.
    pub(super) key: Option<Arc<Key>>,
    /// Steady time from which its provider is to be asked again; never, where it was not.
    pub(super) ask_again_ms: u64,
}

/// A token that is no good.
#[derive(Debug)]
struct Bad {
    issuer: Arc<Issuer>,
    flaw: Flaw,
    /// The version of the issuer's set whose keys did not verify it; none where the provider said no.
    keys: Option<u64>,
    /// Steady time.
    until_ms: u64,
}

/// What the cache says of a token.
#[derive(Debug)]
pub(super) enum Remembered {
    /// Good.
    Good(Arc<Identity>),
    /// No good.
    Bad(Flaw),
    /// Was good; cannot be judged now, since its issuer's keys are too old.
    Stale(Arc<Issuer>),
    /// Was good when its provider was asked last; to be asked again.
    Again,
    /// Nothing that still holds.
    Nothing,
}

impl Cache {
    pub(super) fn new(settings: &CacheSettings) -> Self {
        let shared = settings.tokens.0 / SHARED;
        let cache = Self {
            good: kept(settings.tokens.0 - shared),
            bad: kept(settings.negative.0),
            commons: Commons::new(shared),
            verifying: [const { Mutex::new(()) }; LOCKS],
            negative_ttl_ms: AtomicU64::new(0),
            introspection_ttl_ms: AtomicU64::new(0),
        };
        cache.set_times(settings);
        cache
    }

    /// How long what is learnt from now on may be used.
    pub(super) fn set_times(&self, settings: &CacheSettings) {
        self.negative_ttl_ms.store(millis(settings.negative_ttl.0), Ordering::Relaxed);
        self.introspection_ttl_ms.store(millis(settings.introspection_ttl.0), Ordering::Relaxed);
    }

    /// What is remembered and still holds.
    pub(super) fn look_up(&self, digest: &Digest, now: Now, metrics: &Metrics) -> Remembered {
        let Some(entry) = self.good.get(digest) else {
            metrics.tokens.miss.inc();
            return self.look_up_bad(digest, now, metrics);
        };
        let remembered = entry.holds(now);
        match remembered {
            Remembered::Good(_) => metrics.tokens.hit.inc(),
            // Kept: its keys may be fetched again, or its provider vouch for it again.
            Remembered::Stale(_) | Remembered::Again => metrics.tokens.outdated.inc(),
            Remembered::Bad(_) | Remembered::Nothing => {
                metrics.tokens.outdated.inc();
                self.good.remove(digest);
            }
        }
        remembered
    }

    fn look_up_bad(&self, digest: &Digest, now: Now, metrics: &Metrics) -> Remembered {
        let Some(bad) = self.bad.get(digest) else {
            metrics.negative.miss.inc();
            return Remembered::Nothing;
        };
        if bad.holds(now) {
            metrics.negative.hit.inc();
            return Remembered::Bad(bad.flaw);
        }
        metrics.negative.outdated.inc();
        self.bad.remove(digest);
        Remembered::Nothing
    }

    /// Runs `verify` once, however many threads bring the token at the same time, and remembers a good
    /// outcome. Others that share the lock wait for one verification. What another thread has remembered counts only if it still holds.
    pub(super) fn once(
        &self,
        digest: Digest,
        now: Now,
        verify: impl FnOnce() -> Result<Entry, Flaw>,
    ) -> Result<Arc<Entry>, Flaw> {
        let _verifying = self.verifying[usize::from(digest.tag[15]) % LOCKS].lock();
        let holds = |entry: &Arc<Entry>| matches!(entry.holds(now), Remembered::Good(_));
        if let Some(entry) = self.good.get(&digest).filter(holds) {
            return Ok(entry);
        }
        Ok(self.keep(digest, verify()?))
    }

    /// What is remembered and still holds, for whoever has counted the look-up before.
    pub(super) fn recall(&self, digest: &Digest, now: Now) -> Remembered {
        if let Some(entry) = self.good.get(digest) {
            return entry.holds(now);
        }
        match self.bad.get(digest).filter(|bad| bad.holds(now)) {
            Some(bad) => Remembered::Bad(bad.flaw),
            None => Remembered::Nothing,
        }
    }

    /// Remembers a token that its provider vouches for.
    pub(super) fn remember(&self, digest: Digest, entry: Entry) -> Arc<Entry> {
        // It may have been found inactive before.
        self.bad.remove(&digest);
        self.keep(digest, entry)
    }

    fn keep(&self, digest: Digest, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        self.good.insert(digest, Arc::clone(&entry));
        entry
    }

    /// Its provider does not vouch for it any more.
    pub(super) fn forget(&self, digest: &Digest) {
        self.good.remove(digest);
    }

    /// When a provider that vouches for a token now is to be asked again: never later than `exp` (seconds).
    pub(super) fn ask_again_ms(&self, exp: Option<u64>, now: Now) -> u64 {
        let ttl = self.introspection_ttl_ms.load(Ordering::Relaxed);
        let left = exp.map_or(u64::MAX, |exp| exp.saturating_mul(1000).saturating_sub(now.unix_ms));
        now.steady_ms.saturating_add(ttl.min(left))
    }

    /// How many good tokens are remembered, and the bytes they hold.
    #[cfg(test)]
    pub(super) fn size(&self) -> (u64, u64) {
        (self.good.len() as u64, self.good.weight())
    }

    /// Remembers that the signature is wrong under version `keys` of the issuer's set, or, without one, that
    /// the issuer's provider has said no.
    pub(super) fn remember_bad(&self, digest: Digest, issuer: Arc<Issuer>, flaw: Flaw, keys: Option<u64>, now: Now) {
        let until_ms = now.steady_ms.saturating_add(self.negative_ttl_ms.load(Ordering::Relaxed));
        self.bad.insert(digest, Arc::new(Bad { issuer, flaw, keys, until_ms }));
    }
}

impl Entry {
    fn holds(&self, now: Now) -> Remembered {
        let key = self.key.as_deref();
        if self.issuer.is_retired() || key.is_some_and(|key| !key.is_live()) {
            return Remembered::Nothing;
        }
        if let Err(flaw) = self.validity.judge(now) {
            return Remembered::Bad(flaw);
        }
        if now.steady_ms >= self.ask_again_ms {
            return Remembered::Again;
        }
        if key.is_some() && !self.issuer.is_fresh(now) {
            return Remembered::Stale(Arc::clone(&self.issuer));
        }
        Remembered::Good(Arc::clone(&self.identity))
    }
}

impl Weight for Entry {
    fn bytes(&self) -> usize {
        let identity = &*self.identity;
        let texts = [&identity.subject, &identity.jti];
        let values = identity.claims.iter().chain([&identity.subject_value]);
        heap(COUNTS + mem::size_of::<Self>())
            + heap(COUNTS + mem::size_of::<Identity>())
            + identity.common.weight()
            + texts.into_iter().flatten().map(|text| heap(text.len())).sum::<usize>()
            + values.flatten().map(value_bytes).sum::<usize>()
            + heap(mem::size_of_val(&*identity.claims))
            + heap(identity.inside.as_deref().map_or(0, mem::size_of_val))
    }
}

impl Bad {
    fn holds(&self, now: Now) -> bool {
        let same_keys = |version| self.issuer.keys.load().as_ref().is_some_and(|set| set.version == version);
        now.steady_ms < self.until_ms && !self.issuer.is_retired() && self.keys.is_none_or(same_keys)
    }
}

impl Weight for Bad {
    fn bytes(&self) -> usize {
        heap(COUNTS + mem::size_of::<Self>())
    }
}

impl<T: Weight> Weighter<Digest, Arc<T>> for Weigh {
    fn weight(&self, _: &Digest, facts: &Arc<T>) -> u64 {
        (SLOT + facts.bytes()) as u64
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn kept<T: Weight>(bytes: u64) -> Kept<T> {
    let likely = usize::try_from(bytes).unwrap_or(usize::MAX) / LIKELY;
    let options = OptionsBuilder::new()
        .weight_capacity(bytes)
        .estimated_items_capacity(likely)
        .ghost_allocation(GHOSTS)
        .build()
        .expect("both capacities are given");
    let kept = Bounded::with_options(options, Weigh, Spread::default(), DefaultLifecycle::default());
    // Untouched room costs nothing; growing would leave behind what was outgrown.
    kept.reserve(likely);
    kept
}

/// An allocation, with what the allocator adds.
pub(super) const fn heap(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes.next_multiple_of(16) + 8 }
}

/// Many more than threads that verify, so that different tokens hardly ever meet.
const LOCKS: usize = 128;
/// One part in so many of the room for good tokens is for what they have in common.
const SHARED: u64 = 8;
/// The two counts of an [`Arc`].
const COUNTS: usize = 2 * mem::size_of::<usize>();
/// What the cache holds for one fact and for the trace of those that were dropped: measured by `benches/cached.rs`.
const SLOT: usize = 104;
/// Bytes of a fact as they are likely to be: how many traces of dropped ones are kept follows from it.
const LIKELY: usize = 450;
const GHOSTS: f64 = 0.25;
