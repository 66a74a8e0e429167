//! The one that writes the record: changes that wait share a commit. Where none of them has to be durable by itself the
//! commit waits for no disk; those that are only tried are undone, each by itself.

use std::sync::{atomic::Ordering, mpsc};

use redb::{Database, Durability};

use super::record::{Changes, Counted, Error, storage};

/// How a change is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Durably, before it is acknowledged.
    Now,
    /// Seen at once, durable with the next that is.
    WithTheNext,
    /// Not at all: it is tried, and undone.
    Not,
}

/// A change that waits for its turn.
pub(super) trait Job: Send {
    /// How it is kept.
    fn keep(&self) -> Keep;
    /// Does its writes.
    fn run(&mut self, changes: &Changes<'_>) -> Result<(), Error>;
    /// Its commit is made, or has failed.
    fn end(self: Box<Self>, outcome: Result<(), Error>);
}

pub(super) struct Work<T, F, R> {
    run: F,
    reply: R,
    keep: Keep,
    gave: Option<T>,
}

impl<T, F, R> Work<T, F, R> {
    pub(super) const fn new(run: F, reply: R, keep: Keep) -> Self {
        Self { run, reply, keep, gave: None }
    }
}

impl<T, F, R> Job for Work<T, F, R>
where
    T: Send,
    F: FnMut(&Changes<'_>) -> Result<T, Error> + Send,
    R: FnOnce(Result<T, Error>) + Send,
{
    fn keep(&self) -> Keep {
        self.keep
    }

    fn run(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        self.gave = Some((self.run)(changes)?);
        Ok(())
    }

    fn end(self: Box<Self>, outcome: Result<(), Error>) {
        let Self { reply, gave, .. } = *self;
        reply(outcome.and_then(|()| gave.ok_or(Error::Closed)));
    }
}

/// The writer's life.
pub(super) fn write_all(database: &Database, waiting: &mpsc::Receiver<Box<dyn Job>>, counted: &Counted) {
    while let Ok(first) = waiting.recv() {
        let taken = std::iter::once(first).chain(waiting.try_iter().take(MOST_IN_A_COMMIT - 1));
        let (tried, batch): (Vec<_>, Vec<_>) = taken.partition(|job| job.keep() == Keep::Not);
        write(database, batch, counted);
        tried.into_iter().for_each(|job| rehearse(database, job));
    }
}

fn write(database: &Database, mut batch: Vec<Box<dyn Job>>, counted: &Counted) {
    if batch.is_empty() {
        return;
    }
    let outcome = commit(database, &mut batch, counted);
    if let Err(Error::Storage(why)) = &outcome {
        look_after(database, why, counted);
    }
    if batch.len() > 1 && outcome.is_err() {
        // One of them is to blame: the others do not suffer for it.
        for job in batch {
            let mut alone = [job];
            let outcome = commit(database, &mut alone, counted);
            alone.into_iter().for_each(|job| job.end(outcome.clone()));
        }
    } else {
        batch.into_iter().for_each(|job| job.end(outcome.clone()));
    }
}

fn commit(database: &Database, jobs: &mut [Box<dyn Job>], counted: &Counted) -> Result<(), Error> {
    let mut transaction = database.begin_write().map_err(storage)?;
    let durable = jobs.iter().any(|job| job.keep() == Keep::Now);
    if !durable {
        transaction.set_durability(Durability::None).map_err(storage)?;
    }
    let changes = Changes(&transaction);
    for job in &mut *jobs {
        job.run(&changes)?;
    }
    let committed = transaction.commit().map_err(storage);
    // Where it failed too: then nobody knows what can be seen.
    counted.generation.fetch_add(1, Ordering::Release);
    committed?;
    counted.commits.inc_by(durable.into());
    counted.changes.inc_by(jobs.len() as u64);
    Ok(())
}

/// After a disk has failed, be it once, redb takes no change any more until its file is opened anew. Ours then stays as it
/// is: what was acknowledged is there, and changes that were seen and not yet durable would be missed by those who follow.
fn look_after(database: &Database, why: &str, counted: &Counted) {
    if database.try_begin_write().is_ok() || counted.failed.swap(true, Ordering::Relaxed) {
        return;
    }
    tracing::error!(why, "the record takes no change any more: see to its disk, and start the process again");
}

fn rehearse(database: &Database, mut job: Box<dyn Job>) {
    let outcome = database.begin_write().map_err(storage).and_then(|transaction| {
        job.run(&Changes(&transaction))?;
        transaction.abort().map_err(storage)
    });
    job.end(outcome);
}

pub(super) const MOST_IN_A_COMMIT: usize = 256;
