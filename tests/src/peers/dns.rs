//! A DNS server (nsd) that answers for the root: a world of its own, signed or not.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::server::{Error, Process, free_port, need_program, run};

/// What is in the zone.
#[derive(Clone, Debug)]
pub enum Record {
    /// `host` is 127.0.0.1.
    Here { host: String },
    /// A service of `domain`, such as `_xmpp-server`; the target `.` says that there is none.
    Service { service: &'static str, domain: String, priority: u16, port: u16, host: String },
    /// The key of the server that listens on that port of `host`, as `TLSA 3 1 1`.
    Key { host: String, port: u16, hash: String },
}

/// The zone of names that are delegated without a signature.
const UNSIGNED: &str = "plain.example";

/// An nsd process.
pub struct Dns {
    /// Where it answers.
    pub at: SocketAddr,
    /// The root's key, if the root is signed.
    pub anchor: Option<PathBuf>,
    process: Process,
}

impl Dns {
    /// Starts it in `dir` with those records. Names below [`UNSIGNED`] are never signed.
    pub async fn start(dir: &Path, records: &[Record], signed: bool) -> Result<Dns, Error> {
        let program = need_program("nsd")?;
        std::fs::create_dir_all(dir)?;
        let at = free_port();
        let (below, root): (Vec<Record>, Vec<Record>) =
            records.iter().cloned().partition(|record| record.name().ends_with(UNSIGNED));
        std::fs::write(dir.join("plain.zone"), zone(UNSIGNED, &below))?;
        let mut text = zone("", &root);
        let _ = writeln!(text, "{UNSIGNED}. IN NS ns.example.");
        let root = dir.join("root.zone");
        std::fs::write(&root, text)?;
        let anchor = if signed { Some(sign(dir)?) } else { None };
        let config = include_str!("nsd.conf").replace("{dir}", &dir.display().to_string());
        let file = dir.join("nsd.conf");
        std::fs::write(&file, config.replace("{port}", &at.port().to_string()))?;
        let mut command = Command::new(program);
        command.arg("-d").arg("-c").arg(&file).current_dir(dir);
        let mut process = Process::start("nsd", command, &dir.join("nsd.log"))?;
        process.until(async || tokio::net::TcpStream::connect(at).await.is_ok()).await?;
        Ok(Dns { at, anchor, process })
    }

    /// Stops it.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.process.stop().await.map(drop)
    }
}

impl Record {
    fn name(&self) -> String {
        match self {
            Record::Here { host } => host.clone(),
            Record::Service { service, domain, .. } => format!("{service}._tcp.{domain}"),
            Record::Key { host, port, .. } => format!("_{port}._tcp.{host}"),
        }
    }

    fn data(&self) -> String {
        match self {
            Record::Here { .. } => "A 127.0.0.1".into(),
            Record::Service { priority, port, host, .. } => {
                format!("SRV {priority} 1 {port} {}.", host.trim_end_matches('.'))
            }
            Record::Key { hash, .. } => format!("TLSA 3 1 1 {hash}"),
        }
    }
}

fn zone(name: &str, records: &[Record]) -> String {
    let mut text = format!(
        "$ORIGIN .\n$TTL 2\n{name}. IN SOA ns.example. admin.example. 1 3600 600 86400 2\n{name}. IN NS ns.example.\n"
    );
    if name.is_empty() {
        text.push_str("ns.example. IN A 127.0.0.1\n");
    }
    for record in records {
        let _ = writeln!(text, "{}. IN {}", record.name(), record.data());
    }
    text
}

/// Signs `root.zone` in place; gives the file with the root's key.
fn sign(dir: &Path) -> Result<PathBuf, Error> {
    let tool = |name: &str| Ok::<_, Error>(std::process::Command::new(need_program(name)?));
    let key = run(tool("ldns-keygen")?.args(["-k", "-a", "ECDSAP256SHA256", "."]).current_dir(dir))?;
    let key = key.lines().last().unwrap_or_default().trim().to_owned();
    run(tool("ldns-signzone")?
        .args(["-e", "20360101", "-f", "signed.zone", "root.zone", &key])
        .current_dir(dir))?;
    std::fs::rename(dir.join("signed.zone"), dir.join("root.zone"))?;
    Ok(dir.join(format!("{key}.key")))
}
