//! What the contract knows and this build has no part for: refused, where it would change a verdict
//! or a limit, rather than silently not obeyed.

use crate::problem::Problem;

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
}
