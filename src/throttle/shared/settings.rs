//! How counters are shared: the mode, and what happens while Redis is away.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Passed uncounted; bursts hold.
    Allow,
}

/// What a reload may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How counters are shared.
    pub mode: SharedMode,
    /// Time between two exchanges.
    pub interval: Duration,
    /// Longest time that a request waits for Redis (lease and strict).
    pub timeout: Duration,
    /// What happens while Redis is away.
    pub on_outage: OutageRule,
}
