//! The options of `[dns]` and `[authorities]`: how other servers are found, and whose signature proves them.

use super::{Kind, Opt, opt};

/// All of them.
pub(super) const REMOTE: &[Opt] = &[
    opt(
        "dns",
        "servers",
        Kind::List(&[]),
        true,
        "The DNS servers, as in `\"192.0.2.53\"` or `\"[::1]:5353\"`; empty: those of the system (`/etc/resolv.conf`). For DANE they must pass on the records of DNSSEC, and should be on this machine or in this network.",
    ),
    opt(
        "dns",
        "trust_anchor",
        Kind::Text("root"),
        true,
        "The keys from which DNSSEC is validated. `root`: those of the root zone, which are built in. `none`: nothing is validated, and DANE is never used. Else a file with DNSKEY records in the form of zone files, as `/usr/share/dns/root.key`.",
    ),
    opt(
        "dns",
        "refuse_networks",
        Kind::List(&["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10"]),
        true,
        "Networks in which no other server can be. The owner of a domain says in DNS where its server is, and could lead connections to a service that only this machine should reach. Add the private networks (`10.0.0.0/8`, `172.16.0.0/12`, `192.168.0.0/16`, `fc00::/7`) if no other server is in yours. Static routes do not count.",
    ),
    opt(
        "dns",
        "socks5",
        Kind::Text(""),
        true,
        "IP address and port of a SOCKS5 proxy for connections to other servers, as in `127.0.0.1:9050` for Tor; empty: none.",
    ),
    opt(
        "dns",
        "socks5_domains",
        Kind::List(&["*.onion"]),
        true,
        "The domains that are reached through `socks5`, as in `\"example.net\"`, `\"*.example.net\"` (all below it), or `\"*\"` (all). DNS is not asked for them: the proxy connects to the domain itself, on port 5269.",
    ),
    opt(
        "authorities",
        "system",
        Kind::Flag(true),
        true,
        "Whether the authorities of the system are trusted (on Debian the package `ca-certificates`; the variables `SSL_CERT_FILE` and `SSL_CERT_DIR` hold as usual).",
    ),
    opt(
        "authorities",
        "file",
        Kind::Text(""),
        true,
        "PEM file with the certificates of further authorities, as that of a company; empty: none.",
    ),
];
