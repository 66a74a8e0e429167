//! The accept loop under the side doors and the management door: bounded in connections, patient with a system that has
//! no room, and at its end waiting for those that are open.

use std::{future::Future, io, net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::sleep,
};

use super::side::Listener;

/// Takes connections until `stop` says so, at most `most` at one time, and hands each to `serve`, with the address of
/// its other end where it has one. Returns once all have been served.
pub(super) async fn each<F, S>(listener: Listener, most: usize, mut stop: watch::Receiver<bool>, serve: F)
where
    F: Fn(Box<dyn Stream>, Option<IpAddr>) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(most));
    let mut open = JoinSet::new();
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, accept(&listener).await)
        };
        let (slot, stream) = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = open.join_next() => continue,
            accepted = accepted => accepted,
        };
        match stream {
            Ok((stream, address)) => {
                let connection = serve(stream, address);
                open.spawn(async move {
                    let _slot = slot;
                    connection.await;
                });
            }
            // Most likely out of file descriptors: the next attempt would fail as fast.
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
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

/// Waits for the stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone can never say stop: its owner is.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A connection of any kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
