//! Tokens: every algorithm, the cache, claims that become header values, two key managers with one gate.

use crate::support::{
    BOTH, Backend, Case, Config, Expect, Form, Gate, Idp, Request, Token, Via, b64, block_on, check_all, hs256,
    key_manager, keys, now, unique, world,
};

#[test]
fn every_algorithm_passes() {
    let world = world(Form::Wso2);
    let all = keys();
    let mut cases = Vec::new();
    for (key, kid, algorithms) in [
        (&all.rsa, "rsa", &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"][..]),
        (&all.es256, "es256", &["ES256"]),
        (&all.es384, "es384", &["ES384"]),
        (&all.es512, "es512", &["ES512"]),
        (&all.ed, "ed", &["EdDSA"]),
    ] {
        for algorithm in algorithms {
            let token = world.token().key(key, kid).header("alg", *algorithm);
            let (good, bad) = (token.sign(), token.claim("sub", "mallory").sign());
            // The signature of one over the claims of the other.
            let (head, _) = bad.rsplit_once('.').unwrap();
            let mixed = format!("{head}.{}", good.rsplit('.').next().unwrap());
            let case = |name: String, expect, token: String| {
                Case::new(name, expect, move || Request::get("/orders/v1/items/{m}").bearer(&token))
            };
            cases.push(case((*algorithm).to_owned(), Expect::Pass, good));
            cases.push(case(format!("{algorithm} over other claims"), Expect::T401, mixed));
        }
    }
    check_all(&world.gate, &world.backends(), world.form, &cases);
}

#[test]
fn a_cached_token_ends_at_exp() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let mut config = Config::orders(&idp, &upstream.url());
    config.rest = config.rest.replacen("audience = [\"orders-api\"]", "audience = [\"orders-api\"]\nleeway = \"0\"", 1);
    let gate = Gate::start(|ports| config.text(ports));
    let end = now() + 3;
    let token = Token::of(&idp, "shop-web").claim("exp", end).sign();
    let call = || {
        [Via::H1, Via::H2, Via::H1]
            .map(|via| block_on(gate.send(via, &Request::get("/orders/v1/items/{m}").bearer(&token))).status)
    };
    let (statuses, before) = (call(), now());
    assert!(before >= end || statuses == [200; 3], "{statuses:?}");
    gate.wait_for("the end of the token", || now() > end);
    assert_eq!(call(), [401; 3]);
}

#[test]
fn what_is_cached_are_facts_of_the_token_not_the_verdict() {
    let world = world(Form::Wso2);
    let token = world.token().claim("scope", "orders:read").sign();
    let call = |method: &str, target: &str| {
        block_on(world.gate.send(Via::H1, &Request::new(method, target).bearer(&token))).status
    };
    assert_eq!(call("GET", "/orders/v1/items/{m}"), 200);
    assert_eq!(call("POST", "/orders/v1/items/{m}"), 403);
    assert_eq!(call("GET", "/special/v1/items/{m}"), 403);
    assert_eq!(call("GET", "/second/v1/items/{m}"), 401);
    assert_eq!(call("GET", "/orders/v1/items/{m}"), 200);
    assert!(world.gate.metric("tollgate_cache_lookups_total", &["outcome=\"hit\""]) >= 1.0, "{}", world.gate.metrics());
}

#[test]
fn key_managers_of_an_api_are_its_only_ones() {
    let world = world(Form::Wso2);
    let foreign = world.bearer("shop-web");
    let own = Token::of(&world.second, "shop-web").key(&keys().es256_other, "es256").sign();
    let cases = [
        Case::new("another's", Expect::T401, move || Request::get("/second/v1/items/{m}").bearer(&foreign)),
        Case::new("its own", Expect::Pass, move || Request::get("/second/v1/items/{m}").bearer(&own)),
    ];
    check_all(&world.gate, &world.backends(), world.form, &cases);
}

#[test]
fn claims_become_safe_header_values() {
    let world = world(Form::Wso2);
    let long = "x".repeat(8 << 10);
    // What arrives of a claim, exactly; one that is too long for a field arrives not at all.
    let rows: [(&str, &[&str]); 8] = [
        ("a\r\nx-evil: 1", &["a%0D%0Ax-evil:%201"]),
        ("a\u{0}b", &["a%00b"]),
        ("Åse", &["%C3%85se"]),
        ("a\tb", &["a%09b"]),
        ("", &[""]),
        (" a ", &["%20a%20"]),
        ("\u{7f}", &["%7F"]),
        (&long, &[]),
    ];
    for (value, arrives) in rows {
        let signed = world.token().claim("sub", value).claim("email", value).sign();
        let opaque = format!("op_{}", unique());
        let mut told = world.opaque.told("shop-web");
        (told["sub"], told["email"]) = (value.into(), value.into());
        world.opaque.say(&opaque, &told);
        for (token, via) in [&signed, &opaque].into_iter().flat_map(|token| BOTH.iter().map(move |via| (token, *via))) {
            let request = Request::get("/orders/v1/items/{m}").bearer(token).header("x-auth-email", "forged");
            let answer = block_on(world.gate.send(via, &request));
            assert_eq!(answer.status, 200, "{via:?} {value:?} {answer:?}");
            assert_eq!(answer.forwarded_field("x-auth-subject"), arrives, "{via:?} {value:?}");
            assert_eq!(answer.forwarded_field("x-auth-email"), arrives, "{via:?} {value:?}");
            let head = answer.forwarded();
            assert!(!head.to_ascii_lowercase().contains("\r\nx-evil"), "{via:?} {value:?} {head}");
        }
    }
    // In a token it is longer than a head may be.
    let huge = world.token().claim("sub", "x".repeat(100 << 10)).sign();
    for via in BOTH {
        let request = Request::get("/orders/v1/items/{m}").bearer(&huge);
        let answer = block_on(world.gate.send(*via, &request));
        assert!(matches!(answer.status, 0 | 431), "{via:?} {}", answer.status);
        assert!(!world.upstream.saw(&request.mark), "{via:?}");
    }
}

#[test]
fn one_issuer_shared_by_two_key_managers_is_told_by_audience() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let two = key_manager("other", &idp, "audience = [\"billing\"]");
    let applications = "\n[[applications]]\nname = \"biller\"\nowner = \"ada\"\n\
        keys = [{ key_manager = \"other\", consumer_key = \"shop-web\" }]\n";
    let config = Config::orders(&idp, &upstream.url()).with(&two).with(applications);
    let gate = Gate::start(|ports| config.text(ports));
    let call = |audience: &str| {
        let token = Token::of(&idp, "shop-web").claim("aud", audience).sign();
        let answer = block_on(gate.send(Via::H1, &Request::get("/orders/v1/items/{m}").bearer(&token)));
        (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(call("orders-api").0, 200);
    // Known there, but that application is not subscribed.
    assert_eq!(call("billing"), (403, "900908".into()));
    assert_eq!(call("neither"), (401, "900901".into()));
}

#[test]
fn symmetric_keys_are_those_of_the_configuration_and_no_others() {
    let (both, alone, upstream) = (Idp::start(), Idp::start(), Backend::start("production"));
    let secret = b"a secret of 32 bytes, or longer!";
    let text = std::str::from_utf8(secret).unwrap();
    let audience = "audience = [\"orders-api\"]";
    let mut config = Config::orders(&both, &upstream.url());
    let keys_of_both = format!(
        "{audience}\nalgorithms = [\"RS256\", \"HS256\"]\n\
         secret_keys = [{{ kid = \"s\", alg = \"HS256\", secret = \"{}\", encoding = \"base64url\" }}]",
        b64(secret)
    );
    config.rest = config.rest.replacen(audience, &keys_of_both, 1);
    let keys_of_alone = format!(
        "{audience}\ndiscovery = false\nalgorithms = [\"HS256\"]\n\
         secret_keys = [{{ alg = \"HS256\", secret = \"{text}\" }}]"
    );
    let application = "\n[[applications]]\nname = \"alone\"\nowner = \"ada\"\n\
        keys = [{ key_manager = \"alone\", consumer_key = \"shop-web\" }]\n[[subscriptions]]\n\
        application = \"alone\"\napi = \"Orders:v1\"\ntier = \"Unlimited\"\n";
    let config = config.with(&key_manager("alone", &alone, &keys_of_alone)).with(application);
    let gate = Gate::start(|ports| config.text(ports));
    let token =
        |idp: &Idp, alg: &str, kid: Option<&str>| Token::of(idp, "shop-web").header("alg", alg).header("kid", kid);
    let case = |name: &str, expect, token: String| {
        Case::new(name, expect, move || Request::get("/orders/v1/items/{m}").bearer(&token))
    };
    let by_secret = |message: &[u8]| hs256(secret, message);
    let modulus = keys().rsa.public_bytes();
    let cases = [
        case("by the secret", Expect::Pass, token(&both, "HS256", Some("s")).sign_with(by_secret)),
        case("by the secret, unnamed", Expect::Pass, token(&both, "HS256", None).sign_with(by_secret)),
        case("by the set", Expect::Pass, Token::of(&both, "shop-web").key(&keys().rsa, "rsa").sign()),
        case("alone", Expect::Pass, token(&alone, "HS256", None).sign_with(by_secret)),
        case("by a public key", Expect::T401, token(&both, "HS256", None).sign_with(|m| hs256(&modulus, m))),
        case(
            "named as a public key",
            Expect::T401,
            token(&both, "HS256", Some("rsa")).sign_with(|m| hs256(&modulus, m)),
        ),
        case(
            "the secret under a public key's id",
            Expect::T401,
            token(&both, "HS256", Some("rsa")).sign_with(by_secret),
        ),
        case("a public key's algorithm under the secret's id", Expect::T401, {
            Token::of(&both, "shop-web").key(&keys().rsa, "s").sign()
        }),
        case("HS512", Expect::T401, token(&both, "HS512", Some("s")).sign_with(by_secret)),
        case("half a tag", Expect::T401, token(&both, "HS256", Some("s")).sign_with(|m| hs256(secret, m)[..16].into())),
        case("no tag", Expect::T401, token(&both, "HS256", Some("s")).sign_with(|_| Vec::new())),
        case("another algorithm alone", Expect::T401, Token::of(&alone, "shop-web").key(&keys().rsa, "rsa").sign()),
        case("an empty secret", Expect::T401, token(&alone, "HS256", None).sign_with(|m| hs256(b"", m))),
    ];
    check_all(&gate, &[&upstream], Form::Wso2, &cases);
    assert_eq!((alone.discoveries(), alone.key_fetches()), (0, 0));
}
