//! A worker finishes before it begins.
//!
//! Where more requests have arrived than can be begun at once, the later ones wait unread, in the order in which they
//! came, until answers to earlier ones were passed on. So few are under way at a time, and what they need stays in the
//! processor's caches, where that of hundreds does not: with 512 connections a request costs about a tenth less (bench
//! `peers`). Nothing waits while the worker would have nothing else to do, however long upstreams take.
//!
//! A worker is a thread with a runtime of its own that calls [`idle`] when it has nothing left to do
//! (`on_thread_park`). On other threads all requests begin at once.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    task::{Context, Waker},
};

use tokio::task::yield_now;

/// A request that this worker has begun; dropped when its answer is there.
#[derive(Debug)]
pub(super) struct Begun(());

/// What a worker has begun since it last had nothing to do, and who waits.
struct Pace {
    /// [`idle`] is called here.
    kept: Cell<bool>,
    begun: Cell<usize>,
    /// An answer came since the steward's last round.
    answered: Cell<bool>,
    /// A steward is at work: as long as anybody waits.
    steward: Cell<bool>,
    line: RefCell<VecDeque<Waker>>,
}

thread_local! {
    static PACE: Pace = const {
        Pace {
            kept: Cell::new(false),
            begun: Cell::new(0),
            answered: Cell::new(false),
            steward: Cell::new(false),
            line: RefCell::new(VecDeque::new()),
        }
    };
}

/// The worker has done what was to be done.
pub fn idle() {
    PACE.with(|pace| {
        pace.kept.set(true);
        pace.begun.set(0);
    });
}

/// Whether so much was begun that whoever comes should wait in line.
pub(super) fn is_full() -> bool {
    PACE.with(|pace| pace.kept.get() && pace.begun.get() >= MOST_AT_ONCE)
}

/// The present task is woken when it is its turn, and needs nothing but to go on then.
pub(super) fn line_up(cx: &Context<'_>) {
    PACE.with(|pace| {
        pace.line.borrow_mut().push_back(cx.waker().clone());
        if !pace.steward.replace(true) {
            tokio::spawn(steward());
        }
    });
}

impl Begun {
    pub(super) fn new() -> Self {
        PACE.with(|pace| pace.begun.set(pace.begun.get() + 1));
        Self(())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        PACE.with(|pace| {
            // One that was begun before the worker was idle makes room, too.
            pace.begun.set(pace.begun.get().saturating_sub(1));
            pace.answered.set(true);
            if pace.steward.get() {
                pace.call(1);
            }
        });
    }
}

impl Pace {
    /// Wakes the first of the line.
    fn call(&self, most: usize) {
        for _ in 0..most {
            // Not woken while it is borrowed.
            let Some(first) = self.line.borrow_mut().pop_front() else { return };
            first.wake();
        }
    }
}

/// Lets more begin whenever the worker has looked for events, done what they asked for, and no answer was among it.
async fn steward() {
    loop {
        PACE.with(|pace| pace.answered.set(false));
        yield_now().await;
        let waits = PACE.with(|pace| {
            if !pace.answered.get() {
                pace.call(GROUP);
            }
            let waits = !pace.line.borrow().is_empty();
            pace.steward.set(waits);
            waits
        });
        if !waits {
            return;
        }
    }
}

/// Bench `peers` with 512 connections: 4 cost less than 8, 16 or 32, and with 32 connections the same.
const MOST_AT_ONCE: usize = 4;
const GROUP: usize = 32;

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, poll_fn},
        mem,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::Poll,
        time::Duration,
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
        runtime::Builder,
        time::{sleep, timeout},
    };

    use super::*;

    async fn turn() {
        let mut lined_up = false;
        poll_fn(|cx| {
            if mem::replace(&mut lined_up, true) || !is_full() {
                return Poll::Ready(());
            }
            line_up(cx);
            Poll::Pending
        })
        .await;
    }

    /// An upstream that answers at once.
    async fn quick() {
        let (mut near, mut far) = UnixStream::pair().expect("sockets");
        far.write_u8(1).await.expect("it is open");
        near.read_u8().await.expect("an answer");
    }

    /// Requests that come together, each of which takes what `work` takes: the most that were under way.
    fn most_under_way<F: Future + Send + 'static>(work: fn() -> F, kept: bool) -> usize {
        let counts = Arc::new([const { AtomicUsize::new(0) }; 3]);
        let mut runtime = Builder::new_current_thread();
        if kept {
            runtime.on_thread_park(idle);
        }
        runtime.enable_all().build().expect("a runtime").block_on(async {
            // It has parked before they come.
            sleep(Duration::from_millis(1)).await;
            for _ in 0..MANY {
                let counts = counts.clone();
                tokio::spawn(async move {
                    let [under_way, most, begun] = &*counts;
                    turn().await;
                    let _begun = Begun::new();
                    most.fetch_max(under_way.fetch_add(1, Relaxed) + 1, Relaxed);
                    begun.fetch_add(1, Relaxed);
                    work().await;
                    under_way.fetch_sub(1, Relaxed);
                });
            }
            let all = async {
                while counts[2].load(Relaxed) < MANY {
                    yield_now().await;
                }
            };
            timeout(Duration::from_secs(20), all).await.expect("all have their turn");
        });
        counts[1].load(Relaxed)
    }

    #[test]
    fn few_are_under_way_while_answers_come() {
        let most = most_under_way(quick, true);
        assert!(most < MOST_AT_ONCE + GROUP, "{most} at a time");
    }

    #[test]
    fn nobody_waits_for_those_that_take_long() {
        assert_eq!(most_under_way(pending::<()>, true), MANY);
    }

    #[test]
    fn where_idle_is_not_called_all_begin_at_once() {
        assert_eq!(most_under_way(quick, false), MANY);
    }

    #[test]
    fn who_has_gone_is_passed_over() {
        Builder::new_current_thread().build().expect("a runtime").block_on(async {
            line_up(&Context::from_waker(Waker::noop()));
            let waiting = tokio::spawn(async {
                PACE.with(|pace| {
                    pace.kept.set(true);
                    pace.begun.set(MOST_AT_ONCE);
                });
                turn().await;
            });
            waiting.await.expect("it is woken");
        });
    }

    const MANY: usize = 200;
}
