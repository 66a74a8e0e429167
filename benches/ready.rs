//! From exec to ready, against the program as a process: without anything to remember, and with an embedded provider whose
//! record has 2,000 registered clients and 5,000 opaque tokens, after kill -9. Prints resident
//! memory too; fails beyond the budget.
//!
//! `cargo bench --bench ready` (`TOLLGATE_BIN=…` for a program built elsewhere)

#[path = "support/gate.rs"]
#[expect(dead_code, reason = "no metric is looked at here")]
mod gate;

use std::time::{Duration, Instant};

use gate::Gate;
use serde_json::json;

type Error = Box<dyn std::error::Error + Send + Sync>;

const BUDGET: Duration = Duration::from_millis(100);
const CLIENTS: usize = 2000;
const TOKENS: usize = 5000;
const STARTS: usize = 15;
const ADMIN_PORT: u16 = 18_582;
const ISSUER: &str = "http://127.0.0.1:18583";

fn main() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let dir = tempfile::tempdir()?;
        let record = dir.path().join("tollgate.redb");
        let text = format!(
            r#"
            [store]
            path = {record:?}
            [proxy]
            listen = "127.0.0.1:18581"
            [[key_managers]]
            name = "embedded"
            connector = "embedded"
            listen = "127.0.0.1:18583"
            issuer = "{ISSUER}"
            audience = ["echo"]
            tokens = "opaque"
            registration = "open"
            clients = [{{ id = "bench", secret = "demo-only-bench", scopes = ["a"] }}]
            [[apis]]
            name = "echo"
            context = "/echo"
            upstream = "echo:"
            subscription = "none"
            resources = [{{ path = "/*", methods = ["*"] }}]
            "#
        );
        println!("{:<34} {:>8} {:>10} {:>10} {:>8}", "exec to ready", "starts", "median ms", "most ms", "RSS MB");
        let empty = starts("with an empty record", &text, 1).await?;
        let gate = Gate::start(&[], &text, ADMIN_PORT).await?;
        fill().await?;
        drop(gate);
        let filled = starts("with a full one, after kill -9", &text, STARTS).await?;
        if empty.max(filled) > BUDGET { Err(format!("more than {BUDGET:?}").into()) } else { Ok(()) }
    })
}

/// The median of so many starts, each ended by kill -9.
async fn starts(what: &str, text: &str, number: usize) -> Result<Duration, Error> {
    let (mut times, mut resident) = (Vec::new(), 0);
    for _ in 0..number {
        let begun = Instant::now();
        let gate = Gate::start(&[], text, ADMIN_PORT).await?;
        times.push(begun.elapsed());
        resident = gate.resident()?;
        drop(gate);
    }
    times.sort();
    let (median, most) = (times[number / 2], times[number - 1]);
    let (middle, longest, megabytes) = (median.as_secs_f64() * 1e3, most.as_secs_f64() * 1e3, resident as f64 / 1e6);
    println!("{what:<34} {number:>8} {middle:>10.1} {longest:>10.1} {megabytes:>8.1}");
    Ok(median)
}

/// Registers clients and gets tokens.
#[expect(clippy::disallowed_methods, reason = "a bench, and what it asks is its own")]
async fn fill() -> Result<(), Error> {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
    for n in 0..CLIENTS {
        let client = json!({ "client_name": format!("client {n}"), "grant_types": ["client_credentials"] });
        http.post(format!("{ISSUER}/register")).json(&client).send().await?.error_for_status()?;
    }
    for _ in 0..TOKENS {
        let request = http.post(format!("{ISSUER}/token")).basic_auth("bench", Some("demo-only-bench"));
        request.form(&[("grant_type", "client_credentials")]).send().await?.error_for_status()?;
    }
    Ok(())
}
