//! The configuration's JSON Schema, for editors and for `tollgate schema`.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Settings;

/// JSON Schema 2020-12 of the whole configuration: every field, what it means, its default.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Settings>().to_value();
    complete(&mut schema);
    if let Some(definitions) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
        for definition in definitions.values_mut() {
            complete(definition);
        }
        for (definition, field) in SIXTY_SECONDS {
            if let Some(default) = default_of(definitions, definition, field)
                && *default == "1m"
            {
                *default = json!("60s");
            }
        }
    }
    schema
}

/// Adds the defaults that schemars leaves out, since settings are not serialized (they hold secrets):
/// a list or a table that may be absent is then empty, which leaves it to its own fields' defaults.
fn complete(table: &mut Value) {
    let required = table.get("required").cloned().unwrap_or_default();
    let needed = |name: &str| required.as_array().is_some_and(|names| names.iter().any(|needed| needed == name));
    let Some(properties) = table.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (name, property) in properties {
        let Some(property) = property.as_object_mut() else { continue };
        if needed(name) || property.contains_key("default") {
            continue;
        }
        if property.get("type").is_some_and(|kind| kind == "array") {
            property.insert("default".into(), json!([]));
        } else if property.contains_key("$ref") {
            property.insert("default".into(), json!({}));
        }
    }
}

fn default_of<'a>(definitions: &'a mut Map<String, Value>, definition: &str, field: &str) -> Option<&'a mut Value> {
    definitions.get_mut(definition)?.pointer_mut(&format!("/properties/{field}/default"))
}

/// Spans that the contract writes as "60s", where `Display` has "1m".
const SIXTY_SECONDS: [(&str, &str); 3] =
    [("Timeouts", "idle"), ("Timeouts", "request"), ("CacheSettings", "introspection_ttl")];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, parse};

    /// The property at `path` (`apis.resources.path`), through lists, options and references.
    fn property<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
        path.split('.').try_fold(schema, |table, name| resolve(schema, table)["properties"].get(name))
    }

    fn resolve<'a>(schema: &'a Value, at: &'a Value) -> &'a Value {
        if let Some(reference) = at["$ref"].as_str() {
            return resolve(schema, schema.pointer(reference.trim_start_matches('#')).unwrap());
        }
        match (at.get("items"), at.pointer("/anyOf/0")) {
            (Some(items), _) => resolve(schema, items),
            (_, Some(some)) if at.get("properties").is_none() => resolve(schema, some),
            _ => at,
        }
    }

    #[test]
    fn every_field_of_the_contract_is_listed_with_its_default() {
        let schema = schema();
        for line in CONTRACT.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (path, default) = line.split_once('=').map_or((line, None), |(path, value)| (path.trim(), Some(value)));
            let property = property(&schema, path).unwrap_or_else(|| panic!("{path} is not in the schema"));
            let described = property.get("description").or_else(|| resolve(&schema, property).get("description"));
            assert!(described.is_some(), "{path} has no description");
            if let Some(default) = default {
                let default: Value = serde_json::from_str(default).unwrap();
                assert_eq!(property.get("default"), Some(&default), "default of {path}");
            }
        }
    }

    #[test]
    fn what_the_contract_needs_is_required() {
        let schema = schema();
        for (table, fields) in [
            ("proxy", &["listen"][..]),
            ("management", &["listen"]),
            ("admin", &["listen"]),
            ("shared", &["redis"]),
            ("key_managers", &["name", "connector", "issuer"]),
            ("apis", &["name", "context"]),
            ("apis.resources", &["path"]),
            ("applications", &["name", "owner"]),
            ("subscriptions", &["application", "api", "tier"]),
            ("tiers", &["name", "per"]),
        ] {
            let table = resolve(&schema, property(&schema, table).unwrap());
            assert_eq!(table["required"], json!(fields), "{table}");
            assert_eq!(table["additionalProperties"], json!(false));
        }
    }

    /// Each setting, with values of every kind.
    #[test]
    fn no_mistake_is_told_by_a_name_of_a_type() {
        fn visit(schema: &Value, table: &Value, around: &dyn Fn(Value) -> Value, told: &mut Vec<(String, String)>) {
            for (name, property) in resolve(schema, table)["properties"].as_object().into_iter().flatten() {
                let here = |value: Value| around(json!({ name: value }));
                let wrong =
                    [json!(7), json!(-7.5), json!(true), json!("\u{1}"), json!([]), json!([[7]]), json!({ "x": 7 })];
                for text in wrong.map(|value| here(value).to_string()) {
                    if let Err(error) = parse(&text, Format::Json, "f") {
                        told.push((text, error.to_string()));
                    }
                }
                visit(schema, property, &here, told);
                visit(schema, property, &|value| here(json!([value])), told);
            }
        }
        let (schema, mut told) = (schema(), Vec::new());
        visit(&schema, &schema, &|value| value, &mut told);
        assert!(told.len() > 1000, "{}", told.len());
        for (text, said) in told {
            // What is quoted are the file's own names and values.
            let mut ours = said.split('"').step_by(2).flat_map(|part| part.split(|c: char| !c.is_alphanumeric()));
            let in_rust = |word: &&str| {
                ["struct", "tuple", "enum", "map", "sequence", "usize", "u64", "u32", "f64"].contains(word)
            };
            let capital_within = |word: &str| {
                word.bytes().zip(word.bytes().skip(1)).any(|(a, b)| a.is_ascii_lowercase() && b.is_ascii_uppercase())
            };
            let of_a_type = |word: &&str| capital_within(word) && !word.ends_with("iB");
            let found = ours.find(|word| in_rust(word) || of_a_type(word));
            assert_eq!(found, None, "{text}: {said}");
        }
    }

    #[test]
    fn it_is_draft_2020_12() {
        assert_eq!(schema()["$schema"], "https://json-schema.org/draft/2020-12/schema");
    }

    /// Every field of the configuration, with its default where it has one.
    const CONTRACT: &str = r#"
        workers = 0
        trusted_proxies = ["127.0.0.0/8", "::1/128"]
        fault_format = "wso2"
        realm = "tollgate"
        strip_headers = []
        proxy
        proxy.listen
        proxy.tls
        proxy.tls.cert
        proxy.tls.key
        proxy.tls.client_ca
        proxy.max_header_bytes = "64KiB"
        proxy.max_headers = 100
        proxy.max_connections = 16384
        proxy.max_streams = 128
        proxy.max_uri = "8KiB"
        proxy.max_body = "0"
        proxy.timeouts.connect = "5s"
        proxy.timeouts.header = "10s"
        proxy.timeouts.idle = "60s"
        proxy.timeouts.request = "60s"
        proxy.drain_delay = "5s"
        proxy.grace = "25s"
        decision.http
        decision.grpc
        management.listen
        management.tls
        management.key_managers = []
        management.bootstrap_key_file
        admin.listen
        store.path
        store.url
        tables.files = []
        shared.redis
        shared.username
        shared.password
        shared.prefix = "tollgate:"
        shared.mode = "batched"
        shared.interval = "100ms"
        shared.timeout = "50ms"
        shared.on_outage = "local"
        cache.tokens = "64MiB"
        cache.negative = "4MiB"
        cache.introspection_ttl = "60s"
        cache.negative_ttl = "5s"
        verification.waiting = 1024
        throttle.headers = false
        throttle.failures.requests = 100
        throttle.failures.per = "1m"
        log.format = "json"
        log.level = "info"
        log.access_sample = 1.0
        identity_headers.subject = "X-Auth-Subject"
        identity_headers.client_id = "X-Auth-Client-Id"
        identity_headers.scopes = "X-Auth-Scopes"
        identity_headers.application = "X-Auth-Application"
        identity_headers.tier = "X-Auth-Tier"
        identity_headers.over_quota = "X-Auth-Over-Quota"
        identity_headers.claims = {}
        backend_jwt
        backend_jwt.header = "X-JWT-Assertion"
        backend_jwt.profile = "plain"
        backend_jwt.issuer
        backend_jwt.lifetime = "1m"
        backend_jwt.key_rotation = "1d"
        backend_jwt.claims = []
        backend_jwt.jwks_path = "/.well-known/tollgate-backend-jwks.json"
        key_managers = []
        key_managers.name
        key_managers.connector
        key_managers.issuer
        key_managers.allow_http = false
        key_managers.discovery = true
        key_managers.jwks_uri
        key_managers.introspection_endpoint
        key_managers.token_endpoint
        key_managers.revocation_endpoint
        key_managers.registration_endpoint
        key_managers.userinfo_endpoint
        key_managers.scope_endpoint
        key_managers.jwks
        key_managers.jwks.file
        key_managers.audience = []
        key_managers.validation = "auto"
        key_managers.typ = "access"
        key_managers.algorithms = ["RS256","RS384","RS512","PS256","PS384","PS512","ES256","ES384","ES512","EdDSA"]
        key_managers.leeway = "30s"
        key_managers.require_exp = true
        key_managers.max_lifetime = "0"
        key_managers.consumer_key_claim = ["client_id", "azp", "consumerKey"]
        key_managers.scopes_claim = ["scope", "scp"]
        key_managers.token_pattern
        key_managers.startup = "required"
        key_managers.jwks_refresh = "5m"
        key_managers.jwks_cooldown = "10s"
        key_managers.jwks_max_stale = "1h"
        key_managers.timeout = "2s"
        key_managers.concurrency = 64
        key_managers.client_id
        key_managers.client_secret
        key_managers.client_auth = "basic"
        key_managers.client_key
        key_managers.client_key.file
        key_managers.client_key.kid
        key_managers.client_key.alg
        key_managers.client_certificate
        key_managers.client_certificate.cert
        key_managers.client_certificate.key
        key_managers.introspection_response = "json"
        key_managers.allow_create = true
        key_managers.validate_mapped = true
        key_managers.token_generation = true
        key_managers.endpoint
        key_managers.token
        key_managers.listen
        key_managers.allow_remote = false
        key_managers.tokens = "jwt"
        key_managers.clients = []
        key_managers.clients.id
        key_managers.clients.secret
        key_managers.clients.scopes = []
        apis = []
        apis.name
        apis.context
        apis.version
        apis.default_version = false
        apis.hosts = []
        apis.upstream
        apis.production
        apis.sandbox
        apis.strip_prefix = true
        apis.preserve_host = false
        apis.forward_token = false
        apis.backend_jwt = true
        apis.token_in = ["header"]
        apis.key_managers = []
        apis.audience = []
        apis.subscription = "required"
        apis.tier = "Unlimited"
        apis.backend_limit
        apis.backend_limit.production
        apis.backend_limit.production.requests
        apis.backend_limit.production.bytes
        apis.backend_limit.production.events
        apis.backend_limit.production.tokens
        apis.backend_limit.production.per
        apis.backend_limit.production.algorithm = "fixed"
        apis.backend_limit.sandbox
        apis.fault_format
        apis.resource_metadata
        apis.resource_metadata.resource
        apis.resource_metadata.name
        apis.resource_metadata.documentation
        apis.cors
        apis.cors.origins
        apis.cors.methods = []
        apis.cors.headers = []
        apis.cors.expose = []
        apis.cors.credentials = false
        apis.cors.max_age = "1h"
        apis.resources = []
        apis.resources.path
        apis.resources.methods = ["*"]
        apis.resources.scopes = []
        apis.resources.scopes_match = "any"
        apis.resources.auth = "required"
        apis.resources.auth_level = "any"
        apis.resources.acr_values = []
        apis.resources.max_age
        apis.resources.tier = "Unlimited"
        applications = []
        applications.name
        applications.owner
        applications.tier = "Unlimited"
        applications.keys = []
        applications.keys.key_manager
        applications.keys.consumer_key
        applications.keys.key_type = "PRODUCTION"
        subscriptions = []
        subscriptions.application
        subscriptions.api
        subscriptions.tier
        subscriptions.state = "UNBLOCKED"
        tiers = []
        tiers.name
        tiers.requests
        tiers.bytes
        tiers.events
        tiers.tokens
        tiers.per
        tiers.level = "any"
        tiers.burst
        tiers.burst.requests
        tiers.burst.per
        tiers.stop_on_quota_reach = true
        tiers.per_user = false
        tiers.conditions = []
        tiers.conditions.when
        tiers.conditions.when.ip
        tiers.conditions.when.ip_range
        tiers.conditions.when.header
        tiers.conditions.when.query
        tiers.conditions.when.claim
        tiers.conditions.when.matches
        tiers.conditions.when.invert = false
        tiers.conditions.limit
        tiers.conditions.limit.requests
        tiers.conditions.limit.per
        throttle.x_ratelimit = false
        throttle.rules = []
        throttle.rules.name
        throttle.rules.key
        throttle.rules.matches
        throttle.rules.limit
        throttle.rules.limit.requests
        deny = []
        deny.api
        deny.application
        deny.user
        deny.subscription
        deny.subscription.api
        deny.subscription.application
        deny.subscription.key_type
        deny.ip
        deny.ip_range
        deny.invert = false
    "#;
}
