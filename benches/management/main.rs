//! What the management API costs, against the program as a process: an embedded key manager, its record on a disk.
//!
//! 1. Writes: 64 callers, each creating one client after the other; how many acknowledged writes share a commit, as
//!    the record itself counts them. A commit waits for the disk once.
//! 2. Reads: a client and a key manager, against an empty axum route on a runtime of the same kind.
//! 3. The proxy with a known token: its 99th percentile beside 100 management writes a second, and without them. With
//!    the program on one core, as `peers` measures, before an nginx on the load's core; by itself (it answers what it
//!    lets pass), at some 12,000 requests a second, a quarter of what it can do, then with as many as it can answer, where
//!    whatever else runs on that core is felt most; and as it comes, with two cores, a worker for each, and whoever asks
//!    on the same ones.
//!
//! Where nothing else is said the program has one core, and the load the other.
//!
//! Prints each figure and what is wanted of it; fails where an answer is wrong.
//!
//! `cargo bench --bench management` (`ROUNDS=5`, `SECONDS=5`; `TOLLGATE_BIN=…` for a program built elsewhere). Needs
//! `taskset`, `wrk`, `nginx` and two cores; without them it says so, and measures nothing.

#[path = "../support/gate.rs"]
#[expect(dead_code, reason = "its memory is not looked at here")]
mod gate;
#[path = "../support/http.rs"]
#[expect(dead_code, reason = "requests are of other kinds here")]
mod http;
#[path = "../support/itself.rs"]
mod itself;
mod load;

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use axum::{Router, routing::get, serve::ListenerExt};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    time::sleep,
};

use gate::Gate;
use itself::{Running, itself_on, number};
use load::{Client, Pace, create, head, writes};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["bare"] => run(bare()),
        ["writes", key, prefix, seconds] => run(writes(key, prefix, Pace::Busy, seconds.parse()?)),
        ["steady", key, prefix, seconds] => run(writes(key, prefix, Pace::Steady, seconds.parse()?)),
        _ if words.contains(&"--bench") => match lacking() {
            Some(lacking) => {
                println!("management: SKIPPED, nothing is measured: {lacking}");
                Ok(())
            }
            None => run(measure(number("ROUNDS", 5), number("SECONDS", 5))),
        },
        // `cargo test --benches` starts us too.
        _ => {
            println!("management: run me with `cargo bench --bench management`");
            Ok(())
        }
    }
}

fn run(work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// What is needed, and not there.
fn lacking() -> Option<&'static str> {
    let runs = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    if !runs("wrk", &["--version"]) {
        return Some("there is no wrk");
    }
    if !runs("taskset", &["--version"]) {
        return Some("there is no taskset");
    }
    if !runs("nginx", &["-v"]) {
        return Some("there is no nginx");
    }
    std::thread::available_parallelism().map_or(true, |cores| cores.get() < 2).then_some("there is one core only")
}

async fn measure(rounds: u64, seconds: u64) -> Result<(), Error> {
    println!("{:<82} {:>10} {:>8}", "", "measured", "wanted");
    let place = Place::start(GATE_CORE, 1, seconds).await?;
    place.share_commits().await?;
    place.read(rounds).await?;
    place.disturb(Proxying::BeforeNginx, rounds).await?;
    place.disturb(Proxying::Paced, rounds).await?;
    place.disturb(Proxying::Full, rounds).await?;
    place.end()?;
    let place = Place::start(BOTH_CORES, 2, seconds).await?;
    place.disturb(Proxying::AsItComes, rounds).await?;
    place.end()
}

/// What the proxy does.
#[derive(Debug, Clone, Copy)]
enum Proxying {
    /// On one core, all that it can, before nginx on the load's.
    BeforeNginx,
    /// On one core, a quarter of what it can: each connection pauses after an answer.
    Paced,
    /// On one core, all that it can, and nothing behind it.
    Full,
    /// On two cores, those of the load too, all that they can.
    AsItComes,
}

impl Proxying {
    const fn name(self) -> &'static str {
        match self {
            Self::BeforeNginx => "one core, before nginx, as many as they can",
            Self::Paced => "one core, by itself, 12,000 a second",
            Self::Full => "one core, by itself, as many as it can",
            Self::AsItComes => "two cores and the load, as many as they can",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::BeforeNginx => "/nginx/a",
            _ => "/echo/a",
        }
    }

    const fn load(self) -> Load {
        match self {
            Self::Paced => Load { core: LOAD_CORE, pause_ms: Some(2) },
            Self::BeforeNginx | Self::Full => Load::FULL,
            Self::AsItComes => Load { core: BOTH_CORES, pause_ms: None },
        }
    }
}

/// How wrk asks.
#[derive(Debug, Clone, Copy)]
struct Load {
    core: &'static str,
    /// After each answer.
    pause_ms: Option<u32>,
}

impl Load {
    const FULL: Self = Self { core: LOAD_CORE, pause_ms: None };
}

/// The program, with a record on a disk.
struct Place {
    gate: Gate,
    /// Of the record. A disk, which the folder for temporary files need not be.
    dir: TempDir,
    /// The bootstrap key.
    key: String,
    /// How long each load lasts.
    seconds: u64,
    _nginx: Running,
}

impl Place {
    async fn start(cores: &str, workers: u64, seconds: u64) -> Result<Self, Error> {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let gate = Gate::start(&["taskset", "-c", cores], &configuration(dir.path(), workers), ADMIN_PORT).await?;
        let key = fs::read_to_string(dir.path().join("bootstrap.key"))?.trim().to_owned();
        let mut nginx = nginx(dir.path())?;
        reaches(&mut nginx, NGINX_PORT).await?;
        Ok(Self { gate, dir, key, seconds, _nginx: nginx })
    }

    async fn share_commits(&self) -> Result<(), Error> {
        let counted = async || -> Result<_, Error> {
            let [commits, changes] = ["tollgate_record_commits_total", "tollgate_record_changes_total"];
            Ok((self.gate.metric(commits).await?, self.gate.metric(changes).await?))
        };
        let before = counted().await?;
        let written = Written::told(self.load("writes", "many", self.seconds)?)?;
        let after = counted().await?;
        let (commits, changes) = (after.0 - before.0, after.1 - before.1);
        let per_commit = written.acknowledged as f64 / commits.max(1.0);
        row(&format!("writes a second, {CALLERS} callers"), written.per_second(), "");
        row("changes of the record a write", changes / written.acknowledged.max(1) as f64, "");
        row("commits a second", commits * 1e6 / written.micros.max(1) as f64, "");
        row("acknowledged writes a commit", per_commit, "≥ 16");
        Ok(())
    }

    async fn read(&self, rounds: u64) -> Result<(), Error> {
        let mut bare = itself_on(GATE_CORE, &[], &["bare"])?;
        reaches(&mut bare, BARE_PORT).await?;
        let bearer = Some(&*self.key);
        let mut made = Client::connect(MANAGEMENT_PORT).await?;
        let status = made.send(&create(&self.key, &format!(r#"{{"clientId":"{READ}","clientName":"read"}}"#))).await?;
        if status != 201 {
            return Err(format!("a client to be read: {status}").into());
        }
        let asked = [
            ("GET of a client", format!("{KEY_MANAGER}/clients/{READ}")),
            ("GET of the key manager", KEY_MANAGER.to_owned()),
        ];
        for (_, path) in &asked {
            let status = made.send(&format!("GET {path} {}", self.head(0))).await?;
            if status != 200 {
                return Err(format!("GET {path}: {status}").into());
            }
        }
        let mut ratios = [Vec::new(), Vec::new()];
        let (mut empty, mut read) = (Vec::new(), [Vec::new(), Vec::new()]);
        for _ in 0..rounds {
            let least = wrk(self.dir.path(), Load::FULL, (BARE_PORT, "/"), None, (CALLERS, self.seconds))?.per_second();
            empty.push(least);
            for ((_, path), (ratios, read)) in asked.iter().zip(ratios.iter_mut().zip(&mut read)) {
                let answered =
                    wrk(self.dir.path(), Load::FULL, (MANAGEMENT_PORT, path), bearer, (CALLERS, self.seconds))?
                        .per_second();
                read.push(answered);
                ratios.push(answered / least.max(1.0));
            }
        }
        row("an empty axum route, a second", median(&mut empty), "");
        for ((what, _), (ratios, read)) in asked.iter().zip(ratios.iter_mut().zip(&mut read)) {
            row(&format!("{what}, a second"), median(read), "");
            row(&format!("{what}, of an empty route ({})", listed(ratios)), median(ratios), "≥ 0.5");
        }
        Ok(())
    }

    async fn disturb(&self, proxying: Proxying, rounds: u64) -> Result<(), Error> {
        let (token, load) = (token().await?, proxying.load());
        let asked = (PROXY_PORT, proxying.path());
        let proxy = |seconds| wrk(self.dir.path(), load, asked, Some(&*token), (THROUGH_PROXY, seconds));
        // The token is known from here on.
        proxy(1)?;
        let (mut ratios, mut alone, mut disturbed) = (Vec::new(), Vec::new(), Vec::new());
        let mut rates = Vec::new();
        for round in 0..rounds {
            let without = || -> Result<_, Error> { Ok(proxy(self.seconds)?.p99_us) };
            let with = async || -> Result<_, Error> {
                // They begin before and end after what is measured.
                let (seconds, name) = ((self.seconds + 2).to_string(), format!("{proxying:?}-{round}"));
                // They give way to wrk, on whose core they are: it is the program that is measured.
                let running = itself_on(load.core, &["nice", "-n", "19"], &["steady", &self.key, &name, &seconds])?;
                sleep(Duration::from_secs(1)).await;
                let told = proxy(self.seconds)?;
                Ok((told.p99_us, Written::told(running)?.per_second()))
            };
            // Whoever is first has the cooler machine.
            let (quiet, (busy, rate)) = if round % 2 == 0 {
                (without()?, with().await?)
            } else {
                let busy = with().await?;
                (without()?, busy)
            };
            alone.push(quiet as f64);
            disturbed.push(busy as f64);
            rates.push(rate);
            ratios.push(busy as f64 / quiet.max(1) as f64);
        }
        let name = proxying.name();
        row(&format!("{name}: p99 in us, alone"), median(&mut alone), "");
        row(&format!("{name}: beside {:.0} writes a second", median(&mut rates)), median(&mut disturbed), "");
        row(&format!("{name}: times alone ({})", listed(&ratios)), median(&mut ratios), "≤ 1.25");
        Ok(())
    }

    /// Ends the program as its users do, so that one that is built to write a profile of itself does
    /// (`deploy/build.sh`).
    fn end(mut self) -> Result<(), Error> {
        Command::new("kill").args(["-TERM", &self.gate.child.id().to_string()]).status()?;
        self.gate.child.wait()?;
        Ok(())
    }

    /// A head's end, for so many bytes.
    fn head(&self, length: usize) -> String {
        head(&self.key, length)
    }

    /// Starts the bench itself as that load.
    fn load(&self, what: &str, prefix: &str, seconds: u64) -> Result<Running, Error> {
        itself_on(LOAD_CORE, &[], &[what, &self.key, prefix, &seconds.to_string()])
    }
}

fn row(what: &str, measured: f64, wanted: &str) {
    println!("{what:<82} {measured:>10.2} {wanted:>8}");
}

fn listed(ratios: &[f64]) -> String {
    ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" ")
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or_default()
}

fn configuration(dir: &Path, workers: u64) -> String {
    let record = dir.join("tollgate.redb");
    format!(
        r#"
        workers = {workers}
        [proxy]
        listen = "127.0.0.1:{PROXY_PORT}"
        drain_delay = "0"
        grace = "1s"
        [log]
        access_sample = 0.0
        [store]
        path = {record:?}
        [management]
        listen = "127.0.0.1:{MANAGEMENT_PORT}"
        [[key_managers]]
        name = "embedded"
        connector = "embedded"
        listen = "127.0.0.1:{PROVIDER_PORT}"
        issuer = "http://127.0.0.1:{PROVIDER_PORT}"
        audience = ["echo"]
        clients = [{{ id = "bench", secret = "demo-only-bench", scopes = ["a"] }}]
        [[apis]]
        name = "echo"
        context = "/echo"
        upstream = "echo:"
        subscription = "none"
        resources = [{{ path = "/*", methods = ["*"] }}]
        [[apis]]
        name = "nginx"
        context = "/nginx"
        upstream = "http://127.0.0.1:{NGINX_PORT}"
        subscription = "none"
        resources = [{{ path = "/*", methods = ["*"] }}]
        "#
    )
}

#[expect(clippy::disallowed_methods, reason = "a bench, and what it asks is its own")]
async fn token() -> Result<String, Error> {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
    let request = http.post(format!("http://127.0.0.1:{PROVIDER_PORT}/token"));
    let request = request.basic_auth("bench", Some("demo-only-bench")).form(&[("grant_type", "client_credentials")]);
    let answer: Value = request.send().await?.error_for_status()?.json().await?;
    Ok(answer["access_token"].as_str().ok_or("there is no token in the answer")?.to_owned())
}

/// What a load of writes tells.
struct Written {
    acknowledged: u64,
    micros: u64,
}

impl Written {
    fn told(load: Running) -> Result<Self, Error> {
        let [acknowledged, micros] = load.told()?;
        Ok(Self { acknowledged, micros })
    }

    fn per_second(&self) -> f64 {
        self.acknowledged as f64 * 1e6 / self.micros.max(1) as f64
    }
}

/// The upstream of `peers`, on the load's core.
fn nginx(dir: &Path) -> Result<Running, Error> {
    let text = include_str!("../peers/backend.conf").replace("{{dir}}", &dir.display().to_string());
    let text = text.replace("{{backend}}", &NGINX_PORT.to_string()).replace("{{body}}", &"x".repeat(420));
    let file = dir.join("nginx.conf");
    fs::write(&file, text)?;
    let mut command = Command::new("taskset");
    // One process, so that it ends with this one's child.
    command.args(["-c", LOAD_CORE, "nginx", "-g", "master_process off;", "-e", "stderr", "-c"]).arg(file);
    Running::start(command)
}

/// Waits until it listens.
async fn reaches(running: &mut Running, port: u16) -> Result<(), Error> {
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if running.has_ended()? {
            return Err(format!("what shall listen on {port} has ended").into());
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// What wrk tells.
struct Answers {
    requests: u64,
    micros: u64,
    p99_us: u64,
}

impl Answers {
    fn per_second(&self) -> f64 {
        self.requests as f64 * 1e6 / self.micros.max(1) as f64
    }
}

/// As many requests as are answered, over so many connections for so many seconds; none may fail.
fn wrk(
    dir: &Path,
    load: Load,
    (port, path): (u16, &str),
    bearer: Option<&str>,
    (connections, seconds): (usize, u64),
) -> Result<Answers, Error> {
    let script = dir.join("wrk.lua");
    let pause = load.pause_ms.map(|pause| format!("function delay() return {pause} end\n"));
    fs::write(&script, [include_str!("../peers/wrk.lua"), &pause.unwrap_or_default()].concat())?;
    let mut wrk = Command::new("taskset");
    wrk.args(["-c", load.core, "wrk", "--threads", "1", "--connections", &connections.to_string()]);
    wrk.args(["--duration", &format!("{seconds}s"), "--script"]).arg(script);
    if let Some(bearer) = bearer {
        wrk.args(["--header", &format!("Authorization: Bearer {bearer}")]);
    }
    let output = wrk.arg(format!("http://127.0.0.1:{port}{path}")).stdin(Stdio::null()).output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    let line = told.lines().find_map(|line| line.strip_prefix("peers "));
    let numbers: Option<Vec<u64>> = line.and_then(|line| line.split(' ').map(|number| number.parse().ok()).collect());
    match numbers.as_deref() {
        Some(&[requests, micros, _, p99_us, _, 0, 0]) if requests > 0 => Ok(Answers { requests, micros, p99_us }),
        Some(_) => Err(format!("{path}: requests have failed: {told}").into()),
        None => Err(format!("cannot read what wrk says: {told}").into()),
    }
}

/// The least there is: a route that does nothing, on a runtime like the one of the management door.
async fn bare() -> Result<(), Error> {
    let listener = TcpListener::bind(("127.0.0.1", BARE_PORT)).await?.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, Router::new().route("/", get(|| async {}))).await?)
}

const KEY_MANAGER: &str = "/v1/key-managers/embedded";
/// The client that is read.
const READ: &str = "bench-read";
const LOAD_CORE: &str = "0";
const GATE_CORE: &str = "1";
const BOTH_CORES: &str = "0,1";
const PROXY_PORT: u16 = 18_590;
const ADMIN_PORT: u16 = 18_591;
const MANAGEMENT_PORT: u16 = 18_592;
const PROVIDER_PORT: u16 = 18_593;
const BARE_PORT: u16 = 18_594;
const NGINX_PORT: u16 = 18_595;
/// Of the management API.
const CALLERS: usize = 64;
/// Connections through the proxy.
const THROUGH_PROXY: usize = 32;
