//! `Authorizer::check` without any I/O: a warm token, whether it was verified or asked about, a token never seen,
//! and what is refused.
//!
//! `cargo bench --bench check`. Everything is on: scope, subscription, subscription and application tier.
//! Nothing is left out but metrics and access lines, which the door writes.
//!
//! `instructions` as the only argument of the built bench runs each case under `valgrind --tool=callgrind`, twice, and
//! prints what one check more costs in instructions: the same on every run, whatever else the machine does. As
//! measured:
//!
//! | case | instructions |
//! |---|---|
//! | hit | 6245 |
//! | hit_without_levels | 5281 |
//! | hit_at_every_level | 11070 |
//! | no_credential | 2663 |
//! | no_api | 1773 |
//! | no_resource | 2218 |
//! | bad_path | 1499 |
//! | scope | 5157 |
//! | garbled | 5198 |
//! | known_bad | 4942 |
//!
//! valgrind offers no SHA and no VAES instructions: what is hashed or has a tag made costs less on the machine itself.

use std::{
    env,
    hint::black_box,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use divan::{AllocProfiler, Bencher};
use http::{HeaderValue, Method, header::AUTHORIZATION};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tollgate::{
    authz::{Authorizer, CheckRequest},
    config::{self, Format},
    net::{Clock, Fields, Now},
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
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["instructions"] => counts::print(),
        ["repeat", case, times] => counts::repeat(case, times.parse().expect("a number")),
        _ => divan::main(),
    }
}

/// An engine, and who signs for it.
struct Bench {
    authorizer: Authorizer,
    key: EcdsaKeyPair,
    now: Now,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| Bench::new(CONFIGURATION));
/// No level counts, and every one does.
static BARE: LazyLock<Bench> =
    LazyLock::new(|| Bench::new(&CONFIGURATION.replace("tier = \"Counted\"", "tier = \"Unlimited\"")));
static LIMITED: LazyLock<Bench> = LazyLock::new(|| {
    let with_api = CONFIGURATION.replace("version = \"v1\"\n", LIMITS_OF_API);
    Bench::new(&(with_api.replace("tier = \"Counted\"", "tier = \"Bursts\"") + LIMITS))
});
thread_local! {
    /// A worker's only one: turns at the verifier are given by it, whichever engine wants one.
    static RUNTIME: Runtime =
        Builder::new_current_thread().enable_time().build().expect("a runtime can be made");
}
static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Bench {
    fn new(configuration: &str) -> Self {
        let (settings, _) = config::parse(configuration, Format::Toml, "bench").expect("the configuration is good");
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
        Self { authorizer, key, now: Clock::new().now() }
    }

    /// A token of the size that providers issue, unlike every other.
    fn token(&self, scope: &str) -> Fields {
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
        Fields::from_iter([(AUTHORIZATION, HeaderValue::try_from(field).expect("visible ASCII"))])
    }

    fn check(&self, path: &str, headers: &Fields) -> bool {
        let request = CheckRequest {
            method: &Method::GET,
            host: "api.example.com",
            path,
            query: Some("page=2"),
            headers,
            client: None,
            now: self.now,
        };
        RUNTIME.with(|runtime| runtime.block_on(self.authorizer.check(black_box(&request), &mut ()))).is_ok()
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

/// A hit that no level counts.
#[divan::bench(threads = [1, 2])]
fn hit_without_levels(bencher: Bencher<'_, '_>) {
    let headers = BARE.token("orders:read");
    assert!(BARE.check(GOOD, &headers));
    bencher.bench(|| BARE.check(GOOD, &headers));
}

/// The same at every level: deny conditions, the API's tier with condition groups, subscription and application with
/// bursts, a custom rule, the upstream's limit. What they cost is this less `hit_without_levels`.
#[divan::bench(threads = [1, 2])]
fn hit_at_every_level(bencher: Bencher<'_, '_>) {
    let headers = LIMITED.token("orders:read");
    assert!(LIMITED.check(GOOD, &headers));
    bencher.bench(|| LIMITED.check(GOOD, &headers));
}

/// The same for a token that its provider vouches for: as long as a JWT, so that only the way differs.
#[divan::bench(threads = [1, 2])]
fn hit_introspected(bencher: Bencher<'_, '_>) {
    let jwt = BENCH.token("orders:read");
    let opaque = str::from_utf8(jwt.get("authorization").expect("it is set")).expect("visible ASCII").replace('.', "_");
    let headers = Fields::from_iter([(AUTHORIZATION, HeaderValue::try_from(opaque).expect("visible ASCII"))]);
    assert!(BENCH.check(GOOD, &headers));
    bencher.bench(|| BENCH.check(GOOD, &headers));
}

/// Without the provider's own time: the call, what is read, what is remembered.
#[divan::bench(sample_count = 20, sample_size = 50)]
fn first_sight_introspected(bencher: Bencher<'_, '_>) {
    let token = || {
        let field = format!("Bearer opaque_{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        Fields::from_iter([(AUTHORIZATION, HeaderValue::try_from(field).expect("visible ASCII"))])
    };
    bencher.with_inputs(token).bench_values(|headers| BENCH.check(GOOD, &headers));
}

#[divan::bench(sample_count = 20, sample_size = 50)]
fn first_sight_es256(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(|| BENCH.token("orders:read")).bench_values(|headers| BENCH.check(GOOD, &headers));
}

#[divan::bench(args = ["no_credential", "no_api", "no_resource", "bad_path", "scope", "garbled", "known_bad"])]
fn refused(bencher: Bencher<'_, '_>, case: &str) {
    let (path, headers) = asked(case);
    assert!(!BENCH.check(path, &headers));
    bencher.bench(|| BENCH.check(path, &headers));
}

/// The path and the fields of a case.
fn asked(case: &str) -> (&'static str, Fields) {
    match case {
        "hit" | "hit_without_levels" | "hit_at_every_level" => (GOOD, engine(case).token("orders:read")),
        "no_credential" => (GOOD, Fields::default()),
        "no_api" => ("/other", Fields::default()),
        "no_resource" => ("/orders/v1/nothing", Fields::default()),
        "bad_path" => ("/orders/v1/../x", Fields::default()),
        "scope" => (GOOD, BENCH.token("profile")),
        "garbled" => (GOOD, Fields::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer a.b.c"))])),
        "known_bad" => (GOOD, tampered(&BENCH.token("orders:read"))),
        other => unreachable!("{other}"),
    }
}

/// The engine of a case.
fn engine(case: &str) -> &'static Bench {
    match case {
        "hit_without_levels" => &BARE,
        "hit_at_every_level" => &LIMITED,
        _ => &BENCH,
    }
}

/// What is counted rather than timed.
mod counts {
    use std::{env, fs, process::Command};

    use super::{asked, engine};

    const CASES: [&str; 10] = [
        "hit",
        "hit_without_levels",
        "hit_at_every_level",
        "no_credential",
        "no_api",
        "no_resource",
        "bad_path",
        "scope",
        "garbled",
        "known_bad",
    ];
    const FEW: u64 = 1_000;
    const MORE: u64 = 11_000;

    /// One case, so many times.
    pub(super) fn repeat(case: &str, times: u64) {
        let (engine, (path, headers)) = (engine(case), asked(case));
        for _ in 0..times {
            engine.check(path, &headers);
        }
    }

    /// The table of instructions.
    pub(super) fn print() {
        println!("| case | instructions |\n|---|---|");
        for case in CASES {
            let more = under_valgrind(case, MORE) - under_valgrind(case, FEW);
            println!("| {case} | {} |", more / (MORE - FEW));
        }
    }

    /// The instructions of the whole process.
    fn under_valgrind(case: &str, times: u64) -> u64 {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let out = dir.path().join("counts");
        let this = env::current_exe().expect("it runs");
        let ended = Command::new("valgrind")
            .arg("--tool=callgrind")
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(this)
            .args(["repeat", case, &times.to_string()])
            .output()
            .expect("valgrind is installed");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        let text = fs::read_to_string(out).expect("valgrind has written it");
        let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: ")).expect("it has a total");
        total.trim().parse().expect("a number")
    }
}

/// The same token with another signature.
fn tampered(headers: &Fields) -> Fields {
    let field = str::from_utf8(headers.get("authorization").expect("it is set")).expect("visible ASCII");
    let (signed, signature) = field.rsplit_once('.').expect("three parts");
    let turned: String = signature.chars().rev().skip(1).chain(['A']).collect();
    Fields::from_iter([(AUTHORIZATION, HeaderValue::try_from(format!("{signed}.{turned}")).expect("ASCII"))])
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

const LIMITS_OF_API: &str = r#"version = "v1"
tier = "Guarded"
backend_limit = { production = { requests = 2_000_000_000, per = "1d" } }
"#;

const LIMITS: &str = r#"
[[tiers]]
name = "Bursts"
requests = 2_000_000_000
per = "1d"
burst = { requests = 2_000_000_000, per = "1d" }
[[tiers]]
name = "Guarded"
requests = 2_000_000_000
per = "1d"
level = "advanced"
[[tiers.conditions]]
when = [{ ip = "203.0.113.0/24" }, { header = "User-Agent", matches = "^curl/" }]
limit = { requests = 10, per = "1d" }
[[tiers.conditions]]
when = [{ query = "plan", matches = "^trial$" }]
limit = { requests = 10, per = "1d" }
[[tiers.conditions]]
when = [{ claim = "country", matches = "^SE$" }]
limit = { requests = 10, per = "1d" }
[[deny]]
ip = "203.0.113.7"
[[deny]]
user = "mallory"
[[deny]]
application = "ada:other"
[[throttle.rules]]
name = "each user"
key = "$userId:$apiContext"
limit = { requests = 2_000_000_000, per = "1d" }
"#;
