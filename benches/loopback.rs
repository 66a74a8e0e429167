//! What the door costs, without the verdict: CPU time a request of the proxying threads alone, for one runtime per
//! worker, for one multi-threaded runtime, and for a bare hyper proxy. Compare figures of one run only.
//!
//! `cargo bench --bench loopback [-- SECONDS]`

use std::{
    error::Error,
    fs, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use hyper::{Request, body::Incoming, client::conn::http1 as client, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};
use tollgate::{
    authz::{CheckRequest, Decision, Denial, ForwardQuery, Found, Grant, Refusal},
    net::{Address, Clock, Drain, Room, listener, server::Limits},
    proxy::{Judge, Proxy, Settings, Shared},
    store::{
        FaultFormat, KeyType, Resolution, Snapshot, Store,
        settings::{ApiSettings, GateSettings, TableSettings},
    },
    telemetry::{AccessLog, LogSettings, Metrics},
    throttle::Admitted,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let seconds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(3);
    let span = Duration::from_secs(seconds);
    let backend = backend()?;
    let subjects = [
        ("bare hyper, 1 thread", bare(backend)?),
        ("door, 1 worker", workers(backend, 1)?),
        ("door, 2 workers", workers(backend, 2)?),
        ("door, multi-threaded runtime of 1", multi_threaded(backend, 1)?),
        ("door, multi-threaded runtime of 2", multi_threaded(backend, 2)?),
    ];
    for (_, subject) in &subjects {
        load(subject.address, Duration::from_millis(500))?;
    }
    println!("{:36} {:>10} {:>12}", "", "requests/s", "CPU us each");
    for _ in 0..ROUNDS {
        for (name, subject) in &subjects {
            let before = subject.cpu()?;
            let began = Instant::now();
            let requests = load(subject.address, span)?;
            let rate = requests as f64 / began.elapsed().as_secs_f64();
            let cpu = (subject.cpu()? - before).as_secs_f64() * 1e6 / requests as f64;
            println!("{name:36} {rate:>10.0} {cpu:>12.2}");
        }
    }
    // The subjects' threads serve for ever.
    std::process::exit(0);
}

/// A proxy that listens, and the threads it runs on.
struct Subject {
    address: SocketAddr,
    threads: Arc<Mutex<Vec<u32>>>,
}

impl Subject {
    /// CPU time of its threads so far.
    fn cpu(&self) -> Outcome<Duration> {
        let mut total = 0;
        for thread in &*self.threads.lock() {
            let stat = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))?;
            total += stat.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(total))
    }
}

fn this_thread() -> io::Result<u32> {
    let link = fs::read_link("/proc/thread-self")?;
    link.file_name().and_then(|name| name.to_str()?.parse().ok()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn current_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn workers(backend: SocketAddr, n: usize) -> Outcome<Subject> {
    let shared = shared(backend, n)?;
    let listeners = listener::bind(&"127.0.0.1:0".parse()?, n)?;
    let Address::Tcp(address) = listeners[0].address()? else { return Err("no port".into()) };
    let threads = Arc::new(Mutex::new(Vec::new()));
    for listener in listeners {
        let (proxy, threads) = (Arc::new(Proxy::new(shared.clone())?), threads.clone());
        thread::spawn(move || -> Outcome<()> {
            threads.lock().push(this_thread()?);
            Ok(current_thread()?.block_on(proxy.run(listener, None))?)
        });
    }
    Ok(Subject { address, threads })
}

fn multi_threaded(backend: SocketAddr, n: usize) -> Outcome<Subject> {
    let threads = Arc::new(Mutex::new(Vec::new()));
    let seen = threads.clone();
    let runtime = Builder::new_multi_thread()
        .worker_threads(n)
        .enable_all()
        .on_thread_start(move || seen.lock().extend(this_thread()))
        .build()?;
    let proxy = Arc::new(Proxy::new(shared(backend, 1)?)?);
    let listener = listener::bind(&"127.0.0.1:0".parse()?, 1)?.remove(0);
    let Address::Tcp(address) = listener.address()? else { return Err("no port".into()) };
    runtime.spawn(proxy.run(listener, None));
    std::mem::forget(runtime);
    Ok(Subject { address, threads })
}

/// The least a proxy can be: hyper on both sides and a list of idle connections.
fn bare(backend: SocketAddr) -> Outcome<Subject> {
    let threads = Arc::new(Mutex::new(Vec::new()));
    let (known, address) = mpsc::channel();
    let seen = threads.clone();
    thread::spawn(move || -> Outcome<()> {
        seen.lock().push(this_thread()?);
        current_thread()?.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            known.send(listener.local_addr()?)?;
            let idle = Arc::new(Mutex::new(Vec::new()));
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let idle = idle.clone();
                let service = service_fn(move |request| pass(backend, idle.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        })
    });
    Ok(Subject { address: address.recv()?, threads })
}

type Idle = Arc<Mutex<Vec<client::SendRequest<Incoming>>>>;

async fn pass(backend: SocketAddr, idle: Idle, request: Request<Incoming>) -> Outcome<hyper::Response<Incoming>> {
    let reused = idle.lock().pop();
    let mut sender = match reused {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(backend).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = client::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender
        }
    };
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    idle.lock().push(sender);
    Ok(response)
}

/// Resolves and grants: all of the door, nothing of the token.
struct Granting(Arc<Store>);

impl Judge for Granting {
    async fn check(&self, request: &CheckRequest<'_>) -> Decision {
        let tables = self.0.load();
        let found = |api, resource| Found {
            tables: tables.clone(),
            api,
            resource,
            identity: None,
            application: None,
            subscription: None,
            key_type: KeyType::Production,
        };
        match tables.resolve(request.host, request.method, request.path) {
            Resolution::Found(target) => Ok(Grant {
                found: found(Some(target.api), Some(target.resource)),
                path: None,
                context_len: target.context_len as usize,
                query: ForwardQuery::AsSent,
                admitted: Admitted::default(),
            }),
            _ => Err(Box::new(Refusal { denial: Denial::NoApi, found: found(None, None) })),
        }
    }
}

fn shared(backend: SocketAddr, n: usize) -> Outcome<Shared<Granting>> {
    let api: ApiSettings = serde_json::from_value(json!({
        "name": "A", "context": "/api", "upstream": format!("http://{backend}"), "resources": [{ "path": "/*" }],
    }))?;
    let gate = GateSettings {
        trusted_proxies: Vec::new(),
        fault_format: FaultFormat::Wso2,
        realm: "tollgate".into(),
        strip_headers: Vec::new(),
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
    let tables = Snapshot::build(&settings, 1).map_err(|problems| format!("{problems:?}"))?;
    let store = Arc::new(Store::new(tables));
    let settings: Settings = serde_json::from_value(json!({ "listen": "127.0.0.1:0" }))?;
    let metrics = Arc::new(Metrics::new());
    Ok(Shared {
        judge: Arc::new(Granting(store.clone())),
        store,
        clock: Arc::new(Clock::new()),
        access_log: AccessLog::to(&LogSettings::default(), metrics.access_lines_dropped.clone(), io::sink())?,
        limiter: Arc::default(),
        metrics,
        assertions: Arc::default(),
        limits: Arc::new(ArcSwap::from_pointee(Limits::from(&settings))),
        room: Room::new(10_000, n),
        settings: Arc::new(ArcSwap::from_pointee(settings)),
        drain: Drain::new(),
    })
}

/// Answers every head with the same few bytes.
fn backend() -> Outcome<SocketAddr> {
    let (known, address) = mpsc::channel();
    thread::spawn(move || -> Outcome<()> {
        current_thread()?.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            known.send(listener.local_addr()?)?;
            let body = "x".repeat(420);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 420\r\n\r\n{body}");
            let answer: Arc<str> = answer.into();
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tokio::spawn(answer_all(stream, answer.clone()));
            }
        })
    });
    Ok(address.recv()?)
}

async fn answer_all(mut stream: TcpStream, answer: Arc<str>) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Ok(()),
            read => filled += read,
        }
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}

/// Asks over kept connections for `span`; how many answers came.
fn load(address: SocketAddr, span: Duration) -> Outcome<u64> {
    let (answers, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    current_thread()?.block_on(async {
        let asking: Vec<_> =
            (0..CONNECTIONS).map(|_| tokio::spawn(ask_all(address, answers.clone(), over.clone()))).collect();
        tokio::time::sleep(span).await;
        over.store(true, Relaxed);
        for each in asking {
            each.await??;
        }
        Ok(answers.load(Relaxed))
    })
}

async fn ask_all(address: SocketAddr, answers: Arc<AtomicU64>, over: Arc<AtomicBool>) -> io::Result<()> {
    let token = "t".repeat(700);
    let request = format!(
        "GET /api/items/42?x=1 HTTP/1.1\r\nHost: gate.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 << 10];
    while !over.load(Relaxed) {
        stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        while filled < 420 || !buffer[..filled].ends_with(b"xxxx") || !is_whole(&buffer[..filled]) {
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        if !buffer.starts_with(b"HTTP/1.1 200") {
            return Err(io::Error::other("refused"));
        }
        answers.fetch_add(1, Relaxed);
    }
    Ok(())
}

fn is_whole(answer: &[u8]) -> bool {
    memchr::memmem::find(answer, b"\r\n\r\n").is_some_and(|end| answer.len() == end + 4 + 420)
}

const CONNECTIONS: usize = 32;
const ROUNDS: usize = 3;
