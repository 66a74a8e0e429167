//! The immutable tables.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderName, Method};
use ipnet::IpNet;

use crate::{problem::Problem, telemetry::ApiCounters};

use super::{
    AuthRule, FaultFormat, KeyType, Resolution, ScopesMatch, SubscriptionRule, SubscriptionState, Tier, TokenPlace,
    resource::Routes, settings::TableSettings,
};

/// One version of all tables.
#[derive(Debug)]
pub struct Snapshot {
    /// What holds for every request.
    pub gate: Gate,
    /// APIs; `Target::api` indexes them.
    pub apis: Vec<Api>,
    /// Applications; `ConsumerKey::application` indexes them.
    pub applications: Vec<Application>,
    /// Counts up with every version.
    pub generation: u64,
    /// Request counters where no API is served.
    pub no_api_counters: ApiCounters,

    routes: Routes,
    /// Key manager's name → consumer key → its application.
    consumer_keys: HashMap<Box<str>, HashMap<Box<str>, ConsumerKey>>,
    /// (application, API) → subscription.
    subscriptions: HashMap<(u32, u32), Subscription>,
}

/// What holds for every request at every door.
#[derive(Debug)]
pub struct Gate {
    /// Whose forwarded headers count.
    pub trusted_proxies: Vec<IpNet>,
    /// Form of refusals where no API says otherwise.
    pub fault_format: FaultFormat,
    /// `realm` of the challenges.
    pub realm: Box<str>,
    /// Names to remove from client requests: lower case, `_` and `.` written as `-`, sorted.
    pub strip: Vec<Box<str>>,
    /// Names of the headers that carry the identity.
    pub identity: IdentityNames,
    /// RateLimit fields on accepted answers too.
    pub rate_limit_headers: bool,
}

impl Gate {
    /// Whether a client's header of this name is removed, in any spelling.
    pub fn strips(&self, name: &str) -> bool {
        let spelled: String =
            name.chars().map(|c| if matches!(c, '_' | '.') { '-' } else { c.to_ascii_lowercase() }).collect();
        self.strip.binary_search_by(|known| (**known).cmp(spelled.as_str())).is_ok()
    }
}

/// Parsed names of the identity headers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "documented at settings::IdentityHeaders")]
pub struct IdentityNames {
    pub subject: HeaderName,
    pub client_id: HeaderName,
    pub scopes: HeaderName,
    pub application: HeaderName,
    pub tier: HeaderName,
    /// Claim's name and header, in the settings' order; `token::Identity::claims` has the same order.
    pub claims: Arc<[(Box<str>, HeaderName)]>,
}

/// One API.
#[derive(Debug)]
pub struct Api {
    /// Name.
    pub name: Box<str>,
    /// Version.
    pub version: Option<Box<str>>,
    /// `name:version`, or the name where there is no version.
    pub id: Box<str>,
    /// Where requests go.
    pub upstreams: Upstreams,
    /// Cut context and version towards the upstream.
    pub strip_prefix: bool,
    /// Send the client's `Host`.
    pub preserve_host: bool,
    /// Send the credential on.
    pub forward_token: bool,
    /// A credential may stand in `Authorization`.
    pub token_in_header: bool,
    /// A credential may stand in the query.
    pub token_in_query: bool,
    /// Whose tokens count.
    pub key_managers: KeyManagerSet,
    /// The API's own audience; empty for any.
    pub audience: Vec<Box<str>>,
    /// Whether subscriptions are looked at.
    pub subscription: SubscriptionRule,
    /// API-level tier. None: unlimited.
    pub tier: Option<Tier>,
    /// Form of its refusals.
    pub fault_format: FaultFormat,
    /// Resources; `Target::resource` indexes them.
    pub resources: Vec<Resource>,
    /// Its request counters.
    pub counters: ApiCounters,
}

/// Upstreams by environment; each list is used in turn. Empty: there is none for that key type.
#[derive(Debug, Default)]
pub struct Upstreams {
    /// For PRODUCTION keys and anonymous calls.
    pub production: Vec<Arc<Upstream>>,
    /// For SANDBOX keys.
    pub sandbox: Vec<Arc<Upstream>>,
}

/// An upstream server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// How it is spoken to.
    pub scheme: UpstreamScheme,
    /// Host name or address without brackets; for `Unix` the socket's path; empty for `Echo`.
    pub host: Box<str>,
    /// Port; 0 for `Unix` and `Echo`.
    pub port: u16,
    /// `Host` to send: host, and port where it is not the scheme's own.
    pub authority: Box<str>,
    /// Path put before every forwarded path: empty, or `/base` without a trailing slash.
    pub base_path: Box<str>,
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamScheme {
    /// HTTP/1.1 over TCP.
    Http,
    /// TLS; HTTP/2 or HTTP/1.1 by ALPN.
    Https,
    /// HTTP/2 over TCP by prior knowledge.
    H2c,
    /// HTTP/1.1 over a Unix socket.
    Unix,
    /// The built-in echo, for trying out.
    Echo,
}

/// Which key managers count for an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyManagerSet {
    /// Names; empty for all.
    pub names: Arc<[Box<str>]>,
    /// Tells sets apart in cache keys: equal sets have equal ids; 0 for all.
    pub id: u64,
}

impl KeyManagerSet {
    /// All key managers.
    pub fn all() -> Self {
        Self { names: Arc::new([]), id: 0 }
    }

    /// Whether `name` counts.
    pub fn allows(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|n| **n == *name)
    }
}

/// One resource of an API.
#[derive(Debug)]
pub struct Resource {
    /// The template as configured, for logs and counters.
    pub template: Box<str>,
    /// Verbs it lists; empty is every one.
    pub methods: Vec<Method>,
    /// Scopes it needs.
    pub scopes: Vec<Box<str>>,
    /// Any or all of them.
    pub scopes_match: ScopesMatch,
    /// Whether a credential is needed.
    pub auth: AuthRule,
    /// Resource-level tier. None: unlimited, or the API has a tier that replaces it.
    pub tier: Option<Tier>,
}

/// One application.
#[derive(Debug)]
pub struct Application {
    /// Name.
    pub name: Box<str>,
    /// Owner.
    pub owner: Box<str>,
    /// Name of its tier.
    pub tier_name: Box<str>,
    /// Application-level tier, counted per user. None: unlimited.
    pub tier: Option<Tier>,
}

/// What a consumer key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerKey {
    /// Index of the application.
    pub application: u32,
    /// Environment.
    pub key_type: KeyType,
}

/// One subscription.
#[derive(Debug)]
pub struct Subscription {
    /// Name of its tier.
    pub tier_name: Box<str>,
    /// Subscription-level tier. None: unlimited.
    pub tier: Option<Tier>,
    /// Whether it may be used.
    pub state: SubscriptionState,
}

impl Snapshot {
    /// Builds the tables, or names every mistake in them.
    pub fn build(settings: &TableSettings<'_>, generation: u64) -> Result<Self, Vec<Problem>> {
        let _ = (settings, generation, TokenPlace::Header);
        unimplemented!()
    }

    /// Elects the API and resource for a canonical path (design, step 2). `host` is lower case,
    /// without port and trailing dot.
    pub fn resolve(&self, host: &str, method: &Method, path: &str) -> Resolution {
        let _ = (host, method, path);
        unimplemented!()
    }

    /// The application behind a consumer key of a key manager.
    pub fn consumer_key(&self, key_manager: &str, consumer_key: &str) -> Option<ConsumerKey> {
        let _ = (key_manager, consumer_key);
        unimplemented!()
    }

    /// The subscription of an application to an API.
    pub fn subscription(&self, application: u32, api: u32) -> Option<&Subscription> {
        let _ = (application, api);
        unimplemented!()
    }
}
