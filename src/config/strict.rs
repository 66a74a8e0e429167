//! Settings that are allowed and let more pass than one may think: told at start, and refused by
//! `check --strict`. A resource with `auth = "none"` or an API without subscriptions is a choice, not a trap.

use crate::{
    problem::Problem,
    store::{AuthRule, TokenPlace},
    token::settings::Registration,
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
        found.refuse(
            self.cache.introspection_ttl > MAX_INTROSPECTION_TTL,
            "cache.introspection_ttl",
            format_args!("is longer than {MAX_INTROSPECTION_TTL}: revoked opaque tokens pass for long"),
        );
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
        }
        for (index, api) in self.apis.iter().enumerate() {
            let query = api.token_in.contains(&TokenPlace::Query);
            let field = format!("apis[{index}].token_in");
            found.refuse(query, field, "tokens in a query end up in logs and histories");
        }
        found.0
    }

    /// What is worth a warning at start: the traps, and what makes every request be refused.
    pub fn warnings(&self) -> Vec<Problem> {
        let mut found = Findings(self.fail_open_traps());
        for (index, api) in self.apis.iter().enumerate() {
            let empty = api.resources.is_empty();
            found.refuse(empty, format!("apis[{index}].resources"), "is empty: every request to this API is refused");
            let judged = api.resources.iter().any(|resource| resource.auth == AuthRule::Required);
            let nobody = judged && self.key_managers.is_empty();
            found.refuse(nobody, format!("apis[{index}]"), "needs tokens, but there is no key manager to accept any");
        }
        found.0
    }
}

const MAX_LEEWAY: Span = Span::seconds(300);
const MAX_INTROSPECTION_TTL: Span = Span::seconds(600);

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
            ("key_managers", "cache = { introspection_ttl = '601s' }\nkey_managers", "cache.introspection_ttl"),
            ("context", "token_in = ['header', 'query'], context", "apis[0].token_in"),
            ("key_managers", "trusted_proxies = ['10.0.0.0/8', '0.0.0.0/0']\nkey_managers", "trusted_proxies[1]"),
            ("key_managers", "trusted_proxies = ['::/0']\nkey_managers", "trusted_proxies[0]"),
        ] {
            let expected = vec![field.to_owned()];
            assert_eq!(fields(&GOOD.replacen(from, to, 1)), (expected.clone(), expected), "{to}");
        }
        assert_eq!(fields(&GOOD.replacen("audience", "leeway = '5m', audience", 1)).0, Vec::<String>::new());
    }

    #[test]
    fn what_refuses_everyone_is_a_warning_and_no_trap() {
        let nobody = "apis = [{ name = 'A', context = '/a', resources = [{ path = '/*' }] }]";
        assert_eq!(fields(nobody), (vec![], vec!["apis[0]".into()]));
        let nothing = "apis = [{ name = 'A', context = '/a' }]";
        assert_eq!(fields(nothing), (vec![], vec!["apis[0].resources".into()]));
    }
}
