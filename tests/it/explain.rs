//! `tollgate explain`, as a user runs it: every step, why, what would help, and never the token.

use std::{fs, path::PathBuf, process::Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Config, Gate, Idp, Token, api, application, free_ports, key_manager, keys, resource, run, subscription,
};

/// A configuration with everything that may refuse, and files for tokens.
struct Desk {
    idp: Idp,
    second: Idp,
    dir: TempDir,
}

impl Desk {
    fn new() -> Self {
        let (idp, second) = (Idp::start(), Idp::start());
        let desk = Self { idp, second, dir: tempfile::tempdir().unwrap() };
        let to = "upstream = \"http://127.0.0.1:3000\"";
        let bare = format!("{to}\nsubscription = \"none\"\n");
        let config = Config::orders(&desk.idp, "http://127.0.0.1:3000")
            .with(&key_manager("second", &desk.second, SECOND))
            .with(&api("Special", "/special", None, &format!("{bare}audience = [\"special-api\"]")))
            .with(&resource("/*", ""))
            .with(&api("Second", "/second", None, &format!("{bare}key_managers = [\"second\"]")))
            .with(&resource("/*", ""))
            .with(&api("Sandless", "/sandless", None, "production = \"http://127.0.0.1:3000\""))
            .with(&resource("/*", ""))
            .with(&application("sand", "sand", "Unlimited", ", key_type = \"SANDBOX\""))
            .with(&subscription("sand", "Sandless", "Gold", "UNBLOCKED"))
            .with(&application("held", "held", "Unlimited", ""))
            .with(&subscription("held", "Orders:v1", "Gold", "ON_HOLD"))
            .with(&application("blocked", "blocked", "Unlimited", ""))
            .with(&subscription("blocked", "Orders:v1", "Gold", "BLOCKED"))
            .with(&application("lonely", "lonely", "Unlimited", ""));
        fs::write(desk.config(), config.text(&free_ports())).unwrap();
        desk
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("tollgate.toml")
    }

    fn token(&self) -> Token {
        Token::of(&self.idp, "shop-web")
    }

    /// Runs it with a token and further arguments, and holds that no part of the token shows.
    fn explain(&self, path: &str, token: Option<&str>, more: &[&str]) -> Output {
        let config = self.config();
        let file = self.dir.path().join("token");
        let mut arguments = vec!["explain", "--config", config.to_str().unwrap(), "--path", path];
        if let Some(token) = token {
            fs::write(&file, format!("{token}\n")).unwrap();
            arguments.extend(["--token-file", file.to_str().unwrap()]);
        }
        arguments.extend(more);
        let output = run(&arguments);
        let shown = told(&output);
        for part in token.iter().flat_map(|token| token.split('.')).filter(|part| part.len() >= 12) {
            assert!(!shown.contains(&part[..12]), "token text: {shown}");
        }
        output
    }

    fn json(&self, path: &str, token: Option<&str>, more: &[&str]) -> (Option<i32>, Value) {
        let output = self.explain(path, token, &[more, &["--json"]].concat());
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", told(&output))))
    }
}

const SECOND: &str = "audience = [\"orders-api\"]\nrequired_claims = { tenant = \"one\", \"staff.group\" = \"ops\" }\n\
    token_match = { kind = \"[a-z]+\" }";

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The last step and the remedy.
fn end_of(json: &Value) -> (String, String, String) {
    let last = json["steps"].as_array().and_then(|steps| steps.last()).cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&last["step"]), text(&last["note"]), text(&json["remedy"]))
}

#[test]
fn a_granted_request_tells_every_step() {
    let desk = Desk::new();
    let token = desk.token().sign();
    let output = desk.explain("/orders/v1/items/42?a=b", Some(&token), &[]);
    let shown = told(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    for expected in ["Orders:v1", "/items/{id}", "main", "consumer key shop-web", "orders:read", "127.0.0.1:3000"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let (code, json) = desk.json("/orders/v1/items/42", Some(&token), &[]);
    assert_eq!((code, json["verdict"].as_str()), (Some(0), Some("granted")), "{json:#}");
    let steps: Vec<_> = json["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    let all =
        ["path", "resolve", "credential", "authenticate", "revocation", "subscription", "scope", "throttle", "grant"];
    assert_eq!(steps, all);
    assert_eq!(json["found"]["application"], "shop-web");
    assert_eq!(json["found"]["subscription_state"], "UNBLOCKED");
    assert_eq!(json["found"]["scopes"], json!(["orders:read", "orders:write"]));
    assert!(json.get("refusal").is_none() && json.get("remedy").is_none(), "{json:#}");
}

/// Nothing is asked of Redis, so that `on_outage` is not met.
#[test]
fn limits_are_judged_from_nothing_whatever_is_shared() {
    let desk = Desk::new();
    let token = desk.token().sign();
    let text = fs::read_to_string(desk.config()).unwrap();
    for mode in ["batched", "lease", "strict"] {
        let shared = format!("\n[shared]\nredis = \"redis://127.0.0.1:1\"\nmode = \"{mode}\"\non_outage = \"deny\"\n");
        fs::write(desk.config(), text.clone() + &shared).unwrap();
        let (code, json) = desk.json("/orders/v1/items/42", Some(&token), &[]);
        assert_eq!((code, json["verdict"].as_str()), (Some(0), Some("granted")), "{mode}: {json:#}");
        assert!(json["notes"].to_string().contains("counters that are shared"), "{mode}: {json:#}");
    }
}

/// Path, token, step, reason, what is in the note, what is in the remedy.
type Row<'a> = (&'a str, Option<String>, &'a str, &'a str, &'a str, &'a str);

#[test]
fn every_kind_of_refusal_tells_where_why_and_what_would_help() {
    let desk = Desk::new();
    let now = crate::support::now();
    let item = "/orders/v1/items/1";
    let of = |client: &str| Some(Token::of(&desk.idp, client).sign());
    let with = |name: &str, value: Value| Some(desk.token().claim(name, value).sign());
    let of_second = |more: Value| {
        let token = Token::of(&desk.second, "shop-web").claim("staff", json!({ "group": "ops" }));
        let more = more.as_object().unwrap().clone();
        Some(more.into_iter().fold(token, |token, (name, value)| token.claim(&name, value)).sign())
    };
    let rows: Vec<Row<'_>> = vec![
        ("/orders/v1/../x", None, "path", "bad_path", "", "dot segments"),
        ("/nowhere", None, "resolve", "no_api", "no API", "Orders:v1"),
        ("/orders/v1/nothing", None, "resolve", "no_resource", "GET", "/items/{id}"),
        (item, None, "credential", "no_credential", "no token", "Authorization: Bearer"),
        (
            item,
            with("iss", "https://nobody.example".into()),
            "authenticate",
            "unknown_issuer",
            "nobody.example",
            "main",
        ),
        (item, with("exp", (now - 100).into()), "authenticate", "expired", "expired 1", "fresh"),
        (item, with("nbf", (now + 900).into()), "authenticate", "not_yet_valid", "good only in", "clocks"),
        (item, with("aud", "other".into()), "authenticate", "audience", "the token has other", "orders-api"),
        (
            item,
            Some(desk.token().key(&keys().es256_other, "lost").sign()),
            "authenticate",
            "unknown_key",
            "no key with the id lost",
            "publishes",
        ),
        (
            item,
            Some(desk.token().key(&keys().es256_other, "es256").sign()),
            "authenticate",
            "signature",
            "not by the key es256",
            "as its provider issued it",
        ),
        (item, Some(desk.token().header("typ", "logout+jwt").sign()), "authenticate", "typ", "logout+jwt", "at+jwt"),
        (item, with("at_hash", "x".into()), "authenticate", "typ", "with the claim at_hash", "not an ID token"),
        ("/second/x", of_second(json!({})), "authenticate", "claim", "the claims tenant, kind are not", "token_match"),
        (
            "/second/x",
            of_second(json!({ "tenant": "two", "kind": "abc" })),
            "authenticate",
            "claim",
            "the claim tenant is not as second asks",
            "required_claims",
        ),
        (item, Some("an-opaque-token-of-nobody".into()), "authenticate", "opaque", "nobody is asked", "client_id"),
        (item, Some("garbage-garbage.garbage-garbage.x".into()), "authenticate", "malformed", "not base64url", "whole"),
        (item, Some("x".repeat(70_000)), "authenticate", "malformed", "longer than 65536 bytes", "less"),
        (item, with("exp", (now + 900).to_string().into()), "authenticate", "malformed", "exp is not a number", "main"),
        (item, with("aud", json!({})), "authenticate", "malformed", "aud is not a text, or a list", "main"),
        (item, with("sub", 7.into()), "authenticate", "malformed", "sub is not a text", "main"),
        (item, with("exp", json!(now as f64 - 100.5)), "authenticate", "expired", "expired 10", "fresh"),
        (
            item,
            Some(desk.token().header("x5c", "AA").sign()),
            "authenticate",
            "malformed",
            "header parameter x5c has not the form",
            "main",
        ),
        (
            item,
            Some(desk.token().raw_payload(br#"{"sub":"a","\u0073ub":"b"}"#)),
            "authenticate",
            "malformed",
            "payload is no JSON object, has a member twice",
            "whole",
        ),
        ("/second/x", of("shop-web"), "authenticate", "key_manager_not_allowed", "main", "second"),
        (item, of("stranger"), "subscription", "not_subscribed", "consumer key stranger", "application"),
        (item, of("lonely"), "subscription", "not_subscribed", "lonely is not subscribed to Orders:v1", "Orders:v1"),
        (item, of("held"), "subscription", "subscription_inactive", "ON_HOLD", "UNBLOCKED"),
        (item, of("blocked"), "subscription", "subscription_blocked", "BLOCKED", "UNBLOCKED"),
        ("/sandless/x", of("sand"), "subscription", "no_environment", "no sandbox upstream", "sandbox"),
        ("/orders/v1/admin/1", of("shop-web"), "scope", "scope", "has orders:read orders:write", "admin"),
        (
            "/orders/v1/both/1",
            Some(desk.token().claim("auth_time", now - 9000).sign()),
            "scope",
            "sign_in",
            // 9000 s and what the rows before took.
            "needs acr gold and a sign-in (auth_time) of the last 3600 s; the token has acr none and one of 9",
            "acr_values and max_age",
        ),
        ("/special/x", of("shop-web"), "scope", "api_audience", "special-api", "special-api"),
    ];
    let (_, json) = desk.json("/orders/v1/items/1", None, &["--method", "OPTIONS"]);
    assert!(end_of(&json).2.contains("preflight"), "the door may answer it all the same: {json:#}");
    for (path, token, step, reason, why, help) in rows {
        let (code, json) = desk.json(path, token.as_deref(), &[]);
        let case = format!("{path} {reason}: {json:#}");
        assert_eq!(code, Some(1), "{case}");
        assert_eq!(json["verdict"], "refused", "{case}");
        assert_eq!(json["refusal"]["reason"], reason, "{case}");
        let (at, note, remedy) = end_of(&json);
        assert_eq!(at, step, "{case}");
        assert!(note.contains(why), "{why}: {case}");
        assert!(remedy.contains(help), "{help}: {case}");
        let output = desk.explain(path, token.as_deref(), &[]);
        let shown = told(&output);
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert!(shown.contains("REFUSED") && shown.contains(&remedy), "{shown}");
    }
}

#[test]
fn without_keys_it_is_no_verdict() {
    let desk = Desk::new();
    let token = desk.token().sign();
    let (code, json) = desk.json("/orders/v1/items/1", Some(&token), &["--offline"]);
    assert_eq!((code, json["verdict"].as_str()), (Some(1), Some("failed")), "{json:#}");
    assert_eq!(json["refusal"]["status"], 503);
    assert_eq!(desk.idp.discoveries() + desk.idp.key_fetches(), 0, "nobody is asked");
    desk.idp.stop();
    let (code, json) = desk.json("/orders/v1/items/1", Some(&token), &[]);
    assert_eq!((code, json["refusal"]["reason"].as_str()), (Some(1), Some("unavailable")), "{json:#}");
    assert!(end_of(&json).1.contains("main"), "{json:#}");
}

#[test]
fn methods_headers_hosts_and_clients_count_and_wrong_arguments_are_told_without_values() {
    let desk = Desk::new();
    let bearer = format!("Authorization: Bearer {}", desk.token().sign());
    let (code, json) = desk.json(
        "/orders/v1/items/1",
        None,
        &["--method", "POST", "--header", &bearer, "--host", "A.example:80", "--client", "192.0.2.1"],
    );
    assert_eq!((code, json["host"].as_str(), json["method"].as_str()), (Some(0), Some("a.example"), Some("POST")));
    let (code, json) = desk.json("/orders/v1/items/1", Some("x.y.z"), &["--header", &bearer]);
    assert_eq!((code, json["refusal"]["reason"].as_str()), (Some(1), Some("two_credentials")), "{json:#}");
    for wrong in [["--header", "secret-without-colon"], ["--method", "G T"], ["--token-file", "/nowhere/token"]] {
        let output = desk.explain("/", None, &wrong);
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
        assert!(!told(&output).contains("secret-without-colon"), "{}", told(&output));
    }
    let output = run(&["explain", "--config", "/nowhere.toml", "--path", "/"]);
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn a_running_embedded_provider_is_asked_from_outside() {
    let config = |ports: &crate::support::Ports| {
        let listen = free_ports().proxy;
        format!(
            "[proxy]\nlisten = \"127.0.0.1:{}\"\n[admin]\nlisten = \"127.0.0.1:{}\"\n[[key_managers]]\nname = \"own\"\n\
             connector = \"embedded\"\nissuer = \"http://127.0.0.1:{listen}\"\nlisten = \"127.0.0.1:{listen}\"\n\
             audience = [\"orders\"]\n\
             clients = [{{ id = \"shop-web\", secret = \"a-secret-of-the-shop\", scopes = [\"a\"] }}]\n{}{}",
            ports.proxy,
            ports.admin,
            api("Orders", "/orders", None, "upstream = \"echo:\"\nsubscription = \"none\""),
            resource("/*", "scopes = [\"a\"]"),
        )
    };
    let gate = Gate::start(config);
    let text = gate.config_text();
    let port = text.split("issuer = \"http://127.0.0.1:").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let form = "grant_type=client_credentials&scope=a";
    let request = crate::support::Request::post("/token")
        .header("authorization", "Basic c2hvcC13ZWI6YS1zZWNyZXQtb2YtdGhlLXNob3A=")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    let answer =
        crate::support::block_on(crate::support::send(port.parse().unwrap(), crate::support::Via::H1, &request));
    let token = answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, &token).unwrap();
    let output = run(&[
        "explain",
        "--config",
        gate.config_file().to_str().unwrap(),
        "--path",
        "/orders/x",
        "--token-file",
        file.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(gate.leaks(&[token]).is_empty());
}
