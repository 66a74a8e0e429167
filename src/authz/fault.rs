//! A refusal as an HTTP answer: WSO2's body or RFC 9457's, and gRPC's way of saying no.
//!
//! The only place that turns a [`Denial`] into a response; no door writes one of its own.

use std::{
    borrow::Cow,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, InvalidHeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode_byte, utf8_percent_encode};
use serde::Serialize;
use smallvec::SmallVec;

use super::{Denial, Found};
use crate::{
    net::{Fields, Now, message::Response},
    store::{FaultFormat, QuotaKind},
    throttle::Usage,
};

/// The answer to a refused request. `kind` is the request's content type: `application/grpc*` is answered HTTP 200 with
/// `grpc-status`.
pub fn render(denial: &Denial, found: &Found, kind: Option<&HeaderValue>, now: Now) -> Response<Bytes> {
    let format = found.api().map_or(found.tables.gate.fault_format, |api| api.fault_format);
    let mut response = plain(denial, format, kind, now);
    let fields = &mut response.fields;
    if let Some(challenge) = challenge(denial, found) {
        fields.push(&WWW_AUTHENTICATE, &challenge);
    }
    if let Some(usage) = quota_of(denial) {
        rate_limit(usage, found.tables.gate.x_ratelimit, fields);
    }
    if *denial == Denial::Method {
        fields.push(&ALLOW, &HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    response
}

/// The same of what a request's own tables say nothing of: a failure after the verdict.
pub fn plain(denial: &Denial, format: FaultFormat, kind: Option<&HeaderValue>, now: Now) -> Response<Bytes> {
    let mut response = if kind.is_some_and(is_grpc) { grpc(denial) } else { http(denial, format, now) };
    let fields = &mut response.fields;
    if let Some(seconds) = retry_after(denial) {
        fields.push(&RETRY_AFTER, &HeaderValue::from(seconds));
    }
    fields.push(&CACHE_CONTROL, &HeaderValue::from_static("no-store"));
    response
}

/// Media types are the same in any case (RFC 9110 section 8.3.1).
fn is_grpc(kind: &HeaderValue) -> bool {
    kind.as_bytes().get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// The quota of the caller that has no room; what an upstream gets is none of theirs.
fn quota_of(denial: &Denial) -> Option<&Usage> {
    denial.usage().filter(|_| denial.status() == StatusCode::TOO_MANY_REQUESTS)
}

/// Sets `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), and where the gate says so,
/// `X-RateLimit-Limit`, `-Remaining` and `-Reset`, the last in seconds from now. An upstream's own of the same draft's
/// earlier versions go: of two quotas in one answer nobody could tell which holds.
pub fn rate_limit(usage: &Usage, x_ratelimit: bool, fields: &mut Fields) {
    structured(usage, fields);
    if x_ratelimit {
        let Usage { limit, remaining, reset_s, .. } = usage;
        fields.set(&X_RATELIMIT_LIMIT, &HeaderValue::from(*limit));
        fields.set(&X_RATELIMIT_REMAINING, &HeaderValue::from(*remaining));
        fields.set(&X_RATELIMIT_RESET, &HeaderValue::from(*reset_s));
    }
}

/// While Redis is away, and this sidecar counts alone, the policy has the parameter `alone`.
fn structured(usage: &Usage, fields: &mut Fields) {
    let Usage { tier, kind, limit, window_s, remaining, reset_s, alone } = usage;
    let unit = match kind {
        QuotaKind::Requests => "",
        QuotaKind::Bytes => ";qu=\"content-bytes\"",
        QuotaKind::Events => ";qu=\"events\"",
        QuotaKind::Tokens => ";qu=\"tokens\"",
    };
    let alone = if *alone { ";alone" } else { "" };
    let policy = item(tier, [("q", *limit), ("w", *window_s)], &[unit, alone]);
    let state = item(tier, [("r", *remaining), ("t", *reset_s)], &[]);
    if let (Ok(policy), Ok(state)) = (policy, state) {
        fields.set(&RATE_LIMIT_POLICY, &policy);
        fields.set(&RATE_LIMIT, &state);
        EARLIER.iter().for_each(|name| fields.remove(name));
    }
}

/// A quoted name, parameters and what follows (RFC 9651). What its strings cannot hold is percent-encoded, as in the
/// identity header of a tier. Not by `format!`, which costs more: every answer may tell its
/// quota.
fn item(name: &str, parameters: [(&str, u64); 2], rest: &[&str]) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut text = SmallVec::<[u8; 128]>::new();
    text.push(b'"');
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' => text.extend_from_slice(&[b'\\', byte]),
            b' ' | b'!'..=b'~' => text.push(byte),
            _ => text.extend_from_slice(percent_encode_byte(byte).as_bytes()),
        }
    }
    text.push(b'"');
    for (parameter, value) in parameters {
        text.push(b';');
        text.extend_from_slice(parameter.as_bytes());
        text.push(b'=');
        text.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
    rest.iter().for_each(|rest| text.extend_from_slice(rest.as_bytes()));
    HeaderValue::from_bytes(&text)
}

/// Trailers-only, as gRPC over HTTP/2 wants it.
fn grpc(denial: &Denial) -> Response<Bytes> {
    let message = utf8_percent_encode(denial.message(), GRPC_MESSAGE).to_string();
    let mut fields = Fields::default();
    fields.push(&CONTENT_TYPE, &HeaderValue::from_static("application/grpc"));
    fields.push(&GRPC_STATUS, &HeaderValue::from(u16::from(denial.grpc_status())));
    if let Ok(message) = HeaderValue::try_from(message) {
        fields.push(&GRPC_MESSAGE_FIELD, &message);
    }
    Response { fields, ..Response::new(Bytes::new()) }
}

fn http(denial: &Denial, format: FaultFormat, now: Now) -> Response<Bytes> {
    let (body, content_type) = match format {
        FaultFormat::Wso2 => (written(&wso2(denial, now)), "application/json"),
        FaultFormat::Problem => (written(&problem(denial, now)), "application/problem+json"),
    };
    let mut fields = Fields::with_capacity(FIELDS, FIELD_BYTES);
    fields.push(&CONTENT_TYPE, &HeaderValue::from_static(content_type));
    Response { status: denial.status(), fields, ..Response::new(body) }
}

fn written(body: &impl Serialize) -> Bytes {
    let mut text = Vec::with_capacity(BODY);
    serde_json::to_writer(&mut text, body).expect("texts and numbers are JSON, and memory takes them");
    text.into()
}

/// WSO2's body; the code is a string there.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wso2 {
    code: &'static str,
    message: &'static str,
    description: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_access_time: Option<String>,
}

/// RFC 9457.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_access_time: Option<String>,
}

fn wso2(denial: &Denial, now: Now) -> Wso2 {
    let next_access_time = next_access_time(denial, now);
    let description = describe(denial, next_access_time.as_deref());
    Wso2 { code: denial.code(), message: denial.message(), description, next_access_time }
}

fn problem(denial: &Denial, now: Now) -> Problem {
    let (status, next_access_time) = (denial.status(), next_access_time(denial, now));
    let description = describe(denial, next_access_time.as_deref());
    Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        detail: [denial.message(), ". ", &description].concat(),
        code: denial.code(),
        next_access_time,
    }
}

fn describe(denial: &Denial, next_access_time: Option<&str>) -> Cow<'static, str> {
    let description = denial.description();
    next_access_time.map_or(Cow::Borrowed(description), |time| {
        Cow::Owned([description, ". You can access the API after ", time].concat())
    })
}

/// RFC 6750 section 3; RFC 9110 section 11.6.1: a 401 always has one.
fn challenge(denial: &Denial, found: &Found) -> Option<HeaderValue> {
    let realm = &found.tables.gate.realm;
    let mut text = match denial {
        Denial::NoCredential | Denial::SubscriptionBlocked | Denial::SubscriptionInactive => {
            format!("Bearer realm=\"{realm}\"")
        }
        Denial::Token(_) | Denial::AuthLevel | Denial::NoEnvironment => {
            format!("Bearer realm=\"{realm}\", error=\"invalid_token\"")
        }
        Denial::Credentials => format!("Bearer realm=\"{realm}\", error=\"invalid_request\""),
        Denial::Scope => {
            let scopes = found.resource().map_or_else(String::new, |resource| resource.scopes.join(" "));
            format!("Bearer realm=\"{realm}\", error=\"insufficient_scope\", scope=\"{scopes}\"")
        }
        Denial::SignIn => {
            format!("Bearer realm=\"{realm}\", error=\"insufficient_user_authentication\"{}", sign_in(found))
        }
        _ => return None,
    };
    // RFC 9728 section 5.1: as configured, whatever host was asked for.
    if let Some(metadata) = found.api().and_then(|api| api.metadata.as_deref()) {
        text += &format!(", resource_metadata=\"{}\"", metadata.url);
    }
    HeaderValue::try_from(text).ok()
}

/// The sign-in that the resource asks for (RFC 9470 section 3).
fn sign_in(found: &Found) -> String {
    let Some(sign_in) = found.resource().and_then(|resource| resource.sign_in.as_deref()) else { return String::new() };
    let mut text = String::new();
    if !sign_in.acr_values.is_empty() {
        text += &format!(", acr_values=\"{}\"", sign_in.acr_values.join(" "));
    }
    if let Some(seconds) = sign_in.max_age_s {
        text += &format!(", max_age=\"{seconds}\"");
    }
    text
}

fn retry_after(denial: &Denial) -> Option<u64> {
    match denial {
        Denial::Overloaded | Denial::Uncounted => Some(1),
        Denial::Unavailable { retry_after } => Some(u64::from(*retry_after).max(1)),
        _ => denial.usage().map(|usage| usage.reset_s.max(1)),
    }
}

/// WSO2's form: `2026-Nov-23 15:16:32+0000 UTC`.
fn next_access_time(denial: &Denial, now: Now) -> Option<String> {
    let at = now.unix().saturating_add(quota_of(denial)?.reset_s).min(LAST_DATE);
    let at = UNIX_EPOCH + Duration::from_secs(at);
    let date = httpdate::fmt_http_date(at); // Mon, 23 Nov 2026 15:16:32 GMT
    let (day, month, year, time) = (date.get(5..7)?, date.get(8..11)?, date.get(12..16)?, date.get(17..25)?);
    Some([year, "-", month, "-", day, " ", time, "+0000 UTC"].concat())
}

const GRPC: &[u8] = b"application/grpc";
/// What gRPC allows unencoded in `grpc-message`.
const GRPC_MESSAGE: &AsciiSet = &CONTROLS.add(b'%');
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE_FIELD: HeaderName = HeaderName::from_static("grpc-message");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// As draft-ietf-httpapi-ratelimit-headers had them up to version 6.
const EARLIER: [&str; 3] = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"];
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// Room for a refusal's body, in bytes, and for its header fields.
const BODY: usize = 256;
const FIELDS: usize = 10;
const FIELD_BYTES: usize = 512;
/// The last second of the year 9999, beyond which there is no HTTP date.
const LAST_DATE: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::{Level, Throttled};

    #[test]
    fn next_access_time_is_in_wso2s_form() {
        let kind = QuotaKind::Requests;
        let usage =
            Usage { tier: "Gold".into(), kind, limit: 5000, window_s: 60, remaining: 0, reset_s: 28, alone: false };
        let denial = Denial::Throttled(Throttled { level: Level::Subscription, burst: false, usage });
        let now = Now::at_ms(1_795_447_092_000);
        assert_eq!(next_access_time(&denial, now).as_deref(), Some("2026-Nov-23 15:18:40+0000 UTC"));
        assert_eq!(next_access_time(&Denial::NoApi, now), None);
    }

    #[test]
    fn rate_limit_fields_are_structured() {
        let kind = QuotaKind::Requests;
        let mut usage =
            Usage { tier: "G\"x".into(), kind, limit: 5, window_s: 60, remaining: 0, reset_s: 37, alone: false };
        let mut fields = Fields::default();
        for name in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "x-ratelimit-limit", "ratelimit"] {
            fields.push(&HeaderName::from_static(name), &HeaderValue::from_static("upstream's"));
        }
        rate_limit(&usage, false, &mut fields);
        assert_eq!(fields.len(), 3, "of the upstream's, X-RateLimit-Limit alone: {fields:?}");
        assert_eq!(fields.get("x-ratelimit-limit"), Some(&b"upstream's"[..]));
        assert_eq!(fields.get("ratelimit-policy"), Some(&br#""G\"x";q=5;w=60"#[..]));
        assert_eq!(fields.get("ratelimit"), Some(&br#""G\"x";r=0;t=37"#[..]));
        usage.tier = "Zo\u{eb} 1%\n".into();
        structured(&usage, &mut fields);
        assert_eq!(fields.get("ratelimit"), Some(&br#""Zo%C3%AB 1%%0A";r=0;t=37"#[..]));
        usage.tier = "G\"x".into();
        usage.kind = QuotaKind::Bytes;
        structured(&usage, &mut fields);
        let policy = fields.get("ratelimit-policy");
        assert_eq!(policy, Some(&br#""G\"x";q=5;w=60;qu="content-bytes""#[..]));
    }
}
