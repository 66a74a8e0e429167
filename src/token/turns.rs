//! Turns at the verifier: a thread that serves requests checks the signatures of new tokens between its other work,
//! never all of them before it.
//!
//! A signature costs about what a whole request with a known token does. So in each round of a thread's event loop one
//! new token is verified, in long rounds as many as fill a sixth of them; whoever comes meanwhile waits in line, each
//! token once however many bring it. A burst is worked off as fast as that; what goes on for longer has a third of the
//! time that all other work leaves, and a twentieth of all time where it leaves none: a thread that has little to do
//! verifies what comes, one that is loaded answers first what is known, and what is refused. Known tokens never come
//! here. A full line is no verdict: nothing is remembered.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus::IntGauge;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    runtime::{Handle, RuntimeMetrics},
    sync::oneshot,
    task, time,
};

use super::digest::{Digest, Spread};

/// `[verification]`: new tokens whose signatures are to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VerificationSettings {
    /// New tokens that may wait for their signature check, for each worker; one more gets 503.
    pub waiting: usize,
}

impl Default for VerificationSettings {
    fn default() -> Self {
        Self { waiting: 1024 }
    }
}

impl VerificationSettings {
    /// What `waiting` may be.
    pub const WAITING: std::ops::RangeInclusive<usize> = 1..=65_536;
}

/// Where turns are had. Each thread has a line of its own.
#[derive(Debug)]
pub(super) struct Turns {
    /// Most tokens in one line.
    most: AtomicUsize,
    /// Requests in any line.
    waiting: IntGauge,
}

/// A turn. When it is dropped, those who have waited with the same token are told to look again.
#[derive(Debug)]
pub(super) struct Turn {
    /// None: outside a runtime there are no rounds, and nobody to wait for.
    line: Option<Arc<Line>>,
    begun: Instant,
    others: Vec<Waiter>,
}

/// The line is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Is given its turn, or told to look again.
type Waiter = oneshot::Sender<Option<Turn>>;

/// Those who wait on one thread.
#[derive(Debug, Default)]
struct Line(Mutex<State>);

#[derive(Debug)]
struct State {
    /// A turn has been had in this round, and an usher sees to the next ones.
    ushered: bool,
    /// The tokens in line, in their order.
    order: VecDeque<Digest>,
    /// Who brings them.
    waiters: HashMap<Digest, Vec<Waiter>, Spread>,
    /// What verifying may still have of the thread's time, in nanoseconds; the last turn may have overdrawn it.
    credit: i64,
    /// Until when it has been given.
    given: Instant,
    /// How long the thread had been busy by then, with verifying and all else.
    busy: Duration,
    /// What a turn takes, smoothed.
    cost: Duration,
}

impl Default for State {
    fn default() -> Self {
        Self {
            ushered: false,
            order: VecDeque::new(),
            waiters: HashMap::default(),
            credit: MOST_CREDIT,
            given: Instant::now(),
            busy: Duration::ZERO,
            cost: Duration::ZERO,
        }
    }
}

/// Gives turns, one round after the other, until nobody waits.
struct Usher {
    line: Arc<Line>,
    runtime: RuntimeMetrics,
}

/// What comes after a round.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Nobody waits.
    Leave,
    /// The share is used up.
    Pause,
    /// So many turns, at least one.
    Turns(usize),
}

/// One who waits, as the gauge has it.
struct Counted<'a>(&'a IntGauge);

impl Turns {
    pub(super) fn new(waiting: IntGauge) -> Self {
        Self { most: AtomicUsize::new(VerificationSettings::default().waiting), waiting }
    }

    /// Lines are this long at most from now on.
    pub(super) fn set_limit(&self, settings: VerificationSettings) {
        self.most.store(settings.waiting, Ordering::Relaxed);
    }

    /// A turn at once, if none has been had in this round, nobody waits, and there is time for it.
    pub(super) fn take(&self) -> Option<Turn> {
        let Ok(runtime) = Handle::try_current() else { return Some(Turn::free()) };
        let line = LINE.with(Arc::clone);
        let metrics = runtime.metrics();
        let now = Instant::now();
        let is_free = {
            let state = &mut *line.0.lock();
            if mem::replace(&mut state.ushered, true) {
                return None;
            }
            state.give(now, busy(&metrics));
            state.credit > 0
        };
        runtime.spawn(Usher { line: Arc::clone(&line), runtime: metrics }.run());
        is_free.then(|| Turn { line: Some(line), begun: now, others: Vec::new() })
    }

    /// Waits for a turn; with none, another has had one with the same token, or the turn is free by now: look again.
    pub(super) async fn wait(&self, token: Digest) -> Result<Option<Turn>, Full> {
        let Some(told) = LINE.with(|line| line.join(token, self.most.load(Ordering::Relaxed)))? else {
            return Ok(None);
        };
        let _counted = Counted::new(&self.waiting);
        let mut turn = told.await.ok().flatten();
        if let Some(turn) = &mut turn {
            turn.begun = Instant::now();
        }
        Ok(turn)
    }
}

impl Line {
    /// A place in line; none where nobody ushers it.
    fn join(&self, token: Digest, most: usize) -> Result<Option<oneshot::Receiver<Option<Turn>>>, Full> {
        let state = &mut *self.0.lock();
        if !state.ushered {
            return Ok(None);
        }
        let (waiter, told) = oneshot::channel();
        match state.waiters.get_mut(&token) {
            Some(others) => others.push(waiter),
            None if state.order.len() >= most => return Err(Full),
            None => {
                state.order.push_back(token);
                state.waiters.insert(token, vec![waiter]);
            }
        }
        Ok(Some(told))
    }

    /// What is to be done after a round that began then.
    fn plan(&self, begun: Instant, now: Instant, busy: Duration) -> Plan {
        let state = &mut *self.0.lock();
        if state.order.is_empty() {
            return Plan::Leave;
        }
        state.give(now, busy);
        if state.credit <= 0 {
            return Plan::Pause;
        }
        let cost = nanos(state.cost.max(LEAST_COST));
        let further = (nanos(now.saturating_duration_since(begun)) / OF_ROUND).min(state.credit) / cost;
        Plan::Turns(usize::try_from(further).unwrap_or(0).saturating_add(1))
    }

    fn next(&self) -> Option<Vec<Waiter>> {
        let state = &mut *self.0.lock();
        let token = state.order.pop_front()?;
        Some(state.waiters.remove(&token).unwrap_or_default())
    }

    /// A turn has taken so long. One during which the process was stopped is no reason to pause for six times that.
    fn charge(&self, spent: Duration) {
        let spent = spent.min(MOST_CHARGED);
        let state = &mut *self.0.lock();
        state.credit = state.credit.saturating_sub(nanos(spent));
        state.cost = (state.cost * 7 + spent) / 8;
    }
}

impl State {
    /// The share of the time that has passed, of which the thread was busy for what has been added to `busy`: rounds are
    /// added when they end, so that it may be more than has passed.
    fn give(&mut self, now: Instant, busy: Duration) {
        let passed = nanos(now.saturating_duration_since(self.given));
        let idle = passed.saturating_sub(nanos(busy.saturating_sub(self.busy)));
        let given = passed / OF_ALL + idle / OF_IDLE;
        self.credit = self.credit.saturating_add(given).clamp(-MOST_CREDIT, MOST_CREDIT);
        (self.given, self.busy) = (now, busy);
    }
}

impl Usher {
    async fn run(self) {
        let mut now = Instant::now();
        loop {
            // Behind all that is ready, and all that has come in meanwhile.
            task::yield_now().await;
            let begun = mem::replace(&mut now, Instant::now());
            let mut turns = match self.line.plan(begun, now, busy(&self.runtime)) {
                Plan::Leave => return,
                Plan::Pause => {
                    time::sleep(PAUSE).await;
                    now = Instant::now();
                    continue;
                }
                Plan::Turns(turns) => turns,
            };
            while turns > 0
                && let Some(waiters) = self.line.next()
            {
                turns -= usize::from(self.call(waiters));
            }
        }
    }

    /// Gives a turn to one of those who bring a token; false: they have all gone.
    fn call(&self, mut waiters: Vec<Waiter>) -> bool {
        waiters.retain(|waiter| !waiter.is_closed());
        let Some(first) = waiters.pop() else { return false };
        first.send(Some(Turn::of(Some(Arc::clone(&self.line)), waiters))).is_ok()
    }
}

/// However it ends, even with its runtime, nobody is left waiting for it.
impl Drop for Usher {
    fn drop(&mut self) {
        let left = {
            let state = &mut *self.line.0.lock();
            state.ushered = false;
            state.order.clear();
            mem::take(&mut state.waiters)
        };
        left.into_values().flatten().for_each(look_again);
    }
}

impl Turn {
    /// One that nobody else has to wait for.
    pub(super) fn free() -> Self {
        Self::of(None, Vec::new())
    }

    fn of(line: Option<Arc<Line>>, others: Vec<Waiter>) -> Self {
        Self { line, begun: Instant::now(), others }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.charge(self.begun.elapsed());
        }
        mem::take(&mut self.others).into_iter().for_each(look_again);
    }
}

impl<'a> Counted<'a> {
    fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn look_again(waiter: Waiter) {
    // Who has gone need not be told.
    let _ = waiter.send(None);
}

thread_local! {
    static LINE: Arc<Line> = Arc::default();
}

/// How long the thread has been busy: a worker's runtime has no other.
fn busy(runtime: &RuntimeMetrics) -> Duration {
    runtime.worker_total_busy_duration(0)
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

/// Of a long round, verifying has a sixth.
const OF_ROUND: i64 = 6;
/// Of the time that is left, a third: with nothing else to do some 9,000 new RS256 or 4,000 ES256 tokens a second, as
/// serving those that pass takes as much again and more.
const OF_IDLE: i64 = 3;
/// Of all time, however busy the thread is, a twentieth: some 2,000 and 600.
const OF_ALL: i64 = 20;
/// And what it has not used of that lately: some hundred signatures in a burst. In nanoseconds.
const MOST_CREDIT: i64 = 10_000_000;
/// Longer than any turn that is not held up.
const MOST_CHARGED: Duration = Duration::from_millis(15);
/// Before any turn has been measured.
const LEAST_COST: Duration = Duration::from_micros(10);
/// As short as the runtime's timers are.
const PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
