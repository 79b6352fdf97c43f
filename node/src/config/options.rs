//! Every option of `rookery.toml`: one list. Reading, checking, defaults and the reference in the README derive from it.

mod limits;

/// What an option holds, and its default.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number with its unit, within bounds.
    Number {
        /// When the file does not say.
        default: u64,
        /// The least that is taken.
        min: u64,
        /// The most that is taken.
        max: u64,
    },
    /// Text.
    Text(&'static str),
    /// One of these words; the first is the default.
    Word(&'static [&'static str]),
    /// A list of texts.
    List(&'static [&'static str]),
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// The table it stands in, as in `limits`; empty for the top of the file.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether SIGHUP (or `rookery` over the admin socket) applies a change to the running node.
    pub reload: bool,
    /// What it means, for people.
    pub doc: &'static str,
}

const fn opt(section: &'static str, name: &'static str, kind: Kind, reload: bool, doc: &'static str) -> Opt {
    Opt { section, name, kind, reload, doc }
}

const fn number(default: u64, min: u64, max: u64) -> Kind {
    Kind::Number { default, min, max }
}

const fn cluster(name: &'static str, kind: Kind, doc: &'static str) -> Opt {
    opt("cluster", name, kind, false, doc)
}

const fn contact(name: &'static str, doc: &'static str) -> Opt {
    opt("domain.contact", name, Kind::List(&[]), true, doc)
}

/// The sections, in the order of the reference, with a line each.
pub const SECTIONS: &[(&str, &str)] = &[
    ("", "The top of the file."),
    ("store", "Where everything durable is kept."),
    ("listen", "Where the node listens. A port of 0 takes any free one; `<data_dir>/ports.json` names it."),
    ("domain", "One `[[domain]]` for each domain that is served."),
    (
        "domain.contact",
        "Addresses of the people behind the domain, as URIs (XEP-0157), told to everybody who asks.",
    ),
    (
        "cluster",
        "With this section the node is one of several, which share one store; without it, it is alone. In `advertise`, `certificate`, `key` and `listen.public` the word `{node}` stands for the node's name, so that one file can serve all nodes.",
    ),
    ("archive", "The message archive (XEP-0313)."),
    ("sasl", "Authentication."),
    ("session", "Sessions and their resumption (XEP-0198)."),
    ("limits", "Nothing is unbounded. The defaults suit the open internet."),
    ("log", "What is logged to standard error."),
];

/// All options. Those of `[limits]` have a file of their own: [`limits`].
pub const OPTIONS: &[Opt] = &joined();

#[allow(clippy::indexing_slicing, reason = "within a constant: a wrong index does not compile")]
const fn joined() -> [Opt; GENERAL.len() + limits::LIMITS.len()] {
    let mut all = [GENERAL[0]; GENERAL.len() + limits::LIMITS.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = if at < GENERAL.len() { GENERAL[at] } else { limits::LIMITS[at - GENERAL.len()] };
        at += 1;
    }
    all
}

const GENERAL: &[Opt] = &[
    opt(
        "",
        "data_dir",
        Kind::Text("/var/lib/rookery"),
        false,
        "The folder of everything this node keeps. A relative path starts at the folder of the configuration file.",
    ),
    opt(
        "store",
        "url",
        Kind::Text("embedded:"),
        false,
        "The store: `embedded:` keeps everything in `data_dir`; `memory:` forgets it at the end of the process; `dev://HOST:PORT` is shared with other nodes through `rookery store`, for development; `fdb:CLUSTERFILE` is a FoundationDB cluster, for production with many nodes (in a build with `--features fdb`).",
    ),
    opt(
        "store",
        "durability",
        Kind::Word(&["sync", "buffered"]),
        false,
        "`sync`: on disk before anything is acknowledged. `buffered`: handed to the operating system; survives the process, not a power cut.",
    ),
    opt(
        "store",
        "free_megabytes",
        number(256, 0, 1_000_000),
        false,
        "The embedded store takes only what removes when its disk has less room than this; the rest is refused with `resource-constraint`, and the node is not ready until there is more. 0: it does not look.",
    ),
    opt(
        "store",
        "fdb_timeout_seconds",
        number(5, 1, 60),
        false,
        "How long a transaction on FoundationDB may take. Above 5 only commits have use of it.",
    ),
    opt(
        "store",
        "fdb_trace_dir",
        Kind::Text(""),
        false,
        "Where FoundationDB's client writes its own trace files, as JSON; empty: nowhere.",
    ),
    opt(
        "store",
        "fdb_knobs",
        Kind::List(&[]),
        false,
        "Knobs of FoundationDB's client, each as `name=value`. Only if its support or documentation says so.",
    ),
    opt(
        "store",
        "fdb_tls_certificate",
        Kind::Text(""),
        false,
        "For a FoundationDB cluster with TLS: the PEM file with this node's certificate and its chain. Needs `fdb_tls_key`.",
    ),
    opt("store", "fdb_tls_key", Kind::Text(""), false, "The PEM file with its private key."),
    opt(
        "store",
        "fdb_tls_ca",
        Kind::Text(""),
        false,
        "The PEM file with the authorities of the cluster's certificates; empty: those of the variable `FDB_TLS_CA_FILE`. TLS needs one of the two: the system's authorities are not asked.",
    ),
    opt(
        "store",
        "fdb_tls_verify_peers",
        Kind::Text(""),
        false,
        "What must be in the cluster's certificates, in FoundationDB's words, as in `Check.Valid=1,S.O=Example`.",
    ),
    opt(
        "listen",
        "c2s",
        Kind::List(&["[::]:5222"]),
        false,
        "Clients that begin with STARTTLS, which is required.",
    ),
    opt(
        "listen",
        "c2s_tls",
        Kind::List(&["[::]:5223"]),
        false,
        "Clients that begin with TLS (XEP-0368, ALPN `xmpp-client`).",
    ),
    opt(
        "listen",
        "http",
        Kind::List(&["127.0.0.1:5280"]),
        false,
        "`/metrics`, `/healthz` and `/readyz`. Not for the public.",
    ),
    opt(
        "listen",
        "https",
        Kind::List(&[]),
        false,
        "HTTP by TLS with the certificates of the domains, for everybody: `/healthz` and `/readyz`.",
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
        "The admin socket, as in `unix:/run/rookery/admin.sock`; empty: `admin.sock` in `data_dir`.",
    ),
    opt(
        "listen",
        "proxy_protocol",
        Kind::Flag(false),
        false,
        "Whether connections from `proxy_trusted` to `c2s` and `c2s_tls` begin with a PROXY header, v1 or v2, as a load balancer sends it.",
    ),
    opt(
        "listen",
        "proxy_trusted",
        Kind::List(&["127.0.0.0/8", "::1/128"]),
        true,
        "The networks whose PROXY header is believed and required. A connection from anywhere else is refused while `proxy_protocol` is on.",
    ),
    opt(
        "listen",
        "public",
        Kind::Text(""),
        true,
        "`host:port` at which clients reach this very node, told to them for resumption (XEP-0198 `location`) and by other nodes (`cluster.redirect`); empty: not told.",
    ),
    opt("domain", "name", Kind::Text(""), true, "The domain, as in `example.org`."),
    opt(
        "domain",
        "certificate",
        Kind::Text(""),
        true,
        "PEM file of the certificate and its chain. Without it the node makes one, signed by its own authority in `<data_dir>/tls`.",
    ),
    opt(
        "domain",
        "key",
        Kind::Text(""),
        true,
        "PEM file of the certificate's private key; readable by its owner only.",
    ),
    opt(
        "domain",
        "registration",
        Kind::Word(&["closed", "open"]),
        true,
        "Whether anybody may make an account from a client (XEP-0077), within the limits below.",
    ),
    contact("abuse", "Abuse."),
    contact("admin", "Administrators."),
    contact("feedback", "Feedback."),
    contact("sales", "Sales."),
    contact("security", "Security."),
    contact("status", "Status pages."),
    contact("support", "Support."),
    cluster("name", Kind::Text("rookery"), "The cluster's name; nodes of other clusters are turned away."),
    cluster(
        "node",
        Kind::Text(""),
        "The node's name, which it keeps for ever and which stands in its certificate: one DNS label, as in `rookery-0`; empty: the first label of the host's name.",
    ),
    cluster(
        "listen",
        Kind::Text("127.0.0.1:7100"),
        "Where other nodes reach it. For nodes only, never for the public.",
    ),
    cluster(
        "advertise",
        Kind::Text(""),
        "`host:port` of `listen` as other nodes must write it; empty: `listen` itself.",
    ),
    cluster(
        "zone",
        Kind::Text(""),
        "The rack or data centre that it stands in. Work is spread over zones evenly.",
    ),
    cluster("weight", number(100, 1, 10_000), "How much work it takes in comparison with the others."),
    cluster(
        "authority",
        Kind::Text(""),
        "PEM file of the cluster's authority, from `rookery cluster cert`; empty: `cluster_ca.pem` in `data_dir`.",
    ),
    cluster(
        "certificate",
        Kind::Text(""),
        "PEM file of the node's certificate; empty: `{node}.pem` in `data_dir`.",
    ),
    cluster("key", Kind::Text(""), "PEM file of its private key; empty: `{node}.key` in `data_dir`."),
    cluster(
        "plain_text",
        Kind::Flag(false),
        "Nodes talk without certificates and encryption, and believe each other. For development only, and only on loopback.",
    ),
    cluster(
        "plain_text_off_loopback",
        Kind::Flag(false),
        "Allows `plain_text` where `listen` is not a loopback address: whoever reaches it reads and writes everything.",
    ),
    opt(
        "cluster",
        "denied",
        Kind::List(&[]),
        true,
        "Certificates that are turned away although they are valid, of nodes that left or whose keys were stolen: each a serial number or a SHA-256 fingerprint, in hexadecimal. Connections that stand on them end.",
    ),
    cluster(
        "redirect",
        Kind::Flag(false),
        "Whether a client that logs in elsewhere is sent to the node where its user lives, with `<see-other-host/>`, if that node has `listen.public`. It saves a hop between nodes; not for clients behind a load balancer.",
    ),
    cluster(
        "lease_seconds",
        number(4, 1, 4),
        "How long a node that does not reach the store may go on serving. The same on all nodes, as are the times below.",
    ),
    cluster(
        "death_seconds",
        number(5, 2, 60),
        "How long a node must have been silent before the others take its work. Longer than `lease_seconds`.",
    ),
    cluster(
        "handoff_seconds",
        number(5, 1, 60),
        "How long moving a shard with its users to another node may take.",
    ),
    cluster(
        "drain_seconds",
        number(60, 1, 3_600),
        "How long a node that stops may take to give all its work to others. systemd's `TimeoutStopSec` and Kubernetes' `terminationGracePeriodSeconds` must be half a minute longer.",
    ),
    opt(
        "archive",
        "default",
        Kind::Word(&["always", "roster", "never"]),
        true,
        "What is archived for users who did not choose (XEP-0441): everything, what is exchanged with contacts, or nothing.",
    ),
    opt(
        "archive",
        "retention_days",
        number(0, 0, 36_500),
        true,
        "Days after which archived messages are removed; 0 keeps them.",
    ),
    opt(
        "archive",
        "quota_megabytes",
        number(1_024, 0, 1_000_000),
        true,
        "What the archive of one account may hold; 0 sets no limit. Weighed once a day, and when a sixteenth of it was written.",
    ),
    opt(
        "archive",
        "when_full",
        Kind::Word(&["oldest", "refuse"]),
        true,
        "What happens then: the oldest messages are removed, or nothing more is archived (messages are then delivered as with `default = \"never\"`).",
    ),
    opt(
        "sasl",
        "iterations",
        number(10_000, 4_096, 10_000_000),
        true,
        "PBKDF2 rounds of newly set passwords. More is safer if the store is stolen, and makes a client's login slower.",
    ),
    opt("sasl", "plain", Kind::Flag(true), true, "Whether PLAIN is offered, over TLS, beside SCRAM."),
    opt(
        "sasl",
        "downgrade_protection",
        Kind::Flag(true),
        true,
        "Whether SCRAM proves to clients that the list of mechanisms arrived unchanged (XEP-0474 version 0.4 and later). Clients of its version 0.3 take that for an attack.",
    ),
    opt(
        "session",
        "resume_seconds",
        number(600, 1, 86_400),
        true,
        "How long a session without a connection waits to be resumed, at most.",
    ),
    opt(
        "log",
        "level",
        Kind::Text("info"),
        true,
        "`error`, `warn`, `info`, `debug` or `trace`, or directives as in `info,rookery_actors=debug`.",
    ),
    opt("log", "format", Kind::Word(&["text", "json"]), false, "Lines for people or JSON objects."),
];

/// The option of that name.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|o| o.section == section && o.name == name)
}

impl Opt {
    /// The name with its section, as in `limits.stanza_bytes`.
    pub fn path(&self) -> String {
        path(self.section, self.name)
    }

    /// The default as TOML.
    pub fn default_toml(&self) -> String {
        match self.kind {
            Kind::Flag(flag) => flag.to_string(),
            Kind::Number { default, .. } => default.to_string(),
            Kind::Text(text) => format!("{text:?}"),
            Kind::Word(words) => format!("{:?}", words.first().copied().unwrap_or_default()),
            Kind::List(list) => format!("{list:?}"),
        }
    }
}

/// `section.name`.
pub(super) fn path(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}
