//! Tests of turns.

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
