use std::task::Poll;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::{
    chunks::Chunks,
    download::{Framing, Piece},
    *,
};
use crate::{
    net::Fields,
    proxy::{
        body::RequestBody,
        connect::{Sender, Tls},
        pool::{Key, Pool},
    },
    store::UpstreamScheme,
};

fn pool() -> Arc<Pool> {
    let key = Key { scheme: UpstreamScheme::Http, host: "upstream.test".into(), port: 80 };
    Arc::new(Pool::new(key, Tls::shared().unwrap()))
}

fn connection() -> (Connection, DuplexStream) {
    let (ours, theirs) = duplex(1 << 20);
    (Connection::new(ours), theirs)
}

fn request(method: Method) -> Upload {
    upload(&method, &Fields::default(), false)
}

fn upload(method: &Method, fields: &Fields, says_length: bool) -> Upload {
    let host = b"upstream.test";
    let asked = Asked { method, target: "/a?b", host, fields, connection: Some(b"TE"), says_length };
    Upload::new(asked, RequestBody::default())
}

/// Status, body, and whether the connection was given back.
async fn exchange(method: Method, answer: &[u8]) -> Result<(u16, Vec<u8>, bool), String> {
    let ((connection, mut theirs), pool) = (connection(), pool());
    theirs.write_all(answer).await.unwrap();
    let open = (!answer.ends_with(b"EOF")).then_some(theirs);
    let answered = connection.exchange(&mut request(method), &pool).await.map_err(|error| error.to_string())?;
    let status = answered.status.as_u16();
    let body = answered.body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    drop(open);
    let kept = pool.idle() > 0;
    Ok((status, body.to_vec(), kept))
}

fn parse(text: &str, to_head: bool) -> Result<Option<Head>, Error> {
    head::parse(&Bytes::copy_from_slice(text.replace('\n', "\r\n").as_bytes()), to_head)
}

#[test]
fn where_a_body_ends_and_whether_the_connection_goes_on() {
    for (text, expected) in [
        ("HTTP/1.1 200 OK\nContent-Length: 3\n\n", (Some(3), true)),
        ("HTTP/1.1 200 OK\nContent-Length: 3\nContent-Length: 3\n\n", (Some(3), true)),
        ("HTTP/1.1 200 OK\nContent-Length: 3\nConnection: x, Close\n\n", (Some(3), false)),
        ("HTTP/1.0 200 OK\nContent-Length: 3\n\n", (Some(3), false)),
        ("HTTP/1.0 200 OK\nContent-Length: 3\nConnection: keep-alive\n\n", (Some(3), true)),
        ("HTTP/1.1 200 OK\n\n", (None, false)),
        ("HTTP/1.1 204 No Content\n\n", (Some(0), true)),
        ("HTTP/1.1 304 Not Modified\nContent-Length: 3\n\n", (Some(0), true)),
        ("HTTP/1.1 101 Switching Protocols\n\n", (Some(0), false)),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: gzip\n\n", (None, false)),
    ] {
        let head = parse(text, false).unwrap().expect(text);
        let size = if let Framing::Sized(size) = head.framing { Some(size) } else { None };
        assert_eq!((size, head.persists), expected, "{text}");
    }
    for coding in ["chunked", "Chunked", "gzip, chunked"] {
        let head = parse(&format!("HTTP/1.1 200 OK\nTransfer-Encoding: {coding}\n\n"), false).unwrap().unwrap();
        assert!(matches!(head.framing, Framing::Chunked(_)) && head.persists, "{coding}");
    }
    let head = parse("HTTP/1.1 200 OK\nContent-Length: 3\n\n", true).unwrap().unwrap();
    assert!(matches!(head.framing, Framing::Sized(0)) && head.persists, "the answer to a HEAD");
    assert_eq!(head.response.fields.get("content-length"), Some(&b"3"[..]));
}

#[test]
fn a_head_that_two_would_read_differently_is_refused() {
    for text in [
        "HTTP/1.1 200 OK\nContent-Length: 3\nContent-Length: 4\n\n",
        "HTTP/1.1 200 OK\nContent-Length: 3, 3\n\n",
        "HTTP/1.1 200 OK\nContent-Length: +3\n\n",
        "HTTP/1.1 200 OK\nContent-Length: 0x3\n\n",
        "HTTP/1.1 200 OK\nContent-Length: \n\n",
        "HTTP/1.1 200 OK\nContent-Length: 18446744073709551616\n\n",
        "HTTP/1.1 200 OK\nContent-Length: 3\nTransfer-Encoding: chunked\n\n",
        "HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n\n",
        "HTTP/1.1 200 OK\nContent-Length : 3\n\n",
        "HTTP/1.1 200 OK\nA: b\n c\n\n",
        "HTTP/1.1 200 OK\nA\n\n",
        "HTTP/1.1 200 OK\nA: \u{1}\n\n",
        "HTTP/1.1 2000 OK\n\n",
        "HTTP/1.1 099 OK\n\n",
        "HTTP/2 200 OK\n\n",
        "SSH-2.0\n\n",
    ] {
        assert!(matches!(parse(text, false), Err(Error::Malformed(_))), "{text}");
    }
    let many = format!("HTTP/1.1 200 OK\n{}\n", "A: b\n".repeat(101));
    assert!(matches!(parse(&many, false), Err(Error::Malformed("it has too many fields"))));
}

#[tokio::test]
async fn answers_of_every_kind_are_read_and_their_connections_kept() {
    for (method, answer, expected) in [
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, "ok", true)),
        (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", (200, "", true)),
        (Method::POST, "HTTP/1.1 204 No Content\r\n\r\n", (204, "", true)),
        (Method::GET, "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", (204, "", true)),
        (
            Method::GET,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
            (200, "abcd", true),
        ),
        // What nobody asked for is no answer to what is asked next.
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", (200, "ok", false)),
        (Method::GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nH", (200, "", false)),
        (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, "", false)),
        (Method::GET, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", (200, "ok", false)),
        (Method::GET, "HTTP/1.1 200 OK\r\n\r\nuntil the EOF", (200, "until the EOF", false)),
    ] {
        let (status, body, kept) = exchange(method, answer.as_bytes()).await.unwrap();
        assert_eq!((status, str::from_utf8(&body).unwrap(), kept), expected, "{answer}");
    }
}

#[tokio::test]
async fn what_breaks_off_is_an_error() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\nEOF",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n22\r\nEOF",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nEOF",
        "HTTP/1.1 200 EOF",
    ] {
        assert_eq!(exchange(Method::GET, answer.as_bytes()).await.unwrap_err(), "the upstream's answer broke off");
    }
}

#[tokio::test]
async fn only_what_may_be_sent_twice_is_begun_anew() {
    for (method, may) in [(Method::GET, true), (Method::HEAD, true), (Method::POST, false), (Method::DELETE, false)] {
        let ((connection, mut theirs), pool) = (connection(), pool());
        let mut upload = request(method.clone());
        let upstream = async {
            let _request = theirs.read_u8().await.unwrap();
            drop(theirs);
        };
        let (answer, ()) = tokio::join!(connection.exchange(&mut upload, &pool), upstream);
        assert!(matches!(answer, Err(Error::Closed(_))), "{method}");
        assert_eq!(upload.rewind(), may, "{method}");
    }
    let ((connection, theirs), pool) = (connection(), pool());
    drop(theirs);
    let mut upload = request(Method::POST);
    assert!(matches!(connection.exchange(&mut upload, &pool).await, Err(Error::Closed(_))));
    assert!(upload.rewind(), "not a byte was taken");
}

#[tokio::test]
async fn a_head_comes_whole_however_small_its_crumbs() {
    let (mut ours, mut theirs) = duplex(1);
    let text = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\nok";
    let mut read = Bytes::new();
    let reading = poll_fn(|cx| poll_head(&mut ours, &mut read, false, cx));
    let writing = theirs.write_all(&text[..text.len() - 2]);
    let (head, wrote) = tokio::join!(reading, writing);
    wrote.unwrap();
    assert_eq!(head.unwrap().response.status, StatusCode::OK);
    assert!(read.is_empty());
}

#[tokio::test]
async fn a_head_without_an_end_is_refused() {
    let (mut ours, mut theirs) = duplex(1 << 20);
    theirs.write_all(format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(LARGEST_HEAD)).as_bytes()).await.unwrap();
    let mut read = Bytes::new();
    let head = poll_fn(|cx| poll_head(&mut ours, &mut read, false, cx)).await;
    assert!(matches!(head, Err(Error::Malformed("its head is too large"))));
}

#[tokio::test]
async fn an_idle_upstream_that_speaks_or_closes_is_not_used_again() {
    let pool = pool();
    let (quiet, _theirs) = connection();
    let (speaking, mut theirs) = connection();
    theirs.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
    let (closed, gone) = connection();
    drop(gone);
    [quiet, speaking, closed].into_iter().for_each(|connection| pool.put(connection));
    assert!(matches!(pool.reuse(false), Some(Sender::Http1(_))), "the quiet one, first in and last out");
    assert!(pool.reuse(false).is_none());
}

#[test]
fn a_request_says_once_where_its_body_ends() {
    let lines = [("content-length", "7"), ("a", "b"), ("transfer-encoding", "chunked"), ("content-length", "7")];
    let field = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let mut sent = Sink(Vec::new());
    let mut upload = upload(&Method::GET, &lines.into_iter().map(field).collect(), true);
    upload.advance(&mut sent, &mut Context::from_waker(Waker::noop())).unwrap();
    assert!(upload.is_whole());
    assert_eq!(
        str::from_utf8(&sent.0).unwrap(),
        "GET /a?b HTTP/1.1\r\nhost: upstream.test\r\na: b\r\nconnection: TE\r\ncontent-length: 0\r\n\r\n"
    );
}

/// Takes what is written, a few bytes at a time.
struct Sink(Vec<u8>);

impl AsyncRead for Sink {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Sink {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let some = buf.len().min(7);
        self.0.extend_from_slice(&buf[..some]);
        Poll::Ready(Ok(some))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Data, and names of trailers.
type Unchunked = (Vec<u8>, Vec<String>);

/// A chunked body that comes in `pieces`; none: more is missing.
fn unchunk(pieces: &[&[u8]]) -> Result<Option<Unchunked>, Error> {
    let (mut chunks, mut read) = (Chunks::default(), Bytes::new());
    let (mut data, mut names) = (Vec::new(), Vec::new());
    for piece in pieces {
        append(&mut read, Bytes::copy_from_slice(piece));
        loop {
            match chunks.take(&mut read)? {
                Piece::Missing(_) => break,
                Piece::End => return Ok(Some((data, names))),
                Piece::Frame(frame) => match frame.into_data() {
                    Ok(more) => data.extend_from_slice(&more),
                    Err(frame) => names.extend(frame.trailers_ref().unwrap().keys().map(ToString::to_string)),
                },
            }
        }
    }
    Ok(None)
}

#[test]
fn chunks_are_read_wherever_they_are_cut() {
    let text = b"5\r\nhello\r\n6 ;a=\"b\"\r\n world\r\n0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\n";
    let whole = Some((b"hello world".to_vec(), vec!["x-sum".to_owned(), "x-b".to_owned()]));
    for at in 0..text.len() {
        let (a, b) = text.split_at(at);
        assert_eq!(unchunk(&[a, b]).unwrap(), whole, "cut at {at}");
        assert_eq!(unchunk(&[a]).unwrap(), None, "ended at {at}");
    }
    let crumbs: Vec<_> = text.chunks(1).collect();
    assert_eq!(unchunk(&crumbs).unwrap(), whole);
}

#[test]
fn chunks_that_two_would_read_differently_are_refused() {
    for text in [
        "g\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        "\r\n",
        " \r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\rX0\r\n\r\n",
        "10000000000000000\r\n",
        "0\r\nA b\r\n\r\n",
        "0\r\nA: b\r\n c\r\n\r\n",
    ] {
        assert!(matches!(unchunk(&[text.as_bytes()]), Err(Error::Malformed(_))), "{text:?}");
    }
    let long = format!("5;{}", "a".repeat(4096));
    assert!(matches!(unchunk(&[long.as_bytes()]), Err(Error::Malformed("a chunk's size"))));
    let long = format!("0\r\nA: {}", "a".repeat(16 << 10));
    assert!(matches!(unchunk(&[long.as_bytes()]), Err(Error::Malformed("its trailers"))));
}

proptest! {
    /// However the bytes of an upstream come: nothing panics, and where they are cut makes no difference.
    #[test]
    fn any_bytes_are_read_alike_in_one_piece_and_in_crumbs(text in "[0-9a-f;\r\nA: \u{0}-\u{ff}]{0,64}") {
        let crumbs: Vec<_> = text.as_bytes().chunks(1).collect();
        let (whole, pieces) = (unchunk(&[text.as_bytes()]), unchunk(&crumbs));
        prop_assert_eq!(whole.map_err(|error| error.to_string()), pieces.map_err(|error| error.to_string()));
        let head = format!("HTTP/1.1 200 OK\r\n{text}\r\n\r\n");
        let _ = head::parse(&Bytes::from(head), false);
    }
}
