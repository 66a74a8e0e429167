//! What an admitted request may yet owe: bytes, events and tokens, which are known only as they pass.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::{
    net::Now,
    store::{Limits, Quota, QuotaKind},
};

use super::{
    Level, Limiter,
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
#[derive(Debug, Clone, PartialEq, Eq)]
struct Due {
    level: Level,
    limits: Arc<Limits>,
    key: u128,
    quota: Quota,
}

impl Due {
    fn demand(&self, now: Now) -> Demand {
        together::demand(self.key, &self.quota, self.limits.stop_on_quota_reach, now)
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
            level: account.charge.level,
            limits: Arc::clone(&account.charge.tier.limits),
            key: account.key,
            quota: *account.quota,
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

    /// The first quota of `kind` that stops and has no more room, by its level and its tier's name: for streams, which are
    /// admitted once and go on.
    pub fn spent<'b>(&self, bill: &'b Bill, kind: QuotaKind, now: Now) -> Option<(Level, &'b str)> {
        let guard = self.counters.guard();
        let mut stopping = bill.due.iter().filter(|due| due.limits.stop_on_quota_reach && due.quota.kind == kind);
        let spent = stopping.find(|due| {
            let (_, word) = self.counters.cell(due.key, &due.quota, &guard);
            let has_room = algorithm::has_room(&due.quota, word, Moment::of(&due.quota, now));
            !has_room || self.shared().is_some_and(|shared| shared.left(&due.demand(now), now.steady_ms) == 0)
        })?;
        Some((spent.level, &spent.limits.name))
    }
}
