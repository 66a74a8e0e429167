//! Our own access token at a provider (RFC 6749 section 4.4): got when first needed, by one call for all who wait, and
//! used until shortly before it expires.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use serde::Deserialize;
use tokio::{sync::OnceCell, time};

use super::{api::Api, call::Call, client_auth, oidc::Place, refusal};
use crate::keymanager::{Error, Result};

/// The token, or what came of asking for it.
#[derive(Debug, Default)]
pub(super) struct OwnToken {
    now: ArcSwap<OnceCell<Outcome>>,
    /// What is asked with, besides the grant.
    parameters: Vec<(&'static str, String)>,
}

#[derive(Debug)]
struct Outcome {
    token: Result<Arc<Token>>,
    /// When it is asked for anew. A failure too is shared by those who wait, and believed for a moment.
    until: Instant,
}

/// A token, as it is sent.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) field: HeaderValue,
}

#[derive(Deserialize)]
struct Body {
    access_token: String,
    expires_in: Option<u64>,
}

impl OwnToken {
    /// With parameters besides the grant.
    pub(super) fn asking(parameters: &[(&'static str, String)]) -> Self {
        Self { parameters: parameters.to_vec(), ..Self::default() }
    }

    /// The token, from `endpoint` where there is none that is good.
    pub(super) async fn get(&self, api: &Api, endpoint: &Place, end: time::Instant) -> Result<Arc<Token>> {
        let known = self.now.load_full();
        let known = if known.get().is_some_and(|outcome| outcome.until <= Instant::now()) {
            self.now.compare_and_swap(&known, Arc::default());
            self.now.load_full()
        } else {
            known
        };
        let outcome = known.get_or_init(|| self.ask(api, endpoint, end));
        match time::timeout_at(end, outcome).await {
            Ok(outcome) => outcome.token.clone(),
            Err(_) => Err(Error::TimedOut("our own access token is waited for".into())),
        }
    }

    /// The provider does not take this one any more.
    pub(super) fn forget(&self, token: &Arc<Token>) {
        let known = self.now.load_full();
        let is_it = |outcome: &Outcome| outcome.token.as_ref().is_ok_and(|known| Arc::ptr_eq(known, token));
        if known.get().is_some_and(is_it) {
            self.now.compare_and_swap(&known, Arc::default());
        }
    }

    async fn ask(&self, api: &Api, endpoint: &Place, end: time::Instant) -> Outcome {
        match self.issued(api, endpoint, end).await {
            Ok((token, span)) => Outcome { token: Ok(Arc::new(token)), until: Instant::now() + span },
            Err(error) => Outcome { token: Err(error), until: Instant::now() + FAILURE },
        }
    }

    async fn issued(&self, api: &Api, endpoint: &Place, end: time::Instant) -> Result<(Token, Duration)> {
        let further = self.parameters.iter().map(|(name, value)| (*name, value.as_str()));
        let form = [("grant_type", "client_credentials")].into_iter().chain(further);
        // What is lost of it changes nothing: it is asked for anew.
        let call = Call::post(endpoint).reads().form(form).own();
        let (answer, secrets) = api.tries(&call, None, end).await?;
        let from = "the token endpoint";
        if !answer.status.is_success() {
            return Err(refusal::error(&answer, from, None, true, &secrets));
        }
        let useless = || Error::Answer(format!("{from}: no access token in its answer"));
        let body: Body = serde_json::from_slice(&answer.body).map_err(|_| useless())?;
        let field = client_auth::sensitive(&format!("Bearer {}", body.access_token)).ok_or_else(useless)?;
        Ok((Token { field }, usable(body.expires_in)))
    }
}

/// How long a token is used: until 30 s before it expires, or for half its life where that is short.
fn usable(expires_in: Option<u64>) -> Duration {
    let life = Duration::from_secs(expires_in.unwrap_or(UNSAID).min(LONGEST));
    life.saturating_sub(EARLY).max(life / 2)
}

const EARLY: Duration = Duration::from_secs(30);
/// How long a failure is believed.
const FAILURE: Duration = Duration::from_secs(1);
/// Where the provider does not say, in seconds.
const UNSAID: u64 = 300;
const LONGEST: u64 = 86_400;
