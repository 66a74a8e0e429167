//! 9: URL, path and route matching. The whole section.

use super::{Section, run_section};
use crate::support::{BOTH, Case, Expect, Form, RawAnswer, Request, Via, World, block_on, raw_h1, raw_h2, world};

pub(super) const SECTION: Section = Section {
    cases,
    tests: &[
        ("U07", "a_fragment_hides_nothing"),
        ("U14", "what_was_judged_is_what_is_forwarded"),
        ("U17", "cli::two_templates_of_one_shape_are_refused"),
    ],
    waits: &[
        ("U09", "waits for the gRPC decision door"),
        ("U16", "rules have no regular expressions in the design"),
        ("U18", "waits for the Kubernetes tables"),
        ("U21", "waits for client certificates by host"),
    ],
};

#[test]
fn paths() {
    run_section(&SECTION);
}

fn cases(world: &'static World) -> Vec<Case> {
    let mut all = bad_paths();
    all.extend(judged_paths(world));
    all.extend(forms());
    all.extend(hosts(world));
    all.extend(methods(world));
    all
}

/// Paths without a canonical form: 400, whatever else the request brings.
fn bad_paths() -> Vec<Case> {
    let paths = [
        "U01 /orders/v1/public/../admin/{m}",
        "U01 /orders/v1/public/./../admin/{m}",
        "U01 /orders/v1/public/{m}/..",
        "U01 /orders/v1/public/{m}/.",
        "U01 /../orders/v1/public/{m}",
        "U02 /orders/v1/public/%2e%2e/admin/{m}",
        "U02 /orders/v1/public/.%2E/admin/{m}",
        "U02 /orders/v1/public/%2E./admin/{m}",
        "U02 /orders/v1/public/%2e/{m}",
        "U03 /orders/v1/public/..%2Fadmin%2F{m}",
        "U03 /orders/v1/public/a%2f{m}",
        "U03 /orders/v1/public/a%5C{m}",
        "U03 /orders/v1/public/a%5c{m}",
        "U04 /orders/v1/public\\..\\admin\\{m}",
        "U04 /orders/v1/public/\\{m}",
        "U05 //orders/v1/public/{m}",
        "U05 /orders//v1/public/{m}",
        "U05 /orders/v1/public//{m}",
        "U05 /orders/v1/public/{m}//",
        "U05 ///{m}",
        "U06 /orders/v1/public/{m};x=1",
        "U06 /orders/v1/public/..;/admin/{m}",
        "U06 /orders/v1/public/.;/admin/{m}",
        "U06 /orders/v1/a;b/../admin/{m}",
        "U06 /orders/v1/public/{m}%3Bx",
        "U06 /orders/v1/public/{m}%3b",
        "U15 /orders/v1/public/{m}%00",
        "U15 /orders/v1/public/{m}%0a",
        "U15 /orders/v1/public/{m}%0D%0Ax-evil:1",
        "U15 /orders/v1/public/{m}%7f",
        "U15 /orders/v1/public/{m}%1B",
        "U15 /orders/v1/public/%c0%ae%c0%ae/{m}",
        "U15 /orders/v1/public/%C0%AF{m}",
        "U15 /orders/v1/public/%e0%80%af{m}",
        "U15 /orders/v1/public/%ff{m}",
        "U15 /orders/v1/public/%ed%a0%80{m}",
        "U15 /orders/v1/public/%zz{m}",
        "U15 /orders/v1/public/{m}%",
        "U15 /orders/v1/public/{m}%2",
    ];
    let case = |row: &'static str| {
        let target = row.split_once(' ').map_or(row, |(_, target)| target);
        Case::new(row, Expect::BAD, move || Request::get(target))
    };
    paths.into_iter().map(case).collect()
}

/// Paths that are judged as what they mean.
fn judged_paths(world: &World) -> Vec<Case> {
    let good = world.bearer("shop-web");
    let with = |name: &str, expect: Expect, target: &'static str| {
        let token = good.clone();
        Case::new(name, expect, move || Request::get(target).bearer(&token))
    };
    let bare = |name: &str, expect: Expect, target: &'static str| Case::new(name, expect, move || Request::get(target));
    vec![
        with("U02 double encoding stays literal", Expect::Pass, "/orders/v1/wild/%252e%252e/{m}"),
        bare("U08 query in matcher", Expect::M401, "/orders/v1/admin/{m}?x=/orders/v1/public/1"),
        bare("U08 path in the query", Expect::M401, "/orders/v1/admin/{m}?/../public/1"),
        bare("U08 odd query is forwarded", Expect::Pass, "/orders/v1/public/{m}?x=/../%00;//%2F\\"),
        with("U13 path case", Expect::NO_RESOURCE, "/orders/v1/Admin/{m}"),
        with("U13 context case", Expect::NO_API, "/Orders/v1/admin/{m}"),
        bare("U13 decoded once", Expect::M401, "/orders/v1/%61dmin/{m}"),
        bare("U13 decoded context", Expect::M401, "/%6frders/v1/admin/{m}"),
        bare("U14 no prefix of a name", Expect::NO_API, "/ordersx/v1/public/{m}"),
        bare("U14 no prefix of a version", Expect::NO_API, "/orders/v1x/public/{m}"),
        with("U20 default deny", Expect::NO_RESOURCE, "/orders/v1/unknown/{m}"),
        with("U20 deeper than the template", Expect::NO_RESOURCE, "/orders/v1/items/{m}/more"),
        bare("U20 no API", Expect::NO_API, "/unknown/{m}"),
        bare("U20 root", Expect::NO_API, "/"),
        with("U17 the exact template wins", Expect::s403("admin"), "/orders/v1/wild/exact/{m}"),
        with("U17 the wildcard takes the rest", Expect::Pass, "/orders/v1/wild/other/{m}"),
        with("U17 one trailing slash is ignored", Expect::Pass, "/orders/v1/items/{m}/"),
        with("U17 a trailing slash frees nothing", Expect::s403("admin"), "/orders/v1/wild/exact/{m}/"),
    ]
}

fn forms() -> Vec<Case> {
    let raw = |name: &str, expect: Expect, target: &'static str, method: &'static str| {
        Case::new(name, expect, move || Request::new(method, target))
    };
    vec![
        raw("U10 no leading slash", Expect::Parser(&[400, 0]), "orders/v1/public/{m}", "GET"),
        raw("U10 a gRPC name without slash", Expect::Parser(&[400, 0]), "service/method{m}", "POST"),
        raw("U10 empty", Expect::Parser(&[400, 0]), "", "GET"),
        raw("U11 absolute, another authority", Expect::BAD, "http://evil.example/orders/v1/public/{m}", "GET")
            .only(&[Via::H1]),
        raw("U11 absolute, of another scheme", Expect::BAD, "ftp://api.example.com/orders/v1/public/{m}", "GET")
            .only(&[Via::H1]),
        raw("U11 absolute, the same", Expect::Pass, "http://api.example.com/orders/v1/public/{m}", "GET")
            .only(&[Via::H1]),
        raw("U11 absolute, judged like any", Expect::M401, "http://api.example.com/orders/v1/admin/{m}", "GET")
            .only(&[Via::H1]),
        raw(
            "U11 absolute, user information",
            Expect::Parser(&[400]),
            "http://u@api.example.com/orders/v1/public/{m}",
            "GET",
        )
        .only(&[Via::H1]),
        raw("U11 CONNECT", Expect::Parser(&[405]), "api.example.com:443", "CONNECT").only(&[Via::H1]),
        raw("U11 asterisk", Expect::Parser(&[400, 403, 404, 405]), "*", "OPTIONS"),
        raw("U11 asterisk for GET", Expect::Parser(&[400, 403, 404, 405, 0]), "*", "GET"),
    ]
}

fn hosts(world: &World) -> Vec<Case> {
    let good = world.bearer("shop-web");
    let at = |host: &'static str, expect: Expect| {
        let token = good.clone();
        Case::new(format!("U12 host {host}"), expect, move || {
            Request::get("/hosted/v1/items/{m}").bearer(&token).host(host)
        })
    };
    let mut all: Vec<Case> = ["ONLY.Example.COM", "only.example.com.", "only.example.com:80", "Only.example.com.:443"]
        .map(|h| at(h, Expect::Pass))
        .into();
    all.extend(
        ["only.example.com.evil.example", "xonly.example.com", "example.com", "only.example.com.."]
            .map(|h| at(h, Expect::Parser(&[404, 400, 0]))),
    );
    all
}

fn methods(world: &World) -> Vec<Case> {
    let good = world.bearer("shop-web");
    let with = |name: &str, expect: Expect, method: &'static str, target: &'static str| {
        let token = good.clone();
        Case::new(name, expect, move || Request::new(method, target).bearer(&token))
    };
    let override_token = good.clone();
    vec![
        with("U19 lower case", Expect::Parser(&[403, 400, 405]), "get", "/orders/v1/items/{m}"),
        with("U19 unknown verb", Expect::NO_RESOURCE, "FOO", "/orders/v1/items/{m}"),
        with("U19 TRACE", Expect::Parser(&[403, 405]), "TRACE", "/orders/v1/plain/{m}"),
        with("U19 HEAD on a GET rule", Expect::Pass, "HEAD", "/orders/v1/items/{m}"),
        with("U19 HEAD is judged", Expect::Parser(&[403]), "HEAD", "/orders/v1/admin/{m}"),
        with("U19 OPTIONS is not listed", Expect::NO_RESOURCE, "OPTIONS", "/orders/v1/items/{m}"),
        Case::new("U19 override is ignored", Expect::NO_RESOURCE, move || {
            Request::new("PUT", "/orders/v1/items/{m}").bearer(&override_token).header("x-http-method-override", "GET")
        }),
    ]
}

#[test]
fn a_fragment_hides_nothing() {
    let world = world(Form::Wso2);
    let request = Request::get("/orders/v1/admin/{m}#/orders/v1/public/1");
    let answer = block_on(world.gate.send(Via::H1, &request));
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(!world.upstream.saw(&request.mark));
    // Over HTTP/2 the HTTP library cuts the fragment before anything of ours sees it: what is judged and
    // what is forwarded is the same path without it.
    let answer = block_on(world.gate.send(Via::H2, &request));
    assert!(matches!(answer.status, 0 | 400 | 401), "{answer:?}");
    assert!(!world.upstream.saw(&request.mark));
    let request = Request::get("/orders/v1/public/{m}#{m}/admin");
    for via in BOTH {
        let answer = block_on(world.gate.send(*via, &request));
        assert!(
            if *via == Via::H1 { answer.status == 400 } else { matches!(answer.status, 0 | 400 | 200) },
            "{answer:?}"
        );
        assert!(!world.upstream.saw(&format!("{}#", request.mark)));
        assert!(!world.upstream.saw("/admin HTTP"));
    }
}

#[test]
fn what_was_judged_is_what_is_forwarded() {
    let world = world(Form::Wso2);
    let good = world.bearer("shop-web");
    let rows = [
        ("/orders/v1/wild/a%2Db/%7e{m}", "/wild/a-b/~{m}"),
        ("/orders/v1/wild/%252e%252e/{m}", "/wild/%252e%252e/{m}"),
        ("/orders/v1/wild/%c3%a9{m}", "/wild/%C3%A9{m}"),
        ("/orders/v1/wild/{m}?a=%2F..%2f&a=//;\\", "/wild/{m}?a=%2F..%2f&a=//;\\"),
        ("/orders/v1/wild/{m}/", "/wild/{m}/"),
        ("/orders/v1/wild/{m}?", "/wild/{m}?"),
        ("/keep/v1/items/{m}?x=1", "/keep/v1/items/{m}?x=1"),
        ("/base/v1/items/{m}", "/base/path/items/{m}"),
        ("/defver/items/{m}", "/items/{m}"),
        ("/defver/v2/items/{m}", "/items/{m}"),
        ("/turns/items/{m}", "/items/{m}"),
    ];
    for (sent, forwarded) in rows {
        for via in BOTH {
            let request = Request::get(sent).bearer(&good);
            let answer = block_on(world.gate.send(*via, &request));
            assert_eq!(answer.status, 200, "{sent} {via:?} {answer:?}");
            let head = answer.json()["head"].as_str().unwrap_or_default().to_owned();
            let line = format!("GET {} HTTP/1.1", forwarded.replace("{m}", &request.mark));
            assert_eq!(head.lines().next(), Some(line.as_str()), "{sent} {via:?}");
        }
    }
}

#[test]
fn raw_bytes_in_paths_are_refused() {
    let world = world(Form::Wso2);
    for odd in [&b"\x00"[..], b"\x01", b"\x7f", b"\xff", b"\xc0\xae", b" ", b"\t"] {
        let path = [b"/orders/v1/public/u15raw", odd, b"x"].concat();
        let bytes = [b"GET ", path.as_slice(), b" HTTP/1.1\r\nhost: api.example.com\r\n\r\n"].concat();
        let answer = block_on(raw_h1(world.gate.ports.proxy, &bytes, "GET"));
        assert!(matches!(answer.status, 400 | 0), "{odd:?} {answer:?}");
        let fields = h2_get(path);
        let answer = block_on(raw_h2(world.gate.ports.proxy, &fields, b""));
        assert!(!matches!(answer, RawAnswer::Status(200)), "{odd:?} {answer:?}");
    }
    assert!(!world.upstream.saw("u15raw"));
    assert!(world.gate.alive());
}

#[test]
fn connect_over_http2_is_refused() {
    let world = world(Form::Wso2);
    let plain =
        vec![(":method".to_owned(), b"CONNECT".to_vec()), (":authority".to_owned(), b"api.example.com:443".to_vec())];
    let mut extended = h2_get(b"/orders/v1/public/u11connect".to_vec());
    extended[0].1 = b"CONNECT".to_vec();
    extended.insert(1, (":protocol".to_owned(), b"websocket".to_vec()));
    for fields in [plain, extended] {
        let answer = block_on(raw_h2(world.gate.ports.proxy, &fields, b""));
        assert!(!matches!(answer, RawAnswer::Status(200..=299)), "{answer:?}");
    }
    assert!(!world.upstream.saw("u11connect"));
    assert!(world.gate.alive());
}

fn h2_get(path: Vec<u8>) -> Vec<(String, Vec<u8>)> {
    vec![
        (":method".into(), b"GET".to_vec()),
        (":scheme".into(), b"http".to_vec()),
        (":path".into(), path),
        (":authority".into(), b"api.example.com".to_vec()),
    ]
}
