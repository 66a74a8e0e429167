//! Dry runs at a connector outside: it is asked what reading needs, and nothing that changes anything.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::outside::{Outside, SECRET};
use crate::{
    management::{Place, dry::Walk, text},
    support::{Gate, block_on},
};

#[test]
fn a_dry_run_at_a_connector_outside_reads_and_changes_nothing() {
    let outside = block_on(Outside::start());
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path());
    let more = format!(
        "[[key_managers]]\nname = \"far\"\nconnector = \"http\"\nissuer = \"{url}\"\nendpoint = \"{url}\"\n\
         token = \"{SECRET}\"\ndiscovery = false\nvalidation = \"introspect\"\ntoken_pattern = \"token-.*\"\n\
         startup = \"optional\"\n",
        url = outside.url
    );
    let _gate = Gate::start(|ports| place.config(ports, "", &more));
    let key = place.key();
    let mut walk = Walk::new(place.port, &key, "far");
    let mut made = Vec::new();
    for id in ["mine", "other", "theirs"] {
        let client = walk.ask("POST", "clients", &json!({ "clientId": id })).json();
        let with = json!({ "clientSecret": text(&client, "clientSecret") });
        let token = walk.ask("POST", &format!("clients/{id}/tokens"), &with).json();
        made.push((text(&client, "clientSecret"), text(&token, "accessToken")));
    }
    let [(secret, own), (_, foreign), (theirs, _)] = made.try_into().unwrap();
    assert_eq!(walk.ask("DELETE", "clients/theirs/mapping", &Value::Null).status, 409);
    assert_eq!(walk.ask("POST", "scopes", &json!({ "key": "a" })).status, 201);
    let changes = |path: &str| format!("{path}?dry_run=true");
    let before = outside.asked();
    for (status, method, path, body) in [
        (200, "POST", "clients", json!({ "clientId": "new" })),
        (200, "PUT", "clients/mine", json!({ "clientSecret": secret })),
        (200, "PUT", "clients/mine/owner", json!({ "owner": "ada" })),
        (200, "POST", "clients/mine/secret", Value::Null),
        (200, "POST", "clients/mine/secrets", json!({})),
        (404, "DELETE", "clients/mine/secrets/none", Value::Null),
        (200, "POST", "clients/mine/tokens", json!({ "clientSecret": secret, "tokenToRevoke": own })),
        (200, "POST", "tokens/revoke", json!({ "token": own })),
        (200, "POST", "tokens/revoke-one-time", json!({ "token": own, "consumerKey": "mine" })),
        (200, "PUT", "scopes/a", json!({})),
        (200, "DELETE", "scopes/a", Value::Null),
        (200, "POST", "resources", json!({ "apiId": "r" })),
        (200, "DELETE", "clients/mine", Value::Null),
    ] {
        let dry = walk.ask(method, &changes(path), &body);
        assert_eq!(dry.status, status, "{method} {path} {body}: {}", dry.text());
        assert!(status != 200 || dry.text().contains("was not tried"), "{}", dry.text());
    }
    let new: BTreeSet<_> = outside.asked().difference(&before).cloned().collect();
    let reads = [
        "retrieveApplicationConsumerSecrets",
        "getResourceByApiId",
        "getScopeByName",
        "getTokenMetaData",
        "mapOAuthApplication",
        "retrieveApplication",
    ];
    assert!(new.iter().all(|asked| reads.contains(&asked.as_str())), "{new:?}");
    assert_eq!(outside.times("getNewApplicationAccessToken"), 3);

    let bound = json!({ "clientId": "bound", "parameters": { "grant_types": "password" } });
    for (due, method, path, body) in [
        (409, "POST", "clients", json!({ "clientId": "mine" })),
        (400, "PUT", "clients/mine", json!({ "clientSecret": "wrong" })),
        (400, "POST", "clients/mine/tokens", json!({ "clientSecret": secret, "tokenToRevoke": foreign })),
        (400, "POST", "tokens/revoke-one-time", json!({ "token": own, "consumerKey": "other" })),
        (400, "POST", "clients/mine/tokens", json!({ "clientSecret": "wrong" })),
        (400, "POST", "clients/mine/tokens", json!({ "clientSecret": "wrong", "tokenToRevoke": own })),
        (404, "POST", "clients/gone/tokens", json!({ "clientSecret": secret })),
        (201, "POST", "clients", bound),
        (400, "POST", "clients/bound/tokens", json!({ "grantType": "client_credentials" })),
        (400, "POST", "clients/bound/tokens", json!({})),
        (200, "PUT", "clients/bound", json!({ "parameters": { "grant_types": "password,client_credentials" } })),
        (201, "POST", "clients/bound/tokens", json!({})),
        (404, "DELETE", "clients/mine/secrets/none", Value::Null),
        (404, "DELETE", "clients/gone/secrets/none", Value::Null),
        (404, "PUT", "clients/gone", json!({})),
        (404, "POST", "clients/gone/secret", Value::Null),
        (404, "POST", "clients/map", json!({ "clientId": "gone", "clientSecret": "s" })),
        (409, "POST", "clients/map", json!({ "clientId": "theirs", "clientSecret": theirs })),
        (409, "POST", "scopes", json!({ "key": "a" })),
        (404, "PUT", "scopes/none", json!({})),
        (404, "PUT", "resources/none/scopes", json!({ "scopes": ["a"] })),
        (201, "POST", "resources", json!({ "apiId": "r", "scopes": ["a"] })),
        (409, "POST", "resources", json!({ "apiId": "r" })),
        (409, "POST", "resources", json!({ "apiId": "r", "scopes": ["none"] })),
        (409, "POST", "resources", json!({ "apiId": "q", "scopes": ["a", "none"] })),
        (409, "PUT", "resources/r", json!({ "scopes": ["none"] })),
        (409, "PUT", "resources/r/scopes", json!({ "scopes": ["none"] })),
        (409, "PATCH", "resources/r/scopes", json!({ "scopes": ["a", "none"] })),
        (404, "PATCH", "resources/none/scopes", json!({ "scopes": ["none"] })),
        (204, "DELETE", "resources/r/scopes", json!({ "scopes": ["none"] })),
        (204, "DELETE", "resources/r", Value::Null),
        (204, "POST", "tokens/revoke-one-time", json!({ "token": own, "consumerKey": "mine" })),
        (200, "PUT", "clients/mine", json!({ "clientSecret": secret, "clientName": "Mine" })),
        (204, "DELETE", "clients/mine", Value::Null),
        (404, "DELETE", "clients/mine", Value::Null),
    ] {
        walk.step(due, method, path, &body);
    }
    walk.end();
    assert_eq!(outside.wrong(), [] as [String; 0]);
}
