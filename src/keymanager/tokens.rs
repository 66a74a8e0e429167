//! Operations on tokens, and what is revoked: in force at once, and after a restart too.

use std::time::Duration;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    AccessTokenInfo, Caller, Done, Engine, Error, Managed, Operation, Plan, Result, Sensitive, check,
    engine::{Asked, Effect, plan, unkept},
    issue::require_issued_to,
    rows::{AuditEntry, REVOKED, RevokedRow, RowChange, hex},
    whole,
};
use crate::store::{Revocations, record::Record};

/// Which tokens are to be refused from now on.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevocationRequest {
    /// `jti`, `token`, `client` or `subject`.
    pub kind: RevocationKind,
    /// The `jti`, the token itself, the consumer key or the `sub`.
    #[schema(value_type = String, min_length = 1, max_length = 65536)]
    pub value: Sensitive,
    /// `iss` of the tokens; may be left out where there is one key manager.
    #[serde(default)]
    #[schema(value_type = Option<super::Uri>)]
    pub issuer: Option<String>,
    /// Of a client or subject: tokens issued until this Unix second; without it until now.
    #[serde(default, deserialize_with = "whole::optional")]
    #[schema(minimum = 0, maximum = 9007199254740991_u64)]
    pub before: Option<u64>,
    /// Unix second after which no such token is alive; without it for ever.
    #[serde(default, deserialize_with = "whole::optional")]
    #[schema(minimum = 0, maximum = 9007199254740991_u64)]
    pub until: Option<u64>,
}

/// By what tokens are revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum RevocationKind {
    Jti,
    Token,
    Client,
    Subject,
}

impl Engine {
    /// `getTokenMetaData`.
    pub async fn token_meta_data(&self, key_manager: &str, token: &Sensitive) -> Result<AccessTokenInfo> {
        let asked = Asked::new(&Caller::default(), key_manager, Operation::TokenMetaData, "");
        self.perform(asked, check::token("token", token.reveal()), |managed| async move {
            let mut info = managed.connector.token_meta_data(token).await?;
            info.key_manager = Some(managed.name().to_owned());
            Ok(Effect::of(info))
        })
        .await?
        .did()
    }

    /// `getAccessTokenByConsumerKey`.
    pub async fn access_token(&self, key_manager: &str, consumer_key: &str) -> Result<AccessTokenInfo> {
        let asked = Asked::new(&Caller::default(), key_manager, Operation::AccessTokenByConsumerKey, consumer_key);
        let checked = check::name("ck", consumer_key).and_then(|()| self.refuse_ourselves(key_manager, consumer_key));
        self.perform(asked, checked, |managed| async move {
            let mut info = managed.connector.access_token(consumer_key).await?;
            info.key_manager = Some(managed.name().to_owned());
            Ok(Effect::of(info))
        })
        .await?
        .did()
    }

    /// `getActiveTokensByConsumerKey`.
    pub async fn active_tokens(&self, key_manager: &str, consumer_key: &str) -> Result<Vec<String>> {
        let asked = Asked::new(&Caller::default(), key_manager, Operation::ActiveTokensByConsumerKey, consumer_key);
        self.perform(asked, check::name("ck", consumer_key), |managed| async move {
            managed.connector.active_tokens(consumer_key).await.map(Effect::of)
        })
        .await?
        .did()
    }

    /// Revokes a token at its provider (RFC 7009), and at every door of ours.
    pub async fn revoke_token(&self, caller: &Caller, key_manager: &str, token: &Sensitive) -> Result<Done<()>> {
        let asked = Asked::new(caller, key_manager, Operation::RevokeToken, &told_token(token));
        let checked = self.require_own(key_manager, Operation::RevokeToken, "token", token).await;
        self.perform(asked, checked, |managed| async move {
            let row = self.token_revoked(&managed, token)?;
            let outcome = managed.connector.revoke_token(token).await;
            self.refused_in_doubt(caller, &managed, &told_token(token), &row, outcome).await?;
            let mut effect = Effect::of(()).after(&row);
            effect.revoked.push(row);
            Ok(effect)
        })
        .await
    }

    /// `revokeOneTimeToken`.
    pub async fn revoke_one_time_token(
        &self,
        caller: &Caller,
        key_manager: &str,
        token: &Sensitive,
        consumer_key: &str,
    ) -> Result<Done<()>> {
        let asked = Asked::new(caller, key_manager, Operation::RevokeOneTimeToken, &told_token(token));
        let checked = match check::name("consumerKey", consumer_key) {
            Ok(()) => self.require_own(key_manager, Operation::RevokeOneTimeToken, "token", token).await,
            wrong => wrong,
        };
        self.perform(asked, checked, |managed| async move {
            require_issued_to(&managed, "consumerKey", token, consumer_key).await?;
            let row = self.token_revoked(&managed, token)?;
            let outcome = managed.connector.revoke_one_time_token(token, consumer_key).await;
            self.refused_in_doubt(caller, &managed, &told_token(token), &row, outcome).await?;
            let mut effect = Effect::of(()).after(&row);
            effect.revoked.push(row);
            Ok(effect)
        })
        .await
    }

    /// What was to be revoked by a change that failed, and is or may be, at the provider, is refused here from now on: nobody
    /// may be let in by what its provider has ended.
    pub(super) async fn refused_in_doubt<T>(
        &self,
        caller: &Caller,
        managed: &Managed,
        subject: &str,
        row: &RevokedRow,
        outcome: Result<T>,
    ) -> Result<T> {
        let error = match outcome {
            Err(error) if error.may_have_revoked() && !caller.dry_run => error,
            outcome => return outcome,
        };
        self.put_in_force(std::slice::from_ref(row));
        let asked = Asked::new(caller, managed.name(), Operation::RevokeToken, subject);
        let entry = AuditEntry {
            after: json!(row),
            outcome: "done".into(),
            detail: Some(format!("asked for with what has failed: {}", error.cause())),
            ..self.entry(&asked)
        };
        self.change(vec![RowChange::Revoke(row.clone()), RowChange::Audit(entry)]).await?;
        Err(error)
    }

    /// Refuses tokens from now on, whatever their provider thinks of them. Gives what is in force then: what was revoked
    /// before is not let in by it.
    pub async fn revoke(&self, caller: &Caller, request: RevocationRequest) -> Result<Done<RevokedRow>> {
        self.record(Operation::RevokeToken)?;
        let row = self.revocation(request)?;
        let asked = Asked::new(caller, "", Operation::RevokeToken, &row.value);
        if caller.dry_run {
            return Ok(Done::Would(plan(&asked.with(&row))));
        }
        let entry = AuditEntry { key_manager: None, after: json!(row), outcome: "done".into(), ..self.entry(&asked) };
        self.put_in_force(std::slice::from_ref(&row));
        let key = row.key();
        self.change(vec![RowChange::Revoke(row.clone()), RowChange::Audit(entry)]).await?;
        match self.revocation_of(&key) {
            // Lifted meanwhile.
            Err(Error::NotFound(_)) => Ok(Done::Did(row)),
            kept => kept.map(Done::Did),
        }
    }

    /// Whether a key manager has this issuer.
    pub fn has_issuer(&self, issuer: &str) -> bool {
        self.registry.all().iter().any(|managed| managed.settings.issuer == issuer)
    }

    /// A revocation of an issuer that nobody has would refuse nothing: it is a slip of the pen.
    fn require_issuer(&self, issuer: &str) -> Result<()> {
        if self.has_issuer(issuer) {
            return Ok(());
        }
        let managers = self.registry.all();
        let configured: Vec<&str> = managers.iter().map(|managed| managed.settings.issuer.as_str()).collect();
        Err(Error::invalid("issuer", format!("no key manager has it; configured: {}", configured.join(", "))))
    }

    fn revocation(&self, request: RevocationRequest) -> Result<RevokedRow> {
        let RevocationRequest { kind, value, issuer, before, until } = request;
        let issuer = match (issuer, self.registry.all().as_slice()) {
            (Some(issuer), _) => {
                check::bounded("issuer", &issuer, 2048)?;
                if issuer.is_empty() {
                    return Err(Error::invalid("issuer", "must not be empty"));
                }
                self.require_issuer(&issuer)?;
                issuer
            }
            (None, [only]) => only.settings.issuer.clone(),
            (None, _) => return Err(Error::invalid("issuer", "is needed where there is not one key manager alone")),
        };
        let now = self.clock.now().unix();
        if until.is_some_and(|until| until < now) {
            return Err(Error::conflict("until", "is over: there is nothing to refuse"));
        }
        let row = |kind: &str, value: &str, before| RevokedRow {
            kind: kind.into(),
            value: value.into(),
            issuer: issuer.clone(),
            before,
            until,
        };
        let of_token = matches!(kind, RevocationKind::Jti | RevocationKind::Token);
        if of_token && before.is_some() {
            return Err(Error::invalid("before", "is for the kinds client and subject alone"));
        }
        let value = value.reveal();
        if kind == RevocationKind::Token {
            check::token("value", value)?;
            let named = claims(value).and_then(|claims| claims.get("iss")?.as_str().map(str::to_owned));
            if named.is_some_and(|named| named != issuer) {
                return Err(Error::invalid("value", "is a token of another issuer"));
            }
            return Ok(row("token", &sha256(value), None));
        }
        check::name("value", value)?;
        Ok(match kind {
            RevocationKind::Client => row("client", value, before.or(Some(now))),
            RevocationKind::Subject => row("subject", value, before.or(Some(now))),
            _ => row("jti", value, None),
        })
    }

    /// The revocation of this key.
    pub fn revocation_of(&self, key: &[u8]) -> Result<RevokedRow> {
        let row = self.store().map(|record| record.get(&REVOKED, key)).transpose().map_err(unkept)?;
        row.flatten().ok_or(Error::NotFound("revocation"))
    }

    /// Lifts a revocation: tokens that are good in all else pass again, at once.
    pub async fn lift(&self, caller: &Caller, key: Vec<u8>) -> Result<Done<()>> {
        self.record(Operation::RevokeToken)?;
        let row = self.revocation_of(&key)?;
        if self.revocations.is_shared() {
            let reason = "revocations are shared through Redis, where every sidecar that knows one tells it again";
            return Err(Error::Unsupported { operation: Operation::RevokeToken, reason: reason.into() });
        }
        let asked = Asked::new(caller, "", Operation::RevokeToken, &row.value);
        if caller.dry_run {
            return Ok(Done::Would(Plan { operation: LIFT.into(), ..plan(&asked.with(&row)) }));
        }
        let entry = AuditEntry {
            operation: LIFT.into(),
            key_manager: None,
            before: json!(row),
            outcome: "done".into(),
            ..self.entry(&asked)
        };
        self.change(vec![RowChange::Lift(key), RowChange::Audit(entry)]).await?;
        if let Some(revocation) = row.revocation() {
            self.revocations.lift(&revocation);
        }
        Ok(Done::Did(()))
    }

    /// Revocations after the key `after`, in the order of their keys.
    pub fn revocations(&self, after: &[u8], most: usize) -> Result<Vec<(Vec<u8>, RevokedRow)>> {
        let Some(record) = self.store() else { return Ok(Vec::new()) };
        record.view().and_then(|view| view.page(&REVOKED, &[], after, most)).map_err(unkept)
    }

    /// Removes revocations of tokens that have long expired.
    pub(super) async fn sweep_revoked(&self) -> Result<()> {
        let Some(record) = self.store() else { return Ok(()) };
        let now = self.clock.now().unix();
        let mut after = Vec::new();
        loop {
            let rows = self.revocations(&after, PAGE)?;
            let full = rows.len() == PAGE;
            after = rows.last().map(|(key, _)| key.clone()).unwrap_or_default();
            let over = |row: &RevokedRow| row.until.is_some_and(|until| until.saturating_add(LONGEST_LEEWAY_S) < now);
            let keys: Vec<Vec<u8>> = rows.into_iter().filter(|(_, row)| over(row)).map(|(key, _)| key).collect();
            if !keys.is_empty() {
                let gone = record
                    .change(move |changes| keys.iter().try_for_each(|key| changes.remove(&REVOKED, key).map(drop)));
                gone.await.map_err(unkept)?;
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// The token is refused until it has expired; an opaque one for as long as an answer about it may be remembered.
    pub(super) fn token_revoked(&self, managed: &Managed, token: &Sensitive) -> Result<RevokedRow> {
        check::token("token", token.reveal())?;
        let until = match claims(token.reveal()) {
            Some(claims) => claims.get("exp").and_then(Value::as_f64).map(|exp| exp as u64),
            None => Some(self.clock.now().unix().saturating_add(LONGEST_REMEMBERED_S)),
        };
        Ok(RevokedRow {
            kind: "token".into(),
            value: sha256(token.reveal()),
            issuer: managed.settings.issuer.clone(),
            before: None,
            until,
        })
    }

    /// All tokens of a client issued until now are refused.
    pub(super) fn client_revoked(&self, managed: &Managed, consumer_key: &str) -> RevokedRow {
        let now = self.clock.now().unix();
        let lifetime = managed.settings.max_lifetime.0.as_secs();
        RevokedRow {
            kind: "client".into(),
            value: consumer_key.into(),
            issuer: managed.settings.issuer.clone(),
            before: Some(now),
            until: (lifetime > 0).then(|| now.saturating_add(lifetime)),
        }
    }

    /// Waits for the second to end: what is issued after it is not taken for what was issued before.
    pub(super) async fn next_second(&self) {
        let left = 1000 - self.clock.now().unix_ms % 1000;
        tokio::time::sleep(Duration::from_millis(left)).await;
    }
}

/// Puts in force what was revoked before the process started.
pub fn restore(record: &Record, revocations: &Revocations) -> Result<()> {
    let view = record.view().map_err(unkept)?;
    let mut after = Vec::new();
    loop {
        let rows = view.page(&REVOKED, &[], &after, PAGE).map_err(unkept)?;
        rows.iter().filter_map(|(_, row)| row.revocation()).for_each(|row| revocations.learn(row));
        match rows.last() {
            Some((last, _)) if rows.len() == PAGE => after.clone_from(last),
            _ => return Ok(()),
        }
    }
}

/// The claims of a JWT, unverified: they only tell whose it says to be and how long it lives.
pub(super) fn claims(token: &str) -> Option<serde_json::Map<String, Value>> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn sha256(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}

/// Which token it was, for the audit.
pub(super) fn told_token(token: &Sensitive) -> String {
    format!("sha256:{}", sha256(token.reveal()))
}

/// An id that nobody guesses.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| Error::Record("the system gives no random numbers".into()))?;
    Ok(hex(&bytes))
}

/// No operation of WSO2's interface.
const LIFT: &str = "liftRevocation";
const PAGE: usize = 1000;
const LONGEST_LEEWAY_S: u64 = 3600;
/// No answer about an opaque token is used for a day.
const LONGEST_REMEMBERED_S: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_parts_have_claims() {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(r#"{"iss":"a"}"#);
        assert_eq!(claims(&format!("h.{payload}.s")).unwrap()["iss"], "a");
        for none in ["opaque", "a.b", &format!("h.{payload}.s.x"), "h.!.s"] {
            assert!(claims(none).is_none(), "{none}");
        }
    }
}
