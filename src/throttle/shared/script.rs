//! What is asked of Redis: two scripts, the names of keys, and answers read by hand.
//!
//! Each limit is, for each window, one hash that expires a minute after the window: a field for each sidecar, and
//! their sum in `t`. A sidecar tells its own field as an absolute number and Redis keeps the larger, so that a command
//! that is sent twice, or whose answer was lost, changes nothing. What is no such hash under our keys is removed.
//!
//! A command that comes late (a partition ends, and a connection that was given up delivers what it still held) could
//! undo what a later one has done. So each carries the time, by Redis's own clock, after which it is not done.
//!
//! `epoch` says since when Redis has had its data. While that is less than [`SETTLE_MS`] ago no share is handed out and
//! nothing is counted by request: whoever holds something tells it first.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{Cmd, RedisError, RedisResult, Value, cmd};

use super::cell::{Answer, Cell, Line};
use crate::net::redis::Connection;

/// How our keys are called, and which may be used together.
#[derive(Debug)]
pub(super) struct Names {
    prefix: String,
    is_cluster: bool,
    /// This process's field.
    node: String,
}

/// What Redis said of its data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    /// It has had them for too short a time: what others hold may be missing.
    pub(super) settling: bool,
    /// Since when it has had them, by its own clock.
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

    fn key(&self, cell: &Cell) -> String {
        let key = URL_SAFE_NO_PAD.encode(cell.key.to_be_bytes());
        format!("{}count:{{{:02x}}}:{key}:{}", self.prefix, tag(cell.key), cell.number)
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
        let count = lines.len();
        let fill = |command: &mut Cmd| {
            command.arg(count + 1).arg(self.epoch(group));
            lines.clone().for_each(|(cell, _)| _ = command.arg(self.key(cell)));
            command.arg(&self.node).arg(SETTLE_MS).arg(until_ms);
            for (_, line) in lines.clone() {
                command.arg(line.have).arg(line.want).arg(line.back).arg(line.limit).arg(line.ttl_ms);
            }
        };
        let said = run(connection, &EXCHANGE, fill).await?;
        let (state, said) = state(&said)?;
        if said.len() != 3 * count {
            return Err(odd());
        }
        let answers = said.chunks_exact(3).map(|said| Answer {
            mine: said[0],
            total: said[1],
            nodes: u32::try_from(said[2]).unwrap_or(u32::MAX),
        });
        Ok((state, answers.collect()))
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
            command.arg(counts.len() + 1).arg(self.epoch(group));
            counts.iter().for_each(|(cell, _)| _ = command.arg(self.key(cell)));
            command.arg(&self.node).arg(SETTLE_MS).arg(until_ms);
            for (_, count) in counts {
                command.arg(count.mine);
                match count.limit {
                    Some(limit) => command.arg(limit),
                    None => command.arg(-1),
                };
                command.arg(count.amount).arg(count.ttl_ms);
            }
        };
        let said = run(connection, &COUNT, fill).await?;
        let (state, said) = state(&said)?;
        let Some((refused, said)) = said.split_first() else { return Err(odd()) };
        if !state.settling && said.len() != 2 * counts.len() {
            return Err(odd());
        }
        let answers = said.chunks_exact(2).map(|said| Answer { mine: said[0], total: said[1], nodes: 0 });
        let refused = usize::try_from(*refused).ok().and_then(|place| place.checked_sub(1));
        Ok(Counted { state, refused, answers: answers.collect() })
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
        [settling, replaced, epoch, clock_ms, rest @ ..] => {
            let state = State { settling: *settling == 1, epoch: *epoch, replaced: *replaced, clock_ms: *clock_ms };
            Ok((state, rest))
        }
        _ => Err(odd()),
    }
}

fn odd() -> RedisError {
    (redis::ErrorKind::UnexpectedReturnType, "not what this script answers").into()
}

/// How long a Redis without our epoch is told what sidecars hold before it hands out anything.
const SETTLE_MS: u64 = 2_000;

static EXCHANGE: LazyLock<Script> = LazyLock::new(|| Script::new(EXCHANGE_BODY));
static COUNT: LazyLock<Script> = LazyLock::new(|| Script::new(COUNT_BODY));

/// KEYS: the epoch, then the limits. ARGV: this sidecar's field, the time to settle, until when it is done (0: always),
/// then what each script says.
const BEGIN: &str = "\
local node, replaced = ARGV[1], 0
local function number(text)
  local n = tonumber(text)
  if n and n >= 0 and n < 9007199254740992 then return math.floor(n) end
end
local function remove(key)
  redis.call('DEL', key)
  replaced = replaced + 1
end
local function read(key)
  local hash = redis.pcall('HMGET', key, node, 't')
  if hash.err then
    remove(key)
    return 0, 0
  end
  local mine, total = number(hash[1]), number(hash[2])
  if (hash[1] and not mine) or (hash[2] and not total) then
    remove(key)
    return 0, 0
  end
  mine = mine or 0
  return mine, math.max(total or 0, mine)
end
local function write(key, mine, total, ttl)
  redis.call('HSET', key, node, string.format('%.0f', mine), 't', string.format('%.0f', total))
  redis.call('PEXPIRE', key, ttl)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(ARGV[3]) > 0 and now > tonumber(ARGV[3]) then
  return redis.error_reply('LATE the command came after its time')
end
local epoch = redis.pcall('GET', KEYS[1])
if type(epoch) == 'table' then
  remove(KEYS[1])
  epoch = nil
end
epoch = epoch and number(epoch)
if not epoch then
  redis.call('SET', KEYS[1], string.format('%.0f', now))
  epoch = now
end
local age = now - epoch
local settling = age >= 0 and age < tonumber(ARGV[2])
local out = {settling and 1 or 0, 0, epoch, now}
";

/// For each limit: at least so much is ours, so much more is wanted, so much goes back, limit, time to live.
const EXCHANGE_BODY: &str = "\
for i = 2, #KEYS do
  local at = 4 + (i - 2) * 5
  local have, want, back = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local limit, ttl = tonumber(ARGV[at + 3]), ARGV[at + 4]
  local mine, total = read(KEYS[i])
  local before = mine
  if mine < have then
    total = total + have - mine
    mine = have
  end
  if back > 0 then
    if mine == have then
      mine = mine - back
      total = total - back
    end
  elseif not settling then
    local more = math.min(want - (mine - have), limit - total)
    if more > 0 then
      mine = mine + more
      total = total + more
    end
  end
  if mine ~= before then write(KEYS[i], mine, total, ttl) end
  local nodes = 0
  if want > 0 then nodes = math.max(redis.call('HLEN', KEYS[i]) - 1, 1) end
  out[#out + 1], out[#out + 2], out[#out + 3] = mine, total, nodes
end
out[2] = replaced
return out
";

/// For each limit: at least so much is ours, limit or -1, amount, time to live.
const COUNT_BODY: &str = "\
out[5] = 0
if settling then
  out[2] = replaced
  return out
end
local known = {}
for i = 2, #KEYS do
  local at = 4 + (i - 2) * 4
  local have, limit = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local mine, total = read(KEYS[i])
  if mine < have then
    total = total + have - mine
    mine = have
  end
  known[i] = {mine, total}
  if out[5] == 0 and limit >= 0 and total >= limit then out[5] = i - 1 end
end
for i = 2, #KEYS do
  local at = 4 + (i - 2) * 4
  local mine, total = known[i][1], known[i][2]
  if out[5] == 0 then
    local amount = math.max(tonumber(ARGV[at + 2]), -mine)
    mine, total = mine + amount, total + amount
    write(KEYS[i], mine, total, ARGV[at + 3])
  end
  out[#out + 1], out[#out + 2] = mine, total
end
out[2] = replaced
return out
";
