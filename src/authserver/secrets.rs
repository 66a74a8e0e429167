//! The secrets of a client: several at once, each with an end if it is to have one.
//!
//! A new one in place of all others ends what was issued to the client before, since nobody knows who had them.

use zeroize::Zeroizing;

use super::{
    Provider, Refused,
    clients::{ClientSecret, MOST_SECRETS, PROOFS},
    issued::MOST_NAMES,
    manage::{Error, NO_CLIENT, Result, check_text},
    random,
    rows::What,
    state::Hash,
};
use crate::store::record::Changes;

/// One more secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewSecret {
    /// The secret wished for.
    pub secret: Option<Zeroizing<String>>,
    /// What it is for.
    pub description: Option<String>,
    /// Seconds until it is void; none: never.
    pub expires_in: Option<u64>,
}

/// What is known of a secret: never the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretInfo {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub description: Option<String>,
    /// Second from which on it is void; 0: never.
    pub expires_at: u64,
}

impl Provider {
    /// The secrets of a client, expired ones too.
    pub fn secrets(&self, id: &str) -> Result<Vec<SecretInfo>> {
        if self.terms.load().has_client(id) {
            return Ok(vec![SecretInfo { id: DECLARED.into(), description: None, expires_at: 0 }]);
        }
        let state = self.state()?;
        let proof = state.record.get(&PROOFS, &state.key(id))?.ok_or(NO_CLIENT)?;
        Ok(proof.secrets().iter().map(ClientSecret::told).collect())
    }

    /// Whether this is a good secret of the client.
    pub fn is_secret(&self, id: &str, secret: &str) -> Result<bool> {
        let terms = self.terms.load();
        let known = self.state()?.authenticate(id, secret, self.clock.now().unix())?.is_some();
        Ok(terms.authenticate(id, secret).is_some() || known && !terms.has_client(id))
    }

    /// Gives a client one more secret, and tells it.
    pub async fn add_secret(&self, id: &str, new: NewSecret) -> Result<(SecretInfo, Zeroizing<String>)> {
        self.assert_changeable(&self.terms.load(), id)?;
        let (one, secret) = new.made(self.clock.now().unix())?;
        let (state, told) = (self.state()?, one.told());
        let key = state.key(id);
        let change = move |changes: &Changes<'_>| {
            let Some(proof) = changes.get(&PROOFS, &key)? else { return Ok(Err(NO_CLIENT)) };
            let mut secrets = proof.secrets();
            if secrets.iter().any(|known| known.hash == one.hash) {
                return Ok(Err(Error::clash("clientSecret", "the client has that secret already")));
            }
            if secrets.len() >= MOST_SECRETS {
                let why = format!("the client has {MOST_SECRETS} secrets, and may have no more: delete one first");
                return Ok(Err(Error::Conflict(why.into())));
            }
            secrets.push(one.clone());
            changes.put(&PROOFS, &key, &proof.with(secrets))?;
            Ok(Ok(()))
        };
        state.record.change(change).await??;
        Ok((told, secret))
    }

    /// Drops a secret of a client.
    pub async fn delete_secret(&self, id: &str, secret_id: &str) -> Result<()> {
        self.assert_changeable(&self.terms.load(), id)?;
        let state = self.state()?;
        let (key, secret_id) = (state.key(id), secret_id.to_owned());
        let change = move |changes: &Changes<'_>| {
            let Some(proof) = changes.get(&PROOFS, &key)? else { return Ok(Err(NO_CLIENT)) };
            let mut secrets = proof.secrets();
            let before = secrets.len();
            secrets.retain(|secret| secret.id != secret_id);
            if secrets.len() == before {
                return Ok(Err(Error::NotFound("secret")));
            }
            changes.put(&PROOFS, &key, &proof.with(secrets))?;
            Ok(Ok(()))
        };
        state.record.change(change).await?
    }

    /// Gives a client a new secret and tells it. All from before are void, and so is what was issued until now.
    pub async fn new_secret(&self, id: &str) -> Result<Zeroizing<String>> {
        self.assert_changeable(&self.terms.load(), id)?;
        let state = self.state()?;
        let now = self.clock.now().unix();
        let (only, secret) = NewSecret::default().made(now)?;
        let (key, rows, longest) = (state.key(id), state.rows(), state.longest()?);
        let until = now.saturating_add(longest.access.max(longest.refresh));
        let name = id.to_owned();
        let change = move |changes: &Changes<'_>| {
            let Some(proof) = changes.get(&PROOFS, &key)? else { return Ok(None) };
            changes.put(&PROOFS, &key, &proof.with(vec![only.clone()]))?;
            let before = now.saturating_sub(1);
            rows.revoke(changes, What::Client { id: name.clone(), before }, until).map(Some)
        };
        state.feed(&state.record.change(change).await?.ok_or(NO_CLIENT)?);
        self.revoke_young(id, now, until).await?;
        Ok(secret)
    }

    /// Revokes what was issued to a client from this second on: by name, so that what its new secret gets in the same
    /// second is good. Nobody has that secret yet.
    async fn revoke_young(&self, id: &str, now: u64, until: u64) -> Result<()> {
        let state = self.state()?;
        let mut young = self.live_names(id, now)?;
        young.retain(|named| named.issued_at >= now);
        if young.is_empty() {
            return Ok(());
        }
        let (rows, name) = (state.rows(), id.to_owned());
        // There may have been more than are known by name.
        let last = (young.len() >= MOST_NAMES).then(|| self.clock.now().unix());
        let change = move |changes: &Changes<'_>| {
            let mut revoked = Vec::with_capacity(young.len() + 1);
            for named in &young {
                revoked.push(rows.revoke_access(changes, &named.access, named.expires_at)?);
            }
            if let Some(before) = last {
                revoked.push(rows.revoke(changes, What::Client { id: name.clone(), before }, until)?);
            }
            Ok(revoked)
        };
        let revoked = state.record.change(change).await?;
        revoked.iter().for_each(|row| state.feed(row));
        Ok(())
    }
}

impl NewSecret {
    /// What is kept of it, and the secret.
    pub(super) fn made(self, now: u64) -> Result<(ClientSecret, Zeroizing<String>)> {
        check_text("parameters.description", self.description.as_deref())?;
        let expires_at = match self.expires_in {
            None => 0,
            Some(0) => return Err(Error::invalid("parameters.expiresIn", "must be at least 1 second")),
            Some(seconds) => now.saturating_add(seconds),
        };
        let secret = match self.secret {
            Some(secret) => {
                check_secret(&secret)?;
                secret
            }
            None => Zeroizing::new(random::secret(random::CLIENT_SECRET).map_err(Refused::from)?),
        };
        let id = random::id().map_err(Refused::from)?;
        Ok((ClientSecret { id, hash: hash(&secret), description: self.description, expires_at }, secret))
    }
}

impl ClientSecret {
    fn told(&self) -> SecretInfo {
        SecretInfo { id: self.id.clone(), description: self.description.clone(), expires_at: self.expires_at }
    }
}

/// What is kept of a secret.
pub(super) fn hash(secret: &str) -> Hash {
    Hash::from(&random::digest(secret))
}

/// A secret that somebody wishes for. Only a plain digest of it is kept, so it must be one that nobody can search for.
fn check_secret(secret: &str) -> Result<()> {
    let mut seen = [false; 256];
    secret.bytes().for_each(|b| seen[usize::from(b)] = true);
    let varied = seen.iter().filter(|seen| **seen).count() >= LEAST_VARIED;
    let fits = (LEAST_SECRET..=MOST_SECRET).contains(&secret.len()) && secret.bytes().all(|b| matches!(b, 0x21..=0x7e));
    match varied && fits {
        true => Ok(()),
        false => {
            let why = format!("must be {LEAST_SECRET} to {MOST_SECRET} visible ASCII characters, drawn at random");
            Err(Error::invalid("clientSecret", why))
        }
    }
}

/// Id of the one secret of a client of the configuration.
const DECLARED: &str = "declared";
/// As many base64 characters as 128 random bits have.
const LEAST_SECRET: usize = 22;
const MOST_SECRET: usize = 256;
/// Different characters in it.
const LEAST_VARIED: usize = 8;
