//! By what a token may have been revoked.

use aws_lc_rs::digest::{Context, SHA256};
use base64_simd::{AsOut, URL_SAFE_NO_PAD};

use super::revoked::Map;

/// What is asked of a good token.
#[derive(Debug, Clone, Copy)]
pub struct TokenFacts<'a> {
    /// `iss`
    pub issuer: &'a str,
    /// `jti`
    pub jti: Option<&'a str>,
    /// SHA-256 of its text, where it is known.
    pub token_sha256: Option<TokenSha256<'a>>,
    /// OAuth client id.
    pub consumer_key: Option<&'a str>,
    /// `sub`, or what is mapped to it.
    pub subject: Option<&'a str>,
    /// `sub` as its issuer wrote it, where another claim is mapped to it.
    pub own_subject: Option<&'a str>,
    /// `iat`, Unix seconds.
    pub issued_at: Option<u64>,
}

/// SHA-256 of a token's text.
#[derive(Debug, Clone, Copy)]
pub enum TokenSha256<'a> {
    /// Known.
    Is(&'a [u8; 32]),
    /// To be made only where some token of the issuer is revoked by it.
    Of {
        /// That of this text.
        text: &'a str,
        /// And of the token inside it, where it is encrypted.
        inside: Option<&'a TokenDigests>,
    },
}

/// SHA-256 of a token's text in each spelling of its signature that verifies: whoever holds a token that is revoked could
/// bring the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenDigests {
    as_it_is: [u8; 32],
    /// With an ECDSA signature (r, s) as (r, n - s).
    twin: Option<[u8; 32]>,
}

impl TokenSha256<'_> {
    pub(super) fn is_in(self, revoked: &Map<[u8; 32], u64>) -> bool {
        let pinned = revoked.pin();
        match self {
            Self::Is(digest) => pinned.contains_key(digest),
            Self::Of { .. } if pinned.is_empty() => false,
            Self::Of { text, inside } => {
                let has = |digests: &TokenDigests| digests.all().any(|digest| pinned.contains_key(digest));
                has(&TokenDigests::of(text)) || inside.is_some_and(has)
            }
        }
    }
}

impl TokenDigests {
    /// Those of this text.
    pub fn of(text: &str) -> Self {
        let twin = text.rsplit_once('.').and_then(|(signed, signature)| {
            let mut room = [0; LONGEST];
            let twin = twin(signature, &mut room)?;
            Some(sha256(&[signed.as_bytes(), b".", twin]))
        });
        Self { as_it_is: sha256(&[text.as_bytes()]), twin }
    }

    fn all(&self) -> impl Iterator<Item = &[u8; 32]> {
        [&self.as_it_is].into_iter().chain(&self.twin)
    }
}

/// The other spelling of a signature as long as ECDSA's, in base64url. (Ed25519's is as long; what is made of one is no
/// signature, and so in no list.)
fn twin<'r>(signature: &str, room: &'r mut [u8; LONGEST]) -> Option<&'r [u8]> {
    let order = ORDERS.into_iter().find(|order| URL_SAFE_NO_PAD.encoded_length(2 * order.len()) == signature.len())?;
    let mut octets = [0; LONGEST];
    let octets = URL_SAFE_NO_PAD.decode(signature.as_bytes(), octets.as_mut_slice().as_out()).ok()?;
    let mut borrow = false;
    for (s, n) in octets.get_mut(order.len()..)?.iter_mut().zip(order).rev() {
        let (less, below) = n.overflowing_sub(*s);
        let (less, further) = less.overflowing_sub(borrow.into());
        (*s, borrow) = (less, below || further);
    }
    // A signature beyond the order is none, and has no twin.
    (!borrow).then(|| &*URL_SAFE_NO_PAD.encode(octets, room.as_mut_slice().as_out()))
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    parts.iter().for_each(|part| hash.update(part));
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The orders of P-256, P-384 and P-521 (FIPS 186-5), as long as half a signature (RFC 7518 section 3.4).
const ORDERS: [&[u8]; 3] = [
    &[
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
        0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ],
    &[
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2,
        0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
    ],
    &[
        0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfa, 0x51, 0x86,
        0x87, 0x83, 0xbf, 0x2f, 0x96, 0x6b, 0x7f, 0xcc, 0x01, 0x48, 0xf7, 0x09, 0xa5, 0xd0, 0x3b, 0xb5, 0xc9, 0xb8,
        0x89, 0x9c, 0x47, 0xae, 0xbb, 0x6f, 0xb7, 0x1e, 0x91, 0x38, 0x64, 0x09,
    ],
];
/// An ES512 signature in base64url.
const LONGEST: usize = 176;

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{
            ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
            ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
            KeyPair, UnparsedPublicKey,
        },
    };

    use super::*;

    fn other(signature: &str) -> Option<String> {
        let mut room = [0; LONGEST];
        twin(signature, &mut room).map(|twin| String::from_utf8(twin.to_vec()).expect("base64url"))
    }

    #[test]
    fn the_twin_of_an_ecdsa_signature_verifies_and_has_the_same_digests() {
        for (signing, verifying) in [
            (&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_FIXED),
            (&ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED),
            (&ECDSA_P521_SHA512_FIXED_SIGNING, &ECDSA_P521_SHA512_FIXED),
        ] {
            let key = EcdsaKeyPair::generate(signing).expect("a key");
            let signature = key.sign(&SystemRandom::new(), b"e30.e30").expect("signed");
            let text = URL_SAFE_NO_PAD.encode_to_string(signature.as_ref());
            let twin = other(&text).expect("a twin");
            assert_ne!(twin, text);
            assert_eq!(other(&twin).as_ref(), Some(&text), "each is the other's");
            let octets = URL_SAFE_NO_PAD.decode_to_vec(&twin).expect("base64url");
            let public = UnparsedPublicKey::new(verifying, key.public_key().as_ref());
            public.verify(b"e30.e30", &octets).expect("this is why it is looked for");
            let (one, two) =
                (TokenDigests::of(&format!("e30.e30.{text}")), TokenDigests::of(&format!("e30.e30.{twin}")));
            assert_eq!((Some(one.as_it_is), one.twin), (two.twin, Some(two.as_it_is)));
        }
    }

    #[test]
    fn what_is_no_ecdsa_signature_has_no_twin() {
        let beyond = URL_SAFE_NO_PAD.encode_to_string([0xff; 64]);
        let rsa = URL_SAFE_NO_PAD.encode_to_string([1; 256]);
        for signature in ["", "AA", &"!".repeat(86), &beyond, &rsa] {
            assert_eq!(other(signature), None, "{signature}");
        }
        assert_eq!(TokenDigests::of("opaque").twin, None);
    }
}
