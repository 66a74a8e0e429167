//! Providers that answer with what was there before.

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
async fn the_owner_before_is_the_providers_where_nobody_else_knows_one() {
    let stand = stand();
    let client = app(json!({"clientId": "till", "appOwner": "zoe"}));
    stand.one.clients.lock().insert("till".into(), client);
    did(stand.engine.update_application_owner(&caller(), "one", "till", "new").await);
    let line = stand.engine.audit(0, 10).unwrap().pop().unwrap();
    assert_eq!((line.before, line.after), (json!({"owner": "zoe"}), json!({"owner": "new"})));
}
