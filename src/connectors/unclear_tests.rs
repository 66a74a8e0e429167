//! A change whose answer is lost, or tells nothing: it may have been done, so that is told, stands in the record, and what it
//! was to revoke is refused.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    lost_tests::{engine, server},
    tests::{Server, reply},
};
use crate::keymanager::{
    AccessTokenRequest, ApiResource, Caller, ConsumerSecretRequest, Done, Engine, Error, Everywhere,
    OAuthApplicationInfo, Operation, Result, Scope,
};

fn caller() -> Caller {
    Caller { who: "tester".into(), ..Caller::default() }
}

/// Answers that leave open whether anything was done.
fn lost() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("dropped", Vec::new()),
        ("cut short", b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}".to_vec()),
        ("fell over", reply("500 Internal Server Error", "{}")),
        ("led elsewhere", reply("303 See Other", "")),
    ]
}

fn of<T: for<'d> serde::Deserialize<'d>>(json: Value) -> T {
    serde_json::from_value(json).expect("of that shape")
}

/// What is told of it: lines of the audit since `before`, what waits, and what is refused.
fn told(engine: &Engine, before: usize) -> (Vec<(String, String)>, usize, usize) {
    let audit = engine.audit(0, 100).expect("readable").split_off(before);
    let lines = audit.into_iter().map(|line| (line.operation, line.outcome)).collect();
    let waiting = engine.pending("idp", 0, 10).expect("readable");
    (lines, waiting.len(), engine.revocations(&[], 10).expect("readable").len())
}

fn unclear<T: std::fmt::Debug>(outcome: Result<Done<T>>) -> String {
    match outcome {
        Err(Error::Unclear(why)) => why.to_string(),
        outcome => panic!("{outcome:?}"),
    }
}

/// A standards provider that has registered `c1`; what changes it, and revocations, get `answer`.
async fn registered(answer: Vec<u8>) -> (Engine, Server) {
    let asked = AtomicUsize::new(0);
    let server = server(move |at, path| {
        let client = json!({"client_id": "c1", "client_secret": "s3cret-of-c1",
            "registration_access_token": "t0ken", "registration_client_uri": format!("http://{at}/clients/c1")});
        match path {
            "/clients" => reply("201 Created", &client.to_string()),
            // It is read before it is changed.
            "/clients/c1" if asked.fetch_add(1, Ordering::SeqCst) == 0 => reply("200 OK", &client.to_string()),
            _ => answer.clone(),
        }
    })
    .await;
    let engine = engine("oidc", server.address);
    engine.create_application(&caller(), "idp", of(json!({"clientName": "shop"}))).await.expect("it is made");
    (engine, server)
}

#[tokio::test]
async fn a_client_of_a_standards_provider_may_be_gone_or_changed() {
    for (name, answer) in lost() {
        let (engine, server) = registered(answer.clone()).await;
        unclear(engine.delete_application(&caller(), "idp", "c1").await);
        let (lines, waiting, refused) = told(&engine, 1);
        let outcomes: Vec<_> = lines.iter().map(|(operation, _)| operation.as_str()).collect();
        assert_eq!(outcomes, ["revokeToken", "deleteApplication"], "{name}");
        assert_eq!((waiting, refused), (1, 1), "{name}");
        let tried = if name == "dropped" || name == "cut short" { 2 } else { 1 };
        assert_eq!(server.asked().len(), 2 + tried, "{name}: {:?}", server.asked());
        assert!(engine.mapping("idp", "c1").expect("readable").is_some(), "it may be there");
    }
    for (name, answer) in lost().into_iter().chain([("no JSON", reply("200 OK", "notjson"))]) {
        let (engine, _server) = registered(answer).await;
        unclear(engine.update_application(&caller(), "idp", "c1", of(json!({"clientName": "new"}))).await);
        let (lines, waiting, refused) = told(&engine, 1);
        assert_eq!((lines.len(), waiting, refused), (1, 1, 0), "{name}: {lines:?}");
        assert_eq!(lines[0].0, "updateApplication", "{name}");
    }
}

#[tokio::test]
async fn a_token_that_may_be_revoked_is_refused() {
    for (name, answer) in lost() {
        for with_another in [true, false] {
            let (engine, server) = registered(answer.clone()).await;
            let outcome = match with_another {
                true => {
                    let asked = json!({"clientSecret": "s3cret-of-c1", "tokenToRevoke": "opaque"});
                    engine.new_access_token(&caller(), "idp", "c1", of(asked)).await.map(drop)
                }
                false => engine.revoke_token(&caller(), "idp", &"opaque".into()).await.map(drop),
            };
            assert!(matches!(outcome, Err(Error::Unclear(_))), "{name}: {outcome:?}");
            let (lines, waiting, refused) = told(&engine, 1);
            assert_eq!(lines[0], ("revokeToken".to_owned(), "done".to_owned()), "{name}");
            assert_eq!((lines.len(), waiting, refused), (2, 1, 1), "{name}: {lines:?}");
            assert_eq!(server.asked(), ["/clients", "/revoke"], "{name}: no token is asked for");
        }
    }
}

/// The first attempt has done it, so that the second finds nothing.
#[tokio::test]
async fn a_client_that_the_lost_attempt_removed_is_deleted() {
    let asked = Arc::new(AtomicUsize::new(0));
    let server = server(move |_, path| match (path, asked.fetch_add(1, Ordering::SeqCst)) {
        ("/capabilities", _) => reply("200 OK", CAN_ALL),
        (_, 2) => Vec::new(),
        (_, 3) => reply("404 Not Found", r#"{"code":"not_found"}"#),
        _ => reply("200 OK", r#"{"clientId":"c1"}"#),
    })
    .await;
    let engine = engine("http", server.address);
    let done = engine.delete_application(&caller(), "idp", "c1").await;
    assert_eq!(done, Ok(Done::Did(())));
    assert_eq!(server.asked(), ["/capabilities", "/clients/c1", "/clients/c1", "/clients/c1"]);
    assert_eq!(told(&engine, 0), (vec![("deleteApplication".into(), "done".into())], 0, 1));
}

/// A connector outside that can do all, and gives changes `answer`. What is read before is not there.
async fn outside(answer: Vec<u8>) -> (Engine, Server) {
    let seen = Mutex::new(Vec::new());
    let server = server(move |_, path| {
        let read_before = ["/clients/c1", "/scopes/a", "/resources/r"].contains(&path);
        let first = !seen.lock().contains(&path.to_owned());
        seen.lock().push(path.to_owned());
        match path {
            "/capabilities" => reply("200 OK", CAN_ALL),
            "/tokens/introspect" => reply("200 OK", r#"{"isTokenValid":true,"consumerKey":"c1"}"#),
            _ if read_before && first => reply("404 Not Found", r#"{"code":"not_found"}"#),
            _ => answer.clone(),
        }
    })
    .await;
    (engine("http", server.address), server)
}

#[tokio::test]
async fn every_change_at_a_connector_outside_is_told_whose_answer_is_lost() {
    let of_resource = || of::<ApiResource>(json!({"apiId": "r", "uris": ["/a"]}));
    for number in 0..17 {
        let (engine, _server) = outside(Vec::new()).await;
        let who = caller();
        let (operation, revokes, why) = match number {
            0 => (
                "createApplication",
                0,
                unclear(engine.create_application(&who, "idp", of(json!({"clientName": "x"}))).await),
            ),
            1 => (
                "updateApplication",
                0,
                unclear(engine.update_application(&who, "idp", "c1", OAuthApplicationInfo::default()).await),
            ),
            2 => ("deleteApplication", 1, unclear(engine.delete_application(&who, "idp", "c1").await)),
            3 => {
                ("updateApplicationOwner", 0, unclear(engine.update_application_owner(&who, "idp", "c1", "ada").await))
            }
            4 => ("getNewApplicationConsumerSecret", 1, unclear(engine.new_secret(&who, "idp", "c1").await)),
            5 => (
                "generateNewApplicationConsumerSecret",
                0,
                unclear(engine.add_secret(&who, "idp", "c1", ConsumerSecretRequest::default()).await),
            ),
            6 => ("deleteApplicationConsumerSecret", 0, unclear(engine.delete_secret(&who, "idp", "c1", "s").await)),
            7 => ("revokeToken", 1, unclear(engine.revoke_token(&who, "idp", &"opaque".into()).await)),
            8 => (
                "revokeOneTimeToken",
                1,
                unclear(engine.revoke_one_time_token(&who, "idp", &"opaque".into(), "c1").await),
            ),
            9 => ("registerScope", 0, unclear(engine.register_scope(&who, "idp", of(json!({"key": "a"}))).await)),
            10 => ("updateScope", 0, unclear(engine.update_scope(&who, "idp", "a", of(json!({"key": "a"}))).await)),
            11 => ("deleteScope", 0, unclear(engine.delete_scope(&who, "idp", "a").await)),
            12 => ("registerNewResource", 0, unclear(engine.register_resource(&who, "idp", of_resource()).await)),
            13 => {
                ("updateRegisteredResource", 0, unclear(engine.update_resource(&who, "idp", "r", of_resource()).await))
            }
            14 => ("deleteRegisteredResourceByAPIId", 0, unclear(engine.delete_resource(&who, "idp", "r").await)),
            15 => {
                let attach = Operation::AttachResourceScopes;
                (attach.name(), 0, unclear(engine.bind_scopes(&who, "idp", attach, "r", vec!["a".into()]).await))
            }
            _ => {
                let detach = Operation::DetachResourceScopes;
                (detach.name(), 0, unclear(engine.bind_scopes(&who, "idp", detach, "r", vec!["a".into()]).await))
            }
        };
        assert!(why.contains("cannot be reached"), "{operation}: {why}");
        let (lines, waiting, refused) = told(&engine, 0);
        assert_eq!((lines.len(), waiting, refused), (1 + revokes, 1, revokes), "{operation}: {lines:?}");
        assert_eq!(lines.last(), Some(&(operation.to_owned(), "unreachable".to_owned())));
    }
}

#[tokio::test]
async fn a_connector_outside_may_have_revoked_and_issued_nothing() {
    let odd = [("no JSON", reply("200 OK", "notjson")), ("empty", reply("200 OK", "{}"))];
    for (name, answer) in lost().into_iter().chain(odd) {
        let (engine, _server) = outside(answer).await;
        let ask = async |token: Option<&str>| {
            let asked: AccessTokenRequest = of(json!({"clientSecret": "s3cret-of-c1", "tokenToRevoke": token}));
            engine.new_access_token(&caller(), "idp", "c1", asked).await
        };
        // A token that nobody has got ends by itself.
        let failed = ask(None).await;
        assert!(matches!(&failed, Err(error) if !matches!(error, Error::Unclear(_))), "{name}: {failed:?}");
        assert_eq!(told(&engine, 0), (Vec::new(), 0, 0), "{name}");
        unclear(ask(Some("opaque")).await);
        let (lines, waiting, refused) = told(&engine, 0);
        assert_eq!((lines.len(), waiting, refused), (2, 1, 1), "{name}: {lines:?}");
        assert_eq!(lines[0], ("revokeToken".to_owned(), "done".to_owned()), "{name}");
    }
}

#[tokio::test]
async fn what_is_changed_everywhere_is_tried_again_where_its_answer_is_lost() {
    for (name, answer) in lost() {
        let (engine, _server) = outside(answer).await;
        let engine = Arc::new(engine);
        let scope: Scope = of(json!({"key": "a"}));
        let outcomes = engine.everywhere(&caller(), Everywhere::RegisterScope(scope)).await.expect("asked");
        assert_eq!(outcomes[0].outcome, "pending", "{name}: {outcomes:?}");
        let waiting = engine.pending("idp", 0, 10).expect("readable");
        assert!(waiting.len() == 1 && waiting[0].operation == "registerScope", "{name}: {waiting:?}");
    }
}

const CAN_ALL: &str = r#"{"connector":"x","cannot":{}}"#;
