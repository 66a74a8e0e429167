//! Where an issuer's keys come from, and the set in force.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;

use super::{
    jwks::{self, JwksError, Key},
    settings::Algorithm,
};

/// Where an issuer's keys come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A JWK set given in full: by hand, or by the provider in our own process. Nobody is asked, and it
    /// does not grow stale.
    Fixed(Bytes),
    /// A provider that is asked again and again.
    Remote(Arc<dyn FetchKeys>),
}

impl KeySource {
    /// The keys of a JWK set that is at hand as a value.
    pub fn fixed(set: &serde_json::Value) -> Self {
        Self::Fixed(set.to_string().into())
    }
}

/// Asks a provider for its JWK set. Implemented by connectors.
pub trait FetchKeys: fmt::Debug + Send + Sync {
    /// The set's text as the provider has it now. Ends in bounded time.
    fn fetch(&self) -> FetchFuture<'_>;
}

/// What [`FetchKeys::fetch`] gives back.
pub type FetchFuture<'a> = Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + 'a>>;

/// Why a key set could not be had. The messages name addresses and statuses, never bodies.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer, or none in time.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// Another answer than a document, or too large a one.
    #[error("{0}")]
    Answer(String),
    /// The metadata is for another issuer, or names an address that must not be asked.
    #[error("{0}")]
    Metadata(String),
    /// The document is no key set of use.
    #[error(transparent)]
    Keys(#[from] JwksError),
}

impl FetchError {
    /// Every metric label, and that of success.
    pub(super) const LABELS: [&'static str; 5] = ["ok", "unreachable", "answer", "metadata", "keys"];

    /// The metric label.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Answer(_) => "answer",
            Self::Metadata(_) => "metadata",
            Self::Keys(_) => "keys",
        }
    }
}

/// The keys in force, immutable.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Arc<Key>>,
    /// Counts up when a key comes or goes.
    pub(super) version: u64,
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
    /// they vouched for stays good; keys that are gone are told so by [`Self::retire_missing`].
    pub(super) fn read(
        text: &[u8],
        allowed: &[Algorithm],
        before: Option<&Arc<Self>>,
    ) -> Result<(Arc<Self>, Found), JwksError> {
        let parsed = jwks::parse(text, allowed)?;
        let found = Found { skipped: parsed.skipped, private: parsed.private };
        let old = before.map_or(&[][..], |set| &set.keys);
        let keys: Vec<Arc<Key>> = parsed
            .keys
            .into_iter()
            .map(|key| old.iter().find(|o| o.is_same(&key)).map_or_else(|| Arc::new(key), Arc::clone))
            .collect();
        let unchanged = keys.len() == old.len() && keys.iter().zip(old).all(|(a, b)| Arc::ptr_eq(a, b));
        if let Some(before) = before.filter(|_| unchanged) {
            return Ok((Arc::clone(before), found));
        }
        let version = before.map_or(1, |set| set.version + 1);
        Ok((Arc::new(Self { keys, version }), found))
    }

    /// Tells the keys that `after` lacks that they have left.
    pub(super) fn retire_missing(&self, after: &Self) {
        let gone = |key: &&Arc<Key>| !after.keys.iter().any(|k| Arc::ptr_eq(k, key));
        self.keys.iter().filter(gone).for_each(|key| key.leave());
    }

    /// The keys to try for a token's `kid` and `alg`; bounded, since trying costs.
    pub(super) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> Candidates<'_> {
        let named = || self.keys.iter().filter(|key| id.is_none() || key.id.as_deref() == id);
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
