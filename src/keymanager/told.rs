//! Values as the audit tells them: JSON without what is secret, before a change and after it.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Managed, Operation, Result};
use crate::secret::{REDACTED, is_secret_name};

/// A value as JSON, without what is secret in it.
pub(super) fn told(value: &impl Serialize) -> Value {
    let mut value = json!(value);
    redact(&mut value);
    value
}

/// Takes the place of every member that may be a secret by its name.
fn redact(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                if is_secret_name(name) { hide(member) } else { redact(member) }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

/// Takes the place of every text and number in it, however deep.
fn hide(value: &mut Value) {
    match value {
        Value::String(_) | Value::Number(_) => *value = REDACTED.into(),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(members) => members.values_mut().for_each(hide),
        _ => {}
    }
}

/// What there was before a change. A provider that does not tell is no reason not to go on. One that does not answer is:
/// nobody waits for it twice.
pub(super) fn was(read: Result<impl Serialize>) -> Result<Value> {
    match read {
        Ok(there) => Ok(told(&there)),
        Err(error) if error.is_unanswered() => Err(error.of_reading()),
        Err(_) => Ok(Value::Null),
    }
}

/// What the provider has now, for the audit.
pub(super) async fn known(managed: &Managed, consumer_key: &str) -> Result<Value> {
    match managed.cannot(Operation::RetrieveApplication) {
        None => was(managed.connector.retrieve_application(consumer_key).await),
        Some(_) => Ok(Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_by_its_name_is_hidden_whatever_it_is() {
        let value = json!({ "api_key": 987_654_321_098_u64, "credentials": { "value": [1, "x"] }, "most": 1 });
        let hidden = json!({ "api_key": REDACTED, "credentials": { "value": [REDACTED, REDACTED] }, "most": 1 });
        assert_eq!(told(&value), hidden);
    }
}
