//! Tells when the configuration file may have changed.
//!
//! The folder is watched, not the file: editors replace files, and Kubernetes swaps a link beside them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::mpsc, time};

/// Watches a file's folder until dropped.
#[derive(Debug)]
pub(super) struct FileWatch {
    file: PathBuf,
    seen: Option<Vec<u8>>,
    changes: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl FileWatch {
    /// Starts watching. What the file holds now is not a change.
    pub(super) fn start(file: &Path) -> notify::Result<Self> {
        // One waiting signal is enough: it says "look again".
        let (sender, changes) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        })?;
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(Self { file: file.to_owned(), seen: std::fs::read(file).ok(), changes, _watcher: watcher })
    }

    /// What the file holds now has been taken, or refused: from now on only something else is a change.
    pub(super) fn settle(&mut self) {
        self.seen = std::fs::read(&self.file).ok();
    }

    /// Waits until the file holds something else.
    pub(super) async fn changed(&mut self) {
        loop {
            if self.changes.recv().await.is_none() {
                // The watcher is gone with its thread; SIGHUP still reloads.
                std::future::pending::<()>().await;
            }
            // Writers take a moment, and say so several times.
            time::sleep(SETTLE).await;
            while self.changes.try_recv().is_ok() {}
            let holds = std::fs::read(&self.file).ok();
            // A file that is gone for a moment is being replaced: the next signal tells.
            if holds.is_some() && holds != self.seen {
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
        let mut watch = FileWatch::start(&file)?;
        std::fs::write(&file, "a")?;
        std::fs::write(folder.path().join("other"), "x")?;
        assert!(time::timeout(Duration::from_millis(400), watch.changed()).await.is_err());
        std::fs::write(folder.path().join("next"), "b")?;
        std::fs::rename(folder.path().join("next"), &file)?;
        time::timeout(Duration::from_secs(20), watch.changed()).await?;
        Ok(())
    }
}
