//! Which entities are at home on this node.

use rookery_cluster::entity::Entity;
use rookery_proto::xmpp::jid::BareJid;

use super::Host;
use crate::placement::shard_of;

impl Host {
    /// Whether the home of `user` is this node.
    pub fn is_home(&self, user: &BareJid) -> bool {
        self.placement().is_none_or(|placement| placement.is_here(shard_of(user)))
    }

    /// Whether this node may say something to those whom the store's fence does not reach, as other servers. A node that cannot prove that it
    /// belongs to the cluster says nothing: another may have taken over.
    pub(crate) fn has_lease(&self) -> bool {
        self.placement().is_none_or(|placement| placement.cluster.mesh().lease().holds())
    }

    /// The epoch of archive ids of `entity`: that of its shard.
    pub(crate) fn epoch(&self, entity: &Entity) -> u32 {
        let epoch =
            self.placement().and_then(|placement| placement.cluster.mesh().map().epoch(entity.shard()));
        epoch.map_or(1, |epoch| epoch.0)
    }

    /// Whether an entity can get another home while its connections live. This one question tells a node among others from a node that
    /// is alone: what outlives its home must be told apart, counted and recorded, and alone only what a client can resume outlives it.
    pub(crate) fn homes_change(&self) -> bool {
        self.placement().is_some()
    }

    /// Whether that user may have sessions here that are not known yet.
    pub(crate) fn may_have_sessions(&self, user: &BareJid) -> bool {
        self.placement().is_some_and(|placement| placement.is_restoring(shard_of(user)))
    }
}
