//! 10: HTTP/1.1 message parsing.

use super::{Section, run_section};
use crate::support::{Case, Client, Expect, Form, Request, Via, World, block_on, raw_h1, unique, world};

pub(super) const SECTION: Section = Section {
    cases,
    tests: &[
        ("S01", "length_and_chunks_together_smuggle_nothing"),
        ("S02", "odd_transfer_codings_are_refused"),
        ("S03", "odd_lengths_are_refused"),
        ("S05", "http_1_0_chunks_are_not_reused"),
        ("S06", "bytes_after_an_upgrade_are_no_request"),
        ("S07", "a_denied_body_is_no_request"),
        (
            "S13",
            "limits::a_slow_head_is_cut, a_head_in_time_…, a_slow_body_…, an_answer_that_nobody_reads_…, a_stalled_handshake_…",
        ),
        ("S15", "a_body_where_there_is_none_is_dropped"),
        ("S16", "a_denied_expectation_gets_no_100"),
    ],
    waits: &[],
};

#[test]
fn messages() {
    run_section(&SECTION);
}

fn cases(world: &'static World) -> Vec<Case> {
    let good = world.bearer("shop-web");
    let many: Vec<String> = (0..300).map(|n| format!("x-many-{n}")).collect();
    let public = || Request::get("/orders/v1/public/{m}");
    let h1 = |name: &str, expect: Expect, build: fn() -> Request| Case::new(name, expect, build).only(&[Via::H1]);
    let mut all = vec![
        h1("S09 empty name", Expect::Parser(&[400, 0]), || Request::get("/orders/v1/public/{m}").header("", "x")),
        h1("S09 space in a name", Expect::Parser(&[400, 0]), || {
            Request::get("/orders/v1/public/{m}").header("a b", "x")
        }),
        h1("S09 space before the colon", Expect::Parser(&[400, 0]), || {
            Request::get("/orders/v1/public/{m}").header("x-a ", "x")
        }),
        h1("S09 bracket in a name", Expect::Parser(&[400, 0]), || {
            Request::get("/orders/v1/public/{m}").header("a(b", "x")
        }),
        h1("S10 bare CR", Expect::Parser(&[400, 0]), || Request::get("/orders/v1/public/{m}").header("x-a", "1\r2")),
        h1("S10 NUL", Expect::Parser(&[400, 0]), || Request::get("/orders/v1/public/{m}").header("x-a", "1\u{0}2")),
        h1("S10 folded", Expect::Parser(&[400, 0]), || Request::get("/orders/v1/public/{m}").header("x-a", "1\r\n 2")),
        h1("S11 Host with a comma", Expect::BAD, || Request::get("/orders/v1/public/{m}").host("a.example,b.example")),
        h1("S11 Host with user information", Expect::BAD, || {
            Request::get("/orders/v1/public/{m}").host("u@api.example.com")
        }),
        h1("S11 Host with a path", Expect::BAD, || Request::get("/orders/v1/public/{m}").host("api.example.com/x")),
        h1("S11 two Hosts", Expect::BAD, || Request::get("/orders/v1/public/{m}").header("host", "api.example.com")),
        h1("S11 no Host", Expect::BAD, || Request { host: None, ..Request::get("/orders/v1/public/{m}") }),
        Case::new("S12 one huge field", Expect::Parser(&[431, 0]), move || {
            public().header("x-huge", "x".repeat(1 << 20))
        }),
        Case::new("S12 many fields", Expect::Parser(&[431, 0]), move || {
            many.iter().fold(public(), |request, name| request.header(name, "x"))
        }),
        Case::new("S12 long target", Expect::Parser(&[414, 431, 0]), move || {
            Request::get(&format!("/orders/v1/public/{{m}}?{}", "x".repeat(32 << 10)))
        }),
        Case::new(
            "S12 a long target within the head's limit",
            Expect::refused(414, "414", crate::support::Challenge::Absent, "8"),
            move || Request::get(&format!("/orders/v1/public/{{m}}?{}", "x".repeat(9 << 10))),
        ),
    ];
    for (name, script) in [
        ("S14 field with CR", "split"),
        ("S15 101 unasked", "switch"),
        ("S15 coded, and not only in chunks", "odd:coded"),
    ] {
        let token = good.clone();
        all.push(Case::new(name, Expect::failed(502, "101503", "14"), move || {
            Request::get("/orders/v1/plain/{m}").bearer(&token).script(script)
        }));
    }
    all
}

/// Sends bytes that hold two requests by one reading, `MARK` standing for a fresh mark. Gives the status,
/// how often the upstream saw the mark, and whether the connection was closed.
fn smuggle(text: &str) -> (u16, usize, bool) {
    smuggle_before("", text)
}

/// The same where the connection is kept: `next` follows once there is an answer, and is to be its last request.
fn smuggle_before(next: &str, text: &str) -> (u16, usize, bool) {
    let world = world(Form::Wso2);
    let mark = unique();
    let bytes = text.replace("MARK", &mark);
    block_on(async {
        let mut client = Client::connect(world.gate.ports.proxy).await.unwrap();
        client.write(bytes.as_bytes()).await.unwrap();
        let answer = client.read("POST").await;
        let _ = client.write(next.as_bytes()).await;
        let closed = answer.status == 0 || client.closes().await;
        (answer.status, world.upstream.times(&mark), closed)
    })
}

const LAST: &str = "GET /orders/v1/public/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

#[test]
fn length_and_chunks_together_smuggle_nothing() {
    let (status, seen, closed) = smuggle(
        "POST /orders/v1/public/1 HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /orders/v1/public/MARK HTTP/1.1\r\nhost: a\r\n\r\n",
    );
    assert!(closed && seen == 0, "{status} {seen} {closed}");
}

#[test]
fn odd_transfer_codings_are_refused() {
    for coding in [
        "transfer-encoding: chunked, identity",
        "transfer-encoding: xchunked",
        "transfer-encoding:\r\n chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "transfer-encoding : chunked",
        "transfer-encoding: gzip",
        "transfer-encoding: \x0bchunked",
    ] {
        let (status, seen, closed) = smuggle(&format!(
            "POST /orders/v1/public/MARK HTTP/1.1\r\nhost: a\r\n{coding}\r\n\r\n0\r\n\r\nGET /orders/v1/public/MARK HTTP/1.1\r\nhost: a\r\n\r\n"
        ));
        assert!(matches!(status, 400 | 501 | 0) && seen == 0 && closed, "{coding}: {status} {seen} {closed}");
    }
}

#[test]
fn odd_lengths_are_refused() {
    for length in [
        "content-length: +5",
        "content-length: 5,6",
        "content-length: ",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 18446744073709551621",
        "content-length: 0x5",
        "content-length: -1",
        "content-length: 5 5",
    ] {
        let (status, seen, closed) =
            smuggle(&format!("POST /orders/v1/public/MARK HTTP/1.1\r\nhost: a\r\n{length}\r\n\r\nhello"));
        assert!(matches!(status, 400 | 413 | 0) && seen == 0 && closed, "{length}: {status} {seen} {closed}");
    }
}

#[test]
fn odd_chunks_are_refused() {
    for chunks in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
    ] {
        let (status, _, closed) = smuggle(&format!(
            "POST /orders/v1/public/MARK HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"
        ));
        // The head has gone on already; what counts is that the broken body never becomes an answer.
        assert!(!(200..300).contains(&status) && closed, "{chunks:?}: {status} {closed}");
    }
}

#[test]
fn http_1_0_chunks_are_not_reused() {
    let (status, seen, closed) = smuggle(
        "POST /orders/v1/public/1 HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /orders/v1/public/MARK HTTP/1.1\r\nhost: a\r\n\r\n",
    );
    assert!(closed && seen == 0, "{status} {seen} {closed}");
}

#[test]
fn bytes_after_an_upgrade_are_no_request() {
    let (status, seen, closed) = smuggle_before(
        LAST,
        "GET /orders/v1/items/1 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\
         GET /orders/v1/admin/MARK HTTP/1.1\r\nhost: a\r\n\r\n",
    );
    assert!(status == 401 && seen == 0 && closed, "{status} {seen} {closed}");
}

#[test]
fn a_denied_body_is_no_request() {
    let body = "GET /orders/v1/public/MARK HTTP/1.1\r\nhost: a\r\n\r\n";
    for method in ["POST", "GET"] {
        let length = body.len() + "m0000000".len() - "MARK".len();
        let request =
            format!("{method} /orders/v1/items/1 HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}");
        let (status, seen, closed) = smuggle_before(LAST, &request);
        assert!(status == 401 && seen == 0 && closed, "{method} {status} {seen} {closed}");
    }
    // A length announced, no body sent: answered all the same.
    let world = world(Form::Wso2);
    let head = b"POST /orders/v1/items/1 HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n\r\n";
    assert_eq!(block_on(raw_h1(world.gate.ports.proxy, head, "POST")).status, 401);
}

/// What follows a head that has no body is no answer to the next request.
#[test]
fn a_body_where_there_is_none_is_dropped() {
    let world = world(Form::Wso2);
    block_on(async {
        let mut client = Client::connect(world.gate.ports.proxy).await.unwrap();
        for (method, script, status) in [("GET", "odd:204", 204), ("HEAD", "odd:head", 200)] {
            for _ in 0..3 {
                let odd = client.call(&Request::new(method, "/orders/v1/public/{m}").script(script)).await;
                assert_eq!((odd.status, odd.body.len()), (status, 0), "{script} {odd:?}");
                assert_eq!(odd.header("content-length").is_some(), method == "HEAD", "{script} {odd:?}");
                let next = Request::get("/orders/v1/public/{m}");
                let answer = client.call(&next).await;
                assert!(answer.status == 200 && answer.forwarded().contains(&next.mark), "{script} {answer:?}");
            }
        }
    });
}

#[test]
fn a_denied_expectation_gets_no_100() {
    let world = world(Form::Wso2);
    let head = b"POST /orders/v1/items/1 HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    let answer = block_on(raw_h1(world.gate.ports.proxy, head, "POST"));
    assert_eq!((answer.status, answer.interim.len()), (401, 0), "{answer:?}");
}
