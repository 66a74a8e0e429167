//! The one path of every operation: the key manager, whether it can, whether the request is good, then the provider,
//! then the record with the audit in one change, then what must be felt at once, then the metrics.
//!
//! Called on the management thread, by a task of its own that no client can end by going away.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use parking_lot::Mutex;
use prometheus::Registry as Prometheus;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::{
    Error, Managed, Operation, Registry, Result, begun,
    metrics::Metrics,
    rows::{AUDIT, AuditEntry, MAPPINGS, Mapping, PendingRow, RevokedRow, RowChange, joined},
    task::{Task, overtakes},
    told::told,
};
use crate::{
    net::Clock,
    problem::Problem,
    store::{
        Revocations, Store,
        recent::Recent,
        record::{self, Record},
    },
    token::settings::KeyManagerSettings,
};

/// The operations, over all key managers.
#[derive(Debug)]
pub struct Engine {
    /// The key managers in force.
    pub registry: Registry,
    pub(super) clock: Arc<Clock>,
    pub(super) metrics: Metrics,
    pub(super) assembly: Option<Arc<dyn Assembly>>,
    record: Option<Record>,
    /// The platform's tables, where they are known: what they declare is taken.
    pub(super) tables: Option<Arc<Store>>,
    mappings: Recent<Mapping>,
    pub(super) revocations: Arc<Revocations>,
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// What a process before this one has begun and not ended.
    pub(super) begun_before: Mutex<Vec<(Vec<u8>, AuditEntry)>>,
    /// Whether the process ends now.
    pub(super) cut: watch::Sender<bool>,
}

/// How a stored key manager comes to life: the assembly's affair.
#[async_trait::async_trait]
pub trait Assembly: std::fmt::Debug + Send + Sync {
    /// What is wrong with these settings of a key manager; fields are below `key_managers[0]`.
    fn check(&self, settings: &KeyManagerSettings) -> std::result::Result<(), Vec<Problem>>;

    /// Takes over what is stored, as a changed file is taken over; or tells why not.
    async fn take_over(&self) -> std::result::Result<(), String>;
}

/// Who asks, and how.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// As the audit names it; never a credential.
    pub who: String,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Whoever calls tries again what has timed out: then nothing of that is left for a human.
    pub tries_again: bool,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) caller: Caller,
    pub(super) key_manager: String,
    pub(super) operation: Operation,
    /// What it is about: a consumer key, a scope, an API.
    pub(super) subject: String,
    /// The request without its secrets.
    pub(super) request: Value,
}

impl Asked {
    pub(super) fn new(caller: &Caller, key_manager: &str, operation: Operation, subject: &str) -> Self {
        Self {
            caller: caller.clone(),
            key_manager: key_manager.to_owned(),
            operation,
            subject: subject.to_owned(),
            request: Value::Null,
        }
    }

    pub(super) fn with(self, request: &impl Serialize) -> Self {
        Self { request: told(request), ..self }
    }
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Done<T> {
    /// It is done, and this is what it gave.
    Did(T),
    /// It was a dry run: this would be done.
    Would(Plan),
}

impl<T> Done<T> {
    /// The same with what it gave in another form.
    pub fn map<U>(self, form: impl FnOnce(T) -> U) -> Done<U> {
        match self {
            Self::Did(gave) => Done::Did(form(gave)),
            Self::Would(plan) => Done::Would(plan),
        }
    }

    /// What a reading operation gave: there is no dry run of those.
    pub(super) fn did(self) -> Result<T> {
        match self {
            Self::Did(gave) => Ok(gave),
            Self::Would(_) => Err(Error::Conflict("nothing was done: it was a dry run".into())),
        }
    }
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Always true.
    pub dry_run: bool,
    /// The operation.
    pub operation: String,
    /// At which key manager.
    pub key_manager: String,
    /// About what.
    pub subject: String,
    /// With what, secrets aside; none where the path says all.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(value_type = Object, required = false)]
    pub request: Value,
    /// What the dry run did not find out; none: the change was tried in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub note: Option<&'static str>,
}

/// What a provider's answer leads to here.
#[derive(Debug)]
pub(super) struct Effect<T> {
    pub(super) gave: T,
    pub(super) subject: Option<String>,
    pub(super) before: Value,
    pub(super) after: Value,
    /// What else the audit is to tell.
    pub(super) detail: Option<String>,
    pub(super) rows: Vec<RowChange>,
    pub(super) revoked: Vec<RevokedRow>,
    /// The client that must not stay at the provider if the record cannot be written.
    pub(super) made: Option<String>,
}

impl<T> Effect<T> {
    pub(super) const fn of(gave: T) -> Self {
        Self {
            gave,
            subject: None,
            before: Value::Null,
            after: Value::Null,
            detail: None,
            rows: Vec::new(),
            revoked: Vec::new(),
            made: None,
        }
    }

    pub(super) fn after(self, after: &impl Serialize) -> Self {
        Self { after: told(after), ..self }
    }

    pub(super) fn before(self, before: Value) -> Self {
        Self { before, ..self }
    }

    pub(super) fn row(mut self, row: RowChange) -> Self {
        self.rows.push(row);
        self
    }
}

impl Engine {
    /// An engine without key managers; without a record it changes nothing. Fails where its metrics are registered already.
    pub fn new(
        record: Option<Record>,
        revocations: Arc<Revocations>,
        clock: Arc<Clock>,
        prometheus: &Prometheus,
        assembly: Option<Arc<dyn Assembly>>,
    ) -> std::result::Result<Self, prometheus::Error> {
        Ok(Self {
            registry: Registry::default(),
            clock,
            metrics: Metrics::register(prometheus)?,
            assembly,
            begun_before: Mutex::new(begun::before(record.as_ref())),
            record,
            tables: None,
            mappings: Recent::new(MAPPINGS),
            revocations,
            turns: Mutex::default(),
            cut: watch::Sender::new(false),
        })
    }

    /// The same beside the platform's tables.
    pub fn with_tables(self, tables: Arc<Store>) -> Self {
        Self { tables: Some(tables), ..self }
    }

    /// Does what was asked, along the one path.
    pub(super) async fn perform<T, F>(
        &self,
        asked: Asked,
        checked: Result<()>,
        work: impl FnOnce(Arc<Managed>) -> F,
    ) -> Result<Done<T>>
    where
        F: Future<Output = Result<Effect<T>>>,
    {
        let begun = Instant::now();
        let managed = self.registry.find(&asked.key_manager)?;
        let connector = managed.connector.connector();
        let outcome = self.within_end(self.attempt(&asked, checked, managed, work)).await;
        let label = match &outcome {
            Ok(Done::Did(_)) => "done",
            Ok(Done::Would(_)) => "dry_run",
            Err(error) => error.label(),
        };
        self.metrics.count(asked.operation, connector, label, begun.elapsed());
        outcome
    }

    async fn attempt<T, F>(
        &self,
        asked: &Asked,
        checked: Result<()>,
        managed: Arc<Managed>,
        work: impl FnOnce(Arc<Managed>) -> F,
    ) -> Result<Done<T>>
    where
        F: Future<Output = Result<Effect<T>>>,
    {
        let changes = changes(asked.operation);
        managed.require(asked.operation)?;
        let record = changes.then(|| self.record(asked.operation)).transpose()?;
        checked?;
        // On the way to it a connector may do what is an operation by itself: only this one was asked for.
        let work = async |managed| work(managed).await.map_err(|error| error.of(asked.operation));
        let Some(record) = record else { return work(managed).await.map(|effect| Done::Did(effect.gave)) };
        if asked.caller.dry_run {
            let note = self.dry_run(asked, managed, work).await?;
            return Ok(Done::Would(Plan { note, ..plan(asked) }));
        }
        // What could not be noted would be done and told nowhere. Only tokens are still to be ended.
        let ends_tokens = matches!(asked.operation, Operation::RevokeToken | Operation::RevokeOneTimeToken);
        if record.failed().load(Ordering::Relaxed) && !ends_tokens {
            return Err(Error::Record(DISK_FAILED.into()));
        }
        let (outcome, note) = self.begin(asked, record, work(Arc::clone(&managed))).await;
        let kept = match outcome {
            Ok(effect) => self.keep(asked, &managed, &effect, note.clone()).await.map(|()| effect.gave),
            Err(error) => {
                self.note_failure(asked, &error).await;
                // Whoever asked is told, as the record is, that nobody knows.
                Err(if matches!(error, Error::TimedOut(_)) { error.unclear() } else { error })
            }
        };
        if !matches!(kept, Ok(_) | Err(Error::Record(_))) {
            self.end(note).await;
        }
        kept.map(Done::Did)
    }

    /// The record and the audit in one change; then what must be felt at once.
    async fn keep<T>(
        &self,
        asked: &Asked,
        managed: &Managed,
        effect: &Effect<T>,
        note: Option<RowChange>,
    ) -> Result<()> {
        let entry = AuditEntry {
            subject: effect.subject.clone().unwrap_or_else(|| asked.subject.clone()),
            before: effect.before.clone(),
            after: effect.after.clone(),
            detail: effect.detail.clone(),
            outcome: "done".into(),
            ..self.entry(asked)
        };
        let mut rows = effect.rows.clone();
        rows.extend(effect.revoked.iter().cloned().map(RowChange::Revoke));
        // Scopes that were not bound are as gone as before: nothing was done.
        if asked.operation != Operation::DetachResourceScopes || effect.before != effect.after {
            rows.push(RowChange::Audit(entry.clone()));
        }
        if overtakes(asked.operation) {
            rows.push(RowChange::Overtake(asked.operation, entry));
        }
        rows.extend(note);
        // What the provider has done counts, whether or not it can be noted.
        self.put_in_force(&effect.revoked);
        match (self.change(rows).await, &effect.made) {
            (Ok(()), _) => Ok(()),
            (Err(error), None) => Err(error),
            // Where the provider gave a client that another application has, it is not ours to take back. Only a mapping that
            // is seen tells so: one that cannot be read leaves nothing behind.
            (Err(error), Some(client)) if matches!(self.mapping(&asked.key_manager, client), Ok(Some(_))) => {
                let failed = error.given_twice(client);
                self.note_failure(asked, &failed).await;
                Err(failed)
            }
            (Err(error), Some(client)) => Err(self.undo(asked, managed, client, error).await),
        }
    }

    /// Takes a client back that the provider has made and that cannot be kept here.
    async fn undo(&self, asked: &Asked, managed: &Managed, client: &str, error: Error) -> Error {
        let undone = match managed.require(Operation::DeleteApplication) {
            Ok(()) => managed.connector.delete_application(client).await,
            Err(error) => Err(error),
        };
        let failed = error.undone(undone, format_args!("the client {client}"));
        if matches!(failed, Error::HalfDone { .. }) {
            self.note_left(asked, &failed, Task::DeleteClient { consumer_key: client.to_owned() }).await;
        }
        failed
    }

    /// An operation that failed may have changed something: then that is noted, and what is left.
    pub(super) async fn note_failure(&self, asked: &Asked, error: &Error) {
        let left = match error.cause() {
            Error::HalfDone { left, .. } => left.clone(),
            Error::TimedOut(_) | Error::Unclear(_) if asked.caller.tries_again => return,
            Error::TimedOut(_) | Error::Unclear(_) => {
                format!("{} of {} may have been done", asked.operation.name(), asked.subject)
            }
            _ => return,
        };
        self.note_left(asked, error, Task::Left { left }).await;
    }

    async fn note_left(&self, asked: &Asked, error: &Error, task: Task) {
        let entry = AuditEntry {
            after: asked.request.clone(),
            outcome: error.label().into(),
            detail: Some(error.to_string()),
            ..self.entry(asked)
        };
        let row = self.waiting(asked, task, error);
        if let Err(unkept) = self.change(vec![RowChange::Wait(row), RowChange::Audit(entry)]).await {
            tracing::error!(error = %unkept, left = %error, "what is left at a provider cannot be recorded");
        }
    }

    pub(super) fn waiting(&self, asked: &Asked, task: Task, error: &Error) -> PendingRow {
        let now = self.clock.now().unix_ms;
        PendingRow {
            id: 0,
            key_manager: asked.key_manager.clone(),
            who: asked.caller.who.clone(),
            task,
            since: now,
            attempts: 1,
            next_attempt: now.saturating_add(super::pending::FIRST_WAIT_MS),
            last_error: error.to_string(),
        }
    }

    pub(super) fn entry(&self, asked: &Asked) -> AuditEntry {
        AuditEntry {
            time: self.clock.now().unix_ms,
            who: asked.caller.who.clone(),
            operation: asked.operation.name().to_owned(),
            key_manager: Some(asked.key_manager.clone()),
            subject: asked.subject.clone(),
            ..AuditEntry::default()
        }
    }

    /// Makes these changes, all or none.
    pub(super) async fn change(&self, rows: Vec<RowChange>) -> Result<()> {
        let record = self.record(Operation::LoadConfiguration)?;
        let some_wait = self.metrics.pending.get() > 0;
        let waits = rows.iter().any(|row| match row {
            RowChange::Wait(_) | RowChange::Settle(_) => true,
            RowChange::Overtake(..) | RowChange::Bind { .. } => some_wait,
            _ => false,
        });
        let made = made(record, rows).await?;
        if waits {
            self.count_pending();
        }
        made
    }

    pub(super) fn put_in_force(&self, rows: &[RevokedRow]) {
        rows.iter().filter_map(RevokedRow::revocation).for_each(|row| self.revocations.revoke(row));
    }

    /// The record, without which nothing is changed.
    pub(super) fn record(&self, operation: Operation) -> Result<&Record> {
        self.record.as_ref().ok_or_else(|| Error::Unsupported { operation, reason: NO_STORE.into() })
    }

    /// The present Unix second.
    pub fn now(&self) -> u64 {
        self.clock.now().unix()
    }

    /// The record, if there is one.
    pub fn store(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// The mapping of a client, if it has one.
    pub fn mapping(&self, key_manager: &str, consumer_key: &str) -> Result<Option<Arc<Mapping>>> {
        let Some(record) = &self.record else { return Ok(None) };
        self.mappings.get(record, &joined(&[key_manager, consumer_key])).map_err(unkept)
    }

    /// Lines of the audit after the line `after`, in their order.
    pub fn audit(&self, after: u64, most: usize) -> Result<Vec<AuditEntry>> {
        let Some(record) = &self.record else { return Ok(Vec::new()) };
        let rows = record.view().and_then(|view| view.page(&AUDIT, &[], &after.to_be_bytes(), most));
        Ok(rows.map_err(unkept)?.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Waits until nobody else changes this subject: a condition that is judged holds until it is acted on.
    pub async fn turn(&self, subject: String) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock();
            if turns.len() > MOST_TURNS {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            Arc::clone(turns.entry(subject).or_default())
        };
        turn.lock_owned().await
    }
}

/// Makes these changes, unless something stands against one of them.
pub(super) async fn made(record: &Record, rows: Vec<RowChange>) -> Result<Result<()>> {
    let made = record.change(move |changes| {
        for row in &rows {
            if let Err(refused) = row.check(changes)? {
                return Ok(Err(refused));
            }
        }
        rows.iter().try_for_each(|row| row.apply(changes)).map(Ok)
    });
    made.await.map_err(unkept)
}

/// Whether it changes something, here or there.
pub const fn changes(operation: Operation) -> bool {
    operation.writes()
        || matches!(
            operation,
            Operation::MapOAuthApplication | Operation::DeleteMappedApplication | Operation::LoadConfiguration
        )
}

pub(super) fn plan(asked: &Asked) -> Plan {
    Plan {
        dry_run: true,
        operation: asked.operation.name().to_owned(),
        key_manager: asked.key_manager.clone(),
        subject: asked.subject.clone(),
        request: asked.request.clone(),
        note: None,
    }
}

pub(super) fn unkept(error: record::Error) -> Error {
    Error::Record(error.to_string())
}

const DISK_FAILED: &str = "the record's disk has failed: make room, and start the process again";
pub(super) const NO_STORE: &str = "changes need a [store], and the configuration has none";
const MOST_TURNS: usize = 1024;
