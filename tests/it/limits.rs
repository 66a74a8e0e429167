//! Limits, time-outs and other sockets of the proxy door: TLS, Unix sockets.

use std::{sync::Arc, time::Duration};

use crate::support::{BOTH, Backend, Client, Config, Gate, Idp, Request, Token, Via, api, block_on, resource, unique};

/// Small limits.
fn small() -> (Gate, Idp, Backend) {
    limited("max_header_bytes = \"8KiB\"\nmax_headers = 20\nmax_uri = \"1KiB\"\nmax_body = \"1KiB\"")
}

/// Time-outs: what is to be in time takes a small part of one, what is to be late far more.
fn hasty(timeouts: &str) -> (Gate, Idp, Backend) {
    limited(&format!("timeouts = {{ {timeouts} }}"))
}

fn limited(proxy: &str) -> (Gate, Idp, Backend) {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let config = Config::orders(&idp, &upstream.url()).proxy(proxy);
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
    let (gate, _idp, _upstream) = hasty("request = \"2s\"");
    for via in BOTH {
        let slow = block_on(gate.send(*via, &Request::get("/orders/v1/public/{m}").script("slow:600000")));
        assert_eq!(slow.status, 504, "{via:?} {slow:?}");
        // Thirty events take three seconds; the limit is until the head.
        let events = block_on(gate.send(*via, &Request::get("/orders/v1/public/{m}").script("events:30")));
        assert!(events.text().contains("data: 29"), "{via:?} {events:?}");
    }
}

#[test]
fn a_slow_head_is_cut() {
    let (gate, _idp, _upstream) = hasty("header = \"1s\"");
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

/// Errors of connections so far, by reason.
fn errors(gate: &Gate, reason: &str) -> f64 {
    gate.metric("tollgate_connection_errors_total", &[&format!("reason=\"{reason}\"")])
}

#[test]
fn a_head_in_time_passes_and_a_late_one_is_cut() {
    let (gate, _idp, _upstream) = hasty("header = \"3s\"");
    for (pause, passes) in [(1, true), (1000, false)] {
        let before = errors(&gate, "header_timeout");
        let passed = block_on(async {
            let mut client = Client::connect(gate.ports.proxy).await.unwrap();
            let head = b"GET /orders/v1/public/1 HTTP/1.1\r\nhost: a\r\n\r\n";
            for piece in head.chunks(10) {
                if client.write(piece).await.is_err() {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            client.read("GET").await.status == 200
        });
        assert_eq!(passed, passes, "a piece each {pause} ms, three seconds for all");
        assert_eq!(errors(&gate, "header_timeout") > before, !passes);
    }
}

#[test]
fn a_slow_body_passes_while_it_comes_and_is_cut_when_it_stops() {
    let (gate, _idp, _upstream) = hasty("request = \"3s\", idle = \"3s\"");
    let head = "POST /orders/v1/public/MARK HTTP/1.1\r\nhost: a\r\ncontent-length: 40\r\n\r\n";
    for (stops, status) in [(false, 200), (true, 408)] {
        let (before, mark) = (errors(&gate, "body_timeout"), unique());
        let answer = block_on(async {
            let mut client = Client::connect(gate.ports.proxy).await.unwrap();
            client.write(head.replace("MARK", &mark).as_bytes()).await.unwrap();
            // Longer in all than anything may take, and never long without a byte.
            for _ in 0..if stops { 2 } else { 40 } {
                tokio::time::sleep(Duration::from_millis(100)).await;
                client.write(b"x").await.unwrap();
            }
            client.read("POST").await
        });
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(errors(&gate, "body_timeout") > before, stops);
    }
    assert!(gate.alive());
}

#[test]
fn an_answer_that_nobody_reads_is_cut() {
    let (gate, _idp, _upstream) = hasty("idle = \"1s\"");
    block_on(async {
        let mut client = Client::connect(gate.ports.proxy).await.unwrap();
        client.write(b"GET /orders/v1/public/1 HTTP/1.1\r\nhost: a\r\nx-script: big:64\r\n\r\n").await.unwrap();
        gate.wait_for("it to be cut", || errors(&gate, "body_timeout") >= 1.0);
    });
}

#[test]
fn connections_beyond_the_cap_are_closed_and_others_go_on() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let config = Config::orders(&idp, &upstream.url()).proxy("max_connections = 5");
    let gate = Gate::start(|ports| config.text(ports));
    let head = b"GET /orders/v1/public/1 HTTP/1.1\r\nhost: a\r\n\r\n";
    block_on(async {
        let mut open = Vec::new();
        for _ in 0..5 {
            let mut client = Client::connect(gate.ports.proxy).await.unwrap();
            client.write(head).await.unwrap();
            assert_eq!(client.read("GET").await.status, 200, "just inside");
            open.push(client);
        }
        let mut sixth = Client::connect(gate.ports.proxy).await.unwrap();
        let _ = sixth.write(head).await;
        assert_eq!(sixth.read("GET").await.status, 0, "just outside");
        open[0].write(head).await.unwrap();
        assert_eq!(open[0].read("GET").await.status, 200, "the others go on");
    });
    assert!(errors(&gate, "too_many") >= 1.0);
    assert!(gate.alive(), "the admin door has room of its own");
    gate.wait_for("a place", || block_on(gate.send(Via::H1, &Request::get("/orders/v1/public/{m}"))).status == 200);
}

/// A gate that serves TLS for `localhost`, and who trusts it.
fn secure(proxy: &str) -> (Gate, Idp, Backend, rustls::RootCertStore) {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, certificate.cert.pem()).unwrap();
    std::fs::write(&key, certificate.signing_key.serialize_pem()).unwrap();
    let tls = format!("tls = {{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
    let config = Config::orders(&idp, &upstream.url()).proxy(&tls).proxy(proxy);
    let gate = Gate::start(|ports| config.text(ports));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.cert.der().clone()).unwrap();
    (gate, idp, upstream, roots)
}

#[test]
fn a_stalled_handshake_is_cut() {
    let (gate, _idp, _upstream, _roots) = secure("timeouts = { header = \"1s\" }");
    block_on(async {
        let mut silent = Client::connect(gate.ports.proxy).await.unwrap();
        let mut stalled = Client::connect(gate.ports.proxy).await.unwrap();
        // The head of a record, and the beginning of a ClientHello that never goes on.
        stalled.write(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
        assert!(silent.closes().await && stalled.closes().await);
    });
    gate.wait_for("both to be counted", || errors(&gate, "tls_handshake") >= 2.0);
}

#[test]
fn tls_speaks_http2_by_alpn() {
    let (gate, _idp, _upstream, roots) = secure("");
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
