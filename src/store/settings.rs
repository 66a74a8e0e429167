//! What the configuration says of APIs, applications, subscriptions, tiers, the record and the gate itself.

use std::{collections::BTreeMap, path::PathBuf};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    advanced::GroupSettings,
    cors::CorsSettings,
    deny::DenySettings,
    metadata::MetadataSettings,
    quota::{self, QuotaSettings, Volume},
    rule::RuleSettings,
    tier::Algorithm,
    token_usage::TokenUsageSettings,
};
use crate::{secret::Secret, units::Span};

/// One value or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum OneOrMany {
    /// A single value.
    One(String),
    /// Several, in order.
    Many(Vec<String>),
}

impl OneOrMany {
    /// The values in order.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// `[store]`: where what must outlive the process is recorded; without it nothing is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// A file of this machine, made at first start, for this user alone; one process at a time.
    pub path: Option<PathBuf>,
    /// A team's store: `postgres://…`. A secret, since it may hold a password.
    pub url: Option<Secret>,
}

/// In which form a refusal's body is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FaultFormat {
    /// WSO2's `{"code","message","description"}`.
    #[default]
    Wso2,
    /// RFC 9457 problem details.
    Problem,
}

/// Names of the headers that tell the upstream who is calling. They are removed from every client request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityHeaders {
    /// The token's `sub`.
    pub subject: String,
    /// The consumer key.
    pub client_id: String,
    /// The token's scopes, space separated.
    pub scopes: String,
    /// The application's name.
    pub application: String,
    /// The subscription's tier.
    pub tier: String,
    /// Is there, with the value `true`, where a limit that does not stop was beyond its quota.
    pub over_quota: String,
    /// Further claims by name, each with the header that carries it.
    pub claims: BTreeMap<String, String>,
}

impl Default for IdentityHeaders {
    fn default() -> Self {
        Self {
            subject: "X-Auth-Subject".into(),
            client_id: "X-Auth-Client-Id".into(),
            scopes: "X-Auth-Scopes".into(),
            application: "X-Auth-Application".into(),
            tier: "X-Auth-Tier".into(),
            over_quota: "X-Auth-Over-Quota".into(),
            claims: BTreeMap::new(),
        }
    }
}

/// What holds for every request at every door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateSettings {
    /// Whose forwarded headers count; Unix-socket peers always.
    pub trusted_proxies: Vec<IpNet>,
    /// Default form of refusals.
    pub fault_format: FaultFormat,
    /// `realm` of the challenges.
    pub realm: String,
    /// Headers removed from every client request, besides the built-in ones.
    pub strip_headers: Vec<String>,
    /// The header that carries our JWT: no client's to send either.
    pub assertion_header: Option<String>,
    /// Who is calling, for the upstream.
    pub identity_headers: IdentityHeaders,
    /// `[throttle] headers`: RateLimit fields on accepted answers too.
    pub rate_limit_headers: bool,
    /// `[throttle] x_ratelimit`: the older fields besides.
    pub x_ratelimit: bool,
    /// `[[throttle.rules]]`
    pub rules: Vec<RuleSettings>,
    /// `[[deny]]`
    pub deny: Vec<DenySettings>,
}

/// One API: where it is served, where it goes, who may call it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiSettings {
    /// Name, as subscriptions refer to it.
    pub name: String,
    /// First part of the path, such as `/orders`.
    pub context: String,
    /// Version: served at `<context>/<version>/…`; absent: at `<context>/…`.
    pub version: Option<String>,
    /// Serve a versioned API at `<context>/…` too.
    #[serde(default)]
    pub default_version: bool,
    /// Hosts it is served at; empty for any.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Where requests go: `http://`, `https://`, `h2c://`, `unix:` or `echo:`; a list is used in turn.
    pub upstream: Option<OneOrMany>,
    /// Upstream for PRODUCTION keys, in place of `upstream`.
    pub production: Option<OneOrMany>,
    /// Upstream for SANDBOX keys, in place of `upstream`.
    pub sandbox: Option<OneOrMany>,
    /// Whether context and version are cut from the path towards the upstream.
    #[serde(default = "yes")]
    pub strip_prefix: bool,
    /// Send the client's `Host` to the upstream, in place of the upstream's own.
    #[serde(default)]
    pub preserve_host: bool,
    /// Send the credential on to the upstream.
    #[serde(default)]
    pub forward_token: bool,
    /// Send a backend JWT to the upstream, where there is a `[backend_jwt]`.
    #[serde(default = "yes")]
    pub backend_jwt: bool,
    /// Where a credential may stand: `header`, `query` (`access_token`).
    #[serde(default = "header_only")]
    pub token_in: Vec<TokenPlace>,
    /// Key managers whose tokens count here; empty for all.
    #[serde(default)]
    pub key_managers: Vec<String>,
    /// The API's own audience, beside the key manager's; empty for any.
    #[serde(default)]
    pub audience: Vec<String>,
    /// Whether the application must be subscribed.
    #[serde(default)]
    pub subscription: SubscriptionRule,
    /// API-level tier; another than `Unlimited` replaces all resource tiers.
    #[serde(default = "unlimited")]
    pub tier: String,
    /// How much each environment's upstream is to get.
    pub backend_limit: Option<BackendLimitSettings>,
    /// Where its answers tell the tokens that a model has used, for tiers that count them.
    #[serde(default)]
    pub token_usage: TokenUsageSettings,
    /// Form of this API's refusals, in place of the global one.
    pub fault_format: Option<FaultFormat>,
    /// What it tells clients of itself (RFC 9728), and its challenges point to; absent: nothing.
    pub resource_metadata: Option<MetadataSettings>,
    /// Which pages in browsers may call it (CORS); absent: what its upstream says.
    pub cors: Option<CorsSettings>,
    /// What may be called, and how.
    #[serde(default)]
    pub resources: Vec<ResourceSettings>,
}

/// How much the upstreams of an API are to get, of all applications together; beyond it 503.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BackendLimitSettings {
    /// By PRODUCTION keys.
    pub production: Option<QuotaSettings>,
    /// By SANDBOX keys.
    pub sandbox: Option<QuotaSettings>,
}

/// A place a credential may stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenPlace {
    /// `Authorization: Bearer …` (RFC 6750 section 2.1).
    Header,
    /// `?access_token=…` (RFC 6750 section 2.3).
    Query,
}

/// Whether an API looks at subscriptions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SubscriptionRule {
    /// The token's application must be subscribed.
    #[default]
    Required,
    /// No application, subscription or tier of theirs is looked at.
    None,
}

/// One resource: a path template and its verbs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceSettings {
    /// Template: exact segments, `{param}`, or a last `/*`.
    pub path: String,
    /// Verbs; `*` is every one of RFC 9110 and PATCH, but CONNECT and TRACE. Others count where they are listed.
    #[serde(default = "any_method")]
    pub methods: Vec<String>,
    /// Scopes it needs; empty: authenticated is enough.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Whether any one of the scopes suffices or all are needed.
    #[serde(default)]
    pub scopes_match: ScopesMatch,
    /// Whether a credential is needed.
    #[serde(default)]
    pub auth: AuthRule,
    /// Whose token it must be.
    #[serde(default)]
    pub auth_level: AuthLevel,
    /// How its user must have signed in: one of these `acr` (RFC 9470); empty: anyhow.
    #[serde(default)]
    pub acr_values: Vec<String>,
    /// How long ago its user may have signed in (`auth_time`, RFC 9470), in whole seconds; absent: any time.
    pub max_age: Option<Span>,
    /// Resource-level tier.
    #[serde(default = "unlimited")]
    pub tier: String,
}

/// How several scopes of a resource are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScopesMatch {
    /// Any one suffices.
    #[default]
    Any,
    /// All are needed.
    All,
}

/// Whether a resource needs a credential.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthRule {
    /// It does.
    #[default]
    Required,
    /// Absent: anonymous; present: judged.
    Optional,
    /// Not judged, and removed.
    None,
}

/// Whose token a resource needs. WSO2 tells by the claim `aut`; without it, a token whose subject is missing or is
/// the client itself is an application's, and so is one that Entra (`idtyp`), Auth0 (`gty`) or Keycloak
/// (`preferred_username`) marks so; any other is a user's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthLevel {
    /// Anyone's.
    #[default]
    Any,
    /// An application's own.
    Application,
    /// A user's.
    ApplicationUser,
}

/// An application: the owner of consumer keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplicationSettings {
    /// Name, as subscriptions refer to it.
    pub name: String,
    /// Who owns it.
    pub owner: String,
    /// Application-level tier, counted per user of the application.
    #[serde(default = "unlimited")]
    pub tier: String,
    /// Its consumer keys.
    #[serde(default)]
    pub keys: Vec<KeySettings>,
}

/// A consumer key of an application.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// Whose key it is; may be left out when there is one key manager.
    pub key_manager: Option<String>,
    /// The OAuth client id.
    pub consumer_key: String,
    /// Which environment it opens.
    #[serde(default)]
    pub key_type: KeyType,
}

/// Environment of a consumer key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum KeyType {
    /// The real thing.
    #[default]
    Production,
    /// For trying out.
    Sandbox,
}

/// A subscription: an application may use an API, at a tier.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionSettings {
    /// The application's name.
    pub application: String,
    /// The API as `name:version`, or its name where it has no version.
    pub api: String,
    /// Subscription-level tier.
    pub tier: String,
    /// Whether it may be used now.
    #[serde(default)]
    pub state: SubscriptionState,
}

/// WSO2's states of a subscription.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SubscriptionState {
    /// May be used.
    #[default]
    Unblocked,
    /// May be used, while a change of tier waits for approval.
    TierUpdatePending,
    /// May be used, while its removal waits for approval.
    DeletePending,
    /// Refused: 401 900907.
    Blocked,
    /// Refused for PRODUCTION keys: 401 900907.
    ProdOnlyBlocked,
    /// Refused: 401 900909.
    OnHold,
    /// Refused: 401 900909.
    Rejected,
}

/// A throttling tier.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TierSettings {
    /// Name; a built-in one of the same name is replaced.
    pub name: String,
    /// Quota in requests a window; also beside one of the others.
    #[serde(default, deserialize_with = "quota::amount")]
    pub requests: Option<u64>,
    /// Quota in bytes of bodies a window, of requests and answers, WebSockets' too.
    pub bytes: Option<Volume>,
    /// Quota in events a window: WebSocket and gRPC messages both ways, server-sent events.
    #[serde(default, deserialize_with = "quota::amount")]
    pub events: Option<u64>,
    /// Quota in model tokens a window; the API's `token_usage` says where they are told.
    #[serde(default, deserialize_with = "quota::amount")]
    pub tokens: Option<u64>,
    /// The window: a whole number and `s`, `m`, `h`, `d` or `mo` (UTC calendar months).
    pub per: String,
    /// How the window moves on; `gcra` in s, m, h or d.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Where the tier may be used.
    #[serde(default)]
    pub level: TierLevel,
    /// A shorter limit against bursts.
    pub burst: Option<BurstSettings>,
    /// Whether an exhausted quota refuses; else it passes, counted and marked.
    #[serde(default = "yes")]
    pub stop_on_quota_reach: bool,
    /// With level `advanced`: whether each user has a counter of their own.
    #[serde(default)]
    pub per_user: bool,
    /// With level `advanced`: limits for requests that meet conditions; the first group that does counts.
    #[serde(default)]
    pub conditions: Vec<GroupSettings>,
}

/// Where a tier may be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TierLevel {
    /// Anywhere.
    #[default]
    Any,
    /// By subscriptions.
    Subscription,
    /// By applications.
    Application,
    /// By APIs and resources.
    Advanced,
}

/// A limit against bursts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BurstSettings {
    /// How many requests.
    #[serde(deserialize_with = "quota::needed_amount")]
    pub requests: u64,
    /// In which time.
    pub per: String,
}

/// All tables, as the configuration gives them.
#[derive(Debug, Clone)]
pub struct TableSettings<'a> {
    /// What holds for every request.
    pub gate: &'a GateSettings,
    /// Names of the key managers in declared order.
    pub key_managers: &'a [String],
    /// Their issuers, in the same order.
    pub issuers: Vec<&'a str>,
    /// `[[apis]]`
    pub apis: &'a [ApiSettings],
    /// `[[applications]]`
    pub applications: &'a [ApplicationSettings],
    /// `[[subscriptions]]`
    pub subscriptions: &'a [SubscriptionSettings],
    /// `[[tiers]]`
    pub tiers: &'a [TierSettings],
}

fn yes() -> bool {
    true
}

fn unlimited() -> String {
    "Unlimited".into()
}

fn any_method() -> Vec<String> {
    vec!["*".into()]
}

fn header_only() -> Vec<TokenPlace> {
    vec![TokenPlace::Header]
}
