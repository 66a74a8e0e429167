//! Subscriptions: which application may use which API, at which tier.

use std::{hash::BuildHasher, sync::Arc};

use super::{
    Label, SubscriptionState, Tier,
    rows::{Finder, Rows, RowsBuilder},
};

/// One subscription.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// Index of the application.
    pub application: u32,
    /// Index of the API.
    pub api: u32,
    /// Whether it may be used.
    pub state: SubscriptionState,
    /// Name of its tier.
    pub tier_name: Arc<Label>,
    /// Subscription-level tier. None: unlimited.
    pub tier: Option<Tier>,
}

/// All subscriptions, by application and API.
#[derive(Debug, Clone)]
pub(super) struct Subscriptions {
    rows: Rows<Subscription>,
    finder: Finder,
}

/// [`Subscriptions`] while they are built.
pub(super) struct SubscriptionsBuilder {
    rows: RowsBuilder<Subscription>,
    finder: Finder,
}

impl SubscriptionsBuilder {
    pub(super) fn new() -> Self {
        Self { rows: RowsBuilder::new(), finder: Finder::default() }
    }

    /// Adds a subscription; false, and nothing done, if the application has one to that API.
    pub(super) fn add(&mut self, subscription: Subscription) -> bool {
        let key = key_of(&subscription);
        let Ok(place) = u32::try_from(self.rows.len()) else { return false };
        let hash = self.finder.hash(key);
        if self.finder.find(hash, |row| self.rows.get(row).is_some_and(|row| key_of(row) == key)).is_some() {
            return false;
        }
        self.rows.push(subscription);
        let rows = &self.rows;
        self.finder.add(hash, place, |hasher, row| hasher.hash_one(rows.get(row).map(key_of).unwrap_or_default()));
        true
    }

    pub(super) fn finish(mut self) -> Subscriptions {
        let rows = self.rows.finish();
        self.finder.shrink(|hasher, row| hasher.hash_one(rows.get(row as usize).map(key_of).unwrap_or_default()));
        Subscriptions { rows, finder: self.finder }
    }
}

impl Subscriptions {
    /// Where the subscription of an application to an API stands.
    #[inline]
    pub(super) fn find(&self, application: u32, api: u32) -> Option<u32> {
        let key = (application, api);
        self.finder.find(self.finder.hash(key), |row| self.get(row).is_some_and(|row| key_of(row) == key))
    }

    #[inline]
    pub(super) fn get(&self, row: u32) -> Option<&Subscription> {
        self.rows.get(row as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.rows.iter()
    }

    /// Adds a subscription that is not there yet, or puts it in the place of the one of its application and API.
    pub(super) fn put(&mut self, subscription: Subscription) {
        let key = key_of(&subscription);
        let row = self.find(key.0, key.1);
        let place = row.map_or(self.rows.len(), |row| row as usize);
        self.rows.put(place, subscription);
        if let (None, Ok(place)) = (row, u32::try_from(place)) {
            self.index(place);
        }
    }

    /// Takes one away; the last row takes its place.
    pub(super) fn remove(&mut self, application: u32, api: u32) {
        let Some(row) = self.find(application, api) else { return };
        self.finder.remove(self.finder.hash((application, api)), row);
        let Some(last) = self.rows.pop() else { return };
        if row as usize == self.rows.len() {
            return;
        }
        let moved = self.rows.len() as u32;
        self.finder.remove(self.finder.hash(key_of(&last)), moved);
        self.rows.put(row as usize, last);
        self.index(row);
    }

    fn index(&mut self, row: u32) {
        let rows = &self.rows;
        let key = |row: u32| rows.get(row as usize).map(key_of).unwrap_or_default();
        self.finder.add(self.finder.hash(key(row)), row, |hasher, row| hasher.hash_one(key(row)));
    }
}

const fn key_of(row: &Subscription) -> (u32, u32) {
    (row.application, row.api)
}
