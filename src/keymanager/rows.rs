//! What the engine keeps in the record, and how one change of it is made.
//!
//! Keys are names parted by a NUL, which no name holds; numbered rows have their number, big-endian, as key.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Error, Operation, memory::forget_all, pending::shown, task::Task};
use crate::store::{
    Revocation, Revoked,
    record::{self, Changes, Table},
};

/// Which client of a provider is whose on the platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mapping {
    /// Its own id.
    pub key_mapping_id: String,
    /// The key manager's name.
    pub key_manager: String,
    /// The consumer key.
    pub consumer_key: String,
    /// The application of the platform that it is for.
    #[serde(rename = "applicationUUID", skip_serializing_if = "Option::is_none", default)]
    pub application_uuid: Option<String>,
    /// Who owns it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    /// `PRODUCTION` or `SANDBOX`.
    pub key_type: String,
    /// Whether it was made here or adopted.
    pub mode: Mode,
}

/// How a client came here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// It was created here.
    #[default]
    Created,
    /// The provider had it.
    Mapped,
}

/// One line of the audit: what was changed, by whom. Never holds a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Its number; they count up.
    pub id: u64,
    /// When, in milliseconds since the epoch.
    pub time: u64,
    /// Who asked for it.
    pub who: String,
    /// The operation.
    pub operation: String,
    /// The key manager, where it was one's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_manager: Option<String>,
    /// What was changed: a consumer key, a scope, an API.
    pub subject: String,
    /// What there was before, as far as it is known.
    #[serde(skip_serializing_if = "Value::is_null", default)]
    #[schema(value_type = Object)]
    pub before: Value,
    /// What there is since.
    #[serde(skip_serializing_if = "Value::is_null", default)]
    #[schema(value_type = Object)]
    pub after: Value,
    /// `done`, or why it failed when something may have changed all the same; `unended`: the process ended before it could
    /// be noted.
    pub outcome: String,
    /// More of that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// A revocation that outlives the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevokedRow {
    /// Which tokens: `jti`, `token`, `client` or `subject`.
    pub kind: String,
    /// The `jti`, SHA-256 of the token in hex, consumer key or `sub`.
    pub value: String,
    /// `iss` of the tokens.
    pub issuer: String,
    /// Of clients and subjects: tokens issued until this Unix second.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<u64>,
    /// Unix second after which no such token is alive; none: for ever.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<u64>,
}

/// What is left to be done at a provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PendingRow {
    pub(super) id: u64,
    pub(super) key_manager: String,
    pub(super) who: String,
    pub(super) task: Task,
    pub(super) since: u64,
    pub(super) attempts: u32,
    /// Milliseconds since the epoch.
    pub(super) next_attempt: u64,
    pub(super) last_error: String,
}

/// One thing that a change of the record does. Run again where another change of the same commit failed.
#[derive(Debug, Clone)]
pub(super) enum RowChange {
    Map {
        mapping: Mapping,
        /// Of a key manager that is stored: its issuer, by which it must still stand.
        stored: Option<String>,
    },
    Unmap {
        key_manager: String,
        consumer_key: String,
    },
    Owner {
        key_manager: String,
        consumer_key: String,
        owner: String,
    },
    Revoke(RevokedRow),
    /// The revocation of this key is lifted.
    Lift(Vec<u8>),
    Configure {
        name: String,
        settings: Value,
    },
    /// A stored key manager goes, with what its connector remembers.
    Unconfigure(String),
    /// Something is to be done later; its id is given by the change.
    Wait(PendingRow),
    /// What waited is done, or no longer wanted.
    Settle(u64),
    /// What waited of the same thing counts no more: this operation was done since, as the line of the audit tells.
    Overtake(Operation, AuditEntry),
    /// Scopes were bound by this operation since, of what waits for the same API: it is not to undo that.
    Bind {
        operation: Operation,
        scopes: Vec<String>,
        by: AuditEntry,
    },
    Later(PendingRow),
    Audit(AuditEntry),
    /// The note of this key, that something was begun, is taken away.
    Ended(Vec<u8>),
}

impl RowChange {
    /// Whether nothing stands against it. Asked of all before any is made.
    pub(super) fn check(&self, changes: &Changes<'_>) -> Result<Result<(), Error>, record::Error> {
        let row = match self {
            Self::Map { mapping, stored } => {
                if let Some(issuer) = stored
                    && !stands(changes, &mapping.key_manager, issuer)?
                {
                    return Ok(Err(Error::Conflict("the key manager was changed or removed meanwhile".into())));
                }
                mapping
            }
            Self::Unconfigure(name) => return in_use(changes, name),
            _ => return Ok(Ok(())),
        };
        if changes.get(&MAPPINGS, &row.key())?.is_some() {
            return Ok(Err(taken_client()));
        }
        match row.application_key() {
            Some(key) if changes.get(&APPLICATIONS, &key)?.is_some() => Ok(Err(taken_application())),
            _ => Ok(Ok(())),
        }
    }

    pub(super) fn apply(&self, changes: &Changes<'_>) -> Result<(), record::Error> {
        match self {
            Self::Map { mapping: row, .. } => {
                if let Some(key) = row.application_key() {
                    changes.put(&APPLICATIONS, &key, &row.consumer_key)?;
                }
                changes.put(&MAPPINGS, &row.key(), row)
            }
            Self::Unmap { key_manager, consumer_key } => unmap(changes, &joined(&[key_manager, consumer_key])),
            Self::Owner { key_manager, consumer_key, owner } => {
                let key = joined(&[key_manager, consumer_key]);
                let Some(mut row) = changes.get(&MAPPINGS, &key)? else { return Ok(()) };
                row.owner = Some(owner.clone());
                changes.put(&MAPPINGS, &key, &row)
            }
            Self::Revoke(row) => {
                let key = row.key();
                let row = changes.get(&REVOKED, &key)?.map_or_else(|| row.clone(), |before| row.or(&before));
                changes.put(&REVOKED, &key, &row)
            }
            Self::Lift(key) => changes.remove(&REVOKED, key).map(drop),
            Self::Unconfigure(name) => {
                changes.remove(&STORED, name.as_bytes())?;
                forget_all(changes, name)
            }
            Self::Configure { name, settings } => changes.put(&STORED, name.as_bytes(), settings),
            Self::Wait(row) => {
                let mut task = row.task.clone();
                if let Some(operation) = row.task.operation() {
                    let by = AuditEntry {
                        time: row.since,
                        who: row.who.clone(),
                        operation: operation.name().into(),
                        key_manager: Some(row.key_manager.clone()),
                        subject: row.task.subject().into(),
                        outcome: "waits itself".into(),
                        ..AuditEntry::default()
                    };
                    task = overtake(changes, operation, &by)?.iter().fold(task, Task::instead_of);
                }
                let id = next(changes, b"pending")?;
                changes.put(&PENDING, &id.to_be_bytes(), &PendingRow { id, task, ..row.clone() })
            }
            Self::Overtake(operation, by) => overtake(changes, *operation, by).map(drop),
            Self::Bind { operation, scopes, by } => bind(changes, *operation, scopes, by),
            Self::Settle(id) => changes.remove(&PENDING, &id.to_be_bytes()).map(drop),
            Self::Ended(key) => changes.remove(&BEGUN, key).map(drop),
            Self::Later(row) => changes.put(&PENDING, &row.id.to_be_bytes(), row),
            Self::Audit(entry) => note(changes, entry.clone()),
        }
    }
}

/// What is wanted of a thing takes the place of what was wanted before, which is given back: that is settled, and the
/// audit tells by what.
fn overtake(changes: &Changes<'_>, operation: Operation, by: &AuditEntry) -> Result<Vec<Task>, record::Error> {
    let mut tasks = Vec::new();
    let key_manager = by.key_manager.as_deref().unwrap_or_default();
    for (key, old) in changes.rows(&PENDING, &[], MOST_PENDING)? {
        if old.is_overtaken(key_manager, operation, &by.subject) {
            changes.remove(&PENDING, &key)?;
            tasks.push(old.task.clone());
            note(changes, settled(old, by))?;
        }
    }
    Ok(tasks)
}

/// That it is settled, and by what.
fn settled(old: PendingRow, by: &AuditEntry) -> AuditEntry {
    AuditEntry {
        operation: "settlePending".into(),
        before: json!(shown(old)),
        after: Value::Null,
        outcome: "done".into(),
        detail: Some(format!("{} came after it: {}", by.operation, by.outcome)),
        ..by.clone()
    }
}

/// What waits for the same API takes in what was bound since, or is settled where nothing is left of it.
fn bind(changes: &Changes<'_>, operation: Operation, keys: &[String], by: &AuditEntry) -> Result<(), record::Error> {
    let key_manager = by.key_manager.as_deref().unwrap_or_default();
    for (key, old) in changes.rows(&PENDING, &[], MOST_PENDING)? {
        if old.key_manager != key_manager || old.task.subject() != by.subject {
            continue;
        }
        match old.task.bound(operation, keys) {
            Some(task) if task == old.task => {}
            Some(task) => {
                let line = AuditEntry {
                    operation: "changePending".into(),
                    before: json!(old.task),
                    after: json!(task),
                    outcome: "done".into(),
                    detail: Some(format!("{} came after it: done", by.operation)),
                    ..by.clone()
                };
                note(changes, line)?;
                changes.put(&PENDING, &key, &PendingRow { task, ..old })?;
            }
            None => {
                changes.remove(&PENDING, &key)?;
                note(changes, settled(old, by))?;
            }
        }
    }
    Ok(())
}

fn note(changes: &Changes<'_>, entry: AuditEntry) -> Result<(), record::Error> {
    let id = next(changes, b"audit")?;
    changes.put(&AUDIT, &id.to_be_bytes(), &AuditEntry { id, ..entry })
}

/// Whether it is stored with this issuer: its removal, and another of its name, count as soon as they are committed, though
/// they may not be in force yet.
fn stands(changes: &Changes<'_>, key_manager: &str, issuer: &str) -> Result<bool, record::Error> {
    let row = changes.get(&STORED, key_manager.as_bytes())?;
    Ok(row.is_some_and(|row| row.get("issuer").and_then(Value::as_str) == Some(issuer)))
}

/// A key manager stays for as long as something here is about it.
fn in_use(changes: &Changes<'_>, key_manager: &str) -> Result<Result<(), Error>, record::Error> {
    let mapped = changes.rows(&MAPPINGS, &joined(&[key_manager, ""]), MOST_NAMED + 1)?;
    if !mapped.is_empty() {
        let mut names: Vec<&str> =
            mapped.iter().take(MOST_NAMED).map(|(_, mapping)| mapping.consumer_key.as_str()).collect();
        if mapped.len() > MOST_NAMED {
            names.push("and more");
        }
        let why = format!("it is in use by these clients, to be deleted or unmapped first: {}", names.join(", "));
        return Ok(Err(Error::Conflict(why.into())));
    }
    let waiting = changes.rows(&PENDING, &[], MOST_PENDING)?;
    let waiting = waiting.into_iter().filter(|(_, row)| row.key_manager == key_manager).map(|(_, row)| row.id);
    let waiting: Vec<String> = waiting.take(MOST_NAMED).map(|id| id.to_string()).collect();
    if waiting.is_empty() {
        return Ok(Ok(()));
    }
    let why = format!("changes wait to be done at it, to be done or forgotten first: {}", waiting.join(", "));
    Ok(Err(Error::Conflict(why.into())))
}

fn unmap(changes: &Changes<'_>, key: &[u8]) -> Result<(), record::Error> {
    let Some(row) = changes.get(&MAPPINGS, key)? else { return Ok(()) };
    changes.remove(&MAPPINGS, key)?;
    if let Some(key) = row.application_key() {
        changes.remove(&APPLICATIONS, &key)?;
    }
    Ok(())
}

fn next(changes: &Changes<'_>, counter: &[u8]) -> Result<u64, record::Error> {
    let next = changes.get(&COUNTERS, counter)?.unwrap_or(0).saturating_add(1);
    changes.put(&COUNTERS, counter, &next)?;
    Ok(next)
}

impl Mapping {
    pub(super) fn key(&self) -> Vec<u8> {
        joined(&[&self.key_manager, &self.consumer_key])
    }

    /// By which one application has one client of a kind at a key manager.
    pub(super) fn application_key(&self) -> Option<Vec<u8>> {
        self.application_uuid.as_ref().map(|uuid| joined(&[uuid, &self.key_manager, &self.key_type]))
    }
}

impl RevokedRow {
    /// By which it is found.
    pub fn key(&self) -> Vec<u8> {
        joined(&[&self.kind, &self.issuer, &self.value])
    }

    /// What refuses whatever one of them refuses, as it is in force: only a revocation that is lifted refuses less.
    fn or(&self, other: &Self) -> Self {
        let until = self.until.zip(other.until).map(|(a, b)| a.max(b));
        Self { before: self.before.max(other.before), until, ..self.clone() }
    }

    /// As the table of revocations has it; none where the row is not what we write.
    pub(super) fn revocation(&self) -> Option<Revocation> {
        let (value, before) = (self.value.as_str(), self.before.unwrap_or(0));
        let what = match self.kind.as_str() {
            "jti" => Revoked::Jti(value.into()),
            "token" => Revoked::Token(from_hex(value)?),
            "client" => Revoked::ConsumerKey { consumer_key: value.into(), before },
            "subject" => Revoked::Subject { subject: value.into(), before },
            _ => return None,
        };
        Some(Revocation { issuer: self.issuer.as_str().into(), what, until: self.until })
    }
}

pub(super) fn taken_client() -> Error {
    Error::conflict("clientId", "this client is mapped already")
}

pub(super) fn taken_application() -> Error {
    Error::conflict("applicationUUID", "the application has a client of this key type at this key manager already")
}

pub(super) fn declared_application() -> Error {
    Error::conflict("applicationUUID", "declared in the file with a client of this key type at this key manager")
}

pub(super) fn joined(parts: &[&str]) -> Vec<u8> {
    parts.join("\0").into_bytes()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0'))
        .collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}

pub(super) const MAPPINGS: Table<Mapping> = Table::new("keymanager.mappings");
pub(super) const APPLICATIONS: Table<String> = Table::new("keymanager.applications");
pub(super) const REVOKED: Table<RevokedRow> = Table::new("keymanager.revoked");
pub(super) const STORED: Table<Value> = Table::new("keymanager.stored");
pub(super) const PENDING: Table<PendingRow> = Table::new("keymanager.pending");
pub(super) const AUDIT: Table<AuditEntry> = Table::new("keymanager.audit");
/// What was begun, until it is ended.
pub(super) const BEGUN: Table<AuditEntry> = Table::new("keymanager.begun");
const COUNTERS: Table<u64> = Table::new("keymanager.counters");

/// Of what stands against something, so much is named.
const MOST_NAMED: usize = 10;

/// Beyond it nothing more is put off: the operation fails instead.
pub(super) const MOST_PENDING: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_and_read() {
        let digest: [u8; 32] = std::array::from_fn(|i| (i * 7) as u8);
        assert_eq!(from_hex(&hex(&digest)), Some(digest));
        assert_eq!(hex(&[0, 15, 255]), "000fff");
        for bad in ["", "zz", &"é".repeat(32), &"g0".repeat(32)] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }
}
