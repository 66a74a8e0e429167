//! WSO2 Identity Server, by a stand-in that answers in recorded shapes: no such server can be had here.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use tollgate::{
    connectors::{self, Means},
    keymanager::{AccessTokenRequest, Error, KeyManager, Memory, OAuthApplicationInfo, Passing, Sensitive},
    net::{Clock, client::Client},
};

use super::{User, World, conforms, request, wso2is_server::Server};
use crate::support::block_on;

#[test]
fn wso2is_conforms_in_the_super_tenant_and_in_another() {
    for tenant in [None, Some("acme.example")] {
        block_on(async {
            let server = Server::start(tenant).await;
            conforms(manager(&server, tenant), &world()).await;
            assert_eq!(server.wrong(), Vec::<String>::new());
        });
    }
}

#[test]
fn wso2is_keeps_the_token_type_unless_it_may_move_to_jwt() {
    block_on(async {
        let server = Server::start(None).await;
        let manager = manager(&server, None);
        let application = |kind: &str| OAuthApplicationInfo {
            app_owner: Some("ada@carbon.super".into()),
            token_type: Some(kind.into()),
            ..shop()
        };
        let made = manager.create_application(&application("OAUTH")).await.unwrap();
        let id = made.client_id.unwrap();
        assert_eq!(made.token_type.as_deref(), Some("DEFAULT"));
        assert_eq!(made.app_owner.as_deref(), Some("ada"), "without the tenant");
        for (wanted, kept) in [("DEFAULT", "DEFAULT"), ("JWT", "JWT"), ("DEFAULT", "JWT")] {
            let told = manager.update_application(&id, &application(wanted)).await.unwrap();
            assert_eq!(told.token_type.as_deref(), Some(kept));
        }
        assert_eq!(server.wrong(), Vec::<String>::new());
    });
}

#[test]
fn wso2is_changes_a_client_by_its_id_whatever_secret_comes_along() {
    block_on(async {
        let server = Server::start(None).await;
        let manager = manager(&server, None);
        let made = manager.create_application(&shop()).await.unwrap();
        let (id, secret) = (made.client_id.unwrap(), made.client_secret.unwrap());
        for brought in [secret.clone(), "another".into()] {
            let changed = OAuthApplicationInfo { client_secret: Some(brought), ..shop() };
            let told = manager.update_application(&id, &changed).await.unwrap();
            assert_eq!((told.client_id.as_deref(), told.client_secret), (Some(&*id), None));
        }
        assert!(manager.new_access_token(&request(&id, &secret)).await.is_ok(), "its secret is as it was");
        assert_eq!(server.wrong(), Vec::<String>::new(), "the body's client_id is the id");
    });
}

#[test]
fn wso2is_exchanges_tokens_and_tells_claims_of_another_user_store() {
    block_on(async {
        let server = Server::start(None).await;
        let manager = manager(&server, None);
        let made = manager.create_application(&shop()).await.unwrap();
        let id = made.client_id.unwrap();
        let exchange = AccessTokenRequest {
            client_id: Some(id.clone()),
            grant_type: Some("urn:ietf:params:oauth:grant-type:token-exchange".into()),
            request_parameters: BTreeMap::from([("subject_token".into(), "a.b.c".into())]),
            ..AccessTokenRequest::default()
        };
        // The server tells the secret, as long as there is but one.
        let issued = manager.new_access_token(&exchange).await.unwrap();
        assert!(issued.access_token.is_some());
        manager.add_secret(&id, &Default::default()).await.unwrap();
        let refused = manager.new_access_token(&exchange).await.unwrap_err();
        assert!(matches!(&refused, Error::Invalid { field, .. } if field == "clientSecret"), "{refused:?}");
        let mapped = manager.map_application(&id, made.client_secret.as_ref()).await.unwrap();
        assert_eq!(mapped.client_secret, None, "a masked secret is let in by the token endpoint's own judgement");
        let wrong = manager.map_application(&id, Some(&Sensitive::from("wrong"))).await.unwrap_err();
        assert!(matches!(&wrong, Error::Invalid { field, .. } if field == "clientSecret"), "{wrong:?}");
        let claims = manager.user_claims("STAFF/grace@carbon.super").await.unwrap();
        assert_eq!(claims["http://wso2.org/claims/emailaddress"], "grace@example.com");
        let secret = made.client_secret.unwrap();
        assert!(manager.new_access_token(&request(&id, &secret)).await.is_ok());
    });
}

#[test]
fn wso2is_names_what_its_settings_lack() {
    for (change, field) in [
        (json!({"client_auth": "bearer"}), "client_auth"),
        (json!({"client_id": null}), "client_id"),
        (json!({"client_id": "a:b"}), "client_id"),
        (json!({"client_secret": null}), "client_secret"),
    ] {
        let mut settings = settings("http://127.0.0.1:9763/oauth2/token");
        settings.as_object_mut().unwrap().extend(change.as_object().cloned().unwrap());
        let problems = build(settings).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(&format!("[0].{field}"))), "{problems:?}");
    }
}

fn shop() -> OAuthApplicationInfo {
    OAuthApplicationInfo { client_name: Some("shop".into()), ..OAuthApplicationInfo::default() }
}

fn settings(issuer: &str) -> Value {
    json!({"name": "is", "connector": "wso2is", "issuer": issuer, "client_id": "admin@wso2.com",
        "client_secret": "p@ss:wörd", "discovery": false})
}

fn manager(server: &Server, tenant: Option<&str>) -> Arc<dyn KeyManager> {
    let context = tenant.map(|tenant| format!("/t/{tenant}")).unwrap_or_default();
    build(settings(&format!("http://{}{context}/oauth2/token", server.address))).unwrap()
}

fn build(settings: Value) -> Result<Arc<dyn KeyManager>, Vec<String>> {
    let settings = serde_json::from_value(settings).unwrap();
    let (client, clock) = (Client::new().unwrap(), Arc::new(Clock::new()));
    let memory: Arc<dyn Memory> = Arc::new(Passing::default());
    connectors::key_manager(&settings, "key_managers[0]", Means { client: &client, clock: &clock, memory: &memory })
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn world() -> World {
    let claims = [("http://wso2.org/claims/emailaddress".to_owned(), "ada@example.com".to_owned())];
    World {
        user: Some(User { name: "ada".into(), password: None, claims: BTreeMap::from(claims) }),
        takes_ids: true,
        tells_all: true,
        voids_tokens: true,
        grants_scopes: true,
        ..World::default()
    }
}
