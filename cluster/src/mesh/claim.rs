//! Claims: a node takes the shards it is to have, if they are free.

use std::collections::BTreeMap;

use metrics::{counter, histogram};
use tokio::time::{Instant, sleep};

use super::fence::DEAD;
use super::{Core, Epoch, Map, Standing, is_dead, version_of};
use crate::entity::{SHARDS, Shard};
use crate::store::{Class, Error, Options, Result, Transaction};
use crate::tables::nodes::{self, Owner, State};

impl Core {
    /// Claims what is free and this node's to have, whenever the map changes.
    pub(super) async fn keep_claiming(&self) {
        let mut changes = self.board.watch();
        loop {
            changes.mark_unchanged();
            if self.lease.is_over() {
                return;
            }
            let allowed = self.lease.holds() && self.position.borrow().standing == Standing::Active;
            let wanted = if allowed { self.wanted(&self.board.map()) } else { Vec::new() };
            if !wanted.is_empty() && self.claim_all(&wanted).await {
                continue; // the map changed meanwhile, by these claims at least
            }
            // Without news the timer serves the lease that came back and the claim that failed.
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = sleep(self.jitter(self.timing.beat)) => {}
            }
        }
    }

    /// The free shards that this node is to have.
    fn wanted(&self, map: &Map) -> Vec<Shard> {
        let rows = &map.rows;
        let wanted = |shard: &Shard| {
            let free = match rows.owner(*shard) {
                // The store says that it is ours, and we do not know since when: claimed, or given up, with an unknown outcome.
                Some((owner, _)) => owner.node == self.node,
                None => true,
            };
            free && map.epoch(*shard).is_none() && rows.desired(*shard) == Some(&self.node)
        };
        (0..SHARDS).map(Shard).filter(wanted).collect()
    }

    /// Whether all went well.
    async fn claim_all(&self, wanted: &[Shard]) -> bool {
        let begun = Instant::now();
        let mut taken = 0;
        for shards in wanted.chunks(self.timing.claim) {
            match self.claim(shards).await {
                Ok(number) => taken += number,
                Err(error) => {
                    tracing::warn!(error = %error, detail = ?error.detail, "shards could not be claimed");
                    if is_dead(&error) {
                        self.die();
                    }
                    break;
                }
            }
        }
        if taken > 0 {
            counter!("rookery_mesh_claims_total").increment(u64::try_from(taken).unwrap_or(u64::MAX));
            histogram!("rookery_mesh_claim_seconds").record(begun.elapsed().as_secs_f64());
            tracing::info!(shards = taken, held = self.guard.count(), "shards claimed");
        }
        if taken < wanted.len() {
            // Another was first, or the map is older than it seems.
            self.board.want();
        }
        taken == wanted.len()
    }

    /// Takes those of these shards that are free, in one transaction; how many.
    pub(super) async fn claim(&self, shards: &[Shard]) -> Result<usize> {
        let claimed = self.store.write_stamped(Options::default(), |tx| {
            Box::pin(async move {
                let own = nodes::status(&mut **tx, &self.node).await?.ok_or(DEAD)?;
                if !own.lives(self.generation) {
                    return Err(DEAD);
                }
                if own.state() != State::Active {
                    return Ok(Vec::new());
                }
                self.take(&mut **tx, shards).await
            })
        });
        let (taken, stamp) = claimed.await?;
        if !taken.is_empty() {
            self.guard.hold(&taken, version_of(&stamp));
            self.publish(None);
        }
        Ok(taken.len())
    }

    async fn take(&self, tx: &mut dyn Transaction, shards: &[Shard]) -> Result<Vec<(Shard, Epoch)>> {
        let mut taken = Vec::new();
        let mut free = BTreeMap::new();
        for (shard, owner) in shards.iter().zip(nodes::owners_of(tx, shards).await?) {
            if let Some(owner) = &owner {
                let known = (owner.node.clone(), owner.generation);
                let is_free = match free.get(&known) {
                    _ if owner.released => true,
                    Some(is_free) => *is_free,
                    None => *free.entry(known).or_insert(self.is_gone(tx, owner).await?),
                };
                if !is_free {
                    continue;
                }
            }
            let epoch = owner.map_or(0, |owner| owner.epoch);
            let epoch = epoch
                .checked_add(1)
                .ok_or(Error::new(Class::Corrupt, "the epochs of a shard are used up"))?;
            let (node, generation) = (self.node.as_str().into(), self.generation);
            nodes::put_owner(tx, *shard, &Owner { node, generation, epoch, released: false });
            taken.push((*shard, Epoch(epoch)));
        }
        if !taken.is_empty() {
            nodes::bump(tx);
        }
        Ok(taken)
    }

    /// Whether the owner of a shard will never write there again.
    async fn is_gone(&self, tx: &mut dyn Transaction, owner: &Owner) -> Result<bool> {
        // This node, and it does not hold the shard: what it wrote last is in doubt. With a new epoch what is late fails.
        if owner.is(&self.node, self.generation) {
            return Ok(true);
        }
        let Ok(node) = super::NodeId::new(&owner.node) else {
            return Ok(true); // never was one
        };
        let status = nodes::status(tx, &node).await?;
        Ok(status.is_none_or(|status| !status.lives(owner.generation)))
    }
}
