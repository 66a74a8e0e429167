//! A client that its provider does not let in, a token that goes before another, and one that is only tried.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    lost_tests::{engine, server},
    tests::{Server, reply},
};
use crate::keymanager::{AccessTokenInfo, AccessTokenRequest, Caller, Done, Engine, Error, Result};

async fn ask(engine: &Engine, request: Value) -> Result<Done<AccessTokenInfo>> {
    let caller = Caller { who: "tester".into(), ..Caller::default() };
    let request = serde_json::from_value(request).expect("a request");
    engine.new_access_token(&caller, "idp", "shop", request).await
}

/// A provider whose token and revocation endpoints answer so.
async fn provider(token: (&'static str, &'static str), revoke: (&'static str, &'static str)) -> (Engine, Server) {
    let server = server(move |_, path| match path {
        "/revoke" => reply(revoke.0, revoke.1),
        _ => reply(token.0, token.1),
    })
    .await;
    (engine("oidc", server.address), server)
}

#[tokio::test]
async fn a_secret_that_the_provider_does_not_take_is_the_callers_mistake() {
    let wrong = r#"{"error":"invalid_client","error_description":"no"}"#;
    let odd = r#"{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}"#;
    for (status, body) in [
        ("401 Unauthorized", wrong),
        ("400 Bad Request", wrong),
        ("401 Unauthorized", odd),
        ("401 Unauthorized", r#"{"error":"access_denied","error_description":"Unauthorized"}"#),
        ("401 Unauthorized", "not let in"),
    ] {
        let (engine, _server) = provider((status, body), (GOOD, "")).await;
        for (request, word) in [
            (json!({ "clientSecret": "s3cret-of-shop" }), "is not taken by the provider: "),
            (json!({}), "is needed: "),
        ] {
            let failed = ask(&engine, request).await.expect_err("it is not let in");
            let Error::Invalid { field, why, .. } = &failed else { panic!("{body}: {failed:?}") };
            assert_eq!(field, "clientSecret", "{body}");
            assert!(why.starts_with(word) && !why.contains("s3cret"), "{body}: {why}");
        }
    }
    for (status, body) in [
        ("400 Bad Request", r#"{"error":"invalid_scope"}"#),
        ("401 Unauthorized", r#"{"error":"unauthorized_client","error_description":"no service account"}"#),
        ("500 Internal Server Error", "{}"),
    ] {
        let (engine, _server) = provider((status, body), (GOOD, "")).await;
        let failed = ask(&engine, json!({ "clientSecret": "s3cret-of-shop" })).await;
        assert!(matches!(failed, Err(Error::Refused { .. })), "{body}: {failed:?}");
    }
}

#[tokio::test]
async fn a_token_goes_by_the_clients_own_secret_and_only_where_the_rest_is_good() {
    let invalid = ("401 Unauthorized", r#"{"error":"invalid_client"}"#);
    let scope = ("400 Bad Request", r#"{"error":"invalid_scope"}"#);
    let token = (GOOD, r#"{"access_token":"t"}"#);
    let own = jwt("shop");
    let request = json!({ "clientSecret": "s3cret-of-shop", "tokenToRevoke": own });

    let (engine, server) = provider(token, invalid).await;
    let failed = ask(&engine, request.clone()).await;
    assert!(matches!(&failed, Err(Error::Invalid { field, .. }) if field == "clientSecret"), "{failed:?}");
    assert_eq!(server.asked(), ["/revoke"], "nothing is issued");
    assert!(engine.audit(0, 10).expect("readable").is_empty(), "nothing is revoked");

    let (engine, server) = provider(scope, (GOOD, "")).await;
    let failed = ask(&engine, request.clone()).await;
    let told = Error::Refused { status: 400, detail: "invalid_scope".into() }.revoked();
    assert_eq!(failed, Err(told));
    assert_eq!(server.asked(), ["/revoke", "/token"]);
    assert_eq!(engine.audit(0, 10).expect("readable")[0].operation, "revokeToken");

    let (engine, server) = provider(token, (GOOD, "")).await;
    let wrong = json!({ "clientSecret": "s3cret-of-shop", "tokenToRevoke": own, "grantType": "refresh_token" });
    assert!(matches!(ask(&engine, wrong).await, Err(Error::Invalid { .. })));
    let others = json!({ "clientSecret": "s3cret-of-shop", "tokenToRevoke": jwt("other") });
    assert!(matches!(ask(&engine, others).await, Err(Error::Invalid { field, .. }) if field == "tokenToRevoke"));
    assert!(server.asked().is_empty(), "nobody is asked");
    assert!(matches!(ask(&engine, request).await, Ok(Done::Did(_))));

    let one_time = engine.revoke_one_time_token(&Caller::default(), "idp", &jwt("other").into(), "shop").await;
    assert!(matches!(&one_time, Err(Error::Invalid { field, .. }) if field == "consumerKey"), "{one_time:?}");
    assert_eq!(server.asked(), ["/revoke", "/token"], "nobody is asked");
}

#[tokio::test]
async fn a_token_that_is_only_tried_reads_its_client_once() {
    let server = server(move |_, path| match path {
        "/capabilities" => reply(GOOD, r#"{"cannot":{}}"#),
        _ => reply(GOOD, r#"{"clientId":"shop"}"#),
    })
    .await;
    let engine = engine("http", server.address);
    let dry = Caller { dry_run: true, ..Caller::default() };
    let tried = engine.new_access_token(&dry, "idp", "shop", AccessTokenRequest::default()).await;
    assert!(matches!(tried, Ok(Done::Would(_))), "{tried:?}");
    assert_eq!(server.asked(), ["/capabilities", "/clients/shop"]);
}

fn jwt(client: &str) -> String {
    format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(json!({ "client_id": client }).to_string()))
}

const GOOD: &str = "200 OK";
