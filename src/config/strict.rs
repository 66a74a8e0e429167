//! Settings that are allowed and let more pass than one may think: told at start, and refused by
//! `check --strict`. A resource with `auth = "none"` is a choice, not a trap, and so is an API
//! without subscriptions that asks for something else.

use crate::{
    problem::Problem,
    store::{
        AuthLevel, AuthRule, SubscriptionRule, TokenPlace,
        settings::{ApiSettings, BackendLimitSettings},
    },
    sync::OutageRule,
    token::settings::{ConnectorKind, KeyManagerSettings, Registration},
    units::Span,
};

use super::{Settings, problems::Findings};

impl Settings {
    /// Every fail-open trap.
    pub fn fail_open_traps(&self) -> Vec<Problem> {
        let mut found = Findings::default();
        for (index, network) in self.trusted_proxies.iter().enumerate() {
            let field = format!("trusted_proxies[{index}]");
            found.refuse(network.is_everyone(), field, "everyone's forwarded headers are believed");
        }
        let in_clear = self.management.as_ref().is_some_and(|door| !door.listen.is_local() && door.tls.is_none());
        found.refuse(in_clear, "management.listen", "credentials and secrets pass without TLS");
        for (index, manager) in self.key_managers.iter().enumerate() {
            let at = |field: &str| format!("key_managers[{index}].{field}");
            let (audience, leeway) = (manager.audience.is_empty(), manager.leeway > MAX_LEEWAY);
            found.refuse(audience, at("audience"), "is empty: tokens meant for any other service pass");
            found.refuse(manager.allow_http, at("allow_http"), "keys and endpoints may be fetched without TLS");
            found.refuse(
                manager.allow_remote,
                at("allow_remote"),
                "the embedded provider can be reached from elsewhere",
            );
            let open = manager.registration == Registration::Open;
            found.refuse(open, at("registration"), "anybody may register clients at the embedded provider");
            found.refuse(!manager.require_exp, at("require_exp"), "tokens that never expire pass");
            found.refuse(
                leeway,
                at("leeway"),
                format_args!("is longer than {MAX_LEEWAY}: expired tokens pass for long"),
            );
            let stale = manager.jwks_max_stale > MAX_AGE;
            found.refuse(
                stale,
                at("jwks_max_stale"),
                format_args!("is longer than {MAX_AGE}: keys that the provider has withdrawn count for long"),
            );
            let long = manager.token_lifetime > MAX_AGE;
            found.refuse(
                long,
                at("token_lifetime"),
                format_args!("is longer than {MAX_AGE}: a token that has leaked is good for long"),
            );
        }
        let open = self.shared.as_ref().is_some_and(|shared| shared.on_outage == OutageRule::Allow);
        found.refuse(open, "shared.on_outage", "\"allow\": nobody is throttled while Redis is down");
        let ttl = self.cache.introspection_ttl > MAX_TTL;
        found.refuse(
            ttl,
            "cache.introspection_ttl",
            format_args!("is longer than {MAX_TTL}: tokens that the provider has revoked pass for long"),
        );
        for (index, api) in self.apis.iter().enumerate() {
            self.traps_of_api(&format!("apis[{index}]"), api, &mut found);
        }
        // Rows of files are not looked at here: what is denied may be among them.
        if self.tables.files.is_empty() {
            self.traps_of_deny(&mut found);
        }
        found.0
    }

    fn traps_of_deny(&self, found: &mut Findings) {
        let is_api = |name: &str| self.apis.iter().any(|api| api.is_denied_as(name));
        let is_application = |name: &str| {
            let is_it =
                |owner: &str, name: &str| self.applications.iter().any(|it| it.owner == owner && it.name == name);
            name.split_once(':').is_some_and(|(owner, name)| is_it(owner, name))
        };
        for (index, row) in self.deny.iter().enumerate() {
            let pair = row.subscription.as_ref();
            let apis = [("api", row.api.as_deref()), ("subscription.api", pair.map(|it| it.api.as_str()))];
            let applications = [
                ("application", row.application.as_deref()),
                ("subscription.application", pair.map(|it| it.application.as_str())),
            ];
            let api_is_none = apis.map(|(field, name)| (field, name.is_some_and(|name| !is_api(name))));
            let none = applications.map(|(field, name)| (field, name.is_some_and(|name| !is_application(name))));
            for (field, is_none) in api_is_none.into_iter().chain(none) {
                found.refuse(
                    is_none,
                    format!("deny[{index}].{field}"),
                    "is none that there is: nobody is denied by it",
                );
            }
            let unsubscribed = |name: &str| {
                let mut meant = self.apis.iter().filter(|api| api.is_denied_as(name)).peekable();
                meant.peek().is_some() && meant.all(|api| api.subscription == SubscriptionRule::None)
            };
            let idle = pair.is_some_and(|it| unsubscribed(&it.api));
            let why = "is of an API that looks for no subscription: nobody is denied by it";
            found.refuse(idle, format!("deny[{index}].subscription.api"), why);
        }
    }

    pub(super) fn traps_of_api(&self, field: &str, api: &ApiSettings, found: &mut Findings) {
        let query = api.token_in.contains(&TokenPlace::Query);
        found.refuse(query, format!("{field}.token_in"), "tokens in a query end up in logs and histories");
        unlimited_backends(field, api, found);
        let asks_nothing = api.subscription == SubscriptionRule::None && api.audience.is_empty();
        for (index, resource) in api.resources.iter().enumerate() {
            let field = format!("{field}.resources[{index}]");
            let signed_in = !resource.acr_values.is_empty() || resource.max_age.is_some();
            let asks = !resource.scopes.is_empty() || resource.auth_level != AuthLevel::Any;
            match resource.auth {
                AuthRule::None => {
                    let scopes = !resource.scopes.is_empty();
                    found.refuse(scopes, format!("{field}.auth"), "\"none\": its scopes are never looked at");
                }
                AuthRule::Optional => {
                    let why = "\"optional\": without a token its scopes, auth_level, acr_values and max_age are not asked for";
                    found.refuse(asks || signed_in, format!("{field}.auth"), why);
                }
                AuthRule::Required => {
                    let open = asks_nothing && !asks && self.key_managers_of(api).any(|m| m.required_claims.is_empty());
                    let why = "any token of its key managers passes, whoever got it: nothing asks for a subscription, \
                               a scope, an auth_level, a required claim or an audience of the API";
                    found.refuse(open, field, why);
                }
            }
        }
    }

    /// Those whose tokens count at an API.
    fn key_managers_of(&self, api: &ApiSettings) -> impl Iterator<Item = &KeyManagerSettings> {
        self.key_managers
            .iter()
            .filter(|manager| api.key_managers.is_empty() || api.key_managers.contains(&manager.name))
    }

    /// What is worth a warning at start: the traps, and what makes every request be refused.
    pub fn warnings(&self) -> Vec<Problem> {
        let mut found = Findings(self.fail_open_traps());
        for (index, api) in self.apis.iter().enumerate() {
            self.warnings_of_api(&format!("apis[{index}]"), api, &mut found);
        }
        for (index, manager) in self.key_managers.iter().enumerate() {
            let names = manager.consumer_key_claim.as_slice();
            let blind = manager.connector == ConnectorKind::Okta && !names.iter().any(|name| name == "cid");
            let field = format!("key_managers[{index}].consumer_key_claim");
            found.refuse(blind, field, "does not name \"cid\", where Okta's tokens have their client");
        }
        found.0
    }

    pub(super) fn warnings_of_api(&self, field: &str, api: &ApiSettings, found: &mut Findings) {
        let empty = api.resources.is_empty();
        found.refuse(empty, format!("{field}.resources"), "is empty: every request to this API is refused");
        let judged = api.resources.iter().any(|resource| resource.auth == AuthRule::Required);
        let nobody = judged && self.key_managers.is_empty();
        found.refuse(nobody, field, "needs tokens, but there is no key manager to accept any");
    }
}

/// A limit that limits nothing.
fn unlimited_backends(field: &str, api: &ApiSettings, found: &mut Findings) {
    let Some(BackendLimitSettings { production, sandbox }) = &api.backend_limit else { return };
    let empty = production.is_none() && sandbox.is_none();
    found.refuse(empty, format!("{field}.backend_limit"), "is empty: its upstreams get as much as comes");
    let environments = [("production", production, &api.production), ("sandbox", sandbox, &api.sandbox)];
    for (name, limit, upstream) in environments {
        let idle = limit.is_some() && upstream.is_none() && api.upstream.is_none();
        found.refuse(idle, format!("{field}.backend_limit.{name}"), "limits nothing: the API has no such upstream");
    }
    let has_one = api.sandbox.is_some() || api.upstream.is_some();
    let unmet = sandbox.is_some() && has_one && api.subscription == SubscriptionRule::None;
    let why = "limits nothing: the API looks for no subscription, and so takes every call for one to production";
    found.refuse(unmet, format!("{field}.backend_limit.sandbox"), why);
}

const MAX_LEEWAY: Span = Span::seconds(300);
const MAX_TTL: Span = Span::seconds(3600);
const MAX_AGE: Span = Span::seconds(24 * 3600);

#[cfg(test)]
mod tests {
    use crate::config::{Format, parse};

    const GOOD: &str = "key_managers = [{ name = 'a', connector = 'oidc', issuer = 'https://i', audience = ['x'] }]\n\
                        apis = [{ name = 'A', context = '/a', subscription = 'none', resources = [{ path = '/*', auth = 'none' }] }]\n";

    fn fields(text: &str) -> (Vec<String>, Vec<String>) {
        let (settings, _) = parse(text, Format::Toml, "f").unwrap();
        let fields = |problems: Vec<crate::problem::Problem>| problems.into_iter().map(|p| p.field).collect();
        (fields(settings.fail_open_traps()), fields(settings.warnings()))
    }

    #[test]
    fn every_trap_is_told() {
        assert_eq!(fields(GOOD), (vec![], vec![]));
        for (from, to, field) in [
            ("audience = ['x']", "audience = []", "key_managers[0].audience"),
            ("audience", "allow_http = true, audience", "key_managers[0].allow_http"),
            ("audience", "allow_remote = true, audience", "key_managers[0].allow_remote"),
            ("audience", "registration = 'open', audience", "key_managers[0].registration"),
            ("audience", "require_exp = false, audience", "key_managers[0].require_exp"),
            ("audience", "leeway = '301s', audience", "key_managers[0].leeway"),
            ("context", "token_in = ['header', 'query'], context", "apis[0].token_in"),
            ("context", "backend_limit = {}, context", "apis[0].backend_limit"),
            (
                "context",
                "production = 'http://h', backend_limit = { sandbox = { requests = 1, per = '1s' } }, context",
                "apis[0].backend_limit.sandbox",
            ),
            (
                "context",
                "sandbox = 'http://h', backend_limit = { production = { requests = 1, per = '1s' } }, context",
                "apis[0].backend_limit.production",
            ),
            (
                "context",
                "upstream = 'http://h', backend_limit = { sandbox = { requests = 1, per = '1s' } }, context",
                "apis[0].backend_limit.sandbox",
            ),
            ("audience", "jwks_max_stale = '25h', audience", "key_managers[0].jwks_max_stale"),
            ("audience", "token_lifetime = '25h', audience", "key_managers[0].token_lifetime"),
            ("auth = 'none'", "auth = 'none', scopes = ['a']", "apis[0].resources[0].auth"),
            ("auth = 'none'", "auth = 'optional', scopes = ['a']", "apis[0].resources[0].auth"),
            ("auth = 'none'", "auth = 'optional', auth_level = 'application'", "apis[0].resources[0].auth"),
            ("auth = 'none'", "auth = 'optional', max_age = '1h'", "apis[0].resources[0].auth"),
            ("auth = 'none'", "auth = 'required'", "apis[0].resources[0]"),
            ("key_managers", "shared = { redis = 'redis://h', on_outage = 'allow' }\nkey_managers", "shared.on_outage"),
            ("key_managers", "cache = { introspection_ttl = '2h' }\nkey_managers", "cache.introspection_ttl"),
            ("key_managers", "trusted_proxies = ['0.0.0.0/1']\nkey_managers", "trusted_proxies[0]"),
            ("key_managers", "trusted_proxies = ['2000::/3']\nkey_managers", "trusted_proxies[0]"),
            ("key_managers", "trusted_proxies = ['10.0.0.0/8', '0.0.0.0/0']\nkey_managers", "trusted_proxies[1]"),
            ("key_managers", "trusted_proxies = ['::/0']\nkey_managers", "trusted_proxies[0]"),
        ] {
            let expected = vec![field.to_owned()];
            assert_eq!(fields(&GOOD.replacen(from, to, 1)), (expected.clone(), expected), "{to}");
        }
        let tables = "applications = [{ name = 'a:b', owner = 'ada' }]\n";
        let named =
            GOOD.replacen("context = '/a'", "context = '/a', version = 'v1', default_version = true", 1) + tables;
        let pair = "deny = [{ subscription = { api = '/a/v1', application = 'ada:a:b' } }]\n";
        assert_eq!(fields(&(pair.to_owned() + &named)).0, ["deny[0].subscription.api"], "it looks for no subscription");
        let named = named.replacen("subscription = 'none', ", "", 1);
        for (row, traps) in [
            ("api = 'A:v1'", vec![]),
            ("api = '/a/v1/'", vec![]),
            ("api = 'A'", vec!["deny[0].api"]),
            ("api = '/a'", vec!["deny[0].api"]),
            ("application = 'ada:a:b'", vec![]),
            ("application = 'eve:a:b'", vec!["deny[0].application"]),
            ("subscription = { api = '/a/v1', application = 'ada:a:b' }", vec![]),
            (
                "subscription = { api = '/a/v2', application = 'ada:c' }",
                vec!["deny[0].subscription.api", "deny[0].subscription.application"],
            ),
        ] {
            assert_eq!(fields(&format!("deny = [{{ {row} }}]\n{named}")).0, traps, "{row}");
            let elsewhere = format!("tables = {{ files = ['x'] }}\ndeny = [{{ {row} }}]\n{named}");
            assert_eq!(fields(&elsewhere).0, Vec::<String>::new(), "{row}");
        }
        for harmless in [
            GOOD.replacen(
                "subscription = 'none'",
                "upstream = 'http://h', backend_limit = { sandbox = { requests = 1, per = '1s' } }",
                1,
            ),
            GOOD.replacen("audience", "leeway = '5m', audience", 1),
            GOOD.replacen("auth = 'none'", "scopes = ['a']", 1),
            GOOD.replacen("auth = 'none'", "auth_level = 'application_user'", 1),
            GOOD.replacen("auth = 'none'", "auth = 'optional'", 1),
            GOOD.replacen(", auth = 'none'", "", 1).replacen("audience", "required_claims = { a = 'b' }, audience", 1),
            GOOD.replacen(", auth = 'none'", "", 1).replacen("context", "audience = ['a'], context", 1),
            GOOD.replacen(", auth = 'none'", "", 1).replacen("subscription = 'none', ", "", 1),
        ] {
            assert_eq!(fields(&harmless).0, Vec::<String>::new(), "{harmless}");
        }
    }

    #[test]
    fn what_refuses_everyone_is_a_warning_and_no_trap() {
        let nobody = "apis = [{ name = 'A', context = '/a', resources = [{ path = '/*' }] }]";
        assert_eq!(fields(nobody), (vec![], vec!["apis[0]".into()]));
        let okta = GOOD.replacen("oidc", "okta", 1);
        assert_eq!(fields(&okta), (vec![], vec!["key_managers[0].consumer_key_claim".into()]));
        let named = okta.replacen("audience", "consumer_key_claim = 'cid', audience", 1);
        assert_eq!(fields(&named), (vec![], vec![]));
        let nothing = "apis = [{ name = 'A', context = '/a' }]";
        assert_eq!(fields(nothing), (vec![], vec!["apis[0].resources".into()]));
    }
}
