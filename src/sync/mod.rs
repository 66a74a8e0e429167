//! Revocations, shared by all sidecars through Redis or Valkey.
//!
//! What is revoked at one is refused at all others as soon as Redis has passed it on. No request waits for
//! Redis, and its absence refuses nobody: each goes on with what it knows, and what was revoked meanwhile
//! is told when Redis is there again. Counters have a connection and a task of their own ([`crate::throttle::shared`]).
//!
//! # What is in Redis
//!
//! - `tollgate:revocations`, a stream: each revocation once, trimmed to about 10,000 entries. Field
//!   `revocation` holds one JSON object; field `by` marks the ones that Tollgate wrote. An entry with any
//!   other field is malformed.
//! - `tollgate:revocations:live:{tollgate:revocations}`, a sorted set of the same objects, by `until`
//!   (`+inf` without one): what is in force, for whoever starts, or was away for longer than the stream is
//!   kept.
//!
//! The object has `issuer` (the tokens' `iss`, exactly), one of `jti`, `token_sha256` (64 hexadecimal
//! digits), `consumer_key` or `subject`, with the last two `before` (Unix seconds: tokens issued until then
//! are refused), and, if known, `until` (Unix seconds after which no such token can be alive; without it an
//! entry stays). Whoever may write to the stream may revoke; it is enough to add to it:
//!
//! ```text
//! XADD tollgate:revocations MAXLEN ~ 10000 * revocation '{"issuer":"https://idp","jti":"4f2c","until":1764037184}'
//! ```
//!
//! That is also the only door for such events: Redis's own user, password and TLS say who may.
//!
//! # Why nothing is missed
//!
//! At each connection the whole set is read, then the stream from its start, and then it is followed. After
//! each read the entry it began from must still be there, and once a second the newest must not be older than
//! what was read; otherwise something was trimmed, or Redis has lost its data, and all is read again. Each
//! time all that is known here is written back, so that a Redis that comes back empty is filled by whoever
//! knows. What is revoked here is on the stream in the same step as in the set. All of it is idempotent.
//!
//! The next thing to be shared this way (tables) is another stream and another `Keys` on the same [`Redis`].

mod entry;
mod metrics;
mod redis;
mod settings;

use std::{convert::Infallible, sync::Arc, time::Duration};

use ::redis::RedisError;
use parking_lot::Mutex;
use tokio::time::{self, Instant};

pub use metrics::Metrics;
pub use settings::{OutageRule, SharedMode, SharedSettings};

use crate::{
    net::{
        Clock,
        redis::{Connection, Redis},
    },
    problem::Problem,
    store::{Pending, Revocation, Revocations},
};
use redis::{Event, Id, Keys};

/// Keeps the table of revocations and Redis the same.
#[derive(Debug)]
pub struct Sharer {
    redis: Redis,
    keys: Keys,
    revocations: Arc<Revocations>,
    clock: Arc<Clock>,
    metrics: Metrics,
}

/// Why following ended.
enum End {
    /// The connection is of no use any more.
    Lost(RedisError),
    /// Something may have been missed.
    Gap,
    /// The first entry of a stream that was empty: nothing tells whether there were others before it.
    Begun,
}

impl From<RedisError> for End {
    fn from(error: RedisError) -> Self {
        Self::Lost(error)
    }
}

impl Sharer {
    /// Reads the settings and their secrets, or names every mistake. Contacts nobody.
    pub fn new(
        settings: &SharedSettings,
        revocations: Arc<Revocations>,
        clock: Arc<Clock>,
        metrics: Metrics,
    ) -> Result<Self, Vec<Problem>> {
        let redis = settings.redis()?;
        // From the start, so that nothing is lost that is revoked before the first connection.
        revocations.share();
        Ok(Self { redis, keys: Keys::new(&settings.prefix), revocations, clock, metrics })
    }

    /// Whether Redis is connected, for whoever asks later.
    pub fn connected(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let connected = self.metrics.connected.clone();
        move || connected.get() == 1
    }

    /// Shares as long as the process lives.
    pub async fn run(self) {
        tracing::info!("revocations are shared through Redis");
        let (mut pause, mut told) = (FIRST_PAUSE, false);
        loop {
            let mut since = None;
            let Err(error) = self.connect_and_share(&mut since).await;
            self.metrics.connected.set(0);
            self.metrics.failures.inc();
            if since.is_some_and(|since: Instant| since.elapsed() >= LASTING) {
                (pause, told) = (FIRST_PAUSE, false);
            }
            if !told {
                tracing::warn!(%error, "Redis is lost; what is revoked here is in force here, and told when it is back");
                told = true;
            }
            // Not all at once when it is back.
            time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// `since` becomes when all was read for the first time.
    async fn connect_and_share(&self, since: &mut Option<Instant>) -> Result<Infallible, RedisError> {
        let (mut reader, mut writer) =
            tokio::try_join!(self.redis.connect(BLOCK + PATIENCE), self.redis.connect(PATIENCE))?;
        loop {
            for key in self.keys.mend(&mut writer).await? {
                tracing::error!(key, "held a value of another type, which is removed");
                self.metrics.replaced.inc();
            }
            let seen = Mutex::new(self.catch_up(&mut writer).await?);
            if since.is_none() {
                *since = Some(Instant::now());
                tracing::info!("Redis is connected; all its revocations are in force");
            }
            self.metrics.connected.set(1);
            let end = tokio::select! {
                end = self.follow(&mut reader, writer.clone(), &seen) => end,
                end = self.tell(writer.clone()) => end,
                end = self.watch(writer.clone(), &seen) => end,
            };
            match end {
                Err(End::Lost(error)) => return Err(error),
                Err(End::Gap) => tracing::warn!("revocations may have been missed in Redis: all are read again"),
                Err(End::Begun) => {}
                Ok(never) => match never {},
            }
        }
    }

    /// Reads all that is in force, and the stream to its end: the newest entry.
    async fn catch_up(&self, writer: &mut Connection) -> Result<Id, RedisError> {
        let mut from = None;
        loop {
            let page = self.keys.page(writer, from).await?;
            self.learn(page.revocations, None);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let mut seen = Id::default();
        loop {
            let events = self.keys.read(writer, seen, None).await?;
            let Some(last) = events.last() else { return Ok(seen) };
            seen = last.id;
            self.take(events, writer).await?;
        }
    }

    /// Reads the stream as it grows.
    async fn follow(
        &self,
        reader: &mut Connection,
        mut writer: Connection,
        seen: &Mutex<Id>,
    ) -> Result<Infallible, End> {
        loop {
            let from = *seen.lock();
            let events = self.keys.read(reader, from, Some(BLOCK)).await?;
            self.answered();
            let Some(last) = events.last() else { continue };
            *seen.lock() = last.id;
            let behind_ms = self.clock.now().unix_ms.saturating_sub(last.id.ms);
            self.metrics.lag.set(Duration::from_millis(behind_ms).as_secs_f64());
            self.take(events, &mut writer).await?;
            if from == Id::default() {
                return Err(End::Begun);
            }
            if !self.keys.holds(&mut writer, from).await? {
                return Err(End::Gap);
            }
        }
    }

    /// Puts entries in force, and into the set if their writers have not.
    async fn take(&self, events: Vec<Event>, writer: &mut Connection) -> Result<(), RedisError> {
        let last = events.last().map(|event| event.id);
        let foreign = events.iter().filter(|event| !event.ours);
        let foreign: Vec<Revocation> = foreign.filter_map(|event| event.revocation.clone()).collect();
        self.learn(events.into_iter().map(|event| event.revocation), last);
        if foreign.is_empty() {
            return Ok(());
        }
        match self.keys.keep(writer, &foreign).await {
            Err(error) if is_refusal(&error) => {
                self.metrics.failures.inc();
                tracing::warn!(%error, "Redis does not take revocations into its set");
                Ok(())
            }
            kept => kept,
        }
    }

    /// Puts in force what could be read, up to the entry `last` of the stream, or of the set.
    fn learn(&self, revocations: impl IntoIterator<Item = Option<Revocation>>, last: Option<Id>) {
        let mut malformed = 0_u64;
        for revocation in revocations {
            match revocation {
                Some(revocation) => {
                    self.revocations.learn(revocation);
                    // Who sees it counted can count on it.
                    self.metrics.received.inc();
                }
                None => malformed += 1,
            }
        }
        if malformed > 0 {
            self.metrics.malformed.inc_by(malformed);
            let last = last.map_or_else(|| "in the sorted set".to_owned(), |id| id.to_string());
            tracing::warn!(malformed, last, "malformed revocations in Redis are ignored");
        }
    }

    /// Writes all that is known here, and then what is revoked here. While Redis takes no writes (no memory,
    /// no right) it is still read.
    async fn tell(&self, mut writer: Connection) -> Result<Infallible, End> {
        let (mut pause, mut everything) = (FIRST_PAUSE, true);
        loop {
            let some = match everything {
                true => self.everything(),
                false => match self.revocations.pending().await {
                    Pending::These(some) => some,
                    Pending::Everything => self.everything(),
                },
            };
            match self.keys.tell(&mut writer, &some, self.clock.now().unix()).await {
                Ok(told) => {
                    self.metrics.published.inc_by(told);
                    (pause, everything) = (FIRST_PAUSE, false);
                }
                Err(error) if !is_refusal(&error) => return Err(error.into()),
                Err(error) => {
                    self.metrics.failures.inc();
                    tracing::warn!(%error, "Redis takes no revocations; tried again");
                    everything = true;
                    time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn everything(&self) -> Vec<Revocation> {
        let mut all = Vec::new();
        self.revocations.for_each(|revocation| all.push(revocation));
        all
    }

    /// Asks now and then whether Redis is there, and whether it still has what was read.
    async fn watch(&self, mut writer: Connection, seen: &Mutex<Id>) -> Result<Infallible, End> {
        loop {
            time::sleep(WATCH_EVERY).await;
            // Read before the question: the answer cannot be older then.
            let seen = *seen.lock();
            if !self.keys.is_sound(&mut writer, seen).await? {
                return Err(End::Gap);
            }
            self.answered();
        }
    }

    fn answered(&self) {
        self.metrics.last_answer.set(Duration::from_millis(self.clock.now().unix_ms).as_secs_f64());
    }
}

/// Whether Redis is there and only refuses to write: no right, no memory, no disk, no replica. Reading goes on
/// then; anything else asks for another connection, where wrong types are mended and masters found.
fn is_refusal(error: &RedisError) -> bool {
    error.code().is_some_and(|code| matches!(code, "NOPERM" | "OOM" | "MISCONF" | "NOREPLICAS"))
}

/// Longest time that a read waits for an entry.
const BLOCK: Duration = Duration::from_secs(1);

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Between attempts; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A connection that held so long was good: the next one is tried for at once.
const LASTING: Duration = Duration::from_secs(5);
