//! Mistakes of each kind, by the field that is named.

use serde_json::json;

use super::*;

fn field_of<T: std::fmt::Debug>(outcome: Result<T>) -> String {
    match outcome {
        Err(Error::Invalid { field, .. }) => field.into_owned(),
        outcome => format!("{outcome:?}"),
    }
}

#[test]
fn a_clients_mistakes_are_named_by_field() {
    for (app, field) in [
        (json!({"clientId": ""}), "clientId"),
        (json!({"clientId": "a\u{0}b"}), "clientId"),
        (json!({"clientId": "map"}), "clientId"),
        (json!({"clientId": ".."}), "clientId"),
        (json!({"clientName": "x".repeat(256)}), "clientName"),
        (json!({"clientSecret": "ü"}), "clientSecret"),
        (json!({"callBackURL": "/relative"}), "callBackURL"),
        (json!({"callBackURL": "https://a.example/#f"}), "callBackURL"),
        (json!({"parameters": {"grant_types": ["a"]}}), "parameters.grant_types"),
        (json!({"parameters": {"grant_types": "implicit"}}), "callBackURL"),
        (json!({"parameters": {"grant_types": "authorization_code,refresh_token"}}), "callBackURL"),
        (json!({"parameters": {"key_type": "TEST"}}), "parameters.key_type"),
        (json!({"parameters": {"client_secret": "x"}}), "parameters.client_secret"),
        (
            json!({"parameters": {"additionalProperties": {"client_secret": "x"}}}),
            "parameters.additionalProperties.client_secret",
        ),
        (json!({"callBackURL": "https://a.example/cb,JavaScript:alert(1)"}), "callBackURL"),
        (json!({"callBackURL": "data:text/html,x"}), "callBackURL"),
        (json!({"parameters": {"a": "\u{7}"}}), "parameters.a"),
        (json!({"parameters": {"a": [[[[["x"]]]]]}}), "parameters.a[0][0][0][0][0]"),
        (json!({"parameters": {"additionalProperties": "x"}}), "parameters.additionalProperties"),
        (
            json!({"parameters": {"additionalProperties": {"refresh_token_expiry_time": -1}}}),
            "parameters.additionalProperties.refresh_token_expiry_time",
        ),
        (
            json!({"parameters": {"additionalProperties": {"pkceMandatory": 1}}}),
            "parameters.additionalProperties.pkceMandatory",
        ),
    ] {
        assert_eq!(field_of(application(serde_json::from_value(app.clone()).unwrap(), &[])), field, "{app}");
    }
    let lacking = application(OAuthApplicationInfo::default(), &["app_type"]);
    assert!(matches!(lacking, Err(Error::Invalid { code: Some("901407"), .. })), "{lacking:?}");
    assert_eq!(field_of(lacking), "parameters.additionalProperties.app_type");
}

#[test]
fn not_applicable_leaves_alone_and_ids_may_hold_slashes() {
    let app = json!({"clientId": "a/b", "callBackURL": "https://a.example/cb", "parameters": {
        "grant_types": ",authorization_code", "additionalProperties": {
            "id_token_expiry_time": "N/A", "user_access_token_expiry_time": "3600"}}});
    let app = application(serde_json::from_value(app).unwrap(), &[]).unwrap();
    let left = app.parameters["additionalProperties"].as_object().unwrap();
    assert_eq!(left.keys().collect::<Vec<_>>(), ["user_access_token_expiry_time"]);
}

#[test]
fn token_requests_are_of_the_paths_client_and_of_no_negative_time() {
    let ask = |request: Value| token_request(serde_json::from_value(request).unwrap(), "a");
    assert_eq!(field_of(ask(json!({"clientId": "b"}))), "clientId");
    for refused in [-3, 0] {
        assert_eq!(field_of(ask(json!({ "validityPeriod": refused }))), "validityPeriod");
    }
    assert_eq!(field_of(ask(json!({"scope": ["a b"]}))), "scope[0]");
    assert_eq!(ask(json!({"validityPeriod": -1})).unwrap().validity_period, None);
}
