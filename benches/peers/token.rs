//! A key pair, its public half in both forms the peers read, and a token of about 700 bytes.

use std::{fs, path::Path};

use anyhow::Context;
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use serde_json::{Value, json};

/// The consumer key that the token carries.
pub(crate) const CONSUMER_KEY: &str = "client-500";

/// A token, and where its key stands.
#[derive(Debug)]
pub(crate) struct Signed {
    /// Name of the algorithm.
    pub(crate) algorithm: &'static str,
    pub(crate) token: String,
    /// File with the public key as PEM.
    pub(crate) pem: String,
    /// File with the public key as a JWK set.
    pub(crate) jwks: String,
}

/// Signed by a new key, whose public half is written to `dir`.
pub(crate) fn sign(algorithm: Algorithm, dir: &Path) -> anyhow::Result<Signed> {
    let name = if algorithm == Algorithm::RS256 { "RS256" } else { "ES256" };
    let (key, public) = if algorithm == Algorithm::RS256 { rsa()? } else { ec()? };
    let pem = dir.join(format!("{name}.pem"));
    fs::write(&pem, armour("PUBLIC KEY", public.as_ref()))?;
    let mut jwk = Jwk::from_encoding_key(&key, algorithm)?;
    jwk.common.key_id = Some(name.into());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    let jwks = dir.join(format!("{name}.jwks.json"));
    fs::write(&jwks, serde_json::to_vec(&JwkSet { keys: vec![jwk] })?)?;
    let token = mint(algorithm, name, &key)?;
    Ok(Signed { algorithm: name, token, pem: text(&pem)?, jwks: text(&jwks)? })
}

/// A claim nobody asks for fills it up, since signatures differ in length.
fn mint(algorithm: Algorithm, kid: &str, key: &EncodingKey) -> anyhow::Result<String> {
    let header = Header { kid: Some(kid.into()), typ: Some("at+jwt".into()), ..Header::new(algorithm) };
    let claims = |filler: usize| -> Value {
        json!({
            "iss": "https://idp.example.com", "sub": "5f0c1a52-7f3e-4b6e-9a70-2a1b3c4d5e6f", "aud": "peers",
            "client_id": CONSUMER_KEY, "scope": "openid items:read", "jti": "b7c1d2e3f4a5",
            "iat": 1_700_000_000, "exp": 4_102_444_800_u64, "filler": "x".repeat(filler),
        })
    };
    let least = jsonwebtoken::encode(&header, &claims(0), key)?.len();
    let filler = TOKEN_BYTES.saturating_sub(least) * 3 / 4;
    Ok(jsonwebtoken::encode(&header, &claims(filler), key)?)
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

/// RFC 7468.
fn armour(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).context("the temporary folder's path is not UTF-8")
}

const TOKEN_BYTES: usize = 700;
