//! What can be seen from outside: logs, metrics, access lines. Never a credential.

mod access_line;
mod access_log;
mod cells;
mod logs;
mod metrics;
mod process;

pub use access_line::AccessLine;
pub use access_log::AccessLog;
pub use cells::{Cells, Counter, CounterVec, Times, enter_lane};
pub use logs::Logs;
pub use metrics::{ApiCounters, ConnectionError, Door, MAX_NAMED_APIS, Metrics, OpenConnection, UpstreamError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// `[log]`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Form of log and access lines.
    pub format: LogFormat,
    /// Least level that is written.
    pub level: LogLevel,
    /// Share of requests with an access line, 0 to 1.
    pub access_sample: f64,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Json, level: LogLevel::Info, access_sample: 1.0 }
    }
}

impl LogSettings {
    /// What is wrong with the values. `field` is the section's path.
    pub fn problems(&self, field: &str) -> Vec<Problem> {
        if (0.0..=1.0).contains(&self.access_sample) {
            return Vec::new();
        }
        vec![Problem::new(format!("{field}.access_sample"), "must be from 0 to 1")]
    }
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Least level that is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_share() {
        for (access_sample, good) in
            [(0.0, true), (0.01, true), (1.0, true), (1.1, false), (-0.1, false), (f64::NAN, false)]
        {
            let settings = LogSettings { access_sample, ..LogSettings::default() };
            assert_eq!(settings.problems("log").is_empty(), good, "{access_sample}");
        }
    }
}
