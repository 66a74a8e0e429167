//! Private keys that open encrypted tokens: from a JWK file to keys parsed once.
//!
//! A key opens only what its type, `alg`, `use` and `key_ops` allow. Nothing of them is ever shown.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    agreement::{self, Algorithm, ECDH_P256, ECDH_P384, ECDH_P521, PrivateKey, X25519},
    digest,
    encoding::AsDer,
    rsa::{KeyPair, KeyPairComponents, OaepPrivateDecryptingKey, PrivateDecryptingKey, PublicKeyComponents},
};
use zeroize::Zeroizing;

use super::{
    jose,
    json::{Json, Object},
    jwe::{Header, KeyManagement},
};

/// Keys of one file or of several.
#[derive(Debug, Default, PartialEq)]
pub struct Keys(Vec<Arc<Key>>);

/// A private key.
pub(super) struct Key {
    id: Option<Box<str>>,
    pub(super) private: Private,
    /// The digest of its secret part: equal for equal keys.
    known: [u8; 32],
}

/// What opens.
pub(super) enum Private {
    Rsa(Box<OaepPrivateDecryptingKey>),
    Curve(PrivateKey),
}

/// Why a text is no private key. Says nothing of what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a JWK, nor a set of them.
    #[error("is no JWK and no JWK set")]
    Malformed,
    /// There is no key in it.
    #[error("has no key")]
    Empty,
    /// A key is none that can open a token here.
    #[error(
        "holds a key that is not for this: a private RSA key of 2048 to 8192 bits with all its numbers, or one of P-256, \
         P-384, P-521 or X25519, for RSA-OAEP-256 or ECDH-ES"
    )]
    Unfit,
}

impl Keys {
    /// Reads a JWK or a set of them; every key in it must be of use.
    pub fn parse(text: &[u8]) -> Result<Self, KeyError> {
        let document = Object::parse(text).ok_or(KeyError::Malformed)?;
        let Some(set) = document.get("keys") else {
            return Ok(Self(vec![Arc::new(Key::parse(&document).ok_or(KeyError::Unfit)?)]));
        };
        let Json::List(members) = set else { return Err(KeyError::Malformed) };
        if members.is_empty() {
            return Err(KeyError::Empty);
        }
        let key = |member: &Json<'_>| match member {
            Json::Object(jwk) => Key::parse(jwk).map(Arc::new).ok_or(KeyError::Unfit),
            _ => Err(KeyError::Malformed),
        };
        Ok(Self(members.iter().map(key).collect::<Result<_, _>>()?))
    }

    /// Adds those of another file.
    pub(super) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    pub(super) fn all(&self) -> &[Arc<Key>] {
        &self.0
    }
}

impl Key {
    fn parse(jwk: &Object<'_>) -> Option<Self> {
        if !is_for_decryption(jwk) {
            return None;
        }
        let text = |name: &str| match jwk.get(name) {
            None => Some(None),
            Some(value) => Some(Some(Box::<str>::from(value.as_text()?))),
        };
        let (private, secret) = match jwk.get("kty")?.as_text()? {
            "RSA" => rsa(jwk)?,
            "EC" | "OKP" => curve(jwk)?,
            _ => return None,
        };
        if text("alg")?.is_some_and(|name| &*name != private.algorithm().name()) {
            return None;
        }
        let mut known = [0; 32];
        known.copy_from_slice(digest::digest(&digest::SHA256, &secret).as_ref());
        Some(Self { id: text("kid")?, private, known })
    }

    /// Whether it may open a token with this header.
    pub(super) fn fits(&self, header: &Header<'_>) -> bool {
        let id = header.key_id.is_none() || header.key_id.as_deref() == self.id.as_deref();
        self.private.algorithm() == header.algorithm && id
    }
}

impl Private {
    /// The only one it is for.
    const fn algorithm(&self) -> KeyManagement {
        match self {
            Self::Rsa(_) => KeyManagement::RsaOaep256,
            Self::Curve(_) => KeyManagement::EcdhEs,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (self.known, &self.id) == (other.known, &other.id)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// `use` and `key_ops`, where present, must allow it (RFC 7517 sections 4.2 and 4.3).
fn is_for_decryption(jwk: &Object<'_>) -> bool {
    let by_use = jwk.get("use").is_none_or(|value| value.as_text() == Some("enc"));
    let by_operation = match jwk.get("key_ops") {
        None => true,
        Some(Json::List(operations)) => {
            let may =
                |op: &Json<'_>| matches!(op.as_text(), Some("decrypt" | "unwrapKey" | "deriveKey" | "deriveBits"));
            operations.iter().any(may)
        }
        Some(_) => false,
    };
    by_use && by_operation
}

type Secret = Zeroizing<Vec<u8>>;

fn rsa(jwk: &Object<'_>) -> Option<(Private, Secret)> {
    let number = |name: &str| secret(jwk, name);
    let (n, e) = (jose::decode(jwk.get("n")?.as_text()?).ok()?, jose::decode(jwk.get("e")?.as_text()?).ok()?);
    let d = number("d")?;
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n: n.as_slice(), e: e.as_slice() },
        d: d.as_slice(),
        p: &number("p")?,
        q: &number("q")?,
        dP: &number("dp")?,
        dQ: &number("dq")?,
        qInv: &number("qi")?,
    };
    // Checks that they belong together, and the sizes.
    let pair = KeyPair::from_components(&components).ok()?;
    let private = PrivateDecryptingKey::from_pkcs8(pair.as_der().ok()?.as_ref()).ok()?;
    Some((Private::Rsa(Box::new(OaepPrivateDecryptingKey::new(private).ok()?)), d))
}

fn curve(jwk: &Object<'_>) -> Option<(Private, Secret)> {
    let algorithm = curve_of(jwk)?;
    let d = secret(jwk, "d")?;
    let private = PrivateKey::from_private_key(algorithm, &d).ok()?;
    // The public half that others encrypt for must be this one's.
    let own = private.compute_public_key().ok()?;
    (own.as_ref() == public(jwk, algorithm)?).then_some((Private::Curve(private), d))
}

/// The public key of a JWK on that curve, as agreement takes it; whether it is a point is checked there.
pub(super) fn public(jwk: &Object<'_>, algorithm: &'static Algorithm) -> Option<Vec<u8>> {
    if curve_of(jwk)? != algorithm {
        return None;
    }
    let octets = |name: &str| jose::decode(jwk.get(name)?.as_text()?).ok();
    let (x, size) = (octets("x")?, size_of(algorithm));
    if algorithm == &X25519 {
        return (x.len() == size).then_some(x);
    }
    let y = octets("y")?;
    (x.len() == size && y.len() == size).then(|| [&[4][..], &x, &y].concat())
}

fn curve_of(jwk: &Object<'_>) -> Option<&'static agreement::Algorithm> {
    let text = |name: &str| jwk.get(name).and_then(Json::as_text);
    match (text("kty")?, text("crv")?) {
        ("EC", "P-256") => Some(&ECDH_P256),
        ("EC", "P-384") => Some(&ECDH_P384),
        ("EC", "P-521") => Some(&ECDH_P521),
        ("OKP", "X25519") => Some(&X25519),
        _ => None,
    }
}

fn size_of(algorithm: &Algorithm) -> usize {
    if algorithm == &ECDH_P384 {
        48
    } else if algorithm == &ECDH_P521 {
        66
    } else {
        32
    }
}

fn secret(jwk: &Object<'_>, name: &str) -> Option<Secret> {
    Some(Zeroizing::new(jose::decode(jwk.get(name)?.as_text()?).ok()?))
}
