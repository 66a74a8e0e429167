//! Requests and answers on their way through, over real sockets.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_tungstenite::tungstenite::Message;

use super::testing::{Gate, Plan, ask, echo, gate, head, is_closed, raw, read_answer, read_head, upstream, within};

#[tokio::test]
async fn connections_are_reused_on_both_sides() {
    let upstream = echo().await;
    let gate = Gate::before(&upstream);
    let mut client = gate.connect().await;
    for n in 0..3 {
        let answer = ask(&mut client, &format!("GET /api/items/{n}?x=%2F HTTP/1.1")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["target"], format!("/items/{n}?x=%2F"));
    }
    assert_eq!(upstream.connections.load(Relaxed), 1);
}

#[tokio::test]
async fn the_path_judged_is_the_path_forwarded() {
    let upstream = echo().await;
    let base = gate(Plan::to(format!("{}/base", upstream.url("http"))));
    let kept = gate(Plan { api: json!({ "strip_prefix": false }), ..Plan::to(upstream.url("http")) });
    for (gate, sent, expected) in [
        (&base, "/api", "/base/"),
        (&base, "/api/", "/base/"),
        (&base, "/api/%41?q", "/base/A?q"),
        (&kept, "/api/a?q", "/api/a?q"),
        (&kept, "/api/%61", "/api/a"),
    ] {
        let answer = gate.ask(&format!("GET {sent} HTTP/1.1")).await;
        assert_eq!(answer.json()["target"], expected, "{sent}");
    }
}

#[tokio::test]
async fn fields_of_one_connection_and_of_identity_do_not_pass() {
    let upstream = echo().await;
    let gate = Gate::before(&upstream);
    let answer = gate
        .ask(
            "GET /api/a HTTP/1.1\nConnection: X-Auth-Subject, x-private, keep-alive\nX-Private: 1\nKeep-Alive: 5\n\
             X-Auth-Subject: eve\nx_auth_subject: eve\nX.AUTH-Scopes: all\nX-Auth-Tier:\nX-USER: eve\nX_User: eve\n\
             X-JWT-Assertion: eve\nX-Forwarded-Client-Cert: eve\nProxy-Authorization: Basic eve\nProxy-Connection: a\n\
             Upgrade: h2c\nHTTP2-Settings: x\nTE: gzip, trailers\nAuthorization: bearer eve\nX-Forwarded-For: 6.6.6.6\n\
             X-Forwarded-Prefix: /eve\nX_Forwarded_Host: eve\nForwarded: for=6.6.6.6\nX-Request-Id: eve\n\
             traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\nCookie: a=b\nExpect: nothing",
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    let mut fields = answer.json()["fields"].clone();
    let id = fields["x-request-id"].take();
    assert_eq!(id.as_str().unwrap().len(), 32);
    let expected = json!({
        "host": upstream.address.to_string(), "te": "trailers", "connection": "TE", "cookie": "a=b", "via": "1.1 tollgate",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x-auth-subject": "ada", "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http",
        "x-forwarded-host": "gate.test", "x-request-id": null,
    });
    assert_eq!(fields, expected);
    assert!(answer.has("via: 1.1 tollgate"));
}

#[tokio::test]
async fn basic_credentials_are_the_upstreams_and_tokens_are_not() {
    let upstream = echo().await;
    let plain = Gate::before(&upstream);
    let open = json!([{ "path": "/*", "auth": "none" }]);
    let forwarding = gate(Plan { api: json!({ "forward_token": true }), ..Plan::to(upstream.url("http")) });
    let none = json!({ "forward_token": true, "resources": open });
    let none = gate(Plan { api: none, ..Plan::to(upstream.url("http")) });
    for (gate, sent, expected) in [
        (&plain, "Basic x", json!("Basic x")),
        (&plain, "BEARER x", Value::Null),
        (&plain, "DPoP x", Value::Null),
        (&forwarding, "Bearer x", json!("Bearer x")),
        (&none, "Bearer x", Value::Null),
    ] {
        let answer = gate.ask(&format!("GET /api/a HTTP/1.1\nAuthorization: {sent}")).await;
        assert_eq!(answer.json()["fields"]["authorization"], expected, "{sent}");
    }
}

#[tokio::test]
async fn a_trusted_peer_is_believed() {
    let upstream = echo().await;
    let gate = gate(Plan {
        trusted: vec!["127.0.0.0/8", "10.0.0.0/8"],
        api: json!({ "preserve_host": true }),
        ..Plan::to(upstream.url("http"))
    });
    let mut clients = Vec::new();
    for (forwarded, client) in [
        ("X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.1", "1.2.3.4"),
        ("X-Forwarded-For: 6.6.6.6\nX-Forwarded-For: 1.2.3.4\nX-Forwarded-For: ::ffff:10.0.0.1", "1.2.3.4"),
        ("X-Forwarded-For: 1.2.3.4, nonsense, 10.0.0.1", "10.0.0.1"),
        ("X-Forwarded-For: 1.2.3.4:99", "127.0.0.1"),
        ("X-Other: 1", "127.0.0.1"),
    ] {
        let fields = "X-Forwarded-Proto: https\nX-Forwarded-Host: shop.test\nX-Request-Id: edge-1";
        let answer = gate.ask(&format!("GET /api/a HTTP/1.1\n{forwarded}\n{fields}")).await.json()["fields"].clone();
        assert!(answer["x-forwarded-for"].as_str().unwrap().ends_with("127.0.0.1"));
        assert_eq!(answer["x-forwarded-proto"], "https");
        assert_eq!(answer["x-forwarded-host"], "shop.test");
        assert_eq!(answer["x-request-id"], "edge-1");
        assert_eq!(answer["host"], "gate.test");
        clients.push(client);
    }
    let logged: Vec<_> = gate.lines().iter().map(|line| line["client"].as_str().unwrap().to_owned()).collect();
    assert_eq!(logged, clients);
}

#[tokio::test]
async fn odd_requests_reach_nobody() {
    let upstream = echo().await;
    let gate = gate(Plan { proxy: json!({ "max_uri": "64B" }), ..Plan::to(upstream.url("http")) });
    let long = format!("GET /api/{} HTTP/1.1", "a".repeat(80));
    let many = format!("GET /api/a HTTP/1.1{}", "\nX-A: 1".repeat(101));
    let large = format!("GET /api/a HTTP/1.1\nX-A: {}", "a".repeat(70_000));
    for (request, status) in [
        ("GET /api/a HTTP/1.1\nHost: a\nHost: a", 400),
        ("GET /api/a HTTP/1.1\nHost: a,b", 400),
        ("GET /api/a HTTP/1.1\nHost: u@h", 400),
        ("GET /api/a HTTP/1.1\nHost: ", 400),
        ("GET http://evil/api/a HTTP/1.1", 400),
        ("GET ftp://gate.test/api/a HTTP/1.1", 400),
        ("GET http://gate.test/api/a HTTP/1.1", 200),
        ("GET /api/a#/b HTTP/1.1", 400),
        ("GET /api/../a HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 400),
        ("CONNECT gate.test:443 HTTP/1.1\nHost: gate.test:443", 405),
        ("POST /api/a HTTP/1.1\nTransfer-Encoding: gzip, chunked", 400),
        ("GET /api/a HTTP/1.1\nX-Deny: 1", 401),
        ("GET /other HTTP/1.1", 404),
        (&long, 414),
        (&many, 431),
        (&large, 431),
    ] {
        assert_eq!(gate.ask(request).await.status, status, "{}", &request[..request.len().min(80)]);
    }
    let mut client = gate.connect().await;
    client.write_all(b"GET /api/a HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(read_answer(&mut client).await.status, 400, "HTTP/1.1 without Host");
    assert_eq!(upstream.connections.load(Relaxed), 1, "only the good one went on");
    let text = gate.shared.metrics.render();
    assert!(
        text.contains(r#"tollgate_requests_total{api="A",door="proxy",outcome="granted",reason="granted"} 1"#),
        "{text}"
    );
}

#[tokio::test]
async fn a_refused_body_leaves_the_connection_usable_or_closed() {
    let upstream = echo().await;
    let gate = Gate::before(&upstream);
    let mut client = gate.connect().await;
    for fields in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
        let request = format!("POST /api/a HTTP/1.1\r\nHost: a\r\nX-Deny: 1\r\n{fields}");
        client.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut client).await.status, 401);
    }
    assert_eq!(ask(&mut client, "GET /api/a HTTP/1.1").await.status, 200);

    let denied = "POST /api/a HTTP/1.1\nX-Deny: 1\nContent-Length: 5\nExpect: 100-continue";
    let answer = ask(&mut client, denied).await;
    assert_eq!(answer.status, 401, "not 100");
    assert!(answer.has("connection: close") && is_closed(&mut client).await);
}

#[tokio::test]
async fn length_beside_chunked_is_one_request_and_the_last() {
    let upstream = echo().await;
    let gate = Gate::before(&upstream);
    let mut client = gate.connect().await;
    client
        .write_all(
            b"POST /api/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
              0\r\n\r\nGET /api/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await
        .unwrap();
    let answer = read_answer(&mut client).await;
    assert_eq!(answer.json()["fields"]["content-length"], Value::Null);
    assert!(answer.has("connection: close") && is_closed(&mut client).await);
    assert_eq!(gate.lines().len(), 1);
}

#[tokio::test]
async fn bodies_have_a_largest_size() {
    let upstream = echo().await;
    let gate = gate(Plan { proxy: json!({ "max_body": "8B" }), ..Plan::to(upstream.url("http")) });
    for (fields, status) in [
        ("Content-Length: 8\r\n\r\n12345678", 200),
        ("Content-Length: 9\r\n\r\n123456789", 413),
        ("Transfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n0\r\n\r\n", 200),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n5\r\n12345\r\n0\r\n\r\n", 413),
    ] {
        let mut client = gate.connect().await;
        let request = format!("POST /api/a HTTP/1.1\r\nHost: a\r\n{fields}");
        client.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut client).await.status, status, "{fields}");
    }
}

#[tokio::test]
async fn an_upload_that_goes_on_has_time_and_one_that_stops_has_not() {
    let upstream = echo().await;
    let gate = gate(Plan { proxy: json!({ "timeouts": { "request": "1s" } }), ..Plan::to(upstream.url("http")) });
    for (pieces, status) in [(30, 200), (2, 408)] {
        let mut client = gate.connect().await;
        client.write_all(b"POST /api/a HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n").await.unwrap();
        for _ in 0..pieces {
            tokio::time::sleep(Duration::from_millis(40)).await;
            client.write_all(b"x").await.unwrap();
        }
        assert_eq!(read_answer(&mut client).await.status, status);
    }
}

#[tokio::test]
async fn a_small_limit_of_the_head_is_kept() {
    let upstream = echo().await;
    let gate = gate(Plan { proxy: json!({ "max_header_bytes": "1KiB" }), ..Plan::to(upstream.url("http")) });
    for (length, status) in [(800, 200), (1100, 431)] {
        let answer = gate.ask(&format!("GET /api/a HTTP/1.1\nX-A: {}", "a".repeat(length))).await;
        assert_eq!(answer.status, status);
    }
}

#[tokio::test]
async fn a_reused_connection_that_is_gone_is_replaced() {
    // Answers once, then closes without having said so.
    let upstream = raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    })
    .await;
    let gate = Gate::before(&upstream);
    for _ in 0..5 {
        assert_eq!(gate.ask("GET /api/a HTTP/1.1").await.status, 200);
    }
}

#[tokio::test]
async fn upstreams_fail_in_their_own_ways() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = raw(|stream, _| async move {
        let _kept = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let saying = |said: &'static [u8]| {
        raw(move |mut stream, _| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(said).await;
        })
    };
    let nonsense = saying(b"SSH-2.0\r\n\r\n").await;
    // Without what the field says of it, the body is something else.
    let compressed = saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let inverted = saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let switching = raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ =
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n").await;
        let _ = stream.read(&mut [0; 9]).await;
    })
    .await;
    let good = echo().await;
    let dead = format!("http://{dead}");
    for (upstream, status, code) in [
        (json!(dead), 502, "101503"),
        (json!(nonsense.url("http")), 502, "101503"),
        (json!(switching.url("http")), 502, "101503"),
        (json!(compressed.url("http")), 502, "101503"),
        (json!(inverted.url("http")), 502, "101503"),
        (json!(silent.url("http")), 504, "101504"),
        (json!(silent.url("h2c")), 504, "101504"),
    ] {
        let gate = gate(Plan { proxy: json!({ "timeouts": { "request": "200ms" } }), ..Plan::to(upstream.clone()) });
        let answer = gate.ask("GET /api/a HTTP/1.1").await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{upstream}");
        assert!(answer.has("x-request-id: "));
    }
    let gate = gate(Plan::to(vec![dead, good.url("http")]));
    for _ in 0..4 {
        assert_eq!(gate.ask("GET /api/a HTTP/1.1").await.status, 200, "the next one is tried");
    }
}

#[tokio::test]
async fn upstreams_take_turns() {
    let (a, b) = (echo().await, echo().await);
    let gate = gate(Plan::to(vec![a.url("http"), b.url("http")]));
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(gate.ask("GET /api/a HTTP/1.1").await.json()["fields"]["host"].clone());
    }
    assert_eq!((&seen[0], &seen[1]), (&seen[2], &seen[3]));
    assert_ne!(seen[0], seen[1]);
}

#[tokio::test]
async fn the_built_in_echo_shows_no_credential() {
    let gate = gate(Plan { api: json!({ "forward_token": true }), ..Plan::to("echo:") });
    let answer = gate.ask("GET /api/a?x=1 HTTP/1.1\nAuthorization: Bearer secret\nCookie: secret").await;
    assert_eq!(answer.json()["path"], "/a");
    assert_eq!(answer.json()["query"], "x=1");
    assert!(!answer.body.contains("secret"));
}

#[tokio::test]
async fn events_arrive_before_the_end() {
    let go_on = Arc::new(Notify::new());
    let waiting = go_on.clone();
    let upstream = raw(move |mut stream, _| {
        let go_on = waiting.clone();
        async move {
            read_head(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = stream.write_all(format!("{head}9\r\ndata: 1\n\n\r\n").as_bytes()).await;
            go_on.notified().await;
            let _ = stream.write_all(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n").await;
            let _ = stream.read(&mut [0; 1]).await;
        }
    })
    .await;
    let gate = gate(Plan { proxy: json!({ "timeouts": { "request": "300ms" } }), ..Plan::to(upstream.url("http")) });
    let mut client = gate.connect().await;
    client.write_all(head("GET /api/a HTTP/1.1").as_bytes()).await.unwrap();
    let mut seen = String::new();
    let mut read_until = async |text: &str, seen: &mut String| {
        while !seen.contains(text) {
            seen.push(char::from(within(client.read_u8()).await.unwrap()));
        }
    };
    read_until("data: 1", &mut seen).await;
    assert!(!seen.contains("data: 2"));
    tokio::time::sleep(Duration::from_millis(400)).await;
    go_on.notify_one();
    read_until("0\r\n\r\n", &mut seen).await;
    assert!(seen.contains("data: 2"), "a stream is free of the request timeout");
}

#[tokio::test]
async fn grpc_passes_with_its_trailers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("h2c://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                let te = request.headers().get("te").cloned();
                let authority = request.uri().authority().is_some();
                let body = request.into_body().collect().await?;
                let identity = body.trailers().is_some_and(|trailers| trailers.contains_key("x-auth-subject"));
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                let frames = [Ok::<_, Infallible>(Frame::data(body.to_bytes())), Ok(Frame::trailers(trailers))];
                let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
                let good = te.is_some_and(|te| te == "trailers") && authority && !identity;
                *response.status_mut() = if good { StatusCode::OK } else { StatusCode::BAD_REQUEST };
                Ok::<_, hyper::Error>(response)
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    let gate = gate(Plan::to(url));
    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(gate.connect().await)).await.unwrap();
    tokio::spawn(connection);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-auth-subject", HeaderValue::from_static("eve"));
    let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from("ping"))), Ok(Frame::trailers(trailers))];
    let request = Request::post("http://gate.test/api/svc/Method")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .unwrap();
    let response = within(client.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = within(response.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "ping");
}

#[tokio::test]
async fn declared_trailers_pass_and_an_identity_in_them_does_not() {
    let upstream = echo().await;
    let gate = Gate::before(&upstream);
    let mut client = gate.connect().await;
    client
        .write_all(
            b"POST /api/a HTTP/1.1\r\nHost: a\r\nTrailer: X-Check, X-Auth-Subject\r\nTransfer-Encoding: chunked\r\n\r\n\
              2\r\nhi\r\n0\r\nX-Check: 7\r\nX-Auth-Subject: eve\r\n\r\n",
        )
        .await
        .unwrap();
    let seen = read_answer(&mut client).await.json();
    assert_eq!((&seen["body"], &seen["trailers"]), (&json!("hi"), &json!({ "x-check": "7" })));
}

#[tokio::test]
async fn http2_clients_reach_http1_upstreams() {
    let upstream = echo().await;
    let gate = Gate::before(&upstream);
    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(gate.connect().await)).await.unwrap();
    tokio::spawn(connection);
    for (request, status) in [
        (Request::get("http://gate.test/api/a"), 200),
        (Request::get("http://gate.test/api/a").header("host", "evil"), 400),
        (Request::get("http://gate.test/api/a").header("x-deny", "1"), 401),
    ] {
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let response = within(client.send_request(request)).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        let body = within(response.into_body().collect()).await.unwrap().to_bytes();
        if status == 200 {
            let seen: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((&seen["version"], &seen["target"]), (&json!("HTTP/1.1"), &json!("/a")));
            assert_eq!(seen["fields"]["x-forwarded-host"], "gate.test");
        }
    }
}

#[tokio::test]
async fn websockets_pass_and_other_upgrades_do_not() {
    let upstream = raw(|stream, _| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            let _ = socket.send(message).await;
        }
    })
    .await;
    let gate = Gate::before(&upstream);
    let stream: TcpStream = gate.connect().await;
    let (mut socket, response) =
        within(tokio_tungstenite::client_async("ws://gate.test/api/ws", stream)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(within(socket.next()).await.unwrap().unwrap(), Message::text(text));
    }

    let upstream = self::upstream(|request| async move {
        assert!(!request.headers().contains_key("upgrade"));
        Ok(Response::new(Full::default()))
    })
    .await;
    let answer = Gate::before(&upstream).ask("GET /api/a HTTP/1.1\nConnection: upgrade\nUpgrade: h2c").await;
    assert_eq!(answer.status, 200);
    let answer = gate.ask("GET /api/ws HTTP/1.1\nX-Deny: 1\nConnection: upgrade\nUpgrade: websocket").await;
    assert_eq!(answer.status, 401, "judged like any request");
}

#[tokio::test]
async fn one_access_line_tells_of_a_request() {
    let upstream = echo().await;
    let gate = Gate::before(&upstream);
    let traceparent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    gate.ask(&format!("GET /api/%61?secret=1 HTTP/1.1\n{traceparent}\nAuthorization: Bearer secret")).await;
    gate.ask("GET /api/b HTTP/1.1\nX-Deny: 1").await;
    let lines = gate.lines();
    assert_eq!(lines.len(), 2);
    for (field, value) in [
        ("method", json!("GET")),
        ("path", json!("/api/a")),
        ("status", json!(200)),
        ("reason", json!("granted")),
        ("api", json!("A")),
        ("template", json!("/*")),
        ("trace_id", json!("0af7651916cd43dd8448eb211c80319c")),
    ] {
        assert_eq!(lines[0][field], value, "{}", lines[0]);
    }
    assert_eq!((&lines[1]["status"], &lines[1]["reason"]), (&json!(401), &json!("no_credential")));
    assert!(!format!("{lines:?}").contains("secret"));
}
