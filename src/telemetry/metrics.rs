//! Every metric of the process, in one struct. Labels come from enums and configured names only.

use std::sync::OnceLock;

use prometheus::{Histogram, IntCounter, Registry};

/// All metrics. One for the process.
#[derive(Debug)]
pub struct Metrics {
    /// What `/metrics` shows.
    pub registry: Registry,
    /// Time `Authorizer::check` took.
    pub check_duration: Histogram,
}

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The reverse proxy.
    Proxy,
}

/// Counters of one API, resolved at first use: index 0 is granted, the others are
/// `authz::Denial::reason_index`.
#[derive(Debug, Default)]
pub struct ApiCounters {
    by_reason: Vec<OnceLock<IntCounter>>,
}

/// Why a connection of a client failed. Bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ConnectionError {
    Parse,
    HeaderTimeout,
    IdleTimeout,
    BodyTimeout,
    TlsHandshake,
    Http2,
    Reset,
    Other,
}

impl Metrics {
    /// All metrics, registered and at 0.
    pub fn new() -> Self {
        unimplemented!()
    }

    /// Counts one request. `api` is its configured name or `_none`; `reason` is `granted` or `Denial::reason`.
    pub fn count_request(
        &self,
        counters: &ApiCounters,
        door: Door,
        api: &str,
        index: usize,
        outcome: &'static str,
        reason: &'static str,
    ) {
        let _ = (counters, door, api, index, outcome, reason);
        unimplemented!()
    }

    /// Counts a failed connection.
    pub fn connection_error(&self, reason: ConnectionError) {
        let _ = reason;
        unimplemented!()
    }
}
