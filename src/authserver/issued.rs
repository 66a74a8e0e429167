//! Which tokens a client has alive, by name: the newest of each client.
//!
//! A name is a `jti`, or the digest of an opaque token. It is noted in memory when the token is made, and goes to the
//! record with the next tidying-up: issuing waits for no commit. A process that is killed in between does not know
//! those last names again, which takes nothing from the tokens and nothing from revocations.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{
    Provider,
    rows::{ISSUED_NAMES, Rows},
    state::{Access, Hash, State},
};
use crate::store::{
    TokenFacts, TokenSha256,
    record::{self, Changes, Table},
};

/// A token of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) access: Access,
    pub(super) issued_at: u64,
    pub(super) expires_at: u64,
    /// Whose it is; none: the client's own.
    pub(super) user: Option<String>,
    pub(super) scope: Vec<String>,
}

/// Names that are not yet in the record, by client.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<String, Vec<Named>>>);

impl Names {
    /// Takes note of a token.
    pub(super) fn note(&self, client: &str, named: Named) {
        let mut all = self.0.lock();
        match all.get_mut(client) {
            Some(names) => push(names, named),
            None => drop(all.insert(client.to_owned(), vec![named])),
        }
    }

    /// A client is gone.
    pub(super) fn forget(&self, client: &str) {
        self.0.lock().remove(client);
    }

    fn of(&self, client: &str) -> Vec<Named> {
        self.0.lock().get(client).cloned().unwrap_or_default()
    }

    /// Some of them, for one commit: what others write is not to wait for long.
    fn some(&self) -> Vec<(String, Vec<Named>)> {
        let all = self.0.lock();
        all.iter().take(RECORDED_AT_ONCE).map(|(client, names)| (client.clone(), names.clone())).collect()
    }

    /// These are in the record. Until now they were here: no moment sees them in neither place.
    fn settle(&self, recorded: &[(String, Vec<Named>)]) {
        let mut all = self.0.lock();
        for (client, recorded) in recorded {
            let Some(names) = all.get_mut(client) else { continue };
            // The oldest may have given way meanwhile, and newer ones have come behind.
            let first = names.first().and_then(|first| recorded.iter().position(|named| named == first));
            let settled = first.map_or(0, |at| recorded.len() - at);
            names.drain(..settled.min(names.len()));
            if names.is_empty() {
                all.remove(client);
            }
        }
    }
}

/// The oldest gives way.
fn push(names: &mut Vec<Named>, named: Named) {
    if names.len() >= MOST_NAMES {
        names.remove(0);
    }
    names.push(named);
}

impl Provider {
    /// Writes down names that were noted since the last time.
    pub(super) async fn record_names(&self, state: &State, now: u64) -> Result<(), record::Error> {
        let noted = Arc::new(self.names.some());
        if noted.is_empty() {
            return Ok(());
        }
        let (rows, written) = (state.rows(), Arc::clone(&noted));
        let change = move |changes: &Changes<'_>| {
            written.iter().try_for_each(|(client, names)| append(&rows, changes, client, names, now))
        };
        state.record.change(change).await?;
        self.names.settle(&noted);
        Ok(())
    }

    /// The tokens of a client that are good now, oldest first.
    pub(super) fn live_names(&self, client: &str, now: u64) -> Result<Vec<Named>, super::Refused> {
        let state = self.state()?;
        // The noted ones first: if they go to the record just then, they are seen twice rather than never.
        let noted = self.names.of(client);
        let mut all = state.record.get(&ISSUED, &state.key(client))?.unwrap_or_default();
        for named in noted {
            if !all.contains(&named) {
                all.push(named);
            }
        }
        all.retain(|named| now < named.expires_at && !is_revoked(state, client, named));
        all.drain(..all.len().saturating_sub(MOST_NAMES));
        Ok(all)
    }
}

/// A removed client has no row to append to: its names would never be asked for.
fn append(rows: &Rows, changes: &Changes<'_>, client: &str, names: &[Named], now: u64) -> Result<(), record::Error> {
    let mut all = changes.get(&ISSUED, &rows.key(client))?.unwrap_or_default();
    all.retain(|named| now < named.expires_at);
    names.iter().for_each(|named| push(&mut all, named.clone()));
    // Rounded up, so that a busy client has a few notes of its end and not one for each time.
    let until = ends(&all).max(now).next_multiple_of(ENDS_APART_S);
    rows.put(changes, &ISSUED, ISSUED_NAMES, client.as_bytes(), &all, until)
}

fn is_revoked(state: &State, client: &str, named: &Named) -> bool {
    let (jti, digest) = match &named.access {
        Access::Jti(jti) => (Some(&**jti), None),
        Access::Token(hash) => (None, hash.digest()),
    };
    state.is_revoked(TokenFacts {
        issuer: "",
        jti,
        token_sha256: digest.as_ref().map(TokenSha256::Is),
        consumer_key: Some(client),
        subject: Some(named.user.as_deref().unwrap_or(client)),
        own_subject: None,
        issued_at: Some(named.issued_at),
    })
}

/// When the last of them has expired.
pub(super) fn ends(names: &[Named]) -> u64 {
    names.iter().map(|named| named.expires_at).max().unwrap_or_default()
}

impl Named {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        match &self.access {
            Access::Jti(jti) => jti,
            Access::Token(Hash(hash)) => hash,
        }
    }
}

pub(super) const ISSUED: Table<Vec<Named>> = Table::new("provider.issued");

/// Names kept of one client.
pub(super) const MOST_NAMES: usize = 100;
/// Clients whose names go to the record in one commit.
const RECORDED_AT_ONCE: usize = 200;
const ENDS_APART_S: u64 = 600;
