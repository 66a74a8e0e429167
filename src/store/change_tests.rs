//! Changes against tables built anew: whatever the order, both answer alike.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, from_value, json};

use super::{tests::gate, *};
use crate::store::settings::TableSettings;

/// What the tables should hold, as settings by name.
#[derive(Default)]
struct Model {
    apis: BTreeMap<String, Value>,
    applications: BTreeMap<String, Value>,
    subscriptions: BTreeMap<(String, String), Value>,
}

impl Model {
    fn build(&self) -> Result<Snapshot, Vec<Problem>> {
        fn all<T: serde::de::DeserializeOwned>(rows: impl Iterator<Item = Value>) -> Vec<T> {
            rows.map(|row| from_value(row).expect("a row")).collect()
        }
        let tables = TableSettings {
            gate: &gate(),
            key_managers: &["one".into(), "two".into()],
            issuers: vec!["https://one", "https://two"],
            apis: &all(self.apis.values().cloned()),
            applications: &all(self.applications.values().cloned()),
            subscriptions: &all(self.subscriptions.values().cloned()),
            tiers: &[],
        };
        Snapshot::build(&tables, 1)
    }

    /// The model with a change, whether or not it holds.
    fn with(&self, change: &Step) -> Self {
        let (mut apis, mut applications) = (self.apis.clone(), self.applications.clone());
        let mut subscriptions = self.subscriptions.clone();
        match change.clone() {
            Step::Api(name, row) => put(&mut apis, name, row),
            Step::Application(name, row) => put(&mut applications, name, row),
            Step::Subscription(key, row) => put(&mut subscriptions, key, row),
        }
        Self { apis, applications, subscriptions }
    }
}

fn put<K: Ord>(rows: &mut BTreeMap<K, Value>, key: K, row: Option<Value>) {
    match row {
        Some(row) => drop(rows.insert(key, row)),
        None => drop(rows.remove(&key)),
    }
}

/// A row put, or removed.
#[derive(Debug, Clone)]
enum Step {
    Api(String, Option<Value>),
    Application(String, Option<Value>),
    Subscription((String, String), Option<Value>),
}

const NAMES: usize = 6;

fn random_step(random: &mut fastrand::Rng) -> Step {
    let name = |random: &mut fastrand::Rng, what: &str| format!("{what}{}", random.usize(..NAMES));
    let there = random.usize(..3) > 0;
    match random.usize(..3) {
        0 => {
            let name = name(random, "A");
            let hosts = [json!([]), json!([]), json!(["a.example"]), json!(["a.example", "b.example"])];
            let resources: Vec<Value> = (0..random.usize(1..4))
                .map(|_| json!({"path": random.choice(["/x", "/{p}", "/*", "/x/y", "/x/{p}"]), "methods": [random.choice(["GET", "POST", "*"])]}))
                .collect();
            let row = json!({
                "name": name, "context": random.choice(["/", "/a", "/a/b", "/c"]), "hosts": hosts[random.usize(..4)],
                "upstream": "echo:", "resources": resources,
                "resource_metadata": random.bool().then(|| json!({"resource": format!("https://m{}.example/m", random.usize(..4))})),
            });
            Step::Api(name, there.then_some(row))
        }
        1 => {
            let name = name(random, "p");
            let keys: Vec<Value> = (0..random.usize(..3))
                .map(|_| json!({"key_manager": random.choice(["one", "two"]), "consumer_key": format!("k{}", random.usize(..8))}))
                .collect();
            let row = json!({"name": name, "owner": format!("o{}", random.usize(..9)), "keys": keys});
            Step::Application(name, there.then_some(row))
        }
        _ => {
            let (application, api) = (name(random, "p"), name(random, "A"));
            let row =
                json!({"application": application, "api": api, "tier": random.choice(["Gold", "Silver", "Gould"])});
            Step::Subscription((application, api), there.then_some(row))
        }
    }
}

/// Everything that can be asked, by names: rows may stand in other places.
fn answers(tables: &Snapshot) -> Vec<String> {
    let mut all = Vec::new();
    for host in ["", "a.example", "b.example"] {
        for path in
            ["/", "/x", "/x/y", "/q", "/a", "/a/x", "/a/b", "/a/b/x", "/a/b/x/y", "/a/q/r", "/c", "/c/x", "/c/q/r"]
        {
            for method in [Method::GET, Method::POST] {
                let found = match tables.resolve(host, &method, path) {
                    Resolution::Found(it) => {
                        let api = &tables.apis[it.api as usize];
                        let resource = &api.resources[it.resource as usize];
                        format!("{} {} {:?} {}", api.id, resource.template, resource.methods, it.context_len)
                    }
                    Resolution::NoResource { .. } => "no resource".into(),
                    Resolution::NoApi => "no API".into(),
                };
                all.push(format!("{method} {host} {path}: {found}"));
            }
        }
    }
    for n in 0..8 {
        for key_manager in ["one", "two"] {
            let key = tables.consumer_key(key_manager, &format!("k{n}"));
            all.push(format!(
                "{key_manager} {n}: {:?}",
                key.map(|it| &tables.applications[it.application as usize].owner)
            ));
            for api in (0u32..).take(tables.apis.len()) {
                let found = key.and_then(|key| tables.subscription(key.application, api));
                let told = found.map(|it| (&tables.apis[it.api as usize].id, it.tier_name.to_string(), &it.tier));
                all.extend(told.map(|told| format!("{key_manager} {n}: {told:?}")));
            }
        }
    }
    for n in 0..4 {
        let api = tables.metadata(&format!("m{n}.example"), &format!("{WELL_KNOWN}/m"));
        all.push(format!("m{n}: {:?}", api.map(|api| &tables.apis[api as usize].id)));
    }
    let mut served: Vec<String> = tables.served().map(|api| api.id.to_string()).collect();
    served.sort();
    all.push(served.join(" "));
    all.sort();
    all
}

#[test]
fn changed_tables_answer_as_those_built_anew() {
    let mut random = fastrand::Rng::with_seed(3);
    let (mut held, mut refused) = (0, 0);
    for _ in 0..40 {
        let mut model = Model::default();
        let store = Store::new(model.build().expect("nothing is good"));
        for _ in 0..60 {
            let step = random_step(&mut random);
            let change = change_of(&model, &step);
            let next = model.with(&step);
            let before = store.load();
            match (next.build(), store.apply(&change)) {
                (Ok(expected), Ok(())) => {
                    assert_eq!(answers(&store.load()), answers(&expected), "{step:?}");
                    assert_eq!(store.load().generation, before.generation + 1);
                    model = next;
                    held += 1;
                }
                (built, Err(problems)) => {
                    let missing = matches!(&change, Change::Remove(_)) && built.is_ok();
                    assert!(missing || built.is_err(), "{step:?}: {problems:?}");
                    assert!(std::sync::Arc::ptr_eq(&before, &store.load()));
                    refused += 1;
                }
                (Err(problems), Ok(())) => panic!("{step:?} does not hold: {problems:?}"),
            }
        }
    }
    assert!(held > 300 && refused > 300, "{held} {refused}");
}

/// A step as a change of what there is.
fn change_of(model: &Model, step: &Step) -> Change {
    let put = |there: bool, row: Row| if there { Change::Update(row) } else { Change::Insert(row) };
    match step.clone() {
        Step::Api(name, Some(row)) => put(model.apis.contains_key(&name), Row::Api(from_value(row).expect("an API"))),
        Step::Api(name, None) => Change::Remove(RowKey::Api(name)),
        Step::Application(name, Some(row)) => {
            put(model.applications.contains_key(&name), Row::Application(from_value(row).expect("an application")))
        }
        Step::Application(name, None) => Change::Remove(RowKey::Application(name)),
        Step::Subscription(key, Some(row)) => {
            put(model.subscriptions.contains_key(&key), Row::Subscription(from_value(row).expect("a subscription")))
        }
        Step::Subscription((application, api), None) => Change::Remove(RowKey::Subscription { application, api }),
    }
}

/// Each row: a change, and the field that is wrong.
#[test]
fn a_change_that_does_not_hold_is_refused_with_its_field() {
    let orders = json!({"name": "Orders", "context": "/orders", "upstream": "echo:", "resources": [{"path": "/x"}]});
    let shop = json!({"name": "shop", "owner": "ada", "keys": [{"key_manager": "one", "consumer_key": "k"}]});
    let gold = json!({"application": "shop", "api": "Orders", "tier": "Gold"});
    let model = Model {
        apis: [("Orders".to_owned(), orders.clone())].into(),
        applications: [("shop".to_owned(), shop.clone())].into(),
        subscriptions: [(("shop".to_owned(), "Orders".to_owned()), gold.clone())].into(),
    };
    let store = Store::new(model.build().expect("good"));
    let api = |row: &Value| Row::Api(from_value(row.clone()).expect("an API"));
    let application = |row: &Value| Row::Application(from_value(row.clone()).expect("an application"));
    let subscription = |row: &Value| Row::Subscription(from_value(row.clone()).expect("a subscription"));
    let tier = |name: &str, requests: u64| {
        Row::Tier(from_value(json!({"name": name, "requests": requests, "per": "1m"})).expect("a tier"))
    };
    let with = |row: &Value, field: &str, value: Value| {
        let mut row = row.clone();
        row[field] = value;
        row
    };
    let key = |application: &str, api: &str| RowKey::Subscription { application: application.into(), api: api.into() };
    for (change, field) in [
        (Change::Insert(api(&orders)), "api.name"),
        (Change::Update(api(&with(&orders, "name", json!("Other")))), "api.name"),
        (Change::Update(api(&with(&orders, "tier", json!("Golden")))), "api.tier"),
        (Change::Insert(api(&with(&orders, "name", json!("Other")))), "api.resources[0].path"),
        (Change::Remove(RowKey::Api("Orders".into())), "api.name"),
        (Change::Remove(RowKey::Api("Other".into())), "api.name"),
        (Change::Insert(application(&shop)), "application.name"),
        (Change::Insert(application(&with(&shop, "name", json!("other")))), "application.keys[0].consumer_key"),
        (Change::Update(application(&with(&shop, "name", json!("other")))), "application.name"),
        (Change::Update(application(&with(&shop, "tier", json!("Gold")))), "application.tier"),
        (Change::Remove(RowKey::Application("shop".into())), "application.name"),
        (Change::Remove(RowKey::Application("other".into())), "application.name"),
        (Change::Insert(subscription(&gold)), "subscription.api"),
        (Change::Update(subscription(&with(&gold, "tier", json!("gold")))), "subscription.tier"),
        (Change::Insert(subscription(&with(&gold, "api", json!("Order")))), "subscription.api"),
        (Change::Insert(subscription(&with(&gold, "application", json!("shp")))), "subscription.application"),
        (Change::Remove(key("shop", "Other")), "subscription.api"),
        (Change::Insert(tier("Gold", 1)), "tier.name"),
        (Change::Update(tier("Gold", 1)), "tier.name"),
        (Change::Insert(tier("", 1)), "tier.name"),
        (Change::Insert(tier("Mine", 0)), "tier.requests"),
    ] {
        let told = format!("{change:?}");
        let problems = store.apply(&change).expect_err(&told);
        assert_eq!(problems.iter().map(|problem| &*problem.field).collect::<Vec<_>>(), [field], "{told}");
    }
    assert_eq!(store.load().generation, 1, "nothing has changed");
    for change in [
        Change::Insert(tier("Mine", 5)),
        Change::Update(subscription(&with(&gold, "tier", json!("Mine")))),
        Change::Remove(key("shop", "Orders")),
        Change::Remove(RowKey::Api("Orders".into())),
        Change::Remove(RowKey::Application("shop".into())),
        Change::Insert(application(&shop)),
        Change::Insert(api(&orders)),
        Change::Insert(subscription(&gold)),
    ] {
        store.apply(&change).unwrap_or_else(|problems| panic!("{change:?}: {problems:?}"));
    }
    assert_eq!(answers(&store.load()), answers(&model.build().expect("good")));
    let generation = store.load().generation;
    store.replace(model.build().expect("good"));
    assert_eq!(store.load().generation, generation + 1, "a reload never goes back");
}
