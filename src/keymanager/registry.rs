//! The key managers in force, by name: those of the file, then those that are stored.

use std::{borrow::Cow, sync::Arc};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use super::{Error, KeyManager, Operation, Result, configuration::shown, rows::hex};
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
        if let Some(setting) = self.switched_off(operation) {
            return Some(format!("{setting} = false forbids it").into());
        }
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
            operation => self.connector.cannot(operation),
        }
    }

    /// Refuses what cannot be done with it.
    pub(super) fn require(&self, operation: Operation) -> Result<()> {
        if let Some(setting) = self.switched_off(operation) {
            return Err(Error::SwitchedOff { operation, setting });
        }
        match self.cannot(operation) {
            None => Ok(()),
            Some(reason) => Err(Error::Unsupported { operation, reason }),
        }
    }

    /// The setting that forbids it, whatever the provider can.
    fn switched_off(&self, operation: Operation) -> Option<&'static str> {
        match operation {
            Operation::CreateApplication if !self.settings.allow_create => Some("allow_create"),
            Operation::NewApplicationAccessToken if !self.settings.token_generation => Some("token_generation"),
            _ => None,
        }
    }
}

/// An answer that is kept ready, since it changes only with the key managers.
#[derive(Debug, Clone)]
pub struct Ready {
    /// JSON, without secrets.
    pub text: Bytes,
    /// Its [`fingerprint`].
    pub fingerprint: Arc<str>,
}

/// By which texts are told apart: half of their SHA-256, in hexadecimal.
pub fn fingerprint(text: &[u8]) -> String {
    hex(digest(&SHA256, text).as_ref().get(..16).unwrap_or_default())
}

/// The key managers. Readers never lock.
#[derive(Debug, Default)]
pub struct Registry(ArcSwap<InForce>);

#[derive(Debug, Default)]
struct InForce {
    managers: Arc<Vec<Arc<Managed>>>,
    /// The configuration of each, in the same order.
    shown: Vec<Ready>,
}

impl Registry {
    /// Puts `managers` in place of the present ones.
    pub fn replace(&self, managers: Vec<Managed>) {
        let shown = managers.iter().map(ready).collect();
        let managers = Arc::new(managers.into_iter().map(Arc::new).collect());
        self.0.store(Arc::new(InForce { managers, shown }));
    }

    /// All, in declared order.
    pub fn all(&self) -> Arc<Vec<Arc<Managed>>> {
        Arc::clone(&self.0.load().managers)
    }

    /// The one of that name.
    pub fn find(&self, name: &str) -> Result<Arc<Managed>> {
        self.0.load().managers.iter().find(|managed| managed.name() == name).cloned().ok_or(UNKNOWN)
    }

    /// `getKeyManagerConfiguration`, as it is told: [`KeyManagerConfiguration`](super::KeyManagerConfiguration).
    pub fn shown(&self, name: &str) -> Result<Ready> {
        let now = self.0.load();
        let mut pairs = now.managers.iter().zip(&now.shown);
        pairs.find(|(managed, _)| managed.name() == name).map(|(_, shown)| shown.clone()).ok_or(UNKNOWN)
    }
}

fn ready(managed: &Managed) -> Ready {
    // Strings, numbers and maps of them are always JSON.
    let text = serde_json::to_vec(&shown(managed)).unwrap_or_default();
    Ready { fingerprint: fingerprint(&text).into(), text: text.into() }
}

const UNKNOWN: Error = Error::NotFound("key manager");
