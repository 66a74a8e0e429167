//! A signing key of our own: ES256. For what the embedded provider issues, and for what upstreams are told.

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
pub struct SigningKey {
    private: EncodingKey,
    public: Jwk,
    verifier: DecodingKey,
}

/// Why there is no key, or no signature by it.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The system gives no randomness.
    #[error("cannot make a signing key")]
    Generate,
    /// It is no such key, or cannot sign.
    #[error("cannot use the signing key: {0}")]
    Use(#[from] jsonwebtoken::errors::Error),
}

impl SigningKey {
    /// A new key, and its private half (PKCS #8), to be stored where it outlives the process.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), SigningError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| SigningError::Generate)?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Ok((Self::read(&pkcs8)?, pkcs8))
    }

    /// The key with this private half. Its id is its thumbprint (RFC 7638), so no two keys share one.
    pub fn read(pkcs8: &[u8]) -> Result<Self, SigningError> {
        let private = EncodingKey::from_ec_der(pkcs8);
        let mut public = Jwk::from_encoding_key(&private, Algorithm::ES256)?;
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        public.common.key_id = Some(public.thumbprint(ThumbprintHash::SHA256)?);
        let verifier = DecodingKey::from_jwk(&public)?;
        Ok(Self { private, public, verifier })
    }

    /// The public half (RFC 7517).
    pub fn public(&self) -> &Jwk {
        &self.public
    }

    /// `kid`
    pub fn id(&self) -> &str {
        self.public.common.key_id.as_deref().unwrap_or_default()
    }

    /// A JWT of this `typ` with these claims.
    pub fn sign(&self, typ: &str, claims: &Map<String, Value>) -> Result<String, SigningError> {
        let header =
            Header { typ: Some(typ.into()), kid: self.public.common.key_id.clone(), ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, claims, &self.private)?)
    }

    /// The claims of a token that this key has signed. Times are the caller's to judge.
    pub fn verify(&self, token: &str) -> Option<Map<String, Value>> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_aud = false;
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        jsonwebtoken::decode(token, &self.verifier, &validation).ok().map(|token| token.claims)
    }
}
