//! What lives on other nodes. Each user's home is the node that owns its shard; this is the way there and back.
//!
//! - `lane`: parcels to a shard, in order, again after its home has changed. `receive`: what other nodes send.
//! - `guest`: a session here whose connection is elsewhere. `stub`: a connection here whose session is elsewhere.
//! - `look`: connections whose session has lost its home find the next. `leave`: shards that this node gives up.
//!
//! A parcel is sent until it is taken. A message that may have been taken already carries its session and number, by which
//! the receiver knows it again; presence that could not be delivered is told anew, as it is by then.

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

mod crowd;
mod early;
mod guest;
mod lane;
mod leave;
mod look;
mod receive;
mod stub;
pub(crate) mod wire;

pub(crate) use crowd::Crowd;
pub(crate) use leave::Loss;
pub(crate) use receive::Reply;
pub(crate) use stub::{Item, Stub, Tail};

/// What a node knows of the others.
pub(crate) struct Far {
    pub(crate) cluster: Cluster,
    lanes: lane::Lanes,
    /// Connections of this node whose sessions are elsewhere, or on their way.
    stubs: Mutex<HashMap<u64, Arc<Stub>>>,
    next_stub: AtomicU64,
    /// Sessions of this node whose connections are elsewhere.
    guests: Mutex<HashMap<(NodeId, u64), Arc<guest::Guest>>>,
    /// The epoch in which a shard is given up: nothing for it is taken any more.
    frozen: Vec<AtomicU32>,
    /// What came for shards that other nodes know to be this one's before it knows that itself.
    early: early::Early,
    /// The epoch in which the sessions of a shard were brought back from the store.
    restored: Vec<AtomicU32>,
    /// Something is to be looked at: a lane that waits, or a stub.
    wake: Notify,
}

impl Far {
    /// `first`: the name of the first connection, random, so that none is named as one of a former process.
    pub(crate) fn new(cluster: Cluster, first: u64) -> Arc<Self> {
        let shards = || 0..SHARDS;
        Arc::new(Self {
            cluster,
            lanes: lane::Lanes::new(),
            stubs: Mutex::default(),
            next_stub: AtomicU64::new(first),
            guests: Mutex::default(),
            frozen: shards().map(|_| AtomicU32::new(0)).collect(),
            early: early::Early::default(),
            restored: shards().map(|_| AtomicU32::new(0)).collect(),
            wake: Notify::new(),
        })
    }

    /// Where a shard is at home, as far as this node may say so.
    fn home(&self, shard: Shard) -> Home {
        let frozen = self.frozen(shard);
        match self.cluster.mesh().map().home(shard) {
            Home::Here { epoch } if epoch.0 == frozen => Home::Nobody,
            home => home,
        }
    }

    fn is_here(&self, shard: Shard) -> bool {
        matches!(self.home(shard), Home::Here { .. })
    }

    /// Whether a shard is this node's in that epoch, and not about to be given up.
    fn holds(&self, shard: Shard, epoch: u32) -> bool {
        matches!(self.home(shard), Home::Here { epoch: now } if now.0 == epoch)
    }

    fn frozen(&self, shard: Shard) -> u32 {
        self.frozen.get(usize::from(shard.0)).map_or(0, |frozen| frozen.load(Ordering::Acquire))
    }

    fn freeze(&self, shard: Shard, epoch: u32) {
        if let Some(slot) = self.frozen.get(usize::from(shard.0)) {
            slot.store(epoch, Ordering::Release);
        }
    }

    /// Whether sessions of the shard may still be in the store only.
    fn is_restoring(&self, shard: Shard) -> bool {
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
        self.far().is_none_or(|far| far.is_here(shard_of(user)))
    }

    /// The epoch of archive ids of `entity`: that of its shard.
    pub(crate) fn epoch(&self, entity: &Entity) -> u32 {
        let epoch = self.far().and_then(|far| far.cluster.mesh().map().epoch(entity.shard()));
        epoch.map_or(1, |epoch| epoch.0)
    }

    /// Whether something may go straight to that user: its home is this node, and nothing that came before waits.
    pub(crate) fn is_open(&self, user: &BareJid) -> bool {
        self.far().is_none_or(|far| {
            let shard = shard_of(user);
            far.is_here(shard) && !far.lanes.is_stalled(shard)
        })
    }

    /// Whether that user may have sessions here that are not known yet.
    pub(crate) fn may_have_sessions(&self, user: &BareJid) -> bool {
        self.far().is_some_and(|far| far.is_restoring(shard_of(user)))
    }
}
