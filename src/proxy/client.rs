//! Who the client is: the peer, or whom trusted proxies forwarded for.

use std::net::IpAddr;

use http::HeaderName;

use super::headers::Present;
use crate::{
    net::{Connection, Fields},
    store::Gate,
};

/// The client behind a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Client {
    /// Its address; none on Unix sockets.
    pub(super) address: Option<IpAddr>,
    /// Whether the peer's forwarded headers count.
    pub(super) trusted: bool,
}

impl Client {
    /// The right-most address that is no trusted proxy. What is no address ends the search: whatever stands left of
    /// it nobody vouches for.
    pub(super) fn of(fields: &Fields, present: Present, connection: &Connection, gate: &Gate) -> Self {
        let peer = connection.peer();
        let trusted = peer.is_none_or(|ip| is_trusted(gate, ip));
        if !trusted || !present.forwarded_for {
            return Self { address: peer, trusted };
        }
        let mut address = peer;
        let lines = fields.all(X_FORWARDED_FOR.as_str()).rev();
        for hop in lines.flat_map(|line| line.rsplit(|b| *b == b',')) {
            let parsed = std::str::from_utf8(hop).ok().and_then(|text| text.trim().parse::<IpAddr>().ok());
            let Some(ip) = parsed.map(|ip| ip.to_canonical()) else { break };
            address = Some(ip);
            if !is_trusted(gate, ip) {
                break;
            }
        }
        Self { address, trusted }
    }
}

fn is_trusted(gate: &Gate, ip: IpAddr) -> bool {
    gate.trusted_proxies.iter().any(|net| net.contains(&ip))
}

/// `X-Forwarded-For`
pub(super) static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
