//! An organization at Okta, as its reference describes dynamic client registration, client secrets, authorization
//! server scopes, users and the OAuth endpoints.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::stand_in::{Asked, Said, Tenant, say, say_nothing};
use crate::support::{now, unique};

pub(super) const KEY: &str = "00-an-api-token";
/// Our own client.
pub(super) const OWN: (&str, &str) = ("0oatollgate", "tollgate's secret");
pub(super) const PASSWORD: &str = "ada's password";

/// The organization.
#[derive(Default)]
pub(super) struct Org {
    url: String,
    pub(super) clients: BTreeMap<String, Map<String, Value>>,
    pub(super) secrets: BTreeMap<String, Vec<Value>>,
    tokens: BTreeMap<String, Value>,
    pub(super) scopes: Vec<Value>,
}

impl Org {
    pub(super) fn new(url: &str) -> Self {
        let system = json!({ "id": "scp0", "name": "openid", "system": true, "consent": "IMPLICIT" });
        Self { url: url.into(), scopes: vec![system], ..Self::default() }
    }

    fn manage(&mut self, asked: &Asked) -> Option<Said> {
        if asked.authorization != format!("SSWS {KEY}") {
            return say(401, error("E0000011", "Invalid token provided", &[]));
        }
        match (&*asked.method, asked.line().1.as_slice()) {
            ("POST", ["oauth2", "v1", "clients"]) => self.register(&asked.json),
            (method, ["oauth2", "v1", "clients", id, more @ ..]) => {
                if !self.clients.contains_key(*id) {
                    let why = "Invalid value for 'client_id' parameter.";
                    return say(401, json!({ "error": "invalid_client", "error_description": why }));
                }
                self.client(method, id, more, &asked.json)
            }
            (method, ["api", "v1", "apps", id, "credentials", "secrets", more @ ..]) => {
                if !self.clients.contains_key(*id) {
                    return say(404, error("E0000007", "Not found: Resource not found: (AppInstance)", &[]));
                }
                self.secret(method, id, more, &asked.json)
            }
            (method, ["api", "v1", "authorizationServers", "shop", "scopes", more @ ..]) => {
                self.scope(method, more, asked)
            }
            ("GET", ["api", "v1", "users", "ada"]) => say(
                200,
                json!({
                    "id": "00u1", "status": "ACTIVE", "credentials": { "provider": { "type": "OKTA" } },
                    "profile": { "login": "ada", "email": "ada@example.com", "firstName": "Ada", "mobilePhone": null },
                }),
            ),
            ("GET", ["api", "v1", "users", _]) => {
                say(404, error("E0000007", "Not found: Resource not found: (User)", &[]))
            }
            _ => None,
        }
    }

    fn register(&mut self, body: &Value) -> Option<Said> {
        let known = |name: &&String| METADATA.contains(&name.as_str());
        if !body.as_object()?.keys().all(|name| known(&name)) {
            return None;
        }
        let (kind, grants) = (body["application_type"].as_str()?, body["grant_types"].as_array()?);
        if kind == "service" && grants.iter().any(|grant| grant != "client_credentials") {
            return say(400, json!({ "error": "invalid_client_metadata", "error_description": "grant_types: no" }));
        }
        if self.clients.values().any(|client| client["client_name"] == body["client_name"]) {
            let why = "client_name: An object with this field already exists in the current organization";
            return say(400, json!({ "error": "invalid_client_metadata", "error_description": why }));
        }
        let id = format!("0oa{}", unique());
        let secret = secret(None);
        let mut client = body.as_object()?.clone();
        client.insert("client_id".into(), json!(id));
        client.insert("client_id_issued_at".into(), json!(now()));
        client.insert("client_secret_expires_at".into(), json!(0));
        client.insert("logo_uri".into(), Value::Null);
        self.clients.insert(id.clone(), client.clone());
        client.insert("client_secret".into(), secret["client_secret"].clone());
        self.secrets.insert(id, vec![secret]);
        say(201, client.into())
    }

    fn client(&mut self, method: &str, id: &str, more: &[&str], body: &Value) -> Option<Said> {
        match (method, more) {
            ("GET", []) => say(200, self.clients[id].clone().into()),
            ("PUT", []) => {
                // All of it, and nothing of what only Okta says.
                let all = METADATA.iter().chain(&["client_id", "logo_uri"]).all(|name| body.get(name).is_some());
                let ours = ["client_id_issued_at", "client_secret_expires_at", "client_secret"];
                if !all || body["client_id"] != id || ours.iter().any(|name| body.get(name).is_some()) {
                    return None;
                }
                self.clients.insert(id.into(), body.as_object()?.clone());
                say(200, body.clone())
            }
            ("DELETE", []) => {
                self.clients.remove(id);
                self.secrets.remove(id);
                say_nothing(204)
            }
            ("POST", ["lifecycle", "newSecret"]) => {
                let mut client = self.clients[id].clone();
                let secret = secret(None);
                client.insert("client_secret".into(), secret["client_secret"].clone());
                // The first goes, another stays.
                self.secrets.get_mut(id)?[0] = secret;
                say(200, client.into())
            }
            _ => None,
        }
    }

    fn secret(&mut self, method: &str, id: &str, more: &[&str], body: &Value) -> Option<Said> {
        let secrets = self.secrets.get_mut(id)?;
        let place = more.first().map(|secret| secrets.iter().position(|one| one["id"] == *secret));
        let Some(place) = place.map(|place| place.ok_or(())).transpose().ok() else {
            return say(404, error("E0000007", "Not found: Resource not found: (OAuth2ClientSecret)", &[]));
        };
        match (method, more, place) {
            ("GET", [], _) => say(200, json!(secrets)),
            ("POST", [], _) if secrets.len() == 2 => say(
                400,
                error("E0000001", "Api validation failed: client_secret", &["You can't have more than two secrets"]),
            ),
            ("POST", [], _) => {
                if body["status"] != "ACTIVE" {
                    return None;
                }
                secrets.push(secret(body.get("client_secret").and_then(Value::as_str)));
                say(201, secrets.last()?.clone())
            }
            ("POST", [_, "lifecycle", "deactivate"], Some(place)) => {
                secrets[place]["status"] = json!("INACTIVE");
                say(200, secrets[place].clone())
            }
            ("DELETE", [_], Some(place)) if secrets[place]["status"] == "ACTIVE" => {
                say(400, error("E0000001", "Api validation failed: secret", &["Cannot delete an active secret"]))
            }
            ("DELETE", [_], Some(place)) => {
                secrets.remove(place);
                say_nothing(204)
            }
            _ => None,
        }
    }

    /// A page has two scopes, so that there are several.
    fn scope(&mut self, method: &str, more: &[&str], asked: &Asked) -> Option<Said> {
        let place = more.first().map(|id| self.scopes.iter().position(|scope| scope["id"] == *id)).unwrap_or_default();
        match (method, more, place) {
            ("GET", [], _) => {
                let from = asked.query.get("after").map_or(0, |after| after.parse::<usize>().unwrap());
                let page: Vec<_> = self.scopes.iter().skip(from).take(2).cloned().collect();
                let said = say(200, json!(page))?.link(format!("<{}/elsewhere>; rel=\"self\"", self.url));
                let next = format!("<https://elsewhere.example/scopes?after={}&limit=200>; rel=\"next\"", from + 2);
                Some(if from + 2 < self.scopes.len() { said.link(next) } else { said })
            }
            ("POST", [], _) => {
                let mut scope = asked.json.clone();
                if !scope.as_object()?.keys().all(|name| SCOPE.contains(&name.as_str())) {
                    return None;
                }
                scope["id"] = json!(format!("scp{}", unique()));
                scope["system"] = json!(false);
                scope["_links"] = json!({ "self": {} });
                self.scopes.push(scope.clone());
                say(201, scope)
            }
            ("PUT", [_], Some(place)) if asked.json.get("_links").is_none() => {
                self.scopes[place] = asked.json.clone();
                say(200, asked.json.clone())
            }
            ("DELETE", [_], Some(place)) => {
                self.scopes.remove(place);
                say_nothing(204)
            }
            _ => None,
        }
    }

    fn oauth(&mut self, endpoint: &str, asked: &Asked) -> Option<Said> {
        let (id, given) = asked.basic()?;
        let own = (id.as_str(), given.as_str()) == OWN;
        let live = |one: &Value| one["status"] == "ACTIVE" && one["client_secret"] == *given;
        if !own && !self.secrets.get(&id).is_some_and(|secrets| secrets.iter().any(live)) {
            let why = "The client secret supplied for a confidential client is invalid.";
            return say(401, json!({ "error": "invalid_client", "error_description": why }));
        }
        let said = |name: &str| asked.form.get(name).map(String::as_str);
        match endpoint {
            "token" => {
                let user = match said("grant_type")? {
                    "client_credentials" => None,
                    "password" if said("password") == Some(PASSWORD) => said("username"),
                    "refresh_token" => self.tokens.get(said("refresh_token")?)?["user"].as_str(),
                    _ => return say(400, json!({ "error": "invalid_grant", "error_description": "no" })),
                };
                let user = user.map(str::to_owned);
                let scope = said("scope").unwrap_or_default().to_owned();
                let mut keep = |kind: &str| {
                    let text = format!("{kind}-{}-{}", now(), unique());
                    let row = json!({ "client": id, "user": user, "scope": scope, "kind": kind });
                    self.tokens.insert(text.clone(), row);
                    text
                };
                let mut body =
                    json!({ "token_type": "Bearer", "expires_in": 3600, "access_token": keep("at"), "scope": scope });
                if user.is_some() {
                    body["refresh_token"] = json!(keep("rt"));
                }
                say(200, body)
            }
            "introspect" => {
                let token = self.tokens.get(said("token")?).filter(|token| token["kind"] == "at");
                let Some(token) = token else { return say(200, json!({ "active": false })) };
                let (client, user) = (&token["client"], token["user"].as_str());
                let subject = user.map_or_else(|| client.clone(), |user| json!(user));
                let mut body = json!({
                    "active": true, "client_id": client, "sub": subject, "scope": token["scope"], "token_type": "Bearer",
                    "iat": now(), "exp": now() + 3600, "iss": format!("{}/oauth2/shop", self.url), "aud": "api://shop",
                });
                if let Some(user) = user {
                    body["username"] = json!(user);
                }
                say(200, body)
            }
            "revoke" => {
                let token = said("token")?;
                // Only a client's own tokens; anything else is no error (RFC 7009).
                if self.tokens.get(token).is_some_and(|known| known["client"] == id) {
                    self.tokens.remove(token);
                }
                say_nothing(200)
            }
            _ => None,
        }
    }
}

impl Tenant for Org {
    fn answer(&mut self, asked: &Asked) -> Option<Said> {
        match asked.line() {
            ("POST", path) if path.len() == 4 && path[..3] == ["oauth2", "shop", "v1"] => self.oauth(path[3], asked),
            _ => self.manage(asked),
        }
    }
}

fn secret(wish: Option<&str>) -> Value {
    let value = wish.map_or_else(|| format!("s3cret-{}-{}", now(), unique()), str::to_owned);
    let created = format!("2026-01-01T00:00:00.{:09}Z", unique());
    json!({ "id": format!("ocs{}", unique()), "client_secret": value, "status": "ACTIVE", "created": created })
}

fn error(code: &str, summary: &str, causes: &[&str]) -> Value {
    let causes: Vec<_> = causes.iter().map(|cause| json!({ "errorSummary": cause })).collect();
    json!({ "errorCode": code, "errorSummary": summary, "errorLink": code, "errorId": "oae1", "errorCauses": causes })
}

const METADATA: [&str; 6] =
    ["client_name", "application_type", "redirect_uris", "response_types", "grant_types", "token_endpoint_auth_method"];
const SCOPE: [&str; 5] = ["name", "displayName", "description", "consent", "metadataPublish"];
