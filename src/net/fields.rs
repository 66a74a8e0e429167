//! Header fields of a message (RFC 9110 section 5), as HTTP/1.1 writes them: most go on as they came, so that one copy
//! of their text costs less than a map of names and values made for each message.

use std::{fmt, ops::Range};

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Fields in the order in which they came or were set. Names are lower case.
///
/// Only what a parser or the types of `http` have found good gets in: no text can end its line.
#[derive(Clone, Default)]
pub struct Fields {
    /// `name: value` with its line end, each; also those that were removed.
    text: Vec<u8>,
    lines: Vec<Line>,
    /// A bit for each length of a name, modulo 64: mostly it tells that a name is not there.
    lengths: u64,
}

/// Where a field stands in the text.
#[derive(Debug, Clone, Copy)]
struct Line {
    start: usize,
    end: usize,
    name: u16,
    /// Not to be kept in a table of HPACK (RFC 7541 section 7.1.3).
    sensitive: bool,
}

impl Fields {
    /// With room for so many lines and bytes.
    pub fn with_capacity(lines: usize, bytes: usize) -> Self {
        Self { text: Vec::with_capacity(bytes), lines: Vec::with_capacity(lines), lengths: 0 }
    }

    /// Those of the fields that the parser has read in `head` which are wanted; none: a name is longer than `http` takes.
    pub(crate) fn parsed<E>(
        head: &[u8],
        fields: &[httparse::Header<'_>],
        mut wanted: impl FnMut(&httparse::Header<'_>) -> Result<bool, E>,
    ) -> Result<Option<Self>, E> {
        let mut all = Self::with_capacity(fields.len() + ADDED, head.len() + fields.len() + ADDED_BYTES);
        let mut run = 0..0;
        for field in fields {
            if !wanted(field)? {
                continue;
            }
            let Ok(name) = u16::try_from(field.name.len()) else { return Ok(None) };
            match as_written(head, field) {
                // What stands together is copied together.
                Some(line) if line.start == run.end => run.end = line.end,
                Some(line) => {
                    all.text.extend_from_slice(&head[run]);
                    run = line;
                }
                None => {
                    all.text.extend_from_slice(&head[run]);
                    run = 0..0;
                    all.write(field.name.as_bytes(), name, field.value, false);
                    continue;
                }
            }
            let end = all.text.len() + run.len();
            let start = end - (field.name.len() + SEPARATOR + field.value.len() + LINE_END);
            all.put(Line { start, end, name, sensitive: false });
        }
        all.text.extend_from_slice(&head[run]);
        let Self { text, lines, .. } = &mut all;
        lines.iter().for_each(|line| lower(&mut text[line.start..line.start + usize::from(line.name)]));
        Ok(Some(all))
    }

    /// Adds a line.
    pub fn push(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.add(name, value.as_bytes(), value.is_sensitive());
    }

    /// Adds a line with the first value that `other` has of the name `of`, if it has one; tells whether.
    pub fn push_of(&mut self, name: &HeaderName, other: &Self, of: &str) -> bool {
        let Some(line) = other.lines.iter().find(|line| other.is(line, of)) else { return false };
        self.add(name, other.value(*line), line.sensitive);
        true
    }

    /// Puts a field in the place of all of its name.
    pub fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.remove(name.as_str());
        self.push(name, value);
    }

    /// Adds those lines of `other` whose name and value are wanted.
    pub fn extend_from(&mut self, other: &Self, mut wanted: impl FnMut(&[u8], &[u8]) -> bool) {
        let mut run = 0..0;
        for line in &other.lines {
            if !wanted(other.name(*line), other.value(*line)) {
                continue;
            }
            // What stands together is copied together.
            if run.end != line.start {
                self.text.extend_from_slice(&other.text[run]);
                run = line.start..line.start;
            }
            let start = self.text.len() + (line.start - run.start);
            self.put(Line { start, end: start + (line.end - line.start), ..*line });
            run.end = line.end;
        }
        self.text.extend_from_slice(&other.text[run]);
    }

    /// Takes out all lines of that name, which is lower case.
    pub fn remove(&mut self, name: &str) {
        if self.contains(name) {
            self.retain(|line, _| line != name.as_bytes());
        }
    }

    /// Keeps the lines whose name and value are wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(&[u8], &[u8]) -> bool) {
        let Self { text, lines, .. } = self;
        lines.retain(|line| {
            let (name, value) = line.parts(text);
            wanted(name, value)
        });
    }

    /// The first value of that name, which is lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.among(name).iter().find(|line| self.is(line, name)).map(|line| self.value(*line))
    }

    /// The value of that name, where there is one line of it and no more.
    pub fn sole(&self, name: &str) -> Option<&[u8]> {
        let mut lines = self.among(name).iter().filter(|line| self.is(line, name));
        lines.next().filter(|_| lines.next().is_none()).map(|line| self.value(*line))
    }

    /// The first value of that name, to be kept.
    pub fn value_of(&self, name: &str) -> Option<HeaderValue> {
        // It was found good when it got in.
        self.get(name).and_then(|value| HeaderValue::from_bytes(value).ok())
    }

    /// All values of that name, which is lower case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.among(name).iter().filter(move |line| self.is(line, name)).map(|line| self.value(*line))
    }

    /// Whether there is a line of that name, which is lower case.
    pub fn contains(&self, name: &str) -> bool {
        self.among(name).iter().any(|line| self.is(line, name))
    }

    /// Names and values, line by line.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (self.name(*line), self.value(*line)))
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// About the bytes of its text.
    pub fn size(&self) -> usize {
        self.lines.iter().map(|line| line.end - line.start).sum()
    }

    /// Writes all but those that say where the body ends; tells whether there was a length.
    pub fn write_to(&self, into: &mut Vec<u8>) -> bool {
        let mut said_length = false;
        let mut run = 0..0;
        let framed = !self.among("content-length").is_empty() || !self.among("transfer-encoding").is_empty();
        for line in &self.lines {
            match self.name(*line) {
                b"content-length" if framed => said_length = true,
                b"transfer-encoding" if framed => {}
                _ if run.end == line.start => run.end = line.end,
                _ => {
                    into.extend_from_slice(&self.text[run]);
                    run = line.start..line.end;
                }
            }
        }
        into.extend_from_slice(&self.text[run]);
        said_length
    }

    /// As `http` keeps them; none: one is not good after all.
    pub fn to_map(&self) -> Option<HeaderMap> {
        let mut map = HeaderMap::with_capacity(self.lines.len());
        for line in &self.lines {
            let mut value = HeaderValue::from_bytes(self.value(*line)).ok()?;
            value.set_sensitive(line.sensitive);
            map.append(HeaderName::from_bytes(self.name(*line)).ok()?, value);
        }
        Some(map)
    }

    fn add(&mut self, name: &HeaderName, value: &[u8], sensitive: bool) {
        let name = name.as_str().as_bytes();
        // No `HeaderName` is longer.
        self.write(name, u16::try_from(name.len()).unwrap_or(u16::MAX), value, sensitive);
    }

    fn write(&mut self, name: &[u8], length: u16, value: &[u8], sensitive: bool) {
        let start = self.text.len();
        self.text.reserve(name.len() + value.len() + SEPARATOR + LINE_END);
        for part in [name, b": ", value, b"\r\n"] {
            self.text.extend_from_slice(part);
        }
        self.put(Line { start, end: self.text.len(), name: length, sensitive });
    }

    fn put(&mut self, line: Line) {
        self.lengths |= 1 << (line.name % 64);
        self.lines.push(line);
    }

    /// Where a name can be, if anywhere.
    #[inline]
    fn among(&self, name: &str) -> &[Line] {
        if self.lengths & 1 << (name.len() % 64) == 0 { &[] } else { &self.lines }
    }

    #[inline]
    fn is(&self, line: &Line, name: &str) -> bool {
        usize::from(line.name) == name.len() && self.name(*line) == name.as_bytes()
    }

    #[inline]
    fn name(&self, line: Line) -> &[u8] {
        line.parts(&self.text).0
    }

    #[inline]
    fn value(&self, line: Line) -> &[u8] {
        line.parts(&self.text).1
    }
}

impl Line {
    #[inline]
    fn parts(self, text: &[u8]) -> (&[u8], &[u8]) {
        let name = self.start + usize::from(self.name);
        (&text[self.start..name], &text[name + SEPARATOR..self.end - LINE_END])
    }
}

/// Names alone: values may be secrets.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| String::from_utf8_lossy(name))).finish()
    }
}

impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Self {
        let mut fields = Self::with_capacity(map.len() + ADDED, ADDED * 64);
        map.iter().for_each(|(name, value)| fields.push(name, value));
        fields
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Fields {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(fields: I) -> Self {
        let mut all = Self::default();
        fields.into_iter().for_each(|(name, value)| all.push(&name, &value));
        all
    }
}

/// Where a field stands in `head`, if it is written there as it would be here. The parser takes other blanks, and bare
/// line feeds.
fn as_written(head: &[u8], field: &httparse::Header<'_>) -> Option<Range<usize>> {
    let place = |part: &[u8]| part.as_ptr().addr().checked_sub(head.as_ptr().addr());
    let (name, value) = (place(field.name.as_bytes())?, place(field.value)?);
    let (name_end, value_end) = (name + field.name.len(), value.checked_add(field.value.len())?);
    let as_written = head.get(name_end..value)? == b": " && head.get(value_end..value_end + LINE_END)? == b"\r\n";
    as_written.then_some(name..value_end + LINE_END)
}

/// Puts a name into lower case, eight bytes at a time; the last ones may be some of those before.
fn lower(name: &mut [u8]) {
    if name.len() < 8 {
        return name.make_ascii_lowercase();
    }
    let (words, _) = name.as_chunks_mut::<8>();
    words.iter_mut().for_each(lower_word);
    name.last_chunk_mut::<8>().into_iter().for_each(lower_word);
}

/// Of bytes of names, which are below 128: none carries over into the next.
fn lower_word(bytes: &mut [u8; 8]) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    let word = u64::from_ne_bytes(*bytes);
    let from_a = word.wrapping_add(ONES * (0x80 - b'A' as u64));
    let beyond_z = word.wrapping_add(ONES * (0x7f - b'Z' as u64));
    *bytes = (word | (from_a & !beyond_z & TOPS) >> 2).to_ne_bytes();
}

/// Writes trailers.
pub fn write_trailers(into: &mut Vec<u8>, trailers: &HeaderMap) {
    for (name, value) in trailers {
        if name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING {
            write_field(into, name.as_str(), value.as_bytes());
        }
    }
}

/// The members of a list such as `Connection`'s (RFC 9110 section 5.6.1); empty ones too.
pub fn members(list: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether `list` has a member, in whatever case.
pub fn lists(list: &[u8], member: &str) -> bool {
    members(list).any(|listed| listed.eq_ignore_ascii_case(member.as_bytes()))
}

/// Writes one field.
pub fn write_field(into: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        into.extend_from_slice(part);
    }
}

const SEPARATOR: usize = 2;
const LINE_END: usize = 2;
/// Room for fields that are set on the way, and about their bytes.
const ADDED: usize = 6;
const ADDED_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> Fields {
        let field = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        lines.iter().copied().map(field).collect()
    }

    fn text(fields: &Fields) -> String {
        let mut text = Vec::new();
        fields.write_to(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn lines_are_found_removed_and_replaced() {
        let mut all = fields(&[("a", "1"), ("b", ""), ("a", "3"), ("content-length", "9"), ("c", "4")]);
        assert_eq!(all.all("a").collect::<Vec<_>>(), [b"1", b"3"]);
        assert_eq!((all.get("b"), all.get("x"), all.sole("a"), all.len()), (Some(&b""[..]), None, None, 5));
        assert_eq!(text(&all), "a: 1\r\nb: \r\na: 3\r\nc: 4\r\n");
        all.set(&HeaderName::from_static("a"), &HeaderValue::from_static("5"));
        all.remove("b");
        assert_eq!((text(&all), all.contains("b")), ("c: 4\r\na: 5\r\n".to_owned(), false));
        assert_eq!(all.size(), text(&all).len() + "content-length: 9\r\n".len());
    }

    #[test]
    fn lines_go_over_in_runs() {
        let all = fields(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")]);
        for dropped in [&[][..], &["a"], &["c"], &["e"], &["a", "b", "e"], &["a", "b", "c", "d", "e"]] {
            let mut other = fields(&[("z", "0")]);
            other.extend_from(&all, |name, _| dropped.iter().all(|dropped| dropped.as_bytes() != name));
            let mut kept = all.clone();
            kept.retain(|name, _| dropped.iter().all(|dropped| dropped.as_bytes() != name));
            assert_eq!(text(&other), format!("z: 0\r\n{}", text(&kept)), "{dropped:?}");
            let again: Vec<_> = other.iter().skip(1).map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            let those: Vec<_> = kept.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            assert_eq!(again, those, "{dropped:?}");
        }
    }

    #[test]
    fn a_map_and_back() {
        let mut map = HeaderMap::new();
        map.append("x-long-name", HeaderValue::from_bytes(b"\xfe \t,").unwrap());
        let mut secret = HeaderValue::from_static("s");
        secret.set_sensitive(true);
        map.append(header::COOKIE, secret);
        map.append(header::COOKIE, HeaderValue::from_static("t"));
        let again = Fields::from(&map).to_map().unwrap();
        assert_eq!(again, map);
        assert!(again[header::COOKIE].is_sensitive());
    }

    #[test]
    fn names_of_every_length_and_letter_are_put_into_lower_case() {
        let all: Vec<u8> = (0..128).collect();
        for length in 0..40 {
            for start in 0..all.len() - length {
                let mut name = all[start..start + length].to_vec();
                lower(&mut name);
                assert_eq!(name, all[start..start + length].to_ascii_lowercase());
            }
        }
    }

    #[test]
    fn what_the_parser_read_is_written_in_one_way() {
        let head = b"Host: a\r\nX-CaSe:  CaSe \t\r\nB:\r\nc:d\nE: f\nG: \xff\r\nContent-Length: 3\r\nh: i\r\n\r\n";
        let mut room = [httparse::EMPTY_HEADER; 10];
        let httparse::Status::Complete((_, parsed)) = httparse::parse_headers(head, &mut room).unwrap() else {
            panic!("it is whole")
        };
        for dropped in ["", "Host", "B", "E", "G", "h"] {
            let wanted = |field: &httparse::Header<'_>| Ok::<_, ()>(field.name != dropped);
            let fields = Fields::parsed(head, parsed, wanted).unwrap().unwrap();
            let mut text = Vec::new();
            assert!(fields.write_to(&mut text));
            let lines = [
                ("Host", &b"host: a\r\n"[..]),
                ("X-CaSe", b"x-case: CaSe\r\n"),
                ("B", b"b: \r\n"),
                ("c", b"c: d\r\n"),
                ("E", b"e: f\r\n"),
                ("G", b"g: \xff\r\n"),
                ("h", b"h: i\r\n"),
            ];
            let kept: Vec<u8> =
                lines.iter().filter(|(name, _)| *name != dropped).flat_map(|(_, line)| *line).copied().collect();
            assert_eq!(text, kept, "without {dropped}");
            assert_eq!(fields.get("content-length"), Some(&b"3"[..]), "without {dropped}");
        }
    }
}
