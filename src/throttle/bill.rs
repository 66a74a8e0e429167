//! What an admitted request may yet owe: bytes, events and tokens, which are known only as they pass.

use smallvec::SmallVec;

use crate::{
    net::Now,
    store::{Quota, QuotaKind},
};

use super::{
    Limiter,
    account::Account,
    algorithm::{self, Moment},
    shared::Demand,
    together,
};

/// The quotas of bytes, events and tokens that an admitted request has met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    due: SmallVec<[Due; 2]>,
}

/// One of them, by its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    key: u128,
    quota: Quota,
    stops: bool,
}

impl Due {
    fn demand(&self, now: Now) -> Demand {
        together::demand(self.key, &self.quota, self.stops, now)
    }
}

impl Bill {
    /// None where no quota counts what is known only afterwards.
    pub(super) fn of(accounts: &[Account<'_, '_>]) -> Option<Box<Self>> {
        if accounts.iter().all(|account| account.quota.kind == QuotaKind::Requests) {
            return None;
        }
        let due = accounts.iter().filter(|account| account.quota.kind != QuotaKind::Requests);
        let due = due.map(|account| Due {
            key: account.key,
            quota: *account.quota,
            stops: account.charge.tier.stop_on_quota_reach,
        });
        Some(Box::new(Self { due: due.collect() }))
    }

    /// Whether anything of this kind is counted.
    pub fn counts(&self, kind: QuotaKind) -> bool {
        self.due.iter().any(|due| due.quota.kind == kind)
    }
}

impl Limiter {
    /// Counts what became known of an admitted request: so much of `kind`, at every quota of its that counts it,
    /// whether there is room or not.
    pub fn record(&self, bill: &Bill, kind: QuotaKind, amount: u64, now: Now) {
        let guard = self.counters.guard();
        for due in bill.due.iter().filter(|due| due.quota.kind == kind && amount > 0) {
            let at = Moment::of(&due.quota, now);
            // Swept between the look-up and the addition: once more, on a new one.
            while self.counters.cell(due.key, &due.quota, &guard).0.add(&due.quota, amount, at).is_none() {}
            if let Some(shared) = self.shared() {
                shared.record(&Demand { amount, ..due.demand(now) }, now.steady_ms);
            }
        }
    }

    /// Whether every quota of `kind` that stops has room still: for streams, which are admitted once and go on.
    pub fn has_room(&self, bill: &Bill, kind: QuotaKind, now: Now) -> bool {
        let guard = self.counters.guard();
        bill.due.iter().filter(|due| due.stops && due.quota.kind == kind).all(|due| {
            let (_, word) = self.counters.cell(due.key, &due.quota, &guard);
            let has_room = algorithm::has_room(&due.quota, word, Moment::of(&due.quota, now));
            has_room && self.shared().is_none_or(|shared| shared.left(&due.demand(now), now.steady_ms) > 0)
        })
    }
}
