//! Any bytes as the claims of a token whose signature is good. What passes passes elsewhere too, and can do no harm in
//! a header.
#![no_main]

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use tollgate_fuzz::{NOW, SECRET, judge, sign};

libfuzzer_sys::fuzz_target!(|payload: &[u8]| {
    let token = sign(payload);
    let Some(identity) = judge(&token) else { return };
    assert_eq!(&*identity.common.issuer, "https://idp.example.com");
    assert!(identity.expires_at.saturating_add(30) > NOW.unix());
    assert!(identity.common.audience.iter().any(|audience| **audience == *"orders-api"));
    let common = &identity.common;
    let values = [&identity.subject_value, &common.consumer_key_value, &common.scopes_value];
    for value in values.into_iter().chain(&identity.claims).flatten() {
        assert!(value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)), "{value:?}");
    }
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&["orders-api"]);
    validation.set_issuer(&["https://idp.example.com"]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    // Its clock is the machine's; ours stands still. Everything but the times is compared.
    validation.validate_exp = false;
    let other = decode::<serde_json::Value>(&token, &DecodingKey::from_secret(SECRET), &validation);
    let other = other.expect("another library accepts what we accept").claims;
    assert_eq!(other["sub"].as_str(), identity.subject.as_deref());
    assert_eq!(other["jti"].as_str(), identity.jti.as_deref());
});
