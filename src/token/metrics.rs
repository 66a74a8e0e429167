//! What tokens and keys show to Prometheus. Handles are resolved once; labels are bounded.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::{Flaw, IntrospectError, keys::FetchError};
use crate::telemetry::{Counter, CounterVec};

/// The part's metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) tokens: CacheCounters,
    pub(super) negative: CacheCounters,
    verified: IntCounter,
    unavailable: IntCounter,
    refused: [IntCounter; Flaw::ALL.len()],
    flooded: IntCounter,
    shed: IntCounter,
    /// Requests that wait for a signature check.
    pub(super) waiting: IntGauge,
    fetches: IntCounterVec,
    keys: IntGaugeVec,
    calls: IntCounterVec,
}

/// What is counted of one key manager.
#[derive(Debug)]
pub(super) struct IssuerCounters {
    pub(super) fetches: FetchCounters,
    pub(super) calls: CallCounters,
}

/// Look-ups of one cache by outcome.
#[derive(Debug)]
pub(super) struct CacheCounters {
    pub(super) hit: Counter,
    pub(super) miss: Counter,
    /// Found, and no good any more: expired, its keys too old, its key or key manager gone.
    pub(super) outdated: Counter,
}

/// Calls about tokens to one key manager's provider, by outcome; none where nobody is asked.
#[derive(Debug)]
pub(super) struct CallCounters(Vec<(&'static str, IntCounter)>);

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
        let lookups = Opts::new("tollgate_cache_lookups_total", "Look-ups by cache and outcome.");
        let lookups = CounterVec::new(lookups, &["cache", "outcome"])?;
        let verifications =
            counters("tollgate_token_verifications_total", "Tokens judged at first sight, by outcome.", &["outcome"])?;
        let fetches =
            counters("tollgate_jwks_fetches_total", "Fetches of key sets by outcome.", &["key_manager", "outcome"])?;
        let calls = counters(
            "tollgate_introspections_total",
            "Calls to providers about tokens, by outcome.",
            &["key_manager", "outcome"],
        )?;
        registry.register(Box::new(calls.clone()))?;
        registry.register(Box::new(lookups.clone()))?;
        registry.register(Box::new(verifications.clone()))?;
        let waiting = IntGauge::new(
            "tollgate_token_verifications_waiting",
            "Requests with new tokens that wait for a signature check.",
        )?;
        registry.register(Box::new(waiting.clone()))?;
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
            flooded: verifications.with_label_values(&["flooded"]),
            shed: verifications.with_label_values(&["shed"]),
            waiting,
            fetches,
            keys,
            calls,
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

    /// A token was not asked about, since its client has brought too many bad ones.
    pub(super) fn flooded(&self) {
        self.flooded.inc();
    }

    /// A token was not judged, since too many new ones wait for it.
    pub(super) fn shed(&self) {
        self.shed.inc();
    }

    /// The counters of one key manager, at 0 if new; `asked`: whether its provider is asked about tokens.
    pub(super) fn issuer(&self, key_manager: &Arc<str>, asked: bool) -> IssuerCounters {
        let call = |label: &&'static str| (*label, self.calls.with_label_values(&[&**key_manager, label]));
        let outcomes = ANSWERS.iter().chain(&IntrospectError::LABELS).filter(|_| asked);
        IssuerCounters { fetches: self.fetches(key_manager), calls: CallCounters(outcomes.map(call).collect()) }
    }

    fn fetches(&self, key_manager: &Arc<str>) -> FetchCounters {
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

impl CallCounters {
    pub(super) fn count(&self, outcome: &str) {
        if let Some((_, counter)) = self.0.iter().find(|(label, _)| *label == outcome) {
            counter.inc();
        }
    }
}

/// Outcomes of calls that were answered.
const ANSWERS: [&str; 3] = ["active", "inactive", "refused"];

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}
