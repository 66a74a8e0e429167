//! What the connector outside keeps, and what it does with it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{now, unique};

/// Everything it has.
#[derive(Default)]
pub(super) struct Rows {
    clients: BTreeMap<String, Value>,
    /// Secrets by client: id, value, description, end.
    secrets: BTreeMap<String, Vec<(String, String, String, u64)>>,
    tokens: BTreeMap<String, Token>,
    scopes: BTreeMap<String, Value>,
    resources: BTreeMap<String, Value>,
}

#[derive(Clone)]
struct Token {
    id: String,
    client: String,
    user: Option<String>,
    scope: Vec<String>,
    /// Whether it is no refresh token.
    access: bool,
}

/// A problem.
pub(super) struct Refused(pub(super) u16, pub(super) Value);

type Outcome = Result<Value, Refused>;

pub(super) const USER: &str = "ada";
pub(super) const PASSWORD: &str = "ada's password";

impl Rows {
    pub(super) fn client_ids(&self) -> Vec<String> {
        self.clients.keys().cloned().collect()
    }

    /// Does an operation of the document. `null`: 204.
    pub(super) fn serve(&mut self, operation: &str, path: &[&str], apis: &[String], body: Value) -> Outcome {
        let id = path.get(1).copied().unwrap_or_default();
        match path[0] {
            "clients" if path.len() > 1 => there(&self.clients, id, "client")?,
            "resources" if path.len() > 1 => there(&self.resources, id, "resource")?,
            "scopes" if path.len() > 1 => there(&self.scopes, id, "scope")?,
            _ => {}
        }
        match operation {
            "createApplication" => self.create(body),
            "retrieveApplication" => Ok(self.clients[id].clone()),
            "updateApplication" => {
                if body.get("clientSecret").is_some() {
                    return Err(invalid("clientSecret", "is not changed here"));
                }
                self.clients.insert(id.into(), with(body, "clientId", id));
                Ok(self.clients[id].clone())
            }
            "deleteApplication" => {
                self.void_tokens(id);
                self.clients.remove(id);
                Ok(Value::Null)
            }
            "updateApplicationOwner" => {
                let owner = text(&body, "owner")?;
                let client = with(self.clients[id].clone(), "appOwner", &owner);
                self.clients.insert(id.into(), client.clone());
                Ok(client)
            }
            "mapOAuthApplication" => {
                self.prove(id, &body)?;
                Ok(self.clients[id].clone())
            }
            "getActiveTokensByConsumerKey" => Ok(self.live(id).map(|token| json!(token.id)).collect()),
            "getAccessTokenByConsumerKey" => self.live(id).next().map(about).ok_or_else(|| absent("token")),
            "getNewApplicationConsumerSecret" => {
                self.void_tokens(id);
                self.secrets.remove(id);
                Ok(json!({ "clientSecret": self.add_secret(id, None, "", 0).1 }))
            }
            "generateNewApplicationConsumerSecret" => {
                let wish = body.get("clientSecret").and_then(Value::as_str);
                let description = body.pointer("/parameters/description").and_then(Value::as_str).unwrap_or_default();
                let life = body.pointer("/parameters/expiresIn").and_then(Value::as_u64);
                let end = life.map_or(0, |life| now() + life);
                // What is in clear is told to whoever asks: the gate masks it.
                Ok(secret_told(&self.add_secret(id, wish, description, end)))
            }
            "retrieveApplicationConsumerSecrets" => Ok(self.secrets[id].iter().map(secret_told).collect()),
            "deleteApplicationConsumerSecret" => {
                let secrets = self.secrets.get_mut(id).unwrap();
                let place = secrets.iter().position(|secret| secret.0 == path[3]).ok_or_else(|| absent("secret"))?;
                secrets.remove(place);
                Ok(Value::Null)
            }
            "getUserClaims" if id == USER => Ok(json!({ "email": "ada@example.com", "given_name": "Ada" })),
            "getUserClaims" => Err(absent("user")),
            _ if path[0] == "tokens" => self.serve_token(operation, &body),
            _ if path[0] == "scopes" => self.serve_scope(operation, id, body),
            _ => self.serve_resource(operation, id, apis, body),
        }
    }

    /// RFC 7662.
    pub(super) fn introspect(&self, token: &str) -> Value {
        let Some(token) = self.tokens.get(token).filter(|token| token.access) else {
            return json!({ "active": false });
        };
        let subject = token.user.as_ref().unwrap_or(&token.client);
        json!({
            "active": true, "client_id": token.client, "sub": subject, "scope": token.scope.join(" "),
            "iat": now(), "exp": now() + 3600, "aud": "orders-api",
        })
    }

    fn create(&mut self, mut body: Value) -> Outcome {
        let id = body.get("clientId").and_then(Value::as_str).map_or_else(|| format!("c{}", unique()), str::to_owned);
        if self.clients.contains_key(&id) {
            return Err(conflict("clientId", "is there already"));
        }
        let wish = body.as_object_mut().unwrap().remove("clientSecret");
        let client = with(body, "clientId", &id);
        let secret = self.add_secret(&id, wish.as_ref().and_then(Value::as_str), "", 0).1;
        self.clients.insert(id, client.clone());
        Ok(with(client, "clientSecret", &secret))
    }

    fn add_secret(&mut self, id: &str, wish: Option<&str>, about: &str, end: u64) -> (String, String, String, u64) {
        let value = wish.map_or_else(|| format!("secret-{}-{}", now(), unique()), str::to_owned);
        let secret = (format!("s{}", unique()), value, about.to_owned(), end);
        self.secrets.entry(id.into()).or_default().push(secret.clone());
        secret
    }

    fn prove(&self, id: &str, body: &Value) -> Result<(), Refused> {
        let Some(given) = body.get("clientSecret").and_then(Value::as_str) else { return Ok(()) };
        let good = |(_, value, _, end): &(String, String, String, u64)| value == given && (*end == 0 || *end > now());
        let own = self.secrets.get(id).is_some_and(|secrets| secrets.iter().any(good));
        if own { Ok(()) } else { Err(invalid("clientSecret", "is not this client's")) }
    }

    fn live(&self, id: &str) -> impl Iterator<Item = &Token> {
        self.tokens.values().filter(move |token| token.access && token.client == id)
    }

    fn void_tokens(&mut self, id: &str) {
        self.tokens.retain(|_, token| token.client != id);
    }

    fn serve_token(&mut self, operation: &str, body: &Value) -> Outcome {
        if operation == "getNewApplicationAccessToken" {
            return self.issue(body);
        }
        let token = text(body, "token")?;
        match operation {
            "getTokenMetaData" => Ok(match self.tokens.get(&token).filter(|token| token.access) {
                Some(token) => about(token),
                None => json!({ "isTokenValid": false, "errorcode": 900_901 }),
            }),
            "revokeOneTimeToken" => {
                let key = text(body, "consumerKey")?;
                if self.tokens.get(&token).is_some_and(|token| token.client != key) {
                    return Err(invalid("consumerKey", "is not the token's"));
                }
                self.tokens.remove(&token);
                Ok(Value::Null)
            }
            _ => {
                self.tokens.remove(&token);
                Ok(Value::Null)
            }
        }
    }

    fn issue(&mut self, body: &Value) -> Outcome {
        let client = text(body, "clientId")?;
        there(&self.clients, &client, "client")?;
        self.prove(&client, body)?;
        let said = |name: &str| body.get(name).and_then(Value::as_str);
        let grants = self.clients[&client].pointer("/parameters/grant_types").and_then(Value::as_str);
        let grant = said("grantType").unwrap_or("client_credentials");
        if grants.is_some_and(|own| !own.is_empty() && !own.split([',', ' ']).any(|own| own == grant)) {
            return Err(invalid("grantType", "is not one of this client's"));
        }
        let user = match grant {
            "client_credentials" => None,
            "password" if said("resourceOwnerPassword") == Some(PASSWORD) => said("resourceOwnerUsername"),
            "refresh_token" => {
                let token = said("refreshToken").and_then(|token| self.tokens.get(token));
                let token = token.filter(|token| !token.access && token.client == client);
                token.ok_or_else(|| invalid("refreshToken", "is not good"))?.user.as_deref()
            }
            _ => return Err(invalid("resourceOwnerPassword", "is not this user's")),
        };
        let user = user.map(str::to_owned);
        if let Some(before) = said("tokenToRevoke") {
            if self.tokens.get(before).is_some_and(|token| token.client != client) {
                return Err(invalid("tokenToRevoke", "is another client's"));
            }
            self.tokens.remove(before);
        }
        let asked = body["scope"].as_array().cloned().unwrap_or_default();
        let asked = asked.iter().map(|key| key.as_str().unwrap().to_owned());
        let scope: Vec<_> = asked.filter(|key| self.scopes.contains_key(key)).collect();
        let mut keep = |access: bool| {
            let text = format!("token-{}-{}", now(), unique());
            let (client, user, scope) = (client.clone(), user.clone(), scope.clone());
            let token = Token { id: format!("t{}", unique()), client, user, scope, access };
            self.tokens.insert(text.clone(), token.clone());
            (text, token)
        };
        let (text, token) = keep(true);
        let mut told = with(about(&token), "accessToken", &text);
        told["validityPeriod"] = json!(3600);
        if user.is_some() {
            told["refreshToken"] = json!(keep(false).0);
        }
        Ok(told)
    }

    fn serve_scope(&mut self, operation: &str, id: &str, body: Value) -> Outcome {
        match operation {
            "registerScope" => register(&mut self.scopes, "key", body),
            "getAllScopes" => Ok(self.scopes.values().cloned().collect()),
            "getScopeByName" => Ok(self.scopes[id].clone()),
            "updateScope" => {
                self.scopes.insert(id.into(), body.clone());
                Ok(body)
            }
            _ => {
                self.scopes.remove(id);
                for resource in self.resources.values_mut() {
                    resource["scopes"].as_array_mut().unwrap().retain(|key| key != id);
                }
                Ok(Value::Null)
            }
        }
    }

    fn serve_resource(&mut self, operation: &str, id: &str, apis: &[String], body: Value) -> Outcome {
        if operation == "getScopesForAPIS" {
            return self.by_api(apis);
        }
        let named = body["scopes"].as_array().cloned().unwrap_or_default();
        let unknown = named.iter().filter_map(Value::as_str).find(|key| !self.scopes.contains_key(*key));
        if let Some(key) = unknown.filter(|_| operation != "detachResourceScopes") {
            return Err(conflict("scopes", &format!("not registered: {key}")));
        }
        let bound = self.resources.get(id).and_then(|resource| resource["scopes"].as_array().cloned());
        let mut bound = bound.unwrap_or_default();
        match operation {
            "registerNewResource" => {
                return register(&mut self.resources, "apiId", with(body, "id", &format!("r{}", unique())));
            }
            "getResourceByApiId" => return Ok(self.resources[id].clone()),
            "updateRegisteredResource" => {
                let own = self.resources[id]["id"].as_str().unwrap().to_owned();
                self.resources.insert(id.into(), with(body, "id", &own));
                return Ok(self.resources[id].clone());
            }
            "deleteRegisteredResourceByAPIId" => {
                self.resources.remove(id);
                return Ok(Value::Null);
            }
            "attachResourceScopes" => {
                bound.extend(named.into_iter().filter(|key| !bound.contains(key)).collect::<Vec<_>>())
            }
            "updateResourceScopes" => bound = named,
            _ if named.is_empty() => bound.clear(),
            _ => bound.retain(|key| !named.contains(key)),
        }
        self.resources.get_mut(id).unwrap()["scopes"] = bound.into();
        let removed = operation == "detachResourceScopes";
        Ok(if removed { Value::Null } else { self.resources[id].clone() })
    }

    fn by_api(&self, apis: &[String]) -> Outcome {
        let mut told = serde_json::Map::new();
        for api in apis {
            there(&self.resources, api, "resource")?;
            let keys = self.resources[api]["scopes"].as_array().unwrap().iter();
            told.insert(api.clone(), keys.map(|key| self.scopes[key.as_str().unwrap()].clone()).collect());
        }
        Ok(told.into())
    }
}

fn register(table: &mut BTreeMap<String, Value>, field: &str, body: Value) -> Outcome {
    let id = text(&body, field)?;
    if table.contains_key(&id) {
        return Err(conflict(field, "is there already"));
    }
    table.insert(id, body.clone());
    Ok(body)
}

fn about(token: &Token) -> Value {
    let mut told = json!({
        "isTokenValid": true, "isApplicationToken": token.user.is_none(), "consumerKey": token.client,
        "scope": token.scope, "issuedTime": now() * 1000, "validityPeriod": 3_600_000,
    });
    if let Some(user) = &token.user {
        told["endUserName"] = json!(user);
    }
    told
}

fn secret_told(secret: &(String, String, String, u64)) -> Value {
    let (id, value, description, end) = secret;
    let parameters = json!({ "description": description, "expiresAt": end });
    json!({ "secretId": id, "clientSecret": value, "parameters": parameters })
}

fn there(table: &BTreeMap<String, Value>, id: &str, what: &str) -> Result<(), Refused> {
    if table.contains_key(id) { Ok(()) } else { Err(absent(what)) }
}

fn with(mut body: Value, name: &str, text: &str) -> Value {
    body[name] = json!(text);
    body
}

fn text(body: &Value, name: &str) -> Result<String, Refused> {
    let text = body.get(name).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| invalid(name, "is needed"))
}

fn absent(what: &str) -> Refused {
    Refused(404, json!({ "code": "not_found", "detail": format!("there is no such {what}") }))
}

fn invalid(field: &str, why: &str) -> Refused {
    Refused(400, json!({ "code": "invalid", "field": field, "detail": why }))
}

fn conflict(field: &str, why: &str) -> Refused {
    Refused(409, json!({ "code": "conflict", "field": field, "detail": why }))
}
