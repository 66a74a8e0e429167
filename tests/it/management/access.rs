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
