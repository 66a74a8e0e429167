//! The provider's rows, as the record's writer changes them: each change whole, for one commit.
//!
//! Every row that ends has a note of when, and is swept then.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    issued::{self, ISSUED},
    random::Digest,
    state::{Access, Hash, Issue, Kind, Limits, Longest, Opaque, Refresh, Rotation},
};
use crate::store::record::{self, Changes, Table};

/// The refresh tokens that one grant led to, and the access tokens that came with them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Family {
    pub(super) live: Vec<(Access, u64)>,
    pub(super) expires_at: u64,
}

/// A revocation as recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Revoke {
    pub(super) what: What,
    pub(super) until: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum What {
    Access(Access),
    Client { id: String, before: u64 },
    Subject { name: String, before: u64 },
}

/// Our rows, for the writer's thread.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub(super) prefix: Vec<u8>,
    pub(super) limits: Limits,
}

impl Rows {
    pub(super) fn key(&self, rest: impl AsRef<[u8]>) -> Vec<u8> {
        [&self.prefix, rest.as_ref()].concat()
    }

    /// Writes a row and when it may go.
    pub(super) fn put<V: Serialize>(
        &self,
        changes: &Changes<'_>,
        table: &Table<V>,
        tag: u8,
        rest: &[u8],
        row: &V,
        until: u64,
    ) -> Result<(), record::Error> {
        changes.put(table, &self.key(rest), row)?;
        let expiry = [&self.prefix, &until.to_be_bytes()[..], &[tag], rest].concat();
        changes.put(&EXPIRY, &expiry, &())
    }

    /// Whether there is room for one more, once what has expired is gone: by the most lenient judge, since a revocation
    /// must outlive what it is of.
    pub(super) fn has_room<V>(&self, changes: &Changes<'_>, table: &Table<V>, now: u64) -> Result<bool, record::Error> {
        if changes.len(table)? < self.limits.tokens {
            return Ok(true);
        }
        while self.sweep(changes, now.saturating_sub(LONGEST_LEEWAY_S))? {}
        Ok(changes.len(table)? < self.limits.tokens)
    }

    pub(super) fn put_issue(&self, changes: &Changes<'_>, issue: &Issue) -> Result<(), record::Error> {
        match (&issue.access, &issue.opaque) {
            (Access::Token(hash), Some(opaque)) => {
                let digest = hash.digest().unwrap_or_default();
                self.put(changes, &TOKENS, OPAQUE_TOKEN, &digest, opaque, opaque.expires_at)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn rotate(
        &self,
        changes: &Changes<'_>,
        old: &Digest,
        (digest, next): &(Digest, Refresh),
        issue: &Issue,
        now: u64,
    ) -> Result<(Rotation, Vec<Revoke>), record::Error> {
        let family_key = self.key(&next.family);
        let row = changes.get(&REFRESH, &self.key(old))?;
        let family = changes.get(&FAMILIES, &family_key)?;
        let (Some(mut row), Some(mut family)) = (row, family) else { return Ok((Rotation::Invalid, Vec::new())) };
        if row.expires_at <= now || row.family != next.family {
            return Ok((Rotation::Invalid, Vec::new()));
        }
        if row.used {
            return Ok((Rotation::Reused, self.end_family(changes, &next.family)?));
        }
        let room = issue.opaque.is_none() || self.has_room(changes, &TOKENS, now)?;
        if !room || !self.has_room(changes, &REFRESH, now)? {
            return Ok((Rotation::Full, Vec::new()));
        }
        row.used = true;
        changes.put(&REFRESH, &self.key(old), &row)?;
        self.put(changes, &REFRESH, REFRESH_TOKEN, digest, next, next.expires_at)?;
        self.put_issue(changes, issue)?;
        family.live.retain(|(_, expires_at)| now < expires_at.saturating_add(LONGEST_LEEWAY_S));
        let mut revoked = Vec::new();
        if family.live.len() >= MOST_LIVE {
            let (access, until) = family.live.remove(0);
            revoked.push(self.revoke_access(changes, &access, until)?);
        }
        family.live.push((issue.access.clone(), issue.expires_at));
        family.expires_at = family.expires_at.max(next.expires_at);
        self.put(changes, &FAMILIES, FAMILY, next.family.as_bytes(), &family, family.expires_at)?;
        Ok((Rotation::Done, revoked))
    }

    /// A family that is gone takes its refresh tokens with it: without it none of them is good.
    pub(super) fn end_family(&self, changes: &Changes<'_>, family: &str) -> Result<Vec<Revoke>, record::Error> {
        let key = self.key(family);
        let Some(row) = changes.get(&FAMILIES, &key)? else { return Ok(Vec::new()) };
        changes.remove(&FAMILIES, &key)?;
        // Those that have just expired too: who judges them may be lenient.
        row.live.iter().map(|(access, until)| self.revoke_access(changes, access, *until)).collect()
    }

    pub(super) fn revoke_access(
        &self,
        changes: &Changes<'_>,
        access: &Access,
        until: u64,
    ) -> Result<Revoke, record::Error> {
        if let Access::Token(hash) = access {
            changes.remove(&TOKENS, &self.key(hash.digest().unwrap_or_default()))?;
        }
        self.revoke(changes, What::Access(access.clone()), until)
    }

    pub(super) fn revoke(&self, changes: &Changes<'_>, what: What, until: u64) -> Result<Revoke, record::Error> {
        let key = match &what {
            What::Access(Access::Jti(jti)) => ["j", jti].concat(),
            What::Access(Access::Token(Hash(hash))) => ["t", hash].concat(),
            What::Client { id, .. } => ["c", id].concat(),
            What::Subject { name, .. } => ["s", name].concat(),
        };
        let row = Revoke { what, until };
        self.put(changes, &REVOKED, REVOCATION, key.as_bytes(), &row, until)?;
        Ok(row)
    }

    /// Whether the end that a row of [`EXPIRY`] is about has come.
    pub(super) fn ended(&self, key: &[u8], now: u64) -> bool {
        let until = key.get(self.prefix.len()..).and_then(|rest| rest.first_chunk::<8>());
        until.is_none_or(|until| u64::from_be_bytes(*until) < now)
    }

    /// Removes some of what has expired; true: there may be more.
    pub(super) fn sweep(&self, changes: &Changes<'_>, now: u64) -> Result<bool, record::Error> {
        let rows = changes.rows(&EXPIRY, &self.prefix, SWEPT_AT_ONCE)?;
        let full = rows.len() == SWEPT_AT_ONCE;
        for (key, ()) in rows {
            if !self.ended(&key, now) {
                return Ok(false);
            }
            let rest = key.get(self.prefix.len() + 8..).unwrap_or_default();
            if let Some((tag, rest)) = rest.split_first() {
                let row = self.key(rest);
                match *tag {
                    OPAQUE_TOKEN => drop_expired(changes, &TOKENS, &row, now, |row| row.expires_at)?,
                    REFRESH_TOKEN => drop_expired(changes, &REFRESH, &row, now, |row| row.expires_at)?,
                    FAMILY => drop_expired(changes, &FAMILIES, &row, now, |row| row.expires_at)?,
                    ISSUED_NAMES => drop_expired(changes, &ISSUED, &row, now, |names| issued::ends(names))?,
                    _ => drop_expired(changes, &REVOKED, &row, now, |row| row.until)?,
                }
            }
            changes.remove(&EXPIRY, &key)?;
        }
        Ok(full)
    }
}

/// A row may have been given more time since its end was noted: it has another note for that.
fn drop_expired<V: DeserializeOwned>(
    changes: &Changes<'_>,
    table: &Table<V>,
    key: &[u8],
    now: u64,
    until: impl Fn(&V) -> u64,
) -> Result<(), record::Error> {
    if changes.get(table, key)?.is_some_and(|row| until(&row) < now) {
        changes.remove(table, key)?;
    }
    Ok(())
}

pub(super) fn gone(kind: Kind, name: &str, now: u64) -> What {
    match kind {
        Kind::Client => What::Client { id: name.into(), before: now },
        Kind::User => What::Subject { name: name.into(), before: now },
    }
}

pub(super) const TOKENS: Table<Opaque> = Table::new("provider.tokens");
pub(super) const REFRESH: Table<Refresh> = Table::new("provider.refresh");
pub(super) const FAMILIES: Table<Family> = Table::new("provider.families");
pub(super) const REVOKED: Table<Revoke> = Table::new("provider.revoked");
pub(super) const CONFIGURED: Table<(Kind, String)> = Table::new("provider.configured");
pub(super) const LONGEST: Table<Longest> = Table::new("provider.lifetimes");
/// Which rows expire: second, tag, key.
pub(super) const EXPIRY: Table<()> = Table::new("provider.expiry");

const OPAQUE_TOKEN: u8 = b't';
pub(super) const REFRESH_TOKEN: u8 = b'r';
pub(super) const FAMILY: u8 = b'f';
const REVOCATION: u8 = b'v';
pub(super) const ISSUED_NAMES: u8 = b'i';

/// Live access tokens of one family; the oldest gives way.
pub(super) const MOST_LIVE: usize = 16;
const SWEPT_AT_ONCE: usize = 500;
/// How long an expired token may still be taken for good; more is a trap that `check --strict` refuses.
const LONGEST_LEEWAY_S: u64 = 300;
