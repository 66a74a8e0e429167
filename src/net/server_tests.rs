//! What connections may do, and for how long, with a handler that has no proxy behind it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::net::{Address, listener};

/// Answers `/long` with much, `/quiet` with a body that says nothing for a while, all else with the request's body
/// unread, which is then read by a task of its own.
struct Scripted;

#[derive(Default)]
struct Boxed(Option<UnsyncBoxBody<Bytes, Infallible>>);

impl Body for Boxed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Handler for Scripted {
    type Body = Boxed;

    async fn call(self: Arc<Self>, request: Request, connection: Arc<Connection>, _raw: Raw) -> Response<Boxed> {
        let body = match request.head.uri.path() {
            "/long" => Full::new(Bytes::from(vec![b'x'; 1 << 20])).boxed_unsync(),
            "/quiet" => {
                let end = futures_util::stream::once(async {
                    sleep(LONG).await;
                    Ok(Frame::data(Bytes::from_static(b"done")))
                });
                BodyExt::boxed_unsync(StreamBody::new(end))
            }
            _ => {
                tokio::spawn(async move {
                    let _ = request.body.collect().await;
                    drop(connection);
                });
                Full::new(Bytes::from_static(b"early")).boxed_unsync()
            }
        };
        Response::new(Boxed(Some(body)))
    }
}

struct Served {
    address: std::net::SocketAddr,
    metrics: Arc<Metrics>,
}

fn served(header: Duration, idle: Duration) -> Served {
    let listener = listener::bind(&"127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
    let Address::Tcp(address) = listener.address().unwrap() else { unreachable!() };
    let metrics = Arc::new(Metrics::new());
    let server = Server {
        door: Door::Proxy,
        handler: Arc::new(Scripted),
        limits: Arc::new(ArcSwap::from_pointee(limits(header, idle))),
        room: Room::new(1000, 1),
        tls: None,
        metrics: metrics.clone(),
        drain: Drain::new(),
    };
    tokio::spawn(server.run(listener));
    Served { address, metrics }
}

fn limits(header: Duration, idle: Duration) -> Limits {
    Limits { max_connections: 4, max_streams: 2, max_headers: 100, max_header_bytes: 8192, header, idle }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn counted(&self, reason: &str) -> bool {
        let line = format!("tollgate_connection_errors_total{{reason=\"{reason}\"}} 1");
        self.metrics.render().contains(&line)
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

#[tokio::test]
async fn an_http2_client_without_a_window_is_cut() {
    let server = served(SHORT, SHORT);
    let client = h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(server.connect().await);
    let (client, connection) = client.await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let (response, _) = client.send_request(http::Request::get("http://a/long").body(()).unwrap(), true).unwrap();
    // Kept, for dropping it gives the stream up.
    let _response = within(response).await.unwrap();
    let _ = within(connection).await;
    assert!(server.counted("body_timeout"), "{}", server.metrics.render());
}

#[tokio::test]
async fn a_quiet_answer_lives_on() {
    let server = served(SHORT, SHORT);
    let (client, connection) = h2::client::handshake(server.connect().await).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let (response, _) = client.send_request(http::Request::get("http://a/quiet").body(()).unwrap(), true).unwrap();
    let mut body = within(response).await.unwrap().into_body();
    assert_eq!(within(body.data()).await.unwrap().unwrap(), "done");
}

#[tokio::test]
async fn an_idle_http2_client_is_told_to_go_away() {
    let server = served(SHORT, SHORT * 2);
    let mut client = server.connect().await;
    // The preface and an empty SETTINGS frame.
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut farewells = 0;
    let mut head = [0; 9];
    while within(client.read_exact(&mut head)).await.is_ok() {
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        within(client.read_exact(&mut payload)).await.unwrap();
        farewells += usize::from(kind == GO_AWAY);
        if (kind, flags) == (PING, 0) {
            client.write_all(&[b"\0\0\x08\x06\x01\0\0\0\0", &payload[..]].concat()).await.unwrap();
        }
    }
    assert_eq!(farewells, 2, "the last word comes after a round trip (RFC 9113 section 6.8)");
    assert!(!server.counted("header_timeout") && !server.counted("idle_timeout"), "{}", server.metrics.render());
}

#[tokio::test]
async fn the_rest_of_an_upload_is_no_head() {
    let server = served(SHORT, Duration::from_secs(20));
    let mut client = server.connect().await;
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na").await.unwrap();
    read_until(&mut client, "early").await;
    for _ in 0..4 {
        client.write_all(b"#\n").await.unwrap();
        sleep(SHORT).await;
    }
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(read_until(&mut client, "early").await.starts_with("HTTP/1.1 200 "));
    client.write_all(b"GET").await.unwrap();
    assert_eq!(within(client.read(&mut [0; 8])).await.unwrap(), 0);
    assert!(server.counted("header_timeout"), "a head is one again");
}

#[tokio::test]
async fn what_follows_a_length_beside_chunked_is_not_read() {
    for lengths in
        ["Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 3"]
    {
        let server = served(Duration::from_secs(20), Duration::from_secs(20));
        let mut client = server.connect().await;
        let two = format!("POST / HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.write_all(two.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        // Closing on what was not read may reset.
        let _ = within(client.read_to_end(&mut said)).await;
        let said = String::from_utf8(said).unwrap();
        assert_eq!(said.matches("HTTP/1.1 200 ").count(), 1, "{said}");
        assert!(said.to_ascii_lowercase().contains("connection: close"), "{said}");
    }
}

/// Whether the server answers on this connection.
async fn answers(client: &mut TcpStream) -> bool {
    let asked = client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    // It is closed with a reset where it was closed with the request unread.
    asked.is_ok() && matches!(within(client.read(&mut [0; 512])).await, Ok(read) if read > 0)
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_and_places_come_back() {
    let server = served(Duration::from_secs(20), Duration::from_secs(20));
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut client = server.connect().await;
        assert!(answers(&mut client).await, "just inside");
        open.push(client);
    }
    assert!(!answers(&mut server.connect().await).await, "just outside");
    assert!(server.counted("too_many"), "{}", server.metrics.render());
    assert!(answers(&mut open[0]).await, "the others go on");
    open.pop();
    let again = async {
        while !answers(&mut server.connect().await).await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    within(again).await;
}

#[tokio::test]
async fn streams_beyond_the_cap_are_refused() {
    let server = served(Duration::from_secs(20), Duration::from_secs(20));
    let mut client = server.connect().await;
    let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in [1, 3, 5] {
        // :method GET, :scheme http, :path /quiet, :authority a
        let block = b"\x82\x86\x04\x06/quiet\x01\x01a";
        all.extend([0, 0, block.len() as u8, 1, 5, 0, 0, 0, stream]);
        all.extend(block);
    }
    client.write_all(&all).await.unwrap();
    let (mut statuses, mut refused) = (Vec::new(), Vec::new());
    while statuses.len() + refused.len() < 3 {
        let mut head = [0; 9];
        within(client.read_exact(&mut head)).await.unwrap();
        let [a, b, c, kind, _, _, _, _, stream] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        within(client.read_exact(&mut payload)).await.unwrap();
        match kind {
            1 => statuses.push(stream),
            3 => refused.push((stream, payload)),
            _ => {}
        }
    }
    statuses.sort_unstable();
    // REFUSED_STREAM: nothing was done, it may be sent again (RFC 9113 section 8.7).
    assert_eq!((statuses, refused), (vec![1, 3], vec![(5, vec![0, 0, 0, 7])]));
}

#[tokio::test]
async fn an_open_connection_costs_little() {
    let metrics = Arc::new(Metrics::new());
    let server = Server {
        door: Door::Proxy,
        handler: Arc::new(Scripted),
        limits: Arc::new(ArcSwap::from_pointee(limits(SHORT, SHORT))),
        room: Room::new(1000, 1),
        tls: None,
        metrics,
        drain: Drain::new(),
    };
    let stream = Stream::Unix(tokio::net::UnixStream::pair().unwrap().0);
    let seat = server.room.enter(0, 1).unwrap();
    let limits = server.limits.load_full();
    let serving = server.serve(stream, None, mpsc::channel(1).0, limits, seat);
    let size = std::mem::size_of_val(&serving);
    assert!(size <= MOST_OF_A_TASK, "{size} bytes for as long as a connection is open");
}

async fn read_until(client: &mut TcpStream, end: &str) -> String {
    let mut said = Vec::new();
    while !said.ends_with(end.as_bytes()) {
        said.push(within(client.read_u8()).await.expect("an answer"));
    }
    String::from_utf8(said).unwrap()
}

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_millis(400);
const MOST_OF_A_TASK: usize = 2048;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
