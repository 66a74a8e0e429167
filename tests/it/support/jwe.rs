//! Whom tokens are encrypted for, and how: by aws-lc-rs directly, down to malformed parts.

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey, X25519},
    encoding::{AsBigEndian, AsDer, Curve25519SeedBin, EcPrivateKeyBin},
    kdf::{SskdfDigestAlgorithmId, get_sskdf_digest_algorithm, sskdf_digest},
    key_wrap::{AES_128, AES_256, AesKek, KeyWrap as _},
    rand,
    rsa::{KeyPair, KeySize, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey},
    signature::KeyPair as _,
};
use serde_json::{Value, json};

use super::b64;

/// A private key as the gate has it, for whose public half tokens are encrypted.
pub(crate) struct Recipient {
    /// The private JWK.
    pub(crate) jwk: Value,
    public: Public,
}

enum Public {
    Rsa(Box<OaepPublicEncryptingKey>),
    Curve(&'static agreement::Algorithm, Vec<u8>),
}

/// The parts of a compact JWE, decoded.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub(crate) header: Value,
    pub(crate) key: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
    pub(crate) content: Vec<u8>,
    pub(crate) tag: Vec<u8>,
    /// The header as it was when the tag was made.
    protected: String,
}

impl Recipient {
    pub(crate) fn rsa(kid: &str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let numbers = numbers(pair.as_der().unwrap().as_ref());
        let mut jwk = json!({ "kty": "RSA", "kid": kid, "use": "enc" });
        for (name, number) in ["n", "e", "d", "p", "q", "dp", "dq", "qi"].iter().zip(&numbers) {
            jwk[*name] = b64(number).into();
        }
        let spki = pair.public_key().as_der().unwrap();
        let public = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(spki.as_ref()).unwrap()).unwrap();
        Self { jwk, public: Public::Rsa(Box::new(public)) }
    }

    pub(crate) fn p256(kid: &str) -> Self {
        let private = PrivateKey::generate(&ECDH_P256).unwrap();
        let public = private.compute_public_key().unwrap();
        let d: EcPrivateKeyBin<'_> = private.as_be_bytes().unwrap();
        let mut jwk = point(public.as_ref());
        (jwk["kid"], jwk["d"]) = (kid.into(), b64(d.as_ref()).into());
        Self { jwk, public: Public::Curve(&ECDH_P256, public.as_ref().to_vec()) }
    }

    pub(crate) fn x25519(kid: &str) -> Self {
        let private = PrivateKey::generate(&X25519).unwrap();
        let public = private.compute_public_key().unwrap();
        let d: Curve25519SeedBin<'_> = private.as_be_bytes().unwrap();
        let mut jwk = point(public.as_ref());
        (jwk["kid"], jwk["d"]) = (kid.into(), b64(d.as_ref()).into());
        Self { jwk, public: Public::Curve(&X25519, public.as_ref().to_vec()) }
    }

    /// A JWT encrypted, with further header parameters; a null one is left out.
    pub(crate) fn seal(&self, algorithm: &str, encryption: &str, more: Value, content: &[u8]) -> Sealed {
        let mut header = json!({ "alg": algorithm, "enc": encryption, "kid": self.jwk["kid"], "cty": "JWT" });
        let length = if encryption == "A128GCM" { 16 } else { 32 };
        let mut content_key = vec![0; length];
        rand::fill(&mut content_key).unwrap();
        let key = match &self.public {
            Public::Rsa(public) => {
                let mut room = vec![0; public.ciphertext_size()];
                public.encrypt(&OAEP_SHA256_MGF1SHA256, &content_key, &mut room, None).unwrap().to_vec()
            }
            Public::Curve(curve, public) => {
                let private = PrivateKey::generate(curve).unwrap();
                header["epk"] = point(private.compute_public_key().unwrap().as_ref());
                let (name, size) = match algorithm {
                    "ECDH-ES+A128KW" => (algorithm, 16),
                    "ECDH-ES+A256KW" => (algorithm, 32),
                    _ => (encryption, length),
                };
                let peer = UnparsedPublicKey::new(curve, public);
                let agreed = agreement::agree(&private, peer, (), |secret| Ok(derive(name, size, secret))).unwrap();
                let mut room = vec![0; length + 8];
                match algorithm {
                    "ECDH-ES+A128KW" => {
                        AesKek::new(&AES_128, &agreed).unwrap().wrap(&content_key, &mut room).unwrap().to_vec()
                    }
                    "ECDH-ES+A256KW" => {
                        AesKek::new(&AES_256, &agreed).unwrap().wrap(&content_key, &mut room).unwrap().to_vec()
                    }
                    _ => {
                        content_key = agreed;
                        Vec::new()
                    }
                }
            }
        };
        for (name, value) in more.as_object().into_iter().flatten() {
            header[name] = value.clone();
        }
        header.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let protected = b64(header.to_string());
        let kind = if length == 16 { &AES_128_GCM } else { &AES_256_GCM };
        let cipher = LessSafeKey::new(UnboundKey::new(kind, &content_key).unwrap());
        let mut nonce = [0; 12];
        rand::fill(&mut nonce).unwrap();
        let mut sealed = content.to_vec();
        let tag = cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(protected.as_bytes()),
                &mut sealed,
            )
            .unwrap();
        Sealed { header, key, nonce: nonce.to_vec(), content: sealed, tag: tag.as_ref().to_vec(), protected }
    }
}

impl Sealed {
    /// The compact form; a header that was changed is written anew.
    pub(crate) fn compact(&self) -> String {
        [b64(self.header.to_string()), b64(&self.key), b64(&self.nonce), b64(&self.content), b64(&self.tag)].join(".")
    }

    /// The header's text as it was sealed.
    pub(crate) fn protected(&self) -> &str {
        &self.protected
    }
}

/// Concat KDF with empty parties (RFC 7518 section 4.6.2).
fn derive(name: &str, length: usize, secret: &[u8]) -> Vec<u8> {
    let count = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
    let info = [&count(name.len())[..], name.as_bytes(), &[0; 8], &count(length * 8)].concat();
    let mut key = vec![0; length];
    sskdf_digest(get_sskdf_digest_algorithm(SskdfDigestAlgorithmId::Sha256).unwrap(), secret, &info, &mut key).unwrap();
    key
}

fn point(public: &[u8]) -> Value {
    if public.len() == 32 {
        return json!({ "kty": "OKP", "crv": "X25519", "x": b64(public) });
    }
    let (x, y) = public[1..].split_at(32);
    json!({ "kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y) })
}

/// n, e, d, p, q, dp, dq, qi of a PKCS#8 private key (RFC 5208, RFC 8017 appendix A.1.2).
fn numbers(pkcs8: &[u8]) -> Vec<Vec<u8>> {
    let (_, outer, _) = element(pkcs8);
    let (_, _, rest) = element(outer); // version
    let (_, _, rest) = element(rest); // algorithm
    let (_, octets, _) = element(rest);
    let (_, mut rest, _) = element(octets);
    let mut numbers = Vec::new();
    while !rest.is_empty() {
        let (_, number, after) = element(rest);
        let start = number.iter().position(|octet| *octet != 0).unwrap_or(number.len());
        numbers.push(number[start..].to_vec());
        rest = after;
    }
    numbers.split_off(1) // without the version
}

/// Tag, content, and what comes after.
fn element(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (length, start) = match der[1] {
        short @ 0..0x80 => (usize::from(short), 2),
        long => {
            let count = usize::from(long & 0x7f);
            (der[2..2 + count].iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), 2 + count)
        }
    };
    (der[0], &der[start..start + length], &der[start + length..])
}
