//! What the contract knows and this build has no part for: refused, where it would change a verdict
//! or a limit, rather than silently not obeyed.

use crate::{
    problem::Problem,
    store::{Algorithm, settings::TierSettings},
};

use super::{Settings, problems::Findings};

/// Adds a problem for every setting without a part.
pub(super) fn check(settings: &Settings, found: &mut Findings) {
    let mut refuse = |set: bool, field: String| {
        if set {
            found.0.push(Problem::not_in_this_build(field));
        }
    };
    refuse(settings.decision.is_some(), "decision".into());
    refuse(settings.store.as_ref().is_some_and(|store| store.url.is_some()), "store.url".into());
    for (n, tier) in settings.tiers.iter().enumerate() {
        refuse(is_unshared(settings, tier), format!("tiers[{n}].algorithm"));
    }
}

/// Whether this tier's quota would count per process where counters are shared: only fixed windows are.
pub(super) fn is_unshared(settings: &Settings, tier: &TierSettings) -> bool {
    settings.shared.is_some() && tier.algorithm != Algorithm::Fixed
}
