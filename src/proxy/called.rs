//! What stays known of a judged request until its answer has ended: what its access line and its counters tell, and
//! what a failure needs. Never the tables it was judged by: a request may last for days, and would keep all of them.

use std::sync::Arc;

use crate::{
    authz::Found,
    store::{Api, KeyType, Label},
};

/// What a request calls, and by whom.
#[derive(Debug, Default)]
pub(super) struct Called {
    pub(super) api: Option<Arc<Api>>,
    pub(super) template: Option<Arc<str>>,
    pub(super) application: Option<Arc<str>>,
    pub(super) key_type: KeyType,
    pub(super) tier: Option<Arc<Label>>,
}

impl Called {
    pub(super) fn of(found: &Found) -> Self {
        Self {
            api: found.api().map(|row| Arc::clone(&row.api)),
            template: found.resource().map(|resource| Arc::clone(&resource.template)),
            application: found.application().map(|application| application.name.text()),
            key_type: found.key_type,
            tier: found.subscription().map(|subscription| Arc::clone(&subscription.tier_name)),
        }
    }
}
