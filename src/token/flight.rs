//! One call however many wait: whoever brings a token that is being asked about waits for the same answer.
//!
//! A call belongs to nobody who waits: they may go away, it goes on. However it ends, even by a panic, its
//! place is freed and everyone is told.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::digest::Digest;

/// The calls under way. Two tokens never share a call, nor two providers.
#[derive(Debug)]
pub(super) struct Flights<T>(Arc<Calls<T>>);

type Calls<T> = Mutex<HashMap<Call, watch::Receiver<Option<T>>>>;

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Call {
    /// The token and the key managers that were asked.
    pub(super) digest: Digest,
    /// The address of the issuer whose provider is asked: the call holds the issuer, so that no other can be
    /// there while it is under way.
    pub(super) issuer: usize,
}

/// A call under way. Dropped without [`Self::land`], it tells that there is no answer.
#[derive(Debug)]
pub(super) struct Flight<T> {
    calls: Arc<Calls<T>>,
    call: Call,
    tell: watch::Sender<Option<T>>,
}

/// Waits for a call's answer.
#[derive(Debug)]
pub(super) struct Waiter<T>(watch::Receiver<Option<T>>);

impl<T: Clone> Flights<T> {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// A place among those who wait; for the first of them also the call that is to be made.
    pub(super) fn join(&self, call: Call) -> (Waiter<T>, Option<Flight<T>>) {
        let mut calls = self.0.lock();
        if let Some(answer) = calls.get(&call) {
            return (Waiter(answer.clone()), None);
        }
        let (tell, answer) = watch::channel(None);
        calls.insert(call, answer.clone());
        (Waiter(answer), Some(Flight { calls: Arc::clone(&self.0), call, tell }))
    }

    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.0.lock().len()
    }
}

impl<T> Flight<T> {
    /// Tells everyone who waits.
    pub(super) fn land(self, answer: T) {
        self.tell.send_replace(Some(answer));
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.call);
    }
}

impl<T: Clone> Waiter<T> {
    /// The answer; none where the call was given up.
    pub(super) async fn wait(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(n: u8) -> Call {
        Call { digest: Digest::for_test(n), issuer: 1 }
    }

    #[tokio::test]
    async fn all_who_wait_are_told_and_the_place_is_free_again() {
        let flights = Flights::new();
        let (first, flight) = flights.join(about(1));
        let flight = flight.expect("the first");
        let (second, none) = flights.join(about(1));
        assert!(none.is_none());
        let (_, other) = flights.join(about(2));
        assert!(other.is_some(), "another token");
        let (_, other) = flights.join(Call { issuer: 2, ..about(1) });
        assert!(other.is_some(), "another provider");
        drop(first);
        flight.land("answer");
        assert_eq!(second.wait().await, Some("answer"));
        assert!(flights.join(about(1)).1.is_some());
    }

    #[tokio::test]
    async fn a_call_that_panics_or_is_cut_leaves_nobody_waiting() {
        let flights = Flights::<()>::new();
        let (waiter, flight) = flights.join(about(1));
        let panics = tokio::spawn(async move {
            let _flight = flight;
            tokio::task::yield_now().await;
            panic!("as the test wants");
        });
        assert_eq!(waiter.wait().await, None);
        assert!(panics.await.is_err());
        let (waiter, flight) = flights.join(about(1));
        let hangs = tokio::spawn(async move {
            let _flight = flight;
            std::future::pending::<()>().await;
        });
        hangs.abort();
        assert_eq!(waiter.wait().await, None);
        assert_eq!(flights.under_way(), 0);
    }
}
