//! A client in Keycloak's words (`ClientRepresentation` of its admin API), and in WSO2's.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::keymanager::{Error, OAuthApplicationInfo, Result};

/// Writes the application over `client`, a representation as Keycloak gave it or an empty one. What WSO2's model does
/// not know stays as it is.
pub(super) fn write(client: &mut Map<String, Value>, application: &OAuthApplicationInfo) -> Result<()> {
    let grants = application.list("grant_types");
    let grants = if grants.is_empty() { vec!["client_credentials"] } else { grants };
    let attributes = attributes(client);
    for name in SWITCHES {
        // A grant that was allowed and is no longer named is no longer allowed.
        let (_, attribute) = name;
        attributes.insert(attribute.into(), json!("false"));
    }
    let mut flows = [false; 4];
    for grant in &grants {
        let flow = FLOWS.iter().position(|(name, _)| name == grant);
        let switch = SWITCHES.iter().find(|(name, _)| name == grant);
        match (flow, switch) {
            (Some(flow), _) => flows[flow] = true,
            (None, Some((_, attribute))) => drop(attributes.insert((*attribute).into(), json!("true"))),
            (None, None) => {
                return Err(Error::invalid("parameters.grant_types", format!("Keycloak has no grant {grant}")));
            }
        }
    }
    write_ours(attributes, application);
    let authentication = authentication(application)?;
    for ((_, member), allowed) in FLOWS.iter().zip(flows) {
        client.insert((*member).into(), json!(allowed));
    }
    client.insert("publicClient".into(), json!(authentication.is_none()));
    if let Some(authentication) = authentication {
        client.insert("clientAuthenticatorType".into(), json!(authentication));
    }
    client.insert("protocol".into(), json!("openid-connect"));
    client.insert("redirectUris".into(), json!(application.redirect_uris()));
    client.insert("name".into(), json!(application.client_name.as_deref().unwrap_or_default()));
    Ok(())
}

/// Makes tokens of the client name `audiences` in `aud`: without, we could not even ask about them, since Keycloak
/// tells about a token to its audience alone.
pub(super) fn address(client: &mut Map<String, Value>, audiences: &[String]) {
    let mapper = |audience: &String| {
        json!({
            "name": format!("audience {audience}"),
            "protocol": "openid-connect",
            "protocolMapper": "oidc-audience-mapper",
            "config": {
                "included.custom.audience": audience,
                "access.token.claim": "true",
                "introspection.token.claim": "true",
            },
        })
    };
    client.insert("protocolMappers".into(), audiences.iter().map(mapper).collect());
}

/// Marks a client as made by this very call.
pub(super) fn mark(client: &mut Map<String, Value>, mark: &str) {
    attributes(client).insert(MARK.into(), json!(mark));
}

/// Whether it is the client so marked.
pub(super) fn is_marked(client: &Map<String, Value>, mark: &str) -> bool {
    client.get("attributes").and_then(|attributes| attributes.get(MARK)?.as_str()) == Some(mark)
}

/// Makes `owner` the client's owner.
pub(super) fn write_owner(client: &mut Map<String, Value>, owner: &str) {
    attributes(client).insert(OWNER.into(), json!(owner));
}

/// The client, without its secret.
pub(super) fn read(client: &Map<String, Value>) -> Result<OAuthApplicationInfo> {
    let text = |name: &str| client.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let is = |name: &str| client.get(name).and_then(Value::as_bool).unwrap_or_default();
    let none = Map::new();
    let attributes = client.get("attributes").and_then(Value::as_object).unwrap_or(&none);
    let attribute = |name: &str| attributes.get(name).and_then(Value::as_str);
    let flows = FLOWS.iter().filter(|(_, member)| is(member));
    let switches = SWITCHES.iter().filter(|(_, name)| attribute(name) == Some("true"));
    let grants: Vec<_> = flows.chain(switches).map(|(grant, _)| *grant).collect();
    let strings = |name: &str| {
        let items = client.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str).collect::<Vec<_>>()
    };
    let method = match text("clientAuthenticatorType") {
        _ if is("publicClient") => "none",
        Some(kind) => METHODS.iter().find(|(_, known)| *known == kind).map_or(kind, |(method, _)| *method),
        None => "client_secret_basic",
    };
    let mut parameters = Map::from_iter([
        ("grant_types".into(), json!(grants.join(","))),
        ("token_endpoint_auth_method".into(), json!(method)),
    ]);
    let scopes = strings(OPTIONAL);
    if !scopes.is_empty() {
        parameters.insert("scope".into(), json!(scopes.join(" ")));
    }
    if let Some(kept) = attribute(PARAMETERS).and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok()) {
        parameters.extend(kept);
    }
    let id = text("clientId").ok_or_else(|| Error::Answer("the client has no clientId".into()))?;
    let uris = strings("redirectUris");
    Ok(OAuthApplicationInfo {
        client_id: Some(id.to_owned()),
        client_name: text("name").map(str::to_owned),
        call_back_url: (!uris.is_empty()).then(|| uris.join(",")),
        parameters,
        app_owner: attribute(OWNER).map(str::to_owned),
        application_uuid: attribute(APPLICATION).map(str::to_owned),
        token_type: attribute(TOKEN_TYPE).map(str::to_owned),
        is_saas_application: attribute(SAAS) == Some("true"),
        app_attributes: attributes
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(ATTRIBUTE)?.to_owned(), value.as_str()?.to_owned())))
            .collect(),
        ..OAuthApplicationInfo::default()
    })
}

/// So many random bytes, as text.
pub(super) fn random(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::Record("the system gives no random numbers".into()))?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

/// What Keycloak has no place for is kept in attributes of ours.
fn write_ours(attributes: &mut Map<String, Value>, application: &OAuthApplicationInfo) {
    attributes.retain(|name, _| !name.starts_with(ATTRIBUTE));
    let saas = application.is_saas_application.then_some("true");
    let mut kept = application.parameters.clone();
    kept.retain(|name, _| !HELD.contains(&name.as_str()));
    let kept = (!kept.is_empty()).then(|| Value::from(kept).to_string());
    for (name, value) in [
        (OWNER, application.app_owner.as_deref()),
        (APPLICATION, application.application_uuid.as_deref()),
        (TOKEN_TYPE, application.token_type.as_deref()),
        (SAAS, saas),
        (PARAMETERS, kept.as_deref()),
    ] {
        // An empty text removes an attribute.
        attributes.insert(name.into(), json!(value.unwrap_or_default()));
    }
    for (name, value) in &application.app_attributes {
        attributes.insert(format!("{ATTRIBUTE}{name}"), json!(value));
    }
}

/// By what the client says who it is; none: it does not.
fn authentication(application: &OAuthApplicationInfo) -> Result<Option<&'static str>> {
    match application.parameter("token_endpoint_auth_method") {
        Some("none") => Ok(None),
        None => Ok(Some("client-secret")),
        Some(method) => {
            let known = METHODS.iter().find(|(name, _)| *name == method).map(|(_, kind)| Some(*kind));
            known.ok_or_else(|| Error::invalid("parameters.token_endpoint_auth_method", METHODS_TOLD))
        }
    }
}

fn attributes(client: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let attributes = client.entry("attributes").or_insert_with(|| json!({}));
    if !attributes.is_object() {
        *attributes = json!({});
    }
    attributes.as_object_mut().expect("it has just been made one")
}

/// Grants that are members of a client.
const FLOWS: [(&str, &str); 4] = [
    ("client_credentials", "serviceAccountsEnabled"),
    ("authorization_code", "standardFlowEnabled"),
    ("implicit", "implicitFlowEnabled"),
    ("password", "directAccessGrantsEnabled"),
];
/// Grants that are attributes of a client.
const SWITCHES: [(&str, &str); 4] = [
    ("refresh_token", "use.refresh.tokens"),
    ("urn:ietf:params:oauth:grant-type:device_code", "oauth2.device.authorization.grant.enabled"),
    ("urn:openid:params:grant-type:ciba", "oidc.ciba.grant.enabled"),
    ("urn:ietf:params:oauth:grant-type:token-exchange", "standard.token.exchange.enabled"),
];
const METHODS: [(&str, &str); 4] = [
    ("client_secret_basic", "client-secret"),
    ("client_secret_post", "client-secret"),
    ("private_key_jwt", "client-jwt"),
    ("tls_client_auth", "client-x509"),
];
const METHODS_TOLD: &str = "must be none, client_secret_basic, client_secret_post, private_key_jwt or tls_client_auth";
/// Parameters that are members or attributes of Keycloak's own.
const HELD: [&str; 3] = ["grant_types", "token_endpoint_auth_method", "scope"];
pub(super) const OPTIONAL: &str = "optionalClientScopes";
const OWNER: &str = "tollgate.owner";
const APPLICATION: &str = "tollgate.application";
const TOKEN_TYPE: &str = "tollgate.token_type";
const SAAS: &str = "tollgate.saas";
const PARAMETERS: &str = "tollgate.parameters";
const MARK: &str = "tollgate.made";
const ATTRIBUTE: &str = "tollgate.attribute.";

#[cfg(test)]
mod tests {
    use super::*;

    fn application(body: Value) -> OAuthApplicationInfo {
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again_and_the_rest_stays() {
        let told = application(json!({
            "clientName": "shop", "callBackURL": "https://a.example/cb", "appOwner": "ada", "applicationUUID": "u1",
            "tokenType": "JWT", "appAttributes": {"team": "blue"},
            "parameters": {"grant_types": "client_credentials,refresh_token", "key_type": "PRODUCTION",
                "token_endpoint_auth_method": "client_secret_basic"},
        }));
        let mut client = Map::from_iter([
            ("clientId".into(), json!("c1")),
            ("secret".into(), json!("s3cret")),
            ("consentRequired".into(), json!(true)),
            ("implicitFlowEnabled".into(), json!(true)),
            ("attributes".into(), json!({"theirs": "kept", "tollgate.attribute.old": "gone"})),
        ]);
        write(&mut client, &told).unwrap();
        assert_eq!(client["consentRequired"], json!(true));
        assert_eq!(client["attributes"]["theirs"], json!("kept"));
        assert_eq!(client["implicitFlowEnabled"], json!(false), "no longer named");
        let back = read(&client).unwrap();
        assert_eq!(back, OAuthApplicationInfo { client_id: Some("c1".into()), ..told });
        write_owner(&mut client, "bob");
        assert_eq!(read(&client).unwrap().app_owner.as_deref(), Some("bob"));
    }

    #[test]
    fn what_keycloak_does_not_know_is_named() {
        for (parameters, field) in [
            (json!({"grant_types": "magic"}), "parameters.grant_types"),
            (json!({"token_endpoint_auth_method": "magic"}), "parameters.token_endpoint_auth_method"),
        ] {
            let outcome = write(&mut Map::new(), &application(json!({ "parameters": parameters })));
            let Err(Error::Invalid { field: named, .. }) = outcome else { panic!("{outcome:?}") };
            assert_eq!(named, field);
        }
    }
}
