//! One change of the tables: from a version to the next, which shares everything that the change does not touch.
//!
//! A change is judged like a row of the configuration, by the same code; one that does not hold changes nothing. Tiers
//! can only be added: another limit under a name that rows may have is for a reload.

use std::{hash::BuildHasher, sync::Arc};

use crate::problem::Problem;

use super::{
    ApiRow, ConsumerKey, Row, Snapshot,
    api::{ApiBuilder, id},
    build::{NO_API, NO_APPLICATION, SUBSCRIBED, application, checked_key, subscription},
    metadata::Documents,
    resource::Placement,
    rows::{Finder, number},
    settings::{ApiSettings, ApplicationSettings, SubscriptionSettings, TierSettings},
    source::{Named, Origins},
    suggest::{Problems, Suggest},
};

/// A change of one row.
#[derive(Debug)]
pub enum Change {
    /// Adds a row whose name is not there yet.
    Insert(Row),
    /// Puts a row in the place of the one of its name.
    Update(Row),
    /// Takes a row away.
    Remove(RowKey),
}

/// What a row is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowKey {
    /// An API, by `name:version`, or its name where it has no version.
    Api(String),
    /// An application, by name.
    Application(String),
    /// A subscription.
    Subscription {
        /// The application's name.
        application: String,
        /// The API's `name:version`.
        api: String,
    },
}

impl Snapshot {
    /// The next version, or what is wrong with the change: fields as in a line of a file (`api.resources[2].path`).
    pub(super) fn changed(&self, change: &Change) -> Result<Self, Vec<Problem>> {
        let mut next = Self { generation: self.generation + 1, ..self.clone() };
        let mut problems = Problems::default();
        match change {
            Change::Insert(Row::Tier(tier)) => next.insert_tier(tier, &mut problems),
            Change::Update(Row::Tier(_)) => problems.add("tier.name", "only a reload changes a tier that is there"),
            Change::Insert(Row::Api(api)) => next.put_api(api, false, &mut problems),
            Change::Update(Row::Api(api)) => next.put_api(api, true, &mut problems),
            Change::Insert(Row::Application(it)) => next.put_application(it, false, &mut problems),
            Change::Update(Row::Application(it)) => next.put_application(it, true, &mut problems),
            Change::Insert(Row::Subscription(it)) => next.put_subscription(it, false, &mut problems),
            Change::Update(Row::Subscription(it)) => next.put_subscription(it, true, &mut problems),
            Change::Remove(RowKey::Api(id)) => next.remove_api(id, &mut problems),
            Change::Remove(RowKey::Application(name)) => next.remove_application(name, &mut problems),
            Change::Remove(RowKey::Subscription { application, api }) => {
                next.remove_subscription(application, api, &mut problems);
            }
        }
        problems.into_result().map(|()| next)
    }

    fn insert_tier(&mut self, tier: &TierSettings, problems: &mut Problems) {
        if self.names.tiers.knows(&tier.name) {
            problems.add("tier.name", "a tier has this name already: only a reload changes it");
            return;
        }
        let mut tiers = (*self.names.tiers).clone();
        tiers.insert(tier, problems);
        self.names.tiers = Arc::new(tiers);
    }

    fn put_api(&mut self, settings: &ApiSettings, update: bool, problems: &mut Problems) {
        let (tiers, key_managers) = (Arc::clone(&self.names.tiers), Arc::clone(&self.names.key_managers));
        let issuers: Vec<&str> = self.names.issuers.iter().map(String::as_str).collect();
        let mut builder = ApiBuilder::new(&tiers, &key_managers, &issuers, self.gate.fault_format);
        let (api, placement) = builder.build(API, settings, problems);
        let row = self.find_api(&id(settings));
        let Some(row) = place(row, update, self.apis.len(), &mut self.names.free_apis, "api.name", NO_API, problems)
        else {
            return;
        };
        if problems.count() > 0 {
            return;
        }
        self.serve(row, Some(api), placement, problems);
        if !update {
            let apis = &self.apis;
            add_name(&mut self.names.apis, row, |row| apis.get(row as usize).map_or("", |api| &api.id));
            self.names.api_uses.put(row as usize, 0);
        }
    }

    fn remove_api(&mut self, id: &str, problems: &mut Problems) {
        let Some(row) = self.find_api(id) else {
            let nearest = problems.nearest(id, self.served().map(|api| &*api.id));
            return problems.add("api.name", Suggest(NO_API, nearest));
        };
        if self.names.api_uses.get(row as usize).is_some_and(|uses| *uses > 0) {
            return problems.add("api.name", "there are subscriptions to it: remove them first");
        }
        self.names.apis.remove(self.names.apis.hash(id), row);
        self.serve(row, None, Placement::default(), problems);
        Arc::make_mut(&mut self.names.free_apis).push(row);
    }

    /// Serves the API of a row, if it has a new one, as `new` says; without contexts nowhere.
    fn serve(&mut self, row: u32, api: Option<ApiRow>, new: Placement, problems: &mut Problems) {
        let old = self.names.placements.get(row as usize).cloned().unwrap_or_default();
        let published = |api: Option<&ApiRow>| api.is_some_and(|api| api.metadata.is_some());
        let documents = published(self.apis.get(row as usize)) || published(api.as_ref());
        if let Some(api) = api {
            let mut apis = self.apis.to_vec();
            match apis.get_mut(row as usize) {
                Some(there) => *there = api,
                None => apis.push(api),
            }
            self.apis = apis.into();
        }
        self.names.placements.put(row as usize, new.clone());
        let placements = &self.names.placements;
        let conflicts = self.routes.change(&self.apis, &|api| placements.get(api as usize), (row, &old, &new));
        for conflict in conflicts {
            // Those among others were there before; this one may be the earlier of the two.
            let (mine, other) = match conflict.later.0 == row {
                true => (conflict.later.1, conflict.earlier),
                false => (conflict.earlier.1, conflict.later),
            };
            let api = self.apis.get(other.0 as usize).map_or("", |api| &api.id);
            let message = format!("resource {} of API {api} has the same shape, verb and host", other.1);
            problems.add(format!("api.resources[{mine}].path"), message);
        }
        if documents {
            let served: Vec<bool> = self.names.placements.iter().map(|it| !it.contexts.is_empty()).collect();
            let of = |n: u32| served.get(n as usize).copied().unwrap_or_default();
            self.documents = Arc::new(Documents::build(&self.apis, &of, &Origins::default(), problems));
        }
    }

    fn put_application(&mut self, settings: &ApplicationSettings, update: bool, problems: &mut Problems) {
        let mut new = application(APPLICATION, settings, &self.names.tiers, problems);
        let (row, rows) = (self.find_application(&settings.name), self.applications.len());
        let free = &mut self.names.free_applications;
        let row = place(row, update, rows, free, "application.name", NO_APPLICATION, problems);
        let Some(row) = row else { return };
        if update {
            self.consumer_keys.remove(&self.applications[row as usize].keys);
        }
        let key_managers = Arc::clone(&self.names.key_managers);
        let mut keys = Vec::with_capacity(settings.keys.len());
        for (m, key) in settings.keys.iter().enumerate() {
            let field = |name: &str| format!("{APPLICATION}.keys[{m}].{name}");
            let Some(key_manager) = checked_key(key, &key_managers, &field, problems) else { continue };
            if self.consumer_keys.get(key_manager, &key.consumer_key).is_some() {
                problems.add(field("consumer_key"), "an application has this key of this key manager already");
                continue;
            }
            let value = ConsumerKey { application: row, key_type: key.key_type };
            keys.push(self.consumer_keys.put(key_manager, &key.consumer_key, value));
        }
        new.keys = keys.into();
        self.applications.put(row as usize, new);
        if !update {
            let rows = &self.applications;
            add_name(&mut self.names.applications, row, |row| rows.get(row as usize).map_or("", |row| &*row.name));
            self.names.application_uses.put(row as usize, 0);
        }
    }

    fn remove_application(&mut self, name: &str, problems: &mut Problems) {
        let Some(row) = self.find_application(name) else {
            let nearest = problems.nearest(name, self.applications.iter().map(|row| &*row.name));
            return problems.add("application.name", Suggest(NO_APPLICATION, nearest));
        };
        if self.names.application_uses.get(row as usize).is_some_and(|uses| *uses > 0) {
            return problems.add("application.name", "it has subscriptions: remove them first");
        }
        self.names.applications.remove(self.names.applications.hash(name), row);
        self.consumer_keys.remove(&self.applications[row as usize].keys);
        Arc::make_mut(&mut self.names.free_applications).push(row);
    }

    fn put_subscription(&mut self, settings: &SubscriptionSettings, update: bool, problems: &mut Problems) {
        let Some(of) = self.parties(&settings.application, &settings.api, problems) else { return };
        let there = self.subscriptions.find(of.0, of.1).is_some();
        if there != update {
            let message = if update { "the application is not subscribed to this API" } else { SUBSCRIBED };
            return problems.add("subscription.api", message);
        }
        let Some(row) = subscription(SUBSCRIPTION, settings, of, &self.names.tiers, problems) else { return };
        self.subscriptions.put(row);
        if !update {
            self.count_uses(of, |uses| uses + 1);
        }
    }

    fn remove_subscription(&mut self, application: &str, api: &str, problems: &mut Problems) {
        let Some(of) = self.parties(application, api, problems) else { return };
        if self.subscriptions.find(of.0, of.1).is_none() {
            return problems.add("subscription.api", "the application is not subscribed to this API");
        }
        self.subscriptions.remove(of.0, of.1);
        self.count_uses(of, |uses| uses.saturating_sub(1));
    }

    /// The rows of the application and the API that a subscription names.
    fn parties(&self, application: &str, api: &str, problems: &mut Problems) -> Option<(u32, u32)> {
        let (found, of) = (self.find_application(application), self.find_api(api));
        if found.is_none() {
            let nearest = problems.nearest(application, self.applications.iter().map(|row| &*row.name));
            problems.add("subscription.application", Suggest(NO_APPLICATION, nearest));
        }
        if of.is_none() {
            let nearest = problems.nearest(api, self.served().map(|api| &*api.id));
            problems.add("subscription.api", Suggest(NO_API, nearest));
        }
        found.zip(of)
    }

    fn count_uses(&mut self, (application, api): (u32, u32), count: impl Fn(u32) -> u32) {
        for (uses, row) in [(&mut self.names.application_uses, application), (&mut self.names.api_uses, api)] {
            let now = uses.get(row as usize).copied().unwrap_or_default();
            uses.put(row as usize, count(now));
        }
    }

    fn find_api(&self, id: &str) -> Option<u32> {
        let names = &self.names.apis;
        names.find(names.hash(id), |row| self.apis.get(row as usize).is_some_and(|api| *api.id == *id))
    }

    pub(super) fn find_application(&self, name: &str) -> Option<u32> {
        let names = &self.names.applications;
        names.find(names.hash(name), |row| self.applications.get(row as usize).is_some_and(|it| *it.name == *name))
    }
}

/// The row that is updated, or a new one; none: the name is there already, or is not.
fn place(
    row: Option<u32>,
    update: bool,
    rows: usize,
    free: &mut Arc<Vec<u32>>,
    field: &str,
    unknown: &str,
    problems: &mut Problems,
) -> Option<u32> {
    match (row, update) {
        (Some(row), true) => Some(row),
        (None, false) => Some(Arc::make_mut(free).pop().unwrap_or_else(|| number(rows))),
        (None, true) => {
            problems.add(field, unknown);
            None
        }
        (Some(_), false) => {
            problems.add(field, "is there already");
            None
        }
    }
}

fn add_name<'r>(names: &mut Finder, row: u32, name: impl Fn(u32) -> &'r str) {
    names.add(names.hash(name(row)), row, |hasher, row| hasher.hash_one(name(row)));
}

const API: Named = Named::Line("api");
const APPLICATION: Named = Named::Line("application");
const SUBSCRIPTION: Named = Named::Line("subscription");
