//! Ground: addresses, time, listeners, TLS, the client towards providers, connections to Redis.

mod accept;
mod address;
mod answer;
pub mod client;
mod clock;
pub mod connection;
pub mod cpu;
pub mod door;
pub mod drain;
pub mod fields;
mod freshness;
mod gather;
pub mod incoming;
pub mod listener;
pub mod message;
pub mod outgoing;
pub mod pace;
mod plain;
mod reach;
pub mod redis;
mod room;
pub mod server;
pub mod side;
mod stream;
pub mod tls;
pub mod visit;
mod watchdog;

pub use address::{Address, network};
pub use clock::{Clock, CoarseInstant, Now};
pub use connection::Connection;
pub use drain::Drain;
pub use fields::Fields;
pub use gather::Gathered;
#[cfg(test)]
pub(crate) use reach::Kind;
pub use reach::Reach;
pub use room::{Room, raise_descriptors};

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// `tls = { cert, key, client_ca }` of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Ask clients for a certificate signed by one of these, PEM.
    pub client_ca: Option<PathBuf>,
}
