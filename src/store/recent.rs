//! Rows of one table that were read lately, as they are in the program, until something is committed.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use super::record::{Error, Record, Table};

/// Rows by key: each read and parsed once between two commits. Of one record alone.
///
/// Whoever was told of a change reads it, and what was committed before it: the record counts its commits up before it
/// acknowledges what is in them, and what was read before that is no longer given.
#[derive(Debug)]
pub struct Recent<V> {
    table: Table<V>,
    rows: Mutex<Rows<V>>,
}

#[derive(Debug)]
struct Rows<V> {
    /// The commits there were when these were read.
    generation: u64,
    by_key: HashMap<Box<[u8]>, Arc<V>>,
}

impl<V: DeserializeOwned> Recent<V> {
    /// Nothing yet of this table.
    pub fn new(table: Table<V>) -> Self {
        Self { table, rows: Mutex::new(Rows { generation: 0, by_key: HashMap::new() }) }
    }

    /// The row as it is now.
    pub fn get(&self, record: &Record, key: &[u8]) -> Result<Option<Arc<V>>, Error> {
        // Asked before the row is read: a commit in between makes it old.
        let generation = record.generation();
        if let Some(row) = self.rows.lock().at(generation).get(key) {
            return Ok(Some(Arc::clone(row)));
        }
        let Some((row, length)) = record.view()?.measured(&self.table, key)? else { return Ok(None) };
        let row = Arc::new(row);
        if length <= LONGEST {
            self.rows.lock().keep(generation, key, &row);
        }
        Ok(Some(row))
    }
}

impl<V> Rows<V> {
    /// What is not older than that.
    fn at(&mut self, generation: u64) -> &HashMap<Box<[u8]>, Arc<V>> {
        if self.generation < generation {
            self.generation = generation;
            self.by_key.clear();
        }
        &self.by_key
    }

    fn keep(&mut self, generation: u64, key: &[u8], row: &Arc<V>) {
        if self.generation != generation {
            return;
        }
        if self.by_key.len() >= MOST {
            self.by_key.clear();
        }
        self.by_key.insert(key.into(), Arc::clone(row));
    }
}

/// Together with [`LONGEST`] a bound of the memory: a megabyte of text.
const MOST: usize = 256;
/// Bytes of a row's JSON text.
const LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Table<String> = Table::new("names");

    fn put(record: &Record, key: &str, name: &str) {
        let (key, name) = (key.to_owned(), name.to_owned());
        record.change_blocking(move |changes| changes.put(&NAMES, key.as_bytes(), &name)).unwrap();
    }

    #[test]
    fn a_row_is_read_once_until_something_is_committed() {
        let (record, recent) = (Record::in_memory().unwrap(), Recent::new(NAMES));
        put(&record, "a", "ada");
        let first = recent.get(&record, b"a").unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &recent.get(&record, b"a").unwrap().unwrap()));
        put(&record, "b", "bob");
        let second = recent.get(&record, b"a").unwrap().unwrap();
        assert!(!Arc::ptr_eq(&first, &second), "another row's commit counts too");
        put(&record, "a", "eve");
        assert_eq!(*recent.get(&record, b"a").unwrap().unwrap(), "eve");
        record.change_blocking(|changes| changes.remove(&NAMES, b"a")).unwrap();
        assert!(recent.get(&record, b"a").unwrap().is_none(), "what is removed is gone");
    }

    #[test]
    fn what_was_read_before_a_commit_is_not_kept_after_it() {
        let (record, recent) = (Record::in_memory().unwrap(), Recent::new(NAMES));
        let old = record.generation();
        put(&record, "a", "new");
        assert_eq!(*recent.get(&record, b"a").unwrap().unwrap(), "new");
        recent.rows.lock().keep(old, b"a", &Arc::new("old".to_owned()));
        assert_eq!(*recent.get(&record, b"a").unwrap().unwrap(), "new");
    }

    #[test]
    fn who_was_told_of_a_change_reads_it_whoever_reads_beside() {
        let (record, recent) = (Record::in_memory().unwrap(), Recent::new(Table::<u64>::new("numbers")));
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    recent.get(&record, b"n").unwrap();
                }
            });
            for number in 0..500_u64 {
                record.change_blocking(move |changes| changes.put(&Table::new("numbers"), b"n", &number)).unwrap();
                let read = recent.get(&record, b"n").unwrap();
                if read.as_deref() != Some(&number) {
                    stop.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                assert_eq!(read.as_deref(), Some(&number));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn there_is_room_for_so_many_and_for_short_ones() {
        let (record, recent) = (Record::in_memory().unwrap(), Recent::new(NAMES));
        put(&record, "long", &"x".repeat(LONGEST));
        recent.get(&record, b"long").unwrap().unwrap();
        assert!(recent.rows.lock().by_key.is_empty());
        record
            .change_blocking(|changes| {
                (0..=MOST).try_for_each(|n| changes.put(&NAMES, &n.to_be_bytes(), &n.to_string()))
            })
            .unwrap();
        for n in 0..=MOST {
            assert_eq!(*recent.get(&record, &n.to_be_bytes()).unwrap().unwrap(), n.to_string());
            assert!(recent.rows.lock().by_key.len() <= MOST);
        }
    }
}
