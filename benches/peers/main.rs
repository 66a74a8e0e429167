//! Tollgate beside its peers: `cargo bench --bench peers`.
//!
//! One worker each, pinned on core 1; wrk or h2load and an nginx backend on core 0; loopback, a bearer token of about
//! 700 bytes. Rounds are interleaved and medians told, so that drift of the machine meets all alike. CPU time a request
//! is what the proxy's processes used (`/proc/PID/stat`) over the requests answered: noise disturbs it least. Only the
//! ratios within one table say something. Tollgate has everything on in all of them.
//!
//! By itself it runs what the bounds need, in four minutes. `SCENARIOS=all`, or names of [`SCENARIOS`] with commas
//! between them, runs others, each at 1, 32 and 512 connections; `ROUNDS` (3) and `SECONDS` (5, of each measurement)
//! make it longer or shorter, `-- --quick` one short round, `-- --only NAME` leaves out who is not called so.
//! `SCENARIOS=all`, and `CHART=1` with `warm`, write `benches/peers/chart.svg`.
//!
//! Needs Linux with two cores, `taskset`, wrk and nginx; a peer that is not installed is skipped aloud, and HTTP/2
//! without h2load (package nghttp2-client).

mod bare;
mod chart;
mod contenders;
mod load;
mod probe;
mod process;
mod provider;
mod report;
mod scenarios;
mod token;

use std::{env, fs, process::ExitCode, time::Duration};

use anyhow::Context;

use crate::{
    contenders::{Bench, Contender},
    report::Measured,
    scenarios::{Group, SCENARIOS, Scenario},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("bare") => bare::run(&arguments[1..]).map(|()| true),
        _ if arguments.iter().any(|argument| argument == "--bench") => {
            Options::read(&arguments).and_then(|options| compare(&options))
        }
        // `cargo test --benches` starts us too; minutes of load are not what it asks for.
        _ => {
            println!("peers: run me with `cargo bench --bench peers`");
            Ok(true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What to run.
struct Options {
    scenarios: Vec<&'static Scenario>,
    rounds: u64,
    seconds: u64,
    chart: bool,
    only: Option<String>,
}

impl Options {
    fn read(arguments: &[String]) -> anyhow::Result<Self> {
        let quick = arguments.iter().any(|argument| argument == "--quick");
        let only = arguments.iter().position(|argument| argument == "--only").and_then(|at| arguments.get(at + 1));
        let names = env::var("SCENARIOS").unwrap_or_else(|_| SCENARIOS[0].name.into());
        let all = names == "all";
        let scenarios =
            if all { SCENARIOS.iter().collect() } else { names.split(',').map(named).collect::<Result<_, _>>()? };
        Ok(Self {
            scenarios,
            rounds: number("ROUNDS", if quick { 1 } else { 3 })?,
            seconds: number("SECONDS", if quick { 2 } else { 5 })?,
            chart: all || env::var_os("CHART").is_some(),
            only: only.cloned(),
        })
    }
}

fn named(name: &str) -> anyhow::Result<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name.trim()).with_context(|| {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("SCENARIOS: no `{name}`, only all, {}", names.join(", "))
    })
}

/// A number of 1 or more in the environment.
fn number(name: &str, default: u64) -> anyhow::Result<u64> {
    let Ok(text) = env::var(name) else { return Ok(default) };
    text.parse().ok().filter(|&number| number > 0).with_context(|| format!("{name}: not a number of 1 or more"))
}

/// Runs all rounds of all groups and prints their tables; false if any request failed, or any group.
fn compare(options: &Options) -> anyhow::Result<bool> {
    let bench = Bench::prepare().context("cannot prepare")?;
    println!("{}\n", bench.versions());
    let (mut clean, mut charted) = (true, false);
    for group in options.scenarios.iter().flat_map(|scenario| scenario.groups()) {
        if group.protocol.is_http2() && !load::has_h2load() {
            println!("skipped: {}, h2load is not installed\n", report::title(&group));
            continue;
        }
        let measured = match measure(&bench, &group, options) {
            Ok(measured) => measured,
            // An hour's other tables are not lost by one.
            Err(error) => {
                println!("{}: {error:#}\n", report::title(&group));
                clean = false;
                continue;
            }
        };
        println!("{}\n\n{}", report::title(&group), report::table(&measured));
        if let Some(bounds) = report::bounds(&measured, group.protocol) {
            println!("{bounds}");
        }
        clean &= measured.iter().all(|one| one.errors() == 0);
        if options.chart && group.scenario == "warm" && group.connections == 32 {
            fs::write(CHART, report::chart(&measured)).context(CHART)?;
            charted = true;
            println!("{CHART} is written\n");
        }
    }
    if options.chart && !charted {
        println!("no chart: it is of `warm`, which was not run");
    }
    Ok(clean)
}

/// All rounds of one group.
fn measure(bench: &Bench, group: &Group, options: &Options) -> anyhow::Result<Vec<Measured>> {
    let (rounds, seconds) = (options.rounds, options.seconds);
    let mut contenders = bench.start(group, options.only.as_deref())?;
    let mut measured: Vec<Measured> = contenders.iter().map(|contender| Measured::new(contender.row)).collect();
    for round in 1..=rounds {
        eprintln!("{}: round {round} of {rounds}, {} times {seconds} s", report::title(group), contenders.len());
        for (contender, results) in contenders.iter_mut().zip(&mut measured) {
            one_round(bench, contender, seconds, results).with_context(|| contender.row.kind.name())?;
        }
    }
    Ok(measured)
}

/// One measurement of one contender, after its warm-up; again if it cannot be sent to.
fn one_round(bench: &Bench, contender: &mut Contender, seconds: u64, results: &mut Measured) -> anyhow::Result<()> {
    let mut last = None;
    for _ in 0..TRIES {
        match measure_once(bench, contender, seconds, results) {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("once more: {:#}", last.insert(error)),
        }
    }
    last.map_or(Ok(()), Err)
}

fn measure_once(bench: &Bench, contender: &mut Contender, seconds: u64, results: &mut Measured) -> anyhow::Result<()> {
    bench.warm_up(contender)?;
    let before = contender.process.cpu()?;
    let answers = bench.load(contender, Duration::from_secs(seconds))?;
    let used = contender.process.cpu()?.saturating_sub(before);
    results.add(answers, used, contender.process.resident()?);
    Ok(())
}

const TRIES: usize = 3;
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/chart.svg");
