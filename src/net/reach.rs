//! Which addresses providers may have.
//!
//! Three kinds: public ones; local ones, of this machine or of a private network; and those that nothing of ours
//! ever asks, where links, clouds and their credentials live. An IPv4 address that an IPv6 one carries counts as
//! itself (RFC 4291 section 2.5.5, RFC 6052, RFC 3056), since a translator on the way would undo it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// How far a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses alone: for what somebody else than the configuration names.
    Public,
    /// Loopback and private networks too: for what the configuration names.
    Local,
}

/// What an address is to us; in ascending order of trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Link-local, a cloud's metadata service, or nobody's: never asked.
    Forbidden,
    /// Of this machine or of a private network.
    Local,
    /// Anything else.
    Public,
}

impl Reach {
    /// Whether it goes as far as to an address of this kind.
    pub(super) fn covers(self, kind: Kind) -> bool {
        match self {
            Self::Public => kind == Kind::Public,
            Self::Local => kind >= Kind::Local,
        }
    }
}

/// What `address` is.
pub(super) fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(v4) => kind_v4(v4),
        IpAddr::V6(v6) => match carried(v6) {
            Some(v4) if v6.segments()[..3] == [0x64, 0xff9b, OWN_NAT64] => kind_v4(v4).min(Kind::Local),
            Some(v4) => kind_v4(v4),
            None => kind_v6(v6),
        },
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    let within = |networks: &[Ipv4Net]| networks.iter().any(|network| network.contains(&address));
    if within(&FORBIDDEN_V4) {
        Kind::Forbidden
    } else if within(&LOCAL_V4) {
        Kind::Local
    } else {
        Kind::Public
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    let within = |networks: &[Ipv6Net]| networks.iter().any(|network| network.contains(&address));
    if within(&FORBIDDEN_V6) {
        Kind::Forbidden
    } else if within(&LOCAL_V6) {
        Kind::Local
    } else {
        Kind::Public
    }
}

/// The IPv4 address that `v6` stands for: mapped, compatible, NAT64 or 6to4.
fn carried(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => Some(v4(g, h)),
        // `::` and `::1` are addresses of their own.
        (0, 0, 0, 0, 0, 0) if g != 0 => Some(v4(g, h)),
        (0x64, 0xff9b, OWN_NAT64, ..) => Some(v4(g, h)),
        (0x2002, ..) => Some(v4(b, c)),
        _ => None,
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// A network's own NAT64 is 64:ff9b:1::/48 (RFC 8215).
const OWN_NAT64: u16 = 1;

const FORBIDDEN_V4: [Ipv4Net; 7] = [
    v4(0, 0, 0, 0, 8),
    // Link-local: the metadata service of most clouds.
    v4(169, 254, 0, 0, 16),
    // Azure's, Alibaba's and Oracle's own.
    v4(168, 63, 129, 16, 32),
    v4(100, 100, 100, 200, 32),
    v4(192, 0, 0, 192, 32),
    // Multicast, reserved, broadcast.
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];

/// Loopback, RFC 1918, carriers' NAT (RFC 6598), and what IANA lists as not globally reachable.
const LOCAL_V4: [Ipv4Net; 10] = [
    v4(127, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
    v4(100, 64, 0, 0, 10),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
];

const FORBIDDEN_V6: [Ipv6Net; 6] = [
    Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128),
    v6(0xfe80, 0, 0, 10),
    v6(0xff00, 0, 0, 8),
    // The metadata services of AWS, Google and Scaleway.
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42), 128),
];

/// Loopback, ULA, the old site-local, Teredo, documentation, discard.
const LOCAL_V6: [Ipv6Net; 7] = [
    Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128),
    v6(0xfc00, 0, 0, 7),
    v6(0xfec0, 0, 0, 10),
    v6(0x2001, 0, 0, 32),
    v6(0x2001, 0xdb8, 0, 32),
    v6(0x3fff, 0, 0, 20),
    v6(0x100, 0, 0, 64),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str], expected: Kind) {
        for text in texts {
            assert_eq!(kind(text.parse().expect("an address")), expected, "{text}");
        }
    }

    #[test]
    fn metadata_and_link_local_addresses_are_forbidden_in_every_form() {
        all(
            &[
                "169.254.169.254",
                "169.254.0.1",
                "::ffff:169.254.169.254",
                "::169.254.169.254",
                "64:ff9b::a9fe:a9fe",
                "64:ff9b:1::a9fe:a9fe",
                "2002:a9fe:a9fe::1",
                "fe80::1",
                "fd00:ec2::254",
                "fd20:ce::254",
                "fd00:42::42",
                "168.63.129.16",
                "64:ff9b::168.63.129.16",
                "100.100.100.200",
                "192.0.0.192",
                "0.0.0.0",
                "0.1.2.3",
                "::",
                "224.0.0.1",
                "ff02::1",
                "255.255.255.255",
            ],
            Kind::Forbidden,
        );
    }

    #[test]
    fn loopback_and_private_addresses_are_local_in_every_form() {
        all(
            &[
                "127.0.0.1",
                "127.255.255.254",
                "10.0.0.1",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.1.1",
                "100.64.0.1",
                "198.18.0.1",
                "::1",
                "fc00::1",
                "fd12:3456::1",
                "::ffff:127.0.0.1",
                "::ffff:10.0.0.1",
                "64:ff9b::10.0.0.1",
                "2002:c0a8:101::1",
                "64:ff9b:1::5db8:d822",
                "2001:0:1:2::3",
            ],
            Kind::Local,
        );
    }

    #[test]
    fn the_rest_is_public() {
        all(
            &[
                "93.184.216.34",
                "172.32.0.1",
                "172.15.255.255",
                "100.128.0.1",
                "169.253.0.1",
                "2606:2800:220:1::1",
                "::ffff:93.184.216.34",
                "64:ff9b::93.184.216.34",
                "2002:5db8:d822::1",
            ],
            Kind::Public,
        );
    }

    #[test]
    fn each_reach_covers_its_kinds() {
        for (reach, expected) in [(Reach::Public, [false, false, true]), (Reach::Local, [false, true, true])] {
            assert_eq!([Kind::Forbidden, Kind::Local, Kind::Public].map(|kind| reach.covers(kind)), expected);
        }
    }
}
