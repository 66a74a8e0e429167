//! The embedded provider's models against WSO2's: what is read, what is told, what is refused by name.

use std::sync::Arc;

use futures_util::FutureExt;
use serde_json::{Value, json};

use super::*;
use crate::{
    keymanager::{Caller, Engine, Managed, Origin},
    net::Clock,
    store::record::Record,
    token::settings::KeyManagerSettings,
};

fn manager(tokens: &str) -> Embedded {
    let settings: KeyManagerSettings = serde_json::from_value(json!({
        "name": "local", "connector": "embedded", "issuer": "http://127.0.0.1:9000", "listen": "127.0.0.1:9000",
        "tokens": tokens, "token_lifetime": "10m", "refresh_lifetime": "1h",
        "clients": [{ "id": "declared", "secret": "of-the-file" }],
        "users": [{ "name": "ada", "password": "l0velace", "claims": {
            "email": "ada@example.com", "age": 36, "roles": ["a", "b"], "address": { "country": "GB" }
        } }],
    }))
    .expect("settings of the contract");
    let provider = Provider::new(&settings, "key_managers[0]", Arc::new(Clock::new())).expect("good settings");
    provider.open(Record::in_memory().expect("memory"), Arc::default()).expect("a good record");
    Embedded::new(provider)
}

fn application(change: Value) -> OAuthApplicationInfo {
    let mut application = json!({
        "clientName": "Shop", "callBackURL": "https://a.example/cb,https://b.example/cb", "appOwner": "ada",
        "applicationUUID": "u-1", "tokenType": "DEFAULT", "isSaasApplication": true, "appAttributes": { "tier": "gold" },
        "parameters": {
            "grant_types": ",client_credentials,refresh_token", "key_type": "PRODUCTION", "username": "ada",
            "additionalProperties": {
                "application_access_token_expiry_time": "300", "user_access_token_expiry_time": 60,
                "refresh_token_expiry_time": "N/A", "id_token_expiry_time": "N/A", "pkceMandatory": false, "own": [1],
            },
        },
    });
    for (name, value) in change.as_object().expect("an object") {
        application[name] = value.clone();
    }
    serde_json::from_value(application).expect("a client")
}

#[tokio::test]
async fn a_client_is_told_as_it_was_asked_for_and_can_be_put_back() {
    let manager = manager("jwt");
    let asked = application(json!({}));
    let made = manager.create_application(&asked).await.expect("a good client");
    let (id, secret) = (made.client_id.clone().expect("an id"), made.client_secret.clone().expect("a secret"));
    let read = manager.retrieve_application(&id).await.expect("it is there");
    assert_eq!(OAuthApplicationInfo { client_secret: None, ..made }, read);
    let told = serde_json::to_value(&read).expect("a client is JSON");
    for name in ["clientName", "callBackURL", "appOwner", "applicationUUID", "tokenType", "appAttributes"] {
        assert_eq!(told[name], serde_json::to_value(&asked).expect("a client is JSON")[name], "{name}");
    }
    let parameters = &told["parameters"];
    assert_eq!(parameters["grant_types"], "client_credentials,refresh_token");
    assert_eq!(parameters["key_type"], "PRODUCTION");
    assert_eq!(parameters["additionalProperties"], asked.parameters["additionalProperties"]);
    assert_eq!(manager.update_application(&id, &read).await.as_ref(), Ok(&read), "what was read can be written");
    let with_secret = OAuthApplicationInfo { client_secret: Some(secret.clone()), ..read.clone() };
    assert_eq!(manager.update_application(&id, &with_secret).await.as_ref(), Ok(&read));
    let wrong = OAuthApplicationInfo { client_secret: Some("of-somebody-else".into()), ..read.clone() };
    let error = manager.update_application(&id, &wrong).await.expect_err("it is another's");
    assert!(matches!(&error, Error::Invalid { field, .. } if field == "clientSecret"), "{error:?}");
    let asked =
        AccessTokenRequest { client_id: Some(id), client_secret: Some(secret), ..AccessTokenRequest::default() };
    let token = manager.new_access_token(&asked).await.expect("a token");
    assert_eq!((token.validity_period, token.is_application_token), (Some(300), true), "seconds here");
    let said = manager.token_meta_data(&token.access_token.expect("a token")).await.expect("readable");
    assert_eq!((said.validity_period, said.is_application_token), (Some(300_000), true), "and milliseconds there");
    assert_eq!(said.issued_time.map(|millis| millis % 1000), Some(0));
    assert_eq!(said.parameters.get("iss"), Some(&json!("http://127.0.0.1:9000")));
}

/// An engine over the provider, whose rows are in this record.
fn engine(record: &Record) -> Arc<Engine> {
    let settings: KeyManagerSettings = serde_json::from_value(json!({
        "name": "local", "connector": "embedded", "issuer": "http://127.0.0.1:9000", "listen": "127.0.0.1:9000",
    }))
    .expect("settings of the contract");
    let clock = Arc::new(Clock::new());
    let provider = Provider::new(&settings, "key_managers[0]", Arc::clone(&clock)).expect("good settings");
    provider.open(record.clone(), Arc::default()).expect("a good record");
    let registry = prometheus::Registry::new();
    let engine = Engine::new(Some(record.clone()), Arc::default(), clock, &registry, None).expect("metrics");
    let connector: Arc<dyn KeyManager> = Arc::new(Embedded::new(provider));
    engine.registry.replace(vec![Managed { settings, connector, origin: Origin::Declared }]);
    Arc::new(engine)
}

#[tokio::test]
async fn a_change_whose_end_was_never_written_is_in_the_audit_after_a_restart() {
    let record = Record::in_memory().expect("memory");
    let caller = Caller { who: "tester".into(), ..Caller::default() };
    let app = |id: &str| application(json!({ "clientId": id, "applicationUUID": id }));
    let killed = engine(&record);
    killed.create_application(&caller, "local", app("ended")).await.expect("a client");
    killed.create_application(&caller, "local", app("ended")).await.expect_err("it is there");
    killed.delete_application(&caller, "local", "unknown").await.expect_err("it is not there");
    assert_eq!(killed.begun(), 0, "what has ended, well or not, has no note");
    // The provider's change is on its way to the record, which is held so that nothing comes after it, when everything
    // else stops.
    let (go_on, held) = std::sync::mpsc::channel::<()>();
    let mut holding = Box::pin(record.change(move |_| Ok(held.recv().is_ok())));
    let mut making = Box::pin(killed.create_application(&caller, "local", app("begun")));
    assert!((&mut holding).now_or_never().is_none());
    assert!((&mut making).now_or_never().is_none());
    drop((making, go_on));
    holding.await.expect("a record");
    record.change(|_| Ok(())).await.expect("a record");
    assert_eq!(killed.begun(), 1);
    drop(killed);

    let next = engine(&record);
    next.retrieve_application("local", "begun").await.expect("it was made");
    let tending = tokio::spawn(Arc::clone(&next).tend());
    while next.begun() > 0 {
        tokio::task::yield_now().await;
    }
    tending.abort();
    let audit = next.audit(0, 10).expect("readable");
    let told: Vec<_> = audit.iter().map(|entry| (&*entry.subject, &*entry.outcome, &*entry.who)).collect();
    assert_eq!(told, [("ended", "done", "tester"), ("begun", "unended", "tester")]);
    assert_eq!(audit[1].after["applicationUUID"], "begun");
    let waiting = next.pending("local", 0, 10).expect("readable");
    assert_eq!((waiting.len(), &*waiting[0].operation), (1, "none"), "{waiting:?}");
    let another = engine(&record);
    let tending = tokio::spawn(Arc::clone(&another).tend());
    record.change(|_| Ok(())).await.expect("a record");
    tending.abort();
    assert_eq!(another.audit(0, 10).expect("readable").len(), 2, "it is told once");
}

#[tokio::test]
async fn what_a_client_cannot_be_is_refused_by_name() {
    let (jwt, opaque) = (manager("jwt"), manager("opaque"));
    let properties = |name: &str, value: Value| json!({ "parameters": { "additionalProperties": { name: value } } });
    for (manager, change, field, word) in [
        (&jwt, json!({ "tokenType": "OAUTH" }), "tokenType", "JWTs"),
        (&jwt, json!({ "tokenType": "x" }), "tokenType", "DEFAULT"),
        (&opaque, json!({ "tokenType": "JWT" }), "tokenType", "opaque"),
        (&jwt, json!({ "callBackURL": "not a uri" }), "callBackURL", "absolute"),
        (&jwt, json!({ "clientName": "x".repeat(201) }), "clientName", "200"),
        (&jwt, json!({ "clientSecret": "s3cret-too-short" }), "clientSecret", "22 to 256"),
        (&jwt, json!({ "parameters": { "grant_types": "implicit" } }), "parameters.grant_types", "password"),
        (&jwt, json!({ "parameters": { "grant_types": 5 } }), "parameters.grant_types", "text"),
        (&jwt, json!({ "parameters": { "response_types": "code" } }), "parameters.response_types", "empty"),
        (&jwt, json!({ "parameters": { "scope": "a b" } }), "parameters.scope", "not registered: a"),
        (&jwt, json!({ "parameters": { "scope": "a\"b" } }), "parameters.scope", "6749"),
        (&jwt, json!({ "parameters": { "client_secret": "s3cret" } }), "parameters.client_secret", "clientSecret"),
        (
            &jwt,
            json!({ "parameters": { "token_endpoint_auth_method": "none" } }),
            "parameters.token_endpoint_auth_method",
            "client_secret_post",
        ),
        (
            &jwt,
            json!({ "parameters": { "client_secret_expires_in": 0 } }),
            "parameters.client_secret_expires_in",
            "at least 1",
        ),
        (&jwt, json!({ "parameters": { "x": "y".repeat(20_000) } }), "parameters", "16384"),
        (
            &jwt,
            properties("pkceMandatory", json!(true)),
            "parameters.additionalProperties.pkceMandatory",
            "authorization",
        ),
        (
            &jwt,
            properties("id_token_expiry_time", json!(60)),
            "parameters.additionalProperties.id_token_expiry_time",
            "ID tokens",
        ),
        (
            &jwt,
            properties("user_access_token_expiry_time", json!(601)),
            "parameters.additionalProperties.user_access_token_expiry_time",
            "600",
        ),
        (
            &jwt,
            properties("user_access_token_expiry_time", json!(-1)),
            "parameters.additionalProperties.user_access_token_expiry_time",
            "whole number",
        ),
        (
            &jwt,
            properties("refresh_token_expiry_time", json!("soon")),
            "parameters.additionalProperties.refresh_token_expiry_time",
            "whole number",
        ),
        (
            &jwt,
            properties("client_secret", json!("s3cret")),
            "parameters.additionalProperties.client_secret",
            "clientSecret",
        ),
        (&jwt, json!({ "parameters": { "additionalProperties": 5 } }), PROPERTIES, "object"),
    ] {
        let error = manager.create_application(&application(change.clone())).await.expect_err("it is refused");
        let Error::Invalid { field: named, why, .. } = &error else { panic!("{change}: {error:?}") };
        assert_eq!(named, field, "{change}: {why}");
        assert!(why.contains(word), "{change}: {why}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn tokens_that_cannot_be_had_are_refused_by_name() {
    let manager = manager("jwt");
    for (change, field) in [
        (json!({ "clientId": null }), "clientId"),
        (json!({ "grantType": "password" }), "resourceOwnerUsername"),
        (json!({ "grantType": "password", "resourceOwnerUsername": "ada" }), "resourceOwnerPassword"),
        (json!({ "grantType": "refresh_token" }), "refreshToken"),
        (json!({ "grantType": "authorization_code" }), "grantType"),
        (json!({ "grantType": "urn:ietf:params:oauth:grant-type:token-exchange" }), "grantType"),
        (json!({ "clientSecret": "s3cret" }), "clientSecret"),
        (json!({ "validityPeriod": 0 }), "validityPeriod"),
        (json!({ "requestParameters": { "audience": "a" } }), "requestParameters.audience"),
        (json!({ "callbackURI": "https://a.example/cb" }), "callbackURI"),
    ] {
        let mut asked = json!({ "clientId": "declared" });
        for (name, value) in change.as_object().expect("an object") {
            asked[name] = value.clone();
        }
        let asked = serde_json::from_value(asked).expect("a request");
        let error = manager.new_access_token(&asked).await.expect_err("it is refused");
        assert!(matches!(&error, Error::Invalid { field: named, .. } if named == field), "{change}: {error:?}");
        assert!(!error.to_string().contains("s3cret"));
    }
    let asked = json!({ "clientId": "declared", "validityPeriod": 5 });
    let asked = serde_json::from_value(asked).expect("a request");
    assert_eq!(manager.new_access_token(&asked).await.expect("a token").validity_period, Some(5));
    let scope = json!({ "clientId": "declared", "scope": ["none"] });
    let refused = manager.new_access_token(&serde_json::from_value(scope).expect("a request")).await;
    let Err(Error::Invalid { field, why, .. }) = &refused else { panic!("{refused:?}") };
    assert!(field == "scope" && why.starts_with("invalid_scope"), "{refused:?}");
}

#[tokio::test]
async fn a_token_named_to_be_revoked_goes_only_for_its_own_client() {
    let manager = manager("jwt");
    let asked = |change: Value| {
        let mut asked = json!({ "clientId": "declared", "clientSecret": "of-the-file" });
        for (name, value) in change.as_object().expect("an object") {
            asked[name] = value.clone();
        }
        serde_json::from_value::<AccessTokenRequest>(asked).expect("a request")
    };
    let token = manager.new_access_token(&asked(json!({}))).await.expect("a token").access_token.expect("a token");
    let good = async || manager.token_meta_data(&token).await.expect("readable").is_token_valid;
    let other = manager.create_application(&application(json!({}))).await.expect("a client").client_id;
    let others = asked(json!({ "clientId": other, "clientSecret": null, "tokenToRevoke": token.reveal() }));
    let error = manager.new_access_token(&others).await.expect_err("it is not its own");
    assert!(matches!(&error, Error::Invalid { field, .. } if field == "tokenToRevoke"), "{error:?}");
    let wrong = asked(json!({ "clientSecret": "wrong", "tokenToRevoke": token.reveal() }));
    manager.new_access_token(&wrong).await.expect_err("a wrong secret");
    assert!(good().await);
    let right = asked(json!({ "tokenToRevoke": token.reveal() }));
    manager.new_access_token(&right).await.expect("a token");
    assert!(!good().await);
    let stranger = manager.revoke_one_time_token(&token, "declared").await;
    assert_eq!(stranger, Ok(()), "one that is dead counts as revoked");
}

#[tokio::test]
async fn claims_are_texts() {
    let told = manager("jwt").user_claims("ada").await.expect("she is configured");
    let expected = [
        ("address", r#"{"country":"GB"}"#),
        ("age", "36"),
        ("email", "ada@example.com"),
        ("roles", "a,b"),
        ("sub", "ada"),
    ];
    assert_eq!(told, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
}

#[tokio::test]
async fn the_first_secret_has_an_end_and_a_description_where_they_are_asked_for() {
    let manager = manager("jwt");
    let parameters = json!({ "client_secret_expires_in": "60", "client_secret_description": "the first" });
    let asked = application(json!({ "parameters": parameters }));
    let id = manager.create_application(&asked).await.expect("a client").client_id.expect("an id");
    let secrets = manager.secrets(&id).await.expect("it is there");
    assert_eq!(secrets[0].parameters["description"], "the first");
    let left = secrets[0].parameters["expiresAt"].as_u64().expect("an end").saturating_sub(manager.provider.now());
    assert!((58..=60).contains(&left), "{left}");
    let error = manager.update_application(&id, &asked).await.expect_err("it is for a new client");
    assert!(matches!(&error, Error::Invalid { field, .. } if field.starts_with("parameters.client_secret_")));
    let read = manager.retrieve_application(&id).await.expect("it is there");
    assert_eq!(manager.update_application(&id, &read).await, Ok(read));
}

#[tokio::test]
async fn a_secret_is_asked_for_by_what_is_known() {
    let manager = manager("jwt");
    let id = manager.create_application(&application(json!({}))).await.expect("a client").client_id.expect("an id");
    for (parameters, field) in [
        (json!({ "expiresIn": 0 }), "parameters.expiresIn"),
        (json!({ "expiresIn": "1h" }), "parameters.expiresIn"),
        (json!({ "description": 5 }), "parameters.description"),
        (json!({ "description": "x".repeat(201) }), "parameters.description"),
        (json!({ "expires": 5 }), "parameters"),
    ] {
        let asked = serde_json::from_value(json!({ "parameters": parameters })).expect("a request");
        let error = manager.add_secret(&id, &asked).await.expect_err("it is refused");
        assert!(matches!(&error, Error::Invalid { field: named, .. } if named == field), "{parameters}: {error:?}");
    }
    let own = "chosen-elsewhere-and-long-enough";
    let asked = serde_json::from_value(json!({ "clientSecret": own })).expect("a request");
    let added = manager.add_secret(&id, &asked).await.expect("room");
    assert_eq!(added.client_secret, Some(own.into()));
    assert_eq!(added.parameters.get("expiresAt"), Some(&json!(0)));
    let again = manager.add_secret(&id, &asked).await.expect_err("it is there");
    assert!(matches!(again, Error::Conflict(_)));
}

const PROPERTIES: &str = "parameters.additionalProperties";
