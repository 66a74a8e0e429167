//! The price of being seen: what metrics and access lines cost a request.
//!
//! `cargo bench --bench seen` prints two tables. *Calls*: CPU time of what is done for every request, in process, in the
//! worker and in all threads together, with one worker and with two that count at the same time; beside it the same
//! done otherwise: counters and histograms that workers share (the crate's own), and an access line whose parts are
//! handed to a thread that formats them. *Served*: CPU time of the program a request with the access log on and
//! off, rounds interleaved (`served` alone is an argument; `ROUNDS=3`, `SECONDS=4`; `TOLLGATE_BIN=…` for a program
//! built elsewhere): an API without a token on the built-in upstream, the least that a request can cost, so that the
//! share is the largest there is: 1.02 times as much, 1.02 to 1.05 in three runs.
//! Metrics cannot be turned off; their share is the calls'.
//!
//! Times on a machine that does other things are rough. Instructions are not: `call NAME N` as arguments of
//! the built bench does one of the calls N times, for `valgrind --tool=callgrind`, and the difference between two N is
//! what they take.
//!
//! As measured (release profile, two cores shared with others; instructions are of all threads):
//!
//! | call | instructions | ns, one worker | ns, two |
//! |---|---|---|---|
//! | count a request | 48 | 3.0 | 3.0 |
//! | … shared | 10 | 1.7 | 15 |
//! | time of a verdict | 25 | 4.9 | 4.7 |
//! | … shared | 62 | 8.7 | 140 to 200 |
//! | what a line needs, kept and dropped | 368 | 91 | 92 |
//! | the same, and the line formatted by the worker | 2,723 | 379, all threads 653 | 362, all threads 531 |
//! | the same, handed over and formatted elsewhere | 3,056 | 81, all threads 718 | 82, all threads 626 |
//!
//! A line handed over relieves its worker by 0.3 µs where another core is idle, and costs more in all: with a worker on
//! each core, or a quota, that is what counts. So lines are formatted in place.

#[path = "support/gate.rs"]
#[expect(dead_code, reason = "nobody looks at memory here")]
mod gate;
#[path = "support/http.rs"]
#[expect(dead_code, reason = "no token is sent here")]
mod http_client;

use std::{
    env,
    hint::black_box,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Uri};
use parking_lot::Mutex;
use prometheus::{Histogram, HistogramOpts, IntCounter};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::TcpStream,
    runtime::Builder,
};
use tollgate::telemetry::{AccessLine, AccessLog, ApiCounters, Door, LogSettings, Metrics, enter_lane};

use gate::Gate;
use http_client::answer;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["call", name, times] => {
            let (calls, _) = calls()?;
            let call = calls.iter().find(|call| call.name == name).ok_or("no such call")?;
            call.repeat(times.parse()?);
            (call.settle)();
        }
        _ if words.contains(&"--bench") => {
            table(CALLS)?;
            compare()?;
        }
        ["served"] => compare()?,
        // `cargo test --benches` starts us too.
        _ => table(100)?,
    }
    Ok(())
}

/// Something that is done for a request.
struct Call {
    name: &'static str,
    /// How often it may be done in a row; more would be dropped.
    burst: u64,
    run: Box<dyn Fn() + Send + Sync>,
    /// Waits until others have done their part of it.
    settle: Box<dyn Fn() + Send + Sync>,
}

impl Call {
    fn repeat(&self, mut times: u64) {
        while times > 0 {
            let burst = times.min(self.burst);
            (0..burst).for_each(|_| (self.run)());
            times -= burst;
            if self.burst < u64::MAX {
                thread::sleep(PAUSE);
            }
        }
    }
}

fn calls() -> Result<(Vec<Call>, IntCounter), Error> {
    let metrics = Arc::new(Metrics::new());
    let mut calls = Vec::new();
    let mut call = |name: &'static str, run: Box<dyn Fn() + Send + Sync>, settle: Box<dyn Fn() + Send + Sync>| {
        let burst = if name.starts_with("line") { BURST } else { u64::MAX };
        calls.push(Call { name, burst, run, settle });
    };
    let nothing = || Box::new(|| {});

    let (counted, counters) = (Arc::clone(&metrics), ApiCounters::default());
    let count = move || counted.count_request(black_box(&counters), Door::Proxy, "Orders", 0, "granted", "granted");
    call("count", Box::new(count), nothing());
    let shared = IntCounter::new("shared_total", "Shared.")?;
    call("count, shared", Box::new(move || black_box(&shared).inc()), nothing());

    let timed = Arc::clone(&metrics);
    call("time", Box::new(move || timed.check_duration.observe(black_box(TOOK))), nothing());
    let buckets = [1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0].map(|micros| micros / 1e6).to_vec();
    let shared = Histogram::with_opts(HistogramOpts::new("shared_seconds", "Shared.").buckets(buckets))?;
    call("time, shared", Box::new(move || shared.observe(black_box(TOOK).as_secs_f64())), nothing());

    let tables = Arc::new(());
    let seen = Seen::new(&tables);
    call("line, not sampled", Box::new(move || drop(black_box(Box::new(seen.clone())))), nothing());
    let log = AccessLog::to(&LogSettings::default(), metrics.access_lines_dropped.clone(), io::sink())?;
    let seen = Seen::new(&tables);
    let line = move || {
        let seen = black_box(Box::new(seen.clone()));
        log.write(&seen.line());
    };
    call("line", Box::new(line), nothing());
    let other = Arc::new(Formatter::start(metrics.access_lines_dropped.clone())?);
    let (seen, settled) = (Seen::new(&tables), Arc::clone(&other));
    let handed = move || other.take(black_box(Box::new(seen.clone())));
    call("line, handed over", Box::new(handed), Box::new(move || settled.settle()));
    Ok((calls, metrics.access_lines_dropped.clone()))
}

/// What a request keeps for its line; a box of it lives as long as the request does anyway.
#[derive(Clone)]
struct Seen {
    method: Method,
    uri: Uri,
    request_id: HeaderValue,
    /// Names stand in the tables.
    _tables: Arc<()>,
}

impl Seen {
    fn new(tables: &Arc<()>) -> Self {
        Self {
            method: Method::GET,
            uri: Uri::from_static("/orders/v1/items/4711?page=2"),
            request_id: HeaderValue::from_static("0192f3a4-7c1e-7b52-9d3f-6a0e8c4b2d10"),
            _tables: Arc::clone(tables),
        }
    }

    fn line(&self) -> AccessLine<'_> {
        AccessLine {
            unix_ms: 1_792_000_123_045,
            request_id: self.request_id.to_str().unwrap_or_default(),
            trace_id: None,
            client: Some(IpAddr::from([192, 0, 2, 7])),
            method: self.method.as_str(),
            path: self.uri.path(),
            protocol: "HTTP/1.1",
            status: 200,
            reason: "granted",
            api: Some("Orders"),
            version: Some("v1"),
            template: Some("/items/{id}"),
            application: Some("shop-web"),
            key_type: Some("PRODUCTION"),
            tier: Some("Gold"),
            over_quota: false,
            verdict_us: 2,
            upstream_us: Some(311),
            duration_us: 340,
            bytes_out: 1024,
        }
    }
}

/// The other way: a thread that is handed what requests keep, formats it and drops it.
#[expect(clippy::vec_box, reason = "it is the request's own box that changes hands")]
struct Formatter {
    waiting: Arc<[Mutex<Vec<Box<Seen>>>]>,
    idle: Arc<AtomicBool>,
}

impl Formatter {
    fn start(dropped: IntCounter) -> Result<Self, Error> {
        let log = AccessLog::to(&LogSettings::default(), dropped, io::sink())?;
        let waiting: Arc<[_]> = (0..WORKERS).map(|_| Mutex::default()).collect();
        let idle = Arc::new(AtomicBool::new(true));
        let (theirs, done) = (Arc::clone(&waiting), Arc::clone(&idle));
        thread::spawn(move || {
            let mut batch = Vec::new();
            loop {
                let mut found = false;
                for waiting in &*theirs {
                    std::mem::swap(&mut *waiting.lock(), &mut batch);
                    found |= !batch.is_empty();
                    batch.drain(..).for_each(|seen: Box<Seen>| log.write(&seen.line()));
                }
                done.store(!found, Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        Ok(Self { waiting, idle })
    }

    fn take(&self, seen: Box<Seen>) {
        let worker = WORKER.get() % WORKERS;
        let mut waiting = self.waiting[worker].lock();
        // A real one would drop lines; here each is to be paid for.
        while waiting.len() >= MOST_WAITING {
            drop(waiting);
            thread::sleep(Duration::from_millis(1));
            waiting = self.waiting[worker].lock();
        }
        waiting.push(seen);
    }

    fn settle(&self) {
        self.idle.store(false, Relaxed);
        while !self.idle.load(Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

thread_local! {
    static WORKER: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Prints what each call takes.
fn table(lines: u64) -> Result<(), Error> {
    println!("{:<22} {:>12} {:>14} {:>14}", "call", "workers", "worker, ns", "process, ns");
    let (calls, dropped) = calls()?;
    for call in calls {
        let times = if call.burst < u64::MAX { lines } else { 10 * lines };
        for workers in [1, WORKERS] {
            let before = now(ClockId::ProcessCPUTime);
            let own: Duration = thread::scope(|threads| {
                let run = |worker| {
                    let call = &call;
                    move || {
                        enter_lane(worker);
                        WORKER.set(worker);
                        let before = now(ClockId::ThreadCPUTime);
                        call.repeat(times);
                        now(ClockId::ThreadCPUTime).saturating_sub(before)
                    }
                };
                let all: Vec<_> = (0..workers).map(|worker| threads.spawn(run(worker))).collect();
                all.into_iter().filter_map(|thread| thread.join().ok()).sum()
            });
            (call.settle)();
            let process = now(ClockId::ProcessCPUTime).saturating_sub(before);
            let each = |time: Duration| time.as_nanos() as f64 / (times * workers as u64) as f64;
            println!("{:<22} {workers:>12} {:>14.1} {:>14.1}", call.name, each(own), each(process));
        }
    }
    if dropped.get() > 0 {
        println!("{} lines were dropped, which is cheaper than to write them: the machine is too busy", dropped.get());
    }
    Ok(())
}

fn now(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let part = |value| u64::try_from(value).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

fn compare() -> Result<(), Error> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(served(number("ROUNDS", 3), Duration::from_secs(number("SECONDS", 4))))
}

/// Prints what a request costs the program with the access log on and off.
async fn served(rounds: u64, span: Duration) -> Result<(), Error> {
    let on = Gate::start(&[], &configuration(18_681, 1.0), 18_682).await?;
    let off = Gate::start(&[], &configuration(18_683, 0.0), 18_684).await?;
    println!("\n{:<22} {:>12} {:>14}", "access log", "requests/s", "CPU µs/req");
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (n, (name, gate, port)) in [("on", &on, 18_681), ("off", &off, 18_683)].into_iter().enumerate() {
            let before = gate.metric("process_cpu_seconds_total").await?;
            let begun = Instant::now();
            let requests = load(port, span).await?;
            let rate = requests as f64 / begun.elapsed().as_secs_f64();
            let cost = (gate.metric("process_cpu_seconds_total").await? - before) * 1e6 / requests as f64;
            println!("{name:<22} {rate:>12.0} {cost:>14.2}");
            costs[n].push(cost);
        }
    }
    let [on, off] = costs.map(|mut costs| {
        costs.sort_by(f64::total_cmp);
        costs[costs.len() / 2]
    });
    println!("medians: on {on:.2}, off {off:.2}, ratio {:.3}", on / off);
    Ok(())
}

fn configuration(port: u16, sample: f64) -> String {
    format!(
        "workers = 1\n[proxy]\nlisten = \"127.0.0.1:{port}\"\n[log]\naccess_sample = {sample:.1}\n\
         [[apis]]\nname = \"Echo\"\ncontext = \"/echo\"\nupstream = \"echo:\"\n\
         [[apis.resources]]\npath = \"/{{id}}\"\nauth = \"none\"\n"
    )
}

/// Asks on connections that are kept, as fast as answers come; how many there were.
async fn load(port: u16, span: Duration) -> Result<u64, Error> {
    let end = Instant::now() + span;
    let ask = || async move {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (read, mut write) = stream.into_split();
        let (mut read, mut requests) = (BufReader::new(read), 0);
        while Instant::now() < end {
            write.write_all(b"GET /echo/a HTTP/1.1\r\nhost: a\r\n\r\n").await?;
            let status = answer(&mut read).await?;
            if status != 200 {
                return Err(Error::from(format!("status {status}")));
            }
            requests += 1;
        }
        Ok::<u64, Error>(requests)
    };
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(ask())).collect();
    let mut all = 0;
    for client in clients {
        all += client.await??;
    }
    Ok(all)
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How many lines are written; what is cheaper is done ten times as often.
const CALLS: u64 = 200_000;
/// As many lines as wait for the writer without loss, and what it needs to write them.
const BURST: u64 = 500;
const PAUSE: Duration = Duration::from_millis(2);
const WORKERS: usize = 2;
const CONNECTIONS: usize = 32;
/// Some thousand lines, as the access log holds.
const MOST_WAITING: usize = 4096;
/// A verdict on a warm token.
const TOOK: Duration = Duration::from_nanos(1_700);
