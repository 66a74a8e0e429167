//! What sends the requests: wrk for HTTP/1.1, h2load for HTTP/2; one thread, connections kept alive.

use std::{fs, path::Path, time::Duration};

use anyhow::Context;

use crate::{
    process::{self, Core},
    scenarios::Protocol,
};

/// What is asked for, and of whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) connections: u16,
    pub(crate) bearer: Bearer<'a>,
    /// The status that is no error.
    pub(crate) expected: u16,
    /// For what the programs read and write.
    pub(crate) dir: &'a Path,
}

/// The token of each request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bearer<'a> {
    None,
    One(&'a str),
    /// One after the other of a file's lines, that many of them skipped.
    Many(&'a Path, usize),
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Answers {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    /// Answers that were not expected, and failures of sockets.
    pub(crate) errors: u64,
}

impl Load<'_> {
    /// Sends that long, as much as is answered.
    pub(crate) fn run(&self, time: Duration) -> anyhow::Result<Answers> {
        if self.protocol.is_http2() { self.h2load(time) } else { self.wrk(time) }
    }

    fn wrk(&self, time: Duration) -> anyhow::Result<Answers> {
        let script = self.dir.join("wrk.lua");
        fs::write(&script, include_str!("wrk.lua"))?;
        let mut wrk = process::pinned(Core::Load, "wrk");
        wrk.args(["--threads", "1", "--connections", &self.connections.to_string()])
            .args(["--duration", &format!("{}s", time.as_secs()), "--script"])
            .arg(script);
        if let Bearer::One(token) = self.bearer {
            wrk.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        wrk.arg(self.url());
        if let Bearer::Many(file, skipped) = self.bearer {
            wrk.arg("--").arg(file).arg(skipped.to_string());
        }
        let told = process::output(wrk)?;
        let [requests, micros, p50, p99, p999, of_400, broken] =
            numbers(&told).with_context(|| format!("cannot read what wrk says: {told}"))?;
        let unexpected = if self.expected < 400 { of_400 } else { requests.saturating_sub(of_400) };
        Ok(Answers {
            requests,
            per_second: requests as f64 * 1e6 / micros.max(1) as f64,
            p50_ms: p50 as f64 / 1e3,
            p99_ms: p99 as f64 / 1e3,
            p999_ms: p999 as f64 / 1e3,
            errors: unexpected + broken,
        })
    }

    /// It says no percentiles, but writes a line for each answer.
    fn h2load(&self, time: Duration) -> anyhow::Result<Answers> {
        let lines = self.dir.join("h2load.log");
        // Connections that stand only when the time is over keep it sending for ever.
        let mut h2load = process::pinned(Core::Load, "timeout");
        h2load
            .args(["--signal=KILL", &format!("{}s", time.as_secs() + 10), "h2load"])
            .args(["--threads", "1", "--clients", &self.connections.to_string()])
            .args(["--max-concurrent-streams", &self.protocol.streams(self.connections).to_string()])
            .args(["--duration", &format!("{}s", time.as_secs())])
            .arg(format!("--log-file={}", lines.display()));
        match self.bearer {
            Bearer::None => {}
            Bearer::One(token) => drop(h2load.args(["--header", &format!("authorization: Bearer {token}")])),
            Bearer::Many(..) => anyhow::bail!("h2load sends no more than one token"),
        }
        h2load.arg(self.url());
        let _ = fs::remove_file(&lines);
        process::output(h2load).context("h2load has failed, or not ended")?;
        let answers = fs::read_to_string(&lines).context("h2load has written no lines")?;
        self.of_lines(&answers, time).context("cannot read what h2load writes")
    }

    /// Each line: start in microseconds since the epoch, status, microseconds until the answer's end.
    fn of_lines(&self, text: &str, time: Duration) -> Option<Answers> {
        let mut micros = Vec::new();
        let mut errors = 0;
        for line in text.lines() {
            let mut columns = line.split('\t').skip(1);
            errors += u64::from(columns.next()?.parse() != Ok(i32::from(self.expected)));
            micros.push(columns.next()?.parse::<u64>().ok()?);
        }
        micros.sort_unstable();
        let at = |share: f64| {
            let index = (micros.len() as f64 * share).ceil() as usize;
            micros.get(index.saturating_sub(1)).map(|&micros| micros as f64 / 1e3)
        };
        Some(Answers {
            requests: micros.len() as u64,
            per_second: micros.len() as f64 / time.as_secs_f64(),
            p50_ms: at(0.5)?,
            p99_ms: at(0.99)?,
            p999_ms: at(0.999)?,
            errors,
        })
    }

    fn url(&self) -> String {
        url(self.protocol, self.port)
    }
}

pub(crate) fn has_h2load() -> bool {
    process::version("h2load", "--version").is_some()
}

/// What every contender is asked for.
pub(crate) fn url(protocol: Protocol, port: u16) -> String {
    let scheme = if protocol.is_tls() { "https" } else { "http" };
    format!("{scheme}://127.0.0.1:{port}/api/v1/items/42")
}

/// The line that `wrk.lua` writes.
fn numbers(told: &str) -> Option<[u64; 7]> {
    let line = told.lines().find_map(|line| line.strip_prefix("peers "))?;
    let numbers: Option<Vec<u64>> = line.split(' ').map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}
