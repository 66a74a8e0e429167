//! What first sights do to requests with known tokens, against the program as a process: one worker on a core of its
//! own, and on the other the load. Known tokens at a steady rate, beside (a) nothing else, (b) 2,000 new RS256 tokens a
//! second, (c) 20,000 a second, more than can be verified. Prints latencies of the known ones and what became
//! of the new ones; fails where an answer is wrong, or where in the median of the rounds the 99th percentile is beyond
//! 2 × (b) or 3 × (c) of (a).
//!
//! `cargo bench --bench first_sight` (`ROUNDS=5`, `SECONDS=5`; `TOLLGATE_BIN=…` for a program built elsewhere). Needs
//! `taskset` and two cores. Where the system allows it (`chrt`), the gate and whoever measures it have real-time
//! priority, so that the load, which waits for its times without sleeping, does not delay the clock.

#[path = "support/gate.rs"]
mod gate;
#[path = "support/http.rs"]
mod http;
#[path = "support/itself.rs"]
#[expect(dead_code, reason = "a load's end is waited for")]
mod itself;

use std::{
    collections::VecDeque,
    env, fs,
    path::Path,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{KeyPair, RSA_PKCS1_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Builder,
    sync::Semaphore,
    task::yield_now,
    time::sleep,
};

use gate::Gate;
use http::{answer, request};
use itself::{Running, itself_on, number};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["known", file, seconds] => run(known(tokens(file)?, seconds.parse()?)),
        ["new", file, rate, seconds] => run(new(tokens(file)?, rate.parse()?, seconds.parse()?)),
        _ if words.contains(&"--bench") => run(compare(number("ROUNDS", 3), number("SECONDS", 5))),
        // `cargo test --benches` starts us too.
        _ => {
            println!("first_sight: run me with `cargo bench --bench first_sight`");
            Ok(())
        }
    }
}

fn run(work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// What new tokens there are beside the known ones.
#[derive(Debug, Clone, Copy)]
struct Beside {
    name: &'static str,
    /// A second.
    rate: u64,
    /// Of the 99th percentile, times that without new ones.
    budget: f64,
}

const BESIDE: [Beside; 3] = [
    Beside { name: "known alone", rate: 0, budget: f64::INFINITY },
    Beside { name: "2,000 new/s", rate: 2000, budget: 2.0 },
    Beside { name: "beyond capacity", rate: 20_000, budget: 3.0 },
];

async fn compare(rounds: u64, seconds: u64) -> Result<(), Error> {
    let dir = tempfile::tempdir()?;
    let real_time = Command::new("chrt").args(["-f", "10", "true"]).status().is_ok_and(|status| status.success());
    eprintln!("signing {MANY} tokens; real-time priority: {real_time}");
    prepare(dir.path())?;
    println!(
        "{:<18} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>9} {:>9} {:>6} {:>7}",
        "beside", "known", "p50 us", "p99 us", "× p50", "× p99", "new sent/s", "passed", "shed", "wrong", "RSS MB"
    );
    let mut ratios = BESIDE.map(|_| Vec::new());
    for round in 1..=rounds {
        let mut alone = None;
        for (beside, ratios) in BESIDE.iter().zip(&mut ratios) {
            let (told, resident) = measure(dir.path(), *beside, seconds, real_time).await?;
            let [count, p50, p99, wrong_known, rate, passed, shed, wrong] = told;
            let &mut (a50, a99) = alone.get_or_insert((p50, p99));
            let times = |is: u64, was: u64| is as f64 / was.max(1) as f64;
            println!(
                "{:<18} {count:>8} {p50:>8} {p99:>8} {:>8.2} {:>8.2} {:>10} {passed:>9} {shed:>9} {:>6} {:>7.1}",
                beside.name,
                times(p50, a50),
                times(p99, a99),
                rate,
                wrong + wrong_known,
                resident as f64 / 1e6
            );
            if wrong + wrong_known > 0 {
                return Err(format!("round {round}, {}: wrong answers", beside.name).into());
            }
            ratios.push(times(p99, a99));
        }
    }
    for (beside, ratios) in BESIDE.iter().zip(&mut ratios) {
        ratios.sort_unstable_by(f64::total_cmp);
        let median = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
        println!("{:<18} p99 × {median:.2} in the median of {rounds} rounds, wanted ≤ {}", beside.name, beside.budget);
        if median > beside.budget {
            return Err(format!("{}: the 99th percentile is beyond its budget", beside.name).into());
        }
    }
    Ok(())
}

/// One run against a gate that has seen nothing: what both loads tell, and the gate's memory at its end.
async fn measure(dir: &Path, beside: Beside, seconds: u64, real_time: bool) -> Result<([u64; 8], u64), Error> {
    let text = fs::read_to_string(dir.join("tollgate.toml"))?;
    let (urgent, behind): (&[&str], &[&str]) =
        if real_time { (&["chrt", "-f", "10"], &[]) } else { (&[], &["nice", "-n", "19"]) };
    let gate = Gate::start(&[&["taskset", "-c", "1"], urgent].concat(), &text, ADMIN_PORT).await?;
    let load = |by: &[&str], arguments: &[&str]| itself_on("0", by, arguments);
    let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let (known_tokens, new_tokens) = (file("known"), file("new"));
    // The new ones begin before and end after what is measured.
    let (rate, longer) = (beside.rate.to_string(), (seconds + 2).to_string());
    let new = (beside.rate > 0).then(|| load(behind, &["new", &new_tokens, &rate, &longer])).transpose()?;
    sleep(Duration::from_millis(500)).await;
    let known = load(urgent, &["known", &known_tokens, &seconds.to_string()])?;
    let mut both = known.told::<4>()?.to_vec();
    let of_new = new.map(Running::told::<4>).transpose()?;
    both.extend(of_new.unwrap_or_default());
    if both[6] > 0 {
        let series = "tollgate_requests_total{api=\"Echo\",door=\"proxy\",outcome=\"failed\",reason=\"overloaded\"}";
        let counted = gate.metric(series).await?;
        if counted < both[6] as f64 {
            return Err(format!("{} were shed, and {counted} counted", both[6]).into());
        }
    }
    Ok((both.try_into().map_err(|_| "a load tells something else")?, gate.resident()?))
}

/// An open connection.
struct Client {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Client {
    async fn connect() -> Result<Self, Error> {
        let stream = TcpStream::connect(("127.0.0.1", GATE_PORT)).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Self { read: BufReader::new(read), write })
    }

    async fn send(&mut self, token: &str) -> Result<u16, Error> {
        self.write.write_all(request(token).as_bytes()).await?;
        answer(&mut self.read).await
    }
}

/// Brings known tokens, each over a connection of its own and every few milliseconds: how many, the median and the 99th
/// percentile in microseconds, and how many were answered with something else than 200.
async fn known(tokens: Vec<String>, seconds: u64) -> Result<(), Error> {
    let clients = tokens.into_iter().map(|token| {
        tokio::spawn(async move {
            let mut client = Client::connect().await?;
            let (mut taken, mut wrong) = (Vec::new(), 0);
            // Known from here on.
            while client.send(&token).await? == 503 {
                sleep(Duration::from_millis(20)).await;
            }
            sleep(Duration::from_millis(300)).await;
            let end = Instant::now() + Duration::from_secs(seconds);
            while Instant::now() < end {
                let begun = Instant::now();
                wrong += u64::from(client.send(&token).await? != 200);
                taken.push(u64::try_from(begun.elapsed().as_micros())?);
                sleep(Duration::from_millis(fastrand::u64(2..=6))).await;
            }
            Ok::<_, Error>((taken, wrong))
        })
    });
    let (mut taken, mut wrong) = (Vec::new(), 0);
    for client in clients.collect::<Vec<_>>() {
        let (of_one, wrong_of_one) = client.await??;
        taken.extend(of_one);
        wrong += wrong_of_one;
    }
    taken.sort_unstable();
    let at = |share: usize| taken.get(taken.len() * share / 100).copied().unwrap_or(0);
    println!("{} {} {} {wrong}", taken.len(), at(50), at(99));
    Ok(())
}

/// Brings new tokens, so many a second and evenly, however long answers take: how many a second were sent, how many
/// passed, were shed, and were answered with something else. One that is shed is brought again later: it must be as new
/// as before.
async fn new(tokens: Vec<String>, rate: u64, seconds: u64) -> Result<(), Error> {
    // As many as can be under way: enough to fill the line.
    let connections = usize::try_from(rate / 10)?.max(STEADY);
    let pool = Arc::new(Mutex::new(VecDeque::from(tokens)));
    let due = Arc::new(Semaphore::new(0));
    let mut clients = Vec::new();
    for _ in 0..connections {
        let (mut client, pool, due) = (Client::connect().await?, Arc::clone(&pool), Arc::clone(&due));
        clients.push(tokio::spawn(async move {
            let mut told = [0; 4];
            // Until it is closed: the time is over.
            while let Ok(permit) = due.acquire().await {
                permit.forget();
                let token = pool.lock().pop_front().ok_or("there are no new tokens left")?;
                told[0] += 1;
                match client.send(&token).await? {
                    200 => told[1] += 1,
                    503 => {
                        told[2] += 1;
                        pool.lock().push_back(token);
                    }
                    _ => told[3] += 1,
                }
            }
            Ok::<_, Error>(told)
        }));
    }
    // Timers tick in milliseconds, which would send them in volleys.
    let (begun, mut sent) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let due_by_now = usize::try_from(begun.elapsed().as_micros() * u128::from(rate) / 1_000_000)?;
        due.add_permits(due_by_now - sent);
        sent = due_by_now;
        yield_now().await;
    }
    due.close();
    let mut told = [0_u64; 4];
    for client in clients {
        let of_one = client.await??;
        told.iter_mut().zip(of_one).for_each(|(all, one)| *all += one);
    }
    let [sent, passed, shed, wrong] = told;
    println!("{} {passed} {shed} {wrong}", sent / seconds);
    Ok(())
}

fn tokens(file: &str) -> Result<Vec<String>, Error> {
    Ok(fs::read_to_string(file)?.lines().map(str::to_owned).collect())
}

/// A key, its set, the configuration, and tokens signed before anything is measured.
fn prepare(dir: &Path) -> Result<(), Error> {
    let key = RsaKeyPair::generate(KeySize::Rsa2048)?;
    let public = key.public_key();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({
        "kty": "RSA", "kid": "r", "use": "sig", "alg": "RS256",
        "n": encode(public.modulus().big_endian_without_leading_zero()),
        "e": encode(public.exponent().big_endian_without_leading_zero()),
    });
    let jwks = dir.join("jwks.json");
    fs::write(&jwks, json!({ "keys": [jwk] }).to_string())?;
    fs::write(
        dir.join("tollgate.toml"),
        format!(
            "workers = 1\n[proxy]\nlisten = \"127.0.0.1:{GATE_PORT}\"\n[log]\naccess_sample = 0.0\n\
             [[key_managers]]\nname = \"idp\"\nconnector = \"oidc\"\nissuer = \"{ISSUER}\"\naudience = [\"orders\"]\n\
             discovery = false\njwks = {{ file = \"{}\" }}\n\
             [[apis]]\nname = \"Echo\"\ncontext = \"/echo\"\nupstream = \"echo:\"\nsubscription = \"none\"\n\
             [[apis.resources]]\npath = \"/{{id}}\"\n",
            jwks.display()
        ),
    )?;
    let half = |numbers: std::ops::Range<u64>| numbers.map(|n| sign(&key, n)).collect::<Result<Vec<_>, _>>();
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| half(0..MANY / 2));
        let second = half(MANY / 2..MANY);
        (first.join(), second)
    });
    let mut all = first.map_err(|_| "cannot sign")??;
    all.extend(second?);
    let new = all.split_off(KNOWN);
    fs::write(dir.join("known"), all.join("\n"))?;
    fs::write(dir.join("new"), new.join("\n"))?;
    Ok(())
}

fn sign(key: &RsaKeyPair, number: u64) -> Result<String, Error> {
    let expires = tollgate::net::Clock::new().now().unix() + 36_000;
    let header = json!({ "alg": "RS256", "typ": "at+jwt", "kid": "r" }).to_string();
    let claims = json!({
        "iss": ISSUER, "sub": "0b8f3b0e-1f3c-4d5e-9a7b-2c1d3e4f5a6b", "aud": "orders", "client_id": "shop-web-client",
        "scope": "orders:read orders:write", "exp": expires, "jti": number.to_string(),
    });
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

const GATE_PORT: u16 = 18_486;
const ADMIN_PORT: u16 = 18_487;
const ISSUER: &str = "http://127.0.0.1:18488";
/// Known tokens, each with a connection.
const KNOWN: usize = 16;
/// More than can pass in a run.
const MANY: u64 = 100_000;
/// Connections that bring new tokens, at least.
const STEADY: usize = 32;
