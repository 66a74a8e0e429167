//! Configurations of key managers: told without secrets, and those that are kept in the record.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    Assembly, Caller, Done, Engine, Error, Managed, Operation, Origin, Plan, Result, check,
    engine::{Asked, Effect, NO_STORE, changes, plan, unkept},
    redacted::{self, SECRETS},
    rows::{AuditEntry, RowChange, STORED},
    whole,
};
use crate::{
    store::record::Record,
    token::settings::{ConnectorKind, KeyManagerSettings},
};

/// A key manager's configuration, without secrets.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyManagerConfiguration {
    /// Its name.
    pub name: String,
    /// Its connector (`getType`).
    #[serde(rename = "type")]
    pub kind: String,
    /// Always true: one that is not enabled is not configured.
    pub enabled: bool,
    /// Always `DIRECT`: its tokens are used as they are.
    pub token_type: String,
    /// `file` or `store`: where it can be changed.
    pub declared_in: String,
    /// In the configuration's field names. A secret is told as `[redacted]`; put so, it stays as it is stored.
    #[schema(value_type = Object)]
    pub configuration: KeyManagerSettings,
}

/// What became of a configuration that was put.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Whether there was none of the name.
    pub new: bool,
    /// As it is now.
    pub configuration: KeyManagerConfiguration,
}

/// The configurations that are stored, in the order of their names; of one that cannot be read, why.
pub fn stored(record: &Record) -> Result<Vec<Result<KeyManagerSettings>>> {
    let rows = record.view().and_then(|view| view.rows(&STORED, &[], MOST_STORED)).map_err(unkept)?;
    Ok(rows.into_iter().map(|(_, row)| settings(row)).collect())
}

impl Engine {
    /// `getKeyManagerConfiguration`, and `getType` with it.
    pub fn configuration(&self, key_manager: &str) -> Result<KeyManagerConfiguration> {
        self.registry.find(key_manager).map(|managed| shown(&managed))
    }

    /// What each operation can do with it: true, or why not. Without a record no change can be made. Where the provider
    /// alone tells what it can do, and cannot be asked, `undiscovered` says why, and what is not known counts as true.
    pub async fn capabilities(&self, key_manager: &str) -> Result<BTreeMap<&'static str, Value>> {
        let managed = self.registry.find(key_manager)?;
        let unasked = managed.connector.learn().await.err();
        let unrecorded = |operation| changes(operation) && self.store().is_none();
        let can = |operation| match managed.cannot(operation) {
            Some(why) => Value::String(why.into_owned()),
            None if unrecorded(operation) => NO_STORE.into(),
            None => Value::Bool(true),
        };
        let unasked = unasked.map(|why| (UNDISCOVERED, Value::String(why.to_string())));
        Ok(Operation::ALL.into_iter().map(|operation| (operation.name(), can(operation))).chain(unasked).collect())
    }

    /// `loadConfiguration`: keeps it in the record, and puts it in force.
    pub async fn load_configuration(
        &self,
        caller: &Caller,
        name: &str,
        body: Map<String, Value>,
    ) -> Result<Done<Loaded>> {
        let (record, assembly) = self.may_configure(name)?;
        let mut row = named(name, body)?;
        let before: Option<Value> = record.get(&STORED, name.as_bytes()).map_err(unkept)?;
        let old = before.as_ref().and_then(|row| settings(row.clone()).ok());
        let given = connector(&row).and_then(|()| settings(row.clone())).map_err(|error| coded(&row, error))?;
        redacted::restore(&mut row, &given, before.as_ref().zip(old.as_ref()))?;
        let parsed = settings(row.clone())?;
        assembly.check(&parsed).map_err(|problems| match problems.into_iter().next() {
            Some(problem) => coded(&row, Error::invalid(below(&problem.field), problem.message)),
            None => Error::invalid("configuration", "cannot be used"),
        })?;
        if before.is_none() && stored(record)?.len() >= MOST_STORED {
            return Err(Error::Conflict(format!("at most {MOST_STORED} key managers are stored").into()));
        }
        // It tells no secret of its own.
        let asked = Asked { request: json!(parsed), ..Asked::new(caller, name, Operation::LoadConfiguration, name) };
        if caller.dry_run {
            return Ok(Done::Would(plan(&asked)));
        }
        let entry = AuditEntry {
            before: old.map_or(Value::Null, |old| json!(old)),
            after: json!(parsed),
            outcome: "done".into(),
            ..self.entry(&asked)
        };
        let configure = RowChange::Configure { name: name.to_owned(), settings: row };
        self.change(vec![configure, RowChange::Audit(entry)]).await?;
        take_over(assembly, "it is stored, and not yet in force").await?;
        Ok(Done::Did(Loaded { new: before.is_none(), configuration: self.configuration(name)? }))
    }

    /// Removes a stored key manager that no client and nothing that waits is about; its tokens are refused from then on.
    pub async fn delete_configuration(&self, caller: &Caller, name: &str) -> Result<Done<()>> {
        let (record, assembly) = self.may_configure(name)?;
        let row: Value = record.get(&STORED, name.as_bytes()).map_err(unkept)?.ok_or(Error::NotFound("key manager"))?;
        let asked = Asked::new(caller, name, Operation::LoadConfiguration, name);
        let removal = RowChange::Unconfigure(name.to_owned());
        if caller.dry_run {
            let would = self.would_change(vec![removal]).await;
            return would.map(|()| Done::Would(Plan { operation: DELETE.into(), ..plan(&asked) }));
        }
        // One that can no longer be read is removed all the same.
        let before = settings(row).map_or(Value::Null, |settings| json!(settings));
        let entry = AuditEntry { operation: DELETE.into(), before, outcome: "done".into(), ..self.entry(&asked) };
        self.change(vec![removal, RowChange::Audit(entry)]).await?;
        take_over(assembly, "it is no longer stored, and still in force").await?;
        Ok(Done::Did(()))
    }

    /// What a change of a stored key manager needs. One of the file is the file's.
    fn may_configure(&self, name: &str) -> Result<(&Record, &Arc<dyn Assembly>)> {
        let record = self.record(Operation::LoadConfiguration)?;
        let assembly = self.assembly.as_ref().ok_or_else(|| Error::Unsupported {
            operation: Operation::LoadConfiguration,
            reason: "nothing here can take it over".into(),
        })?;
        check::name("km", name)?;
        if self.registry.find(name).is_ok_and(|managed| managed.origin == Origin::Declared) {
            return Err(Error::Conflict("declared in the file".into()));
        }
        Ok((record, assembly))
    }

    /// `canHandleToken`: by the token's form alone; it may be bad all the same.
    pub async fn can_handle_token(&self, key_manager: &str, token: &str) -> Result<bool> {
        let asked = Asked::new(&Caller::default(), key_manager, Operation::CanHandleToken, "");
        self.perform(asked, check::token("token", token), |managed| async move {
            Ok(Effect::of(super::handling::handles(&managed, &self.registry.all(), token)))
        })
        .await?
        .did()
    }
}

async fn take_over(assembly: &Arc<dyn Assembly>, what: &str) -> Result<()> {
    assembly.take_over().await.map_err(|why| Error::HalfDone {
        what: format!("{what}: {why}"),
        left: "it is taken over with the next reload that succeeds".into(),
    })
}

pub(super) fn shown(managed: &Managed) -> KeyManagerConfiguration {
    KeyManagerConfiguration {
        name: managed.name().to_owned(),
        kind: managed.connector.connector().to_owned(),
        enabled: true,
        token_type: "DIRECT".into(),
        declared_in: if managed.origin == Origin::Declared { "file" } else { "store" }.into(),
        configuration: managed.settings.clone(),
    }
}

/// The body with its name, which the path has too.
fn named(name: &str, mut body: Map<String, Value>) -> Result<Value> {
    if body.get(SETTINGS).is_some_and(Value::is_object) {
        return Err(Error::invalid(SETTINGS, "is no setting: put what stands under it, and nothing else"));
    }
    match body.insert("name".into(), Value::String(name.to_owned())) {
        Some(given) if given != name => return Err(Error::invalid("name", "is not the key manager of the path")),
        _ => {}
    }
    for secret in SECRETS {
        if body.get(secret).is_some_and(|value| !value.is_string() && !value.is_null()) {
            return Err(Error::invalid(secret, "must be a text: files and variables are the configuration file's"));
        }
    }
    if body.get("connector").is_some_and(|connector| connector == "embedded") {
        return Err(Error::invalid("connector", "\"embedded\" opens a door of its own: declare it in the file"));
    }
    let mut row = Value::Object(body);
    whole::settle(&mut row);
    Ok(row)
}

/// The connector is a text: serde would take an object's only member for it, and tells others what only it understands.
fn connector(row: &Value) -> Result<()> {
    let wrong = match row.get("connector") {
        None | Some(Value::String(_)) => return Ok(()),
        Some(Value::Null) => "is needed",
        Some(_) => "must be a text",
    };
    let unknown = serde_json::from_value::<ConnectorKind>(Value::String(String::new())).err();
    let names = unknown.map(|error| super::parse::fault("connector", &error.to_string()).1).unwrap_or_default();
    Err(Error::invalid("connector", format!("{wrong}: {names}")))
}

fn settings(row: Value) -> Result<KeyManagerSettings> {
    serde_path_to_error::deserialize(row).map_err(|error| {
        let path = error.path().to_string();
        let (field, why) = super::parse::fault(&path, &error.into_inner().to_string());
        Error::invalid(field, why)
    })
}

/// With WSO2's code where it has one: a connector that there is not, or a field that is not there and has to be.
fn coded(row: &Value, error: Error) -> Error {
    let Error::Invalid { field, .. } = &error else { return error };
    match row.get(field.as_ref()) {
        None | Some(Value::Null) => error.coded("901401"),
        Some(_) if field == "connector" => error.coded("901400"),
        Some(_) => error,
    }
}

/// The field as the body has it.
fn below(field: &str) -> String {
    field.split_once("].").map_or(field, |(_, rest)| rest).to_owned()
}

/// Where an answer has the settings, among what else it tells.
const SETTINGS: &str = "configuration";
/// No operation: stands beside them.
const UNDISCOVERED: &str = "undiscovered";
/// No operation of WSO2's interface.
const DELETE: &str = "deleteKeyManager";
/// Each has tasks and caches of its own.
const MOST_STORED: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// Each setting, with values of every kind.
    #[test]
    fn a_setting_is_refused_by_its_name_and_by_no_name_of_a_type() {
        let schema = schemars::schema_for!(KeyManagerSettings).to_value();
        let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        let wrong = [json!(7), json!(-7.5), json!(true), json!("\u{1}"), json!([7]), json!([[]]), json!({ "x": [7] })];
        let mut refused = 0;
        for (name, value) in names.iter().flat_map(|name| wrong.iter().map(move |value| (*name, value))) {
            let mut row = json!({ "name": "a", "connector": "oidc", "issuer": "https://a.example" });
            row[name] = value.clone();
            let Err(error) = settings(row) else { continue };
            refused += 1;
            let Error::Invalid { field, why, .. } = &error else { panic!("{name}: {error:?}") };
            assert!(field.starts_with(name.as_str()), "{name} {value}: {error}");
            for word in ["struct", "a map", "a sequence", "a boolean", "u64", "u32", "enum", "tuple", "string or map"] {
                assert!(!why.contains(word), "{name} {value}: {error}");
            }
        }
        assert!(refused > 200, "{refused}");
    }
}
