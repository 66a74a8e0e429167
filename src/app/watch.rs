//! Tells when the configuration file may have changed.
//!
//! The folder is watched, not the file: editors replace files, and Kubernetes swaps a link beside them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::mpsc, time};

use crate::config::{Stamps, TablesSettings, folder_of};

/// Watches the folders of a configuration and of its tables' files until dropped.
#[derive(Debug)]
pub(super) struct FileWatch {
    file: PathBuf,
    tables: TablesSettings,
    seen: Seen,
    folders: BTreeSet<PathBuf>,
    /// Something has stirred that was not looked at yet.
    stirred: bool,
    changes: mpsc::Receiver<()>,
    watcher: RecommendedWatcher,
}

/// What the files hold. A configuration is compared by its text; tables, which may be large, by their stamps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    text: Option<Vec<u8>>,
    tables: Stamps,
}

impl FileWatch {
    /// Starts watching. What the file holds now is not a change, nor what was read of its tables.
    pub(super) fn start(file: &Path, tables: &TablesSettings, read: Stamps) -> notify::Result<Self> {
        // One waiting signal is enough: it says "look again".
        let (sender, changes) = mpsc::channel(1);
        // Files that changed between their reading and now are looked at soon.
        let _ = sender.try_send(());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        })?;
        let folder = folder_of(file);
        watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        let seen = Seen { text: std::fs::read(file).ok(), tables: read };
        let folders = BTreeSet::from([folder]);
        let (file, tables_of) = (file.to_owned(), TablesSettings::default());
        let mut watch = Self { file, tables: tables_of, seen, folders, stirred: false, changes, watcher };
        watch.watch_tables(tables);
        Ok(watch)
    }

    /// What the files hold now has been taken, or refused: from now on only something else is a change.
    pub(super) fn settle(&mut self) {
        self.seen = self.look();
    }

    /// These are the tables' files now, and this of them was read.
    pub(super) fn follow(&mut self, (tables, read): (&TablesSettings, Option<&Stamps>)) {
        if *tables != self.tables {
            self.watch_tables(tables);
            self.seen.tables = read.cloned().unwrap_or_else(|| tables.stamps());
        }
    }

    fn watch_tables(&mut self, tables: &TablesSettings) {
        self.tables = tables.clone();
        for folder in tables.folders() {
            if self.folders.contains(&folder) {
                continue;
            }
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.folders.insert(folder)),
                Err(error) => {
                    let folder = folder.display();
                    tracing::warn!(%error, %folder, "tables are not watched there; SIGHUP reloads them");
                }
            }
        }
    }

    fn look(&self) -> Seen {
        Seen { text: std::fs::read(&self.file).ok(), tables: self.tables.stamps() }
    }

    /// Waits until a file holds something else. May be dropped and asked again.
    pub(super) async fn changed(&mut self) {
        loop {
            if !self.stirred && self.changes.recv().await.is_none() {
                // The watcher is gone with its thread; SIGHUP still reloads.
                std::future::pending::<()>().await;
            }
            self.stirred = true;
            let mut holds = self.look();
            loop {
                // Writers take a moment, and say so several times.
                time::sleep(SETTLE).await;
                while self.changes.try_recv().is_ok() {}
                let now = self.look();
                if now.tables == holds.tables {
                    holds = now;
                    break;
                }
                holds = now;
            }
            self.stirred = false;
            // A file that is gone for a moment is being replaced: the next signal tells.
            let whole = holds.text.is_some() && holds.tables.iter().all(|(_, stamp)| stamp.is_some());
            if whole && holds != self.seen {
                self.seen = holds;
                return;
            }
        }
    }
}

const SETTLE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_file_is_a_change_and_a_touched_one_is_not() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("tollgate.toml");
        std::fs::write(&file, "a")?;
        let mut watch = FileWatch::start(&file, &TablesSettings::default(), Stamps::new())?;
        std::fs::write(&file, "a")?;
        std::fs::write(folder.path().join("other"), "x")?;
        assert!(time::timeout(Duration::from_millis(400), watch.changed()).await.is_err());
        std::fs::write(folder.path().join("next"), "b")?;
        std::fs::rename(folder.path().join("next"), &file)?;
        time::timeout(Duration::from_secs(20), watch.changed()).await?;
        Ok(())
    }
}
