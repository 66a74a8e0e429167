//! `Idempotency-Key`: a POST that is sent again is done once, and answered as it was the first time.
//!
//! The row is there before the operation begins, so that a process that is killed in between does not do it twice: who
//! asks again is then told that nobody knows whether it was done. What
//! was answered may hold a secret: it is kept sealed under the caller's own key, of which the record has no more than a
//! digest.

use std::{collections::HashSet, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::StatusCode;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    answer::{Answer, Problem, Reply},
    ask::Ask,
};
use crate::{
    keymanager::{self, hex},
    store::record::{self, Changes, Record, Table},
};

/// What was found of a key.
#[derive(Debug)]
pub(super) enum Begun {
    /// It has not been here: the operation is to be run.
    New(Ticket),
    /// It has, and this was answered.
    Before(Answer),
}

/// A key whose operation runs.
#[derive(Debug)]
pub(super) struct Ticket {
    row_key: Vec<u8>,
    seal: [u8; 32],
    /// Until the answer is kept.
    _run: Run,
}

/// The keys whose operations this process runs, each by the name that its row has.
#[derive(Debug, Clone, Default)]
pub(super) struct Running(Arc<Mutex<HashSet<String>>>);

/// One of them. It is over when this is dropped, however it came to that.
#[derive(Debug)]
struct Run {
    name: String,
    among: Running,
}

impl Running {
    fn start(&self) -> Result<Run, Problem> {
        let name = keymanager::random_id()?;
        self.0.lock().insert(name.clone());
        Ok(Run { name, among: self.clone() })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.among.0.lock().remove(&self.name);
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    /// SHA-256 of the body.
    body: String,
    /// Unix second.
    at: u64,
    /// None: it runs, or was running when its process ended, or what was answered could not be kept.
    #[serde(default)]
    answer: Option<Sealed>,
    /// Who runs it.
    #[serde(default)]
    run: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sealed {
    nonce: String,
    text: String,
}

/// An answer as it is sealed.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    status: u16,
    body: Option<Value>,
    problem: bool,
}

enum Found {
    New,
    Row(Row),
    /// It has no answer, and is run by somebody.
    Runs(Row),
    Full,
}

/// Whether it can be one.
pub(super) fn check(key: &str) -> Result<(), Problem> {
    if (1..=MOST_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Problem::field("idempotency-key", format!("must be 1 to {MOST_KEY} visible ASCII characters")))
}

/// Claims the key for what is asked, at a rehearsal of the record for nothing that is kept.
pub(super) async fn begin(
    record: &Record,
    running: &Running,
    ask: &Ask,
    key: &str,
    path: &str,
    now: u64,
) -> Result<Begun, Problem> {
    let row_key = digest(&SHA256, [ask.caller.who.as_str(), path, key].join("\0").as_bytes());
    let row_key = row_key.as_ref().to_vec();
    let body = hex(digest(&SHA256, &ask.body).as_ref());
    let run = running.start()?;
    let row = Row { body: body.clone(), at: now, answer: None, run: run.name.clone() };
    let (place, among) = (row_key.clone(), running.clone());
    let found = record.change(move |changes| claim(changes, &among, &place, &row, now)).await;
    let ticket = Ticket { row_key, seal: seal_of(key), _run: run };
    match found {
        Ok(Found::New) => Ok(Begun::New(ticket)),
        Ok(Found::Full) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many idempotency keys are kept")),
        Ok(Found::Row(row) | Found::Runs(row)) if row.body != body => {
            let why = "the idempotency key was used for another body";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why))
        }
        Ok(Found::Runs(_)) => {
            Err(Problem::new(StatusCode::CONFLICT, "the first request with this idempotency key has not been answered"))
        }
        // It is not done again: what was done, a human has to find out.
        Ok(Found::Row(Row { answer: None, .. })) => {
            Ok(Begun::Before(Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, NOBODY_KNOWS))))
        }
        Ok(Found::Row(Row { answer: Some(sealed), .. })) => ticket.open(&sealed).map(Begun::Before),
        Err(error) => Err(crate::keymanager::Error::Record(error.to_string()).into()),
    }
}

/// Takes the key, unless someone has it; lets some go whose day is over.
fn claim(changes: &Changes<'_>, running: &Running, key: &[u8], row: &Row, now: u64) -> Result<Found, record::Error> {
    for (expiry, ()) in changes.rows(&EXPIRY, &[], SWEPT_AT_ONCE)? {
        let at = expiry.first_chunk::<8>().map_or(0, |at| u64::from_be_bytes(*at));
        if at.saturating_add(KEPT_S) >= now {
            break;
        }
        changes.remove(&KEYS, expiry.get(8..).unwrap_or_default())?;
        changes.remove(&EXPIRY, &expiry)?;
    }
    if let Some(row) = changes.get::<Row>(&KEYS, key)? {
        // Asked here, where no answer can be written meanwhile.
        let runs = row.answer.is_none() && running.0.lock().contains(&row.run);
        return Ok(if runs { Found::Runs(row) } else { Found::Row(row) });
    }
    if changes.len(&KEYS)? >= MOST_KEPT {
        return Ok(Found::Full);
    }
    changes.put(&KEYS, key, row)?;
    changes.put(&EXPIRY, &[&row.at.to_be_bytes(), key].concat(), &())?;
    Ok(Found::New)
}

impl Ticket {
    /// Keeps what was answered. Where nothing was done the key is free again.
    pub(super) async fn end(self, record: &Record, answer: &Answer) {
        let told = match answer {
            Ok(reply) => {
                let body = reply.body.as_deref().and_then(|text| serde_json::from_slice(text).ok());
                Some(Told { status: reply.status.as_u16(), body, problem: false })
            }
            // It may have been done in part, or unknown to us.
            Err(problem) if matches!(problem.status, 502 | 504) => {
                Some(Told { status: problem.status, body: Some(Value::String(problem.detail.clone())), problem: true })
            }
            Err(_) => None,
        };
        let sealed = told.and_then(|told| self.close(&told));
        let key = self.row_key;
        let kept = record.change(move |changes| match (&sealed, changes.get(&KEYS, &key)?) {
            (Some(sealed), Some(row)) => changes.put(&KEYS, &key, &Row { answer: Some(sealed.clone()), ..row }),
            (None, Some(row)) => {
                changes.remove(&EXPIRY, &[&row.at.to_be_bytes()[..], &key].concat())?;
                changes.remove(&KEYS, &key).map(drop)
            }
            (_, None) => Ok(()),
        });
        if let Err(error) = kept.await {
            tracing::warn!(%error, "what was answered to an idempotency key cannot be kept");
        }
    }

    fn close(&self, told: &Told) -> Option<Sealed> {
        let mut text = serde_json::to_vec(told).ok()?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.seal).ok()?;
        let nonce = key.seal_in_place_append_tag(Aad::from(&self.row_key), &mut text).ok()?;
        Some(Sealed { nonce: BASE64_STANDARD.encode(nonce.as_ref()), text: BASE64_STANDARD.encode(text) })
    }

    fn open(&self, sealed: &Sealed) -> Result<Answer, Problem> {
        let told = self.unseal(sealed);
        let Some(Told { status, body, problem }) = told else {
            return Err(Problem::new(StatusCode::CONFLICT, "what was answered to this idempotency key cannot be read"));
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Ok(match (problem, body) {
            (true, Some(Value::String(detail))) => Err(Problem::new(status, detail)),
            (true, _) => Err(Problem::new(status, "")),
            (false, body) => Ok(Reply { status, body: body.map(|body| body.to_string().into()), tag: None }),
        })
    }

    fn unseal(&self, sealed: &Sealed) -> Option<Told> {
        let nonce: [u8; NONCE_LEN] = BASE64_STANDARD.decode(&sealed.nonce).ok()?.try_into().ok()?;
        let mut text = BASE64_STANDARD.decode(&sealed.text).ok()?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.seal).ok()?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let text = key.open_in_place(nonce, Aad::from(&self.row_key), &mut text).ok()?;
        serde_json::from_slice(text).ok()
    }
}

fn seal_of(key: &str) -> [u8; 32] {
    let mut seal = [0; 32];
    seal.copy_from_slice(digest(&SHA256, format!("tollgate idempotency seal\0{key}").as_bytes()).as_ref());
    seal
}

const KEYS: Table<Row> = Table::new("management.idempotency");
/// Second, then key.
const EXPIRY: Table<()> = Table::new("management.idempotency_expiry");
const NOBODY_KNOWS: &str = "the first request with this idempotency key was cut short, and nobody knows whether it was \
    done: look after it, and ask with another key";
const MOST_KEY: usize = 255;
const KEPT_S: u64 = 86_400;
const MOST_KEPT: u64 = 10_000;
const SWEPT_AT_ONCE: usize = 16;
