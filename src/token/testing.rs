//! Keys, tokens and settings for tests.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaSignatureEncoding},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    Authenticated, Authenticator, FetchError, FetchFuture, FetchKeys, Fetched, Flaw, Rejection,
    settings::{Algorithm, KeyManagerSettings},
};
use crate::{net::Now, store::KeyManagerSet};

/// The least settings of a key manager.
pub(super) fn settings(issuer: &str) -> KeyManagerSettings {
    let text = format!(r#"{{"name":"idp","connector":"oidc","issuer":"{issuer}"}}"#);
    serde_json::from_str(&text).expect("the defaults are good")
}

/// A private key that signs as a provider does.
pub(super) struct Signer {
    pub(super) algorithm: Algorithm,
    pub(super) kid: &'static str,
    key: Private,
}

enum Private {
    Rsa,
    Elliptic(EcdsaKeyPair),
    Edwards(Ed25519KeyPair),
}

impl Signer {
    pub(super) fn new(algorithm: Algorithm, kid: &'static str) -> Self {
        let elliptic = |alg: &'static EcdsaSigningAlgorithm| {
            Private::Elliptic(EcdsaKeyPair::generate(alg).expect("a key can be made"))
        };
        let key = match algorithm {
            Algorithm::ES256 => elliptic(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::ES384 => elliptic(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::ES512 => elliptic(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::EdDSA => Private::Edwards(Ed25519KeyPair::generate().expect("a key can be made")),
            _ => Private::Rsa,
        };
        Self { algorithm, kid, key }
    }

    /// The public key, without `alg`.
    pub(super) fn jwk(&self) -> Value {
        match &self.key {
            Private::Rsa => {
                let public = RSA_KEY.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({ "kty": "RSA", "kid": self.kid, "use": "sig",
                    "n": b64(n.big_endian_without_leading_zero()), "e": b64(e.big_endian_without_leading_zero()) })
            }
            Private::Elliptic(key) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = match x.len() {
                    32 => "P-256",
                    48 => "P-384",
                    _ => "P-521",
                };
                json!({ "kty": "EC", "kid": self.kid, "crv": curve, "x": b64(x), "y": b64(y) })
            }
            Private::Edwards(key) => {
                json!({ "kty": "OKP", "kid": self.kid, "crv": "Ed25519", "x": b64(key.public_key().as_ref()) })
            }
        }
    }

    /// The public key as a set.
    pub(super) fn jwks(&self) -> Value {
        json!({ "keys": [self.jwk()] })
    }

    /// A token with the usual header.
    pub(super) fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": self.algorithm, "kid": self.kid, "typ": "at+jwt" });
        self.sign(&header.to_string(), claims.to_string().as_bytes())
    }

    /// A token of these very bytes.
    pub(super) fn sign(&self, header: &str, payload: &[u8]) -> String {
        let signed = format!("{}.{}", b64(header), b64(payload));
        let signature = self.raw(self.algorithm, signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }

    /// A signature by any algorithm of the key's type.
    pub(super) fn raw(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        match &self.key {
            Private::Rsa => {
                let encoding: &'static RsaSignatureEncoding = match algorithm {
                    Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &signature::RSA_PSS_SHA256,
                    Algorithm::PS384 => &signature::RSA_PSS_SHA384,
                    Algorithm::PS512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut out = vec![0; RSA_KEY.public_modulus_len()];
                RSA_KEY.sign(encoding, &SystemRandom::new(), message, &mut out).expect("it signs");
                out
            }
            Private::Elliptic(key) => key.sign(&SystemRandom::new(), message).expect("it signs").as_ref().into(),
            Private::Edwards(key) => key.sign(message).as_ref().into(),
        }
    }
}

/// A provider whose answer the test sets.
#[derive(Debug, Default)]
pub(super) struct Provider {
    pub(super) answer: Mutex<Option<String>>,
    pub(super) fetches: AtomicUsize,
    /// Of each fetch, whether the address was to be looked up again.
    pub(super) rediscovered: Mutex<Vec<bool>>,
    pub(super) delay: Duration,
    pub(super) max_age: Option<Duration>,
    /// When it was asked.
    pub(super) asked: Mutex<Vec<tokio::time::Instant>>,
}

impl Provider {
    pub(super) fn with(keys: &Value) -> Self {
        Self { answer: Mutex::new(Some(keys.to_string())), ..Self::default() }
    }

    pub(super) fn count(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

impl FetchKeys for Provider {
    fn fetch(&self, rediscover: bool) -> FetchFuture<'_> {
        Box::pin(async move {
            self.rediscovered.lock().push(rediscover);
            self.fetches.fetch_add(1, Ordering::SeqCst);
            self.asked.lock().push(tokio::time::Instant::now());
            // Even a sleep of nothing may let others run, who then change what is about to be answered.
            if !self.delay.is_zero() {
                tokio::time::sleep(self.delay).await;
            }
            let answer = self.answer.lock().clone();
            answer
                .map(|text| Fetched { text: text.into(), max_age: self.max_age })
                .ok_or_else(|| FetchError::Unreachable("the test says so".into()))
        })
    }
}

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// One for all tests: making it is slow.
static RSA_KEY: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("a key can be made"));

pub(super) async fn ask(tokens: &Authenticator, token: &str, now: Now) -> Result<Authenticated, Rejection> {
    tokens.authenticate(token, &KeyManagerSet::all(), None, now).await
}

pub(super) fn flaw(outcome: Result<Authenticated, Rejection>) -> Option<Flaw> {
    match outcome {
        Ok(_) => None,
        Err(Rejection::Invalid(flaw)) => Some(flaw),
        Err(other) => panic!("{other:?}"),
    }
}

pub(super) fn is_unavailable(outcome: &Result<Authenticated, Rejection>) -> bool {
    matches!(outcome, Err(Rejection::Unavailable { retry_after: 1.., .. }))
}
