//! The verdict: a borrowed request in, a [`Decision`] out. Every door calls [`Authorizer::check`] and
//! nothing else.

mod decision;
mod denial;
pub mod fault;
mod path;
mod request;
mod trace;

use std::sync::Arc;

pub use decision::{Decision, ForwardQuery, Found, Grant, Refusal};
pub use denial::{Denial, PathFlaw};
pub use path::canonical;
pub use request::CheckRequest;
pub use trace::{Step, Trace};

use crate::{store::Store, telemetry::Metrics, throttle::Limiter, token::Authenticator};

/// The engine behind every door.
#[derive(Debug)]
pub struct Authorizer {
    /// The tables.
    pub store: Arc<Store>,
    /// Tokens.
    pub tokens: Arc<Authenticator>,
    /// Quotas.
    pub limiter: Arc<Limiter>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Authorizer {
    /// Judges a request.
    pub async fn check<T: Trace>(&self, request: &CheckRequest<'_>, trace: &mut T) -> Decision {
        let _ = (request, trace);
        unimplemented!()
    }
}
