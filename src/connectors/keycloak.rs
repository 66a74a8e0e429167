//! Connector `keycloak`: clients, scopes, secrets, sessions and users by its admin API, resources by its UMA 2.0
//! protection API, tokens by the standards.
//!
//! Our own client there has to have a service account with the roles `manage-clients`, `view-users` and `view-realm` of
//! `realm-management`; to register resources, authorization services have to be on for it. Scopes are client scopes,
//! whose roles are kept as an attribute; an owner is an attribute of the client.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Means,
    call::{Call, asking, below},
    client_auth::same,
    directory::Endpoint,
    endpoint, keycloak_client as client,
    keycloak_rows::{User, claims, description, read_scope, write_scope},
    oauth::{ClientSecret, OAuth, issued_to},
    oidc::Place,
    uma::{self, RESOURCE, Resources},
};
use crate::{
    keymanager::{
        AccessTokenInfo, AccessTokenRequest, ApiResource, ConsumerSecretInfo, Error, KeyManager, OAuthApplicationInfo,
        Operation, Rehearsal, Result, Scope, Sensitive,
    },
    net::Reach,
    problem::Problem,
    token::settings::KeyManagerSettings,
};

/// A realm of Keycloak.
#[derive(Debug)]
struct Keycloak {
    oauth: OAuth,
    /// `…/admin/realms/{realm}`
    admin: Place,
    /// Whom tokens of the clients made here are for.
    audiences: Vec<String>,
}

/// A client, as far as calls about it need.
#[derive(Debug)]
struct Known {
    /// Keycloak's own id of it, which stands in paths.
    id: String,
    representation: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Secret {
    value: Option<Sensitive>,
}

#[derive(Debug, Deserialize)]
struct Named {
    id: String,
}

/// The connector of the key manager at `field`.
pub(super) fn key_manager(
    settings: &KeyManagerSettings,
    field: &str,
    means: Means<'_>,
) -> std::result::Result<Arc<dyn KeyManager>, Vec<Problem>> {
    let wrong = |why: &str| vec![Problem::new(format!("{field}.issuer"), why)];
    let oauth = OAuth::new(settings, field, means)?;
    let mut admin = endpoint(&settings.issuer, settings.allow_http).map_err(wrong)?;
    let path = admin.path().trim_end_matches('/');
    let (before, realm) = path
        .rsplit_once("/realms/")
        .filter(|(_, realm)| !realm.is_empty() && !realm.contains('/'))
        .ok_or_else(|| wrong("must end with /realms/ and the realm's name, as Keycloak's do"))?;
    let path = format!("{before}/admin/realms/{realm}");
    admin.set_path(&path);
    let own = settings.client_id.iter().filter(|id| !settings.audience.contains(id));
    let audiences = settings.audience.iter().chain(own).cloned().collect();
    Ok(Arc::new(Keycloak { oauth, admin: Place { url: admin, reach: Reach::Local }, audiences }))
}

#[async_trait]
impl KeyManager for Keycloak {
    fn connector(&self) -> &'static str {
        "keycloak"
    }

    fn cannot(&self, operation: Operation) -> Option<Cow<'static, str>> {
        use Operation as Op;
        match operation {
            Op::AccessTokenByConsumerKey => Some("Keycloak keeps sessions, and no tokens that could be shown".into()),
            Op::GenerateConsumerSecret => {
                Some("a client of Keycloak has one secret; only its own rotation policy keeps the one before".into())
            }
            Op::DeleteConsumerSecret => Some("a client of Keycloak is never without its secret".into()),
            _ if !self.oauth.api.has_credential() && operation.is_providers() => Some(NOBODY.into()),
            _ => None,
        }
    }

    fn rehearsal(&self) -> Rehearsal {
        Rehearsal::Halting
    }

    async fn create_application(&self, application: &OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
        let mut body = Map::new();
        client::write(&mut body, application)?;
        client::address(&mut body, &self.audiences);
        let mark = client::random(16)?;
        client::mark(&mut body, &mark);
        // Both are made here, so that they are known whatever becomes of the answer.
        let id = application.client_id.clone().map_or_else(|| client::random(16), Ok)?;
        body.insert("clientId".into(), json!(id));
        let is_public = body.get("publicClient") == Some(&json!(true));
        let secret = match &application.client_secret {
            _ if is_public => None,
            Some(secret) => Some(secret.clone()),
            None => Some(Sensitive::from(client::random(32)?)),
        };
        if let Some(secret) = &secret {
            body.insert("secret".into(), json!(secret.reveal()));
        }
        let scopes = self.scope_ids(&application.list("scope")).await?;
        let call = self.post(&["clients"], Operation::CreateApplication).await?;
        let made = self.oauth.api.send(Call::post(&call.0).json(&body.into()).own_token(&call.1)).await;
        let outcome = match made {
            Ok(_) => self.completed(&id, &scopes).await,
            // It may have been made all the same.
            Err(error @ (Error::TimedOut(_) | Error::Unclear(_))) => Err(error),
            Err(error) => return Err(error.about("clientId")),
        };
        match outcome {
            Ok(made) => Ok(OAuthApplicationInfo { client_secret: secret, ..made }),
            Err(error) => Err(self.undo(&id, &mark, error).await),
        }
    }

    async fn update_application(
        &self,
        consumer_key: &str,
        application: &OAuthApplicationInfo,
    ) -> Result<OAuthApplicationInfo> {
        let mut known = self.client(consumer_key, Operation::UpdateApplication).await?;
        client::write(&mut known.representation, application)?;
        let wanted = application.list("scope");
        let ids = self.scope_ids(&wanted).await?;
        self.put(&known).await?;
        if !wanted.is_empty() {
            self.bind_scopes(&known.id, &ids).await.map_err(Error::unclear)?;
        }
        self.retrieve_application(consumer_key).await.map_err(Error::unclear)
    }

    async fn retrieve_application(&self, consumer_key: &str) -> Result<OAuthApplicationInfo> {
        client::read(&self.client(consumer_key, Operation::RetrieveApplication).await?.representation)
    }

    async fn delete_application(&self, consumer_key: &str) -> Result<()> {
        let known = self.client(consumer_key, Operation::DeleteApplication).await?;
        self.remove(&["clients", &known.id], CLIENT).await
    }

    async fn update_application_owner(&self, consumer_key: &str, owner: &str) -> Result<OAuthApplicationInfo> {
        let mut known = self.client(consumer_key, Operation::UpdateApplicationOwner).await?;
        client::write_owner(&mut known.representation, owner);
        self.put(&known).await?;
        self.retrieve_application(consumer_key).await.map_err(Error::unclear)
    }

    async fn map_application(&self, consumer_key: &str, secret: Option<&Sensitive>) -> Result<OAuthApplicationInfo> {
        let known = self.client(consumer_key, Operation::MapOAuthApplication).await?;
        if let Some(secret) = secret {
            let own = self.secret(&known).await?;
            if !own.is_some_and(|own| same(own.reveal(), secret.reveal())) {
                return Err(Error::invalid("clientSecret", "is not the secret of this client"));
            }
        }
        client::read(&known.representation)
    }

    async fn new_access_token(&self, request: &AccessTokenRequest) -> Result<AccessTokenInfo> {
        let id = request.client_id.as_deref().ok_or_else(|| Error::invalid("clientId", "is needed"))?;
        if let Some(secret) = &request.client_secret {
            return self.oauth.new_access_token(request, id, ClientSecret::Basic(secret.reveal())).await;
        }
        let secret = self.secret(&self.client(id, Operation::NewApplicationAccessToken).await?).await?;
        let secret = secret.as_ref().map_or(ClientSecret::None, |secret| ClientSecret::Basic(secret.reveal()));
        self.oauth.new_access_token(request, id, secret).await
    }

    async fn token_meta_data(&self, token: &Sensitive) -> Result<AccessTokenInfo> {
        let mut said = self.oauth.token_meta_data(token, true).await?;
        // The user of a service account is the client itself.
        let own = said.consumer_key.as_ref().map(|id| format!("service-account-{}", id.to_lowercase()));
        if own.is_some() && own == said.end_user_name {
            (said.is_application_token, said.end_user_name) = (true, None);
        }
        Ok(said)
    }

    /// The ids of the client's sessions, on line and off line: `sid` of their tokens. A token of the client's own
    /// (`client_credentials`) has no session, and is not among them.
    async fn active_tokens(&self, consumer_key: &str) -> Result<Vec<String>> {
        let operation = Operation::ActiveTokensByConsumerKey;
        let known = self.client(consumer_key, operation).await?;
        let mut ids = Vec::new();
        for kind in ["user-sessions", "offline-sessions"] {
            let (place, token) = self.post(&["clients", &known.id, kind], operation).await?;
            let place = asking(&place, [("first", "0"), ("max", MOST_SESSIONS)]);
            let found: Vec<Named> = self.oauth.api.send(Call::get(&place).own_token(&token)).await?.json()?;
            ids.extend(found.into_iter().map(|session| session.id));
        }
        Ok(ids)
    }

    async fn new_secret(&self, consumer_key: &str) -> Result<Sensitive> {
        let operation = Operation::NewApplicationConsumerSecret;
        let known = self.client(consumer_key, operation).await?;
        let (place, token) = self.post(&["clients", &known.id, "client-secret"], operation).await?;
        let made: Secret = self.oauth.api.send(Call::post(&place).own_token(&token)).await?.json()?;
        let useless = || Error::Answer("there is no secret in the answer".into()).unclear();
        let secret = made.value.ok_or_else(useless)?;
        // Where a policy keeps the one before for a while, that is ended too.
        let before = below(&place, ["rotated"]);
        match self.oauth.api.send_if_there(Call::delete(&before).own_token(&token)).await {
            Ok(_) | Err(Error::Refused { status: 400, .. }) => Ok(secret),
            Err(error) => {
                Err(Error::HalfDone { what: error.to_string(), left: "the secret before the new one".into() })
            }
        }
    }

    async fn secrets(&self, consumer_key: &str) -> Result<Vec<ConsumerSecretInfo>> {
        let known = self.client(consumer_key, Operation::RetrieveConsumerSecrets).await?;
        let secret = self.secret(&known).await?.map(|_| ConsumerSecretInfo {
            secret_id: "current".into(),
            client_secret: Some(MASK.into()),
            parameters: Map::new(),
        });
        Ok(secret.into_iter().collect())
    }

    async fn revoke_token(&self, token: &Sensitive) -> Result<()> {
        self.revoke(token, Operation::RevokeToken).await
    }

    async fn revoke_one_time_token(&self, token: &Sensitive, _consumer_key: &str) -> Result<()> {
        self.revoke(token, Operation::RevokeOneTimeToken).await
    }

    async fn register_resource(&self, resource: &ApiResource) -> Result<ApiResource> {
        let resources = self.resources(Operation::RegisterNewResource).await?;
        let id = resources.create(description(resource)).await.map_err(|error| error.about("apiId"))?;
        Ok(ApiResource { id: Some(id), ..resource.clone() })
    }

    async fn resource(&self, api_id: &str) -> Result<ApiResource> {
        let resources = self.resources(Operation::ResourceByApiId).await?;
        let id = resources.named(api_id).await?.ok_or(Error::NotFound(RESOURCE))?;
        let found = resources.read(&id).await?;
        let scopes = found.scopes();
        let name = found.display_name.filter(|name| !name.is_empty());
        Ok(ApiResource { api_id: api_id.to_owned(), name, uris: found.uris, scopes, id: Some(id) })
    }

    async fn update_resource(&self, resource: &ApiResource) -> Result<ApiResource> {
        self.replace_resource(resource, Operation::UpdateRegisteredResource).await
    }

    async fn delete_resource(&self, api_id: &str) -> Result<()> {
        let resources = self.resources(Operation::DeleteRegisteredResourceByApiId).await?;
        let id = resources.named(api_id).await?.ok_or(Error::NotFound(RESOURCE))?;
        resources.remove(&id).await
    }

    async fn register_scope(&self, scope: &Scope) -> Result<Scope> {
        let (place, token) = self.post(&["client-scopes"], Operation::RegisterScope).await?;
        let mut body =
            Map::from_iter([("name".into(), json!(scope.key)), ("protocol".into(), json!("openid-connect"))]);
        write_scope(&mut body, scope);
        let made = self.oauth.api.send(Call::post(&place).json(&body.into()).own_token(&token)).await;
        made.map_err(|error| error.about("key"))?;
        self.scope(&scope.key).await.map_err(Error::unclear)
    }

    async fn scope(&self, key: &str) -> Result<Scope> {
        let found = self.client_scopes(Operation::ScopeByName).await?;
        found.iter().map(read_scope).find(|scope| scope.key == key).ok_or(Error::NotFound(SCOPE))
    }

    async fn scopes(&self) -> Result<Vec<Scope>> {
        Ok(self.client_scopes(Operation::AllScopes).await?.iter().map(read_scope).collect())
    }

    async fn update_scope(&self, scope: &Scope) -> Result<Scope> {
        let operation = Operation::UpdateScope;
        let (id, mut body) = self.client_scope(&scope.key, operation).await?;
        write_scope(&mut body, scope);
        let (place, token) = self.post(&["client-scopes", &id], operation).await?;
        self.oauth.api.send(Call::put(&place).json(&body.into()).own_token(&token).absent(SCOPE)).await?;
        self.scope(&scope.key).await.map_err(Error::unclear)
    }

    async fn delete_scope(&self, key: &str) -> Result<()> {
        let (id, _) = self.client_scope(key, Operation::DeleteScope).await?;
        self.remove(&["client-scopes", &id], SCOPE).await
    }

    async fn attach_scopes(&self, api_id: &str, keys: &[String]) -> Result<ApiResource> {
        let resource = uma::attached(self.resource(api_id).await?, keys);
        self.replace_resource(&resource, Operation::AttachResourceScopes).await
    }

    async fn replace_scopes(&self, api_id: &str, keys: &[String]) -> Result<ApiResource> {
        let resource = ApiResource { scopes: keys.to_vec(), ..self.resource(api_id).await? };
        self.replace_resource(&resource, Operation::UpdateResourceScopes).await
    }

    async fn detach_scopes(&self, api_id: &str, keys: &[String]) -> Result<()> {
        let resource = uma::detached(self.resource(api_id).await?, keys);
        self.replace_resource(&resource, Operation::DetachResourceScopes).await.map(drop)
    }

    async fn scopes_for_apis(&self, api_ids: &[String]) -> Result<BTreeMap<String, Vec<Scope>>> {
        let known: Vec<_> = self.client_scopes(Operation::ScopesForApis).await?.iter().map(read_scope).collect();
        let mut found = BTreeMap::new();
        for api_id in api_ids {
            // A scope may be bound that is none of the realm's.
            let scope = |key: String| {
                let scope = known.iter().find(|scope| scope.key == key).cloned();
                scope.unwrap_or_else(|| Scope { key, ..Scope::default() })
            };
            found.insert(api_id.clone(), self.resource(api_id).await?.scopes.into_iter().map(scope).collect());
        }
        Ok(found)
    }

    async fn user_claims(&self, username: &str) -> Result<BTreeMap<String, String>> {
        let (place, token) = self.post(&["users"], Operation::UserClaims).await?;
        let place = asking(&place, [("username", username), ("exact", "true")]);
        let found: Vec<User> = self.oauth.api.send(Call::get(&place).own_token(&token)).await?.json()?;
        // Keycloak's names are without regard to case.
        let is_it = |user: &User| user.username.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(username));
        found.into_iter().find(is_it).map(claims).ok_or(Error::NotFound("user"))
    }
}

impl Keycloak {
    /// A place below the admin API, and the token endpoint of the token that opens it.
    async fn post(&self, segments: &[&str], operation: Operation) -> Result<(Place, Place)> {
        let token = self.oauth.directory.place(Endpoint::Token, operation).await?;
        Ok((below(&self.admin, segments.iter().copied()), token))
    }

    async fn client(&self, consumer_key: &str, operation: Operation) -> Result<Known> {
        let (place, token) = self.post(&["clients"], operation).await?;
        let place = asking(&place, [("clientId", consumer_key)]);
        let found: Vec<Map<String, Value>> = self.oauth.api.send(Call::get(&place).own_token(&token)).await?.json()?;
        let is_it = |client: &Map<String, Value>| client.get("clientId").and_then(Value::as_str) == Some(consumer_key);
        let mut representation = found.into_iter().find(is_it).ok_or(Error::NotFound(CLIENT))?;
        // Read on its own where it is needed, and never written back.
        representation.remove("secret");
        let id = representation.get("id").and_then(Value::as_str);
        let id = id.ok_or_else(|| Error::Answer("the client has no id".into()))?.to_owned();
        Ok(Known { id, representation })
    }

    async fn put(&self, known: &Known) -> Result<()> {
        let (place, token) = self.post(&["clients", &known.id], Operation::UpdateApplication).await?;
        let body = known.representation.clone().into();
        self.oauth.api.send(Call::put(&place).json(&body).own_token(&token).absent(CLIENT)).await.map(drop)
    }

    async fn remove(&self, segments: &[&str], what: &'static str) -> Result<()> {
        let (place, token) = self.post(segments, Operation::DeleteApplication).await?;
        self.oauth.api.send(Call::delete(&place).own_token(&token).absent(what)).await.map(drop)
    }

    /// The client's secret; none: it is public.
    async fn secret(&self, known: &Known) -> Result<Option<Sensitive>> {
        if known.representation.get("publicClient") == Some(&json!(true)) {
            return Ok(None);
        }
        let (place, token) =
            self.post(&["clients", &known.id, "client-secret"], Operation::RetrieveConsumerSecrets).await?;
        let secret: Secret = self.oauth.api.send(Call::get(&place).own_token(&token).absent(CLIENT)).await?.json()?;
        Ok(secret.value)
    }

    /// Gives a client that has just been made its scopes; reads it.
    async fn completed(&self, consumer_key: &str, scopes: &[String]) -> Result<OAuthApplicationInfo> {
        let known = self.client(consumer_key, Operation::CreateApplication).await?;
        if scopes.is_empty() {
            return client::read(&known.representation);
        }
        self.bind_scopes(&known.id, scopes).await?;
        self.retrieve_application(consumer_key).await
    }

    /// Takes a client away again that is of no use, or of which nobody knows whether it is there. One of that id
    /// without our mark was there before.
    async fn undo(&self, consumer_key: &str, mark: &str, error: Error) -> Error {
        let removed = async {
            let known = self.client(consumer_key, Operation::CreateApplication).await?;
            if !client::is_marked(&known.representation, mark) {
                return Ok(());
            }
            self.remove(&["clients", &known.id], CLIENT).await
        };
        error.undone(removed.await, format_args!("the client {consumer_key}"))
    }

    /// Lets the client ask for these scopes.
    async fn bind_scopes(&self, client: &str, scopes: &[String]) -> Result<()> {
        for scope in scopes {
            let path = ["clients", client, "optional-client-scopes", scope];
            let (place, token) = self.post(&path, Operation::UpdateApplication).await?;
            self.oauth.api.send(Call::put(&place).own_token(&token)).await?;
        }
        Ok(())
    }

    async fn scope_ids(&self, keys: &[&str]) -> Result<Vec<String>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let known: Vec<_> = self.client_scopes(Operation::ScopeByName).await?.iter().map(read_scope).collect();
        let id = |key: &&str| {
            let scope = known.iter().find(|scope| scope.key == *key).and_then(|scope| scope.id.clone());
            scope.ok_or_else(|| Error::invalid("parameters.scope", format!("the realm has no client scope {key}")))
        };
        keys.iter().map(id).collect()
    }

    async fn client_scopes(&self, operation: Operation) -> Result<Vec<Map<String, Value>>> {
        let (place, token) = self.post(&["client-scopes"], operation).await?;
        let mut found: Vec<Map<String, Value>> =
            self.oauth.api.send(Call::get(&place).own_token(&token)).await?.json()?;
        found.retain(|scope| scope.get("protocol") == Some(&json!("openid-connect")));
        Ok(found)
    }

    async fn client_scope(&self, key: &str, operation: Operation) -> Result<(String, Map<String, Value>)> {
        let found = self.client_scopes(operation).await?;
        let is_it = |scope: &Map<String, Value>| scope.get("name").and_then(Value::as_str) == Some(key);
        let found = found.into_iter().find(is_it).ok_or(Error::NotFound(SCOPE))?;
        let id = found.get("id").and_then(Value::as_str).map(str::to_owned);
        Ok((id.ok_or_else(|| Error::Answer("the client scope has no id".into()))?, found))
    }

    /// Keycloak revokes a token for the client alone that it was issued to, whose secret it tells us.
    async fn revoke(&self, token: &Sensitive, operation: Operation) -> Result<()> {
        let known = match issued_to(token.reveal()) {
            Some(id) => match self.client(&id, operation).await {
                Ok(known) => Some((id, known)),
                Err(Error::NotFound(_)) => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        let Some((id, known)) = known else { return self.oauth.revoke(token, operation).await };
        let secret = self.secret(&known).await?;
        let secret = secret.as_ref().map_or(ClientSecret::None, |secret| ClientSecret::Basic(secret.reveal()));
        self.oauth.revoke_by(token, &id, secret, operation).await
    }

    async fn resources(&self, operation: Operation) -> Result<Resources<'_>> {
        Resources::of(&self.oauth, operation).await
    }

    async fn replace_resource(&self, resource: &ApiResource, operation: Operation) -> Result<ApiResource> {
        let resources = self.resources(operation).await?;
        let id = resources.named(&resource.api_id).await?.ok_or(Error::NotFound(RESOURCE))?;
        resources.replace(&id, description(resource)).await?;
        Ok(ApiResource { id: Some(id), ..resource.clone() })
    }
}

const CLIENT: &str = "client";
const SCOPE: &str = "scope";
const MASK: &str = "********";
const MOST_SESSIONS: &str = "1000";
const NOBODY: &str = "the configuration does not say who we are there: client_id, client_secret";
