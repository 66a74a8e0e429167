//! Whose a token is. One that another key manager's provider has issued is not this one's to revoke: its own provider would
//! take it for an unknown one, which counts as revoked (RFC 7009 section 2.2), and the doors would go on to take it.

use std::sync::Arc;

use serde_json::Value;

use super::{Engine, Error, Managed, Operation, Result, Sensitive, check, handling::handles, tokens::claims};

impl Engine {
    /// Refuses a token that is surely another key manager's, before `operation` revokes it.
    pub(super) async fn require_own(
        &self,
        key_manager: &str,
        operation: Operation,
        field: &'static str,
        token: &Sensitive,
    ) -> Result<()> {
        check::token(field, token.reveal())?;
        let managed = self.registry.find(key_manager)?;
        managed.require(operation)?;
        match is_anothers(&managed, &self.registry.all(), token).await? {
            true => Err(Error::invalid(field, "was issued by another than this key manager's provider")),
            false => Ok(()),
        }
    }
}

/// A JWT says itself whose it is: one that lies is none that any door takes. Of others those know who need not ask; then,
/// unless this key manager's provider knows it as good, a pattern tells that is another's alone, and where there is none
/// the providers whose it may be by its form.
async fn is_anothers(managed: &Managed, all: &[Arc<Managed>], token: &Sensitive) -> Result<bool> {
    let claims = claims(token.reveal());
    if let Some(issuer) = claims.as_ref().and_then(|claims| claims.get("iss").and_then(Value::as_str)) {
        return Ok(issuer != managed.settings.issuer);
    }
    if managed.connector.has_issued(token) == Some(true) {
        return Ok(false);
    }
    // What is revoked is so for an issuer, whichever key manager it has.
    let others: Vec<_> = all.iter().filter(|other| other.settings.issuer != managed.settings.issuer).collect();
    if others.iter().any(|other| other.connector.has_issued(token) == Some(true)) {
        return Ok(true);
    }
    let looks_like = |whose: &Managed| handles(whose, all, token.reveal());
    let may_be = |other: &&&Arc<Managed>| other.connector.has_issued(token).is_none() && looks_like(other);
    let alike: Vec<_> = others.iter().filter(may_be).collect();
    if alike.is_empty() || is_good_at(managed, token).await? {
        return Ok(false);
    }
    if !looks_like(managed) && alike.iter().any(|other| other.settings.token_pattern.is_some()) {
        return Ok(true);
    }
    for other in alike {
        // One that cannot be reached does not stand in the way of the others.
        if is_good_at(other, token).await.unwrap_or(false) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn is_good_at(managed: &Managed, token: &Sensitive) -> Result<bool> {
    match managed.connector.cannot(Operation::TokenMetaData) {
        None => Ok(managed.connector.token_meta_data(token).await?.is_token_valid),
        Some(_) => Ok(false),
    }
}
