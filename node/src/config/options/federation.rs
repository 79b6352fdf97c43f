//! The options of `[federation]` and `[[route]]`: which servers this one talks to, and how much each of them may take.

use super::{Kind, Opt, number, opt};

const fn federation(name: &'static str, kind: Kind, doc: &'static str) -> Opt {
    opt("federation", name, kind, true, doc)
}

const fn limit(name: &'static str, default: u64, min: u64, max: u64, doc: &'static str) -> Opt {
    opt("federation", name, number(default, min, max), true, doc)
}

/// All of them.
pub(super) const FEDERATION: &[Opt] = &[
    opt(
        "federation",
        "enabled",
        Kind::Flag(false),
        false,
        "Whether this server talks to others. If missing: yes if `listen.s2s` or `listen.s2s_tls` is set.",
    ),
    federation(
        "policy",
        Kind::Word(&["certificate", "dane", "dialback"]),
        "How another server proves its domain, in both directions. `certificate`: a certificate that is valid for the domain, by a trusted authority or by DANE. `dane`: by DANE with DNSSEC only. `dialback`: a certificate, or else server dialback (XEP-0220), which is only as safe as DNS. TLS is required in each case.",
    ),
    federation(
        "certificate",
        Kind::List(&[]),
        "Domains for which the policy is `certificate`, whatever `policy` says, as in `\"example.net\"` or `\"*.example.net\"`. If several lists match, the strictest policy holds.",
    ),
    federation("dane", Kind::List(&[]), "Domains for which the policy is `dane`."),
    federation("dialback", Kind::List(&[]), "Domains for which the policy is `dialback`."),
    federation(
        "require_secure",
        Kind::List(&[]),
        "Domains to which nothing is sent, and from which nothing is taken, without TLS and a valid certificate, whatever `policy` and `dialback` say.",
    ),
    federation(
        "posh",
        Kind::Flag(false),
        "Whether a domain may prove its certificate by a POSH file (RFC 7711), `https://DOMAIN/.well-known/posh/xmpp-server.json`, where the policy is `certificate` and the certificate is valid by no authority and no DANE record. The file counts as a valid certificate. Off by default, because everybody who may write to a domain's web site can then speak for the domain, and strangers can make this server ask web servers. Records of DANE count more, and the policies `dane` and `dialback` never ask for the file. Addresses in `dns.refuse_networks` and hosts in `refuse` are not asked.",
    ),
    federation(
        "posh_publish",
        Kind::Flag(false),
        "Whether `listen.https` and `listen.http` answer `/.well-known/posh/xmpp-server.json` for each domain of this server and its components, with the fingerprints of the certificate that other servers are shown. For domains whose certificate is of another name: their web server must pass these requests on with their `Host` header, or refer to a URL here.",
    ),
    federation(
        "refuse",
        Kind::List(&[]),
        "Domains that this server does not talk to, as in `\"spam.example\"` or `\"*.spam.example\"`.",
    ),
    federation(
        "allow",
        Kind::List(&[]),
        "If not empty: the only domains that this server talks to. `refuse` counts more.",
    ),
    limit(
        "queue_seconds",
        300,
        1,
        604_800,
        "Seconds that a stanza for a server which cannot be reached waits. Then it is returned to its sender with an error. For a server that is reached and whose certificate is not valid it is 30 seconds.",
    ),
    limit(
        "queue_stanzas",
        10_000,
        100,
        10_000_000,
        "Stanzas that wait for one domain. Further ones are returned at once with `resource-constraint`; so are those of a sender who has more there than is free.",
    ),
    limit("queue_bytes", 33_554_432, 1_000_000, 100_000_000_000, "The same in bytes."),
    limit(
        "links",
        10_000,
        1,
        1_000_000,
        "Pairs of one domain of this server and one of another for which one node holds stanzas at a time. Stanzas for further pairs are returned at once with `resource-constraint`.",
    ),
    limit(
        "memory_bytes",
        1_048_576,
        65_536,
        1_000_000_000,
        "Bytes of stanzas for one domain that are held in memory: sent and not acknowledged, or waiting. Further messages wait in the store only.",
    ),
    limit(
        "stanza_bytes",
        524_288,
        10_000,
        16_777_216,
        "The largest stanza from another server, in bytes (XEP-0478). Not smaller than `limits.stanza_bytes`, if users of two such servers are to send each other what they may send here.",
    ),
    limit("streams", 10_000, 1, 1_000_000, "Streams from other servers, in total."),
    limit(
        "streams_per_address",
        1_000,
        1,
        1_000_000,
        "Streams from one IPv4 address or one IPv6 /64 network. A server with many domains opens one for each pair of its domains and yours.",
    ),
    limit(
        "streams_per_domain",
        20,
        1,
        100_000,
        "Streams on which one remote domain has proved itself to one domain of this server. Over all domains of this server it may have as many, and four more for each of them that it talks to.",
    ),
    limit(
        "streams_unproved",
        1_000,
        1,
        1_000_000,
        "Streams from other servers that have not proved a domain yet. At the limit, the oldest of them is closed.",
    ),
    limit(
        "streams_unproved_per_address",
        200,
        1,
        1_000_000,
        "`streams_unproved` from one IPv4 address or one IPv6 /64 network. One /56 may have twice as many, one /48 four times as many.",
    ),
    limit(
        "new_streams_per_minute",
        600,
        1,
        1_000_000,
        "New streams from one IPv4 address or one IPv6 /64 network in a minute. Further ones are closed at once.",
    ),
    limit(
        "domains_per_stream",
        50,
        1,
        10_000,
        "Pairs of a remote and a local domain on one stream (XEP-0220 section 2.6).",
    ),
    limit(
        "verifications",
        200,
        1,
        100_000,
        "Dialback keys of other servers that are being verified at the same time. Above the limit, the oldest makes room once it has had 5 seconds; until then the other server is told to come back later.",
    ),
    limit(
        "bytes_per_second",
        2_097_152,
        10_000,
        10_000_000_000,
        "Average rate at which one remote domain may send to this node, over all its streams, or one address before a domain is proved. Above the rate, the node reads more slowly.",
    ),
    limit(
        "bytes_burst",
        8_388_608,
        10_000,
        10_000_000_000,
        "Bytes that may arrive at once before `bytes_per_second` applies.",
    ),
    limit(
        "stanzas_per_second",
        5_000,
        1,
        100_000_000,
        "Average rate of stanzas that one remote domain may send to this node. Above the rate, the node reads more slowly.",
    ),
    limit(
        "stanzas_burst",
        20_000,
        1,
        100_000_000,
        "Stanzas that may arrive at once before `stanzas_per_second` applies.",
    ),
    limit(
        "negotiation_seconds",
        60,
        1,
        3_600,
        "Seconds that a stream, from another server or to one, may take until a domain is proved on it. A target of several has a quarter of it, so that one that says nothing leads to the next.",
    ),
    limit(
        "idle_seconds",
        600,
        10,
        86_400,
        "Seconds after which a stream on which nothing is sent is closed. Advertised by XEP-0478.",
    ),
    limit(
        "resume_seconds",
        300,
        0,
        86_400,
        "Seconds that the state of a lost stream from another server is kept on this node for resumption (XEP-0198); 0: streams cannot be resumed.",
    ),
    opt(
        "route",
        "domain",
        Kind::Text(""),
        true,
        "A domain, or `*.` and a domain for all below it. `*`: every domain. Of several routes that match, the closest holds.",
    ),
    opt(
        "route",
        "via",
        Kind::Text(""),
        true,
        "`host:port` of the server that takes what is for the domain. Its certificate must be valid for the domain, not for the host.",
    ),
    opt(
        "route",
        "tls",
        Kind::Word(&["starttls", "direct"]),
        true,
        "How TLS begins there: within the stream, or with the first byte (XEP-0368).",
    ),
];
