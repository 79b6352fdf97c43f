//! All sockets of a node: bound together, so that it serves everything or does not start.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::dns::Begin;
use crate::http;
use crate::net::{Net as _, Tcp, accept};
use crate::start::Error;
use crate::streams::c2s::{self, Shared};
use crate::streams::s2s::{self, Federation};
use crate::streams::{component, either};
use crate::transport::tcp::{Socket, Start};

/// Bound and not yet serving.
pub struct Listeners {
    c2s: Vec<TcpListener>,
    c2s_tls: Vec<TcpListener>,
    component: Vec<TcpListener>,
    component_tls: Vec<TcpListener>,
    s2s: Vec<TcpListener>,
    s2s_tls: Vec<TcpListener>,
    /// Ports for clients and servers.
    both: Vec<TcpListener>,
    both_tls: Vec<TcpListener>,
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
    acme: Vec<TcpListener>,
    cluster: Option<TcpListener>,
}

/// The real addresses of `listeners`.
fn addresses<'a>(listeners: impl IntoIterator<Item = &'a TcpListener>) -> Vec<SocketAddr> {
    listeners.into_iter().filter_map(|l| l.local_addr().ok()).collect()
}

/// Those for which `of` is true, and the rest.
fn parted(all: &[SocketAddr], of: impl Fn(SocketAddr) -> bool) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    all.iter().copied().partition(|at| of(*at))
}

impl Listeners {
    /// Binds everything that the configuration names.
    pub fn bind(config: &Config) -> Result<Self, Error> {
        let all = |option: &'static str, all: &[SocketAddr]| -> Result<Vec<TcpListener>, Error> {
            all.iter()
                .map(|at| Tcp.bind(*at).map_err(|source| Error::Listen { option, at: *at, source }))
                .collect()
        };
        let listen = &config.listen;
        let (both, c2s) = parted(&listen.c2s, |at| listen.shares(at, false));
        let (both_tls, c2s_tls) = parted(&listen.c2s_tls, |at| listen.shares(at, true));
        let (_, s2s) = parted(&listen.s2s, |at| both.contains(&at));
        let (_, s2s_tls) = parted(&listen.s2s_tls, |at| both_tls.contains(&at));
        Ok(Self {
            c2s: all("listen.c2s", &c2s)?,
            c2s_tls: all("listen.c2s_tls", &c2s_tls)?,
            component: all("listen.component", &config.listen.component)?,
            component_tls: all("listen.component_tls", &config.listen.component_tls)?,
            s2s: all("listen.s2s", &s2s)?,
            s2s_tls: all("listen.s2s_tls", &s2s_tls)?,
            both: all("listen.c2s", &both)?,
            both_tls: all("listen.c2s_tls", &both_tls)?,
            http: all("listen.http", &config.listen.http)?,
            https: all("listen.https", &config.listen.https)?,
            acme: all("acme.listen", &config.listen.acme)?,
            cluster: match &config.cluster {
                Some(section) => all("cluster.listen", &[section.listen])?.pop(),
                None => None,
            },
        })
    }

    /// Where it listens for STARTTLS.
    pub fn c2s(&self) -> Vec<SocketAddr> {
        addresses(self.c2s.iter().chain(&self.both))
    }

    /// Where it listens for direct TLS.
    pub fn c2s_tls(&self) -> Vec<SocketAddr> {
        addresses(self.c2s_tls.iter().chain(&self.both_tls))
    }

    /// Where it listens for components in the clear.
    pub fn component(&self) -> Vec<SocketAddr> {
        addresses(&self.component)
    }

    /// Where it listens for components by TLS.
    pub fn component_tls(&self) -> Vec<SocketAddr> {
        addresses(&self.component_tls)
    }

    /// Where it listens for other servers.
    pub fn s2s(&self) -> Vec<SocketAddr> {
        addresses(self.s2s.iter().chain(&self.both))
    }

    /// Where it listens for other servers' direct TLS.
    pub fn s2s_tls(&self) -> Vec<SocketAddr> {
        addresses(self.s2s_tls.iter().chain(&self.both_tls))
    }

    /// Where it listens for HTTP.
    pub fn http(&self) -> Vec<SocketAddr> {
        addresses(&self.http)
    }

    /// Where it listens for HTTP by TLS.
    pub fn https(&self) -> Vec<SocketAddr> {
        addresses(&self.https)
    }

    /// Where it listens for challenges of an authority alone.
    pub fn acme(&self) -> Vec<SocketAddr> {
        addresses(&self.acme)
    }

    /// Where it listens for other nodes.
    pub fn cluster(&self) -> Option<SocketAddr> {
        self.cluster.as_ref()?.local_addr().ok()
    }

    /// The listener for other nodes, to be served by the cluster.
    pub fn take_cluster(&mut self) -> Option<TcpListener> {
        self.cluster.take()
    }

    /// All of them as in `c2s 127.0.0.1:5222`.
    pub fn names(&self) -> Vec<String> {
        let named =
            |name: &str, all: Vec<SocketAddr>| all.iter().map(|a| format!("{name} {a}")).collect::<Vec<_>>();
        let cluster = self.cluster().into_iter().collect();
        let all = [
            ("c2s", self.c2s()),
            ("c2s_tls", self.c2s_tls()),
            ("component", self.component()),
            ("component_tls", self.component_tls()),
            ("s2s", self.s2s()),
            ("s2s_tls", self.s2s_tls()),
            ("http", self.http()),
            ("https", self.https()),
            ("acme", self.acme()),
            ("cluster", cluster),
        ];
        all.into_iter().flat_map(|(name, all)| named(name, all)).collect()
    }

    /// Accepts clients and other servers until `shared.stop`, and answers HTTP until `last` turns true.
    pub fn serve(
        self,
        shared: &Arc<Shared>,
        federation: Option<&Arc<Federation>>,
        shown: &http::Shown,
        last: &watch::Receiver<bool>,
    ) -> Vec<JoinHandle<()>> {
        let mut tasks = Vec::new();
        for (start, listeners) in [(Start::InTheStream, self.c2s), (Start::Direct, self.c2s_tls)] {
            for listener in listeners {
                let shared = shared.clone();
                let (gate, stop) = (shared.gate.clone(), shared.stop.clone());
                let serve =
                    move |stream, peer, pass| c2s::serve(&shared, Socket::new(stream, start, peer), pass);
                tasks.push(tokio::spawn(accept::run(listener, gate, stop, serve)));
            }
        }
        let components = [
            ("component", Start::InTheStream, self.component),
            ("component_tls", Start::Direct, self.component_tls),
        ];
        for (via, start, listeners) in components {
            for listener in listeners {
                let shared = shared.clone();
                let (gate, stop) = (shared.gate.clone(), shared.stop.clone());
                let serve = move |stream, peer, pass| {
                    component::serve(&shared, Socket::new(stream, start, peer), via, pass);
                };
                tasks.push(tokio::spawn(accept::run(listener, gate, stop, serve)));
            }
        }
        let s2s = [(Begin::Starttls, self.s2s), (Begin::Direct, self.s2s_tls)];
        if let Some(federation) = federation {
            for (begin, listeners) in s2s {
                for listener in listeners {
                    let federation = federation.clone();
                    let (gate, stop) = (federation.gate.clone(), shared.stop.clone());
                    let serve = move |stream, peer, pass| s2s::serve(&federation, stream, begin, peer, pass);
                    tasks.push(tokio::spawn(accept::run(listener, gate, stop, serve)));
                }
            }
        }
        let both = [(Start::InTheStream, self.both), (Start::Direct, self.both_tls)];
        for (start, listeners) in both {
            for listener in listeners {
                let (shared, federation) = (shared.clone(), federation.cloned());
                let (gate, stop) = (shared.gate.clone(), shared.stop.clone());
                let serve = move |stream, peer, pass| match &federation {
                    Some(federation) => either::serve(&shared, federation, stream, start, peer, pass),
                    None => c2s::serve(&shared, Socket::new(stream, start, peer), pass),
                };
                tasks.push(tokio::spawn(accept::run(listener, gate, stop, serve)));
            }
        }
        let bound = http::Bound { plain: self.http, secured: self.https, challenges: self.acme };
        tasks.extend(http::serve(bound, shared, shown, last));
        tasks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_for_both_is_bound_once() {
        let free = || Tcp.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().local_addr().unwrap();
        let (one, two, three) = (free(), free(), SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut config = Config::development();
        let listen = &mut config.listen;
        (listen.c2s, listen.s2s) = (vec![one, three], vec![one, three]);
        (listen.c2s_tls, listen.s2s_tls) = (vec![two], vec![two]);
        listen.http = Vec::new();
        let bound = Listeners::bind(&config).unwrap();
        assert_eq!((bound.both.len(), bound.c2s.len(), bound.s2s.len()), (1, 1, 1));
        assert_eq!((bound.both_tls.len(), bound.c2s_tls.len(), bound.s2s_tls.len()), (1, 0, 0));
        assert!(bound.c2s().contains(&one) && bound.s2s().contains(&one));
        assert_eq!((bound.c2s_tls(), bound.s2s_tls()), (vec![two], vec![two]));
        // Port 0 is another one each time.
        assert_ne!(bound.c2s[0].local_addr().unwrap(), bound.s2s[0].local_addr().unwrap());
        assert!(
            bound.names().contains(&format!("c2s {one}")) && bound.names().contains(&format!("s2s {one}"))
        );
    }
}
