//! Limits against a slow exact model, and under many threads.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use proptest::prelude::*;

use crate::store::{Limits, Quota, Window};

use super::*;

const MINUTE: Window = Window::Seconds(60);

fn tier(counter: u128, limit: u32, window: Window) -> Tier {
    let limits = Limits { name: "T".into(), quota: Quota { limit, window }, burst: None, stop_on_quota_reach: true };
    Tier { limits: Arc::new(limits), counter: counter.to_ne_bytes() }
}

fn with_burst(tier: &Tier, requests: u32, per_ms: u64) -> Tier {
    let burst = Some(Burst { requests, per_ms });
    Tier { limits: Arc::new(Limits { burst, ..Limits::clone(&tier.limits) }), counter: tier.counter }
}

fn never_stopping(tier: &Tier) -> Tier {
    let limits = Limits { stop_on_quota_reach: false, ..Limits::clone(&tier.limits) };
    Tier { limits: Arc::new(limits), counter: tier.counter }
}

fn charge(level: Level, tier: &Tier) -> Charge<'_> {
    Charge { level, tier, user: 0 }
}

fn passes(limiter: &Limiter, charges: &[Charge<'_>], ms: u64) -> bool {
    limiter.admit(charges, Now::at_ms(ms), false).is_ok()
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
    let usage = Usage { tier: "T".into(), limit: 2, window_s: 1, remaining: 0, reset_s: 1 };
    assert_eq!(refused, Throttled { level: Level::Subscription, burst: true, usage });
}

#[test]
fn giving_back_restores_quota_and_burst() {
    // The race that `look` cannot see: taken at one level, lost at the next.
    let limiter = Limiter::new();
    let tier = with_burst(&tier(1, 1, MINUTE), 1, 60_000);
    let charge = charge(Level::Subscription, &tier);
    let guard = limiter.counters.guard();
    let mut account = Account::open(&limiter.counters, &charge, Now::at_ms(0), &guard);
    assert_eq!(account.take(&limiter.counters, &charge, Now::at_ms(0), &guard), Ok(1));
    assert!(account.look(&charge, Now::at_ms(0)).is_err());
    account.give_back(&charge);
    assert_eq!(account.look(&charge, Now::at_ms(0)), Ok(()));
    assert_eq!(account.take(&limiter.counters, &charge, Now::at_ms(0), &guard), Ok(1));
    // A window that is over gets nothing back.
    let mut later = Account::open(&limiter.counters, &charge, Now::at_ms(60_000), &guard);
    assert_eq!(later.take(&limiter.counters, &charge, Now::at_ms(60_000), &guard), Ok(1));
    account.cell.give_back_quota(account.window);
    assert!(later.cell.has_quota(tier.quota, later.window).is_err());
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
        let usage = limiter.admit(&twice[1..2], Now::at_ms(0), true).unwrap().unwrap();
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
    assert_eq!(account.take(&limiter.counters, &charge, now, &guard), Ok(1));
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
fn a_tier_that_never_stops_passes_and_counts_on() {
    let limiter = Limiter::new();
    let sub = never_stopping(&with_burst(&tier(1, 2, MINUTE), 1, 1_000));
    let app = tier(2, 4, MINUTE);
    let both = [charge(Level::Subscription, &sub), charge(Level::Application, &app)];
    let told: Vec<_> = (0..4).map(|_| limiter.admit(&both, Now::at_ms(0), true).unwrap().unwrap()).collect();
    let remaining: Vec<_> = told.iter().map(|usage| (usage.limit, usage.remaining)).collect();
    assert_eq!(remaining, [(2, 1), (2, 0), (2, 0), (2, 0)]);
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
    assert_eq!(limiter.admit(&both, now, false), Ok(None));
    assert_eq!(limiter.admit(&[], now, true), Ok(None));
    let usage = |limit, window_s, remaining, reset_s| Usage { tier: "T".into(), limit, window_s, remaining, reset_s };
    let month = usage(4, 31 * 86_400, 2, 31 * 86_400 - 61);
    assert_eq!(limiter.admit(&both, now, true), Ok(Some(month)));
    assert_eq!(limiter.admit(&both[..1], now, true), Ok(Some(usage(10, 60, 7, 59))));
    for _ in 0..7 {
        assert!(passes(&limiter, &both[..1], 61_500));
    }
    let refused = limiter.admit(&both, Now::at_ms(119_999), true).unwrap_err();
    assert_eq!(refused.usage, usage(10, 60, 0, 1));
}

#[test]
fn more_charges_than_usual_are_all_counted() {
    let limiter = Limiter::new();
    let tiers: Vec<Tier> = (1..=20).map(|n| tier(n, 21 - u32::try_from(n).unwrap(), MINUTE)).collect();
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

/// What the limits mean, said slowly: every admitted request is remembered.
#[derive(Default)]
struct Model {
    counted: HashMap<([u8; 16], u128, u32), u32>,
    /// Each bucket's content in nanoseconds of refill time, and when it was that.
    buckets: HashMap<([u8; 16], u128), (u64, u64)>,
}

impl Model {
    fn admit(&mut self, charges: &[Charge<'_>], ms: u64) -> Result<(), (Level, bool)> {
        for charge in charges {
            let Charge { level, tier, .. } = *charge;
            if !tier.stop_on_quota_reach {
                continue;
            }
            if *self.count(charge, ms) >= tier.quota.limit {
                return Err((level, false));
            }
            if self.content(charge, ms).is_some_and(|(content, one, full)| content + one > full) {
                return Err((level, true));
            }
        }
        for charge in charges {
            *self.count(charge, ms) += 1;
            if let Some((content, one, full)) = self.content(charge, ms) {
                let content = if content + one > full { content } else { content + one };
                self.buckets.insert((charge.tier.counter, charge.user), (content, ms));
            }
        }
        Ok(())
    }

    fn count(&mut self, charge: &Charge<'_>, ms: u64) -> &mut u32 {
        let Window::Seconds(length) = charge.tier.quota.window else { panic!("a window in seconds") };
        let window = u32::try_from(ms / 1_000).unwrap() / length;
        self.counted.entry((charge.tier.counter, charge.user, window)).or_default()
    }

    /// Content, what one request adds, and how much there is room for.
    fn content(&self, charge: &Charge<'_>, ms: u64) -> Option<(u64, u64, u64)> {
        let burst = charge.tier.burst?;
        let one = burst.per_ms * 1_000_000 / u64::from(burst.requests);
        let (content, at) = self.buckets.get(&(charge.tier.counter, charge.user)).copied().unwrap_or((0, 0));
        let content = content.saturating_sub((ms - at) * 1_000_000);
        Some((content, one, one * u64::from(burst.requests)))
    }
}

/// Steps of time, which of the levels are charged, the user, and whether it is swept.
fn schedules() -> impl Strategy<Value = Vec<(u64, [bool; 3], u128, bool)>> {
    let step = prop_oneof![3 => Just(0_u64), 3 => 0..400_u64, 1 => 0..5_000_u64];
    prop::collection::vec((step, any::<[bool; 3]>(), 0..2_u128, prop::bool::weighted(0.1)), 0..200)
}

proptest! {
    #[test]
    fn admits_what_the_exact_model_admits(
        schedule in schedules(),
        limits in prop::collection::vec((1..12_u32, 1..4_u32, prop::option::of((1..5_u32, 1..2_000_u64)), prop::bool::weighted(0.8)), 3),
    ) {
        let tiers: Vec<Tier> = limits.iter().zip(1_u128..).map(|(&(limit, seconds, burst, stop), counter)| {
            let mut made = tier(counter, limit, Window::Seconds(seconds));
            if let Some((requests, per_ms)) = burst {
                made = with_burst(&made, requests, per_ms);
            }
            if stop { made } else { never_stopping(&made) }
        }).collect();
        let levels = [Level::Resource, Level::Subscription, Level::Application];
        let (limiter, mut model, mut ms) = (Limiter::new(), Model::default(), 1_000_000);
        for (step, chosen, user, swept) in schedule {
            ms += step;
            let charges: Vec<_> = levels.iter().zip(&tiers).zip(chosen).filter(|(_, chosen)| *chosen)
                .map(|((&level, tier), _)| Charge { level, tier, user }).collect();
            let verdict = limiter.admit(&charges, Now::at_ms(ms), false);
            let verdict = verdict.map(|_| ()).map_err(|refused| (refused.level, refused.burst));
            prop_assert_eq!(verdict, model.admit(&charges, ms), "at {} ms", ms);
            if swept {
                limiter.sweep(Now::at_ms(ms));
            }
        }
    }
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
