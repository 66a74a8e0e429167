//! Applications and their consumer keys.

use std::{hash::BuildHasher, sync::Arc};

use super::{
    KeyType, Label, Tier,
    rows::{Finder, Rows, RowsBuilder, number},
};

/// One application.
#[derive(Debug, Clone)]
pub struct Application {
    /// Name.
    pub name: Label,
    /// Owner.
    pub owner: Box<str>,
    /// Name of its tier.
    pub tier_name: Arc<Label>,
    /// Application-level tier, counted per user. None: unlimited.
    pub tier: Option<Tier>,
    /// Its rows among the consumer keys.
    pub(super) keys: Box<[u32]>,
}

/// What a consumer key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerKey {
    /// Index of the application.
    pub application: u32,
    /// Environment.
    pub key_type: KeyType,
}

/// Key manager and consumer key → its application.
#[derive(Debug, Clone)]
pub(super) struct ConsumerKeys {
    /// Key managers by the number that rows name them by.
    names: Arc<[Box<str>]>,
    rows: Rows<KeyRow>,
    finder: Finder,
    /// Rows that nothing leads to.
    free: Arc<Vec<u32>>,
}

/// [`ConsumerKeys`] while they are built.
pub(super) struct ConsumerKeysBuilder {
    names: Arc<[Box<str>]>,
    rows: RowsBuilder<KeyRow>,
    finder: Finder,
}

#[derive(Debug, Clone)]
struct KeyRow {
    text: Box<str>,
    key_manager: u16,
    key: ConsumerKey,
}

impl KeyRow {
    fn key(&self) -> (u16, &str) {
        (self.key_manager, &self.text)
    }
}

/// By which a row is found.
fn hashed(hasher: &impl BuildHasher, row: Option<&KeyRow>) -> u64 {
    hasher.hash_one(row.map_or((0, ""), KeyRow::key))
}

impl ConsumerKeysBuilder {
    pub(super) fn new(key_managers: &[String]) -> Self {
        let names = key_managers.iter().map(|name| name.as_str().into()).collect();
        Self { names, rows: RowsBuilder::new(), finder: Finder::default() }
    }

    /// Adds a key and gives its row; the one that is there already wins and is handed back.
    pub(super) fn add(&mut self, key_manager: &str, text: &str, key: ConsumerKey) -> Result<u32, ConsumerKey> {
        let key_manager = number_of(&self.names, key_manager).unwrap_or_default();
        let hash = self.finder.hash((key_manager, text));
        let is_it = |row| self.rows.get(row).is_some_and(|row| row.key() == (key_manager, text));
        if let Some(earlier) = self.finder.find(hash, is_it).and_then(|row| self.rows.get(row)) {
            return Err(earlier.key);
        }
        let place = number(self.rows.len());
        self.rows.push(KeyRow { text: text.into(), key_manager, key });
        let rows = &self.rows;
        self.finder.add(hash, place, |hasher, row| hashed(hasher, rows.get(row)));
        Ok(place)
    }

    pub(super) fn finish(mut self) -> ConsumerKeys {
        let rows = self.rows.finish();
        self.finder.shrink(|hasher, row| hashed(hasher, rows.get(row as usize)));
        ConsumerKeys { names: self.names, rows, finder: self.finder, free: Arc::default() }
    }
}

impl ConsumerKeys {
    #[inline]
    pub(super) fn get(&self, key_manager: &str, text: &str) -> Option<ConsumerKey> {
        let key = (number_of(&self.names, key_manager)?, text);
        let is_it = |row: u32| self.rows.get(row as usize).is_some_and(|row| row.key() == key);
        let row = self.finder.find(self.finder.hash(key), is_it)?;
        self.rows.get(row as usize).map(|row| row.key)
    }

    /// Whether one of these rows is a key manager's and opens that environment.
    pub(super) fn has(&self, rows: &[u32], key_manager: &str, key_type: KeyType) -> bool {
        let Some(key_manager) = number_of(&self.names, key_manager) else { return false };
        let is_it = |row: &KeyRow| row.key_manager == key_manager && row.key.key_type == key_type;
        rows.iter().any(|&row| self.rows.get(row as usize).is_some_and(is_it))
    }

    /// Adds a key that is not there yet, and gives its row.
    pub(super) fn put(&mut self, key_manager: &str, text: &str, key: ConsumerKey) -> u32 {
        let key_manager = number_of(&self.names, key_manager).unwrap_or_default();
        let place = Arc::make_mut(&mut self.free).pop().unwrap_or_else(|| number(self.rows.len()));
        self.rows.put(place as usize, KeyRow { text: text.into(), key_manager, key });
        let rows = &self.rows;
        self.finder
            .add(self.finder.hash((key_manager, text)), place, |hasher, row| hashed(hasher, rows.get(row as usize)));
        place
    }

    /// Takes keys away by their rows.
    pub(super) fn remove(&mut self, rows: &[u32]) {
        for &row in rows {
            if let Some(it) = self.rows.get(row as usize) {
                self.finder.remove(self.finder.hash(it.key()), row);
            }
        }
        Arc::make_mut(&mut self.free).extend_from_slice(rows);
    }
}

/// The number of a key manager; every key's is one of the settings.
fn number_of(names: &[Box<str>], name: &str) -> Option<u16> {
    names.iter().position(|it| **it == *name).and_then(|n| u16::try_from(n).ok())
}
