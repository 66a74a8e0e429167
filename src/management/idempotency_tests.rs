//! A key that a request is sent again with, and what a dry run makes of one.

use serde_json::{Value, json};

use super::{routes::routes, testing::Stand};
use crate::keymanager::Error;

#[tokio::test]
async fn what_is_sent_again_is_done_once() {
    let stand = Stand::start().await;
    let (path, key) = ("/v1/key-managers/one/clients", "Idempotency-Key: k1\r\n");
    let first = stand.ask_with("POST", path, key, r#"{"clientName":"a"}"#).await;
    let again = stand.ask_with("POST", path, key, r#"{"clientName":"a"}"#).await;
    assert_eq!((first.status, again.status), (201, 201), "{}", again.body);
    assert_eq!((first.json(), again.field("idempotency-replayed")), (again.json(), Some("true")));
    assert_eq!(stand.one.clients.lock().len(), 1);
    assert_eq!(stand.ask_with("POST", path, key, r#"{"clientName":"b"}"#).await.status, 422);
    let record = stand.engine.store().unwrap();
    let kept: Vec<(Vec<u8>, Value)> =
        record.view().unwrap().rows(&crate::store::record::Table::new("management.idempotency"), &[], 10).unwrap();
    assert!(kept.len() == 1 && !format!("{kept:?}").contains("s3cret"), "sealed: {kept:?}");
    // Nothing was done: it may be sent again.
    *stand.one.mood.lock() = Some(Error::Unreachable("gone".into()));
    let key = "Idempotency-Key: k2\r\n";
    let failed = stand.ask_with("POST", path, key, r#"{"clientName":"c"}"#).await;
    assert_eq!((failed.status, failed.field("retry-after")), (503, Some("5")));
    *stand.one.mood.lock() = None;
    assert_eq!(stand.ask_with("POST", path, key, r#"{"clientName":"c"}"#).await.status, 201);
    let bad = stand.ask_with("POST", path, "Idempotency-Key: \r\n", "{}").await;
    assert_eq!((bad.status, &bad.json()["field"]), (400, &json!("idempotency-key")));
}

#[tokio::test]
async fn a_dry_run_is_told_of_a_key_that_is_used_and_uses_none() {
    let stand = Stand::start().await;
    let (path, key) = ("/v1/key-managers/one/clients", "Idempotency-Key: k1\r\n");
    let (dry, one, other) = (&*format!("{path}?dry_run=true"), r#"{"clientId":"a"}"#, r#"{"clientId":"b"}"#);
    for (path, body, status) in [
        (dry, one, 200),
        (dry, other, 200),
        // `false` is as good as nothing.
        (&*format!("{path}?dry_run=false"), one, 201),
        (dry, other, 422),
        (path, other, 422),
        (dry, one, 200),
        (path, one, 201),
    ] {
        let answer = stand.ask_with("POST", path, key, body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        assert!(path != dry || !answer.body.contains("s3cret"), "{}", answer.body);
    }
    let again = stand.ask_with("POST", dry, key, one).await.json();
    assert_eq!(again["dryRun"], true);
    assert!(again["note"].as_str().is_some_and(|note| note.contains("Idempotency-Key")), "{again}");
    assert_eq!(stand.one.clients.lock().len(), 1);
    // What fails as the change did is told as then.
    *stand.one.mood.lock() = Some(Error::Answer("odd".into()));
    let (key, dry) = ("Idempotency-Key: k2\r\n", format!("{path}?dry_run=true"));
    let failed = stand.ask_with("POST", path, key, other).await;
    *stand.one.mood.lock() = None;
    let told = stand.ask_with("POST", &dry, key, other).await;
    assert_eq!((failed.status, failed.body), (502, told.body));
    assert_eq!(told.status, 502);
}

#[test]
fn what_changes_by_post_is_told_apart_by_its_path_alone() {
    let posts = routes().into_iter().filter(|route| route.changes && route.method == http::Method::POST);
    for route in posts {
        assert_eq!(route.query, ["dry_run"], "{}: an Idempotency-Key does not look at the query", route.path);
    }
}
