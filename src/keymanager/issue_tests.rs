//! Tokens that are asked for, and those that go before them.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use super::*;
use crate::store::TokenSha256;

impl Stand {
    async fn issue(&self, json: serde_json::Value) -> Result<Done<AccessTokenInfo>> {
        self.engine.new_access_token(&caller(), "one", "a", serde_json::from_value(json).unwrap()).await
    }

    fn is_refused(&self, token: &str) -> bool {
        let print: [u8; 32] = digest(&SHA256, token.as_bytes()).as_ref().try_into().unwrap();
        self.revocations.is_revoked(&TokenFacts {
            issuer: "https://one.example",
            jti: None,
            token_sha256: Some(TokenSha256::Is(&print)),
            consumer_key: None,
            subject: None,
            own_subject: None,
            issued_at: None,
        })
    }

    fn owns(&self, client: &str, token: &str) {
        self.one.owners.lock().insert(token.into(), client.into());
    }
}

fn jwt(claims: &serde_json::Value) -> String {
    format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn field<T: std::fmt::Debug>(outcome: Result<T>) -> String {
    match outcome {
        Err(Error::Invalid { field, .. }) => field.into_owned(),
        outcome => panic!("{outcome:?}"),
    }
}

#[tokio::test]
async fn another_clients_token_is_not_revoked_and_a_wrong_secret_revokes_none() {
    let stand = stand();
    did(stand.create(json!({"clientId": "a"})).await);
    let theirs = jwt(&json!({"iss": "https://one.example", "client_id": "b"}));
    let elsewhere = jwt(&json!({"iss": "https://two.example", "client_id": "a"}));
    stand.owns("b", "opaque-of-b");
    stand.owns("a", "opaque-of-a");
    for (secret, token, wrong) in [
        ("s3cret-of-a", &*theirs, "tokenToRevoke"),
        ("s3cret-of-a", &*elsewhere, "tokenToRevoke"),
        ("s3cret-of-a", "opaque-of-b", "tokenToRevoke"),
        ("wrong", "opaque-of-a", "clientSecret"),
    ] {
        let asked = json!({"clientSecret": secret, "tokenToRevoke": token});
        assert_eq!(field(stand.issue(asked).await), wrong, "{token}");
        assert!(stand.one.revoked.lock().is_empty() && !stand.is_refused(token), "{token}");
    }
    assert_eq!(stand.engine.audit(0, 10).unwrap().len(), 1, "the client's making alone");
}

/// By their form: one's tokens begin with `o_`, two's with `t_`, and what begins with `ot_` may be either's.
#[tokio::test]
async fn another_key_managers_opaque_token_is_not_revoked() {
    let stand = stand();
    let (one, two) = ("token_pattern = '(o|ot)_.*'", "token_pattern = '(t|ot)_.*'");
    stand.engine.registry.replace(vec![stand.one.managed("one", one), stand.two.managed("two", two)]);
    did(stand.create(json!({"clientId": "a"})).await);
    // One's provider knows nothing good of these.
    stand.one.revoked.lock().extend(["t_1", "ot_theirs", "ot_nobodys", "o_old"].map(str::to_owned));
    stand.two.revoked.lock().extend(["ot_nobodys"].map(str::to_owned));
    let before = stand.one.revoked.lock().len();
    let dry = Caller { dry_run: true, ..caller() };
    for token in ["t_1", "ot_theirs"] {
        for who in [&caller(), &dry] {
            let asked = json!({"clientSecret": "s3cret-of-a", "tokenToRevoke": token});
            let asked = serde_json::from_value(asked).unwrap();
            assert_eq!(field(stand.engine.new_access_token(who, "one", "a", asked).await), "tokenToRevoke", "{token}");
            assert_eq!(field(stand.engine.revoke_token(who, "one", &token.into()).await), "token", "{token}");
        }
        assert!(!stand.is_refused(token), "{token}");
    }
    assert_eq!(stand.one.revoked.lock().len(), before, "its provider was not told");
    assert_eq!(stand.engine.audit(0, 10).unwrap().len(), 1, "the client's making alone");
    // Its own, dead or not; one that nobody knows; and one of the other's form that it knows as good.
    stand.owns("a", "t_known_here");
    for token in ["o_old", "o_new", "ot_nobodys", "never_seen", "t_known_here"] {
        did(stand.engine.revoke_token(&caller(), "one", &token.into()).await);
        assert!(stand.is_refused(token), "{token}");
    }
}

#[tokio::test]
async fn what_was_revoked_is_refused_and_in_the_audit_whether_or_not_another_is_issued() {
    let stand = stand();
    did(stand.create(json!({"clientId": "a"})).await);
    let own = jwt(&json!({"iss": "https://one.example", "client_id": "a"}));
    did(stand.issue(json!({"clientSecret": "s3cret-of-a", "tokenToRevoke": own})).await);
    assert!(stand.is_refused(&own));
    let line = stand.engine.audit(0, 10).unwrap().pop().unwrap();
    assert_eq!(&*line.operation, "getNewApplicationAccessToken");
    assert!(line.after["revoked"].as_str().is_some_and(|told| told.starts_with("sha256:")), "{line:?}");

    let refused = Error::Refused { status: 400, detail: "invalid_scope: none".into() };
    for (number, (error, gone)) in
        [(refused.clone().revoked(), true), (Error::TimedOut("late".into()), true), (refused, false)]
            .into_iter()
            .enumerate()
    {
        let token = format!("opaque-{number}");
        stand.owns("a", &token);
        *stand.one.issuing.lock() = Some(error.clone());
        let before = stand.engine.audit(0, 100).unwrap().len();
        let failed = stand.issue(json!({"clientSecret": "s3cret-of-a", "tokenToRevoke": token})).await.unwrap_err();
        assert_eq!(failed.label(), error.label());
        assert_eq!(stand.is_refused(&token), gone, "{error:?}");
        let audit = stand.engine.audit(0, 100).unwrap().split_off(before);
        let lines: Vec<_> = audit.iter().filter(|line| line.operation == "revokeToken").collect();
        assert_eq!(lines.len(), usize::from(gone), "{audit:?}");
        assert!(lines.iter().all(|line| line.subject.starts_with("sha256:") && &*line.outcome == "done"), "{lines:?}");
    }
    let anew = Revocations::default();
    restore(&stand.record, &anew).unwrap();
    let mut kept = 0;
    anew.for_each(|_| kept += 1);
    assert_eq!(kept, 3, "after a restart too");
}

#[tokio::test]
async fn nobody_is_our_own_client_without_its_secret() {
    let stand = stand();
    stand.engine.registry.replace(vec![stand.one.managed("one", "client_id = 'a'\nclient_secret = 's3cret-of-a'")]);
    let ask = async |who: &Caller, key: &str, json: serde_json::Value| {
        stand.engine.new_access_token(who, "one", key, serde_json::from_value(json).unwrap()).await
    };
    for client in ["a", "b"] {
        did(stand.create(json!({"clientId": client})).await);
    }
    let dry = Caller { dry_run: true, ..caller() };
    for who in [&caller(), &dry] {
        for key in ["a", "A"] {
            assert!(matches!(ask(who, key, json!({})).await, Err(Error::Conflict(_))), "{key}");
        }
        assert!(ask(who, "a", json!({"clientSecret": "s3cret-of-a"})).await.is_ok());
        assert!(ask(who, "b", json!({})).await.is_ok());
    }
    assert!(matches!(stand.engine.access_token("one", "a").await, Err(Error::Conflict(_))));
}

#[tokio::test]
async fn what_timed_out_may_have_been_done_and_says_so() {
    let stand = stand();
    *stand.one.mood.lock() = Some(Error::TimedOut("late".into()));
    let failed = stand.create(json!({"clientName": "x"})).await.unwrap_err();
    assert_eq!(failed, Error::TimedOut("late".into()).unclear());
    assert_eq!(stand.engine.pending("one", 0, 10).unwrap().len(), 1);
}
