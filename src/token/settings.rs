//! What the configuration says of key managers and of the token cache.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::algorithm::Algorithm;
pub use super::embedded_settings::{ClientSettings, Registration, TokenForm, UserSettings};
use crate::{
    secret::Secret,
    units::{Size, Span},
};

/// `[[key_managers]]`: an OAuth provider whose tokens count.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyManagerSettings {
    /// Name, as APIs and applications refer to it.
    pub name: String,
    /// Which connector speaks to it.
    pub connector: ConnectorKind,
    /// Its issuer identifier, compared exactly with `iss`.
    pub issuer: String,
    /// Whether plain http is allowed towards it beyond loopback.
    #[serde(default)]
    pub allow_http: bool,
    /// Find the endpoints by OIDC discovery or RFC 8414.
    #[serde(default = "yes")]
    pub discovery: bool,
    /// Endpoint of the key set, where discovery is not used.
    pub jwks_uri: Option<String>,
    /// RFC 7662.
    pub introspection_endpoint: Option<String>,
    /// RFC 6749 section 3.2.
    pub token_endpoint: Option<String>,
    /// RFC 7009.
    pub revocation_endpoint: Option<String>,
    /// RFC 7591.
    pub registration_endpoint: Option<String>,
    /// OpenID Connect Core section 5.3.
    pub userinfo_endpoint: Option<String>,
    /// WSO2's scope endpoint.
    pub scope_endpoint: Option<String>,
    /// Keys by hand: a JWK set from a file.
    pub jwks: Option<JwksFile>,
    /// Accepted audiences; empty accepts any.
    #[serde(default)]
    pub audience: Vec<String>,
    /// How tokens are judged.
    #[serde(default)]
    pub validation: Validation,
    /// Which `typ` an access token may have.
    #[serde(default)]
    pub typ: TypRule,
    /// Accepted signature algorithms; HS256, HS384 and HS512 only beside a key of `secret_keys`.
    #[serde(default = "all_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// Keys shared with it, for HS256, HS384 and HS512. A symmetric key in its key set never counts.
    #[serde(default)]
    pub secret_keys: Vec<SecretKeySettings>,
    /// Private keys that open its encrypted tokens, each a JWK or a JWK set: RSA-OAEP-256 or ECDH-ES (no key wrap),
    /// and A128GCM or A256GCM, with a signed JWT inside. None: encrypted tokens are refused.
    #[serde(default)]
    pub decryption_keys: Vec<JwksFile>,
    /// Tolerated difference of clocks, in whole seconds as a token's times are.
    #[serde(default = "thirty_seconds")]
    pub leeway: Span,
    /// Whether a token must expire.
    #[serde(default = "yes")]
    pub require_exp: bool,
    /// Longest accepted `exp` − `iat`, in whole seconds; 0: any.
    #[serde(default)]
    pub max_lifetime: Span,
    /// Claims that a token must have: `true` (there, and neither null, false nor empty), a value, or a list of which
    /// one suffices. A list in the token counts by its members. All must hold.
    #[serde(default)]
    pub required_claims: BTreeMap<String, ClaimRule>,
    /// Which JWTs are this one's, where several share an issuer: regular expressions of claims that are texts. Each
    /// must match whole, and all must.
    #[serde(default)]
    pub token_match: BTreeMap<String, String>,
    /// The provider's names of claims, with ours: by those the identity headers know them. Settings of the key manager
    /// itself use the provider's.
    #[serde(default)]
    pub claim_mappings: BTreeMap<String, String>,
    /// Claims that may hold the consumer key; the first present counts. Like everywhere, a name with dots is first the
    /// name of a member, then a path through objects; at each step the longest name that there is counts.
    #[serde(default = "consumer_key_claims")]
    pub consumer_key_claim: ClaimNames,
    /// Claims that may hold the scopes; the first present counts.
    #[serde(default = "scope_claims")]
    pub scopes_claim: ClaimNames,
    /// Which opaque tokens are this one's; must match whole.
    pub token_pattern: Option<String>,
    /// Whether readiness waits for it.
    #[serde(default)]
    pub startup: Startup,
    /// How often the key set is fetched. The provider's `Cache-Control: max-age` moves it, to no less than a tenth of
    /// it (and 10 s) and no more than twice it.
    #[serde(default = "five_minutes")]
    pub jwks_refresh: Span,
    /// Shortest time between two fetches that unknown key ids cause.
    #[serde(default = "ten_seconds")]
    pub jwks_cooldown: Span,
    /// How long the last good key set is used when it cannot be fetched; also after a restart, where `[store]` has a
    /// path.
    #[serde(default = "one_hour")]
    pub jwks_max_stale: Span,
    /// Longest wait for an answer of the provider.
    #[serde(default = "two_seconds")]
    pub timeout: Span,
    /// Calls to the provider at one time.
    #[serde(default = "sixty_four")]
    pub concurrency: u32,
    /// Our own client id there.
    pub client_id: Option<String>,
    /// Our own client secret there.
    pub client_secret: Option<Secret>,
    /// How we authenticate there.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Our own private key there, for `client_auth = "private_key_jwt"`.
    pub client_key: Option<ClientKey>,
    /// Our own certificate there, for `client_auth = "mtls"`.
    pub client_certificate: Option<ClientCertificate>,
    /// The authorities that its certificate must come from; the system's do not count then.
    pub ca: Option<CaFile>,
    /// HTTP proxy on the way to it: `http://host:port`. Never taken from the environment.
    pub proxy: Option<String>,
    /// In which form answers about tokens are asked for; both are understood.
    #[serde(default)]
    pub introspection_response: ResponseForm,
    /// Whether clients may be created there (WSO2's `enable_oauth_app_creation`).
    #[serde(default = "yes")]
    pub allow_create: bool,
    /// Whether a client that is mapped is looked up there, and its secret compared (WSO2's
    /// `enable_provisioned_app_validation`); else the caller is believed.
    #[serde(default = "yes")]
    pub validate_mapped: bool,
    /// Whether tokens may be obtained for its clients (WSO2's `enable_token_generation`).
    #[serde(default = "yes")]
    pub token_generation: bool,
    /// Connector `http`: where it answers. Connector `okta`: the organization's address, the issuer's unless it is
    /// another. Connector `auth0`: its Management API, whose address is its audience too; `/api/v2/` of the issuer unless
    /// that is a domain of one's own.
    pub endpoint: Option<String>,
    /// Connector `http`: its bearer secret. Connector `okta`: the API token that manages clients, scopes and users.
    pub token: Option<Secret>,
    /// Connector `embedded`: where it listens.
    pub listen: Option<String>,
    /// Connector `embedded`: whether another than a loopback address is allowed.
    #[serde(default)]
    pub allow_remote: bool,
    /// Connector `embedded`: which tokens it issues.
    #[serde(default)]
    pub tokens: TokenForm,
    /// Connector `embedded`: how long its access tokens live, in whole seconds.
    #[serde(default = "one_hour")]
    pub token_lifetime: Span,
    /// Connector `embedded`: how long its refresh tokens live, in whole seconds; each use gives a new one.
    #[serde(default = "one_day")]
    pub refresh_lifetime: Span,
    /// Connector `embedded`: how long it signs with one key, in whole seconds; 0: for ever.
    #[serde(default = "thirty_days")]
    pub key_rotation: Span,
    /// Connector `embedded`: its clients.
    #[serde(default)]
    pub clients: Vec<ClientSettings>,
    /// Connector `embedded`: its users, for the password grant; none: no such grant.
    #[serde(default)]
    pub users: Vec<UserSettings>,
    /// Connector `embedded`: who may register clients (RFC 7591).
    #[serde(default)]
    pub registration: Registration,
    /// The bearer secret that may register clients: connector `embedded`'s own, with `registration = "token"`; the
    /// initial access token (RFC 7591 section 3) of connector `oidc`.
    pub registration_token: Option<Secret>,
    /// Connector `embedded`: scopes that a registered client may ask for.
    #[serde(default)]
    pub registration_scopes: Vec<String>,
}

/// `{ file = "…" }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwksFile {
    /// Path of a JWK set (RFC 7517), or of a JWK where that is allowed.
    pub file: PathBuf,
}

/// `{ file = "…" }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaFile {
    /// Path of certificates in PEM.
    pub file: PathBuf,
}

/// A symmetric key shared with a provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretKeySettings {
    /// `kid`, where its tokens name one.
    pub kid: Option<String>,
    /// The one algorithm it is for: HS256, HS384 or HS512.
    pub alg: Algorithm,
    /// The key; at least as long as the hash (RFC 7518 section 3.2): 32, 48 or 64 bytes.
    pub secret: Secret,
    /// How the key is written.
    #[serde(default)]
    pub encoding: SecretEncoding,
}

/// How a symmetric key is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretEncoding {
    /// The bytes of the text are the key.
    #[default]
    Text,
    /// The text is the key in base64url without padding, as in `k` of a JWK.
    Base64url,
}

/// The connectors of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is the provider of that name")]
pub enum ConnectorKind {
    Embedded,
    Oidc,
    Keycloak,
    Wso2is,
    Okta,
    Auth0,
    Http,
}

/// How a key manager's tokens are judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Validation {
    /// JWTs by signature, opaque tokens by introspection.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// By signature only.
    #[serde(rename = "jwt")]
    Jwt,
    /// By introspection only.
    #[serde(rename = "introspect")]
    Introspect,
    /// By both.
    #[serde(rename = "jwt+introspect")]
    Both,
}

/// Which `typ` an access token may have; without regard to case and an `application/` prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TypRule {
    /// Missing, `JWT` or `at+jwt`.
    #[default]
    #[serde(rename = "access")]
    Access,
    /// `at+jwt` alone (RFC 9068).
    #[serde(rename = "at+jwt")]
    AtJwt,
}

/// What a claim must be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "expected true, a number, a text or a list of texts")]
pub enum ClaimRule {
    /// Whether it must be there; only `true` means anything.
    Present(bool),
    /// This number.
    Number(i64),
    /// This text, or a list with it.
    Text(String),
    /// One of these.
    OneOf(Vec<String>),
}

/// One claim name or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "expected a claim name or a list of claim names")]
pub enum ClaimNames {
    /// A single name.
    One(String),
    /// Several, the first present counts.
    Many(Vec<String>),
}

impl ClaimNames {
    /// The names in order.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

/// Whether readiness waits for a key manager.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Startup {
    /// Not ready until its keys are there.
    #[default]
    Required,
    /// Ready without it.
    Optional,
}

/// How we authenticate to a provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// `client_secret_basic`
    #[default]
    Basic,
    /// `client_secret_post`
    Post,
    /// RFC 7523
    PrivateKeyJwt,
    /// A bearer token
    Bearer,
    /// RFC 8705
    Mtls,
}

/// A private key that signs our assertions (RFC 7523).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientKey {
    /// PEM file: RSA, P-256, P-384 (PKCS#8) or Ed25519.
    pub file: PathBuf,
    /// `kid` of the assertions, where the provider wants one.
    pub kid: Option<String>,
    /// Their `alg`; without it what is usual for the key: RS256, ES256, ES384, EdDSA.
    pub alg: Option<Algorithm>,
}

/// A certificate and its key, PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// The certificate, and those between it and the authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Form of a provider's answers about tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResponseForm {
    /// RFC 7662
    #[default]
    Json,
    /// Signed, RFC 9701
    Jwt,
}

/// `[cache]`: what is remembered of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheSettings {
    /// Memory for verified tokens.
    pub tokens: Size,
    /// Memory for refused ones.
    pub negative: Size,
    /// Longest use of an introspection answer; never past `exp`.
    pub introspection_ttl: Span,
    /// Longest use of a definite "no".
    pub negative_ttl: Span,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            tokens: Size(64 << 20),
            negative: Size(4 << 20),
            introspection_ttl: Span::seconds(60),
            negative_ttl: Span::seconds(5),
        }
    }
}

fn yes() -> bool {
    true
}

fn all_algorithms() -> Vec<Algorithm> {
    Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_symmetric()).collect()
}

fn consumer_key_claims() -> ClaimNames {
    ClaimNames::Many(vec!["client_id".into(), "azp".into(), "consumerKey".into()])
}

fn scope_claims() -> ClaimNames {
    ClaimNames::Many(vec!["scope".into(), "scp".into()])
}

fn two_seconds() -> Span {
    Span::seconds(2)
}

fn ten_seconds() -> Span {
    Span::seconds(10)
}

fn thirty_seconds() -> Span {
    Span::seconds(30)
}

fn five_minutes() -> Span {
    Span::seconds(300)
}

fn one_hour() -> Span {
    Span::seconds(3600)
}

fn one_day() -> Span {
    Span::seconds(86_400)
}

fn thirty_days() -> Span {
    Span::seconds(30 * 86_400)
}

fn sixty_four() -> u32 {
    64
}
