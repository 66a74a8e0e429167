//! Operations on scopes, on what is registered of APIs, and on users' claims.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    ApiResource, Caller, Done, Engine, Error, Managed, Operation, Result, Scope, check,
    engine::{Asked, Effect},
    model::detach,
    rows::RowChange,
    told::was,
};

impl Engine {
    /// `registerScope`.
    pub async fn register_scope(&self, caller: &Caller, key_manager: &str, scope: Scope) -> Result<Done<Scope>> {
        let asked = Asked::new(caller, key_manager, Operation::RegisterScope, &scope.key).with(&scope);
        self.perform(asked, check::new_scope(&scope), |managed| async move {
            let made = managed.connector.register_scope(&scope).await?;
            Ok(Effect::of(made.clone()).after(&made))
        })
        .await
    }

    /// `getScopeByName`.
    pub async fn scope(&self, key_manager: &str, key: &str) -> Result<Scope> {
        let asked = Asked::new(&Caller::default(), key_manager, Operation::ScopeByName, key);
        self.perform(asked, check::scope_key("key", key), |managed| async move {
            managed.connector.scope(key).await.map(Effect::of)
        })
        .await?
        .did()
    }

    /// `getAllScopes`.
    pub async fn scopes(&self, key_manager: &str) -> Result<Vec<Scope>> {
        let asked = Asked::new(&Caller::default(), key_manager, Operation::AllScopes, "");
        self.perform(asked, Ok(()), |managed| async move { managed.connector.scopes().await.map(Effect::of) })
            .await?
            .did()
    }

    /// `isScopeExists`.
    pub async fn scope_exists(&self, key_manager: &str, key: &str) -> Result<bool> {
        let asked = Asked::new(&Caller::default(), key_manager, Operation::IsScopeExists, key);
        self.perform(asked, check::scope_key("key", key), |managed| async move {
            managed.connector.scope_exists(key).await.map(Effect::of)
        })
        .await?
        .did()
    }

    /// `updateScope`.
    pub async fn update_scope(
        &self,
        caller: &Caller,
        key_manager: &str,
        key: &str,
        mut scope: Scope,
    ) -> Result<Done<Scope>> {
        let same = scope.key.is_empty() || scope.key == key;
        scope.key = key.to_owned();
        let asked = Asked::new(caller, key_manager, Operation::UpdateScope, key).with(&scope);
        let same = if same { Ok(()) } else { Err(Error::invalid("key", "is not the scope of the path")) };
        self.perform(asked, same.and_then(|()| check::scope(&scope)), |managed| async move {
            let before = scope_before(&managed, &scope.key).await?;
            let after = managed.connector.update_scope(&scope).await?;
            Ok(Effect::of(after.clone()).before(before).after(&after))
        })
        .await
    }

    /// `deleteScope`.
    pub async fn delete_scope(&self, caller: &Caller, key_manager: &str, key: &str) -> Result<Done<()>> {
        let asked = Asked::new(caller, key_manager, Operation::DeleteScope, key);
        self.perform(asked, check::scope_key("key", key), |managed| async move {
            let before = scope_before(&managed, key).await?;
            managed.connector.delete_scope(key).await?;
            Ok(Effect::of(()).before(before))
        })
        .await
    }

    /// `validateScopes`.
    pub async fn validate_scopes(&self, key_manager: &str, keys: Vec<String>) -> Result<Vec<Scope>> {
        let asked = Asked::new(&Caller::default(), key_manager, Operation::ValidateScopes, "");
        self.perform(asked, check::scopes_to_validate(&keys), |managed| async move {
            managed.connector.validate_scopes(&keys).await.map(Effect::of)
        })
        .await?
        .did()
    }

    /// `getScopesForAPIS`.
    pub async fn scopes_for_apis(&self, key_manager: &str, ids: Vec<String>) -> Result<BTreeMap<String, Vec<Scope>>> {
        let asked = Asked::new(&Caller::default(), key_manager, Operation::ScopesForApis, "");
        let checked = ids.iter().try_for_each(|id| check::name("api", id));
        self.perform(asked, checked, |managed| async move {
            // A provider that is asked about none may tell of all.
            if ids.is_empty() {
                return Ok(Effect::of(BTreeMap::new()));
            }
            match managed.connector.scopes_for_apis(&ids).await {
                Err(error @ Error::NotFound(_)) => Err(missing(&managed, ids, error).await),
                found => found.map(Effect::of),
            }
        })
        .await?
        .did()
    }

    /// `registerNewResource`.
    pub async fn register_resource(
        &self,
        caller: &Caller,
        key_manager: &str,
        resource: ApiResource,
    ) -> Result<Done<ApiResource>> {
        let asked = Asked::new(caller, key_manager, Operation::RegisterNewResource, &resource.api_id).with(&resource);
        self.perform(asked, check::new_resource(&resource), |managed| async move {
            let made = managed.connector.register_resource(&resource).await?;
            Ok(Effect::of(made.clone()).after(&made))
        })
        .await
    }

    /// `getResourceByApiId`.
    pub async fn resource(&self, key_manager: &str, api_id: &str) -> Result<ApiResource> {
        let asked = Asked::new(&Caller::default(), key_manager, Operation::ResourceByApiId, api_id);
        self.perform(asked, check::name("apiId", api_id), |managed| async move {
            managed.connector.resource(api_id).await.map(Effect::of)
        })
        .await?
        .did()
    }

    /// `updateRegisteredResource`.
    pub async fn update_resource(
        &self,
        caller: &Caller,
        key_manager: &str,
        api_id: &str,
        mut resource: ApiResource,
    ) -> Result<Done<ApiResource>> {
        let same = resource.api_id.is_empty() || resource.api_id == api_id;
        resource.api_id = api_id.to_owned();
        let asked = Asked::new(caller, key_manager, Operation::UpdateRegisteredResource, api_id).with(&resource);
        let same = if same { Ok(()) } else { Err(Error::invalid("apiId", "is not the API of the path")) };
        self.perform(asked, same.and_then(|()| check::resource(&resource)), |managed| async move {
            let before = resource_before(&managed, &resource.api_id).await?;
            let after = managed.connector.update_resource(&resource).await?;
            Ok(Effect::of(after.clone()).before(before).after(&after))
        })
        .await
    }

    /// `deleteRegisteredResourceByAPIId`.
    pub async fn delete_resource(&self, caller: &Caller, key_manager: &str, api_id: &str) -> Result<Done<()>> {
        let asked = Asked::new(caller, key_manager, Operation::DeleteRegisteredResourceByApiId, api_id);
        self.perform(asked, check::name("apiId", api_id), |managed| async move {
            let before = resource_before(&managed, api_id).await?;
            managed.connector.delete_resource(api_id).await?;
            Ok(Effect::of(()).before(before))
        })
        .await
    }

    /// `attachResourceScopes`, `updateResourceScopes` or `detachResourceScopes`: which one `operation` says.
    pub async fn bind_scopes(
        &self,
        caller: &Caller,
        key_manager: &str,
        operation: Operation,
        api_id: &str,
        keys: Vec<String>,
    ) -> Result<Done<ApiResource>> {
        let asked = Asked::new(caller, key_manager, operation, api_id).with(&json!({ "scopes": keys }));
        let bind = RowChange::Bind { operation, scopes: keys.clone(), by: self.entry(&asked) };
        let checked = check::name("apiId", api_id).and_then(|()| check::bound_scopes(operation, &keys));
        self.perform(asked, checked, |managed| async move {
            let before = resource_before(&managed, api_id).await?;
            let provider = &managed.connector;
            let after = match operation {
                Operation::AttachResourceScopes => provider.attach_scopes(api_id, &keys).await?,
                Operation::UpdateResourceScopes => provider.replace_scopes(api_id, &keys).await?,
                _ => {
                    provider.detach_scopes(api_id, &keys).await?;
                    let after = without_scopes(&before, &keys);
                    let gone = ApiResource { api_id: api_id.to_owned(), ..ApiResource::default() };
                    return Ok(Effect::of(gone).before(before).after(&after).row(bind));
                }
            };
            Ok(Effect::of(after.clone()).before(before).after(&after).row(bind))
        })
        .await
    }

    /// `getUserClaims`.
    pub async fn user_claims(&self, key_manager: &str, username: &str) -> Result<BTreeMap<String, String>> {
        let asked = Asked::new(&Caller::default(), key_manager, Operation::UserClaims, username);
        self.perform(asked, check::name("name", username), |managed| async move {
            managed.connector.user_claims(username).await.map(Effect::of)
        })
        .await?
        .did()
    }
}

/// Which of these APIs it is that is not there, as far as asking about each tells.
async fn missing(managed: &Managed, ids: Vec<String>, error: Error) -> Error {
    for id in ids {
        let alone = managed.connector.scopes_for_apis(std::slice::from_ref(&id)).await;
        if matches!(alone, Err(Error::NotFound(_))) {
            return Error::Missing { what: "API", name: id };
        }
    }
    error
}

/// What there is now, for the audit, where the provider tells.
async fn scope_before(managed: &Managed, key: &str) -> Result<Value> {
    match managed.cannot(Operation::ScopeByName) {
        None => was(managed.connector.scope(key).await),
        Some(_) => Ok(Value::Null),
    }
}

/// What is left of a resource once these scopes, or all where none is named, are taken from it. Where nobody tells what
/// there was, that they were taken.
fn without_scopes(before: &Value, keys: &[String]) -> Value {
    let mut after = before.clone();
    let Some(scopes) = after.get_mut("scopes").and_then(Value::as_array_mut) else {
        return json!({ "detached": keys });
    };
    let mut left: Vec<String> = scopes.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    detach(&mut left, keys);
    *scopes = left.into_iter().map(Value::String).collect();
    after
}

async fn resource_before(managed: &Managed, api_id: &str) -> Result<Value> {
    match managed.cannot(Operation::ResourceByApiId) {
        None => was(managed.connector.resource(api_id).await),
        Some(_) => Ok(Value::Null),
    }
}
