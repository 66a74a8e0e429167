//! The whole configuration: every section of the file, in one type.
//!
//! A section's settings stand beside the code that reads them; here they are gathered, loaded
//! ([`load`]), judged as a whole ([`Settings::problems`]) and described ([`schema`]). Nothing here opens
//! a port, reads a secret or contacts anyone.

mod expand;
mod format;
mod key_managers;
pub mod later;
mod load;
mod network;
mod problems;
mod reload;
mod rows;
mod schema;
mod strict;
mod table_files;
mod tree;
mod unbuilt;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    management::ManagementSettings,
    net::Address,
    proxy,
    store::{
        DenySettings, FaultFormat, claims_of,
        settings::{
            ApiSettings, ApplicationSettings, GateSettings, IdentityHeaders, StoreSettings, SubscriptionSettings,
            TableSettings, TierSettings,
        },
    },
    sync::SharedSettings,
    telemetry::LogSettings,
    throttle,
    token::{
        VerificationSettings,
        assertion::BackendJwtSettings,
        settings::{CacheSettings, KeyManagerSettings},
    },
};

pub use format::Format;
pub use load::{Document, Error, LocatedProblem, Mistake, load, parse, quickstart};
pub use network::Network;
pub use reload::restart_only;
pub use schema::schema;
pub use table_files::{Stamps, TableFiles, TableFindings, TablesSettings, folder_of};

use later::DecisionSettings;

/// The configuration of Tollgate. A door that it does not mention is not opened.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Tollgate configuration")]
pub struct Settings {
    /// Threads that serve requests; 0: the container's CPU quota.
    pub workers: usize,
    /// Whose forwarded headers count, on all doors; Unix-socket peers always.
    pub trusted_proxies: Vec<Network>,
    /// Form of refusals: WSO2's or RFC 9457; an API may have its own.
    pub fault_format: FaultFormat,
    /// `realm` of the challenges.
    pub realm: String,
    /// Headers removed from every client request, besides the identity headers and the built-in ones.
    pub strip_headers: Vec<String>,
    /// The reverse proxy.
    pub proxy: Option<proxy::Settings>,
    /// Doors that answer another gateway's question.
    pub decision: Option<DecisionSettings>,
    /// The management API.
    pub management: Option<ManagementSettings>,
    /// Metrics and health.
    pub admin: Option<AdminSettings>,
    /// What must outlive the process.
    pub store: Option<StoreSettings>,
    /// Rows of tables in files of their own.
    pub tables: TablesSettings,
    /// What several sidecars share.
    pub shared: Option<SharedSettings>,
    /// What is remembered of tokens.
    pub cache: CacheSettings,
    /// New tokens whose signatures are to be checked.
    pub verification: VerificationSettings,
    /// Counting.
    pub throttle: throttle::Settings,
    /// Logs.
    pub log: LogSettings,
    /// Who is calling, for the upstream.
    pub identity_headers: IdentityHeaders,
    /// What upstreams are told of the caller by a JWT of ours; without the section nothing.
    pub backend_jwt: Option<BackendJwtSettings>,
    /// The OAuth providers whose tokens count, in the order they are asked.
    pub key_managers: Vec<KeyManagerSettings>,
    /// What is served.
    pub apis: Vec<ApiSettings>,
    /// Owners of consumer keys.
    pub applications: Vec<ApplicationSettings>,
    /// Which application may use which API.
    pub subscriptions: Vec<SubscriptionSettings>,
    /// Throttling tiers besides the built-in ones; the same name replaces.
    pub tiers: Vec<TierSettings>,
    /// Who may not pass, whatever else is allowed: 403.
    pub deny: Vec<DenySettings>,
}

/// `[admin]`: `/metrics`, `/livez`, `/readyz`; nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminSettings {
    /// Where it listens.
    pub listen: Address,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: 0,
            trusted_proxies: Network::loopback(),
            fault_format: FaultFormat::default(),
            realm: "tollgate".into(),
            strip_headers: Vec::new(),
            proxy: None,
            decision: None,
            management: None,
            admin: None,
            store: None,
            tables: TablesSettings::default(),
            shared: None,
            cache: CacheSettings::default(),
            verification: VerificationSettings::default(),
            throttle: throttle::Settings::default(),
            log: LogSettings::default(),
            identity_headers: IdentityHeaders::default(),
            backend_jwt: None,
            key_managers: Vec::new(),
            apis: Vec::new(),
            applications: Vec::new(),
            subscriptions: Vec::new(),
            tiers: Vec::new(),
            deny: Vec::new(),
        }
    }
}

impl Settings {
    /// What holds for every request at every door.
    pub fn gate(&self) -> GateSettings {
        GateSettings {
            trusted_proxies: self.trusted_proxies.iter().map(|network| network.0).collect(),
            fault_format: self.fault_format,
            realm: self.realm.clone(),
            strip_headers: self.strip_headers.clone(),
            assertion_header: self.backend_jwt.as_ref().map(|jwt| jwt.header.clone()),
            identity_headers: self.identity_headers.clone(),
            rate_limit_headers: self.throttle.headers,
            x_ratelimit: self.throttle.x_ratelimit,
            rules: self.throttle.rules.clone(),
            deny: self.deny.clone(),
        }
    }

    /// The claims that limits are chosen or counted by, each once: of them tokens keep the values.
    pub fn throttle_claims(&self) -> BTreeSet<String> {
        let groups = self.tiers.iter().flat_map(|tier| &tier.conditions);
        let conditions = groups.flat_map(|group| &group.when).filter_map(|condition| condition.claim.clone());
        conditions.chain(self.throttle.rules.iter().flat_map(|rule| claims_of(&rule.key))).collect()
    }

    /// Names of the key managers in declared order.
    pub fn key_manager_names(&self) -> Vec<String> {
        self.key_managers.iter().map(|manager| manager.name.clone()).collect()
    }

    /// All tables; `gate` and `key_managers` are what [`Self::gate`] and [`Self::key_manager_names`] gave.
    pub fn tables<'a>(&'a self, gate: &'a GateSettings, key_managers: &'a [String]) -> TableSettings<'a> {
        TableSettings {
            gate,
            key_managers,
            issuers: self.key_managers.iter().map(|manager| manager.issuer.as_str()).collect(),
            apis: &self.apis,
            applications: &self.applications,
            subscriptions: &self.subscriptions,
            tiers: &self.tiers,
        }
    }
}

#[cfg(test)]
mod tests;
