//! A stand-in for WSO2 Identity Server: it answers the calls that WSO2's API manager makes, in their recorded shapes,
//! and notes each call that is not of that shape.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use url::form_urlencoded;

use crate::support::{now, unique};

/// The server, in one tenant.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    tenant: Option<&'static str>,
    clients: BTreeMap<String, Row>,
    scopes: BTreeMap<String, Value>,
    tokens: BTreeMap<String, Issued>,
    /// Calls that are not of the recorded shape.
    wrong: Vec<String>,
}

struct Row {
    body: Map<String, Value>,
    secrets: Vec<Secret>,
}

struct Secret {
    id: String,
    value: String,
    description: Value,
    expires_at: u64,
}

#[derive(Clone)]
struct Issued {
    client: String,
    scope: String,
}

/// A call.
struct Call<'c> {
    method: Method,
    /// Below the tenant.
    path: &'c str,
    query: &'c str,
    headers: &'c HeaderMap,
    text: &'c str,
}

impl Server {
    pub(super) async fn start(tenant: Option<&'static str>) -> Self {
        let state = Arc::new(Mutex::new(State { tenant, ..State::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&state);
        let answer = async move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let text = String::from_utf8(body.to_vec()).unwrap();
            shared.lock().answer(method, &uri, &headers, &text)
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Self { address, state }
    }

    /// Calls that were not of the recorded shape.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.state.lock().wrong.clone()
    }
}

impl State {
    fn answer(&mut self, method: Method, uri: &Uri, headers: &HeaderMap, text: &str) -> Response {
        let (full, query) = (uri.path(), uri.query().unwrap_or_default());
        let context = self.tenant.map(|tenant| format!("/t/{tenant}")).unwrap_or_default();
        let path = full.strip_prefix(&context).unwrap_or(full);
        // Tokens and their revocation are below no tenant.
        let of_tenant = !matches!(path, "/oauth2/token" | "/oauth2/revoke");
        if of_tenant && !full.starts_with(&context) {
            self.wrong.push(format!("{method} {full}: not in the tenant"));
        }
        let call = Call { method, path, query, headers, text };
        if of_tenant {
            self.check_caller(&call);
        }
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match *segments.as_slice() {
            ["keymanager-operations", "dcr", "register"] => self.register(&call),
            ["keymanager-operations", "dcr", "register", id, ref rest @ ..] => self.client(&call, id, rest),
            ["keymanager-operations", "user-info", "claims", "generate"] => self.claims(&call),
            ["keymanager-operations", "revoke-one-time-token"] => self.revoke_one_time(&call),
            ["oauth2", "token"] => self.token(&call),
            ["oauth2", "introspect"] => self.introspect(&call),
            ["oauth2", "revoke"] => self.revoke(&call),
            ["api", "identity", "oauth2", "v1.0", "scopes"] => self.scopes(&call),
            ["api", "identity", "oauth2", "v1.0", "scopes", "name", name] => self.scope(&call, name),
            _ => self.is_wrong(&call, "no such path"),
        }
    }

    fn is_wrong(&mut self, call: &Call<'_>, why: &str) -> Response {
        self.wrong.push(format!("{} {}: {why}: {}", call.method, call.path, call.text));
        refusal(400, why)
    }

    fn check_caller(&mut self, call: &Call<'_>) {
        let field = |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok());
        let basic = format!("Basic {}", STANDARD.encode("admin@wso2.com:p@ss:wörd"));
        if field("authorization") != Some(&*basic) {
            self.wrong.push(format!("{} {}: not as the administrator", call.method, call.path));
        }
        if field("x-wso2-tenant") != Some(self.tenant.unwrap_or("carbon.super")) {
            self.wrong.push(format!("{} {}: no tenant in the header", call.method, call.path));
        }
    }

    fn register(&mut self, call: &Call<'_>) -> Response {
        let Some(mut body) = object(call).filter(|_| call.method == Method::POST) else {
            return self.is_wrong(call, "POST with a JSON body is due");
        };
        if let Err(why) = is_client_info(&body, &["token_type_extension"]) {
            return self.is_wrong(call, &why);
        }
        let take = |body: &mut Map<String, Value>, name: &str| body.remove(name)?.as_str().map(str::to_owned);
        let id = take(&mut body, "ext_param_client_id").unwrap_or_else(|| format!("c{}", unique()));
        let secret = take(&mut body, "ext_param_client_secret").unwrap_or_else(|| format!("secret-{}", unique()));
        if self.clients.contains_key(&id) {
            return refusal(409, "the client is there already");
        }
        body.insert("client_id".into(), json!(id));
        let secrets = vec![Secret { id: "first".into(), value: secret, description: Value::Null, expires_at: 0 }];
        let row = Row { body, secrets };
        let told = row.told();
        self.clients.insert(id, row);
        (StatusCode::CREATED, axum::Json(told)).into_response()
    }

    fn client(&mut self, call: &Call<'_>, id: &str, rest: &[&str]) -> Response {
        let Some(id) = decoded(id) else { return self.is_wrong(call, "the id is no base64url with padding") };
        let Some(row) = self.clients.get_mut(&id) else { return refusal(404, "no such client") };
        let get = call.method == Method::GET;
        let (post, delete) = (call.method == Method::POST, call.method == Method::DELETE);
        match rest {
            [] if get => axum::Json(row.told()).into_response(),
            [] if delete => {
                self.clients.remove(&id);
                self.tokens.retain(|_, issued| issued.client != id);
                StatusCode::NO_CONTENT.into_response()
            }
            [] if call.method == Method::PUT => self.change(call, &id),
            ["change-owner"] if post => {
                let mut query = form_urlencoded::parse(call.query.as_bytes()).into_owned();
                let Some((name, owner)) = query.next() else { return self.is_wrong(call, "no owner") };
                if name != "applicationOwner" {
                    return self.is_wrong(call, "no applicationOwner");
                }
                row.body.insert("ext_application_owner".into(), json!(owner));
                axum::Json(row.told()).into_response()
            }
            ["regenerate-consumer-secret"] if post && call.text.is_empty() => {
                let value = format!("secret-{}", unique());
                let secret = Secret { id: "first".into(), value, description: Value::Null, expires_at: 0 };
                row.secrets = vec![secret];
                let told = axum::Json(row.told()).into_response();
                self.tokens.retain(|_, issued| issued.client != id);
                told
            }
            ["generate-secret"] if post => self.add_secret(call, &id),
            ["secrets"] if get => {
                let list: Vec<_> = row.secrets.iter().map(|secret| secret.told(true)).collect();
                axum::Json(json!({"count": list.len(), "list": list})).into_response()
            }
            ["secrets", secret] if delete => {
                let secret = decoded(secret);
                let before = row.secrets.len();
                row.secrets.retain(|known| Some(&known.id) != secret.as_ref());
                if row.secrets.len() == before {
                    refusal(404, "no such secret")
                } else {
                    StatusCode::OK.into_response()
                }
            }
            _ => self.is_wrong(call, "no such call"),
        }
    }

    fn change(&mut self, call: &Call<'_>, id: &str) -> Response {
        let Some(body) = object(call) else { return self.is_wrong(call, "a JSON body is due") };
        if let Err(why) = is_client_info(&body, &["client_id", "token_type_extension"]) {
            return self.is_wrong(call, &why);
        }
        if body.get("client_id").and_then(Value::as_str) != Some(id) {
            return self.is_wrong(call, "client_id is not the client's");
        }
        let Some(row) = self.clients.get_mut(id) else { return refusal(404, "no such client") };
        row.body = body;
        axum::Json(row.told()).into_response()
    }

    fn add_secret(&mut self, call: &Call<'_>, id: &str) -> Response {
        let Some(body) = object(call).filter(|body| has_only(body, &["expires_in", "description", "client_secret"]))
        else {
            return self.is_wrong(call, "expires_in, description and client_secret are due");
        };
        let Some(row) = self.clients.get_mut(id) else { return refusal(404, "no such client") };
        let expires_at = body["expires_in"].as_u64().map_or(0, |seconds| now() + seconds);
        let value = body["client_secret"].as_str().map_or_else(|| format!("secret-{}", unique()), str::to_owned);
        let secret =
            Secret { id: format!("s/{}", unique()), value, description: body["description"].clone(), expires_at };
        let told = secret.told(false);
        row.secrets.push(secret);
        (StatusCode::CREATED, axum::Json(told)).into_response()
    }

    /// The client that says who it is, by header or by form.
    fn caller(&self, call: &Call<'_>, form: &BTreeMap<String, String>) -> Option<String> {
        let basic = call.headers.get("authorization").and_then(|field| field.to_str().ok()?.strip_prefix("Basic "));
        let (id, secret) = match basic {
            Some(pair) => {
                let pair = String::from_utf8(STANDARD.decode(pair).ok()?).ok()?;
                let (id, secret) = pair.split_once(':')?;
                // RFC 6749 section 2.3.1
                let plain = |text: &str| {
                    let text = text.replace('+', " ");
                    percent_decode_str(&text).decode_utf8_lossy().into_owned()
                };
                (plain(id), plain(secret))
            }
            None => (form.get("client_id")?.clone(), form.get("client_secret")?.clone()),
        };
        let good = |known: &Secret| known.value == secret && (known.expires_at == 0 || known.expires_at > now());
        self.clients.get(&id)?.secrets.iter().any(good).then_some(id)
    }

    fn token(&mut self, call: &Call<'_>) -> Response {
        let form = form(call);
        let Some(client) = self.caller(call, &form) else {
            return (StatusCode::UNAUTHORIZED, axum::Json(json!({"error": "invalid_client"}))).into_response();
        };
        let due: &[&str] = match form.get("grant_type").map(String::as_str) {
            Some("client_credentials") => &["grant_type", "scope"],
            Some("urn:ietf:params:oauth:grant-type:token-exchange") => {
                &["client_id", "client_secret", "grant_type", "scope", "subject_token", "subject_token_type"]
            }
            _ => return refusal(400, "no such grant"),
        };
        if form.keys().any(|name| !due.contains(&name.as_str())) {
            return self.is_wrong(call, "an unknown field");
        }
        if form.get("subject_token_type").is_some_and(|kind| kind != "urn:ietf:params:oauth:token-type:jwt") {
            return self.is_wrong(call, "another kind of token than a JWT");
        }
        let scope = form.get("scope").cloned().unwrap_or_default();
        let token = format!("token-{}", unique());
        let told = json!({"access_token": token, "expires_in": 3600, "scope": scope, "token_type": "Bearer"});
        self.tokens.insert(token, Issued { client, scope });
        axum::Json(told).into_response()
    }

    fn introspect(&mut self, call: &Call<'_>) -> Response {
        let form = form(call);
        let Some(token) = form.get("token").filter(|_| form.len() == 1) else {
            return self.is_wrong(call, "token alone is due");
        };
        let Some(issued) = self.tokens.get(token) else {
            return axum::Json(json!({"active": false})).into_response();
        };
        let at = now();
        axum::Json(json!({"active": true, "client_id": issued.client, "exp": at + 3600, "iat": at, "nbf": at,
            "scope": issued.scope, "token_type": "Bearer", "username": "admin@carbon.super", "aut": "APPLICATION"}))
        .into_response()
    }

    fn revoke(&mut self, call: &Call<'_>) -> Response {
        let form = form(call);
        if !form.keys().filter(|name| *name != "token_type_hint").eq(["client_id", "client_secret", "token"]) {
            return self.is_wrong(call, "client_id, client_secret and token are due");
        }
        if self.caller(call, &form).is_none() {
            return refusal(401, "invalid_client");
        }
        self.tokens.remove(&form["token"]);
        StatusCode::OK.into_response()
    }

    fn revoke_one_time(&mut self, call: &Call<'_>) -> Response {
        let Some(body) = object(call).filter(|body| has_only(body, &["token", "consumer_key"]) && body.len() == 2)
        else {
            return self.is_wrong(call, "token and consumer_key are due");
        };
        self.tokens.remove(body["token"].as_str().unwrap_or_default());
        StatusCode::OK.into_response()
    }

    fn scopes(&mut self, call: &Call<'_>) -> Response {
        match call.method {
            Method::GET => axum::Json(self.scopes.values().collect::<Vec<_>>()).into_response(),
            Method::POST => {
                let due = ["name", "displayName", "description", "bindings"];
                let Some(body) = object(call).filter(|body| has_only(body, &due) && body.len() == 4) else {
                    return self.is_wrong(call, "another body is due");
                };
                let name = body["name"].as_str().unwrap_or_default().to_owned();
                if self.scopes.contains_key(&name) {
                    return refusal(409, "the scope is there already");
                }
                self.scopes.insert(name, body.into());
                StatusCode::CREATED.into_response()
            }
            _ => self.is_wrong(call, "no such call"),
        }
    }

    fn scope(&mut self, call: &Call<'_>, name: &str) -> Response {
        let name = percent_decode_str(name).decode_utf8_lossy().into_owned();
        let known = self.scopes.get(&name).cloned();
        if call.method == Method::HEAD && call.query != "includeOIDCScopes=true" {
            return self.is_wrong(call, "includeOIDCScopes is due");
        }
        let Some(known) = known else { return refusal(404, "no such scope") };
        match call.method {
            Method::GET => return axum::Json(known).into_response(),
            Method::HEAD => {}
            Method::DELETE => drop(self.scopes.remove(&name)),
            Method::PUT => {
                let due = ["displayName", "description", "bindings"];
                let Some(mut body) = object(call).filter(|body| has_only(body, &due) && body.len() == 3) else {
                    return self.is_wrong(call, "another body is due, without a name");
                };
                body.insert("name".into(), json!(name));
                self.scopes.insert(name, body.into());
            }
            _ => return self.is_wrong(call, "no such call"),
        }
        StatusCode::OK.into_response()
    }

    fn claims(&mut self, call: &Call<'_>) -> Response {
        let due = ["username", "domain", "dialect", "accessToken", "bindFederatedUserClaims"];
        let Some(body) = object(call).filter(|body| has_only(body, &due) && body.len() == 5) else {
            return self.is_wrong(call, "another body is due");
        };
        let claims = match body["username"].as_str() {
            Some("ada") if body["domain"].is_null() => {
                json!([{"uri": "http://wso2.org/claims/emailaddress", "value": "ada@example.com"}])
            }
            Some("grace") if body["domain"] == "STAFF" => {
                json!([{"uri": "http://wso2.org/claims/emailaddress", "value": "grace@example.com"}])
            }
            _ => json!([]),
        };
        axum::Json(json!({"count": claims.as_array().map(Vec::len), "list": claims})).into_response()
    }
}

impl Row {
    /// As it is told: with several secrets none is.
    fn told(&self) -> Value {
        let mut told = self.body.clone();
        let masked = self.secrets.len() > 1;
        let secret = self.secrets.first().filter(|_| !masked).map_or("********", |secret| &secret.value);
        told.insert("client_secret".into(), json!(secret));
        told.insert("client_secret_expires_at".into(), json!(0));
        told.into()
    }
}

impl Secret {
    fn told(&self, masked: bool) -> Value {
        let value = if masked { "********" } else { &*self.value };
        json!({"id": self.id, "description": self.description, "client_secret": value,
            "client_secret_expires_at": self.expires_at})
    }
}

/// Whether it is what WSO2's API manager says of a client.
fn is_client_info(body: &Map<String, Value>, due: &[&str]) -> Result<(), String> {
    let always = [
        "client_name",
        "application_display_name",
        "grant_types",
        "redirect_uris",
        "ext_application_owner",
        "application_scopes",
    ];
    let sometimes = [
        "ext_param_client_id",
        "ext_param_client_secret",
        "ext_application_token_lifetime",
        "ext_user_token_lifetime",
        "ext_refresh_token_lifetime",
        "ext_id_token_lifetime",
        "pkceMandatory",
        "pkceSupportPlain",
        "bypassClientCredentials",
    ];
    if let Some(missing) = always.iter().chain(due).find(|name| !body.contains_key(**name)) {
        return Err(format!("{missing} is missing"));
    }
    let known = |name: &String| [&always[..], due, &sometimes].concat().contains(&name.as_str());
    if let Some(odd) = body.keys().find(|name| !known(name)) {
        return Err(format!("{odd} is unknown"));
    }
    let lists = ["grant_types", "redirect_uris", "application_scopes"];
    lists.iter().all(|name| body[*name].is_array()).then_some(()).ok_or_else(|| "no list".to_owned())
}

fn has_only(body: &Map<String, Value>, names: &[&str]) -> bool {
    body.keys().all(|name| names.contains(&name.as_str()))
}

fn object(call: &Call<'_>) -> Option<Map<String, Value>> {
    let json = call.headers.get("content-type").is_some_and(|kind| kind == "application/json");
    serde_json::from_str(call.text).ok().filter(|_| json)
}

fn form(call: &Call<'_>) -> BTreeMap<String, String> {
    form_urlencoded::parse(call.text.as_bytes()).into_owned().collect()
}

fn decoded(id: &str) -> Option<String> {
    String::from_utf8(URL_SAFE.decode(percent_decode_str(id).collect::<Vec<_>>()).ok()?).ok()
}

fn refusal(status: u16, why: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, axum::Json(json!({"error": "refused", "error_description": why}))).into_response()
}
