//! What several connectors do between a provider's JSON and the Key Manager's models.

use std::collections::BTreeMap;

use aws_lc_rs::constant_time;
use serde_json::{Map, Value};

use crate::keymanager::{Error, OAuthApplicationInfo, Result, Sensitive};

/// Whether two secrets are the same, in a time that tells nothing but their length.
pub(super) fn same(own: &Sensitive, given: &Sensitive) -> bool {
    constant_time::verify_slices_are_equal(own.reveal().as_bytes(), given.reveal().as_bytes()).is_ok()
}

/// What a connector is told of a client beyond WSO2's own fields: a member of `parameters.additionalProperties`, or of
/// `parameters`. A list is told as one joined by commas.
pub(super) fn setting(application: &OAuthApplicationInfo, name: &str) -> Option<String> {
    let further = application.parameters.get("additionalProperties").and_then(|further| further.get(name));
    text(further.or_else(|| application.parameters.get(name))?)
}

/// What a provider has no place for is refused, rather than lost unseen.
pub(super) fn check_placed(application: &OAuthApplicationInfo, provider: &str) -> Result<()> {
    let given = [
        ("isSaasApplication", application.is_saas_application),
        ("appAttributes", !application.app_attributes.is_empty()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(Error::invalid(field, format!("must be left out: {provider} has no place for it"))),
        None => Ok(()),
    }
}

/// The members that can be told as texts: claims of a user. What is itself an object is told member by member, under
/// both names.
pub(super) fn texts(members: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, value) in members {
        match value {
            Value::Object(inner) => {
                let inner = inner.iter().filter_map(|(inner, value)| Some((format!("{name}.{inner}"), text(value)?)));
                found.extend(inner);
            }
            value => found.extend(text(value).map(|text| (name.clone(), text))),
        }
    }
    found
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(list) => {
            let texts: Vec<_> = list.iter().filter_map(text).collect();
            (!texts.is_empty()).then(|| texts.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_become_texts() {
        let Value::Object(profile) = json!({
            "login": "ada", "age": 36, "verified": true, "groups": ["ops", 7, null], "none": null, "empty": "", "list": [],
            "address": { "city": "London", "deep": { "er": 1 } },
        }) else {
            panic!("an object")
        };
        let texts = texts(&profile);
        let told: Vec<_> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let city = ("address.city", "London");
        assert_eq!(told, [city, ("age", "36"), ("groups", "ops,7"), ("login", "ada"), ("verified", "true")]);
    }

    #[test]
    fn what_has_no_place_is_named() {
        for (text, field) in [
            ("{}", None),
            (r#"{"isSaasApplication":true}"#, Some("isSaasApplication")),
            (r#"{"appAttributes":{"a":"b"}}"#, Some("appAttributes")),
        ] {
            let found = check_placed(&serde_json::from_str(text).expect("good"), "it");
            let named = found.err().map(|error| error.to_string());
            assert_eq!(named, field.map(|field| format!("{field}: must be left out: it has no place for it")));
        }
    }

    #[test]
    fn a_setting_stands_in_either_place() {
        let text = r#"{"parameters":{"a":"outer","b":["x","y"],"additionalProperties":{"a":"inner"}}}"#;
        let application: OAuthApplicationInfo = serde_json::from_str(text).expect("good");
        assert_eq!(setting(&application, "a").as_deref(), Some("inner"));
        assert_eq!(setting(&application, "b").as_deref(), Some("x,y"));
        assert_eq!(setting(&application, "c"), None);
    }
}
