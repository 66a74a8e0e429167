//! Auth0's clients and scopes as JSON, and what they are to the Key Manager.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::common::{check_placed, setting};
use crate::keymanager::{Error, OAuthApplicationInfo, Result, Scope, Sensitive, split_list};

/// A client.
#[derive(Debug, Deserialize)]
pub(super) struct Client {
    pub(super) client_id: String,
    pub(super) client_secret: Option<Sensitive>,
    name: Option<String>,
    #[serde(default)]
    callbacks: Option<Vec<String>>,
    #[serde(default)]
    grant_types: Option<Vec<String>>,
    token_endpoint_auth_method: Option<String>,
    app_type: Option<String>,
    #[serde(default)]
    client_metadata: Option<Map<String, Value>>,
}

/// That a client may ask for tokens of an API.
#[derive(Debug, Deserialize)]
pub(super) struct Grant {
    pub(super) id: String,
    pub(super) audience: String,
}

impl Client {
    /// As the Key Manager tells it.
    pub(super) fn told(self, with_secret: bool) -> OAuthApplicationInfo {
        let mut parameters = Map::new();
        if let Some(grants) = self.grant_types {
            parameters.insert("grant_types".into(), grants.join(",").into());
        }
        let texts = [("token_endpoint_auth_method", self.token_endpoint_auth_method), ("app_type", self.app_type)];
        for (name, text) in texts {
            text.into_iter().for_each(|text| drop(parameters.insert(name.into(), text.into())));
        }
        let kept = |name: &str| self.client_metadata.as_ref()?.get(name)?.as_str().map(str::to_owned);
        OAuthApplicationInfo {
            client_name: self.name,
            client_secret: self.client_secret.filter(|_| with_secret),
            call_back_url: self.callbacks.filter(|uris| !uris.is_empty()).map(|uris| uris.join(",")),
            parameters,
            app_owner: kept("owner"),
            application_uuid: kept("application_uuid"),
            client_id: Some(self.client_id),
            ..OAuthApplicationInfo::default()
        }
    }
}

/// Wishes that Auth0 does not grant.
pub(super) fn check_wishes(application: &OAuthApplicationInfo) -> Result<()> {
    let wishes = [("clientId", application.client_id.is_some()), ("clientSecret", application.client_secret.is_some())];
    match wishes.into_iter().find(|(_, wished)| *wished) {
        Some((field, _)) => Err(Error::invalid(field, "must be left out: Auth0 chooses it itself")),
        None => Ok(()),
    }
}

/// The client as it is to be sent, where it was `before`. What the application does not say stays as it was.
pub(super) fn body(application: &OAuthApplicationInfo, before: Option<&Client>) -> Result<Value> {
    check_placed(application, "Auth0")?;
    let mut body = Map::new();
    match &application.client_name {
        Some(name) if name.contains(['<', '>']) => {
            return Err(Error::invalid("clientName", "must hold no < and no > at Auth0"));
        }
        Some(name) => drop(body.insert("name".into(), json!(name))),
        None if before.is_none() => return Err(Error::invalid("clientName", "is needed by Auth0")),
        None => {}
    }
    if application.call_back_url.is_some() {
        body.insert("callbacks".into(), json!(application.redirect_uris()));
    }
    let grants = grant_types(application, before);
    let machine = grants.iter().all(|grant| grant == "client_credentials");
    for (name, usual) in [
        ("app_type", if machine { "non_interactive" } else { "regular_web" }),
        ("token_endpoint_auth_method", "client_secret_post"),
    ] {
        let text = setting(application, name).or_else(|| before.is_none().then(|| usual.to_owned()));
        body.extend(text.map(|text| (name.to_owned(), text.into())));
    }
    body.insert("grant_types".into(), json!(grants));
    let mut kept = Map::new();
    for (member, field, text) in [
        ("owner", "appOwner", &application.app_owner),
        ("application_uuid", "applicationUUID", &application.application_uuid),
    ] {
        if let Some(text) = text {
            check_metadata(field, text)?;
            kept.insert(member.into(), json!(text));
        }
    }
    body.insert("client_metadata".into(), kept.into());
    Ok(body.into())
}

/// Those that the application names; else those from before, or what a machine needs.
pub(super) fn grant_types(application: &OAuthApplicationInfo, before: Option<&Client>) -> Vec<String> {
    let named = application.list("grant_types");
    let known = before.and_then(|client| client.grant_types.clone());
    match known.filter(|_| named.is_empty()) {
        Some(before) => before,
        None if named.is_empty() => vec!["client_credentials".into()],
        None => named.into_iter().map(str::to_owned).collect(),
    }
}

/// What is kept as metadata of a client is bounded.
pub(super) fn check_metadata(field: &'static str, text: &str) -> Result<()> {
    match text.chars().count() {
        0..=MOST_OF_METADATA => Ok(()),
        _ => Err(Error::invalid(field, format!("must have at most {MOST_OF_METADATA} characters at Auth0"))),
    }
}

/// The APIs whose tokens a client with these grants may ask for: those it names, or else the key manager's own.
pub(super) fn audiences(application: &OAuthApplicationInfo, grants: &[String], own: Option<&str>) -> Vec<String> {
    if !grants.iter().any(|grant| grant == "client_credentials") {
        return Vec::new();
    }
    match setting(application, "audience_of_api") {
        Some(named) => split_list(&named).into_iter().map(str::to_owned).collect(),
        None => own.map(str::to_owned).into_iter().collect(),
    }
}

/// A scope as it is to be sent. It has no name but its key.
pub(super) fn scope_row(scope: &Scope) -> Result<Map<String, Value>> {
    if scope.roles.as_deref().is_some_and(|roles| !roles.trim().is_empty()) {
        return Err(Error::invalid("roles", "must be left out: Auth0 binds no roles to a scope"));
    }
    let description = scope.description.as_deref().or(scope.name.as_deref()).unwrap_or(&scope.key);
    let members = [("value", scope.key.as_str()), ("description", description)];
    Ok(members.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect())
}

/// Whether it is that scope.
pub(super) fn is(row: &Map<String, Value>, key: &str) -> bool {
    row.get("value").and_then(Value::as_str) == Some(key)
}

/// A scope as the Key Manager tells it.
pub(super) fn scope(row: &Map<String, Value>) -> Result<Scope> {
    let text = |member: &str| row.get(member).and_then(Value::as_str).map(str::to_owned);
    let key = text("value").ok_or_else(|| Error::Answer("a scope has no value".into()))?;
    Ok(Scope { key, description: text("description"), ..Scope::default() })
}

/// Characters of one value.
const MOST_OF_METADATA: usize = 255;
