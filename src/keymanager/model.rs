//! What goes in and out of the operations: WSO2's models, under its field names.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use zeroize::Zeroize;

use super::{
    Attributes, LongText, Name, NameList, Parameters, RequestParameters, ScopeKey, SecretParameters, SecretText, Text,
    TokenText, Uri, whole,
};

/// A secret on its way: serialized as it is, since the caller gets it once; never printed, wiped when dropped.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Sensitive(String);

impl Sensitive {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Sensitive {
    fn from(secret: T) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Drop for Sensitive {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// An OAuth client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OAuthApplicationInfo {
    /// Consumer key. On creation: a wish, that a provider may refuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Name>)]
    pub client_id: Option<String>,
    /// Name, shown on consent pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Name>)]
    pub client_name: Option<String>,
    /// Consumer secret. In an answer: only where it has just been made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SecretText>)]
    pub client_secret: Option<Sensitive>,
    /// Redirect URIs, joined by commas.
    #[serde(rename = "callBackURL", skip_serializing_if = "Option::is_none")]
    #[schema(pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub call_back_url: Option<String>,
    /// The free-form bag: `grant_types` (a comma list), `response_types`, `token_endpoint_auth_method`, `scope`,
    /// `key_type`, `additionalProperties` and what a connector documents.
    #[schema(value_type = Parameters)]
    pub parameters: Map<String, Value>,
    /// Who owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Name>)]
    pub app_owner: Option<String>,
    /// The application of the platform that it is for.
    #[serde(rename = "applicationUUID", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Name>)]
    pub application_uuid: Option<String>,
    /// `JWT`, `DEFAULT` or `OAUTH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 32, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub token_type: Option<String>,
    /// Whether all organizations may use it.
    #[serde(skip_serializing_if = "is_false")]
    pub is_saas_application: bool,
    /// Attributes of the platform's application.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Attributes)]
    pub app_attributes: BTreeMap<String, String>,
}

impl OAuthApplicationInfo {
    /// A text of `parameters`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name)?.as_str()
    }

    /// The members of a comma or space list in `parameters`, such as `grant_types`; a leading comma counts as nothing.
    pub fn list(&self, name: &str) -> Vec<&str> {
        split_list(self.parameter(name).unwrap_or_default())
    }

    /// The redirect URIs.
    pub fn redirect_uris(&self) -> Vec<&str> {
        let uris = self.call_back_url.as_deref().unwrap_or_default().split(',').map(str::trim);
        uris.filter(|uri| !uri.is_empty()).collect()
    }
}

/// The members of a list whose members are parted by commas or white space.
pub fn split_list(list: &str) -> Vec<&str> {
    list.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|member| !member.is_empty()).collect()
}

/// What a token is asked for with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AccessTokenRequest {
    /// Consumer key; that of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Name>)]
    pub client_id: Option<String>,
    /// Consumer secret. Left out, the token is issued by the key manager's own rights, as far as the provider lets it;
    /// that needs `tollgate:manage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SecretText>)]
    pub client_secret: Option<Sensitive>,
    /// `client_credentials` unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub grant_type: Option<String>,
    /// Scopes asked for.
    #[schema(value_type = Vec<ScopeKey>, max_items = 100)]
    pub scope: Vec<String>,
    /// Redirect URI, for grants with a code.
    #[serde(rename = "callbackURI", skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2048, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub callback_uri: Option<String>,
    /// For the password grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub resource_owner_username: Option<String>,
    /// For the password grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SecretText>)]
    pub resource_owner_password: Option<Sensitive>,
    /// For the refresh grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TokenText>)]
    pub refresh_token: Option<Sensitive>,
    /// Seconds wished for; -1: as the provider has it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "whole::optional")]
    #[schema(minimum = -1, maximum = 2147483647)]
    pub validity_period: Option<i64>,
    /// A token of this client to revoke first: from then on it is refused, even where no other is issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TokenText>)]
    pub token_to_revoke: Option<Sensitive>,
    /// Further parameters, such as `subject_token` for token exchange (RFC 8693).
    #[schema(value_type = RequestParameters)]
    pub request_parameters: BTreeMap<String, String>,
}

/// A token, or what is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessTokenInfo {
    /// Whether it is good now.
    pub is_token_valid: bool,
    /// Whether it is the client's own, not a user's.
    pub is_application_token: bool,
    /// The client it was issued to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_key: Option<String>,
    /// Its scopes.
    pub scope: Vec<String>,
    /// The token, where it has just been issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<Sensitive>,
    /// A refresh token that came with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Sensitive>,
    /// When it was issued, in milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_time: Option<u64>,
    /// How long it is good from its issue: seconds at the token endpoint, milliseconds of an introspection, as WSO2
    /// has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validity_period: Option<i64>,
    /// 900901 where it is not good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errorcode: Option<u32>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_user_name: Option<String>,
    /// The key manager that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_manager: Option<String>,
    /// What else the provider says of it.
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
}

/// A scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Scope {
    /// As it stands in tokens.
    #[serde(deserialize_with = "some_text")]
    #[schema(value_type = ScopeKey)]
    pub key: String,
    /// As people read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub name: Option<String>,
    /// Roles whose users may have it, joined by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<NameList>)]
    pub roles: Option<String>,
    /// What it allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<LongText>)]
    pub description: Option<String>,
    /// The provider's own id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub id: Option<String>,
}

/// Asks for one more secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConsumerSecretRequest {
    /// A secret wished for, where the provider takes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SecretText>)]
    pub client_secret: Option<Sensitive>,
    /// `description`, `expiresIn` (seconds).
    #[schema(value_type = SecretParameters)]
    pub parameters: Map<String, Value>,
}

/// One of a client's secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerSecretInfo {
    /// Its id.
    pub secret_id: String,
    /// The secret where it has just been made; else masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Sensitive>,
    /// `description`, `expiresAt` (seconds since the epoch; 0: never).
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
}

/// What is registered of an API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ApiResource {
    /// The API's id on the platform.
    #[serde(deserialize_with = "some_text")]
    #[schema(value_type = Name)]
    pub api_id: String,
    /// As people read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub name: Option<String>,
    /// Where it is.
    #[schema(value_type = Vec<Uri>, max_items = 1000)]
    pub uris: Vec<String>,
    /// Keys of the scopes bound to it.
    #[schema(value_type = Vec<ScopeKey>, max_items = 100)]
    pub scopes: Vec<String>,
    /// The provider's own id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub id: Option<String>,
}

/// Adds the scopes that are not there yet.
pub fn attach(scopes: &mut Vec<String>, keys: &[String]) {
    for key in keys {
        if !scopes.contains(key) {
            scopes.push(key.clone());
        }
    }
}

/// Takes these scopes away; none named: all.
pub fn detach(scopes: &mut Vec<String>, keys: &[String]) {
    scopes.retain(|scope| !keys.is_empty() && !keys.contains(scope));
}

/// What may be left out, where the path tells it, and must not be empty.
fn some_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() { Err(D::Error::custom("must not be empty")) } else { Ok(text) }
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_reads_under_wso2s_names_and_prints_no_secret() {
        let text = r#"{"clientId":"a","clientSecret":"s3cret","callBackURL":"https://a.example/cb, https://b.example/cb",
            "parameters":{"grant_types":",client_credentials,refresh_token"},"appOwner":"ada","applicationUUID":"u"}"#;
        let app: OAuthApplicationInfo = serde_json::from_str(text).unwrap();
        assert_eq!(app.list("grant_types"), ["client_credentials", "refresh_token"]);
        assert_eq!(app.redirect_uris(), ["https://a.example/cb", "https://b.example/cb"]);
        assert!(!format!("{app:?}").contains("s3cret"));
        let told = serde_json::to_value(&app).unwrap();
        assert_eq!(told["callBackURL"], "https://a.example/cb, https://b.example/cb");
        assert_eq!(told["applicationUUID"], "u");
        assert_eq!(told["clientSecret"], "s3cret");
        let unknown = serde_json::from_str::<OAuthApplicationInfo>(r#"{"clientID":"a"}"#).unwrap_err().to_string();
        assert!(unknown.contains("clientID"), "{unknown}");
    }
}
