//! Who may call, by tokens of the key manager that is named for it.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::{Desk, ask};
use crate::provider::Caller;

const CLERKS: &str = "clients = [\
    { id = \"reader\", secret = \"s3cret\", scopes = [\"tollgate:read\"] },\
    { id = \"manager\", secret = \"s3cret\", scopes = [\"tollgate:manage\"] },\
    { id = \"issuer\", secret = \"s3cret\", scopes = [\"tollgate:tokens\"] },\
    { id = \"stranger\", secret = \"s3cret\", scopes = [\"orders:read\"] }]";

#[test]
fn a_token_may_what_its_scopes_say() {
    let desk = Desk::start(CLERKS);
    let clients = "/v1/key-managers/own/clients";
    let (id, secret) = desk.client(json!({ "clientName": "shop" }));
    let issue = (format!("{clients}/{id}/tokens"), json!({ "clientSecret": secret }));
    for (who, scope, [reads, makes, issues]) in [
        ("reader", "tollgate:read", [200, 403, 403]),
        ("manager", "tollgate:manage", [200, 201, 201]),
        ("issuer", "tollgate:tokens", [403, 403, 201]),
        ("stranger", "orders:read", [403, 403, 403]),
    ] {
        let caller = Caller { port: desk.provider, id: who.into(), secret: "s3cret".into() };
        let token = caller.token(&format!("grant_type=client_credentials&scope={scope}"));
        let token = token["access_token"].as_str().unwrap();
        let status = |method: &str, path: &str, body: Value| ask(desk.port, token, method, path, &body).status;
        assert_eq!(status("GET", "/v1/key-managers", Value::Null), reads, "{who}");
        assert_eq!(status("POST", clients, json!({ "clientName": who })), makes, "{who}");
        assert_eq!(status("POST", &issue.0, issue.1.clone()), issues, "{who}");
    }
    let refused = ask(desk.port, "no.such.token", "GET", "/v1/key-managers", &Value::Null);
    assert_eq!((refused.status, &refused.json()["code"]), (401, &json!("900901")));
    let audit = desk.ask("GET", "/v1/audit", &Value::Null).json();
    let who: Vec<_> = audit["items"].as_array().unwrap().iter().map(|entry| entry["who"].clone()).collect();
    assert!(who.contains(&json!("bootstrap")) && who.contains(&json!("own: manager")), "{who:?}");
}

/// `tollgate:tokens` is no way to have what `tollgate:manage` has.
#[test]
fn only_managers_have_tokens_issued_without_the_clients_secret() {
    let desk = Desk::start(CLERKS);
    let clients = "/v1/key-managers/own/clients";
    let (id, secret) = desk.client(json!({ "clientName": "shop" }));
    let bearer = |who: &str, scope: &str| {
        let caller = Caller { port: desk.provider, id: who.into(), secret: "s3cret".into() };
        let token = caller.token(&format!("grant_type=client_credentials&scope={scope}"));
        token["access_token"].as_str().unwrap().to_owned()
    };
    let (issuer, manager) = (bearer("issuer", "tollgate:tokens"), bearer("manager", "tollgate:manage"));
    for client in [&*id, "manager", "nobody"] {
        for query in ["", "?dry_run=true"] {
            let path = format!("{clients}/{client}/tokens{query}");
            for body in [Value::Null, json!({}), json!({ "clientSecret": null, "scope": ["tollgate:manage"] })] {
                let refused = ask(desk.port, &issuer, "POST", &path, &body);
                assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("900910")), "{path} {body}");
                let said = refused.json()["detail"].as_str().unwrap().to_owned();
                assert!(said.contains("clientSecret") && said.contains("tollgate:manage"), "{said}");
                let challenge = refused.header("www-authenticate").unwrap_or_default();
                assert!(
                    challenge.contains("insufficient_scope") && challenge.contains("tollgate:manage"),
                    "{challenge}"
                );
            }
        }
        assert_eq!(ask(desk.port, &issuer, "GET", &format!("{clients}/{client}/token"), &Value::Null).status, 403);
    }
    let path = format!("{clients}/{id}/tokens");
    let wrong = ask(desk.port, &issuer, "POST", &path, &json!({ "clientSecret": "wrong" }));
    assert_eq!((wrong.status, &wrong.json()["field"]), (400, &json!("clientSecret")), "{}", wrong.text());
    assert_eq!(ask(desk.port, &issuer, "POST", &path, &json!({ "clientSecret": secret })).status, 201);
    assert_eq!(ask(desk.port, &manager, "POST", &path, &Value::Null).status, 201);
    assert_eq!(ask(desk.port, &manager, "GET", &format!("{clients}/{id}/token"), &Value::Null).status, 200);
    let document = ask(desk.port, &issuer, "GET", "/openapi.json", &Value::Null).json();
    let summary = document["paths"]["/v1/key-managers/{km}/clients/{ck}/tokens"]["post"]["summary"].clone();
    assert!(summary.as_str().unwrap().ends_with("tollgate:tokens, without clientSecret tollgate:manage"), "{summary}");
}

#[test]
fn a_revoked_token_manages_nothing() {
    let desk = Desk::start(CLERKS);
    let caller = Caller { port: desk.provider, id: "manager".into(), secret: "s3cret".into() };
    let token = caller.token("grant_type=client_credentials&scope=tollgate:manage");
    let token = token["access_token"].as_str().unwrap();
    assert_eq!(ask(desk.port, token, "GET", "/v1/audit", &Value::Null).status, 200);
    let revoke = ask(desk.port, token, "POST", "/v1/key-managers/own/tokens/revoke", &json!({ "token": token }));
    assert_eq!(revoke.status, 204, "{}", revoke.text());
    assert_eq!(ask(desk.port, token, "GET", "/v1/audit", &Value::Null).status, 401);
}

#[test]
fn the_bootstrap_key_is_for_this_user_alone_and_not_for_the_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let place = super::Place::new(folder.path());
    let gate = crate::support::Gate::start(|ports| place.config(ports, "", ""));
    let file = folder.path().join("bootstrap.key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let request = crate::support::Request::get("/orders/items/1").bearer(place.key());
    let answer = crate::support::block_on(crate::support::send(gate.ports.proxy, crate::support::Via::H1, &request));
    assert_eq!(answer.status, 401);
}
