//! The first sight of a token: what it says of itself, whose it is, and its signature, which is checked in its turn.

use std::{sync::Arc, time::Instant};

use super::{
    Authenticated, Authenticator, Flaw, Issuer,
    cache::{Entry, Remembered},
    claims::{Bearer, Grounds},
    digest::Digest,
    jose::{Compact, Header},
    json::Object,
    jwt::{self, Verified},
    keys::Candidates,
    settings::Validation,
    turns::{Full, Turn},
};
use crate::{
    net::Now,
    store::{KeyManagerSet, TokenDigests},
};

/// A token that is not in the cache, and by whom it may be judged.
pub(super) struct Sight<'a> {
    pub(super) digest: Digest,
    pub(super) token: &'a str,
    pub(super) allowed: &'a KeyManagerSet,
    /// When it came, by either clock.
    pub(super) came: (Now, Instant),
}

impl Sight<'_> {
    /// The present moment: what has expired while it waited is no good any more.
    pub(super) fn now(&self) -> Now {
        let (now, since) = self.came;
        now.after(since.elapsed())
    }
}

/// Why a token was not judged good at first sight.
pub(super) enum Refused {
    /// It is no good.
    Flaw(Flaw),
    /// Its issuer's keys are not there, or too old.
    NoKeys(Arc<Issuer>),
    /// Its issuer's keys, of this version, lack the one it names.
    UnknownKey(Arc<Issuer>, u64),
    /// It is for its provider to say; what was verified of it, where both must agree.
    Ask(Arc<Issuer>, Option<Box<Verified>>),
    /// It is not its turn to be verified; in the end: too many wait for theirs.
    Wait,
}

impl From<Flaw> for Refused {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

impl Authenticator {
    /// The first sight, in its turn where there is something to verify. What is plainly no good never waits.
    pub(super) async fn see(&self, sight: &Sight<'_>) -> Result<Authenticated, Refused> {
        let (mut turn, mut now) = (None, sight.now());
        loop {
            match self.first_sight(sight, now, &mut turn) {
                Err(Refused::Wait) => {}
                outcome => return outcome,
            }
            turn = self.turns.wait(sight.digest).await.map_err(|Full| Refused::Wait)?;
            now = sight.now();
            // Whoever else has brought it may have had it verified meanwhile.
            match self.cache.recall(&sight.digest, now) {
                Remembered::Good(identity) => return Ok(Authenticated { identity, from_cache: true }),
                Remembered::Bad(flaw) => return Err(flaw.into()),
                Remembered::Stale(_) | Remembered::Again | Remembered::Nothing => {}
            }
        }
    }

    /// Judges a token that is not in the cache, with the keys at hand, or finds out whose provider is to be
    /// asked about it.
    pub(super) fn first_sight(
        &self,
        sight: &Sight<'_>,
        now: Now,
        turn: &mut Option<Turn>,
    ) -> Result<Authenticated, Refused> {
        let &Sight { digest, token, allowed, .. } = sight;
        let managers = self.managers.load();
        if let Some(issuer) = managers.elect_opaque(token, allowed) {
            // RFC 6749 appendix A.12: visible characters. Nobody issues others.
            let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
            return Err(if visible { Refused::Ask(issuer, None) } else { Flaw::Malformed.into() });
        }
        let opened;
        let (compact, key, inside) = match Compact::split(token) {
            Err(Flaw::Encrypted) => {
                self.have(turn)?;
                opened = managers.open(token, allowed)?;
                (Compact::split(&opened.0)?, Some(&opened.1), Some(&*opened.0))
            }
            compact => (compact?, None, None),
        };
        let header = Header::parse(&compact.header)?;
        let claims = Object::parse(&compact.payload).ok_or(Flaw::Malformed)?;
        let issuer = managers.elect(&claims, allowed)?;
        let rules = &issuer.rules;
        if key.is_some_and(|key| !rules.decryption.all().contains(key)) {
            return Err(Flaw::Encrypted.into());
        }
        // A provider may well call its logout token active: what a token says to be is not for it to excuse.
        if !header.is_access_token(rules.settings.typ) {
            return Err(Flaw::Type.into());
        }
        if rules.settings.validation == Validation::Introspect {
            return Err(Refused::Ask(issuer, None));
        }
        if !rules.settings.algorithms.contains(&header.algorithm) {
            return Err(Flaw::Algorithm.into());
        }
        let Some(set) = issuer.keys.load_full().filter(|_| issuer.is_fresh(now)) else {
            return Err(Refused::NoKeys(issuer));
        };
        let keys = match set.candidates(header.key_id.as_deref(), header.algorithm) {
            Candidates::Some(keys) => keys,
            Candidates::UnknownId => return Err(Refused::UnknownKey(issuer, set.version)),
            Candidates::Unfit => return Err(Flaw::Algorithm.into()),
        };
        self.have(turn)?;
        let (bearer, grounds) = (Bearer::of(&digest), Grounds { rules, commons: &self.cache.commons, now });
        let verify = || {
            let mut verified = jwt::verify(&compact, header.algorithm, &keys, &claims, &bearer, grounds)?;
            verified.identity.inside = inside.map(|token| Box::new(TokenDigests::of(token)));
            Ok(verified)
        };
        let mut from_cache = true;
        let outcome = if rules.settings.validation == Validation::Both {
            from_cache = false;
            verify().map(Err)
        } else {
            let entry = self.cache.once(digest, now, || {
                from_cache = false;
                let Verified { identity, validity, key } = verify()?;
                let (identity, issuer) = (Arc::new(identity), Arc::clone(&issuer));
                Ok(Entry { identity, validity, issuer, key: Some(key), ask_again_ms: u64::MAX })
            });
            entry.map(Ok)
        };
        match outcome {
            Ok(Ok(entry)) => Ok(Authenticated { identity: Arc::clone(&entry.identity), from_cache }),
            Ok(Err(verified)) => Err(Refused::Ask(issuer, Some(Box::new(verified)))),
            Err(flaw) => {
                if flaw == Flaw::Signature && !from_cache {
                    self.cache.remember_bad(digest, issuer, flaw, Some(set.version), now);
                }
                Err(flaw.into())
            }
        }
    }

    /// Makes sure of a turn before what takes long.
    fn have(&self, turn: &mut Option<Turn>) -> Result<(), Refused> {
        if turn.is_none() {
            *turn = self.turns.take();
        }
        if turn.is_some() { Ok(()) } else { Err(Refused::Wait) }
    }
}
