//! Servers as child processes: Rookery, and the peers it is compared with, each in a folder of its own on loopback.

pub mod cluster;
pub mod ejabberd;
#[path = "../../../cluster/tests/fdb/cluster.rs"]
pub mod fdb;
pub mod haproxy;
pub mod pebble;
pub mod postgres;
mod process;
pub mod prosody;
pub mod rookery;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

pub use self::process::Process;
pub use self::rookery::Rookery;
use crate::client::Options;

/// Why a server could not be started or talked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not here: the test cannot run, and says so.
    #[error("{0} is not installed")]
    Missing(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The server ran and failed; the text has its log.
    #[error("{0}")]
    Failed(String),
}

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct Listening {
    pub domain: String,
    pub c2s: SocketAddr,
    pub c2s_tls: SocketAddr,
    pub http: Option<SocketAddr>,
}

impl Listening {
    /// How a client gets there.
    pub fn options(&self) -> Options {
        Options::new(self.c2s, self.c2s_tls, &self.domain)
    }
}

/// A port on 127.0.0.1 that nobody listens on, below the range from which outgoing connections take theirs.
pub fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    let start = std::process::id().wrapping_mul(37);
    for _ in 0..COUNT {
        let offset = (start + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, (FIRST + offset) as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port below 32768");
}

/// Looks for a program in PATH and where Debian keeps what only root should run.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/bin", "/sbin", "/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/17/bin"];
    let folders = path.split(':').chain(more).map(Path::new);
    folders.map(|f| f.join(name)).find(|p| p.is_file())
}

pub(crate) fn need_program(name: &str) -> Result<PathBuf, Error> {
    find_program(name).ok_or_else(|| Error::Missing(name.to_owned()))
}

/// Runs a command to its end; its output is in the error if it fails.
pub fn run(command: &mut Command) -> Result<String, Error> {
    let output = command.output()?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.success() {
        true => Ok(text),
        false => Err(Error::Failed(format!("{command:?}: {}\n{text}", output.status))),
    }
}

/// A self-signed certificate for `domain` in `dir`: (certificate, key, both in one file).
pub fn certificate(dir: &Path, domain: &str) -> Result<(PathBuf, PathBuf, PathBuf), Error> {
    let fail = |e: rcgen::Error| Error::Failed(e.to_string());
    let mut params = rcgen::CertificateParams::new(vec![domain.to_owned()]).map_err(fail)?;
    // ejabberd sets a timer for the end, and rcgen's default, the year 4096, is too far for Erlang.
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2036, 1, 1);
    let key = rcgen::KeyPair::generate().map_err(fail)?;
    let cert = params.self_signed(&key).map_err(fail)?;
    let (cert, key) = (cert.pem(), key.serialize_pem());
    let paths = (dir.join("cert.pem"), dir.join("key.pem"), dir.join("both.pem"));
    std::fs::write(&paths.0, &cert)?;
    std::fs::write(&paths.1, &key)?;
    std::fs::write(&paths.2, format!("{cert}{key}"))?;
    Ok(paths)
}
