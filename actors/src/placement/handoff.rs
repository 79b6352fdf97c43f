//! Shards that this node gives up, with the users who live on them, and shards that it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rookery_cluster::entity::{Entity, Shard};
use rookery_cluster::mesh::peer::NodeId;
use rookery_cluster::mesh::{Epoch, Handoff};
use rookery_cluster::store::Fut;
use rookery_cluster::tables::sessions;
use rookery_proto::xmpp::jid::BareJid;
use tokio::sync::oneshot;

use crate::host::{Error, Host, WeakHost};
use crate::user;

/// Shards that others have taken, and what was here of them. The log says so in one line, when all of it has stopped.
pub(crate) struct LostShards {
    shards: usize,
    users: usize,
    sessions: AtomicUsize,
    stanzas: AtomicUsize,
}

impl LostShards {
    /// A user had so many sessions, and so many stanzas that waited for the store.
    pub(crate) fn add(&self, sessions: usize, stanzas: usize) {
        self.sessions.fetch_add(sessions, Ordering::Relaxed);
        self.stanzas.fetch_add(stanzas, Ordering::Relaxed);
    }
}

impl Drop for LostShards {
    fn drop(&mut self) {
        if self.users == 0 {
            return;
        }
        tracing::warn!(
            shards = self.shards,
            users = self.users,
            sessions = *self.sessions.get_mut(),
            stanzas = *self.stanzas.get_mut(),
            "other nodes have taken over shards of this node, because its heartbeats stopped: sessions continue on those nodes, \
             clients of this node are told to reconnect, and unacknowledged stanzas are sent again. No action is needed"
        );
    }
}

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
        let mut leaving = Vec::new();
        for (jid, handle) in self.users().at(shard.0.into()) {
            let (left, answer) = oneshot::channel();
            if handle.cast_always(user::Msg::Leave(left)).is_ok() {
                leaving.push((jid, handle, answer));
            }
        }
        let count = leaving.len();
        for (jid, handle, answer) in leaving {
            let _ = answer.await;
            self.users().remove(&jid, &handle);
        }
        if let Err(error) = self.batcher().flush().await {
            tracing::warn!(shard = shard.0, %error, "a shard is released although the store did not accept all of its writes");
        }
        if count > 0 {
            self.see_connections_off(shard).await;
        }
        metrics::counter!("rookery_users_moved_total").increment(count as u64);
    }

    /// These shards are not this node's any more: what is left of their users must do nothing.
    pub(crate) fn drop_shards(&self, shards: &[Shard]) {
        let users: Vec<_> = shards.iter().flat_map(|shard| self.users().at(shard.0.into())).collect();
        let (sessions, stanzas) = Default::default();
        let loss = Arc::new(LostShards { shards: shards.len(), users: users.len(), sessions, stanzas });
        for (jid, handle) in users {
            let _ = handle.cast_always(user::Msg::Lose(loss.clone()));
            self.users().remove(&jid, &handle);
        }
        self.drop_connections(shards);
    }

    /// Activates every user of a shard with a session on record, so that its presence is there and its time runs; as long as
    /// the shard is `still` this node's.
    ///
    /// # Errors
    /// [`Error::Store`] if the store can't be read.
    pub(crate) async fn restore_shard(&self, shard: Shard, still: impl Fn() -> bool) -> Result<u64, Error> {
        let mut restored = 0u64;
        let mut after: Option<(Entity, [u8; 16])> = None;
        loop {
            let from = after.clone();
            let page = self
                .store()
                .read(|tx| {
                    let from = from.clone();
                    Box::pin(async move {
                        sessions::page(&mut **tx, shard, from.as_ref().map(|(u, s)| (u, s)), 200).await
                    })
                })
                .await?;
            for stored in &page.rows {
                if !still() {
                    return Ok(restored);
                }
                if let Ok(jid) = BareJid::parse(stored.user.as_str()) {
                    self.wake(&jid);
                    restored += 1;
                }
            }
            match page.rows.last() {
                Some(last) if page.more => after = Some((last.user.clone(), last.sid)),
                _ => return Ok(restored),
            }
        }
    }

    /// For [`rookery_cluster::mesh::Cluster::set_handoff`].
    pub(crate) fn handoff(&self) -> Arc<dyn Handoff> {
        Arc::new(Leave(self.downgrade()))
    }
}
