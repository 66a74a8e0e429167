//! Applications and their consumer keys.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{KeyType, Label, Tier};

/// One application.
#[derive(Debug)]
pub struct Application {
    /// Name.
    pub name: Label,
    /// Owner.
    pub owner: Box<str>,
    /// Name of its tier.
    pub tier_name: Arc<Label>,
    /// Application-level tier, counted per user. None: unlimited.
    pub tier: Option<Tier>,
}

/// What a consumer key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerKey {
    /// Index of the application.
    pub application: u32,
    /// Environment.
    pub key_type: KeyType,
}

/// Key manager's name → consumer key → its application.
#[derive(Debug, Default)]
pub(super) struct ConsumerKeys {
    by_key_manager: HashMap<Box<str>, HashMap<Box<str>, ConsumerKey>>,
}

impl ConsumerKeys {
    #[inline]
    pub(super) fn get(&self, key_manager: &str, consumer_key: &str) -> Option<ConsumerKey> {
        self.by_key_manager.get(key_manager)?.get(consumer_key).copied()
    }

    /// Adds a key; the one that is there already wins and is handed back.
    pub(super) fn add(&mut self, key_manager: &str, consumer_key: &str, key: ConsumerKey) -> Option<ConsumerKey> {
        let keys = match self.by_key_manager.get_mut(key_manager) {
            Some(keys) => keys,
            None => self.by_key_manager.entry(key_manager.into()).or_default(),
        };
        if let Some(earlier) = keys.get(consumer_key) {
            return Some(*earlier);
        }
        keys.insert(consumer_key.into(), key);
        None
    }

    /// Gives back the room for more.
    pub(super) fn shrink(&mut self) {
        self.by_key_manager.values_mut().for_each(HashMap::shrink_to_fit);
    }
}
