//! What was begun and may not have been ended. A connector whose provider is in our own process, or that remembers
//! something, changes the record before the operation's own rows are written. Its first change takes a note along of who
//! asked for what; the operation's rows take the note away. So a process that ends between both leaves no change that
//! nobody tells of: the next one puts it into the audit.

use std::future::Future;

use super::{
    Engine, Result,
    engine::{Asked, Effect},
    rows::{AuditEntry, BEGUN, PendingRow, RowChange},
    task::Task,
    tokens::random_id,
};
use crate::store::record::Record;

/// Notes of a process before this one.
pub(super) fn before(record: Option<&Record>) -> Vec<(Vec<u8>, AuditEntry)> {
    let Some(record) = record else { return Vec::new() };
    record.view().and_then(|view| view.rows(&BEGUN, &[], usize::MAX)).unwrap_or_else(|error| {
        tracing::error!(%error, "what was begun and not ended before cannot be read");
        Vec::new()
    })
}

impl Engine {
    /// Does what was asked. A note that goes along has to be taken away with the operation's own rows.
    pub(super) async fn begin<T>(
        &self,
        asked: &Asked,
        record: &Record,
        work: impl Future<Output = Result<Effect<T>>>,
    ) -> (Result<Effect<T>>, Option<RowChange>) {
        let key = match random_id() {
            Ok(id) => id.into_bytes(),
            Err(error) => return (Err(error), None),
        };
        let entry = AuditEntry { after: asked.request.clone(), outcome: UNENDED.into(), ..self.entry(asked) };
        let note = key.clone();
        let (outcome, went) = record.along(move |changes| changes.put(&BEGUN, &note, &entry), work).await;
        (outcome, went.then_some(RowChange::Ended(key)))
    }

    /// Takes the note away of what has failed.
    pub(super) async fn end(&self, note: Option<RowChange>) {
        let Some(note) = note else { return };
        if let Err(error) = self.change(vec![note]).await {
            tracing::warn!(%error, "the audit will tell of an operation that failed as of one that was not ended");
        }
    }

    /// Puts into the audit what a process before this one did not end, and leaves it for a human to look after.
    pub(super) async fn own_up(&self) -> Result<()> {
        let notes = self.begun_before.lock().clone();
        for (key, entry) in notes {
            let key_manager = entry.key_manager.clone().unwrap_or_default();
            let left = format!("{} of {} may have been done", entry.operation, entry.subject);
            let row = PendingRow {
                id: 0,
                key_manager,
                who: entry.who.clone(),
                task: Task::Left { left },
                since: entry.time,
                attempts: 1,
                next_attempt: 0,
                last_error: KILLED.into(),
            };
            let entry = AuditEntry { detail: Some(KILLED.into()), ..entry };
            let rows = vec![RowChange::Wait(row), RowChange::Audit(entry), RowChange::Ended(key.clone())];
            self.change(rows).await?;
            self.begun_before.lock().retain(|(known, _)| *known != key);
        }
        Ok(())
    }
}

#[cfg(test)]
impl Engine {
    /// How many notes there are.
    pub(crate) fn begun(&self) -> usize {
        before(self.store()).len()
    }
}

/// The outcome that the audit tells.
const UNENDED: &str = "unended";
const KILLED: &str = "the process ended before it could be noted";
