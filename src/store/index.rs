//! Places of rows by their names, without a second copy of the names.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Row numbers, found by names that the rows themselves hold.
#[derive(Debug, Default)]
pub(super) struct Index {
    rows: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Index {
    /// The row called `name`; `name_of` tells the name of each.
    pub(super) fn find<'r>(&self, name: &str, name_of: impl Fn(u32) -> &'r str) -> Option<u32> {
        self.rows.find(self.hasher.hash_one(name), |&row| name_of(row) == name).copied()
    }

    /// Adds a row, or hands back the one that has its name already.
    pub(super) fn add<'r>(&mut self, row: u32, name_of: impl Fn(u32) -> &'r str) -> Option<u32> {
        let name = name_of(row);
        if let Some(earlier) = self.find(name, &name_of) {
            return Some(earlier);
        }
        let hasher = &self.hasher;
        self.rows.insert_unique(hasher.hash_one(name), row, |&row| hasher.hash_one(name_of(row)));
        None
    }
}
