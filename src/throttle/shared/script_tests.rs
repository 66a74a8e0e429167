//! The scripts, run by a real server, and the model, over random lines: what both answer, and what both hold then.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    cell::{Answer, Before, Cell, Form, Line, Seen},
    ledger::{Demand, Ledger},
    model::{Bucket, Data, Hash},
    script::{Count, Names, State},
};
use crate::{
    net::redis::{Connection, Redis},
    store::{Algorithm, Window},
};

const LIMIT: u64 = 40;
const LENGTH_MS: u64 = 10_000;
const PARTS: u64 = 1 << 20;
const TWO_HOURS_MS: u64 = 7_200_000;
const ROUNDS: usize = 2_000;

/// A server, three sidecars, some limits, and the model of all.
struct Game {
    connection: Connection,
    random: fastrand::Rng,
    nodes: [Names; 3],
    cells: Vec<Arc<Cell>>,
    hashes: HashMap<(u128, u32), Hash<usize>>,
    buckets: HashMap<u128, Bucket<usize>>,
    /// When the data of each window began, as the server said last.
    births: HashMap<(u128, u32), u64>,
    /// Keys that hold something else.
    spoiled: HashSet<String>,
    /// What the server said last of its data.
    last: State,
}

impl Game {
    async fn start(address: &str, seed: u64) -> Self {
        let connection = Redis::new(address, None, None).unwrap().connect(Duration::from_secs(5)).await.unwrap();
        let random = fastrand::Rng::with_seed(seed);
        let prefix = format!("play-{seed}:");
        let ledger = Ledger::new();
        let demands = (0..4_u128).flat_map(|key| {
            let numbers = [1_000, 1_001];
            let windows = [Algorithm::Fixed, Algorithm::Sliding].into_iter().enumerate();
            let windows = windows.flat_map(move |(n, algorithm)| numbers.map(|number| (n as u128, algorithm, number)));
            windows.chain([(2, Algorithm::Gcra, 0)]).map(move |(n, algorithm, number)| Demand {
                key: key * 3 + n,
                limit: LIMIT,
                window: Window::Seconds(10),
                number,
                algorithm,
                stop: true,
                amount: 1,
            })
        });
        let cells = demands.map(|demand| ledger.open(&demand)).collect();
        let nodes = [(); 3].map(|()| Names::new(&prefix, false));
        Self {
            connection,
            random,
            nodes,
            cells,
            hashes: HashMap::new(),
            buckets: HashMap::new(),
            births: HashMap::new(),
            spoiled: HashSet::new(),
            last: State::default(),
        }
    }

    /// Those of a cell's keys that were overwritten are found, and removed.
    fn find_spoiled(&mut self, cell: &Cell, form: Form) -> u64 {
        let numbers = [cell.number, cell.number.wrapping_sub(1)];
        let mut found = 0;
        for (key, number) in self.nodes[0].keys(cell, form).zip(numbers) {
            if self.spoiled.remove(&key) {
                found += 1;
                if cell.algorithm == Algorithm::Gcra {
                    self.buckets.remove(&cell.key);
                } else {
                    self.hashes.remove(&(cell.key, number));
                }
            }
        }
        found
    }

    /// Some limits, each once.
    fn some(&mut self) -> Vec<Arc<Cell>> {
        let mut cells = self.cells.clone();
        self.random.shuffle(&mut cells);
        cells.truncate(self.random.usize(1..=4));
        cells
    }

    fn form(&mut self, cell: &Cell, have: u64) -> Form {
        match cell.algorithm {
            Algorithm::Fixed => Form::Fixed,
            Algorithm::Sliding => Form::Sliding { left: self.random.u64(0..=LENGTH_MS), length: LENGTH_MS },
            Algorithm::Gcra => Form::Bucket {
                told: self.random.u64(0..=have),
                content: if self.random.bool() { 0 } else { self.random.u64(0..=LIMIT * PARTS) },
                length_ms: LENGTH_MS,
                parts: PARTS,
            },
        }
    }

    /// A line as a sidecar might write it, also one that is told twice, or late.
    fn line(&mut self, cell: &Cell) -> Line {
        let have = self.random.u64(0..LIMIT);
        let (want, back) = match self.random.u8(0..3) {
            0 => (0, 0),
            1 => (self.random.u64(0..LIMIT), 0),
            _ => (0, self.random.u64(0..=have)),
        };
        Line { have, want, back, limit: LIMIT, ttl_ms: 60_000, form: self.form(cell, have), seen: self.seen(cell) }
    }

    /// What a sidecar heard last: nothing, of the data that are there, or of others.
    fn seen(&mut self, cell: &Cell) -> Seen {
        let birth = match self.random.u8(0..6) {
            0 => 0,
            1 => self.random.u64(2..9),
            _ => self.births.get(&(cell.key, cell.number)).copied().unwrap_or(0),
        };
        Seen { birth, mine: self.random.u64(0..LIMIT), total: self.random.u64(0..2 * LIMIT) }
    }

    fn before(&self, at: usize, cell: &Cell, form: Form) -> Before {
        let former = self.hashes.get(&(cell.key, cell.number.wrapping_sub(1)));
        former.map_or_else(Before::default, |former| former.before(&at, form))
    }

    /// Whether the server has its data for too short a time.
    async fn exchange(&mut self) -> bool {
        let (at, cells) = (self.random.usize(0..3), self.some());
        let lines: Vec<_> = cells.iter().map(|cell| (Arc::clone(cell), self.line(cell))).collect();
        let told = lines.iter().map(|(cell, line)| (&**cell, line));
        let (state, answers) = self.nodes[at].exchange(&mut self.connection, 0, 0, told).await.unwrap();
        let (before, mut found) = (std::mem::replace(&mut self.last, state), 0);
        for ((cell, line), answer) in lines.iter().zip(answers) {
            found += self.find_spoiled(cell, line.form);
            // Before the first that is found the data are as they were.
            let then = if state.replaced > 0 && found == 0 {
                assert!(state.epoch != before.epoch && state.settling, "{state:?} after {before:?}");
                State { epoch: before.epoch, settling: false, ..state }
            } else {
                state
            };
            let expected = self.expect_exchange(at, cell, line, data(then, answer.birth));
            assert_eq!(answer, expected, "{at} {cell:?} {line:?} {state:?}");
            self.births.insert((cell.key, cell.number), answer.birth);
        }
        assert_eq!(state.replaced, found);
        state.settling
    }

    fn expect_exchange(&mut self, at: usize, cell: &Cell, line: &Line, (state, data): (State, Data)) -> Answer {
        if cell.algorithm == Algorithm::Gcra {
            let bucket = self.buckets.entry(cell.key).or_default();
            return bucket.exchange(at, line, state.clock_ms, state.settling);
        }
        let before = self.before(at, cell, line.form);
        self.hashes.entry((cell.key, cell.number)).or_default().exchange_after(before, at, line, data)
    }

    async fn count(&mut self) {
        let (at, cells) = (self.random.usize(0..3), self.some());
        let amount = self.random.i64(-2..=3);
        let counts: Vec<_> = cells
            .iter()
            .map(|cell| {
                let mine = self.random.u64(0..LIMIT);
                let limit = (amount > 0 && self.random.u8(0..4) > 0).then_some(LIMIT);
                let form = self.form(cell, mine);
                let seen = self.seen(cell);
                (Arc::clone(cell), Count { mine, limit, amount, ttl_ms: 60_000, form, size: LIMIT, seen })
            })
            .collect();
        let told: Vec<_> = counts.iter().map(|(cell, count)| (&**cell, *count)).collect();
        let said = self.nodes[at].count(&mut self.connection, 0, 0, &told).await.unwrap();
        self.last = said.state;
        if said.state.settling {
            let is_found = said.state.replaced > 0;
            let found: u64 =
                counts.iter().filter(|_| is_found).map(|(cell, count)| self.find_spoiled(cell, count.form)).sum();
            assert_eq!((said.refused, said.answers.len(), said.state.replaced), (None, 0, found));
            return;
        }
        let full = |(cell, count): &(Arc<Cell>, Count)| self.is_full(at, cell, count, said.state);
        let refused = counts.iter().position(full);
        assert_eq!(said.refused, refused, "{at} {counts:?} {:?}", said.state);
        // All are read before any is written.
        let before: Vec<Before> = counts.iter().map(|(cell, count)| self.before(at, cell, count.form)).collect();
        for (((cell, count), answer), before) in counts.iter().zip(said.answers).zip(before) {
            let expected = self.expect_count(at, cell, count, refused.is_some(), data(said.state, answer.birth));
            assert_eq!(answer, Answer { before, ..expected }, "{at} {cell:?} {count:?} {:?}", said.state);
            self.births.insert((cell.key, cell.number), answer.birth);
        }
    }

    fn is_full(&self, at: usize, cell: &Cell, count: &Count, state: State) -> bool {
        if cell.algorithm == Algorithm::Gcra {
            let mut bucket = self.buckets.get(&cell.key).cloned().unwrap_or_default();
            return !bucket.count(at, &line(count), count.limit.is_some(), 1, state.clock_ms).0;
        }
        let hash = self.hashes.get(&(cell.key, cell.number)).cloned().unwrap_or_default();
        let (before, heard) = (self.before(at, cell, count.form), (count.mine, count.seen));
        hash.is_full_after(before, &at, heard, count.limit, data(state, 1).1)
    }

    fn expect_count(
        &mut self,
        at: usize,
        cell: &Cell,
        count: &Count,
        refused: bool,
        (state, data): (State, Data),
    ) -> Answer {
        if cell.algorithm == Algorithm::Gcra {
            let bucket = self.buckets.entry(cell.key).or_default();
            return match refused {
                true => bucket.exchange(at, &line(count), state.clock_ms, false),
                false => bucket.count(at, &line(count), false, count.amount, state.clock_ms).1,
            };
        }
        let hash = self.hashes.entry((cell.key, cell.number)).or_default();
        match refused {
            true => hash.exchange_after(Before::default(), at, &line(count), data),
            false => hash.count_after(at, (count.mine, count.seen), count.amount, data),
        }
    }

    /// The server's clock is put back by two hours, as far as buckets can tell.
    async fn put_back(&mut self) {
        for cell in self.cells.iter().filter(|cell| cell.algorithm == Algorithm::Gcra) {
            let Some(bucket) = self.buckets.get_mut(&cell.key).filter(|bucket| bucket.content().is_some()) else {
                continue;
            };
            let form = Form::Bucket { told: 0, content: 0, length_ms: LENGTH_MS, parts: PARTS };
            let key = self.nodes[0].keys(cell, form).next().unwrap();
            if self.spoiled.contains(&key) {
                continue;
            }
            bucket.put_back(TWO_HOURS_MS);
            let put_back = redis::cmd("HINCRBY").arg(&key).arg("a").arg(TWO_HOURS_MS).to_owned();
            put_back.query_async::<u64>(&mut self.connection).await.unwrap();
        }
    }

    /// A window is lost, or its data are of another epoch.
    async fn lose(&mut self) {
        let cell = self.some().remove(0);
        let key = self.nodes[0].keys(&cell, Form::Fixed).next().unwrap();
        let Some(hash) = self.hashes.get_mut(&(cell.key, cell.number)).filter(|hash| !hash.is_empty()) else { return };
        if self.spoiled.contains(&key) {
            return;
        }
        let command = if self.random.bool() {
            *hash = Hash::new();
            redis::cmd("DEL").arg(&key).to_owned()
        } else {
            hash.age();
            let age = "local b = redis.call('HGET', KEYS[1], 'b')
                return redis.call('HSET', KEYS[1], 'b', string.match(b, '^%d+:%d+:') .. '1')";
            redis::cmd("EVAL").arg(age).arg(1).arg(&key).to_owned()
        };
        command.query_async::<u64>(&mut self.connection).await.unwrap();
    }

    /// A key is overwritten, or its numbers are.
    async fn spoil(&mut self) {
        let cell = self.some().remove(0);
        let form = self.form(&cell, 0);
        let key = self.nodes[0].keys(&cell, form).next().unwrap();
        let command = match (self.random.bool(), cell.algorithm) {
            (true, _) => redis::cmd("SET").arg(&key).arg("nonsense").to_owned(),
            (false, Algorithm::Gcra) => redis::cmd("HSET").arg(&key).arg("c").arg("nonsense").to_owned(),
            (false, _) => redis::cmd("HSET").arg(&key).arg("t").arg("nonsense").to_owned(),
        };
        command.query_async::<redis::Value>(&mut self.connection).await.unwrap();
        self.spoiled.insert(key);
    }

    /// What the server holds is what the model does.
    async fn compare(&mut self) {
        for cell in self.cells.clone() {
            let form = self.form(&cell, 0);
            let key = self.nodes[0].keys(&cell, form).next().unwrap();
            let held: HashMap<String, String> =
                redis::cmd("HGETALL").arg(&key).query_async(&mut self.connection).await.unwrap();
            let mut held: HashMap<String, u64> =
                held.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect();
            let fields = match cell.algorithm {
                Algorithm::Gcra => {
                    let bucket = self.buckets.get(&cell.key).cloned().unwrap_or_default();
                    let kept = held.remove("c").zip(held.remove("a"));
                    assert_eq!(kept, bucket.content(), "{cell:?}");
                    held.remove("r");
                    bucket.fields().clone()
                }
                _ => {
                    let hash = self.hashes.get(&(cell.key, cell.number)).cloned().unwrap_or_default();
                    assert_eq!(held.remove("t").unwrap_or(0), hash.total(), "{cell:?}");
                    hash.fields().clone()
                }
            };
            let fields = fields.into_iter().map(|(at, told)| (self.nodes[at].node.clone(), told)).collect();
            assert_eq!(held, fields, "{cell:?}");
        }
    }
}

fn line(count: &Count) -> Line {
    let Count { mine, size, ttl_ms, form, seen, .. } = *count;
    Line { have: mine, want: 0, back: 0, limit: size, ttl_ms, form, seen }
}

fn data(state: State, fresh: u64) -> (State, Data) {
    (state, Data { settling: state.settling, epoch: state.epoch, fresh })
}

#[tokio::test]
#[ignore = "needs a Redis or Valkey, named by TOLLGATE_REDIS"]
async fn a_server_and_the_model_answer_alike() {
    let address = std::env::var("TOLLGATE_REDIS").expect("the address of a server");
    let seed = std::env::var("TOLLGATE_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("TOLLGATE_SEED={seed}");
    let mut game = Game::start(&address, seed).await;
    // While the data are new nothing is handed out; then everything is.
    let (mut settled, mut spoils) = (0, 0);
    while settled < ROUNDS {
        settled += usize::from(!game.exchange().await);
        if settled > 0 {
            game.count().await;
        }
        if game.random.u8(0..20) == 0 {
            game.put_back().await;
        }
        if game.random.u8(0..10) == 0 {
            game.lose().await;
        }
        if game.random.u16(0..500) == 0 && settled > 0 && !game.last.settling {
            game.spoil().await;
            spoils += 1;
        }
    }
    println!("{spoils} keys overwritten");
    while !game.spoiled.is_empty() {
        game.exchange().await;
    }
    game.compare().await;
}
