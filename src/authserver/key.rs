//! A signing key of the provider: ES256.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    jwk::{Jwk, PublicKeyUse, ThumbprintHash},
};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// A key pair with its public half ready to be shown.
#[derive(Debug)]
pub(super) struct SigningKey {
    private: EncodingKey,
    public: Jwk,
    verifier: DecodingKey,
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
    /// A new key, and its private half (PKCS #8), to be stored where it outlives the process.
    pub(super) fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), Error> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| Error::Generate)?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Ok((Self::read(&pkcs8)?, pkcs8))
    }

    /// The key with this private half. Its id is its thumbprint (RFC 7638), so no two keys share one.
    pub(super) fn read(pkcs8: &[u8]) -> Result<Self, Error> {
        let private = EncodingKey::from_ec_der(pkcs8);
        let mut public = Jwk::from_encoding_key(&private, Algorithm::ES256)?;
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        public.common.key_id = Some(public.thumbprint(ThumbprintHash::SHA256)?);
        let verifier = DecodingKey::from_jwk(&public)?;
        Ok(Self { private, public, verifier })
    }

    /// The public half (RFC 7517).
    pub(super) fn public(&self) -> &Jwk {
        &self.public
    }

    /// `kid`
    pub(super) fn id(&self) -> &str {
        self.public.common.key_id.as_deref().unwrap_or_default()
    }

    /// An access token (RFC 9068 section 2.1) with these claims.
    pub(super) fn sign(&self, claims: &Map<String, Value>) -> Result<String, Error> {
        let header = Header {
            typ: Some("at+jwt".into()),
            kid: self.public.common.key_id.clone(),
            ..Header::new(Algorithm::ES256)
        };
        Ok(jsonwebtoken::encode(&header, claims, &self.private)?)
    }

    /// The claims of a token that this key has signed. Times are the caller's to judge.
    pub(super) fn verify(&self, token: &str) -> Option<Map<String, Value>> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_aud = false;
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        jsonwebtoken::decode(token, &self.verifier, &validation).ok().map(|token| token.claims)
    }
}
