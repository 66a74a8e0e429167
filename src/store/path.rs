//! The canonical form of a path: one for requests and templates, so that both are compared alike
//! (design, step 1; RFC 3986 section 6.2.2).
//!
//! Decodes once and never twice. Never repairs what two readers could take for different paths: that is refused.

use std::borrow::Cow;

/// Why a path has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum PathFlaw {
    NoLeadingSlash,
    EncodedSlash,
    Backslash,
    Control,
    Encoding,
    Utf8,
    Fragment,
    DotSegment,
    EmptySegment,
    Parameter,
}

impl PathFlaw {
    /// What is wrong, for people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::NoLeadingSlash => "does not begin with a slash",
            Self::EncodedSlash => "has an encoded slash",
            Self::Backslash => "has a backslash",
            Self::Control => "has a control character",
            Self::Encoding => "has a broken percent-encoding or a question mark",
            Self::Utf8 => "is not UTF-8 when decoded",
            Self::Fragment => "has a number sign",
            Self::DotSegment => "has a `.` or `..` segment",
            Self::EmptySegment => "has an empty segment",
            Self::Parameter => "has a semicolon",
        }
    }
}

/// The canonical form of a path as sent, without query; or why there is none.
///
/// Unreserved characters are decoded, the hex digits of what stays encoded are upper case, and what may not
/// stand in a path as it is (non-ASCII, space, quotes, braces) is encoded. Borrowed where nothing changes.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, PathFlaw> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathFlaw::NoLeadingSlash);
    }
    let mut segment = Segment::Empty;
    for (at, &byte) in bytes.iter().enumerate().skip(1) {
        match CLASSES[usize::from(byte)] {
            Class::Plain => segment = Segment::Text,
            Class::Dot => segment = segment.dot(),
            Class::Slash => segment = segment.closed()?,
            Class::Recode => return Recoder::new(path, segment).run(at),
            Class::Refused(flaw) => return Err(flaw),
        }
    }
    segment.ended()?;
    Ok(Cow::Borrowed(path))
}

/// A canonical path in the form that is compared: what RFC 3986 allows unencoded in a segment is decoded,
/// so that `/items%3Aexport` is judged as the `/items:export` that most upstreams take it for. Forwarded is
/// the canonical form all the same: to some, `%2B` and `+` are two things.
pub(super) fn comparable(canonical: &str) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'%', canonical.as_bytes()) else { return Cow::Borrowed(canonical) };
    let (done, mut rest) = canonical.split_at(first);
    let mut text = String::with_capacity(canonical.len());
    text.push_str(done);
    while let Some(next) = rest.chars().next() {
        let decoded = rest.get(..3).and_then(decoded_reserved);
        text.push(decoded.unwrap_or(next));
        rest = &rest[if decoded.is_some() { 3 } else { next.len_utf8() }..];
    }
    Cow::Owned(text)
}

/// The character behind a triplet, if it is one that a segment may hold unencoded (RFC 3986 section 3.3).
fn decoded_reserved(triplet: &str) -> Option<char> {
    let byte = u8::from_str_radix(triplet.strip_prefix('%')?, 16).ok()?;
    b"!$&'()*+,=:@".contains(&byte).then_some(char::from(byte))
}

/// What the present segment holds so far, after decoding.
#[derive(Debug, Clone, Copy)]
enum Segment {
    Empty,
    OneDot,
    TwoDots,
    Text,
}

impl Segment {
    const fn dot(self) -> Self {
        match self {
            Self::Empty => Self::OneDot,
            Self::OneDot => Self::TwoDots,
            Self::TwoDots | Self::Text => Self::Text,
        }
    }

    /// A slash follows.
    const fn closed(self) -> Result<Self, PathFlaw> {
        match self {
            Self::Empty => Err(PathFlaw::EmptySegment),
            Self::OneDot | Self::TwoDots => Err(PathFlaw::DotSegment),
            Self::Text => Ok(Self::Empty),
        }
    }

    /// The path ends here; a trailing slash is no flaw.
    const fn ended(self) -> Result<(), PathFlaw> {
        match self {
            Self::Empty | Self::Text => Ok(()),
            Self::OneDot | Self::TwoDots => Err(PathFlaw::DotSegment),
        }
    }
}

/// The uncommon case: something is encoded, or has to be.
struct Recoder<'a> {
    sent: &'a str,
    segment: Segment,
    /// The canonical form so far; none as long as it is what was sent.
    text: Option<String>,
}

impl<'a> Recoder<'a> {
    const fn new(sent: &'a str, segment: Segment) -> Self {
        Self { sent, segment, text: None }
    }

    /// Goes on from byte `at`; everything before it is canonical.
    fn run(mut self, mut at: usize) -> Result<Cow<'a, str>, PathFlaw> {
        while let Some(next) = self.sent[at..].chars().next() {
            at += match next {
                '%' => self.encoded(at)?,
                _ if next.is_ascii() => self.ascii(at, next)?,
                _ => self.non_ascii(at, next)?,
            };
        }
        self.segment.ended()?;
        Ok(self.text.map_or(Cow::Borrowed(self.sent), Cow::Owned))
    }

    fn ascii(&mut self, at: usize, next: char) -> Result<usize, PathFlaw> {
        let byte = self.sent.as_bytes()[at];
        match CLASSES[usize::from(byte)] {
            Class::Plain => self.segment = Segment::Text,
            Class::Dot => self.segment = self.segment.dot(),
            Class::Slash => self.segment = self.segment.closed()?,
            Class::Refused(flaw) => return Err(flaw),
            Class::Recode => {
                self.segment = Segment::Text;
                self.put_encoded(at, &[byte]);
                return Ok(1);
            }
        }
        if let Some(text) = &mut self.text {
            text.push(next);
        }
        Ok(1)
    }

    fn non_ascii(&mut self, at: usize, next: char) -> Result<usize, PathFlaw> {
        if next.is_control() {
            return Err(PathFlaw::Control);
        }
        self.segment = Segment::Text;
        let mut buffer = [0; 4];
        let sent = next.encode_utf8(&mut buffer).len();
        self.put_encoded(at, &buffer[..sent]);
        Ok(sent)
    }

    /// A percent-encoded character: one triplet, or as many as its UTF-8 form has bytes.
    fn encoded(&mut self, at: usize) -> Result<usize, PathFlaw> {
        let first = self.triplet(at)?;
        match first {
            0..=0x1f | 0x7f => return Err(PathFlaw::Control),
            b'/' => return Err(PathFlaw::EncodedSlash),
            b'\\' => return Err(PathFlaw::Backslash),
            b';' => return Err(PathFlaw::Parameter),
            _ => {}
        }
        if is_unreserved(first) {
            self.segment = if first == b'.' { self.segment.dot() } else { Segment::Text };
            self.put(at, char::from(first).encode_utf8(&mut [0; 4]));
            return Ok(3);
        }
        self.segment = Segment::Text;
        let length = utf8_length(first).ok_or(PathFlaw::Utf8)?;
        let mut bytes = [first, 0, 0, 0];
        for (n, byte) in bytes.iter_mut().enumerate().take(length).skip(1) {
            let next = at + 3 * n;
            *byte = match self.sent.as_bytes().get(next) {
                Some(b'%') => self.triplet(next)?,
                _ => return Err(PathFlaw::Utf8),
            };
        }
        let decoded = std::str::from_utf8(&bytes[..length]).map_err(|_| PathFlaw::Utf8)?;
        if decoded.chars().any(char::is_control) {
            return Err(PathFlaw::Control);
        }
        self.put_encoded(at, &bytes[..length]);
        Ok(3 * length)
    }

    /// The byte that the triplet at `at` stands for.
    fn triplet(&self, at: usize) -> Result<u8, PathFlaw> {
        let digit = |n: usize| {
            let byte = self.sent.as_bytes().get(at + n).copied()?;
            char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok())
        };
        match (digit(1), digit(2)) {
            (Some(high), Some(low)) => Ok(high << 4 | low),
            _ => Err(PathFlaw::Encoding),
        }
    }

    /// Writes `bytes` percent-encoded in place of what stands at `at`.
    fn put_encoded(&mut self, at: usize, bytes: &[u8]) {
        let mut buffer = [b'%'; 12];
        for (triplet, &byte) in buffer.chunks_exact_mut(3).zip(bytes) {
            triplet[1] = HEX[usize::from(byte >> 4)];
            triplet[2] = HEX[usize::from(byte & 0xf)];
        }
        let encoded = std::str::from_utf8(&buffer[..3 * bytes.len()]).expect("percent signs and hex digits are ASCII");
        self.put(at, encoded);
    }

    /// Writes `text` in place of what stands at `at`; copies what was sent before it only when they differ.
    fn put(&mut self, at: usize, text: &str) {
        match &mut self.text {
            Some(canonical) => canonical.push_str(text),
            None if self.sent[at..].starts_with(text) => {}
            None => {
                let mut canonical = String::with_capacity(self.sent.len() + 2 * text.len());
                canonical.push_str(&self.sent[..at]);
                canonical.push_str(text);
                self.text = Some(canonical);
            }
        }
    }
}

/// How many bytes the UTF-8 form has that begins with this one (RFC 3629); overlong and surrogate forms
/// are left to the decoder.
const fn utf8_length(first: u8) -> Option<usize> {
    match first {
        0..=0x7f => Some(1),
        0xc2..=0xdf => Some(2),
        0xe0..=0xef => Some(3),
        0xf0..=0xf4 => Some(4),
        _ => None,
    }
}

/// RFC 3986 section 2.3
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What a raw byte means.
#[derive(Debug, Clone, Copy)]
enum Class {
    /// Stays as it is.
    Plain,
    Dot,
    Slash,
    /// Percent sign, or a byte that has to be encoded.
    Recode,
    Refused(PathFlaw),
}

const fn class(byte: u8) -> Class {
    match byte {
        b'/' => Class::Slash,
        b'.' => Class::Dot,
        b'\\' => Class::Refused(PathFlaw::Backslash),
        b'#' => Class::Refused(PathFlaw::Fragment),
        b';' => Class::Refused(PathFlaw::Parameter),
        // The query was cut off before: whoever left it here would judge something else than is forwarded.
        b'?' => Class::Refused(PathFlaw::Encoding),
        0..=0x1f | 0x7f => Class::Refused(PathFlaw::Control),
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@' => Class::Plain,
        _ if is_unreserved(byte) => Class::Plain,
        _ => Class::Recode,
    }
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Recode; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = class(byte as u8);
        byte += 1;
    }
    classes
};

const HEX: &[u8; 16] = b"0123456789ABCDEF";

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::{prelude::*, test_runner::FileFailurePersistence::WithSource};

    use super::*;

    #[test]
    fn reserved_characters_are_compared_decoded() {
        for (canonical, compared) in [
            ("/items:export", "/items:export"),
            ("/items%3Aexport", "/items:export"),
            ("/a%21%24%26%27%28%29%2A%2B%2C%3D%40", "/a!$&'()*+,=@"),
            ("/caf%C3%A9/%20%252e%23%3F", "/caf%C3%A9/%20%252e%23%3F"),
        ] {
            assert_eq!(comparable(canonical), compared);
        }
    }

    #[test]
    fn canonical_paths_are_borrowed() {
        let paths =
            "/ /a /a/ /a/b.c/d..e/.f/... /a+b:c@d!$&'()*,=~-_ /%20/%2B /caf%C3%A9 /%252e%252e/x /100%25 /%23%3F";
        for path in paths.split(' ') {
            assert!(matches!(canonical(path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
        }
    }

    #[test]
    fn other_spellings_become_canonical() {
        for (sent, expected) in [
            ("/%41dmin", "/Admin"),
            ("/%7euser/%2d%5F", "/~user/-_"),
            ("/a%2eb", "/a.b"),
            ("/%2e%2e%2e", "/..."),
            ("/%2e.%2e", "/..."),
            ("/a%20%2b", "/a%20%2B"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/😀/x", "/%F0%9F%98%80/x"),
            ("/a b\"<>^`{|}", "/a%20b%22%3C%3E%5E%60%7B%7C%7D"),
            ("/%41/%e2%82%ac/b", "/A/%E2%82%AC/b"),
            ("/%252E", "/%252E"),
            ("/%2541", "/%2541"),
            ("/é%2e", "/%C3%A9."),
        ] {
            assert_eq!(canonical(sent).as_deref(), Ok(expected), "{sent}");
        }
    }

    #[test]
    fn flaws_are_refused() {
        use PathFlaw::*;
        for (flaw, sent) in [
            (NoLeadingSlash, "* admin http://evil/admin %2Fadmin"),
            (DotSegment, "/public/../admin /public/./../admin /public/.. /. /./a /a/%2e%2e /é/%2e%2e/"),
            (DotSegment, "/%2e%2e/admin /.%2E/admin /%2e./admin /%2E"),
            (EncodedSlash, "/a%2Fb /a%2fb /..%2fadmin"),
            (Backslash, r"/a%5Cb /a%5cb /public\..\admin /é\"),
            (EmptySegment, "//admin /api//admin /// /%41//"),
            (Parameter, "/admin;x=1 /..;/admin /.;/admin /a;b/../admin /a%3Bb /a%3bb"),
            (Fragment, "/admin#/public /%41#"),
            (Encoding, "/a?b /a% /a%4 /a%zz /a%+1 /a%4é /%C3%A"),
            (Control, "/%00 /\0 /a\x7f /%7F /%0d%0a /%C2%85"),
            (Utf8, "/%c0%ae /%C0%AE%C0%AE/x /%e0%80%af /%ED%A0%80 /%F5%80%80%80 /%80 /%C3 /%C3/ /%C3A9 /%E2%82/%AC"),
        ] {
            for sent in sent.split(' ') {
                assert_eq!(canonical(sent), Err(flaw), "{sent:?}");
            }
        }
        assert_eq!(canonical(""), Err(NoLeadingSlash));
        assert_eq!(canonical("/a\nb"), Err(Control));
        assert_eq!(canonical("/\u{85}"), Err(Control));
    }

    fn decoded(path: &str) -> Vec<u8> {
        percent_decode_str(path).collect()
    }

    /// Paths made of what is hard, so that flaws and their neighbours come up often.
    fn paths() -> impl Strategy<Value = String> {
        let pieces: Vec<&str> = "/ . a %2e %2E %41 %c3%a9 %C3 é %25 % 2e %2F ; %20 + \"".split(' ').collect();
        let piece = prop::sample::select(pieces);
        prop_oneof![
            prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat())),
            "/\\PC{0,20}",
            ".{0,20}",
        ]
    }

    proptest! {
        // Cases that failed once lie beside this file.
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(WithSource("regressions"))),
            ..ProptestConfig::default()
        })]
        #[test]
        fn canonical_is_idempotent_and_means_the_same(sent in paths()) {
            if let Ok(canonical_form) = canonical(&sent) {
                prop_assert!(matches!(canonical(&canonical_form), Ok(Cow::Borrowed(_))));
                prop_assert_eq!(decoded(&canonical_form), decoded(&sent));
            }
        }

        #[test]
        fn canonical_holds_nothing_forbidden(sent in paths()) {
            if let Ok(path) = canonical(&sent) {
                prop_assert!(path.starts_with('/'));
                let forbidden = |b: u8| !b.is_ascii_graphic() || b"\\#;?\"<>^`{|}".contains(&b);
                prop_assert_eq!(path.bytes().find(|b| forbidden(*b)), None);
                prop_assert!(!path.contains("//"));
                prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
                let text = String::from_utf8(decoded(&path));
                prop_assert!(text.is_ok_and(|text| !text.chars().any(|c| c.is_control() || c == '\\' || c == ';')));
                prop_assert_eq!(decoded(&path).iter().filter(|b| **b == b'/').count(), path.matches('/').count());
            }
        }

        #[test]
        fn every_way_of_encoding_a_plain_path_is_the_same_path(
            segments in prop::collection::vec("[a-z~_][a-z0-9.~_-]{0,5}", 1..4), mask in any::<u64>(),
        ) {
            let plain = format!("/{}", segments.join("/"));
            let mut sent = String::new();
            for (n, c) in plain.chars().enumerate() {
                match c {
                    '/' => sent.push(c),
                    _ if mask >> (n % 64) & 1 == 1 => sent.push_str(&format!("%{:02x}", u32::from(c))),
                    _ => sent.push(c),
                }
            }
            let canonical_form = canonical(&sent);
            prop_assert_eq!(canonical_form.as_deref(), Ok(plain.as_str()));
        }
    }
}
