//! The names in a certificate, and whether a domain is among them (RFC 6125, RFC 9525, RFC 6120 section 13.7.1.2).

use std::net::IpAddr;

use x509_parser::der_parser::ber::parse_ber_any;
use x509_parser::prelude::{GeneralName, X509Certificate};

use crate::dns::names;

/// id-on-dnsSRV (RFC 4985 section 2) and id-on-xmppAddr (RFC 6120 section 13.7.1.4).
const SRV: &str = "1.3.6.1.5.5.7.8.7";
const XMPP: &str = "1.3.6.1.5.5.7.8.5";
/// The service of an SRV-ID for servers.
const SERVICE: &str = "_xmpp-server.";

/// The names that a certificate is for. The subject's common name is none (RFC 9525 section 2).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// DNS-IDs, lower case.
    dns: Vec<String>,
    /// SRV-IDs of XMPP servers, without the service; lower case.
    srv: Vec<String>,
    /// XmppAddrs: domains, in A-labels.
    xmpp: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Names {
    /// The error says what cannot be read.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Result<Self, String> {
        let mut names = Self::default();
        let extension =
            certificate.subject_alternative_name().map_err(|e| format!("its names cannot be read: {e}"))?;
        for name in extension.iter().flat_map(|e| &e.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.dns.push(name.to_ascii_lowercase()),
                GeneralName::OtherName(kind, value) => match kind.to_id_string().as_str() {
                    SRV => {
                        let name = text(value).map(|name| name.to_ascii_lowercase());
                        names.srv.extend(name.and_then(|n| n.strip_prefix(SERVICE).map(str::to_owned)));
                    }
                    XMPP => names.xmpp.extend(text(value).and_then(names::ascii)),
                    _ => {}
                },
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(names)
    }

    /// Whether they are for an XMPP domain, in A-labels or an address.
    pub(super) fn cover(&self, domain: &str) -> bool {
        match names::address(domain) {
            Some(address) => self.addresses.contains(&address),
            None => self.cover_host(domain) || self.srv.iter().chain(&self.xmpp).any(|name| name == domain),
        }
    }

    /// Whether a DNS-ID is for this host, in A-labels.
    pub(super) fn cover_host(&self, host: &str) -> bool {
        self.dns.iter().any(|name| match name.strip_prefix("*.") {
            // One label, and the whole of it (RFC 9525 section 6.3).
            Some(rest) => host.split_once('.').is_some_and(|(_, parent)| parent == rest),
            None => name == host,
        })
    }

    /// A few of them, for people.
    pub(super) fn some(&self) -> Vec<String> {
        let all = self.dns.iter().chain(&self.srv).chain(&self.xmpp).cloned();
        all.chain(self.addresses.iter().map(ToString::to_string)).take(5).collect()
    }
}

/// The string within the `[0]` of an otherName: IA5String or UTF8String.
fn text(value: &[u8]) -> Option<&str> {
    let (_, explicit) = parse_ber_any(value).ok()?;
    let (_, string) = parse_ber_any(explicit.data).ok()?;
    std::str::from_utf8(string.data).ok()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}
