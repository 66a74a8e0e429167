//! One line per request, formatted here and written by a thread of its own. Bounded: when the writer
//! cannot keep up, lines are dropped and counted, requests never wait.

use std::net::IpAddr;

/// What an access line says. Never a credential, never a query.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names are the fields of the line")]
pub struct AccessLine<'a> {
    pub unix_ms: u64,
    pub request_id: &'a str,
    /// From a valid `traceparent`.
    pub trace_id: Option<&'a str>,
    pub client: Option<IpAddr>,
    pub method: &'a str,
    /// Canonical path, or the path as sent when it was refused; escaped here.
    pub path: &'a str,
    pub protocol: &'static str,
    pub status: u16,
    /// `granted`, or `Denial::reason`.
    pub reason: &'static str,
    pub api: Option<&'a str>,
    pub version: Option<&'a str>,
    pub template: Option<&'a str>,
    pub application: Option<&'a str>,
    pub key_type: Option<&'static str>,
    pub tier: Option<&'a str>,
    pub verdict_us: u64,
    /// Until the upstream's response head.
    pub upstream_ms: Option<f64>,
    pub duration_ms: f64,
    pub bytes_out: u64,
}

/// The access log. Cheap to share.
#[derive(Debug, Clone)]
pub struct AccessLog {}

impl AccessLog {
    /// Whether this request gets a line (`access_sample`).
    pub fn sampled(&self) -> bool {
        unimplemented!()
    }

    /// Formats and hands over one line; never waits.
    pub fn write(&self, line: &AccessLine<'_>) {
        let _ = line;
        unimplemented!()
    }
}
