//! Quotas of bytes, events and tokens through the door: what is counted as it passes, and what is refused then.

use std::ops::Deref;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest as _};

use crate::support::{
    Answer, Client, H2Backend, Place, Request, Token, Via, api, application, block_on, resource, subscription,
};

/// Windows of a day, so that no test meets the end of one but at midnight.
const TIERS: &str = "
[[tiers]]
name = \"Bytes\"
bytes = \"1KiB\"
per = \"1d\"
[[tiers]]
name = \"Events\"
events = 5
per = \"1d\"
[[tiers]]
name = \"Tokens\"
tokens = 100
requests = 5
per = \"1d\"
";

/// With an upstream for gRPC beside.
struct Models {
    place: Place,
    grpc: H2Backend,
}

/// A gate with an API of each kind, and a client of each tier's name.
fn place() -> Models {
    let (grpc, models) = (H2Backend::start(), "upstream = \"UP\"\ntoken_usage = { header = \"x-tokens\" }");
    let calls = format!("upstream = \"{}\"", grpc.url());
    let apis = api("Models", "/models", None, models)
        + &resource("/{id}", "")
        + &api("Calls", "/calls", None, &calls)
        + &resource("/{id}", "");
    let clients: String = ["Bytes", "Events", "Tokens"]
        .iter()
        .map(|tier| {
            let subscribed = ["Orders:v1", "Models", "Calls"].map(|api| subscription(tier, api, tier, "UNBLOCKED"));
            application(tier, tier, "Unlimited", "") + &subscribed.concat()
        })
        .collect();
    let place = Place::start(&format!("{TIERS}{apis}{clients}\n[throttle]\nheaders = true\n"));
    Models { place, grpc }
}

impl Deref for Models {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Models {
    fn send(&self, tier: &str, via: Via, request: Request) -> Answer {
        block_on(self.gate.send(via, &request.bearer(Token::of(&self.idp, tier).sign())))
    }

    /// The upstream answers what it is sent, as what `kind` says.
    fn reply(&self, tier: &str, kind: &str, body: &str) -> Answer {
        self.send(tier, Via::H1, Request::post("/models/{m}").script(&format!("reply:{kind}")).body(body))
    }

    fn unknown(&self) -> f64 {
        self.gate.metric("tollgate_throttle_tokens_unknown_total", &[])
    }
}

fn code(answer: &Answer) -> (u16, String) {
    let code =
        if answer.status == 200 { String::new() } else { answer.json()["code"].as_str().unwrap_or("").to_owned() };
    (answer.status, code)
}

fn refused() -> (u16, String) {
    (429, "900804".to_owned())
}

#[test]
fn bytes_of_both_bodies_count() {
    let place = place();
    for via in [Via::H1, Via::H2] {
        // 256 there and 256 back, so that the limit is reached exactly after two.
        let request = Request::post("/models/{m}").script("reply:text/plain").body("x".repeat(256));
        let answer = place.send("Bytes", via, request);
        assert_eq!(answer.text().len(), 256, "{via:?} {answer:?}");
        assert_eq!(answer.header("ratelimit-policy"), Some("\"Bytes\";q=1024;w=86400;qu=\"content-bytes\""));
    }
    let last = place.reply("Bytes", "text/plain", "");
    assert_eq!(code(&last), refused(), "{last:?}");
    assert_eq!(place.reply("Tokens", "text/plain", "others are not affected").status, 200);
}

#[test]
fn a_body_that_passes_the_limit_midway_is_passed_on_whole() {
    let place = place();
    let answer = place.reply("Bytes", "text/plain", &"x".repeat(100_000));
    assert_eq!((answer.status, answer.text().len()), (200, 100_000));
    assert_eq!(code(&place.reply("Bytes", "text/plain", "")), refused());
}

#[test]
fn server_sent_events_count() {
    let place = place();
    let events = |n| place.send("Events", Via::H1, Request::get("/models/{m}").script(&format!("events:{n}")));
    assert_eq!(events(3).status, 200);
    // Two are left: a stream that has begun goes on.
    let answer = events(3);
    assert!(answer.status == 200 && answer.text().ends_with("data: 2\n\n"), "{answer:?}");
    assert_eq!(code(&events(1)), refused());
    assert!(place.upstream.saw("accept-encoding: identity"));
}

#[test]
fn a_stream_that_is_open_is_counted_by_its_tier_across_a_reload() {
    let place = place();
    let token = Token::of(&place.idp, "Events").sign();
    let reloads = || place.gate.metric("tollgate_config_reloads_total", &["outcome=\"ok\""]);
    block_on(async {
        let mut client = Client::connect(place.gate.ports.proxy).await.unwrap();
        let head = format!(
            "POST /models/1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\nx-script: echo:text/event-stream\r\n\
             transfer-encoding: chunked\r\n\r\n"
        );
        client.write(head.as_bytes()).await.unwrap();
        let within = std::time::Duration::from_secs(60);
        let answer = tokio::time::timeout(within, client.read_head()).await.unwrap().unwrap();
        assert_eq!(answer.status, 200);
        // Two before, two after.
        for n in 0..4 {
            if n == 2 {
                let other = api("Other", "/other", None, "upstream = \"echo:\"") + &resource("/*", "");
                place.gate.reload(&(place.gate.config_text() + &other));
                place.gate.wait_for("the reload", || reloads() >= 1.0);
            }
            client.write(format!("9\r\ndata: {n}\n\n\r\n").as_bytes()).await.unwrap();
            let mut text = Vec::new();
            while !text.windows(2).any(|end| end == b"\n\n") {
                let more = tokio::time::timeout(within, client.more()).await.unwrap();
                assert!(!more.is_empty(), "ended early");
                text.extend(more);
            }
        }
    });
    let event = || place.reply("Events", "text/event-stream", "data: x\n\n");
    assert_eq!(event().status, 200, "the fifth");
    assert_eq!(code(&event()), refused(), "it is open no more, or its events were not counted");
}

#[test]
fn what_are_no_events_count_as_none() {
    let place = place();
    for _ in 0..7 {
        assert_eq!(place.reply("Events", "text/event-stream", ": a comment\n\nevent: x\n\n").status, 200);
        assert_eq!(place.reply("Events", "application/json", "{}").status, 200);
    }
    let five = "data: a\r\rdata\n\ndata:\r\n\r\ndata: 4\ndata: 4\n\ndata: 5\n\ndata: unended";
    assert_eq!(place.reply("Events", "text/event-stream; charset=utf-8", five).status, 200);
    assert_eq!(code(&place.reply("Events", "application/json", "{}")), refused());
}

#[test]
fn grpc_messages_count_both_ways() {
    let place = place();
    let call = |messages: &[&str]| {
        let body: Vec<u8> = messages
            .iter()
            .flat_map(|text| [&[0, 0, 0, 0, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat())
            .collect();
        let request =
            Request::post("/calls/{m}").header("content-type", "application/grpc+proto; charset=x").body(body);
        place.send("Events", Via::H2, request)
    };
    // Two there and two back; then the fifth and one more.
    assert_eq!(call(&["", "two"]).header("grpc-status"), None);
    assert_eq!(call(&["three"]).header("grpc-status"), None);
    let refused = call(&["four"]);
    assert_eq!((refused.status, refused.header("grpc-status")), (200, Some("8")), "{refused:?}");
    assert!(place.grpc.saw("application/grpc+proto"));
}

#[test]
fn web_socket_messages_count_and_the_one_beyond_closes() {
    let place = place();
    let token = Token::of(&place.idp, "Events").sign();
    let open = || async {
        let mut request = "ws://api.example.com/models/socket".into_client_request().unwrap();
        request.headers_mut().insert("x-script", "upgrade".parse().unwrap());
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", place.gate.ports.proxy)).await.unwrap();
        tokio_tungstenite::client_async(request, stream).await
    };
    let within = std::time::Duration::from_secs(60);
    block_on(async {
        let (mut socket, _) = open().await.unwrap();
        for text in ["one", "two"] {
            socket.send(Message::text(text)).await.unwrap();
            let echoed = tokio::time::timeout(within, socket.next()).await.unwrap();
            assert_eq!(echoed.unwrap().unwrap(), Message::text(text));
        }
        // Pings are no events. The fifth passes, what it is answered does not.
        socket.send(Message::Ping("p".into())).await.unwrap();
        socket.send(Message::text("three")).await.unwrap();
        let close = loop {
            match tokio::time::timeout(within, socket.next()).await.unwrap().unwrap().unwrap() {
                Message::Close(frame) => break frame.unwrap(),
                Message::Text(text) => panic!("passed: {text}"),
                _ => {}
            }
        };
        assert_eq!((u16::from(close.code), close.reason.as_str()), (4003, "Websocket frame throttled out"));
        match open().await {
            Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 429),
            other => panic!("should be refused: {other:?}"),
        }
    });
    let labels = ["level=\"subscription\"", "tier=\"Events\""];
    assert_eq!(place.gate.metric("tollgate_throttled_total", &labels), 2.0, "one was closed, one refused");
}

#[test]
fn tokens_are_told_by_header_field_or_event() {
    let rows = [
        ("application/json", "{\"usage\":{\"prompt_tokens\":1,\"total_tokens\":60}}"),
        ("application/problem+json; charset=utf-8", "{\"usage\":{\"total_tokens\":60},\"choices\":[]}"),
        (
            "text/event-stream",
            "data: {\"usage\":{\"total_tokens\":3}}\n\ndata: {\"usage\":{\"total_tokens\":60}}\n\ndata: [DONE]\n\n",
        ),
    ];
    for (kind, body) in rows {
        let place = place();
        let policies = [0, 1].map(|_| {
            let answer = place.reply("Tokens", kind, body);
            assert_eq!((answer.status, answer.text().as_str()), (200, body), "{kind}");
            answer.header("ratelimit-policy").unwrap_or_default().to_owned()
        });
        // The tightest is told: requests at first, then tokens.
        assert_eq!(policies, ["\"Tokens\";q=5;w=86400", "\"Tokens\";q=100;w=86400;qu=\"tokens\""], "{kind}");
        assert_eq!(code(&place.reply("Tokens", kind, body)), refused(), "{kind}");
        assert_eq!(place.unknown(), 0.0, "{kind}");
    }
    // The header goes before the field.
    let place = place();
    let request = || {
        let request = Request::post("/models/{m}").script("reply:application/json").header("x-tokens", "100");
        request.body("{\"usage\":{\"total_tokens\":1}}")
    };
    assert_eq!(place.send("Tokens", Via::H1, request()).status, 200);
    assert_eq!(code(&place.send("Tokens", Via::H1, request())), refused());
}

#[test]
fn a_body_that_says_it_is_not_encoded_is_read() {
    let place = place();
    let plain = Request::post("/models/{m}").script("reply:application/json").header("content-encoding", "Identity");
    let plain = plain.body("{\"usage\":{\"total_tokens\":100}}");
    assert_eq!(place.send("Tokens", Via::H1, plain).status, 200);
    assert_eq!(place.unknown(), 0.0);
    assert_eq!(code(&place.reply("Tokens", "application/json", "{}")), refused());
}

#[test]
fn tokens_that_are_not_told_are_unknown_and_counted_so() {
    let place = place();
    assert_eq!(place.reply("Tokens", "application/json", "{\"usage\":null}").status, 200);
    assert_eq!(place.reply("Tokens", "text/plain", "usage: 7").status, 200);
    let compressed = Request::post("/models/{m}").script("reply:application/json").header("content-encoding", "gzip");
    let compressed = compressed.body("{\"usage\":{\"total_tokens\":100}}");
    assert_eq!(place.send("Tokens", Via::H1, compressed).status, 200);
    assert_eq!(place.unknown(), 3.0);
    let twice = Request::post("/models/{m}").script("reply:application/json").header("content-encoding", "identity");
    let twice = twice.header("content-encoding", "gzip").body("{\"usage\":{\"total_tokens\":100}}");
    assert_eq!(place.send("Tokens", Via::H1, twice).status, 200);
    assert_eq!(place.unknown(), 4.0, "each field is read");
    // A failure uses none; its requests count as any.
    assert_eq!(place.send("Tokens", Via::H1, Request::get("/models/{m}").script("status:500")).status, 500);
    assert_eq!(place.unknown(), 4.0);
    let last = place.reply("Tokens", "application/json", "{}");
    assert_eq!(code(&last), refused());
    assert_eq!(last.header("ratelimit-policy"), Some("\"Tokens\";q=5;w=86400"), "the requests have run out");
}
