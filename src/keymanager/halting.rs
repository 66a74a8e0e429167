//! Trying a change at a provider that only others can undo: the connector does what it does, up to the first thing that
//! would change anything. That is not done, and whatever it comes to counts for nothing.

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{Error, Result};

tokio::task_local! {
    /// Whether the change has come to what would change anything.
    static HALTED: AtomicBool;
}

/// Asked by a connector, in the task that called it, before it changes anything at its provider or in what it
/// remembers: an error, with which it gives up, where the change is only tried.
pub fn go_on() -> Result<()> {
    match HALTED.try_with(|halted| halted.store(true, Ordering::Relaxed)) {
        // No error that anybody mends.
        Ok(()) => Err(Error::Refused { status: 202, detail: "nothing was sent: it is only tried".into() }),
        Err(_) => Ok(()),
    }
}

/// Whether the change is only tried, in this way.
pub(super) fn is_tried() -> bool {
    HALTED.try_with(|_| ()).is_ok()
}

/// Does `work` as far as that changes nothing. None: nothing stood against it until then.
pub(super) async fn tried<T>(work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    let outcome = async { (work.await, HALTED.with(|halted| halted.load(Ordering::Relaxed))) };
    match HALTED.scope(AtomicBool::new(false), outcome).await {
        (_, true) => Ok(None),
        (outcome, false) => outcome.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_tried_goes_on_until_it_would_change_something() {
        assert_eq!((go_on(), is_tried()), (Ok(()), false), "nothing is tried");
        assert_eq!(tried(async { Ok(is_tried()) }).await, Ok(Some(true)));
        assert_eq!(tried(async { Ok(1) }).await, Ok(Some(1)));
        assert_eq!(tried(async { Err::<u8, _>(Error::NotFound("client")) }).await, Err(Error::NotFound("client")));
        let mended = async { go_on().map_err(|_| Error::NotFound("client")) };
        assert_eq!(tried(mended).await, Ok(None), "whatever is made of it");
        assert_eq!(go_on(), Ok(()));
    }
}
