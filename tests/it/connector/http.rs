//! The connector outside the process: run through everything, against a server that knows the document and nothing else.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use tollgate::{
    connectors::{self, Means},
    keymanager::{
        AccessTokenRequest, ConsumerSecretRequest, Error, KeyManager, Memory, OAuthApplicationInfo, Operation, Passing,
        Scope,
    },
    net::{Clock, client::Client},
    token::settings::KeyManagerSettings,
};

use super::{
    User, World, conforms,
    outside::{self, Outside, SECRET},
    outside_rows::{PASSWORD, USER},
};
use crate::{
    management::{Place, ask},
    support::{Backend, Config, Gate, Request, Via, api, application, block_on, resource, subscription},
};

#[test]
fn a_secret_in_a_file_is_read_again_with_the_configuration() {
    let outside = block_on(Outside::start());
    let folder = tempfile::tempdir().unwrap();
    let (place, secret) = (Place::new(folder.path()), folder.path().join("secret"));
    std::fs::write(&secret, "a wrong one").unwrap();
    let far = format!(
        "[[key_managers]]\nname = \"far\"\nconnector = \"http\"\nissuer = \"{url}\"\nendpoint = \"{url}\"\n\
         token = {{ file = \"{}\" }}\ndiscovery = false\nvalidation = \"introspect\"\ntoken_pattern = \"far-.*\"\n\
         startup = \"optional\"\n",
        secret.display(),
        url = outside.url
    );
    let gate = Gate::start(|ports| place.config(ports, "", &far));
    let scopes = || ask(place.port, &place.key(), "GET", "/v1/key-managers/far/scopes", &Value::Null).status;
    assert_eq!(scopes(), 502);
    std::fs::write(&secret, SECRET).unwrap();
    gate.signal("HUP");
    gate.wait_for("the new secret", || scopes() == 200);
}

/// The connector at `url`.
fn manager(url: &str, secret: &str) -> Arc<dyn KeyManager> {
    let settings: KeyManagerSettings = serde_json::from_value(json!({
        "name": "outside", "connector": "http", "issuer": "http://127.0.0.1:1", "endpoint": url, "token": secret,
    }))
    .unwrap();
    manager_of(&settings)
}

#[test]
fn what_it_cannot_do_is_known_once_it_was_asked() {
    block_on(async {
        let outside = Outside::start().await;
        outside.cannot("getUserClaims", "there are no users");
        let manager = manager(&outside.url, SECRET);
        assert_eq!(manager.cannot(Operation::UserClaims), None, "nobody has asked");
        manager.learn().await.unwrap();
        assert_eq!(manager.cannot(Operation::UserClaims).as_deref(), Some("there are no users"));
    });
}

#[test]
fn a_connector_outside_conforms_and_is_asked_what_the_document_says() {
    block_on(async {
        let outside = Outside::start().await;
        let manager = manager(&outside.url, SECRET);
        conforms(Arc::clone(&manager), &world()).await;
        assert_eq!(outside.wrong(), [] as [String; 0]);
        let mut due = outside::operations();
        // What the gate asks about tokens, not the Key Manager.
        due.remove("introspect");
        assert_eq!(outside.asked(), due, "each operation of the document");
        assert_eq!(outside.clients(), [] as [String; 0], "nothing is left");
        assert_eq!(outside.times("capabilities"), 1, "believed for a minute");
    });
}

fn world() -> World {
    let claims = [("email", "ada@example.com"), ("given_name", "Ada")];
    World {
        user: Some(User {
            name: USER.into(),
            password: Some(PASSWORD.into()),
            claims: BTreeMap::from(claims.map(|(name, value)| (name.into(), value.into()))),
        }),
        takes_ids: true,
        tells_all: true,
        voids_tokens: true,
        grants_scopes: true,
        binds_registered: true,
        ..World::default()
    }
}

#[test]
fn what_it_cannot_do_it_says_itself() {
    block_on(async {
        let outside = Outside::start().await;
        for operation in Operation::ALL {
            outside.cannot(operation.name(), "there is no way here");
        }
        let manager = manager(&outside.url, SECRET);
        assert_eq!(manager.cannot(Operation::CreateApplication), None, "it has not been asked yet");
        let first = manager.scopes().await;
        let reason = || "there is no way here".into();
        assert_eq!(first, Err(Error::Unsupported { operation: Operation::AllScopes, reason: reason() }));
        assert_eq!(manager.cannot(Operation::CreateApplication), Some(reason()));
        assert_eq!(manager.cannot(Operation::IsScopeExists), Some(reason()), "it is made of reading a scope");
        for own in [Operation::CanHandleToken, Operation::Type, Operation::BuildFromJson] {
            assert_eq!(manager.cannot(own), None, "{own:?} is not its own to refuse");
        }
        conforms(manager, &World::default()).await;
        assert_eq!(outside.asked().into_iter().collect::<Vec<_>>(), ["capabilities"]);
    });
}

#[test]
fn until_it_has_said_what_it_cannot_nothing_is_asked_of_it() {
    block_on(async {
        let outside = Outside::start().await;
        let manager = manager(&outside.url, SECRET);
        for status in [404, 500, 200] {
            outside.answer_once(status, "no JSON");
            let error = manager.scopes().await.unwrap_err();
            assert!(matches!(error, Error::Unreachable(_)), "{status}: {error:?}");
            assert_eq!(manager.cannot(Operation::AllScopes), None);
        }
        assert_eq!(outside.times("getAllScopes"), 0);
        assert_eq!(manager.scopes().await, Ok(Vec::new()), "it is asked again");
        let wrong = self::manager(&outside.url, "another secret").scopes().await.unwrap_err();
        assert!(matches!(&wrong, Error::Credentials(why) if !why.contains("another secret")), "{wrong:?}");
        let nobody = self::manager("http://127.0.0.1:1", SECRET).scopes().await.unwrap_err();
        assert!(matches!(nobody, Error::Unreachable(_)), "{nobody:?}");
    });
}

#[test]
fn its_problems_become_ours() {
    block_on(async {
        let outside = Outside::start().await;
        let manager = manager(&outside.url, SECRET);
        manager.scopes().await.unwrap();
        let rows: [(u16, &str, Error); 8] = [
            (
                501,
                r#"{"code":"unsupported","detail":"not today"}"#,
                Error::Unsupported { operation: Operation::AllScopes, reason: "not today".into() },
            ),
            (400, r#"{"code":"invalid","field":"a.b","detail":"is odd"}"#, Error::invalid("a.b", "is odd")),
            (400, r#"{"code":"invalid","detail":"is odd"}"#, Error::invalid("request", "is odd")),
            (404, r#"{"code":"not_found","detail":"gone"}"#, Error::NotFound("scope")),
            (409, r#"{"code":"conflict","detail":"twice"}"#, Error::Conflict("twice".into())),
            (409, r#"{"code":"conflict","detail":"twice","field":"clientId"}"#, Error::conflict("clientId", "twice")),
            (
                422,
                r#"{"code":"refused","detail":"a policy says no"}"#,
                Error::Refused { status: 422, detail: "a policy says no".into() },
            ),
            (418, r#"{"detail":"of no kind"}"#, Error::Refused { status: 418, detail: "of no kind".into() }),
        ];
        for (status, body, expected) in rows {
            outside.answer_once(status, body);
            assert_eq!(manager.scopes().await, Err(expected), "{body}");
        }
        outside.answer_once(200, r#"[{"key":"a","unknown":1}]"#);
        let error = manager.scopes().await.unwrap_err();
        assert!(matches!(error, Error::Answer(_)), "{error:?}");
        let echo = r#"{"code":"refused","detail":"the bearer was a secret of the connector"}"#;
        outside.answer_once(422, echo);
        let error = manager.scopes().await.unwrap_err().to_string();
        assert!(!error.contains(SECRET) && error.contains("[redacted]"), "{error}");
    });
}

#[test]
fn what_it_may_have_made_without_telling_is_unclear_and_left() {
    block_on(async {
        let outside = Outside::start().await;
        let manager = manager(&outside.url, SECRET);
        let wished = OAuthApplicationInfo { client_id: Some("mine".into()), ..OAuthApplicationInfo::default() };
        manager.create_application(&wished).await.unwrap();
        // What it answers is no client, and whether it made one nobody knows: one of that id was there before.
        for (status, body, asked) in [
            (200, r#"{"clientName":"mine"}"#, &wished),
            (200, "not JSON", &wished),
            (201, "{}", &OAuthApplicationInfo::default()),
        ] {
            outside.answer_once(status, body);
            let error = manager.create_application(asked).await.unwrap_err();
            assert!(matches!(&error, Error::Unclear(why) if matches!(**why, Error::Answer(_))), "{error:?}");
            assert_eq!(outside.clients(), ["mine"], "it is not taken away");
        }
        for body in ["{}", r#"{"secretId":"1"}"#, r#"{"secretId":"","clientSecret":"s"}"#] {
            outside.answer_once(200, body);
            let error = manager.add_secret("mine", &ConsumerSecretRequest::default()).await.unwrap_err();
            assert!(matches!(error, Error::Unclear(_)), "{body}: {error:?}");
        }
    });
}

#[test]
fn reading_is_tried_again_and_making_is_not() {
    block_on(async {
        let outside = Outside::start().await;
        let manager = manager(&outside.url, SECRET);
        manager.scopes().await.unwrap();
        outside.answer_once(503, "");
        assert_eq!(manager.scopes().await, Ok(Vec::new()));
        outside.answer_once(503, "");
        let error = manager.create_application(&OAuthApplicationInfo::default()).await.unwrap_err();
        assert!(error.may_pass(), "{error:?}");
        assert_eq!(outside.clients(), [] as [String; 0]);
        outside.down(Some(500));
        assert!(manager.scopes().await.is_err());
        outside.down(None);
        assert_eq!(manager.scopes().await, Ok(Vec::new()));
    });
}

/// A token of the connector is taken at the gate, where the connector is asked about it, until it is revoked.
#[test]
fn the_gate_asks_it_about_opaque_tokens() {
    let (upstream, outside) = (Backend::start("production"), block_on(Outside::start()));
    let manager = manager(&outside.url, SECRET);
    let client = OAuthApplicationInfo { client_id: Some("shop-web".into()), ..OAuthApplicationInfo::default() };
    let asked = AccessTokenRequest {
        client_id: Some("shop-web".into()),
        scope: vec!["orders:read".into()],
        ..AccessTokenRequest::default()
    };
    let token = block_on(async {
        manager.register_scope(&Scope { key: "orders:read".into(), ..Scope::default() }).await.unwrap();
        manager.create_application(&client).await.unwrap();
        manager.new_access_token(&asked).await.unwrap().access_token.unwrap()
    });
    let config = Config::default().with(&format!(
        "\n[cache]\nintrospection_ttl = \"0\"\n[[key_managers]]\nname = \"main\"\nconnector = \"http\"\n\
         issuer = \"{url}\"\nendpoint = \"{url}/\"\ntoken = \"{SECRET}\"\naudience = [\"orders-api\"]\n\
         validation = \"introspect\"\n{api}{resource}{application}{subscription}",
        url = outside.url,
        api = api("Orders", "/orders", Some("v1"), &format!("upstream = \"{}\"", upstream.url())),
        resource = resource("/items/{id}", "scopes = [\"orders:read\"]"),
        application = application("shop-web", "shop-web", "Unlimited", ""),
        subscription = subscription("shop-web", "Orders:v1", "Unlimited", "UNBLOCKED"),
    ));
    let gate = Gate::start(|ports| config.text(ports));
    let status = |token: &str| {
        let request = Request::get("/orders/v1/items/{m}").bearer(token);
        block_on(gate.send(Via::H1, &request)).status
    };
    assert_eq!(status(token.reveal()), 200);
    assert_eq!(status("nobody-ever-issued-this"), 401);
    block_on(manager.revoke_token(&token)).unwrap();
    assert_eq!(status(token.reveal()), 401, "it is asked each time here");
    assert_eq!(outside.wrong(), [] as [String; 0]);
}

/// For whoever writes a connector: runs the one at `CONNECTOR_URL`, with the secret `CONNECTOR_TOKEN`, through everything
/// that it does not say it cannot do. `CONNECTOR_USER` and `CONNECTOR_PASSWORD` are a user that it has, if any.
///
/// `CONNECTOR_URL=http://127.0.0.1:7000 CONNECTOR_TOKEN=… cargo test --test it any_connector -- --ignored`
#[test]
#[ignore = "asks the connector that the environment names"]
fn any_connector_at_an_address_conforms() {
    let said = |name: &str| std::env::var(name).ok();
    let (url, secret) =
        (said("CONNECTOR_URL").expect("CONNECTOR_URL"), said("CONNECTOR_TOKEN").expect("CONNECTOR_TOKEN"));
    let user =
        said("CONNECTOR_USER").map(|name| User { name, password: said("CONNECTOR_PASSWORD"), claims: BTreeMap::new() });
    let world = World { user, ..self::world() };
    block_on(async {
        let manager = manager(&url, &secret);
        // What it cannot do is known once it has been asked anything.
        let first = manager.retrieve_application("nobody").await.expect_err("there is no such client");
        assert!(matches!(first, Error::NotFound(_) | Error::Unsupported { .. }), "{first:?}");
        conforms(manager, &world).await;
    });
}

/// The process' own means.
pub(super) fn with_means<T>(make: impl FnOnce(Means<'_>) -> T) -> T {
    let (client, clock) = (Client::new().unwrap(), Arc::new(Clock::new()));
    let memory: Arc<dyn Memory> = Arc::new(Passing::default());
    make(Means { client: &client, clock: &clock, memory: &memory })
}

/// The manager that the settings say.
pub(super) fn manager_of(settings: &KeyManagerSettings) -> Arc<dyn KeyManager> {
    with_means(|means| connectors::key_manager(settings, "key_managers[0]", means))
        .unwrap_or_else(|problems| panic!("{problems:?}"))
}
