//! Tokens: from bearer text to [`Identity`], through the cache or the verifier.
//!
//! Knows nothing of APIs, subscriptions or scopes needed: only facts about the token are judged and
//! remembered here; policy is judged anew for every request by `authz`.

pub mod settings;

use std::sync::Arc;

use http::HeaderValue;

use crate::{net::Now, store::KeyManagerSet};

/// Judges tokens.
#[derive(Debug)]
pub struct Authenticator {}

/// What a good token says. Shared by all requests that bring it.
#[derive(Debug)]
pub struct Identity {
    /// Name of the key manager that vouches for it.
    pub key_manager: Arc<str>,
    /// `iss`
    pub issuer: Arc<str>,
    /// `sub`
    pub subject: Option<Box<str>>,
    /// The consumer key (OAuth client id).
    pub consumer_key: Option<Box<str>>,
    /// Scopes, whole words, in the token's order.
    pub scopes: Box<[Box<str>]>,
    /// `aud`
    pub audience: Box<[Box<str>]>,
    /// `exp`, seconds; `u64::MAX` when absent and not required. Compared with now on every hit.
    pub expires_at: u64,
    /// `iat`, seconds.
    pub issued_at: Option<u64>,
    /// `jti`
    pub jti: Option<Box<str>>,
    /// Digest of issuer and subject (length-prefixed): which user of an application it is.
    pub user: u128,
    /// Ready values of the identity headers: visible ASCII, everything else percent-encoded.
    pub headers: IdentityValues,
}

/// Ready header values; `None` where the token lacks the claim.
#[derive(Debug, Default)]
pub struct IdentityValues {
    /// `sub`
    pub subject: Option<HeaderValue>,
    /// Consumer key
    pub client_id: Option<HeaderValue>,
    /// Scopes, space separated
    pub scopes: Option<HeaderValue>,
    /// Configured claims, in the order of `store::IdentityNames::claims`.
    pub claims: Box<[Option<HeaderValue>]>,
}

/// A good token, and how it was known.
#[derive(Debug)]
pub struct Authenticated {
    /// What it says.
    pub identity: Arc<Identity>,
    /// Seen before; not verified anew.
    pub from_cache: bool,
}

/// Why a token does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// Definitely no good: 401.
    Invalid(Flaw),
    /// Cannot be judged now: 503.
    Unavailable {
        /// Name of the key manager.
        key_manager: Arc<str>,
        /// Seconds after which a retry may help, at least 1.
        retry_after: u32,
    },
}

/// What is wrong with a token. Bounded: a metric label and part of the trace; the client is told no more
/// than "invalid token".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Flaw {
    Malformed,
    Opaque,
    Encrypted,
    UnknownIssuer,
    KeyManagerNotAllowed,
    Type,
    Critical,
    Algorithm,
    UnknownKey,
    Signature,
    Expired,
    NotYetValid,
    IssuedInFuture,
    MissingExpiry,
    Lifetime,
    Audience,
    Bound,
    Revoked,
}

impl Flaw {
    /// Every flaw, for counters that start at 0.
    pub const ALL: [Self; 18] = [
        Self::Malformed,
        Self::Opaque,
        Self::Encrypted,
        Self::UnknownIssuer,
        Self::KeyManagerNotAllowed,
        Self::Type,
        Self::Critical,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Signature,
        Self::Expired,
        Self::NotYetValid,
        Self::IssuedInFuture,
        Self::MissingExpiry,
        Self::Lifetime,
        Self::Audience,
        Self::Bound,
        Self::Revoked,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Opaque => "opaque",
            Self::Encrypted => "encrypted",
            Self::UnknownIssuer => "unknown_issuer",
            Self::KeyManagerNotAllowed => "key_manager_not_allowed",
            Self::Type => "typ",
            Self::Critical => "crit",
            Self::Algorithm => "alg",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuedInFuture => "issued_in_future",
            Self::MissingExpiry => "missing_exp",
            Self::Lifetime => "lifetime",
            Self::Audience => "audience",
            Self::Bound => "bound",
            Self::Revoked => "revoked",
        }
    }
}

impl Authenticator {
    /// Judges `token` by the key managers in `allowed`. On a cache hit nothing waits; a first sight
    /// may wait for one fetch of keys, shared by all who wait.
    pub async fn authenticate(
        &self,
        token: &str,
        allowed: &KeyManagerSet,
        now: Now,
    ) -> Result<Authenticated, Rejection> {
        let _ = (token, allowed, now);
        unimplemented!()
    }
}
