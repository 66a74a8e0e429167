//! What a key manager asks of claims beyond those of the RFCs: what kind of token it is, claims that must be there,
//! and whose token it is.
//!
//! Values are compared whole and exactly. What is configured and would let everything pass is refused when it is read.

use std::collections::BTreeMap;

use regex_lite::Regex;

use super::{
    Flaw, TokenKind,
    json::{Json, Object},
    settings::{ClaimRule, KeyManagerSettings},
};
use crate::problem::Problem;

/// `token_match`, compiled: which of several key managers with one issuer a token is for.
#[derive(Debug, Default)]
pub(super) struct Patterns(Vec<(Box<str>, Regex)>);

impl Patterns {
    /// Compiles the patterns, or names those that are none.
    pub(super) fn build(settings: &KeyManagerSettings, field: &str, problems: &mut Vec<Problem>) -> Self {
        let mut patterns = Vec::new();
        for (claim, pattern) in &settings.token_match {
            let mut wrong = |why: &str| problems.push(Problem::new(format!("{field}.token_match.{claim}"), why));
            if claim.is_empty() || pattern.is_empty() {
                wrong("must name a claim and a pattern");
                continue;
            }
            // Whole: what merely contains a good value is another value.
            match Regex::new(&format!("^(?:{pattern})$")) {
                Ok(regex) if Regex::new(pattern).is_ok() => patterns.push((claim.as_str().into(), regex)),
                _ => wrong("is not a regular expression"),
            }
        }
        Self(patterns)
    }

    /// Whether every one of the claims is a text that its pattern matches whole.
    pub(super) fn all_match(&self, claims: &Object<'_>) -> bool {
        self.unmatched(claims).next().is_none()
    }

    /// Names of the claims that their patterns do not match.
    pub(super) fn unmatched(&self, claims: &Object<'_>) -> impl Iterator<Item = &str> {
        let matches = |claim: &str, pattern: &Regex| {
            claims.at(claim).and_then(Json::as_text).is_some_and(|text| pattern.is_match(text))
        };
        self.0.iter().filter(move |(claim, pattern)| !matches(claim, pattern)).map(|(claim, _)| &**claim)
    }
}

/// The claims that the settings require.
pub(super) fn required(claims: &Object<'_>, settings: &KeyManagerSettings) -> Result<(), Flaw> {
    if unmet(claims, settings).next().is_none() { Ok(()) } else { Err(Flaw::Claim) }
}

/// Names of the required claims that are not as they must be.
pub(super) fn unmet<'s>(claims: &Object<'_>, settings: &'s KeyManagerSettings) -> impl Iterator<Item = &'s str> {
    let holds = |name: &str, rule: &ClaimRule| claims.at(name).is_some_and(|value| accepts(rule, value));
    settings.required_claims.iter().filter(move |(name, rule)| !holds(name, rule)).map(|(name, _)| name.as_str())
}

/// A list in the token counts by its members, each compared whole.
fn accepts(rule: &ClaimRule, value: &Json<'_>) -> bool {
    let is = |wanted: &str| match value {
        Json::Text(text) => text == wanted,
        Json::List(list) => list.iter().any(|member| member.as_text() == Some(wanted)),
        _ => false,
    };
    match rule {
        ClaimRule::Present(_) => says_something(value),
        ClaimRule::Number(wanted) => match *value {
            Json::Unsigned(number) => i64::try_from(number) == Ok(*wanted),
            Json::Signed(number) => number == *wanted,
            _ => false,
        },
        ClaimRule::Text(wanted) => is(wanted),
        ClaimRule::OneOf(wanted) => wanted.iter().any(|wanted| is(wanted)),
    }
}

/// Neither null nor false nor empty: `email_verified = true` is not met by `"email_verified": false`.
fn says_something(value: &Json<'_>) -> bool {
    match value {
        Json::Null | Json::Bool(false) => false,
        Json::Text(text) => !text.is_empty(),
        Json::List(list) => !list.is_empty(),
        Json::Object(object) => !object.is_empty(),
        _ => true,
    }
}

/// Rules that would hold for everything or nothing.
pub(super) fn mistakes(settings: &KeyManagerSettings, field: &str, problems: &mut Vec<Problem>) {
    for (claim, rule) in &settings.required_claims {
        let why = match rule {
            _ if claim.is_empty() => "must name a claim",
            ClaimRule::Present(false) => "must be true, a value or a list of values; leave it out to ask nothing",
            ClaimRule::Text(text) if text.is_empty() => "must not be empty",
            ClaimRule::OneOf(texts) if texts.is_empty() => "must not be an empty list",
            ClaimRule::OneOf(texts) if texts.iter().any(String::is_empty) => "must not hold an empty value",
            _ => continue,
        };
        problems.push(Problem::new(format!("{field}.required_claims.{claim}"), why));
    }
    let mut locals = BTreeMap::new();
    for (remote, local) in &settings.claim_mappings {
        let why = match () {
            () if remote.is_empty() || local.is_empty() => "must name both claims",
            () if JUDGED.contains(&local.as_str()) => "is a name by which tokens are judged",
            () if locals.insert(local, ()).is_some() => "is the name of another claim too",
            () => continue,
        };
        problems.push(Problem::new(format!("{field}.claim_mappings.{remote}"), why));
    }
}

/// The token's own name of the claim that is `local` to us; none where that name has been given away.
pub(super) fn source(settings: &KeyManagerSettings, local: &str) -> Option<Box<str>> {
    let mapped = settings.claim_mappings.iter().find(|(_, name)| *name == local);
    match mapped {
        Some((remote, _)) => Some(remote.as_str().into()),
        None if settings.claim_mappings.contains_key(local) => None,
        None => Some(local.into()),
    }
}

/// Refuses what is signed by the same keys and is another kind of token, though its `typ` does not say so: an ID
/// token (OpenID Connect Core section 3.3.2.11), a security event (RFC 8417), and what WSO2 and Keycloak name so
/// in a claim.
pub(super) fn is_for_access(claims: &Object<'_>) -> Result<(), Flaw> {
    if telltale(claims).is_some() { Err(Flaw::Type) } else { Ok(()) }
}

/// The claim by which it is another kind of token.
pub(super) fn telltale<'c>(claims: &'c Object<'_>) -> Option<&'c str> {
    let says = |value: &Json<'_>, others: &[&str]| {
        value.as_text().is_some_and(|text| others.iter().any(|other| other.eq_ignore_ascii_case(text)))
    };
    let other = |(name, value): &(&str, &Json<'_>)| match *name {
        "at_hash" | "c_hash" | "s_hash" | "events" => true,
        "typ" => says(value, &["ID", "Refresh", "Offline", "Logout"]),
        "token_type" => says(value, &["refresh_token", "Refresh"]),
        _ => false,
    };
    claims.members().find(other).map(|(name, _)| name)
}

/// Whose the token is. WSO2 says so in `aut`. Where that is absent, a token is an application's own if there is no
/// subject (`sub`, or the claim that is mapped to it), or the subject is the client (RFC 9068 section 2.2), or as Entra,
/// Auth0 and Keycloak show it; else a user's.
pub(super) fn kind(claims: &Object<'_>, subject: Option<&str>, consumer_key: Option<&str>) -> TokenKind {
    if let Some(aut) = claims.get("aut") {
        return match aut.as_text() {
            Some(text) if text.eq_ignore_ascii_case("APPLICATION") => TokenKind::Application,
            Some(text) if text.eq_ignore_ascii_case("APPLICATION_USER") => TokenKind::User,
            _ => TokenKind::Unknown,
        };
    }
    let text = |name: &str| claims.get(name).and_then(Json::as_text);
    let own = text("idtyp").is_some_and(|kind| kind == "app")
        || text("gty").is_some_and(|grant| grant == "client-credentials")
        || text("preferred_username").is_some_and(|name| name.starts_with("service-account-"));
    match subject {
        None => TokenKind::Application,
        Some(subject) if own || Some(subject) == consumer_key => TokenKind::Application,
        Some(_) => TokenKind::User,
    }
}

/// Claims that a mapping cannot replace.
const JUDGED: [&str; 7] = ["iss", "aud", "exp", "nbf", "iat", "jti", "cnf"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::testing::settings;

    fn object(text: &str) -> Object<'_> {
        Object::parse(text.as_bytes()).expect("test claims are JSON")
    }

    fn with(change: impl FnOnce(&mut KeyManagerSettings)) -> KeyManagerSettings {
        let mut settings = settings("https://idp.example.com");
        change(&mut settings);
        settings
    }

    #[test]
    fn required_claims_are_whole_and_exact() {
        let texts = |texts: &[&str]| ClaimRule::OneOf(texts.iter().map(|text| (*text).into()).collect());
        for (rule, claims, good) in [
            (ClaimRule::Present(true), r#"{"a":"x"}"#, true),
            (ClaimRule::Present(true), r#"{"a":true}"#, true),
            (ClaimRule::Present(true), r#"{"a":0}"#, true),
            (ClaimRule::Present(true), r#"{"a":false}"#, false),
            (ClaimRule::Present(true), r#"{"a":null}"#, false),
            (ClaimRule::Present(true), r#"{"a":""}"#, false),
            (ClaimRule::Present(true), r#"{"a":[]}"#, false),
            (ClaimRule::Present(true), r#"{"a":{}}"#, false),
            (ClaimRule::Present(true), r#"{"b":1}"#, false),
            (ClaimRule::Number(3), r#"{"a":3}"#, true),
            (ClaimRule::Number(3), r#"{"a":"3"}"#, false),
            (ClaimRule::Number(3), r#"{"a":3.0}"#, false),
            (ClaimRule::Number(-3), r#"{"a":-3}"#, true),
            (ClaimRule::Text("x".into()), r#"{"a":"x"}"#, true),
            (ClaimRule::Text("x".into()), r#"{"a":["y","x"]}"#, true),
            (ClaimRule::Text("x".into()), r#"{"a":"x y"}"#, false),
            (ClaimRule::Text("x".into()), r#"{"a":"X"}"#, false),
            (ClaimRule::Text("x".into()), r#"{"a":{"x":true}}"#, false),
            (ClaimRule::Text("3".into()), r#"{"a":3}"#, false),
            (texts(&["x", "y"]), r#"{"a":"y"}"#, true),
            (texts(&["x", "y"]), r#"{"a":["z","y"]}"#, true),
            (texts(&["x", "y"]), r#"{"a":"z"}"#, false),
            (texts(&["*", "x.z"]), r#"{"a":"xyz"}"#, false),
        ] {
            let settings = with(|s| drop(s.required_claims.insert("a".into(), rule.clone())));
            assert_eq!(required(&object(claims), &settings).is_ok(), good, "{rule:?} {claims}");
        }
        let both = with(|s| {
            s.required_claims.insert("a".into(), ClaimRule::Text("x".into()));
            s.required_claims.insert("b.c".into(), ClaimRule::Text("y".into()));
        });
        assert_eq!(required(&object(r#"{"a":"x","b":{"c":"y"}}"#), &both), Ok(()));
        assert_eq!(required(&object(r#"{"a":"no","b":{"c":"y"}}"#), &both), Err(Flaw::Claim));
        assert_eq!(required(&object(r#"{"a":"x","b":{"c":"no"}}"#), &both), Err(Flaw::Claim));
    }

    #[test]
    fn rules_that_ask_nothing_are_mistakes() {
        let problems = |rule: ClaimRule| {
            let mut problems = Vec::new();
            mistakes(&with(|s| drop(s.required_claims.insert("g".into(), rule))), "km", &mut problems);
            problems.into_iter().map(|problem| problem.field).collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(problems(ClaimRule::Present(true)), none);
        for rule in [
            ClaimRule::Present(false),
            ClaimRule::Text(String::new()),
            ClaimRule::OneOf(vec![]),
            ClaimRule::OneOf(vec!["a".into(), String::new()]),
        ] {
            assert_eq!(problems(rule), ["km.required_claims.g"]);
        }
        let mapped = |s: &mut KeyManagerSettings, remote: &str, local: &str| {
            s.claim_mappings.insert(remote.into(), local.into());
        };
        let of = |pairs: &[(&str, &str)]| {
            let mut problems = Vec::new();
            let settings = with(|s| pairs.iter().for_each(|(remote, local)| mapped(s, remote, local)));
            mistakes(&settings, "km", &mut problems);
            problems.len()
        };
        assert_eq!(of(&[("upn", "sub"), ("mail", "email")]), 0);
        for judged in JUDGED {
            assert_eq!(of(&[("x", judged)]), 1, "{judged}");
        }
        assert_eq!(of(&[("a", "email"), ("b", "email")]), 1);
        assert_eq!(of(&[("a", "")]), 1);
        assert_eq!(of(&[("", "a")]), 1);
    }

    #[test]
    fn a_mapped_name_is_only_what_is_mapped_to_it() {
        let settings = with(|s| drop(s.claim_mappings.insert("upn".into(), "email".into())));
        assert_eq!(source(&settings, "email").as_deref(), Some("upn"));
        assert_eq!(source(&settings, "upn"), None);
        assert_eq!(source(&settings, "other").as_deref(), Some("other"));
    }

    #[test]
    fn all_patterns_must_match_whole() {
        let pattern = |pairs: &[(&str, &str)]| {
            let settings = with(|s| {
                s.token_match = pairs.iter().map(|(claim, pattern)| ((*claim).into(), (*pattern).into())).collect();
            });
            let mut problems = Vec::new();
            (Patterns::build(&settings, "km", &mut problems), problems.len())
        };
        let (both, _) = pattern(&[("tenant", "a|b"), ("z.kind", "x[0-9]+")]);
        assert!(both.all_match(&object(r#"{"tenant":"a","z":{"kind":"x12"}}"#)));
        // The last alone does not decide, nor the first.
        assert!(!both.all_match(&object(r#"{"tenant":"c","z":{"kind":"x12"}}"#)));
        assert!(!both.all_match(&object(r#"{"tenant":"a","z":{"kind":"y"}}"#)));
        assert!(!both.all_match(&object(r#"{"tenant":"ab","z":{"kind":"x12"}}"#)));
        assert!(!both.all_match(&object(r#"{"tenant":"a\n","z":{"kind":"x12"}}"#)));
        assert!(!both.all_match(&object(r#"{"tenant":["a"],"z":{"kind":"x12"}}"#)));
        assert!(!both.all_match(&object("{}")));
        assert!(Patterns::default().all_match(&object("{}")));
        for (claim, text) in [("", "a"), ("a", ""), ("a", "("), ("a", "a)(b")] {
            assert_eq!(pattern(&[(claim, text)]).1, 1, "{claim} {text}");
        }
    }

    #[test]
    fn other_kinds_of_tokens_are_told_by_their_claims() {
        for claims in [
            r#"{"at_hash":"x"}"#,
            r#"{"c_hash":null}"#,
            r#"{"events":{}}"#,
            r#"{"typ":"ID"}"#,
            r#"{"typ":"Refresh"}"#,
            r#"{"token_type":"refresh_token"}"#,
        ] {
            assert_eq!(is_for_access(&object(claims)), Err(Flaw::Type), "{claims}");
        }
        for claims in ["{}", r#"{"typ":"Bearer"}"#, r#"{"token_type":"Bearer","nonce":"n"}"#, r#"{"typ":"JWT"}"#] {
            assert_eq!(is_for_access(&object(claims)), Ok(()), "{claims}");
        }
    }

    #[test]
    fn kinds_are_told_by_aut_or_by_the_subject() {
        for (claims, expected) in [
            (r#"{"aut":"APPLICATION","sub":"ada"}"#, TokenKind::Application),
            (r#"{"aut":"application","sub":"ada"}"#, TokenKind::Application),
            (r#"{"aut":"APPLICATION_USER","sub":"shop"}"#, TokenKind::User),
            (r#"{"aut":"OTHER","sub":"ada"}"#, TokenKind::Unknown),
            (r#"{"aut":7,"sub":"shop"}"#, TokenKind::Unknown),
            (r#"{"sub":"ada"}"#, TokenKind::User),
            (r#"{"sub":"shop"}"#, TokenKind::Application),
            ("{}", TokenKind::Application),
            (r#"{"sub":"f1","preferred_username":"service-account-shop"}"#, TokenKind::Application),
            (r#"{"sub":"f1","preferred_username":"ada"}"#, TokenKind::User),
            (r#"{"sub":"f1","idtyp":"app"}"#, TokenKind::Application),
            (r#"{"sub":"f1","idtyp":"user"}"#, TokenKind::User),
            (r#"{"sub":"shop@clients","gty":"client-credentials"}"#, TokenKind::Application),
        ] {
            let claims = object(claims);
            let subject = claims.get("sub").and_then(Json::as_text);
            assert_eq!(kind(&claims, subject, Some("shop")), expected, "{claims:?}");
        }
        // Another claim may be the subject.
        for (claims, subject, expected) in [
            ("{}", Some("ada"), TokenKind::User),
            (r#"{"sub":"shop"}"#, Some("ada"), TokenKind::User),
            (r#"{"sub":"ada"}"#, Some("shop"), TokenKind::Application),
            (r#"{"sub":"ada"}"#, None, TokenKind::Application),
        ] {
            assert_eq!(kind(&object(claims), subject, Some("shop")), expected, "{claims} {subject:?}");
        }
    }
}
