//! What is asked of Redis: two scripts, the names of keys, and answers read by hand.
//!
//! Each limit is, for each window, one hash that expires a minute after the window: a field for each sidecar, and
//! their sum in `t`. A sidecar tells its own field as an absolute number and Redis keeps the larger, so that a command
//! that is sent twice, or whose answer was lost, changes nothing. What is no such hash under our keys is removed, and is
//! a loss: an epoch begins.
//!
//! What sidecars that are gone have counted is in no field that is told again. So each tells the sum beside it that it
//! heard last, and of which data: `b` says when those there now began, with what sum, and in which epoch. Where they are
//! others, the sum they began with is the largest that anyone heard of, and what each has counted since comes on top.
//! Of an older epoch the sum is kept, and no field: what one held then may be another's since.
//! Shares that were given back after it was heard count in it: after a loss less is admitted rather than more.
//!
//! A command that comes late (a partition ends, and a connection that was given up delivers what it still held) could
//! undo what a later one has done. So each carries the time, by Redis's own clock, after which it is not done.
//!
//! `epoch` says since when Redis has had its data, in microseconds, and which server had them then: the first command
//! over a connection compares. While that is less than [`SETTLE_MS`] ago no share is handed out and nothing is counted by
//! request: whoever holds something tells it first. Where a server does not say which it is, only one that is empty is
//! noticed.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{Cmd, RedisError, RedisResult, Value, cmd};

use super::cell::{Answer, Before, Cell, Form, Line, Seen};
use crate::net::redis::Connection;

/// How our keys are called, and which may be used together.
#[derive(Debug)]
pub(super) struct Names {
    prefix: String,
    is_cluster: bool,
    /// This process's field.
    pub(super) node: String,
}

/// What Redis said of its data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    /// It has had them for too short a time: what others hold may be missing.
    pub(super) settling: bool,
    /// It was asked which server it is, and does not say.
    pub(super) nameless: bool,
    /// Since when it has had them, by its own clock, in microseconds.
    pub(super) epoch: u64,
    /// Keys with something else in them, which were removed.
    pub(super) replaced: u64,
    /// Its clock, in milliseconds.
    pub(super) clock_ms: u64,
}

/// One limit of a request that Redis counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    /// This sidecar's field, at least.
    pub(super) mine: u64,
    /// None: it does not refuse.
    pub(super) limit: Option<u64>,
    /// How much; less than nothing gives back.
    pub(super) amount: i64,
    pub(super) ttl_ms: u64,
    pub(super) form: Form,
    /// The limit, also where it does not refuse.
    pub(super) size: u64,
    /// What Redis said last.
    pub(super) seen: Seen,
}

/// What became of a request that Redis counts.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) state: State,
    /// Place of the limit that had no room. Then nothing was counted.
    pub(super) refused: Option<usize>,
    pub(super) answers: Vec<Answer>,
}

impl Names {
    pub(super) fn new(prefix: &str, is_cluster: bool) -> Self {
        let node = URL_SAFE_NO_PAD.encode(fastrand::u64(..).to_be_bytes());
        Self { prefix: prefix.to_owned(), is_cluster, node }
    }

    /// Which keys one script may use: all, or in a cluster those of one slot.
    pub(super) const fn group(&self, cell: &Cell) -> u8 {
        self.group_of(cell.key)
    }

    /// The group of a counter.
    pub(super) const fn group_of(&self, key: u128) -> u8 {
        if self.is_cluster { tag(key) } else { 0 }
    }

    /// All groups.
    pub(super) const fn groups(&self) -> std::ops::Range<u8> {
        if self.is_cluster { 0..TAGS } else { 0..1 }
    }

    /// The cell's key, and of a sliding window the former's. Of a bucket it says into how many parts a request is
    /// divided there, which depends on the limit.
    pub(super) fn keys(&self, cell: &Cell, form: Form) -> impl Iterator<Item = String> + use<> {
        let key = URL_SAFE_NO_PAD.encode(cell.key.to_be_bytes());
        let begin = format!("{}count:{{{:02x}}}:{key}:", self.prefix, tag(cell.key));
        let number = u64::from(cell.number);
        let numbers = match form {
            Form::Fixed => [Some(number), None],
            Form::Sliding { .. } => [Some(number), Some(number.saturating_sub(1))],
            Form::Bucket { parts, .. } => [Some(parts), None],
        };
        numbers.into_iter().flatten().map(move |number| format!("{begin}{number}"))
    }

    /// How many keys a script has, with the epoch's, and which.
    fn add_keys<'a>(&self, command: &mut Cmd, group: u8, cells: impl Iterator<Item = (&'a Cell, Form)>) {
        let keys: Vec<String> = cells.flat_map(|(cell, form)| self.keys(cell, form)).collect();
        command.arg(keys.len() + 1).arg(self.epoch(group)).arg(&keys);
    }

    fn epoch(&self, group: u8) -> String {
        match self.is_cluster {
            true => format!("{}count:{{{group:02x}}}:epoch", self.prefix),
            false => format!("{}count:epoch", self.prefix),
        }
    }

    /// Tells and asks, for cells of one group. With none it only asks for the state.
    pub(super) async fn exchange<'a>(
        &self,
        connection: &mut Connection,
        group: u8,
        until_ms: u64,
        lines: impl ExactSizeIterator<Item = (&'a Cell, &'a Line)> + Clone,
    ) -> RedisResult<(State, Vec<Answer>)> {
        let fill = |command: &mut Cmd| {
            self.add_keys(command, group, lines.clone().map(|(cell, line)| (cell, line.form)));
            command.arg(&self.node).arg(SETTLE_MS).arg(until_ms);
            for (_, line) in lines.clone() {
                command.arg(line.have).arg(line.want).arg(line.back).arg(line.limit).arg(line.ttl_ms);
                add_form(command, line.form, line.limit, line.seen);
            }
        };
        let said = run(connection, &EXCHANGE, fill).await?;
        let (state, said) = state(&said)?;
        let mut said = said.iter().copied();
        let answer = |(_, line): (_, &Line)| {
            let (mine, total, nodes) = (said.next()?, said.next()?, said.next()?);
            let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
            let birth = birth(line.form, &mut said)?;
            Some(Answer { mine, total, nodes, birth, before: before(line.form, &mut said)? })
        };
        let answers: Option<Vec<Answer>> = lines.map(answer).collect();
        answers.filter(|_| said.next().is_none()).map(|answers| (state, answers)).ok_or_else(odd)
    }

    /// Counts a request at all its limits of one group, or at none.
    pub(super) async fn count(
        &self,
        connection: &mut Connection,
        group: u8,
        until_ms: u64,
        counts: &[(&Cell, Count)],
    ) -> RedisResult<Counted> {
        let fill = |command: &mut Cmd| {
            self.add_keys(command, group, counts.iter().map(|(cell, count)| (*cell, count.form)));
            command.arg(&self.node).arg(SETTLE_MS).arg(until_ms);
            for (_, count) in counts {
                command.arg(count.mine);
                match count.limit {
                    Some(limit) => command.arg(limit),
                    None => command.arg(-1),
                };
                command.arg(count.amount).arg(count.ttl_ms);
                add_form(command, count.form, count.size, count.seen);
            }
        };
        let said = run(connection, &COUNT, fill).await?;
        let (state, said) = state(&said)?;
        let Some((refused, said)) = said.split_first() else { return Err(odd()) };
        let refused = usize::try_from(*refused).ok().and_then(|place| place.checked_sub(1));
        if state.settling {
            return Ok(Counted { state, refused, answers: Vec::new() });
        }
        let mut said = said.iter().copied();
        let answer = |(_, count): &(_, Count)| {
            let (mine, total) = (said.next()?, said.next()?);
            let birth = birth(count.form, &mut said)?;
            Some(Answer { mine, total, nodes: 0, birth, before: before(count.form, &mut said)? })
        };
        let answers: Option<Vec<Answer>> = counts.iter().map(answer).collect();
        let answers = answers.filter(|_| said.next().is_none()).ok_or_else(odd)?;
        Ok(Counted { state, refused, answers })
    }
}

/// What depends on the algorithm: its number in the scripts, and what they need.
fn add_form(command: &mut Cmd, form: Form, limit: u64, seen: Seen) {
    let Seen { birth, mine, total } = seen;
    match form {
        Form::Fixed => command.arg(0).arg(birth).arg(mine).arg(total),
        Form::Sliding { left, length } => command.arg(1).arg(left).arg(length).arg(birth).arg(mine).arg(total),
        Form::Bucket { told, content, length_ms, parts } => {
            command.arg(2).arg(told).arg(content).arg(length_ms).arg(parts).arg(limit)
        }
    };
}

/// When the data of a window began; a bucket has no such number.
fn birth(form: Form, said: &mut impl Iterator<Item = u64>) -> Option<u64> {
    match form {
        Form::Fixed | Form::Sliding { .. } => said.next(),
        Form::Bucket { .. } => Some(0),
    }
}

/// Two numbers more of the window before a sliding one.
fn before(form: Form, said: &mut impl Iterator<Item = u64>) -> Option<Before> {
    match form {
        Form::Sliding { .. } => Some(Before { others: said.next()?, counts: said.next()? }),
        Form::Fixed | Form::Bucket { .. } => Some(Before::default()),
    }
}

/// One of 64 parts, by the key: in a cluster each lies in one slot.
const fn tag(key: u128) -> u8 {
    (key >> 122) as u8
}

const TAGS: u8 = 64;

/// A script and what Redis calls it.
struct Script {
    text: String,
    sha: String,
}

impl Script {
    fn new(body: &str) -> Self {
        let text = format!("{BEGIN}{body}");
        // Redis's name for a script; nothing here relies on it being hard to find another.
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let sha = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, sha }
    }
}

/// By its name; with its text where Redis does not know it.
async fn run(connection: &mut Connection, script: &Script, fill: impl Fn(&mut Cmd)) -> RedisResult<Vec<u64>> {
    let mut command = cmd("EVALSHA");
    command.arg(&script.sha);
    fill(&mut command);
    let said = match command.query_async::<Value>(connection).await {
        Err(error) if error.code() == Some("NOSCRIPT") => {
            let mut command = cmd("EVAL");
            command.arg(&script.text);
            fill(&mut command);
            command.query_async::<Value>(connection).await?
        }
        said => said?,
    };
    let Value::Array(said) = said else { return Err(odd()) };
    said.iter().map(number).collect()
}

fn number(value: &Value) -> RedisResult<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| odd()),
        _ => Err(odd()),
    }
}

fn state(said: &[u64]) -> RedisResult<(State, &[u64])> {
    match said {
        [marks, replaced, epoch, clock_ms, rest @ ..] => {
            let (settling, nameless) = (marks & SETTLING != 0, marks & NAMELESS != 0);
            let state = State { settling, nameless, epoch: *epoch, replaced: *replaced, clock_ms: *clock_ms };
            Ok((state, rest))
        }
        _ => Err(odd()),
    }
}

fn odd() -> RedisError {
    (redis::ErrorKind::UnexpectedReturnType, "not what this script answers").into()
}

/// How long a Redis without our epoch, or with a new one, is told what sidecars hold before it hands out anything.
pub(super) const SETTLE_MS: u64 = 2_000;

/// What the first number of an answer is made of.
const SETTLING: u64 = 1;
const NAMELESS: u64 = 2;

static EXCHANGE: LazyLock<Script> = LazyLock::new(|| Script::new(EXCHANGE_BODY));
static COUNT: LazyLock<Script> = LazyLock::new(|| Script::new(COUNT_BODY));

/// KEYS: the epoch, then the limits, after a sliding one its former window. ARGV: this sidecar's field, the time to
/// settle, until when it is done (0: always, and the server is looked at), then what each script says of each limit, and
/// what depends on the algorithm: 0; or 1, the rest of the window and its length; after both when the data began that
/// this sidecar heard of last, and its field and the sum then; or 2, how much of this sidecar's amount it has told, what
/// was in the bucket then, in how many milliseconds a full one runs out, the parts of a request, and how many requests
/// it holds.
///
/// A bucket is a hash, too: `c` its content in parts, rounded up, at the time `a`, and the fields of those who have told
/// something in this hour, `r`. Where they are forgotten, what a sidecar says that it has told is believed. What
/// sidecars know of the content is believed as far as it is not older than a second, or all of it while the data are new.
const BEGIN: &str = include_str!("begin.lua");

/// For each limit: at least so much is ours, so much more is wanted, so much goes back, limit, time to live.
const EXCHANGE_BODY: &str = include_str!("exchange.lua");

/// For each limit: at least so much is ours, limit or -1, amount, time to live.
const COUNT_BODY: &str = include_str!("count.lua");
