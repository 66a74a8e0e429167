//! What a configuration becomes: which resource a request elects, which rows are found, what they hold.

use http::Method;
use serde::Deserialize;

use crate::problem::Problem;

use super::{settings::*, *};

/// The part of the configuration file that becomes tables.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    key_managers: Vec<String>,
    apis: Vec<ApiSettings>,
    applications: Vec<ApplicationSettings>,
    subscriptions: Vec<SubscriptionSettings>,
    tiers: Vec<TierSettings>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            key_managers: vec!["keycloak".into()],
            apis: Vec::new(),
            applications: Vec::new(),
            subscriptions: Vec::new(),
            tiers: Vec::new(),
        }
    }
}

pub(super) fn gate() -> GateSettings {
    GateSettings {
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
    }
}

/// The tables of a piece of TOML.
pub(super) fn build(toml: &str) -> Result<Snapshot, Vec<Problem>> {
    let file: File = toml::from_str(toml).unwrap_or_else(|error| panic!("{error}\n{toml}"));
    let tables = TableSettings {
        gate: &gate(),
        key_managers: &file.key_managers,
        issuers: Vec::new(),
        apis: &file.apis,
        applications: &file.applications,
        subscriptions: &file.subscriptions,
        tiers: &file.tiers,
    };
    Snapshot::build(&tables, 7)
}

/// An API; each resource is a template and its verbs.
fn api(head: &str, resources: &[&str]) -> String {
    let mut text = format!("[[apis]]\nupstream = \"echo:\"\n{head}\n");
    for resource in resources {
        let mut words = resource.split(' ');
        let path = words.next().expect("a template");
        let verbs: Vec<String> = words.map(|verb| format!("{verb:?}")).collect();
        text += &format!("[[apis.resources]]\npath = {path:?}\n");
        if !verbs.is_empty() {
            text += &format!("methods = [{}]\n", verbs.join(", "));
        }
    }
    text
}

/// What a request elects, as `api template context-length`.
fn elected(tables: &Snapshot, host: &str, method: &str, path: &str) -> String {
    match tables.resolve(host, &Method::from_bytes(method.as_bytes()).unwrap(), path) {
        Resolution::Found(target) => {
            let api = &tables.apis[target.api as usize];
            let resource = &api.resources[target.resource as usize];
            format!("{} {} {}", api.id, resource.template, target.context_len)
        }
        Resolution::NoResource { api } => format!("{} -", tables.apis[api as usize].id),
        Resolution::NoApi => "-".into(),
    }
}

#[test]
fn requests_elect_their_resource() {
    let tables = build(
        &[
            api(
                "name = 'Orders'\nversion = 'v1'\ncontext = '/orders'\ndefault_version = true",
                &[
                    "/ GET",
                    "/items GET POST",
                    "/items/{id} GET",
                    "/items/{id}/lines/* GET",
                    "/items/new GET",
                    "/items/new/{x}/y GET",
                    "/items/{id}/b/d GET",
                    "/items/* GET DELETE",
                    "/slash/ GET",
                    "/café/{x} GET",
                    "/head GET",
                    "/head HEAD",
                    "/all",
                    "/all/dav * PROPFIND",
                    "/deep/{a}/{b}/{c} GET",
                ],
            ),
            api("name = 'Orders'\nversion = 'v2'\ncontext = '/orders'", &["/* GET"]),
            api("name = 'Long'\ncontext = '/orders/v1/items/special'", &["/x GET"]),
            api("name = 'Root'\ncontext = '/'", &["/ GET", "/health GET", "/{tenant}/files/* GET"]),
            api("name = 'Here'\ncontext = '/orders'\nhosts = ['Here.Example:443', '[::1]']", &["/only GET"]),
            api("name = 'Shared1'\ncontext = '/shared'", &["/a GET", "/{x}/one GET"]),
            api("name = 'Shared2'\ncontext = '/shared'", &["/a POST", "/b GET", "/{y}/two GET"]),
            api("name = 'Wide'\ncontext = '/wide'", &["/* GET"]),
        ]
        .concat(),
    )
    .unwrap();
    let rows = "
        GET /orders/v1                   Orders:v1 / 10
        GET /orders/v1/                  Orders:v1 / 10
        GET /orders                      Orders:v1 / 7
        GET /orders/                     Orders:v1 / 7
        GET /orders/items                Orders:v1 /items 7
        GET /orders/v1/items             Orders:v1 /items 10
        GET /orders/v1/items/            Orders:v1 /items 10
        POST /orders/v1/items            Orders:v1 /items 10
        DELETE /orders/v1/items          Orders:v1 -
        GET /orders/v1/items/42          Orders:v1 /items/{id} 10
        GET /orders/v1/items/42/         Orders:v1 /items/{id} 10
        DELETE /orders/v1/items/42       Orders:v1 -
        GET /orders/v1/items/new         Orders:v1 /items/new 10
        GET /orders/v1/items/new/1/y     Orders:v1 /items/new/{x}/y 10
        GET /orders/v1/items/new/b/d     Orders:v1 /items/{id}/b/d 10
        GET /orders/v1/items/new/lines   Orders:v1 /items/{id}/lines/* 10
        GET /orders/v1/items/7/lines     Orders:v1 /items/{id}/lines/* 10
        GET /orders/v1/items/7/lines/a/b Orders:v1 /items/{id}/lines/* 10
        GET /orders/v1/items/7/other     Orders:v1 /items/* 10
        DELETE /orders/v1/items/7/other  Orders:v1 /items/* 10
        GET /orders/v1/items/new/1/z     Orders:v1 /items/* 10
        GET /orders/v1/items/special/x   Long /x 24
        GET /orders/v1/items/special/y   Long -
        GET /orders/v1/items/special     Long -
        GET /orders/v1/Items             Orders:v1 -
        GET /Orders/v1/items             Root -
        GET /orders/v1/slash             Orders:v1 /slash/ 10
        GET /orders/v1/slash/            Orders:v1 /slash/ 10
        GET /orders/v1/caf%C3%A9/1       Orders:v1 /café/{x} 10
        GET /orders/v1/caf%C3%A9         Orders:v1 -
        HEAD /orders/v1/items            Orders:v1 /items 10
        HEAD /orders/v1/head             Orders:v1 /head 10
        POST /orders/v1/all              Orders:v1 /all 10
        OPTIONS /orders/v1/all           Orders:v1 /all 10
        TRACE /orders/v1/all             Orders:v1 -
        CONNECT /orders/v1/all           Orders:v1 -
        PROPFIND /orders/v1/all          Orders:v1 -
        PROPFIND /orders/v1/all/dav      Orders:v1 /all/dav 10
        PATCH /orders/v1/all/dav         Orders:v1 /all/dav 10
        OPTIONS /orders/v1/items         Orders:v1 -
        GET /orders/v1/deep/1/2/3        Orders:v1 /deep/{a}/{b}/{c} 10
        GET /orders/v1/deep/1/2          Orders:v1 -
        GET /orders/v1/deep/1/2/3/4      Orders:v1 -
        GET /orders/v2                   Orders:v2 /* 10
        GET /orders/v2/a/b/c             Orders:v2 /* 10
        HEAD /orders/v2/a                Orders:v2 /* 10
        GET /orders/v3                   Orders:v1 -
        GET /ordersv1                    Root -
        GET /                            Root / 0
        POST /                           Root -
        GET /health                      Root /health 0
        GET /acme/files                  Root /{tenant}/files/* 0
        GET /acme/files/a/b              Root /{tenant}/files/* 0
        GET /acme                        Root -
        GET /wide                        Wide /* 5
        GET /wide/                       Wide /* 5
        GET /shared/a                    Shared1 /a 7
        POST /shared/a                   Shared2 /a 7
        PUT /shared/a                    Shared2 -
        GET /shared/b                    Shared2 /b 7
        GET /shared/q/one                Shared1 /{x}/one 7
        GET /shared/q/two                Shared2 /{y}/two 7
        GET /shared/q                    Shared1 -
        GET here.example/orders/only     Here /only 7
        GET here.example/orders/items    Here -
        GET here.example/orders/v1/items Here -
        GET here.example/health          Root /health 0
        GET [::1]/orders/only            Here /only 7
        GET ::1/orders/only              Here /only 7
        GET other.example/orders/items   Orders:v1 /items 7
    ";
    for row in rows.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let (method, rest) = row.split_once(' ').unwrap();
        let (target, expected) = rest.split_once(' ').unwrap();
        let (host, path) = target.split_at(target.find('/').unwrap());
        assert_eq!(elected(&tables, host, method, path), expected.trim(), "{row}");
    }
}

#[test]
fn an_encoded_spelling_meets_the_same_template() {
    let tables = build(&api("name = \"A\"\ncontext = \"/a:b\"", &["/{id} GET", "/items:export GET"])).unwrap();
    for (path, resource, context) in [
        ("/a:b/items:export", 1, "/a:b"),
        ("/a:b/items%3Aexport", 1, "/a:b"),
        ("/a%3Ab/items:export", 1, "/a%3Ab"),
        ("/a%3Ab/items%3Aexport/", 1, "/a%3Ab"),
        ("/a%3Ab/x%3Ay", 0, "/a%3Ab"),
    ] {
        let Resolution::Found(target) = tables.resolve("", &Method::GET, path) else { panic!("{path}") };
        assert_eq!((target.resource, &path[..target.context_len as usize]), (resource, context), "{path}");
    }
}

#[test]
fn a_parameter_is_never_empty_and_nothing_odd_panics() {
    let tables = build(&api("name = 'A'\ncontext = '/a'", &["/{x} GET", "/{x}/{y} GET"])).unwrap();
    for (path, expected) in
        [("/a//", "A -"), ("/a///", "A -"), ("/a//b", "A -"), ("", "-"), ("é", "-"), ("a", "-"), ("//", "-")]
    {
        assert_eq!(elected(&tables, "", "GET", path), expected, "{path:?}");
    }
}

#[test]
fn no_root_api_means_no_api() {
    let tables = build(&api("name = 'A'\ncontext = '/a/b'", &["/* GET"])).unwrap();
    for (path, expected) in [("/", "-"), ("/a", "-"), ("/a/", "-"), ("/a/c", "-"), ("/a/b", "A /* 4"), ("/a/bc", "-")] {
        assert_eq!(elected(&tables, "", "GET", path), expected, "{path}");
    }
}

/// Looks up a tier of the first API, its first resource, the application and its subscription.
const TIERED: &str = r#"
    key_managers = ["a", "b"]
    [[apis]]
    name = "A"
    context = "/a"
    upstream = ["http://one", "http://two/x"]
    tier = "API"
    key_managers = ["b", "a", "b"]
    resources = [{ path = "/x", tier = "RES" }, { path = "/y", methods = ["GET"], scopes = ["s"] }]
    [[apis]]
    name = "B"
    context = "/b"
    sandbox = "http://one"
    fault_format = "problem"
    resources = [{ path = "/x", tier = "RES" }]
    key_managers = ["a", "b"]
    [[applications]]
    name = "app"
    owner = "ada"
    tier = "APP"
    keys = [{ key_manager = "a", consumer_key = "k" }, { key_manager = "b", consumer_key = "k", key_type = "SANDBOX" }]
    [[applications]]
    name = "other"
    owner = "bob"
    [[subscriptions]]
    application = "app"
    api = "A"
    tier = "SUB"
    state = "ON_HOLD"
    [[subscriptions]]
    application = "other"
    api = "A"
    tier = "Unlimited"
"#;

fn tiered(api: &str, resource: &str, application: &str, subscription: &str) -> Snapshot {
    let names = [("API", api), ("RES", resource), ("APP", application), ("SUB", subscription)];
    build(&names.iter().fold(TIERED.to_owned(), |text, (from, to)| text.replace(from, to))).unwrap()
}

#[test]
fn rows_are_found_by_their_names() {
    let tables = tiered("Unlimited", "10KPerMin", "20PerMin", "Gold");
    assert_eq!(tables.generation, 7);
    let key = |key_type| Some(ConsumerKey { application: 0, key_type });
    assert_eq!(tables.consumer_key("a", "k"), key(KeyType::Production));
    assert_eq!(tables.consumer_key("b", "k"), key(KeyType::Sandbox));
    assert_eq!(tables.consumer_key("c", "k"), None);
    assert_eq!(tables.consumer_key("a", "K"), None);
    let held = tables.subscription(0, 0).unwrap();
    assert_eq!((held.state, &**held.tier_name), (SubscriptionState::OnHold, "Gold"));
    assert_eq!(tables.subscription(1, 0).unwrap().tier, None);
    assert!(tables.subscription(0, 1).is_none() && tables.subscription(9, 0).is_none());

    let [a, b] = &tables.apis[..] else { panic!("two APIs") };
    let hosts = |list: &[std::sync::Arc<Upstream>]| list.iter().map(|it| it.host.to_string()).collect::<Vec<_>>();
    assert_eq!(hosts(&a.upstreams.production), ["one", "two"]);
    assert_eq!(hosts(&a.upstreams.sandbox), ["one", "two"]);
    assert!(b.upstreams.production.is_empty());
    assert!(std::sync::Arc::ptr_eq(&a.upstreams.production[0], &b.upstreams.sandbox[0]));
    assert_eq!((a.fault_format, b.fault_format), (FaultFormat::Wso2, FaultFormat::Problem));
    assert_eq!(a.key_managers, b.key_managers);
    assert_ne!(a.key_managers.id, KeyManagerSet::of(&["a".into()]).id);
    assert_ne!(KeyManagerSet::of(&["ab".into(), "c".into()]).id, KeyManagerSet::of(&["a".into(), "bc".into()]).id);
    assert_eq!(KeyManagerSet::of(&[]).id, 0);
}

#[test]
fn tiers_limit_what_uses_them() {
    let tables = tiered("Unlimited", "10KPerMin", "20PerMin", "Gold");
    let minute = |limit| Quota::requests(limit, Window::Seconds(60));
    assert_eq!(tables.apis[0].tier, None);
    assert_eq!(tables.apis[0].resources[0].tier.as_ref().unwrap().quota, minute(10_000));
    assert_eq!(tables.apis[0].resources[1].tier, None);
    assert_eq!(tables.applications[0].tier.as_ref().unwrap().quota, minute(20));
    assert_eq!((&**tables.applications[1].tier_name, &tables.applications[1].tier), ("Unlimited", &None));
    assert_eq!(tables.subscription(0, 0).unwrap().tier.as_ref().unwrap().quota, minute(5_000));

    // An API's tier replaces those of its resources, and only those.
    let tables = tiered("50KPerMin", "10KPerMin", "Unlimited", "Unlimited");
    assert_eq!(tables.apis[0].tier.as_ref().unwrap().quota, minute(50_000));
    assert_eq!(tables.apis[0].resources[0].tier, None);
    assert!(tables.apis[1].resources[0].tier.is_some());
}

#[test]
fn wso2s_policies_are_built_in() {
    let quota = |kind, limit, window| Some(Quota { kind, ..Quota::requests(limit, window) });
    let (minute, day, month) = (Window::Seconds(60), Window::Seconds(86_400), Window::Months(1));
    let rows = [
        ("Gold", quota(QuotaKind::Requests, 5_000, minute), None),
        ("Silver", quota(QuotaKind::Requests, 2_000, minute), None),
        ("Bronze", quota(QuotaKind::Requests, 1_000, minute), None),
        ("Unauthenticated", quota(QuotaKind::Requests, 500, minute), None),
        ("DefaultSubscriptionless", quota(QuotaKind::Requests, 100_000, minute), None),
        ("Unlimited", None, None),
        ("AsyncGold", quota(QuotaKind::Events, 50_000, day), None),
        ("AsyncSilver", quota(QuotaKind::Events, 25_000, day), None),
        ("AsyncBronze", quota(QuotaKind::Events, 5_000, day), None),
        ("AsyncDefaultSubscriptionless", quota(QuotaKind::Events, 10_000, day), None),
        ("AsyncUnlimited", None, None),
        ("AsyncWHGold", quota(QuotaKind::Events, 10_000, month), None),
        ("AsyncWHSilver", quota(QuotaKind::Events, 5_000, month), None),
        ("AsyncWHBronze", quota(QuotaKind::Events, 1_000, month), None),
        ("AsyncWHUnlimited", None, None),
        ("AIGold", quota(QuotaKind::Tokens, 50_000, minute), quota(QuotaKind::Requests, 500, minute)),
        ("AISilver", quota(QuotaKind::Tokens, 10_000, minute), quota(QuotaKind::Requests, 100, minute)),
        ("AIBronze", quota(QuotaKind::Tokens, 1_000, minute), quota(QuotaKind::Requests, 10, minute)),
    ];
    for (name, first, also) in rows {
        let tables = tiered("Unlimited", "Unlimited", "Unlimited", name);
        let tier = tables.subscription(0, 0).unwrap().tier.as_ref();
        assert_eq!(tier.map(|tier| tier.quota), first, "{name}");
        assert_eq!(tier.and_then(|tier| tier.also), also, "{name}");
        assert!(tier.is_none_or(|tier| tier.stop_on_quota_reach && tier.burst.is_none()), "{name}");
    }
    // Elsewhere they are refused.
    let file = TIERED.replace("SUB", "Gold").replace("APP", "AsyncGold").replace("RES", "AIGold");
    let problems = build(&file.replace("API", "AsyncUnlimited")).unwrap_err();
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn tiers_count_what_they_say() {
    let built = |tier: &str| {
        let file = TIERED.replace("SUB", "Mine").replace("APP", "Unlimited").replace("RES", "Unlimited");
        build(&(file.replace("API", "Unlimited") + "\n[[tiers]]\nname = 'Mine'\n" + tier))
    };
    let quota = |kind, limit, window, algorithm| Quota { kind, limit, window, algorithm };
    let hour = Window::Seconds(3_600);
    let rows = [
        ("bytes = 7", quota(QuotaKind::Bytes, 7, hour, Algorithm::Fixed), None),
        ("bytes = '10MiB'\nalgorithm = 'sliding'", quota(QuotaKind::Bytes, 10 << 20, hour, Algorithm::Sliding), None),
        ("events = 70368744177664", quota(QuotaKind::Events, Quota::MOST, hour, Algorithm::Fixed), None),
        (
            "requests = 5\ntokens = 9\nalgorithm = 'gcra'",
            quota(QuotaKind::Tokens, 9, hour, Algorithm::Gcra),
            Some(quota(QuotaKind::Requests, 5, hour, Algorithm::Gcra)),
        ),
    ];
    for (tier, first, also) in rows {
        let tables = built(&format!("{tier}\nper = '1h'")).unwrap();
        let tier = tables.subscription(0, 0).unwrap().tier.as_ref().unwrap();
        assert_eq!((tier.quota, tier.also), (first, also));
    }
}

#[test]
fn configured_tiers_replace_built_in_ones() {
    let tiers = "
        [[tiers]]
        name = 'Gold'
        requests = 3
        per = '2mo'
        burst = { requests = 2, per = '10s' }
        stop_on_quota_reach = false
        [[tiers]]
        name = 'AsyncGold'
        requests = 2147483647
        per = '2d'
        level = 'subscription'
        [[tiers]]
        name = 'Unlimited'
        requests = 9
        per = '1h'
    ";
    let tables = build(
        &(TIERED.replace("SUB", "Gold").replace("APP", "Gold").replace("RES", "10KPerMin") + tiers)
            .replace("API", "Unlimited"),
    )
    .unwrap();
    let gold = tables.subscription(0, 0).unwrap().tier.as_ref().unwrap();
    assert_eq!(gold.quota, Quota::requests(3, Window::Months(2)));
    assert_eq!((gold.burst, gold.stop_on_quota_reach), (Some(Burst::new(2, 10_000)), false));
    assert_eq!(tables.applications[0].tier.as_ref().unwrap().limits, gold.limits);
    // `Unlimited` with a limit limits, and still leaves the resources' tiers in place.
    assert_eq!(tables.apis[0].tier.as_ref().unwrap().quota.limit, 9);
    assert_eq!(tables.apis[0].resources[0].tier.as_ref().unwrap().quota.limit, 10_000);
    assert_eq!(tables.subscription(1, 0).unwrap().tier.as_ref().unwrap().quota.limit, 9);
}

#[test]
fn a_condition_group_keeps_its_count_wherever_it_stands() {
    let group = |header: &str| {
        format!(
            "[[tiers.conditions]]\nwhen = [{{ header = '{header}', matches = 'a' }}]\nlimit = {{ requests = 1, per = '1h' }}\n"
        )
    };
    let counters = |headers: &[&str]| {
        let tier = "[[tiers]]\nname = 'Mine'\nrequests = 9\nper = '1h'\nlevel = 'advanced'\n";
        let file = TIERED.replace("SUB", "Unlimited").replace("APP", "Unlimited").replace("RES", "Mine");
        let groups: String = headers.iter().map(|header| group(header)).collect();
        let tables = build(&format!("{}\n{tier}{groups}", file.replace("API", "Unlimited"))).unwrap();
        let tier = tables.apis[0].resources[0].tier.clone().unwrap();
        tier.limits.advanced.as_deref().unwrap().groups.iter().map(|group| group.tier.counter).collect::<Vec<_>>()
    };
    let (two, three) = (counters(&["x-a", "x-b"]), counters(&["x-c", "x-b", "x-a"]));
    assert_eq!([two[0], two[1]], [three[2], three[1]]);
    assert!(two[0] != two[1] && !two.contains(&three[0]));
}

#[test]
fn counters_are_told_apart_by_subject_window_and_algorithm_alone() {
    let limits = |name: &str, limit, window| {
        let quota = Quota::requests(limit, window);
        std::sync::Arc::new(Limits {
            name: name.into(),
            quota,
            also: None,
            burst: None,
            stop_on_quota_reach: true,
            advanced: None,
        })
    };
    let gold = limits("Gold", 5, Window::Seconds(60));
    let counter = |limits: &std::sync::Arc<Limits>, subject| Tier::new(limits.clone(), subject).counter;
    let changed = |change: fn(&mut Limits)| {
        let mut changed = Limits::clone(&gold);
        change(&mut changed);
        std::sync::Arc::new(changed)
    };
    let (get, post) = ([Method::GET], [Method::POST]);
    let all = [
        counter(&gold, Subject::Api("a:b")),
        counter(&gold, Subject::Application("a:b")),
        counter(&gold, Subject::Subscription("a:b", "c")),
        counter(&gold, Subject::Subscription("a", "b:c")),
        counter(&gold, Subject::Resource("a", "/b", &get)),
        counter(&gold, Subject::Resource("a", "/b", &post)),
        counter(&gold, Subject::Resource("a", "/c", &get)),
        counter(&limits("Gold", 5, Window::Seconds(61)), Subject::Api("a:b")),
        counter(&limits("Gold", 5, Window::Months(60)), Subject::Api("a:b")),
        counter(&changed(|gold| gold.quota.algorithm = Algorithm::Gcra), Subject::Api("a:b")),
    ];
    let distinct: std::collections::HashSet<[u8; 16]> = all.into_iter().collect();
    assert_eq!(distinct.len(), all.len());

    let burst = Some(Burst::new(1, 1_000));
    let same = std::sync::Arc::new(Limits { burst, stop_on_quota_reach: false, ..Limits::clone(&gold) });
    assert_eq!(counter(&same, Subject::Api("a:b")), all[0]);
    // The limiter tells kinds apart: another beside one changes nothing for it.
    let beside = |gold: &mut Limits| {
        gold.also = Some(gold.quota);
        gold.quota.kind = QuotaKind::Bytes;
    };
    assert_eq!(counter(&changed(beside), Subject::Api("a:b")), all[0]);
    // Another tier of the same window goes on with what was used.
    assert_eq!(counter(&limits("Bronze", 1, Window::Seconds(60)), Subject::Api("a:b")), all[0]);
    let gcra = |limit| {
        let quota = Quota { algorithm: Algorithm::Gcra, ..Quota::requests(limit, Window::Seconds(60)) };
        counter(&std::sync::Arc::new(Limits { quota, ..Limits::clone(&gold) }), Subject::Api("a:b"))
    };
    assert_eq!(gcra(5), gcra(6));
}
