//! The fence: ties every write to the right to write, at the cost of no read.
//!
//! # Why it holds
//! A node keeps a **proven version** V: one at which its own status was read (as part of a conflict set) and was alive. A write for
//! a shard reads at V and has in its conflict set the node's status and the shard's owner; what was written at V itself conflicts
//! too, since a batch of commits shares its version, and others of V's batch may have come behind what proved V. Suppose it is
//! committed at X.
//! - *The node was alive at X*: it was when V was proven, and a change of its status after that makes this commit conflict.
//! - *The shard was the node's at V.* The node learned of its ownership at some version W ≤ V: its claim was committed at W, and
//!   [`Guard::hold`] raises V to W before anyone may write. What became of the row between W and V? The node itself
//!   changed nothing: before it gives a shard up it forgets it here, so no write begins. Another takes a shard only in a
//!   transaction that read this node's status as dead, or of a later generation; neither is ever undone, so the status at
//!   V would be so too, and it was not.
//! - *The shard was the node's at X*: a change of the row from V on makes this commit conflict.
//!
//! So nothing is read on the way, and yet a takeover at any moment stops every write that is not committed before it; what is
//! committed before it is seen by the node that takes over, because the claim reads the row that the write conflicts with.
//!
//! V comes from beats, claims, and every other fenced commit: each had the status in its conflict set, so the node was
//! alive when it was committed. That is more than saving a round trip: a write sees all that this node wrote before,
//! though it reads at a version that nobody asked the store for. (The shard's rows are written by its owner only, and what
//! former owners wrote is older than the claim.) V serves 5 s in FoundationDB; the lease ends before.
//!
//! A second attempt of a write, and a write that needs no owner, read the status freshly. By the argument above the owners'
//! rows need not be read; a second attempt reads them nevertheless, and an answer that contradicts is counted, since it shows
//! an error in the program or a hand in the store.

use std::sync::Arc;

use metrics::counter;
use parking_lot::RwLock;
use tokio::sync::Notify;

use super::{Epoch, Lease, NodeId};
use crate::entity::{SHARDS, Shard};
use crate::invariant;
use crate::store::{Class, Error, Fence, Fut, Result, Transaction, Version};
use crate::tables::nodes;

/// The node was declared dead, or started again elsewhere.
pub(super) const DEAD: Error = Error::new(Class::Fenced, "this node was declared dead");
/// The lease is over for now. A lease may come back while the caller still waits, so another attempt is worth it.
const PARKED: Error = Error::new(Class::Unavailable, "this node cannot prove that it belongs to the cluster");
const ELSEWHERE: Error = Error::new(Class::Fenced, "this node does not own the shard");

/// The fence of one node.
pub(super) struct Guard {
    node: NodeId,
    generation: u64,
    lease: Arc<Lease>,
    state: RwLock<State>,
    /// The store contradicts what is held here.
    pub(super) doubt: Notify,
}

struct State {
    /// See the module.
    proven: Option<Version>,
    /// What is owned, by shard, with the version at which that was learned.
    held: Vec<Option<(Epoch, Version)>>,
}

impl Guard {
    pub(super) fn new(node: NodeId, generation: u64, lease: Arc<Lease>) -> Self {
        let state = State { proven: None, held: vec![None; usize::from(SHARDS)] };
        Self { node, generation, lease, state: RwLock::new(state), doubt: Notify::new() }
    }

    /// The node's status was alive at `version`, in the conflict set of what was committed there.
    pub(super) fn prove(&self, version: Version) {
        let proven = self.state.read().proven;
        if proven < Some(version) {
            let mut state = self.state.write();
            state.proven = state.proven.max(Some(version));
        }
    }

    /// These shards were claimed in a commit at `version`.
    pub(super) fn hold(&self, shards: &[(Shard, Epoch)], version: Version) {
        let mut state = self.state.write();
        if self.lease.is_over() {
            return;
        }
        state.proven = state.proven.max(Some(version));
        for (shard, epoch) in shards {
            if let Some(slot) = state.held.get_mut(usize::from(shard.0)) {
                invariant!(
                    "epochs_grow",
                    slot.is_none_or(|(before, _)| before < *epoch),
                    "{shard:?} in {epoch} after {slot:?}"
                );
                *slot = Some((*epoch, version));
            }
        }
    }

    /// No write for these shards begins from now on.
    pub(super) fn forget(&self, shards: impl IntoIterator<Item = Shard>) {
        let mut state = self.state.write();
        for shard in shards {
            if let Some(slot) = state.held.get_mut(usize::from(shard.0)) {
                *slot = None;
            }
        }
    }

    /// The shards that are held, by their numbers.
    pub(super) fn held(&self) -> Vec<Option<Epoch>> {
        self.state.read().held.iter().map(|slot| slot.map(|(epoch, _)| epoch)).collect()
    }

    /// How many shards are held.
    pub(super) fn count(&self) -> usize {
        self.state.read().held.iter().flatten().count()
    }

    /// Forgets what is held against what was read at `version`.
    pub(super) fn compare(&self, version: Version, owners: impl Fn(Shard) -> bool) {
        let wrong: Vec<Shard> = {
            let state = self.state.read();
            let held = (0..SHARDS).map(Shard).zip(&state.held);
            held.filter(|(shard, slot)| slot.is_some_and(|(_, since)| since <= version) && !owners(*shard))
                .map(|(shard, _)| shard)
                .collect()
        };
        if !wrong.is_empty() {
            counter!("rookery_mesh_contradictions_total").increment(1);
            tracing::error!(
                shards = wrong.len(),
                "this node holds shards that it does not own, according to the store"
            );
            self.forget(wrong);
        }
    }

    /// Nothing is written any more.
    pub(super) fn end(&self) {
        let mut state = self.state.write();
        self.lease.end();
        state.held.fill(None);
        state.proven = None;
    }

    /// What can be said without the store: the version to read at.
    fn allowed(&self, shards: &[Shard]) -> Result<Option<Version>> {
        if !self.lease.holds() {
            return Err(if self.lease.is_over() { DEAD } else { PARKED });
        }
        let state = self.state.read();
        let held = |shard: &Shard| state.held.get(usize::from(shard.0)).is_some_and(Option::is_some);
        if shards.iter().all(held) { Ok(state.proven) } else { Err(ELSEWHERE) }
    }

    /// Reads the status, and the owners of the shards, at a fresh version.
    async fn ask(&self, tx: &mut dyn Transaction, shards: &[Shard]) -> Result<()> {
        let status = nodes::status(tx, &self.node).await?;
        if !status.is_some_and(|status| status.lives(self.generation)) {
            self.doubt.notify_one();
            return Err(DEAD);
        }
        let owners = nodes::owners_of(tx, shards).await?;
        if owners.iter().all(|owner| owner.as_ref().is_some_and(|o| o.is(&self.node, self.generation))) {
            return Ok(());
        }
        // Given up while this was under way, or a contradiction: the map will be read again and tell.
        self.doubt.notify_one();
        Err(ELSEWHERE)
    }
}

impl Fence for Guard {
    fn join<'a>(
        &'a self,
        tx: &'a mut dyn Transaction,
        shards: &'a [Shard],
        attempt: u32,
    ) -> Fut<'a, Result<()>> {
        Box::pin(async move {
            let refused = |error: &Error| {
                counter!("rookery_mesh_fenced_total", "class" => error.class.name()).increment(1);
            };
            let proven = self.allowed(shards).inspect_err(refused)?;
            match proven {
                Some(version) if attempt == 0 && !shards.is_empty() => {
                    tx.set_read_version(version, version.before());
                    nodes::conflict_with_status(tx, &self.node);
                    nodes::conflict_with(tx, shards);
                    Ok(())
                }
                _ => self.ask(tx, shards).await.inspect_err(refused),
            }
        })
    }

    fn committed(&self, version: Version) {
        self.prove(version);
    }

    fn epoch(&self, shard: Shard) -> Option<u32> {
        self.state.read().held.get(usize::from(shard.0)).copied().flatten().map(|(epoch, _)| epoch.0)
    }
}
