//! Key sets: rotation, unknown keys, outages, broken answers, one provider down beside another.

use crate::support::{Backend, Config, Gate, Idp, Mood, Request, Token, Via, block_on, key_manager, keys, unique};

/// A gate, its provider and its upstream.
pub(crate) struct Place {
    pub(crate) gate: Gate,
    pub(crate) idp: Idp,
    pub(crate) upstream: Backend,
}

/// A gate whose key manager has these further lines.
pub(crate) fn place(idp: Idp, lines: &str) -> Place {
    let upstream = Backend::start("production");
    let config = config(&idp, &upstream, lines);
    let gate = Gate::launch(|ports| config.text(ports));
    Place { gate, idp, upstream }
}

pub(crate) fn config(idp: &Idp, upstream: &Backend, lines: &str) -> Config {
    let mut config = Config::orders(idp, &upstream.url());
    let audience = "audience = [\"orders-api\"]";
    config.rest = config.rest.replacen(audience, &format!("{audience}\n{lines}"), 1);
    config
}

impl Place {
    /// The status of a call with this token.
    pub(crate) fn call(&self, token: &str) -> u16 {
        self.call_via(Via::H1, token)
    }

    pub(crate) fn call_via(&self, via: Via, token: &str) -> u16 {
        let request = Request::get("/orders/v1/items/{m}").bearer(token);
        let answer = block_on(self.gate.send(via, &request));
        assert_eq!(self.upstream.saw(&request.mark), answer.status == 200, "{answer:?}");
        if answer.status == 503 {
            let retry = answer.header("retry-after").and_then(|v| v.parse::<u32>().ok());
            assert!(retry.is_some_and(|s| s >= 1), "{answer:?}");
            assert_eq!(answer.json()["code"], "900900");
        }
        answer.status
    }

    /// A good token that nobody has seen.
    pub(crate) fn good(&self) -> String {
        Token::of(&self.idp, "shop-web").sign()
    }
}

#[test]
fn a_new_key_is_accepted_at_its_first_request() {
    let place = place(Idp::start(), "");
    place.gate.wait_ready();
    assert_eq!(place.call(&place.good()), 200);
    let fetched = place.idp.key_fetches();
    place.idp.rotate(vec![keys().es256_other.jwk("next"), keys().es256.jwk("es256")]);
    let next = || Token::of(&place.idp, "shop-web").key(&keys().es256_other, "next").sign();
    let all = block_on(futures_util::future::join_all((0..10).map(|_| {
        let request = Request::get("/orders/v1/items/{m}").bearer(next());
        let gate = &place.gate;
        async move { gate.send(Via::H1, &request).await.status }
    })));
    assert!(all.iter().all(|status| *status == 200), "{all:?}");
    assert_eq!(place.idp.key_fetches(), fetched + 1, "one fetch for all who wait");
}

#[test]
fn unknown_keys_fetch_once_per_cool_down() {
    let place = place(Idp::start(), "jwks_cooldown = \"1m\"");
    place.gate.wait_ready();
    let fetched = place.idp.key_fetches();
    for _ in 0..30 {
        let token = Token::of(&place.idp, "shop-web").header("kid", unique()).sign();
        assert_eq!(place.call(&token), 401);
    }
    assert!(place.idp.key_fetches() <= fetched + 1, "{} fetches", place.idp.key_fetches() - fetched);
    assert_eq!(place.call(&place.good()), 200);
}

#[test]
fn a_removed_key_is_refused_after_the_refresh_even_when_cached() {
    let place = place(Idp::start(), "jwks_refresh = \"1s\"\njwks_cooldown = \"1s\"");
    place.gate.wait_ready();
    let (es256, rsa) = (place.good(), Token::of(&place.idp, "shop-web").key(&keys().rsa, "rsa").sign());
    assert_eq!((place.call(&es256), place.call(&rsa)), (200, 200));
    place.idp.rotate(vec![keys().rsa.jwk("rsa")]);
    place.gate.wait_for("the key's removal", || place.call(&es256) == 401);
    assert_eq!(place.call(&rsa), 200, "the others stay");
}

#[test]
fn an_outage_fails_no_good_token_and_passes_no_bad_one() {
    let place = place(Idp::start(), "jwks_refresh = \"1s\"\njwks_max_stale = \"1h\"");
    place.gate.wait_ready();
    let cached = place.good();
    assert_eq!(place.call(&cached), 200);
    place.idp.stop();
    let failed = || place.gate.metric("tollgate_jwks_fetches_total", &["outcome=\"unreachable\""]);
    place.gate.wait_for("a refresh that fails", || failed() >= 1.0);
    assert_eq!(place.call(&cached), 200, "a cached token");
    assert_eq!(place.call(&place.good()), 200, "a new token under a known key");
    let forged = Token::of(&place.idp, "shop-web").key(&keys().es256_other, "es256").sign();
    assert_eq!(place.call(&forged), 401, "a forged one");
    let unknown = Token::of(&place.idp, "shop-web").header("kid", "unknown").sign();
    assert!(matches!(place.call(&unknown), 401 | 503), "an unknown key");
    place.gate.wait_for("a failed refresh", || {
        place.call(&Token::of(&place.idp, "shop-web").header("kid", unique()).sign()) == 503
    });
    place.idp.restart();
    place.gate.wait_for("recovery", || place.call(&unknown) == 401);
    assert_eq!(place.call(&cached), 200);
}

#[test]
fn past_max_stale_even_cached_tokens_get_503() {
    let place = place(Idp::start(), "jwks_refresh = \"1s\"\njwks_max_stale = \"2s\"");
    place.gate.wait_ready();
    let token = place.good();
    // A refresh may come late, and the set be stale before its time.
    place.gate.wait_for("keys in time", || place.call(&token) == 200);
    place.idp.stop();
    place.gate.wait_for("staleness", || place.call(&token) == 503);
    assert_eq!(place.call("garbage"), 401, "what is no token stays none");
    place.idp.restart();
    place.gate.wait_for("recovery", || place.call(&token) == 200);
}

#[test]
fn broken_answers_keep_the_last_good_set() {
    let place = place(Idp::start(), "jwks_refresh = \"1s\"\njwks_cooldown = \"1s\"");
    place.gate.wait_ready();
    for mood in [Mood::Html, Mood::Empty, Mood::Broken, Mood::Redirect, Mood::Huge] {
        place.idp.mood(mood);
        let ended = || place.gate.metric("tollgate_jwks_fetches_total", &[]);
        let (fetched, before) = (place.idp.key_fetches(), ended());
        place.gate.wait_for("a refresh", || place.idp.key_fetches() > fetched && ended() > before);
        assert_eq!(place.call(&place.good()), 200, "{mood:?}");
        let forged = Token::of(&place.idp, "shop-web").key(&keys().es256_other, "es256").sign();
        assert_eq!(place.call(&forged), 401, "{mood:?}");
    }
    assert!(!place.idp.other_requests().iter().any(|path| path.contains("moved")), "the redirect was followed");
    assert!(place.gate.alive());
}

#[test]
fn without_keys_nothing_passes_and_it_is_not_ready() {
    for mood in [Mood::Broken, Mood::Html, Mood::Empty, Mood::Huge, Mood::Redirect, Mood::OtherIssuer] {
        let idp = Idp::start();
        idp.mood(mood);
        let place = place(idp, "jwks_cooldown = \"1s\"");
        assert_eq!(place.call(&place.good()), 503, "{mood:?}");
        let ready = place.gate.admin("/readyz");
        assert_eq!(ready.status, 503, "{mood:?}");
        assert!(ready.text().contains("not ready") && ready.text().contains("main"), "{mood:?} {}", ready.text());
        let public = block_on(place.gate.send(Via::H1, &Request::get("/orders/v1/public/{m}")));
        assert_eq!(public.status, 200, "what needs no token passes");
        place.idp.mood(Mood::Good);
        place.gate.wait_ready();
        assert_eq!(place.call(&place.good()), 200, "{mood:?}");
    }
}

#[test]
fn a_provider_that_comes_later_is_found() {
    let idp = Idp::start();
    idp.stop();
    let place = place(idp, "");
    assert_eq!(place.call(&place.good()), 503);
    place.idp.restart();
    place.gate.wait_ready();
    assert_eq!(place.call(&place.good()), 200);
}

#[test]
fn one_provider_down_does_not_hold_up_the_other() {
    let (first, second) = (Idp::start(), Idp::start());
    second.mood(Mood::Held);
    let upstream = Backend::start("production");
    let config = config(&first, &upstream, "jwks_refresh = \"1s\"").with(&key_manager(
        "slow",
        &second,
        "audience = [\"orders-api\"]\nstartup = \"optional\"\njwks_refresh = \"1s\"",
    ));
    let gate = Gate::start(|ports| config.text(ports));
    let place = Place { gate, idp: first, upstream };
    let slow = Token::of(&second, "shop-web").header("kid", "nothing-like-it").sign();
    let waiting = Request::get("/orders/v1/items/{m}").bearer(slow);
    let fetched = place.idp.key_fetches();
    let (statuses, late) = block_on(async {
        let quick = async {
            let mut all = Vec::new();
            for _ in 0..20 {
                let request = Request::get("/orders/v1/items/{m}").bearer(place.good());
                all.push(place.gate.send(Via::H1, &request).await.status);
            }
            // Until now the other has said nothing.
            second.mood(Mood::Good);
            all
        };
        tokio::join!(quick, place.gate.send(Via::H1, &waiting))
    });
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(matches!(late.status, 401 | 503), "{late:?}");
    second.stop();
    place.gate.wait_for("the first's refreshes go on", || place.idp.key_fetches() > fetched);
    assert_eq!(place.gate.admin("/readyz").status, 200, "an optional one does not count");
}

#[test]
fn discovery_by_rfc_8414_and_endpoints_by_hand() {
    let idp = Idp::start();
    let by_hand = format!("discovery = false\njwks_uri = \"{}/jwks\"", idp.issuer());
    let place = place(idp, &by_hand);
    place.gate.wait_ready();
    assert_eq!(place.call(&place.good()), 200);
    assert_eq!(place.idp.discoveries(), 0);
}

#[test]
fn keys_from_a_file_need_no_provider() {
    let idp = Idp::start();
    idp.stop();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jwks.json");
    std::fs::write(&file, serde_json::json!({ "keys": [keys().es256.jwk("es256")] }).to_string()).unwrap();
    let place = place(idp, &format!("discovery = false\njwks = {{ file = \"{}\" }}", file.display()));
    place.gate.wait_ready();
    assert_eq!(place.call(&place.good()), 200);
    assert_eq!(place.call(&Token::of(&place.idp, "shop-web").key(&keys().es256_other, "es256").sign()), 401);
}
