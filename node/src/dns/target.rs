//! Where a domain's server is, and why it may not be known.

use std::net::IpAddr;

/// How a stream to a target begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// In plain text, with STARTTLS (RFC 6120 section 5).
    Starttls,
    /// With TLS at once (XEP-0368 version 1.1.0, ALPN `xmpp-server`).
    Direct,
}

/// A host and a port that may serve a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// How a stream to it begins.
    pub begin: Begin,
    /// The host, as DNS writes it: A-labels, lower case, no dot at the end; or an IP address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The host's addresses, in the order of attempts, IPv6 and IPv4 in turn (RFC 8305 section 4). Empty if a proxy resolves
    /// the name, as with `.onion`.
    pub addresses: Vec<IpAddr>,
    /// Whether DNSSEC has validated every record that led here: the SRV records and the host's addresses. If so, a
    /// certificate for `host` is as good as one for the domain (RFC 7673 section 4).
    pub secure: bool,
    /// The TLSA records of host and port, validated by DNSSEC; empty if there are none, or if `secure` is false.
    pub tlsa: Vec<Tlsa>,
    /// Whether the connection goes through the SOCKS5 proxy.
    pub proxied: bool,
}

/// A TLSA record (RFC 6698 section 2.1) as DNS holds it. The values may be unknown ones, which make a record unusable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tlsa {
    /// Certificate usage: 0 PKIX-TA, 1 PKIX-EE, 2 DANE-TA, 3 DANE-EE.
    pub usage: u8,
    /// What is compared: 0 the certificate, 1 its public key.
    pub selector: u8,
    /// How it is compared: 0 as it is, 1 SHA-256, 2 SHA-512.
    pub matching: u8,
    /// What it is compared with.
    pub data: Vec<u8>,
}

/// Where the servers of a domain are: at least one target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Targets {
    /// In the order of attempts (RFC 2782).
    pub list: Vec<Target>,
}

/// Why no server of a domain is known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotFound {
    /// The domain is no name that DNS could hold.
    #[error("{0} is not a name that DNS can hold")]
    NotAName(String),
    /// The name does not exist, or has neither SRV records nor addresses.
    #[error("DNS has no SRV record and no address for {0}")]
    NoName(String),
    /// The domain says by an SRV record with the target `.` that it has no XMPP server (RFC 2782).
    #[error("{0} says in DNS that it has no XMPP server")]
    NoService(String),
    /// The domain has SRV records, but none of their targets has an address.
    #[error("no target of the SRV records of {0} has an address")]
    NoAddress(String),
    /// The domain's servers are where no other server can be.
    #[error("{0} is said to be served from an address that dns.refuse_networks refuses")]
    Refused(String),
    /// `.onion` and other names that only a proxy knows, without a proxy.
    #[error("{0} can only be reached through a SOCKS5 proxy; set dns.socks5")]
    NoProxy(String),
    /// DNS did not answer, or answered with an error. A later question may succeed.
    #[error("DNS did not answer for {0}: {1}")]
    NoAnswer(String, String),
}

impl NotFound {
    /// Whether it is of no use to try again soon: `remote-server-not-found`, not `remote-server-timeout`.
    pub fn permanent(&self) -> bool {
        !matches!(self, Self::NoAnswer(..))
    }
}
