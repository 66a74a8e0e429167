//! Signing keys of the test providers and tokens built from them, down to malformed bytes.
//!
//! Signed with aws-lc-rs directly: a second opinion beside the library that the program itself uses.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use aws_lc_rs::{
    digest,
    encoding::{AsDer as _, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    },
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Map, Value, json};

use super::Idp;

/// A key pair that can show itself as a JWK.
pub(crate) enum Key {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

/// The keys of the test process, made once.
pub(crate) struct Keys {
    pub(crate) rsa: Key,
    pub(crate) rsa_other: Key,
    pub(crate) es256: Key,
    pub(crate) es256_other: Key,
    pub(crate) es384: Key,
    pub(crate) es512: Key,
    pub(crate) ed: Key,
}

/// The keys of the test process.
pub(crate) fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        rsa: Key::rsa(),
        rsa_other: Key::rsa(),
        es256: Key::ec("P-256"),
        es256_other: Key::ec("P-256"),
        es384: Key::ec("P-384"),
        es512: Key::ec("P-521"),
        ed: Key::Ed(Ed25519KeyPair::generate().unwrap()),
    })
}

impl Key {
    fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    fn ec(curve: &'static str) -> Self {
        let algorithm = match curve {
            "P-256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
            "P-384" => &ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &ECDSA_P521_SHA512_FIXED_SIGNING,
        };
        Self::Ec(EcdsaKeyPair::generate(algorithm).unwrap(), curve)
    }

    /// The algorithm this key usually signs with.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_, "P-256") => "ES256",
            Self::Ec(_, "P-384") => "ES384",
            Self::Ec(..) => "ES512",
            Self::Ed(_) => "EdDSA",
        }
    }

    /// The public half as a JWK (RFC 7517), without `alg`, with `kid`.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Rsa(pair) => {
                let public = pair.public_key();
                json!({
                    "kty": "RSA", "kid": kid, "use": "sig",
                    "n": b64(public.modulus().big_endian_without_leading_zero()),
                    "e": b64(public.exponent().big_endian_without_leading_zero()),
                })
            }
            Self::Ec(pair, curve) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": curve, "kid": kid, "use": "sig", "x": b64(x), "y": b64(y) })
            }
            Self::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "x": b64(pair.public_key().as_ref()) })
            }
        }
    }

    /// The public key's plain bytes, for key confusion.
    pub(crate) fn public_bytes(&self) -> Vec<u8> {
        match self {
            Self::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Self::Ec(pair, _) => pair.public_key().as_ref().to_vec(),
            Self::Ed(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// The public half as PEM (RFC 7468).
    pub(crate) fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Rsa(pair) => pair.public_key().as_der(),
            Self::Ec(pair, _) => pair.public_key().as_der(),
            Self::Ed(pair) => pair.public_key().as_der(),
        }
        .unwrap();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    /// Signs as `algorithm`; one that the key cannot do gives 64 zero bytes.
    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Self::Ec(pair, _) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// A token under construction. Starts good.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) header: Map<String, Value>,
    pub(crate) claims: Map<String, Value>,
    key: &'static Key,
}

impl Token {
    /// A good token of `idp` for `client`, with both scopes of the test API, signed by its ES256 key.
    pub(crate) fn of(idp: &Idp, client: &str) -> Self {
        let now = now();
        let claims = json!({
            "iss": idp.issuer(), "sub": "alice", "aud": "orders-api", "client_id": client,
            "scope": "orders:read orders:write", "iat": now, "exp": now + 600, "jti": unique(),
        });
        Self { header: Map::new(), claims: object(claims), key: &keys().es256 }.key(&keys().es256, "es256")
    }

    /// Sets a claim.
    pub(crate) fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// Removes a claim.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.claims.shift_remove(name);
        self
    }

    /// Sets a header parameter; null removes it.
    pub(crate) fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        match value.into() {
            Value::Null => self.header.shift_remove(name),
            value => self.header.insert(name.into(), value),
        };
        self
    }

    /// Signs with another key, under that key's usual algorithm and `kid`.
    pub(crate) fn key(mut self, key: &'static Key, kid: &str) -> Self {
        self.key = key;
        self.header("alg", key.algorithm()).header("kid", kid)
    }

    /// The compact form, signed as the header's `alg` says.
    pub(crate) fn sign(&self) -> String {
        let algorithm = self.header.get("alg").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.sign_with(|message| self.key.sign(&algorithm, message))
    }

    /// The compact form with a signature of one's own making.
    pub(crate) fn sign_with(&self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        compact(&json_text(&self.header), json_text(&self.claims).as_bytes(), sign)
    }

    /// The compact form over a header written by hand; `self`'s key signs as `algorithm`.
    pub(crate) fn raw_header(&self, header: &str, algorithm: &str) -> String {
        compact(header, json_text(&self.claims).as_bytes(), |message| self.key.sign(algorithm, message))
    }

    /// The compact form over a payload written by hand.
    pub(crate) fn raw_payload(&self, payload: &[u8]) -> String {
        let algorithm = self.key.algorithm();
        compact(&json_text(&self.header), payload, |message| self.key.sign(algorithm, message))
    }

    /// The claims as JSON text, for raw payloads.
    pub(crate) fn claims_text(&self) -> String {
        json_text(&self.claims)
    }
}

/// Header, payload and signature in compact form.
pub(crate) fn compact(header: &str, payload: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", b64(header), b64(payload));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", b64(signature))
}

/// HMAC-SHA256, for key confusion.
pub(crate) fn hs256(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2).
pub(crate) fn websocket_accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(sha1)
}

/// base64url without padding.
pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    tollgate::net::Clock::new().now().unix()
}

/// A text that no other call gives.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("m{:07}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn json_text(map: &Map<String, Value>) -> String {
    serde_json::to_string(map).unwrap()
}

#[test]
fn tokens_verify_by_another_library() {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, jwk::Jwk};
    let all = [
        (&keys().rsa, "RS256"),
        (&keys().rsa, "PS384"),
        (&keys().es256, "ES256"),
        (&keys().es384, "ES384"),
        (&keys().ed, "EdDSA"),
    ];
    for (key, name) in all {
        let claims = object(json!({ "exp": now() + 60 }));
        let token = Token { header: Map::new(), claims, key }.key(key, "k").header("alg", name).sign();
        let jwk: Jwk = serde_json::from_value(key.jwk("k")).unwrap();
        let algorithm: Algorithm = name.parse().unwrap();
        let good = decode::<Value>(&token, &DecodingKey::from_jwk(&jwk).unwrap(), &Validation::new(algorithm));
        assert!(good.is_ok(), "{name}: {good:?}");
    }
}
