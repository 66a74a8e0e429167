//! Pages in browsers: preflights, answers and refusals that they may read, and that none of it opens a door.

use crate::support::{Answer, BOTH, Backend, Config, Gate, Idp, Request, Token, Via, api, block_on, resource, run};

const PAGE: &str = "https://app.example.com";

struct Desk {
    idp: Idp,
    upstream: Backend,
    gate: Gate,
}

impl Desk {
    fn new() -> Self {
        let (idp, upstream) = (Idp::start(), Backend::start("production"));
        let url = upstream.url();
        let served = |name: &str, cors: &str| {
            let more = format!("upstream = \"{url}\"\nsubscription = \"none\"\n{cors}");
            api(name, &format!("/{}", name.to_ascii_lowercase()), None, &more)
                + &resource("/items/{id}", "methods = [\"GET\", \"DELETE\"]\nscopes = [\"orders:read\"]")
                + &resource("/open/{id}", "auth = \"none\"\nmethods = [\"GET\", \"OPTIONS\"]")
        };
        let listed = format!("cors = {{ origins = [\"{PAGE}\", \"http://localhost:3000\"], credentials = true }}");
        let strict = format!(
            "cors = {{ origins = [\"{PAGE}\"], methods = [\"GET\"], headers = [\"Authorization\", \"X-A\"], \
             expose = [\"X-Kept\"], max_age = \"10m\" }}"
        );
        let dead = api("Dead", "/dead", None, "upstream = \"http://127.0.0.1:1\"\ncors = { origins = [\"*\"] }")
            + &resource("/*", "auth = \"none\"");
        let config = Config::orders(&idp, &url)
            .with(&served("Pages", &listed))
            .with(&served("Strict", &strict))
            .with(&served("Anyone", "cors = { origins = [\"*\"] }"))
            .with(&served("Closed", ""))
            .with(&dead);
        let gate = Gate::start(|ports| config.text(ports));
        Self { idp, upstream, gate }
    }

    fn ask(&self, via: Via, request: &Request) -> Answer {
        block_on(self.gate.send(via, request))
    }

    fn bearer(&self) -> String {
        Token::of(&self.idp, "shop-web").sign()
    }
}

fn preflight(target: &str, origin: &str, method: &str) -> Request {
    Request::new("OPTIONS", target)
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "authorization, x-mark")
}

/// Fields by which a browser learns what a page may do, sorted.
fn told(answer: &Answer) -> Vec<String> {
    let named = |name: &str| name.starts_with("access-control-") || name == "vary";
    let mut all: Vec<String> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| named(name))
        .map(|(name, value)| format!("{}: {value}", name.trim_start_matches("access-control-")))
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn a_preflight_is_answered_without_a_token_and_without_the_upstream() {
    let desk = Desk::new();
    let vary = "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    let asked = "allow-headers: authorization, x-mark";
    for via in BOTH {
        for (target, origin, method, expected) in [
            (
                "/pages/items/{m}",
                PAGE,
                "DELETE",
                vec![
                    "allow-credentials: true",
                    asked,
                    "allow-methods: DELETE",
                    "allow-origin: https://app.example.com",
                ],
            ),
            (
                "/pages/items/{m}",
                "http://localhost:3000",
                "HEAD",
                vec!["allow-credentials: true", asked, "allow-methods: HEAD", "allow-origin: http://localhost:3000"],
            ),
            (
                "/strict/items/{m}",
                PAGE,
                "GET",
                vec![
                    "allow-headers: Authorization, X-A",
                    "allow-methods: GET",
                    "allow-origin: https://app.example.com",
                ],
            ),
            (
                "/anyone/items/{m}",
                "https://else.example",
                "DELETE",
                vec![asked, "allow-methods: DELETE", "allow-origin: *"],
            ),
            // The template lists OPTIONS itself: the preflight is ours all the same.
            ("/anyone/open/{m}", PAGE, "GET", vec![asked, "allow-methods: GET", "allow-origin: *"]),
            ("/dead/{m}", PAGE, "PUT", vec![asked, "allow-methods: PUT", "allow-origin: *"]),
        ] {
            let request = preflight(target, origin, method);
            let answer = desk.ask(*via, &request);
            let age = if target.starts_with("/strict") { "max-age: 600" } else { "max-age: 3600" };
            let mut expected = expected;
            expected.extend([age, vary]);
            assert_eq!((answer.status, answer.body.len()), (204, 0), "{via:?} {target} {answer:?}");
            assert_eq!(told(&answer), expected, "{via:?} {target}");
            assert!(!desk.upstream.saw(&request.mark), "{via:?} {target}");
            let line = desk.gate.access_line(&request.mark).expect("an access line");
            assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(204), Some("granted")), "{line}");
            assert!(line["api"].is_string() && line["template"].is_string(), "{line}");
        }
    }
}

#[test]
fn a_preflight_that_is_not_allowed_is_judged_like_any_options() {
    let desk = Desk::new();
    let plain = |target: &str| Request::new("OPTIONS", target);
    for via in BOTH {
        for (what, request) in [
            ("no cors", preflight("/closed/items/{m}", PAGE, "GET")),
            ("another origin", preflight("/pages/items/{m}", "https://evil.example", "GET")),
            ("a longer origin", preflight("/pages/items/{m}", "https://app.example.com.evil.example", "GET")),
            ("a scheme less safe", preflight("/pages/items/{m}", "http://app.example.com", "GET")),
            ("another case", preflight("/pages/items/{m}", "https://APP.example.com", "GET")),
            ("no origin of anything", preflight("/pages/items/{m}", "null", "GET")),
            ("a verb of no resource", preflight("/pages/items/{m}", PAGE, "POST")),
            ("a verb that is none", preflight("/pages/items/{m}", PAGE, "get")),
            ("a verb that is not allowed", preflight("/strict/items/{m}", PAGE, "DELETE")),
            ("two origins", preflight("/pages/items/{m}", PAGE, "GET").header("origin", PAGE)),
            ("no verb asked for", plain("/pages/items/{m}").header("origin", PAGE)),
            ("no origin", plain("/pages/items/{m}").header("access-control-request-method", "GET")),
            ("a plain one", plain("/pages/items/{m}")),
        ] {
            let answer = desk.ask(*via, &request);
            assert_eq!(answer.status, 403, "{via:?} {what}: OPTIONS is listed by nobody there; {answer:?}");
            assert_eq!(answer.json()["code"], "900906", "{via:?} {what}");
            assert!(!desk.upstream.saw(&request.mark), "{via:?} {what}");
        }
        for (request, status) in [
            (preflight("/nowhere/{m}", PAGE, "GET"), 404),
            (preflight("/pages/items/../items/{m}", PAGE, "GET"), 400),
            (preflight("/pages/items/%2f{m}", PAGE, "GET"), 400),
            (preflight("/pages/nothing/{m}", PAGE, "GET"), 403),
        ] {
            assert_eq!(desk.ask(*via, &request).status, status, "{via:?} {}", request.target);
        }
        // Where OPTIONS is listed, it goes where it always went.
        for request in [plain("/pages/open/{m}"), preflight("/pages/open/{m}", "https://evil.example", "GET")] {
            let answer = desk.ask(*via, &request.script("cors"));
            assert_eq!(answer.status, 200, "{via:?} {answer:?}");
            assert_eq!(told(&answer), ["vary: Origin"], "{via:?} the upstream's word does not count");
        }
    }
}

#[test]
fn a_page_reads_answers_and_refusals_and_the_upstreams_word_is_replaced() {
    let desk = Desk::new();
    let token = desk.bearer();
    let exposed = "expose-headers: WWW-Authenticate, Retry-After, RateLimit-Policy, RateLimit, X-Request-Id";
    let listed = ["allow-credentials: true", "allow-origin: https://app.example.com"];
    for via in BOTH {
        let from = |target: &str, origin: &str| Request::get(target).header("origin", origin).script("cors");
        let ask = |request: Request, status: u16| {
            let answer = desk.ask(*via, &request);
            assert_eq!(answer.status, status, "{via:?} {} {answer:?}", request.target);
            told(&answer)
        };
        let passed = ask(from("/pages/items/{m}", PAGE).bearer(&token), 200);
        assert_eq!(passed, [listed[0], listed[1], "vary: Origin"], "{via:?}");
        let refused = [listed[0], listed[1], exposed, "vary: Origin"];
        assert_eq!(ask(from("/pages/items/{m}", PAGE), 401), refused, "{via:?} no credential");
        assert_eq!(ask(from("/pages/items/{m}", PAGE).bearer("garbage"), 401), refused, "{via:?} a bad one");
        assert_eq!(ask(from("/pages/nothing/{m}", PAGE), 403), refused, "{via:?} no resource");
        let evil = "https://evil.example";
        assert_eq!(ask(from("/pages/items/{m}", evil).bearer(&token), 200), ["vary: Origin"], "{via:?} passes unread");
        assert_eq!(ask(from("/pages/items/{m}", evil), 401), ["vary: Origin"], "{via:?}");
        let nobodys = Request::get("/pages/items/{m}").script("cors").bearer(&token);
        assert_eq!(ask(nobodys, 200), ["vary: Origin"], "{via:?} caches are told");
        let strict = ask(from("/strict/items/{m}", PAGE).bearer(&token), 200);
        assert_eq!(strict, ["allow-origin: https://app.example.com", "expose-headers: X-Kept", "vary: Origin"]);
        let anyone = ask(from("/anyone/items/{m}", evil).bearer(&token), 200);
        assert_eq!(anyone, ["allow-origin: *"], "{via:?}");
        assert_eq!(ask(from("/dead/{m}", evil), 502), ["allow-origin: *", exposed], "{via:?} a failure");
        let own = ask(from("/closed/items/{m}", evil).bearer(&token), 200);
        assert_eq!(own, ["allow-credentials: true", "allow-origin: https://upstream.example"], "{via:?} untouched");
        assert!(ask(from("/closed/items/{m}", PAGE), 401).is_empty(), "{via:?}");
        let grpc = Request::post("/pages/items/{m}").header("origin", PAGE).header("content-type", "application/grpc");
        assert!(ask(grpc, 200).contains(&listed[1].to_owned()), "{via:?}");
    }
}

#[test]
fn credentials_from_anywhere_are_refused_at_load() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.toml");
    let more = "upstream = \"echo:\"\ncors = { origins = [\"*\"], credentials = true }";
    let text = "[proxy]\nlisten = \"127.0.0.1:0\"\n".to_owned()
        + &api("Pages", "/pages", None, more)
        + &resource("/*", "auth = \"none\"");
    std::fs::write(&file, text).unwrap();
    let output = run(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("apis[0].cors.credentials"), "{told}");
}
