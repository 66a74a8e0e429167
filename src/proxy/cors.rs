//! CORS at the door: answers preflights where an API says what pages may do, and lets pages read answers, refusals too.
//!
//! What an API tells of itself every page may read. A preflight carries no token by the Fetch standard, so that none is
//! asked for, and it reaches no upstream. One that is not allowed is judged like any OPTIONS.

use std::sync::Arc;

use http::{
    HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    },
};

use super::{
    Body, authority,
    exchange::Exchange,
    limits,
    turn::{Outcome, Turn},
};
use crate::{
    net::{
        Fields,
        message::{Head, Response},
    },
    store::{AnswerOf, Resolution, Store, canonical, cors_origin},
};

/// The answer to a preflight for a verb that a resource lists, from a page that may use it there.
pub(super) fn preflight(turn: &mut Turn, store: &Store) -> Option<Outcome> {
    let head = &turn.head;
    if head.method != Method::OPTIONS {
        return None;
    }
    let method = Method::from_bytes(head.fields.get(ACCESS_CONTROL_REQUEST_METHOD.as_str())?).ok()?;
    // Whatever is wrong with it is left to the verdict.
    limits::admit(head, turn.body.as_ref()?, turn.raw, &turn.settings).ok()?;
    let host = authority::host(head, turn.connection.is_tls()).ok()?;
    let path = canonical(head.uri.path()).ok()?;
    let tables = store.peek();
    let Resolution::Found(target) = tables.resolve(&host, &method, &path) else { return None };
    let api = tables.apis.get(target.api as usize)?;
    let fields = api.cors.as_ref()?.preflight(&head.fields, &method)?;
    let called = &mut turn.exchange.called;
    called.api = Some(Arc::clone(&api.api));
    called.template = api.resources.get(target.resource as usize).map(|it| Arc::clone(&it.template));
    Some(Outcome::Published(answer(fields)))
}

/// Whether it is a preflight of a request that reads, by whatever page.
pub(super) fn wants_to_read(head: &Head) -> bool {
    let method = || head.fields.get(ACCESS_CONTROL_REQUEST_METHOD.as_str());
    head.method == Method::OPTIONS
        && head.fields.contains(ORIGIN.as_str())
        && matches!(method(), Some(b"GET" | b"HEAD"))
}

/// The answer to a preflight where every page may read, with whatever header fields.
pub(super) fn anyone_may_read() -> Response<Body> {
    let fields = [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "*"),
        (ACCESS_CONTROL_MAX_AGE, "7200"),
    ];
    answer(fields.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect())
}

/// To a preflight that is allowed, whichever way.
fn answer(fields: Fields) -> Response<Body> {
    Response { status: StatusCode::NO_CONTENT, fields, ..Response::new(Body::default()) }
}

/// Keeps whose page a request is from, where its API looks at that.
pub(super) fn note(exchange: &mut Exchange, head: &Head) {
    if exchange.called.api.as_deref().is_some_and(|api| api.cors.is_some()) {
        exchange.origin = cors_origin(&head.fields).map(Box::new);
    }
}

/// Lets the page read an answer, if it may.
pub(super) fn decorate(exchange: &Exchange, of: AnswerOf, fields: &mut Fields) {
    if let Some(cors) = exchange.called.api.as_deref().and_then(|api| api.cors.as_deref()) {
        cors.decorate(exchange.origin.as_deref(), of, fields);
    }
}
