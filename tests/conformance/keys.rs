//! A vector's keys as a user would configure them: public ones as a JWK set, symmetric ones as `secret_keys`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tollgate::token::{jws::Verifier, settings::Algorithm};

/// By a JWK or a set of them. A set that mixes both kinds is a provider's set, where symmetric keys do not count.
/// None: not one key of it is taken.
pub(crate) fn verifier(keys: &Value) -> Option<Verifier> {
    let members = keys["keys"].as_array().cloned().unwrap_or_else(|| vec![keys.clone()]);
    if members.iter().all(|key| key["kty"] == "oct") {
        return by_secrets(&members);
    }
    let set = json!({ "keys": members }).to_string();
    Verifier::of_set(set.as_bytes(), &Algorithm::ALL).ok()
}

/// `secret_keys` has no `use`, and says the algorithm always.
fn by_secrets(keys: &[Value]) -> Option<Verifier> {
    let secrets: Vec<_> = keys
        .iter()
        .map(|key| {
            let secret = URL_SAFE_NO_PAD.decode(key["k"].as_str()?).ok()?;
            Some((key["kid"].as_str(), Algorithm::of(key["alg"].as_str()?)?, secret))
        })
        .collect::<Option<_>>()?;
    let secrets: Vec<_> = secrets.iter().map(|(id, algorithm, secret)| (*id, *algorithm, secret.as_slice())).collect();
    Verifier::of_secrets(&secrets).ok()
}
