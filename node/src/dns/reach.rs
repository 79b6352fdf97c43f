//! Which addresses a server may have.

use std::net::IpAddr;

use crate::config::Network;

/// What is connected to.
#[derive(Debug)]
pub(super) struct Reach {
    /// Only this very machine.
    pub(super) loopback: bool,
    /// Where no other server is. Does not count with `loopback`.
    pub(super) refused: Vec<Network>,
}

impl Reach {
    /// Whether a server can have this address.
    pub(super) fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let nobody = match address {
            IpAddr::V4(v4) => v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
        };
        match self.loopback {
            true => address.is_loopback(),
            false => {
                let refused = |address| self.refused.iter().any(|network| network.contains(address));
                !nobody && !refused(address) && !embedded(address).is_some_and(refused)
            }
        }
    }
}

/// The IPv4 address that a translator or a tunnel would lead to: NAT64 (RFC 6052 section 2.1), 6to4 (RFC 3056 section 2), and the old
/// form of RFC 4291 section 2.5.5.1.
fn embedded(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return None };
    let pair = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(IpAddr::from([a, b, c, d]))
    };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => pair(high, low),
        [0x2002, high, low, ..] => pair(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high > 0 => pair(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_server_has() {
        let network = |text| Network::parse(text).unwrap();
        let permits = |reach: &Reach, text: &str| reach.permits(text.parse().unwrap());
        let open = Reach { loopback: false, refused: Vec::new() };
        for bad in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1", "::ffff:0.0.0.0"] {
            assert!(!permits(&open, bad), "{bad}");
        }
        assert!(permits(&open, "127.0.0.1") && permits(&open, "2001:db8::1"));
        let closed = Reach { loopback: false, refused: vec![network("127.0.0.0/8"), network("fe80::/10")] };
        for bad in ["127.0.0.1", "::ffff:127.0.0.1", "fe80::1"] {
            assert!(!permits(&closed, bad), "{bad}");
        }
        assert!(permits(&closed, "192.0.2.1"));
        // The same addresses, in the clothes of IPv6.
        for bad in ["64:ff9b::127.0.0.1", "::127.0.0.1", "2002:7f00:1::", "2002:7f00:1::5"] {
            assert!(!permits(&closed, bad), "{bad}");
        }
        assert!(permits(&closed, "64:ff9b::192.0.2.1") && permits(&closed, "2002:c000:201::1"));
        let trial = Reach { loopback: true, ..closed };
        assert!(permits(&trial, "127.0.0.1") && permits(&trial, "::1") && !permits(&trial, "192.0.2.1"));
    }
}
