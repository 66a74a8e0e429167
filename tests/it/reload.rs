//! Reload by SIGHUP and by a changed file: nothing is lost, a bad file changes nothing, counters stay.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::Value;

use crate::support::{
    Backend, Client, Config, Gate, Idp, Ports, Request, Token, Via, api, application, block_on, resource, subscription,
};

struct Place {
    gate: Gate,
    idp: Idp,
    config: Config,
}

fn place(tables: &str) -> Place {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let config = Config::orders(&idp, &upstream.url()).with(tables);
    let gate = Gate::start(|ports| config.text(ports));
    // The upstream's task lives on the shared runtime; the handle is not needed.
    Place { gate, idp, config }
}

impl Place {
    fn ports(&self) -> &Ports {
        &self.gate.ports
    }

    fn status(&self, target: &str) -> u16 {
        self.as_client("shop-web", target)
    }

    fn as_client(&self, client: &str, target: &str) -> u16 {
        let token = Token::of(&self.idp, client).sign();
        block_on(self.gate.send(Via::H1, &Request::get(target).bearer(token))).status
    }

    fn state(&self) -> Value {
        self.gate.admin("/readyz?verbose").json()
    }

    fn generation(&self) -> u64 {
        self.state()["config"]["generation"].as_u64().unwrap_or(0)
    }

    /// Reloads and waits until the new configuration is in place.
    fn reload(&self, config: &Config) {
        let before = self.generation();
        self.gate.reload(&config.text(self.ports()));
        self.gate.wait_for("the reload", || self.generation() > before);
    }
}

const ITEM: &str = "/orders/v1/items/{m}";

/// An open API at `/extra`.
fn extra() -> String {
    api("Extra", "/extra", None, "upstream = \"echo:\"\nsubscription = \"none\"")
        + &resource("/a/{id}", "auth = \"none\"")
}

#[test]
fn a_changed_file_is_taken_up_with_and_without_signal() {
    let place = place("");
    assert_eq!(place.status("/extra/a/{m}"), 404);
    place.reload(&place.config.clone().with(&extra()));
    assert_eq!(place.status("/extra/a/{m}"), 200);
    let file = place.gate.config_file();
    std::fs::write(&file, place.config.text(place.ports())).unwrap();
    place.gate.wait_for("the change without a signal", || place.status("/extra/a/{m}") == 404);
    assert_eq!(place.status(ITEM), 200);
}

/// As the kubelet does it: the file is a link through a link to a folder, and that link is replaced.
#[test]
fn a_config_map_that_is_swapped_by_a_link_is_taken_up() {
    let place = place("");
    let (file, texts) = (place.gate.config_file(), [place.config.clone(), place.config.clone().with(&extra())]);
    let dir = file.parent().unwrap();
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, dir.join("..link")).unwrap();
        std::fs::rename(dir.join("..link"), dir.join(name)).unwrap();
    };
    for n in 0..4 {
        let version = format!("..version-{n}");
        std::fs::create_dir(dir.join(&version)).unwrap();
        std::fs::write(dir.join(&version).join("tollgate.toml"), texts[n % 2].text(place.ports())).unwrap();
        link(&version, "..data");
        if n == 0 {
            link("..data/tollgate.toml", "tollgate.toml");
        }
        let expected = [404, 200][n % 2];
        place.gate.wait_for("the swap", || place.status("/extra/a/{m}") == expected);
        assert_eq!(place.status(ITEM), 200);
    }
}

#[test]
fn a_bad_file_keeps_the_old_configuration() {
    let place = place("");
    let failed = || place.gate.metric("tollgate_config_reloads_total", &["outcome=\"failed\""]);
    let good = place.config.text(place.ports());
    let bad = [
        format!("{good}\nbork = 1\n"),
        good.replacen("audience = [\"orders-api\"]", "audiences = [\"secret-value-4711\"]", 1),
        good.replacen("[[applications]]", "[[aplications]]", 1),
        "this is no TOML".to_owned(),
        String::new(),
    ];
    for text in bad {
        let before = (failed(), place.generation());
        place.gate.reload(&text);
        place.gate.wait_for("the refusal", || failed() > before.0);
        assert_eq!(place.status(ITEM), 200);
        assert_eq!(place.gate.admin("/readyz").status, 200, "it stays ready");
        assert_eq!(place.generation(), before.1);
        let state = place.state();
        assert!(state["config"]["last_error"].as_str().is_some_and(|e| !e.is_empty()), "{state}");
        assert!(!state.to_string().contains("secret-value-4711"), "{state}");
    }
    assert!(!place.gate.stderr().contains("secret-value-4711"));
    place.reload(&place.config.clone().with(&extra()));
    assert!(place.state()["config"]["last_error"].is_null(), "{}", place.state());
    assert!(place.gate.metric("tollgate_config_reloads_total", &["outcome=\"ok\""]) >= 1.0);
}

const FIVE: &str = "\n[[tiers]]\nname = \"Five\"\nrequests = 5\nper = \"1d\"\n";

fn five() -> String {
    application("five", "five", "Unlimited", "") + &subscription("five", "Orders:v1", "Five", "UNBLOCKED")
}

fn passing(place: &Place, n: usize) -> usize {
    (0..n).filter(|_| place.as_client("five", ITEM) == 200).count()
}

#[test]
fn counters_are_kept_over_a_reload() {
    let place = place(&(five() + FIVE));
    assert_eq!(passing(&place, 3), 3);
    place.reload(&place.config.clone().with(&extra()));
    assert_eq!(passing(&place, 5), 2, "two are left of five");
}

/// Row A06 of the attack list.
#[test]
fn another_limit_or_tier_of_the_same_window_goes_on_with_what_was_used() {
    let place = place(&(five() + FIVE));
    assert_eq!(passing(&place, 9), 5);
    let mut wider = place.config.clone();
    wider.rest = wider.rest.replace("requests = 5", "requests = 8");
    place.reload(&wider);
    assert_eq!(passing(&place, 9), 3);
    let mut bronze = place.config.clone();
    bronze.rest = bronze.rest.replace("\"Five\"", "\"Ours\"").replace("requests = 5", "requests = 10");
    place.reload(&bronze);
    assert_eq!(passing(&place, 9), 2);
    let mut narrower = place.config.clone();
    narrower.rest = narrower.rest.replace("requests = 5", "requests = 2");
    place.reload(&narrower);
    assert_eq!(passing(&place, 9), 0);
    let mut longer = narrower.clone();
    longer.rest = longer.rest.replace("per = \"1d\"", "per = \"2d\"");
    place.reload(&longer);
    assert_eq!(passing(&place, 9), 2, "another window begins at nothing");
}

/// A tier that something still uses cannot go: what was counted on it goes on.
#[test]
fn a_reload_without_a_used_tier_is_refused() {
    let place = place(&(five() + FIVE));
    assert_eq!(passing(&place, 3), 3);
    let failed = || place.gate.metric("tollgate_config_reloads_total", &["outcome=\"failed\""]);
    let before = (failed(), place.generation());
    let mut without = place.config.clone();
    without.rest = without.rest.replace(FIVE, "");
    place.gate.reload(&without.text(place.ports()));
    place.gate.wait_for("the refusal", || failed() > before.0);
    assert_eq!(place.generation(), before.1);
    let state = place.state();
    let error = state["config"]["last_error"].as_str().unwrap_or_default();
    assert!(error.contains("subscriptions[1].tier"), "{state}");
    assert_eq!(passing(&place, 5), 2, "two are left of five");
}

#[test]
fn a_subscription_change_counts_for_cached_tokens() {
    let place = place("");
    let token = Token::of(&place.idp, "shop-web").sign();
    let call = || block_on(place.gate.send(Via::H1, &Request::get(ITEM).bearer(&token))).status;
    assert_eq!((call(), call()), (200, 200));
    let mut blocked = place.config.clone();
    blocked.rest = blocked.rest.replace("state = \"UNBLOCKED\"", "state = \"BLOCKED\"");
    place.reload(&blocked);
    assert_eq!(call(), 401);
    place.reload(&place.config);
    assert_eq!(call(), 200);
}

#[test]
fn reloading_under_load_loses_nothing() {
    let place = place("");
    let token = Token::of(&place.idp, "shop-web").sign();
    let over = Arc::new(AtomicBool::new(false));
    let port = place.ports().proxy;
    let client = |n: usize| {
        let (token, over) = (token.clone(), Arc::clone(&over));
        async move {
            let mut client = Client::connect(port).await.unwrap();
            let mut done = 0;
            while !over.load(Ordering::Relaxed) {
                let good = n.is_multiple_of(2);
                let request = Request::get(ITEM).bearer(if good { &token } else { "bad" });
                let answer = client.call(&request).await;
                let expected = if good { 200 } else { 401 };
                if answer.status != expected {
                    return Err(format!("after {done}: {answer:?}"));
                }
                done += 1;
            }
            Ok(done)
        }
    };
    let tasks: Vec<_> = (0..6).map(|n| crate::support::runtime().spawn(client(n))).collect();
    let texts = [place.config.clone().with(&extra()).text(place.ports()), place.config.text(place.ports())];
    for n in 0..12 {
        let before = place.generation();
        place.gate.reload(&texts[n % 2]);
        place.gate.wait_for("the reload", || place.generation() > before);
    }
    over.store(true, Ordering::Relaxed);
    let results: Vec<_> = block_on(futures_util::future::join_all(tasks)).into_iter().map(|r| r.unwrap()).collect();
    let failed: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
