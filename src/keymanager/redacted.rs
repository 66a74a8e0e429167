//! Secrets that were told as `[redacted]` and come back so: a configuration that is read, changed and put keeps them.
//!
//! A secret is kept only where it goes nowhere else: whoever may put a configuration must not learn a secret that was put
//! before, by having it sent to a place of their own.

use serde_json::{Map, Value};

use super::{Error, Result};
use crate::{secret::REDACTED, token::settings::KeyManagerSettings};

/// Puts the secrets of `stored` in place of what they are told as. `after` are the settings of `row` as they stand.
pub(super) fn restore(
    row: &mut Value,
    after: &KeyManagerSettings,
    stored: Option<(&Value, &KeyManagerSettings)>,
) -> Result<()> {
    let Value::Object(members) = row else { return Ok(()) };
    for field in SECRETS {
        if members.get(field).is_some_and(is_placeholder) {
            let old = kept(field, after, stored)?;
            let secret = old.get(field).filter(|it| it.is_string()).cloned();
            members.insert(field.into(), secret.ok_or_else(|| none_stored(field))?);
        }
    }
    let Some(Value::Array(keys)) = members.get_mut("secret_keys") else { return Ok(()) };
    let count = keys.len();
    for (index, key) in keys.iter_mut().filter_map(Value::as_object_mut).enumerate() {
        if key.get("secret").is_some_and(is_placeholder) {
            let field = format!("secret_keys[{index}].secret");
            let old = kept(&field, after, stored)?;
            let secret = key_of(old, key, index, count).ok_or_else(|| none_stored(&field))?;
            key.insert("secret".into(), secret);
        }
    }
    Ok(())
}

/// What is stored, if a secret of it may be kept.
fn kept<'a>(
    field: &str,
    after: &KeyManagerSettings,
    stored: Option<(&'a Value, &KeyManagerSettings)>,
) -> Result<&'a Value> {
    let (stored, before) = stored.ok_or_else(|| none_stored(field))?;
    match moved(before, after) {
        None => Ok(stored),
        Some(other) => {
            let why =
                format!("must be given again: \"{REDACTED}\" keeps the stored one only where {other} stays as it is");
            Err(Error::invalid(field.to_owned(), why))
        }
    }
}

/// The first setting that differs of those which say where a secret is sent, and who reads it on its way.
fn moved(before: &KeyManagerSettings, after: &KeyManagerSettings) -> Option<&'static str> {
    let (a, b) = (before, after);
    [
        ("connector", a.connector == b.connector),
        ("issuer", a.issuer == b.issuer),
        ("allow_http", a.allow_http == b.allow_http),
        ("discovery", a.discovery == b.discovery),
        ("introspection_endpoint", a.introspection_endpoint == b.introspection_endpoint),
        ("token_endpoint", a.token_endpoint == b.token_endpoint),
        ("revocation_endpoint", a.revocation_endpoint == b.revocation_endpoint),
        ("registration_endpoint", a.registration_endpoint == b.registration_endpoint),
        ("userinfo_endpoint", a.userinfo_endpoint == b.userinfo_endpoint),
        ("scope_endpoint", a.scope_endpoint == b.scope_endpoint),
        ("endpoint", a.endpoint == b.endpoint),
        ("ca", a.ca == b.ca),
        ("proxy", a.proxy == b.proxy),
    ]
    .into_iter()
    .find_map(|(setting, same)| (!same).then_some(setting))
}

/// The stored secret of the key that is this one by all that is told of it; where several are, the one in its place.
fn key_of(stored: &Value, key: &Map<String, Value>, index: usize, count: usize) -> Option<Value> {
    let keys = stored.get("secret_keys")?.as_array()?;
    let told = |key: &Value, name: &str| key.get(name).cloned().filter(|it| !it.is_null());
    let encoding = |it: Option<Value>| it.unwrap_or_else(|| "text".into());
    let given = Value::Object(key.clone());
    let same = |old: &Value| {
        ["kid", "alg"].iter().all(|name| told(old, name) == told(&given, name))
            && encoding(told(old, "encoding")) == encoding(told(&given, "encoding"))
    };
    let mut alike = keys.iter().filter(|old| same(old));
    let found = match (alike.next(), alike.next()) {
        (Some(only), None) => only,
        (Some(_), Some(_)) if keys.len() == count => keys.get(index).filter(|old| same(old))?,
        _ => return None,
    };
    found.get("secret").filter(|it| it.is_string()).cloned()
}

fn is_placeholder(value: &Value) -> bool {
    value.as_str() == Some(REDACTED)
}

fn none_stored(field: &str) -> Error {
    let why = format!("\"{REDACTED}\" stands for a secret that is stored, and there is none for it");
    Error::invalid(field.to_owned(), why)
}

/// Members of a configuration that are secrets.
pub(super) const SECRETS: [&str; 3] = ["client_secret", "token", "registration_token"];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::{
        super::{Assembly, Caller, Engine, Managed, Origin, rows::STORED, testing::Memory},
        *,
    };
    use crate::store::record::Record;

    fn put(before: Option<&Value>, row: &Value) -> Result<Value> {
        let settings = |row: &Value| serde_json::from_value::<KeyManagerSettings>(row.clone()).unwrap();
        let (mut now, after) = (row.clone(), settings(row));
        let old = before.map(|row| (row, settings(row)));
        restore(&mut now, &after, old.as_ref().map(|(row, settings)| (*row, settings)))?;
        Ok(now)
    }

    fn with(row: &Value, more: &Value) -> Value {
        let mut row = row.clone();
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    }

    fn stored() -> Value {
        json!({ "name": "a", "connector": "okta", "issuer": "https://a.example", "client_id": "us",
            "client_secret": "s3cret", "token": "t0ken", "secret_keys": [
                { "kid": "one", "alg": "HS256", "secret": "key-one" }, { "alg": "HS256", "secret": "key-two" }] })
    }

    fn told() -> Value {
        with(
            &stored(),
            &json!({ "client_secret": REDACTED, "token": REDACTED, "secret_keys": [
            { "kid": "one", "alg": "HS256", "secret": REDACTED, "encoding": "text" },
            { "kid": null, "alg": "HS256", "secret": REDACTED, "encoding": "text" }] }),
        )
    }

    #[test]
    fn what_is_put_as_it_was_told_keeps_its_secrets() {
        let now = put(Some(&stored()), &with(&told(), &json!({ "leeway": "5s" }))).unwrap();
        assert_eq!((&now["client_secret"], &now["token"]), (&json!("s3cret"), &json!("t0ken")));
        assert_eq!(
            (&now["secret_keys"][0]["secret"], &now["secret_keys"][1]["secret"]),
            (&json!("key-one"), &json!("key-two"))
        );
        let swapped = json!({ "secret_keys": [told()["secret_keys"][1], told()["secret_keys"][0]] });
        let now = put(Some(&stored()), &with(&told(), &swapped)).unwrap();
        assert_eq!(now["secret_keys"][0]["secret"], "key-two", "by what they are, not by where they stand");
        let now = put(Some(&stored()), &with(&told(), &json!({ "client_secret": "new" }))).unwrap();
        assert_eq!((&now["client_secret"], &now["token"]), (&json!("new"), &json!("t0ken")));
    }

    #[derive(Debug)]
    struct Any;

    #[async_trait::async_trait]
    impl Assembly for Any {
        fn check(&self, _settings: &KeyManagerSettings) -> std::result::Result<(), Vec<crate::problem::Problem>> {
            Ok(())
        }

        async fn take_over(&self) -> std::result::Result<(), String> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn it_is_the_secret_that_is_kept_in_the_record() {
        let (record, registry) = (Record::in_memory().unwrap(), prometheus::Registry::new());
        let engine =
            Engine::new(Some(record.clone()), Arc::default(), Arc::default(), &registry, Some(Arc::new(Any))).unwrap();
        let managed = Arc::new(Memory::default()).managed("a", "");
        engine.registry.replace(vec![Managed { origin: Origin::Stored, ..managed }]);
        let caller = Caller::default();
        let body = |row: &Value| row.as_object().unwrap().clone();
        engine.load_configuration(&caller, "a", body(&stored())).await.unwrap();
        let row = || record.get(&STORED, b"a").unwrap().unwrap();
        let told = json!(serde_json::from_value::<KeyManagerSettings>(row()).unwrap());
        assert_eq!(told["client_secret"], REDACTED);
        engine.load_configuration(&caller, "a", body(&told)).await.unwrap();
        let now: Value = row();
        assert_eq!(
            (&now["client_secret"], &now["token"], &now["secret_keys"][1]["secret"]),
            (&json!("s3cret"), &json!("t0ken"), &json!("key-two"))
        );
    }

    #[test]
    fn a_secret_goes_nowhere_else() {
        for (setting, value) in [
            ("connector", json!("oidc")),
            ("issuer", json!("https://b.example")),
            ("allow_http", json!(true)),
            ("discovery", json!(false)),
            ("introspection_endpoint", json!("https://b.example/i")),
            ("token_endpoint", json!("https://b.example/t")),
            ("revocation_endpoint", json!("https://b.example/r")),
            ("registration_endpoint", json!("https://b.example/c")),
            ("userinfo_endpoint", json!("https://b.example/u")),
            ("scope_endpoint", json!("https://b.example/s")),
            ("endpoint", json!("https://b.example")),
            ("ca", json!({ "file": "/b.pem" })),
            ("proxy", json!("http://b.example:1")),
        ] {
            let refused = put(Some(&stored()), &with(&told(), &json!({ setting: value }))).unwrap_err().to_string();
            assert!(refused.starts_with("client_secret: ") && refused.contains(setting), "{refused}");
        }
        let all = json!({ "issuer": "https://b.example", "client_secret": "n", "token": "n", "secret_keys": [] });
        assert!(put(Some(&stored()), &with(&told(), &all)).is_ok(), "all of them were given again");
    }

    #[test]
    fn a_placeholder_is_never_a_secret() {
        let field = |before: Option<&Value>, row: &Value| match put(before, row) {
            Err(Error::Invalid { field, .. }) => field.into_owned(),
            other => format!("{other:?}"),
        };
        assert_eq!(field(None, &told()), "client_secret");
        assert_eq!(
            field(Some(&stored()), &with(&told(), &json!({ "registration_token": REDACTED }))),
            "registration_token"
        );
        let other = json!({ "secret_keys": [{ "kid": "three", "alg": "HS256", "secret": REDACTED }] });
        assert_eq!(field(Some(&stored()), &with(&told(), &other)), "secret_keys[0].secret");
    }
}
