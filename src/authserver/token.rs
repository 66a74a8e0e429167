//! `POST /token`: the client credentials grant (RFC 6749 section 4.4), clients authenticated by
//! `client_secret_basic` or `client_secret_post` (section 2.3.1).

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

use aws_lc_rs::rand;
use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{Provider, terms::Client};

/// Why there is no token (RFC 6749 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Error {
    InvalidRequest(&'static str),
    TooLarge,
    InvalidClient,
    UnsupportedGrantType,
    InvalidScope,
    Server,
}

/// What a client brings to prove itself.
struct Credentials {
    id: String,
    secret: Zeroizing<String>,
}

/// Claims of an access token (RFC 9068 section 2.2).
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    client_id: &'a str,
    aud: Audience<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    iat: u64,
    exp: u64,
    jti: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Audience<'a> {
    One(&'a str),
    Many(&'a [String]),
}

/// What a client gets (RFC 6749 section 5.1).
#[derive(Serialize)]
struct Issued {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

pub(super) async fn endpoint(State(provider): State<Arc<Provider>>, request: Request<Body>) -> Response {
    let issued = match form(request).await {
        Ok((headers, body)) => issue(&provider, &headers, &body),
        Err(error) => Err(error),
    };
    let mut response = issued.map_or_else(IntoResponse::into_response, |issued| Json(issued).into_response());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// The header fields and the body of a form, bounded in size and time.
async fn form(request: Request<Body>) -> Result<(HeaderMap, Bytes), Error> {
    let (parts, body) = request.into_parts();
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Error::InvalidRequest("the content type must be application/x-www-form-urlencoded"));
    }
    match timeout(BODY_TIMEOUT, Limited::new(body, MOST_BODY).collect()).await {
        Ok(Ok(body)) => Ok((parts.headers, body.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Error::TooLarge),
        _ => Err(Error::InvalidRequest("the body did not arrive whole")),
    }
}

fn issue(provider: &Provider, headers: &HeaderMap, body: &[u8]) -> Result<Issued, Error> {
    let form = parameters(body)?;
    let parameter = |name: &str| form.get(name).map(|value| value.as_str());
    let credentials = credentials(headers, &form)?;
    let terms = provider.terms.load();
    let client = terms.authenticate(&credentials.id, &credentials.secret).ok_or(Error::InvalidClient)?;
    match parameter("grant_type") {
        Some("client_credentials") => {}
        Some(_) => return Err(Error::UnsupportedGrantType),
        None => return Err(Error::InvalidRequest("grant_type is missing")),
    }
    let scope = granted_scope(client, parameter("scope"))?;
    let iat = provider.clock.now().unix();
    let claims = Claims {
        iss: &provider.issuer,
        sub: &credentials.id,
        client_id: &credentials.id,
        aud: match terms.audience.as_slice() {
            [one] => Audience::One(one),
            many => Audience::Many(many),
        },
        scope: scope.as_deref(),
        iat,
        exp: iat.saturating_add(terms.lifetime),
        jti: random_id()?,
    };
    let access_token = provider.key.sign(&claims).map_err(|error| {
        tracing::error!(%error, "a token cannot be signed");
        Error::Server
    })?;
    Ok(Issued { access_token, token_type: "Bearer", expires_in: terms.lifetime, scope })
}

/// The parameters of a form. One without a value is as one left out; none may be there twice
/// (RFC 6749 section 3.2).
fn parameters(body: &[u8]) -> Result<HashMap<String, Zeroizing<String>>, Error> {
    let body = std::str::from_utf8(body).map_err(|_| Error::InvalidRequest("the form is not UTF-8"))?;
    let mut form = HashMap::new();
    for pair in body.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
            return Err(Error::InvalidRequest("the form is not UTF-8"));
        };
        if form.insert(name.to_string(), value).is_some() {
            return Err(Error::InvalidRequest("a parameter is there twice"));
        }
    }
    form.retain(|_, value| !value.is_empty());
    Ok(form)
}

/// The client's credentials, by exactly one method.
fn credentials(headers: &HeaderMap, form: &HashMap<String, Zeroizing<String>>) -> Result<Credentials, Error> {
    let (id, secret) = (form.get("client_id"), form.get("client_secret"));
    let mut authorization = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = authorization.next() else {
        let (Some(id), Some(secret)) = (id, secret) else { return Err(Error::InvalidClient) };
        return Ok(Credentials { id: id.to_string(), secret: secret.clone() });
    };
    if authorization.next().is_some() || secret.is_some() {
        return Err(Error::InvalidRequest("more than one way of client authentication"));
    }
    let basic = basic(value).ok_or(Error::InvalidClient)?;
    if id.is_some_and(|id| **id != basic.id) {
        return Err(Error::InvalidRequest("client_id is another than the authenticated one"));
    }
    Ok(basic)
}

/// `Basic` credentials (RFC 7617), each part form-encoded as RFC 6749 section 2.3.1 has it.
fn basic(value: &HeaderValue) -> Option<Credentials> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Zeroizing::new(String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?);
    let (id, secret) = pair.split_once(':')?;
    Some(Credentials { id: decoded(id)?.to_string(), secret: decoded(secret)? })
}

/// A part of a form without its encoding; none if it is not UTF-8.
fn decoded(text: &str) -> Option<Zeroizing<String>> {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8().ok().map(Cow::into_owned).map(Zeroizing::new)
}

/// The scopes asked for, if the client may have all of them; all of its own when it asks for none.
fn granted_scope(client: &Client, asked: Option<&str>) -> Result<Option<String>, Error> {
    let mut granted: Vec<&str> = Vec::new();
    for scope in asked.unwrap_or_default().split(' ').filter(|scope| !scope.is_empty()) {
        if !client.scopes.iter().any(|own| **own == *scope) {
            return Err(Error::InvalidScope);
        }
        if !granted.contains(&scope) {
            granted.push(scope);
        }
    }
    if granted.is_empty() {
        granted = client.scopes.iter().map(|own| &**own).collect();
    }
    Ok((!granted.is_empty()).then(|| granted.join(" ")))
}

fn random_id() -> Result<String, Error> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| Error::Server)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, error, description) = match self {
            Self::InvalidRequest(why) => (StatusCode::BAD_REQUEST, "invalid_request", why),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", "the body is too large"),
            Self::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client", "client authentication failed"),
            Self::UnsupportedGrantType => {
                (StatusCode::BAD_REQUEST, "unsupported_grant_type", "only client_credentials is supported")
            }
            Self::InvalidScope => (StatusCode::BAD_REQUEST, "invalid_scope", "the client may not have that scope"),
            Self::Server => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "no token can be issued now"),
        };
        let body = Json(json!({ "error": error, "error_description": description }));
        let mut response = (status, body).into_response();
        if self == Self::InvalidClient {
            let challenge = HeaderValue::from_static("Basic realm=\"tollgate\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

const MOST_BODY: usize = 64 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
