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
mod tests {
    use std::{
        cell::RefCell,
        task::{Context, Waker},
    };

    use super::*;

    fn turns(most: usize) -> Turns {
        let turns = Turns::new(IntGauge::new("waiting", "in tests").expect("a gauge"));
        turns.set_limit(VerificationSettings { waiting: most });
        turns
    }

    /// What happened, in order.
    type Log = RefCell<Vec<String>>;

    async fn sight(turns: &Turns, n: u8, log: &Log) {
        loop {
            if let Some(_turn) = turns.take() {
                log.borrow_mut().push(format!("at once {n}"));
                return;
            }
            match turns.wait(Digest::for_test(n)).await {
                Ok(Some(_turn)) => return log.borrow_mut().push(format!("in turn {n}")),
                Ok(None) => {}
                Err(Full) => return log.borrow_mut().push(format!("shed {n}")),
            }
        }
    }

    #[tokio::test]
    async fn one_at_once_the_others_in_their_order_and_beyond_the_limit_none() {
        let (turns, log) = (turns(3), Log::default());
        let all = (0..6).map(|n| sight(&turns, n, &log));
        futures_util::future::join_all(all).await;
        assert_eq!(*log.borrow(), ["at once 0", "shed 4", "shed 5", "in turn 1", "in turn 2", "in turn 3"]);
        assert_eq!(turns.waiting.get(), 0);
        while LINE.with(|line| line.0.lock().ushered) {
            task::yield_now().await;
        }
        sight(&turns, 9, &log).await;
        assert_eq!(log.borrow().last().map(String::as_str), Some("at once 9"), "the line has been left");
    }

    #[tokio::test]
    async fn other_work_runs_between_two_turns() {
        let (turns, log) = (turns(100), Log::default());
        let work = async {
            for _ in 0..200 {
                log.borrow_mut().push("work".into());
                task::yield_now().await;
            }
        };
        let sights = futures_util::future::join_all((0..50).map(|n| sight(&turns, n, &log)));
        tokio::join!(work, sights);
        let log = log.borrow();
        let longest = log.split(|what| what == "work").map(<[_]>::len).max();
        // The turns of this test cost nothing, so that a round may give some more than one.
        assert!(longest.is_some_and(|longest| longest < 25), "{longest:?} turns in a row");
    }

    #[tokio::test]
    async fn a_token_has_one_place_however_many_bring_it() {
        let (turns, log) = (turns(1), Log::default());
        let _first = turns.take().expect("nobody waits");
        let same = (0..20).map(|_| async {
            match turns.wait(Digest::for_test(1)).await {
                Ok(Some(_turn)) => log.borrow_mut().push("in turn".into()),
                Ok(None) => log.borrow_mut().push("told".into()),
                Err(Full) => log.borrow_mut().push("shed".into()),
            }
        });
        let other = async { assert_eq!(turns.wait(Digest::for_test(2)).await.err(), Some(Full)) };
        tokio::join!(futures_util::future::join_all(same), other);
        let log = log.borrow();
        assert_eq!(log.iter().filter(|what| *what == "in turn").count(), 1, "{log:?}");
        assert_eq!(log.iter().filter(|what| *what == "told").count(), 19, "{log:?}");
    }

    #[tokio::test]
    async fn who_goes_away_holds_nobody_up() {
        let turns = turns(10);
        drop(turns.take().expect("nobody waits"));
        for n in 0..5 {
            let mut gone = Box::pin(turns.wait(Digest::for_test(n)));
            assert!(gone.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(turns.waiting.get(), 1);
        }
        let last = turns.wait(Digest::for_test(9)).await.expect("room");
        assert!(last.is_some());
        assert_eq!(turns.waiting.get(), 0);
    }

    #[test]
    fn a_runtime_that_ends_takes_no_turn_with_it() {
        let turns = turns(10);
        for _ in 0..3 {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            // Its usher is dropped with it.
            runtime.block_on(async { assert!(turns.take().is_some()) });
        }
        assert!(turns.take().is_some() && turns.take().is_some(), "outside a runtime nobody waits");
    }

    /// A line on a thread whose time the test makes up.
    struct Thread {
        line: Line,
        now: Instant,
        busy: Duration,
    }

    impl Thread {
        fn new() -> Self {
            let line = Line::default();
            let now = line.0.lock().given;
            line.0.lock().ushered = true;
            line.join(Digest::for_test(1), 1).expect("room");
            Self { line, now, busy: Duration::ZERO }
        }

        /// What comes after a round that has taken so long, and after which the thread had nothing to do for a while.
        fn round(&mut self, busy: Duration, idle: Duration) -> Plan {
            let begun = self.now;
            self.now += busy;
            let plan = self.line.plan(begun, self.now, self.busy);
            self.busy += busy;
            self.now += idle;
            plan
        }

        /// How many turns are given in a second of such rounds, while new tokens keep coming.
        fn turns(&mut self, busy: Duration, idle: Duration) -> u32 {
            let (end, mut turns) = (self.now + Duration::from_secs(1), 0);
            while self.now < end {
                if let Plan::Turns(_) = self.round(busy, idle) {
                    self.line.charge(TURN);
                    self.round(TURN, Duration::ZERO);
                    turns += 1;
                }
            }
            turns
        }
    }

    const TURN: Duration = Duration::from_micros(25);
    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn a_long_round_is_followed_by_turns_for_a_sixth_of_it() {
        let mut thread = Thread::new();
        for _ in 0..100 {
            thread.line.charge(TURN);
        }
        assert_eq!(thread.round(30 * MICRO, Duration::ZERO), Plan::Turns(1), "a short one");
        assert!(matches!(thread.round(10_000 * MICRO, Duration::ZERO), Plan::Turns(64..=70)), "a long one");
        let Plan::Turns(many) = thread.round(10_000_000 * MICRO, Duration::ZERO) else { panic!("a very long one") };
        assert!(many <= 420, "{many}");
        thread.line.next();
        assert_eq!(thread.round(30 * MICRO, Duration::ZERO), Plan::Leave, "nobody waits");
    }

    #[test]
    fn the_less_other_work_there_is_the_more_turns_there_are() {
        // No second of them begins with what was not used before.
        let turns = |busy: u32, idle: u32| {
            let mut thread = Thread::new();
            thread.turns(busy * MICRO, idle * MICRO);
            thread.turns(busy * MICRO, idle * MICRO)
        };
        // Without other work, (1 - v) / 3 + 1 / 20 = v of the time: 28 percent.
        assert!((10_500..=11_800).contains(&turns(1, 40)), "{} with nothing else to do", turns(1, 40));
        // With it for half of the time, (1 - (1 - v) / 2 - v) / 3 + 1 / 20 = v: 18 to 19 percent.
        assert!((7_000..=8_200).contains(&turns(20, 20)), "{} beside other work", turns(20, 20));
        assert!((1_900..=2_100).contains(&turns(30, 0)), "{} beside all it can do", turns(30, 0));
    }

    #[test]
    fn it_goes_on_soon_after_it_has_used_its_share_up() {
        let mut thread = Thread::new();
        thread.turns(30 * MICRO, Duration::ZERO);
        let mut pauses = 0;
        while thread.round(30 * MICRO, Duration::ZERO) == Plan::Pause {
            pauses += 1;
        }
        assert!(pauses < 40, "{pauses} pauses");
    }

    #[test]
    fn a_turn_held_up_for_an_hour_stops_the_line_for_no_longer_than_a_moment() {
        let line = Line::default();
        line.0.lock().ushered = true;
        let _told = line.join(Digest::for_test(1), 1).expect("room");
        let now = line.0.lock().given;
        line.charge(Duration::from_secs(3600));
        assert_eq!(line.plan(now, now, Duration::ZERO), Plan::Pause);
        assert!(matches!(line.plan(now, now + Duration::from_millis(100), Duration::ZERO), Plan::Turns(_)));
    }

    #[tokio::test]
    async fn who_comes_when_the_share_is_used_up_waits_and_is_served() {
        let (turns, log) = (turns(10), Log::default());
        LINE.with(|line| line.charge(Duration::from_millis(12)));
        tokio::time::timeout(Duration::from_secs(60), sight(&turns, 1, &log)).await.expect("a turn");
        assert_eq!(*log.borrow(), ["in turn 1"]);
    }
}
