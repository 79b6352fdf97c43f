//! `[dns]` and `[authorities]`: how other servers are found, and whose signature proves them.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use hickory_resolver::proto::dnssec::TrustAnchors;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use toml::de::DeTable;

use super::Network;
use super::read::{Found, Reader, Section};
use super::values::networks;
use crate::dns::names;

/// The port of DNS.
const PORT: u16 = 53;

/// `[dns]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dns {
    /// The servers; empty: those of the system.
    pub servers: Vec<SocketAddr>,
    /// What DNSSEC is validated from.
    pub trust_anchor: Anchor,
    /// The SOCKS5 proxy.
    pub proxy: Option<Proxy>,
    /// Where no other server can be.
    pub refused: Vec<Network>,
}

/// The keys that DNSSEC starts from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Anchor {
    /// The root zone's, built in.
    Root,
    /// DNSKEY records in the form of zone files (RFC 1035 section 5), read and valid.
    Keys(String),
    /// No validation.
    None,
}

/// A SOCKS5 proxy, and for which domains it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proxy {
    /// Its address.
    pub address: SocketAddr,
    /// The domains, in A-labels; `*.` before a name means all below it, `*` alone means all.
    pub domains: Vec<String>,
}

/// `[authorities]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authorities {
    /// Whether those of the system count.
    pub system: bool,
    /// PEM: further ones.
    pub file: Option<PathBuf>,
}

pub(super) fn dns(r: &mut Reader<'_>, file: &DeTable<'_>, base: &Path) -> Dns {
    let section = r.section(file, "dns");
    Dns {
        servers: servers(r, &section),
        trust_anchor: anchor(r, &section, base),
        proxy: proxy(r, &section),
        refused: networks(r, &section, "refuse_networks"),
    }
}

pub(super) fn authorities(r: &mut Reader<'_>, file: &DeTable<'_>, base: &Path) -> Authorities {
    let section = r.section(file, "authorities");
    let system = r.flag(&section, "system").value;
    let found = r.text(&section, "file");
    let path = (!found.value.is_empty()).then(|| base.join(&found.value));
    if let Some(path) = &path {
        let what = match CertificateDer::pem_file_iter(path) {
            Ok(all) => match all.collect::<Result<Vec<_>, _>>() {
                Ok(all) if all.is_empty() => Some("holds no certificate".to_owned()),
                Ok(_) => None,
                Err(error) => Some(format!("is not PEM: {error}")),
            },
            Err(error) => Some(format!("cannot be read: {error}")),
        };
        if let Some(what) = what {
            let remedy =
                "name a PEM file with certificates of authorities that the user who runs rookery can read";
            r.problem(found.line, "authorities.file", format!("{} {what}", path.display()), remedy);
        }
    }
    Authorities { system, file: path }
}

fn servers(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for Found { value, line } in r.list(section, "servers") {
        let alone = value.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, PORT));
        match value.parse().ok().or(alone) {
            Some(server) => all.push(server),
            None => {
                let remedy =
                    "write an IP address, as in \"192.0.2.53\", or with its port, as in \"[::1]:5353\"";
                r.problem(line, "dns.servers", format!("has {value:?}"), remedy);
            }
        }
    }
    all
}

fn anchor(r: &mut Reader<'_>, section: &Section<'_, '_>, base: &Path) -> Anchor {
    let found = r.text(section, "trust_anchor");
    let path = match found.value.as_str() {
        "root" => return Anchor::Root,
        "none" => return Anchor::None,
        path => base.join(path),
    };
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot be read: {error}"));
    let checked = text.and_then(|text| match text.parse::<TrustAnchors>() {
        // Keys of other zones than the root are not counted by `is_empty`.
        Ok(anchors) if anchors.is_empty() && !text.contains("DNSKEY") => {
            Err("holds no DNSKEY record".to_owned())
        }
        Ok(_) => Ok(text),
        Err(error) => Err(format!("is no list of DNSKEY records: {error}")),
    });
    match checked {
        Ok(text) => Anchor::Keys(text),
        Err(what) => {
            let remedy = "write \"root\", \"none\", or the path of a file with DNSKEY records, as in \"/usr/share/dns/root.key\"";
            r.problem(found.line, "dns.trust_anchor", format!("{} {what}", path.display()), remedy);
            Anchor::None
        }
    }
}

fn proxy(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Option<Proxy> {
    let mut domains = Vec::new();
    for Found { value, line } in r.list(section, "socks5_domains") {
        match pattern(&value) {
            Some(pattern) => domains.push(pattern),
            None => {
                let remedy = "write a domain, \"*.\" and a domain, or \"*\"";
                r.problem(line, "dns.socks5_domains", format!("has {value:?}"), remedy);
            }
        }
    }
    let found = r.text(section, "socks5");
    if found.value.is_empty() {
        return None;
    }
    match found.value.parse() {
        Ok(address) => Some(Proxy { address, domains }),
        Err(_) => {
            let remedy = "write an IP address and a port, as in \"127.0.0.1:9050\"";
            r.problem(found.line, "dns.socks5", format!("is {:?}", found.value), remedy);
            None
        }
    }
}

fn pattern(text: &str) -> Option<String> {
    match text.strip_prefix("*.") {
        _ if text == "*" => Some(text.to_owned()),
        Some(rest) => names::ascii(rest).map(|rest| format!("*.{rest}")),
        None => names::ascii(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Problem, parse};
    use super::*;

    fn read(text: &str, base: &Path) -> Result<Config, Vec<Problem>> {
        parse(&format!("{text}\n[[domain]]\nname = 'a.example'\nself_signed = true"), base)
    }

    fn problems(text: &str) -> Vec<(usize, String)> {
        let problems = read(text, Path::new("/nowhere")).unwrap_err();
        problems.into_iter().map(|p| (p.line, p.option)).collect()
    }

    #[test]
    fn the_defaults() {
        let config = read("", Path::new("/nowhere")).unwrap();
        assert_eq!(
            (config.dns.servers, config.dns.trust_anchor, config.dns.proxy),
            (Vec::new(), Anchor::Root, None)
        );
        for (address, refused) in
            [("127.9.9.9", true), ("::1", true), ("10.0.0.1", false), ("2001:db8::1", false)]
        {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(
                config.dns.refused.iter().any(|network| network.contains(address)),
                refused,
                "{address}"
            );
        }
        assert_eq!(config.authorities, Authorities { system: true, file: None });
    }

    #[test]
    fn servers_anchors_and_a_proxy() {
        let folder = tempfile::tempdir().unwrap();
        let key = "example. 3600 IN DNSKEY 257 3 13 \
            mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ==\n";
        std::fs::write(folder.path().join("key"), key).unwrap();
        let text = "[dns]\nservers = ['192.0.2.53', '[::1]:5353', '2001:db8::1']\ntrust_anchor = 'key'\n\
            socks5 = '127.0.0.1:9050'\nsocks5_domains = ['*.onion', 'bücher.example', '*']";
        let dns = read(text, folder.path()).unwrap().dns;
        let servers: Vec<String> = dns.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.53:53", "[::1]:5353", "[2001:db8::1]:53"]);
        assert_eq!(dns.trust_anchor, Anchor::Keys(key.to_owned()));
        let proxy = dns.proxy.unwrap();
        assert_eq!(proxy.domains, ["*.onion", "xn--bcher-kva.example", "*"]);
        assert_eq!(
            read("[dns]\ntrust_anchor = 'none'", folder.path()).unwrap().dns.trust_anchor,
            Anchor::None
        );
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        let text = "[dns]\nservers = ['dns.example', '::1']\ntrust_anchor = 'missing.key'\nsocks5 = 'tor'\n\
            socks5_domains = ['a*b', '*.']\nrefuse_networks = ['10.0.0.1/8']\n[authorities]\nfile = 'missing.pem'";
        let wanted = [
            (2, "dns.servers"),
            (3, "dns.trust_anchor"),
            (4, "dns.socks5"),
            (5, "dns.socks5_domains"),
            (5, "dns.socks5_domains"),
            (6, "dns.refuse_networks"),
            (8, "authorities.file"),
        ];
        assert_eq!(problems(text), wanted.map(|(line, option)| (line, option.to_owned())));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x"), "not a key").unwrap();
        std::fs::write(folder.path().join("empty"), "").unwrap();
        for (option, text) in [
            ("dns.trust_anchor", "[dns]\ntrust_anchor = 'x'"),
            ("dns.trust_anchor", "[dns]\ntrust_anchor = 'empty'"),
            ("authorities.file", "[authorities]\nfile = 'x'"),
        ] {
            let problems = read(text, folder.path()).unwrap_err();
            assert_eq!((problems.len(), problems[0].option.as_str()), (1, option), "{text}");
        }
    }
}
