//! Bringing the parts of a node up, each with an error that says what to do.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rookery_actors::Host;
use rookery_cluster::mesh::Mesh;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::{self, Durability, EmbeddedSettings, Place, Store};
use rookery_ops::admin::{self, Address, Remote};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Config;
use crate::dns::Finder;
use crate::net::{Gate, Guesses};
use crate::streams::Rates;
use crate::streams::c2s::{Clients, Meters, Settings, Shared};
use crate::streams::s2s::{self, Federation};
use crate::tls::remote::{BadAuthorities, Judge};
use crate::tls::{self, Tls};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data folder.
    #[error("the data folder {} cannot be created: {source}; correct data_dir, or create the folder for the user that runs rookery", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store.
    #[error("the store {at} cannot be opened: {source}{}", detail(source))]
    Store {
        /// Which: the URL, and the folder if it lies in one.
        at: String,
        /// Why.
        source: store::Error,
    },
    /// A listener.
    #[error("{option} cannot listen on {at}: {source}{}", remedy(source))]
    Listen {
        /// The option.
        option: &'static str,
        /// Where.
        at: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// What has no login would be open to others.
    #[error(
        "--listen {at}: anyone who can connect to this address could read and write everything; listen on 127.0.0.1, or add \
         --off-loopback if the network is private"
    )]
    Exposed {
        /// Where.
        at: SocketAddr,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Authorities of other servers.
    #[error("authorities.file: {0}")]
    Authorities(#[from] BadAuthorities),
    /// DNS.
    #[error("[dns]: {0}")]
    Dns(String),
    /// Users and sessions.
    #[error(transparent)]
    Host(#[from] rookery_actors::host::Error),
    /// Certificates between nodes.
    #[error("{0}; create node certificates with `rookery cluster cert`, and set their paths in [cluster]")]
    Peers(#[from] rookery_cluster::mesh::peer::tls::Error),
    /// Joining.
    #[error("this node cannot join the cluster: {0}")]
    Cluster(#[from] rookery_cluster::mesh::Error),
    /// Another node.
    #[error("a node with this store runs already, and answers at {0}")]
    Running(Address),
    /// The admin socket.
    #[error(transparent)]
    Admin(#[from] rookery_ops::admin::Error),
    /// The log.
    #[error(transparent)]
    Logging(#[from] rookery_ops::logging::Error),
    /// The metrics.
    #[error(transparent)]
    Metrics(#[from] rookery_ops::metrics::Error),
    /// Signals, or a small file.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn detail(error: &store::Error) -> String {
    error.detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default()
}

impl Error {
    /// Whether another process has the store open.
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Store { source, .. } if source.is_locked())
    }
}

/// For a command that works on the data folder.
impl From<Error> for admin::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Admin(error) => error,
            error => Self::unavailable(error.to_string()),
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there: stop it, or choose another port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// Makes the data folder if need be, for its owner alone, and opens the store in it.
pub async fn store(config: &Config, seams: Seams) -> Result<Store, Error> {
    let path = config.data_dir.clone();
    let folder = |source| Error::Folder { path: path.clone(), source };
    keep_from_others();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(folder)?;
    let url = config.store.url.parse().map_err(|source| Error::Store { at: place(config), source })?;
    let durability = if config.store.sync { Durability::Sync } else { Durability::Buffered };
    let embedded = EmbeddedSettings { durability, free: config.store.free };
    let at = Place { url, data_dir: path, embedded, fdb: config.store.fdb.clone() };
    let opened = tokio::task::spawn_blocking(move || at.open(seams)).await;
    match opened {
        Ok(opened) => opened.map_err(|source| Error::Store { at: place(config), source }),
        Err(error) => Err(Error::Io { what: "the store cannot be opened", source: io::Error::other(error) }),
    }
}

/// Whatever the umask was: the files that this process makes from now on are its user's alone. They hold messages and keys.
pub fn keep_from_others() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// The store of `config`, for people.
pub fn place(config: &Config) -> String {
    match config.store.url.as_str() {
        "embedded:" => format!("in {}", config.data_dir.display()),
        url => format!("at {url}"),
    }
}

/// How long a store that another process has open is waited for: a node that starts with a large store replays its journal
/// before it answers, and a command may be at work on the folder.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing is said about it.
const SILENCE: Duration = Duration::from_secs(1);
/// How often it is tried.
const AGAIN: Duration = Duration::from_millis(50);

/// What has the data.
pub enum Found {
    /// This process, from now on.
    Store(Store),
    /// A node that answers at its admin socket.
    Node(Remote),
}

/// Opens the store; while another process has it open, waits until that ends or answers at `address`, but not for ever.
/// `say` is told when that takes longer than a moment.
///
/// # Errors
/// Those of [`store()`]; [`Error::Admin`] if somebody else's node is at `address`.
pub async fn store_or_node(
    config: &Config,
    seams: Seams,
    address: &Address,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Found, Error> {
    let begun = Instant::now();
    let mut said = false;
    loop {
        let error = match store(config, seams.clone()).await {
            Ok(store) => return Ok(Found::Store(store)),
            Err(error) => error,
        };
        if !error.is_locked() {
            return Err(error);
        }
        if let Some(node) = admin::connect(address).await? {
            return Ok(Found::Node(node));
        }
        let waited = begun.elapsed();
        if waited >= PATIENCE {
            return Err(error);
        }
        if waited >= SILENCE && !said {
            said = true;
            let folder = config.data_dir.display();
            say(&format!(
                "another process has the store in {folder} open: waiting until that process ends or answers at {address}"
            ));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What all connections share.
pub fn shared(
    config: &Config,
    host: Host,
    tls: Tls,
    seams: Seams,
    stop: watch::Receiver<bool>,
    mesh: Option<Arc<Mesh>>,
) -> Arc<Shared> {
    Arc::new(Shared {
        host,
        tls: Arc::new(tls),
        gate: Gate::new(&config.limits),
        clients: Clients::default(),
        mesh,
        guesses: Guesses::new(Duration::from_secs(600)),
        rates: Rates::new(),
        seams,
        settings: ArcSwap::from_pointee(Settings::from(config)),
        stop,
        meters: Meters::new(),
    })
}

/// What streams between servers share, if there are other servers. Links open their streams by it from now on.
///
/// # Errors
/// [`Error::Authorities`], [`Error::Dns`].
pub fn federation(config: &Config, shared: &Shared) -> Result<Option<Arc<Federation>>, Error> {
    if !config.federation.enabled {
        return Ok(None);
    }
    let seams = shared.seams.clone();
    let finder = Finder::new(&config.dns, seams.clone()).map_err(|error| Error::Dns(error.to_string()))?;
    let finder = if config.federation.loopback { finder.on_loopback() } else { finder };
    let federation = Federation::new(
        s2s::Settings::from(config),
        shared.host.clone(),
        shared.tls.clone(),
        Arc::new(finder),
        Judge::new(&config.authorities, seams.clone())?,
        seams,
        shared.stop.clone(),
    );
    shared.host.set_dialer(federation.dialer());
    Ok(Some(federation))
}

/// Lets the process open as many files as its hard limit allows: every connection is one.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: now.maximum, maximum: now.maximum };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        tracing::warn!(limit = ?now.current, "the limit of open files could not be raised");
    }
}
