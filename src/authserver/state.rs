//! What the provider remembers beyond its configuration: opaque tokens, refresh tokens and their families,
//! revocations, who was configured last. In the record: a file that outlives the process, or memory.
//!
//! Tokens stand here as digests only. Everything has an end: expired rows are swept, and each kind is bounded.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    clients::Client,
    random::Digest,
    rows::{
        CONFIGURED, EXPIRY, FAMILIES, FAMILY, Family, LONGEST, REFRESH, REFRESH_TOKEN, REVOKED, Revoke, Rows, TOKENS,
        What, gone,
    },
};
use crate::store::{
    Revocation, Revocations, Revoked, TokenFacts,
    recent::Recent,
    record::{self, Changes, Record},
};

/// The rows of one provider, and the table of revocations that it feeds.
#[derive(Debug)]
pub(super) struct State {
    pub(super) record: Record,
    pub(super) revocations: Arc<Revocations>,
    pub(super) issuer: Box<str>,
    pub(super) limits: Limits,
    pub(super) clients: Recent<Client>,
}

/// How many of a kind there may be at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Registered clients.
    pub(super) clients: u64,
    /// Opaque tokens, refresh tokens and revocations, each.
    pub(super) tokens: u64,
}

/// An access token that can be revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Access {
    /// A JWT, by its `jti`.
    Jti(String),
    /// An opaque one, by its digest.
    Token(Hash),
}

/// A digest as rows have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hash(pub(super) String);

/// An opaque access token: what a JWT would say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Opaque {
    pub(super) claims: Map<String, Value>,
    pub(super) expires_at: u64,
}

/// A refresh token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Refresh {
    pub(super) family: String,
    pub(super) client: String,
    pub(super) subject: String,
    /// As granted first: what a refresh may ask for again.
    pub(super) scope: Vec<String>,
    pub(super) issued_at: u64,
    pub(super) expires_at: u64,
    /// Exchanged for another: to bring it again is to have stolen it, or to have been robbed.
    pub(super) used: bool,
}

/// An access token about to be issued.
#[derive(Debug, Clone)]
pub(super) struct Issue {
    pub(super) access: Access,
    pub(super) expires_at: u64,
    /// What is kept of an opaque one.
    pub(super) opaque: Option<Opaque>,
}

/// What became of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rotation {
    /// Exchanged.
    Done,
    /// It is not there, or no longer good.
    Invalid,
    /// It was exchanged before: its whole family is revoked.
    Reused,
    /// There is no room for another.
    Full,
}

/// A client or user that the configuration had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Kind {
    Client,
    User,
}

/// The longest lifetimes that were ever configured, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Longest {
    pub(super) access: u64,
    pub(super) refresh: u64,
}

impl State {
    /// The key of a row of ours.
    pub(super) fn key(&self, rest: impl AsRef<[u8]>) -> Vec<u8> {
        [self.issuer.as_bytes(), b"\0", rest.as_ref()].concat()
    }

    /// Puts the recorded revocations in force again.
    pub(super) fn restore(&self, now: u64) -> Result<(), record::Error> {
        for (_, row) in self.record.view()?.rows(&REVOKED, &self.key(""), usize::MAX)? {
            if row.until >= now {
                self.feed(&row);
            }
        }
        Ok(())
    }

    /// The opaque token with this digest, if it is still good.
    pub(super) fn opaque(&self, digest: &Digest, now: u64) -> Result<Option<Opaque>, record::Error> {
        let row = self.record.get(&TOKENS, &self.key(digest))?;
        Ok(row.filter(|row| now < row.expires_at))
    }

    /// The refresh token with this digest, used or not, if it has not expired.
    pub(super) fn refresh(&self, digest: &Digest, now: u64) -> Result<Option<Refresh>, record::Error> {
        let row = self.record.get(&REFRESH, &self.key(digest))?;
        Ok(row.filter(|row| now < row.expires_at))
    }

    /// Whether what these facts are about was revoked.
    pub(super) fn is_revoked(&self, facts: TokenFacts<'_>) -> bool {
        self.revocations.is_revoked(&TokenFacts { issuer: &self.issuer, ..facts })
    }

    /// Records a new access token, with a refresh token where one comes along; false: there is no room.
    pub(super) async fn issue(
        &self,
        issue: Issue,
        refresh: Option<(Digest, Refresh)>,
        now: u64,
    ) -> Result<bool, record::Error> {
        let rows = self.rows();
        self.record
            .change(move |changes| {
                let room = issue.opaque.is_none() || rows.has_room(changes, &TOKENS, now)?;
                if !room || refresh.is_some() && !rows.has_room(changes, &REFRESH, now)? {
                    return Ok(false);
                }
                rows.put_issue(changes, &issue)?;
                if let Some((digest, refresh)) = &refresh {
                    let live = vec![(issue.access.clone(), issue.expires_at)];
                    let family = Family { live, expires_at: refresh.expires_at };
                    rows.put(changes, &FAMILIES, FAMILY, refresh.family.as_bytes(), &family, family.expires_at)?;
                    rows.put(changes, &REFRESH, REFRESH_TOKEN, digest, refresh, refresh.expires_at)?;
                }
                Ok(true)
            })
            .await
    }

    /// Exchanges the refresh token `old` for `next`, with a new access token: one commit.
    pub(super) async fn rotate(
        &self,
        old: Digest,
        next: (Digest, Refresh),
        issue: Issue,
        now: u64,
    ) -> Result<Rotation, record::Error> {
        let rows = self.rows();
        let change = move |changes: &Changes<'_>| rows.rotate(changes, &old, &next, &issue, now);
        let (outcome, revoked) = self.record.change(change).await?;
        revoked.iter().for_each(|row| self.feed(row));
        Ok(outcome)
    }

    /// Revokes an access token; false: there is no room.
    pub(super) async fn revoke_access(&self, access: Access, until: u64, now: u64) -> Result<bool, record::Error> {
        let rows = self.rows();
        let change = move |changes: &Changes<'_>| {
            if !rows.has_room(changes, &REVOKED, now)? {
                return Ok(None);
            }
            rows.revoke_access(changes, &access, until).map(Some)
        };
        let revoked = self.record.change(change).await?;
        revoked.iter().for_each(|row| self.feed(row));
        Ok(revoked.is_some())
    }

    /// Revokes the grant behind a refresh token: all of its refresh tokens and the access tokens that came with them.
    pub(super) async fn revoke_family(&self, family: String) -> Result<(), record::Error> {
        let rows = self.rows();
        let revoked = self.record.change(move |changes| rows.end_family(changes, &family)).await?;
        revoked.iter().for_each(|row| self.feed(row));
        Ok(())
    }

    /// The longest lifetimes ever configured.
    pub(super) fn longest(&self) -> Result<Longest, record::Error> {
        Ok(self.record.get(&LONGEST, &self.key(""))?.unwrap_or_default())
    }

    /// Takes note of who is configured now. What was issued to those who no longer are is revoked.
    pub(super) fn reconcile(
        &self,
        configured: Vec<(Kind, String)>,
        lifetimes: Longest,
        now: u64,
    ) -> Result<(), record::Error> {
        let rows = self.rows();
        let change = move |changes: &Changes<'_>| {
            let key = rows.key("");
            let before = changes.get(&LONGEST, &key)?.unwrap_or_default();
            let access = before.access.max(lifetimes.access);
            let longest = Longest { access, refresh: before.refresh.max(lifetimes.refresh) };
            if longest != before {
                changes.put(&LONGEST, &key, &longest)?;
            }
            let until = now.saturating_add(longest.access.max(longest.refresh));
            // What is being issued to them at this very moment is revoked too.
            let leaves = now.saturating_add(MOMENT_S);
            let mut revoked = Vec::new();
            let known = changes.rows(&CONFIGURED, &key, usize::MAX)?;
            for (row_key, (kind, name)) in &known {
                if !configured.contains(&(*kind, name.clone())) {
                    changes.remove(&CONFIGURED, row_key)?;
                    revoked.push(rows.revoke(changes, gone(*kind, name, leaves), until)?);
                }
            }
            for one in configured.iter().filter(|one| !known.iter().any(|(_, known)| known == *one)) {
                let tag = if one.0 == Kind::Client { "c" } else { "u" };
                changes.put(&CONFIGURED, &rows.key([tag, &one.1].concat()), one)?;
            }
            Ok(revoked)
        };
        let revoked = self.record.change_blocking(change)?;
        revoked.iter().for_each(|row| self.feed(row));
        Ok(())
    }

    /// Refuses what was issued to those who were configured `before` and no longer are, where that cannot be recorded.
    pub(super) fn refuse_gone(
        &self,
        before: &[(Kind, String)],
        configured: &[(Kind, String)],
        lifetimes: Longest,
        now: u64,
    ) {
        let ever = self.longest().unwrap_or_default();
        let longest = ever.access.max(ever.refresh).max(lifetimes.access).max(lifetimes.refresh);
        for (kind, name) in before.iter().filter(|one| !configured.contains(one)) {
            let what = gone(*kind, name, now.saturating_add(MOMENT_S));
            self.feed(&Revoke { what, until: now.saturating_add(longest) });
        }
    }

    /// Revokes, in `changes`, what was issued to a client that is gone. To be fed once that is durable.
    pub(super) fn client_gone(&self, id: &str, now: u64) -> Result<ClientGone, record::Error> {
        // What is issued to it while this is being written is revoked too; nobody gets its id again.
        let now = now.saturating_add(MOMENT_S);
        let longest = self.longest()?;
        let until = now.saturating_add(longest.access.max(longest.refresh));
        Ok(ClientGone { rows: self.rows(), row: Revoke { what: gone(Kind::Client, id, now), until } })
    }

    /// Puts in force what [`ClientGone::write`] has recorded.
    pub(super) fn tell_client_gone(&self, gone: &ClientGone) {
        self.feed(&gone.row);
    }

    /// Removes what has expired; true: there may be more.
    pub(super) async fn sweep(&self, now: u64) -> Result<bool, record::Error> {
        let rows = self.rows();
        // Mostly there is nothing to do: then nothing is written.
        let first = self.record.view()?.rows(&EXPIRY, &rows.prefix, 1)?;
        if !first.first().is_some_and(|(key, ())| rows.ended(key, now)) {
            return Ok(false);
        }
        self.record.change(move |changes| rows.sweep(changes, now)).await
    }

    /// All workers refuse it from now on, unless it was only tried.
    pub(super) fn feed(&self, row: &Revoke) {
        if self.record.is_rehearsal() {
            return;
        }
        let what = match &row.what {
            What::Access(Access::Jti(jti)) => Revoked::Jti(jti.as_str().into()),
            What::Access(Access::Token(hash)) => match hash.digest() {
                Some(digest) => Revoked::Token(digest),
                None => return,
            },
            What::Client { id, before } => Revoked::ConsumerKey { consumer_key: id.as_str().into(), before: *before },
            What::Subject { name, before } => Revoked::Subject { subject: name.as_str().into(), before: *before },
        };
        self.revocations.revoke(Revocation { issuer: self.issuer.clone(), what, until: Some(row.until) });
    }

    /// Our rows, for a change.
    pub(super) fn rows(&self) -> Rows {
        Rows { prefix: self.key(""), limits: self.limits }
    }
}

/// A client is gone, and so is what was issued to it.
#[derive(Debug, Clone)]
pub(super) struct ClientGone {
    rows: Rows,
    row: Revoke,
}

impl ClientGone {
    /// Records it.
    pub(super) fn write(&self, changes: &Changes<'_>) -> Result<(), record::Error> {
        self.rows.revoke(changes, self.row.what.clone(), self.row.until).map(drop)
    }
}

impl From<&Digest> for Hash {
    fn from(digest: &Digest) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(digest))
    }
}

impl Hash {
    /// None: it is none, which only a damaged row can bring about.
    pub(super) fn digest(&self) -> Option<Digest> {
        BASE64_URL_SAFE_NO_PAD.decode(&self.0).ok()?.try_into().ok()
    }
}

impl Limits {
    /// What a record may hold.
    pub(super) fn of(record: &Record) -> Self {
        if record.is_in_memory() {
            Self { clients: 2_000, tokens: 20_000 }
        } else {
            Self { clients: 100_000, tokens: 500_000 }
        }
    }
}

const MOMENT_S: u64 = 2;

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
