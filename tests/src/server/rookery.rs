//! Our own server as a process: started, killed, restarted on the same folder.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::OnceLock;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::{Error, Listening, Process, run};

/// What a test may want to be different.
#[derive(Clone, Debug)]
pub struct Config {
    pub domain: String,
    /// `store.url`.
    pub store: String,
    /// `"sync"` or `"buffered"`.
    pub durability: String,
    /// `"open"` or `"closed"`.
    pub registration: String,
    /// `"always"`, `"roster"` or `"never"`.
    pub archive: String,
    /// Lines for the `[limits]` table.
    pub limits: String,
    /// Lines for the `[listen]` table.
    pub listen: String,
    /// Anything else, after all tables.
    pub more: String,
    /// Fixed ports (c2s, c2s_tls, http) instead of any free ones.
    pub ports: [u16; 3],
    /// The port for components; `None`: it listens for none.
    pub component: Option<u16>,
    /// Where it listens for clients. Every address of 127.0.0.0/8 is this machine: one of its own leaves a node every port.
    pub address: Ipv4Addr,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            domain: "localhost".into(),
            store: "embedded:".into(),
            durability: "buffered".into(),
            registration: "open".into(),
            archive: "always".into(),
            limits: GENEROUS.into(),
            listen: String::new(),
            more: String::new(),
            ports: [0; 3],
            component: None,
            address: Ipv4Addr::LOCALHOST,
        }
    }
}

/// Limits under which hundreds of clients may come from one address at once.
pub const GENEROUS: &str = include_str!("generous.toml");

/// A Rookery process and its folder.
pub struct Rookery {
    pub listening: Listening,
    pub dir: PathBuf,
    config_file: PathBuf,
    binary: PathBuf,
    process: Option<Process>,
    /// Removes the folder at the end.
    _temp: TempDir,
}

impl Rookery {
    /// Starts a node on free ports in a temporary folder and waits until it is ready.
    pub async fn start(config: &Config) -> Result<Rookery, Error> {
        let binary = binary_for(&config.store)?;
        let temp = tempfile::Builder::new().prefix("rookery-test-").tempdir()?;
        let dir = temp.path().to_owned();
        let config_file = dir.join("rookery.toml");
        std::fs::write(&config_file, text(&dir, config))?;
        let nowhere = SocketAddr::from((config.address, 0));
        let listening =
            Listening { domain: config.domain.clone(), c2s: nowhere, c2s_tls: nowhere, http: None };
        let mut rookery = Rookery { listening, dir, config_file, binary, process: None, _temp: temp };
        rookery.launch().await?;
        Ok(rookery)
    }

    async fn launch(&mut self) -> Result<(), Error> {
        let ports_file = self.data_dir().join("ports.json");
        let _ = std::fs::remove_file(&ports_file);
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--config").arg(&self.config_file).current_dir(&self.dir);
        let mut process = Process::start("rookery", command, &self.dir.join("rookery.log"))?;
        let found = std::cell::Cell::new(None);
        process
            .until(async || {
                let Some(ports) = read_ports(&ports_file) else { return false };
                found.set(Some(ports));
                get(ports[2], "/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
            })
            .await?;
        let ports = found.get().ok_or_else(|| Error::Failed("no ports".into()))?;
        self.listening.c2s.set_port(ports[0].port());
        self.listening.c2s_tls.set_port(ports[1].port());
        self.listening.http = Some(ports[2]);
        self.process = Some(process);
        Ok(())
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The configuration file, for other commands of the same binary.
    pub fn config_file(&self) -> &Path {
        &self.config_file
    }

    /// Where it listens for components.
    pub fn component(&self) -> Option<SocketAddr> {
        let text = std::fs::read_to_string(self.data_dir().join("ports.json")).ok()?;
        let port = text.split("\"component\":[").nth(1)?.split(']').next()?.parse().ok()?;
        Some((Ipv4Addr::LOCALHOST, port).into())
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::pid)
    }

    /// kill -9: nothing is flushed, nobody is told.
    pub async fn kill(&mut self) -> Result<(), Error> {
        match self.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM, as an operator stops it; the exit status is given.
    pub async fn stop(&mut self) -> Result<ExitStatus, Error> {
        let process = self.process.as_mut().ok_or_else(|| Error::Failed("not running".into()))?;
        let status = process.stop().await?;
        self.process = None;
        Ok(status)
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> Result<ExitStatus, Error> {
        let mut process = self.process.take().ok_or_else(|| Error::Failed("not running".into()))?;
        process.wait().await
    }

    /// Starts again on the same folder (after `kill` or `stop`); the ports are new ones.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.launch().await
    }

    /// Sends a signal by name, such as `HUP`, `STOP`, `CONT`.
    pub async fn signal(&self, signal: &str) -> Result<(), Error> {
        match &self.process {
            Some(process) => process.signal(signal).await,
            None => Ok(()),
        }
    }

    /// Runs `rookery ARGS --config …` against this node or its folder and gives what it printed.
    pub fn command(&self, args: &[&str]) -> Result<String, Error> {
        run(std::process::Command::new(&self.binary)
            .args(args)
            .arg("--config")
            .arg(&self.config_file)
            .current_dir(&self.dir))
    }

    /// Makes accounts in bulk.
    pub fn add_users<'a>(
        &self,
        users: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<String, Error> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        for (jid, password) in users {
            writeln!(file, "{jid}\t{password}")?;
        }
        file.flush()?;
        let path = file.path().to_string_lossy().into_owned();
        self.command(&["user", "import", &path])
    }

    /// The end of the log, for error messages.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::tail).unwrap_or_default()
    }

    /// The whole log so far, over all restarts.
    pub fn whole_log(&self) -> String {
        std::fs::read_to_string(self.dir.join("rookery.log")).unwrap_or_default()
    }

    /// The Prometheus metrics as text.
    pub async fn metrics(&self) -> Result<String, Error> {
        let http = self.listening.http.ok_or_else(|| Error::Failed("no http port".into()))?;
        Ok(get(http, "/metrics").await?)
    }
}

/// The program under test: `ROOKERY_BIN`, or what cargo builds now in this profile.
pub fn binary() -> Result<PathBuf, Error> {
    binary_for("embedded:")
}

/// The same for a `store.url`: FoundationDB is only in a build that asks for it.
pub fn binary_for(store: &str) -> Result<PathBuf, Error> {
    static BINARIES: [OnceLock<Result<PathBuf, String>>; 2] = [const { OnceLock::new() }; 2];
    let fdb = store.starts_with("fdb:");
    let binary = BINARIES[usize::from(fdb)].get_or_init(|| build(fdb).map_err(|e| e.to_string()));
    binary.clone().map_err(Error::Failed)
}

fn build(fdb: bool) -> Result<PathBuf, Error> {
    if let Some(path) = std::env::var_os("ROOKERY_BIN") {
        return Ok(path.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--quiet", "--package", "rookery", "--bin", "rookery"]).current_dir(&root);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    if fdb {
        cargo.args(["--features", "fdb"]);
    }
    run(&mut cargo)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    Ok(target.join(profile).join("rookery"))
}

fn text(dir: &Path, config: &Config) -> String {
    let Config { domain, store, durability, registration, archive, limits, listen, more, ports, .. } = config;
    let address = config.address;
    let component = config.component.map(|port| format!("component = [\"127.0.0.1:{port}\"]\n"));
    let component = component.unwrap_or_default();
    let [c2s, c2s_tls, http] = ports;
    let dir = dir.display();
    format!(
        r#"data_dir = "{dir}/data"
[store]
url = "{store}"
durability = "{durability}"
[listen]
c2s = ["{address}:{c2s}"]
c2s_tls = ["{address}:{c2s_tls}"]
http = ["127.0.0.1:{http}"]
admin = "unix:{dir}/admin.sock"
{component}{listen}
[[domain]]
name = "{domain}"
registration = "{registration}"
outage_status = ["https://status.localhost/outage.json"]
[domain.contact]
abuse = ["mailto:abuse@localhost"]
admin = ["mailto:admin@localhost", "xmpp:admin@localhost"]
[archive]
default = "{archive}"
[limits]
{limits}
{more}
"#
    )
}

/// `{"c2s":5222,"c2s_tls":5223,"http":5280}`, or addresses as strings in place of the numbers.
fn read_ports(file: &Path) -> Option<[SocketAddr; 3]> {
    let text = std::fs::read_to_string(file).ok()?;
    let port = |name: &str| {
        let rest = text.split_once(&format!("\"{name}\""))?.1.trim_start().strip_prefix(':')?;
        let value: &str = rest.split([',', '}', ']']).next()?;
        let digits = value.trim().trim_matches(['"', '[']).rsplit(':').next()?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, digits.trim().parse().ok()?)))
    };
    Some([port("c2s")?, port("c2s_tls")?, port("http")?])
}

/// A plain GET; the whole answer with its head.
pub async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
