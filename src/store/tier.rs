//! Throttling tiers: what a limit is, and which counter it is counted on.

use std::{ops::Deref, sync::Arc};

use aws_lc_rs::digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConditionSettings, KeyType, advanced::Advanced};

/// A tier as one thing uses it: its limits (read through `Deref`) and the counter they are counted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// The limits; shared by all that use a tier of this name.
    pub limits: Arc<Limits>,
    /// Digest over everything that tells this counter from others: level, what is counted for
    /// (API, resource, application, subscription: names, length-prefixed), and the quota's kind, window and algorithm.
    /// Neither the tier's name nor its limit: whoever moves to another tier keeps what was used of the window.
    /// Its bytes: a number would take a million rows 16 bytes more each, for alignment.
    pub counter: [u8; 16],
}

/// What a tier allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Name, as in `RateLimit-Policy`.
    pub name: Box<str>,
    /// What may be used in a window.
    pub quota: Quota,
    /// A second quota, of another kind: both must have room.
    pub also: Option<Quota>,
    /// A shorter limit against bursts of requests.
    pub burst: Option<Burst>,
    /// Whether an exhausted quota refuses.
    pub stop_on_quota_reach: bool,
    /// What only tiers of APIs and resources can have; most have none.
    pub advanced: Option<Box<Advanced>>,
}

impl Deref for Tier {
    type Target = Limits;

    fn deref(&self) -> &Limits {
        &self.limits
    }
}

/// So many requests, bytes, events or tokens a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// What is counted.
    pub kind: QuotaKind,
    /// Limit, from 1 to [`Quota::MOST`].
    pub limit: u64,
    /// Window.
    pub window: Window,
    /// How the window moves on.
    pub algorithm: Algorithm,
}

impl Quota {
    /// The largest limit: what counters can tell apart with room to go beyond.
    pub const MOST: u64 = 1 << 46;

    /// `limit` requests in each fixed window.
    pub const fn requests(limit: u64, window: Window) -> Self {
        Self { kind: QuotaKind::Requests, limit, window, algorithm: Algorithm::Fixed }
    }
}

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaKind {
    /// Requests, as they are admitted.
    Requests,
    /// Bytes of bodies, both ways, as they pass.
    Bytes,
    /// WebSocket and gRPC messages both ways, and server-sent events, as they pass.
    Events,
    /// A model's tokens, as the upstream tells them.
    Tokens,
}

impl QuotaKind {
    /// Every kind, in the order of their places.
    pub const ALL: [Self; 4] = [Self::Requests, Self::Bytes, Self::Events, Self::Tokens];

    /// Its name, as the configuration has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::Events => "events",
            Self::Tokens => "tokens",
        }
    }
}

/// How a quota's window moves on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Windows one after the other; each begins at nothing.
    #[default]
    Fixed,
    /// Windows as fixed ones, and of the one before, the share that the last window's length still reaches into.
    Sliding,
    /// The whole limit at once, refilled evenly over the window.
    Gcra,
}

/// A window: a multiple of its length since the epoch, or a UTC calendar month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// So many seconds, at least 1.
    Seconds(u32),
    /// So many calendar months, counted from January 1970.
    Months(u32),
}

/// A limit against bursts, kept as GCRA: `requests` at once, refilled evenly over `per_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// How many, at least 1.
    pub requests: u32,
    /// In which time.
    pub per_ms: u64,
    /// How long each stays in the bucket, in nanoseconds: what a division costs is spent once.
    interval_ns: u64,
}

impl Burst {
    /// So many in that time.
    pub const fn new(requests: u32, per_ms: u64) -> Self {
        let divisor = if requests == 0 { 1 } else { requests as u64 };
        let interval_ns = per_ms.saturating_mul(1_000_000) / divisor;
        Self { requests, per_ms, interval_ns: if interval_ns == 0 { 1 } else { interval_ns } }
    }

    /// How long each stays in the bucket, in nanoseconds; at least 1.
    pub const fn interval_ns(&self) -> u64 {
        self.interval_ns
    }
}

/// What a tier is counted for.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// An API, by id.
    Api(&'a str),
    /// A resource: API id, template, verbs.
    Resource(&'a str, &'a str, &'a [http::Method]),
    /// A subscription: application, API id.
    Subscription(&'a str, &'a str),
    /// An application, by name; the user is added by the limiter.
    Application(&'a str),
    /// A condition group of a tier, by its conditions; whose it is, is added by the limiter.
    Condition(&'a [ConditionSettings]),
    /// A custom rule, by its key's template and by which keys it counts; the key is added by the limiter.
    Rule(&'a str, &'a str),
    /// An environment of an API, by id.
    Backend(&'a str, KeyType),
}

impl Tier {
    /// What tells the counter of this tier's condition groups, here and of this user, from others of theirs.
    pub fn of_group(&self, user: u128) -> u128 {
        u128::from_ne_bytes(self.counter).wrapping_add(user)
    }

    /// `limits`, counted for `subject`.
    pub fn new(limits: Arc<Limits>, subject: Subject<'_>) -> Self {
        let counter = counter(&limits, subject);
        Self { limits, counter }
    }
}

fn counter(limits: &Limits, subject: Subject<'_>) -> [u8; 16] {
    let mut digest = Digest::new();
    match subject {
        Subject::Api(api) => digest.text("api").text(api),
        Subject::Resource(api, template, methods) => {
            digest.text("resource").text(api).text(template);
            let mut verbs: Vec<&str> = methods.iter().map(http::Method::as_str).collect();
            verbs.sort_unstable();
            digest.text(&verbs.join(","))
        }
        Subject::Subscription(application, api) => digest.text("subscription").text(application).text(api),
        Subject::Application(application) => digest.text("application").text(application),
        Subject::Condition(conditions) => {
            digest.text("condition");
            conditions.iter().for_each(|condition| condition.tell(&mut digest));
            &mut digest
        }
        Subject::Rule(key, matches) => digest.text("rule").text(key).text(matches),
        Subject::Backend(api, KeyType::Production) => digest.text("backend").text(api).text("production"),
        Subject::Backend(api, KeyType::Sandbox) => digest.text("backend").text(api).text("sandbox"),
    };
    // Of both its quotas: they are told apart by what they count.
    digest.window(&limits.quota);
    digest.finish()
}

/// SHA-256 over length-prefixed texts: two lists of names that only look alike when joined differ.
pub(super) struct Digest(digest::Context);

impl Digest {
    pub(super) fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.0.update(&(text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
        self
    }

    pub(super) fn number(&mut self, number: u32) -> &mut Self {
        self.0.update(&number.to_be_bytes());
        self
    }

    fn window(&mut self, quota: &Quota) -> &mut Self {
        let (unit, length) = match quota.window {
            Window::Seconds(n) => (0, n),
            Window::Months(n) => (1, n),
        };
        self.0.update(&[quota.algorithm as u8]);
        self.number(unit).number(length)
    }

    /// The first `N` bytes, at most 32.
    pub(super) fn finish<const N: usize>(self) -> [u8; N] {
        let digest = self.0.finish();
        digest.as_ref().first_chunk().copied().expect("SHA-256 has 32 bytes, more than is asked for")
    }
}
