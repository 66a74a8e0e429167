//! The steps of a verdict, told to whoever asks. In production only a sample is timed; else it costs nothing.

use std::time::Instant;

use crate::telemetry::Metrics;

/// The steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "documented in `Authorizer::check`")]
pub enum Step {
    Path,
    Resolve,
    Credential,
    Authenticate,
    Revocation,
    Subscription,
    Scope,
    Throttle,
    Grant,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Path,
        Self::Resolve,
        Self::Credential,
        Self::Authenticate,
        Self::Revocation,
        Self::Subscription,
        Self::Scope,
        Self::Throttle,
        Self::Grant,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Resolve => "resolve",
            Self::Credential => "credential",
            Self::Authenticate => "authenticate",
            Self::Revocation => "revocation",
            Self::Subscription => "subscription",
            Self::Scope => "scope",
            Self::Throttle => "throttle",
            Self::Grant => "grant",
        }
    }
}

/// Hears of each step. `()` hears nothing and compiles to nothing.
pub trait Trace {
    /// `note` is only called by a trace that records.
    fn step(&mut self, step: Step, note: impl FnOnce() -> String);
}

impl Trace for () {
    #[inline(always)]
    fn step(&mut self, _: Step, _: impl FnOnce() -> String) {}
}

/// Writes down every step, for [`Authorizer::explain`](super::Authorizer::explain).
#[derive(Debug, Default)]
pub(super) struct Recorder(pub(super) Vec<(Step, String)>);

impl Trace for Recorder {
    fn step(&mut self, step: Step, note: impl FnOnce() -> String) {
        self.0.push((step, note()));
    }
}

/// A trace that may not be there.
impl<T: Trace> Trace for Option<T> {
    fn step(&mut self, step: Step, note: impl FnOnce() -> String) {
        if let Some(trace) = self {
            trace.step(step, note);
        }
    }
}

/// Measures how long each step takes.
#[derive(Debug)]
pub struct StepTimer<'m> {
    metrics: &'m Metrics,
    since: Instant,
}

impl<'m> StepTimer<'m> {
    /// Starts now.
    pub fn start(metrics: &'m Metrics) -> Self {
        Self { metrics, since: Instant::now() }
    }
}

impl Trace for StepTimer<'_> {
    fn step(&mut self, step: Step, _: impl FnOnce() -> String) {
        let now = Instant::now();
        let took = now - std::mem::replace(&mut self.since, now);
        self.metrics.observe_step(step as usize, step.label(), took);
    }
}
