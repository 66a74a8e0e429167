//! Asking a provider about a token (RFC 7662): who is asked, and what may come of it.
//!
//! Knows nothing of how a provider is spoken to; that is the [`Introspect`]'s.

use std::{fmt, future::Future, pin::Pin};

use bytes::Bytes;

/// Asks a provider about a token (RFC 7662). Implemented by connectors, and by the embedded provider.
pub trait Introspect: fmt::Debug + Send + Sync {
    /// The provider's answer as it sent it. Ends in bounded time.
    fn introspect<'a>(&'a self, token: &'a str) -> IntrospectFuture<'a>;

    /// Whether the provider is asked at all just now.
    fn circuit(&self) -> Circuit {
        Circuit::Closed
    }
}

/// What [`Introspect::introspect`] gives back.
pub type IntrospectFuture<'a> = Pin<Box<dyn Future<Output = Result<IntrospectionAnswer, IntrospectError>> + Send + 'a>>;

/// A provider's answer with status 200, not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntrospectionAnswer {
    /// The body.
    pub body: Bytes,
    /// Its form, as the media type says.
    pub form: AnswerForm,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerForm {
    /// RFC 7662: a JSON object.
    Json,
    /// RFC 9701: a signed JWT.
    Jwt,
}

/// Whether a provider that has failed is asked again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Circuit {
    /// It is.
    #[default]
    Closed,
    /// One call tries whether it is back.
    HalfOpen,
    /// Not for a while.
    Open,
}

/// Why there is no answer of use: never a verdict on the token. The messages name addresses and
/// statuses, never bodies or secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntrospectError {
    /// No connection, or it broke.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer in time: {0}")]
    Timeout(String),
    /// Another answer than an introspection response.
    #[error("{0}")]
    Answer(String),
    /// It will not look at this token: too long, or of a form it does not know. It is well otherwise.
    #[error("{0}")]
    TurnedDown(String),
    /// The provider does not take our own credentials.
    #[error("our credentials are refused: {0}")]
    Credentials(String),
    /// The metadata is of no use.
    #[error("{0}")]
    Metadata(String),
    /// As many calls as may be wait already.
    #[error("too many calls wait for the provider")]
    Saturated,
    /// The provider has failed too often to be asked again now.
    #[error("the provider has failed and is not asked for {retry_after} s")]
    CircuitOpen {
        /// Seconds until it is asked again, at least 1.
        retry_after: u32,
    },
    /// The provider offers no introspection.
    #[error("the provider offers no introspection")]
    NotOffered,
    /// The call was given up on our side.
    #[error("the call was given up")]
    Aborted,
}

impl IntrospectError {
    /// Every metric label.
    pub const LABELS: [&'static str; 9] = [
        "unreachable",
        "timeout",
        "answer",
        "credentials",
        "metadata",
        "saturated",
        "circuit_open",
        "not_offered",
        "aborted",
    ];

    /// The metric label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::Answer(_) | Self::TurnedDown(_) => "answer",
            Self::Credentials(_) => "credentials",
            Self::Metadata(_) => "metadata",
            Self::Saturated => "saturated",
            Self::CircuitOpen { .. } => "circuit_open",
            Self::NotOffered => "not_offered",
            Self::Aborted => "aborted",
        }
    }

    /// Seconds after which a retry may help, at least 1.
    pub fn retry_after(&self) -> u32 {
        match self {
            Self::CircuitOpen { retry_after } => (*retry_after).max(1),
            _ => 1,
        }
    }
}
