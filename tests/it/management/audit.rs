//! The audit: of every changing operation what there was before and what there is since, and of no secret.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Desk, text};
use crate::support::{Idp, free_ports};

/// Does what changes something, and looks at its line.
struct Auditor<'d> {
    desk: &'d Desk,
    /// The operations that were done, as `/openapi.json` names them.
    done: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

/// Where a line's `before` or `after` is to have which value; none: it is to have no such member.
type Told = Option<(&'static str, Value)>;

impl Auditor<'_> {
    fn last(&self) -> Value {
        let (mut cursor, mut last) = (String::new(), Value::Null);
        loop {
            let page = self.desk.ask("GET", &format!("/v1/audit?limit=1000{cursor}"), &Value::Null).json();
            last = page["items"].as_array().unwrap().last().cloned().unwrap_or(last);
            let Some(next) = page.get("cursor") else { return last };
            cursor = format!("&cursor={}", next.as_str().unwrap());
        }
    }

    fn does(&mut self, operation: &str, request: (&str, &str, Value), before: Told, after: Told) -> Value {
        let ((method, path, body), number) = (request, self.last()["id"].as_u64().unwrap_or(0));
        let answer = self.desk.ask(method, path, &body);
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
        let line = self.last();
        assert_eq!(line["id"], number + 1, "{operation} leaves one line: {line}");
        let named = match operation.trim_end_matches("Everywhere") {
            "revoke" => "revokeToken",
            name => name,
        };
        assert_eq!(
            (&line["operation"], &line["outcome"], &line["who"]),
            (&json!(named), &json!("done"), &json!("bootstrap")),
            "{line}"
        );
        for (member, told) in [("before", before), ("after", after)] {
            match (line.get(member), told) {
                (None, None) => {}
                (Some(found), Some((place, value))) => {
                    assert_eq!(found.pointer(place), Some(&value), "{operation}: {member} {place}: {line}");
                }
                (_, told) => panic!("{operation}: {member} should be {told:?}: {line}"),
            }
        }
        self.done.insert(operation.to_owned());
        if answer.body.is_empty() {
            return Value::Null;
        }
        let answer = answer.json();
        for secret in ["clientSecret", "accessToken"] {
            self.secrets.extend(answer.get(secret).and_then(Value::as_str).map(str::to_owned));
        }
        answer
    }
}

#[test]
fn every_change_tells_before_and_after_and_no_secret() {
    let desk = Desk::start("clients = [{ id = \"till\", secret = \"s3cret-of-till\", scopes = [\"a\"] }]");
    let mut audit = Auditor { desk: &desk, done: BTreeSet::new(), secrets: BTreeSet::from(["s3cret-of-till".into()]) };
    scopes_and_resources(&mut audit, "/v1/key-managers/own", "");
    scopes_and_resources(&mut audit, "/v1", "Everywhere");
    clients(&mut audit);
    configurations(&mut audit);
    what_waits(&mut audit);

    let offered = desk.ask("GET", "/openapi.json", &Value::Null).json();
    let routes = offered["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
    let dry = |route: &&Value| route["parameters"].as_array().unwrap().iter().any(|it| it["name"] == "dry_run");
    let changing: BTreeSet<String> = routes.filter(dry).map(|route| text(route, "operationId")).collect();
    assert_eq!(audit.done, changing, "every operation that changes something is in this test");
    let (told, number) = (desk.ask("GET", "/v1/audit?limit=1000", &Value::Null).text(), audit.secrets.len());
    assert!(number > 6, "{number} secrets were seen");
    for secret in &audit.secrets {
        assert!(!told.contains(secret.as_str()), "{secret} is in the audit: {told}");
    }
}

/// A provider that is not there: what it is to have waits, until someone lets it go.
fn what_waits(audit: &mut Auditor<'_>) {
    let nobody = format!("http://127.0.0.1:{}", free_ports().provider);
    let body = json!({ "connector": "wso2is", "issuer": nobody, "discovery": false, "startup": "optional",
        "jwks_uri": format!("{nobody}/jwks"), "scope_endpoint": format!("{nobody}/scopes"),
        "client_id": "t", "client_secret": "s3cret-of-ours" });
    audit.does(
        "loadConfiguration",
        ("PUT", "/v1/key-managers/away", body),
        None,
        Some(("/connector", json!("wso2is"))),
    );
    let put_off = audit.desk.ask("POST", "/v1/scopes", &json!({ "key": "waits" }));
    assert_eq!(put_off.status, 202, "{}", put_off.text());
    let waits = audit.desk.ask("GET", "/v1/key-managers/away/pending", &Value::Null).json();
    let path = format!("/v1/key-managers/away/pending/{}", waits["items"][0]["id"]);
    let before = Some(("/operation", json!("registerScope")));
    audit.does("forgetPending", ("DELETE", &path, Value::Null), before, None);
}

fn scopes_and_resources(audit: &mut Auditor<'_>, base: &str, at_all: &str) {
    let mut does = |operation: &str, (method, path, body): (&str, &str, Value), before: Told, after: Told| {
        audit.does(&format!("{operation}{at_all}"), (method, &format!("{base}{path}"), body), before, after);
    };
    let none = || None;
    does("registerScope", ("POST", "/scopes", json!({ "key": "a", "name": "A" })), none(), Some(("/name", json!("A"))));
    let (a, b) = (Some(("/name", json!("A"))), Some(("/name", json!("B"))));
    does("updateScope", ("PUT", "/scopes/a", json!({ "name": "B" })), a, b.clone());

    let x = || Some(("/uris", json!(["/x"])));
    does("registerNewResource", ("POST", "/resources", json!({ "apiId": "api", "uris": ["/x"] })), none(), x());
    let y = json!({ "uris": ["/y"] });
    does("updateRegisteredResource", ("PUT", "/resources/api", y), x(), Some(("/uris", json!(["/y"]))));
    let bound = |keys: &[&str]| Some(("/scopes", json!(keys)));
    let (path, scopes) = ("/resources/api/scopes", |keys: &[&str]| json!({ "scopes": keys }));
    does("attachResourceScopes", ("PUT", path, scopes(&["a"])), bound(&[]), bound(&["a"]));
    does("updateResourceScopes", ("PATCH", path, scopes(&[])), bound(&["a"]), bound(&[]));
    does("attachResourceScopes", ("PUT", path, scopes(&["a"])), bound(&[]), bound(&["a"]));
    does("detachResourceScopes", ("DELETE", path, scopes(&["a"])), bound(&["a"]), bound(&[]));
    does("attachResourceScopes", ("PUT", path, scopes(&["a"])), bound(&[]), bound(&["a"]));
    // Without a body all are taken away.
    does("detachResourceScopes", ("DELETE", path, Value::Null), bound(&["a"]), bound(&[]));
    let gone = Some(("/apiId", json!("api")));
    does("deleteRegisteredResourceByAPIId", ("DELETE", "/resources/api", Value::Null), gone, none());
    does("deleteScope", ("DELETE", "/scopes/a", Value::Null), b, none());
}

fn clients(audit: &mut Auditor<'_>) {
    const CLIENTS: &str = "/v1/key-managers/own/clients";
    const SHOP: &str = "/v1/key-managers/own/clients/shop";
    let at = |path: &str| format!("{SHOP}{path}");
    let grants = || json!({ "grant_types": "client_credentials" });
    let body = json!({ "clientId": "shop", "clientName": "old", "appOwner": "ada", "parameters": grants() });
    let shop = || Some(("/clientId", json!("shop")));
    let made = audit.does("createApplication", ("POST", CLIENTS, body), None, shop());
    let body = json!({ "clientName": "new", "parameters": grants() });
    let (old, new) = (Some(("/clientName", json!("old"))), Some(("/clientName", json!("new"))));
    audit.does("updateApplication", ("PUT", SHOP, body), old, new);
    let owned = |name: &str| Some(("/owner", json!(name)));
    audit.does("updateApplicationOwner", ("PUT", &at("/owner"), json!({ "owner": "bob" })), owned("ada"), owned("bob"));

    let hidden = Some(("/clientSecret", json!("[redacted]")));
    let more = json!({ "parameters": { "description": "night" } });
    let added = audit.does("generateNewApplicationConsumerSecret", ("POST", &at("/secrets"), more), None, hidden);
    let id = text(&added, "secretId");
    let gone = Some(("/secretId", json!(id)));
    audit.does("deleteApplicationConsumerSecret", ("DELETE", &at(&format!("/secrets/{id}")), Value::Null), gone, None);

    let secret = text(&made, "clientSecret");
    let token = |audit: &mut Auditor<'_>| {
        let body = json!({ "clientSecret": secret, "validityPeriod": 60 });
        let issued = Some(("/validityPeriod", json!(60)));
        let issued = audit.does("getNewApplicationAccessToken", ("POST", &at("/tokens"), body), None, issued);
        text(&issued, "accessToken")
    };
    let revoked = || Some(("/kind", json!("token")));
    let body = json!({ "token": token(audit) });
    audit.does("revokeToken", ("POST", "/v1/key-managers/own/tokens/revoke", body), None, revoked());
    let body = json!({ "token": token(audit), "consumerKey": "shop" });
    audit.does("revokeOneTimeToken", ("POST", "/v1/key-managers/own/tokens/revoke-one-time", body), None, revoked());
    // Nothing of a secret can be told.
    audit.does("getNewApplicationConsumerSecret", ("POST", &at("/secret"), Value::Null), None, None);
    audit.does("deleteApplication", ("DELETE", SHOP, Value::Null), shop(), None);

    let mapped = || Some(("/mode", json!("MAPPED")));
    let body = json!({ "clientId": "till", "clientSecret": "s3cret-of-till" });
    audit.does("mapOAuthApplication", ("POST", &format!("{CLIENTS}/map"), body), None, mapped());
    let path = format!("{CLIENTS}/till/mapping");
    audit.does("deleteMappedApplication", ("DELETE", &path, Value::Null), mapped(), None);
}

fn configurations(audit: &mut Auditor<'_>) {
    const MAIN: &str = "/v1/key-managers/main";
    let idp = Idp::start();
    let body = |secret: &str| json!({ "connector": "oidc", "issuer": idp.issuer(), "audience": ["a"], "client_id": "t", "client_secret": secret });
    let hidden = || Some(("/client_secret", json!("[redacted]")));
    audit.secrets.extend(["s3cret-of-ours".into(), "s3cret-that-follows".into()]);
    audit.does("loadConfiguration", ("PUT", MAIN, body("s3cret-of-ours")), None, hidden());
    audit.does("loadConfiguration", ("PUT", MAIN, body("s3cret-that-follows")), hidden(), hidden());
    let jti = || Some(("/value", json!("an-id")));
    let body = json!({ "kind": "jti", "value": "an-id", "issuer": idp.issuer() });
    let row = audit.does("revoke", ("POST", "/v1/revocations", body), None, jti());
    let path = format!("/v1/revocations/{}", text(&row, "id"));
    audit.does("liftRevocation", ("DELETE", &path, Value::Null), jti(), None);
    audit.does("deleteKeyManager", ("DELETE", MAIN, Value::Null), hidden(), None);
}
