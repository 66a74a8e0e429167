//! Opaque tokens over sockets: who is asked, how often, and what a provider's weather does to requests.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{
    Backend, Case, Config, Expect, Form, Gate, Idp, Redis, Request, Token, Via, Weather, api, application, block_on,
    check_all, keys, now, resource, subscription, unique, world,
};

/// A gate whose one key manager asks its provider, with further lines for the manager and for the file.
struct Asking {
    gate: Gate,
    idp: Idp,
    _upstream: Backend,
}

const CLIENT: &str = "client_id = \"tollgate\"\nclient_secret = \"a secret of the gate\"\n";

impl Asking {
    fn start(manager: &str, tables: &str) -> Self {
        let (idp, upstream) = (Idp::start(), Backend::start("production"));
        let config = Self::config(&idp, &upstream, manager, tables);
        let gate = Gate::start(|ports| config.text(ports));
        Self { gate, idp, _upstream: upstream }
    }

    fn config(idp: &Idp, upstream: &Backend, manager: &str, tables: &str) -> Config {
        let mut config = Config::orders(idp, &upstream.url()).with(tables);
        let audience = "audience = [\"orders-api\"]";
        config.rest = config.rest.replacen(audience, &format!("{audience}\n{CLIENT}{manager}"), 1);
        config
    }

    /// A token that is good for now.
    fn good(&self) -> String {
        let token = format!("opaque-token-of-this-test-{}", unique());
        self.idp.say(&token, &self.idp.told("shop-web"));
        token
    }

    fn get(&self, token: &str) -> (u16, String) {
        block_on(self.get_from(token, None))
    }

    async fn get_from(&self, token: &str, client: Option<&str>) -> (u16, String) {
        let mut request = Request::get("/orders/v1/items/{m}").bearer(token);
        if let Some(client) = client {
            request = request.header("x-forwarded-for", client);
        }
        let answer = self.gate.send(Via::H1, &request).await;
        (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
    }

    fn status(&self, token: &str) -> u16 {
        self.get(token).0
    }

    fn outcomes(&self, outcome: &str) -> f64 {
        self.gate.metric("tollgate_introspections_total", &[&format!("outcome=\"{outcome}\"")])
    }
}

#[test]
fn an_opaque_token_is_asked_about_once() {
    let asking = Asking::start("", "");
    let token = asking.good();
    for _ in 0..5 {
        assert_eq!(asking.status(&token), 200);
    }
    assert_eq!(asking.idp.calls(), 1);
    let (head, form) = asking.idp.last_call();
    assert!(head.starts_with("POST /realms/shop/introspect "), "{head}");
    assert!(head.to_ascii_lowercase().contains("authorization: basic "), "{head}");
    assert_eq!(form, [("token".to_owned(), token), ("token_type_hint".to_owned(), "access_token".to_owned())]);
    assert_eq!(asking.outcomes("active"), 1.0);
    let jwt = Token::of(&asking.idp, "shop-web").sign();
    assert_eq!(asking.status(&jwt), 200);
    assert_eq!(asking.idp.calls(), 1, "a JWT is verified here");
}

#[test]
fn fifty_first_sights_over_sockets_are_one_call() {
    let asking = Asking::start("", "");
    let token = asking.good();
    asking.idp.weather(Weather::Slow(300));
    let statuses = block_on(async {
        let calls: Vec<_> = (0..50).map(|_| asking.get_from(&token, None)).collect();
        futures_util::future::join_all(calls).await
    });
    assert!(statuses.iter().all(|(status, _)| *status == 200), "{statuses:?}");
    assert_eq!(asking.idp.calls(), 1);
}

#[test]
fn interleaved_tokens_never_cross() {
    let asking = Asking::start(
        "",
        "[cache]\nintrospection_ttl = \"50ms\"\n[throttle]\nfailures = { requests = 0, per = \"1m\" }\n",
    );
    let tokens: Vec<(String, Option<String>)> = (0..40)
        .map(|n| {
            let token = format!("interleaved-token-{n}-{}", unique());
            let subject = (n % 4 != 0).then(|| format!("subject-of-{n}"));
            if let Some(subject) = &subject {
                let mut answer = asking.idp.told("shop-web");
                answer["sub"] = json!(subject);
                asking.idp.say(&token, &answer);
            }
            (token, subject)
        })
        .collect();
    let seen = block_on(async {
        let worker = |worker: u64| {
            let (gate, tokens) = (&asking.gate, &tokens);
            async move {
                let mut random = fastrand::Rng::with_seed(worker);
                let mut wrong = Vec::new();
                for _ in 0..60 {
                    let (token, subject) = &tokens[random.usize(..tokens.len())];
                    let request = Request::get("/orders/v1/items/{m}").bearer(token);
                    let answer = gate.send(if random.bool() { Via::H1 } else { Via::H2 }, &request).await;
                    let told = answer.forwarded_field("x-auth-subject").first().cloned();
                    let right = match subject {
                        Some(subject) => answer.status == 200 && told.as_deref() == Some(subject),
                        None => answer.status == 401,
                    };
                    if !right {
                        wrong.push(format!("{token} {subject:?}: {} {told:?}", answer.status));
                    }
                }
                wrong
            }
        };
        futures_util::future::join_all((0..40).map(worker)).await
    });
    let wrong: Vec<String> = seen.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} wrong: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}

#[test]
fn one_token_of_two_providers_is_judged_by_each() {
    let (first, second, upstream) = (Idp::start(), Idp::start(), Backend::start("production"));
    let token = format!("token-of-two-providers-{}", unique());
    first.say(&token, &first.told("shop-web"));
    let other = format!(
        "\n[[key_managers]]\nname = \"other\"\nconnector = \"keycloak\"\nissuer = \"{}\"\naudience = [\"orders-api\"]\n\
         introspection_endpoint = \"{0}/introspect\"\nclient_auth = \"post\"\n{CLIENT}",
        second.issuer()
    );
    let apis: String = [("One", "main"), ("Two", "other")]
        .iter()
        .map(|(name, manager)| {
            let lines =
                format!("upstream = \"{}\"\nsubscription = \"none\"\nkey_managers = [\"{manager}\"]", upstream.url());
            api(name, &format!("/{}", name.to_ascii_lowercase()), None, &lines) + &resource("/items/{id}", "")
        })
        .collect();
    let config = Asking::config(&first, &upstream, "", &format!("{other}{apis}"));
    let gate = Gate::start(|ports| config.text(ports));
    let call = |target: &str| block_on(gate.send(Via::H1, &Request::get(target).bearer(&token))).status;
    for _ in 0..2 {
        assert_eq!((call("/one/items/{m}"), call("/two/items/{m}")), (200, 401));
    }
    assert_eq!((first.calls(), second.calls()), (1, 1));
    assert_eq!(call("/orders/v1/items/{m}"), 401, "two could be asked, and no pattern says which");
    assert_eq!((first.calls(), second.calls()), (1, 1));
    let (head, form) = second.last_call();
    assert!(!head.to_ascii_lowercase().contains("\nauthorization:"), "{head}");
    assert!(form.contains(&("client_secret".into(), "a secret of the gate".into())), "{form:?}");
}

#[test]
fn what_joins_alike_is_told_apart() {
    let asking = Asking::start("", "");
    let (whole, part) = (format!("joined-alike-{}", unique()), "joined-alike-");
    asking.idp.say(&whole, &asking.idp.told("shop-web"));
    for (token, expected) in [
        (whole.clone(), 200),
        (part.to_owned(), 401),
        (format!("{whole}0"), 401),
        (format!("0{whole}"), 401),
        (whole[..whole.len() - 1].to_owned(), 401),
        (whole.to_uppercase(), 401),
        (whole.clone(), 200),
    ] {
        assert_eq!(asking.status(&token), expected, "{token}");
        assert_eq!(asking.idp.calls_about(&token), 1, "{token}");
    }
}

#[test]
fn an_answer_ends_at_exp() {
    let asking = Asking::start("leeway = \"0\"\n", "[cache]\nintrospection_ttl = \"1h\"\n");
    let token = asking.good();
    let mut answer = asking.idp.told("shop-web");
    let end = now() + 3;
    answer["exp"] = json!(end);
    asking.idp.say(&token, &answer);
    let (first, before) = ((asking.status(&token), asking.status(&token)), now());
    assert!(before >= end || first == (200, 200), "{first:?}");
    asking.gate.wait_for("the end of the token", || now() > end);
    assert_eq!(asking.status(&token), 401);
}

#[test]
fn an_answer_without_exp_ends_with_the_ttl() {
    let asking = Asking::start("", "[cache]\nintrospection_ttl = \"1s\"\n");
    let token = asking.good();
    let mut answer = asking.idp.told("shop-web");
    answer.as_object_mut().unwrap().shift_remove("exp");
    asking.idp.say(&token, &answer);
    assert_eq!(asking.status(&token), 200);
    asking.idp.forget(&token);
    asking.gate.wait_for("the end of the answer", || asking.status(&token) == 401);
}

#[test]
fn changed_facts_count_within_the_ttl() {
    let asking = Asking::start("", "[cache]\nintrospection_ttl = \"1s\"\n");
    let token = asking.good();
    assert_eq!(asking.status(&token), 200);
    let mut answer = asking.idp.told("shop-web");
    answer["scope"] = json!("orders:write");
    asking.idp.say(&token, &answer);
    asking.gate.wait_for("the new scopes", || asking.get(&token) == (403, "900910".into()));
    // By hand, at once: other rules have everything asked anew.
    let kept = Asking::start("", "[cache]\nintrospection_ttl = \"1h\"\n");
    let token = kept.good();
    assert_eq!(kept.status(&token), 200);
    kept.idp.forget(&token);
    assert_eq!(kept.status(&token), 200);
    kept.gate.reload(&kept.gate.config_text().replacen("client_id = ", "leeway = \"29s\"\nclient_id = ", 1));
    kept.gate.wait_for("the other rules", || kept.status(&token) == 401);
}

#[test]
fn no_is_remembered_for_a_few_seconds() {
    let asking = Asking::start("", "[cache]\nnegative_ttl = \"1s\"\n");
    let token = format!("not-yet-active-token-{}", unique());
    let started = Instant::now();
    let refused = (0..5).all(|_| asking.get(&token) == (401, "900901".into()));
    assert!(refused);
    assert!(asking.idp.calls() == 1 || started.elapsed() > Duration::from_secs(1), "{} calls", asking.idp.calls());
    asking.idp.say(&token, &asking.idp.told("shop-web"));
    asking.gate.wait_for("the token that has become active", || asking.status(&token) == 200);
}

#[test]
fn a_flood_of_one_address_is_stopped() {
    let asking = Asking::start("concurrency = 4\n", "[throttle]\nfailures = { requests = 20, per = \"1h\" }\n");
    let known = asking.good();
    let (attacker, user) = (Some("192.0.2.66"), Some("192.0.2.1"));
    assert_eq!(block_on(asking.get_from(&known, attacker)).0, 200);
    asking.idp.weather(Weather::Slow(5));
    let outcomes = block_on(async {
        let mut outcomes = Vec::new();
        for round in 0..15 {
            let calls = (0..20).map(|n| {
                let token = format!("random-token-{round}-{n}-{}", unique());
                let asking = &asking;
                async move { asking.get_from(&token, attacker).await }
            });
            outcomes.extend(futures_util::future::join_all(calls).await);
        }
        outcomes
    });
    let kinds: BTreeSet<_> = outcomes.iter().map(|(status, code)| (*status, code.as_str())).collect();
    assert_eq!(kinds, BTreeSet::from([(401, "900901"), (429, "429")]));
    // Those that were under way when the limit was reached were asked about too.
    assert!((21..=61).contains(&asking.idp.calls()), "{} calls", asking.idp.calls());
    assert!(asking.idp.peak() <= 4, "{} at one time", asking.idp.peak());
    asking.idp.weather(Weather::Good);
    assert_eq!(block_on(asking.get_from(&known, attacker)).0, 200, "what is known passes");
    assert_eq!(block_on(asking.get_from(&asking.good(), attacker)), (429, "429".into()), "what is new waits");
    assert_eq!(block_on(asking.get_from(&asking.good(), user)).0, 200, "others are served");
    let jwt = Token::of(&asking.idp, "shop-web");
    assert_eq!(block_on(asking.get_from(&jwt.sign(), attacker)).0, 200, "JWTs are not asked about");
    assert_eq!(block_on(asking.get_from(&jwt.claim("exp", 1).sign(), attacker)).0, 401, "nor 429");
    for n in 0..3 {
        let from = format!("2001:db8::{n}");
        assert_eq!(block_on(asking.get_from(&format!("random-v6-{}", unique()), Some(&from))).0, 401);
    }
    let answer = block_on(asking.gate.send(
        Via::H2,
        &Request::get("/orders/v1/items/{m}").bearer("one-more-random-token").header("x-forwarded-for", "192.0.2.66"),
    ));
    assert_eq!(answer.status, 429);
    let wait: u64 = answer.header("retry-after").and_then(|value| value.parse().ok()).unwrap_or(0);
    assert!((1..=3600).contains(&wait), "{answer:?}");
    assert_eq!(answer.header("ratelimit-policy"), Some("\"failures\";q=20;w=3600"));
    assert!(asking.gate.metric("tollgate_requests_total", &["reason=\"too_many_failures\""]) > 0.0);
}

/// A JWT is refused here, at no provider's cost: so as many bad ones as somebody brings spend nothing of what its
/// address may bring of other tokens.
#[test]
fn bad_jwts_stay_401_and_spend_no_allowance() {
    let asking = Asking::start("", "[throttle]\nfailures = { requests = 3, per = \"1h\" }\n");
    let attacker = Some("192.0.2.66");
    for n in 0..20 {
        let bad = Token::of(&asking.idp, "shop-web").claim("exp", 1).claim("jti", n).sign();
        let mut forged = Token::of(&asking.idp, "shop-web").claim("jti", n).sign();
        forged.truncate(forged.len() - 8);
        for token in [bad, forged] {
            assert_eq!(block_on(asking.get_from(&token, attacker)), (401, "900901".into()), "{n}");
        }
    }
    assert_eq!(block_on(asking.get_from(&asking.good(), attacker)).0, 200);
    assert_eq!(asking.idp.calls(), 1);
    for n in 0..3 {
        let random = format!("random-token-{n}-{}", unique());
        assert_eq!(block_on(asking.get_from(&random, attacker)), (401, "900901".into()), "{n}");
    }
    assert_eq!(block_on(asking.get_from(&asking.good(), attacker)), (429, "429".into()), "three of another kind do");
}

/// Longer than a command to Redis is good for: that counts from when it is sent.
#[test]
fn a_request_that_waited_for_its_token_is_counted_all_the_same() {
    let redis = Redis::start();
    let shared = redis.shared("mode = \"strict\"\non_outage = \"deny\"");
    let tables = shared
        + &application("gold", "gold", "Unlimited", "")
        + &subscription("gold", "Orders:v1", "Gold", "UNBLOCKED");
    let asking = Asking::start("timeout = \"5s\"\n", &tables);
    asking.gate.wait_for("shared counters", || asking.gate.metric("tollgate_shared_counters_available", &[]) == 1.0);
    asking.idp.weather(Weather::Slow(1_200));
    let token = format!("opaque-token-of-gold-{}", unique());
    asking.idp.say(&token, &asking.idp.told("gold"));
    assert_eq!(asking.get(&token), (200, String::new()));
    assert_eq!(redis.counted(), 1);
    assert_eq!(asking.gate.metric("tollgate_shared_counters_outage_requests_total", &[]), 0.0);
}

#[test]
fn a_failing_provider_is_503_and_never_a_verdict() {
    let asking = Asking::start("timeout = \"3s\"\n", "");
    let known = asking.good();
    assert_eq!(asking.status(&known), 200);
    let broken = [
        (Weather::Status(500), "answer"),
        (Weather::Html, "answer"),
        (Weather::Lying, "answer"),
        (Weather::Silent, "timeout"),
        (Weather::Reset, "unreachable"),
    ];
    for (weather, outcome) in broken {
        asking.idp.weather(weather);
        let token = asking.good();
        assert_eq!(asking.get(&token), (503, "900900".into()), "{weather:?}");
        assert_eq!(asking.status(&known), 200, "{weather:?}: what is known passes");
        assert!(asking.outcomes(outcome) >= 1.0, "{weather:?} {}", asking.gate.metrics());
        asking.idp.weather(Weather::Good);
        // Five failures in a row open the circuit; good weather is tried before long.
        asking.gate.wait_for("the same token, good", || asking.status(&token) == 200);
    }
    asking.idp.weather(Weather::ResetOnce);
    assert_eq!(asking.status(&asking.good()), 200, "one failed connection is no outage");
    asking.idp.stop();
    let token = asking.good();
    let codes: BTreeSet<_> = (0..8).map(|_| asking.get(&token)).collect();
    assert_eq!(codes, BTreeSet::from([(503, "900900".to_owned())]));
    assert!(asking.outcomes("circuit_open") >= 1.0, "{}", asking.gate.metrics());
    assert_eq!(asking.gate.metric("tollgate_introspection_circuit", &["key_manager=\"main\""]), 2.0);
    assert_eq!(asking.status(&known), 200);
    asking.idp.restart();
    asking.gate.wait_for("the provider is back", || asking.status(&token) == 200);
    assert_eq!(asking.gate.metric("tollgate_introspection_circuit", &[]), 0.0);
}

#[test]
fn refused_credentials_are_our_own_trouble() {
    let asking = Asking::start("", "");
    for status in [401, 403] {
        asking.idp.weather(Weather::Status(status));
        assert_eq!(asking.get(&asking.good()), (503, "900900".into()), "{status}");
    }
    assert_eq!(asking.outcomes("credentials"), 2.0);
    let log = asking.gate.stderr();
    assert!(log.contains("our credentials are refused") && !log.contains("a secret of the gate"), "{log}");
}

#[test]
fn signed_answers_are_verified() {
    let asking = Asking::start("introspection_response = \"jwt\"\n", "");
    let header = |typ: &str, kid: &str| json!({ "alg": "ES256", "typ": typ, "kid": kid });
    let claims = |audience: &str| {
        json!({ "iss": asking.idp.issuer(), "aud": audience, "iat": now(),
            "token_introspection": asking.idp.told("shop-web") })
    };
    let typ = "token-introspection+jwt";
    let ours = (header(typ, "es256"), claims("tollgate"), &keys().es256);
    for (name, (header, claims, key), expected) in [
        ("good", ours, 200),
        ("typ JWT", (header("JWT", "es256"), claims("tollgate"), &keys().es256), 503),
        ("aud", (header(typ, "es256"), claims("other"), &keys().es256), 503),
        ("signature", (header(typ, "es256"), claims("tollgate"), &keys().es256_other), 503),
        ("unknown key", (header(typ, "never-seen"), claims("tollgate"), &keys().es256_other), 503),
    ] {
        let token = format!("opaque-token-signed-answer-{}", unique());
        asking.idp.say_signed(&token, &header, &claims, key);
        assert_eq!(asking.status(&token), expected, "{name}");
    }
    assert!(asking.idp.last_call().0.contains("application/token-introspection+jwt"));
    let answer = crate::support::compact(
        &header(typ, "es256").to_string(),
        claims("tollgate").to_string().as_bytes(),
        |message| keys().es256.sign("ES256", message),
    );
    assert_eq!(asking.status(&answer), 401, "an answer is no access token");
    let unsigned = asking.good();
    assert_eq!(asking.status(&unsigned), 200, "plain JSON is understood too");
}

#[test]
fn under_both_the_signature_is_checked_here() {
    let asking = Asking::start("validation = \"jwt+introspect\"\n", "");
    let good = Token::of(&asking.idp, "shop-web").sign();
    asking.idp.say(&good, &json!({ "active": true }));
    assert_eq!(asking.status(&good), 200);
    // The provider does not look at the signature.
    let forged = Token::of(&asking.idp, "shop-web").key(&keys().es256_other, "es256").sign();
    asking.idp.say(&forged, &asking.idp.told("shop-web"));
    assert_eq!(asking.status(&forged), 401);
    assert_eq!(asking.status(&asking.good()), 401, "nothing to verify");
    assert_eq!(asking.idp.calls(), 1);
    let inactive = Token::of(&asking.idp, "shop-web").sign();
    assert_eq!(asking.status(&inactive), 401);
    assert_eq!(asking.idp.calls(), 2);

    let introspect = Asking::start("validation = \"introspect\"\n", "");
    let inactive = Token::of(&introspect.idp, "shop-web").sign();
    assert_eq!(introspect.status(&inactive), 401, "though its signature is good");
    introspect.idp.say(&good, &introspect.idp.told("shop-web"));
    assert_eq!(introspect.status(&good), 401, "of another issuer");
    assert_eq!(introspect.idp.calls(), 1);
    assert_eq!(introspect.idp.key_fetches(), 0, "nothing is verified");
}

#[test]
fn an_opaque_token_needs_a_subscription_too() {
    let world = world(Form::Wso2);
    let case = |name: &str, expect, client: &str| {
        let token = format!("op_of_{}_{}", client.replace('-', "_"), unique());
        world.opaque.say(&token, &world.opaque.told(client));
        Case::new(name, expect, move || Request::get("/orders/v1/items/{m}").bearer(&token))
    };
    let cases = [
        case("subscribed", Expect::Pass, "shop-web"),
        case("unsubscribed", Expect::NOT_SUBSCRIBED, "app-unsubscribed"),
    ];
    check_all(&world.gate, &world.backends(), world.form, &cases);
}

#[test]
fn renewed_credentials_count_after_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "before\n").unwrap();
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let lines = format!("client_auth = \"bearer\"\nclient_secret = {{ file = \"{}\" }}\n", secret.display());
    let mut config = Config::orders(&idp, &upstream.url());
    config.rest = config.rest.replacen("audience", &format!("{lines}audience"), 1);
    let gate = Gate::start(|ports| config.text(ports));
    let call = || {
        let token = format!("opaque-for-renewal-{}", unique());
        idp.say(&token, &idp.told("shop-web"));
        let status = block_on(gate.send(Via::H1, &Request::get("/orders/v1/items/{m}").bearer(&token))).status;
        (status, idp.last_call().0.contains("Bearer after") || idp.last_call().0.contains("bearer after"))
    };
    assert_eq!(call(), (200, false));
    std::fs::write(&secret, "after\n").unwrap();
    gate.signal("HUP");
    gate.wait_for("the new secret", || call() == (200, true));
}
