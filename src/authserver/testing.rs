//! A provider on a socket, for tests.

use std::{net::SocketAddr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use super::Provider;
use crate::{
    net::Clock,
    store::{Revocations, record::Record},
    token::settings::KeyManagerSettings,
};

pub(super) const ISSUER: &str = "http://127.0.0.1:9000";
pub(super) const FORM: &str = "content-type: application/x-www-form-urlencoded";
pub(super) const GRANT: &str = "grant_type=client_credentials";

/// Good settings with some members changed.
pub(super) fn settings(change: Value) -> KeyManagerSettings {
    let mut settings = json!({
        "name": "local", "connector": "embedded", "issuer": ISSUER, "listen": "127.0.0.1:9000",
        "clients": [
            { "id": "shop", "secret": "s3cret", "scopes": ["orders:read", "orders:write"] },
            { "id": "bare", "secret": "other" },
            { "id": "odd id", "secret": "p:w+d%&ü" },
        ],
    });
    for (name, value) in change.as_object().expect("an object") {
        settings[name] = value.clone();
    }
    serde_json::from_value(settings).expect("settings of the contract")
}

pub(super) fn basic(pair: &str) -> String {
    BASE64_STANDARD.encode(pair)
}

/// A running provider. Stops when dropped.
pub(super) struct Server {
    pub(super) provider: Arc<Provider>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
}

impl Server {
    pub(super) async fn start(audience: &[&str]) -> Self {
        Self::with(json!({ "audience": audience })).await
    }

    /// A provider in memory, with some settings changed.
    pub(super) async fn with(change: Value) -> Self {
        Self::on(change, Record::in_memory().expect("memory"), Arc::default()).await
    }

    /// A provider on this record, with some settings changed.
    pub(super) async fn on(change: Value, record: Record, revocations: Arc<Revocations>) -> Self {
        let provider =
            Provider::new(&settings(change), "key_managers[0]", Arc::new(Clock::new())).expect("good settings");
        provider.open(record, revocations).expect("a good record");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(Arc::clone(&provider).serve(listener, stopped));
        Self { provider, address, stop, serving }
    }

    /// Ends it, and waits until nothing of it is left.
    pub(super) async fn end(self) {
        self.stop.send_replace(true);
        self.serving.await.expect("it ends");
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await
    }

    pub(super) async fn post(&self, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut head = format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
        for header in headers {
            head += &format!("{header}\r\n");
        }
        self.exchange(&format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await
    }

    pub(super) async fn token(&self, credentials: Option<(&str, &str)>, body: &str) -> Answer {
        let authorization =
            credentials.map(|(id, secret)| format!("authorization: Basic {}", basic(&format!("{id}:{secret}"))));
        let headers: Vec<&str> = [FORM].into_iter().chain(authorization.as_deref()).collect();
        self.post("/token", &headers, body).await
    }

    pub(super) async fn exchange(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        // A refused body may not be read to its end.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8(bytes).expect("answers are UTF-8");
        let status = text.get(9..12).and_then(|status| status.parse().ok()).expect("a status line");
        Answer { status, text }
    }

    /// Type and claims of an issued token, after its signature was checked with the published keys.
    pub(super) async fn verified(&self, issued: &Value) -> (Option<String>, Value) {
        let keys: JwkSet = serde_json::from_value(self.get("/jwks").await.json()).expect("a JWK set");
        let token = issued["access_token"].as_str().expect("a token");
        let kid = jsonwebtoken::decode_header(token).expect("a JWT").kid.expect("a key id");
        let key = DecodingKey::from_jwk(keys.find(&kid).expect("a published key")).expect("a good key");
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_aud = false;
        validation.set_issuer(&[ISSUER]);
        let token = jsonwebtoken::decode::<Value>(token, &key, &validation).expect("a good token");
        (token.header.typ, token.claims)
    }
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        let body = self.text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub(super) fn assert_refused(&self, status: u16, error: &str, case: &str) {
        assert_eq!((self.status, &self.json()["error"]), (status, &error.into()), "{case}: {}", self.text);
        assert!(self.text.contains("cache-control: no-store"), "{case}: {}", self.text);
        assert_eq!(self.text.contains("www-authenticate: Basic "), status == 401, "{case}: {}", self.text);
        assert!(!self.text.contains("s3cret"), "{case}: {}", self.text);
    }
}
