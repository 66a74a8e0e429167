//! A key manager in memory, whose provider can be made to fail.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    AccessTokenInfo, AccessTokenRequest, ApiResource, Error, KeyManager, Managed, OAuthApplicationInfo, Operation,
    Origin, Rehearsal, Result, Scope, Sensitive,
};

/// It keeps what it is told.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) clients: Mutex<BTreeMap<String, OAuthApplicationInfo>>,
    pub(crate) scopes: Mutex<BTreeMap<String, Scope>>,
    pub(crate) resources: Mutex<BTreeMap<String, ApiResource>>,
    pub(crate) revoked: Mutex<Vec<String>>,
    /// Whose each token is.
    pub(crate) owners: Mutex<BTreeMap<String, String>>,
    /// What issuing fails with, once all is known to be good.
    pub(crate) issuing: Mutex<Option<Error>>,
    /// What everything fails with, until it is taken away.
    pub(crate) mood: Mutex<Option<Error>>,
    /// What a removal of a client fails with.
    pub(crate) holding: Mutex<Option<Error>>,
    /// The id of a client for which nobody wishes for one; where it has that client it gives it again (RFC 7591 section 3).
    pub(crate) own_id: Mutex<Option<String>>,
    /// How often it was asked for anything.
    pub(crate) asked: AtomicUsize,
    /// What it has no way to do.
    pub(crate) cannot: Mutex<Vec<Operation>>,
}

impl Memory {
    /// It in the registry, under `name`.
    pub(crate) fn managed(self: &Arc<Self>, name: &str, more: &str) -> Managed {
        let text = format!("name = '{name}'\nconnector = 'oidc'\nissuer = 'https://{name}.example'\n{more}");
        Managed { settings: toml::from_str(&text).unwrap(), connector: Arc::clone(self) as _, origin: Origin::Declared }
    }

    fn put_resource(&self, resource: &ApiResource) -> ApiResource {
        self.resources.lock().insert(resource.api_id.clone(), resource.clone());
        resource.clone()
    }

    fn may(&self) -> Result<()> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.mood.lock().clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl KeyManager for Memory {
    fn connector(&self) -> &'static str {
        "memory"
    }

    fn cannot(&self, operation: Operation) -> Option<Cow<'static, str>> {
        let never = matches!(operation, Operation::RevokeOneTimeToken | Operation::UserClaims);
        (never || self.cannot.lock().contains(&operation)).then_some(Cow::Borrowed("a memory cannot"))
    }

    fn rehearsal(&self) -> Rehearsal {
        fn copy<T: Clone>(of: &Mutex<T>) -> Mutex<T> {
            Mutex::new(of.lock().clone())
        }
        Rehearsal::At(Arc::new(Self {
            clients: copy(&self.clients),
            scopes: copy(&self.scopes),
            resources: copy(&self.resources),
            revoked: copy(&self.revoked),
            owners: copy(&self.owners),
            issuing: copy(&self.issuing),
            mood: copy(&self.mood),
            holding: copy(&self.holding),
            own_id: copy(&self.own_id),
            asked: AtomicUsize::default(),
            cannot: copy(&self.cannot),
        }))
    }

    async fn create_application(&self, app: &OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
        self.may()?;
        let mut clients = self.clients.lock();
        let given = || self.own_id.lock().clone().unwrap_or_else(|| format!("client-{}", clients.len()));
        let id = app.client_id.clone().unwrap_or_else(given);
        if let Some(there) = clients.get(&id) {
            return if app.client_id.is_none() {
                Ok(there.clone())
            } else {
                Err(Error::Conflict("it is there".into()))
            };
        }
        let made = OAuthApplicationInfo {
            client_id: Some(id.clone()),
            client_secret: Some(format!("s3cret-of-{id}").into()),
            ..app.clone()
        };
        clients.insert(id, made.clone());
        Ok(made)
    }

    async fn update_application(&self, key: &str, app: &OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
        self.may()?;
        let mut clients = self.clients.lock();
        let known = clients.get_mut(key).ok_or(Error::NotFound("client"))?;
        *known = OAuthApplicationInfo {
            client_id: known.client_id.clone(),
            client_secret: known.client_secret.clone(),
            ..app.clone()
        };
        Ok(known.clone())
    }

    async fn retrieve_application(&self, key: &str) -> Result<OAuthApplicationInfo> {
        self.may()?;
        self.clients.lock().get(key).cloned().ok_or(Error::NotFound("client"))
    }

    async fn delete_application(&self, key: &str) -> Result<()> {
        self.may()?;
        self.holding.lock().clone().map_or(Ok(()), Err)?;
        self.clients.lock().remove(key).map(drop).ok_or(Error::NotFound("client"))
    }

    async fn update_application_owner(&self, key: &str, owner: &str) -> Result<OAuthApplicationInfo> {
        self.may()?;
        let mut clients = self.clients.lock();
        let known = clients.get_mut(key).ok_or(Error::NotFound("client"))?;
        known.app_owner = Some(owner.to_owned());
        Ok(known.clone())
    }

    async fn map_application(&self, key: &str, secret: Option<&Sensitive>) -> Result<OAuthApplicationInfo> {
        let found = self.retrieve_application(key).await?;
        match (secret, &found.client_secret) {
            (Some(given), Some(own)) if given != own => Err(Error::invalid("clientSecret", "is not the client's")),
            _ => Ok(found),
        }
    }

    async fn new_access_token(&self, request: &AccessTokenRequest) -> Result<AccessTokenInfo> {
        let id = request.client_id.clone().unwrap_or_default();
        let own = self.retrieve_application(&id).await?.client_secret;
        if request.client_secret.is_some() && request.client_secret != own {
            return Err(Error::invalid("clientSecret", "is not the client's"));
        }
        self.revoked.lock().extend(request.token_to_revoke.iter().map(|token| token.reveal().to_owned()));
        self.issuing.lock().clone().map_or(Ok(()), Err)?;
        Ok(AccessTokenInfo {
            is_token_valid: true,
            access_token: Some(format!("token-of-{id}").into()),
            scope: request.scope.clone(),
            ..AccessTokenInfo::default()
        })
    }

    async fn token_meta_data(&self, token: &Sensitive) -> Result<AccessTokenInfo> {
        self.may()?;
        let is_token_valid = !self.revoked.lock().iter().any(|revoked| revoked == token.reveal());
        let consumer_key = self.owners.lock().get(token.reveal()).cloned();
        Ok(AccessTokenInfo { is_token_valid, consumer_key, ..AccessTokenInfo::default() })
    }

    async fn new_secret(&self, key: &str) -> Result<Sensitive> {
        self.may()?;
        let mut clients = self.clients.lock();
        let known = clients.get_mut(key).ok_or(Error::NotFound("client"))?;
        let secret = Sensitive::from("n3w-s3cret");
        known.client_secret = Some(secret.clone());
        Ok(secret)
    }

    async fn revoke_token(&self, token: &Sensitive) -> Result<()> {
        self.may()?;
        self.revoked.lock().push(token.reveal().to_owned());
        Ok(())
    }

    async fn register_resource(&self, resource: &ApiResource) -> Result<ApiResource> {
        self.may()?;
        if self.resources.lock().contains_key(&resource.api_id) {
            return Err(Error::conflict("apiId", "the resource is there"));
        }
        Ok(self.put_resource(resource))
    }

    async fn resource(&self, api_id: &str) -> Result<ApiResource> {
        self.may()?;
        self.resources.lock().get(api_id).cloned().ok_or(Error::NotFound("resource"))
    }

    async fn update_resource(&self, resource: &ApiResource) -> Result<ApiResource> {
        self.resource(&resource.api_id).await?;
        Ok(self.put_resource(resource))
    }

    async fn delete_resource(&self, api_id: &str) -> Result<()> {
        self.may()?;
        self.resources.lock().remove(api_id).map(drop).ok_or(Error::NotFound("resource"))
    }

    async fn register_scope(&self, scope: &Scope) -> Result<Scope> {
        self.may()?;
        let mut scopes = self.scopes.lock();
        if scopes.contains_key(&scope.key) {
            return Err(Error::conflict("key", "the scope is there"));
        }
        scopes.insert(scope.key.clone(), scope.clone());
        Ok(scope.clone())
    }

    async fn scope(&self, key: &str) -> Result<Scope> {
        self.may()?;
        self.scopes.lock().get(key).cloned().ok_or(Error::NotFound("scope"))
    }

    async fn scopes(&self) -> Result<Vec<Scope>> {
        self.may()?;
        Ok(self.scopes.lock().values().cloned().collect())
    }

    async fn update_scope(&self, scope: &Scope) -> Result<Scope> {
        self.scope(&scope.key).await?;
        self.scopes.lock().insert(scope.key.clone(), scope.clone());
        Ok(scope.clone())
    }

    async fn delete_scope(&self, key: &str) -> Result<()> {
        self.may()?;
        self.scopes.lock().remove(key).map(drop).ok_or(Error::NotFound("scope"))
    }

    async fn attach_scopes(&self, api_id: &str, keys: &[String]) -> Result<ApiResource> {
        let mut resource = self.resource(api_id).await?;
        resource.scopes.extend(keys.iter().cloned());
        Ok(self.put_resource(&resource))
    }

    async fn replace_scopes(&self, api_id: &str, keys: &[String]) -> Result<ApiResource> {
        let resource = ApiResource { scopes: keys.to_vec(), ..self.resource(api_id).await? };
        Ok(self.put_resource(&resource))
    }

    async fn detach_scopes(&self, api_id: &str, keys: &[String]) -> Result<()> {
        let mut resource = self.resource(api_id).await?;
        resource.scopes.retain(|scope| !keys.is_empty() && !keys.contains(scope));
        self.put_resource(&resource);
        Ok(())
    }
}
