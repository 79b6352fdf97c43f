//! Addresses and networks as the configuration writes them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use rookery_proto::xmpp::jid::Jid;

/// An IP network, as in `10.0.0.0/8` or `2001:db8::/32`; an address alone is a network of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads one. `None` if it is none, or if bits are set behind the prefix.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse::<u8>().ok().filter(|b| *b <= most)?,
            None => most,
        };
        let network = Self { address, bits };
        (masked(address, bits) == number(address)).then_some(network)
    }

    /// Whether `address` lies in it. An IPv4 address mapped into IPv6 counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.bits) == number(self.address)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn masked(address: IpAddr, bits: u8) -> u128 {
    let width: u32 = if address.is_ipv4() { 32 } else { 128 };
    let low = width.saturating_sub(u32::from(bits));
    number(address).checked_shr(low).and_then(|n| n.checked_shl(low)).unwrap_or(0)
}

/// An address to listen at. A name is not resolved: what is opened to the world should be plain to read.
pub(super) fn socket(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

/// Whether a text is a host (a name or an address), a colon and a port.
pub(super) fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let named = || Jid::parse(host).is_ok_and(|j| j.local().is_none() && j.resource().is_none());
        v6.map_or_else(named, |v6| v6.parse::<Ipv6Addr>().is_ok()) && port.parse::<u16>().is_ok_and(|p| p > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let ip = |t: &str| t.parse::<IpAddr>().unwrap();
        let ten = Network::parse("10.0.0.0/8").unwrap();
        assert!(ten.contains(ip("10.255.1.2")) && ten.contains(ip("::ffff:10.1.1.1")));
        assert!(!ten.contains(ip("11.0.0.1")) && !ten.contains(ip("::a00:1")));
        let six = Network::parse("2001:db8::/32").unwrap();
        assert!(six.contains(ip("2001:db8:1::1")) && !six.contains(ip("2001:db9::1")));
        assert!(Network::parse("0.0.0.0/0").unwrap().contains(ip("8.8.8.8")));
        assert!(Network::parse("192.0.2.7").unwrap().contains(ip("192.0.2.7")));
        for bad in ["", "10.0.0.0/33", "10.0.0.1/8", "x/8", "10.0.0.0/-1", "::/129"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
