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

/// Waits for what only a provider ends, as long as the process does not end. Then what was asked for is not begun any more;
/// of what was begun, unless it only reads, nobody knows.
pub async fn before_end<T>(reads: bool, answer: impl Future<Output = T>) -> Result<T> {
    let Ok(mut cut) = CUT.try_with(watch::Receiver::clone) else { return Ok(answer.await) };
    if *cut.borrow() {
        return Err(Error::Unreachable(format!("{ENDING}, and did not ask it")));
    }
    let late = || format!("{ENDING}, and waits for it no longer");
    tokio::select! {
        biased;
        answer = answer => Ok(answer),
        Ok(_) = cut.wait_for(|cut| *cut) => Err(if reads { Error::Unreachable(late()) } else { Error::TimedOut(late()) }),
    }
}

const ENDING: &str = "the process is about to end";

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn the_end_is_felt_where_it_reaches() {
        assert_eq!(before_end(false, ready(1)).await, Ok(1), "no end is told");
        for reads in [true, false] {
            let (cut, told) = watch::channel(false);
            let waits = CUT.scope(told.clone(), async {
                assert_eq!(before_end(reads, ready(1)).await, Ok(1));
                (before_end(reads, pending::<()>()).await, before_end(reads, ready(2)).await)
            });
            let ends = async { cut.send_replace(true) };
            let ((begun, after), _) = tokio::join!(waits, ends);
            assert_eq!(matches!(begun, Err(Error::Unreachable(_))), reads, "{begun:?}");
            assert_eq!(matches!(begun, Err(Error::TimedOut(_))), !reads, "{begun:?}");
            assert!(matches!(after, Err(Error::Unreachable(_))), "nothing is begun: {after:?}");
        }
        let (cut, told) = watch::channel(false);
        let at_once = async {
            cut.send_replace(true);
            3
        };
        assert_eq!(CUT.scope(told, before_end(false, at_once)).await, Ok(3), "what is there is taken");
    }
}
