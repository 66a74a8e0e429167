//! `Authorizer::check` without any I/O: a warm token, whether it was verified or asked about, a token never seen,
//! and what is refused.
//!
//! `cargo bench --bench check`. Everything is on: scope, subscription, subscription and application tier.
//! Nothing is left out but metrics and access lines, which the door writes.

use std::{
    hint::black_box,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use divan::{AllocProfiler, Bencher};
use http::{HeaderMap, HeaderValue, Method, header::AUTHORIZATION};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tollgate::{
    authz::{Authorizer, CheckRequest},
    config::{self, Format},
    net::{Clock, Now},
    store::{Snapshot, Store},
    telemetry::Metrics,
    throttle::Limiter,
    token::{
        AnswerForm, Authenticator, Introspect, IntrospectFuture, IntrospectionAnswer, KeyManagers, KeySource, Sources,
    },
};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// An engine, and who signs for it.
struct Bench {
    authorizer: Authorizer,
    key: EcdsaKeyPair,
    now: Now,
    runtime: Runtime,
}

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);
static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Bench {
    fn new() -> Self {
        let (settings, _) = config::parse(CONFIGURATION, Format::Toml, "bench").expect("the configuration is good");
        let (gate, names) = (settings.gate(), settings.key_manager_names());
        let tables = Snapshot::build(&settings.tables(&gate, &names), 1).expect("the tables are good");
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key can be made");
        let tokens = Authenticator::new(&settings.cache, &Registry::new()).expect("a fresh registry");
        let managers: Vec<_> = settings.key_managers.iter().map(|manager| (manager.clone(), sources(&key))).collect();
        let managers = KeyManagers::build(managers, &Arc::from([])).expect("the key manager is good");
        let _no_task_for_fixed_keys = tokens.replace(managers);
        let authorizer = Authorizer {
            store: Arc::new(Store::new(tables)),
            tokens: Arc::new(tokens),
            limiter: Arc::new(Limiter::new()),
            metrics: Arc::new(Metrics::new()),
        };
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime can be made");
        Self { authorizer, key, now: Clock::new().now(), runtime }
    }

    /// A token of the size that providers issue, unlike every other.
    fn token(&self, scope: &str) -> HeaderMap {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let now = self.now.unix();
        let claims = json!({
            "iss": ISSUER, "aud": "orders-api", "sub": "0d9a3e0c-5f0b-4a53-8a0e-2f6d3f1c7a11", "client_id": "shop-web",
            "scope": scope, "iat": now, "exp": now + 3600, "jti": format!("{serial:032x}"),
            "name": "padding as in real tokens", "groups": ["/customers/eu", "/customers/beta", "/employees/none"],
        });
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": "k1"});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let random = aws_lc_rs::rand::SystemRandom::new();
        let signature = self.key.sign(&random, signed.as_bytes()).expect("signing works");
        let field = format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(field).expect("visible ASCII"))])
    }

    fn check(&self, path: &str, headers: &HeaderMap) -> bool {
        let request = CheckRequest {
            method: &Method::GET,
            host: "api.example.com",
            path,
            query: Some("page=2"),
            headers,
            client: None,
            now: self.now,
        };
        self.runtime.block_on(self.authorizer.check(black_box(&request), &mut ())).is_ok()
    }
}

/// A provider in our own process, to which every opaque token is as good as the JWTs are.
#[derive(Debug)]
struct Provider;

impl Introspect for Provider {
    fn introspect<'a>(&'a self, _: &'a str) -> IntrospectFuture<'a> {
        Box::pin(async {
            let body = json!({
                "active": true, "iss": ISSUER, "aud": "orders-api", "sub": "0d9a3e0c-5f0b-4a53-8a0e-2f6d3f1c7a11",
                "client_id": "shop-web", "scope": "orders:read", "token_type": "Bearer", "exp": 9_000_000_000_u64,
            });
            Ok(IntrospectionAnswer { body: body.to_string().into(), form: AnswerForm::Json })
        })
    }
}

fn sources(key: &EcdsaKeyPair) -> Sources {
    Sources { keys: KeySource::fixed(&jwks(key)), introspection: Some(Arc::new(Provider)) }
}

fn jwks(key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    let coordinate = |range| URL_SAFE_NO_PAD.encode(&point[range]);
    json!({"keys": [{
        "kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "alg": "ES256",
        "x": coordinate(1..33), "y": coordinate(33..65),
    }]})
}

#[divan::bench(threads = [1, 2])]
fn hit(bencher: Bencher<'_, '_>) {
    let headers = BENCH.token("orders:read");
    assert!(BENCH.check(GOOD, &headers));
    bencher.bench(|| BENCH.check(GOOD, &headers));
}

/// The same for a token that its provider vouches for: as long as a JWT, so that only the way differs.
#[divan::bench(threads = [1, 2])]
fn hit_introspected(bencher: Bencher<'_, '_>) {
    let jwt = BENCH.token("orders:read");
    let opaque = jwt[AUTHORIZATION].to_str().expect("visible ASCII").replace('.', "_");
    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(opaque).expect("visible ASCII"))]);
    assert!(BENCH.check(GOOD, &headers));
    bencher.bench(|| BENCH.check(GOOD, &headers));
}

/// Without the provider's own time: the call, what is read, what is remembered.
#[divan::bench(sample_count = 20, sample_size = 50)]
fn first_sight_introspected(bencher: Bencher<'_, '_>) {
    let token = || {
        let field = format!("Bearer opaque_{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(field).expect("visible ASCII"))])
    };
    bencher.with_inputs(token).bench_values(|headers| BENCH.check(GOOD, &headers));
}

#[divan::bench(sample_count = 20, sample_size = 50)]
fn first_sight_es256(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(|| BENCH.token("orders:read")).bench_values(|headers| BENCH.check(GOOD, &headers));
}

#[divan::bench(args = ["no_credential", "no_api", "no_resource", "bad_path", "scope", "garbled", "known_bad"])]
fn refused(bencher: Bencher<'_, '_>, case: &str) {
    let (path, headers) = match case {
        "no_credential" => (GOOD, HeaderMap::new()),
        "no_api" => ("/other", HeaderMap::new()),
        "no_resource" => ("/orders/v1/nothing", HeaderMap::new()),
        "bad_path" => ("/orders/v1/../x", HeaderMap::new()),
        "scope" => (GOOD, BENCH.token("profile")),
        "garbled" => (GOOD, HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer a.b.c"))])),
        "known_bad" => (GOOD, tampered(&BENCH.token("orders:read"))),
        other => unreachable!("{other}"),
    };
    assert!(!BENCH.check(path, &headers));
    bencher.bench(|| BENCH.check(path, &headers));
}

/// The same token with another signature.
fn tampered(headers: &HeaderMap) -> HeaderMap {
    let field = headers[AUTHORIZATION].to_str().expect("visible ASCII");
    let (signed, signature) = field.rsplit_once('.').expect("three parts");
    let turned: String = signature.chars().rev().skip(1).chain(['A']).collect();
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(format!("{signed}.{turned}")).expect("ASCII"))])
}

const GOOD: &str = "/orders/v1/items/42";
const ISSUER: &str = "https://idp.example.com/realms/shop";

const CONFIGURATION: &str = r#"
[proxy]
listen = "127.0.0.1:0"
[[key_managers]]
name = "idp"
connector = "oidc"
issuer = "https://idp.example.com/realms/shop"
audience = ["orders-api"]
[[apis]]
name = "Orders"
context = "/orders"
version = "v1"
upstream = "http://127.0.0.1:3000"
resources = [
    { path = "/items", methods = ["GET"], scopes = ["orders:read"] },
    { path = "/items/{id}", methods = ["GET"], scopes = ["orders:read"] },
    { path = "/items/{id}", methods = ["PUT", "DELETE"], scopes = ["orders:write"] },
]
[[applications]]
name = "shop-web"
owner = "ada"
tier = "Counted"
keys = [{ consumer_key = "shop-web" }]
[[subscriptions]]
application = "shop-web"
api = "Orders:v1"
tier = "Counted"
[[tiers]]
name = "Counted"
requests = 2_000_000_000
per = "1d"
"#;
