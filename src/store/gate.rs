//! What holds for every request at every door: who is trusted, what is stripped, how identity is told.

use std::{collections::HashMap, sync::Arc};

use http::HeaderName;
use ipnet::IpNet;

use crate::problem::Problem;

use super::{Deny, FaultFormat, Rule, settings::GateSettings, suggest::Problems};

/// What holds for every request at every door.
#[derive(Debug)]
pub struct Gate {
    /// Whose forwarded headers count.
    pub trusted_proxies: Vec<IpNet>,
    /// Form of refusals where no API says otherwise.
    pub fault_format: FaultFormat,
    /// `realm` of the challenges.
    pub realm: Box<str>,
    /// Names to remove from client requests: lower case, `_` and `.` written as `-`, sorted.
    pub strip: Vec<Box<str>>,
    /// Names of the headers that carry the identity.
    pub identity: IdentityNames,
    /// RateLimit fields on accepted answers too.
    pub rate_limit_headers: bool,
    /// `X-RateLimit-*` besides.
    pub x_ratelimit: bool,
    /// Who may not pass; none: nobody is denied.
    pub deny: Option<Box<Deny>>,
    /// Limits by keys that requests make.
    pub rules: Box<[Rule]>,

    /// By length of a name, the first and last letters of those in `strip`: most names are told apart here.
    letters: Box<[u64; LENGTHS]>,
}

/// Parsed names of the identity headers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "documented at settings::IdentityHeaders")]
pub struct IdentityNames {
    pub subject: HeaderName,
    pub client_id: HeaderName,
    pub scopes: HeaderName,
    pub application: HeaderName,
    pub tier: HeaderName,
    pub over_quota: HeaderName,
    /// Claim's name and header, in the settings' order; `token::Identity::claims` has the same order.
    pub claims: Arc<[(Box<str>, HeaderName)]>,
}

impl Gate {
    /// Reads the settings, or names every mistake in them.
    pub fn build(settings: &GateSettings) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let gate = Self::checked(settings, &mut problems);
        problems.into_result()?;
        Ok(gate)
    }

    /// The gate; only good if no problem was added.
    pub(super) fn checked(settings: &GateSettings, problems: &mut Problems) -> Self {
        let quotable = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
        if settings.realm.is_empty() || !settings.realm.chars().all(quotable) {
            problems.add("realm", "is visible ASCII without quotes and backslashes, and not empty");
        }
        let identity = identity_names(settings, problems);
        let strip = strip_names(settings, &identity, problems);
        let mut letters = Box::new([0; LENGTHS]);
        for name in &strip {
            let (length, pair) = place(name.as_bytes());
            letters[length] |= pair;
        }
        Self {
            trusted_proxies: settings.trusted_proxies.clone(),
            fault_format: settings.fault_format,
            realm: settings.realm.as_str().into(),
            strip,
            identity,
            rate_limit_headers: settings.rate_limit_headers,
            x_ratelimit: settings.x_ratelimit,
            deny: Deny::build(&settings.deny, problems),
            rules: Rule::build(&settings.rules, problems),
            letters,
        }
    }

    /// Whether a client's header of this name is removed. `name` is lower case, as in `HeaderName`;
    /// `_` and `.` count as `-`, since CGI and its heirs make them one.
    #[inline]
    pub fn strips(&self, name: &[u8]) -> bool {
        let (length, pair) = place(name);
        self.letters[length] & pair != 0 && self.is_listed(name)
    }

    fn is_listed(&self, name: &[u8]) -> bool {
        let same = |listed: &str| listed.bytes().zip(name).all(|(listed, byte)| listed == dashed(*byte));
        self.strip.iter().any(|listed| listed.len() == name.len() && same(listed))
    }
}

/// Where a name stands in `letters`: its length, and one bit for its first and last letter.
#[inline]
fn place(name: &[u8]) -> (usize, u64) {
    let (first, last) = (name.first().copied().map_or(0, dashed), name.last().copied().map_or(0, dashed));
    (name.len().min(LENGTHS - 1), 1 << (first.wrapping_add(last.wrapping_mul(7)) & 63))
}

/// The one spelling of the three that CGI takes for the same.
const fn dashed(byte: u8) -> u8 {
    match byte {
        b'_' | b'.' => b'-',
        _ => byte,
    }
}

fn dashed_name(name: &HeaderName) -> Box<str> {
    name.as_str().replace(['_', '.'], "-").into()
}

fn identity_names(settings: &GateSettings, problems: &mut Problems) -> IdentityNames {
    let given = &settings.identity_headers;
    let mut seen = HashMap::new();
    let mut name = |text: &str, field: String| header_name(text, field, &mut seen, problems);
    let names = IdentityNames {
        subject: name(&given.subject, "identity_headers.subject".into()),
        client_id: name(&given.client_id, "identity_headers.client_id".into()),
        scopes: name(&given.scopes, "identity_headers.scopes".into()),
        application: name(&given.application, "identity_headers.application".into()),
        tier: name(&given.tier, "identity_headers.tier".into()),
        over_quota: name(&given.over_quota, "identity_headers.over_quota".into()),
        claims: given
            .claims
            .iter()
            .map(|(claim, header)| (claim.as_str().into(), name(header, format!("identity_headers.claims.{claim}"))))
            .collect(),
    };
    if given.claims.contains_key("") {
        problems.add("identity_headers.claims", "a claim's name is empty");
    }
    names
}

/// An identity header's name; some name and a problem if it may not be one.
fn header_name(text: &str, field: String, seen: &mut HashMap<Box<str>, String>, problems: &mut Problems) -> HeaderName {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        problems.add(field, "is not a header name");
        return HeaderName::from_static("x-invalid");
    };
    if is_reserved(&name) {
        problems.add(field, "this header belongs to the connection, the message's framing, or the credential");
        return name;
    }
    match seen.get(&dashed_name(&name)) {
        Some(earlier) => problems.add(field, format!("{earlier} has this header too")),
        None => _ = seen.insert(dashed_name(&name), field),
    }
    name
}

fn strip_names(settings: &GateSettings, identity: &IdentityNames, problems: &mut Problems) -> Vec<Box<str>> {
    let mut names: Vec<Box<str>> = ALWAYS_STRIPPED.iter().map(|name| (*name).into()).collect();
    let IdentityNames { subject, client_id, scopes, application, tier, over_quota, claims } = identity;
    names.extend([subject, client_id, scopes, application, tier, over_quota].map(dashed_name));
    names.extend(claims.iter().map(|(_, name)| dashed_name(name)));
    let listed = settings.strip_headers.iter().enumerate().map(|(n, text)| (format!("strip_headers[{n}]"), text));
    let own = settings.assertion_header.iter().map(|text| ("backend_jwt.header".to_owned(), text));
    for (field, text) in listed.chain(own) {
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if is_reserved(&name) => {
                problems.add(field, "this header belongs to the connection, the message's framing, or the credential")
            }
            Ok(name) => names.push(dashed_name(&name)),
            Err(_) => problems.add(field, "is not a header name"),
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

fn is_reserved(name: &HeaderName) -> bool {
    RESERVED.contains(&&*dashed_name(name))
}

/// Names longer than this share the last place.
const LENGTHS: usize = 64;

/// What upstreams take for an identity that somebody has verified.
const ALWAYS_STRIPPED: &[&str] =
    &["client-cert", "client-cert-chain", "x-forwarded-client-cert", "x-jwt-assertion", "x-wso2-client-certificate"];

/// Headers that have a meaning of their own on the way to the upstream.
const RESERVED: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::super::settings::IdentityHeaders;
    use super::*;

    fn settings() -> GateSettings {
        GateSettings {
            trusted_proxies: Vec::new(),
            fault_format: FaultFormat::Wso2,
            realm: "tollgate".into(),
            strip_headers: vec!["X_Tenant.Id".into()],
            assertion_header: None,
            identity_headers: IdentityHeaders {
                claims: [("email".to_owned(), "X-Auth-Email".to_owned())].into(),
                ..IdentityHeaders::default()
            },
            rate_limit_headers: false,
            x_ratelimit: false,
            rules: Vec::new(),
            deny: Vec::new(),
        }
    }

    #[test]
    fn spoofed_identities_are_stripped_in_every_spelling() {
        let gate = Gate::build(&settings()).unwrap();
        for name in [
            "x-auth-subject",
            "x_auth_subject",
            "x.auth.subject",
            "x-auth_client.id",
            "x-auth-scopes",
            "x-auth-application",
            "x-auth-tier",
            "x-auth-email",
            "x-jwt-assertion",
            "x_jwt_assertion",
            "client-cert",
            "client_cert_chain",
            "x-forwarded-client-cert",
            "x-wso2-client-certificate",
            "x-tenant-id",
            "x_tenant_id",
        ] {
            assert!(gate.strips(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "x",
            "host",
            "authorization",
            "x-auth-subjec",
            "x-auth-subject2",
            "x-auth-subjects",
            "xauthsubject",
            "x-forwarded-for",
            "content-length",
            "x-jwt-assertiom",
            "y-auth-subject",
        ] {
            assert!(!gate.strips(name.as_bytes()), "{name}");
        }
        assert!(gate.strip.is_sorted());
    }

    #[test]
    fn a_listed_name_of_any_length_and_letter_is_found() {
        let names = ["a", "z9", "9z", "_x", "-y", &"q".repeat(63), &"q".repeat(64), &"w".repeat(200)];
        let mut settings = settings();
        settings.strip_headers = names.map(str::to_owned).to_vec();
        let gate = Gate::build(&settings).unwrap();
        assert!(names.iter().all(|name| gate.strips(name.as_bytes())));
        assert!(!gate.strips("q".repeat(65).as_bytes()) && !gate.strips(b"b"));
    }

    #[test]
    fn mistakes_are_named_with_their_fields() {
        let mut settings = settings();
        settings.realm = "a\"b".into();
        settings.strip_headers = vec!["Content-Length".into(), "a b".into()];
        settings.assertion_header = Some("Proxy-Authorization".into());
        settings.identity_headers.subject = "Transfer_Encoding".into();
        settings.identity_headers.client_id = "Authorization".into();
        settings.identity_headers.scopes = String::new();
        settings.identity_headers.tier = "X_Auth_Email".into();
        let fields: Vec<String> = Gate::build(&settings).unwrap_err().into_iter().map(|it| it.field).collect();
        let expected = [
            "realm",
            "identity_headers.subject",
            "identity_headers.client_id",
            "identity_headers.scopes",
            "identity_headers.claims.email",
            "strip_headers[0]",
            "strip_headers[1]",
            "backend_jwt.header",
        ];
        assert_eq!(fields, expected);
    }
}
