//! What an answer may be: by what the provider has said and when, what was revoked, and what has expired.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::Moment;
use crate::support::{Idp, Key, Told, keys};

/// What a token is, and so who can say whether it is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A JWT that is verified.
    Verified,
    /// An opaque token that the provider is asked about.
    Asked,
    /// A JWT that is verified and asked about.
    Both,
    /// A JWT whose signature is another key's.
    Garbled,
    /// A JWT by a key that nobody published.
    ForeignKey,
    /// An opaque token that nobody issued.
    Unknown,
}

/// A token that clients bring.
pub(super) struct Bearer {
    pub(super) kind: Kind,
    pub(super) text: String,
    /// Of the key that a JWT names.
    pub(super) kid: String,
    pub(super) jti: String,
    pub(super) exp: u64,
    born: Instant,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Facts {
    /// Since then the provider says no.
    inactive: Option<Instant>,
    /// From when its revocation may be in force, and from when it was seen to be.
    revoking: Option<Instant>,
    revoked: Option<Instant>,
    /// The newest answer 200.
    passed: Option<Instant>,
}

impl Bearer {
    pub(super) fn new(kind: Kind, text: String, kid: String, jti: String, exp: u64) -> Self {
        Self { kind, text, kid, jti, exp, born: Instant::now(), facts: Mutex::default() }
    }

    fn is_asked(&self) -> bool {
        matches!(self.kind, Kind::Asked | Kind::Both | Kind::Unknown)
    }

    fn is_jwt(&self) -> bool {
        !matches!(self.kind, Kind::Asked | Kind::Unknown)
    }

    /// The provider says no from now on.
    pub(super) fn deactivate(&self, idp: &Idp) {
        let mut facts = self.facts.lock();
        idp.forget(&self.text);
        facts.inactive = Some(Instant::now());
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, kid, jti, exp, born, facts, text: _ } = self;
        write!(out, "{kind:?} {jti} by {kid}, exp {exp}, born {:?} ago, {:?}", born.elapsed(), facts.lock())
    }
}

/// What is known of the world.
pub(super) struct Oracle {
    /// Times in which the provider, or what the gate thinks of it, was not well. The last may be open.
    bad: Mutex<Vec<(Instant, Option<Instant>)>>,
    generation: Mutex<usize>,
    revoked: Mutex<Vec<Arc<Bearer>>>,
}

/// What one client has seen.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u32,
    pub(super) passes: u32,
    pub(super) refusals: u32,
    pub(super) unavailable: u32,
    /// Answers 200 in bad weather to tokens that were known and good: no other answer would have been right.
    pub(super) known_in_bad_weather: u32,
    /// Good tokens by a key of which the gate could not know yet, refused.
    early: u32,
    /// Answers 503 in good weather after more than the provider's timeout: this machine was too slow.
    pub(super) late: u32,
    wrong_passes: u32,
    wrong_refusals_of_known: u32,
    pub(super) wrong: Vec<String>,
}

/// What the oracle lets an answer be.
#[derive(Debug, Default)]
struct May {
    pass: bool,
    refuse: bool,
    unavailable: bool,
    /// Cached or of a known key, and good.
    known: bool,
    /// Refusing is right only because the gate cannot have the key yet.
    early: bool,
}

impl Oracle {
    pub(super) fn new() -> Self {
        Self { bad: Mutex::default(), generation: Mutex::default(), revoked: Mutex::default() }
    }

    /// The provider's newest key, and its number.
    pub(super) fn newest_key(&self) -> (usize, &'static Key) {
        let generation = *self.generation.lock();
        (generation, key_of(generation))
    }

    /// Another key signs from now on.
    pub(super) fn next_key(&self) -> usize {
        let mut generation = self.generation.lock();
        *generation += 1;
        *generation
    }

    /// The weather turns bad.
    pub(super) fn turns_bad(&self) {
        self.bad.lock().push((Instant::now(), None));
    }

    /// The provider is well, and the gate has noticed.
    pub(super) fn is_well(&self) {
        if let Some((_, end @ None)) = self.bad.lock().last_mut() {
            *end = Some(Instant::now());
        }
    }

    /// It is being revoked; until it is seen to be, either answer is right.
    pub(super) fn is_revoking(&self, bearer: &Bearer) {
        bearer.facts.lock().revoking = Some(Instant::now());
    }

    /// It was refused: from now on it always is.
    pub(super) fn is_revoked(&self, bearer: &Arc<Bearer>) {
        bearer.facts.lock().revoked = Some(Instant::now());
        self.revoked.lock().push(Arc::clone(bearer));
    }

    /// Those that were seen refused after their revocation.
    pub(super) fn revoked(&self) -> Vec<Arc<Bearer>> {
        self.revoked.lock().clone()
    }

    /// Whether a token that has not expired passes in good weather, with all keys fetched.
    pub(super) fn is_good(&self, bearer: &Bearer) -> bool {
        let facts = *bearer.facts.lock();
        let generation = *self.generation.lock();
        let published = |number: usize| bearer.kid == format!("generation-{number}");
        let key = published(generation) || (generation > 0 && published(generation - 1) && !drops_the_old(generation));
        facts.inactive.is_none()
            && facts.revoking.is_none()
            && match bearer.kind {
                Kind::Verified | Kind::Both => key,
                Kind::Asked => true,
                Kind::Garbled | Kind::ForeignKey | Kind::Unknown => false,
            }
    }

    /// Judges an answer that came now.
    pub(super) fn judge(&self, idp: &Idp, bearer: &Bearer, sent: Moment, status: u16, counts: &mut Counts) {
        let came = Moment::now();
        let bad = self.is_bad(sent.at, came.at);
        let may = self.may(idp, bearer, sent, came, bad);
        counts.requests += 1;
        let right = match status {
            200 => {
                counts.passes += 1;
                counts.known_in_bad_weather += u32::from(may.known && bad);
                bearer.facts.lock().passed = Some(came.at);
                may.pass
            }
            401 => {
                counts.refusals += 1;
                counts.early += u32::from(may.early && may.refuse);
                may.refuse
            }
            503 => {
                counts.unavailable += 1;
                let late = !may.known && !may.unavailable && came.at - sent.at > TIMEOUT;
                counts.late += u32::from(late);
                may.unavailable || late
            }
            _ => false,
        };
        if !right {
            counts.wrong_passes += u32::from(status == 200);
            counts.wrong_refusals_of_known += u32::from(status != 200 && may.known);
            let took = came.at - sent.at;
            counts.wrong.push(format!(
                "{status} after {took:?} in {} weather, {may:?}: {bearer:?}",
                if bad { "bad" } else { "good" }
            ));
        }
    }

    fn is_bad(&self, from: Instant, to: Instant) -> bool {
        self.bad.lock().iter().any(|(start, end)| *start <= to && end.is_none_or(|end| end + BRIEF >= from))
    }

    fn may(&self, idp: &Idp, bearer: &Bearer, sent: Moment, came: Moment, bad: bool) -> May {
        let facts = *bearer.facts.lock();
        let key = if bearer.is_jwt() { Held::of(idp, bearer, sent.at, came.at) } else { Held::There };
        // A key that is not there cannot be fetched in bad weather; so may the asking fail.
        let unavailable = bad && (bearer.is_asked() || key != Held::There);
        let refused = May { refuse: true, unavailable, ..May::default() };
        match bearer.kind {
            Kind::Garbled | Kind::ForeignKey | Kind::Unknown => return refused,
            Kind::Verified | Kind::Asked | Kind::Both => {}
        }
        let exp_ms = bearer.exp * 1000;
        let margin = u64::try_from(BRIEF.as_millis()).unwrap_or_default();
        if sent.unix_ms >= exp_ms + margin || facts.revoked.is_some_and(|seen| seen <= sent.at) {
            return refused;
        }
        let asked = if bearer.is_asked() { Word::of(idp, bearer, &facts, sent.at, came.at) } else { Word::good() };
        if came.unix_ms + margin >= exp_ms || facts.revoking.is_some_and(|start| start <= came.at) {
            let pass = key != Held::Missing && asked.may_pass;
            return May { pass, refuse: true, unavailable, ..May::default() };
        }
        let known = key == Held::There && asked.must_pass;
        let withdrawn = key != Held::There && Held::was_withdrawn(idp, bearer, came.at);
        let early = key != Held::There && !withdrawn && came.at - bearer.born < EARLY;
        May {
            pass: key != Held::Missing && asked.may_pass,
            refuse: withdrawn || early || asked.may_refuse,
            unavailable: unavailable && !known,
            known,
            early,
        }
    }
}

/// Whether the gate has a JWT's key, as far as can be told from the sets it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    There,
    Missing,
    /// One set has it, another has not, and which is in force cannot be told.
    Turning,
}

impl Held {
    fn of(idp: &Idp, bearer: &Bearer, sent: Instant, came: Instant) -> Self {
        let journal = idp.journal();
        let sets = journal.iter().rev().filter(|(at, _)| *at <= came).filter_map(|(at, told)| match told {
            Told::Keys(ids) => Some((*at, ids.contains(&bearer.kid))),
            Told::Token(..) => None,
        });
        let (mut with, mut without, mut settled) = (false, false, 0);
        for (at, has) in sets {
            with |= has;
            without |= !has;
            // Those sent long before have arrived, but for one whose reader had given up.
            settled += u32::from(at + SETTLED <= sent);
            if settled == 2 {
                break;
            }
        }
        match (with, without) {
            (true, false) => Self::There,
            (false, _) => Self::Missing,
            (true, true) => Self::Turning,
        }
    }

    fn was_withdrawn(idp: &Idp, bearer: &Bearer, came: Instant) -> bool {
        let journal = idp.journal();
        journal.iter().any(|(at, told)| *at <= came && matches!(told, Told::Keys(ids) if ids.contains(&bearer.kid)))
    }
}

/// What the provider's word on a token makes of it.
#[derive(Debug)]
struct Word {
    may_pass: bool,
    may_refuse: bool,
    must_pass: bool,
}

impl Word {
    fn good() -> Self {
        Self { may_pass: true, may_refuse: false, must_pass: true }
    }

    fn of(idp: &Idp, bearer: &Bearer, facts: &Facts, sent: Instant, came: Instant) -> Self {
        let journal = idp.journal();
        let mut yes = journal
            .iter()
            .rev()
            .filter(|(at, told)| *at <= came && matches!(told, Told::Token(text, true) if *text == bearer.text));
        let newest = yes.next().map(|(at, _)| *at);
        // It counts from its arrival, which may be as late as the timeout.
        let may_pass = newest.is_some_and(|at| sent <= at + TIMEOUT + TTL + BRIEF);
        let known =
            |at: Instant| facts.passed.is_some_and(|passed| at <= passed && passed <= sent) && came + BRIEF < at + TTL;
        let must_pass = newest.is_some_and(known);
        Self { may_pass, may_refuse: facts.inactive.is_some_and(|since| since <= came), must_pass }
    }
}

/// The key of a generation. Two generations that meet have different ones.
pub(super) fn key_of(generation: usize) -> &'static Key {
    let all = keys();
    [&all.es256, &all.es384, &all.es256_other, &all.ed][generation % 4]
}

/// Whether the provider's set of this generation lacks the key before it.
pub(super) fn drops_the_old(generation: usize) -> bool {
    generation.is_multiple_of(3)
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.passes += other.passes;
        self.refusals += other.refusals;
        self.unavailable += other.unavailable;
        self.known_in_bad_weather += other.known_in_bad_weather;
        self.early += other.early;
        self.late += other.late;
        self.wrong_passes += other.wrong_passes;
        self.wrong_refusals_of_known += other.wrong_refusals_of_known;
        self.wrong.extend(other.wrong);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} requests: {} passed ({} known in bad weather), {} refused ({} by a key too new), {} answered 503 ({} late); \
             wrong passes {}, wrong refusals of known tokens {}, other wrong answers {}",
            self.requests,
            self.passes,
            self.known_in_bad_weather,
            self.refusals,
            self.early,
            self.unavailable,
            self.late,
            self.wrong_passes,
            self.wrong_refusals_of_known,
            u32::try_from(self.wrong.len()).unwrap_or(u32::MAX) - self.wrong_passes - self.wrong_refusals_of_known,
        )
    }
}

/// `timeout` of the key managers.
const TIMEOUT: Duration = Duration::from_secs(1);
/// `introspection_ttl`.
const TTL: Duration = Duration::from_secs(1);
/// A set sent so long ago has arrived.
const SETTLED: Duration = Duration::from_millis(1500);
/// What two clocks and two threads may differ by.
const BRIEF: Duration = Duration::from_millis(100);
/// How long a key may be unknown though the provider has it: the cool-down, what is remembered of a "no", a refresh
/// that fails, each once; then the gate knows that it cannot know.
const EARLY: Duration = Duration::from_secs(5);
