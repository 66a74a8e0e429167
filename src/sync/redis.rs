//! What is asked of Redis about revocations: few commands, each with an answer that is read by hand, so
//! that no odd content under our keys is more than a malformed entry.

use std::time::Duration;

use redis::{Cmd, RedisError, RedisResult, Value, cmd, pipe};

use super::entry;
use crate::{net::redis::Connection, store::Revocation};

/// The names of our keys.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) stream: String,
    /// In a cluster both keys lie on one node: the tag of this one is the name of the other.
    pub(super) set: String,
}

/// The id of a stream's entry. Never goes back while the stream is the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) ms: u64,
    seq: u64,
}

/// An entry of the stream.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) id: Id,
    /// None: it is malformed.
    pub(super) revocation: Option<Revocation>,
    /// Written by one of us, who has put it into the set too.
    pub(super) ours: bool,
}

/// One page of the set.
#[derive(Debug)]
pub(super) struct Page {
    /// Where to go on; none after the last page.
    pub(super) next: Option<Vec<u8>>,
    /// None for each that is malformed.
    pub(super) revocations: Vec<Option<Revocation>>,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        let stream = format!("{prefix}revocations");
        Self { set: format!("{stream}:live:{{{stream}}}"), stream }
    }

    /// Removes what is under our keys and is no stream and no sorted set. Gives back the keys removed.
    pub(super) async fn mend(&self, connection: &mut Connection) -> RedisResult<Vec<&str>> {
        let mut removed = Vec::new();
        for (key, wanted) in [(&self.stream, "stream"), (&self.set, "zset")] {
            let kind: String = cmd("TYPE").arg(key).query_async(connection).await?;
            if kind != wanted && kind != "none" {
                cmd("DEL").arg(key).query_async::<()>(connection).await?;
                removed.push(&**key);
            }
        }
        Ok(removed)
    }

    /// Entries after `after`, oldest first, waiting for one up to `wait`.
    pub(super) async fn read(
        &self,
        connection: &mut Connection,
        after: Id,
        wait: Option<Duration>,
    ) -> RedisResult<Vec<Event>> {
        let mut command = cmd("XREAD");
        command.arg("COUNT").arg(PAGE);
        if let Some(wait) = wait {
            command.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        command.arg("STREAMS").arg(&self.stream).arg(after.to_string());
        let streams = match query(&command, connection).await? {
            Value::Nil => return Ok(Vec::new()),
            Value::Array(streams) => streams,
            _ => return Err(odd()),
        };
        let Some(Value::Array(stream)) = streams.into_iter().next() else { return Err(odd()) };
        let Some(Value::Array(entries)) = stream.into_iter().nth(1) else { return Err(odd()) };
        entries.into_iter().map(event).collect()
    }

    /// Whether the entry `id` is still in the stream: if so, nothing after it was lost.
    pub(super) async fn holds(&self, connection: &mut Connection, id: Id) -> RedisResult<bool> {
        let mut command = cmd("XRANGE");
        command.arg(&self.stream).arg(id.to_string()).arg(id.to_string());
        Ok(!matches!(query(&command, connection).await?, Value::Array(found) if found.is_empty()))
    }

    /// Whether Redis still has what was read until `seen`, and our keys hold what they should.
    pub(super) async fn is_sound(&self, connection: &mut Connection, seen: Id) -> RedisResult<bool> {
        let mut commands = pipe();
        commands.cmd("XREVRANGE").arg(&self.stream).arg("+").arg("-").arg("COUNT").arg(1);
        commands.cmd("TYPE").arg(&self.set);
        let (newest, kind): (Value, String) = commands.query_async(connection).await?;
        let Value::Array(newest) = newest else { return Err(odd()) };
        let newest = newest.into_iter().next().map_or(Ok(Id::default()), |it| Ok::<_, RedisError>(event(it)?.id))?;
        Ok(newest >= seen && matches!(&*kind, "zset" | "none"))
    }

    /// A page of the set, from the start or where another ended. Whatever is in the set all the time is on
    /// some page.
    pub(super) async fn page(&self, connection: &mut Connection, from: Option<Vec<u8>>) -> RedisResult<Page> {
        let mut command = cmd("ZSCAN");
        command.arg(&self.set).arg(from.as_deref().unwrap_or(b"0")).arg("COUNT").arg(PAGE);
        let Value::Array(answer) = query(&command, connection).await? else { return Err(odd()) };
        let mut answer = answer.into_iter();
        let (Some(Value::BulkString(next)), Some(Value::Array(members))) = (answer.next(), answer.next()) else {
            return Err(odd());
        };
        let revocations = members.iter().step_by(2).map(|member| entry::read(bytes(member)?)).collect();
        Ok(Page { next: Some(next).filter(|next| next != b"0"), revocations })
    }

    /// Puts entries into the set, and those that were not in it onto the stream: how many those are. What
    /// has expired long ago leaves the set.
    pub(super) async fn tell(
        &self,
        connection: &mut Connection,
        revocations: &[Revocation],
        now_s: u64,
    ) -> RedisResult<u64> {
        let mut told = 0;
        for some in revocations.chunks(CHUNK) {
            let mut command = cmd("EVAL");
            command.arg(TELL).arg(2).arg(&self.stream).arg(&self.set);
            command.arg(STREAM_LENGTH).arg(now_s.saturating_sub(KEPT_S));
            for revocation in some {
                command.arg(entry::score(revocation)).arg(entry::write(revocation));
            }
            told += command.query_async::<u64>(connection).await?;
        }
        Ok(told)
    }

    /// Puts entries of others into the set, where they only wrote to the stream.
    pub(super) async fn keep(&self, connection: &mut Connection, revocations: &[Revocation]) -> RedisResult<()> {
        let mut commands = pipe();
        for revocation in revocations {
            let (score, member) = (entry::score(revocation), entry::write(revocation));
            commands.cmd("ZADD").arg(&self.set).arg("GT").arg(score).arg(member).ignore();
        }
        commands.query_async(connection).await
    }
}

impl Id {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (ms, seq) = std::str::from_utf8(bytes).ok()?.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

async fn query(command: &Cmd, connection: &mut Connection) -> RedisResult<Value> {
    command.query_async(connection).await
}

/// An entry of a stream's answer. Its fields are what anyone may have written.
fn event(entry: Value) -> RedisResult<Event> {
    let Value::Array(parts) = entry else { return Err(odd()) };
    let (Some(id), fields) = (parts.first().and_then(bytes).and_then(Id::read), parts.get(1)) else {
        return Err(odd());
    };
    let fields = match fields {
        Some(Value::Array(fields)) => fields.as_slice(),
        _ => &[],
    };
    let (mut revocations, mut ours, mut known) = (Vec::new(), false, true);
    for pair in fields.chunks(2) {
        match pair {
            [name, value] if bytes(name) == Some(b"revocation") => revocations.push(bytes(value).and_then(entry::read)),
            [name, _] if bytes(name) == Some(b"by") => ours = true,
            _ => known = false,
        }
    }
    let revocation = match &mut *revocations {
        [one] if known => one.take(),
        _ => None,
    };
    Ok(Event { id, revocation, ours })
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn odd() -> RedisError {
    (redis::ErrorKind::UnexpectedReturnType, "not what this command answers").into()
}

/// In one step, so that what is in the set has been on the stream.
const TELL: &str = "\
local told = 0
for i = 3, #ARGV, 2 do
  if redis.call('ZADD', KEYS[2], 'GT', 'CH', ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'revocation', ARGV[i + 1], 'by', 'tollgate')
    told = told + 1
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[2])
return told";

/// Entries that the stream keeps, about. Whoever was away for more reads the set.
const STREAM_LENGTH: u32 = 10_000;

/// Entries read at once.
const PAGE: u32 = 500;

/// Entries written at once.
const CHUNK: usize = 200;

/// How long an expired entry is kept in the set: more than any leeway and any difference of clocks.
const KEPT_S: u64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn ids_are_read_written_and_in_order() {
        let id = |text: &str| Id::read(text.as_bytes());
        assert!(id("9-2") < id("9-10") && id("9-10") < id("10-0"));
        assert_eq!(id("1764037184000-3").map(|id| id.to_string()).as_deref(), Some("1764037184000-3"));
        for bad in ["", "1", "1-", "-1", "a-1", "1-1-1"] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }

    #[test]
    fn odd_fields_are_malformed_and_odd_answers_are_errors() {
        let good = r#"{"issuer":"i","jti":"a"}"#;
        for (fields, read, ours) in [
            (&["revocation", good][..], true, false),
            (&["revocation", good, "by", "tollgate"], true, true),
            (&["by", "x", "revocation", good], true, true),
            (&["revocation", good, "revocation", good], false, false),
            (&["revocation", good, "other", "x"], false, false),
            (&["revocation", good, "by"], false, false),
            (&["revocation", "{"], false, false),
            (&[], false, false),
        ] {
            let entry = Value::Array(vec![text("5-1"), Value::Array(fields.iter().map(|it| text(it)).collect())]);
            let event = event(entry).unwrap();
            assert_eq!((event.revocation.is_some(), event.ours), (read, ours), "{fields:?}");
        }
        assert!(event(Value::Nil).is_err());
        assert!(event(Value::Array(vec![text("x"), Value::Array(vec![])])).is_err());
        // A deleted entry has no fields.
        assert!(event(Value::Array(vec![text("5-1"), Value::Nil])).is_ok_and(|it| it.revocation.is_none()));
    }

    #[test]
    fn both_keys_lie_on_one_node_of_a_cluster() {
        let keys = Keys::new("tollgate:");
        let tag = keys.set.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
        assert_eq!(tag, Some(&*keys.stream));
        assert!(keys.set.starts_with("tollgate:") && !keys.stream.contains('{'));
    }
}
