//! A connector outside the gate: `config/connector-openapi.yaml` served from memory. What it is asked must be what the
//! document knows; what it was asked is noted by the document's name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{
    Router,
    body::{self, Body},
    extract::{Request, State},
    http::{StatusCode, header},
    response::Response,
};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::outside_rows::{Refused, Rows};

/// The connector, on a loopback port.
pub(super) struct Outside {
    pub(super) url: String,
    state: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    rows: Rows,
    document: Vec<Path>,
    asked: Vec<String>,
    wrong: Vec<String>,
    cannot: BTreeMap<String, String>,
    /// What is answered instead, once.
    instead: Option<(u16, &'static str)>,
    /// Nothing is answered but this.
    down: Option<u16>,
}

/// An operation of the document.
struct Path {
    method: String,
    segments: Vec<String>,
    operation: String,
}

/// The bearer secret.
pub(super) const SECRET: &str = "a secret of the connector";

impl Outside {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Shared { document: document(), ..Shared::default() };
        let state = Arc::new(Mutex::new(shared));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, state }
    }

    /// From now on it says that it cannot do this.
    pub(super) fn cannot(&self, operation: &str, reason: &str) {
        self.state.lock().cannot.insert(operation.into(), reason.into());
    }

    /// What the next call is answered, whatever it asks.
    pub(super) fn answer_once(&self, status: u16, body: &'static str) {
        self.state.lock().instead = Some((status, body));
    }

    /// What all calls are answered; none: as they should be.
    pub(super) fn down(&self, status: Option<u16>) {
        self.state.lock().down = status;
    }

    /// How often it was asked for this.
    pub(super) fn times(&self, operation: &str) -> usize {
        self.state.lock().asked.iter().filter(|asked| *asked == operation).count()
    }

    /// The operations it was asked for.
    pub(super) fn asked(&self) -> BTreeSet<String> {
        self.state.lock().asked.iter().cloned().collect()
    }

    /// What it was asked that the document does not know.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.state.lock().wrong.clone()
    }

    /// Ids of the clients that it has.
    pub(super) fn clients(&self) -> Vec<String> {
        self.state.lock().rows.client_ids()
    }
}

/// The operations of the document.
pub(super) fn operations() -> BTreeSet<String> {
    document().into_iter().map(|path| path.operation).collect()
}

/// Its paths, read line by line: the file keeps to two spaces a level.
fn document() -> Vec<Path> {
    let text = include_str!("../../../config/connector-openapi.yaml");
    let (mut found, mut path, mut method) = (Vec::new(), "", "");
    let lines = text.lines().skip_while(|line| *line != "paths:").take_while(|line| *line != "components:");
    for line in lines {
        if let Some(named) = line.strip_prefix("  /") {
            path = named.trim_end_matches(':');
        } else if let Some(operation) = line.strip_prefix("      operationId: ") {
            let segments = path.split('/').map(str::to_owned).collect();
            found.push(Path { method: method.to_uppercase(), segments, operation: operation.into() });
        } else if let Some(named) = line.strip_prefix("    ").filter(|line| !line.starts_with(' ')) {
            method = named.trim_end_matches(':');
        }
    }
    assert!(found.len() > 30, "the document has more operations than {}", found.len());
    found
}

impl Shared {
    /// The operation of the document that this is.
    fn named(&self, method: &str, path: &str) -> Option<&str> {
        let segments: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let fits = |path: &&Path| {
            let mut pairs = path.segments.iter().zip(&segments);
            path.method == method
                && path.segments.len() == segments.len()
                && pairs.all(|(template, segment)| template.starts_with('{') || template == segment)
        };
        // A path without a template comes first.
        let best = self.document.iter().filter(fits).min_by_key(|path| path.segments.concat().matches('{').count());
        best.map(|path| path.operation.as_str())
    }
}

async fn answer(State(state): State<Arc<Mutex<Shared>>>, request: Request) -> Response {
    let (head, content) = request.into_parts();
    let content = body::to_bytes(content, 1 << 20).await.unwrap();
    let mut shared = state.lock();
    let (method, path) = (head.method.as_str(), head.uri.path());
    let Some(operation) = shared.named(method, path).map(str::to_owned) else {
        shared.wrong.push(format!("{method} {path}"));
        return problem(404, &json!({ "code": "not_found", "detail": "there is no such path" }));
    };
    shared.asked.push(operation.clone());
    let kind = head.headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap());
    let due = if operation == "introspect" { "application/x-www-form-urlencoded" } else { "application/json" };
    if !content.is_empty() && kind != Some(due) {
        shared.wrong.push(format!("{operation}: {kind:?}"));
    }
    if head.headers.get(header::AUTHORIZATION).is_none_or(|field| *field != format!("Bearer {SECRET}")) {
        return problem(401, &json!({ "code": "refused", "detail": "the bearer secret is wrong" }));
    }
    if let Some((status, body)) = shared.instead.take().or_else(|| shared.down.map(|status| (status, ""))) {
        return respond(status, "application/json", body.into());
    }
    if operation == "capabilities" {
        return respond(200, "application/json", json!({ "connector": "rows", "cannot": shared.cannot }).to_string());
    }
    if operation == "introspect" {
        let token = url::form_urlencoded::parse(&content).find(|(name, _)| name == "token").map(|(_, token)| token);
        return respond(200, "application/json", shared.rows.introspect(&token.unwrap()).to_string());
    }
    let decoded: Vec<String> = path.trim_start_matches('/').split('/').map(decode).collect();
    let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
    let body: Value = if content.is_empty() { Value::Null } else { serde_json::from_slice(&content).unwrap() };
    let asked: Vec<String> = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
        .filter(|(name, _)| name == "api")
        .map(|(_, value)| value.into_owned())
        .collect();
    match shared.rows.serve(&operation, &segments, &asked, body) {
        Ok(Value::Null) => respond(204, "", String::new()),
        Ok(value) => respond(200, "application/json", value.to_string()),
        Err(Refused(status, problem)) => self::problem(status, &problem),
    }
}

fn decode(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8().unwrap().into_owned()
}

fn problem(status: u16, problem: &Value) -> Response {
    respond(status, "application/problem+json", problem.to_string())
}

fn respond(status: u16, kind: &str, body: String) -> Response {
    let response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    let response = if kind.is_empty() { response } else { response.header(header::CONTENT_TYPE, kind) };
    response.body(Body::from(body)).unwrap()
}
