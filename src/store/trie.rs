//! A forest of path segments in three flat tables: a step down is one look-up, and nothing is allocated for it.
//!
//! Flat, and the edges in the hash table itself, since with a million templates a look-up costs what it
//! misses in the processor's caches.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};

/// Says "none" in place of an index.
pub(super) const NONE: u32 = u32::MAX;

/// The forest.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// By parent and text.
    edges: HashTable<Edge>,
    /// The texts of all edges.
    text: Vec<u8>,
    hasher: DefaultHashBuilder,
}

/// What stands at the end of a row of segments; the numbers belong to whoever owns the trie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    /// The node below any one segment.
    pub(super) param: u32,
    /// What matches when the path ends here.
    pub(super) end: u32,
    /// What matches whatever follows.
    pub(super) rest: u32,
    /// What is mounted here.
    pub(super) mount: u32,
    /// Whether an edge begins here.
    has_children: bool,
}

/// An exact segment between two nodes.
#[derive(Debug, Clone, Copy)]
struct Edge {
    parent: u32,
    child: u32,
    start: u32,
    length: u32,
}

impl Trie {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), edges: HashTable::new(), text: Vec::new(), hasher: DefaultHashBuilder::default() }
    }

    /// A new node that nothing leads to.
    pub(super) fn root(&mut self) -> u32 {
        self.nodes.push(Node { param: NONE, end: NONE, rest: NONE, mount: NONE, has_children: false });
        index(self.nodes.len() - 1)
    }

    /// The node below `parent` by exactly `segment`, made if there is none.
    pub(super) fn add_child(&mut self, parent: u32, segment: &str) -> u32 {
        if let Some(child) = self.child(parent, segment) {
            return child;
        }
        let child = self.root();
        let edge = Edge { parent, child, start: index(self.text.len()), length: index(segment.len()) };
        self.text.extend_from_slice(segment.as_bytes());
        self.node_mut(parent).has_children = true;
        let (text, hasher) = (&self.text, &self.hasher);
        self.edges.insert_unique(hash_edge(hasher, &edge, text), edge, |it| hash_edge(hasher, it, text));
        child
    }

    /// The node below `parent` by any one segment, made if there is none.
    pub(super) fn add_param(&mut self, parent: u32) -> u32 {
        match self.node(parent).param {
            NONE => {
                let child = self.root();
                self.node_mut(parent).param = child;
                child
            }
            child => child,
        }
    }

    /// The node below `parent` by exactly `segment`.
    #[inline]
    pub(super) fn child(&self, parent: u32, segment: &str) -> Option<u32> {
        if !self.node(parent).has_children {
            return None;
        }
        let segment = segment.as_bytes();
        let is_it = |it: &Edge| it.parent == parent && it.text(&self.text) == segment;
        self.edges.find(hash(&self.hasher, parent, segment), is_it).map(|it| it.child)
    }

    pub(super) fn node(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    pub(super) fn node_mut(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    /// Gives back the room for more.
    pub(super) fn shrink(&mut self) {
        let (text, hasher) = (&self.text, &self.hasher);
        self.edges.shrink_to_fit(|it| hash_edge(hasher, it, text));
        self.nodes.shrink_to_fit();
        self.text.shrink_to_fit();
    }
}

impl Edge {
    fn text<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        &text[self.start as usize..][..self.length as usize]
    }
}

fn hash_edge(hasher: &DefaultHashBuilder, edge: &Edge, text: &[u8]) -> u64 {
    hash(hasher, edge.parent, edge.text(text))
}

#[inline]
fn hash(hasher: &DefaultHashBuilder, parent: u32, segment: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write_u32(parent);
    hasher.write(segment);
    hasher.finish()
}

/// Four billion segments do not fit a machine's memory; the last number stands for "none".
fn index(n: usize) -> u32 {
    u32::try_from(n).ok().filter(|n| *n != NONE).expect("a table of fewer than 2^32 segments")
}
