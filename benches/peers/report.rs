//! Medians, the table as README shows it, and the ratios that the bounds speak of.

use std::{fmt::Write, time::Duration};

use crate::{
    chart::{self, Bar},
    load::Answers,
    scenarios::{Ask, BOUNDS, Figure, Group, Kind, Limit, Protocol, Row},
};

/// What was measured of one row, round by round.
#[derive(Debug)]
pub(crate) struct Measured {
    row: Row,
    answers: Vec<Answers>,
    cpu_us: Vec<f64>,
    busy: Vec<f64>,
    resident: u64,
}

impl Measured {
    pub(crate) fn new(row: Row) -> Self {
        Self { row, answers: Vec::new(), cpu_us: Vec::new(), busy: Vec::new(), resident: 0 }
    }

    /// One round: what came back, what CPU time it took, what memory is held now.
    pub(crate) fn add(&mut self, answers: Answers, cpu: Duration, resident: u64) {
        self.answers.push(answers);
        let requests = answers.requests.max(1) as f64;
        self.cpu_us.push(cpu.as_secs_f64() * 1e6 / requests);
        self.busy.push(cpu.as_secs_f64() * 100.0 * answers.per_second / requests);
        self.resident = resident;
    }

    /// Requests that were not answered as they must be.
    pub(crate) fn errors(&self) -> u64 {
        self.answers.iter().map(|round| round.errors).sum()
    }

    fn cpu_us(&self) -> f64 {
        median(self.cpu_us.clone())
    }

    fn median_of(&self, value: impl Fn(&Answers) -> f64) -> f64 {
        median(self.answers.iter().map(value).collect())
    }

    fn figure(&self, figure: Figure) -> f64 {
        match figure {
            Figure::Cpu => self.cpu_us(),
            Figure::P99 => self.median_of(|round| round.p99_ms),
            Figure::PerSecond => self.median_of(|round| round.per_second),
        }
    }
}

/// What a group is called.
pub(crate) fn title(group: &Group) -> String {
    let streams = match group.protocol.streams(group.connections) {
        1 => String::new(),
        streams => format!(", {streams} requests at a time on each"),
    };
    let number =
        if group.connections == 1 { "1 connection".into() } else { format!("{} connections", group.connections) };
    format!("`{}`: {}, {number}{streams}", group.scenario, group.protocol.name())
}

/// One line a row. A core that is far from fully busy was not what held the requests up, and its figures say less.
pub(crate) fn table(measured: &[Measured]) -> String {
    let mut text = String::from(
        "| proxy | checks | connections | req/s | p50 ms | p99 ms | p99.9 ms | CPU µs/req | busy % | RSS MB | errors |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for one in measured {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.2} | {:.2} | {:.2} | {:.1} | {:.0} | {:.0} | {} |",
            one.row.kind.name(),
            checks(one.row),
            one.row.connections,
            thousands(one.median_of(|round| round.per_second)),
            one.median_of(|round| round.p50_ms),
            one.median_of(|round| round.p99_ms),
            one.median_of(|round| round.p999_ms),
            one.cpu_us(),
            median(one.busy.clone()),
            one.resident as f64 / 1e6,
            one.errors(),
        );
    }
    text
}

/// The bounds whose two rows were both measured, if there are any.
pub(crate) fn bounds(measured: &[Measured], protocol: Protocol) -> Option<String> {
    let find = |row: Row| measured.iter().find(|one| one.row == row && protocol == Protocol::Http1);
    let mut text = String::new();
    for bound in BOUNDS {
        let (Some(ours), Some(theirs)) = (find(bound.ours), find(bound.theirs)) else { continue };
        let ratio = ours.figure(bound.figure) / theirs.figure(bound.figure);
        let (wanted, met) = match bound.limit {
            Limit::AtMost(limit) => (format!("≤ {limit}"), ratio <= limit),
            Limit::AtLeast(limit) => (format!("≥ {limit}"), ratio >= limit),
        };
        let told = if met { "met" } else { "**missed**" };
        let _ = writeln!(text, "| {} | {wanted} | {ratio:.2} | {told} |", bound.what);
    }
    (!text.is_empty()).then(|| format!("| ratio | wanted | this run | |\n|---|---|---|---|\n{text}"))
}

/// CPU time a request of each, as bars.
pub(crate) fn chart(measured: &[Measured]) -> String {
    let bars: Vec<Bar> = measured
        .iter()
        .map(|one| Bar {
            label: format!("{}, {}", one.row.kind.name().replace(['*', '`'], ""), short(one.row)),
            value: one.cpu_us(),
            ours: one.row.kind == Kind::Tollgate,
        })
        .collect();
    chart::svg(
        "CPU time a request, in microseconds",
        "one core, 32 connections, HTTP/1.1, one warm token; less is better; only the ratios say something",
        &bars,
    )
}

fn short(row: Row) -> &'static str {
    if row.kind.checks() == "none" { "no checks" } else { row.ask.name() }
}

/// What is looked at, and in what.
fn checks(row: Row) -> String {
    match row.ask {
        Ask::Warm(_) if row.kind.checks() == "none" => "none".into(),
        ask => format!("{}; {}", row.kind.checks(), ask.name()),
    }
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.as_slice() {
        [] => f64::NAN,
        all if all.len() % 2 == 1 => all[middle],
        all => f64::midpoint(all[middle - 1], all[middle]),
    }
}
