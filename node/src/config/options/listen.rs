//! `[listen]`: the addresses of a node.

use super::{Kind, Opt, opt};

/// The options of the section.
pub(super) const LISTEN: &[Opt] = &[
    opt(
        "listen",
        "c2s",
        Kind::List(&["[::]:5222"]),
        false,
        "Addresses for clients with STARTTLS, which is required.",
    ),
    opt(
        "listen",
        "c2s_tls",
        Kind::List(&["[::]:5223"]),
        false,
        "Addresses for clients with direct TLS (XEP-0368, ALPN `xmpp-client`).",
    ),
    opt(
        "listen",
        "component",
        Kind::List(&[]),
        false,
        "Loopback addresses for components, in the clear, as in `127.0.0.1:5347`.",
    ),
    opt(
        "listen",
        "component_tls",
        Kind::List(&[]),
        false,
        "Addresses for components with direct TLS, for components on other machines. Components that know no TLS need a program such as stunnel.",
    ),
    opt(
        "listen",
        "s2s",
        Kind::List(&["[::]:5269"]),
        false,
        "Addresses for other servers with STARTTLS, which is required. Only with `federation.enabled`, which setting this option turns on. An address that `c2s` lists too is one port for both: the namespace of the stream says whether a client or a server has called. Port 0 is never shared.",
    ),
    opt(
        "listen",
        "s2s_tls",
        Kind::List(&["[::]:5270"]),
        false,
        "Addresses for other servers with direct TLS (XEP-0368, ALPN `xmpp-server`). As `s2s`; if only `s2s` is set, there is none. An address that `c2s_tls` lists too is one port for both: ALPN says whether a client or a server has called, or else the namespace of the stream.",
    ),
    opt(
        "listen",
        "http",
        Kind::List(&["127.0.0.1:5280"]),
        false,
        "Addresses for `/metrics`, `/healthz` and `/readyz`. Keep them private.",
    ),
    opt(
        "listen",
        "https",
        Kind::List(&[]),
        false,
        "HTTP by TLS with the certificates of the domains, for everybody: `/healthz`, `/readyz`, challenges for certificates, and POSH files (`federation.posh_publish`).",
    ),
    opt(
        "listen",
        "http_proxy_trusted",
        Kind::List(&[]),
        true,
        "The networks of proxies in front of `http` and `https` that are believed when they name the client, by `X-Forwarded-For` or `Forwarded`. The proxy must remove the header that it does not write.",
    ),
    opt(
        "listen",
        "admin",
        Kind::Text(""),
        false,
        "The admin socket for the commands, as in `unix:/run/rookery/admin.sock`; empty: `admin.sock` in `data_dir`.",
    ),
    opt(
        "listen",
        "proxy_protocol",
        Kind::Flag(false),
        false,
        "Whether connections to `c2s` and `c2s_tls`, and to ports that servers share with clients, must begin with a PROXY header (v1 or v2) of a load balancer in `proxy_trusted`.",
    ),
    opt(
        "listen",
        "proxy_trusted",
        Kind::List(&["127.0.0.0/8", "::1/128"]),
        true,
        "The networks of the load balancers. While `proxy_protocol` is on, connections from other addresses are refused.",
    ),
    opt(
        "listen",
        "public",
        Kind::Text(""),
        true,
        "`host:port` at which clients reach this node and no other. Sent to clients as the address for resumption (XEP-0198 `location`), and by other nodes for `cluster.redirect`. Empty: not sent.",
    ),
];
