//! A compact JWS by itself (RFC 7515): the strict front end and the signature, nothing about claims.
//!
//! What [`Authenticator`](super::Authenticator) does with access tokens goes through the same steps; this is
//! for what is signed and is no access token. Never fetches, never caches, takes no key from a header.

use std::sync::Arc;

use super::{
    Flaw,
    jose::{Compact, Header},
    jwks::{self, JwksError, Key, SharedKeyError},
    keys::{Candidates, KeySet, Wanted},
    settings::Algorithm,
};

/// Keys that may have signed.
#[derive(Debug)]
pub struct Verifier {
    keys: Arc<KeySet>,
    algorithms: Vec<Algorithm>,
}

impl Verifier {
    /// By the public keys of a JWK set that may verify one of `algorithms`; symmetric keys in it do not count.
    pub fn of_set(jwks: &[u8], algorithms: &[Algorithm]) -> Result<Self, JwksError> {
        let wanted = Wanted { algorithms, local: &[] };
        let (keys, _) = KeySet::read(jwks, wanted, None)?;
        Ok(Self { keys, algorithms: algorithms.into() })
    }

    /// By symmetric keys, each with its `kid` and its one algorithm.
    pub fn of_secrets(secrets: &[(Option<&str>, Algorithm, &[u8])]) -> Result<Self, SharedKeyError> {
        let shared = |(id, algorithm, secret): &(Option<&str>, Algorithm, &[u8])| {
            Key::shared(*id, *algorithm, secret).map(Arc::new)
        };
        let keys = secrets.iter().map(shared).collect::<Result<Vec<_>, _>>()?;
        if jwks::share_a_name(&keys) {
            return Err(SharedKeyError::Twice);
        }
        let algorithms = secrets.iter().map(|(_, algorithm, _)| *algorithm).collect();
        Ok(Self { keys: Arc::new(KeySet::local(&keys)), algorithms })
    }

    /// The payload of a token whose form is exact and whose signature is good.
    pub fn verify(&self, token: &str) -> Result<Vec<u8>, Flaw> {
        let compact = Compact::split(token)?;
        let header = Header::parse(&compact.header)?;
        if !self.algorithms.contains(&header.algorithm) {
            return Err(Flaw::Algorithm);
        }
        match self.keys.candidates(header.key_id.as_deref(), header.algorithm) {
            Candidates::Some(keys) => signer(&compact, header.algorithm, &keys).map(|_| compact.payload),
            Candidates::UnknownId => Err(Flaw::UnknownKey),
            Candidates::Unfit => Err(Flaw::Algorithm),
        }
    }

    /// Whether `signature`, in the form JOSE has it, is one of the keys' over any `message`.
    pub fn verify_detached(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match self.keys.candidates(None, algorithm) {
            Candidates::Some(keys) => keys.iter().any(|key| key.verifies(algorithm, message, signature)),
            _ => false,
        }
    }
}

/// The key that signed.
pub(super) fn signer<'k>(
    compact: &Compact<'_>,
    algorithm: Algorithm,
    keys: &[&'k Arc<Key>],
) -> Result<&'k Arc<Key>, Flaw> {
    let signs = |key: &&&Arc<Key>| key.verifies(algorithm, compact.signed.as_bytes(), &compact.signature);
    keys.iter().find(signs).copied().ok_or(Flaw::Signature)
}
