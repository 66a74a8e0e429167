//! Lists in pages, from the door and as the command line puts them together.

use serde_json::{Value, json};

use super::Desk;
use crate::support::tollgate;

#[test]
fn secrets_and_tokens_come_in_pages() {
    let desk = Desk::start("");
    let (id, secret) =
        desk.client(json!({ "clientId": "shop", "parameters": { "grant_types": "client_credentials" } }));
    let client = format!("/v1/key-managers/own/clients/{id}");
    for _ in 0..2 {
        desk.token(&id, &secret);
        assert_eq!(desk.ask("POST", &format!("{client}/secrets"), &Value::Null).status, 201);
    }
    for (list, number) in [("secrets", 3), ("tokens", 2)] {
        let page = |query: &str| {
            let page = desk.ask("GET", &format!("{client}/{list}?{query}"), &Value::Null);
            assert_eq!(page.status, 200, "{list}: {}", page.text());
            page.json()
        };
        let whole = page("");
        let all = whole["items"].as_array().unwrap();
        assert_eq!((all.len(), whole.get("cursor")), (number, None), "{list}: {whole}");
        let (mut found, mut query) = (Vec::new(), "limit=1".to_owned());
        loop {
            let part = page(&query);
            found.extend(part["items"].as_array().unwrap().clone());
            let Some(cursor) = part.get("cursor").and_then(Value::as_str) else { break };
            query = format!("limit=1&cursor={cursor}");
        }
        assert_eq!(found, *all, "{list}");
    }
}

#[test]
fn the_command_line_follows_the_pages() {
    let desk = Desk::start("");
    for number in 0..101 {
        let made = desk.ask("POST", "/v1/key-managers/own/scopes", &json!({ "key": format!("s{number:03}") }));
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let asked = desk.ask("GET", "/v1/scopes", &Value::Null).json();
    assert_eq!(asked["outcomes"][0]["result"].as_array().map(Vec::len), Some(100), "one page of the door: {asked}");
    let keys = |words: &str, member: &str| -> Vec<String> {
        let url = format!("http://127.0.0.1:{}", desk.port);
        let mut words: Vec<&str> = words.split(' ').collect();
        words.extend(["--json", "--url", &url]);
        let output =
            tollgate(&[&["km"], &words[..]].concat()).env("TOLLGATE_MANAGEMENT_TOKEN", &desk.key).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let list = told.pointer(member).and_then(Value::as_array).unwrap();
        list.iter().map(|scope| scope["key"].as_str().unwrap().to_owned()).collect()
    };
    let all: Vec<String> = (0..101).map(|number| format!("s{number:03}")).collect();
    assert_eq!(keys("scope list own", "/items"), all);
    assert_eq!(keys("everywhere list-scopes", "/outcomes/0/result"), all);
    assert_eq!(keys("scope list own --limit 2 --cursor s001", "/items"), all[2..4]);
    assert_eq!(keys("scope list own --cursor s097", "/items"), all[98..]);
}
