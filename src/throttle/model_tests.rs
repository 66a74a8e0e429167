//! Limits against a slow exact model that remembers every admission.

use std::collections::HashMap;

use proptest::{prelude::*, test_runner::FileFailurePersistence::WithSource};

use super::{
    tests::{never_stopping, of_quota, with_burst},
    *,
};
use crate::store::{Algorithm, Limits, Quota, Window};

/// What the limits mean, said slowly: every amount is remembered, with its moment.
#[derive(Default)]
struct Model {
    /// By counter, user and which of the tier's quotas.
    counted: HashMap<Key, Vec<(u64, u64)>>,
    /// Each burst's bucket in nanoseconds of refill time, and when it was that.
    bursts: HashMap<([u8; 16], u128), (u64, u64)>,
}

type Key = ([u8; 16], u128, bool);

/// What one level of the model answers.
type Verdict = Result<bool, (Level, bool)>;

impl Model {
    fn admit(&mut self, charges: &[Charge<'_>], ms: u64) -> Verdict {
        let mut over_quota = false;
        for charge in charges {
            let Charge { level, tier, user } = *charge;
            for (quota, also) in quotas(tier) {
                if !self.has_room(quota, (tier.counter, user, also), ms) {
                    if tier.stop_on_quota_reach {
                        return Err((level, false));
                    }
                    over_quota = true;
                }
                if !also && self.content(charge, ms).is_some_and(|(content, one, full)| content + one > full) {
                    if tier.stop_on_quota_reach {
                        return Err((level, true));
                    }
                    over_quota = true;
                }
            }
        }
        for charge in charges {
            for (_, also) in quotas(charge.tier).into_iter().filter(|(quota, _)| quota.kind == QuotaKind::Requests) {
                self.add((charge.tier.counter, charge.user, also), 1, ms);
            }
            if let Some((content, one, full)) = self.content(charge, ms) {
                let content = if content + one > full { content } else { content + one };
                self.bursts.insert((charge.tier.counter, charge.user), (content, ms));
            }
        }
        Ok(over_quota)
    }

    fn add(&mut self, key: Key, amount: u64, ms: u64) {
        self.counted.entry(key).or_default().push((ms, amount));
    }

    /// Whether what is counted, with one more, is at most the limit.
    fn has_room(&self, quota: &Quota, key: Key, ms: u64) -> bool {
        let Window::Seconds(length) = quota.window else { panic!("a window in seconds") };
        let length = u64::from(length) * 1_000;
        let none = Vec::new();
        let past = self.counted.get(&key).unwrap_or(&none);
        let in_window = |number: u64| {
            past.iter().filter(|(at, _)| at / length == number).map(|(_, n)| u128::from(*n)).sum::<u128>()
        };
        let (limit, length128, number) = (u128::from(quota.limit), u128::from(length), ms / length);
        match quota.algorithm {
            Algorithm::Fixed => in_window(number) < limit,
            // All in parts of 1 / length, so that nothing is rounded.
            Algorithm::Sliding => {
                let left = u128::from(length - ms % length);
                in_window(number) * length128 + in_window(number - 1) * left <= (limit - 1) * length128
            }
            // A leaky bucket: each millisecond `limit` parts of 1 / length run out of it.
            Algorithm::Gcra => {
                let (mut content, mut last) = (0_u128, 0);
                for (at, amount) in past {
                    content = content.saturating_sub(u128::from(at - last) * limit) + u128::from(*amount) * length128;
                    last = *at;
                }
                content.saturating_sub(u128::from(ms - last) * limit) <= (limit - 1) * length128
            }
        }
    }

    /// The burst's content, what one request adds, and how much there is room for.
    fn content(&self, charge: &Charge<'_>, ms: u64) -> Option<(u64, u64, u64)> {
        let burst = charge.tier.burst?;
        let one = burst.per_ms * 1_000_000 / u64::from(burst.requests);
        let (content, at) = self.bursts.get(&(charge.tier.counter, charge.user)).copied().unwrap_or((0, 0));
        let content = content.saturating_sub((ms - at) * 1_000_000);
        Some((content, one, one * u64::from(burst.requests)))
    }
}

fn quotas(tier: &Tier) -> Vec<(&Quota, bool)> {
    [(Some(&tier.quota), false), (tier.also.as_ref(), true)]
        .into_iter()
        .filter_map(|(q, also)| Some((q?, also)))
        .collect()
}

/// Steps of time, which of the levels are charged, the user, what it turns out to have used, and whether it is swept.
fn schedules() -> impl Strategy<Value = Vec<(u64, [bool; 3], u128, u64, bool)>> {
    let step = prop_oneof![3 => Just(0_u64), 3 => 0..400_u64, 1 => 0..5_000_u64];
    let step = (step, any::<[bool; 3]>(), 0..2_u128, 0..6_u64, prop::bool::weighted(0.1));
    prop::collection::vec(step, 0..200)
}

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop_oneof![Just(Algorithm::Fixed), Just(Algorithm::Sliding), Just(Algorithm::Gcra)]
}

/// A tier: one kind or tokens and requests, with or without burst, stopping or not.
fn tiers() -> impl Strategy<Value = Limits> {
    let kind = prop_oneof![3 => Just(QuotaKind::Requests), 1 => Just(QuotaKind::Bytes), 1 => Just(QuotaKind::Tokens)];
    let quota = (kind, 1..12_u64, 1..4_u32, algorithms()).prop_map(|(kind, limit, seconds, algorithm)| Quota {
        kind,
        limit,
        window: Window::Seconds(seconds),
        algorithm,
    });
    let burst = prop::option::of((1..5_u32, 1..2_000_u64));
    (quota, prop::option::weighted(0.3, 1..12_u64), burst, prop::bool::weighted(0.8)).prop_map(
        |(quota, also, burst, stop)| {
            let also = also.filter(|_| quota.kind != QuotaKind::Requests);
            let also = also.map(|limit| Quota { kind: QuotaKind::Requests, limit, ..quota });
            let mut made = of_quota(0, quota);
            if let Some((requests, per_ms)) = burst {
                made = with_burst(&made, requests, per_ms);
            }
            if !stop {
                made = never_stopping(&made);
            }
            Limits { also, ..Limits::clone(&made.limits) }
        },
    )
}

proptest! {
    // Cases that failed once lie beside this file.
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: Some(Box::new(WithSource("regressions"))),
        ..ProptestConfig::default()
    })]
    #[test]
    fn admits_and_records_what_the_exact_model_does(schedule in schedules(), limits in prop::collection::vec(tiers(), 3)) {
        let tiers: Vec<Tier> = limits.into_iter().zip(1_u128..)
            .map(|(limits, counter)| Tier { limits: limits.into(), counter: counter.to_ne_bytes() }).collect();
        let levels = [Level::Resource, Level::Subscription, Level::Application];
        let (limiter, mut model, mut ms) = (Limiter::new(), Model::default(), 1_000_000);
        for (step, chosen, user, used, swept) in schedule {
            ms += step;
            let now = Now::at_ms(ms);
            let charges: Vec<_> = levels.iter().zip(&tiers).zip(chosen).filter(|(_, chosen)| *chosen)
                .map(|((&level, tier), _)| Charge { level, tier, user }).collect();
            let admitted = limiter.admit(&charges, now, used == 0);
            let bill = admitted.as_ref().ok().and_then(|admitted| admitted.bill.clone());
            let verdict = admitted.map(|admitted| admitted.over_quota).map_err(|refused| (refused.level, refused.burst));
            prop_assert_eq!(verdict, model.admit(&charges, ms), "at {} ms", ms);
            for kind in [QuotaKind::Bytes, QuotaKind::Tokens] {
                let Some(bill) = &bill else { continue };
                limiter.record(bill, kind, used, now);
                let met: Vec<_> = charges.iter().filter(|charge| charge.tier.quota.kind == kind).collect();
                for charge in &met {
                    model.add((charge.tier.counter, user, false), used, ms);
                }
                let room = met.iter().filter(|charge| charge.tier.stop_on_quota_reach)
                    .all(|charge| model.has_room(&charge.tier.quota, (charge.tier.counter, user, false), ms));
                prop_assert_eq!(limiter.spent(bill, kind, now).is_none(), room);
            }
            if swept {
                limiter.sweep(now);
            }
        }
    }

    /// Nothing overflows and nothing is rounded, however large the limit and however long the window.
    #[test]
    fn large_amounts_are_counted_exactly(
        limit in 1..=Quota::MOST,
        seconds in 1..=3_660 * 86_400_u32,
        algorithm in algorithms(),
        amounts in prop::collection::vec((0..Quota::MOST / 5, 0..400_u64 * 86_400_000), 1..20),
    ) {
        let quota = Quota { kind: QuotaKind::Bytes, limit, window: Window::Seconds(seconds), algorithm };
        let tier = of_quota(1, quota);
        let (limiter, mut model) = (Limiter::new(), Model::default());
        let charge = [Charge { level: Level::Api, tier: &tier, user: 0 }];
        let mut ms = 1_790_000_000_000;
        let bill = limiter.admit(&charge, Now::at_ms(ms), false).unwrap().bill.unwrap();
        for (amount, step) in amounts {
            limiter.record(&bill, QuotaKind::Bytes, amount, Now::at_ms(ms));
            model.add((tier.counter, 0, false), amount, ms);
            ms += step;
            let room = model.has_room(&quota, (tier.counter, 0, false), ms);
            prop_assert_eq!(limiter.admit(&charge, Now::at_ms(ms), false).is_ok(), room, "at {} ms", ms);
        }
    }

    /// What a refusal says of the time to wait: then there is room, and a millisecond before there was none.
    #[test]
    fn waiting_as_long_as_told_is_enough(
        limit in 1..20_u64,
        seconds in 1..100_u32,
        algorithm in algorithms(),
        steps in prop::collection::vec(0..20_000_u64, 1..100),
    ) {
        let quota = Quota { algorithm, ..Quota::requests(limit, Window::Seconds(seconds)) };
        let (mut word, mut ms) = (0, 1_790_000_000_000);
        for step in steps {
            ms += step;
            let at = |ms| algorithm::Moment::of(&quota, Now::at_ms(ms));
            if algorithm::has_room(&quota, word, at(ms)) {
                word = algorithm::add(&quota, word, 1, at(ms));
            } else {
                let wait = algorithm::wait_ms(&quota, word, at(ms));
                prop_assert!(wait > 0 && algorithm::has_room(&quota, word, at(ms + wait)), "{} after {} ms", ms, wait);
                prop_assert!(!algorithm::has_room(&quota, word, at(ms + wait - 1)), "{} before {} ms", ms, wait);
            }
        }
    }
}
