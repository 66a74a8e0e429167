//! `[shared]`: what several sidecars share, and where.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{net::redis::Redis, problem::Problem, secret::Secret, units::Span};

/// `[shared]`: what several sidecars share; without it one is alone.
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

impl SharedSettings {
    /// The default of `interval`.
    pub const INTERVAL: Span = Span::millis(100);

    /// Reads the secrets and the address, or names every mistake. Contacts nobody.
    pub(super) fn redis(&self) -> Result<Redis, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut read = |secret: &Secret, field: &str| {
            secret.read().map_err(|error| problems.push(Problem::new(field, error.to_string()))).ok()
        };
        let password = self.password.as_ref().map(|secret| read(secret, "shared.password"));
        let address = read(&self.redis, "shared.redis");
        if !is_prefix(&self.prefix) {
            problems.push(Problem::new("shared.prefix", "is up to 100 visible ASCII characters without braces"));
        }
        let Some(address) = address.filter(|_| problems.is_empty()) else { return Err(problems) };
        Redis::new(&address, self.username.clone(), password.flatten())
            .map_err(|problem| vec![Problem::new("shared.redis", problem)])
    }
}

/// Braces would choose the keys' place in a cluster.
fn is_prefix(text: &str) -> bool {
    text.len() <= 100 && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}'))
}

fn prefix() -> String {
    "tollgate:".into()
}

fn interval() -> Span {
    SharedSettings::INTERVAL
}
