//! The server under the management door: HTTP/1.1 and HTTP/2, TLS optional, each request told who is at the other end.
//!
//! Bounded in connections, in the size of a head, and in the time a connection may be idle or last. Connections are
//! kept, since those who manage ask more than once. What was asked is answered, even where that outlasts the stop: an
//! answer may hold what is told once.

use std::{error::Error, net::IpAddr, pin::pin, sync::Arc, time::Duration};

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
    sync::watch,
    time::{sleep, timeout},
};

pub use super::accept::Place;
use super::{
    accept::{self, stopped},
    side::Listener,
    tls::Acceptor,
};

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

/// Serves until `stop` says so. Each request has its [`Peer`] and its connection's [`Place`] among its extensions; who
/// asks has to be known before that is kept.
pub async fn serve<S, B>(listener: Listener, tls: Option<Acceptor>, service: S, stop: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let stopped = stop.clone();
    let greeted = move |stream, address, place| {
        let peer = Peer { address, certificate: None };
        greet(stream, peer, place, tls.clone(), service.clone(), stop.clone())
    };
    accept::each(listener, MOST_CONNECTIONS, stopped, greeted).await;
}

async fn greet<S, B, T>(
    stream: T,
    peer: Peer,
    place: Place,
    tls: Option<Acceptor>,
    service: S,
    mut stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Some(tls) = tls else { return converse(stream, peer, place, service, stop).await };
    let greeted = tokio::select! {
        greeted = timeout(HEAD_TIMEOUT, tls.current().accept(stream)) => greeted,
        () = stopped(&mut stop) => return,
    };
    // A client that does not come to terms gets no answer: there is nobody to tell.
    let Ok(Ok(stream)) = greeted else { return };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|chain| chain.first()).map(|first| first.clone().into_owned());
    converse(stream, Peer { certificate, ..peer }, place, service, stop).await;
}

async fn converse<S, B, T>(stream: T, peer: Peer, place: Place, service: S, mut stop: watch::Receiver<bool>)
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
    let under_way = Arc::new(());
    let asked = Arc::downgrade(&under_way);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(place.clone());
        let (answer, under_way) = (service.call(request), Arc::clone(&under_way));
        async move {
            let answer = answer.await;
            drop(under_way);
            answer
        }
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // How a client's connection ends is its own affair; nothing here depends on it.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(LIFE) => {}
        () = stopped(&mut stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    // One that is held is the service's own.
    while timeout(FAREWELL, connection.as_mut()).await.is_err() && asked.strong_count() > 1 {}
}

const MOST_CONNECTIONS: usize = 512;
const MOST_STREAMS: u32 = 100;
/// For a request's head, which is also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a connection as a whole.
const LIFE: Duration = Duration::from_secs(300);
const MOST_HEAD: usize = 32 << 10;
/// How long what is no request yet, or an answer that is not read, may take after the stop, or after the connection's
/// time is over.
const FAREWELL: Duration = Duration::from_secs(5);
