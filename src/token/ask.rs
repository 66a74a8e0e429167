//! The first sight of a token that its provider is asked about (RFC 7662): one call for all who wait, away
//! from the threads that serve requests, and what is remembered of its outcome.
//!
//! A provider that does not answer is no verdict: nothing is remembered, and those who wait are told to come
//! again.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, time};

use super::{
    Authenticated, Authenticator, Flaw, IntrospectError, IntrospectionAnswer, Issuer, Rejection,
    answer::{self, Certainty, Fault},
    cache::{Cache, Entry, Remembered},
    claims::{Bearer, Grounds, Validity},
    digest::Digest,
    flight,
    issuer::Renewal,
    json::Object,
    jwt::Verified,
    settings::Validation,
};
use crate::net::Now;

/// What comes of a call, for all who wait.
pub(super) type Outcome = Result<Arc<Entry>, Refusal>;

/// Why a call ends without a good token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The provider says no, or what it says is not enough.
    Flaw(Flaw),
    /// It could not be asked, or has not answered: how many seconds to wait.
    Unavailable(u32),
}

/// A token to ask about.
pub(super) struct Question<'a> {
    pub(super) digest: Digest,
    pub(super) token: &'a str,
    pub(super) issuer: Arc<Issuer>,
    /// What was found in the token itself, where both must agree.
    pub(super) verified: Option<Box<Verified>>,
    /// Its provider has vouched for it before.
    pub(super) known: bool,
    pub(super) client: Option<IpAddr>,
}

impl Authenticator {
    /// Asks the provider, or waits for the answer that another request has asked for.
    /// `None`: the rules have changed meanwhile, and the token is to be judged anew.
    pub(super) async fn ask(&self, question: Question<'_>, now: Now) -> Result<Option<Authenticated>, Rejection> {
        let Question { digest, token, issuer, verified, known, client } = question;
        // A token that was verified is no guess, nor one that was good: whoever shares its client's address and
        // floods us does not take it away.
        let guess = verified.is_none() && !known;
        if guess && let Err(flood) = self.failures.admit(client, now) {
            self.metrics.flooded();
            return Err(Rejection::Flooded(flood));
        }
        let about = flight::Call { digest, issuer: Arc::as_ptr(&issuer).addr() };
        let (waiter, flight) = self.flights.join(about);
        let asked = flight.is_some();
        if let Some(flight) = flight {
            // Another call may have ended since we looked.
            match self.cache.recall(&digest, now) {
                Remembered::Good(identity) => return Ok(Some(Authenticated { identity, from_cache: true })),
                Remembered::Bad(flaw) => return Err(self.refuse(flaw)),
                Remembered::Stale(_) | Remembered::Again | Remembered::Nothing => {}
            }
            let cache = Arc::clone(&self.cache);
            let call = Call { digest, token: token.into(), issuer: Arc::clone(&issuer), verified, cache, now };
            match self.runtime.get().cloned().map_or_else(Handle::try_current, Ok) {
                Ok(runtime) => drop(runtime.spawn(async move { flight.land(call.run().await) })),
                Err(_) => drop(flight),
            }
        }
        let outcome = waiter.wait().await.unwrap_or_else(|| {
            if asked {
                issuer.unanswered(&IntrospectError::Aborted);
            }
            Err(Refusal::Unavailable(1))
        });
        if issuer.is_retired() {
            return Ok(None);
        }
        match outcome {
            Ok(entry) => {
                if asked {
                    self.metrics.judged();
                }
                Ok(Some(Authenticated { identity: Arc::clone(&entry.identity), from_cache: !asked }))
            }
            Err(Refusal::Flaw(flaw)) => {
                if guess && flaw != Flaw::Opaque {
                    self.failures.count(client, digest.short(), now);
                }
                Err(self.refuse(flaw))
            }
            Err(Refusal::Unavailable(seconds)) => Err(self.unavailable(&issuer, seconds)),
        }
    }

    pub(super) fn unavailable(&self, issuer: &Issuer, retry_after: u32) -> Rejection {
        self.metrics.unavailable();
        Rejection::Unavailable { key_manager: Arc::clone(&issuer.rules.name), retry_after }
    }
}

/// A call, and all that it needs: whoever asked for it may be gone.
struct Call {
    digest: Digest,
    token: Box<str>,
    issuer: Arc<Issuer>,
    verified: Option<Box<Verified>>,
    cache: Arc<Cache>,
    now: Now,
}

/// What a good answer makes of a token.
struct Good {
    entry: Entry,
    /// `exp` as the provider has it.
    exp: Option<u64>,
}

impl Call {
    async fn run(mut self) -> Outcome {
        let started = Instant::now();
        let answer = match self.answer().await {
            Ok(answer) => answer,
            // It has said so in its metadata: a token that nobody can judge is as good as none.
            Err(IntrospectError::NotOffered) if self.issuer.rules.settings.validation == Validation::Auto => {
                self.issuer.calls.count(IntrospectError::NotOffered.label());
                return Err(Refusal::Flaw(Flaw::Opaque));
            }
            Err(error) => return Err(self.failed(&error)),
        };
        let now = self.now.after(started.elapsed());
        let version = self.issuer.version();
        let judged = match self.judge(&answer, now) {
            // The provider signs with a key that we do not have yet.
            Err(Fault::UnknownKey) => match self.issuer.renew(version, now).await {
                Renewal::Fetched => self.judge(&answer, self.now.after(started.elapsed())),
                Renewal::Same | Renewal::Failed => Err(Fault::UnknownKey),
            },
            judged => judged,
        };
        let now = self.now.after(started.elapsed());
        match judged {
            Ok(good) => Ok(self.remember(good, now)),
            Err(Fault::Flaw(flaw, certainty)) => {
                self.issuer.answered(if flaw == Flaw::Inactive { "inactive" } else { "refused" });
                self.cache.forget(&self.digest);
                if certainty == Certainty::Certain {
                    self.cache.remember_bad(self.digest, self.issuer, flaw, None, now);
                }
                Err(Refusal::Flaw(flaw))
            }
            Err(Fault::Unusable(why)) => Err(self.failed(&IntrospectError::Answer(why.into()))),
            Err(Fault::UnknownKey) => {
                Err(self.failed(&IntrospectError::Answer("the answer is signed by an unknown key".into())))
            }
        }
    }

    async fn answer(&self) -> Result<IntrospectionAnswer, IntrospectError> {
        let introspection = self.issuer.introspection().ok_or(IntrospectError::NotOffered)?;
        // It ends by itself; this is for one that does not.
        let longest = self.issuer.rules.settings.timeout.0.saturating_mul(2) + Duration::from_secs(1);
        time::timeout(longest, introspection.introspect(&self.token)).await.unwrap_or(Err(IntrospectError::Aborted))
    }

    fn judge(&mut self, answer: &IntrospectionAnswer, now: Now) -> Result<Good, Fault> {
        let issuer = &self.issuer;
        let rules = &issuer.rules;
        let keys = issuer.keys.load_full().filter(|_| issuer.is_fresh(now));
        let entry = |identity, validity: Validity, key| Entry {
            identity: Arc::new(identity),
            validity,
            issuer: Arc::clone(issuer),
            key,
            ask_again_ms: 0,
        };
        if self.verified.is_some() {
            let exp = answer::read(answer, issuer, keys.as_deref(), now, |claims| answer::confirm(claims, rules, now))?;
            let Verified { identity, validity, key } = *self.verified.take().ok_or(Fault::Unusable("judged twice"))?;
            let own = Some(identity.expires_at).filter(|exp| *exp != u64::MAX);
            return Ok(Good { entry: entry(identity, validity, Some(key)), exp: exp.into_iter().chain(own).min() });
        }
        let bearer = Bearer::introspected(&self.digest);
        let grounds = Grounds { rules, commons: &self.cache.commons, now };
        let identify = |claims: &Object<'_>| answer::identify(claims, &bearer, grounds);
        let (identity, validity) = answer::read(answer, issuer, keys.as_deref(), now, identify)?;
        let exp = Some(identity.expires_at).filter(|exp| *exp != u64::MAX);
        Ok(Good { entry: entry(identity, validity, None), exp })
    }

    fn remember(&self, Good { mut entry, exp }: Good, now: Now) -> Arc<Entry> {
        self.issuer.answered("active");
        entry.ask_again_ms = self.cache.ask_again_ms(exp, now);
        if entry.ask_again_ms > now.steady_ms { self.cache.remember(self.digest, entry) } else { Arc::new(entry) }
    }

    fn failed(&self, error: &IntrospectError) -> Refusal {
        self.issuer.unanswered(error);
        Refusal::Unavailable(error.retry_after())
    }
}
