//! Handlers: key managers themselves, what waits at them, the audit.

use std::{collections::BTreeMap, sync::Arc};

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Door,
    answer::{Answer, Problem, Reply},
    ask::{Ask, paged},
};
use crate::keymanager::{AuditEntry, Done, KeyManagerConfiguration, Managed, Pending};

/// The key managers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyManagers {
    /// In the order of their names.
    pub(super) items: Vec<KeyManagerConfiguration>,
    /// For the next page; none: this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

/// What each operation can do: true, or why not. Where only the provider tells and it cannot be asked, `undiscovered` says
/// why: what is not known of it counts as true.
#[derive(Debug, Serialize, ToSchema)]
#[serde(transparent)]
pub(super) struct Capabilities(BTreeMap<&'static str, Value>);

/// A page of what waits.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PendingPage {
    /// In the order it came.
    pub(super) items: Vec<Pending>,
    /// For the next page; none: this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

/// A page of the audit.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditPage {
    /// Oldest first.
    pub(super) items: Vec<AuditEntry>,
    /// For the next page; none: this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

pub(super) async fn list(door: &Door, ask: Ask) -> Answer {
    let managers = door.engine.registry.all().iter().cloned().collect();
    let (managers, cursor) = paged(ask.page()?, managers, |it: &Arc<Managed>| it.name());
    let items: Result<Vec<_>, _> = managers.iter().map(|it| door.engine.configuration(it.name())).collect();
    Ok(Reply::ok(&KeyManagers { items: items?, cursor }))
}

pub(super) async fn read(door: &Door, ask: Ask) -> Answer {
    Ok(Reply::ready(&door.engine.registry.shown(ask.km())?))
}

pub(super) async fn put(door: &Door, ask: Ask) -> Answer {
    let (body, km) = (ask.json()?, ask.km());
    let _turn = ask.turn(door, &["key-manager", km], || async { door.engine.configuration(km) }).await?;
    Ok(match door.engine.load_configuration(&ask.caller, km, body).await? {
        Done::Did(loaded) => {
            let status = if loaded.new { StatusCode::CREATED } else { StatusCode::OK };
            Reply::json(status, &loaded.configuration)
        }
        Done::Would(plan) => Reply::ok(&plan),
    })
}

pub(super) async fn delete(door: &Door, ask: Ask) -> Answer {
    let km = ask.km();
    let _turn = ask.turn(door, &["key-manager", km], || async { door.engine.configuration(km) }).await?;
    Ok(Reply::done(StatusCode::NO_CONTENT, door.engine.delete_configuration(&ask.caller, km).await?))
}

pub(super) async fn capabilities(door: &Door, ask: Ask) -> Answer {
    Ok(Reply::ok(&Capabilities(door.engine.capabilities(ask.km()).await?)))
}

pub(super) async fn pending(door: &Door, ask: Ask) -> Answer {
    let (limit, after) = ask.numbered_page()?;
    let mut items = door.engine.pending(ask.km(), after, limit + 1)?;
    let more = items.len() > limit;
    items.truncate(limit);
    let cursor = items.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Reply::ok(&PendingPage { items, cursor }))
}

pub(super) async fn forget(door: &Door, ask: Ask) -> Answer {
    let id =
        ask.path("id").parse().map_err(|_| Problem::new(StatusCode::NOT_FOUND, "there is no such pending change"))?;
    Ok(Reply::done(StatusCode::NO_CONTENT, door.engine.forget_pending(&ask.caller, ask.km(), id).await?))
}

pub(super) async fn audit(door: &Door, ask: Ask) -> Answer {
    let (limit, after) = ask.numbered_page()?;
    let mut items = door.engine.audit(after, limit + 1)?;
    let more = items.len() > limit;
    items.truncate(limit);
    let cursor = items.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Reply::ok(&AuditPage { items, cursor }))
}
