//! Clocks that step by hours: ours, by which no window is named, and Redis's, by which its buckets run out.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        Admitted, Charge, Level, Limiter, Unable,
        tests::{of_quota, with_burst},
        together::demand,
    },
    Metrics, OutageRule, Shared, SharedMode, Terms,
    cell::{Form, Line, Seen},
    model::Bucket,
};
use crate::{
    net::{Now, redis::Redis},
    store::{Algorithm, Quota, Tier, Window},
};

/// In the midst of a minute.
const BEGIN_MS: u64 = 1_790_000_010_000;
const HOURS_MS: u64 = 3 * 3_600_000;
const LIMIT: u64 = 4;
const LENGTH_MS: u64 = 60_000;
const PARTS: u64 = 1 << 20;
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Gcra];

/// What the wall clock says, against the steady one.
#[derive(Debug, Clone, Copy)]
enum Wall {
    Right,
    Forward,
    Back,
    /// Forward, back and right again, from request to request.
    ToAndFro,
}

impl Wall {
    fn now(self, nth: u64, steady_ms: u64) -> Now {
        let unix_ms = match (self, nth % 3) {
            (Self::Forward, _) | (Self::ToAndFro, 0) => steady_ms + HOURS_MS,
            (Self::Back, _) | (Self::ToAndFro, 1) => steady_ms - HOURS_MS,
            (Self::Right, _) | (Self::ToAndFro, _) => steady_ms,
        };
        Now { unix_ms, steady_ms }
    }
}

fn quota(algorithm: Algorithm) -> Quota {
    Quota { algorithm, ..Quota::requests(LIMIT, Window::Seconds(60)) }
}

/// What is said of a request every three seconds, over four windows, where the wall clock steps after the third.
fn said(limiter: &Limiter, tier: &Tier, wall: Wall) -> Vec<Result<Admitted, Unable>> {
    let charges = [Charge { level: Level::Subscription, tier, user: 0 }];
    let at = |nth: u64| if nth < 3 { Wall::Right } else { wall }.now(nth, BEGIN_MS + nth * 3_000);
    (0..80).map(|nth| limiter.try_admit(&charges, at(nth), true).expect("nobody is asked")).collect()
}

/// Whether Redis is there: nobody is asked of it in mode batched.
fn shared(mode: SharedMode, is_there: bool) -> Arc<Shared> {
    let redis = Redis::new("redis://127.0.0.1:1", None, None).unwrap();
    let (interval, timeout) = (Duration::from_millis(100), Duration::from_millis(50));
    let terms = Terms { mode, interval, timeout, on_outage: OutageRule::Local };
    let shared = Shared::new(redis, "t:", terms, Metrics::register(&prometheus::Registry::new()).unwrap());
    if is_there {
        shared.came();
    }
    Arc::new(shared)
}

/// Alone, shared, and while Redis is away.
fn limiters() -> Vec<Limiter> {
    let ways = [
        (SharedMode::Batched, true),
        (SharedMode::Batched, false),
        (SharedMode::Lease, false),
        (SharedMode::Strict, false),
    ];
    let shared = ways.into_iter().map(|(mode, is_there)| Limiter::with_shared(Some(shared(mode, is_there))));
    std::iter::once(Limiter::new()).chain(shared).collect()
}

#[test]
fn a_wall_clock_that_steps_by_hours_changes_no_answer() {
    for algorithm in ALGORITHMS {
        let plain = of_quota(1, quota(algorithm));
        for tier in [with_burst(&plain, 1, 5_000), plain] {
            let right = limiters().into_iter().map(|limiter| said(&limiter, &tier, Wall::Right));
            for (way, right) in right.enumerate() {
                let passed = right.iter().filter(|answer| answer.is_ok()).count();
                assert!((4..=24).contains(&passed), "{algorithm:?} {way}: four windows of four: {passed}");
                for wall in [Wall::Forward, Wall::Back, Wall::ToAndFro] {
                    let limiter = limiters().swap_remove(way);
                    assert_eq!(said(&limiter, &tier, wall), right, "{algorithm:?} {way} {wall:?}");
                }
            }
        }
    }
}

#[test]
fn what_redis_is_asked_for_does_not_depend_on_the_wall_clock() {
    for algorithm in ALGORITHMS {
        let asked = |wall: Wall, nth| demand(1, &quota(algorithm), true, wall.now(nth, BEGIN_MS));
        for nth in 0..3 {
            for wall in [Wall::Forward, Wall::Back, Wall::ToAndFro] {
                assert_eq!(asked(wall, nth), asked(Wall::Right, nth), "{algorithm:?} {wall:?}");
            }
        }
    }
}

/// What a sidecar tells Redis of a bucket that was counted there.
fn line(have: u64, content: u64) -> Line {
    let form = Form::Bucket { told: have, content, length_ms: LENGTH_MS, parts: PARTS };
    Line { have, want: 0, back: 0, limit: LIMIT, ttl_ms: 0, form, seen: Seen::default() }
}

#[test]
fn a_full_bucket_runs_out_in_its_time_though_redis_clock_is_put_back() {
    let mut bucket = Bucket::new();
    let mut passes = |have, now_ms| bucket.count(0, &line(have, 0), true, 1, now_ms).0;
    assert!((0..LIMIT).all(|have| passes(have, BEGIN_MS)));
    assert!(!passes(LIMIT, BEGIN_MS));
    let back_ms = BEGIN_MS - HOURS_MS;
    assert!(!passes(LIMIT, back_ms), "nothing is admitted twice");
    assert!(!passes(LIMIT, back_ms + LENGTH_MS / LIMIT - 1));
    assert!(passes(LIMIT, back_ms + LENGTH_MS / LIMIT), "and nobody waits for hours");
    assert!(!passes(LIMIT + 1, back_ms + LENGTH_MS / LIMIT));
}

#[test]
fn a_bucket_that_redis_clock_has_emptied_is_filled_by_who_knows_of_it() {
    let mut bucket = Bucket::new();
    assert!((0..LIMIT).all(|have| bucket.count(0, &line(have, 0), true, 1, BEGIN_MS).0));
    let told = line(LIMIT, LIMIT * PARTS);
    let (room, _) = bucket.count(0, &told, true, 1, BEGIN_MS + HOURS_MS);
    assert!(!room, "by the sidecar's own clock it is full");
}

#[test]
fn whatever_redis_clock_says_is_compared() {
    let shared = shared(SharedMode::Strict, true);
    for (here, there, ahead) in [(BEGIN_MS, BEGIN_MS + 2_500, -2.5), (BEGIN_MS, 0, BEGIN_MS as f64 / 1_000.0)] {
        shared.compare_clocks(here, there);
        assert!((shared.metrics.clock_ahead.get() - ahead).abs() < 0.001, "{here} {there}");
    }
    for ms in [0, BEGIN_MS, 253_402_300_800_000, u64::MAX] {
        assert!(!super::written(ms).is_empty());
    }
    assert_eq!(super::written(BEGIN_MS), "Mon, 21 Sep 2026 14:13:30 GMT");
}
