//! Throttling tiers: what a limit is, and which counter it is counted on.

use std::{ops::Deref, sync::Arc};

use aws_lc_rs::digest;

/// A tier as one thing uses it: its limits (read through `Deref`) and the counter they are counted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// The limits; shared by all that use a tier of this name.
    pub limits: Arc<Limits>,
    /// Digest over everything that tells this counter from others: level, what is counted for
    /// (API, resource, application, subscription: names, length-prefixed), tier name, limit, window.
    /// Tiers of the same name, limit and window have the same, so that a reload keeps what was counted.
    /// Its bytes: a number would take a million rows 16 bytes more each, for alignment.
    pub counter: [u8; 16],
}

/// What a tier allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Name, as in `RateLimit-Policy`.
    pub name: Box<str>,
    /// Requests a window.
    pub quota: Quota,
    /// A shorter limit against bursts.
    pub burst: Option<Burst>,
    /// Whether an exhausted quota refuses.
    pub stop_on_quota_reach: bool,
}

impl Deref for Tier {
    type Target = Limits;

    fn deref(&self) -> &Limits {
        &self.limits
    }
}

/// So many requests a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Limit, at least 1.
    pub limit: u32,
    /// Window.
    pub window: Window,
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
}

impl Tier {
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
    };
    let (unit, length) = match limits.quota.window {
        Window::Seconds(n) => (0, n),
        Window::Months(n) => (1, n),
    };
    digest.text(&limits.name).number(limits.quota.limit).number(unit).number(length);
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

    /// The first `N` bytes, at most 32.
    pub(super) fn finish<const N: usize>(self) -> [u8; N] {
        let digest = self.0.finish();
        digest.as_ref().first_chunk().copied().expect("SHA-256 has 32 bytes, more than is asked for")
    }
}
