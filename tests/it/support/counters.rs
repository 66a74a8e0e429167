//! The counters of the stand-in for Redis: what the scripts make of them, done by the model.

use std::collections::{HashMap, HashSet};

use tollgate::throttle::shared::{
    Before, Form, Line, Seen,
    model::{Bucket, Data, Hash},
};

/// All limits, and since when they are there.
#[derive(Default)]
pub(super) struct Counters {
    hashes: HashMap<String, Hash<String>>,
    buckets: HashMap<String, Bucket<String>>,
    /// Keys that hold a string instead.
    spoiled: HashSet<String>,
    /// Since when it has its data.
    epoch: i64,
    /// Which server this is, and which it was when the epoch began.
    server: u64,
    told: u64,
    /// How many data have begun, at most.
    births: u64,
    /// By how much its clock is ahead.
    pub(super) ahead_ms: u64,
    pub(super) settling: bool,
    /// Whether it does not say which server it is.
    pub(super) nameless: bool,
    /// Exchanges, and questions of single requests.
    pub(super) asked: [u64; 2],
}

/// What they held at some time.
pub(crate) struct Kept {
    hashes: HashMap<String, Hash<String>>,
    buckets: HashMap<String, Bucket<String>>,
}

impl Counters {
    /// All is gone.
    pub(super) fn lose(&mut self) {
        self.hashes.clear();
        self.buckets.clear();
        self.epoch += 1;
    }

    /// Values of another type are under all keys that there are.
    pub(super) fn spoil(&mut self) {
        self.spoiled.extend(self.hashes.drain().map(|(key, _)| key));
        self.spoiled.extend(self.buckets.drain().map(|(key, _)| key));
    }

    pub(super) fn save(&self) -> Kept {
        Kept { hashes: self.hashes.clone(), buckets: self.buckets.clone() }
    }

    /// Another server, with what was kept and the epoch beside it.
    pub(super) fn load(&mut self, kept: Kept) {
        (self.hashes, self.buckets) = (kept.hashes, kept.buckets);
        self.server += 1;
    }

    /// What all hold together.
    pub(super) fn total(&self) -> u64 {
        self.hashes.values().map(Hash::total).sum()
    }

    /// What the scripts do: `EVAL text keys epoch key… node settle until number…`. None: it came too late.
    pub(super) fn answer(&mut self, words: &[&str]) -> Option<Vec<i64>> {
        let count: usize = words[2].parse().unwrap();
        let (keys, args) = (&words[4..3 + count], &words[3 + count..]);
        let (node, clock) = (args[0].to_owned(), tollgate::net::Clock::new().now().unix_ms + self.ahead_ms);
        let until: u64 = args[2].parse().unwrap();
        if until > 0 && clock > until {
            return None;
        }
        if until == 0 && self.server != self.told {
            (self.told, self.epoch, self.settling) = (self.server, self.epoch + 1, true);
        }
        let nameless = self.nameless && until == 0;
        // Before all others, where the script comes to it in turn.
        let replaced = keys.iter().filter(|key| self.spoiled.remove(**key)).count();
        if replaced > 0 {
            (self.epoch, self.settling) = (self.epoch + 1, true);
        }
        let (marks, replaced) = (i64::from(self.settling) + 2 * i64::from(nameless), i64::try_from(replaced).unwrap());
        let mut out = vec![marks, replaced, self.epoch + 1, i64::try_from(clock).unwrap()];
        let exchanges = words[1].contains("HLEN");
        let limits = limits(keys, &args[3..], if exchanges { 5 } else { 4 });
        if exchanges {
            self.asked[0] += 1;
            limits.iter().for_each(|limit| self.exchange(limit, &node, clock, &mut out));
        } else {
            self.asked[1] += 1;
            out.push(0);
            if !self.settling {
                self.count_all(&limits, &node, clock, &mut out);
            }
        }
        Some(out)
    }

    fn exchange(&mut self, limit: &Limit, node: &str, clock: u64, out: &mut Vec<i64>) {
        let [have, want, back, most, ttl_ms] = limit.numbers[..] else { panic!("five numbers") };
        let [have, want, back, most, ttl_ms] = [have, want, back, most, ttl_ms].map(positive);
        let line = Line { have, want, back, limit: most, ttl_ms, form: limit.form, seen: limit.seen };
        let (before, data) = (self.before(limit, node), self.data());
        let answer = match limit.form {
            Form::Bucket { .. } => self.bucket(limit).exchange(node.to_owned(), &line, clock, data.settling),
            _ => self.hash(limit).exchange_after(before, node.to_owned(), &line, data),
        };
        out.extend([said(answer.mine), said(answer.total), i64::from(answer.nodes)]);
        tell_birth(limit, answer.birth, out);
        tell_before(limit, before, out);
    }

    fn count_all(&mut self, limits: &[Limit], node: &str, clock: u64, out: &mut Vec<i64>) {
        let wanted = |limit: &Limit| {
            let [have, most, amount, ttl_ms] = limit.numbers[..] else { panic!("four numbers") };
            let line = Line {
                have: positive(have),
                want: 0,
                back: 0,
                limit: limit.size,
                ttl_ms: positive(ttl_ms),
                form: limit.form,
                seen: limit.seen,
            };
            (line, u64::try_from(most).ok(), amount)
        };
        let data = self.data();
        for (n, limit) in limits.iter().enumerate() {
            let ((line, most, _), before) = (wanted(limit), self.before(limit, node));
            let full = match limit.form {
                Form::Bucket { .. } => {
                    !self.bucket(limit).clone().count(node.to_owned(), &line, most.is_some(), 1, clock).0
                }
                _ => {
                    let heard = (line.have, line.seen);
                    self.hash(limit).is_full_after(before, &node.to_owned(), heard, most, data)
                }
            };
            if out[4] == 0 && full {
                out[4] = i64::try_from(n + 1).unwrap();
            }
        }
        let refused = out[4] != 0;
        for limit in limits {
            let ((line, _, amount), before) = (wanted(limit), self.before(limit, node));
            let answer = match (limit.form, refused) {
                (Form::Bucket { .. }, false) => {
                    self.bucket(limit).count(node.to_owned(), &line, false, amount, clock).1
                }
                // What is told beside a refused count is kept.
                (Form::Bucket { .. }, true) => self.bucket(limit).exchange(node.to_owned(), &line, clock, false),
                (_, false) => self.hash(limit).count_after(node.to_owned(), (line.have, line.seen), amount, data),
                (_, true) => self.hash(limit).exchange_after(before, node.to_owned(), &line, data),
            };
            out.extend([said(answer.mine), said(answer.total)]);
            tell_birth(limit, answer.birth, out);
            tell_before(limit, before, out);
        }
    }

    fn data(&mut self) -> Data {
        self.births += 1;
        Data { settling: self.settling, epoch: u64::try_from(self.epoch).unwrap(), fresh: self.births }
    }

    fn hash(&mut self, limit: &Limit) -> &mut Hash<String> {
        self.hashes.entry(limit.key.clone()).or_default()
    }

    fn bucket(&mut self, limit: &Limit) -> &mut Bucket<String> {
        self.buckets.entry(limit.key.clone()).or_default()
    }

    fn before(&self, limit: &Limit, node: &str) -> Before {
        let former = limit.former.as_ref().and_then(|former| self.hashes.get(former));
        former.map_or_else(Before::default, |former| former.before(&node.to_owned(), limit.form))
    }
}

/// One limit of a script.
struct Limit {
    key: String,
    /// The window before a sliding one.
    former: Option<String>,
    numbers: Vec<i64>,
    form: Form,
    size: u64,
    seen: Seen,
}

/// Each has so many numbers, then what depends on its form.
fn limits(keys: &[&str], args: &[&str], each: usize) -> Vec<Limit> {
    let mut keys = keys.iter().map(|key| (*key).to_owned());
    let mut args = args.iter().map(|arg| arg.parse::<i64>().unwrap());
    let mut limits = Vec::new();
    while let Some(key) = keys.next() {
        let numbers = args.by_ref().take(each).collect();
        let form = args.next();
        let mut next = || positive(args.next().unwrap());
        let (form, former) = match form {
            Some(0) => (Form::Fixed, None),
            Some(1) => (Form::Sliding { left: next(), length: next() }, keys.next()),
            _ => (Form::Bucket { told: next(), content: next(), length_ms: next(), parts: next() }, None),
        };
        let (size, seen) = match form {
            Form::Bucket { .. } => (next(), Seen::default()),
            _ => (0, Seen { birth: next(), mine: next(), total: next() }),
        };
        limits.push(Limit { key, former, numbers, form, size, seen });
    }
    limits
}

fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap()
}

fn said(number: u64) -> i64 {
    i64::try_from(number).unwrap()
}

fn tell_birth(limit: &Limit, birth: u64, out: &mut Vec<i64>) {
    if !matches!(limit.form, Form::Bucket { .. }) {
        out.push(said(birth));
    }
}

fn tell_before(limit: &Limit, before: Before, out: &mut Vec<i64>) {
    if matches!(limit.form, Form::Sliding { .. }) {
        out.extend([said(before.others), said(before.counts)]);
    }
}
