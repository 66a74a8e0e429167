//! 8: Forwarded metadata and trusted proxies.

use super::{Section, run_section};
use crate::support::{Backend, Case, Config, Expect, Form, Gate, Idp, Request, Via, World, block_on, world};

pub(super) const SECTION: Section = Section {
    cases,
    tests: &[("F02", "forwarded_fields_of_strangers_are_replaced"), ("F04", "garbage_addresses_do_no_harm")],
    waits: &[
        ("F01", "waits for the decision door"),
        ("F05", "covered where client addresses are parsed"),
        ("F06", "waits for the decision door"),
        ("F08", "the PROXY protocol is not in the design"),
        ("F09", "waits for injection"),
    ],
};

#[test]
fn forwarded_metadata() {
    run_section(&SECTION);
}

fn cases(_: &'static World) -> Vec<Case> {
    let mut all = Vec::new();
    for name in ["x-original-url", "x-rewrite-url", "x-envoy-original-path", "x-forwarded-uri"] {
        all.push(Case::new(format!("F03 {name}"), Expect::M401, move || {
            Request::get("/orders/v1/admin/{m}").header(name, "/orders/v1/public/1")
        }));
    }
    for name in ["x-http-method-override", "x-forwarded-method", "x-method-override"] {
        all.push(Case::new(format!("F03 {name}"), Expect::NO_RESOURCE, move || {
            Request::new("DELETE", "/orders/v1/items/{m}").header(name, "GET")
        }));
    }
    all.push(Case::new("F03 X-Forwarded-Host elects no API", Expect::NO_API, || {
        Request::get("/hosted/v1/items/{m}").header("x-forwarded-host", "only.example.com")
    }));
    for agent in ["kube-probe/1.31", "GoogleHC/1.0"] {
        all.push(Case::new("F07 user agent", Expect::M401, move || {
            Request::get("/orders/v1/items/{m}").header("user-agent", agent)
        }));
    }
    all
}

#[test]
fn forwarded_fields_of_strangers_are_replaced() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let mut config = Config::orders(&idp, &upstream.url());
    config.top = "trusted_proxies = [\"192.0.2.0/24\"]\n".into();
    let gate = Gate::start(|ports| config.text(ports));
    for via in crate::support::BOTH {
        let request = Request::get("/orders/v1/public/{m}")
            .header("x-forwarded-for", "203.0.113.9")
            .header("x-forwarded-host", "evil.example")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-port", "1")
            .header("x-forwarded-prefix", "/evil")
            .header("forwarded", "for=203.0.113.9;host=evil.example");
        let answer = block_on(gate.send(*via, &request));
        assert_eq!(answer.status, 200);
        let head = answer.forwarded();
        assert!(!head.contains("203.0.113.9") && !head.contains("evil"), "{via:?} {head}");
        assert_eq!(answer.forwarded_field("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(answer.forwarded_field("x-forwarded-proto"), ["http"]);
        let line = gate.access_line(&request.mark).unwrap();
        assert_eq!(line["client"], "127.0.0.1", "{line}");
    }
}

#[test]
fn garbage_addresses_do_no_harm() {
    let world = world(Form::Wso2);
    let many = vec!["198.51.100.7"; 2000].join(",");
    for value in
        ["not-an-ip", "1.2.3.4:99", "fe80::1%eth0", "", ",,,", "::ffff:10.0.0.1", "\"[2001:db8::1]:4711\"", &many]
    {
        let request =
            Request::get("/orders/v1/public/{m}").header("x-forwarded-for", value).header("x-forwarded-for", "x");
        let answer = block_on(world.gate.send(Via::H1, &request));
        assert_eq!(answer.status, 200, "{value} {answer:?}");
    }
    assert!(world.gate.alive());
}
