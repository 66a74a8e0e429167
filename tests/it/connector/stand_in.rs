//! A server that stands in for a provider that cannot be had here: what it answers is written from the provider's own
//! description of its interface. Whatever that does not know is noted, and fails the test.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::{self, Body},
    extract::{Request, State},
    http::{StatusCode, header},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::net::TcpListener;

/// A provider's state, and what it does with a request.
pub(super) trait Tenant: Send + 'static {
    /// Answers; none: it knows no such request.
    fn answer(&mut self, asked: &Asked) -> Option<Said>;
}

/// A request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    /// Decoded.
    pub(super) path: Vec<String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) authorization: String,
    pub(super) json: Value,
    pub(super) form: BTreeMap<String, String>,
}

/// An answer.
pub(super) struct Said {
    status: u16,
    body: Option<Value>,
    links: Vec<String>,
}

/// The server.
pub(super) struct StandIn<T> {
    pub(super) url: String,
    shared: Arc<Mutex<Shared<T>>>,
}

struct Shared<T> {
    tenant: T,
    wrong: Vec<String>,
    lines: Vec<String>,
    instead: Option<(u16, Value)>,
}

pub(super) fn say(status: u16, body: Value) -> Option<Said> {
    Some(Said { status, body: Some(body), links: Vec::new() })
}

pub(super) fn say_nothing(status: u16) -> Option<Said> {
    Some(Said { status, body: None, links: Vec::new() })
}

impl Said {
    /// With a `Link` field (RFC 8288).
    pub(super) fn link(mut self, link: String) -> Self {
        self.links.push(link);
        self
    }
}

impl Asked {
    /// The request as a pattern sees it.
    pub(super) fn line(&self) -> (&str, Vec<&str>) {
        (&self.method, self.path.iter().map(String::as_str).collect())
    }

    /// Id and secret of `client_secret_basic`.
    pub(super) fn basic(&self) -> Option<(String, String)> {
        let pair = STANDARD.decode(self.authorization.strip_prefix("Basic ")?).ok()?;
        let pair = String::from_utf8(pair).ok()?;
        let (id, secret) = pair.split_once(':')?;
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8().unwrap().into_owned();
        Some((decode(id), decode(secret)))
    }
}

impl<T: Tenant> StandIn<T> {
    /// `make` is given the server's own address.
    pub(super) async fn start(make: impl FnOnce(&str) -> T) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Shared { tenant: make(&url), wrong: Vec::new(), lines: Vec::new(), instead: None };
        let shared = Arc::new(Mutex::new(shared));
        let router = Router::new().fallback(answer::<T>).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    /// What it was asked that it does not know.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.shared.lock().wrong.clone()
    }

    /// What it was asked since the last look: method and path.
    pub(super) fn lines(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().lines)
    }

    /// What the next request is answered, whatever it is.
    pub(super) fn answer_once(&self, status: u16, body: Value) {
        self.shared.lock().instead = Some((status, body));
    }

    pub(super) fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.shared.lock().tenant)
    }
}

async fn answer<T: Tenant>(State(shared): State<Arc<Mutex<Shared<T>>>>, request: Request) -> Response {
    let (head, content) = request.into_parts();
    let content = body::to_bytes(content, 1 << 20).await.unwrap();
    let field = |name| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let pairs = |text: &[u8]| url::form_urlencoded::parse(text).into_owned().collect();
    let kind: String = field(header::CONTENT_TYPE);
    let form = kind == "application/x-www-form-urlencoded";
    let decode = |segment: &str| percent_decode_str(segment).decode_utf8().unwrap().into_owned();
    let json = match &*content {
        _ if form => Value::Null,
        [] => Value::Null,
        text => serde_json::from_slice(text).unwrap(),
    };
    let asked = Asked {
        method: head.method.to_string(),
        path: head.uri.path().trim_start_matches('/').split('/').map(decode).collect(),
        query: pairs(head.uri.query().unwrap_or_default().as_bytes()),
        authorization: field(header::AUTHORIZATION),
        form: if form { pairs(&content) } else { BTreeMap::new() },
        json,
    };
    let mut shared = shared.lock();
    let line = format!("{} {}", asked.method, head.uri.path());
    shared.lines.push(line.clone());
    if !content.is_empty() && !form && kind != "application/json" {
        shared.wrong.push(format!("{line}: {kind}"));
    }
    if let Some((status, body)) = shared.instead.take() {
        return respond(Said { status, body: Some(body), links: Vec::new() });
    }
    match shared.tenant.answer(&asked) {
        Some(said) => respond(said),
        None => {
            shared.wrong.push(format!("{line}: {asked:?}"));
            respond(Said { status: 404, body: None, links: Vec::new() })
        }
    }
}

fn respond(said: Said) -> Response {
    let mut response = Response::builder().status(StatusCode::from_u16(said.status).unwrap());
    for link in said.links {
        response = response.header(header::LINK, link);
    }
    match said.body {
        Some(body) => response.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
        None => response.body(Body::empty()),
    }
    .unwrap()
}
