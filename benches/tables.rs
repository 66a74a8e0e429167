//! Tables at scale: 10,000 APIs of 100 resources, 200,000 applications, 1,000,000 subscriptions, from files of rows.
//!
//! Against the program as a process: from exec to ready, resident memory, the peak of a reload. In this process: what a
//! warm `check` costs more than with ten APIs, and a change of one row. Fails beyond the budgets.
//!
//! `cargo bench --bench tables` (`TOLLGATE_BIN=…` for a program built elsewhere)

#[path = "support/gate.rs"]
mod gate;
#[path = "support/rows.rs"]
mod rows;

use std::{
    fs,
    hint::black_box,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use gate::Gate;
use http::{HeaderValue, Method, header::AUTHORIZATION};
use rows::{RESOURCES, Size, subscribed};
use serde_json::json;
use tokio::{runtime::Runtime, time::sleep};
use tollgate::{
    authz::{Authorizer, CheckRequest},
    config::{self, TableFiles},
    net::{Clock, Fields, Now},
    store::{Change, Row, RowKey, Snapshot, Store},
    telemetry::Metrics,
    throttle::Limiter,
    token::{
        AnswerForm, Authenticator, Introspect, IntrospectFuture, IntrospectionAnswer, KeyManagers, KeySource, Sources,
    },
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Error = Box<dyn std::error::Error + Send + Sync>;

const LARGE: Size = Size { apis: 10_000, applications: 200_000, subscriptions: 1_000_000 };
const SMALL: Size = Size { apis: 10, applications: 10, subscriptions: 50 };
const ADMIN_PORT: u16 = 18_682;

const LOAD_S: f64 = 5.0;
const RESIDENT_MB: f64 = 400.0;
const PEAK: f64 = 2.0;
const SETTLED: f64 = 1.2;
const COST: f64 = 1.1;
const CHANGE_MS: f64 = 5.0;

fn main() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (large, small) = (tempfile::tempdir()?, tempfile::tempdir()?);
    rows::write(large.path(), LARGE, "UNBLOCKED")?;
    rows::write(small.path(), SMALL, "UNBLOCKED")?;
    let size: u64 = fs::read_dir(large.path())?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
    let Size { apis, applications, subscriptions } = LARGE;
    println!(
        "{apis} APIs x {RESOURCES} resources, {applications} applications, {subscriptions} subscriptions, {:.0} MB",
        size as f64 / 1e6
    );
    let mut missed = Vec::new();
    let mut tell = |what: &str, value: f64, unit: &str, most: f64| {
        println!("{what:<44} {value:>9.2} {unit:<3} (at most {most})");
        if value > most {
            missed.push(what.to_owned());
        }
    };
    let process = runtime.block_on(as_process(large.path()))?;
    println!("{:<44} {:>9.2} s", "exec to ready", process.ready.as_secs_f64());
    // What it takes of the processor: others may have it meanwhile. It is one thread that loads.
    tell("its processor time", process.processor, "s", LOAD_S);
    tell("resident", process.resident, "MB", RESIDENT_MB);
    tell("peak of a reload over it", process.peak / process.resident, "x", PEAK);
    tell("resident after it, over it", process.after / process.resident, "x", SETTLED);

    let (few, many) = (Engine::new(small.path(), SMALL)?, Engine::new(large.path(), LARGE)?);
    let (few_hot, many_hot) = compared(&few, &many, 1);
    println!("{:<44} {few_hot:>9.0} ns, {many_hot:.0} ns", "a warm check, few rows and many");
    tell("its cost with many rows", many_hot / few_hot, "x", COST);
    // Every row another one: what the caches of the processor miss.
    let (few_spread, many_spread) = compared(&few, &many, ASKED);
    println!("{:<44} {few_spread:>9.0} ns, {many_spread:.0} ns", "the same of 1024 callers and resources");
    for (what, mut times) in changes(&many)? {
        times.sort_unstable();
        let (median, most) = (times[CHANGES / 2], times[CHANGES * 19 / 20]);
        println!("{what:<44} {:>9.2} ms  (median of {CHANGES})", median.as_secs_f64() * 1e3);
        tell("  19 of 20 take at most", most.as_secs_f64() * 1e3, "ms", CHANGE_MS);
    }
    if missed.is_empty() { Ok(()) } else { Err(format!("missed: {}", missed.join(", ")).into()) }
}

/// What a process took; memory in MB.
struct Taken {
    ready: Duration,
    processor: f64,
    resident: f64,
    peak: f64,
    after: f64,
}

async fn as_process(folder: &Path) -> Result<Taken, Error> {
    let text = format!(
        r#"
        workers = 1
        [tables]
        files = ["{}/*.ndjson"]
        [proxy]
        listen = "127.0.0.1:18681"
        {EMBEDDED}
        "#,
        folder.display()
    );
    let begun = Instant::now();
    let gate = Gate::start(&[], &text, ADMIN_PORT).await?;
    let (ready, processor) = (begun.elapsed(), processor_s(&gate)?);
    sleep(Duration::from_millis(500)).await;
    let resident = gate.resident()? as f64 / 1e6;

    let next = tempfile::tempdir()?;
    let mut peak = 0.0_f64;
    for (n, state) in ["BLOCKED", "UNBLOCKED", "ON_HOLD"].into_iter().enumerate() {
        rows::write(next.path(), LARGE, state)?;
        reset_peak(&gate)?;
        // Beside it first: the folders may be of two file systems.
        fs::copy(next.path().join("subscriptions.ndjson"), folder.join("next"))?;
        fs::rename(folder.join("next"), folder.join("subscriptions.ndjson"))?;
        let (end, begun) = (Instant::now() + Duration::from_secs(30), Instant::now());
        while gate.metric("tollgate_config_reloads_total{outcome=\"ok\"}").await? <= n as f64 {
            if Instant::now() > end {
                return Err("the reload never came".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        let took = begun.elapsed().as_secs_f64();
        sleep(Duration::from_millis(500)).await;
        let (most, after) = (peak_of(&gate)? as f64 / 1e6, gate.resident()? as f64 / 1e6);
        println!("reload {}: {took:>6.2} s, peak {most:.0} MB, then {after:.0} MB", n + 1);
        peak = peak.max(most);
    }
    for seconds in [5, 10] {
        sleep(Duration::from_secs(5)).await;
        println!("{seconds:>2} s later: {:.0} MB", gate.resident()? as f64 / 1e6);
    }
    Ok(Taken { ready, processor, resident, peak, after: gate.resident()? as f64 / 1e6 })
}

/// Seconds of processor time so far.
fn processor_s(gate: &Gate) -> Result<f64, Error> {
    let text = fs::read_to_string(format!("/proc/{}/stat", gate.child.id()))?;
    let (_, fields) = text.rsplit_once(") ").ok_or("no stat")?;
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    // Linux counts in hundredths.
    Ok(ticks as f64 / 100.0)
}

/// The most bytes that were resident since the last reset.
fn peak_of(gate: &Gate) -> Result<u64, Error> {
    let text = fs::read_to_string(format!("/proc/{}/status", gate.child.id()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn reset_peak(gate: &Gate) -> Result<(), Error> {
    Ok(fs::write(format!("/proc/{}/clear_refs", gate.child.id()), "5")?)
}

/// An engine with tables of a size, and what it is asked.
struct Engine {
    authorizer: Authorizer,
    runtime: Runtime,
    now: Now,
    asked: Vec<(String, Fields)>,
}

impl Engine {
    fn new(folder: &Path, size: Size) -> Result<Self, Error> {
        let file = folder.join("tollgate.toml");
        fs::write(&file, format!("[tables]\nfiles = ['*.ndjson']\n[proxy]\nlisten = '127.0.0.1:0'\n{ASKED_PROVIDER}"))?;
        let (settings, _) = config::load(&file)?;
        let (gate, names) = (settings.gate(), settings.key_manager_names());
        let told = |problems| format!("{problems:?}");
        let mut files = TableFiles::open(&settings).map_err(told)?;
        let tables = Snapshot::build_with(&settings.tables(&gate, &names), &mut files, 1).map_err(told)?;
        let tokens = Authenticator::new(&settings.cache, &prometheus::Registry::new())?;
        let sources = || Sources { keys: KeySource::NONE, introspection: Some(Arc::new(Provider)) };
        let managers = settings.key_managers.iter().map(|manager| (manager.clone(), sources())).collect();
        let _no_task_without_a_set = tokens.replace(KeyManagers::build(managers, &Arc::from([])).map_err(told)?);
        let authorizer = Authorizer {
            store: Arc::new(Store::new(tables)),
            tokens: Arc::new(tokens),
            limiter: Arc::new(Limiter::new()),
            metrics: Arc::new(Metrics::new()),
        };
        let mut random = fastrand::Rng::with_seed(11);
        // Every fourth has the tier with room for all of them.
        let rows = std::iter::repeat_with(|| random.usize(..size.subscriptions / 4) * 4).take(ASKED);
        let asked = rows.map(|row| {
            let (application, api) = subscribed(row, size);
            (rows::path(api, row % RESOURCES / 2 * 2), headers_of(&rows::consumer_key(application)))
        });
        let asked = asked.collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(Self { authorizer, runtime, now: Clock::new().now(), asked })
    }

    fn check(&self, n: usize) -> bool {
        let (path, headers) = &self.asked[n];
        self.ask(path, headers)
    }

    fn ask(&self, path: &str, headers: &Fields) -> bool {
        let request = CheckRequest {
            method: &Method::GET,
            host: "api.example.com",
            path,
            query: None,
            headers,
            client: None,
            now: self.now,
        };
        self.runtime.block_on(self.authorizer.check(black_box(&request), &mut ())).is_ok()
    }

    /// Nanoseconds of a check, in one round over so many of what is asked.
    fn round(&self, among: usize) -> f64 {
        let begun = Instant::now();
        let granted = (0..CHECKS).filter(|n| self.check(n % among)).count();
        assert_eq!(granted, CHECKS, "every check is granted");
        begun.elapsed().as_secs_f64() * 1e9 / CHECKS as f64
    }
}

fn headers_of(token: &str) -> Fields {
    let field = HeaderValue::try_from(format!("Bearer {token}")).expect("letters and digits");
    Fields::from_iter([(AUTHORIZATION, field)])
}

/// The best of several rounds of each, taken in turn.
fn compared(few: &Engine, many: &Engine, among: usize) -> (f64, f64) {
    (0..ROUNDS).fold((f64::MAX, f64::MAX), |(a, b), _| (few.round(among).min(a), many.round(among).min(b)))
}

/// How long changes of one row take, each seen by the very next check.
fn changes(engine: &Engine) -> Result<Vec<(&'static str, Vec<Duration>)>, Error> {
    let store = &engine.authorizer.store;
    let apply = |change: Change| {
        let begun = Instant::now();
        store.apply(&change).map_err(|problems| format!("{problems:?}"))?;
        Ok::<Duration, Error>(begun.elapsed())
    };
    let mut times: [Vec<Duration>; 4] = Default::default();
    for n in 0..CHANGES {
        // Every fourth subscription has the tier with room.
        let (application, api) = subscribed(n * 4, LARGE);
        let (name, id) = (format!("application-{application}"), format!("Api{api}:v1"));
        let headers = headers_of(&rows::consumer_key(application));
        let path = rows::path(api, 0);
        let passes = || engine.ask(&path, &headers);
        let subscription = json!({"application": name, "api": id, "tier": "Counted"});
        assert!(passes(), "it is subscribed");
        let key = RowKey::Subscription { application: name, api: id };
        times[0].push(apply(Change::Remove(key))?);
        assert!(!passes(), "the next check sees it");
        let row = Row::Subscription(serde_json::from_value(subscription)?);
        times[1].push(apply(Change::Insert(row))?);
        assert!(passes(), "and that it is back");
        let new = json!({"name": format!("new-{n}"), "owner": "o", "keys": [{"consumer_key": format!("new-{n}")}]});
        times[2].push(apply(Change::Insert(Row::Application(serde_json::from_value(new)?)))?);
        let new = json!({
            "name": format!("New{n}"), "context": format!("/new{n}"), "upstream": "http://127.0.0.1:3000",
            "subscription": "none", "resources": [{"path": "/a"}, {"path": "/b/{id}"}],
        });
        times[3].push(apply(Change::Insert(Row::Api(Box::new(serde_json::from_value(new)?))))?);
        assert!(engine.ask(&format!("/new{n}/b/1"), &headers), "the next check sees it");
    }
    let what = ["a subscription removed", "a subscription added", "an application added", "an API added"];
    Ok(what.into_iter().zip(times).collect())
}

const CHANGES: usize = 200;
const ASKED: usize = 1024;
const CHECKS: usize = 20 * ASKED;
const ROUNDS: usize = 25;

/// Every token is the consumer key of its application, and good.
#[derive(Debug)]
struct Provider;

impl Introspect for Provider {
    fn introspect<'a>(&'a self, token: &'a str) -> IntrospectFuture<'a> {
        Box::pin(async move {
            let body = json!({
                "active": true, "sub": token, "client_id": token, "scope": rows::scopes(), "exp": 9_000_000_000_u64,
            });
            Ok(IntrospectionAnswer { body: body.to_string().into(), form: AnswerForm::Json })
        })
    }
}

const EMBEDDED: &str = r#"
[[key_managers]]
name = "embedded"
connector = "embedded"
listen = "127.0.0.1:18683"
issuer = "http://127.0.0.1:18683"
audience = ["echo"]
[[tiers]]
name = "Counted"
requests = 2_000_000_000
per = "1d"
"#;

const ASKED_PROVIDER: &str = r#"
[[key_managers]]
name = "idp"
connector = "oidc"
issuer = "https://idp.example.com/realms/shop"
validation = "introspect"
discovery = false
introspection_endpoint = "https://idp.example.com/introspect"
[[tiers]]
name = "Counted"
requests = 2_000_000_000
per = "1d"
[[tiers]]
name = "50PerMin"
requests = 2_000_000_000
per = "1d"
"#;
