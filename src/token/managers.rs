//! The key managers in force, and which of them a token is for (design, step 4).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Flaw, Issuer, KeySource, claims,
    claims::Rules,
    json::{Json, Object},
    jwks,
    metrics::Metrics,
    settings::{KeyManagerSettings, Validation},
};
use crate::{problem::Problem, store::KeyManagerSet};

/// Key managers whose settings have been found good, to be put in force by `Authenticator::replace`.
#[derive(Debug, Default)]
pub struct KeyManagers(Vec<(Rules, KeySource)>);

/// The key managers in force.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// In declared order.
    issuers: Vec<Arc<Issuer>>,
    /// By issuer identifier, each in declared order.
    by_issuer: HashMap<Arc<str>, Vec<Arc<Issuer>>>,
}

impl KeyManagers {
    /// Checks the settings, or names every mistake in them. `header_claims` are the claims wanted as
    /// identity headers, in their order. Contacts nobody.
    pub fn build(
        managers: Vec<(KeyManagerSettings, KeySource)>,
        header_claims: &Arc<[Box<str>]>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut names = HashSet::new();
        for (i, (settings, source)) in managers.iter().enumerate() {
            let field = format!("key_managers[{i}]");
            if !names.insert(settings.name.as_str()) {
                problems.push(Problem::new(format!("{field}.name"), "another key manager has this name"));
            }
            problems.extend(mistakes(settings, source, &field));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let rules = |settings: KeyManagerSettings| Rules {
            name: settings.name.as_str().into(),
            issuer: settings.issuer.as_str().into(),
            header_claims: Arc::clone(header_claims),
            settings,
        };
        Ok(Self(managers.into_iter().map(|(settings, source)| (rules(settings), source)).collect()))
    }

    /// The table that comes after `before`, and the issuers in it that are new.
    ///
    /// An issuer goes on as it is where nothing has changed for the tokens it judged: its rules, and the
    /// rules of all that share its issuer identifier, since those decide which one a token is for.
    pub(super) fn succeed(self, before: &Table, metrics: &Metrics) -> (Table, Vec<Arc<Issuer>>) {
        let stays = |issuer: &Arc<str>| {
            let old = before.by_issuer.get(issuer).map_or(&[][..], Vec::as_slice);
            let new: Vec<_> = self.0.iter().filter(|(rules, _)| rules.issuer == *issuer).collect();
            old.len() == new.len() && old.iter().zip(new).all(|(old, (rules, source))| old.is_for(rules, source))
        };
        let stays: Vec<bool> = self.0.iter().map(|(rules, _)| stays(&rules.issuer)).collect();
        let mut table = Table::default();
        let mut started = Vec::new();
        for ((rules, source), stays) in self.0.into_iter().zip(stays) {
            let old = before.issuers.iter().find(|old| old.rules.name == rules.name);
            let issuer = match old.filter(|_| stays) {
                Some(old) => Arc::clone(old),
                None => {
                    let counters = metrics.fetches(&rules.name);
                    let issuer = Arc::new(Issuer::new(rules, source.clone(), counters));
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
        let issuer = match claims.get("iss") {
            Some(Json::Text(issuer)) => issuer.as_ref(),
            Some(_) => return Err(Flaw::Malformed),
            None => return Err(Flaw::UnknownIssuer),
        };
        let known = self.by_issuer.get(issuer).ok_or(Flaw::UnknownIssuer)?;
        let mut counting = known.iter().filter(|issuer| allowed.allows(&issuer.rules.name));
        let first = counting.next().ok_or(Flaw::KeyManagerNotAllowed)?;
        if known.len() == 1 {
            return Ok(Arc::clone(first));
        }
        let audience = claims::audience(claims)?;
        let meets = |issuer: &&Arc<Issuer>| claims::meets(&issuer.rules.settings, &audience);
        std::iter::once(first).chain(counting).find(meets).map(Arc::clone).ok_or(Flaw::Audience)
    }

    fn push(&mut self, issuer: Arc<Issuer>) {
        self.by_issuer.entry(Arc::clone(&issuer.rules.issuer)).or_default().push(Arc::clone(&issuer));
        self.issuers.push(issuer);
    }
}

/// What is wrong with one key manager's settings, as far as tokens go.
fn mistakes(settings: &KeyManagerSettings, source: &KeySource, field: &str) -> Vec<Problem> {
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
    if matches!(settings.validation, Validation::Introspect | Validation::Both) {
        problems.push(Problem::not_in_this_build(format!("{field}.validation")));
    }
    if let KeySource::Fixed(text) = source
        && let Err(error) = jwks::parse(text, &settings.algorithms)
    {
        problems.push(Problem::new(format!("{field}.jwks"), error.to_string()));
    }
    problems
}
