//! An issuer: one key manager's rules and keys, and the task that keeps the keys fresh.
//!
//! The last good key set is kept through an outage, up to `jwks_max_stale`. A token with an unknown key
//! id asks the task for a fetch: one for all who wait, and at most one per `jwks_cooldown`. Nothing here
//! knows how a provider is spoken to; that is the [`KeySource`]'s.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::{sync::Notify, sync::watch, time};

use super::{
    Circuit, Introspect, IntrospectError,
    jwks::JwksError,
    keys::{FetchError, FetchKeys, Fetched, Found, KeySet, KeySource, LocalKeys, Published},
    known::Known,
    metrics::{CallCounters, FetchCounters, IssuerCounters},
    pace,
    rules::Rules,
    settings::{Startup, Validation},
};
use crate::{
    net::{Clock, Now},
    store::record::Record,
};

/// A key manager as far as tokens go. Its keys are kept fresh by [`Issuer::run`].
#[derive(Debug)]
pub struct Issuer {
    pub(super) rules: Rules,
    pub(super) keys: ArcSwapOption<KeySet>,
    source: KeySource,
    /// Who is asked about its tokens; none where nobody is. A reload may bring other credentials.
    introspection: Mutex<Option<Arc<dyn Introspect>>>,
    /// Whether the last call has failed.
    unanswered: AtomicBool,
    /// Steady time of the last good fetch.
    fetched_ms: AtomicU64,
    /// Steady time of the next fetch that is planned.
    next_ms: AtomicU64,
    /// Fetches that failed since the last good one.
    failures: AtomicU32,
    /// Another has taken its place: what it vouched for is to be judged anew.
    retired: AtomicBool,
    /// Fetches that unknown key ids ask for.
    demand: Mutex<Demand>,
    /// Number of the set that was read last from a provider in our own process.
    published: Mutex<u64>,
    /// The newest demand that has been met.
    met: watch::Sender<u64>,
    /// Wakes the task: a demand, or retirement.
    wake: Notify,
    counters: FetchCounters,
    pub(super) calls: CallCounters,
}

/// How a provider is reached: where its keys come from, and who is asked about its tokens.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Its keys.
    pub keys: KeySource,
    /// Its introspection (RFC 7662); none: nobody is asked about its tokens.
    pub introspection: Option<Arc<dyn Introspect>>,
}

impl From<KeySource> for Sources {
    fn from(keys: KeySource) -> Self {
        Self { keys, introspection: None }
    }
}

/// What unknown key ids have asked for.
#[derive(Debug, Default)]
struct Demand {
    /// Number of the newest demand.
    number: u64,
    /// Steady time of the newest demand: the cool-down runs from here.
    asked_ms: Option<u64>,
}

/// A key manager's state, for readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerStatus {
    /// Name of the key manager.
    pub name: Arc<str>,
    /// Whether its tokens can be judged.
    pub ready: bool,
    /// Age of its keys; none where they are given by hand or not there yet.
    pub keys_age_s: Option<u64>,
    /// Whether readiness waits for it.
    pub required: bool,
    /// Whether its provider is asked about tokens just now; none where it never is.
    pub circuit: Option<Circuit>,
}

/// A set that was fetched and read.
#[derive(Debug)]
struct New {
    set: Arc<KeySet>,
    found: Found,
    max_age: Option<Duration>,
}

/// What became of the wish for newer keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// They have been fetched: look again.
    Fetched,
    /// It is too early to fetch again; the last fetch was good.
    Same,
    /// They could not be had.
    Failed,
}

impl Issuer {
    pub(super) fn new(rules: Rules, sources: Sources, IssuerCounters { fetches, calls }: IssuerCounters) -> Self {
        Self {
            rules,
            keys: ArcSwapOption::empty(),
            source: sources.keys,
            introspection: Mutex::new(sources.introspection),
            unanswered: AtomicBool::new(false),
            fetched_ms: AtomicU64::new(0),
            next_ms: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            retired: AtomicBool::new(false),
            demand: Mutex::default(),
            published: Mutex::default(),
            met: watch::Sender::new(0),
            wake: Notify::new(),
            counters: fetches,
            calls,
        }
    }

    /// Keeps the keys fresh until the issuer is retired. Started by `app`, once for each issuer. The last good set is
    /// kept in the record, if there is one, and taken from it until the first fetch has succeeded.
    pub async fn run(self: Arc<Self>, clock: Arc<Clock>, record: Option<Record>) {
        match &self.source {
            KeySource::Fixed(_) => {}
            KeySource::Local(keys) => self.follow(keys).await,
            KeySource::Remote(source) => {
                let known = record.map(|record| Arc::new(Known::of(&self.rules.settings, record)));
                self.recall(known.as_deref(), clock.now());
                self.fetch_on(source.as_ref(), &clock, known.as_ref()).await;
            }
        }
    }

    /// Takes over what a provider in our own process publishes.
    async fn follow(&self, keys: &LocalKeys) {
        let mut changes = keys.subscribe();
        while !self.is_retired() {
            self.read_local(keys);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
            }
        }
    }

    /// Fetches again and again.
    async fn fetch_on(&self, source: &dyn FetchKeys, clock: &Clock, known: Option<&Arc<Known>>) {
        let (mut astray, mut settled) = (false, false);
        while !self.is_retired() {
            // Read before the fetch: a demand made while it runs may be newer than its answer.
            let demand = self.demand.lock().number;
            let rediscover = astray || demand > *self.met.borrow();
            let outcome = self.fetch(source, rediscover).await;
            if self.is_retired() {
                break;
            }
            let now = clock.now();
            self.settle(&outcome, now);
            if let (Ok(new), Some(known)) = (&outcome, known) {
                self.remember(new, known, now);
            }
            // What answered is no key set of use: the keys may be elsewhere by now.
            astray = matches!(outcome, Err(FetchError::Keys(_)));
            let delay = match &outcome {
                Ok(new) => {
                    let first = !std::mem::replace(&mut settled, true);
                    pace::until_refresh(&self.rules.settings, new.max_age, first)
                }
                Err(_) => pace::until_retry(self.keys.load().is_some(), self.failures.load(Ordering::Relaxed)),
            };
            self.next_ms.store(now.steady_ms.saturating_add(millis(delay)), Ordering::Relaxed);
            self.met.send_replace(demand);
            // Woken or not, the next thing to do is a fetch, or to end.
            let _ = time::timeout(delay, self.wake.notified()).await;
        }
        self.met.send_replace(u64::MAX);
    }

    /// Name and state.
    pub fn status(&self, now: Now) -> IssuerStatus {
        let has_keys = self.keys.load().is_some();
        IssuerStatus {
            name: Arc::clone(&self.rules.name),
            ready: (has_keys && self.is_fresh(now)) || self.rules.settings.validation == Validation::Introspect,
            keys_age_s: (has_keys && self.is_remote()).then(|| self.age_ms(now) / 1000),
            required: self.rules.settings.startup == Startup::Required,
            circuit: self.introspection().map(|introspection| introspection.circuit()),
        }
    }

    /// Who is asked about its tokens.
    pub(super) fn introspection(&self) -> Option<Arc<dyn Introspect>> {
        self.introspection.lock().clone()
    }

    /// Asks as the newest configuration says: the credentials may have been renewed under the same name.
    pub(super) fn ask_by(&self, introspection: Option<Arc<dyn Introspect>>) {
        *self.introspection.lock() = introspection;
    }

    /// The provider has answered about a token.
    pub(super) fn answered(&self, outcome: &str) {
        self.calls.count(outcome);
        if self.unanswered.swap(false, Ordering::Relaxed) {
            tracing::info!(key_manager.name = &*self.rules.name, "the provider answers about tokens again");
        }
    }

    /// The provider has not answered about a token. Told once, until it answers again.
    pub(super) fn unanswered(&self, error: &IntrospectError) {
        self.calls.count(error.label());
        if !self.unanswered.swap(true, Ordering::Relaxed) {
            tracing::warn!(key_manager.name = &*self.rules.name, %error, "cannot ask the provider about tokens");
        }
    }

    /// Whether the keys are young enough to judge by. Keys by hand always are.
    pub(super) fn is_fresh(&self, now: Now) -> bool {
        !self.is_remote() || self.age_ms(now) <= millis(self.rules.settings.jwks_max_stale.0)
    }

    /// Whether another has taken its place.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Another takes its place: ends the task; cached tokens are judged anew.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// The version of the keys at hand.
    pub(super) fn version(&self) -> Option<u64> {
        self.keys.load().as_ref().map(|set| set.version)
    }

    /// Whether the last fetch failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures.load(Ordering::Relaxed) > 0
    }

    /// Seconds after which a retry may help.
    pub(super) fn retry_after(&self, now: Now) -> u32 {
        let wait = self.next_ms.load(Ordering::Relaxed).saturating_sub(now.steady_ms);
        u32::try_from(wait.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
    }

    /// Waits for newer keys than version `lacking`, which has none of the id that a token names. One fetch for all who
    /// wait; none within the cool-down of the last one that was asked for like this.
    pub(super) async fn renew(&self, lacking: Option<u64>, now: Now) -> Renewal {
        if let KeySource::Local(keys) = &self.source {
            // Whoever else has read them meanwhile: it costs little to look again.
            self.read_local(keys);
            return Renewal::Fetched;
        }
        if self.version() != lacking {
            // Somebody else's fetch ended while this one was on its way here.
            return Renewal::Fetched;
        }
        let mut met = self.met.subscribe();
        let newest_met = *met.borrow();
        let Some(number) = self.is_remote().then(|| self.ask(newest_met, now)).flatten() else {
            return if self.is_failing() { Renewal::Failed } else { Renewal::Same };
        };
        // The task may be busy with slow metadata: nobody waits longer than for one answer.
        let fetch = time::timeout(self.rules.settings.timeout.0, met.wait_for(|met| *met >= number)).await;
        if matches!(fetch, Ok(Ok(_))) && !self.is_failing() { Renewal::Fetched } else { Renewal::Failed }
    }

    /// The number of the demand to wait for: that under way, or a new one unless it is too early.
    fn ask(&self, met: u64, now: Now) -> Option<u64> {
        let mut demand = self.demand.lock();
        if demand.number > met {
            return Some(demand.number);
        }
        let cooldown = millis(self.rules.settings.jwks_cooldown.0);
        if demand.asked_ms.is_some_and(|asked| now.steady_ms.saturating_sub(asked) < cooldown) {
            return None;
        }
        demand.number += 1;
        demand.asked_ms = Some(now.steady_ms);
        self.wake.notify_one();
        Some(demand.number)
    }

    async fn fetch(&self, source: &dyn FetchKeys, rediscover: bool) -> Result<New, FetchError> {
        let Fetched { text, max_age } = source.fetch(rediscover).await?;
        if text.is_empty() {
            // Not the same as no set: a provider that has one answers with it.
            return Err(JwksError::Malformed.into());
        }
        let (set, found) = KeySet::read(&text, self.rules.wanted(), self.keys.load_full().as_ref())?;
        Ok(New { set, found, max_age })
    }

    /// Puts a fetched set in force, or notes that there is none.
    fn settle(&self, outcome: &Result<New, FetchError>, now: Now) {
        let name = &*self.rules.name;
        match outcome {
            Ok(new) => {
                self.counters.count("ok");
                self.note(&new.set, new.found);
                self.install(&new.set, now);
                if self.failures.swap(0, Ordering::Relaxed) > 0 {
                    tracing::info!(key_manager.name = name, "the keys can be fetched again");
                }
            }
            Err(error) => {
                self.counters.count(error.label());
                let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::warn!(key_manager.name = name, failures, %error, "cannot fetch the keys");
            }
        }
    }

    /// Begins with the set of the record, where nothing better is at hand.
    fn recall(&self, known: Option<&Known>, now: Now) {
        let Some((text, age_ms)) = known.and_then(|known| known.load(now)) else { return };
        if self.keys.load().is_some() || age_ms > millis(self.rules.settings.jwks_max_stale.0) {
            return;
        }
        let name = &*self.rules.name;
        match KeySet::read(&text, self.rules.wanted(), None) {
            Ok((set, found)) => {
                self.note(&set, found);
                self.install(&set, Now { steady_ms: now.steady_ms.saturating_sub(age_ms), ..now });
                tracing::info!(key_manager.name = name, age_s = age_ms / 1000, "going on with the last known keys");
            }
            Err(error) => tracing::warn!(key_manager.name = name, %error, "the last known keys are of no use"),
        }
    }

    /// Keeps a set in the record. Nobody waits for the disk.
    fn remember(&self, new: &New, known: &Arc<Known>, now: Now) {
        if new.found.private {
            return;
        }
        let (set, known, name) = (Arc::clone(&new.set), Arc::clone(known), Arc::clone(&self.rules.name));
        tokio::spawn(async move {
            if let Err(error) = known.keep(set.text(), now).await {
                tracing::warn!(key_manager.name = &*name, %error, "the keys cannot be kept for a restart");
            }
        });
    }

    /// Puts a set that is at hand in force, if it is such a source.
    pub(super) fn read_at_hand(&self, source: &KeySource) {
        match source {
            KeySource::Fixed(text) => self.read_text(text),
            KeySource::Local(keys) => self.read_local(keys),
            KeySource::Remote(_) => {}
        }
    }

    /// Puts what is published now in force.
    fn read_local(&self, keys: &LocalKeys) {
        // Held while reading, so that an older set never takes the place of a newer one.
        let mut read = self.published.lock();
        let Published { number, set } = keys.published();
        if number != *read {
            *read = number;
            self.read_text(&set);
        }
    }

    /// Puts a set given in full in force. Kept as it was where the new text is of no use, which
    /// `KeyManagers::build` has ruled out.
    fn read_text(&self, text: &[u8]) {
        if text.is_empty() && self.rules.needs_no_keys() {
            return;
        }
        match KeySet::read(text, self.rules.wanted(), self.keys.load_full().as_ref()) {
            Ok((set, found)) => {
                self.note(&set, found);
                self.install(&set, Now::at_ms(0));
            }
            Err(error) => tracing::error!(key_manager.name = &*self.rules.name, %error, "cannot use the keys given"),
        }
    }

    /// Whether it judges by these very rules, with keys from the same kind of source.
    pub(super) fn is_for(&self, rules: &Rules, sources: &Sources) -> bool {
        self.rules == *rules
            && matches!(sources.keys, KeySource::Remote(_)) == self.is_remote()
            && sources.introspection.is_some() == self.introspection.lock().is_some()
    }

    /// Goes on with what the freshest of `before` has from the same provider, whatever its name and its
    /// other rules, until its own task has fetched.
    pub(super) fn succeed(&self, before: &[Arc<Self>]) {
        let has_our_keys = |old: &&Arc<Self>| self.is_same_provider(old) && old.keys.load().is_some();
        let Some(old) = before.iter().filter(has_our_keys).max_by_key(|old| old.fetched_ms.load(Ordering::Relaxed))
        else {
            return;
        };
        // Read first: if a newer set comes in between, it only counts as older than it is.
        let fetched_ms = old.fetched_ms.load(Ordering::Relaxed);
        let keys = old.keys.load().as_ref().map(|set| set.reread(self.rules.wanted()));
        match keys {
            Some(Ok(set)) => {
                self.fetched_ms.store(fetched_ms, Ordering::Relaxed);
                self.keys.store(Some(set));
            }
            Some(Err(error)) => {
                tracing::warn!(key_manager.name = &*self.rules.name, %error, "cannot go on with the keys at hand");
            }
            None => {}
        }
    }

    /// Whether we would fetch the keys that `old` has. Those it may have by plain HTTP are none of ours
    /// where that is no longer allowed.
    fn is_same_provider(&self, old: &Self) -> bool {
        let (ours, theirs) = (&self.rules.settings, &old.rules.settings);
        self.is_remote()
            && old.is_remote()
            && (&ours.issuer, &ours.jwks_uri, ours.connector) == (&theirs.issuer, &theirs.jwks_uri, theirs.connector)
            && (ours.allow_http || !theirs.allow_http)
    }

    fn install(&self, set: &Arc<KeySet>, now: Now) {
        self.fetched_ms.store(now.steady_ms, Ordering::Relaxed);
        let before = self.keys.swap(Some(Arc::clone(set)));
        if let Some(before) = before {
            before.retire_missing(set);
        }
    }

    fn note(&self, set: &KeySet, found: Found) {
        let name = &*self.rules.name;
        self.counters.holds(set.len(), found.skipped);
        if found.private {
            tracing::warn!(key_manager.name = name, "the key set shows private keys; whoever read it can forge tokens");
        }
        if found.skipped > 0 {
            tracing::debug!(key_manager.name = name, skipped = found.skipped, "keys in the set are of no use here");
        }
    }

    fn is_remote(&self) -> bool {
        matches!(self.source, KeySource::Remote(_))
    }

    fn age_ms(&self, now: Now) -> u64 {
        now.steady_ms.saturating_sub(self.fetched_ms.load(Ordering::Relaxed))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "issuer_tests.rs"]
mod tests;
