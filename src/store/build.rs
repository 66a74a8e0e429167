//! From the configuration to a [`Snapshot`]: all mistakes in one run, each with its field's path.

use std::collections::HashMap;

use crate::{problem::Problem, telemetry::ApiCounters};

use super::{
    Api, Application, ConsumerKey, Gate, Snapshot, Subject, Subscription, Tier,
    api::{self, ApiBuilder, NO_KEY_MANAGER},
    application::ConsumerKeys,
    resource::{Placement, Routes},
    settings::{ApplicationSettings, KeySettings, SubscriptionSettings, TableSettings, TierLevel},
    subscription::Subscriptions,
    suggest::{Problems, Suggest},
    tiers::Tiers,
};

/// Builds the tables, or names every mistake in them.
pub(super) fn snapshot(settings: &TableSettings<'_>, generation: u64) -> Result<Snapshot, Vec<Problem>> {
    let mut problems = Problems::default();
    let gate = Gate::checked(settings.gate, &mut problems);
    let tiers = Tiers::build(settings.tiers, &mut problems);
    let api_ids: Vec<String> = settings.apis.iter().map(api::id).collect();
    let api_index = by_name(&api_ids, "apis", "name and version", &mut problems);
    let (apis, placements) = apis(settings, &tiers, &mut problems);
    let (routes, conflicts) = Routes::build(&apis, &placements);
    for conflict in conflicts {
        let ((api, resource), (earlier_api, earlier)) = (conflict.later, conflict.earlier);
        problems.add(
            format!("apis[{api}].resources[{resource}].path"),
            format!("apis[{earlier_api}].resources[{earlier}] has the same shape, verb and host"),
        );
    }
    let names: Vec<&str> = settings.applications.iter().map(|application| application.name.as_str()).collect();
    let application_index = by_name(&names, "applications", "name", &mut problems);
    let applications = applications(settings.applications, &tiers, &mut problems);
    let consumer_keys = consumer_keys(settings, &mut problems);
    let subscriptions = SubscriptionBuilder { tiers: &tiers, apis: &api_index, applications: &application_index }
        .build(settings.subscriptions, &mut problems);
    problems.into_result()?;
    Ok(Snapshot {
        gate,
        apis,
        applications,
        generation,
        no_api_counters: ApiCounters::default(),
        routes,
        consumer_keys,
        subscriptions,
    })
}

/// Places of rows by name; a name that is there already is a problem.
fn by_name<'n, N: AsRef<str>>(
    names: &'n [N],
    table: &str,
    what: &str,
    problems: &mut Problems,
) -> HashMap<&'n str, u32> {
    let mut places = HashMap::with_capacity(names.len());
    for (n, name) in names.iter().enumerate() {
        let Ok(place) = u32::try_from(n) else {
            problems.add(table, "has more than 2^32 rows");
            break;
        };
        let earlier = *places.entry(name.as_ref()).or_insert(place);
        if earlier != place {
            problems.add(format!("{table}[{n}].name"), format!("{table}[{earlier}] has this {what} too"));
        }
    }
    places
}

fn apis(settings: &TableSettings<'_>, tiers: &Tiers, problems: &mut Problems) -> (Vec<Api>, Vec<Placement>) {
    let mut builder = ApiBuilder::new(tiers, settings.key_managers, settings.gate.fault_format);
    settings.apis.iter().enumerate().map(|(n, api)| builder.build(n, api, problems)).unzip()
}

fn applications(settings: &[ApplicationSettings], tiers: &Tiers, problems: &mut Problems) -> Vec<Application> {
    let mut applications = Vec::with_capacity(settings.len());
    for (n, application) in settings.iter().enumerate() {
        problems.refuse_empty(&application.name, || format!("applications[{n}].name"));
        problems.refuse_empty(&application.owner, || format!("applications[{n}].owner"));
        let field = || format!("applications[{n}].tier");
        let Some(tier) = tiers.pick(&application.tier, TierLevel::Application, field, problems) else { continue };
        applications.push(Application {
            name: application.name.as_str().into(),
            owner: application.owner.as_str().into(),
            tier_name: tier.name,
            tier: tier.limits.map(|limits| Tier::new(limits, Subject::Application(&application.name))),
        });
    }
    applications
}

fn consumer_keys(settings: &TableSettings<'_>, problems: &mut Problems) -> ConsumerKeys {
    let mut keys = ConsumerKeys::default();
    for (n, application) in settings.applications.iter().enumerate() {
        for (m, key) in application.keys.iter().enumerate() {
            let field = |name: &str| format!("applications[{n}].keys[{m}].{name}");
            problems.refuse_empty(&key.consumer_key, || field("consumer_key"));
            let Some(key_manager) = key_manager(key, settings.key_managers, &field, problems) else { continue };
            let Ok(place) = u32::try_from(n) else { continue };
            let value = ConsumerKey { application: place, key_type: key.key_type };
            if let Some(earlier) = keys.add(key_manager, &key.consumer_key, value) {
                let message = format!("applications[{}] has this key of this key manager too", earlier.application);
                problems.add(field("consumer_key"), message);
            }
        }
    }
    keys.shrink();
    keys
}

/// Whose key it is: as it says, or the only one there is.
fn key_manager<'a>(
    key: &'a KeySettings,
    known: &'a [String],
    field: &dyn Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<&'a str> {
    match (&key.key_manager, known) {
        (Some(name), _) if known.contains(name) => Some(name),
        (Some(name), _) => {
            let nearest = problems.nearest(name, known.iter().map(String::as_str));
            problems.add(field("key_manager"), Suggest(NO_KEY_MANAGER, nearest));
            None
        }
        (None, [only]) => Some(only),
        (None, _) => {
            problems.add(field("key_manager"), "is needed unless there is exactly one key manager");
            None
        }
    }
}

struct SubscriptionBuilder<'a> {
    tiers: &'a Tiers,
    apis: &'a HashMap<&'a str, u32>,
    applications: &'a HashMap<&'a str, u32>,
}

impl SubscriptionBuilder<'_> {
    fn build(&self, settings: &[SubscriptionSettings], problems: &mut Problems) -> Subscriptions {
        let mut subscriptions = Subscriptions::with_capacity(settings.len());
        for (n, settings) in settings.iter().enumerate() {
            let Some(subscription) = self.subscription(n, settings, problems) else { continue };
            if !subscriptions.add(subscription) {
                let message = "the application is subscribed to this API already";
                problems.add(format!("subscriptions[{n}].api"), message);
            }
        }
        subscriptions
    }

    fn subscription(&self, n: usize, it: &SubscriptionSettings, problems: &mut Problems) -> Option<Subscription> {
        let field = |name: &str| format!("subscriptions[{n}].{name}");
        let mut find = |rows: &HashMap<&str, u32>, name: &str, unknown, field: String| {
            let found = rows.get(name).copied();
            if found.is_none() {
                let nearest = problems.nearest(name, rows.keys().copied());
                problems.add(field, Suggest(unknown, nearest));
            }
            found
        };
        let application =
            find(self.applications, &it.application, "no application has this name", field("application"));
        let api = find(self.apis, &it.api, "no API has this name and version (name:version)", field("api"));
        let tier = self.tiers.pick(&it.tier, TierLevel::Subscription, || field("tier"), problems)?;
        let subject = Subject::Subscription(&it.application, &it.api);
        Some(Subscription {
            application: application?,
            api: api?,
            state: it.state,
            tier_name: tier.name,
            tier: tier.limits.map(|limits| Tier::new(limits, subject)),
        })
    }
}
