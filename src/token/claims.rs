//! A verified payload judged (RFC 7519 section 4.1, RFC 9068 section 4) and turned into an [`Identity`].
//!
//! Dates are numbers, audiences are compared whole, a shape that is not understood is refused. Values for
//! headers are encoded here, once, so that no claim can break out of its header.

use std::num::NonZeroU32;

use aws_lc_rs::digest;
use http::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use smallvec::SmallVec;

use super::{
    Flaw, Identity, TokenKind,
    common::{Commons, Said},
    conditions,
    digest::{Digest, Tag},
    json::{Json, Object},
    rules::Rules,
    settings::KeyManagerSettings,
};
use crate::net::Now;

/// What a token's times allow, in milliseconds, leeway included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    /// Good from here on.
    from_ms: u64,
    /// No good from here on.
    until_ms: u64,
}

/// The token that the claims are of, and where they come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bearer {
    /// What the token is known by.
    tag: Tag,
    /// They are the provider's answer, not in the token itself.
    introspected: bool,
}

impl Bearer {
    /// Claims that stand in the token itself.
    pub(super) fn of(token: &Digest) -> Self {
        Self { tag: token.tag, introspected: false }
    }

    /// Claims that a provider has given for it.
    pub(super) fn introspected(token: &Digest) -> Self {
        Self { introspected: true, ..Self::of(token) }
    }
}

/// By what, and when, claims are judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grounds<'a> {
    pub(super) rules: &'a Rules,
    /// What of a token is kept once for many.
    pub(super) commons: &'a Commons,
    pub(super) now: Now,
}

/// Judges the claims of a token whose signature is good, or that its provider vouches for.
pub(super) fn judge(
    claims: &Object<'_>,
    bearer: &Bearer,
    Grounds { rules, commons, now }: Grounds<'_>,
) -> Result<(Identity, Validity), Flaw> {
    let Read { times, audience, told, own_subject, jti } = Read::of(claims, rules)?;
    // An answer without `exp` is used for a while, and then asked for anew.
    let validity = times.judge(&rules.settings, rules.settings.require_exp && !bearer.introspected, now)?;
    if !meets(&rules.settings, &audience) {
        return Err(Flaw::Audience);
    }
    // Until proofs are checked, a bound token is as good as none to whoever merely holds it.
    if claims.has("cnf") {
        return Err(Flaw::Bound);
    }
    conditions::is_for_access(claims)?;
    conditions::required(claims, &rules.settings)?;
    let consumer_key = consumer_key(claims, rules);
    let kind = conditions::kind(claims, told, consumer_key);
    let subject = match told {
        None if bearer.introspected => text(claims, "username")?,
        told => told,
    };
    // Who has a name of their own is a user, though the answer has no `sub`.
    let named = bearer.introspected && subject.is_some() && subject != consumer_key;
    let kind = match kind {
        TokenKind::Application if named && !claims.has("sub") && !claims.has("aut") => TokenKind::User,
        kind => kind,
    };
    let acr = claims.get("acr").and_then(Json::as_text);
    let said = Said { rules, consumer_key, scopes: scopes(claims, rules), audience, acr };
    let identity = Identity {
        common: commons.of(&said),
        user: user(&rules.issuer, subject),
        kind,
        signed_in_at: signed_in_at(claims),
        subject_value: subject.and_then(text_header),
        claims: rules.header_sources.iter().map(|path| claim_header(claims.at(path.as_deref()?)?)).collect(),
        subject: subject.map(Into::into),
        own_subject: own_subject.map(Into::into),
        expires_at: times.exp.unwrap_or(u64::MAX),
        issued_at: times.iat,
        jti: jti.map(Into::into),
        tag: bearer.tag,
        inside: None,
    };
    Ok((identity, validity))
}

/// Judges what a provider's answer says of a token whose own claims have been judged: it may say less, and
/// must not disagree. Gives back its `exp`, seconds.
pub(super) fn confirm(answer: &Object<'_>, rules: &Rules, now: Now) -> Result<Option<u64>, Flaw> {
    let times = Times::read(answer)?;
    Validity::of(&times, &rules.settings).judge(now)?;
    if answer.has("aud") && !meets(&rules.settings, &audience(answer)?) {
        return Err(Flaw::Audience);
    }
    if answer.has("cnf") {
        return Err(Flaw::Bound);
    }
    Ok(times.exp)
}

/// Whether `iat` is there and within `max_age_ms` of now, leeway included.
pub(super) fn just_issued(claims: &Object<'_>, rules: &Rules, max_age_ms: u64, now: Now) -> Result<(), Flaw> {
    let times = Times::read(claims)?;
    let leeway = millis(rules.settings.leeway.0);
    let issued_ms = times.iat.ok_or(Flaw::Lifetime)? * 1000;
    if issued_ms > now.unix_ms.saturating_add(leeway) {
        return Err(Flaw::IssuedInFuture);
    }
    if issued_ms.saturating_add(max_age_ms).saturating_add(leeway) < now.unix_ms {
        return Err(Flaw::Expired);
    }
    Ok(())
}

impl Validity {
    fn of(times: &Times, settings: &KeyManagerSettings) -> Self {
        let leeway = millis(settings.leeway.0);
        Self {
            from_ms: times.nbf.map_or(0, |nbf| (nbf * 1000).saturating_sub(leeway)),
            until_ms: times.exp.map_or(u64::MAX, |exp| exp * 1000 + leeway),
        }
    }

    /// Compares with now, at first sight and on every later one.
    pub(super) fn judge(self, now: Now) -> Result<(), Flaw> {
        if now.unix_ms >= self.until_ms {
            return Err(Flaw::Expired);
        }
        if now.unix_ms < self.from_ms {
            return Err(Flaw::NotYetValid);
        }
        Ok(())
    }
}

/// A claim that has not the form it must have, by its name or path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misshapen<'n>(pub(super) &'n str);

impl From<Misshapen<'_>> for Flaw {
    fn from(_: Misshapen<'_>) -> Self {
        Self::Malformed
    }
}

/// The claims that must have a form, where they are there at all.
#[derive(Debug)]
pub(super) struct Read<'c> {
    times: Times,
    audience: SmallVec<[&'c str; 4]>,
    /// `sub`, or what is mapped to it.
    told: Option<&'c str>,
    /// `sub`, where another claim is mapped to it.
    own_subject: Option<&'c str>,
    jti: Option<&'c str>,
}

impl<'c> Read<'c> {
    /// Reads them, or names the first that has another form.
    pub(super) fn of<'r>(claims: &'c Object<'_>, rules: &'r Rules) -> Result<Self, Misshapen<'r>> {
        let (times, audience, own) = (Times::read(claims)?, audience(claims)?, text(claims, "sub")?);
        let (told, own_subject) = match rules.subject_source.as_deref() {
            None => (own, None),
            Some(path) => (text(claims, path)?, own),
        };
        Ok(Self { times, audience, told, own_subject, jti: text(claims, "jti")? })
    }
}

/// `exp`, `nbf` and `iat` in whole seconds, fractions to the strict side.
#[derive(Debug, Default)]
pub(super) struct Times {
    pub(super) exp: Option<u64>,
    pub(super) nbf: Option<u64>,
    pub(super) iat: Option<u64>,
}

impl Times {
    pub(super) fn read(claims: &Object<'_>) -> Result<Self, Misshapen<'static>> {
        let date = |name, round: fn(f64) -> f64| {
            let value = claims.get(name);
            value.map(|value| numeric_date(value, round).ok_or(Misshapen(name))).transpose()
        };
        Ok(Self { exp: date("exp", f64::floor)?, nbf: date("nbf", f64::ceil)?, iat: date("iat", f64::floor)? })
    }

    fn judge(&self, settings: &KeyManagerSettings, require_exp: bool, now: Now) -> Result<Validity, Flaw> {
        if self.exp.is_none() && require_exp {
            return Err(Flaw::MissingExpiry);
        }
        let leeway = millis(settings.leeway.0);
        let validity = Validity::of(self, settings);
        validity.judge(now)?;
        if self.iat.is_some_and(|iat| iat * 1000 > now.unix_ms.saturating_add(leeway)) {
            return Err(Flaw::IssuedInFuture);
        }
        let longest = millis(settings.max_lifetime.0);
        if longest > 0 {
            let (Some(exp), Some(iat)) = (self.exp, self.iat) else { return Err(Flaw::Lifetime) };
            if exp.saturating_sub(iat) * 1000 > longest {
                return Err(Flaw::Lifetime);
            }
        }
        Ok(validity)
    }
}

/// A NumericDate. Before 1970 there were no tokens; beyond 2^53 doubles lose seconds. Neither is a date here.
fn numeric_date(value: &Json<'_>, round: fn(f64) -> f64) -> Option<u64> {
    let seconds = match *value {
        Json::Unsigned(seconds) => seconds,
        Json::Float(seconds) if (0.0..=MAX_DATE as f64).contains(&seconds) => round(seconds) as u64,
        _ => return None,
    };
    (seconds <= MAX_DATE).then_some(seconds)
}

/// `iss`
pub(super) fn issuer<'c>(claims: &'c Object<'_>) -> Result<Option<&'c str>, Misshapen<'static>> {
    text(claims, "iss")
}

/// The members of `aud`, a string or an array of strings; none where it is absent.
pub(super) fn audience<'a>(claims: &'a Object<'_>) -> Result<SmallVec<[&'a str; 4]>, Misshapen<'static>> {
    let misshapen = || Misshapen("aud");
    match claims.get("aud") {
        None => Ok(SmallVec::new()),
        Some(Json::Text(one)) => Ok(SmallVec::from_slice(&[one.as_ref()])),
        Some(Json::List(members)) => members.iter().map(|member| member.as_text().ok_or_else(misshapen)).collect(),
        Some(_) => Err(misshapen()),
    }
}

/// Whether a token with this audience is meant for the key manager's; one that lists none accepts any.
pub(super) fn meets(settings: &KeyManagerSettings, audience: &[&str]) -> bool {
    settings.audience.is_empty() || audience.iter().any(|member| settings.audience.iter().any(|a| *a == **member))
}

/// The first of the claims that is present: a string, or the first string of a list.
fn consumer_key<'a>(claims: &'a Object<'_>, rules: &Rules) -> Option<&'a str> {
    let value = rules.settings.consumer_key_claim.as_slice().iter().find_map(|name| claims.at(name))?;
    let text = match value {
        Json::List(list) => list.first()?.as_text()?,
        other => other.as_text()?,
    };
    (!text.is_empty()).then_some(text)
}

/// The first of the claims that is present: words in a string, or an array of strings. Any other shape
/// gives no scopes.
fn scopes<'a>(claims: &'a Object<'_>, rules: &Rules) -> SmallVec<[&'a str; 8]> {
    match rules.settings.scopes_claim.as_slice().iter().find_map(|name| claims.at(name)) {
        Some(Json::Text(words)) => words.split(' ').filter(|word| !word.is_empty()).collect(),
        Some(Json::List(list)) => {
            texts(list).map(|words| words.into_iter().filter(|word| !word.is_empty()).collect()).unwrap_or_default()
        }
        _ => SmallVec::new(),
    }
}

fn texts<'a>(list: &'a [Json<'_>]) -> Option<Vec<&'a str>> {
    list.iter().map(Json::as_text).collect()
}

fn text<'c, 'p>(claims: &'c Object<'_>, path: &'p str) -> Result<Option<&'c str>, Misshapen<'p>> {
    claims.at(path).map(|value| value.as_text().ok_or(Misshapen(path))).transpose()
}

/// `auth_time`, rounded down: whoever asks for a fresh sign-in is not given a second. Any other shape than a date's is
/// no sign-in at all, as where the claim is absent.
fn signed_in_at(claims: &Object<'_>) -> Option<NonZeroU32> {
    let seconds = numeric_date(claims.get("auth_time")?, f64::floor)?;
    NonZeroU32::new(u32::try_from(seconds).ok()?)
}

/// Which user it is, the same on every replica. Length-prefixed: no two pairs join to the same bytes.
pub fn user(issuer: &str, subject: Option<&str>) -> u128 {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&(issuer.len() as u64).to_le_bytes());
    hash.update(issuer.as_bytes());
    if let Some(subject) = subject {
        hash.update(&(subject.len() as u64).to_le_bytes());
        hash.update(subject.as_bytes());
    }
    let hash = hash.finish();
    hash.as_ref().iter().take(16).fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

/// A claim as a header: text as it is, lists of text joined by commas, anything deeper as compact JSON,
/// all percent-encoded. `null` counts as absent.
fn claim_header(value: &Json<'_>) -> Option<HeaderValue> {
    match value {
        Json::Null => None,
        Json::Text(text) => header_value(&encode(text)),
        Json::List(list) if list.iter().all(|member| member.as_text().is_some()) => joined(&texts(list)?, ','),
        other => header_value(&encode(&serde_json::to_string(other).ok()?)),
    }
}

/// Encoded words with a separator between them that none of them contains; none without words.
pub(super) fn joined(words: &[impl AsRef<str>], separator: char) -> Option<HeaderValue> {
    if words.is_empty() {
        return None;
    }
    // Long enough where nothing has to be encoded.
    let length = words.iter().map(|word| word.as_ref().len() + 1).sum::<usize>();
    let mut text = String::with_capacity(length.min(MAX_HEADER));
    for (i, word) in words.iter().enumerate() {
        if i > 0 {
            text.push(separator);
        }
        text.extend(utf8_percent_encode(word.as_ref(), if separator == ',' { &ENCODED_IN_LIST } else { &ENCODED }));
        if text.len() > MAX_HEADER {
            return None;
        }
    }
    header_value(&text)
}

/// A text as a header's value.
pub(super) fn text_header(text: &str) -> Option<HeaderValue> {
    header_value(&encode(text))
}

fn encode(text: &str) -> std::borrow::Cow<'_, str> {
    utf8_percent_encode(text, &ENCODED).into()
}

fn header_value(text: &str) -> Option<HeaderValue> {
    if text.len() > MAX_HEADER {
        return None;
    }
    HeaderValue::from_str(text).ok()
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Everything but visible ASCII, and `%` itself, so that decoding gives back what was there.
const ENCODED: AsciiSet = CONTROLS.add(b' ').add(b'%');
const ENCODED_IN_LIST: AsciiSet = ENCODED.add(b',');
const MAX_HEADER: usize = 4 << 10;
const MAX_DATE: u64 = 1 << 53;

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
