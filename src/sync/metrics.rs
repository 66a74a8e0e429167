//! What sharing shows to Prometheus.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The part's metrics.
#[derive(Debug)]
pub struct Metrics {
    pub(super) connected: IntGauge,
    pub(super) last_answer: Gauge,
    pub(super) failures: IntCounter,
    pub(super) lag: Gauge,
    pub(super) published: IntCounter,
    pub(super) received: IntCounter,
    pub(super) malformed: IntCounter,
    pub(super) replaced: IntCounter,
}

impl Metrics {
    /// Registered, and at 0; also where nothing is shared.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let events = Opts::new("tollgate_revocation_events_total", "Revocations exchanged with Redis, by outcome.");
        let events = IntCounterVec::new(events, &["outcome"])?;
        registry.register(Box::new(events.clone()))?;
        let metrics = Self {
            connected: IntGauge::new("tollgate_shared_connected", "Whether Redis is connected.")?,
            last_answer: Gauge::new(
                "tollgate_shared_last_answer_timestamp_seconds",
                "When Redis answered last, in Unix time; 0 if it never did.",
            )?,
            failures: IntCounter::new(
                "tollgate_shared_failures_total",
                "Connections and writes to Redis that failed.",
            )?,
            lag: Gauge::new(
                "tollgate_revocation_lag_seconds",
                "Time from the writing of the last revocation read in Redis to its being in force here.",
            )?,
            published: events.with_label_values(&["published"]),
            received: events.with_label_values(&["received"]),
            malformed: events.with_label_values(&["malformed"]),
            replaced: events.with_label_values(&["replaced"]),
        };
        registry.register(Box::new(metrics.connected.clone()))?;
        registry.register(Box::new(metrics.last_answer.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.lag.clone()))?;
        Ok(metrics)
    }
}
