//! Handlers: clients, their secrets, their mapping.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Door,
    answer::{Answer, Reply},
    ask::{Ask, paged},
};
use crate::keymanager::{ConsumerSecretInfo, MapRequest, Name, OAuthApplicationInfo, Sensitive};

/// A client's new owner.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Owner {
    /// Who owns it from now on.
    #[schema(value_type = Name)]
    pub(super) owner: String,
}

/// A secret, shown this once.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewSecret {
    /// The secret.
    pub(super) client_secret: Sensitive,
}

/// Secrets, masked.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Secrets {
    /// In the order of their ids.
    pub(super) items: Vec<ConsumerSecretInfo>,
    /// For the next page; none: this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

pub(super) async fn create(door: &Door, ask: Ask) -> Answer {
    let app = ask.json::<OAuthApplicationInfo>()?;
    let _turn = ask.turn_of_new(door, "client", app.client_id.as_deref().unwrap_or_default()).await;
    Ok(Reply::done(StatusCode::CREATED, door.engine.create_application(&ask.caller, ask.km(), app).await?))
}

pub(super) async fn read(door: &Door, ask: Ask) -> Answer {
    Ok(Reply::ok(&door.engine.retrieve_application(ask.km(), ask.path("ck")).await?).tagged())
}

pub(super) async fn update(door: &Door, ask: Ask) -> Answer {
    let (app, (km, ck)) = (ask.json()?, (ask.km(), ask.path("ck")));
    let _turn = ask.turn(door, &["client", km, ck], || door.engine.retrieve_application(km, ck)).await?;
    Ok(Reply::done(StatusCode::OK, door.engine.update_application(&ask.caller, km, ck, app).await?))
}

pub(super) async fn delete(door: &Door, ask: Ask) -> Answer {
    let (km, ck) = (ask.km(), ask.path("ck"));
    let _turn = ask.turn(door, &["client", km, ck], || door.engine.retrieve_application(km, ck)).await?;
    Ok(Reply::done(StatusCode::NO_CONTENT, door.engine.delete_application(&ask.caller, km, ck).await?))
}

pub(super) async fn owner(door: &Door, ask: Ask) -> Answer {
    let (Owner { owner }, (km, ck)) = (ask.json()?, (ask.km(), ask.path("ck")));
    let _turn = ask.turn(door, &["client", km, ck], || door.engine.retrieve_application(km, ck)).await?;
    Ok(Reply::done(StatusCode::OK, door.engine.update_application_owner(&ask.caller, km, ck, &owner).await?))
}

pub(super) async fn map(door: &Door, ask: Ask) -> Answer {
    let request = ask.json::<MapRequest>()?;
    let _turn = ask.turn_of_new(door, "client", &request.client_id).await;
    Ok(Reply::done(StatusCode::OK, door.engine.map_application(&ask.caller, ask.km(), request).await?))
}

pub(super) async fn unmap(door: &Door, ask: Ask) -> Answer {
    let (km, ck) = (ask.km(), ask.path("ck"));
    let _turn = ask.turn(door, &["client", km, ck], || door.engine.retrieve_application(km, ck)).await?;
    let done = door.engine.delete_mapping(&ask.caller, km, ck).await?;
    Ok(Reply::done(StatusCode::NO_CONTENT, done))
}

pub(super) async fn parse(door: &Door, ask: Ask) -> Answer {
    Ok(Reply::ok(&door.engine.build_from_json(ask.km(), ask.json()?)?))
}

pub(super) async fn new_secret(door: &Door, ask: Ask) -> Answer {
    let (km, ck) = (ask.km(), ask.path("ck"));
    let _turn = ask.turn(door, &["client", km, ck], || door.engine.retrieve_application(km, ck)).await?;
    let done = door.engine.new_secret(&ask.caller, km, ck).await?;
    Ok(Reply::done(StatusCode::OK, done.map(|client_secret| NewSecret { client_secret })))
}

pub(super) async fn add_secret(door: &Door, ask: Ask) -> Answer {
    let (request, (km, ck)) = (ask.json_or_default()?, (ask.km(), ask.path("ck")));
    let _turn = ask.turn(door, &["client", km, ck], || door.engine.retrieve_application(km, ck)).await?;
    let done = door.engine.add_secret(&ask.caller, km, ck, request).await?;
    Ok(Reply::done(StatusCode::CREATED, done))
}

pub(super) async fn secrets(door: &Door, ask: Ask) -> Answer {
    let page = ask.page()?;
    let secrets = door.engine.secrets(ask.km(), ask.path("ck")).await?;
    let (items, cursor) = paged(page, secrets, |secret| &secret.secret_id);
    Ok(Reply::ok(&Secrets { items, cursor }))
}

pub(super) async fn delete_secret(door: &Door, ask: Ask) -> Answer {
    let (km, ck) = (ask.km(), ask.path("ck"));
    let _turn = ask.turn(door, &["client", km, ck], || door.engine.retrieve_application(km, ck)).await?;
    let done = door.engine.delete_secret(&ask.caller, km, ck, ask.path("id")).await?;
    Ok(Reply::done(StatusCode::NO_CONTENT, done))
}
