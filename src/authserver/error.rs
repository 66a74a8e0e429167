//! Why the provider refuses (RFC 6749 section 5.2, RFC 7009 section 2.2.1, RFC 7591 section 3.2.2): one table, one
//! renderer. No answer ever holds a token or a secret.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::{keys, random::NoRandom};
use crate::store::record;

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Error {
    InvalidRequest(&'static str),
    TooLarge,
    InvalidClient,
    InvalidGrant(&'static str),
    UnauthorizedClient(&'static str),
    UnsupportedGrantType,
    InvalidScope,
    /// A bearer that may not do this at `/register`.
    InvalidToken,
    RegistrationOff,
    InvalidRedirectUri,
    InvalidClientMetadata(&'static str),
    UnapprovedSoftwareStatement,
    /// There is no room for another.
    Full(&'static str),
    /// The record cannot be read or written now.
    Unavailable,
    Server,
}

impl Error {
    /// Status, `error` and `error_description`.
    pub(super) const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        match self {
            Self::InvalidRequest(why) => (BAD, "invalid_request", why),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", "the body is too large"),
            Self::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client", "client authentication failed"),
            Self::InvalidGrant(why) => (BAD, "invalid_grant", why),
            Self::UnauthorizedClient(why) => (BAD, "unauthorized_client", why),
            Self::UnsupportedGrantType => (BAD, "unsupported_grant_type", "see grant_types_supported in the metadata"),
            Self::InvalidScope => (BAD, "invalid_scope", "the token may not have that scope"),
            Self::InvalidToken => (StatusCode::UNAUTHORIZED, "invalid_token", "the bearer token may not do this"),
            Self::RegistrationOff => (
                StatusCode::FORBIDDEN,
                "access_denied",
                "clients cannot be registered here: the setting registration is off",
            ),
            Self::InvalidRedirectUri => {
                (BAD, "invalid_redirect_uri", "a redirect URI must be absolute and without a fragment")
            }
            Self::InvalidClientMetadata(why) => (BAD, "invalid_client_metadata", why),
            Self::UnapprovedSoftwareStatement => {
                (BAD, "unapproved_software_statement", "no software statements are approved here")
            }
            Self::Full(why) => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", why),
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", "the record cannot be used now")
            }
            Self::Server => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "this cannot be done now"),
        }
    }
}

impl From<record::Error> for Error {
    fn from(error: record::Error) -> Self {
        tracing::error!(%error, "the embedded provider cannot use its record");
        Self::Unavailable
    }
}

impl From<keys::Error> for Error {
    fn from(error: keys::Error) -> Self {
        tracing::error!(%error, "the embedded provider cannot use its keys");
        Self::Server
    }
}

impl From<NoRandom> for Error {
    fn from(error: NoRandom) -> Self {
        tracing::error!(%error, "the embedded provider cannot make a token");
        Self::Server
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, error, description) = self.parts();
        let mut response = (status, Json(json!({ "error": error, "error_description": description }))).into_response();
        let headers = response.headers_mut();
        match self {
            Self::InvalidClient => {
                let challenge = HeaderValue::from_static("Basic realm=\"tollgate\", charset=\"UTF-8\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::InvalidToken => {
                let challenge = HeaderValue::from_static("Bearer realm=\"tollgate\", error=\"invalid_token\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::Full(_) | Self::Unavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}

/// An answer that nobody keeps (RFC 6749 section 5.1).
pub(super) fn unkept(outcome: Result<impl IntoResponse, Error>) -> Response {
    let mut response = outcome.map_or_else(IntoResponse::into_response, IntoResponse::into_response);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
