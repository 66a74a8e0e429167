//! Key pairs, their public halves in both forms the peers read, and tokens of about 700 bytes.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, PublicKeyUse},
};
use serde_json::{Value, json};

/// The consumer key of the tokens that are sent alone; client-0 to client-999 are those of the many.
pub(crate) const CONSUMER_KEY: &str = "client-500";
/// The consumer key whose application has used up its tier.
pub(crate) const SPENT: &str = "client-spent";
/// How many the many are.
pub(crate) const DISTINCT: usize = 20_000;

/// A key that signs, and where its public half stands.
pub(crate) struct Signer {
    pub(crate) algorithm: Algorithm,
    key: EncodingKey,
    /// File with the public key as PEM.
    pub(crate) pem: PathBuf,
}

impl Signer {
    /// A new key, whose public half is written to `dir`, and is given as a JWK too.
    pub(crate) fn new(algorithm: Algorithm, dir: &Path) -> anyhow::Result<(Self, Jwk)> {
        let (key, public) = match algorithm {
            Algorithm::RS256 => rsa()?,
            Algorithm::ES256 => ec()?,
            Algorithm::EdDSA => ed()?,
            other => anyhow::bail!("no key of ours signs {other:?}"),
        };
        let pem = dir.join(format!("{algorithm:?}.pem"));
        fs::write(&pem, armour("PUBLIC KEY", public.as_ref()))?;
        let mut jwk = Jwk::from_encoding_key(&key, algorithm)?;
        jwk.common.key_id = Some(format!("{algorithm:?}"));
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok((Self { algorithm, key, pem }, jwk))
    }

    /// Name of the algorithm.
    pub(crate) fn name(&self) -> String {
        format!("{:?}", self.algorithm)
    }

    /// A token of that application; `n` makes it one of many. A claim nobody asks for fills it up, since signatures
    /// differ in length.
    pub(crate) fn mint(&self, consumer_key: &str, n: usize) -> anyhow::Result<String> {
        let header = Header { kid: Some(self.name()), typ: Some("at+jwt".into()), ..Header::new(self.algorithm) };
        let claims = |filler: usize| -> Value {
            json!({
                "iss": ISSUER, "sub": format!("5f0c1a52-7f3e-4b6e-9a70-2a1b3c{n:06}"), "aud": "peers",
                "client_id": consumer_key, "scope": "openid items:read", "jti": format!("b7c1d2e{n:06}"),
                "iat": 1_700_000_000, "exp": 4_102_444_800_u64, "filler": "x".repeat(filler),
            })
        };
        // What base64 makes of header, claims and signature, and the two dots.
        let signature = if self.algorithm == Algorithm::RS256 { 256 } else { 64 };
        let least = [serde_json::to_vec(&header)?.len(), serde_json::to_vec(&claims(0))?.len(), signature];
        let least: usize = least.iter().map(|bytes| (bytes * 4).div_ceil(3)).sum::<usize>() + 2;
        let filler = TOKEN_BYTES.saturating_sub(least) * 3 / 4;
        Ok(jsonwebtoken::encode(&header, &claims(filler), &self.key)?)
    }

    /// One that a bit of the signature is wrong in.
    pub(crate) fn mint_bad(&self) -> anyhow::Result<String> {
        let good = self.mint(CONSUMER_KEY, 0)?;
        let at = good.len() - 20;
        let other = if good[at..].starts_with('A') { "B" } else { "A" };
        Ok(format!("{}{other}{}", &good[..at], &good[at + 1..]))
    }

    /// A file with [`DISTINCT`] of them, a line each, of a thousand applications in turn.
    pub(crate) fn mint_many(&self, file: &Path) -> anyhow::Result<()> {
        let half = |from: usize| -> anyhow::Result<String> {
            let mut text = String::new();
            for n in from..from + DISTINCT / 2 {
                text += &self.mint(&format!("client-{}", n % 1000), n)?;
                text.push('\n');
            }
            Ok(text)
        };
        let (first, second) = thread::scope(|scope| {
            let second = scope.spawn(|| half(DISTINCT / 2));
            (half(0), second.join())
        });
        let second = second.map_err(|_| anyhow::anyhow!("minting tokens has panicked"))?;
        Ok(fs::write(file, first? + &second?)?)
    }
}

fn rsa() -> anyhow::Result<(EncodingKey, PublicKeyX509Der<'static>)> {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
    let private = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair)?;
    let key = EncodingKey::from_rsa_pem(armour("PRIVATE KEY", private.as_ref()).as_bytes())?;
    Ok((key, pair.public_key().as_der()?))
}

fn ec() -> anyhow::Result<(EncodingKey, PublicKeyX509Der<'static>)> {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let private = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())?;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref()).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok((EncodingKey::from_ec_der(private.as_ref()), pair.public_key().as_der()?))
}

fn ed() -> anyhow::Result<(EncodingKey, PublicKeyX509Der<'static>)> {
    let pair = Ed25519KeyPair::generate()?;
    let private = pair.to_pkcs8v1()?;
    Ok((EncodingKey::from_ed_der(private.as_ref()), pair.public_key().as_der()?))
}

/// RFC 7468.
fn armour(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Who issues them.
pub(crate) const ISSUER: &str = "https://idp.example.com";
const TOKEN_BYTES: usize = 700;
