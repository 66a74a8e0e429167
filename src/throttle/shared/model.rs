//! What the scripts do in Redis, said in Rust: for tests and for the simulation. That both do the same is held by real
//! servers (`tests/interop/throttle.sh`).

use std::collections::BTreeMap;

use super::cell::{Answer, Line};

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

    /// The first script, for one limit.
    pub fn exchange(&mut self, node: N, line: &Line, settling: bool) -> Answer {
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
            let more = line.want.saturating_sub(mine - line.have).min(line.limit.saturating_sub(total));
            mine += more;
            total += more;
        }
        if mine != before {
            self.fields.insert(node, mine);
            self.total = total;
        }
        let nodes = if line.want > 0 { self.fields.len().max(1) } else { 0 };
        Answer { mine, total, nodes: u32::try_from(nodes).unwrap_or(u32::MAX) }
    }

    /// The second script's look, for one limit: whether there is no room.
    pub fn is_full(&self, node: &N, mine: u64, limit: Option<u64>) -> bool {
        let told = mine.saturating_sub(self.fields.get(node).copied().unwrap_or(0));
        limit.is_some_and(|limit| self.total + told >= limit)
    }

    /// The second script's counting, for one limit.
    pub fn count(&mut self, node: N, mine: u64, amount: i64) -> Answer {
        let field = self.fields.entry(node).or_default();
        let told = mine.saturating_sub(*field);
        let after = (*field + told).saturating_add_signed(amount);
        self.total = self.total + after - *field;
        *field = after;
        Answer { mine: after, total: self.total, nodes: 0 }
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
