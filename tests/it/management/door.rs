//! The door itself: its Unix socket, bodies that do not come, and certificates that are renewed while it serves.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::CertificateDer};
use serde_json::{Value, json};

use super::{Desk, Place};
use crate::support::{Client, Gate, Request, block_on};

/// Sends it and reads until the other side closes.
fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn body(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {head}"))
}

#[test]
fn a_unix_socket_is_on_this_machine_and_its_callers_need_the_key_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (place, socket) = (Place::new(folder.path()), folder.path().join("door.sock"));
    let tcp = format!("listen = \"127.0.0.1:{}\"", place.port);
    let unix = format!("listen = \"unix:{}\"", socket.display());
    let _gate = Gate::start(|ports| place.config(ports, "", "").replace(&tcp, &unix));
    let ask = |method: &str, path: &str, fields: &str, body: &str| {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let length = body.len();
        exchange(
            stream,
            &format!(
                "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n{fields}\r\n{body}"
            ),
        )
    };
    let key = format!("authorization: Bearer {}\r\n", place.key());
    let made = ask(
        "POST",
        "/v1/key-managers/own/clients",
        &format!("{key}content-type: application/json\r\n"),
        r#"{"clientId":"by-socket","clientName":"by socket"}"#,
    );
    assert!(made.starts_with("HTTP/1.1 201 "), "{made}");
    let read = ask("GET", "/v1/key-managers/own/clients/by-socket", &key, "");
    assert!(read.starts_with("HTTP/1.1 200 "), "{read}");
    assert_eq!(body(&read)["clientId"], "by-socket");
    for wrong in ["", "authorization: Bearer wrong\r\n"] {
        let refused = ask("GET", "/v1/key-managers/own/clients/by-socket", wrong, "");
        assert!(refused.starts_with("HTTP/1.1 401 "), "{wrong}: {refused}");
    }
}

#[test]
fn management_and_the_record_give_way_to_requests() {
    let desk = Desk::start("");
    let of_requests = desk.gate.niceness("worker-0");
    for thread in ["management", "record"] {
        assert_eq!(desk.gate.niceness(thread), of_requests.max(10), "{thread}");
    }
}

#[test]
fn a_body_that_stalls_is_408_and_its_connection_closed() {
    let desk = Desk::start("");
    let mut stream = TcpStream::connect(("127.0.0.1", desk.port)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let answer = exchange(
        &mut stream,
        &format!(
            "POST /v1/key-managers/own/clients HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: 20\r\n\r\n{{\"clientName\":",
            desk.key
        ),
    );
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let problem = body(&answer);
    assert_eq!((&problem["status"], &problem["code"]), (&json!(408), &json!("408")), "{problem}");
    let audit = desk.ask("GET", "/v1/audit", &Value::Null).json();
    assert_eq!(audit["items"], json!([]), "nothing was done");
}

/// A certificate for `localhost` in these files; the certificate itself.
fn certify(folder: &Path, name: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join(format!("{name}.pem")), made.cert.pem()).unwrap();
    fs::write(folder.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

/// Whether the server at `port` has this very certificate.
fn shows(port: u16, certificate: &CertificateDer<'static>) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut stream = StreamOwned::new(session, stream);
    match stream.flush() {
        Ok(()) => true,
        Err(error) => {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            assert!(matches!(cause, Some(rustls::Error::InvalidCertificate(_))), "{error}");
            false
        }
    }
}

#[test]
fn certificates_of_all_doors_are_renewed_by_a_reload_or_none_is() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path());
    let files = |name: &str| {
        let path = folder.path().join(name);
        format!("tls = {{ cert = \"{0}.pem\", key = \"{0}.key\" }}", path.display())
    };
    let first = (certify(folder.path(), "proxy"), certify(folder.path(), "desk"));
    let gate = Gate::start(|ports| {
        let text = place.config(ports, "", "").replacen("[admin]", &format!("{}\n[admin]", files("proxy")), 1);
        text.replacen("[management]", &format!("[management]\n{}", files("desk")), 1)
    });
    let failed = || gate.metric("tollgate_config_reloads_total", &["outcome=\"failed\""]);
    let good = || gate.metric("tollgate_config_reloads_total", &["outcome=\"ok\""]);
    let shown = || (gate.ports.proxy, place.port);
    let both = |(proxy, desk): &(_, _)| shows(shown().0, proxy) && shows(shown().1, desk);
    assert!(both(&first), "those it began with");

    // One is good and the other is not: neither counts.
    let second = certify(folder.path(), "proxy");
    fs::write(folder.path().join("desk.pem"), "no certificate").unwrap();
    let before = failed();
    gate.signal("HUP");
    gate.wait_for("the refusal", || failed() > before);
    assert!(both(&first), "those it had");
    let state = gate.admin("/readyz?verbose").json();
    let told = state["config"]["last_error"].as_str().unwrap_or_default();
    assert!(told.contains("management.tls") && !told.contains("proxy.tls"), "{told}");

    let second = (second, certify(folder.path(), "desk"));
    let before = good();
    gate.signal("HUP");
    gate.wait_for("the reload", || good() > before);
    assert!(both(&second), "renewed ones");
    assert!(!shows(place.port, &first.1), "the old one is gone");
}

/// More than the door has places for, that bring nothing, half a head, or no credential.
#[test]
fn connections_without_a_credential_do_not_shut_the_door() {
    let desk = Desk::start("");
    let asked = || Request::get("/v1/key-managers").bearer(&desk.key);
    block_on(async {
        let mut known = Client::connect(desk.port).await.unwrap();
        assert_eq!(known.call(&asked()).await.status, 200);
        let mut strangers = Vec::new();
        for n in 0..PLACES + 8 {
            let mut stranger = Client::connect(desk.port).await.unwrap();
            let bytes: &[u8] = match n % 3 {
                0 => b"",
                1 => b"GET /v1/audit HTTP/1.1\r\nHost: a\r\n",
                _ => b"GET /v1/audit HTTP/1.1\r\nHost: a\r\n\r\n",
            };
            stranger.write(bytes).await.unwrap();
            strangers.push(stranger);
        }
        let mut late = Client::connect(desk.port).await.unwrap();
        assert_eq!(late.call(&asked()).await.status, 200);
        // Idle for longer than any stranger: had one of them run out of time, this one would have too.
        assert_eq!(known.call(&asked()).await.status, 200, "who is known keeps its place");
        assert!(strangers.swap_remove(0).closes().await, "the oldest gave way");
    });
}

const PLACES: usize = 512;
/// More than anything here may take: only a test that fails waits so long.
const LONG: Duration = Duration::from_secs(60);
