//! A JWT (RFC 7519) verified: signature over the bytes as sent, then the claims.

use std::sync::Arc;

use super::{
    Flaw, Identity,
    claims::{self, Bearer, Grounds, Validity},
    jose::Compact,
    json::Object,
    jwks::Key,
    jws,
    settings::Algorithm,
};

/// What a good JWT says, how long, and by which key.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) identity: Identity,
    pub(super) validity: Validity,
    pub(super) key: Arc<Key>,
}

/// Verifies a JWT with the keys that may have signed it. The claims were read before, to find the keys;
/// nothing else of them counts until the signature is found good here.
pub(super) fn verify(
    compact: &Compact<'_>,
    algorithm: Algorithm,
    keys: &[&Arc<Key>],
    claims: &Object<'_>,
    bearer: &Bearer,
    grounds: Grounds<'_>,
) -> Result<Verified, Flaw> {
    let key = jws::signer(compact, algorithm, keys)?;
    let (identity, validity) = claims::judge(claims, bearer, grounds)?;
    Ok(Verified { identity, validity, key: Arc::clone(key) })
}
