//! A node among others: its membership and its channel, each of which needs the other.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::peer::net::{Accept, Network};
use super::peer::{self, Addresses, Done, Envelope, Me, NodeId, Peers, Receiver, Security};
use super::{Config, Epoch, Error, Handoff, Mesh, Probe};
use crate::entity::Shard;
use crate::seams::Seams;
use crate::store::{Database, Fut};
use crate::tables::nodes::State;

/// What a node needs to join.
pub struct Setup {
    /// The cluster's name: the same on all nodes. Nodes of other names are refused.
    pub name: String,
    /// What the node is.
    pub config: Config,
    /// How it knows other nodes.
    pub security: Security,
    /// Settings of the channel.
    pub options: peer::Options,
    /// Where connections are made.
    pub network: Arc<dyn Network>,
}

/// A node's place in its cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    mesh: Arc<Mesh>,
    peers: Peers,
    late: Arc<Late>,
    undertaker: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.undertaker.abort();
    }
}

/// What is there only after the node has joined.
#[derive(Default)]
struct Late {
    mesh: OnceLock<Weak<Mesh>>,
    peers: OnceLock<Peers>,
    handoff: OnceLock<Arc<dyn Handoff>>,
    probe: Duration,
}

impl Late {
    fn mesh(&self) -> Option<Arc<Mesh>> {
        self.mesh.get()?.upgrade()
    }
}

impl Probe for Late {
    fn reaches<'a>(&'a self, node: &'a NodeId) -> Fut<'a, bool> {
        Box::pin(async move {
            let (Some(peers), Some(mesh)) = (self.peers.get(), self.mesh()) else { return false };
            let map = mesh.map();
            let third = |state| matches!(state, State::Active | State::Draining);
            let others: Vec<NodeId> =
                map.members().iter().filter(|m| third(m.status.state())).map(|m| m.node.clone()).collect();
            peers.reaches(node, &others, self.probe).await
        })
    }
}

impl Handoff for Late {
    fn release<'a>(&'a self, shard: Shard, epoch: Epoch, to: Option<&'a NodeId>) -> Fut<'a, ()> {
        match self.handoff.get() {
            Some(handoff) => handoff.release(shard, epoch, to),
            None => Box::pin(std::future::ready(())),
        }
    }
}

impl Addresses for Late {
    fn address(&self, node: &NodeId) -> Option<String> {
        let mesh = self.mesh()?;
        let map = mesh.map();
        map.member(node).map(|member| member.status.address.clone()).filter(|address| !address.is_empty())
    }
}

/// A receiver whose node is well as long as its lease holds.
struct Well {
    receiver: Arc<dyn Receiver>,
    mesh: Weak<Mesh>,
}

impl Receiver for Well {
    fn take(&self, from: &NodeId, envelope: Envelope, done: Done) {
        self.receiver.take(from, envelope, done);
    }

    fn is_well(&self) -> bool {
        self.receiver.is_well() && self.mesh.upgrade().is_some_and(|mesh| mesh.lease().holds())
    }
}

impl Cluster {
    /// Joins. The node owns nothing and serves nobody before [`Mesh::activate`] and [`Cluster::serve`].
    ///
    /// # Errors
    /// Those of [`Mesh::join`].
    pub async fn join(db: Arc<dyn Database>, seams: Seams, setup: Setup) -> Result<Self, Error> {
        let Setup { name, config, security, options, network } = setup;
        let late = Arc::new(Late { probe: config.timing.probe, ..Late::default() });
        let (node, software) = (config.node.clone(), config.version.clone());
        let (probe, handoff) = (Arc::clone(&late), Arc::clone(&late));
        let mesh = Arc::new(Mesh::join(db, seams.clone(), config, probe, handoff).await?);
        let generation = mesh.generation();
        let me = Me { cluster: name, node, generation, software, versions: Me::VERSIONS };
        let peers = Peers::new(me, options, security, network, Arc::clone(&late) as Arc<_>, seams);
        let _ = (late.mesh.set(Arc::downgrade(&mesh)), late.peers.set(peers.clone()));
        let undertaker = tokio::spawn(bury(Arc::clone(&mesh), peers.clone())).abort_handle();
        Ok(Self(Arc::new(Inner { mesh, peers, late, undertaker })))
    }

    /// The membership.
    pub fn mesh(&self) -> &Arc<Mesh> {
        &self.0.mesh
    }

    /// The channel.
    pub fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// From now on shards that are to be given up are given to `handoff` first. Only the first call counts.
    pub fn set_handoff(&self, handoff: Arc<dyn Handoff>) {
        let _ = self.0.late.handoff.set(handoff);
    }

    /// Serves other nodes until `stop` completes.
    ///
    /// # Errors
    /// Those of [`Peers::serve`].
    pub async fn serve(
        &self,
        listener: impl Accept,
        receiver: Arc<dyn Receiver>,
        stop: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let receiver = Arc::new(Well { receiver, mesh: Arc::downgrade(&self.0.mesh) });
        self.0.peers.serve(listener, receiver, stop).await
    }
}

/// Tells the channel which nodes are dead, and which are no members any more.
async fn bury(mesh: Arc<Mesh>, peers: Peers) {
    let mut changes = mesh.watch_map();
    // Up to which generation each node's are known to be dead. Only what is new is told: what waits for a node whose
    // generation the channel does not know yet would be lost.
    let mut dead: BTreeMap<NodeId, u64> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let map = mesh.map();
        for member in map.members() {
            let generation = member.status.generation;
            let lives = member.status.state() != State::Dead;
            let gone = if lives { generation.saturating_sub(1) } else { generation };
            let known = *dead.entry(member.node.clone()).or_insert(generation.saturating_sub(1));
            if gone > known {
                peers.dead(&member.node, gone);
                dead.insert(member.node.clone(), gone);
            }
        }
        dead.retain(|node, _| map.member(node).is_some());
        peers.retain(|node| map.member(node).is_some());
        if changes.changed().await.is_err() {
            return;
        }
    }
}
