//! 3: key sets and discovery. Every row is a test of its own, with a provider that misbehaves over sockets.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::Section;
use crate::{
    jwks::{Place, config, place},
    support::{BOTH, Backend, Gate, Idp, Mood, Request, Token, Via, block_on, key_manager, keys, unique},
};

pub(super) const SECTION: Section = Section {
    cases: |_| Vec::new(),
    tests: &[
        ("K01", "a_flood_of_unknown_keys_costs_one_fetch"),
        ("K02", "jwks::a_new_key_is_accepted_at_its_first_request"),
        ("K03", "jwks::a_removed_key_is_refused_after_the_refresh_even_when_cached"),
        ("K04", "every_kind_of_failure_keeps_the_last_good_set, jwks::past_max_stale_even_cached_tokens_get_503"),
        ("K05", "jwks::without_keys_nothing_passes_and_it_is_not_ready, jwks::a_provider_that_comes_later_is_found"),
        ("K06", "private_parts_are_told_and_never_shown"),
        ("K07", "good_keys_count_among_bad_ones"),
        ("K08", "jwks::broken_answers_keep_the_last_good_set"),
        ("K09", "huge_answers_cost_neither_memory_nor_the_keys, every_kind_of_failure_keeps_the_last_good_set"),
        ("K10", "redirects_are_not_followed, metadata_leads_nowhere_forbidden, connectors::reach_tests"),
        ("K11", "an_unknown_issuer_is_asked_nothing"),
        ("K12", "another_issuers_metadata_is_refused, jwks::without_keys_nothing_passes_and_it_is_not_ready"),
        ("K13", "jwks::one_provider_down_does_not_hold_up_the_other"),
        ("K14", "keys_and_settings_are_swapped_under_load"),
        ("K15", "max_age_moves_the_refresh_within_bounds, token::issuer"),
        ("K16", "a_provider_is_who_its_certificate_says"),
        ("K17", "a_restart_during_an_outage_serves_with_the_last_known_keys, token::issuer: storms of 500 gates"),
    ],
    waits: &[],
};

/// The status over HTTP/1.1 and HTTP/2, which must be the same.
fn both(place: &Place, token: &str) -> u16 {
    let all: Vec<u16> = BOTH.iter().map(|via| place.call_via(*via, token)).collect();
    assert_eq!(all[0], all[1]);
    all[0]
}

fn unknown(place: &Place) -> String {
    Token::of(&place.idp, "shop-web").header("kid", unique()).sign()
}

/// Fetches so far, by outcome.
fn fetches(place: &Place, outcome: &str) -> f64 {
    place.gate.metric("tollgate_jwks_fetches_total", &["key_manager=\"main\"", &format!("outcome=\"{outcome}\"")])
}

fn reloads(place: &Place) -> f64 {
    place.gate.metric("tollgate_config_reloads_total", &["outcome=\"ok\""])
}

fn wait_for_fetch(place: &Place, outcome: &str) {
    let before = fetches(place, outcome);
    place.gate.wait_for(outcome, || fetches(place, outcome) > before);
}

#[test]
fn a_flood_of_unknown_keys_costs_one_fetch() {
    let place = place(Idp::start(), "jwks_cooldown = \"1h\"\ntimeout = \"2m\"");
    place.gate.wait_ready();
    let (good, fetched) = (place.good(), place.idp.key_fetches());
    assert_eq!(both(&place, &good), 200);
    place.idp.mood(Mood::Held);
    let (statuses, ()) = block_on(async {
        let flood = futures_util::future::join_all((0..40).map(|n| {
            let (gate, idp, via) = (&place.gate, &place.idp, BOTH[n % 2]);
            async move {
                let mut all = Vec::new();
                for _ in 0..25 {
                    let token = Token::of(idp, "shop-web").header("kid", unique()).sign();
                    let request = Request::get("/orders/v1/items/{m}").bearer(&token);
                    all.push(gate.send(via, &request).await.status);
                }
                all
            }
        }));
        let others = async {
            // The fetch that all of the flood wait for has not ended: good tokens do not wait for it.
            for token in std::iter::repeat_n(good.clone(), 50).chain([place.good()]) {
                let request = Request::get("/orders/v1/items/{m}").bearer(&token);
                assert_eq!(place.gate.send(Via::H1, &request).await.status, 200);
            }
            place.idp.mood(Mood::Good);
        };
        tokio::join!(flood, others)
    });
    assert!(statuses.iter().flatten().all(|status| *status == 401), "{statuses:?}");
    assert_eq!(place.idp.key_fetches(), fetched + 1);
}

#[test]
fn every_kind_of_failure_keeps_the_last_good_set() {
    let place = place(Idp::start(), "jwks_refresh = \"1s\"\njwks_cooldown = \"1s\"\ntimeout = \"300ms\"");
    place.gate.wait_ready();
    let cached = place.good();
    assert_eq!(both(&place, &cached), 200);
    for (mood, outcome) in [
        (Mood::Broken, "answer"),
        (Mood::Slow(5000), "unreachable"),
        (Mood::Drip, "unreachable"),
        (Mood::Html, "keys"),
        (Mood::Empty, "keys"),
    ] {
        place.idp.mood(mood);
        wait_for_fetch(&place, outcome);
        assert_eq!((both(&place, &cached), both(&place, &place.good())), (200, 200), "{mood:?}");
        place.gate.wait_for("its age to show", || place.gate.metric("tollgate_jwks_age_seconds", &[]) >= 1.0);
        assert_eq!(place.gate.admin("/readyz").status, 200, "{mood:?}");
        place.idp.mood(Mood::Good);
        wait_for_fetch(&place, "ok");
    }
}

#[test]
fn private_parts_are_told_and_never_shown() {
    let secret = "c2VjcmV0LXByaXZhdGUtcGFydC10aGF0LW5vYm9keS1zZWVz";
    let mut shown = keys().es256.jwk("es256");
    shown["d"] = secret.into();
    let mut rsa = keys().rsa.jwk("rsa");
    for part in ["d", "p", "q"] {
        rsa[part] = format!("{secret}{part}").into();
    }
    let place = place(Idp::with_keys(vec![shown, rsa]), "");
    place.gate.wait_ready();
    assert_eq!(both(&place, &place.good()), 200, "the public part counts");
    assert!(place.gate.stderr().contains("shows private keys"), "{}", place.gate.stderr());
    let ready = place.gate.admin("/readyz?verbose").text();
    for text in [ready, place.gate.metrics(), place.gate.stderr(), place.gate.stdout()] {
        assert!(!text.contains(&secret[..16]), "{text}");
    }
}

#[test]
fn good_keys_count_among_bad_ones() {
    let mut bent = keys().rsa.jwk("rsa");
    bent["n"] = "AQAB".into();
    let set = vec![serde_json::json!({ "kty": "EC" }), bent, 7.into(), keys().es256.jwk("es256"), "x".into()];
    let place = place(Idp::with_keys(set), "");
    place.gate.wait_ready();
    assert_eq!(both(&place, &place.good()), 200);
    let held = |kind: &str| place.gate.metric("tollgate_jwks_keys", &[&format!("use=\"{kind}\"")]);
    assert_eq!((held("usable"), held("skipped")), (1.0, 4.0));
}

#[test]
fn huge_answers_cost_neither_memory_nor_the_keys() {
    // Time enough to say all of it: what ends an answer is its size. One that drips is a row of its own above.
    let place = place(Idp::start(), "jwks_refresh = \"1s\"\njwks_cooldown = \"1s\"");
    place.gate.wait_ready();
    assert_eq!(both(&place, &place.good()), 200);
    let memory = || place.gate.metric("process_resident_memory_bytes", &[]);
    let before = memory();
    for (mood, outcome) in [
        (Mood::Endless { length: true }, "answer"),
        (Mood::Endless { length: false }, "answer"),
        (Mood::Million, "answer"),
        (Mood::Bomb, "keys"),
    ] {
        place.idp.mood(mood);
        wait_for_fetch(&place, outcome);
        assert_eq!(both(&place, &place.good()), 200, "{mood:?}");
    }
    let grown = (memory() - before) / f64::from(1 << 20);
    assert!(grown < 16.0, "{grown} MiB");
}

#[test]
fn redirects_are_not_followed() {
    let other = Idp::start();
    let place = place(Idp::start(), "jwks_refresh = \"1s\"\njwks_cooldown = \"1s\"");
    place.gate.wait_ready();
    let same = format!("{}/elsewhere", place.idp.issuer());
    let elsewhere = format!("{}/jwks", other.issuer());
    for target in [same, elsewhere, "http://169.254.169.254/latest/meta-data".into(), "file:///etc/passwd".into()] {
        place.idp.mood(Mood::RedirectTo(target.leak()));
        wait_for_fetch(&place, "answer");
        assert_eq!(both(&place, &place.good()), 200);
    }
    assert_eq!((other.key_fetches(), other.discoveries()), (0, 0));
    assert!(place.idp.other_requests().is_empty(), "{:?}", place.idp.other_requests());
}

#[test]
fn metadata_leads_nowhere_forbidden() {
    for target in [
        "https://169.254.169.254/keys",
        "https://[fe80::1]/keys",
        "https://[fd00:ec2::254]/keys",
        "https://[::ffff:169.254.169.254]/keys",
        "https://[64:ff9b::a9fe:a9fe]/keys",
        "https://[2002:a9fe:a9fe::1]/keys",
        "https://0.0.0.0/keys",
    ] {
        let idp = Idp::start();
        idp.lead_to(target);
        let place = place(idp, "");
        // Else it would count as unreachable.
        place.gate.wait_for(target, || fetches(&place, "forbidden") >= 1.0);
        assert_eq!(both(&place, &place.good()), 503, "{target}");
        assert_eq!(place.gate.admin("/readyz").status, 503, "{target}");
    }
}

#[test]
fn an_unknown_issuer_is_asked_nothing() {
    let (place, stranger) = (place(Idp::start(), ""), Idp::start());
    place.gate.wait_ready();
    for issuer in [
        stranger.issuer().to_owned(),
        format!("{}/", place.idp.issuer()),
        format!("{}/../evil", place.idp.issuer()),
        stranger.issuer().replace("127.0.0.1", "localhost"),
    ] {
        let token = Token::of(&stranger, "shop-web").claim("iss", issuer).header("kid", unique()).sign();
        assert_eq!(both(&place, &token), 401);
    }
    assert_eq!((stranger.discoveries(), stranger.key_fetches()), (0, 0));
    assert!(stranger.other_requests().is_empty() && place.idp.other_requests().is_empty());
}

#[test]
fn another_issuers_metadata_is_refused() {
    let place = place(Idp::start(), "jwks_refresh = \"1s\"\njwks_cooldown = \"1s\"");
    place.gate.wait_ready();
    // Another set, which only the metadata of another issuer leads to, is never taken.
    place.idp.mood(Mood::OtherIssuer);
    let before = fetches(&place, "metadata");
    place.gate.wait_for("metadata that is looked at again", || {
        assert_eq!(both(&place, &place.good()), 200, "the last good set stays");
        assert!(matches!(place.call(&unknown(&place)), 401 | 503));
        fetches(&place, "metadata") > before
    });
    place.idp.mood(Mood::Good);
    wait_for_fetch(&place, "ok");
    assert_eq!(both(&place, &unknown(&place)), 401);
}

#[test]
fn keys_and_settings_are_swapped_under_load() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let lines = |n: u32| format!("leeway = \"{}s\"\njwks_refresh = \"1s\"\njwks_cooldown = \"1s\"", 30 + n);
    let first = config(&idp, &upstream, &lines(0));
    let gate = Gate::start(|ports| first.text(ports));
    let place = Place { gate, idp, upstream };
    let (done, passed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (good, unknown) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            block_on(futures_util::future::join_all((0..8).map(|n| {
                let (place, done, passed, via) = (&place, &done, &passed, BOTH[n % 2]);
                async move {
                    let (mut good, mut unknown) = (Vec::new(), Vec::new());
                    while !done.load(Ordering::Relaxed) {
                        let token = place.good();
                        let request = Request::get("/orders/v1/items/{m}").bearer(&token);
                        good.push(place.gate.send(via, &request).await.status);
                        passed.fetch_add(1, Ordering::Relaxed);
                        let token = Token::of(&place.idp, "shop-web").header("kid", unique()).sign();
                        let request = Request::get("/orders/v1/items/{m}").bearer(&token);
                        unknown.push(place.gate.send(via, &request).await.status);
                    }
                    (good, unknown)
                }
            })))
        });
        for n in 1..=12 {
            // A fetch that is under way while its issuer is replaced.
            place.idp.mood(Mood::Slow(if n % 3 == 0 { 60 } else { 5 }));
            let set = if n % 2 == 0 { "a" } else { "b" };
            place.idp.rotate(vec![keys().es256_other.jwk(set), keys().es256.jwk("es256")]);
            let next = config(&place.idp, &place.upstream, &lines(n));
            let (reloaded, before) = (reloads(&place), passed.load(Ordering::Relaxed));
            place.gate.reload(&next.text(&place.gate.ports));
            place.gate.wait_for("the reload, under load", || {
                reloads(&place) > reloaded && passed.load(Ordering::Relaxed) > before + 8
            });
        }
        done.store(true, Ordering::Relaxed);
        let all = load.join().unwrap();
        all.into_iter().fold((Vec::new(), Vec::new()), |(mut good, mut unknown), (g, u)| {
            good.extend(g);
            unknown.extend(u);
            (good, unknown)
        })
    });
    assert!(good.iter().all(|status| *status == 200), "{good:?}");
    assert!(unknown.iter().all(|status| matches!(status, 401 | 503)), "{unknown:?}");
    assert!(place.gate.alive() && !place.gate.stderr().contains("panicked"));
}

#[test]
fn max_age_moves_the_refresh_within_bounds() {
    // Without it: a fetch about every second. Twice that at most, whatever the provider wishes.
    for (fields, at_least) in [
        ("cache-control: max-age=1000000000000\r\n", 2),
        ("cache-control: public, max-age=0\r\n", 2),
        ("cache-control: no-store\r\n", 2),
    ] {
        let idp = Idp::start();
        idp.key_fields(fields);
        let place = place(idp, "jwks_refresh = \"1s\"");
        place.gate.wait_ready();
        let (start, fetched) = (Instant::now(), place.idp.key_fetches());
        place.gate.wait_for("refreshes", || place.idp.key_fetches() >= fetched + at_least);
        let passed = start.elapsed();
        assert!(passed > Duration::from_millis(900), "{fields}: {passed:?}, not again and again");
    }
}

#[test]
fn a_restart_during_an_outage_serves_with_the_last_known_keys() {
    let (idp, upstream, dir) = (Idp::start(), Backend::start("production"), tempfile::tempdir().unwrap());
    let store = format!("[store]\npath = \"{}\"\n", dir.path().join("tollgate.redb").display());
    let gate = |lines: &str| {
        let mut config = config(&idp, &upstream, lines);
        config.rest = format!("{store}{}", config.rest);
        Gate::launch(move |ports| config.text(ports))
    };
    let first = gate("jwks_refresh = \"1s\"");
    first.wait_ready();
    // The second fetch comes after the first was written down, or at least asked to be.
    let fetched = idp.key_fetches();
    first.wait_for("refreshes", || idp.key_fetches() > fetched + 1);
    // Killed, not stopped.
    drop(first);
    idp.stop();
    let again = gate("");
    again.wait_ready();
    let forged = Token::of(&idp, "shop-web").key(&keys().es256_other, "es256").sign();
    for via in BOTH {
        let call = |token: &str| block_on(again.send(*via, &Request::get("/orders/v1/items/{m}").bearer(token))).status;
        assert_eq!(call(&Token::of(&idp, "shop-web").sign()), 200);
        assert_eq!(call(&forged), 401);
    }
    assert!(again.metric("tollgate_jwks_age_seconds", &[]) >= 0.0);
    drop(again);
    std::thread::sleep(Duration::from_millis(1100));
    let stale = gate("jwks_refresh = \"1s\"\njwks_max_stale = \"1s\"");
    assert_eq!(stale.admin("/readyz").status, 503, "they are as old as they are");
    let token = Token::of(&idp, "shop-web").sign();
    let answer = block_on(stale.send(Via::H1, &Request::get("/orders/v1/items/{m}").bearer(&token)));
    assert_eq!(answer.status, 503, "{answer:?}");
}

/// A certificate for `name` by `authority`, or by itself.
fn certificate(name: &str, authority: Option<&Issuer<'_, KeyPair>>, expired: bool) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if expired {
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let signed = match authority {
        Some(authority) => parameters.signed_by(&key, authority),
        None => parameters.self_signed(&key),
    };
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.unwrap().der().clone()], private)
        .unwrap();
    TlsAcceptor::from(Arc::new(server))
}

/// An authority and its root, in a file.
fn authority(file: &Path) -> Issuer<'static, KeyPair> {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = parameters.self_signed(&key).unwrap();
    std::fs::write(file, root.pem()).unwrap();
    Issuer::new(parameters, key)
}

#[test]
fn a_provider_is_who_its_certificate_says() {
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("roots.pem");
    let ours = authority(&roots);
    let strangers = authority(&dir.path().join("strangers.pem"));
    let upstream = Backend::start("production");
    for (case, tls, trusted) in [
        ("good", certificate("localhost", Some(&ours), false), true),
        ("another name", certificate("idp.example.com", Some(&ours), false), false),
        ("expired", certificate("localhost", Some(&ours), true), false),
        ("self-signed", certificate("localhost", None, false), false),
        ("by another authority", certificate("localhost", Some(&strangers), false), false),
    ] {
        let idp = Idp::secure(tls);
        let config = config(&idp, &upstream, "");
        let gate = Gate::launch_with(&[("SSL_CERT_FILE", &roots)], |ports| config.text(ports));
        if trusted {
            gate.wait_ready();
        } else {
            let failed = || gate.metric("tollgate_jwks_fetches_total", &["outcome=\"unreachable\""]);
            gate.wait_for(case, || failed() >= 2.0);
        }
        let token = Token::of(&idp, "shop-web").sign();
        for via in BOTH {
            let answer = block_on(gate.send(*via, &Request::get("/orders/v1/items/{m}").bearer(&token)));
            assert_eq!(answer.status, if trusted { 200 } else { 503 }, "{case}: {answer:?}");
        }
        assert_eq!(idp.discoveries() > 0, trusted, "{case}");
    }
    // There is no way to look away.
    let idp = Idp::start();
    for setting in ["insecure_skip_verify = true", "tls_verify = false"] {
        let text = config(&idp, &upstream, setting).with(&key_manager("x", &idp, ""));
        let file = dir.path().join("skip.toml");
        std::fs::write(&file, text.text(&crate::support::free_ports())).unwrap();
        let checked = crate::support::run(&["check", "--config", file.to_str().unwrap()]);
        assert_eq!(checked.status.code(), Some(78), "{setting}");
    }
}
