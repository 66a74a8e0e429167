//! Whether a token may use the elected resource: whose it is, its scopes, the API's own audience, and how its user has
//! signed in.

use super::Denial;
use crate::{
    net::Now,
    store::{Api, AuthLevel, Resource, ScopesMatch, SignIn},
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

/// A sign-in of the kind and age that the resource asks for (RFC 9470). What the token does not tell is not believed.
pub(super) fn require_sign_in(resource: &Resource, identity: &Identity, now: Now) -> Result<(), Denial> {
    let Some(sign_in) = resource.sign_in.as_deref() else { return Ok(()) };
    let SignIn { acr_values, max_age_s } = sign_in;
    let kind = acr_values.is_empty() || identity.common.acr.as_ref().is_some_and(|acr| acr_values.contains(acr));
    let age = max_age_s.is_none_or(|most| age_s(identity, now).is_some_and(|age| age <= most));
    if kind && age { Ok(()) } else { Err(Denial::SignIn) }
}

/// Seconds since the token's user signed in. None: it does not say, or says a time to come.
pub(super) fn age_s(identity: &Identity, now: Now) -> Option<u64> {
    let at = u64::from(identity.signed_in_at?.get());
    (at <= now.unix() + SKEW_S).then(|| now.unix().saturating_sub(at))
}

/// How far the provider's clock may be ahead: as much as the default of `leeway`.
const SKEW_S: u64 = 30;

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, sync::Arc};

    use super::*;
    use crate::token::Common;

    #[test]
    fn a_sign_in_is_as_old_as_the_clock_says() {
        let now = Now::at_ms(1_800_000_000_000);
        let age = |at: u32| {
            let identity = Identity {
                common: Arc::new(Common::default()),
                subject: None,
                own_subject: None,
                expires_at: u64::MAX,
                issued_at: None,
                jti: None,
                tag: [0; 16],
                kind: TokenKind::User,
                inside: None,
                signed_in_at: NonZeroU32::new(at),
                user: 0,
                subject_value: None,
                claims: [].into(),
            };
            age_s(&identity, now)
        };
        assert_eq!(age(0), None);
        assert_eq!(age(1), Some(1_799_999_999));
        assert_eq!(age(1_799_999_700), Some(300));
        assert_eq!(age(1_800_000_000), Some(0));
        assert_eq!(age(1_800_000_030), Some(0), "the provider's clock may be a little ahead");
        assert_eq!(age(1_800_000_031), None);
        assert_eq!(age(u32::MAX), None);
    }
}
