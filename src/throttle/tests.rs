//! Limits one by one, and under many threads; against a slow exact model in `model_tests`.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::store::{Algorithm, Burst, Limits, Quota, Window};

use super::*;

const MINUTE: Window = Window::Seconds(60);

pub(super) fn tier(counter: u128, limit: u64, window: Window) -> Tier {
    of_quota(counter, Quota::requests(limit, window))
}

pub(super) fn of_quota(counter: u128, quota: Quota) -> Tier {
    let limits = Limits { name: "T".into(), quota, also: None, burst: None, stop_on_quota_reach: true, advanced: None };
    Tier { limits: Arc::new(limits), counter: counter.to_ne_bytes() }
}

pub(super) fn with_burst(tier: &Tier, requests: u32, per_ms: u64) -> Tier {
    let burst = Some(Burst::new(requests, per_ms));
    Tier { limits: Arc::new(Limits { burst, ..Limits::clone(&tier.limits) }), counter: tier.counter }
}

pub(super) fn never_stopping(tier: &Tier) -> Tier {
    let limits = Limits { stop_on_quota_reach: false, ..Limits::clone(&tier.limits) };
    Tier { limits: Arc::new(limits), counter: tier.counter }
}

pub(super) fn charge(level: Level, tier: &Tier) -> Charge<'_> {
    Charge { level, tier, user: 0 }
}

pub(super) fn passes(limiter: &Limiter, charges: &[Charge<'_>], ms: u64) -> bool {
    limiter.admit(charges, Now::at_ms(ms), false).is_ok()
}

fn usage(limit: u64, window_s: u64, remaining: u64, reset_s: u64) -> Usage {
    Usage { tier: "T".into(), kind: QuotaKind::Requests, limit, window_s, remaining, reset_s, alone: false }
}

fn told(limiter: &Limiter, charges: &[Charge<'_>], now: Now) -> Option<Usage> {
    limiter.admit(charges, now, true).unwrap().usage
}

#[test]
fn a_quota_lasts_for_its_window_and_no_longer() {
    let (limiter, tier) = (Limiter::new(), tier(1, 3, MINUTE));
    let charges = [charge(Level::Subscription, &tier)];
    let at = |ms| passes(&limiter, &charges, ms);
    assert_eq!([at(59_998), at(59_999), at(60_000)], [true; 3]);
    assert_eq!([at(60_001), at(119_999), at(119_999)], [true, true, false]);
    assert_eq!([at(120_000), at(120_000), at(120_000), at(120_000)], [true, true, true, false]);
}

#[test]
fn a_step_back_never_reopens_a_window() {
    let (limiter, tier) = (Limiter::new(), tier(1, 1, MINUTE));
    let charges = [charge(Level::Subscription, &tier)];
    assert!(passes(&limiter, &charges, 600_000));
    assert!(!passes(&limiter, &charges, 0));
    assert!(!passes(&limiter, &charges, 599_999));
    assert!(passes(&limiter, &charges, 660_000));
}

#[test]
fn the_wall_clock_does_not_matter() {
    let (limiter, tier) = (Limiter::new(), tier(1, 1, MINUTE));
    let charges = [charge(Level::Subscription, &tier)];
    let at = |unix_ms, steady_ms| limiter.admit(&charges, Now { unix_ms, steady_ms }, false).is_ok();
    assert!(at(600_000, 600_000));
    assert!(!at(600_000 + 3_600_000, 600_001));
}

#[test]
fn what_one_level_refuses_counts_at_none() {
    let limiter = Limiter::new();
    let (api, sub, app) = (tier(1, 10, MINUTE), tier(2, 5, MINUTE), tier(3, 2, MINUTE));
    let all = [charge(Level::Api, &api), charge(Level::Subscription, &sub), charge(Level::Application, &app)];
    assert!(passes(&limiter, &all, 0) && passes(&limiter, &all, 0));
    for _ in 0..20 {
        let refused = limiter.admit(&all, Now::at_ms(0), false).unwrap_err();
        assert_eq!((refused.level, refused.burst), (Level::Application, false));
    }
    // 3 are left of the subscription, then it is its turn to refuse, and 5 of the API.
    assert_eq!((0..9).filter(|_| passes(&limiter, &all[..2], 0)).count(), 3);
    assert_eq!(limiter.admit(&all, Now::at_ms(0), false).unwrap_err().level, Level::Subscription);
    assert_eq!((0..9).filter(|_| passes(&limiter, &all[..1], 0)).count(), 5);
}

#[test]
fn a_burst_is_taken_back_with_the_rest() {
    let limiter = Limiter::new();
    let sub = with_burst(&tier(1, 100, MINUTE), 2, 1_000);
    let app = tier(2, 1, MINUTE);
    let both = [charge(Level::Subscription, &sub), charge(Level::Application, &app)];
    assert!(passes(&limiter, &both, 0));
    assert!(!passes(&limiter, &both, 0) && !passes(&limiter, &both, 0));
    assert!(passes(&limiter, &both[..1], 0));
    let refused = limiter.admit(&both[..1], Now::at_ms(0), false).unwrap_err();
    let usage = usage(2, 1, 0, 1);
    assert_eq!(refused, Throttled { level: Level::Subscription, burst: true, usage });
}

#[test]
fn giving_back_restores_quota_and_burst() {
    // The race that `look` cannot see: taken at one level, lost at the next.
    for algorithm in [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Gcra] {
        let limiter = Limiter::new();
        let quota = Quota { algorithm, ..Quota::requests(1, MINUTE) };
        let tier = with_burst(&of_quota(1, quota), 1, 60_000);
        let charge = charge(Level::Subscription, &tier);
        let guard = limiter.counters.guard();
        let open = |ms| Account::open(&limiter.counters, &charge, Now::at_ms(ms), &guard);
        let mut account = open(0);
        assert_eq!(account.take(&limiter.counters, &guard), Ok(()));
        assert!(open(0).look().is_err());
        account.give_back();
        let mut account = open(0);
        assert_eq!(account.look(), Ok(()));
        assert_eq!(account.take(&limiter.counters, &guard), Ok(()));
        // A window that is over gets nothing back; of a sliding one the later gets it, too.
        let mut later = open(120_000);
        assert_eq!(later.take(&limiter.counters, &guard), Ok(()));
        if algorithm != Algorithm::Gcra {
            account.give_back();
        }
        assert!(open(120_000).look().is_err(), "{algorithm:?}");
    }
}

#[test]
fn under_another_limit_a_bucket_counts_on_from_what_was_used() {
    let bucket = |limit| {
        let quota = Quota { algorithm: Algorithm::Gcra, ..Quota::requests(limit, Window::Seconds(1_000)) };
        of_quota(1, quota)
    };
    let limiter = Limiter::new();
    let passing = |limit, ms| {
        let tier = bucket(limit);
        (0..2_000).filter(|_| passes(&limiter, &[charge(Level::Subscription, &tier)], ms)).count()
    };
    let wide = bucket(1_000);
    assert!((0..400).all(|_| passes(&limiter, &[charge(Level::Subscription, &wide)], 0)));
    assert_eq!(passing(500, 0), 100, "400 of 500 are used");
    assert_eq!(passing(1_000, 0), 500, "500 of 1,000 are used");
    assert_eq!(passing(500, 0), 0);
    // Five hundred too many run out at the pace of the new limit.
    assert_eq!([passing(500, 999_999), passing(500, 1_002_000)], [0, 1]);
    // And so long it is kept, though under the old limit it would be empty.
    limiter.sweep(Now::at_ms(1_900_000));
    assert_eq!(limiter.counters.len(), 1);
}

#[test]
fn a_lost_race_takes_nothing() {
    // Charging one counter twice is the race in a single thread: both looks see room for one.
    let limiter = Limiter::new();
    let (wide, one) = (with_burst(&tier(1, 3, MINUTE), 3, 60_000), tier(2, 1, MINUTE));
    let burst_of_one = with_burst(&tier(3, 9, MINUTE), 1, 60_000);
    for narrow in [&one, &burst_of_one] {
        let twice = [charge(Level::Api, &wide), charge(Level::Application, narrow), charge(Level::Application, narrow)];
        let refused = limiter.admit(&twice, Now::at_ms(0), false).unwrap_err();
        assert_eq!((refused.level, refused.burst), (Level::Application, narrow.burst.is_some()));
        let usage = told(&limiter, &twice[1..2], Now::at_ms(0)).unwrap();
        assert_eq!(usage.remaining, narrow.quota.limit - 1);
    }
    assert_eq!((0..9).filter(|_| passes(&limiter, &[charge(Level::Api, &wide)], 0)).count(), 3);
}

#[test]
fn nothing_is_counted_on_a_swept_counter() {
    let (limiter, tier) = (Limiter::new(), tier(1, 1, MINUTE));
    let (charge, now) = (charge(Level::Subscription, &tier), Now::at_ms(600_000));
    let guard = limiter.counters.guard();
    let mut account = Account::open(&limiter.counters, &charge, now, &guard);
    limiter.sweep(now);
    assert_eq!(limiter.counters.len(), 0);
    assert_eq!(account.take(&limiter.counters, &guard), Ok(()));
    assert!(!passes(&limiter, &[charge], 600_000));
}

#[test]
fn bursts_refill_evenly() {
    let (limiter, tier) = (Limiter::new(), with_burst(&tier(1, 1_000_000, MINUTE), 4, 1_000));
    let charges = [charge(Level::Subscription, &tier)];
    let at = |ms| (0..10).filter(|_| passes(&limiter, &charges, ms)).count();
    assert_eq!([at(0), at(0), at(249), at(250), at(499), at(1_000), at(9_000)], [4, 0, 0, 1, 0, 3, 4]);
}

#[test]
fn a_burst_that_was_corrected_does_not_refuse_for_the_old_time() {
    const DAY: u64 = 86_400_000;
    let limiter = Limiter::new();
    let (wrong, right) = (with_burst(&tier(1, 1_000, MINUTE), 2, DAY), with_burst(&tier(1, 1_000, MINUTE), 100, 1_000));
    let at = |tier, ms| (0..200).filter(|_| passes(&limiter, &[charge(Level::Subscription, tier)], ms)).count();
    assert_eq!(at(&wrong, 0), 2);
    // It is as full as it ever is, and drains as it does.
    assert_eq!([at(&right, 1_000), at(&right, 1_500), at(&right, 9_000)], [0, 50, 100]);
    // A request that has waited brings an older moment, and takes nothing out.
    assert_eq!([at(&right, 5_000), at(&right, 9_000)], [0, 0]);
}

#[test]
fn another_quota_beside_one_makes_it_forget_nothing() {
    let tokens = Quota { kind: QuotaKind::Tokens, ..Quota::requests(100, MINUTE) };
    let (alone, requests) = (of_quota(1, tokens), tier(1, 4, MINUTE));
    let both = Limits { also: Some(requests.quota), ..Limits::clone(&alone.limits) };
    let both = Tier { limits: Arc::new(both), counter: alone.counter };
    let limiter = Limiter::new();
    let bill = limiter.admit(&[charge(Level::Api, &alone)], Now::at_ms(0), false).unwrap().bill.unwrap();
    limiter.record(&bill, QuotaKind::Tokens, 120, Now::at_ms(0));
    assert!(!passes(&limiter, &[charge(Level::Api, &alone)], 1));
    assert!(!passes(&limiter, &[charge(Level::Api, &both)], 1), "tokens are counted on");
    let at = |tier, ms| (0..9).filter(|_| passes(&limiter, &[charge(Level::Api, tier)], ms)).count();
    assert_eq!([at(&requests, 1), at(&both, 60_000), at(&requests, 60_000)], [4, 4, 0], "requests, too");
}

#[test]
fn a_tier_that_never_stops_passes_and_counts_on() {
    let limiter = Limiter::new();
    let sub = never_stopping(&with_burst(&tier(1, 2, MINUTE), 1, 1_000));
    let app = tier(2, 4, MINUTE);
    let both = [charge(Level::Subscription, &sub), charge(Level::Application, &app)];
    let told: Vec<_> = (0..4).map(|_| limiter.admit(&both, Now::at_ms(0), true).unwrap()).collect();
    let remaining: Vec<_> =
        told.iter().map(|told| told.usage.as_ref().map(|usage| (usage.limit, usage.remaining))).collect();
    assert_eq!(remaining, [Some((2, 1)), Some((2, 0)), Some((2, 0)), Some((2, 0))]);
    // Marked from the second on: the burst has no room, and then neither has the quota.
    assert_eq!(told.iter().map(|told| told.over_quota).collect::<Vec<_>>(), [false, true, true, true]);
    assert_eq!(limiter.admit(&both, Now::at_ms(0), true).unwrap_err().level, Level::Application);
}

#[test]
fn users_and_counters_do_not_meet() {
    let limiter = Limiter::new();
    let tiers: Vec<Tier> = (0..8).map(|counter| tier(counter, 1, MINUTE)).collect();
    for tier in &tiers {
        for user in [0, 1, 2, 3, 7, 1 << 64, u128::MAX] {
            let charges = [Charge { level: Level::Application, tier, user }];
            assert!(passes(&limiter, &charges, 0));
            assert!(!passes(&limiter, &charges, 0));
        }
    }
}

#[test]
fn usage_tells_the_refusing_or_the_tightest_limit() {
    let limiter = Limiter::new();
    let (sub, app) = (tier(1, 10, MINUTE), tier(2, 4, Window::Months(1)));
    let both = [charge(Level::Subscription, &sub), charge(Level::Application, &app)];
    let now = Now::at_ms(61_500);
    assert_eq!(limiter.admit(&both, now, false), Ok(Admitted::default()));
    assert_eq!(limiter.admit(&[], now, true), Ok(Admitted::default()));
    let month = usage(4, 31 * 86_400, 2, 31 * 86_400 - 61);
    assert_eq!(told(&limiter, &both, now), Some(month));
    assert_eq!(told(&limiter, &both[..1], now), Some(usage(10, 60, 7, 59)));
    // Of an API's 20 are 8 left, which is less of it than 3 of 4 are; only 3 more pass.
    let (api, few) = (tier(3, 20, MINUTE), tier(4, 4, MINUTE));
    let both = [charge(Level::Api, &api), charge(Level::Subscription, &few)];
    for _ in 0..11 {
        assert!(passes(&limiter, &both[..1], 61_500));
    }
    assert_eq!(told(&limiter, &both, now), Some(usage(4, 60, 3, 59)));
    let both = [charge(Level::Subscription, &sub), charge(Level::Application, &app)];
    for _ in 0..7 {
        assert!(passes(&limiter, &both[..1], 61_500));
    }
    let refused = limiter.admit(&both, Now::at_ms(119_999), true).unwrap_err();
    assert_eq!(refused.usage, usage(10, 60, 0, 1));
}

#[test]
fn more_charges_than_usual_are_all_counted() {
    let limiter = Limiter::new();
    let tiers: Vec<Tier> = (1..=20).map(|n| tier(n, 21 - u64::try_from(n).unwrap(), MINUTE)).collect();
    let charges: Vec<_> = tiers.iter().map(|tier| charge(Level::Api, tier)).collect();
    assert!(passes(&limiter, &charges, 0));
    assert!(!passes(&limiter, &charges, 0));
    assert!(passes(&limiter, &charges[..19], 0));
    assert!(!passes(&limiter, &charges[..19], 0));
}

#[test]
fn sweeping_drops_ended_windows_alone() {
    let limiter = Limiter::new();
    let (short, long) = (tier(1, 1, Window::Seconds(1)), tier(2, 1, Window::Seconds(120)));
    let slow = with_burst(&tier(3, 9, Window::Seconds(1)), 1, 90_000);
    for tier in [&short, &long, &slow] {
        assert!(passes(&limiter, &[charge(Level::Api, tier)], 0));
    }
    // A minute late still counts: the moment of a request that waited.
    limiter.sweep(Now::at_ms(60_999));
    assert_eq!(limiter.counters.len(), 3);
    assert!(!passes(&limiter, &[charge(Level::Api, &short)], 0));
    limiter.sweep(Now::at_ms(61_000));
    assert_eq!(limiter.counters.len(), 2);
    assert!(!passes(&limiter, &[charge(Level::Api, &long)], 61_000));
    assert!(!passes(&limiter, &[charge(Level::Api, &slow)], 61_000));
    assert!(passes(&limiter, &[charge(Level::Api, &short)], 61_000));
    assert!(!passes(&limiter, &[charge(Level::Api, &short)], 61_000));
    limiter.sweep(Now::at_ms(180_000));
    assert_eq!(limiter.counters.len(), 0);
}

#[test]
fn a_sweep_looks_at_a_part_and_gets_round() {
    let limiter = Limiter::new();
    let tier = tier(1, 1, Window::Seconds(1));
    for user in 0..10_000 {
        assert!(passes(&limiter, &[Charge { level: Level::Application, tier: &tier, user }], 0));
    }
    limiter.sweep(Now::at_ms(100_000));
    assert!((1..10_000).contains(&limiter.counters.len()));
    for _ in 0..3 {
        limiter.sweep(Now::at_ms(100_000));
    }
    assert_eq!(limiter.counters.len(), 0);
}

#[test]
fn many_threads_share_a_limit_exactly() {
    const THREADS: u32 = 8;
    const EACH: u32 = 4_000;
    let (wide, narrow) = (tier(1, 20_000, MINUTE), with_burst(&tier(2, 10_000, MINUTE), 9_000, 60_000));
    for (tiers, expected) in [(vec![&wide], 20_000), (vec![&wide, &narrow], 9_000)] {
        let limiter = Limiter::new();
        let admitted = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let charges: Vec<_> = tiers.iter().map(|tier| charge(Level::Subscription, tier)).collect();
                    let passed = (0..EACH).filter(|_| passes(&limiter, &charges, 60_000)).count();
                    admitted.fetch_add(u32::try_from(passed).unwrap(), Ordering::Relaxed);
                });
            }
        });
        assert_eq!(admitted.load(Ordering::Relaxed), expected);
        // What the narrow one refused is not counted by the wide one.
        let left = (0..THREADS * EACH).filter(|_| passes(&limiter, &[charge(Level::Api, &wide)], 60_000)).count();
        assert_eq!(u32::try_from(left).unwrap(), 20_000 - expected);
    }
}

#[test]
fn sweeping_under_load_loses_no_count() {
    let limiter = Limiter::new();
    let tier = tier(1, 50, Window::Seconds(1));
    let round = std::sync::Barrier::new(5);
    let admitted: Vec<AtomicU32> = (0..500).map(|_| AtomicU32::new(0)).collect();
    // Each user comes back just when its counter may be swept.
    let seconds = || admitted.iter().zip(0_u64..);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (admitted, second) in seconds() {
                    round.wait();
                    let charges = [Charge { level: Level::Application, tier: &tier, user: u128::from(second % 70) }];
                    let passed = (0..40).filter(|_| passes(&limiter, &charges, second * 1_000)).count();
                    admitted.fetch_add(u32::try_from(passed).unwrap(), Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            for (_, second) in seconds() {
                round.wait();
                limiter.sweep(Now::at_ms(second * 1_000));
            }
        });
    });
    assert!(admitted.iter().all(|admitted| admitted.load(Ordering::Relaxed) == 50));
}
