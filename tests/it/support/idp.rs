//! A test provider: discovery and JWKS over plain TCP, with every misbehaviour a provider can show. Its
//! introspection is in [`super::opaque`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{keys, opaque::Introspection, runtime};

/// How the provider behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    #[default]
    Good,
    /// Answers 500 everywhere.
    Broken,
    /// Answers, but only after this many milliseconds.
    Slow(u64),
    /// Answers once it is in another mood.
    Held,
    /// The key set is an HTML page with status 200.
    Html,
    /// The key set has no keys.
    Empty,
    /// The key set never ends (it stops at 64 MiB).
    Huge,
    /// The key set is at another host, says a redirect.
    Redirect,
    /// The key set is there, says a redirect.
    RedirectTo(&'static str),
    /// The key set comes a byte at a time, without an end.
    Drip,
    /// The key set is 100 MiB long, and says so or not.
    Endless {
        /// Whether it has a length.
        length: bool,
    },
    /// The key set has a million keys.
    Million,
    /// The key set is compressed: 32 MiB of nothing in 200 KiB.
    Bomb,
    /// The metadata names another issuer.
    OtherIssuer,
}

/// What a well-behaved answer has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// The ids of the keys of the set.
    Keys(Vec<String>),
    /// Of a token: whether the answer is one that was put there by `say`.
    Token(String, bool),
}

/// A provider on a loopback port.
pub(crate) struct Idp {
    port: u16,
    state: Arc<State>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// Keeps the port while nobody serves it: another provider on it would be taken for this one.
    kept: Mutex<Option<Socket>>,
}

struct State {
    issuer: String,
    mood: Mutex<Mood>,
    keys: Mutex<Vec<Value>>,
    discoveries: AtomicU32,
    key_fetches: AtomicU32,
    others: Mutex<Vec<String>>,
    /// Every good answer, just before it was sent.
    journal: Mutex<Vec<(Instant, Told)>>,
    /// Where the metadata says the keys are; none: where they are.
    jwks_uri: Mutex<Option<String>>,
    /// Further fields of the key set's answer.
    fields: Mutex<String>,
    tls: Option<TlsAcceptor>,
    introspection: Introspection,
}

impl Idp {
    /// A provider with one key of every kind: `rsa`, `es256`, `es384`, `es512`, `ed`.
    pub(crate) fn start() -> Self {
        let all = keys();
        let set = vec![
            all.rsa.jwk("rsa"),
            all.es256.jwk("es256"),
            all.es384.jwk("es384"),
            all.es512.jwk("es512"),
            all.ed.jwk("ed"),
        ];
        Self::with_keys(set)
    }

    /// A provider with just these keys.
    pub(crate) fn with_keys(keys: Vec<Value>) -> Self {
        Self::build(keys, "http://127.0.0.1", None)
    }

    /// One with the key `es256` that speaks TLS, and calls itself `localhost`.
    pub(crate) fn secure(tls: TlsAcceptor) -> Self {
        Self::build(vec![keys().es256.jwk("es256")], "https://localhost", Some(tls))
    }

    fn build(keys: Vec<Value>, origin: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            issuer: format!("{origin}:{port}/realms/shop"),
            mood: Mutex::default(),
            keys: Mutex::new(keys),
            discoveries: AtomicU32::new(0),
            key_fetches: AtomicU32::new(0),
            others: Mutex::default(),
            journal: Mutex::default(),
            jwks_uri: Mutex::default(),
            fields: Mutex::default(),
            tls,
            introspection: Introspection::default(),
        });
        let idp = Self { port, state, task: Mutex::new(None), kept: Mutex::new(None) };
        idp.serve(listener);
        idp
    }

    /// Its issuer identifier.
    pub(crate) fn issuer(&self) -> &str {
        &self.state.issuer
    }

    /// Its introspection endpoint.
    pub(super) fn introspection(&self) -> &Introspection {
        &self.state.introspection
    }

    pub(crate) fn mood(&self, mood: Mood) {
        *self.state.mood.lock() = mood;
    }

    /// The key set that it publishes.
    pub(crate) fn key_set(&self) -> Value {
        json!({ "keys": *self.state.keys.lock() })
    }

    /// The metadata leads there for the keys.
    pub(crate) fn lead_to(&self, jwks_uri: &str) {
        *self.state.jwks_uri.lock() = Some(jwks_uri.to_owned());
    }

    /// The key set's answer has these fields besides, each line with its end.
    pub(crate) fn key_fields(&self, lines: &str) {
        lines.clone_into(&mut self.state.fields.lock());
    }

    /// Puts another key set in place.
    pub(crate) fn rotate(&self, keys: Vec<Value>) {
        *self.state.keys.lock() = keys;
    }

    /// How often the key set was asked for.
    pub(crate) fn key_fetches(&self) -> u32 {
        self.state.key_fetches.load(Ordering::SeqCst)
    }

    /// How often the metadata was asked for.
    pub(crate) fn discoveries(&self) -> u32 {
        self.state.discoveries.load(Ordering::SeqCst)
    }

    /// Requests for anything else, by path.
    pub(crate) fn other_requests(&self) -> Vec<String> {
        self.state.others.lock().clone()
    }

    /// Every good answer of key set and introspection, and when it was about to be sent.
    pub(crate) fn journal(&self) -> parking_lot::MutexGuard<'_, Vec<(Instant, Told)>> {
        self.state.journal.lock()
    }

    /// Connections are refused from now on.
    pub(crate) fn stop(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
        // The listener goes with the task; wait until it is gone.
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
                let kept = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                kept.set_reuse_address(true).unwrap();
                let address = std::net::SocketAddr::from(([127, 0, 0, 1], self.port));
                // Unless somebody was faster, which the test will then show.
                *self.kept.lock() = kept.bind(&address.into()).is_ok().then_some(kept);
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the provider did not stop");
    }

    /// Serves again at the same address.
    pub(crate) fn restart(&self) {
        for _ in 0..100 {
            self.kept.lock().take();
            if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", self.port)) {
                return self.serve(listener);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the provider's port is taken");
    }

    fn serve(&self, listener: std::net::TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let state = Arc::clone(&self.state);
        let task = runtime().spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                tokio::spawn(async move {
                    match state.tls.clone() {
                        None => answer(stream, state).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                answer(stream, state).await;
                            }
                        }
                    }
                });
            }
        });
        *self.task.lock() = Some(task);
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let text = String::from_utf8_lossy(&head);
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    let reply = match path.as_str() {
        INTROSPECT => {
            let Some((head, form)) = form(&mut stream, &head).await else { return };
            let token = form.iter().find(|(name, _)| name == "token").map(|(_, token)| token.clone());
            let Some((reply, said)) = state.introspection.reply(head, form).await else { return };
            if let (Some(token), Some(said)) = (token, said) {
                state.journal.lock().push((Instant::now(), Told::Token(token, said)));
            }
            reply
        }
        path => state.reply(path).await,
    };
    let _ = stream.write_all(&reply).await;
    let mood = *state.mood.lock();
    if path == KEYS {
        go_on(&mut stream, mood).await;
    }
    let _ = stream.shutdown().await;
    // Read to the end, so that closing does not reset the connection under the answer.
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_buf(&mut head)).await;
}

/// Head and form of a request whose head, and perhaps more, is here.
async fn form(stream: &mut (impl AsyncRead + Unpin), read: &[u8]) -> Option<(String, Vec<(String, String)>)> {
    let end = memchr::memmem::find(read, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
    let mut body = read[end + 4..].to_vec();
    while body.len() < length {
        if stream.read_buf(&mut body).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    Some((head, url::form_urlencoded::parse(&body).into_owned().collect()))
}

/// Bodies that do not come at once.
async fn go_on(stream: &mut (impl AsyncWrite + Unpin), mood: Mood) {
    match mood {
        Mood::Drip => {
            while stream.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Mood::Endless { .. } => {
            let piece = vec![b' '; 1 << 20];
            for _ in 0..100 {
                if stream.write_all(&piece).await.is_err() {
                    return;
                }
            }
        }
        _ => {}
    }
}

impl State {
    async fn reply(&self, path: &str) -> Vec<u8> {
        let mut mood = *self.mood.lock();
        while mood == Mood::Held {
            tokio::time::sleep(Duration::from_millis(5)).await;
            mood = *self.mood.lock();
        }
        if let Mood::Slow(millis) = mood {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        if path.contains("/.well-known/") {
            self.discoveries.fetch_add(1, Ordering::SeqCst);
        } else if path == KEYS {
            self.key_fetches.fetch_add(1, Ordering::SeqCst);
            return self.key_set(mood);
        } else {
            self.others.lock().push(path.to_owned());
            return http("404 Not Found", "text/plain", "");
        }
        if mood == Mood::Broken {
            return http("500 Internal Server Error", "text/plain", "broken");
        }
        let issuer = if mood == Mood::OtherIssuer { "http://127.0.0.1:1/elsewhere" } else { &self.issuer };
        let metadata = json!({
            "issuer": issuer,
            "jwks_uri": self.jwks_uri.lock().clone().unwrap_or_else(|| format!("{}/jwks", self.issuer)),
            "token_endpoint": format!("{}/token", self.issuer),
            "introspection_endpoint": format!("{}/introspect", self.issuer),
            "authorization_endpoint": format!("{}/auth", self.issuer),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        });
        http("200 OK", "application/json", &metadata.to_string())
    }

    fn key_set(&self, mood: Mood) -> Vec<u8> {
        match mood {
            Mood::Broken => http("500 Internal Server Error", "text/plain", "broken"),
            Mood::Html => http("200 OK", "text/html", "<html><body>Sign in</body></html>"),
            Mood::Empty => http("200 OK", "application/json", r#"{"keys":[]}"#),
            Mood::Huge => {
                let filler = "x".repeat(64 << 20);
                http("200 OK", "application/json", &json!({ "filler": filler, "keys": *self.keys.lock() }).to_string())
            }
            Mood::RedirectTo(target) => {
                format!("HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .into_bytes()
            }
            Mood::Drip => b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n".to_vec(),
            Mood::Endless { length } => {
                let length = if length { "content-length: 104857600\r\n" } else { "" };
                format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{length}connection: close\r\n\r\n")
                    .into_bytes()
            }
            Mood::Million => {
                let keys = format!(r#"{{"keys":[{}]}}"#, vec!["{}"; 1_000_000].join(","));
                http("200 OK", "application/json", &keys)
            }
            Mood::Bomb => bomb(),
            // `localhost` is another host than `127.0.0.1`, though it would answer.
            Mood::Redirect => {
                let target = self.issuer.replace("127.0.0.1", "localhost");
                format!(
                    "HTTP/1.1 302 Found\r\nlocation: {target}/moved\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                .into_bytes()
            }
            _ => {
                let kind = format!("application/json\r\n{}", self.fields.lock());
                let keys = self.keys.lock();
                let ids = keys.iter().filter_map(|key| key["kid"].as_str().map(str::to_owned)).collect();
                self.journal.lock().push((Instant::now(), Told::Keys(ids)));
                http("200 OK", kind.trim_end(), &json!({ "keys": *keys }).to_string())
            }
        }
    }
}

/// 32 MiB of zeros, compressed (RFC 1951 section 3.2.6): one byte, and that it is repeated.
fn bomb() -> Vec<u8> {
    let mut bits: Vec<u8> = Vec::new();
    // The last block, with fixed codes, which are written from their highest bit on; a literal 0.
    bits.extend([1, 1, 0]);
    bits.extend([0, 0, 1, 1, 0, 0, 0, 0]);
    for _ in 0..(32 << 20) / 258 {
        // 258 bytes, from one byte back.
        bits.extend([1, 1, 0, 0, 0, 1, 0, 1]);
        bits.extend([0; 5]);
    }
    bits.extend([0; 7]);
    let mut body = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    body.extend(
        bits.chunks(8).map(|byte| (0..8).rev().fold(0, |all, at| all << 1 | byte.get(at).copied().unwrap_or(0))),
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

pub(super) fn http(status: &str, kind: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Path of the key set.
const KEYS: &str = "/realms/shop/jwks";
const INTROSPECT: &str = "/realms/shop/introspect";
