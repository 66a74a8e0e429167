//! What is read at all key managers at once, and lists in pages.

use serde_json::{Value, json};

use super::{routes::routes, testing::Stand};
use crate::keymanager::{ApiResource, Error, KeyManager as _, Operation, Scope};

#[tokio::test]
async fn what_no_key_manager_has_is_404_unless_one_could_not_be_asked() {
    let stand = Stand::start().await;
    for (made, at, path, operation) in [
        ("/v1/key-managers/two/scopes", r#"{"key":"there"}"#, "/v1/scopes", Operation::ScopeByName),
        ("/v1/key-managers/two/resources", r#"{"apiId":"there"}"#, "/v1/resources", Operation::ResourceByApiId),
    ] {
        assert_eq!(stand.ask("POST", made, at).await.status, 201);
        let one = stand.ask("GET", &format!("{path}/there"), "").await;
        assert_eq!((one.status, outcomes(&one.json())), (200, vec!["failed", "done"]), "{}", one.body);
        let never = format!("{path}/never");
        let none = stand.ask("GET", &never, "").await;
        assert_eq!((none.status, none.field("content-type")), (404, Some("application/problem+json")), "{path}");
        assert!(none.body.contains("one: ") && none.body.contains("two: "), "{}", none.body);
        // What a provider has no way to tell it is not asked.
        stand.one.cannot.lock().push(operation);
        assert_eq!(stand.ask("GET", &never, "").await.status, 404, "{path}");
        stand.two.cannot.lock().push(operation);
        let unasked = stand.ask("GET", &never, "").await;
        assert_eq!((unasked.status, &unasked.json()["code"]), (501, &json!("901413")), "{path}: {}", unasked.body);
        stand.one.cannot.lock().clear();
        stand.two.cannot.lock().clear();
        for error in [Error::Unreachable("gone".into()), Error::Refused { status: 403, detail: "not yours".into() }] {
            *stand.two.mood.lock() = Some(error);
            let listed = stand.ask("GET", &never, "").await;
            assert_eq!((listed.status, outcomes(&listed.json())), (200, vec!["failed", "failed"]), "{}", listed.body);
        }
        *stand.two.mood.lock() = Some(Error::Refused { status: 404, detail: "no such".into() });
        assert_eq!(stand.ask("GET", &never, "").await.status, 404, "{path}: in the provider's own words");
        *stand.two.mood.lock() = None;
    }
}

#[tokio::test]
async fn a_token_that_passes_the_gate_can_be_asked_about_and_revoked() {
    let stand = Stand::start().await;
    let one = "/v1/key-managers/one/tokens";
    for (length, good) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        let body = json!({ "token": "t".repeat(length) }).to_string();
        for (path, body, status) in [
            (&*format!("{one}/introspect"), body.clone(), 200),
            (&*format!("{one}/can-handle"), body.clone(), 200),
            (&*format!("{one}/revoke"), body, 204),
            (
                "/v1/revocations",
                json!({ "kind": "token", "value": "t".repeat(length), "issuer": "https://one.example" }).to_string(),
                201,
            ),
        ] {
            let answer = stand.ask("POST", path, &body).await;
            assert_eq!(answer.status, if good { status } else { 400 }, "{path} {length}: {}", answer.body);
            assert!(good || answer.body.contains("1 to 65536"), "{path}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let stand = Stand::start().await;
    for (key, at) in [("c", &stand.one), ("a", &stand.one), ("b", &stand.one), ("a", &stand.two), ("d", &stand.two)] {
        at.register_scope(&Scope { key: key.into(), ..Scope::default() }).await.unwrap();
    }
    for id in ["x", "y"] {
        let resource = ApiResource { api_id: id.into(), scopes: vec!["a".into()], ..ApiResource::default() };
        stand.one.register_resource(&resource).await.unwrap();
    }
    for (list, member, expected) in [
        ("/v1/key-managers?limit=1", "/items", vec![json!(["one"]), json!(["two"])]),
        ("/v1/key-managers/one/scopes?limit=2", "/items", vec![json!(["a", "b"]), json!(["c"])]),
        ("/v1/key-managers/one/scopes?api=y,x,y&limit=1", "/items", vec![json!(["x"]), json!(["y"])]),
        ("/v1/scopes?limit=2", "/outcomes/0/result", vec![json!(["a", "b"]), json!(["c"])]),
        ("/v1/scopes?limit=2", "/outcomes/1/result", vec![json!(["a"]), json!(["d"])]),
    ] {
        let mut path = list.to_owned();
        for (number, expected) in expected.iter().enumerate() {
            let page = stand.ask("GET", &path, "").await;
            assert_eq!(page.status, 200, "{path}: {}", page.body);
            let page = page.json();
            assert_eq!(names(page.pointer(member).unwrap()), *expected, "{path} {member}: {page}");
            let cursor = page.get("cursor").and_then(Value::as_str);
            assert_eq!(cursor.is_some(), number == 0, "{path}: {page}");
            path = format!("{list}&cursor={}", cursor.unwrap_or_default());
        }
    }
    for list in routes().iter().filter(|route| route.takes_query("limit")) {
        let path = list.path.replace("{km}", "one").replace("{ck}", "a");
        for (query, field) in [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=a", "limit"), ("size=1", "size")]
        {
            let refused = stand.ask("GET", &format!("{path}?{query}"), "").await;
            assert_eq!((refused.status, &refused.json()["field"]), (400, &json!(field)), "{path}?{query}");
        }
    }
}

/// What tells the members of a list from each other.
fn names(list: &Value) -> Value {
    let name = |item: &Value| item.get("key").or_else(|| item.get("name")).cloned();
    match list {
        Value::Object(by_name) => json!(by_name.keys().collect::<Vec<_>>()),
        list => json!(list.as_array().unwrap().iter().map(name).collect::<Vec<_>>()),
    }
}

fn outcomes(answer: &Value) -> Vec<&str> {
    answer["outcomes"].as_array().unwrap().iter().map(|it| it["outcome"].as_str().unwrap()).collect()
}
