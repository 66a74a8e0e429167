//! Counters that all sidecars share, through Redis or Valkey. Quotas alone: bursts count in each process.
//!
//! # What each mode guarantees
//!
//! *N* sidecars, a limit met at *rate* requests a second by all of them together, exchanges every *interval*:
//!
//! | mode | the path | admitted, while Redis answers | Redis is asked |
//! |---|---|---|---|
//! | `batched` | never waits | ≤ limit + rate × (2 × interval + exchange) + N | at most twice an interval and sidecar, whatever the rate |
//! | `lease` | waits only where a share is used up | ≤ limit | the same, and by a request where its share is used up |
//! | `strict` | waits for each request | ≤ limit | once a request |
//!
//! In mode `batched` what one admits waits for an exchange to begin, an interval at most; Redis has it within that
//! exchange; the others' next ones begin within another interval, and bring it. Where an *exchange* takes longer than an
//! interval, one follows the other, and it takes the interval's place: 3 × rate × exchange. Near a limit exchanges come
//! early, so that it is mostly half of that.
//! In mode `lease` a sidecar takes up to half of its part of what is left, and less as that shrinks: what it does not use
//! goes back after two idle seconds, and when the process ends. A request waits `timeout` at most.
//!
//! *Admitted* is what the limit's algorithm counts: of fixed windows what passed in one, of sliding ones with the share of
//! the window before, of GCRA what is in the bucket. In mode `lease` there are no shares of a bucket: what runs out while
//! a share is held would be admitted twice. There a request asks, as in mode `strict`.
//!
//! Amounts that are known only afterwards (bytes, events, tokens) are looked at when a request begins and told with the
//! next exchange, in every mode.
//!
//! # While Redis is away
//!
//! Nothing waits for it. `on_outage = "local"` counts here, beginning from what others are known to have used; `deny`
//! refuses, save what a share still holds; `allow` counts nothing but bursts. What was counted here is told when Redis is back.
//!
//! A Redis that comes back empty, or with an older snapshot, or a replica that takes over without the last writes of its
//! master, is told by each sidecar what it has counted, or holds as a share, and what all together had counted when it heard of it
//! last: also what sidecars have counted that are gone since. For two seconds from then on it hands out
//! nothing in modes `lease` and `strict`; this also holds when it is met for the first time, and when one counter is found
//! overwritten. So the limit holds in them after a loss, with `on_outage = "deny"`, as long as every sidecar that holds
//! something reaches Redis within these two seconds: each looks once a second, however long the interval. Which server it
//! is, `INFO server` says (`run_id`); a user that may not ask learns of an empty one alone.
//!
//! A counter that is deleted, or evicted, is as one that never was: what is known of it is told by those who ask. That
//! others know more of it cannot be seen there; and if it could, a Redis that evicts would never hand out anything.

#[cfg(test)]
mod bound_tests;
mod bucket;
mod cell;
#[cfg(test)]
mod clock_tests;
mod exchange;
mod ledger;
#[cfg(test)]
mod loss_tests;
mod metrics;
pub mod model;
#[cfg(test)]
mod moving_tests;
#[cfg(test)]
mod pace_tests;
pub(super) mod path;
mod script;
#[cfg(test)]
mod script_tests;
mod settings;
#[cfg(test)]
mod size_tests;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use arc_swap::{ArcSwap, ArcSwapOption};

pub use cell::{Answer, Before, Cell, Form, Line, Seen};
pub use ledger::{Demand, Ledger, Short, Taken};
pub use metrics::Metrics;
pub use path::Refused;
pub use settings::{OutageRule, SharedMode, Terms};

use crate::net::redis::{Connection, Redis};
use script::{Names, State};

/// Counters that all sidecars share.
pub struct Shared {
    ledger: Ledger,
    terms: ArcSwap<Terms>,
    redis: Redis,
    names: Arc<Names>,
    /// None: there is no connection.
    link: ArcSwapOption<Connection>,
    /// Whether the last question was answered in time.
    answers: AtomicBool,
    /// A bit for each group of keys whose Redis has its data for too short a time.
    settling: AtomicU64,
    /// Whether Redis does not say which server it is.
    nameless: AtomicBool,
    begun: Instant,
    /// Whether it is known that Redis hands out, or is away.
    has_begun: AtomicBool,
    /// Redis's clock before the time since `begun`, at least, in milliseconds as a two's complement number; of the
    /// connection in use.
    ahead_ms: AtomicU64,
    /// Whether it was told that the clocks are apart.
    is_told_of_clocks: AtomicBool,
    metrics: Metrics,
    /// Cells of one exchange; more wait for the next, which comes at once where data were lost.
    most: usize,
}

impl Shared {
    /// Counters in this Redis, under keys that begin with `prefix`. Contacts nobody.
    pub fn new(redis: Redis, prefix: &str, terms: Terms, metrics: Metrics) -> Self {
        Self {
            ledger: Ledger::new(),
            terms: ArcSwap::from_pointee(terms),
            names: Arc::new(Names::new(prefix, redis.is_cluster())),
            redis,
            link: ArcSwapOption::empty(),
            answers: AtomicBool::new(false),
            settling: AtomicU64::new(0),
            nameless: AtomicBool::new(false),
            begun: Instant::now(),
            has_begun: AtomicBool::new(false),
            ahead_ms: AtomicU64::new(0),
            is_told_of_clocks: AtomicBool::new(false),
            metrics,
            most: exchange::MOST,
        }
    }

    /// Takes other terms over. Shares go back where the new mode has none.
    pub fn reload(&self, terms: Terms) {
        self.terms.store(Arc::new(terms));
        self.ledger.early.notify_one();
    }

    /// Forgets windows that are over.
    pub(super) fn sweep(&self, now_ms: u64) {
        self.ledger.sweep(now_ms);
    }

    /// Counts an amount that is only known now.
    pub(super) fn record(&self, demand: &Demand, now_ms: u64) {
        self.ledger.record(demand, self.terms.load().mode, now_ms);
    }

    /// What is left of a limit, as far as is known here.
    pub(super) fn left(&self, demand: &Demand, now_ms: u64) -> u64 {
        self.ledger.left(demand, now_ms)
    }

    /// What is counted, as far as is known here, as a quota's word.
    pub(super) fn word(&self, demand: &Demand) -> u128 {
        self.ledger.word(demand)
    }

    /// Whether more is counted than the limit holds, as far as is known here.
    pub(super) fn is_beyond(&self, demand: &Demand, now_ms: u64) -> bool {
        self.ledger.is_beyond(demand, now_ms)
    }

    /// Whether Redis is not to be asked now.
    pub(super) fn is_away(&self) -> bool {
        !self.answers.load(Acquire)
    }

    /// Whether this process has just begun and would refuse every limit that a Redis without data does not hand out yet.
    /// One that is away is not waited for.
    pub fn is_beginning(&self) -> bool {
        let terms = self.terms.load();
        let refuses = terms.mode != SharedMode::Batched && terms.on_outage == OutageRule::Deny;
        refuses && !self.has_begun.load(Relaxed) && self.begun.elapsed() < LONGEST_BEGINNING
    }

    /// Whether one of these is judged by `on_outage` now: Redis is away, or what it has may not be all.
    pub(super) fn is_alone(&self, demands: &[Demand]) -> bool {
        self.is_away() || (self.settling.load(Relaxed) != 0 && self.is_settling(self.terms.load().mode, demands))
    }

    /// Whether what Redis has may not be all, for one of these.
    fn is_settling(&self, mode: SharedMode, demands: &[Demand]) -> bool {
        let settling = self.settling.load(Relaxed);
        mode != SharedMode::Batched
            && settling != 0
            && demands.iter().any(|demand| settling & 1 << self.names.group_of(demand.key) != 0)
    }

    /// Notes what Redis said of its data.
    fn note(&self, group: u8, state: State) {
        let bit = 1 << group;
        let before = match state.settling {
            true => self.settling.fetch_or(bit, Relaxed),
            false => self.settling.fetch_and(!bit, Relaxed),
        };
        let terms = self.terms.load();
        if state.settling && before == 0 && terms.mode != SharedMode::Batched {
            tracing::warn!(
                on_outage = ?terms.on_outage,
                "Redis has had its data for too short a time: until all sidecars have told what they hold, requests are \
                 judged as while it is away; this ends by itself within {} s",
                script::SETTLE_MS / 1_000
            );
        }
        self.show();
        if state.replaced > 0 {
            self.metrics.replaced.inc_by(state.replaced);
            tracing::error!(keys = state.replaced, "counters in Redis held values of another type, which are removed");
            // The next exchange learns of the new epoch.
            self.ledger.early.notify_one();
        }
        if state.nameless && !self.nameless.swap(true, Relaxed) {
            tracing::warn!(
                "Redis does not say which server it is (`INFO server`, `run_id`; its user needs INFO): one that comes back \
                 with an older snapshot, or takes over without the last writes, is not noticed, and hands out what is used"
            );
        }
    }

    /// Until when a command is done that is sent now, by Redis's clock: when nobody waits for it any more. That is longer
    /// than a request does: whoever refuses it then still waits for the answer, and gives back what was counted. A
    /// request's own time is of no use here: it may have waited long for its token.
    fn until_ms(&self) -> u64 {
        let patience = self.terms.load().timeout.max(exchange::PATIENCE);
        self.redis_ms().saturating_add(exchange::millis(patience))
    }

    /// How long Redis keeps a key: by its own clock where ours is ahead.
    fn ttl_ms(&self, cell: &Cell, now_ms: u64) -> u64 {
        cell.ttl_ms(now_ms.min(self.redis_ms()))
    }

    /// Redis's clock, as far as it is known.
    fn redis_ms(&self) -> u64 {
        exchange::millis(self.begun.elapsed()).wrapping_add(self.ahead_ms.load(Relaxed))
    }

    /// What Redis's clock said, in an answer that came now.
    fn note_clock(&self, state: State) {
        self.ahead_ms.store(state.clock_ms.wrapping_sub(exchange::millis(self.begun.elapsed())), Relaxed);
    }

    /// Shows how far the clock that names windows is from Redis's, which all sidecars see. It goes on from what the wall
    /// clock said when the process began, and is put right by nothing: a step would open a window anew.
    fn compare_clocks(&self, now_ms: u64, redis_ms: u64) {
        let ahead_ms = i128::from(now_ms) - i128::from(redis_ms);
        self.metrics.clock_ahead.set(ahead_ms as f64 / 1_000.0);
        if ahead_ms.unsigned_abs() >= APART.as_millis() && !self.is_told_of_clocks.swap(true, Relaxed) {
            tracing::warn!(
                windows = %written(now_ms),
                redis = %written(redis_ms),
                "the clock by which windows are named is not Redis's: sidecars whose clocks differ count in different \
                 windows. It is that of this machine when this process began: put that right and start it again, or Redis's"
            );
        }
    }

    fn came(&self) {
        self.answers.store(true, Release);
        if self.settling.load(Relaxed) == 0 {
            self.has_begun.store(true, Relaxed);
        }
        self.show();
    }

    /// Shows whether requests are counted with all sidecars.
    fn show(&self) {
        let settling = self.settling.load(Relaxed) != 0 && self.terms.load().mode != SharedMode::Batched;
        self.metrics.available.set(i64::from(!self.is_away() && !settling));
    }

    fn went(&self) {
        self.answers.store(false, Release);
        self.has_begun.store(true, Relaxed);
        self.metrics.available.set(0);
        self.metrics.errors.inc();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("terms", &self.terms.load())
            .field("ledger", &self.ledger)
            .finish_non_exhaustive()
    }
}

/// A moment for people.
fn written(ms: u64) -> String {
    // Other years cannot be written.
    let moment = Some(ms / 1_000).filter(|seconds| *seconds < YEAR_9999);
    moment.map_or_else(
        || format!("{ms} ms since 1970"),
        |seconds| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds)),
    )
}

const YEAR_9999: u64 = 253_370_764_800;

/// Clocks that differ by so much are told of: more than an answer may take.
const APART: Duration = Duration::from_secs(5);

/// For how long readiness waits at most.
const LONGEST_BEGINNING: Duration = Duration::from_secs(5);

/// A share that was not used for so long goes back.
const IDLE: Duration = Duration::from_secs(2);
