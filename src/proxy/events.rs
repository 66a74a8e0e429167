//! Messages in a stream, told apart as its bytes pass, however they are split: nothing is kept but the place in the
//! present one.
//!
//! gRPC's are length-prefixed (its HTTP/2 mapping; gRPC-Web's alike, whose trailers are no message), WebSocket's are
//! frames (RFC 6455 section 5.2), server-sent events end with a blank line (HTML standard section 9.2.6).

use memchr::memchr2;

/// gRPC messages of one direction.
#[derive(Debug, Default)]
pub(super) struct Messages {
    head: Head<5>,
    /// Bytes of the present message that are yet to come.
    left: u64,
}

impl Messages {
    /// How many messages end in `data`.
    pub(super) fn count(&mut self, mut data: &[u8]) -> u64 {
        let mut ended = 0;
        while !data.is_empty() {
            if !self.head.fill(&mut data, 5) {
                break;
            }
            let [flags, length @ ..] = self.head.bytes;
            if self.head.is_fresh() {
                self.left = u64::from(u32::from_be_bytes(length));
            }
            skip(&mut data, &mut self.left);
            if self.left == 0 {
                self.head.clear();
                ended += u64::from(flags & TRAILERS == 0);
            }
        }
        ended
    }
}

/// WebSocket frames of one direction, masked or not.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: Head<14>,
    left: u64,
}

/// A part of what came over a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// So many bytes, at most to the end of a frame.
    pub(super) len: usize,
    /// A message ends there: a text, or binary data.
    pub(super) ends_message: bool,
}

impl Frames {
    /// Whether the next byte begins a frame.
    pub(super) fn is_between(&self) -> bool {
        self.head.filled == 0
    }

    /// Whether `byte`, the first of a frame, begins a message; control frames and what continues one do not.
    pub(super) fn begins_message(byte: u8) -> bool {
        matches!(byte & OPCODE, TEXT | BINARY)
    }

    /// Goes on to the end of the present frame, or of `data`.
    pub(super) fn next(&mut self, data: &[u8]) -> Part {
        let mut rest = data;
        let mut ends_message = false;
        let complete = self.head.fill(&mut rest, 2) && {
            let whole = self.head_len();
            self.head.fill(&mut rest, whole)
        };
        if complete {
            if self.head.is_fresh() {
                self.left = self.payload();
            }
            skip(&mut rest, &mut self.left);
            if self.left == 0 {
                let first = self.head.bytes[0];
                ends_message = first & FIN != 0 && matches!(first & OPCODE, CONTINUATION | TEXT | BINARY);
                self.head.clear();
            }
        }
        Part { len: data.len() - rest.len(), ends_message }
    }

    fn head_len(&self) -> usize {
        let second = self.head.bytes[1];
        let mask = if second & MASKED == 0 { 0 } else { 4 };
        2 + mask
            + match second & LENGTH {
                LENGTH_16 => 2,
                LENGTH_64 => 8,
                _ => 0,
            }
    }

    fn payload(&self) -> u64 {
        let [_, second, more @ ..] = self.head.bytes;
        let [a, b, c, d, e, f, g, h, ..] = more;
        match second & LENGTH {
            LENGTH_16 => u64::from(u16::from_be_bytes([a, b])),
            LENGTH_64 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            short => u64::from(short),
        }
    }
}

/// The bytes before a message's own, as far as they have come.
#[derive(Debug)]
struct Head<const N: usize> {
    bytes: [u8; N],
    filled: usize,
    /// Whether what it says has been read.
    read: bool,
}

impl<const N: usize> Default for Head<N> {
    fn default() -> Self {
        Self { bytes: [0; N], filled: 0, read: false }
    }
}

impl<const N: usize> Head<N> {
    /// Takes from `data` what is missing of the first `wanted` bytes; whether they are all there.
    fn fill(&mut self, data: &mut &[u8], wanted: usize) -> bool {
        let missing = wanted.saturating_sub(self.filled).min(data.len());
        let (taken, rest) = data.split_at(missing);
        self.bytes[self.filled..self.filled + missing].copy_from_slice(taken);
        self.filled += missing;
        *data = rest;
        self.filled >= wanted
    }

    /// Whether it is complete for the first time.
    fn is_fresh(&mut self) -> bool {
        !std::mem::replace(&mut self.read, true)
    }

    fn clear(&mut self) {
        (self.filled, self.read) = (0, false);
    }
}

fn skip(data: &mut &[u8], left: &mut u64) {
    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
    *left -= skipped as u64;
    *data = &data[skipped..];
}

/// Server-sent events.
#[derive(Debug, Default)]
pub(super) struct ServerSent {
    /// Where in the byte order mark that may begin the stream; 3: beyond.
    mark: usize,
    line: Line,
    /// The last byte was a CR: a LF now belongs to it.
    after_cr: bool,
    /// The present event has data, even if empty.
    has_data: bool,
}

/// What the present line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// So many bytes of it, which are the first of `data`.
    Name(usize),
    /// The field `data`; whether the space that may begin its value is yet to come.
    Data { at_start: bool },
    /// Another field, or a comment.
    Other,
}

impl Default for Line {
    fn default() -> Self {
        Self::Name(0)
    }
}

/// What is found among server-sent events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'d> {
    /// A piece of the present event's data.
    Data(&'d [u8]),
    /// A line of its data ends.
    LineEnd,
    /// The event ends, and had data.
    Event,
}

impl ServerSent {
    /// Tells `found` what is in `data`, in order.
    pub(super) fn read<'d>(&mut self, mut data: &'d [u8], found: &mut impl FnMut(Found<'d>)) {
        self.skip_mark(&mut data);
        while let Some((&byte, rest)) = data.split_first() {
            let after_cr = std::mem::take(&mut self.after_cr);
            match (byte, self.line) {
                (b'\n', _) if after_cr => data = rest,
                (b'\n' | b'\r', _) => {
                    self.after_cr = byte == b'\r';
                    self.end_line(found);
                    data = rest;
                }
                (b':', Line::Name(n)) if n == NAME.len() => {
                    self.line = Line::Data { at_start: true };
                    data = rest;
                }
                (_, Line::Name(n)) if NAME.get(n) == Some(&byte) => {
                    self.line = Line::Name(n + 1);
                    data = rest;
                }
                (_, Line::Name(_)) => self.line = Line::Other,
                (b' ', Line::Data { at_start: true }) => {
                    self.line = Line::Data { at_start: false };
                    data = rest;
                }
                (_, line) => {
                    let (value, rest) = data.split_at(memchr2(b'\r', b'\n', data).unwrap_or(data.len()));
                    if let Line::Data { .. } = line {
                        self.line = Line::Data { at_start: false };
                        found(Found::Data(value));
                    }
                    data = rest;
                }
            }
        }
    }

    /// Passes the byte order mark over, which may begin the stream.
    fn skip_mark(&mut self, data: &mut &[u8]) {
        while self.mark < MARK.len()
            && let Some((byte, rest)) = data.split_first()
        {
            if *byte == MARK[self.mark] {
                self.mark += 1;
                *data = rest;
                continue;
            }
            if self.mark > 0 {
                // A part of a mark is none, and belongs to the first line.
                self.line = Line::Other;
            }
            self.mark = MARK.len();
        }
    }

    fn end_line<'d>(&mut self, found: &mut impl FnMut(Found<'d>)) {
        match std::mem::take(&mut self.line) {
            Line::Name(0) if std::mem::take(&mut self.has_data) => found(Found::Event),
            Line::Data { .. } | Line::Name(4) => {
                self.has_data = true;
                found(Found::LineEnd);
            }
            Line::Name(_) | Line::Other => {}
        }
    }
}

const NAME: &[u8; 4] = b"data";
const MARK: &[u8; 3] = b"\xef\xbb\xbf";
/// gRPC-Web's flag for what are no messages but trailers.
const TRAILERS: u8 = 0x80;
const FIN: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::FileFailurePersistence::WithSource};

    use super::*;

    /// `data` in pieces of these lengths, over and over.
    fn pieces<'d>(mut data: &'d [u8], lengths: &[usize]) -> Vec<&'d [u8]> {
        let mut pieces = Vec::new();
        let mut lengths = lengths.iter().cycle();
        while !data.is_empty() {
            let (piece, rest) = data.split_at((*lengths.next().unwrap()).min(data.len()));
            pieces.push(piece);
            data = rest;
        }
        pieces
    }

    fn web_socket(first: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask_bit = if masked { MASKED } else { 0 };
        let mut frame = vec![first];
        match length {
            0..=125 => frame.push(mask_bit | u8::try_from(length).unwrap()),
            126..=65_535 => {
                frame.push(mask_bit | LENGTH_16);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask_bit | LENGTH_64);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0x81; if masked { 4 } else { 0 } + length]);
        frame
    }

    fn server_sent(text: &[u8], lengths: &[usize]) -> Vec<String> {
        let (mut reader, mut events, mut present) = (ServerSent::default(), Vec::new(), Vec::new());
        for piece in pieces(text, lengths) {
            reader.read(piece, &mut |found| match found {
                Found::Data(data) => present.extend_from_slice(data),
                Found::LineEnd => present.push(b'\n'),
                Found::Event => events.push(String::from_utf8(std::mem::take(&mut present)).unwrap()),
            });
        }
        events
    }

    #[test]
    fn events_are_those_of_the_standard() {
        let rows: [(&str, &[&str]); 14] = [
            ("data: a\n\n", &["a\n"]),
            ("data: a\r\rdata: b\r\n\r\n", &["a\n", "b\n"]),
            ("data: a\r\n\r\n\r\n\n", &["a\n"]),
            ("data:a\ndata:  b\n\n", &["a\n b\n"]),
            ("data\n\ndata:\n\n", &["\n", "\n"]),
            (": a comment\n\n:data: x\n\n", &[]),
            ("event: ping\nid: 7\n\n", &[]),
            ("id: 7\ndata: x\nretry: 3\n\n", &["x\n"]),
            ("datax: 1\n\ndat: 2\n\n data: 3\n\nDATA: 4\n\n", &[]),
            ("data: unended\n", &[]),
            ("data: unended\n\ndata: b", &["unended\n"]),
            ("\u{feff}data: a\n\n", &["a\n"]),
            ("\n\u{feff}data: a\n\n", &[]),
            ("data: a:b\u{e9}\n\n", &["a:b\u{e9}\n"]),
        ];
        for (text, expected) in rows {
            for lengths in [&[1][..], &[2], &[3, 1], &[1_000]] {
                assert_eq!(server_sent(text.as_bytes(), lengths), expected, "{text:?} in {lengths:?}");
            }
        }
        assert_eq!(server_sent(b"\xef\xbbdata: a\n\n", &[1]), [""; 0], "half a mark is part of the name");
    }

    proptest! {
        // Cases that failed once lie beside this file.
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(WithSource("regressions"))),
            ..ProptestConfig::default()
        })]
        #[test]
        fn grpc_messages_are_counted_however_they_are_split(
            messages in prop::collection::vec((0..3_usize, 0..300_usize), 0..10),
            lengths in prop::collection::vec(1..50_usize, 1..5),
        ) {
            let mut stream = Vec::new();
            for (flag, length) in &messages {
                stream.push([0, 1, TRAILERS][*flag]);
                stream.extend(u32::try_from(*length).unwrap().to_be_bytes());
                stream.extend(vec![0; *length]);
            }
            let mut reader = Messages::default();
            let counted: u64 = pieces(&stream, &lengths).into_iter().map(|piece| reader.count(piece)).sum();
            prop_assert_eq!(counted, messages.iter().filter(|(flag, _)| *flag < 2).count() as u64);
            prop_assert_eq!(reader.head.filled, 0);
        }

        #[test]
        fn web_socket_messages_are_counted_however_they_are_split(
            frames in prop::collection::vec((0..6_usize, 0..3_usize, any::<bool>()), 0..10),
            lengths in prop::collection::vec(1..70_000_usize, 1..5),
        ) {
            let firsts = [FIN | TEXT, FIN | BINARY, TEXT, FIN, 0x89, 0x8a];
            let mut stream = Vec::new();
            for (first, length, masked) in &frames {
                stream.extend(web_socket(firsts[*first], [5, 700, 70_000][*length], *masked));
            }
            let (mut reader, mut ended) = (Frames::default(), 0);
            for mut piece in pieces(&stream, &lengths) {
                while !piece.is_empty() {
                    let part = reader.next(piece);
                    prop_assert!(part.len > 0);
                    piece = &piece[part.len..];
                    ended += usize::from(part.ends_message);
                }
            }
            prop_assert_eq!(ended, frames.iter().filter(|(first, ..)| matches!(first, 0 | 1 | 3)).count());
            prop_assert!(reader.is_between());
        }
    }

    #[test]
    fn a_frame_begins_a_message_or_not() {
        let begins = [FIN | TEXT, BINARY, FIN, 0x88, 0x89].map(Frames::begins_message);
        assert_eq!(begins, [true, true, false, false, false]);
    }
}
