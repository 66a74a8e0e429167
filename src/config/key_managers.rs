//! Mistakes of meaning in `[[key_managers]]`.

use std::collections::HashMap;

use url::{Host, Url};

use crate::{
    connectors,
    keymanager::{
        Error,
        check::{DOTS, NO_CLIENTS, new_id},
    },
    net::Address,
    token::settings::{
        Algorithm, ConnectorKind, KeyManagerSettings, Registration, ResponseForm, TokenForm, Validation,
    },
    units::Span,
};

use super::problems::Findings;

/// Checks all key managers.
pub(super) fn check(managers: &[KeyManagerSettings], found: &mut Findings) {
    let mut first = HashMap::new();
    for (index, manager) in managers.iter().enumerate() {
        let at = |field: &str| format!("key_managers[{index}].{field}");
        if let Some(other) = first.insert(&*manager.name, index) {
            found.add(at("name"), format_args!("is the name of key_managers[{other}] too"));
        }
        let bad_name = manager.name.is_empty() || manager.name.chars().any(char::is_control);
        found.refuse(bad_name, at("name"), "must not be empty or hold control characters");
        check_nameable(&manager.name, &DOTS, at("name"), found);
        match manager.connector {
            ConnectorKind::Embedded => check_embedded(manager, &at, found),
            _ => check_remote(manager, &at, found),
        }
        check_endpoints(manager, &at, found);
        check_rules(manager, &at, found);
    }
}

/// The embedded provider: it listens itself, and is named by where it listens.
fn check_embedded(manager: &KeyManagerSettings, at: &dyn Fn(&str) -> String, found: &mut Findings) {
    let Some(listen) = &manager.listen else {
        return found.add(at("listen"), "is needed by connector \"embedded\"");
    };
    match listen.parse() {
        Ok(Address::Tcp(address)) => found.refuse(
            !address.ip().is_loopback() && !manager.allow_remote,
            at("listen"),
            "must be a loopback address, unless allow_remote = true",
        ),
        Ok(Address::Unix(_)) => found.add(at("listen"), "must be ip:port: an issuer has no Unix socket"),
        Err(form) => found.add(at("listen"), form),
    }
    let named = manager.issuer.strip_prefix("http://") == Some(listen);
    found.refuse(!named, at("issuer"), "must be http:// and the listen address of this embedded provider");
    found.refuse(
        !manager.decryption_keys.is_empty(),
        at("decryption_keys"),
        "are of no use: the embedded provider encrypts nothing",
    );
    found.refuse(
        !manager.secret_keys.is_empty(),
        at("secret_keys"),
        "are of no use: the embedded provider signs by ES256",
    );
    for (set, field) in [(manager.ca.is_some(), "ca"), (manager.proxy.is_some(), "proxy")] {
        found.refuse(set, at(field), "is of no use: the embedded provider is in this process");
    }
    check_tokens(manager, at, found);
    check_people(manager, at, found);
}

/// What it issues, how long that lives, and who may register.
fn check_tokens(manager: &KeyManagerSettings, at: &dyn Fn(&str) -> String, found: &mut Findings) {
    for (field, span) in [("token_lifetime", manager.token_lifetime), ("refresh_lifetime", manager.refresh_lifetime)] {
        let whole = span.is_whole_seconds() && span != Span::default();
        found.refuse(!whole, at(field), "is whole seconds, at least \"1s\"");
    }
    let unasked = matches!(manager.validation, Validation::Jwt | Validation::Both);
    found.refuse(
        manager.tokens == TokenForm::Opaque && unasked,
        at("tokens"),
        "opaque needs validation \"auto\" or \"introspect\": there is nothing to verify",
    );
    // Each key is published until its last token has expired: a key set must not grow without bound.
    let rotation = manager.key_rotation;
    found.refuse(!rotation.is_whole_seconds(), at("key_rotation"), "is whole seconds, or 0");
    let hasty = rotation != Span::default() && rotation.0 < manager.token_lifetime.0 / 8;
    found.refuse(
        hasty && rotation.is_whole_seconds(),
        at("key_rotation"),
        "must be 0, or at least an eighth of token_lifetime",
    );
    let es256 = manager.algorithms.is_empty() || manager.algorithms.contains(&Algorithm::ES256);
    found.refuse(!es256, at("algorithms"), "must hold ES256, by which the embedded provider signs");
    let by_token = manager.registration == Registration::Token;
    found.refuse(
        by_token != manager.registration_token.is_some(),
        at("registration_token"),
        "is needed by registration = \"token\", and by nothing else",
    );
    check_scopes(&manager.registration_scopes, &at("registration_scopes"), found);
}

/// What the management door names in a path: none of the `words` that a path cannot, as `keymanager::check` has it.
fn check_nameable(name: &str, words: &[&str], field: String, found: &mut Findings) {
    if let Err(Error::Invalid { why, .. }) = new_id("name", name, words) {
        found.add(field, why);
    }
}

/// Clients and users.
fn check_people(manager: &KeyManagerSettings, at: &dyn Fn(&str) -> String, found: &mut Findings) {
    // RFC 6749 appendix A: visible characters and spaces.
    let good = |name: &str| !name.is_empty() && name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let mut first = HashMap::new();
    for (index, client) in manager.clients.iter().enumerate() {
        let at = |field: &str| at(&format!("clients[{index}].{field}"));
        found.refuse(!good(&client.id), at("id"), "must be visible ASCII characters");
        check_nameable(&client.id, &NO_CLIENTS, at("id"), found);
        if let Some(other) = first.insert(&*client.id, index) {
            found.add(at("id"), format_args!("is the id of clients[{other}] too"));
        }
        check_scopes(&client.scopes, &at("scopes"), found);
    }
    let (clients, mut first) = (first, HashMap::new());
    for (index, user) in manager.users.iter().enumerate() {
        let at = |field: &str| at(&format!("users[{index}].{field}"));
        found.refuse(!good(&user.name), at("name"), "must be visible ASCII characters");
        check_nameable(&user.name, &DOTS, at("name"), found);
        if let Some(other) = first.insert(&*user.name, index) {
            found.add(at("name"), format_args!("is the name of users[{other}] too"));
        }
        let client = clients.contains_key(&*user.name);
        found.refuse(client, at("name"), "is the id of a client, whose tokens would look alike");
        check_scopes(&user.scopes, &at("scopes"), found);
    }
}

fn check_scopes(scopes: &[String], field: &str, found: &mut Findings) {
    for (index, scope) in scopes.iter().enumerate() {
        found.refuse(!is_scope(scope), format!("{field}[{index}]"), "is not a scope of RFC 6749");
    }
}

/// A provider elsewhere.
fn check_remote(manager: &KeyManagerSettings, at: &dyn Fn(&str) -> String, found: &mut Findings) {
    check_issuer(manager, at, found);
    let by_hand = manager.jwks_uri.is_some() || manager.jwks.is_some();
    let shared = !manager.secret_keys.is_empty();
    let asked = manager.validation == Validation::Introspect && manager.introspection_response == ResponseForm::Json;
    found.refuse(
        !manager.discovery && !by_hand && !shared && !asked,
        at("discovery"),
        "false needs jwks_uri, jwks or secret_keys",
    );
    // A key set without any use is a mistake, and one beside secrets is where algorithms get confused.
    let symmetric = !manager.algorithms.is_empty() && manager.algorithms.iter().all(|alg| alg.is_symmetric());
    let set = manager.discovery || by_hand;
    found.refuse(
        symmetric && set,
        at("algorithms"),
        "names nothing that a key set has keys for: set discovery = false, and no jwks_uri or jwks",
    );
    for (set, field) in [
        (manager.listen.is_some(), "listen"),
        (manager.allow_remote, "allow_remote"),
        (manager.tokens != TokenForm::default(), "tokens"),
        (manager.token_lifetime != Span::seconds(3600), "token_lifetime"),
        (manager.refresh_lifetime != Span::seconds(86_400), "refresh_lifetime"),
        (manager.key_rotation != Span::seconds(30 * 86_400), "key_rotation"),
        (!manager.clients.is_empty(), "clients"),
        (!manager.users.is_empty(), "users"),
        (manager.registration != Registration::Off, "registration"),
        (!manager.registration_scopes.is_empty(), "registration_scopes"),
    ] {
        found.refuse(set, at(field), "is only for connector \"embedded\"");
    }
    let registers = manager.connector == ConnectorKind::Oidc;
    let token = manager.registration_token.is_some() && !registers;
    found.refuse(token, at("registration_token"), "is only for connectors \"embedded\" and \"oidc\"");
    if let Some(Err(why)) = manager.proxy.as_deref().map(connectors::proxy) {
        found.add(at("proxy"), why);
    }
}

/// OpenID Connect Discovery section 3, RFC 8414 section 2: a URL without query and fragment.
fn check_issuer(manager: &KeyManagerSettings, at: &dyn Fn(&str) -> String, found: &mut Findings) {
    let field = at("issuer");
    match check_url(&manager.issuer, manager.allow_http) {
        Ok(url) => {
            let bare = url.query().is_none() && url.fragment().is_none();
            found.refuse(!bare, field, "must have no query and no fragment");
        }
        Err(message) => found.add(field, message),
    }
}

fn check_endpoints(manager: &KeyManagerSettings, at: &dyn Fn(&str) -> String, found: &mut Findings) {
    let both = manager.jwks.is_some() && manager.jwks_uri.is_some();
    found.refuse(both, at("jwks"), "and jwks_uri exclude each other");
    for (field, url) in [
        ("jwks_uri", &manager.jwks_uri),
        ("introspection_endpoint", &manager.introspection_endpoint),
        ("token_endpoint", &manager.token_endpoint),
        ("revocation_endpoint", &manager.revocation_endpoint),
        ("registration_endpoint", &manager.registration_endpoint),
        ("userinfo_endpoint", &manager.userinfo_endpoint),
        ("scope_endpoint", &manager.scope_endpoint),
        ("endpoint", &manager.endpoint),
    ] {
        match url.as_ref().map(|url| check_url(url, manager.allow_http)) {
            Some(Err(message)) => found.add(at(field), message),
            Some(Ok(url)) => found.refuse(url.fragment().is_some(), at(field), "must have no fragment"),
            None => {}
        }
    }
    check_management(manager, at, found);
}

/// Where the provider is managed, and with which secret of its own kind.
fn check_management(manager: &KeyManagerSettings, at: &dyn Fn(&str) -> String, found: &mut Findings) {
    let kind = manager.connector;
    let http = kind == ConnectorKind::Http;
    for (set, field) in [(manager.endpoint.is_some(), "endpoint"), (manager.token.is_some(), "token")] {
        found.refuse(http && !set, at(field), "is needed by connector \"http\"");
    }
    let elsewhere = http || matches!(kind, ConnectorKind::Okta | ConnectorKind::Auth0);
    let (endpoint, token) = (manager.endpoint.as_deref(), manager.token.is_some());
    found.refuse(
        endpoint.is_some() && !elsewhere,
        at("endpoint"),
        "is only for connectors \"http\", \"okta\" and \"auth0\"",
    );
    let queried = endpoint.and_then(|text| Url::parse(text).ok()).is_some_and(|url| url.query().is_some());
    found.refuse(queried, at("endpoint"), "must have no query");
    let keyed = http || kind == ConnectorKind::Okta;
    found.refuse(token && !keyed, at("token"), "is only for connectors \"http\" and \"okta\"");
}

/// What a token is judged by.
fn check_rules(manager: &KeyManagerSettings, at: &dyn Fn(&str) -> String, found: &mut Findings) {
    found.refuse(manager.algorithms.is_empty(), at("algorithms"), "must name at least one");
    for (field, names) in [("consumer_key_claim", &manager.consumer_key_claim), ("scopes_claim", &manager.scopes_claim)]
    {
        let names = names.as_slice();
        let bad = names.is_empty() || names.iter().any(String::is_empty);
        found.refuse(bad, at(field), "must name at least one claim, and none by an empty name");
    }
    found.refuse(manager.audience.iter().any(String::is_empty), at("audience"), "must not hold an empty audience");
    for (field, span) in
        [("jwks_refresh", manager.jwks_refresh), ("jwks_cooldown", manager.jwks_cooldown), ("timeout", manager.timeout)]
    {
        found.refuse(span == Span::default(), at(field), "must be longer than 0");
    }
    for (field, span) in [("leeway", manager.leeway), ("max_lifetime", manager.max_lifetime)] {
        found.refuse(!span.is_whole_seconds(), at(field), "is whole seconds, at least \"1s\", or 0");
    }
    found.refuse(manager.concurrency == 0, at("concurrency"), "must be at least 1");
    let short = manager.jwks_max_stale < manager.jwks_refresh;
    found.refuse(short, at("jwks_max_stale"), "must be at least jwks_refresh");
}

/// An absolute `https` URL, or `http` where that is allowed.
fn check_url(text: &str, allow_http: bool) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(Url::has_host).ok_or(URL_FORM)?;
    // What the URL library repairs is compared and fetched as written: no white space, no control characters.
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(URL_FORM);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must hold no user and no password");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if allow_http || is_loopback(&url) => Ok(url),
        "http" => Err("must be https; http only on loopback, or with allow_http = true"),
        _ => Err(URL_FORM),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// A `scope-token` of RFC 6749 section 3.3.
fn is_scope(scope: &str) -> bool {
    !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

const URL_FORM: &str = "must be an absolute URL that begins with https:// or http://";
