//! What a server knows of one client connection: who is at the other end, and what it is doing since when.
//!
//! The state is a few atomics, written where bytes arrive and requests begin and end, and read by one timer a
//! connection: a request costs no timer.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use http::{HeaderValue, Method, Version};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{
    CoarseInstant,
    drain::{Drain, Phase},
    message::Head,
};
use crate::telemetry::OpenConnection;

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    peer: Option<IpAddr>,
    peer_value: Option<HeaderValue>,
    tls: bool,
    drain: Drain,
    start: CoarseInstant,
    /// Milliseconds since `start`, and a [`Doing`] in the last two bits.
    doing: AtomicU64,
    in_flight: AtomicU32,
    /// HTTP/2, or upgraded: bytes are no longer looked at.
    opaque: AtomicBool,
    close: AtomicBool,
    served: AtomicBool,
    head: AtomicU8,
    /// Requests that an HTTP/2 client took back at once, less those that it let be answered.
    taken_back: AtomicU32,
    /// Bytes of HTTP/2 since the last request, while none was under way.
    chatter: AtomicU32,
    /// Since when writing to the client makes no progress: milliseconds since `start`, plus 1; 0: it does.
    blocked: AtomicU64,
    /// Since when each part of an answer waits that HTTP/2 has no room for: milliseconds since `start`.
    waiting: Mutex<Vec<u64>>,
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
    /// Its target had a fragment, which the parser cut off. Not told of a line that was not seen whole.
    pub fragment: bool,
}

/// The message's framing is ambiguous: to be answered 400, and nothing after it is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadFraming;

impl Doing {
    fn of(word: u64) -> Self {
        match word & 3 {
            0 => Self::Accepted,
            1 => Self::Idle,
            2 => Self::Head,
            _ => Self::Busy,
        }
    }
}

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
            start: CoarseInstant::now(),
            doing: AtomicU64::new(Doing::Accepted as u64),
            in_flight: AtomicU32::new(0),
            opaque: AtomicBool::new(false),
            close: AtomicBool::new(false),
            served: AtomicBool::new(false),
            head: AtomicU8::new(0),
            taken_back: AtomicU32::new(0),
            chatter: AtomicU32::new(0),
            blocked: AtomicU64::new(0),
            waiting: Mutex::default(),
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

    /// A request's head was read. Tells what only the raw bytes say, and stays busy until [`Self::end`], which
    /// wants the time given back.
    pub(super) fn begin(&self, request: &Head) -> (u32, Result<Raw, BadFraming>) {
        self.in_flight.fetch_add(1, Relaxed);
        self.served.store(true, Relaxed);
        let since = self.set(Doing::Busy);
        if request.version >= Version::HTTP_2 {
            self.chatter.store(0, Relaxed);
            return (since, Ok(Raw::default()));
        }
        let head = self.head.swap(0, Relaxed);
        (since, check_framing(request).map(|()| Raw { fragment: head & LINE_HASH != 0 }))
    }

    /// The answer to a request that came at `since` was sent, or given up before there was one.
    pub(super) fn end(&self, since: u32, answered: bool) {
        if self.in_flight.fetch_sub(1, Relaxed) == 1 {
            self.set(Doing::Idle);
        }
        let taken_back = self.taken_back.load(Relaxed);
        if answered && taken_back > 0 {
            self.taken_back.store(taken_back - 1, Relaxed);
        } else if !answered && (self.elapsed_ms() as u32).wrapping_sub(since) < AT_ONCE_MS {
            self.taken_back.store(taken_back.saturating_add(1), Relaxed);
        }
    }

    /// Whether the client keeps us busy with requests it takes back, or with what is no request at all.
    pub(super) fn is_flood(&self, most_chatter: u32) -> bool {
        self.taken_back.load(Relaxed) > MOST_TAKEN_BACK || self.chatter.load(Relaxed) > most_chatter
    }

    /// Gives back the time, modulo 2^32 ms.
    pub(super) fn set(&self, doing: Doing) -> u32 {
        let now = self.elapsed_ms();
        self.doing.store((now << 2) | doing as u64, Relaxed);
        now as u32
    }

    /// What it is doing.
    pub(super) fn current(&self) -> Doing {
        Doing::of(self.doing.load(Relaxed))
    }

    /// What it is doing, and for how long.
    pub(super) fn doing(&self) -> (Doing, Duration) {
        let word = self.doing.load(Relaxed);
        (Doing::of(word), Duration::from_millis(self.elapsed_ms().saturating_sub(word >> 2)))
    }

    /// For how long the client has taken nothing of what we want to send, or of one of its answers.
    pub(super) fn blocked(&self) -> Duration {
        let socket = self.blocked.load(Relaxed).checked_sub(1);
        let answer = self.waiting.lock().iter().min().copied();
        let since = socket.into_iter().chain(answer).min();
        since.map_or(Duration::ZERO, |since| Duration::from_millis(self.elapsed_ms().saturating_sub(since)))
    }

    /// A part of an answer was handed over, and waits for room from the returned time on.
    pub(super) fn waits(&self) -> u64 {
        let since = self.elapsed_ms();
        self.waiting.lock().push(since);
        since
    }

    /// What waited since `since` was taken, or given up.
    pub(super) fn taken(&self, since: u64) {
        let mut waiting = self.waiting.lock();
        // Those of the same time are alike.
        if let Some(at) = waiting.iter().position(|other| *other == since) {
            waiting.swap_remove(at);
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
        self.start.elapsed_ms()
    }
}

/// Looks at an HTTP/1 client's bytes as they arrive: begins the head's time, and sees what the parser hides.
#[derive(Debug, Default)]
pub(super) struct Scan {
    in_line: bool,
    spaces: u8,
    hash: bool,
    /// Bytes of HTTP/2 so far, while nothing was asked.
    greeting: usize,
}

impl Scan {
    /// At the beginning of a request.
    pub(super) fn within_line() -> Self {
        Self { in_line: true, ..Self::default() }
    }

    /// `bytes` were read, and go to the parser next.
    pub(super) fn observe(&mut self, bytes: &[u8], connection: &Connection) {
        if bytes.is_empty() {
            return;
        }
        if connection.is_opaque() {
            return self.greet(bytes.len(), connection);
        }
        if let Doing::Accepted | Doing::Idle = connection.current() {
            connection.set(Doing::Head);
            connection.head.store(0, Relaxed);
            *self = Self::within_line();
        }
        if self.in_line {
            self.line(bytes, connection);
        }
    }

    /// With its preface and SETTINGS HTTP/2 is established, and idle until a request comes.
    fn greet(&mut self, read: usize, connection: &Connection) {
        match connection.current() {
            Doing::Accepted => {}
            Doing::Idle => {
                let before = connection.chatter.load(Relaxed);
                let more = u32::try_from(read).unwrap_or(u32::MAX);
                return connection.chatter.store(before.saturating_add(more), Relaxed);
            }
            Doing::Head | Doing::Busy => return,
        }
        self.greeting = self.greeting.saturating_add(read);
        if self.greeting >= GREETING {
            connection.set(Doing::Idle);
        }
    }

    /// Reads on in the request line.
    fn line(&mut self, bytes: &[u8], connection: &Connection) {
        let fresh = self.spaces == 0 && !self.hash;
        let skip = if fresh { bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count() } else { 0 };
        let bytes = &bytes[skip..];
        let end = memchr::memchr(b'\n', bytes);
        let line = &bytes[..end.unwrap_or(bytes.len())];
        self.spaces = self.spaces.saturating_add(u8::try_from(memchr::memchr_iter(b' ', line).count()).unwrap_or(3));
        self.hash |= memchr::memchr(b'#', line).is_some();
        if end.is_some() {
            self.in_line = false;
            // Method, target, version: seen whole. Anything else is the rest of something begun earlier.
            let version = line.strip_suffix(b"\r").unwrap_or(line);
            let whole = self.spaces == 2 && (version.ends_with(b" HTTP/1.1") || version.ends_with(b" HTTP/1.0"));
            connection.head.store(if whole && self.hash { LINE_HASH } else { 0 }, Relaxed);
        }
    }
}

/// Codings other than `chunked` alone are refused: they would be lost on the way. A Content-Length beside it is
/// dropped by the parser, which closes the connection after the answer (RFC 9112 section 6.1).
fn check_framing(request: &Head) -> Result<(), BadFraming> {
    let mut codings = request.fields.all("transfer-encoding");
    let Some(coding) = codings.next() else { return Ok(()) };
    let chunked = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    if chunked && request.method != Method::CONNECT { Ok(()) } else { Err(BadFraming) }
}

/// A request taken back sooner than this is none that its client had second thoughts about.
const AT_ONCE_MS: u32 = 1000;
/// So many more requests may be taken back at once than answered.
const MOST_TAKEN_BACK: u32 = 200;
/// There is a `#` in the request line, which was seen whole.
const LINE_HASH: u8 = 1;
/// HTTP/2's preface and the head of a SETTINGS frame (RFC 9113 section 3.4).
const GREETING: usize = 24 + 9;

#[cfg(test)]
mod tests {
    use http::header::TRANSFER_ENCODING;

    use super::*;
    use crate::telemetry::{Door, Metrics};

    fn connection() -> Connection {
        let open = Metrics::new().connection_opened(Door::Proxy);
        Connection::new(Some("::ffff:10.0.0.1".parse().unwrap()), false, Drain::new(), mpsc::channel(1).0, open)
    }

    fn begin(connection: &Connection, coding: &[&str]) -> Result<bool, BadFraming> {
        let codings = coding.iter().map(|value| (TRANSFER_ENCODING, HeaderValue::from_str(value).unwrap()));
        let request = Head { fields: codings.collect(), ..Head::default() };
        connection.begin(&request).1.map(|raw| raw.fragment)
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
    fn what_is_no_request_line_refuses_nothing() {
        let (connection, mut scan) = (connection(), Scan::default());
        scan.observe(b"POST /a HTTP/1.1\r\nX: #\r\n\r\n# GET /c#d HTTP/1.1\r\nGET /a", &connection);
        assert_eq!(begin(&connection, &[]), Ok(false));
        connection.end(0, true);
        scan.observe(b"x HTTP/1.1\r\nX: #\r\n\r\nGET /b#c HTTP/1.1\r\n\r\n", &connection);
        assert_eq!(begin(&connection, &[]), Ok(false), "its line was not seen whole");
        connection.end(0, true);
        assert_eq!(begin(&connection, &[]), Ok(false), "nor was this one's");
        connection.end(0, true);
        scan.observe(b"X: a #\r\n\r\n", &connection);
        assert_eq!(begin(&connection, &[]), Ok(false), "the end of a field");
        connection.end(0, true);
        scan.observe(b"GET /b#c HTTP/1.1\r\n\r\n", &connection);
        assert_eq!(begin(&connection, &[]), Ok(true), "a line seen whole is judged alone");
    }

    #[test]
    fn http2_is_idle_once_it_is_established() {
        let (connection, mut scan) = (connection(), Scan::default());
        connection.set_opaque();
        scan.observe(&[0; GREETING - 1], &connection);
        assert_eq!(connection.current(), Doing::Accepted);
        scan.observe(&[0], &connection);
        assert_eq!(connection.current(), Doing::Idle);
    }

    #[test]
    fn requests_taken_back_at_once_are_a_flood_unless_others_are_answered() {
        let connection = connection();
        let request = |answered| {
            let (since, _) = connection.begin(&Head::default());
            connection.end(since, answered);
        };
        (0..MOST_TAKEN_BACK).for_each(|_| request(false));
        assert!(!connection.is_flood(0));
        request(true);
        request(false);
        assert!(!connection.is_flood(0), "they make up for each other");
        request(false);
        assert!(connection.is_flood(0));
        let patient = self::connection();
        let (since, _) = patient.begin(&Head::default());
        (0..=MOST_TAKEN_BACK).for_each(|_| patient.end(since.wrapping_sub(AT_ONCE_MS), false));
        assert!(!patient.is_flood(0), "who waited a while may give up");
    }

    #[test]
    fn chatter_without_requests_is_counted_while_idle() {
        let (connection, mut scan) = (connection(), Scan::default());
        connection.set_opaque();
        scan.observe(&[0; GREETING], &connection);
        scan.observe(&[0; 100], &connection);
        assert!(connection.is_flood(99) && !connection.is_flood(100));
        let request = Head { version: Version::HTTP_2, ..Head::default() };
        let (since, _) = connection.begin(&request);
        scan.observe(&[0; 100], &connection);
        assert!(!connection.is_flood(0), "an upload");
        connection.end(since, true);
        scan.observe(&[0; 100], &connection);
        assert!(connection.is_flood(99));
    }

    #[test]
    fn the_longest_wait_counts() {
        let connection = connection();
        assert_eq!(connection.blocked(), Duration::ZERO);
        let early = connection.waits();
        std::thread::sleep(Duration::from_millis(50));
        let late = connection.waits();
        assert!(connection.blocked() >= Duration::from_millis(25), "by a clock that ticks every few milliseconds");
        connection.taken(early);
        assert_eq!(*connection.waiting.lock(), [late]);
        connection.taken(late);
        assert_eq!(connection.blocked(), Duration::ZERO);
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
        connection.end(0, true);
        assert_eq!(connection.doing().0, Doing::Busy);
        connection.end(0, true);
        assert_eq!(connection.doing().0, Doing::Idle);
    }
}
