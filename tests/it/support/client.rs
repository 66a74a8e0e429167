//! Raw clients: HTTP/1.1 byte for byte, HTTP/2 by prior knowledge. Neither follows, retries or repairs.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{raw_h2, unique};

/// Which protocol a request goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    H1,
    H2,
}

/// A request as a test writes it. `{m}` in target and fields stands for the mark.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) host: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Found in what the upstream saw and in the access line, if the request got there.
    pub(crate) mark: String,
}

/// What came back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// 0: the connection or stream was closed without one.
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Statuses of 1xx answers before it.
    pub(crate) interim: Vec<u16>,
    /// Only the status is known (sent as raw frames).
    pub(crate) status_only: bool,
    /// What ended it early.
    pub(crate) error: Option<String>,
}

impl Request {
    /// A request with a fresh mark.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let mark = unique();
        Self {
            method: method.into(),
            target: target.replace("{m}", &mark),
            host: Some("api.example.com".into()),
            headers: vec![("x-mark".into(), mark.clone())],
            body: Vec::new(),
            trailers: Vec::new(),
            mark,
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: &str) -> Self {
        Self::new("POST", target).body("hello")
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.headers.push((name.into(), value.as_ref().replace("{m}", &self.mark)));
        self
    }

    pub(crate) fn bearer(self, token: impl AsRef<str>) -> Self {
        let value = format!("Bearer {}", token.as_ref());
        self.header("authorization", value)
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the body chunked, then this trailer.
    pub(crate) fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.into(), value.into()));
        self
    }

    /// What the upstream shall do: see `Backend`.
    pub(crate) fn script(self, script: &str) -> Self {
        self.header("x-script", script)
    }

    /// The bytes of HTTP/1.1.
    pub(crate) fn h1_bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if let Some(host) = &self.host {
            let _ = write!(text, "Host: {host}\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let names_length = self.headers.iter().any(|(n, _)| n == "content-length" || n == "transfer-encoding");
        let mut bytes = text.into_bytes();
        if !self.trailers.is_empty() {
            bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            bytes.extend_from_slice(format!("{:x}\r\n", self.body.len()).as_bytes());
            bytes.extend_from_slice(&self.body);
            bytes.extend_from_slice(b"\r\n0\r\n");
            for (name, value) in &self.trailers {
                bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
            return bytes;
        }
        if !self.body.is_empty() && !names_length {
            bytes.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

impl Answer {
    /// The first field of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// All fields of that name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, null if it is none.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The request head as the upstream told it, lower case.
    pub(crate) fn forwarded(&self) -> String {
        self.json()["head"].as_str().unwrap_or_default().to_ascii_lowercase()
    }

    /// A field of the forwarded request: all its values.
    pub(crate) fn forwarded_field(&self, name: &str) -> Vec<String> {
        let head = self.json()["head"].as_str().unwrap_or_default().to_owned();
        let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned()).collect()
    }

    fn failed(error: impl ToString) -> Self {
        Self { error: Some(error.to_string()), ..Self::default() }
    }
}

/// Sends one request to a port of 127.0.0.1 on a connection of its own.
pub(crate) async fn send(port: u16, via: Via, request: &Request) -> Answer {
    let sent = async {
        match via {
            Via::H1 => raw_h1(port, &request.h1_bytes(), &request.method).await,
            Via::H2 => send_h2(port, request).await,
        }
    };
    timeout(PATIENCE, sent).await.unwrap_or_else(|_| Answer::failed("no answer in time"))
}

/// Sends these bytes, reads one answer.
pub(crate) async fn raw_h1(port: u16, bytes: &[u8], method: &str) -> Answer {
    let Ok(mut client) = Client::connect(port).await else { return Answer::failed("connection refused") };
    // A gate that refuses early may close while we still write: what it answered counts.
    let write_error = client.write(bytes).await.err();
    let mut answer = client.read(method).await;
    answer.error = answer.error.or_else(|| write_error.map(|e| e.to_string()).filter(|_| answer.status == 0));
    answer
}

/// An HTTP/1.1 connection that is kept.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// One request and its answer.
    pub(crate) async fn call(&mut self, request: &Request) -> Answer {
        if let Err(error) = self.write(&request.h1_bytes()).await {
            return Answer::failed(error);
        }
        self.read(&request.method).await
    }

    /// Reads one whole answer.
    pub(crate) async fn read(&mut self, method: &str) -> Answer {
        match timeout(PATIENCE, self.read_answer(method)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer::failed(error),
            Err(_) => Answer::failed("no answer in time"),
        }
    }

    /// Reads an answer's head only; the rest stays to be read with `more`.
    pub(crate) async fn read_head(&mut self) -> std::io::Result<Answer> {
        let mut answer = Answer::default();
        loop {
            let end = self.find(b"\r\n\r\n").await? + 4;
            let head: Vec<u8> = self.buffer.drain(..end).collect();
            let text = String::from_utf8_lossy(&head).into_owned();
            let mut lines = text.lines();
            let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok()).unwrap_or(0);
            if (100..200).contains(&status) && status != 101 {
                answer.interim.push(status);
                continue;
            }
            answer.status = status;
            answer.headers = fields(lines);
            return Ok(answer);
        }
    }

    /// Waits for more bytes and gives all that are there; empty at the end.
    pub(crate) async fn more(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() {
            let _ = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        }
        std::mem::take(&mut self.buffer)
    }

    /// Whether the other side closes.
    pub(crate) async fn closes(&mut self) -> bool {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.is_ok()
    }

    async fn read_answer(&mut self, method: &str) -> std::io::Result<Answer> {
        let mut answer = self.read_head().await?;
        if method == "HEAD" || matches!(answer.status, 101 | 204 | 304) {
            return Ok(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            return self.read_chunks(answer).await;
        }
        match answer.header("content-length").and_then(|v| v.parse::<usize>().ok()) {
            Some(length) => {
                while self.buffer.len() < length {
                    self.fill().await?;
                }
                answer.body = self.buffer.drain(..length).collect();
            }
            None => {
                self.stream.read_to_end(&mut self.buffer).await?;
                answer.body = std::mem::take(&mut self.buffer);
            }
        }
        Ok(answer)
    }

    async fn read_chunks(&mut self, mut answer: Answer) -> std::io::Result<Answer> {
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            if size == 0 {
                break;
            }
            while self.buffer.len() < size + 2 {
                self.fill().await?;
            }
            answer.body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
        }
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(answer);
            }
            answer.trailers.extend(fields(std::iter::once(line.as_str())));
        }
    }

    async fn line(&mut self) -> std::io::Result<String> {
        let at = self.find(b"\r\n").await?;
        let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
        Ok(String::from_utf8_lossy(&line[..at]).into_owned())
    }

    async fn find(&mut self, what: &[u8]) -> std::io::Result<usize> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, what) {
                return Ok(at);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> std::io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let pairs = lines.filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// By the `h2` library where it can say what the test wants to say, else as raw frames.
async fn send_h2(port: u16, request: &Request) -> Answer {
    let Some(head) = h2_head(request) else {
        return raw_h2(port, &h2_fields(request), &request.body).await.into();
    };
    match call_h2(port, head, request).await {
        Ok(answer) => answer,
        Err(error) => Answer::failed(error),
    }
}

fn h2_head(request: &Request) -> Option<http::Request<()>> {
    let uri = match &request.host {
        Some(host) => format!("http://{host}{}", request.target),
        None => return None,
    };
    let uri: http::Uri = uri.parse().ok()?;
    if uri.path_and_query()?.as_str() != request.target || uri.authority()?.as_str() != request.host.as_deref()? {
        return None;
    }
    let mut head = http::Request::builder().method(request.method.as_str()).uri(uri).version(http::Version::HTTP_2);
    for (name, value) in &request.headers {
        let name: http::HeaderName = name.parse().ok()?;
        head = head.header(name, http::HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    head.body(()).ok()
}

/// The fields of an HTTP/2 request as they are, pseudo-fields first.
fn h2_fields(request: &Request) -> Vec<(String, Vec<u8>)> {
    let mut all = vec![
        (":method".to_owned(), request.method.clone().into_bytes()),
        (":scheme".to_owned(), b"http".to_vec()),
        (":path".to_owned(), request.target.clone().into_bytes()),
    ];
    all.extend(request.host.iter().map(|host| (":authority".to_owned(), host.clone().into_bytes())));
    all.extend(request.headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone().into_bytes())));
    all
}

async fn call_h2(port: u16, head: http::Request<()>, request: &Request) -> Result<Answer, Failure> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let mut sender = sender.ready().await?;
    let ends = request.body.is_empty() && request.trailers.is_empty();
    let (response, mut body) = sender.send_request(head, ends)?;
    if !ends {
        let more = !request.trailers.is_empty();
        // The gate may have refused and reset the stream's sending half already.
        let _ = body.send_data(Bytes::from(request.body.clone()), !more);
        if more {
            let trailers = request.trailers.iter().filter_map(|(n, v)| Some((n.parse().ok()?, v.parse().ok()?)));
            let _ = body.send_trailers(trailers.collect());
        }
    }
    Ok(read_h2(response.await?).await?)
}

/// Reads an HTTP/2 answer to its end.
async fn read_h2(response: http::Response<h2::RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let mut answer = Answer { status: head.status.as_u16(), headers: pairs(&head.headers), ..Answer::default() };
    while let Some(data) = stream.data().await {
        match data {
            Ok(data) => {
                let _ = stream.flow_control().release_capacity(data.len());
                answer.body.extend_from_slice(&data);
            }
            // RFC 9113 section 8.1: a full answer may be followed by a reset without error.
            Err(error) if error.reason() == Some(h2::Reason::NO_ERROR) => return Ok(answer),
            Err(error) => return Err(error),
        }
    }
    if let Ok(Some(trailers)) = stream.trailers().await {
        answer.trailers = pairs(&trailers);
    }
    Ok(answer)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn pairs(map: &http::HeaderMap) -> Vec<(String, String)> {
    map.iter().map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect()
}

/// Longest wait for an answer: far more than any right one needs.
const PATIENCE: Duration = Duration::from_secs(60);
