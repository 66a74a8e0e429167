//! What the scripts do in Redis, said in Rust: for tests and for the simulation. That both do the same is held by real
//! servers (`tests/interop/throttle.sh`).

use std::collections::BTreeMap;

use super::cell::{Answer, Before, Form, Line};

/// The hash of one limit in one window.
#[derive(Debug, Clone, Default)]
pub struct Hash<N> {
    fields: BTreeMap<N, u64>,
    total: u64,
}

impl<N: Ord> Hash<N> {
    /// With nothing in it.
    pub const fn new() -> Self {
        Self { fields: BTreeMap::new(), total: 0 }
    }

    /// The first script, for one limit of fixed windows.
    pub fn exchange(&mut self, node: N, line: &Line, settling: bool) -> Answer {
        self.exchange_after(Before::default(), node, line, settling)
    }

    /// The same where the window before counts, too.
    pub fn exchange_after(&mut self, counted: Before, node: N, line: &Line, settling: bool) -> Answer {
        let before = self.fields.get(&node).copied().unwrap_or(0);
        let (mut mine, mut total) = (before, self.total);
        if mine < line.have {
            total += line.have - mine;
            mine = line.have;
        }
        if line.back > 0 {
            if mine == line.have {
                mine -= line.back;
                total -= line.back;
            }
        } else if !settling {
            let more =
                line.want.saturating_sub(mine - line.have).min(line.limit.saturating_sub(total + counted.counts));
            mine += more;
            total += more;
        }
        if mine != before {
            self.fields.insert(node, mine);
            self.total = total;
        }
        let nodes = if line.want > 0 { self.fields.len().max(1) } else { 0 };
        Answer { mine, total, nodes: u32::try_from(nodes).unwrap_or(u32::MAX), before: counted }
    }

    /// What this window, the former one, says to that sidecar in the next.
    pub fn before(&self, node: &N, form: Form) -> Before {
        let Form::Sliding { left, length } = form else { return Before::default() };
        let others = self.total - self.fields.get(node).copied().unwrap_or(0);
        let counts = (u128::from(self.total) * u128::from(left)).div_ceil(u128::from(length.max(1)));
        Before { others, counts: u64::try_from(counts).unwrap_or(u64::MAX) }
    }

    /// The second script's look, for one limit: whether there is no room.
    pub fn is_full(&self, node: &N, mine: u64, limit: Option<u64>) -> bool {
        self.is_full_after(Before::default(), node, mine, limit)
    }

    /// The same where the window before counts, too.
    pub fn is_full_after(&self, before: Before, node: &N, mine: u64, limit: Option<u64>) -> bool {
        let told = mine.saturating_sub(self.fields.get(node).copied().unwrap_or(0));
        limit.is_some_and(|limit| self.total + told + before.counts >= limit)
    }

    /// The second script's counting, for one limit.
    pub fn count(&mut self, node: N, mine: u64, amount: i64) -> Answer {
        let field = self.fields.entry(node).or_default();
        let told = mine.saturating_sub(*field);
        let after = (*field + told).saturating_add_signed(amount);
        self.total = self.total + after - *field;
        *field = after;
        Answer { mine: after, total: self.total, nodes: 0, before: Before::default() }
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
            mine: mine.max(have),
            level: level.max(known) + have.saturating_sub(mine) * parts,
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
            stand.mine += u64::try_from(amount).unwrap_or(0);
            stand.level = match u64::try_from(amount) {
                Ok(amount) => stand.level + amount * parts,
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
