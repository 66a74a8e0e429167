//! What a token says now: `POST /introspect` (RFC 7662), and the same answer without a socket for the gate in this
//! process.
//!
//! Any authenticated client may ask about any access token, as at Keycloak and behind ORY Hydra's admin door:
//! resource servers are clients, and a token is only told to who already has it. A refresh token is never active
//! here, so that nobody takes it for an access token.

use std::{future::ready, sync::Arc};

use axum::{Json, body::Body, extract::State, response::Response};
use http::Request;
use serde_json::{Map, Value, json};

use super::{
    Provider,
    error::{Error, unkept},
    random::{self, Digest},
    request,
    state::Access,
};
use crate::{
    store::{TokenFacts, TokenSha256},
    token::{AnswerForm, Introspect, IntrospectError, IntrospectFuture, IntrospectionAnswer},
};

/// An access token that is good now.
pub(super) struct Live {
    pub(super) claims: Map<String, Value>,
    pub(super) access: Access,
    pub(super) expires_at: u64,
}

pub(super) async fn endpoint(State(provider): State<Arc<Provider>>, request: Request<Body>) -> Response {
    let answer = async {
        let (_, form) = request::authenticated(&provider, request).await?;
        let token = form.get("token").ok_or(Error::InvalidRequest("token is missing"))?;
        answer(&provider, token)
    };
    unkept(answer.await.map(Json))
}

/// The answer to "is it active?".
pub(super) fn answer(provider: &Provider, token: &str) -> Result<Value, Error> {
    let Some(Live { mut claims, .. }) = live(provider, token, 0)? else { return Ok(json!({ "active": false })) };
    let for_user = claims.get("sub") != claims.get("client_id");
    if let (true, Some(subject)) = (for_user, claims.get("sub").cloned()) {
        claims.insert("username".to_owned(), subject);
    }
    claims.insert("active".to_owned(), json!(true));
    claims.insert("token_type".to_owned(), json!("Bearer"));
    // WSO2's word for whose token it is.
    claims.insert("aut".to_owned(), json!(if for_user { "APPLICATION_USER" } else { "APPLICATION" }));
    Ok(Value::Object(claims))
}

/// The access token, if it is ours, has not expired for longer than `grace` seconds and is not revoked.
pub(super) fn live(provider: &Provider, token: &str, grace: u64) -> Result<Option<Live>, Error> {
    let (state, now) = (provider.state()?, provider.clock.now().unix().saturating_sub(grace));
    let digest = random::digest(token);
    let found = match token.starts_with(random::OPAQUE) {
        true => state.opaque(&digest, now)?.map(|row| (row.claims, Access::Token((&digest).into()))),
        false => provider.keys()?.verify(token).and_then(|claims| {
            let jti = claims.get("jti")?.as_str()?.to_owned();
            Some((claims, Access::Jti(jti)))
        }),
    };
    let Some((claims, access)) = found else { return Ok(None) };
    let expires_at = claims.get("exp").and_then(Value::as_u64).unwrap_or_default();
    let ours = claims.get("iss").and_then(Value::as_str) == Some(&*provider.issuer);
    if !ours || expires_at <= now || state.is_revoked(facts(&claims, &digest)) {
        return Ok(None);
    }
    Ok(Some(Live { claims, access, expires_at }))
}

fn facts<'a>(claims: &'a Map<String, Value>, digest: &'a Digest) -> TokenFacts<'a> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    TokenFacts {
        issuer: "",
        jti: text("jti"),
        token_sha256: Some(TokenSha256::Is(digest)),
        consumer_key: text("client_id"),
        subject: text("sub"),
        own_subject: None,
        issued_at: claims.get("iat").and_then(Value::as_u64),
    }
}

impl Introspect for Provider {
    fn introspect<'a>(&'a self, token: &'a str) -> IntrospectFuture<'a> {
        let answer = answer(self, token)
            .map(|answer| IntrospectionAnswer { body: answer.to_string().into(), form: AnswerForm::Json })
            .map_err(|_| IntrospectError::Answer("the embedded provider cannot use its record".into()));
        Box::pin(ready(answer))
    }
}
