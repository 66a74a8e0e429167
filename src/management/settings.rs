//! `[management]`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    net::{Address, TlsSettings},
    problem::Problem,
};

/// `[management]`: the management API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManagementSettings {
    /// Where it listens.
    pub listen: Address,
    /// Serve TLS; with `client_ca`, client certificates may call.
    pub tls: Option<TlsSettings>,
    /// Key managers whose bearer tokens may call.
    #[serde(default)]
    pub key_managers: Vec<String>,
    /// File of the key that may call from loopback and Unix sockets; made at first start, beside the store by default.
    pub bootstrap_key_file: Option<PathBuf>,
}

impl ManagementSettings {
    /// Where the bootstrap key is; `store` is the record's file.
    pub fn key_file(&self, store: Option<&Path>) -> Option<PathBuf> {
        let beside = || store.and_then(Path::parent).map(|folder| folder.join("bootstrap.key"));
        self.bootstrap_key_file.clone().or_else(beside)
    }

    /// What is wrong with them; `names` are those of the key managers.
    pub fn problems(&self, store: Option<&Path>, names: &[String]) -> Vec<Problem> {
        let mut found = Vec::new();
        if self.key_file(store).is_none() {
            let why = "is needed where there is no [store] beside which it could be";
            found.push(Problem::new("management.bootstrap_key_file", why));
        }
        for (index, name) in self.key_managers.iter().enumerate() {
            if !names.contains(name) {
                let why = "there is no key manager of this name";
                found.push(Problem::new(format!("management.key_managers[{index}]"), why));
            }
        }
        found
    }
}
