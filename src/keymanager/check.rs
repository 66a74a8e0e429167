//! What a request may hold. Every refusal names the field and the limit; what passes is what connectors rely on.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{
    AccessTokenRequest, ApiResource, ConsumerSecretRequest, Error, OAuthApplicationInfo, Operation, Result, Scope,
    whole,
};

/// A name or an id: neither empty nor too long, and no control characters. Ids may hold slashes.
pub fn name(field: &'static str, text: &str) -> Result<()> {
    bounded(field, text, MOST_NAME)?;
    if text.trim().is_empty() { Err(Error::invalid(field, "must not be empty")) } else { Ok(()) }
}

/// The id of a client, an API, a scope or a key manager that is to be: a path names it from then on, so it is none of
/// `words`.
pub fn new_id(field: &'static str, id: &str, words: &[&str]) -> Result<()> {
    match words.contains(&id) {
        true => Err(Error::invalid(field, format!("must be none of {}: a path could not name it", words.join(" ")))),
        false => Ok(()),
    }
}

/// The name of a member of `field`.
fn member(field: &str, name: &str) -> Result<()> {
    if name.chars().count() <= MOST_NAME && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let why = format!("must have members of names of at most {MOST_NAME} characters, without control characters");
    Err(Error::invalid(field.to_owned(), why))
}

/// The name of a member that came unasked for, as it may be told.
pub fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MOST_PRINTED).collect()
}

/// Text of at most `most` characters, without control characters.
pub(super) fn bounded(field: impl Into<String>, text: &str, most: usize) -> Result<()> {
    if text.chars().count() > most {
        return Err(Error::invalid(field.into(), format!("must have at most {most} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(field.into(), "must hold no control characters"));
    }
    Ok(())
}

fn optional(field: &'static str, text: Option<&str>, most: usize) -> Result<()> {
    text.map_or(Ok(()), |text| bounded(field, text, most))
}

/// A client, settled: `N/A`, which leaves alone, is taken out.
pub(super) fn application(mut app: OAuthApplicationInfo, required: &[&str]) -> Result<OAuthApplicationInfo> {
    for (field, text) in [
        ("clientId", &app.client_id),
        ("clientName", &app.client_name),
        ("appOwner", &app.app_owner),
        ("applicationUUID", &app.application_uuid),
    ] {
        text.as_deref().map_or(Ok(()), |text| name(field, text))?;
    }
    app.client_id.as_deref().map_or(Ok(()), |id| new_id("clientId", id, &NO_CLIENTS))?;
    optional("tokenType", app.token_type.as_deref(), 32)?;
    secret("clientSecret", app.client_secret.as_ref().map(super::Sensitive::reveal))?;
    redirect_uris(&app)?;
    parameters(&app.parameters)?;
    no_secret("parameters", &app.parameters)?;
    grants(&app)?;
    attributes(&app)?;
    if app.parameters.get("key_type").is_some_and(|key_type| !key_type.is_string()) {
        return Err(Error::invalid("parameters.key_type", "must be a text"));
    }
    key_type("parameters.key_type", app.parameter("key_type"))?;
    if let Some(value) = app.parameters.get_mut("additionalProperties") {
        let Value::Object(properties) = value else {
            return Err(Error::invalid("parameters.additionalProperties", "must be an object"));
        };
        no_secret("parameters.additionalProperties", properties)?;
        additional(properties)?;
    }
    let properties = app.parameters.get("additionalProperties");
    match required.iter().find(|field| properties.and_then(|all| all.get(**field)).is_none()) {
        Some(field) => {
            Err(Error::invalid(format!("parameters.additionalProperties.{field}"), "is needed by this key manager")
                .coded("901407"))
        }
        None => Ok(app),
    }
}

/// A provider keeps and tells whatever stands there.
fn no_secret(field: &str, members: &Map<String, Value>) -> Result<()> {
    match members.contains_key("client_secret") {
        true => Err(Error::invalid(
            format!("{field}.client_secret"),
            "is a member of the client itself, and kept nowhere else",
        )),
        false => Ok(()),
    }
}

fn redirect_uris(app: &OAuthApplicationInfo) -> Result<()> {
    if app.call_back_url.iter().any(|uris| uris.chars().any(char::is_control)) {
        return Err(Error::invalid("callBackURL", "must hold no control characters"));
    }
    let uris = app.redirect_uris();
    if uris.len() > MOST_ITEMS {
        return Err(Error::invalid("callBackURL", format!("must be at most {MOST_ITEMS} URIs")));
    }
    for uri in uris {
        bounded("callBackURL", uri, MOST_URI)?;
        // RFC 6749 section 3.1.2
        match url::Url::parse(uri) {
            Ok(url) if SCRIPTS.contains(&url.scheme()) => {
                return Err(Error::invalid("callBackURL", "must be no URIs that run or show what they hold"));
            }
            Ok(url) if url.fragment().is_none() => {}
            _ => return Err(Error::invalid("callBackURL", "must be absolute URIs without fragment, parted by commas")),
        }
    }
    Ok(())
}

fn grants(app: &OAuthApplicationInfo) -> Result<()> {
    if app.parameters.get("grant_types").is_some_and(|grants| !grants.is_string()) {
        return Err(Error::invalid("parameters.grant_types", "must be a comma list in a text"));
    }
    let grants = app.list("grant_types");
    if grants.len() > MOST_ITEMS {
        return Err(Error::invalid("parameters.grant_types", format!("must name at most {MOST_ITEMS}")));
    }
    if grants.iter().any(|grant| !grant.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(Error::invalid("parameters.grant_types", "must be visible ASCII characters"));
    }
    let redirected = grants.iter().any(|grant| matches!(*grant, "implicit" | "authorization_code"));
    if redirected && app.redirect_uris().is_empty() {
        return Err(Error::invalid("callBackURL", "is needed by the grants implicit and authorization_code"));
    }
    Ok(())
}

fn attributes(app: &OAuthApplicationInfo) -> Result<()> {
    if app.app_attributes.len() > MOST_ITEMS {
        return Err(Error::invalid("appAttributes", format!("must be at most {MOST_ITEMS}")));
    }
    app.app_attributes.iter().try_for_each(|(key, value)| {
        member("appAttributes", key)?;
        bounded(format!("appAttributes.{key}"), value, MOST_TEXT)
    })
}

/// `PRODUCTION` or `SANDBOX`; without one the former.
pub(super) fn key_type(field: &'static str, key_type: Option<&str>) -> Result<String> {
    match key_type {
        None => Ok("PRODUCTION".into()),
        Some(key_type @ ("PRODUCTION" | "SANDBOX")) => Ok(key_type.into()),
        Some(_) => Err(Error::invalid(field, "must be PRODUCTION or SANDBOX")),
    }
}

fn additional(properties: &mut Map<String, Value>) -> Result<()> {
    properties.retain(|_, value| *value != "N/A");
    for lifetime in LIFETIMES {
        let Some(value) = properties.get(lifetime) else { continue };
        let seconds = integer(value).or_else(|| value.as_str().and_then(digits));
        if !seconds.is_some_and(|seconds| (0..=MOST_LIFETIME).contains(&seconds)) {
            let why = format!("must be whole seconds from 0 to {MOST_LIFETIME}, or \"N/A\", which leaves it alone");
            return Err(Error::invalid(format!("parameters.additionalProperties.{lifetime}"), why));
        }
    }
    for flag in FLAGS {
        let good = |value: &Value| value.is_boolean() || matches!(value.as_str(), Some("true" | "false"));
        if properties.get(flag).is_some_and(|value| !good(value)) {
            let field = format!("parameters.additionalProperties.{flag}");
            return Err(Error::invalid(field, "must be true or false"));
        }
    }
    Ok(())
}

/// A number of seconds that stands in a text.
pub(super) fn digits(text: &str) -> Option<i64> {
    let good = (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    good.then(|| text.parse().ok())?
}

fn integer(value: &Value) -> Option<i64> {
    value.as_number().and_then(whole::of)
}

fn parameters(parameters: &Map<String, Value>) -> Result<()> {
    parameters.iter().try_for_each(|(name, value)| {
        member("parameters", name)?;
        value_of(&format!("parameters.{name}"), value, 0)
    })?;
    count("parameters", parameters.len())
}

fn value_of(field: &str, value: &Value, depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(Error::invalid(field.to_owned(), format!("is nested too deep: at most {DEEPEST} levels")));
    }
    match value {
        Value::String(text) => bounded(field, text, MOST_TEXT),
        Value::Array(items) => {
            count(field, items.len())?;
            items.iter().enumerate().try_for_each(|(at, item)| value_of(&format!("{field}[{at}]"), item, depth + 1))
        }
        Value::Object(members) => {
            count(field, members.len())?;
            members.iter().try_for_each(|(name, inner)| {
                member(field, name)?;
                value_of(&format!("{field}.{name}"), inner, depth + 1)
            })
        }
        _ => Ok(()),
    }
}

fn count(field: &str, count: usize) -> Result<()> {
    if count <= MOST_ITEMS {
        return Ok(());
    }
    Err(Error::invalid(field.to_owned(), format!("must have at most {MOST_ITEMS} members")))
}

/// RFC 6749 appendix A: visible characters and spaces.
fn secret(field: &'static str, secret: Option<&str>) -> Result<()> {
    let good = |text: &str| (1..=MOST_SECRET).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    match secret {
        Some(text) if !good(text) => {
            Err(Error::invalid(field, format!("must be 1 to {MOST_SECRET} visible ASCII characters")))
        }
        _ => Ok(()),
    }
}

/// A secret that comes by itself.
pub(super) fn client_secret(text: Option<&super::Sensitive>) -> Result<()> {
    secret("clientSecret", text.map(super::Sensitive::reveal))
}

/// A token.
pub(super) fn token(field: &'static str, token: &str) -> Result<()> {
    let good = (1..=MOST_TOKEN).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    if good {
        return Ok(());
    }
    Err(Error::invalid(field, format!("must be 1 to {MOST_TOKEN} visible ASCII characters without spaces")))
}

/// What a token is asked for with, settled: −1, WSO2's "the provider's own", is taken out.
pub(super) fn token_request(mut request: AccessTokenRequest, consumer_key: &str) -> Result<AccessTokenRequest> {
    if request.client_id.as_deref().is_some_and(|id| id != consumer_key) {
        return Err(Error::invalid("clientId", "is not the client of the path"));
    }
    request.client_id = Some(consumer_key.to_owned());
    client_secret(request.client_secret.as_ref())?;
    optional("grantType", request.grant_type.as_deref(), MOST_NAME)?;
    optional("callbackURI", request.callback_uri.as_deref(), MOST_URI)?;
    optional("resourceOwnerUsername", request.resource_owner_username.as_deref(), MOST_NAME)?;
    secret("resourceOwnerPassword", request.resource_owner_password.as_ref().map(super::Sensitive::reveal))?;
    for (field, text) in [("refreshToken", &request.refresh_token), ("tokenToRevoke", &request.token_to_revoke)] {
        text.as_ref().map_or(Ok(()), |text| token(field, text.reveal()))?;
    }
    scope_keys("scope", &request.scope)?;
    match request.validity_period {
        Some(-1) => request.validity_period = None,
        Some(seconds) if !(1..=MOST_LIFETIME).contains(&seconds) => {
            let why = format!("must be seconds from 1 to {MOST_LIFETIME}, or -1 for the provider's own");
            return Err(Error::invalid("validityPeriod", why));
        }
        _ => {}
    }
    count("requestParameters", request.request_parameters.len())?;
    for (name, value) in &request.request_parameters {
        member("requestParameters", name)?;
        bounded(format!("requestParameters.{name}"), value, MOST_TOKEN)?;
    }
    Ok(request)
}

/// What one more secret is asked for with.
pub(super) fn secret_request(request: &ConsumerSecretRequest) -> Result<()> {
    client_secret(request.client_secret.as_ref())?;
    for (name, value) in &request.parameters {
        match (name.as_str(), value) {
            ("description", Value::String(text)) => bounded("parameters.description", text, MOST_TEXT)?,
            ("description", _) => return Err(Error::invalid("parameters.description", "must be a text")),
            ("expiresIn", value) if integer(value).is_some_and(|s| (1..=MOST_LIFETIME).contains(&s)) => {}
            ("expiresIn", _) => {
                let why = format!("must be seconds from 1 to {MOST_LIFETIME}; left out, it does not expire");
                return Err(Error::invalid("parameters.expiresIn", why));
            }
            (name, _) => {
                let field = format!("parameters.{}", printable(name));
                return Err(Error::invalid(field, "is unknown: description and expiresIn alone may be there"));
            }
        }
    }
    Ok(())
}

/// A scope's key (RFC 6749 section 3.3).
pub fn scope_key(field: impl Into<Cow<'static, str>>, key: &str) -> Result<()> {
    if is_scope_key(key) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("must be a scope of RFC 6749, of at most {MOST_NAME} characters")))
}

fn is_scope_key(key: &str) -> bool {
    let good = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    (1..=MOST_NAME).contains(&key.len()) && key.bytes().all(good)
}

/// A list of them.
pub(super) fn scope_keys(field: &str, keys: &[String]) -> Result<()> {
    keys_at(field, keys, "")
}

/// A list that has them at `member` of its items.
fn keys_at(field: &str, keys: &[String], member: &str) -> Result<()> {
    count(field, keys.len())?;
    let bad = keys.iter().enumerate().find(|(_, key)| !is_scope_key(key));
    bad.map_or(Ok(()), |(at, key)| scope_key(format!("{field}[{at}]{member}"), key))
}

/// A scope that is to be made.
pub(super) fn new_scope(it: &Scope) -> Result<()> {
    scope(it).and_then(|()| new_id("key", &it.key, &NO_SCOPES))
}

/// A scope.
pub(super) fn scope(scope: &Scope) -> Result<()> {
    scope_key("key", &scope.key)?;
    optional("name", scope.name.as_deref(), MOST_NAME)?;
    optional("description", scope.description.as_deref(), MOST_TEXT)?;
    optional("roles", scope.roles.as_deref(), MOST_TEXT)?;
    optional("id", scope.id.as_deref(), MOST_NAME)?;
    let roles: Vec<&str> = scope.roles.iter().flat_map(|it| it.split(',')).filter(|it| !it.is_empty()).collect();
    roles.iter().try_for_each(|role| bounded("roles", role, MOST_NAME))?;
    count("roles", roles.len())
}

/// What is to be registered of an API. Its id must be one that a list can name (getScopesForAPIS).
pub(super) fn new_resource(it: &ApiResource) -> Result<()> {
    resource(it).and_then(|()| new_id("apiId", &it.api_id, &DOTS))?;
    if it.api_id.contains(',') || it.api_id.starts_with(char::is_whitespace) {
        return Err(Error::invalid("apiId", "must have no comma, and no white space before it"));
    }
    Ok(())
}

/// What is registered of an API.
pub(super) fn resource(resource: &ApiResource) -> Result<()> {
    name("apiId", &resource.api_id)?;
    optional("name", resource.name.as_deref(), MOST_NAME)?;
    optional("id", resource.id.as_deref(), MOST_NAME)?;
    if resource.uris.len() > MOST_URIS {
        return Err(Error::invalid("uris", format!("must be at most {MOST_URIS}")));
    }
    for (at, uri) in resource.uris.iter().enumerate() {
        let field = format!("uris[{at}]");
        if uri.is_empty() {
            return Err(Error::invalid(field, "must not be empty"));
        }
        bounded(field, uri, MOST_URI)?;
    }
    scope_keys("scopes", &resource.scopes)
}

/// Scopes to attach, of which there must be some; to detach, none standing for all; or to bind in place of others.
pub(super) fn bound_scopes(operation: Operation, keys: &[String]) -> Result<()> {
    if operation == Operation::AttachResourceScopes {
        some("scopes", keys)?;
    }
    scope_keys("scopes", keys)
}

/// Scopes that are asked about: at least one, each an object.
pub(super) fn scopes_to_validate(keys: &[String]) -> Result<()> {
    some("scopes", keys).and_then(|()| keys_at("scopes", keys, ".key"))
}

fn some(field: &'static str, keys: &[String]) -> Result<()> {
    if keys.is_empty() { Err(Error::invalid(field, "must name at least one")) } else { Ok(()) }
}

/// What no path can hold, and so names nothing: no API, key manager or user either (RFC 3986 section 5.2.4).
pub const DOTS: [&str; 2] = [".", ".."];
/// What no client may be called: that, and words of the routes.
pub const NO_CLIENTS: [&str; 4] = [DOTS[0], DOTS[1], "map", "parse"];
/// The same of scopes.
pub const NO_SCOPES: [&str; 3] = [DOTS[0], DOTS[1], "validate"];
/// Bytes of a name.
pub const MOST_NAME: usize = 255;
/// Characters that are told of a name that is unknown.
const MOST_PRINTED: usize = 64;
/// Bytes of a text.
pub const MOST_TEXT: usize = 4096;
const MOST_URI: usize = 2048;
const MOST_SECRET: usize = 1024;
/// Bytes of a token: what passes the gate can be asked about and revoked.
pub const MOST_TOKEN: usize = crate::token::MAX_TOKEN;
/// Members of a list or an object.
pub const MOST_ITEMS: usize = 100;
/// Levels of objects and lists in a parameter.
pub const DEEPEST: usize = 4;
const MOST_URIS: usize = 1000;
/// Seconds: what 32 bits hold, as WSO2 has it.
pub const MOST_LIFETIME: i64 = 2_147_483_647;
const LIFETIMES: [&str; 4] = [
    "application_access_token_expiry_time",
    "user_access_token_expiry_time",
    "refresh_token_expiry_time",
    "id_token_expiry_time",
];
/// Where a browser would be led to run them.
const SCRIPTS: [&str; 3] = ["javascript", "data", "vbscript"];
const FLAGS: [&str; 3] = ["pkceMandatory", "pkceSupportPlain", "bypassClientCredentials"];

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
