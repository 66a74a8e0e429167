//! What a connector has to remember of its provider, such as the registration access tokens of RFC 7592.

use std::{collections::BTreeMap, fmt::Debug};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Error, Result};
use crate::store::record::{self, Changes, Record, Table};

/// Texts by key, of one key manager. They outlive the process where the record does.
#[async_trait]
pub trait Memory: Debug + Send + Sync {
    /// Keeps `text` under `key`, in place of what was there; durable when it returns.
    async fn remember(&self, key: &str, text: &str) -> Result<()>;

    /// What is kept under `key`.
    async fn recall(&self, key: &str) -> Result<Option<String>>;

    /// Drops what is kept under `key`, if anything is.
    async fn forget(&self, key: &str) -> Result<()>;
}

/// A memory in the record, of the key manager of that name.
#[derive(Debug)]
pub struct Kept {
    record: Record,
    key_manager: Box<str>,
}

/// A memory that ends with the process.
#[derive(Debug, Default)]
pub struct Passing(Mutex<BTreeMap<String, String>>);

impl Kept {
    /// The memory of this key manager.
    pub fn new(record: Record, key_manager: &str) -> Self {
        Self { record, key_manager: key_manager.into() }
    }

    fn key(&self, key: &str) -> Vec<u8> {
        [&*prefix(&self.key_manager), key.as_bytes()].concat()
    }
}

#[async_trait]
impl Memory for Kept {
    async fn remember(&self, key: &str, text: &str) -> Result<()> {
        let (key, text) = (self.key(key), text.to_owned());
        self.record.change(move |changes| changes.put(&MEMORIES, &key, &text)).await.map_err(unkept)
    }

    async fn recall(&self, key: &str) -> Result<Option<String>> {
        self.record.get(&MEMORIES, &self.key(key)).map_err(unkept)
    }

    async fn forget(&self, key: &str) -> Result<()> {
        let key = self.key(key);
        self.record.change(move |changes| changes.remove(&MEMORIES, &key).map(drop)).await.map_err(unkept)
    }
}

#[async_trait]
impl Memory for Passing {
    async fn remember(&self, key: &str, text: &str) -> Result<()> {
        self.0.lock().insert(key.to_owned(), text.to_owned());
        Ok(())
    }

    async fn recall(&self, key: &str) -> Result<Option<String>> {
        Ok(self.0.lock().get(key).cloned())
    }

    async fn forget(&self, key: &str) -> Result<()> {
        self.0.lock().remove(key);
        Ok(())
    }
}

/// Drops all that is kept of a key manager.
pub(super) fn forget_all(changes: &Changes<'_>, key_manager: &str) -> std::result::Result<(), record::Error> {
    loop {
        let some = changes.rows(&MEMORIES, &prefix(key_manager), PAGE)?;
        if some.is_empty() {
            return Ok(());
        }
        some.iter().try_for_each(|(key, _)| changes.remove(&MEMORIES, key).map(drop))?;
    }
}

/// Names have no control characters: none is the beginning of another's keys.
fn prefix(key_manager: &str) -> Vec<u8> {
    format!("{key_manager}\n").into_bytes()
}

fn unkept(error: record::Error) -> Error {
    Error::Record(error.to_string())
}

/// Secrets stand in it: the record's file is this user's alone.
const MEMORIES: Table<String> = Table::new("keymanager_memories");
const PAGE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_key_manager_remembers_its_own() {
        let record = Record::in_memory().unwrap();
        let (one, other) = (Kept::new(record.clone(), "one"), Kept::new(record, "other"));
        one.remember("client/a", "1").await.unwrap();
        one.remember("client/a", "2").await.unwrap();
        other.remember("client/a", "3").await.unwrap();
        assert_eq!(one.recall("client/a").await.unwrap().as_deref(), Some("2"));
        one.forget("client/a").await.unwrap();
        one.forget("client/a").await.unwrap();
        assert_eq!(one.recall("client/a").await.unwrap(), None);
        assert_eq!(other.recall("client/a").await.unwrap().as_deref(), Some("3"));
        one.remember("client/b", "4").await.unwrap();
        one.record.change(|changes| forget_all(changes, "one")).await.unwrap();
        assert_eq!(one.recall("client/b").await.unwrap(), None);
        assert_eq!(other.recall("client/a").await.unwrap().as_deref(), Some("3"));
    }
}
