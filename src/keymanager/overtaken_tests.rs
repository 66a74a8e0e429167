//! What waits to be done at a provider, once something newer is done there.

use super::*;

/// What became of what waited, as the audit tells it.
fn settled(stand: &Stand) -> Vec<(String, String, String)> {
    let audit = stand.engine.audit(0, 100).unwrap().into_iter().filter(|line| line.operation == "settlePending");
    audit
        .map(|line| (line.before["operation"].as_str().unwrap().into(), line.subject, line.detail.unwrap_or_default()))
        .collect()
}

#[tokio::test]
async fn what_is_done_directly_is_not_undone_by_what_waited_before_it() {
    let stand = stand();
    let scope = |key: &str, name: &str| Scope { key: key.into(), name: Some(name.into()), ..Scope::default() };
    let api = |uri: &str| ApiResource { api_id: "a".into(), uris: vec![uri.into()], ..ApiResource::default() };
    for key in ["a", "b"] {
        stand.engine.everywhere(&caller(), Everywhere::RegisterScope(scope(key, "one"))).await.unwrap();
    }
    stand.engine.everywhere(&caller(), Everywhere::RegisterResource(api("/one"))).await.unwrap();
    *stand.two.mood.lock() = Some(Error::Unreachable("gone".into()));
    for change in [
        Everywhere::UpdateScope("a".into(), scope("a", "two")),
        Everywhere::UpdateScope("b".into(), scope("b", "two")),
        Everywhere::BindScopes(Operation::AttachResourceScopes, "a".into(), vec!["a".into()]),
        Everywhere::BindScopes(Operation::DetachResourceScopes, "a".into(), vec!["b".into()]),
    ] {
        stand.engine.everywhere(&caller(), change).await.unwrap();
    }
    assert_eq!(stand.engine.pending("two", 0, 10).unwrap().len(), 4);
    let failed = stand.engine.update_scope(&caller(), "two", "a", scope("a", "three")).await;
    assert!(failed.is_err() && settled(&stand).is_empty(), "it is not done: {failed:?}");
    *stand.two.mood.lock() = None;
    did(stand.engine.update_scope(&caller(), "one", "a", scope("a", "other")).await);
    assert!(settled(&stand).is_empty(), "another key manager's");
    did(stand.engine.update_scope(&caller(), "two", "a", scope("a", "three")).await);
    let told = |operation: &str, by: &str| (operation.into(), "a".into(), format!("{by} came after it: done"));
    assert_eq!(settled(&stand), [told("registerScope", "updateScope")]);
    did(stand.engine.update_resource(&caller(), "two", "a", api("/two")).await);
    let by = "updateRegisteredResource";
    let bound = [told("attachResourceScopes", by), told("detachResourceScopes", by)];
    assert_eq!(settled(&stand)[1..], bound);
    let left = stand.engine.pending("two", 0, 10).unwrap();
    assert_eq!(left.iter().map(|row| &*row.subject).collect::<Vec<_>>(), ["b"], "of another scope");

    let tending = tokio::spawn(Arc::clone(&stand.engine).tend());
    stand.wait_until("an empty queue", |stand| stand.engine.pending("two", 0, 10).unwrap().is_empty()).await;
    tending.abort();
    let scopes = stand.two.scopes.lock();
    assert_eq!((scopes["a"].name.as_deref(), scopes["b"].name.as_deref()), (Some("three"), Some("two")));
}

#[tokio::test]
async fn a_client_that_was_to_go_and_is_adopted_stays() {
    let stand = stored().await;
    stand.engine.change(vec![RowChange::Unconfigure("one".into())]).await.unwrap();
    *stand.one.holding.lock() = Some(Error::Unreachable("gone".into()));
    assert!(matches!(stand.create(json!({"clientId": "orphan"})).await, Err(Error::HalfDone { .. })));
    assert_eq!(stand.engine.pending("one", 0, 10).unwrap().len(), 1);
    stand.engine.registry.replace(vec![stand.one.managed("one", "")]);
    let client_secret = Some("s3cret-of-orphan".into());
    let request = MapRequest { client_id: "orphan".into(), client_secret, ..MapRequest::default() };
    did(stand.engine.map_application(&caller(), "one", request).await);
    assert!(stand.engine.pending("one", 0, 10).unwrap().is_empty());
    let told = ("deleteApplication".into(), "orphan".into(), "mapOAuthApplication came after it: done".into());
    assert_eq!(settled(&stand), [told]);
}
