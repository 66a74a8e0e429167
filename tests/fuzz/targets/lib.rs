//! What the targets share: an engine of one key manager and one API, and how it is asked.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, Waker},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, Method};
use tollgate::{
    authz::{Authorizer, CheckRequest, Decision},
    config::{self, Format},
    net::Now,
    store::{KeyManagerSet, Snapshot, Store},
    telemetry::Metrics,
    throttle::Limiter,
    token::{Authenticator, Identity, KeyManagers, KeySource},
};

/// Fixed, so that a finding can be run again.
pub const NOW: Now = Now::at_ms(1_800_000_000_000);
/// The key shared with the provider.
pub const SECRET: &[u8] = b"a secret of 32 bytes, or longer!";

/// The engine.
pub static ENGINE: LazyLock<Authorizer> = LazyLock::new(|| {
    let (settings, _) = config::parse(CONFIGURATION, Format::Toml, "fuzz").expect("the configuration is good");
    let (gate, names) = (settings.gate(), settings.key_manager_names());
    let tables = Snapshot::build(&settings.tables(&gate, &names), 1).expect("the tables are good");
    let tokens = Authenticator::new(&settings.cache, &prometheus::Registry::new()).expect("a fresh registry");
    let managers = settings.key_managers.iter().map(|manager| (manager.clone(), KeySource::NONE)).collect();
    let headers: Arc<[Box<str>]> = ["email", "address.country", "groups"].map(Into::into).into();
    let managers = KeyManagers::build(managers, &headers).expect("the key manager is good");
    let _no_task_without_a_set = tokens.replace(managers);
    Authorizer {
        store: Arc::new(Store::new(tables)),
        tokens: Arc::new(tokens),
        limiter: Arc::new(Limiter::new()),
        metrics: Arc::new(Metrics::new()),
    }
});

/// What the engine makes of a token.
pub fn judge(token: &str) -> Option<Arc<Identity>> {
    let all = KeyManagerSet::all();
    at_once(ENGINE.tokens.authenticate(token, &all, NOW)).ok().map(|good| good.identity)
}

/// What it makes of a request.
pub fn check(path: &str, headers: &HeaderMap) -> Decision {
    let request = CheckRequest {
        method: &Method::GET,
        host: "api.example.com",
        path,
        query: None,
        headers,
        client: None,
        now: NOW,
    };
    at_once(ENGINE.check(&request, &mut ()))
}

/// A token over this very payload, signed by the shared key.
pub fn sign(payload: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the keys are at hand"),
    }
}

const CONFIGURATION: &str = r#"
[proxy]
listen = "127.0.0.1:0"
[[key_managers]]
name = "idp"
connector = "oidc"
issuer = "https://idp.example.com"
discovery = false
audience = ["orders-api"]
algorithms = ["HS256"]
secret_keys = [{ alg = "HS256", secret = "a secret of 32 bytes, or longer!" }]
[[apis]]
name = "Orders"
context = "/orders"
upstream = "echo:"
subscription = "none"
token_in = ["header", "query"]
resources = [{ path = "/*", scopes = ["orders:read"] }]
"#;
