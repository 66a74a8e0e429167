//! `POST /token`: the grants client_credentials (RFC 6749 section 4.4), password (section 4.3, only where users are
//! configured: for tests and demos) and refresh_token (section 6).
//!
//! A refresh token is good once: each use gives another, and one that is brought again ends its whole family, since
//! it has two holders (RFC 9700 section 4.14). Access tokens are JWTs by RFC 9068, or random texts of which only the
//! digest is kept. A client may ask for a shorter life than the provider gives, in seconds: `validity_period`, as at
//! WSO2's token endpoint.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State, response::Response};
use http::Request;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    Provider,
    clients::GrantType,
    error::{Error, unkept},
    issued::Named,
    random::{self, Digest},
    request::{self, Caller, Form},
    state::{Access, Issue, Opaque, Refresh, Rotation},
    terms::{Terms, User},
};
use crate::{store::TokenFacts, token::settings::TokenForm};

/// What a client gets (RFC 6749 section 5.1).
#[derive(Serialize)]
pub(super) struct Issued {
    pub(super) access_token: String,
    token_type: &'static str,
    pub(super) expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<String>,
}

/// An access token, not yet handed out.
struct Minted {
    text: String,
    issue: Issue,
}

pub(super) async fn endpoint(State(provider): State<Arc<Provider>>, request: Request<Body>) -> Response {
    let issued = async {
        let (credentials, form) = request::brought(request).await?;
        let caller = request::authenticate(&provider, &credentials)?;
        let issued = issue(&provider, &caller, &form).await?;
        // Its secret may have been voided meanwhile, and with it what was issued before: this one was not yet named.
        request::authenticate(&provider, &credentials)?;
        Ok(issued)
    };
    unkept(issued.await.map(Json))
}

/// Issues what the form asks for to an authenticated client.
pub(super) async fn issue(provider: &Provider, caller: &Caller, form: &Form) -> Result<Issued, Error> {
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
    let may_have = provider.may_have(terms, caller, None, form.get("scope"))?;
    let scope = granted_scope(&texts(&may_have), form.get("scope"))?;
    let lifetime = lifetime(terms, caller.lifetimes.application, form)?;
    let minted = mint(provider, terms, &caller.id, None, &scope, lifetime, now)?;
    // A JWT needs no row: it speaks for itself.
    if minted.issue.opaque.is_some() && !provider.state()?.issue(minted.issue.clone(), None, now).await? {
        return Err(TOO_MANY);
    }
    provider.names.note(&caller.id, minted.named(&scope, None, now));
    Ok(issued(minted.text, lifetime, &scope, None))
}

async fn password(provider: &Provider, terms: &Terms, caller: &Caller, form: &Form, now: u64) -> Result<Issued, Error> {
    let name = form.get("username").ok_or(Error::InvalidRequest("username is missing"))?;
    let password = form.get("password").ok_or(Error::InvalidRequest("password is missing"))?;
    let user = terms.authenticate_user(name, password).ok_or(Error::InvalidGrant("wrong user name or password"))?;
    let may_have = provider.may_have(terms, caller, Some(user), form.get("scope"))?;
    let scope = granted_scope(&texts(&may_have), form.get("scope"))?;
    let lifetime = lifetime(terms, caller.lifetimes.user, form)?;
    let minted = mint(provider, terms, &caller.id, Some((name, user)), &scope, lifetime, now)?;
    let (text, digest) = refresh_text()?;
    let refresh = Refresh {
        family: random::id()?,
        client: caller.id.clone(),
        subject: name.to_owned(),
        scope: scope.iter().map(|scope| (*scope).to_owned()).collect(),
        issued_at: now,
        expires_at: now.saturating_add(refresh_lifetime(terms, caller)),
        used: false,
    };
    // A client that is registered without the grant could do nothing with it.
    let wants = caller.grants.as_ref().is_none_or(|grants| grants.contains(&GrantType::RefreshToken));
    let refresh = wants.then_some((digest, refresh));
    if !provider.state()?.issue(minted.issue.clone(), refresh, now).await? {
        return Err(TOO_MANY);
    }
    provider.names.note(&caller.id, minted.named(&scope, Some(name), now));
    Ok(issued(minted.text, lifetime, &scope, wants.then_some(text)))
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
        own_subject: None,
        issued_at: Some(before.issued_at),
    };
    let user = terms.user(&before.subject).filter(|_| !state.is_revoked(facts)).ok_or(NO_GOOD)?;
    let mut may_have = provider.may_have(terms, caller, Some(user), Some(&before.scope.join(" ")))?;
    may_have.retain(|scope| before.scope.contains(scope));
    let scope = granted_scope(&texts(&may_have), form.get("scope"))?;
    let lifetime = lifetime(terms, caller.lifetimes.user, form)?;
    let minted = mint(provider, terms, &caller.id, Some((&before.subject, user)), &scope, lifetime, now)?;
    let named = minted.named(&scope, Some(&before.subject), now);
    let (text, digest) = refresh_text()?;
    let expires_at = now.saturating_add(refresh_lifetime(terms, caller));
    let next = Refresh { issued_at: now, expires_at, used: false, ..before };
    match state.rotate(old, (digest, next), minted.issue, now).await? {
        Rotation::Done => {
            provider.names.note(&caller.id, named);
            Ok(issued(minted.text, lifetime, &scope, Some(text)))
        }
        Rotation::Invalid => Err(NO_GOOD),
        Rotation::Reused if state.record.is_rehearsal() => Err(NO_GOOD),
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
    user: Option<(&str, &User)>,
    scope: &[&str],
    lifetime: u64,
    now: u64,
) -> Result<Minted, Error> {
    let jti = random::id()?;
    let expires_at = now.saturating_add(lifetime);
    let subject = user.map_or(client, |(name, _)| name);
    let mut claims: Map<String, Value> = user.map(|(_, user)| user.claims.clone()).unwrap_or_default();
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

fn issued(access_token: String, expires_in: u64, scope: &[&str], refresh_token: Option<String>) -> Issued {
    let scope = (!scope.is_empty()).then(|| scope.join(" "));
    Issued { access_token, token_type: "Bearer", expires_in, scope, refresh_token }
}

impl Minted {
    fn named(&self, scope: &[&str], user: Option<&str>, now: u64) -> Named {
        Named {
            access: self.issue.access.clone(),
            issued_at: now,
            expires_at: self.issue.expires_at,
            user: user.map(str::to_owned),
            scope: scope.iter().map(|scope| (*scope).to_owned()).collect(),
        }
    }
}

/// Seconds that an access token lives: the least of what the provider, the client and the request say.
fn lifetime(terms: &Terms, of_client: Option<u64>, form: &Form) -> Result<u64, Error> {
    let longest = of_client.map_or(terms.lifetime, |seconds| seconds.min(terms.lifetime));
    match form.get("validity_period").map(str::parse::<u64>) {
        None => Ok(longest),
        Some(Ok(asked @ 1..)) => Ok(asked.min(longest)),
        Some(_) => Err(Error::InvalidRequest("validity_period must be a whole number of seconds, at least 1")),
    }
}

fn refresh_lifetime(terms: &Terms, caller: &Caller) -> u64 {
    caller.lifetimes.refresh.map_or(terms.refresh_lifetime, |seconds| seconds.min(terms.refresh_lifetime))
}

fn texts(scopes: &[String]) -> Vec<&str> {
    scopes.iter().map(String::as_str).collect()
}

fn refresh_text() -> Result<(String, Digest), Error> {
    let text = random::secret(random::REFRESH)?;
    let digest = random::digest(&text);
    Ok((text, digest))
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
