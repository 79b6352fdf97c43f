//! The channel between nodes: one mutual-TLS gRPC stream for each pair of nodes and direction, with batched envelopes.
//!
//! - [`Peers`] are all other nodes; [`Peer`] is one: [`Peer::send`] takes an [`Envelope`] and tells its [`Outcome`].
//! - Envelopes to one node arrive in the order they were sent in, each once as long as both processes live, however often
//!   the connection breaks. When the other process is gone, what has no outcome is [`Outcome::Lost`].
//! - Nothing grows without bound: a node gives each other a window of envelopes and bytes that may be without an outcome;
//!   the sender's queue has a limit, at which [`Peer::send`] gives the envelope back; what the receiver has to remember
//!   is bounded by the window.
//! - Connections are made when there is something to send. Sockets, addresses, chance and time are passed in.
//!
//! Halves without I/O: `outbox` (sender) and `inbox` (receiver); around them `link` (one connection out) and `server`
//! (connections in); `hello` says which nodes may talk to each other, [`tls`] and [`authority`] make and check certificates.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

pub mod authority;
mod connect;
mod denied;
mod envelope;
mod hello;
mod inbox;
mod link;
mod meters;
pub mod net;
pub(super) mod node;
mod options;
mod outbox;
mod server;
mod shared;
pub mod tls;

#[cfg(test)]
mod tests;

pub use denied::Denied;
pub use envelope::{ENVELOPE_MAX, Envelope, MESSAGE_MAX, Outcome, REPLY_MAX, Refused, Why};
pub use hello::Me;
pub use inbox::Done;
pub use node::{BadName, NAME_MAX, NodeId};
pub use options::{Limit, Options};
pub use tls::Security;

use crate::seams::Seams;
use link::Link;
use net::{Accept, Network};
use shared::Shared;

/// Takes what other nodes send.
pub trait Receiver: Send + Sync + 'static {
    /// Takes an envelope from a node, and sees to it that `done` says what became of it. Called for one node's envelopes
    /// one after another, in order. Must not block, and must not use [`Peers`] other than to send.
    fn take(&self, from: &NodeId, envelope: Envelope, done: Done);

    /// Whether this node may say of itself that it works: its lease holds. Otherwise probes get a no, so that its shards
    /// are taken.
    fn is_well(&self) -> bool {
        true
    }
}

/// Where nodes are.
pub trait Addresses: Send + Sync + 'static {
    /// The address (`host:port`) at which `node` takes connections of other nodes; asked before each attempt.
    fn address(&self, node: &NodeId) -> Option<String>;
}

/// All other nodes. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Peers(Arc<Shared>);

/// Another node. Cheap to clone.
#[derive(Clone)]
pub struct Peer(Arc<Link>);

/// How it stands with another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The node.
    pub node: NodeId,
    /// The generation that answered last.
    pub generation: Option<u64>,
    /// Whether there is a stream to it.
    pub connected: bool,
    /// Envelopes that wait for a connection or for credit.
    pub waiting: usize,
    /// Envelopes that are sent and have no outcome.
    pub in_flight: usize,
    /// Why there is no stream, if one was tried.
    pub trouble: Option<String>,
}

impl Peers {
    /// The channel of the node `me`. Nothing is connected yet, and nothing served: see [`Peers::serve`].
    pub fn new(
        me: Me,
        options: Options,
        security: Security,
        network: Arc<dyn Network>,
        addresses: Arc<dyn Addresses>,
        seams: Seams,
    ) -> Self {
        if matches!(security, Security::PlainText) {
            tracing::warn!(
                "mesh: traffic between nodes has no encryption and no authentication: for development only"
            );
        }
        Self(Arc::new(Shared::new(me, options, security, network, addresses, seams)))
    }

    /// The node of that name. The first call starts a task, so it has to be made within a tokio runtime; a connection is
    /// made when there is something to send.
    pub fn peer(&self, node: &NodeId) -> Peer {
        Peer(self.0.link_or_start(node))
    }

    /// Serves other nodes on `listener` until `stop` completes; then ends their streams.
    ///
    /// # Errors
    /// If the server breaks, which it does not by what a peer does.
    pub async fn serve(
        &self,
        listener: impl Accept,
        receiver: Arc<dyn Receiver>,
        stop: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        server::serve(Arc::clone(&self.0), listener, receiver, stop).await
    }

    /// Whether `node` answers on the channel within that time and says that it is well ([`Receiver::is_well`]). Connects
    /// if need be, at once.
    pub async fn probe(&self, node: &NodeId, within: Duration) -> bool {
        let link = self.0.link_or_start(node);
        timeout(within, link.ping()).await.unwrap_or(false)
    }

    /// Whether `third` answers within that time that `node` answered it so.
    pub async fn probe_through(&self, third: &NodeId, node: &NodeId, within: Duration) -> bool {
        let link = self.0.link_or_start(third);
        // The answer needs some time for its way back.
        timeout(within, link.probe(node, within.mul_f64(0.9))).await.unwrap_or(false)
    }

    /// Whether `node` can be reached within that time, straight or through one of `others`, which are asked all at once
    /// when half of the time is over or the answer is no.
    pub async fn reaches(&self, node: &NodeId, others: &[NodeId], within: Duration) -> bool {
        let half = within / 2;
        if self.probe(node, half).await {
            return true;
        }
        let mut asked = JoinSet::new();
        for other in others.iter().filter(|other| *other != node && **other != self.0.me.node) {
            let (peers, other, node) = (self.clone(), other.clone(), node.clone());
            asked.spawn(async move { peers.probe_through(&other, &node, half).await });
        }
        while let Some(answer) = asked.join_next().await {
            if answer.unwrap_or(false) {
                return true;
            }
        }
        false
    }

    /// The members say that this generation of `node` is dead: what it has not answered is lost at once, nothing is sent
    /// to it nor taken from it any more. A later generation is welcome.
    pub fn dead(&self, node: &NodeId, generation: u64) {
        self.0.bury(node, generation);
    }

    /// Forgets nodes for which `keep` is false: they are no members any more. What waits for them is lost.
    pub fn retain(&self, keep: impl Fn(&NodeId) -> bool) {
        self.0.retain(keep);
    }

    /// Other certificates, for connections from now on.
    pub fn renew(&self, security: Security) {
        self.0.renew(security);
    }

    /// Which certificates are denied from now on. Connections that stand on one of them end.
    pub fn deny(&self, denied: Denied) {
        self.0.denied.send_replace(denied);
    }

    /// Every node that this one has something to do with, by name.
    pub fn standings(&self) -> Vec<Standing> {
        let standing = |link: Arc<Link>| {
            let level = link.level();
            Standing {
                node: link.node.clone(),
                generation: link.generation(),
                connected: link.is_up(),
                waiting: level.waiting,
                in_flight: level.sent,
                trouble: link.trouble(),
            }
        };
        self.0.links().into_iter().map(standing).collect()
    }

    /// Ends all streams. Everything that waits is lost.
    pub fn close(&self) {
        self.retain(|_| false);
    }
}

impl Peer {
    /// The node.
    pub fn node(&self) -> &NodeId {
        &self.0.node
    }

    /// Sends an envelope: exactly once, after all sent before. `on_outcome` is called once, with what became of it, by
    /// the task that reads the connection: the function must be quick, and may be called before this returns.
    ///
    /// # Errors
    /// The envelope and the callback, when too much waits for the node ([`Peer::room`] waits for room), when the
    /// envelope is too large, or when the channel is closed.
    pub fn send<F>(&self, envelope: Envelope, on_outcome: F) -> Result<(), Refused<F>>
    where
        F: FnOnce(Outcome) + Send + 'static,
    {
        self.0.send(envelope, on_outcome)
    }

    /// Waits until there is room for an envelope of that size ([`Envelope::size`]), or the channel is closed. Others may
    /// take it first.
    pub async fn room(&self, size: usize) {
        self.0.room(size).await;
    }

    /// Whether there is a stream to it.
    pub fn is_connected(&self) -> bool {
        self.0.is_up()
    }
}
