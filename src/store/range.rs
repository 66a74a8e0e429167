//! Client addresses as deny conditions and condition groups name them: one, a network, or a range with both its ends.
//!
//! An IPv4-mapped IPv6 address is the IPv4 address that it holds.

use std::net::IpAddr;

use ipnet::IpNet;

use super::suggest::Problems;

/// Addresses of one family, from the first to the last, both of them too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    pub(super) first: IpAddr,
    pub(super) last: IpAddr,
}

impl Range {
    /// Whether `address` is in it. `address` is canonical: none is IPv4-mapped.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first <= address && address <= self.last
    }

    /// What `ip` or `ip_range` names, whichever is given; a problem if it names nothing.
    pub(super) fn given(
        ip: Option<&str>,
        ip_range: Option<&[String]>,
        field: &dyn Fn(&str) -> String,
        problems: &mut Problems,
    ) -> Option<Self> {
        let (name, range) = match (ip, ip_range) {
            (Some(text), _) => ("ip", Self::single(text)),
            (None, Some([first, last])) => ("ip_range", Self::between(first, last)),
            (None, Some(_)) => ("ip_range", Err("is a list of two addresses, the first and the last")),
            (None, None) => return None,
        };
        range.map_err(|message| problems.add(field(name), message)).ok()
    }

    /// An address, or a network (`10.0.0.0/8`).
    fn single(text: &str) -> Result<Self, &'static str> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Self::of(address, address);
        }
        let network: IpNet = text.parse().map_err(|_| "is an IP address, or a network such as \"10.0.0.0/8\"")?;
        Self::of(network.network(), network.broadcast())
    }

    fn between(first: &str, last: &str) -> Result<Self, &'static str> {
        let parse = |text: &str| text.parse::<IpAddr>().map_err(|_| "is a list of two IP addresses");
        Self::of(parse(first)?, parse(last)?)
    }

    fn of(first: IpAddr, last: IpAddr) -> Result<Self, &'static str> {
        let (mut first, mut last) = (first, last);
        // A network that holds more than the mapped ones (`::/0`) is one of IPv6 alone.
        if first.to_canonical().is_ipv4() == last.to_canonical().is_ipv4() {
            (first, last) = (first.to_canonical(), last.to_canonical());
        }
        if first.is_ipv4() != last.is_ipv4() {
            return Err("is of one family: two IPv4 addresses, or two IPv6 addresses");
        }
        if first > last { Err("ends before it begins") } else { Ok(Self { first, last }) }
    }
}

/// Sorted, and those that meet made one.
pub(super) fn merged(mut ranges: Vec<Range>) -> Box<[Range]> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(before) if range.first <= before.last => before.last = before.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged.into()
}

/// Whether one of `ranges`, which are [`merged`], holds a canonical address.
pub(super) fn any_contains(ranges: &[Range], address: IpAddr) -> bool {
    let after = ranges.partition_point(|range| range.first <= address);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|range| range.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse::<IpAddr>().unwrap().to_canonical()
    }

    #[test]
    fn both_ends_count_and_mapped_addresses_are_the_ipv4_ones() {
        let range = Range::between("10.0.0.2", "::ffff:10.0.0.4").unwrap();
        for (text, expected) in [
            ("10.0.0.1", false),
            ("10.0.0.2", true),
            ("::ffff:10.0.0.3", true),
            ("10.0.0.4", true),
            ("10.0.0.5", false),
            ("::a00:3", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(range.contains(address(text)), expected, "{text}");
        }
    }

    #[test]
    fn networks_hold_their_first_and_last() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255"][..], &["9.255.255.255", "11.0.0.0", "::a00:1"][..]),
            ("10.9.8.7/8", &["10.0.0.0"], &["11.0.0.0"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3"], &["11.0.0.0"]),
            ("::/0", &["::1", "ffff::"], &["10.0.0.1", "::ffff:10.0.0.1"]),
            ("0.0.0.0/0", &["1.2.3.4"], &["::1"]),
            ("2001:db8::/32", &["2001:db8:ffff::"], &["2001:db9::"]),
            ("192.0.2.7", &["192.0.2.7"], &["192.0.2.8"]),
        ] {
            let range = Range::single(network).unwrap();
            assert!(inside.iter().all(|text| range.contains(address(text))), "{network}");
            assert!(!outside.iter().any(|text| range.contains(address(text))), "{network}");
        }
    }

    #[test]
    fn what_names_no_address_is_refused() {
        for text in ["", "10.0.0", "10.0.0.0/33", "host", "10.0.0.1-10.0.0.2"] {
            assert!(Range::single(text).is_err(), "{text}");
        }
        for (first, last) in [("10.0.0.2", "10.0.0.1"), ("10.0.0.1", "::1"), ("a", "b"), ("10.0.0.0/8", "11.0.0.0")] {
            assert!(Range::between(first, last).is_err(), "{first} {last}");
        }
    }

    #[test]
    fn many_ranges_are_searched_as_each_of_them() {
        let ranges: Vec<Range> = ["10.0.0.0/24", "10.0.0.128/25", "::1", "10.0.2.0/24", "2001:db8::/32", "10.0.0.9"]
            .iter()
            .map(|text| Range::single(text).unwrap())
            .collect();
        let merged = merged(ranges.clone());
        assert_eq!(merged.len(), 4);
        for text in
            ["9.0.0.0", "10.0.0.0", "10.0.0.200", "10.0.1.0", "10.0.2.255", "10.0.3.0", "::1", "::2", "2001:db8::9"]
        {
            let address = address(text);
            assert_eq!(any_contains(&merged, address), ranges.iter().any(|range| range.contains(address)), "{text}");
        }
        assert!(!any_contains(&[], address("::1")));
    }
}
