//! What an access line says, and its two forms. A line is one line, whatever a request brings: control
//! characters, line separators and marks that turn the writing direction are escaped.

use std::{io::Write, net::IpAddr};

use super::LogFormat;

/// A field's name with what stands around it, as JSON and as text. Constants, so that each is a move or two.
struct Name {
    json: &'static [u8],
    text: &'static [u8],
}

/// The [`Name`] of a field.
macro_rules! name {
    ($name:literal) => {
        Name { json: concat!(",\"", $name, "\":").as_bytes(), text: concat!(" ", $name, "=").as_bytes() }
    };
}

/// What an access line says. Never a credential, never a query.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names are the fields of the line")]
pub struct AccessLine<'a> {
    /// Written as `time`, RFC 3339 in UTC.
    pub unix_ms: u64,
    pub request_id: &'a str,
    /// From a valid `traceparent`.
    pub trace_id: Option<&'a str>,
    pub client: Option<IpAddr>,
    pub method: &'a str,
    /// Canonical path, or the path as sent when it was refused; escaped here.
    pub path: &'a str,
    pub protocol: &'static str,
    pub status: u16,
    /// `granted`, or `Denial::reason`.
    pub reason: &'static str,
    pub api: Option<&'a str>,
    pub version: Option<&'a str>,
    pub template: Option<&'a str>,
    pub application: Option<&'a str>,
    pub key_type: Option<&'static str>,
    pub tier: Option<&'a str>,
    /// A limit that does not stop was beyond its quota; left out where none was.
    pub over_quota: bool,
    pub verdict_us: u64,
    /// Until the upstream's response head; written as `upstream_ms`.
    pub upstream_us: Option<u64>,
    /// Written as `duration_ms`.
    pub duration_us: u64,
    pub bytes_out: u64,
}

impl AccessLine<'_> {
    /// Appends the line with its line feed. What is not known is left out.
    pub(super) fn render(&self, format: LogFormat, out: &mut Vec<u8>) {
        match format {
            LogFormat::Json => self.json(out),
            LogFormat::Text => self.text(out),
        }
        out.push(b'\n');
    }

    fn json(&self, out: &mut Vec<u8>) {
        out.reserve(USUAL);
        out.extend_from_slice(b"{\"time\":\"");
        timestamp(self.unix_ms, out);
        out.push(b'"');
        let mut fields = Fields::<true> { out };
        fields.text(name!("method"), Some(self.method));
        fields.text(name!("path"), Some(self.bare_path()));
        fields.known(name!("protocol"), Some(self.protocol));
        fields.number(name!("status"), self.status.into());
        fields.known(name!("reason"), Some(self.reason));
        self.rest(&mut fields);
        out.push(b'}');
    }

    /// The head as people read it, then what is left as `name=value`.
    fn text(&self, out: &mut Vec<u8>) {
        timestamp(self.unix_ms, out);
        // A Vec takes every write.
        let _ = write!(out, " {} ", self.status);
        for text in [self.reason, self.method, self.bare_path(), self.protocol] {
            word(text, out);
            out.push(b' ');
        }
        out.pop();
        self.rest(&mut Fields::<false> { out });
    }

    fn rest<const JSON: bool>(&self, fields: &mut Fields<'_, JSON>) {
        fields.text(name!("api"), self.api);
        fields.text(name!("version"), self.version);
        fields.text(name!("template"), self.template);
        fields.text(name!("application"), self.application);
        fields.known(name!("key_type"), self.key_type);
        fields.text(name!("tier"), self.tier);
        fields.flag(name!("over_quota"), self.over_quota);
        fields.number(name!("verdict_us"), self.verdict_us);
        fields.millis(name!("upstream_ms"), self.upstream_us);
        fields.millis(name!("duration_ms"), Some(self.duration_us));
        fields.number(name!("bytes_out"), self.bytes_out);
        fields.address(name!("client"), self.client);
        fields.text(name!("request_id"), Some(self.request_id));
        fields.text(name!("trace_id"), self.trace_id);
    }

    /// A query may hold a credential. No door hands one over; should one slip in, it stops here.
    fn bare_path(&self) -> &str {
        memchr::memchr(b'?', self.path.as_bytes()).map_or(self.path, |end| &self.path[..end])
    }
}

/// Appends fields in either form, each after what separates it from the one before.
struct Fields<'a, const JSON: bool> {
    out: &'a mut Vec<u8>,
}

impl<const JSON: bool> Fields<'_, JSON> {
    #[inline]
    fn text(&mut self, name: Name, value: Option<&str>) {
        let Some(value) = value else { return };
        self.name(name);
        if JSON { quoted(value, self.out) } else { word(value, self.out) }
    }

    /// A text of our own, in which there is nothing to escape.
    #[inline]
    fn known(&mut self, name: Name, value: Option<&'static str>) {
        let Some(value) = value else { return };
        self.name(name);
        self.quote();
        self.out.extend_from_slice(value.as_bytes());
        self.quote();
    }

    /// Only where it is so.
    fn flag(&mut self, name: Name, value: bool) {
        if value {
            self.name(name);
            self.out.extend_from_slice(b"true");
        }
    }

    fn address(&mut self, name: Name, value: Option<IpAddr>) {
        let Some(value) = value else { return };
        self.name(name);
        self.quote();
        match value {
            IpAddr::V4(v4) => {
                for (at, octet) in v4.octets().into_iter().enumerate() {
                    if at > 0 {
                        self.out.push(b'.');
                    }
                    self.digits(octet.into());
                }
            }
            IpAddr::V6(v6) => {
                let _ = write!(self.out, "{v6}");
            }
        }
        self.quote();
    }

    #[inline]
    fn number(&mut self, name: Name, value: u64) {
        self.name(name);
        self.digits(value);
    }

    fn digits(&mut self, value: u64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Microseconds as milliseconds with three digits behind the point.
    #[inline]
    fn millis(&mut self, name: Name, micros: Option<u64>) {
        let Some(micros) = micros else { return };
        self.name(name);
        self.digits(micros / 1000);
        let rest = (micros % 1000) as u16;
        self.out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10 % 10), digit(rest % 10)]);
    }

    #[inline]
    fn quote(&mut self) {
        if JSON {
            self.out.push(b'"');
        }
    }

    #[inline(always)]
    fn name(&mut self, name: Name) {
        self.out.extend_from_slice(if JSON { name.json } else { name.text });
    }
}

fn digit(value: u16) -> u8 {
    b'0' + value as u8
}

/// A word of a text line: as it is when nothing in it can be mistaken, else quoted.
fn word(text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() && text.bytes().all(|b| b != b' ' && is_plain(b)) {
        out.extend_from_slice(text.as_bytes());
    } else {
        quoted(text, out);
    }
}

/// A JSON string (RFC 8259 section 7).
fn quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    if all_plain(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
    } else {
        escaped(text, out);
    }
    out.push(b'"');
}

const fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

/// Whether all bytes are plain: most texts are, and short. Eight at a time; the last ones may be some of those before.
fn all_plain(text: &[u8]) -> bool {
    if let Some(last) = text.last_chunk::<8>() {
        let last = not_plain(u64::from_ne_bytes(*last));
        let (words, _) = text.as_chunks::<8>();
        words.iter().fold(last, |found, word| found | not_plain(u64::from_ne_bytes(*word))) == 0
    } else if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        let halves = [u32::from_ne_bytes(*first), u32::from_ne_bytes(*last)].map(u64::from);
        not_plain(halves[0] | halves[1] << 32) == 0
    } else {
        text.iter().all(|byte| is_plain(*byte))
    }
}

/// Not 0 where a byte of the word is not plain.
const fn not_plain(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    // A byte that is 0 borrows from its top bit; only then can one above it do so too, so the sum is right.
    const fn zeros(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word
    }
    let below = word.wrapping_sub(ONES * 0x20) & !word;
    let special =
        zeros(word ^ (ONES * b'"' as u64)) | zeros(word ^ (ONES * b'\\' as u64)) | zeros(word ^ (ONES * 0x7f));
    (word | below | special) & TOPS
}

fn escaped(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if is_deceptive(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// What moves a terminal's cursor, ends a line for some reader, hides, or turns the writing direction.
/// All of them have four hex digits.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(unix_ms: u64, out: &mut Vec<u8>) {
    let (days, ms) = (unix_ms / DAY_MS, unix_ms % DAY_MS);
    let (year, month, day) = date(days);
    let (h, m, s, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    // By hand: every line has one, and the formatter takes longer than all of its other fields.
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let pairs = [(0, year / 100), (2, year % 100), (5, month), (8, day), (11, h), (14, m), (17, s), (20, ms / 10)];
    for (at, value) in pairs {
        let [tens, ones] = PAIRS[(value % 100) as usize];
        (text[at], text[at + 1]) = (tens, ones);
    }
    text[22] = digit((ms % 10) as u16);
    out.extend_from_slice(&text);
}

/// The Gregorian date of a day since 1970, by eras of 400 years that begin in March.
fn date(days: u64) -> (u64, u64, u64) {
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * era + year + next, month, day)
}

/// The two digits of a number below 100.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

const DAY_MS: u64 = 86_400_000;
/// Bytes of most lines.
const USUAL: usize = 512;

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(in crate::telemetry) fn line(path: &str) -> AccessLine<'_> {
        AccessLine {
            unix_ms: 1_792_000_123_045,
            request_id: "r-1",
            trace_id: Some("0af7651916cd43dd8448eb211c80319c"),
            client: Some(IpAddr::from([192, 0, 2, 7])),
            method: "GET",
            path,
            protocol: "HTTP/2",
            status: 429,
            reason: "throttled",
            api: Some("Orders"),
            version: Some("v1"),
            template: Some("/items/{id}"),
            application: Some("shop web"),
            key_type: Some("SANDBOX"),
            tier: Some("Gold"),
            over_quota: false,
            verdict_us: 12,
            upstream_us: Some(1235),
            duration_us: 2000,
            bytes_out: 345,
        }
    }

    fn rendered(line: &AccessLine<'_>, format: LogFormat) -> String {
        let mut out = Vec::new();
        line.render(format, &mut out);
        String::from_utf8(out).expect("lines are UTF-8")
    }

    #[test]
    fn json_says_everything() {
        let text = rendered(&line("/orders/v1/items/7"), LogFormat::Json);
        let said: Value = serde_json::from_str(&text).expect("a line is JSON");
        let expected = json!({
            "time": "2026-10-14T17:48:43.045Z", "method": "GET", "path": "/orders/v1/items/7", "protocol": "HTTP/2",
            "status": 429, "reason": "throttled", "api": "Orders", "version": "v1", "template": "/items/{id}",
            "application": "shop web", "key_type": "SANDBOX", "tier": "Gold", "verdict_us": 12, "upstream_ms": 1.235,
            "duration_ms": 2.0, "bytes_out": 345, "client": "192.0.2.7", "request_id": "r-1",
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
        });
        assert_eq!(said, expected);
    }

    #[test]
    fn text_says_everything() {
        assert_eq!(
            rendered(&line("/orders/v1/items/7"), LogFormat::Text),
            "2026-10-14T17:48:43.045Z 429 throttled GET /orders/v1/items/7 HTTP/2 api=Orders version=v1 \
             template=/items/{id} application=\"shop web\" key_type=SANDBOX tier=Gold verdict_us=12 upstream_ms=1.235 \
             duration_ms=2.000 bytes_out=345 client=192.0.2.7 request_id=r-1 trace_id=0af7651916cd43dd8448eb211c80319c\n"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let bare = AccessLine {
            trace_id: None,
            client: None,
            api: None,
            version: None,
            template: None,
            application: None,
            key_type: None,
            tier: None,
            upstream_us: None,
            ..line("/")
        };
        let text = rendered(&bare, LogFormat::Json);
        let said: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("a line is JSON");
        let names: Vec<&str> = said.keys().map(String::as_str).collect();
        let expected = [
            "time",
            "method",
            "path",
            "protocol",
            "status",
            "reason",
            "verdict_us",
            "duration_ms",
            "bytes_out",
            "request_id",
        ];
        assert_eq!(names, expected);
    }

    /// M02: nothing a request brings starts a line, a field or an escape sequence.
    #[test]
    fn hostile_text_stays_in_its_field() {
        let hostile = [
            "/a\r\n{\"status\":200}",
            "/a\",\"status\":200,\"x\":\"",
            "/a\\",
            "/a\u{1b}[2K\u{1b}[1A",
            "/a\u{0}\u{7f}\u{85}\u{9b}31m",
            "/a\u{2028}\u{2029}\u{202e}gpj.exe\u{feff}",
            "/a status=200 api=Other",
            "/a\tb",
            "",
        ];
        for text in hostile {
            let line =
                AccessLine { method: text, request_id: text, trace_id: Some(text), api: Some(text), ..line(text) };
            for format in [LogFormat::Json, LogFormat::Text] {
                let rendered = rendered(&line, format);
                assert_eq!(rendered.matches('\n').count(), 1, "{rendered:?}");
                assert!(rendered.trim_end().chars().all(|c| !is_deceptive(c)), "{rendered:?}");
                assert!(format == LogFormat::Json || !rendered.contains(" api=Other "), "{rendered:?}");
            }
            let said: Value = serde_json::from_str(&rendered(&line, LogFormat::Json)).expect("a line is JSON");
            for field in ["method", "path", "request_id", "trace_id", "api"] {
                assert_eq!(said[field], text, "{field}");
            }
            assert_eq!(said["status"], 429);
        }
    }

    #[test]
    fn letters_of_all_languages_stay() {
        let text = rendered(&line("/größe/注文/😀"), LogFormat::Json);
        assert!(text.contains("\"/größe/注文/😀\""), "{text}");
    }

    #[test]
    fn a_query_never_gets_in() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let text = rendered(&line("/a?access_token=abc"), format);
            assert!(!text.contains("access_token") && text.contains("/a"), "{text}");
        }
    }

    #[test]
    fn dates_are_the_calendars() {
        for (unix_ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_709_251_200_001, "2024-03-01T00:00:00.001Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut out = Vec::new();
            timestamp(unix_ms, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }

    /// In every place of a word, alone and among others.
    #[test]
    fn what_is_plain_is_seen_in_words_as_in_bytes() {
        for byte in 0..=u8::MAX {
            for length in 1..20 {
                for (at, other) in (0..length).flat_map(|at| [(at, b'a'), (at, b' '), (at, b'~'), (at, b'#')]) {
                    let mut text = vec![other; length];
                    text[at] = byte;
                    assert_eq!(all_plain(&text), is_plain(byte), "{byte:#x} {at} {length}");
                }
            }
        }
        for _ in 0..10_000 {
            let text: Vec<u8> = (0..fastrand::usize(0..40)).map(|_| fastrand::u8(0x1c..0x84)).collect();
            assert_eq!(all_plain(&text), text.iter().all(|byte| is_plain(*byte)), "{text:x?}");
        }
        assert!(all_plain(b""));
    }
}
