//! A real Keycloak, where there is one: `tests/interop` starts it, makes the realm by its `keycloak.py realm` and
//! `manage`, and names its address in `TOLLGATE_KEYCLOAK`.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;
use tollgate::{
    connectors::{self, Means},
    keymanager::{AccessTokenRequest, Error, KeyManager, Memory, OAuthApplicationInfo, Passing},
    net::{Clock, client::Client},
};

use super::{User, World, conforms};
use crate::support::block_on;

#[test]
#[ignore = "needs a Keycloak, named by TOLLGATE_KEYCLOAK"]
fn keycloak_conforms() {
    let base = std::env::var("TOLLGATE_KEYCLOAK").expect("TOLLGATE_KEYCLOAK: http://host:port");
    let claims = [("email", "ada@example.com"), ("preferred_username", "ada"), ("name", "Ada Lovelace")];
    let world = World {
        user: Some(User {
            name: "ada".into(),
            password: Some("l0velace-and-more".into()),
            claims: BTreeMap::from(claims.map(|(name, value)| (name.into(), value.into()))),
        }),
        takes_ids: true,
        tells_all: true,
        lists_users_alone: true,
        ..World::default()
    };
    block_on(conforms(manager(&base), &world));
}

#[test]
#[ignore = "needs a Keycloak, named by TOLLGATE_KEYCLOAK"]
fn keycloak_lists_sessions_and_revokes_them() {
    let base = std::env::var("TOLLGATE_KEYCLOAK").expect("TOLLGATE_KEYCLOAK: http://host:port");
    block_on(async {
        let manager = manager(&base);
        let mut asked = OAuthApplicationInfo { client_name: Some("shop".into()), ..OAuthApplicationInfo::default() };
        asked.parameters.insert("grant_types".into(), json!("password,refresh_token"));
        asked.parameters.insert("scope".into(), json!("orders:read"));
        let made = manager.create_application(&asked).await.unwrap();
        assert!(made.list("scope").contains(&"orders:read"), "{:?}", made.parameters);
        let id = made.client_id.unwrap();
        // No secret: Keycloak tells it to us.
        let request = AccessTokenRequest {
            client_id: Some(id.clone()),
            grant_type: Some("password".into()),
            resource_owner_username: Some("ada".into()),
            resource_owner_password: Some("l0velace-and-more".into()),
            scope: vec!["orders:read".into()],
            ..AccessTokenRequest::default()
        };
        let issued = manager.new_access_token(&request).await.unwrap();
        assert!(issued.scope.contains(&"orders:read".to_owned()), "{:?}", issued.scope);
        assert_eq!(manager.active_tokens(&id).await.unwrap().len(), 1, "one session");
        let refresh = issued.refresh_token.unwrap();
        manager.revoke_token(&refresh).await.unwrap();
        assert!(manager.active_tokens(&id).await.unwrap().is_empty(), "it is over");
        let token = issued.access_token.unwrap();
        assert!(!manager.token_meta_data(&token).await.unwrap().is_token_valid);
        manager.delete_application(&id).await.unwrap();
    });
}

#[test]
#[ignore = "needs a Keycloak, named by TOLLGATE_KEYCLOAK"]
fn keycloak_leaves_no_half_made_client() {
    let base = std::env::var("TOLLGATE_KEYCLOAK").expect("TOLLGATE_KEYCLOAK: http://host:port");
    block_on(async {
        let manager = manager(&base);
        let mut asked = OAuthApplicationInfo { client_id: Some("half-made".into()), ..OAuthApplicationInfo::default() };
        asked.parameters.insert("scope".into(), json!("no-such-scope"));
        let refused = manager.create_application(&asked).await.unwrap_err();
        assert!(matches!(&refused, Error::Invalid { field, .. } if field == "parameters.scope"), "{refused:?}");
        assert_eq!(manager.retrieve_application("half-made").await, Err(Error::NotFound("client")));
    });
}

#[test]
fn keycloak_is_found_from_its_issuer() {
    for issuer in ["http://127.0.0.1:1/", "http://127.0.0.1:1/realms/", "http://127.0.0.1:1/realms/a/b"] {
        let problems = build(issuer).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains("key_managers[0].issuer")), "{issuer}: {problems:?}");
    }
    assert!(build("https://idp.example/auth/realms/shop").is_ok());
}

fn manager(base: &str) -> Arc<dyn KeyManager> {
    build(&format!("{base}/realms/gw")).unwrap()
}

fn build(issuer: &str) -> Result<Arc<dyn KeyManager>, Vec<String>> {
    let settings = json!({"name": "kc", "connector": "keycloak", "issuer": issuer, "client_id": "tollgate",
        "client_secret": "tollgate-secret", "audience": ["orders"]});
    let settings = serde_json::from_value(settings).unwrap();
    let (client, clock) = (Client::new().unwrap(), Arc::new(Clock::new()));
    let memory: Arc<dyn Memory> = Arc::new(Passing::default());
    connectors::key_manager(&settings, "key_managers[0]", Means { client: &client, clock: &clock, memory: &memory })
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}
