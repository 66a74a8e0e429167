//! How many opaque tokens of a client address a provider has refused: beyond a limit its new ones are not
//! asked about, so that a flood of random tokens costs the provider little.
//!
//! Bounded memory: an address that is forgotten begins anew. Tokens already known are none of its
//! business: they pass or are refused without asking anybody.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use quick_cache::sync::Cache as Bounded;

use crate::net::{Now, network};

/// The counts of all addresses.
#[derive(Debug)]
pub(super) struct Failures {
    /// 0: none.
    limit: AtomicU64,
    window_ms: AtomicU64,
    clients: Bounded<Source, Arc<Mutex<Tally>>>,
}

/// An address that has reached its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood {
    /// The limit.
    pub limit: u64,
    /// Length of its window in seconds, at least 1.
    pub window_s: u64,
    /// Seconds until the window ends, at least 1.
    pub reset_s: u64,
}

/// What one address has brought in a window.
#[derive(Debug, Default)]
struct Tally {
    window: u64,
    count: u64,
    /// The first of them, so that one token brought again counts once.
    seen: Vec<u64>,
}

/// Whom it is counted against: an IPv4 address, an IPv6 one's network, or whoever has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4(u32),
    V6(Ipv6Addr),
    Unknown,
}

impl Failures {
    /// Nothing counted, no limit.
    pub(super) fn new() -> Self {
        Self { limit: AtomicU64::new(0), window_ms: AtomicU64::new(60_000), clients: Bounded::new(MAX_CLIENTS) }
    }

    /// At most `limit` failures in each `window` from now on; 0: any number.
    pub(super) fn set_limit(&self, limit: u64, window: Duration) {
        let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
        if self.window_ms.swap(window, Ordering::Relaxed) != window {
            // Windows of another length are numbered otherwise: a count of before would never end, nor ever apply.
            self.clients.clear();
        }
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Whether a new token of this client may be asked about.
    pub(super) fn admit(&self, client: Option<IpAddr>, now: Now) -> Result<(), Flood> {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == 0 {
            return Ok(());
        }
        let Some(tally) = self.clients.get(&Source::of(client)) else { return Ok(()) };
        let window_ms = self.window_ms.load(Ordering::Relaxed);
        let tally = tally.lock();
        if tally.window != now.steady_ms / window_ms || tally.count < limit {
            return Ok(());
        }
        let left_ms = window_ms - now.steady_ms % window_ms;
        Err(Flood { limit, window_s: window_ms.div_ceil(1000).max(1), reset_s: left_ms.div_ceil(1000).max(1) })
    }

    /// A token of this client has been refused by its provider. `token` tells it from others.
    pub(super) fn count(&self, client: Option<IpAddr>, token: u64, now: Now) {
        if self.limit.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Ok(tally) = self.clients.get_or_insert_with(&Source::of(client), || Ok::<_, Infallible>(Arc::default()));
        let window = now.steady_ms / self.window_ms.load(Ordering::Relaxed);
        let mut tally = tally.lock();
        if tally.window < window {
            (tally.window, tally.count) = (window, 0);
            tally.seen.clear();
        }
        if tally.seen.contains(&token) {
            return;
        }
        if tally.seen.len() < MAX_SEEN {
            tally.seen.push(token);
        }
        tally.count += 1;
    }
}

impl Source {
    fn of(client: Option<IpAddr>) -> Self {
        match client.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => Self::V4(ip.to_bits()),
            Some(IpAddr::V6(ip)) => Self::V6(network(ip)),
            None => Self::Unknown,
        }
    }
}

/// Some 10 MiB at most, with [`MAX_SEEN`] tokens each.
const MAX_CLIENTS: usize = 8192;
/// More than the default limit. Of a higher one, what comes after these is not told apart.
const MAX_SEEN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now::at_ms(1_800_000_010_000);

    fn failures(limit: u64) -> Failures {
        let failures = Failures::new();
        failures.set_limit(limit, Duration::from_secs(60));
        failures
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_window_of_another_length_begins_anew_and_counts() {
        let failures = failures(2);
        for (round, seconds) in [(0, 1), (1, 3600), (2, 60)] {
            failures.set_limit(2, Duration::from_secs(seconds));
            assert!(failures.admit(None, NOW).is_ok(), "{seconds}");
            for token in 0..2 {
                failures.count(None, round * 10 + token, NOW);
            }
            assert!(failures.admit(None, NOW).is_err(), "{seconds}");
        }
    }

    #[test]
    fn beyond_the_limit_new_ones_wait_for_the_next_window() {
        let failures = failures(3);
        let client = ip("192.0.2.1");
        for token in 0..3 {
            assert_eq!(failures.admit(client, NOW), Ok(()));
            failures.count(client, token, NOW);
        }
        assert_eq!(failures.admit(client, NOW), Err(Flood { limit: 3, window_s: 60, reset_s: 50 }));
        assert_eq!(failures.admit(ip("192.0.2.2"), NOW), Ok(()), "another address");
        assert!(failures.admit(ip("::ffff:192.0.2.1"), NOW).is_err(), "the same, written otherwise");
        assert_eq!(failures.admit(client, Now::at_ms(NOW.unix_ms + 50_000)), Ok(()));
    }

    #[test]
    fn the_same_token_counts_once_and_a_network_of_ipv6_is_one_client() {
        let failures = failures(2);
        for _ in 0..10 {
            failures.count(ip("2001:db8::1"), 7, NOW);
        }
        assert_eq!(failures.admit(ip("2001:db8::1"), NOW), Ok(()));
        failures.count(ip("2001:db8::ffff:1"), 8, NOW);
        assert!(failures.admit(ip("2001:db8::2"), NOW).is_err());
        assert_eq!(failures.admit(ip("2001:db8:0:1::2"), NOW), Ok(()));
        assert_eq!(failures.admit(None, NOW), Ok(()));
    }

    #[test]
    fn without_a_limit_nothing_is_counted_and_with_many_addresses_memory_is_bounded() {
        let none = failures(0);
        none.count(None, 1, NOW);
        assert_eq!((none.admit(None, NOW), none.clients.len()), (Ok(()), 0));
        let failures = failures(1);
        for n in 0..30_000_u32 {
            failures.count(Some(IpAddr::V4(n.into())), 1, NOW);
        }
        assert!(failures.clients.len() <= MAX_CLIENTS);
    }
}
