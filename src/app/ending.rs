//! The end of the process: what was asked is answered, for as long as the configuration allows.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    keymanager::Engine,
    net::drain::{Drain, Phase},
    proxy,
};

/// The signals that mean something to us.
pub(super) struct Signals {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// The management door as it serves.
pub(super) struct Counter {
    pub(super) engine: Arc<Engine>,
    /// Ends once it has answered what it was asked.
    pub(super) served: JoinHandle<()>,
    pub(super) stop: watch::Sender<bool>,
}

impl Counter {
    /// Once the drain says so it takes no connection any more, and answers what it was asked. What providers have not
    /// done when the drain is over is noted as what may have been done: nobody else would tell of it.
    async fn close(mut self, drain: &Drain) {
        drain.reached(Phase::Closing).await;
        self.stop.send_replace(true);
        tokio::select! {
            _ = &mut self.served => return,
            () = drain.reached(Phase::Cut) => self.engine.cut(),
        }
        if timeout(LAST_NOTES, self.served).await.is_err() {
            tracing::error!("changes may have been done at providers, and could not be noted in time");
        }
    }
}

/// Drains: the phases in turn, until every worker is gone and the management door has answered. A second signal cuts
/// what is left.
pub(super) async fn finish(
    drain: &Drain,
    proxy: Option<&proxy::Settings>,
    gone: &mut mpsc::Receiver<Infallible>,
    counter: Option<Counter>,
    signals: &mut Signals,
) {
    let (delay, grace) = proxy.map_or((Duration::ZERO, GRACE), |proxy| (proxy.drain_delay.0, proxy.grace.0));
    let delay = if drain.phase() == Phase::Serving { delay } else { Duration::ZERO };
    tracing::info!("draining");
    let closed = async {
        if let Some(counter) = counter {
            counter.close(drain).await;
        }
    };
    let mut ended = Box::pin(async { tokio::join!(gone.recv(), closed) });
    tokio::select! {
        _ = &mut ended => return,
        () = drain.run(delay, grace) => {}
        _ = signals.terminate.recv() => drain.enter(Phase::Cut),
        _ = signals.interrupt.recv() => drain.enter(Phase::Cut),
    }
    // Cut: the workers end at once, and say so.
    let _ = timeout(LAST_NOTES + LAST_NOTES, ended).await;
}

/// Where no `proxy.grace` says it.
const GRACE: Duration = Duration::from_secs(25);
const LAST_NOTES: Duration = Duration::from_secs(2);
