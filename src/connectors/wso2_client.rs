//! A client in the words of WSO2 Identity Server's registration for API managers, and in the Key Manager's.

use serde_json::{Map, Value, json};

use super::common::check_placed;
use crate::keymanager::{Error, OAuthApplicationInfo, Result, hex};

/// The registration request; the caller adds what differs between making and changing a client.
pub(super) fn body(application: &OAuthApplicationInfo, owner: &str) -> Result<Map<String, Value>> {
    check_placed(application, "the server")?;
    let none = Map::new();
    let further = match application.parameters.get(ADDITIONAL) {
        None | Some(Value::Null) => &none,
        Some(Value::Object(further)) => further,
        Some(_) => return Err(Error::invalid("parameters.additionalProperties", "must be an object")),
    };
    let uuid = application.application_uuid.as_ref().or(application.client_name.as_ref());
    let uuid =
        uuid.ok_or_else(|| Error::invalid("applicationUUID", "is needed, or clientName: it names the client"))?;
    let kind = match application.parameter("key_type") {
        None | Some("PRODUCTION") => "PRODUCTION",
        Some("SANDBOX") => "SANDBOX",
        Some(_) => return Err(Error::invalid("parameters.key_type", "must be PRODUCTION or SANDBOX")),
    };
    let in_name = owner.replace('@', "-AT-").replace('/', "_");
    let mut body = Map::from_iter([
        ("client_name".into(), json!(format!("{in_name}_{uuid}_{kind}"))),
        ("application_display_name".into(), json!(application.client_name)),
        ("grant_types".into(), json!(application.list("grant_types"))),
        ("redirect_uris".into(), json!(application.redirect_uris())),
        ("ext_application_owner".into(), json!(owner)),
        ("application_scopes".into(), further.get("application_scopes").cloned().unwrap_or_else(|| json!([]))),
    ]);
    for (name, member) in LIFETIMES {
        if let Some(seconds) = further.get(name).map(|value| lifetime(name, value)).transpose()?.flatten() {
            body.insert(member.into(), json!(seconds));
        }
    }
    for name in SWITCHES {
        if let Some(value) = further.get(name) {
            body.insert(name.into(), json!(switch(name, value)?));
        }
    }
    for (name, member) in SECRET {
        if let Some(value) = further.get(name).or_else(|| application.parameters.get(name)) {
            body.insert(member.into(), value.clone());
        }
    }
    Ok(body)
}

/// An id that nobody has, of the characters and the length that the server takes: `[a-zA-Z0-9_]{15,30}`.
pub(super) fn random_id() -> Result<String> {
    let mut random = [0; 14];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::Record("the system gives no random numbers".into()))?;
    Ok(hex(&random))
}

/// The client, without its secret.
pub(super) fn read(told: &Map<String, Value>) -> Result<OAuthApplicationInfo> {
    let text = |name: &str| told.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let list = |name: &str, by: &str| {
        let items = told.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(by)
    };
    let mut further = Map::new();
    for (name, member) in LIFETIMES {
        if let Some(seconds) = told.get(member).and_then(Value::as_i64) {
            // It says -1 where tokens live for ever.
            further.insert(name.into(), json!(if seconds == -1 { FOR_EVER } else { seconds }));
        }
    }
    for name in SWITCHES {
        further.extend(told.get(name).filter(|value| value.is_boolean()).map(|value| (name.into(), value.clone())));
    }
    let mut parameters = Map::from_iter([("grant_types".into(), json!(list("grant_types", " ")))]);
    if let Some(at) = told.get("client_secret_expires_at").filter(|at| at.is_number()) {
        parameters.insert("client_secret_expires_at".into(), at.clone());
    }
    if !further.is_empty() {
        parameters.insert(ADDITIONAL.into(), further.into());
    }
    let uris = list("redirect_uris", ",");
    let id = text("client_id").ok_or_else(|| Error::Answer("the client has no client_id".into()))?;
    Ok(OAuthApplicationInfo {
        client_id: Some(id.to_owned()),
        client_name: text("application_display_name").or_else(|| text("client_name")).map(str::to_owned),
        call_back_url: (!uris.is_empty()).then_some(uris),
        parameters,
        app_owner: text("ext_application_owner").map(str::to_owned),
        token_type: text("token_type_extension").map(str::to_owned),
        ..OAuthApplicationInfo::default()
    })
}

/// The token type to ask for, given the present one: a client that has the usual kind of tokens may move to JWTs, and
/// otherwise it keeps what it has.
pub(super) fn token_type(present: Option<&str>, wanted: Option<&str>) -> Option<String> {
    let present = present?;
    let usual = ["DEFAULT", "OAUTH"].iter().any(|kind| present.eq_ignore_ascii_case(kind));
    Some(if usual && wanted == Some("JWT") { "JWT" } else { present }.to_owned())
}

/// Seconds; none where it says to leave it alone.
fn lifetime(name: &str, value: &Value) -> Result<Option<i64>> {
    let seconds = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) if text == "N/A" => return Ok(None),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    match seconds {
        Some(seconds) if seconds >= 0 => Ok(Some(seconds)),
        _ => Err(Error::invalid(
            format!("parameters.additionalProperties.{name}"),
            "must be seconds, 0 or more, or \"N/A\" to leave it alone",
        )),
    }
}

fn switch(name: &str, value: &Value) -> Result<bool> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err(Error::invalid(format!("parameters.additionalProperties.{name}"), "must be true or false")),
    }
}

const ADDITIONAL: &str = "additionalProperties";
const LIFETIMES: [(&str, &str); 4] = [
    ("application_access_token_expiry_time", "ext_application_token_lifetime"),
    ("user_access_token_expiry_time", "ext_user_token_lifetime"),
    ("refresh_token_expiry_time", "ext_refresh_token_lifetime"),
    ("id_token_expiry_time", "ext_id_token_lifetime"),
];
const SWITCHES: [&str; 3] = ["pkceMandatory", "pkceSupportPlain", "bypassClientCredentials"];
const SECRET: [(&str, &str); 2] = [
    ("client_secret_description", "ext_client_secret_description"),
    ("client_secret_expires_in", "ext_client_secret_expires_in"),
];
const FOR_EVER: i64 = 2_147_483_646;

#[cfg(test)]
mod tests {
    use super::*;

    fn application(parameters: Value) -> OAuthApplicationInfo {
        let body = json!({"clientName": "shop", "applicationUUID": "u1", "callBackURL": "https://a.example/cb,https://b.example",
            "parameters": parameters});
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn a_client_is_named_after_its_owner_application_and_key_type() {
        for (owner, kind, name) in [
            ("ada", json!({}), "ada_u1_PRODUCTION"),
            ("ada@mail.example", json!({"key_type": "SANDBOX"}), "ada-AT-mail.example_u1_SANDBOX"),
            ("STAFF/ada", json!({}), "STAFF_ada_u1_PRODUCTION"),
        ] {
            assert_eq!(body(&application(kind), owner).unwrap()["client_name"], json!(name));
        }
    }

    #[test]
    fn further_properties_are_checked() {
        let of = |further: Value| body(&application(json!({ "additionalProperties": further })), "ada");
        let sent = of(json!({"application_access_token_expiry_time": "3600", "id_token_expiry_time": "N/A",
            "pkceMandatory": "true", "application_scopes": ["a"], "client_secret_expires_in": 60}))
        .unwrap();
        assert_eq!(sent["ext_application_token_lifetime"], json!(3600));
        assert!(!sent.contains_key("ext_id_token_lifetime"));
        assert_eq!((&sent["pkceMandatory"], &sent["application_scopes"]), (&json!(true), &json!(["a"])));
        assert_eq!(sent["ext_client_secret_expires_in"], json!(60));
        let beside = body(&application(json!({"client_secret_description": "first"})), "ada").unwrap();
        assert_eq!(beside["ext_client_secret_description"], json!("first"));
        for (name, bad) in [("user_access_token_expiry_time", json!(-2)), ("pkceSupportPlain", json!("maybe"))] {
            let Err(Error::Invalid { field, .. }) = of(json!({ name: bad })) else { panic!("{name}") };
            assert_eq!(field, format!("parameters.additionalProperties.{name}"));
        }
    }

    #[test]
    fn an_answer_is_read_as_wso2_reads_it() {
        let told = json!({"client_id": "c1", "client_secret": "s3cret", "client_secret_expires_at": 0,
            "redirect_uris": ["https://a.example/cb", "https://b.example"], "grant_types": ["password", "refresh_token"],
            "ext_user_token_lifetime": -1, "pkceMandatory": false, "token_type_extension": "JWT"});
        let client = read(told.as_object().unwrap()).unwrap();
        assert_eq!(client.call_back_url.as_deref(), Some("https://a.example/cb,https://b.example"));
        assert_eq!(client.parameter("grant_types"), Some("password refresh_token"));
        let further = &client.parameters["additionalProperties"];
        assert_eq!(further, &json!({"user_access_token_expiry_time": FOR_EVER, "pkceMandatory": false}));
        assert_eq!(client.client_secret, None);
    }

    #[test]
    fn a_token_type_moves_to_jwt_alone() {
        for (present, wanted, sent) in [
            (None, Some("JWT"), None),
            (Some("DEFAULT"), Some("JWT"), Some("JWT")),
            (Some("default"), Some("JWT"), Some("JWT")),
            (Some("OAUTH"), Some("DEFAULT"), Some("OAUTH")),
            (Some("JWT"), Some("DEFAULT"), Some("JWT")),
        ] {
            assert_eq!(token_type(present, wanted).as_deref(), sent);
        }
    }
}
