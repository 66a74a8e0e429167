//! The connector to Auth0, against a tenant that answers as Auth0's references say.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;
use tollgate::{
    keymanager::{AccessTokenRequest, Error, KeyManager, OAuthApplicationInfo, Operation, Scope},
    token::settings::KeyManagerSettings,
};

use super::{
    User, World,
    auth0_tenant::{AUDIENCE, Domain, OWN},
    conforms,
    http::manager_of,
    stand_in::StandIn,
};
use crate::support::block_on;

fn manager(url: &str, more: &serde_json::Value) -> Arc<dyn KeyManager> {
    let mut settings = json!({ "name": "auth0", "connector": "auth0", "issuer": format!("{url}/") });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let settings: KeyManagerSettings = serde_json::from_value(settings).unwrap();
    manager_of(&settings)
}

fn all() -> serde_json::Value {
    json!({ "client_id": OWN.0, "client_secret": OWN.1, "client_auth": "post", "audience": [AUDIENCE] })
}

fn named(name: &str) -> OAuthApplicationInfo {
    OAuthApplicationInfo { client_name: Some(name.into()), ..OAuthApplicationInfo::default() }
}

#[test]
fn auth0_conforms() {
    block_on(async {
        let auth0 = StandIn::start(Domain::new).await;
        for (user, way) in [("auth0|1", "by id"), ("ada@example.com", "by mail"), ("ada", "by name")] {
            let claims = [("email", "ada@example.com"), ("email_verified", "true"), ("app_metadata.tier", "gold")];
            let world = World {
                user: Some(User {
                    name: user.into(),
                    password: None,
                    claims: BTreeMap::from(claims.map(|(name, value)| (name.into(), value.into()))),
                }),
                tells_all: true,
                nameless_scopes: true,
                roleless_scopes: true,
                ..World::default()
            };
            conforms(manager(&auth0.url, &all()), &world).await;
            assert_eq!(auth0.wrong(), [] as [String; 0], "{way}");
        }
        auth0.with(|domain| {
            assert!(domain.clients.is_empty() && domain.grants.is_empty(), "nothing is left");
            assert_eq!(domain.scopes, [json!({ "value": "there:before", "description": "made by hand" })]);
        });
    });
}

#[test]
fn what_the_settings_do_not_allow_is_told_beforehand() {
    block_on(async {
        let auth0 = StandIn::start(Domain::new).await;
        let bare = manager(&auth0.url, &json!({}));
        assert!(bare.cannot(Operation::CreateApplication).is_some_and(|why| why.contains("client_id")));
        assert!(bare.cannot(Operation::RegisterScope).is_some_and(|why| why.contains("audience")));
        conforms(bare, &World::default()).await;
        assert_eq!(auth0.lines(), [] as [String; 0]);
    });
}

#[test]
fn a_client_may_ask_for_tokens_of_the_apis_it_names() {
    block_on(async {
        let auth0 = StandIn::start(Domain::new).await;
        let manager = manager(&auth0.url, &all());
        let mut asked = named("shop");
        asked.parameters.insert("scope".into(), json!("there:before"));
        let made = manager.create_application(&asked).await.unwrap();
        let id = made.client_id.unwrap();
        auth0.with(|domain| {
            let grant = &domain.grants[0];
            assert_eq!((&grant["audience"], &grant["scope"]), (&json!(AUDIENCE), &json!(["there:before"])));
        });
        // Without a secret, the provider's own knowledge of it counts.
        let token = AccessTokenRequest { client_id: Some(id.clone()), ..AccessTokenRequest::default() };
        assert!(manager.new_access_token(&token).await.unwrap().access_token.is_some());
        // What is not said stays as it was, and so does what people have granted by hand.
        let by_hand = json!({ "id": "cgr0", "client_id": id, "audience": "https://other.example", "scope": [] });
        auth0.with(|domain| domain.grants.push(by_hand.clone()));
        let told = manager.update_application(&id, &named("shop 2")).await.unwrap();
        assert_eq!(told.parameters["grant_types"], "client_credentials");
        auth0.with(|domain| assert_eq!(domain.grants[0]["scope"], json!(["there:before"])));
        // No more client credentials, no more grant.
        asked.parameters.insert("grant_types".into(), json!("authorization_code"));
        manager.update_application(&id, &asked).await.unwrap();
        auth0.with(|domain| assert_eq!(domain.grants, [by_hand]));
        // An API that there is not: the client is not left behind.
        let mut wrong = named("other");
        wrong.parameters.insert("additionalProperties".into(), json!({ "audience_of_api": "https://none.example" }));
        let error = manager.create_application(&wrong).await.unwrap_err();
        assert_eq!(error, Error::NotFound("API of that audience"));
        auth0.with(|domain| assert_eq!(domain.clients.len(), 1));
    });
}

#[test]
fn its_own_token_is_got_once_and_renewed_when_it_is_no_good() {
    block_on(async {
        let auth0 = StandIn::start(Domain::new).await;
        let manager = manager(&auth0.url, &all());
        for _ in 0..3 {
            manager.scopes().await.unwrap();
        }
        let tokens = |lines: Vec<String>| lines.iter().filter(|line| *line == "POST /oauth/token").count();
        assert_eq!(tokens(auth0.lines()), 1);
        auth0.with(Domain::forget_tokens);
        manager.scopes().await.unwrap();
        assert_eq!(tokens(auth0.lines()), 1);
    });
}

#[test]
fn scopes_changed_at_one_time_are_all_kept() {
    block_on(async {
        let auth0 = StandIn::start(Domain::new).await;
        let manager = manager(&auth0.url, &all());
        let mut under_way = tokio::task::JoinSet::new();
        for number in 0..16 {
            let manager = Arc::clone(&manager);
            let scope = Scope { key: format!("s:{number}"), ..Scope::default() };
            under_way.spawn(async move { manager.register_scope(&scope).await });
        }
        while let Some(outcome) = under_way.join_next().await {
            outcome.unwrap().unwrap();
        }
        assert_eq!(manager.scopes().await.unwrap().len(), 17);
    });
}

#[test]
fn what_auth0_does_not_take_is_refused_by_name() {
    block_on(async {
        let auth0 = StandIn::start(Domain::new).await;
        let manager = manager(&auth0.url, &all());
        let refused = async |asked: OAuthApplicationInfo, wrong: &str| {
            let error = manager.create_application(&asked).await.unwrap_err();
            assert!(matches!(&error, Error::Invalid { field, .. } if field == wrong), "{error:?}");
        };
        refused(OAuthApplicationInfo::default(), "clientName").await;
        refused(named("a<b"), "clientName").await;
        refused(OAuthApplicationInfo { client_id: Some("mine".into()), ..named("a") }, "clientId").await;
        refused(OAuthApplicationInfo { app_owner: Some("x".repeat(256)), ..named("a") }, "appOwner").await;
        let bound = Scope { key: "a".into(), roles: Some("buyer".into()), ..Scope::default() };
        let error = manager.register_scope(&bound).await.unwrap_err();
        assert!(matches!(&error, Error::Invalid { field, .. } if field == "roles"), "{error:?}");
        let error = manager.update_application_owner("a", &"x".repeat(256)).await.unwrap_err();
        assert!(matches!(&error, Error::Invalid { field, .. } if field == "owner"), "{error:?}");
        assert_eq!(auth0.lines(), [] as [String; 0], "nothing was asked");
        let forbidden = json!({ "statusCode": 403, "error": "Forbidden", "message": "Insufficient scope, expected any of: read:users" });
        manager.scopes().await.unwrap();
        auth0.answer_once(403, forbidden);
        let error = manager.user_claims("ada").await.unwrap_err();
        assert!(matches!(&error, Error::Credentials(why) if why.contains("read:users")), "{error:?}");
    });
}
