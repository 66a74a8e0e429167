//! TLS on both sides of the proxy door: upstreams by ALPN, whose certificates are verified; clients by certificate.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};

use crate::support::{BOTH, Config, Gate, Idp, Request, Via, api, block_on, resource, runtime};

/// An authority, and where its root and what it signs lie as files.
struct Authority {
    dir: TempDir,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
type Signed = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Authority {
    fn new() -> Self {
        let (dir, key) = (tempfile::tempdir().unwrap(), KeyPair::generate().unwrap());
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = parameters.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("root.pem"), root.pem()).unwrap();
        Self { dir, certificate: root.der().clone(), issuer: Issuer::new(parameters, key) }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root.pem")
    }

    /// A certificate for `name`, also as `name.pem` and `name.key`.
    fn sign(&self, name: &str) -> Signed {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.dir.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

/// An upstream behind TLS; its port. Over what was agreed on, HTTP/2 or HTTP/1.1, it tells which of them it was. With
/// `sockets`, HTTP/1.1 is for WebSockets, whose messages it sends back.
fn upstream((certificate, key): Signed, protocols: &[&[u8]], sockets: bool) -> u16 {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (port, listener) = listen();
    runtime().spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                if sockets && !h2 { send_back(stream).await } else { tell(stream).await }
            });
        }
    });
    port
}

fn listen() -> (u16, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    (listener.local_addr().unwrap().port(), listener)
}

async fn tell(stream: TlsStream<TcpStream>) {
    let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
        let host = request.headers().get("host").and_then(|host| host.to_str().ok());
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let told = format!("{:?} {}", request.version(), authority.or(host).unwrap_or_default());
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>(http::Response::new(Full::<bytes::Bytes>::from(format!("{told} {}", body.len()))))
    });
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn send_back(stream: TlsStream<TcpStream>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

/// A gate whose API `/up`, open to all, is at `upstream`; it trusts `roots` where there are any.
fn gate(upstream: &str, roots: Option<&Path>, proxy: &str) -> (Gate, Idp) {
    let idp = Idp::start();
    let up = api("Up", "/up", None, &format!("upstream = \"{upstream}\"\nsubscription = \"none\""));
    let config = Config::orders(&idp, "echo:").with(&up).with(&resource("/{id}", "auth = \"none\"")).proxy(proxy);
    let roots: Vec<_> = roots.into_iter().map(|roots| ("SSL_CERT_FILE", roots)).collect();
    let gate = Gate::launch_with(&roots, |ports| config.text(ports));
    gate.wait_ready();
    (gate, idp)
}

#[test]
fn a_tls_upstream_is_spoken_to_as_agreed() {
    let authority = Authority::new();
    for (offers, spoken) in [
        (&[b"h2".as_slice(), b"http/1.1"][..], "HTTP/2.0"),
        (&[b"http/1.1".as_slice()][..], "HTTP/1.1"),
        (&[], "HTTP/1.1"),
    ] {
        let port = upstream(authority.sign("localhost"), offers, false);
        let (gate, _idp) = gate(&format!("https://localhost:{port}"), Some(&authority.root()), "");
        for via in BOTH {
            for length in [0, 300 << 10] {
                let request = Request::new("POST", "/up/{m}").body(vec![b'x'; length]);
                let answer = block_on(gate.send(*via, &request));
                let told = format!("{spoken} localhost:{port} {length}");
                assert_eq!((answer.status, answer.text()), (200, told), "{via:?} {spoken}");
            }
        }
    }
}

#[test]
fn a_tls_upstream_is_who_its_certificate_says() {
    let (ours, strangers) = (Authority::new(), Authority::new());
    for (what, certificate) in
        [("another name", ours.sign("api.example.com")), ("another authority", strangers.sign("localhost"))]
    {
        let port = upstream(certificate, &[b"h2", b"http/1.1"], false);
        let (gate, _idp) = gate(&format!("https://localhost:{port}"), Some(&ours.root()), "");
        for via in BOTH {
            let answer = block_on(gate.send(*via, &Request::get("/up/{m}")));
            assert_eq!((answer.status, &answer.json()["code"]), (502, &"101503".into()), "{what} {via:?}");
        }
    }
}

#[test]
fn a_web_socket_reaches_a_tls_upstream_that_would_rather_speak_http2() {
    let authority = Authority::new();
    let port = upstream(authority.sign("localhost"), &[b"h2", b"http/1.1"], true);
    let (gate, _idp) = gate(&format!("https://localhost:{port}"), Some(&authority.root()), "");
    let plain = block_on(gate.send(Via::H1, &Request::get("/up/{m}")));
    assert!(plain.text().starts_with("HTTP/2.0"), "{plain:?}");
    block_on(async {
        let request = "ws://api.example.com/up/socket".into_client_request().unwrap();
        let stream = TcpStream::connect(("127.0.0.1", gate.ports.proxy)).await.unwrap();
        let (mut socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        assert_eq!(response.status(), 101);
        for text in ["one", "two"] {
            socket.send(Message::text(text)).await.unwrap();
            let echoed = tokio::time::timeout(Duration::from_secs(60), socket.next()).await.unwrap();
            assert_eq!(echoed.unwrap().unwrap(), Message::text(text));
        }
    });
}

#[test]
fn connecting_has_a_limit_of_its_own() {
    // Takes connections, and never says a word of TLS.
    let (port, _listener) = listen();
    let limits = "timeouts = { connect = \"1s\", request = \"60s\" }";
    let (gate, _idp) = gate(&format!("https://127.0.0.1:{port}"), None, limits);
    for via in BOTH {
        let start = Instant::now();
        let answer = block_on(gate.send(*via, &Request::get("/up/{m}")));
        assert_eq!((answer.status, &answer.json()["code"]), (504, &"101504".into()), "{via:?} {answer:?}");
        assert!(start.elapsed() >= Duration::from_secs(1), "not before its time");
    }
}

#[test]
fn with_a_client_ca_only_its_certificates_open_the_door() {
    let (ours, strangers) = (Authority::new(), Authority::new());
    let (cert, key) = (ours.dir.path().join("localhost.pem"), ours.dir.path().join("localhost.key"));
    ours.sign("localhost");
    let tls = format!(
        "tls = {{ cert = \"{}\", key = \"{}\", client_ca = \"{}\" }}",
        cert.display(),
        key.display(),
        ours.root().display()
    );
    let (gate, _idp) = gate("echo:", None, &tls);
    let mut roots = RootCertStore::empty();
    roots.add(ours.certificate.clone()).unwrap();
    for (what, certificate, passes) in [
        ("ours", Some(ours.sign("client")), true),
        ("a stranger's", Some(strangers.sign("client")), false),
        ("none", None, false),
    ] {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone());
        let client = match certificate {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let head = block_on(head_of(gate.ports.proxy, client));
        assert_eq!(head.starts_with("HTTP/1.1 200"), passes, "{what}: {head}");
        assert!(passes || head.is_empty(), "{what}: {head}");
    }
    gate.wait_for("both to be counted", || {
        gate.metric("tollgate_connection_errors_total", &["reason=\"tls_handshake\""]) >= 2.0
    });
}

/// The head of the answer to a GET of the open API; empty where there is none.
async fn head_of(port: u16, client: ClientConfig) -> String {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    // With TLS 1.3 the client is done before its certificate was looked at.
    let Ok(mut stream) = connector.connect("localhost".try_into().unwrap(), stream).await else { return String::new() };
    let mut bytes = Vec::new();
    let _ = stream.write_all(b"GET /up/1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
