//! The door over a real socket, with providers in memory, and a client.

use std::{net::SocketAddr, path::Path, sync::Arc};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{Access, Door};
use crate::{
    keymanager::{Engine, testing::Memory},
    net::{Clock, tls::Acceptor},
    store::{
        FaultFormat, Revocations, Snapshot, Store,
        record::Record,
        settings::{GateSettings, TableSettings},
    },
    token::{Authenticator, settings::CacheSettings},
};

pub(super) struct Stand {
    pub(super) address: SocketAddr,
    pub(super) one: Arc<Memory>,
    pub(super) two: Arc<Memory>,
    pub(super) engine: Arc<Engine>,
    pub(super) key: String,
    _stop: watch::Sender<bool>,
    _folder: tempfile::TempDir,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.head, self.body))
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Stand {
    pub(super) async fn start() -> Self {
        Self::with(Some(Record::in_memory().unwrap())).await
    }

    pub(super) async fn with(record: Option<Record>) -> Self {
        Self::build(record, None).await
    }

    pub(super) async fn over(tls: Option<Acceptor>) -> Self {
        Self::build(Some(Record::in_memory().unwrap()), tls).await
    }

    async fn build(record: Option<Record>, tls: Option<Acceptor>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Arc::new(Memory::default()), Arc::new(Memory::default()));
        let (clock, registry) = (Arc::new(Clock::new()), prometheus::Registry::new());
        let revocations = Arc::new(Revocations::default());
        let engine = Engine::new(record, Arc::clone(&revocations), Arc::clone(&clock), &registry, None).unwrap();
        engine.registry.replace(vec![one.managed("one", ""), two.managed("two", "")]);
        let engine = Arc::new(engine);
        let (access, key) = access(folder.path(), &clock, revocations);
        let door = Door::new(Arc::clone(&engine), access, Arc::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(door.serve(listener.into(), tls, stopped));
        Self { address, one, two, engine, key, _stop: stop, _folder: folder }
    }

    /// A client of `one` that is made now: its path, and the tag by which it is read.
    pub(super) async fn client(&self, id: &str) -> (String, String) {
        let made = self.ask("POST", "/v1/key-managers/one/clients", &format!(r#"{{"clientId":"{id}"}}"#)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let path = format!("/v1/key-managers/one/clients/{id}");
        let tag = self.ask("GET", &path, "").await.field("etag").unwrap().to_owned();
        (path, tag)
    }

    /// A request of the bootstrap key's holder; a body is JSON.
    pub(super) async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_with(method, path, "", body).await
    }

    pub(super) async fn ask_with(&self, method: &str, path: &str, head: &str, body: &str) -> Answer {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let head = format!("Authorization: Bearer {}\r\n{kind}{head}", self.key);
        self.raw(method, path, &head, body).await
    }

    pub(super) async fn raw(&self, method: &str, path: &str, head: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n{body}"
        );
        // A refusal may come, and the connection go, before the whole of it is read.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.into(), body: body.into() }
    }
}

pub(super) fn access(folder: &Path, clock: &Arc<Clock>, revocations: Arc<Revocations>) -> (Access, String) {
    let path = folder.join("bootstrap.key");
    let tokens = Authenticator::new(&CacheSettings::default(), &prometheus::Registry::new()).unwrap();
    let gate = GateSettings {
        trusted_proxies: Vec::new(),
        fault_format: FaultFormat::Wso2,
        realm: "tollgate".into(),
        strip_headers: Vec::new(),
        assertion_header: None,
        identity_headers: Default::default(),
        rate_limit_headers: false,
        x_ratelimit: false,
        rules: Vec::new(),
        deny: Vec::new(),
    };
    let tables = TableSettings {
        gate: &gate,
        key_managers: &[],
        issuers: Vec::new(),
        apis: &[],
        applications: &[],
        subscriptions: &[],
        tiers: &[],
    };
    let snapshot = Snapshot::build(&tables, 1).unwrap();
    let store = Arc::new(Store::with_revocations(snapshot, revocations));
    let access =
        Access::new(&["one".to_owned()], &path, "tollgate", Arc::new(tokens), store, Arc::clone(clock)).unwrap();
    (access, std::fs::read_to_string(path).unwrap().trim().to_owned())
}
