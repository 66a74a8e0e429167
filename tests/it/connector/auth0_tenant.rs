//! A tenant at Auth0, as the references of its Management API and its Authentication API describe them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::stand_in::{Asked, Said, Tenant, say, say_nothing};
use crate::support::{now, unique};

/// Our own client.
pub(super) const OWN: (&str, &str) = ("tollgate", "tollgate's secret");
pub(super) const AUDIENCE: &str = "https://shop.example/api";

/// The tenant.
#[derive(Default)]
pub(super) struct Domain {
    management: String,
    pub(super) clients: BTreeMap<String, Value>,
    pub(super) grants: Vec<Value>,
    /// Scopes of the one API.
    pub(super) scopes: Vec<Value>,
    /// Our own tokens.
    own: Vec<String>,
}

impl Domain {
    pub(super) fn new(url: &str) -> Self {
        let there = json!({ "value": "there:before", "description": "made by hand" });
        Self { management: format!("{url}/api/v2/"), scopes: vec![there], ..Self::default() }
    }

    /// Our own tokens are good no more.
    pub(super) fn forget_tokens(&mut self) {
        self.own.clear();
    }

    fn token(&mut self, asked: &Asked) -> Option<Said> {
        let said = |name: &str| asked.form.get(name).cloned();
        let (id, secret) = asked.basic().or_else(|| said("client_id").zip(said("client_secret")))?;
        if said("grant_type")? != "client_credentials" {
            return None;
        }
        let (audience, text) = (said("audience")?, format!("token-{}-{}", now(), unique()));
        if (id.as_str(), secret.as_str()) == OWN && audience == self.management {
            self.own.push(text.clone());
            return say(
                200,
                json!({ "access_token": text, "token_type": "Bearer", "expires_in": 86_400, "scope": "read:clients" }),
            );
        }
        if self.clients.get(&id).is_none_or(|client| client["client_secret"] != *secret) {
            return say(401, json!({ "error": "access_denied", "error_description": "Unauthorized" }));
        }
        if !self.grants.iter().any(|grant| grant["client_id"] == *id && grant["audience"] == *audience) {
            let why = format!("Client is not authorized to access \"{audience}\".");
            return say(403, json!({ "error": "access_denied", "error_description": why }));
        }
        say(200, json!({ "access_token": text, "token_type": "Bearer", "expires_in": 86_400 }))
    }

    fn manage(&mut self, method: &str, path: &[&str], asked: &Asked) -> Option<Said> {
        let bearer = asked.authorization.strip_prefix("Bearer ").unwrap_or_default();
        if !self.own.iter().any(|own| own == bearer) {
            return say(401, error(401, "Unauthorized", "Invalid token"));
        }
        match (method, path) {
            ("POST", ["clients"]) => self.create(&asked.json),
            ("DELETE", ["clients", id]) => {
                // For one that is not there too.
                self.clients.remove(*id);
                self.grants.retain(|grant| grant["client_id"] != *id);
                say_nothing(204)
            }
            (method, ["clients", id, more @ ..]) => {
                let Some(client) = self.clients.get_mut(*id) else {
                    return say(404, error(404, "Not Found", "The client does not exist"));
                };
                Self::client(client, method, more, &asked.json)
            }
            (method, ["client-grants", more @ ..]) => self.grant(method, more, asked),
            ("GET", ["resource-servers", AUDIENCE]) => say(200, self.server()),
            ("PATCH", ["resource-servers", AUDIENCE]) => {
                // The identifier cannot be changed, and is not to be sent.
                let body = asked.json.as_object().filter(|body| body.keys().eq(["scopes"]))?;
                self.scopes = body["scopes"].as_array()?.clone();
                say(200, self.server())
            }
            (_, ["resource-servers", _]) => say(404, error(404, "Not Found", "The resource server does not exist")),
            ("GET", ["users", "auth0|1"]) => say(200, user()),
            ("GET", ["users", _]) => say(404, error(404, "Not Found", "The user does not exist.")),
            ("GET", ["users-by-email"]) => {
                let known = asked.query.get("email")? == "ada@example.com";
                say(200, if known { json!([user()]) } else { json!([]) })
            }
            ("GET", ["users"]) => {
                let query =
                    asked.query.get("q").filter(|_| asked.query.get("search_engine").is_some_and(|v| v == "v3"))?;
                say(200, if query == "username:\"ada\"" { json!([user()]) } else { json!([]) })
            }
            _ => None,
        }
    }

    fn create(&mut self, body: &Value) -> Option<Said> {
        if !body.as_object()?.keys().all(|name| CLIENT.contains(&name.as_str())) || body["name"].as_str()?.is_empty() {
            return None;
        }
        let id = format!("auth0client{}", unique());
        let mut client = body.clone();
        client["client_id"] = json!(id);
        client["client_secret"] = json!(secret());
        client["tenant"] = json!("shop");
        self.clients.insert(id, client.clone());
        say(201, client)
    }

    fn client(client: &mut Value, method: &str, more: &[&str], body: &Value) -> Option<Said> {
        match (method, more) {
            ("GET", []) => say(200, client.clone()),
            ("PATCH", []) => {
                let body = body.as_object().filter(|body| body.keys().all(|name| CLIENT.contains(&name.as_str())))?;
                for (name, value) in body {
                    match value.as_object().filter(|_| name == "client_metadata") {
                        // Member by member.
                        Some(members) => {
                            for (name, value) in members {
                                client["client_metadata"][name] = value.clone();
                            }
                        }
                        None => client[name] = value.clone(),
                    }
                }
                say(200, client.clone())
            }
            ("POST", ["rotate-secret"]) => {
                client["client_secret"] = json!(secret());
                say(200, client.clone())
            }
            _ => None,
        }
    }

    fn grant(&mut self, method: &str, more: &[&str], asked: &Asked) -> Option<Said> {
        let place = more.first().map(|id| self.grants.iter().position(|grant| grant["id"] == *id));
        match (method, more, place) {
            ("GET", [], _) => {
                let client = asked.query.get("client_id")?;
                let own: Vec<_> = self.grants.iter().filter(|grant| grant["client_id"] == **client).collect();
                say(200, json!(own))
            }
            ("POST", [], _) => {
                let mut grant = asked.json.clone();
                if grant["audience"] != AUDIENCE {
                    return say(404, error(404, "Not Found", "No such resource server"));
                }
                self.check_scopes(&grant)?;
                grant["id"] = json!(format!("cgr{}", unique()));
                self.grants.push(grant.clone());
                say(201, grant)
            }
            ("PATCH", [_], Some(Some(place))) => {
                self.check_scopes(&asked.json)?;
                self.grants[place]["scope"] = asked.json["scope"].clone();
                say(200, self.grants[place].clone())
            }
            ("DELETE", [_], Some(Some(place))) => {
                self.grants.remove(place);
                say_nothing(204)
            }
            _ => None,
        }
    }

    fn check_scopes(&self, body: &Value) -> Option<()> {
        let known = |key: &Value| self.scopes.iter().any(|scope| scope["value"] == *key);
        body["scope"].as_array()?.iter().all(known).then_some(())
    }

    fn server(&self) -> Value {
        json!({ "id": "rs1", "name": "Shop", "identifier": AUDIENCE, "signing_alg": "RS256", "scopes": self.scopes })
    }
}

impl Tenant for Domain {
    fn answer(&mut self, asked: &Asked) -> Option<Said> {
        match asked.line() {
            ("POST", path) if path == ["oauth", "token"] => self.token(asked),
            (method, path) if path.len() > 2 && path[..2] == ["api", "v2"] => self.manage(method, &path[2..], asked),
            _ => None,
        }
    }
}

fn user() -> Value {
    json!({
        "user_id": "auth0|1", "username": "ada", "email": "ada@example.com", "email_verified": true,
        "identities": [{ "provider": "auth0" }], "app_metadata": { "tier": "gold" },
    })
}

fn secret() -> String {
    format!("s3cret-{}-{}", now(), unique())
}

fn error(status: u16, error: &str, message: &str) -> Value {
    json!({ "statusCode": status, "error": error, "message": message, "errorCode": "some_code" })
}

const CLIENT: [&str; 6] =
    ["name", "app_type", "callbacks", "grant_types", "token_endpoint_auth_method", "client_metadata"];
