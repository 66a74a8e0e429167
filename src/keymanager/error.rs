//! Why an operation has not been done.

use std::{borrow::Cow, fmt};

use super::Operation;

/// Why an operation has not been done. Holds a provider's own words where it refused, never a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The provider has no way to do it.
    #[error("{}: {reason}", .operation.name())]
    Unsupported {
        /// What was asked for.
        operation: Operation,
        /// Why the connector cannot.
        reason: Cow<'static, str>,
    },
    /// A setting of the key manager forbids it.
    #[error("{}: {setting} = false forbids it", .operation.name())]
    SwitchedOff {
        /// What was asked for.
        operation: Operation,
        /// The setting's name.
        setting: &'static str,
    },
    /// A field of the request is wrong.
    #[error("{field}: {why}")]
    Invalid {
        /// Its path in the request: `parameters.grant_types`.
        field: Cow<'static, str>,
        /// What is wrong with it, and what is allowed.
        why: Cow<'static, str>,
        /// WSO2's code for it, where it has one of its own.
        code: Option<&'static str>,
    },
    /// There is no such thing.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Of several that were asked for, there is not this one.
    #[error("there is no such {what}: {name}")]
    Missing {
        /// What it would be.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// It is there already, or has changed meanwhile.
    #[error("{0}")]
    Conflict(Clash),
    /// The provider refused, in its own words.
    #[error("the provider refused with {status}: {detail}")]
    Refused {
        /// Its HTTP status.
        status: u16,
        /// What it said; without secrets, and bounded.
        detail: String,
    },
    /// The provider does not take our own credentials.
    #[error("the provider refuses our credentials: {0}")]
    Credentials(String),
    /// The provider's answer is none of the protocol.
    #[error("the provider's answer is of no use: {0}")]
    Answer(String),
    /// The provider cannot be reached.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    /// The provider has failed too often to be asked now: it was not.
    #[error("the provider cannot be reached: it keeps failing, and is asked again in {wait} s")]
    LeftAlone {
        /// How long it is left alone, in seconds.
        wait: u64,
    },
    /// The provider did not answer in time. It may have done what was asked.
    #[error("the provider did not answer in time: {0}")]
    TimedOut(String),
    /// It was asked for, and nobody knows whether it was done: no answer that says so came back.
    #[error("{0}; it may have been done all the same")]
    Unclear(Box<Self>),
    /// The token that was to be revoked before is, and no other was issued.
    #[error("{0}; the token to revoke is revoked all the same")]
    Revoked(Box<Self>),
    /// It was half done, and the half could not be undone.
    #[error("{what}; what had been done could not be undone: {left}")]
    HalfDone {
        /// What failed.
        what: String,
        /// What is left at the provider.
        left: String,
    },
    /// Our own record cannot be read or written.
    #[error("{0}")]
    Record(String),
}

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The field of the request's body that clashes; none: it is nothing of the body, or the provider does not tell.
    pub field: Option<Cow<'static, str>>,
    /// What it is.
    pub why: Cow<'static, str>,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

impl<T: Into<Cow<'static, str>>> From<T> for Clash {
    fn from(why: T) -> Self {
        Self { field: None, why: why.into() }
    }
}

impl Error {
    /// A field is taken, or stands against what there is.
    pub fn conflict(field: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) -> Self {
        Self::Conflict(Clash { field: Some(field.into()), why: why.into() })
    }

    /// A field is wrong.
    pub fn invalid(field: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid { field: field.into(), why: why.into(), code: None }
    }

    /// The same where it is this field of the request that clashes, as a provider does not tell.
    pub fn about(self, field: &'static str) -> Self {
        match self {
            Self::Conflict(Clash { field: None, why }) => Self::conflict(field, why),
            error => error,
        }
    }

    /// The same where the request spells its fields in another way than the model.
    pub(super) fn spelt(self, spell: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Invalid { field, why, code } => Self::Invalid { field: spell(&field).into(), why, code },
            error => error,
        }
    }

    /// The same where WSO2 has this code for it.
    pub fn coded(self, code: &'static str) -> Self {
        match self {
            Self::Invalid { field, why, .. } => Self::Invalid { field, why, code: Some(code) },
            error => error,
        }
    }

    /// The same of this operation, where the provider has no way to do it.
    pub(super) fn of(self, operation: Operation) -> Self {
        match self {
            Self::Unsupported { reason, .. } => Self::Unsupported { operation, reason },
            error => error,
        }
    }

    /// Whether the same may succeed later, so that it is worth a retry.
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::LeftAlone { .. } | Self::TimedOut(_) => true,
            Self::Credentials(_) | Self::Answer(_) => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            // Another attempt finds out.
            Self::Unclear(_) => true,
            Self::Revoked(why) => why.may_pass(),
            _ => false,
        }
    }

    /// What failed, where a token was revoked before.
    pub fn revoked(self) -> Self {
        Self::Revoked(Box::new(self))
    }

    /// Whether a token, or those of a client, that were to be revoked by it are, or may be.
    pub const fn may_have_revoked(&self) -> bool {
        matches!(self, Self::Revoked(_) | Self::TimedOut(_) | Self::Unclear(_) | Self::HalfDone { .. })
    }

    /// What failed, whatever was done before.
    pub fn cause(&self) -> &Self {
        match self {
            Self::Revoked(why) => why,
            error => error,
        }
    }

    /// The same where it was sent: it may have been done.
    pub fn unclear(self) -> Self {
        match self {
            error @ (Self::Unclear(_) | Self::HalfDone { .. }) => error,
            error => Self::Unclear(Box::new(error)),
        }
    }

    /// The same where nothing was asked for but to read: no answer leaves nothing that may have been done.
    pub fn of_reading(self) -> Self {
        match self {
            Self::TimedOut(from) => Self::Unreachable(format!("no answer in time from {from}")),
            error => error,
        }
    }

    /// What failed, once it is known that nothing of it was done, or that it was undone.
    pub fn settled(self) -> Self {
        match self {
            Self::Unclear(why) => *why,
            error => error,
        }
    }

    /// What a call comes to after which something was to be taken back that it has made, or may have made: `undone` is
    /// what became of that, `left` what stays where it failed.
    pub fn undone(self, undone: super::Result<()>, left: impl std::fmt::Display) -> Self {
        match undone {
            // Without an answer it may yet come to be.
            Err(Self::NotFound(_)) if self.is_unanswered() => self,
            Ok(()) | Err(Self::NotFound(_)) => self.settled(),
            Err(why) => Self::HalfDone { what: self.settled().to_string(), left: format!("{left}: {why}") },
        }
    }

    /// Whether it is a conflict by that field.
    pub fn is_about(&self, field: &str) -> bool {
        matches!(self, Self::Conflict(clash) if clash.field.as_deref() == Some(field))
    }

    /// The provider gave, as a new client, one that another application has: it is not taken back, since it was not made,
    /// and what became of it nobody knows.
    pub fn given_twice(self, client: &str) -> Self {
        let left = format!("the provider gave the client {client}, which is another's, and may have changed it");
        Self::HalfDone { what: self.to_string(), left }
    }

    /// Whether no answer came: what was asked for may yet be done.
    pub fn is_unanswered(&self) -> bool {
        match self {
            Self::Unclear(why) | Self::Revoked(why) => why.is_unanswered(),
            error => matches!(error, Self::TimedOut(_) | Self::Unreachable(_) | Self::LeftAlone { .. }),
        }
    }

    /// The metric label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unsupported { .. } | Self::SwitchedOff { .. } => "unsupported",
            Self::Invalid { .. } => "invalid",
            Self::NotFound(_) | Self::Missing { .. } => "not_found",
            Self::Conflict(_) => "conflict",
            Self::Refused { .. } => "refused",
            Self::Credentials(_) => "credentials",
            Self::Answer(_) => "answer",
            Self::Unreachable(_) | Self::LeftAlone { .. } => "unreachable",
            Self::TimedOut(_) => "timeout",
            Self::Unclear(why) | Self::Revoked(why) => why.label(),
            Self::HalfDone { .. } => "half_done",
            Self::Record(_) => "record",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_back_settles_what_failed_unless_it_may_yet_come_to_be() {
        let lost = || Error::TimedOut("late".into()).unclear();
        let useless = || Error::Answer("odd".into()).unclear();
        let gone = || Err(Error::NotFound("client"));
        assert_eq!(lost().undone(Ok(()), "the client a"), lost().settled());
        assert_eq!(lost().undone(gone(), "the client a"), lost());
        assert_eq!(useless().undone(gone(), "the client a"), useless().settled());
        let failed = useless().undone(Err(Error::Unreachable("gone".into())), "the client a");
        let Error::HalfDone { what, left } = failed else { panic!("{failed:?}") };
        assert_eq!(what, useless().settled().to_string());
        assert_eq!(left, "the client a: the provider cannot be reached: gone");
    }
}
