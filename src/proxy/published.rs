//! What the door answers itself, without a look at credentials: the keys of the backend JWTs, what APIs tell of
//! themselves (RFC 9728), and preflights ([`cors`]).
//!
//! Documents only at their very path, by GET or HEAD; everything else is judged like any request.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, header};

use super::{
    Body, Proxy, authority, cors, limits,
    turn::{Outcome, Turn},
};
use crate::{
    net::message::{Head, Response},
    store::{Store, WELL_KNOWN},
};

impl<J> Proxy<J> {
    /// The answer to a request that is no call of an API.
    pub(super) fn published(&self, turn: &mut Turn) -> Option<Outcome> {
        let store = &self.shared.store;
        self.keys(&turn.head).or_else(|| metadata(turn, store)).or_else(|| cors::preflight(turn, store))
    }

    /// The keys of the backend JWTs, for whoever asks for them where they are published (RFC 7517).
    fn keys(&self, head: &Head) -> Option<Outcome> {
        let assertions = self.shared.assertions.load();
        let assertions = assertions.as_ref().filter(|it| it.jwks_path() == head.uri.path())?;
        is_read(head).then(|| Outcome::Published(document(head, "application/jwk-set+json", assertions.jwks())))
    }
}

/// What the API that is named by the path tells of itself. Whatever is wrong with the request is left to the verdict.
fn metadata(turn: &mut Turn, store: &Store) -> Option<Outcome> {
    let head = &turn.head;
    let path = head.uri.path();
    let preflight = cors::wants_to_read(head);
    if !path.starts_with(WELL_KNOWN) || !(is_read(head) || preflight) {
        return None;
    }
    limits::admit(head, turn.body.as_ref()?, turn.raw, &turn.settings).ok()?;
    let host = authority::host(head, turn.connection.is_tls()).ok()?;
    let tables = store.peek();
    let api = &tables.apis.get(tables.metadata(&host, path)? as usize)?.api;
    turn.exchange.called.api = Some(Arc::clone(api));
    // Clients in browsers find their way by it too; there is nothing in it that is not everyone's.
    if preflight {
        return Some(Outcome::Published(cors::anyone_may_read()));
    }
    let mut response = document(head, "application/json", api.metadata.as_ref()?.document.clone());
    response.fields.push(&header::ACCESS_CONTROL_ALLOW_ORIGIN, &HeaderValue::from_static("*"));
    Some(Outcome::Published(response))
}

fn is_read(head: &Head) -> bool {
    matches!(head.method, Method::GET | Method::HEAD)
}

fn document(head: &Head, kind: &'static str, bytes: Bytes) -> Response<Body> {
    let length = HeaderValue::from(bytes.len());
    let body = if head.method == Method::GET { Body::full(bytes) } else { Body::default() };
    let mut response = Response::new(body);
    let fields = &mut response.fields;
    fields.push(&header::CONTENT_TYPE, &HeaderValue::from_static(kind));
    fields.push(&header::CONTENT_LENGTH, &length);
    fields.push(&header::CACHE_CONTROL, &HeaderValue::from_static("public, max-age=300"));
    response
}
