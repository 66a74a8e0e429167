//! `Secret`: a value that never shows itself. From a file, an environment variable or inline.

use std::{borrow::Cow, fmt, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use zeroize::Zeroizing;

/// Where a secret comes from. Prints as `[redacted]`, whatever it holds.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a secret is a string, { file = \"…\" } or { env = \"…\" }")]
pub enum Secret {
    /// Written in the configuration itself.
    Inline(String),
    /// The content of a file, without a trailing newline.
    File(FileSource),
    /// The value of an environment variable.
    Env(EnvSource),
}

/// `{ file = "…" }`
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSource {
    /// Path of the file.
    pub file: PathBuf,
}

/// `{ env = "…" }`
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvSource {
    /// Name of the variable.
    pub env: String,
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The variable is not set, or not UTF-8.
    #[error("environment variable {0} is not set")]
    Env(String),
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
}

impl Secret {
    /// Reads the secret now. Wiped from memory when dropped.
    pub fn read(&self) -> Result<Zeroizing<String>, Error> {
        let value = Zeroizing::new(match self {
            Self::Inline(value) => value.clone(),
            Self::File(FileSource { file }) => {
                std::fs::read_to_string(file).map_err(|source| Error::File { path: file.clone(), source })?
            }
            Self::Env(EnvSource { env }) => std::env::var(env).map_err(|_| Error::Env(env.clone()))?,
        });
        match value.trim_end_matches(['\r', '\n']) {
            "" => Err(Error::Empty),
            trimmed => Ok(Zeroizing::new(trimmed.to_owned())),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let source = |name: &str| {
            json_schema!({
                "type": "object", "properties": { (name): { "type": "string" } },
                "required": [name], "additionalProperties": false
            })
        };
        json_schema!({ "anyOf": [{ "type": "string" }, source("file"), source("env")] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_redacted() {
        assert_eq!(format!("{:?}", Secret::Inline("hunter2".into())), "[redacted]");
    }

    #[test]
    fn file_loses_its_newline_and_empty_is_refused() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("secret");
        std::fs::write(&file, "s3cret\n")?;
        let secret = Secret::File(FileSource { file: file.clone() });
        assert_eq!(secret.read()?.as_str(), "s3cret");
        std::fs::write(&file, "\n")?;
        assert!(matches!(secret.read(), Err(Error::Empty)));
        Ok(())
    }
}
