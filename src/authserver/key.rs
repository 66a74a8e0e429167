//! The provider's signing key: ES256, made at start, never written anywhere.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, PublicKeyUse, ThumbprintHash},
};
use serde::Serialize;

/// A key pair with its public half ready to be shown.
#[derive(Debug)]
pub(super) struct SigningKey {
    private: EncodingKey,
    public: Jwk,
}

/// Why there is no key, or no signature by it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot make a signing key")]
    Generate,
    #[error("cannot use the signing key: {0}")]
    Use(#[from] jsonwebtoken::errors::Error),
}

impl SigningKey {
    /// A new key. Its id is its thumbprint (RFC 7638), so a new start never reuses an id.
    pub(super) fn generate() -> Result<Self, Error> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| Error::Generate)?;
        let private = EncodingKey::from_ec_der(pkcs8.as_ref());
        let mut public = Jwk::from_encoding_key(&private, Algorithm::ES256)?;
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        public.common.key_id = Some(public.thumbprint(ThumbprintHash::SHA256)?);
        Ok(Self { private, public })
    }

    /// The public half (RFC 7517).
    pub(super) fn public(&self) -> &Jwk {
        &self.public
    }

    /// An access token (RFC 9068 section 2.1) with these claims.
    pub(super) fn sign(&self, claims: &impl Serialize) -> Result<String, Error> {
        let header = Header {
            typ: Some("at+jwt".into()),
            kid: self.public.common.key_id.clone(),
            ..Header::new(Algorithm::ES256)
        };
        Ok(jsonwebtoken::encode(&header, claims, &self.private)?)
    }
}
