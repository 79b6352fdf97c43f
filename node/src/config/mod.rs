//! The configuration: `rookery.toml`, read by the list [`OPTIONS`], validated into types before anything starts.
//!
//! All problems are reported at once, each with its line and what to do. Unknown names are problems: a limit that is
//! misspelt must not silently be the default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rookery_cluster::mesh::peer::NodeId;
use rookery_cluster::mesh::peer::tls::Files;
use rookery_cluster::store::FdbSettings;

mod acme;
mod address;
mod cluster;
mod components;
mod describe;
mod domain;
mod federation;
mod listen;
mod options;
mod problem;
mod read;
mod reference;
mod remote;
mod store;
mod validate;
mod values;

pub(crate) use acme::can_be_ordered;
pub use acme::{Acme, Challenge, Hook};
pub use address::Network;
pub use describe::describe;
pub use federation::{Federation, Policy, Route, StreamLimits};
pub use options::{Kind, OPTIONS, Opt, SECTIONS};
pub use problem::{Error, Problem};
pub use reference::{example, markdown};
pub use remote::{Anchor, Authorities, Dns, Proxy};

/// A whole configuration, valid by construction.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The file it came from; `None` for the development defaults.
    pub file: Option<PathBuf>,
    /// The folder of everything the node keeps.
    pub data_dir: PathBuf,
    /// The store.
    pub store: Store,
    /// Where the node listens.
    pub listen: Listen,
    /// Its place among other nodes, if it is not alone.
    pub cluster: Option<Cluster>,
    /// From whom certificates are ordered, if from anybody.
    pub acme: Option<Acme>,
    /// The domains, at least one, each once.
    pub domains: Vec<Domain>,
    /// External components.
    pub components: Vec<rookery_actors::options::Component>,
    /// Other servers.
    pub federation: Federation,
    /// The archive.
    pub archive: Archive,
    /// Authentication.
    pub sasl: Sasl,
    /// How long a session waits to be resumed.
    pub resume: Duration,
    /// The limits.
    pub limits: Limits,
    /// How other servers are found.
    pub dns: Dns,
    /// The authorities whose signature proves other servers.
    pub authorities: Authorities,
    /// The log.
    pub log: Log,
}

/// `[store]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Store {
    /// Which store.
    pub url: String,
    /// Whether an acknowledged write is on disk (`true`) or only with the operating system.
    pub sync: bool,
    /// Bytes that must be free on the disk of the embedded store; 0 = no matter.
    pub free: u64,
    /// What the client of FoundationDB is told.
    pub fdb: FdbSettings,
}

/// `[listen]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    /// STARTTLS.
    pub c2s: Vec<SocketAddr>,
    /// Direct TLS.
    pub c2s_tls: Vec<SocketAddr>,
    /// Components, in the clear.
    pub component: Vec<SocketAddr>,
    /// Components, by direct TLS.
    pub component_tls: Vec<SocketAddr>,
    /// Other servers, with STARTTLS.
    pub s2s: Vec<SocketAddr>,
    /// Other servers, with direct TLS.
    pub s2s_tls: Vec<SocketAddr>,
    /// Metrics and health.
    pub http: Vec<SocketAddr>,
    /// HTTP by TLS, for everybody.
    pub https: Vec<SocketAddr>,
    /// HTTP for challenges of an authority, and nothing else (`acme.listen`).
    pub acme: Vec<SocketAddr>,
    /// The networks of proxies that are believed when they name the client of an HTTP request.
    pub http_proxies: Vec<Network>,
    /// The path of the admin socket.
    pub admin: PathBuf,
    /// The networks from which a PROXY header is required; `None` while the protocol is off.
    pub proxy: Option<Vec<Network>>,
    /// `host:port` of this very node, for XEP-0198's `location`.
    pub public: Option<String>,
}

/// `[cluster]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// The cluster's name.
    pub name: String,
    /// The node's name.
    pub node: NodeId,
    /// Where other nodes reach it.
    pub listen: SocketAddr,
    /// The same as others must write it; `None`: as it is.
    pub advertise: Option<String>,
    /// The zone, or empty.
    pub zone: String,
    /// How much it takes.
    pub weight: u32,
    /// Its certificate; `None`: plain text.
    pub files: Option<Files>,
    /// The serial numbers and fingerprints of certificates that are turned away.
    pub denied: Vec<Vec<u8>>,
    /// Whether clients are sent to the node where their user lives.
    pub redirect: bool,
    /// How long it may go on without the store.
    pub lease: Duration,
    /// How long others wait before they take its work.
    pub death: Duration,
    /// How long moving a shard may take.
    pub handoff: Duration,
    /// How long giving away everything may take.
    pub drain: Duration,
}

/// `[[domain]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Domain {
    /// The domain, normalised.
    pub name: String,
    /// Its certificate; `None`: see [`Config::source`].
    pub certificate: Option<CertificateFiles>,
    /// Whether its certificate is of our own making although there is an authority.
    pub self_signed: bool,
    /// Whether anybody may make an account.
    pub registration: bool,
    /// XEP-0157: the kind (`abuse`) and the URI.
    pub contact: Vec<(&'static str, String)>,
    /// What its items list beside components (XEP-0030).
    pub disco_items: Vec<rookery_actors::options::DiscoItem>,
    /// XEP-0455: URLs of files with the status of the service.
    pub outage_status: Vec<String>,
}

/// Where the certificate of a domain comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source<'a> {
    /// From files.
    Files(&'a CertificateFiles),
    /// An authority issues it.
    Ordered,
    /// The node makes it.
    SelfSigned,
}

/// Where a certificate lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFiles {
    /// PEM: the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
}

/// What is archived for users who did not choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArchiveDefault {
    /// Everything.
    Always,
    /// What is exchanged with contacts.
    Roster,
    /// Nothing.
    Never,
}

/// `[archive]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Archive {
    /// The policy.
    pub default: ArchiveDefault,
    /// How many days messages are kept; `None`: for ever.
    pub retention_days: Option<u32>,
    /// What one account's archive may hold, bytes; 0: as much as comes.
    pub quota: u64,
    /// Whether the oldest messages make room then; otherwise nothing more is archived.
    pub oldest_go: bool,
}

/// `[sasl]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sasl {
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// Whether PLAIN is offered.
    pub plain: bool,
    /// Whether SCRAM carries XEP-0474's proof.
    pub downgrade_protection: bool,
}

/// `[limits]`; the list of options documents each.
#[allow(missing_docs)] // documented once, in `OPTIONS`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub connections: usize,
    pub connections_per_address: usize,
    pub connections_before_login: usize,
    pub connections_before_login_per_address: usize,
    pub login: Duration,
    pub login_attempts: u32,
    pub login_failures_per_account: u32,
    pub login_failures_per_address: u32,
    pub login_delay: Duration,
    pub registrations_per_hour: u32,
    pub password_changes_per_hour: u32,
    pub stanza_bytes_before_login: usize,
    pub stanza_bytes: usize,
    pub stanza_depth: usize,
    pub traffic: Traffic,
    pub idle: Duration,
    pub answer: Duration,
    pub close: Duration,
    pub sessions_per_user: usize,
    pub roster_items: usize,
    pub roster_groups: usize,
    pub roster_item_bytes: usize,
    pub roster_bytes: usize,
    pub requests: usize,
    pub request_bytes: usize,
    pub blocked: usize,
    pub private_bytes: usize,
    pub vcard_bytes: usize,
    pub private_items: usize,
    pub directed_presences: usize,
    pub unacked_stanzas: usize,
    pub unacked_bytes: usize,
    pub waiting_bytes_per_account: usize,
    pub waiting_bytes: usize,
    pub offline_messages: usize,
    pub component_bytes_per_second: u64,
    pub component_stanzas_per_second: u64,
    pub component_queue_stanzas: usize,
    pub component_queue_bytes: usize,
    pub component_wait: Duration,
    pub archive_page: usize,
}

/// How much one client, or one other server, may send: rates and bursts in `[limits]` and `[federation]`.
#[allow(missing_docs)] // documented once, in `OPTIONS`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traffic {
    pub bytes_per_second: u64,
    pub bytes_burst: u64,
    pub stanzas_per_second: u64,
    pub stanzas_burst: u64,
}

/// `[log]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// Level or directives.
    pub level: String,
    /// JSON objects instead of lines.
    pub json: bool,
}

impl Config {
    /// What `rookery` without a file and without a flag is: domain `localhost`, loopback only, open registration,
    /// everything in `./rookery-data`.
    pub fn development() -> Self {
        let loopback = |port| vec![SocketAddr::from(([127, 0, 0, 1], port))];
        let data_dir = PathBuf::from("rookery-data");
        // The list alone is valid, as a test shows; an empty file only lacks its domain.
        let mut config = validate::defaults();
        config.listen.c2s = loopback(5222);
        config.listen.c2s_tls = loopback(5223);
        config.listen.s2s = loopback(5269);
        config.listen.s2s_tls = loopback(5270);
        config.listen.admin = data_dir.join("admin.sock");
        config.data_dir = data_dir;
        // Nobody's authority has signed the certificates of those that are tried out together.
        config.federation.enabled = true;
        config.federation.loopback = true;
        config.federation.policy = Policy::Dialback;
        // All clients come from one address here, and a tester makes accounts at will.
        config.limits.registrations_per_hour = 1_000;
        config.domains = vec![Domain {
            name: "localhost".to_owned(),
            certificate: None,
            self_signed: true,
            registration: true,
            contact: Vec::new(),
            disco_items: Vec::new(),
            outage_status: Vec::new(),
        }];
        config
    }

    /// Reads and validates `path`.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
        let base = path.parent().unwrap_or(Path::new(""));
        match parse(&text, base) {
            Ok(config) => Ok(Self { file: Some(path.to_owned()), ..config }),
            Err(problems) => Err(Error::Invalid { path: path.to_owned(), problems }),
        }
    }

    /// Where the certificate of `domain` comes from.
    pub fn source<'a>(&self, domain: &'a Domain) -> Source<'a> {
        match &domain.certificate {
            Some(files) => Source::Files(files),
            None if self.acme.is_some() && !domain.self_signed => Source::Ordered,
            None => Source::SelfSigned,
        }
    }

    /// The file, or the development defaults if there is none.
    pub fn load_or_development(path: Option<&Path>) -> Result<Self, Error> {
        path.map_or_else(|| Ok(Self::development()), Self::load)
    }
}

/// Reads the text of a `rookery.toml`; relative paths start at `base`. On failure all problems, by line.
pub fn parse(text: &str, base: &Path) -> Result<Config, Vec<Problem>> {
    validate::parse(text, base)
}
