//! Every option of `rookery.toml`: one list. Reading, checking, defaults and `ops/deploy/CONFIGURATION.md` derive from it.
//!
//! Length: a list: one entry for each option, with its text.

mod acme;
mod federation;
mod limits;
mod listen;
mod remote;

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
    ("", "Options at the top of the file."),
    ("store", "The store for all durable data."),
    (
        "listen",
        "The addresses that the node listens on. Port 0 takes any free port; `<data_dir>/ports.json` has its number.",
    ),
    ("domain", "One `[[domain]]` section for each domain that is served."),
    ("domain.contact", "Public contact addresses of the domain, as lists of URIs (XEP-0157)."),
    (
        "component",
        "One `[[component]]` section for each external component (XEP-0114): a program, such as a gateway, that speaks for a domain of its own. A component may have several connections, to any nodes; the stanzas of each user go to one of them.",
    ),
    (
        "cluster",
        "With this section the node is a member of a cluster whose nodes share one store. Without this section the node runs alone. In `advertise`, `certificate`, `key` and `listen.public`, `{node}` is replaced by the node's name, so one file can serve all nodes.",
    ),
    (
        "federation",
        "Other servers: which of them this one talks to, how they prove themselves, and how much they may take.",
    ),
    ("route", "One `[[route]]` section for each domain whose server is not looked up in DNS."),
    ("dns", "How other servers are found."),
    ("authorities", "The certificate authorities that other servers are proved by."),
    (
        "acme",
        "Certificates from an ACME authority (RFC 8555), such as Let's Encrypt, for every domain without `certificate` and without `self_signed`, for every component that is not below a `self_signed` domain, and for `names`. Names that a certificate file covers are not ordered. One node orders for all nodes; account, certificates and private keys are in the store, so whoever can read the store can read them.",
    ),
    ("archive", "The message archive (XEP-0313)."),
    ("sasl", "Authentication."),
    ("session", "Sessions and their resumption (XEP-0198)."),
    ("limits", "Limits on sizes, rates and queues. The defaults suit a server on the open internet."),
    ("log", "The log, which is written to standard error."),
];

/// All options. Large sections have a file of their own: [`listen`], [`acme`], [`federation`], [`remote`] and [`limits`].
pub const OPTIONS: &[Opt] = &joined();

const PARTS: [&[Opt]; 6] =
    [GENERAL, listen::LISTEN, acme::ACME, limits::LIMITS, federation::FEDERATION, remote::REMOTE];

#[allow(clippy::indexing_slicing, reason = "within a constant: a wrong index does not compile")]
const LENGTH: usize =
    PARTS[0].len() + PARTS[1].len() + PARTS[2].len() + PARTS[3].len() + PARTS[4].len() + PARTS[5].len();

#[allow(clippy::indexing_slicing, reason = "within a constant: a wrong index does not compile")]
const fn joined() -> [Opt; LENGTH] {
    let mut all = [GENERAL[0]; LENGTH];
    let (mut part, mut at, mut from) = (0, 0, 0);
    while part < PARTS.len() {
        while at - from < PARTS[part].len() {
            all[at] = PARTS[part][at - from];
            at += 1;
        }
        from = at;
        part += 1;
    }
    all
}

const GENERAL: &[Opt] = &[
    opt(
        "",
        "data_dir",
        Kind::Text("/var/lib/rookery"),
        false,
        "The folder for all data of this node. A relative path is relative to the folder of the configuration file.",
    ),
    opt(
        "store",
        "url",
        Kind::Text("embedded:"),
        false,
        "The store. `embedded:` is on disk in `data_dir`. `memory:` is lost when the process ends. `dev://HOST:PORT` is the development store of `rookery store`, which several nodes can share. `fdb:CLUSTERFILE` is FoundationDB, for clusters in production; it needs a build with `--features fdb`.",
    ),
    opt(
        "store",
        "durability",
        Kind::Word(&["sync", "buffered"]),
        false,
        "`sync`: data is on disk before it is acknowledged. `buffered`: data is handed to the operating system; it survives a crash of the process, but not a power cut.",
    ),
    opt(
        "store",
        "free_megabytes",
        number(256, 0, 1_000_000),
        false,
        "If the disk of the embedded store has less free space than this, the store accepts only deletions, other requests are refused with `resource-constraint`, and the node is not ready. 0 disables the check.",
    ),
    opt(
        "store",
        "fdb_timeout_seconds",
        number(5, 1, 60),
        false,
        "Time limit of one FoundationDB transaction. FoundationDB limits reads to 5 s; larger values only extend commits.",
    ),
    opt(
        "store",
        "fdb_trace_dir",
        Kind::Text(""),
        false,
        "The folder for trace files (JSON) of the FoundationDB client; empty: no trace files.",
    ),
    opt(
        "store",
        "fdb_knobs",
        Kind::List(&[]),
        false,
        "Knobs of the FoundationDB client, each as `name=value`. Set them only if FoundationDB's support or documentation says so.",
    ),
    opt(
        "store",
        "fdb_tls_certificate",
        Kind::Text(""),
        false,
        "For FoundationDB with TLS: PEM file of this node's certificate and its chain. Needs `fdb_tls_key`.",
    ),
    opt(
        "store",
        "fdb_tls_key",
        Kind::Text(""),
        false,
        "PEM file of the private key of `fdb_tls_certificate`.",
    ),
    opt(
        "store",
        "fdb_tls_ca",
        Kind::Text(""),
        false,
        "PEM file of the certificate authorities of the FoundationDB servers; empty: the file named by the variable `FDB_TLS_CA_FILE`. TLS needs one of the two: the system's authorities are not used.",
    ),
    opt(
        "store",
        "fdb_tls_verify_peers",
        Kind::Text(""),
        false,
        "Conditions that the certificates of the FoundationDB servers must meet, in FoundationDB's syntax, as in `Check.Valid=1,S.O=Example`.",
    ),
    opt("domain", "name", Kind::Text(""), true, "The domain, as in `example.org`."),
    opt(
        "domain",
        "certificate",
        Kind::Text(""),
        true,
        "PEM file of the certificate and its chain. If missing, the certificate is ordered (`[acme]`) or generated by the node (`self_signed`).",
    ),
    opt(
        "domain",
        "key",
        Kind::Text(""),
        true,
        "PEM file of the private key of `certificate`. No other user may be able to read the file.",
    ),
    opt(
        "domain",
        "self_signed",
        Kind::Flag(false),
        true,
        "Whether the node generates the certificate, signed by its own authority in `<data_dir>/tls`; clients do not trust it. If all listeners for clients are on loopback, this is the default without `[acme]`.",
    ),
    opt(
        "domain",
        "registration",
        Kind::Word(&["closed", "open"]),
        true,
        "Whether anyone can register an account from a client (XEP-0077), within `limits.registrations_per_hour`.",
    ),
    opt(
        "domain",
        "disco_items",
        Kind::List(&[]),
        true,
        "What service discovery lists for the domain beside its components (XEP-0030): JIDs, each with a name for people behind a space.",
    ),
    opt(
        "domain",
        "outage_status",
        Kind::List(&[]),
        true,
        "URLs of files with the status of the service during an outage (XEP-0455), which service discovery shows for the domain. Clients remember them, and read them when they cannot connect: keep the files on machines that an outage of this server leaves alone.",
    ),
    opt("component", "name", Kind::Text(""), true, "The component's domain, as in `irc.example.org`."),
    opt(
        "component",
        "secret",
        Kind::Text(""),
        true,
        "The secret that the component's own configuration has: at least 8 characters.",
    ),
    opt(
        "component",
        "secret_file",
        Kind::Text(""),
        true,
        "A file with the secret, in place of `secret`. White space around the secret does not count.",
    ),
    opt(
        "component",
        "domains",
        Kind::List(&[]),
        true,
        "The domains whose users the component is for: their items list the component, and its privileges and delegations concern them. Empty: all.",
    ),
    opt(
        "component",
        "privileges",
        Kind::List(&[]),
        true,
        "What the component may do in the name of users (XEP-0356): `roster get`, `roster set` or `roster both` (`no-push` behind it: without pushes), `message outgoing`, `presence managed_entity` or `presence roster`, and `iq get`, `iq set` or `iq both` with a namespace. Give privileges to components that you trust with the users' accounts.",
    ),
    opt(
        "component",
        "delegations",
        Kind::List(&[]),
        true,
        "Namespaces of requests to the domains and to bare JIDs of their users that the component answers for the server (XEP-0355), each with the attributes, if any, that a request must have, as in `urn:xmpp:mam:2 node`.",
    ),
    contact("abuse", "Abuse."),
    contact("admin", "Administrators."),
    contact("feedback", "Feedback."),
    contact("sales", "Sales."),
    contact("security", "Security."),
    contact("status", "Status pages."),
    contact("support", "Support."),
    cluster(
        "name",
        Kind::Text("rookery"),
        "The name of the cluster. Nodes with another cluster name are refused.",
    ),
    cluster(
        "node",
        Kind::Text(""),
        "The name of the node, also in its certificate: one DNS label, as in `rookery-0`. Do not change it later. Empty: the first label of the host name.",
    ),
    cluster(
        "listen",
        Kind::Text("127.0.0.1:7100"),
        "The address for other nodes. Allow connections from nodes only.",
    ),
    cluster(
        "advertise",
        Kind::Text(""),
        "`host:port` that other nodes use to connect to `listen`; empty: the address in `listen`.",
    ),
    cluster(
        "zone",
        Kind::Text(""),
        "The rack or data centre of the node. Shards are distributed evenly over the zones.",
    ),
    cluster(
        "weight",
        number(100, 1, 10_000),
        "The node's share of the shards, relative to the weights of the other nodes.",
    ),
    cluster(
        "authority",
        Kind::Text(""),
        "PEM file of the cluster's certificate authority, from `rookery cluster cert`; empty: `cluster_ca.pem` in `data_dir`.",
    ),
    cluster(
        "certificate",
        Kind::Text(""),
        "PEM file of the node's certificate; empty: `{node}.pem` in `data_dir`.",
    ),
    cluster("key", Kind::Text(""), "PEM file of the node's private key; empty: `{node}.key` in `data_dir`."),
    cluster(
        "plain_text",
        Kind::Flag(false),
        "Disables certificates and encryption between nodes. For development only, and only on loopback.",
    ),
    cluster(
        "plain_text_off_loopback",
        Kind::Flag(false),
        "Allows `plain_text` if `listen` is not a loopback address. Anyone who can connect to `listen` can then read and write all data.",
    ),
    opt(
        "cluster",
        "denied",
        Kind::List(&[]),
        true,
        "Revoked node certificates: serial numbers or SHA-256 fingerprints, in hexadecimal. Their open connections are closed.",
    ),
    cluster(
        "redirect",
        Kind::Flag(false),
        "Whether a client that logs in on another node is redirected to its user's home with `<see-other-host/>`, if the home has `listen.public`. Saves a hop between nodes. Leave it off behind a load balancer.",
    ),
    cluster(
        "lease_seconds",
        number(4, 1, 4),
        "Seconds that a node may continue to serve without a heartbeat to the store. This option and the three below must be the same on all nodes.",
    ),
    cluster(
        "death_seconds",
        number(5, 2, 60),
        "Seconds without heartbeats after which other nodes take over the shards of a node. Must be longer than `lease_seconds`.",
    ),
    cluster(
        "handoff_seconds",
        number(5, 1, 60),
        "Time limit, in seconds, for moving a shard with its users to another node.",
    ),
    cluster(
        "drain_seconds",
        number(60, 1, 3_600),
        "Time limit, in seconds, for handing over all shards when the node stops. systemd's `TimeoutStopSec` and Kubernetes' `terminationGracePeriodSeconds` must be 30 s longer.",
    ),
    opt(
        "archive",
        "default",
        Kind::Word(&["always", "roster", "never"]),
        true,
        "The archive policy for users who have not set one (XEP-0441): everything, messages with contacts, or nothing.",
    ),
    opt(
        "archive",
        "retention_days",
        number(0, 0, 36_500),
        true,
        "Days after which archived messages are removed; 0: never.",
    ),
    opt(
        "archive",
        "quota_megabytes",
        number(1_024, 0, 1_000_000),
        true,
        "Size limit of the archive of one account; 0: no limit. The size is checked once a day, and each time a sixteenth of the limit was written.",
    ),
    opt(
        "archive",
        "when_full",
        Kind::Word(&["oldest", "refuse"]),
        true,
        "What happens at `quota_megabytes`. `oldest`: the oldest messages are removed. `refuse`: new messages are not archived; they are delivered as with `default = \"never\"`.",
    ),
    opt(
        "sasl",
        "iterations",
        number(10_000, 4_096, 10_000_000),
        true,
        "PBKDF2 iterations for new passwords. More iterations are safer if the store is stolen, but make logins slower for clients.",
    ),
    opt("sasl", "plain", Kind::Flag(true), true, "Whether PLAIN (over TLS) is offered in addition to SCRAM."),
    opt(
        "sasl",
        "downgrade_protection",
        Kind::Flag(true),
        true,
        "Whether SCRAM protects the list of mechanisms against changes (XEP-0474 version 0.4 and later). Clients with version 0.3 take this for an attack and fail to log in.",
    ),
    opt(
        "session",
        "resume_seconds",
        number(600, 1, 86_400),
        true,
        "Seconds that a session without a connection waits for resumption, at most.",
    ),
    opt(
        "log",
        "level",
        Kind::Text("info"),
        true,
        "`error`, `warn`, `info`, `debug` or `trace`, or directives as in `info,rookery_actors=debug`.",
    ),
    opt("log", "format", Kind::Word(&["text", "json"]), false, "Text lines, or JSON objects."),
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
