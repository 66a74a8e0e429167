//! The stand tested by itself, without a gate: a stand that sees nothing proves nothing.

use super::{
    BOTH, Backend, Client, H2Backend, Idp, Mood, RawAnswer, Request, Via, block_on, gate::needles, http_get, raw_h2,
    send,
};

fn port_of(authority: &str) -> u16 {
    authority.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap()
}

#[test]
fn the_upstream_tells_and_records() {
    let upstream = Backend::start("production");
    let port = port_of(&upstream.authority());
    let request = Request::post("/a/{m}?b").header("x-a", "1").trailer("x-t", "2");
    let answer = block_on(send(port, Via::H1, &request));
    assert_eq!((answer.status, answer.json()["body_len"].as_u64()), (200, Some(5)), "{answer:?}");
    assert_eq!(answer.forwarded_field("X-A"), ["1"]);
    assert_eq!(answer.json()["trailers"], "x-t: 2\n");
    assert!(upstream.saw(&request.mark) && !upstream.saw("never sent"));
    assert_eq!((upstream.times(&request.mark), upstream.connections()), (2, 1), "in target and mark");
    let trailers = block_on(send(port, Via::H1, &Request::get("/").script("trailers"))).trailers;
    assert_eq!(trailers, [("x-checksum".to_owned(), "42".to_owned())]);
    assert_eq!(block_on(send(port, Via::H1, &Request::get("/").script("reset"))).status, 0);
    let events = block_on(send(port, Via::H1, &Request::get("/").script("events:2")));
    assert!(events.text().ends_with("data: 1\n\n"), "{events:?}");
}

#[test]
fn a_connection_is_kept_and_its_end_is_seen() {
    let upstream = Backend::start("production");
    block_on(async {
        let mut client = Client::connect(port_of(&upstream.authority())).await.unwrap();
        for _ in 0..3 {
            assert_eq!(client.call(&Request::get("/{m}")).await.status, 200);
        }
        assert_eq!(client.call(&Request::get("/{m}").script("until-close")).await.status, 200);
        assert!(client.closes().await);
    });
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn http2_clients_agree() {
    let upstream = H2Backend::start();
    let port = port_of(&upstream.url());
    let request = Request::post("/a/{m}").header("content-type", "application/grpc").trailer("x-t", "1");
    let answer = block_on(send(port, Via::H2, &request));
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{answer:?}");
    assert!(answer.trailers.contains(&("x-request-trailers".into(), "x-t".into())), "{answer:?}");
    assert!(upstream.saw(&request.mark));
    // A fragment cannot be said through the library: it goes as raw frames.
    let answer = block_on(send(port, Via::H2, &Request::get("/a#b")));
    assert!(answer.status_only && answer.status == 200, "{answer:?}");
    let fields = vec![(":method".to_owned(), b"GET".to_vec()), (":path".to_owned(), b"no-slash".to_vec())];
    assert!(matches!(block_on(raw_h2(port, &fields, b"")), RawAnswer::Reset(_) | RawAnswer::GoAway(_)));
}

#[test]
fn the_provider_shows_every_mood() {
    let idp = Idp::start();
    let (_, rest) = idp.issuer().split_once("127.0.0.1:").unwrap();
    let port = rest.split('/').next().and_then(|port| port.parse().ok()).unwrap();
    let keys = || http_get(port, "/realms/shop/jwks");
    let metadata = || http_get(port, "/realms/shop/.well-known/openid-configuration");
    assert_eq!(metadata().json()["issuer"], idp.issuer());
    assert_eq!(keys().json()["keys"].as_array().map(Vec::len), Some(5));
    for (mood, status) in
        [(Mood::Broken, 500), (Mood::Html, 200), (Mood::Empty, 200), (Mood::Redirect, 302), (Mood::Slow(5), 200)]
    {
        idp.mood(mood);
        assert_eq!(keys().status, status, "{mood:?}");
    }
    idp.mood(Mood::OtherIssuer);
    assert_ne!(metadata().json()["issuer"], idp.issuer());
    assert_eq!((idp.discoveries(), idp.key_fetches()), (2, 6));
    idp.stop();
    assert_eq!(keys().status, 0);
    idp.restart();
    assert_eq!(keys().status, 200);
}

#[test]
fn token_text_is_found_in_pieces() {
    let token = format!("{}.{}.{}", "h".repeat(30), "p".repeat(30), "s".repeat(30));
    let found = needles(&token);
    assert_eq!(found, ["p", "p", "s", "s"].map(|c| c.repeat(20)), "the header is like any other's");
    assert!(needles("garbage").is_empty());
    assert_eq!(BOTH.len(), 2);
}
