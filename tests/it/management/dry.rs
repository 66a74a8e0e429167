//! A dry run at a real provider: it refuses what the change would be refused for, and changes nothing.

use serde_json::{Value, json};

use super::Desk;

#[test]
fn a_dry_run_says_what_the_change_then_says() {
    let desk = Desk::start("");
    desk.client(json!({ "clientId": "there" }));
    let scoped = |scope: &str| json!({ "clientId": "new", "parameters": { "scope": scope } });
    assert_eq!(desk.ask("POST", "/v1/key-managers/own/scopes", &json!({ "key": "known" })).status, 201);
    let clients = "/v1/key-managers/own/clients";
    for (method, path, body, status, field) in [
        ("POST", clients.to_owned(), scoped("unknown"), 400, Some("parameters.scope")),
        ("POST", clients.to_owned(), json!({ "clientId": "there" }), 409, Some("clientId")),
        ("POST", clients.to_owned(), json!({ "clientId": "map" }), 400, Some("clientId")),
        ("POST", "/v1/key-managers/own/scopes".to_owned(), json!({ "key": "known" }), 409, Some("key")),
        ("DELETE", format!("{clients}/gone"), Value::Null, 404, None),
        ("PUT", format!("{clients}/gone/owner"), json!({ "owner": "ada" }), 404, None),
        ("POST", format!("{clients}/gone/secrets"), Value::Null, 404, None),
        ("POST", format!("{clients}/map"), json!({ "clientId": "gone", "clientSecret": "s" }), 404, None),
    ] {
        for query in ["?dry_run=true", ""] {
            let answer = desk.ask(method, &format!("{path}{query}"), &body);
            assert_eq!(answer.status, status, "{method} {path}{query} {body}: {}", answer.text());
            assert_eq!(answer.json().get("field").and_then(Value::as_str), field, "{}", answer.text());
        }
    }
    let good = desk.ask("POST", &format!("{clients}?dry_run=true"), &scoped("known"));
    assert_eq!((good.status, &good.json()["dryRun"]), (200, &json!(true)), "{}", good.text());
    assert_eq!(desk.ask("GET", &format!("{clients}/new"), &Value::Null).status, 404, "it was a dry run");
}
