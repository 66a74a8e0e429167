//! Why a request was refused and what would make it pass, in a sentence each, from the data at hand.

use super::{
    Authorizer, CheckRequest, Denial, Found,
    explain::{wanted, whose},
    scope,
};
use crate::{
    store::{DeniedBy, SignIn},
    throttle::{Level, Usage},
    token::{Flaw, Form, Glance, Misshapen},
};

/// A refusal with all that is known around it.
pub(super) struct Case<'a> {
    pub(super) denial: &'a Denial,
    pub(super) found: &'a Found,
    /// What the token says of itself; none: there is none, or it was not looked for.
    pub(super) glance: Option<&'a Glance>,
    pub(super) authorizer: &'a Authorizer,
    pub(super) request: &'a CheckRequest<'a>,
}

impl Case<'_> {
    /// What is wrong, and what would make it pass.
    pub(super) fn told(&self) -> (String, String) {
        let (wrong, remedy) = match self.denial {
            Denial::NoApi => self.no_api(),
            Denial::NoResource => self.no_resource(),
            Denial::NoCredential => self.no_credential(),
            Denial::Token(flaw) => self.token(*flaw),
            Denial::AuthLevel => self.auth_level(),
            Denial::NotSubscribed => self.not_subscribed(),
            Denial::SubscriptionBlocked | Denial::SubscriptionInactive => self.state(),
            Denial::NoEnvironment => self.no_environment(),
            Denial::Scope => self.scope(),
            Denial::ApiAudience => self.api_audience(),
            Denial::SignIn => self.sign_in(),
            Denial::Denied(by) => denied(*by),
            Denial::Throttled(throttled) => throttled_at(throttled.level, throttled.burst, &throttled.usage),
            Denial::Flooded(usage) => (
                format!("{} bad tokens have come from this address", usage.limit),
                format!("wait {} s, or raise [throttle] failures", usage.reset_s),
            ),
            Denial::Overloaded => (
                "too many new tokens wait for their signature check".into(),
                "try again, or raise [verification] waiting".into(),
            ),
            Denial::Unavailable { .. } => self.unavailable(),
            Denial::Uncounted => (
                "what all sidecars have counted cannot be had from Redis".into(),
                "see that Redis can be reached from here, or choose another [shared] on_outage".into(),
            ),
            Denial::Credentials => (
                "more than one credential".into(),
                "bring one token, in one Authorization field or the one place that token_in names".into(),
            ),
            denial => (denial.message().to_owned(), denial.description().to_owned()),
        };
        (wrong, capital(&remedy) + ".")
    }

    fn no_api(&self) -> (String, String) {
        let contexts: Vec<&str> = self.found.tables.served().map(|api| &*api.id).take(MOST_NAMED).collect();
        let host =
            if self.request.host.is_empty() { String::new() } else { format!(" for host {}", self.request.host) };
        (
            format!("no API is served at this path{host}"),
            format!("ask for the context and version of one of the APIs: {}", contexts.join(", ")),
        )
    }

    fn no_resource(&self) -> (String, String) {
        let Some(api) = self.found.api() else { return self.no_api() };
        let each = api.resources.iter().take(MOST_NAMED).map(|resource| {
            let verbs: Vec<&str> = resource.methods.iter().map(http::Method::as_str).collect();
            let verbs = if verbs.is_empty() { "*".into() } else { verbs.join(",") };
            format!("{verbs} {}", resource.template)
        });
        (
            format!("API {} has no resource for {} at this path", api.id, self.request.method),
            format!(
                "ask for one of its resources ({}), or add one{}",
                each.collect::<Vec<_>>().join(", "),
                if self.request.method == http::Method::OPTIONS { PREFLIGHTS } else { "" }
            ),
        )
    }

    fn no_credential(&self) -> (String, String) {
        let query = self.found.api().is_some_and(|api| api.token_in_query);
        let header = self.found.api().is_some_and(|api| api.token_in_header);
        let place = match (header, query) {
            (true, true) => "Authorization: Bearer TOKEN, or ?access_token=TOKEN",
            (false, true) => "?access_token=TOKEN",
            _ => "Authorization: Bearer TOKEN",
        };
        ("no token where this API looks for one".into(), format!("send {place}"))
    }

    fn auth_level(&self) -> (String, String) {
        let Some(resource) = self.found.resource() else { return nothing_known() };
        (
            format!("the resource needs {}", whose(resource.auth_level)),
            format!("bring {}, or change the resource's auth_level", whose(resource.auth_level)),
        )
    }

    fn not_subscribed(&self) -> (String, String) {
        let (Some(identity), Some(api)) = (&self.found.identity, self.found.api()) else { return nothing_known() };
        let Some(key) = &identity.common.consumer_key else {
            return (
                "the token names no consumer key".into(),
                format!(
                    "let consumer_key_claim of key manager {} name a claim that it has",
                    identity.common.key_manager
                ),
            );
        };
        match self.found.application() {
            None => (
                format!("consumer key {key} of key manager {} belongs to no application", identity.common.key_manager),
                format!("add the key to an application, and subscribe that application to {}", api.id),
            ),
            Some(application) => (
                format!("application {} is not subscribed to {}", &*application.name, api.id),
                format!("add a [[subscriptions]] of {} to {}", &*application.name, api.id),
            ),
        }
    }

    fn state(&self) -> (String, String) {
        let (Some(application), Some(subscription), Some(api)) =
            (self.found.application(), self.found.subscription(), self.found.api())
        else {
            return nothing_known();
        };
        (
            format!(
                "the subscription of application {} to {} is {}, and the key is of type {}",
                &*application.name,
                api.id,
                configured(subscription.state),
                configured(self.found.key_type)
            ),
            "set the subscription's state to UNBLOCKED".into(),
        )
    }

    fn no_environment(&self) -> (String, String) {
        let Some(api) = self.found.api() else { return nothing_known() };
        let environment = configured(self.found.key_type).to_lowercase();
        (
            format!("API {} has no {environment} upstream, and the key is of that type", api.id),
            format!("give the API {environment} = \"…\", or bring a token of a key of the other type"),
        )
    }

    fn scope(&self) -> (String, String) {
        let (Some(identity), Some(resource)) = (&self.found.identity, self.found.resource()) else {
            return nothing_known();
        };
        let had = if identity.common.scopes.is_empty() { "none".into() } else { identity.common.scopes.join(" ") };
        (format!("needs {}; the token has {had}", wanted(resource)), format!("bring a token with {}", wanted(resource)))
    }

    fn api_audience(&self) -> (String, String) {
        let (Some(identity), Some(api)) = (&self.found.identity, self.found.api()) else { return nothing_known() };
        (
            format!(
                "API {} wants aud {}; the token has {}",
                api.id,
                listed(&api.audience),
                listed(&identity.common.audience)
            ),
            format!("bring a token for {}", api.audience.join(" or ")),
        )
    }

    fn sign_in(&self) -> (String, String) {
        let (Some(identity), Some(resource)) = (&self.found.identity, self.found.resource()) else {
            return nothing_known();
        };
        let Some(SignIn { acr_values, max_age_s }) = resource.sign_in.as_deref() else { return nothing_known() };
        let (mut wants, mut has) = (Vec::new(), Vec::new());
        if !acr_values.is_empty() {
            wants.push(format!("acr {}", listed(acr_values)));
            has.push(format!("acr {}", identity.common.acr.as_deref().unwrap_or("none")));
        }
        if let Some(most) = max_age_s {
            wants.push(format!("a sign-in (auth_time) of the last {most} s"));
            has.push(match scope::age_s(identity, self.request.now) {
                Some(age) => format!("one of {age} s ago"),
                None => "no auth_time to believe".into(),
            });
        }
        (
            format!("needs {}; the token has {}", wants.join(" and "), has.join(" and ")),
            "have the user sign in anew, with these acr_values and max_age in the authorization request".into(),
        )
    }

    fn unavailable(&self) -> (String, String) {
        let managers = self.glance.map_or(&[][..], |glance| &glance.managers);
        let name = managers.first().map_or("its key manager", |wants| &wants.name);
        (
            format!("{name} cannot be asked: its keys are not at hand, or it does not answer"),
            format!("see that the provider of {name} can be reached from here; this is no verdict on the token"),
        )
    }

    fn token(&self, flaw: Flaw) -> (String, String) {
        let empty = Glance::default();
        let glance = self.glance.unwrap_or(&empty);
        let issuer = glance.issuer.as_deref().unwrap_or("none");
        let now = self.request.now.unix();
        let manager = match glance.managers.as_slice() {
            [] => "its key manager".to_owned(),
            all => all.iter().map(|wants| wants.name.as_str()).collect::<Vec<_>>().join(" or "),
        };
        match flaw {
            Flaw::UnknownIssuer => (
                format!("no key manager has the issuer {issuer}"),
                format!("bring a token of {}, or add a key manager with its issuer", self.issuers()),
            ),
            Flaw::KeyManagerNotAllowed => (
                format!("{manager} is none of the API's key_managers"),
                format!("bring a token of {}, or add {manager} to the API's key_managers", self.allowed()),
            ),
            Flaw::UnknownKey => (
                format!("issuer {issuer} has no key with the id {}", glance.key_id.as_deref().unwrap_or("(none)")),
                format!("sign with a key that the provider of {manager} publishes, or see that it publishes this one"),
            ),
            Flaw::Signature => (
                format!(
                    "the signature is not by the key {} of issuer {issuer}",
                    glance.key_id.as_deref().unwrap_or("(any)")
                ),
                "bring the token as its provider issued it; it was changed, or signed by another key".into(),
            ),
            Flaw::Algorithm => (
                format!("alg {} is not taken, or not with such a key", glance.algorithm.as_deref().unwrap_or("(none)")),
                format!("sign with {}", self.taken(glance)),
            ),
            Flaw::Expired => (
                format!("expired {} s ago", now.saturating_sub(glance.expires_at.unwrap_or(now))),
                "bring a fresh token".into(),
            ),
            Flaw::NotYetValid => (
                format!("good only in {} s", glance.not_before.unwrap_or(now).saturating_sub(now)),
                "wait, or set the clocks right".into(),
            ),
            Flaw::IssuedInFuture => (
                format!("issued {} s from now", glance.issued_at.unwrap_or(now).saturating_sub(now)),
                "set the clocks of provider and gate right".into(),
            ),
            Flaw::Audience => (
                format!("{manager} wants aud {}; the token has {}", self.audience(glance), listed(&glance.audience)),
                format!("have the provider issue it for {}", self.audience(glance)),
            ),
            Flaw::Type => (
                format!(
                    "typ {}{} is no access token's",
                    glance.typ.as_deref().unwrap_or("(none)"),
                    glance.telltale.as_deref().map_or_else(String::new, |claim| format!(" with the claim {claim}"))
                ),
                "bring an access token (typ at+jwt), not an ID token or another kind".into(),
            ),
            Flaw::Lifetime => (
                match (glance.issued_at, glance.expires_at) {
                    (Some(_), Some(_)) => "lives longer than allowed",
                    _ => "has no iat or no exp, so that nobody can tell how long it lives",
                }
                .into(),
                format!(
                    "have the provider issue tokens of {} s at most, or raise max_lifetime of {manager}",
                    glance.managers.first().map_or(0, |wants| wants.max_lifetime_s)
                ),
            ),
            Flaw::MissingExpiry => {
                ("has no exp".into(), format!("have the provider set exp, or set require_exp = false for {manager}"))
            }
            Flaw::Revoked => ("revoked".into(), "bring a token issued since".into()),
            Flaw::Inactive => ("the provider says that it is not active".into(), "bring a fresh token".into()),
            Flaw::Claim => unmet(&manager, glance),
            Flaw::Encrypted => (
                "encrypted, and no decryption_keys open it".into(),
                "give its key manager the key, or bring a token that is only signed".into(),
            ),
            Flaw::Opaque => (
                "opaque, and nobody is asked about it".into(),
                "give a key manager client_id and credential (introspection), and a token_pattern if there are several"
                    .into(),
            ),
            Flaw::Bound => (
                "bound to a key or certificate (cnf, DPoP) whose proof is not checked here".into(),
                "bring a bearer token".into(),
            ),
            Flaw::Critical => ("its header asks for an extension (crit, b64)".into(), "issue it without".into()),
            Flaw::Malformed => malformed(&manager, glance),
        }
    }

    fn issuers(&self) -> String {
        let all = self.authorizer.tokens.issuers();
        let each = all.into_iter().take(MOST_NAMED).map(|(name, issuer)| format!("{issuer} ({name})"));
        each.collect::<Vec<_>>().join(" or ")
    }

    fn allowed(&self) -> String {
        self.found.api().map_or_else(String::new, |api| api.key_managers.names.join(" or "))
    }

    fn taken(&self, glance: &Glance) -> String {
        let all: Vec<&str> = glance.managers.iter().flat_map(|wants| &wants.algorithms).map(String::as_str).collect();
        if all.is_empty() { "an algorithm that its key manager takes".into() } else { all.join(", ") }
    }

    fn audience(&self, glance: &Glance) -> String {
        let all: Vec<&str> = glance.managers.iter().flat_map(|wants| &wants.audience).map(String::as_str).collect();
        all.join(" or ")
    }
}

/// What has not the form that it must have.
fn malformed(manager: &str, glance: &Glance) -> (String, String) {
    let as_issued = || "bring the token as its provider issued it, whole".to_owned();
    let at_the_provider = || format!("have the provider of {manager} issue it otherwise, unless it was changed since");
    match &glance.misshapen {
        Some(Misshapen::Length(most)) => {
            (format!("the token is longer than {most} bytes"), "have the provider say less in it".into())
        }
        Some(Misshapen::Characters) => ("not a well-formed token: it has characters that none has".into(), as_issued()),
        Some(Misshapen::Encoding) => ("not a well-formed token: a part of it is not base64url".into(), as_issued()),
        Some(Misshapen::Header) => (format!("its header {NO_OBJECT}"), as_issued()),
        Some(Misshapen::Claims) => (format!("its payload {NO_OBJECT}"), as_issued()),
        Some(Misshapen::Parameter(name)) => {
            (format!("the header parameter {name} has not the form that it must have"), at_the_provider())
        }
        Some(Misshapen::Claim(name)) => {
            let form = match name.as_str() {
                "exp" | "nbf" | "iat" => "a number of seconds since 1970",
                "aud" => "a text, or a list of texts",
                _ => "a text",
            };
            (format!("the claim {name} is not {form}"), at_the_provider())
        }
        None if glance.form == Form::Opaque => (
            "what its provider says of it has not the form that it must have".into(),
            "see what its introspection answers (RFC 7662)".into(),
        ),
        None => ("not a well-formed token".into(), as_issued()),
    }
}

/// Claims that are not as a key manager asks.
fn unmet(manager: &str, glance: &Glance) -> (String, String) {
    let mut names: Vec<&str> =
        glance.managers.iter().flat_map(|wants| &wants.unmet).map(String::as_str).take(MOST_NAMED).collect();
    names.dedup();
    let which = match names.as_slice() {
        // What the provider has said of an opaque token is not at hand.
        [] => "a claim is".to_owned(),
        [one] => format!("the claim {one} is"),
        all => format!("the claims {} are", all.join(", ")),
    };
    (
        format!("{which} not as {manager} asks (required_claims, token_match)"),
        format!("bring a token that has what {manager} requires, or change its required_claims or token_match"),
    )
}

fn denied(by: DeniedBy) -> (String, String) {
    let (what, field) = match by {
        DeniedBy::Api => ("the API", "api"),
        DeniedBy::Application => ("the application", "application"),
        DeniedBy::User => ("the user", "user"),
        DeniedBy::Subscription => ("calls of this API by this application", "subscription"),
        DeniedBy::Address => ("the client's address", "ip or ip_range"),
    };
    (format!("a deny condition names {what}"), format!("take the [[deny]] with its {field} away"))
}

fn throttled_at(level: Level, burst: bool, usage: &Usage) -> (String, String) {
    let (level, larger) = match level {
        Level::Custom => ("custom rule", "raise the rule's limit".to_owned()),
        Level::Backend => ("backend limit", "raise the API's backend_limit".to_owned()),
        level => (level.label(), format!("give the {} a larger tier", level.label())),
    };
    let limit = if burst { "burst limit" } else { "quota" };
    (
        format!(
            "the {level}'s {limit} of {} {} in {} s ({}) has no room",
            usage.limit,
            usage.kind.name(),
            usage.window_s,
            usage.tier
        ),
        format!("wait {} s, or {larger}", usage.reset_s),
    )
}

/// A value as the configuration writes it.
fn configured(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn listed(texts: &[impl AsRef<str>]) -> String {
    if texts.is_empty() {
        return "none".into();
    }
    texts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" or ")
}

fn nothing_known() -> (String, String) {
    ("nothing more is known".into(), "see the reason".into())
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

/// The proxy door answers them before anything is judged.
const PREFLIGHTS: &str = "; a browser's preflight is answered where the API's cors has its origin and its verb";
const NO_OBJECT: &str = "is no JSON object, has a member twice, or nests too deep";
/// Names in one sentence.
const MOST_NAMED: usize = 8;
