//! (consumer key, key manager) → application → subscription, and what its state allows (WSO2's rules).

use super::{Denial, decision::Seen};
use crate::{
    store::{Api, KeyType, Snapshot, SubscriptionRule, SubscriptionState},
    token::Identity,
};

/// Finds the application and its subscription, notes them, and judges the state.
pub(super) fn require(tables: &Snapshot, api: &Api, identity: &Identity, seen: &mut Seen) -> Result<(), Denial> {
    if api.subscription == SubscriptionRule::None {
        return Ok(());
    }
    let key = identity
        .common
        .consumer_key
        .as_deref()
        .and_then(|key| tables.consumer_key(&identity.common.key_manager, key))
        .ok_or(Denial::NotSubscribed)?;
    seen.application = Some(key.application);
    seen.key_type = key.key_type;
    seen.subscription = seen.api.and_then(|api| tables.find_subscription(key.application, api));
    let subscription = seen.subscription(tables).ok_or(Denial::NotSubscribed)?;
    allowed(subscription.state, key.key_type)
}

/// What a state says to a key of this type.
fn allowed(state: SubscriptionState, key_type: KeyType) -> Result<(), Denial> {
    use SubscriptionState::{Blocked, DeletePending, OnHold, ProdOnlyBlocked, Rejected, TierUpdatePending, Unblocked};
    match state {
        Unblocked | TierUpdatePending | DeletePending => Ok(()),
        ProdOnlyBlocked if key_type == KeyType::Sandbox => Ok(()),
        Blocked | ProdOnlyBlocked => Err(Denial::SubscriptionBlocked),
        OnHold | Rejected => Err(Denial::SubscriptionInactive),
    }
}

/// What was found, for the trace.
pub(super) fn describe(tables: &Snapshot, seen: &Seen) -> String {
    let application = seen.application.and_then(|index| tables.applications.get(index as usize));
    match (application, seen.subscription(tables)) {
        (Some(application), Some(subscription)) => format!("{}, {}", &*application.name, &**subscription.tier_name),
        _ => "not looked at".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_allow_what_wso2_allows() {
        use KeyType::{Production, Sandbox};
        use SubscriptionState::*;
        let blocked = Err(Denial::SubscriptionBlocked);
        let inactive = Err(Denial::SubscriptionInactive);
        for (state, production, sandbox) in [
            (Unblocked, Ok(()), Ok(())),
            (TierUpdatePending, Ok(()), Ok(())),
            (DeletePending, Ok(()), Ok(())),
            (Blocked, blocked.clone(), blocked.clone()),
            (ProdOnlyBlocked, blocked, Ok(())),
            (OnHold, inactive.clone(), inactive.clone()),
            (Rejected, inactive.clone(), inactive),
        ] {
            assert_eq!(allowed(state, Production), production, "{state:?}");
            assert_eq!(allowed(state, Sandbox), sandbox, "{state:?}");
        }
    }
}
