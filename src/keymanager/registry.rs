//! The key managers in force, by name: those of the file, then those that are stored.

use std::{borrow::Cow, sync::Arc};

use arc_swap::ArcSwap;

use super::{Error, KeyManager, Operation, Result};
use crate::token::settings::KeyManagerSettings;

/// A key manager: what it is configured with, and what speaks to its provider.
#[derive(Debug, Clone)]
pub struct Managed {
    /// Its settings.
    pub settings: KeyManagerSettings,
    /// What speaks to its provider.
    pub connector: Arc<dyn KeyManager>,
    /// Where its settings stand.
    pub origin: Origin,
}

/// Where a key manager's settings stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In the configuration file, which alone can change it.
    Declared,
    /// In the record.
    Stored,
}

impl Managed {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Why this cannot be done with it; none: it can. What needs no provider always can.
    pub fn cannot(&self, operation: Operation) -> Option<Cow<'static, str>> {
        let off = |on: bool, why: &'static str| (!on).then_some(Cow::Borrowed(why));
        match operation {
            Operation::SetTenantDomain => Some("one organization a process: there is no tenant to set".into()),
            Operation::MapOAuthApplication
            | Operation::DeleteMappedApplication
            | Operation::KeyManagerConfiguration
            | Operation::LoadConfiguration
            | Operation::BuildFromJson
            | Operation::BuildAccessTokenRequestFromJson
            | Operation::BuildAccessTokenRequestFromOAuthApp
            | Operation::CanHandleToken
            | Operation::Type => None,
            Operation::CreateApplication => off(self.settings.allow_create, "allow_create = false forbids it")
                .or_else(|| self.connector.cannot(operation)),
            Operation::NewApplicationAccessToken => {
                off(self.settings.token_generation, "token_generation = false forbids it")
                    .or_else(|| self.connector.cannot(operation))
            }
            operation => self.connector.cannot(operation),
        }
    }

    /// Refuses what cannot be done with it.
    pub(super) fn require(&self, operation: Operation) -> Result<()> {
        match self.cannot(operation) {
            None => Ok(()),
            Some(reason) => Err(Error::Unsupported { operation, reason }),
        }
    }
}

/// The key managers. Readers never lock.
#[derive(Debug, Default)]
pub struct Registry(ArcSwap<Vec<Arc<Managed>>>);

impl Registry {
    /// Puts `managers` in place of the present ones.
    pub fn replace(&self, managers: Vec<Managed>) {
        self.0.store(Arc::new(managers.into_iter().map(Arc::new).collect()));
    }

    /// All, in declared order.
    pub fn all(&self) -> Arc<Vec<Arc<Managed>>> {
        self.0.load_full()
    }

    /// The one of that name.
    pub fn find(&self, name: &str) -> Result<Arc<Managed>> {
        let managers = self.0.load();
        managers.iter().find(|managed| managed.name() == name).cloned().ok_or(Error::NotFound("key manager"))
    }
}
