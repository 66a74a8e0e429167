//! What is answered: JSON, or a problem (RFC 9457). The only place where an error of the engine becomes a status.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::keymanager::{Done, Error, Operation, Ready, fingerprint};

/// Problem details (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind it is.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: Blank,
    /// The status in words.
    #[schema(value_type = String)]
    pub title: &'static str,
    /// The status.
    pub status: u16,
    /// What is wrong this time.
    pub detail: String,
    /// WSO2's code where it has one, else the status.
    pub code: String,
    /// The field that is wrong, or that something stands against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// How soon it may be tried again, and what to bring.
    #[serde(skip)]
    pub headers: Vec<(header::HeaderName, String)>,
}

/// `about:blank`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blank;

impl Serialize for Blank {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("about:blank")
    }
}

/// An answer that is no problem.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// JSON text; none: no body.
    pub(super) body: Option<Bytes>,
    /// An `ETag`, by which a change may be made to depend on what was read.
    pub(super) tag: Option<String>,
}

pub(super) type Answer = Result<Reply, Problem>;

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: Blank,
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code: status.as_str().into(),
            field: None,
            headers: Vec::new(),
        }
    }

    pub(super) fn field(field: impl Into<String>, why: impl Into<String>) -> Self {
        let (field, why) = (field.into(), why.into());
        Self { field: Some(field.clone()), ..Self::new(StatusCode::BAD_REQUEST, format!("{field}: {why}")) }
    }

    /// The field names what is not there.
    pub(super) fn unknown(field: &str, why: impl Into<String>) -> Self {
        let Self { field, detail, .. } = Self::field(field, why);
        Self { field, ..Self::new(StatusCode::NOT_FOUND, detail) }
    }

    pub(super) fn code(self, code: &str) -> Self {
        Self { code: code.into(), ..self }
    }

    pub(super) fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        let problem = |status| Self::new(status, detail.clone());
        match &error {
            Error::SwitchedOff { operation: Operation::CreateApplication, .. } => {
                problem(StatusCode::NOT_IMPLEMENTED).code("901405")
            }
            Error::Unsupported { .. } | Error::SwitchedOff { .. } => {
                problem(StatusCode::NOT_IMPLEMENTED).code("901413")
            }
            Error::Invalid { field, why, code } => Self::field(field.clone(), why.clone()).code(code.unwrap_or("400")),
            Error::NotFound(_) | Error::Missing { .. } => problem(StatusCode::NOT_FOUND),
            Error::Conflict(clash) => {
                Self { field: clash.field.as_deref().map(str::to_owned), ..problem(StatusCode::CONFLICT) }
            }
            Error::Refused { status, .. } => match StatusCode::from_u16(*status) {
                Ok(status) if matches!(status.as_u16(), 400 | 404 | 409 | 422) => problem(status),
                _ => problem(StatusCode::BAD_GATEWAY),
            },
            Error::Revoked(why) => Self { detail, ..Self::from((**why).clone()) },
            // Not 503, which invites to do it again.
            Error::Unclear(why) => {
                let status = match **why {
                    Error::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
                    _ => StatusCode::BAD_GATEWAY,
                };
                Self::new(status, format!("{detail}: {LISTED}"))
            }
            Error::Credentials(_) | Error::Answer(_) | Error::HalfDone { .. } => problem(StatusCode::BAD_GATEWAY),
            Error::LeftAlone { wait } => {
                problem(StatusCode::SERVICE_UNAVAILABLE).header(header::RETRY_AFTER, wait.to_string())
            }
            Error::Unreachable(_) => problem(StatusCode::SERVICE_UNAVAILABLE).header(header::RETRY_AFTER, "5"),
            Error::TimedOut(_) => problem(StatusCode::GATEWAY_TIMEOUT),
            Error::Record(_) => problem(StatusCode::SERVICE_UNAVAILABLE).header(header::RETRY_AFTER, "1"),
        }
    }
}

/// What the engine has done about what nobody knows.
const LISTED: &str = "GET /v1/key-managers/{km}/pending lists it until someone has looked";

impl Reply {
    pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        // Strings, numbers and maps of them are always JSON.
        Self { status, body: serde_json::to_vec(body).ok().map(Bytes::from), tag: None }
    }

    pub(super) fn ok(body: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, body)
    }

    pub(super) const fn empty(status: StatusCode) -> Self {
        Self { status, body: None, tag: None }
    }

    /// With an `ETag`.
    pub(super) fn tagged(self) -> Self {
        Self { tag: self.body.as_deref().map(|text| quoted(&fingerprint(text))), ..self }
    }

    /// An answer that was kept ready, with its `ETag`.
    pub(super) fn ready(answer: &Ready) -> Self {
        Self { status: StatusCode::OK, body: Some(answer.text.clone()), tag: Some(quoted(&answer.fingerprint)) }
    }

    /// What was done with `status`; a dry run's plan with 200.
    pub(super) fn done<T: Serialize>(status: StatusCode, done: Done<T>) -> Self {
        match done {
            Done::Did(gave) if status == StatusCode::NO_CONTENT => {
                drop(gave);
                Self::empty(status)
            }
            Done::Did(gave) => Self::json(status, &gave),
            Done::Would(plan) => Self::ok(&plan),
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let Some(body) = self.body else { return self.status.into_response() };
        let mut response = respond(self.status, "application/json", body);
        if let Some(tag) = self.tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default().into();
        let mut response = respond(status, "application/problem+json", body);
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

fn respond(status: StatusCode, kind: &'static str, text: Bytes) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")];
    (status, headers, text).into_response()
}

/// A strong tag of what was read.
pub(super) fn etag(read: &impl Serialize) -> String {
    quoted(&fingerprint(&serde_json::to_vec(read).unwrap_or_default()))
}

fn quoted(fingerprint: &str) -> String {
    format!("\"{fingerprint}\"")
}
