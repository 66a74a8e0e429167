//! Keys that are fetched: a new one, an outage, a reload.

use super::*;

#[tokio::test]
async fn a_new_key_passes_on_first_sight_and_a_flood_fetches_once() {
    let (old, new) = (Signer::new(Algorithm::ES256, "old"), Signer::new(Algorithm::ES256, "new"));
    let provider = Arc::new(Provider { delay: Duration::from_millis(20), ..Provider::with(&old.jwks()) });
    let (tokens, now) = with_provider(settings(ISSUER), &provider).await;
    let exp = now.unix() + 300;
    let token = |signer: &Signer| signer.token(&with(claims(), "exp", exp));
    let first = token(&old);
    assert_eq!(flaw(ask(&tokens, &first, now).await), None);
    assert_eq!(provider.count(), 1);

    *provider.answer.lock() = Some(new.jwks().to_string());
    let rotated = token(&new);
    let (a, b, c) = tokio::join!(ask(&tokens, &rotated, now), ask(&tokens, &rotated, now), ask(&tokens, &rotated, now));
    assert_eq!([flaw(a), flaw(b), flaw(c)], [None; 3]);
    assert_eq!(provider.count(), 2, "one fetch for all who wait");
    assert_eq!(flaw(ask(&tokens, &first, now).await), Some(Flaw::UnknownKey), "the old key has left");

    let stranger = |kid: usize| {
        new.sign(&json!({ "alg": "ES256", "kid": kid.to_string() }).to_string(), claims().to_string().as_bytes())
    };
    for kid in 0..100 {
        assert_eq!(flaw(ask(&tokens, &stranger(kid), after(now, 9)).await), Some(Flaw::UnknownKey));
    }
    assert_eq!(provider.count(), 2, "none within the cool-down");
    for kid in 0..100 {
        assert_eq!(flaw(ask(&tokens, &stranger(kid), after(now, 11)).await), Some(Flaw::UnknownKey));
    }
    assert_eq!(provider.count(), 3, "one after it");
    assert!(ask(&tokens, &rotated, after(now, 11)).await.is_ok_and(|good| good.from_cache));
}

#[tokio::test]
async fn an_outage_fails_no_good_token_until_the_keys_are_too_old() {
    let signer = Signer::new(Algorithm::ES256, "e");
    let provider = Arc::new(Provider::with(&signer.jwks()));
    let (tokens, now) = with_provider(changed(|s| s.jwks_cooldown = Span::seconds(1)), &provider).await;
    let token = |sub: &str| signer.token(&with(with(claims(), "exp", now.unix() + 100_000), "sub", sub));
    let cached = token("cached");
    assert_eq!(flaw(ask(&tokens, &cached, now).await), None);
    for broken in [None, Some("<!doctype html>".to_owned()), Some("{\"keys\":[]}".into()), Some("x".repeat(300 << 10))]
    {
        *provider.answer.lock() = broken;
        let fetches = provider.count();
        let stranger = signer.sign(r#"{"alg":"ES256","kid":"new"}"#, claims().to_string().as_bytes());
        let later = after(now, 10 * fetches as u64);
        assert!(is_unavailable(&ask(&tokens, &stranger, later).await), "an unknown kid cannot be judged");
        assert!(provider.count() > fetches);
        assert_eq!(flaw(ask(&tokens, &cached, later).await), None);
        assert_eq!(
            flaw(ask(&tokens, &token(&format!("new {fetches}")), later).await),
            None,
            "the last good set is kept"
        );
        assert!(is_unavailable(&ask(&tokens, &stranger, later).await), "and within the cool-down");
    }
    assert!(tokens.status(after(now, 3599))[0].ready);
    let stale = after(now, 3700);
    assert!(is_unavailable(&ask(&tokens, &cached, stale).await), "cached tokens too");
    assert!(is_unavailable(&ask(&tokens, &token("other"), stale).await));
    let status = &tokens.status(stale)[0];
    assert!(!status.ready && status.required && status.keys_age_s.is_some_and(|age| age > 3600));
    assert!(!is_unavailable(&ask(&tokens, &cached, after(now, 3000)).await), "kept for when the keys are back");
}

#[tokio::test]
async fn without_keys_nothing_is_judged_and_one_failing_holds_no_other_up() {
    let signer = Signer::new(Algorithm::ES256, "e");
    let (down, up) = (Arc::new(Provider::default()), Arc::new(Provider::with(&signer.jwks())));
    let tokens = empty();
    let other = changed(|s| (s.name, s.issuer) = ("up".into(), "https://up.example.com".into()));
    let clock = Arc::new(Clock::new());
    for issuer in put(&tokens, vec![(settings(ISSUER), remote(&down)), (other, remote(&up))], &[]) {
        tokio::spawn(issuer.run(Arc::clone(&clock), None));
    }
    wait_until(|| down.count() > 1 && tokens.status(clock.now())[1].ready).await;
    let now = clock.now();
    let token = |iss: &str| signer.token(&with(with(claims(), "iss", iss), "exp", now.unix() + 300));
    assert!(is_unavailable(&ask(&tokens, &token(ISSUER), now).await));
    assert_eq!(flaw(ask(&tokens, &token("https://up.example.com"), now).await), None);
    let status = tokens.status(now);
    assert!(!status[0].ready && status[0].keys_age_s.is_none());
    *down.answer.lock() = Some(signer.jwks().to_string());
    wait_until(|| tokens.status(clock.now())[0].ready).await;
    assert_eq!(flaw(ask(&tokens, &token(ISSUER), clock.now()).await), None);
}

#[tokio::test]
async fn waiters_on_another_runtime_get_their_keys() {
    let (old, new) = (Signer::new(Algorithm::ES256, "old"), Signer::new(Algorithm::ES256, "new"));
    let provider = Arc::new(Provider::with(&old.jwks()));
    let (tokens, now) = with_provider(settings(ISSUER), &provider).await;
    *provider.answer.lock() = Some(new.jwks().to_string());
    let token = new.token(&with(claims(), "exp", now.unix() + 300));
    let worker = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { flaw(ask(&tokens, &token, now).await) })
    });
    assert_eq!(worker.await.expect("no panic"), None);
}

#[tokio::test]
async fn a_retired_issuer_ends_its_task() {
    let signer = Signer::new(Algorithm::ES256, "e");
    let provider = Arc::new(Provider::with(&signer.jwks()));
    let tokens = empty();
    let started = put(&tokens, vec![(settings(ISSUER), remote(&provider))], &[]);
    let task = tokio::spawn(Arc::clone(&started[0]).run(Arc::new(Clock::new()), None));
    wait_until(|| tokens.status(Clock::new().now())[0].ready).await;
    let changed = changed(|s| s.leeway = Span::seconds(1));
    assert_eq!(put(&tokens, vec![(changed, remote(&provider))], &[]).len(), 1);
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("it ends").expect("no panic");
    assert!(tokens.status(Clock::new().now())[0].ready, "its successor goes on with its keys");
}

#[tokio::test]
async fn a_reload_goes_on_with_the_keys_of_the_same_provider() {
    let (ec, rsa) = (Signer::new(Algorithm::ES256, "e"), Signer::new(Algorithm::RS256, "r"));
    let provider = Arc::new(Provider::with(&json!({ "keys": [ec.jwk(), rsa.jwk()] })));
    let only_ec = |s: &mut KeyManagerSettings| s.algorithms = vec![Algorithm::ES256];
    let (tokens, now) = with_provider(changed(only_ec), &provider).await;
    let token = |signer: &Signer| signer.token(&with(claims(), "exp", now.unix() + 10_000));
    let (by_ec, by_rsa) = (token(&ec), token(&rsa));
    assert_eq!(flaw(ask(&tokens, &by_ec, now).await), None);
    assert_eq!(flaw(ask(&tokens, &by_rsa, now).await), Some(Flaw::Algorithm));
    // From here on no task runs: nothing is fetched.
    let reload = |settings| assert_eq!(put(&tokens, vec![(settings, remote(&provider))], &[]).len(), 1);
    reload(settings(ISSUER));
    assert_eq!(flaw(ask(&tokens, &by_rsa, now).await), None, "more algorithms");
    assert_eq!(flaw(ask(&tokens, &by_ec, now).await), None);
    reload(changed(only_ec));
    assert_eq!(flaw(ask(&tokens, &by_rsa, now).await), Some(Flaw::Algorithm), "fewer algorithms");
    reload(changed(|s| s.name = "renamed".into()));
    assert_eq!(flaw(ask(&tokens, &by_rsa, now).await), None, "another name");
    assert!(ask(&tokens, &by_rsa, now).await.is_ok_and(|good| good.from_cache));
    assert!(is_unavailable(&ask(&tokens, &by_rsa, after(now, 3700)).await), "they are as old as they were");
    reload(changed(|s| s.allow_http = true));
    assert_eq!(flaw(ask(&tokens, &by_ec, now).await), None);
    reload(settings(ISSUER));
    assert!(is_unavailable(&ask(&tokens, &by_ec, now).await), "what came by plain HTTP does not count any more");
}

#[tokio::test]
async fn keys_from_elsewhere_are_not_taken_over() {
    let signer = Signer::new(Algorithm::ES256, "e");
    let provider = Arc::new(Provider::with(&signer.jwks()));
    let (tokens, now) = with_provider(settings(ISSUER), &provider).await;
    let token = |iss: &str| signer.token(&with(with(claims(), "iss", iss), "exp", now.unix() + 300));
    let other = "https://other.example.com";
    let moved = changed(|s| s.jwks_uri = Some("https://keys.example.com/".into()));
    let elsewhere = changed(|s| (s.name, s.issuer) = ("other".into(), other.into()));
    put(&tokens, vec![(moved, remote(&provider)), (elsewhere, remote(&provider))], &[]);
    assert!(is_unavailable(&ask(&tokens, &token(ISSUER), now).await));
    assert!(is_unavailable(&ask(&tokens, &token(other), now).await));
}

#[tokio::test]
async fn a_fetch_under_way_at_a_reload_leaves_the_successor_its_keys() {
    let (old, new) = (Signer::new(Algorithm::ES256, "old"), Signer::new(Algorithm::ES256, "new"));
    let provider = Arc::new(Provider { delay: Duration::from_millis(50), ..Provider::with(&old.jwks()) });
    let tokens = empty();
    let clock = Arc::new(Clock::new());
    let started = put(&tokens, vec![(settings(ISSUER), remote(&provider))], &[]);
    let task = tokio::spawn(Arc::clone(&started[0]).run(Arc::clone(&clock), None));
    wait_until(|| tokens.status(clock.now())[0].ready).await;
    let now = clock.now();
    let token = |signer: &Signer| signer.token(&with(claims(), "exp", now.unix() + 300));
    let (first, stranger) = (token(&old), token(&new));
    *provider.answer.lock() = Some(new.jwks().to_string());
    let reload = async {
        wait_until(|| provider.count() == 2).await;
        put(&tokens, vec![(changed(|s| s.leeway = Span::seconds(1)), remote(&provider))], &[]);
    };
    let _ = tokio::join!(ask(&tokens, &stranger, now), reload);
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("it ends").expect("no panic");
    assert_eq!(flaw(ask(&tokens, &first, now).await), None);
    assert!(ask(&tokens, &first, now).await.is_ok_and(|good| good.from_cache), "its key is alive");
}
