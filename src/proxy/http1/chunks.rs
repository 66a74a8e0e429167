//! The chunked coding of an answer (RFC 9112 section 7.1).

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use httparse::Status;

use super::{Error, download::Piece};

/// Where in the coding a body is.
#[derive(Debug, Default)]
pub(super) enum Chunks {
    /// Before a chunk's size.
    #[default]
    Size,
    /// In a chunk, of which so much is left.
    Data(u64),
    /// Before the end of line behind a chunk.
    DataEnd,
    /// Behind the last chunk.
    Trailers,
    /// Behind it all.
    Over,
}

impl Chunks {
    /// Takes the next piece off `read`.
    pub(super) fn take(&mut self, read: &mut Bytes) -> Result<Piece, Error> {
        loop {
            *self = match self {
                Self::Size => match httparse::parse_chunk_size(read) {
                    // A lone line feed within would end the line for others; without a digit there is no size.
                    Ok(Status::Complete((len, size)))
                        if read[0].is_ascii_hexdigit() && memchr::memchr(b'\n', read) == Some(len - 1) =>
                    {
                        read.advance(len);
                        if size == 0 { Self::Trailers } else { Self::Data(size) }
                    }
                    Ok(Status::Partial) if read.len() < LONGEST_SIZE => return Ok(Piece::Missing(0)),
                    _ => return Err(Error::Malformed("a chunk's size")),
                },
                Self::Data(left) if read.is_empty() => return Ok(Piece::Missing(*left)),
                Self::Data(left) => {
                    let data = read.split_to(usize::try_from(*left).unwrap_or(usize::MAX).min(read.len()));
                    *left -= data.len() as u64;
                    if *left == 0 {
                        *self = Self::DataEnd;
                        self.end_early(read);
                    }
                    return Ok(Piece::Frame(Frame::data(data)));
                }
                Self::DataEnd => match read.get(..2) {
                    Some(b"\r\n") => {
                        read.advance(2);
                        Self::Size
                    }
                    None if b"\r\n".starts_with(read) => return Ok(Piece::Missing(0)),
                    _ => return Err(Error::Malformed("a chunk's end")),
                },
                Self::Trailers => {
                    let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILERS];
                    match httparse::parse_headers(read, &mut fields) {
                        Ok(Status::Complete((len, fields))) => {
                            let trailers = trailers(read, fields)?;
                            read.advance(len);
                            *self = Self::Over;
                            return Ok(trailers.map_or(Piece::End, |trailers| Piece::Frame(Frame::trailers(trailers))));
                        }
                        Ok(Status::Partial) if read.len() < LONGEST_TRAILERS => return Ok(Piece::Missing(0)),
                        _ => return Err(Error::Malformed("its trailers")),
                    }
                }
                Self::Over => return Ok(Piece::End),
            }
        }
    }

    /// Nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// Most often the end came along with the last data.
    fn end_early(&mut self, read: &mut Bytes) {
        if **read == *b"\r\n0\r\n\r\n" {
            read.clear();
            *self = Self::Over;
        }
    }
}

fn trailers(read: &Bytes, fields: &[httparse::Header<'_>]) -> Result<Option<HeaderMap>, Error> {
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(read.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Err(Error::Malformed("its trailers")) };
        trailers.append(name, value);
    }
    Ok((!trailers.is_empty()).then_some(trailers))
}

/// Of a chunk's size with its extensions.
const LONGEST_SIZE: usize = 4 << 10;
const LONGEST_TRAILERS: usize = 16 << 10;
const MOST_TRAILERS: usize = 64;
