//! The accept loop under the side doors and the management door: bounded in connections, patient with a system that has
//! no room, and at its end waiting for those that are open. Where places are short the oldest connection that has not
//! earned its own gives way, so that those who say nothing cannot shut the door.

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, oneshot, watch},
    task::JoinSet,
    time::sleep,
};

use super::side::Listener;

/// Takes connections until `stop` says so, at most `most` at one time, and hands each to `serve`, with the address of
/// its other end where it has one, and its place. Returns once all have been served.
pub(super) async fn each<F, S>(listener: Listener, most: usize, mut stop: watch::Receiver<bool>, serve: F)
where
    F: Fn(Box<dyn Stream>, Option<IpAddr>, Place) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let (slots, strangers) = (Arc::new(Semaphore::new(most)), Strangers::default());
    let mut open = JoinSet::new();
    for number in 0_u64.. {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = open.join_next() => continue,
            accepted = accept(&listener) => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            // Most likely out of file descriptors: the next attempt would fail as fast.
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if slots.available_permits() == 0 {
            strangers.dismiss_oldest();
        }
        let slot = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        let (place, dismissed) = strangers.welcome(number);
        let connection = serve(stream, address, place);
        open.spawn(async move {
            let _slot = slot;
            tokio::select! {
                biased;
                () = dismissed => {}
                () = connection => {}
            }
        });
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

async fn accept(listener: &Listener) -> io::Result<(Box<dyn Stream>, Option<IpAddr>)> {
    Ok(match listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            (Box::new(stream), Some(peer.ip()))
        }
        Listener::Unix(listener, _) => (Box::new(listener.accept().await?.0), None),
    })
}

/// The connections that may have to give way, from the oldest on.
#[derive(Debug, Clone, Default)]
struct Strangers(Arc<Mutex<BTreeMap<u64, oneshot::Sender<()>>>>);

impl Strangers {
    /// A place for the connection of this number, and what waits until it has to give it away.
    fn welcome(&self, number: u64) -> (Place, impl Future<Output = ()> + Send + use<>) {
        let (dismiss, dismissed) = oneshot::channel();
        self.0.lock().insert(number, dismiss);
        let dismissed = async {
            if dismissed.await.is_err() {
                pending::<()>().await;
            }
        };
        (Place(Arc::new(Seat { number, kept: Mutex::new(false), strangers: self.clone() })), dismissed)
    }

    fn dismiss_oldest(&self) {
        if let Some((_, dismiss)) = self.0.lock().pop_first() {
            let _ = dismiss.send(());
        }
    }
}

/// A connection's place among those that a door has room for.
#[derive(Debug, Clone)]
pub struct Place(Arc<Seat>);

#[derive(Debug)]
struct Seat {
    number: u64,
    kept: Mutex<bool>,
    strangers: Strangers,
}

impl Place {
    /// The connection has earned it, and gives way to nobody any more. False: it has to already.
    pub fn keep(&self) -> bool {
        let mut kept = self.0.kept.lock();
        *kept = *kept || self.0.strangers.0.lock().remove(&self.0.number).is_some();
        *kept
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.strangers.0.lock().remove(&self.number);
    }
}

/// Waits for the stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone can never say stop: its owner is.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A connection of any kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
