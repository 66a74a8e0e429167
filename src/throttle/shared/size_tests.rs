//! Amounts beyond all measure, which an upstream may tell: sums stay numbers that a script in Redis tells exactly, and no
//! other limit suffers.

use std::time::Duration;

use super::{
    cell::{Answer, Cell, Form, Line, MOST_HELD, Seen},
    ledger::{Demand, Ledger},
    model::{Bucket, Data, Hash},
    script::{Count, Names},
    settings::SharedMode,
};
use crate::{
    net::redis::{Connection, Redis},
    store::{Algorithm, Quota, Window},
};

const NOW: u64 = 1_790_000_000_000;
const EXACT: u64 = 1 << 53;
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Gcra];
const AMOUNTS: [u64; 8] = [1, Quota::MOST, 1 << 52, EXACT - 1, EXACT, EXACT + 1, 1 << 63, u64::MAX];

fn demand(key: u128, algorithm: Algorithm, amount: u64) -> Demand {
    let number = if algorithm == Algorithm::Gcra { 0 } else { 29_833_333 };
    Demand { key, limit: 100, window: Window::Seconds(60), number, algorithm, stop: true, amount }
}

#[test]
fn whatever_upstreams_count_sums_stay_exact_and_the_limit_is_used_up() {
    for mode in [SharedMode::Batched, SharedMode::Lease, SharedMode::Strict] {
        for algorithm in ALGORITHMS {
            let nodes = [(); 3].map(|()| Ledger::new());
            let (mut hash, mut bucket) = (Hash::new(), Bucket::new());
            for round in 0..200_u64 {
                for (at, ledger) in nodes.iter().enumerate() {
                    let amount = AMOUNTS[(round as usize + at) % AMOUNTS.len()];
                    ledger.record(&demand(1, algorithm, amount), mode, NOW + round);
                    for (cell, line) in ledger.gather(mode, NOW + round, 2_000, usize::MAX) {
                        assert!(line.have <= MOST_HELD, "{mode:?} {algorithm:?} {line:?}");
                        let answer = match line.form {
                            Form::Bucket { .. } => bucket.exchange(at, &line, NOW + round, false),
                            _ => hash.exchange_after(Default::default(), at, &line, Data::here(false)),
                        };
                        assert!(answer.mine < EXACT && answer.total < EXACT, "{mode:?} {algorithm:?} {answer:?}");
                        ledger.learn(&cell, &line, answer, NOW + round, 100);
                    }
                }
            }
            for ledger in &nodes {
                assert_eq!(ledger.left(&demand(1, algorithm, 0), NOW + 200), 0, "{mode:?} {algorithm:?}");
            }
        }
    }
}

/// Where a bucket was filled beyond all measure and is forgotten, the next ones still have room to tell what they count.
#[test]
fn a_bucket_beyond_all_measure_leaves_others_what_they_tell() {
    let ledger = Ledger::new();
    let mode = SharedMode::Batched;
    // A limit so large that what is absurd runs out within the test.
    let huge = Demand { limit: Quota::MOST, window: Window::Seconds(1), ..demand(1, Algorithm::Gcra, u64::MAX) };
    for second in 0..200 {
        ledger.record(&huge, mode, NOW + second * 2_000);
    }
    let later = NOW + 3_600_000;
    ledger.sweep(later);
    assert!(ledger.is_empty(), "it is forgotten");
    ledger.record(&demand(2, Algorithm::Gcra, 7), mode, later);
    let lines = ledger.gather(mode, later, 2_000, usize::MAX);
    let told: Vec<u64> = lines.iter().map(|(_, line)| told(line)).collect();
    assert_eq!(told, [7]);
}

/// What is new of it.
fn told(line: &Line) -> u64 {
    let Form::Bucket { told, .. } = line.form else { panic!("a bucket") };
    line.have - told
}

#[tokio::test]
#[ignore = "needs a Redis or Valkey, named by TOLLGATE_REDIS"]
async fn whatever_is_told_a_server_keeps_numbers_that_it_can_read() {
    let address = std::env::var("TOLLGATE_REDIS").expect("the address of a server");
    let mut connection = Redis::new(&address, None, None).unwrap().connect(Duration::from_secs(5)).await.unwrap();
    let prefix = format!("size-{}:", fastrand::u64(..));
    let nodes = [(); 3].map(|()| Names::new(&prefix, false));
    let ledger = Ledger::new();
    for algorithm in ALGORITHMS {
        let cell = ledger.open(&demand(algorithm as u128, algorithm, 1));
        for _ in 0..3 {
            // As another version might tell it, too.
            for have in AMOUNTS {
                for names in &nodes {
                    let answer = exchange(&mut connection, names, &cell, have).await;
                    assert!(answer.mine < EXACT && answer.total < EXACT, "{algorithm:?} {have} {answer:?}");
                }
            }
        }
    }
    // Those that count by request are handed out nothing before it has settled.
    tokio::time::sleep(Duration::from_millis(super::script::SETTLE_MS + 100)).await;
    for algorithm in ALGORITHMS {
        let cell = ledger.open(&demand(algorithm as u128, algorithm, 1));
        for amount in [1, i64::MAX] {
            for names in &nodes {
                let (form, seen) = (form(algorithm), Seen::default());
                let count = Count { mine: 0, limit: None, amount, ttl_ms: 60_000, form, size: 1, seen };
                let counted = names.count(&mut connection, 0, 0, &[(&*cell, count)]).await.unwrap();
                let [answer] = counted.answers[..] else { panic!("{counted:?}") };
                assert_eq!(counted.state.replaced, 0, "{algorithm:?} {amount}");
                assert!(answer.mine < EXACT && answer.total < EXACT, "{algorithm:?} {answer:?}");
            }
        }
    }
}

async fn exchange(connection: &mut Connection, names: &Names, cell: &Cell, have: u64) -> Answer {
    let (form, seen) = (form(cell.algorithm), Seen::default());
    let line = Line { have, want: 5, back: 0, limit: 1, ttl_ms: 60_000, form, seen };
    let (state, answers) = names.exchange(connection, 0, 0, [(cell, &line)].into_iter()).await.unwrap();
    assert_eq!(state.replaced, 0, "{have}");
    answers[0]
}

/// Of a bucket the longest, which would run out after all time.
fn form(algorithm: Algorithm) -> Form {
    match algorithm {
        Algorithm::Fixed => Form::Fixed,
        Algorithm::Sliding => Form::Sliding { left: 30_000, length: 60_000 },
        Algorithm::Gcra => Form::Bucket { told: 0, content: 0, length_ms: u64::from(u32::MAX) * 1_000, parts: 1 << 20 },
    }
}
