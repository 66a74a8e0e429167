//! What a token says of itself, and what those who could vouch for it want: for a person who asks why it was refused.
//!
//! Nothing here is verified and nothing here is a verdict. Text of the token itself is never given back, only what
//! its header and claims say.

use std::sync::Arc;

use super::{
    Authenticator, Flaw, Issuer,
    claims::{self, Read, Times, audience},
    conditions,
    jose::{self, Compact, MAX_TOKEN},
    json::{Json, Object},
};
use crate::net::Now;

/// A token's own words, unverified.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// What kind of text it is.
    pub form: Form,
    /// What of it has not the form that it must have; none where nothing of that kind is seen.
    pub misshapen: Option<Misshapen>,
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
    /// `exp`, seconds; none of the times where one of them is misshapen.
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

/// What of a token has not the form that it must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misshapen {
    /// It has more bytes than these.
    Length(usize),
    /// It has characters that no token has.
    Characters,
    /// A part is not base64url.
    Encoding,
    /// The header is no JSON object, has a member twice, or nests too deep.
    Header,
    /// The same of the claims.
    Claims,
    /// The header parameter of this name.
    Parameter(String),
    /// The claim of this name, or path.
    Claim(String),
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
            Err(Flaw::Opaque) => {
                let invisible = !token.bytes().all(|byte| byte.is_ascii_graphic());
                return Glance { misshapen: invisible.then_some(Misshapen::Characters), ..Glance::default() };
            }
            Err(_) if token.len() > MAX_TOKEN => return Glance::unreadable(Misshapen::Length(MAX_TOKEN)),
            Err(_) => return Glance::unreadable(Misshapen::Encoding),
        };
        let Some(header) = Object::parse(&compact.header) else { return Glance::unreadable(Misshapen::Header) };
        let Some(claims) = Object::parse(&compact.payload) else { return Glance::unreadable(Misshapen::Claims) };
        let issuer = claims::issuer(&claims).unwrap_or_default();
        let times = Times::read(&claims).unwrap_or_default();
        let managers = self.managers.load();
        let of_issuer = |known: &&Arc<Issuer>| issuer == Some(&*known.rules.issuer);
        Glance {
            form: Form::Jwt,
            misshapen: misshapen(&header, &claims, managers.issuers().iter().filter(of_issuer)),
            algorithm: text(&header, "alg"),
            key_id: text(&header, "kid"),
            typ: text(&header, "typ"),
            audience: audience(&claims).unwrap_or_default().iter().map(|member| shown(member)).collect(),
            expires_at: times.exp,
            not_before: times.nbf,
            issued_at: times.iat,
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

impl Glance {
    fn unreadable(why: Misshapen) -> Self {
        Self { form: Form::Unreadable, misshapen: Some(why), ..Self::default() }
    }
}

/// The first parameter or claim of another form than it must have.
fn misshapen<'i>(
    header: &Object<'_>,
    claims: &Object<'_>,
    mut managers: impl Iterator<Item = &'i Arc<Issuer>>,
) -> Option<Misshapen> {
    if let Some(name) = jose::misshapen(header) {
        return Some(Misshapen::Parameter(shown(name)));
    }
    let by_rules = || managers.find_map(|issuer| Read::of(claims, &issuer.rules).err());
    let claims::Misshapen(name) = claims::issuer(claims).err().or_else(by_rules)?;
    Some(Misshapen::Claim(shown(name)))
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

/// A stranger's text for a terminal: short, and without control characters.
fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(LONGEST_SHOWN).map(clean).collect()
}

const LONGEST_SHOWN: usize = 200;
