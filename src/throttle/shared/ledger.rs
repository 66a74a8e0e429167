//! All limits that sidecars count together: what is known here, and what the next exchange is about.
//!
//! Knows nothing of Redis: [`Ledger::gather`] says what to tell and to ask, [`Ledger::learn`] takes the answer. Taking
//! what is there neither locks nor waits; it allocates once for each limit and window.

use std::{collections::VecDeque, hash::Hash, sync::Arc};

use papaya::{Guard, HashMap};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::{
    super::{local::Seeded, window},
    cell::{ASKING, Answer, Cell, Line, PRESSING, QUEUED, WATCHED},
    settings::SharedMode,
};
use crate::store::Window;

/// What a request wants of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// The counter.
    pub key: u128,
    /// How much a window holds.
    pub limit: u64,
    /// The kind of window.
    pub window: Window,
    /// The window's number.
    pub number: u32,
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
    cells: HashMap<Id, Arc<Cell>, Seeded>,
    touched: mpsc::UnboundedSender<Arc<Cell>>,
    /// Each cell at most once. Locked by the exchange alone.
    queue: Mutex<mpsc::UnboundedReceiver<Arc<Cell>>>,
    /// Cells that have a share, for when it lies idle. Locked by the exchange alone.
    watched: Mutex<Vec<Arc<Cell>>>,
    /// The ids in `cells`, each once, for the sweep. Locked when a cell is made or swept.
    sweep: Mutex<VecDeque<Id>>,
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
            cells: HashMap::default(),
            touched,
            queue: Mutex::new(queue),
            watched: Mutex::default(),
            sweep: Mutex::default(),
            early: Notify::new(),
            answered: Notify::new(),
        }
    }

    /// Takes all demands, or none. `alone`: Redis is away, so what is known must do.
    pub fn take(&self, mode: SharedMode, alone: bool, demands: &[Demand], now_ms: u64) -> Result<(), Short> {
        let guard = self.cells.guard();
        for (at, demand) in demands.iter().enumerate() {
            let cell = self.cell(demand, &guard);
            let taken = match is_share(mode, demand) {
                true => match cell.take_share(demand, now_ms) {
                    Taken::Ask if alone => cell.take_known(demand),
                    taken => taken,
                },
                false => cell.take_known(demand),
            };
            // Also where it was full: others may have given back.
            self.touch(cell, demand, mode);
            if taken != Taken::Yes {
                self.give_back(mode, &demands[..at]);
                return Err(Short { at, ask: taken == Taken::Ask });
            }
        }
        Ok(())
    }

    /// Gives back what was taken.
    pub fn give_back(&self, mode: SharedMode, demands: &[Demand]) {
        let guard = self.cells.guard();
        for demand in demands {
            match (self.cells.get(&Id::of(demand), &guard), is_share(mode, demand)) {
                (Some(cell), true) => cell.give_back_share(),
                (Some(cell), false) => cell.give_back_known(demand.amount),
                (None, _) => {}
            }
        }
    }

    /// Counts an amount that is only known now.
    pub fn record(&self, demand: &Demand, mode: SharedMode) {
        let guard = self.cells.guard();
        let cell = self.cell(demand, &guard);
        cell.count(demand.amount);
        self.touch(cell, demand, mode);
    }

    /// What is left of a limit, as far as is known.
    pub fn left(&self, demand: &Demand) -> u64 {
        let guard = self.cells.guard();
        self.cells.get(&Id::of(demand), &guard).map_or(demand.limit, |cell| cell.left(demand.limit))
    }

    /// Whether more is counted than the limit holds, as far as is known; of what is counted afterwards: as much.
    pub fn is_beyond(&self, demand: &Demand) -> bool {
        let guard = self.cells.guard();
        let counted = self.cells.get(&Id::of(demand), &guard).map_or(0, |cell| cell.counted());
        counted >= demand.limit.saturating_add(demand.amount)
    }

    /// The cell of a demand, for whoever asks for it.
    pub(super) fn open(&self, demand: &Demand) -> Arc<Cell> {
        Arc::clone(self.cell(demand, &self.cells.guard()))
    }

    fn cell<'g>(&self, demand: &Demand, guard: &'g impl Guard) -> &'g Arc<Cell> {
        match self.cells.get(&Id::of(demand), guard) {
            Some(cell) => cell,
            None => self.make(demand, guard),
        }
    }

    #[cold]
    fn make<'g>(&self, demand: &Demand, guard: &'g impl Guard) -> &'g Arc<Cell> {
        let end_ms = window::end_ms(demand.window, demand.number);
        match self.cells.try_insert_with(Id::of(demand), || Arc::new(Cell::new(demand, end_ms)), guard) {
            Ok(cell) => {
                self.sweep.lock().push_back(Id::of(demand));
                cell
            }
            Err(cell) => cell,
        }
    }

    fn touch(&self, cell: &Arc<Cell>, demand: &Demand, mode: SharedMode) {
        // In mode strict Redis has counted it; what it has not is recorded, or counted while it was away.
        let pressing = mode != SharedMode::Strict && cell.is_pressing(demand.limit);
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

    /// All that is counted here is told again: Redis may have lost it.
    pub fn tell_all(&self) {
        let guard = self.cells.guard();
        for cell in self.cells.values(&guard) {
            if cell.held() > 0 {
                self.queue(cell);
            }
        }
    }

    /// Queues shares that were not used for so long, so that they go back.
    pub fn rest(&self, mode: SharedMode, now_ms: u64, idle_ms: u64) {
        self.watched.lock().retain(|cell| {
            let keeps = cell.free() > 0 && now_ms < cell.end_ms;
            if !keeps {
                cell.clear(WATCHED);
            } else if mode != SharedMode::Lease || cell.is_idle(now_ms, idle_ms) {
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
                Some(cell) if cell.is_over(now_ms) => _ = self.cells.remove(&id, &guard),
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
        self.cells.is_empty()
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("cells", &self.cells.len()).finish_non_exhaustive()
    }
}

impl Id {
    const fn of(demand: &Demand) -> Self {
        Self { key: demand.key, number: demand.number }
    }
}

/// Whether a limit is counted in shares: amounts that are known beforehand, of limits that refuse.
pub(super) const fn is_share(mode: SharedMode, demand: &Demand) -> bool {
    matches!(mode, SharedMode::Lease) && demand.stop && demand.amount == 1
}

/// Odd, so that multiplying loses nothing.
const SPREAD: u128 = 0xd6e8_feb8_6659_fd93_a5a5_1f3c_9e37_79b9;

/// A sweep looks at this part of all cells, and at least at so many.
const SWEEP_SHARE: usize = 4;
const SWEEP_LEAST: usize = 1_000;
