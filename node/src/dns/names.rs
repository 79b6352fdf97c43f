//! Names as DNS writes them, from domains as JIDs write them.

use std::net::IpAddr;

use hickory_resolver::proto::rr::Name;

/// The longest name that leaves room for `_xmpps-server._tcp.` before it (RFC 1035 section 2.3.4: 255 octets in all).
const LONGEST: usize = 253 - "_xmpps-server._tcp.".len();

/// The address, if `domain` is one, in the brackets of IPv6 or without.
pub(crate) fn address(domain: &str) -> Option<IpAddr> {
    let bare = domain.strip_prefix('[').and_then(|d| d.strip_suffix(']')).unwrap_or(domain);
    bare.parse().ok()
}

/// `domain` in A-labels (RFC 5891), lower case, without a dot at the end. `None` if DNS cannot hold it as a host with an XMPP
/// service.
pub(crate) fn ascii(domain: &str) -> Option<String> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let name = idna::domain_to_ascii(domain).ok()?;
    (name.len() <= LONGEST && is_host(&name)).then_some(name)
}

/// The target of an SRV record as text, if it can be the name of a host.
pub(super) fn target(name: &Name) -> Option<String> {
    let mut text = name.to_ascii();
    text.make_ascii_lowercase();
    let text = text.strip_suffix('.').unwrap_or(&text);
    is_host(text).then(|| text.to_owned())
}

/// The name `host` below `prefix`, which is empty or ends with a dot.
pub(super) fn absolute(prefix: &str, host: &str) -> Option<Name> {
    Name::from_ascii(format!("{prefix}{host}.")).ok()
}

/// Whether `name` ends with `.onion` (RFC 7686).
pub(super) fn is_onion(name: &str) -> bool {
    name.rsplit('.').next() == Some("onion")
}

/// The last two labels: who has so many names that they matter has most of them there.
pub(crate) fn zone(name: &str) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    let at = name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
    name.get(at..).unwrap_or_default().to_ascii_lowercase()
}

fn is_host(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_one_name() {
        for spelling in ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "bücher.example."] {
            assert_eq!(ascii(spelling).as_deref(), Some("xn--bcher-kva.example"), "{spelling}");
        }
        assert_eq!(ascii("a_b.example").as_deref(), Some("a_b.example"));
        let long = format!("{}.example", "a".repeat(64));
        let longer = ["a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(60)].join(".");
        for bad in ["", ".", "a..b", "a b.example", "a\\.example", long.as_str(), longer.as_str()] {
            assert_eq!(ascii(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_zone_is_two_labels() {
        for (name, zone) in [
            ("_xmpp-server._tcp.a.Evil.example.", "evil.example"),
            ("evil.example", "evil.example"),
            ("localhost", "localhost"),
            ("", ""),
        ] {
            assert_eq!(super::zone(name), zone, "{name}");
        }
    }

    #[test]
    fn addresses_and_onions() {
        assert_eq!(address("[::1]"), "::1".parse().ok());
        assert_eq!(address("192.0.2.1"), "192.0.2.1".parse().ok());
        assert_eq!(address("example.org"), None);
        assert!(is_onion("a.onion") && is_onion("b.a.onion") && !is_onion("onion.example"));
    }
}
