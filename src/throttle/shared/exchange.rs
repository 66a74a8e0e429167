//! The exchange: one task that tells Redis what was counted here and learns what others have counted.
//!
//! One exchange is one round trip: every `interval` where something was counted, once more within it where a limit is
//! near, and now and then without anything, to notice that Redis is gone or has lost its data, all or a counter.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use redis::RedisResult;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    IDLE, Shared,
    cell::{Answer, Cell, Line},
    script::State,
    settings::SharedMode,
};
use crate::net::{Clock, redis::Connection};

/// What one script is about: cells of one group.
type Part = (u8, Vec<(Arc<Cell>, Line)>);

/// What was learnt of Redis over one connection.
struct Link {
    connection: Connection,
    /// Whether Redis's clock is known.
    is_begun: bool,
    /// Since when each group has its data, and when it said so last.
    epochs: HashMap<u8, (u64, Instant)>,
    /// Whether data were lost since it was last looked at.
    is_told_of_loss: bool,
    /// Whether more is to be told than the last exchange took.
    has_more: bool,
}

impl Shared {
    /// Exchanges until `stopped`; then gives shares back, and tells what is left to tell.
    pub async fn run(self: Arc<Self>, clock: Arc<Clock>, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            never = self.keep_up(&clock) => match never {},
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        let Some(link) = self.link.load_full() else { return };
        let mut link = Link::new(Connection::clone(&link));
        link.is_begun = true;
        let _ = time::timeout(CLOSING, self.exchange(&mut link, &clock, Duration::ZERO)).await;
    }

    async fn keep_up(&self, clock: &Clock) -> Infallible {
        let (mut pause, mut told) = (FIRST_PAUSE, false);
        loop {
            let mut since = None;
            let Err(error) = self.connect_and_exchange(clock, &mut since).await;
            self.link.store(None);
            self.went();
            if since.is_some_and(|since: Instant| since.elapsed() >= LASTING) {
                (pause, told) = (FIRST_PAUSE, false);
            }
            if !told {
                let on_outage = self.terms.load().on_outage;
                tracing::warn!(%error, ?on_outage, "counters are not shared: Redis is lost");
                told = true;
            }
            // Not all at once when it is back.
            time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect_and_exchange(&self, clock: &Clock, since: &mut Option<Instant>) -> RedisResult<Infallible> {
        let mut link = Link::new(self.redis.connect(PATIENCE).await?);
        // Whatever was counted before may be news to it.
        self.ledger.tell_all();
        self.settling.store(0, Relaxed);
        let all = self.names.groups().map(|group| (group, Vec::new())).collect();
        self.send(&mut link, all, clock).await?;
        self.exchange(&mut link, clock, IDLE).await?;
        self.link.store(Some(Arc::new(link.connection.clone())));
        self.came();
        *since = Some(Instant::now());
        tracing::info!("counters are shared through Redis");
        let (mut due, mut may_be_early, mut is_telling_all) = (Instant::now(), true, true);
        loop {
            // In batches nothing is handed out, so that a loss is known early enough with the next exchange.
            let (terms, look) = (*self.terms.load_full(), link.silent_at(WATCH_LONG));
            tokio::select! {
                () = time::sleep_until(due) => {
                    due = (due + terms.interval).max(Instant::now());
                    may_be_early = true;
                    self.exchange(&mut link, clock, IDLE).await?;
                }
                () = self.ledger.early.notified(), if may_be_early => {
                    may_be_early = false;
                    self.exchange(&mut link, clock, IDLE).await?;
                }
                () = time::sleep_until(look), if terms.mode != SharedMode::Batched => {
                    self.exchange_with(&mut link, HashMap::new(), clock).await?;
                }
            }
            // However much it is: what is told once Redis hands out again is too late.
            is_telling_all = std::mem::take(&mut link.is_told_of_loss) || (is_telling_all && link.has_more);
            if is_telling_all {
                due = Instant::now();
            }
        }
    }

    /// One round trip, if there is a reason for one.
    async fn exchange(&self, link: &mut Link, clock: &Clock, idle: Duration) -> RedisResult<()> {
        let (mode, now_ms, idle_ms) = (self.terms.load().mode, clock.now().steady_ms, millis(idle));
        self.ledger.rest(mode, now_ms, idle_ms);
        let mut parts: HashMap<u8, Vec<(Arc<Cell>, Line)>> = HashMap::new();
        let gathered = self.ledger.gather(mode, now_ms, idle_ms, self.most);
        link.has_more = gathered.len() == self.most;
        for (cell, mut line) in gathered {
            line.ttl_ms = self.ttl_ms(&cell, now_ms);
            parts.entry(self.names.group(&cell)).or_default().push((cell, line));
        }
        self.exchange_with(link, parts, clock).await
    }

    /// The same with what is told, and with groups that are to be asked for their state.
    async fn exchange_with(
        &self,
        link: &mut Link,
        mut parts: HashMap<u8, Vec<(Arc<Cell>, Line)>>,
        clock: &Clock,
    ) -> RedisResult<()> {
        let settling = self.settling.load(Relaxed);
        let silence = if self.names.groups().len() > 1 { WATCH_LONG } else { WATCH_EVERY };
        let now = Instant::now();
        let is_due = |group: &u8| settling & 1 << group != 0 || link.said(*group).is_some_and(|at| at + silence <= now);
        for group in self.names.groups().filter(is_due) {
            parts.entry(group).or_default();
        }
        if parts.is_empty() && self.is_away() {
            let any = fastrand::usize(..self.names.groups().len());
            parts.extend(self.names.groups().nth(any).map(|group| (group, Vec::new())));
        }
        let parts: Vec<Part> = parts.into_iter().flat_map(|(group, lines)| chunks(group, lines)).collect();
        if parts.is_empty() {
            return Ok(());
        }
        self.send(link, parts, clock).await?;
        self.came();
        Ok(())
    }

    /// Sends all parts at once, and takes the answers over.
    async fn send(&self, link: &mut Link, parts: Vec<Part>, clock: &Clock) -> RedisResult<()> {
        self.metrics.round_trips.inc();
        let begun = Instant::now();
        // The first says what Redis's clock is, and whether it is the server that it was.
        let until_ms = if link.is_begun { self.until_ms() } else { 0 };
        link.is_begun = true;
        let mut asked = JoinSet::new();
        for (group, lines) in parts {
            let (names, mut connection) = (Arc::clone(&self.names), link.connection.clone());
            asked.spawn(async move {
                let them = lines.iter().map(|(cell, line)| (&**cell, line));
                let answer = names.exchange(&mut connection, group, until_ms, them).await;
                (group, lines, answer)
            });
        }
        let mut outcome = Ok(());
        while let Some(answer) = asked.join_next().await {
            let Ok((group, lines, answer)) = answer else { continue };
            match answer {
                Ok((state, answers)) => self.take(link, group, state, lines.into_iter().zip(answers), clock),
                Err(error) => {
                    lines.iter().for_each(|(cell, line)| self.ledger.lose(cell, line));
                    outcome = Err(error);
                }
            }
        }
        self.ledger.answered.notify_waiters();
        self.metrics.exchange_duration.observe(begun.elapsed().as_secs_f64());
        outcome
    }

    fn take(
        &self,
        link: &mut Link,
        group: u8,
        state: State,
        lines: impl ExactSizeIterator<Item = ((Arc<Cell>, Line), Answer)>,
        clock: &Clock,
    ) {
        self.note(group, state);
        self.note_clock(state);
        if link.epochs.insert(group, (state.epoch, Instant::now())).is_some_and(|(before, _)| before != state.epoch) {
            tracing::warn!("Redis has lost counters, or one: what was counted here is told again");
            self.ledger.tell_all();
            link.is_told_of_loss = true;
        }
        self.metrics.keys.inc_by(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        let (now_ms, close_ms) = (clock.now().steady_ms, millis(self.terms.load().interval));
        self.compare_clocks(now_ms, state.clock_ms);
        for ((cell, line), answer) in lines {
            self.ledger.learn(&cell, &line, answer, now_ms, close_ms);
        }
    }
}

impl Link {
    fn new(connection: Connection) -> Self {
        Self { connection, is_begun: false, epochs: HashMap::new(), is_told_of_loss: false, has_more: false }
    }

    /// When a group answered last.
    fn said(&self, group: u8) -> Option<Instant> {
        self.epochs.get(&group).map(|(_, said)| *said)
    }

    /// When the first of the groups will have said nothing for so long.
    fn silent_at(&self, silence: Duration) -> Instant {
        self.epochs.values().map(|(_, said)| *said).min().unwrap_or_else(Instant::now) + silence
    }
}

/// Lines of one group, in parts of a size that does not keep others waiting for long.
fn chunks(group: u8, lines: Vec<(Arc<Cell>, Line)>) -> Vec<Part> {
    if lines.is_empty() {
        return vec![(group, lines)];
    }
    let (mut parts, mut lines) = (Vec::new(), lines.into_iter());
    loop {
        let part: Vec<_> = lines.by_ref().take(CHUNK).collect();
        if part.is_empty() {
            return parts;
        }
        parts.push((group, part));
    }
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Cells of one exchange.
pub(super) const MOST: usize = 50_000;

/// Cells of one script.
const CHUNK: usize = 250;

/// Longest wait for the answer to an exchange.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Longest time for the last exchange.
const CLOSING: Duration = Duration::from_secs(1);

/// How often an idle Redis is asked whether it is there and has its data.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// The same of each group of keys in a cluster, and in modes `lease` and `strict` of every Redis, however long the interval:
/// whoever learns of a loss later than Redis settles tells too late what it holds.
const WATCH_LONG: Duration = Duration::from_secs(1);

/// Between attempts; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A connection that held so long was good: the next one is tried for at once.
const LASTING: Duration = Duration::from_secs(5);
