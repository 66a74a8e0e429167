//! Resource registration of UMA 2.0 (Federated Authorization for UMA 2.0, section 3), as ourselves by our own access
//! token.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    call::{Call, asking, below},
    directory::Endpoint,
    oauth::OAuth,
    oidc::Place,
};
use crate::keymanager::{ApiResource, Error, Operation, Result, attach, detach};

/// A registered resource, as the provider tells of it.
#[derive(Debug, Deserialize)]
pub(super) struct Registered {
    #[serde(rename = "_id")]
    pub(super) id: Option<String>,
    #[serde(rename = "displayName")]
    pub(super) display_name: Option<String>,
    #[serde(default)]
    pub(super) uris: Vec<String>,
    #[serde(default)]
    resource_scopes: Vec<ScopeName>,
}

/// A scope is told by its name, or by an object that holds it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ScopeName {
    Name(String),
    Object { name: String },
}

/// One provider's resource registration, for one operation.
#[derive(Debug)]
pub(super) struct Resources<'o> {
    oauth: &'o OAuth,
    resources: Place,
    token: Place,
}

impl<'o> Resources<'o> {
    pub(super) async fn of(oauth: &'o OAuth, operation: Operation) -> Result<Self> {
        let resources = oauth.directory.place(Endpoint::ResourceRegistration, operation).await?;
        let token = oauth.directory.place(Endpoint::Token, operation).await?;
        Ok(Self { oauth, resources, token })
    }

    /// Registers one; gives the provider's id.
    pub(super) async fn create(&self, description: Map<String, Value>) -> Result<String> {
        let call = Call::post(&self.resources).json(&description.into()).own_token(&self.token);
        let made: Registered = self.oauth.api.send(call).await?.json()?;
        made.id.ok_or_else(|| Error::Answer("the registered resource has no _id".into()).unclear())
    }

    pub(super) async fn read(&self, id: &str) -> Result<Registered> {
        let place = below(&self.resources, [id]);
        self.oauth.api.send(Call::get(&place).own_token(&self.token).absent(RESOURCE)).await?.json()
    }

    pub(super) async fn replace(&self, id: &str, description: Map<String, Value>) -> Result<()> {
        let place = below(&self.resources, [id]);
        let call = Call::put(&place).json(&description.into()).own_token(&self.token).absent(RESOURCE);
        self.oauth.api.send(call).await.map(drop)
    }

    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        let place = below(&self.resources, [id]);
        self.oauth.api.send(Call::delete(&place).own_token(&self.token).absent(RESOURCE)).await.map(drop)
    }

    /// The id of the one of that name, where the provider can look for names.
    pub(super) async fn named(&self, name: &str) -> Result<Option<String>> {
        let place = asking(&self.resources, [("name", name), ("exactName", "true")]);
        let found: Vec<String> = self.oauth.api.send(Call::get(&place).own_token(&self.token)).await?.json()?;
        Ok(found.into_iter().next())
    }
}

impl Registered {
    pub(super) fn scopes(&self) -> Vec<String> {
        let names = self.resource_scopes.iter().map(|scope| match scope {
            ScopeName::Name(name) | ScopeName::Object { name } => name.clone(),
        });
        names.collect()
    }
}

/// The resource with these scopes beside its own.
pub(super) fn attached(mut resource: ApiResource, keys: &[String]) -> ApiResource {
    attach(&mut resource.scopes, keys);
    resource
}

/// The resource without these scopes; none named: without any.
pub(super) fn detached(mut resource: ApiResource, keys: &[String]) -> ApiResource {
    detach(&mut resource.scopes, keys);
    resource
}

pub(super) const RESOURCE: &str = "resource";
