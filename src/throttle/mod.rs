//! Counting: whether there is room left in a tier.
//!
//! Fixed windows for quotas, GCRA for bursts, all on the steady clock: a step of the wall clock never re-opens a
//! closed window. Knows nothing of requests, tokens or answers.

mod local;
pub mod shared;
#[cfg(test)]
mod tests;
mod window;

use papaya::Guard;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    net::Now,
    store::{Burst, Tier},
    units::Span,
};

use local::{Cell, Counters, Taken};

/// `[throttle]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ThrottleSettings")]
pub struct Settings {
    /// RateLimit fields on accepted answers too.
    pub headers: bool,
    /// How many distinct opaque tokens that prove bad a client address may bring; beyond it its new ones are
    /// refused unasked.
    pub failures: Failures,
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

/// Counts against tiers, in this process.
#[derive(Debug)]
pub struct Limiter {
    counters: Counters,
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
        Self { counters: Counters::default() }
    }

    /// Takes one request from every limit, or from none: refused at one level, it counts at none.
    /// A tier with `stop_on_quota_reach = false` never refuses and counts on.
    /// With `want_usage` the tightest quota's state is told (least remaining share).
    ///
    /// Neither locks nor allocates once the counters are there.
    pub fn admit(&self, charges: &[Charge<'_>], now: Now, want_usage: bool) -> Result<Option<Usage>, Throttled> {
        let guard = self.counters.guard();
        let (mut inline, mut more) = ([None; USUAL_CHARGES], Vec::new());
        let open = match inline.get_mut(..charges.len()) {
            Some(open) => open,
            None => {
                more.resize(charges.len(), None);
                &mut more[..]
            }
        };
        for (charge, open) in charges.iter().zip(&mut *open) {
            let account = Account::open(&self.counters, charge, now, &guard);
            account.look(charge, now)?;
            *open = Some(account);
        }
        let mut tightest = None;
        for n in 0..charges.len() {
            let charge = &charges[n];
            let account = open[n].get_or_insert_with(|| Account::open(&self.counters, charge, now, &guard));
            match account.take(&self.counters, charge, now, &guard) {
                Ok(count) if want_usage => tightest = tighter(tightest, Standing::new(charge, account, count)),
                Ok(_) => {}
                Err(throttled) => {
                    // Somebody took the last one since we looked.
                    for (charge, account) in charges.iter().zip(open.iter().take(n).flatten()) {
                        account.give_back(charge);
                    }
                    return Err(throttled);
                }
            }
        }
        Ok(tightest.map(|standing| standing.usage(now)))
    }

    /// Forgets counters whose window has ended; called now and then by `app`. Looks at a part of them at a
    /// time, in turn.
    pub fn sweep(&self, now: Now) {
        self.counters.sweep(now.steady_ms);
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

/// One charge's cell, and what this request has taken from it.
#[derive(Clone, Copy)]
struct Account<'g> {
    cell: &'g Cell,
    /// The window of now; once taken, the window it was taken in.
    window: u32,
    burst_taken: bool,
}

impl<'g> Account<'g> {
    fn open(counters: &Counters, charge: &Charge<'_>, now: Now, guard: &'g impl Guard) -> Self {
        let quota = charge.tier.quota;
        let cell = counters.cell(key(charge), quota, guard);
        Self { cell, window: window::number(quota.window, now.steady_ms), burst_taken: false }
    }

    /// Whether there is room, without taking any.
    fn look(&self, charge: &Charge<'_>, now: Now) -> Result<(), Throttled> {
        let tier = charge.tier;
        if !tier.stop_on_quota_reach {
            return Ok(());
        }
        self.cell.has_quota(tier.quota, self.window).map_err(|window| quota_reached(charge, window, now))?;
        match tier.burst {
            Some(burst) => self.cell.has_burst(burst, now.steady_ms).map_err(|wait| burst_reached(charge, burst, wait)),
            None => Ok(()),
        }
    }

    /// Takes one request; on refusal nothing is taken. Tells how many the window has counted.
    fn take(
        &mut self,
        counters: &Counters,
        charge: &Charge<'_>,
        now: Now,
        guard: &'g impl Guard,
    ) -> Result<u32, Throttled> {
        let tier = charge.tier;
        let stop = tier.stop_on_quota_reach;
        let count = loop {
            match self.cell.take_quota(tier.quota, self.window, stop) {
                Taken::Yes { window, count } => {
                    self.window = window;
                    break count;
                }
                Taken::Full { window } => return Err(quota_reached(charge, window, now)),
                Taken::Swept => self.cell = counters.cell(key(charge), tier.quota, guard),
            }
        };
        let Some(burst) = tier.burst else { return Ok(count) };
        match self.cell.take_burst(burst, now.steady_ms, stop) {
            Ok(taken) => {
                self.burst_taken = taken;
                Ok(count)
            }
            Err(wait) => {
                self.cell.give_back_quota(self.window);
                Err(burst_reached(charge, burst, wait))
            }
        }
    }

    fn give_back(&self, charge: &Charge<'_>) {
        self.cell.give_back_quota(self.window);
        if let Some(burst) = charge.tier.burst.filter(|_| self.burst_taken) {
            self.cell.give_back_burst(burst);
        }
    }
}

/// The counter's key. Multiplied and turned, so that no two pairs of small numbers meet.
fn key(charge: &Charge<'_>) -> u128 {
    u128::from_ne_bytes(charge.tier.counter).wrapping_add(charge.user.wrapping_mul(SPREAD).rotate_left(64))
}

/// Where a quota stands after this request.
struct Standing<'a> {
    tier: &'a Tier,
    window: u32,
    remaining: u32,
}

impl<'a> Standing<'a> {
    fn new(charge: &Charge<'a>, account: &Account<'_>, count: u32) -> Self {
        Self { tier: charge.tier, window: account.window, remaining: charge.tier.quota.limit.saturating_sub(count) }
    }

    fn usage(&self, now: Now) -> Usage {
        let quota = self.tier.quota;
        let left_ms = window::end_ms(quota.window, self.window).saturating_sub(now.steady_ms);
        Usage {
            tier: self.tier.name.clone(),
            limit: quota.limit,
            window_s: window::length_s(quota.window, self.window),
            remaining: self.remaining,
            reset_s: left_ms.div_ceil(1_000).max(1),
        }
    }
}

/// The one with the smaller remaining share; the earlier, if they are alike.
fn tighter<'a>(first: Option<Standing<'a>>, second: Standing<'a>) -> Option<Standing<'a>> {
    let share = |of: &Standing<'_>, other: &Standing<'_>| u64::from(of.remaining) * u64::from(other.tier.quota.limit);
    match first {
        Some(first) if share(&first, &second) <= share(&second, &first) => Some(first),
        _ => Some(second),
    }
}

#[cold]
fn quota_reached(charge: &Charge<'_>, window: u32, now: Now) -> Throttled {
    let usage = Standing { tier: charge.tier, window, remaining: 0 }.usage(now);
    Throttled { level: charge.level, burst: false, usage }
}

#[cold]
fn burst_reached(charge: &Charge<'_>, burst: Burst, wait_ns: u64) -> Throttled {
    let usage = Usage {
        tier: charge.tier.name.clone(),
        limit: burst.requests,
        window_s: burst.per_ms.div_ceil(1_000).max(1),
        remaining: 0,
        reset_s: wait_ns.div_ceil(1_000_000_000).max(1),
    };
    Throttled { level: charge.level, burst: true, usage }
}

/// More than the levels of the design.
const USUAL_CHARGES: usize = 6;
/// Odd, so that multiplying loses nothing (the golden ratio's fraction).
const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
