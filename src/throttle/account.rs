//! One quota of one charge while a request is admitted: looked at, taken from, and perhaps given back.

use papaya::Guard;

use crate::{
    net::Now,
    store::{Burst, Quota, QuotaKind},
};

use super::{
    Charge, Throttled, Usage,
    algorithm::{self, Moment},
    local::{Cell, Counters, Taken},
    tightest::Standing,
};

/// A quota's cell, and what this request has taken from it.
pub(super) struct Account<'a, 'g> {
    pub(super) charge: &'a Charge<'a>,
    pub(super) quota: &'a Quota,
    burst: Option<&'a Burst>,
    pub(super) key: u128,
    cell: &'g Cell,
    at: Moment,
    /// What the quota had counted when it was last read.
    word: u128,
    taken: bool,
    burst_taken: bool,
    /// A limit that never stops had no room.
    pub(super) beyond: bool,
}

impl<'a, 'g> Account<'a, 'g> {
    /// The tier's quota and burst.
    pub(super) fn open(counters: &Counters, charge: &'a Charge<'a>, now: Now, guard: &'g impl Guard) -> Self {
        let limits = &*charge.tier.limits;
        Self::of(charge, &limits.quota, limits.burst.as_ref(), counters, now, guard)
    }

    /// The tier's second quota, on a counter of its own.
    pub(super) fn open_also(
        counters: &Counters,
        charge: &'a Charge<'a>,
        quota: &'a Quota,
        now: Now,
        guard: &'g impl Guard,
    ) -> Self {
        Self::of(charge, quota, None, counters, now, guard)
    }

    fn of(
        charge: &'a Charge<'a>,
        quota: &'a Quota,
        burst: Option<&'a Burst>,
        counters: &Counters,
        now: Now,
        guard: &'g impl Guard,
    ) -> Self {
        let key = key(charge, quota.kind);
        let (cell, word) = counters.cell(key, quota, guard);
        let at = Moment::after(quota, word, now);
        Self { charge, quota, burst, key, cell, at, word, taken: false, burst_taken: false, beyond: false }
    }

    fn stops(&self) -> bool {
        self.charge.tier.stop_on_quota_reach
    }

    /// Whether there was room when it was opened, without taking any.
    #[inline]
    pub(super) fn look(&self) -> Result<(), Throttled> {
        if !self.stops() {
            return Ok(());
        }
        if !algorithm::has_room(self.quota, self.word, self.at) {
            return Err(self.quota_reached());
        }
        match self.burst {
            Some(burst) => self.cell.has_burst(burst, self.at.ms).map_err(|wait| self.burst_reached(burst, wait)),
            None => Ok(()),
        }
    }

    /// Takes one request; on refusal nothing is taken. What else is counted is only known afterwards: of that
    /// nothing is taken here.
    pub(super) fn take(&mut self, counters: &Counters, guard: &'g impl Guard) -> Result<(), Throttled> {
        if self.quota.kind == QuotaKind::Requests {
            self.take_request(counters, guard)?;
        } else {
            self.word = self.cell.word();
            self.beyond = !algorithm::has_room(self.quota, self.word, self.at);
            if self.beyond && self.stops() {
                return Err(self.quota_reached());
            }
        }
        self.take_burst()
    }

    /// Takes one request from the burst limit alone; on refusal nothing is taken, of the quota neither.
    pub(super) fn take_burst(&mut self) -> Result<(), Throttled> {
        let Some(burst) = self.burst else { return Ok(()) };
        match self.cell.take_burst(burst, self.at.ms, self.stops()) {
            Ok(taken) => {
                self.burst_taken = taken;
                self.beyond |= !taken;
                Ok(())
            }
            Err(wait) => {
                self.give_back();
                Err(self.burst_reached(burst, wait))
            }
        }
    }

    fn take_request(&mut self, counters: &Counters, guard: &'g impl Guard) -> Result<(), Throttled> {
        loop {
            match self.cell.take_quota(self.quota, self.word, self.at, self.stops()) {
                Taken::Yes { word, beyond } => {
                    (self.word, self.taken, self.beyond) = (word, true, beyond);
                    return Ok(());
                }
                Taken::Full { word } => {
                    self.word = word;
                    return Err(self.quota_reached());
                }
                Taken::Swept => (self.cell, self.word) = counters.cell(self.key, self.quota, guard),
            }
        }
    }

    /// Undoes `take`.
    pub(super) fn give_back(&self) {
        if self.taken {
            self.cell.give_back_quota(self.word);
        }
        if let Some(burst) = self.burst.filter(|_| self.burst_taken) {
            self.cell.give_back_burst(burst);
        }
    }

    fn remaining(&self) -> u64 {
        self.quota.limit.saturating_sub(algorithm::counted(self.quota, self.word, self.at))
    }

    pub(super) fn standing(&self) -> Standing {
        Standing { kind: self.quota.kind, limit: self.quota.limit, remaining: self.remaining() }
    }

    pub(super) fn reset_ms(&self) -> u64 {
        algorithm::reset_ms(self.quota, self.word, self.at)
    }

    /// Where the quota stands after this request.
    pub(super) fn usage(&self) -> Usage {
        self.usage_until(self.remaining(), self.reset_ms())
    }

    fn usage_until(&self, remaining: u64, reset_ms: u64) -> Usage {
        Usage {
            tier: self.charge.tier.name.clone(),
            kind: self.quota.kind,
            limit: self.quota.limit,
            window_s: algorithm::window_s(self.quota, self.word, self.at),
            remaining,
            reset_s: reset_ms.div_ceil(1_000).max(1),
            alone: false,
        }
    }

    #[cold]
    fn quota_reached(&self) -> Throttled {
        let usage = self.usage_until(0, algorithm::wait_ms(self.quota, self.word, self.at));
        Throttled { level: self.charge.level, burst: false, usage }
    }

    #[cold]
    fn burst_reached(&self, burst: &Burst, wait_ns: u64) -> Throttled {
        let usage = Usage {
            tier: self.charge.tier.name.clone(),
            kind: QuotaKind::Requests,
            limit: u64::from(burst.requests),
            window_s: burst.per_ms.div_ceil(1_000).max(1),
            remaining: 0,
            reset_s: wait_ns.div_ceil(1_000_000_000).max(1),
            alone: false,
        };
        Throttled { level: self.charge.level, burst: true, usage }
    }
}

/// The key of what counts this kind: another quota beside it makes no other of it. Multiplied and turned, so that no two
/// pairs of small numbers meet.
pub(super) fn key(charge: &Charge<'_>, kind: QuotaKind) -> u128 {
    let whose = u128::from_ne_bytes(charge.tier.counter).wrapping_add(charge.user.wrapping_mul(SPREAD).rotate_left(64));
    whose ^ of_kind(kind)
}

/// What tells the counters of one kind from those of another.
const fn of_kind(kind: QuotaKind) -> u128 {
    match kind {
        QuotaKind::Requests => 0,
        QuotaKind::Bytes => KIND,
        QuotaKind::Events => KIND.rotate_left(32),
        QuotaKind::Tokens => KIND.rotate_left(64),
    }
}

/// Odd, so that multiplying loses nothing (the golden ratio's fraction).
const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
/// The square root of three's fraction.
const KIND: u128 = 0xbb67_ae85_84ca_a73b_2574_2d70_78b8_3b89;
