//! Calls of a management interface, over sockets: how often, as whom, and what a refusal tells.

use std::{
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use url::Url;

use super::{
    api::Api,
    call::{Call, below},
    oidc::Place,
};
use crate::{
    keymanager::Error,
    net::{Clock, Reach, client::Client},
};

/// A request as it came.
#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    path: String,
    authorization: String,
    body: String,
}

type Site = dyn Fn(usize, &Asked) -> Response + Send + Sync;

/// A provider that answers by the number of the request (from 0) and the request.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    async fn start(site: impl Fn(usize, &Asked) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (site, notes): (Arc<Site>, _) = (Arc::new(site), Arc::clone(&asked));
        let answer = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let (site, notes) = (Arc::clone(&site), Arc::clone(&notes));
            async move {
                let authorization = headers.get("authorization").and_then(|field| field.to_str().ok());
                let asked = Asked {
                    method,
                    path: uri.to_string(),
                    authorization: authorization.unwrap_or_default().to_owned(),
                    body: String::from_utf8_lossy(&body).into_owned(),
                };
                let number = {
                    let mut notes = notes.lock();
                    notes.push(asked.clone());
                    notes.len() - 1
                };
                site(number, &asked)
            }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Self { address, asked }
    }

    fn place(&self, path: &str) -> Place {
        let url = format!("http://{}{path}", self.address).parse::<Url>().expect("a URL");
        Place { url, reach: Reach::Local }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

fn api(more: Value) -> Api {
    static CLIENT: LazyLock<Client> = LazyLock::new(|| Client::new().expect("roots"));
    let mut settings = json!({"name": "idp", "connector": "oidc", "issuer": "http://127.0.0.1:1",
        "client_id": "gate", "client_secret": OURS});
    settings.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    let settings = serde_json::from_value(settings).expect("settings");
    Api::new(&settings, "key_managers[0]", &CLIENT, &Arc::new(Clock::new())).expect("an interface")
}

fn token(expires_in: u64, number: usize) -> Response {
    axum::Json(json!({"access_token": format!("t{number}"), "expires_in": expires_in})).into_response()
}

fn status(status: u16) -> Response {
    StatusCode::from_u16(status).expect("a status").into_response()
}

const OURS: &str = "our very own secret";

#[tokio::test]
async fn only_what_does_no_harm_is_tried_again_and_only_once() {
    for (method, tries) in [
        (Method::GET, 2),
        (Method::HEAD, 2),
        (Method::PUT, 2),
        (Method::DELETE, 2),
        (Method::POST, 1),
        (Method::PATCH, 1),
    ] {
        for code in [502, 503, 504] {
            let server = Server::start(move |_, _| status(code)).await;
            let outcome = api(json!({})).send(Call::new(method.clone(), &server.place("/x"))).await;
            let reads = matches!(method, Method::GET | Method::HEAD);
            assert_eq!(matches!(outcome, Err(Error::Unclear(_))), !reads, "{method}: {outcome:?}");
            let error = outcome.map(drop).map_err(Error::settled);
            assert!(matches!(error, Err(Error::Refused { status, .. }) if status == code), "{error:?}");
            let asked = server.asked();
            assert_eq!(asked.len(), tries, "{method} {code}");
            assert!(asked.iter().all(|asked| asked.method == method), "{asked:?}");
        }
    }
    for code in [400, 404, 429, 500, 501] {
        let server = Server::start(move |_, _| status(code)).await;
        api(json!({})).send(Call::get(&server.place("/x"))).await.expect_err("refused");
        assert_eq!(server.asked().len(), 1, "{code}");
    }
    let server = Server::start(|number, _| status(if number == 0 { 503 } else { 204 })).await;
    api(json!({})).send(Call::delete(&server.place("/x"))).await.expect("done by the second");
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_left_alone() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    let place = Place { url: format!("http://{free}/").parse().expect("a URL"), reach: Reach::Local };
    let api = api(json!({}));
    for _ in 0..5 {
        let failed = api.send(Call::post(&place)).await;
        assert!(matches!(failed, Err(Error::Unreachable(_))), "{failed:?}");
    }
    let failed = api.send(Call::post(&place)).await;
    assert!(matches!(failed, Err(Error::LeftAlone { wait: 1.. })), "{failed:?}");
}

#[tokio::test]
async fn refusals_of_odd_requests_do_not_take_the_provider_from_others() {
    let server = Server::start(|number, _| status(if number < 20 { 400 } else { 200 })).await;
    let api = api(json!({}));
    for _ in 0..20 {
        api.send(Call::get(&server.place("/x"))).await.expect_err("refused");
    }
    api.send(Call::get(&server.place("/x"))).await.expect("still asked");
}

#[tokio::test]
async fn one_token_serves_all_who_wait_and_is_renewed_once() {
    let (good, issued) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicUsize::new(0)));
    let (now_good, number) = (Arc::clone(&good), Arc::clone(&issued));
    let server = Server::start(move |_, asked| match &*asked.path {
        "/token" => token(3600, number.fetch_add(1, Ordering::SeqCst) + 1),
        _ if asked.authorization == format!("Bearer t{}", now_good.load(Ordering::SeqCst)) => status(204),
        _ => status(401),
    })
    .await;
    let (api, endpoint, place) = (Arc::new(api(json!({}))), server.place("/token"), server.place("/clients"));
    for renewal in 1..=2 {
        good.store(renewal, Ordering::SeqCst);
        let calls: Vec<_> = (0..32)
            .map(|_| {
                let (api, endpoint, place) = (Arc::clone(&api), endpoint.clone(), place.clone());
                tokio::spawn(async move { api.send(Call::post(&place).own_token(&endpoint)).await.map(drop) })
            })
            .collect();
        for call in calls {
            call.await.expect("no panic").expect("done");
        }
        assert_eq!(issued.load(Ordering::SeqCst), renewal, "one token call for all");
    }
    let asked = server.asked();
    let first = asked.iter().find(|asked| asked.path == "/token").expect("a token call");
    assert_eq!(first.body, "grant_type=client_credentials");
    assert!(first.authorization.starts_with("Basic "), "as ourselves");
}

#[tokio::test]
async fn a_token_that_is_never_good_is_told_as_ours() {
    let server =
        Server::start(|number, asked| if asked.path == "/token" { token(60, number) } else { status(401) }).await;
    let (endpoint, place) = (server.place("/token"), server.place("/clients"));
    let outcome = api(json!({})).send(Call::get(&place).own_token(&endpoint)).await;
    assert!(matches!(outcome, Err(Error::Credentials(_))), "{outcome:?}");
    let paths: Vec<_> = server.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/token", "/clients", "/token", "/clients"]);
}

#[tokio::test]
async fn a_refused_credential_is_asked_with_once_for_all_who_wait() {
    let server = Server::start(|_, _| (StatusCode::BAD_REQUEST, r#"{"error":"invalid_client"}"#).into_response()).await;
    let (api, endpoint, place) = (api(json!({})), server.place("/token"), server.place("/clients"));
    for _ in 0..8 {
        let outcome = api.send(Call::get(&place).own_token(&endpoint)).await;
        assert!(matches!(outcome, Err(Error::Credentials(_))), "{outcome:?}");
    }
    assert!(server.asked().len() < 8, "a failure is believed for a moment");
}

#[tokio::test]
async fn a_token_is_used_no_longer_than_until_shortly_before_it_expires() {
    let server =
        Server::start(|number, asked| if asked.path == "/token" { token(0, number) } else { status(204) }).await;
    let (api, endpoint, place) = (api(json!({})), server.place("/token"), server.place("/clients"));
    for _ in 0..2 {
        api.send(Call::get(&place).own_token(&endpoint)).await.expect("done");
    }
    assert_eq!(server.asked().iter().filter(|asked| asked.path == "/token").count(), 2);
}

#[tokio::test]
async fn a_bearer_credential_is_our_token() {
    let server = Server::start(|_, _| status(204)).await;
    let api = api(json!({"client_auth": "bearer", "client_secret": "static-token"}));
    api.send(Call::get(&server.place("/x")).own_token(&server.place("/token"))).await.expect("done");
    let asked = server.asked();
    assert_eq!((asked.len(), &*asked[0].authorization), (1, "Bearer static-token"));
}

#[tokio::test]
async fn refusals_keep_the_providers_words_and_none_of_the_secrets() {
    // It says again whatever it was sent.
    let server = Server::start(|_, asked| {
        let words = format!("bad: {} {} \u{7} {OURS}", asked.body, asked.authorization);
        (StatusCode::UNPROCESSABLE_ENTITY, json!({"error": "odd", "error_description": words}).to_string())
            .into_response()
    })
    .await;
    let place = server.place("/x");
    let calls = [
        Call::post(&place).form([("client_secret", "s3cret-1"), ("name", "told")]).own(),
        Call::post(&place).json(&json!({"deep": [{"client_secret": "s3cret-2"}], "name": "told"})),
        Call::post(&place).json(&json!({"name": "told"})).bearer("s3cret-3").expect("a field"),
        Call::post(&place).form([("name", "told")]).basic("id", "s3cret-4").expect("a field"),
        Call::post(&place).form([("token", "s3cret-5"), ("name", "told")]),
        Call::post(&place).json(&json!({"name": "told", "text": "s3cret-6"})).secret("s3cret-6"),
    ];
    for (number, call) in calls.into_iter().enumerate() {
        let sent = format!("{call:?}");
        let error = api(json!({})).send(call.secret(OURS)).await.expect_err("refused");
        let Error::Refused { status: 422, detail } = &error else { panic!("{error:?}") };
        assert!(detail.starts_with("odd: bad: ") && detail.contains("told"), "{detail}");
        assert!(detail.contains("[redacted]") && !detail.chars().any(char::is_control), "{detail}");
        let basic = "aWQ6czNjcmV0LTQ=";
        assert!(!detail.contains("s3cret") && !detail.contains(OURS) && !detail.contains(basic), "{number}: {detail}");
        assert!(!sent.contains("s3cret"), "{sent}");
    }
}

#[tokio::test]
async fn refusals_are_bounded_and_told_apart() {
    let long = "x".repeat(10_000);
    let server = Server::start(move |_, asked| match &*asked.path {
        "/long" => (StatusCode::BAD_REQUEST, json!({ "errorMessage": long }).to_string()).into_response(),
        "/page" => (StatusCode::BAD_REQUEST, "<html>").into_response(),
        "/moved" => (StatusCode::FOUND, [("location", "/elsewhere")]).into_response(),
        path => status(path[1..].parse().expect("a status")),
    })
    .await;
    let api = api(json!({}));
    let error = async |path: &str| {
        let place = server.place(path);
        api.send(Call::get(&place).absent("client")).await.expect_err("refused")
    };
    assert!(matches!(error("/long").await, Error::Refused { detail, .. } if detail.len() == 500));
    assert!(matches!(error("/page").await, Error::Refused { detail, .. } if detail == "Bad Request"));
    assert!(matches!(error("/moved").await, Error::Answer(_)), "no redirect is followed");
    assert_eq!(error("/404").await, Error::NotFound("client"));
    assert!(matches!(error("/409").await, Error::Conflict(_)));
    assert!(matches!(error("/401").await, Error::Refused { status: 401, .. }), "nobody's credentials of ours");
    let place = server.place("/404");
    let unnamed = api.send(Call::get(&place)).await.expect_err("refused");
    assert!(matches!(unnamed, Error::Refused { status: 404, .. }));
    let place = server.place("/403");
    assert!(matches!(api.send(Call::get(&place).own()).await, Err(Error::Credentials(_))));
}

#[tokio::test]
async fn answers_too_long_or_not_of_the_protocol_are_of_no_use() {
    let server = Server::start(|_, asked| match &*asked.path {
        "/large" => vec![b' '; (1 << 20) + 1].into_response(),
        _ => r#"{"client_id": {"client_secret": "s3cret"}}"#.into_response(),
    })
    .await;
    let api = api(json!({}));
    let outcome = api.send(Call::get(&server.place("/large"))).await;
    assert!(matches!(outcome, Err(Error::Answer(_))), "{outcome:?}");
    let reply = api.send(Call::get(&server.place("/odd"))).await.expect("an answer");
    let Err(Error::Answer(why)) = reply.json::<std::collections::BTreeMap<String, String>>() else { panic!("read") };
    assert!(!why.contains("s3cret"), "{why}");
}

#[tokio::test]
async fn whoever_does_not_answer_is_not_waited_for() {
    let (listener, silent) = (TcpListener::bind("127.0.0.1:0").await.expect("a free port"), Arc::new(Notify::new()));
    let address = listener.local_addr().expect("bound");
    let until = Arc::clone(&silent);
    let holds = tokio::spawn(async move {
        let held = listener.accept().await;
        until.notified().await;
        drop(held);
    });
    let place = Place { url: format!("http://{address}/").parse().expect("a URL"), reach: Reach::Local };
    let api = api(json!({"concurrency": 1})).within(std::time::Duration::from_millis(50));
    // Nothing is sent before it has its turn, and our token.
    let turn = api.turn(tokio::time::Instant::now()).await.expect("the only one");
    let outcome = api.send(Call::post(&place)).await;
    assert!(matches!(outcome, Err(Error::Unreachable(_))), "{outcome:?}");
    drop(turn);
    let outcome = api.send(Call::post(&place).own_token(&place)).await;
    assert!(matches!(outcome, Err(Error::Unreachable(_))), "{outcome:?}");
    let outcome = api.send(Call::post(&place)).await;
    assert!(matches!(outcome, Err(Error::TimedOut(_))), "{outcome:?}");
    silent.notify_one();
    holds.await.expect("no panic");
}

#[tokio::test]
async fn what_has_no_time_left_or_no_connection_is_never_sent() {
    let server = Server::start(|_, _| status(204)).await;
    let (api, place) = (api(json!({})), server.place("/x"));
    // Its turn comes, and with it the end.
    let outcome = api.tries(&Call::post(&place), None, tokio::time::Instant::now()).await;
    assert!(matches!(outcome, Err(Error::Unreachable(_))), "{outcome:?}");
    assert!(server.asked().is_empty());

    let full = tokio::net::TcpSocket::new_v4().expect("a socket");
    full.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let full = full.listen(0).expect("it listens");
    let address = full.local_addr().expect("bound");
    let mut waiting = Vec::new();
    for _ in 0..8 {
        match tokio::time::timeout(std::time::Duration::from_millis(200), TcpStream::connect(address)).await {
            Ok(stream) => waiting.push(stream),
            Err(_) => break,
        }
    }
    let place = Place { url: format!("http://{address}/").parse().expect("a URL"), reach: Reach::Local };
    tokio::time::pause();
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let outcome = api.send(Call::new(method.clone(), &place)).await;
        assert!(matches!(outcome, Err(Error::Unreachable(_))), "{method}: {outcome:?}");
    }
}

/// What the first attempt may have done is told, whatever the second comes to; what is gone then is what was wanted.
#[tokio::test]
async fn the_first_attempt_is_not_forgotten_for_the_second() {
    for (method, second, unclear) in [
        (Method::DELETE, 404, false),
        (Method::DELETE, 410, false),
        (Method::DELETE, 503, true),
        (Method::PUT, 200, false),
        (Method::PUT, 504, true),
    ] {
        let server = Server::start(move |number, _| status(if number == 0 { 502 } else { second })).await;
        let outcome = api(json!({})).send(Call::new(method.clone(), &server.place("/x"))).await;
        assert_eq!(server.asked().len(), 2);
        match unclear {
            true => assert!(matches!(outcome, Err(Error::Unclear(_))), "{method} {second}: {outcome:?}"),
            false => assert!(outcome.is_ok(), "{method} {second}: {outcome:?}"),
        }
    }
    let server = Server::start(|_, _| status(404)).await;
    let never = api(json!({})).send(Call::delete(&server.place("/x")).absent("scope")).await;
    assert!(matches!(never, Err(Error::NotFound("scope"))), "{never:?}");
}

#[tokio::test]
async fn names_in_paths_are_only_names() {
    let server = Server::start(|_, _| status(204)).await;
    let api = api(json!({}));
    for (name, path) in [
        ("a/b", "/clients/a%2Fb"),
        ("..", "/clients/%252E%252E"),
        (".", "/clients/%252E"),
        ("a?b#c", "/clients/a%3Fb%23c"),
        ("50%", "/clients/50%25"),
        ("é", "/clients/%C3%A9"),
    ] {
        let place = below(&server.place("/clients/"), [name]);
        let sent = api.send(Call::get(&place)).await;
        assert!(sent.is_ok(), "{name}: {sent:?}");
        assert_eq!(server.asked().pop().expect("one").path, path);
    }
}

#[tokio::test]
async fn without_a_credential_nothing_is_sent_as_ourselves() {
    let server = Server::start(|_, _| status(204)).await;
    let api = api(json!({ "client_id": null, "client_secret": null }));
    assert!(!api.has_credential());
    let outcome = api.send(Call::get(&server.place("/x")).own()).await;
    assert!(matches!(outcome, Err(Error::Credentials(_))), "{outcome:?}");
    assert!(server.asked().is_empty());
}
