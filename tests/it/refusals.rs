//! Every refusal of the design's table, over both protocols, in both body formats and as gRPC says it.

use crate::support::{
    BOTH, Case, Challenge, Expect, Form, Request, Token, Via, World, block_on, challenge_of, check_all, now, world,
};

const ITEM: &str = "/orders/v1/items/{m}";
const PLAIN: &str = "/orders/v1/plain/{m}";

#[test]
fn every_refusal_in_wso2_form() {
    table(Form::Wso2);
}

#[test]
fn every_refusal_in_problem_form() {
    table(Form::Problem);
}

#[test]
fn every_refusal_to_grpc() {
    table(Form::Grpc);
}

fn table(form: Form) {
    let world = world(form);
    exhaust(world);
    let mut cases = credentials(world);
    cases.extend(subscriptions(world));
    cases.extend(resources(world, form));
    cases.extend(throttles(world));
    cases.extend(upstreams(world));
    check_all(&world.gate, &world.backends(), form, &cases);
}

fn get(target: &'static str, token: &Token) -> impl Fn() -> Request + Send + Sync + 'static {
    let token = token.clone();
    move || Request::get(target).bearer(token.sign())
}

fn credentials(world: &'static World) -> Vec<Case> {
    let token = world.token();
    let good = token.sign();
    let other = good.clone();
    let ended = token.clone().claim("exp", now() - 120);
    vec![
        Case::new("no credential", Expect::M401, || Request::get(ITEM)),
        Case::new("bearer with nothing after it", Expect::M401, || {
            Request::get(ITEM).header("authorization", "Bearer ")
        }),
        Case::new("garbage", Expect::T401, || Request::get(ITEM).bearer("garbage")),
        Case::new("opaque token", Expect::T401, || Request::get(ITEM).bearer("0123456789abcdef0123456789abcdef")),
        Case::new("expired", Expect::T401, get(ITEM, &ended)),
        Case::new("not yet valid", Expect::T401, get(ITEM, &token.clone().claim("nbf", now() + 120))),
        Case::new("unknown issuer", Expect::T401, get(ITEM, &token.clone().claim("iss", "https://evil.example.com"))),
        Case::new(
            "an application's own",
            Expect::WRONG_LEVEL,
            get("/orders/v1/person/{m}", &token.clone().without("sub")),
        ),
        Case::new("audience of another", Expect::T401, get(ITEM, &token.clone().claim("aud", "billing"))),
        Case::new(
            "bound to a key (jkt)",
            Expect::T401,
            get(ITEM, &token.clone().claim("cnf", serde_json::json!({"jkt": "x"}))),
        ),
        Case::new(
            "bound by an unknown method",
            Expect::T401,
            get(ITEM, &token.claim("cnf", serde_json::json!({"foo": 1}))),
        ),
        Case::new("two Authorization fields", Expect::R400, move || Request::get(ITEM).bearer(&good).bearer(&good)),
        Case::new("two enabled places", Expect::R400, move || {
            Request::get(&format!("/query/v1/items/{{m}}?access_token={other}")).bearer(&other)
        }),
    ]
}

fn subscriptions(world: &'static World) -> Vec<Case> {
    let case = |client: &'static str, expect| {
        let token = world.bearer(client);
        Case::new(format!("subscription of {client}"), expect, move || Request::get(ITEM).bearer(&token))
    };
    let sandbox = world.bearer("shop-sandbox");
    vec![
        case("app-blocked", Expect::BLOCKED),
        case("app-prod-blocked", Expect::BLOCKED),
        case("app-on-hold", Expect::INACTIVE),
        case("app-rejected", Expect::INACTIVE),
        case("app-unsubscribed", Expect::NOT_SUBSCRIBED),
        case("never-heard-of", Expect::NOT_SUBSCRIBED),
        Case::new(
            "no consumer key in the token",
            Expect::NOT_SUBSCRIBED,
            get(ITEM, &world.token().without("client_id")),
        ),
        Case::new("no upstream for the key type", Expect::T401, move || {
            Request::get("/prodonly/v1/items/{m}").bearer(&sandbox)
        }),
    ]
}

fn resources(world: &'static World, form: Form) -> Vec<Case> {
    let token = world.token();
    let reader = token.clone().claim("scope", "orders:read");
    let reads = reader.sign();
    let write = move || Request::post(ITEM).bearer(&reads);
    let special = Expect::refused(403, "900914", Challenge::Absent, "7");
    let mut cases = vec![
        Case::new("scope of the verb", Expect::s403("orders:write"), write),
        Case::new("one of two scopes", Expect::s403("a b"), get("/orders/v1/any/{m}", &reader)),
        Case::new(
            "both of two scopes",
            Expect::s403("a b"),
            get("/orders/v1/all/{m}", &reader.clone().claim("scope", "a")),
        ),
        Case::new("no scopes at all", Expect::s403("orders:read"), get(ITEM, &reader.without("scope"))),
        Case::new("another sign-in", Expect::sign_in("gold urn:silver", ""), get("/orders/v1/gold/{m}", &token)),
        Case::new("a fresher sign-in", Expect::sign_in("", "300"), get("/orders/v1/fresh/{m}", &token)),
        Case::new("API's audience", special, get("/special/v1/items/{m}", &token)),
        Case::new("no template", Expect::NO_RESOURCE, get("/orders/v1/nothing/here/{m}", &token)),
        Case::new("no template, without credential", Expect::NO_RESOURCE, || {
            Request::get("/orders/v1/nothing/here/{m}")
        }),
        Case::new("no API", Expect::NO_API, get("/nowhere/{m}", &token)),
        Case::new("no API of that version", Expect::NO_API, get("/orders/v9/items/{m}", &token)),
        Case::new("API at another host", Expect::NO_API, get("/hosted/v1/items/{m}", &token)),
        Case::new("dot segment", Expect::BAD, get("/orders/v1/plain/../items/{m}", &token)),
    ];
    if form != Form::Grpc {
        // gRPC is always POST, which these templates know.
        let deletes = token.sign();
        cases.push(Case::new("no verb", Expect::NO_RESOURCE, move || Request::new("DELETE", ITEM).bearer(&deletes)));
    }
    cases
}

/// Uses up every tier that the throttle cases meet.
fn exhaust(world: &'static World) {
    block_on(async {
        for (target, client) in THROTTLED {
            let request = Request::get(target).bearer(world.bearer(client));
            world.gate.send(Via::H1, &request).await;
        }
    });
}

const THROTTLED: [(&str, &str); 4] = [
    ("/tinyapi/v1/items/{m}", "shop-web"),
    ("/tinyresource/v1/items/{m}", "shop-web"),
    ("/orders/v1/plain/{m}", "app-tiny-subscription"),
    ("/orders/v1/plain/{m}", "app-tiny"),
];

fn throttles(world: &'static World) -> Vec<Case> {
    let codes = ["900800", "900802", "900804", "900803"];
    let cases = THROTTLED.iter().zip(codes).map(|((target, client), code)| {
        let token = world.bearer(client);
        Case::new(format!("no room, {code}"), Expect::throttled(code), move || Request::get(target).bearer(&token))
    });
    cases.collect()
}

fn upstreams(world: &'static World) -> Vec<Case> {
    let token = world.token();
    let down = Token::of(&world.down, "shop-web");
    let scripted = |script: &'static str| {
        let token = token.sign();
        move || Request::get(PLAIN).bearer(&token).script(script)
    };
    let (big, big_too) = (token.sign(), token.sign());
    let too_large = Expect::refused(413, "413", Challenge::Absent, "8");
    vec![
        Case::new("provider down", Expect::UNAVAILABLE, get(ITEM, &down)),
        Case::new("upstream refuses", Expect::failed(502, "101503", "14"), get("/dead/v1/items/{m}", &token)),
        Case::new("upstream resets", Expect::failed(502, "101503", "14"), scripted("reset")),
        Case::new("upstream speaks nonsense", Expect::failed(502, "101503", "14"), scripted("garbage")),
        Case::new("upstream takes too long", Expect::failed(504, "101504", "4"), scripted("slow:600000")),
        // Over HTTP/1.1 the head alone is sent: a gate that closes with bytes unread may reset its own answer.
        Case::new("body too large", too_large.clone(), move || {
            Request::post(PLAIN).bearer(&big).header("content-length", "2097152")
        })
        .only(&[Via::H1]),
        Case::new("body too large", too_large, move || {
            Request::post(PLAIN).bearer(&big_too).header("content-length", "2097152").body(vec![b'x'; 2 << 20])
        })
        .only(&[Via::H2]),
    ]
}

#[test]
fn a_429_says_when_to_come_back() {
    let world = world(Form::Wso2);
    exhaust(world);
    let request = Request::get("/orders/v1/plain/{m}").bearer(world.bearer("app-tiny-subscription"));
    for via in BOTH {
        let answer = block_on(world.gate.send(*via, &request));
        assert_eq!(answer.status, 429, "{answer:?}");
        assert_eq!(answer.header("ratelimit-policy"), Some("\"Tiny\";q=1;w=86400"));
        let limit = answer.header("ratelimit").unwrap_or_default();
        assert!(limit.starts_with("\"Tiny\";r=0;t="), "{limit}");
        let reset: u64 = limit.rsplit('=').next().and_then(|t| t.parse().ok()).unwrap();
        let retry: u64 = answer.header("retry-after").and_then(|v| v.parse().ok()).unwrap();
        assert!((1..=86_400).contains(&retry) && retry.abs_diff(reset) <= 1, "{retry} {reset}");
        let next = answer.json()["nextAccessTime"].as_str().unwrap_or_default().to_owned();
        // WSO2's form: 2026-Jan-31 10:00:00+0000 UTC
        assert!(next.ends_with("00:00:00+0000 UTC") && next.len() == 29, "{next}");
    }
}

#[test]
fn an_api_chooses_its_own_form() {
    let world = world(Form::Wso2);
    let case = Case::new("form of the API", Expect::M401, || Request::get("/other/v1/items/{m}"));
    check_all(&world.gate, &world.backends(), Form::Problem, &[case]);
}

#[test]
fn every_pass_that_borders_on_a_refusal() {
    let world = world(Form::Wso2);
    let token = world.token();
    let pass = |name: &str, target: &'static str, token: Token| Case::new(name, Expect::Pass, get(target, &token));
    let client = |client: &'static str| Token::of(&world.idp, client);
    let text = token.sign();
    let mut cases = vec![
        pass("scope", ITEM, token.clone()),
        pass("any of two scopes", "/orders/v1/any/{m}", token.clone().claim("scope", "b")),
        pass("all of two scopes", "/orders/v1/all/{m}", token.clone().claim("scope", "b x a")),
        pass("authenticated is enough", PLAIN, token.clone().without("scope")),
        pass("tier update pending", ITEM, client("app-tier-pending")),
        pass("delete pending", ITEM, client("app-delete-pending")),
        pass("prod-only blocked, sandbox key", ITEM, client("app-prod-blocked-sandbox")),
        pass("no subscription needed", "/bare/v1/items/{m}", client("never-heard-of")),
        pass(
            "API's audience",
            "/special/v1/items/{m}",
            token.clone().claim("aud", serde_json::json!(["orders-api", "special-api"])),
        ),
        pass("within the leeway", ITEM, token.claim("exp", now() - 5)),
        Case::new("auth none, no token", Expect::Pass, || Request::get("/orders/v1/public/{m}")),
        Case::new("auth none, bad token", Expect::Pass, || Request::get("/orders/v1/public/{m}").bearer("bad")),
        Case::new("auth optional, no token", Expect::Pass, || Request::get("/orders/v1/maybe/{m}")),
        Case::new("token in the query", Expect::Pass, move || {
            Request::get(&format!("/query/v1/items/{{m}}?access_token={text}"))
        }),
        Case::new("at the API's host", Expect::Pass, get("/hosted/v1/items/{m}", &world.token())),
    ];
    cases.last_mut().unwrap().build = {
        let token = world.bearer("shop-web");
        Box::new(move || Request::get("/hosted/v1/items/{m}").bearer(&token).host("ONLY.example.com.:8080"))
    };
    check_all(&world.gate, &world.backends(), Form::Wso2, &cases);
}

#[test]
fn a_bad_optional_token_is_refused() {
    let world = world(Form::Wso2);
    let case =
        Case::new("auth optional, bad token", Expect::T401, || Request::get("/orders/v1/maybe/{m}").bearer("a.b.c"));
    check_all(&world.gate, &world.backends(), Form::Wso2, &[case]);
}

#[test]
fn the_challenge_names_only_the_realm_without_credential() {
    let answer = block_on(world(Form::Wso2).gate.send(Via::H1, &Request::get(ITEM)));
    let (scheme, parameters) = challenge_of(answer.header("www-authenticate").unwrap_or_default());
    assert_eq!((scheme.as_str(), parameters.len()), ("Bearer", 1), "{parameters:?}");
}
