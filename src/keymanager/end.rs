//! The end of the process, as whoever waits for a provider feels it: what is not answered by then is not waited for, and
//! the operation goes on with that, so that it notes what may have been done and refuses what may have been revoked.

use tokio::sync::watch;

use super::{Engine, Error, Result};

tokio::task_local! {
    /// Turns true when providers are waited for no longer.
    static CUT: watch::Receiver<bool>;
}

impl Engine {
    /// Ends what is asked of providers: each change that is not answered yet is noted as one that may have been done.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Does the work of an operation, which the end reaches from then on.
    pub(super) async fn within_end<T>(&self, work: impl Future<Output = T>) -> T {
        CUT.scope(self.cut.subscribe(), work).await
    }
}

/// Asked by a connector before it sends anything: an error once the process ends.
pub fn not_ending() -> Result<()> {
    match CUT.try_with(|cut| *cut.borrow()) {
        Ok(true) => Err(Error::Unreachable(format!("{ENDING}, and did not ask it"))),
        _ => Ok(()),
    }
}

/// Waits for what only a provider ends. None: the process ends before.
pub async fn or_end<T>(answer: impl Future<Output = T>) -> Option<T> {
    let Ok(mut cut) = CUT.try_with(watch::Receiver::clone) else { return Some(answer.await) };
    tokio::select! {
        biased;
        answer = answer => Some(answer),
        Ok(_) = cut.wait_for(|cut| *cut) => None,
    }
}

/// What became of a call that the end has reached: a change was sent, and nobody knows.
pub fn ended(reads: bool) -> Error {
    if reads {
        Error::Unreachable(format!("{ENDING}, and waits for it no longer"))
    } else {
        Error::TimedOut(format!("{ENDING}, and waits for it no longer"))
    }
}

const ENDING: &str = "the process is about to end";

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn the_end_is_felt_where_it_reaches() {
        assert_eq!((not_ending(), or_end(ready(1)).await), (Ok(()), Some(1)), "no end is told");
        let (cut, told) = watch::channel(false);
        let waits = CUT.scope(told.clone(), async { (not_ending(), or_end(pending::<()>()).await, not_ending()) });
        let ends = async { cut.send_replace(true) };
        let ((before, answer, after), _) = tokio::join!(waits, ends);
        assert_eq!((before, answer), (Ok(()), None));
        assert!(matches!(after, Err(Error::Unreachable(_))), "{after:?}");
        assert_eq!(CUT.scope(told, or_end(ready(2))).await, Some(2), "what is there is taken");
    }
}
