//! Look-ups in the tables: what a request costs as APIs, applications and subscriptions grow.
//!
//! `hot` asks for the same row again and again, `spread` for another one each time: its difference between few and
//! many rows is the cache misses of the machine, which a real request meets once for each look-up.

use std::{hint::black_box, sync::OnceLock, time::Instant};

use divan::{Bencher, counter::ItemsCount};
use http::Method;
use tollgate::store::{FaultFormat, KeyType, Resolution, Snapshot, settings::*};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Few rows and many: APIs of 100 resources; applications and subscriptions.
const SMALL: Size = Size { apis: 10, applications: 10, subscriptions: 10 };
const LARGE: Size = Size { apis: 10_000, applications: 200_000, subscriptions: 1_000_000 };
const RESOURCES: usize = 100;
const ASKED: usize = 1024;

#[derive(Clone, Copy)]
struct Size {
    apis: usize,
    applications: usize,
    subscriptions: usize,
}

fn main() {
    tell_size(SMALL);
    tell_size(LARGE);
    divan::main();
}

#[divan::bench(args = [10, 10_000])]
fn resolve_hot(bencher: Bencher, apis: usize) {
    let tables = tables(apis);
    bencher.counter(ItemsCount::new(ASKED)).bench(|| {
        for _ in 0..ASKED {
            black_box(tables.resolve(
                black_box("api.example.com"),
                &Method::GET,
                black_box("/context5/v1/things50/42/parts"),
            ));
        }
    });
}

#[divan::bench(args = [10, 10_000])]
fn resolve_spread(bencher: Bencher, apis: usize) {
    let tables = tables(apis);
    let paths: Vec<String> = random(apis * RESOURCES)
        .map(|n| format!("/context{}/v1/things{}/42/parts", n / RESOURCES, n % RESOURCES))
        .collect();
    assert!(paths.iter().all(|path| matches!(tables.resolve("", &Method::GET, path), Resolution::Found(_))));
    bencher.counter(ItemsCount::new(ASKED)).bench(|| {
        for path in &paths {
            black_box(tables.resolve(black_box("api.example.com"), &Method::GET, black_box(path)));
        }
    });
}

#[divan::bench(args = [10, 1_000_000])]
fn subscription_hot(bencher: Bencher, rows: usize) {
    let tables = tables(rows);
    bencher.counter(ItemsCount::new(ASKED)).bench(|| {
        for _ in 0..ASKED {
            let key = tables.consumer_key(black_box("keycloak"), black_box("consumer-key-0000005"));
            black_box(key.and_then(|key| tables.subscription(key.application, black_box(5))));
        }
    });
}

#[divan::bench(args = [10, 1_000_000])]
fn subscription_spread(bencher: Bencher, rows: usize) {
    let tables = tables(rows);
    let size = if rows == 10 { SMALL } else { LARGE };
    let asked: Vec<(String, u32)> = random(size.subscriptions)
        .map(|n| {
            let (application, api) = subscribed(n, size);
            (consumer_key(application), u32::try_from(api).expect("a small number"))
        })
        .collect();
    let find =
        |key: &str, api| tables.consumer_key("keycloak", key).and_then(|key| tables.subscription(key.application, api));
    assert!(asked.iter().all(|(key, api)| find(key, *api).is_some()));
    bencher.counter(ItemsCount::new(ASKED)).bench(|| {
        for (key, api) in &asked {
            black_box(find(black_box(key), *api));
        }
    });
}

#[divan::bench]
fn canonical(bencher: Bencher) {
    bencher.counter(ItemsCount::new(ASKED)).bench(|| {
        for _ in 0..ASKED {
            let _ = black_box(tollgate::store::canonical(black_box("/context5/v1/things50/42/parts")));
        }
    });
}

#[divan::bench(args = ["user-agent", "content-length", "x-forwarded-for", "x_auth_subject"])]
fn strips(bencher: Bencher, name: &str) {
    let gate = &tables(10).gate;
    bencher.counter(ItemsCount::new(ASKED)).bench(|| {
        for _ in 0..ASKED {
            black_box(gate.strips(black_box(name.as_bytes())));
        }
    });
}

/// The tables that have this many rows of something.
fn tables(rows: usize) -> &'static Snapshot {
    let tables = if rows == 10 { &FEW } else { &MANY };
    tables.get().expect("built before the benches run")
}

static FEW: OnceLock<Snapshot> = OnceLock::new();
static MANY: OnceLock<Snapshot> = OnceLock::new();

/// Builds the tables and says what they take, besides the settings they are built from.
fn tell_size(size: Size) {
    let settings = Settings::new(size);
    let (before, started) = (resident_mib(), Instant::now());
    let tables = if size.apis == SMALL.apis { &FEW } else { &MANY };
    tables.get_or_init(|| settings.build());
    let Size { apis, applications, subscriptions } = size;
    println!(
        "{apis} APIs x {RESOURCES} resources, {applications} applications, {subscriptions} subscriptions: \
         {} MiB more resident, built in {:.1?}",
        resident_mib().saturating_sub(before),
        started.elapsed(),
    );
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0) / 1024
}

fn random(below: usize) -> impl Iterator<Item = usize> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(move || random.usize(..below)).take(ASKED)
}

fn consumer_key(application: usize) -> String {
    format!("consumer-key-{application:07}")
}

/// Application and API of a subscription: no pair comes twice.
fn subscribed(n: usize, size: Size) -> (usize, usize) {
    let application = n % size.applications;
    (application, (application * 7 + n / size.applications) % size.apis)
}

struct Settings {
    gate: GateSettings,
    apis: Vec<ApiSettings>,
    applications: Vec<ApplicationSettings>,
    subscriptions: Vec<SubscriptionSettings>,
}

impl Settings {
    fn new(size: Size) -> Self {
        let subscription = |n| {
            let (application, api) = subscribed(n, size);
            SubscriptionSettings {
                application: format!("application-{application}"),
                api: format!("Api{api}:v1"),
                tier: "Gold".into(),
                state: SubscriptionState::Unblocked,
            }
        };
        Self {
            gate: GateSettings {
                trusted_proxies: Vec::new(),
                fault_format: FaultFormat::Wso2,
                realm: "tollgate".into(),
                strip_headers: Vec::new(),
                assertion_header: None,
                identity_headers: IdentityHeaders::default(),
                rate_limit_headers: false,
                x_ratelimit: false,
                rules: Vec::new(),
                deny: Vec::new(),
            },
            apis: (0..size.apis).map(api).collect(),
            applications: (0..size.applications).map(application).collect(),
            subscriptions: (0..size.subscriptions).map(subscription).collect(),
        }
    }

    fn build(&self) -> Snapshot {
        let tables = TableSettings {
            gate: &self.gate,
            key_managers: &["keycloak".into()],
            issuers: Vec::new(),
            apis: &self.apis,
            applications: &self.applications,
            subscriptions: &self.subscriptions,
            tiers: &[],
        };
        Snapshot::build(&tables, 1).expect("good settings")
    }
}

fn api(n: usize) -> ApiSettings {
    ApiSettings {
        name: format!("Api{n}"),
        context: format!("/context{n}"),
        version: Some("v1".into()),
        default_version: false,
        hosts: Vec::new(),
        upstream: Some(OneOrMany::One("http://127.0.0.1:3000".into())),
        production: None,
        sandbox: None,
        strip_prefix: true,
        preserve_host: false,
        forward_token: false,
        backend_jwt: true,
        token_in: vec![tollgate::store::TokenPlace::Header],
        key_managers: Vec::new(),
        audience: Vec::new(),
        subscription: SubscriptionRule::Required,
        tier: "Unlimited".into(),
        backend_limit: None,
        token_usage: tollgate::store::TokenUsageSettings::default(),
        fault_format: None,
        resource_metadata: None,
        cors: None,
        resources: (0..RESOURCES).map(resource).collect(),
    }
}

fn resource(n: usize) -> ResourceSettings {
    ResourceSettings {
        path: format!("/things{n}/{{id}}/parts"),
        methods: vec!["GET".into(), "POST".into()],
        scopes: vec![format!("things{n}:read")],
        scopes_match: ScopesMatch::Any,
        auth: AuthRule::Required,
        auth_level: AuthLevel::Any,
        acr_values: Vec::new(),
        max_age: None,
        tier: if n.is_multiple_of(2) { "Unlimited".into() } else { "10KPerMin".into() },
    }
}

fn application(n: usize) -> ApplicationSettings {
    ApplicationSettings {
        name: format!("application-{n}"),
        owner: format!("owner-{}", n % 1000),
        tier: "50PerMin".into(),
        keys: vec![KeySettings { key_manager: None, consumer_key: consumer_key(n), key_type: KeyType::Production }],
    }
}
