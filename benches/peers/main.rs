//! Tollgate beside its peers: `cargo bench --bench peers` (`-- --quick` for one short round).
//!
//! One worker each, pinned on core 1; wrk and an nginx backend on core 0; loopback, HTTP/1.1, a bearer token of about
//! 700 bytes. Rounds are interleaved and medians told, so that drift of the machine meets all alike. CPU time a request
//! is what the proxy's processes used (`/proc/PID/stat`) over the requests answered: noise disturbs it least. Only the
//! ratios within one run say something.
//!
//! Needs Linux with two cores, `taskset`, wrk and nginx; a peer that is not installed is skipped aloud.

mod bare;
mod contenders;
mod load;
mod process;
mod report;
mod token;

use std::{env, process::ExitCode, time::Duration};

use anyhow::Context;

use crate::{
    contenders::{Bench, Contender},
    load::Load,
    report::Measured,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("bare") => bare::run(&arguments[1..]).map(|()| true),
        _ if arguments.iter().any(|argument| argument == "--bench") => compare(&arguments),
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

/// Runs all rounds and prints the table; false if any request failed.
fn compare(arguments: &[String]) -> anyhow::Result<bool> {
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let (rounds, seconds) = if quick { (1, 2) } else { (3, 5) };
    let bench = Bench::prepare().context("cannot prepare")?;
    let contenders = bench.start(&only(arguments))?;
    let mut measured: Vec<Measured> = contenders.iter().map(|contender| Measured::new(contender.name)).collect();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}: {} contenders, {seconds} s each", contenders.len());
        for (contender, results) in contenders.iter().zip(&mut measured) {
            one_round(contender, seconds, results).with_context(|| contender.name)?;
        }
    }
    println!("{}", report::table(&measured));
    println!("{}", report::ratios(&measured));
    Ok(measured.iter().all(|contender| contender.errors() == 0))
}

/// One measurement of one contender, after a second of warm-up.
fn one_round(contender: &Contender, seconds: u64, results: &mut Measured) -> anyhow::Result<()> {
    let warm_up = Duration::from_secs(1);
    let load = Load { port: contender.port, token: &contender.token };
    load.run(warm_up)?;
    let before = contender.process.cpu()?;
    let answers = load.run(Duration::from_secs(seconds))?;
    let used = contender.process.cpu()?.saturating_sub(before);
    results.add(answers, used, contender.process.resident()?);
    Ok(())
}

/// `--only NAME`: contenders whose name contains it.
fn only(arguments: &[String]) -> Option<String> {
    let at = arguments.iter().position(|argument| argument == "--only")?;
    arguments.get(at + 1).cloned()
}
