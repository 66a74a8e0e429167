//! Medians, the table, and the ratios that the budgets speak of.

use std::{fmt::Write, time::Duration};

use crate::load::Answers;

/// What was measured of one contender, a row for each round.
#[derive(Debug)]
pub(crate) struct Measured {
    name: &'static str,
    answers: Vec<Answers>,
    cpu_us: Vec<f64>,
    busy: Vec<f64>,
    resident: u64,
}

impl Measured {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, answers: Vec::new(), cpu_us: Vec::new(), busy: Vec::new(), resident: 0 }
    }

    /// One round: what wrk saw, what CPU time it took, what memory is held now.
    pub(crate) fn add(&mut self, answers: Answers, cpu: Duration, resident: u64) {
        self.answers.push(answers);
        let requests = answers.requests.max(1) as f64;
        self.cpu_us.push(cpu.as_secs_f64() * 1e6 / requests);
        self.busy.push(cpu.as_secs_f64() * 100.0 * answers.per_second / requests);
        self.resident = resident;
    }

    /// Requests that were not answered with 2xx.
    pub(crate) fn errors(&self) -> u64 {
        self.answers.iter().map(|round| round.errors).sum()
    }

    fn median_of(&self, value: impl Fn(&Answers) -> f64) -> f64 {
        median(self.answers.iter().map(value).collect())
    }
}

/// One line a contender. A core that is far from fully busy was not what held the requests up, and its figures say less.
pub(crate) fn table(measured: &[Measured]) -> String {
    let mut text = format!(
        "{:<28} {:>9} {:>8} {:>8} {:>11} {:>7} {:>8} {:>7}\n",
        "proxy", "req/s", "p50 ms", "p99 ms", "CPU µs/req", "busy %", "RSS MB", "errors"
    );
    for one in measured {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<28} {:>9.0} {:>8.2} {:>8.2} {:>11.1} {:>7.0} {:>8.1} {:>7}",
            one.name,
            one.median_of(|round| round.per_second),
            one.median_of(|round| round.p50_ms),
            one.median_of(|round| round.p99_ms),
            median(one.cpu_us.clone()),
            median(one.busy.clone()),
            one.resident as f64 / 1e6,
            one.errors(),
        );
    }
    text
}

/// CPU time a request of Tollgate over each peer's, beside what is wanted.
pub(crate) fn ratios(measured: &[Measured]) -> String {
    let cpu = |name: &str| measured.iter().find(|one| one.name == name).map(|one| median(one.cpu_us.clone()));
    let mut text = String::from("CPU time a request, Tollgate over:\n");
    for (ours, theirs, wanted) in WANTED {
        let _ = match (cpu(ours), cpu(theirs)) {
            (Some(a), Some(b)) => {
                let told = match wanted {
                    Some(limit) if a / b <= *limit => format!("wanted ≤ {limit}: met"),
                    Some(limit) => format!("wanted ≤ {limit}: MISSED"),
                    None => String::new(),
                };
                writeln!(text, "  {theirs:<26} {:>5.2}   {told} ({ours})", a / b)
            }
            _ => writeln!(text, "  {theirs:<26}     –   not measured ({ours})"),
        };
    }
    text
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

/// Ours, theirs, and the budget, if there is one.
const WANTED: &[(&str, &str, Option<f64>)] = &[
    ("Tollgate RS256", "bare hyper", None),
    ("Tollgate RS256", "HAProxy", Some(1.3)),
    ("Tollgate RS256", "nginx", None),
    ("Tollgate RS256", "Envoy", None),
    ("Tollgate RS256", "HAProxy jwt_verify RS256", None),
    ("Tollgate RS256", "Envoy jwt_authn RS256", Some(0.35)),
    ("Tollgate ES256", "bare hyper", None),
    ("Tollgate ES256", "HAProxy", Some(1.3)),
    ("Tollgate ES256", "HAProxy jwt_verify ES256", None),
    ("Tollgate ES256", "Envoy jwt_authn ES256", Some(0.35)),
];
