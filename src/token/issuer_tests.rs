//! How an issuer fetches: when, how often, what it makes of the answers.

use serde_json::json;

use super::*;
use crate::{
    token::{
        metrics::Metrics,
        settings::{Algorithm, KeyManagerSettings},
        testing::{Provider, Signer, settings},
    },
    units::Span,
};

const ISSUER: &str = "https://idp.example.com";

fn issuer(provider: &Arc<Provider>, change: impl FnOnce(&mut KeyManagerSettings)) -> Arc<Issuer> {
    let mut settings = settings(ISSUER);
    change(&mut settings);
    let rules = Rules::build(settings, &Arc::default(), "").expect("good settings");
    let metrics = Metrics::register(&prometheus::Registry::new()).expect("a fresh registry");
    let counters = metrics.issuer(&rules.name, false);
    Arc::new(Issuer::new(rules, KeySource::Remote(Arc::clone(provider) as Arc<dyn FetchKeys>).into(), counters))
}

#[test]
fn good_keys_are_fetched_anew_long_before_they_are_too_old() {
    let delays = |refresh: u64, max_stale: u64| {
        let spans = (Span::seconds(refresh), Span::seconds(max_stale));
        let issuer = issuer(&Arc::default(), |s| (s.jwks_refresh, s.jwks_max_stale) = spans);
        let delays: Vec<f64> =
            (0..200).map(|_| pace::until_refresh(&issuer.rules.settings, None, false).as_secs_f64()).collect();
        let (least, most) = (delays.iter().copied().reduce(f64::min), delays.iter().copied().reduce(f64::max));
        least.zip(most).expect("200 of them")
    };
    let (least, most) = delays(300, 300);
    assert!(least < most && least >= 135.0 && most <= 165.0, "{least} to {most}");
    let (least, most) = delays(300, 3600);
    assert!(least >= 270.0 && most > 300.0 && most <= 330.0, "{least} to {most}");
    let (least, _) = delays(0, 0);
    assert!(least >= 0.18, "never without a pause");
}

#[test]
fn what_the_provider_says_moves_the_refresh_within_bounds() {
    for (refresh, max_stale, max_age, least, most) in [
        (300, 3600, Some(120), 108.0, 132.0),
        (300, 3600, Some(0), 27.0, 33.0),
        (300, 3600, Some(u64::MAX), 540.0, 660.0),
        (300, 3600, Some(1_000_000_000_000), 540.0, 660.0),
        (300, 3600, None, 270.0, 330.0),
        (3600, 36_000, Some(1), 324.0, 396.0),
        (60, 3600, Some(1), 9.0, 11.0),
        (1, 3600, Some(0), 0.9, 1.1),
        // Never past half of what the keys may live.
        (300, 600, Some(u64::MAX), 270.0, 330.0),
    ] {
        let spans = (Span::seconds(refresh), Span::seconds(max_stale));
        let issuer = issuer(&Arc::default(), |s| (s.jwks_refresh, s.jwks_max_stale) = spans);
        for _ in 0..50 {
            let delay =
                pace::until_refresh(&issuer.rules.settings, max_age.map(Duration::from_secs), false).as_secs_f64();
            assert!((least..=most).contains(&delay), "{refresh} {max_age:?}: {delay}");
        }
    }
}

/// When each of 500 gates that start together asks, up to `until`, in milliseconds.
async fn storm(answer: Option<&Signer>, until: Duration) -> Vec<u64> {
    let start = time::Instant::now();
    let mut providers = Vec::new();
    for _ in 0..500 {
        let set = Mutex::new(answer.map(|signer| signer.jwks().to_string()));
        let provider = Arc::new(Provider { answer: set, ..Provider::default() });
        tokio::spawn(issuer(&provider, |_| {}).run(Arc::new(Clock::new()), None));
        providers.push(provider);
    }
    time::sleep(until).await;
    let times = |provider: &Arc<Provider>| provider.asked.lock().clone();
    providers.iter().flat_map(times).map(|at| millis(at - start)).collect()
}

/// The most that fall within any `window` from `from` on.
fn peak(asked: &[u64], from: u64, window: u64) -> usize {
    let later: Vec<u64> = asked.iter().copied().filter(|at| *at >= from).collect();
    let from = |start: &u64| later.iter().filter(|at| (*start..start + window).contains(*at)).count();
    later.iter().map(from).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_fetches_after_a_restart_storm_are_spread_out() {
    fastrand::seed(7);
    let signer = Signer::new(Algorithm::ES256, "e");
    let asked = storm(Some(&signer), Duration::from_secs(900)).await;
    let at_once = asked.iter().filter(|at| **at < 1000).count();
    assert_eq!(at_once, 500, "the first fetch waits for nothing");
    assert!(asked.len() > 1500, "{}", asked.len());
    // Spread evenly, 500 refreshes in 150 s are 3.3 a second.
    let peak = peak(&asked, 1000, 1000);
    assert!(peak <= 25, "{peak} in one second");
}

#[tokio::test(start_paused = true)]
async fn retries_after_a_restart_storm_are_spread_out() {
    fastrand::seed(7);
    let asked = storm(None, Duration::from_secs(120)).await;
    assert_eq!(asked.iter().filter(|at| **at == 0).count(), 500);
    // Five rounds later they are strangers: even, 500 in 30 s are 1.7 in 100 ms.
    let peak = peak(&asked, 30_000, 100);
    assert!(peak > 0 && peak <= 15, "{peak} in 100 ms");
}

#[tokio::test]
async fn the_address_is_looked_up_again_when_the_keys_are_of_no_use_or_lack_one() {
    let signer = Signer::new(Algorithm::ES256, "e");
    let provider = Arc::new(Provider::with(&json!({ "keys": [] })));
    let issuer = issuer(&provider, |_| {});
    let clock = Arc::new(Clock::new());
    let task = tokio::spawn(Arc::clone(&issuer).run(Arc::clone(&clock), None));
    let wait_for = async |count: usize| {
        while provider.count() < count {
            time::sleep(Duration::from_millis(2)).await;
        }
    };
    // The answer is taken some time after the fetch is counted: that of the first one must have failed.
    while !issuer.is_failing() {
        time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(provider.count(), 1);
    *provider.answer.lock() = Some(signer.jwks().to_string());
    wait_for(2).await;
    while issuer.is_failing() {
        time::sleep(Duration::from_millis(2)).await;
    }
    issuer.wake.notify_one();
    wait_for(3).await;
    assert_eq!(issuer.renew(issuer.version(), clock.now()).await, Renewal::Fetched);
    assert_eq!(*provider.rediscovered.lock(), [false, true, false, true]);
    issuer.retire();
    time::timeout(Duration::from_secs(5), task).await.expect("it ends").expect("no panic");
}

#[tokio::test]
async fn whoever_was_late_for_newer_keys_looks_again_and_fetches_nothing() {
    let (old, new) = (Signer::new(Algorithm::ES256, "old"), Signer::new(Algorithm::ES256, "new"));
    let provider = Arc::new(Provider::with(&old.jwks()));
    let issuer = issuer(&provider, |_| {});
    let clock = Arc::new(Clock::new());
    let task = tokio::spawn(Arc::clone(&issuer).run(Arc::clone(&clock), None));
    while issuer.version().is_none() {
        time::sleep(Duration::from_millis(2)).await;
    }
    let lacking = issuer.version();
    *provider.answer.lock() = Some(new.jwks().to_string());
    assert_eq!(issuer.renew(lacking, clock.now()).await, Renewal::Fetched);
    // Its keys were read before that fetch ended, its wish came after: the cool-down is not for it.
    assert_eq!(issuer.renew(lacking, clock.now()).await, Renewal::Fetched);
    assert_eq!(issuer.renew(issuer.version(), clock.now()).await, Renewal::Same);
    assert_eq!(provider.count(), 2);
    issuer.retire();
    time::timeout(Duration::from_secs(5), task).await.expect("it ends").expect("no panic");
}

#[tokio::test]
async fn a_restart_during_an_outage_goes_on_with_the_last_known_keys() {
    let signer = Signer::new(Algorithm::ES256, "e");
    let record = Record::in_memory().expect("memory");
    let run = |provider: &Arc<Provider>, max_stale: u64| {
        let issuer = issuer(provider, |s| s.jwks_max_stale = Span::seconds(max_stale));
        let clock = Arc::new(Clock::new());
        tokio::spawn(Arc::clone(&issuer).run(Arc::clone(&clock), Some(record.clone())));
        (issuer, clock)
    };
    let kept = || {
        let settings = settings(ISSUER);
        Known::of(&settings, record.clone()).load(Clock::new().now())
    };
    let shown = json!({ "keys": [{ "d": "AA" }, signer.jwk()] });
    let (issuer, _) = run(&Arc::new(Provider::with(&shown)), 3600);
    while issuer.keys.load().is_none() {
        time::sleep(Duration::from_millis(2)).await;
    }
    time::sleep(Duration::from_millis(50)).await;
    assert!(kept().is_none(), "private keys are not written down");
    let (issuer, _) = run(&Arc::new(Provider::with(&signer.jwks())), 3600);
    while kept().is_none() {
        time::sleep(Duration::from_millis(2)).await;
    }
    issuer.retire();
    // The restart: nobody answers.
    for (max_stale, expected) in [(3600, true), (0, false)] {
        time::sleep(Duration::from_millis(5)).await;
        let down = Arc::new(Provider::default());
        let (issuer, clock) = run(&down, max_stale);
        while down.count() == 0 {
            time::sleep(Duration::from_millis(2)).await;
        }
        let status = issuer.status(clock.now());
        assert_eq!(status.ready, expected, "{status:?}");
        assert_eq!(issuer.keys.load().is_some(), expected);
        issuer.retire();
    }
}

#[tokio::test]
async fn an_empty_answer_is_no_set_even_beside_shared_keys() {
    let provider = Arc::new(Provider { answer: Mutex::new(Some(String::new())), ..Provider::default() });
    let issuer = issuer(&provider, |s| {
        s.algorithms.push(Algorithm::HS256);
        let shared = r#"[{"alg":"HS256","secret":"a secret of 32 bytes, or longer!"}]"#;
        s.secret_keys = serde_json::from_str(shared).expect("good settings");
    });
    let task = tokio::spawn(Arc::clone(&issuer).run(Arc::new(Clock::new()), None));
    while !issuer.is_failing() {
        time::sleep(Duration::from_millis(2)).await;
    }
    assert!(issuer.keys.load().is_none());
    issuer.retire();
    time::timeout(Duration::from_secs(5), task).await.expect("it ends").expect("no panic");
}

#[tokio::test]
async fn a_fetch_that_outlives_its_issuer_changes_nothing() {
    let signer = Signer::new(Algorithm::ES256, "e");
    let provider = Arc::new(Provider { delay: Duration::from_millis(50), ..Provider::with(&signer.jwks()) });
    let issuer = issuer(&provider, |_| {});
    let task = tokio::spawn(Arc::clone(&issuer).run(Arc::new(Clock::new()), None));
    while provider.count() == 0 {
        time::sleep(Duration::from_millis(2)).await;
    }
    issuer.retire();
    time::timeout(Duration::from_secs(5), task).await.expect("it ends").expect("no panic");
    assert!(issuer.keys.load().is_none());
}
