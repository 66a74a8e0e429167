//! 15: MCP and protected-resource metadata.

use serde_json::json;

use super::{Section, run_section};
use crate::support::{
    Answer, BOTH, Backend, Case, Config, Expect, Form, Gate, Idp, Request, Via, World, api, block_on, challenge_of,
    resource, world,
};

pub(super) const SECTION: Section = Section {
    cases,
    tests: &[
        ("R01", "what_an_api_tells_of_itself_is_at_its_very_path"),
        ("R02", "challenges_point_to_the_configured_place"),
    ],
    waits: &[
        ("R04", "does not apply: bodies are forwarded as they are, and no JSON-RPC is read"),
        ("R05", "does not apply: no argument of a tool becomes a URL"),
    ],
};

const PLACE: &str = "/.well-known/oauth-protected-resource/mcp";
const URL: &str = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp";

#[test]
fn protected_resources() {
    run_section(&SECTION);
}

fn cases(world: &'static World) -> Vec<Case> {
    let passed_on = |name: &str, expect: Expect, token: String| {
        Case::new(format!("R03 {name}"), expect, move || Request::get("/mcp/tools/{m}").bearer(&token))
    };
    let token = || world.token().claim("aud", json!(["orders-api", "https://mcp.example.com/mcp"]));
    let another = Expect::refused(403, "900914", crate::support::Challenge::Absent, "7");
    let mut all = vec![
        passed_on("its own", Expect::Pass, token().sign()),
        passed_on("of another resource", another, world.token().sign()),
        passed_on(
            "of none of the provider's",
            Expect::T401,
            token().claim("aud", "https://other.example.com/mcp").sign(),
        ),
    ];
    for near in ["https://mcp.example.com/mcp/", "https://mcp.example.com", "https://MCP.example.com/mcp"] {
        let another = Expect::refused(403, "900914", crate::support::Challenge::Absent, "7");
        all.push(passed_on("of a neighbour", another, token().claim("aud", json!(["orders-api", near])).sign()));
    }
    all
}

fn ask(gate: &Gate, via: Via, request: &Request) -> Answer {
    block_on(gate.send(via, request))
}

#[test]
fn what_an_api_tells_of_itself_is_at_its_very_path() {
    let world = world(Form::Wso2);
    let expected = json!({
        "resource": "https://mcp.example.com/mcp",
        "authorization_servers": [world.idp.issuer(), world.strict.issuer()],
        "scopes_supported": ["tools:call", "tools:list"],
        "bearer_methods_supported": ["header", "query"],
        "resource_name": "Tools for machines",
        "resource_documentation": "https://example.com/docs",
    });
    for via in BOTH {
        for host in ["mcp.example.com", "api.example.com", "evil.example"] {
            let request = Request::get(PLACE).host(host).header("x-forwarded-host", "evil.example").bearer("garbage");
            let answer = ask(&world.gate, *via, &request);
            assert_eq!(answer.status, 200, "{via:?} {host} {answer:?}");
            assert_eq!(answer.json(), expected, "{via:?} {host}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "clients in browsers read it");
        }
        let head = ask(&world.gate, *via, &Request::new("HEAD", PLACE));
        assert_eq!((head.status, head.body.len()), (200, 0), "{via:?}");
        assert!(head.header("content-length").is_some_and(|length| length != "0"), "{head:?}");
        for (target, status) in [
            ("/.well-known/oauth-protected-resource", 404),
            ("/.well-known/oauth-protected-resource/", 404),
            ("/.well-known/oauth-protected-resource/mc", 404),
            ("/.well-known/oauth-protected-resource/mcp/", 404),
            ("/.well-known/oauth-protected-resource/mcp/tools", 404),
            ("/.well-known/oauth-protected-resource/MCP", 404),
            ("/.well-known/oauth-protected-resource/%6dcp", 404),
            ("/.well-known/oauth-protected-resource//mcp", 400),
            ("/.well-known/oauth-protected-resource/x/../mcp", 400),
            ("/.well-known/oauth-protected-resource/mcp%00", 400),
            ("/.well-known/oauth-protected-resource/orders", 404),
            ("/.well-known/oauth-protected-resource/orders/v1", 404),
            ("/mcp/.well-known/oauth-protected-resource", 403),
        ] {
            let answer = ask(&world.gate, *via, &Request::get(target));
            assert_eq!(answer.status, status, "{via:?} {target} {answer:?}");
        }
        // A page that sends a field of its own asks first.
        let preflight = |target: &str, method: &str| {
            let request = Request::new("OPTIONS", target).header("origin", "https://app.example");
            ask(&world.gate, *via, &request.header("access-control-request-method", method))
        };
        let granted = preflight(PLACE, "GET");
        assert_eq!((granted.status, granted.body.len()), (204, 0), "{via:?} {granted:?}");
        assert_eq!(granted.header("access-control-allow-origin"), Some("*"));
        assert_eq!(granted.header("access-control-allow-headers"), Some("*"));
        assert_eq!(preflight(PLACE, "POST").status, 404, "{via:?}");
        assert_eq!(preflight("/.well-known/oauth-protected-resource/orders", "GET").status, 404, "{via:?}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = ask(&world.gate, *via, &Request::new(method, PLACE).bearer(world.bearer("shop-web")));
            assert_eq!(answer.status, 404, "{via:?} {method}");
        }
    }
    let twice = Request::get(PLACE).header("host", "evil.example");
    assert_eq!(ask(&world.gate, Via::H1, &twice).status, 400, "two hosts");
    let marked = Request::get(&format!("{PLACE}?x={{m}}"));
    assert_eq!(ask(&world.gate, Via::H1, &marked).json(), expected, "a query says nothing");
}

#[test]
fn challenges_point_to_the_configured_place() {
    let world = world(Form::Wso2);
    let known = |request: Request| {
        for via in BOTH {
            for host in ["mcp.example.com", "api.example.com", "evil.example"] {
                let request = request.clone().host(host).header("x-forwarded-host", "evil.example");
                let answer = ask(&world.gate, *via, &request);
                let challenge = answer.header("www-authenticate").unwrap_or_default();
                assert_eq!(challenge_of(challenge).1["resource_metadata"], URL, "{via:?} {host} {answer:?}");
                assert!(!format!("{:?}{}", answer.headers, answer.text()).contains("evil"), "{answer:?}");
            }
        }
    };
    let own = world.token().claim("aud", json!(["orders-api", "https://mcp.example.com/mcp"]));
    known(Request::get("/mcp/tools/{m}"));
    known(Request::get("/mcp/tools/{m}").bearer("garbage"));
    known(Request::get("/mcp/tools/{m}").bearer(own.clone().claim("exp", 1).sign()));
    known(Request::post("/mcp/tools/{m}").header("content-type", "application/grpc"));
    known(Request::get("/mcp/call/{m}").bearer(own.sign()));
    let others = Request::get("/orders/v1/items/{m}");
    let answer = ask(&world.gate, Via::H1, &others);
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(!challenge_of(challenge).1.contains_key("resource_metadata"), "of an API that tells nothing: {answer:?}");
}

#[test]
fn what_else_is_well_known_is_the_apis_own() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let more = format!(
        "upstream = \"{}\"\nsubscription = \"none\"\nresource_metadata = {{ resource = \"https://a.example/o\" }}",
        upstream.url()
    );
    let config = Config::orders(&idp, &upstream.url())
        .with(&api("Root", "/", None, &more))
        .with(&resource("/*", "auth = \"none\""));
    let gate = Gate::start(|ports| config.text(ports));
    for via in BOTH {
        for target in [
            "/.well-known/openid-configuration?{m}",
            "/.well-known/oauth-protected-resource?{m}",
            "/.well-known/oauth-protected-resource/other?{m}",
            "/.well-known/oauth-protected-resource/o/more?{m}",
            "/.well-known/oauth-authorization-server/o?{m}",
        ] {
            let request = Request::get(target);
            assert_eq!(ask(&gate, *via, &request).status, 200);
            assert!(upstream.saw(&request.mark), "{via:?} {target}");
        }
        let own = Request::get("/.well-known/oauth-protected-resource/o?{m}");
        let answer = ask(&gate, *via, &own);
        assert_eq!(answer.json()["resource"], "https://a.example/o");
        assert_eq!(answer.json()["resource_name"], "Root");
        assert!(!upstream.saw(&own.mark));
        let posted = Request::post("/.well-known/oauth-protected-resource/o?{m}");
        assert_eq!(ask(&gate, *via, &posted).status, 200);
        assert!(upstream.saw(&posted.mark), "only read here: {via:?}");
    }
    let counted = gate.metrics();
    let line = counted.lines().find(|line| line.contains("api=\"Root\"") && line.contains("granted"));
    assert!(line.is_some_and(|line| !line.ends_with(" 0")), "{counted}");
}
