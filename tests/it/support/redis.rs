//! A Redis of a few commands over a socket (RESP2): a stream, a sorted set and counters, and every way of being away.
//! The scripts that Tollgate sends are not run but done; what they must do is held by real servers in
//! `tests/interop/redis.sh` and `throttle.sh`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::watch,
    task::JoinSet,
    time::Instant,
};

use super::{
    counters::{Counters, Kept},
    runtime,
};

/// A server on a loopback port.
pub(crate) struct Redis {
    port: u16,
    data: Arc<Mutex<Data>>,
    up: watch::Sender<Up>,
    /// How late each answer is sent.
    lag: watch::Sender<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Up {
    Serving,
    /// Takes connections and commands, answers nothing.
    Hanging,
    /// Takes no connections, has cut those it had.
    Gone,
}

#[derive(Default)]
struct Data {
    stream: Vec<Entry>,
    next: u64,
    set: BTreeMap<Vec<u8>, f64>,
    /// Keys that hold a string instead.
    spoiled: Vec<String>,
    password: Option<String>,
    writes_refused: bool,
    /// What still comes over a connection that is cut changes nothing.
    gone: bool,
    counters: Counters,
}

#[derive(Clone)]
struct Entry {
    id: (u64, u64),
    fields: Vec<Vec<u8>>,
}

enum Reply {
    Status(&'static str),
    Error(&'static str),
    Number(i64),
    Bulk(Vec<u8>),
    List(Vec<Self>),
    Nil,
}

use Reply::{Bulk, Error, List, Nil, Number, Status};

impl Redis {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let data = Arc::new(Mutex::new(Data { next: 1, ..Data::default() }));
        let (up, lag) = (watch::Sender::new(Up::Serving), watch::Sender::new(Duration::ZERO));
        runtime().spawn(serve(listener, Arc::clone(&data), up.subscribe(), lag.subscribe()));
        Self { port, data, up, lag }
    }

    /// `[shared]` that leads here, with further lines.
    pub(crate) fn shared(&self, more: &str) -> String {
        format!("\n[shared]\nredis = \"redis://127.0.0.1:{}\"\n{more}\n", self.port)
    }

    /// Adds to the stream, as an operator would: names and values in turn.
    pub(crate) fn add(&self, fields: &[&[u8]]) {
        self.data.lock().add(fields.iter().map(|field| field.to_vec()).collect());
    }

    /// Adds the documented entry.
    pub(crate) fn revoke(&self, revocation: &serde_json::Value) {
        self.add(&[b"revocation", revocation.to_string().as_bytes()]);
    }

    /// Keeps the newest entries of the stream, so many.
    pub(crate) fn trim(&self, keep: usize) {
        let stream = &mut self.data.lock().stream;
        let gone = stream.len().saturating_sub(keep);
        stream.drain(..gone);
    }

    /// Members of the set.
    pub(crate) fn members(&self) -> Vec<String> {
        self.data.lock().set.keys().map(|member| String::from_utf8_lossy(member).into_owned()).collect()
    }

    /// Refuses connections and cuts those there are; what it holds is lost.
    pub(crate) fn kill(&self) {
        self.up.send_replace(Up::Gone);
        let mut data = self.data.lock();
        data.gone = true;
        data.stream.clear();
        data.set.clear();
        data.counters.lose();
    }

    /// `FLUSHALL`: counters are lost while all stay connected; `spoiled`: each is overwritten with a string, and once that
    /// is found Redis settles, until it is told otherwise.
    pub(crate) fn lose_counters(&self, spoiled: bool) {
        let counters = &mut self.data.lock().counters;
        if spoiled { counters.spoil() } else { counters.lose() }
    }

    /// What counters hold now.
    pub(crate) fn save(&self) -> Kept {
        self.data.lock().counters.save()
    }

    /// Refuses connections and cuts those there are; its counters are those of then, as of a server that begins with an
    /// older snapshot.
    pub(crate) fn kill_back_to(&self, kept: Kept) {
        self.up.send_replace(Up::Gone);
        let mut data = self.data.lock();
        data.gone = true;
        data.counters.load(kept);
    }

    /// Whether it has its data for too short a time to hand out shares.
    pub(crate) fn settling(&self, settling: bool) {
        self.data.lock().counters.settling = settling;
    }

    /// From now on it does not say which server it is.
    pub(crate) fn nameless(&self) {
        self.data.lock().counters.nameless = true;
    }

    /// What all counters together hold.
    pub(crate) fn counted(&self) -> u64 {
        self.data.lock().counters.total()
    }

    /// How many exchanges of counters there were, and questions of single requests.
    pub(crate) fn asked(&self) -> [u64; 2] {
        self.data.lock().counters.asked
    }

    /// Answers nobody from now on.
    pub(crate) fn hang(&self) {
        self.up.send_replace(Up::Hanging);
    }

    /// From now on does what it is told at once, and answers so much later.
    pub(crate) fn lag(&self, lag: Duration) {
        self.lag.send_replace(lag);
    }

    /// Its clock is so many seconds ahead of this machine's.
    pub(crate) fn set_clock_ahead(&self, seconds: u64) {
        self.data.lock().counters.ahead_ms = seconds * 1_000;
    }

    /// Is there again.
    pub(crate) fn resume(&self) {
        self.data.lock().gone = false;
        self.up.send_replace(Up::Serving);
    }

    /// The stream's, or the set's, key holds a string now.
    pub(crate) fn spoil(&self, key: &str) {
        let mut data = self.data.lock();
        data.spoiled.push(key.to_owned());
        if key == STREAM {
            data.stream.clear();
        } else {
            data.set.clear();
        }
    }

    pub(crate) fn is_spoiled(&self) -> bool {
        !self.data.lock().spoiled.is_empty()
    }

    /// From now on a password is needed.
    pub(crate) fn password(&self, password: &str) {
        self.data.lock().password = Some(password.to_owned());
    }

    /// Whether it is out of memory: writes are refused.
    pub(crate) fn refuse_writes(&self, refused: bool) {
        self.data.lock().writes_refused = refused;
    }
}

/// Tollgate's keys.
pub(crate) const STREAM: &str = "tollgate:revocations";
pub(crate) const SET: &str = "tollgate:revocations:live:{tollgate:revocations}";

async fn serve(
    listener: std::net::TcpListener,
    data: Arc<Mutex<Data>>,
    mut up: watch::Receiver<Up>,
    lag: watch::Receiver<Duration>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // One that is gone hangs up at once, which is as good as refusing.
                if let (Ok((socket, _)), true) = (accepted, *up.borrow() != Up::Gone) {
                    connections.spawn(talk(socket, Arc::clone(&data), up.clone(), lag.clone()));
                }
            }
            changed = up.changed() => {
                if changed.is_err() {
                    return;
                }
                if *up.borrow() == Up::Gone {
                    connections.shutdown().await;
                }
            }
        }
    }
}

async fn talk(
    socket: TcpStream,
    data: Arc<Mutex<Data>>,
    mut up: watch::Receiver<Up>,
    lag: watch::Receiver<Duration>,
) -> Option<()> {
    let (read, mut write) = socket.into_split();
    let mut read = BufReader::new(read);
    let mut known = false;
    loop {
        let command = command(&mut read).await?;
        up.wait_for(|up| *up != Up::Hanging).await.ok()?;
        let reply = answer(&command, &data, &mut known).await;
        let late = *lag.borrow();
        tokio::time::sleep(late).await;
        up.wait_for(|up| *up != Up::Hanging).await.ok()?;
        let mut bytes = Vec::new();
        reply.write(&mut bytes);
        write.write_all(&bytes).await.ok()?;
    }
}

/// `*2\r\n$3\r\nGET\r\n…`
async fn command(read: &mut BufReader<OwnedReadHalf>) -> Option<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    for _ in 0..number(read).await? {
        let length = number(read).await?;
        let mut part = vec![0; length + 2];
        read.read_exact(&mut part).await.ok()?;
        part.truncate(length);
        parts.push(part);
    }
    Some(parts)
}

async fn number(read: &mut BufReader<OwnedReadHalf>) -> Option<usize> {
    let mut line = String::new();
    read.read_line(&mut line).await.ok()?;
    line.trim_end().get(1..)?.parse().ok()
}

async fn answer(command: &[Vec<u8>], data: &Mutex<Data>, known: &mut bool) -> Reply {
    let text: Vec<String> = command.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    let words: Vec<&str> = text.iter().map(String::as_str).collect();
    let name = words[0].to_ascii_uppercase();
    let password = data.lock().password.clone();
    match (&*name, password) {
        ("AUTH", Some(password)) => {
            *known = words.last() == Some(&&*password);
            return if *known { Status("OK") } else { Error("WRONGPASS invalid username-password pair") };
        }
        (_, Some(_)) if !*known => return Error("NOAUTH Authentication required."),
        _ => {}
    }
    if name == "XREAD" {
        return read_stream(&words, data).await;
    }
    data.lock().answer(&name, &words, command)
}

/// `XREAD COUNT n [BLOCK ms] STREAMS key id`
async fn read_stream(words: &[&str], data: &Mutex<Data>) -> Reply {
    let after = id(words[words.len() - 1]);
    let block = words.iter().position(|word| *word == "BLOCK").map(|at| words[at + 1].parse().unwrap());
    let end = Instant::now() + Duration::from_millis(block.unwrap_or(0));
    loop {
        {
            let data = data.lock();
            if data.spoiled.iter().any(|key| key == STREAM) {
                return Error(WRONG_TYPE);
            }
            let found: Vec<Reply> = data.stream.iter().filter(|it| it.id > after).map(Entry::reply).collect();
            if !found.is_empty() {
                return List(vec![List(vec![Bulk(STREAM.into()), List(found)])]);
            }
        }
        if Instant::now() >= end {
            return Nil;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Data {
    fn add(&mut self, fields: Vec<Vec<u8>>) {
        let id = (tollgate::net::Clock::new().now().unix_ms, self.next);
        self.next += 1;
        self.stream.push(Entry { id, fields });
    }

    fn answer(&mut self, name: &str, words: &[&str], command: &[Vec<u8>]) -> Reply {
        let key = if name == "EVAL" { SET } else { words.get(1).copied().unwrap_or_default() };
        let spoiled = self.spoiled.iter().any(|it| it == key);
        match name {
            _ if self.gone => Error("ERR it is gone"),
            "EVALSHA" => Error("NOSCRIPT No matching script."),
            "CLIENT" | "SELECT" => Status("OK"),
            "TYPE" if spoiled => Status("string"),
            "TYPE" if key == STREAM => Status(if self.stream.is_empty() { "none" } else { "stream" }),
            "TYPE" => Status(if self.set.is_empty() { "none" } else { "zset" }),
            "DEL" => {
                self.spoiled.retain(|it| it != key);
                Number(1)
            }
            _ if spoiled => Error(WRONG_TYPE),
            "EVAL" | "ZADD" if self.writes_refused => Error("OOM command not allowed when used memory > 'maxmemory'."),
            "EVAL" if !words[1].contains("XADD") => match self.counters.answer(words) {
                Some(said) => List(said.into_iter().map(Number).collect()),
                None => Error("LATE the command came after its time"),
            },
            "EVAL" => self.tell(&command[7..]),
            "ZADD" => {
                self.put(&command[4], &command[3]);
                Number(1)
            }
            "ZSCAN" => {
                let score = |score: &f64| Bulk(score.to_string().into());
                let members = self.set.iter().flat_map(|(member, at)| [Bulk(member.clone()), score(at)]).collect();
                List(vec![Bulk("0".into()), List(members)])
            }
            "XRANGE" => {
                let wanted = id(words[2]);
                List(self.stream.iter().filter(|it| it.id == wanted).map(Entry::reply).collect())
            }
            "XREVRANGE" => List(self.stream.last().map(Entry::reply).into_iter().collect()),
            _ => Error("ERR unknown command"),
        }
    }

    /// What the script does with its pairs.
    fn tell(&mut self, pairs: &[Vec<u8>]) -> Reply {
        let mut told = 0;
        for pair in pairs.chunks(2) {
            if self.put(&pair[1], &pair[0]) {
                told += 1;
                self.add(vec![b"revocation".to_vec(), pair[1].clone(), b"by".to_vec(), b"tollgate".to_vec()]);
            }
        }
        Number(told)
    }

    /// `ZADD GT CH`: whether something changed.
    fn put(&mut self, member: &[u8], score: &[u8]) -> bool {
        let score: f64 = std::str::from_utf8(score).unwrap().parse().unwrap();
        let changed = self.set.get(member).is_none_or(|present| *present < score);
        if changed {
            self.set.insert(member.to_vec(), score);
        }
        changed
    }
}

impl Entry {
    fn reply(&self) -> Reply {
        let id = format!("{}-{}", self.id.0, self.id.1);
        List(vec![Bulk(id.into()), List(self.fields.iter().cloned().map(Bulk).collect())])
    }
}

impl Reply {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Status(text) => out.extend(format!("+{text}\r\n").bytes()),
            Error(text) => out.extend(format!("-{text}\r\n").bytes()),
            Number(number) => out.extend(format!(":{number}\r\n").bytes()),
            Bulk(bytes) => {
                out.extend(format!("${}\r\n", bytes.len()).bytes());
                out.extend(bytes);
                out.extend(b"\r\n");
            }
            List(all) => {
                out.extend(format!("*{}\r\n", all.len()).bytes());
                all.iter().for_each(|one| one.write(out));
            }
            Nil => out.extend(b"*-1\r\n"),
        }
    }
}

fn id(text: &str) -> (u64, u64) {
    let (ms, seq) = text.split_once('-').unwrap();
    (ms.parse().unwrap(), seq.parse().unwrap())
}

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
