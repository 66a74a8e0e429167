//! What tokens and keys show to Prometheus. Handles are resolved once; labels are bounded.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::{Flaw, keys::FetchError};

/// The part's metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) tokens: CacheCounters,
    pub(super) negative: CacheCounters,
    verified: IntCounter,
    unavailable: IntCounter,
    refused: [IntCounter; Flaw::ALL.len()],
    fetches: IntCounterVec,
    keys: IntGaugeVec,
}

/// Look-ups of one cache by outcome.
#[derive(Debug)]
pub(super) struct CacheCounters {
    pub(super) hit: IntCounter,
    pub(super) miss: IntCounter,
    /// Found, and no good any more: expired, its keys too old, its key or key manager gone.
    pub(super) outdated: IntCounter,
}

/// Fetches of one key manager's keys, by outcome, and what is in the set.
#[derive(Debug)]
pub(super) struct FetchCounters {
    outcomes: Vec<(&'static str, IntCounter)>,
    usable: IntGauge,
    skipped: IntGauge,
}

impl Metrics {
    /// Registered, and at 0.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let lookups =
            counters("tollgate_cache_lookups_total", "Look-ups by cache and outcome.", &["cache", "outcome"])?;
        let verifications =
            counters("tollgate_token_verifications_total", "Tokens judged at first sight, by outcome.", &["outcome"])?;
        let fetches =
            counters("tollgate_jwks_fetches_total", "Fetches of key sets by outcome.", &["key_manager", "outcome"])?;
        registry.register(Box::new(lookups.clone()))?;
        registry.register(Box::new(verifications.clone()))?;
        let keys = Opts::new("tollgate_jwks_keys", "Keys in the set in force: usable, or skipped as of no use here.");
        let keys = IntGaugeVec::new(keys, &["key_manager", "use"])?;
        registry.register(Box::new(fetches.clone()))?;
        registry.register(Box::new(keys.clone()))?;
        let cache = |name: &str| CacheCounters {
            hit: lookups.with_label_values(&[name, "hit"]),
            miss: lookups.with_label_values(&[name, "miss"]),
            outdated: lookups.with_label_values(&[name, "outdated"]),
        };
        Ok(Self {
            tokens: cache("tokens"),
            negative: cache("negative"),
            verified: verifications.with_label_values(&["ok"]),
            unavailable: verifications.with_label_values(&["unavailable"]),
            refused: Flaw::ALL.map(|flaw| verifications.with_label_values(&[flaw.label()])),
            fetches,
            keys,
        })
    }

    /// A token has been judged at first sight.
    pub(super) fn judged(&self) {
        self.verified.inc();
    }

    #[cfg(test)]
    pub(super) fn count_verified(&self) -> u64 {
        self.verified.get()
    }

    /// A token has been refused at first sight.
    pub(super) fn refused(&self, flaw: Flaw) {
        self.refused[flaw as usize].inc();
    }

    /// A token could not be judged.
    pub(super) fn unavailable(&self) {
        self.unavailable.inc();
    }

    /// The counters of one key manager, at 0 if new.
    pub(super) fn fetches(&self, key_manager: &Arc<str>) -> FetchCounters {
        let counter = |label| (label, self.fetches.with_label_values(&[&**key_manager, label]));
        let keys = |label| self.keys.with_label_values(&[&**key_manager, label]);
        FetchCounters {
            outcomes: FetchError::LABELS.map(counter).into(),
            usable: keys("usable"),
            skipped: keys("skipped"),
        }
    }
}

impl FetchCounters {
    pub(super) fn count(&self, outcome: &str) {
        if let Some((_, counter)) = self.outcomes.iter().find(|(label, _)| *label == outcome) {
            counter.inc();
        }
    }

    /// A set is in force with so many keys that are of use, and so many that are not.
    pub(super) fn holds(&self, usable: usize, skipped: usize) {
        self.usable.set(i64::try_from(usable).unwrap_or(i64::MAX));
        self.skipped.set(i64::try_from(skipped).unwrap_or(i64::MAX));
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}
