//! What a client brings: a bounded body, a form without repetitions, and proof of who it is
//! (`client_secret_basic` or `client_secret_post`, RFC 6749 section 2.3.1).

use std::{borrow::Cow, collections::HashMap, time::Duration};

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{
    Provider,
    clients::{Client, GrantType, Lifetimes},
    error::Error,
    terms::{self, Terms},
};

/// The parameters of a form.
pub(super) struct Form(HashMap<String, Zeroizing<String>>);

/// An authenticated client.
pub(super) struct Caller {
    pub(super) id: String,
    /// Scopes it may ask for.
    pub(super) scopes: Vec<Box<str>>,
    /// Grants it may use; none given: all.
    pub(super) grants: Option<Vec<GrantType>>,
    /// Whether it may ask for any scope that is registered.
    pub(super) any_scope: bool,
    /// Whether the Key Manager gave it its scopes.
    pub(super) managed: bool,
    /// How long its tokens live, where that is less than the provider's own lifetimes.
    pub(super) lifetimes: Lifetimes,
}

impl Caller {
    /// A client of the configuration.
    pub(super) fn configured(id: String, client: &terms::Client) -> Self {
        let (scopes, lifetimes) = (client.scopes.clone(), Lifetimes::default());
        Self { id, scopes, grants: None, any_scope: false, managed: false, lifetimes }
    }

    /// Any other.
    pub(super) fn recorded(client: Client, terms: &Terms) -> Self {
        let managed = client.platform.managed;
        let may_have = |scope: &&str| managed || terms.registration_scopes.iter().any(|allowed| **allowed == **scope);
        Self {
            scopes: client.scopes().filter(may_have).map(Into::into).collect(),
            any_scope: client.platform.any_scope,
            managed,
            lifetimes: client.platform.lifetimes,
            grants: Some(client.grant_types),
            id: client.client_id,
        }
    }
}

/// What a client brings to prove itself.
pub(super) struct Credentials {
    pub(super) id: String,
    pub(super) secret: Zeroizing<String>,
}

/// The form of a request, and whose it is.
pub(super) async fn authenticated(provider: &Provider, request: Request<Body>) -> Result<(Caller, Form), Error> {
    let (credentials, form) = brought(request).await?;
    Ok((authenticate(provider, &credentials)?, form))
}

/// The form of a request, and whose it claims to be.
pub(super) async fn brought(request: Request<Body>) -> Result<(Credentials, Form), Error> {
    let (headers, body) = body(request, "application/x-www-form-urlencoded").await?;
    let form = Form::parse(&body)?;
    Ok((credentials(&headers, &form)?, form))
}

/// The header fields and the body, bounded in size and time, if it is of this media type.
pub(super) async fn body(request: Request<Body>, expected: &'static str) -> Result<(HeaderMap, Bytes), Error> {
    let (parts, body) = request.into_parts();
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case(expected) {
        return Err(Error::InvalidRequest(match expected {
            "application/json" => "the content type must be application/json",
            _ => "the content type must be application/x-www-form-urlencoded",
        }));
    }
    match timeout(BODY_TIMEOUT, Limited::new(body, MOST_BODY).collect()).await {
        Ok(Ok(body)) => Ok((parts.headers, body.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Error::TooLarge),
        _ => Err(Error::InvalidRequest("the body did not arrive whole")),
    }
}

/// The one bearer token of a request (RFC 6750 section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, token) = all.next()?.to_str().ok()?.split_once(' ')?;
    (all.next().is_none() && scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}

/// The client whose secret this is: of the configuration, or registered. The same is done for every id and secret:
/// no time tells which ids there are.
pub(super) fn authenticate(provider: &Provider, credentials: &Credentials) -> Result<Caller, Error> {
    let Credentials { id, secret } = credentials;
    let terms = provider.terms.load();
    let configured = terms.authenticate(id, secret);
    let registered = provider.state()?.authenticate(id, secret, provider.clock.now().unix());
    if let Some(client) = configured {
        return Ok(Caller::configured(id.clone(), client));
    }
    // An id of the configuration is never another's, and no client is taken for a user.
    let free = !terms.has_client(id) && terms.user(id).is_none();
    let client = registered?.filter(|_| free).ok_or(Error::InvalidClient)?;
    Ok(Caller::recorded(client, &terms))
}

impl Form {
    /// The form of these parameters; those without a value are left out.
    pub(super) fn of<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let filled = parameters.into_iter().filter(|(_, value)| !value.is_empty());
        Self(filled.map(|(name, value)| (name.to_owned(), Zeroizing::new(value.to_owned()))).collect())
    }

    /// One without a value is as one left out; none may be there twice (RFC 6749 section 3.2).
    fn parse(body: &[u8]) -> Result<Self, Error> {
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
        Ok(Self(form))
    }

    /// A parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.as_str())
    }
}

/// The client's credentials, by exactly one method.
fn credentials(headers: &HeaderMap, form: &Form) -> Result<Credentials, Error> {
    let (id, secret) = (form.get("client_id"), form.get("client_secret"));
    let mut authorization = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = authorization.next() else {
        let (Some(id), Some(secret)) = (id, secret) else { return Err(Error::InvalidClient) };
        return Ok(Credentials { id: id.to_owned(), secret: Zeroizing::new(secret.to_owned()) });
    };
    if authorization.next().is_some() || secret.is_some() {
        return Err(Error::InvalidRequest("more than one way of client authentication"));
    }
    let basic = basic(value).ok_or(Error::InvalidClient)?;
    if id.is_some_and(|id| *id != *basic.id) {
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

const MOST_BODY: usize = 64 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
