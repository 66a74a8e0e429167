//! A client's token: what its request becomes at a token endpoint (RFC 6749, RFC 8693), and what comes back.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::api::Reply;
use crate::keymanager::{AccessTokenInfo, AccessTokenRequest, Error, Result, Sensitive, split_list};

/// A field of a form.
pub(super) type Field<'a> = (&'a str, Cow<'a, str>);

/// The fields of a token request, but for who asks. What the grant needs and is not there is [`Error::Invalid`].
pub(super) fn form(request: &AccessTokenRequest) -> Result<Vec<Field<'_>>> {
    let grant = grant_type(request);
    let mut form: Vec<Field<'_>> = vec![("grant_type", grant.into())];
    if !request.scope.is_empty() {
        form.push(("scope", request.scope.join(" ").into()));
    }
    let needed = |name: &'static str, field: &'static str, value: Option<&'_ str>| match value {
        Some(value) => Ok((name, value.to_owned())),
        None => Err(Error::invalid(field, format!("is needed by grant type {grant}"))),
    };
    let own: Vec<(&str, String)> = match grant {
        "password" => vec![
            needed("username", "resourceOwnerUsername", request.resource_owner_username.as_deref())?,
            needed("password", "resourceOwnerPassword", revealed(request.resource_owner_password.as_ref()))?,
        ],
        "refresh_token" => vec![needed("refresh_token", "refreshToken", revealed(request.refresh_token.as_ref()))?],
        "authorization_code" => {
            let code = request.request_parameters.get("code").map(String::as_str);
            vec![
                needed("code", "requestParameters.code", code)?,
                needed("redirect_uri", "callbackURI", request.callback_uri.as_deref())?,
            ]
        }
        _ => Vec::new(),
    };
    form.extend(own.into_iter().map(|(name, value)| (name, value.into())));
    for (name, value) in &request.request_parameters {
        if OURS.contains(&name.as_str()) {
            return Err(Error::invalid(format!("requestParameters.{name}"), "has a field of its own in the request"));
        }
        if !form.iter().any(|(there, _)| there == name) {
            form.push((name, value.as_str().into()));
        }
    }
    Ok(form)
}

/// `client_credentials` unless it says otherwise.
pub(super) fn grant_type(request: &AccessTokenRequest) -> &str {
    request.grant_type.as_deref().unwrap_or("client_credentials")
}

/// What a token endpoint answers, as the Key Manager tells it: the life in seconds.
pub(super) fn issued(reply: &Reply, request: &AccessTokenRequest) -> Result<AccessTokenInfo> {
    #[derive(Deserialize)]
    struct Body {
        access_token: Sensitive,
        refresh_token: Option<Sensitive>,
        expires_in: Option<i64>,
        scope: Option<String>,
        #[serde(flatten)]
        more: Map<String, Value>,
    }
    let mut body: Body = reply.json()?;
    body.more.retain(|name, _| !HIDDEN.contains(&name.as_str()));
    // Left out, the scopes are those that were asked for (RFC 6749 section 5.1).
    let scope = body
        .scope
        .map_or_else(|| request.scope.clone(), |scope| split_list(&scope).into_iter().map(str::to_owned).collect());
    Ok(AccessTokenInfo {
        is_token_valid: true,
        is_application_token: grant_type(request) == "client_credentials",
        consumer_key: request.client_id.clone(),
        scope,
        access_token: Some(body.access_token),
        refresh_token: body.refresh_token,
        validity_period: body.expires_in,
        end_user_name: request.resource_owner_username.clone(),
        parameters: body.more,
        ..AccessTokenInfo::default()
    })
}

fn revealed(secret: Option<&Sensitive>) -> Option<&str> {
    secret.map(Sensitive::reveal)
}

/// Parameters that the request has fields for.
const OURS: [&str; 8] =
    ["grant_type", "client_id", "client_secret", "scope", "username", "password", "refresh_token", "redirect_uri"];
/// Members of an answer that are secret, or no news.
const HIDDEN: [&str; 2] = ["id_token", "device_secret"];
