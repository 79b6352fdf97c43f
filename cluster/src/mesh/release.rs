//! Releases: a node gives up the shards that another is to have, a few at a time, after their actors have moved.

use std::sync::Arc;

use metrics::{counter, histogram};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Core, Epoch, Map, NodeId, Standing};
use crate::entity::{SHARDS, Shard};
use crate::store::{Options, Result};
use crate::tables::nodes::{self, Owner};

/// A shard to be given up, and its next owner.
type Move = (Shard, Epoch, Option<NodeId>);

impl Core {
    /// Gives up what others are to have, whenever the map changes.
    pub(super) async fn keep_releasing(&self) {
        let mut changes = self.board.watch();
        loop {
            changes.mark_unchanged();
            if self.lease.is_over() {
                return;
            }
            let map = self.board.map();
            let standing = self.position.borrow().standing;
            let allowed = self.lease.holds() && matches!(standing, Standing::Active | Standing::Draining);
            if allowed {
                self.settle(&map).await;
                let turn = self.releasing.lock().await;
                let moves = self.moves(&self.board.map());
                if !moves.is_empty() {
                    self.release(moves).await;
                    drop(turn);
                    sleep(self.jitter(self.timing.pace)).await;
                    continue;
                }
            }
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = sleep(self.jitter(self.timing.beat)) => {}
            }
        }
    }

    /// A round of shards that others are to have.
    fn moves(&self, map: &Map) -> Vec<Move> {
        let elsewhere = |(shard, epoch): (Shard, Epoch)| {
            let to = map.desired(shard).filter(|to| **to != self.node)?;
            Some((shard, epoch, Some(to.clone())))
        };
        map.held().filter_map(elsewhere).take(self.timing.release).collect()
    }

    /// Everything that is held, to nobody in particular: the node leaves.
    pub(super) async fn release_all(&self) {
        let _turn = self.releasing.lock().await;
        let map = self.board.map();
        let all = map.held().map(|(shard, epoch)| (shard, epoch, map.desired(shard).cloned()));
        let all: Vec<Move> =
            all.map(|(shard, epoch, to)| (shard, epoch, to.filter(|to| *to != self.node))).collect();
        if !all.is_empty() {
            self.release(all).await;
        }
    }

    /// Moves the actors, then writes that the shards are free.
    async fn release(&self, moves: Vec<Move>) {
        let begun = Instant::now();
        let shards: Vec<(Shard, Epoch)> = moves.iter().map(|(shard, epoch, _)| (*shard, *epoch)).collect();
        let mut handoffs = JoinSet::new();
        for (shard, epoch, to) in moves {
            let handoff = Arc::clone(&self.handoff);
            handoffs.spawn(async move { handoff.release(shard, epoch, to.as_ref()).await });
        }
        let all = async { while handoffs.join_next().await.is_some() {} };
        if timeout(self.timing.handoff, all).await.is_err() {
            counter!("rookery_mesh_handoffs_late_total").increment(1);
            tracing::warn!(shards = shards.len(), "shards are released before all their users have moved");
        }
        drop(handoffs);
        // No write begins from here on; those under way conflict with what follows, or come before it.
        self.guard.forget(shards.iter().map(|(shard, _)| *shard));
        self.publish(None);
        let number = u64::try_from(shards.len()).unwrap_or(u64::MAX);
        counter!("rookery_mesh_releases_total").increment(number);
        histogram!("rookery_mesh_release_seconds").record(begun.elapsed().as_secs_f64());
        if let Err(error) = self.free(&shards).await {
            // The map will tell what came of it, and the next round settles it.
            tracing::warn!(error = %error, detail = ?error.detail, "shards could not be released");
            self.board.want();
        }
    }

    /// Frees shards that the store takes for this node's though it does not hold them, and is not to: given up with an unknown
    /// outcome, or claimed so.
    async fn settle(&self, map: &Map) {
        let mine = |shard: Shard| {
            let here = map.epoch(shard).is_some();
            let (_, slot) = map.rows.owner(shard).filter(|(owner, _)| owner.node == self.node && !here)?;
            (map.desired(shard) != Some(&self.node)).then_some((shard, slot.epoch))
        };
        let shards: Vec<(Shard, Epoch)> = (0..SHARDS).map(Shard).filter_map(mine).collect();
        if !shards.is_empty() && self.free(&shards).await.is_ok() {
            self.board.want();
        }
    }

    /// Writes that shards are free which this node owned in these epochs, and does not hold any more. One that it claimed again
    /// meanwhile has another epoch.
    async fn free(&self, shards: &[(Shard, Epoch)]) -> Result<()> {
        for shards in shards.chunks(self.timing.claim) {
            let names: Vec<Shard> = shards.iter().map(|(shard, _)| *shard).collect();
            let names = &names;
            let freed = self.store.write(Options::default(), |tx| {
                Box::pin(async move {
                    let mut any = false;
                    for ((shard, epoch), owner) in
                        shards.iter().zip(nodes::owners_of(&mut **tx, names).await?)
                    {
                        let mine = |o: &Owner| o.is(&self.node, self.generation) && o.epoch() == *epoch;
                        if let Some(owner) = owner.filter(mine) {
                            nodes::put_owner(&mut **tx, *shard, &Owner { released: true, ..owner });
                            any = true;
                        }
                    }
                    if any {
                        nodes::bump(&mut **tx);
                    }
                    Ok(())
                })
            });
            freed.await?;
        }
        Ok(())
    }
}
