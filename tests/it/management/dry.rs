//! A dry run at a real provider: it refuses what the change would be refused for, with the same answer, and changes
//! nothing.

use serde_json::{Value, json};

use super::{Desk, ask};
use crate::support::Answer;

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

/// One change after the other, each tried first.
pub(crate) struct Walk<'a> {
    port: u16,
    key: &'a str,
    /// The key manager whose paths they are.
    of: &'a str,
    differ: Vec<String>,
}

impl<'a> Walk<'a> {
    pub(crate) const fn new(port: u16, key: &'a str, of: &'a str) -> Self {
        Self { port, key, of, differ: Vec::new() }
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let path = match path.strip_prefix('/') {
            Some(_) => path.to_owned(),
            None => format!("/v1/key-managers/{}/{path}", self.of),
        };
        ask(self.port, self.key, method, &path, body)
    }

    fn audited(&self) -> usize {
        self.ask("GET", "/v1/audit?limit=1000", &Value::Null).json()["items"].as_array().unwrap().len()
    }

    /// Both answers must be the same, and the change's the one that is `due`.
    pub(crate) fn step(&mut self, due: u16, method: &str, path: &str, body: &Value) {
        let before = self.audited();
        let dry = self.ask(method, &format!("{path}?dry_run=true"), body);
        let left = self.audited() - before;
        let change = self.ask(method, path, body);
        let json = |answer: &Answer| serde_json::from_str(&answer.text()).unwrap_or(Value::Null);
        let (tried, done): (Value, Value) = (json(&dry), json(&change));
        let told = |problem: &Value| ["code", "field"].map(|name| problem[name].clone());
        let same = match change.status {
            ..300 => dry.status == 200 && tried["dryRun"] == true,
            _ => dry.status == change.status && told(&tried) == told(&done),
        };
        if !same || left > 0 || change.status != due {
            let (dry, change) = ((dry.status, dry.text()), (change.status, change.text()));
            self.differ.push(format!("{method} {path} {body}: {dry:?}, then {change:?}; due {due}"));
        }
    }

    pub(crate) fn end(self) {
        assert!(self.differ.is_empty(), "{}", self.differ.join("\n"));
    }
}

#[test]
fn every_change_at_the_embedded_provider_is_tried_as_it_is_made() {
    let desk = Desk::start(
        "clients = [{ id = \"till\", secret = \"s3cret-of-till\", scopes = [\"a\"] }]\n\
         users = [{ name = \"ada\", password = \"l0velace\", scopes = [\"a\"] }]",
    );
    let grants = json!({ "grant_types": "client_credentials,password,refresh_token" });
    let (mine, secret) = desk.client(json!({ "clientId": "mine", "parameters": grants }));
    let (other, others) = desk.client(json!({ "clientId": "other" }));
    let (own, foreign) = (desk.token(&mine, &secret), desk.token(&other, &others));
    let once = desk.token(&mine, &secret);
    let mut walk = Walk::new(desk.port, &desk.key, "own");
    let good = "a-secret-of-our-own-choosing";
    let none = || json!({ "parameters": { "scope": "none" } });
    for (status, method, path, body) in [
        // Of the configuration file.
        (409, "PUT", "clients/till", json!({})),
        (409, "DELETE", "clients/till", Value::Null),
        (409, "PUT", "clients/till/owner", json!({ "owner": "ada" })),
        (409, "POST", "clients/till/secret", Value::Null),
        (409, "POST", "clients/till/secrets", json!({})),
        (409, "DELETE", "clients/till/secrets/declared", Value::Null),
        (409, "POST", "clients", json!({ "clientId": "till" })),
        (409, "POST", "clients", json!({ "clientId": "ada" })),
        // Clients.
        (400, "POST", "clients", none()),
        (400, "POST", "clients", json!({ "clientSecret": "short" })),
        (400, "POST", "clients", json!({ "parameters": { "grant_types": "nope" } })),
        (201, "POST", "clients", json!({ "clientId": "new", "clientSecret": good })),
        (409, "POST", "clients", json!({ "clientId": "new" })),
        (400, "PUT", "clients/mine", none()),
        (400, "PUT", "clients/mine", json!({ "parameters": { "grant_types": "nope" } })),
        (400, "PUT", "clients/mine", json!({ "parameters": { "response_types": "code" } })),
        (400, "PUT", "clients/mine", json!({ "parameters": { "client_secret_expires_in": 5 } })),
        (
            400,
            "PUT",
            "clients/mine",
            json!({ "parameters": { "additionalProperties": {
            "application_access_token_expiry_time": 2_000_000_000 } } }),
        ),
        (400, "PUT", "clients/mine", json!({ "tokenType": "OAUTH" })),
        (400, "PUT", "clients/mine", json!({ "clientSecret": "wrong" })),
        (200, "PUT", "clients/mine", json!({ "clientName": "Mine", "parameters": grants })),
        (404, "PUT", "clients/gone", json!({})),
        (404, "DELETE", "clients/gone", Value::Null),
        (400, "PUT", "clients/mine/owner", json!({ "owner": "ö".repeat(150) })),
        (200, "PUT", "clients/mine/owner", json!({ "owner": "ada" })),
        (409, "POST", "clients/map", json!({ "clientId": "mine", "clientSecret": secret })),
        (400, "POST", "clients/map", json!({ "clientId": "till", "clientSecret": "wrong" })),
        (200, "POST", "clients/map", json!({ "clientId": "till", "clientSecret": "s3cret-of-till" })),
        (204, "DELETE", "clients/till/mapping", Value::Null),
        (404, "DELETE", "clients/till/mapping", Value::Null),
        (409, "DELETE", "clients/mine/mapping", Value::Null),
        // Secrets.
        (400, "POST", "clients/new/secrets", json!({ "clientSecret": "short" })),
        (400, "POST", "clients/new/secrets", json!({ "parameters": { "expiresIn": 0 } })),
        (409, "POST", "clients/new/secrets", json!({ "clientSecret": good })),
        (201, "POST", "clients/new/secrets", json!({})),
        (404, "DELETE", "clients/new/secrets/none", Value::Null),
        (200, "POST", "clients/new/secret", Value::Null),
        (404, "POST", "clients/gone/secret", Value::Null),
        // Tokens.
        (400, "POST", "clients/mine/tokens", json!({ "clientSecret": "wrong" })),
        (400, "POST", "clients/mine/tokens", json!({ "clientSecret": secret, "grantType": "nope" })),
        (400, "POST", "clients/mine/tokens", json!({ "clientSecret": secret, "scope": ["none"] })),
        (400, "POST", "clients/mine/tokens", json!({ "clientSecret": secret, "validityPeriod": 0 })),
        (400, "POST", "clients/mine/tokens", json!({ "clientSecret": secret, "tokenToRevoke": foreign })),
        (400, "POST", "clients/mine/tokens", json!({ "clientSecret": "wrong", "tokenToRevoke": own })),
        (
            400,
            "POST",
            "clients/mine/tokens",
            json!({ "clientSecret": secret, "grantType": "password",
            "resourceOwnerUsername": "ada", "resourceOwnerPassword": "wrong" }),
        ),
        (
            400,
            "POST",
            "clients/mine/tokens",
            json!({ "clientSecret": secret, "grantType": "refresh_token",
            "refreshToken": "tgr_none" }),
        ),
        (201, "POST", "clients/mine/tokens", json!({ "clientSecret": secret, "tokenToRevoke": own })),
        (404, "POST", "clients/gone/tokens", json!({})),
        (400, "POST", "tokens/revoke-one-time", json!({ "token": once, "consumerKey": "other" })),
        (204, "POST", "tokens/revoke-one-time", json!({ "token": once, "consumerKey": "mine" })),
        (400, "POST", "tokens/revoke", json!({ "token": "a b" })),
        (204, "POST", "tokens/revoke", json!({ "token": foreign })),
        // Scopes.
        (400, "POST", "scopes", json!({ "key": "a", "roles": vec!["r"; 201].join(",") })),
        (201, "POST", "scopes", json!({ "key": "a" })),
        (409, "POST", "scopes", json!({ "key": "a" })),
        (200, "PUT", "scopes/a", json!({ "name": "A" })),
        (404, "PUT", "scopes/none", json!({})),
        (404, "DELETE", "scopes/none", Value::Null),
        // Resources.
        (409, "POST", "resources", json!({ "apiId": "r", "scopes": ["none"] })),
        (201, "POST", "resources", json!({ "apiId": "r", "scopes": ["a"] })),
        (409, "POST", "resources", json!({ "apiId": "r" })),
        (409, "PUT", "resources/r", json!({ "scopes": ["none"] })),
        (404, "PUT", "resources/none", json!({})),
        (409, "PUT", "resources/r/scopes", json!({ "scopes": ["none"] })),
        (409, "PATCH", "resources/r/scopes", json!({ "scopes": ["none"] })),
        (404, "PUT", "resources/none/scopes", json!({ "scopes": ["a"] })),
        (200, "PATCH", "resources/r/scopes", json!({ "scopes": ["a"] })),
        (204, "DELETE", "resources/r/scopes", Value::Null),
        (204, "DELETE", "resources/r", Value::Null),
        (404, "DELETE", "resources/r", Value::Null),
        (204, "DELETE", "scopes/a", Value::Null),
        (204, "DELETE", "clients/new", Value::Null),
        (409, "POST", "clients", json!({ "clientId": "new" })),
        // Ours.
        (409, "PUT", "/v1/key-managers/own", json!({})),
        (409, "DELETE", "/v1/key-managers/own", Value::Null),
        (400, "POST", "/v1/revocations", json!({ "kind": "jti", "value": "x", "issuer": "https://none.example" })),
        (201, "POST", "/v1/revocations", json!({ "kind": "jti", "value": "x" })),
    ] {
        walk.step(status, method, path, &body);
    }
    walk.end();
    assert_eq!(desk.verdict(&own), 401, "it was revoked, by the change");
}

#[test]
fn what_was_only_tried_is_not_in_force() {
    let desk = Desk::start("users = [{ name = \"ada\", password = \"l0velace\", scopes = [] }]");
    let grants = json!({ "grant_types": "client_credentials,password,refresh_token" });
    let (id, secret) = desk.client(json!({ "clientId": "mine", "parameters": grants }));
    let client = "/v1/key-managers/own/clients/mine";
    let with = json!({ "clientSecret": secret, "grantType": "password", "resourceOwnerUsername": "ada",
        "resourceOwnerPassword": "l0velace" });
    let issued = desk.ask("POST", &format!("{client}/tokens"), &with).json();
    let (token, refresh) = (super::text(&issued, "accessToken"), super::text(&issued, "refreshToken"));
    let refreshes = json!({ "clientSecret": secret, "grantType": "refresh_token", "refreshToken": refresh });
    let revokes = json!({ "clientSecret": secret, "tokenToRevoke": token });
    let fails = json!({ "clientSecret": secret, "tokenToRevoke": token, "scope": ["none"] });
    let (secrets, revoke) = (format!("{client}/secret"), "/v1/key-managers/own/tokens/revoke".to_owned());
    for (status, method, path, body) in [
        (200, "POST", format!("{client}/tokens"), &refreshes),
        (200, "POST", format!("{client}/tokens"), &refreshes),
        (200, "POST", format!("{client}/tokens"), &revokes),
        (400, "POST", format!("{client}/tokens"), &fails),
        (200, "POST", secrets, &Value::Null),
        (200, "POST", revoke, &json!({ "token": token })),
        (200, "DELETE", client.to_owned(), &Value::Null),
    ] {
        let dry = desk.ask(method, &format!("{path}?dry_run=true"), body);
        assert_eq!(dry.status, status, "{method} {path} {body}: {}", dry.text());
        assert!(!dry.text().contains("is revoked all the same"), "{}", dry.text());
        assert_eq!(desk.verdict(&token), 200, "{method} {path} {body}");
    }
    let live = desk.ask("GET", &format!("{client}/tokens"), &Value::Null).json();
    assert_eq!(live["items"].as_array().map(Vec::len), Some(1), "{live}");
    desk.token(&id, &secret);
    assert_eq!(desk.ask("POST", &format!("{client}/tokens"), &refreshes).status, 201, "the refresh token is unused");
}
