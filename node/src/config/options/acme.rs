//! The options of `[acme]`.

use super::{Kind, Opt, number, opt};

const fn acme(name: &'static str, kind: Kind, doc: &'static str) -> Opt {
    opt("acme", name, kind, true, doc)
}

/// See the module.
pub(super) const ACME: &[Opt] = &[
    acme(
        "directory",
        Kind::Text(""),
        "The certificate authority: `letsencrypt`, `letsencrypt-staging` (for trials; clients do not trust its certificates), or the directory URL of another one. Empty: no certificates are ordered. After a change, new certificates are ordered from the new authority.",
    ),
    acme(
        "contact",
        Kind::List(&[]),
        "Addresses that the authority may use to reach you, as in `mailto:admin@example.org`.",
    ),
    acme(
        "agree",
        Kind::Flag(false),
        "Whether you agree to the authority's terms of service. No certificate is ordered without.",
    ),
    acme(
        "challenge",
        Kind::Word(&["tls-alpn-01", "http-01", "dns-01"]),
        "How the authority checks each name. `tls-alpn-01`: it connects to port 443 of the name; `listen.c2s_tls`, `listen.s2s_tls` and `listen.https` answer. `http-01`: it connects to port 80; `acme.listen`, `listen.http` and `listen.https` answer below `/.well-known/acme-challenge/`. `dns-01`: it looks for a DNS record that `acme.hook` sets. Any node of a cluster can answer.",
    ),
    opt(
        "acme",
        "listen",
        Kind::List(&[]),
        false,
        "Addresses that answer `http-01` and nothing else, as in `[::]:80`.",
    ),
    acme(
        "names",
        Kind::List(&[]),
        "More names to order certificates for, as in `xmpp.example.org`: such as that of `listen.https`.",
    ),
    acme(
        "hook",
        Kind::List(&[]),
        "For `dns-01`: a program, by its full path, and its arguments. It is called with three more arguments: `set`, the name of the TXT record, and the value; it must exit with 0 once all name servers of the zone have the record. Later it is called with `remove` instead of `set`. Every node of a cluster needs the program.",
    ),
    acme(
        "hook_seconds",
        number(120, 1, 3_600),
        "Time limit, in seconds, for a call of `hook`; then the program is killed.",
    ),
    acme(
        "ca",
        Kind::Text(""),
        "PEM file of the certificates that the authority's own server is checked with; empty: those of the operating system. For authorities that are not public.",
    ),
];
