//! The verdict: a borrowed request in, a [`Decision`] out. Every door calls [`Authorizer::check`] and
//! nothing else.
//!
//! Judges; never forwards, never renders, never waits for anything but the first sight of a token.

mod charges;
mod credential;
mod decision;
mod denial;
mod explain;
pub mod fault;
mod remedy;
mod request;
mod scope;
mod subscription;
mod trace;

use std::{borrow::Cow, sync::Arc};

pub use decision::{Decision, ForwardQuery, Found, Grant, Refusal};
pub use denial::Denial;
pub use explain::{Answer, Explanation, Findings, Outcome, Passage};
pub use request::CheckRequest;
pub use trace::{Step, StepTimer, Trace};

pub use crate::store::PathFlaw;

use crate::{
    store::{Api, AuthRule, Resolution, Resource, Snapshot, Store, canonical},
    telemetry::Metrics,
    throttle::{Admitted, Limiter, Unable},
    token::{Authenticated, Authenticator, Flaw, Identity},
};
use charges::Call;
use decision::Seen;
use trace::Recorder;

/// The engine behind every door.
#[derive(Debug)]
pub struct Authorizer {
    /// The tables.
    pub store: Arc<Store>,
    /// Tokens.
    pub tokens: Arc<Authenticator>,
    /// Quotas.
    pub limiter: Arc<Limiter>,
    /// Where a sample of verdicts is timed.
    pub metrics: Arc<Metrics>,
}

/// What the steps leave for the grant, besides what they have [`Seen`].
struct Permit {
    path: Option<Box<str>>,
    context_len: usize,
    query: ForwardQuery,
    admitted: Admitted,
}

impl Authorizer {
    /// Judges a request, and times the steps of one in [`SAMPLE`].
    pub async fn check_sampled(&self, request: &CheckRequest<'_>) -> Decision {
        let mut timer = (fastrand::u32(..SAMPLE) == 0).then(|| StepTimer::start(&self.metrics));
        self.check(request, &mut timer).await
    }

    /// Judges a request. In the common case, a token seen before, nothing here waits.
    pub async fn check<T: Trace>(&self, request: &CheckRequest<'_>, trace: &mut T) -> Decision {
        let tables = self.store.load(); // one version for the whole request
        let mut seen = Seen::default();
        match self.judge(&tables, request, &mut seen, trace).await {
            Ok(Permit { path, context_len, query, admitted }) => {
                Ok(Grant { found: seen.by(tables), path, context_len, query, admitted })
            }
            Err(denial) => Err(Box::new(Refusal { denial, found: seen.by(tables) })),
        }
    }

    /// The steps of the verdict, in their order. Whoever adds a step adds a line here.
    async fn judge<T: Trace>(
        &self,
        tables: &Snapshot,
        request: &CheckRequest<'_>,
        seen: &mut Seen,
        trace: &mut T,
    ) -> Result<Permit, Denial> {
        let path = canonical(request.path).map_err(Denial::Path)?;
        trace.step(Step::Path, || path.clone().into_owned());
        let (api, resource, context_len) = resolve(tables, request, &path, seen)?;
        trace.step(Step::Resolve, || explain::elected(api, resource));
        let credential = credential::find(request, api, resource)?;
        trace.step(Step::Credential, || explain::brought(credential.is_some(), resource));
        if let Some(token) = credential {
            let identity = self.authenticate(&token, api, request, seen, trace).await?;
            self.require_unrevoked(&identity, &token)?; // even if cached
            trace.step(Step::Revocation, || "not revoked, as far as this process knows".to_owned());
            scope::require_level(resource, &identity)?;
            subscription::require(tables, api, &identity, seen)?;
            require_environment(api, seen)?;
            trace.step(Step::Subscription, || subscription::describe(tables, seen));
            scope::require(resource, &identity)?;
            scope::require_audience(api, &identity)?;
            scope::require_sign_in(resource, &identity, request.now)?;
            trace.step(Step::Scope, || explain::scopes(resource));
        }
        require_environment(api, seen)?;
        let admitted = self.admit(tables, api, resource, seen, request).await?; // waits only where counters are shared
        trace.step(Step::Throttle, || explain::limits(Call { tables, api, resource, seen, request }));
        let query = credential::without_token(request.query);
        trace.step(Step::Grant, || explain::destination(api, seen));
        Ok(Permit { path: rewritten(path), context_len, query, admitted })
    }

    /// From token text to identity: the cache, or the verifier.
    async fn authenticate<T: Trace>(
        &self,
        token: &str,
        api: &Api,
        request: &CheckRequest<'_>,
        seen: &mut Seen,
        trace: &mut T,
    ) -> Result<Arc<Identity>, Denial> {
        let Authenticated { identity, from_cache } =
            self.tokens.authenticate(token, &api.key_managers, request.client, request.now).await?;
        trace.step(Step::Authenticate, || explain::identified(&identity, from_cache, request.now));
        seen.identity = Some(Arc::clone(&identity));
        Ok(identity)
    }

    /// Refuses what was revoked since it was issued.
    fn require_unrevoked(&self, identity: &Identity, token: &str) -> Result<(), Denial> {
        let is_revoked = self.store.revocations.is_revoked(&identity.facts(token));
        if is_revoked { Err(Denial::Token(Flaw::Revoked)) } else { Ok(()) }
    }

    /// Refuses whom a deny condition names; then takes one request from every limit that it meets, in the order of the
    /// levels.
    async fn admit(
        &self,
        tables: &Snapshot,
        api: &Api,
        resource: &Resource,
        seen: &Seen,
        request: &CheckRequest<'_>,
    ) -> Result<Admitted, Denial> {
        let gate = &tables.gate;
        if let Some(deny) = &gate.deny {
            let users = seen.identity.as_deref().map_or([None; 2], Identity::subjects);
            let denied = deny.denies(api, seen.application(tables), seen.key_type, users, request.client);
            denied.map_or(Ok(()), |by| Err(Denial::Denied(by)))?;
        }
        let charges = Call { tables, api, resource, seen, request }.charges();
        if charges.is_empty() {
            return Ok(Admitted::default());
        }
        let want_usage = gate.rate_limit_headers;
        let verdict = match self.limiter.try_admit(&charges, request.now, want_usage) {
            Some(verdict) => verdict,
            None => Box::pin(self.limiter.ask_and_admit(&charges, request.now, want_usage)).await,
        };
        match &verdict {
            Ok(admitted) if admitted.over_quota => self.metrics.over_quota.inc(),
            Err(Unable::Throttled(throttled)) => {
                self.metrics.count_throttled(throttled.level.label(), &throttled.usage.tier);
            }
            Ok(_) | Err(Unable::Away) => {}
        }
        verdict.map_err(Denial::from)
    }
}

/// Elects API and resource, and notes them.
fn resolve<'t>(
    tables: &'t Snapshot,
    request: &CheckRequest<'_>,
    path: &str,
    seen: &mut Seen,
) -> Result<(&'t Api, &'t Resource, usize), Denial> {
    let target = match tables.resolve(request.host, request.method, path) {
        Resolution::Found(target) => target,
        Resolution::NoResource { api } => {
            seen.api = Some(api);
            return Err(Denial::NoResource);
        }
        Resolution::NoApi => return Err(Denial::NoApi),
    };
    seen.api = Some(target.api);
    seen.resource = Some(target.resource);
    let api = tables.apis.get(target.api as usize).ok_or(Denial::Internal)?;
    let resource = api.resources.get(target.resource as usize).ok_or(Denial::Internal)?;
    Ok((api, resource, target.context_len as usize))
}

/// The key type, or being anonymous, selects the environment: there must be one.
fn require_environment(api: &Api, seen: &Seen) -> Result<(), Denial> {
    if api.upstreams.of(seen.key_type).is_empty() { Err(Denial::NoEnvironment) } else { Ok(()) }
}

/// The canonical path, where it is not what was sent.
fn rewritten(path: Cow<'_, str>) -> Option<Box<str>> {
    match path {
        Cow::Borrowed(_) => None,
        Cow::Owned(path) => Some(path.into_boxed_str()),
    }
}

/// Whether a resource is called without a look at credentials.
fn is_open(resource: &Resource) -> bool {
    resource.auth == AuthRule::None
}

/// One verdict in so many is timed step by step.
pub const SAMPLE: u32 = 64;
