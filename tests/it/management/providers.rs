//! Providers that are away or hang: what waits for them outlives a restart, and nobody else waits with it.

use std::{
    net::TcpListener,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{Method, StatusCode},
    response::IntoResponse,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Place, ask, text};
use crate::support::{self, Gate, Via, block_on, free_ports, runtime, send};

/// A key manager `far`, whose connector is outside the process, at this port.
pub(super) fn far(port: u16) -> String {
    format!(
        "[[key_managers]]\nname = \"far\"\nconnector = \"http\"\nissuer = \"http://127.0.0.1:{port}\"\n\
         endpoint = \"http://127.0.0.1:{port}\"\ntoken = \"a secret of the connector\"\ndiscovery = false\n\
         validation = \"introspect\"\ntoken_pattern = \"far_.*\"\nstartup = \"optional\"\ntimeout = \"60s\"\n"
    )
}

/// A connector that takes scopes, and notes what it was asked.
fn connector(port: u16) -> Arc<Mutex<Vec<String>>> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    let answer = move |request: Request| {
        notes.lock().push(format!("{} {}", request.method(), request.uri().path()));
        let answer = match (request.method(), request.uri().path()) {
            (&Method::GET, "/capabilities") => (StatusCode::OK, json!({ "connector": "far", "cannot": {} })),
            (&Method::POST, "/scopes") => (StatusCode::CREATED, json!({ "key": "a:b" })),
            _ => (StatusCode::NOT_FOUND, json!({ "code": "not_found" })),
        };
        async move { (answer.0, axum::Json(answer.1)).into_response() }
    };
    let listener = block_on(tokio::net::TcpListener::bind(("127.0.0.1", port))).unwrap();
    runtime().spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    asked
}

#[test]
fn what_waits_for_a_provider_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (place, port) = (Place::new(folder.path()), free_ports().provider);
    let start = || Gate::start(|ports| place.config(ports, "", &far(port)));
    let gate = start();
    let key = place.key();
    let tell = |method: &str, path: &str, body: &Value| ask(place.port, &key, method, path, body);
    // A dry run says the same, and nothing waits for it. So does the command line, with the same exit code.
    let dry = tell("POST", "/v1/scopes?dry_run=true", &json!({ "key": "a:b" }));
    let of = |at: usize| dry.json()["outcomes"][at]["outcome"].clone();
    assert_eq!((dry.status, of(0), of(1)), (200, json!("dry_run"), json!("pending")), "{}", dry.text());
    let (url, file) = (format!("http://127.0.0.1:{}", place.port), place.store.with_file_name("bootstrap.key"));
    let km = ["km", "--url", &url, "--bootstrap-key", file.to_str().unwrap(), "--dry-run"];
    let run = support::run(&[&km[..], &["everywhere", "register-scope", "a:b"]].concat());
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.code() == Some(0) && said.contains("pending"), "{run:?}");
    let none = tell("GET", "/v1/key-managers/far/pending", &Value::Null).json();
    assert_eq!(none["items"], json!([]));
    let told = tell("POST", "/v1/scopes", &json!({ "key": "a:b" }));
    let outcomes = told.json()["outcomes"].clone();
    let of = |at: usize| (outcomes[at]["keyManager"].clone(), outcomes[at]["outcome"].clone());
    assert_eq!((told.status, of(0), of(1)), (202, (json!("own"), json!("done")), (json!("far"), json!("pending"))));
    let waiting = || tell("GET", "/v1/key-managers/far/pending", &Value::Null).json()["items"].clone();
    let before = waiting();
    assert_eq!((&before[0]["operation"], &before[0]["subject"]), (&json!("registerScope"), &json!("a:b")), "{before}");
    gate.signal("KILL");
    drop(gate);

    let asked = connector(port);
    let gate = start();
    gate.wait_for("an empty queue", || waiting() == json!([]));
    assert_eq!(asked.lock().iter().filter(|call| *call == "POST /scopes").count(), 1, "{:?}", asked.lock());
    assert_eq!(gate.metric("tollgate_keymanager_pending", &[]), 0.0);
    let audit = tell("GET", "/v1/audit", &Value::Null).json();
    let last = audit["items"].as_array().unwrap().last().unwrap();
    let told = (&last["operation"], &last["keyManager"], &last["outcome"], &last["who"]);
    assert_eq!(told, (&json!("registerScope"), &json!("far"), &json!("done"), &json!("bootstrap")), "{last}");
}

#[test]
fn a_provider_that_hangs_holds_up_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (arrived, arrival) = mpsc::channel();
    // Takes every connection, keeps it, and says nothing.
    thread::spawn(move || listener.incoming().try_for_each(|stream| arrived.send(stream)));
    let gate = Gate::start(|ports| place.config(ports, "", &far(port)));
    let key = place.key();
    let own = "/v1/key-managers/own/clients";
    let made = ask(place.port, &key, "POST", own, &json!({ "clientName": "shop" })).json();
    let (id, secret) = (text(&made, "clientId"), text(&made, "clientSecret"));
    let issued = ask(place.port, &key, "POST", &format!("{own}/{id}/tokens"), &json!({ "clientSecret": secret }));
    let token = text(&issued.json(), "accessToken");
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let (place, key) = (place.clone(), key.clone());
            let path = "/v1/key-managers/far/clients";
            thread::spawn(move || ask(place.port, &key, "POST", path, &json!({ "clientName": "late" })))
        })
        .collect();
    let _held = arrival.recv_timeout(PATIENCE).expect("the provider is asked");
    for _ in 0..50 {
        let request = support::Request::get("/orders/items/1").bearer(&token);
        assert_eq!(block_on(send(gate.ports.proxy, Via::H1, &request)).status, 200);
        assert_eq!(ask(place.port, &key, "GET", &format!("{own}/{id}"), &Value::Null).status, 200);
    }
    assert!(waiting.iter().all(|call| !call.is_finished()), "they wait for the provider still");
    gate.signal("KILL");
    drop(gate);
    waiting.into_iter().for_each(|call| assert_eq!(call.join().unwrap().status, 0));
}

const PATIENCE: Duration = Duration::from_secs(20);
