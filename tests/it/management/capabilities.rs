//! What a key manager can do, as far as only its provider tells: it is asked, and what it said is remembered.

use serde_json::{Value, json};

use super::{Desk, text};
use crate::support::Idp;

const PATH: &str = "/v1/key-managers/main";

/// A desk with the provider as a stored key manager.
fn desk(idp: &Idp) -> (Desk, Value) {
    let desk = Desk::start("");
    let body = json!({ "connector": "oidc", "issuer": idp.issuer(), "audience": ["orders-api"],
        "client_id": "tollgate", "client_secret": "s3cret-of-ours", "timeout": "1s" });
    assert_eq!(desk.ask("PUT", PATH, &body).status, 201);
    (desk, body)
}

fn told(desk: &Desk) -> Value {
    desk.ask("GET", &format!("{PATH}/capabilities"), &Value::Null).json()
}

#[test]
fn what_the_provider_does_not_announce_is_told_before_anything_is_asked_for() {
    let idp = Idp::start();
    let (desk, body) = desk(&idp);
    let said = told(&desk);
    assert!(text(&said, "createApplication").contains("registration_endpoint"), "{said}");
    assert!(text(&said, "registerNewResource").contains("UMA"), "{said}");
    assert_eq!((&said["canHandleToken"], said.get("undiscovered")), (&json!(true), None), "{said}");
    let asked = desk.ask("POST", &format!("{PATH}/clients"), &json!({}));
    assert!(asked.status == 501 && asked.text().contains(&text(&said, "createApplication")), "{}", asked.text());

    // Another one comes and goes: this one knows what it knew, whether or not its provider is there.
    idp.stop();
    let other = |body: &Value| {
        let mut body = body.clone();
        body["issuer"] = json!("https://other.example");
        body["startup"] = json!("optional");
        body
    };
    assert_eq!(desk.ask("PUT", "/v1/key-managers/other", &other(&body)).status, 201);
    assert_eq!(told(&desk), said);
    assert_eq!(desk.ask("DELETE", "/v1/key-managers/other", &Value::Null).status, 204);
    assert_eq!(told(&desk), said);

    // One that is changed itself has to ask again.
    let mut changed = body;
    changed["leeway"] = json!("7s");
    assert_eq!(desk.ask("PUT", PATH, &changed).status, 200);
    let unasked = told(&desk);
    assert!(text(&unasked, "undiscovered").contains("cannot be reached"), "{unasked}");
    assert_eq!(unasked["createApplication"], true, "{unasked}");
    idp.restart();
    assert_eq!(told(&desk), said);
}
