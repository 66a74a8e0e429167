//! What a provider's refusal becomes: its own words, bounded, without control characters and without the secrets of the
//! call.

use http::{HeaderValue, StatusCode};
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    keymanager::Error,
    net::client::{Answer, ClientError},
    secret::{is_secret_name, redacted},
};

/// The secrets of one call.
#[derive(Debug, Clone, Default)]
pub(super) struct Secrets(Vec<Zeroizing<String>>);

impl Secrets {
    /// Notes one.
    pub(super) fn note(&mut self, secret: &str) {
        if !secret.is_empty() {
            self.0.push(Zeroizing::new(secret.to_owned()));
        }
    }

    /// Notes what stands in an `Authorization` field, behind its scheme.
    pub(super) fn note_field(&mut self, field: &HeaderValue) {
        let text = field.to_str().unwrap_or_default();
        self.note(text.split_once(' ').map_or(text, |(_, secret)| secret));
    }

    /// Notes a value whose name says that it is one.
    pub(super) fn note_named(&mut self, name: &str, value: &str) {
        if is_secret_name(name) {
            self.note(value);
        }
    }

    /// Notes what stands in a body under names that say so, however deep.
    pub(super) fn note_members(&mut self, body: &Value) {
        match body {
            Value::Object(members) => {
                for (name, value) in members {
                    if is_secret_name(name) { self.note_all(value) } else { self.note_members(value) }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.note_members(item)),
            _ => {}
        }
    }

    fn note_all(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.note(text),
            Value::Number(number) => self.note(&number.to_string()),
            Value::Array(items) => items.iter().for_each(|item| self.note_all(item)),
            Value::Object(members) => members.values().for_each(|member| self.note_all(member)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// The text without them, and without control characters.
    pub(super) fn redact(&self, text: &str) -> String {
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        redacted(&text, self.0.iter().map(|secret| secret.as_str()))
    }
}

/// An answer other than 2xx, for a connector to read.
#[derive(Debug)]
pub(super) struct Refusal<'s> {
    pub(super) status: StatusCode,
    /// What it says, as it may be told.
    pub(super) words: String,
    body: Value,
    secrets: &'s Secrets,
}

impl<'s> Refusal<'s> {
    pub(super) fn new(answer: &Answer, secrets: &'s Secrets) -> Self {
        let status = answer.status;
        let body = serde_json::from_slice(&answer.body).unwrap_or_default();
        let words = words(&body, secrets).unwrap_or_else(|| status.canonical_reason().unwrap_or(NO_WORDS).into());
        Self { status, words, body, secrets }
    }

    /// A text of its body, by JSON pointer (RFC 6901), as it may be told.
    pub(super) fn text(&self, pointer: &str) -> Option<String> {
        let text = self.body.pointer(pointer)?.as_str()?;
        Some(self.secrets.redact(text).chars().take(MOST_CHARACTERS).collect())
    }
}

/// The error that an answer other than 2xx is. `absent`: what there is none of, where the status is 404; `ours`:
/// whether the call was made as ourselves.
pub(super) fn error(answer: &Answer, from: &str, absent: Option<&'static str>, ours: bool, secrets: &Secrets) -> Error {
    let status = answer.status;
    let Refusal { words: detail, body, .. } = Refusal::new(answer, secrets);
    let about_us =
        ["invalid_client", "unauthorized_client"].into_iter().any(|code| body.get("error") == Some(&code.into()));
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if ours => {
            Error::Credentials(format!("{from}: {}: {detail}", status.as_u16()))
        }
        StatusCode::BAD_REQUEST if ours && about_us => Error::Credentials(format!("{from}: 400: {detail}")),
        StatusCode::NOT_FOUND => match absent {
            Some(what) => Error::NotFound(what),
            None => Error::Refused { status: 404, detail },
        },
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Error::Conflict(detail.into()),
        _ if status.is_client_error() || status.is_server_error() => Error::Refused { status: status.as_u16(), detail },
        _ => Error::Answer(format!("{from}: answered {}", status.as_u16())),
    }
}

/// The error that no answer is, or one without end. `reads`: whether the call changes nothing, so that it is all the same
/// whether it was sent.
pub(super) fn unanswered(error: ClientError, reads: bool) -> Error {
    let sent = matches!(error, ClientError::Unreachable { sent: true, .. } | ClientError::TooLarge { .. });
    let error = match error {
        ClientError::TimedOut(place) => Error::TimedOut(place),
        ClientError::TooLarge { .. } => Error::Answer(error.to_string()),
        other => Error::Unreachable(other.to_string()),
    };
    if sent && !reads { error.unclear() } else { error }
}

/// Whether what was asked for may have been done, though the provider says otherwise, or nothing that tells: of a change
/// a redirect and a 5xx say nothing. One that it has no way to do (501) it has not done.
pub(super) const fn may_have_done(error: &Error) -> bool {
    matches!(error, Error::Answer(_) | Error::Refused { status: 300..=399 | 500 | 502.., .. })
}

/// A gateway before the provider that has nobody behind it.
pub(super) const fn is_nobody_there(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Without user, query and fragment, where secrets may stand.
pub(super) fn shown(url: &Url) -> String {
    url.origin().ascii_serialization() + url.path()
}

/// What the provider says, in whichever dialect.
fn words(body: &Value, secrets: &Secrets) -> Option<String> {
    let text = |name: &str| body.get(name)?.as_str().filter(|said| !said.trim().is_empty());
    let said = MEMBERS.iter().find_map(|name| text(name));
    let told = match (text("error"), said) {
        (Some(code), Some(said)) => secrets.redact(&format!("{code}: {said}")),
        (code, said) => secrets.redact(said.or(code)?),
    };
    Some(told.chars().take(MOST_CHARACTERS).collect())
}

/// RFC 6749 and RFC 7591, Keycloak, Okta, WSO2 and Auth0, RFC 9457.
const MEMBERS: [&str; 6] = ["error_description", "errorMessage", "errorSummary", "message", "detail", "description"];
const NO_WORDS: &str = "no reason given";
const MOST_CHARACTERS: usize = 500;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_noted_however_they_stand_under_their_names() {
        let mut secrets = Secrets::default();
        secrets.note_members(&json!({
            "name": "till", "my_secret": ["one-of-a-list"], "credentials": { "value": "one-within" },
            "api_key": 987_654_321_098_u64, "more": [{ "password": "one-deeper" }],
        }));
        let said = "till: one-of-a-list, one-within, 987654321098, one-deeper";
        assert_eq!(secrets.redact(said), "till: [redacted], [redacted], [redacted], [redacted]");
        secrets.note("s3+cret/of=ours");
        let echoed = r#"client_secret=s3%2Bcret%2Fof%3Dours is not \"s3\u002bcret\/of=ours\""#;
        assert_eq!(secrets.redact(echoed), r#"client_secret=[redacted] is not \"[redacted]\""#);
    }
}
