//! From the configuration, and rows that stand elsewhere, to a [`Snapshot`]: all mistakes in one run, each with its
//! field's path. Rows are taken one by one and not kept: what they became is all that stays.

use std::{hash::BuildHasher, sync::Arc};

use crate::problem::{Place, Problem};

use super::{
    ApiRow, Application, ConsumerKey, Gate, Snapshot, Subject, Subscription, Tier,
    api::{ApiBuilder, NO_KEY_MANAGER},
    application::ConsumerKeysBuilder,
    metadata::Documents,
    resource::{Placement, Routes},
    rows::{Finder, Rows, RowsBuilder, number},
    settings::{ApiSettings, ApplicationSettings, KeySettings, SubscriptionSettings, TableSettings, TierLevel},
    snapshot::Names,
    source::{Named, Origins, Pass, Row, Source},
    subscription::SubscriptionsBuilder,
    suggest::{Problems, Suggest},
    tiers::Tiers,
};

/// Builds the tables, or names every mistake in them.
pub(super) fn snapshot(
    settings: &TableSettings<'_>,
    source: &mut dyn Source,
    generation: u64,
) -> Result<Snapshot, Vec<Problem>> {
    let mut problems = Problems::default();
    let gate = Gate::checked(settings.gate, &mut problems);
    let mut tiers = Tiers::new();
    for tier in settings.tiers {
        tiers.configure(tier, None, &mut problems);
    }
    let mut unread = read(source, Pass::Tiers, &mut problems, &mut |row, place, problems| {
        if let Row::Tier(tier) = row {
            tiers.configure(&tier, place, problems);
        }
    });

    let mut apis =
        Apis::new(ApiBuilder::new(&tiers, settings.key_managers, &settings.issuers, settings.gate.fault_format));
    let mut applications = Applications::new(&tiers, settings.key_managers);
    for api in settings.apis {
        apis.add(api, None, &mut problems);
    }
    for application in settings.applications {
        applications.add(application, None, &mut problems);
    }
    unread |= read(source, Pass::Named, &mut problems, &mut |row, place, problems| match row {
        Row::Api(api) => apis.add(&api, place, problems),
        Row::Application(application) => applications.add(&application, place, problems),
        Row::Tier(_) | Row::Subscription(_) => {}
    });
    let (routes, documents) = apis.lay_out(&mut problems);

    let mut subscriptions = SubscriptionBuilder {
        tiers: &tiers,
        apis: &apis,
        applications: &applications,
        // Who names a row that could not be read is not wrong.
        unread,
        api_uses: vec![0; apis.rows.len()],
        application_uses: vec![0; applications.rows.len()],
        rows: SubscriptionsBuilder::new(),
    };
    for (n, subscription) in settings.subscriptions.iter().enumerate() {
        subscriptions.add(Named::Config("subscriptions", n), subscription, &mut problems);
    }
    read(source, Pass::Subscriptions, &mut problems, &mut |row, place, problems| {
        if let Row::Subscription(subscription) = row {
            problems.stand_at(place);
            subscriptions.add(Named::Line("subscription"), &subscription, problems);
        }
    });
    let SubscriptionBuilder { rows: subscriptions, api_uses, application_uses, .. } = subscriptions;
    problems.into_result()?;
    let Applications { rows: applications, keys, mut finder, .. } = applications;
    let applications = applications.finish();
    finder.shrink(|hasher, row| hasher.hash_one(applications.get(row as usize).map_or("", |row| &*row.name)));
    let Apis { rows: apis, placements, finder: api_names, .. } = apis;
    Ok(Snapshot {
        gate: Arc::new(gate),
        apis: apis.into(),
        applications,
        generation,
        no_api_counters: Arc::default(),
        routes,
        documents: Arc::new(documents),
        consumer_keys: keys.finish(),
        subscriptions: subscriptions.finish(),
        names: Names {
            key_managers: settings.key_managers.into(),
            issuers: settings.issuers.iter().map(|issuer| (*issuer).to_owned()).collect(),
            apis: api_names,
            applications: finder,
            placements: rows_of(placements),
            api_uses: rows_of(api_uses),
            application_uses: rows_of(application_uses),
            free_apis: Arc::default(),
            free_applications: Arc::default(),
            tiers: Arc::new(tiers),
        },
    })
}

fn rows_of<T>(all: impl IntoIterator<Item = T>) -> Rows<T> {
    let mut rows = RowsBuilder::new();
    all.into_iter().for_each(|row| rows.push(row));
    rows.finish()
}

/// Takes the rows of a pass, until there are too many mistakes. True if some could not be read.
fn read(
    source: &mut dyn Source,
    pass: Pass,
    problems: &mut Problems,
    take: &mut dyn FnMut(Row, Option<&Place>, &mut Problems),
) -> bool {
    let begun = problems.count();
    let unreadable = source.read(pass, &mut |row, place| {
        take(row, Some(place), problems);
        problems.count() < begun + MOST_MISTAKES
    });
    problems.stand_at(None);
    let unread = !unreadable.is_empty() || problems.count() >= begun + MOST_MISTAKES;
    problems.extend(unreadable);
    unread
}

/// The APIs built so far.
struct Apis<'a> {
    builder: ApiBuilder<'a>,
    rows: Vec<ApiRow>,
    placements: Vec<Placement>,
    finder: Finder,
    origins: Origins,
}

impl<'a> Apis<'a> {
    fn new(builder: ApiBuilder<'a>) -> Self {
        let (rows, placements) = (Vec::new(), Vec::new());
        Self { builder, rows, placements, finder: Finder::default(), origins: Origins::default() }
    }

    fn add(&mut self, settings: &ApiSettings, place: Option<&Place>, problems: &mut Problems) {
        let row = self.origins.add(place);
        let at = self.origins.named("apis", "api", row);
        problems.stand_at(place);
        let (api, placement) = self.builder.build(at, settings, problems);
        if let Some(earlier) = self.find(&api.id) {
            let earlier = self.origins.told("apis", earlier as usize);
            problems.add(format!("{at}.name"), format!("{earlier} has this name and version too"));
        }
        let hash = self.finder.hash(&*api.id);
        self.rows.push(api);
        self.placements.push(placement);
        let rows = &self.rows;
        self.finder.add(hash, number(row), |hasher, row| hasher.hash_one(&*rows[row as usize].id));
    }

    fn find(&self, id: &str) -> Option<u32> {
        self.finder.find(self.finder.hash(id), |row| *self.rows[row as usize].id == *id)
    }

    /// How requests find them.
    fn lay_out(&self, problems: &mut Problems) -> (Routes, Documents) {
        let documents = Documents::build(&self.rows, &|_| true, &self.origins, problems);
        let (routes, conflicts) = Routes::build(&self.rows, &self.placements);
        for conflict in conflicts {
            let ((api, resource), (earlier_api, earlier)) = (conflict.later, conflict.earlier);
            problems.stand_at(self.origins.place(api as usize).as_ref());
            let at = self.origins.named("apis", "api", api as usize);
            let earlier_api = self.origins.told("apis", earlier_api as usize);
            problems.add(
                format!("{at}.resources[{resource}].path"),
                format!("{earlier_api}.resources[{earlier}] has the same shape, verb and host"),
            );
        }
        problems.stand_at(None);
        (routes, documents)
    }
}

/// The applications built so far.
struct Applications<'a> {
    tiers: &'a Tiers,
    key_managers: &'a [String],
    rows: RowsBuilder<Application>,
    keys: ConsumerKeysBuilder,
    finder: Finder,
    origins: Origins,
}

impl<'a> Applications<'a> {
    fn new(tiers: &'a Tiers, key_managers: &'a [String]) -> Self {
        let (rows, keys) = (RowsBuilder::new(), ConsumerKeysBuilder::new(key_managers));
        Self { tiers, key_managers, rows, keys, finder: Finder::default(), origins: Origins::default() }
    }

    fn add(&mut self, settings: &ApplicationSettings, place: Option<&Place>, problems: &mut Problems) {
        let row = self.origins.add(place);
        let at = self.origins.named("applications", "application", row);
        problems.stand_at(place);
        let mut new = application(at, settings, self.tiers, problems);
        if let Some(earlier) = self.find(&new.name) {
            let earlier = self.origins.told("applications", earlier as usize);
            problems.add(format!("{at}.name"), format!("{earlier} has this name too"));
        }
        let mut keys = Vec::with_capacity(settings.keys.len());
        for (m, key) in settings.keys.iter().enumerate() {
            let field = |name: &str| format!("{at}.keys[{m}].{name}");
            let Some(key_manager) = checked_key(key, self.key_managers, &field, problems) else { continue };
            let value = ConsumerKey { application: number(row), key_type: key.key_type };
            match self.keys.add(key_manager, &key.consumer_key, value) {
                Ok(row) => keys.push(row),
                Err(earlier) => {
                    let earlier = self.origins.told("applications", earlier.application as usize);
                    problems.add(field("consumer_key"), format!("{earlier} has this key of this key manager too"));
                }
            }
        }
        new.keys = keys.into();
        let hash = self.finder.hash(&*new.name);
        self.rows.push(new);
        let rows = &self.rows;
        let name = |row: u32| rows.get(row).map_or("", |row| &*row.name);
        self.finder.add(hash, number(row), |hasher, row| hasher.hash_one(name(row)));
    }

    fn find(&self, name: &str) -> Option<u32> {
        let is_it = |row: u32| self.rows.get(row).is_some_and(|row| *row.name == *name);
        self.finder.find(self.finder.hash(name), is_it)
    }
}

/// The application that stands `at`; only good if no problem was added.
pub(super) fn application(
    at: Named,
    settings: &ApplicationSettings,
    tiers: &Tiers,
    problems: &mut Problems,
) -> Application {
    problems.refuse_empty(&settings.name, || format!("{at}.name"));
    problems.refuse_empty(&settings.owner, || format!("{at}.owner"));
    let picked = tiers.pick(&settings.tier, TierLevel::Application, || format!("{at}.tier"), problems);
    let (tier_name, limits) = picked.map_or_else(|| (Arc::new("".into()), None), |tier| (tier.name, tier.limits));
    Application {
        name: settings.name.as_str().into(),
        owner: settings.owner.as_str().into(),
        tier_name,
        tier: limits.map(|limits| Tier::new(limits, Subject::Application(&settings.name))),
        keys: Box::default(),
    }
}

/// The key manager of a key, whose text is looked at too.
pub(super) fn checked_key<'a>(
    key: &'a KeySettings,
    known: &'a [String],
    field: &dyn Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<&'a str> {
    problems.refuse_empty(&key.consumer_key, || field("consumer_key"));
    key_manager(key, known, field, problems)
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
    apis: &'a Apis<'a>,
    applications: &'a Applications<'a>,
    unread: bool,
    /// How many subscriptions each has.
    api_uses: Vec<u32>,
    application_uses: Vec<u32>,
    rows: SubscriptionsBuilder,
}

impl SubscriptionBuilder<'_> {
    fn add(&mut self, at: Named, settings: &SubscriptionSettings, problems: &mut Problems) {
        let application = self.applications.find(&settings.application);
        if application.is_none() && !self.unread {
            let names = self.applications.rows.iter().map(|row| &*row.name);
            let nearest = problems.nearest(&settings.application, names);
            problems.add(format!("{at}.application"), Suggest(NO_APPLICATION, nearest));
        }
        let api = self.apis.find(&settings.api);
        if api.is_none() && !self.unread {
            let nearest = problems.nearest(&settings.api, self.apis.rows.iter().map(|row| &*row.id));
            problems.add(format!("{at}.api"), Suggest(NO_API, nearest));
        }
        let of = (application.unwrap_or_default(), api.unwrap_or_default());
        let row = subscription(at, settings, of, self.tiers, problems);
        let (Some(application), Some(api), Some(row)) = (application, api, row) else { return };
        if !self.rows.add(row) {
            problems.add(format!("{at}.api"), SUBSCRIBED);
        }
        self.api_uses[api as usize] += 1;
        self.application_uses[application as usize] += 1;
    }
}

/// The subscription that stands `at`, of an application to an API; none if its tier is wrong.
pub(super) fn subscription(
    at: Named,
    settings: &SubscriptionSettings,
    (application, api): (u32, u32),
    tiers: &Tiers,
    problems: &mut Problems,
) -> Option<Subscription> {
    let tier = tiers.pick(&settings.tier, TierLevel::Subscription, || format!("{at}.tier"), problems)?;
    let subject = Subject::Subscription(&settings.application, &settings.api);
    Some(Subscription {
        application,
        api,
        state: settings.state,
        tier_name: tier.name,
        tier: tier.limits.map(|limits| Tier::new(limits, subject)),
    })
}

pub(super) const NO_APPLICATION: &str = "no application has this name";
pub(super) const NO_API: &str = "no API has this name and version (name:version)";
pub(super) const SUBSCRIBED: &str = "the application is subscribed to this API already";

/// So many mistakes of rows are told in a pass, then reading ends.
pub const MOST_MISTAKES: usize = 100;
