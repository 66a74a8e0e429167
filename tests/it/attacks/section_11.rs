//! 11: HTTP/2 message and frame floods. Each ends with the connection, and others notice nothing.

use std::{iter::repeat_n, time::Duration};

use super::Section;
use crate::support::{
    Flood, Form, RawAnswer, RawH2, Request, Via, World, block_on,
    frame::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    },
    raw_block, raw_frame, unique, world,
};

pub(super) const SECTION: Section = Section {
    cases: |_| Vec::new(),
    tests: &[
        ("N01", "requests_taken_back_at_once_…, requests_taken_back_while_they_are_answered_end_the_connection"),
        ("N02", "requests_made_to_be_reset_end_the_connection"),
        ("N03", "an_endless_head_ends_the_connection"),
        ("N04", "a_head_that_grows_when_read_is_refused, net::server: an_http2_client_without_a_window_is_cut"),
        ("N05", "floods_of_empty_frames_end_the_connection"),
    ],
    waits: &[],
};

/// A request's head that ends it, on `stream`.
fn head(stream: u32, end: bool) -> Vec<u8> {
    let path = format!("/orders/v1/public/{}", unique());
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", path.as_str()), (":authority", "a")];
    raw_frame(HEADERS, END_HEADERS | u8::from(end), stream, &raw_block(&fields))
}

/// Sends a flood to the shared gate, while others call. What the gate says, and counts.
fn flood(settings: &[u8], frames: impl Iterator<Item = Vec<u8>>) -> Flood {
    let world = world(Form::Wso2);
    let (flood, ()) = block_on(async {
        let connection = RawH2::open(world.gate.ports.proxy, settings).await;
        tokio::join!(connection.flood(frames), others(world))
    });
    assert!(world.gate.alive());
    flood
}

/// A few calls of others, each served.
async fn others(world: &World) {
    for _ in 0..10 {
        let answer = world.gate.send(Via::H1, &Request::get("/orders/v1/public/{m}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

fn is_ended(flood: &Flood) -> bool {
    matches!(flood.end, RawAnswer::GoAway(_) | RawAnswer::Closed)
}

/// Client's stream ids from 1 on.
fn streams(n: u32) -> impl Iterator<Item = u32> {
    (0..n).map(|n| 2 * n + 1)
}

#[test]
fn requests_taken_back_at_once_end_the_connection() {
    let cancel = |stream| raw_frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    let frames = streams(1_000_000).map(|stream| [head(stream, true), cancel(stream)].concat());
    let flood = flood(&[], frames);
    assert!(is_ended(&flood), "{flood:?}");
    assert!(flood.sent < BUFFERED, "long before the end: {flood:?}");
}

#[test]
fn requests_taken_back_while_they_are_answered_end_the_connection() {
    let marks: Vec<String> = (0..1000).map(|_| unique()).collect();
    let slow = |stream, mark: &str| {
        let path = format!("/orders/v1/public/{mark}");
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", path.as_str()), (":authority", "a")];
        let block = [raw_block(&pseudo), raw_block(&[("x-script", "slow:3000")])].concat();
        raw_frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
    };
    let cancel = |stream| raw_frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    // Each is under way for a moment before it is taken back, so that it costs a verdict.
    let frames = streams(1000).zip(&marks).flat_map(|(stream, mark)| [slow(stream, mark), cancel(stream)]);
    let flood = flood(&[], frames.inspect(|_| std::thread::sleep(PAUSE)));
    assert!(is_ended(&flood), "{flood:?}");
    let upstream = &world(Form::Wso2).upstream;
    let forwarded = marks.iter().filter(|mark| upstream.saw(mark)).count();
    assert!(forwarded < 500, "long before the end: {forwarded}");
}

#[test]
fn requests_made_to_be_reset_end_the_connection() {
    // A window that grows by nothing is a stream's error (RFC 9113 section 6.9).
    let bad = |stream| raw_frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes());
    let frames = streams(10_000).map(|stream| [head(stream, false), bad(stream)].concat());
    let flood = flood(&[], frames);
    assert!(is_ended(&flood), "{flood:?}");
    assert!(flood.answers <= 600, "{flood:?}");
}

#[test]
fn an_endless_head_ends_the_connection() {
    for piece in [0, 1, 1000] {
        let piece = raw_frame(CONTINUATION, 0, 1, &vec![0; piece]);
        let first = raw_frame(HEADERS, 0, 1, &raw_block(&[(":method", "GET")]));
        let flood = flood(&[], std::iter::once(first).chain(repeat_n(piece, 100_000)));
        assert!(is_ended(&flood), "{flood:?}");
        assert!(flood.sent < BUFFERED, "{flood:?}");
    }
}

#[test]
fn a_head_that_grows_when_read_is_refused() {
    let world = world(Form::Wso2);
    let memory = || world.gate.metric("process_resident_memory_bytes", &[]);
    let before = memory();
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/orders/v1/public/1"), (":authority", "a")];
    // A field of 4,000 bytes goes into the table once, and is then one byte.
    let mut large = vec![0x40, 1, b'x', 127, 0xa1, 0x1e];
    large.extend([b'v'; 4000]);
    let reference = 0x80 | 62;
    let crumbs = raw_block(&[("cookie", "a")]);
    for (name, block) in [
        ("references", [raw_block(&pseudo), large, vec![reference; 16_000]].concat()),
        ("crumbs", [raw_block(&pseudo), crumbs.repeat(1500)].concat()),
    ] {
        let block = &block[..block.len().min(16_384)];
        let frames = streams(20).map(|stream| raw_frame(HEADERS, END_HEADERS | END_STREAM, stream, block));
        // Without a window for any answer.
        let flood = flood(&[0, 4, 0, 0, 0, 0], frames);
        let refused = matches!(flood.end, RawAnswer::Status(431) | RawAnswer::Reset(_)) || is_ended(&flood);
        assert!(refused, "{name}: {flood:?}");
    }
    let grown = (memory() - before) / f64::from(1 << 20);
    assert!(grown < 32.0, "{grown} MiB");
}

#[test]
fn floods_of_empty_frames_end_the_connection() {
    let post = |stream| {
        let path = format!("/orders/v1/public/{}", unique());
        let fields = [(":method", "POST"), (":scheme", "http"), (":path", path.as_str()), (":authority", "a")];
        raw_frame(HEADERS, END_HEADERS, stream, &raw_block(&fields))
    };
    let data = raw_frame(DATA, 0, 1, &[]);
    let ping = raw_frame(PING, 0, 0, &[0; 8]);
    let settings = raw_frame(SETTINGS, 0, 0, &[]);
    let priority = raw_frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
    let unknown = raw_frame(0xfa, 0, 0, &[0; 64]);
    for (name, first, frame) in [
        ("empty DATA", post(1), data),
        ("PING", Vec::new(), ping),
        ("SETTINGS", Vec::new(), settings),
        ("PRIORITY", Vec::new(), priority),
        ("unknown", Vec::new(), unknown),
    ] {
        let batch = frame.repeat((64 << 10) / frame.len());
        let flood = flood(&[], std::iter::once(first).chain(repeat_n(batch, 4096)));
        assert!(is_ended(&flood), "{name}: {flood:?}");
        assert!(flood.sent < BUFFERED, "{name}: {flood:?}");
    }
    let world = world(Form::Wso2);
    assert!(world.gate.metric("tollgate_connection_errors_total", &["reason=\"http2\""]) >= 1.0);
}

const PAUSE: Duration = Duration::from_millis(1);
/// What a server has not read waits in the system's buffers: however slow it is, they hold less.
const BUFFERED: usize = 64 << 20;
