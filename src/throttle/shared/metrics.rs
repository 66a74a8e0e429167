//! What shared counters show to Prometheus.

use prometheus::{IntCounter, IntGauge, Registry};

/// The part's metrics.
#[derive(Debug)]
pub struct Metrics {
    pub(super) available: IntGauge,
    pub(super) round_trips: IntCounter,
    pub(super) keys: IntCounter,
    pub(super) asked: IntCounter,
    pub(super) errors: IntCounter,
    pub(super) replaced: IntCounter,
    pub(super) outage_requests: IntCounter,
}

impl Metrics {
    /// Registered, and at 0; also where nothing is shared.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let available = IntGauge::new(
            "tollgate_shared_counters_available",
            "Whether requests are counted with all sidecars; 0: by shared.on_outage.",
        )?;
        registry.register(Box::new(available.clone()))?;
        Ok(Self {
            available,
            round_trips: counter(
                "tollgate_shared_counters_round_trips_total",
                "Exchanges with Redis about counters, those of single requests aside.",
            )?,
            keys: counter("tollgate_shared_counters_keys_total", "Counters that were exchanged with Redis.")?,
            asked: counter("tollgate_shared_counters_asked_total", "Questions to Redis for which a request waited.")?,
            errors: counter(
                "tollgate_shared_counters_errors_total",
                "Exchanges and questions that failed, or were not answered in time.",
            )?,
            replaced: counter(
                "tollgate_shared_counters_replaced_total",
                "Values of another type under our keys in Redis, which were removed.",
            )?,
            outage_requests: counter(
                "tollgate_shared_counters_outage_requests_total",
                "Requests judged by shared.on_outage.",
            )?,
        })
    }
}
