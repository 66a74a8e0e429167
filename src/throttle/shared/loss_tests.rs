//! A counter's key is overwritten while sidecars count with it: those that are full tell what they hold before another is
//! admitted anything.

use proptest::{prelude::*, test_runner::FileFailurePersistence::WithSource};

use super::{
    moving_tests::{Fate, LENGTH, World, fates},
    settings::SharedMode::{self, Batched, Lease, Strict},
};
use crate::store::Algorithm;

const NODES: usize = 4;

/// A world whose sidecars hear of epochs.
struct Lossy {
    world: World,
    heard: [u64; NODES],
}

impl Lossy {
    fn new(mode: SharedMode, algorithm: Algorithm, limit: u64) -> Self {
        Self { world: World::new(mode, algorithm, NODES, limit), heard: [0; NODES] }
    }

    /// Time passes. Within that in which Redis settles, each sidecar reaches it.
    fn wait(&mut self, ms: u64) {
        let end_ms = self.world.now_ms + ms;
        // More may be found lost by what is told.
        while self.world.is_settling() && end_ms >= self.world.server.settles_until_ms {
            self.world.now_ms = self.world.server.settles_until_ms - 1;
            let epoch = self.world.server.epoch;
            for at in 0..NODES {
                self.hear(at);
                self.world.exchange(at, Fate::Answered);
            }
            if self.world.server.epoch == epoch {
                break;
            }
        }
        self.world.now_ms = end_ms.max(self.world.now_ms);
    }

    fn hear(&mut self, at: usize) {
        if self.heard[at] != self.world.server.epoch {
            self.heard[at] = self.world.server.epoch;
            self.world.nodes[at].tell_all();
        }
    }

    fn exchange(&mut self, at: usize, fate: Fate) {
        self.world.exchange(at, fate);
        if fate == Fate::Answered {
            self.hear(at);
        }
    }

    /// The present window's key, or the one's before, or the bucket's.
    fn spoil(&mut self, former: bool) {
        let number = self.world.demand().number;
        let number = if former { number.saturating_sub(1) } else { number };
        self.world.server.spoiled.insert(number);
    }
}

/// Which sidecar, what becomes of its question, whether it exchanges, the time until the next step, and whether a key is
/// overwritten: that of the window before.
type Step = (usize, Fate, bool, u64, Option<bool>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![4 => 0..200_u64, 1 => 0..6_000_u64];
    let spoiled = prop_oneof![12 => Just(None), 1 => any::<bool>().prop_map(Some)];
    prop::collection::vec((0..NODES, fates(), any::<bool>(), pause, spoiled), 0..400)
}

proptest! {
    // Cases that failed once lie beside this file.
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(WithSource("regressions"))),
        ..ProptestConfig::default()
    })]
    #[test]
    fn lease_and_strict_hold_while_counters_are_overwritten(
        limit in 1..60_u64,
        mode in prop_oneof![Just(Lease), Just(Strict)],
        algorithm in prop_oneof![Just(Algorithm::Fixed), Just(Algorithm::Sliding), Just(Algorithm::Gcra)],
        steps in steps(),
    ) {
        let mut lossy = Lossy::new(mode, algorithm, limit);
        for (at, fate, exchanges, pause, spoiled) in steps {
            lossy.wait(pause);
            if let Some(former) = spoiled {
                lossy.spoil(former);
            }
            if exchanges {
                lossy.exchange(at, fate);
            }
            if lossy.world.request(at, fate) {
                let counted = lossy.world.counted();
                prop_assert!(counted <= limit * LENGTH, "{counted} of {}", limit * LENGTH);
            }
        }
    }
}

#[test]
fn who_is_full_tells_it_after_another_has_found_the_counter_overwritten() {
    for algorithm in [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Gcra] {
        for mode in [Lease, Strict] {
            let mut lossy = Lossy::new(mode, algorithm, 10);
            assert_eq!(
                (0..20).filter(|_| lossy.world.request(0, Fate::Answered)).count(),
                10,
                "{algorithm:?} {mode:?}"
            );
            lossy.spoil(false);
            assert_eq!((0..20).filter(|_| lossy.world.request(1, Fate::Answered)).count(), 0, "{algorithm:?} {mode:?}");
            lossy.wait(2_000);
            let room = usize::from(algorithm == Algorithm::Gcra) * 2;
            let passed = (0..20).filter(|_| lossy.world.request(1, Fate::Answered)).count();
            assert!(passed <= room, "{algorithm:?} {mode:?}: {passed}");
        }
    }
}

/// Nothing is handed out in batches: what is known of a counter is told again, and they go on.
#[test]
fn batches_go_on_while_a_counter_is_overwritten() {
    for algorithm in [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Gcra] {
        let mut lossy = Lossy::new(Batched, algorithm, 20);
        let pass = |lossy: &mut Lossy, n: usize| {
            (0..n)
                .filter(|n| {
                    let passed = lossy.world.request(n % NODES, Fate::Answered);
                    lossy.exchange(n % NODES, Fate::Answered);
                    passed
                })
                .count()
        };
        assert_eq!(pass(&mut lossy, 12), 12, "{algorithm:?}");
        lossy.spoil(false);
        let passed = pass(&mut lossy, 40);
        assert!((8..=8 + 2 * NODES).contains(&passed), "{algorithm:?}: {passed}");
    }
}
