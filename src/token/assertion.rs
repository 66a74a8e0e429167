//! The backend JWT: what an upstream is told of the caller, signed by us (RFC 7519; WSO2's `X-JWT-Assertion`).
//!
//! Short-lived, never longer than the caller's own token, signed with ES256 by a key that turns over. Keys live in
//! memory alone: each process has its own, and publishes the next one long before it signs. One assertion serves one
//! token at one API until a quarter of its life is left; nothing else about the caller is ever looked up by it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use percent_encoding::percent_decode;
use quick_cache::sync::Cache as Bounded;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Identity, SigningError, SigningKey, TokenKind, digest::Tag};
use crate::{
    net::Now,
    problem::Problem,
    store::{Api, Application, KeyType, Subscription},
    units::Span,
};

/// `[backend_jwt]`: upstreams are told of the caller by a JWT of ours.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BackendJwtSettings {
    /// The header that carries it; clients' own are removed.
    pub header: String,
    /// Which claims it has.
    pub profile: Profile,
    /// Its `iss`; by default `tollgate`, with profile `wso2` `wso2.org/products/am`.
    pub issuer: Option<String>,
    /// Its life, 4 s to 5 m; never beyond the `exp` of the caller's token.
    pub lifetime: Span,
    /// How long a key signs.
    pub key_rotation: Span,
    /// Claims of the caller's token that it has too, as text.
    pub claims: Vec<String>,
    /// Where the proxy door publishes the keys (RFC 7517).
    pub jwks_path: String,
}

impl Default for BackendJwtSettings {
    fn default() -> Self {
        Self {
            header: "X-JWT-Assertion".into(),
            profile: Profile::Plain,
            issuer: None,
            lifetime: Span::seconds(60),
            key_rotation: Span::seconds(24 * 60 * 60),
            claims: Vec::new(),
            jwks_path: "/.well-known/tollgate-backend-jwks.json".into(),
        }
    }
}

/// Which claims a backend JWT has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Those of RFC 9068: `sub`, `client_id`, `scope`.
    #[default]
    Plain,
    /// Those of WSO2, in its dialect `http://wso2.org/claims/`.
    Wso2,
}

/// Mints backend JWTs.
#[derive(Debug)]
pub struct Assertions {
    settings: BackendJwtSettings,
    header: HeaderName,
    keys: Arc<Keys>,
    minted: Bounded<Key, Arc<Minted>>,
}

/// Token, tables and API: equal ones are told the same.
type Key = (Tag, u64, u32);

/// An assertion in use.
#[derive(Debug)]
struct Minted {
    /// Whom it speaks of; another identity is told anew, though its token be the same.
    identity: Arc<Identity>,
    /// Seconds; from then on another is minted.
    fresh_until: u64,
    value: HeaderValue,
}

/// Who calls what, as the tables of one generation know it.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The caller.
    pub identity: &'a Arc<Identity>,
    /// The API, and its place in the tables.
    pub api: (&'a Api, u32),
    /// The application, where subscriptions are looked at.
    pub application: Option<&'a Application>,
    /// Its subscription to the API.
    pub subscription: Option<&'a Subscription>,
    /// Environment of the consumer key.
    pub key_type: KeyType,
    /// Which version of the tables it is.
    pub generation: u64,
}

/// The keys of this process.
#[derive(Debug)]
struct Keys {
    ring: ArcSwap<Ring>,
    turning: Mutex<()>,
}

/// The keys of one moment.
#[derive(Debug)]
struct Ring {
    /// Published, not yet used.
    next: Arc<SigningKey>,
    current: Arc<SigningKey>,
    /// Since when it signs, seconds.
    since: u64,
    /// Each with the second until which what it signed may live.
    old: Vec<(Arc<SigningKey>, u64)>,
    jwks: Bytes,
}

impl Assertions {
    /// Reads the settings, or names every mistake in them. `before` are those that these replace: their keys stay.
    pub fn build(settings: &BackendJwtSettings, before: Option<&Self>, now: Now) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut wrong =
            |name: &str, message: String| problems.push(Problem::new(format!("backend_jwt.{name}"), message));
        let header = HeaderName::from_bytes(settings.header.as_bytes()).map_err(|_| {
            wrong("header", "is not a header name".into());
        });
        if !(SHORTEST..=LONGEST).contains(&settings.lifetime) || !settings.lifetime.is_whole_seconds() {
            wrong("lifetime", "is whole seconds, \"4s\" to \"5m\"".into());
        }
        if settings.key_rotation < SHORTEST_ROTATION || !settings.key_rotation.is_whole_seconds() {
            wrong(
                "key_rotation",
                "is whole seconds, at least \"10m\", so that whoever caches the keys finds the next one".into(),
            );
        }
        if settings.issuer.as_deref() == Some("") {
            wrong("issuer", "must not be empty".into());
        }
        let path = &settings.jwks_path;
        if !path.starts_with('/')
            || path.len() < 2
            || !path.bytes().all(|b| b.is_ascii_graphic() && !b"?#%\\;".contains(&b))
        {
            wrong("jwks_path", "must be a path of visible characters, such as /.well-known/keys.json".into());
        }
        for (n, claim) in settings.claims.iter().enumerate() {
            if claim.is_empty() || RESERVED.contains(&claim.as_str()) || claim.starts_with(DIALECT) {
                wrong(&format!("claims[{n}]"), "is empty, or a claim that the gate itself sets".into());
            }
        }
        let keys = match before {
            Some(before) => Ok(Arc::clone(&before.keys)),
            None => Keys::new(now.unix()).map(Arc::new).map_err(|error| wrong("", error.to_string())),
        };
        let (Ok(header), Ok(keys), true) = (header, keys, problems.is_empty()) else { return Err(problems) };
        Ok(Self { settings: settings.clone(), header, keys, minted: Bounded::new(MOST_MINTED) })
    }

    /// The header that carries it.
    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    /// Where the keys are published.
    pub fn jwks_path(&self) -> &str {
        &self.settings.jwks_path
    }

    /// The published keys: the present one, the next, and those before whose assertions may still live (RFC 7517).
    pub fn jwks(&self) -> Bytes {
        self.keys.ring.load().jwks.clone()
    }

    /// The assertion about a caller: one look-up for whoever was here before, a signature on the first sight.
    pub fn of(&self, caller: Caller<'_>, now: Now) -> Result<HeaderValue, SigningError> {
        let key = (caller.identity.tag, caller.generation, caller.api.1);
        if let Some(minted) = self.minted.get(&key)
            && now.unix() < minted.fresh_until
            && Arc::ptr_eq(&minted.identity, caller.identity)
        {
            return Ok(minted.value.clone());
        }
        let at = now.unix();
        let lifetime = self.settings.lifetime.0.as_secs();
        let expires_at = at.saturating_add(lifetime).min(caller.identity.expires_at);
        let signing = self.keys.current(at, self.settings.key_rotation.0.as_secs())?;
        let text = signing.sign("JWT", &self.claims(caller, at, expires_at))?;
        let mut value = HeaderValue::try_from(text).map_err(|_| SigningError::Generate)?;
        value.set_sensitive(true);
        let fresh_until = expires_at.saturating_sub(expires_at.saturating_sub(at) / 4);
        let minted = Minted { identity: Arc::clone(caller.identity), fresh_until, value: value.clone() };
        self.minted.insert(key, Arc::new(minted));
        Ok(value)
    }

    fn claims(&self, caller: Caller<'_>, at: u64, expires_at: u64) -> Map<String, Value> {
        let mut claims = Map::new();
        for name in &self.settings.claims {
            // Never a value that was meant for another claim: looked up by name.
            if let Some(value) = caller.identity.claim(usize::MAX, name) {
                let text = percent_decode(value.as_bytes()).decode_utf8_lossy();
                claims.insert(name.clone(), json!(text));
            }
        }
        let api = caller.api.0;
        let issuer = self.settings.issuer.as_deref();
        claims.insert("aud".into(), json!(&*api.id));
        claims.insert("iat".into(), json!(at));
        claims.insert("exp".into(), json!(expires_at));
        claims.insert("jti".into(), json!(format!("{:032x}", fastrand::u128(..))));
        if let Some(subject) = caller.identity.subject.as_deref() {
            claims.insert("sub".into(), json!(subject));
        }
        match self.settings.profile {
            Profile::Plain => {
                claims.insert("iss".into(), json!(issuer.unwrap_or("tollgate")));
                if let Some(key) = caller.identity.common.consumer_key.as_deref() {
                    claims.insert("client_id".into(), json!(key));
                }
                if !caller.identity.common.scopes.is_empty() {
                    claims.insert("scope".into(), json!(caller.identity.common.scopes.join(" ")));
                }
            }
            Profile::Wso2 => {
                claims.insert("iss".into(), json!(issuer.unwrap_or("wso2.org/products/am")));
                wso2(caller, &mut claims);
            }
        }
        claims
    }
}

/// WSO2's claims, as far as the tables know them: there are no numeric ids here.
fn wso2(caller: Caller<'_>, claims: &mut Map<String, Value>) {
    let mut set = |name: &str, value: &str| _ = claims.insert(format!("{DIALECT}{name}"), json!(value));
    let api = caller.api.0;
    set("apiname", &api.name);
    set("apicontext", &api.context);
    set("version", api.version.as_deref().unwrap_or_default());
    set("keytype", if caller.key_type == KeyType::Sandbox { "SANDBOX" } else { "PRODUCTION" });
    let of_application = caller.identity.kind == TokenKind::Application;
    set("usertype", if of_application { "Application" } else { "Application_User" });
    if let Some(application) = caller.application {
        set("subscriber", &application.owner);
        set("applicationname", &application.name);
        set("applicationtier", &application.tier_name);
    }
    set("tier", caller.subscription.map_or("Unlimited", |subscription| &subscription.tier_name));
    // An application calls for the one who owns it.
    let owner = caller.application.filter(|_| of_application).map(|application| &*application.owner);
    if let Some(user) = owner.or(caller.identity.subject.as_deref()) {
        set("enduser", user);
    }
}

impl Keys {
    fn new(now: u64) -> Result<Self, SigningError> {
        let (next, current) = (SigningKey::generate()?.0, SigningKey::generate()?.0);
        let ring = Ring::of(Arc::new(next), Arc::new(current), now, Vec::new());
        Ok(Self { ring: ArcSwap::from_pointee(ring), turning: Mutex::new(()) })
    }

    /// The key to sign with; the next one, once the present one has signed for `rotation` seconds. Old keys go once
    /// nothing that they signed is alive.
    fn current(&self, now: u64, rotation: u64) -> Result<Arc<SigningKey>, SigningError> {
        let ring = self.ring.load();
        if ring.is_settled(now, rotation) {
            return Ok(Arc::clone(&ring.current));
        }
        let _one_at_a_time = self.turning.lock();
        let ring = self.ring.load();
        if !ring.is_settled(now, rotation) {
            self.ring.store(Arc::new(ring.turned(now, rotation)?));
        }
        Ok(Arc::clone(&self.ring.load().current))
    }
}

impl Ring {
    /// Whether there is nothing to turn, and nothing to take away.
    fn is_settled(&self, now: u64, rotation: u64) -> bool {
        now < self.since.saturating_add(rotation) && self.old.iter().all(|(_, until)| *until >= now)
    }

    /// The keys as they are to be from now on.
    fn turned(&self, now: u64, rotation: u64) -> Result<Self, SigningError> {
        let mut old: Vec<_> = self.old.iter().filter(|(_, until)| *until >= now).cloned().collect();
        if now < self.since.saturating_add(rotation) {
            return Ok(Self::of(Arc::clone(&self.next), Arc::clone(&self.current), self.since, old));
        }
        old.insert(0, (Arc::clone(&self.current), now.saturating_add(STAYS_S)));
        Ok(Self::of(Arc::new(SigningKey::generate()?.0), Arc::clone(&self.next), now, old))
    }

    fn of(next: Arc<SigningKey>, current: Arc<SigningKey>, since: u64, old: Vec<(Arc<SigningKey>, u64)>) -> Self {
        let all = [&current, &next].into_iter().chain(old.iter().map(|(key, _)| key));
        let jwks = json!({ "keys": all.map(|key| key.public()).collect::<Vec<_>>() }).to_string().into();
        Self { next, current, since, old, jwks }
    }
}

const DIALECT: &str = "http://wso2.org/claims/";
/// Claims that are ours to set.
const RESERVED: [&str; 9] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope"];
const SHORTEST: Span = Span::seconds(4);
const LONGEST: Span = Span::seconds(300);
const SHORTEST_ROTATION: Span = Span::seconds(600);
/// How long a key stays published after it has signed: the longest life, and as much for clocks that are behind.
const STAYS_S: u64 = 600;
/// Assertions that are kept, about 1 KiB each.
const MOST_MINTED: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(keys: &Keys) -> Vec<String> {
        let jwks: Value = serde_json::from_slice(&keys.ring.load().jwks).unwrap_or_default();
        let list = jwks["keys"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|key| key["kid"].as_str().map(str::to_owned)).collect()
    }

    #[test]
    fn keys_are_published_before_they_sign_and_as_long_as_what_they_signed_lives() {
        let keys = Keys::new(1000).expect("random numbers");
        let first = keys.current(1599, 600).expect("a key");
        let announced = ids(&keys);
        assert_eq!(announced.len(), 2);
        let second = keys.current(1600, 600).expect("a key");
        assert_ne!(first.id(), second.id());
        assert!(announced.iter().any(|id| id == second.id()), "published before it signed");
        assert!(ids(&keys).iter().any(|id| id == first.id()), "still published");
        keys.current(2201, 600).expect("a key");
        assert!(!ids(&keys).iter().any(|id| id == first.id()), "its last assertion has expired");
        assert!(ids(&keys).iter().any(|id| id == second.id()));
    }

    #[test]
    fn an_old_key_does_not_stay_as_long_as_the_new_one_signs() {
        let keys = Keys::new(1000).expect("random numbers");
        let first = keys.current(1000, 86_400).expect("a key");
        let second = keys.current(90_000, 86_400).expect("a key");
        keys.current(90_600, 86_400).expect("a key");
        assert!(ids(&keys).iter().any(|id| id == first.id()) && ids(&keys).len() == 3);
        let still = keys.current(90_601, 86_400).expect("a key");
        assert_eq!(still.id(), second.id(), "nothing has turned");
        assert!(!ids(&keys).iter().any(|id| id == first.id()) && ids(&keys).len() == 2);
    }

    #[test]
    fn mistakes_are_named() {
        let settings = BackendJwtSettings {
            header: "a b".into(),
            issuer: Some(String::new()),
            lifetime: Span::seconds(301),
            key_rotation: Span::seconds(1),
            claims: vec!["email".into(), "sub".into()],
            jwks_path: "keys".into(),
            ..BackendJwtSettings::default()
        };
        let found = Assertions::build(&settings, None, Now::at_ms(0)).map(drop).unwrap_err();
        let fields: Vec<_> = found.iter().map(|problem| problem.field.as_str()).collect();
        let expected = ["header", "lifetime", "key_rotation", "issuer", "jwks_path", "claims[1]"];
        assert_eq!(fields, expected.map(|name| format!("backend_jwt.{name}")));
    }
}
