//! Tokens: from bearer text to [`Identity`], through the cache or the verifier.
//!
//! Knows nothing of APIs, subscriptions or scopes needed: only facts about the token are judged and
//! remembered here; policy is judged anew for every request by `authz`.

mod algorithm;
mod answer;
mod ask;
pub mod assertion;
mod cache;
mod claims;
mod common;
mod conditions;
mod digest;
mod embedded_settings;
mod failures;
mod flight;
mod glance;
mod introspection;
#[cfg(test)]
mod introspection_tests;
mod issuer;
mod jose;
mod json;
pub mod jwe;
mod jwe_key;
mod jwks;
pub mod jws;
mod jwt;
mod keys;
mod known;
mod managers;
mod metrics;
mod pace;
mod rules;
pub mod settings;
mod sight;
mod signing_key;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod turns;
mod weak;

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::runtime::Handle;

pub use claims::user;
pub use common::Common;
pub use failures::Flood;
pub use glance::{Form, Glance, Misshapen, Wants};
pub use introspection::{AnswerForm, Circuit, Introspect, IntrospectError, IntrospectFuture, IntrospectionAnswer};
pub use issuer::{Issuer, IssuerStatus, Sources};
pub use jose::MAX_TOKEN;
pub use jwks::{JwksError, MAX_JWKS, SharedKeyError};
pub use keys::{FetchError, FetchFuture, FetchKeys, Fetched, KeySource, LocalKeys};
pub use managers::KeyManagers;
pub use signing_key::{SigningError, SigningKey};
pub use turns::VerificationSettings;

use crate::{
    net::Now,
    store::{KeyManagerSet, TokenDigests, TokenFacts, TokenSha256},
};
use ask::{Outcome, Question};
use cache::{Cache, Remembered};
use digest::{Digest, DigestKey};
use failures::Failures;
use flight::Flights;
use issuer::Renewal;
use managers::Table;
use metrics::Metrics;
use settings::CacheSettings;
use sight::{Refused, Sight};
use turns::Turns;

/// Judges tokens.
#[derive(Debug)]
pub struct Authenticator {
    managers: ArcSwap<Table>,
    /// One exchange of the key managers at a time.
    replacing: Mutex<()>,
    cache: Arc<Cache>,
    digests: DigestKey,
    flights: Flights<Outcome>,
    turns: Turns,
    failures: Failures,
    /// Where providers are asked; until it is given, on the runtime of whoever brings a token.
    runtime: OnceLock<Handle>,
    metrics: Metrics,
}

/// What a good token says. Shared by all requests that bring it.
#[derive(Debug)]
pub struct Identity {
    /// What other tokens of its client are likely to say as well.
    pub common: Arc<Common>,
    /// `sub`, or what is mapped to it.
    pub subject: Option<Box<str>>,
    /// `sub` as its issuer wrote it, where another claim is mapped to it: its issuer revokes by that.
    pub own_subject: Option<Box<str>>,
    /// `exp`, seconds; `u64::MAX` when absent and not required. Compared with now on every hit.
    pub expires_at: u64,
    /// `iat`, seconds.
    pub issued_at: Option<u64>,
    /// `jti`
    pub jti: Option<Box<str>>,
    /// What the token's text is known by: the same for the same text, as long as the process runs.
    pub tag: [u8; 16],
    /// Of an encrypted token, by what the one inside it may have been revoked: anyone can encrypt it anew.
    pub inside: Option<Box<TokenDigests>>,
    /// Whose it is.
    pub kind: TokenKind,
    /// `auth_time`, seconds: when its user signed in (RFC 9470); one that 32 bits cannot tell counts as absent.
    pub signed_in_at: Option<NonZeroU32>,
    /// Digest of issuer and subject (length-prefixed): which user of an application it is.
    pub user: u128,
    /// Ready value of the identity header for `sub`: visible ASCII, everything else percent-encoded.
    pub subject_value: Option<HeaderValue>,
    /// Ready values of the claims in [`Common::claim_names`]; read by [`Self::claim`].
    pub claims: Box<[Option<HeaderValue>]>,
}

/// Whose a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// An application's own.
    Application,
    /// A user's, given to an application.
    User,
    /// It says something that is neither.
    Unknown,
}

impl Identity {
    /// By what it may have been revoked; `token` is the text that says all this.
    pub fn facts<'a>(&'a self, token: &'a str) -> TokenFacts<'a> {
        TokenFacts {
            issuer: &self.common.issuer,
            jti: self.jti.as_deref(),
            token_sha256: Some(TokenSha256::Of { text: token, inside: self.inside.as_deref() }),
            consumer_key: self.common.consumer_key.as_deref(),
            subject: self.subject.as_deref(),
            own_subject: self.own_subject.as_deref(),
            issued_at: self.issued_at,
        }
    }

    /// Whose token it is: by `sub` or what is mapped to it, and by `sub` as its issuer wrote it where that is another.
    pub fn subjects(&self) -> [Option<&str>; 2] {
        [self.subject.as_deref(), self.own_subject.as_deref()]
    }

    /// The ready value of the claim `name`, which is likely at `index`. It is elsewhere or missing where the configured
    /// claims have changed since the token was judged; another claim's value is never given.
    pub fn claim(&self, index: usize, name: &str) -> Option<&HeaderValue> {
        let names = &*self.common.claim_names;
        let is_it = |at: &usize| names.get(*at).is_some_and(|known| **known == *name);
        let at = Some(index).filter(is_it).or_else(|| (0..names.len()).find(is_it))?;
        self.claims.get(at)?.as_ref()
    }
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
    /// Not judged, since its client has brought too many bad ones: 429.
    Flooded(Flood),
    /// Not judged, since too many new ones wait for it already: 503.
    Overloaded,
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
    Inactive,
    Claim,
}

impl Flaw {
    /// Every flaw, for counters that start at 0.
    pub const ALL: [Self; 20] = [
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
        Self::Inactive,
        Self::Claim,
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
            Self::Inactive => "inactive",
            Self::Claim => "claim",
        }
    }
}

impl Authenticator {
    /// One without key managers, which refuses everything until [`Self::replace`] is called. Fails where its metrics
    /// are registered already.
    pub fn new(cache: &CacheSettings, registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Metrics::register(registry)?;
        Ok(Self {
            managers: ArcSwap::default(),
            replacing: Mutex::new(()),
            cache: Arc::new(Cache::new(cache)),
            digests: DigestKey::new(),
            flights: Flights::new(),
            turns: Turns::new(metrics.waiting.clone()),
            failures: Failures::new(),
            runtime: OnceLock::new(),
            metrics,
        })
    }

    /// Providers are asked on this runtime from now on, not on those that serve requests. The first counts.
    pub fn ask_on(&self, runtime: Handle) {
        let _the_first_counts = self.runtime.set(runtime);
    }

    /// Puts new limits in force: how long what is learnt may be used, and how many opaque tokens of a client
    /// address may be found bad in a window before its new ones are refused unasked (0: any number). The
    /// caches keep their size.
    pub fn set_limits(&self, cache: &CacheSettings, failures: u64, window: Duration) {
        self.cache.set_times(cache);
        self.failures.set_limit(failures, window);
    }

    /// Puts a new limit in force: how many new tokens may wait for their signature check on one thread.
    pub fn set_waiting(&self, verification: VerificationSettings) {
        self.turns.set_limit(verification);
    }

    /// Puts `managers` in place of the present ones. Those whose settings are equal go on as they are,
    /// with their keys and cached tokens. Gives back the new ones, whose [`Issuer::run`] is to be started.
    #[must_use = "the keys of an issuer come from its task"]
    pub fn replace(&self, managers: KeyManagers) -> Vec<Arc<Issuer>> {
        let _one_at_a_time = self.replacing.lock();
        let before = self.managers.load_full();
        let (after, started) = managers.succeed(&before, &self.metrics);
        let after = Arc::new(after);
        self.managers.store(Arc::clone(&after));
        before.retire_missing(&after);
        started
    }

    /// The state of each key manager, in declared order.
    pub fn status(&self, now: Now) -> Vec<IssuerStatus> {
        self.managers.load().issuers().iter().map(|issuer| issuer.status(now)).collect()
    }

    /// Judges `token` by the key managers in `allowed`; `client` is who brings it. On a cache hit nothing
    /// waits; a first sight may wait for one fetch of keys, or one answer of the provider, shared by all who
    /// wait.
    pub async fn authenticate(
        &self,
        token: &str,
        allowed: &KeyManagerSet,
        client: Option<IpAddr>,
        now: Now,
    ) -> Result<Authenticated, Rejection> {
        if token.len() > jose::MAX_TOKEN {
            return Err(self.refuse(Flaw::Malformed));
        }
        let digest = self.digests.digest(allowed.id, token);
        let known = match self.cache.look_up(&digest, now, &self.metrics) {
            Remembered::Good(identity) => return Ok(Authenticated { identity, from_cache: true }),
            Remembered::Bad(flaw) => return Err(Rejection::Invalid(flaw)),
            Remembered::Stale(issuer) => return Err(out_of_keys(&issuer, now)),
            Remembered::Again => true,
            Remembered::Nothing => false,
        };
        // Boxed: rare, and every request would carry room for it.
        Box::pin(self.meet((digest, known), token, allowed, client, now)).await
    }

    /// The first sight of a token, or one of a token `known` to have been good: with the keys at hand, with newer
    /// ones, or by its provider's word.
    async fn meet(
        &self,
        (digest, known): (Digest, bool),
        token: &str,
        allowed: &KeyManagerSet,
        client: Option<IpAddr>,
        now: Now,
    ) -> Result<Authenticated, Rejection> {
        let sight = Sight { digest, token, allowed, came: (now, Instant::now()) };
        let mut outcome = self.see(&sight).await;
        if let Err(Refused::UnknownKey(issuer, version)) = outcome {
            outcome = match issuer.renew(Some(version), sight.now()).await {
                Renewal::Fetched => self.see(&sight).await,
                Renewal::Same => Err(Refused::UnknownKey(issuer, version)),
                Renewal::Failed => Err(Refused::NoKeys(issuer)),
            };
        }
        for _ in 0..MOST_QUESTIONS {
            let (issuer, verified) = match outcome {
                Err(Refused::Ask(issuer, verified)) => (issuer, verified),
                outcome => return self.conclude(outcome, &sight),
            };
            if let Some(good) =
                self.ask(Question { digest, token, issuer, verified, known, client }, sight.now()).await?
            {
                return Ok(good);
            }
            // The rules have changed under the question.
            outcome = self.see(&sight).await;
        }
        self.conclude(outcome, &sight)
    }

    /// Counts the outcome of a first sight, and puts it into the caller's words.
    fn conclude(&self, outcome: Result<Authenticated, Refused>, sight: &Sight<'_>) -> Result<Authenticated, Rejection> {
        match outcome {
            Ok(good) => {
                if !good.from_cache {
                    self.metrics.judged();
                }
                Ok(good)
            }
            Err(Refused::Flaw(flaw)) => Err(self.refuse(flaw)),
            Err(Refused::UnknownKey(..)) => Err(self.refuse(Flaw::UnknownKey)),
            Err(Refused::Wait) => {
                self.metrics.shed();
                Err(Rejection::Overloaded)
            }
            Err(Refused::NoKeys(issuer)) => {
                self.metrics.unavailable();
                Err(out_of_keys(&issuer, sight.now()))
            }
            // The rules keep changing under the question.
            Err(Refused::Ask(issuer, _)) => Err(self.unavailable(&issuer, 1)),
        }
    }

    fn refuse(&self, flaw: Flaw) -> Rejection {
        self.metrics.refused(flaw);
        Rejection::Invalid(flaw)
    }
}

fn out_of_keys(issuer: &Issuer, now: Now) -> Rejection {
    Rejection::Unavailable { key_manager: Arc::clone(&issuer.rules.name), retry_after: issuer.retry_after(now) }
}

/// How often a token is asked about for one request, when the rules change meanwhile.
const MOST_QUESTIONS: usize = 2;
