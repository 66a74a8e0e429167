//! The routes, as one table: from it come the router, who may call, and `/openapi.json`.

use http::Method;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    access::Need,
    clients::{self, NewSecret, Owner, Secrets},
    platform::{self, AuditPage, Capabilities, KeyManagers, PendingPage},
    route::{Handler, Route},
    scopes::{self, Keys, Outcomes, Scopes, ScopesEverywhere, ToValidate},
    tokens::{self, ActiveTokens, CanHandle, OneTimeToken, Revoked, RevokedPage, Token},
    usage::{self, UsageList},
};
use crate::keymanager::{
    AccessTokenInfo, AccessTokenRequest, ApiResource, ConsumerSecretInfo, ConsumerSecretRequest,
    KeyManagerConfiguration, MapRequest, OAuthApplicationInfo, RevocationRequest, Scope, check,
};

/// Any JSON object: what a connector documents, or WSO2 leaves open.
#[derive(Debug, ToSchema)]
#[schema(value_type = Object)]
#[expect(dead_code, reason = "it only stands for a schema")]
pub(super) struct AnyObject(serde_json::Map<String, serde_json::Value>);

/// A key manager's settings, as the configuration file has them.
#[derive(Debug, ToSchema)]
#[schema(as = KeyManagerSettings, value_type = Object)]
#[expect(dead_code, reason = "it only stands for a schema, which `openapi` takes from the settings themselves")]
pub(super) struct Settings(serde_json::Map<String, Value>);

/// A client as WSO2 writes it loosely.
#[derive(Debug, ToSchema)]
#[schema(value_type = Object)]
#[expect(dead_code, reason = "it only stands for a schema, which is among the `bags`")]
pub(super) struct LooseApplication(serde_json::Map<String, Value>);

/// A token request as WSO2 writes it loosely.
#[derive(Debug, ToSchema)]
#[schema(value_type = Object)]
#[expect(dead_code, reason = "it only stands for a schema, which is among the `bags`")]
pub(super) struct LooseTokenRequest(serde_json::Map<String, Value>);

/// Claims by name.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it only stands for a schema")]
pub(super) struct Claims(std::collections::BTreeMap<String, String>);

macro_rules! run {
    ($handler:path) => {
        |door, ask| Box::pin($handler(door, ask))
    };
}

/// The table.
pub(super) fn routes() -> Vec<Route> {
    let mut routes = key_managers();
    routes.extend(of_clients());
    routes.extend(of_tokens());
    routes.extend(of_scopes());
    routes.extend(of_resources());
    routes.extend(of_all());
    routes
}

fn get(path: &'static str, operation: &'static str, run: Handler) -> Route {
    Route::new(Method::GET, Need::Read, path, operation, run)
}

fn change(method: Method, path: &'static str, operation: &'static str, run: Handler) -> Route {
    Route::new(method, Need::Manage, path, operation, run).changes()
}

/// A POST that reads.
fn ask(path: &'static str, operation: &'static str, run: Handler) -> Route {
    Route::new(Method::POST, Need::Read, path, operation, run)
}

fn key_managers() -> Vec<Route> {
    vec![
        get("/v1/key-managers", "listKeyManagers", run!(platform::list)).gives::<KeyManagers>(200).paged(),
        get("/v1/key-managers/{km}", "getKeyManagerConfiguration", run!(platform::read))
            .gives::<KeyManagerConfiguration>(200),
        change(Method::PUT, "/v1/key-managers/{km}", "loadConfiguration", run!(platform::put))
            .takes::<Settings>()
            .narrowed(stored_settings())
            .gives::<KeyManagerConfiguration>(200)
            .gives::<KeyManagerConfiguration>(201)
            .leads(201, "km", "$request.path.km", &["getKeyManagerConfiguration", "capabilities", "deleteKeyManager"])
            .conditional(),
        change(Method::DELETE, "/v1/key-managers/{km}", "deleteKeyManager", run!(platform::delete))
            .empty(204)
            .conditional(),
        get("/v1/key-managers/{km}/capabilities", "capabilities", run!(platform::capabilities))
            .gives::<Capabilities>(200),
        get("/v1/key-managers/{km}/pending", "listPending", run!(platform::pending)).gives::<PendingPage>(200).paged(),
        change(Method::DELETE, "/v1/key-managers/{km}/pending/{id}", "forgetPending", run!(platform::forget))
            .empty(204),
        get("/v1/key-managers/{km}/users/{name}/claims", "getUserClaims", run!(scopes::claims)).gives::<Claims>(200),
    ]
}

/// What cannot be told of the settings of the record: secrets are texts, and no door is opened.
fn stored_settings() -> Value {
    let text = || json!({ "type": ["string", "null"] });
    json!({ "required": ["connector", "issuer"], "properties": {
        "connector": { "not": { "const": "embedded" } },
        "client_secret": text(), "token": text(), "registration_token": text(),
    } })
}

/// An id that paths can name afterwards.
fn nameable(name: &str, words: &[&str]) -> Value {
    json!({ "properties": { name: { "not": { "enum": words } } } })
}

/// The same where it is no matter of the path, and so has to be there.
fn new(name: &str, words: &[&str]) -> Value {
    json!({ "required": [name], "properties": { name: { "not": { "enum": words } } } })
}

fn of_clients() -> Vec<Route> {
    const CLIENT: &str = "/v1/key-managers/{km}/clients/{ck}";
    vec![
        change(Method::POST, "/v1/key-managers/{km}/clients", "createApplication", run!(clients::create))
            .takes::<OAuthApplicationInfo>()
            .narrowed(nameable("clientId", &check::NO_CLIENTS))
            .gives::<OAuthApplicationInfo>(201)
            .leads(201, "ck", "$response.body#/clientId", &OF_CLIENT),
        change(Method::POST, "/v1/key-managers/{km}/clients/map", "mapOAuthApplication", run!(clients::map))
            .takes::<MapRequest>()
            .narrowed(nameable("clientId", &check::NO_CLIENTS))
            .gives::<OAuthApplicationInfo>(200)
            .leads(200, "ck", "$response.body#/clientId", &["retrieveApplication", "deleteMappedApplication"]),
        ask("/v1/key-managers/{km}/clients/parse", "buildFromJSON", run!(clients::parse))
            .takes::<LooseApplication>()
            .gives::<OAuthApplicationInfo>(200),
        get(CLIENT, "retrieveApplication", run!(clients::read)).gives::<OAuthApplicationInfo>(200),
        change(Method::PUT, CLIENT, "updateApplication", run!(clients::update))
            .takes::<OAuthApplicationInfo>()
            .gives::<OAuthApplicationInfo>(200)
            .conditional(),
        change(Method::DELETE, CLIENT, "deleteApplication", run!(clients::delete)).empty(204).conditional(),
        change(Method::PUT, "/v1/key-managers/{km}/clients/{ck}/owner", "updateApplicationOwner", run!(clients::owner))
            .takes::<Owner>()
            .gives::<OAuthApplicationInfo>(200)
            .conditional(),
        change(
            Method::DELETE,
            "/v1/key-managers/{km}/clients/{ck}/mapping",
            "deleteMappedApplication",
            run!(clients::unmap),
        )
        .empty(204)
        .conditional(),
        change(
            Method::POST,
            "/v1/key-managers/{km}/clients/{ck}/secret",
            "getNewApplicationConsumerSecret",
            run!(clients::new_secret),
        )
        .gives::<NewSecret>(200)
        .conditional(),
        change(
            Method::POST,
            "/v1/key-managers/{km}/clients/{ck}/secrets",
            "generateNewApplicationConsumerSecret",
            run!(clients::add_secret),
        )
        .may_take::<ConsumerSecretRequest>()
        .gives::<ConsumerSecretInfo>(201)
        .leads(201, "id", "$response.body#/secretId", &["deleteApplicationConsumerSecret"])
        .conditional(),
        get("/v1/key-managers/{km}/clients/{ck}/secrets", "retrieveApplicationConsumerSecrets", run!(clients::secrets))
            .gives::<Secrets>(200)
            .paged(),
        change(
            Method::DELETE,
            "/v1/key-managers/{km}/clients/{ck}/secrets/{id}",
            "deleteApplicationConsumerSecret",
            run!(clients::delete_secret),
        )
        .empty(204)
        .conditional(),
    ]
}

fn of_tokens() -> Vec<Route> {
    let tokens = |route: Route| Route { need: Need::Tokens, ..route };
    vec![
        tokens(change(
            Method::POST,
            "/v1/key-managers/{km}/clients/{ck}/tokens",
            "getNewApplicationAccessToken",
            run!(tokens::issue),
        ))
        .may_take::<AccessTokenRequest>()
        .proved_by("clientSecret", tokens::has_secret)
        .gives::<AccessTokenInfo>(201),
        get("/v1/key-managers/{km}/clients/{ck}/tokens", "getActiveTokensByConsumerKey", run!(tokens::active))
            .gives::<ActiveTokens>(200)
            .paged(),
        // A provider may show the token itself.
        Route {
            need: Need::Manage,
            ..get("/v1/key-managers/{km}/clients/{ck}/token", "getAccessTokenByConsumerKey", run!(tokens::shown))
        }
        .gives::<AccessTokenInfo>(200),
        ask(
            "/v1/key-managers/{km}/clients/{ck}/token-request",
            "buildAccessTokenRequestFromOAuthApp",
            run!(tokens::request_of),
        )
        .may_take::<OAuthApplicationInfo>()
        .gives::<AccessTokenRequest>(200),
        ask("/v1/key-managers/{km}/tokens/parse", "buildAccessTokenRequestFromJSON", run!(tokens::parse))
            .may_take::<LooseTokenRequest>()
            .gives::<AccessTokenRequest>(200),
        tokens(ask("/v1/key-managers/{km}/tokens/introspect", "getTokenMetaData", run!(tokens::introspect)))
            .takes::<Token>()
            .gives::<AccessTokenInfo>(200),
        tokens(change(Method::POST, "/v1/key-managers/{km}/tokens/revoke", "revokeToken", run!(tokens::revoke)))
            .takes::<Token>()
            .empty(204),
        tokens(change(
            Method::POST,
            "/v1/key-managers/{km}/tokens/revoke-one-time",
            "revokeOneTimeToken",
            run!(tokens::revoke_one_time),
        ))
        .takes::<OneTimeToken>()
        .empty(204),
        ask("/v1/key-managers/{km}/tokens/can-handle", "canHandleToken", run!(tokens::can_handle))
            .takes::<Token>()
            .gives::<CanHandle>(200),
    ]
}

fn of_scopes() -> Vec<Route> {
    const SCOPES: &str = "/v1/key-managers/{km}/scopes";
    const SCOPE: &str = "/v1/key-managers/{km}/scopes/{key}";
    vec![
        change(Method::POST, SCOPES, "registerScope", run!(scopes::register))
            .takes::<Scope>()
            .narrowed(new("key", &check::NO_SCOPES))
            .gives::<Scope>(201)
            .leads(
                201,
                "key",
                "$response.body#/key",
                &["getScopeByName", "isScopeExists", "updateScope", "deleteScope"],
            ),
        get(SCOPES, "getAllScopes", run!(scopes::list)).gives::<AnyObject>(200).paged().asks("api"),
        ask("/v1/key-managers/{km}/scopes/validate", "validateScopes", run!(scopes::validate))
            .takes::<ToValidate>()
            .narrowed(json!({ "properties": { "scopes": { "items": { "required": ["key"] } } } }))
            .gives::<Scopes>(200),
        get(SCOPE, "getScopeByName", run!(scopes::read)).gives::<Scope>(200),
        Route::new(Method::HEAD, Need::Read, SCOPE, "isScopeExists", run!(scopes::exists)).empty(200),
        change(Method::PUT, SCOPE, "updateScope", run!(scopes::update))
            .takes::<Scope>()
            .gives::<Scope>(200)
            .conditional(),
        change(Method::DELETE, SCOPE, "deleteScope", run!(scopes::delete)).empty(204).conditional(),
    ]
}

fn some_scopes() -> Value {
    json!({ "properties": { "scopes": { "minItems": 1 } } })
}

fn of_resources() -> Vec<Route> {
    const RESOURCE: &str = "/v1/key-managers/{km}/resources/{apiId}";
    const BOUND: &str = "/v1/key-managers/{km}/resources/{apiId}/scopes";
    vec![
        change(Method::POST, "/v1/key-managers/{km}/resources", "registerNewResource", run!(scopes::register_resource))
            .takes::<ApiResource>()
            .narrowed(new("apiId", &check::DOTS))
            .gives::<ApiResource>(201)
            .leads(201, "apiId", "$response.body#/apiId", &OF_RESOURCE),
        get(RESOURCE, "getResourceByApiId", run!(scopes::resource)).gives::<ApiResource>(200),
        change(Method::PUT, RESOURCE, "updateRegisteredResource", run!(scopes::update_resource))
            .takes::<ApiResource>()
            .gives::<ApiResource>(200)
            .conditional(),
        change(Method::DELETE, RESOURCE, "deleteRegisteredResourceByAPIId", run!(scopes::delete_resource))
            .empty(204)
            .conditional(),
        change(Method::PUT, BOUND, "attachResourceScopes", run!(scopes::attach))
            .takes::<Keys>()
            .narrowed(some_scopes())
            .gives::<ApiResource>(200)
            .conditional(),
        change(Method::PATCH, BOUND, "updateResourceScopes", run!(scopes::replace))
            .takes::<Keys>()
            .gives::<ApiResource>(200)
            .conditional(),
        change(Method::DELETE, BOUND, "detachResourceScopes", run!(scopes::detach))
            .may_take::<Keys>()
            .narrowed(some_scopes())
            .empty(204)
            .conditional(),
    ]
}

/// What `value` is, and whether there is a `before`, depends on `kind`.
fn revocation() -> Value {
    let name = json!({ "$ref": "#/components/schemas/Name" });
    let of = |kinds: &[&str], value: &Value, before: Value| json!({ "properties": { "kind": { "enum": kinds }, "value": value, "before": before } });
    json!({ "anyOf": [
        of(&["token"], &json!({ "$ref": "#/components/schemas/TokenText" }), json!({ "type": "null" })),
        of(&["jti"], &name, json!({ "type": "null" })),
        of(&["client", "subject"], &name, json!(true)),
    ] })
}

fn of_all() -> Vec<Route> {
    let everywhere = |method, path, operation, run| {
        change(method, path, operation, run).gives::<Outcomes>(200).gives::<Outcomes>(202)
    };
    const SCOPE: &str = "/v1/scopes/{key}";
    const RESOURCE: &str = "/v1/resources/{apiId}";
    const BOUND: &str = "/v1/resources/{apiId}/scopes";
    const REVOCATION: &str = "/v1/revocations/{id}";
    vec![
        everywhere(Method::POST, "/v1/scopes", "registerScopeEverywhere", run!(scopes::register_everywhere))
            .takes::<Scope>()
            .narrowed(new("key", &check::NO_SCOPES))
            .leads(200, "key", "$request.body#/key", &OF_SCOPE_EVERYWHERE),
        get("/v1/scopes", "getAllScopesEverywhere", run!(scopes::list_everywhere))
            .gives::<ScopesEverywhere>(200)
            .paged(),
        get(SCOPE, "getScopeByNameEverywhere", run!(scopes::read_everywhere)).gives::<Outcomes>(200),
        everywhere(Method::PUT, SCOPE, "updateScopeEverywhere", run!(scopes::update_everywhere)).takes::<Scope>(),
        everywhere(Method::DELETE, SCOPE, "deleteScopeEverywhere", run!(scopes::delete_everywhere)),
        everywhere(
            Method::POST,
            "/v1/resources",
            "registerNewResourceEverywhere",
            run!(scopes::register_resource_everywhere),
        )
        .takes::<ApiResource>()
        .narrowed(new("apiId", &check::DOTS))
        .leads(200, "apiId", "$request.body#/apiId", &OF_RESOURCE_EVERYWHERE),
        get(RESOURCE, "getResourceByApiIdEverywhere", run!(scopes::resource_everywhere)).gives::<Outcomes>(200),
        everywhere(
            Method::PUT,
            RESOURCE,
            "updateRegisteredResourceEverywhere",
            run!(scopes::update_resource_everywhere),
        )
        .takes::<ApiResource>(),
        everywhere(
            Method::DELETE,
            RESOURCE,
            "deleteRegisteredResourceByAPIIdEverywhere",
            run!(scopes::delete_resource_everywhere),
        ),
        everywhere(Method::PUT, BOUND, "attachResourceScopesEverywhere", run!(scopes::attach_everywhere))
            .takes::<Keys>()
            .narrowed(some_scopes()),
        everywhere(Method::PATCH, BOUND, "updateResourceScopesEverywhere", run!(scopes::replace_everywhere))
            .takes::<Keys>(),
        everywhere(Method::DELETE, BOUND, "detachResourceScopesEverywhere", run!(scopes::detach_everywhere))
            .may_take::<Keys>()
            .narrowed(some_scopes()),
        get("/v1/revocations", "listRevocations", run!(tokens::refused)).gives::<RevokedPage>(200).paged(),
        Route { need: Need::Tokens, ..change(Method::POST, "/v1/revocations", "revoke", run!(tokens::refuse)) }
            .takes::<RevocationRequest>()
            .narrowed(revocation())
            .gives::<Revoked>(201)
            .leads(201, "id", "$response.body#/id", &["getRevocation", "liftRevocation"]),
        get(REVOCATION, "getRevocation", run!(tokens::revocation)).gives::<Revoked>(200),
        change(Method::DELETE, REVOCATION, "liftRevocation", run!(tokens::lift)).empty(204),
        get("/v1/usage", "listUsage", run!(usage::list))
            .gives::<UsageList>(200)
            .asks("tier")
            .asks("application")
            .asks("api")
            .asks("issuer")
            .asks("subject")
            .paged(),
        get("/v1/audit", "listAudit", run!(platform::audit)).gives::<AuditPage>(200).paged(),
    ]
}

/// What can be done with a client that is there.
const OF_CLIENT: [&str; 11] = [
    "retrieveApplication",
    "updateApplication",
    "deleteApplication",
    "updateApplicationOwner",
    "getNewApplicationConsumerSecret",
    "generateNewApplicationConsumerSecret",
    "retrieveApplicationConsumerSecrets",
    "getNewApplicationAccessToken",
    "getActiveTokensByConsumerKey",
    "getAccessTokenByConsumerKey",
    "buildAccessTokenRequestFromOAuthApp",
];
const OF_RESOURCE: [&str; 6] = [
    "getResourceByApiId",
    "updateRegisteredResource",
    "deleteRegisteredResourceByAPIId",
    "attachResourceScopes",
    "updateResourceScopes",
    "detachResourceScopes",
];
const OF_SCOPE_EVERYWHERE: [&str; 3] = ["getScopeByNameEverywhere", "updateScopeEverywhere", "deleteScopeEverywhere"];
const OF_RESOURCE_EVERYWHERE: [&str; 6] = [
    "getResourceByApiIdEverywhere",
    "updateRegisteredResourceEverywhere",
    "deleteRegisteredResourceByAPIIdEverywhere",
    "attachResourceScopesEverywhere",
    "updateResourceScopesEverywhere",
    "detachResourceScopesEverywhere",
];
