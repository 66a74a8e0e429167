//! The configuration's JSON Schema, for editors and for `tollgate schema`.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Settings;

/// JSON Schema 2020-12 of the whole configuration: every field, what it means, its default.
pub fn schema() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Settings>().to_value()
}
