//! Scopes, resources and users in Keycloak's words, and in the Key Manager's.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::keymanager::{ApiResource, Scope};

/// A user (`UserRepresentation`).
#[derive(Debug, Deserialize)]
pub(super) struct User {
    id: String,
    pub(super) username: Option<String>,
    email: Option<String>,
    #[serde(rename = "emailVerified")]
    email_verified: Option<bool>,
    #[serde(rename = "firstName")]
    first_name: Option<String>,
    #[serde(rename = "lastName")]
    last_name: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, Vec<String>>,
}

/// A resource is found by its name, which is the API's id.
pub(super) fn description(resource: &ApiResource) -> Map<String, Value> {
    Map::from_iter([
        ("name".into(), json!(resource.api_id)),
        ("displayName".into(), json!(resource.name)),
        ("uris".into(), json!(resource.uris)),
        ("resource_scopes".into(), json!(resource.scopes)),
    ])
}

pub(super) fn write_scope(body: &mut Map<String, Value>, scope: &Scope) {
    body.insert("description".into(), json!(scope.description.as_deref().unwrap_or_default()));
    let attributes = body.entry("attributes").or_insert_with(|| json!({}));
    for (name, value) in [
        ("include.in.token.scope", "true"),
        ("consent.screen.text", scope.name.as_deref().unwrap_or_default()),
        (ROLES, scope.roles.as_deref().unwrap_or_default()),
    ] {
        attributes[name] = json!(value);
    }
}

pub(super) fn read_scope(scope: &Map<String, Value>) -> Scope {
    let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let text = |name: &str| scope.get(name).and_then(Value::as_str).and_then(filled);
    let attribute = |name: &str| scope.get("attributes").and_then(|kept| kept.get(name)?.as_str()).and_then(filled);
    Scope {
        key: text("name").unwrap_or_default(),
        name: attribute("consent.screen.text"),
        roles: attribute(ROLES),
        description: text("description"),
        id: text("id"),
    }
}

/// A user's claims by their names in OpenID Connect; attributes under their own.
pub(super) fn claims(user: User) -> BTreeMap<String, String> {
    let name = [user.first_name.as_deref(), user.last_name.as_deref()].into_iter().flatten().collect::<Vec<_>>();
    let name = (!name.is_empty()).then(|| name.join(" "));
    let mut claims: BTreeMap<_, _> =
        user.attributes.into_iter().map(|(name, values)| (name, values.join(","))).collect();
    let verified = user.email.as_ref().and(user.email_verified).map(|verified| verified.to_string());
    let known = [
        ("sub", Some(user.id)),
        ("preferred_username", user.username),
        ("email", user.email),
        ("email_verified", verified),
        ("given_name", user.first_name),
        ("family_name", user.last_name),
        ("name", name),
    ];
    claims.extend(known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    claims
}

/// Roles are kept with the scope. Whom it grants the scope Keycloak decides by role mappings of its own.
const ROLES: &str = "tollgate.roles";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_written_over_what_is_there_and_read_again() {
        let scope = Scope {
            key: "orders:read".into(),
            name: Some("Read orders".into()),
            roles: Some("buyer,editor".into()),
            description: Some("what was ordered".into()),
            id: None,
        };
        let mut body =
            Map::from_iter([("name".into(), json!("orders:read")), ("attributes".into(), json!({"a": "b"}))]);
        write_scope(&mut body, &scope);
        assert_eq!(body["attributes"]["a"], json!("b"));
        assert_eq!(body["attributes"]["include.in.token.scope"], json!("true"));
        assert_eq!(read_scope(&body), scope);
    }

    #[test]
    fn a_users_claims_have_the_names_of_openid_connect() {
        let user = json!({"id": "u1", "username": "ada", "firstName": "Ada", "lastName": "Lovelace",
            "email": "ada@example.com", "emailVerified": true, "attributes": {"team": ["blue", "red"], "sub": ["x"]}});
        let told = claims(serde_json::from_value(user).unwrap());
        let expected = [("sub", "u1"), ("name", "Ada Lovelace"), ("email_verified", "true"), ("team", "blue,red")];
        for (name, value) in expected {
            assert_eq!(told[name], value);
        }
        let bare = claims(serde_json::from_value(json!({"id": "u2"})).unwrap());
        assert_eq!(bare, BTreeMap::from([("sub".to_owned(), "u2".to_owned())]));
    }
}
