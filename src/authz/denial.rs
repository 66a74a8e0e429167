//! Every "no", in one table: status, code, label, challenge, gRPC status.

use http::StatusCode;

use crate::{throttle::Throttled, token::Flaw};

/// Why a request does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// The path has no canonical form.
    Path(PathFlaw),
    /// Host missing, twice, malformed, or other than the request target's authority.
    Host,
    /// A verb that is never proxied (CONNECT).
    Method,
    /// More than one credential.
    Credentials,
    /// A credential is needed and there is none.
    NoCredential,
    /// The token is no good.
    Token(Flaw),
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
    /// No API is served there.
    NoApi,
    /// No template or verb matches.
    NoResource,
    /// A tier has no room.
    Throttled(Throttled),
    /// Something the verdict needs cannot be had now.
    Unavailable {
        /// Seconds after which a retry may help, at least 1.
        retry_after: u32,
    },
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

/// Why a path has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum PathFlaw {
    NoLeadingSlash,
    EncodedSlash,
    Backslash,
    Control,
    Encoding,
    Utf8,
    Fragment,
    DotSegment,
    EmptySegment,
    Parameter,
}

impl Denial {
    /// HTTP status.
    pub fn status(&self) -> StatusCode {
        unimplemented!()
    }

    /// Metric and log label: bounded.
    pub fn reason(&self) -> &'static str {
        unimplemented!()
    }

    /// Place of `reason` among all reasons, from 1; below 64.
    pub fn reason_index(&self) -> usize {
        unimplemented!()
    }
}
