//! Throttling tiers: WSO2's built-in ones and the configured.

/// A tier with its limits. `counter` tells counters apart: tiers of the same name, limit and
/// window have the same, so that a reload keeps what was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Name, as in `RateLimit-Policy`.
    pub name: Box<str>,
    /// Requests a window.
    pub quota: Quota,
    /// A shorter limit against bursts.
    pub burst: Option<Burst>,
    /// Whether an exhausted quota refuses.
    pub stop_on_quota_reach: bool,
    /// Digest over everything that tells this counter from others: level, what is counted for
    /// (API, resource, application, subscription: names, length-prefixed), tier name, limit, window.
    pub counter: u128,
}

/// So many requests a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Limit, at least 1.
    pub limit: u32,
    /// Window.
    pub window: Window,
}

/// A window: a multiple of its length since the epoch, or a UTC calendar month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// So many seconds, at least 1.
    Seconds(u32),
    /// So many calendar months, counted from January 1970.
    Months(u32),
}

/// A limit against bursts, kept as GCRA: `requests` at once, refilled evenly over `per_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// How many, at least 1.
    pub requests: u32,
    /// In which time.
    pub per_ms: u64,
}
