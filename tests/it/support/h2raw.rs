//! HTTP/2 frame by frame (RFC 9113), for what no library would send: fields are written as HPACK literals
//! (RFC 7541 section 6.2.2) without any check. Of the answer only the status is read.

use self::frame::{ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS};
use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::Answer;

/// How a raw request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RawAnswer {
    /// A response with this status.
    Status(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoAway(u32),
    /// The connection was closed, or nothing came.
    Closed,
    /// The connection stood, and nothing came.
    Silent,
}

impl From<RawAnswer> for Answer {
    fn from(raw: RawAnswer) -> Self {
        match raw {
            RawAnswer::Status(status) => Self { status, status_only: true, ..Self::default() },
            other => Self { status_only: true, error: Some(format!("{other:?}")), ..Self::default() },
        }
    }
}

/// Sends one request on stream 1.
pub(crate) async fn raw_h2(port: u16, fields: &[(String, Vec<u8>)], body: &[u8]) -> RawAnswer {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return RawAnswer::Closed };
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut out, SETTINGS, 0, 0, &[]);
    let ends = if body.is_empty() { END_STREAM } else { 0 };
    frame(&mut out, HEADERS, END_HEADERS | ends, 1, &block(fields));
    if !body.is_empty() {
        frame(&mut out, DATA, END_STREAM, 1, body);
    }
    if stream.write_all(&out).await.is_err() {
        return RawAnswer::Closed;
    }
    timeout(Duration::from_secs(60), read(&mut stream)).await.ok().flatten().unwrap_or(RawAnswer::Closed)
}

/// A connection for frames of any kind.
pub(crate) struct RawH2(TcpStream);

/// How a flood of frames ended.
#[derive(Debug)]
pub(crate) struct Flood {
    /// Bytes that the server took.
    pub(crate) sent: usize,
    /// GOAWAY or closed; a reset or status where the connection outlived the flood.
    pub(crate) end: RawAnswer,
    /// Statuses and resets on the way.
    pub(crate) answers: usize,
}

impl RawH2 {
    /// A connection with preface and SETTINGS, whose payload is `settings`.
    pub(crate) async fn open(port: u16, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut out, SETTINGS, 0, 0, settings);
        stream.write_all(&out).await.unwrap();
        Self(stream)
    }

    /// Sends the frames until they end or the server has enough of them; what it said last within a while.
    pub(crate) async fn flood(self, frames: impl Iterator<Item = Vec<u8>>) -> Flood {
        let (mut reading, mut writing) = self.0.into_split();
        let reader = tokio::spawn(async move {
            let (mut answers, mut last) = (0, None);
            loop {
                // What it says is worth waiting for; once it has, little more follows.
                let patience = Duration::from_secs(if last.is_none() { 60 } else { 10 });
                match timeout(patience, next(&mut reading)).await {
                    Ok(Some(end @ RawAnswer::GoAway(_))) => return (answers, end),
                    Ok(Some(answer)) => (answers, last) = (answers + 1, Some(answer)),
                    Ok(None) => return (answers, RawAnswer::Closed),
                    Err(_) => return (answers, last.unwrap_or(RawAnswer::Silent)),
                }
            }
        });
        let mut sent = 0;
        for frame in frames {
            if reader.is_finished() || writing.write_all(&frame).await.is_err() {
                break;
            }
            sent += frame.len();
        }
        let (answers, end) = reader.await.unwrap();
        drop(writing);
        Flood { sent, end, answers }
    }
}

/// One frame (RFC 9113 section 4.1).
pub(crate) fn raw_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame(&mut out, kind, flags, stream, payload);
    out
}

/// The fields as a header block.
pub(crate) fn raw_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let owned: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    block(&owned)
}

/// The next status, reset or farewell; SETTINGS and PINGs are not answered.
async fn next(stream: &mut (impl AsyncRead + Unpin)) -> Option<RawAnswer> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.ok()?;
        match head[3] {
            HEADERS => return Some(RawAnswer::Status(status(&payload)?)),
            RST_STREAM => return Some(RawAnswer::Reset(word(&payload)?)),
            GOAWAY => return Some(RawAnswer::GoAway(word(payload.get(4..)?)?)),
            _ => {}
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<RawAnswer> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.ok()?;
        match head[3] {
            HEADERS => return Some(RawAnswer::Status(status(&payload)?)),
            RST_STREAM => return Some(RawAnswer::Reset(word(&payload)?)),
            GOAWAY => return Some(RawAnswer::GoAway(word(payload.get(4..)?)?)),
            SETTINGS if head[4] & ACK == 0 => {
                let mut out = Vec::new();
                frame(&mut out, SETTINGS, ACK, 0, &[]);
                stream.write_all(&out).await.ok()?;
            }
            _ => {}
        }
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Literal fields without indexing, names and values as plain text.
fn block(fields: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        text(&mut out, name.as_bytes());
        text(&mut out, value);
    }
    out
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len();
    if length < 127 {
        out.push(u8::try_from(length).unwrap());
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push(u8::try_from(length % 128).unwrap() | 128);
            length /= 128;
        }
        out.push(u8::try_from(length).unwrap());
    }
    out.extend_from_slice(bytes);
}

/// `:status`, which comes first (RFC 9113 section 8.3): indexed, or a literal with the indexed name.
fn status(block: &[u8]) -> Option<u16> {
    // A change of the dynamic table's size may stand before it (RFC 7541 section 6.3).
    let start = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    let (first, rest) = block[start..].split_first()?;
    match first {
        0x88..=0x8e => Some([200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)]),
        0x48 | 0x08 | 0x18 => literal(rest),
        _ => None,
    }
}

fn literal(bytes: &[u8]) -> Option<u16> {
    let (first, rest) = bytes.split_first()?;
    let value = rest.get(..usize::from(first & 0x7f))?;
    if first & 0x80 == 0 {
        return std::str::from_utf8(value).ok()?.parse().ok();
    }
    huffman_digits(value)
}

/// Three digits in HPACK's Huffman code (RFC 7541 appendix B): 0 to 2 in five bits, 3 to 9 in six.
fn huffman_digits(bytes: &[u8]) -> Option<u16> {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0u16, |n, bit| n << 1 | u16::from(*bit));
    let (mut at, mut value) = (0, 0);
    for _ in 0..3 {
        let short = number(bits.get(at..at + 5)?);
        let digit = if short <= 2 {
            at += 5;
            short
        } else {
            let long = number(bits.get(at..at + 6)?);
            at += 6;
            long.checked_sub(0b01_1001).filter(|n| *n <= 6)? + 3
        };
        value = value * 10 + digit;
    }
    Some(value)
}

/// Frame types and flags (RFC 9113 section 6).
pub(crate) mod frame {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
}

#[test]
fn statuses_are_read_in_every_form() {
    assert_eq!(status(&[0x8c]), Some(400));
    assert_eq!(status(&[0x48, 3, b'4', b'0', b'1']), Some(401));
    assert_eq!(status(&[0x20, 0x48, 3, b'4', b'0', b'1']), Some(401));
    // RFC 7541 section C.6.1: 302 as 0x6402.
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
}
