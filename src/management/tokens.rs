//! Handlers: tokens, and what is revoked.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Door,
    answer::{Answer, Problem, Reply},
    ask::Ask,
};
use crate::keymanager::{Name, RevokedRow, Sensitive, TokenText};

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
    /// What tells each from the others; never the token.
    pub(super) items: Vec<String>,
}

/// A page of revocations.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevokedPage {
    /// They.
    pub(super) items: Vec<RevokedRow>,
    /// For the next page; none: this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

pub(super) async fn issue(door: &Door, ask: Ask) -> Answer {
    let request = ask.json_or_default()?;
    let done = door.engine.new_access_token(&ask.caller, ask.km(), ask.path("ck"), request).await?;
    Ok(Reply::done(StatusCode::CREATED, done))
}

pub(super) async fn active(door: &Door, ask: Ask) -> Answer {
    let items = door.engine.active_tokens(ask.km(), ask.path("ck")).await?;
    Ok(Reply::ok(&ActiveTokens { items }))
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
    Ok(Reply::done(StatusCode::CREATED, door.engine.revoke(&ask.caller, ask.json()?).await?))
}

pub(super) async fn refused(door: &Door, ask: Ask) -> Answer {
    let (limit, cursor) = ask.page()?;
    let after = cursor.map_or(Ok(Vec::new()), |cursor| BASE64_URL_SAFE_NO_PAD.decode(cursor));
    let after = after.map_err(|_| Problem::field("cursor", "is none of ours"))?;
    let rows = door.engine.revocations(&after, limit + 1)?;
    let cursor = (rows.len() > limit).then(|| rows.get(limit - 1)).flatten();
    let cursor = cursor.map(|(key, _)| BASE64_URL_SAFE_NO_PAD.encode(key));
    Ok(Reply::ok(&RevokedPage { items: rows.into_iter().take(limit).map(|(_, row)| row).collect(), cursor }))
}
