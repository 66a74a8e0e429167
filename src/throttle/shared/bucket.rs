//! A limit by GCRA that sidecars count together: one bucket in Redis, by Redis's clock, and what is known of it here, by
//! ours. No shares are taken of it: a share that is held while the bucket runs out would be used twice.
//!
//! `held` only ever rises here: it tells Redis what is new since it was `told`, so that a command that is sent twice fills
//! the bucket once. A Redis that has lost the bucket is told its content.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    super::algorithm::{self, Moment},
    cell::{Answer, Cell, Form, more},
    ledger::{Demand, Taken},
};
use crate::{
    net::Now,
    store::{Algorithm, Quota, QuotaKind, Window},
};

impl Cell {
    /// Puts what is demanded into the bucket if there is room by what is known here.
    pub(super) fn take_bucket(&self, demand: &Demand, now_ms: u64) -> Taken {
        let (quota, at) = self.bucket(now_ms);
        if demand.stop && !algorithm::has_room(&quota, self.word.load(Relaxed), at) {
            return Taken::Full;
        }
        // First: an answer that comes between then counts it twice rather than never, until the next.
        self.held.fetch_add(demand.amount, Relaxed);
        let put = |word: u128| {
            let has_room = !demand.stop || algorithm::has_room(&quota, word, at);
            has_room.then(|| algorithm::add(&quota, word, demand.amount, at))
        };
        match self.word.fetch_update(Relaxed, Relaxed, put) {
            Ok(_) => Taken::Yes,
            Err(_) => {
                self.held.fetch_sub(demand.amount, Relaxed);
                Taken::Full
            }
        }
    }

    /// Takes out what was put in here and not yet told.
    pub(super) fn give_back_bucket(&self, amount: u64, now_ms: u64) {
        self.held.fetch_sub(amount, Relaxed);
        self.take_out(amount, now_ms);
    }

    /// Takes out what Redis is told to take out, too. It leaves until the answer to that is there, or will not come.
    pub(super) fn take_out_there(&self, amount: u64, now_ms: u64) -> Leaving<'_> {
        let amount = u32::try_from(amount).unwrap_or(0);
        self.leaving.fetch_add(amount, Relaxed);
        self.take_out(u64::from(amount), now_ms);
        Leaving { cell: self, amount }
    }

    fn take_out(&self, amount: u64, now_ms: u64) {
        let (quota, _) = self.bucket(now_ms);
        for _ in 0..amount {
            let _ = self.word.fetch_update(Relaxed, Relaxed, |word| algorithm::give_back(&quota, word, word));
        }
    }

    /// Puts in what is only known now, whether there is room or not.
    pub(super) fn fill_bucket(&self, amount: u64, now_ms: u64) {
        let ((quota, at), word) = (self.bucket(now_ms), self.word.load(Relaxed));
        // What makes the bucket no fuller is not told either: `held` only rises, and has an end.
        let parts = parts(quota.limit);
        let room = MOST.saturating_sub(algorithm::content(&quota, word, now_ms, parts)).div_ceil(parts);
        let amount = amount.min(room);
        let _ = self.held.fetch_update(Relaxed, Relaxed, |held| Some(more(held, amount)));
        let _ = self.word.fetch_update(Relaxed, Relaxed, |word| Some(algorithm::add(&quota, word, amount, at)));
    }

    /// What Redis is told of the bucket beside `have`.
    pub(super) fn bucket_form(&self, have: u64, now_ms: u64) -> Form {
        let ((quota, _), told) = (self.bucket(now_ms), self.told.load(Relaxed));
        let parts = parts(quota.limit);
        let content = algorithm::content(&quota, self.word.load(Relaxed), now_ms, parts);
        // An answer from before may have put in again what leaves: Redis would keep it.
        let unsaid = have.saturating_sub(told).saturating_add(u64::from(self.leaving.load(Relaxed)));
        let content = content.saturating_sub(unsaid.saturating_mul(parts)).min(MOST);
        let (Window::Seconds(length) | Window::Months(length)) = quota.window;
        Form::Bucket { told: told.min(have), content, length_ms: u64::from(length) * 1_000, parts }
    }

    /// Takes over what Redis says of the bucket, and adds what was counted here since.
    pub(super) fn learn_bucket(&self, have: u64, answer: Answer, now_ms: u64) {
        let ((quota, at), told) = (self.bucket(now_ms), have.max(answer.mine));
        self.told.fetch_max(told, Relaxed);
        let known = algorithm::bucket(&quota, answer.total, now_ms, parts(quota.limit));
        let _ = self.word.fetch_update(Relaxed, Relaxed, |_| {
            let untold = self.held.load(Relaxed).saturating_sub(told);
            Some(if untold == 0 { known } else { algorithm::add(&quota, known, untold, at) })
        });
    }

    /// When the bucket is empty, as far as is known.
    pub(super) fn empty_ms(&self) -> u64 {
        algorithm::over_ms(&self.bucket(0).0, self.word.load(Relaxed))
    }

    fn bucket(&self, now_ms: u64) -> (Quota, Moment) {
        let (limit, window) = (self.limit.load(Relaxed).max(1), self.window);
        let quota = Quota { kind: QuotaKind::Requests, limit, window, algorithm: Algorithm::Gcra };
        (quota, Moment::of(&quota, Now::at_ms(now_ms)))
    }
}

/// So much is on its way out of a bucket.
pub(super) struct Leaving<'a> {
    cell: &'a Cell,
    amount: u32,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.cell.leaving.fetch_sub(self.amount, Relaxed);
    }
}

/// Into how many parts Redis divides one request: a full bucket has less than 2^52.
const fn parts(limit: u64) -> u64 {
    if limit < 1 << 31 { 1 << 20 } else { 1 << 3 }
}

/// More is not told apart.
const MOST: u64 = (1 << 52) - 1;
