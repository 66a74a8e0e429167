//! wrk: one thread, 32 connections kept alive.

use std::time::Duration;

use anyhow::Context;

use crate::process::{self, Core};

/// What is asked for, and of whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) port: u16,
    pub(crate) token: &'a str,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Answers {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Answers other than 2xx, and socket errors.
    pub(crate) errors: u64,
}

impl Load<'_> {
    /// Runs wrk that long.
    pub(crate) fn run(&self, time: Duration) -> anyhow::Result<Answers> {
        let mut wrk = process::pinned(Core::Load, "wrk");
        wrk.args(["--threads", "1", "--connections", "32", "--latency"])
            .args(["--duration", &format!("{}s", time.as_secs())])
            .args(["--header", &format!("Authorization: Bearer {}", self.token)])
            .arg(format!("http://127.0.0.1:{}{TARGET}", self.port));
        let told = process::output(wrk)?;
        parse(&told).with_context(|| format!("cannot read what wrk says: {told}"))
    }
}

/// What every contender is asked for.
pub(crate) const TARGET: &str = "/api/v1/items/42";

fn parse(text: &str) -> Option<Answers> {
    // The rest of the line that begins with the label.
    let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())?;
    let refused: u64 = after("Non-2xx or 3xx responses:").map_or(Some(0), |count| count.parse().ok())?;
    let broken: u64 = after("Socket errors:").map_or(Some(0), |counts| {
        counts.split(", ").map(|count| count.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    })?;
    Some(Answers {
        requests,
        per_second: after("Requests/sec:")?.parse().ok()?,
        p50_ms: millis(after("50%")?)?,
        p99_ms: millis(after("99%")?)?,
        errors: refused + broken,
    })
}

fn millis(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}
