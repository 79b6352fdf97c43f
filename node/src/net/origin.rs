//! The unit that limits count: an address, or the networks that one customer has.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// One IPv4 address, or one IPv6 /64 network. An IPv4 address mapped into IPv6 is the IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin(IpAddr);

/// One IPv4 address, or an IPv6 network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The IPv6 networks that limits count, narrow to wide, and how many times as much as a /64 each may take: a customer has a
/// /64, a /56 or a /48, and could come from each part of it.
const WIDER: [(u8, u32); 3] = [(64, 1), (56, 2), (48, 4)];

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(IpAddr::V6(masked(v6, 64))),
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

fn masked(address: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    Ipv6Addr::from(u128::from(address) & mask)
}

impl Origin {
    /// The narrowest network that counts.
    pub fn network(self) -> Network {
        let prefix = if self.0.is_ipv4() { 32 } else { 64 };
        Network { address: self.0, prefix }
    }

    /// All networks that count, narrow to wide, and how many times as much as the narrowest each may take.
    pub fn networks(self) -> impl Iterator<Item = (Network, u32)> {
        let (v4, v6) = match self.0 {
            IpAddr::V4(_) => (Some((self.network(), 1)), None),
            IpAddr::V6(v6) => (None, Some(v6)),
        };
        let network = |v6, prefix| Network { address: IpAddr::V6(masked(v6, prefix)), prefix };
        let wider = v6
            .into_iter()
            .flat_map(move |v6| WIDER.into_iter().map(move |(prefix, share)| (network(v6, prefix), share)));
        v4.into_iter().chain(wider)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => v4.fmt(f),
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn one_customer_is_one_origin() {
        assert_eq!(origin("2001:db8:1:2:3::4"), origin("2001:db8:1:2::"));
        assert_ne!(origin("2001:db8:1:2::"), origin("2001:db8:1:3::"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
        assert_eq!(origin("2001:db8:1:2:3::4").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn wider_networks_hold_the_narrow_ones() {
        assert_eq!(origin("192.0.2.1").networks().collect::<Vec<_>>(), [(origin("192.0.2.1").network(), 1)]);
        let all = |text: &str| origin(text).networks().map(|(network, _)| network).collect::<Vec<_>>();
        let (a, b, c, d) = (
            all("2001:db8:1:ab00::1"),
            all("2001:db8:1:abff::1"),
            all("2001:db8:1:ffff::1"),
            all("2001:db8:2::1"),
        );
        let same = |one: &[Network], other: &[Network]| {
            one.iter().zip(other).map(|(a, b)| a == b).collect::<Vec<_>>()
        };
        assert_eq!(same(&a, &b), [false, true, true]);
        assert_eq!(same(&a, &c), [false, false, true]);
        assert_eq!(same(&a, &d), [false, false, false]);
    }
}
