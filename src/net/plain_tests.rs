//! Plain requests get the answers that hyper would give, and what is not plain gets hyper's.

use std::{net::SocketAddr, time::Duration};

use arc_swap::ArcSwap;
use http::HeaderMap;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::{
    net::{
        Address, Connection, Drain, Room,
        connection::Raw,
        listener,
        server::{Handler, Server},
    },
    telemetry::{Door, Metrics},
};

/// Answers with what it was asked.
struct Echo;

#[derive(Default)]
struct Text(Option<UnsyncBoxBody<Bytes, std::io::Error>>);

impl Body for Text {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.as_ref().map_or_else(|| http_body::SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Handler for Echo {
    type Body = Text;

    async fn call(self: Arc<Self>, request: Request, _: Arc<Connection>, raw: Raw) -> Response<Text> {
        let Request { head, body, .. } = request;
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let text = format!("{} {} {} {:?};", head.method, head.uri, head.fields.len(), body);
        let pieces = |pieces: Vec<Result<&'static str, std::io::Error>>| {
            let frames = pieces.into_iter().map(|piece| piece.map(|text| http_body::Frame::data(Bytes::from(text))));
            BodyExt::boxed_unsync(StreamBody::new(futures_util::stream::iter(frames)))
        };
        let body = match head.uri.path() {
            "/none" => None,
            "/pieces" => Some(pieces(vec![Ok("one "), Ok(""), Ok("two;")])),
            "/breaks" => Some(pieces(vec![Ok("one "), Err(std::io::ErrorKind::Other.into())])),
            "/never" => std::future::pending().await,
            _ if raw.fragment => Some(pieces(vec![Ok("fragment;")])),
            _ => Some(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()),
        };
        let mut response = Response::new(Text(body));
        if head.uri.path() == "/none" {
            response.status = StatusCode::NO_CONTENT;
        }
        response
    }
}

struct Served {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    drain: Drain,
}

fn served() -> Served {
    let listener = listener::bind(&"127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
    let Address::Tcp(address) = listener.address().unwrap() else { unreachable!() };
    let (metrics, drain) = (Arc::new(Metrics::new()), Drain::new());
    let long = Duration::from_secs(20);
    let limits = Limits {
        max_connections: 9,
        max_streams: 2,
        max_headers: 100,
        max_header_bytes: 8192,
        header: long,
        idle: long,
    };
    let server = Server {
        door: Door::Proxy,
        handler: Arc::new(Echo),
        limits: Arc::new(ArcSwap::from_pointee(limits)),
        room: Room::new(1000, 1),
        tls: None,
        metrics: metrics.clone(),
        drain: drain.clone(),
    };
    tokio::spawn(server.run(listener));
    Served { address, metrics, drain }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// All that is said to `text` on one connection, whose client then waits for its end.
    async fn says(&self, text: &str) -> String {
        let mut client = self.connect().await;
        client.write_all(text.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        let _ = within(client.read_to_end(&mut said)).await;
        String::from_utf8(said).unwrap()
    }

    fn counted(&self, reason: &str) -> bool {
        self.metrics.render().contains(&format!("tollgate_connection_errors_total{{reason=\"{reason}\"}} 1"))
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future).await.expect("in time")
}

async fn read_until(client: &mut TcpStream, end: &str) -> String {
    let mut said = Vec::new();
    while !said.ends_with(end.as_bytes()) {
        said.push(within(client.read_u8()).await.expect("an answer"));
    }
    String::from_utf8(said).unwrap()
}

/// An answer without its date, as lines.
fn undated(said: &str) -> String {
    said.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect::<String>().replace("\r\n", "\n")
}

#[tokio::test]
async fn every_kind_of_answer_is_written() {
    let server = served();
    for (request, expected) in [
        (
            "GET /a?b HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n",
            "HTTP/1.1 200 OK\ncontent-length: 15\nconnection: close\n\nGET /a?b 2 b\"\";",
        ),
        (
            "DELETE /a HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\ncontent-length: 16\nconnection: close\n\nDELETE /a 2 b\"\";",
        ),
        ("GET /none HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 204 No Content\nconnection: close\n\n"),
        (
            "GET /pieces HTTP/1.1\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\ntransfer-encoding: chunked\nconnection: close\n\n4\none \n4\ntwo;\n0\n\n",
        ),
        ("HEAD /pieces HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\nconnection: close\n\n"),
    ] {
        let said = server.says(request).await;
        assert!(said.contains("\r\ndate: ") && said.contains(" GMT\r\n"), "{said}");
        assert_eq!(undated(&said), expected, "{request}");
    }
}

#[tokio::test]
async fn requests_come_one_after_the_other_in_one_piece_and_in_crumbs() {
    let server = served();
    let all = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /pieces HTTP/1.1\r\n\r\n\
               POST /3 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /4 HTTP/1.1\r\nConnection: close\r\n\r\n";
    let mut client = server.connect().await;
    client.set_nodelay(true).unwrap();
    for crumb in all.as_bytes().chunks(3) {
        client.write_all(crumb).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut crumbs = String::new();
    within(client.read_to_string(&mut crumbs)).await.unwrap();
    for said in [server.says(all).await, crumbs] {
        assert_eq!(said.matches("HTTP/1.1 200 OK\r\n").count(), 5, "{said}");
        let places = ["GET /1 1 ", "GET /2 1 ", "two;", "POST /3 1 b\"abc\"", "GET /4 1 "].map(|text| said.find(text));
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{said}");
    }
}

#[tokio::test]
async fn what_is_not_plain_goes_to_hyper() {
    let server = served();
    for (request, expected) in [
        ("GET /a#b HTTP/1.1\r\nConnection: close\r\n\r\n", "fragment;"),
        ("GET http://a/a HTTP/1.1\r\nConnection: close\r\n\r\n", "GET http://a/a 1 "),
        ("GET /a HTTP/1.0\r\n\r\n", "GET /a 0 "),
        ("POST /a HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "b\"a\""),
        (
            "POST /a HTTP/1.1\r\nConnection: close\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\na",
            " 100 Continue",
        ),
        ("GET /a HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 400 "),
        ("GET /a HTTP/1.1\r\nContent-Length : 0\r\n\r\n", "HTTP/1.1 400 "),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 400 "),
        ("GET /a HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 400 "),
        ("GET /a HTTP/1.1\r\nA\r\n\r\n", "HTTP/1.1 400 "),
        ("GET  /a HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        ("\u{16}\u{3}\u{1}\r\n\r\n", "HTTP/1.1 400 "),
    ] {
        let first = "GET /first HTTP/1.1\r\n\r\n";
        for request in [request.to_owned(), format!("{first}{request}")] {
            let said = server.says(&request).await;
            assert!(said.contains(expected), "{request}\n{said}");
            assert_eq!(said.contains("/first"), request.starts_with(first), "{said}");
        }
    }
    let large = format!("GET /a HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(20_000));
    assert!(server.says(&large).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET /a HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101));
    assert!(server.says(&many).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_the_connection_without_its_end() {
    let server = served();
    let said = server.says("GET /breaks HTTP/1.1\r\n\r\nGET /a HTTP/1.1\r\n\r\n").await;
    assert!(said.ends_with("\r\n\r\n4\r\none \r\n"), "{said}");
}

#[tokio::test]
async fn who_goes_away_is_noticed_and_counted_if_it_asked() {
    let server = served();
    drop(server.connect().await);
    let mut idle = server.connect().await;
    idle.write_all(b"GET /a HTTP/1.1\r\n\r\n").await.unwrap();
    read_until(&mut idle, ";").await;
    drop(idle);
    let mut asking = server.connect().await;
    asking.write_all(b"GET /never HTTP/1.1\r\n\r\n").await.unwrap();
    drop(asking);
    let counted = async {
        while !server.counted("reset") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(counted).await;
}

#[tokio::test]
async fn a_draining_server_says_that_an_answer_is_the_last() {
    let server = served();
    let mut client = server.connect().await;
    client.write_all(b"GET /a HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(!read_until(&mut client, ";").await.contains("connection: close"));
    server.drain.enter(crate::net::drain::Phase::Draining);
    client.write_all(b"GET /a HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(read_until(&mut client, ";").await.contains("connection: close\r\n"));
    assert_eq!(within(client.read(&mut [0; 8])).await.unwrap(), 0);
}

#[test]
fn a_plain_request_is_what_hyper_would_have_made_of_it() {
    let text = Bytes::from_static(b"GET /a%20b?c=/d HTTP/1.1\r\nHost:  a \r\nX-A:\r\nx-a: \xff\r\n\r\nGET");
    for end in 1..text.len() - 3 {
        assert!(matches!(parse(&text.slice(..end), &WIDE), Head::Partial), "cut at {end}");
    }
    let Head::Plain { request, last, len } = parse(&text, &WIDE) else { panic!("it is plain") };
    let head = request.head;
    assert_eq!((head.method, head.uri.to_string(), last), (Method::GET, "/a%20b?c=/d".into(), false));
    let fields: Vec<_> = head.fields.iter().collect();
    assert_eq!(fields, [(&b"host"[..], &b"a"[..]), (b"x-a", b""), (b"x-a", b"\xff")]);
    assert_eq!(&text[len..], b"GET");
}

/// What hyper makes of `text`, whose sender says no more; none: it refuses it, or waits for more.
fn hypers(text: &str) -> Option<(Method, Uri, HeaderMap, bool)> {
    let seen = Arc::new(parking_lot::Mutex::new(None));
    let noted = seen.clone();
    let serve = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (head, body) = request.into_parts();
        noted.lock().get_or_insert((head.method, head.uri, head.headers, body.is_end_stream()));
        async { Ok::<_, std::convert::Infallible>(http::Response::new(Text::default())) }
    });
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        client.write_all(text.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let connection = hyper::server::conn::http1::Builder::new();
        let _ = connection.serve_connection(hyper_util::rt::TokioIo::new(server), serve).await;
    });
    seen.lock().take()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    /// Whatever is answered here, hyper would have read the same: method, target, fields, and that there is no body.
    #[test]
    fn what_is_plain_is_the_same_to_hyper(
        method in "(GET|POST|HEAD|get|G T|CONNECT|PRI)",
        target in "(/|/a|/a#b|/%2e\\.|\\*|http://a/|//a|/\u{e9}|/a b|/[ -~]{0,6})",
        version in "HTTP/(1\\.1|1\\.0|2\\.0|1\\.1 )",
        fields in proptest::collection::vec(
            "(Host: a|Content-Length: ?(0|00|1|\\+0|0, 0|)|Transfer-Encoding: (chunked|gzip)|Connection: (close|TE, x)|\
             Expect: 100-continue|Upgrade: h2c|TE: trailers|A ?: ?[ -~\t]{0,5}| a: b|A\u{1}: b|[ -~]{1,6})",
            0..5,
        ),
        end in "(\r\n|\n|\r)",
        rest in "(|GET / HTTP/1.1\r\n\r\n|abc)",
    ) {
        let lines: String = fields.iter().map(|field| format!("{field}{end}")).collect();
        let text = format!("{method} {target} {version}{end}{lines}{end}{rest}");
        if let Head::Plain { request, len, .. } = parse(&Bytes::from(text.clone()), &WIDE) {
            let message::Head { method, uri, fields, .. } = request.head;
            let fields = fields.to_map().expect("what the parser takes, `http` takes");
            let hypers = hypers(&text);
            proptest::prop_assert_eq!(Some((method, uri, fields, true)), hypers, "{:?}", text);
            proptest::prop_assert_eq!(&text[len..], rest);
        }
    }
}

const WIDE: Limits = Limits {
    max_connections: 1,
    max_streams: 1,
    max_headers: 100,
    max_header_bytes: 8192,
    header: Duration::ZERO,
    idle: Duration::ZERO,
};
