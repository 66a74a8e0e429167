//! What a server knows of one client connection: who is at the other end, and what it is doing since when.
//!
//! The state is a few atomics, written where bytes arrive and requests begin and end, and read by one timer a
//! connection: a request costs no timer.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Version, header};
use tokio::sync::mpsc;

use super::drain::{Drain, Phase};
use crate::telemetry::OpenConnection;

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    peer: Option<IpAddr>,
    peer_value: Option<HeaderValue>,
    tls: bool,
    drain: Drain,
    start: Instant,
    /// Milliseconds since `start`, and a [`Doing`] in the last two bits.
    doing: AtomicU64,
    in_flight: AtomicU32,
    /// HTTP/2, or upgraded: bytes are no longer looked at.
    opaque: AtomicBool,
    close: AtomicBool,
    served: AtomicBool,
    head: AtomicU8,
    /// A `#` was read outside of a request line seen whole.
    stray_hash: AtomicBool,
    /// Since when writing to the client makes no progress: milliseconds since `start`, plus 1; 0: it does.
    blocked: AtomicU64,
    /// The server waits until every clone of this is gone.
    _alive: mpsc::Sender<Infallible>,
    _open: OpenConnection,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Doing {
    /// Just accepted: nothing was read yet.
    Accepted = 0,
    /// Between requests.
    Idle = 1,
    /// A head is being read.
    Head = 2,
    /// Requests are being answered.
    Busy = 3,
}

/// What of a request only its raw bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Raw {
    /// Its target had a fragment, which the parser cut off.
    pub fragment: bool,
}

/// The message's framing is ambiguous: to be answered 400, and nothing after it is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadFraming;

impl Connection {
    pub(super) fn new(
        peer: Option<IpAddr>,
        tls: bool,
        drain: Drain,
        alive: mpsc::Sender<Infallible>,
        open: OpenConnection,
    ) -> Self {
        let peer = peer.map(|ip| ip.to_canonical());
        Self {
            peer,
            peer_value: peer.and_then(|ip| HeaderValue::try_from(ip.to_string()).ok()),
            tls,
            drain,
            start: Instant::now(),
            doing: AtomicU64::new(Doing::Accepted as u64),
            in_flight: AtomicU32::new(0),
            opaque: AtomicBool::new(false),
            close: AtomicBool::new(false),
            served: AtomicBool::new(false),
            head: AtomicU8::new(0),
            stray_hash: AtomicBool::new(false),
            blocked: AtomicU64::new(0),
            _alive: alive,
            _open: open,
        }
    }

    /// The peer's address, IPv4-mapped IPv6 as IPv4; none on Unix sockets.
    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// The peer's address as a header value, made once.
    pub fn peer_value(&self) -> Option<&HeaderValue> {
        self.peer_value.as_ref()
    }

    /// Whether the client speaks TLS with us.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Closes the connection after the present answer: what follows on it cannot be trusted or told apart.
    pub fn close_after(&self) {
        self.close.store(true, Relaxed);
    }

    /// Waits until what is left of the process's connections is to be cut.
    pub async fn cut(&self) {
        self.drain.reached(Phase::Cut).await;
    }

    /// Whether this answer shall be the connection's last.
    pub(super) fn is_last_answer(&self) -> bool {
        self.close.load(Relaxed) || self.drain.phase() >= Phase::Draining
    }

    /// The present answer is the last.
    pub(super) fn is_closing(&self) -> bool {
        self.close.load(Relaxed)
    }

    pub(super) fn has_served(&self) -> bool {
        self.served.load(Relaxed)
    }

    pub(super) fn is_opaque(&self) -> bool {
        self.opaque.load(Relaxed)
    }

    /// HTTP/2 or upgraded.
    pub(super) fn set_opaque(&self) {
        self.opaque.store(true, Relaxed);
    }

    /// A request's head was read. Tells what only the raw bytes say, and stays busy until [`Self::end`].
    pub(super) fn begin<B>(&self, request: &Request<B>) -> Result<Raw, BadFraming> {
        self.in_flight.fetch_add(1, Relaxed);
        self.served.store(true, Relaxed);
        self.set(Doing::Busy);
        if request.version() >= Version::HTTP_2 {
            return Ok(Raw::default());
        }
        let head = self.head.swap(0, Relaxed);
        self.check_framing(request, head)?;
        let fragment = match head & (LINE_SEEN | LINE_HASH) {
            LINE_SEEN if !self.close.load(Relaxed) => false,
            LINE_SEEN | 0 => self.stray_hash.load(Relaxed),
            _ => true,
        };
        Ok(Raw { fragment })
    }

    /// RFC 9112 section 6.1: beside Transfer-Encoding a Content-Length is ignored by the parser, and the connection
    /// closed after the answer. Codings other than `chunked` alone are refused: they would be lost on the way.
    fn check_framing<B>(&self, request: &Request<B>, head: u8) -> Result<(), BadFraming> {
        let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
        let Some(coding) = codings.next() else { return Ok(()) };
        if head & NO_LENGTH == 0 {
            self.close_after();
        }
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        if chunked && request.method() != Method::CONNECT { Ok(()) } else { Err(BadFraming) }
    }

    /// A request's answer was sent or given up.
    pub(super) fn end(&self) {
        if self.in_flight.fetch_sub(1, Relaxed) == 1 {
            self.set(Doing::Idle);
        }
    }

    pub(super) fn set(&self, doing: Doing) {
        self.doing.store((self.elapsed_ms() << 2) | doing as u64, Relaxed);
    }

    /// What it is doing, and for how long.
    pub(super) fn doing(&self) -> (Doing, Duration) {
        let word = self.doing.load(Relaxed);
        let doing = match word & 3 {
            0 => Doing::Accepted,
            1 => Doing::Idle,
            2 => Doing::Head,
            _ => Doing::Busy,
        };
        (doing, Duration::from_millis(self.elapsed_ms().saturating_sub(word >> 2)))
    }

    /// For how long the client has taken nothing of what we want to send.
    pub(super) fn blocked(&self) -> Duration {
        match self.blocked.load(Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(self.elapsed_ms().saturating_sub(since - 1)),
        }
    }

    pub(super) fn wrote(&self, progress: bool) {
        let since = self.blocked.load(Relaxed);
        if progress && since != 0 {
            self.blocked.store(0, Relaxed);
        } else if !progress && since == 0 {
            self.blocked.store(self.elapsed_ms() + 1, Relaxed);
        }
    }

    fn elapsed_ms(&self) -> u64 {
        // 2^62 ms are enough.
        self.start.elapsed().as_millis() as u64
    }
}

/// Looks at an HTTP/1 client's bytes as they arrive: begins the head's time, and sees what the parser hides.
#[derive(Debug, Default)]
pub(super) struct Scan {
    in_line: bool,
    spaces: u8,
    hash: bool,
}

impl Scan {
    /// `bytes` were read, and go to the parser next.
    pub(super) fn observe(&mut self, bytes: &[u8], connection: &Connection) {
        if bytes.is_empty() || connection.is_opaque() {
            return;
        }
        let mut rest = bytes;
        if let (Doing::Accepted | Doing::Idle, _) = connection.doing() {
            connection.set(Doing::Head);
            connection.head.store(if has_no_length(bytes) { NO_LENGTH } else { 0 }, Relaxed);
            *self = Self { in_line: true, ..Self::default() };
        } else {
            connection.head.fetch_and(!NO_LENGTH, Relaxed);
        }
        if self.in_line {
            rest = self.line(rest, connection);
        }
        if !connection.stray_hash.load(Relaxed) && memchr::memchr(b'#', rest).is_some() {
            connection.stray_hash.store(true, Relaxed);
        }
    }

    /// Reads on in the request line; gives back what follows it.
    fn line<'a>(&mut self, bytes: &'a [u8], connection: &Connection) -> &'a [u8] {
        let fresh = self.spaces == 0 && !self.hash;
        let skip = if fresh { bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count() } else { 0 };
        let bytes = &bytes[skip..];
        let end = memchr::memchr(b'\n', bytes);
        let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        self.spaces = self.spaces.saturating_add(u8::try_from(memchr::memchr_iter(b' ', line).count()).unwrap_or(3));
        self.hash |= memchr::memchr(b'#', line).is_some();
        if end.is_some() {
            self.in_line = false;
            // Two spaces: method, target, version. Anything else is the rest of a line begun earlier.
            let seen = if self.spaces == 2 { LINE_SEEN } else { 0 };
            connection.head.fetch_or(seen | if self.hash { LINE_HASH } else { 0 }, Relaxed);
        }
        rest
    }
}

/// Whether `bytes` hold a whole head without a Content-Length. Not looked at for GET and HEAD, which hardly ever
/// have a body; "no" is always safe.
fn has_no_length(bytes: &[u8]) -> bool {
    // The parser skips empty lines before a request, too.
    let bytes = bytes.trim_ascii_start();
    if bytes.starts_with(b"GET ") || bytes.starts_with(b"HEAD ") {
        return false;
    }
    for line in bytes.split_inclusive(|b| *b == b'\n').skip(1) {
        if line == b"\n" || line == b"\r\n" {
            return true;
        }
        if line.get(..LENGTH.len()).is_some_and(|name| name.eq_ignore_ascii_case(LENGTH)) {
            return false;
        }
    }
    false
}

const LENGTH: &[u8] = b"content-length";
/// The request line came in whole.
const LINE_SEEN: u8 = 1;
/// There is a `#` in it.
const LINE_HASH: u8 = 2;
/// The head came in one piece and has no Content-Length.
const NO_LENGTH: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Door, Metrics};

    fn connection() -> Connection {
        let open = Metrics::new().connection_opened(Door::Proxy);
        Connection::new(Some("::ffff:10.0.0.1".parse().unwrap()), false, Drain::new(), mpsc::channel(1).0, open)
    }

    fn begin(connection: &Connection, coding: &[&str]) -> Result<bool, BadFraming> {
        let mut request = Request::new(());
        for value in coding {
            request.headers_mut().append(header::TRANSFER_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        connection.begin(&request).map(|raw| raw.fragment)
    }

    #[test]
    fn mapped_addresses_are_normalised() {
        assert_eq!(connection().peer(), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(connection().peer_value().unwrap(), "10.0.0.1");
    }

    #[test]
    fn a_fragment_is_seen_however_the_line_arrives() {
        for (pieces, expected) in [
            (vec!["GET /a HTTP/1.1\r\nX: #\r\n\r\n"], false),
            (vec!["GET /a#b HTTP/1.1\r\n\r\n"], true),
            (vec!["\r\n\r\nGET /a#b HTTP/1.1\r\n\r\n"], true),
            (vec!["GET /a", "#b HTTP/1.1\r\n\r\n"], true),
            (vec!["GET /a", "b HTTP/1.1\r\n\r\n"], false),
        ] {
            let (connection, mut scan) = (connection(), Scan::default());
            for piece in &pieces {
                scan.observe(piece.as_bytes(), &connection);
            }
            assert_eq!(begin(&connection, &[]), Ok(expected), "{pieces:?}");
        }
    }

    #[test]
    fn a_fragment_in_a_pipelined_request_is_seen() {
        let (connection, mut scan) = (connection(), Scan::default());
        scan.observe(b"GET /a HTTP/1.1\r\n\r\nGET /a", &connection);
        assert_eq!(begin(&connection, &[]), Ok(false));
        connection.end();
        scan.observe(b"x HTTP/1.1\r\n\r\nGET /b#c HTTP/1.1\r\n\r\n", &connection);
        assert_eq!(begin(&connection, &[]), Ok(true), "its line was not seen whole, and there is a #");
        connection.end();
        assert_eq!(begin(&connection, &[]), Ok(true));
        connection.end();
        scan.observe(b"GET /a HTTP/1.1\r\n\r\n", &connection);
        assert_eq!(begin(&connection, &[]), Ok(false), "a line seen whole is judged alone");
    }

    #[test]
    fn length_beside_chunked_closes() {
        for (head, closes) in [
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nContent-LENGTH: 3\r\nTransfer-Encoding: chunked\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", true),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r", true),
            ("\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", true),
            ("\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", false),
        ] {
            let (connection, mut scan) = (connection(), Scan::default());
            scan.observe(head.as_bytes(), &connection);
            assert_eq!(begin(&connection, &["chunked"]), Ok(false));
            assert_eq!(connection.is_last_answer(), closes, "{head}");
        }
    }

    #[test]
    fn other_codings_are_refused() {
        for codings in [vec!["gzip, chunked"], vec!["chunked", "chunked"], vec!["xchunked"]] {
            assert_eq!(begin(&connection(), &codings), Err(BadFraming), "{codings:?}");
        }
    }

    #[test]
    fn it_is_busy_until_the_last_answer_ends() {
        let connection = connection();
        assert_eq!(connection.doing().0, Doing::Accepted);
        let _ = (begin(&connection, &[]), begin(&connection, &[]));
        connection.end();
        assert_eq!(connection.doing().0, Doing::Busy);
        connection.end();
        assert_eq!(connection.doing().0, Doing::Idle);
    }
}
