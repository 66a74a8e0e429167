//! The server under the management door: HTTP/1.1 and HTTP/2, TLS optional, each request told who is at the other end.
//!
//! Bounded in connections, in the size of a head, and in the time a connection may be idle or last. Connections are
//! kept, since those who manage ask more than once.

use std::{error::Error, io, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{side::Listener, tls::Acceptor};

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The address; none: a Unix socket.
    pub address: Option<IpAddr>,
    /// The certificate, verified in the handshake.
    pub certificate: Option<CertificateDer<'static>>,
}

impl Peer {
    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        self.address.is_none_or(|address| address.to_canonical().is_loopback())
    }
}

/// Serves until `stop` says so. Each request has its [`Peer`] among its extensions.
pub async fn serve<S, B>(listener: Listener, tls: Option<Acceptor>, service: S, mut stop: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept_from().await)
        };
        let (slot, stream) = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = open.join_next() => continue,
            accepted = accepted => accepted,
        };
        match stream {
            Ok((stream, address)) => {
                let (tls, service, stop) = (tls.clone(), service.clone(), stop.clone());
                open.spawn(async move {
                    let _slot = slot;
                    greet(stream, address, tls, service, stop).await;
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

async fn greet<S, B, T>(
    stream: T,
    address: Option<IpAddr>,
    tls: Option<Acceptor>,
    service: S,
    stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Some(tls) = tls else { return converse(stream, Peer { address, certificate: None }, service, stop).await };
    // A client that does not come to terms gets no answer: there is nobody to tell.
    let Ok(Ok(stream)) = timeout(HEAD_TIMEOUT, tls.current().accept(stream)).await else { return };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|chain| chain.first()).map(|first| first.clone().into_owned());
    converse(stream, Peer { address, certificate }, service, stop).await;
}

async fn converse<S, B, T>(stream: T, peer: Peer, service: S, mut stop: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MOST_HEAD);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(MOST_HEAD as u32)
        .keep_alive_interval(HEAD_TIMEOUT)
        .keep_alive_timeout(HEAD_TIMEOUT);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.call(request)
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // How a client's connection ends is its own affair; nothing here depends on it.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(LIFE) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(FAREWELL, connection).await;
}

impl Listener {
    async fn accept_from(&self) -> io::Result<(Box<dyn Stream>, Option<IpAddr>)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                (Box::new(stream), Some(peer.ip()))
            }
            Self::Unix(listener, _) => (Box::new(listener.accept().await?.0), None),
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

const MOST_CONNECTIONS: usize = 512;
const MOST_STREAMS: u32 = 100;
/// For a request's head, which is also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a connection as a whole.
const LIFE: Duration = Duration::from_secs(300);
const MOST_HEAD: usize = 32 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests under way may take after the stop, or after the connection's time is over.
const FAREWELL: Duration = Duration::from_secs(5);
