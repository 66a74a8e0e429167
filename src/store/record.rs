//! The record: rows that outlive the process, in one `redb` file of this machine, or in memory.
//!
//! Whoever owns rows declares a [`Table`] of them; this module knows no table but its own. One thread writes:
//! changes that wait share one commit, and each is acknowledged only after its commit is durable, so that a
//! process killed at any moment loses nothing acknowledged ([`Record::followed`] is for steps that are not the last).
//! Readers see committed rows and never wait for it.
//!
//! Rows are JSON: fields may be added with a default; anything else counts [`SCHEMA`] up.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    marker::PhantomData,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use prometheus::{IntCounter, Registry};
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageError,
    TableDefinition, TableError, WriteTransaction,
    backends::{FileBackend, InMemoryBackend},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use super::writer::{Job, Keep, Work, write_all};
use crate::net::cpu;

/// Rows of one kind, by key.
#[derive(Debug)]
pub struct Table<V> {
    name: &'static str,
    rows: PhantomData<fn() -> V>,
}

/// A handle on the record; clones share it. The file is closed with the last one.
#[derive(Debug, Clone)]
pub struct Record(Arc<Inner>, Purpose);

/// What a handle is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Its changes are kept.
    Keep,
    /// Those that take another along are kept with the one that follows.
    Followed,
    /// Each of them is undone once it has told what would come of it.
    Rehearse,
}

#[derive(Debug)]
struct Inner {
    database: Arc<Database>,
    /// None: it is being closed.
    jobs: Option<mpsc::SyncSender<Box<dyn Job>>>,
    writer: Option<JoinHandle<()>>,
    counted: Counted,
    in_memory: bool,
}

/// What the writer has done.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    /// Each waits for the disk once.
    pub(super) commits: IntCounter,
    /// Those that were kept.
    pub(super) changes: IntCounter,
    /// Counts up when what is committed can be seen, before anybody is told of it.
    pub(super) generation: Arc<AtomicU64>,
    /// Whether it takes no change any more.
    pub(super) failed: Arc<AtomicBool>,
}

/// Why the record cannot be opened, read or written. Never holds a row.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or made.
    #[error("cannot open {path}: {why}; its folder must exist, and the file be this user's to read and write", path = .path.display())]
    Open {
        /// Path of the file.
        path: PathBuf,
        /// What the system said.
        why: Arc<str>,
    },
    /// Another process has it.
    #[error("{path} is in use by another process; stop that one, or give each a file of its own", path = .path.display())]
    InUse {
        /// Path of the file.
        path: PathBuf,
    },
    /// A newer Tollgate wrote it.
    #[error("{path} was written by a newer Tollgate (schema {found}, this one knows {SCHEMA}); run that one, or restore a copy from before", path = .path.display())]
    Newer {
        /// Path of the file.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// It is something else, or damaged.
    #[error("{path} is no record of Tollgate, or is damaged: {why}; restore a copy, or move it away to begin an empty one", path = .path.display())]
    Foreign {
        /// Path of the file.
        path: PathBuf,
        /// What was found.
        why: Arc<str>,
    },
    /// It was open, and now cannot be read or written.
    #[error("the record cannot be used: {0}")]
    Storage(Arc<str>),
    /// A row is not what its table holds.
    #[error("a row of table {table} cannot be read: {why}")]
    Row {
        /// The table.
        table: &'static str,
        /// Where and why; not the row.
        why: Arc<str>,
    },
    /// More changes wait than can be taken.
    #[error("too many changes wait to be written")]
    Busy,
    /// Its thread has ended.
    #[error("the record is closed")]
    Closed,
}

/// Changes to the newest rows, all or none of which are kept.
#[expect(missing_debug_implementations, reason = "the transaction has none")]
pub struct Changes<'t>(pub(super) &'t WriteTransaction);

/// Rows of one moment.
#[derive(Debug)]
pub struct View(ReadTransaction);

impl<V> Table<V> {
    /// The table `name`. Two owners never use one name.
    pub const fn new(name: &'static str) -> Self {
        Self { name, rows: PhantomData }
    }

    const fn definition(&self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.name)
    }
}

impl Record {
    /// Opens the file at `path`, or makes it, readable by this user alone. Only one process can have it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::Open { path: path.into(), why: error.to_string().into() };
        let file = private_file(path).map_err(failed)?;
        let backend = FileBackend::new(file).map_err(|error| opening(path, error))?;
        let database = builder().create_with_backend(backend).map_err(|error| opening(path, error))?;
        let foreign = |why: Error| Error::Foreign { path: path.into(), why: why.to_string().into() };
        let found = settle_schema(&database).map_err(foreign)?;
        if found > SCHEMA {
            return Err(Error::Newer { path: path.into(), found });
        }
        keep_private(path).map_err(failed)?;
        Self::start(database, false)
    }

    /// A record that ends with the process.
    pub fn in_memory() -> Result<Self, Error> {
        Self::start(builder().create_with_backend(InMemoryBackend::new()).map_err(storage)?, true)
    }

    fn start(database: Database, in_memory: bool) -> Result<Self, Error> {
        let database = Arc::new(database);
        let (jobs, waiting) = mpsc::sync_channel(MOST_WAITING);
        let counted = Counted::new().map_err(storage)?;
        let (writes, counts) = (Arc::clone(&database), counted.clone());
        let writer = thread::Builder::new().name("record".into()).spawn(move || {
            cpu::give_way();
            write_all(&writes, &waiting, &counts);
        });
        let writer = Some(writer.map_err(storage)?);
        let inner = Inner { database, jobs: Some(jobs), writer, counted, in_memory };
        Ok(Self(Arc::new(inner), Purpose::Keep))
    }

    /// Shows in `registry` how many commits it has made, and of how many changes.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.0.counted.commits.clone()))?;
        registry.register(Box::new(self.0.counted.changes.clone()))
    }

    /// Becomes true when its disk has failed: then it takes no change until the process is started again.
    pub fn failed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.counted.failed)
    }

    /// Whether it ends with the process.
    pub fn is_in_memory(&self) -> bool {
        self.0.in_memory
    }

    /// The same record, for trying changes: each is run on the newest rows and undone. What one of them would have
    /// written the next does not see.
    pub fn rehearsal(&self) -> Self {
        Self(Arc::clone(&self.0), Purpose::Rehearse)
    }

    /// Whether no change made by this handle is kept.
    pub fn is_rehearsal(&self) -> bool {
        self.1 == Purpose::Rehearse
    }

    /// The same record, for whoever is asked for a step of a larger change. A change of its that takes another along
    /// ([`Self::along`]) is seen at once, and is durable with the next one of the record: it does not wait for the disk,
    /// since nobody is told of the whole before its end. A crash between both loses both, as if nothing had been asked.
    pub fn followed(&self) -> Self {
        Self(Arc::clone(&self.0), Purpose::Followed)
    }

    /// Another one than before once anything has been committed.
    pub(super) fn generation(&self) -> u64 {
        self.0.counted.generation.load(Ordering::Acquire)
    }

    /// Whether both are handles on one record.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The rows as they are now.
    pub fn view(&self) -> Result<View, Error> {
        self.0.database.begin_read().map(View).map_err(storage)
    }

    /// One row as it is now.
    pub fn get<V: DeserializeOwned>(&self, table: &Table<V>, key: &[u8]) -> Result<Option<V>, Error> {
        self.view()?.get(table, key)
    }

    /// Runs `change` on the newest rows, and gives back what it gave once its writes are durable (see [`Self::followed`]
    /// for the exception). Changes run one after the other. It may run again where another change of the same commit
    /// failed; an error undoes it.
    pub async fn change<T, F>(&self, mut change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Changes<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (sender, outcome) = oneshot::channel();
        let mut along = if self.is_rehearsal() { None } else { self.companion() };
        let keep = match self.1 {
            Purpose::Followed if along.is_some() => Keep::WithTheNext,
            _ => self.keep(),
        };
        let both = move |changes: &Changes<'_>| {
            let gave = change(changes)?;
            along.as_mut().map_or(Ok(()), |along| along(changes))?;
            Ok(gave)
        };
        self.submit(both, keep, move |outcome| drop(sender.send(outcome)))?;
        outcome.await.unwrap_or(Err(Error::Closed))
    }

    /// Like [`Self::change`], for whoever may block: at start, and while a configuration is taken over.
    pub fn change_blocking<T, F>(&self, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Changes<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (sender, outcome) = mpsc::sync_channel(1);
        self.submit(change, self.keep(), move |outcome| drop(sender.send(outcome)))?;
        outcome.recv().unwrap_or(Err(Error::Closed))
    }

    const fn keep(&self) -> Keep {
        match self.1 {
            Purpose::Keep | Purpose::Followed => Keep::Now,
            Purpose::Rehearse => Keep::Not,
        }
    }

    fn submit<T, F, R>(&self, run: F, keep: Keep, reply: R) -> Result<(), Error>
    where
        T: Send + 'static,
        F: FnMut(&Changes<'_>) -> Result<T, Error> + Send + 'static,
        R: FnOnce(Result<T, Error>) + Send + 'static,
    {
        let jobs = self.0.jobs.as_ref().ok_or(Error::Closed)?;
        jobs.try_send(Box::new(Work::new(run, reply, keep))).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => Error::Busy,
            mpsc::TrySendError::Disconnected(_) => Error::Closed,
        })
    }
}

impl Drop for Inner {
    /// Waits for the writer, so that the file is whole and free afterwards.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Changes<'_> {
    /// One row.
    pub fn get<V: DeserializeOwned>(&self, table: &Table<V>, key: &[u8]) -> Result<Option<V>, Error> {
        Ok(get(table, &self.0.open_table(table.definition()).map_err(storage)?, key)?.map(|(row, _)| row))
    }

    /// At most `most` rows whose keys begin with `prefix`, in the order of their keys.
    pub fn rows<V: DeserializeOwned>(&self, table: &Table<V>, prefix: &[u8], most: usize) -> Rows<V> {
        rows(table, &self.0.open_table(table.definition()).map_err(storage)?, prefix, prefix, most)
    }

    /// How many rows the table has.
    pub fn len<V>(&self, table: &Table<V>) -> Result<u64, Error> {
        self.0.open_table(table.definition()).map_err(storage)?.len().map_err(storage)
    }

    /// Writes a row, in place of the one that was there.
    pub fn put<V: Serialize>(&self, table: &Table<V>, key: &[u8], row: &V) -> Result<(), Error> {
        let text = serde_json::to_vec(row).map_err(|error| unreadable(table, &error))?;
        self.0.open_table(table.definition()).map_err(storage)?.insert(key, &*text).map_err(storage)?;
        Ok(())
    }

    /// Removes a row, and tells whether there was one.
    pub fn remove<V>(&self, table: &Table<V>, key: &[u8]) -> Result<bool, Error> {
        let mut rows = self.0.open_table(table.definition()).map_err(storage)?;
        Ok(rows.remove(key).map_err(storage)?.is_some())
    }
}

impl View {
    /// One row.
    pub fn get<V: DeserializeOwned>(&self, table: &Table<V>, key: &[u8]) -> Result<Option<V>, Error> {
        Ok(self.measured(table, key)?.map(|(row, _)| row))
    }

    /// One row, and the bytes of its text.
    pub(super) fn measured<V: DeserializeOwned>(
        &self,
        table: &Table<V>,
        key: &[u8],
    ) -> Result<Option<(V, usize)>, Error> {
        match self.0.open_table(table.definition()) {
            Ok(rows) => get(table, &rows, key),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(storage(error)),
        }
    }

    /// At most `most` rows whose keys begin with `prefix`, in the order of their keys.
    pub fn rows<V: DeserializeOwned>(&self, table: &Table<V>, prefix: &[u8], most: usize) -> Rows<V> {
        self.rows_from(table, prefix, prefix, most)
    }

    /// Like [`Self::rows`], those that come after the key `after`: the next page.
    pub fn page<V: DeserializeOwned>(&self, table: &Table<V>, prefix: &[u8], after: &[u8], most: usize) -> Rows<V> {
        // No key lies between a key and itself with a 0 behind it.
        self.rows_from(table, prefix, &[after, &[0]].concat(), most)
    }

    fn rows_from<V: DeserializeOwned>(&self, table: &Table<V>, prefix: &[u8], from: &[u8], most: usize) -> Rows<V> {
        match self.0.open_table(table.definition()) {
            Ok(found) => rows(table, &found, prefix, from, most),
            Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(storage(error)),
        }
    }
}

/// Keys and rows.
pub type Rows<V> = Result<Vec<(Vec<u8>, V)>, Error>;

type Bytes = &'static [u8];

fn get<V: DeserializeOwned>(
    table: &Table<V>,
    rows: &impl ReadableTable<Bytes, Bytes>,
    key: &[u8],
) -> Result<Option<(V, usize)>, Error> {
    let Some(row) = rows.get(key).map_err(storage)? else { return Ok(None) };
    let text = row.value();
    let row = serde_json::from_slice(text).map_err(|error| unreadable(table, &error))?;
    Ok(Some((row, text.len())))
}

fn rows<V: DeserializeOwned>(
    table: &Table<V>,
    rows: &impl ReadableTable<Bytes, Bytes>,
    prefix: &[u8],
    from: &[u8],
    most: usize,
) -> Rows<V> {
    let mut found = Vec::new();
    for row in rows.range(from.max(prefix)..).map_err(storage)?.take(most) {
        let (key, row) = row.map_err(storage)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        let value = serde_json::from_slice(row.value()).map_err(|error| unreadable(table, &error))?;
        found.push((key.value().to_vec(), value));
    }
    Ok(found)
}

impl Counted {
    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            commits: IntCounter::new("tollgate_record_commits_total", "Durable commits of the record.")?,
            changes: IntCounter::new("tollgate_record_changes_total", "Changes of the record that were kept.")?,
            generation: Arc::default(),
            failed: Arc::default(),
        })
    }
}

/// The file's schema, which is written where there is none yet.
fn settle_schema(database: &Database) -> Result<u32, Error> {
    let found = View(database.begin_read().map_err(storage)?).get(&META, META_SCHEMA)?;
    if let Some(found @ SCHEMA..) = found {
        return Ok(found);
    }
    let transaction = database.begin_write().map_err(storage)?;
    Changes(&transaction).put(&META, META_SCHEMA, &SCHEMA)?;
    transaction.commit().map_err(storage)?;
    Ok(SCHEMA)
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)
}

/// It may hold private keys, whoever made it. Only for a file that is ours: a wrong path is left alone.
fn keep_private(path: &Path) -> io::Result<()> {
    match fs::metadata(path)?.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => fs::set_permissions(path, Permissions::from_mode(MODE)),
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

fn opening(path: &Path, error: DatabaseError) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Error::InUse { path: path.into() },
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
            Error::Open { path: path.into(), why: error.to_string().into() }
        }
        error => Error::Foreign { path: path.into(), why: error.to_string().into() },
    }
}

pub(super) fn storage(error: impl std::fmt::Display) -> Error {
    Error::Storage(error.to_string().into())
}

/// serde's own words name fields and places, not values of ours; a wrong type is told with its value, so only the
/// place is kept.
fn unreadable<V>(table: &Table<V>, error: &serde_json::Error) -> Error {
    Error::Row { table: table.name, why: format!("line {} column {}", error.line(), error.column()).into() }
}

/// The version of what stands in the file.
pub const SCHEMA: u32 = 1;
const META: Table<u32> = Table::new("meta");
const META_SCHEMA: &[u8] = b"schema";
const MODE: u32 = 0o600;
const CACHE: usize = 16 << 20;
const MOST_WAITING: usize = 1024;

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
