//! Upstreams that record. [`Backend`] speaks HTTP/1.1 over raw TCP and keeps every byte it was sent;
//! what it answers is asked for by the request's `x-script` field. [`H2Backend`] speaks HTTP/2 by prior
//! knowledge and echoes bodies with trailers.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{runtime, websocket_accept};

type Raw = Arc<Mutex<Vec<u8>>>;

/// An HTTP/1.1 upstream.
pub(crate) struct Backend {
    port: u16,
    connections: Arc<Mutex<Vec<Raw>>>,
}

impl Backend {
    /// An upstream on a free port; `name` is in its answers.
    pub(crate) fn start(name: &'static str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&connections);
        runtime().spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let raw = Raw::default();
                all.lock().push(Arc::clone(&raw));
                tokio::spawn(Conn { stream, buffer: Vec::new(), raw, name }.serve());
            }
        });
        Self { port, connections }
    }

    /// `http://…` of it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.authority())
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether any byte sequence that came in holds `text`.
    pub(crate) fn saw(&self, text: &str) -> bool {
        let all = self.connections.lock().clone();
        all.iter().any(|raw| memchr::memmem::find(&raw.lock(), text.as_bytes()).is_some())
    }

    /// How many times `text` came in.
    pub(crate) fn times(&self, text: &str) -> usize {
        let all = self.connections.lock().clone();
        all.iter().map(|raw| memchr::memmem::find_iter(&raw.lock(), text.as_bytes()).count()).sum()
    }

    /// How many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        self.connections.lock().len()
    }
}

struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
    raw: Raw,
    name: &'static str,
}

struct Head {
    text: String,
    script: String,
    length: usize,
    chunked: bool,
}

impl Conn {
    async fn serve(mut self) {
        while let Some(head) = self.head().await {
            if self.answer(&head).await.is_none() {
                return;
            }
        }
    }

    async fn answer(&mut self, head: &Head) -> Option<()> {
        let script = head.script.clone();
        let (verb, argument) = script.split_once(':').unwrap_or((&script, ""));
        match verb {
            "reset" => None,
            "garbage" => self.send(b"this is not HTTP\r\n\r\n").await.and(None),
            "split" => self.send(b"HTTP/1.1 200 OK\r\nx-a: 1\rx-evil: 2\r\ncontent-length: 0\r\n\r\n").await,
            "switch" => {
                self.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: other\r\nconnection: upgrade\r\n\r\n").await
            }
            "odd" => {
                let reply: &[u8] = match argument {
                    "204" => b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello",
                    "head" => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                    _ => b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                };
                self.send(reply).await
            }
            "echo" => self.echo(head, argument).await,
            "events" => self.events(argument.parse().unwrap_or(3)).await,
            "upgrade" => self.upgrade(head).await,
            "big" => self.big(argument.parse().unwrap_or(1)).await,
            _ => self.scripted(head, verb, argument).await,
        }
    }

    /// The common answers: the body is read first.
    async fn scripted(&mut self, head: &Head, verb: &str, argument: &str) -> Option<()> {
        let mut body = Vec::new();
        let mut trailers = String::new();
        self.body(head, |chunk| body.extend_from_slice(chunk), &mut trailers).await?;
        if verb == "slow" {
            tokio::time::sleep(Duration::from_millis(argument.parse().unwrap_or(1000))).await;
        }
        let told = json!({
            "backend": self.name, "head": head.text, "body_len": body.len(), "trailers": trailers,
            "body": String::from_utf8_lossy(&body[..body.len().min(4096)]),
        })
        .to_string();
        let length = told.len();
        let reply = match verb {
            "status" => format!("HTTP/1.1 {argument} Scripted\r\ncontent-length: {length}\r\n\r\n{told}"),
            "trailers" => format!(
                "HTTP/1.1 200 OK\r\ntrailer: x-checksum\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{told}\r\n0\r\nx-checksum: 42\r\n\r\n"
            ),
            "hop" => format!(
                "HTTP/1.1 200 OK\r\nconnection: x-secret-hop\r\nx-secret-hop: 1\r\nkeep-alive: timeout=9\r\n\
                 proxy-authenticate: Basic\r\nx-kept: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
                 content-length: {length}\r\n\r\n{told}"
            ),
            "cors" => format!(
                "HTTP/1.1 200 OK\r\naccess-control-allow-origin: https://upstream.example\r\n\
                 access-control-allow-credentials: true\r\ncontent-length: {length}\r\n\r\n{told}"
            ),
            // The request's body, as what the argument says.
            "reply" => {
                let fields = ["x-tokens", "content-encoding"].map(|name| {
                    fields(&head.text, name).map(|value| format!("{name}: {value}\r\n")).collect::<String>()
                });
                let (length, body) = (body.len(), String::from_utf8_lossy(&body));
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: {argument}\r\n{}content-length: {length}\r\n\r\n{body}",
                    fields.concat()
                )
            }
            "head" => "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\nx-kept: 1\r\n\r\n".to_owned(),
            "nothing" => "HTTP/1.1 204 No Content\r\nx-kept: 1\r\n\r\n".to_owned(),
            "until-close" => format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{told}"),
            _ => format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{told}"),
        };
        let reply = if head.text.starts_with("HEAD ") { before_body(&reply) } else { reply.as_str() };
        self.send(reply.as_bytes()).await?;
        (verb != "until-close").then_some(())
    }

    /// So many MiB.
    async fn big(&mut self, pieces: usize) -> Option<()> {
        self.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", pieces << 20).as_bytes()).await?;
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..pieces {
            self.send(&piece).await?;
        }
        Some(())
    }

    /// Sends every piece of the body back as it comes, before the request has ended, as what `kind` says.
    async fn echo(&mut self, head: &Head, kind: &str) -> Option<()> {
        let kind = if kind.is_empty() { String::new() } else { format!("content-type: {kind}\r\n") };
        self.send(format!("HTTP/1.1 200 OK\r\n{kind}transfer-encoding: chunked\r\n\r\n").as_bytes()).await?;
        let mut left = head.length;
        loop {
            let piece = if head.chunked { self.chunk().await? } else { self.piece(&mut left).await? };
            if piece.is_empty() {
                break;
            }
            let mut out = format!("{:x}\r\n", piece.len()).into_bytes();
            out.extend_from_slice(&piece);
            out.extend_from_slice(b"\r\n");
            self.send(&out).await?;
        }
        if head.chunked {
            self.trailers().await?;
        }
        self.send(b"0\r\n\r\n").await
    }

    async fn events(&mut self, count: u32) -> Option<()> {
        self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await?;
        for n in 0..count {
            let event = format!("data: {n}\n\n");
            self.send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.send(b"0\r\n\r\n").await
    }

    /// 101, then every byte back as it comes.
    async fn upgrade(&mut self, head: &Head) -> Option<()> {
        let key = field(&head.text, "sec-websocket-key").unwrap_or_default();
        let accept = websocket_accept(key);
        self.send(
            format!("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n")
                .as_bytes(),
        )
        .await?;
        loop {
            let out = std::mem::take(&mut self.buffer);
            if !out.is_empty() {
                // A WebSocket server must not mask (RFC 6455 section 5.1): unmask the short frames of the test.
                self.send(&unmasked(&out)).await?;
            }
            self.more().await?;
        }
    }

    async fn head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let text = String::from_utf8_lossy(&self.buffer.drain(..end).collect::<Vec<_>>()).into_owned();
        let chunked = field(&text, "transfer-encoding").is_some_and(|v| v.contains("chunked"));
        let length = field(&text, "content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        let script = field(&text, "x-script").unwrap_or_default().to_owned();
        Some(Head { text, script, length, chunked })
    }

    async fn body(&mut self, head: &Head, mut take: impl FnMut(&[u8]), trailers: &mut String) -> Option<()> {
        if !head.chunked {
            let mut left = head.length;
            while left > 0 {
                take(&self.piece(&mut left).await?);
            }
            return Some(());
        }
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                *trailers = self.trailers().await?;
                return Some(());
            }
            take(&chunk);
        }
    }

    /// Some of the `left` bytes of a body with a length.
    async fn piece(&mut self, left: &mut usize) -> Option<Vec<u8>> {
        if *left > 0 && self.buffer.is_empty() {
            self.more().await?;
        }
        let n = self.buffer.len().min(*left);
        *left -= n;
        Some(self.buffer.drain(..n).collect())
    }

    /// One whole chunk; empty for the last.
    async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line().await?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(Vec::new());
        }
        while self.buffer.len() < size + 2 {
            self.more().await?;
        }
        let chunk = self.buffer.drain(..size).collect();
        self.buffer.drain(..2);
        Some(chunk)
    }

    /// Trailer lines after the last chunk.
    async fn trailers(&mut self) -> Option<String> {
        let mut all = String::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(all);
            }
            all.push_str(&line);
            all.push('\n');
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Some(line);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Option<()> {
        let before = self.buffer.len();
        let n = self.stream.read_buf(&mut self.buffer).await.ok()?;
        if n == 0 {
            return None;
        }
        let mut raw = self.raw.lock();
        if raw.len() < RECORDED {
            raw.extend_from_slice(&self.buffer[before..]);
        }
        Some(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).await.ok()
    }
}

/// A header field's value in the text of a head.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    fields(head, name).next()
}

fn fields<'a>(head: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let named = move |(n, v): (&str, &'a str)| n.eq_ignore_ascii_case(name).then_some(v.trim());
    head.lines().filter_map(move |line| line.split_once(':').and_then(named))
}

fn before_body(reply: &str) -> &str {
    reply.find("\r\n\r\n").map_or(reply, |at| &reply[..at + 4])
}

/// Short masked frames (RFC 6455 section 5.2) turned into unmasked ones; anything else as it is.
fn unmasked(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let [first, second, tail @ ..] = rest {
        let length = usize::from(second & 0x7f);
        if second & 0x80 == 0 || length > 125 || tail.len() < 4 + length {
            return bytes.to_vec();
        }
        out.extend_from_slice(&[*first, second & 0x7f]);
        let (mask, data) = tail.split_at(4);
        out.extend(data[..length].iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        rest = &data[length..];
    }
    out
}

/// Bytes kept of one connection.
const RECORDED: usize = 4 << 20;

/// An HTTP/2 upstream without TLS: echoes body and headers, ends with gRPC's trailers.
pub(crate) struct H2Backend {
    port: u16,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

impl H2Backend {
    /// An upstream on a free port.
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        runtime().spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let all = Arc::clone(&all);
                let service = hyper::service::service_fn(move |request| echo_h2(request, Arc::clone(&all)));
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { port, seen }
    }

    /// `h2c://…` of it.
    pub(crate) fn url(&self) -> String {
        format!("h2c://127.0.0.1:{}", self.port)
    }

    /// Whether a request brought a header field with this value.
    pub(crate) fn saw(&self, text: &str) -> bool {
        self.seen.lock().iter().any(|head| head.values().any(|v| v.to_str().is_ok_and(|v| v.contains(text))))
    }
}

type Echo = Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>;

async fn echo_h2(request: Request<Incoming>, seen: Arc<Mutex<Vec<HeaderMap>>>) -> Result<Echo, hyper::Error> {
    let (head, mut body) = request.into_parts();
    let mut record = head.headers.clone();
    record.insert("x-path", head.uri.path().parse().unwrap());
    seen.lock().push(record);
    let (sender, frames) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(4);
    tokio::spawn(async move {
        let mut sent_checksum = String::new();
        while let Some(Ok(frame)) = body.frame().await {
            match frame.into_data() {
                Ok(data) => _ = sender.send(Ok(Frame::data(data))).await,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    sent_checksum = trailers.keys().map(ToString::to_string).collect::<Vec<_>>().join(",");
                }
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("x-request-trailers", sent_checksum.parse().unwrap());
        _ = sender.send(Ok(Frame::trailers(trailers))).await;
    });
    let frames =
        futures_util::stream::unfold(frames, |mut from| async { from.recv().await.map(|frame| (frame, from)) });
    let kind = head.headers.get("content-type").cloned();
    let mut response = Response::new(StreamBody::new(Box::pin(frames)).boxed());
    if let Some(kind) = kind {
        response.headers_mut().insert("content-type", kind);
    }
    Ok(response)
}
