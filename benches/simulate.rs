//! Sidecars by the thousand that share limits, in virtual time: what they ask of Redis, and how exact each mode is.
//!
//! The ledgers, their decisions and what Redis does for one limit are the ones that run (`throttle::shared`); the time,
//! the load and the network are not real. Requests come as a Poisson process, each for a key chosen by Zipf's law
//! (exponent 1.07), at one of the 20 sidecars of the service that the key belongs to. Each key's limit is half of what is
//! wanted of it in the simulated time, or twice as much, in turn, so that every second key is refused. Bytes are what the
//! protocol (RESP) takes of commands and answers, without TCP's own. In mode strict every request asks: that a sidecar
//! leaves a limit alone for an interval once it was refused is not reckoned.
//!
//! ```text
//! cargo bench --bench simulate -- [SIDECARS KEYS RATE SECONDS [SEED]]
//! ```

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use tollgate::{
    store::{Algorithm, Window},
    throttle::shared::{Answer, Demand, Ledger, Line, SharedMode, Short, model::Hash},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
struct Scale {
    sidecars: usize,
    keys: usize,
    /// Requests a second, all together.
    rate: u64,
    seconds: u64,
    seed: u64,
}

impl Scale {
    const USUAL: Self = Self { sidecars: 10_000, keys: 1_000_000, rate: 100_000, seconds: 20, seed: 7 };

    fn read() -> Self {
        let given: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
        let mut scale = Self::USUAL;
        if let [sidecars, keys, rate, seconds, rest @ ..] = &*given {
            let size = |number: u64| usize::try_from(number).expect("sizes fit into memory");
            (scale.sidecars, scale.keys) = (size(*sidecars).max(1), size(*keys).max(1));
            (scale.rate, scale.seconds) = ((*rate).max(1), (*seconds).max(1));
            scale.seed = rest.first().copied().unwrap_or(scale.seed);
        }
        scale
    }
}

/// What happens next, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Exchange(u32),
    Sweep,
}

/// One run.
struct World {
    mode: SharedMode,
    interval_us: u64,
    scale: Scale,
    ledgers: Vec<Ledger>,
    redis: Vec<Hash<u32>>,
    limits: Vec<u64>,
    admitted: Vec<u64>,
    wanted: Vec<u64>,
    /// When each sidecar may exchange early again.
    early_from_us: Vec<u64>,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    cost: Cost,
}

#[derive(Debug, Default)]
struct Cost {
    /// Commands, and bytes both ways.
    operations: u64,
    bytes: u64,
    /// Requests that waited for Redis.
    waits: u64,
}

impl World {
    fn new(mode: SharedMode, interval_ms: u64, scale: Scale, zipf: &Zipf) -> Self {
        let mut random = fastrand::Rng::with_seed(scale.seed);
        let total = scale.rate * scale.seconds;
        // Every second key has room for half of what will be wanted of it, the others for more than all.
        let limit = |key: usize| {
            let expected = zipf.share(key) * total as f64;
            let share = if key.is_multiple_of(2) { 0.5 } else { 2.0 };
            (expected * share).ceil() as u64 + 1
        };
        let interval_us = interval_ms * 1_000;
        let mut events = BinaryHeap::new();
        for sidecar in 0..scale.sidecars {
            let phase = random.u64(..interval_us);
            events.push(Reverse((phase, Event::Exchange(u32::try_from(sidecar).expect("a small number")))));
        }
        events.push(Reverse((1_000_000, Event::Sweep)));
        Self {
            mode,
            interval_us,
            scale,
            ledgers: (0..scale.sidecars).map(|_| Ledger::new()).collect(),
            redis: vec![Hash::new(); scale.keys],
            limits: (0..scale.keys).map(limit).collect(),
            admitted: vec![0; scale.keys],
            wanted: vec![0; scale.keys],
            early_from_us: vec![0; scale.sidecars],
            events,
            cost: Cost::default(),
        }
    }

    fn run(&mut self, zipf: &Zipf) {
        let mut random = fastrand::Rng::with_seed(self.scale.seed ^ 0x5eed);
        let mut now_us = 0.0;
        let end_us = (self.scale.seconds * 1_000_000) as f64;
        let mean_us = 1_000_000.0 / self.scale.rate as f64;
        loop {
            now_us += -mean_us * (1.0 - random.f64()).ln();
            if now_us >= end_us {
                return;
            }
            self.settle_until(now_us as u64);
            let key = zipf.draw(&mut random);
            // Keys of neighbouring ranks belong to services far from each other.
            let service = key.wrapping_mul(7_919) % (self.scale.sidecars / REPLICAS).max(1);
            let sidecar = (service * REPLICAS + random.usize(..REPLICAS)) % self.scale.sidecars;
            self.request(sidecar, key, now_us as u64);
        }
    }

    /// All that happens before then.
    fn settle_until(&mut self, now_us: u64) {
        while let Some(Reverse((at, event))) = self.events.peek().copied().filter(|Reverse((at, _))| *at <= now_us) {
            self.events.pop();
            match event {
                Event::Exchange(sidecar) => {
                    self.exchange(sidecar as usize, at);
                    self.early_from_us[sidecar as usize] = at;
                    self.events.push(Reverse((at + self.interval_us, event)));
                }
                Event::Sweep => {
                    for ledger in &self.ledgers {
                        ledger.rest(self.mode, START_MS + at / 1_000, IDLE_MS);
                    }
                    self.events.push(Reverse((at + 1_000_000, event)));
                }
            }
        }
    }

    fn request(&mut self, sidecar: usize, key: usize, now_us: u64) {
        self.wanted[key] += 1;
        let demand = self.demand(key);
        let passes = match self.mode {
            SharedMode::Strict => self.count(sidecar, key),
            mode => loop {
                match self.ledgers[sidecar].take(mode, false, &[demand], START_MS + now_us / 1_000) {
                    Ok(()) => break true,
                    Err(Short { ask: false, .. }) => break false,
                    Err(Short { ask: true, .. }) => self.ask(sidecar, &demand, now_us),
                }
            },
        };
        self.admitted[key] += u64::from(passes);
        // One exchange more within an interval, where a limit is near.
        if self.mode != SharedMode::Strict
            && self.ledgers[sidecar].is_pressed()
            && self.early_from_us[sidecar] <= now_us
        {
            self.early_from_us[sidecar] = u64::MAX;
            self.exchange(sidecar, now_us);
        }
    }

    fn demand(&self, key: usize) -> Demand {
        let window = Window::Seconds(86_400);
        Demand {
            key: (key as u128).wrapping_mul(SPREAD),
            limit: self.limits[key],
            window,
            number: 1,
            algorithm: Algorithm::Fixed,
            stop: true,
            amount: 1,
        }
    }

    /// A request asks for a share.
    fn ask(&mut self, sidecar: usize, demand: &Demand, now_us: u64) {
        self.cost.waits += 1;
        let now_ms = START_MS + now_us / 1_000;
        let Some((cell, line)) = self.ledgers[sidecar].ask(demand, self.mode, now_ms) else { return };
        let answer = self.tell(sidecar, key_of(demand), &line);
        self.cost.operations += 1;
        self.cost.bytes += SCRIPT_BYTES + line_bytes(&line) + answer_bytes(&answer);
        self.ledgers[sidecar].learn(&cell, &line, answer, now_ms, self.interval_us / 1_000);
    }

    /// A request is counted by Redis.
    fn count(&mut self, sidecar: usize, key: usize) -> bool {
        let node = u32::try_from(sidecar).expect("a small number");
        let hash = &mut self.redis[key];
        self.cost.waits += 1;
        self.cost.operations += 1;
        self.cost.bytes += SCRIPT_BYTES + KEY_BYTES + COUNT_BYTES;
        if hash.is_full(&node, Some(self.limits[key])) {
            return false;
        }
        hash.count(node, 0, 1);
        true
    }

    fn exchange(&mut self, sidecar: usize, now_us: u64) {
        let now_ms = START_MS + now_us / 1_000;
        let lines = self.ledgers[sidecar].gather(self.mode, now_ms, IDLE_MS, usize::MAX);
        for chunk in lines.chunks(CHUNK) {
            self.cost.operations += 1;
            self.cost.bytes += SCRIPT_BYTES;
            for (cell, line) in chunk {
                let answer = self.tell(sidecar, cell.key(), line);
                self.cost.bytes += line_bytes(line) + answer_bytes(&answer);
                self.ledgers[sidecar].learn(cell, line, answer, now_ms, self.interval_us / 1_000);
            }
        }
    }

    fn tell(&mut self, sidecar: usize, key: u128, line: &Line) -> Answer {
        let key = usize::try_from(key.wrapping_mul(inverse())).expect("a key's number");
        self.redis[key].exchange(u32::try_from(sidecar).expect("a small number"), line, false)
    }

    /// Above and below what should have passed, as parts of it, of keys with limits in this range.
    fn exactness(&self, limits: std::ops::Range<u64>) -> [f64; 2] {
        let (mut above, mut below, mut due) = (0, 0, 0);
        for key in (0..self.scale.keys).filter(|key| limits.contains(&self.limits[*key])) {
            let right = self.limits[key].min(self.wanted[key]);
            above += self.admitted[key].saturating_sub(right);
            below += right.saturating_sub(self.admitted[key]);
            due += right;
        }
        [above as f64 / due.max(1) as f64, below as f64 / due.max(1) as f64]
    }
}

/// Keys by Zipf's law, drawn from the sum of all weights.
struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    fn new(keys: usize) -> Self {
        let mut sum = 0.0;
        let add = |rank: usize| {
            sum += (rank as f64).powf(-EXPONENT);
            sum
        };
        Self { sums: (1..=keys).map(add).collect() }
    }

    fn total(&self) -> f64 {
        self.sums.last().copied().unwrap_or(1.0)
    }

    fn share(&self, key: usize) -> f64 {
        let before = key.checked_sub(1).map_or(0.0, |before| self.sums[before]);
        (self.sums[key] - before) / self.total()
    }

    fn draw(&self, random: &mut fastrand::Rng) -> usize {
        let at = random.f64() * self.total();
        self.sums.partition_point(|sum| *sum < at).min(self.sums.len() - 1)
    }
}

fn main() {
    let scale = Scale::read();
    let Scale { sidecars, keys, rate, seconds, seed } = scale;
    eprintln!("{sidecars} sidecars, {keys} keys, {rate} requests a second for {seconds} s, seed {seed}");
    println!(
        "| mode | interval | Redis commands/s | bytes/s | requests that wait | above, limits from 100 | below | above, \
         limits below 100 | below |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let zipf = Zipf::new(keys);
    use SharedMode::{Batched, Lease, Strict};
    for (mode, interval_ms) in
        [(Batched, 100), (Batched, 1_000), (Batched, 5_000), (Lease, 100), (Lease, 1_000), (Strict, 100)]
    {
        let begun = Instant::now();
        let mut world = World::new(mode, interval_ms, scale, &zipf);
        world.run(&zipf);
        let ([above, below], [above_small, below_small]) = (world.exactness(100..u64::MAX), world.exactness(0..100));
        let Cost { operations, bytes, waits } = world.cost;
        let interval = if mode == Strict { "–".into() } else { format!("{interval_ms} ms") };
        let requests: u64 = world.wanted.iter().sum();
        println!(
            "| `{}` | {interval} | {} | {:.1} MB | {:.1} % | {:.2} % | {:.2} % | {:.2} % | {:.2} % |",
            format!("{mode:?}").to_lowercase(),
            operations / seconds,
            bytes as f64 / seconds as f64 / 1e6,
            100.0 * waits as f64 / requests.max(1) as f64,
            100.0 * above,
            100.0 * below,
            100.0 * above_small,
            100.0 * below_small,
        );
        eprintln!("{mode:?} {interval_ms} ms: simulated in {:.1} s", begun.elapsed().as_secs_f64());
    }
}

fn key_of(demand: &Demand) -> u128 {
    demand.key
}

/// The number whose product with `SPREAD` is 1, by Newton's method.
fn inverse() -> u128 {
    (0..7).fold(SPREAD, |inverse, _| inverse.wrapping_mul(2_u128.wrapping_sub(SPREAD.wrapping_mul(inverse))))
}

/// A number in a command: `$3\r\n123\r\n`.
fn argument_bytes(number: u64) -> u64 {
    let digits = u64::from(number.checked_ilog10().unwrap_or(0)) + 1;
    digits + 5 + if digits > 9 { 1 } else { 0 }
}

fn line_bytes(line: &Line) -> u64 {
    // That windows are fixed, and what was heard last.
    let (form, seen) = (0, line.seen);
    let counts = [line.have, line.want, line.back, line.limit, line.ttl_ms];
    let numbers = counts.into_iter().chain([form, seen.birth, seen.mine, seen.total]);
    KEY_BYTES + numbers.map(argument_bytes).sum::<u64>()
}

fn answer_bytes(answer: &Answer) -> u64 {
    [answer.mine, answer.total, u64::from(answer.nodes), answer.birth]
        .into_iter()
        .map(|number| argument_bytes(number) - 2)
        .sum()
}

/// Sidecars of one service.
const REPLICAS: usize = 20;
const EXPONENT: f64 = 1.07;
/// Spreads small numbers over all bits; odd.
const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
/// Within the window 1, far from its end.
const START_MS: u64 = 86_400_000;
const IDLE_MS: u64 = 2_000;
/// Limits of one script, as the exchange has it.
const CHUNK: usize = 250;
/// EVALSHA, its name, the epoch's key, this sidecar's field, times; and the head of the answer.
const SCRIPT_BYTES: u64 = 190;
/// A key: `$45\r\ntollgate:count:{00}:…`.
const KEY_BYTES: u64 = 52;
/// Numbers of one counted request, and their answer.
const COUNT_BYTES: u64 = 62;
