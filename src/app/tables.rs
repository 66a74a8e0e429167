//! Threads of the tables: each version has one, which builds it, and frees it when another has taken its place.
//!
//! An allocator gives back at once what the thread frees that took it, and keeps long what one thread took and another
//! frees. And a million rows take a tenth of a second to free, for which no worker shall stand still that happens to end
//! the last request of theirs.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

use super::reload::{Prepared, Reloader, prepare};
use crate::{config, store::Snapshot};

/// The thread that has built what is in force, or may come to be; it ends with this.
#[derive(Debug)]
pub(super) struct Keeper(Sender<Arc<Snapshot>>);

/// What a thread has built, and the thread.
pub(super) type Built<T> = (T, Keeper);

/// Builds in a thread of its own. No answer: it could not.
pub(super) fn build<T: Send + 'static>(
    build: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<Built<T>>> {
    let ((sender, built), (keeper, replaced)) = (oneshot::channel(), channel());
    thread::Builder::new().name("tables".into()).spawn(move || {
        let _ = sender.send((build(), Keeper(keeper)));
        free(&replaced);
    })?;
    Ok(built)
}

impl Keeper {
    /// Has the thread free the tables that it has built.
    fn free(self, tables: Arc<Snapshot>) {
        // A thread that is gone has nothing to free.
        let _ = self.0.send(tables);
    }
}

/// Waits for the tables, until nobody else holds them, and until the allocator takes what they leave for unused: it
/// looks for that when a thread ends.
fn free(replaced: &Receiver<Arc<Snapshot>>) {
    let Ok(tables) = replaced.recv() else { return };
    let mut pause = LOOK_EVERY;
    while Arc::strong_count(&tables) > 1 {
        thread::sleep(pause);
        // A request may last for days.
        pause = (pause * 2).min(LOOK_AT_LEAST_EVERY);
    }
    drop(tables);
    thread::sleep(REST);
}

/// A configuration that is being read, beside everything else; one at a time.
#[derive(Debug)]
pub(super) struct Preparing {
    in_force: Keeper,
    /// Of what was read last, until it is in force or refused.
    next: Option<Keeper>,
    task: Option<oneshot::Receiver<Built<Result<Prepared, config::Error>>>>,
    /// Something has changed since it began.
    again: bool,
}

impl Preparing {
    pub(super) fn new(in_force: Keeper) -> Self {
        Self { in_force, next: None, task: None, again: false }
    }

    pub(super) fn start(&mut self, reloader: &Option<Reloader>) {
        let Some(reloader) = reloader else {
            tracing::info!("the quickstart has no file to reload");
            return;
        };
        if self.task.is_some() {
            self.again = true;
            return;
        }
        let (file, generation) = reloader.next();
        match build(move || prepare(&file, generation)) {
            Ok(task) => self.task = Some(task),
            Err(error) => tracing::error!(%error, "no thread to read the configuration; the present one stays"),
        }
    }

    /// Waits for what is being read, if anything is. May be dropped and asked again.
    pub(super) async fn done(&mut self) -> Result<Prepared, config::Error> {
        loop {
            let Some(task) = &mut self.task else { return std::future::pending().await };
            let outcome = task.await;
            self.task = None;
            match outcome {
                Ok((prepared, keeper)) => {
                    self.next = Some(keeper);
                    return prepared;
                }
                Err(_) => tracing::error!("the configuration could not be read; the present one stays"),
            }
        }
    }

    /// What was read is in force, and these were before; or it is refused. Begins once more, if something has changed
    /// meanwhile.
    pub(super) fn go_on(&mut self, reloader: &Option<Reloader>, replaced: Option<Arc<Snapshot>>) {
        if let (Some(next), Some(replaced)) = (self.next.take(), replaced) {
            std::mem::replace(&mut self.in_force, next).free(replaced);
        }
        if std::mem::take(&mut self.again) {
            self.start(reloader);
        }
    }
}

/// How often it looks whether tables can be freed, at first and later.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(5);
/// The allocator itself waits a second.
const REST: Duration = Duration::from_millis(1_500);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::Settings;

    #[test]
    fn tables_are_freed_by_who_built_them_when_the_last_request_of_theirs_is_over() {
        let (tables, keeper) =
            build(|| super::super::tables(&Settings::default(), 1)).unwrap().blocking_recv().unwrap();
        let tables = Arc::new(tables.unwrap().0);
        let (request, freed) = (Arc::clone(&tables), Arc::downgrade(&tables));
        keeper.free(tables);
        thread::sleep(LOOK_EVERY * 2);
        assert_eq!(freed.strong_count(), 2, "a request has them still");
        drop(request);
        assert_eq!(freed.strong_count(), 1, "they are not freed by the request");
        let end = Instant::now() + Duration::from_secs(20);
        while freed.strong_count() > 0 {
            assert!(Instant::now() < end, "nobody frees them");
            thread::sleep(LOOK_EVERY);
        }
    }
}
