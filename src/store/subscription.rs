//! Subscriptions: which application may use which API, at which tier.

use std::{hash::BuildHasher, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{Label, SubscriptionState, Tier};

/// One subscription.
#[derive(Debug)]
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
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    rows: Vec<Subscription>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Subscriptions {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self {
            rows: Vec::with_capacity(rows),
            index: HashTable::with_capacity(rows),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Where the subscription of an application to an API stands.
    #[inline]
    pub(super) fn find(&self, application: u32, api: u32) -> Option<u32> {
        let is_it = |&row: &u32| {
            let row = &self.rows[row as usize];
            row.application == application && row.api == api
        };
        self.index.find(self.hasher.hash_one((application, api)), is_it).copied()
    }

    #[inline]
    pub(super) fn get(&self, row: u32) -> Option<&Subscription> {
        self.rows.get(row as usize)
    }

    /// Adds a subscription; false, and nothing done, if the application has one to that API.
    pub(super) fn add(&mut self, subscription: Subscription) -> bool {
        let (application, api) = (subscription.application, subscription.api);
        let Ok(place) = u32::try_from(self.rows.len()) else { return false };
        if self.find(application, api).is_some() {
            return false;
        }
        self.rows.push(subscription);
        let (rows, hasher) = (&self.rows, &self.hasher);
        self.index.insert_unique(hasher.hash_one((application, api)), place, |&row| {
            let row = &rows[row as usize];
            hasher.hash_one((row.application, row.api))
        });
        true
    }

    /// Gives back the room for more.
    pub(super) fn shrink(&mut self) {
        self.rows.shrink_to_fit();
        let (rows, hasher) = (&self.rows, &self.hasher);
        self.index.shrink_to_fit(|&row| {
            let row = &rows[row as usize];
            hasher.hash_one((row.application, row.api))
        });
    }
}
