//! A provider's answer about a token, read strictly: RFC 7662 as JSON, RFC 9701 as a signed JWT.
//!
//! An answer that cannot be read is never a verdict; one that can says no unless everything in it says yes.

use super::{
    AnswerForm, Flaw, Identity, IntrospectionAnswer, Issuer,
    claims::{self, Bearer, Grounds, Validity},
    jose::{Compact, Header},
    json::{Json, Object},
    jws,
    keys::{Candidates, KeySet},
    rules::Rules,
};
use crate::net::Now;

/// Why an answer gives no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The token is no good. Whether the provider has said so for certain: only that is remembered.
    Flaw(Flaw, Certainty),
    /// It is no answer that can be read, or not the provider's: says nothing of the token.
    Unusable(&'static str),
    /// It is signed by a key that the issuer's set lacks.
    UnknownKey,
}

/// Whether asking again would give the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Certainty {
    /// It would, for a while.
    Certain,
    /// It may not: malformed, or only too early.
    Passing,
}

/// Reads an answer and hands what it says to `judge`. A signed one counts only with the signature of one of
/// `keys`.
pub(super) fn read<R>(
    answer: &IntrospectionAnswer,
    issuer: &Issuer,
    keys: Option<&KeySet>,
    now: Now,
    judge: impl FnOnce(&Object<'_>) -> Result<R, Fault>,
) -> Result<R, Fault> {
    match answer.form {
        AnswerForm::Json => judge(&Object::parse(&answer.body).ok_or(Fault::Unusable("the answer is no JSON object"))?),
        AnswerForm::Jwt => {
            let text = std::str::from_utf8(&answer.body).map_err(|_| Fault::Unusable("the answer is no JWT"))?;
            let compact = Compact::split(text.trim_ascii()).map_err(|_| Fault::Unusable("the answer is no JWT"))?;
            verify(&compact, issuer, keys)?;
            let claims = Object::parse(&compact.payload).ok_or(Fault::Unusable("the answer's claims are no JSON"))?;
            match envelope(&claims, &issuer.rules, now)? {
                Json::Object(inner) => judge(inner),
                _ => Err(Fault::Unusable("the answer's token_introspection is no object")),
            }
        }
    }
}

/// Who the bearer of an active token is, and how long; the token was not verified here.
pub(super) fn identify(
    answer: &Object<'_>,
    bearer: &Bearer,
    grounds: Grounds<'_>,
) -> Result<(Identity, Validity), Fault> {
    active_access_token(answer, grounds.rules)?;
    claims::judge(answer, bearer, grounds).map_err(fault)
}

/// Whether the provider too finds a token good that was verified here. Gives back its `exp`, seconds.
pub(super) fn confirm(answer: &Object<'_>, rules: &Rules, now: Now) -> Result<Option<u64>, Fault> {
    active_access_token(answer, rules)?;
    claims::confirm(answer, rules, now).map_err(fault)
}

/// `active` is the boolean true, and it is an access token of this issuer.
fn active_access_token(answer: &Object<'_>, rules: &Rules) -> Result<(), Fault> {
    match answer.get("active") {
        Some(Json::Bool(true)) => {}
        Some(Json::Bool(false)) => return Err(Fault::Flaw(Flaw::Inactive, Certainty::Certain)),
        _ => return Err(Fault::Flaw(Flaw::Inactive, Certainty::Passing)),
    }
    if answer.get("iss").is_some_and(|iss| iss.as_text() != Some(&*rules.issuer)) {
        return Err(fault(Flaw::UnknownIssuer));
    }
    access_token(answer).map_err(fault)
}

/// Providers answer for refresh and ID tokens too, and `token_type_hint` is only a hint (RFC 7662 section
/// 2.1). WSO2 says `Refresh` in `token_type`, Keycloak in `typ`, ORY Hydra in `token_use`.
fn access_token(answer: &Object<'_>) -> Result<(), Flaw> {
    let text = |name: &str| answer.get(name).and_then(Json::as_text);
    let is_one_of = |value: &str, names: &[&str]| names.iter().any(|name| value.eq_ignore_ascii_case(name));
    match answer.get("token_type") {
        None | Some(Json::Null) => {}
        Some(Json::Text(kind)) if is_one_of(kind, &ACCESS_TOKENS) => {}
        Some(Json::Text(kind)) if is_one_of(kind, &BOUND_TOKENS) => return Err(Flaw::Bound),
        Some(Json::Text(_)) => return Err(Flaw::Type),
        Some(_) => return Err(Flaw::Malformed),
    }
    match ["typ", "token_use"].iter().filter_map(|name| text(name)).find(|kind| is_one_of(kind, &OTHER_TOKENS)) {
        Some(_) => Err(Flaw::Type),
        None => Ok(()),
    }
}

/// The signature, and that what was signed is an introspection response (RFC 9701 section 5).
fn verify(compact: &Compact<'_>, issuer: &Issuer, keys: Option<&KeySet>) -> Result<(), Fault> {
    let header = Header::parse(&compact.header).map_err(|_| Fault::Unusable("the answer's header is malformed"))?;
    if !header.typ.as_deref().is_some_and(is_introspection_response) {
        return Err(Fault::Unusable("the answer's typ is not token-introspection+jwt"));
    }
    if !issuer.rules.settings.algorithms.contains(&header.algorithm) {
        return Err(Fault::Unusable("the answer is signed by an algorithm that is not allowed"));
    }
    let Some(keys) = keys else { return Err(Fault::UnknownKey) };
    let candidates = match keys.candidates(header.key_id.as_deref(), header.algorithm) {
        Candidates::Some(candidates) => candidates,
        Candidates::UnknownId => return Err(Fault::UnknownKey),
        Candidates::Unfit => return Err(Fault::Unusable("the answer's key does not fit its algorithm")),
    };
    jws::signer(compact, header.algorithm, &candidates)
        .map(|_| ())
        .map_err(|_| Fault::Unusable("the answer's signature is wrong"))
}

/// The claims around the answer: from our provider, for us, just now.
fn envelope<'c, 'a>(claims: &'c Object<'a>, rules: &Rules, now: Now) -> Result<&'c Json<'a>, Fault> {
    if claims.get("iss").and_then(Json::as_text) != Some(&*rules.issuer) {
        return Err(Fault::Unusable("the answer's iss is another"));
    }
    let audience = claims::audience(claims).unwrap_or_default();
    let ours = rules.settings.client_id.as_deref();
    if !audience.iter().any(|member| Some(&**member) == ours) {
        return Err(Fault::Unusable("the answer's aud is not our client_id"));
    }
    claims::just_issued(claims, rules, MAX_AGE_MS, now).map_err(|_| Fault::Unusable("the answer's iat is not now"))?;
    claims.get("token_introspection").ok_or(Fault::Unusable("the answer has no token_introspection"))
}

/// `token-introspection+jwt`, without regard to case and an `application/` prefix.
fn is_introspection_response(typ: &str) -> bool {
    let bare = match typ.split_at_checked("application/".len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("application/") => rest,
        _ => typ,
    };
    bare.eq_ignore_ascii_case("token-introspection+jwt")
}

fn fault(flaw: Flaw) -> Fault {
    let passing = matches!(flaw, Flaw::NotYetValid | Flaw::IssuedInFuture);
    Fault::Flaw(flaw, if passing { Certainty::Passing } else { Certainty::Certain })
}

const ACCESS_TOKENS: [&str; 3] = ["bearer", "access_token", "urn:ietf:params:oauth:token-type:access_token"];
const BOUND_TOKENS: [&str; 3] = ["dpop", "pop", "mac"];
const OTHER_TOKENS: [&str; 7] = ["refresh", "refresh_token", "offline", "id", "id_token", "logout", "dpop"];
/// A signed answer is made for the question; an older one is another question's.
const MAX_AGE_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::token::{TokenKind, common::Commons, digest::Digest, testing};

    const NOW: Now = Now::at_ms(1_800_000_000_000);
    const ISSUER: &str = "https://idp.example.com";

    fn rules(audience: &[&str]) -> Rules {
        let mut settings = testing::settings(ISSUER);
        settings.audience = audience.iter().map(|&a| a.into()).collect();
        Rules::build(settings, &Arc::default(), "km").expect("good settings")
    }

    fn ask(rules: &Rules, text: &str) -> Result<Identity, Fault> {
        let answer = Object::parse(text.as_bytes()).expect("test answers are JSON");
        let bearer = Bearer::introspected(&Digest::for_test(1));
        identify(&answer, &bearer, Grounds { rules, commons: &Commons::new(1 << 20), now: NOW })
            .map(|(identity, _)| identity)
    }

    fn certain(flaw: Flaw) -> Option<Fault> {
        Some(Fault::Flaw(flaw, Certainty::Certain))
    }

    fn passing(flaw: Flaw) -> Option<Fault> {
        Some(Fault::Flaw(flaw, Certainty::Passing))
    }

    #[test]
    fn only_the_boolean_true_is_active() {
        let rules = rules(&[]);
        assert_eq!(ask(&rules, r#"{"active":true}"#).err(), None);
        assert_eq!(ask(&rules, r#"{"active":false,"client_id":"a"}"#).err(), certain(Flaw::Inactive));
        for value in ["\"true\"", "1", "null", "[true]", "{}", "\"\"", "1.0"] {
            assert_eq!(ask(&rules, &format!(r#"{{"active":{value}}}"#)).err(), passing(Flaw::Inactive), "{value}");
        }
        assert_eq!(ask(&rules, "{}").err(), passing(Flaw::Inactive));
        assert_eq!(ask(&rules, r#"{"Active":true}"#).err(), passing(Flaw::Inactive));
    }

    #[test]
    fn what_is_no_bearer_access_token_of_ours_is_refused() {
        let rules = rules(&[]);
        for (member, expected) in [
            (r#""iss":"https://idp.example.com""#, None),
            (r#""iss":"https://idp.example.com/""#, certain(Flaw::UnknownIssuer)),
            (r#""iss":null"#, certain(Flaw::UnknownIssuer)),
            (r#""iss":["https://idp.example.com"]"#, certain(Flaw::UnknownIssuer)),
            (r#""token_type":"Bearer""#, None),
            (r#""token_type":"bearer""#, None),
            (r#""token_type":null"#, None),
            (r#""token_type":"access_token""#, None),
            (r#""token_type":"Refresh""#, certain(Flaw::Type)),
            (r#""token_type":"refresh_token""#, certain(Flaw::Type)),
            (r#""token_type":"REFRESH""#, certain(Flaw::Type)),
            (r#""token_type":"DPoP""#, certain(Flaw::Bound)),
            (r#""token_type":["Bearer"]"#, certain(Flaw::Malformed)),
            (r#""typ":"Refresh""#, certain(Flaw::Type)),
            (r#""typ":"Bearer""#, None),
            (r#""token_use":"refresh_token""#, certain(Flaw::Type)),
            (r#""token_use":"access_token""#, None),
            (r#""cnf":{"jkt":"x"}"#, certain(Flaw::Bound)),
            (r#""exp":1799999000"#, certain(Flaw::Expired)),
            (r#""exp":"1900000000""#, certain(Flaw::Malformed)),
            (r#""nbf":1800000100"#, passing(Flaw::NotYetValid)),
            (r#""iat":1800000100"#, passing(Flaw::IssuedInFuture)),
            (r#""aud":{}"#, certain(Flaw::Malformed)),
            (r#""sub":7"#, certain(Flaw::Malformed)),
        ] {
            assert_eq!(ask(&rules, &format!(r#"{{"active":true,{member}}}"#)).err(), expected, "{member}");
        }
    }

    #[test]
    fn an_audience_that_is_asked_for_must_be_there() {
        let rules = rules(&["orders"]);
        for (member, expected) in [
            ("", certain(Flaw::Audience)),
            (r#","aud":"orders""#, None),
            (r#","aud":["x","orders"]"#, None),
            (r#","aud":"x orders""#, certain(Flaw::Audience)),
        ] {
            assert_eq!(ask(&rules, &format!(r#"{{"active":true{member}}}"#)).err(), expected, "{member}");
        }
    }

    #[test]
    fn who_it_is_and_until_when() {
        let rules = rules(&[]);
        let answer = r#"{"active":true,"client_id":"shop-web","username":"ada","scope":"a b","exp":1800000300,
            "iat":1799999999,"jti":"j"}"#;
        let identity = ask(&rules, answer).expect("good");
        assert_eq!(
            (identity.subject.as_deref(), identity.common.consumer_key.as_deref()),
            (Some("ada"), Some("shop-web"))
        );
        assert_eq!((identity.expires_at, identity.issued_at), (1_800_000_300, Some(1_799_999_999)));
        assert_eq!((identity.jti.as_deref(), &*identity.common.issuer), (Some("j"), ISSUER));
        assert_eq!(identity.common.scopes.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["a", "b"]);
        assert_eq!(identity.kind, TokenKind::User, "though there is no sub");
        let own = r#"{"active":true,"client_id":"shop-web","username":"shop-web"}"#;
        assert_eq!(ask(&rules, own).expect("good").kind, TokenKind::Application);
        let both = ask(&rules, r#"{"active":true,"sub":"1234","username":"ada"}"#).expect("good");
        assert_eq!((both.subject.as_deref(), both.expires_at), (Some("1234"), u64::MAX));
        assert_ne!(both.tag, [0; 16]);
    }

    #[test]
    fn an_answer_confirms_a_verified_token_only_when_it_is_good_itself() {
        let rules = rules(&["orders"]);
        let ask = |text: &str| confirm(&Object::parse(text.as_bytes()).expect("JSON"), &rules, NOW);
        assert_eq!(ask(r#"{"active":true}"#), Ok(None), "the audience was in what was verified");
        assert_eq!(ask(r#"{"active":true,"exp":1800000010}"#), Ok(Some(1_800_000_010)));
        for (text, expected) in [
            (r#"{"active":false}"#, certain(Flaw::Inactive)),
            (r#"{"active":true,"aud":"x"}"#, certain(Flaw::Audience)),
            (r#"{"active":true,"exp":1}"#, certain(Flaw::Expired)),
            (r#"{"active":true,"cnf":{}}"#, certain(Flaw::Bound)),
            (r#"{"active":true,"iss":"x"}"#, certain(Flaw::UnknownIssuer)),
        ] {
            assert_eq!(ask(text).err(), expected, "{text}");
        }
    }
}
