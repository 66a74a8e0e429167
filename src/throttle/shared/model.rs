//! What the scripts do in Redis, said in Rust: for tests and for the simulation. That both do the same is held by real
//! servers (`tests/interop/throttle.sh`).

use std::collections::BTreeMap;

use super::cell::{Answer, Before, Form, Line, Seen};

/// The hash of one limit in one window.
#[derive(Debug, Clone, Default)]
pub struct Hash<N> {
    fields: BTreeMap<N, u64>,
    total: u64,
    /// Of `total`: what these data began with.
    base: u64,
    birth: u64,
    epoch: u64,
}

/// What a server says of its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data {
    /// It has them for too short a time.
    pub settling: bool,
    /// Since when it has them.
    pub epoch: u64,
    /// When data begin that begin now: no number twice.
    pub fresh: u64,
}

impl Data {
    /// Of a server that is always the same.
    pub(super) fn here(settling: bool) -> Self {
        Self { settling, epoch: 0, fresh: fastrand::u64(1..1 << 53) }
    }
}

impl<N: Ord> Hash<N> {
    /// With nothing in it.
    pub const fn new() -> Self {
        Self { fields: BTreeMap::new(), total: 0, base: 0, birth: 0, epoch: 0 }
    }

    /// The first script, for one limit of fixed windows.
    pub fn exchange(&mut self, node: N, line: &Line, settling: bool) -> Answer {
        self.exchange_after(Before::default(), node, line, Data::here(settling))
    }

    /// The same where the window before counts, too.
    pub fn exchange_after(&mut self, counted: Before, node: N, line: &Line, data: Data) -> Answer {
        let mut it = self.stand(&node, line.have, line.seen, data);
        if line.back > 0 {
            if it.mine == line.have {
                (it.mine, it.total, it.changed) = (it.mine - line.back, it.total - line.back, true);
            }
        } else if !data.settling {
            let room = line.limit.saturating_sub(it.total.saturating_add(counted.counts));
            let more = line.want.saturating_sub(it.mine.saturating_sub(line.have)).min(room);
            (it.mine, it.total, it.changed) = (it.mine + more, it.total + more, it.changed || more > 0);
        }
        if it.changed {
            self.write(node, it);
        }
        let nodes = if line.want > 0 { self.fields.len().max(1) } else { 0 };
        Answer { nodes: u32::try_from(nodes).unwrap_or(u32::MAX), before: counted, ..self.answer(it) }
    }

    /// What this window, the former one, says to that sidecar in the next.
    pub fn before(&self, node: &N, form: Form) -> Before {
        let Form::Sliding { left, length } = form else { return Before::default() };
        let mine = self.fields.get(node).copied().unwrap_or(0);
        let total = self.total.max(mine);
        let others = total - mine;
        let counts = (u128::from(total) * u128::from(left)).div_ceil(u128::from(length.max(1)));
        Before { others, counts: u64::try_from(counts).unwrap_or(u64::MAX) }
    }

    /// The second script's look, for one limit: whether there is no room.
    pub fn is_full(&self, node: &N, limit: Option<u64>) -> bool {
        self.is_full_after(Before::default(), node, (0, Seen::default()), limit, Data::here(false))
    }

    /// The same where the window before counts, too, and a sidecar has counted so much and heard that last.
    pub fn is_full_after(
        &self,
        before: Before,
        node: &N,
        (have, seen): (u64, Seen),
        limit: Option<u64>,
        data: Data,
    ) -> bool {
        let total = self.stand(node, have, seen, data).total;
        limit.is_some_and(|limit| total.saturating_add(before.counts) >= limit)
    }

    /// The second script's counting, for one limit.
    pub fn count(&mut self, node: N, have: u64, amount: i64) -> Answer {
        self.count_after(node, (have, Seen::default()), amount, Data::here(false))
    }

    /// The same of a sidecar that heard that last.
    pub fn count_after(&mut self, node: N, (have, seen): (u64, Seen), amount: i64, data: Data) -> Answer {
        let mut it = self.stand(&node, have, seen, data);
        let after = it.mine.saturating_add_signed(amount).min(MOST);
        (it.mine, it.total) = (after, (it.total + after - it.mine).min(MOST));
        self.write(node, it);
        self.answer(it)
    }

    /// The window as it stands, with what a sidecar has counted and what it heard last.
    fn stand(&self, node: &N, have: u64, seen: Seen, data: Data) -> Standing {
        let mine = self.fields.get(node).copied().unwrap_or(0);
        let (is_there, is_old) = (!self.fields.is_empty(), self.epoch != data.epoch);
        let mut it = Standing { mine, total: self.total.max(mine), ..Standing::default() };
        (it.base, it.birth, it.epoch) = (self.base, self.birth, data.epoch);
        if is_old || !is_there {
            (it.base, it.birth, it.changed) = (it.total, data.fresh, is_there);
            (it.anew, it.mine) = (true, 0);
        }
        let mut had = it.mine;
        if seen.birth > 0 && seen.birth != it.birth {
            had = had.max(seen.mine);
            if seen.total > it.base {
                let base = seen.total.min(MOST);
                (it.total, it.base, it.changed) = (it.total + base - it.base, base, true);
            }
        }
        if have > it.mine {
            (it.total, it.mine, it.changed) = (it.total.saturating_add(have.saturating_sub(had)), have, true);
        }
        it.mine = it.mine.min(MOST);
        it.total = it.total.max(it.mine).min(MOST);
        it
    }

    fn write(&mut self, node: N, it: Standing) {
        if it.anew {
            self.fields.clear();
        }
        self.fields.insert(node, it.mine);
        (self.total, self.base, self.birth, self.epoch) = (it.total, it.base, it.birth, it.epoch);
    }

    fn answer(&self, it: Standing) -> Answer {
        let birth = if self.fields.is_empty() { 0 } else { it.birth };
        Answer { mine: it.mine, total: it.total, birth, ..Answer::default() }
    }

    /// It is of another epoch, or, what is the same, the server's is another now.
    #[cfg(test)]
    pub(super) fn age(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// What each has counted.
    pub const fn fields(&self) -> &BTreeMap<N, u64> {
        &self.fields
    }

    /// The sum of all fields.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// A limit by GCRA: one bucket.
#[derive(Debug, Clone, Default)]
pub struct Bucket<N> {
    fields: BTreeMap<N, u64>,
    level: Option<u64>,
    since_ms: u64,
}

impl<N: Ord> Bucket<N> {
    /// An empty one.
    pub const fn new() -> Self {
        Self { fields: BTreeMap::new(), level: None, since_ms: 0 }
    }

    /// What each has told.
    pub const fn fields(&self) -> &BTreeMap<N, u64> {
        &self.fields
    }

    /// Its content as it was kept last, and when; none: it never was.
    pub fn content(&self) -> Option<(u64, u64)> {
        self.level.map(|level| (level, self.since_ms))
    }

    /// The bucket at that moment, where its data may be new, with what a sidecar has put in.
    fn at(&self, node: &N, have: u64, form: Form, size: u64, now: (u64, bool)) -> Stand {
        let (now_ms, settling) = now;
        let Form::Bucket { told, content, length_ms, parts } = form else { return Stand::default() };
        let gone = |ms: u64| u128::from(ms) * u128::from(size) * u128::from(parts);
        let drained = |level: u64| {
            let gone = gone(now_ms.saturating_sub(self.since_ms)) / u128::from(length_ms);
            level.saturating_sub(u64::try_from(gone).unwrap_or(u64::MAX))
        };
        let known = match self.level {
            Some(_) if !settling => {
                content.saturating_sub(u64::try_from(gone(1_000).div_ceil(u128::from(length_ms))).unwrap_or(u64::MAX))
            }
            _ => content,
        };
        let level = self.level.map_or(0, drained);
        let mine = self.fields.get(node).copied().unwrap_or(told).max(told);
        Stand {
            mine: mine.max(have).min(MOST),
            level: level.max(known).saturating_add(have.saturating_sub(mine).saturating_mul(parts)).min(FULLEST),
            changed: self.since_ms > now_ms || have > mine || known > level,
        }
    }

    /// The first script.
    pub fn exchange(&mut self, node: N, line: &Line, now_ms: u64, settling: bool) -> Answer {
        let stand = self.at(&node, line.have, line.form, line.limit, (now_ms, settling));
        if stand.changed {
            self.keep(node, stand, now_ms);
        }
        stand.answer()
    }

    /// The second script, and whether there is room. Where there is none, nothing is counted, but what is told is kept.
    pub fn count(&mut self, node: N, line: &Line, stop: bool, amount: i64, now_ms: u64) -> (bool, Answer) {
        let Form::Bucket { parts, .. } = line.form else { return (false, Answer::default()) };
        let mut stand = self.at(&node, line.have, line.form, line.limit, (now_ms, false));
        let room = !stop || stand.level + parts <= line.limit * parts;
        if room {
            stand.mine = stand.mine.saturating_add(u64::try_from(amount).unwrap_or(0)).min(MOST);
            stand.level = match u64::try_from(amount) {
                Ok(amount) => stand.level.saturating_add(amount.saturating_mul(parts)).min(FULLEST),
                Err(_) => stand.level.saturating_sub(amount.unsigned_abs() * parts),
            };
        }
        if room || stand.changed {
            self.keep(node, stand, now_ms);
        }
        (room, stand.answer())
    }

    /// Redis's clock is put back, or, what is the same, what was kept is of a later time.
    #[cfg(test)]
    pub(super) fn put_back(&mut self, ms: u64) {
        if self.level.is_some() {
            self.since_ms += ms;
        }
    }

    fn keep(&mut self, node: N, stand: Stand, now_ms: u64) {
        self.fields.insert(node, stand.mine);
        (self.level, self.since_ms) = (Some(stand.level), now_ms);
    }
}

/// A window with what one sidecar tells.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    mine: u64,
    total: u64,
    base: u64,
    birth: u64,
    epoch: u64,
    /// Fields of an older epoch may hold what went back since: each tells its own anew.
    anew: bool,
    /// It is not what is written there.
    changed: bool,
}

/// A bucket at some moment, with what one sidecar tells.
#[derive(Debug, Clone, Copy, Default)]
struct Stand {
    mine: u64,
    level: u64,
    /// It is not what is written there.
    changed: bool,
}

impl Stand {
    fn answer(self) -> Answer {
        Answer { mine: self.mine, total: self.level, ..Answer::default() }
    }
}

/// The largest number that is exact in a script.
const MOST: u64 = (1 << 53) - 1;

/// Of a bucket more is not told apart.
const FULLEST: u64 = (1 << 52) - 1;
