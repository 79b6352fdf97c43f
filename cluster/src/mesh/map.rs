//! The map: which nodes live, and which owns which shard, as last read.

use std::sync::Arc;

use super::place::{self, Candidate};
use super::{Epoch, NodeId};
use crate::entity::{SHARDS, Shard};
use crate::store::Version;
use crate::tables::nodes::{Owner, State, Status};

/// A node of the cluster, living or dead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name.
    pub node: NodeId,
    /// What it is.
    pub status: Status,
}

/// Where an entity's shard is at home.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Home {
    /// On this node.
    Here {
        /// Since which epoch.
        epoch: Epoch,
    },
    /// On another.
    There {
        /// Which.
        node: NodeId,
        /// Its generation.
        generation: u64,
        /// The epoch in which it owns the shard.
        epoch: Epoch,
    },
    /// Between two owners: wait, then ask again.
    Nobody,
}

/// What the store says of a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// The owner's place in the list of members.
    owner: Option<usize>,
    pub(super) generation: u64,
    pub(super) epoch: Epoch,
    pub(super) released: bool,
}

/// The rows of nodes and shards at one version.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) version: Version,
    /// In the order of their names.
    pub(super) members: Vec<Member>,
    slots: Vec<Option<Slot>>,
    /// The owner that each shard is to have: a place in the list of members.
    desired: Vec<Option<usize>>,
    candidates: Vec<Candidate>,
}

impl Rows {
    /// Puts together what was read. The desired owner of each shard is taken from `before` if the nodes are the same.
    pub(super) fn new(
        version: Version,
        statuses: Vec<(NodeId, Status)>,
        owners: Vec<(Shard, Owner)>,
        before: &Self,
    ) -> Self {
        let members: Vec<Member> =
            statuses.into_iter().map(|(node, status)| Member { node, status }).collect();
        let place = |name: &str| members.binary_search_by(|member| member.node.as_str().cmp(name)).ok();
        let mut slots = vec![None; usize::from(SHARDS)];
        for (shard, owner) in owners {
            if let Some(slot) = slots.get_mut(usize::from(shard.0)) {
                let Owner { generation, released, .. } = owner;
                *slot = Some(Slot { owner: place(&owner.node), generation, epoch: owner.epoch(), released });
            }
        }
        let candidates: Vec<Candidate> = members
            .iter()
            .filter(|member| member.status.state() == State::Active)
            .map(|Member { node, status }| Candidate {
                node: node.clone(),
                weight: status.weight,
                zone: status.zone.clone(),
            })
            .collect();
        let same_places = || before.members.iter().map(|m| &m.node).eq(members.iter().map(|m| &m.node));
        let desired = if candidates == before.candidates && same_places() {
            before.desired.clone()
        } else {
            let member = |place: usize| candidates.get(place).and_then(|c| self::position(&members, &c.node));
            place::desired(&candidates).into_iter().map(|place| place.and_then(member)).collect()
        };
        Self { version, members, slots, desired, candidates }
    }

    /// Nothing was read yet.
    pub(super) fn none() -> Self {
        let (members, candidates) = Default::default();
        let nothing = usize::from(SHARDS);
        let (slots, desired) = (vec![None; nothing], vec![None; nothing]);
        Self { version: Version::default(), members, slots, desired, candidates }
    }

    /// What the store says of a shard; `None` if it never had an owner.
    pub(super) fn slot(&self, shard: Shard) -> Option<&Slot> {
        self.slots.get(usize::from(shard.0))?.as_ref()
    }

    pub(super) fn member(&self, node: &NodeId) -> Option<&Member> {
        self.members.get(position(&self.members, node)?)
    }

    /// The node that is to own a shard.
    pub(super) fn desired(&self, shard: Shard) -> Option<&NodeId> {
        let place = (*self.desired.get(usize::from(shard.0))?)?;
        self.members.get(place).map(|member| &member.node)
    }

    /// The owner that lives and holds the shard.
    pub(super) fn owner(&self, shard: Shard) -> Option<(&Member, &Slot)> {
        let slot = self.slot(shard).filter(|slot| !slot.released)?;
        let member = self.members.get(slot.owner?)?;
        member.status.lives(slot.generation).then_some((member, slot))
    }
}

fn position(members: &[Member], node: &NodeId) -> Option<usize> {
    members.binary_search_by(|member| member.node.cmp(node)).ok()
}

/// See the module. A map does not change: the next one takes its place.
#[derive(Clone, Debug)]
pub struct Map {
    pub(super) node: NodeId,
    pub(super) generation: u64,
    pub(super) rows: Arc<Rows>,
    /// What this node holds; it knows before the rows are read.
    pub(super) here: Vec<Option<Epoch>>,
}

impl Map {
    /// Where a shard is at home.
    pub fn home(&self, shard: Shard) -> Home {
        if let Some(epoch) = self.epoch(shard) {
            return Home::Here { epoch };
        }
        match self.rows.owner(shard) {
            // Not in `here` though the row says so: given up, and not yet written.
            Some((member, _)) if member.node == self.node => Home::Nobody,
            Some((member, slot)) => {
                Home::There { node: member.node.clone(), generation: slot.generation, epoch: slot.epoch }
            }
            None => Home::Nobody,
        }
    }

    /// Since which epoch this node holds a shard, if it does.
    pub fn epoch(&self, shard: Shard) -> Option<Epoch> {
        self.here.get(usize::from(shard.0)).copied().flatten()
    }

    /// The shards that this node holds.
    pub fn held(&self) -> impl Iterator<Item = (Shard, Epoch)> + '_ {
        (0..SHARDS).map(Shard).zip(&self.here).filter_map(|(shard, epoch)| Some((shard, (*epoch)?)))
    }

    /// The node that is to own a shard, when all have moved that are to move. `None` if no node takes shards.
    pub fn desired(&self, shard: Shard) -> Option<&NodeId> {
        self.rows.desired(shard)
    }

    /// All nodes, the dead included, in the order of their names.
    pub fn members(&self) -> &[Member] {
        &self.rows.members
    }

    /// The node of that name.
    pub fn member(&self, node: &NodeId) -> Option<&Member> {
        self.rows.member(node)
    }

    /// This node.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// The generation of this node.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(generation: u64, state: State) -> Status {
        Status { generation, state: state as i32, weight: 1, ..Status::default() }
    }

    fn owner(node: &str, generation: u64, released: bool) -> Owner {
        Owner { node: node.into(), generation, epoch: 7, released }
    }

    #[test]
    fn homes_are_where_a_living_owner_is() {
        let node = |name| NodeId::new(name).unwrap();
        let statuses = vec![
            (node("a"), status(1, State::Active)),
            (node("b"), status(2, State::Draining)),
            (node("c"), status(1, State::Dead)),
        ];
        let owners = vec![
            (Shard(0), owner("a", 1, false)),
            (Shard(1), owner("b", 2, false)),
            (Shard(2), owner("b", 2, true)),
            (Shard(3), owner("b", 1, false)),
            (Shard(4), owner("c", 1, false)),
            (Shard(5), owner("gone", 1, false)),
        ];
        let rows = Rows::new(Version(5), statuses.clone(), owners, &Rows::none());
        let mut here = vec![None; 1024];
        here[9] = Some(Epoch(3));
        let map = Map { node: node("a"), generation: 1, rows: Arc::new(rows), here };
        assert_eq!(map.home(Shard(1)), Home::There { node: node("b"), generation: 2, epoch: Epoch(7) });
        assert_eq!(map.home(Shard(9)), Home::Here { epoch: Epoch(3) });
        for shard in [0, 2, 3, 4, 5, 6] {
            assert_eq!(map.home(Shard(shard)), Home::Nobody, "{shard}");
        }
        // Only a is Active; and the same nodes are not placed again.
        assert!((0..SHARDS).all(|shard| map.desired(Shard(shard)) == Some(&node("a"))));
        let again = Rows::new(Version(6), statuses, Vec::new(), &map.rows);
        assert_eq!(again.desired, map.rows.desired);
        assert_eq!(map.held().collect::<Vec<_>>(), [(Shard(9), Epoch(3))]);
    }
}
