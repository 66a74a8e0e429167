//! What a verdict says.

use std::sync::Arc;

use crate::{
    store::{ApiRow, Application, KeyType, Resource, Snapshot, Subscription, Upstream},
    throttle::Admitted,
    token::Identity,
};

use super::Denial;

/// The verdict.
pub type Decision = Result<Grant, Box<Refusal>>;

/// The request may pass.
#[derive(Debug)]
pub struct Grant {
    /// What was found on the way.
    pub found: Found,
    /// The canonical path, where it is not what was sent.
    pub path: Option<Box<str>>,
    /// Bytes of the canonical path that are context and version.
    pub context_len: usize,
    /// The query to forward.
    pub query: ForwardQuery,
    /// What the limits say of it: the tightest's state, when answers shall tell it, and what is yet to be counted.
    pub admitted: Admitted,
}

/// The query towards the upstream: as sent, save credential parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardQuery {
    /// Byte for byte as sent.
    AsSent,
    /// A credential parameter was removed; `None`: nothing is left.
    Without(Option<Box<str>>),
}

/// The request may not pass.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub denial: Denial,
    /// What was found on the way.
    pub found: Found,
}

/// What a request was found to be, as far as it was judged: for logs, headers and refusals alike.
#[derive(Debug, Clone)]
pub struct Found {
    /// The tables it was judged by.
    pub tables: Arc<Snapshot>,
    /// Index of the API.
    pub api: Option<u32>,
    /// Index of the resource.
    pub resource: Option<u32>,
    /// Who is calling; none is anonymous.
    pub identity: Option<Arc<Identity>>,
    /// Index of the application.
    pub application: Option<u32>,
    /// Index of the application's subscription to the API.
    pub subscription: Option<u32>,
    /// Environment of the consumer key.
    pub key_type: KeyType,
}

/// What the steps have found so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) api: Option<u32>,
    pub(super) resource: Option<u32>,
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) application: Option<u32>,
    pub(super) subscription: Option<u32>,
    pub(super) key_type: KeyType,
}

impl Seen {
    /// Found by these tables.
    pub(super) fn by(self, tables: Arc<Snapshot>) -> Found {
        let Self { api, resource, identity, application, subscription, key_type } = self;
        Found { tables, api, resource, identity, application, subscription, key_type }
    }

    /// The application behind the consumer key.
    pub(super) fn application<'t>(&self, tables: &'t Snapshot) -> Option<&'t Application> {
        tables.applications.get(self.application? as usize)
    }

    /// The application's subscription to the API.
    pub(super) fn subscription<'t>(&self, tables: &'t Snapshot) -> Option<&'t Subscription> {
        tables.subscription_at(self.subscription?)
    }
}

impl Grant {
    /// Where the request may go: the upstreams of its environment, at least one.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        self.found.api().map_or(&[], |api| api.upstreams.of(self.found.key_type))
    }
}

impl Found {
    /// Nothing yet: for refusals before the verdict.
    pub fn new(tables: Arc<Snapshot>) -> Self {
        Seen::default().by(tables)
    }

    /// The API.
    pub fn api(&self) -> Option<&ApiRow> {
        self.tables.apis.get(self.api? as usize)
    }

    /// The resource.
    pub fn resource(&self) -> Option<&Resource> {
        self.api()?.resources.get(self.resource? as usize)
    }

    /// The application.
    pub fn application(&self) -> Option<&Application> {
        self.tables.applications.get(self.application? as usize)
    }

    /// The application's subscription to the API.
    pub fn subscription(&self) -> Option<&Subscription> {
        self.tables.subscription_at(self.subscription?)
    }
}
