//! Where an issuer's keys come from, and the set in force.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    jwks::{self, JwksError, Key},
    settings::Algorithm,
};

/// Where an issuer's keys come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A JWK set given in full by hand. Nobody is asked, and it does not grow stale.
    Fixed(Bytes),
    /// A provider in our own process, which tells when its keys change.
    Local(Arc<LocalKeys>),
    /// A provider that is asked again and again.
    Remote(Arc<dyn FetchKeys>),
}

impl KeySource {
    /// No set at all: nothing but the keys shared with the provider, or none, where its tokens are judged by
    /// introspection alone.
    pub const NONE: Self = Self::Fixed(Bytes::new());

    /// The keys of a JWK set that is at hand as a value.
    pub fn fixed(set: &serde_json::Value) -> Self {
        Self::Fixed(set.to_string().into())
    }
}

/// The JWK set of a provider in our own process. It is published before the first token signed by a new key
/// goes out, and the issuer looks here for a key that it does not know: no token of ours is ever too early.
#[derive(Debug)]
pub struct LocalKeys(watch::Sender<Published>);

/// A published set, and how many there were before it; 0: none yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Published {
    pub(super) number: u64,
    pub(super) set: Bytes,
}

impl Default for LocalKeys {
    fn default() -> Self {
        Self(watch::Sender::new(Published::default()))
    }
}

impl LocalKeys {
    /// Puts `set` in place of the present one.
    pub fn publish(&self, set: &serde_json::Value) {
        let set = set.to_string().into();
        self.0.send_modify(|published| *published = Published { number: published.number + 1, set });
    }

    /// Tells of each change from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<Published> {
        self.0.subscribe()
    }

    /// The present set.
    pub(super) fn published(&self) -> Published {
        self.0.borrow().clone()
    }
}

/// Asks a provider for its JWK set. Implemented by connectors.
pub trait FetchKeys: fmt::Debug + Send + Sync {
    /// The set's text as the provider has it now. Ends in bounded time. `rediscover`: what was learnt
    /// about where the set is may be out of date, and is to be learnt anew.
    fn fetch(&self, rediscover: bool) -> FetchFuture<'_>;
}

/// What [`FetchKeys::fetch`] gives back.
pub type FetchFuture<'a> = Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + 'a>>;

/// A key set as a provider sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The JWK set's text.
    pub text: Bytes,
    /// For how long the provider says it is fresh.
    pub max_age: Option<Duration>,
}

/// Why a key set could not be had. The messages name addresses and statuses, never bodies.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer, or none in time.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// Another answer than a document, or too large a one.
    #[error("{0}")]
    Answer(String),
    /// The metadata is for another issuer, or names what is no address of a provider.
    #[error("{0}")]
    Metadata(String),
    /// It is where we must not go: at a link-local address, or at a private one that a public issuer's metadata
    /// leads to.
    #[error("{0}")]
    Forbidden(String),
    /// The document is no key set of use.
    #[error(transparent)]
    Keys(#[from] JwksError),
}

impl FetchError {
    /// Every metric label, and that of success.
    pub(super) const LABELS: [&'static str; 6] = ["ok", "unreachable", "answer", "metadata", "forbidden", "keys"];

    /// The metric label.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Answer(_) => "answer",
            Self::Metadata(_) => "metadata",
            Self::Forbidden(_) => "forbidden",
            Self::Keys(_) => "keys",
        }
    }
}

/// The keys in force, immutable.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Arc<Key>>,
    /// What they were read from, to be read again under other rules.
    text: Box<[u8]>,
    /// Counts up when a key comes or goes.
    pub(super) version: u64,
}

/// Which keys of a set count, and what stands beside them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'r> {
    /// Keys that may verify one of these.
    pub(super) algorithms: &'r [Algorithm],
    /// Symmetric keys of the configuration. With some, there may be no set at all.
    pub(super) local: &'r [Arc<Key>],
}

impl Wanted<'_> {
    /// Reads a set's keys, without those of the configuration.
    pub(super) fn parse(self, text: &[u8]) -> Result<jwks::Parsed, JwksError> {
        if text.is_empty() && !self.local.is_empty() {
            return Ok(jwks::Parsed { keys: Vec::new(), skipped: 0, private: false });
        }
        jwks::parse(text, self.algorithms)
    }
}

/// Which keys may have signed a token.
#[derive(Debug)]
pub(super) enum Candidates<'s> {
    /// These, in order; at least one.
    Some(Vec<&'s Arc<Key>>),
    /// There is no such key id.
    UnknownId,
    /// There is, but none of that id may verify that algorithm.
    Unfit,
}

impl KeySet {
    /// Reads a set that takes the place of `before`: keys that stay keep their identity, so that what
    /// they vouched for stays good; keys that are gone are told so by [`Self::retire_missing`], and do
    /// not come back: the same key in a later set is another.
    pub(super) fn read(
        text: &[u8],
        wanted: Wanted<'_>,
        before: Option<&Arc<Self>>,
    ) -> Result<(Arc<Self>, Found), JwksError> {
        let parsed = wanted.parse(text)?;
        let found = Found { skipped: parsed.skipped, private: parsed.private };
        let old = before.map_or(&[][..], |set| &set.keys);
        let keys: Vec<Arc<Key>> = parsed
            .keys
            .into_iter()
            .map(|key| {
                let same = old.iter().find(|old| old.is_live() && old.is_same(&key));
                same.map_or_else(|| Arc::new(key), Arc::clone)
            })
            .chain(wanted.local.iter().map(Arc::clone))
            .collect();
        let unchanged = keys.len() == old.len() && keys.iter().zip(old).all(|(a, b)| Arc::ptr_eq(a, b));
        let version = before.map_or(1, |set| set.version + u64::from(!unchanged));
        Ok((Arc::new(Self { keys, text: text.into(), version }), found))
    }

    /// What it was read from.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// How many keys it has.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The same set for another issuer, with the keys that are of use to it. They are keys of their own:
    /// what becomes of ours is nothing to them.
    pub(super) fn reread(&self, wanted: Wanted<'_>) -> Result<Arc<Self>, JwksError> {
        Self::read(&self.text, wanted, None).map(|(set, _)| set)
    }

    /// Keys of the configuration alone.
    pub(super) fn local(keys: &[Arc<Key>]) -> Self {
        Self { keys: keys.into(), text: Box::default(), version: 1 }
    }

    /// Tells the keys that `after` lacks that they have left.
    pub(super) fn retire_missing(&self, after: &Self) {
        let gone = |key: &&Arc<Key>| !after.keys.iter().any(|k| Arc::ptr_eq(k, key));
        self.keys.iter().filter(gone).for_each(|key| key.leave());
    }

    /// The keys to try for a token's `kid` and `alg`; bounded, since trying costs. A newer set may be in
    /// force by now: keys that it lacks do not count.
    pub(super) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> Candidates<'_> {
        let named = || self.keys.iter().filter(|key| key.is_live() && (id.is_none() || key.id.as_deref() == id));
        let fit: Vec<&Arc<Key>> = named().filter(|key| key.fits(algorithm)).take(MAX_TRIES).collect();
        if !fit.is_empty() {
            return Candidates::Some(fit);
        }
        if named().next().is_none() { Candidates::UnknownId } else { Candidates::Unfit }
    }
}

/// What is worth a log line about a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Keys that are of no use to us.
    pub(super) skipped: usize,
    /// Private members are shown.
    pub(super) private: bool,
}

const MAX_TRIES: usize = 4;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::token::testing::Signer;

    fn only(algorithms: &[Algorithm]) -> Wanted<'_> {
        Wanted { algorithms, local: &[] }
    }

    #[test]
    fn a_key_that_has_left_does_not_count_and_does_not_come_back() {
        let signer = Signer::new(Algorithm::ES256, "e");
        let text = signer.jwks().to_string();
        let read = |before| KeySet::read(text.as_bytes(), only(&[Algorithm::ES256]), before).expect("a set").0;
        let finds = |set: &KeySet| matches!(set.candidates(Some("e"), Algorithm::ES256), Candidates::Some(_));
        let first = read(None);
        let second = read(Some(&first));
        assert!(Arc::ptr_eq(&first.keys[0], &second.keys[0]) && first.version == second.version, "it has stayed");
        first.keys[0].leave();
        assert!(!finds(&first) && !finds(&second));
        assert!(matches!(second.candidates(Some("e"), Algorithm::ES256), Candidates::UnknownId));
        assert!(matches!(second.candidates(None, Algorithm::ES256), Candidates::UnknownId));
        let third = read(Some(&second));
        assert!(finds(&third) && third.version > second.version);
    }

    #[test]
    fn another_issuer_reads_the_set_by_its_own_rules() {
        let (ec, ed) = (Signer::new(Algorithm::ES256, "ec"), Signer::new(Algorithm::EdDSA, "ed"));
        let text = json!({ "keys": [ec.jwk(), ed.jwk()] }).to_string();
        let (set, _) = KeySet::read(ec.jwks().to_string().as_bytes(), only(&[Algorithm::ES256]), None).expect("a set");
        let (set, _) = KeySet::read(text.as_bytes(), only(&[Algorithm::ES256]), Some(&set)).expect("a set");
        assert_eq!((set.keys.len(), set.version), (1, 1), "nothing new as far as we go");
        let other = set.reread(only(&[Algorithm::ES256, Algorithm::EdDSA])).expect("two keys");
        set.keys[0].leave();
        assert!(matches!(other.candidates(Some("ed"), Algorithm::EdDSA), Candidates::Some(_)));
        assert!(matches!(other.candidates(Some("ec"), Algorithm::ES256), Candidates::Some(_)));
        assert!(matches!(set.reread(only(&[Algorithm::RS256])), Err(JwksError::NoUsableKey)));
    }
}
