//! A request's way through the shared counters.
//!
//! What is known here decides at once; where only Redis can say, the request waits, and no longer than `timeout`.

use std::{sync::Arc, time::Duration};

use redis::RedisError;
use smallvec::SmallVec;
use tokio::{sync::oneshot, time};

use super::{
    Shared,
    cell::{ASKING, Cell},
    exchange::{PATIENCE, millis},
    ledger::{Demand, Short},
    script::Count,
    settings::{OutageRule, SharedMode, Terms},
};
use crate::{net::redis::Connection, store::Algorithm};

/// Why a request does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The limit at this place has no room.
    Full(usize),
    /// Redis is away, and `on_outage` refuses.
    Away,
}

/// How a request was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Passage {
    /// Here, to be told.
    Here(SharedMode),
    /// By Redis.
    There,
    /// Buckets by Redis, what is left from shares here.
    Apart(SharedMode),
    /// Not at all: `on_outage` allows.
    Uncounted,
}

/// What came of a question.
type Asked = Result<Result<Passage, Refused>, Unanswered>;

/// Why a question has no answer.
enum Unanswered {
    Lost(RedisError),
    /// There is no connection, or what it leads to may lack what others hold.
    Away,
}

impl From<RedisError> for Unanswered {
    fn from(error: RedisError) -> Self {
        Self::Lost(error)
    }
}

impl Shared {
    /// Takes all demands or none, by what is known here; none: Redis must be asked.
    pub(in super::super) fn try_take(&self, demands: &[Demand], now_ms: u64) -> Option<Result<Passage, Refused>> {
        let terms = self.terms.load();
        let away = self.is_away() || self.is_settling(terms.mode, demands);
        match terms.mode {
            SharedMode::Batched | SharedMode::Strict if away => Some(self.outage(&terms, demands, now_ms)),
            SharedMode::Strict => None,
            mode => match self.ledger.take(mode, false, demands, now_ms) {
                Ok(()) => Some(Ok(Passage::Here(mode))),
                Err(Short { ask: true, .. }) if away => Some(self.outage(&terms, demands, now_ms)),
                Err(Short { ask: true, .. }) => None,
                Err(Short { at, .. }) => Some(Err(Refused::Full(at))),
            },
        }
    }

    /// Takes all demands or none, and asks Redis for what is not known here.
    pub(in super::super) async fn ask(self: &Arc<Self>, demands: &[Demand], now_ms: u64) -> Result<Passage, Refused> {
        let terms = *self.terms.load_full();
        // Who passes all the same is rightly counted, however late; a share that comes late is had with the next exchange.
        let goes_back =
            terms.on_outage == OutageRule::Deny && (terms.mode == SharedMode::Strict || demands.iter().any(is_bucket));
        let asked = match goes_back {
            true => self.ask_or_give_back(terms, demands, now_ms).await,
            false => time::timeout(terms.timeout, self.ask_there(&terms, demands, now_ms)).await.ok(),
        };
        match asked {
            Some(Ok(verdict)) => return verdict,
            Some(Err(Unanswered::Away)) => {}
            Some(Err(Unanswered::Lost(error))) => self.doubt(&error),
            None => self.doubt(&"no answer in time"),
        }
        self.outage(&terms, demands, now_ms)
    }

    /// The same, where a request that waits no longer is refused: what was counted for it goes back when that is known.
    async fn ask_or_give_back(self: &Arc<Self>, terms: Terms, demands: &[Demand], now_ms: u64) -> Option<Asked> {
        let (shared, demands) = (Arc::clone(self), SmallVec::<[Demand; USUAL]>::from_slice(demands));
        let (tell, mut told) = oneshot::channel();
        tokio::spawn(async move {
            let patience = terms.timeout.max(PATIENCE);
            let asked = time::timeout(patience, shared.ask_there(&terms, &demands, now_ms)).await;
            let Ok(Err(Ok(Ok(passage)))) = asked.map(|asked| tell.send(asked)) else { return };
            shared.give_back_within(PATIENCE, passage, &demands, now_ms).await;
        });
        match time::timeout(terms.timeout, &mut told).await {
            Ok(asked) => asked.ok(),
            Err(_) => {
                // What was told since is taken; what is not, goes back.
                told.close();
                told.try_recv().ok()
            }
        }
    }

    async fn ask_there(&self, terms: &Terms, demands: &[Demand], now_ms: u64) -> Asked {
        match terms.mode {
            SharedMode::Strict => self.count_there(terms, demands, now_ms).await,
            mode => self.take_apart(mode, terms, demands, now_ms).await,
        }
    }

    /// Gives back what a request has taken that is refused for another reason.
    pub(in super::super) async fn give_back(&self, passage: Passage, demands: &[Demand], now_ms: u64) {
        let timeout = self.terms.load().timeout;
        self.give_back_within(timeout, passage, demands, now_ms).await;
    }

    async fn give_back_within(&self, span: Duration, passage: Passage, demands: &[Demand], now_ms: u64) {
        let counted_there = match passage {
            Passage::Here(_) | Passage::Uncounted => SmallVec::new(),
            Passage::There => SmallVec::from_slice(demands),
            Passage::Apart(_) => parts(demands).1,
        };
        self.give_back_here(passage, demands, now_ms);
        if !counted_there.is_empty() {
            let cells = self.open(&counted_there);
            let _ = time::timeout(span, self.uncount(&cells, now_ms)).await;
        }
    }

    /// The same of what Redis need not be asked for.
    pub(in super::super) fn give_back_here(&self, passage: Passage, demands: &[Demand], now_ms: u64) {
        match passage {
            Passage::Here(mode) => self.ledger.give_back(mode, demands, now_ms),
            Passage::Apart(mode) => self.ledger.give_back(mode, &parts(demands).0, now_ms),
            Passage::There | Passage::Uncounted => {}
        }
    }

    /// What happens to a request while Redis is away.
    fn outage(&self, terms: &Terms, demands: &[Demand], now_ms: u64) -> Result<Passage, Refused> {
        self.metrics.outage_requests.inc();
        match terms.on_outage {
            OutageRule::Deny => Err(Refused::Away),
            OutageRule::Allow => Ok(Passage::Uncounted),
            OutageRule::Local => match self.ledger.take(terms.mode, true, demands, now_ms) {
                Ok(()) => Ok(Passage::Here(terms.mode)),
                Err(Short { at, .. }) => Err(Refused::Full(at)),
            },
        }
    }

    /// The next requests do not wait until the exchange finds Redis again.
    fn doubt(&self, why: &dyn std::fmt::Display) {
        if !self.is_away() {
            tracing::warn!(error = %why, "Redis has not counted a request in time");
        }
        self.went();
        self.ledger.early.notify_one();
    }

    /// Takes shares, and lets Redis count buckets, of which there are none.
    async fn take_apart(&self, mode: SharedMode, terms: &Terms, demands: &[Demand], now_ms: u64) -> Asked {
        let (here, there) = parts(demands);
        if there.is_empty() || mode != SharedMode::Lease {
            return self.take_shares(mode, terms, demands, now_ms).await;
        }
        // Where this is not awaited to its end, what was taken here goes back.
        let mut taken = Taken { shared: self, mode, demands: &[], now_ms };
        let place = |at: usize, of: fn(&Demand) -> bool| {
            demands.iter().enumerate().filter(|(_, demand)| of(demand)).nth(at).map_or(at, |(place, _)| place)
        };
        if let Err(refused) = self.take_shares(mode, terms, &here, now_ms).await? {
            return Ok(Err(refused.at(|at| place(at, |demand| !is_bucket(demand)))));
        }
        taken.demands = &here;
        if let Err(refused) = self.count_there(terms, &there, now_ms).await? {
            return Ok(Err(refused.at(|at| place(at, is_bucket))));
        }
        taken.demands = &[];
        Ok(Ok(Passage::Apart(mode)))
    }

    async fn take_shares(&self, mode: SharedMode, terms: &Terms, demands: &[Demand], now_ms: u64) -> Asked {
        loop {
            let at = match self.ledger.take(mode, false, demands, now_ms) {
                Ok(()) => return Ok(Ok(Passage::Here(mode))),
                Err(Short { ask: false, at }) => return Ok(Err(Refused::Full(at))),
                Err(Short { at, .. }) => at,
            };
            let cell = self.ledger.open(&demands[at]);
            let answered = self.ledger.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            if !cell.set(ASKING) {
                // Another asks. Its answer may have come before we listened: then we are not told, and ask soon.
                let _ = time::timeout(RETRY, answered).await;
                continue;
            }
            let turn = Turn { shared: self, cell: &cell };
            self.ask_share(mode, terms, &cell, now_ms).await?;
            drop(turn);
        }
    }

    async fn ask_share(
        &self,
        mode: SharedMode,
        terms: &Terms,
        cell: &Arc<Cell>,
        now_ms: u64,
    ) -> Result<(), Unanswered> {
        self.metrics.asked.inc();
        let mut connection = self.connection()?;
        let mut line = cell.line(mode, now_ms, u64::MAX);
        line.ttl_ms = self.ttl_ms(cell, now_ms);
        let group = self.names.group(cell);
        let asked = self.names.exchange(&mut connection, group, self.until_ms(), [(&**cell, &line)].into_iter()).await;
        let (state, answers) = asked.inspect_err(|_| cell.forgo(&line))?;
        self.note(group, state);
        for answer in answers {
            self.ledger.learn(cell, &line, answer, now_ms, millis(terms.interval));
        }
        if state.settling { Err(Unanswered::Away) } else { Ok(()) }
    }

    /// Lets Redis count all demands, or none.
    async fn count_there(&self, terms: &Terms, demands: &[Demand], now_ms: u64) -> Asked {
        let cells = self.open(demands);
        let is_closed = |(cell, demand): &(Arc<Cell>, Demand)| {
            demand.stop && cell.is_closed(self.ledger.left(demand, now_ms), now_ms)
        };
        if let Some(at) = cells.iter().position(is_closed) {
            return Ok(Err(Refused::Full(at)));
        }
        self.metrics.asked.inc();
        let mut connection = self.connection()?;
        for (n, part) in self.by_group(&cells).iter().enumerate() {
            let group = self.names.group(&cells[part[0]].0);
            let counts: SmallVec<[_; USUAL]> =
                part.iter().map(|at| (&*cells[*at].0, self.count(&cells[*at], now_ms))).collect();
            // In a cluster limits of one request may lie apart: those counted already are uncounted if it does not pass.
            let before =
                || self.by_group(&cells).iter().take(n).flatten().map(|at| cells[*at].clone()).collect::<Vec<_>>();
            let counted = match self.names.count(&mut connection, group, self.until_ms(), &counts).await {
                Ok(counted) => counted,
                Err(error) => {
                    let _ = self.uncount(&before(), now_ms).await;
                    return Err(error.into());
                }
            };
            self.note(group, counted.state);
            for ((at, answer), (_, count)) in part.iter().zip(&counted.answers).zip(&counts) {
                cells[*at].0.learn_others(count.mine, *answer, now_ms);
            }
            let refused = counted.refused.and_then(|place| part.get(place));
            if let Some(at) = refused {
                cells[*at].0.close(now_ms.saturating_add(millis(terms.interval)));
            }
            if refused.is_some() || counted.state.settling {
                self.uncount(&before(), now_ms).await?;
                return refused.map_or(Err(Unanswered::Away), |at| Ok(Err(Refused::Full(*at))));
            }
            part.iter().for_each(|at| cells[*at].0.count(cells[*at].1.amount));
        }
        Ok(Ok(Passage::There))
    }

    /// Takes back what Redis has counted.
    async fn uncount(&self, cells: &[(Arc<Cell>, Demand)], now_ms: u64) -> Result<(), Unanswered> {
        if cells.is_empty() {
            return Ok(());
        }
        let mut connection = self.connection()?;
        for part in self.by_group(cells) {
            let group = self.names.group(&cells[part[0]].0);
            let mut leaving: SmallVec<[_; USUAL]> = SmallVec::new();
            let back = |at: &usize| {
                let (cell, demand) = &cells[*at];
                let mine = if is_bucket(demand) {
                    leaving.push(cell.take_out_there(demand.amount, now_ms));
                    cell.held()
                } else {
                    cell.give_back_known(demand.amount);
                    0
                };
                let amount = i64::try_from(demand.amount).map_or(i64::MIN, |amount| -amount);
                (&**cell, Count { mine, limit: None, amount, ..self.count(&cells[*at], now_ms) })
            };
            let counts: SmallVec<[_; USUAL]> = part.iter().map(back).collect();
            let counted = self.names.count(&mut connection, group, self.until_ms(), &counts).await?;
            // An answer from before, which came since, has told of what was there then.
            for ((cell, count), answer) in counts.iter().zip(counted.answers) {
                cell.learn_others(count.mine, answer, now_ms);
            }
        }
        Ok(())
    }

    fn count(&self, (cell, demand): &(Arc<Cell>, Demand), now_ms: u64) -> Count {
        let mine = cell.held();
        Count {
            mine,
            limit: demand.stop.then_some(demand.limit),
            amount: i64::try_from(demand.amount).unwrap_or(i64::MAX),
            ttl_ms: self.ttl_ms(cell, now_ms),
            form: cell.form(mine, now_ms),
            size: demand.limit,
            seen: cell.seen(),
        }
    }

    fn open(&self, demands: &[Demand]) -> SmallVec<[(Arc<Cell>, Demand); USUAL]> {
        demands.iter().map(|demand| (self.ledger.open_noted(demand), *demand)).collect()
    }

    /// Places of cells, those together that one script may use.
    fn by_group(&self, cells: &[(Arc<Cell>, Demand)]) -> SmallVec<[SmallVec<[usize; USUAL]>; 1]> {
        let mut groups: SmallVec<[SmallVec<[usize; USUAL]>; 1]> = SmallVec::new();
        for (at, (cell, _)) in cells.iter().enumerate() {
            let same = |group: &&mut SmallVec<[usize; USUAL]>| {
                group.first().is_some_and(|first| self.names.group(&cells[*first].0) == self.names.group(cell))
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.push(at),
                None => groups.push(SmallVec::from_slice(&[at])),
            }
        }
        groups
    }

    fn connection(&self) -> Result<Connection, Unanswered> {
        self.link.load().as_deref().cloned().ok_or(Unanswered::Away)
    }
}

/// Those of windows, and those of buckets.
fn parts(demands: &[Demand]) -> (SmallVec<[Demand; USUAL]>, SmallVec<[Demand; USUAL]>) {
    demands.iter().copied().partition(|demand| !is_bucket(demand))
}

fn is_bucket(demand: &Demand) -> bool {
    demand.algorithm == Algorithm::Gcra
}

impl Refused {
    fn at(self, place: impl Fn(usize) -> usize) -> Self {
        match self {
            Self::Full(at) => Self::Full(place(at)),
            Self::Away => Self::Away,
        }
    }
}

/// What was taken of shares before the rest is known.
struct Taken<'a> {
    shared: &'a Shared,
    mode: SharedMode,
    demands: &'a [Demand],
    now_ms: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.shared.ledger.give_back(self.mode, self.demands, self.now_ms);
    }
}

/// The right to ask for a cell. Whoever waits for it is told when it ends, however it does.
struct Turn<'a> {
    shared: &'a Shared,
    cell: &'a Cell,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.cell.clear(ASKING);
        self.shared.ledger.answered.notify_waiters();
    }
}

/// Limits that a request usually meets.
const USUAL: usize = 6;

/// Whoever waits for another's answer looks again after so long.
const RETRY: Duration = Duration::from_millis(5);
