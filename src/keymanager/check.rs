//! What a request may hold. Every refusal names the field and the limit; what passes is what connectors rely on.

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
        true => {
            Err(Error::invalid(format!("{field}.client_secret"), "belongs in clientSecret, and is kept nowhere else"))
        }
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
        bounded("appAttributes", key, MOST_NAME)?;
        bounded("appAttributes", value, MOST_TEXT)
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
        bounded("parameters", name, MOST_NAME)?;
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
            items.iter().try_for_each(|item| value_of(field, item, depth + 1))
        }
        Value::Object(members) => {
            count(field, members.len())?;
            members.iter().try_for_each(|(name, member)| {
                bounded(field, name, MOST_NAME)?;
                value_of(&format!("{field}.{name}"), member, depth + 1)
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
        bounded("requestParameters", name, MOST_NAME)?;
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
            _ => return Err(Error::invalid("parameters", "may hold description and expiresIn alone")),
        }
    }
    Ok(())
}

/// A scope's key (RFC 6749 section 3.3).
pub fn scope_key(field: &'static str, key: &str) -> Result<()> {
    let good = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    if (1..=MOST_NAME).contains(&key.len()) && key.bytes().all(good) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("must be a scope of RFC 6749, of at most {MOST_NAME} characters")))
}

pub(super) fn scope_keys(field: &'static str, keys: &[String]) -> Result<()> {
    count(field, keys.len())?;
    keys.iter().try_for_each(|key| scope_key(field, key))
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
    for uri in &resource.uris {
        bounded("uris", uri, MOST_URI)?;
        if uri.is_empty() {
            return Err(Error::invalid("uris", "must not be empty texts"));
        }
    }
    scope_keys("scopes", &resource.scopes)
}

/// Scopes to attach, of which there must be some; to detach, none standing for all; or to bind in place of others.
pub(super) fn bound_scopes(operation: Operation, keys: &[String]) -> Result<()> {
    match operation {
        Operation::AttachResourceScopes => some_scopes(keys),
        _ => scope_keys("scopes", keys),
    }
}

/// Scopes, at least one.
pub(super) fn some_scopes(keys: &[String]) -> Result<()> {
    match keys {
        [] => Err(Error::invalid("scopes", "must name at least one")),
        keys => scope_keys("scopes", keys),
    }
}

/// What no path can hold, and so names nothing: no API, key manager or user either (RFC 3986 section 5.2.4).
pub const DOTS: [&str; 2] = [".", ".."];
/// What no client may be called: that, and words of the routes.
pub const NO_CLIENTS: [&str; 4] = [DOTS[0], DOTS[1], "map", "parse"];
/// The same of scopes.
pub const NO_SCOPES: [&str; 3] = [DOTS[0], DOTS[1], "validate"];
/// Bytes of a name.
pub const MOST_NAME: usize = 255;
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
mod tests {
    use serde_json::json;

    use super::*;

    fn field_of<T: std::fmt::Debug>(outcome: Result<T>) -> String {
        match outcome {
            Err(Error::Invalid { field, .. }) => field.into_owned(),
            outcome => format!("{outcome:?}"),
        }
    }

    #[test]
    fn a_clients_mistakes_are_named_by_field() {
        for (app, field) in [
            (json!({"clientId": ""}), "clientId"),
            (json!({"clientId": "a\u{0}b"}), "clientId"),
            (json!({"clientId": "map"}), "clientId"),
            (json!({"clientId": ".."}), "clientId"),
            (json!({"clientName": "x".repeat(256)}), "clientName"),
            (json!({"clientSecret": "ü"}), "clientSecret"),
            (json!({"callBackURL": "/relative"}), "callBackURL"),
            (json!({"callBackURL": "https://a.example/#f"}), "callBackURL"),
            (json!({"parameters": {"grant_types": ["a"]}}), "parameters.grant_types"),
            (json!({"parameters": {"grant_types": "implicit"}}), "callBackURL"),
            (json!({"parameters": {"grant_types": "authorization_code,refresh_token"}}), "callBackURL"),
            (json!({"parameters": {"key_type": "TEST"}}), "parameters.key_type"),
            (json!({"parameters": {"client_secret": "x"}}), "parameters.client_secret"),
            (
                json!({"parameters": {"additionalProperties": {"client_secret": "x"}}}),
                "parameters.additionalProperties.client_secret",
            ),
            (json!({"callBackURL": "https://a.example/cb,JavaScript:alert(1)"}), "callBackURL"),
            (json!({"callBackURL": "data:text/html,x"}), "callBackURL"),
            (json!({"parameters": {"a": "\u{7}"}}), "parameters.a"),
            (json!({"parameters": {"a": [[[[["x"]]]]]}}), "parameters.a"),
            (json!({"parameters": {"additionalProperties": "x"}}), "parameters.additionalProperties"),
            (
                json!({"parameters": {"additionalProperties": {"refresh_token_expiry_time": -1}}}),
                "parameters.additionalProperties.refresh_token_expiry_time",
            ),
            (
                json!({"parameters": {"additionalProperties": {"pkceMandatory": 1}}}),
                "parameters.additionalProperties.pkceMandatory",
            ),
        ] {
            assert_eq!(field_of(application(serde_json::from_value(app.clone()).unwrap(), &[])), field, "{app}");
        }
        let lacking = application(OAuthApplicationInfo::default(), &["app_type"]);
        assert!(matches!(lacking, Err(Error::Invalid { code: Some("901407"), .. })), "{lacking:?}");
        assert_eq!(field_of(lacking), "parameters.additionalProperties.app_type");
    }

    #[test]
    fn not_applicable_leaves_alone_and_ids_may_hold_slashes() {
        let app = json!({"clientId": "a/b", "callBackURL": "https://a.example/cb", "parameters": {
            "grant_types": ",authorization_code", "additionalProperties": {
                "id_token_expiry_time": "N/A", "user_access_token_expiry_time": "3600"}}});
        let app = application(serde_json::from_value(app).unwrap(), &[]).unwrap();
        let left = app.parameters["additionalProperties"].as_object().unwrap();
        assert_eq!(left.keys().collect::<Vec<_>>(), ["user_access_token_expiry_time"]);
    }

    #[test]
    fn token_requests_are_of_the_paths_client_and_of_no_negative_time() {
        let ask = |request: Value| token_request(serde_json::from_value(request).unwrap(), "a");
        assert_eq!(field_of(ask(json!({"clientId": "b"}))), "clientId");
        for refused in [-3, 0] {
            assert_eq!(field_of(ask(json!({ "validityPeriod": refused }))), "validityPeriod");
        }
        assert_eq!(field_of(ask(json!({"scope": ["a b"]}))), "scope");
        assert_eq!(ask(json!({"validityPeriod": -1})).unwrap().validity_period, None);
    }
}
