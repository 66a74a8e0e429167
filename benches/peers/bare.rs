//! The least a proxy on this stack can do: hyper on both sides, one current-thread runtime, HTTP/1.1 or HTTP/2 from
//! clients, HTTP/1.1 to the backend by a pool of connections. No check, no header touched, no timeout.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::Context as _;
use hyper::{
    Request, Response, Uri,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    client::conn::http1::{self, SendRequest},
    header::{self, HeaderValue},
    server,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

/// `bare LISTEN BACKEND [http2]`, both ports on loopback; serves until it is ended.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let (listen, backend, http2) = match arguments {
        [listen, backend] => (listen, backend, false),
        [listen, backend, word] if word == "http2" => (listen, backend, true),
        _ => anyhow::bail!("bare LISTEN BACKEND [http2]"),
    };
    let (listen, backend) = (listen.parse::<u16>()?, backend.parse::<u16>()?);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(listen, backend, http2))
}

async fn serve(listen: u16, backend: u16, http2: bool) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", listen)).await?;
    let pool = Arc::new(Pool { backend, idle: Mutex::default() });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let pool = Arc::clone(&pool);
        tokio::spawn(async move {
            // A client that goes away is none of our business.
            if http2 {
                let service = service_fn(move |request| forward_http2(Arc::clone(&pool), request));
                let serving = server::conn::http2::Builder::new(TokioExecutor::new());
                drop(serving.serve_connection(TokioIo::new(stream), service).await);
            } else {
                let service = service_fn(move |request| forward(Arc::clone(&pool), request));
                let serving = server::conn::http1::Builder::new();
                drop(serving.serve_connection(TokioIo::new(stream), service).await);
            }
        });
    }
}

/// What HTTP/1.1 wants otherwise: the authority as a field, the path alone.
async fn forward_http2(pool: Arc<Pool>, mut request: Request<Incoming>) -> anyhow::Result<Response<Pooled>> {
    let mut parts = request.uri().clone().into_parts();
    if let Some(authority) = parts.authority.take() {
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
    }
    parts.scheme = None;
    *request.uri_mut() = Uri::from_parts(parts)?;
    forward(pool, request).await
}

async fn forward(pool: Arc<Pool>, request: Request<Incoming>) -> anyhow::Result<Response<Pooled>> {
    let mut sender = pool.take().await?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Response::from_parts(head, Pooled { body, back: Some((sender, pool)) }))
}

/// Upstream connections that wait for a request.
struct Pool {
    backend: u16,
    idle: Mutex<Vec<SendRequest<Incoming>>>,
}

impl Pool {
    async fn take(&self) -> anyhow::Result<SendRequest<Incoming>> {
        while let Some(mut sender) = self.pop() {
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = TcpStream::connect(("127.0.0.1", self.backend)).await.context("cannot reach the backend")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn pop(&self) -> Option<SendRequest<Incoming>> {
        self.idle.lock().pop()
    }
}

/// A response body that gives its connection back when it ends.
struct Pooled {
    body: Incoming,
    back: Option<(SendRequest<Incoming>, Arc<Pool>)>,
}

impl Body for Pooled {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some((sender, pool)) = self.back.take() {
            pool.idle.lock().push(sender);
        }
    }
}
