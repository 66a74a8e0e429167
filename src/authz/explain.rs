//! A verdict told to a person: every step, what was looked up, where it failed and what would make it pass.
//!
//! The verdict is [`Authorizer::check`]'s own; nothing is judged here. Neither the token nor any part of its text is
//! told, only what it says of itself.

use serde::Serialize;

use super::{
    Authorizer, CheckRequest, Denial, Found, Recorder, Step, charges::Call, credential, decision::Seen, remedy,
};
use crate::{
    net::Now,
    store::{Api, AuthLevel, AuthRule, KeyType, Resource, ScopesMatch, SubscriptionRule, SubscriptionState},
    throttle::Level,
    token::{Flaw, Glance, Identity},
};

/// A verdict, step by step. As JSON it has these very names.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What became of the request.
    pub verdict: Outcome,
    /// The steps in their order, as far as they were gone; the last is the one that refused.
    pub steps: Vec<Passage>,
    /// What was found on the way.
    pub found: Findings,
    /// The answer to a refused request; absent when it is granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Answer>,
    /// What would make it pass; absent when it is granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How a request or a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It may pass.
    Granted,
    /// It may not.
    Refused,
    /// It could not be judged.
    Failed,
}

/// One step.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Passage {
    /// Its name, as in `tollgate_step_duration_seconds`.
    pub step: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was looked up.
    pub note: String,
}

/// What the client would be answered.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// WSO2's code where it has one, else the status.
    pub code: &'static str,
    /// The reason, as in `tollgate_requests_total` and the access line.
    pub reason: &'static str,
    /// What happened, as the client is told.
    pub message: &'static str,
}

/// What was found; what is absent was not found, or not looked for.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names say it; they are those of the configuration and of RFC 9068")]
pub struct Findings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_manager: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_type: Option<KeyType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_tier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_state: Option<SubscriptionState>,
}

impl Authorizer {
    /// Judges a request like any other, and tells how. What it takes from the quotas, it takes from this
    /// [`Authorizer`]'s alone.
    pub async fn explain(&self, request: &CheckRequest<'_>) -> Explanation {
        let mut recorder = Recorder::default();
        let decision = self.check(request, &mut recorder).await;
        let mut steps: Vec<Passage> = recorder.0.into_iter().map(|(step, note)| passed(step, note)).collect();
        let (found, denial) = match decision {
            Ok(grant) => (grant.found, None),
            Err(refusal) => (refusal.found, Some(refusal.denial)),
        };
        let Some(denial) = denial else {
            return Explanation {
                verdict: Outcome::Granted,
                steps,
                found: Findings::of(&found),
                refusal: None,
                remedy: None,
            };
        };
        let glance = self.glance(request, &found);
        let verdict = if denial.outcome() == "failed" { Outcome::Failed } else { Outcome::Refused };
        let step = failed_at(&denial, &steps);
        let (note, remedy) =
            remedy::Case { denial: &denial, found: &found, glance: glance.as_ref(), authorizer: self, request }.told();
        steps.push(Passage { step: step.label(), outcome: verdict, note });
        Explanation {
            verdict,
            steps,
            found: Findings::of(&found),
            refusal: Some(Answer {
                status: denial.status().as_u16(),
                code: denial.code(),
                reason: denial.reason(),
                message: denial.message(),
            }),
            remedy: Some(remedy),
        }
    }

    /// What the token says of itself, if there is one.
    fn glance(&self, request: &CheckRequest<'_>, found: &Found) -> Option<Glance> {
        let token = credential::find(request, found.api()?, found.resource()?).ok()??;
        Some(self.tokens.glance(&token))
    }
}

impl Findings {
    fn of(found: &Found) -> Self {
        let identity = found.identity.as_deref();
        let texts = |list: &[Box<str>]| list.iter().map(|text| text.to_string()).collect();
        let subscription = found.subscription();
        Self {
            api: found.api().map(|api| api.id.to_string()),
            resource: found.resource().map(|resource| resource.template.to_string()),
            key_manager: identity.map(|identity| identity.common.key_manager.to_string()),
            issuer: identity.map(|identity| identity.common.issuer.to_string()),
            subject: identity.and_then(|identity| identity.subject.as_deref()).map(str::to_owned),
            consumer_key: identity.and_then(|identity| identity.common.consumer_key.as_deref()).map(str::to_owned),
            scopes: identity.map(|identity| texts(&identity.common.scopes)),
            audience: identity.map(|identity| texts(&identity.common.audience)),
            expires_at: identity.map(|identity| identity.expires_at).filter(|at| *at != u64::MAX),
            application: found.application().map(|application| application.name.to_string()),
            key_type: found.application().map(|_| found.key_type),
            subscription_tier: subscription.map(|subscription| subscription.tier_name.to_string()),
            subscription_state: subscription.map(|subscription| subscription.state),
        }
    }
}

fn passed(step: Step, note: String) -> Passage {
    Passage { step: step.label(), outcome: Outcome::Granted, note }
}

/// The step that a denial is of.
fn failed_at(denial: &Denial, passed: &[Passage]) -> Step {
    let is_done = |step: Step| passed.iter().any(|passage| passage.step == step.label());
    match denial {
        Denial::NoApi | Denial::NoResource => Step::Resolve,
        Denial::Credentials | Denial::NoCredential => Step::Credential,
        Denial::Token(Flaw::Revoked) if is_done(Step::Authenticate) => Step::Revocation,
        Denial::Token(_) if !is_done(Step::Credential) => Step::Credential,
        Denial::Token(_) | Denial::Unavailable { .. } | Denial::Flooded(_) | Denial::Overloaded => Step::Authenticate,
        Denial::NotSubscribed
        | Denial::SubscriptionBlocked
        | Denial::SubscriptionInactive
        | Denial::NoEnvironment
        | Denial::AuthLevel => Step::Subscription,
        Denial::Scope | Denial::ApiAudience | Denial::SignIn => Step::Scope,
        Denial::Throttled(_) | Denial::Denied(_) | Denial::Uncounted => Step::Throttle,
        // The others are a door's: the engine is not asked.
        _ => Step::Path,
    }
}

/// The elected resource and what it asks for.
pub(super) fn elected(api: &Api, resource: &Resource) -> String {
    let auth = match resource.auth {
        AuthRule::Required => "a token is needed",
        AuthRule::Optional => "a token may be left out",
        AuthRule::None => "no token is looked at",
    };
    format!("API {}, resource {}: {auth}", api.id, resource.template)
}

/// Whether there is a token.
pub(super) fn brought(any: bool, resource: &Resource) -> String {
    match (any, resource.auth) {
        (true, _) => "one bearer token",
        (false, AuthRule::None) => "not looked for",
        (false, _) => "none: anonymous",
    }
    .to_owned()
}

/// Whose a token is.
pub(super) fn identified(identity: &Identity, from_cache: bool, now: Now) -> String {
    let mut text = format!("good, says key manager {} ({})", identity.common.key_manager, identity.common.issuer);
    if let Some(key) = &identity.common.consumer_key {
        text += &format!(", consumer key {key}");
    }
    if let Some(subject) = &identity.subject {
        text += &format!(", subject {subject}");
    }
    match identity.expires_at {
        u64::MAX => text += ", never expires",
        at => text += &format!(", expires in {} s", at.saturating_sub(now.unix())),
    }
    if from_cache {
        text += ", seen before";
    }
    text
}

/// The scopes a resource asks for.
pub(super) fn scopes(resource: &Resource) -> String {
    if resource.scopes.is_empty() { "none needed".into() } else { format!("has {}", wanted(resource)) }
}

/// The scopes a resource asks for, in words.
pub(super) fn wanted(resource: &Resource) -> String {
    let quantity = match (resource.scopes_match, resource.scopes.len()) {
        (_, 1) => "",
        (ScopesMatch::Any, _) => "any of ",
        (ScopesMatch::All, _) => "all of ",
    };
    format!("{quantity}{}", resource.scopes.join(" "))
}

/// Whose token a resource asks for, in words.
pub(super) fn whose(level: AuthLevel) -> &'static str {
    match level {
        AuthLevel::Any => "anyone's token",
        AuthLevel::Application => "an application's own token",
        AuthLevel::ApplicationUser => "a user's token",
    }
}

/// The limits that were met.
pub(super) fn limits(call: Call<'_, '_>) -> String {
    let mut met: Vec<String> = Vec::new();
    for charge in call.charges() {
        let name = match charge.level {
            Level::Api => "API".into(),
            Level::Custom => format!("rule {}", charge.tier.name),
            level => level.label().to_owned(),
        };
        let is_group = matches!(charge.level, Level::Api | Level::Resource) && charge.tier.name.contains("_condition_");
        met.push(if is_group { format!("{name} ({})", charge.tier.name) } else { name });
    }
    if met.is_empty() {
        return "no limits".into();
    }
    format!("limits of {} have room, counted from zero: what others have used is not known here", met.join(", "))
}

/// Where a granted request goes.
pub(super) fn destination(api: &Api, seen: &Seen) -> String {
    let environment = match seen.key_type {
        KeyType::Production => "production",
        KeyType::Sandbox => "sandbox",
    };
    let upstreams: Vec<&str> = api.upstreams.of(seen.key_type).iter().map(|upstream| &*upstream.authority).collect();
    let rule = if api.subscription == SubscriptionRule::None { ", subscriptions not looked at" } else { "" };
    format!("to {environment} {}{rule}", upstreams.join(" or ")).trim_end().to_owned()
}
