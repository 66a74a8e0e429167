//! Tests of the table of revocations.

use super::{super::TokenSha256, *};

const ISSUER: &str = "https://idp";

fn revocation(what: Revoked) -> Revocation {
    Revocation { issuer: ISSUER.into(), what, until: None }
}

fn jti(text: &str) -> Revocation {
    revocation(Revoked::Jti(text.into()))
}

fn facts<'a>() -> TokenFacts<'a> {
    TokenFacts {
        issuer: ISSUER,
        jti: Some("j"),
        token_sha256: Some(TokenSha256::Is(&[7; 32])),
        consumer_key: Some("shop"),
        subject: Some("ada"),
        own_subject: Some("f81d"),
        issued_at: Some(1000),
    }
}

fn all(table: &Revocations) -> Vec<Revocation> {
    let mut all = Vec::new();
    table.for_each(|it| all.push(it));
    all
}

#[test]
fn each_kind_refuses_its_tokens_and_no_others() {
    let key = |consumer_key: &str, before| Revoked::ConsumerKey { consumer_key: consumer_key.into(), before };
    let subject = |subject: &str, before| Revoked::Subject { subject: subject.into(), before };
    for (what, revoked) in [
        (Revoked::Jti("j".into()), true),
        (Revoked::Jti("J".into()), false),
        (Revoked::Jti("".into()), false),
        (Revoked::Jti("shop".into()), false),
        (Revoked::Token([7; 32]), true),
        (Revoked::Token([8; 32]), false),
        (key("shop", 1000), true),
        (key("shop", 1001), true),
        (key("shop", 999), false),
        (key("ada", 2000), false),
        (subject("ada", 1000), true),
        (subject("ada", 999), false),
        (subject("shop", 2000), false),
        (subject("f81d", 1000), true),
        (subject("f81d", 999), false),
    ] {
        let table = Revocations::default();
        assert!(!table.is_revoked(&facts()));
        table.revoke(revocation(what.clone()));
        assert_eq!(table.is_revoked(&facts()), revoked, "{what:?}");
        let elsewhere = TokenFacts { issuer: "https://idp2", ..facts() };
        assert!(!table.is_revoked(&elsewhere), "{what:?}");
    }
}

#[test]
fn a_token_without_iat_is_refused_by_what_has_a_time() {
    for what in [
        Revoked::ConsumerKey { consumer_key: "shop".into(), before: 1 },
        Revoked::Subject { subject: "ada".into(), before: 1 },
    ] {
        let table = Revocations::default();
        table.learn(revocation(what));
        assert!(table.is_revoked(&TokenFacts { issued_at: None, ..facts() }));
        assert!(!table.is_revoked(&facts()));
        assert!(!table.is_revoked(&TokenFacts { consumer_key: None, subject: None, own_subject: None, ..facts() }));
    }
}

#[test]
fn issuer_and_value_never_run_into_each_other() {
    let table = Revocations::default();
    table.revoke(Revocation { issuer: "https://a".into(), what: Revoked::Jti("bc".into()), until: None });
    for (issuer, jti, revoked) in
        [("https://a", "bc", true), ("https://ab", "c", false), ("https://", "abc", false), ("https://abc", "", false)]
    {
        assert_eq!(table.is_revoked(&TokenFacts { issuer, jti: Some(jti), ..facts() }), revoked, "{issuer} {jti}");
    }
}

#[test]
fn the_same_twice_is_once_and_the_stricter_holds() {
    let table = Revocations::default();
    let key = |before, until| Revocation {
        until,
        ..revocation(Revoked::ConsumerKey { consumer_key: "shop".into(), before })
    };
    let far = table.clock.now().unix() + 100;
    table.learn(key(1000, Some(far)));
    table.learn(key(900, Some(far + 5)));
    table.learn(key(1000, Some(far)));
    assert_eq!(all(&table), [key(1000, Some(far + 5))]);
    table.learn(key(10, None));
    assert_eq!(all(&table), [key(1000, None)]);
    assert_eq!((table.live.load(Acquire), table.metrics.consumer_keys.get()), (1, 1));
}

#[test]
fn entries_outlive_the_leeway_and_then_go() {
    let table = Revocations::default();
    table.outlast(300);
    let now = table.clock.now().unix();
    let entries = || {
        [
            Revoked::Jti("j".into()),
            Revoked::Token([7; 32]),
            Revoked::ConsumerKey { consumer_key: "shop".into(), before: now },
            Revoked::Subject { subject: "ada".into(), before: now },
        ]
    };
    for what in entries() {
        table.learn(Revocation { until: Some(now - 361), ..revocation(what) });
    }
    assert!(all(&table).is_empty(), "none of them is of any use");
    for what in entries() {
        table.learn(Revocation { until: Some(now - 359), ..revocation(what) });
    }
    table.sweep();
    assert_eq!(all(&table).len(), 4);
    assert!(table.is_revoked(&facts()));
    // A shorter leeway, so that time need not pass.
    table.leeway_s.store(0, Relaxed);
    table.sweep();
    assert!(all(&table).is_empty());
    assert!(!table.is_revoked(&facts()));
    let gauges = [&table.metrics.jtis, &table.metrics.tokens, &table.metrics.consumer_keys, &table.metrics.subjects];
    assert_eq!(gauges.map(IntGauge::get), [0; 4]);
    assert_eq!((table.live.load(Acquire), table.books.lock().weight), (0, 0));
}

#[test]
fn a_full_table_refuses_rather_than_forgets() {
    let table = Revocations::with_limits(Limits { weight: 2 * weight(1), issuers: 2, queue: 10 });
    let now = table.clock.now().unix();
    let until = Some(now + 100);
    table.revoke(jti("a"));
    table.revoke(jti("b"));
    let fresh = TokenFacts { issued_at: Some(now + 10), ..facts() };
    assert!(!table.is_revoked(&facts()) && !table.is_revoked(&TokenFacts { issued_at: None, ..facts() }));
    table.revoke(Revocation { until, ..jti("j") });
    assert!(table.is_revoked(&facts()), "it found no room, and is refused all the same");
    assert!(table.is_revoked(&TokenFacts { issued_at: None, ..facts() }));
    assert!(!table.is_revoked(&fresh), "issued later");
    let other = TokenFacts { issuer: "https://other", ..facts() };
    assert!(!table.is_revoked(&other), "another issuer's");
    assert_eq!((table.metrics.overflowed.get(), table.metrics.cut_offs.get()), (1, 1));

    // More issuers than there is room for.
    for issuer in ["https://second", "https://third"] {
        table.learn(Revocation { issuer: issuer.into(), until, ..jti("x") });
    }
    assert!(table.is_revoked(&TokenFacts { issuer: "https://third", ..facts() }));
    assert!(table.is_revoked(&other), "nobody knows whose it was");
    assert!(!table.is_revoked(&TokenFacts { issuer: "https://third", ..fresh }));

    // What is there already still takes a later time.
    table.learn(Revocation { until, ..jti("a") });
    assert_eq!(all(&table).len(), 2);
}

#[tokio::test]
async fn what_is_revoked_here_is_pending_and_what_is_learnt_is_not() {
    let table = Revocations::with_limits(Limits { queue: 2, ..LIMITS });
    table.revoke(jti("before anyone shares"));
    table.share();
    table.learn(jti("learnt"));
    table.revoke(jti("a"));
    table.revoke(jti("b"));
    assert_eq!(table.pending().await, Pending::These(vec![jti("a"), jti("b")]));
    for n in 0..3 {
        table.revoke(jti(&n.to_string()));
    }
    assert_eq!(table.pending().await, Pending::Everything);
    let (pending, ()) = tokio::join!(table.pending(), async { table.revoke(jti("c")) });
    assert_eq!(pending, Pending::These(vec![jti("c")]));
}

#[test]
fn readers_see_all_that_was_revoked_before_while_more_comes() {
    let table = Revocations::default();
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=20_000_u64 {
                table.revoke(jti(&n.to_string()));
                done.store(n, Release);
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = done.load(Acquire);
                    let text = n.to_string();
                    assert!(n == 0 || table.is_revoked(&TokenFacts { jti: Some(&text), ..facts() }), "{n}");
                    if n == 20_000 {
                        break;
                    }
                }
            });
        }
    });
    assert!(!table.is_revoked(&TokenFacts { jti: Some("20001"), ..facts() }));
}

#[test]
fn a_lifted_entry_is_gone_and_no_other_is() {
    for what in [
        Revoked::Jti("j".into()),
        Revoked::Token([7; 32]),
        Revoked::ConsumerKey { consumer_key: "shop".into(), before: 2000 },
        Revoked::Subject { subject: "ada".into(), before: 2000 },
    ] {
        let table = Revocations::default();
        let weight = |table: &Revocations| table.books.lock().weight;
        table.revoke(jti("other"));
        let before = weight(&table);
        table.revoke(revocation(what.clone()));
        // It is found whatever its dates.
        let lifted = Revocation { until: Some(7), ..revocation(what.clone()) };
        table.lift(&Revocation { issuer: "https://idp2".into(), ..lifted.clone() });
        assert!(table.is_revoked(&facts()), "{what:?}");
        for _ in 0..2 {
            table.lift(&lifted);
            assert!(!table.is_revoked(&facts()), "{what:?}");
            assert_eq!((all(&table), weight(&table)), (vec![jti("other")], before), "{what:?}");
            assert_eq!(table.live.load(Acquire), 1, "{what:?}");
        }
    }
}

#[test]
fn a_cut_off_outlasts_the_entry_that_found_no_room() {
    let table = Revocations::with_limits(Limits { weight: 0, ..LIMITS });
    table.revoke(jti("j"));
    table.lift(&jti("j"));
    assert!(table.is_revoked(&facts()));
}
