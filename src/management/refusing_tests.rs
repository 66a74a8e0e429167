//! What the door refuses rather than answer success for nothing.

use serde_json::{Value, json};

use super::testing::Stand;
use crate::keymanager::{Error, Operation};

const ONE: &str = "/v1/key-managers/one";

#[tokio::test]
async fn what_no_key_manager_can_do_is_not_done_everywhere() {
    let stand = Stand::start().await;
    let cannot = [
        Operation::RegisterScope,
        Operation::UpdateScope,
        Operation::DeleteScope,
        Operation::RegisterNewResource,
        Operation::UpdateRegisteredResource,
        Operation::DeleteRegisteredResourceByApiId,
        Operation::AttachResourceScopes,
    ];
    *stand.one.cannot.lock() = cannot.to_vec();
    *stand.two.cannot.lock() = cannot.to_vec();
    for (method, path, body) in [
        ("POST", "/v1/scopes", r#"{"key":"a"}"#),
        ("PUT", "/v1/scopes/a", "{}"),
        ("DELETE", "/v1/scopes/a", ""),
        ("POST", "/v1/resources", r#"{"apiId":"a"}"#),
        ("PUT", "/v1/resources/a", "{}"),
        ("DELETE", "/v1/resources/a", ""),
        ("PUT", "/v1/resources/a/scopes", r#"{"scopes":["a"]}"#),
    ] {
        for query in ["", "?dry_run=true"] {
            let answer = stand.ask(method, &format!("{path}{query}"), body).await;
            assert_eq!(answer.status, 501, "{method} {path}{query}: {}", answer.body);
            let problem = answer.json();
            assert_eq!(problem["code"], "901413");
            let told = problem["detail"].as_str().unwrap();
            assert!(told.contains("one: ") && told.contains("two: ") && told.contains("a memory cannot"), "{told}");
        }
    }
    stand.two.cannot.lock().clear();
    let some = stand.ask("POST", "/v1/scopes", r#"{"key":"a"}"#).await;
    assert_eq!((some.status, &some.json()["outcomes"][0]["outcome"]), (200, &json!("unsupported")), "{}", some.body);
}

#[tokio::test]
async fn what_no_key_manager_can_tell_is_not_read_everywhere() {
    let stand = Stand::start().await;
    let reads = [Operation::AllScopes, Operation::ScopeByName, Operation::ResourceByApiId];
    let paths = ["/v1/scopes", "/v1/scopes/a", "/v1/resources/a"];
    *stand.one.cannot.lock() = reads.to_vec();
    *stand.two.cannot.lock() = reads.to_vec();
    for path in paths {
        let answer = stand.ask("GET", path, "").await;
        assert_eq!((answer.status, &answer.json()["code"]), (501, &json!("901413")), "{path}: {}", answer.body);
        assert!(answer.body.contains("one: ") && answer.body.contains("two: "), "{path}: {}", answer.body);
    }
    stand.two.cannot.lock().clear();
    assert_eq!(stand.ask("POST", "/v1/scopes", r#"{"key":"a"}"#).await.status, 200);
    assert_eq!(stand.ask("POST", "/v1/resources", r#"{"apiId":"a"}"#).await.status, 200);
    for path in paths {
        let answer = stand.ask("GET", path, "").await;
        let outcomes = &answer.json()["outcomes"];
        let told = (answer.status, &outcomes[0]["outcome"], &outcomes[1]["outcome"]);
        assert_eq!(told, (200, &json!("unsupported"), &json!("done")), "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn what_a_field_clashes_with_is_told_by_that_field() {
    let stand = Stand::start().await;
    let made = r#"{"clientId":"a","applicationUUID":"app"}"#;
    assert_eq!(stand.ask("POST", &format!("{ONE}/clients"), made).await.status, 201);
    for (path, body) in [("/v1/scopes", r#"{"key":"s"}"#), ("/v1/resources", r#"{"apiId":"r"}"#)] {
        assert_eq!(stand.ask("POST", path, body).await.status, 200);
    }
    let ended = r#"{"kind":"jti","value":"x","issuer":"https://one.example","until":1}"#;
    for (method, path, body, field) in [
        ("POST", format!("{ONE}/clients?dry_run=true"), made, "clientId"),
        ("POST", format!("{ONE}/clients/map"), r#"{"clientId":"a"}"#, "clientId"),
        ("POST", format!("{ONE}/clients"), r#"{"clientId":"b","applicationUUID":"app"}"#, "applicationUUID"),
        ("PUT", format!("{ONE}/clients/a"), r#"{"applicationUUID":"other"}"#, "applicationUUID"),
        ("PUT", format!("{ONE}/clients/a"), r#"{"parameters":{"key_type":"SANDBOX"}}"#, "parameters.key_type"),
        ("POST", format!("{ONE}/scopes"), r#"{"key":"s"}"#, "key"),
        ("POST", format!("{ONE}/scopes?dry_run=true"), r#"{"key":"s"}"#, "key"),
        ("POST", format!("{ONE}/resources?dry_run=true"), r#"{"apiId":"r"}"#, "apiId"),
        ("POST", "/v1/scopes".into(), r#"{"key":"s"}"#, "key"),
        ("POST", "/v1/revocations".into(), ended, "until"),
    ] {
        let answer = stand.ask(method, &path, body).await;
        let problem = answer.json();
        assert_eq!((answer.status, &problem["field"]), (409, &json!(field)), "{method} {path}: {}", answer.body);
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(&format!("{field}: "))), "{problem}");
    }
    // What the path names is no field.
    let created = stand.ask("DELETE", &format!("{ONE}/clients/a/mapping"), "").await;
    assert_eq!((created.status, created.json().get("field")), (409, None), "{}", created.body);
}

#[tokio::test]
async fn what_cannot_be_done_is_named_as_it_was_asked_for() {
    let stand = Stand::start().await;
    *stand.one.mood.lock() =
        Some(Error::Unsupported { operation: Operation::ResourceByApiId, reason: "no such endpoint".into() });
    let answer = stand.ask("DELETE", &format!("{ONE}/resources/r/scopes"), "").await;
    let detail = "detachResourceScopes: no such endpoint";
    assert_eq!((answer.status, &answer.json()["detail"]), (501, &json!(detail)), "{}", answer.body);
    let same = stand.one.mood.lock().clone();
    *stand.two.mood.lock() = same;
    let all = stand.ask("DELETE", "/v1/resources/r/scopes", "").await;
    assert!(all.status == 501 && all.body.contains(&format!("two: {detail}")), "{}", all.body);
}

#[tokio::test]
async fn ids_that_no_path_can_name_are_refused() {
    let stand = Stand::start().await;
    for id in [".", "..", "map", "parse"] {
        for (path, more) in [("clients", ""), ("clients?dry_run=true", ""), ("clients/map", r#","clientSecret":"s""#)] {
            let answer = stand.ask("POST", &format!("{ONE}/{path}"), &format!(r#"{{"clientId":"{id}"{more}}}"#)).await;
            assert_eq!(
                (answer.status, &answer.json()["field"]),
                (400, &json!("clientId")),
                "{path} {id}: {}",
                answer.body
            );
        }
    }
    for (path, name, ids) in [
        ("/v1/key-managers/one/scopes", "key", &[".", "..", "validate"][..]),
        ("/v1/scopes", "key", &[".", "..", "validate"]),
        ("/v1/key-managers/one/resources", "apiId", &[".", "..", "a,b", " a"]),
        ("/v1/resources", "apiId", &[".", "..", "a,b", " a"]),
    ] {
        for id in ids {
            let answer = stand.ask("POST", path, &json!({ name: id }).to_string()).await;
            assert_eq!((answer.status, &answer.json()["field"]), (400, &json!(name)), "{path} {id}: {}", answer.body);
        }
    }
    assert!(stand.one.clients.lock().is_empty() && stand.two.scopes.lock().is_empty());
    assert_eq!(stand.ask("POST", &format!("{ONE}/scopes"), r#"{"key":"map"}"#).await.status, 201, "no word of theirs");
}

#[tokio::test]
async fn a_client_that_its_provider_names_so_is_taken_back() {
    let stand = Stand::start().await;
    *stand.one.own_id.lock() = Some("parse".into());
    let answer = stand.ask("POST", &format!("{ONE}/clients"), "{}").await;
    assert!(answer.status == 502 && answer.body.contains("clientId"), "{}", answer.body);
    assert!(stand.one.clients.lock().is_empty(), "it is taken back");
    *stand.one.own_id.lock() = Some("..".into());
    let answer = stand.ask("POST", &format!("{ONE}/clients"), "{}").await;
    assert!(answer.status == 502 && answer.body.contains("could not be undone"), "{}", answer.body);
    let left = stand.ask("GET", &format!("{ONE}/pending"), "").await.json();
    assert_eq!(left["items"][0]["operation"], "none", "it is for a human: {left}");
}

#[tokio::test]
async fn a_revocation_is_of_a_known_issuer() {
    let stand = Stand::start().await;
    let revoke = |issuer: &str| json!({ "kind": "jti", "value": "x", "issuer": issuer }).to_string();
    for path in ["/v1/revocations", "/v1/revocations?dry_run=true"] {
        let answer = stand.ask("POST", path, &revoke("https://one.exmaple")).await;
        assert_eq!((answer.status, &answer.json()["field"]), (400, &json!("issuer")), "{}", answer.body);
        assert!(answer.body.contains("https://one.example, https://two.example"), "{}", answer.body);
    }
    assert_eq!(stand.ask("POST", "/v1/revocations", &revoke("https://two.example")).await.status, 201);
    // A JWT says whose it is: of another issuer it would not be refused.
    let token = "h.eyJpc3MiOiJodHRwczovL3R3by5leGFtcGxlIn0.s"; // iss: https://two.example
    for (issuer, status) in [("https://one.example", 400), ("https://two.example", 201)] {
        let body = json!({ "kind": "token", "value": token, "issuer": issuer }).to_string();
        let answer = stand.ask("POST", "/v1/revocations", &body).await;
        assert_eq!(answer.status, status, "{issuer}: {}", answer.body);
        assert!(status == 201 || answer.json()["field"] == "value", "{}", answer.body);
    }
}

#[tokio::test]
async fn without_a_store_capabilities_say_what_changes_answer() {
    let stand = Stand::with(None).await;
    let told = stand.ask("GET", &format!("{ONE}/capabilities"), "").await.json();
    for (operation, may) in [
        ("createApplication", false),
        ("mapOAuthApplication", false),
        ("revokeToken", false),
        ("loadConfiguration", false),
        ("registerScope", false),
        ("retrieveApplication", true),
        ("getAllScopes", true),
        ("canHandleToken", true),
    ] {
        let says = &told[operation];
        assert_eq!(says == &json!(true), may, "{operation}: {says}");
        assert!(may || says.as_str().is_some_and(|why| why.contains("[store]")), "{operation}: {says}");
    }
    assert_eq!(
        Stand::start().await.ask("GET", &format!("{ONE}/capabilities"), "").await.json()["createApplication"],
        true
    );
}

#[tokio::test]
async fn a_dry_run_refuses_what_reading_shows() {
    let stand = Stand::start().await;
    let (known, _) = stand.client("a").await;
    assert_eq!(stand.ask("POST", &format!("{ONE}/scopes"), r#"{"key":"s"}"#).await.status, 201);
    assert_eq!(stand.ask("POST", &format!("{ONE}/resources"), r#"{"apiId":"r"}"#).await.status, 201);
    let gone = format!("{ONE}/clients/gone");
    let audit = stand.engine.audit(0, 100).unwrap().len();
    for (method, path, body, status) in [
        ("PUT", gone.clone(), "{}", 404),
        ("DELETE", gone.clone(), "", 404),
        ("PUT", format!("{gone}/owner"), r#"{"owner":"ada"}"#, 404),
        ("POST", format!("{gone}/secret"), "", 404),
        ("POST", format!("{gone}/tokens"), "", 404),
        ("DELETE", known.clone(), "", 200),
        ("POST", format!("{known}/tokens"), "", 200),
        ("POST", format!("{ONE}/clients"), r#"{"clientId":"a"}"#, 409),
        ("PUT", known.clone(), r#"{"clientSecret":"wrong"}"#, 400),
        ("POST", format!("{ONE}/scopes"), r#"{"key":"s"}"#, 409),
        ("PUT", format!("{ONE}/scopes/t"), "{}", 404),
        ("DELETE", format!("{ONE}/scopes/t"), "", 404),
        ("DELETE", format!("{ONE}/scopes/s"), "", 200),
        ("POST", format!("{ONE}/resources"), r#"{"apiId":"r"}"#, 409),
        ("DELETE", format!("{ONE}/resources/q"), "", 404),
        ("PUT", format!("{ONE}/resources/q/scopes"), r#"{"scopes":["s"]}"#, 404),
        ("PUT", format!("{ONE}/resources/r/scopes"), r#"{"scopes":["s"]}"#, 200),
        ("POST", format!("{ONE}/clients/map"), r#"{"clientId":"gone","clientSecret":"x"}"#, 404),
        ("DELETE", format!("{ONE}/pending/7"), "", 404),
    ] {
        let answer = stand.ask(method, &format!("{path}?dry_run=true"), body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
    }
    assert_eq!(stand.engine.audit(0, 100).unwrap().len(), audit, "nothing was changed");
    let other = stand.one.clients.lock().get("a").cloned().unwrap();
    stand.one.clients.lock().insert("theirs".into(), other);
    for (secret, status) in [("wrong", 400), ("s3cret-of-a", 200)] {
        let body = json!({ "clientId": "theirs", "clientSecret": secret }).to_string();
        let answer = stand.ask("POST", &format!("{ONE}/clients/map?dry_run=true"), &body).await;
        assert_eq!(answer.status, status, "{secret}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_dry_run_asks_whose_the_token_to_revoke_is() {
    let stand = Stand::start().await;
    let (known, _) = stand.client("a").await;
    for (owner, status) in [("b", 400), ("a", 200)] {
        stand.one.owners.lock().insert("opaque".into(), owner.into());
        let body = json!({ "clientSecret": "s3cret-of-a", "tokenToRevoke": "opaque" }).to_string();
        let answer = stand.ask("POST", &format!("{known}/tokens?dry_run=true"), &body).await;
        assert_eq!(answer.status, status, "{owner}: {}", answer.body);
        assert!(status == 200 || answer.json()["field"] == "tokenToRevoke", "{}", answer.body);
    }
    assert!(stand.one.revoked.lock().is_empty(), "it was a dry run");
}

#[tokio::test]
async fn nothing_waits_for_a_provider_after_a_dry_run() {
    let stand = Stand::start().await;
    *stand.one.mood.lock() = Some(Error::Unreachable("gone".into()));
    // It says what would wait, also where that is all.
    for (two, told) in [(None, ["pending", "dry_run"]), (Some(Error::TimedOut("late".into())), ["pending", "pending"])]
    {
        *stand.two.mood.lock() = two;
        let answer = stand.ask("POST", "/v1/scopes?dry_run=true", r#"{"key":"a"}"#).await;
        let outcomes = answer.json()["outcomes"].clone();
        let each = [0, 1].map(|at| outcomes[at]["outcome"].clone());
        assert_eq!((answer.status, each), (200, told.map(Into::into)), "{}", answer.body);
    }
    assert_eq!(stand.ask("GET", &format!("{ONE}/pending"), "").await.json()["items"], json!([]));
    assert_eq!(stand.engine.audit(0, 10).unwrap(), []);
}

#[tokio::test]
async fn what_waits_is_forgotten_unless_it_is_a_dry_run() {
    let stand = Stand::start().await;
    *stand.one.mood.lock() = Some(Error::Unreachable("gone".into()));
    assert_eq!(stand.ask("POST", "/v1/scopes", r#"{"key":"a"}"#).await.status, 202);
    let waits = async || stand.ask("GET", &format!("{ONE}/pending"), "").await.json()["items"].clone();
    let path = format!("{ONE}/pending/{}", waits().await[0]["id"]);
    let dry = stand.ask("DELETE", &format!("{path}?dry_run=true"), "").await;
    assert_eq!((dry.status, &dry.json()["operation"]), (200, &json!("forgetPending")), "{}", dry.body);
    assert_eq!(waits().await.as_array().unwrap().len(), 1);
    assert_eq!(stand.ask("DELETE", &path, "").await.status, 204);
    assert_eq!(waits().await, json!([]));
}

#[tokio::test]
async fn what_is_there_already_is_not_put_where_nothing_is_to_be() {
    let stand = Stand::start().await;
    let (path, tag) = stand.client("a").await;
    let absent = "If-None-Match: *\r\n";
    for (method, path, head, body, status) in [
        ("PUT", path.as_str(), absent.to_owned(), "{}", 412),
        ("PUT", ONE, absent.to_owned(), "{}", 412),
        ("PUT", "/v1/key-managers/one/clients/b", absent.to_owned(), "{}", 404),
        ("PUT", path.as_str(), format!("If-None-Match: {tag}\r\n"), "{}", 400),
        ("PUT", path.as_str(), format!("{absent}If-Match: {tag}\r\n"), "{}", 412),
        ("DELETE", "/v1/key-managers/one/clients/b", format!("{absent}If-Match: *\r\n"), "", 404),
        ("POST", "/v1/key-managers/one/clients", absent.to_owned(), "{}", 400),
        ("GET", path.as_str(), absent.to_owned(), "", 200),
    ] {
        let answer = stand.ask_with(method, path, &head, body).await;
        assert_eq!(answer.status, status, "{method} {path} {head}: {}", answer.body);
    }
}

#[tokio::test]
async fn answers_tell_what_they_are_about() {
    let stand = Stand::start().await;
    let made = r#"{"clientId":"a","applicationUUID":"app-1"}"#;
    assert_eq!(stand.ask("POST", &format!("{ONE}/clients"), made).await.status, 201);
    stand.one.clients.lock().get_mut("a").unwrap().application_uuid = None;
    let owned = stand.ask("PUT", &format!("{ONE}/clients/a/owner"), r#"{"owner":"ada"}"#).await;
    assert_eq!((owned.status, &owned.json()["applicationUUID"]), (200, &json!("app-1")), "{}", owned.body);
    assert_eq!(stand.ask("POST", &format!("{ONE}/resources"), r#"{"apiId":"a/1"}"#).await.status, 201);
    let missing = stand.ask("GET", &format!("{ONE}/scopes?api=a/1,unknown"), "").await;
    assert_eq!((missing.status, &missing.json()["detail"]), (404, &json!("there is no such API: unknown")));
    for odd in ["%zz", "%2", "a%"] {
        let answer = stand.ask("GET", &format!("{ONE}/clients/{odd}"), "").await;
        assert_eq!(answer.status, 400, "{odd}: {}", answer.body);
    }
    let parsed = stand.ask("POST", &format!("{ONE}/tokens/parse"), r#"{"scope":"a b"}"#).await;
    assert_eq!((parsed.status, &parsed.json()["scope"]), (200, &json!(["a", "b"])), "{}", parsed.body);
    for (body, field) in [
        (r#"{"scope":7}"#, "scope"),
        (r#"{"requestParameters":{"a":"b"}}"#, "requestParameters"),
        (r#"{"callbackURI":"https://a.example"}"#, "callbackURI"),
        (r#"{"scope":"a","scopes":"b"}"#, "scopes"),
        (r#"{"requestParameters":null}"#, "requestParameters"),
        (r#"{"subject_token":"t","grant_type":"client_credentials"}"#, "subject_token"),
    ] {
        let wrong = stand.ask("POST", &format!("{ONE}/tokens/parse"), body).await;
        assert_eq!((wrong.status, &wrong.json()["field"]), (400, &json!(field)), "{}", wrong.body);
    }
}

#[tokio::test]
async fn scopes_that_were_not_bound_are_not_told_as_unbound() {
    let stand = Stand::start().await;
    let path = format!("{ONE}/resources/r/scopes");
    assert_eq!(stand.ask("POST", &format!("{ONE}/resources"), r#"{"apiId":"r","scopes":["a"]}"#).await.status, 201);
    let rows = async || stand.ask("GET", "/v1/audit", "").await.json()["items"].as_array().map(Vec::len);
    let before = rows().await;
    assert_eq!(stand.ask("DELETE", &path, r#"{"scopes":["never"]}"#).await.status, 204);
    assert_eq!(rows().await, before);
    let refused = stand.ask("DELETE", &path, r#"{"scopes":[]}"#).await;
    assert_eq!(refused.status, 400, "a lost list is not all of them: {}", refused.body);
    let kept = stand.ask("GET", &format!("{ONE}/resources/r"), "").await;
    assert_eq!(kept.json()["scopes"], json!(["a"]), "{}", kept.body);
    assert_eq!(stand.ask("DELETE", &path, r#"{"scopes":["a"]}"#).await.status, 204);
    let audit: Value = stand.ask("GET", "/v1/audit", "").await.json();
    assert_eq!(audit["items"].as_array().unwrap().last().unwrap()["operation"], "detachResourceScopes");
}
