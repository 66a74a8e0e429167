//! A circuit breaker: a provider that has failed several times in a row is left alone for a while, then one
//! call tries whether it is back.
//!
//! Time is an argument. Knows nothing of what a call is.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::token::Circuit;

/// The state of one provider.
#[derive(Debug)]
pub(super) struct Breaker {
    state: Mutex<State>,
    /// For the log.
    name: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Calls are made; so many in a row have failed.
    Closed { failures: u32 },
    /// None is made until then.
    Open { until: Instant, span: Duration },
    /// One call tries.
    Probing { span: Duration },
}

/// Leave to make one call. What becomes of it is to be told; a call that is cut short counts as failed only
/// where it was the one that tries.
#[derive(Debug)]
#[must_use = "the outcome is to be told"]
pub(super) struct Permit<'b> {
    breaker: &'b Breaker,
    probe: bool,
    told: bool,
}

impl Breaker {
    pub(super) fn new(name: &str) -> Self {
        Self { state: Mutex::new(State::Closed { failures: 0 }), name: name.into() }
    }

    /// Leave to call, or how long there is none.
    pub(super) fn admit(&self, now: Instant) -> Result<Permit<'_>, Duration> {
        let mut state = self.state.lock();
        let probe = match *state {
            State::Closed { .. } => false,
            State::Open { until, .. } if now < until => return Err(until - now),
            State::Open { span, .. } => {
                *state = State::Probing { span };
                true
            }
            State::Probing { .. } => return Err(Duration::from_secs(1)),
        };
        Ok(Permit { breaker: self, probe, told: false })
    }

    /// For readiness and metrics.
    pub(super) fn circuit(&self, now: Instant) -> Circuit {
        match *self.state.lock() {
            State::Closed { .. } => Circuit::Closed,
            State::Open { until, .. } if now < until => Circuit::Open,
            State::Open { .. } | State::Probing { .. } => Circuit::HalfOpen,
        }
    }

    fn succeeded(&self) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Closed { failures: 0 });
        if !matches!(before, State::Closed { .. }) {
            tracing::info!(key_manager.name = &*self.name, "the provider is asked again");
        }
    }

    fn failed(&self, probe: bool, now: Instant) {
        let mut state = self.state.lock();
        let span = match *state {
            State::Closed { failures } if failures + 1 < MOST_FAILURES => {
                *state = State::Closed { failures: failures + 1 };
                return;
            }
            State::Closed { .. } => FIRST_PAUSE,
            State::Probing { span } if probe => (span * 2).min(LONGEST_PAUSE),
            // A call from before: it says nothing new.
            State::Open { .. } | State::Probing { .. } => return,
        };
        // Many sidecars of one provider try at different moments.
        let pause = span.mul_f64(1.0 + 0.25 * fastrand::f64());
        *state = State::Open { until: now + pause, span };
        drop(state);
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(key_manager.name = &*self.name, pause_ms, "the provider keeps failing and is left alone");
    }
}

impl Permit<'_> {
    /// The call was answered.
    pub(super) fn succeeded(mut self) {
        self.told = true;
        // Only the one that tries, or one of a provider that is well: an answer from before is old news.
        if self.probe || self.breaker.is_closed() {
            self.breaker.succeeded();
        }
    }

    /// It was not.
    pub(super) fn failed(mut self, now: Instant) {
        self.told = true;
        self.breaker.failed(self.probe, now);
    }
}

impl Breaker {
    fn is_closed(&self) -> bool {
        matches!(*self.state.lock(), State::Closed { .. })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe && !self.told {
            self.breaker.failed(true, Instant::now());
        }
    }
}

/// Failures in a row after which it is left alone.
const MOST_FAILURES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted<'b>(breaker: &'b Breaker, now: Instant) -> Permit<'b> {
        breaker.admit(now).expect("it is asked")
    }

    fn broken(now: Instant) -> Breaker {
        let breaker = Breaker::new("idp");
        for _ in 0..MOST_FAILURES {
            admitted(&breaker, now).failed(now);
        }
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let (breaker, now) = (Breaker::new("idp"), Instant::now());
        for _ in 0..3 {
            for _ in 1..MOST_FAILURES {
                admitted(&breaker, now).failed(now);
            }
            admitted(&breaker, now).succeeded();
        }
        assert_eq!(breaker.circuit(now), Circuit::Closed);
        assert_eq!(broken(now).circuit(now), Circuit::Open);
        let pause = broken(now).admit(now).expect_err("open");
        assert!((FIRST_PAUSE..=FIRST_PAUSE.mul_f64(1.25)).contains(&pause), "{pause:?}");
    }

    #[test]
    fn one_call_tries_and_decides() {
        let start = Instant::now();
        let breaker = broken(start);
        let mut now = start + Duration::from_secs(2);
        assert_eq!(breaker.circuit(now), Circuit::HalfOpen);
        let probe = admitted(&breaker, now);
        assert!(breaker.admit(now).is_err(), "one at a time");
        probe.failed(now);
        assert_eq!(breaker.circuit(now), Circuit::Open);
        assert!(breaker.admit(now).expect_err("open") >= FIRST_PAUSE * 2, "twice as long");
        now += Duration::from_secs(3);
        admitted(&breaker, now).succeeded();
        assert_eq!(breaker.circuit(now), Circuit::Closed);
        admitted(&breaker, now).failed(now);
        assert_eq!(breaker.circuit(now), Circuit::Closed, "it counts from the start");
    }

    #[test]
    fn pauses_grow_to_a_bound_and_a_cut_probe_is_no_dead_end() {
        let mut now = Instant::now();
        let breaker = broken(now);
        for _ in 0..20 {
            now += LONGEST_PAUSE * 2;
            admitted(&breaker, now).failed(now);
        }
        assert!(breaker.admit(now).expect_err("open") <= LONGEST_PAUSE.mul_f64(1.25));
        now += LONGEST_PAUSE * 2;
        drop(admitted(&breaker, now));
        now += LONGEST_PAUSE * 2;
        admitted(&breaker, now).succeeded();
        assert_eq!(breaker.circuit(now), Circuit::Closed);
    }

    #[test]
    fn late_news_from_before_changes_nothing() {
        let now = Instant::now();
        let breaker = Breaker::new("idp");
        let late: Vec<_> = (0..2).map(|_| admitted(&breaker, now)).collect();
        for _ in 0..MOST_FAILURES {
            admitted(&breaker, now).failed(now);
        }
        let [one, two]: [Permit<'_>; 2] = late.try_into().expect("two");
        one.succeeded();
        two.failed(now);
        assert_eq!(breaker.circuit(now), Circuit::Open);
    }
}
