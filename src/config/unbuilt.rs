//! What the contract knows and this build has no part for: refused, where it would change a verdict
//! or a limit, rather than silently not obeyed.

use crate::{
    problem::Problem,
    token::settings::{ConnectorKind, TokenForm},
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
    refuse(settings.management.is_some(), "management".into());
    refuse(settings.store.is_some(), "store".into());
    refuse(settings.shared.is_some(), "shared".into());

    for (index, manager) in settings.key_managers.iter().enumerate() {
        let at = |field: &str| format!("key_managers[{index}].{field}");
        let built = [ConnectorKind::Oidc, ConnectorKind::Keycloak, ConnectorKind::Embedded];
        refuse(!built.contains(&manager.connector), at("connector"));
        refuse(manager.tokens == TokenForm::Opaque, at("tokens"));
    }
}
