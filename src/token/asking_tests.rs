//! Which tokens a provider is asked about: by pattern, by `validation`, and in a flood.

use super::*;

#[tokio::test]
async fn patterns_say_whose_an_opaque_token_is() {
    let [a, b] = [Oracle::new(active), Oracle::new(active)];
    let manager = |name: &str, pattern: Option<&str>, oracle| {
        (changed(name, |s| s.token_pattern = pattern.map(Into::into)), asked(keys().1, oracle))
    };
    let calls = |tokens: Arc<Authenticator>, token: &'static str, allowed: KeyManagerSet| {
        let before = (a.calls(), b.calls());
        let (a, b) = (Arc::clone(&a), Arc::clone(&b));
        async move {
            let outcome = flaw(tokens.authenticate(token, &allowed, None, NOW).await);
            (a.calls() - before.0, b.calls() - before.1, outcome)
        }
    };
    let all = KeyManagerSet::all;
    let tokens = with(vec![manager("a", Some("^a_[a-z]+$"), &a), manager("b", Some("[ab]_[a-z.]+"), &b)]);
    assert_eq!(calls(Arc::clone(&tokens), "a_x", all()).await, (1, 0, None), "the first declared");
    assert_eq!(calls(Arc::clone(&tokens), "b_x", all()).await, (0, 1, None));
    assert_eq!(calls(Arc::clone(&tokens), "b_x.y.z", all()).await, (0, 1, None), "a JWT's form, and its pattern");
    assert_eq!(calls(Arc::clone(&tokens), "a_X", all()).await, (0, 0, Some(Flaw::Opaque)), "only whole");
    assert_eq!(calls(Arc::clone(&tokens), "a_y", only(&["b"], 1)).await, (0, 1, None), "the API's own ones");
    assert_eq!(calls(Arc::clone(&tokens), "b_y", only(&["a"], 2)).await, (0, 0, Some(Flaw::Opaque)));

    let tokens = with(vec![manager("a", None, &a), manager("b", None, &b)]);
    assert_eq!(calls(Arc::clone(&tokens), "x", all()).await, (0, 0, Some(Flaw::Opaque)), "two, and no pattern");
    assert_eq!(calls(Arc::clone(&tokens), "x", only(&["b"], 1)).await, (0, 1, None), "a single one");

    let verified = (changed("v", |s| s.validation = Validation::Jwt), asked(keys().1, &b));
    let tokens = with(vec![manager("a", None, &a), verified]);
    assert_eq!(calls(Arc::clone(&tokens), "x", all()).await, (1, 0, None), "the other is not asked");
    for (token, expected) in [
        ("a.b.c", Flaw::Malformed),
        ("e30.e30.AA", Flaw::Algorithm),
        ("a.b.c.d.e", Flaw::Encrypted),
        ("a\u{7f}b", Flaw::Malformed),
        ("a b", Flaw::Malformed),
        ("ä", Flaw::Malformed),
    ] {
        assert_eq!(calls(Arc::clone(&tokens), token, all()).await, (0, 0, Some(expected)), "{token}");
    }
    assert_eq!(calls(Arc::clone(&tokens), "a.b.c.d", all()).await, (1, 0, None), "neither JWT nor JWE");

    let mixed = with(vec![manager("a", Some("a_.*"), &a), manager("b", None, &b)]);
    assert_eq!(calls(mixed, "b_x", all()).await, (0, 0, Some(Flaw::Opaque)), "without a pattern nobody takes the rest");
}

#[tokio::test]
async fn under_introspect_a_jwt_is_asked_about_and_not_verified() {
    let (ours, source) = keys();
    let oracle = Oracle::new(active);
    let tokens = with(vec![(changed("a", |s| s.validation = Validation::Introspect), asked(source, &oracle))]);
    let attacker = Signer::new(Algorithm::ES256, "e");
    let claims = json!({ "iss": ISSUER, "exp": NOW.unix() + 300 });
    assert_eq!(flaw(ask(&tokens, &attacker.token(&claims), NOW).await), None, "the provider has the word");
    assert_eq!(flaw(ask(&tokens, &ours.token(&claims), NOW).await), None);
    assert_eq!(oracle.calls(), 2);
    oracle.says(|_| Ok((AnswerForm::Json, r#"{"active":false}"#.into())));
    let other = json!({ "iss": ISSUER, "exp": NOW.unix() + 301 });
    assert_eq!(flaw(ask(&tokens, &ours.token(&other), NOW).await), Some(Flaw::Inactive));
    let foreign = json!({ "iss": "https://evil.example.com", "exp": NOW.unix() + 300 });
    assert_eq!(flaw(ask(&tokens, &ours.token(&foreign), NOW).await), Some(Flaw::UnknownIssuer));
    assert_eq!(oracle.calls(), 3, "another's is none of its business");
    for typ in ["logout+jwt", "secevent+jwt", "dpop+jwt", "id_token"] {
        let header = format!(r#"{{"alg":"ES256","kid":"e","typ":"{typ}"}}"#);
        let token = ours.sign(&header, claims.to_string().as_bytes());
        assert_eq!(flaw(ask(&tokens, &token, NOW).await), Some(Flaw::Type), "{typ}");
    }
    assert_eq!(oracle.calls(), 3, "nor is what says that it is no access token");
    assert_eq!(flaw(ask(&tokens, "a.b.c.d.e", NOW).await), Some(Flaw::Inactive), "a JWE is for the provider to say");
    let no_keys =
        with(vec![(changed("a", |s| s.validation = Validation::Introspect), asked(KeySource::NONE, &oracle))]);
    oracle.says(|token| Ok((AnswerForm::Json, active(token).to_string())));
    assert_eq!(flaw(ask(&no_keys, "opaque", NOW).await), None);
    assert!(no_keys.status(NOW)[0].ready);
}

#[tokio::test]
async fn under_both_signature_and_provider_must_agree() {
    let (ours, source) = keys();
    let oracle = Oracle::new(|_| json!({ "active": true, "exp": NOW.unix() + 20 }));
    let both = || changed("a", |s| (s.validation, s.audience) = (Validation::Both, vec!["orders".into()]));
    let tokens = with(vec![(both(), asked(source, &oracle))]);
    let claims = |n: u64| json!({ "iss": ISSUER, "aud": "orders", "sub": "ada", "exp": NOW.unix() + n });
    let attacker = Signer::new(Algorithm::ES256, "e");
    assert_eq!(flaw(ask(&tokens, &attacker.token(&claims(300)), NOW).await), Some(Flaw::Signature));
    let unsigned = format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(claims(300).to_string()));
    assert_eq!(flaw(ask(&tokens, &unsigned, NOW).await), Some(Flaw::Algorithm));
    assert_eq!(flaw(ask(&tokens, "opaque", NOW).await), Some(Flaw::Opaque), "nothing to verify");
    assert_eq!(oracle.calls(), 0, "none of them costs the provider anything");

    let token = ours.token(&claims(300));
    let good = ask(&tokens, &token, NOW).await.expect("both say yes");
    assert_eq!(good.identity.subject.as_deref(), Some("ada"), "the token's own words");
    assert!(ask(&tokens, &token, after(19)).await.is_ok_and(|good| good.from_cache));
    assert_eq!(oracle.calls(), 1);
    assert!(ask(&tokens, &token, after(21)).await.is_ok_and(|good| !good.from_cache), "the earlier exp ends it");
    oracle.says(|_| Ok((AnswerForm::Json, r#"{"active":false}"#.into())));
    assert_eq!(flaw(ask(&tokens, &ours.token(&claims(301)), NOW).await), Some(Flaw::Inactive));
    oracle.says(|_| Err(IntrospectError::Timeout("x".into())));
    assert!(is_unavailable(&ask(&tokens, &ours.token(&claims(302)), NOW).await));
}

#[tokio::test]
async fn the_same_token_of_two_providers_is_two_tokens() {
    let [a, b] = [Oracle::new(|_| json!({ "active": true, "sub": "a" })), Oracle::new(|_| json!({ "active": false }))];
    let manager =
        |name, oracle| (changed(name, |s| s.issuer = format!("https://{name}.example.com")), asked(keys().1, oracle));
    let tokens = with(vec![manager("a", &a), manager("b", &b)]);
    let (only_a, only_b) = (only(&["a"], 1), only(&["b"], 2));
    for _ in 0..2 {
        assert_eq!(flaw(tokens.authenticate("same", &only_a, None, NOW).await), None);
        assert_eq!(flaw(tokens.authenticate("same", &only_b, None, NOW).await), Some(Flaw::Inactive));
    }
    assert_eq!((a.calls(), b.calls()), (1, 1));
}

#[tokio::test]
async fn a_flood_of_one_address_is_stopped_and_good_tokens_pass() {
    let oracle = Oracle::new(mirror);
    let tokens = one(&oracle);
    tokens.set_limits(&CacheSettings::default(), 10, Duration::from_secs(60));
    let from = |client: &str| Some(client.parse::<IpAddr>().expect("an address"));
    let (attacker, user) = (from("192.0.2.66"), from("192.0.2.1"));
    let all = KeyManagerSet::all();
    let ask = async |token: String, client| tokens.authenticate(&token, &all, client, NOW).await;
    assert_eq!(flaw(ask("op_known".into(), attacker).await), None);
    let mut flooded = 0;
    for n in 0..1000 {
        match ask(format!("random{n}"), attacker).await {
            Err(Rejection::Invalid(Flaw::Inactive)) => {}
            Err(Rejection::Flooded(flood)) => {
                assert!(flood.limit == 10 && (1..=60).contains(&flood.reset_s), "{flood:?}");
                flooded += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((flooded, oracle.calls()), (990, 11));
    assert_eq!(flaw(ask("op_known".into(), attacker).await), None, "what is known passes");
    assert_eq!(flaw(ask("random0".into(), attacker).await), Some(Flaw::Inactive), "and is refused, without asking");
    assert!(matches!(ask("op_new".into(), attacker).await, Err(Rejection::Flooded(_))));
    assert_eq!(flaw(ask("e30.e30.AA".into(), attacker).await), Some(Flaw::Algorithm), "JWTs stay 401");
    assert_eq!(flaw(ask("op_new".into(), user).await), None, "others are served");
    let next = after(60);
    assert_eq!(flaw(tokens.authenticate("op_later", &all, attacker, next).await), None, "in the next window");
}

#[tokio::test]
async fn a_flood_does_not_keep_a_good_token_from_being_asked_about_again() {
    let oracle = Oracle::new(mirror);
    let tokens = one(&oracle);
    tokens.set_limits(&CacheSettings::default(), 10, Duration::from_secs(3600));
    let all = KeyManagerSet::all();
    let shared = Some("192.0.2.66".parse::<IpAddr>().expect("an address"));
    let ask = async |token: &str, now| tokens.authenticate(token, &all, shared, now).await;
    assert_eq!(flaw(ask("op_user", NOW).await), None);
    for n in 0..20 {
        let _refused = ask(&format!("random{n}"), NOW).await;
    }
    assert!(matches!(ask("op_new", NOW).await, Err(Rejection::Flooded(_))));
    let calls = oracle.calls();
    // Its time in the cache is over, twice; a provider that is away meanwhile changes nothing.
    assert_eq!(flaw(ask("op_user", after(61)).await), None);
    oracle.says(|_| Err(IntrospectError::Timeout("x".into())));
    assert!(is_unavailable(&ask("op_user", after(122)).await));
    oracle.says(|_| Ok((AnswerForm::Json, r#"{"active":true}"#.into())));
    assert_eq!(flaw(ask("op_user", after(123)).await), None);
    assert_eq!(oracle.calls(), calls + 3);
    // Once it is no good it is as any other.
    oracle.says(|_| Ok((AnswerForm::Json, r#"{"active":false}"#.into())));
    assert_eq!(flaw(ask("op_user", after(184)).await), Some(Flaw::Inactive));
    assert_eq!(flaw(ask("op_user", after(185)).await), Some(Flaw::Inactive), "remembered");
    assert!(matches!(ask("op_user", after(195)).await, Err(Rejection::Flooded(_))));
}

#[tokio::test]
async fn a_flood_evicts_no_good_token_and_memory_stays_within_the_cap() {
    let oracle = Oracle::new(mirror);
    let cap = 256 << 10;
    let cache = CacheSettings { tokens: Size(cap), negative: Size(64 << 10), ..CacheSettings::default() };
    let tokens = Authenticator::new(&cache, &prometheus::Registry::new()).expect("a fresh registry");
    put(&tokens, vec![(settings(ISSUER), asked(keys().1, &oracle))]);
    let good: Vec<String> = (0..50).map(|n| format!("op_good{n}")).collect();
    for token in good.iter().cycle().take(500) {
        assert_eq!(flaw(ask(&tokens, token, NOW).await), None);
    }
    for n in 0..20_000 {
        assert_eq!(flaw(ask(&tokens, &format!("random{n}"), NOW).await), Some(Flaw::Inactive));
    }
    let calls = oracle.calls();
    for token in &good {
        assert!(ask(&tokens, token, NOW).await.is_ok_and(|good| good.from_cache), "{token}");
    }
    assert_eq!(oracle.calls(), calls);
    for n in 0..20_000 {
        let _evicted_or_not = ask(&tokens, &format!("op_{n}"), NOW).await;
    }
    let (entries, bytes) = tokens.cache.size();
    assert!(entries > 50 && bytes <= cap + cap / 10, "{entries} entries, {bytes} bytes");
}
