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
    jwks::JwksError,
    keys::{FetchError, FetchKeys, Found, KeySet, KeySource},
    metrics::FetchCounters,
    rules::Rules,
    settings::Startup,
};
use crate::net::{Clock, Now};

/// A key manager as far as tokens go. Its keys are kept fresh by [`Issuer::run`].
#[derive(Debug)]
pub struct Issuer {
    pub(super) rules: Rules,
    pub(super) keys: ArcSwapOption<KeySet>,
    source: KeySource,
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
    /// The newest demand that has been met.
    met: watch::Sender<u64>,
    /// Wakes the task: a demand, or retirement.
    wake: Notify,
    counters: FetchCounters,
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
    pub(super) fn new(rules: Rules, source: KeySource, counters: FetchCounters) -> Self {
        Self {
            rules,
            keys: ArcSwapOption::empty(),
            source,
            fetched_ms: AtomicU64::new(0),
            next_ms: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            retired: AtomicBool::new(false),
            demand: Mutex::default(),
            met: watch::Sender::new(0),
            wake: Notify::new(),
            counters,
        }
    }

    /// Keeps the keys fresh until the issuer is retired. Started by `app`, once for each issuer.
    pub async fn run(self: Arc<Self>, clock: Arc<Clock>) {
        let KeySource::Remote(source) = &self.source else { return };
        let mut astray = false;
        while !self.is_retired() {
            // Read before the fetch: a demand made while it runs may be newer than its answer.
            let demand = self.demand.lock().number;
            let rediscover = astray || demand > *self.met.borrow();
            let outcome = self.fetch(source.as_ref(), rediscover).await;
            if self.is_retired() {
                break;
            }
            let now = clock.now();
            self.settle(&outcome, now);
            // What answered is no key set of use: the keys may be elsewhere by now.
            astray = matches!(outcome, Err(FetchError::Keys(_)));
            let delay = self.delay(outcome.is_ok());
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
            ready: has_keys && self.is_fresh(now),
            keys_age_s: (has_keys && self.is_remote()).then(|| self.age_ms(now) / 1000),
            required: self.rules.settings.startup == Startup::Required,
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

    async fn fetch(&self, source: &dyn FetchKeys, rediscover: bool) -> Result<(Arc<KeySet>, Found), FetchError> {
        let text = source.fetch(rediscover).await?;
        if text.is_empty() {
            // Not the same as no set: a provider that has one answers with it.
            return Err(JwksError::Malformed.into());
        }
        Ok(KeySet::read(&text, self.rules.wanted(), self.keys.load_full().as_ref())?)
    }

    /// Puts a fetched set in force, or notes that there is none.
    fn settle(&self, outcome: &Result<(Arc<KeySet>, Found), FetchError>, now: Now) {
        let name = &*self.rules.name;
        match outcome {
            Ok((set, found)) => {
                self.counters.count("ok");
                self.note(*found);
                self.install(set, now);
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

    /// Puts a set given in full in force. Kept as it was where the new text is of no use, which
    /// `KeyManagers::build` has ruled out.
    pub(super) fn read_fixed(&self, source: &KeySource) {
        let KeySource::Fixed(text) = source else { return };
        match KeySet::read(text, self.rules.wanted(), self.keys.load_full().as_ref()) {
            Ok((set, found)) => {
                self.note(found);
                self.install(&set, Now::at_ms(0));
            }
            Err(error) => tracing::error!(key_manager.name = &*self.rules.name, %error, "cannot use the keys given"),
        }
    }

    /// Whether it judges by these very rules, with keys from the same kind of source.
    pub(super) fn is_for(&self, rules: &Rules, source: &KeySource) -> bool {
        self.rules == *rules && matches!(source, KeySource::Remote(_)) == self.is_remote()
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

    fn note(&self, found: Found) {
        let name = &*self.rules.name;
        if found.private {
            tracing::warn!(key_manager.name = name, "the key set shows private keys; whoever read it can forge tokens");
        }
        if found.skipped > 0 {
            tracing::debug!(key_manager.name = name, skipped = found.skipped, "keys in the set are of no use here");
        }
    }

    /// How long until the next fetch, with jitter so that many sidecars spread out. Good keys are fetched
    /// anew long before they are too old, however close `jwks_refresh` is to `jwks_max_stale`.
    fn delay(&self, good: bool) -> Duration {
        let (span, spread) = if good {
            let settings = &self.rules.settings;
            (settings.jwks_refresh.0.min(settings.jwks_max_stale.0 / 2).max(FIRST_RETRY), 0.1)
        } else {
            let first = if self.keys.load().is_some() { LATER_RETRY } else { FIRST_RETRY };
            let doublings = self.failures.load(Ordering::Relaxed).saturating_sub(1).min(10);
            ((first * 2_u32.pow(doublings)).min(LONGEST_RETRY), 0.25)
        };
        span.mul_f64(1.0 + spread * (fastrand::f64() * 2.0 - 1.0))
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
        let counters = Metrics::register(&prometheus::Registry::new()).expect("a fresh registry").fetches(&rules.name);
        Arc::new(Issuer::new(rules, KeySource::Remote(Arc::clone(provider) as Arc<dyn FetchKeys>), counters))
    }

    #[test]
    fn good_keys_are_fetched_anew_long_before_they_are_too_old() {
        let delays = |refresh: u64, max_stale: u64| {
            let spans = (Span::seconds(refresh), Span::seconds(max_stale));
            let issuer = issuer(&Arc::default(), |s| (s.jwks_refresh, s.jwks_max_stale) = spans);
            let delays: Vec<f64> = (0..200).map(|_| issuer.delay(true).as_secs_f64()).collect();
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
        // The answer is taken some time after the fetch is counted: that of the first one must have failed.
        while !issuer.is_failing() {
            time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(provider.count(), 1);
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
    async fn an_empty_answer_is_no_set_even_beside_shared_keys() {
        let provider = Arc::new(Provider { answer: Mutex::new(Some(String::new())), ..Provider::default() });
        let issuer = issuer(&provider, |s| {
            s.algorithms.push(Algorithm::HS256);
            let shared = r#"[{"alg":"HS256","secret":"a secret of 32 bytes, or longer!"}]"#;
            s.secret_keys = serde_json::from_str(shared).expect("good settings");
        });
        let task = tokio::spawn(Arc::clone(&issuer).run(Arc::new(Clock::new())));
        while !issuer.is_failing() {
            time::sleep(Duration::from_millis(2)).await;
        }
        assert!(issuer.keys.load().is_none());
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
