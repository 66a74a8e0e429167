//! The tables: APIs, applications, subscriptions, tiers. One immutable [`Snapshot`] for all readers,
//! swapped by a single writer: whole by a reload, or for the next version by one [`Change`], which shares all it does not
//! touch. Beside it the [`Revocations`], which change one by one.

mod advanced;
mod along;
mod api;
mod application;
mod build;
#[cfg(test)]
mod build_tests;
mod change;
#[cfg(test)]
mod change_tests;
mod condition;
mod cors;
mod deny;
mod gate;
mod label;
mod map;
mod metadata;
mod path;
mod quota;
mod range;
pub mod recent;
pub mod record;
mod resource;
mod revocation;
mod revoked;
mod rows;
mod rule;
pub mod settings;
mod snapshot;
mod source;
mod subscription;
mod suggest;
mod template;
#[cfg(test)]
mod tests;
mod tier;
mod tiers;
mod token_facts;
mod token_usage;
mod trie;
mod upstream;
mod writer;

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use crate::problem::Problem;

pub use advanced::{Advanced, Group, GroupSettings};
pub use application::{Application, ConsumerKey};
pub use build::MOST_MISTAKES;
pub use change::{Change, RowKey};
pub use condition::{Condition, ConditionSettings, On, Pattern};
pub use cors::{AnswerOf, Cors, CorsSettings, origin as cors_origin};
pub use deny::{DeniedBy, DeniedSubscription, Deny, DenySettings};
pub use gate::{Gate, IdentityNames};
pub use label::Label;
pub use map::{growing_at_once, growing_at_once_with};
pub use metadata::{MetadataSettings, ResourceMetadata, WELL_KNOWN};
pub use path::{PathFlaw, canonical};
pub use quota::QuotaSettings;
pub use range::Range;
pub use resource::{Resolution, Target};
pub use revocation::{Pending, Revocation, Revocations, Revoked};
pub use rows::Rows;
pub use rule::{Part, Rule, RuleSettings, claims_of};
pub use settings::{
    AuthLevel, AuthRule, FaultFormat, KeyType, ScopesMatch, SubscriptionRule, SubscriptionState, TokenPlace,
};
pub use snapshot::{
    Api, ApiRow, BackendLimits, KeyManagerSet, Resource, SignIn, Snapshot, Upstream, UpstreamScheme, Upstreams,
};
pub use source::{NoSource, Pass, Row, Source};
pub use subscription::Subscription;
pub use tier::{Algorithm, Burst, Limits, Quota, QuotaKind, Subject, Tier, Window};
pub use token_facts::{TokenDigests, TokenFacts, TokenSha256};
pub use token_usage::{TokenUsage, TokenUsageSettings};

/// The newest tables. Readers never lock.
#[derive(Debug)]
pub struct Store {
    current: ArcSwap<Snapshot>,
    /// Held by whoever makes the next version; readers never ask for it.
    writing: Mutex<()>,
    /// Which tokens are revoked; no reload touches them.
    pub revocations: Arc<Revocations>,
}

impl Store {
    /// A store that starts with `snapshot`, and with nothing revoked.
    pub fn new(snapshot: Snapshot) -> Self {
        Self::with_revocations(snapshot, Arc::default())
    }

    /// A store that starts with `snapshot`, and with what is revoked.
    pub fn with_revocations(snapshot: Snapshot, revocations: Arc<Revocations>) -> Self {
        Self { current: ArcSwap::from_pointee(snapshot), writing: Mutex::new(()), revocations }
    }

    /// One version of the tables, for the whole of a request.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The newest tables for a look that is over at once: cheaper, and never to be kept.
    pub fn peek(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Puts `snapshot` in place of the present tables, which it gives back; verdicts under way keep theirs.
    pub fn replace(&self, mut snapshot: Snapshot) -> Arc<Snapshot> {
        let _writing = self.writing.lock();
        // Changes have counted too.
        snapshot.generation = snapshot.generation.max(self.current.load().generation + 1);
        self.current.swap(Arc::new(snapshot))
    }

    /// Changes one row, at a price that does not grow with the tables; or tells what is wrong with the change, and does
    /// nothing. Changes follow one another; the next request sees it.
    pub fn apply(&self, change: &Change) -> Result<(), Vec<Problem>> {
        let _writing = self.writing.lock();
        let next = self.current.load().changed(change)?;
        self.current.store(Arc::new(next));
        Ok(())
    }
}
