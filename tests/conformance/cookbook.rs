//! The JOSE cookbook (RFC 7520, RFC 7797, RFC 8037): signatures in compact form, and in the JSON forms, which are
//! never taken.

use std::fs;

use serde_json::Value;

use crate::{deviations::COOKBOOK, keys, read, tally::Tally, vectors};

/// Examples whose compact form is no JWT's: detached content (RFC 7515 appendix F) and unencoded content (RFC 7797).
const NO_JWT: [&str; 2] = ["jws_4_5.signature_with_detached_content.json", "rfc7797_hmac-sha2_b64_false.json"];

#[test]
fn cookbook() {
    let Some(folder) = vectors("the JOSE cookbook") else { return };
    let mut tally = Tally::of("jose-cookbook");
    let mut files: Vec<_> =
        fs::read_dir(folder.join("jose-cookbook")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files {
        let (name, example) = (path.file_name().unwrap().to_string_lossy().into_owned(), read(&path));
        let Some(signing) = example.get("signing") else { continue };
        assert!(signing.is_object() || signing.is_array(), "{name}");
        let input = &example["input"];
        let secret = input["key"]["kty"] == "oct";
        let mut key = input["key"].clone();
        if secret && key.get("alg").is_none() {
            key["alg"] = input["alg"].clone();
        }
        let verifier = keys::verifier(&key);
        let verify = |token: &str| verifier.as_ref().and_then(|keys| keys.verify(token).ok());
        if let Some(compact) = example["output"]["compact"].as_str() {
            let payload = verify(compact);
            if let Some(payload) = &payload {
                assert_eq!(payload, input["payload"].as_str().unwrap().as_bytes(), "{name}");
            }
            let expected = if NO_JWT.contains(&name.as_str()) { "invalid" } else { "valid" };
            tally.note(&name, expected, payload.is_some());
        }
        for form in ["json", "json_flat"] {
            if let Some(value @ Value::Object(_)) = example["output"].get(form) {
                tally.note(format!("{name} {form}"), "invalid", verify(&value.to_string()).is_some());
            }
        }
    }
    tally.settle(COOKBOOK);
}
