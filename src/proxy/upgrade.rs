//! WebSockets: once the upstream has agreed to switch, both sides are joined and nothing is read any more.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::net::Connection;

/// Joins both sides until either ends, or what is left is cut.
pub(super) fn join(client: OnUpgrade, upstream: OnUpgrade, connection: Arc<Connection>) {
    tokio::spawn(async move {
        // Without both there is nothing to join; whoever is left sees its connection close.
        let Ok((client, upstream)) = tokio::try_join!(client, upstream) else { return };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        tokio::select! {
            ended = copy_bidirectional(&mut client, &mut upstream) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an upgraded connection broke");
                }
            }
            () = connection.cut() => {}
        }
    });
}
