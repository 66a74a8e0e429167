//! A client of the embedded provider, from and to WSO2's model.

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::{
    authserver::{ClientInfo, ClientSpec, Lifetimes, NewSecret, Provider},
    keymanager::{Error, OAuthApplicationInfo, Result, split_list},
};

/// What a client is to be.
pub(super) fn spec(application: &OAuthApplicationInfo, provider: &Provider) -> Result<ClientSpec> {
    check_token_type(application.token_type.as_deref(), provider)?;
    let parameters = &application.parameters;
    if parameters.contains_key("client_secret") {
        return Err(Error::invalid("parameters.client_secret", "belongs in clientSecret, and is kept nowhere else"));
    }
    if list(parameters, "response_types")?.is_some_and(|types| !types.is_empty()) {
        let why = "must be empty: the embedded provider has no authorization endpoint";
        return Err(Error::invalid("parameters.response_types", why));
    }
    let properties = additional_properties(parameters)?;
    let scopes = match list(parameters, "scope")? {
        Some(scopes) => Some(scopes),
        None => list(&properties, "application_scopes")?,
    };
    let method = match parameters.get("token_endpoint_auth_method") {
        None | Some(Value::Null) => None,
        Some(Value::String(method)) => Some(method.clone()),
        Some(_) => return Err(Error::invalid("parameters.token_endpoint_auth_method", "must be a text")),
    };
    let mut kept = parameters.clone();
    READ.iter().for_each(|name| drop(kept.remove(*name)));
    Ok(ClientSpec {
        name: application.client_name.clone(),
        redirect_uris: application.redirect_uris().into_iter().map(str::to_owned).collect(),
        grant_types: list(parameters, "grant_types")?.unwrap_or_default(),
        auth_method: method,
        scopes: scopes.filter(|scopes| !scopes.is_empty()),
        owner: application.app_owner.clone(),
        application_uuid: application.application_uuid.clone(),
        token_type: application.token_type.clone(),
        saas: application.is_saas_application,
        attributes: application.app_attributes.clone(),
        parameters: kept,
        lifetimes: lifetimes(&properties)?,
    })
}

/// The secret that a new client is to have.
pub(super) fn first_secret(application: &OAuthApplicationInfo) -> Result<NewSecret> {
    let parameters = &application.parameters;
    let description = match parameters.get(SECRET_DESCRIPTION) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => return Err(Error::invalid("parameters.client_secret_description", "must be a text")),
    };
    let seconds =
        |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok()).filter(|seconds| *seconds > 0);
    let expires_in = match parameters.get(SECRET_EXPIRES_IN) {
        None | Some(Value::Null) => None,
        Some(value) => {
            let wrong = || Error::invalid("parameters.client_secret_expires_in", NOT_SECONDS);
            Some(seconds(value).ok_or_else(wrong)?)
        }
    };
    let secret = application.client_secret.as_ref().map(|secret| Zeroizing::new(secret.reveal().to_owned()));
    Ok(NewSecret { secret, description, expires_in })
}

/// What is asked of a secret is for a new client alone.
pub(super) fn assert_no_secret_wished(application: &OAuthApplicationInfo) -> Result<()> {
    for (name, field) in [
        (SECRET_DESCRIPTION, "parameters.client_secret_description"),
        (SECRET_EXPIRES_IN, "parameters.client_secret_expires_in"),
    ] {
        if application.parameters.get(name).is_some_and(|value| !value.is_null()) {
            return Err(Error::invalid(field, "is for a new client; a change leaves its secrets alone"));
        }
    }
    Ok(())
}

/// What is told of a client; never its secret.
pub(super) fn told(client: ClientInfo) -> OAuthApplicationInfo {
    let spec = client.spec;
    let mut parameters = spec.parameters;
    parameters.insert("grant_types".to_owned(), json!(spec.grant_types.join(",")));
    if let Some(method) = spec.auth_method {
        parameters.insert("token_endpoint_auth_method".to_owned(), json!(method));
    }
    if let Some(scopes) = spec.scopes {
        parameters.insert("scope".to_owned(), json!(scopes.join(" ")));
    }
    OAuthApplicationInfo {
        client_id: Some(client.id),
        client_name: spec.name,
        client_secret: None,
        call_back_url: (!spec.redirect_uris.is_empty()).then(|| spec.redirect_uris.join(",")),
        parameters,
        app_owner: spec.owner,
        application_uuid: spec.application_uuid,
        token_type: spec.token_type,
        is_saas_application: spec.saas,
        app_attributes: spec.attributes,
    }
}

/// All tokens of a provider have one form.
fn check_token_type(token_type: Option<&str>, provider: &Provider) -> Result<()> {
    let why = match (token_type, provider.issues_jwts()) {
        (None | Some("DEFAULT"), _) | (Some("JWT"), true) | (Some("OAUTH"), false) => return Ok(()),
        (Some("JWT"), false) => "JWT is not to be had: the embedded provider issues opaque tokens (its setting tokens)",
        (Some("OAUTH"), true) => "OAUTH is not to be had: the embedded provider issues JWTs (its setting tokens)",
        _ => "must be JWT, DEFAULT or OAUTH",
    };
    Err(Error::invalid("tokenType", why))
}

/// `additionalProperties`: an object, or its text as portals send it.
fn additional_properties(parameters: &Map<String, Value>) -> Result<Map<String, Value>> {
    let properties = match parameters.get("additionalProperties") {
        None | Some(Value::Null) => return Ok(Map::new()),
        Some(Value::Object(properties)) => properties.clone(),
        Some(Value::String(text)) if text.is_empty() => return Ok(Map::new()),
        Some(Value::String(text)) => serde_json::from_str(text)
            .map_err(|_| Error::invalid(PROPERTIES, "must be an object, or the text of one in JSON"))?,
        Some(_) => return Err(Error::invalid(PROPERTIES, "must be an object, or the text of one in JSON")),
    };
    for (name, why) in NOT_HERE {
        let wanted = match properties.get(name) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::String(text)) => !matches!(&**text, "" | "N/A" | "false"),
            Some(_) => true,
        };
        if wanted {
            return Err(Error::invalid(format!("{PROPERTIES}.{name}"), format!("is not to be had: {why}")));
        }
    }
    if properties.contains_key("client_secret") {
        return Err(Error::invalid(
            format!("{PROPERTIES}.client_secret"),
            "belongs in clientSecret, and is kept nowhere else",
        ));
    }
    Ok(properties)
}

fn lifetimes(properties: &Map<String, Value>) -> Result<Lifetimes> {
    let seconds = |name: &str| match properties.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if matches!(&**text, "" | "N/A") => Ok(None),
        Some(Value::String(text)) => text.parse().map(Some).map_err(|_| not_seconds(name)),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| not_seconds(name)),
    };
    Ok(Lifetimes {
        application: seconds("application_access_token_expiry_time")?,
        user: seconds("user_access_token_expiry_time")?,
        refresh: seconds("refresh_token_expiry_time")?,
    })
}

fn not_seconds(name: &str) -> Error {
    Error::invalid(format!("{PROPERTIES}.{name}"), format!("{NOT_SECONDS}, or N/A"))
}

/// A list: of texts, or one text of members parted by commas or spaces.
fn list(parameters: &Map<String, Value>, name: &'static str) -> Result<Option<Vec<String>>> {
    let wrong = || Error::invalid(format!("parameters.{name}"), "must be a text, or a list of texts");
    match parameters.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(split_list(text).into_iter().map(str::to_owned).collect())),
        Some(Value::Array(members)) => {
            let texts = members.iter().map(|member| member.as_str().map(str::to_owned).ok_or_else(wrong));
            texts.collect::<Result<_>>().map(Some)
        }
        Some(_) => Err(wrong()),
    }
}

const NOT_SECONDS: &str = "must be a whole number of seconds, at least 1";
const PROPERTIES: &str = "parameters.additionalProperties";
/// Parameters that stand in fields of their own.
const READ: [&str; 6] =
    ["grant_types", "response_types", "scope", "token_endpoint_auth_method", SECRET_DESCRIPTION, SECRET_EXPIRES_IN];
const SECRET_DESCRIPTION: &str = "client_secret_description";
const SECRET_EXPIRES_IN: &str = "client_secret_expires_in";
/// Properties that promise what there is not.
const NOT_HERE: [(&str, &str); 4] = [
    ("id_token_expiry_time", "no ID tokens are issued"),
    ("pkceMandatory", "there is no authorization endpoint"),
    ("pkceSupportPlain", "there is no authorization endpoint"),
    ("bypassClientCredentials", "a client proves itself by its secret"),
];
