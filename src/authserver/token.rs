//! `POST /token`: the grants client_credentials (RFC 6749 section 4.4), password (section 4.3, only where users are
//! configured: for tests and demos) and refresh_token (section 6).
//!
//! A refresh token is good once: each use gives another, and one that is brought again ends its whole family, since
//! it has two holders (RFC 9700 section 4.14). Access tokens are JWTs by RFC 9068, or random texts of which only the
//! digest is kept.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State, response::Response};
use http::Request;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    Provider,
    error::{Error, unkept},
    random::{self, Digest},
    registration::GrantType,
    request::{self, Caller, Form},
    state::{Access, Issue, Opaque, Refresh, Rotation},
    terms::{Terms, User},
};
use crate::{store::TokenFacts, token::settings::TokenForm};

/// What a client gets (RFC 6749 section 5.1).
#[derive(Serialize)]
struct Issued {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

/// An access token, not yet handed out.
struct Minted {
    text: String,
    issue: Issue,
}

pub(super) async fn endpoint(State(provider): State<Arc<Provider>>, request: Request<Body>) -> Response {
    let issued = async {
        let (caller, form) = request::authenticated(&provider, request).await?;
        issue(&provider, &caller, &form).await
    };
    unkept(issued.await.map(Json))
}

async fn issue(provider: &Provider, caller: &Caller, form: &Form) -> Result<Issued, Error> {
    let name = form.get("grant_type").ok_or(Error::InvalidRequest("grant_type is missing"))?;
    let terms = provider.terms.load_full();
    let grant = GrantType::of(name).filter(|grant| *grant != GrantType::Password || terms.has_users());
    let grant = grant.ok_or(Error::UnsupportedGrantType)?;
    if caller.grants.as_ref().is_some_and(|grants| !grants.contains(&grant)) {
        return Err(Error::UnauthorizedClient("the client is not registered for this grant"));
    }
    let now = provider.clock.now().unix();
    match grant {
        GrantType::ClientCredentials => client_credentials(provider, &terms, caller, form, now).await,
        GrantType::Password => password(provider, &terms, caller, form, now).await,
        GrantType::RefreshToken => refresh(provider, &terms, caller, form, now).await,
    }
}

async fn client_credentials(
    provider: &Provider,
    terms: &Terms,
    caller: &Caller,
    form: &Form,
    now: u64,
) -> Result<Issued, Error> {
    let may_have: Vec<&str> = caller.scopes.iter().map(|scope| &**scope).collect();
    let scope = granted_scope(&may_have, form.get("scope"))?;
    let minted = mint(provider, terms, &caller.id, &caller.id, &scope, None, now)?;
    // A JWT needs no row: it speaks for itself.
    if minted.issue.opaque.is_some() && !provider.state()?.issue(minted.issue, None, now).await? {
        return Err(TOO_MANY);
    }
    Ok(issued(terms, minted.text, &scope, None))
}

async fn password(provider: &Provider, terms: &Terms, caller: &Caller, form: &Form, now: u64) -> Result<Issued, Error> {
    let name = form.get("username").ok_or(Error::InvalidRequest("username is missing"))?;
    let password = form.get("password").ok_or(Error::InvalidRequest("password is missing"))?;
    let user = terms.authenticate_user(name, password).ok_or(Error::InvalidGrant("wrong user name or password"))?;
    let scope = granted_scope(&scopes_of_both(caller, user), form.get("scope"))?;
    let minted = mint(provider, terms, &caller.id, name, &scope, Some(user), now)?;
    let (text, digest) = refresh_text()?;
    let refresh = Refresh {
        family: random::id()?,
        client: caller.id.clone(),
        subject: name.to_owned(),
        scope: scope.iter().map(|scope| (*scope).to_owned()).collect(),
        issued_at: now,
        expires_at: now.saturating_add(terms.refresh_lifetime),
        used: false,
    };
    // A client that is registered without the grant could do nothing with it.
    let wants = caller.grants.as_ref().is_none_or(|grants| grants.contains(&GrantType::RefreshToken));
    let refresh = wants.then_some((digest, refresh));
    if !provider.state()?.issue(minted.issue, refresh, now).await? {
        return Err(TOO_MANY);
    }
    Ok(issued(terms, minted.text, &scope, wants.then_some(text)))
}

async fn refresh(provider: &Provider, terms: &Terms, caller: &Caller, form: &Form, now: u64) -> Result<Issued, Error> {
    let brought = form.get("refresh_token").ok_or(Error::InvalidRequest("refresh_token is missing"))?;
    let state = provider.state()?;
    let old = random::digest(brought);
    // One answer for all that is no good: whoever tries learns nothing.
    let before = state.refresh(&old, now)?.filter(|row| row.client == caller.id).ok_or(NO_GOOD)?;
    let facts = TokenFacts {
        issuer: "",
        jti: None,
        token_sha256: None,
        consumer_key: Some(&before.client),
        subject: Some(&before.subject),
        issued_at: Some(before.issued_at),
    };
    let user = terms.user(&before.subject).filter(|_| !state.is_revoked(facts)).ok_or(NO_GOOD)?;
    let mut may_have = scopes_of_both(caller, user);
    may_have.retain(|scope| before.scope.iter().any(|granted| granted == scope));
    let scope = granted_scope(&may_have, form.get("scope"))?;
    let minted = mint(provider, terms, &caller.id, &before.subject, &scope, Some(user), now)?;
    let (text, digest) = refresh_text()?;
    let expires_at = now.saturating_add(terms.refresh_lifetime);
    let next = Refresh { issued_at: now, expires_at, used: false, ..before };
    match state.rotate(old, (digest, next), minted.issue, now).await? {
        Rotation::Done => Ok(issued(terms, minted.text, &scope, Some(text))),
        Rotation::Invalid => Err(NO_GOOD),
        Rotation::Reused => {
            tracing::warn!(client = caller.id, "a refresh token was brought twice: its family is revoked");
            Err(NO_GOOD)
        }
        Rotation::Full => Err(TOO_MANY),
    }
}

/// An access token for these claims, signed or drawn; it counts once its row, if it has one, is written.
fn mint(
    provider: &Provider,
    terms: &Terms,
    client: &str,
    subject: &str,
    scope: &[&str],
    user: Option<&User>,
    now: u64,
) -> Result<Minted, Error> {
    let jti = random::id()?;
    let expires_at = now.saturating_add(terms.lifetime);
    let mut claims: Map<String, Value> = user.map(|user| user.claims.clone()).unwrap_or_default();
    let audience = match terms.audience.as_slice() {
        [one] => json!(one),
        many => json!(many),
    };
    claims.extend([
        ("iss".to_owned(), json!(provider.issuer)),
        ("sub".to_owned(), json!(subject)),
        ("client_id".to_owned(), json!(client)),
        ("aud".to_owned(), audience),
        ("iat".to_owned(), json!(now)),
        ("exp".to_owned(), json!(expires_at)),
        ("jti".to_owned(), json!(jti)),
    ]);
    if !scope.is_empty() {
        claims.insert("scope".to_owned(), json!(scope.join(" ")));
    }
    match terms.form {
        TokenForm::Jwt => {
            let text = provider.keys()?.current().sign("at+jwt", &claims).map_err(|error| {
                tracing::error!(%error, "a token cannot be signed");
                Error::Server
            })?;
            Ok(Minted { text, issue: Issue { access: Access::Jti(jti), expires_at, opaque: None } })
        }
        TokenForm::Opaque => {
            let text = random::secret(random::OPAQUE)?;
            let access = Access::Token((&random::digest(&text)).into());
            Ok(Minted { text, issue: Issue { access, expires_at, opaque: Some(Opaque { claims, expires_at }) } })
        }
    }
}

fn issued(terms: &Terms, access_token: String, scope: &[&str], refresh_token: Option<String>) -> Issued {
    let scope = (!scope.is_empty()).then(|| scope.join(" "));
    Issued { access_token, token_type: "Bearer", expires_in: terms.lifetime, scope, refresh_token }
}

fn refresh_text() -> Result<(String, Digest), Error> {
    let text = random::secret(random::REFRESH)?;
    let digest = random::digest(&text);
    Ok((text, digest))
}

/// Scopes of the client that the user may have too.
fn scopes_of_both<'a>(caller: &'a Caller, user: &User) -> Vec<&'a str> {
    let may = |scope: &&str| user.scopes.iter().any(|own| **own == **scope);
    caller.scopes.iter().map(|scope| &**scope).filter(may).collect()
}

/// The scopes asked for, if all of them may be had; all that may be had when none is asked for.
fn granted_scope<'a>(may_have: &[&'a str], asked: Option<&str>) -> Result<Vec<&'a str>, Error> {
    let mut granted: Vec<&str> = Vec::new();
    for asked in asked.unwrap_or_default().split(' ').filter(|scope| !scope.is_empty()) {
        let scope = may_have.iter().find(|scope| **scope == asked).ok_or(Error::InvalidScope)?;
        if !granted.contains(scope) {
            granted.push(scope);
        }
    }
    if granted.is_empty() {
        granted = may_have.to_vec();
    }
    Ok(granted)
}

const NO_GOOD: Error = Error::InvalidGrant("the refresh token is no good");
const TOO_MANY: Error = Error::Full("too many tokens are alive");
