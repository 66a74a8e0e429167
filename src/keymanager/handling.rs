//! Which tokens are a key manager's, by their form (facts: `canHandleToken`).
//!
//! As the doors choose: a JWT is its issuer's, where all of `token_match` match whole; a claim that is no text matches
//! nothing. An opaque token is that of the pattern it matches whole; without any pattern, of the only one that can be
//! asked.

use std::sync::Arc;

use regex_lite::Regex;
use serde_json::Value;

use super::{Managed, Operation, tokens::claims};
use crate::token::settings::{ConnectorKind, TokenForm, Validation};

/// Whether `token` looks like one of this key manager's.
pub(super) fn handles(managed: &Managed, all: &[Arc<Managed>], token: &str) -> bool {
    if let Some(pattern) = &managed.settings.token_pattern
        && matches_whole(pattern, token)
    {
        return true;
    }
    match (claims(token), token.split('.').count()) {
        (Some(claims), _) => {
            let text = |name: &str| claims.get(name).and_then(Value::as_str);
            text("iss") == Some(managed.settings.issuer.as_str())
                && managed
                    .settings
                    .token_match
                    .iter()
                    .all(|(claim, pattern)| text(claim).is_some_and(|text| matches_whole(pattern, text)))
        }
        // A JWT that is broken, or encrypted for someone.
        (None, 3 | 5) => false,
        (None, _) => is_only_one_asked(managed, all),
    }
}

fn is_only_one_asked(managed: &Managed, all: &[Arc<Managed>]) -> bool {
    is_asked(managed)
        && all.iter().all(|other| other.settings.token_pattern.is_none())
        && all.iter().filter(|other| is_asked(other)).count() == 1
}

/// Whether the doors ask its provider about opaque tokens. The embedded one is asked where it issues such tokens, or where
/// it is to be asked about each.
fn is_asked(managed: &Managed) -> bool {
    let settings = &managed.settings;
    let unverified = matches!(settings.validation, Validation::Auto | Validation::Introspect);
    let issues = settings.connector != ConnectorKind::Embedded
        || settings.tokens == TokenForm::Opaque
        || settings.token_pattern.is_some()
        || settings.validation == Validation::Introspect;
    unverified && issues && managed.connector.cannot(Operation::TokenMetaData).is_none()
}

fn matches_whole(pattern: &str, text: &str) -> bool {
    Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|pattern| pattern.is_match(text))
}
