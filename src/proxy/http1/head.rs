//! The head of an answer, and what it says of the body's end (RFC 9112 sections 4 to 6).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{StatusCode, Version};
use httparse::{ParserConfig, Status};

use super::{Error, chunks::Chunks, download::Framing};
use crate::net::{Fields, fields::members, message::Response};

/// A head, read.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) framing: Framing,
    /// The connection takes another request afterwards.
    pub(super) persists: bool,
    /// Its bytes.
    pub(super) len: usize,
}

/// What the fields say that concern the message as such.
#[derive(Debug, Default)]
struct Said {
    length: Option<u64>,
    /// There is a transfer coding; whether `chunked` is the last.
    chunked: Option<bool>,
    close: bool,
    keep_alive: bool,
}

impl Head {
    /// A final answer follows. Switching protocols is final: nobody asked for it here.
    pub(super) fn is_interim(&self) -> bool {
        self.response.status.is_informational() && self.response.status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Reads a head at the beginning of `read`; none: it is not whole yet. `to_head`: HEAD was asked.
pub(super) fn parse(read: &Bytes, to_head: bool) -> Result<Option<Head>, Error> {
    let mut room = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, read, &mut room);
    let (len, version) = match (status, parsed.version) {
        (Ok(Status::Complete(len)), Some(version)) => (len, version),
        (Ok(_), _) => return Ok(None),
        (Err(httparse::Error::TooManyHeaders), _) => return Err(Error::Malformed("it has too many fields")),
        (Err(_), _) => return Err(Error::Malformed("its head")),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Error::Malformed("its status"))?;
    let mut said = Said::default();
    let fields = Fields::parsed(&read[..len], parsed.headers, |field| said.hear(field))?;
    let fields = fields.ok_or(Error::Malformed("a field's name"))?;
    let framing = said.framing(status, version, to_head)?;
    // What ends with the connection leaves none.
    let persists = !said.close
        && (version == 1 || said.keep_alive)
        && status != StatusCode::SWITCHING_PROTOCOLS
        && !matches!(framing, Framing::UntilClose);
    let version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let response = Response { status, version, fields, ..Response::new(()) };
    Ok(Some(Head { response, framing, persists, len }))
}

impl Said {
    /// Notes a field; false: it only says again what was said.
    fn hear(&mut self, field: &httparse::Header<'_>) -> Result<bool, Error> {
        let value = field.value;
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        // By its length, which rules out most.
        match field.name.len() {
            14 if is("content-length") => {
                let length = decimal(value).ok_or(Error::Malformed("its Content-Length"))?;
                if self.length.is_some_and(|said| said != length) {
                    return Err(Error::Malformed("it has two lengths"));
                }
                return Ok(self.length.replace(length).is_none());
            }
            17 if is("transfer-encoding") => {
                let last = members(value).next_back();
                self.chunked = Some(last.is_some_and(|last| last.eq_ignore_ascii_case(b"chunked")));
            }
            10 if is("connection") => {
                for option in members(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
        Ok(true)
    }

    /// Where the body ends (RFC 9112 section 6.3).
    fn framing(&self, status: StatusCode, version: u8, to_head: bool) -> Result<Framing, Error> {
        let bodiless = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        match (self.chunked, self.length) {
            _ if to_head || bodiless => Ok(Framing::Sized(0)),
            // Whoever reads one of them gets another message than who reads the other.
            (Some(_), Some(_)) => Err(Error::Malformed("it has a length and a transfer coding")),
            (Some(_), None) if version == 0 => Err(Error::Malformed("HTTP/1.0 has no transfer codings")),
            (Some(true), None) => Ok(Framing::Chunked(Chunks::default())),
            (None, Some(length)) => Ok(Framing::Sized(length)),
            (Some(false) | None, None) => Ok(Framing::UntilClose),
        }
    }
}

/// Digits alone: no sign, no list.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

/// As many as hyper takes.
const MOST_FIELDS: usize = 100;
