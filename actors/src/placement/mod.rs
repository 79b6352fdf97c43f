//! Where actors live. Each name belongs to a shard, and each shard to one node: its home.
//!
//! - [`lifecycle`]: the stages in the life of an actor that has a home.
//! - [`LostShards`]: what the log says of shards that other nodes took.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rookery_cluster::entity::{SHARDS, Shard};
use rookery_cluster::mesh::{Cluster, Home};
use rookery_proto::xmpp::jid::BareJid;
use tokio::sync::Notify;

pub(crate) mod lifecycle;
mod lost;

pub(crate) use lost::LostShards;

/// What a node knows of the others.
pub(crate) struct Placement {
    pub(crate) cluster: Cluster,
    /// The epoch in which a shard is given up: nothing for it is taken any more.
    pub(crate) frozen: Vec<AtomicU32>,
    /// The epoch in which the sessions of a shard were brought back from the store.
    pub(crate) restored: Vec<AtomicU32>,
    /// Something is to be looked at: a queue that waits, or a proxy.
    pub(crate) wake: Notify,
}

impl Placement {
    /// Nothing is given up, nothing was brought back.
    pub(crate) fn new(cluster: Cluster) -> Arc<Self> {
        let shards = || 0..SHARDS;
        Arc::new(Self {
            cluster,
            frozen: shards().map(|_| AtomicU32::new(0)).collect(),
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
