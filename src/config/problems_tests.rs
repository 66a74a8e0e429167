//! Tests of what is wrong with settings.

use crate::config::{Format, parse};

/// A mistake-free start of every file below; `[[key_managers]]` is the last table.
const GOOD: &str = "[proxy]\nlisten = '127.0.0.1:8080'\n[admin]\nlisten = '127.0.0.1:9090'\n\
                    [[key_managers]]\nname = 'a'\nconnector = 'oidc'\nissuer = 'https://idp.example.com'\n";
const EMBEDDED: &str = "[[key_managers]]\nname = 'e'\nconnector = 'embedded'\n";

fn problems(text: &str) -> Vec<String> {
    let (settings, _) = parse(text, Format::Toml, "f").unwrap_or_else(|error| panic!("{error}\n{text}"));
    settings.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_file_has_none() {
    assert_eq!(problems(GOOD), Vec::<String>::new());
    let listen = "listen = '127.0.0.1:9000'\nissuer = 'http://127.0.0.1:9000'";
    assert_eq!(problems(&format!("{EMBEDDED}{listen}")), Vec::<String>::new());
    let remote = "listen = '0.0.0.0:9000'\nissuer = 'http://0.0.0.0:9000'\nallow_remote = true";
    assert_eq!(problems(&format!("{EMBEDDED}{remote}")), Vec::<String>::new());
}

#[test]
fn mistakes_at_the_top() {
    for (text, expected) in [
        ("workers = 1025", "workers: must be at most 1024"),
        ("log.access_sample = 1.5", "log.access_sample: must be from 0 to 1"),
        ("log.access_sample = nan", "log.access_sample: must be from 0 to 1"),
        ("store = {}", "store.path: is needed: the file, in a folder that exists"),
        ("store.url = 'postgres://a'", "store.url: not in this build"),
        ("decision = {}", "decision: not in this build"),
        (
            "management.listen = '127.0.0.1:9443'",
            "management.bootstrap_key_file: is needed where there is no [store] beside which it could be",
        ),
        (
            "management = { listen = '127.0.0.1:9443', bootstrap_key_file = '/a', key_managers = ['a', 'b'] }",
            "management.key_managers[1]: there is no key manager of this name",
        ),
        ("shared = { redis = 'redis://h', interval = '9ms' }", "shared.interval: is 10ms to 10s"),
        ("shared = { redis = 'redis://h', interval = '11s' }", "shared.interval: is 10ms to 10s"),
        ("shared = { redis = 'redis://h', timeout = '0' }", "shared.timeout: is 1ms to 10s"),
        ("throttle.failures.per = '999ms'", "throttle.failures.per: must be at least 1s"),
        ("verification.waiting = 0", "verification.waiting: must be from 1 to 65536"),
        ("verification.waiting = 65537", "verification.waiting: must be from 1 to 65536"),
    ] {
        assert_eq!(problems(&format!("{text}\n{GOOD}")), [expected], "{text}");
    }
    for allowed in [
        "store.path = '/a/b.redb'",
        "cache.introspection_ttl = '61s'",
        "cache.tokens = '1MiB'",
        "throttle.failures.requests = 0",
        "verification.waiting = 1",
        "shared = { redis = 'redis://h', mode = 'batched', interval = '100ms', on_outage = 'local' }",
        "shared = { redis = 'redis://h', mode = 'lease', interval = '10ms', timeout = '1ms', on_outage = 'deny' }",
        "shared = { redis = 'redis://h', mode = 'strict', interval = '10s', timeout = '10s' }",
        "shared.redis = 'redis://h'\ntiers = [{ name = 'T', requests = 1, per = '1m', algorithm = 'gcra' }]",
        "shared.redis = 'redis://h'\ntiers = [{ name = 'T', requests = 1, per = '1m', algorithm = 'sliding' }]",
    ] {
        assert_eq!(problems(&format!("{allowed}\n{GOOD}")), Vec::<String>::new(), "{allowed}");
    }
}

#[test]
fn mistakes_of_doors() {
    let door = |line: &str| format!("[proxy]\nlisten = '127.0.0.1:8080'\n{line}");
    for (text, expected) in [
        (String::new(), "proxy: is missing, and so is every other door: there is nothing to do"),
        (
            "[admin]\nlisten = '127.0.0.1:1'".into(),
            "proxy: is missing, and so is every other door: there is nothing to do",
        ),
        (door("max_header_bytes = '8191B'\nmax_uri = '1KiB'"), "proxy.max_header_bytes: must be from 8KiB to 16MiB"),
        (door("max_headers = 0"), "proxy.max_headers: must be from 1 to 10000"),
        (door("max_connections = 0"), "proxy.max_connections: must be from 1 to 1000000"),
        (door("max_streams = 0"), "proxy.max_streams: must be from 1 to 10000"),
        (door("max_uri = '0'"), "proxy.max_uri: must be more than 0, and at most max_header_bytes and 65534B"),
        (door("max_uri = '64KiB'"), "proxy.max_uri: must be more than 0, and at most max_header_bytes and 65534B"),
        (door("timeouts.idle = '0'"), "proxy.timeouts.idle: must be longer than 0"),
        (door("[admin]\nlisten = '127.0.0.1:8080'"), "admin.listen: is the same address as proxy.listen"),
        (door("[admin]\nlisten = '0.0.0.0:8080'"), "admin.listen: is the same address as proxy.listen"),
        (door("[admin]\nlisten = '[::]:8080'"), "admin.listen: is the same address as proxy.listen"),
        (
            "[proxy]\nlisten = 'unix:/a'\n[admin]\nlisten = 'unix:/a'".into(),
            "admin.listen: is the same address as proxy.listen",
        ),
        (
            door(&format!("{EMBEDDED}listen = 'localhost:8080'\nissuer = 'http://localhost:8080'")),
            "key_managers[0].listen: is the same address as proxy.listen",
        ),
    ] {
        assert_eq!(problems(&text), [expected], "{text}");
    }
    for different in ["127.0.0.2:8080", "[::1]:8080", "127.0.0.1:8081", "unix:/a"] {
        assert_eq!(problems(&door(&format!("[admin]\nlisten = '{different}'"))), Vec::<String>::new());
    }
    let any_port = "[proxy]\nlisten = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'";
    assert_eq!(problems(any_port), Vec::<String>::new());
}

#[test]
fn mistakes_of_key_managers() {
    for (line, expected) in [
        ("discovery = false", "discovery: false needs jwks_uri, jwks or secret_keys"),
        ("jwks_uri = 'idp.example.com'", "jwks_uri: must be an absolute URL that begins with https:// or http://"),
        (
            "jwks_uri = 'http://idp.example.com/jwks'",
            "jwks_uri: must be https; http only on loopback, or with allow_http = true",
        ),
        ("jwks_uri = 'https://u:p@idp.example.com/jwks'", "jwks_uri: must hold no user and no password"),
        ("token_endpoint = 'https://idp.example.com/#x'", "token_endpoint: must have no fragment"),
        ("jwks_uri = 'https://i.example/'\njwks.file = 'x'", "jwks: and jwks_uri exclude each other"),
        ("algorithms = []", "algorithms: must name at least one"),
        ("consumer_key_claim = []", "consumer_key_claim: must name at least one claim, and none by an empty name"),
        ("scopes_claim = ''", "scopes_claim: must name at least one claim, and none by an empty name"),
        ("audience = ['']", "audience: must not hold an empty audience"),
        ("jwks_max_stale = '4m'", "jwks_max_stale: must be at least jwks_refresh"),
        ("jwks_refresh = '0'", "jwks_refresh: must be longer than 0"),
        ("jwks_cooldown = '0'", "jwks_cooldown: must be longer than 0"),
        ("timeout = '0'", "timeout: must be longer than 0"),
        ("leeway = '999ms'", "leeway: is whole seconds, at least \"1s\", or 0"),
        ("max_lifetime = '500ms'", "max_lifetime: is whole seconds, at least \"1s\", or 0"),
        ("max_lifetime = '3600500ms'", "max_lifetime: is whole seconds, at least \"1s\", or 0"),
        ("listen = '127.0.0.1:1'", "listen: is only for connector \"embedded\""),
        ("allow_remote = true", "allow_remote: is only for connector \"embedded\""),
        ("clients = [{ id = 'a', secret = 'b' }]", "clients: is only for connector \"embedded\""),
        ("users = [{ name = 'a', password = 'b' }]", "users: is only for connector \"embedded\""),
        ("registration = 'open'", "registration: is only for connector \"embedded\""),
        ("registration_scopes = ['x']", "registration_scopes: is only for connector \"embedded\""),
        ("refresh_lifetime = '1m'", "refresh_lifetime: is only for connector \"embedded\""),
        ("key_rotation = '1m'", "key_rotation: is only for connector \"embedded\""),
        ("token = 'x'", "token: is only for connectors \"http\" and \"okta\""),
        ("endpoint = 'https://a.example'", "endpoint: is only for connectors \"http\", \"okta\" and \"auth0\""),
        ("concurrency = 0", "concurrency: must be at least 1"),
        (
            "introspection_endpoint = 'http://idp.example.com/introspect'",
            "introspection_endpoint: must be https; http only on loopback, or with allow_http = true",
        ),
    ] {
        assert_eq!(problems(&format!("{GOOD}{line}")), [format!("key_managers[0].{expected}")], "{line}");
    }
    let twice = format!("{GOOD}[[key_managers]]\nname = 'a'\nconnector = 'oidc'\nissuer = 'https://b.example'");
    assert_eq!(problems(&twice), ["key_managers[1].name: is the name of key_managers[0] too"]);
    let dots = GOOD.replace("name = 'a'\nconnector", "name = '..'\nconnector");
    assert_eq!(problems(&dots), ["key_managers[0].name: must be none of . ..: a path could not name it"]);
    for harmless in [
        "client_id = 'x'\nclient_secret = 'y'\nclient_auth = 'post'",
        "validation = 'jwt'",
        "validation = 'introspect'\ndiscovery = false",
        "token_pattern = '^op_'\nconcurrency = 8",
        "discovery = false\njwks.file = 'x'",
    ] {
        assert_eq!(problems(&format!("{GOOD}{harmless}")), Vec::<String>::new(), "{harmless}");
    }
    assert_eq!(problems(&GOOD.replace("'oidc'", "'keycloak'")), Vec::<String>::new());
    let of = |connector: &str, more: &str| problems(&format!("{}{more}", GOOD.replace("oidc", connector)));
    assert_eq!(of("okta", "endpoint = 'https://a.example'\ntoken = 'x'"), Vec::<String>::new());
    assert_eq!(of("auth0", "endpoint = 'https://a.example/api/v2/'"), Vec::<String>::new());
    assert_eq!(of("oidc", "registration_token = 'x'"), Vec::<String>::new());
    assert_eq!(
        of("okta", "registration_token = 'x'"),
        ["key_managers[0].registration_token: is only for connectors \"embedded\" and \"oidc\""]
    );
    assert_eq!(of("auth0", "token = 'x'"), ["key_managers[0].token: is only for connectors \"http\" and \"okta\""]);
    assert_eq!(of("http", "endpoint = 'https://a.example'\ntoken = 'x'"), Vec::<String>::new());
    assert_eq!(
        of("http", ""),
        [
            "key_managers[0].endpoint: is needed by connector \"http\"",
            "key_managers[0].token: is needed by connector \"http\"",
        ]
    );
    assert_eq!(
        of("http", "endpoint = 'https://a.example/?x'\ntoken = 'x'"),
        ["key_managers[0].endpoint: must have no query"]
    );
}

#[test]
fn issuers_are_urls() {
    for (issuer, expected) in [
        ("idp.example.com", Some("must be an absolute URL that begins with https:// or http://")),
        ("ftp://idp.example.com", Some("must be an absolute URL that begins with https:// or http://")),
        ("https://", Some("must be an absolute URL that begins with https:// or http://")),
        (" https://idp.example.com", Some("must be an absolute URL that begins with https:// or http://")),
        ("http://idp.example.com", Some("must be https; http only on loopback, or with allow_http = true")),
        ("http://127.0.0.1.example.com", Some("must be https; http only on loopback, or with allow_http = true")),
        ("https://idp.example.com/?a=b", Some("must have no query and no fragment")),
        ("https://idp.example.com/#", Some("must have no query and no fragment")),
        ("https://u@idp.example.com/", Some("must hold no user and no password")),
        ("http://127.0.0.1:1/x", None),
        ("http://[::1]:1/x", None),
        ("http://localhost", None),
    ] {
        let expected: Vec<_> = expected.iter().map(|message| format!("key_managers[0].issuer: {message}")).collect();
        assert_eq!(problems(&GOOD.replace("https://idp.example.com", issuer)), expected, "{issuer}");
    }
    let allowed = GOOD.replace("https://idp.example.com'", "http://idp.example.com'\nallow_http = true");
    assert_eq!(problems(&allowed), Vec::<String>::new());
}

#[test]
fn mistakes_of_the_embedded_provider() {
    let good = "listen = '127.0.0.1:9000'\nissuer = 'http://127.0.0.1:9000'\n";
    for (lines, expected) in [
        ("issuer = 'http://127.0.0.1:9000'".into(), "listen: is needed by connector \"embedded\""),
        (
            good.replace("http://127.0.0.1", "http://localhost"),
            "issuer: must be http:// and the listen address of this embedded provider",
        ),
        (
            good.replace("http://", "https://"),
            "issuer: must be http:// and the listen address of this embedded provider",
        ),
        (good.replace("127.0.0.1", "0.0.0.0"), "listen: must be a loopback address, unless allow_remote = true"),
        (format!("{good}token_lifetime = '0'"), "token_lifetime: is whole seconds, at least \"1s\""),
        (
            format!("{good}tokens = 'opaque'\nvalidation = 'jwt'"),
            "tokens: opaque needs validation \"auto\" or \"introspect\": there is nothing to verify",
        ),
        (format!("{good}token_lifetime = '1500ms'"), "token_lifetime: is whole seconds, at least \"1s\""),
        (format!("{good}key_rotation = '999ms'"), "key_rotation: is whole seconds, or 0"),
        (format!("{good}refresh_lifetime = '0'"), "refresh_lifetime: is whole seconds, at least \"1s\""),
        (
            format!("{good}token_lifetime = '80s'\nkey_rotation = '9s'"),
            "key_rotation: must be 0, or at least an eighth of token_lifetime",
        ),
        (format!("{good}algorithms = ['RS256']"), "algorithms: must hold ES256, by which the embedded provider signs"),
        (
            format!("{good}registration = 'token'"),
            "registration_token: is needed by registration = \"token\", and by nothing else",
        ),
        (
            format!("{good}registration_token = 'x'"),
            "registration_token: is needed by registration = \"token\", and by nothing else",
        ),
        (format!("{good}registration_scopes = ['a b']"), "registration_scopes[0]: is not a scope of RFC 6749"),
        (format!("{good}users = [{{ name = '', password = 's' }}]"), "users[0].name: must be visible ASCII characters"),
        (
            format!("{good}users = [{{ name = 'a', password = 's' }}, {{ name = 'a', password = 's' }}]"),
            "users[1].name: is the name of users[0] too",
        ),
        (
            format!("{good}clients = [{{ id = 'a', secret = 's' }}]\nusers = [{{ name = 'a', password = 's' }}]"),
            "users[0].name: is the id of a client, whose tokens would look alike",
        ),
        (
            format!("{good}users = [{{ name = 'a', password = 's', scopes = ['a b'] }}]"),
            "users[0].scopes[0]: is not a scope of RFC 6749",
        ),
        (format!("{good}clients = [{{ id = '', secret = 's' }}]"), "clients[0].id: must be visible ASCII characters"),
        (
            format!("{good}clients = [{{ id = 'map', secret = 's' }}]"),
            "clients[0].id: must be none of . .. map parse: a path could not name it",
        ),
        (
            format!("{good}users = [{{ name = '..', password = 's' }}]"),
            "users[0].name: must be none of . ..: a path could not name it",
        ),
        (
            format!("{good}clients = [{{ id = 'a', secret = 's', scopes = ['a b'] }}]"),
            "clients[0].scopes[0]: is not a scope of RFC 6749",
        ),
        (
            format!("{good}clients = [{{ id = 'a', secret = 's' }}, {{ id = 'a', secret = 's' }}]"),
            "clients[1].id: is the id of clients[0] too",
        ),
    ] {
        assert_eq!(problems(&format!("{EMBEDDED}{lines}")), [format!("key_managers[0].{expected}")], "{lines}");
    }
}

#[test]
fn all_are_told_in_one_run() {
    let text = format!("workers = 9999\nlog.access_sample = 1.5\nstore.url = ''\n{GOOD}leeway = '1s'\nconcurrency = 0");
    assert_eq!(problems(&text).len(), 4);
}
