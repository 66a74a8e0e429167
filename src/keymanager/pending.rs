//! What is out of step: changes that a provider has not taken, tried again with growing pauses, and what only a human
//! can clear up. All of it stands in the record, so that a restart forgets none.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::{
    task::{AbortHandle, JoinSet},
    time,
};
use utoipa::ToSchema;

use super::{
    Done, Engine, Error, Operation, Plan, Result,
    engine::{Asked, Caller, plan, unkept},
    rows::{AuditEntry, MOST_PENDING, PENDING, PendingRow, RowChange},
    task::Task,
    told::told,
};

/// Something that is not done yet.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// Its number.
    pub id: u64,
    /// The key manager.
    pub key_manager: String,
    /// What is to be done; `none`: it is for a human, who clears it by `DELETE`.
    pub operation: String,
    /// What it is about.
    pub subject: String,
    /// Who asked for it.
    pub who: String,
    /// Since when, in milliseconds since the epoch.
    pub since: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next, in milliseconds since the epoch; none: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<u64>,
    /// Why it failed last.
    pub last_error: String,
}

impl PendingRow {
    /// Whether it counts no more once `operation` was done, or is wanted, of `subject`.
    pub(super) fn is_overtaken(&self, key_manager: &str, operation: Operation, subject: &str) -> bool {
        self.key_manager == key_manager
            && self.task.subject() == subject
            && self.task.overtaken_by().contains(&operation)
    }
}

impl Engine {
    /// What waits at a key manager, in the order it came, after the number `after`.
    pub fn pending(&self, key_manager: &str, after: u64, most: usize) -> Result<Vec<Pending>> {
        self.registry.find(key_manager)?;
        let rows = self.pending_rows(after)?;
        Ok(rows.into_iter().filter(|row| row.key_manager == key_manager).take(most).map(shown).collect())
    }

    /// Forgets what waits: someone has cleared it up.
    pub async fn forget_pending(&self, caller: &Caller, key_manager: &str, id: u64) -> Result<Done<()>> {
        self.registry.find(key_manager)?;
        let record = self.record(Operation::LoadConfiguration)?;
        let row = record.get(&PENDING, &id.to_be_bytes()).map_err(unkept)?;
        let row = row.filter(|row| row.key_manager == key_manager).ok_or(Error::NotFound("pending change"))?;
        let asked = Asked::new(caller, key_manager, Operation::LoadConfiguration, row.task.subject());
        if caller.dry_run {
            return Ok(Done::Would(Plan { operation: FORGET.into(), ..plan(&asked) }));
        }
        let entry = AuditEntry {
            operation: FORGET.into(),
            before: serde_json::json!(shown(row)),
            outcome: "done".into(),
            ..self.entry(&asked)
        };
        self.change(vec![RowChange::Settle(id), RowChange::Audit(entry)]).await.map(Done::Did)
    }

    fn pending_rows(&self, after: u64) -> Result<Vec<PendingRow>> {
        let Some(record) = self.store() else { return Ok(Vec::new()) };
        let rows = record.view().and_then(|view| view.page(&PENDING, &[], &after.to_be_bytes(), MOST_PENDING));
        Ok(rows.map_err(unkept)?.into_iter().map(|(_, row)| row).collect())
    }

    pub(super) fn count_pending(&self) {
        if let Ok(rows) = self.pending_rows(0) {
            self.metrics.pending.set(rows.len().try_into().unwrap_or(i64::MAX));
        }
    }

    /// Whether more can be put off.
    pub(super) fn has_room_to_wait(&self) -> bool {
        self.metrics.pending.get() < MOST_PENDING as i64
    }

    /// Tries what waits, and lets revocations go that have expired, for as long as it is polled.
    pub async fn tend(self: Arc<Self>) {
        if let Err(error) = self.own_up().await {
            tracing::error!(%error, "what a process before this one did not end cannot be put into the audit");
        }
        self.count_pending();
        let mut retries = Retries::default();
        let mut ticks = time::interval(TEND_EVERY);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        for tick in 0_u64.. {
            ticks.tick().await;
            if let Err(error) = self.retry(&mut retries) {
                tracing::warn!(%error, "what waits to be done at providers cannot be read");
                time::sleep(TEND_AGAIN).await;
            }
            if tick.is_multiple_of(SWEEP_EVERY)
                && let Err(error) = self.sweep_revoked().await
            {
                tracing::warn!(%error, "expired revocations cannot be removed");
            }
        }
    }

    /// Tries what is due: a key manager's in order, of what is about one thing only the oldest. A key manager does not wait
    /// for another, whose provider may hang.
    fn retry(self: &Arc<Self>, retries: &mut Retries) -> Result<()> {
        retries.forget_ended();
        if self.metrics.pending.get() == 0 {
            return Ok(());
        }
        let now = self.clock.now().unix_ms;
        let mut met: Vec<(String, String)> = Vec::new();
        let mut due: BTreeMap<String, Vec<PendingRow>> = BTreeMap::new();
        // What is for a human keeps nothing else up.
        for row in self.pending_rows(0)?.into_iter().filter(|row| row.task.operation().is_some()) {
            let about = (row.key_manager.clone(), row.task.subject().to_owned());
            let first = !met.contains(&about);
            met.push(about);
            if first && row.next_attempt <= now && !retries.go_on_at(&row.key_manager) {
                due.entry(row.key_manager.clone()).or_default().push(row);
            }
        }
        for (key_manager, rows) in due {
            let engine = Arc::clone(self);
            retries.begin(key_manager, async move {
                for row in rows {
                    if let Err(error) = engine.retry_one(row).await {
                        tracing::warn!(%error, "what waits to be done at a provider cannot be read or written");
                        return time::sleep(TEND_AGAIN).await;
                    }
                }
            });
        }
        Ok(())
    }

    pub(super) async fn retry_one(&self, row: PendingRow) -> Result<()> {
        let Some(operation) = row.task.operation() else { return Ok(()) };
        let _turn = self.turn(row.task.turn(&row.key_manager)).await;
        let record = self.record(operation)?;
        // Something else may have been wanted meanwhile, or somebody have forgotten it.
        let Some(row) = record.get(&PENDING, &row.id.to_be_bytes()).map_err(unkept)? else { return Ok(()) };
        let Some(operation) = row.task.operation() else { return Ok(()) };
        // Its key manager may have left the configuration, and may come back.
        let outcome = match self.registry.find(&row.key_manager) {
            Ok(managed) => row.task.perform(&managed).await,
            Err(error) => Err(error),
        };
        let asked = Asked::new(
            &Caller { who: row.who.clone(), ..Caller::default() },
            &row.key_manager,
            operation,
            row.task.subject(),
        );
        match outcome {
            Ok(before) => {
                let entry = AuditEntry {
                    before,
                    after: told(&row.task),
                    outcome: "done".into(),
                    detail: Some("tried again".into()),
                    ..self.entry(&asked)
                };
                self.change(vec![RowChange::Settle(row.id), RowChange::Audit(entry)]).await
            }
            // It was not tried.
            Err(Error::LeftAlone { wait }) => {
                let next_attempt = self.clock.now().unix_ms.saturating_add(wait.saturating_mul(1000));
                self.change(vec![RowChange::Later(PendingRow { next_attempt, ..row })]).await
            }
            // It stays, for a human to see and to clear.
            Err(error) if row.task.is_over(&error) => {
                let detail = Some(error.to_string());
                let entry = AuditEntry { outcome: "failed".into(), detail, ..self.entry(&asked) };
                let left = Task::Left { left: row.task.subject().to_owned() };
                let last_error = format!("{}: {error}", operation.name());
                let row = PendingRow { attempts: row.attempts.saturating_add(1), last_error, task: left, ..row };
                self.change(vec![RowChange::Later(row), RowChange::Audit(entry)]).await
            }
            Err(error) => {
                let attempts = row.attempts.saturating_add(1);
                let next_attempt = self.clock.now().unix_ms.saturating_add(pause_ms(attempts));
                self.change(vec![RowChange::Later(PendingRow {
                    attempts,
                    next_attempt,
                    last_error: error.to_string(),
                    ..row
                })])
                .await
            }
        }
    }
}

/// The key managers at which something is being tried. What goes on there ends with this.
#[derive(Debug, Default)]
struct Retries {
    tasks: JoinSet<()>,
    at: HashMap<String, AbortHandle>,
}

impl Retries {
    fn begin(&mut self, key_manager: String, work: impl Future<Output = ()> + Send + 'static) {
        self.at.insert(key_manager, self.tasks.spawn(work));
    }

    fn go_on_at(&self, key_manager: &str) -> bool {
        self.at.contains_key(key_manager)
    }

    fn forget_ended(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.at.retain(|_, task| !task.is_finished());
    }
}

/// A row as it is told.
pub(super) fn shown(row: PendingRow) -> Pending {
    let operation = row.task.operation();
    Pending {
        id: row.id,
        key_manager: row.key_manager,
        operation: operation.map_or("none", Operation::name).to_owned(),
        subject: row.task.subject().to_owned(),
        who: row.who,
        since: row.since,
        attempts: row.attempts,
        next_attempt: operation.map(|_| row.next_attempt),
        last_error: row.last_error,
    }
}

/// Twice as long each time, up to five minutes.
fn pause_ms(attempts: u32) -> u64 {
    FIRST_WAIT_MS.saturating_mul(1 << attempts.saturating_sub(1).min(12)).min(LONGEST_WAIT_MS)
}

/// No operation of WSO2's interface.
const FORGET: &str = "forgetPending";
pub(super) const FIRST_WAIT_MS: u64 = 1000;
const LONGEST_WAIT_MS: u64 = 300_000;
const TEND_EVERY: Duration = Duration::from_millis(500);
/// In ticks: half an hour.
const SWEEP_EVERY: u64 = 3600;
const TEND_AGAIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_somewhere() {
        assert_eq!([1, 2, 3, 9, 40].map(pause_ms), [1000, 2000, 4000, 256_000, 300_000]);
    }
}
