//! A client's connection: bytes in, bytes out. A connection negotiates TLS, SASL and a session (RFC 6120), and from then on is a
//! numbered pipe between a socket and a session actor, which decides nothing about a user.
//!
//! The way of a connection: [`serve`] → `negotiate` (boxed: its state is large and short-lived) → `running` (small: this is
//! what thousands of idle clients cost) → `closing`. Nothing here keeps a read buffer per connection: bytes are read into
//! a scratch buffer of the thread, and only the tail of an incomplete element is kept.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rookery_actors::Host;
use rookery_cluster::mesh::Mesh;
use rookery_cluster::seams::Seams;
use rookery_proto::xmpp::error::{StreamCondition, StreamError};
use rookery_proto::xmpp::ns;
use tokio::sync::watch;

use crate::net::{Gate, Guesses, Pass};
use crate::streams::rate::Rates;
use crate::tls::Tls;
use crate::transport::Transport;

mod bind;
mod clients;
mod closing;
mod header;
mod input;
mod negotiate;
mod nonzas;
mod offers;
mod output;
mod register;
mod running;
mod sasl;
mod settings;
mod starttls;
#[cfg(test)]
pub(in crate::streams) mod tests;

pub use clients::Clients;
pub use settings::Settings;

/// The namespace of what clients send (RFC 6120 section 4.8.2).
const CONTENT: &str = ns::CLIENT;

/// What all connections share.
pub struct Shared {
    /// Users and sessions.
    pub host: Host,
    /// Certificates.
    pub tls: Arc<Tls>,
    /// The count of connections.
    pub gate: Gate,
    /// The connections that have a session.
    pub clients: Clients,
    /// Where users live, in a cluster.
    pub mesh: Option<Arc<Mesh>>,
    /// Guesses of passwords.
    pub guesses: Arc<Guesses>,
    /// What was sent, by account and address.
    pub rates: Rates,
    /// Clock and randomness.
    pub seams: Seams,
    /// Limits and switches; replaced by a reload.
    pub settings: ArcSwap<Settings>,
    /// Turns true when the node stops.
    pub stop: watch::Receiver<bool>,
    /// Counters that are touched for every read and write.
    pub meters: Meters,
}

/// Counters held ready: looking one up by name costs more than counting.
pub struct Meters {
    received: metrics::Counter,
    sent: metrics::Counter,
}

impl Meters {
    /// Registers them with the recorder in force.
    pub fn new() -> Self {
        Self {
            received: metrics::counter!("rookery_received_bytes_total", "kind" => "c2s"),
            sent: metrics::counter!("rookery_sent_bytes_total", "kind" => "c2s"),
        }
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client closed its stream properly.
    Closed,
    /// The socket ended without `</stream:stream>`, or failed.
    Lost,
    /// We close it with an error; `resumable`: the client is not to blame, its session may be resumed.
    Error { error: Box<StreamError>, resumable: bool },
    /// We close it without an error.
    Clean,
    /// At once and silently.
    Abandon,
}

impl End {
    fn error(condition: StreamCondition) -> Self {
        Self::Error { error: Box::new(condition.into()), resumable: false }
    }

    fn because(condition: StreamCondition, text: &'static str) -> Self {
        Self::Error { error: Box::new(StreamError::from(condition).text(text)), resumable: false }
    }
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        tracing::trace!(%error, "socket");
        Self::Lost
    }
}

/// Takes care of one accepted connection until its end, in tasks of its own.
pub fn serve<T: Transport>(shared: &Arc<Shared>, transport: T, pass: Pass) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let via = transport.via();
        metrics::counter!("rookery_connections_total", "kind" => via).increment(1);
        let open = Open::new(via);
        // The handshake's state is freed before the session's begins.
        if let Some(bound) = Box::pin(negotiate::run(shared, transport, pass)).await {
            let running = running::run(bound);
            tokio::spawn(async move {
                running.await;
                drop(open);
            });
        }
    });
}

/// Counts an open connection in the gauge.
struct Open(&'static str);

impl Open {
    fn new(via: &'static str) -> Self {
        metrics::gauge!("rookery_connections", "kind" => via).increment(1.0);
        Self(via)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("rookery_connections", "kind" => self.0).decrement(1.0);
    }
}
