//! The threads that serve: a worker's with its runtime, that of management, and the runtime of everything else.

use std::{
    convert::Infallible,
    future::Future,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot},
};

use super::Error;
use crate::{
    net::{cpu, listener::Listener, pace, tls::Acceptor},
    proxy::Proxy,
    telemetry::enter_lane,
};

/// One worker: a thread with a runtime of its own.
pub(super) fn start_worker(
    number: usize,
    door: Arc<Proxy>,
    listener: Listener,
    tls: Option<Acceptor>,
    alive: mpsc::Sender<Infallible>,
) -> Result<(), Error> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_BETWEEN_EVENTS)
        .on_thread_park(pace::idle)
        .build()
        .map_err(|source| Error::System { what: "a worker's runtime", source })?;
    thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            enter_lane(number);
            if let Err(error) = runtime.block_on(door.run(listener, tls)) {
                tracing::error!(%error, "a worker cannot serve");
            }
            // What is left after the grace period is cut with the runtime.
            runtime.shutdown_background();
            drop(alive);
        })
        .map(drop)
        .map_err(|source| Error::System { what: "a worker's thread", source })
}

/// The thread of what administrators and retries ask for. It gives way to requests, and to what requests wait for.
#[derive(Debug)]
pub(super) struct Desk {
    handle: runtime::Handle,
    end: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Desk {
    pub(super) fn start() -> Result<Self, Error> {
        let runtime = control_runtime()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let serve = move || {
            cpu::give_way();
            let _ = runtime.block_on(ended);
            // It waits for no lookup of a name: the system cannot be told to end one.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("management".into()).spawn(serve);
        let thread = thread.map_err(|source| Error::System { what: "the management door's thread", source })?;
        Ok(Self { handle, end: Some(end), thread: Some(thread) })
    }

    /// Where its tasks run.
    pub(super) const fn handle(&self) -> &runtime::Handle {
        &self.handle
    }
}

impl Drop for Desk {
    /// Waits until nothing of it runs: the record's file is closed by whoever had it last.
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Does `work` on the runtime for all the rest: side doors, key fetches, introspection, reloads. What else runs there ends
/// with it; a lookup of a name that hangs holds up nobody.
pub(super) fn control<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    let runtime = control_runtime()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(outcome)
}

fn control_runtime() -> Result<runtime::Runtime, Error> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System { what: "the control runtime", source })
}

/// Tasks run before a worker asks the system again what has arrived (tokio's own: 61). With hundreds of connections as
/// many tasks wait, and fewer, fuller rounds are cheaper; timers may be late by so many tasks.
const TASKS_BETWEEN_EVENTS: u32 = 256;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// As a lookup of a name does.
    fn hang() {
        thread::sleep(LONG);
    }

    #[test]
    fn a_lookup_that_hangs_holds_up_no_end() {
        let begun = Instant::now();
        let desk = Desk::start().unwrap();
        let (started, starts) = std::sync::mpsc::channel();
        desk.handle().spawn_blocking(move || {
            started.send(()).unwrap();
            hang();
        });
        starts.recv().unwrap();
        drop(desk);
        control(async {
            let (started, starts) = oneshot::channel();
            tokio::task::spawn_blocking(move || {
                started.send(()).unwrap();
                hang();
            });
            starts.await.unwrap();
        })
        .unwrap();
        assert!(begun.elapsed() < LONG, "it waited");
    }

    const LONG: Duration = Duration::from_secs(60);
}
