//! What is wrong is told by the name that it has in the request, and in words that whoever asks knows.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{openapi::document, route::Route, routes::routes, testing::Stand};

const ONE: &str = "/v1/key-managers/one";

#[tokio::test]
async fn a_field_is_told_as_the_request_spells_it() {
    let stand = Stand::start().await;
    stand.client("a").await;
    let long = "x".repeat(256);
    for (method, path, body, field) in [
        ("POST", "clients/parse", json!({ "client_id": "a\u{1}" }), "client_id"),
        ("POST", "clients/parse", json!({ "client_name": long }), "client_name"),
        ("POST", "clients/parse", json!({ "client_secret": "ü" }), "client_secret"),
        ("POST", "clients/parse", json!({ "callbackUrl": "/relative" }), "callbackUrl"),
        ("POST", "clients/parse", json!({ "callback_url": "/relative" }), "callback_url"),
        ("POST", "clients/parse", json!({ "grant_types": "implicit" }), "callbackUrl"),
        ("POST", "clients/parse", json!({ "grant_types": ["a"] }), "grant_types"),
        ("POST", "clients/parse", json!({ "key_type": "TEST" }), "key_type"),
        ("POST", "clients/parse", json!({ "additionalProperties": "x" }), "additionalProperties"),
        ("POST", "clients/parse", json!({ "own": { "a": "\u{1}" } }), "own.a"),
        ("POST", "clients/parse", json!({ long.clone(): 1 }), "body"),
        ("POST", "tokens/parse", json!({ "grant_type": long }), "grant_type"),
        ("POST", "tokens/parse", json!({ "client_secret": "" }), "client_secret"),
        ("POST", "tokens/parse", json!({ "validityPeriod": 0 }), "validityPeriod"),
        ("POST", "tokens/parse", json!({ "scope": "a b\\" }), "scope"),
        ("POST", "tokens/parse", json!({ "scope": ["a", "b\\"] }), "scope[1]"),
        ("POST", "tokens/parse", json!({ "scope": ["a", 7] }), "scope[1]"),
        ("POST", "clients/a/token-request", of_client(&json!({ "validityPeriod": "x" })), "parameters.validityPeriod"),
        ("POST", "clients/a/token-request", of_client(&json!({ "validityPeriod": 0 })), "parameters.validityPeriod"),
        ("POST", "clients/a/token-request", of_client(&json!({ "tokenScope": "a\\" })), "parameters.tokenScope"),
        ("POST", "clients/a/token-request", of_client(&json!({ "tokenScope": ["a\\"] })), "parameters.tokenScope[0]"),
        ("POST", "clients/a/tokens", json!({ "scope": ["a", "b c"] }), "scope[1]"),
        ("POST", "clients/a/tokens", json!({ "requestParameters": { "p": "\u{1}" } }), "requestParameters.p"),
        ("POST", "clients/a/secrets", json!({ "parameters": { "more": 1 } }), "parameters.more"),
        ("POST", "clients", json!({ "appAttributes": { "team": "\u{1}" } }), "appAttributes.team"),
        ("POST", "clients/map", json!({ "clientId": "b", "keyType": "TEST" }), "keyType"),
        ("POST", "scopes/validate", json!({ "scopes": [{ "key": "a" }, { "key": "b c" }] }), "scopes[1].key"),
        ("POST", "scopes/validate", json!({ "scopes": [{}] }), "scopes[0].key"),
        ("POST", "scopes/validate", json!({ "scopes": [] }), "scopes"),
        ("POST", "resources", json!({ "apiId": "r", "uris": ["https://a.example", ""] }), "uris[1]"),
        ("POST", "resources", json!({ "apiId": "r", "scopes": ["a", "b c"] }), "scopes[1]"),
        ("PUT", "resources/r/scopes", json!({ "scopes": ["a", "b c"] }), "scopes[1]"),
    ] {
        let answer = stand.ask(method, &format!("{ONE}/{path}"), &body.to_string()).await;
        let problem = answer.json();
        assert_eq!((answer.status, &problem["field"]), (400, &json!(field)), "{path} {body}: {}", answer.body);
        assert!(problem["detail"].as_str().is_some_and(|it| it.starts_with(&format!("{field}: "))), "{problem}");
    }
}

fn of_client(parameters: &Value) -> Value {
    json!({ "clientSecret": "s3cret", "parameters": parameters })
}

#[tokio::test]
async fn a_part_of_the_path_is_told_by_the_name_that_its_route_gives_it() {
    let stand = Stand::start().await;
    for (method, path, field) in [
        ("GET", "scopes/%01", "key"),
        ("HEAD", "scopes/%01", ""),
        ("DELETE", "scopes/%01", "key"),
        ("GET", "resources/%01", "apiId"),
        ("GET", "users/%01/claims", "name"),
        ("GET", "clients/%01", "ck"),
        ("DELETE", "clients/%01", "ck"),
        ("GET", "clients/%01/tokens", "ck"),
        ("GET", "clients/%01/token", "ck"),
        ("POST", "clients/%01/secret", "ck"),
        ("DELETE", "clients/a/secrets/%01", "id"),
        ("DELETE", "clients/%01/mapping", "ck"),
    ] {
        stand.one.cannot.lock().clear();
        let answer = stand.ask(method, &format!("{ONE}/{path}"), "").await;
        if path.starts_with("users") {
            assert_eq!(answer.status, 501, "it never can: {}", answer.body);
            continue;
        }
        assert_eq!(answer.status, 400, "{method} {path}: {}", answer.body);
        assert!(field.is_empty() || answer.json()["field"] == field, "{method} {path}: {}", answer.body);
    }
    let all = stand.ask("DELETE", "/v1/scopes/%01", "").await;
    assert_eq!((all.status, &all.json()["field"]), (400, &json!("key")), "{}", all.body);
}

/// Every member of every body, each with values of every kind.
#[tokio::test]
async fn no_problem_names_what_is_no_part_of_the_request_or_of_json() {
    let stand = Stand::start().await;
    stand.client("a").await;
    let document: Value = serde_json::from_slice(&document(&routes())).unwrap();
    let values =
        [json!(7), json!(-7.5), json!(true), json!([7]), json!([[]]), json!({ "x": [7] }), json!("\u{1}"), json!("")];
    let mut refused = 0;
    for route in routes().iter().filter(|route| route.body.is_some() && route.operation != "loadConfiguration") {
        let members = members(&document, route);
        for (name, value) in members.iter().flat_map(|name| values.iter().map(move |value| (name, value))) {
            let body = json!({ name: value }).to_string();
            let path = route.path.replace("{km}", "one").replace("{ck}", "a").replace(['{', '}'], "");
            let answer = stand.ask(route.method.as_str(), &path, &body).await;
            if answer.status != 400 {
                continue;
            }
            refused += 1;
            let problem = answer.json();
            let (field, detail) = (problem["field"].as_str().unwrap_or(""), problem["detail"].as_str().unwrap_or(""));
            let root = field.split(['.', '[']).next().unwrap_or_default();
            assert!(members.contains(root) || field == "body", "{path} {body}: {detail}");
            for word in ["struct", "a map", "a sequence", "a string", "a boolean", "u64", "i64", "u32", "enum", "tuple"]
            {
                assert!(!detail.contains(word), "{path} {body}: {detail}");
            }
        }
    }
    assert!(refused > 300, "{refused}");
}

/// The names of what the route's body may have.
fn members(document: &Value, route: &Route) -> BTreeSet<String> {
    let at = |pointer: &str| document.pointer(pointer).unwrap_or(&Value::Null);
    let path = route.path.replace('/', "~1");
    let method = route.method.as_str().to_ascii_lowercase();
    let schema = at(&format!("/paths/{path}/{method}/requestBody/content/application~1json/schema"));
    let of_all = schema["allOf"].as_array().cloned().unwrap_or_default();
    let mut names = BTreeSet::new();
    for part in of_all.iter().chain([schema]) {
        let part = part["$ref"].as_str().map_or(part, |reference| at(reference.trim_start_matches('#')));
        names.extend(part["properties"].as_object().iter().flat_map(|it| it.keys().cloned()));
    }
    assert!(!names.is_empty(), "{} {schema}", route.operation);
    names
}
