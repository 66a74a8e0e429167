//! Reading counters: nothing is taken, and no counter is made. Of what is shared it is what all have counted, as far as
//! is known here.

use crate::{net::Now, store::Quota};

use super::{
    Charge, Limiter, Usage,
    account::key,
    algorithm::{self, Moment},
    together,
};

/// What a quota has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// So much of it is used; more than the limit where it does not stop.
    pub used: u64,
    /// The quota's state.
    pub usage: Usage,
}

impl Limiter {
    /// What a charge's quotas have counted: the tier's own, and its second if it has one.
    pub fn counted(&self, charge: &Charge<'_>, now: Now) -> Vec<Counted> {
        let guard = self.counters.guard();
        let quotas = [Some(&charge.tier.quota), charge.tier.also.as_ref()];
        let read = |quota: &Quota| {
            let key = key(charge, quota.kind);
            let (word, at) = (self.counters.word(key, &guard), Moment::of(quota, now));
            let here = algorithm::counted(quota, word, at);
            let demand = together::demand(key, quota, charge.tier.stop_on_quota_reach, now);
            // Of two that began at different times, what has counted more is nearer to the truth.
            let (word, used, alone) = self.shared().map_or((word, here, false), |shared| {
                let known = shared.word(&demand);
                let there = algorithm::counted(quota, known, at);
                let word = if there > here { known } else { word };
                (word, there.max(here), shared.is_alone(&[demand]))
            });
            let usage = Usage {
                tier: charge.tier.name.clone(),
                kind: quota.kind,
                limit: quota.limit,
                window_s: algorithm::window_s(quota, word, at),
                remaining: quota.limit.saturating_sub(used),
                reset_s: algorithm::reset_ms(quota, word, at).div_ceil(1_000).max(1),
                alone,
            };
            Counted { used, usage }
        };
        quotas.into_iter().flatten().map(read).collect()
    }
}
