//! The members of the cluster, and which of them owns which shard. The mesh alone writes these rows; see [`crate::mesh`].

use std::ops::Range;

use bytes::Bytes;

use super::{decode, encode, scan};
use crate::entity::{SHARDS, Shard};
use crate::mesh::{Epoch, NodeId};
use crate::store::keys::{Key, Kind, Parts};
use crate::store::{Class, Error, Isolation, Mutate, Result, Transaction};

/// A cluster has at most that many nodes, the dead included.
pub const NODES: usize = 1000;

/// Where a node is in its life. A generation goes through it once, downwards; only Active and Draining may change into
/// each other. The numbers are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum State {
    /// What a newer version wrote: alive, and not to be given shards.
    Unknown = 0,
    /// The node beats, and owns nothing yet.
    Joining = 1,
    /// The node takes shards.
    Active = 2,
    /// The node gives its shards to others.
    Draining = 3,
    /// This generation of it may write nothing, ever.
    Dead = 4,
}

impl State {
    /// The word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Dead => "dead",
        }
    }
}

/// What a node is: `node/{id}/status`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Status {
    /// Grows with each start of the node. From 1.
    #[prost(uint64, tag = "1")]
    pub generation: u64,
    /// A [`State`]; read it by `state()`.
    #[prost(enumeration = "State", tag = "2")]
    pub state: i32,
    /// Where other nodes reach it.
    #[prost(string, tag = "3")]
    pub address: String,
    /// Where clients are sent that are to come to it; empty if there is none.
    #[prost(string, tag = "4")]
    pub public: String,
    /// The zone (rack, data centre) it stands in.
    #[prost(string, tag = "5")]
    pub zone: String,
    /// How much it takes, in comparison with others.
    #[prost(uint32, tag = "6")]
    pub weight: u32,
    /// Its software.
    #[prost(string, tag = "7")]
    pub version: String,
    /// Random: tells its row from one that another process of the same name wrote.
    #[prost(fixed64, tag = "8")]
    pub nonce: u64,
    /// What it understands of what other nodes may send; none: a node of a version that does not say.
    #[prost(message, optional, tag = "9")]
    pub knows: Option<Knows>,
}

/// What a node understands, beside what each node does since before nodes said so. What they send each other is the business of those
/// who send; to the mesh these are names.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Knows {
    /// Forms of messages.
    #[prost(string, repeated, tag = "1")]
    pub payloads: Vec<String>,
    /// Kinds of actors.
    #[prost(string, repeated, tag = "2")]
    pub kinds: Vec<String>,
}

impl Knows {
    /// Whether it understands messages of this form.
    pub fn payload(&self, name: &str) -> bool {
        self.payloads.iter().any(|known| known == name)
    }

    /// Whether actors of this kind can live there.
    pub fn kind(&self, name: &str) -> bool {
        self.kinds.iter().any(|known| known == name)
    }
}

impl Status {
    /// Whether the node says that `is` holds of what it knows.
    pub fn says(&self, is: impl Fn(&Knows) -> bool) -> bool {
        self.knows.as_ref().is_some_and(is)
    }

    /// Whether that generation of the node may write.
    pub fn lives(&self, generation: u64) -> bool {
        self.generation == generation && self.state() != State::Dead
    }
}

/// A sign of life: `node/{id}/beat`. Only whether it changes says something.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Beat {
    /// The node's.
    #[prost(uint64, tag = "1")]
    pub generation: u64,
    /// Grows.
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

/// That a node saw none from another for long.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Vote {
    /// The last beat it saw.
    #[prost(message, optional, tag = "1")]
    pub beat: Option<Beat>,
    /// The generation of the voter.
    #[prost(uint64, tag = "2")]
    pub voter_generation: u64,
}

/// The node that owns a shard, or did.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Owner {
    /// The node's name.
    #[prost(string, tag = "1")]
    pub node: String,
    /// Its generation.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    /// Grows each time the shard changes hands. From 1.
    #[prost(uint32, tag = "3")]
    pub epoch: u32,
    /// The shard was given up: the node that is to own it may take it.
    #[prost(bool, tag = "4")]
    pub released: bool,
}

impl Owner {
    /// Whether that generation of that node holds the shard.
    pub fn is(&self, node: &NodeId, generation: u64) -> bool {
        !self.released && self.generation == generation && self.node == node.as_str()
    }

    /// The epoch.
    pub const fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }
}

/// The key of a node's status: in the conflict set of all that it writes.
pub fn status_key(node: &NodeId) -> Bytes {
    Key::deployment(Kind::NodeStatus).text(node.as_str()).finish()
}

/// The key of a shard's owner: in the conflict set of all that its owner writes there.
pub fn shard_key(shard: Shard) -> Bytes {
    Key::shard(Kind::ShardOwner, shard).finish()
}

/// The key to watch: another value with every change of a status or an owner.
pub fn version_key() -> Bytes {
    Key::deployment(Kind::MeshVersion).finish()
}

/// To be called with every change of a status or an owner.
pub fn bump(tx: &mut dyn Transaction) {
    tx.add(&version_key(), 1);
}

/// What a node is.
pub async fn status(tx: &mut dyn Transaction, node: &NodeId) -> Result<Option<Status>> {
    tx.get(&status_key(node), Isolation::Serializable).await?.map(decode).transpose()
}

/// Writes what a node is. See [`bump`].
pub fn put_status(out: &mut (impl Mutate + ?Sized), node: &NodeId, status: &Status) {
    out.put(status_key(node), encode(status));
}

/// All nodes, in the order of their names. Conflicts with nothing.
pub async fn statuses(tx: &mut dyn Transaction) -> Result<Vec<(NodeId, Status)>> {
    let page = scan(tx, Key::all(Kind::NodeStatus), NODES, Isolation::Snapshot).await?;
    page.rows.into_iter().map(|(key, value)| Ok((node_in(Kind::NodeStatus, &key)?, decode(value)?))).collect()
}

/// A node's last sign of life.
pub async fn beat(tx: &mut dyn Transaction, node: &NodeId) -> Result<Option<Beat>> {
    tx.get(&beat_key(node), Isolation::Serializable).await?.map(decode).transpose()
}

/// Writes a sign of life.
pub fn put_beat(out: &mut (impl Mutate + ?Sized), node: &NodeId, beat: &Beat) {
    out.put(beat_key(node), encode(beat));
}

/// The last signs of life of all nodes. Conflicts with nothing.
pub async fn beats(tx: &mut dyn Transaction) -> Result<Vec<(NodeId, Beat)>> {
    let page = scan(tx, Key::all(Kind::NodeBeat), NODES, Isolation::Snapshot).await?;
    page.rows.into_iter().map(|(key, value)| Ok((node_in(Kind::NodeBeat, &key)?, decode(value)?))).collect()
}

/// The votes about a node, with who gave them.
pub async fn votes(tx: &mut dyn Transaction, node: &NodeId) -> Result<Vec<(NodeId, Vote)>> {
    let page = scan(tx, votes_of(node), NODES, Isolation::Serializable).await?;
    let vote = |(key, value): (Bytes, Bytes)| {
        let mut parts = Parts::of(Kind::NodeVote, &key)?;
        parts.text()?;
        Ok((named(&parts.text()?)?, decode(value)?))
    };
    page.rows.into_iter().map(vote).collect()
}

/// Writes a vote of `voter` about `node`, in the place of its last.
pub fn put_vote(out: &mut (impl Mutate + ?Sized), node: &NodeId, voter: &NodeId, vote: &Vote) {
    let key = Key::deployment(Kind::NodeVote).text(node.as_str()).text(voter.as_str()).finish();
    out.put(key, encode(vote));
}

/// Removes the votes about a node.
pub fn clear_votes(out: &mut (impl Mutate + ?Sized), node: &NodeId) {
    let range = votes_of(node);
    out.delete_range(range.start, range.end);
}

/// Removes everything about a node. See [`bump`].
pub fn clear(out: &mut (impl Mutate + ?Sized), node: &NodeId) {
    out.delete(status_key(node));
    out.delete(beat_key(node));
    clear_votes(out, node);
}

/// Writes who owns a shard. See [`bump`].
pub fn put_owner(out: &mut (impl Mutate + ?Sized), shard: Shard, owner: &Owner) {
    out.put(shard_key(shard), encode(owner));
}

/// The owners of all shards that ever had one. Conflicts with nothing.
pub async fn owners(tx: &mut dyn Transaction) -> Result<Vec<(Shard, Owner)>> {
    owners_in(tx, Key::all(Kind::ShardOwner)).await
}

/// The owners of these shards, in the same order. Conflicts with changes of theirs and of no others, though it is one
/// range read from the first to the last.
pub async fn owners_of(tx: &mut dyn Transaction, shards: &[Shard]) -> Result<Vec<Option<Owner>>> {
    let (Some(first), Some(last)) = (shards.iter().min(), shards.iter().max()) else {
        return Ok(Vec::new());
    };
    let found = owners_in(tx, shard_key(*first)..behind(&shard_key(*last))).await?;
    conflict_with(tx, shards);
    let owner = |shard: &Shard| {
        let place = found.binary_search_by_key(shard, |(found, _)| *found);
        place.ok().and_then(|place| found.get(place)).map(|(_, owner)| owner.clone())
    };
    Ok(shards.iter().map(owner).collect())
}

/// Makes the transaction conflict with changes of these shards' owners.
pub fn conflict_with(tx: &mut dyn Transaction, shards: &[Shard]) {
    for shard in shards {
        let key = shard_key(*shard);
        tx.add_read_conflict(&key, &behind(&key));
    }
}

/// Makes the transaction conflict with changes of a node's status.
pub fn conflict_with_status(tx: &mut dyn Transaction, node: &NodeId) {
    let key = status_key(node);
    tx.add_read_conflict(&key, &behind(&key));
}

async fn owners_in(tx: &mut dyn Transaction, range: Range<Bytes>) -> Result<Vec<(Shard, Owner)>> {
    let page = scan(tx, range, usize::from(SHARDS), Isolation::Snapshot).await?;
    let owner = |(key, value): (Bytes, Bytes)| {
        let shard = key.get(2..).and_then(|number| <[u8; 2]>::try_from(number).ok());
        let shard = shard.ok_or(Error::new(Class::Corrupt, "the key of a shard's owner is none"))?;
        Ok((Shard(u16::from_be_bytes(shard)), decode(value)?))
    };
    page.rows.into_iter().map(owner).collect()
}

fn beat_key(node: &NodeId) -> Bytes {
    Key::deployment(Kind::NodeBeat).text(node.as_str()).finish()
}

fn votes_of(node: &NodeId) -> Range<Bytes> {
    Key::deployment(Kind::NodeVote).text(node.as_str()).range()
}

fn node_in(kind: Kind, key: &[u8]) -> Result<NodeId> {
    named(&Parts::of(kind, key)?.text()?)
}

fn named(name: &str) -> Result<NodeId> {
    NodeId::new(name).map_err(|e| Error::new(Class::Corrupt, "a stored name of a node is none").with(e))
}

/// The end of the range that holds `key` alone.
fn behind(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

#[cfg(test)]
mod tests;
