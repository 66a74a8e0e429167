//! JWK sets (RFC 7517, RFC 7518 section 6, RFC 8037): from a provider's text to keys parsed once.
//!
//! A key verifies only what its type, curve, `alg`, `use` and `key_ops` allow, whatever a token's header
//! says. Symmetric keys in a set never count: those come from [`Key::shared`] alone. Private members are
//! not read. Keys anyone could sign with (small, of exponent 1, of small order, of ROCA's form) are refused.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use aws_lc_rs::{
    digest, hmac,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
        VerificationAlgorithm,
    },
};

use super::{
    jose,
    json::{Json, Object},
    settings::Algorithm,
    weak,
};

/// A key, parsed, with the algorithms it may verify.
#[derive(Debug)]
pub(super) struct Key {
    /// `kid`, compared byte for byte.
    pub(super) id: Option<Box<str>>,
    /// One for each algorithm; never empty.
    verifiers: Vec<(Algorithm, Verifier)>,
    material: Material,
    /// Cleared when the key leaves its set: what it vouched for is then to be judged anew.
    live: AtomicBool,
}

/// What checks a signature.
#[derive(Debug)]
enum Verifier {
    Public(ParsedPublicKey),
    Shared(hmac::Key),
}

/// The numbers of a key; equal for equal keys.
#[derive(Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Box<[u8]>,
        e: Box<[u8]>,
    },
    /// A curve's point or an Ed25519 key.
    Point(Box<[u8]>),
    /// The digest of a symmetric key.
    Shared([u8; 32]),
}

/// Why a symmetric key is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SharedKeyError {
    /// A public key's algorithm.
    #[error("must be HS256, HS384 or HS512")]
    Algorithm,
    /// RFC 7518 section 3.2.
    #[error("must be at least {0} bytes long for its algorithm")]
    Short(usize),
    /// Longer than a key has reason to be.
    #[error("must be at most 1024 bytes long")]
    Long,
    /// Two keys have one id and algorithm.
    #[error("another key has the same kid and alg")]
    Twice,
}

/// What was found in the text of a JWK set.
#[derive(Debug)]
pub(super) struct Parsed {
    /// The usable keys, in their order.
    pub(super) keys: Vec<Key>,
    /// How many were of no use to us.
    pub(super) skipped: usize,
    /// Whether one of them shows private members.
    pub(super) private: bool,
}

/// Why a text is no key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Longer than 256 KiB.
    #[error("the key set is longer than 256 KiB")]
    TooLarge,
    /// Not a JSON object with an array `keys`.
    #[error("not a JWK set")]
    Malformed,
    /// More than 256 keys.
    #[error("the key set has more than 256 keys")]
    TooMany,
    /// Nothing in it can verify a token here.
    #[error("the key set has no usable key")]
    NoUsableKey,
}

/// Reads a JWK set; keeps the keys that may verify one of `allowed`.
pub(super) fn parse(text: &[u8], allowed: &[Algorithm]) -> Result<Parsed, JwksError> {
    if text.len() > MAX_JWKS {
        return Err(JwksError::TooLarge);
    }
    let set = Object::parse(text).ok_or(JwksError::Malformed)?;
    let Some(Json::List(members)) = set.get("keys") else { return Err(JwksError::Malformed) };
    if members.len() > MAX_KEYS {
        return Err(JwksError::TooMany);
    }
    let mut keys = Vec::with_capacity(members.len());
    let mut private = false;
    for member in members {
        let Json::Object(jwk) = member else { continue };
        private |= jwk.has("d");
        keys.extend(Key::parse(jwk, allowed));
    }
    if keys.is_empty() {
        return Err(JwksError::NoUsableKey);
    }
    Ok(Parsed { skipped: members.len() - keys.len(), keys, private })
}

impl Key {
    fn parse(jwk: &Object<'_>, allowed: &[Algorithm]) -> Option<Self> {
        let id = match jwk.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_text()?.into()),
        };
        if !is_for_signatures(jwk) {
            return None;
        }
        let named = match jwk.get("alg") {
            None => None,
            Some(alg) => Some(Algorithm::of(alg.as_text()?)?),
        };
        let may = |alg: &Algorithm| allowed.contains(alg) && named.is_none_or(|named| named == *alg);
        let (material, verifiers) = match jwk.get("kty")?.as_text()? {
            "RSA" => rsa(jwk, may)?,
            "EC" => elliptic(jwk, may)?,
            "OKP" => edwards(jwk, may)?,
            _ => return None,
        };
        if verifiers.is_empty() {
            return None;
        }
        Some(Self { id, verifiers, material, live: AtomicBool::new(true) })
    }

    /// A key shared with the provider, for one algorithm.
    pub(super) fn shared(id: Option<&str>, algorithm: Algorithm, secret: &[u8]) -> Result<Self, SharedKeyError> {
        let hash = match algorithm {
            Algorithm::HS256 => hmac::HMAC_SHA256,
            Algorithm::HS384 => hmac::HMAC_SHA384,
            Algorithm::HS512 => hmac::HMAC_SHA512,
            _ => return Err(SharedKeyError::Algorithm),
        };
        if secret.len() < hash.tag_len() {
            return Err(SharedKeyError::Short(hash.tag_len()));
        }
        if secret.len() > MAX_SECRET {
            return Err(SharedKeyError::Long);
        }
        let mut known = [0; 32];
        known.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
        Ok(Self {
            id: id.map(Into::into),
            verifiers: vec![(algorithm, Verifier::Shared(hmac::Key::new(hash, secret)))],
            material: Material::Shared(known),
            live: AtomicBool::new(true),
        })
    }

    /// Whether it may verify `algorithm`.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.verifiers.iter().any(|(alg, _)| *alg == algorithm)
    }

    /// Whether `signature` is this key's over `message`, by `algorithm`.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let verifier = self.verifiers.iter().find(|(alg, _)| *alg == algorithm);
        verifier.is_some_and(|(_, verifier)| match verifier {
            Verifier::Public(key) => key.verify_sig(message, signature).is_ok(),
            // In constant time, and the whole tag.
            Verifier::Shared(key) => hmac::verify(key, message, signature).is_ok(),
        })
    }

    /// Whether it is still in its set.
    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// It has left its set, for good.
    pub(super) fn leave(&self) {
        self.live.store(false, Ordering::Release);
    }

    /// Whether `other` is the same key with the same rights.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let algorithms = |key: &Self| -> Vec<Algorithm> { key.verifiers.iter().map(|(alg, _)| *alg).collect() };
        self.id == other.id && self.material == other.material && algorithms(self) == algorithms(other)
    }
}

/// Whether two keys have the same id and algorithm, so that a token cannot say which one it means.
pub(super) fn share_a_name(keys: &[Arc<Key>]) -> bool {
    let same = |a: &Key, b: &Key| a.id == b.id && a.verifiers.iter().any(|(algorithm, _)| b.fits(*algorithm));
    keys.iter().enumerate().any(|(i, key)| keys[..i].iter().any(|other| same(key, other)))
}

/// `use` and `key_ops`, where present, must allow verification (RFC 7517 sections 4.2 and 4.3).
fn is_for_signatures(jwk: &Object<'_>) -> bool {
    let by_use = jwk.get("use").is_none_or(|value| value.as_text() == Some("sig"));
    let by_operation = match jwk.get("key_ops") {
        None => true,
        Some(Json::List(operations)) => operations.iter().any(|op| op.as_text() == Some("verify")),
        Some(_) => false,
    };
    by_use && by_operation
}

type Verifiers = (Material, Vec<(Algorithm, Verifier)>);

fn rsa(jwk: &Object<'_>, may: impl Fn(&Algorithm) -> bool) -> Option<Verifiers> {
    let (n, e) = (number(jwk, "n")?, number(jwk, "e")?);
    let exponent_is_small = bits(&e) <= MAX_RSA_EXPONENT_BITS && *e != [1];
    if !RSA_BITS.contains(&bits(&n)) || !is_odd(&n) || !is_odd(&e) || !exponent_is_small || weak::is_roca(&n) {
        return None;
    }
    let verifiers = RSA
        .iter()
        .filter(|(alg, _)| may(alg))
        .map(|(alg, parameters)| {
            let key = RsaPublicKeyComponents { n: &n, e: &e }.to_parsed_public_key(parameters).ok()?;
            Some((*alg, Verifier::Public(key)))
        })
        .collect::<Option<Vec<_>>>()?;
    Some((Material::Rsa { n, e }, verifiers))
}

fn elliptic(jwk: &Object<'_>, may: impl Fn(&Algorithm) -> bool) -> Option<Verifiers> {
    let (alg, verification, size): (_, &'static dyn VerificationAlgorithm, _) = match jwk.get("crv")?.as_text()? {
        "P-256" => (Algorithm::ES256, &ECDSA_P256_SHA256_FIXED, 32),
        "P-384" => (Algorithm::ES384, &ECDSA_P384_SHA384_FIXED, 48),
        "P-521" => (Algorithm::ES512, &ECDSA_P521_SHA512_FIXED, 66),
        _ => return None,
    };
    let (x, y) = (octets(jwk, "x")?, octets(jwk, "y")?);
    if x.len() != size || y.len() != size || !may(&alg) {
        return None;
    }
    // SEC 1 uncompressed point; that it lies on the curve is checked when it is parsed.
    let point = [&[4][..], &x, &y].concat();
    let key = ParsedPublicKey::new(verification, &point).ok()?;
    Some((Material::Point(point.into()), vec![(alg, Verifier::Public(key))]))
}

fn edwards(jwk: &Object<'_>, may: impl Fn(&Algorithm) -> bool) -> Option<Verifiers> {
    let x = octets(jwk, "x")?;
    if jwk.get("crv")?.as_text()? != "Ed25519" || x.len() != 32 || weak::has_small_order(&x) || !may(&Algorithm::EdDSA)
    {
        return None;
    }
    let key = ParsedPublicKey::new(&ED25519, &x).ok()?;
    Some((Material::Point(x.into()), vec![(Algorithm::EdDSA, Verifier::Public(key))]))
}

fn octets(jwk: &Object<'_>, name: &str) -> Option<Vec<u8>> {
    jose::decode(jwk.get(name)?.as_text()?).ok()
}

/// A big-endian number without leading zeros, which some providers put before it.
fn number(jwk: &Object<'_>, name: &str) -> Option<Box<[u8]>> {
    let octets = octets(jwk, name)?;
    let start = octets.iter().position(|octet| *octet != 0)?;
    Some(octets[start..].into())
}

fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|last| last & 1 == 1)
}

static RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::RS256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::RS384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::RS512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::PS256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::PS384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::PS512, &RSA_PSS_2048_8192_SHA512),
];

/// Longest text of a key set.
pub const MAX_JWKS: usize = 256 << 10;
const MAX_KEYS: usize = 256;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
const MAX_RSA_EXPONENT_BITS: usize = 33;
const MAX_SECRET: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::token::testing::{Signer, b64};

    const ALL: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

    fn read(keys: &Value) -> Result<(usize, usize), JwksError> {
        parse(keys.to_string().as_bytes(), &ALL).map(|parsed| (parsed.keys.len(), parsed.skipped))
    }

    fn algorithms(jwk: Value) -> Vec<Algorithm> {
        let text = json!({ "keys": [jwk] }).to_string();
        let Ok(parsed) = parse(text.as_bytes(), &ALL) else { return vec![] };
        ALL.into_iter().filter(|alg| parsed.keys[0].fits(*alg)).collect()
    }

    fn with(mut jwk: Value, name: &str, value: impl Into<Value>) -> Value {
        jwk[name] = value.into();
        jwk
    }

    #[test]
    fn a_key_does_only_what_it_says() {
        let rsa = Signer::new(Algorithm::RS256, "r").jwk();
        let ec = Signer::new(Algorithm::ES256, "e").jwk();
        let ed = Signer::new(Algorithm::EdDSA, "d").jwk();
        assert_eq!(algorithms(rsa.clone()), [Algorithm::RS256, Algorithm::PS256]);
        assert_eq!(algorithms(ec.clone()), [Algorithm::ES256]);
        assert_eq!(algorithms(ed.clone()), [Algorithm::EdDSA]);
        assert_eq!(algorithms(with(rsa.clone(), "alg", "PS256")), [Algorithm::PS256]);
        assert_eq!(
            algorithms(with(rsa.clone(), "key_ops", json!(["sign", "verify"]))),
            [Algorithm::RS256, Algorithm::PS256]
        );
        for useless in [
            with(rsa.clone(), "alg", "RS512"),
            with(rsa.clone(), "alg", "RSA-OAEP"),
            with(rsa.clone(), "alg", 7),
            with(rsa.clone(), "use", "enc"),
            with(rsa.clone(), "use", json!(["sig"])),
            with(rsa.clone(), "key_ops", json!(["encrypt"])),
            with(rsa.clone(), "key_ops", "verify"),
            with(rsa.clone(), "kid", 7),
            with(rsa.clone(), "kty", "EC"),
            with(ec.clone(), "alg", "RS256"),
            with(ec.clone(), "crv", "P-384"),
            with(ec, "crv", "secp256k1"),
            with(ed, "crv", "Ed448"),
            json!({ "kty": "oct", "k": b64([7; 32]), "alg": "HS256" }),
        ] {
            assert_eq!(algorithms(useless.clone()), [], "{useless}");
        }
    }

    #[test]
    fn weak_and_absurd_rsa_keys_are_refused() {
        let rsa = Signer::new(Algorithm::RS256, "r").jwk();
        let modulus = |bytes: usize, last: u8| {
            let mut n = vec![0xff; bytes];
            n[bytes - 1] = last;
            b64(n)
        };
        assert_eq!(algorithms(with(rsa.clone(), "n", modulus(1024, 0xff))).len(), 2, "8192 bits");
        let padded = [&[0][..], &jose::decode(rsa["n"].as_str().expect("text")).expect("base64")].concat();
        assert_eq!(algorithms(with(rsa.clone(), "n", b64(padded))).len(), 2, "a leading zero");
        for n in [modulus(64, 0xff), modulus(128, 0xff), modulus(255, 0xff), modulus(1025, 0xff), modulus(2048, 0xff)] {
            assert_eq!(algorithms(with(rsa.clone(), "n", n.clone())), [], "{} digits", n.len());
        }
        assert_eq!(algorithms(with(rsa.clone(), "n", modulus(256, 0xfe))), [], "an even modulus");
        assert_eq!(algorithms(with(rsa.clone(), "n", "")), [], "no modulus");
        for e in [&[1][..], &[2], &[0], &[], &[1, 0, 0], &[3, 0, 0, 0, 1], &[1, 0, 0, 0, 0, 1]] {
            assert_eq!(algorithms(with(rsa.clone(), "e", b64(e))), [], "{e:?}");
        }
        assert_eq!(algorithms(with(rsa, "e", b64([3]))).len(), 2, "e = 3");
    }

    #[test]
    fn points_off_the_curve_are_refused() {
        let ec = Signer::new(Algorithm::ES256, "e").jwk();
        let x = jose::decode(ec["x"].as_str().expect("text")).expect("base64");
        let mut bent = x.clone();
        bent[31] ^= 1;
        for (name, value) in [
            ("x", b64(bent)),
            ("x", b64([0xff; 32])),
            ("x", b64([0; 32])),
            ("x", b64(&x[1..])),
            ("x", b64([&[0][..], &x].concat())),
            ("y", String::new()),
        ] {
            assert_eq!(algorithms(with(ec.clone(), name, value.clone())), [], "{name} {value}");
        }
        let infinity = with(with(ec, "x", b64([0; 32])), "y", b64([0; 32]));
        assert_eq!(algorithms(infinity), []);
    }

    #[test]
    fn points_of_small_order_are_refused() {
        let ed = Signer::new(Algorithm::EdDSA, "d").jwk();
        let mut point = [0; 32];
        for first in [0, 1] {
            point[0] = first;
            assert_eq!(algorithms(with(ed.clone(), "x", b64(point))), [], "{first}");
        }
    }

    #[test]
    fn good_keys_are_kept_among_bad_ones() {
        let good = Signer::new(Algorithm::ES256, "e").jwk();
        assert_eq!(read(&json!({ "keys": [{}, good, { "kty": "RSA" }, 7, null, "x"] })), Ok((1, 5)));
        let shown = parse(json!({ "keys": [with(good.clone(), "d", "AA")] }).to_string().as_bytes(), &ALL);
        assert!(shown.is_ok_and(|parsed| parsed.private && parsed.keys.len() == 1));
        assert_eq!(read(&json!({ "keys": [] })), Err(JwksError::NoUsableKey));
        assert_eq!(read(&json!({ "keys": [{}] })), Err(JwksError::NoUsableKey));
        assert_eq!(read(&json!({ "keys": {} })), Err(JwksError::Malformed));
        assert_eq!(read(&json!([good])), Err(JwksError::Malformed));
        assert_eq!(read(&json!({ "keys": vec![good.clone(); 256] })), Ok((256, 0)));
        assert_eq!(read(&json!({ "keys": vec![good.clone(); 257] })), Err(JwksError::TooMany));
        assert_eq!(read(&json!({ "keys": [good], "pad": " ".repeat(MAX_JWKS) })), Err(JwksError::TooLarge));
        assert!(matches!(parse(b"<!doctype html>", &ALL), Err(JwksError::Malformed)));
        assert!(matches!(parse(b"", &ALL), Err(JwksError::Malformed)));
    }
}
