//! Clients that the configuration does not have: registered by themselves (`registration`), or made by the Key
//! Manager (`manage`). One kind of row for both, and one beside it of what proves them.
//!
//! Of secrets and registration access tokens only digests are kept: they are told once, when they are made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    random::{self, Digest},
    state::{Hash, State},
};
use crate::store::record::{self, Table};

/// The grants of this provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum GrantType {
    ClientCredentials,
    Password,
    RefreshToken,
}

/// A client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Client {
    pub(super) client_id: String,
    pub(super) client_id_issued_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client_name: Option<String>,
    pub(super) grant_types: Vec<GrantType>,
    pub(super) response_types: Vec<String>,
    pub(super) redirect_uris: Vec<String>,
    pub(super) token_endpoint_auth_method: String,
    pub(super) scope: String,
    /// What the API platform says of it; not told to the client itself.
    #[serde(default)]
    pub(super) platform: Platform,
}

/// What an API platform says of a client.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Platform {
    /// Whether the Key Manager has decided on it: its scopes are then not bounded by `registration_scopes`.
    pub(super) managed: bool,
    /// Whether it may ask for any scope that is registered.
    pub(super) any_scope: bool,
    pub(super) owner: Option<String>,
    pub(super) application_uuid: Option<String>,
    pub(super) token_type: Option<String>,
    pub(super) saas: bool,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) parameters: Map<String, Value>,
    pub(super) lifetimes: Lifetimes,
}

/// How long tokens of a client live, in seconds, where that is less than the provider's own lifetimes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetimes {
    /// Access tokens of its own.
    pub application: Option<u64>,
    /// Access tokens of users.
    pub user: Option<u64>,
    /// Refresh tokens.
    pub refresh: Option<u64>,
}

/// What proves a client, apart from it: read first, and alike for every client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Proof {
    /// The one secret of a row from before there were several; else nothing.
    secret: Hash,
    /// Nothing: it was not registered by itself.
    registration: Hash,
    #[serde(default)]
    secrets: Vec<ClientSecret>,
}

/// One secret of a client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ClientSecret {
    pub(super) id: String,
    pub(super) hash: Hash,
    pub(super) description: Option<String>,
    /// Second from which on it is void; 0: never.
    pub(super) expires_at: u64,
}

impl ClientSecret {
    fn is_good(&self, now: u64) -> bool {
        self.expires_at == 0 || now < self.expires_at
    }
}

impl Proof {
    /// Of a client with these secrets, and the digest of a registration access token if it has one.
    pub(super) fn new(secrets: Vec<ClientSecret>, registration: Option<&Digest>) -> Self {
        let registration = registration.map_or_else(|| Hash(String::new()), Hash::from);
        Self { secret: Hash(String::new()), registration, secrets }
    }

    /// Its secrets, expired ones too.
    pub(super) fn secrets(&self) -> Vec<ClientSecret> {
        if self.secrets.is_empty() && !self.secret.0.is_empty() {
            let hash = self.secret.clone();
            return vec![ClientSecret { id: FIRST.into(), hash, description: None, expires_at: 0 }];
        }
        self.secrets.clone()
    }

    /// The same with other secrets.
    pub(super) fn with(self, secrets: Vec<ClientSecret>) -> Self {
        Self { secret: Hash(String::new()), secrets, ..self }
    }

    /// Whether one of the secrets has this digest. As much is compared for however many there are.
    fn has(&self, brought: &Digest, now: u64) -> bool {
        let secrets = self.secrets();
        (0..MOST_SECRETS).fold(false, |found, at| {
            let secret = secrets.get(at).filter(|secret| secret.is_good(now));
            is(brought, secret.map(|secret| &secret.hash)) | found
        })
    }
}

/// Nothing is never the same.
fn is(brought: &Digest, known: Option<&Hash>) -> bool {
    let known = known.and_then(Hash::digest);
    random::same(brought, &known.unwrap_or_default()) & known.is_some()
}

impl State {
    /// The client whose secret this is, if that has not expired.
    pub(super) fn authenticate(&self, id: &str, secret: &str, now: u64) -> Result<Option<Client>, record::Error> {
        let brought = random::digest(secret);
        self.proven(id, |proof| proof.has(&brought, now))
    }

    /// The client whose registration access token this is.
    pub(super) fn registered(&self, id: &str, token: &str) -> Result<Option<Client>, record::Error> {
        let brought = random::digest(token);
        self.proven(id, |proof| is(&brought, Some(&proof.registration)))
    }

    /// The client, if its proof is right. As much is compared where there is no such client.
    fn proven(&self, id: &str, right: impl Fn(&Proof) -> bool) -> Result<Option<Client>, record::Error> {
        let (view, key) = (self.record.view()?, self.key(id));
        let proof = view.get(&PROOFS, &key)?;
        let known = proof.is_some();
        let right = right(&proof.unwrap_or_else(|| Proof::new(Vec::new(), None)));
        if right && known { view.get(&CLIENTS, &key) } else { Ok(None) }
    }
}

impl Client {
    /// Scopes that it has registered for.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope.split(' ').filter(|scope| !scope.is_empty())
    }
}

impl GrantType {
    /// The grant of that name.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "client_credentials" => Some(Self::ClientCredentials),
            "password" => Some(Self::Password),
            "refresh_token" => Some(Self::RefreshToken),
            _ => None,
        }
    }

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::Password => "password",
            Self::RefreshToken => "refresh_token",
        }
    }
}

pub(super) const CLIENTS: Table<Client> = Table::new("provider.clients");
pub(super) const PROOFS: Table<Proof> = Table::new("provider.proofs");

/// Secrets of one client.
pub(super) const MOST_SECRETS: usize = 8;
/// Id of a secret from before they had any.
const FIRST: &str = "first";
