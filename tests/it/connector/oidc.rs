//! Connector `oidc`: against the embedded provider's own endpoints, and against a stand-in for what that has not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, sync::watch};
use tollgate::{
    authserver::Provider,
    connectors::{self, Means},
    keymanager::{ApiResource, Error, Kept, KeyManager, Memory, OAuthApplicationInfo, Operation, Passing, Result},
    net::{Clock, client::Client},
    store::record::Record,
    token::settings::KeyManagerSettings,
};

use super::{User, World, conforms, resource};
use crate::support::{block_on, unique};

#[test]
fn the_standards_connector_conforms_at_the_embedded_providers_endpoints() {
    block_on(async {
        let (issuer, _stop) = embedded("opaque").await;
        let record = Record::in_memory().unwrap();
        let memory: Arc<dyn Memory> = Arc::new(Kept::new(record, "local"));
        let world = World {
            user: Some(User {
                name: "ada".into(),
                password: Some("l0velace-and-more".into()),
                claims: BTreeMap::new(),
            }),
            tells_all: true,
            voids_tokens: true,
            ..World::default()
        };
        conforms(manager(&issuer, &memory), &world).await;
    });
}

/// A real `oidc-provider`, where there is one: with registration by an initial access token, its management,
/// introspection and revocation on.
#[test]
#[ignore = "needs an oidc-provider, named by TOLLGATE_OIDC_PROVIDER and TOLLGATE_REGISTRATION_TOKEN"]
fn the_standards_connector_conforms_at_a_real_provider() {
    let issuer = std::env::var("TOLLGATE_OIDC_PROVIDER").expect("TOLLGATE_OIDC_PROVIDER: its issuer");
    let token =
        std::env::var("TOLLGATE_REGISTRATION_TOKEN").expect("TOLLGATE_REGISTRATION_TOKEN: its initial access token");
    let settings = json!({"client_id": "tollgate", "client_secret": "tollgate-secret", "registration_token": token});
    let memory: Arc<dyn Memory> = Arc::new(Passing::default());
    let world = World { tells_all: true, ..World::default() };
    block_on(conforms(manager_with(&issuer, &memory, settings), &world));
}

#[test]
fn a_client_mapped_by_hand_is_let_in_and_cannot_be_managed() {
    block_on(async {
        let (issuer, _stop) = embedded("jwt").await;
        let memory: Arc<dyn Memory> = Arc::new(Passing::default());
        let manager = manager(&issuer, &memory);
        let secret = "a secret of the file".into();
        let mapped = manager.map_application("declared", Some(&secret)).await.unwrap();
        assert_eq!(mapped.client_id.as_deref(), Some("declared"));
        let wrong = manager.map_application("declared", Some(&"wrong".into())).await.unwrap_err();
        assert!(matches!(&wrong, Error::Invalid { field, .. } if field == "clientSecret"), "{wrong:?}");
        let owned = manager.update_application_owner("declared", "grace").await.unwrap();
        assert_eq!(owned.app_owner.as_deref(), Some("grace"));
        let refused = manager.retrieve_application("declared").await.unwrap_err();
        let unmanaged = matches!(&refused, Error::Unsupported { operation: Operation::RetrieveApplication, reason }
            if reason.contains("RFC 7592"));
        assert!(unmanaged, "{refused:?}");
    });
}

#[test]
fn what_the_provider_chooses_cannot_be_wished_for() {
    block_on(async {
        let (issuer, _stop) = embedded("jwt").await;
        let memory: Arc<dyn Memory> = Arc::new(Passing::default());
        let wish = OAuthApplicationInfo { client_id: Some("mine".into()), ..OAuthApplicationInfo::default() };
        let refused = manager(&issuer, &memory).create_application(&wish).await.unwrap_err();
        assert!(matches!(&refused, Error::Invalid { field, .. } if field == "clientId"), "{refused:?}");
    });
}

#[test]
fn a_client_that_cannot_be_remembered_is_removed_again() {
    block_on(async {
        let server = StandIn::start(true).await;
        let memory: Arc<dyn Memory> = Arc::new(Forgetful);
        let manager = manager(&server.issuer, &memory);
        let outcome = manager.create_application(&OAuthApplicationInfo::default()).await;
        assert_eq!(outcome, Err(Error::Record("the disk is full".into())));
        assert!(server.state.clients.lock().is_empty(), "it is gone");
        server.state.keeps.store(true, Ordering::SeqCst);
        let outcome = manager.create_application(&OAuthApplicationInfo::default()).await;
        let Err(Error::HalfDone { what, left }) = &outcome else { panic!("{outcome:?}") };
        let id = server.state.clients.lock().keys().next().cloned().unwrap();
        assert!(what.contains("the disk is full") && left.contains(&id), "{what}; {left}");
        assert!(!format!("{outcome:?}").contains("rat-"), "no token is told");
    });
}

#[test]
fn a_registration_access_token_that_changes_is_followed() {
    block_on(async {
        let server = StandIn::start(true).await;
        let memory: Arc<dyn Memory> = Arc::new(Passing::default());
        let manager = manager(&server.issuer, &memory);
        let made = manager.create_application(&OAuthApplicationInfo::default()).await.unwrap();
        let id = made.client_id.unwrap();
        for _ in 0..3 {
            assert!(manager.retrieve_application(&id).await.is_ok(), "each answer brings another token");
        }
        manager.delete_application(&id).await.unwrap();
        assert_eq!(manager.delete_application(&id).await, Err(Error::NotFound("client")));
    });
}

#[test]
fn resources_are_registered_by_uma_where_it_is_announced() {
    block_on(async {
        let server = StandIn::start(true).await;
        let memory: Arc<dyn Memory> = Arc::new(Passing::default());
        let manager = manager(&server.issuer, &memory);
        let asked = ApiResource { scopes: vec!["orders:read".into()], ..resource("orders") };
        let api = asked.api_id.clone();
        let made = manager.register_resource(&asked).await.unwrap();
        assert!(made.id.is_some());
        assert!(matches!(manager.register_resource(&asked).await, Err(Error::Conflict(_))));
        let told = manager.attach_scopes(&api, &["orders:write".into()]).await.unwrap();
        assert_eq!(told.scopes, ["orders:read", "orders:write"]);
        assert_eq!(manager.resource(&api).await.unwrap(), told);
        manager.detach_scopes(&api, &["orders:read".into()]).await.unwrap();
        let all = manager.scopes_for_apis(std::slice::from_ref(&api)).await.unwrap();
        assert_eq!(all[&api].iter().map(|scope| &*scope.key).collect::<Vec<_>>(), ["orders:write"]);
        let replaced = manager.replace_scopes(&api, &["orders:admin".into()]).await.unwrap();
        assert_eq!(replaced.scopes, ["orders:admin"]);
        manager.delete_resource(&api).await.unwrap();
        assert_eq!(manager.resource(&api).await, Err(Error::NotFound("resource")));
        assert!(server.state.resources.lock().is_empty());
        assert_eq!(server.state.tokens.lock().as_slice(), ["uma_protection"], "one token for all calls");
    });
}

#[test]
fn what_is_not_announced_is_told_with_its_name_once_it_is_known() {
    block_on(async {
        let server = StandIn::start(false).await;
        let memory: Arc<dyn Memory> = Arc::new(Passing::default());
        let manager = manager(&server.issuer, &memory);
        let refused = manager.register_resource(&resource("orders")).await.unwrap_err();
        let Error::Unsupported { operation, reason } = refused else { panic!("{refused:?}") };
        assert_eq!(operation, Operation::RegisterNewResource);
        assert!(reason.contains("UMA"), "{reason}");
        assert_eq!(manager.cannot(operation), Some(reason));
    });
}

async fn embedded(form: &str) -> (String, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let issuer = format!("http://{address}");
    let settings: KeyManagerSettings = serde_json::from_value(json!({
        "name": "local", "connector": "embedded", "issuer": issuer, "listen": address.to_string(), "tokens": form,
        "registration": "token", "registration_token": INITIAL, "registration_scopes": ["orders:read"],
        "clients": [{ "id": "declared", "secret": "a secret of the file", "scopes": ["orders:read"] }],
        "users": [{ "name": "ada", "password": "l0velace-and-more", "scopes": ["orders:read"] }],
    }))
    .unwrap();
    let provider = Provider::new(&settings, "key_managers[0]", Arc::new(Clock::new())).unwrap();
    provider.open(Record::in_memory().unwrap(), Arc::default()).unwrap();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(provider.serve(listener, stopped));
    (issuer, stop)
}

fn manager(issuer: &str, memory: &Arc<dyn Memory>) -> Arc<dyn KeyManager> {
    let own = json!({"client_id": "declared", "client_secret": "a secret of the file", "registration_token": INITIAL});
    manager_with(issuer, memory, own)
}

fn manager_with(issuer: &str, memory: &Arc<dyn Memory>, own: Value) -> Arc<dyn KeyManager> {
    let mut settings = json!({"name": "idp", "connector": "oidc", "issuer": issuer});
    settings.as_object_mut().unwrap().extend(own.as_object().cloned().unwrap());
    let settings: KeyManagerSettings = serde_json::from_value(settings).unwrap();
    let (client, clock) = (Client::new().unwrap(), Arc::new(Clock::new()));
    connectors::key_manager(&settings, "key_managers[0]", Means { client: &client, clock: &clock, memory }).unwrap()
}

const INITIAL: &str = "an initial access token";

/// A memory that keeps nothing.
#[derive(Debug)]
struct Forgetful;

#[async_trait]
impl Memory for Forgetful {
    async fn remember(&self, _key: &str, _text: &str) -> Result<()> {
        Err(Error::Record("the disk is full".into()))
    }

    async fn recall(&self, _key: &str) -> Result<Option<String>> {
        Ok(None)
    }

    async fn forget(&self, _key: &str) -> Result<()> {
        Ok(())
    }
}

/// A provider whose registration access tokens are good once, and that may have UMA.
struct StandIn {
    issuer: String,
    state: Arc<Provided>,
}

#[derive(Debug, Default)]
struct Provided {
    base: String,
    /// Registration access tokens, by client.
    clients: Mutex<BTreeMap<String, String>>,
    resources: Mutex<BTreeMap<String, Map<String, Value>>>,
    /// Scopes of the tokens that were asked for.
    tokens: Mutex<Vec<String>>,
    /// Whether it refuses to remove clients.
    keeps: AtomicBool,
}

type Provides = State<Arc<Provided>>;
type Told = (StatusCode, Json<Value>);

impl StandIn {
    async fn start(uma: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Provided { base: issuer.clone(), ..Provided::default() });
        let one = get(read_resource).put(write_resource).delete(remove_resource);
        let mut routes = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/token", post(token))
            .route("/register", post(register))
            .route("/register/{id}", get(read_client).delete(remove_client))
            .route("/resources", post(make_resource))
            .route("/resources/{id}", one);
        if uma {
            routes = routes.route("/.well-known/uma2-configuration", get(metadata));
        }
        let routes = routes.with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { issuer, state }
    }
}

async fn metadata(State(state): Provides) -> Json<Value> {
    let base = &state.base;
    Json(json!({
        "issuer": base, "token_endpoint": format!("{base}/token"), "registration_endpoint": format!("{base}/register"),
        "resource_registration_endpoint": format!("{base}/resources"),
    }))
}

async fn token(State(state): Provides, form: axum::Form<BTreeMap<String, String>>) -> Json<Value> {
    state.tokens.lock().push(form.get("scope").cloned().unwrap_or_default());
    Json(json!({"access_token": "pat", "expires_in": 3600, "token_type": "Bearer"}))
}

fn bearer(headers: &HeaderMap) -> &str {
    headers.get("authorization").and_then(|field| field.to_str().ok()?.strip_prefix("Bearer ")).unwrap_or_default()
}

fn refusal(status: StatusCode) -> Told {
    (status, Json(json!({"error": "refused"})))
}

fn told(state: &Provided, id: &str) -> Value {
    let token = format!("rat-{}", unique());
    state.clients.lock().insert(id.to_owned(), token.clone());
    json!({"client_id": id, "client_secret": format!("s-{id}"), "registration_access_token": token,
        "registration_client_uri": format!("{}/register/{id}", state.base)})
}

async fn register(State(state): Provides, headers: HeaderMap) -> Told {
    if bearer(&headers) != INITIAL {
        return refusal(StatusCode::UNAUTHORIZED);
    }
    (StatusCode::CREATED, Json(told(&state, &format!("c{}", unique()))))
}

fn holds(state: &Provided, id: &str, headers: &HeaderMap) -> bool {
    state.clients.lock().get(id).is_some_and(|token| token == bearer(headers))
}

async fn read_client(State(state): Provides, Path(id): Path<String>, headers: HeaderMap) -> Told {
    match holds(&state, &id, &headers) {
        true => (StatusCode::OK, Json(told(&state, &id))),
        false => refusal(StatusCode::UNAUTHORIZED),
    }
}

async fn remove_client(State(state): Provides, Path(id): Path<String>, headers: HeaderMap) -> Told {
    if state.keeps.load(Ordering::SeqCst) {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR);
    }
    if !holds(&state, &id, &headers) {
        return refusal(StatusCode::UNAUTHORIZED);
    }
    state.clients.lock().remove(&id);
    (StatusCode::OK, Json(Value::Null))
}

async fn make_resource(State(state): Provides, headers: HeaderMap, Json(body): Json<Map<String, Value>>) -> Told {
    if bearer(&headers) != "pat" {
        return refusal(StatusCode::UNAUTHORIZED);
    }
    let id = format!("r{}", unique());
    state.resources.lock().insert(id.clone(), body);
    (StatusCode::CREATED, Json(json!({ "_id": id })))
}

async fn read_resource(State(state): Provides, Path(id): Path<String>) -> Told {
    match state.resources.lock().get(&id) {
        Some(body) => (StatusCode::OK, Json(json!({"_id": id, "resource_scopes": body["resource_scopes"]}))),
        None => refusal(StatusCode::NOT_FOUND),
    }
}

async fn write_resource(State(state): Provides, Path(id): Path<String>, Json(body): Json<Map<String, Value>>) -> Told {
    match state.resources.lock().get_mut(&id) {
        Some(known) => {
            *known = body;
            (StatusCode::OK, Json(json!({ "_id": id })))
        }
        None => refusal(StatusCode::NOT_FOUND),
    }
}

async fn remove_resource(State(state): Provides, Path(id): Path<String>) -> StatusCode {
    match state.resources.lock().remove(&id) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}
