//! Handlers: scopes, resources, users; at one key manager and at all.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    Door,
    answer::{Answer, Problem, Reply},
    ask::{Ask, paged},
};
use crate::keymanager::{ApiResource, Everywhere, Operation, Outcome, Scope, ScopeKey, check};

/// Keys of scopes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// Each as it stands in tokens.
    #[schema(value_type = Vec<ScopeKey>, max_items = 100)]
    pub(super) scopes: Vec<String>,
}

/// Scopes to be looked up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToValidate {
    /// Each by its key.
    #[schema(min_items = 1, max_items = 100)]
    pub(super) scopes: Vec<Scope>,
}

/// Scopes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Scopes {
    /// Each of them.
    pub(super) items: Vec<Scope>,
    /// For the next page; none: this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

/// The scopes of some APIs, by API.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ScopesByApi {
    /// Those of each.
    pub(super) items: BTreeMap<String, Vec<Scope>>,
    /// For the next page; none: this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

/// What became of it at each key manager.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Outcomes {
    /// In declared order.
    pub(super) outcomes: Vec<Outcome>,
}

/// The scopes of each key manager.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ScopesEverywhere {
    /// In declared order; of each the scopes whose keys are on this page.
    pub(super) outcomes: Vec<Outcome>,
    /// For the next page; none: this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

pub(super) async fn register(door: &Door, ask: Ask) -> Answer {
    let scope = ask.json::<Scope>()?;
    let _turn = ask.turn_of_new(door, "scope", &scope.key).await;
    Ok(Reply::done(StatusCode::CREATED, door.engine.register_scope(&ask.caller, ask.km(), scope).await?))
}

pub(super) async fn list(door: &Door, ask: Ask) -> Answer {
    let page = ask.page()?;
    if let Some(apis) = ask.query("api") {
        let (ids, cursor) = paged(page, ids(apis)?.into_iter().collect(), String::as_str);
        return Ok(Reply::ok(&ScopesByApi { items: door.engine.scopes_for_apis(ask.km(), ids).await?, cursor }));
    }
    let (items, cursor) = paged(page, door.engine.scopes(ask.km()).await?, |scope| &scope.key);
    Ok(Reply::ok(&Scopes { items, cursor }))
}

/// What `openapi` says of `api`, member by member; each once.
fn ids(apis: &str) -> Result<BTreeSet<String>, Problem> {
    let ids: Vec<String> = apis.split(',').map(str::to_owned).collect();
    if ids.len() > MOST_APIS || ids.iter().any(|id| id.starts_with(char::is_whitespace) || id.is_empty()) {
        let why = format!("must be 1 to {MOST_APIS} ids, parted by single commas, none with white space before it");
        return Err(Problem::field("api", why));
    }
    ids.iter().try_for_each(|id| check::name("api", id))?;
    Ok(ids.into_iter().collect())
}

pub(super) async fn read(door: &Door, ask: Ask) -> Answer {
    Ok(Reply::ok(&door.engine.scope(ask.km(), ask.path("key")).await?).tagged())
}

pub(super) async fn exists(door: &Door, ask: Ask) -> Answer {
    match door.engine.scope_exists(ask.km(), ask.path("key")).await? {
        true => Ok(Reply::empty(StatusCode::OK)),
        false => Err(Problem::new(StatusCode::NOT_FOUND, "there is no such scope")),
    }
}

pub(super) async fn update(door: &Door, ask: Ask) -> Answer {
    let (scope, (km, name)) = (ask.json()?, (ask.km(), ask.path("key")));
    let _turn = ask.turn(door, &["scope", km, name], || door.engine.scope(km, name)).await?;
    Ok(Reply::done(StatusCode::OK, door.engine.update_scope(&ask.caller, km, name, scope).await?))
}

pub(super) async fn delete(door: &Door, ask: Ask) -> Answer {
    let (km, name) = (ask.km(), ask.path("key"));
    let _turn = ask.turn(door, &["scope", km, name], || door.engine.scope(km, name)).await?;
    Ok(Reply::done(StatusCode::NO_CONTENT, door.engine.delete_scope(&ask.caller, km, name).await?))
}

pub(super) async fn validate(door: &Door, ask: Ask) -> Answer {
    let ToValidate { scopes } = ask.json()?;
    let keys = scopes.into_iter().map(|scope| scope.key).collect();
    let items = door.engine.validate_scopes(ask.km(), keys).await?;
    Ok(Reply::ok(&Scopes { items, cursor: None }))
}

pub(super) async fn claims(door: &Door, ask: Ask) -> Answer {
    Ok(Reply::ok(&door.engine.user_claims(ask.km(), ask.path("name")).await?))
}

pub(super) async fn register_resource(door: &Door, ask: Ask) -> Answer {
    let resource = ask.json::<ApiResource>()?;
    let _turn = ask.turn_of_new(door, "resource", &resource.api_id).await;
    Ok(Reply::done(StatusCode::CREATED, door.engine.register_resource(&ask.caller, ask.km(), resource).await?))
}

pub(super) async fn resource(door: &Door, ask: Ask) -> Answer {
    Ok(Reply::ok(&door.engine.resource(ask.km(), ask.path("apiId")).await?).tagged())
}

pub(super) async fn update_resource(door: &Door, ask: Ask) -> Answer {
    let (resource, (km, id)) = (ask.json()?, (ask.km(), ask.path("apiId")));
    let _turn = ask.turn(door, &["resource", km, id], || door.engine.resource(km, id)).await?;
    Ok(Reply::done(StatusCode::OK, door.engine.update_resource(&ask.caller, km, id, resource).await?))
}

pub(super) async fn delete_resource(door: &Door, ask: Ask) -> Answer {
    let (km, id) = (ask.km(), ask.path("apiId"));
    let _turn = ask.turn(door, &["resource", km, id], || door.engine.resource(km, id)).await?;
    Ok(Reply::done(StatusCode::NO_CONTENT, door.engine.delete_resource(&ask.caller, km, id).await?))
}

pub(super) async fn attach(door: &Door, ask: Ask) -> Answer {
    let Keys { scopes } = ask.json()?;
    bind(door, &ask, Operation::AttachResourceScopes, scopes, StatusCode::OK).await
}

pub(super) async fn replace(door: &Door, ask: Ask) -> Answer {
    let Keys { scopes } = ask.json()?;
    bind(door, &ask, Operation::UpdateResourceScopes, scopes, StatusCode::OK).await
}

/// Without a body, all. A list without keys may be one that was lost: taken for all, it would open the resource.
fn to_detach(ask: &Ask) -> Result<Vec<String>, Problem> {
    let Some(Keys { scopes }) = ask.json_if_any()? else { return Ok(Vec::new()) };
    match scopes.is_empty() {
        true => Err(Problem::field("scopes", "must name at least one; without a body all are detached")),
        false => Ok(scopes),
    }
}

pub(super) async fn detach(door: &Door, ask: Ask) -> Answer {
    let scopes = to_detach(&ask)?;
    bind(door, &ask, Operation::DetachResourceScopes, scopes, StatusCode::NO_CONTENT).await
}

async fn bind(door: &Door, ask: &Ask, operation: Operation, keys: Vec<String>, status: StatusCode) -> Answer {
    let (km, id) = (ask.km(), ask.path("apiId"));
    let _turn = ask.turn(door, &["resource", km, id], || door.engine.resource(km, id)).await?;
    Ok(Reply::done(status, door.engine.bind_scopes(&ask.caller, km, operation, id, keys).await?))
}

pub(super) async fn register_everywhere(door: &Door, ask: Ask) -> Answer {
    everywhere(door, &ask, Everywhere::RegisterScope(ask.json()?)).await
}

/// A page is of keys: a scope that several have is on the same page at each.
pub(super) async fn list_everywhere(door: &Door, ask: Ask) -> Answer {
    fn key(scope: &Value) -> &str {
        scope.get("key").and_then(Value::as_str).unwrap_or_default()
    }
    let page = ask.page()?;
    let read = |engine: std::sync::Arc<crate::keymanager::Engine>, name: String| async move {
        engine.scopes(&name).await.map(|scopes| json!(scopes))
    };
    let mut outcomes = door.engine.read_everywhere(read).await;
    nowhere(&outcomes)?;
    let scopes = outcomes.iter().filter_map(|outcome| outcome.result.as_array()).flatten();
    let keys: BTreeSet<&str> = scopes.map(key).collect();
    let (keys, cursor) = paged(page, keys.into_iter().map(str::to_owned).collect(), String::as_str);
    for scopes in outcomes.iter_mut().filter_map(|outcome| outcome.result.as_array_mut()) {
        scopes.retain(|scope| keys.binary_search_by(|it| it.as_str().cmp(key(scope))).is_ok());
        scopes.sort_by(|a, b| key(a).cmp(key(b)));
    }
    Ok(Reply::ok(&ScopesEverywhere { outcomes, cursor }))
}

pub(super) async fn read_everywhere(door: &Door, ask: Ask) -> Answer {
    let key = ask.path("key").to_owned();
    check::scope_key("key", &key)?;
    let read = move |engine: std::sync::Arc<crate::keymanager::Engine>, name: String| {
        let key = key.clone();
        async move { engine.scope(&name, &key).await.map(|scope| json!(scope)) }
    };
    found(door.engine.read_everywhere(read).await)
}

pub(super) async fn update_everywhere(door: &Door, ask: Ask) -> Answer {
    everywhere(door, &ask, Everywhere::UpdateScope(ask.path("key").to_owned(), ask.json::<Scope>()?)).await
}

pub(super) async fn delete_everywhere(door: &Door, ask: Ask) -> Answer {
    everywhere(door, &ask, Everywhere::DeleteScope(ask.path("key").to_owned())).await
}

pub(super) async fn register_resource_everywhere(door: &Door, ask: Ask) -> Answer {
    everywhere(door, &ask, Everywhere::RegisterResource(ask.json()?)).await
}

pub(super) async fn resource_everywhere(door: &Door, ask: Ask) -> Answer {
    let id = ask.path("apiId").to_owned();
    check::name("apiId", &id)?;
    let read = move |engine: std::sync::Arc<crate::keymanager::Engine>, name: String| {
        let id = id.clone();
        async move { engine.resource(&name, &id).await.map(|resource| json!(resource)) }
    };
    found(door.engine.read_everywhere(read).await)
}

pub(super) async fn update_resource_everywhere(door: &Door, ask: Ask) -> Answer {
    let resource = ask.json::<ApiResource>()?;
    everywhere(door, &ask, Everywhere::UpdateResource(ask.path("apiId").to_owned(), resource)).await
}

pub(super) async fn delete_resource_everywhere(door: &Door, ask: Ask) -> Answer {
    everywhere(door, &ask, Everywhere::DeleteResource(ask.path("apiId").to_owned())).await
}

pub(super) async fn attach_everywhere(door: &Door, ask: Ask) -> Answer {
    let Keys { scopes } = ask.json()?;
    let id = ask.path("apiId").to_owned();
    everywhere(door, &ask, Everywhere::BindScopes(Operation::AttachResourceScopes, id, scopes)).await
}

pub(super) async fn replace_everywhere(door: &Door, ask: Ask) -> Answer {
    let Keys { scopes } = ask.json()?;
    let id = ask.path("apiId").to_owned();
    everywhere(door, &ask, Everywhere::BindScopes(Operation::UpdateResourceScopes, id, scopes)).await
}

pub(super) async fn detach_everywhere(door: &Door, ask: Ask) -> Answer {
    let scopes = to_detach(&ask)?;
    let id = ask.path("apiId").to_owned();
    everywhere(door, &ask, Everywhere::BindScopes(Operation::DetachResourceScopes, id, scopes)).await
}

/// 200 where all is done that can be, 202 where some is tried again; 200 for a dry run, after which nothing is. Where it failed everywhere, the status on which all
/// agree if it is the caller's to mend, and the field; else 502; where none of them can do it, 501.
async fn everywhere(door: &Door, ask: &Ask, change: Everywhere) -> Answer {
    let outcomes = door.engine.everywhere(&ask.caller, change).await?;
    nowhere(&outcomes)?;
    let waits = !ask.caller.dry_run && outcomes.iter().any(|outcome| outcome.outcome == "pending");
    Ok(Reply::json(if waits { StatusCode::ACCEPTED } else { StatusCode::OK }, &Outcomes { outcomes }))
}

/// Refuses what came to nothing at every key manager: an answer of success would say that something was done or read.
fn nowhere(outcomes: &[Outcome]) -> Result<(), Problem> {
    let any = |what: &[&str]| outcomes.iter().any(|outcome| what.contains(&&*outcome.outcome));
    match any(&["done", "dry_run", "pending"]) {
        true => Ok(()),
        false if any(&["failed"]) => Err(failed_everywhere(outcomes)),
        false => Err(unsupported_everywhere(outcomes)),
    }
}

fn unsupported_everywhere(outcomes: &[Outcome]) -> Problem {
    let why = match outcomes {
        [] => "there is no key manager".to_owned(),
        all => told(all.iter()),
    };
    Problem::new(StatusCode::NOT_IMPLEMENTED, why).code("901413")
}

/// What each says of it.
fn told<'o>(outcomes: impl Iterator<Item = &'o Outcome>) -> String {
    let each = |it: &Outcome| format!("{}: {}", it.key_manager, it.detail.as_deref().unwrap_or_default());
    outcomes.map(each).collect::<Vec<_>>().join("; ")
}

/// What each has of it: 404 where every one that can be asked says that it has none. One that says so has answered, and
/// others that could not be asked may have it: then each outcome is listed.
fn found(outcomes: Vec<Outcome>) -> Answer {
    let has_none = |it: &Outcome| it.error.clone().is_some_and(|error| Problem::from(error).status == 404);
    let some_differ = outcomes.iter().any(|it| it.outcome == "failed" && !has_none(it));
    if !(some_differ && outcomes.iter().any(has_none)) {
        nowhere(&outcomes)?;
    }
    Ok(Reply::ok(&Outcomes { outcomes }))
}

fn failed_everywhere(outcomes: &[Outcome]) -> Problem {
    let failed = || outcomes.iter().filter(|it| it.outcome == "failed");
    let mut statuses = failed().filter_map(|it| it.error.clone()).map(|error| Problem::from(error).status);
    let first = statuses.next().filter(|first| *first < 500 && statuses.all(|status| status == *first));
    let status = first.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut fields = failed().map(|it| it.error.clone().and_then(|error| Problem::from(error).field));
    let first = fields.next().flatten().filter(|first| fields.all(|field| field.as_ref() == Some(first)));
    Problem { field: first, ..Problem::new(status, told(failed())) }
}

const MOST_APIS: usize = 100;
