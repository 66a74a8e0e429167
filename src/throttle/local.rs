//! The counters of this process: for each limit one cell of two atomics, no lock and no allocation once it is there.
//!
//! A window only rolls forward. A cell that has been swept is marked first, so that nothing is ever
//! counted on a cell that is no longer in the map.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use papaya::Guard;
use parking_lot::Mutex;
use portable_atomic::AtomicU128;

use crate::store::{Algorithm, Burst, Quota, QuotaKind, Window};

use super::{
    algorithm::{self, Moment},
    parted::Parted,
};

/// All cells, by counter.
#[derive(Debug, Default)]
pub(super) struct Counters {
    cells: Parted<u128, Cell>,
    /// The keys in `cells`, each once, for the sweep. Locked when a cell is made or swept, never on a hit.
    sweep: Mutex<VecDeque<u128>>,
}

/// What is counted for one limit.
#[derive(Debug)]
pub(super) struct Cell {
    /// What the quota has counted (`algorithm`); or `SWEPT`.
    word: AtomicU128,
    /// When the burst limit's bucket is empty again (GCRA's theoretical arrival time), in nanoseconds.
    empty_at_ns: AtomicU64,
    /// Window and algorithm are part of the counter's identity.
    window: Window,
    algorithm: Algorithm,
    /// The limit is not: whoever takes brings it. Of a bucket it is that which was met last, by which it runs out.
    limit: AtomicU64,
}

/// What happened to a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// One is taken: what is counted with this one, and whether it went beyond the limit.
    Yes { word: u128, beyond: bool },
    /// No room.
    Full { word: u128 },
    /// The cell was swept: look it up anew.
    Swept,
}

impl Counters {
    pub(super) fn guard(&self) -> impl Guard + '_ {
        self.cells.guard()
    }

    /// The cell of `key`, and what it has counted.
    #[inline]
    pub(super) fn cell<'g>(&self, key: u128, quota: &Quota, guard: &'g impl Guard) -> (&'g Cell, u128) {
        if let Some(cell) = self.cells.get(&key, guard) {
            let word = cell.word.load(Relaxed);
            if word != SWEPT {
                return (cell, word);
            }
        }
        let cell = self.make(key, quota, guard);
        (cell, cell.word())
    }

    /// What the cell of `key` has counted; nothing where there is none.
    pub(super) fn word(&self, key: u128, guard: &impl Guard) -> u128 {
        self.cells.get(&key, guard).map_or(0, Cell::word)
    }

    #[cold]
    fn make<'g>(&self, key: u128, quota: &Quota, guard: &'g impl Guard) -> &'g Cell {
        loop {
            match self.cells.of(&key).try_insert_with(key, || Cell::new(*quota), guard) {
                Ok(cell) => {
                    self.sweep.lock().push_back(key);
                    return cell;
                }
                Err(cell) if !cell.is_swept() => return cell,
                Err(_) => _ = self.cells.of(&key).remove_if(&key, |_, cell| cell.is_swept(), guard),
            }
        }
    }

    /// Drops cells whose window ended a minute ago and whose bucket is empty. Looks at a part of them, in turn.
    pub(super) fn sweep(&self, now_ms: u64) {
        let guard = self.cells.guard();
        let looked_at = {
            let keys = self.sweep.lock();
            (keys.len() / SWEEP_SHARE).max(SWEEP_LEAST).min(keys.len())
        };
        for _ in 0..looked_at {
            let Some(key) = self.sweep.lock().pop_front() else { return };
            match self.cells.get(&key, &guard) {
                Some(cell) if cell.retire(now_ms) => {
                    // Fails only where somebody has put a new cell in its place, and noted the key again.
                    let _ = self.cells.of(&key).remove_if(&key, |_, cell| cell.is_swept(), &guard);
                }
                Some(cell) if cell.is_swept() => {}
                Some(_) => self.sweep.lock().push_back(key),
                None => {}
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }
}

impl Cell {
    fn new(quota: Quota) -> Self {
        let Quota { limit, window, algorithm, .. } = quota;
        let (word, empty_at_ns) = (AtomicU128::new(0), AtomicU64::new(0));
        Self { word, empty_at_ns, window, algorithm, limit: AtomicU64::new(limit) }
    }

    /// With the limit that was met last.
    fn quota(&self) -> Quota {
        let Self { window, algorithm, .. } = *self;
        Quota { kind: QuotaKind::Requests, limit: self.limit.load(Relaxed), window, algorithm }
    }

    /// Notes the limit of a bucket, where it is another.
    fn note(&self, quota: &Quota) {
        if quota.algorithm == Algorithm::Gcra && self.limit.load(Relaxed) != quota.limit {
            self.limit.store(quota.limit, Relaxed);
        }
    }

    fn is_swept(&self) -> bool {
        self.word.load(Relaxed) == SWEPT
    }

    /// Marks the cell as swept if nothing in it matters any more.
    fn retire(&self, now_ms: u64) -> bool {
        let word = self.word.load(Relaxed);
        let is_over = word != SWEPT
            && algorithm::over_ms(&self.quota(), word).saturating_add(GRACE_MS) <= now_ms
            && self.empty_at_ns.load(Relaxed) <= nanoseconds(now_ms);
        // Whoever counts meanwhile changes the word, and this fails.
        is_over && self.word.compare_exchange(word, SWEPT, Relaxed, Relaxed).is_ok()
    }

    /// What is counted.
    pub(super) fn word(&self) -> u128 {
        let word = self.word.load(Relaxed);
        if word == SWEPT { 0 } else { word }
    }

    /// Takes one request, where `word` was counted just now. Where the limit does not `stop`, it is counted beyond it.
    #[inline]
    pub(super) fn take_quota(&self, quota: &Quota, mut word: u128, at: Moment, stop: bool) -> Taken {
        self.note(quota);
        loop {
            let beyond = !algorithm::has_room(quota, word, at);
            if beyond && stop {
                return Taken::Full { word };
            }
            let more = algorithm::add(quota, word, 1, at);
            match self.word.compare_exchange_weak(word, more, Relaxed, Relaxed) {
                Ok(_) => return Taken::Yes { word: more, beyond },
                Err(SWEPT) => return Taken::Swept,
                Err(newer) => word = newer,
            }
        }
    }

    /// Counts `amount`, whether there is room or not, and tells what is counted; none where the cell was swept.
    pub(super) fn add(&self, quota: &Quota, amount: u64, at: Moment) -> Option<u128> {
        self.note(quota);
        let mut word = self.word.load(Relaxed);
        loop {
            if word == SWEPT {
                return None;
            }
            let more = algorithm::add(quota, word, amount, at);
            match self.word.compare_exchange_weak(word, more, Relaxed, Relaxed) {
                Ok(_) => return Some(more),
                Err(newer) => word = newer,
            }
        }
    }

    /// Gives one request back, unless what it was `taken` from is over.
    pub(super) fn give_back_quota(&self, taken: u128) {
        let (quota, mut word) = (self.quota(), self.word.load(Relaxed));
        while word != SWEPT {
            let Some(less) = algorithm::give_back(&quota, word, taken) else { return };
            match self.word.compare_exchange_weak(word, less, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(newer) => word = newer,
            }
        }
    }

    /// Whether the bucket has room; else in how many nanoseconds it will.
    #[inline]
    pub(super) fn has_burst(&self, burst: &Burst, now_ms: u64) -> Result<(), u64> {
        let now_ns = nanoseconds(now_ms);
        filled(self.empty_at(burst, now_ns), burst, now_ns).map(|_| ())
    }

    /// Puts one request into the bucket and says so; else in how many nanoseconds there is room. Where the
    /// limit does not `stop`, it passes a full bucket by.
    pub(super) fn take_burst(&self, burst: &Burst, now_ms: u64, stop: bool) -> Result<bool, u64> {
        let now_ns = nanoseconds(now_ms);
        let mut empty_at = self.empty_at(burst, now_ns);
        loop {
            let fuller = match filled(empty_at, burst, now_ns) {
                Ok(fuller) => fuller,
                Err(wait) if stop => return Err(wait),
                Err(_) => return Ok(false),
            };
            match self.empty_at_ns.compare_exchange_weak(empty_at, fuller, Relaxed, Relaxed) {
                Ok(_) => return Ok(true),
                Err(newer) => empty_at = newer,
            }
        }
    }

    /// When the bucket is empty. What another limit has put into it beyond this one's brim runs over: that limit is gone,
    /// and its time with it. No sooner than [`GRACE_MS`], by which a request that has waited may be late.
    #[inline]
    fn empty_at(&self, burst: &Burst, now_ns: u64) -> u64 {
        let (empty_at, full) = (self.empty_at_ns.load(Relaxed), brim(burst, now_ns));
        if empty_at <= full.saturating_add(nanoseconds(GRACE_MS)) {
            return empty_at;
        }
        self.empty_at_ns.compare_exchange(empty_at, full, Relaxed, Relaxed).map_or_else(|newer| newer, |_| full)
    }

    /// Takes one request out of the bucket again.
    pub(super) fn give_back_burst(&self, burst: &Burst) {
        let interval = burst.interval_ns();
        let _ = self.empty_at_ns.fetch_update(Relaxed, Relaxed, |at| Some(at.saturating_sub(interval)));
    }
}

/// When the bucket is empty with one request more (GCRA: ITU-T I.371); else how long until it has room.
#[inline]
fn filled(empty_at: u64, burst: &Burst, now_ns: u64) -> Result<u64, u64> {
    let fuller = empty_at.max(now_ns).saturating_add(burst.interval_ns());
    let full = brim(burst, now_ns);
    if fuller <= full { Ok(fuller) } else { Err(fuller - full) }
}

/// When a bucket is empty that is full now.
#[inline]
fn brim(burst: &Burst, now_ns: u64) -> u64 {
    now_ns.saturating_add(burst.interval_ns().saturating_mul(u64::from(burst.requests)))
}

fn nanoseconds(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}

/// How long a cell is kept beyond its window: a request that has waited (for keys, say) brings an older moment,
/// and shall not find a closed window empty.
const GRACE_MS: u64 = 60_000;
/// No algorithm has this word: windows' numbers end before, and buckets far before.
const SWEPT: u128 = u128::MAX;
/// One sweep looks at this part of the cells, and at no fewer than `SWEEP_LEAST`.
const SWEEP_SHARE: usize = 16;
const SWEEP_LEAST: usize = 4_096;
