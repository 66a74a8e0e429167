//! Every "no", in one table: status, code, label, words, gRPC status (design, "Refusals").

use http::StatusCode;

use crate::{
    store::{DeniedBy, PathFlaw, QuotaKind},
    throttle::{Level, Throttled, Unable, Usage},
    token::{Flaw, Flood, Rejection},
};

/// Why a request does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// The path has no canonical form.
    Path(PathFlaw),
    /// Host missing, twice, malformed, or other than the request target's authority; a target of another scheme than http
    /// and https.
    Host,
    /// A verb that is never proxied (CONNECT).
    Method,
    /// More than one credential.
    Credentials,
    /// A credential is needed and there is none.
    NoCredential,
    /// The token is no good.
    Token(Flaw),
    /// An application's token where a user's is needed, or the reverse.
    AuthLevel,
    /// The key type has no upstream.
    NoEnvironment,
    /// The subscription is BLOCKED or PROD_ONLY_BLOCKED.
    SubscriptionBlocked,
    /// The subscription is ON_HOLD or REJECTED.
    SubscriptionInactive,
    /// No application, or no subscription of it.
    NotSubscribed,
    /// The API's own audience is not in the token.
    ApiAudience,
    /// The resource's scopes are not in the token.
    Scope,
    /// The token's user has not signed in as the resource asks, or too long ago (RFC 9470).
    SignIn,
    /// No API is served there.
    NoApi,
    /// No template or verb matches.
    NoResource,
    /// A deny condition names the caller, or what is called.
    Denied(DeniedBy),
    /// A tier has no room.
    Throttled(Throttled),
    /// The client address has brought too many bad opaque tokens: this one was not asked about.
    Flooded(Usage),
    /// Too many new tokens wait for their signature check: this one was not judged.
    Overloaded,
    /// Something the verdict needs cannot be had now.
    Unavailable {
        /// Seconds after which a retry may help, at least 1.
        retry_after: u32,
    },
    /// Counters are shared, what all have counted cannot be had now, and `shared.on_outage` lets nobody pass without.
    Uncounted,
    /// Our own fault.
    Internal,
    /// The upstream refused, reset or spoke nonsense.
    UpstreamFailed,
    /// The upstream took too long.
    UpstreamTimedOut,
    /// The head is too large.
    HeaderTooLarge,
    /// The request target is too long.
    UriTooLong,
    /// The body is too large.
    BodyTooLarge,
}

/// One line of the table.
struct Row {
    status: StatusCode,
    /// WSO2's code where it has one, else the status.
    code: &'static str,
    reason: &'static str,
    grpc: u8,
    message: &'static str,
    description: &'static str,
}

/// `google.rpc.Code`, as gRPC maps it to HTTP.
mod grpc {
    pub(super) const INVALID_ARGUMENT: u8 = 3;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
    pub(super) const UNAUTHENTICATED: u8 = 16;
}

impl Denial {
    /// HTTP status.
    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// WSO2's code where it has one, else the status.
    pub fn code(&self) -> &'static str {
        self.row().code
    }

    /// Metric and log label: bounded.
    pub fn reason(&self) -> &'static str {
        self.row().reason
    }

    /// `refused`, or `failed` where it was not the request's doing.
    pub fn outcome(&self) -> &'static str {
        if self.status().is_server_error() { "failed" } else { "refused" }
    }

    /// What happened, in WSO2's words where it has some.
    pub fn message(&self) -> &'static str {
        self.row().message
    }

    /// What the caller can do about it.
    pub fn description(&self) -> &'static str {
        self.row().description
    }

    /// gRPC status.
    pub fn grpc_status(&self) -> u8 {
        self.row().grpc
    }

    /// The limit that has no room, where it is one.
    pub fn usage(&self) -> Option<&Usage> {
        match self {
            Self::Throttled(throttled) => Some(&throttled.usage),
            Self::Flooded(usage) => Some(usage),
            _ => None,
        }
    }

    /// Place of `reason` among all reasons, from 1; below 63. Granted requests have 0, those whose client did
    /// not wait for the verdict 63.
    pub fn reason_index(&self) -> usize {
        match self {
            Self::Path(_) => 1,
            Self::Host => 2,
            Self::Method => 3,
            Self::Credentials => 4,
            Self::NoCredential => 5,
            Self::NoEnvironment => 6,
            Self::SubscriptionBlocked => 7,
            Self::SubscriptionInactive => 8,
            Self::NotSubscribed => 9,
            Self::ApiAudience => 10,
            Self::Scope => 11,
            Self::NoApi => 12,
            Self::NoResource => 13,
            Self::Unavailable { .. } => 14,
            Self::Internal => 15,
            Self::UpstreamFailed => 16,
            Self::UpstreamTimedOut => 17,
            Self::HeaderTooLarge => 18,
            Self::UriTooLong => 19,
            Self::BodyTooLarge => 20,
            Self::Flooded(_) => 29,
            // Below the flaws of tokens, above the levels of throttling.
            Self::SignIn => 30,
            Self::AuthLevel => 31,
            // Above the flaws, which grow.
            Self::Denied(_) => 61,
            Self::Uncounted => 58,
            Self::Throttled(Throttled { level: Level::Custom, .. }) => 60,
            Self::Throttled(Throttled { level: Level::Backend, .. }) => 59,
            Self::Throttled(throttled) => 21 + 2 * throttled.level as usize + usize::from(throttled.burst),
            Self::Token(flaw) => 32 + *flaw as usize,
            // Above them.
            Self::Overloaded => 62,
        }
    }

    #[rustfmt::skip] // a table
    fn row(&self) -> Row {
        use StatusCode as S;
        let row = |status, code, reason, grpc, message, description| Row { status, code, reason, grpc, message, description };
        match self {
            Self::Path(flaw) => row(S::BAD_REQUEST, "400", "bad_path", grpc::INVALID_ARGUMENT, "Bad Request", describe_path(*flaw)),
            Self::Host => row(S::BAD_REQUEST, "400", "bad_host", grpc::INVALID_ARGUMENT, "Bad Request", "The request must name exactly one host, the same in Host and in a request target of http or https"),
            Self::Method => row(S::METHOD_NOT_ALLOWED, "405", "method", grpc::UNIMPLEMENTED, "Method Not Allowed", "This method is not served here"),
            Self::Credentials => row(S::BAD_REQUEST, "400", "two_credentials", grpc::INVALID_ARGUMENT, "Bad Request", "The request must carry exactly one credential"),
            Self::NoCredential => row(S::UNAUTHORIZED, "900902", "no_credential", grpc::UNAUTHENTICATED, "Missing Credentials", "Provide an access token: Authorization: Bearer ACCESS_TOKEN"),
            Self::Token(flaw) => row(S::UNAUTHORIZED, "900901", flaw.label(), grpc::UNAUTHENTICATED, "Invalid Credentials", "Make sure you have provided the correct security credentials"),
            Self::AuthLevel => row(S::UNAUTHORIZED, "900905", "auth_level", grpc::UNAUTHENTICATED, "Incorrect Access Token Type is provided", "The resource needs another type of access token: an application's own, or a user's"),
            Self::NoEnvironment => row(S::UNAUTHORIZED, "900901", "no_environment", grpc::UNAUTHENTICATED, "Invalid Credentials", "The API has no endpoint for this type of key"),
            Self::SubscriptionBlocked => row(S::UNAUTHORIZED, "900907", "subscription_blocked", grpc::UNAUTHENTICATED, "The requested API is temporarily blocked", "The application's subscription to the API is blocked"),
            Self::SubscriptionInactive => row(S::UNAUTHORIZED, "900909", "subscription_inactive", grpc::UNAUTHENTICATED, "The subscription to the API is inactive", "The application's subscription to the API is on hold or rejected"),
            Self::NotSubscribed => row(S::FORBIDDEN, "900908", "not_subscribed", grpc::PERMISSION_DENIED, "Resource forbidden", "The application is not subscribed to the API"),
            Self::ApiAudience => row(S::FORBIDDEN, "900914", "api_audience", grpc::PERMISSION_DENIED, "Access Denied", "The access token is not meant for this API"),
            Self::Scope => row(S::FORBIDDEN, "900910", "scope", grpc::PERMISSION_DENIED, "The access token does not allow you to access the requested resource", "The access token lacks a scope that the resource needs"),
            Self::SignIn => row(S::UNAUTHORIZED, "900901", "sign_in", grpc::UNAUTHENTICATED, "Invalid Credentials", "The resource needs a stronger or a more recent sign-in of the user"),
            Self::NoApi => row(S::NOT_FOUND, "404", "no_api", grpc::UNIMPLEMENTED, "Not Found", "No API is served at this path"),
            Self::NoResource => row(S::FORBIDDEN, "900906", "no_resource", grpc::PERMISSION_DENIED, "No matching resource found in the API for the given request", "Check the path and the method against the API's definition"),
            Self::Denied(_) => row(S::FORBIDDEN, "900805", "denied", grpc::PERMISSION_DENIED, "Message blocked", "You have been blocked from accessing the resource"),
            Self::Throttled(Throttled { level: Level::Backend, .. }) => row(S::SERVICE_UNAVAILABLE, "900801", "throttled_backend", grpc::UNAVAILABLE, "API Limit Reached", "API not accepting requests"),
            Self::Throttled(throttled) => {
                let (code, reason) = throttle_code(throttled);
                row(S::TOO_MANY_REQUESTS, code, reason, grpc::RESOURCE_EXHAUSTED, "Message throttled out", "You have exceeded your quota")
            }
            Self::Flooded(_) => row(S::TOO_MANY_REQUESTS, "429", "too_many_failures", grpc::RESOURCE_EXHAUSTED, "Too Many Requests", "Too many invalid access tokens have come from this address"),
            Self::Overloaded => row(S::SERVICE_UNAVAILABLE, "900900", "overloaded", grpc::UNAVAILABLE, "Unclassified Authentication Failure", "Too many new access tokens wait to be verified: try again"),
            Self::Unavailable { .. } => row(S::SERVICE_UNAVAILABLE, "900900", "unavailable", grpc::UNAVAILABLE, "Unclassified Authentication Failure", "The credentials cannot be verified at the moment"),
            Self::Uncounted => row(S::SERVICE_UNAVAILABLE, "900900", "limits_unavailable", grpc::UNAVAILABLE, "Limits Cannot Be Counted", "The limits of this request cannot be counted at the moment: try again"),
            Self::Internal => row(S::INTERNAL_SERVER_ERROR, "900900", "internal", grpc::INTERNAL, "Unclassified Authentication Failure", "Internal error"),
            Self::UpstreamFailed => row(S::BAD_GATEWAY, "101503", "upstream_failed", grpc::UNAVAILABLE, "Bad Gateway", "The upstream cannot be reached or broke off"),
            Self::UpstreamTimedOut => row(S::GATEWAY_TIMEOUT, "101504", "upstream_timed_out", grpc::DEADLINE_EXCEEDED, "Gateway Timeout", "The upstream did not answer in time"),
            Self::HeaderTooLarge => row(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "431", "header_too_large", grpc::RESOURCE_EXHAUSTED, "Request Header Fields Too Large", "The header fields of the request are too large or too many"),
            Self::UriTooLong => row(S::URI_TOO_LONG, "414", "uri_too_long", grpc::RESOURCE_EXHAUSTED, "URI Too Long", "The request target is too long"),
            Self::BodyTooLarge => row(S::PAYLOAD_TOO_LARGE, "413", "body_too_large", grpc::RESOURCE_EXHAUSTED, "Content Too Large", "The body of the request is too large"),
        }
    }
}

/// WSO2's code of a throttled level; bursts of API and resource tiers have none of their own.
fn throttle_code(throttled: &Throttled) -> (&'static str, &'static str) {
    match (throttled.level, throttled.burst) {
        (Level::Api, false) => ("900800", "throttled_api"),
        (Level::Api, true) => ("900800", "throttled_api_burst"),
        (Level::Resource, false) => ("900802", "throttled_resource"),
        (Level::Resource, true) => ("900802", "throttled_resource_burst"),
        (Level::Subscription, false) => ("900804", "throttled_subscription"),
        (Level::Subscription, true) => ("900807", "throttled_subscription_burst"),
        (Level::Application, false) => ("900803", "throttled_application"),
        (Level::Application, true) => ("900809", "throttled_application_burst"),
        (Level::Custom, _) => ("900806", "throttled_custom"),
        (Level::Backend, _) => ("900801", "throttled_backend"),
    }
}

fn describe_path(flaw: PathFlaw) -> &'static str {
    match flaw {
        PathFlaw::NoLeadingSlash => "The path must begin with a slash",
        PathFlaw::EncodedSlash => "The path must not hold an encoded slash or backslash",
        PathFlaw::Backslash => "The path must not hold a backslash",
        PathFlaw::Control => "The path must not hold control characters",
        PathFlaw::Encoding => "The path must not hold a malformed percent-encoding",
        PathFlaw::Utf8 => "The path must be valid UTF-8",
        PathFlaw::Fragment => "The path must not hold a fragment",
        PathFlaw::DotSegment => "The path must not hold dot segments",
        PathFlaw::EmptySegment => "The path must not hold empty segments",
        PathFlaw::Parameter => "The path must not hold a semicolon",
    }
}

impl From<Rejection> for Denial {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Invalid(flaw) => Self::Token(flaw),
            Rejection::Flooded(flood) => Self::Flooded(usage_of(flood)),
            Rejection::Overloaded => Self::Overloaded,
            Rejection::Unavailable { retry_after, .. } => Self::Unavailable { retry_after },
        }
    }
}

impl From<Unable> for Denial {
    fn from(unable: Unable) -> Self {
        match unable {
            Unable::Throttled(throttled) => Self::Throttled(throttled),
            Unable::Away => Self::Uncounted,
        }
    }
}

/// The limit of failures in the words of a tier.
fn usage_of(Flood { limit, window_s, reset_s }: Flood) -> Usage {
    Usage { tier: "failures".into(), kind: QuotaKind::Requests, limit, window_s, remaining: 0, reset_s, alone: false }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn every_denial() -> Vec<Denial> {
        let kind = QuotaKind::Requests;
        let usage = Usage { tier: "Gold".into(), kind, limit: 1, window_s: 60, remaining: 0, reset_s: 1, alone: false };
        let throttled = |level, burst| Denial::Throttled(Throttled { level, burst, usage: usage.clone() });
        let levels = [Level::Api, Level::Resource, Level::Subscription, Level::Application];
        let without_burst = [Level::Custom, Level::Backend];
        let mut all = vec![
            Denial::Path(PathFlaw::Control),
            Denial::Host,
            Denial::Method,
            Denial::Credentials,
            Denial::NoCredential,
            Denial::AuthLevel,
            Denial::NoEnvironment,
            Denial::SubscriptionBlocked,
            Denial::SubscriptionInactive,
            Denial::NotSubscribed,
            Denial::ApiAudience,
            Denial::Scope,
            Denial::SignIn,
            Denial::NoApi,
            Denial::NoResource,
            Denial::Denied(DeniedBy::Api),
            Denial::Flooded(usage.clone()),
            Denial::Overloaded,
            Denial::Unavailable { retry_after: 1 },
            Denial::Uncounted,
            Denial::Internal,
            Denial::UpstreamFailed,
            Denial::UpstreamTimedOut,
            Denial::HeaderTooLarge,
            Denial::UriTooLong,
            Denial::BodyTooLarge,
        ];
        all.extend(levels.into_iter().flat_map(|level| [throttled(level, false), throttled(level, true)]));
        all.extend(without_burst.into_iter().map(|level| throttled(level, false)));
        all.extend(Flaw::ALL.into_iter().map(Denial::Token));
        all
    }

    #[test]
    fn every_reason_has_a_place_of_its_own() {
        let mut places = HashMap::new();
        for denial in every_denial() {
            let index = denial.reason_index();
            assert!((1..63).contains(&index), "{denial:?}");
            assert_eq!(places.insert(index, denial.reason()), None, "{denial:?}");
        }
        let mut reasons: Vec<_> = places.into_values().collect();
        let count = reasons.len();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), count, "a reason is used twice");
    }
}
