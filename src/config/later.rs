//! Sections of the contract whose parts are not built yet: known, listed by `schema`, and refused
//! when present, so that no file is silently obeyed in half.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::net::Address;

/// `[decision]`: doors that answer another gateway's question with the verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DecisionSettings {
    /// Where it answers over HTTP: nginx `auth_request`, forward-auth, Envoy ext_authz HTTP, HAProxy.
    pub http: Option<Address>,
    /// Where it answers over gRPC: Envoy ext_authz v3.
    pub grpc: Option<Address>,
}
