//! Where everything of a demonstration is: a folder for this run, ports, certificates, configurations.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use rookery_cluster::mesh::peer::NodeId;
use rookery_cluster::mesh::peer::authority::{self, AUTHORITY as CLUSTER_AUTHORITY};
use rookery_cluster::seams::Seams;

use super::{Error, Files, Lent};

/// The domain that is served.
pub const DOMAIN: &str = "localhost";

/// Ports that are looked at when a wished one is taken: below those that outgoing connections take.
const OTHERS: std::ops::Range<u16> = 20_000..32_000;

/// A node's places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seat {
    /// Its name, as in `n1`.
    pub name: String,
    /// Clients that begin with STARTTLS.
    pub c2s: SocketAddr,
    /// Clients that begin with TLS.
    pub c2s_tls: SocketAddr,
    /// Health and metrics.
    pub http: SocketAddr,
    /// Other nodes.
    pub cluster: SocketAddr,
    /// Its folder.
    pub folder: PathBuf,
}

impl Seat {
    /// Its configuration.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("rookery.toml")
    }

    /// Its admin socket.
    pub fn admin(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// What it logs.
    pub fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }
}

/// All places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The folder.
    pub folder: PathBuf,
    /// The store.
    pub store: SocketAddr,
    /// Any node, STARTTLS.
    pub door: SocketAddr,
    /// Any node, direct TLS.
    pub door_tls: SocketAddr,
    /// The nodes.
    pub seats: Vec<Seat>,
}

impl Plan {
    /// Chooses ports for `nodes` nodes: those that people expect, where they are free.
    pub fn new(folder: &Path, nodes: u8) -> Result<Self, Error> {
        let mut ports = Ports::default();
        let (door, door_tls) = (ports.near(5222)?, ports.near(5223)?);
        let store = ports.near(7300)?;
        let seat = |number: u8| -> Result<Seat, Error> {
            let name = format!("n{number}");
            let tens = u16::from(number) * 10;
            Ok(Seat {
                c2s: ports.near(5222 + tens)?,
                c2s_tls: ports.near(5223 + tens)?,
                http: ports.near(5280 + u16::from(number))?,
                cluster: ports.near(7100 + u16::from(number))?,
                folder: folder.join(&name),
                name,
            })
        };
        let seats = (1..=nodes).map(seat).collect::<Result<_, _>>()?;
        Ok(Self { folder: folder.to_owned(), store, door, door_tls, seats })
    }

    /// The authority that clients have to trust.
    pub fn authority(&self, lent: Lent) -> PathBuf {
        self.folder.join("tls").join(lent.authority)
    }

    /// Makes certificates and writes configurations: all nodes have the domain's certificate, each has its own for the
    /// cluster.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn furnish(&self, seams: &Seams, lent: Lent) -> Result<(), Error> {
        let now = i64::try_from(seams.clock.now_micros() / 1_000_000).unwrap_or(i64::MAX);
        let domain =
            (lent.certificate)(&self.folder.join("tls"), DOMAIN, now).map_err(Error::Certificates)?;
        let keys = self.folder.join("cluster");
        authority::make(&keys, "demo", now).map_err(|e| Error::Certificates(e.to_string()))?;
        for seat in &self.seats {
            std::fs::create_dir_all(&seat.folder).map_err(|e| Error::file(&seat.folder, e))?;
            let node = NodeId::new(&seat.name).map_err(|e| Error::Certificates(e.to_string()))?;
            let files =
                authority::certificate(&keys, &node, now).map_err(|e| Error::Certificates(e.to_string()))?;
            let cluster = Files { certificate: files.certificate, key: files.key };
            let file = seat.config_file();
            let text = self.configuration(seat, &keys.join(CLUSTER_AUTHORITY), &cluster, &domain);
            std::fs::write(&file, text).map_err(|e| Error::file(&file, e))?;
        }
        Ok(())
    }

    fn configuration(&self, seat: &Seat, authority: &Path, own: &Files, domain: &Files) -> String {
        let Seat { name, c2s, c2s_tls, http, cluster, .. } = seat;
        let quoted = |path: &Path| format!("{:?}", path.to_string_lossy());
        format!(
            r#"# Written by `rookery demo`.
data_dir = {data}
[store]
url = "dev://{store}"
[listen]
c2s = ["{c2s}"]
c2s_tls = ["{c2s_tls}"]
http = ["{http}"]
admin = "unix:{admin}"
[cluster]
name = "demo"
node = "{name}"
listen = "{cluster}"
authority = {authority}
certificate = {own}
key = {own_key}
[[domain]]
name = "{DOMAIN}"
certificate = {certificate}
key = {key}
registration = "open"
[limits]
registrations_per_hour = 1000
connections_per_address = 10000
connections_before_login_per_address = 5000
"#,
            data = quoted(&seat.folder.join("data")),
            store = self.store,
            admin = seat.admin().display(),
            authority = quoted(authority),
            own = quoted(&own.certificate),
            own_key = quoted(&own.key),
            certificate = quoted(&domain.certificate),
            key = quoted(&domain.key),
        )
    }
}

/// Hands out ports of 127.0.0.1 that nobody listens on, none twice.
#[derive(Default)]
struct Ports {
    given: HashSet<u16>,
}

impl Ports {
    /// `wish`, or another one.
    fn near(&mut self, wish: u16) -> Result<SocketAddr, Error> {
        let start = u16::try_from(std::process::id() % 8_000).unwrap_or_default();
        let others = (start..8_000).chain(0..start).map(|offset| OTHERS.start + offset);
        for port in std::iter::once(wish).chain(others) {
            let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if !self.given.contains(&port) && is_free(at) {
                self.given.insert(port);
                return Ok(at);
            }
        }
        Err(Error::Ports)
    }
}

/// Whether one may listen there. Nobody may listen at the same port of any address either: clients would not know which server
/// answers.
fn is_free(at: SocketAddr) -> bool {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, at.port()));
    let free = |at| -> io::Result<()> { TcpListener::bind(at).map(drop) };
    free(at).is_ok() && free(any).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_given_once_and_a_taken_one_not() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let wish = taken.local_addr().unwrap().port();
        let mut ports = Ports::default();
        let one = ports.near(wish).unwrap().port();
        assert_ne!(one, wish);
        assert_ne!(ports.near(one).unwrap().port(), one);
    }
}
