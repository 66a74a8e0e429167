//! Counting: one limit and three, with room and without, shared by threads and not.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use divan::{Bencher, counter::ItemsCount};
use tollgate::{
    net::Now,
    store::{Burst, Limits, Quota, Tier, Window},
    throttle::{Charge, Level, Limiter},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: Now = Now::at_ms(1_790_000_000_000);
const CALLS: usize = 1024;

fn main() {
    divan::main();
}

fn tier(counter: u128, limit: u64, burst: bool) -> Tier {
    let limits = Limits {
        name: "Gold".into(),
        quota: Quota::requests(limit, Window::Seconds(60)),
        also: None,
        burst: burst.then_some(Burst { requests: i32::MAX as u32, per_ms: 86_400_000 }),
        stop_on_quota_reach: true,
    };
    // Digests in reality: spread over all bits.
    let counter = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_ne_bytes();
    Tier { limits: Arc::new(limits), counter }
}

fn calls(bencher: Bencher, limiter: &Limiter, charges: impl Fn() -> Vec<(Level, Tier)> + Sync) {
    bencher.counter(ItemsCount::new(CALLS)).with_inputs(&charges).bench_refs(|tiers| {
        let charges: Vec<Charge<'_>> =
            tiers.iter().map(|(level, tier)| Charge { level: *level, tier, user: 0 }).collect();
        for _ in 0..CALLS {
            let _ = black_box(limiter.admit(black_box(&charges), NOW, false));
        }
    });
}

/// All threads on one counter: the worst case.
#[divan::bench(threads = [1, 2])]
fn one_limit_shared(bencher: Bencher) {
    let limiter = Limiter::new();
    calls(bencher, &limiter, || vec![(Level::Subscription, tier(1, i32::MAX as u64, false))]);
}

/// Each thread on a counter of its own.
#[divan::bench(threads = [1, 2])]
fn one_limit_apart(bencher: Bencher) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let limiter = Limiter::new();
    calls(bencher, &limiter, || {
        let own = NEXT.fetch_add(1, Ordering::Relaxed) % 64;
        vec![(Level::Subscription, tier(u128::from(own), i32::MAX as u64, false))]
    });
}

/// Resource, subscription with burst, application with burst.
#[divan::bench(threads = [1, 2])]
fn three_limits_shared(bencher: Bencher) {
    let limiter = Limiter::new();
    calls(bencher, &limiter, || {
        vec![
            (Level::Resource, tier(1, i32::MAX as u64, false)),
            (Level::Subscription, tier(2, i32::MAX as u64, true)),
            (Level::Application, tier(3, i32::MAX as u64, true)),
        ]
    });
}

/// No room left: a refusal writes nothing.
#[divan::bench(threads = [1, 2])]
fn refused(bencher: Bencher) {
    let limiter = Limiter::new();
    calls(bencher, &limiter, || vec![(Level::Subscription, tier(1, 1, false))]);
}

/// One limit among a million counters, another each time.
#[divan::bench]
fn spread_over_a_million(bencher: Bencher) {
    let limiter = Limiter::new();
    let tier = tier(1, i32::MAX as u64, false);
    let charge = |user: u32| Charge { level: Level::Application, tier: &tier, user: u128::from(user) };
    for user in 0..1_000_000 {
        let _ = limiter.admit(&[charge(user)], NOW, false);
    }
    let mut random = fastrand::Rng::with_seed(7);
    let users: Vec<u32> = std::iter::repeat_with(|| random.u32(..1_000_000)).take(CALLS).collect();
    bencher.counter(ItemsCount::new(CALLS)).bench_local(|| {
        for user in &users {
            let _ = black_box(limiter.admit(&[charge(*user)], NOW, false));
        }
    });
}
