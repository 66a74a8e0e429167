//! Clients as the door changes and adopts them: whose they are, and what their bodies may hold.

use serde_json::json;

use super::testing::Stand;
use crate::keymanager::{OAuthApplicationInfo, Operation};

const CLIENTS: &str = "/v1/key-managers/one/clients";
const SHOP: &str = "/v1/key-managers/one/clients/shop";

#[tokio::test]
async fn an_update_changes_the_owner_and_leaves_a_client_with_its_application() {
    let stand = Stand::start().await;
    let body = r#"{"clientId":"shop","appOwner":"ada","applicationUUID":"u","parameters":{"key_type":"SANDBOX"}}"#;
    assert_eq!(stand.ask("POST", CLIENTS, body).await.status, 201);
    let told = stand.ask("PUT", SHOP, r#"{"clientName":"n","appOwner":"grace","applicationUUID":"u"}"#).await;
    assert_eq!((told.status, &told.json()["appOwner"]), (200, &json!("grace")), "{}", told.body);
    assert_eq!(stand.ask("GET", SHOP, "").await.json()["appOwner"], "grace");
    let told = stand.ask("PUT", SHOP, r#"{"clientName":"n2","parameters":{"key_type":"SANDBOX"}}"#).await.json();
    assert_eq!(
        (&told["appOwner"], &told["applicationUUID"]),
        (&json!("grace"), &json!("u")),
        "told as it is read: {told}"
    );
    assert_eq!(told["appOwner"], stand.ask("GET", SHOP, "").await.json()["appOwner"]);
    for (body, named) in [
        (r#"{"clientName":"n3","applicationUUID":"other"}"#, "applicationUUID: "),
        (r#"{"clientName":"n3","parameters":{"key_type":"PRODUCTION"}}"#, "parameters.key_type: "),
    ] {
        let refused = stand.ask("PUT", SHOP, body).await;
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(refused.status == 409 && detail.starts_with(named), "{body}: {}", refused.body);
    }
    assert_eq!(stand.one.clients.lock()["shop"].client_name.as_deref(), Some("n2"), "the provider was not asked");
    let again = stand.ask("POST", CLIENTS, r#"{"applicationUUID":"u","parameters":{"key_type":"SANDBOX"}}"#).await;
    assert_eq!(again.status, 409, "the application has its client still: {}", again.body);
}

#[tokio::test]
async fn a_secret_that_comes_with_an_update_is_the_clients_or_refused() {
    let stand = Stand::start().await;
    assert_eq!(stand.ask("POST", CLIENTS, r#"{"clientId":"shop"}"#).await.status, 201);
    let refused = stand.ask("PUT", SHOP, r#"{"clientName":"n","clientSecret":"wish-s3cret"}"#).await;
    assert_eq!((refused.status, &refused.json()["field"]), (400, &json!("clientSecret")), "{}", refused.body);
    assert!(!refused.body.contains("wish"), "{}", refused.body);
    let told = stand.ask("PUT", SHOP, r#"{"clientName":"n","clientSecret":"s3cret-of-shop"}"#).await;
    assert_eq!((told.status, told.json().get("clientSecret")), (200, None), "{}", told.body);
    stand.one.cannot.lock().push(Operation::MapOAuthApplication);
    let refused = stand.ask("PUT", SHOP, r#"{"clientName":"n2","clientSecret":"s3cret-of-shop"}"#).await;
    assert_eq!((refused.status, &refused.json()["field"]), (400, &json!("clientSecret")), "{}", refused.body);
    assert_eq!(stand.one.clients.lock()["shop"].client_name.as_deref(), Some("n"));
}

#[tokio::test]
async fn who_maps_a_client_brings_its_secret_unless_it_has_none() {
    let stand = Stand::start().await;
    for (id, method) in [("plain", None), ("basic", Some("client_secret_basic")), ("public", Some("none"))] {
        let mut app = OAuthApplicationInfo {
            client_id: Some(id.into()),
            client_secret: Some("s3cret".into()),
            ..OAuthApplicationInfo::default()
        };
        app.parameters.extend(method.map(|method| ("token_endpoint_auth_method".into(), json!(method))));
        stand.one.clients.lock().insert(id.into(), app);
    }
    let map = format!("{CLIENTS}/map");
    for (body, status) in [
        (r#"{"clientId":"plain"}"#, 400),
        (r#"{"clientId":"basic"}"#, 400),
        (r#"{"clientId":"basic","clientSecret":"wrong"}"#, 400),
        (r#"{"clientId":"basic","keyType":"TEST","clientSecret":"s3cret"}"#, 400),
        (r#"{"clientId":"basic","clientSecret":"s3cret"}"#, 200),
        (r#"{"clientId":"public"}"#, 200),
        (r#"{"clientId":"nobody"}"#, 404),
    ] {
        let answer = stand.ask("POST", &map, body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        if status == 400 {
            let field = if body.contains("keyType") { "keyType" } else { "clientSecret" };
            assert_eq!(answer.json()["field"], field, "{body}: {}", answer.body);
        }
        assert!(!answer.body.contains("s3cret"), "{body}: {}", answer.body);
    }
    assert_eq!(stand.ask("DELETE", &format!("{CLIENTS}/plain/mapping"), "").await.status, 404, "it was not mapped");
}

#[tokio::test]
async fn a_body_is_one_object_without_twins_and_as_it_is_sent() {
    let stand = Stand::start().await;
    for (body, field) in [
        ("[]", "body"),
        (r#"["shop","Shop"]"#, "body"),
        ("null", "body"),
        (r#"{"clientName":"a","clientName":"b"}"#, "clientName"),
        (r#"{"clientName":"a","parameters":{"scope":"a","scope":"b"}}"#, "parameters.scope"),
        (r#"{"parameters":{"client_secret":"s3cret"}}"#, "parameters.client_secret"),
        (
            r#"{"parameters":{"additionalProperties":{"client_secret":"s3cret"}}}"#,
            "parameters.additionalProperties.client_secret",
        ),
        (r#"{"callBackURL":"javascript:alert(1)"}"#, "callBackURL"),
    ] {
        let refused = stand.ask("POST", CLIENTS, body).await;
        assert_eq!((refused.status, &refused.json()["field"]), (400, &json!(field)), "{body}: {}", refused.body);
        assert!(!refused.body.contains("s3cret"), "{body}: {}", refused.body);
    }
    assert!(stand.one.clients.lock().is_empty(), "none of them made a client");
    let packed = stand.ask_with("POST", CLIENTS, "Content-Encoding: gzip\r\n", r#"{"clientName":"a"}"#).await;
    assert_eq!((packed.status, packed.field("accept-encoding")), (415, Some("identity")), "{}", packed.body);
    let plain = stand.ask_with("POST", CLIENTS, "Content-Encoding: identity\r\n", r#"{"clientName":"a"}"#).await;
    assert_eq!(plain.status, 201, "{}", plain.body);
}

#[tokio::test]
async fn what_may_be_a_secret_is_neither_planned_nor_audited_however_deep() {
    let stand = Stand::start().await;
    let body = r#"{"clientId":"shop","parameters":{"passwords":["s3cret-1",{"of":"s3cret-2"}],"tokenScope":["a"],
        "additionalProperties":{"private_keys":{"first":["s3cret-3"]},"retries":3}}}"#;
    let plan = stand.ask("POST", &format!("{CLIENTS}?dry_run=true"), body).await;
    assert_eq!(
        (plan.status, &plan.json()["request"]["parameters"]["tokenScope"]),
        (200, &json!(["a"])),
        "{}",
        plan.body
    );
    assert_eq!(plan.json()["request"]["parameters"]["passwords"], json!(["[redacted]", {"of": "[redacted]"}]));
    assert_eq!(stand.ask("POST", CLIENTS, body).await.status, 201);
    let audit = stand.ask("GET", "/v1/audit", "").await;
    let after = &audit.json()["items"][0]["after"];
    assert_eq!(
        after["parameters"]["additionalProperties"],
        json!({"private_keys": {"first": ["[redacted]"]}, "retries": 3})
    );
    assert!(!plan.body.contains("s3cret-") && !audit.body.contains("s3cret-"), "{}{}", plan.body, audit.body);
}

#[tokio::test]
async fn a_detachment_everywhere_tells_of_no_resource_that_nobody_has_told() {
    let stand = Stand::start().await;
    stand.ask("POST", "/v1/scopes", r#"{"key":"a"}"#).await;
    stand.ask("POST", "/v1/resources", r#"{"apiId":"x","uris":["/x"],"scopes":["a"]}"#).await;
    let told = stand.ask("DELETE", "/v1/resources/x/scopes", "").await;
    assert_eq!(told.status, 200, "{}", told.body);
    for outcome in told.json()["outcomes"].as_array().unwrap() {
        assert_eq!((&outcome["outcome"], outcome.get("result")), (&json!("done"), None), "{}", told.body);
    }
    let one = stand.ask("GET", "/v1/key-managers/one/resources/x", "").await.json();
    assert_eq!((&one["uris"], &one["scopes"]), (&json!(["/x"]), &json!([])), "{one}");
}
