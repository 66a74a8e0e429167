//! Any bytes as a provider's answer about an opaque token. Only one that says `"active": true` may let it pass.
#![no_main]

use std::sync::{
    PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tollgate::token::AnswerForm;
use tollgate_fuzz::{ANSWER, NOW, judge};

/// No token twice: what was said of one is remembered.
static SERIAL: AtomicU64 = AtomicU64::new(0);

libfuzzer_sys::fuzz_target!(|answer: &[u8]| {
    let (form, body) = match answer.strip_prefix(b"jwt:") {
        Some(body) => (AnswerForm::Jwt, body),
        None => (AnswerForm::Json, answer),
    };
    *ANSWER.lock().unwrap_or_else(PoisonError::into_inner) = (body.to_vec(), form);
    let token = format!("opaque-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
    let Some(identity) = judge(&token) else { return };
    assert!(identity.expires_at.saturating_add(30) > NOW.unix());
    assert_eq!(form, AnswerForm::Json, "nobody has signed it");
    let said: serde_json::Value = serde_json::from_slice(body).expect("what lets a token pass is JSON");
    assert_eq!(said["active"], true);
});
