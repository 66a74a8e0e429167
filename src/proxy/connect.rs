//! Connections to upstreams: TCP or a Unix socket, TLS with ALPN, and the HTTP handshake.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    body::RequestBody,
    http1::{self, Io},
    pool::Key,
};
use crate::{
    net::{Gathered, listener, tls},
    store::UpstreamScheme,
};

/// What TLS upstreams are offered: HTTP/2 or HTTP/1.1, or HTTP/1.1 alone for what is to be upgraded.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) any: Arc<ClientConfig>,
    pub(super) http1: Arc<ClientConfig>,
}

/// A connection that can take requests.
#[derive(Debug)]
pub(super) enum Sender {
    Http1(http1::Connection),
    Http2(conn::http2::SendRequest<RequestBody>),
}

/// Why no connection stands.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("connecting took too long")]
    TimedOut,
    #[error("no connection")]
    Io(#[from] io::Error),
    #[error("no HTTP connection")]
    Http(#[from] hyper::Error),
}

impl Tls {
    /// The process's: reading the roots is not cheap, and all workers trust the same.
    pub(super) fn shared() -> Result<Self, tls::Error> {
        if let Some(tls) = SHARED.get() {
            return Ok(tls.clone());
        }
        let any = tls::client_config(&[b"h2", b"http/1.1"])?;
        let mut http1 = any.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(SHARED.get_or_init(|| Self { any: Arc::new(any), http1: Arc::new(http1) }).clone())
    }
}

static SHARED: OnceLock<Tls> = OnceLock::new();

/// Opens a connection, ready for a request.
pub(super) async fn connect(key: &Key, tls: &Tls, http1_only: bool, limit: Duration) -> Result<Sender, Error> {
    timeout(limit, async {
        match key.scheme {
            UpstreamScheme::Http | UpstreamScheme::Echo => Ok(http1(Gathered(tcp(key).await?))),
            UpstreamScheme::H2c => http2(tcp(key).await?).await,
            UpstreamScheme::Unix => Ok(http1(Gathered(UnixStream::connect(&*key.host).await?))),
            UpstreamScheme::Https => https(key, if http1_only { &tls.http1 } else { &tls.any }).await,
        }
    })
    .await
    .map_err(|_| Error::TimedOut)?
}

async fn tcp(key: &Key) -> io::Result<TcpStream> {
    // An address needs no resolver, which would cost a thread.
    let stream = match key.host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect((ip, key.port)).await?,
        Err(_) => TcpStream::connect((&*key.host, key.port)).await?,
    };
    stream.set_nodelay(true)?;
    listener::keep_alive(&stream)?;
    Ok(stream)
}

async fn https(key: &Key, config: &Arc<ClientConfig>) -> Result<Sender, Error> {
    let name = ServerName::try_from(key.host.to_string()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config.clone()).connect(name, tcp(key).await?).await?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if h2 { http2(stream).await } else { Ok(http1(stream)) }
}

fn http1(stream: impl Io + 'static) -> Sender {
    Sender::Http1(http1::Connection::new(stream))
}

/// Makes of a connection one that can be upgraded. It takes one request, and is not given back.
pub(super) async fn upgradable(
    connection: http1::Connection,
) -> Result<conn::http1::SendRequest<RequestBody>, hyper::Error> {
    let io = TokioIo::new(connection.into_io());
    let (sender, connection) = conn::http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(io).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to an upstream failed");
        }
    });
    Ok(sender)
}

async fn http2(stream: impl Io + 'static) -> Result<Sender, Error> {
    let (sender, connection) = conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to an upstream failed");
        }
    });
    Ok(Sender::Http2(sender))
}

/// Largest head of the answer to an upgrade.
const MAX_BUFFER: usize = 256 << 10;
const MAX_HEADER_LIST: u32 = 128 << 10;
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
const PING_EVERY: Duration = Duration::from_secs(20);
