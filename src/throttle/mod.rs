//! Counting: whether there is room left in a tier.
//!
//! Fixed or sliding windows or GCRA for quotas (`algorithm` says how exact each is), GCRA for bursts, all on the steady
//! clock: a step of the wall clock never re-opens a closed window. Requests are counted as they are admitted; bytes,
//! events and tokens afterwards, as they pass ([`Bill`]), and such a quota refuses once what is counted has reached its
//! limit. Knows nothing of requests, tokens or answers.

mod account;
mod algorithm;
mod bill;
mod local;
#[cfg(test)]
mod model_tests;
mod parted;
pub mod shared;
#[cfg(test)]
mod tests;
mod tightest;
mod together;
mod usage;
mod window;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;

pub use bill::Bill;
pub use together::Unable;
pub use usage::Counted;

use crate::{
    net::Now,
    store::{QuotaKind, RuleSettings, Tier},
    units::Span,
};

use account::Account;
use local::Counters;
use shared::Shared;
use tightest::Tightest;

/// `[throttle]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ThrottleSettings")]
pub struct Settings {
    /// RateLimit fields on accepted answers too.
    pub headers: bool,
    /// The older `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds) beside every RateLimit field.
    pub x_ratelimit: bool,
    /// How many distinct opaque tokens that prove bad a client address may bring; beyond it its new ones are
    /// refused unasked.
    pub failures: Failures,
    /// Limits by keys that requests make, for all APIs together.
    pub rules: Vec<RuleSettings>,
}

/// `[throttle] failures`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Failures {
    /// How many; 0: any number.
    pub requests: u64,
    /// In which time.
    pub per: Span,
}

impl Default for Failures {
    fn default() -> Self {
        Self { requests: 100, per: Span::seconds(60) }
    }
}

/// Counts against tiers, in this process and, where counters are shared, with all others.
#[derive(Debug)]
pub struct Limiter {
    counters: Counters,
    shared: Option<Arc<Shared>>,
}

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
    /// Custom rule: 900806.
    Custom,
    /// What an API's upstreams get: 900801, and 503.
    Backend,
}

impl Level {
    /// All of them, in the order they are met.
    pub const ALL: [Self; 6] =
        [Self::Api, Self::Resource, Self::Subscription, Self::Application, Self::Custom, Self::Backend];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Resource => "resource",
            Self::Subscription => "subscription",
            Self::Application => "application",
            Self::Custom => "custom",
            Self::Backend => "backend",
        }
    }
}

/// A request that found room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Where it is asked for: the state of the quota that ends first (`tightest`).
    pub usage: Option<Usage>,
    /// A limit with `stop_on_quota_reach = false` is beyond its quota or its burst: the request passes, marked.
    pub over_quota: bool,
    /// Only where some quota that it met counts bytes, events or tokens: what they are to be recorded with.
    pub bill: Option<Box<Bill>>,
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
    /// What it counts.
    pub kind: QuotaKind,
    /// Its limit.
    pub limit: u64,
    /// Length of its window in seconds.
    pub window_s: u64,
    /// What is left.
    pub remaining: u64,
    /// Seconds until the window ends or the bucket is empty, or of what refuses, until there is room; at least 1.
    pub reset_s: u64,
    /// Counters are shared, and this one counts alone, since Redis is away.
    pub alone: bool,
}

impl Limiter {
    /// A limiter with nothing counted.
    pub fn new() -> Self {
        Self { counters: Counters::default(), shared: None }
    }

    /// Takes one request from every limit, or from none: refused at one level, it counts at none.
    /// A tier with `stop_on_quota_reach = false` never refuses and counts on; the limits after it are met all the same
    /// (WSO2 skips them, and so lets those pass anything who are beyond their quota).
    ///
    /// Neither locks nor allocates once the counters are there, unless a quota counts bytes, events or tokens.
    pub fn admit(&self, charges: &[Charge<'_>], now: Now, want_usage: bool) -> Result<Admitted, Throttled> {
        let guard = self.counters.guard();
        let mut accounts = SmallVec::<[Account<'_, '_>; USUAL]>::new();
        for charge in charges {
            let account = Account::open(&self.counters, charge, now, &guard);
            account.look()?;
            accounts.push(account);
            if let Some(quota) = &charge.tier.also {
                let account = Account::open_also(&self.counters, charge, quota, now, &guard);
                account.look()?;
                accounts.push(account);
            }
        }
        let mut over_quota = false;
        for n in 0..accounts.len() {
            if let Err(throttled) = accounts[n].take(&self.counters, &guard) {
                // Somebody took the last one since we looked.
                accounts[..n].iter().for_each(Account::give_back);
                return Err(throttled);
            }
            over_quota |= accounts[n].beyond;
        }
        let usage = if want_usage { told(&accounts) } else { None };
        Ok(Admitted { usage, over_quota, bill: Bill::of(&accounts) })
    }

    /// Takes one request from every burst limit, or from none, and leaves the quotas alone.
    fn admit_bursts(&self, charges: &[Charge<'_>], now: Now) -> Result<Admitted, Throttled> {
        let guard = self.counters.guard();
        let mut accounts = SmallVec::<[Account<'_, '_>; USUAL]>::new();
        let mut over_quota = false;
        for charge in charges.iter().filter(|charge| charge.tier.burst.is_some()) {
            let mut account = Account::open(&self.counters, charge, now, &guard);
            if let Err(throttled) = account.take_burst() {
                accounts.iter().for_each(Account::give_back);
                return Err(throttled);
            }
            over_quota |= account.beyond;
            accounts.push(account);
        }
        Ok(Admitted { over_quota, ..Admitted::default() })
    }

    /// Forgets counters whose window has ended; called now and then by `app`. Looks at a part of them at a
    /// time, in turn.
    pub fn sweep(&self, now: Now) {
        self.counters.sweep(now.steady_ms);
        if let Some(shared) = &self.shared {
            shared.sweep(now.steady_ms);
        }
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

/// The state of the quota that is told.
fn told(accounts: &[Account<'_, '_>]) -> Option<Usage> {
    let mut tightest = Tightest::new(|account: &&Account<'_, '_>| account.reset_ms());
    for account in accounts {
        tightest.meet(account.standing(), account);
    }
    tightest.found().map(Account::usage)
}

/// More than the quotas that a request usually meets.
const USUAL: usize = 8;
