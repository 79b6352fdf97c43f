//! Whom limits count: an address, or the network that one customer has.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// One IPv4 address, or one IPv6 /64 network. An IPv4 address mapped into IPv6 is the IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin(IpAddr);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64))),
            v4 @ IpAddr::V4(_) => Self(v4),
        }
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

    #[test]
    fn one_customer_is_one_origin() {
        let origin = |t: &str| Origin::from(t.parse::<IpAddr>().unwrap());
        assert_eq!(origin("2001:db8:1:2:3::4"), origin("2001:db8:1:2::"));
        assert_ne!(origin("2001:db8:1:2::"), origin("2001:db8:1:3::"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
        assert_eq!(origin("2001:db8:1:2:3::4").to_string(), "2001:db8:1:2::/64");
    }
}
