//! Wycheproof's JOSE files: compact tokens with their keys.

use serde_json::Value;
use tollgate::token::settings::Algorithm;

use crate::{
    aloud,
    deviations::{CRYPTO, Deviation, JWK, JWS, SAME_AS_357},
    keys, read,
    tally::Tally,
    vectors,
};

#[test]
fn json_web_signature() {
    signatures("json_web_signature_test.json", JWS);
}

#[test]
fn json_web_key() {
    signatures("json_web_key_test.json", JWK);
}

#[test]
fn json_web_crypto() {
    signatures("json_web_crypto_test.json", CRYPTO);
}

#[test]
fn what_is_taken_against_the_file_is_a_valid_token_of_it() {
    let file = "json_web_signature_test.json";
    let Some(folder) = vectors(file) else { return };
    let all = read(&folder.join("wycheproof").join(file));
    let tests: Vec<&Value> =
        all["testGroups"].as_array().unwrap().iter().flat_map(|group| group["tests"].as_array().unwrap()).collect();
    let token = |id: &str| &tests.iter().find(|test| test["tcId"].to_string() == id).unwrap()["jws"];
    for id in SAME_AS_357 {
        assert_eq!(token(id), token("357"));
    }
}

/// What is encrypted is no JWS, whatever is inside.
#[test]
fn json_web_encryption_without_decryption_keys() {
    let file = "json_web_encryption_test.json";
    let Some(folder) = vectors(file) else { return };
    let mut count = 0;
    for group in read(&folder.join("wycheproof").join(file))["testGroups"].as_array().unwrap() {
        let verifier = keys::verifier(&group["private"]);
        let any = tollgate::token::jws::Verifier::of_secrets(&[(None, Algorithm::HS256, &[7; 32])]).unwrap();
        for test in group["tests"].as_array().unwrap() {
            let token = test["jwe"].as_str().unwrap();
            for keys in [Some(&any), verifier.as_ref()].into_iter().flatten() {
                assert!(keys.verify(token).is_err(), "tcId {}", test["tcId"]);
            }
            count += 1;
        }
    }
    aloud(&format!("{file}: {count} vectors, none taken while no decryption key is configured"));
}

/// Signatures; what is encrypted is judged elsewhere.
fn signatures(file: &'static str, listed: &[Deviation]) {
    let Some(folder) = vectors(file) else { return };
    let mut tally = Tally::of(file);
    for group in read(&folder.join("wycheproof").join(file))["testGroups"].as_array().unwrap() {
        let verifier = keys::verifier(group.get("public").unwrap_or(&group["private"]));
        for test in group["tests"].as_array().unwrap() {
            let Some(token) = test["jws"].as_str() else { continue };
            let accepted = verifier.as_ref().is_some_and(|keys| keys.verify(token).is_ok());
            tally.note(&test["tcId"], test["result"].as_str().unwrap(), accepted);
        }
    }
    tally.settle(listed);
}
