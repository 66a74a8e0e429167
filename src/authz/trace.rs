//! The steps of a verdict, told to whoever asks. In production nobody does, and it costs nothing.

/// The steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "documented in `Authorizer::check`")]
pub enum Step {
    Path,
    Resolve,
    Credential,
    Authenticate,
    Subscription,
    Scope,
    Throttle,
    Grant,
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
