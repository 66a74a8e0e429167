//! `[shared]`: what several sidecars share, and where.

use schemars::JsonSchema;
use serde::Deserialize;

pub use crate::throttle::shared::{OutageRule, SharedMode};

use crate::{net::redis::Redis, problem::Problem, secret::Secret, throttle::shared::Terms, units::Span};

/// `[shared]`: what several sidecars share; without it one is alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedSettings {
    /// `redis://`, `rediss://`, `redis-sentinel://` or `redis-cluster://`. A secret, since it may hold a password.
    pub redis: Secret,
    /// User there.
    pub username: Option<String>,
    /// Password there.
    pub password: Option<Secret>,
    /// Begins every key there.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// How counters are shared.
    #[serde(default)]
    pub mode: SharedMode,
    /// How often counts are exchanged.
    #[serde(default = "interval")]
    pub interval: Span,
    /// How long a request waits for Redis at most, in modes `lease` and `strict`.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// What happens to requests while Redis is away.
    #[serde(default)]
    pub on_outage: OutageRule,
}

impl SharedSettings {
    /// The default of `interval`.
    pub const INTERVAL: Span = Span::millis(100);

    /// The default of `timeout`.
    pub const TIMEOUT: Span = Span::millis(50);

    /// How counters are shared: what a reload may change.
    pub const fn terms(&self) -> Terms {
        Terms { mode: self.mode, interval: self.interval.0, timeout: self.timeout.0, on_outage: self.on_outage }
    }

    /// Whether counters and revocations are where `other` has them, so that a reload may take the rest over.
    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.redis, &self.username, &self.password, &self.prefix)
            == (&other.redis, &other.username, &other.password, &other.prefix)
    }

    /// Mistakes of meaning in what a reload may change.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (field, span, least) in [("interval", self.interval, 10), ("timeout", self.timeout, 1)] {
            if !(Span::millis(least)..=Span::seconds(10)).contains(&span) {
                problems.push(Problem::new(format!("shared.{field}"), format!("is {least}ms to 10s")));
            }
        }
        problems
    }

    /// Reads the secrets and the address, or names every mistake. Contacts nobody.
    pub fn redis(&self) -> Result<Redis, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut read = |secret: &Secret, field: &str| {
            secret.read().map_err(|error| problems.push(Problem::new(field, error.to_string()))).ok()
        };
        let password = self.password.as_ref().map(|secret| read(secret, "shared.password"));
        let address = read(&self.redis, "shared.redis");
        if !is_prefix(&self.prefix) {
            problems.push(Problem::new("shared.prefix", "is up to 100 visible ASCII characters without braces"));
        }
        let Some(address) = address.filter(|_| problems.is_empty()) else { return Err(problems) };
        Redis::new(&address, self.username.clone(), password.flatten())
            .map_err(|problem| vec![Problem::new("shared.redis", problem)])
    }
}

/// Braces would choose the keys' place in a cluster.
fn is_prefix(text: &str) -> bool {
    text.len() <= 100 && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}'))
}

fn prefix() -> String {
    "tollgate:".into()
}

fn interval() -> Span {
    SharedSettings::INTERVAL
}

fn timeout() -> Span {
    SharedSettings::TIMEOUT
}
