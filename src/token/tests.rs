//! Tokens from text to verdict, really signed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::{
    Authenticated, Authenticator, FetchKeys, Flaw, Issuer, KeyManagers, KeySource, Refused, Rejection,
    settings::{Algorithm, CacheSettings, KeyManagerSettings, TypRule},
    sight::Sight,
    testing::{Provider, Signer, ask, b64, flaw, is_unavailable, settings},
    turns::Turn,
};
use crate::{
    net::{Clock, Now},
    store::KeyManagerSet,
    units::{Size, Span},
};

#[path = "renewal_tests.rs"]
mod renewal;

const ISSUER: &str = "https://idp.example.com/realms/shop";
const NOW: Now = Now::at_ms(1_800_000_000_000);

fn after(now: Now, seconds: u64) -> Now {
    Now { unix_ms: now.unix_ms + seconds * 1000, steady_ms: now.steady_ms + seconds * 1000 }
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": "ada", "client_id": "shop-web", "scope": "orders:read", "exp": NOW.unix() + 300 })
}

fn with(mut claims: Value, name: &str, value: impl Into<Value>) -> Value {
    claims[name] = value.into();
    claims
}

fn changed(change: impl FnOnce(&mut KeyManagerSettings)) -> KeyManagerSettings {
    let mut settings = settings(ISSUER);
    change(&mut settings);
    settings
}

fn empty() -> Authenticator {
    Authenticator::new(&CacheSettings::default(), &prometheus::Registry::new()).expect("a fresh registry")
}

fn put(tokens: &Authenticator, managers: Vec<(KeyManagerSettings, KeySource)>, headers: &[&str]) -> Vec<Arc<Issuer>> {
    let headers = headers.iter().map(|name| (*name).into()).collect();
    tokens.replace(KeyManagers::build(managers, &headers).expect("good settings"))
}

/// One key manager with these keys by hand.
fn with_keys(settings: KeyManagerSettings, keys: &Value) -> Authenticator {
    let tokens = empty();
    put(&tokens, vec![(settings, KeySource::fixed(keys))], &[]);
    tokens
}

fn remote(provider: &Arc<Provider>) -> KeySource {
    KeySource::Remote(Arc::clone(provider) as Arc<dyn FetchKeys>)
}

/// One key manager whose keys come from `provider`, its task running and its first fetch done.
async fn with_provider(settings: KeyManagerSettings, provider: &Arc<Provider>) -> (Authenticator, Now) {
    let tokens = empty();
    let clock = Arc::new(Clock::new());
    for issuer in put(&tokens, vec![(settings, remote(provider))], &[]) {
        tokio::spawn(issuer.run(Arc::clone(&clock), None));
    }
    wait_until(|| provider.count() > 0 && tokens.status(clock.now())[0].ready).await;
    (tokens, clock.now())
}

async fn wait_until(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), poll).await.expect("it comes about");
}

fn only(names: &[&str]) -> KeyManagerSet {
    KeyManagerSet { names: names.iter().map(|name| (*name).into()).collect(), id: 7 }
}

#[tokio::test]
async fn every_algorithm_passes_and_is_remembered() {
    use Algorithm::{ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    for algorithm in [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA] {
        let signer = Signer::new(algorithm, "k");
        let tokens = with_keys(settings(ISSUER), &signer.jwks());
        let token = signer.token(&claims());
        let first = ask(&tokens, &token, NOW).await.expect("good");
        assert!(!first.from_cache, "{algorithm:?}");
        assert_eq!(first.identity.common.consumer_key.as_deref(), Some("shop-web"));
        let second = ask(&tokens, &token, NOW).await.expect("good");
        assert!(second.from_cache && Arc::ptr_eq(&first.identity, &second.identity), "{algorithm:?}");
        // The same signature over other bytes.
        let (_, signature) = token.rsplit_once('.').expect("three parts");
        let other = signer.token(&with(claims(), "sub", "eve"));
        let (signed, _) = other.rsplit_once('.').expect("three parts");
        assert_eq!(
            flaw(ask(&tokens, &format!("{signed}.{signature}"), NOW).await),
            Some(Flaw::Signature),
            "{algorithm:?}"
        );
    }
}

#[tokio::test]
async fn attacks_on_header_and_signature_are_refused() {
    let (ec, rsa) = (Signer::new(Algorithm::ES256, "e"), Signer::new(Algorithm::RS256, "r"));
    let attacker = Signer::new(Algorithm::ES256, "e");
    let mut named = Signer::new(Algorithm::RS256, "named").jwk();
    named["alg"] = "RS256".into();
    let mut enc = Signer::new(Algorithm::ES256, "enc").jwk();
    enc["use"] = "enc".into();
    let secret = [7; 32];
    let oct = json!({ "kty": "oct", "kid": "oct", "k": b64(secret) });
    let keys = json!({ "keys": [ec.jwk(), rsa.jwk(), named, enc, oct] });
    let tokens = with_keys(settings(ISSUER), &keys);
    let good = claims().to_string();
    let header = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid }).to_string();
    let signed = |alg: &str, kid: &str| format!("{}.{}", b64(header(alg, kid)), b64(&good));
    let hmac = |kid: &str, key: &[u8]| {
        let signed = signed("HS256", kid);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
        format!("{signed}.{}", b64(tag))
    };
    let bare = |signature: &[u8]| format!("{}.{}", signed("ES256", "e"), b64(signature));
    let modulus = rsa.jwk()["n"].to_string();
    let whole = ec.raw(Algorithm::ES256, signed("ES256", "e").as_bytes());
    let der = [&[0x30, 0x44, 2, 0x20][..], &whole[..32], &[2, 0x20], &whole[32..]].concat();
    let ps = rsa.raw(Algorithm::PS256, signed("PS256", "named").as_bytes());
    let order = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let jwk_header =
        json!({ "alg": "ES256", "kid": "e", "jwk": attacker.jwk(), "jku": "http://169.254.169.254/", "x5c": ["AA"] });
    let text = |signer: &Signer, header: &str, payload: &str| signer.sign(header, payload.as_bytes());
    let rows = [
        ("good", bare(&whole), None),
        ("T01 none", format!("{}.{}.", b64(header("none", "e")), b64(&good)), Some(Flaw::Algorithm)),
        ("T03 modulus as secret", hmac("r", modulus.as_bytes()), Some(Flaw::Algorithm)),
        ("T03 JWK as secret", hmac("r", rsa.jwk().to_string().as_bytes()), Some(Flaw::Algorithm)),
        ("T04 padded", hmac("r", format!("\n{}", rsa.jwk()).as_bytes()), Some(Flaw::Algorithm)),
        ("T05 point as secret", hmac("e", ec.jwk()["x"].to_string().as_bytes()), Some(Flaw::Algorithm)),
        ("T06 other family", text(&ec, &header("RS256", "e"), &good), Some(Flaw::Algorithm)),
        ("T07 alg of the JWK", format!("{}.{}", signed("PS256", "named"), b64(ps)), Some(Flaw::Algorithm)),
        ("T09 oct", hmac("oct", &secret), Some(Flaw::Algorithm)),
        ("T09 oct is no key", text(&ec, &header("ES256", "oct"), &good), Some(Flaw::UnknownKey)),
        ("T10 use enc", text(&ec, &header("ES256", "enc"), &good), Some(Flaw::UnknownKey)),
        ("T11 no signature", bare(&[]), Some(Flaw::Signature)),
        ("T12 zeros", bare(&[0; 64]), Some(Flaw::Signature)),
        ("T12 ones", bare(&[[0; 31].as_slice(), &[1], &[0; 31], &[1]].concat()), Some(Flaw::Signature)),
        ("T12 order", bare(&[order, order].concat()), Some(Flaw::Signature)),
        ("T13 DER", bare(&der), Some(Flaw::Signature)),
        ("T13 short", bare(&whole[..63]), Some(Flaw::Signature)),
        ("T13 long", bare(&[&whole[..], &[0]].concat()), Some(Flaw::Signature)),
        ("T14 other curve", text(&ec, &header("ES384", "e"), &good), Some(Flaw::Algorithm)),
        ("T14 ES256K", text(&ec, &header("ES256K", "e"), &good), Some(Flaw::Algorithm)),
        ("T21 crit", text(&ec, r#"{"alg":"ES256","kid":"e","crit":["bork"],"bork":1}"#, &good), Some(Flaw::Critical)),
        ("T23 b64", text(&ec, r#"{"alg":"ES256","kid":"e","crit":["b64"],"b64":false}"#, &good), Some(Flaw::Critical)),
        ("T24 embedded key", attacker.sign(&jwk_header.to_string(), good.as_bytes()), Some(Flaw::Signature)),
        ("T25 jku ignored", ec.sign(&jwk_header.to_string(), good.as_bytes()), None),
        ("T27 kid is a path", text(&ec, &header("ES256", "../../dev/null"), &good), Some(Flaw::UnknownKey)),
        ("T27 kid prefix", text(&ec, &header("ES256", "e\0"), &good), Some(Flaw::UnknownKey)),
        ("T30 no kid", text(&ec, r#"{"alg":"ES256"}"#, &good), None),
        ("T30 no kid, wrong key", text(&attacker, r#"{"alg":"ES256"}"#, &good), Some(Flaw::Signature)),
        ("T31 twin header", text(&ec, r#"{"alg":"ES256","kid":"e","kid":"e"}"#, &good), Some(Flaw::Malformed)),
        ("T33 padding", format!("{}=", bare(&whole)), Some(Flaw::Malformed)),
        ("T34 four parts", format!("{}.AA", bare(&whole)), Some(Flaw::Opaque)),
        ("T36 JWE", "e30.AA.AA.AA.AA".into(), Some(Flaw::Encrypted)),
        ("T42 huge", format!("{}.{}", bare(&whole), "A".repeat(1 << 20)), Some(Flaw::Malformed)),
        ("C13 logout token", text(&ec, r#"{"alg":"ES256","kid":"e","typ":"logout+jwt"}"#, &good), Some(Flaw::Type)),
        ("C13 security event", text(&ec, r#"{"alg":"ES256","kid":"e","typ":"secevent+jwt"}"#, &good), Some(Flaw::Type)),
        ("opaque", "op_123456".into(), Some(Flaw::Opaque)),
        ("empty", String::new(), Some(Flaw::Opaque)),
    ];
    for (name, token, expected) in rows {
        assert_eq!(flaw(ask(&tokens, &token, NOW).await), expected, "{name}");
        assert_eq!(flaw(ask(&tokens, &token, NOW).await), expected, "{name}, again");
    }
}

#[tokio::test]
async fn attacks_on_the_payload_are_refused() {
    let signer = Signer::new(Algorithm::ES256, "e");
    let tokens = with_keys(settings(ISSUER), &signer.jwks());
    let header = r#"{"alg":"ES256","kid":"e"}"#;
    let start = format!("{{\"iss\":\"{ISSUER}\",\"exp\":1800000300");
    let deep = format!("{start},\"x\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let deepest = format!("{start},\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let rows: Vec<(&str, Vec<u8>, Option<Flaw>)> = vec![
        ("good", format!("{start}}}").into(), None),
        ("T32 two exp", format!("{start},\"exp\":1900000000}}").into(), Some(Flaw::Malformed)),
        ("T32 escaped twin", format!("{start},\"\\u0065xp\":1900000000}}").into(), Some(Flaw::Malformed)),
        ("T32 deep twin", format!("{start},\"a\":[{{\"b\":1,\"b\":2}}]}}").into(), Some(Flaw::Malformed)),
        ("T41 deep", deep.into(), Some(Flaw::Malformed)),
        ("T41 deeper", deepest.into(), Some(Flaw::Malformed)),
        ("T43 not UTF-8", [start.as_bytes(), b",\"sub\":\"\xff\"}"].concat(), Some(Flaw::Malformed)),
        ("T44 text", b"\"str\"".to_vec(), Some(Flaw::Malformed)),
        ("T44 list", b"[]".to_vec(), Some(Flaw::Malformed)),
        ("T44 null", b"null".to_vec(), Some(Flaw::Malformed)),
        ("T44 number", b"1".to_vec(), Some(Flaw::Malformed)),
        ("T44 nothing", Vec::new(), Some(Flaw::Malformed)),
        ("C01 exp as text", format!("{{\"iss\":\"{ISSUER}\",\"exp\":\"9999999999\"}}").into(), Some(Flaw::Malformed)),
        ("C02 nbf as text", format!("{start},\"nbf\":\"99999999999\"}}").into(), Some(Flaw::Malformed)),
        ("C03 no exp", format!("{{\"iss\":\"{ISSUER}\"}}").into(), Some(Flaw::MissingExpiry)),
        ("P18 cnf", format!("{start},\"cnf\":{{\"foo\":1}}}}").into(), Some(Flaw::Bound)),
        ("no iss", b"{\"exp\":1800000300}".to_vec(), Some(Flaw::UnknownIssuer)),
        ("iss in a list", format!("{{\"iss\":[\"{ISSUER}\"],\"exp\":1800000300}}").into(), Some(Flaw::Malformed)),
    ];
    for (name, payload, expected) in rows {
        assert_eq!(flaw(ask(&tokens, &signer.sign(header, &payload), NOW).await), expected, "{name}");
    }
    for iss in [
        "https://idp.example.com/realms/shop/",
        "http://idp.example.com/realms/shop",
        "https://IDP.example.com/realms/shop",
        "https://idp.example.com/realms/sho%70",
        "https://idp.example.com/realms/shop.evil",
        "https://idp.example.com/realms",
        "",
    ] {
        let token = signer.token(&with(claims(), "iss", iss));
        assert_eq!(flaw(ask(&tokens, &token, NOW).await), Some(Flaw::UnknownIssuer), "C07 {iss}");
    }
}

#[tokio::test]
async fn the_profile_narrows_typ_and_alg() {
    let signer = Signer::new(Algorithm::ES256, "e");
    let profile = changed(|s| s.typ = TypRule::AtJwt);
    let tokens = with_keys(profile, &signer.jwks());
    for (typ, expected) in [
        (json!({ "alg": "ES256", "kid": "e" }), Some(Flaw::Type)),
        (json!({ "alg": "ES256", "kid": "e", "typ": "JWT" }), Some(Flaw::Type)),
        (json!({ "alg": "ES256", "kid": "e", "typ": "application/at+jwt" }), None),
        (json!({ "alg": "ES256", "kid": "e", "typ": "AT+JWT" }), None),
    ] {
        let token = signer.sign(&typ.to_string(), claims().to_string().as_bytes());
        assert_eq!(flaw(ask(&tokens, &token, NOW).await), expected, "C11, C12 {typ}");
    }
    let rsa = Signer::new(Algorithm::RS512, "r");
    let tokens = with_keys(changed(|s| s.algorithms = vec![Algorithm::RS256]), &rsa.jwks());
    assert_eq!(flaw(ask(&tokens, &rsa.token(&claims()), NOW).await), Some(Flaw::Algorithm), "T08");
}

#[tokio::test]
async fn keys_are_bound_to_their_issuer_and_type() {
    let (ours, theirs) = (Signer::new(Algorithm::ES256, "same"), Signer::new(Algorithm::ES256, "same"));
    let tokens = empty();
    let other = "https://other.example.com";
    let (mut a, mut b) = (settings(ISSUER), settings(other));
    (a.name, b.name) = ("a".into(), "b".into());
    put(&tokens, vec![(a, KeySource::fixed(&ours.jwks())), (b, KeySource::fixed(&theirs.jwks()))], &[]);
    assert_eq!(flaw(ask(&tokens, &theirs.token(&claims()), NOW).await), Some(Flaw::Signature), "T28");
    let good = theirs.token(&with(claims(), "iss", other));
    assert_eq!(flaw(ask(&tokens, &good, NOW).await), None);
    // Remembered for all key managers, it is no good where only the other one counts.
    let outcome = tokens.authenticate(&good, &only(&["a"]), None, NOW).await;
    assert_eq!(flaw(outcome), Some(Flaw::KeyManagerNotAllowed));
    let only_b = KeyManagerSet { id: 8, ..only(&["b"]) };
    assert_eq!(flaw(tokens.authenticate(&good, &only_b, None, NOW).await), None);

    let rsa = Signer::new(Algorithm::RS256, "same");
    let tokens = with_keys(settings(ISSUER), &json!({ "keys": [rsa.jwk(), ours.jwk(), theirs.jwk()] }));
    assert_eq!(flaw(ask(&tokens, &ours.token(&claims()), NOW).await), None, "T29");
    assert_eq!(flaw(ask(&tokens, &theirs.token(&claims()), NOW).await), None, "T29, second of its type");
    assert_eq!(flaw(ask(&tokens, &rsa.token(&claims()), NOW).await), None, "T29, first");
}

#[tokio::test]
async fn of_several_with_one_issuer_the_first_that_meets_the_audience_judges() {
    let (first, second) = (Signer::new(Algorithm::ES256, "1"), Signer::new(Algorithm::ES256, "2"));
    let manager = |name: &str, audience: &str, signer: &Signer| {
        let settings = changed(|s| (s.name, s.audience) = (name.into(), vec![audience.into()]));
        (settings, KeySource::fixed(&signer.jwks()))
    };
    let tokens = empty();
    put(&tokens, vec![manager("a", "orders", &first), manager("b", "billing", &second)], &[]);
    let name =
        |outcome: Result<Authenticated, Rejection>| outcome.map(|good| good.identity.common.key_manager.to_string());
    let for_both = json!(["billing", "orders"]);
    let outcome = ask(&tokens, &second.token(&with(claims(), "aud", "billing")), NOW).await;
    assert_eq!(name(outcome).as_deref(), Ok("b"));
    let outcome = ask(&tokens, &first.token(&with(claims(), "aud", for_both.clone())), NOW).await;
    assert_eq!(name(outcome).as_deref(), Ok("a"));
    let outcome = ask(&tokens, &second.token(&with(claims(), "aud", for_both)), NOW).await;
    assert_eq!(flaw(outcome), Some(Flaw::UnknownKey), "its keys only");
    let outcome = ask(&tokens, &first.token(&with(claims(), "aud", "other")), NOW).await;
    assert_eq!(flaw(outcome), Some(Flaw::Audience));
    let token = second.token(&with(claims(), "aud", "billing"));
    assert_eq!(flaw(tokens.authenticate(&token, &only(&["a"]), None, NOW).await), Some(Flaw::Audience));
}

#[tokio::test]
async fn a_cached_token_expires_to_the_millisecond() {
    let signer = Signer::new(Algorithm::ES256, "e");
    let tokens = with_keys(settings(ISSUER), &signer.jwks());
    let token = signer.token(&with(claims(), "nbf", NOW.unix() - 10));
    assert_eq!(flaw(ask(&tokens, &token, NOW).await), None);
    let end = after(NOW, 330);
    let before = Now::at_ms(end.unix_ms - 1);
    assert!(ask(&tokens, &token, before).await.is_ok_and(|good| good.from_cache));
    assert_eq!(flaw(ask(&tokens, &token, Now::at_ms(NOW.unix_ms - 40_001)).await), Some(Flaw::NotYetValid));
    assert_eq!(flaw(ask(&tokens, &token, before).await), None);
    assert_eq!(flaw(ask(&tokens, &token, end).await), Some(Flaw::Expired));
    assert_eq!(flaw(ask(&tokens, &token, end).await), Some(Flaw::Expired));
}

#[tokio::test]
async fn equal_settings_keep_the_cache_and_others_do_not() {
    let signer = Signer::new(Algorithm::ES256, "e");
    let tokens = with_keys(settings(ISSUER), &signer.jwks());
    let token = signer.token(&with(claims(), "email", "ada@example.com"));
    let source = || KeySource::fixed(&signer.jwks());
    assert!(ask(&tokens, &token, NOW).await.is_ok_and(|good| good.identity.claims.is_empty()));
    let second = changed(|s| (s.name, s.issuer) = ("second".into(), "https://second.example.com".into()));
    assert_eq!(put(&tokens, vec![(second, source()), (settings(ISSUER), source())], &[]).len(), 1);
    assert!(ask(&tokens, &token, NOW).await.is_ok_and(|good| good.from_cache));

    assert_eq!(put(&tokens, vec![(settings(ISSUER), source())], &["email"]).len(), 1);
    let good = ask(&tokens, &token, NOW).await.expect("good");
    assert!(!good.from_cache && good.identity.claims[0].as_ref().is_some_and(|v| v == "ada@example.com"));

    put(&tokens, vec![(changed(|s| s.audience = vec!["orders".into()]), source())], &["email"]);
    assert_eq!(flaw(ask(&tokens, &token, NOW).await), Some(Flaw::Audience));
    // Another with the same issuer before it changes which one is asked.
    let first = changed(|s| s.name = "first".into());
    put(&tokens, vec![(settings(ISSUER), source())], &[]);
    assert_eq!(flaw(ask(&tokens, &token, NOW).await), None);
    put(&tokens, vec![(first, source()), (settings(ISSUER), source())], &[]);
    assert!(ask(&tokens, &token, NOW).await.is_ok_and(|good| &*good.identity.common.key_manager == "first"));
    put(&tokens, vec![], &[]);
    assert_eq!(flaw(ask(&tokens, &token, NOW).await), Some(Flaw::UnknownIssuer));
}

#[tokio::test]
async fn keys_by_hand_may_change_under_equal_settings() {
    let (old, new) = (Signer::new(Algorithm::ES256, "old"), Signer::new(Algorithm::ES256, "new"));
    let tokens = with_keys(settings(ISSUER), &old.jwks());
    let (first, second) = (old.token(&claims()), new.token(&claims()));
    assert_eq!(flaw(ask(&tokens, &first, NOW).await), None);
    put(&tokens, vec![(settings(ISSUER), KeySource::fixed(&json!({ "keys": [new.jwk(), old.jwk()] })))], &[]);
    assert!(ask(&tokens, &first, NOW).await.is_ok_and(|good| good.from_cache), "its key has stayed");
    put(&tokens, vec![(settings(ISSUER), KeySource::fixed(&new.jwks()))], &[]);
    assert_eq!(flaw(ask(&tokens, &first, NOW).await), Some(Flaw::UnknownKey), "its key has left");
    assert_eq!(flaw(ask(&tokens, &second, NOW).await), None);
    assert!(tokens.status(NOW)[0].ready && tokens.status(NOW)[0].keys_age_s.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_first_sights_are_one_verification() {
    let signer = Signer::new(Algorithm::RS256, "r");
    let tokens = Arc::new(with_keys(settings(ISSUER), &signer.jwks()));
    let token: Arc<str> = signer.token(&claims()).into();
    let barrier = Arc::new(tokio::sync::Barrier::new(50));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (tokens, token, barrier) = (Arc::clone(&tokens), Arc::clone(&token), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                ask(&tokens, &token, NOW).await.is_ok_and(|good| !good.from_cache)
            })
        })
        .collect();
    let mut fresh = 0;
    for task in tasks {
        fresh += u32::from(task.await.expect("no panic"));
    }
    assert_eq!(fresh, 1);
    assert_eq!(tokens.metrics.count_verified(), 1);
}

#[tokio::test]
async fn a_wrong_signature_is_remembered_until_the_keys_change() {
    let (ours, attacker) = (Signer::new(Algorithm::ES256, "e"), Signer::new(Algorithm::ES256, "e"));
    let tokens = with_keys(settings(ISSUER), &ours.jwks());
    let token = attacker.token(&claims());
    let hits = || tokens.metrics.negative.hit.get();
    for expected in [0, 1, 2] {
        assert_eq!(flaw(ask(&tokens, &token, NOW).await), Some(Flaw::Signature));
        assert_eq!(hits(), expected);
    }
    assert_eq!(flaw(ask(&tokens, &token, after(NOW, 5)).await), Some(Flaw::Signature), "judged anew");
    assert_eq!(hits(), 2);
    put(&tokens, vec![(settings(ISSUER), KeySource::fixed(&attacker.jwks()))], &[]);
    assert_eq!(flaw(ask(&tokens, &token, after(NOW, 5)).await), None);
    // An expired token is not a wrong signature, and not remembered.
    let late = attacker.token(&with(claims(), "exp", 1));
    for _ in 0..2 {
        assert_eq!(flaw(ask(&tokens, &late, NOW).await), Some(Flaw::Expired));
    }
    assert_eq!(hits(), 2);
}

#[tokio::test]
async fn what_another_thread_remembered_counts_only_while_it_holds() {
    let signer = Signer::new(Algorithm::ES256, "e");
    let tokens = with_keys(settings(ISSUER), &signer.jwks());
    let token = signer.token(&claims());
    assert_eq!(flaw(ask(&tokens, &token, NOW).await), None);
    let all = KeyManagerSet::all();
    let digest = tokens.digests.digest(all.id, &token);
    // As a thread that found nothing in the cache, and now finds what another has put there.
    let begun = Instant::now();
    let waited = |now, seconds| {
        let came = (now, begun.checked_sub(Duration::from_secs(seconds)).expect("up for longer"));
        let sight = Sight { digest, token: &token, allowed: &all, came };
        tokens.first_sight(&sight, sight.now(), &mut Some(Turn::free()))
    };
    let sight = |now| waited(now, 0);
    assert!(sight(NOW).is_ok_and(|good| good.from_cache));
    assert!(matches!(sight(after(NOW, 330)), Err(Refused::Flaw(Flaw::Expired))));
    assert!(waited(NOW, 320).is_ok());
    assert!(matches!(waited(NOW, 330), Err(Refused::Flaw(Flaw::Expired))), "it has expired while it waited");
    let strict = changed(|s| s.audience = vec!["orders".into()]);
    put(&tokens, vec![(strict, KeySource::fixed(&signer.jwks()))], &[]);
    assert!(matches!(sight(NOW), Err(Refused::Flaw(Flaw::Audience))));
}

#[tokio::test]
async fn a_claim_is_given_by_name_wherever_it_stands() {
    let signer = Signer::new(Algorithm::ES256, "e");
    let tokens = empty();
    put(&tokens, vec![(settings(ISSUER), KeySource::fixed(&signer.jwks()))], &["email", "team", "missing"]);
    let token = signer.token(&with(with(claims(), "email", "ada@example.com"), "team", "blue"));
    let good = ask(&tokens, &token, NOW).await.expect("good");
    let claim = |index, name| good.identity.claim(index, name).and_then(|value| value.to_str().ok());
    assert_eq!(claim(0, "email"), Some("ada@example.com"));
    assert_eq!(claim(1, "email"), Some("ada@example.com"));
    assert_eq!(claim(0, "team"), Some("blue"));
    assert_eq!(claim(9, "team"), Some("blue"));
    assert_eq!(claim(2, "missing"), None);
    assert_eq!(claim(0, "phone"), None);
}

#[test]
fn mistakes_in_settings_are_named_all_at_once() {
    let bad = changed(|s| {
        s.algorithms = vec![];
        s.validation = super::settings::Validation::Introspect;
        s.timeout = Span::seconds(0);
    });
    let keys = KeySource::Fixed("{}".into());
    let managers = vec![(settings(ISSUER), keys.clone()), (bad, keys)];
    let problems = KeyManagers::build(managers, &Arc::default()).expect_err("mistakes");
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    let expected = ["[0].jwks", "[1].name", "[1].algorithms", "[1].timeout", "[1].validation", "[1].jwks"];
    assert_eq!(fields, expected.map(|field| format!("key_managers{field}")));
}

#[tokio::test]
async fn the_cache_is_bounded_by_bytes() {
    let signer = Signer::new(Algorithm::EdDSA, "e");
    let cache = CacheSettings { tokens: Size(64 << 10), ..CacheSettings::default() };
    let tokens = Authenticator::new(&cache, &prometheus::Registry::new()).expect("a fresh registry");
    put(&tokens, vec![(settings(ISSUER), KeySource::fixed(&signer.jwks()))], &[]);
    for n in 0..300 {
        let token = signer.token(&with(claims(), "jti", n.to_string()));
        assert_eq!(flaw(ask(&tokens, &token, NOW).await), None);
    }
    let (entries, bytes) = tokens.cache.size();
    assert!(entries < 200 && entries > 20 && bytes <= 64 << 10, "{entries} entries, {bytes} bytes");
}
