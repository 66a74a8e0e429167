//! Limits, time-outs and other sockets of the proxy door: TLS, Unix sockets.

use std::sync::Arc;

use crate::support::{BOTH, Backend, Client, Config, Gate, Idp, Request, Token, Via, api, block_on, resource};

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
