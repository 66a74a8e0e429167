//! Going away politely: the phases between "serving" and "gone".

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, futures::Notified};

/// How far going away has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Not going away.
    Serving,
    /// Still accepting and serving; each connection gets one more answer, which says so.
    Draining,
    /// No longer listening; idle connections are closed, requests under way finish.
    Closing,
    /// What is left is cut.
    Cut,
}

/// Tells every server and connection of the process which phase it is. Cheap to clone and to ask.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    phase: AtomicU8,
    changed: Notify,
}

impl Drain {
    /// Serving.
    pub fn new() -> Self {
        Self::default()
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            2 => Phase::Closing,
            _ => Phase::Cut,
        }
    }

    /// Enters `phase`; never goes back.
    pub fn enter(&self, phase: Phase) {
        self.0.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }

    /// All phases in turn: `delay` draining, `grace` closing, then cut.
    pub async fn run(&self, delay: Duration, grace: Duration) {
        self.enter(Phase::Draining);
        tokio::time::sleep(delay).await;
        self.enter(Phase::Closing);
        tokio::time::sleep(grace).await;
        self.enter(Phase::Cut);
    }

    /// Waits until `phase` is reached.
    pub async fn reached(&self, phase: Phase) {
        while self.phase() < phase {
            let mut changed = std::pin::pin!(self.changed());
            changed.as_mut().enable();
            if self.phase() >= phase {
                return;
            }
            changed.await;
        }
    }

    /// The next change after it was enabled or first polled.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.0.changed.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_are_reached_in_order_and_never_undone() {
        let drain = Drain::new();
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.reached(Phase::Closing).await }
        });
        tokio::task::yield_now().await;
        drain.enter(Phase::Draining);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drain.run(Duration::ZERO, Duration::ZERO).await;
        waiting.await.unwrap();
        drain.enter(Phase::Serving);
        assert_eq!(drain.phase(), Phase::Cut);
    }
}
