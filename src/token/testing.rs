//! Keys, tokens and settings for tests.

use super::settings::KeyManagerSettings;

/// The least settings of a key manager.
pub(super) fn settings(issuer: &str) -> KeyManagerSettings {
    let text = format!(r#"{{"name":"idp","connector":"oidc","issuer":"{issuer}"}}"#);
    serde_json::from_str(&text).expect("the defaults are good")
}
