//! All limits that sidecars count together: what is known here, and what the next exchange is about.
//!
//! Knows nothing of Redis: [`Ledger::gather`] says what to tell and to ask, [`Ledger::learn`] takes the answer. Taking
//! what is there neither locks nor waits; it allocates once for each limit and window.

use std::{
    collections::VecDeque,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use papaya::Guard;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::{
    super::{
        algorithm::{self, Moment},
        parted::Parted,
    },
    cell::{ASKING, Answer, Cell, Line, MOST_HELD, PRESSING, QUEUED, WATCHED},
    settings::SharedMode,
};
use crate::{
    net::Now,
    store::{Algorithm, Quota, QuotaKind, Window},
};

/// What a request wants of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// The counter.
    pub key: u128,
    /// How much a window holds.
    pub limit: u64,
    /// The kind of window.
    pub window: Window,
    /// The window's number; a bucket has none: 0.
    pub number: u32,
    /// How it moves on.
    pub algorithm: Algorithm,
    /// Whether the limit refuses.
    pub stop: bool,
    /// How much is taken; 0: it is only looked at, and counted afterwards.
    pub amount: u64,
}

/// Whether a limit had room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is taken.
    Yes,
    /// No room.
    Full,
    /// Only Redis can say.
    Ask,
}

/// Which limit was short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// Its place among the demands.
    pub at: usize,
    /// Whether Redis may have more.
    pub ask: bool,
}

/// Limits that are counted together.
pub struct Ledger {
    cells: Parted<Id, Arc<Cell>>,
    touched: mpsc::UnboundedSender<Arc<Cell>>,
    /// Each cell at most once. Locked by the exchange alone.
    queue: Mutex<mpsc::UnboundedReceiver<Arc<Cell>>>,
    /// Cells that have a share, for when it lies idle. Locked by the exchange alone.
    watched: Mutex<Vec<Arc<Cell>>>,
    /// The ids in `cells`, each once, for the sweep. Locked when a cell is made or swept.
    sweep: Mutex<VecDeque<Id>>,
    /// Where the next bucket's count begins: above those that were forgotten, which Redis may remember.
    begin: AtomicU64,
    /// Told when an exchange should not wait for its time.
    pub(super) early: Notify,
    /// Told when what was asked for has come, or will not.
    pub(super) answered: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    key: u128,
    number: u32,
}

impl Hash for Id {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u128(self.key.wrapping_add(u128::from(self.number).wrapping_mul(SPREAD)));
    }
}

impl Ledger {
    /// With nothing counted.
    pub fn new() -> Self {
        let (touched, queue) = mpsc::unbounded_channel();
        Self {
            cells: Parted::default(),
            touched,
            queue: Mutex::new(queue),
            watched: Mutex::default(),
            sweep: Mutex::default(),
            begin: AtomicU64::new(0),
            early: Notify::new(),
            answered: Notify::new(),
        }
    }

    /// Takes all demands, or none. `alone`: Redis is away, so what is known must do.
    pub fn take(&self, mode: SharedMode, alone: bool, demands: &[Demand], now_ms: u64) -> Result<(), Short> {
        let guard = self.cells.guard();
        for (at, demand) in demands.iter().enumerate() {
            let cell = self.cell(demand, &guard);
            self.note(cell, demand, now_ms, &guard);
            let taken = match (demand.algorithm, is_share(mode, demand)) {
                (Algorithm::Gcra, _) if mode == SharedMode::Lease && !alone => Taken::Ask,
                (Algorithm::Gcra, _) => cell.take_bucket(demand, now_ms),
                (_, true) => match cell.take_share(demand, now_ms) {
                    Taken::Ask if alone => cell.take_known(demand),
                    taken => taken,
                },
                (_, false) => cell.take_known(demand),
            };
            // Also where it was full: others may have given back.
            self.touch(cell, demand, mode, now_ms, &guard);
            if taken != Taken::Yes {
                self.give_back(mode, &demands[..at], now_ms);
                return Err(Short { at, ask: taken == Taken::Ask });
            }
        }
        Ok(())
    }

    /// Gives back what was taken.
    pub fn give_back(&self, mode: SharedMode, demands: &[Demand], now_ms: u64) {
        let guard = self.cells.guard();
        for demand in demands {
            match (self.cells.get(&Id::of(demand), &guard), is_share(mode, demand)) {
                (Some(cell), _) if demand.algorithm == Algorithm::Gcra => cell.give_back_bucket(demand.amount, now_ms),
                (Some(cell), true) => cell.give_back_share(),
                (Some(cell), false) => cell.give_back_known(demand.amount),
                (None, _) => {}
            }
        }
    }

    /// Counts an amount that is only known now.
    pub fn record(&self, demand: &Demand, mode: SharedMode, now_ms: u64) {
        let guard = self.cells.guard();
        let cell = self.cell(demand, &guard);
        self.note(cell, demand, now_ms, &guard);
        match demand.algorithm {
            Algorithm::Gcra => cell.fill_bucket(demand.amount, now_ms),
            _ => cell.count(demand.amount),
        }
        self.touch(cell, demand, mode, now_ms, &guard);
    }

    /// What is counted, as far as is known here, as a quota's word.
    pub fn word(&self, demand: &Demand) -> u128 {
        let guard = self.cells.guard();
        self.cells.get(&Id::of(demand), &guard).map_or(0, |cell| self.word_of(cell, &guard))
    }

    fn word_of(&self, cell: &Cell, guard: &impl Guard) -> u128 {
        match cell.algorithm {
            Algorithm::Fixed => algorithm::word(cell.algorithm, cell.number, 0, cell.counted()),
            Algorithm::Sliding => {
                algorithm::word(cell.algorithm, cell.number, self.before(cell, guard), cell.counted())
            }
            Algorithm::Gcra => cell.word.load(Relaxed),
        }
    }

    /// What was counted in the window before a sliding one.
    fn before(&self, cell: &Cell, guard: &impl Guard) -> u64 {
        cell.before(self.former(cell.key, cell.number, guard).map_or(0, |cell| cell.held()))
    }

    /// The cell of the window before.
    fn former<'g>(&self, key: u128, number: u32, guard: &'g impl Guard) -> Option<&'g Arc<Cell>> {
        self.cells.get(&Id { key, number: number.checked_sub(1)? }, guard)
    }

    /// Notes what limit a request brings, and what the window before leaves of it.
    fn note(&self, cell: &Cell, demand: &Demand, now_ms: u64, guard: &impl Guard) {
        let before = match demand.algorithm {
            Algorithm::Sliding => {
                let (left, length) = algorithm::rest_ms(demand.window, demand.number, now_ms);
                algorithm::share(self.before(cell, guard), left, length)
            }
            Algorithm::Fixed | Algorithm::Gcra => 0,
        };
        cell.note(demand.limit, demand.limit.saturating_sub(before));
    }

    /// What is left of a limit, as far as is known.
    pub fn left(&self, demand: &Demand, now_ms: u64) -> u64 {
        demand.limit.saturating_sub(self.counted(demand, now_ms))
    }

    /// Whether more is counted than the limit holds, as far as is known; of what is counted afterwards: as much.
    pub fn is_beyond(&self, demand: &Demand, now_ms: u64) -> bool {
        self.counted(demand, now_ms) >= demand.limit.saturating_add(demand.amount)
    }

    fn counted(&self, demand: &Demand, now_ms: u64) -> u64 {
        demand.counted(self.word(demand), now_ms)
    }

    /// The cell of a demand, for whoever asks for it.
    pub(super) fn open(&self, demand: &Demand) -> Arc<Cell> {
        Arc::clone(self.cell(demand, &self.cells.guard()))
    }

    /// The same, which takes the demand's limit over.
    pub(super) fn open_noted(&self, demand: &Demand) -> Arc<Cell> {
        let cell = self.open(demand);
        cell.note(demand.limit, demand.limit);
        cell
    }

    fn cell<'g>(&self, demand: &Demand, guard: &'g impl Guard) -> &'g Arc<Cell> {
        match self.cells.get(&Id::of(demand), guard) {
            Some(cell) => cell,
            None => self.make(demand, guard),
        }
    }

    #[cold]
    fn make<'g>(&self, demand: &Demand, guard: &'g impl Guard) -> &'g Arc<Cell> {
        let begin = self.begin.load(Relaxed);
        let former = self.former(demand.key, demand.number, guard);
        let new = || Arc::new(Cell::new(demand, begin, former.map(|former| &**former)));
        match self.cells.of(&Id::of(demand)).try_insert_with(Id::of(demand), new, guard) {
            Ok(cell) => {
                self.sweep.lock().push_back(Id::of(demand));
                cell
            }
            Err(cell) => cell,
        }
    }

    fn touch(&self, cell: &Arc<Cell>, demand: &Demand, mode: SharedMode, now_ms: u64, guard: &impl Guard) {
        // In mode strict Redis has counted it; what it has not is recorded, or counted while it was away.
        let left = || demand.limit.saturating_sub(demand.counted(self.word_of(cell, guard), now_ms));
        let pressing = mode != SharedMode::Strict && cell.is_pressing(demand.limit, left());
        self.queue(cell);
        if pressing && cell.set(PRESSING) {
            self.early.notify_one();
        }
    }

    fn queue(&self, cell: &Arc<Cell>) {
        if cell.set(QUEUED) {
            // Fails only when the ledger is gone.
            let _ = self.touched.send(Arc::clone(cell));
        }
    }

    /// What to tell and to ask for: of at most so many cells that were touched since.
    pub fn gather(&self, mode: SharedMode, now_ms: u64, idle_ms: u64, most: usize) -> Vec<(Arc<Cell>, Line)> {
        let (mut lines, mut busy) = (Vec::new(), Vec::new());
        let mut queue = self.queue.lock();
        while lines.len() < most {
            let Ok(cell) = queue.try_recv() else { break };
            cell.clear(QUEUED | PRESSING);
            if cell.is_over(now_ms) {
                continue;
            }
            if cell.is_sharing() && !cell.set(ASKING) {
                busy.push(cell);
                continue;
            }
            let line = cell.line(mode, now_ms, idle_ms);
            lines.push((cell, line));
        }
        drop(queue);
        busy.iter().for_each(|cell| self.queue(cell));
        lines
    }

    /// What a request asks for one limit; none: somebody asks already.
    pub fn ask(&self, demand: &Demand, mode: SharedMode, now_ms: u64) -> Option<(Arc<Cell>, Line)> {
        let cell = self.open(demand);
        self.note(&cell, demand, now_ms, &self.cells.guard());
        let line = cell.set(ASKING).then(|| cell.line(mode, now_ms, u64::MAX))?;
        Some((cell, line))
    }

    /// Whether an exchange should not wait for its time; asked once.
    pub fn is_pressed(&self) -> bool {
        let mut told = std::pin::pin!(self.early.notified());
        told.as_mut().enable()
    }

    /// Takes an answer over.
    pub fn learn(&self, cell: &Arc<Cell>, line: &Line, answer: Answer, now_ms: u64, close_ms: u64) {
        cell.learn(line, answer, now_ms, close_ms);
        cell.clear(ASKING);
        if cell.free() > 0 && cell.set(WATCHED) {
            self.watched.lock().push(Arc::clone(cell));
        }
    }

    /// No answer came: it is told again.
    pub fn lose(&self, cell: &Arc<Cell>, line: &Line) {
        cell.forgo(line);
        cell.clear(ASKING);
        self.queue(cell);
    }

    /// All that is counted or known here is told again: Redis may have lost it.
    pub fn tell_all(&self) {
        let guard = self.cells.guard();
        for cell in self.cells.values(&guard) {
            if cell.is_news() {
                self.queue(cell);
            }
        }
    }

    /// Queues shares that were not used for so long, so that they go back.
    pub fn rest(&self, mode: SharedMode, now_ms: u64, idle_ms: u64) {
        self.watched.lock().retain(|cell| {
            let keeps = cell.free() > 0 && !cell.is_over(now_ms);
            if !keeps {
                cell.clear(WATCHED);
            } else if mode != SharedMode::Lease || cell.has_ended(now_ms) || cell.is_idle(now_ms, idle_ms) {
                self.queue(cell);
            }
            keeps
        });
    }

    /// Forgets windows that are over. Looks at a part of them, in turn.
    pub fn sweep(&self, now_ms: u64) {
        let guard = self.cells.guard();
        let mut ids = self.sweep.lock();
        let looked_at = (ids.len() / SWEEP_SHARE).max(SWEEP_LEAST).min(ids.len());
        for _ in 0..looked_at {
            let Some(id) = ids.pop_front() else { return };
            match self.cells.get(&id, &guard) {
                Some(cell) if cell.is_over(now_ms) => {
                    // One that has counted beyond all measure is no measure for others.
                    if cell.algorithm == Algorithm::Gcra && cell.held() < MOST_HELD / 2 {
                        self.begin.fetch_max(cell.held().saturating_add(APART), Relaxed);
                    }
                    let _ = self.cells.of(&id).remove(&id, &guard);
                }
                Some(_) => ids.push_back(id),
                None => {}
            }
        }
    }

    /// How many limits and windows it holds.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("cells", &self.len()).finish_non_exhaustive()
    }
}

impl Demand {
    /// What a word of this limit says that counts at that moment.
    fn counted(&self, word: u128, now_ms: u64) -> u64 {
        let Self { limit, window, algorithm, .. } = *self;
        let quota = Quota { kind: QuotaKind::Requests, limit, window, algorithm };
        algorithm::counted(&quota, word, Moment::of(&quota, Now::at_ms(now_ms)))
    }
}

impl Id {
    const fn of(demand: &Demand) -> Self {
        Self { key: demand.key, number: demand.number }
    }
}

/// Whether a limit is counted in shares: amounts that are known beforehand, of limits that refuse.
pub(super) const fn is_share(mode: SharedMode, demand: &Demand) -> bool {
    let in_windows = !matches!(demand.algorithm, Algorithm::Gcra);
    matches!(mode, SharedMode::Lease) && in_windows && demand.stop && demand.amount == 1
}

/// More than requests that count on a bucket while it is forgotten.
const APART: u64 = 1 << 20;

/// Odd, so that multiplying loses nothing.
const SPREAD: u128 = 0xd6e8_feb8_6659_fd93_a5a5_1f3c_9e37_79b9;

/// A sweep looks at this part of all cells, and at least at so many.
const SWEEP_SHARE: usize = 4;
const SWEEP_LEAST: usize = 1_000;
