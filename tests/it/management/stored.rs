//! Key managers that are stored: they come to life as those of the file do, and after a restart too.

use serde_json::{Value, json};

use super::{Desk, Place, ask};
use crate::support::{Gate, Idp, Request, Token, Via, block_on, send};

fn verdict(gate: &Gate, token: &str) -> u16 {
    block_on(send(gate.ports.proxy, Via::H1, &Request::get("/orders/items/1").bearer(token))).status
}

#[test]
fn a_stored_key_managers_tokens_count_now_and_after_a_restart() {
    let (idp, folder) = (Idp::start(), tempfile::tempdir().unwrap());
    let place = Place::new(folder.path());
    let gate = Gate::start(|ports| place.config(ports, "", ""));
    let token = Token::of(&idp, "shop-web").sign();
    assert_eq!(verdict(&gate, &token), 401, "nobody knows its issuer");
    let path = "/v1/key-managers/main";
    let body = json!({ "connector": "oidc", "issuer": idp.issuer(), "audience": ["orders-api"],
        "client_id": "tollgate", "client_secret": "s3cret-of-ours" });
    let dry = ask(place.port, &place.key(), "PUT", &format!("{path}?dry_run=true"), &body);
    assert_eq!((dry.status, &dry.json()["dryRun"]), (200, &json!(true)), "{}", dry.text());
    let put = ask(place.port, &place.key(), "PUT", path, &body);
    assert_eq!((put.status, &put.json()["declaredIn"]), (201, &json!("store")), "{}", put.text());
    assert_eq!(put.json()["configuration"]["client_secret"], "[redacted]");
    gate.wait_for("its keys", || verdict(&gate, &token) == 200);
    assert_eq!(ask(place.port, &place.key(), "PUT", path, &body).status, 200, "it is there already");
    let listed = ask(place.port, &place.key(), "GET", "/v1/key-managers", &Value::Null);
    assert!(listed.text().contains("\"main\"") && !listed.text().contains("s3cret-of-ours"), "{}", listed.text());
    assert!(!ask(place.port, &place.key(), "GET", "/v1/audit", &Value::Null).text().contains("s3cret-of-ours"));
    drop(gate);
    let gate = Gate::start(|ports| place.config(ports, "", ""));
    gate.wait_for("its keys", || verdict(&gate, &token) == 200);
}

#[test]
fn what_is_read_can_be_put_and_its_secret_stays_where_it_goes() {
    let (idp, folder) = (Idp::start(), tempfile::tempdir().unwrap());
    let place = Place::new(folder.path());
    let _gate = Gate::start(|ports| place.config(ports, "", ""));
    let tell = |method: &str, path: &str, body: &Value| ask(place.port, &place.key(), method, path, body);
    let path = "/v1/key-managers/main";
    let body = json!({ "connector": "oidc", "issuer": idp.issuer(), "audience": ["orders-api"],
        "client_id": "tollgate", "client_secret": "s3cret-of-ours" });
    assert_eq!(tell("PUT", path, &body).status, 201);
    let read = tell("GET", path, &Value::Null).json()["configuration"].clone();
    assert_eq!(read["client_secret"], "[redacted]");
    let put = tell("PUT", path, &read);
    assert_eq!((put.status, &put.json()["configuration"]), (200, &read), "{}", put.text());

    let with = |name: &str, value: Value| {
        let mut body = read.clone();
        body[name] = value;
        body
    };
    let moved = tell("PUT", path, &with("token_endpoint", json!("https://elsewhere.example/token")));
    assert_eq!((moved.status, &moved.json()["field"]), (400, &json!("client_secret")), "{}", moved.text());
    assert_eq!(tell("PUT", path, &with("leeway", json!("5s"))).status, 200);
    let new = tell("PUT", "/v1/key-managers/other", &with("name", json!("other")));
    assert_eq!((new.status, &new.json()["field"]), (400, &json!("client_secret")), "{}", new.text());
    assert_eq!(tell("GET", "/v1/key-managers/other", &Value::Null).status, 404);
}

#[test]
fn refusals_have_wso2s_codes() {
    let desk = Desk::start("");
    for (body, code) in [
        (json!({ "connector": "none-such", "issuer": "https://a.example" }), "901400"),
        (json!({ "connector": "oidc" }), "901401"),
        (json!({ "issuer": "https://a.example" }), "901401"),
        (json!({ "connector": 5, "issuer": "https://a.example" }), "901400"),
        (json!({ "connector": null, "issuer": "https://a.example" }), "901401"),
        (json!({ "connector": "http", "issuer": "https://a.example" }), "901401"),
        (json!({ "connector": "oidc", "issuer": "http://a.example" }), "400"),
    ] {
        let answer = desk.ask("PUT", "/v1/key-managers/new", &body);
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(code)), "{body}: {}", answer.text());
    }
}

#[test]
fn what_cannot_be_stored_is_refused_by_field() {
    let desk = Desk::start("");
    for (name, body, status, field) in [
        ("own", json!({ "connector": "oidc", "issuer": "https://a.example" }), 409, None),
        ("new", json!({ "connector": "oidc" }), 400, Some("issuer")),
        ("new", json!({ "connector": "oidc", "issuer": "http://a.example" }), 400, Some("issuer")),
        ("new", json!({ "connector": "oidc", "issuer": "https://a.example", "isuer": 1 }), 400, Some("isuer")),
        ("new", json!({ "connector": "oidc", "issuer": "https://a.example", "leeway": 5 }), 400, Some("leeway")),
        ("new", json!({ "connector": "embedded", "issuer": "http://127.0.0.1:1" }), 400, Some("connector")),
        ("new", json!({ "connector": 5, "issuer": "https://a.example" }), 400, Some("connector")),
        ("new", json!({ "connector": ["oidc"], "issuer": "https://a.example" }), 400, Some("connector")),
        ("new", json!({ "connector": { "oidc": null }, "issuer": "https://a.example" }), 400, Some("connector")),
        ("new", json!({ "connector": null, "issuer": "https://a.example" }), 400, Some("connector")),
        (
            "new",
            json!({ "connector": "oidc", "issuer": "https://a.example", "validation": 5 }),
            400,
            Some("validation"),
        ),
        ("%2E", json!({ "connector": "oidc", "issuer": "https://a.example" }), 400, Some("name")),
        ("..", json!({ "connector": "oidc", "issuer": "https://a.example" }), 400, Some("name")),
        ("new", json!({ "name": "old", "connector": "oidc", "issuer": "https://a.example" }), 400, Some("name")),
        (
            "new",
            json!({ "connector": "oidc", "issuer": "https://a.example", "client_id": "a", "client_secret": { "file": "/etc/passwd" } }),
            400,
            Some("client_secret"),
        ),
    ] {
        let answer = desk.ask("PUT", &format!("/v1/key-managers/{name}"), &body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert_eq!(answer.json().get("field").and_then(Value::as_str), field, "{body}: {}", answer.text());
    }
    assert_eq!(desk.ask("GET", "/v1/key-managers/new", &Value::Null).status, 404);
    for connector in [json!(5), json!(true), json!(["oidc"]), json!({ "oidc": null }), json!("none-such")] {
        let body = json!({ "connector": connector, "issuer": "https://a.example" });
        let detail = desk.ask("PUT", "/v1/key-managers/new", &body).json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with("connector: ") && detail.contains("keycloak"), "what it may be: {detail}");
        assert!(matches!(connector, Value::String(_)) || detail.contains("text"), "and its type: {detail}");
    }
}

#[test]
fn the_whole_answer_about_a_key_manager_is_no_configuration_and_told_to_be_more() {
    let desk = Desk::start("");
    let path = "/v1/key-managers/new";
    assert_eq!(desk.ask("PUT", path, &json!({ "connector": "oidc", "issuer": "https://a.example" })).status, 201);
    let read = desk.ask("GET", path, &Value::Null).json();
    for at in [path, "/v1/key-managers/other"] {
        let refused = desk.ask("PUT", at, &read);
        assert_eq!((refused.status, &refused.json()["field"]), (400, &json!("configuration")), "{}", refused.text());
        assert!(refused.text().contains("what stands under it"), "{}", refused.text());
    }
    assert_eq!(desk.ask("PUT", path, &read["configuration"]).status, 200);
}

#[test]
fn a_stored_key_manager_can_be_removed() {
    let (idp, folder) = (Idp::start(), tempfile::tempdir().unwrap());
    let place = Place::new(folder.path());
    let gate = Gate::start(|ports| place.config(ports, "", ""));
    let key = place.key();
    let tell = |method: &str, path: &str, body: &Value| ask(place.port, &key, method, path, body);
    let path = "/v1/key-managers/main";
    let body = json!({ "connector": "oidc", "issuer": idp.issuer(), "audience": ["orders-api"] });
    assert_eq!(tell("PUT", path, &body).status, 201);
    let token = Token::of(&idp, "shop-web").sign();
    gate.wait_for("its keys", || verdict(&gate, &token) == 200);

    let dry = tell("DELETE", &format!("{path}?dry_run=true"), &Value::Null);
    assert_eq!((dry.status, &dry.json()["operation"]), (200, &json!("deleteKeyManager")), "{}", dry.text());
    assert_eq!(verdict(&gate, &token), 200, "it was a dry run");

    assert_eq!(tell("DELETE", path, &Value::Null).status, 204);
    assert_eq!(verdict(&gate, &token), 401, "nobody vouches for its tokens any more, remembered or not");
    for method in ["GET", "DELETE"] {
        assert_eq!(tell(method, path, &Value::Null).status, 404, "{method}");
    }
    let declared = tell("DELETE", "/v1/key-managers/own", &Value::Null);
    assert!(declared.status == 409 && declared.text().contains("declared in the file"), "{}", declared.text());
    let audit = tell("GET", "/v1/audit", &Value::Null).json();
    let last = audit["items"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["operation"], &last["subject"]), (&json!("deleteKeyManager"), &json!("main")), "{last}");
    assert_eq!(last["before"]["issuer"], idp.issuer());
    drop(gate);
    let gate = Gate::start(|ports| place.config(ports, "", ""));
    assert_eq!(verdict(&gate, &token), 401, "nor after a restart");
}
