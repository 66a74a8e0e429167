//! What an answer must be, in the words of the attack list: a pass, or a refusal with status, code and
//! challenge in one of the three forms.

use std::collections::BTreeMap;

use super::Answer;

/// What must come of a request.
#[derive(Debug, Clone)]
pub(crate) enum Expect {
    /// 200 from the upstream.
    Pass,
    /// A pass or 401: the list leaves it open, so long as nothing breaks.
    Either,
    /// Refused by the verdict or the proxy door: judged in every detail.
    Refused(Want),
    /// Refused by the HTTP parser: one of these statuses, where 0 is a closed connection or stream.
    Parser(&'static [u16]),
}

/// A refusal.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) challenge: Challenge,
    pub(crate) grpc: &'static str,
    /// 502 and 504 come after the upstream was asked.
    pub(crate) reaches_upstream: bool,
}

/// The `WWW-Authenticate` of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// No such field.
    Absent,
    /// `Bearer` with a realm and no error.
    Realm,
    /// `Bearer` with this error.
    Error(&'static str),
    /// `insufficient_scope` with these scopes.
    Scope(&'static str),
    /// `insufficient_user_authentication` with these `acr_values` and this `max_age`; empty: without.
    SignIn(&'static str, &'static str),
}

/// Form of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Wso2,
    Problem,
    Grpc,
}

impl Expect {
    /// `401t`
    pub(crate) const T401: Self = Self::refused(401, "900901", Challenge::Error("invalid_token"), "16");
    /// `401m`
    pub(crate) const M401: Self = Self::refused(401, "900902", Challenge::Realm, "16");
    /// `400r`
    pub(crate) const R400: Self = Self::refused(400, "400", Challenge::Error("invalid_request"), "3");
    /// A bad path or host.
    pub(crate) const BAD: Self = Self::refused(400, "400", Challenge::Absent, "3");
    /// No template or verb.
    pub(crate) const NO_RESOURCE: Self = Self::refused(403, "900906", Challenge::Absent, "7");
    /// No API.
    pub(crate) const NO_API: Self = Self::refused(404, "404", Challenge::Absent, "12");
    /// Not subscribed.
    pub(crate) const NOT_SUBSCRIBED: Self = Self::refused(403, "900908", Challenge::Absent, "7");
    /// An application's token where a user's is needed, or the reverse.
    pub(crate) const WRONG_LEVEL: Self = Self::refused(401, "900905", Challenge::Error("invalid_token"), "16");
    /// Subscription blocked.
    pub(crate) const BLOCKED: Self = Self::refused(401, "900907", Challenge::Realm, "16");
    /// Subscription on hold or rejected.
    pub(crate) const INACTIVE: Self = Self::refused(401, "900909", Challenge::Realm, "16");
    /// The provider is down.
    pub(crate) const UNAVAILABLE: Self = Self::refused(503, "900900", Challenge::Absent, "14");

    /// `403s`
    pub(crate) const fn s403(scopes: &'static str) -> Self {
        Self::refused(403, "900910", Challenge::Scope(scopes), "7")
    }

    /// A sign-in of another kind or age is needed.
    pub(crate) const fn sign_in(acr_values: &'static str, max_age: &'static str) -> Self {
        Self::refused(401, "900901", Challenge::SignIn(acr_values, max_age), "16")
    }

    /// A throttle's refusal.
    pub(crate) const fn throttled(code: &'static str) -> Self {
        Self::refused(429, code, Challenge::Absent, "8")
    }

    /// Any refusal before the upstream is asked.
    pub(crate) const fn refused(status: u16, code: &'static str, challenge: Challenge, grpc: &'static str) -> Self {
        Self::Refused(Want { status, code, challenge, grpc, reaches_upstream: false })
    }

    /// A refusal after the upstream was asked.
    pub(crate) const fn failed(status: u16, code: &'static str, grpc: &'static str) -> Self {
        Self::Refused(Want { status, code, challenge: Challenge::Absent, grpc, reaches_upstream: true })
    }

    /// Whether the upstream may see the request: yes, no, or it does not matter.
    pub(crate) fn reaches_upstream(&self) -> Option<bool> {
        match self {
            Self::Pass => Some(true),
            Self::Refused(want) => (!want.reaches_upstream).then_some(false),
            Self::Parser(_) => Some(false),
            Self::Either => None,
        }
    }

    /// What is wrong with an answer.
    pub(crate) fn verify(&self, answer: &Answer, form: Form) -> Result<(), String> {
        let seen = || format!("got {} {:?} {:?} {}", answer.status, answer.error, answer.headers, answer.text());
        match self {
            Self::Pass if answer.status == 200 => Ok(()),
            Self::Pass => Err(format!("should pass; {}", seen())),
            Self::Either if matches!(answer.status, 200 | 401) => Ok(()),
            Self::Either => Err(format!("should be 200 or 401; {}", seen())),
            Self::Parser(statuses) if statuses.contains(&answer.status) => Ok(()),
            Self::Parser(statuses) => Err(format!("should be one of {statuses:?}; {}", seen())),
            Self::Refused(want) => want.verify(answer, form).map_err(|wrong| format!("{wrong}; {}", seen())),
        }
    }
}

impl Want {
    fn verify(&self, answer: &Answer, form: Form) -> Result<(), String> {
        let status = if form == Form::Grpc { 200 } else { self.status };
        ensure(answer.status == status, || format!("should be {status}"))?;
        if answer.status_only {
            return Ok(());
        }
        self.verify_challenge(answer)?;
        if matches!(self.status, 429 | 503) {
            let seconds = answer.header("retry-after").and_then(|v| v.parse::<u64>().ok());
            ensure(seconds.is_some_and(|s| s >= 1), || "Retry-After should be whole seconds, at least 1".into())?;
        }
        match form {
            Form::Grpc => self.verify_grpc(answer),
            _ if answer.header("content-type").is_none()
                && answer.body.is_empty()
                && answer.header("content-length") != Some("0") =>
            {
                // The answer to HEAD has no body.
                Ok(())
            }
            Form::Wso2 => self.verify_wso2(answer),
            Form::Problem => self.verify_problem(answer),
        }
    }

    fn verify_challenge(&self, answer: &Answer) -> Result<(), String> {
        let fields = answer.all("www-authenticate");
        let Some(field) = fields.first() else {
            return ensure(self.challenge == Challenge::Absent, || {
                format!("should challenge with {:?}", self.challenge)
            });
        };
        let (scheme, parameters) = challenge_of(field);
        let error = parameters.get("error").map(String::as_str);
        let scope = parameters.get("scope").map(String::as_str);
        let given = |name: &str| parameters.get(name).map_or("", String::as_str);
        let right = match self.challenge {
            Challenge::Absent => false,
            Challenge::Realm => error.is_none() && scope.is_none(),
            Challenge::Error(name) => error == Some(name) && scope.is_none(),
            Challenge::SignIn(acr_values, max_age) => {
                error == Some("insufficient_user_authentication")
                    && scope.is_none()
                    && (given("acr_values"), given("max_age")) == (acr_values, max_age)
            }
            Challenge::Scope(names) => error == Some("insufficient_scope") && scope == Some(names),
        };
        ensure(right && scheme.eq_ignore_ascii_case("bearer") && fields.len() == 1, || {
            format!("should challenge with {:?}", self.challenge)
        })?;
        ensure(parameters.get("realm").map(String::as_str) == Some("tollgate"), || "realm should be tollgate".into())
    }

    fn verify_grpc(&self, answer: &Answer) -> Result<(), String> {
        let told = |name: &str| {
            let trailer = answer.trailers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
            answer.header(name).or(trailer).unwrap_or_default().to_owned()
        };
        ensure(told("grpc-status") == self.grpc, || format!("grpc-status should be {}", self.grpc))?;
        ensure(!told("grpc-message").is_empty(), || "grpc-message should not be empty".into())?;
        ensure(answer.body.is_empty(), || "a gRPC refusal has no body".into())?;
        let kind = answer.header("content-type").unwrap_or_default();
        ensure(kind.starts_with("application/grpc"), || "content-type should be application/grpc".into())
    }

    fn verify_wso2(&self, answer: &Answer) -> Result<(), String> {
        let body = answer.json();
        ensure(body["code"].as_str() == Some(self.code), || format!("code should be the string {}", self.code))?;
        for member in ["message", "description"] {
            ensure(body[member].as_str().is_some_and(|text| !text.is_empty()), || {
                format!("{member} should be a text")
            })?;
        }
        ensure(media_type(answer) == "application/json", || "content-type should be application/json".into())
    }

    fn verify_problem(&self, answer: &Answer) -> Result<(), String> {
        let body = answer.json();
        ensure(body["code"].as_str() == Some(self.code), || format!("code should be {}", self.code))?;
        ensure(body["status"].as_u64() == Some(self.status.into()), || "status should be repeated".into())?;
        for member in ["type", "title", "detail"] {
            ensure(body[member].as_str().is_some_and(|text| !text.is_empty()), || {
                format!("{member} should be a text")
            })?;
        }
        ensure(media_type(answer) == "application/problem+json", || "content-type should be problem+json".into())
    }
}

/// Scheme and parameters of a challenge (RFC 9110 section 11.6.1).
pub(crate) fn challenge_of(field: &str) -> (String, BTreeMap<String, String>) {
    let (scheme, mut rest) = field.split_once(' ').unwrap_or((field, ""));
    let mut parameters = BTreeMap::new();
    while let Some((name, tail)) = rest.trim_start_matches([' ', ',']).split_once('=') {
        let (value, after) = match tail.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => tail.split_once(',').unwrap_or((tail, "")),
        };
        parameters.insert(name.trim().to_ascii_lowercase(), value.to_owned());
        rest = after;
    }
    (scheme.to_owned(), parameters)
}

fn media_type(answer: &Answer) -> &str {
    answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

#[test]
fn challenges_are_read() {
    let (scheme, parameters) = challenge_of(r#"Bearer realm="tollgate", error="insufficient_scope", scope="a b""#);
    assert_eq!(scheme, "Bearer");
    assert_eq!(parameters["scope"], "a b");
    assert_eq!(parameters["error"], "insufficient_scope");
    assert_eq!(challenge_of("Bearer").1.len(), 0);
}
