//! Providers good and bad, over sockets.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::key_source;
use crate::{
    net::client::Client,
    token::{FetchError, FetchKeys, Fetched, KeySource, settings::KeyManagerSettings},
};

/// What a path answers: raw bytes of an HTTP/1.1 response.
pub(super) type Site = dyn Fn(&str) -> Vec<u8> + Send + Sync;

/// A server that answers what the test says, and notes what it was asked for.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `site` is made knowing the server's own address.
    async fn start(site: impl FnOnce(SocketAddr) -> Box<Site>, tls: Option<TlsAcceptor>) -> Self {
        Self::start_at("127.0.0.1", site, tls).await
    }

    pub(super) async fn start_at(
        host: &str,
        site: impl FnOnce(SocketAddr) -> Box<Site>,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (site, notes): (Arc<Site>, _) = (site(address).into(), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (site, notes, tls) = (Arc::clone(&site), Arc::clone(&notes), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, &*site, &notes).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => answer(stream, &*site, &notes).await,
                            Err(_) => notes.lock().push("handshake failed".into()),
                        },
                    }
                });
            }
        });
        Self { address, asked }
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, site: &Site, notes: &Mutex<Vec<String>>) {
    let mut request = vec![0; 4096];
    let read = stream.read(&mut request).await.unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..read]).into_owned();
    let Some(path) = request.split(' ').nth(1) else { return };
    notes.lock().push(path.to_owned());
    let response = site(path);
    let _ = stream.write_all(&response).await;
    if response.ends_with(b"...") {
        // A body that never ends, drop by drop.
        while stream.write_all(b".").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let _ = stream.shutdown().await;
}

pub(super) fn reply(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).into()
}

pub(super) fn settings(issuer: &str, more: &str) -> KeyManagerSettings {
    let text = format!(r#"{{"name":"idp","connector":"oidc","issuer":"{issuer}","timeout":"500ms"{more}}}"#);
    serde_json::from_str(&text).expect("good settings")
}

fn source(settings: &KeyManagerSettings) -> Arc<dyn FetchKeys> {
    static CLIENT: LazyLock<Client> = LazyLock::new(|| Client::new().expect("roots"));
    match key_source(settings, "key_managers[0]", &CLIENT) {
        Ok(KeySource::Remote(source)) => source,
        other => panic!("{other:?}"),
    }
}

/// As far as tokens go, a provider is what the standards say, whichever connector manages it.
#[test]
fn every_kind_of_provider_has_its_keys_where_discovery_says() {
    for kind in ["oidc", "keycloak", "wso2is", "okta", "auth0", "http"] {
        let text = format!(r#"{{"name":"idp","connector":"{kind}","issuer":"https://idp.example.com"}}"#);
        let settings: KeyManagerSettings = serde_json::from_str(&text).expect("good settings");
        source(&settings);
    }
}

fn problems(settings: &KeyManagerSettings) -> Vec<String> {
    let client = Client::new().expect("roots");
    let problems = key_source(settings, "key_managers[0]", &client).err().unwrap_or_default();
    problems.into_iter().map(|problem| problem.field).collect()
}

/// What was fetched.
fn text(outcome: Result<Fetched, FetchError>) -> Bytes {
    outcome.expect("keys").text
}

pub(super) fn metadata(issuer: &str, jwks_uri: &str) -> Vec<u8> {
    reply("200 OK", &format!(r#"{{"issuer":"{issuer}","jwks_uri":"{jwks_uri}","other":[1]}}"#))
}

pub(super) const KEYS: &str = r#"{"keys":[]}"#;

#[tokio::test]
async fn metadata_is_found_by_either_way_and_asked_once() {
    for (path, well_known) in [
        ("", "/.well-known/openid-configuration"),
        ("/", "/.well-known/openid-configuration"),
        ("/realms/shop", "/realms/shop/.well-known/openid-configuration"),
        ("/realms/shop", "/.well-known/oauth-authorization-server/realms/shop"),
    ] {
        let site = move |at: SocketAddr| -> Box<Site> {
            Box::new(move |asked| match asked {
                "/keys" => reply("200 OK", KEYS),
                asked if asked == well_known => metadata(&format!("http://{at}{path}"), &format!("http://{at}/keys")),
                _ => reply("404 Not Found", "<html>"),
            })
        };
        let server = Server::start(site, None).await;
        let source = source(&settings(&format!("http://{}{path}", server.address), ""));
        for _ in 0..2 {
            assert_eq!(text(source.fetch(false).await), KEYS);
        }
        let asked = server.asked();
        assert_eq!(asked[asked.len() - 3..], [well_known, "/keys", "/keys"], "{asked:?}");
    }
}

#[tokio::test]
async fn metadata_that_is_not_exactly_ours_is_refused() {
    for (body, expected) in [
        (r#"{"issuer":"http://ISSUER/","jwks_uri":"http://ISSUER/keys"}"#, "another issuer"),
        (r#"{"issuer":"http://idp.example.com","jwks_uri":"http://ISSUER/keys"}"#, "another issuer"),
        (r#"{"jwks_uri":"http://ISSUER/keys"}"#, "not JSON with"),
        (r#"{"issuer":"http://ISSUER"}"#, "not JSON with"),
        (r#"{"issuer":"http://evil","issuer":"http://ISSUER","jwks_uri":"http://ISSUER/keys"}"#, "not JSON with"),
        ("<!doctype html>", "not JSON with"),
        ("", "not JSON with"),
        (r#"{"issuer":"http://ISSUER","jwks_uri":"http://idp.example.com/keys"}"#, "must be https"),
        (r#"{"issuer":"http://ISSUER","jwks_uri":"file:///etc/passwd"}"#, "must be https"),
        (r#"{"issuer":"http://ISSUER","jwks_uri":"/keys"}"#, "is no URL"),
    ] {
        let site = move |at: SocketAddr| -> Box<Site> {
            Box::new(move |_| reply("200 OK", &body.replace("ISSUER", &at.to_string())))
        };
        let server = Server::start(site, None).await;
        let outcome = source(&settings(&format!("http://{}", server.address), "")).fetch(false).await;
        let Err(FetchError::Metadata(why)) = outcome else { panic!("{body}: {outcome:?}") };
        assert!(why.contains(expected), "{body}: {why}");
        assert_eq!(server.asked().len(), 1, "{body}");
    }
}

#[tokio::test]
async fn bad_answers_are_no_keys() {
    let other = Server::start(|_| Box::new(|_| reply("200 OK", KEYS)), None).await.address;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let huge = format!("{chunked}100000\r\n{}\r\n0\r\n\r\n", "x".repeat(1 << 20));
    for (name, response) in [
        ("redirect", format!("HTTP/1.1 302 Found\r\nLocation: http://{other}/\r\nContent-Length: 0\r\n\r\n").into()),
        ("error", reply("500 Internal Server Error", KEYS)),
        ("no content", reply("204 No Content", "")),
        ("announced as huge", b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\nx".to_vec()),
        ("huge", huge.into_bytes()),
        ("slow drip", b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n...".to_vec()),
        ("cut short", b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}".to_vec()),
        ("not HTTP", b"SSH-2.0-OpenSSH\r\n".to_vec()),
        ("nothing", Vec::new()),
    ] {
        let server = Server::start(|_| Box::new(move |_| response.clone()), None).await;
        let by_hand = format!(r#","discovery":false,"jwks_uri":"http://{}/keys""#, server.address);
        let outcome = source(&settings("https://idp.example.com", &by_hand)).fetch(false).await;
        assert!(matches!(outcome, Err(FetchError::Answer(_) | FetchError::Unreachable(_))), "{name}: {outcome:?}");
    }
}

#[tokio::test]
async fn keys_that_moved_are_found_again() {
    let moved = Arc::new(Mutex::new("/old"));
    let now = Arc::clone(&moved);
    let site = move |at: SocketAddr| -> Box<Site> {
        Box::new(move |asked| match asked {
            "/.well-known/openid-configuration" => {
                metadata(&format!("http://{at}"), &format!("http://{at}{}", now.lock()))
            }
            asked if asked == *now.lock() => reply("200 OK", KEYS),
            _ => reply("404 Not Found", ""),
        })
    };
    let server = Server::start(site, None).await;
    let source = source(&settings(&format!("http://{}", server.address), ""));
    assert!(source.fetch(false).await.is_ok());
    *moved.lock() = "/new";
    assert!(source.fetch(false).await.is_err());
    assert!(source.fetch(false).await.is_ok());
}

#[tokio::test]
async fn keys_are_looked_for_anew_though_the_old_place_answers() {
    let site_metadata = Arc::new(Mutex::new(Some("/old")));
    let now = Arc::clone(&site_metadata);
    let site = move |at: SocketAddr| -> Box<Site> {
        Box::new(move |asked| match (asked, *now.lock()) {
            ("/.well-known/openid-configuration", Some("other")) => metadata("https://other.example.com", "https://x"),
            ("/.well-known/openid-configuration", Some(path)) => {
                metadata(&format!("http://{at}"), &format!("http://{at}{path}"))
            }
            ("/old", _) => reply("200 OK", "{}"),
            ("/new", _) => reply("200 OK", KEYS),
            _ => reply("404 Not Found", ""),
        })
    };
    let server = Server::start(site, None).await;
    let source = source(&settings(&format!("http://{}", server.address), ""));
    assert_eq!(text(source.fetch(false).await), "{}");
    *site_metadata.lock() = Some("/new");
    assert_eq!(text(source.fetch(false).await), "{}", "the address known is used");
    assert_eq!(text(source.fetch(true).await), KEYS);
    assert_eq!(text(source.fetch(false).await), KEYS, "and remembered");
    *site_metadata.lock() = None;
    assert_eq!(text(source.fetch(true).await), KEYS, "without metadata, where they were");
    *site_metadata.lock() = Some("other");
    assert!(matches!(source.fetch(true).await, Err(FetchError::Metadata(_))), "another's metadata");

    let by_hand = format!(r#","jwks_uri":"http://{}/new""#, server.address);
    let asked = server.asked().len();
    let source = self::source(&settings(&format!("http://{}", server.address), &by_hand));
    assert_eq!(text(source.fetch(true).await), KEYS);
    assert_eq!(server.asked()[asked..], ["/new"], "an address given by hand stays");
}

#[tokio::test]
async fn a_certificate_counts_only_from_a_trusted_root() {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let certificate = key.cert.der().clone();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider's own")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.signing_key.serialize_der().try_into().expect("a key"))
        .expect("they fit");
    let server =
        Server::start(|_| Box::new(|_| reply("200 OK", KEYS)), Some(TlsAcceptor::from(Arc::new(config)))).await;
    let keys = |host: &str| {
        let by_hand = format!(r#","jwks_uri":"https://{host}:{}/keys""#, server.address.port());
        settings("https://idp.example.com", &by_hand)
    };
    assert!(matches!(source(&keys("localhost")).fetch(false).await, Err(FetchError::Unreachable(_))), "self-signed");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let client = Client::with_roots(Arc::new(roots)).expect("roots");
    let trusting = |settings: &KeyManagerSettings| match key_source(settings, "key_managers[0]", &client) {
        Ok(KeySource::Remote(source)) => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(text(trusting(&keys("localhost")).fetch(false).await), KEYS);
    assert!(matches!(trusting(&keys("127.0.0.1")).fetch(false).await, Err(FetchError::Unreachable(_))), "another name");
    assert_eq!(server.asked().iter().filter(|path| *path == "/keys").count(), 1);
}

#[tokio::test]
async fn a_provider_may_have_authorities_of_its_own_and_then_no_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let made = |name: &str| {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let file = dir.path().join(name);
        std::fs::write(&file, key.cert.pem()).expect("written");
        (key, file)
    };
    let ((key, right), (_, wrong)) = (made("right.pem"), made("wrong.pem"));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider's own")
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], key.signing_key.serialize_der().try_into().expect("a key"))
        .expect("they fit");
    let server =
        Server::start(|_| Box::new(|_| reply("200 OK", KEYS)), Some(TlsAcceptor::from(Arc::new(config)))).await;
    let with = |ca: &std::path::Path| {
        let port = server.address.port();
        let more = format!(r#","jwks_uri":"https://localhost:{port}/keys","ca":{{"file":"{}"}}"#, ca.display());
        settings("https://idp.example.com", &more)
    };
    assert_eq!(text(source(&with(&right)).fetch(false).await), KEYS);
    assert!(matches!(source(&with(&wrong)).fetch(false).await, Err(FetchError::Unreachable(_))), "another's");
    assert_eq!(problems(&with(&dir.path().join("none.pem"))), ["key_managers[0].ca"]);
}

#[tokio::test]
async fn a_proxy_is_asked_and_looks_names_up_itself() {
    let proxy = Server::start(|_| Box::new(|_| reply("200 OK", KEYS)), None).await;
    let by_proxy = |proxy: &str| {
        let more = r#","allow_http":true,"jwks_uri":"http://nowhere.invalid/keys","proxy":""#;
        settings("http://nowhere.invalid", &format!("{more}{proxy}\""))
    };
    let source = source(&by_proxy(&format!("http://{}", proxy.address)));
    assert_eq!(text(source.fetch(false).await), KEYS);
    assert_eq!(proxy.asked(), ["http://nowhere.invalid/keys"], "the whole address");
    for bad in ["socks5://127.0.0.1:1", "http://user:pw@127.0.0.1:1", "http://127.0.0.1:1/path", "nothing"] {
        assert_eq!(problems(&by_proxy(bad)), ["key_managers[0].proxy"], "{bad}");
    }
}

#[tokio::test]
async fn nobody_there_is_said_once() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    let outcome = source(&settings(&format!("http://{gone}"), "")).fetch(false).await;
    assert!(matches!(outcome, Err(FetchError::Unreachable(_))), "{outcome:?}");
    let metadata_service =
        settings("https://idp.example.com", r#","allow_http":true,"jwks_uri":"http://169.254.169.254/""#);
    let outcome = source(&metadata_service).fetch(false).await;
    assert!(matches!(outcome, Err(FetchError::Forbidden(_))), "{outcome:?}");
}

#[test]
fn addresses_in_settings_are_checked() {
    let none: [&str; 0] = [];
    assert_eq!(problems(&settings("https://idp.example.com", "")), none);
    assert_eq!(problems(&settings("http://127.0.0.1:9000", "")), none);
    assert_eq!(problems(&settings("http://idp.example.com", r#","allow_http":true"#)), none);
    for (issuer, more, field) in [
        ("http://idp.example.com", "", "issuer"),
        ("http://localhost.example.com", "", "issuer"),
        ("ftp://idp.example.com", r#","allow_http":true"#, "issuer"),
        ("idp.example.com", "", "issuer"),
        ("https://user:pw@idp.example.com", "", "issuer"),
        ("https://idp.example.com?tenant=1", "", "issuer"),
        ("https://idp.example.com", r#","jwks_uri":"http://idp.example.com/keys""#, "jwks_uri"),
        ("https://idp.example.com", r#","discovery":false"#, "jwks_uri"),
        ("https://idp.example.com", r#","jwks":{"file":"/nowhere/keys.json"}"#, "jwks"),
    ] {
        assert_eq!(problems(&settings(issuer, more)), [format!("key_managers[0].{field}")], "{issuer} {more}");
    }
    let mut other = settings("https://idp.example.com", "");
    other.connector = crate::token::settings::ConnectorKind::Embedded;
    assert_eq!(problems(&other), ["key_managers[0].connector"]);
}

#[test]
fn keys_by_hand_come_from_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("keys.json");
    std::fs::write(&file, KEYS).expect("written");
    let by_hand = format!(r#","jwks":{{"file":"{}"}}"#, file.display());
    let client = Client::new().expect("roots");
    let source = key_source(&settings("https://idp.example.com", &by_hand), "key_managers[0]", &client);
    assert!(matches!(source, Ok(KeySource::Fixed(text)) if text == KEYS));
}
