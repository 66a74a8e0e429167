//! The path segments of one mount in flat tables: a step down is one look-up, and nothing is allocated for it.
//!
//! Built once by [`Grower`], then only read. With a million templates a look-up costs what it misses in the
//! processor's caches: so all that belongs to one mount lies side by side, each node with a small hash table of its own.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};

/// Says "none" in place of an index.
pub(super) const NONE: u32 = u32::MAX;

/// The segments; nodes that nothing leads to are where ways down begin.
#[derive(Debug)]
pub(super) struct Trie {
    /// One more than there are, to tell where the slots of the last one end.
    nodes: Box<[Node]>,
    /// The children of each node, in the order of the nodes.
    slots: Box<[Slot]>,
    /// The texts of all edges.
    text: Box<[u8]>,
    hasher: DefaultHashBuilder,
}

/// What stands at the end of a row of segments; `end` and `rest` belong to whoever owns the trie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    /// The node below any one segment.
    pub(super) param: u32,
    /// What matches when the path ends here.
    pub(super) end: u32,
    /// What matches whatever follows.
    pub(super) rest: u32,
    /// Where its slots begin; they end where those of the next one begin.
    slots: u32,
}

/// An exact segment below a node, or nothing.
#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    child: u32,
    start: u32,
    length: u32,
}

impl Trie {
    pub(super) fn node(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    /// The node below `parent` by exactly `segment`.
    #[inline]
    pub(super) fn child(&self, parent: u32, segment: &str) -> Option<u32> {
        let (first, end) = (self.nodes[parent as usize].slots, self.nodes[parent as usize + 1].slots);
        let slots = &self.slots[first as usize..end as usize];
        if slots.is_empty() {
            return None;
        }
        let hash = hash(&self.hasher, segment.as_bytes());
        let (before, after) = slots.split_at(home(hash, slots.len()));
        for slot in after.iter().chain(before) {
            if slot.child == NONE {
                return None;
            }
            if slot.hash == hash && slot.text(&self.text) == segment.as_bytes() {
                return Some(slot.child);
            }
        }
        None
    }
}

impl Slot {
    const EMPTY: Self = Self { hash: 0, child: NONE, start: 0, length: 0 };

    fn text<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        &text[self.start as usize..][..self.length as usize]
    }
}

/// Builds a [`Trie`].
pub(super) struct Grower {
    nodes: Vec<Node>,
    edges: HashTable<Edge>,
    text: Vec<u8>,
    hasher: DefaultHashBuilder,
}

#[derive(Clone, Copy)]
struct Edge {
    parent: u32,
    slot: Slot,
}

impl Grower {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), edges: HashTable::new(), text: Vec::new(), hasher: DefaultHashBuilder::default() }
    }

    /// A new node that nothing leads to.
    pub(super) fn root(&mut self) -> u32 {
        self.nodes.push(Node { param: NONE, end: NONE, rest: NONE, slots: 0 });
        index(self.nodes.len() - 1)
    }

    pub(super) fn node_mut(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    /// The node below `parent` by exactly `segment`, made if there is none.
    pub(super) fn child(&mut self, parent: u32, segment: &str) -> u32 {
        let segment = segment.as_bytes();
        let hash = hash(&self.hasher, segment);
        let is_it = |it: &Edge| it.parent == parent && it.slot.text(&self.text) == segment;
        if let Some(edge) = self.edges.find(self.place(parent, hash), is_it) {
            return edge.slot.child;
        }
        let child = self.root();
        let slot = Slot { hash, child, start: index(self.text.len()), length: index(segment.len()) };
        self.text.extend_from_slice(segment);
        let hasher = &self.hasher;
        self.edges.insert_unique(self.place(parent, hash), Edge { parent, slot }, |it| {
            hasher.hash_one((it.parent, it.slot.hash))
        });
        child
    }

    /// The node below `parent` by any one segment, made if there is none.
    pub(super) fn param(&mut self, parent: u32) -> u32 {
        match self.nodes[parent as usize].param {
            NONE => {
                let child = self.root();
                self.node_mut(parent).param = child;
                child
            }
            child => child,
        }
    }

    fn place(&self, parent: u32, hash: u32) -> u64 {
        self.hasher.hash_one((parent, hash))
    }

    /// The trie, laid out for reading.
    pub(super) fn finish(mut self) -> Trie {
        self.root();
        for edge in &self.edges {
            self.nodes[edge.parent as usize].slots += 1;
        }
        let mut total = 0;
        for node in &mut self.nodes {
            let children = std::mem::replace(&mut node.slots, index(total));
            total += room(children as usize);
        }
        let mut slots = vec![Slot::EMPTY; total];
        for Edge { parent, slot } in &self.edges {
            let (first, end) = (self.nodes[*parent as usize].slots, self.nodes[*parent as usize + 1].slots);
            let (before, after) =
                slots[first as usize..end as usize].split_at_mut(home(slot.hash, (end - first) as usize));
            let free = after.iter_mut().chain(before).find(|it| it.child == NONE);
            *free.expect("a node has at least as many slots as children") = *slot;
        }
        Trie { nodes: self.nodes.into(), slots: slots.into(), text: self.text.into(), hasher: self.hasher }
    }
}

/// How many slots so many children get: a third more, so that what is not there is soon known.
const fn room(children: usize) -> usize {
    match children {
        0 | 1 => children,
        _ => children + children / 3 + 1,
    }
}

/// Where among so many slots a segment is looked for first.
const fn home(hash: u32, slots: usize) -> usize {
    ((hash as u64 * slots as u64) >> 32) as usize
}

#[inline]
fn hash(hasher: &DefaultHashBuilder, segment: &[u8]) -> u32 {
    let mut hasher = hasher.build_hasher();
    hasher.write(segment);
    (hasher.finish() >> 32) as u32
}

/// Four billion segments do not fit a machine's memory; the last number stands for "none".
fn index(n: usize) -> u32 {
    u32::try_from(n).ok().filter(|n| *n != NONE).expect("a table of fewer than 2^32 segments")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_child_is_found_and_no_other() {
        for children in [0, 1, 2, 3, 100, 10_000] {
            let mut grower = Grower::new();
            let (root, other) = (grower.root(), grower.root());
            let expected: Vec<u32> = (0..children).map(|n| grower.child(root, &format!("s{n}"))).collect();
            assert_eq!(expected, (0..children).map(|n| grower.child(root, &format!("s{n}"))).collect::<Vec<_>>());
            let below_other = grower.child(other, "s0");
            let trie = grower.finish();
            let found: Vec<u32> = (0..children).filter_map(|n| trie.child(root, &format!("s{n}"))).collect();
            assert_eq!(found, expected);
            assert!((children..2 * children + 10).all(|n| trie.child(root, &format!("s{n}")).is_none()));
            assert_eq!((trie.child(other, "s0"), trie.child(other, "s1")), (Some(below_other), None));
            assert_eq!(trie.child(below_other, ""), None);
        }
    }
}
