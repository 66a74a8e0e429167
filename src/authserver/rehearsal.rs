//! The provider as it is, for trying things: what it would refuse is refused, and nothing that it does is kept, noted
//! or put in force.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::{Open, Provider, clients, issued::Names, state::State};
use crate::store::recent::Recent;

impl Provider {
    /// The same provider, which does everything and leaves nothing behind.
    pub fn rehearsal(&self) -> Arc<Self> {
        let open = OnceLock::new();
        if let Some(Open { keys, state }) = self.open.get() {
            let keys = Arc::clone(keys);
            // It was empty.
            let _ = open.set(Open { keys, state: state.rehearsal() });
        }
        Arc::new(Self {
            issuer: self.issuer.clone(),
            terms: ArcSwap::new(self.terms.load_full()),
            clock: Arc::clone(&self.clock),
            published: Arc::clone(&self.published),
            open,
            names: Names::default(),
        })
    }
}

impl State {
    fn rehearsal(&self) -> Self {
        let Self { record, revocations, issuer, limits, .. } = self;
        Self {
            record: record.rehearsal(),
            revocations: Arc::clone(revocations),
            issuer: issuer.clone(),
            limits: *limits,
            clients: Recent::new(clients::CLIENTS),
        }
    }
}
