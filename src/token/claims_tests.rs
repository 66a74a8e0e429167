//! Claims judged: times, scopes, audiences, identity headers.

use super::*;
use crate::{token::testing, units::Span};

const NOW: u64 = 1_800_000_000;

fn rules(change: impl FnOnce(&mut KeyManagerSettings)) -> Rules {
    let mut settings = testing::settings("https://idp.example.com");
    change(&mut settings);
    let header_claims = ["email", "groups", "age", "address", "missing", "nothing", "admin"];
    let header_claims = header_claims.iter().map(|name| (*name).into()).collect();
    Rules::build(settings, &header_claims, "").expect("good settings")
}

fn run(rules: &Rules, claims: &str) -> Result<Identity, Flaw> {
    let claims = Object::parse(claims.as_bytes()).expect("test claims are JSON");
    let (bearer, commons) = (Bearer::of(&Digest::for_test(1)), Commons::new(1 << 20));
    let grounds = Grounds { rules, commons: &commons, now: Now::at_ms(NOW * 1000) };
    judge(&claims, &bearer, grounds).map(|(identity, _)| identity)
}

fn flaw(rules: &Rules, claims: &str) -> Option<Flaw> {
    run(rules, claims).err()
}

#[test]
fn dates_are_numbers_and_edges_are_exact() {
    let rules = rules(|_| {});
    let exp = |value: &str| flaw(&rules, &format!("{{\"exp\":{value}}}"));
    for (value, expected) in [
        (format!("{}", NOW - 30), Some(Flaw::Expired)),
        (format!("{}", NOW - 29), None),
        (format!("{}.9", NOW - 30), Some(Flaw::Expired)),
        ("1.9e9".into(), None),
        ("-1".into(), Some(Flaw::Malformed)),
        ("-1.5".into(), Some(Flaw::Malformed)),
        ("-1e300".into(), Some(Flaw::Malformed)),
        ("1e308".into(), Some(Flaw::Malformed)),
        ("18446744073709551615".into(), Some(Flaw::Malformed)),
        ("18446744073709551616".into(), Some(Flaw::Malformed)),
        ("9007199254740992".into(), None),
        ("\"9999999999\"".into(), Some(Flaw::Malformed)),
        ("\"never\"".into(), Some(Flaw::Malformed)),
        ("true".into(), Some(Flaw::Malformed)),
        ("null".into(), Some(Flaw::Malformed)),
        ("[9999999999]".into(), Some(Flaw::Malformed)),
    ] {
        assert_eq!(exp(&value), expected, "exp {value}");
    }
    assert_eq!(flaw(&rules, "{}"), Some(Flaw::MissingExpiry));
    for (claim, value, expected) in [
        ("nbf", format!("{}", NOW + 30), None),
        ("nbf", format!("{}", NOW + 31), Some(Flaw::NotYetValid)),
        ("nbf", format!("{}.1", NOW + 30), Some(Flaw::NotYetValid)),
        ("nbf", "\"99999999999\"".into(), Some(Flaw::Malformed)),
        ("iat", format!("{}", NOW + 30), None),
        ("iat", format!("{}", NOW + 31), Some(Flaw::IssuedInFuture)),
        ("iat", "\"1\"".into(), Some(Flaw::Malformed)),
    ] {
        let claims = format!("{{\"exp\":1900000000,\"{claim}\":{value}}}");
        assert_eq!(flaw(&rules, &claims), expected, "{claim} {value}");
    }
}

#[test]
fn lifetime_and_expiry_are_as_configured() {
    let eternal = rules(|s| s.require_exp = false);
    assert_eq!(run(&eternal, "{}").map(|i| i.expires_at), Ok(u64::MAX));
    let short = rules(|s| s.max_lifetime = Span::seconds(600));
    let claims = |iat: u64, exp: u64| format!("{{\"iat\":{iat},\"exp\":{exp}}}");
    assert_eq!(flaw(&short, &claims(NOW, NOW + 600)), None);
    assert_eq!(flaw(&short, &claims(NOW, NOW + 601)), Some(Flaw::Lifetime));
    assert_eq!(flaw(&short, "{\"exp\":1800000100}"), Some(Flaw::Lifetime));
    let both = rules(|s| {
        s.max_lifetime = Span::seconds(600);
        s.require_exp = false;
    });
    assert_eq!(flaw(&both, "{\"iat\":1800000000}"), Some(Flaw::Lifetime));
}

#[test]
fn audience_is_an_exact_member() {
    let rules = rules(|s| s.audience = vec!["a".into(), "orders".into()]);
    for (aud, expected) in [
        (r#","aud":"orders""#, None),
        (r#","aud":["x","orders"]"#, None),
        (r#","aud":"orders x""#, Some(Flaw::Audience)),
        (r#","aud":"Orders""#, Some(Flaw::Audience)),
        (r#","aud":[]"#, Some(Flaw::Audience)),
        ("", Some(Flaw::Audience)),
        (r#","aud":{}"#, Some(Flaw::Malformed)),
        (r#","aud":1"#, Some(Flaw::Malformed)),
        (r#","aud":null"#, Some(Flaw::Malformed)),
        (r#","aud":["orders",1]"#, Some(Flaw::Malformed)),
        (r#","aud":[["orders"]]"#, Some(Flaw::Malformed)),
    ] {
        assert_eq!(flaw(&rules, &format!("{{\"exp\":1900000000{aud}}}")), expected, "{aud}");
    }
}

#[test]
fn bound_tokens_and_odd_names_are_refused() {
    let rules = rules(|_| {});
    for (claim, expected) in [
        (r#""cnf":{"jkt":"x"}"#, Flaw::Bound),
        (r#""cnf":{"foo":1}"#, Flaw::Bound),
        (r#""cnf":null"#, Flaw::Bound),
        (r#""sub":7"#, Flaw::Malformed),
        (r#""jti":["a"]"#, Flaw::Malformed),
    ] {
        assert_eq!(flaw(&rules, &format!("{{\"exp\":1900000000,{claim}}}")), Some(expected), "{claim}");
    }
}

#[test]
fn consumer_key_is_the_first_claim_present() {
    let rules = rules(|_| {});
    for (claims, expected) in [
        (r#","client_id":"a","azp":"b""#, Some("a")),
        (r#","azp":"b","consumerKey":"c""#, Some("b")),
        (r#","azp":["b","c"]"#, Some("b")),
        (r#","client_id":7,"azp":"b""#, None),
        (r#","client_id":"","azp":"b""#, None),
        (r#","azp":[]"#, None),
        ("", None),
    ] {
        let key = run(&rules, &format!("{{\"exp\":1900000000{claims}}}")).expect("good").common.consumer_key.clone();
        assert_eq!(key.as_deref(), expected, "{claims}");
    }
}

#[test]
fn scopes_are_whole_words_of_the_accepted_shapes() {
    let rules = rules(|_| {});
    for (claims, expected) in [
        (r#","scope":"a b""#, vec!["a", "b"]),
        (r#","scope":["a","b"]"#, vec!["a", "b"]),
        (r#","scp":"a b""#, vec!["a", "b"]),
        (r#","scp":["a"]"#, vec!["a"]),
        (r#","scope":" a  b ""#, vec!["a", "b"]),
        (r#","scope":"a\tb""#, vec!["a\tb"]),
        (r#","scope":"read:all readwrite Read""#, vec!["read:all", "readwrite", "Read"]),
        (r#","scope":{"a":true}"#, vec![]),
        (r#","scope":["a",1]"#, vec![]),
        (r#","scope":7,"scp":"a""#, vec![]),
        ("", vec![]),
    ] {
        let identity = run(&rules, &format!("{{\"exp\":1900000000{claims}}}")).expect("good");
        let scopes: Vec<&str> = identity.common.scopes.iter().map(AsRef::as_ref).collect();
        assert_eq!(scopes, expected, "{claims}");
    }
}

#[test]
fn headers_are_encoded_and_absent_claims_are_none() {
    let rules = rules(|_| {});
    let long = "x".repeat(5000);
    let identity = run(
        &rules,
        &format!(
            r#"{{"exp":1900000000,"sub":"ada\r\nX-Evil: 1\u0000é 100%","azp":"shop","scope":["a b","c"],
            "email":"{long}","groups":["r&d","a,b"],"age":41,"address":{{"city":"Köln"}},"nothing":null,"admin":false}}"#
        ),
    )
    .expect("good");
    let text = |value: &Option<HeaderValue>| value.as_ref().map(|v| v.to_str().expect("ASCII").to_owned());
    assert_eq!(text(&identity.subject_value).as_deref(), Some("ada%0D%0AX-Evil:%201%00%C3%A9%20100%25"));
    assert_eq!(text(&identity.common.consumer_key_value).as_deref(), Some("shop"));
    assert_eq!(text(&identity.common.scopes_value).as_deref(), Some("a%20b c"));
    let claims: Vec<Option<String>> = identity.claims.iter().map(text).collect();
    let expected = [None, Some("r&d,a%2Cb"), Some("41"), Some("{\"city\":\"K%C3%B6ln\"}"), None, None, Some("false")];
    assert_eq!(claims, expected.map(|value| value.map(str::to_owned)));
}

#[test]
fn users_differ_by_issuer_and_subject() {
    assert_ne!(user("a", Some("bc")), user("ab", Some("c")));
    assert_ne!(user("a", None), user("a", Some("")));
    assert_eq!(user("a", Some("b")), user("a", Some("b")));
}
