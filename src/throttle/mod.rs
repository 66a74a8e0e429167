//! Counting: whether there is room left in a tier.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{net::Now, store::Tier, units::Span};

/// `[throttle]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ThrottleSettings")]
pub struct Settings {
    /// RateLimit fields on accepted answers too.
    pub headers: bool,
    /// How many distinct refused opaque tokens a client address may bring.
    pub failures: Failures,
}

/// `[throttle] failures`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Failures {
    /// How many.
    pub requests: u64,
    /// In which time.
    pub per: Span,
}

impl Default for Failures {
    fn default() -> Self {
        Self { requests: 100, per: Span::seconds(60) }
    }
}

/// Counts against tiers, in this process.
#[derive(Debug)]
pub struct Limiter {}

/// One limit that a request meets, in the order of the design.
#[derive(Debug, Clone, Copy)]
pub struct Charge<'a> {
    /// Which level it is, for the code of the refusal.
    pub level: Level,
    /// Its limits.
    pub tier: &'a Tier,
    /// Part of the counter's identity besides `tier.counter`: the user for application tiers, else 0.
    pub user: u128,
}

/// Where a limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// API-level tier: 900800.
    Api,
    /// Resource-level tier: 900802.
    Resource,
    /// Subscription: quota 900804, burst 900807.
    Subscription,
    /// Application: quota 900803, burst 900809.
    Application,
}

/// A request that found no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttled {
    /// Where.
    pub level: Level,
    /// Whether the burst limit refused, not the quota.
    pub burst: bool,
    /// The state of that limit.
    pub usage: Usage,
}

/// The state of a limit, for `RateLimit` fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The tier's name.
    pub tier: Box<str>,
    /// Its limit.
    pub limit: u32,
    /// Length of its window in seconds.
    pub window_s: u64,
    /// What is left.
    pub remaining: u32,
    /// Seconds until the window ends (burst: until there is room), at least 1.
    pub reset_s: u64,
}

impl Limiter {
    /// A limiter with nothing counted.
    pub fn new() -> Self {
        Self {}
    }

    /// Takes one request from every limit, or from none: refused at one level, it counts at none.
    /// A tier with `stop_on_quota_reach = false` never refuses and counts on.
    /// With `want_usage` the tightest limit's state is told (least remaining share).
    pub fn admit(&self, charges: &[Charge<'_>], now: Now, want_usage: bool) -> Result<Option<Usage>, Throttled> {
        let _ = (charges, now, want_usage);
        unimplemented!()
    }

    /// Forgets counters whose window has ended; called now and then by `app`.
    pub fn sweep(&self, now: Now) {
        let _ = now;
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}
