//! What is used of limits, told by the door and by `tollgate km usage`: which rows a filter brings, who may ask, and
//! what is asked wrongly.

use serde_json::{Value, json};

use super::{Desk, Place, ask};
use crate::{
    provider::Caller,
    support::{Gate, Request, Via, api, block_on, resource, run, send},
};

/// Windows of a day, so that no test meets the end of one but at midnight.
const TIERS: &str = "
[[tiers]]
name = \"Seven\"
requests = 7
per = \"1d\"
[[tiers]]
name = \"Five\"
requests = 5
per = \"1d\"
[[tiers]]
name = \"Nine\"
requests = 9
per = \"1d\"
[[applications]]
name = \"shop\"
owner = \"ada\"
tier = \"Nine\"
keys = [{ key_manager = \"own\", consumer_key = \"shop\" }]
[[subscriptions]]
application = \"shop\"
api = \"Bills\"
tier = \"Five\"
";

const CLERKS: &str = "clients = [\
    { id = \"reader\", secret = \"s3cret\", scopes = [\"tollgate:read\"] },\
    { id = \"stranger\", secret = \"s3cret\", scopes = [\"orders:read\"] }]";

/// A desk whose API `Bills` was called three times by `shop`.
fn desk() -> Desk {
    desk_with("")
}

/// The same, with further tables.
fn desk_with(more: &str) -> Desk {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path());
    let tables = TIERS.to_owned()
        + &api("Bills", "/bills", None, "upstream = \"echo:\"\ntier = \"Seven\"")
        + &resource("/a/{id}", "")
        + more;
    let gate = Gate::start(|ports| place.config(ports, CLERKS, &tables));
    let desk = Desk { gate, port: place.port, provider: place.provider, key: place.key(), _folder: folder };
    let (id, secret) = desk.client(json!({ "clientId": "shop", "clientName": "shop" }));
    let token = desk.token(&id, &secret);
    for _ in 0..3 {
        let request = Request::get("/bills/a/1").bearer(&token);
        let answer = block_on(send(desk.gate.ports.proxy, Via::H1, &request));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    desk
}

/// Level, tier, used and limit of each row.
fn rows(list: &Value) -> Vec<(String, String, u64, u64)> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let row = |row: &Value| {
        assert_eq!((&row["kind"], &row["windowSeconds"]), (&json!("requests"), &json!(86_400)), "{row}");
        assert!((1..=86_400).contains(&row["resetSeconds"].as_u64().unwrap()), "{row}");
        (text(row, "level"), text(row, "tier"), row["used"].as_u64().unwrap(), row["limit"].as_u64().unwrap())
    };
    list["items"].as_array().unwrap().iter().map(row).collect()
}

fn row(level: &str, tier: &str, limit: u64) -> (String, String, u64, u64) {
    (level.into(), tier.into(), 3, limit)
}

#[test]
fn usage_is_told_by_tier_application_and_api() {
    let desk = desk();
    let (of_api, of_subscription) = (row("api", "Seven", 7), row("subscription", "Five", 5));
    for (query, expected) in [
        ("tier=Seven", vec![of_api.clone()]),
        ("tier=Five", vec![of_subscription.clone()]),
        ("tier=Nine", vec![]),
        ("application=shop", vec![of_subscription.clone()]),
        ("api=Bills", vec![of_api, of_subscription]),
        ("api=Orders", vec![]),
    ] {
        let answer = desk.ask("GET", &format!("/v1/usage?{query}"), &Value::Null);
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let list = answer.json();
        assert_eq!((rows(&list), list.get("cursor")), (expected, None), "{query}");
        // Of application tiers each user has a counter of their own.
        let is_by_user = ["tier=Nine", "application=shop"].contains(&query);
        assert_eq!(list.get("hint").is_some(), is_by_user, "{query}: {list}");
        let (name, value) = query.split_once('=').unwrap();
        let url = format!("http://127.0.0.1:{}", desk.port);
        let key = desk._folder.path().join("bootstrap.key");
        let flag = format!("--{name}");
        let words = ["km", "--url", &url, "--bootstrap-key", key.to_str().unwrap(), "usage", &flag, value, "--json"];
        let output = run(&words);
        assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(rows(&told), rows(&list), "{query}");
    }
    let before = desk.ask("GET", "/v1/usage?api=Bills", &Value::Null).json();
    assert_eq!(
        rows(&before),
        rows(&desk.ask("GET", "/v1/usage?api=Bills", &Value::Null).json()),
        "reading takes nothing"
    );
}

#[test]
fn usage_comes_in_pages_and_the_command_line_follows_them() {
    let desk = desk();
    let ask = |query: &str| desk.ask("GET", &format!("/v1/usage?{query}"), &Value::Null).json();
    let whole = rows(&ask("api=Bills"));
    let first = ask("api=Bills&limit=1");
    let cursor = first["cursor"].as_str().unwrap();
    let second = ask(&format!("api=Bills&limit=1&cursor={cursor}"));
    assert_eq!(([rows(&first), rows(&second)].concat(), second.get("cursor")), (whole, None));

    let url = format!("http://127.0.0.1:{}", desk.port);
    let key = desk._folder.path().join("bootstrap.key");
    let words = |more: &[&'static str]| {
        let words = ["km", "--url", &url, "--bootstrap-key", key.to_str().unwrap(), "usage"];
        let output = run(&[&words[..], more].concat());
        assert!(output.status.success(), "{more:?}");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (told, note) = words(&["--api", "Bills", "--limit", "1"]);
    assert!(told.contains("Seven") && !told.contains("Five"), "{told}");
    assert!(note.contains(&format!("there is more: --cursor {cursor}")), "{note}");
    let (told, note) = words(&["--application", "shop"]);
    assert!(told.contains("Five") && note.contains("name a user by issuer and subject"), "{told} {note}");
}

/// More than the door gives at once: a subscription of each of them to one API.
#[test]
fn usage_beyond_a_page_is_told_whole_by_the_command_line() {
    let number = 1_203;
    let mut many = String::new();
    for n in 0..number {
        many += &format!("[[applications]]\nname = \"a{n}\"\nowner = \"ada\"\n");
        many += &format!("[[subscriptions]]\napplication = \"a{n}\"\napi = \"Bills\"\ntier = \"Five\"\n");
    }
    let desk = desk_with(&many);
    let url = format!("http://127.0.0.1:{}", desk.port);
    let key = desk._folder.path().join("bootstrap.key");
    let output =
        run(&["km", "--url", &url, "--bootstrap-key", key.to_str().unwrap(), "usage", "--tier", "Five", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let items = told["items"].as_array().unwrap();
    let applications: std::collections::HashSet<_> = items.iter().map(|row| row["application"].as_str()).collect();
    assert_eq!((items.len(), applications.len(), told.get("cursor")), (number + 1, number + 1, None));
}

#[test]
fn usage_that_is_asked_wrongly_is_refused() {
    let desk = desk();
    for (query, status, field) in [
        ("", 400, "tier"),
        ("?tier=Five&api=Bills", 400, "tier"),
        ("?tier=Five&application=shop", 400, "tier"),
        ("?tier=Five&subject=ann", 400, "issuer"),
        ("?tier=Five&issuer=https://a.example", 400, "subject"),
        ("?tier=Five&limit=0", 400, "limit"),
        ("?tier=Five&limit=1001", 400, "limit"),
        ("?tier=Five&cursor=x", 400, "cursor"),
        ("?tier=Five&cursor=-1", 400, "cursor"),
        ("?tier=Five&cursor=7", 400, "cursor"),
        ("?tier=Nine&cursor=1", 400, "cursor"),
        ("?tier=None", 404, "tier"),
        ("?application=None", 404, "application"),
        ("?api=None", 404, "api"),
        ("?tier=Nine&issuer=https://nobody.example&subject=ann", 404, "issuer"),
        ("?tier=None&issuer=https://nobody.example&subject=ann", 404, "tier"),
    ] {
        let answer = desk.ask("GET", &format!("/v1/usage{query}"), &Value::Null);
        assert_eq!(answer.status, status, "{query}: {}", answer.text());
        assert_eq!(answer.json()["field"], field, "{query}: {}", answer.text());
    }
    for (who, scope, status) in [("reader", "tollgate:read", 200), ("stranger", "orders:read", 403)] {
        let caller = Caller { port: desk.provider, id: who.into(), secret: "s3cret".into() };
        let token = caller.token(&format!("grant_type=client_credentials&scope={scope}"));
        let token = token["access_token"].as_str().unwrap();
        assert_eq!(ask(desk.port, token, "GET", "/v1/usage?tier=Five", &Value::Null).status, status, "{who}");
    }
    assert_eq!(ask(desk.port, "wrong", "GET", "/v1/usage?tier=Five", &Value::Null).status, 401);
}
