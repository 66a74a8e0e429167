//! Many cases against one gate: sent together, then judged one by one, all failures told at once.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::JoinSet};

use super::{Answer, Backend, Expect, Gate, Request, Via, block_on, client, expect::Form, gate::needles};

/// One case. The request is built anew for every protocol, so that its mark is its own.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) via: &'static [Via],
    pub(crate) build: Box<dyn Fn() -> Request + Send + Sync>,
    pub(crate) expect: Expect,
}

/// Both protocols.
pub(crate) const BOTH: &[Via] = &[Via::H1, Via::H2];

impl Case {
    /// A case over both protocols.
    pub(crate) fn new(
        name: impl Into<String>,
        expect: Expect,
        build: impl Fn() -> Request + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), via: BOTH, build: Box::new(build), expect }
    }

    /// The same over HTTP/1.1 alone.
    pub(crate) fn only(mut self, via: &'static [Via]) -> Self {
        self.via = via;
        self
    }
}

/// Runs all cases and fails with the list of those that went wrong. A refused case must leave an access
/// line and a counter with its reason, nothing at the upstreams, and no token anywhere.
pub(crate) fn check_all(gate: &Gate, backends: &[&Backend], form: Form, cases: &[Case]) {
    let failures = run_all(gate, backends, form, cases);
    assert!(failures.is_empty(), "{} of {} cases failed:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

fn run_all(gate: &Gate, backends: &[&Backend], form: Form, cases: &[Case]) -> Vec<String> {
    let sent = block_on(send_all(gate.ports.proxy, form, cases));
    let mut failures = Vec::new();
    let mut secrets = Vec::new();
    let metrics = gate.metrics();
    for Sent { index, via, request, answer } in &sent {
        let case = &cases[*index];
        let tokens = secrets_of(request);
        let judged = judge(gate, backends, form, &metrics, case, request, answer, &tokens);
        failures.extend(judged.err().map(|wrong| format!("{} over {via:?}: {wrong}", case.name)));
        secrets.extend(tokens);
    }
    failures.extend(gate.leaks(&secrets).into_iter().map(|leak| format!("token text shows: {leak}")));
    if !gate.alive() {
        failures.push(format!("the gate did not survive:\n{}", gate.stderr()));
    }
    failures
}

struct Sent {
    index: usize,
    via: Via,
    request: Request,
    answer: Answer,
}

async fn send_all(port: u16, form: Form, cases: &[Case]) -> Vec<Sent> {
    let room = Arc::new(Semaphore::new(8));
    let mut tasks = JoinSet::new();
    for (index, case) in cases.iter().enumerate() {
        for via in case.via.iter().copied().filter(|via| form != Form::Grpc || *via == Via::H2) {
            let mut request = (case.build)();
            if form == Form::Grpc {
                request.headers.retain(|(name, _)| name != "content-type");
                request = request.header("content-type", "application/grpc");
            }
            let room = Arc::clone(&room);
            tasks.spawn(async move {
                let _permit = room.acquire_owned().await;
                let answer = client::send(port, via, &request).await;
                Sent { index, via, request, answer }
            });
        }
    }
    let mut all = tasks.join_all().await;
    all.sort_by_key(|sent| sent.index);
    all
}

#[expect(clippy::too_many_arguments, reason = "one call site; each is another thing that is looked at")]
fn judge(
    gate: &Gate,
    backends: &[&Backend],
    form: Form,
    metrics: &str,
    case: &Case,
    request: &Request,
    answer: &Answer,
    tokens: &[String],
) -> Result<(), String> {
    case.expect.verify(answer, form)?;
    let reached = backends.iter().any(|backend| backend.saw(&request.mark));
    match case.expect.reaches_upstream() {
        Some(false) if reached => return Err("the upstream got the request".into()),
        Some(true) if !reached && !backends.is_empty() => return Err("the upstream got nothing".into()),
        _ => {}
    }
    if let Expect::Refused(_) = case.expect {
        let shown = format!("{:?}{}", answer.headers, answer.text());
        if let Some(leak) = tokens.iter().flat_map(|t| needles(t)).find(|n| shown.contains(n)) {
            return Err(format!("token text in the answer: {leak}"));
        }
        return counted(gate, metrics, request, answer, form);
    }
    Ok(())
}

/// The access line names a reason, and the reason is counted.
fn counted(gate: &Gate, metrics: &str, request: &Request, answer: &Answer, form: Form) -> Result<(), String> {
    if !request.target.contains(&request.mark) {
        return Ok(());
    }
    let line = gate.access_line(&request.mark).ok_or("no access line")?;
    let reason = line["reason"].as_str().unwrap_or_default();
    if reason.is_empty() || reason == "granted" {
        return Err(format!("the access line gives no reason: {line}"));
    }
    if form != Form::Grpc && line["status"].as_u64() != Some(answer.status.into()) {
        return Err(format!("the access line's status differs: {line}"));
    }
    let label = format!("reason=\"{reason}\"");
    let series = metrics.lines().filter(|l| l.starts_with("tollgate_requests_total{") && l.contains(&label));
    let total: f64 = series.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    if total < 1.0 { Err(format!("tollgate_requests_total has no {label}")) } else { Ok(()) }
}

/// Credentials that a request carries.
fn secrets_of(request: &Request) -> Vec<String> {
    let fields = request.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case("authorization"));
    let mut all: Vec<String> = fields.flat_map(|(_, v)| v.split([' ', ',', '\t'])).map(str::to_owned).collect();
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    all.extend(query.split('&').filter_map(|p| p.strip_prefix("access_token=")).map(str::to_owned));
    all.retain(|text| text.len() >= 20);
    all
}
