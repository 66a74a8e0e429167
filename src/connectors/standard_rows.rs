//! What is remembered of a provider's clients and resources that the standards have no place for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::keymanager::{ApiResource, Error, OAuthApplicationInfo, Result, Sensitive};

/// What is remembered of a client.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Row {
    /// Where it is managed, and the token that manages it (RFC 7592); none: it was not registered here, or the
    /// provider has no such thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<Access>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Sensitive>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) auth_method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) application: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token_type: Option<String>,
    #[serde(default)]
    pub(super) saas: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Access {
    pub(super) uri: String,
    pub(super) token: Sensitive,
}

/// What is remembered of an API's resources.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ResourceRow {
    pub(super) id: String,
    pub(super) resource: ApiResource,
}

impl Row {
    pub(super) fn of(application: &OAuthApplicationInfo) -> Self {
        Self {
            access: None,
            secret: None,
            auth_method: application.parameter("token_endpoint_auth_method").map(str::to_owned),
            owner: application.app_owner.clone(),
            application: application.application_uuid.clone(),
            token_type: application.token_type.clone(),
            saas: application.is_saas_application,
            attributes: application.app_attributes.clone(),
        }
    }

    /// Takes from a client information response what has to be remembered.
    pub(super) fn learn(&mut self, told: &Map<String, Value>) {
        let text = |name: &str| told.get(name).and_then(Value::as_str).map(str::to_owned);
        if let Some(secret) = text("client_secret").filter(|secret| !secret.is_empty()) {
            self.secret = Some(secret.into());
        }
        if let Some(method) = text("token_endpoint_auth_method") {
            self.auth_method = Some(method);
        }
        let uri = text("registration_client_uri").or_else(|| self.access.as_ref().map(|access| access.uri.clone()));
        if let (Some(uri), Some(token)) = (uri, text("registration_access_token")) {
            self.access = Some(Access { uri, token: token.into() });
        }
    }

    /// Adds what is remembered.
    pub(super) fn tell(&self, application: OAuthApplicationInfo) -> OAuthApplicationInfo {
        OAuthApplicationInfo {
            app_owner: self.owner.clone(),
            application_uuid: self.application.clone(),
            token_type: self.token_type.clone(),
            is_saas_application: self.saas,
            app_attributes: self.attributes.clone(),
            ..application
        }
    }
}

pub(super) fn read<T: for<'d> Deserialize<'d>>(text: Option<String>) -> Result<Option<T>> {
    let unreadable = |_| Error::Record("what is remembered of it cannot be read".into());
    text.map(|text| serde_json::from_str(&text).map_err(unreadable)).transpose()
}

pub(super) fn written(row: &impl Serialize) -> Result<String> {
    serde_json::to_string(row).map_err(|error| Error::Record(error.to_string()))
}

pub(super) fn client_key(consumer_key: &str) -> String {
    format!("client/{consumer_key}")
}

pub(super) fn resource_key(api_id: &str) -> String {
    format!("resource/{api_id}")
}
