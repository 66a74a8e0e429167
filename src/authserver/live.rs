//! What the Key Manager asks about tokens: one for a client, what one says, which there are, and that one be no good
//! any more.

use std::sync::Arc;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{
    Provider, introspection,
    issued::Named,
    manage::{Error, Result},
    request::{Caller, Form},
    revocation, token,
};

/// What a token is asked for with.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The client.
    pub client_id: String,
    /// Its secret; none: the Key Manager vouches for it.
    pub secret: Option<Zeroizing<String>>,
    /// `grant_type`
    pub grant: String,
    /// Scopes, parted by spaces.
    pub scope: String,
    /// For the password grant.
    pub username: String,
    /// For the password grant.
    pub password: Zeroizing<String>,
    /// For the refresh grant.
    pub refresh_token: Zeroizing<String>,
    /// Seconds that it is to live; the provider's own lifetime is the most.
    pub lifetime: Option<u64>,
}

/// A token that has been issued.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The access token.
    pub access_token: Zeroizing<String>,
    /// A refresh token that came along.
    pub refresh_token: Option<Zeroizing<String>>,
    /// Seconds that it lives.
    pub expires_in: u64,
    /// Its scopes.
    pub scope: Vec<String>,
}

/// A token that is good now, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveToken {
    /// Its `jti`; of an opaque one its SHA-256, in base64url.
    pub name: String,
    /// Second of its issue.
    pub issued_at: u64,
    /// Second from which on it is no good.
    pub expires_at: u64,
    /// Whose it is; none: the client's own.
    pub user: Option<String>,
    /// Its scopes.
    pub scope: Vec<String>,
}

impl Provider {
    /// Issues a token as `/token` would, to a client that proves itself or for which the caller vouches.
    pub async fn token(&self, asked: &Asked) -> Result<Granted> {
        let caller = self.vouched(asked)?;
        let lifetime = asked.lifetime.map(|seconds| seconds.to_string()).unwrap_or_default();
        let form = Form::of([
            ("grant_type", &*asked.grant),
            ("scope", &asked.scope),
            ("username", &asked.username),
            ("password", &asked.password),
            ("refresh_token", &asked.refresh_token),
            ("validity_period", &lifetime),
        ]);
        let issued = token::issue(self, &caller, &form).await?;
        // It may have been removed meanwhile, or its secret voided.
        self.vouched(asked)?;
        Ok(Granted {
            access_token: Zeroizing::new(issued.access_token),
            refresh_token: issued.refresh_token.map(Zeroizing::new),
            expires_in: issued.expires_in,
            scope: issued.scope.unwrap_or_default().split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
        })
    }

    fn vouched(&self, asked: &Asked) -> Result<Caller> {
        let (terms, id) = (self.terms.load(), &*asked.client_id);
        let caller = match terms.client(id) {
            Some(client) => Caller::configured(id.to_owned(), client),
            None if terms.user(id).is_some() => {
                return Err(Error::Conflict("a user has that name, and so their tokens would be alike".into()));
            }
            None => Caller::recorded(Arc::unwrap_or_clone(self.recorded(id)?), &terms),
        };
        match &asked.secret {
            Some(secret) if !self.is_secret(id, secret)? => Err(Error::invalid("clientSecret", "is not the client's")),
            _ => Ok(caller),
        }
    }

    /// What introspection says of a token (RFC 7662); none: it is not good.
    pub fn said_of(&self, token: &str) -> Result<Option<Map<String, Value>>> {
        match introspection::answer(self, token)? {
            Value::Object(said) if said.get("active") == Some(&Value::Bool(true)) => Ok(Some(said)),
            _ => Ok(None),
        }
    }

    /// Whether it has issued this token, access or refresh, and somebody may still take it.
    pub fn has_issued(&self, token: &str) -> Result<bool> {
        Ok(revocation::is_live(self, token)?)
    }

    /// Revokes a token, of that client where one is named. A refresh token takes its whole grant along.
    pub async fn revoke(&self, token: &str, client: Option<&str>) -> Result<()> {
        match revocation::revoke(self, client, token).await {
            Err(refused) if refused == revocation::NOT_ITS_OWN => {
                Err(Error::invalid("consumerKey", "is not the client that the token was issued to"))
            }
            outcome => Ok(outcome?),
        }
    }

    /// The tokens of a client that are good now, oldest first: the newest hundred.
    pub fn live_tokens(&self, client: &str) -> Result<Vec<LiveToken>> {
        if !self.terms.load().has_client(client) {
            self.recorded(client)?;
        }
        Ok(self.live_names(client, self.clock.now().unix())?.into_iter().map(told).collect())
    }

    /// What the configuration says of a user, beside the name; none: there is no such user.
    pub fn user_claims(&self, name: &str) -> Option<Map<String, Value>> {
        self.terms.load().user(name).map(|user| user.claims.clone())
    }

    /// Whether its tokens are JWTs.
    pub fn issues_jwts(&self) -> bool {
        self.terms.load().form == crate::token::settings::TokenForm::Jwt
    }

    /// The time, in seconds.
    pub fn now(&self) -> u64 {
        self.clock.now().unix()
    }
}

fn told(named: Named) -> LiveToken {
    let name = named.name().to_owned();
    let Named { issued_at, expires_at, user, scope, .. } = named;
    LiveToken { name, issued_at, expires_at, user, scope }
}
