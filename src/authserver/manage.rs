//! What the Key Manager does to clients: makes, changes, reads and removes them. Plain calls, without a socket.
//!
//! A client of the configuration can be read, and is changed in its file alone. One that registered itself can be
//! changed here like any other. What was void when a call returned is void at every door.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{
    Provider, Refused,
    clients::{CLIENTS, Client, GrantType, Lifetimes, PROOFS, Platform, Proof},
    random,
    registration::{MOST_NAME, MOST_URI, MOST_URIS, is_redirect_uri},
    rows::{REVOKED, What},
    scopes::{check_scopes, is_registered},
    secrets::NewSecret,
    terms::Terms,
};
use crate::store::record::{self, Changes};

/// Why the provider has not done it. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field is wrong.
    #[error("{field}: {why}")]
    Invalid {
        /// Its path in the Key Manager's models.
        field: &'static str,
        /// What is wrong, and what is allowed.
        why: Cow<'static, str>,
    },
    /// There is no such thing.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// It is not to be changed here, or not now.
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    /// What a field names is there already, or is not there and has to be.
    #[error("{field}: {why}")]
    Clash {
        /// Its path in the Key Manager's models.
        field: &'static str,
        /// What stands against it.
        why: Cow<'static, str>,
    },
    /// There is no room for another.
    #[error("{0}")]
    Full(&'static str),
    /// The endpoint of the protocol would refuse it.
    #[error("{error}: {why}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// `error` of RFC 6749.
        error: &'static str,
        /// `error_description`
        why: &'static str,
    },
    /// The record cannot be used now.
    #[error("the embedded provider cannot use its record now")]
    Unavailable,
}

pub(super) type Result<T> = std::result::Result<T, Error>;

/// What a client is to be, or is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientSpec {
    /// Name, as people read it.
    pub name: Option<String>,
    /// Redirect URIs.
    pub redirect_uris: Vec<String>,
    /// Its grants; none: client_credentials.
    pub grant_types: Vec<String>,
    /// How it proves itself; none: `client_secret_basic`.
    pub auth_method: Option<String>,
    /// Scopes it may ask for; none: those of `registration_scopes`, and any registered one that it asks for.
    pub scopes: Option<Vec<String>>,
    /// Who owns it; none, in a change: who did before.
    pub owner: Option<String>,
    /// The application of the platform that it is for.
    pub application_uuid: Option<String>,
    /// WSO2's `JWT`, `DEFAULT` or `OAUTH`.
    pub token_type: Option<String>,
    /// Whether all organizations may use it.
    pub saas: bool,
    /// Attributes of the platform's application.
    pub attributes: BTreeMap<String, String>,
    /// What else the platform wants kept.
    pub parameters: Map<String, Value>,
    /// How long its tokens live.
    pub lifetimes: Lifetimes,
}

/// A client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// Its id.
    pub id: String,
    /// Whether the configuration has it, so that it is not to be changed here.
    pub declared: bool,
    /// What it is.
    pub spec: ClientSpec,
}

impl Provider {
    /// Makes a client, with this id where one is given, and tells its secret.
    pub async fn create_client(
        &self,
        spec: ClientSpec,
        id: Option<&str>,
        secret: NewSecret,
    ) -> Result<(ClientInfo, Zeroizing<String>)> {
        let (state, terms, now) = (self.state()?, self.terms.load_full(), self.clock.now().unix());
        let id = match id {
            Some(id) => self.preset_id(&terms, id)?,
            None => random::id().map_err(Refused::from)?,
        };
        let (only, secret) = secret.made(now)?;
        let client = self.client_of(spec, &terms, id, now)?;
        let (proof, told) = (Proof::new(vec![only], None), client.told());
        let (key, most) = (state.key(&client.client_id), state.limits.clients);
        let revocation = state.key(["c", &client.client_id].concat());
        let change = move |changes: &Changes<'_>| {
            if changes.get(&CLIENTS, &key)?.is_some() {
                return Ok(Err(Error::clash("clientId", "there is a client of that id")));
            }
            // Until then its tokens would be taken for those of the one before it.
            let of_before = changes.get(&REVOKED, &revocation)?.map(|row| row.what);
            if matches!(of_before, Some(What::Client { before, .. }) if now <= before) {
                return Ok(Err(Error::clash("clientId", "the client of that id went a moment ago: try again in 3 s")));
            }
            if changes.len(&CLIENTS)? >= most {
                return Ok(Err(Error::Full("too many clients are registered")));
            }
            changes.put(&PROOFS, &key, &proof)?;
            changes.put(&CLIENTS, &key, &client)?;
            Ok(Ok(()))
        };
        state.record.change(change).await??;
        Ok((told, secret))
    }

    /// Puts this in place of what a client was, but for its secrets.
    pub async fn update_client(&self, id: &str, spec: ClientSpec) -> Result<ClientInfo> {
        let (terms, now) = (self.terms.load_full(), self.clock.now().unix());
        self.assert_changeable(&terms, id)?;
        let client = self.client_of(spec, &terms, id.to_owned(), now)?;
        self.change_client(id, move |before| {
            let mut next = client.clone();
            next.client_id_issued_at = before.client_id_issued_at;
            next.platform.owner = next.platform.owner.or(before.platform.owner);
            next
        })
        .await
    }

    /// Gives a client another owner.
    pub async fn change_owner(&self, id: &str, owner: &str) -> Result<ClientInfo> {
        self.assert_changeable(&self.terms.load(), id)?;
        check_text("owner", Some(owner))?;
        let owner = owner.to_owned();
        self.change_client(id, move |mut client| {
            client.platform.owner = Some(owner.clone());
            client
        })
        .await
    }

    /// One commit.
    async fn change_client(
        &self,
        id: &str,
        mut next: impl FnMut(Client) -> Client + Send + 'static,
    ) -> Result<ClientInfo> {
        let state = self.state()?;
        let key = state.key(id);
        let change = move |changes: &Changes<'_>| {
            let Some(before) = changes.get(&CLIENTS, &key)? else { return Ok(None) };
            let client = next(before);
            changes.put(&CLIENTS, &key, &client)?;
            Ok(Some(client.told()))
        };
        state.record.change(change).await?.ok_or(NO_CLIENT)
    }

    /// The client of that id.
    pub fn client(&self, id: &str) -> Result<ClientInfo> {
        let terms = self.terms.load();
        if let Some(client) = terms.client(id) {
            let grants = ["client_credentials", "refresh_token"].into_iter();
            let grants = grants.chain(terms.has_users().then_some("password"));
            let spec = ClientSpec {
                name: Some(id.to_owned()),
                grant_types: grants.map(str::to_owned).collect(),
                scopes: Some(client.scopes.iter().map(|scope| scope.to_string()).collect()),
                ..ClientSpec::default()
            };
            return Ok(ClientInfo { id: id.to_owned(), declared: true, spec });
        }
        Ok(self.recorded(id)?.told())
    }

    /// Removes a client; what was issued to it is revoked.
    pub async fn delete_client(&self, id: &str) -> Result<()> {
        self.assert_changeable(&self.terms.load(), id)?;
        self.remove_client(id).await?.then_some(()).ok_or(NO_CLIENT)
    }

    pub(super) fn recorded(&self, id: &str) -> Result<Arc<Client>> {
        let state = self.state()?;
        state.clients.get(&state.record, &state.key(id))?.ok_or(NO_CLIENT)
    }

    /// Clients of the configuration are changed there.
    pub(super) fn assert_changeable(&self, terms: &Terms, id: &str) -> Result<()> {
        match terms.has_client(id) {
            true => Err(Error::Conflict("the client is declared in the file: change it there".into())),
            false => Ok(()),
        }
    }

    /// An id that somebody wishes for.
    fn preset_id(&self, terms: &Terms, id: &str) -> Result<String> {
        if id.is_empty() || id.len() > MOST_NAME || id.trim() != id || id.chars().any(char::is_control) {
            let why = "must be 1 to 200 bytes without control characters, and not begin or end with a space";
            return Err(Error::invalid("clientId", why));
        }
        if terms.has_client(id) {
            return Err(Error::clash("clientId", "a client of that id is declared in the file"));
        }
        if terms.user(id).is_some() {
            return Err(Error::clash("clientId", "a user has that name, and so their tokens would be alike"));
        }
        Ok(id.to_owned())
    }

    /// The client that this describes, if it can be one here.
    fn client_of(&self, spec: ClientSpec, terms: &Terms, client_id: String, now: u64) -> Result<Client> {
        spec.check(terms)?;
        if let Some(scopes) = &spec.scopes {
            let state = self.state()?;
            let view = state.record.view()?;
            for scope in scopes.iter().filter(|scope| !terms.registration_scopes.iter().any(|own| **own == ***scope)) {
                if !is_registered(&view, &state.key(scope))? {
                    return Err(Error::invalid("parameters.scope", format!("not registered: {scope}")));
                }
            }
        }
        let grant_types = match spec.grant_types.is_empty() {
            true => vec![GrantType::ClientCredentials],
            false => spec.grant_types.iter().filter_map(|name| GrantType::of(name)).collect(),
        };
        Ok(Client {
            client_id,
            client_id_issued_at: now,
            client_name: spec.name,
            grant_types,
            response_types: Vec::new(),
            redirect_uris: spec.redirect_uris,
            token_endpoint_auth_method: spec.auth_method.unwrap_or_else(|| "client_secret_basic".to_owned()),
            platform: Platform {
                managed: true,
                any_scope: spec.scopes.is_none(),
                owner: spec.owner,
                application_uuid: spec.application_uuid,
                token_type: spec.token_type,
                saas: spec.saas,
                attributes: spec.attributes,
                parameters: spec.parameters,
                lifetimes: spec.lifetimes,
            },
            scope: spec.scopes.map_or_else(|| terms.registration_scopes.join(" "), |scopes| scopes.join(" ")),
        })
    }
}

impl Client {
    /// What is told of it to the platform.
    fn told(&self) -> ClientInfo {
        let platform = &self.platform;
        let scopes = (!platform.any_scope).then(|| self.scopes().map(str::to_owned).collect());
        let spec = ClientSpec {
            name: self.client_name.clone(),
            redirect_uris: self.redirect_uris.clone(),
            grant_types: self.grant_types.iter().map(|grant| grant.name().to_owned()).collect(),
            auth_method: Some(self.token_endpoint_auth_method.clone()),
            scopes,
            owner: platform.owner.clone(),
            application_uuid: platform.application_uuid.clone(),
            token_type: platform.token_type.clone(),
            saas: platform.saas,
            attributes: platform.attributes.clone(),
            parameters: platform.parameters.clone(),
            lifetimes: platform.lifetimes,
        };
        ClientInfo { id: self.client_id.clone(), declared: false, spec }
    }
}

impl ClientSpec {
    fn check(&self, terms: &Terms) -> Result<()> {
        check_text("clientName", self.name.as_deref())?;
        check_text("appOwner", self.owner.as_deref())?;
        check_text("applicationUUID", self.application_uuid.as_deref())?;
        let method = self.auth_method.as_deref().unwrap_or("client_secret_basic");
        if !matches!(method, "client_secret_basic" | "client_secret_post") {
            let why = "must be client_secret_basic or client_secret_post";
            return Err(Error::invalid("parameters.token_endpoint_auth_method", why));
        }
        if self.grant_types.iter().any(|name| GrantType::of(name).is_none()) {
            let why = "must be of client_credentials, password and refresh_token: the provider has no other grants";
            return Err(Error::invalid("parameters.grant_types", why));
        }
        if self.redirect_uris.len() > MOST_URIS || !self.redirect_uris.iter().all(|uri| is_redirect_uri(uri)) {
            let why =
                format!("must be at most {MOST_URIS} absolute URIs of at most {MOST_URI} bytes, without a fragment");
            return Err(Error::invalid("callBackURL", why));
        }
        if self.attributes.len() > MOST_ATTRIBUTES {
            return Err(Error::invalid("appAttributes", format!("must be at most {MOST_ATTRIBUTES}")));
        }
        let size = serde_json::to_vec(&(&self.parameters, &self.attributes)).map_or(usize::MAX, |text| text.len());
        if size > MOST_KEPT {
            let why = format!("must, with appAttributes, be at most {MOST_KEPT} bytes of JSON");
            return Err(Error::invalid("parameters", why));
        }
        self.lifetimes.check(terms)?;
        self.scopes.as_deref().map_or(Ok(()), |scopes| check_scopes("parameters.scope", scopes))
    }
}

impl Lifetimes {
    fn check(&self, terms: &Terms) -> Result<()> {
        for (field, seconds, most) in [
            ("parameters.additionalProperties.application_access_token_expiry_time", self.application, terms.lifetime),
            ("parameters.additionalProperties.user_access_token_expiry_time", self.user, terms.lifetime),
            ("parameters.additionalProperties.refresh_token_expiry_time", self.refresh, terms.refresh_lifetime),
        ] {
            if seconds.is_some_and(|seconds| seconds == 0 || seconds > most) {
                let why = format!("must be 1 to {most} seconds, as long as the provider's own tokens live");
                return Err(Error::invalid(field, why));
            }
        }
        Ok(())
    }
}

pub(super) fn check_text(field: &'static str, text: Option<&str>) -> Result<()> {
    match text {
        Some(text) if text.len() > MOST_NAME || text.chars().any(char::is_control) => {
            Err(Error::invalid(field, format!("must be at most {MOST_NAME} bytes without control characters")))
        }
        _ => Ok(()),
    }
}

impl Error {
    pub(super) fn invalid(field: &'static str, why: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid { field, why: why.into() }
    }

    pub(super) fn clash(field: &'static str, why: impl Into<Cow<'static, str>>) -> Self {
        Self::Clash { field, why: why.into() }
    }
}

impl From<record::Error> for Error {
    fn from(error: record::Error) -> Self {
        Refused::from(error).into()
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unavailable => Self::Unavailable,
            Refused::Full(why) => Self::Full(why),
            refused => {
                let (status, error, why) = refused.parts();
                Self::Refused { status: status.as_u16(), error, why }
            }
        }
    }
}

pub(super) const NO_CLIENT: Error = Error::NotFound("client");

const MOST_ATTRIBUTES: usize = 100;
const MOST_KEPT: usize = 16 << 10;
