//! A gate over real sockets with a judge that grants what its tables know, and peers to talk to it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{Judge, Proxy, Settings, Shared};
use crate::{
    authz::{CheckRequest, Decision, Denial, ForwardQuery, Found, Grant, Refusal},
    net::{Address, Clock, Drain, Room, listener, server::Limits, tls::Acceptor},
    store::{
        FaultFormat, KeyType, Resolution, Snapshot, Store, canonical,
        settings::{ApiSettings, GateSettings, TableSettings},
    },
    telemetry::{AccessLog, LogSettings, Metrics},
    throttle::Admitted,
    token::{Common, Identity, TokenKind},
};

/// Grants whatever its tables resolve, as `ada`; `X-Deny` is refused, `X-Hang` never judged.
#[derive(Debug)]
pub(super) struct Granting(Arc<Store>);

impl Judge for Granting {
    async fn check(&self, request: &CheckRequest<'_>) -> Decision {
        let tables = self.0.load();
        let found = |api, resource| Found {
            tables: tables.clone(),
            api,
            resource,
            identity: Some(ada()),
            application: None,
            subscription: None,
            key_type: KeyType::Production,
        };
        let refused = |denial| Err(Box::new(Refusal { denial, found: found(None, None) }));
        let path = match canonical(request.path) {
            Ok(path) => path,
            Err(flaw) => return refused(Denial::Path(flaw)),
        };
        let Resolution::Found(target) = tables.resolve(request.host, request.method, &path) else {
            return refused(Denial::NoApi);
        };
        if request.headers.contains("x-hang") {
            std::future::pending::<()>().await;
        }
        if request.headers.contains("x-deny") {
            return refused(Denial::NoCredential);
        }
        Ok(Grant {
            found: found(Some(target.api), Some(target.resource)),
            path: (path != request.path).then(|| path.into()),
            context_len: target.context_len as usize,
            query: ForwardQuery::AsSent,
            admitted: Admitted::default(),
        })
    }
}

fn ada() -> Arc<Identity> {
    let mut common = Common::default();
    (common.key_manager, common.issuer) = ("kc".into(), "https://idp".into());
    Arc::new(Identity {
        common: Arc::new(common),
        subject: Some("ada".into()),
        own_subject: None,
        expires_at: u64::MAX,
        issued_at: None,
        jti: None,
        tag: [0; 16],
        kind: TokenKind::User,
        inside: None,
        signed_in_at: None,
        user: 0,
        subject_value: Some(HeaderValue::from_static("ada")),
        claims: [].into(),
    })
}

/// A running gate with one API at `/api`.
pub(super) struct Gate {
    pub(super) address: SocketAddr,
    pub(super) drain: Drain,
    pub(super) shared: Shared<Granting>,
    pub(super) server: JoinHandle<std::io::Result<()>>,
    lines: Lines,
}

/// How a gate differs from the plain one.
pub(super) struct Plan {
    pub(super) upstream: Value,
    pub(super) api: Value,
    pub(super) proxy: Value,
    pub(super) trusted: Vec<&'static str>,
    pub(super) tls: Option<Acceptor>,
}

impl Plan {
    pub(super) fn to(upstream: impl Into<Value>) -> Self {
        Self { upstream: upstream.into(), api: json!({}), proxy: json!({}), trusted: Vec::new(), tls: None }
    }
}

#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn merged(mut base: Value, over: Value) -> Value {
    let (Value::Object(into), Value::Object(over)) = (&mut base, over) else { unreachable!() };
    into.extend(over);
    base
}

fn tables(plan: &Plan) -> Snapshot {
    let api = json!({ "name": "A", "context": "/api", "upstream": plan.upstream,
        "resources": [{ "path": "/*" }] });
    let api: ApiSettings = serde_json::from_value(merged(api, plan.api.clone())).unwrap();
    let gate = GateSettings {
        trusted_proxies: plan.trusted.iter().map(|net| net.parse().unwrap()).collect(),
        fault_format: FaultFormat::Wso2,
        realm: "tollgate".into(),
        strip_headers: vec!["X-User".into()],
        assertion_header: None,
        identity_headers: Default::default(),
        rate_limit_headers: false,
        x_ratelimit: false,
        rules: Vec::new(),
        deny: Vec::new(),
    };
    let settings = TableSettings {
        gate: &gate,
        key_managers: &["kc".into()],
        issuers: Vec::new(),
        apis: &[api],
        applications: &[],
        subscriptions: &[],
        tiers: &[],
    };
    Snapshot::build(&settings, 1).unwrap()
}

/// Starts a gate.
pub(super) fn gate(plan: Plan) -> Gate {
    let store = Arc::new(Store::new(tables(&plan)));
    let settings = json!({ "listen": "127.0.0.1:0" });
    let settings: Settings = serde_json::from_value(merged(settings, plan.proxy)).unwrap();
    let metrics = Arc::new(Metrics::new());
    let lines = Lines::default();
    let log = LogSettings::default();
    let shared = Shared {
        judge: Arc::new(Granting(store.clone())),
        store,
        clock: Arc::new(Clock::new()),
        limiter: Arc::default(),
        access_log: AccessLog::to(&log, metrics.access_lines_dropped.clone(), lines.clone()).unwrap(),
        metrics,
        assertions: Arc::default(),
        limits: Arc::new(ArcSwap::from_pointee(Limits::from(&settings))),
        room: Room::new(10_000, 1),
        settings: Arc::new(ArcSwap::from_pointee(settings)),
        drain: Drain::new(),
    };
    let listener = listener::bind(&"127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
    let Address::Tcp(address) = listener.address().unwrap() else { unreachable!() };
    let proxy = Arc::new(Proxy::new(shared.clone()).unwrap());
    let server = tokio::spawn(proxy.run(listener, plan.tls));
    Gate { address, drain: shared.drain.clone(), shared, server, lines }
}

impl Gate {
    /// The gate before an upstream.
    pub(super) fn before(upstream: &Upstream) -> Self {
        gate(Plan::to(upstream.url("http")))
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Puts other tables in place of the present ones, which nobody but requests under way has any more.
    pub(super) fn reload_tables(&self, upstream: &Upstream) -> Weak<Snapshot> {
        let plan = Plan { api: json!({ "strip_prefix": true }), ..Plan::to(upstream.url("http")) };
        Arc::downgrade(&self.shared.store.replace(tables(&plan)))
    }

    /// Sends `head` with `Host` and reads one whole answer.
    pub(super) async fn ask(&self, head: &str) -> Answer {
        let mut stream = self.connect().await;
        ask(&mut stream, head).await
    }

    /// The access lines of all requests so far.
    pub(super) fn lines(&self) -> Vec<Value> {
        self.shared.access_log.shutdown();
        let lines = self.lines.0.lock();
        lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
    }
}

/// An answer as a client sees it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(super) fn has(&self, line: &str) -> bool {
        self.head.to_ascii_lowercase().contains(&line.to_ascii_lowercase())
    }
}

/// Sends `lines` (request line, then fields, separated by `\n`) and reads one answer with a length.
pub(super) async fn ask(stream: &mut TcpStream, lines: &str) -> Answer {
    stream.write_all(head(lines).as_bytes()).await.unwrap();
    read_answer(stream).await
}

/// A request head out of its lines; `Host` is added where there is none.
pub(super) fn head(lines: &str) -> String {
    let host = if lines.to_ascii_lowercase().contains("\nhost:") { "" } else { "Host: gate.test\r\n" };
    format!("{}\r\n{host}\r\n", lines.replace('\n', "\r\n"))
}

pub(super) async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.expect("an answer"));
    }
    let head = String::from_utf8(head).unwrap();
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let mut body = vec![0; field("content-length").map_or(0, |length| length.parse().unwrap())];
    within(stream.read_exact(&mut body)).await.unwrap();
    Answer { status: head[9..12].parse().unwrap(), head, body: String::from_utf8(body).unwrap() }
}

/// Whether the other side closes, having sent nothing more.
pub(super) async fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(within(stream.read(&mut [0; 64])).await, Ok(0) | Err(_))
}

/// A test that hangs fails instead.
pub(super) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// An upstream that answers with what it was sent.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
}

impl Upstream {
    pub(super) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }
}

/// Answers in JSON: method, target, fields, body, trailers. Speaks HTTP/1.1 and h2c.
pub(super) async fn echo() -> Upstream {
    upstream(|request| async move {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let answer = json!({
            "method": parts.method.as_str(), "target": parts.uri.to_string(), "version": format!("{:?}", parts.version),
            "fields": fields(&parts.headers), "trailers": fields(&trailers),
            "body": String::from_utf8_lossy(&body.to_bytes()),
        });
        Ok(Response::new(Full::from(answer.to_string())))
    })
    .await
}

fn fields(headers: &HeaderMap) -> Value {
    let text = |name| {
        let values: Vec<_> = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        values.join("|")
    };
    headers.keys().map(|name| (name.to_string(), Value::from(text(name)))).collect::<serde_json::Map<_, _>>().into()
}

pub(super) async fn upstream<F, R>(answer: F) -> Upstream
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<Full<Bytes>>, hyper::Error>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Relaxed);
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(answer);
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Upstream { address, connections }
}

/// An upstream of raw bytes: `script` gets each connection.
pub(super) async fn raw<F, R>(script: F) -> Upstream
where
    F: Fn(TcpStream, usize) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(stream, count.fetch_add(1, Relaxed)));
        }
    });
    Upstream { address, connections }
}

/// Reads one request head.
pub(super) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}
