//! One of the two servers, whichever software it is.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::authority::Files;
use super::{ejabberd, prosody, rookery};
use crate::client::{Io, Options, Wire};
use crate::load::peer::PASSWORD;
use crate::server::{Error, Process, free_port};

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    Rookery,
    Prosody,
    Ejabberd,
}

impl Software {
    /// Those that a name of the command line says.
    pub const ALL: [Software; 3] = [Software::Rookery, Software::Prosody, Software::Ejabberd];
}

impl fmt::Display for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Software::Rookery => "rookery",
            Software::Prosody => "prosody",
            Software::Ejabberd => "ejabberd",
        })
    }
}

/// How a server proves another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By its certificate alone; dialback is off.
    Certificate,
    /// By DANE or its certificate, where the software knows DANE; dialback is off.
    Dane,
    /// By dialback under TLS.
    Dialback,
    /// By dialback, and TLS is not offered at all.
    Clear,
}

/// What a server is told.
#[derive(Clone, Debug)]
pub struct Plan {
    pub dir: PathBuf,
    /// Domains with their certificates; the first is the main one.
    pub domains: Vec<(String, Files)>,
    /// How many accounts each domain gets.
    pub users: usize,
    pub proof: Proof,
    /// The authority that it trusts.
    pub authority: PathBuf,
    pub dns: SocketAddr,
    /// Names of the machines of the test, which are all 127.0.0.1.
    pub hosts: Vec<String>,
    /// The DNS root's key, if the root is signed.
    pub anchor: Option<PathBuf>,
    pub ports: Ports,
    /// How long stanzas may wait for the other server, in seconds, where the software lets that be set.
    pub queue_seconds: u32,
    /// For a measurement: no limit of what comes from one address, and a quiet log.
    pub generous: bool,
}

/// Where it listens, on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub c2s: SocketAddr,
    pub c2s_tls: SocketAddr,
    pub s2s: SocketAddr,
    pub s2s_tls: SocketAddr,
    pub http: SocketAddr,
}

impl Ports {
    /// Free ones.
    pub fn free() -> Ports {
        let [c2s, c2s_tls, s2s, s2s_tls, http] = [(); 5].map(|()| free_port());
        Ports { c2s, c2s_tls, s2s, s2s_tls, http }
    }
}

/// A server that runs, or has run and may run again on the same folder and ports.
pub struct Server {
    pub software: Software,
    pub plan: Plan,
    process: Option<Process>,
}

impl Server {
    /// Writes its configuration and accounts, starts it and waits until it listens.
    pub async fn start(software: Software, plan: Plan) -> Result<Server, Error> {
        std::fs::create_dir_all(&plan.dir)?;
        match software {
            Software::Rookery => rookery::prepare(&plan)?,
            Software::Prosody => prosody::prepare(&plan)?,
            Software::Ejabberd => ejabberd::prepare(&plan)?,
        }
        let mut server = Server { software, plan, process: None };
        server.launch().await?;
        if software == Software::Rookery {
            rookery::add_users(&server.plan)?;
        }
        Ok(server)
    }

    /// Starts it again after [`Server::kill`] or [`Server::stop`].
    pub async fn launch(&mut self) -> Result<(), Error> {
        let command = match self.software {
            Software::Rookery => rookery::command(&self.plan)?,
            Software::Prosody => prosody::command(&self.plan)?,
            Software::Ejabberd => ejabberd::command(&self.plan)?,
        };
        let log = self.plan.dir.join("log");
        let mut process = Process::start(&self.software.to_string(), command, &log)?;
        let ports = self.plan.ports;
        let waits_for = match self.software {
            Software::Ejabberd => Some(ejabberd::ready_file(&self.plan)),
            _ => None,
        };
        let open = async |at: SocketAddr| tokio::net::TcpStream::connect(at).await.is_ok();
        process
            .until(async || {
                waits_for.as_ref().is_none_or(|file| file.is_file())
                    && open(ports.c2s_tls).await
                    && open(ports.s2s).await
            })
            .await?;
        self.process = Some(process);
        match self.software {
            Software::Ejabberd => self.use_certificate().await,
            _ => Ok(()),
        }
    }

    /// ejabberd 23.01 has one TLS context for each certificate and uses it in both directions. If the first use is by a stream of its own,
    /// the context never looks at a caller's SNI, and all domains on the port with TLS from the first byte get the first domain's
    /// certificate. So the first use is a call from here.
    async fn use_certificate(&self) -> Result<(), Error> {
        let (Some((domain, _)), false) = (self.plan.domains.first(), self.plan.proof == Proof::Clear) else {
            return Ok(());
        };
        let tcp = tokio::net::TcpStream::connect(self.plan.ports.s2s_tls).await?;
        Ok(Wire::new(Io::Plain(tcp)).secure(&self.options(domain).tls, domain).await?)
    }

    /// How a client of that domain connects.
    pub fn options(&self, domain: &str) -> Options {
        let options = Options::new(self.plan.ports.c2s, self.plan.ports.c2s_tls, domain);
        Options { mechanism: Some("SCRAM-SHA-1".into()), ..options }
    }

    /// kill -9.
    pub async fn kill(&mut self) -> Result<(), Error> {
        match self.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Ends it in order.
    pub async fn stop(&mut self) -> Result<(), Error> {
        match self.process.take() {
            Some(mut process) => process.stop().await.map(drop),
            None => Ok(()),
        }
    }

    /// A signal by name, such as `STOP` and `CONT`.
    pub async fn signal(&self, signal: &str) -> Result<(), Error> {
        match &self.process {
            Some(process) => process.signal(signal).await,
            None => Ok(()),
        }
    }

    /// Its process while it runs.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().and_then(Process::pid).unwrap_or_default()
    }

    /// All that it has said since it was started.
    pub fn whole_log(&self) -> String {
        let text = std::fs::read(self.plan.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// What it said last.
    pub fn log(&self) -> String {
        let text = self.whole_log();
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains(" TRACE ")).collect();
        let from = lines.len().saturating_sub(40);
        format!("--- the end of {}'s log ---\n{}\n", self.software, lines[from..].join("\n"))
    }
}

/// The accounts of the first domains.
pub(super) fn accounts(plan: &Plan) -> impl Iterator<Item = (String, String)> {
    let names = plan.domains.iter().take(8);
    names.flat_map(|(domain, _)| (0..plan.users).map(|n| (crate::load::peer::user(n), domain.clone())))
}

/// How much a server that is not Rookery logs.
pub(super) fn log_level(plan: &Plan) -> String {
    match std::env::var_os("ROOKERY_TEST_VERBOSE") {
        Some(_) => "debug",
        None if plan.generous => "warning",
        None => "info",
    }
    .into()
}

/// The password of every account.
pub(super) fn password() -> &'static str {
    PASSWORD
}
