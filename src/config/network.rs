//! A network in the file: `10.0.0.0/8`, or a single address.

use std::{borrow::Cow, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Addresses that share a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl Network {
    /// This machine, in both families.
    pub fn loopback() -> Vec<Self> {
        let v4 = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);
        let v6 = ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128);
        vec![Self(v4.into()), Self(v6.into())]
    }

    /// Whether it is every address of its family, or so many that nobody's own network is as large: that is wider
    /// than /8, or than /16 in IPv6.
    pub fn is_everyone(self) -> bool {
        self.0.prefix_len() < if self.0.addr().is_ipv4() { 8 } else { 16 }
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let single = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_| single()).map(Self).map_err(|_| FORM)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": FORM })
    }
}

const FORM: &str = "a network is an IP address and a prefix length, such as \"10.0.0.0/8\", or a single address";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses_are_read() {
        assert_eq!("10.1.2.3".parse::<Network>().map(|n| n.0.to_string()).as_deref(), Ok("10.1.2.3/32"));
        assert_eq!("::1".parse::<Network>().map(|n| n.0.to_string()).as_deref(), Ok("::1/128"));
        assert!("0.0.0.0/0".parse::<Network>().is_ok_and(Network::is_everyone));
        assert!("10.0.0.0/8".parse::<Network>().is_ok_and(|n| !n.is_everyone()));
        for text in ["", "10.0.0.0/33", "localhost", "10.0.0/8"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
