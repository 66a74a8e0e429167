//! What one sidecar knows of one limit in one window: plain atomics, no lock.
//!
//! `held` is this sidecar's field in Redis, as it should stand there: what was counted here and, in mode lease, the
//! `free` part of its share beside it. It is an absolute number, so that telling it twice changes nothing, and a Redis
//! that has lost it can be told again.

use std::{
    fmt,
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use portable_atomic::AtomicU128;

use super::{
    super::{algorithm, window},
    ledger::{Demand, Taken},
    settings::SharedMode,
};
use crate::store::{Algorithm, Quota, Window};

/// One limit in one window; a bucket (`bucket`) has one cell for all its time. A new window is a new cell.
pub struct Cell {
    /// Which limit.
    pub(super) key: u128,
    /// Which of its windows.
    pub(super) number: u32,
    pub(super) algorithm: Algorithm,
    pub(super) window: Window,
    /// When the window ends, on the steady clock.
    pub(super) end_ms: u64,
    /// When nothing of it counts any more: of a sliding window, when the next one ends.
    kept_ms: u64,
    /// The limit as it was met last.
    pub(super) limit: AtomicU64,
    /// The limit less what the window before still counts, as it was met last.
    room: AtomicU64,
    /// What others held in the window before, as Redis said last.
    others_before: AtomicU64,
    /// A bucket as it is known here, with what was counted here.
    pub(super) word: AtomicU128,
    pub(super) held: AtomicU64,
    /// Of `held`: not yet used.
    free: AtomicU64,
    /// What all others hold, as Redis said last.
    others: AtomicU64,
    /// `held`, as Redis was told last.
    pub(super) told: AtomicU64,
    /// Sidecars with this limit in this window.
    nodes: AtomicU32,
    /// Of a bucket: what is on its way out of it, which Redis may not know yet.
    pub(super) leaving: AtomicU32,
    /// What Redis said last. Locked where an answer comes or a question is made, which happens off the path but in mode
    /// strict.
    seen: Mutex<Seen>,
    /// What was used at the last answer.
    used_then: AtomicU64,
    /// More is asked for once `free` is no more than this.
    low: AtomicU64,
    /// Until then nobody asks: there was nothing left.
    closed_until_ms: AtomicU64,
    used_ms: AtomicU64,
    marks: AtomicU8,
}

/// One cell's part of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// This sidecar's field in Redis, at least.
    pub have: u64,
    /// How much of a share is asked for.
    pub want: u64,
    /// Of `have`: given back.
    pub back: u64,
    /// The limit.
    pub limit: u64,
    /// How long Redis keeps the key from now on; of a bucket, once it is empty.
    pub ttl_ms: u64,
    /// What depends on the algorithm.
    pub form: Form,
    /// What Redis said last; of a bucket nothing.
    pub seen: Seen,
}

/// What Redis said last of a window: whoever has lost it can be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// When the data began that it had then; 0: it had none.
    pub birth: u64,
    /// This sidecar's field.
    pub mine: u64,
    /// The sum.
    pub total: u64,
}

/// What Redis is told of a limit by its algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Nothing else.
    Fixed,
    /// Of the window before counts `left` / `length`.
    Sliding {
        /// The part.
        left: u64,
        /// Of which the whole has so many.
        length: u64,
    },
    /// A bucket.
    Bucket {
        /// What Redis was told before of `have`.
        told: u64,
        /// What was in the bucket then, as is known here, in parts of a request.
        content: u64,
        /// In how many milliseconds a full bucket runs out.
        length_ms: u64,
        /// A request has so many parts.
        parts: u64,
    },
}

/// What Redis says of a cell after an exchange.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answer {
    /// This sidecar's field.
    pub mine: u64,
    /// The sum of all fields.
    pub total: u64,
    /// How many fields there are; 0: it was not asked.
    pub nodes: u32,
    /// When the data of a window began; 0: there are none.
    pub birth: u64,
    /// The same of the window before, of a sliding one.
    pub before: Before,
}

/// What Redis says of the window before a sliding one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Before {
    /// What others hold in it.
    pub others: u64,
    /// How much of its sum counts now.
    pub counts: u64,
}

impl Cell {
    /// `begin`: where a bucket's count begins. `former`: the cell of the window before, of which what others hold counts
    /// on in a sliding one, until Redis says it anew.
    pub(super) fn new(demand: &Demand, begin: u64, former: Option<&Self>) -> Self {
        let others_before = former.map_or(0, |former| former.others.load(Relaxed));
        let Demand { key, limit, window, number, algorithm, .. } = *demand;
        let begin = if algorithm == Algorithm::Gcra { begin } else { 0 };
        let last = if algorithm == Algorithm::Sliding { number.saturating_add(1) } else { number };
        Self {
            key,
            number,
            algorithm,
            window,
            end_ms: window::end_ms(window, number),
            kept_ms: window::end_ms(window, last),
            limit: AtomicU64::new(limit),
            room: AtomicU64::new(limit),
            others_before: AtomicU64::new(others_before),
            word: AtomicU128::new(0),
            held: AtomicU64::new(begin),
            free: AtomicU64::new(0),
            others: AtomicU64::new(0),
            told: AtomicU64::new(begin),
            nodes: AtomicU32::new(1),
            leaving: AtomicU32::new(0),
            seen: Mutex::default(),
            used_then: AtomicU64::new(0),
            low: AtomicU64::new(0),
            closed_until_ms: AtomicU64::new(0),
            used_ms: AtomicU64::new(0),
            marks: AtomicU8::new(0),
        }
    }

    /// Which limit it is of.
    pub const fn key(&self) -> u128 {
        self.key
    }

    /// What the window before still takes of the limit, if `held` was counted there here.
    pub(super) fn before(&self, held: u64) -> u64 {
        held.saturating_add(self.others_before.load(Relaxed))
    }

    /// Notes what limit a request brings, and how much of it the window before leaves.
    pub(super) fn note(&self, limit: u64, room: u64) {
        // Mostly they are as they were: then others keep their copy of what lies beside them.
        for (known, told) in [(&self.limit, limit), (&self.room, room)] {
            if known.load(Relaxed) != told {
                known.store(told, Relaxed);
            }
        }
    }

    /// Takes what is demanded if there is room by what is known: what was counted here and what others hold.
    pub(super) fn take_known(&self, demand: &Demand) -> Taken {
        let (others, most) = (self.others.load(Relaxed), self.room.load(Relaxed));
        let take = |held: u64| {
            let room = !demand.stop || held.saturating_add(others) < most;
            room.then(|| more(held, demand.amount))
        };
        match self.held.fetch_update(Relaxed, Relaxed, take) {
            Ok(_) => Taken::Yes,
            Err(_) => Taken::Full,
        }
    }

    /// Takes one out of the share.
    pub(super) fn take_share(&self, demand: &Demand, now_ms: u64) -> Taken {
        self.set(SHARING);
        if self.used_ms.load(Relaxed) != now_ms {
            self.used_ms.store(now_ms, Relaxed);
        }
        let free = self.free.load(Relaxed);
        // Where the limit was lowered, what was taken under the old one counts for no more than the new one.
        if free > 0 && self.counted() >= demand.limit {
            return Taken::Full;
        }
        match self.free.fetch_update(Relaxed, Relaxed, |free| free.checked_sub(1)) {
            Ok(_) => Taken::Yes,
            Err(_) if now_ms < self.closed_until_ms.load(Relaxed) => Taken::Full,
            Err(_) => Taken::Ask,
        }
    }

    /// Gives back what was taken from what is known.
    pub(super) fn give_back_known(&self, amount: u64) {
        let _ = self.held.fetch_update(Relaxed, Relaxed, |held| Some(held.saturating_sub(amount)));
    }

    /// Gives one back to the share.
    pub(super) fn give_back_share(&self) {
        self.free.fetch_add(1, Relaxed);
    }

    /// Counts what Redis has counted already, or what is only known afterwards.
    pub(super) fn count(&self, amount: u64) {
        let _ = self.held.fetch_update(Relaxed, Relaxed, |held| Some(more(held, amount)));
    }

    /// What was counted here.
    pub(super) fn used(&self) -> u64 {
        self.held.load(Relaxed).saturating_sub(self.free.load(Relaxed))
    }

    /// What was counted here and what others hold.
    pub(super) fn counted(&self) -> u64 {
        self.used().saturating_add(self.others.load(Relaxed))
    }

    pub(super) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    pub(super) fn free(&self) -> u64 {
        self.free.load(Relaxed)
    }

    /// Whether the next exchange should not wait for its time: the limit is near, or the share nearly used.
    pub(super) fn is_pressing(&self, limit: u64, left: u64) -> bool {
        if self.is(SHARING) {
            return self.free() <= self.low.load(Relaxed) && left > self.free();
        }
        let untold = self.held().saturating_sub(self.told.load(Relaxed));
        left > 0 && left <= untold.max(limit >> NEAR_SHIFT)
    }

    /// What to tell and to ask for. A share that was not used for a while goes back, as does what is above the limit,
    /// and any share when the mode has no shares.
    pub(super) fn line(&self, mode: SharedMode, now_ms: u64, idle_ms: u64) -> Line {
        let limit = self.limit.load(Relaxed);
        let have = self.held();
        let form = self.form(have, now_ms);
        // After `have`: what is heard between is then no news.
        let (ttl_ms, seen) = (self.ttl_ms(now_ms), self.seen());
        let mut line = Line { have, want: 0, back: 0, limit, ttl_ms, form, seen };
        if !self.is(SHARING) {
            return line;
        }
        let excess = have.saturating_add(self.others.load(Relaxed)).saturating_sub(limit);
        if mode != SharedMode::Lease || now_ms >= self.end_ms || self.is_idle(now_ms, idle_ms) {
            line.back = self.free.swap(0, Relaxed);
        } else if excess > 0 && self.free() > 0 {
            line.back = self.take_free(excess);
        } else {
            line.want = self.want(self.room.load(Relaxed));
        }
        line
    }

    /// What depends on the algorithm, where `have` was counted here.
    pub(super) fn form(&self, have: u64, now_ms: u64) -> Form {
        match self.algorithm {
            Algorithm::Fixed => Form::Fixed,
            Algorithm::Gcra => self.bucket_form(have, now_ms),
            Algorithm::Sliding => {
                let (left, length) = algorithm::rest_ms(self.window, self.number, now_ms);
                match length {
                    // Beyond this, products are not exact in Redis: in parts, rounded up.
                    LONG_MS.. => Form::Sliding { left: algorithm::share(PARTS, left, length), length: PARTS },
                    _ => Form::Sliding { left, length },
                }
            }
        }
    }

    /// One more for each of those that wait, beside what was used since the last answer: twice that, and no more than
    /// half of this sidecar's part of what is left. So shares shrink as the limit comes near.
    fn want(&self, limit: u64) -> u64 {
        let used = self.used();
        let pace = used.saturating_sub(self.used_then.load(Relaxed));
        let remaining = limit.saturating_sub(self.held()).saturating_sub(self.others.load(Relaxed));
        let part = remaining / (2 * u64::from(self.nodes.load(Relaxed).max(1)));
        pace.saturating_mul(2).min(part).max(1).saturating_sub(self.free())
    }

    fn take_free(&self, most: u64) -> u64 {
        let before = self.free.fetch_update(Relaxed, Relaxed, |free| Some(free.saturating_sub(most)));
        before.map_or(0, |before| before.min(most))
    }

    /// Takes an answer over. `close_ms`: for how long nobody asks again where there was nothing left.
    pub(super) fn learn(&self, line: &Line, answer: Answer, now_ms: u64, close_ms: u64) {
        if self.algorithm == Algorithm::Gcra {
            return self.learn_bucket(line.have, answer, now_ms);
        }
        self.others_before.store(answer.before.others, Relaxed);
        self.others.store(answer.total.saturating_sub(answer.mine), Relaxed);
        self.see(answer, true);
        self.told.fetch_max(line.have, Relaxed);
        if answer.nodes > 0 {
            self.nodes.store(answer.nodes, Relaxed);
        }
        if !self.is(SHARING) {
            return;
        }
        self.used_then.store(self.used(), Relaxed);
        // More than `have` is a new share, or one whose answer was lost; less is what was given back.
        let kept = line.have.saturating_sub(line.back);
        let _ = self.held.fetch_update(Relaxed, Relaxed, |held| Some(held.saturating_sub(line.back)));
        let share = answer.mine.saturating_sub(kept);
        self.held.fetch_add(share, Relaxed);
        let free = self.free.fetch_add(share, Relaxed).saturating_add(share);
        self.low.store(free / 2, Relaxed);
        let nothing_left =
            line.want > 0 && free == 0 && answer.total.saturating_add(answer.before.counts) >= line.limit;
        self.closed_until_ms.store(if nothing_left { now_ms.saturating_add(close_ms) } else { 0 }, Relaxed);
    }

    /// No answer came: what was given back may be gone, so it is not used.
    pub(super) fn forgo(&self, line: &Line) {
        let _ = self.held.fetch_update(Relaxed, Relaxed, |held| Some(held.saturating_sub(line.back)));
    }

    /// What others hold, as one request learns it that said that `have` was counted here.
    pub(super) fn learn_others(&self, have: u64, answer: Answer, now_ms: u64) {
        if self.algorithm == Algorithm::Gcra {
            return self.learn_bucket(have, answer, now_ms);
        }
        self.others_before.store(answer.before.others, Relaxed);
        self.others.store(answer.total.saturating_sub(answer.mine), Relaxed);
        self.see(answer, false);
    }

    /// What Redis said last.
    pub(super) fn seen(&self) -> Seen {
        *self.seen.lock()
    }

    /// Keeps what Redis said. `last`: nothing that it said of the same data can be newer; else more is.
    fn see(&self, answer: Answer, last: bool) {
        let Answer { mine, total, birth, .. } = answer;
        let mut seen = self.seen.lock();
        if birth > 0 && (last || birth != seen.birth || total >= seen.total) {
            *seen = Seen { birth, mine, total };
        }
    }

    /// Whether there is something that a Redis without it is to be told.
    pub(super) fn is_news(&self) -> bool {
        self.held() > 0 || self.seen().total > 0 || self.word.load(Relaxed) != 0
    }

    /// Redis has said that there is nothing left: nobody asks again before `until_ms`.
    pub(super) fn close(&self, until_ms: u64) {
        self.closed_until_ms.store(until_ms, Relaxed);
    }

    /// Whether there was nothing left just now.
    pub(super) fn is_closed(&self, left: u64, now_ms: u64) -> bool {
        now_ms < self.closed_until_ms.load(Relaxed) && left == 0
    }

    /// How long Redis keeps the key from that moment on: never longer than from the window's beginning. Whoever is ahead
    /// of Redis's clock passes that, lest what others count on is gone before its time.
    pub(super) fn ttl_ms(&self, now_ms: u64) -> u64 {
        match self.algorithm {
            Algorithm::Gcra => KEPT_MS,
            _ => self.kept_ms.saturating_sub(now_ms.max(self.begin_ms())).saturating_add(KEPT_MS),
        }
    }

    fn begin_ms(&self) -> u64 {
        self.end_ms.saturating_sub(window::length_s(self.window, self.number).saturating_mul(1_000))
    }

    /// Whether it counts no more.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        let end_ms = match self.algorithm {
            Algorithm::Gcra => self.empty_ms(),
            _ => self.kept_ms,
        };
        end_ms.saturating_add(FORGOTTEN_MS) <= now_ms
    }

    /// Whether a share is of no more use: the window has ended.
    pub(super) const fn has_ended(&self, now_ms: u64) -> bool {
        now_ms >= self.end_ms
    }

    /// Whether its share was not used for so long.
    pub(super) fn is_idle(&self, now_ms: u64, idle_ms: u64) -> bool {
        now_ms >= self.used_ms.load(Relaxed).saturating_add(idle_ms)
    }

    fn is(&self, mark: u8) -> bool {
        self.marks.load(Relaxed) & mark != 0
    }

    /// Sets a mark; whether it was not set.
    pub(super) fn set(&self, mark: u8) -> bool {
        !self.is(mark) && self.marks.fetch_or(mark, Relaxed) & mark == 0
    }

    pub(super) fn clear(&self, mark: u8) {
        self.marks.fetch_and(!mark, Relaxed);
    }

    /// Whether it has a share, or had.
    pub(super) fn is_sharing(&self) -> bool {
        self.is(SHARING)
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, held, free, others, .. } = self;
        f.debug_struct("Cell")
            .field("number", number)
            .field("held", held)
            .field("free", free)
            .field("others", others)
            .finish_non_exhaustive()
    }
}

/// `held` with `amount` more, of which no more than the largest limit is believed.
pub(super) fn more(held: u64, amount: u64) -> u64 {
    held.saturating_add(amount.min(Quota::MOST)).min(MOST_HELD)
}

/// More is not told apart: the scripts in Redis count in floats, and take what is not exact for spoiled.
pub(super) const MOST_HELD: u64 = (1 << 52) - 1;

/// It waits for the next exchange.
pub(super) const QUEUED: u8 = 1;
/// It has asked for an early exchange.
pub(super) const PRESSING: u8 = 2;
/// Somebody asks for it: one at a time.
pub(super) const ASKING: u8 = 4;
/// It is counted in shares.
pub(super) const SHARING: u8 = 8;
/// It is among those whose share goes back when it is idle.
pub(super) const WATCHED: u8 = 16;

/// A day and an hour: twice this many milliseconds multiplied are less than 2^53.
const LONG_MS: u64 = 90_000_000;
/// Of a longer window, a part is told in so many.
const PARTS: u64 = 1 << 26;

/// A limit is near when a sixteenth of it is left.
const NEAR_SHIFT: u32 = 4;

/// How long Redis keeps a window that is over: clocks differ, and requests wait.
const KEPT_MS: u64 = 60_000;

/// How long a window that is over is kept here.
const FORGOTTEN_MS: u64 = 10_000;
