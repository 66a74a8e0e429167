//! Sections of the contract whose parts are not built yet: known, listed by `schema`, and refused
//! when present, so that no file is silently obeyed in half.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    net::{Address, TlsSettings},
    secret::Secret,
    units::Span,
};

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

/// `[shared]`: what several sidecars share; without it one counts alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedSettings {
    /// `redis://`, `rediss://`, `redis-sentinel://` or `redis-cluster://`. A secret, since it may hold a password.
    pub redis: Secret,
    /// User there.
    pub username: Option<String>,
    /// Password there.
    pub password: Option<Secret>,
    /// Begins every key there.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// How counters are shared.
    #[serde(default)]
    pub mode: SharedMode,
    /// How often counts are exchanged in mode `batched`.
    #[serde(default = "interval")]
    pub interval: Span,
    /// What happens to requests while Redis is away.
    #[serde(default)]
    pub on_outage: OutageRule,
}

/// How counters are shared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SharedMode {
    /// The path never waits; counts are exchanged now and then.
    #[default]
    Batched,
    /// Parts of a limit are taken in advance: never above the limit.
    Lease,
    /// Every request asks.
    Strict,
}

/// What happens to requests while Redis is away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutageRule {
    /// Each counts alone.
    #[default]
    Local,
    /// Refused.
    Deny,
    /// Passed uncounted.
    Allow,
}

fn prefix() -> String {
    "tollgate:".into()
}

fn interval() -> Span {
    Span::millis(100)
}
