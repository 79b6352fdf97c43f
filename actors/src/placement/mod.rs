//! Which actors live here. Each name belongs to a shard, and each shard to one node: its home.
//!
//! - `early`: what comes for a shard before this node knows that the shard is its own.
//! - `handoff`: shards that this node gives up, loses and takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use rookery_cluster::entity::{Entity, SHARDS, Shard};
use rookery_cluster::mesh::peer::NodeId;
use rookery_cluster::mesh::{Cluster, Home};
use rookery_proto::xmpp::jid::BareJid;
use tokio::sync::Notify;

use crate::host::Host;
use crate::routing::shard_queue::ShardQueues;
use crate::session::remote::connection_proxy::ConnectionProxy;
use crate::session::remote::session_proxy::SessionProxy;

mod early;
mod handoff;

pub(crate) use handoff::LostShards;

/// What a node knows of the others.
pub(crate) struct Placement {
    pub(crate) cluster: Cluster,
    pub(crate) queues: ShardQueues,
    /// Connections of this node whose sessions are elsewhere, or on their id.
    pub(crate) session_proxies: Mutex<HashMap<u64, Arc<SessionProxy>>>,
    pub(crate) next_connection: AtomicU64,
    /// Sessions of this node whose connections are elsewhere.
    pub(crate) connection_proxies: Mutex<HashMap<(NodeId, u64), Arc<ConnectionProxy>>>,
    /// The epoch in which a shard is given up: nothing for it is taken any more.
    pub(crate) frozen: Vec<AtomicU32>,
    /// What came for shards that other nodes know to be this one's before it knows that itself.
    pub(crate) early: early::Early,
    /// The epoch in which the sessions of a shard were brought back from the store.
    pub(crate) restored: Vec<AtomicU32>,
    /// Something is to be looked at: a queue that waits, or a proxy.
    pub(crate) wake: Notify,
}

impl Placement {
    /// `first`: the name of the first connection, random, so that none is named as one of a former process.
    pub(crate) fn new(cluster: Cluster, first: u64) -> Arc<Self> {
        let shards = || 0..SHARDS;
        Arc::new(Self {
            cluster,
            queues: ShardQueues::new(),
            session_proxies: Mutex::default(),
            next_connection: AtomicU64::new(first),
            connection_proxies: Mutex::default(),
            frozen: shards().map(|_| AtomicU32::new(0)).collect(),
            early: early::Early::default(),
            restored: shards().map(|_| AtomicU32::new(0)).collect(),
            wake: Notify::new(),
        })
    }

    /// Where a shard is at home, as far as this node may say so.
    pub(crate) fn home(&self, shard: Shard) -> Home {
        let frozen = self.frozen(shard);
        match self.cluster.mesh().map().home(shard) {
            Home::Here { epoch } if epoch.0 == frozen => Home::Nobody,
            home => home,
        }
    }

    pub(crate) fn is_here(&self, shard: Shard) -> bool {
        matches!(self.home(shard), Home::Here { .. })
    }

    /// Whether a shard is this node's in that epoch, and not about to be given up.
    pub(crate) fn holds(&self, shard: Shard, epoch: u32) -> bool {
        matches!(self.home(shard), Home::Here { epoch: now } if now.0 == epoch)
    }

    pub(crate) fn frozen(&self, shard: Shard) -> u32 {
        self.frozen.get(usize::from(shard.0)).map_or(0, |frozen| frozen.load(Ordering::Acquire))
    }

    pub(crate) fn freeze(&self, shard: Shard, epoch: u32) {
        if let Some(slot) = self.frozen.get(usize::from(shard.0)) {
            slot.store(epoch, Ordering::Release);
        }
    }

    /// Whether sessions of the shard may still be in the store only.
    pub(crate) fn is_restoring(&self, shard: Shard) -> bool {
        let epoch = self.cluster.mesh().map().epoch(shard).map(|epoch| epoch.0);
        let restored = self.restored.get(usize::from(shard.0)).map(|slot| slot.load(Ordering::Acquire));
        epoch.is_some() && epoch != restored
    }

    pub(crate) fn set_restored(&self, shard: Shard, epoch: u32) {
        if let Some(slot) = self.restored.get(usize::from(shard.0)) {
            slot.store(epoch, Ordering::Release);
        }
    }
}

/// The shard of a user.
pub(crate) fn shard_of(user: &BareJid) -> Shard {
    Shard::of(user.as_str())
}

impl Host {
    /// Whether the home of `user` is this node.
    pub fn is_home(&self, user: &BareJid) -> bool {
        self.placement().is_none_or(|placement| placement.is_here(shard_of(user)))
    }

    /// The epoch of archive ids of `entity`: that of its shard.
    pub(crate) fn epoch(&self, entity: &Entity) -> u32 {
        let epoch =
            self.placement().and_then(|placement| placement.cluster.mesh().map().epoch(entity.shard()));
        epoch.map_or(1, |epoch| epoch.0)
    }

    /// Whether something may go straight to that user: its home is this node, and nothing that came before waits.
    pub(crate) fn is_open(&self, user: &BareJid) -> bool {
        self.placement().is_none_or(|placement| {
            let shard = shard_of(user);
            placement.is_here(shard) && !placement.queues.is_stalled(shard)
        })
    }

    /// Whether that user may have sessions here that are not known yet.
    pub(crate) fn may_have_sessions(&self, user: &BareJid) -> bool {
        self.placement().is_some_and(|placement| placement.is_restoring(shard_of(user)))
    }
}
