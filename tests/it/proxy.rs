//! The proxy door: what is forwarded, what is removed and set, streams, upgrades, limits, time-outs, TLS.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};

use crate::support::{
    Answer, BOTH, Backend, Client, Config, Form, Gate, Idp, Request, Token, Via, World, api, block_on, resource, world,
};

fn main_world() -> &'static World {
    world(Form::Wso2)
}

fn send(world: &World, via: Via, request: &Request) -> Answer {
    block_on(world.gate.send(via, request))
}

fn item(world: &World) -> Request {
    Request::get("/orders/v1/items/{m}").bearer(world.bearer("shop-web"))
}

#[test]
fn identity_is_set() {
    let world = main_world();
    let token = world.token().claim("email", "ada@example.com").sign();
    for via in BOTH {
        let answer = send(world, *via, &Request::get("/orders/v1/items/{m}").bearer(&token));
        let expected = [
            ("x-auth-subject", "alice"),
            ("x-auth-client-id", "shop-web"),
            ("x-auth-scopes", "orders:read orders:write"),
            ("x-auth-application", "shop-web"),
            ("x-auth-tier", "Unlimited"),
            ("x-auth-email", "ada@example.com"),
        ];
        for (name, value) in expected {
            assert_eq!(answer.forwarded_field(name), [value], "{name} {via:?}");
        }
    }
}

#[test]
fn client_identity_is_stripped() {
    let world = main_world();
    for via in BOTH {
        let request = Request::get("/orders/v1/public/{m}")
            .header("x-auth-subject", "forged")
            .header("x_auth_tier", "forged")
            .header("x-forwarded-client-cert", "forged")
            .header("proxy-authorization", "Basic forged");
        let head = send(world, *via, &request).forwarded();
        assert!(!head.contains("forged"), "{via:?} {head}");
    }
}

#[test]
fn the_credential_is_removed() {
    let world = main_world();
    let token = world.bearer("shop-web");
    for via in BOTH {
        let head = send(world, *via, &item(world)).forwarded();
        assert!(!head.contains("authorization"), "{head}");
        let request = Request::get("/orders/v1/public/{m}").bearer("unjudged");
        assert!(!send(world, *via, &request).forwarded().contains("unjudged"), "removed where auth is none");
        let request = Request::get("/keep/v1/items/{m}").bearer(&token);
        assert_eq!(send(world, *via, &request).forwarded_field("authorization"), [format!("Bearer {token}")]);
    }
}

#[test]
fn a_query_token_is_never_forwarded() {
    let world = main_world();
    let token = world.bearer("shop-web");
    let rows = [
        (format!("/query/v1/items/{{m}}?a=1&access_token={token}&b=%2F"), "?a=1&b=%2F "),
        (format!("/query/v1/items/{{m}}?access_token={token}"), " "),
        (format!("/query/v1/items/{{m}}?access_token={token}&"), ""),
        (format!("/orders/v1/public/{{m}}?x=1&access_token={token}"), "?x=1 "),
        (format!("/orders/v1/public/{{m}}?access%5Ftoken={token}&x=1"), "?x=1 "),
    ];
    for (target, rest) in rows {
        for via in BOTH {
            let request = Request::get(&target);
            let answer = send(world, *via, &request);
            let line = answer.forwarded().lines().next().unwrap_or_default().to_owned();
            assert!(
                line.contains(&format!("{}{rest}", request.mark)) && !line.contains("token"),
                "{target} {line} {answer:?}"
            );
        }
    }
}

#[test]
fn forwarding_fields_are_right() {
    let world = main_world();
    for via in BOTH {
        let answer = send(world, *via, &item(world));
        assert_eq!(answer.forwarded_field("host"), [world.upstream.authority()], "{via:?}");
        assert_eq!(answer.forwarded_field("x-forwarded-for"), ["127.0.0.1"], "{via:?}");
        assert_eq!(answer.forwarded_field("x-forwarded-proto"), ["http"], "{via:?}");
        assert_eq!(answer.forwarded_field("x-forwarded-host"), ["api.example.com"], "{via:?}");
        let via_field = answer.forwarded_field("via").join(",");
        let version = if *via == Via::H1 { "1.1 " } else { "2" };
        assert!(via_field.starts_with(version), "{via:?} {via_field}");
        assert_eq!(answer.forwarded_field("x-request-id").len(), 1, "{via:?}");
        let request = Request::get("/keep/v1/items/{m}").bearer(world.bearer("shop-web"));
        assert_eq!(send(world, *via, &request).forwarded_field("host"), ["api.example.com"], "preserve_host {via:?}");
    }
}

#[test]
fn a_trusted_proxy_is_believed() {
    let world = main_world();
    let request = item(world).header("x-forwarded-for", "203.0.113.9").header("x-forwarded-proto", "https");
    let answer = send(world, Via::H1, &request);
    let addresses = answer.forwarded_field("x-forwarded-for").join(",").replace(' ', "");
    assert_eq!(addresses, "203.0.113.9,127.0.0.1");
    assert_eq!(answer.forwarded_field("x-forwarded-proto"), ["https"]);
    let line = world.gate.access_line(&request.mark).unwrap();
    assert_eq!(line["client"], "203.0.113.9", "{line}");
}

#[test]
fn trace_and_request_id_go_on() {
    let world = main_world();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for via in BOTH {
        let request =
            item(world).header("traceparent", parent).header("tracestate", "a=1").header("x-request-id", "{m}-id");
        let answer = send(world, *via, &request);
        let passed = answer.forwarded_field("traceparent").join(",");
        assert!(passed.contains("0af7651916cd43dd8448eb211c80319c"), "{passed}");
        assert_eq!(answer.forwarded_field("x-request-id"), [format!("{}-id", request.mark)]);
        let line = world.gate.access_line(&request.mark).unwrap();
        assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c", "{line}");
        assert_eq!(line["request_id"], format!("{}-id", request.mark), "{line}");
    }
}

#[test]
fn the_access_line_tells_the_request() {
    let world = main_world();
    let request = item(world);
    assert_eq!(send(world, Via::H2, &request).status, 200);
    let line = world.gate.access_line(&request.mark).unwrap();
    for (name, value) in [
        ("api", "Orders"),
        ("version", "v1"),
        ("template", "/items/{id}"),
        ("application", "shop-web"),
        ("key_type", "PRODUCTION"),
        ("tier", "Unlimited"),
        ("reason", "granted"),
        ("method", "GET"),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    assert_eq!(line["status"], 200);
    for name in ["verdict_us", "upstream_ms", "duration_ms"] {
        assert!(line[name].is_number(), "{name}: {line}");
    }
}

#[test]
fn hop_by_hop_fields_stay_here() {
    let world = main_world();
    let request = item(world)
        .header("connection", "x-mine, keep-alive")
        .header("x-mine", "1")
        .header("keep-alive", "timeout=5")
        .header("te", "trailers, gzip")
        .header("x-kept", "1")
        .script("hop");
    let answer = send(world, Via::H1, &request);
    for name in ["x-mine", "keep-alive"] {
        assert!(answer.forwarded_field(name).is_empty(), "{name} {}", answer.forwarded());
    }
    assert_eq!(answer.forwarded_field("x-kept"), ["1"]);
    for name in ["x-secret-hop", "proxy-authenticate"] {
        assert_eq!(answer.header(name), None, "{name} {answer:?}");
    }
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.header("x-kept"), Some("1"));
}

#[test]
fn head_options_and_empty_answers() {
    let world = main_world();
    let token = world.bearer("shop-web");
    for via in BOTH {
        let head = Request::new("HEAD", "/orders/v1/items/{m}").bearer(&token).script("head");
        let answer = send(world, *via, &head);
        assert_eq!(
            (answer.status, answer.body.len(), answer.header("content-length")),
            (200, 0, Some("1234")),
            "{via:?}"
        );
        let nothing = send(world, *via, &item(world).script("nothing"));
        assert_eq!((nothing.status, nothing.body.len(), nothing.header("x-kept")), (204, 0, Some("1")), "{via:?}");
        let listed = send(world, *via, &Request::new("OPTIONS", "/orders/v1/options/{m}"));
        assert_eq!(listed.status, 200, "{via:?}");
        let odd = send(world, *via, &item(world).script("status:418"));
        assert_eq!(odd.status, 418, "an upstream's status is its own");
        let close = send(world, *via, &item(world).script("until-close"));
        assert_eq!(close.json()["backend"], "production", "{via:?}");
    }
}

#[test]
fn key_type_chooses_the_environment() {
    let world = main_world();
    for (client, backend) in [("shop-web", "production"), ("shop-sandbox", "sandbox")] {
        for via in BOTH {
            let answer = send(world, *via, &Request::get("/env/v1/items/{m}").bearer(world.bearer(client)));
            assert_eq!(answer.json()["backend"], backend, "{client} {via:?}");
        }
    }
}

#[test]
fn several_upstreams_are_used_in_turn() {
    let world = main_world();
    let token = world.bearer("shop-web");
    let names: Vec<String> = (0..24)
        .map(|_| send(world, Via::H1, &Request::get("/turns/items/{m}").bearer(&token)).json()["backend"].to_string())
        .collect();
    let production = names.iter().filter(|name| name.contains("production")).count();
    assert!((6..=18).contains(&production), "{names:?}");
}

#[test]
fn the_built_in_echo_answers() {
    let world = main_world();
    for via in BOTH {
        let answer = send(world, *via, &Request::get("/echo/v1/items/{m}").bearer(world.bearer("shop-web")));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.text().to_ascii_lowercase().contains("bearer"), "{}", answer.text());
    }
}

#[test]
fn bodies_and_trailers_stream_through() {
    let world = main_world();
    let token = world.bearer("shop-web");
    for via in BOTH {
        let body = vec![b'x'; 600 << 10];
        let answer = send(world, *via, &Request::new("POST", "/orders/v1/plain/{m}").bearer(&token).body(body));
        assert_eq!(answer.json()["body_len"], 600 << 10, "{via:?} {:?}", answer.error);
        let request = Request::post("/orders/v1/plain/{m}").bearer(&token).trailer("x-check", "7").script("trailers");
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
        let answer = tokio::time::timeout(Duration::from_secs(10), client.read_head()).await.unwrap().unwrap();
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
    let request = item(world).script("events:30");
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
    assert!(!first.contains("data: 29"), "the events were held back");
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
            let echoed = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.unwrap();
            assert_eq!(echoed.unwrap().unwrap(), Message::text(text));
        }
        // Longer than the request time-out: an upgraded connection is free of it.
        tokio::time::sleep(Duration::from_millis(3500)).await;
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
    let refused = Request::post("/grpc/v1/items/{m}").header("content-type", "application/grpc+proto");
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

/// Short time-outs and small limits.
fn small() -> (Gate, Idp, Backend) {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let config = Config::orders(&idp, &upstream.url())
        .proxy("max_header_bytes = \"8KiB\"\nmax_headers = 20\nmax_uri = \"1KiB\"\nmax_body = \"1KiB\"")
        .proxy("timeouts = { connect = \"1s\", header = \"1s\", idle = \"1s\", request = \"1s\" }");
    (Gate::start(|ports| config.text(ports)), idp, upstream)
}

#[test]
fn limits_are_kept() {
    let (gate, _idp, upstream) = small();
    let public = || Request::get("/orders/v1/public/{m}");
    let many = (0..30).fold(public(), |request, n| request.header(&format!("x-many-{n}"), "1"));
    for via in BOTH {
        let at_limit = Request::post("/orders/v1/public/{m}").body(vec![b'x'; 1024]);
        assert_eq!(block_on(gate.send(*via, &at_limit)).status, 200, "{via:?}");
        let rows = [
            (413, Request::post("/orders/v1/public/{m}").body(vec![b'x'; 1025])),
            (413, Request::post("/orders/v1/public/{m}").body(vec![b'x'; 1025]).trailer("x-check", "1")),
            (414, Request::get(&format!("/orders/v1/public/{{m}}?{}", "x".repeat(1100)))),
            (431, many.clone()),
            (431, public().header("x-big", "x".repeat(9 << 10))),
        ];
        for (status, request) in rows {
            let answer = block_on(gate.send(*via, &request));
            // A body without a length is cut while it streams: the answer may be lost with the connection.
            let cut = answer.status == 0 && !request.trailers.is_empty();
            assert!(answer.status == status || cut, "{via:?} {status} {answer:?}");
            assert!(status == 413 || !upstream.saw(&request.mark), "{via:?} {status}");
        }
    }
    assert!(gate.alive());
}

#[test]
fn slow_upstreams_are_504_and_streams_are_free() {
    let (gate, _idp, _upstream) = small();
    for via in BOTH {
        let slow = block_on(gate.send(*via, &Request::get("/orders/v1/public/{m}").script("slow:4000")));
        assert_eq!(slow.status, 504, "{via:?} {slow:?}");
        // Twenty events take two seconds; the limit is until the head.
        let events = block_on(gate.send(*via, &Request::get("/orders/v1/public/{m}").script("events:20")));
        assert!(events.text().contains("data: 19"), "{via:?} {events:?}");
    }
}

#[test]
fn a_slow_head_is_cut() {
    let (gate, _idp, _upstream) = small();
    block_on(async {
        let mut slow = Client::connect(gate.ports.proxy).await.unwrap();
        slow.write(b"GET /orders/v1/public/1 HTTP/1.1\r\nhost: a\r\nx-a: ").await.unwrap();
        let mut silent = Client::connect(gate.ports.proxy).await.unwrap();
        let other = gate.send(Via::H1, &Request::get("/orders/v1/public/{m}")).await;
        assert_eq!(other.status, 200, "others are not affected");
        assert!(slow.closes().await, "a head that never ends");
        assert!(silent.closes().await, "a connection without a request");
    });
    assert!(gate.metric("tollgate_connection_errors_total", &[]) >= 1.0);
}

#[test]
fn tls_speaks_http2_by_alpn() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, certificate.cert.pem()).unwrap();
    std::fs::write(&key, certificate.signing_key.serialize_pem()).unwrap();
    let tls = format!("tls = {{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
    let config = Config::orders(&idp, &upstream.url()).proxy(&tls);
    let gate = Gate::start(|ports| config.text(ports));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.cert.der().clone()).unwrap();
    for (offered, expected) in
        [(&[b"h2".as_slice(), b"http/1.1"][..], "h2"), (&[b"http/1.1".as_slice()][..], "http/1.1")]
    {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut client = builder.with_root_certificates(roots.clone()).with_no_client_auth();
        client.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let status = block_on(async {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", gate.ports.proxy)).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
            let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
            let agreed = stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
            assert_eq!(String::from_utf8_lossy(&agreed), expected);
            tls_get(stream, expected == "h2").await
        });
        assert_eq!(status, 401, "{expected}");
    }
}

/// GET of an item without a token over an established TLS stream; the status.
async fn tls_get(mut stream: tokio_rustls::client::TlsStream<tokio::net::TcpStream>, h2: bool) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    if h2 {
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get("https://localhost/orders/v1/items/1").body(()).unwrap();
        return sender.send_request(request, true).unwrap().0.await.unwrap().status().as_u16();
    }
    stream.write_all(b"GET /orders/v1/items/1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut head = vec![0; 12];
    stream.read_exact(&mut head).await.unwrap();
    String::from_utf8_lossy(&head[9..]).parse().unwrap()
}

#[test]
fn a_unix_socket_upstream_works() {
    let idp = Idp::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("up.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        while let Ok((mut stream, _)) = listener.accept() {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nunix");
        }
    });
    let local =
        api("Local", "/local", None, &format!("upstream = \"unix:{}\"\nsubscription = \"none\"", path.display()));
    let config = Config::orders(&idp, "echo:").with(&local).with(&resource("/items/{id}", ""));
    let gate = Gate::start(|ports| config.text(ports));
    let token = Token::of(&idp, "anyone").sign();
    for via in BOTH {
        let answer = block_on(gate.send(*via, &Request::get("/local/items/{m}").bearer(&token)));
        assert_eq!((answer.status, answer.text().as_str()), (200, "unix"), "{answer:?}");
    }
}
