//! `[proxy]`: the reverse proxy's listener, limits and timeouts.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    net::{Address, TlsSettings, server::Limits},
    units::{Size, Span},
};

/// `[proxy]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ProxySettings")]
pub struct Settings {
    /// Where it listens.
    pub listen: Address,
    /// Serve TLS.
    pub tls: Option<TlsSettings>,
    /// Largest request head.
    #[serde(default = "max_header_bytes")]
    pub max_header_bytes: Size,
    /// Most header fields of a request.
    #[serde(default = "max_headers")]
    pub max_headers: usize,
    /// Most open connections of clients; one more is closed at once. Never more than half of the file descriptors.
    #[serde(default = "max_connections")]
    pub max_connections: usize,
    /// Most requests under way on one HTTP/2 connection.
    #[serde(default = "max_streams")]
    pub max_streams: u32,
    /// Longest request target.
    #[serde(default = "max_uri")]
    pub max_uri: Size,
    /// Largest request body; 0: no limit.
    #[serde(default)]
    pub max_body: Size,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// After SIGTERM: how long it serves on, not ready.
    #[serde(default = "drain_delay")]
    pub drain_delay: Span,
    /// After `drain_delay`: how long open requests may still take, at every door.
    #[serde(default = "grace")]
    pub grace: Span,
}

/// `[proxy] timeouts`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Until a connection to the upstream stands.
    pub connect: Span,
    /// Until a request's head is read, from its first byte (the TLS handshake likewise).
    pub header: Span,
    /// How long a connection may be idle.
    pub idle: Span,
    /// Until the upstream's response head.
    pub request: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Span::seconds(5),
            header: Span::seconds(10),
            idle: Span::seconds(60),
            request: Span::seconds(60),
        }
    }
}

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Self {
        Self {
            max_connections: settings.max_connections,
            max_streams: settings.max_streams,
            max_headers: settings.max_headers,
            max_header_bytes: usize::try_from(settings.max_header_bytes.0).unwrap_or(usize::MAX),
            header: settings.timeouts.header.0,
            idle: settings.timeouts.idle.0,
        }
    }
}

fn max_header_bytes() -> Size {
    Size(64 << 10)
}

fn max_headers() -> usize {
    100
}

fn max_connections() -> usize {
    16_384
}

fn max_streams() -> u32 {
    128
}

fn max_uri() -> Size {
    Size(8 << 10)
}

fn drain_delay() -> Span {
    Span::seconds(5)
}

fn grace() -> Span {
    Span::seconds(25)
}
