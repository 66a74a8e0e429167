//! The admin door: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever runs the process. Nothing
//! else, and nothing here changes anything.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use serde::Serialize;
use tokio::sync::watch;

use crate::{net::side, telemetry::Metrics};

/// How the process is, at the moment it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether every door is open.
    pub started: bool,
    /// Whether the process is about to end.
    pub draining: bool,
    /// The key managers in declared order.
    pub key_managers: Vec<KeyManagerHealth>,
    /// The configuration's version: counts up with every reload that succeeds.
    pub generation: u64,
    /// Why the newest reload failed; none when it did not. Never a configured value.
    pub last_error: Option<String>,
}

/// How a key manager is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyManagerHealth {
    /// Its configured name.
    pub name: String,
    /// Whether its tokens can be judged now.
    pub ready: bool,
    /// Whether readiness waits for it (`startup`).
    pub required: bool,
    /// Seconds since its keys were fetched; none before the first time.
    pub keys_age_s: Option<u64>,
}

/// Tells the health of the process.
pub type HealthSource = Arc<dyn Fn() -> Health + Send + Sync>;

impl Health {
    /// What readiness waits for; empty when ready.
    fn missing(&self) -> Vec<&str> {
        let starting = (!self.started).then_some("starting");
        let draining = self.draining.then_some("draining");
        let key_managers = self.key_managers.iter().filter(|k| k.required && !k.ready).map(|k| k.name.as_str());
        starting.into_iter().chain(draining).chain(key_managers).collect()
    }
}

/// Serves the admin door until `stop` says so: to the very end of a drain, so that both probes and the
/// last scrape get their answer.
pub async fn serve(
    listener: impl Into<side::Listener>,
    health: HealthSource,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &health, &metrics);
        async move { Ok::<_, Infallible>(response) }
    });
    side::serve(listener.into(), MOST_CONNECTIONS, service, stop).await;
}

fn answer<B>(request: &Request<B>, health: &HealthSource, metrics: &Metrics) -> Response<Full<Bytes>> {
    let page = match request.uri().path() {
        "/metrics" => metrics_page,
        "/livez" => livez,
        "/readyz" => readyz,
        _ => return respond(StatusCode::NOT_FOUND, TEXT, "not found"),
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    page(request.uri().query().unwrap_or_default(), health, metrics)
}

fn metrics_page(_: &str, health: &HealthSource, metrics: &Metrics) -> Response<Full<Bytes>> {
    let health = health();
    let ages = health.key_managers.iter().filter_map(|k| Some((k.name.as_str(), k.keys_age_s?)));
    metrics.set_jwks_ages(ages);
    respond(StatusCode::OK, PROMETHEUS, metrics.render())
}

/// Alive is whoever answers. Looks at nothing else: a provider that is down is no reason to restart.
fn livez(_: &str, _: &HealthSource, _: &Metrics) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, TEXT, "ok")
}

fn readyz(query: &str, health: &HealthSource, _: &Metrics) -> Response<Full<Bytes>> {
    let health = health();
    let missing = health.missing();
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.split('&').any(|pair| pair.split('=').next() == Some("verbose")) {
        return respond(status, JSON, verbose(&health, missing.is_empty()));
    }
    match missing.as_slice() {
        [] => respond(status, TEXT, "ready"),
        names => respond(status, TEXT, format!("not ready: {}", names.join(", "))),
    }
}

fn verbose(health: &Health, ready: bool) -> String {
    let key_managers = health.key_managers.iter();
    let verbose = Verbose {
        ready,
        key_managers: key_managers
            .map(|k| VerboseKeyManager { name: &k.name, ready: k.ready, keys_age_s: k.keys_age_s })
            .collect(),
        config: VerboseConfig { generation: health.generation, last_error: health.last_error.as_deref() },
    };
    serde_json::to_string(&verbose).expect("strings and numbers are always JSON")
}

/// The body of `/readyz?verbose`.
#[derive(Serialize)]
struct Verbose<'a> {
    ready: bool,
    key_managers: Vec<VerboseKeyManager<'a>>,
    config: VerboseConfig<'a>,
}

#[derive(Serialize)]
struct VerboseKeyManager<'a> {
    name: &'a str,
    ready: bool,
    keys_age_s: Option<u64>,
}

#[derive(Serialize)]
struct VerboseConfig<'a> {
    generation: u64,
    last_error: Option<&'a str>,
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus' text format; names of APIs may go beyond ASCII.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// A few scrapers and probes, with room for some that never hang up.
const MOST_CONNECTIONS: usize = 64;
