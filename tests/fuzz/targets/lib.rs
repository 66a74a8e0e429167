//! What the targets share: an engine of one key manager and one API, and how it is asked.

use std::{
    future::Future,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use tollgate::{
    authz::{Authorizer, CheckRequest, Decision},
    config::{self, Format},
    net::{Fields, Now},
    store::{KeyManagerSet, Snapshot, Store},
    telemetry::Metrics,
    throttle::Limiter,
    token::{
        AnswerForm, Authenticator, Identity, Introspect, IntrospectFuture, IntrospectionAnswer, KeyManagers, KeySource,
        Sources,
    },
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
    let sources = || Sources { keys: KeySource::NONE, introspection: Some(Arc::new(Provider)) };
    let managers = settings.key_managers.iter().map(|manager| (manager.clone(), sources())).collect();
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

/// What the provider says of every opaque token.
pub static ANSWER: Mutex<(Vec<u8>, AnswerForm)> = Mutex::new((Vec::new(), AnswerForm::Json));

/// A provider that says what it is told to say.
#[derive(Debug)]
struct Provider;

impl Introspect for Provider {
    fn introspect<'a>(&'a self, _: &'a str) -> IntrospectFuture<'a> {
        Box::pin(async {
            let (body, form) = ANSWER.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Ok(IntrospectionAnswer { body: body.into(), form })
        })
    }
}

/// What the engine makes of a token.
pub fn judge(token: &str) -> Option<Arc<Identity>> {
    let all = KeyManagerSet::all();
    wait(ENGINE.tokens.authenticate(token, &all, None, NOW)).ok().map(|good| good.identity)
}

/// What it makes of a request.
pub fn check(path: &str, headers: &Fields) -> Decision {
    let request = CheckRequest {
        method: &Method::GET,
        host: "api.example.com",
        path,
        query: None,
        headers,
        client: None,
        now: NOW,
    };
    wait(ENGINE.check(&request, &mut ()))
}

/// A token over this very payload, signed by the shared key.
pub fn sign(payload: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be made");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

const CONFIGURATION: &str = r#"
[proxy]
listen = "127.0.0.1:0"
[[key_managers]]
name = "idp"
connector = "oidc"
issuer = "https://idp.example.com"
discovery = false
introspection_endpoint = "https://idp.example.com/introspect"
client_id = "tollgate"
client_secret = "s"
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
