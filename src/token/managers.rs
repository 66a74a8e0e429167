//! The key managers in force, and which of them a token is for (design, step 4).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use regex_lite::{Regex, RegexBuilder};

use super::{
    Flaw, Issuer, KeySource, Sources, claims,
    json::Object,
    jwe, jwe_key,
    metrics::Metrics,
    rules::Rules,
    settings::{KeyManagerSettings, Validation},
};
use crate::{problem::Problem, store::KeyManagerSet};

/// Key managers whose settings have been found good, to be put in force by `Authenticator::replace`.
#[derive(Debug, Default)]
pub struct KeyManagers(Vec<(Rules, Sources)>);

/// The key managers in force.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// In declared order.
    issuers: Vec<Arc<Issuer>>,
    /// By issuer identifier, each in declared order.
    by_issuer: HashMap<Arc<str>, Vec<Arc<Issuer>>>,
    /// Those whose providers are asked about opaque tokens, in declared order, each with the pattern that
    /// such a token must match.
    asked: Vec<(Arc<Issuer>, Option<Regex>)>,
}

impl KeyManagers {
    /// Checks the settings, or names every mistake in them. `header_claims` are the claims wanted as
    /// identity headers, in their order. Contacts nobody.
    pub fn build<S: Into<Sources>>(
        managers: Vec<(KeyManagerSettings, S)>,
        header_claims: &Arc<[Box<str>]>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut names = HashSet::new();
        let mut built = Vec::new();
        for (i, (settings, sources)) in managers.into_iter().enumerate() {
            let sources = sources.into();
            let field = format!("key_managers[{i}]");
            if !names.insert(settings.name.clone()) {
                problems.push(Problem::new(format!("{field}.name"), "another key manager has this name"));
            }
            problems.extend(mistakes(&settings, &sources, &field));
            match Rules::build(settings, header_claims, &field) {
                Ok(rules) => {
                    problems.extend(mistakes_of_keys(&rules, &sources.keys, &field));
                    built.push((rules, sources));
                }
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(Self(built)) } else { Err(problems) }
    }

    /// The table that comes after `before`, and the issuers in it that are new.
    ///
    /// An issuer goes on as it is where nothing has changed for the tokens it judged: its rules, and the
    /// rules of all that share its issuer identifier, since those decide which one a token is for. Where
    /// opaque tokens go has changed: none goes on.
    pub(super) fn succeed(self, before: &Table, metrics: &Metrics) -> (Table, Vec<Arc<Issuer>>) {
        let asked = self.0.iter().filter(|(rules, sources)| asks_about_opaque(rules, sources.introspection.is_some()));
        let same_way = asked
            .map(|(rules, _)| (&rules.name, &rules.settings.token_pattern))
            .eq(before.asked.iter().map(|(issuer, _)| (&issuer.rules.name, &issuer.rules.settings.token_pattern)));
        let stays = |issuer: &Arc<str>| {
            let old = before.by_issuer.get(issuer).map_or(&[][..], Vec::as_slice);
            let new: Vec<_> = self.0.iter().filter(|(rules, _)| rules.issuer == *issuer).collect();
            let pairs = || old.iter().zip(&new);
            same_way && old.len() == new.len() && pairs().all(|(old, (rules, sources))| old.is_for(rules, sources))
        };
        let stays: Vec<bool> = self.0.iter().map(|(rules, _)| stays(&rules.issuer)).collect();
        let mut table = Table::default();
        let mut started = Vec::new();
        for ((rules, sources), stays) in self.0.into_iter().zip(stays) {
            let source = sources.keys.clone();
            let old = before.issuers.iter().find(|old| old.rules.name == rules.name);
            let issuer = match old.filter(|_| stays) {
                Some(old) => {
                    old.ask_by(sources.introspection);
                    Arc::clone(old)
                }
                None => {
                    let counters = metrics.issuer(&rules.name, sources.introspection.is_some());
                    let issuer = Arc::new(Issuer::new(rules, sources, counters));
                    issuer.succeed(&before.issuers);
                    started.push(Arc::clone(&issuer));
                    issuer
                }
            };
            issuer.read_at_hand(&source);
            table.push(issuer);
        }
        (table, started)
    }
}

impl Table {
    /// In declared order.
    pub(super) fn issuers(&self) -> &[Arc<Issuer>] {
        &self.issuers
    }

    /// Retires the issuers that `after` lacks.
    pub(super) fn retire_missing(&self, after: &Self) {
        let gone = |issuer: &&Arc<Issuer>| !after.issuers.iter().any(|i| Arc::ptr_eq(i, issuer));
        self.issuers.iter().filter(gone).for_each(|issuer| issuer.retire());
    }

    /// The issuer whose token this claims to be. Nothing is verified yet: `iss` and `aud` only choose by
    /// whose keys and rules the token is judged, and the rules judge `aud` again.
    pub(super) fn elect(&self, claims: &Object<'_>, allowed: &KeyManagerSet) -> Result<Arc<Issuer>, Flaw> {
        let issuer = claims::issuer(claims)?.ok_or(Flaw::UnknownIssuer)?;
        let known = self.by_issuer.get(issuer).ok_or(Flaw::UnknownIssuer)?;
        let may = |issuer: &&Arc<Issuer>| allowed.allows(&issuer.rules.name);
        if !known.iter().any(|issuer| may(&issuer)) {
            return Err(Flaw::KeyManagerNotAllowed);
        }
        let mut counting = known.iter().filter(may).filter(|issuer| issuer.rules.patterns.all_match(claims));
        let first = counting.next().ok_or(Flaw::Claim)?;
        if known.len() == 1 {
            return Ok(Arc::clone(first));
        }
        let audience = claims::audience(claims)?;
        let meets = |issuer: &&Arc<Issuer>| claims::meets(&issuer.rules.settings, &audience);
        std::iter::once(first).chain(counting).find(meets).map(Arc::clone).ok_or(Flaw::Audience)
    }

    /// The issuer whose provider is to be asked about a token that need not be a JWT (design, step 4): the
    /// first whose pattern matches whole. Where none has a pattern, the only one there is; but two dots are a
    /// JWT, and four a JWE, which only a provider that is asked about every token can judge.
    pub(super) fn elect_opaque(&self, token: &str, allowed: &KeyManagerSet) -> Option<Arc<Issuer>> {
        let candidates = || self.asked.iter().filter(|(issuer, _)| allowed.allows(&issuer.rules.name));
        let mut with_pattern =
            candidates().filter_map(|(issuer, pattern)| Some((issuer, pattern.as_ref()?))).peekable();
        if with_pattern.peek().is_some() {
            return with_pattern.find(|(_, pattern)| pattern.is_match(token)).map(|(issuer, _)| Arc::clone(issuer));
        }
        let mut candidates = candidates().map(|(issuer, _)| issuer);
        let only = candidates.next().filter(|_| candidates.next().is_none())?;
        match memchr::memchr_iter(b'.', token.as_bytes()).count() {
            2 => None,
            4 if only.rules.settings.validation != Validation::Introspect => None,
            _ => Some(Arc::clone(only)),
        }
    }

    /// The signed token inside an encrypted one, with the key that opened it: one of a key manager that counts. Whether
    /// it is of the key manager whose token is inside is for the caller to see.
    pub(super) fn open(&self, token: &str, allowed: &KeyManagerSet) -> Result<(String, Arc<jwe_key::Key>), Flaw> {
        let counting = self.issuers.iter().filter(|issuer| allowed.allows(&issuer.rules.name));
        jwe::open(token, counting.flat_map(|issuer| issuer.rules.decryption.all()))
    }

    fn push(&mut self, issuer: Arc<Issuer>) {
        if asks_about_opaque(&issuer.rules, issuer.introspection().is_some()) {
            // A pattern that cannot be compiled has been refused by `KeyManagers::build`.
            let pattern = issuer.rules.settings.token_pattern.as_deref().map(whole);
            match pattern.transpose() {
                Ok(pattern) => self.asked.push((Arc::clone(&issuer), pattern)),
                Err(error) => tracing::error!(key_manager.name = &*issuer.rules.name, %error, "no such pattern"),
            }
        }
        self.by_issuer.entry(Arc::clone(&issuer.rules.issuer)).or_default().push(Arc::clone(&issuer));
        self.issuers.push(issuer);
    }
}

/// Whether a manager's provider is asked about opaque tokens: they cannot be verified, so not where that
/// must be done.
fn asks_about_opaque(rules: &Rules, has_introspection: bool) -> bool {
    has_introspection && matches!(rules.settings.validation, Validation::Auto | Validation::Introspect)
}

/// A pattern that must match a token from its first byte to its last.
fn whole(pattern: &str) -> Result<Regex, regex_lite::Error> {
    // By itself first, so that a parenthesis too many cannot close the group. `\z`: the very end.
    Regex::new(pattern)?;
    RegexBuilder::new(&format!(r"\A(?:{pattern})\z")).size_limit(MAX_PATTERN).build()
}

/// What is wrong with one key manager's settings, as far as tokens go.
fn mistakes(settings: &KeyManagerSettings, sources: &Sources, field: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |name: &str, message: &str| problems.push(Problem::new(format!("{field}.{name}"), message));
    if settings.name.is_empty() {
        wrong("name", "must not be empty");
    }
    if settings.issuer.is_empty() {
        wrong("issuer", "must not be empty");
    }
    if settings.algorithms.is_empty() {
        wrong("algorithms", "must name at least one");
    }
    if settings.consumer_key_claim.as_slice().is_empty() {
        wrong("consumer_key_claim", "must name at least one claim");
    }
    if settings.scopes_claim.as_slice().is_empty() {
        wrong("scopes_claim", "must name at least one claim");
    }
    if settings.timeout.0.is_zero() {
        wrong("timeout", "must not be 0");
    }
    if settings.jwks_refresh.0.is_zero() {
        wrong("jwks_refresh", "must not be 0");
    }
    let asks = matches!(settings.validation, Validation::Introspect | Validation::Both);
    if asks && sources.introspection.is_none() {
        wrong("validation", "needs introspection, and there is none");
    }
    if let Some(pattern) = &settings.token_pattern {
        if let Err(error) = whole(pattern) {
            wrong("token_pattern", &error.to_string());
        }
        if !matches!(settings.validation, Validation::Auto | Validation::Introspect) {
            wrong("token_pattern", "is for validation \"auto\" and \"introspect\": other tokens must be verified");
        } else if sources.introspection.is_none() {
            wrong("token_pattern", "needs introspection, and there is none: set client_id and its credential");
        }
    }
    problems
}

/// What is wrong with the keys that are at hand.
fn mistakes_of_keys(rules: &Rules, source: &KeySource, field: &str) -> Option<Problem> {
    let KeySource::Fixed(text) = source else { return None };
    if text.is_empty() && rules.needs_no_keys() {
        return None;
    }
    let error = rules.wanted().parse(text).err()?;
    Some(Problem::new(format!("{field}.jwks"), error.to_string()))
}

/// Bytes that a compiled pattern may take.
const MAX_PATTERN: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_or_not_at_all() {
        for (pattern, token, expected) in [
            ("^op_[A-Za-z0-9]+$", "op_1", true),
            ("^op_[A-Za-z0-9]+$", "op_1\n", false),
            ("op_[a-z]+", "op_abc", true),
            ("op_[a-z]+", "xop_abc", false),
            ("op_[a-z]+", "op_abc.x", false),
            ("a|ab", "ab", true),
            ("a|ab", "abc", false),
            ("(?m)^a$", "b\na", false),
            ("", "", true),
        ] {
            assert_eq!(whole(pattern).expect("a pattern").is_match(token), expected, "{pattern} {token:?}");
        }
        for pattern in ["(", "a)|(b", "a{99999}{99999}", "[", "(?x) a # )"] {
            assert!(whole(pattern).is_err(), "{pattern}");
        }
    }
}
