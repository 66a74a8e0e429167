//! What tiers of APIs and resources can have besides (WSO2's advanced policies): condition groups, and counting per user.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    condition::{Condition, ConditionSettings, On},
    quota::QuotaSettings,
    settings::{TierLevel, TierSettings},
    suggest::Problems,
    tier::{Limits, Subject, Tier},
};

/// `[[tiers.conditions]]`: a limit of its own for requests that meet all its conditions. The first group that does
/// counts; where none does, the tier's own limit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSettings {
    /// All must hold.
    pub when: Vec<ConditionSettings>,
    /// What requests of this group may use.
    pub limit: QuotaSettings,
}

/// What an advanced tier has besides its own limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advanced {
    /// Whether each user has a counter of their own; anonymous callers have one together.
    pub per_user: bool,
    /// In their order.
    pub groups: Box<[Group]>,
}

/// A limit for requests that meet conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// All must hold.
    pub conditions: Box<[Condition]>,
    /// Its limit. Its counter is the same wherever the tier is used: whose it is, the charge adds.
    pub tier: Tier,
}

impl Advanced {
    /// What a tier has besides; none: nothing. `whole`: in the configuration itself, whose claims tokens keep.
    pub(super) fn build(tier: &TierSettings, whole: bool, field: &str, problems: &mut Problems) -> Option<Box<Self>> {
        let given = [("per_user", tier.per_user), ("conditions", !tier.conditions.is_empty())];
        for (name, _) in given.into_iter().filter(|(_, given)| *given && tier.level != TierLevel::Advanced) {
            problems.add(format!("{field}.{name}"), "is for tiers with level = \"advanced\"");
        }
        if tier.conditions.len() > MOST_GROUPS {
            problems.add(format!("{field}.conditions"), format!("are {MOST_GROUPS} at most"));
        }
        let groups = tier.conditions.iter().enumerate();
        let groups: Vec<Group> = groups
            .filter_map(|(n, settings)| {
                group(tier, (n, settings), whole, &format!("{field}.conditions[{n}]"), problems)
            })
            .collect();
        (tier.per_user || !groups.is_empty()).then(|| Box::new(Self { per_user: tier.per_user, groups: groups.into() }))
    }
}

fn group(
    tier: &TierSettings,
    (n, settings): (usize, &GroupSettings),
    whole: bool,
    field: &str,
    problems: &mut Problems,
) -> Option<Group> {
    // As WSO2 names the counters of its groups.
    let name = format!("{}_condition_{n}", tier.name);
    let limits = settings.limit.limits(&name, tier.stop_on_quota_reach, &format!("{field}.limit"), problems);
    match settings.when.len() {
        0 => problems.add(format!("{field}.when"), "is empty: it would be every request's, as the tier's own limit is"),
        n if n > MOST_CONDITIONS => problems.add(format!("{field}.when"), format!("are {MOST_CONDITIONS} at most")),
        _ => {}
    }
    let conditions: Vec<Condition> = settings
        .when
        .iter()
        .enumerate()
        .filter_map(|(m, condition)| Condition::build(condition, &format!("{field}.when[{m}]"), problems))
        .collect();
    for (m, condition) in conditions.iter().enumerate() {
        if matches!(condition.on, On::Claim(..)) && !whole {
            problems.add(
                format!("{field}.when[{m}].claim"),
                "is for tiers of the configuration itself: tokens keep only the claims that it names",
            );
        }
    }
    let limits: Arc<Limits> = limits?.into();
    // By what it asks, not by its place: what is put before it neither takes its count over nor lends it one.
    Some(Group { conditions: conditions.into(), tier: Tier::new(limits, Subject::Condition(&settings.when)) })
}

/// A request is held against each until one holds.
const MOST_GROUPS: usize = 32;
const MOST_CONDITIONS: usize = 16;
