//! What every OAuth provider does alike: tokens from the token endpoint (RFC 6749, RFC 8693), questions about them
//! (RFC 7662), revocation (RFC 7009).

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Means,
    api::{Api, Reply},
    call::Call,
    directory::{Directory, Endpoint},
};
use crate::{
    keymanager::{
        AccessTokenInfo, AccessTokenRequest, CLIENT_CREDENTIALS, Error, Operation, Result, Sensitive, TOKEN_EXCHANGE,
    },
    net::Clock,
    problem::Problem,
    token::settings::KeyManagerSettings,
};

/// An OAuth provider.
#[derive(Debug)]
pub(super) struct OAuth {
    pub(super) api: Api,
    pub(super) directory: Directory,
    clock: Arc<Clock>,
}

/// How a client says who it is at the token endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) enum ClientSecret<'s> {
    /// `client_secret_basic`
    Basic(&'s str),
    /// `client_secret_post`
    Post(&'s str),
    /// A public client.
    None,
}

#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    refresh_token: Option<String>,
    expires_in: Option<i64>,
    scope: Option<String>,
    token_type: Option<String>,
    issued_token_type: Option<String>,
}

/// The form of a token request, without who the client is.
pub(super) fn grant<'r>(request: &'r AccessTokenRequest, scope: &'r str) -> Result<Vec<(&'r str, &'r str)>> {
    let grant = request.grant_type.as_deref().unwrap_or(CLIENT_CREDENTIALS);
    let mut form = vec![("grant_type", grant)];
    let needed = |name: &'static str, value: Option<&'r str>| {
        value.ok_or_else(|| Error::invalid(name, format!("is needed by the grant {grant}")))
    };
    let parameter = |name: &str| request.request_parameters.get(name).map(String::as_str);
    let secret = |secret: &'r Option<Sensitive>| secret.as_ref().map(Sensitive::reveal);
    match grant {
        "password" => {
            form.push(("username", needed("resourceOwnerUsername", request.resource_owner_username.as_deref())?));
            form.push(("password", needed("resourceOwnerPassword", secret(&request.resource_owner_password))?));
        }
        "refresh_token" => form.push(("refresh_token", needed("refreshToken", secret(&request.refresh_token))?)),
        "authorization_code" => {
            needed("requestParameters.code", parameter("code"))?;
            form.extend(request.callback_uri.as_deref().map(|uri| ("redirect_uri", uri)));
        }
        TOKEN_EXCHANGE => {
            needed("requestParameters.subject_token", parameter("subject_token"))?;
            if parameter("subject_token_type").is_none() {
                form.push(("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"));
            }
        }
        _ => {}
    }
    if !scope.is_empty() {
        form.push(("scope", scope));
    }
    for (name, value) in &request.request_parameters {
        // What has a field of its own, or says who the client is, is not smuggled in here.
        if RESERVED.contains(&name.as_str()) || form.iter().any(|(known, _)| known == name) {
            return Err(Error::invalid(format!("requestParameters.{name}"), "must not be given here"));
        }
        form.push((name, value));
    }
    Ok(form)
}

impl OAuth {
    /// The provider of the key manager at `field`. Contacts nobody.
    pub(super) fn new(
        settings: &KeyManagerSettings,
        field: &str,
        means: Means<'_>,
    ) -> std::result::Result<Self, Vec<Problem>> {
        let api = Api::new(settings, field, means.client, means.clock)?;
        let directory = Directory::new(settings, field, api.client())?;
        Ok(Self { api, directory, clock: Arc::clone(means.clock) })
    }

    /// A token for the client `id`, whose own credentials make the call: a refusal is of the request, not of us. A token
    /// to revoke goes before it, by the same credentials.
    pub(super) async fn new_access_token(
        &self,
        request: &AccessTokenRequest,
        id: &str,
        secret: ClientSecret<'_>,
    ) -> Result<AccessTokenInfo> {
        self.new_access_token_after(request, id, secret, secret).await
    }

    /// The same where the client says in another way who it is when it revokes.
    pub(super) async fn new_access_token_after(
        &self,
        request: &AccessTokenRequest,
        id: &str,
        secret: ClientSecret<'_>,
        revoking: ClientSecret<'_>,
    ) -> Result<AccessTokenInfo> {
        let operation = Operation::NewApplicationAccessToken;
        let endpoint = self.directory.place(Endpoint::Token, operation).await?;
        let scope = request.scope.join(" ");
        let form = grant(request, &scope)?;
        let call = by_client(Call::post(&endpoint), form, id, secret)?;
        let told = |error| not_let_in(error, request.client_secret.is_some(), secret);
        if let Some(token) = &request.token_to_revoke {
            self.revoke_by(token, id, revoking, operation).await.map_err(told)?;
        }
        let issued = self.api.send(call).await.map_err(told).and_then(|reply| self.issued(&reply, request, id));
        issued.map_err(|error| if request.token_to_revoke.is_some() { error.revoked() } else { error })
    }

    /// The token in the answer of a token endpoint.
    fn issued(&self, reply: &Reply, request: &AccessTokenRequest, id: &str) -> Result<AccessTokenInfo> {
        let body: TokenBody = reply.json()?;
        let grant = request.grant_type.as_deref().unwrap_or(CLIENT_CREDENTIALS);
        let mut parameters = Map::new();
        for (name, value) in [("token_type", body.token_type), ("issued_token_type", body.issued_token_type)] {
            parameters.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        Ok(AccessTokenInfo {
            is_token_valid: true,
            is_application_token: grant == CLIENT_CREDENTIALS,
            consumer_key: Some(id.to_owned()),
            // None said: those that were asked for (RFC 6749 section 5.1).
            scope: body.scope.map_or_else(|| request.scope.clone(), |scope| words(&scope)),
            access_token: Some(body.access_token.into()),
            refresh_token: body.refresh_token.map(Sensitive::from),
            issued_time: Some(self.clock.now().unix_ms),
            validity_period: body.expires_in,
            parameters,
            ..AccessTokenInfo::default()
        })
    }

    /// Revokes as the client `id`.
    pub(super) async fn revoke_by(
        &self,
        token: &Sensitive,
        id: &str,
        secret: ClientSecret<'_>,
        operation: Operation,
    ) -> Result<()> {
        let place = self.directory.place(Endpoint::Revocation, operation).await?;
        self.api.send(by_client(Call::post(&place), vec![("token", token.reveal())], id, secret)?).await.map(drop)
    }

    /// Revokes as ourselves.
    pub(super) async fn revoke(&self, token: &Sensitive, operation: Operation) -> Result<()> {
        let place = self.directory.place(Endpoint::Revocation, operation).await?;
        self.api.send(Call::post(&place).form([("token", token.reveal())]).own()).await?;
        self.is_revoked(token).await
    }

    /// Looks whether that is so: a provider may answer 200 to whom the token was not issued.
    pub(super) async fn is_revoked(&self, token: &Sensitive) -> Result<()> {
        match self.token_meta_data(token, true).await {
            Ok(said) if said.is_token_valid => Err(Error::Refused { status: 200, detail: STILL.into() }),
            // Revoked as far as it says; whether it tells about tokens is another matter.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Whether `secret` is the client's: it is let in with it to revoke a token that nobody has, which changes nothing
    /// and issues nothing. Where nothing can be revoked, a token of its own is asked for.
    pub(super) async fn is_its_secret(&self, id: &str, secret: ClientSecret<'_>) -> Result<bool> {
        let operation = Operation::MapOAuthApplication;
        let (place, form) = match self.directory.place(Endpoint::Revocation, operation).await {
            Ok(place) => (place, vec![("token", "none"), ("token_type_hint", "access_token")]),
            Err(Error::Unsupported { .. }) => {
                let place = self.directory.place(Endpoint::Token, operation).await?;
                (place, vec![("grant_type", CLIENT_CREDENTIALS)])
            }
            Err(error) => return Err(error),
        };
        match self.api.send(by_client(Call::post(&place).reads(), form, id, secret)?).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { status: 400, detail }) if LET_IN.iter().any(|code| detail.starts_with(code)) => {
                Ok(true)
            }
            Err(Error::Refused { status: 400, detail }) if detail.starts_with("invalid_client") => Ok(false),
            Err(Error::Refused { status: 401 | 403, .. }) => Ok(false),
            // Anything else may have been said before anyone looked at the secret.
            Err(error) => Err(error),
        }
    }

    /// What the provider says of a token, asked as ourselves.
    pub(super) async fn token_meta_data(&self, token: &Sensitive, hint: bool) -> Result<AccessTokenInfo> {
        let place = self.directory.place(Endpoint::Introspection, Operation::TokenMetaData).await?;
        let hint = hint.then_some(("token_type_hint", "access_token"));
        let form = [("token", token.reveal())].into_iter().chain(hint);
        introspected(self.api.send(Call::post(&place).form(form).own().reads()).await?.json()?)
    }
}

/// The call with the client's own credentials.
pub(super) fn by_client<'c, 'f>(
    call: Call<'c>,
    mut form: Vec<(&'f str, &'f str)>,
    id: &'f str,
    secret: ClientSecret<'f>,
) -> Result<Call<'c>> {
    match secret {
        ClientSecret::Basic(secret) => return call.form(form).basic(id, secret),
        ClientSecret::Post(secret) => form.extend([("client_id", id), ("client_secret", secret)]),
        ClientSecret::None => form.push(("client_id", id)),
    }
    Ok(call.form(form))
}

/// The error where the provider lets the client not in: `given` is whether the secret is the caller's, or what is known
/// here. Some providers answer 401 to a client that may not have what it asks for: then it says so, and of no secret.
fn not_let_in(error: Error, given: bool, secret: ClientSecret<'_>) -> Error {
    let Error::Refused { status, detail } = &error else { return error };
    let of_grant = detail.starts_with("unauthorized_client") && !detail.contains("redential");
    let of_secret = *status == 401 && !of_grant || *status == 400 && detail.starts_with("invalid_client");
    let why = match secret {
        _ if !of_secret => return error,
        _ if given => "is not taken by the provider",
        ClientSecret::None => "is needed: without one the provider does not let the client in",
        _ => "is needed: the provider does not take the one that is known here",
    };
    Error::invalid("clientSecret", format!("{why}: {detail}"))
}

/// An introspection response as WSO2's model has it: times in milliseconds.
pub(super) fn introspected(body: Map<String, Value>) -> Result<AccessTokenInfo> {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let Some(active) = body.get("active").and_then(Value::as_bool) else {
        return Err(Error::Answer("the introspection response has no member active".into()));
    };
    if !active || text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("refresh")) {
        return Ok(AccessTokenInfo { errorcode: Some(INVALID), ..AccessTokenInfo::default() });
    }
    let seconds = |name: &str| body.get(name).and_then(Value::as_f64).filter(|at| *at > 0.0).map(|at| at as i64);
    let (issued, expires) = (seconds("iat"), seconds("exp"));
    let client = text("client_id").or_else(|| text("azp"));
    let user = text("username").or_else(|| text("sub"));
    let own = match text("aut") {
        Some(kind) => kind.eq_ignore_ascii_case("application"),
        None => text("sub").is_none_or(|subject| client == Some(subject)),
    };
    let validity = issued.zip(expires).map(|(issued, expires)| expires.saturating_sub(issued).saturating_mul(1000));
    Ok(AccessTokenInfo {
        is_token_valid: true,
        is_application_token: own,
        consumer_key: client.map(str::to_owned),
        scope: text("scope").map(words).unwrap_or_default(),
        issued_time: issued.and_then(|at| u64::try_from(at).ok()).map(|at| at.saturating_mul(1000)),
        validity_period: validity,
        end_user_name: user.filter(|_| !own).map(str::to_owned),
        parameters: body,
        ..AccessTokenInfo::default()
    })
}

/// The client that a token says it was issued to. Nobody has verified that: it only chooses whose secret is used.
pub(super) fn issued_to(token: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Map<String, Value> = serde_json::from_slice(&payload).ok()?;
    let id = claims.get("azp").or_else(|| claims.get("client_id"))?.as_str()?;
    (!id.is_empty()).then(|| id.to_owned())
}

/// The members of a scope list.
pub(super) fn words(list: &str) -> Vec<String> {
    list.split_ascii_whitespace().map(str::to_owned).collect()
}

/// What is said only to a client that was let in (RFC 6749 section 5.2, RFC 7009 section 2.2.1). `unauthorized_client`
/// is none: some providers say it of a wrong secret.
const LET_IN: [&str; 3] = ["unsupported_token_type", "invalid_scope", "invalid_grant"];
/// WSO2's code of a token that is not good.
const INVALID: u32 = 900_901;
const STILL: &str = "it says that the token is revoked, and still calls it active: it was issued to another client";
const RESERVED: [&str; 9] = [
    "grant_type",
    "scope",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "username",
    "password",
    "refresh_token",
];
