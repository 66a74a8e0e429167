//! What shared counters show to Prometheus.

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// The part's metrics.
#[derive(Debug)]
pub struct Metrics {
    pub(super) available: IntGauge,
    pub(super) clock_ahead: Gauge,
    pub(super) exchange_duration: Histogram,
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
        let clock_ahead = Gauge::new(
            "tollgate_shared_counters_clock_ahead_seconds",
            "By how much the clock that names windows is ahead of Redis's, by its last answer.",
        )?;
        registry.register(Box::new(clock_ahead.clone()))?;
        let exchange_duration = Histogram::with_opts(
            HistogramOpts::new(
                "tollgate_shared_counters_exchange_duration_seconds",
                "Time of exchanges with Redis about counters, on which the bound of mode batched depends.",
            )
            .buckets(vec![0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0]),
        )?;
        registry.register(Box::new(exchange_duration.clone()))?;
        Ok(Self {
            available,
            clock_ahead,
            exchange_duration,
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
