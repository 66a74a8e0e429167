//! Scopes that the Key Manager registered, the roles that some are bound to, and the APIs that they belong to.
//!
//! A scope that is bound to roles goes to users whose `roles` claim has one of them, and to nobody else: no client has
//! it for itself. A scope that is bound to none goes to whom the configuration says.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Provider, Refused,
    manage::{Error, Result},
    request::Caller,
    terms::{Terms, User, is_scope_token},
};
use crate::store::record::{self, Changes, Table, View};

/// A scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeInfo {
    /// As it stands in tokens.
    pub key: String,
    /// As people read it.
    pub name: Option<String>,
    /// Roles whose users may have it; none: it is not bound to roles.
    pub roles: Vec<String>,
    /// What it allows.
    pub description: Option<String>,
}

/// What is registered of an API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceInfo {
    /// The API's id on the platform.
    pub api_id: String,
    /// As people read it.
    pub name: Option<String>,
    /// Where it is.
    pub uris: Vec<String>,
    /// Keys of the scopes bound to it.
    pub scopes: Vec<String>,
}

/// What becomes of an API's scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// These too.
    Attach,
    /// These instead.
    Replace,
    /// Not these; none named: none at all.
    Detach,
}

impl Provider {
    /// Registers a scope.
    pub async fn register_scope(&self, scope: ScopeInfo) -> Result<()> {
        self.put_scope(scope, true).await
    }

    /// Puts a scope in place of the one of that key.
    pub async fn update_scope(&self, scope: ScopeInfo) -> Result<()> {
        self.put_scope(scope, false).await
    }

    async fn put_scope(&self, scope: ScopeInfo, new: bool) -> Result<()> {
        scope.check()?;
        let state = self.state()?;
        let (key, most) = (state.key(&scope.key), state.limits.clients);
        let change = move |changes: &Changes<'_>| {
            let outcome = match (changes.get(&SCOPES, &key)?.is_some(), new) {
                (true, true) => Err(Error::clash("key", "the scope is registered already")),
                (false, false) => Err(Error::NotFound("scope")),
                (false, true) if changes.len(&SCOPES)? >= most => Err(Error::Full("too many scopes are registered")),
                _ => Ok(changes.put(&SCOPES, &key, &scope)?),
            };
            Ok(outcome)
        };
        state.record.change(change).await?
    }

    /// Removes a scope, from the APIs that it is bound to too.
    pub async fn delete_scope(&self, key: &str) -> Result<()> {
        let state = self.state()?;
        let (row, prefix, name) = (state.key(key), state.key(""), key.to_owned());
        let change = move |changes: &Changes<'_>| {
            if !changes.remove(&SCOPES, &row)? {
                return Ok(false);
            }
            for (at, mut resource) in changes.rows(&RESOURCES, &prefix, usize::MAX)? {
                if resource.scopes.contains(&name) {
                    resource.scopes.retain(|bound| *bound != name);
                    changes.put(&RESOURCES, &at, &resource)?;
                }
            }
            Ok(true)
        };
        state.record.change(change).await?.then_some(()).ok_or(Error::NotFound("scope"))
    }

    /// The scope of that key.
    pub fn scope(&self, key: &str) -> Result<ScopeInfo> {
        let state = self.state()?;
        state.record.get(&SCOPES, &state.key(key))?.ok_or(Error::NotFound("scope"))
    }

    /// All scopes, by key.
    pub fn scopes(&self) -> Result<Vec<ScopeInfo>> {
        let state = self.state()?;
        let rows = state.record.view()?.rows(&SCOPES, &state.key(""), usize::MAX)?;
        Ok(rows.into_iter().map(|(_, scope)| scope).collect())
    }

    /// Registers what there is of an API.
    pub async fn register_resource(&self, resource: ResourceInfo) -> Result<()> {
        self.put_resource(resource, true).await
    }

    /// Puts this in place of what is registered of the API.
    pub async fn update_resource(&self, resource: ResourceInfo) -> Result<()> {
        self.put_resource(resource, false).await
    }

    async fn put_resource(&self, resource: ResourceInfo, new: bool) -> Result<()> {
        resource.check()?;
        let state = self.state()?;
        let (key, most, rows) = (state.key(&resource.api_id), state.limits.clients, state.rows());
        let change = move |changes: &Changes<'_>| {
            let lacking = lacking(&resource.scopes, |scope| changes.get(&SCOPES, &rows.key(scope)))?;
            let outcome = match (changes.get(&RESOURCES, &key)?.is_some(), new) {
                (true, true) => Err(Error::clash("apiId", "the API is registered already")),
                (false, false) => Err(Error::NotFound("API")),
                _ if lacking.is_some() => Err(not_registered(lacking)),
                (false, true) if changes.len(&RESOURCES)? >= most => Err(Error::Full("too many APIs are registered")),
                _ => Ok(changes.put(&RESOURCES, &key, &resource)?),
            };
            Ok(outcome)
        };
        state.record.change(change).await?
    }

    /// What is registered of an API.
    pub fn resource(&self, api_id: &str) -> Result<ResourceInfo> {
        let state = self.state()?;
        state.record.get(&RESOURCES, &state.key(api_id))?.ok_or(Error::NotFound("API"))
    }

    /// Removes what is registered of an API.
    pub async fn delete_resource(&self, api_id: &str) -> Result<()> {
        let state = self.state()?;
        let key = state.key(api_id);
        let removed = state.record.change(move |changes| changes.remove(&RESOURCES, &key)).await?;
        removed.then_some(()).ok_or(Error::NotFound("API"))
    }

    /// Binds scopes to an API, or unbinds them.
    pub async fn bind_scopes(&self, api_id: &str, scopes: &[String], how: Bind) -> Result<ResourceInfo> {
        check_scopes("scopes", scopes)?;
        let state = self.state()?;
        let (key, rows, scopes) = (state.key(api_id), state.rows(), scopes.to_vec());
        let change = move |changes: &Changes<'_>| {
            let Some(mut resource) = changes.get(&RESOURCES, &key)? else { return Ok(Err(Error::NotFound("API"))) };
            let lacking = match how {
                Bind::Detach => None,
                _ => lacking(&scopes, |scope| changes.get(&SCOPES, &rows.key(scope)))?,
            };
            if lacking.is_some() {
                return Ok(Err(not_registered(lacking)));
            }
            match how {
                Bind::Detach if scopes.is_empty() => resource.scopes.clear(),
                Bind::Detach => resource.scopes.retain(|bound| !scopes.contains(bound)),
                Bind::Replace => resource.scopes = distinct(&[], &scopes),
                Bind::Attach => resource.scopes = distinct(&resource.scopes, &scopes),
            }
            if resource.scopes.len() > MOST_SCOPES {
                return Ok(Err(Error::invalid("scopes", TOO_MANY)));
            }
            changes.put(&RESOURCES, &key, &resource)?;
            Ok(Ok(resource))
        };
        state.record.change(change).await?
    }

    /// The scopes bound to an API, each whole; none: nothing is registered of it.
    pub fn scopes_of(&self, api_id: &str) -> Result<Option<Vec<ScopeInfo>>> {
        let state = self.state()?;
        let view = state.record.view()?;
        let Some(resource) = view.get(&RESOURCES, &state.key(api_id))? else { return Ok(None) };
        let scopes = resource.scopes.iter().filter_map(|scope| view.get(&SCOPES, &state.key(scope)).transpose());
        Ok(Some(scopes.collect::<std::result::Result<_, _>>()?))
    }

    /// Which scopes a token of this client may have: its own, or what it and the user both have. `asked` is what a
    /// client that may ask for any registered scope asks for.
    pub(super) fn may_have(
        &self,
        terms: &Terms,
        caller: &Caller,
        user: Option<&User>,
        asked: Option<&str>,
    ) -> std::result::Result<Vec<String>, Refused> {
        let state = self.state()?;
        let view = state.record.view()?;
        let registered = |scope: &str| -> std::result::Result<Option<ScopeInfo>, record::Error> {
            view.get(&SCOPES, &state.key(scope))
        };
        let mut all = Vec::with_capacity(caller.scopes.len());
        for scope in &caller.scopes {
            let row = registered(scope)?;
            // One that the Key Manager gave goes with its registration.
            let known = row.is_some() || !caller.managed || terms.registration_scopes.contains(scope);
            if known && may(scope, row.as_ref(), user) {
                all.push(scope.to_string());
            }
        }
        for scope in asked.filter(|_| caller.any_scope).into_iter().flat_map(|asked| asked.split(' ')) {
            let Some(row) = registered(scope)? else { continue };
            if !all.iter().any(|known| known == scope) && may(scope, Some(&row), user) {
                all.push(scope.to_owned());
            }
        }
        Ok(all)
    }
}

/// Whether this may stand in a token: of the user, or of the client alone.
fn may(scope: &str, registered: Option<&ScopeInfo>, user: Option<&User>) -> bool {
    match (registered.map_or(&[][..], |row| &row.roles), user) {
        ([], None) => true,
        ([], Some(user)) => user.scopes.iter().any(|own| **own == *scope),
        (_, None) => false,
        (roles, Some(user)) => roles_of(user).any(|own| roles.iter().any(|role| role == own)),
    }
}

/// A list of texts, or one text of members parted by commas.
fn roles_of(user: &User) -> impl Iterator<Item = &str> {
    let claim = user.claims.get("roles");
    let list = claim.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let text = claim.and_then(Value::as_str).into_iter().flat_map(|text| text.split(',')).map(str::trim);
    list.chain(text)
}

/// Those of the scopes that are not registered, if any is not.
fn lacking(
    scopes: &[String],
    find: impl Fn(&str) -> std::result::Result<Option<ScopeInfo>, record::Error>,
) -> std::result::Result<Option<String>, record::Error> {
    let mut lacking = Vec::new();
    for scope in scopes {
        if find(scope)?.is_none() {
            lacking.push(scope.as_str());
        }
    }
    Ok((!lacking.is_empty()).then(|| lacking.join(", ")))
}

/// Whether this scope is registered.
pub(super) fn is_registered(view: &View, key: &[u8]) -> std::result::Result<bool, record::Error> {
    Ok(view.get(&SCOPES, key)?.is_some())
}

fn not_registered(scopes: Option<String>) -> Error {
    Error::clash("scopes", format!("not registered: {}", scopes.unwrap_or_default()))
}

/// The first ones and the others, each once.
fn distinct(first: &[String], others: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::with_capacity(first.len() + others.len());
    for scope in first.iter().chain(others) {
        if !all.contains(scope) {
            all.push(scope.clone());
        }
    }
    all
}

impl ScopeInfo {
    fn check(&self) -> Result<()> {
        if !is_scope_token(&self.key) || self.key.len() > MOST_KEY {
            return Err(Error::invalid("key", NO_SCOPE));
        }
        let bad = |text: &String| text.is_empty() || text.chars().count() > MOST_KEY || text.contains(',');
        if self.roles.len() > MOST_SCOPES || self.roles.iter().any(bad) {
            return Err(Error::invalid(
                "roles",
                "must be at most 200 roles of at most 255 characters, parted by commas",
            ));
        }
        Ok(())
    }
}

impl ResourceInfo {
    fn check(&self) -> Result<()> {
        if self.uris.len() > MOST_URIS || self.uris.iter().any(|uri| uri.is_empty() || uri.chars().count() > MOST_URI) {
            return Err(Error::invalid("uris", "must be at most 1000 URIs of 1 to 2048 characters"));
        }
        check_scopes("scopes", &self.scopes)
    }
}

/// Whether these can be scopes.
pub(super) fn check_scopes(field: &'static str, scopes: &[String]) -> Result<()> {
    if scopes.len() > MOST_SCOPES {
        return Err(Error::invalid(field, TOO_MANY));
    }
    match scopes.iter().all(|scope| is_scope_token(scope) && scope.len() <= MOST_KEY) {
        true => Ok(()),
        false => Err(Error::invalid(field, NO_SCOPE)),
    }
}

const SCOPES: Table<ScopeInfo> = Table::new("provider.scopes");
const RESOURCES: Table<ResourceInfo> = Table::new("provider.resources");

const MOST_KEY: usize = 255;
const MOST_SCOPES: usize = 200;
const MOST_URIS: usize = 1000;
const MOST_URI: usize = 2048;
const TOO_MANY: &str = "must be at most 200 scopes";
const NO_SCOPE: &str =
    "must be 1 to 255 visible ASCII characters without space, quote and backslash (RFC 6749 section 3.3)";
