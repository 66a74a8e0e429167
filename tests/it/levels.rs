//! Every level at which a request may find no room, through the door: its code, its counter, and whom it leaves alone.

use crate::support::{Answer, Place, Request, Token, api, application, resource, subscription};

/// How each of `n` requests is answered: 200, or its code.
fn codes(place: &Place, n: usize, request: impl Fn(usize) -> Request) -> Vec<String> {
    let told = |answer: &Answer| match answer.status {
        200 => "200".to_owned(),
        _ => answer.json()["code"].as_str().unwrap_or("none").to_owned(),
    };
    (0..n).map(|n| told(&place.send(&request(n)))).collect()
}

fn of(app: &str, api: &str, application_tier: &str, tier: &str) -> String {
    application(app, app, application_tier, "") + &subscription(app, api, tier, "UNBLOCKED")
}

#[test]
fn whom_a_deny_condition_names_is_blocked() {
    let apis: String = [("Closed", "/closed"), ("Shut", "/shut"), ("Pair", "/pair")]
        .iter()
        .map(|(name, context)| {
            api(name, context, Some("v1"), "upstream = \"UP\"") + &resource("/a/{id}", "auth = \"optional\"")
        })
        .collect();
    let apps: String = ["barred", "paired"].iter().map(|app| of(app, "Orders:v1", "Unlimited", "Unlimited")).collect();
    let deny = "
[[subscriptions]]
application = \"paired\"
api = \"Pair:v1\"
tier = \"Unlimited\"
[[subscriptions]]
application = \"shop-web\"
api = \"Pair:v1\"
tier = \"Unlimited\"
[[deny]]
api = \"Closed:v1\"
[[deny]]
api = \"/shut/v1\"
[[deny]]
application = \"ada:barred\"
[[deny]]
application = \"eve:shop-web\"
[[deny]]
user = \"mallory\"
[[deny]]
subscription = { api = \"Pair:v1\", application = \"ada:paired\", key_type = \"PRODUCTION\" }
[[deny]]
subscription = { api = \"Orders:v1\", application = \"ada:paired\", key_type = \"SANDBOX\" }
[[deny]]
ip = \"203.0.113.7\"
[[deny]]
ip = \"2001:db8::/32\"
[[deny]]
ip_range = [\"198.51.100.10\", \"198.51.100.20\"]
";
    let place = Place::start(&(apis + &apps + deny));
    let item = "/orders/v1/items/{m}";
    let from = |address: &str| place.get(item, "shop-web").header("x-forwarded-for", address);
    for (name, request, denied) in [
        ("an API by its name", Request::get("/closed/v1/a/{m}"), true),
        ("an API by its context", Request::get("/shut/v1/a/{m}"), true),
        ("an API that is not named", Request::get("/pair/v1/a/{m}"), false),
        ("an application", place.get(item, "barred"), true),
        ("another owner's application of the same name", place.get(item, "shop-web"), false),
        ("a subscription", place.get("/pair/v1/a/{m}", "paired"), true),
        ("the same application elsewhere, by a key of the other type", place.get(item, "paired"), false),
        ("the same API by another application", place.get("/pair/v1/a/{m}", "shop-web"), false),
        ("an address", from("203.0.113.7"), true),
        ("an IPv4 address as an IPv6 one", from("::ffff:203.0.113.7"), true),
        ("the address beside it", from("203.0.113.8"), false),
        ("a network", from("2001:db8:1::9"), true),
        ("before a range", from("198.51.100.9"), false),
        ("the first of a range", from("198.51.100.10"), true),
        ("the last of a range", from("198.51.100.20"), true),
        ("after a range", from("198.51.100.21"), false),
    ] {
        let answer = place.send(&request);
        if denied {
            assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("900805")), "{name}: {answer:?}");
            assert_eq!(answer.json()["message"], "Message blocked", "{name}");
        } else {
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
        }
    }
    for (user, status) in [("mallory", 403), ("malloryx", 200)] {
        let token = Token::of(&place.idp, "shop-web").claim("sub", user).sign();
        assert_eq!(place.send(&Request::get(item).bearer(token)).status, status, "{user}");
    }
}

#[test]
fn a_denied_user_is_met_by_sub_where_another_claim_is_mapped_to_it() {
    let place = Place::with_key_manager("[[deny]]\nuser = \"mallory\"\n", "claim_mappings = { upn = \"sub\" }");
    for (upn, sub, status) in [("ann", "mallory", 403), ("mallory", "ann", 403), ("ann", "ann", 200)] {
        let token = Token::of(&place.idp, "shop-web").claim("sub", sub).claim("upn", upn).sign();
        assert_eq!(place.send(&Request::get("/orders/v1/items/{m}").bearer(token)).status, status, "{upn} {sub}");
    }
}

#[test]
fn an_inverted_deny_condition_blocks_everyone_else() {
    let place = Place::start("\n[[deny]]\nip_range = [\"203.0.113.1\", \"203.0.113.9\"]\ninvert = true\n");
    for (address, status) in [("203.0.113.1", 200), ("203.0.113.9", 200), ("203.0.113.10", 403), ("2001:db8::1", 403)] {
        let request = place.get("/orders/v1/items/{m}", "shop-web").header("x-forwarded-for", address);
        assert_eq!(place.send(&request).status, status, "{address}");
    }
}

/// Windows of a day, so that no test meets the end of one but at midnight.
const GROUPS: &str = "
[[tiers]]
name = \"Grouped\"
requests = 3
per = \"1d\"
level = \"advanced\"
[[tiers.conditions]]
when = [{ header = \"User-Agent\", matches = \"^curl/\" }, { ip_range = [\"203.0.113.1\", \"203.0.113.9\"], invert = true }]
limit = { requests = 1, per = \"1d\" }
[[tiers.conditions]]
when = [{ query = \"plan\", matches = \"^(trial|t r)$\" }]
limit = { requests = 2, per = \"1d\" }
[[tiers.conditions]]
when = [{ claim = \"country\", matches = \"^SE$\" }]
limit = { requests = 1, per = \"1d\" }
[[tiers]]
name = \"Each\"
requests = 2
per = \"1d\"
level = \"advanced\"
per_user = true
";

#[test]
fn the_first_condition_group_that_is_met_counts_on_its_own() {
    let apis = api("Grouped", "/grouped", None, "upstream = \"UP\"\nsubscription = \"none\"\ntier = \"Grouped\"")
        + &resource("/a/{id}", "tier = \"Each\"")
        + &api("Apart", "/apart", None, "upstream = \"UP\"\nsubscription = \"none\"")
        + &resource("/a/{id}", "tier = \"Grouped\"")
        + &resource("/b/{id}", "tier = \"Grouped\"");
    let place = Place::start(&(GROUPS.to_owned() + &apis));
    let call = |target: &str| place.get(target, "shop-web");
    let curl = |target: &str, from: &str| call(target).header("user-agent", "curl/8").header("x-forwarded-for", from);
    let country = |country: &str| {
        let token = Token::of(&place.idp, "shop-web").claim("country", country).sign();
        Request::get("/grouped/a/{m}").bearer(token)
    };
    let one = ["200", "900800", "900800"];
    assert_eq!(codes(&place, 3, |_| curl("/grouped/a/{m}", "198.51.100.1")), one);
    let trial = ["200", "200", "900800"];
    assert_eq!(
        codes(&place, 3, |n| call(&format!("/grouped/a/{{m}}?x=1&plan={}", ["trial", "t%20r", "t+r"][n]))),
        trial
    );
    assert_eq!(codes(&place, 3, |_| country("SE")), one);
    // The tier's own: another claim, an address within the inverted range, a query that only looks alike.
    let others = ["200", "200", "200", "900800"];
    let other = |n: usize| match n {
        0 => country("SEX"),
        1 => curl("/grouped/a/{m}", "203.0.113.9"),
        _ => call("/grouped/a/{m}?plan=trials"),
    };
    assert_eq!(codes(&place, 4, other), others);
    // Each resource has its own counters, of the group too.
    for target in ["/apart/a/{m}", "/apart/b/{m}"] {
        assert_eq!(codes(&place, 2, |_| curl(target, "198.51.100.1")), ["200", "900802"], "{target}");
        assert_eq!(codes(&place, 4, |_| call(target)), ["200", "200", "200", "900802"], "{target}");
    }
}

#[test]
fn an_advanced_tier_may_count_each_user() {
    let apis = api("Own", "/own", None, "upstream = \"UP\"\nsubscription = \"none\"\ntier = \"Each\"")
        + &resource("/a/{id}", "auth = \"optional\"");
    let place = Place::start(&(GROUPS.to_owned() + &apis));
    for user in ["alice", "bob"] {
        let token = Token::of(&place.idp, "shop-web").claim("sub", user).sign();
        let call = |_| Request::get("/own/a/{m}").bearer(&token);
        assert_eq!(codes(&place, 3, call), ["200", "200", "900800"], "{user}");
    }
    assert_eq!(codes(&place, 3, |_| Request::get("/own/a/{m}")), ["200", "200", "900800"], "the anonymous together");
}

#[test]
fn custom_rules_count_by_the_key_that_a_request_makes() {
    let rules = "
[[throttle.rules]]
name = \"address\"
key = \"$clientIp:$apiContext\"
matches = \"^203\\\\.0\\\\.113\\\\.\"
limit = { requests = 2, per = \"1d\" }
[[throttle.rules]]
name = \"networks\"
key = \"$clientIp\"
matches = \"^2001:db8:0:[17]:.*5$\"
limit = { requests = 2, per = \"1d\" }
[[throttle.rules]]
name = \"user and region\"
key = \"$userId:$customProperty.region:$appId\"
matches = \"^(ann|eve):\"
limit = { requests = 3, per = \"1d\" }
";
    let place = Place::start(rules);
    let from = |address: &str| place.get("/orders/v1/items/{m}", "shop-web").header("x-forwarded-for", address);
    assert_eq!(codes(&place, 3, |_| from("203.0.113.1")), ["200", "200", "900806"]);
    assert_eq!(codes(&place, 2, |_| from("::ffff:203.0.113.1")), ["900806"; 2], "the same address");
    assert_eq!(codes(&place, 3, |_| from("203.0.113.2")), ["200", "200", "900806"], "a key of its own");
    assert_eq!(codes(&place, 5, |_| from("198.51.100.1")), ["200"; 5], "no key that is counted");
    // Whoever has one IPv6 address has a /64 of them; which are counted is asked of the whole address.
    let one_64 = |n: usize| from(["2001:db8:0:1::5", "2001:db8:0:1:1:2:3:5", "2001:db8:0:1:ffff::a5"][n]);
    assert_eq!(codes(&place, 3, one_64), ["200", "200", "900806"]);
    assert_eq!(codes(&place, 3, |_| from("2001:db8:0:1:1:2:3:4")), ["200"; 3], "no key that is counted");
    assert_eq!(codes(&place, 3, |_| from("2001:db8:0:7::5")), ["200", "200", "900806"], "another /64");
    let by = |user: &str, region: &str| {
        let token = Token::of(&place.idp, "shop-web").claim("sub", user).claim("region", region).sign();
        Request::get("/orders/v1/items/{m}").bearer(token)
    };
    for (user, region) in [("ann", "north"), ("ann", "south"), ("eve", "north")] {
        assert_eq!(codes(&place, 4, |_| by(user, region)), ["200", "200", "200", "900806"], "{user} {region}");
    }
    let metrics = place.gate.metrics();
    assert!(metrics.contains("tollgate_throttled_total{level=\"custom\",tier=\"address\"} 4"), "{metrics}");
}

#[test]
fn rules_of_one_key_count_each_on_their_own() {
    // Both count what `few` counts: a request is one of each, never two of one.
    let rules = "
[[throttle.rules]]
name = \"all\"
key = \"$appId:$apiContext\"
limit = { requests = 100, per = \"1d\" }
[[throttle.rules]]
name = \"few\"
key = \"$appId:$apiContext\"
matches = \"^shop-web:\"
limit = { requests = 4, per = \"1d\" }
";
    let place = Place::start(rules);
    let call = |_| place.get("/orders/v1/items/{m}", "shop-web");
    assert_eq!(codes(&place, 5, call), ["200", "200", "200", "200", "900806"]);
}

#[test]
fn a_backend_limit_protects_each_environment() {
    let limited = "upstream = \"UP\"\n\
                   backend_limit = { production = { requests = 2, per = \"1d\" }, sandbox = { requests = 1, per = \"1d\" } }";
    let tables = api("Slow", "/slow", Some("v1"), limited)
        + &resource("/a/{id}", "")
        + &application("first", "first", "Unlimited", "")
        + &application("second", "second", "Unlimited", "")
        + &application("trier", "trier", "Unlimited", ", key_type = \"SANDBOX\"")
        + &["first", "second", "trier"].map(|app| subscription(app, "Slow:v1", "Gold", "UNBLOCKED")).concat();
    let place = Place::start(&tables);
    assert_eq!(codes(&place, 2, |n| place.get("/slow/v1/a/{m}", ["first", "second"][n])), ["200", "200"]);
    assert_eq!(codes(&place, 2, |_| place.get("/slow/v1/a/{m}", "trier")), ["200", "900801"]);
    let refused = place.send(&place.get("/slow/v1/a/{m}", "first"));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("900801")), "{refused:?}");
    assert_eq!(refused.json()["message"], "API Limit Reached");
    assert!(refused.header("retry-after").is_some_and(|it| it.parse::<u64>().is_ok_and(|it| it >= 1)), "{refused:?}");
    assert_eq!(refused.header("ratelimit"), None, "it is no quota of the caller's");
}

/// Level, the code of its quota, and of its burst.
const LEVELS: [(&str, &str, &str); 6] = [
    ("api", "900800", "900800"),
    ("resource", "900802", "900802"),
    ("subscription", "900804", "900807"),
    ("application", "900803", "900809"),
    ("custom", "900806", ""),
    ("backend", "900801", ""),
];

/// Whether a level has such limits: custom rules and backend limits have no bursts, and always stop.
fn has(level: &str, kind: &str, stop: bool) -> bool {
    !matches!(level, "custom" | "backend") || (kind == "quota" && stop)
}

#[test]
fn every_level_in_every_state_with_and_without_a_stop() {
    let mut tables = String::new();
    for (kind, lines) in [
        ("quota", "requests = 2\nper = \"1d\""),
        ("burst", "requests = 1000\nper = \"1d\"\nburst = { requests = 2, per = \"1d\" }"),
    ] {
        for stop in [true, false] {
            tables += &format!("\n[[tiers]]\nname = \"{kind}-{stop}\"\n{lines}\nstop_on_quota_reach = {stop}\n");
            for (level, ..) in LEVELS.into_iter().filter(|(level, ..)| has(level, kind, stop)) {
                let (name, tier) = (format!("{level}-{kind}-{stop}"), format!("{kind}-{stop}"));
                let at = |it: &str| if level == it { tier.as_str() } else { "Unlimited" };
                let limit = match level {
                    "backend" => "\nbackend_limit = { production = { requests = 2, per = \"1d\" } }",
                    _ => "",
                };
                let lines = format!("upstream = \"UP\"\ntier = \"{}\"{limit}", at("api"));
                tables += &api(&name, &format!("/{name}"), None, &lines);
                tables += &resource("/a/{id}", &format!("tier = \"{}\"", at("resource")));
                tables += &of(&name, &name, at("application"), at("subscription"));
            }
        }
    }
    let rule = "[[throttle.rules]]\nname = \"rule\"\nkey = \"$apiContext:$appId\"\nmatches = \"^/custom-\"\n\
                limit = { requests = 2, per = \"1d\" }\n";
    let place = Place::start(&(tables + "\n[throttle]\nheaders = true\nx_ratelimit = true\n" + rule));
    for (level, quota_code, burst_code) in LEVELS {
        for (kind, code) in [("quota", quota_code), ("burst", burst_code)] {
            for stop in [true, false].into_iter().filter(|stop| has(level, kind, *stop)) {
                let name = format!("{level}-{kind}-{stop}");
                let call = || place.get(&format!("/{name}/a/{{m}}"), &name);
                let marks = place.upstream.times(MARK);
                for n in 0..2 {
                    let answer = place.send(&call());
                    assert_eq!(answer.status, 200, "{name}: {answer:?}");
                    let left = if kind == "quota" { 1 - n } else { 999 - n };
                    assert_eq!(answer.header("x-ratelimit-remaining"), Some(&*left.to_string()), "{name}: {answer:?}");
                }
                assert_eq!(place.upstream.times(MARK), marks, "{name}");
                let over = || place.gate.metric("tollgate_over_quota_total", &[]);
                let before = over();
                let request = call();
                let answer = place.send(&request);
                assert_eq!(over() - before, f64::from(u8::from(!stop)), "{name}");
                if level == "backend" {
                    let told = (answer.status, answer.json()["code"].as_str().map(str::to_owned));
                    assert_eq!(told, (503, Some(code.to_owned())), "{name}: {answer:?}");
                    assert!(answer.header("retry-after").is_some() && answer.header("ratelimit").is_none(), "{name}");
                } else if stop {
                    let told = (answer.status, answer.json()["code"].as_str().map(str::to_owned));
                    assert_eq!(told, (429, Some(code.to_owned())), "{name}: {answer:?}");
                    assert!(answer.json()["nextAccessTime"].is_string(), "{name}: {answer:?}");
                    assert!(answer.header("retry-after").is_some() && answer.header("ratelimit").is_some(), "{name}");
                    assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"), "{name}: {answer:?}");
                    assert!(answer.header("x-ratelimit-reset").is_some(), "{name}: {answer:?}");
                } else {
                    assert_eq!(answer.status, 200, "{name}: {answer:?}");
                    assert_eq!(place.upstream.times(MARK), marks + 1, "{name}: the upstream is told");
                    let line = place.gate.access_line(&request.mark);
                    assert_eq!(line.map(|line| line["over_quota"].clone()), Some(true.into()), "{name}");
                }
            }
        }
    }
}

/// What upstreams are told where a limit that does not stop was beyond its quota.
const MARK: &str = "x-auth-over-quota: true";
