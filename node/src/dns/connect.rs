//! A connection to the first target that can be reached: targets in their order, the addresses of each raced (RFC 8305).

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::services::alternate;
use super::{Begin, Target};
use crate::config::Proxy;
use crate::net::tcp;

/// How long one attempt may take, and all of them.
const ATTEMPT: Duration = Duration::from_secs(10);
const ALL: Duration = Duration::from_secs(30);
/// How long an attempt is alone before the next address of its host is tried beside it (RFC 8305 section 5), and before the
/// next target is.
const ADDRESS: Duration = Duration::from_millis(250);
const TARGET: Duration = Duration::from_secs(3);

/// A connection.
#[derive(Debug)]
pub struct Connected {
    /// The connection, without delay of small packets and with keep-alive.
    pub stream: TcpStream,
    /// The index of its target in the list that was given.
    pub target: usize,
    /// The address that it leads to: the target's, or the proxy's.
    pub address: SocketAddr,
}

/// Why no target could be reached: each attempt and its error.
#[derive(Debug, thiserror::Error)]
#[error("no server could be reached: {}", .0.iter().map(|(at, error)| format!("{at}: {error}")).collect::<Vec<_>>().join("; "))]
pub struct Unreachable(pub Vec<(String, io::Error)>);

/// One attempt.
struct Attempt {
    target: usize,
    host: String,
    port: u16,
    /// `None`: through the proxy.
    address: Option<IpAddr>,
    /// How long the one before is alone.
    pause: Duration,
}

/// A connection to the first address of `host` that accepts: a name that the operating system resolves, or an address. An address that
/// never answers holds nobody up. Takes 30 s at most, beside the time of the name's resolution.
pub(crate) async fn connect_to(host: &str, port: u16) -> io::Result<TcpStream> {
    let found = tokio::net::lookup_host((host, port)).await?;
    let (v6, v4) = found.map(|at| at.ip()).partition(IpAddr::is_ipv6);
    let addresses = alternate(v6, v4);
    let begin = Begin::Direct;
    let target = Target {
        begin,
        host: host.to_owned(),
        port,
        addresses,
        secure: false,
        tlsa: Vec::new(),
        proxied: false,
    };
    connect(&[target], None).await.map(|connected| connected.stream).map_err(io::Error::other)
}

pub(super) async fn connect(targets: &[Target], proxy: Option<Proxy>) -> Result<Connected, Unreachable> {
    let mut waiting = attempts(targets);
    let mut errors = Vec::new();
    let mut running = JoinSet::new();
    let (end, mut next) = (Instant::now() + ALL, Instant::now());
    loop {
        if waiting.is_empty() && running.is_empty() {
            return Err(Unreachable(errors));
        }
        tokio::select! {
            biased;
            Some(done) = running.join_next() => match done {
                Ok((_, Ok(connected))) => return Ok(connected),
                Ok((at, Err(error))) => {
                    errors.push((at, error));
                    next = Instant::now();
                }
                Err(error) => errors.push(("connect".to_owned(), io::Error::other(error))),
            },
            () = sleep_until(end) => {
                errors.push(("all".to_owned(), io::ErrorKind::TimedOut.into()));
                return Err(Unreachable(errors));
            }
            () = sleep_until(next), if !waiting.is_empty() => {
                if let Some(attempt) = waiting.pop_front() {
                    running.spawn(run(attempt, proxy.clone()));
                }
                next = Instant::now() + waiting.front().map_or(Duration::ZERO, |next| next.pause);
            }
        }
    }
}

fn attempts(targets: &[Target]) -> VecDeque<Attempt> {
    let mut all = VecDeque::new();
    for (index, target) in targets.iter().enumerate() {
        let addresses: Vec<Option<IpAddr>> =
            if target.proxied { vec![None] } else { target.addresses.iter().copied().map(Some).collect() };
        for (n, address) in addresses.into_iter().enumerate() {
            all.push_back(Attempt {
                target: index,
                host: target.host.clone(),
                port: target.port,
                address,
                pause: if n == 0 { TARGET } else { ADDRESS },
            });
        }
    }
    all
}

async fn run(attempt: Attempt, proxy: Option<Proxy>) -> (String, io::Result<Connected>) {
    let Attempt { target, host, port, address, .. } = attempt;
    let at = match address {
        Some(address) => SocketAddr::new(address, port).to_string(),
        None => format!("{host}:{port} through the SOCKS5 proxy"),
    };
    let connecting = async {
        let (stream, address) = match (address, proxy) {
            (Some(address), _) => {
                let address = SocketAddr::new(address, port);
                (tcp::connect(address).await?, address)
            }
            (None, Some(proxy)) => (proxy.connect(&host, port).await?, proxy.address),
            (None, None) => return Err(io::Error::other("there is no SOCKS5 proxy any more")),
        };
        Ok(Connected { stream, target, address })
    };
    let done = timeout(ATTEMPT, connecting).await;
    (at, done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
}
