//! The server under the side doors (admin, embedded provider): HTTP/1.1, few connections, short requests.
//!
//! Bounded in connections, in the size of a head and in the time it may take. A connection brings one request and
//! has a short life, so that clients that are idle or read nothing cannot shut the door on others. Requests under
//! way are answered when it stops.

use std::{error::Error, pin::pin, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    time::timeout,
};

use super::{
    accept::{self, Place, Stream, stopped},
    listener::SocketFile,
};

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP
    Tcp(TcpListener),
    /// Unix socket, and its file, which goes with it
    Unix(UnixListener, Option<SocketFile>),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener, None)
    }
}

/// Serves until `stop` says so, at most `connections` at one time; others wait to be accepted.
pub async fn serve<S, B>(listener: Listener, connections: usize, service: S, stop: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let stopped = stop.clone();
    let served = move |stream, _, place: Place| {
        let service = service.clone();
        // Whoever has brought a head is served; who brings none gives way.
        let service = service_fn(move |request| {
            place.keep();
            service.call(request)
        });
        serve_connection(stream, service, stop.clone(), LIFE)
    };
    accept::each(listener, connections, stopped, served).await;
}

async fn serve_connection<S, B>(stream: Box<dyn Stream>, service: S, mut stop: watch::Receiver<bool>, life: Duration)
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MOST_HEAD).keep_alive(false);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // How a client's connection ends is its own affair; nothing here depends on it.
    tokio::select! {
        _ = timeout(life, connection.as_mut()) => return,
        () = stopped(&mut stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(FAREWELL, connection).await;
}

/// For a request's head, from accept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a connection as a whole, however slowly its client reads.
const LIFE: Duration = Duration::from_secs(30);
const MOST_HEAD: usize = 16 << 10;
/// How long requests under way may take after the stop.
const FAREWELL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use http_body_util::{BodyExt, Full};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpStream, UnixStream},
        time::sleep,
    };

    use super::*;

    /// Answers with the request's body.
    async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Ok(Response::new(Full::new(body)))
    }

    async fn ask(mut stream: impl Stream, request: &str) -> String {
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).await.expect("the server reads");
        stream.read_to_string(&mut answer).await.expect("the server answers");
        answer
    }

    const BYE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn both_kinds_of_sockets_serve() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("side.sock");
        let unix = UnixListener::bind(&path).expect("a socket");
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = tcp.local_addr().expect("it is bound");
        let (stop, stopped) = watch::channel(false);
        let servers = [Listener::from(unix), Listener::from(tcp)]
            .map(|listener| tokio::spawn(serve(listener, 4, service_fn(echo), stopped.clone())));
        let unix = ask(UnixStream::connect(&path).await.expect("it listens"), BYE).await;
        let tcp = ask(TcpStream::connect(address).await.expect("it listens"), BYE).await;
        assert!(unix.starts_with("HTTP/1.1 200 ") && tcp.starts_with("HTTP/1.1 200 "), "{unix}{tcp}");
        stop.send_replace(true);
        for server in servers {
            server.await.expect("it ends");
        }
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_when_it_stops() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener.into(), 4, service_fn(echo), stopped));
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("the server reads");
        let mut asked_on = [0; 25];
        stream.read_exact(&mut asked_on).await.expect("the head was read");
        assert_eq!(&asked_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        stop.send_replace(true);
        let answer = ask(stream, "hello").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{answer}");
        server.await.expect("it ends");
    }

    #[tokio::test]
    async fn who_says_nothing_gives_way() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (_stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener.into(), 2, service_fn(echo), stopped));
        let mut silent = TcpStream::connect(address).await.expect("it listens");
        let mut half = TcpStream::connect(address).await.expect("it listens");
        half.write_all(b"GET / HTTP/1.1\r\n").await.expect("the system takes it");
        for _ in 0..3 {
            let asked = ask(TcpStream::connect(address).await.expect("it listens"), BYE);
            let answer = timeout(HEAD_TIMEOUT / 2, asked).await.expect("there is a place");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        let gone = timeout(HEAD_TIMEOUT / 2, silent.read(&mut [0; 1])).await;
        assert!(matches!(gone, Ok(Ok(0) | Err(_))), "the oldest went: {gone:?}");
        server.abort();
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (_stop, stopped) = watch::channel(false);
        let served = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&served);
        let service = service_fn(move |request| {
            count.fetch_add(1, Ordering::Relaxed);
            echo(request)
        });
        let server = tokio::spawn(serve(listener.into(), 1, service, stopped));
        // It brings a head, and the server waits for the rest.
        let mut first = TcpStream::connect(address).await.expect("it listens");
        let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        first.write_all(head.as_bytes()).await.expect("the system takes it");
        first.read_exact(&mut [0; 25]).await.expect("the head was read");
        let mut second = TcpStream::connect(address).await.expect("the system takes it");
        second.write_all(BYE.as_bytes()).await.expect("the system takes it");
        // Had the server taken the second, it would serve it meanwhile.
        sleep(Duration::from_millis(50)).await;
        assert_eq!(served.load(Ordering::Relaxed), 1, "the second was served too early");
        assert!(ask(first, "hello").await.starts_with("HTTP/1.1 200 "));
        assert!(ask(second, "").await.starts_with("HTTP/1.1 200 "));
        server.abort();
    }

    #[tokio::test]
    async fn a_connection_brings_one_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (_stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener.into(), 4, service_fn(echo), stopped));
        let stream = TcpStream::connect(address).await.expect("it listens");
        let answer = ask(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
        server.abort();
    }

    #[tokio::test]
    async fn who_reads_nothing_does_not_stay() {
        let (mut client, server) = tokio::io::duplex(1024);
        let (_stop, stopped) = watch::channel(false);
        let long = |_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![b'x'; 1 << 20])))) };
        let life = Duration::from_millis(50);
        let served = serve_connection(Box::new(server), service_fn(long), stopped, life);
        client.write_all(BYE.as_bytes()).await.expect("there is room");
        timeout(Duration::from_secs(20), served).await.expect("it ends");
    }

    #[tokio::test]
    async fn a_head_beyond_the_limit_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (_stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener.into(), 4, service_fn(echo), stopped));
        let stream = TcpStream::connect(address).await.expect("it listens");
        let answer = ask(stream, &format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(MOST_HEAD))).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        server.abort();
    }
}
