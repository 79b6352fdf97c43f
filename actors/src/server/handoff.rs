//! Shards that this node gives up, with what lives on them, and shards that it takes or loses.

use std::sync::Arc;

use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::peer::NodeId;
use rookery_cluster::mesh::{Epoch, Handoff};
use rookery_cluster::store::Fut;

use crate::host::{Error, Host, WeakHost};
use crate::placement::LostShards;

/// Gives a shard to its next owner.
pub(crate) struct Leave(pub(crate) WeakHost);

impl Handoff for Leave {
    fn release<'a>(&'a self, shard: Shard, epoch: Epoch, _: Option<&'a NodeId>) -> Fut<'a, ()> {
        Box::pin(async move {
            if let Some(host) = self.0.upgrade() {
                host.give_up(shard, epoch).await;
            }
        })
    }
}

impl Host {
    /// Everything of a shard is settled and stored; its sessions tell their connections to look for the next owner. Whatever
    /// comes for it from now on waits for that one.
    async fn give_up(&self, shard: Shard, epoch: Epoch) {
        let Some(placement) = self.placement() else { return };
        placement.freeze(shard, epoch.0);
        let mut count = 0;
        for kind in self.kinds().iter() {
            count += kind.give_up(shard).await;
        }
        if let Err(error) = self.batcher().flush().await {
            tracing::warn!(shard = shard.0, %error, "a shard is released although the store did not accept all of its writes");
        }
        if count > 0 {
            self.see_connections_off(shard).await;
        }
        metrics::counter!("rookery_users_moved_total").increment(count as u64);
    }

    /// These shards are not this node's any more: what is left of their actors must do nothing.
    pub(crate) fn drop_shards(&self, shards: &[Shard]) {
        let count = self.kinds().iter().map(|kind| kind.count(shards)).sum();
        let lost = Arc::new(LostShards::new(shards.len(), count));
        self.kinds().iter().for_each(|kind| kind.lose(shards, &lost));
        self.drop_connections(shards);
    }

    /// Wakes everything of a shard that must be there without being asked for, as long as the shard is `still` this node's.
    ///
    /// # Errors
    /// [`Error::Store`] if the store can't be read.
    pub(crate) async fn restore_shard(
        &self,
        shard: Shard,
        still: &(dyn Fn() -> bool + Sync),
    ) -> Result<u64, Error> {
        let mut restored = 0;
        for kind in self.kinds().iter() {
            restored += kind.restore(self, shard, still).await?;
        }
        Ok(restored)
    }

    /// For [`rookery_cluster::mesh::Cluster::set_handoff`].
    pub(crate) fn handoff(&self) -> Arc<dyn Handoff> {
        Arc::new(Leave(self.downgrade()))
    }
}
