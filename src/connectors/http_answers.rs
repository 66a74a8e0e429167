//! What the outside connector's answers are taken for: those that are about what was asked for, without a client's secrets.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::keymanager::{AccessTokenInfo, ApiResource, Error, OAuthApplicationInfo, Operation, Result, Scope};

/// A client that it has made. Where its answer does not tell, nothing is taken back: the id that was wished for may be
/// a client's of before.
pub(super) fn made(client: OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
    match client.client_id.as_deref() {
        None | Some("") => Err(broken(Operation::CreateApplication, "there is no clientId in its answer")),
        Some(_) => Ok(client),
    }
}

/// A client as whoever may read may be told it.
pub(super) fn client(operation: Operation, id: &str, mut told: OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
    about(operation, id, told.client_id.as_deref().unwrap_or(id))?;
    told.client_secret = None;
    told.app_attributes.retain(|name, _| !is_clients_secret(name));
    drop_secrets(&mut told.parameters);
    Ok(told)
}

pub(super) fn api(operation: Operation, id: &str, told: ApiResource) -> Result<ApiResource> {
    about(operation, id, &told.api_id).map(|()| told)
}

pub(super) fn named(operation: Operation, key: &str, told: Scope) -> Result<Scope> {
    about(operation, key, &told.key).map(|()| told)
}

/// Whoever took an answer about another thing for one about what was asked for would act on what is another's.
fn about(operation: Operation, asked: &str, told: &str) -> Result<()> {
    if asked == told { Ok(()) } else { Err(broken(operation, ANOTHER)) }
}

/// What an answer is that breaks the interface. A change may have been done all the same.
pub(super) fn broken(operation: Operation, why: &str) -> Error {
    let error = Error::Answer(why.into());
    if operation.writes() { error.unclear() } else { error }
}

/// Takes out secrets of the client, in whichever spelling, and list or object below.
pub(super) fn drop_secrets(members: &mut Map<String, Value>) {
    members.retain(|name, _| !is_clients_secret(name));
    members.values_mut().for_each(drop_secrets_below);
}

fn drop_secrets_below(value: &mut Value) {
    match value {
        Value::Object(members) => drop_secrets(members),
        Value::Array(items) => items.iter_mut().for_each(drop_secrets_below),
        _ => {}
    }
}

/// Lifetimes of tokens and the like are none.
fn is_clients_secret(name: &str) -> bool {
    let letters = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase());
    CLIENT_SECRETS.contains(&&*letters.collect::<String>())
}

fn without_tokens(mut known: AccessTokenInfo) -> AccessTokenInfo {
    (known.access_token, known.refresh_token) = (None, None);
    known
}

/// A token's answer, where it tells a client: the one that was asked for.
pub(super) fn of_client(operation: Operation, id: Option<&str>, told: AccessTokenInfo) -> Result<AccessTokenInfo> {
    match (id, told.consumer_key.as_deref()) {
        (Some(id), Some(other)) => about(operation, id, other).map(|()| told),
        _ => Ok(told),
    }
}

/// Each API that was asked for, and no other.
pub(super) fn of_apis(ids: &[String], told: BTreeMap<String, Vec<Scope>>) -> Result<BTreeMap<String, Vec<Scope>>> {
    let all = ids.iter().all(|id| told.contains_key(id)) && told.keys().all(|id| ids.contains(id));
    let named = told.values().flatten().all(|scope| !scope.key.is_empty());
    if all && named { Ok(told) } else { Err(broken(Operation::ScopesForApis, ANOTHER)) }
}

/// Whether a token is good is said, and never supposed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Known {
    is_token_valid: bool,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Known {
    pub(super) fn info(self, operation: Operation) -> Result<AccessTokenInfo> {
        let Self { is_token_valid, mut rest } = self;
        rest.insert("isTokenValid".into(), is_token_valid.into());
        let info = serde_json::from_value(Value::Object(rest)).map(without_tokens);
        info.map_err(|_| broken(operation, "what it says of a token cannot be read"))
    }
}

const ANOTHER: &str = "its answer is about something else than was asked for";
const CLIENT_SECRETS: [&str; 2] = ["clientsecret", "registrationaccesstoken"];
