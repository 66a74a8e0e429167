//! The provider's signing keys: the one it signs with, and those before it, which stay published until the last
//! token that they signed has expired.
//!
//! A new key is durable and published before it signs. Private halves stand in the record (a file of mode 0600,
//! where it is a file) and nowhere else.

use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::{
    store::record::{self, Record, Table},
    token::{LocalKeys, SigningError, SigningKey},
};

/// All keys in use.
#[derive(Debug)]
pub(super) struct Keys {
    present: ArcSwap<Ring>,
    published: Arc<LocalKeys>,
    /// Begins the keys of our rows.
    prefix: Vec<u8>,
}

/// The keys of one moment.
#[derive(Debug)]
struct Ring {
    current: Arc<SigningKey>,
    made_at: u64,
    /// Each with the second until which its tokens may live.
    old: Vec<(Arc<SigningKey>, u64)>,
}

/// A key as recorded.
#[derive(Clone, Serialize, Deserialize)]
struct Row {
    pkcs8: String,
    made_at: u64,
    /// When its last token has expired; none: it signs.
    until: Option<u64>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error(transparent)]
    Key(#[from] SigningError),
    #[error("a recorded signing key cannot be read")]
    Unreadable,
}

impl Keys {
    /// The recorded keys, or a first one; published at once.
    pub(super) fn open(record: &Record, issuer: &str, published: Arc<LocalKeys>, now: u64) -> Result<Self, Error> {
        let prefix = [issuer.as_bytes(), b"\0"].concat();
        let mut old = Vec::new();
        let mut current: Option<(Arc<SigningKey>, u64)> = None;
        for (_, row) in record.view()?.rows(&KEYS, &prefix, MOST_KEYS)? {
            let pkcs8 = Zeroizing::new(BASE64_STANDARD_NO_PAD.decode(&row.pkcs8).map_err(|_| Error::Unreadable)?);
            let key = Arc::new(SigningKey::read(&pkcs8)?);
            match row.until {
                None => current = Some((key, row.made_at)),
                Some(until) if until >= now => old.push((key, until)),
                Some(_) => {}
            }
        }
        let (current, made_at) = match current {
            Some(current) => current,
            None => {
                let (key, pkcs8) = SigningKey::generate()?;
                let (row_key, row) = row(&prefix, &key, &pkcs8, now);
                record.change_blocking(move |changes| changes.put(&KEYS, &row_key, &row))?;
                (Arc::new(key), now)
            }
        };
        let keys = Self { present: ArcSwap::from_pointee(Ring { current, made_at, old }), published, prefix };
        keys.published.publish(&keys.jwks());
        Ok(keys)
    }

    /// The public halves, as `/jwks` shows them (RFC 7517): the present key first.
    pub(super) fn jwks(&self) -> Value {
        self.present.load().jwks()
    }

    /// The key to sign with.
    pub(super) fn current(&self) -> Arc<SigningKey> {
        Arc::clone(&self.present.load().current)
    }

    /// Since when it signs.
    pub(super) fn made_at(&self) -> u64 {
        self.present.load().made_at
    }

    /// Whether there may be another key. Not where lifetimes were cut down so much that very many old keys are still
    /// needed: then the present one signs on until some of them are not.
    pub(super) fn has_room(&self) -> bool {
        self.present.load().old.len() < MOST_OLD
    }

    /// The claims of a token that one of the keys has signed.
    pub(super) fn verify(&self, token: &str) -> Option<Map<String, Value>> {
        let id = jsonwebtoken::decode_header(token).ok()?.kid?;
        let ring = self.present.load();
        let mut all = std::iter::once(&ring.current).chain(ring.old.iter().map(|(key, _)| key));
        all.find(|key| key.id() == id)?.verify(token)
    }

    /// Signs with a new key from now on. The present one stays published until `until`, when the last token
    /// signed by it has expired.
    pub(super) async fn rotate(&self, record: &Record, now: u64, until: u64) -> Result<(), Error> {
        let ring = self.present.load_full();
        let (key, pkcs8) = SigningKey::generate()?;
        let (new_key, new_row) = row(&self.prefix, &key, &pkcs8, now);
        let old_key = row_key(&self.prefix, &ring.current);
        let change = move |changes: &record::Changes<'_>| {
            if let Some(mut row) = changes.get(&KEYS, &old_key)? {
                row.until = Some(until);
                changes.put(&KEYS, &old_key, &row)?;
            }
            changes.put(&KEYS, &new_key, &new_row)
        };
        record.change(change).await?;
        let mut old = ring.old.clone();
        old.insert(0, (Arc::clone(&ring.current), until));
        self.put_in_force(Ring { current: Arc::new(key), made_at: now, old });
        Ok(())
    }

    /// Forgets the keys whose tokens have all expired.
    pub(super) async fn prune(&self, record: &Record, now: u64) -> Result<(), Error> {
        let ring = self.present.load_full();
        let (keep, gone): (Vec<_>, Vec<_>) = ring.old.iter().cloned().partition(|(_, until)| *until >= now);
        if gone.is_empty() {
            return Ok(());
        }
        let gone: Vec<Vec<u8>> = gone.iter().map(|(key, _)| row_key(&self.prefix, key)).collect();
        record.change(move |changes| gone.iter().try_for_each(|key| changes.remove(&KEYS, key).map(drop))).await?;
        self.put_in_force(Ring { current: Arc::clone(&ring.current), made_at: ring.made_at, old: keep });
        Ok(())
    }

    /// Published first, so that whoever meets a token of the new key finds it.
    fn put_in_force(&self, ring: Ring) {
        self.published.publish(&ring.jwks());
        self.present.store(Arc::new(ring));
    }
}

impl Ring {
    fn jwks(&self) -> Value {
        let all = std::iter::once(&self.current).chain(self.old.iter().map(|(key, _)| key));
        json!({ "keys": all.map(|key| key.public()).collect::<Vec<_>>() })
    }
}

fn row(prefix: &[u8], key: &SigningKey, pkcs8: &[u8], now: u64) -> (Vec<u8>, Row) {
    let pkcs8 = BASE64_STANDARD_NO_PAD.encode(pkcs8);
    (row_key(prefix, key), Row { pkcs8, made_at: now, until: None })
}

fn row_key(prefix: &[u8], key: &SigningKey) -> Vec<u8> {
    [prefix, key.id().as_bytes()].concat()
}

const KEYS: Table<Row> = Table::new("provider.keys");
/// As many as a key set may have.
const MOST_KEYS: usize = 256;
const MOST_OLD: usize = 64;
