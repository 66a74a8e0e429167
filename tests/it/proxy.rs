//! The proxy door: what is forwarded, what is removed, what is set, and which upstream gets it.

use crate::support::{Answer, BOTH, Form, Request, Via, World, block_on, world};

pub(crate) fn main_world() -> &'static World {
    world(Form::Wso2)
}

pub(crate) fn send(world: &World, via: Via, request: &Request) -> Answer {
    block_on(world.gate.send(via, request))
}

pub(crate) fn item(world: &World) -> Request {
    Request::get("/orders/v1/items/{m}").bearer(world.bearer("shop-web"))
}

#[test]
fn identity_is_set() {
    let world = main_world();
    let token = world.token().claim("email", "ada@example.com").sign();
    for via in BOTH {
        let answer = send(world, *via, &Request::get("/orders/v1/items/{m}").bearer(&token));
        let expected = [
            ("x-auth-subject", "alice"),
            ("x-auth-client-id", "shop-web"),
            ("x-auth-scopes", "orders:read orders:write"),
            ("x-auth-application", "shop-web"),
            ("x-auth-tier", "Unlimited"),
            ("x-auth-email", "ada@example.com"),
        ];
        for (name, value) in expected {
            assert_eq!(answer.forwarded_field(name), [value], "{name} {via:?}");
        }
    }
}

#[test]
fn client_identity_is_stripped() {
    let world = main_world();
    for via in BOTH {
        let request = Request::get("/orders/v1/public/{m}")
            .header("x-auth-subject", "forged")
            .header("x_auth_tier", "forged")
            .header("x-forwarded-client-cert", "forged")
            .header("proxy-authorization", "Basic forged");
        let head = send(world, *via, &request).forwarded();
        assert!(!head.contains("forged"), "{via:?} {head}");
    }
}

#[test]
fn the_credential_is_removed() {
    let world = main_world();
    let token = world.bearer("shop-web");
    for via in BOTH {
        let head = send(world, *via, &item(world)).forwarded();
        assert!(!head.contains("authorization"), "{head}");
        let request = Request::get("/orders/v1/public/{m}").bearer("unjudged");
        assert!(!send(world, *via, &request).forwarded().contains("unjudged"), "removed where auth is none");
        let request = Request::get("/keep/v1/items/{m}").bearer(&token);
        assert_eq!(send(world, *via, &request).forwarded_field("authorization"), [format!("Bearer {token}")]);
    }
}

#[test]
fn a_credential_that_was_not_judged_is_not_forwarded() {
    let world = main_world();
    let token = world.bearer("shop-web");
    for via in BOTH {
        let request = Request::get(&format!("/queryonly/v1/items/{{m}}?access_token={token}")).bearer("unjudged");
        let answer = send(world, *via, &request);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.forwarded().contains("unjudged"), "{}", answer.forwarded());
        // Bound to a key: nobody here can check the proof, so it is never anonymous either.
        let request = Request::get("/orders/v1/maybe/{m}").header("authorization", "DPoP unjudged");
        assert_eq!(send(world, *via, &request).status, 401);
    }
}

#[test]
fn an_encoded_spelling_is_judged_by_the_same_template() {
    let world = main_world();
    let token = world.bearer("shop-web");
    for via in BOTH {
        for path in ["/verbs/items:export", "/verbs/items%3Aexport", "/verbs/items%3aexport"] {
            let answer = send(world, *via, &Request::get(&format!("{path}?{{m}}")).bearer(&token));
            assert_eq!((answer.status, &answer.json()["code"]), (403, &"900910".into()), "{path}");
        }
        let answer = send(world, *via, &Request::get("/verbs/{m}%3Aother").bearer(&token));
        assert!(answer.forwarded_field("host").len() == 1 && answer.forwarded().contains("%3aother"), "{answer:?}");
    }
}

#[test]
fn a_query_token_is_never_forwarded() {
    let world = main_world();
    let token = world.bearer("shop-web");
    let rows = [
        (format!("/query/v1/items/{{m}}?a=1&access_token={token}&b=%2F"), "?a=1&b=%2F "),
        (format!("/query/v1/items/{{m}}?access_token={token}"), " "),
        (format!("/query/v1/items/{{m}}?access_token={token}&"), ""),
        (format!("/orders/v1/public/{{m}}?x=1&access_token={token}"), "?x=1 "),
        (format!("/orders/v1/public/{{m}}?access%5Ftoken={token}&x=1"), "?x=1 "),
    ];
    for (target, rest) in rows {
        for via in BOTH {
            let request = Request::get(&target);
            let answer = send(world, *via, &request);
            let head = answer.json()["head"].as_str().unwrap_or_default().to_owned();
            let line = head.lines().next().unwrap_or_default();
            assert!(
                line.contains(&format!("{}{rest}", request.mark)) && !line.contains("token"),
                "{target} {line} {answer:?}"
            );
        }
    }
}

#[test]
fn forwarding_fields_are_right() {
    let world = main_world();
    for via in BOTH {
        let answer = send(world, *via, &item(world));
        assert_eq!(answer.forwarded_field("host"), [world.upstream.authority()], "{via:?}");
        assert_eq!(answer.forwarded_field("x-forwarded-for"), ["127.0.0.1"], "{via:?}");
        assert_eq!(answer.forwarded_field("x-forwarded-proto"), ["http"], "{via:?}");
        assert_eq!(answer.forwarded_field("x-forwarded-host"), ["api.example.com"], "{via:?}");
        let via_field = answer.forwarded_field("via").join(",");
        let version = if *via == Via::H1 { "1.1 " } else { "2" };
        assert!(via_field.starts_with(version), "{via:?} {via_field}");
        assert_eq!(answer.forwarded_field("x-request-id").len(), 1, "{via:?}");
        let request = Request::get("/keep/v1/items/{m}").bearer(world.bearer("shop-web"));
        assert_eq!(send(world, *via, &request).forwarded_field("host"), ["api.example.com"], "preserve_host {via:?}");
    }
}

#[test]
fn a_trusted_proxy_is_believed() {
    let world = main_world();
    let request = item(world).header("x-forwarded-for", "203.0.113.9").header("x-forwarded-proto", "https");
    let answer = send(world, Via::H1, &request);
    let addresses = answer.forwarded_field("x-forwarded-for").join(",").replace(' ', "");
    assert_eq!(addresses, "203.0.113.9,127.0.0.1");
    assert_eq!(answer.forwarded_field("x-forwarded-proto"), ["https"]);
    let line = world.gate.access_line(&request.mark).unwrap();
    assert_eq!(line["client"], "203.0.113.9", "{line}");
}

#[test]
fn trace_and_request_id_go_on() {
    let world = main_world();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for via in BOTH {
        let request =
            item(world).header("traceparent", parent).header("tracestate", "a=1").header("x-request-id", "{m}-id");
        let answer = send(world, *via, &request);
        let passed = answer.forwarded_field("traceparent").join(",");
        assert!(passed.contains("0af7651916cd43dd8448eb211c80319c"), "{passed}");
        assert_eq!(answer.forwarded_field("x-request-id"), [format!("{}-id", request.mark)]);
        let line = world.gate.access_line(&request.mark).unwrap();
        assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c", "{line}");
        assert_eq!(line["request_id"], format!("{}-id", request.mark), "{line}");
    }
}

#[test]
fn the_access_line_tells_the_request() {
    let world = main_world();
    let request = item(world);
    assert_eq!(send(world, Via::H2, &request).status, 200);
    let line = world.gate.access_line(&request.mark).unwrap();
    for (name, value) in [
        ("api", "Orders"),
        ("version", "v1"),
        ("template", "/items/{id}"),
        ("application", "shop-web"),
        ("key_type", "PRODUCTION"),
        ("tier", "Unlimited"),
        ("reason", "granted"),
        ("method", "GET"),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    assert_eq!(line["status"], 200);
    for name in ["verdict_us", "upstream_ms", "duration_ms"] {
        assert!(line[name].is_number(), "{name}: {line}");
    }
}

#[test]
fn hop_by_hop_fields_stay_here() {
    let world = main_world();
    let request = item(world)
        .header("connection", "x-mine, keep-alive")
        .header("x-mine", "1")
        .header("keep-alive", "timeout=5")
        .header("te", "trailers, gzip")
        .header("x-kept", "1")
        .script("hop");
    let answer = send(world, Via::H1, &request);
    for name in ["x-mine", "keep-alive"] {
        assert!(answer.forwarded_field(name).is_empty(), "{name} {}", answer.forwarded());
    }
    assert_eq!(answer.forwarded_field("x-kept"), ["1"]);
    for name in ["x-secret-hop", "proxy-authenticate"] {
        assert_eq!(answer.header(name), None, "{name} {answer:?}");
    }
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.header("x-kept"), Some("1"));
}

#[test]
fn head_options_and_empty_answers() {
    let world = main_world();
    let token = world.bearer("shop-web");
    for via in BOTH {
        let head = Request::new("HEAD", "/orders/v1/items/{m}").bearer(&token).script("head");
        let answer = send(world, *via, &head);
        assert_eq!(
            (answer.status, answer.body.len(), answer.header("content-length")),
            (200, 0, Some("1234")),
            "{via:?}"
        );
        let nothing = send(world, *via, &item(world).script("nothing"));
        assert_eq!((nothing.status, nothing.body.len(), nothing.header("x-kept")), (204, 0, Some("1")), "{via:?}");
        let listed = send(world, *via, &Request::new("OPTIONS", "/orders/v1/options/{m}"));
        assert_eq!(listed.status, 200, "{via:?}");
        let odd = send(world, *via, &item(world).script("status:418"));
        assert_eq!(odd.status, 418, "an upstream's status is its own");
        let close = send(world, *via, &item(world).script("until-close"));
        assert_eq!(close.json()["backend"], "production", "{via:?}");
    }
}

#[test]
fn key_type_chooses_the_environment() {
    let world = main_world();
    for (client, backend) in [("shop-web", "production"), ("shop-sandbox", "sandbox")] {
        for via in BOTH {
            let answer = send(world, *via, &Request::get("/env/v1/items/{m}").bearer(world.bearer(client)));
            assert_eq!(answer.json()["backend"], backend, "{client} {via:?}");
        }
    }
}

#[test]
fn several_upstreams_are_used_in_turn() {
    let world = main_world();
    let token = world.bearer("shop-web");
    let names: Vec<String> = (0..24)
        .map(|_| send(world, Via::H1, &Request::get("/turns/items/{m}").bearer(&token)).json()["backend"].to_string())
        .collect();
    let production = names.iter().filter(|name| name.contains("production")).count();
    assert!((6..=18).contains(&production), "{names:?}");
}

#[test]
fn the_built_in_echo_answers() {
    let world = main_world();
    for via in BOTH {
        let answer = send(world, *via, &Request::get("/echo/v1/items/{m}").bearer(world.bearer("shop-web")));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.text().to_ascii_lowercase().contains("bearer"), "{}", answer.text());
    }
}
