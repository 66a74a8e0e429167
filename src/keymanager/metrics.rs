//! What the operations show to Prometheus.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

use super::Operation;

/// The engine's metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    operations: IntCounterVec,
    duration: HistogramVec,
    /// What waits to be done at providers.
    pub(super) pending: IntGauge,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let operations = Opts::new(
            "tollgate_keymanager_operations_total",
            "Operations of key managers, by operation, connector and outcome.",
        );
        let duration = HistogramOpts::new(
            "tollgate_keymanager_operation_duration_seconds",
            "Time an operation took, the provider's and the record's share included.",
        );
        let duration = duration.buckets(vec![0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]);
        let metrics = Self {
            operations: IntCounterVec::new(operations, &["operation", "connector", "outcome"])?,
            duration: HistogramVec::new(duration, &["operation"])?,
            pending: IntGauge::new(
                "tollgate_keymanager_pending",
                "Changes that wait to be made at a provider, or to be cleared up by hand.",
            )?,
        };
        registry.register(Box::new(metrics.operations.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.pending.clone()))?;
        Ok(metrics)
    }

    pub(super) fn count(&self, operation: Operation, connector: &str, outcome: &str, took: Duration) {
        self.operations.with_label_values(&[operation.name(), connector, outcome]).inc();
        self.duration.with_label_values(&[operation.name()]).observe(took.as_secs_f64());
    }
}
