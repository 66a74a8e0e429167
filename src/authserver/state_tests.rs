//! What the provider remembers, at moments of the test's choosing: rotation, limits, expiry, who is gone.

use std::sync::Arc;

use serde_json::Map;

use super::*;
use crate::authserver::{clients::CLIENTS, rows::MOST_LIVE};

const T: u64 = 1_800_000_000;

fn state(limits: Limits) -> State {
    let record = Record::in_memory().expect("memory");
    State { record, revocations: Arc::default(), issuer: "http://a".into(), limits, clients: Recent::new(CLIENTS) }
}

fn roomy() -> State {
    state(Limits { clients: 10, tokens: 1000 })
}

fn jwt(jti: &str, expires_at: u64) -> Issue {
    Issue { access: Access::Jti(jti.into()), expires_at, opaque: None }
}

fn opaque(digest: Digest, expires_at: u64) -> Issue {
    let opaque = Opaque { claims: Map::new(), expires_at };
    Issue { access: Access::Token((&digest).into()), expires_at, opaque: Some(opaque) }
}

fn refresh(family: &str, issued_at: u64) -> Refresh {
    Refresh {
        family: family.into(),
        client: "shop".into(),
        subject: "ada".into(),
        scope: Vec::new(),
        issued_at,
        expires_at: issued_at + 100,
        used: false,
    }
}

fn is_revoked(state: &State, jti: &str) -> bool {
    let facts = TokenFacts {
        issuer: "",
        jti: Some(jti),
        token_sha256: None,
        consumer_key: Some("shop"),
        subject: Some("ada"),
        own_subject: None,
        issued_at: Some(T),
    };
    state.is_revoked(facts)
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_reuse_ends_the_family() {
    let state = roomy();
    assert!(state.issue(jwt("one", T + 50), Some(([1; 32], refresh("f", T))), T).await.expect("written"));
    let exchange = |old, new, jti, at| state.rotate([old; 32], ([new; 32], refresh("f", at)), jwt(jti, at + 50), at);
    assert_eq!(exchange(1, 2, "two", T + 10).await.expect("written"), Rotation::Done);
    assert_eq!(exchange(2, 3, "three", T + 20).await.expect("written"), Rotation::Done);
    assert!(!["one", "two", "three"].iter().any(|jti| is_revoked(&state, jti)));
    assert_eq!(exchange(1, 9, "thief", T + 30).await.expect("written"), Rotation::Reused);
    assert!(["one", "two", "three"].iter().all(|jti| is_revoked(&state, jti)));
    assert_eq!(exchange(3, 4, "four", T + 31).await.expect("written"), Rotation::Invalid);
    assert!(!is_revoked(&state, "four") && !is_revoked(&state, "thief"), "they were never issued");
}

#[tokio::test]
async fn of_many_who_bring_one_refresh_token_at_most_one_gets_another() {
    let state = Arc::new(roomy());
    state.issue(jwt("one", T + 50), Some(([0; 32], refresh("f", T))), T).await.expect("written");
    let exchange = |n: u8| {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let next = ([n; 32], refresh("f", T + 1));
            state.rotate([0; 32], next, jwt(&format!("j{n}"), T + 51), T + 1).await.expect("written")
        })
    };
    let all: Vec<_> = (1..=20).map(exchange).collect();
    let mut outcomes = Vec::new();
    for one in all {
        outcomes.push(one.await.expect("no panic"));
    }
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Rotation::Done).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Rotation::Reused).count(), 1);
    assert!(is_revoked(&state, "one"));
}

#[tokio::test]
async fn an_expired_or_foreign_refresh_token_is_no_good() {
    let state = roomy();
    state.issue(jwt("one", T + 50), Some(([1; 32], refresh("f", T))), T).await.expect("written");
    let exchange =
        |old: u8, family: &str, at: u64| state.rotate([old; 32], ([7; 32], refresh(family, at)), jwt("j", at + 50), at);
    assert_eq!(exchange(5, "f", T + 1).await.expect("written"), Rotation::Invalid, "never issued");
    assert_eq!(exchange(1, "g", T + 1).await.expect("written"), Rotation::Invalid, "another family");
    assert_eq!(exchange(1, "f", T + 100).await.expect("written"), Rotation::Invalid, "expired");
    assert!(state.refresh(&[1; 32], T + 100).expect("readable").is_none());
    assert_eq!(exchange(1, "f", T + 99).await.expect("written"), Rotation::Done);
}

#[tokio::test]
async fn a_family_has_few_live_access_tokens() {
    let state = roomy();
    state.issue(jwt("j0", T + 50), Some(([0; 32], refresh("f", T))), T).await.expect("written");
    for n in 1..=20_u8 {
        let next = ([n; 32], refresh("f", T + 1));
        let done = state.rotate([n - 1; 32], next, jwt(&format!("j{n}"), T + 50), T + 1).await.expect("written");
        assert_eq!(done, Rotation::Done, "{n}");
    }
    let revoked: Vec<bool> = (0..=20).map(|n| is_revoked(&state, &format!("j{n}"))).collect();
    assert_eq!(revoked.iter().filter(|revoked| !**revoked).count(), MOST_LIVE);
    assert!(revoked[..5].iter().all(|revoked| *revoked), "the oldest give way");
}

#[tokio::test]
async fn there_is_a_most_of_each_and_what_expires_makes_room() {
    let state = state(Limits { clients: 1, tokens: 3 });
    for n in 0..3 {
        assert!(state.issue(opaque([n; 32], T + 10), None, T).await.expect("written"));
    }
    assert!(!state.issue(opaque([9; 32], T + 10), None, T).await.expect("written"), "full");
    assert!(state.issue(jwt("j", T + 10), None, T).await.expect("written"), "a JWT takes no room");
    assert!(state.revoke_access(Access::Token((&[0; 32]).into()), T + 10, T).await.expect("written"));
    assert!(state.issue(opaque([9; 32], T + 10), None, T).await.expect("written"), "one was revoked");
    assert!(!state.issue(opaque([8; 32], T + 30), None, T + 11).await.expect("written"), "some judge may be lenient");
    let later = T + 311;
    assert!(state.issue(opaque([8; 32], later + 9), None, later).await.expect("written"), "the others have expired");
    assert!(state.opaque(&[8; 32], later).expect("readable").is_some());
    assert!(state.opaque(&[9; 32], later).expect("readable").is_none());
    for n in 0..3 {
        assert!(state.revoke_access(Access::Jti(format!("{n}")), later + 99, later + 9).await.expect("written"));
    }
    assert!(!state.revoke_access(Access::Jti("x".into()), later + 99, later + 9).await.expect("written"), "full");
    // Their tokens have expired, but are within the leeway of some judge: they stay revoked.
    assert!(!state.revoke_access(Access::Jti("x".into()), later + 399, later + 120).await.expect("written"), "still");
}

#[tokio::test]
async fn the_sweep_takes_what_has_expired_and_nothing_else() {
    let state = roomy();
    for n in 0..200_u8 {
        let lives = if n % 2 == 0 { 10 } else { 1000 };
        state.issue(opaque([n; 32], T + lives), None, T).await.expect("written");
    }
    state.issue(jwt("one", T + 10), Some(([1; 32], refresh("f", T))), T).await.expect("written");
    let next = ([2; 32], refresh("f", T + 50));
    state.rotate([1; 32], next, jwt("two", T + 60), T + 50).await.expect("written");
    while state.sweep(T + 120).await.expect("written") {}
    let counts = state.record.change_blocking(|changes| {
        Ok([changes.len(&TOKENS)?, changes.len(&REFRESH)?, changes.len(&FAMILIES)?, changes.len(&EXPIRY)?])
    });
    // The family was given more time by its exchange.
    assert_eq!(counts.expect("readable"), [100, 1, 1, 102]);
    while state.sweep(T + 2000).await.expect("written") {}
    let left = state.record.change_blocking(|changes| {
        Ok([changes.len(&TOKENS)?, changes.len(&REFRESH)?, changes.len(&FAMILIES)?, changes.len(&EXPIRY)?])
    });
    assert_eq!(left.expect("readable"), [0; 4]);
}

#[test]
fn who_has_left_the_configuration_is_revoked_once() {
    let state = roomy();
    let both = vec![(Kind::Client, "shop".to_owned()), (Kind::User, "ada".to_owned())];
    let lifetimes = Longest { access: 60, refresh: 600 };
    state.reconcile(both.clone(), lifetimes, T - 100).expect("written");
    assert!(!is_revoked(&state, "j"));
    let shorter = Longest { access: 1, refresh: 1 };
    state.reconcile(both[..1].to_vec(), shorter, T + 5).expect("written");
    assert!(is_revoked(&state, "j"), "its user is gone");
    assert_eq!(state.longest().expect("readable"), lifetimes, "older tokens live longer");
    // She comes back: what was issued before stays revoked, and nothing is added.
    state.reconcile(both, shorter, T + 6).expect("written");
    let rows = state.record.view().and_then(|view| view.rows(&REVOKED, b"", 9)).expect("readable");
    let [(_, row)] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(row.until, T + 605);
    let again = State { revocations: Arc::default(), record: state.record.clone(), ..roomy() };
    assert!(!is_revoked(&again, "j"));
    again.restore(T + 10).expect("readable");
    assert!(is_revoked(&again, "j"), "put back");
}

#[test]
fn two_providers_in_one_record_do_not_meet() {
    let ours = roomy();
    let theirs = State { issuer: "http://a.example".into(), record: ours.record.clone(), ..roomy() };
    let configured = |name: &str| vec![(Kind::User, name.to_owned())];
    ours.reconcile(configured("ada"), Longest::default(), T).expect("written");
    theirs.reconcile(configured("bob"), Longest::default(), T).expect("written");
    ours.reconcile(configured("ada"), Longest::default(), T).expect("written");
    let rows = ours.record.view().and_then(|view| view.rows(&REVOKED, b"", 9)).expect("readable");
    assert!(rows.is_empty(), "{rows:?}");
}
