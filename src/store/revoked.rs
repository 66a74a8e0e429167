//! What the table of revocations is made of: its maps, the dates in them, its metrics.

use std::sync::atomic::{AtomicU64, Ordering::Acquire};

use hashbrown::DefaultHashBuilder;
use papaya::HashMap;
use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts};

pub(super) type Map<K, V> = HashMap<K, V, DefaultHashBuilder>;

/// Tokens issued until `before` are refused; the entry may go after `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) before: u64,
    pub(super) until: u64,
}

/// A [`Before`] that may not be there.
#[derive(Debug, Default)]
pub(super) struct CutOff {
    /// One more than `Before::before`; 0: there is none.
    pub(super) beyond: AtomicU64,
    pub(super) until: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) live: IntGaugeVec,
    pub(super) jtis: IntGauge,
    pub(super) tokens: IntGauge,
    pub(super) consumer_keys: IntGauge,
    pub(super) subjects: IntGauge,
    pub(super) cut_offs: IntGauge,
    pub(super) overflowed: IntCounter,
}

/// What entries are found by.
pub(super) trait Key: Clone + Eq + std::hash::Hash {
    fn length(&self) -> usize;
}

impl Key for Box<str> {
    fn length(&self) -> usize {
        self.len()
    }
}

impl Key for [u8; 32] {
    fn length(&self) -> usize {
        self.len()
    }
}

impl Before {
    pub(super) const fn refuses(self, issued_at: Option<u64>) -> bool {
        match issued_at {
            Some(issued_at) => issued_at <= self.before,
            None => true,
        }
    }

    /// What refuses whatever one of them refuses.
    pub(super) fn or(self, other: Self) -> Self {
        Self { before: self.before.max(other.before), until: self.until.max(other.until) }
    }
}

impl CutOff {
    pub(super) fn refuses(&self, issued_at: Option<u64>) -> bool {
        let beyond = self.beyond.load(Acquire);
        beyond != 0 && issued_at.is_none_or(|issued_at| issued_at < beyond)
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        let live = Opts::new("tollgate_revocations", "Revocations in force, by what they are about.");
        let live = IntGaugeVec::new(live, &["kind"]).expect(CONSTANT);
        let overflowed = "Revocations that found no room and became a cut-off for their issuer.";
        Self {
            jtis: live.with_label_values(&["jti"]),
            tokens: live.with_label_values(&["token"]),
            consumer_keys: live.with_label_values(&["consumer_key"]),
            subjects: live.with_label_values(&["subject"]),
            cut_offs: live.with_label_values(&["cut_off"]),
            overflowed: IntCounter::new("tollgate_revocations_overflowed_total", overflowed).expect(CONSTANT),
            live,
        }
    }
}

/// Removes what is not kept: how many.
pub(super) fn sift<K: Key, V>(map: &Map<K, V>, gauge: &IntGauge, mut keep: impl FnMut(&K, &V) -> bool) -> u64 {
    let mut gone = 0;
    map.pin().retain(|key, value| {
        let keep = keep(key, value);
        gone += u64::from(!keep);
        keep
    });
    gauge.sub(gone.cast_signed());
    gone
}

/// Removes an entry: how many bytes it had, about.
pub(super) fn take<K: Key, V>(map: &Map<K, V>, gauge: &IntGauge, key: &K) -> Option<usize> {
    map.pin().remove(key)?;
    gauge.dec();
    Some(weight(key.length()))
}

pub(super) fn later(a: u64, b: u64) -> u64 {
    a.max(b)
}

/// Bytes of an entry, about: its key, the value, and what the map needs around them.
pub(super) const fn weight(key: usize) -> usize {
    key + 96
}

const CONSTANT: &str = "a constant name";
