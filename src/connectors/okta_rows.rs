//! Okta's clients, secrets and scopes as JSON, and what they are to the Key Manager.

use http::{HeaderMap, header::LINK};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use super::common::{check_placed, setting};
use crate::keymanager::{ConsumerSecretInfo, Error, OAuthApplicationInfo, Result, Scope, Sensitive, split_list};

/// A client (RFC 7591, and what Okta adds).
#[derive(Debug, Deserialize)]
pub(super) struct Client {
    client_id: String,
    pub(super) client_secret: Option<Sensitive>,
    client_name: Option<String>,
    #[serde(default)]
    redirect_uris: Option<Vec<String>>,
    #[serde(default)]
    grant_types: Option<Vec<String>>,
    #[serde(default)]
    response_types: Option<Vec<String>>,
    token_endpoint_auth_method: Option<String>,
    application_type: Option<String>,
}

/// One of a client's secrets.
#[derive(Debug, Deserialize)]
pub(super) struct Secret {
    pub(super) id: String,
    pub(super) client_secret: Option<Sensitive>,
    status: String,
    #[serde(default)]
    pub(super) created: String,
}

impl Client {
    /// As the Key Manager tells it.
    pub(super) fn told(self, with_secret: bool) -> OAuthApplicationInfo {
        let mut parameters = Map::new();
        let lists = [("grant_types", self.grant_types), ("response_types", self.response_types)];
        for (name, list) in lists {
            list.into_iter().for_each(|list| drop(parameters.insert(name.into(), list.join(",").into())));
        }
        let texts = [
            ("token_endpoint_auth_method", self.token_endpoint_auth_method),
            ("application_type", self.application_type),
        ];
        for (name, text) in texts {
            text.into_iter().for_each(|text| drop(parameters.insert(name.into(), text.into())));
        }
        OAuthApplicationInfo {
            client_id: Some(self.client_id),
            client_name: self.client_name,
            client_secret: self.client_secret.filter(|_| with_secret),
            call_back_url: self.redirect_uris.filter(|uris| !uris.is_empty()).map(|uris| uris.join(",")),
            parameters,
            ..OAuthApplicationInfo::default()
        }
    }
}

impl Secret {
    pub(super) fn is_active(&self) -> bool {
        self.status == "ACTIVE"
    }

    /// As the Key Manager tells it: masked, unless it has just been made.
    pub(super) fn told(self, clear: bool) -> ConsumerSecretInfo {
        let parameters = [("expiresAt", json!(0)), ("status", self.status.into()), ("created", self.created.into())];
        let parameters = parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let client_secret = if clear { self.client_secret } else { Some("********".into()) };
        ConsumerSecretInfo { secret_id: self.id, client_secret, parameters }
    }
}

/// Wishes that Okta does not grant.
pub(super) fn check_wishes(application: &OAuthApplicationInfo) -> Result<()> {
    let wishes = [("clientId", application.client_id.is_some()), ("clientSecret", application.client_secret.is_some())];
    match wishes.into_iter().find(|(_, wished)| *wished) {
        Some((field, _)) => Err(Error::invalid(field, "must be left out: Okta chooses it itself")),
        None => Ok(()),
    }
}

/// The client as it is to be sent, where it was `before`. What the application does not say stays as it was.
pub(super) fn metadata(application: &OAuthApplicationInfo, before: &Map<String, Value>) -> Result<Map<String, Value>> {
    check_placed(application, "Okta")?;
    let mut body = before.clone();
    for ours in ["client_id_issued_at", "client_secret", "client_secret_expires_at"] {
        body.remove(ours);
    }
    if let Some(name) = &application.client_name {
        body.insert("client_name".into(), json!(name));
    } else if !body.contains_key("client_name") {
        return Err(Error::invalid("clientName", "is needed by Okta"));
    }
    if application.call_back_url.is_some() || !body.contains_key("redirect_uris") {
        body.insert("redirect_uris".into(), json!(application.redirect_uris()));
    }
    let mut grants: Vec<String> = application.list("grant_types").into_iter().map(str::to_owned).collect();
    let changed = !grants.is_empty();
    if !changed {
        let before = before.get("grant_types").and_then(Value::as_array).cloned();
        grants = before.map_or_else(
            || vec!["client_credentials".to_owned()],
            |before| before.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        );
    }
    match setting(application, "response_types") {
        Some(list) => drop(body.insert("response_types".into(), json!(split_list(&list)))),
        None if changed || !body.contains_key("response_types") => {
            body.insert("response_types".into(), json!(response_types(&grants)));
        }
        None => {}
    }
    let service = grants.iter().all(|grant| grant == "client_credentials");
    for (name, usual) in [
        ("application_type", if service { "service" } else { "web" }),
        ("token_endpoint_auth_method", "client_secret_basic"),
    ] {
        match setting(application, name) {
            Some(text) => drop(body.insert(name.into(), text.into())),
            None => drop(body.entry(name).or_insert_with(|| usual.into())),
        }
    }
    body.insert("grant_types".into(), json!(grants));
    Ok(body)
}

/// Those that the grants need; a client always has one.
fn response_types(grants: &[String]) -> Vec<&'static str> {
    let mut types = Vec::new();
    let has = |wanted: &str| grants.iter().any(|grant| grant == wanted);
    if has("authorization_code") {
        types.push("code");
    }
    if has("implicit") {
        types.extend(["token", "id_token"]);
    }
    if types.is_empty() {
        types.push("token");
    }
    types
}

/// A scope as it is to be sent, where it was `before`.
pub(super) fn scope_body(scope: &Scope, before: Map<String, Value>) -> Result<Map<String, Value>> {
    if scope.roles.as_deref().is_some_and(|roles| !roles.trim().is_empty()) {
        return Err(Error::invalid("roles", "must be left out: Okta binds no roles to a scope"));
    }
    let mut body = before;
    body.remove("_links");
    body.entry("consent").or_insert_with(|| "IMPLICIT".into());
    body.entry("metadataPublish").or_insert_with(|| "NO_CLIENTS".into());
    body.insert("name".into(), scope.key.clone().into());
    for (member, text) in [("displayName", &scope.name), ("description", &scope.description)] {
        match text {
            Some(text) => drop(body.insert(member.into(), text.clone().into())),
            None => drop(body.remove(member)),
        }
    }
    Ok(body)
}

/// A scope as the Key Manager tells it.
pub(super) fn scope(body: &Map<String, Value>) -> Result<Scope> {
    let text = |member: &str| body.get(member).and_then(Value::as_str).map(str::to_owned);
    let key = text("name").ok_or_else(|| Error::Answer("a scope has no name".into()))?;
    Ok(Scope { key, name: text("displayName"), roles: None, description: text("description"), id: text("id") })
}

/// Where the next page begins (RFC 8288): only the cursor counts, never the address.
pub(super) fn next(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(LINK).into_iter().filter_map(|value| value.to_str().ok());
    let next = links.flat_map(|value| value.split(',')).find(|link| link.contains("rel=\"next\""))?;
    let url = Url::parse(next.split_once('<')?.1.split_once('>')?.0).ok()?;
    url.query_pairs().find(|(name, _)| name == "after").map(|(_, after)| after.into_owned())
}
