//! Providers asked about tokens, over sockets: as whom, how often, and what is an answer.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use url::form_urlencoded;

use super::introspection::introspection;
use crate::{
    net::{Clock, client::Client},
    token::{AnswerForm, Circuit, Introspect, IntrospectError, IntrospectionAnswer, settings::KeyManagerSettings},
};

/// What a test provider answers, given the number of the request (from 0) and its path; nothing closes the
/// connection.
type Site = dyn Fn(usize, &str) -> Option<Vec<u8>> + Send + Sync;

/// A request as it came.
#[derive(Debug, Clone, Default)]
struct Asked {
    path: String,
    head: String,
    form: Vec<(String, String)>,
}

impl Asked {
    fn field(&self, name: &str) -> Option<&str> {
        let line = |line: &&str| line.split_once(':').is_some_and(|(n, _)| n.eq_ignore_ascii_case(name));
        self.head.lines().find(line).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.form.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    async fn start(site: impl Fn(usize, &str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::with_tls(site, None).await
    }

    async fn with_tls(
        site: impl Fn(usize, &str) -> Option<Vec<u8>> + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (site, notes): (Arc<Site>, _) = (Arc::new(site), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (site, notes, tls) = (Arc::clone(&site), Arc::clone(&notes), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, &*site, &notes).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                answer(stream, &*site, &notes).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, site: &Site, notes: &Mutex<Vec<Asked>>) {
    let mut bytes = Vec::new();
    let (head, rest) = loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            break (head, bytes[end + 4..].to_vec());
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let mut asked = Asked { path: head.split(' ').nth(1).unwrap_or_default().to_owned(), head, form: Vec::new() };
    let length = asked.field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = rest;
    while body.len() < length {
        if stream.read_buf(&mut body).await.unwrap_or(0) == 0 {
            return;
        }
    }
    asked.form = form_urlencoded::parse(&body).into_owned().collect();
    let (number, path) = {
        let mut notes = notes.lock();
        notes.push(asked.clone());
        (notes.len() - 1, asked.path)
    };
    let Some(response) = site(number, &path) else { return };
    if response.is_empty() {
        return std::future::pending().await;
    }
    let _ = stream.write_all(&response).await;
    let _ = stream.shutdown().await;
}

fn reply(status: &str, kind: &str, body: &str) -> Option<Vec<u8>> {
    let length = body.len();
    Some(
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .into(),
    )
}

fn active() -> Option<Vec<u8>> {
    reply("200 OK", "application/json; charset=utf-8", ACTIVE)
}

fn settings(more: &str) -> KeyManagerSettings {
    let text = format!(
        r#"{{"name":"idp","connector":"oidc","issuer":"https://idp.example.com","timeout":"400ms",
        "client_id":"toll:gate","client_secret":"s3 cret%&+"{more}}}"#
    );
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn at(server: &Server, more: &str) -> KeyManagerSettings {
    settings(&format!(r#","introspection_endpoint":"http://{}/introspect"{more}"#, server.address))
}

fn client() -> &'static Client {
    static CLIENT: LazyLock<Client> = LazyLock::new(|| Client::new().expect("roots"));
    &CLIENT
}

fn provider(settings: &KeyManagerSettings) -> Arc<dyn Introspect> {
    provider_by(settings, client())
}

fn provider_by(settings: &KeyManagerSettings, client: &Client) -> Arc<dyn Introspect> {
    let built = introspection(settings, "key_managers[0]", client, &Arc::new(Clock::new()));
    built.unwrap_or_else(|problems| panic!("{problems:?}")).expect("it is asked")
}

fn problems(settings: &KeyManagerSettings) -> Vec<String> {
    let built = introspection(settings, "km", client(), &Arc::new(Clock::new()));
    built.err().unwrap_or_default().into_iter().map(|problem| problem.field).collect()
}

const ACTIVE: &str = r#"{"active":true}"#;

#[tokio::test]
async fn the_token_is_sent_as_rfc_7662_wants_it_and_the_answer_handed_on() {
    let server = Server::start(|_, _| active()).await;
    let answer = provider(&at(&server, "")).introspect("to&k=en +%").await.expect("an answer");
    assert_eq!(answer, IntrospectionAnswer { body: ACTIVE.into(), form: AnswerForm::Json });
    let asked = server.asked().pop().expect("asked");
    assert!(asked.head.starts_with("POST /introspect HTTP/1.1"), "{}", asked.head);
    assert_eq!(asked.field("accept"), Some("application/json"));
    assert_eq!(asked.field("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(asked.parameter("token"), Some("to&k=en +%"));
    assert_eq!(asked.parameter("token_type_hint"), Some("access_token"));
    assert_eq!(asked.form.len(), 2);
    let basic = STANDARD.decode(asked.field("authorization").and_then(|f| f.strip_prefix("Basic ")).expect("basic"));
    assert_eq!(basic.expect("base64"), b"toll%3Agate:s3+cret%25%26%2B");
}

#[tokio::test]
async fn each_client_authentication_says_who_we_are() {
    let server = Server::start(|_, _| active()).await;
    let ask = async |more: &str| {
        provider(&at(&server, more)).introspect("t").await.expect("an answer");
        server.asked().pop().expect("asked")
    };
    let post = ask(r#","client_auth":"post""#).await;
    assert_eq!(post.field("authorization"), None);
    assert_eq!(post.parameter("client_id"), Some("toll:gate"));
    assert_eq!(post.parameter("client_secret"), Some("s3 cret%&+"));
    let text = r#"{"name":"idp","connector":"oidc","issuer":"https://idp.example.com","client_auth":"bearer",
        "client_secret":"abc.def","introspection_endpoint":"http://ADDRESS/introspect"}"#;
    let settings = serde_json::from_str(&text.replace("ADDRESS", &server.address.to_string())).expect("settings");
    provider(&settings).introspect("t").await.expect("an answer");
    let bearer = server.asked().pop().expect("asked");
    assert_eq!(bearer.field("authorization"), Some("Bearer abc.def"));
    assert_eq!(bearer.parameter("client_id"), None);
}

#[tokio::test]
async fn assertions_are_signed_and_each_is_another() {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(|_, _| active()).await;
    for (key, algorithm) in [
        (rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key"), Algorithm::ES256),
        (rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key"), Algorithm::ES384),
        (rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key"), Algorithm::EdDSA),
        (rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key"), Algorithm::RS256),
    ] {
        let file = dir.path().join("key.pem");
        std::fs::write(&file, key.serialize_pem()).expect("written");
        let more =
            format!(r#","client_auth":"private_key_jwt","client_key":{{"file":"{}","kid":"k7"}}"#, file.display());
        let provider = provider(&at(&server, &more));
        provider.introspect("t").await.expect("an answer");
        provider.introspect("t").await.expect("an answer");
        let asked = server.asked();
        let [one, two] = &asked[asked.len() - 2..] else { panic!("asked twice") };
        assert_eq!(
            one.parameter("client_assertion_type"),
            Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
        );
        assert_eq!((one.parameter("client_id"), one.field("authorization")), (Some("toll:gate"), None));
        let pem = key.public_key_pem();
        let public = match algorithm {
            Algorithm::RS256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(pem.as_bytes()),
            _ => DecodingKey::from_ec_pem(pem.as_bytes()),
        };
        let mut expected = Validation::new(algorithm);
        expected.set_audience(&["https://idp.example.com"]);
        expected.set_issuer(&["toll:gate"]);
        let read = |asked: &Asked| {
            let assertion = asked.parameter("client_assertion").expect("an assertion");
            assert_eq!(decode_header(assertion).expect("a header").kid.as_deref(), Some("k7"));
            let public = public.as_ref().expect("a key");
            decode::<serde_json::Value>(assertion, public, &expected).expect("a good signature").claims
        };
        let (one, two) = (read(one), read(two));
        assert_eq!(one["sub"], "toll:gate");
        assert_ne!(one["jti"], two["jti"]);
        assert_eq!(one["exp"].as_u64().zip(one["iat"].as_u64()).map(|(exp, iat)| exp - iat), Some(60));
    }
}

#[tokio::test]
async fn a_certificate_of_our_own_is_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let make = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let (theirs, ours) = (make("localhost"), make("tollgate"));
    let mut trusted = RootCertStore::empty();
    trusted.add(ours.cert.der().clone()).expect("a certificate");
    let crypto = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), Arc::clone(&crypto)).build();
    let config = ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .expect("the provider's own")
        .with_client_cert_verifier(verifier.expect("a verifier"))
        .with_single_cert(
            vec![theirs.cert.der().clone()],
            theirs.signing_key.serialize_der().try_into().expect("a key"),
        )
        .expect("they fit");
    let server = Server::with_tls(|_, _| active(), Some(TlsAcceptor::from(Arc::new(config)))).await;
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, ours.cert.pem()).expect("written");
    std::fs::write(&key, ours.signing_key.serialize_pem()).expect("written");
    let mut roots = RootCertStore::empty();
    roots.add(theirs.cert.der().clone()).expect("a certificate");
    let client = Client::with_roots(Arc::new(roots)).expect("roots");
    let endpoint = format!(r#","introspection_endpoint":"https://localhost:{}/i""#, server.address.port());
    let with = format!(
        r#"{endpoint},"client_auth":"mtls","client_certificate":{{"cert":"{}","key":"{}"}}"#,
        cert.display(),
        key.display()
    );
    assert!(provider_by(&settings(&with), &client).introspect("t").await.is_ok());
    let asked = server.asked().pop().expect("asked");
    assert_eq!((asked.parameter("client_id"), asked.field("authorization")), (Some("toll:gate"), None));
    let without = provider_by(&settings(&endpoint), &client).introspect("t").await;
    assert!(matches!(without, Err(IntrospectError::Unreachable(_))), "{without:?}");
}

#[tokio::test]
async fn whatever_is_no_introspection_response_is_no_verdict() {
    let json = "application/json";
    for (name, response, label) in [
        ("html", reply("200 OK", "text/html", "<html>"), "answer"),
        ("html called json", reply("200 OK", json, "<html>"), "answer"),
        ("json called html", reply("200 OK", "text/html", ACTIVE), "answer"),
        (
            "json without a type",
            Some(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"active\":true}".into()),
            "answer",
        ),
        ("an access token's type", reply("200 OK", "application/jwt", "a.b.c"), "answer"),
        ("500", reply("500 Internal Server Error", json, ACTIVE), "answer"),
        ("429", reply("429 Too Many Requests", json, "{}"), "answer"),
        ("404", reply("404 Not Found", json, "{}"), "answer"),
        ("204", reply("204 No Content", json, ""), "answer"),
        ("redirect", Some(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".into()), "answer"),
        ("400", reply("400 Bad Request", json, r#"{"error":"invalid_request"}"#), "answer"),
        ("400 about us", reply("400 Bad Request", json, r#"{"error":"invalid_client"}"#), "credentials"),
        ("401", reply("401 Unauthorized", json, r#"{"error":"invalid_client"}"#), "credentials"),
        ("403", reply("403 Forbidden", json, "{}"), "credentials"),
        ("huge", reply("200 OK", json, &format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 17))), "answer"),
        ("nothing", None, "unreachable"),
        ("silence", Some(Vec::new()), "timeout"),
        ("no http", Some(b"SSH-2.0-OpenSSH\r\n".into()), "unreachable"),
    ] {
        let server = Server::start(move |_, _| response.clone()).await;
        let outcome = provider(&at(&server, "")).introspect("secret-token").await;
        let error = outcome.expect_err(name);
        assert_eq!(error.label(), label, "{name}: {error}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains("secret-token") && !text.contains("s3 cret"), "{name}: {text}");
        let calls = server.asked().len();
        assert_eq!(calls, if label == "unreachable" { 2 } else { 1 }, "{name}: once more only for connections");
    }
    let signed = Server::start(|_, _| reply("200 OK", "Application/Token-Introspection+JWT", "a.b.c")).await;
    let answer = provider(&at(&signed, r#","introspection_response":"jwt""#)).introspect("t").await;
    assert_eq!(answer.expect("an answer").form, AnswerForm::Jwt);
    assert_eq!(signed.asked()[0].field("accept"), Some("application/token-introspection+jwt"));
}

#[tokio::test]
async fn a_connection_that_fails_is_tried_once_more() {
    let server = Server::start(|number, _| if number == 0 { None } else { active() }).await;
    assert!(provider(&at(&server, "")).introspect("t").await.is_ok());
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_provider_that_keeps_failing_is_left_alone_and_tried_by_one_call() {
    let good = Arc::new(Mutex::new(false));
    let now = Arc::clone(&good);
    let server =
        Server::start(
            move |_, _| {
                if *now.lock() { active() } else { reply("500 Internal Server Error", "text/plain", "") }
            },
        )
        .await;
    let provider = provider(&at(&server, ""));
    for _ in 0..5 {
        assert_eq!(provider.introspect("t").await.expect_err("broken").label(), "answer");
    }
    assert_eq!(provider.circuit(), Circuit::Open);
    let open = provider.introspect("t").await.expect_err("left alone");
    assert!(matches!(open, IntrospectError::CircuitOpen { retry_after: 1..=2 }), "{open:?}");
    assert_eq!(server.asked().len(), 5);
    *good.lock() = true;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(provider.circuit(), Circuit::HalfOpen);
    let (one, two) = tokio::join!(provider.introspect("a"), provider.introspect("b"));
    assert!(one.is_ok() != two.is_ok(), "one tries, the other does not: {one:?} {two:?}");
    assert_eq!(provider.circuit(), Circuit::Closed);
    assert_eq!(server.asked().len(), 6);
    assert!(provider.introspect("t").await.is_ok());
}

/// Whoever brings tokens that the provider chokes on must not take it away from everybody else.
#[tokio::test]
async fn a_provider_that_turns_down_odd_tokens_is_still_there_for_others() {
    for status in ["400 Bad Request", "413 Content Too Large", "414 URI Too Long", "422 Unprocessable Content"] {
        let odd = r#"{"error":"invalid_request"}"#;
        let server = Server::start(move |n, _| if n < 10 { reply(status, "application/json", odd) } else { active() });
        let provider = provider(&at(&server.await, ""));
        for _ in 0..10 {
            assert_eq!(provider.introspect("odd").await.expect_err("no verdict").label(), "answer", "{status}");
        }
        assert_eq!(provider.circuit(), Circuit::Closed, "{status}");
        assert!(provider.introspect("good").await.is_ok(), "{status}");
    }
}

#[tokio::test]
async fn no_more_calls_at_one_time_than_configured_and_no_endless_queue() {
    let server = Server::start(|_, _| Some(Vec::new())).await;
    let provider = provider(&at(&server, r#","concurrency":2"#));
    let calls: Vec<_> = (0..60)
        .map(|n| {
            let provider = Arc::clone(&provider);
            tokio::spawn(async move { provider.introspect(&format!("t{n}")).await })
        })
        .collect();
    let mut labels = std::collections::BTreeMap::<&str, usize>::new();
    for call in calls {
        let error = call.await.expect("no panic").expect_err("silence");
        *labels.entry(error.label()).or_default() += 1;
    }
    assert_eq!(server.asked().len(), 2, "{labels:?}");
    assert_eq!(labels.get("timeout"), Some(&2), "{labels:?}");
    assert_eq!(labels.get("saturated"), Some(&58), "{labels:?}");
}

#[tokio::test]
async fn the_endpoint_is_found_once_and_again_when_it_has_moved() {
    let path = Arc::new(Mutex::new(Some("/one")));
    let now = Arc::clone(&path);
    let address = Arc::new(Mutex::new(String::new()));
    let own = Arc::clone(&address);
    let server = Server::start(move |_, asked| {
        let (now, own) = (*now.lock(), own.lock().clone());
        match asked {
            "/.well-known/openid-configuration" => {
                let endpoint = now.map(|path| format!(r#","introspection_endpoint":"http://{own}{path}""#));
                let body = format!(r#"{{"issuer":"http://{own}"{}}}"#, endpoint.unwrap_or_default());
                reply("200 OK", "application/json", &body)
            }
            asked if Some(asked) == now => active(),
            _ => reply("404 Not Found", "text/plain", ""),
        }
    })
    .await;
    *address.lock() = server.address.to_string();
    let text = format!(
        r#"{{"name":"idp","connector":"keycloak","issuer":"http://{}","timeout":"1s","client_id":"a","client_secret":"b"}}"#,
        server.address
    );
    let settings: KeyManagerSettings = serde_json::from_str(&text).expect("settings");
    let provider = self::provider(&settings);
    let (one, two) = tokio::join!(provider.introspect("a"), provider.introspect("b"));
    assert!(one.is_ok() && two.is_ok());
    let asked = || server.asked().into_iter().map(|asked| asked.path).collect::<Vec<_>>();
    assert_eq!(asked().iter().filter(|path| path.contains("well-known")).count(), 1, "{:?}", asked());
    *path.lock() = Some("/two");
    assert_eq!(provider.introspect("t").await.expect_err("gone").label(), "answer");
    assert!(provider.introspect("t").await.is_ok(), "{:?}", asked());
    *path.lock() = None;
    let _gone = provider.introspect("t").await;
    assert_eq!(provider.introspect("t").await, Err(IntrospectError::NotOffered));
    let before = asked().len();
    assert_eq!(provider.introspect("t").await, Err(IntrospectError::NotOffered));
    assert_eq!(asked().len(), before, "it is believed for a while");
}

#[test]
fn what_is_missing_is_named() {
    let none: [&str; 0] = [];
    let bare = |more: &str| -> KeyManagerSettings {
        let text = format!(r#"{{"name":"a","connector":"oidc","issuer":"https://i"{more}}}"#);
        serde_json::from_str(&text).expect("settings")
    };
    assert_eq!(problems(&bare("")), none);
    assert_eq!(problems(&bare(r#","client_id":"a""#)), none, "for something else");
    assert_eq!(problems(&settings("")), none);
    let asked = r#","validation":"introspect""#;
    for (more, expected) in [
        ("", &["km.client_id", "km.client_secret"][..]),
        (r#","client_id":"a","client_auth":"post""#, &["km.client_secret"]),
        (r#","client_auth":"bearer""#, &["km.client_secret"]),
        (r#","client_auth":"bearer","client_secret":"a\nb""#, &["km.client_secret"]),
        (r#","client_id":"a","client_auth":"private_key_jwt""#, &["km.client_key"]),
        (r#","client_id":"a","client_auth":"private_key_jwt","client_key":{"file":"/nowhere"}"#, &["km.client_key"]),
        (r#","client_id":"a","client_auth":"mtls""#, &["km.client_certificate"]),
        (
            r#","client_id":"a","client_auth":"mtls","client_certificate":{"cert":"/no","key":"/no"}"#,
            &["km.client_certificate"],
        ),
        (r#","client_id":"a","client_secret":{"file":"/nowhere"}"#, &["km.client_secret"]),
        (r#","client_id":"a","client_secret":"b","discovery":false"#, &["km.introspection_endpoint"]),
        (
            r#","client_id":"a","client_secret":"b","introspection_endpoint":"http://idp.example.com/""#,
            &["km.introspection_endpoint"],
        ),
        (r#","client_auth":"bearer","client_secret":"b","introspection_response":"jwt""#, &["km.client_id"]),
    ] {
        assert_eq!(problems(&bare(&format!("{asked}{more}"))), expected, "{more}");
    }
}
