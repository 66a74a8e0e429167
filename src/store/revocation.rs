//! Which tokens are revoked: by `jti`, by digest, by consumer key or by subject, each under its issuer.
//!
//! Whoever asks neither locks nor allocates; while nothing is revoked one atomic is read. What is put in
//! force here holds for all workers at once. Entries go when the tokens they are about have expired.
//!
//! Nothing is ever silently forgotten. When the table is full, an entry that finds no room is replaced by
//! a cut-off for its whole issuer: every token issued until now is refused, until the entry's own tokens
//! have expired. That refuses too much, tells so (log, `tollgate_revocations_overflowed_total`), and lets
//! nothing revoked pass. Cut-offs are this process's own: others are told the entry, and have a table of
//! their own to fill.
//!
//! A revocation "of everything before T" compares whole seconds, since `iat` has no more: a token with
//! `iat <= T` is refused, and so is one without `iat`. A token issued in the very second of the revocation
//! is thus refused even where it came after it; whoever fetches a new one a second later has a good one.
//! (WSO2 compares `revocationTime > iat` with milliseconds on the left, which is the same verdict.)

use std::{
    collections::VecDeque,
    mem,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use parking_lot::Mutex;
use prometheus::{IntGauge, Registry};
use tokio::sync::Notify;

use super::{
    TokenFacts, growing_at_once,
    revoked::{Before, CutOff, Key, Map, Metrics, later, sift, take, weight},
};
use crate::net::Clock;

/// One fact: which tokens of an issuer are no good any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// `iss` of the tokens, exactly.
    pub issuer: Box<str>,
    /// Which of its tokens.
    pub what: Revoked,
    /// Unix seconds after which no such token can be alive, leeway aside; `None`: kept until the process
    /// ends.
    pub until: Option<u64>,
}

/// Which tokens of an issuer are revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// The one with this `jti`.
    Jti(Box<str>),
    /// The one with this SHA-256.
    Token([u8; 32]),
    /// Those of an application.
    ConsumerKey {
        /// OAuth client id.
        consumer_key: Box<str>,
        /// Those issued until this Unix second, itself included; those without `iat` too.
        before: u64,
    },
    /// Those of a user.
    Subject {
        /// `sub`
        subject: Box<str>,
        /// Those issued until this Unix second, itself included; those without `iat` too.
        before: u64,
    },
}

/// What was revoked here and is not yet with the others.
#[derive(Debug, PartialEq, Eq)]
pub enum Pending {
    /// These, in their order.
    These(Vec<Revocation>),
    /// More than was kept: the whole table is to be told.
    Everything,
}

/// The table.
#[derive(Debug)]
pub struct Revocations {
    issuers: Map<Box<str>, Issuer>,
    /// Entries and cut-offs. Raised before one is put in, lowered after it is gone.
    live: AtomicU64,
    /// For issuers that found no room.
    everyone: CutOff,
    /// Held while something changes; never by who asks.
    books: Mutex<Books>,
    waiting: Notify,
    /// Seconds that a token may live beyond its `exp`.
    leeway_s: AtomicU64,
    clock: Clock,
    limits: Limits,
    metrics: Metrics,
}

/// What is revoked of one issuer. The values are when the entry may go.
#[derive(Debug)]
struct Issuer {
    jtis: Map<Box<str>, u64>,
    tokens: Map<[u8; 32], u64>,
    consumer_keys: Map<Box<str>, Before>,
    subjects: Map<Box<str>, Before>,
    everything: CutOff,
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            jtis: growing_at_once(),
            tokens: growing_at_once(),
            consumer_keys: growing_at_once(),
            subjects: growing_at_once(),
            everything: CutOff::default(),
        }
    }
}

#[derive(Debug)]
struct Books {
    /// Bytes of all entries, about.
    weight: usize,
    /// No entry may go before this second.
    soonest: u64,
    /// Whether somebody takes what is queued.
    shared: bool,
    queue: VecDeque<Revocation>,
    /// The queue was full.
    everything: bool,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    weight: usize,
    issuers: usize,
    queue: usize,
}

impl Default for Revocations {
    fn default() -> Self {
        Self::with_limits(LIMITS)
    }
}

impl Revocations {
    /// Shows the table to Prometheus.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.metrics.live.clone()))?;
        registry.register(Box::new(self.metrics.overflowed.clone()))
    }

    /// Puts it in force on all workers at once, and hands it to whoever shares it.
    pub fn revoke(&self, revocation: Revocation) {
        let mut books = self.books.lock();
        self.put(&revocation, &mut books);
        if !books.shared {
            return;
        }
        if books.queue.len() < self.limits.queue {
            books.queue.push_back(revocation);
        } else {
            books.everything = true;
        }
        drop(books);
        self.waiting.notify_one();
    }

    /// Puts in force one that was learnt from elsewhere.
    pub fn learn(&self, revocation: Revocation) {
        self.put(&revocation, &mut self.books.lock());
    }

    /// Whether a token with these facts is revoked. Nothing is locked, nothing allocated; nearly free while
    /// there are none.
    #[inline]
    pub fn is_revoked(&self, token: &TokenFacts<'_>) -> bool {
        self.live.load(Acquire) != 0 && self.lists(token)
    }

    fn lists(&self, token: &TokenFacts<'_>) -> bool {
        if self.everyone.refuses(token.issued_at) {
            return true;
        }
        let issuers = self.issuers.pin();
        let Some(issuer) = issuers.get(token.issuer) else { return false };
        let before = |map: &Map<Box<str>, Before>, key: Option<&str>| {
            key.is_some_and(|key| map.pin().get(key).is_some_and(|it| it.refuses(token.issued_at)))
        };
        issuer.everything.refuses(token.issued_at)
            || token.jti.is_some_and(|jti| issuer.jtis.pin().contains_key(jti))
            || token.token_sha256.is_some_and(|digest| digest.is_in(&issuer.tokens))
            || before(&issuer.consumer_keys, token.consumer_key)
            || before(&issuer.subjects, token.subject)
            || before(&issuer.subjects, token.own_subject)
    }

    /// Entries are kept this much longer than their `until`: the longest leeway of any key manager. Never
    /// less than it was.
    pub fn outlast(&self, leeway_s: u64) {
        self.leeway_s.fetch_max(leeway_s, Relaxed);
    }

    /// From now on what is revoked here is kept for [`Self::pending`].
    pub fn share(&self) {
        self.books.lock().shared = true;
    }

    /// Whether others are told what is revoked here.
    pub fn is_shared(&self) -> bool {
        self.books.lock().shared
    }

    /// Lets an entry go before its time, on all workers at once. Nothing is told to others; a cut-off in its place, where
    /// it had found no room, stays.
    pub fn lift(&self, revocation: &Revocation) {
        let mut books = self.books.lock();
        let issuers = self.issuers.pin();
        let Some(issuer) = issuers.get(&revocation.issuer) else { return };
        let metrics = &self.metrics;
        let freed = match &revocation.what {
            Revoked::Jti(jti) => take(&issuer.jtis, &metrics.jtis, jti),
            Revoked::Token(digest) => take(&issuer.tokens, &metrics.tokens, digest),
            Revoked::ConsumerKey { consumer_key, .. } => {
                take(&issuer.consumer_keys, &metrics.consumer_keys, consumer_key)
            }
            Revoked::Subject { subject, .. } => take(&issuer.subjects, &metrics.subjects, subject),
        };
        if let Some(freed) = freed {
            self.live.fetch_sub(1, Release);
            books.weight = books.weight.saturating_sub(freed);
        }
    }

    /// Waits for something that was revoked here, and takes it. What is taken and then not told is to be
    /// told with the whole table.
    pub async fn pending(&self) -> Pending {
        loop {
            {
                let mut books = self.books.lock();
                if mem::take(&mut books.everything) {
                    books.queue.clear();
                    return Pending::Everything;
                }
                if !books.queue.is_empty() {
                    return Pending::These(mem::take(&mut books.queue).into());
                }
            }
            self.waiting.notified().await;
        }
    }

    /// Every entry in force, cut-offs aside, handed to `each` in no order.
    pub fn for_each(&self, mut each: impl FnMut(Revocation)) {
        for (name, issuer) in &self.issuers.pin() {
            let mut tell = |what, until| {
                let until = Some(until).filter(|until| *until != FOREVER);
                each(Revocation { issuer: name.clone(), what, until });
            };
            issuer.jtis.pin().iter().for_each(|(jti, until)| tell(Revoked::Jti(jti.clone()), *until));
            issuer.tokens.pin().iter().for_each(|(digest, until)| tell(Revoked::Token(*digest), *until));
            for (key, it) in &issuer.consumer_keys.pin() {
                tell(Revoked::ConsumerKey { consumer_key: key.clone(), before: it.before }, it.until);
            }
            for (key, it) in &issuer.subjects.pin() {
                tell(Revoked::Subject { subject: key.clone(), before: it.before }, it.until);
            }
        }
    }

    /// Lets go what can concern no living token. To be called now and then; mostly there is nothing to do.
    pub fn sweep(&self) {
        let now = self.clock.now().unix();
        let mut books = self.books.lock();
        if now <= self.kept_until(books.soonest) {
            return;
        }
        let gone = |until: u64| now > self.kept_until(until);
        let (mut soonest, mut freed) = (FOREVER, 0);
        let (metrics, mut count) = (&self.metrics, 0);
        for issuer in self.issuers.pin().values() {
            let mut keep = |until: u64, weight: usize| {
                if gone(until) {
                    freed += weight;
                    return false;
                }
                soonest = soonest.min(until);
                true
            };
            count += sift(&issuer.jtis, &metrics.jtis, |key, until| keep(*until, weight(key.len())));
            count += sift(&issuer.tokens, &metrics.tokens, |key, until| keep(*until, weight(key.len())));
            count += sift(&issuer.consumer_keys, &metrics.consumer_keys, |k, it| keep(it.until, weight(k.len())));
            count += sift(&issuer.subjects, &metrics.subjects, |k, it| keep(it.until, weight(k.len())));
            count += self.end(&issuer.everything, gone, &mut soonest);
        }
        count += self.end(&self.everyone, gone, &mut soonest);
        self.live.fetch_sub(count, Release);
        books.weight = books.weight.saturating_sub(freed);
        books.soonest = soonest;
    }

    /// Ends a cut-off whose time is over: how many that are.
    fn end(&self, cut_off: &CutOff, gone: impl Fn(u64) -> bool, soonest: &mut u64) -> u64 {
        let until = cut_off.until.load(Relaxed);
        if cut_off.beyond.load(Relaxed) == 0 {
            return 0;
        }
        if !gone(until) {
            *soonest = (*soonest).min(until);
            return 0;
        }
        cut_off.beyond.store(0, Release);
        self.metrics.cut_offs.dec();
        1
    }

    fn put(&self, revocation: &Revocation, books: &mut Books) {
        let until = revocation.until.unwrap_or(FOREVER);
        if self.clock.now().unix() > self.kept_until(until) {
            return;
        }
        books.soonest = books.soonest.min(until);
        let issuers = self.issuers.pin();
        let known = issuers.get(&revocation.issuer);
        if known.is_none() && issuers.len() >= self.limits.issuers {
            return self.cut_off(&self.everyone, revocation, until);
        }
        let issuer = known.unwrap_or_else(|| issuers.get_or_insert_with(revocation.issuer.clone(), Issuer::default));
        let room = self.limits.weight.saturating_sub(books.weight);
        let metrics = &self.metrics;
        let put = match &revocation.what {
            Revoked::Jti(jti) => self.merge(&issuer.jtis, &metrics.jtis, (jti, until), room, later),
            Revoked::Token(digest) => self.merge(&issuer.tokens, &metrics.tokens, (digest, until), room, later),
            Revoked::ConsumerKey { consumer_key, before } => {
                let entry = (consumer_key, Before { before: *before, until });
                self.merge(&issuer.consumer_keys, &metrics.consumer_keys, entry, room, Before::or)
            }
            Revoked::Subject { subject, before } => {
                let entry = (subject, Before { before: *before, until });
                self.merge(&issuer.subjects, &metrics.subjects, entry, room, Before::or)
            }
        };
        match put {
            Put::New(weight) => books.weight += weight,
            Put::Merged => {}
            Put::NoRoom => self.cut_off(&issuer.everything, revocation, until),
        }
    }

    /// Puts an entry in, together with what is there under its key.
    fn merge<K: Key, V: Copy>(
        &self,
        map: &Map<K, V>,
        gauge: &IntGauge,
        (key, value): (&K, V),
        room: usize,
        join: impl Fn(V, V) -> V,
    ) -> Put {
        let map = map.pin();
        if let Some(present) = map.get(key) {
            map.insert(key.clone(), join(*present, value));
            return Put::Merged;
        }
        let weight = weight(key.length());
        if weight > room {
            return Put::NoRoom;
        }
        self.live.fetch_add(1, Release);
        map.insert(key.clone(), value);
        gauge.inc();
        Put::New(weight)
    }

    /// Refuses everything issued until now, in place of an entry that finds no room.
    fn cut_off(&self, cut_off: &CutOff, revocation: &Revocation, until: u64) {
        let before = match revocation.what {
            Revoked::ConsumerKey { before, .. } | Revoked::Subject { before, .. } => before,
            Revoked::Jti(_) | Revoked::Token(_) => 0,
        };
        // An issuer's clock may be ahead of ours by the leeway.
        let now = self.clock.now().unix().saturating_add(self.leeway_s.load(Relaxed));
        self.metrics.overflowed.inc();
        if cut_off.beyond.load(Relaxed) == 0 {
            tracing::error!(
                issuer = revocation.issuer,
                "the table of revocations is full: all tokens issued until now are refused instead"
            );
            self.live.fetch_add(1, Release);
            self.metrics.cut_offs.inc();
        }
        cut_off.until.fetch_max(until, Relaxed);
        cut_off.beyond.fetch_max(before.max(now).saturating_add(1), Release);
    }

    fn kept_until(&self, until: u64) -> u64 {
        until.saturating_add(self.leeway_s.load(Relaxed)).saturating_add(SPARE_S)
    }

    fn with_limits(limits: Limits) -> Self {
        Self {
            issuers: growing_at_once(),
            live: AtomicU64::new(0),
            everyone: CutOff::default(),
            books: Mutex::new(Books {
                weight: 0,
                soonest: FOREVER,
                shared: false,
                queue: VecDeque::new(),
                everything: false,
            }),
            waiting: Notify::new(),
            leeway_s: AtomicU64::new(0),
            clock: Clock::new(),
            limits,
            metrics: Metrics::new(),
        }
    }
}

/// What became of an entry.
enum Put {
    /// Not there before; so many bytes.
    New(usize),
    Merged,
    NoRoom,
}

const FOREVER: u64 = u64::MAX;

/// Clocks differ: entries are kept so much longer.
const SPARE_S: u64 = 60;

/// 128 MiB are about a million entries.
const LIMITS: Limits = Limits { weight: 128 << 20, issuers: 1024, queue: 10_000 };

#[cfg(test)]
#[path = "revocation_tests.rs"]
mod tests;
