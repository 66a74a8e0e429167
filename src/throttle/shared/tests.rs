//! What the modes promise, over random schedules of many sidecars, with answers lost and told twice; Redis as the
//! scripts make it.

use proptest::{prelude::*, test_runner::FileFailurePersistence::WithSource};

use super::{
    cell::{Cell, Line},
    ledger::{Demand, Ledger, Short},
    model::Hash,
    settings::SharedMode::{self, Batched, Lease, Strict},
};
use crate::store::{Algorithm, Window};

const NOW: u64 = 3_600_000;
const INTERVAL: u64 = 100;
const IDLE: u64 = 2_000;

fn demand(limit: u64) -> Demand {
    Demand {
        key: 7,
        limit,
        window: Window::Seconds(3_600),
        number: 1,
        algorithm: Algorithm::Fixed,
        stop: true,
        amount: 1,
    }
}

/// Sidecars and their Redis, one limit.
struct World {
    mode: SharedMode,
    nodes: Vec<Ledger>,
    redis: Hash<usize>,
    demand: Demand,
    now_ms: u64,
    admitted: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    /// Never came to Redis.
    Lost,
    /// Came, and the answer was lost.
    Unanswered,
}

impl World {
    fn new(mode: SharedMode, nodes: usize, limit: u64) -> Self {
        let nodes = (0..nodes).map(|_| Ledger::new()).collect();
        Self { mode, nodes, redis: Hash::new(), demand: demand(limit), now_ms: NOW, admitted: 0 }
    }

    /// A request at a sidecar: whether it passes.
    fn request(&mut self, at: usize, fate: Fate) -> bool {
        let passes = match self.nodes[at].take(self.mode, false, &[self.demand], self.now_ms) {
            Ok(()) => true,
            Err(Short { ask: false, .. }) => false,
            Err(Short { ask: true, .. }) => {
                self.ask(at, fate);
                self.nodes[at].take(self.mode, false, &[self.demand], self.now_ms).is_ok()
            }
        };
        self.admitted += u64::from(passes);
        passes
    }

    fn ask(&mut self, at: usize, fate: Fate) {
        let (cell, line) = self.nodes[at].ask(&self.demand, self.mode, self.now_ms).unwrap();
        self.tell(at, &cell, line, fate);
    }

    fn exchange(&mut self, at: usize, fate: Fate) {
        self.nodes[at].rest(self.mode, self.now_ms, IDLE);
        for (cell, line) in self.nodes[at].gather(self.mode, self.now_ms, IDLE, usize::MAX) {
            self.tell(at, &cell, line, fate);
        }
    }

    fn tell(&mut self, at: usize, cell: &std::sync::Arc<Cell>, line: Line, fate: Fate) {
        let answer = (fate != Fate::Lost).then(|| self.redis.exchange(at, &line, false));
        match answer.filter(|_| fate == Fate::Answered) {
            Some(answer) => self.nodes[at].learn(cell, &line, answer, self.now_ms, INTERVAL),
            None => self.nodes[at].lose(cell, &line),
        }
    }

    fn used(&self) -> u64 {
        self.nodes.iter().map(|node| node.open(&self.demand).used()).sum()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Request(usize, Fate),
    Exchange(usize, Fate),
    Wait(u64),
    Limit(u64),
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![8 => Just(Fate::Answered), 1 => Just(Fate::Lost), 1 => Just(Fate::Unanswered)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            12 => (0..4_usize, fates()).prop_map(|(at, fate)| Step::Request(at, fate)),
            4 => (0..4_usize, fates()).prop_map(|(at, fate)| Step::Exchange(at, fate)),
            1 => (0..3_000_u64).prop_map(Step::Wait),
        ],
        0..600,
    )
}

impl World {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Request(at, fate) => _ = self.request(at, fate),
            Step::Exchange(at, fate) => self.exchange(at, fate),
            Step::Wait(ms) => self.now_ms += ms,
            Step::Limit(limit) => self.demand.limit = limit,
        }
    }
}

proptest! {
    // Cases that failed once lie beside this file.
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(WithSource("regressions"))),
        ..ProptestConfig::default()
    })]
    #[test]
    fn a_lease_never_admits_more_than_the_limit(limit in 1..200_u64, steps in steps()) {
        let mut world = World::new(Lease, 4, limit);
        for step in &steps {
            world.take(step);
            prop_assert!(world.admitted <= limit);
            prop_assert_eq!(world.used(), world.admitted);
            prop_assert!(world.redis.total() <= limit);
        }
    }

    #[test]
    fn a_lease_admits_all_of_the_limit_once_the_idle_have_given_back(limit in 1..200_u64, steps in steps()) {
        let mut world = World::new(Lease, 4, limit);
        steps.iter().for_each(|step| world.take(step));
        // All but the first fall silent; a share whose answer was lost is learnt, then returned.
        for _ in 0..4 {
            world.now_ms += IDLE;
            for at in 0..4 {
                world.nodes[at].tell_all();
                world.exchange(at, Fate::Answered);
            }
        }
        for _ in 0..2 * limit {
            world.now_ms += INTERVAL;
            world.request(0, Fate::Answered);
            world.exchange(0, Fate::Answered);
        }
        prop_assert_eq!(world.admitted, limit);
    }

    /// `rate` requests an interval and sidecar, exchanges at any place within each interval.
    #[test]
    fn batches_admit_at_most_two_intervals_above_the_limit(
        limit in 1..400_u64,
        nodes in 1..9_usize,
        rate in 1..30_u64,
        places in prop::collection::vec(0..30_u64, 9),
        rounds in 1..60_u64,
    ) {
        let mut world = World::new(Batched, nodes, limit);
        for _ in 0..rounds {
            world.now_ms += INTERVAL;
            for n in 0..rate {
                for (at, place) in places.iter().enumerate().take(nodes) {
                    world.request(at, Fate::Answered);
                    if place % rate == n {
                        world.exchange(at, Fate::Answered);
                    }
                }
            }
        }
        let nodes = nodes as u64;
        prop_assert!(world.admitted <= limit + 2 * rate * nodes + nodes, "{}", world.admitted);
        prop_assert!(world.admitted >= limit.min(rounds * rate * nodes));
    }

    #[test]
    fn what_is_told_twice_counts_once(steps in steps()) {
        let mut world = World::new(Batched, 4, 100);
        steps.iter().for_each(|step| world.take(step));
        for at in 0..4 {
            world.nodes[at].tell_all();
            world.exchange(at, Fate::Answered);
        }
        prop_assert_eq!(world.redis.total(), world.admitted);
    }
}

#[test]
fn a_redis_that_comes_back_empty_is_told_what_was_counted() {
    for mode in [Batched, Lease] {
        let mut world = World::new(mode, 3, 1_000);
        for n in 0..300 {
            world.request(n % 3, Fate::Answered);
            world.exchange(n % 3, Fate::Answered);
        }
        let before = world.redis.total();
        world.redis = Hash::new();
        for at in 0..3 {
            world.nodes[at].tell_all();
            for (cell, line) in world.nodes[at].gather(mode, NOW, IDLE, usize::MAX) {
                let answer = world.redis.exchange(at, &line, true);
                world.nodes[at].learn(&cell, &line, answer, NOW, INTERVAL);
            }
        }
        assert_eq!(world.redis.total(), before, "{mode:?}");
        for n in 0..3_000 {
            world.now_ms += 50;
            world.request(n % 3, Fate::Answered);
            world.exchange(n % 3, Fate::Answered);
        }
        let above = if mode == Batched { 3 } else { 0 };
        assert!((1_000..=1_000 + above).contains(&world.admitted), "{mode:?}: {}", world.admitted);
    }
}

/// Who is gone tells nothing again: those who heard of it do.
#[test]
fn what_a_sidecar_that_is_gone_has_counted_is_told_by_who_heard_of_it() {
    for mode in [Batched, Lease] {
        let mut world = World::new(mode, 3, 100);
        let pass = |world: &mut World, at: usize, n: usize| {
            for _ in 0..n {
                assert!(world.request(at, Fate::Answered));
                world.exchange(at, Fate::Answered);
            }
        };
        pass(&mut world, 0, 5);
        pass(&mut world, 2, 40);
        pass(&mut world, 1, 15);
        // Shares go back, and all but the last hear of it: sidecar 0 knows less than sidecar 1.
        world.now_ms += IDLE;
        world.exchange(2, Fate::Answered);
        world.exchange(0, Fate::Answered);
        world.exchange(1, Fate::Answered);
        // The first counts on before it is told; then all is lost, and sidecar 2 has ended.
        let _ = world.nodes[0].take(Batched, false, &[world.demand], world.now_ms).map(|()| world.admitted += 1);
        world.redis = Hash::new();
        for _ in 0..2 {
            for at in [0, 1] {
                world.nodes[at].tell_all();
                world.exchange(at, Fate::Answered);
            }
        }
        // What is held counts, also what had gone back after it was heard of.
        let held = if mode == Batched { 0 } else { 4 };
        let total = world.redis.total();
        assert!((world.admitted..=world.admitted + held).contains(&total), "{mode:?}: {total}, {}", world.admitted);
        for n in 0..1_000 {
            world.now_ms += INTERVAL;
            world.request(n % 2, Fate::Answered);
            world.exchange(n % 2, Fate::Answered);
        }
        let right = if mode == Batched { 100..=102 } else { 96..=100 };
        assert!(right.contains(&world.admitted), "{mode:?}: {}", world.admitted);
    }
}

#[test]
fn a_lower_limit_holds_from_the_next_request_on_and_shares_go_back() {
    let mut world = World::new(Lease, 2, 1_000);
    for n in 0..200 {
        world.request(n % 2, Fate::Answered);
        world.exchange(n % 2, Fate::Answered);
    }
    assert!(world.redis.total() > 200, "more is held than used");
    world.take(&Step::Limit(150));
    assert!(!world.request(0, Fate::Answered) && !world.request(1, Fate::Answered));
    world.exchange(0, Fate::Answered);
    world.exchange(1, Fate::Answered);
    assert_eq!((world.redis.total(), world.admitted), (200, 200));
    world.take(&Step::Limit(201));
    world.now_ms += INTERVAL;
    assert!(world.request(0, Fate::Answered) && !world.request(1, Fate::Answered));
}

#[test]
fn alone_it_counts_on_from_what_is_known() {
    for mode in [Batched, Lease, Strict] {
        let mut world = World::new(mode, 2, 10);
        if mode != Strict {
            for _ in 0..4 {
                world.request(0, Fate::Answered);
                world.exchange(0, Fate::Answered);
            }
            world.request(1, Fate::Answered);
            world.exchange(1, Fate::Answered);
        }
        let known = world.nodes[1].left(&world.demand, world.now_ms);
        let alone = (0..20).filter(|_| world.nodes[1].take(mode, true, &[world.demand], NOW).is_ok()).count();
        assert_eq!(alone as u64, known, "{mode:?}");
        world.exchange(1, Fate::Answered);
        assert!(world.redis.total() >= alone as u64, "{mode:?}: it is told afterwards");
    }
}

#[test]
fn what_one_limit_refuses_counts_at_none() {
    for mode in [Batched, Lease] {
        let world = World::new(mode, 1, 10);
        let narrow = Demand { key: 8, limit: 2, ..world.demand };
        let both = [world.demand, narrow];
        let mut passed = 0;
        for _ in 0..20 {
            match world.nodes[0].take(mode, false, &both, world.now_ms) {
                Ok(()) => passed += 1,
                Err(Short { ask: true, at }) => {
                    let (cell, mut redis) = (world.nodes[0].open(&both[at]), Hash::new());
                    let line = cell.line(mode, world.now_ms, IDLE);
                    world.nodes[0].learn(&cell, &line, redis.exchange(0, &line, false), world.now_ms, INTERVAL);
                }
                Err(short) => assert_eq!(short.at, 1),
            }
        }
        assert_eq!(passed, if mode == Batched { 2 } else { world.nodes[0].open(&narrow).used() }, "{mode:?}");
        assert_eq!(world.nodes[0].open(&world.demand).used(), passed, "{mode:?}");
    }
}

#[test]
fn another_mode_gives_shares_back_and_keeps_counts() {
    let mut world = World::new(Lease, 2, 1_000);
    for n in 0..100 {
        world.request(n % 2, Fate::Answered);
        world.exchange(n % 2, Fate::Answered);
    }
    assert!(world.redis.total() > 100);
    world.mode = Batched;
    for _ in 0..2 {
        world.exchange(0, Fate::Answered);
        world.exchange(1, Fate::Answered);
    }
    assert_eq!(world.redis.total(), 100);
    world.mode = Lease;
    world.now_ms += INTERVAL;
    assert!(world.request(0, Fate::Answered));
    assert_eq!(world.used(), 101);
}

#[test]
fn a_key_that_is_not_touched_is_not_exchanged_and_a_near_limit_presses() {
    let ledger = Ledger::new();
    let wide = demand(1_000);
    ledger.take(Batched, false, &[wide], NOW).unwrap();
    assert!(!ledger.is_pressed());
    assert_eq!(ledger.gather(Batched, NOW, IDLE, usize::MAX).len(), 1);
    assert!(ledger.gather(Batched, NOW, IDLE, usize::MAX).is_empty());
    for _ in 0..499 {
        ledger.take(Batched, false, &[wide], NOW).unwrap();
    }
    assert!(ledger.is_pressed(), "as much is untold as is left");
}

#[test]
fn windows_that_are_over_are_forgotten_and_limits_of_different_windows_do_not_meet() {
    let ledger = Ledger::new();
    let at = |number| Demand { number, window: Window::Seconds(1), ..demand(1) };
    for number in 0..100 {
        assert!(ledger.take(Batched, false, &[at(number)], NOW).is_ok());
        assert!(ledger.take(Batched, false, &[at(number)], NOW).is_err());
    }
    ledger.sweep(10_000);
    assert_eq!(ledger.len(), 100);
    ledger.sweep(61_000);
    assert_eq!(ledger.len(), 49);
    ledger.sweep(NOW);
    assert!(ledger.is_empty());
}

#[test]
fn amounts_are_counted_afterwards_and_looked_at_before() {
    for mode in [Batched, Lease] {
        let ledger = Ledger::new();
        let look = Demand { amount: 0, ..demand(100) };
        assert!(ledger.take(mode, false, &[look], NOW).is_ok());
        ledger.record(&Demand { amount: 250, ..look }, mode, NOW);
        assert_eq!(ledger.take(mode, false, &[look], NOW), Err(Short { at: 0, ask: false }));
        assert!(ledger.is_beyond(&look, NOW));
        let lines = ledger.gather(mode, NOW, IDLE, usize::MAX);
        assert_eq!(lines.iter().map(|(_, line)| (line.have, line.want, line.back)).collect::<Vec<_>>(), [(250, 0, 0)]);
    }
}

#[test]
fn many_threads_share_a_limit_exactly() {
    for mode in [Batched, Lease] {
        let (ledger, limit) = (Ledger::new(), demand(10_000));
        let passed = std::sync::atomic::AtomicU64::new(0);
        if mode == Lease {
            let cell = ledger.open(&limit);
            assert_eq!(ledger.take(mode, false, &[limit], NOW), Err(Short { at: 0, ask: true }));
            let line = Line { want: 10_000, ..cell.line(mode, NOW, IDLE) };
            ledger.learn(&cell, &line, Hash::new().exchange(0, &line, false), NOW, INTERVAL);
        }
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let took = (0..4_000).filter(|_| ledger.take(mode, false, &[limit], NOW).is_ok()).count();
                    passed.fetch_add(took as u64, std::sync::atomic::Ordering::Relaxed);
                });
            }
        });
        assert_eq!(passed.into_inner(), 10_000, "{mode:?}");
    }
}
