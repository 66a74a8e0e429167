//! WSO2's readers of loose JSON (facts, sections 1, 5 and 6), their traps avoided: id and secret stay apart, and a
//! secret does not end up among the parameters.

use serde_json::{Map, Value};

use super::{AccessTokenRequest, Engine, Error, OAuthApplicationInfo, Result, Sensitive, check, whole};
use crate::problem::Words;

impl Engine {
    /// `buildFromJSON`: `callbackUrl`, `client_id`, `client_secret` become fields, and everything but the secret stays
    /// a parameter too.
    pub fn build_from_json(&self, key_manager: &str, json: Map<String, Value>) -> Result<OAuthApplicationInfo> {
        let managed = self.registry.find(key_manager)?;
        let (url, other_url) = (text(&json, "callbackUrl")?, text(&json, "callback_url")?);
        let url_name = if url.is_none() && other_url.is_some() { "callback_url" } else { "callbackUrl" };
        let mut app = OAuthApplicationInfo {
            client_id: text(&json, "client_id")?,
            client_name: text(&json, "client_name")?,
            client_secret: text(&json, "client_secret")?.map(Sensitive::from),
            call_back_url: url.or(other_url),
            ..OAuthApplicationInfo::default()
        };
        app.parameters = json;
        app.parameters.remove("client_secret");
        check::application(app, managed.connector.required_fields()).map_err(|error| {
            error.spelt(|field| match field {
                "callBackURL" => url_name.to_owned(),
                // The bag is the body itself.
                "parameters" => "body".to_owned(),
                field => field.strip_prefix("parameters.").map_or_else(|| loose(field), str::to_owned),
            })
        })
    }

    /// `buildAccessTokenRequestFromJSON`.
    pub fn request_from_json(&self, key_manager: &str, json: &Map<String, Value>) -> Result<AccessTokenRequest> {
        self.registry.find(key_manager)?;
        // Lost unseen, it would be taken for read.
        if let Some(member) = json.keys().find(|member| !LOOSE.contains(&member.as_str())) {
            return Err(unread(member));
        }
        let mut request = AccessTokenRequest {
            client_id: text(json, "client_id")?,
            client_secret: text(json, "client_secret")?.map(Sensitive::from),
            grant_type: text(json, "grant_type")?,
            validity_period: seconds(json, "validityPeriod", "validityPeriod")?,
            scope: scopes(json, "scope", "scope")?,
            ..AccessTokenRequest::default()
        };
        if let Some(token) = text(json, "subject_token")? {
            check::token("subject_token", &token)?;
            if request.grant_type.as_deref() != Some(TOKEN_EXCHANGE) {
                return Err(Error::invalid("subject_token", format!("is for the grant_type {TOKEN_EXCHANGE} alone")));
            }
            request.request_parameters.insert("subject_token".into(), token);
        }
        let client_id = request.client_id.clone();
        client_id.as_deref().map_or(Ok(()), |id| check::name("client_id", id))?;
        let checked = check::token_request(request, client_id.as_deref().unwrap_or_default())
            .map_err(|error| error.spelt(loose))?;
        Ok(AccessTokenRequest { client_id, ..checked })
    }

    /// `buildAccessTokenRequestFromOAuthApp`; an empty application leaves the request as it is.
    pub fn request_from_application(
        &self,
        key_manager: &str,
        consumer_key: &str,
        app: &OAuthApplicationInfo,
    ) -> Result<AccessTokenRequest> {
        self.registry.find(key_manager)?;
        check::name("ck", consumer_key)?;
        let request = AccessTokenRequest { client_id: Some(consumer_key.to_owned()), ..AccessTokenRequest::default() };
        if *app == OAuthApplicationInfo::default() {
            return Ok(request);
        }
        check::application(app.clone(), &[])?;
        if app.client_id.as_deref().is_some_and(|id| id != consumer_key) {
            return Err(Error::invalid("clientId", "is not the client of the path"));
        }
        if app.client_secret.is_none() {
            return Err(Error::invalid("clientSecret", "is needed"));
        }
        let request = AccessTokenRequest {
            client_secret: app.client_secret.clone(),
            scope: scopes(&app.parameters, "tokenScope", "parameters.tokenScope")?,
            validity_period: seconds(&app.parameters, "validityPeriod", "parameters.validityPeriod")?,
            ..request
        };
        check::token_request(request, consumer_key).map_err(|error| {
            error.spelt(|field| match field {
                "scope" => "parameters.tokenScope".to_owned(),
                "validityPeriod" => "parameters.validityPeriod".to_owned(),
                field => field.to_owned(),
            })
        })
    }
}

/// A field of the models, as the loose forms have it.
fn loose(field: &str) -> String {
    match field {
        "clientId" => "client_id",
        "clientName" => "client_name",
        "clientSecret" => "client_secret",
        "grantType" => "grant_type",
        field => field,
    }
    .to_owned()
}

/// A member that the loose form of a token request does not have.
fn unread(member: &str) -> Error {
    let why = format!("is no member of the loose form, which has {}", LOOSE.join(", "));
    Error::invalid(check::printable(member), why)
}

fn text(json: &Map<String, Value>, field: &'static str) -> Result<Option<String>> {
    match json.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Error::invalid(field, "must be a text")),
    }
}

/// A number, also in a text.
fn seconds(json: &Map<String, Value>, name: &str, field: &'static str) -> Result<Option<i64>> {
    match json.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) if whole::of(number).is_some() => Ok(whole::of(number)),
        Some(Value::String(text)) if text.is_empty() || text == "N/A" => Ok(None),
        Some(Value::String(text)) if text == "-1" => Ok(Some(-1)),
        Some(value) => match value.as_str().and_then(check::digits) {
            Some(number) => Ok(Some(number)),
            None => Err(Error::invalid(field, "must be whole seconds")),
        },
    }
}

fn scopes(members: &Map<String, Value>, name: &str, field: &'static str) -> Result<Vec<String>> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => {
            let keys: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            // A text has no places that could be told.
            keys.iter().try_for_each(|key| check::scope_key(field, key))?;
            Ok(keys)
        }
        Some(Value::Array(items)) => {
            let text = |(at, item): (usize, &Value)| {
                item.as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| Error::invalid(format!("{field}[{at}]"), "must be a text"))
            };
            let keys = items.iter().enumerate().map(text).collect::<Result<Vec<_>>>()?;
            check::scope_keys(field, &keys)?;
            Ok(keys)
        }
        Some(_) => Err(Error::invalid(field, "must be a list of texts, or one with spaces")),
    }
}

/// Which field serde found wrong, below `path`, and why; without the value that it quotes, which may be a secret.
pub fn fault(path: &str, message: &str) -> (String, String) {
    let why = unquoted(message);
    let path = if path == "." { "" } else { path };
    let named = why.strip_prefix("unknown field `").or_else(|| why.strip_prefix("missing field `"));
    let field = match (named.and_then(|rest| rest.split('`').next()), path) {
        (Some(field), "") => field.to_owned(),
        (Some(field), path) if path != field && !path.ends_with(&format!(".{field}")) => format!("{path}.{field}"),
        (None, "") => "body".to_owned(),
        (_, path) => path.to_owned(),
    };
    // Names of members are whatever was sent.
    let printable = |text: String| text.chars().filter(|c| !c.is_control()).collect();
    (printable(field), printable(why))
}

fn unquoted(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or_default();
    match message.rsplit_once(", expected ") {
        Some((_, expected)) if message.starts_with("invalid ") || message.starts_with("unknown variant") => {
            format!("expected {}", Words::JSON.plainly(expected))
        }
        _ => message.to_owned(),
    }
}

/// What WSO2 reads of a token request, and its scopes.
const LOOSE: [&str; 6] = ["client_id", "client_secret", "grant_type", "validityPeriod", "scope", "subject_token"];
/// The grant that is meant where none is named.
pub const CLIENT_CREDENTIALS: &str = "client_credentials";
/// The grant that a `subject_token` is for (RFC 8693).
pub const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_sent_steers_nothing() {
        let told = fault("a.b\u{1b}[31m", "unknown field `c\u{1}\u{85}`, expected one of `d`");
        assert_eq!(told, ("a.b[31m.c".into(), "unknown field `c`, expected one of `d`".into()));
    }

    #[test]
    fn the_field_is_named() {
        for (path, message, field) in [
            (".", "missing field `issuer`", "issuer"),
            ("a", "unknown field `b`, expected `c`", "a.b"),
            ("a.b", "unknown field `b`, expected `c`", "a.b"),
            ("a[1]", "invalid type: null, expected a string", "a[1]"),
            (".", "invalid type: null, expected a map", "body"),
        ] {
            assert_eq!(fault(path, message).0, field, "{message}");
        }
    }

    #[test]
    fn no_value_is_quoted() {
        assert_eq!(
            unquoted("invalid type: string \"s3cret, expected x\", expected u64 at line 1 column 2"),
            "expected a whole number, 0 or more"
        );
        assert_eq!(unquoted("invalid type: integer `5`, expected struct Scope"), "expected an object");
        assert_eq!(unquoted("invalid length 0, expected struct CaFile with 1 element"), "expected an object");
        assert_eq!(unquoted("unknown field `a`, expected one of `b`"), "unknown field `a`, expected one of `b`");
        assert_eq!(unquoted("invalid type: integer `5`, expected string or map"), "expected a text");
    }
}
