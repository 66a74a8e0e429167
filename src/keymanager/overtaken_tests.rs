//! What waits to be done at a provider, once something newer is done there.

use std::sync::atomic::Ordering;

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
    assert_eq!(settled(&stand), [told("updateScope", "updateScope")]);
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

/// It was never said that it may be replaced; and who updates means what is there.
#[tokio::test]
async fn what_waits_to_be_made_replaces_nothing_and_what_waits_to_be_changed_makes_nothing() {
    let stand = stand();
    let scope = |key: &str, roles: &str| Scope { key: key.into(), roles: Some(roles.into()), ..Scope::default() };
    let api = |id: &str, uri: &str| ApiResource { api_id: id.into(), uris: vec![uri.into()], ..ApiResource::default() };
    did(stand.engine.register_scope(&caller(), "two", scope("theirs", "admin")).await);
    did(stand.engine.register_scope(&caller(), "two", scope("ours", "b, a")).await);
    did(stand.engine.register_resource(&caller(), "two", api("theirs", "/keep")).await);
    did(stand.engine.register_resource(&caller(), "two", api("ours", "/new")).await);
    *stand.two.mood.lock() = Some(Error::Unreachable("gone".into()));
    for change in [
        Everywhere::RegisterScope(scope("theirs", "everyone")),
        // As if the answer alone had been lost.
        Everywhere::RegisterScope(scope("ours", "a,b")),
        Everywhere::RegisterResource(api("theirs", "/new")),
        Everywhere::RegisterResource(api("ours", "/new")),
        Everywhere::UpdateScope("ghost".into(), scope("ghost", "r")),
        Everywhere::UpdateResource("ghost".into(), api("ghost", "/new")),
    ] {
        stand.engine.everywhere(&caller(), change).await.unwrap();
    }
    *stand.two.mood.lock() = None;
    let waits = |stand: &Stand| {
        let rows = stand.engine.pending("two", 0, 10).unwrap();
        rows.into_iter().map(|row| (row.operation, row.subject, row.last_error)).collect::<Vec<_>>()
    };
    let tending = tokio::spawn(Arc::clone(&stand.engine).tend());
    let is_settled = |stand: &Stand| waits(stand).iter().all(|(operation, ..)| operation == "none");
    stand.wait_until("answers", is_settled).await;
    tending.abort();
    let left = |subject: &str, why: &str| ("none".to_owned(), subject.to_owned(), why.to_owned());
    assert_eq!(
        waits(&stand),
        [
            left("theirs", "registerScope: key: the scope is there"),
            left("theirs", "registerNewResource: apiId: the resource is there"),
            left("ghost", "updateScope: there is no such scope"),
            left("ghost", "updateRegisteredResource: there is no such resource"),
        ]
    );
    assert_eq!(stand.two.scopes.lock()["theirs"].roles.as_deref(), Some("admin"));
    assert_eq!(stand.two.resources.lock()["theirs"].uris, ["/keep"]);
    assert!(!stand.two.scopes.lock().contains_key("ghost") && !stand.two.resources.lock().contains_key("ghost"));
    let audit = stand.engine.audit(0, 100).unwrap();
    let ended = |outcome: &str| {
        audit.iter().filter(|line| line.key_manager.as_deref() == Some("two") && line.outcome == outcome).count()
    };
    assert_eq!((ended("failed"), ended("done")), (4, 6), "{audit:?}");
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

#[tokio::test]
async fn what_is_bound_directly_is_not_undone_by_what_waited_before_it() {
    use Operation::{AttachResourceScopes as Attach, DetachResourceScopes as Detach, UpdateResourceScopes as Replace};
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    let api = |uri: &str, scopes: &[&str]| ApiResource {
        api_id: "a".into(),
        uris: vec![uri.into()],
        scopes: keys(scopes),
        ..ApiResource::default()
    };
    let update = |scopes: &[&str]| Everywhere::UpdateResource("a".into(), api("/new", scopes));
    let bound = |operation, scopes: &[&str]| Everywhere::BindScopes(operation, "a".into(), keys(scopes));
    // What waits; what is done after it; what comes of both.
    for (waits, since, expected) in [
        (update(&["x", "y"]), &[(Attach, &["z"][..]), (Detach, &["x"])][..], ("/new", &["y", "z"][..])),
        (update(&["x"]), &[(Replace, &["z"])], ("/new", &["z"])),
        (update(&["x"]), &[(Detach, &[])], ("/new", &[])),
        (bound(Attach, &["p", "q"]), &[(Detach, &["p"])], ("/old", &["o", "q"])),
        (bound(Attach, &["p"]), &[(Detach, &["p"])], ("/old", &["o"])),
        (bound(Replace, &["p", "q"]), &[(Attach, &["r"]), (Detach, &["p"])], ("/old", &["q", "r"])),
        (bound(Detach, &["o"]), &[(Attach, &["o"])], ("/old", &["o"])),
        (bound(Detach, &[]), &[(Attach, &["r"]), (Attach, &["s"])], ("/old", &["r", "s"])),
        (Everywhere::DeleteResource("a".into()), &[(Attach, &["r"])], ("/old", &["o", "r"])),
    ] {
        let stand = stand();
        let first = Everywhere::RegisterResource(api("/old", &["o"]));
        stand.engine.everywhere(&caller(), first).await.unwrap();
        *stand.two.mood.lock() = Some(Error::Unreachable("gone".into()));
        let case = format!("{waits:?} {since:?}");
        stand.engine.everywhere(&caller(), waits).await.unwrap();
        assert_eq!(stand.engine.pending("two", 0, 10).unwrap().len(), 1, "{case}");
        *stand.two.mood.lock() = None;
        for (operation, scopes) in since {
            did(stand.engine.bind_scopes(&caller(), "two", *operation, "a", keys(scopes)).await);
        }
        for row in record_rows(&stand) {
            stand.engine.retry_one(row).await.unwrap();
        }
        assert!(stand.engine.pending("two", 0, 10).unwrap().is_empty(), "{case}");
        let resource = stand.two.resources.lock()["a"].clone();
        let (uri, mut scopes) = (resource.uris[0].clone(), resource.scopes);
        scopes.sort_unstable();
        scopes.dedup();
        assert_eq!((uri.as_str(), scopes), (expected.0, keys(expected.1)), "{case}");
        let told = |line: &AuditEntry| ["changePending", "settlePending"].contains(&&*line.operation);
        assert!(stand.engine.audit(0, 100).unwrap().iter().any(told), "{case}");
    }
}

#[tokio::test]
async fn a_provider_that_is_left_alone_was_not_tried() {
    let stand = stand();
    *stand.two.mood.lock() = Some(Error::Unreachable("gone".into()));
    stand
        .engine
        .everywhere(&caller(), Everywhere::RegisterScope(Scope { key: "a".into(), ..Scope::default() }))
        .await
        .unwrap();
    let retry = async |mood: Error| {
        *stand.two.mood.lock() = Some(mood);
        let row = record_rows(&stand).remove(0);
        stand.engine.retry_one(row.clone()).await.unwrap();
        (row, record_rows(&stand).remove(0))
    };
    let (before, after) = retry(Error::LeftAlone { wait: 30 }).await;
    assert_eq!((after.attempts, &after.last_error), (before.attempts, &before.last_error));
    let now = Clock::new().now().unix_ms;
    assert!((now + 25_000..=now + 30_000).contains(&after.next_attempt), "it is tried when the provider is: {after:?}");
    let (before, after) = retry(Error::Unreachable("gone".into())).await;
    assert_eq!(after.attempts, before.attempts + 1, "that one counts");
}

/// What was there is read first, for the audit: a provider that does not answer that is not waited for once more.
#[tokio::test]
async fn a_provider_that_does_not_answer_is_asked_once() {
    let stand = stand();
    let asked = |stand: &Stand| stand.two.asked.swap(0, Ordering::Relaxed);
    did(stand.engine.register_scope(&caller(), "two", Scope { key: "a".into(), ..Scope::default() }).await);
    let resource = || ApiResource { api_id: "a".into(), ..ApiResource::default() };
    did(stand.engine.register_resource(&caller(), "two", resource()).await);
    let client = did(stand.engine.create_application(&caller(), "two", app(json!({"clientId": "a"}))).await);
    *stand.two.mood.lock() = Some(Error::TimedOut("https://two.example".into()));
    asked(&stand);
    for change in [
        Everywhere::UpdateScope("a".into(), Scope { name: Some("A".into()), ..Scope::default() }),
        Everywhere::DeleteScope("a".into()),
        Everywhere::UpdateResource("a".into(), resource()),
        Everywhere::BindScopes(Operation::AttachResourceScopes, "a".into(), vec!["a".into()]),
    ] {
        stand.engine.everywhere(&caller(), change.clone()).await.unwrap();
        assert_eq!(asked(&stand), 1, "{change:?}");
        let before = record_rows(&stand).pop().unwrap();
        stand.engine.retry_one(before.clone()).await.unwrap();
        let after = record_rows(&stand).pop().unwrap();
        assert_eq!((asked(&stand), after.attempts), (1, before.attempts + 1), "{change:?}");
    }
    let waits = record_rows(&stand).len();
    let updated = stand.engine.update_application(&caller(), "two", "a", client).await;
    let deleted = stand.engine.delete_application(&caller(), "two", "a").await.map(drop);
    // Nothing was asked for that may have been done.
    for failed in [updated.map(drop), deleted] {
        assert!(matches!(failed, Err(Error::Unreachable(_))), "{failed:?}");
    }
    assert_eq!((asked(&stand), record_rows(&stand).len()), (2, waits));
}

/// What waits, as it stands.
fn record_rows(stand: &Stand) -> Vec<super::super::rows::PendingRow> {
    let rows = stand.record.view().unwrap().rows(&super::super::rows::PENDING, &[], 10).unwrap();
    rows.into_iter().map(|(_, row)| row).collect()
}
