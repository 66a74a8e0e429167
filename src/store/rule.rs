//! `[[throttle.rules]]`: limits by a key that each request makes (WSO2's custom rules).

use std::sync::Arc;

use aws_lc_rs::digest;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    condition::Pattern,
    quota::QuotaSettings,
    suggest::{Problems, Suggest},
    tier::{Limits, Subject, Tier},
};

/// A limit for all requests that make the same key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleSettings {
    /// Name, in metrics and `RateLimit`.
    pub name: String,
    /// Text with `$userId`, `$apiContext`, `$apiVersion`, `$resourceKey`, `$appId`, `$clientIp`, `$appTenant`, `$apiTenant`
    /// and `$customProperty.claim`, each replaced by the request's own.
    pub key: String,
    /// A regular expression: only keys in which it is found are counted. Absent: every key.
    pub matches: Option<String>,
    /// What requests of one key may use.
    pub limit: QuotaSettings,
}

/// A custom rule, ready to be counted by.
#[derive(Debug)]
pub struct Rule {
    /// Its limit; the key is the charge's.
    pub tier: Tier,
    /// What the key is made of.
    pub parts: Box<[Part]>,
    /// Only keys in which it is found are counted.
    pub matches: Option<Pattern>,
}

/// A part of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(Box<str>),
    /// The token's subject; those of two issuers are two.
    UserId,
    /// Where the API is served, with its version.
    ApiContext,
    /// The API's version.
    ApiVersion,
    /// Where the API is served, the resource's template and the verb: `/orders/v1/items/{id}:GET`.
    ResourceKey,
    /// The application's name, by which it is told from others here.
    AppId,
    /// The client's address; those of one IPv6 /64 count together.
    ClientIp,
    /// There is one tenant here, which WSO2 calls so too.
    Tenant,
    /// The value of a claim of the token.
    Claim(Box<str>),
}

impl Rule {
    /// Reads the rules, or names every mistake in them.
    pub(super) fn build(settings: &[RuleSettings], problems: &mut Problems) -> Box<[Self]> {
        if settings.len() > MOST_RULES {
            problems.add("throttle.rules", format!("are {MOST_RULES} at most: every request is counted by each"));
        }
        let mut rules: Vec<Self> = Vec::with_capacity(settings.len());
        for (n, row) in settings.iter().enumerate() {
            let at = format!("throttle.rules[{n}]");
            problems.refuse_unsayable(&row.name, || format!("{at}.name"));
            if let Some(earlier) = settings[..n].iter().position(|it| it.name == row.name) {
                problems.add(format!("{at}.name"), format!("throttle.rules[{earlier}] has this name too"));
            }
            let Some(rule) = Self::one(row, &at, problems) else { continue };
            if let Some(twin) = rules.iter().find(|it| it.counts_with(&rule)) {
                // Each request would take two of what they count together.
                let twin = &twin.tier.name;
                problems.add(&at, format!("counts what rule {twin} counts: the same key, matches, kind and window"));
            }
            rules.push(rule);
        }
        rules.into()
    }

    /// Whether both count the same on one counter.
    fn counts_with(&self, other: &Self) -> bool {
        let kinds = |rule: &Self| {
            let Limits { quota, also, .. } = &*rule.tier.limits;
            [Some(quota.kind), also.map(|also| also.kind)]
        };
        let theirs = kinds(other);
        self.tier.counter == other.tier.counter
            && kinds(self).iter().flatten().any(|kind| theirs.contains(&Some(*kind)))
    }

    fn one(row: &RuleSettings, at: &str, problems: &mut Problems) -> Option<Self> {
        let limits = row.limit.limits(&row.name, true, &format!("{at}.limit"), problems);
        problems.refuse_empty(&row.key, || format!("{at}.key"));
        let parts = parts(&row.key, &format!("{at}.key"), problems);
        let matches = match &row.matches {
            Some(text) => Some(Pattern::build(text, || format!("{at}.matches"), problems)?),
            None => None,
        };
        let limits: Arc<Limits> = limits?.into();
        let subject = Subject::Rule(&row.key, row.matches.as_deref().unwrap_or_default());
        Some(Self { tier: Tier::new(limits, subject), parts: parts?.into(), matches })
    }
}

impl Rule {
    /// The counter of a key's own: the beginning of its SHA-256.
    pub fn whose(key: &[u8]) -> u128 {
        let digest = digest::digest(&digest::SHA256, key);
        digest.as_ref().first_chunk().copied().map_or(0, u128::from_be_bytes)
    }
}

/// The claims that a key names.
pub fn claims_of(key: &str) -> Vec<String> {
    let mut claims = Vec::new();
    let _ = read(key, &mut |part| {
        if let Part::Claim(name) = part {
            claims.push(name.into());
        }
    });
    claims
}

fn parts(key: &str, field: &str, problems: &mut Problems) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    match read(key, &mut |part| parts.push(part)) {
        Ok(()) if parts.len() > MOST_PARTS => problems.add(field, format!("has {MOST_PARTS} parts at most")),
        Ok(()) => return Some(parts),
        Err(Unknown::Variable(name)) => {
            let nearest = problems.nearest(name, VARIABLES.iter().map(|(name, _)| *name).chain([CUSTOM_PROPERTY]));
            problems.add(field, Suggest("has a variable of no known name", nearest));
        }
        Err(Unknown::Claim) => {
            problems.add(field, "has a $customProperty without a name, as in $customProperty.region: it is a claim's");
        }
    }
    None
}

/// What a key holds that is none of its parts.
enum Unknown<'k> {
    Variable(&'k str),
    Claim,
}

/// Takes a key apart.
fn read<'k>(key: &'k str, take: &mut dyn FnMut(Part)) -> Result<(), Unknown<'k>> {
    let mut rest = key;
    while let Some(at) = rest.find('$') {
        if at > 0 {
            take(Part::Text(rest[..at].into()));
        }
        let name = word(&rest[at..], 1, |c| c.is_ascii_alphabetic());
        rest = &rest[at + name.len()..];
        if name == CUSTOM_PROPERTY {
            let claim = word(rest, 1, |c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            rest = &rest[claim.len()..];
            let claim = claim.strip_prefix('.').filter(|claim| !claim.is_empty()).ok_or(Unknown::Claim)?;
            take(Part::Claim(claim.into()));
            continue;
        }
        let known = VARIABLES.iter().find(|(known, _)| *known == name);
        take(known.map(|(_, part)| part.clone()).ok_or(Unknown::Variable(name))?);
    }
    if !rest.is_empty() {
        take(Part::Text(rest.into()));
    }
    Ok(())
}

/// The first `least` bytes of a text, as far as it has them, and what follows as `is_more` says.
fn word(text: &str, least: usize, is_more: impl Fn(char) -> bool) -> &str {
    let begin = text.char_indices().nth(least).map_or(text.len(), |(at, _)| at);
    let end = text[begin..].find(|c| !is_more(c)).map_or(text.len(), |at| begin + at);
    &text[..end]
}

const CUSTOM_PROPERTY: &str = "$customProperty";
const VARIABLES: [(&str, Part); 8] = [
    ("$userId", Part::UserId),
    ("$apiContext", Part::ApiContext),
    ("$apiVersion", Part::ApiVersion),
    ("$resourceKey", Part::ResourceKey),
    ("$appTenant", Part::Tenant),
    ("$apiTenant", Part::Tenant),
    ("$appId", Part::AppId),
    ("$clientIp", Part::ClientIp),
];
const MOST_RULES: usize = 16;
const MOST_PARTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::Algorithm;
    use super::*;

    fn told(key: &str) -> Result<Vec<Part>, String> {
        let mut problems = Problems::default();
        let parts = parts(key, "key", &mut problems);
        problems.into_result().map_err(|all| all[0].message.clone())?;
        parts.ok_or_else(|| "none".into())
    }

    #[test]
    fn keys_are_taken_apart() {
        let text = |text: &str| Part::Text(text.into());
        for (key, expected) in [
            ("all", vec![text("all")]),
            ("$userId", vec![Part::UserId]),
            ("$apiContext:$apiVersion", vec![Part::ApiContext, text(":"), Part::ApiVersion]),
            ("a$clientIp$appId.b", vec![text("a"), Part::ClientIp, Part::AppId, text(".b")]),
            ("$customProperty.my_claim-1:x", vec![Part::Claim("my_claim-1".into()), text(":x")]),
            ("$appTenant/$apiTenant", vec![Part::Tenant, text("/"), Part::Tenant]),
            ("\u{e9}$resourceKey\u{e9}", vec![text("\u{e9}"), Part::ResourceKey, text("\u{e9}")]),
        ] {
            assert_eq!(told(key).as_ref(), Ok(&expected), "{key}");
        }
        assert_eq!(claims_of("$customProperty.a:$customProperty.b:$nobody"), ["a", "b"]);
    }

    #[test]
    fn rules_that_would_count_a_request_twice_are_refused() {
        let rule = |name: &str, matches: Option<&str>, per: &str| RuleSettings {
            name: name.into(),
            key: "$appId".into(),
            matches: matches.map(str::to_owned),
            limit: QuotaSettings {
                requests: Some(5),
                bytes: None,
                events: None,
                tokens: None,
                per: per.into(),
                algorithm: Algorithm::Fixed,
            },
        };
        let told = |rules: &[RuleSettings]| {
            let mut problems = Problems::default();
            let built = Rule::build(rules, &mut problems);
            problems.into_result().map(|()| built).map_err(|all| all[0].to_string())
        };
        for (matches, per) in [(Some("^a"), "1m"), (None, "60s"), (Some(""), "1m")] {
            let refused =
                told(&[rule("first", matches, per), rule("second", matches.filter(|it| !it.is_empty()), "1m")]);
            let expected = "throttle.rules[1]: counts what rule first counts: the same key, matches, kind and window";
            assert_eq!(refused.unwrap_err(), expected, "{matches:?} {per}");
        }
        let apart = told(&[rule("a", None, "1m"), rule("b", Some("^a"), "1m"), rule("c", None, "1h")]).unwrap();
        assert!(apart[0].tier.counter != apart[1].tier.counter && apart[0].tier.counter != apart[2].tier.counter);
    }

    #[test]
    fn unknown_variables_are_refused_with_the_nearest_name() {
        for (key, expected) in [
            ("$userid", "has a variable of no known name; did you mean `$userId`?"),
            ("$clientIP:x", "has a variable of no known name; did you mean `$clientIp`?"),
            ("a$", "has a variable of no known name"),
            ("$$userId", "has a variable of no known name"),
            ("$\u{e9}", "has a variable of no known name"),
            ("$customProperty", "has a $customProperty without a name"),
            ("$customProperty.", "has a $customProperty without a name"),
            ("$customPropertyx", "has a variable of no known name; did you mean `$customProperty`?"),
        ] {
            let told = told(key).unwrap_err();
            assert!(told.starts_with(expected), "{key}: {told}");
        }
    }
}
