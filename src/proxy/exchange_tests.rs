//! Where protocols and peers differ: bodies of unknown length, split cookies, and exchanges that end early.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use super::testing::{Gate, Plan, ask, echo, gate, head, raw, read_answer, read_head, within};

/// A client's end of HTTP/2.
async fn http2_client<B>(gate: &Gate) -> http2::SendRequest<B>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let (client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(gate.connect().await)).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn bodies_of_unknown_length_pass_whatever_the_method() {
    let upstream = echo().await;
    let gate = Gate::before(&upstream);
    for method in ["GET", "POST", "DELETE"] {
        let mut client = gate.connect().await;
        let request = format!("{method} /api/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.write_all(format!("{request}5\r\nhello\r\n0\r\n\r\n").as_bytes()).await.unwrap();
        let seen = read_answer(&mut client).await.json();
        assert_eq!((&seen["method"], &seen["body"]), (&json!(method), &json!("hello")));
        assert_eq!(seen["fields"]["transfer-encoding"], "chunked");
    }
    for scheme in ["http", "h2c"] {
        let gate = self::gate(Plan::to(upstream.url(scheme)));
        let frames = [Ok(Frame::data(Bytes::from("hello")))];
        let request = Request::get("http://gate.test/api/a").body(StreamBody::new(futures_util::stream::iter(frames)));
        let response = within(http2_client(&gate).await.send_request(request.unwrap())).await.unwrap();
        let body = within(response.into_body().collect()).await.unwrap().to_bytes();
        let seen: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&seen["method"], &seen["body"]), (&json!("GET"), &json!("hello")), "{scheme}");
    }
}

#[tokio::test]
async fn cookies_of_several_fields_become_one() {
    let upstream = echo().await;
    let gate = Gate::before(&upstream);
    let mut request = Request::get("http://gate.test/api/a");
    for crumb in ["a=1", "b=2; c=3", "d=4"] {
        request = request.header("cookie", crumb);
    }
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let response = within(http2_client(&gate).await.send_request(request)).await.unwrap();
    let body = within(response.into_body().collect()).await.unwrap().to_bytes();
    let seen: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(seen["fields"]["cookie"], "a=1; b=2; c=3; d=4", "no field of its own each");
}

#[tokio::test]
async fn a_quiet_stream_is_the_upstreams_to_answer() {
    let silent = raw(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gate = gate(Plan { proxy: json!({ "timeouts": { "request": "200ms" } }), ..Plan::to(silent.url("http")) });
    let mut client = http2_client(&gate).await;
    for (kind, status, grpc) in [("application/grpc", 200, Some("4")), ("text/plain", 504, None)] {
        let request = Request::post("http://gate.test/api/svc/Chat")
            .header("content-type", kind)
            .body(StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>()))
            .unwrap();
        let response = within(client.send_request(request)).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers().get("grpc-status").map(|status| status.to_str().unwrap()), grpc);
    }
    assert!(gate.shared.metrics.render().contains("tollgate_upstream_errors_total{reason=\"timeout\"} 2"));
    assert!(!client.is_closed(), "other streams go on");
}

#[tokio::test]
async fn a_request_that_was_never_judged_is_not_granted() {
    let upstream = echo().await;
    let gate = Gate::before(&upstream);
    let mut client = gate.connect().await;
    client.write_all(head("GET /api/a HTTP/1.1\nX-Hang: 1").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(client);
    let counted = r#"tollgate_requests_total{api="_none",door="proxy",outcome="failed",reason="client_gone"} 1"#;
    within(async {
        while !gate.shared.metrics.render().contains(counted) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let line = &gate.lines()[0];
    assert_eq!((&line["status"], &line["reason"]), (&json!(499), &json!("client_gone")));
}

/// A client that closes its side cannot be told from one that is gone: for nginx, too, it is gone while an upstream is
/// waited for, and is answered where the answer is at hand.
#[tokio::test]
async fn who_says_no_more_gets_what_is_at_hand_and_is_not_waited_for() {
    let silent = raw(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gate = Gate::before(&silent);
    for (request, status) in [("GET /nowhere HTTP/1.1", Some("404")), ("GET /api/a HTTP/1.1", None)] {
        let mut client = gate.connect().await;
        client.write_all(head(request).as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        within(client.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer.split(' ').nth(1), status, "{request}");
    }
    assert_eq!(gate.lines()[1]["status"], 499);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_the_upstreams_error() {
    let upstream = raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
    })
    .await;
    let gate = Gate::before(&upstream);
    let mut client = gate.connect().await;
    client.write_all(head("GET /api/a HTTP/1.1").as_bytes()).await.unwrap();
    within(client.read_to_end(&mut Vec::new())).await.ok();
    assert!(gate.shared.metrics.render().contains("tollgate_upstream_errors_total{reason=\"reset\"} 1"));
}

#[tokio::test]
async fn what_may_be_sent_twice_survives_a_closing_connection() {
    // Closes each connection at its second request, which it has read.
    let upstream = raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        read_head(&mut stream).await;
    })
    .await;
    for (request, status, connections) in [
        ("GET /api/b HTTP/1.1", 200, 2),
        ("OPTIONS /api/b HTTP/1.1", 200, 2),
        ("POST /api/b HTTP/1.1", 502, 1),
        ("DELETE /api/b HTTP/1.1", 502, 1),
    ] {
        let gate = Gate::before(&upstream);
        let before = upstream.connections.load(Relaxed);
        let mut client = gate.connect().await;
        assert_eq!(ask(&mut client, "GET /api/a HTTP/1.1").await.status, 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(ask(&mut client, request).await.status, status, "{request}");
        assert_eq!(upstream.connections.load(Relaxed) - before, connections, "{request}");
    }
}

#[tokio::test]
async fn the_built_in_echo_answers_head_without_a_body() {
    let gate = gate(Plan::to("echo:"));
    let request = Request::head("http://gate.test/api/a").body(Full::<Bytes>::default()).unwrap();
    let response = within(http2_client(&gate).await.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_ne!(response.headers()["content-length"], "0");
    let body = within(response.into_body().collect()).await.expect("no frames that break the stream");
    assert!(body.to_bytes().is_empty());
}

/// What an upstream does with a request, told when to go on.
async fn slow(mut stream: TcpStream, go_on: Arc<Notify>) {
    let head = read_head(&mut stream).await;
    let answer = match head.split(' ').nth(1) {
        Some("/events") => {
            let begun = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
            stream.write_all(begun).await.unwrap();
            &b"data: 2\n\n"[..]
        }
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    };
    if head.starts_with("POST") {
        stream.read_exact(&mut [0; 10]).await.unwrap();
    } else {
        go_on.notified().await;
    }
    stream.write_all(answer).await.unwrap();
}

#[tokio::test]
async fn what_is_under_way_keeps_no_tables() {
    let go_on = Arc::new(Notify::new());
    let seen = go_on.clone();
    let upstream = raw(move |stream, _| slow(stream, seen.clone())).await;
    let gate = gate(Plan { api: json!({ "strip_prefix": true }), ..Plan::to(upstream.url("http")) });
    for (request, begun, end) in [
        ("GET /api/events HTTP/1.1", "", "data: 2\n\n"),
        ("GET /api/answer HTTP/1.1", "", "ok"),
        ("POST /api/upload HTTP/1.1\nContent-Length: 10", "hello", "ok"),
    ] {
        let before = upstream.connections.load(Relaxed);
        let mut client = gate.connect().await;
        client.write_all((head(request) + begun).as_bytes()).await.unwrap();
        within(async {
            while upstream.connections.load(Relaxed) == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let old = gate.reload_tables(&upstream);
        assert_eq!(old.strong_count(), 0, "{request}");
        go_on.notify_one();
        if !begun.is_empty() {
            client.write_all(b"world").await.unwrap();
        }
        let mut answer = String::new();
        while !answer.contains(end) {
            let mut piece = [0; 1024];
            let read = within(client.read(&mut piece)).await.unwrap();
            assert!(read > 0, "{request}: {answer}");
            answer += str::from_utf8(&piece[..read]).unwrap();
        }
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    let counted = r#"tollgate_requests_total{api="A",door="proxy",outcome="granted",reason="granted"} 3"#;
    within(async {
        while !gate.shared.metrics.render().contains(counted) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for line in gate.lines() {
        assert_eq!((&line["api"], &line["template"], &line["status"]), (&json!("A"), &json!("/*"), &json!(200)));
    }
}
