//! What a token says of itself, and what those who could vouch for it want: for a person who asks why it was refused.
//!
//! Nothing here is verified and nothing here is a verdict. Text of the token itself is never given back, only what
//! its header and claims say.

use std::sync::Arc;

use super::{
    Authenticator, Flaw, Issuer,
    claims::audience,
    conditions,
    jose::Compact,
    json::{Json, Object},
};
use crate::net::Now;

/// A token's own words, unverified.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// What kind of text it is.
    pub form: Form,
    /// `alg` of its header.
    pub algorithm: Option<String>,
    /// `kid` of its header.
    pub key_id: Option<String>,
    /// `typ` of its header.
    pub typ: Option<String>,
    /// The claim by which it is another kind of token than an access token.
    pub telltale: Option<String>,
    /// `iss`
    pub issuer: Option<String>,
    /// `aud`
    pub audience: Vec<String>,
    /// `exp`, seconds.
    pub expires_at: Option<u64>,
    /// `nbf`, seconds.
    pub not_before: Option<u64>,
    /// `iat`, seconds.
    pub issued_at: Option<u64>,
    /// The key managers of that issuer, in declared order.
    pub managers: Vec<Wants>,
}

/// What kind of text a token is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// Neither of the others.
    #[default]
    Opaque,
    /// A JWT that can be read.
    Jwt,
    /// Two dots, but no JWT that can be read.
    Unreadable,
    /// Four dots: encrypted.
    Jwe,
}

/// What a key manager wants of a token.
#[derive(Debug, PartialEq, Eq)]
pub struct Wants {
    /// Its name.
    pub name: String,
    /// One of these must be in `aud`; empty for any.
    pub audience: Vec<String>,
    /// The signatures it takes.
    pub algorithms: Vec<String>,
    /// The longest life that it lets a token have, in seconds; 0 for any.
    pub max_lifetime_s: u64,
    /// Names of the claims that are not as `required_claims` and `token_match` ask.
    pub unmet: Vec<String>,
}

impl Authenticator {
    /// Looks at a token without judging it.
    pub fn glance(&self, token: &str) -> Glance {
        let compact = match Compact::split(token) {
            Ok(compact) => compact,
            Err(Flaw::Encrypted) => return Glance { form: Form::Jwe, ..Glance::default() },
            Err(Flaw::Opaque) => return Glance::default(),
            Err(_) => return Glance { form: Form::Unreadable, ..Glance::default() },
        };
        let (Some(header), Some(claims)) = (Object::parse(&compact.header), Object::parse(&compact.payload)) else {
            return Glance { form: Form::Unreadable, ..Glance::default() };
        };
        let issuer = claims.get("iss").and_then(Json::as_text);
        let managers = self.managers.load();
        let of_issuer = |known: &&Arc<Issuer>| issuer == Some(&*known.rules.issuer);
        Glance {
            form: Form::Jwt,
            algorithm: text(&header, "alg"),
            key_id: text(&header, "kid"),
            typ: text(&header, "typ"),
            audience: audience(&claims).unwrap_or_default().iter().map(|member| shown(member)).collect(),
            expires_at: seconds(&claims, "exp"),
            not_before: seconds(&claims, "nbf"),
            issued_at: seconds(&claims, "iat"),
            telltale: conditions::telltale(&claims).map(shown),
            managers: managers.issuers().iter().filter(of_issuer).map(|issuer| wants(issuer, &claims)).collect(),
            issuer: issuer.map(shown),
        }
    }

    /// Whether every key manager has keys, or has failed to get them.
    pub fn is_settled(&self, now: Now) -> bool {
        self.managers.load().issuers().iter().all(|issuer| issuer.is_failing() || issuer.status(now).ready)
    }

    /// Name and issuer of each key manager, in declared order.
    pub fn issuers(&self) -> Vec<(String, String)> {
        let pair = |issuer: &Arc<Issuer>| (issuer.rules.name.to_string(), issuer.rules.issuer.to_string());
        self.managers.load().issuers().iter().map(pair).collect()
    }
}

fn wants(issuer: &Issuer, claims: &Object<'_>) -> Wants {
    let settings = &issuer.rules.settings;
    let unmet = conditions::unmet(claims, settings).chain(issuer.rules.patterns.unmatched(claims));
    Wants {
        name: settings.name.clone(),
        audience: settings.audience.clone(),
        algorithms: settings.algorithms.iter().map(|algorithm| algorithm.name().to_owned()).collect(),
        max_lifetime_s: settings.max_lifetime.0.as_secs(),
        unmet: unmet.map(str::to_owned).collect(),
    }
}

fn text(object: &Object<'_>, name: &str) -> Option<String> {
    object.get(name).and_then(Json::as_text).map(shown)
}

fn seconds(object: &Object<'_>, name: &str) -> Option<u64> {
    match object.get(name) {
        Some(Json::Unsigned(seconds)) => Some(*seconds),
        _ => None,
    }
}

/// A stranger's text for a terminal: short, and without control characters.
fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(LONGEST_SHOWN).map(clean).collect()
}

const LONGEST_SHOWN: usize = 200;
