//! What a node among others does all the time: it follows the map of shards, and looks after what waits.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::{Event, Events};

use crate::host::Host;

/// How many shards are read at a time.
const RESTORERS: usize = 8;
/// The pause before shards that could not be read are read again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often those are looked at that wait.
const PACE: Duration = Duration::from_millis(100);

impl Host {
    /// Starts what a node among others does all the time. Ends with the server.
    pub(crate) fn join(&self, mut events: Events) {
        let Some(placement) = self.placement().cloned() else { return };
        let host = self.downgrade();
        tokio::spawn(async move {
            loop {
                let event = events.next().await;
                let Some(host) = host.upgrade() else { return };
                host.happened(event).await;
            }
        });
        let host = self.downgrade();
        tokio::spawn(async move {
            let mut changes = placement.cluster.mesh().watch_map();
            let mut busy = false;
            loop {
                tokio::select! {
                    () = placement.wake.notified() => {}
                    _ = changes.changed() => {}
                    () = tokio::time::sleep(PACE), if busy => {}
                }
                let Some(host) = host.upgrade().filter(|host| !host.is_stopping()) else { return };
                busy = host.flush_queues() | host.look_early();
                busy |= host.look_all();
            }
        });
    }

    async fn happened(&self, event: Event) {
        match event {
            Event::Gained(shards) => {
                for (shard, _) in &shards {
                    self.take_early(*shard);
                }
                tracing::debug!(shards = shards.len(), "shards are this node's now");
                // Several at a time, and beside what happens next.
                let shards = Arc::new(Mutex::new(shards));
                for _ in 0..RESTORERS {
                    let (host, shards) = (self.clone(), shards.clone());
                    self.spawn(async move {
                        loop {
                            let Some((shard, epoch)) = shards.lock().pop() else { return };
                            if !host.bring_back(shard, epoch.0).await {
                                // Behind the others, and not at once: the store may be away for long.
                                shards.lock().insert(0, (shard, epoch));
                                tokio::time::sleep(AGAIN).await;
                            }
                        }
                    });
                }
            }
            Event::Lost(shards) => {
                let shards: Vec<Shard> = shards.into_iter().map(|(shard, _)| shard).collect();
                self.drop_shards(&shards);
            }
            Event::Lease(_) | Event::Standing(_) => {}
        }
        self.look_soon();
    }

    /// Wakes what a shard has on record. `false`: the store did not say what that is, and must be asked again, for nobody else may wake
    /// what waits there.
    async fn bring_back(&self, shard: Shard, epoch: u32) -> bool {
        // The shard may have been given up while it waited for its turn.
        let still =
            || !self.is_stopping() && self.placement().is_some_and(|placement| placement.holds(shard, epoch));
        if !still() {
            return true;
        }
        if let Err(error) = self.restore_shard(shard, &still).await {
            tracing::warn!(shard = shard.0, %error, "sessions and links of a shard could not be read; retrying");
            return false;
        }
        if let Some(placement) = self.placement() {
            placement.set_restored(shard, epoch);
        }
        true
    }
}
