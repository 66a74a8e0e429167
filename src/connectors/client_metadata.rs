//! A client in the words of dynamic registration (RFC 7591 section 2), and in WSO2's.

use serde_json::{Map, Value, json};

use crate::keymanager::{Error, OAuthApplicationInfo, Result};

/// The client metadata to register. Members of the parameter `additionalProperties` are passed on under their names.
pub(super) fn metadata(application: &OAuthApplicationInfo) -> Result<Map<String, Value>> {
    let mut metadata = Map::new();
    if let Some(further) = application.parameters.get("additionalProperties") {
        let Value::Object(further) = further else {
            return Err(Error::invalid("parameters.additionalProperties", "must be an object"));
        };
        for (name, value) in further {
            if OURS.contains(&name.as_str()) {
                let field = format!("parameters.additionalProperties.{name}");
                return Err(Error::invalid(field, "has a field of its own, or is the provider's to say"));
            }
            metadata.insert(name.clone(), value.clone());
        }
    }
    let mut put = |name: &str, value: Value| metadata.insert(name.to_owned(), value);
    if let Some(name) = &application.client_name {
        put("client_name", json!(name));
    }
    if application.call_back_url.is_some() {
        put("redirect_uris", json!(application.redirect_uris()));
    }
    let grants = application.list("grant_types");
    if !grants.is_empty() {
        put("grant_types", json!(grants));
    }
    if application.parameters.contains_key("response_types") {
        put("response_types", json!(response_types(application)));
    } else if !grants.is_empty() && !grants.iter().any(|grant| matches!(*grant, "authorization_code" | "implicit")) {
        // RFC 7591 section 2.1: without those grants there are no response types, though the default is one.
        put("response_types", json!([]));
    }
    for name in ["token_endpoint_auth_method"] {
        if let Some(value) = application.parameter(name) {
            put(name, json!(value));
        }
    }
    let scopes = application.list("scope");
    if !scopes.is_empty() {
        put("scope", json!(scopes.join(" ")));
    }
    Ok(metadata)
}

/// A response type may be several words: they are parted by commas alone.
fn response_types(application: &OAuthApplicationInfo) -> Vec<&str> {
    let list = application.parameter("response_types").unwrap_or_default();
    list.split(',').map(str::trim).filter(|kind| !kind.is_empty()).collect()
}

/// The client that a client information response tells of (RFC 7591 section 3.2.1); its secret too.
pub(super) fn application(told: &Map<String, Value>) -> Result<OAuthApplicationInfo> {
    let text = |name: &str| told.get(name).and_then(Value::as_str).map(str::to_owned);
    let id = text("client_id").filter(|id| !id.is_empty());
    let list = |name: &str, by: &str| {
        let items = told.get(name).and_then(Value::as_array)?;
        let items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
        (!items.is_empty()).then(|| items.join(by))
    };
    let mut parameters = Map::new();
    let mut put = |name: &str, value: Option<String>| {
        parameters.extend(value.map(|value| (name.to_owned(), value.into())));
    };
    put("grant_types", list("grant_types", ","));
    put("response_types", list("response_types", ","));
    put("token_endpoint_auth_method", text("token_endpoint_auth_method"));
    put("scope", text("scope"));
    for name in ["client_id_issued_at", "client_secret_expires_at"] {
        if let Some(at) = told.get(name).filter(|at| at.is_number()) {
            parameters.insert(name.to_owned(), at.clone());
        }
    }
    let further = told.iter().filter(|(name, _)| !OURS.contains(&name.as_str()));
    let further: Map<_, _> = further.map(|(name, value)| (name.clone(), value.clone())).collect();
    if !further.is_empty() {
        parameters.insert("additionalProperties".into(), further.into());
    }
    Ok(OAuthApplicationInfo {
        client_id: Some(id.ok_or_else(|| Error::Answer("the registration response has no client_id".into()))?),
        client_name: text("client_name"),
        client_secret: text("client_secret").map(Into::into),
        call_back_url: list("redirect_uris", ","),
        parameters,
        ..OAuthApplicationInfo::default()
    })
}

/// What has a field of its own in WSO2's model, or is the provider's to say.
const OURS: [&str; 13] = [
    "client_id",
    "client_secret",
    "client_name",
    "client_id_issued_at",
    "client_secret_expires_at",
    "redirect_uris",
    "grant_types",
    "response_types",
    "token_endpoint_auth_method",
    "scope",
    "registration_access_token",
    "registration_client_uri",
    "software_statement",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_goes_out_in_rfc_7591s_words_and_comes_back_in_wso2s() {
        let application: OAuthApplicationInfo = serde_json::from_value(json!({
            "clientName": "shop", "callBackURL": "https://a.example/cb,https://b.example/cb",
            "parameters": {"grant_types": ",client_credentials,refresh_token", "scope": "a b",
                "token_endpoint_auth_method": "client_secret_post",
                "additionalProperties": {"application_type": "web"}},
        }))
        .unwrap();
        let sent = metadata(&application).unwrap();
        assert_eq!(
            Value::from(sent.clone()),
            json!({
                "application_type": "web", "client_name": "shop",
                "redirect_uris": ["https://a.example/cb", "https://b.example/cb"],
                "grant_types": ["client_credentials", "refresh_token"], "response_types": [],
                "token_endpoint_auth_method": "client_secret_post", "scope": "a b",
            })
        );
        let mut told = sent;
        told.insert("client_id".into(), json!("c1"));
        told.insert("registration_access_token".into(), json!("s3cret"));
        let back = super::application(&told).unwrap();
        assert_eq!(back.call_back_url, application.call_back_url);
        assert_eq!(back.list("grant_types"), application.list("grant_types"));
        assert_eq!(back.parameters["additionalProperties"], json!({"application_type": "web"}));
        assert!(!serde_json::to_string(&back).unwrap().contains("s3cret"));
    }

    #[test]
    fn further_properties_cannot_replace_what_has_a_field() {
        for name in ["client_id", "redirect_uris", "registration_access_token"] {
            let mut application = OAuthApplicationInfo::default();
            application.parameters.insert("additionalProperties".into(), json!({ name: "x" }));
            let Err(Error::Invalid { field, .. }) = metadata(&application) else { panic!("{name}") };
            assert_eq!(field, format!("parameters.additionalProperties.{name}"));
        }
        assert!(super::application(&Map::new()).is_err(), "no client_id");
    }
}
