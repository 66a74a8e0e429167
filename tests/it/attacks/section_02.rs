//! 2: Claims.

use serde_json::{Value, json};

use super::{Section, bring, run_section, strict};
use crate::support::{Case, Expect, Request, Token, World, keys, now};

pub(super) const SECTION: Section = Section {
    cases,
    tests: &[
        ("C05", "tokens::a_cached_token_ends_at_exp"),
        ("C10", "cli::strict_fails_on_an_open_audience"),
        ("C16", "claims::a_name_with_dots_is_a_member_before_it_is_a_path"),
        ("C17", "tokens::claims_become_safe_header_values"),
        ("C18", "claims::required_claims_are_whole_and_exact"),
        ("C19", "claims::a_rule_that_would_ask_nothing_is_refused"),
        ("C20", "claims::required_claims_are_whole_and_exact"),
    ],
    waits: &[],
};

#[test]
fn claims() {
    run_section(&SECTION);
}

fn cases(world: &'static World) -> Vec<Case> {
    let mut all = times(world);
    all.extend(issuers(world));
    all.extend(audiences(world));
    all.extend(types(world));
    all.extend(scopes(world));
    all.extend(sign_ins(world));
    all
}

fn refused(name: &str, token: &Token) -> Case {
    bring(name, Expect::T401, token.sign())
}

fn passes(name: &str, token: &Token) -> Case {
    bring(name, Expect::Pass, token.sign())
}

fn times(world: &World) -> Vec<Case> {
    let token = || world.token();
    let raw_exp = |exp: &str| {
        let text = token().without("exp").claims_text();
        let payload = format!(r#"{{"exp":{exp},{}"#, text.trim_start_matches('{'));
        bring(format!("C04 exp {exp}"), Expect::T401, token().raw_payload(payload.as_bytes()))
    };
    let mut all = vec![
        refused("C01 exp string", &token().claim("exp", "9999999999")),
        refused("C01 exp never", &token().claim("exp", "never")),
        refused("C02 nbf string", &token().claim("nbf", "99999999999")),
        refused("C02 nbf string in the past", &token().claim("nbf", "1")),
        refused("C03 exp missing", &token().without("exp")),
        refused("C03 exp null", &token().claim("exp", Value::Null)),
        refused("C04 exp past the leeway", &token().claim("exp", now() - 40)),
        passes("C04 exp within the leeway", &token().claim("exp", now() - 10)),
        refused("C04 exp a float in the past", &token().claim("exp", 1.7e9)),
        refused("C06 iat in the future", &token().claim("iat", now() + 120)),
        passes("C06 iat within the leeway", &token().claim("iat", now() + 10)),
        refused("C06 too long a life", &strict(world).claim("exp", now() + 7200)),
    ];
    all.extend(["-1", "0", "true", "[]", "{}", r#""NaN""#, "NaN", "-1e308", "\"\""].map(raw_exp));
    // Far beyond any date: refused or taken as "no end", never an overflow into the past or a panic.
    for exp in ["1e308", "18446744073709551616", "9223372036854775808"] {
        let text = token().without("exp").claims_text();
        let payload = format!(r#"{{"exp":{exp},{}"#, text.trim_start_matches('{'));
        let token = token().raw_payload(payload.as_bytes());
        all.push(Case::new(format!("C04 exp {exp}"), Expect::Either, move || {
            Request::get("/orders/v1/items/{m}").bearer(&token)
        }));
    }
    all
}

fn issuers(world: &World) -> Vec<Case> {
    let issuer = world.idp.issuer();
    let spellings = [
        format!("{issuer}/"),
        issuer.replace("http:", "https:"),
        issuer.replace("shop", "Shop"),
        issuer.replace("shop", "%73hop"),
        format!("{issuer}.evil.example"),
        format!(" {issuer}"),
        issuer.trim_end_matches("/realms/shop").to_owned(),
        String::new(),
    ];
    let mut all: Vec<Case> =
        spellings.iter().map(|iss| refused("C07 iss", &world.token().claim("iss", iss.as_str()))).collect();
    all.push(refused("C07 iss a list", &world.token().claim("iss", json!([issuer]))));
    all.push(refused("C07 no iss", &world.token().without("iss")));
    let unknown = world.token().claim("iss", "https://unknown.example.com").sign();
    all.push(Case::new("C08 unknown issuer, optional auth", Expect::T401, move || {
        Request::get("/orders/v1/maybe/{m}").bearer(&unknown)
    }));
    all
}

fn audiences(world: &World) -> Vec<Case> {
    let with = |aud: Value| world.token().claim("aud", aud);
    vec![
        passes("C09 aud in a list", &with(json!(["x", "orders-api"]))),
        refused("C09 aud in words", &with(json!("x orders-api"))),
        refused("C09 aud list of words", &with(json!(["x orders-api"]))),
        refused("C09 aud empty", &with(json!([]))),
        refused("C09 aud object", &with(json!({"orders-api": true}))),
        refused("C09 aud number", &with(json!(1))),
        refused("C09 aud mixed list", &with(json!(["orders-api", 1]))),
        refused("C09 aud missing", &world.token().without("aud")),
        refused("C09 aud prefix", &with(json!("orders-api-2"))),
        refused("C09 aud case", &with(json!("Orders-API"))),
    ]
}

fn types(world: &World) -> Vec<Case> {
    let typ = |typ: &str| Token::of(&world.strict, "shop-web").header("typ", typ);
    vec![
        refused("C11 typ missing", &Token::of(&world.strict, "shop-web")),
        refused("C11 typ JWT", &typ("JWT")),
        refused("C11 typ of an ID token", &typ("id_token")),
        passes("C11 typ with application/", &typ("application/at+jwt")),
        passes("C11 typ upper case", &typ("AT+JWT")),
        passes("C11 lax profile takes JWT", &world.token().header("typ", "JWT")),
        refused("C11 typ number", &world.token().header("typ", 1)),
        refused("C12 an ID token", &Token::of(&world.strict, "shop-web").claim("nonce", "n").claim("aud", "shop-web")),
        refused("C12 an ID token without a typ", &world.token().claim("at_hash", "x")),
        refused("C12 Keycloak's ID token", &world.token().claim("typ", "ID")),
        refused("C12 a refresh token", &world.token().claim("token_type", "refresh_token")),
        refused("C13 a logout token without a typ", &world.token().claim("events", json!({}))),
        refused("C13 logout token", &world.token().header("typ", "logout+jwt")),
        refused("C13 event token", &world.token().header("typ", "secevent+jwt")),
        refused("C13 DPoP proof", &world.token().header("typ", "dpop+jwt").key(&keys().es256, "es256")),
    ]
}

fn scopes(world: &World) -> Vec<Case> {
    let scope = |scope: Value| world.token().claim("scope", scope);
    let needs = |name: &str, token: &Token| bring(name, Expect::s403("orders:read"), token.sign());
    let without = || world.token().without("scope");
    let mut all = vec![
        passes("C14 words", &scope(json!("x orders:read"))),
        passes("C14 list", &scope(json!(["x", "orders:read"]))),
        passes("C14 scp words", &without().claim("scp", "x orders:read")),
        passes("C14 scp list", &without().claim("scp", json!(["orders:read"]))),
        passes("C14 two spaces", &scope(json!("x  orders:read"))),
        needs("C14 object", &scope(json!({"orders:read": true}))),
        needs("C14 number", &scope(json!(1))),
        needs("C14 no scope", &without()),
        needs("C15 longer", &scope(json!("orders:readwrite"))),
        needs("C15 below", &scope(json!("orders:read:all"))),
        needs("C15 case", &scope(json!("Orders:read orders:Read"))),
        needs("C15 shorter", &scope(json!("orders:rea orders"))),
    ];
    let other = world.bearer("another-client");
    all.push(Case::new("C22 another client's token", Expect::NOT_SUBSCRIBED, move || {
        Request::get("/orders/v1/items/{m}").bearer(&other)
    }));
    all.push(bring("C22 azp beside client_id", Expect::Pass, world.token().claim("azp", "never-heard-of").sign()));
    all.push(bring(
        "C22 azp alone",
        Expect::NOT_SUBSCRIBED,
        world.token().without("client_id").claim("azp", "never-heard-of").sign(),
    ));
    all
}

/// Resources that ask for `acr` gold or urn:silver, for a sign-in of the last 5 minutes, and for both.
fn sign_ins(world: &'static World) -> Vec<Case> {
    let case = |name: &str, expect: Expect, target: &'static str, token: Token| {
        let token = token.sign();
        Case::new(format!("C21 {name}"), expect, move || Request::get(target).bearer(&token))
    };
    const GOLD: &str = "/orders/v1/gold/{m}";
    const FRESH: &str = "/orders/v1/fresh/{m}";
    const BOTH: &str = "/orders/v1/both/{m}";
    let another = || Expect::sign_in("gold urn:silver", "");
    let fresher = || Expect::sign_in("", "300");
    let both = || Expect::sign_in("gold", "3600");
    let token = || world.token();
    let acr = |acr: Value| token().claim("acr", acr);
    let at = |at: Value| token().claim("auth_time", at);
    let mut all = vec![
        case("no acr", another(), GOLD, token()),
        case("acr", Expect::Pass, GOLD, acr(json!("gold"))),
        case("the other acr", Expect::Pass, GOLD, acr(json!("urn:silver"))),
        case("no auth_time", fresher(), FRESH, token()),
        case("signed in now", Expect::Pass, FRESH, at(json!(now()))),
        case("signed in a while ago", Expect::Pass, FRESH, at(json!(now() - 200))),
        case("signed in as a float", Expect::Pass, FRESH, at(json!(now() as f64 - 200.5))),
        case("signed in too long ago", fresher(), FRESH, at(json!(now() - 301))),
        case("iat is no sign-in", fresher(), FRESH, token().claim("iat", now())),
        case("both", Expect::Pass, BOTH, acr(json!("gold")).claim("auth_time", now() - 1000)),
        case("both, other acr", both(), BOTH, acr(json!("urn:silver")).claim("auth_time", now())),
        case("both, too long ago", both(), BOTH, acr(json!("gold")).claim("auth_time", now() - 4000)),
        case("both, no acr", both(), BOTH, at(json!(now()))),
        case("not asked for", Expect::Pass, "/orders/v1/plain/{m}", acr(json!(["x"])).claim("auth_time", "x")),
    ];
    let mut answer = world.opaque.told("shop-web");
    world.opaque.say("op_never_signed_in", &answer);
    (answer["acr"], answer["auth_time"]) = (json!("gold"), json!(now() - 60));
    world.opaque.say("op_signed_in_with_gold", &answer);
    for (token, gold, fresh) in
        [("op_never_signed_in", another(), fresher()), ("op_signed_in_with_gold", Expect::Pass, Expect::Pass)]
    {
        all.push(Case::new("C21 opaque, acr", gold, move || Request::get(GOLD).bearer(token)));
        all.push(Case::new("C21 opaque, auth_time", fresh, move || Request::get(FRESH).bearer(token)));
    }
    for wrong in [json!("Gold"), json!("gol"), json!("gold urn:silver"), json!(["gold"]), json!(null), json!("")] {
        all.push(case("acr of another form", another(), GOLD, acr(wrong)));
    }
    for wrong in [json!(now().to_string()), json!(0), json!(-1), json!(null), json!(now() + 3600), json!(1e300)] {
        all.push(case("auth_time of another form", fresher(), FRESH, at(wrong)));
    }
    all
}
