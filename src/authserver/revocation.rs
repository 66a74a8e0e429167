//! `POST /revoke` (RFC 7009): a client gives up one of its own tokens. Durable, and in force at every door of this
//! process, before the answer goes out.
//!
//! A refresh token takes its whole grant along: the refresh tokens after it, and the access tokens that came with
//! them.

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use http::{Request, StatusCode};
use serde_json::Value;

use super::{
    Provider,
    error::{Error, unkept},
    introspection, random, request,
};

pub(super) async fn endpoint(State(provider): State<Arc<Provider>>, request: Request<Body>) -> Response {
    let revoked = async {
        let (caller, form) = request::authenticated(&provider, request).await?;
        let token = form.get("token").ok_or(Error::InvalidRequest("token is missing"))?;
        revoke(&provider, Some(&caller.id), token).await
    };
    unkept(revoked.await.map(|()| StatusCode::OK))
}

/// A token that is unknown or dead needs no revoking, and that is no error (section 2.2). Which kind it is shows in
/// the token itself: the hint is of no use here. `client`: whose it must be.
pub(super) async fn revoke(provider: &Provider, client: Option<&str>, token: &str) -> Result<(), Error> {
    let (state, now) = (provider.state()?, provider.clock.now().unix());
    if token.starts_with(random::REFRESH) {
        let Some(row) = state.refresh(&random::digest(token), now)? else { return Ok(()) };
        if client.is_some_and(|client| row.client != client) {
            return Err(NOT_ITS_OWN);
        }
        return Ok(state.revoke_family(row.family).await?);
    }
    // Who judges it may be lenient: for as long it needs revoking.
    let grace = provider.terms.load().leeway;
    let Some(live) = introspection::live(provider, token, grace)? else { return Ok(()) };
    if client.is_some() && live.claims.get("client_id").and_then(Value::as_str) != client {
        return Err(NOT_ITS_OWN);
    }
    match state.revoke_access(live.access, live.expires_at, now).await? {
        true => Ok(()),
        false => Err(Error::Full("too many tokens are revoked")),
    }
}

/// Whether there is something to revoke.
pub(super) fn is_live(provider: &Provider, token: &str) -> Result<bool, Error> {
    if token.starts_with(random::REFRESH) {
        let now = provider.clock.now().unix();
        return Ok(provider.state()?.refresh(&random::digest(token), now)?.is_some());
    }
    let grace = provider.terms.load().leeway;
    Ok(introspection::live(provider, token, grace)?.is_some())
}

pub(super) const NOT_ITS_OWN: Error = Error::UnauthorizedClient("the token was issued to another client");
