//! What the configuration says of the embedded provider alone.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// A client of the embedded provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientSettings {
    /// Client id.
    pub id: String,
    /// Client secret.
    pub secret: Secret,
    /// Scopes it may ask for.
    #[serde(default)]
    pub scopes: Vec<String>,
}

/// A user of the embedded provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserSettings {
    /// User name, and `sub` of its tokens.
    pub name: String,
    /// Password.
    pub password: Secret,
    /// Further claims of its tokens.
    #[serde(default)]
    pub claims: BTreeMap<String, serde_json::Value>,
    /// Scopes its tokens may have, of those that the client may ask for.
    #[serde(default)]
    pub scopes: Vec<String>,
}

/// Who may register clients at the embedded provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Nobody.
    #[default]
    Off,
    /// Whoever brings `registration_token` as bearer.
    Token,
    /// Everybody.
    Open,
}

/// Form of the embedded provider's tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenForm {
    /// RFC 9068
    #[default]
    Jwt,
    /// Random text
    Opaque,
}
