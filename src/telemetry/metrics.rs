//! Every metric of the process, in one struct. Labels come from enums and configured names only; never
//! from a request, so that no client can make a series.
//!
//! What has a fixed set of labels is resolved once and starts at 0; what is counted for every request
//! ([`Metrics::count_request`]) is resolved at first use and then costs one addition in a cell of the worker's own.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    PullingGauge, Registry, TextEncoder,
    core::{Atomic, Collector, GenericCounterVec},
};

use super::{
    cells::{BOUNDS, Counter, CounterVec, Times},
    process::ProcessCollector,
};

/// All metrics. One for the process.
#[derive(Debug)]
pub struct Metrics {
    /// What `/metrics` shows.
    pub registry: Registry,
    /// Time `Authorizer::check` took.
    pub check_duration: Times,
    /// Access lines that were dropped because the writer could not keep up.
    pub access_lines_dropped: IntCounter,
    /// Answers that did not tell how many tokens they used, where a tier counts them.
    pub tokens_unknown: IntCounter,
    /// Requests that passed beyond the quota or the burst of a tier that does not stop.
    pub over_quota: IntCounter,

    requests: CounterVec,
    throttled: IntCounterVec,
    step_duration: HistogramVec,
    /// Each step's, resolved at first use.
    steps: [OnceLock<Histogram>; STEPS],
    /// Whether the label `api` has a value; see [`Metrics::set_api_count`].
    name_apis: AtomicBool,
    connections_open: Vec<IntGauge>,
    connection_errors: Vec<IntCounter>,
    upstream_errors: Vec<IntCounter>,
    reloads: Vec<IntCounter>,
    jwks_age: GaugeVec,
    circuits: IntGaugeVec,
    start: Instant,
    /// When the present tables were put in place, milliseconds after `start`.
    tables_since_ms: Arc<AtomicU64>,
}

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The reverse proxy.
    Proxy,
}

/// Counters of one API, resolved at first use: index 0 is granted, the others are
/// `authz::Denial::reason_index`.
#[derive(Debug, Default)]
pub struct ApiCounters {
    /// [`REASONS`] places for each door; made at the API's first request, since many never get one.
    places: OnceLock<Box<[OnceLock<Counter>]>>,
}

/// Why a connection of a client failed. Bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ConnectionError {
    Parse,
    HeaderTimeout,
    IdleTimeout,
    BodyTimeout,
    TlsHandshake,
    Http2,
    Reset,
    TooMany,
    Other,
}

/// Why an exchange with an upstream failed. Bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamError {
    /// No connection could be made: name, address or TLS.
    Connect,
    /// The connection broke before the response was whole.
    Reset,
    /// A timeout ran out.
    Timeout,
    /// What the upstream says is not HTTP.
    Protocol,
}

/// An open connection of a client: counted in `tollgate_connections_open` until dropped.
#[derive(Debug)]
#[must_use = "dropped, it counts as closed"]
pub struct OpenConnection(IntGauge);

impl Metrics {
    /// One more request that found no room in a tier: its name is a configured one.
    pub fn count_throttled(&self, level: &str, tier: &str) {
        self.throttled.with_label_values(&[level, tier]).inc();
    }

    /// All metrics, registered and at 0.
    pub fn new() -> Self {
        let registry = Registry::new();
        let start = Instant::now();
        let tables_since_ms = Arc::new(AtomicU64::new(0));
        register(&registry, snapshot_age(start, Arc::clone(&tables_since_ms)));
        register(&registry, ProcessCollector::new());
        gauges(&registry, "build_info", "Always 1; the label says what runs.", "version")
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let requests = counters(
            &registry,
            "requests_total",
            "Requests by outcome and reason.",
            &["door", "api", "outcome", "reason"],
        );
        let connections_open = gauges(&registry, "connections_open", "Open connections of clients.", "door");
        let connection_errors: IntCounterVec =
            counters(&registry, "connection_errors_total", "Connections of clients that failed.", &["reason"]);
        let upstream_errors: IntCounterVec =
            counters(&registry, "upstream_errors_total", "Exchanges with upstreams that failed.", &["reason"]);
        let reloads: IntCounterVec =
            counters(&registry, "config_reloads_total", "Reloads of the configuration.", &["outcome"]);
        Self {
            check_duration: check_duration(&registry),
            step_duration: step_duration(&registry),
            steps: Default::default(),
            access_lines_dropped: access_lines_dropped(&registry),
            tokens_unknown: tokens_unknown(&registry),
            over_quota: over_quota(&registry),
            requests,
            throttled: counters(
                &registry,
                "throttled_total",
                "Requests that found no room, by level and the tier's name; made when first counted.",
                &["level", "tier"],
            ),
            name_apis: AtomicBool::new(true),
            connections_open: Door::ALL.map(|door| connections_open.with_label_values(&[door.label()])).into(),
            connection_errors: ConnectionError::ALL
                .map(|reason| connection_errors.with_label_values(&[reason.label()]))
                .into(),
            upstream_errors: UpstreamError::ALL
                .map(|reason| upstream_errors.with_label_values(&[reason.label()]))
                .into(),
            reloads: ["failed", "ok"].map(|outcome| reloads.with_label_values(&[outcome])).into(),
            jwks_age: jwks_age(&registry),
            circuits: gauges(
                &registry,
                "introspection_circuit",
                "Whether a provider is asked about tokens: 0 yes, 1 by one call that tries, 2 not for a while.",
                "key_manager",
            ),
            registry,
            start,
            tables_since_ms,
        }
    }

    /// Counts one request. `api` is its configured name or `_none`; `reason` is `granted` or `Denial::reason`.
    pub fn count_request(
        &self,
        counters: &ApiCounters,
        door: Door,
        api: &str,
        index: usize,
        outcome: &'static str,
        reason: &'static str,
    ) {
        match counters.place(door, index).and_then(OnceLock::get) {
            Some(counter) => counter.inc(),
            None => self.count_first(counters, door, api, index, outcome, reason),
        }
    }

    /// Finds the counter, and keeps it where it has a place.
    #[cold]
    fn count_first(
        &self,
        counters: &ApiCounters,
        door: Door,
        api: &str,
        index: usize,
        outcome: &'static str,
        reason: &'static str,
    ) {
        let counter = self.requests.with_label_values(&[door.label(), self.api_label(api), outcome, reason]);
        counter.inc();
        if let Some(place) = counters.place_for(door, index) {
            place.get_or_init(|| counter);
        }
    }

    /// Time a step of a verdict took, of a sample of requests; `index` is its place among all steps.
    pub fn observe_step(&self, index: usize, label: &'static str, took: Duration) {
        let resolve = || self.step_duration.with_label_values(&[label]);
        match self.steps.get(index) {
            Some(step) => step.get_or_init(resolve).observe(took.as_secs_f64()),
            None => resolve().observe(took.as_secs_f64()),
        }
    }

    /// Shows a step before its first sample: only the engine knows what the steps are.
    pub fn declare_step(&self, index: usize, label: &'static str) {
        let step = self.step_duration.with_label_values(&[label]);
        if let Some(place) = self.steps.get(index) {
            place.get_or_init(|| step);
        }
    }

    /// Tells how many APIs there are, before their first request is counted. Above [`MAX_NAMED_APIS`]
    /// the label `api` stays empty, which to Prometheus is the same as a label left out: what matters
    /// then is in the access log. Series counted before keep their names.
    pub fn set_api_count(&self, apis: usize) {
        self.name_apis.store(apis <= MAX_NAMED_APIS, Ordering::Relaxed);
    }

    /// Counts a failed connection.
    pub fn connection_error(&self, reason: ConnectionError) {
        self.connection_errors[reason as usize].inc();
    }

    /// Counts a connection as open until the answer is dropped.
    pub fn connection_opened(&self, door: Door) -> OpenConnection {
        let open = self.connections_open[door as usize].clone();
        open.inc();
        OpenConnection(open)
    }

    /// Counts a failed exchange with an upstream.
    pub fn upstream_error(&self, reason: UpstreamError) {
        self.upstream_errors[reason as usize].inc();
    }

    /// Counts a reload of the configuration.
    pub fn config_reloaded(&self, ok: bool) {
        self.reloads[usize::from(ok)].inc();
    }

    /// The tables were put in place just now: `tollgate_snapshot_age_seconds` starts again.
    pub fn tables_replaced(&self) {
        self.tables_since_ms.store(millis_since(self.start), Ordering::Relaxed);
    }

    /// The age of each key manager's keys, by its configured name. Others are forgotten.
    pub fn set_jwks_ages<'a>(&self, ages: impl Iterator<Item = (&'a str, u64)>) {
        self.jwks_age.reset();
        for (name, seconds) in ages {
            self.jwks_age.with_label_values(&[name]).set(seconds as f64);
        }
    }

    /// Whether each provider is asked about tokens, by the key manager's name. Others are forgotten.
    pub fn set_circuits<'a>(&self, circuits: impl Iterator<Item = (&'a str, u8)>) {
        self.circuits.reset();
        for (name, circuit) in circuits {
            self.circuits.with_label_values(&[name]).set(circuit.into());
        }
    }

    /// Everything, in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written in full");
        }
        text
    }

    fn api_label<'a>(&self, api: &'a str) -> &'a str {
        if self.name_apis.load(Ordering::Relaxed) { api } else { "" }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ApiCounters {
    /// The counter's place; none while there are none, and for an index beyond the table.
    fn place(&self, door: Door, index: usize) -> Option<&OnceLock<Counter>> {
        if index >= REASONS {
            return None;
        }
        self.places.get()?.get(door as usize * REASONS + index)
    }

    /// The same, with places if there are none. An index beyond the table is resolved each time.
    fn place_for(&self, door: Door, index: usize) -> Option<&OnceLock<Counter>> {
        self.places.get_or_init(|| (0..Door::ALL.len() * REASONS).map(|_| OnceLock::new()).collect());
        self.place(door, index)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Door {
    /// Every door, in declared order.
    pub const ALL: [Self; 1] = [Self::Proxy];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
        }
    }
}

impl ConnectionError {
    /// Every reason, in declared order.
    pub const ALL: [Self; 9] = [
        Self::Parse,
        Self::HeaderTimeout,
        Self::IdleTimeout,
        Self::BodyTimeout,
        Self::TlsHandshake,
        Self::Http2,
        Self::Reset,
        Self::TooMany,
        Self::Other,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::HeaderTimeout => "header_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::TlsHandshake => "tls_handshake",
            Self::Http2 => "http2",
            Self::Reset => "reset",
            Self::TooMany => "too_many",
            Self::Other => "other",
        }
    }
}

impl UpstreamError {
    /// Every reason, in declared order.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Reset, Self::Timeout, Self::Protocol];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
        }
    }
}

fn check_duration(registry: &Registry) -> Times {
    let times = Times::new(
        "tollgate_check_duration_seconds",
        "Time a verdict took, without the upstream; a token's first sight may wait for keys.",
        CHECK_BUCKETS.map(Duration::from_nanos),
    )
    .expect(CONSTANT);
    register(registry, times.clone());
    times
}

fn step_duration(registry: &Registry) -> HistogramVec {
    let options =
        HistogramOpts::new("tollgate_step_duration_seconds", "Time each step of a verdict took, of one request in 64.");
    let histograms = HistogramVec::new(options.buckets(CHECK_BUCKETS.map(|ns| ns as f64 / 1e9).to_vec()), &["step"])
        .expect(CONSTANT);
    register(registry, histograms.clone());
    histograms
}

fn access_lines_dropped(registry: &Registry) -> IntCounter {
    let counter = IntCounter::new(
        "tollgate_access_lines_dropped_total",
        "Access lines that were not written because the output could not keep up.",
    )
    .expect(CONSTANT);
    register(registry, counter.clone());
    counter
}

fn tokens_unknown(registry: &Registry) -> IntCounter {
    let counter = IntCounter::new(
        "tollgate_throttle_tokens_unknown_total",
        "Answers that did not tell how many tokens they used, where a tier counts tokens.",
    )
    .expect(CONSTANT);
    register(registry, counter.clone());
    counter
}

fn over_quota(registry: &Registry) -> IntCounter {
    let counter = IntCounter::new(
        "tollgate_over_quota_total",
        "Requests that passed beyond the quota or the burst of a tier that does not stop.",
    )
    .expect(CONSTANT);
    register(registry, counter.clone());
    counter
}

fn snapshot_age(start: Instant, since_ms: Arc<AtomicU64>) -> PullingGauge {
    PullingGauge::new(
        "tollgate_snapshot_age_seconds",
        "Time since the present tables were put in place.",
        Box::new(move || millis_since(start).saturating_sub(since_ms.load(Ordering::Relaxed)) as f64 / 1e3),
    )
    .expect(CONSTANT)
}

fn jwks_age(registry: &Registry) -> GaugeVec {
    let options = Opts::new("tollgate_jwks_age_seconds", "Time since a key manager's keys were fetched.");
    let ages = GaugeVec::new(options, &["key_manager"]).expect(CONSTANT);
    register(registry, ages.clone());
    ages
}

fn counters<P: Atomic + 'static>(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GenericCounterVec<P> {
    let counters = GenericCounterVec::new(Opts::new(name, help).namespace(NAMESPACE), labels).expect(CONSTANT);
    register(registry, counters.clone());
    counters
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> IntGaugeVec {
    let gauges = IntGaugeVec::new(Opts::new(name, help).namespace(NAMESPACE), &[label]).expect(CONSTANT);
    register(registry, gauges.clone());
    gauges
}

fn register(registry: &Registry, collector: impl Collector + 'static) {
    registry.register(Box::new(collector)).expect(CONSTANT);
}

fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// APIs whose requests are counted by name; more would make too many series.
pub const MAX_NAMED_APIS: usize = 500;

/// Places for reasons: more than there are (`authz::Denial::reason_index` is below 64).
const REASONS: usize = 64;
const NAMESPACE: &str = "tollgate";
const CONSTANT: &str = "names are constant, valid and distinct";

/// Places for steps: more than there are (`authz::trace::Step`).
const STEPS: usize = 16;

/// In nanoseconds. A cached verdict takes microseconds, a signature tens to hundreds, a fetch of keys the rest.
const CHECK_BUCKETS: [u64; BOUNDS] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
];

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
