//! Streams through the proxy door: bodies, trailers, events, WebSockets, gRPC, connections that are kept.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};

use crate::proxy::{item, main_world, send};
use crate::support::{BOTH, Backend, Client, Config, Gate, Idp, Request, Via, block_on};

#[test]
fn bodies_and_trailers_stream_through() {
    let world = main_world();
    let token = world.bearer("shop-web");
    for via in BOTH {
        let body = vec![b'x'; 600 << 10];
        let answer = send(world, *via, &Request::new("POST", "/orders/v1/plain/{m}").bearer(&token).body(body));
        assert_eq!(answer.json()["body_len"], 600 << 10, "{via:?} {:?}", answer.error);
        let request = Request::post("/orders/v1/plain/{m}")
            .bearer(&token)
            .header("trailer", "x-check")
            .trailer("x-check", "7")
            .header("te", "trailers")
            .script("trailers");
        let answer = send(world, *via, &request);
        assert_eq!(answer.trailers, [("x-checksum".to_owned(), "42".to_owned())], "{via:?} {answer:?}");
        let told = answer.json()["trailers"].as_str().unwrap_or_default().to_ascii_lowercase();
        assert!(told.contains("x-check: 7"), "{via:?} {told}");
    }
}

#[test]
fn a_body_is_not_buffered() {
    let world = main_world();
    let token = world.bearer("shop-web");
    let (answer, rest) = block_on(async {
        let mut client = Client::connect(world.gate.ports.proxy).await.unwrap();
        let head = format!(
            "POST /orders/v1/plain/1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\nx-script: echo\r\n\
             transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"
        );
        client.write(head.as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(60), client.read_head()).await.unwrap().unwrap();
        let mut text = client.more().await;
        while !String::from_utf8_lossy(&text).contains("first") {
            text.extend(client.more().await);
        }
        client.write(b"6\r\nsecond\r\n0\r\n\r\n").await.unwrap();
        while !text.ends_with(b"0\r\n\r\n") {
            let more = client.more().await;
            assert!(!more.is_empty(), "ended early");
            text.extend(more);
        }
        (answer, text)
    });
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8_lossy(&rest).contains("second"));
}

#[test]
fn server_sent_events_come_one_by_one() {
    let world = main_world();
    let request = item(world).script("events:600");
    let first = block_on(async {
        let mut client = Client::connect(world.gate.ports.proxy).await.unwrap();
        client.write(&request.h1_bytes()).await.unwrap();
        let head = client.read_head().await.unwrap();
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        let mut text = client.more().await;
        while !String::from_utf8_lossy(&text).contains("data: 0") {
            text.extend(client.more().await);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    assert!(!first.contains("data: 599"), "the events were held back");
}

#[test]
fn a_web_socket_passes_and_is_judged() {
    let world = main_world();
    let call = |token: Option<String>| async move {
        let mut request = "ws://api.example.com/orders/v1/items/socket".into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("x-script", "upgrade".parse().unwrap());
        if let Some(token) = token {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", world.gate.ports.proxy)).await.unwrap();
        tokio_tungstenite::client_async(request, stream).await
    };
    block_on(async {
        let (mut socket, response) = call(Some(world.bearer("shop-web"))).await.unwrap();
        assert_eq!(response.status(), 101);
        for text in ["one", "two"] {
            socket.send(Message::text(text)).await.unwrap();
            let echoed = tokio::time::timeout(Duration::from_secs(60), socket.next()).await.unwrap();
            assert_eq!(echoed.unwrap().unwrap(), Message::text(text));
        }
        // Longer than the request time-out: an upgraded connection is free of it.
        tokio::time::sleep(Duration::from_millis(6500)).await;
        socket.send(Message::text("late")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("late"));
        match call(None).await {
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => assert_eq!(response.status(), 401),
            other => panic!("should be refused: {other:?}"),
        }
    });
}

#[test]
fn grpc_passes_with_trailers() {
    let world = main_world();
    let request = Request::post("/grpc/v1/items/{m}")
        .bearer(world.bearer("shop-web"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .trailer("x-client-trailer", "1");
    let answer = send(world, Via::H2, &request);
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    assert!(answer.trailers.contains(&("grpc-status".into(), "0".into())), "{answer:?}");
    assert!(answer.trailers.contains(&("x-request-trailers".into(), "x-client-trailer".into())), "{answer:?}");
    assert!(world.grpc.saw(&request.mark));
    let refused = Request::post("/grpc/v1/items/{m}").header("content-type", "Application/GRPC+proto");
    let answer = send(world, Via::H2, &refused);
    assert_eq!(answer.header("grpc-status"), Some("16"), "{answer:?}");
    assert!(!world.grpc.saw(&refused.mark));
}

#[test]
fn upstream_connections_are_kept() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let config = Config::orders(&idp, &upstream.url());
    let gate = Gate::start(|ports| format!("workers = 1\n{}", config.text(ports)));
    block_on(async {
        let mut client = Client::connect(gate.ports.proxy).await.unwrap();
        for _ in 0..20 {
            assert_eq!(client.call(&Request::get("/orders/v1/public/{m}")).await.status, 200);
        }
    });
    assert!(upstream.connections() <= 2, "{} connections for 20 requests", upstream.connections());
}
