//! What happens to a node, for its program.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Core, Epoch};
use crate::entity::{SHARDS, Shard};
use crate::store::Version;

/// Where a node is in its life, as it knows itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The node beats, and owns nothing yet.
    Joining,
    /// The node takes shards.
    Active,
    /// The node gives its shards to others; ready for an end.
    Draining,
    /// The node was declared dead. Nothing that it writes is taken any more: the process ends, or joins anew.
    Fenced,
    /// The node left by itself.
    Left,
}

/// The standing, and at which version it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) standing: Standing,
    version: Version,
}

impl Default for Position {
    fn default() -> Self {
        Self { standing: Standing::Joining, version: Version::default() }
    }
}

impl Position {
    /// Takes a newer standing; whether it is another.
    pub(super) fn advance(&mut self, standing: Standing, version: Version) -> bool {
        let over = matches!(self.standing, Standing::Fenced | Standing::Left);
        if over || version < self.version {
            return false;
        }
        self.version = version;
        std::mem::replace(&mut self.standing, standing) != standing
    }

    /// Takes the last standing; whether there was none before.
    pub(super) fn end(&mut self, standing: Standing) -> bool {
        let over = matches!(self.standing, Standing::Fenced | Standing::Left);
        if !over {
            self.standing = standing;
        }
        !over
    }
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// These shards are not this node's any more: their actors are to be stopped now, should any be left. Comes after
    /// [`Handoff::release`](super::Handoff::release), or without it when the node was declared dead.
    Lost(Vec<(Shard, Epoch)>),
    /// These shards are this node's.
    Gained(Vec<(Shard, Epoch)>),
    /// The lease ended (`false`): sockets and presence stop. Or it holds again.
    Lease(bool),
    /// The node is elsewhere in its life.
    Standing(Standing),
}

/// The difference between what its holder knows and what is. The difference cannot lag behind: a holder that asks seldom gets fewer, larger
/// answers. A shard that was lost and gained again in between is told of as both.
pub struct Events {
    core: Arc<Core>,
    known: Vec<Option<Epoch>>,
    leased: bool,
    standing: Standing,
    board: watch::Receiver<u64>,
    lease: watch::Receiver<bool>,
    position: watch::Receiver<super::events::Position>,
}

impl Events {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self {
            known: vec![None; usize::from(SHARDS)],
            leased: false,
            standing: Standing::Joining,
            board: core.board.watch(),
            lease: core.lease.watch(),
            position: core.position.subscribe(),
            core,
        }
    }

    /// The next event. Waits for ever when the node is at its end and everything was told. Nothing is missed when the call is
    /// given up.
    pub async fn next(&mut self) -> Event {
        loop {
            self.board.mark_unchanged();
            self.lease.mark_unchanged();
            self.position.mark_unchanged();
            if let Some(event) = self.difference() {
                return event;
            }
            // The senders live as long as the core.
            tokio::select! {
                biased;
                _ = self.board.changed() => {}
                _ = self.lease.changed() => {}
                _ = self.position.changed() => {}
            }
        }
    }

    fn difference(&mut self) -> Option<Event> {
        let held = self.core.guard.held();
        let shards = || (0..SHARDS).map(Shard);
        let changed = |from: &[Option<Epoch>], to: &[Option<Epoch>]| -> Vec<(Shard, Epoch)> {
            let pairs = shards().zip(from).zip(to);
            pairs
                .filter_map(|((shard, from), to)| from.filter(|_| from != to).map(|epoch| (shard, epoch)))
                .collect()
        };
        let lost = changed(&self.known, &held);
        if !lost.is_empty() {
            for (shard, _) in &lost {
                if let Some(slot) = self.known.get_mut(usize::from(shard.0)) {
                    *slot = None;
                }
            }
            return Some(Event::Lost(lost));
        }
        let gained = changed(&held, &self.known);
        if !gained.is_empty() {
            self.known = held;
            return Some(Event::Gained(gained));
        }
        let leased = self.core.lease.holds();
        if leased != self.leased {
            self.leased = leased;
            return Some(Event::Lease(leased));
        }
        let standing = self.core.position.borrow().standing;
        if standing != self.standing {
            self.standing = standing;
            return Some(Event::Standing(standing));
        }
        None
    }
}
