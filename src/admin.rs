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
    /// Whether what is shared is connected; none where nothing is shared. Readiness does not wait for it.
    pub shared: Option<bool>,
    /// Whether every limit would refuse just now, since a Redis that is met for the first time hands out nothing yet.
    pub settling: bool,
    /// Whether the record takes no change any more.
    pub record_failed: bool,
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
    /// Whether its provider is asked about tokens just now: 0 yes, 1 by one call that tries, 2 no; none where
    /// it never is.
    pub circuit: Option<u8>,
}

/// Tells the health of the process.
pub type HealthSource = Arc<dyn Fn() -> Health + Send + Sync>;

impl Health {
    /// What readiness waits for; empty when ready.
    fn missing(&self) -> Vec<&str> {
        let starting = (!self.started).then_some("starting");
        let draining = self.draining.then_some("draining");
        let settling = self.settling.then_some("shared counters");
        let record = self.record_failed.then_some("record");
        let key_managers = self.key_managers.iter().filter(|k| k.required && !k.ready).map(|k| k.name.as_str());
        starting.into_iter().chain(draining).chain(settling).chain(record).chain(key_managers).collect()
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
    let circuits = health.key_managers.iter().filter_map(|k| Some((k.name.as_str(), k.circuit?)));
    metrics.set_circuits(circuits);
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
        shared: health.shared.map(|connected| VerboseShared { connected, settling: health.settling }),
        record: health.record_failed.then_some(VerboseRecord { last_error: RECORD_FAILED }),
    };
    serde_json::to_string(&verbose).expect("strings and numbers are always JSON")
}

/// The body of `/readyz?verbose`.
#[derive(Serialize)]
struct Verbose<'a> {
    ready: bool,
    key_managers: Vec<VerboseKeyManager<'a>>,
    config: VerboseConfig<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared: Option<VerboseShared>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<VerboseRecord>,
}

#[derive(Serialize)]
struct VerboseRecord {
    last_error: &'static str,
}

#[derive(Serialize)]
struct VerboseShared {
    connected: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    settling: bool,
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

const RECORD_FAILED: &str = "it takes no change any more: see to its disk, and start the process again";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus' text format; names of APIs may go beyond ASCII.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// A few scrapers and probes, with room for some that never hang up.
const MOST_CONNECTIONS: usize = 64;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn key_manager(name: &str, ready: bool, required: bool) -> KeyManagerHealth {
        KeyManagerHealth { name: name.into(), ready, required, keys_age_s: ready.then_some(12), circuit: None }
    }

    fn healthy() -> Health {
        Health {
            started: true,
            key_managers: vec![key_manager("one", true, true), key_manager("two", true, true)],
            generation: 3,
            ..Health::default()
        }
    }

    async fn get(health: Health, target: &str) -> (u16, String, String) {
        call("GET", health, target).await
    }

    async fn call(method: &str, health: Health, target: &str) -> (u16, String, String) {
        let request = Request::builder().method(method).uri(target).body(()).expect("a request");
        let health: HealthSource = Arc::new(move || health.clone());
        let response = answer(&request, &health, &Metrics::new());
        let status = response.status().as_u16();
        let content_type = response.headers()[header::CONTENT_TYPE].to_str().expect("ASCII").to_owned();
        let body = response.into_body().collect().await.expect("it is there").to_bytes();
        (status, content_type, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn readiness_names_what_it_waits_for() {
        let two = |ready, required| vec![key_manager("one", true, true), key_manager("two", ready, required)];
        for (health, status, body) in [
            (healthy(), 200, "ready"),
            (Health { key_managers: two(false, false), ..healthy() }, 200, "ready"),
            (Health { last_error: Some("bad".into()), ..healthy() }, 200, "ready"),
            (Health { key_managers: two(false, true), ..healthy() }, 503, "not ready: two"),
            (Health { draining: true, ..healthy() }, 503, "not ready: draining"),
            (Health { settling: true, ..healthy() }, 503, "not ready: shared counters"),
            (Health { record_failed: true, ..healthy() }, 503, "not ready: record"),
            (Health { started: false, key_managers: two(false, true), ..healthy() }, 503, "not ready: starting, two"),
        ] {
            assert_eq!(get(health, "/readyz").await, (status, TEXT.into(), body.into()));
        }
    }

    #[tokio::test]
    async fn verbose_readiness_says_why() {
        let health = Health {
            draining: true,
            key_managers: vec![key_manager("one", true, true), key_manager("two", false, true)],
            last_error: Some("apis[0].name: is there twice".into()),
            ..healthy()
        };
        for query in ["verbose", "verbose=1", "a=b&verbose"] {
            let (status, content_type, body) = get(health.clone(), &format!("/readyz?{query}")).await;
            let said: Value = serde_json::from_str(&body).expect("JSON");
            let expected = json!({
                "ready": false,
                "key_managers": [
                    { "name": "one", "ready": true, "keys_age_s": 12 },
                    { "name": "two", "ready": false, "keys_age_s": null },
                ],
                "config": { "generation": 3, "last_error": "apis[0].name: is there twice" },
            });
            assert_eq!((status, content_type.as_str(), said), (503, JSON, expected));
        }
        let failed = get(Health { record_failed: true, ..healthy() }, "/readyz?verbose").await.2;
        assert!(failed.contains(RECORD_FAILED), "{failed}");
        assert_eq!(get(healthy(), "/readyz?verbosely").await.2, "ready");
    }

    #[tokio::test]
    async fn only_three_pages_and_two_verbs() {
        for (method, target, status) in [
            ("GET", "/livez", 200),
            ("HEAD", "/livez", 200),
            ("POST", "/livez", 405),
            ("DELETE", "/metrics", 405),
            ("PUT", "/readyz?verbose", 405),
            ("GET", "/", 404),
            ("GET", "/metrics/", 404),
            ("GET", "/Metrics", 404),
            ("GET", "/metrics%2e", 404),
            ("GET", "/debug/pprof", 404),
            ("POST", "/quit", 404),
        ] {
            assert_eq!(call(method, healthy(), target).await.0, status, "{method} {target}");
        }
        let draining = Health { draining: true, ..Health::default() };
        assert_eq!(get(draining, "/livez").await, (200, TEXT.into(), "ok".into()));
    }

    #[tokio::test]
    async fn metrics_have_their_type_and_the_age_of_keys() {
        let (status, content_type, body) = get(healthy(), "/metrics").await;
        assert_eq!((status, content_type.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
        assert!(body.contains("\ntollgate_jwks_age_seconds{key_manager=\"two\"} 12\n"), "{body}");
        assert!(body.contains("\ntollgate_config_reloads_total{outcome=\"ok\"} 0\n"), "{body}");
    }

    #[tokio::test]
    async fn it_serves_until_it_is_stopped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, Arc::new(healthy), Arc::new(Metrics::new()), stopped));
        let head = ask(address, "HEAD /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 2"), "{head}");
        let post = ask(address, "POST /readyz HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
        stop.send_replace(true);
        server.await.expect("it ends");
    }

    /// One request on a connection of its own, which the door closes after its answer.
    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }
}
