//! What operators do to nodes, and how a node leaves.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Core, Error, Mesh, NodeId, Standing, version_of};
use crate::store::Options;
use crate::tables::nodes::{self, State, Status};

impl Mesh {
    /// Has a node give its shards to the others; it stays, and may be undrained. Another node learns of it with its next
    /// beat.
    ///
    /// # Errors
    /// [`Error::NoNode`], [`Error::State`], and those of the store.
    pub async fn drain(&self, node: &NodeId) -> Result<(), Error> {
        self.core.change(node, None, &[State::Joining, State::Active], State::Draining).await
    }

    /// Lets a node take shards again.
    ///
    /// # Errors
    /// Those of [`Mesh::drain`].
    pub async fn undrain(&self, node: &NodeId) -> Result<(), Error> {
        self.core.change(node, None, &[State::Draining], State::Active).await
    }

    /// Declares a node dead at once: for an operator who knows that it is. If it is not, it stops with its next beat.
    ///
    /// # Errors
    /// [`Error::Beats`] if this node saw a sign of life from it lately, or has not looked for long enough, unless `force`;
    /// [`Error::NoNode`], [`Error::State`], and those of the store.
    pub async fn evict(&self, node: &NodeId, force: bool) -> Result<(), Error> {
        let silent = self.core.silence(node).is_some_and(|silence| silence >= self.core.timing.death);
        let known = self.map().member(node).map(|member| member.status.state());
        if !force && !silent && known.is_some_and(|state| state != State::Dead) {
            return Err(Error::Beats(node.clone()));
        }
        let living = [State::Unknown, State::Joining, State::Active, State::Draining];
        self.core.change(node, None, &living, State::Dead).await
    }

    /// The first half of [`Mesh::leave`]: gives the shards to the others, with their actors, and stays a member, so that its
    /// connections can be moved. Within [`Timing::drain`](super::Timing::drain); whether all are given.
    pub async fn hand_over(&self) -> bool {
        let deadline = Instant::now() + self.core.timing.drain;
        matches!(timeout_at(deadline, self.give_up()).await, Ok(Ok(()))) && self.core.guard.count() == 0
    }

    /// Leaves the cluster: gives the shards to the others, then declares itself dead, so that nobody waits for it: other nodes hang up
    /// on it then. Within
    /// [`Timing::drain`](super::Timing::drain) shard by shard, each with its actors; after that, and if there is nobody to
    /// take them, all that is left at once. Nothing can be written afterwards.
    ///
    /// # Errors
    /// Those of the store: the others will find out by themselves then.
    pub async fn leave(&self) -> Result<(), Error> {
        self.leave_within(self.core.timing.drain).await
    }

    /// The same within that time.
    ///
    /// # Errors
    /// Those of [`Mesh::leave`].
    pub async fn leave_within(&self, time: Duration) -> Result<(), Error> {
        let core = &self.core;
        let deadline = Instant::now() + time;
        let left = timeout_at(deadline, self.give_up()).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::warn!(held = core.guard.count(), outcome = ?left, "this node leaves the cluster before all its shards have moved");
        }
        core.release_all().await;
        let living = [State::Unknown, State::Joining, State::Active, State::Draining];
        let written = core.write_state(&core.node, Some(core.generation), &living, State::Dead).await;
        core.end(Standing::Left);
        match written {
            // Declared dead by others meanwhile.
            Ok(_) | Err(Error::State(..)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits until the others have all that they will take.
    async fn give_up(&self) -> Result<(), Error> {
        let core = &self.core;
        let mut changes = core.board.watch();
        let living = [State::Joining, State::Active, State::Draining];
        core.change(&core.node, Some(core.generation), &living, State::Draining).await?;
        core.board.refreshed().await;
        loop {
            changes.mark_unchanged();
            let map = core.board.map();
            let takers =
                map.members().iter().any(|m| m.status.state() == State::Active && m.node != core.node);
            if core.guard.count() == 0 || !takers || core.lease.is_over() {
                return Ok(());
            }
            let _ = changes.changed().await;
        }
    }
}

impl Core {
    /// Changes the state of a node, of this generation if one is given.
    pub(super) async fn change(
        &self,
        node: &NodeId,
        generation: Option<u64>,
        from: &[State],
        to: State,
    ) -> Result<(), Error> {
        let version = self.write_state(node, generation, from, to).await?;
        if *node == self.node && version.0 > 0 {
            self.stand(to, version);
        }
        self.board.want();
        Ok(())
    }

    async fn write_state(
        &self,
        node: &NodeId,
        generation: Option<u64>,
        from: &[State],
        to: State,
    ) -> Result<crate::store::Version, Error> {
        let written = self.store.write_stamped(Options::default(), |tx| {
            Box::pin(async move {
                let Some(status) = nodes::status(&mut **tx, node).await? else {
                    return Ok(Err(Error::NoNode(node.clone())));
                };
                let other = generation.is_some_and(|generation| generation != status.generation);
                if status.state() == to && !other {
                    return Ok(Ok(())); // as it is to be; also an attempt before whose outcome was unknown
                }
                if other || !from.contains(&status.state()) {
                    let state = if other { State::Dead } else { status.state() };
                    return Ok(Err(Error::State(node.clone(), state.name())));
                }
                nodes::put_status(&mut **tx, node, &Status { state: to as i32, ..status });
                if to == State::Dead {
                    nodes::clear_votes(&mut **tx, node);
                }
                nodes::bump(&mut **tx);
                Ok(Ok(()))
            })
        });
        let (outcome, stamp) = written.await?;
        outcome.map(|()| version_of(&stamp))
    }
}
