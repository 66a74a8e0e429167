//! Sections of the contract whose parts are not built yet: known, listed by `schema`, and refused
//! when present, so that no file is silently obeyed in half.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::net::{Address, TlsSettings};

/// `[decision]`: doors that answer another gateway's question with the verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DecisionSettings {
    /// Where it answers over HTTP: nginx `auth_request`, forward-auth, Envoy ext_authz HTTP, HAProxy.
    pub http: Option<Address>,
    /// Where it answers over gRPC: Envoy ext_authz v3.
    pub grpc: Option<Address>,
}

/// `[management]`: the management API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManagementSettings {
    /// Where it listens.
    pub listen: Address,
    /// Serve TLS; with `client_ca`, client certificates may call.
    pub tls: Option<TlsSettings>,
    /// Key managers whose bearer tokens may call.
    #[serde(default)]
    pub key_managers: Vec<String>,
    /// File of the key that may call from loopback and Unix sockets; made at first start, beside the store by default.
    pub bootstrap_key_file: Option<PathBuf>,
}
