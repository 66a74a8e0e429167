//! A process that is told to end answers what it was asked before, and notes what it cannot wait for.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use axum::{Router, extract::Request as Asked, http::StatusCode, response::IntoResponse};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Place, ask, providers::far};
use crate::support::{Answer, Gate, Ports, Request, Via, block_on, free_ports, runtime, send};

/// A provider that does what it is asked, and answers when it is let.
#[derive(Default)]
struct Slow {
    asked: AtomicUsize,
    go: Notify,
}

impl Slow {
    fn start(port: u16) -> Arc<Self> {
        let slow = Arc::new(Self::default());
        let this = Arc::clone(&slow);
        let answer = move |request: Asked| {
            let this = Arc::clone(&this);
            async move {
                match (request.method().as_str(), request.uri().path()) {
                    ("GET", "/capabilities") => axum::Json(json!({ "connector": "far", "cannot": {} })).into_response(),
                    ("POST", "/scopes") => {
                        this.asked.fetch_add(1, Ordering::SeqCst);
                        this.go.notified().await;
                        (StatusCode::CREATED, axum::Json(json!({ "key": "a:b" }))).into_response()
                    }
                    ("POST", "/tokens/revoke") | ("GET", "/scopes") => {
                        this.asked.fetch_add(1, Ordering::SeqCst);
                        std::future::pending().await
                    }
                    _ => (StatusCode::NOT_FOUND, axum::Json(json!({ "code": "not_found" }))).into_response(),
                }
            }
        };
        let listener = block_on(tokio::net::TcpListener::bind(("127.0.0.1", port))).unwrap();
        runtime().spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        slow
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A gate beside such a provider; none of its requests may be cut before the test is over.
struct World {
    place: Place,
    slow: Arc<Slow>,
    port: u16,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_ports().provider;
        Self { place: Place::new(folder.path()), slow: Slow::start(port), port, _folder: folder }
    }

    fn config(&self, ports: &Ports) -> String {
        let terms = "drain_delay = \"0s\"\ngrace = \"10m\"\n[admin]";
        let text = self.place.config(ports, "", &far(self.port)).replacen("[admin]", terms, 1);
        text.replace("timeout = \"60s\"", "timeout = \"10m\"")
    }

    /// Asks for the scope, and does not wait for the answer.
    fn register(&self, body: &Value) -> JoinHandle<Answer> {
        let request = Request::new("POST", "/v1/key-managers/far/scopes").header("idempotency-key", "once");
        self.begin(request.header("content-type", "application/json").body(body.to_string()))
    }

    fn begin(&self, request: Request) -> JoinHandle<Answer> {
        let (request, port) = (request.bearer(self.place.key()), self.place.port);
        thread::spawn(move || block_on(send(port, Via::H1, &request)))
    }

    fn read(&self, path: &str) -> Vec<Value> {
        let list = ask(self.place.port, &self.place.key(), "GET", path, &Value::Null).json();
        list["items"].as_array().cloned().unwrap_or_default()
    }
}

#[test]
fn what_was_asked_before_the_end_is_answered() {
    for proxied in [true, false] {
        let world = World::new();
        let start = || {
            Gate::start(|ports| {
                let text = world.config(ports);
                let (head, rest) = text.split_once("[proxy]").unwrap();
                let (_, without) = rest.split_once("[admin]").unwrap();
                if proxied { text } else { format!("{head}[admin]{without}") }
            })
        };
        let mut gate = start();
        let call = world.register(&json!({ "key": "a:b" }));
        gate.wait_for("the provider's work", || world.slow.asked() == 1);
        gate.signal("TERM");
        gate.wait_for("a closed door", || TcpStream::connect(("127.0.0.1", world.place.port)).is_err());
        assert!(gate.alive() && !call.is_finished(), "it waits for the provider ({proxied})");
        world.slow.go.notify_one();
        let answer = call.join().unwrap();
        assert_eq!(answer.status, 201, "{proxied}: {}", answer.text());
        assert_eq!(gate.wait_exit().and_then(|status| status.code()), Some(0), "{}", gate.stderr());
        drop(gate);
        let _gate = start();
        let audit = world.read("/v1/audit");
        let told = audit.last().map(|line| (&line["operation"], &line["outcome"]));
        assert_eq!(told, Some((&json!("registerScope"), &json!("done"))), "{audit:?}");
    }
}

#[test]
fn what_the_end_cuts_is_answered_and_noted_as_what_may_have_been_done() {
    let world = World::new();
    let mut gate = Gate::start(|ports| world.config(ports));
    let call = world.register(&json!({ "key": "a:b" }));
    gate.wait_for("the provider's work", || world.slow.asked() == 1);
    // Behind it waits another of the same scope, of which nothing is done.
    let mut behind = TcpStream::connect(("127.0.0.1", world.place.port)).unwrap();
    let head = format!(
        "POST /v1/key-managers/far/scopes HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 13\r\n\r\n",
        world.place.key()
    );
    behind.write_all(head.as_bytes()).unwrap();
    behind.read_exact(&mut [0; 25]).unwrap();
    behind.write_all(br#"{"key":"a:b"}"#).unwrap();
    gate.signal("TERM");
    gate.wait_for("a closed door", || TcpStream::connect(("127.0.0.1", world.place.port)).is_err());
    gate.signal("TERM");
    let mut refused = String::new();
    behind.read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("did not ask it"), "{refused}");
    let answer = call.join().unwrap();
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains("may have been done"), "{}", answer.text());
    assert_eq!(gate.wait_exit().and_then(|status| status.code()), Some(0), "{}", gate.stderr());
    drop(gate);
    let _gate = Gate::start(|ports| world.config(ports));
    let (waiting, audit) = (world.read("/v1/key-managers/far/pending"), world.read("/v1/audit"));
    assert!(waiting.len() == 1 && waiting[0].to_string().contains("may have been done"), "{waiting:?}");
    assert_eq!(audit.last().map(|line| &line["operation"]), Some(&json!("registerScope")), "{audit:?}");
    let again = world.register(&json!({ "key": "a:b" })).join().unwrap();
    assert_eq!((again.status, again.text(), world.slow.asked()), (504, answer.text(), 1));
}

#[test]
fn what_the_end_cuts_and_may_be_revoked_is_refused_here() {
    let world = World::new();
    let mut gate = Gate::start(|ports| world.config(ports));
    let revoke = Request::new("POST", "/v1/key-managers/far/tokens/revoke").header("content-type", "application/json");
    let revoked = world.begin(revoke.body(json!({ "token": "far_1" }).to_string()));
    let read = world.begin(Request::new("GET", "/v1/key-managers/far/scopes"));
    gate.wait_for("the provider's work", || world.slow.asked() == 2);
    gate.signal("TERM");
    gate.wait_for("a closed door", || TcpStream::connect(("127.0.0.1", world.place.port)).is_err());
    gate.signal("TERM");
    let (revoked, read) = (revoked.join().unwrap(), read.join().unwrap());
    assert_eq!((revoked.status, read.status), (504, 503), "{} {}", revoked.text(), read.text());
    assert!(read.text().contains("about to end"), "{}", read.text());
    assert_eq!(gate.wait_exit().and_then(|status| status.code()), Some(0), "{}", gate.stderr());
    assert!(!gate.stderr().contains("could not be noted"), "{}", gate.stderr());
    drop(gate);
    let _gate = Gate::start(|ports| world.config(ports));
    let audit = world.read("/v1/audit");
    let in_doubt = |line: &&Value| line["operation"] == "revokeToken" && line["outcome"] == "done";
    let line = audit.iter().find(in_doubt).unwrap_or_else(|| panic!("it is refused: {audit:?}"));
    assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("failed")), "{line}");
    assert_eq!(world.read("/v1/key-managers/far/pending").len(), 1, "of the reading nothing waits");
}

#[test]
fn a_key_whose_process_was_killed_is_told_that_nobody_knows() {
    let world = World::new();
    let gate = Gate::start(|ports| world.config(ports));
    let call = world.register(&json!({ "key": "a:b" }));
    gate.wait_for("the provider's work", || world.slow.asked() == 1);
    let meanwhile = world.register(&json!({ "key": "a:b" })).join().unwrap();
    assert_eq!(meanwhile.status, 409, "it runs: {}", meanwhile.text());
    gate.signal("KILL");
    assert_eq!(call.join().unwrap().status, 0);
    drop(gate);
    let _gate = Gate::start(|ports| world.config(ports));
    for _ in 0..2 {
        let again = world.register(&json!({ "key": "a:b" })).join().unwrap();
        assert_eq!(again.status, 504, "{}", again.text());
        assert!(again.text().contains("nobody knows"), "{}", again.text());
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
    }
    assert_eq!(world.register(&json!({ "key": "c" })).join().unwrap().status, 422, "another body");
    assert_eq!(world.slow.asked(), 1, "it is not done again");
}

/// The embedded provider's door too.
#[test]
fn a_client_of_the_embedded_provider_is_answered_before_the_end() {
    let world = World::new();
    let mut gate = Gate::start(|ports| world.config(ports));
    let mut stream = TcpStream::connect(("127.0.0.1", world.place.provider)).unwrap();
    let head = "POST /token HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 29\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut asked_on = [0; 25];
    stream.read_exact(&mut asked_on).unwrap();
    gate.signal("TERM");
    gate.wait_for("a closed door", || TcpStream::connect(("127.0.0.1", world.place.provider)).is_err());
    stream.write_all(b"grant_type=client_credentials").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(gate.wait_exit().and_then(|status| status.code()), Some(0), "{}", gate.stderr());
}
