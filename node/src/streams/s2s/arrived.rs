//! A connection of another server before the first word on it: limits by address, and then [`incoming`](super::incoming).

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use super::Federation;
use super::conn::Conn;
use super::incoming::Incoming;
use super::wire::Wire;
use crate::dns::Begin;
use crate::net::{Origin, Pass, Stream};
use crate::tls::Accepted;
use crate::tls::remote::Secured;

/// A connection that was accepted from another server.
pub struct Arrived {
    wire: Wire,
    begin: Begin,
    peer: SocketAddr,
    /// Since when: its time to prove a domain runs.
    since: Instant,
}

/// Takes care of one accepted connection until its end, in a task of its own.
pub fn serve(federation: &Arc<Federation>, stream: impl Stream, begin: Begin, peer: SocketAddr, pass: Pass) {
    let (wire, since) = (Wire::new(Box::new(stream)), Instant::now());
    Arrived { wire, begin, peer, since }.serve(federation, pass);
}

impl Arrived {
    /// In the clear, for STARTTLS. The connection is there since `since`.
    pub fn plain(stream: impl Stream, peer: SocketAddr, since: Instant) -> Self {
        Self { wire: Wire::new(Box::new(stream)), begin: Begin::Starttls, peer, since }
    }

    /// By direct TLS, after the handshake, with the certificates of the other side.
    pub fn secured(
        accepted: Accepted<Box<dyn Stream>>,
        chain: Vec<CertificateDer<'static>>,
        peer: SocketAddr,
        since: Instant,
    ) -> Self {
        let Accepted { stream, sni, protocol, .. } = accepted;
        let wire = Wire::accepted(Secured { stream, chain, version: protocol, sni });
        Self { wire, begin: Begin::Direct, peer, since }
    }

    /// Takes care of it until its end, in a task of its own. `pass` is of the servers' gate.
    pub fn serve(self, federation: &Arc<Federation>, mut pass: Pass) {
        let Self { wire, begin, peer, since } = self;
        let settings = federation.settings.load_full();
        let kind = if begin == Begin::Direct { "s2s_tls" } else { "s2s" };
        metrics::counter!("rookery_connections_total", "kind" => kind).increment(1);
        let origin = Origin::from(peer.ip());
        let refuse = |limit: &'static str| {
            metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
            tracing::debug!(%peer, limit, "stream of another server refused");
        };
        if settings.federation.loopback && !peer.ip().to_canonical().is_loopback() {
            tracing::debug!(%peer, "stream refused: not from this machine");
            return;
        }
        let (arrivals, now) = (federation.arrivals.address(origin), Instant::now());
        if arrivals.due(now, &settings.arrivals).is_some() {
            return refuse("federation.new_streams_per_minute");
        }
        arrivals.stanza(now, &settings.arrivals);
        if let Err(refusal) = pass.from(origin) {
            return refuse(federation.gate.limit(refusal));
        }
        let conn = Conn::new(wire, federation.rates.address(origin), settings.clone());
        let incoming = Incoming::new(federation.clone(), settings, conn, begin, (peer, since));
        tokio::spawn(async move {
            // The handshake's state is freed before the stream's begins.
            if let Some(running) = Box::pin(incoming.run(pass)).await {
                running.run().await;
            }
        });
    }
}
