//! Encrypted tokens (RFC 7516): compact JWE by RSA-OAEP-256 or ECDH-ES (direct, no key wrap), content by A128GCM or
//! A256GCM, and nothing else. A token inside is signed and judged like any other.
//!
//! Whatever goes wrong is one and the same flaw, and a wrong RSA padding is found out no earlier than a wrong tag
//! (RFC 7516 section 11.5). Never inflates (`zip`), never works by a password, takes no key from a header but the
//! ephemeral one.

use std::{borrow::Cow, fmt, sync::Arc};

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, UnparsedPublicKey},
    kdf::{SskdfDigestAlgorithmId, get_sskdf_digest_algorithm, sskdf_digest},
    rand,
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey},
};
use zeroize::Zeroizing;

use super::{
    Flaw,
    jose::{self, MAX_TOKEN},
    json::{Json, Object},
    jwe_key::{Key, Private},
};

pub use super::jwe_key::{KeyError, Keys};

/// How the key of the content is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyManagement {
    RsaOaep256,
    EcdhEs,
}

/// How the content is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    A128Gcm,
    A256Gcm,
}

/// A JWE taken apart.
pub(super) struct Envelope<'t> {
    /// The header as sent: what the tag covers besides the content.
    protected: &'t str,
    header: Vec<u8>,
    encrypted_key: Vec<u8>,
    nonce: [u8; 12],
    /// Content and tag.
    sealed: Vec<u8>,
}

/// What counts of its header.
pub(super) struct Header<'a> {
    pub(super) algorithm: KeyManagement,
    pub(super) key_id: Option<Cow<'a, str>>,
    encryption: Encryption,
    /// Whether the content says to be a JWT (RFC 7519 section 5.2).
    holds_jwt: bool,
    epk: Option<Object<'a>>,
    apu: Vec<u8>,
    apv: Vec<u8>,
}

impl Keys {
    /// The content of a token that one of the keys opens, whatever it is.
    pub fn decrypt(&self, token: &str) -> Result<Vec<u8>, Flaw> {
        let envelope = Envelope::split(token)?;
        let header = envelope.header()?;
        let mut fit = self.all().iter().filter(|key| key.fits(&header)).take(MAX_TRIES);
        fit.find_map(|key| envelope.open(&header, key)).ok_or(Flaw::Encrypted)
    }
}

/// The signed token inside an encrypted one, opened by the first of `keys` that does, with that key.
pub(super) fn open<'k>(token: &str, keys: impl Iterator<Item = &'k Arc<Key>>) -> Result<(String, Arc<Key>), Flaw> {
    let envelope = Envelope::split(token)?;
    let header = envelope.header()?;
    if !header.holds_jwt {
        return Err(Flaw::Encrypted);
    }
    let mut fit = keys.filter(|key| key.fits(&header)).take(MAX_TRIES);
    let (content, key) = fit.find_map(|key| Some((envelope.open(&header, key)?, key))).ok_or(Flaw::Encrypted)?;
    let inner = String::from_utf8(content).map_err(|_| Flaw::Encrypted)?;
    Ok((inner, Arc::clone(key)))
}

impl<'t> Envelope<'t> {
    /// Size first, then the parts, of which the first is read when all have the right form.
    fn split(token: &'t str) -> Result<Self, Flaw> {
        if token.len() > MAX_TOKEN {
            return Err(Flaw::Malformed);
        }
        let mut parts = token.split('.');
        let mut next = || parts.next().ok_or(Flaw::Encrypted);
        let (protected, key, nonce, content, tag) = (next()?, next()?, next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(Flaw::Encrypted);
        }
        let octets = |part: &str| jose::decode(part).map_err(|_| Flaw::Encrypted);
        let (mut sealed, tag) = (octets(content)?, octets(tag)?);
        if tag.len() != TAG {
            return Err(Flaw::Encrypted);
        }
        sealed.extend(tag);
        Ok(Self {
            protected,
            header: octets(protected)?,
            encrypted_key: octets(key)?,
            nonce: octets(nonce)?.try_into().map_err(|_| Flaw::Encrypted)?,
            sealed,
        })
    }

    fn header(&self) -> Result<Header<'_>, Flaw> {
        Header::parse(&self.header).ok_or(Flaw::Encrypted)
    }

    /// The content, where the key is the right one and nothing has been changed.
    fn open(&self, header: &Header<'_>, key: &Key) -> Option<Vec<u8>> {
        let content_key = match &key.private {
            Private::Rsa(private) => self.by_rsa(header, private)?,
            Private::Curve(private) => self.by_agreement(header, private)?,
        };
        let algorithm = match header.encryption {
            Encryption::A128Gcm => &AES_128_GCM,
            Encryption::A256Gcm => &AES_256_GCM,
        };
        let content_key = LessSafeKey::new(UnboundKey::new(algorithm, &content_key).ok()?);
        let (nonce, aad) = (Nonce::assume_unique_for_key(self.nonce), Aad::from(self.protected));
        let mut sealed = self.sealed.clone();
        let length = content_key.open_in_place(nonce, aad, &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }

    /// A key that is not there is as good as a wrong one: the tag will not fit.
    fn by_rsa(&self, header: &Header<'_>, private: &OaepPrivateDecryptingKey) -> Option<ContentKey> {
        let mut content_key = Zeroizing::new(vec![0; header.encryption.key_len()]);
        rand::fill(&mut content_key).ok()?;
        let mut room = Zeroizing::new(vec![0; private.min_output_size()]);
        let opened = private.decrypt(&OAEP_SHA256_MGF1SHA256, &self.encrypted_key, &mut room, None);
        if let Ok(opened) = opened
            && opened.len() == content_key.len()
        {
            content_key.copy_from_slice(opened);
        }
        Some(content_key)
    }

    fn by_agreement(&self, header: &Header<'_>, private: &agreement::PrivateKey) -> Option<ContentKey> {
        let public = super::jwe_key::public(header.epk.as_ref()?, private.algorithm())?;
        let peer = UnparsedPublicKey::new(private.algorithm(), public);
        let agreed = agreement::agree(private, peer, (), |secret| header.derive(secret).ok_or(())).ok()?;
        // Agreed directly: no key is sent.
        self.encrypted_key.is_empty().then_some(agreed)
    }
}

impl<'a> Header<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let header = Object::parse(text)?;
        if ["crit", "zip", "b64"].iter().any(|name| header.has(name)) {
            return None;
        }
        let text = |name: &str| header.get(name).and_then(Json::as_text);
        let algorithm = match text("alg")? {
            "RSA-OAEP-256" => KeyManagement::RsaOaep256,
            "ECDH-ES" => KeyManagement::EcdhEs,
            _ => return None,
        };
        let encryption = match text("enc")? {
            "A128GCM" => Encryption::A128Gcm,
            "A256GCM" => Encryption::A256Gcm,
            _ => return None,
        };
        let key_id = match header.get("kid") {
            None => None,
            Some(Json::Text(id)) => Some(id.clone()),
            Some(_) => return None,
        };
        let epk = match header.get("epk") {
            None => None,
            Some(Json::Object(epk)) => Some(epk.clone()),
            Some(_) => return None,
        };
        let party = |name: &str| match header.get(name) {
            None => Some(Vec::new()),
            Some(value) => jose::decode(value.as_text()?).ok().filter(|octets| octets.len() <= MAX_PARTY),
        };
        Some(Self {
            algorithm,
            encryption,
            holds_jwt: text("cty").is_some_and(|cty| cty.eq_ignore_ascii_case("JWT")),
            apu: party("apu")?,
            apv: party("apv")?,
            key_id,
            epk,
        })
    }

    /// Concat KDF with SHA-256 (RFC 7518 section 4.6.2).
    fn derive(&self, secret: &[u8]) -> Option<ContentKey> {
        let (name, length) = (self.encryption.name(), self.encryption.key_len());
        let mut info = Vec::new();
        for field in [name.as_bytes(), &self.apu, &self.apv] {
            info.extend(u32::try_from(field.len()).ok()?.to_be_bytes());
            info.extend(field);
        }
        info.extend(u32::try_from(length * 8).ok()?.to_be_bytes());
        let mut key = Zeroizing::new(vec![0; length]);
        let sha256 = get_sskdf_digest_algorithm(SskdfDigestAlgorithmId::Sha256)?;
        sskdf_digest(sha256, secret, &info, &mut key).ok()?;
        Some(key)
    }
}

impl Encryption {
    const fn name(self) -> &'static str {
        match self {
            Self::A128Gcm => "A128GCM",
            Self::A256Gcm => "A256GCM",
        }
    }

    const fn key_len(self) -> usize {
        match self {
            Self::A128Gcm => 16,
            Self::A256Gcm => 32,
        }
    }
}

impl KeyManagement {
    /// Its name in a header.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::RsaOaep256 => "RSA-OAEP-256",
            Self::EcdhEs => "ECDH-ES",
        }
    }
}

impl fmt::Debug for Envelope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Envelope")
    }
}

/// Wiped when dropped.
type ContentKey = Zeroizing<Vec<u8>>;

const TAG: usize = 16;
const MAX_PARTY: usize = 256;
/// Opening costs more than verifying.
const MAX_TRIES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7518 appendix C.
    #[test]
    fn keys_are_derived_as_the_rfc_does() {
        let key = br#"{"kty":"EC","crv":"P-256","x":"weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ",
            "y":"e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck","d":"VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw"}"#;
        let header = br#"{"alg":"ECDH-ES","enc":"A128GCM","apu":"QWxpY2U","apv":"Qm9i","epk":{"kty":"EC","crv":"P-256",
            "x":"gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0","y":"SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps"}}"#;
        let keys = Keys::parse(key).expect("a private key");
        let header = Header::parse(header).expect("a header");
        let Private::Curve(private) = &keys.all()[0].private else { panic!("an EC key") };
        let nothing = Envelope { protected: "", header: vec![], encrypted_key: vec![], nonce: [0; 12], sealed: vec![] };
        let derived = nothing.by_agreement(&header, private).expect("they agree");
        assert_eq!(derived.as_slice(), jose::decode("VqqN6vgjbSBcIijNcacQGg").expect("base64url"));
    }

    #[test]
    fn headers_name_what_is_known_and_nothing_else() {
        let parses = |text: &str| Header::parse(text.as_bytes()).is_some();
        assert!(parses(r#"{"alg":"ECDH-ES","enc":"A128GCM","apu":"AA"}"#));
        assert!(parses(r#"{"alg":"RSA-OAEP-256","enc":"A256GCM","kid":"a","cty":"JWT"}"#));
        for text in [
            r#"{"alg":"dir","enc":"A128GCM"}"#,
            r#"{"alg":"RSA1_5","enc":"A128GCM"}"#,
            r#"{"alg":"RSA-OAEP","enc":"A128GCM"}"#,
            r#"{"alg":"A128KW","enc":"A128GCM"}"#,
            r#"{"alg":"ECDH-ES+A128KW","enc":"A128GCM"}"#,
            r#"{"alg":"ECDH-ES+A192KW","enc":"A128GCM"}"#,
            r#"{"alg":"ECDH-ES+A256KW","enc":"A256GCM"}"#,
            r#"{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483648,"p2s":"AA"}"#,
            r#"{"alg":"ECDH-ES","enc":"A128CBC-HS256"}"#,
            r#"{"alg":"ECDH-ES","enc":"A128GCM","zip":"DEF"}"#,
            r#"{"alg":"ECDH-ES","enc":"A128GCM","crit":[]}"#,
            r#"{"alg":"ECDH-ES","enc":"A128GCM","enc":"A256GCM"}"#,
            r#"{"alg":"ECDH-ES","enc":"A128GCM","epk":"x"}"#,
            r#"{"alg":"ECDH-ES","enc":"A128GCM","apu":"A"}"#,
            r#"{"alg":"ECDH-ES","enc":"A128GCM","kid":1}"#,
            r#"{"alg":"ECDH-ES"}"#,
            r#"{"enc":"A128GCM"}"#,
            "[]",
        ] {
            assert!(!parses(text), "{text}");
        }
    }
}
