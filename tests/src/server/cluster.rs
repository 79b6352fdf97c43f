//! A cluster as processes: a store, nodes on ports that they keep, and HAProxy before them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::haproxy::{Behind, Haproxy};
use super::rookery::{GENEROUS, binary_for, get};
use super::{Error, Process, free_port, run};
use crate::client::Options;

/// The domain that is served.
pub const DOMAIN: &str = "localhost";
/// How many shards there are.
pub const SHARDS: usize = 1024;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Nodes that are started.
    pub nodes: usize,
    /// Nodes that HAProxy knows, and which may be started later.
    pub spare: usize,
    /// A store that is there already, as in `fdb:/etc/foundationdb/fdb.cluster`; `None`: `rookery store`.
    pub store: Option<String>,
    /// Lines for the nodes' configuration, after all tables.
    pub more: String,
    /// The program of all nodes, and of the store; `None`: the one under test.
    pub binary: Option<PathBuf>,
}

/// The processes, and their folder.
pub struct World {
    pub dir: PathBuf,
    pub nodes: Vec<Node>,
    pub door: Haproxy,
    /// `None` when the store is somebody else's.
    pub store: Option<Process>,
    temp: Option<TempDir>,
}

/// A node: its places outlive its process.
pub struct Node {
    pub behind: Behind,
    dir: PathBuf,
    config_file: PathBuf,
    binary: PathBuf,
    process: Option<Process>,
}

impl World {
    /// Starts everything and waits until all nodes are ready.
    pub async fn start(settings: &Settings) -> Result<World, Error> {
        super::need_program("haproxy")?;
        let binary = match &settings.binary {
            Some(binary) => std::path::absolute(binary)?,
            None => binary_for(settings.store.as_deref().unwrap_or_default())?,
        };
        let temp = tempfile::Builder::new().prefix("rookery-cluster-").tempdir()?;
        let dir = temp.path().to_owned();
        let (url, store) = match &settings.store {
            Some(url) => (url.clone(), None),
            None => {
                let at = free_port();
                let mut command = Command::new(&binary);
                command.args(["store", "--listen", &at.to_string(), "--data"]).arg(dir.join("store"));
                let mut store = Process::start("store", command, &dir.join("store.log"))?;
                store.until(async || TcpStream::connect(at).await.is_ok()).await?;
                (format!("dev://{at}"), Some(store))
            }
        };
        let mut nodes = Vec::new();
        for number in 1..=settings.nodes + settings.spare {
            nodes.push(Node::prepare(&dir, &binary, number, &url, &settings.more)?);
        }
        let behind: Vec<Behind> = nodes.iter().map(|node| node.behind.clone()).collect();
        let door = Haproxy::start(&dir, &behind).await?;
        let mut world = World { dir, nodes, door, store, temp: Some(temp) };
        for node in 0..settings.nodes {
            world.launch(node)?;
        }
        for node in 0..settings.nodes {
            world.ready(node).await?;
        }
        Ok(world)
    }

    /// How a client gets in: through HAProxy, which chooses the node.
    pub fn options(&self) -> Options {
        Options::new(self.door.c2s, self.door.c2s_tls, DOMAIN)
    }

    /// How a client gets to this node past HAProxy, which it then stands in for.
    pub fn options_of(&self, node: usize) -> Options {
        let behind = &self.nodes[node].behind;
        Options { proxied: true, ..Options::new(behind.c2s, behind.c2s_tls, DOMAIN) }
    }

    /// Starts a node's process; it is not ready yet.
    pub fn launch(&mut self, node: usize) -> Result<(), Error> {
        let node = &mut self.nodes[node];
        let mut command = Command::new(&node.binary);
        command.arg("serve").arg("--config").arg(&node.config_file).current_dir(&node.dir);
        node.process = Some(Process::start(&node.behind.name, command, &node.log_file())?);
        Ok(())
    }

    /// Waits until the node is ready.
    pub async fn ready(&mut self, node: usize) -> Result<(), Error> {
        let node = &mut self.nodes[node];
        let http = node.behind.http;
        let process = node.process.as_mut().ok_or_else(|| Error::Failed("not running".into()))?;
        process.until(async || is_ready(http).await).await
    }

    /// kill -9.
    pub async fn kill(&mut self, node: usize) -> Result<(), Error> {
        match self.nodes[node].process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM, and waits for the end: the node drains.
    pub async fn stop(&mut self, node: usize) -> Result<ExitStatus, Error> {
        let process = self.nodes[node].process.take();
        process.ok_or_else(|| Error::Failed("not running".into()))?.stop().await
    }

    /// Runs `rookery ARGS` against this node and gives what it printed.
    pub async fn command(&self, node: usize, args: &[&str]) -> Result<String, Error> {
        let mut command = std::process::Command::new(&self.nodes[node].binary);
        command.args(args).arg("--config").arg(&self.nodes[node].config_file).current_dir(&self.dir);
        let done = tokio::task::spawn_blocking(move || run(&mut command)).await;
        done.map_err(|e| Error::Failed(e.to_string()))?
    }

    /// Makes accounts in bulk.
    pub async fn add_users(&self, users: &[String], password: &str) -> Result<(), Error> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        for user in users {
            writeln!(file, "{user}@{DOMAIN}\t{password}")?;
        }
        file.flush()?;
        let path = file.path().to_string_lossy().into_owned();
        self.command(0, &["user", "import", &path]).await.map(drop)
    }

    /// The ends of all logs, for error messages.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let log = std::fs::read(node.log_file()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n");
            let _ = write!(text, "--- the end of {} ---\n{end}\n", node.log_file().display());
        }
        text
    }

    /// Leaves the folder with all logs where it is, for people; it says where.
    pub fn keep(&mut self) -> PathBuf {
        if let Some(temp) = self.temp.take() {
            let _ = temp.keep();
        }
        self.dir.clone()
    }
}

impl Node {
    fn prepare(world: &Path, binary: &Path, number: usize, url: &str, more: &str) -> Result<Node, Error> {
        let name = format!("n{number}");
        let dir = world.join(&name);
        std::fs::create_dir_all(&dir)?;
        let keys = world.join("keys");
        run(std::process::Command::new(binary)
            .args(["cluster", "cert", "--node", &name, "--dir"])
            .arg(&keys)
            .current_dir(world))?;
        let [c2s, c2s_tls, http, listen] = [(); 4].map(|()| free_port());
        let text = config(&dir, &keys, &name, url, [c2s, c2s_tls, http, listen], more);
        let config_file = dir.join("rookery.toml");
        std::fs::write(&config_file, text)?;
        Ok(Node {
            behind: Behind { name, c2s, c2s_tls, http },
            dir,
            config_file,
            binary: binary.to_owned(),
            process: None,
        })
    }

    /// The program that it is started with from now on.
    pub fn set_binary(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    /// Its process, if it was started.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::pid)
    }

    /// Whether its process runs, as far as we have not ended it ourselves.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Whether its process has ended by itself since this was asked last.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        let ended = self.process.as_mut().map(Process::ended).transpose()?.flatten();
        if ended.is_some() {
            self.process = None;
        }
        Ok(ended)
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("rookery.log")
    }
}

fn config(dir: &Path, keys: &Path, name: &str, url: &str, at: [SocketAddr; 4], more: &str) -> String {
    let [c2s, c2s_tls, http, listen] = at;
    let (dir, keys) = (dir.display(), keys.display());
    let archive = if more.contains("[archive]") { "" } else { "[archive]\ndefault = \"always\"" };
    format!(
        r#"data_dir = "{dir}/data"
[store]
url = "{url}"
[listen]
c2s = ["{c2s}"]
c2s_tls = ["{c2s_tls}"]
http = ["{http}"]
admin = "unix:{dir}/admin.sock"
proxy_protocol = true
[cluster]
node = "{name}"
listen = "{listen}"
authority = "{keys}/cluster_ca.pem"
certificate = "{keys}/{name}.pem"
key = "{keys}/{name}.key"
[[domain]]
name = "{DOMAIN}"
registration = "open"
[limits]
{GENEROUS}
{archive}
{more}
"#
    )
}

/// Whether a node says that it is ready.
pub async fn is_ready(http: SocketAddr) -> bool {
    get(http, "/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// What a node knows of its cluster, from its metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Shards that it holds.
    pub held: usize,
    /// Shards without a living owner.
    pub free: usize,
    /// Nodes that it has declared dead since it started.
    pub deaths: usize,
}

/// Asks a node; `None` if it does not answer.
pub async fn view(http: SocketAddr) -> Option<View> {
    let text = get(http, "/metrics").await.ok()?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse::<f64>().ok()).map_or(0, |value| value as usize)
    };
    Some(View {
        held: value("rookery_mesh_shards_held"),
        free: value("rookery_mesh_shards_free"),
        deaths: value("rookery_mesh_deaths_total"),
    })
}
