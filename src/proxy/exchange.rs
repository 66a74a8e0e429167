//! One request from its head to its answer's end: what is counted and logged of it, once, whatever happens.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Uri, Version};

use super::{
    body::Fate,
    called::Called,
    headers::{self, Present},
    meter::Meter,
};
use crate::{
    authz::{Denial, Found},
    net::{Now, message::Head},
    store::{KeyType, Store},
    telemetry::{AccessLine, AccessLog, Door, Metrics, UpstreamError},
    throttle::Usage,
};

/// Where requests are counted and logged.
#[derive(Debug)]
pub(super) struct Observer {
    /// Whose newest tables count what is no API's.
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) access_log: AccessLog,
}

/// A request under way. When it is dropped, it is counted and its access line written.
#[derive(Debug)]
pub(super) struct Exchange {
    observer: Arc<Observer>,
    pub(super) called: Called,
    method: Method,
    uri: Uri,
    pub(super) version: Version,
    pub(super) path: Option<Box<str>>,
    pub(super) client: Option<IpAddr>,
    pub(super) request_id: HeaderValue,
    traceparent: Option<HeaderValue>,
    pub(super) now: Now,
    pub(super) started: Instant,
    verdict: Duration,
    upstream: Option<Duration>,
    pub(super) status: u16,
    verdict_label: Label,
    pub(super) bytes_out: u64,
    /// How the request's body fares, while the answer is passed on.
    pub(super) upload: Option<Arc<Fate>>,
    /// The tightest limit's state, when the answer shall tell it.
    pub(super) usage: Option<Usage>,
    /// The same by `X-RateLimit-*` too.
    pub(super) x_ratelimit: bool,
    /// A limit that does not stop was beyond its quota.
    pub(super) over_quota: bool,
    /// Where what it uses is counted as it passes, if a tier of its limits that; until its answer's body is.
    pub(super) meter: Option<Arc<Meter>>,
    /// Whose page it is from, where its API looks at that; rare.
    pub(super) origin: Option<Box<HeaderValue>>,
}

/// How a request is counted.
#[derive(Debug, Clone, Copy)]
struct Label {
    /// Place of the reason among all reasons.
    index: usize,
    outcome: &'static str,
    reason: &'static str,
}

/// Until there is a verdict. The index is behind those of all denials.
const UNJUDGED: Label = Label { index: 63, outcome: "failed", reason: "client_gone" };
const GRANTED: Label = Label { index: 0, outcome: "granted", reason: "granted" };

impl Exchange {
    pub(super) fn begin(
        observer: &Arc<Observer>,
        head: &Head,
        present: Present,
        client: Option<IpAddr>,
        request_id: HeaderValue,
        (now, started): (Now, Instant),
    ) -> Box<Self> {
        Box::new(Self {
            observer: observer.clone(),
            called: Called::default(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            path: None,
            client,
            request_id,
            traceparent: present.traceparent.then(|| head.fields.value_of("traceparent")).flatten(),
            now,
            started,
            verdict: Duration::ZERO,
            upstream: None,
            status: CLIENT_GONE,
            verdict_label: UNJUDGED,
            bytes_out: 0,
            upload: None,
            usage: None,
            x_ratelimit: false,
            over_quota: false,
            meter: None,
            origin: None,
        })
    }

    /// The verdict is there.
    pub(super) fn judged(&mut self, found: &Found) {
        self.called = Called::of(found);
        self.verdict = self.started.elapsed();
        self.observer.metrics.check_duration.observe(self.verdict);
    }

    pub(super) fn granted(&mut self) {
        self.verdict_label = GRANTED;
    }

    /// The upstream has begun to answer, or failed to.
    pub(super) fn answered(&mut self) {
        self.upstream = Some(self.started.elapsed().saturating_sub(self.verdict));
    }

    pub(super) fn denied(&mut self, denial: &Denial) {
        self.verdict_label = Label { index: denial.reason_index(), outcome: denial.outcome(), reason: denial.reason() };
    }

    /// The answer broke off. Where the client's body did so before, that is why.
    pub(super) fn broke_off(&self) {
        if self.upload.as_deref().is_none_or(Fate::is_whole) {
            self.observer.metrics.upstream_error(UpstreamError::Reset);
        }
    }

    /// The upstream's answer is none that can be passed on.
    pub(super) fn unreadable(&self) {
        self.observer.metrics.upstream_error(UpstreamError::Protocol);
    }

    /// Whether the answer may have a body.
    pub(super) fn wants_body(&self) -> bool {
        self.method != Method::HEAD
    }

    fn count(&self) {
        let Label { index, outcome, reason } = self.verdict_label;
        let metrics = &self.observer.metrics;
        match &self.called.api {
            Some(api) => metrics.count_request(&api.counters, Door::Proxy, &api.name, index, outcome, reason),
            None => {
                let counters = &self.observer.store.peek().no_api_counters;
                metrics.count_request(counters, Door::Proxy, "_none", index, outcome, reason);
            }
        }
    }

    fn log(&self) {
        let Called { api, template, application, key_type, tier } = &self.called;
        let api = api.as_deref();
        self.observer.access_log.write(&AccessLine {
            unix_ms: self.now.unix_ms,
            request_id: self.request_id.to_str().unwrap_or_default(),
            trace_id: self.traceparent.as_ref().and_then(headers::trace_id),
            client: self.client,
            method: self.method.as_str(),
            path: self.path.as_deref().unwrap_or_else(|| self.uri.path()),
            protocol: protocol(self.version),
            status: self.status,
            reason: self.verdict_label.reason,
            api: api.map(|api| &*api.name),
            version: api.and_then(|api| api.version.as_deref()),
            template: template.as_deref(),
            application: application.as_deref(),
            key_type: application.as_ref().map(|_| match key_type {
                KeyType::Production => "PRODUCTION",
                KeyType::Sandbox => "SANDBOX",
            }),
            tier: tier.as_ref().map(|tier| &***tier),
            over_quota: self.over_quota,
            verdict_us: micros(self.verdict),
            upstream_us: self.upstream.map(micros),
            duration_us: micros(self.started.elapsed()),
            bytes_out: self.bytes_out,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.count();
        if self.observer.access_log.sampled() {
            self.log();
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 | Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        _ => "HTTP/2",
    }
}

/// nginx's status for a client that did not wait for its answer.
const CLIENT_GONE: u16 = 499;
