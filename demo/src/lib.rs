//! `rookery demo`: a store and several nodes on this machine, in one command, to see what happens when one dies.
//!
//! All processes are this program; they have a folder under the system's temporary one, which is removed at the end. Clients
//! may connect to each node, or to one address that leads to any node, as a load balancer does.
//!
//! Deliberately absent: the server. The demonstration starts processes and asks their admin sockets; what it needs of the
//! server's code, it is [lent](Lent).

use std::future::Future;
use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::seams::Seams;
use rookery_ops::admin::{Address, Admin as _, Kind, connect};
use rookery_ops::cli::DemoArgs;
use rookery_ops::secret::Password;
use tokio::net::TcpListener;
use tokio::time::{Instant, interval};

use self::child::Process;
use self::door::{Behind, Way};
use self::keys::{Raw, Reader, Wish};
use self::place::{DOMAIN, Plan};
use self::story::{Fate, Story};

pub mod child;
pub mod door;
pub mod greeting;
pub mod keys;
pub mod place;
pub mod screen;
pub mod story;
pub mod watch;

/// How often the picture is drawn.
const DRAW: Duration = Duration::from_millis(500);
/// How long the store may take to start.
const STORE: Duration = Duration::from_secs(20);
/// How often it is looked for.
const AGAIN: Duration = Duration::from_millis(20);

/// The accounts that are there from the beginning, and their password: only this machine can reach them, for as long as
/// the demonstration runs.
pub const ACCOUNTS: [&str; 2] = ["romeo@localhost", "juliet@localhost"];
/// See [`ACCOUNTS`].
pub const PASSWORD: &str = "wherefore";

/// Why there is no demonstration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A process.
    #[error("{} can't be started: {source}", program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No port is free.
    #[error("no port between 20000 and 28000 is free on 127.0.0.1")]
    Ports,
    /// Certificates.
    #[error("certificates can't be made: {0}")]
    Certificates(String),
    /// The store ended or does not answer.
    #[error("the store does not start{how}; what it said:\n{log}")]
    Store {
        /// Its status.
        how: String,
        /// Its log.
        log: String,
    },
    /// The common address.
    #[error("can't listen at {at}: {source}")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

/// A certificate and its key, both in PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// What the program lends the demonstration.
#[derive(Clone, Copy)]
pub struct Lent {
    /// Listens at an address.
    pub listen: fn(SocketAddr) -> io::Result<TcpListener>,
    /// Makes a certificate in a folder, for a domain, at so many seconds since 1970; and its authority, if there is none.
    pub certificate: fn(&Path, &str, i64) -> Result<Files, String>,
    /// The name of the authority's certificate in that folder.
    pub authority: &'static str,
}

/// Runs until `q` or until `stop` completes. Nothing of it is left then.
///
/// # Errors
/// If something can't be started.
pub async fn run(arguments: &DemoArgs, lent: Lent, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let seams = Seams::system();
    let temp = std::env::temp_dir();
    let folder = tempfile::Builder::new().prefix("rookery-demo-").tempdir_in(&temp);
    let folder = folder.map_err(|e| Error::file(&temp, e))?;
    let plan = Plan::new(folder.path(), arguments.nodes)?;
    plan.furnish(&seams, lent)?;
    let authority = plan.authority(lent);
    let mut demo = Demo::start(plan, lent).await?;
    print!("{}", greeting::text(&demo.plan, &authority));
    demo.play(stop).await;
    // All at once: there is nothing to keep.
    for process in demo.nodes.iter_mut().flatten() {
        process.kill().await;
    }
    demo.store.kill().await;
    drop(folder);
    Ok(())
}

struct Demo {
    plan: Plan,
    program: PathBuf,
    store: Process,
    nodes: Vec<Option<Process>>,
    story: Story,
    door: Arc<[Behind]>,
}

impl Demo {
    async fn start(plan: Plan, lent: Lent) -> Result<Self, Error> {
        let program = child::program()?;
        let log = plan.folder.join("store.log");
        let at = plan.store.to_string();
        let mut store = Process::start(&program, &["store", "--memory", "--listen", &at], &log)?;
        let give_up = Instant::now() + STORE;
        #[allow(clippy::disallowed_methods, reason = "only to see whether it listens")]
        while tokio::net::TcpStream::connect(plan.store).await.is_err() {
            let ended = store.ended();
            if ended.is_some() || Instant::now() > give_up {
                let how = ended.map(|status| format!(" ({status})")).unwrap_or_default();
                return Err(Error::Store { how, log: std::fs::read_to_string(&log).unwrap_or_default() });
            }
            tokio::time::sleep(AGAIN).await;
        }
        let door: Arc<[Behind]> = plan.seats.iter().map(|s| Behind::new(s.c2s, s.c2s_tls)).collect();
        for (way, at) in [(Way::C2s, plan.door), (Way::C2sTls, plan.door_tls)] {
            let listener = (lent.listen)(at).map_err(|source| Error::Listen { at, source })?;
            tokio::spawn(door::serve(listener, way, Arc::clone(&door)));
        }
        let names = plan.seats.iter().map(|seat| seat.name.clone());
        let story = Story::new(names, Instant::now());
        let mut demo = Self { program, store, nodes: Vec::new(), story, door, plan };
        for node in 0..demo.plan.seats.len() {
            demo.nodes.push(None);
            demo.launch(node)?;
        }
        Ok(demo)
    }

    fn launch(&mut self, node: usize) -> Result<(), Error> {
        let Some(seat) = self.plan.seats.get(node) else { return Ok(()) };
        let config = seat.config_file();
        let arguments = ["serve", "--config", &config.to_string_lossy()];
        let process = Process::start(&self.program, &arguments, &seat.log())?;
        if let Some(place) = self.nodes.get_mut(node) {
            *place = Some(process);
        }
        Ok(())
    }

    /// Shows what happens and does what is asked for, until the end is.
    async fn play(&mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let raw = Raw::set();
        let mut keys = keys::typed();
        let mut reader = Reader::default();
        let sockets = self.plan.seats.iter().map(place::Seat::admin).collect();
        let mut looks = watch::watch(sockets, Arc::clone(&self.door));
        let mut screen = screen::Screen::new(io::stdout().is_terminal() && raw.is_some());
        let mut draw = interval(DRAW);
        let mut accounts = false;
        loop {
            tokio::select! {
                _ = draw.tick() => {}
                Ok(()) = looks.changed() => {
                    let look = looks.borrow_and_update().clone();
                    self.story.looked(look, Instant::now());
                    if !accounts {
                        accounts = self.make_accounts().await;
                    }
                }
                Some(key) = keys.recv() => match reader.key(key) {
                    Some(Wish::Quit) => break,
                    Some(wish) => self.grant(wish).await,
                    None => {}
                },
                () = &mut stop => break,
            }
            self.look_for_the_fallen();
            screen.draw(&self.story, reader.waits());
        }
        screen.end();
        drop(raw);
    }

    /// Makes the accounts at the first node that is ready. True when that is done, one way or another.
    async fn make_accounts(&self) -> bool {
        let ready = (0..self.nodes.len()).find(|node| self.story.fate(*node) == Some(&Fate::Running));
        let Some(seat) = ready.and_then(|node| self.plan.seats.get(node)) else { return false };
        let Ok(address) = Address::new(&seat.admin()) else { return true };
        let (Ok(Some(node)), Ok(password)) = (connect(&address).await, Password::new(PASSWORD)) else {
            return false;
        };
        for account in ACCOUNTS {
            match node.user_add(account, &password).await {
                Ok(()) => {}
                Err(error) if error.kind == Kind::Exists => {}
                Err(_) => return false,
            }
        }
        true
    }

    async fn grant(&mut self, wish: Wish) {
        let number = match wish {
            Wish::Toggle(number) | Wish::Drain(number) => number - 1,
            Wish::Quit => return,
        };
        let now = Instant::now();
        let runs = match self.nodes.get_mut(number) {
            Some(Some(process)) => Some(process),
            Some(None) => None,
            None => return,
        };
        match (wish, runs) {
            (Wish::Toggle(_), Some(process)) => {
                process.kill().await;
                if let Some(place) = self.nodes.get_mut(number) {
                    *place = None;
                }
                self.story.set(number, Fate::Killed, now, "");
            }
            (Wish::Drain(_), Some(process)) => {
                process.terminate();
                self.story.set(number, Fate::Draining, now, "");
            }
            (Wish::Toggle(_), None) => match self.launch(number) {
                Ok(()) => self.story.set(number, Fate::Starting, now, ""),
                Err(error) => self.story.set(number, Fate::Ended, now, &error.to_string()),
            },
            (Wish::Drain(_), None) | (Wish::Quit, _) => {}
        }
    }

    /// Looks for nodes that have ended without being killed by us.
    fn look_for_the_fallen(&mut self) {
        let mut ended: Vec<(usize, ExitStatus)> = Vec::new();
        for (number, place) in self.nodes.iter_mut().enumerate() {
            if let Some(status) = place.as_mut().and_then(Process::ended) {
                *place = None;
                ended.push((number, status));
            }
        }
        for (number, status) in ended {
            self.story.set(number, Fate::Ended, Instant::now(), &status.to_string());
        }
    }
}

/// The name that a person logs in with at `at`.
fn connect_line(account: &str, port: u16) -> String {
    debug_assert!(account.ends_with(DOMAIN), "an account of the demonstration");
    format!("/connect {account} server 127.0.0.1 port {port} tls trust")
}
