//! From the configuration, and rows that stand elsewhere, to a [`Snapshot`]: all mistakes in one run, each with its
//! field's path. Rows are taken one by one and not kept: what they became is all that stays.

use std::{hash::BuildHasher, sync::Arc};

use crate::problem::{Place, Problem};

use super::{
    Api, Application, ConsumerKey, Gate, Snapshot, Subject, Subscription, Tier,
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
    rows: Vec<Arc<Api>>,
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
        self.rows.push(Arc::new(api));
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
const MOST_MISTAKES: usize = 100;

#[cfg(test)]
mod tests {
    use super::super::tests::build;

    const GOOD: &str = r#"
        [[apis]]
        name = "Orders"
        context = "/orders"
        version = "v1"
        upstream = "echo:"
        [[apis.resources]]
        path = "/items"
        [[applications]]
        name = "shop-web"
        owner = "ada"
        keys = [{ consumer_key = "shop" }]
        [[subscriptions]]
        application = "shop-web"
        api = "Orders:v1"
        tier = "Gold"
    "#;

    /// Each row: what stands in `GOOD`, what stands there instead, and the field that is wrong.
    const MISTAKES: &[(&str, &str, &str)] = &[
        (r#"name = "Orders""#, r#"name = """#, "apis[0].name"),
        (r#"context = "/orders""#, r#"context = "orders""#, "apis[0].context"),
        (r#"context = "/orders""#, r#"context = "/orders/""#, "apis[0].context"),
        (r#"context = "/orders""#, r#"context = "/a//b""#, "apis[0].context"),
        (r#"context = "/orders""#, r#"context = "/a/../b""#, "apis[0].context"),
        (r#"context = "/orders""#, r#"context = "/a/{b}""#, "apis[0].context"),
        (r#"version = "v1""#, r#"version = "v1/2""#, "apis[0].version"),
        (r#"version = "v1""#, r#"version = """#, "apis[0].version"),
        (r#"version = "v1""#, r#"version = "..""#, "apis[0].version"),
        (r#"upstream = "echo:""#, r#"upstream = "ftp://a""#, "apis[0].upstream"),
        (r#"upstream = "echo:""#, r#"upstream = []"#, "apis[0].upstream"),
        (r#"upstream = "echo:""#, r#"upstream = ["echo:", ""]"#, "apis[0].upstream[1]"),
        (r#"upstream = "echo:""#, "", "apis[0].upstream"),
        (r#"upstream = "echo:""#, "upstream = 'echo:'\nsandbox = 'echo:'", "apis[0].upstream"),
        (r#"upstream = "echo:""#, r#"production = "http://u@a""#, "apis[0].production"),
        (r#"upstream = "echo:""#, "upstream = 'echo:'\nhosts = ['a', 'a/b']", "apis[0].hosts[1]"),
        (r#"upstream = "echo:""#, "upstream = 'echo:'\ntoken_in = []", "apis[0].token_in"),
        (r#"upstream = "echo:""#, "upstream = 'echo:'\nkey_managers = ['keyclock']", "apis[0].key_managers[0]"),
        (r#"upstream = "echo:""#, "upstream = 'echo:'\naudience = ['']", "apis[0].audience[0]"),
        (r#"upstream = "echo:""#, "upstream = 'echo:'\ntier = 'Golden'", "apis[0].tier"),
        (r#"upstream = "echo:""#, "upstream = 'echo:'\ntier = 'Gold'", "apis[0].tier"),
        ("[[apis.resources]]\n        path = \"/items\"", "", "apis[0].resources"),
        (r#"path = "/items""#, r#"path = "items""#, "apis[0].resources[0].path"),
        (r#"path = "/items""#, r#"path = "/{a}{b}""#, "apis[0].resources[0].path"),
        (r#"path = "/items""#, r#"path = "/x{a}""#, "apis[0].resources[0].path"),
        (r#"path = "/items""#, "path = '/items'\nmethods = []", "apis[0].resources[0].methods"),
        (r#"path = "/items""#, "path = '/items'\nmethods = ['GET', 'post']", "apis[0].resources[0].methods[1]"),
        (r#"path = "/items""#, "path = '/items'\nmethods = ['CONNECT']", "apis[0].resources[0].methods[0]"),
        (r#"path = "/items""#, "path = '/items'\nmethods = ['*', 'TRACE']", "apis[0].resources[0].methods[1]"),
        (r#"path = "/items""#, "path = '/items'\nmethods = ['A B']", "apis[0].resources[0].methods[0]"),
        (r#"path = "/items""#, "path = '/items'\nmethods = ['']", "apis[0].resources[0].methods[0]"),
        (r#"path = "/items""#, "path = '/items'\nscopes = ['a b']", "apis[0].resources[0].scopes[0]"),
        (r#"path = "/items""#, "path = '/items'\nscopes = ['a', '']", "apis[0].resources[0].scopes[1]"),
        (r#"path = "/items""#, "path = '/items'\nscopes = ['a\"']", "apis[0].resources[0].scopes[0]"),
        (r#"path = "/items""#, "path = '/items'\nscopes = ['a\\']", "apis[0].resources[0].scopes[0]"),
        (r#"path = "/items""#, "path = '/items'\nacr_values = ['a', 'b c']", "apis[0].resources[0].acr_values[1]"),
        (r#"path = "/items""#, "path = '/items'\nacr_values = ['a']\nauth = 'none'", "apis[0].resources[0].acr_values"),
        (r#"path = "/items""#, "path = '/items'\nmax_age = '1h'\nauth = 'none'", "apis[0].resources[0].max_age"),
        (r#"path = "/items""#, "path = '/items'\nmax_age = '0'", "apis[0].resources[0].max_age"),
        (r#"path = "/items""#, "path = '/items'\nmax_age = '1500ms'", "apis[0].resources[0].max_age"),
        (r#"path = "/items""#, "path = '/items'\ntier = '50PerMin'", "apis[0].resources[0].tier"),
        (
            r#"path = "/items""#,
            "path = '/items/{a}'\n[[apis.resources]]\npath = '/items/{b}/'",
            "apis[0].resources[1].path",
        ),
        (r#"path = "/items""#, "path = '/é'\n[[apis.resources]]\npath = '/%C3%a9'", "apis[0].resources[1].path"),
        (
            r#"path = "/items""#,
            "path = '/a'\n[[apis.resources]]\npath = '/a'\nmethods = ['GET']",
            "apis[0].resources[1].path",
        ),
        (r#"name = "shop-web""#, r#"name = """#, "applications[0].name"),
        (r#"owner = "ada""#, r#"owner = """#, "applications[0].owner"),
        (r#"owner = "ada""#, "owner = 'ada'\ntier = 'Gold'", "applications[0].tier"),
        (r#"consumer_key = "shop""#, r#"consumer_key = """#, "applications[0].keys[0].consumer_key"),
        (
            r#"{ consumer_key = "shop" }"#,
            "{ consumer_key = 'a' }, { consumer_key = 'a', key_type = 'SANDBOX' }",
            "applications[0].keys[1].consumer_key",
        ),
        (
            r#"consumer_key = "shop""#,
            "consumer_key = 'shop', key_manager = 'keycloac'",
            "applications[0].keys[0].key_manager",
        ),
        (r#"application = "shop-web""#, r#"application = "shop_web""#, "subscriptions[0].application"),
        (r#"api = "Orders:v1""#, r#"api = "Orders""#, "subscriptions[0].api"),
        (r#"tier = "Gold""#, r#"tier = "gold""#, "subscriptions[0].tier"),
        (r#"tier = "Gold""#, r#"tier = "10KPerMin""#, "subscriptions[0].tier"),
        (r#"tier = "Gold""#, r#"tier = "AsyncGold""#, "subscriptions[0].tier"),
        (r#"tier = "Gold""#, r#"tier = "AIGold""#, "subscriptions[0].tier"),
        (
            r#"tier = "Gold""#,
            "tier = 'Gold'\n[[subscriptions]]\napplication = 'shop-web'\napi = 'Orders:v1'\ntier = 'Silver'",
            "subscriptions[1].api",
        ),
    ];

    /// Tables that stand after `GOOD`, and the field that is wrong.
    const MISTAKEN_TABLES: &[(&str, &str)] = &[
        ("[[tiers]]\nname = ''\nrequests = 1\nper = '1m'", "tiers[0].name"),
        ("[[tiers]]\nname = 'A'\nper = '1m'", "tiers[0]"),
        ("[[tiers]]\nname = 'A'\nrequests = 1\nbytes = 1\nper = '1m'", "tiers[0]"),
        ("[[tiers]]\nname = 'A'\nbytes = 1\nper = '1m'", "tiers[0].bytes"),
        ("[[tiers]]\nname = 'A'\nevents = 1\nper = '1m'", "tiers[0].events"),
        ("[[tiers]]\nname = 'A'\ntokens = 1\nper = '1m'", "tiers[0].tokens"),
        ("[[tiers]]\nname = 'A'\nrequests = 0\nper = '1m'", "tiers[0].requests"),
        ("[[tiers]]\nname = 'A'\nrequests = 2147483648\nper = '1m'", "tiers[0].requests"),
        ("[[tiers]]\nname = 'A'\nrequests = 1\nper = '0m'", "tiers[0].per"),
        ("[[tiers]]\nname = 'A'\nrequests = 1\nper = 'm'", "tiers[0].per"),
        ("[[tiers]]\nname = 'A'\nrequests = 1\nper = '1'", "tiers[0].per"),
        ("[[tiers]]\nname = 'A'\nrequests = 1\nper = '1w'", "tiers[0].per"),
        ("[[tiers]]\nname = 'A'\nrequests = 1\nper = '99999999999d'", "tiers[0].per"),
        ("[[tiers]]\nname = 'A'\nrequests = 1\nper = '121mo'", "tiers[0].per"),
        (
            "[[tiers]]\nname = 'A'\nrequests = 1\nper = '1m'\nburst = { requests = 0, per = '1s' }",
            "tiers[0].burst.requests",
        ),
        (
            "[[tiers]]\nname = 'A'\nrequests = 1\nper = '1m'\nburst = { requests = 1, per = '1mo' }",
            "tiers[0].burst.per",
        ),
        (
            "[[tiers]]\nname = 'A'\nrequests = 1\nper = '1m'\n[[tiers]]\nname = 'A'\nrequests = 2\nper = '1m'",
            "tiers[1].name",
        ),
        (
            "[[apis]]\nname = 'Orders'\nversion = 'v1'\ncontext = '/o'\nupstream = 'echo:'\nresources = [{ path = '/' }]",
            "apis[1].name",
        ),
        (
            "[[apis]]\nname = 'B'\ncontext = '/orders/v1'\nupstream = 'echo:'\nresources = [{ path = '/items/' }]",
            "apis[1].resources[0].path",
        ),
        ("[[applications]]\nname = 'shop-web'\nowner = 'bob'", "applications[1].name"),
        (
            "[[applications]]\nname = 'b'\nowner = 'bob'\nkeys = [{ consumer_key = 'shop' }]",
            "applications[1].keys[0].consumer_key",
        ),
    ];

    #[test]
    fn every_mistake_is_named_once_with_its_field() {
        build(GOOD).unwrap();
        let replaced = MISTAKES.iter().map(|(good, bad, field)| {
            assert!(GOOD.contains(good), "{good}");
            (GOOD.replacen(good, bad, 1), field)
        });
        let added = MISTAKEN_TABLES.iter().map(|(bad, field)| (format!("{GOOD}{bad}"), field));
        for (toml, field) in replaced.chain(added) {
            let problems = build(&toml).err().unwrap_or_else(|| panic!("{field}: not refused\n{toml}"));
            let mut fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
            // What refers to something unnamed is a mistake too.
            fields.retain(|it| it == field || !it.starts_with("subscriptions"));
            assert_eq!(fields, [*field], "{problems:?}\n{toml}");
        }
    }

    #[test]
    fn all_mistakes_come_in_one_run() {
        let toml = GOOD.replace("/orders", "orders").replace("echo:", "").replace("Gold", "Golden").replace("ada", "");
        let fields: Vec<String> = build(&toml).unwrap_err().into_iter().map(|problem| problem.field).collect();
        assert_eq!(fields, ["apis[0].context", "apis[0].upstream", "applications[0].owner", "subscriptions[0].tier"]);
    }

    #[test]
    fn the_nearest_name_is_told_and_no_value_quoted() {
        for (good, bad, nearest) in [
            ("Gold", "Golb", "`Gold`"),
            ("Orders:v1", "Orders:v2", "`Orders:v1`"),
            (r#"application = "shop-web""#, r#"application = "shop-wep""#, "`shop-web`"),
            (r#"consumer_key = "shop""#, "consumer_key = 'shop', key_manager = 'keycloac'", "`keycloak`"),
        ] {
            let file = if good == "Orders:v1" { GOOD.replace(good, bad) } else { GOOD.replacen(good, bad, 1) };
            let problems = build(&file).unwrap_err();
            assert!(problems[0].message.contains(nearest), "{problems:?}");
            assert!(!problems[0].message.contains(bad), "{problems:?}");
        }
        let problems = build(&GOOD.replace("Gold", "AsyncGold")).unwrap_err();
        assert_eq!(problems[0].message, "this tier counts events: not in this build");
    }

    #[test]
    fn the_key_manager_may_be_left_out_only_when_there_is_one() {
        for (key_managers, expected) in [("[]", false), ("['keycloak']", true), ("['a', 'b']", false)] {
            let built = build(&format!("key_managers = {key_managers}\n{GOOD}"));
            assert_eq!(built.is_ok(), expected, "{key_managers}");
        }
    }
}
