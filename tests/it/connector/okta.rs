//! The connector to Okta, against an organization that answers as Okta's reference says.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;
use tollgate::{
    keymanager::{
        AccessTokenRequest, ConsumerSecretRequest, Error, KeyManager, OAuthApplicationInfo, Operation, Scope,
    },
    token::settings::KeyManagerSettings,
};

use super::{
    User, World, conforms,
    http::manager_of,
    okta_tenant::{KEY, OWN, Org, PASSWORD},
    stand_in::StandIn,
};
use crate::support::block_on;

fn manager(url: &str, more: &serde_json::Value) -> Arc<dyn KeyManager> {
    let mut settings = json!({ "name": "okta", "connector": "okta", "issuer": format!("{url}/oauth2/shop") });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let settings: KeyManagerSettings = serde_json::from_value(settings).unwrap();
    manager_of(&settings)
}

fn all() -> serde_json::Value {
    json!({ "token": KEY, "client_id": OWN.0, "client_secret": OWN.1 })
}

fn named(name: &str) -> OAuthApplicationInfo {
    OAuthApplicationInfo { client_name: Some(name.into()), ..OAuthApplicationInfo::default() }
}

#[test]
fn okta_conforms() {
    block_on(async {
        let okta = StandIn::start(Org::new).await;
        let claims = [("login", "ada"), ("email", "ada@example.com"), ("firstName", "Ada")];
        let world = World {
            user: Some(User {
                name: "ada".into(),
                password: Some(PASSWORD.into()),
                claims: BTreeMap::from(claims.map(|(name, value)| (name.into(), value.into()))),
            }),
            roleless_scopes: true,
            plain_secrets: true,
            grants_scopes: true,
            ..World::default()
        };
        conforms(manager(&okta.url, &all()), &world).await;
        assert_eq!(okta.wrong(), [] as [String; 0]);
        okta.with(|org| {
            assert!(org.clients.is_empty() && org.secrets.is_empty(), "nothing is left");
            assert_eq!(org.scopes.len(), 1, "but Okta's own scope");
        });
    });
}

#[test]
fn what_the_settings_do_not_allow_is_told_beforehand() {
    block_on(async {
        let okta = StandIn::start(Org::new).await;
        // Nothing is known but the issuer.
        let bare = manager(&okta.url, &json!({}));
        for operation in [Operation::CreateApplication, Operation::UserClaims, Operation::AllScopes] {
            assert!(bare.cannot(operation).is_some_and(|why| why.contains("API token")), "{operation:?}");
        }
        assert!(bare.cannot(Operation::TokenMetaData).is_some());
        assert_eq!(bare.cannot(Operation::NewApplicationAccessToken), None, "a client brings its own secret");
        let asked = AccessTokenRequest { client_id: Some("a".into()), ..AccessTokenRequest::default() };
        let error = bare.new_access_token(&asked).await.unwrap_err();
        assert!(matches!(&error, Error::Invalid { field, .. } if field == "clientSecret"), "{error:?}");
        conforms(bare, &World::default()).await;
        // The organization's own authorization server has no scopes to manage.
        let org = manager(&okta.url, &json!({ "token": KEY, "issuer": okta.url }));
        assert!(org.cannot(Operation::RegisterScope).is_some_and(|why| why.contains("oauth2/{id}")));
        assert_eq!(org.cannot(Operation::CreateApplication), None);
        assert_eq!(okta.lines(), ["POST /oauth2/shop/v1/token"; 0]);
    });
}

#[test]
fn a_client_keeps_what_the_key_manager_knows_nothing_of() {
    block_on(async {
        let okta = StandIn::start(Org::new).await;
        let manager = manager(&okta.url, &all());
        let made = manager.create_application(&named("shop")).await.unwrap();
        let id = made.client_id.unwrap();
        assert_eq!(made.parameters["application_type"], "service");
        okta.with(|org| org.clients.get_mut(&id).unwrap().insert("logo_uri".into(), json!("https://a.example/logo")));
        let mut changed = named("shop 2");
        changed.parameters.insert("grant_types".into(), json!("authorization_code,refresh_token"));
        changed.parameters.insert("additionalProperties".into(), json!({ "application_type": "web" }));
        changed.call_back_url = Some("https://a.example/cb".into());
        okta.lines();
        let told = manager.update_application(&id, &changed).await.unwrap();
        assert_eq!(told.parameters["response_types"], "code");
        let path = format!("/oauth2/v1/clients/{id}");
        assert_eq!(okta.lines(), [format!("GET {path}"), format!("PUT {path}")]);
        okta.with(|org| {
            assert_eq!(org.clients[&id]["logo_uri"], "https://a.example/logo");
            assert_eq!(org.clients[&id]["redirect_uris"], json!(["https://a.example/cb"]));
        });
        // What is not said stays as it was.
        let told = manager.update_application(&id, &named("shop 2")).await.unwrap();
        assert_eq!(
            (&*told.list("grant_types"), told.redirect_uris().len()),
            (&["authorization_code", "refresh_token"][..], 1)
        );
        assert_eq!(told.parameters["response_types"], "code");
        let twice = manager.create_application(&named("shop 2")).await.unwrap_err();
        assert!(matches!(&twice, Error::Conflict(clash) if clash.why.contains("already exists")), "{twice:?}");
    });
}

#[test]
fn wishes_that_okta_does_not_grant_are_refused_by_name() {
    block_on(async {
        let okta = StandIn::start(Org::new).await;
        let manager = manager(&okta.url, &all());
        let refused = async |asked: OAuthApplicationInfo, wrong: &str| {
            let error = manager.create_application(&asked).await.unwrap_err();
            assert!(matches!(&error, Error::Invalid { field, .. } if field == wrong), "{error:?}");
        };
        refused(OAuthApplicationInfo::default(), "clientName").await;
        refused(OAuthApplicationInfo { client_id: Some("mine".into()), ..named("a") }, "clientId").await;
        refused(OAuthApplicationInfo { client_secret: Some("mine".into()), ..named("a") }, "clientSecret").await;
        let bound = Scope { key: "a".into(), roles: Some("buyer".into()), ..Scope::default() };
        let error = manager.register_scope(&bound).await.unwrap_err();
        assert!(matches!(&error, Error::Invalid { field, .. } if field == "roles"), "{error:?}");
        assert_eq!(okta.lines(), [] as [String; 0], "nothing was asked");
    });
}

#[test]
fn a_new_secret_voids_both_of_two() {
    block_on(async {
        let okta = StandIn::start(Org::new).await;
        let manager = manager(&okta.url, &all());
        let made = manager.create_application(&named("shop")).await.unwrap();
        let (id, first) = (made.client_id.unwrap(), made.client_secret.unwrap());
        let second = manager.add_secret(&id, &ConsumerSecretRequest::default()).await.unwrap();
        let third = manager.add_secret(&id, &ConsumerSecretRequest::default()).await.unwrap_err();
        assert!(matches!(&third, Error::Refused { detail, .. } if detail.contains("two secrets")), "{third:?}");
        let new = manager.new_secret(&id).await.unwrap();
        for void in [&first, second.client_secret.as_ref().unwrap()] {
            assert!(manager.map_application(&id, Some(void)).await.is_err());
        }
        manager.map_application(&id, Some(&new)).await.unwrap();
        assert_eq!(manager.secrets(&id).await.unwrap().len(), 1);
        // Without a secret, the provider's own knowledge of it counts.
        let asked = AccessTokenRequest { client_id: Some(id), ..AccessTokenRequest::default() };
        let token = manager.new_access_token(&asked).await.unwrap().access_token.unwrap();
        assert!(manager.token_meta_data(&token).await.unwrap().is_token_valid);
    });
}

#[test]
fn okta_s_refusals_keep_their_words() {
    block_on(async {
        let okta = StandIn::start(Org::new).await;
        let manager = manager(&okta.url, &all());
        let wrong = self::manager(&okta.url, &json!({ "token": "00-another" })).user_claims("ada").await.unwrap_err();
        assert!(matches!(&wrong, Error::Credentials(why) if why.contains("Invalid token provided")), "{wrong:?}");
        assert!(!wrong.to_string().contains("00-another"));
        let limit =
            json!({ "errorCode": "E0000047", "errorSummary": "API call exceeded rate limit", "errorCauses": [] });
        okta.answer_once(429, limit);
        let error = manager.user_claims("ada").await.unwrap_err();
        assert!(matches!(&error, Error::Refused { status: 429, detail } if detail.contains("rate limit")), "{error:?}");
        assert!(error.may_pass());
        okta.answer_once(201, json!({ "nothing": "known" }));
        let error = manager.create_application(&named("shop")).await.unwrap_err();
        assert!(matches!(error, Error::HalfDone { .. }), "{error:?}");
    });
}
