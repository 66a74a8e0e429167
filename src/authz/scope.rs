//! Whether a token may use the elected resource: its scopes, and the API's own audience.

use super::Denial;
use crate::{
    store::{Api, Resource, ScopesMatch},
    token::Identity,
};

/// The resource's scopes, whole words, any or all of them.
pub(super) fn require(resource: &Resource, identity: &Identity) -> Result<(), Denial> {
    if resource.scopes.is_empty() {
        return Ok(());
    }
    let mut needed = resource.scopes.iter();
    let enough = match resource.scopes_match {
        ScopesMatch::Any => needed.any(|scope| identity.scopes.contains(scope)),
        ScopesMatch::All => needed.all(|scope| identity.scopes.contains(scope)),
    };
    if enough { Ok(()) } else { Err(Denial::Scope) }
}

/// The API's own audience, beside the key manager's.
pub(super) fn require_audience(api: &Api, identity: &Identity) -> Result<(), Denial> {
    if api.audience.is_empty() || api.audience.iter().any(|audience| identity.audience.contains(audience)) {
        return Ok(());
    }
    Err(Denial::ApiAudience)
}
