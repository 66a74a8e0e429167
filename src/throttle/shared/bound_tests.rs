//! What mode batched admits where exchanges with Redis take their time, in virtual milliseconds.

use std::sync::Arc;

use proptest::{prelude::*, test_runner::FileFailurePersistence::WithSource};

use super::{
    cell::{Answer, Cell, Line},
    ledger::{Demand, Ledger},
    model::Hash,
    settings::SharedMode::Batched,
};
use crate::store::{Algorithm, Window};

const BEGIN: u64 = 3_600_000;
const LIMIT: u64 = 300;

/// One sidecar and its exchange.
struct Node {
    ledger: Ledger,
    due: u64,
    under_way: Option<Exchange>,
}

struct Exchange {
    begun: u64,
    told: Vec<(Arc<Cell>, Line)>,
    /// None before Redis has it.
    answers: Vec<Answer>,
}

impl Node {
    fn step(&mut self, at: usize, now: u64, interval: u64, exchange: u64, redis: &mut Hash<usize>) {
        if let Some(Exchange { begun, told, answers }) = &mut self.under_way {
            if now == *begun + exchange / 2 {
                *answers = told.iter().map(|(_, line)| redis.exchange(at, line, false)).collect();
            }
            if now == *begun + exchange {
                for ((cell, line), answer) in told.iter().zip(answers) {
                    self.ledger.learn(cell, line, *answer, now, interval);
                }
                self.under_way = None;
            }
        }
        if self.under_way.is_none() && now >= self.due {
            self.due = (self.due + interval).max(now);
            let told = self.ledger.gather(Batched, now, 2_000, usize::MAX);
            self.under_way = Some(Exchange { begun: now, told, answers: Vec::new() });
        }
    }
}

/// How many pass of a request every `gap`, at each sidecar in turn.
fn admitted(nodes: usize, interval: u64, exchange: u64, gap: u64) -> u64 {
    let (window, algorithm) = (Window::Seconds(3_600), Algorithm::Fixed);
    let demand = Demand { key: 7, limit: LIMIT, window, number: 1, algorithm, stop: true, amount: 1 };
    let mut redis = Hash::new();
    let mut all: Vec<Node> = (0..nodes as u64)
        .map(|n| Node { ledger: Ledger::new(), due: BEGIN + n * interval / nodes as u64, under_way: None })
        .collect();
    let mut passed = 0;
    for now in BEGIN..BEGIN + LIMIT * gap + 4 * (interval + exchange) {
        for (at, node) in all.iter_mut().enumerate() {
            node.step(at, now, interval, exchange, &mut redis);
        }
        if now % gap == 0 {
            let at = usize::try_from(now / gap).unwrap_or(0) % nodes;
            passed += u64::from(all[at].ledger.take(Batched, false, &[demand], now).is_ok());
        }
    }
    passed
}

proptest! {
    // Cases that failed once lie beside this file.
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: Some(Box::new(WithSource("regressions"))),
        ..ProptestConfig::default()
    })]
    #[test]
    fn batches_admit_no_more_than_is_stated_however_long_an_exchange_takes(
        nodes in 2..6_usize,
        interval in 10..300_u64,
        exchange in 2..900_u64,
        gap in 1..10_u64,
    ) {
        let delay = 2 * interval.max(exchange) + exchange;
        let bound = LIMIT + delay.div_ceil(gap) + nodes as u64;
        let passed = admitted(nodes, interval, exchange, gap);
        prop_assert!((LIMIT..=bound).contains(&passed), "{} of at most {}", passed, bound);
    }
}

/// So the exchange's own time belongs into the bound.
#[test]
fn a_slow_redis_has_more_admitted_than_two_intervals() {
    assert!(admitted(4, 100, 600, 5) > LIMIT + 2 * 100 / 5 + 4);
}
