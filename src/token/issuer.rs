//! An issuer: one key manager's rules and keys, and the task that keeps the keys fresh.
//!
//! The last good key set is kept through an outage, up to `jwks_max_stale`. A token with an unknown key
//! id asks the task for a fetch: one for all who wait, and at most one per `jwks_cooldown`. Nothing here
//! knows how a provider is spoken to; that is the [`KeySource`]'s.

use std::{
    ops::Range,
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
    keys::{FetchError, FetchKeys, Fetched, Found, KeySet, KeySource, LocalKeys, Published},
    metrics::{CallCounters, FetchCounters, IssuerCounters},
    rules::Rules,
    settings::{Startup, Validation},
};
use crate::net::{Clock, Now};

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

    /// Keeps the keys fresh until the issuer is retired. Started by `app`, once for each issuer.
    pub async fn run(self: Arc<Self>, clock: Arc<Clock>) {
        match &self.source {
            KeySource::Fixed(_) => {}
            KeySource::Local(keys) => self.follow(keys).await,
            KeySource::Remote(source) => self.fetch_on(source.as_ref(), &clock).await,
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
    async fn fetch_on(&self, source: &dyn FetchKeys, clock: &Clock) {
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
            // What answered is no key set of use: the keys may be elsewhere by now.
            astray = matches!(outcome, Err(FetchError::Keys(_)));
            let delay = match &outcome {
                Ok(new) => {
                    let first = !std::mem::replace(&mut settled, true);
                    self.until_refresh(new.max_age, first)
                }
                Err(_) => self.until_retry(),
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

    /// Whether the last fetch failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures.load(Ordering::Relaxed) > 0
    }

    /// Seconds after which a retry may help.
    pub(super) fn retry_after(&self, now: Now) -> u32 {
        let wait = self.next_ms.load(Ordering::Relaxed).saturating_sub(now.steady_ms);
        u32::try_from(wait.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
    }

    /// Waits for newer keys, for a token whose key id is unknown. One fetch for all who wait; none within
    /// the cool-down of the last one that was asked for like this.
    pub(super) async fn renew(&self, now: Now) -> Renewal {
        if let KeySource::Local(keys) = &self.source {
            // Whoever else has read them meanwhile: it costs little to look again.
            self.read_local(keys);
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

    /// How long until good keys are fetched anew: as long as the provider says within [`Self::bounds`], and long
    /// before they are too old, however close `jwks_refresh` is to `jwks_max_stale`. The `first` time it is any
    /// part of the second half of that, so that sidecars that started together part at once; later a tenth more
    /// or less keeps them apart.
    fn until_refresh(&self, max_age: Option<Duration>, first: bool) -> Duration {
        let settings = &self.rules.settings;
        let (least, most) = self.bounds();
        let span = max_age.map_or(settings.jwks_refresh.0, |age| age.clamp(least, most));
        let span = span.min(settings.jwks_max_stale.0 / 2).max(FIRST_RETRY);
        let part = if first { 0.5..1.0 } else { 0.9..1.1 };
        span.mul_f64(within(part))
    }

    /// The least and the most that a provider's `max-age` makes of `jwks_refresh`: a tenth, but never more often
    /// than every ten seconds on its account, and twice.
    fn bounds(&self) -> (Duration, Duration) {
        let refresh = self.rules.settings.jwks_refresh.0;
        (refresh.min((refresh / 10).max(SHORTEST_MAX_AGE)), refresh.saturating_mul(2))
    }

    /// How long until a fetch that failed is tried again: twice as long each time, half of it more or less.
    fn until_retry(&self) -> Duration {
        let first = if self.keys.load().is_some() { LATER_RETRY } else { FIRST_RETRY };
        let doublings = self.failures.load(Ordering::Relaxed).saturating_sub(1).min(10);
        (first * 2_u32.pow(doublings)).min(LONGEST_RETRY).mul_f64(within(0.5..1.5))
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

/// A random number in the range.
fn within(range: Range<f64>) -> f64 {
    range.start + (range.end - range.start) * fastrand::f64()
}

const SHORTEST_MAX_AGE: Duration = Duration::from_secs(10);
/// Until the first keys are there, so that a provider that starts beside us is found at once.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LATER_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        token::{
            metrics::Metrics,
            settings::{Algorithm, KeyManagerSettings},
            testing::{Provider, Signer, settings},
        },
        units::Span,
    };

    const ISSUER: &str = "https://idp.example.com";

    fn issuer(provider: &Arc<Provider>, change: impl FnOnce(&mut KeyManagerSettings)) -> Arc<Issuer> {
        let mut settings = settings(ISSUER);
        change(&mut settings);
        let rules = Rules::build(settings, &Arc::default(), "").expect("good settings");
        let metrics = Metrics::register(&prometheus::Registry::new()).expect("a fresh registry");
        let counters = metrics.issuer(&rules.name, false);
        Arc::new(Issuer::new(rules, KeySource::Remote(Arc::clone(provider) as Arc<dyn FetchKeys>).into(), counters))
    }

    #[test]
    fn good_keys_are_fetched_anew_long_before_they_are_too_old() {
        let delays = |refresh: u64, max_stale: u64| {
            let spans = (Span::seconds(refresh), Span::seconds(max_stale));
            let issuer = issuer(&Arc::default(), |s| (s.jwks_refresh, s.jwks_max_stale) = spans);
            let delays: Vec<f64> = (0..200).map(|_| issuer.until_refresh(None, false).as_secs_f64()).collect();
            let (least, most) = (delays.iter().copied().reduce(f64::min), delays.iter().copied().reduce(f64::max));
            least.zip(most).expect("200 of them")
        };
        let (least, most) = delays(300, 300);
        assert!(least < most && least >= 135.0 && most <= 165.0, "{least} to {most}");
        let (least, most) = delays(300, 3600);
        assert!(least >= 270.0 && most > 300.0 && most <= 330.0, "{least} to {most}");
        let (least, _) = delays(0, 0);
        assert!(least >= 0.18, "never without a pause");
    }

    #[test]
    fn what_the_provider_says_moves_the_refresh_within_bounds() {
        for (refresh, max_stale, max_age, least, most) in [
            (300, 3600, Some(120), 108.0, 132.0),
            (300, 3600, Some(0), 27.0, 33.0),
            (300, 3600, Some(u64::MAX), 540.0, 660.0),
            (300, 3600, Some(1_000_000_000_000), 540.0, 660.0),
            (300, 3600, None, 270.0, 330.0),
            (3600, 36_000, Some(1), 324.0, 396.0),
            (60, 3600, Some(1), 9.0, 11.0),
            (1, 3600, Some(0), 0.9, 1.1),
            // Never past half of what the keys may live.
            (300, 600, Some(u64::MAX), 270.0, 330.0),
        ] {
            let spans = (Span::seconds(refresh), Span::seconds(max_stale));
            let issuer = issuer(&Arc::default(), |s| (s.jwks_refresh, s.jwks_max_stale) = spans);
            for _ in 0..50 {
                let delay = issuer.until_refresh(max_age.map(Duration::from_secs), false).as_secs_f64();
                assert!((least..=most).contains(&delay), "{refresh} {max_age:?}: {delay}");
            }
        }
    }

    /// When each of 500 gates that start together asks, up to `until`, in milliseconds.
    async fn storm(answer: Option<&Signer>, until: Duration) -> Vec<u64> {
        let start = time::Instant::now();
        let mut providers = Vec::new();
        for _ in 0..500 {
            let set = Mutex::new(answer.map(|signer| signer.jwks().to_string()));
            let provider = Arc::new(Provider { answer: set, ..Provider::default() });
            tokio::spawn(issuer(&provider, |_| {}).run(Arc::new(Clock::new())));
            providers.push(provider);
        }
        time::sleep(until).await;
        let times = |provider: &Arc<Provider>| provider.asked.lock().clone();
        providers.iter().flat_map(times).map(|at| millis(at - start)).collect()
    }

    /// The most that fall within any `window` from `from` on.
    fn peak(asked: &[u64], from: u64, window: u64) -> usize {
        let later: Vec<u64> = asked.iter().copied().filter(|at| *at >= from).collect();
        let from = |start: &u64| later.iter().filter(|at| (*start..start + window).contains(*at)).count();
        later.iter().map(from).max().unwrap_or(0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_fetches_after_a_restart_storm_are_spread_out() {
        fastrand::seed(7);
        let signer = Signer::new(Algorithm::ES256, "e");
        let asked = storm(Some(&signer), Duration::from_secs(900)).await;
        let at_once = asked.iter().filter(|at| **at < 1000).count();
        assert_eq!(at_once, 500, "the first fetch waits for nothing");
        assert!(asked.len() > 1500, "{}", asked.len());
        // Spread evenly, 500 refreshes in 150 s are 3.3 a second.
        let peak = peak(&asked, 1000, 1000);
        assert!(peak <= 25, "{peak} in one second");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_after_a_restart_storm_are_spread_out() {
        fastrand::seed(7);
        let asked = storm(None, Duration::from_secs(120)).await;
        assert_eq!(asked.iter().filter(|at| **at == 0).count(), 500);
        // Five rounds later they are strangers: even, 500 in 30 s are 1.7 in 100 ms.
        let peak = peak(&asked, 30_000, 100);
        assert!(peak > 0 && peak <= 15, "{peak} in 100 ms");
    }

    #[tokio::test]
    async fn the_address_is_looked_up_again_when_the_keys_are_of_no_use_or_lack_one() {
        let signer = Signer::new(Algorithm::ES256, "e");
        let provider = Arc::new(Provider::with(&json!({ "keys": [] })));
        let issuer = issuer(&provider, |_| {});
        let clock = Arc::new(Clock::new());
        let task = tokio::spawn(Arc::clone(&issuer).run(Arc::clone(&clock)));
        let wait_for = async |count: usize| {
            while provider.count() < count {
                time::sleep(Duration::from_millis(2)).await;
            }
        };
        // Until its outcome is known: the answer is read when the fetch ends.
        while !issuer.is_failing() {
            time::sleep(Duration::from_millis(2)).await;
        }
        *provider.answer.lock() = Some(signer.jwks().to_string());
        wait_for(2).await;
        while issuer.is_failing() {
            time::sleep(Duration::from_millis(2)).await;
        }
        issuer.wake.notify_one();
        wait_for(3).await;
        assert_eq!(issuer.renew(clock.now()).await, Renewal::Fetched);
        assert_eq!(*provider.rediscovered.lock(), [false, true, false, true]);
        issuer.retire();
        time::timeout(Duration::from_secs(5), task).await.expect("it ends").expect("no panic");
    }

    #[tokio::test]
    async fn a_fetch_that_outlives_its_issuer_changes_nothing() {
        let signer = Signer::new(Algorithm::ES256, "e");
        let provider = Arc::new(Provider { delay: Duration::from_millis(50), ..Provider::with(&signer.jwks()) });
        let issuer = issuer(&provider, |_| {});
        let task = tokio::spawn(Arc::clone(&issuer).run(Arc::new(Clock::new())));
        while provider.count() == 0 {
            time::sleep(Duration::from_millis(2)).await;
        }
        issuer.retire();
        time::timeout(Duration::from_secs(5), task).await.expect("it ends").expect("no panic");
        assert!(issuer.keys.load().is_none());
    }
}
