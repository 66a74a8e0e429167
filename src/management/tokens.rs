//! Handlers: tokens, and what is revoked.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Door,
    answer::{Answer, Problem, Reply},
    ask::{Ask, paged},
};
use crate::keymanager::{AccessTokenRequest, Name, RevokedRow, Sensitive, TokenText};

/// A token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    /// The token's text.
    #[schema(value_type = TokenText)]
    pub(super) token: Sensitive,
}

/// A token that was good for one use.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OneTimeToken {
    /// The token's text.
    #[schema(value_type = TokenText)]
    pub(super) token: Sensitive,
    /// The client it was issued to.
    #[schema(value_type = Name)]
    pub(super) consumer_key: String,
}

/// Whether a token looks like this key manager's.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CanHandle {
    /// Whether it does.
    pub(super) can_handle: bool,
}

/// Names of live tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ActiveTokens {
    /// What tells each from the others, in order; never the token.
    pub(super) items: Vec<String>,
    /// For the next page; none: this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

/// A revocation, by its id.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Revoked {
    /// What its route names it by.
    id: String,
    #[serde(flatten)]
    row: RevokedRow,
}

impl Revoked {
    fn of((key, row): (Vec<u8>, RevokedRow)) -> Self {
        Self { id: BASE64_URL_SAFE_NO_PAD.encode(key), row }
    }
}

/// A page of revocations.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevokedPage {
    /// They.
    pub(super) items: Vec<Revoked>,
    /// For the next page; none: this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

/// Whether a token is asked for by the client's own secret.
pub(super) fn has_secret(ask: &Ask) -> Result<bool, Problem> {
    Ok(ask.json_or_default::<AccessTokenRequest>()?.client_secret.is_some())
}

pub(super) async fn issue(door: &Door, ask: Ask) -> Answer {
    let request = ask.json_or_default()?;
    let done = door.engine.new_access_token(&ask.caller, ask.km(), ask.path("ck"), request).await?;
    Ok(Reply::done(StatusCode::CREATED, done))
}

pub(super) async fn active(door: &Door, ask: Ask) -> Answer {
    let page = ask.page()?;
    let names = door.engine.active_tokens(ask.km(), ask.path("ck")).await?;
    let (items, cursor) = paged(page, names, String::as_str);
    Ok(Reply::ok(&ActiveTokens { items, cursor }))
}

pub(super) async fn shown(door: &Door, ask: Ask) -> Answer {
    Ok(Reply::ok(&door.engine.access_token(ask.km(), ask.path("ck")).await?))
}

pub(super) async fn request_of(door: &Door, ask: Ask) -> Answer {
    let app = ask.json_or_default()?;
    Ok(Reply::ok(&door.engine.request_from_application(ask.km(), ask.path("ck"), &app)?))
}

pub(super) async fn parse(door: &Door, ask: Ask) -> Answer {
    Ok(Reply::ok(&door.engine.request_from_json(ask.km(), &ask.json_or_default()?)?))
}

pub(super) async fn introspect(door: &Door, ask: Ask) -> Answer {
    let Token { token } = ask.json()?;
    Ok(Reply::ok(&door.engine.token_meta_data(ask.km(), &token).await?))
}

pub(super) async fn revoke(door: &Door, ask: Ask) -> Answer {
    let Token { token } = ask.json()?;
    Ok(Reply::done(StatusCode::NO_CONTENT, door.engine.revoke_token(&ask.caller, ask.km(), &token).await?))
}

pub(super) async fn revoke_one_time(door: &Door, ask: Ask) -> Answer {
    let OneTimeToken { token, consumer_key } = ask.json()?;
    let done = door.engine.revoke_one_time_token(&ask.caller, ask.km(), &token, &consumer_key).await?;
    Ok(Reply::done(StatusCode::NO_CONTENT, done))
}

pub(super) async fn can_handle(door: &Door, ask: Ask) -> Answer {
    let Token { token } = ask.json()?;
    let can_handle = door.engine.can_handle_token(ask.km(), token.reveal()).await?;
    Ok(Reply::ok(&CanHandle { can_handle }))
}

pub(super) async fn refuse(door: &Door, ask: Ask) -> Answer {
    let done = door.engine.revoke(&ask.caller, ask.json()?).await?;
    Ok(Reply::done(StatusCode::CREATED, done.map(|row| Revoked::of((row.key(), row)))))
}

pub(super) async fn refused(door: &Door, ask: Ask) -> Answer {
    let (limit, cursor) = ask.page()?;
    let after = cursor.map_or(Ok(Vec::new()), |cursor| BASE64_URL_SAFE_NO_PAD.decode(cursor));
    let after = after.map_err(|_| Problem::field("cursor", "is none of ours"))?;
    let mut items: Vec<_> = door.engine.revocations(&after, limit + 1)?.into_iter().map(Revoked::of).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    // Behind an id comes what its key is before.
    let cursor = items.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Reply::ok(&RevokedPage { items, cursor }))
}

pub(super) async fn revocation(door: &Door, ask: Ask) -> Answer {
    let key = key(&ask)?;
    let row = door.engine.revocation_of(&key)?;
    Ok(Reply::ok(&Revoked::of((key, row))))
}

pub(super) async fn lift(door: &Door, ask: Ask) -> Answer {
    Ok(Reply::done(StatusCode::NO_CONTENT, door.engine.lift(&ask.caller, key(&ask)?).await?))
}

/// The key that an id stands for.
fn key(ask: &Ask) -> Result<Vec<u8>, Problem> {
    let key = BASE64_URL_SAFE_NO_PAD.decode(ask.path("id"));
    key.map_err(|_| Problem::field("id", "is none of ours: it is base64url"))
}
