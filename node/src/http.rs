//! The node's side of the HTTP service ([`rookery_ops::http`]): which routes at which listener, the domains' certificates, the
//! proxies that are believed.

use std::io;
use std::sync::Arc;

use rookery_ops::health::Health;
use rookery_ops::http::{self, Limits, Plain, Secure, Service, Trusted};
use rookery_ops::metrics;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::acme::Acme;
use crate::posh;
use crate::streams::c2s::Shared;
use crate::streams::s2s::Federation;
use crate::tls::{Accepted, Tls, TlsStream, accept_http};

/// HTTP over TLS, with the certificates that clients' streams have.
struct Https(Arc<Tls>);

impl Secure for Https {
    type Stream = TlsStream<TcpStream>;

    async fn secure(&self, socket: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<http::Tls>)> {
        let Accepted { stream, bindings, protocol, .. } = accept_http(&self.0, socket).await?;
        let facts = http::Tls {
            version: protocol,
            exporter: bindings.exporter,
            server_end_point: bindings.server_end_point,
        };
        Ok((stream, Some(facts)))
    }
}

/// Listeners by what they answer.
pub struct Bound {
    /// The operator's.
    pub plain: Vec<TcpListener>,
    /// With TLS, for everybody.
    pub secured: Vec<TcpListener>,
    /// Challenges for certificates, and nothing else.
    pub challenges: Vec<TcpListener>,
}

/// What the routes show.
pub struct Shown {
    /// Whether the node takes work.
    pub health: Health,
    /// Its metrics.
    pub metrics: metrics::Handle,
    /// The answers to challenges.
    pub acme: Arc<Acme>,
    /// The part that talks to other servers, if there are any.
    pub federation: Option<Arc<Federation>>,
}

/// Serves all kinds of listeners until `last` turns true.
pub fn serve(
    bound: Bound,
    shared: &Arc<Shared>,
    shown: &Shown,
    last: &watch::Receiver<bool>,
) -> Vec<JoinHandle<()>> {
    let Shown { health, metrics, acme, federation } = shown;
    let posh = || posh::routes(federation.as_ref());
    let stop = || {
        let mut last = last.clone();
        async move { drop(last.wait_for(|stop| *stop).await) }
    };
    let (limits, trusted) = (Limits::default(), trusted(shared.clone()));
    let mut tasks = Vec::new();
    for listener in bound.plain {
        let routes = http::operator(health.clone(), metrics.clone()).and(acme.routes()).and(posh());
        let service = Service { routes, limits, secure: Plain, trusted: trusted.clone() };
        tasks.push(tokio::spawn(service.serve(listener, stop())));
    }
    for listener in bound.challenges {
        let service = Service { routes: acme.routes(), limits, secure: Plain, trusted: trusted.clone() };
        tasks.push(tokio::spawn(service.serve(listener, stop())));
    }
    for listener in bound.secured {
        let routes = http::health(health.clone()).and(acme.routes()).and(posh());
        let secure = Https(shared.tls.clone());
        let service = Service { routes, limits, secure, trusted: trusted.clone() };
        tasks.push(tokio::spawn(service.serve(listener, stop())));
    }
    tasks
}

/// `listen.http_proxy_trusted`, as it is in force.
fn trusted(shared: Arc<Shared>) -> Trusted {
    Arc::new(move |address| {
        shared.settings.load().http_proxies.iter().any(|network| network.contains(address))
    })
}
