//! Wycheproof's primitives in the form JOSE has them: any message, the signature as in a token's third part.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tollgate::token::settings::Algorithm;

use crate::{deviations::PRIMITIVES, keys, read, tally::Tally, vectors};

#[test]
fn ecdsa_p256() {
    primitive("ecdsa_secp256r1_sha256_p1363_test.json", Algorithm::ES256);
}

#[test]
fn ecdsa_p384() {
    primitive("ecdsa_secp384r1_sha384_p1363_test.json", Algorithm::ES384);
}

#[test]
fn ecdsa_p521() {
    primitive("ecdsa_secp521r1_sha512_p1363_test.json", Algorithm::ES512);
}

#[test]
fn ed25519() {
    primitive("ed25519_test.json", Algorithm::EdDSA);
}

#[test]
fn rsa_pkcs1() {
    primitive("rsa_signature_2048_sha256_test.json", Algorithm::RS256);
}

#[test]
fn rsa_pss() {
    primitive("rsa_pss_2048_sha256_mgf1_32_test.json", Algorithm::PS256);
}

fn primitive(file: &'static str, algorithm: Algorithm) {
    let Some(folder) = vectors(file) else { return };
    let mut tally = Tally::of(file);
    for group in read(&folder.join("wycheproof").join(file))["testGroups"].as_array().unwrap() {
        let verifier = keys::verifier(&jwk(group));
        for test in group["tests"].as_array().unwrap() {
            let (message, signature) = (octets(&test["msg"]), octets(&test["sig"]));
            let good = |keys: &tollgate::token::jws::Verifier| keys.verify_detached(algorithm, &message, &signature);
            tally.note(&test["tcId"], test["result"].as_str().unwrap(), verifier.as_ref().is_some_and(good));
        }
    }
    let listed = PRIMITIVES.iter().find(|(name, _)| *name == file).map_or(&[][..], |(_, listed)| listed);
    tally.settle(listed);
}

/// The group's key; where it has none in this form, from the uncompressed point.
fn jwk(group: &Value) -> Value {
    if let Some(jwk) = group.get("publicKeyJwk").or_else(|| group.get("keyJwk")) {
        return jwk.clone();
    }
    let point = octets(&group["publicKey"]["uncompressed"]);
    let (x, y) = point[1..].split_at((point.len() - 1) / 2);
    let curve = match x.len() {
        32 => "P-256",
        48 => "P-384",
        _ => "P-521",
    };
    json!({ "kty": "EC", "crv": curve, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) })
}

fn octets(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().unwrap().as_bytes();
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
