//! The client of a request. A proxy names the client it asks for, by `X-Forwarded-For` or `Forwarded` (RFC 7239); only proxies that the operator has named
//! are believed, since anybody can write such a header.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, header};

/// Whether a proxy at this address is believed. Asked for each request, so that a reload counts.
pub type Trusted = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// The client of a request. Among the request's extensions.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its address: that of the connection, or what a trusted proxy says.
    pub address: IpAddr,
    /// Whether the client's connection is encrypted, here or at a trusted proxy.
    pub secure: bool,
    /// TLS of the connection to us; `None` without, and where a proxy stands between.
    pub tls: Option<Arc<Tls>>,
}

/// What a handshake has agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The channel binding `tls-exporter` (RFC 9266).
    pub exporter: Option<[u8; 32]>,
    /// The channel binding `tls-server-end-point` (RFC 5929 section 4).
    pub server_end_point: Option<Vec<u8>>,
}

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// One proxy's word: the client it asks for, and whether that client's connection is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hop {
    address: Option<IpAddr>,
    secure: bool,
}

impl Client {
    /// The client of a request with these headers over a connection from `peer`.
    pub(super) fn of(peer: IpAddr, tls: Option<Arc<Tls>>, headers: &HeaderMap, trusted: &Trusted) -> Self {
        let direct = Self { address: peer.to_canonical(), secure: tls.is_some(), tls };
        if !trusted(direct.address) {
            return direct;
        }
        let (old, new) = (forwarded_for(headers), forwarded(headers));
        let found = match (behind(&old, trusted), behind(&new, trusted)) {
            (Some(old), Some(new)) if old.address == new.address => Some(new),
            // The proxy writes one of them, and lets the client write the other: which is which is not known.
            (Some(_), Some(_)) => None,
            (old, new) => old.or(new),
        };
        match found {
            Some(Hop { address: Some(address), secure }) => Self { address, secure, tls: None },
            _ => direct,
        }
    }
}

/// The first hop from the right that is no proxy of ours; what stands left of it was written by anybody.
fn behind(hops: &[Hop], trusted: &Trusted) -> Option<Hop> {
    let mut found = None;
    for hop in hops.iter().rev() {
        let Some(address) = hop.address else { break };
        found = Some(*hop);
        if !trusted(address) {
            break;
        }
    }
    found
}

/// Elements of a list, over all lines of the header.
fn elements<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

fn forwarded_for(headers: &HeaderMap) -> Vec<Hop> {
    let secure =
        elements(headers, &FORWARDED_PROTO).last().is_some_and(|proto| proto.eq_ignore_ascii_case("https"));
    elements(headers, &FORWARDED_FOR).map(|text| Hop { address: address(text), secure }).collect()
}

/// RFC 7239 section 4. A comma inside of quotes, which no address has, makes an element that names nobody.
fn forwarded(headers: &HeaderMap) -> Vec<Hop> {
    let hop = |element: &str| {
        let mut hop = Hop { address: None, secure: false };
        for (name, value) in element.split(';').filter_map(|pair| pair.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "for" => hop.address = address(value),
                "proto" => hop.secure = value.eq_ignore_ascii_case("https"),
                _ => {}
            }
        }
        hop
    };
    elements(headers, &header::FORWARDED).map(hop).collect()
}

/// An address with or without a port, and with brackets around IPv6 or without.
fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|at| at.ip());
    text.parse().ok().or_else(with_port).or_else(bare).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(peer: &str, lines: &[(&'static str, &'static str)]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let trusted: Trusted = Arc::new(|address| address.to_string().starts_with("10."));
        let client = Client::of(peer.parse().unwrap(), None, &headers, &trusted);
        (client.address.to_string(), client.secure)
    }

    #[test]
    fn only_named_proxies_are_believed() {
        let old = [("x-forwarded-for", "203.0.113.7"), ("x-forwarded-proto", "https")];
        assert_eq!(client("10.0.0.1", &old), ("203.0.113.7".to_owned(), true));
        assert_eq!(client("::ffff:10.0.0.1", &old), ("203.0.113.7".to_owned(), true));
        assert_eq!(client("192.0.2.1", &old), ("192.0.2.1".to_owned(), false));
        assert_eq!(client("10.0.0.1", &[]), ("10.0.0.1".to_owned(), false));
        let new = [("forwarded", "for=\"[2001:db8::7]:4711\";proto=https;by=10.0.0.1")];
        assert_eq!(client("10.0.0.1", &new), ("2001:db8::7".to_owned(), true));
    }

    #[test]
    fn what_the_client_wrote_in_front_does_not_count() {
        let address = |lines: &[(&'static str, &'static str)]| client("10.0.0.1", lines).0;
        // Two proxies of ours; the client has made up the first address, and a line of its own.
        assert_eq!(address(&[("x-forwarded-for", "198.51.100.1, 203.0.113.7:99, 10.0.0.2")]), "203.0.113.7");
        let lines = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.7")];
        assert_eq!(address(&lines), "203.0.113.7");
        assert_eq!(address(&[("forwarded", "for=198.51.100.1, for=203.0.113.7;proto=http")]), "203.0.113.7");
        assert_eq!(address(&[("x-forwarded-for", "10.0.0.3, 10.0.0.2")]), "10.0.0.3");
        // Nobody is named: it is the proxy that asks.
        for nobody in ["unknown", "_hidden", "300.1.1.1", "", ",", "[::1"] {
            assert_eq!(client("10.0.0.1", &[("x-forwarded-for", nobody)]).0, "10.0.0.1", "{nobody}");
        }
        // One header is the proxy's, the other one passed through.
        let both = [("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=198.51.100.1")];
        assert_eq!(address(&both), "10.0.0.1");
        assert_eq!(
            address(&[("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=203.0.113.7")]),
            "203.0.113.7"
        );
    }
}
