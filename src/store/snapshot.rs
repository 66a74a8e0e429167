//! The immutable tables.

use std::{borrow::Cow, ops::Deref, sync::Arc};

use http::Method;

use crate::{problem::Problem, telemetry::ApiCounters};

use super::{
    Application, AuthLevel, AuthRule, ConsumerKey, FaultFormat, Gate, KeyType, Resolution, ScopesMatch, Subscription,
    SubscriptionRule, Tier, TokenUsage,
    application::ConsumerKeys,
    build,
    cors::Cors,
    metadata::{Documents, ResourceMetadata},
    path::comparable,
    resource::{Placement, Routes, Target},
    rows::{Finder, Rows},
    settings::TableSettings,
    source::{NoSource, Source},
    subscription::Subscriptions,
    tiers::Tiers,
};

/// One version of all tables.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What holds for every request.
    pub gate: Arc<Gate>,
    /// APIs; `Target::api` indexes them. One that was removed stays until another takes its place; nothing leads to it.
    pub apis: Arc<[ApiRow]>,
    /// Applications; `ConsumerKey::application` indexes them. Those removed are as with APIs.
    pub applications: Rows<Application>,
    /// Counts up with every version.
    pub generation: u64,
    /// Request counters where no API is served.
    pub no_api_counters: Arc<ApiCounters>,

    pub(super) routes: Routes,
    pub(super) documents: Arc<Documents>,
    pub(super) consumer_keys: ConsumerKeys,
    pub(super) subscriptions: Subscriptions,
    pub(super) names: Names,
}

/// What only a change of the tables looks at.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) key_managers: Arc<[String]>,
    pub(super) issuers: Arc<[String]>,
    pub(super) apis: Finder,
    pub(super) applications: Finder,
    /// Where each API is served.
    pub(super) placements: Rows<Placement>,
    /// How many subscriptions each has.
    pub(super) api_uses: Rows<u32>,
    pub(super) application_uses: Rows<u32>,
    /// Rows that nothing leads to.
    pub(super) free_apis: Arc<Vec<u32>>,
    pub(super) free_applications: Arc<Vec<u32>>,
    pub(super) tiers: Arc<Tiers>,
}

/// One API with its resources.
#[derive(Debug, Clone)]
pub struct ApiRow {
    /// What holds for all its resources.
    pub api: Arc<Api>,
    /// Resources; `Target::resource` indexes them.
    pub resources: Arc<[Resource]>,
}

impl Deref for ApiRow {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

/// One API, without its resources, which may be many: a request under way holds it for as long as it lasts.
#[derive(Debug)]
pub struct Api {
    /// Name.
    pub name: Box<str>,
    /// Version.
    pub version: Option<Box<str>>,
    /// `name:version`, or the name where there is no version.
    pub id: Box<str>,
    /// Where it is served, with its version; empty for `/`.
    pub context: Box<str>,
    /// Where requests go.
    pub upstreams: Upstreams,
    /// Cut context and version towards the upstream.
    pub strip_prefix: bool,
    /// Send the client's `Host`.
    pub preserve_host: bool,
    /// Send the credential on.
    pub forward_token: bool,
    /// Send a backend JWT, where there are any.
    pub backend_jwt: bool,
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
    /// How much its upstreams get; none: any.
    pub backend_limits: Option<Box<BackendLimits>>,
    /// Where its answers tell the tokens used; none: where most do.
    pub token_usage: Option<Arc<TokenUsage>>,
    /// Form of its refusals.
    pub fault_format: FaultFormat,
    /// What it tells clients of itself (RFC 9728); none: nothing.
    pub metadata: Option<Box<ResourceMetadata>>,
    /// Which pages in browsers may call it; none: what its upstream says.
    pub cors: Option<Box<Cors>>,
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

/// How much upstreams get by environment. None: any.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BackendLimits {
    /// By PRODUCTION keys.
    pub production: Option<Tier>,
    /// By SANDBOX keys.
    pub sandbox: Option<Tier>,
}

impl BackendLimits {
    /// That of an environment.
    pub fn of(&self, key_type: KeyType) -> Option<&Tier> {
        match key_type {
            KeyType::Production => self.production.as_ref(),
            KeyType::Sandbox => self.sandbox.as_ref(),
        }
    }
}

impl Upstreams {
    /// Those of an environment.
    pub fn of(&self, key_type: KeyType) -> &[Arc<Upstream>] {
        match key_type {
            KeyType::Production => &self.production,
            KeyType::Sandbox => &self.sandbox,
        }
    }
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

/// One resource of an API. Lists that many resources have in common are shared.
#[derive(Debug)]
pub struct Resource {
    /// The template as configured, for logs and counters.
    pub template: Arc<str>,
    /// Verbs it lists; empty is every one of RFC 9110 and PATCH, but CONNECT and TRACE.
    pub methods: Arc<[Method]>,
    /// Scopes it needs.
    pub scopes: Arc<[Box<str>]>,
    /// Any or all of them.
    pub scopes_match: ScopesMatch,
    /// Whether a credential is needed.
    pub auth: AuthRule,
    /// Whose token it must be.
    pub auth_level: AuthLevel,
    /// How its user must have signed in; none: anyhow.
    pub sign_in: Option<Box<SignIn>>,
    /// Resource-level tier. None: unlimited, or the API has a tier that replaces it.
    pub tier: Option<Tier>,
}

/// How a token's user must have signed in, and when (RFC 9470).
#[derive(Debug, PartialEq, Eq)]
pub struct SignIn {
    /// One of these `acr`; empty: any.
    pub acr_values: Box<[Box<str>]>,
    /// At most so many seconds ago.
    pub max_age_s: Option<u64>,
}

impl Resource {
    /// Whether it lists this verb.
    pub fn lists(&self, method: &Method) -> bool {
        if self.methods.is_empty() { ANY_METHOD.contains(method) } else { self.methods.contains(method) }
    }

    pub(super) fn shares_verb_with(&self, other: &Self) -> bool {
        let mine = if self.methods.is_empty() { &ANY_METHOD[..] } else { &self.methods };
        mine.iter().any(|method| other.lists(method))
    }
}

impl Snapshot {
    /// Builds the tables, or names every mistake in them.
    pub fn build(settings: &TableSettings<'_>, generation: u64) -> Result<Self, Vec<Problem>> {
        build::snapshot(settings, &mut NoSource, generation)
    }

    /// The same, with the rows of a source besides.
    pub fn build_with(
        settings: &TableSettings<'_>,
        source: &mut dyn Source,
        generation: u64,
    ) -> Result<Self, Vec<Problem>> {
        build::snapshot(settings, source, generation)
    }

    /// Elects the API and resource for a canonical path (design, step 2). `host` is lower case,
    /// without port and trailing dot.
    pub fn resolve(&self, host: &str, method: &Method, path: &str) -> Resolution {
        let compared = comparable(path);
        match self.routes.resolve(&self.apis, host, method, &compared) {
            Resolution::Found(target) if matches!(compared, Cow::Owned(_)) => {
                let context = &compared[..target.context_len as usize];
                Resolution::Found(Target { context_len: as_sent(context, path), ..target })
            }
            resolution => resolution,
        }
    }

    /// The APIs that are served.
    pub fn served(&self) -> impl Iterator<Item = &ApiRow> {
        let placements = &self.names.placements;
        let is_served = |n: usize| placements.get(n).is_some_and(|placement| !placement.contexts.is_empty());
        self.apis.iter().enumerate().filter(move |(n, _)| is_served(*n)).map(|(_, api)| api)
    }

    /// Index of the API whose [`ResourceMetadata`] is asked for at this very path. `host` as for [`Self::resolve`].
    pub fn metadata(&self, host: &str, path: &str) -> Option<u32> {
        self.documents.find(&self.apis, host, path)
    }

    /// The application behind a consumer key of a key manager.
    pub fn consumer_key(&self, key_manager: &str, consumer_key: &str) -> Option<ConsumerKey> {
        self.consumer_keys.get(key_manager, consumer_key)
    }

    /// Whether the application of that name has a key of a key manager that opens that environment.
    pub fn has_key(&self, application: &str, key_manager: &str, key_type: KeyType) -> bool {
        let application = self.find_application(application).and_then(|row| self.applications.get(row as usize));
        application.is_some_and(|it| self.consumer_keys.has(&it.keys, key_manager, key_type))
    }

    /// Index of the subscription of an application to an API.
    pub fn find_subscription(&self, application: u32, api: u32) -> Option<u32> {
        self.subscriptions.find(application, api)
    }

    /// The subscription of an application to an API.
    pub fn subscription(&self, application: u32, api: u32) -> Option<&Subscription> {
        self.subscription_at(self.find_subscription(application, api)?)
    }

    /// All subscriptions.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.subscriptions.iter()
    }

    /// Whether a tier has this name.
    pub fn knows_tier(&self, name: &str) -> bool {
        self.names.tiers.knows(name)
    }

    /// The subscription at an index.
    pub fn subscription_at(&self, index: u32) -> Option<&Subscription> {
        self.subscriptions.get(index)
    }
}

/// Bytes of `path` that are as many segments as `context` has.
fn as_sent(context: &str, path: &str) -> u32 {
    let segments = context.matches('/').count();
    let end = path.match_indices('/').nth(segments).map_or(path.len(), |(at, _)| at);
    u32::try_from(end).unwrap_or(u32::MAX)
}

/// What `*` stands for: RFC 9110 section 9 and RFC 5789, but CONNECT and TRACE, which are never forwarded.
pub(super) static ANY_METHOD: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH];
