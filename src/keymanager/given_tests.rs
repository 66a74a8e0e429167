//! Providers that answer with what was there before.

use std::sync::atomic::Ordering;

use serde_json::Value;

use super::*;
use crate::store::record::Table;

#[tokio::test]
async fn a_client_that_is_given_twice_stays_its_first_applications() {
    let stand = stand();
    *stand.one.own_id.lock() = Some("same".into());
    did(stand.create(json!({"clientName": "shop", "applicationUUID": "first"})).await);
    let again = stand.create(json!({"clientName": "shop", "applicationUUID": "second"})).await;
    assert!(matches!(&again, Err(Error::HalfDone { left, .. }) if left.contains("same")), "{again:?}");
    let of_first = |stand: &Stand| {
        let mapping = stand.engine.mapping("one", "same").unwrap().unwrap();
        assert_eq!(mapping.application_uuid.as_deref(), Some("first"));
        assert!(stand.one.clients.lock().contains_key("same"), "it is not taken back");
    };
    of_first(&stand);
    let waiting = stand.engine.pending("one", 0, 10).unwrap();
    assert_eq!((waiting.len(), &*waiting[0].operation), (1, "none"), "{waiting:?}");
    assert_eq!(&*stand.engine.audit(0, 10).unwrap()[1].outcome, "half_done");
}

#[tokio::test]
async fn of_two_who_are_given_one_client_at_once_one_has_it() {
    let stand = stand();
    *stand.one.own_id.lock() = Some("same".into());
    let (first, second) = tokio::join!(
        stand.create(json!({"clientName": "shop", "applicationUUID": "first"})),
        stand.create(json!({"clientName": "shop", "applicationUUID": "second"})),
    );
    assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1, "{first:?} {second:?}");
    let failed = first.err().or_else(|| second.err());
    assert!(matches!(&failed, Some(Error::HalfDone { left, .. }) if left.contains("same")), "{failed:?}");
    assert!(stand.one.clients.lock().contains_key("same") && stand.engine.mapping("one", "same").unwrap().is_some());
    assert_eq!(stand.engine.pending("one", 0, 10).unwrap().len(), 1);
}

#[tokio::test]
async fn of_two_clients_made_at_once_for_one_application_one_is_taken_back() {
    let stand = stand();
    let create = || stand.create(json!({"clientName": "shop", "applicationUUID": "only"}));
    let (first, second) = tokio::join!(create(), create());
    assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1, "{first:?} {second:?}");
    let failed = first.err().or_else(|| second.err());
    assert!(matches!(failed, Some(Error::Conflict(_))), "{failed:?}");
    assert_eq!(stand.one.clients.lock().len(), 1, "it was made for nothing");
    assert!(stand.engine.pending("one", 0, 10).unwrap().is_empty());
}

#[tokio::test]
async fn a_client_whose_row_cannot_be_read_is_taken_back() {
    let stand = stand();
    *stand.one.own_id.lock() = Some("same".into());
    let rows: Table<Value> = Table::new("keymanager.mappings");
    let record = &stand.record;
    record.change(move |changes| changes.put(&rows, b"one\0same", &json!("damaged"))).await.unwrap();
    assert!(stand.engine.mapping("one", "same").is_err());
    let made = stand.create(json!({"clientName": "shop"})).await;
    assert!(matches!(made, Err(Error::Record(_))), "{made:?}");
    assert!(stand.one.clients.lock().is_empty(), "it stayed at the provider");
}

#[tokio::test]
async fn where_the_records_disk_has_failed_nothing_is_asked_of_a_provider_but_to_end_tokens() {
    let stand = stand();
    did(stand.create(json!({"clientName": "shop", "clientId": "till"})).await);
    stand.record.failed().store(true, Ordering::Relaxed);
    let refused = |outcome: Result<()>| assert!(matches!(outcome, Err(Error::Record(_))), "{outcome:?}");
    refused(stand.create(json!({"clientName": "other"})).await.map(drop));
    refused(stand.engine.delete_application(&caller(), "one", "till").await.map(drop));
    assert_eq!(stand.one.clients.lock().keys().collect::<Vec<_>>(), ["till"]);
    let revoked = stand.engine.revoke_token(&caller(), "one", &"a-token".into()).await;
    assert!(!matches!(revoked, Err(Error::Record(_))), "{revoked:?}");
}

#[tokio::test]
async fn what_is_revoked_again_refuses_what_either_revocation_refuses() {
    let stand = stand();
    let now = stand.engine.clock.now().unix();
    let mut told = Vec::new();
    for (before, until) in
        [(now, Some(now + 50)), (now - 60, Some(now + 90)), (now - 9, None), (now - 99, Some(now + 1))]
    {
        let request = json!({"kind": "subject", "value": "ada", "issuer": "https://one.example", "before": before, "until": until});
        let row = did(stand.engine.revoke(&caller(), serde_json::from_value(request).unwrap()).await);
        assert_eq!(stand.engine.revocation_of(&row.key()).unwrap(), row, "it is so after a restart, too");
        told.push((row.before, row.until));
    }
    assert_eq!(told, [(Some(now), Some(now + 50)), (Some(now), Some(now + 90)), (Some(now), None), (Some(now), None)]);
}

#[tokio::test]
async fn the_owner_before_is_the_providers_where_nobody_else_knows_one() {
    let stand = stand();
    let client = app(json!({"clientId": "till", "appOwner": "zoe"}));
    stand.one.clients.lock().insert("till".into(), client);
    did(stand.engine.update_application_owner(&caller(), "one", "till", "new").await);
    let line = stand.engine.audit(0, 10).unwrap().pop().unwrap();
    assert_eq!((line.before, line.after), (json!({"owner": "zoe"}), json!({"owner": "new"})));
}
