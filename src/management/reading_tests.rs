//! What is read at all key managers at once, and lists in pages.

use serde_json::{Value, json};

use super::testing::Stand;
use crate::keymanager::{Error, Operation};

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
        assert_eq!((unasked.status, outcomes(&unasked.json())), (200, vec!["unsupported", "unsupported"]), "{path}");
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

fn outcomes(answer: &Value) -> Vec<&str> {
    answer["outcomes"].as_array().unwrap().iter().map(|it| it["outcome"].as_str().unwrap()).collect()
}
