//! What the contract knows and this build has no part for: refused, where it would change a verdict
//! or a limit, rather than silently not obeyed.

use crate::{
    problem::Problem,
    throttle,
    token::settings::{CacheSettings, ConnectorKind, Validation},
};

use super::{Settings, problems::Findings};

/// The default: keys are fetched one call at a time, so there is nothing to limit yet.
const UNBUILT_CONCURRENCY: u32 = 64;

/// Adds a problem for every setting without a part.
pub(super) fn check(settings: &Settings, found: &mut Findings) {
    let mut refuse = |set: bool, field: String| {
        if set {
            found.0.push(Problem::not_in_this_build(field));
        }
    };
    refuse(settings.decision.is_some(), "decision".into());
    refuse(settings.management.is_some(), "management".into());
    refuse(settings.store.as_ref().is_some_and(|store| store.url.is_some()), "store.url".into());
    refuse(settings.shared.is_some(), "shared".into());

    let (cache, usual) = (&settings.cache, CacheSettings::default());
    refuse(cache.introspection_ttl != usual.introspection_ttl, "cache.introspection_ttl".into());
    refuse(settings.throttle.failures != throttle::Failures::default(), "throttle.failures".into());

    for (index, manager) in settings.key_managers.iter().enumerate() {
        let at = |field: &str| format!("key_managers[{index}].{field}");
        refuse(!matches!(manager.connector, ConnectorKind::Oidc | ConnectorKind::Embedded), at("connector"));
        refuse(!matches!(manager.validation, Validation::Auto | Validation::Jwt), at("validation"));
        refuse(manager.token_pattern.is_some(), at("token_pattern"));
        refuse(manager.introspection_endpoint.is_some(), at("introspection_endpoint"));
        refuse(manager.concurrency != UNBUILT_CONCURRENCY, at("concurrency"));
    }
}
