//! The definition of the command line: commands, options and help texts. [`crate::commands`] and the program implement them,
//! so that help, completion and documentation have one source.
//!
//! There is deliberately no option that takes a password: every user of the machine can read the arguments of a process.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::admin::Address;

mod certificate;
mod session;
mod stream;

pub use certificate::CertificateCommand;
pub use session::SessionCommand;
pub use stream::StreamCommand;

const EXAMPLES: &str = "\
Examples:
  rookery                                         run a node for development, on this machine only
  rookery serve --config /etc/rookery/rookery.toml
  rookery user add juliet@example.org             create an account; prints its password once
  rookery user list --domain example.org
  rookery session list
  rookery export juliet@example.org --output juliet.xml

Exit codes: 0 done, 1 internal error, 2 wrong usage, 3 not found, 4 already exists, 5 invalid input,
6 no node answers or the node cannot do it now, 7 a limit was reached.";

const PASSWORDS: &str = "\
The password is read from a file or from standard input. Without either, a password is generated and printed once. A password
is never an argument, because every user of this machine could read it.";

const ADD_EXAMPLES: &str = "\
Examples:
  rookery user add juliet@example.org
  rookery user add juliet@example.org --password-file secret.txt
  printf %s \"$PASSWORD\" | rookery user add juliet@example.org --password-stdin";

const STORE_EXAMPLES: &str = "\
To use the store, set url = \"dev://127.0.0.1:7300\" under [store] in the configuration of each node. The store is one process
without copies, for development only. For production, use FoundationDB.

Examples:
  rookery store --data /tmp/rookery-store
  rookery store --memory --listen 127.0.0.1:7301";

const DEMO_EXAMPLES: &str = "\
All files are in a temporary folder, which is removed at the end. Keys: a digit kills that node (kill -9) or starts it again,
d and a digit drains it, q quits. If the output is not a terminal, changes are printed line by line.

Example:
  rookery demo --nodes 3";

const CERT_EXAMPLES: &str = "\
Examples:
  rookery cluster cert --node n1 --node n2 --node n3 --dir ~/rookery-cluster
  rookery cluster cert --config /etc/rookery/rookery.toml --dir ~/rookery-cluster";

const IMPORT_EXAMPLES: &str = "\
Each line is a bare JID, a tab and a password. Existing accounts are skipped, so an interrupted import can be run again.
Invalid lines are reported with their numbers; all other lines are imported.

Examples:
  rookery user import accounts.tsv
  zcat accounts.tsv.gz | rookery user import -";

/// A clustered XMPP server. Without a command, runs a node.
#[derive(Debug, Clone, Parser)]
#[command(name = "rookery", version, about = "A clustered XMPP server. Without a command, runs a node.", after_help = EXAMPLES, max_term_width = 110, propagate_version = false)]
pub struct Cli {
    /// The configuration file. Without this option: development defaults, on loopback, with data in ./rookery-data
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// The admin socket of the node, as unix:/path. The default is in the configuration
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub admin: Option<Address>,

    /// Exit when standard input ends: for child processes that must not outlive their parent
    #[arg(long, global = true, hide = true)]
    pub tied: bool,

    /// The command
    #[command(subcommand)]
    command: Option<Command>,
}

impl Cli {
    /// The command; `serve` if none was given.
    pub fn verb(&self) -> Command {
        self.command.clone().unwrap_or(Command::Serve)
    }
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run a node until SIGINT or SIGTERM
    Serve,
    /// Check the configuration, and print what a node would do with it
    #[command(after_help = "Example:\n  rookery check --example > rookery.toml")]
    Check {
        /// Print a configuration file with every option at its default, instead
        #[arg(long)]
        example: bool,
    },
    /// Print the version
    Version,
    /// Run the development store, for several nodes on one machine
    #[command(after_help = STORE_EXAMPLES)]
    Store(StoreArgs),
    /// Run a store and several nodes on this machine, show them live, and let you kill them
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Show and change the cluster of a node
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// A command for a node, or for the data folder when no node runs.
    #[command(flatten)]
    Admin(AdminCommand),
}

/// `rookery store`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct StoreArgs {
    /// The address to listen on. The store has no login and no encryption: use loopback
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7300")]
    pub listen: SocketAddr,
    /// Allow --listen on other addresses than loopback: anyone who can connect can read and write all data
    #[arg(long)]
    pub off_loopback: bool,
    /// The folder for all data; created if missing
    #[arg(long, value_name = "DIR", required_unless_present = "memory")]
    pub data: Option<PathBuf>,
    /// Store all data in memory; it is lost when the process ends
    #[arg(long, conflicts_with = "data")]
    pub memory: bool,
    /// Acknowledge commits when the operating system has them, before they are on disk
    #[arg(long, conflicts_with = "memory")]
    pub buffered: bool,
}

/// `rookery demo`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: u8,
}

/// `rookery cluster …`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ClusterCommand {
    /// Create certificates for the nodes of a cluster; no node needs to run
    #[command(after_help = CERT_EXAMPLES)]
    Cert(CertArgs),
    /// Commands for a running node of the cluster.
    #[command(flatten)]
    Ask(ClusterVerb),
}

/// `rookery cluster cert`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CertArgs {
    /// The name of a node; may be repeated. The default is in the configuration
    #[arg(long = "node", value_name = "NAME")]
    pub nodes: Vec<String>,
    /// The folder for the authority and the certificates. Store it safely: its key can add nodes
    #[arg(long, value_name = "DIR", default_value = "rookery-cluster")]
    pub dir: PathBuf,
}

/// Commands that a running node answers about its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ClusterVerb {
    /// Show the nodes and their states
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show which node owns which shards
    Shards {
        /// Only shards that are moving to another node
        #[arg(long)]
        moving: bool,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Move all shards of a node to the other nodes; the node keeps running
    Drain {
        /// The name of the node; self is the node that receives the command
        #[arg(value_name = "NODE")]
        node: String,
        /// Wait until the node has no shards
        #[arg(long)]
        wait: bool,
        /// Stop waiting after this many seconds; the drain continues
        #[arg(long, value_name = "SECONDS", requires = "wait")]
        timeout: Option<u64>,
    },
    /// Let a node take shards again after a drain
    Undrain {
        /// The name of the node; self is the node that receives the command
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Declare a node dead at once, without waiting for the other nodes to notice
    Evict {
        /// The name of the node
        #[arg(value_name = "NODE")]
        node: String,
        /// Evict a node that still sends heartbeats. Its process exits, and its clients resume on other nodes
        #[arg(long)]
        force: bool,
    },
}

/// What goes through [`crate::admin::Admin`].
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum AdminCommand {
    /// Create, change, remove and list accounts
    #[command(subcommand)]
    User(UserCommand),
    /// List and end sessions
    #[command(subcommand)]
    Session(SessionCommand),
    /// List certificates, and order new ones
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// List and close streams from other servers and to them
    #[command(subcommand)]
    Stream(StreamCommand),
    /// Export an account, or a domain with all its accounts, as XML (XEP-0227)
    #[command(after_help = "Example:\n  rookery export example.org --output example.org.xml")]
    Export {
        /// The bare JID of an account, or a domain
        #[arg(value_name = "JID|DOMAIN")]
        target: String,
        /// Write to this file, readable by you only, instead of standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Import accounts from an XML file (XEP-0227)
    Import {
        /// The file; - is standard input
        file: PathBuf,
    },
    /// Apply the changed configuration file: certificates, limits, domains and log level
    Reload,
    /// Show the state of the node
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Set the log level of the running node, until a reload or restart
    #[command(after_help = "Example:\n  rookery log-level info,rookery_actors=debug")]
    LogLevel {
        /// error, warn, info, debug or trace; or several of module=level, separated by commas
        level: String,
    },
}

/// `rookery user …`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum UserCommand {
    /// Create an account
    #[command(long_about = "Create an account.\n\n".to_owned() + PASSWORDS, after_help = ADD_EXAMPLES)]
    Add {
        /// The bare JID, as in juliet@example.org
        jid: String,
        /// Where the password comes from.
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Set the password of an account, and end its sessions
    #[command(long_about = "Set the password of an account, and end its sessions.\n\n".to_owned() + PASSWORDS)]
    Passwd {
        /// The bare JID
        jid: String,
        /// Where the password comes from.
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Remove an account and all its data
    Remove {
        /// The bare JID
        jid: String,
    },
    /// List accounts
    List {
        /// Only accounts of this domain
        #[arg(long)]
        domain: Option<String>,
        /// List at most this many
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Create accounts from a file with a JID, a tab and a password on each line
    #[command(after_help = IMPORT_EXAMPLES)]
    Import {
        /// The file; - is standard input
        file: PathBuf,
    },
}

/// Where a password comes from. Neither: it is generated and shown once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
#[group(multiple = false)]
pub struct PasswordSource {
    /// Read the password from this file; a line break at its end is ignored
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Read the password from standard input, until its end
    #[arg(long)]
    pub password_stdin: bool,
}

impl AdminCommand {
    /// Whether this only makes sense with a running node. The others also work on the data folder of a node that is
    /// down.
    pub fn needs_node(&self) -> bool {
        match self {
            Self::Session(_)
            | Self::Certificate(_)
            | Self::Stream(_)
            | Self::Reload
            | Self::Status { .. }
            | Self::LogLevel { .. } => true,
            Self::User(_) | Self::Export { .. } | Self::Import { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests;
