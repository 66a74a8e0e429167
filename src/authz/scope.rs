//! Whether a token may use the elected resource: whose it is, its scopes, and the API's own audience.

use super::Denial;
use crate::{
    store::{Api, AuthLevel, Resource, ScopesMatch},
    token::{Identity, TokenKind},
};

/// The resource's scopes, whole words, any or all of them.
pub(super) fn require(resource: &Resource, identity: &Identity) -> Result<(), Denial> {
    if resource.scopes.is_empty() {
        return Ok(());
    }
    let mut needed = resource.scopes.iter();
    let enough = match resource.scopes_match {
        ScopesMatch::Any => needed.any(|scope| identity.common.scopes.contains(scope)),
        ScopesMatch::All => needed.all(|scope| identity.common.scopes.contains(scope)),
    };
    if enough { Ok(()) } else { Err(Denial::Scope) }
}

/// An application's token or a user's, where the resource asks for one of them.
pub(super) fn require_level(resource: &Resource, identity: &Identity) -> Result<(), Denial> {
    match (resource.auth_level, identity.kind) {
        (AuthLevel::Any, _)
        | (AuthLevel::Application, TokenKind::Application)
        | (AuthLevel::ApplicationUser, TokenKind::User) => Ok(()),
        _ => Err(Denial::AuthLevel),
    }
}

/// The API's own audience, beside the key manager's.
pub(super) fn require_audience(api: &Api, identity: &Identity) -> Result<(), Denial> {
    if api.audience.is_empty() || api.audience.iter().any(|audience| identity.common.audience.contains(audience)) {
        return Ok(());
    }
    Err(Denial::ApiAudience)
}
