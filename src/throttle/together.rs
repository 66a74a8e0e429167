//! Admitting with what all sidecars count: the shared counters first, then those of this process, which keep the
//! bursts. What one of them refuses counts at neither.

use std::{iter, sync::Arc};

use smallvec::SmallVec;

use super::{
    Admitted, Charge, Limiter, Throttled, USUAL, Usage,
    account::{self, Account},
    algorithm::{self, Moment},
    shared::{Demand, Refused, Shared, path::Passage},
    tightest::{Standing, Tightest},
    window,
};
use crate::{
    net::Now,
    store::{Algorithm, Quota, QuotaKind},
};

/// A request that is not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unable {
    /// A limit has no room.
    Throttled(Throttled),
    /// What all sidecars have counted cannot be had now, and without it nobody passes.
    Away,
}

/// What a request wants of limits that are shared, each with the charge it comes from.
type Wanted<'a> = (SmallVec<[Demand; USUAL]>, SmallVec<[(&'a Charge<'a>, &'a Quota); USUAL]>);

impl Limiter {
    /// A limiter with nothing counted; with `shared`, quotas count together with those of other sidecars.
    pub fn with_shared(shared: Option<Arc<Shared>>) -> Self {
        Self { shared, ..Self::new() }
    }

    /// The counters that are shared, if they are.
    pub const fn shared(&self) -> Option<&Arc<Shared>> {
        self.shared.as_ref()
    }

    /// As [`Limiter::admit`], at all sidecars where counters are shared. None: only Redis can say, so
    /// [`Limiter::ask_and_admit`] is to be awaited.
    pub fn try_admit(&self, charges: &[Charge<'_>], now: Now, want_usage: bool) -> Option<Result<Admitted, Unable>> {
        let Some(shared) = &self.shared else {
            return Some(self.admit(charges, now, want_usage).map_err(Unable::Throttled));
        };
        let (demands, origins) = wanted(charges, now);
        let passage = match shared.try_take(&demands, now.steady_ms)? {
            Ok(passage) => passage,
            Err(refused) => return Some(Err(unable(shared, refused, &demands, &origins, now))),
        };
        if passage == Passage::Uncounted {
            return Some(self.admit_uncounted(shared, charges, &demands, now));
        }
        let verdict = self.admit(charges, now, want_usage).map_err(|throttled| {
            shared.give_back_here(passage, &demands, now.steady_ms);
            Unable::Throttled(marked(shared, throttled, &demands))
        });
        Some(verdict.map(|admitted| completed(shared, admitted, &demands, &origins, now)))
    }

    /// As [`Limiter::try_admit`], and waits for Redis where it must, no longer than `shared.timeout`.
    pub async fn ask_and_admit(&self, charges: &[Charge<'_>], now: Now, want_usage: bool) -> Result<Admitted, Unable> {
        let Some(shared) = &self.shared else {
            return self.admit(charges, now, want_usage).map_err(Unable::Throttled);
        };
        // What has no room here need not be asked for.
        self.look(charges, now).map_err(Unable::Throttled)?;
        let (demands, origins) = wanted(charges, now);
        let passage = shared.ask(&demands, now.steady_ms).await;
        let passage = passage.map_err(|refused| unable(shared, refused, &demands, &origins, now))?;
        if passage == Passage::Uncounted {
            return self.admit_uncounted(shared, charges, &demands, now);
        }
        match self.admit(charges, now, want_usage) {
            Ok(admitted) => Ok(completed(shared, admitted, &demands, &origins, now)),
            Err(throttled) => {
                shared.give_back(passage, &demands, now.steady_ms).await;
                Err(Unable::Throttled(marked(shared, throttled, &demands)))
            }
        }
    }

    /// What no quota counts, since Redis is away, the bursts of this process still do.
    fn admit_uncounted(
        &self,
        shared: &Shared,
        charges: &[Charge<'_>],
        demands: &[Demand],
        now: Now,
    ) -> Result<Admitted, Unable> {
        self.admit_bursts(charges, now).map_err(|throttled| Unable::Throttled(marked(shared, throttled, demands)))
    }

    /// Whether there is room here, without taking any.
    fn look(&self, charges: &[Charge<'_>], now: Now) -> Result<(), Throttled> {
        let guard = self.counters.guard();
        charges.iter().try_for_each(|charge| Account::open(&self.counters, charge, now, &guard).look())
    }
}

/// What is counted together: all quotas.
fn wanted<'a>(charges: &'a [Charge<'a>], now: Now) -> Wanted<'a> {
    let (mut demands, mut origins) = (SmallVec::new(), SmallVec::new());
    for charge in charges {
        for quota in iter::once(&charge.tier.quota).chain(&charge.tier.limits.also) {
            let key = account::key(charge, quota.kind);
            demands.push(demand(key, quota, charge.tier.stop_on_quota_reach, now));
            origins.push((charge, quota));
        }
    }
    (demands, origins)
}

/// What is wanted of a quota: one request, or a look at what is counted afterwards.
pub(super) fn demand(key: u128, quota: &Quota, stop: bool, now: Now) -> Demand {
    let Quota { kind, limit, window, algorithm } = *quota;
    let amount = u64::from(kind == QuotaKind::Requests);
    // A bucket has no windows.
    let number = if algorithm == Algorithm::Gcra { 0 } else { window::number(window, now.steady_ms) };
    Demand { key, limit, window, number, algorithm, stop, amount }
}

/// What this process said, with what all sidecars have counted.
fn completed(
    shared: &Shared,
    mut admitted: Admitted,
    demands: &[Demand],
    origins: &[(&Charge<'_>, &Quota)],
    now: Now,
) -> Admitted {
    for demand in demands.iter().filter(|demand| !demand.stop) {
        admitted.over_quota |= shared.is_beyond(demand, now.steady_ms);
    }
    admitted.usage = admitted.usage.map(|here| {
        let told = there(shared, &here, demands, origins, now).unwrap_or(here);
        Usage { alone: shared.is_alone(demands), ..told }
    });
    admitted
}

/// The tightest quota by what all sidecars have counted; none: that which this process told.
fn there(
    shared: &Shared,
    here: &Usage,
    demands: &[Demand],
    origins: &[(&Charge<'_>, &Quota)],
    now: Now,
) -> Option<Usage> {
    let read = |n: usize| (shared.word(&demands[n]), Moment::of(origins[n].1, now));
    let reset_ms = |place: &Option<usize>| match *place {
        None => here.reset_s.saturating_mul(1_000),
        Some(n) => {
            let (word, at) = read(n);
            algorithm::reset_ms(origins[n].1, word, at)
        }
    };
    let left = |n: usize| {
        let (word, at) = read(n);
        origins[n].1.limit.saturating_sub(algorithm::counted(origins[n].1, word, at))
    };
    let mut tightest = Tightest::new(reset_ms);
    tightest.meet(Standing { kind: here.kind, limit: here.limit, remaining: here.remaining }, None);
    for (n, (_, quota)) in origins.iter().enumerate() {
        tightest.meet(Standing { kind: quota.kind, limit: quota.limit, remaining: left(n) }, Some(n));
    }
    let n = tightest.found()??;
    let ((charge, quota), (word, at)) = (origins[n], read(n));
    Some(usage(charge, quota, word, at, left(n), algorithm::reset_ms(quota, word, at)))
}

fn marked(shared: &Shared, mut throttled: Throttled, demands: &[Demand]) -> Throttled {
    throttled.usage.alone = shared.is_alone(demands);
    throttled
}

#[cold]
fn unable(
    shared: &Shared,
    refused: Refused,
    demands: &[Demand],
    origins: &[(&Charge<'_>, &Quota)],
    now: Now,
) -> Unable {
    let Refused::Full(at) = refused else { return Unable::Away };
    let (charge, quota) = origins[at];
    let (word, moment) = (shared.word(&demands[at]), Moment::of(quota, now));
    // Of a share that is not had here, no more is known than when the window ends.
    let wait_ms = match algorithm::wait_ms(quota, word, moment) {
        0 => algorithm::reset_ms(quota, word, moment),
        wait_ms => wait_ms,
    };
    let usage = usage(charge, quota, word, moment, 0, wait_ms);
    Unable::Throttled(marked(shared, Throttled { level: charge.level, burst: false, usage }, demands))
}

fn usage(charge: &Charge<'_>, quota: &Quota, word: u128, at: Moment, remaining: u64, reset_ms: u64) -> Usage {
    Usage {
        tier: charge.tier.name.clone(),
        kind: quota.kind,
        limit: quota.limit,
        window_s: algorithm::window_s(quota, word, at),
        remaining,
        reset_s: reset_ms.div_ceil(1_000).max(1),
        alone: false,
    }
}
