//! How connections begin and end: time, TLS, going away.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::{RootCertStore, pki_types::ServerName};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::testing::{Gate, Plan, Upstream, ask, echo, gate, head, is_closed, raw, read_answer, read_head, within};
use crate::net::{
    TlsSettings,
    drain::Phase,
    tls::{Acceptor, client_config_with},
};

fn hasty(upstream: &Upstream, header: &str, idle: &str) -> Gate {
    let proxy = json!({ "timeouts": { "header": header, "idle": idle } });
    gate(Plan { proxy, ..Plan::to(upstream.url("http")) })
}

fn counted(gate: &Gate, reason: &str) -> bool {
    gate.shared.metrics.render().contains(&format!("tollgate_connection_errors_total{{reason=\"{reason}\"}} 1"))
}

#[tokio::test]
async fn a_head_has_its_time_from_its_first_byte() {
    let upstream = echo().await;
    let gate = hasty(&upstream, "1s", "60s");
    let mut silent = gate.connect().await;
    assert!(is_closed(&mut silent).await, "from accept");

    let mut slow = gate.connect().await;
    ask(&mut slow, "GET /api/a HTTP/1.1").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    ask(&mut slow, "GET /api/a HTTP/1.1").await;
    slow.write_all(b"GET /api").await.unwrap();
    let mut trickling = slow;
    let closed = within(async {
        let mut buffer = [0; 8];
        loop {
            tokio::select! {
                read = trickling.read(&mut buffer) => break matches!(read, Ok(0) | Err(_)),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            if trickling.write_all(b"x").await.is_err() {
                break true;
            }
        }
    });
    assert!(closed.await, "more bytes give no more time");
    assert!(gate.shared.metrics.render().contains("tollgate_connection_errors_total{reason=\"header_timeout\"} 2"));
}

#[tokio::test]
async fn idle_connections_are_closed_and_busy_ones_are_not() {
    let go_on = Arc::new(Notify::new());
    let waiting = go_on.clone();
    let upstream = raw(move |mut stream, _| {
        let go_on = waiting.clone();
        async move {
            read_head(&mut stream).await;
            go_on.notified().await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let gate = hasty(&upstream, "60s", "100ms");
    let mut client = gate.connect().await;
    client.write_all(head("GET /api/a HTTP/1.1").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    go_on.notify_one();
    assert_eq!(read_answer(&mut client).await.status, 200);
    assert!(is_closed(&mut client).await);
    assert!(counted(&gate, "idle_timeout"));
}

#[tokio::test]
async fn what_is_no_http_is_counted() {
    let upstream = echo().await;
    let gate = Gate::before(&upstream);
    let mut client = gate.connect().await;
    client.write_all(b"GET /api/a HTTP/1.1\r\nbad name: x\r\n\r\n").await.unwrap();
    assert_eq!(read_answer(&mut client).await.status, 400);
    assert!(is_closed(&mut client).await);
    assert!(counted(&gate, "parse"), "{}", gate.shared.metrics.render());
}

#[tokio::test]
async fn what_is_no_http2_is_counted_and_who_takes_leave_is_not() {
    let upstream = echo().await;
    let gate = Gate::before(&upstream);
    let (goodbye, no_frame) = (b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0", b"");
    let data_of_no_stream = b"\0\0\x01\0\0\0\0\0\0x";
    let larger_than_any = b"\xff\xff\xff\0\0\0\0\0\x01";
    let no_fields = b"\0\0\x02\x01\x04\0\0\0\x01\xff\xff";
    for (frame, errors) in
        [(&goodbye[..], 0), (no_frame, 0), (data_of_no_stream, 1), (larger_than_any, 2), (no_fields, 3), (goodbye, 3)]
    {
        let mut client = gate.connect().await;
        let settings = b"\0\0\0\x04\0\0\0\0\0";
        let all = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], frame].concat();
        client.write_all(&all).await.unwrap();
        client.shutdown().await.unwrap();
        let _ = within(client.read_to_end(&mut Vec::new())).await;
        let text = gate.shared.metrics.render();
        assert!(text.contains(&format!("_errors_total{{reason=\"http2\"}} {errors}\n")), "{frame:?} {text}");
    }
}

#[tokio::test]
async fn draining_answers_everything_and_says_so() {
    let go_on = Arc::new(Notify::new());
    let waiting = go_on.clone();
    let upstream = raw(move |mut stream, _| {
        let go_on = waiting.clone();
        async move {
            while !read_head(&mut stream).await.is_empty() {
                go_on.notified().await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let gate = Gate::before(&upstream);
    let (mut idle, mut early, mut late, mut silent) =
        (gate.connect().await, gate.connect().await, gate.connect().await, gate.connect().await);
    go_on.notify_one();
    assert!(!ask(&mut idle, "GET /api/a HTTP/1.1").await.has("connection: close"));
    early.write_all(head("GET /api/a HTTP/1.1").as_bytes()).await.unwrap();
    late.write_all(b"GET /api/a HTTP/1.1\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;

    gate.drain.enter(Phase::Draining);
    let mut new = gate.connect().await;
    new.write_all(head("GET /api/a HTTP/1.1").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    go_on.notify_waiters();
    for stream in [&mut early, &mut new] {
        let answer = read_answer(stream).await;
        assert!(answer.status == 200 && answer.has("connection: close"), "{}", answer.head);
        assert!(is_closed(stream).await);
    }

    let mut queued = gate.connect().await;
    queued.write_all(head("GET /api/a HTTP/1.1").as_bytes()).await.unwrap();
    gate.drain.enter(Phase::Closing);
    late.write_all(b"Host: a\r\n\r\n").await.unwrap();
    assert!(is_closed(&mut idle).await && is_closed(&mut silent).await);
    assert!(!gate.server.is_finished(), "requests are under way");
    go_on.notify_waiters();
    for stream in [&mut late, &mut queued] {
        assert_eq!(read_answer(stream).await.status, 200);
        assert!(is_closed(stream).await);
    }
    within(gate.server).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(gate.address).await.is_err());
}

#[tokio::test]
async fn what_is_left_after_the_grace_is_cut() {
    let silent = raw(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gate = Gate::before(&silent);
    let mut client = gate.connect().await;
    client.write_all(head("GET /api/a HTTP/1.1").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    gate.drain.enter(Phase::Closing);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!gate.server.is_finished());
    gate.drain.enter(Phase::Cut);
    assert!(is_closed(&mut client).await);
    within(gate.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn http2_is_told_to_go_away() {
    let upstream = echo().await;
    let gate = Gate::before(&upstream);
    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(gate.connect().await)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = || Request::get("http://gate.test/api/a").body(Empty::<Bytes>::new()).unwrap();
    let response = within(client.send_request(request())).await.unwrap();
    within(response.into_body().collect()).await.unwrap();
    assert!(!connection.is_finished());
    gate.drain.enter(Phase::Draining);
    within(connection).await.unwrap().unwrap();
    gate.drain.enter(Phase::Closing);
    within(gate.server).await.unwrap().unwrap();
}

struct Certified {
    _dir: tempfile::TempDir,
    roots: RootCertStore,
    settings: TlsSettings,
}

fn certified() -> Certified {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["gate.test".into()]).unwrap();
    let settings = TlsSettings { cert: dir.path().join("cert"), key: dir.path().join("key"), client_ca: None };
    std::fs::write(&settings.cert, made.cert.pem()).unwrap();
    std::fs::write(&settings.key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    Certified { _dir: dir, roots, settings }
}

async fn tls(gate: &Gate, roots: &RootCertStore, protocols: &[&[u8]]) -> TlsStream<tokio::net::TcpStream> {
    let config = Arc::new(client_config_with(roots.clone(), protocols).unwrap());
    let name = ServerName::try_from("gate.test").unwrap();
    within(TlsConnector::from(config).connect(name, gate.connect().await)).await.unwrap()
}

#[tokio::test]
async fn tls_speaks_the_protocol_that_was_agreed() {
    let upstream = echo().await;
    let Certified { roots, settings, _dir } = certified();
    let acceptor = Acceptor::new(&settings).unwrap();
    let proxy = json!({ "timeouts": { "header": "500ms" } });
    let gate = gate(Plan { tls: Some(acceptor), proxy, ..Plan::to(upstream.url("http")) });
    let request = |uri: &str| Request::get(uri).header("host", "gate.test:443").body(Empty::<Bytes>::new()).unwrap();

    let stream = tls(&gate, &roots, &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = within(client.send_request(request("https://gate.test/api/a"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);

    for protocols in [&[b"http/1.1".as_slice()][..], &[]] {
        let stream = tls(&gate, &roots, protocols).await;
        let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let response = within(client.send_request(request("/api/a"))).await.unwrap();
        let body = within(response.into_body().collect()).await.unwrap().to_bytes();
        let seen: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(seen["fields"]["x-forwarded-proto"], "https");
    }

    let mut plain = gate.connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    within(plain.read_to_end(&mut Vec::new())).await.ok();
    assert!(counted(&gate, "tls_handshake"));
    let mut silent = gate.connect().await;
    assert!(is_closed(&mut silent).await, "the handshake has its time, too");
}

#[tokio::test]
async fn an_upstreams_certificate_is_verified() {
    let Certified { settings, _dir, .. } = certified();
    let inner = echo().await;
    let behind = gate(Plan { tls: Some(Acceptor::new(&settings).unwrap()), ..Plan::to(inner.url("http")) });
    let front = gate(Plan::to(format!("https://{}", behind.address)));
    assert_eq!(front.ask("GET /api/a HTTP/1.1").await.status, 502);
}

/// What goes to hyper to be upgraded says where its body ends, too.
#[tokio::test]
async fn a_websocket_request_keeps_its_body_and_its_trailers() {
    let seen = Arc::new(Mutex::new(String::new()));
    let keep = seen.clone();
    let upstream = raw(move |mut stream, _| {
        let keep = keep.clone();
        async move {
            let mut text = read_head(&mut stream).await;
            let mut piece = [0; 1024];
            while !text.ends_with("0\r\n\r\n") {
                let read = stream.read(&mut piece).await.unwrap();
                assert_ne!(read, 0, "{text}");
                text.push_str(str::from_utf8(&piece[..read]).unwrap());
            }
            *keep.lock() = text.to_ascii_lowercase();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        }
    })
    .await;
    let gate = Gate::before(&upstream);
    let mut client = gate.connect().await;
    let upgrade = "Connection: upgrade, TE\nUpgrade: websocket\nTE: trailers\nTransfer-Encoding: chunked";
    client.write_all(head(&format!("GET /api/ws HTTP/1.1\n{upgrade}")).as_bytes()).await.unwrap();
    client.write_all(b"5\r\nhello\r\n0\r\n\r\n").await.unwrap();
    let answer = within(read_answer(&mut client)).await;
    assert_eq!((answer.status, &*answer.body), (200, "no"));
    let seen = seen.lock();
    for line in [
        "transfer-encoding: chunked",
        "upgrade: websocket",
        "connection: upgrade, te",
        "te: trailers",
        "\r\n5\r\nhello",
    ] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
}
