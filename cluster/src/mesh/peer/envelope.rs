//! What goes over the channel: an envelope, and what becomes of it.

use bytes::Bytes;
use rookery_rpc::mesh::v1 as wire;

use super::node::NodeId;
use crate::entity::Shard;

/// The most bytes of one gRPC message.
pub const MESSAGE_MAX: usize = 4 * 1024 * 1024;

/// The most bytes that an envelope may count ([`Envelope::size`]): a message with nothing else in it must hold it.
pub const ENVELOPE_MAX: usize = MESSAGE_MAX - 4 * 1024;

/// The most bytes of a reply.
pub const REPLY_MAX: usize = 1024 * 1024;

/// What an envelope counts beside its entity and its body: numbers, tags and lengths at their longest.
const OVERHEAD: usize = 48;

/// Something for an entity that lives on another node. Entity and body are opaque here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The entity's shard.
    pub shard: Shard,
    /// The epoch of the shard as the sender knows it: a receiver that is not the owner in that epoch says so.
    pub epoch: u64,
    /// The addressee: a name or a hash, as the actors agree.
    pub entity: Bytes,
    /// What it says. At the receiver, a slice of the message that it came in: code that keeps it long copies it.
    pub body: Bytes,
    /// Its number on the way from this sender. The channel counts; what a sender puts here is ignored.
    pub number: u64,
}

impl Envelope {
    /// An envelope that has not been sent.
    pub fn new(shard: Shard, epoch: u64, entity: Bytes, body: Bytes) -> Self {
        Self { shard, epoch, entity, body, number: 0 }
    }

    /// What it counts against limits and credits, in bytes.
    pub fn size(&self) -> usize {
        self.entity.len().saturating_add(self.body.len()).saturating_add(OVERHEAD)
    }

    /// As it is written. Nothing is copied.
    pub(super) fn to_wire(&self) -> wire::Envelope {
        wire::Envelope {
            number: self.number,
            shard: u32::from(self.shard.0),
            epoch: self.epoch,
            entity: self.entity.clone(),
            body: self.body.clone(),
        }
    }

    /// As it was read; `None` if there is no such shard.
    pub(super) fn from_wire(read: wire::Envelope) -> Option<Self> {
        let shard = u16::try_from(read.shard).ok().filter(|shard| *shard < crate::entity::SHARDS)?;
        Some(Self {
            shard: Shard(shard),
            epoch: read.epoch,
            entity: read.entity,
            body: read.body,
            number: read.number,
        })
    }
}

/// What became of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The envelope was taken. The reply is empty unless the receiver gave one.
    Taken(Bytes),
    /// The node is not the shard's home. Refresh the map and send again, the same operation.
    NotOwner {
        /// The newest epoch of the shard that the node knows.
        epoch: u64,
        /// The node that it takes for the home.
        hint: Option<NodeId>,
    },
    /// Unknown whether it was taken: the peer is gone, has a new generation, or lost the actor that had the envelope. Ask
    /// the map and send again, the same operation: the receiver knows operations that it has seen.
    Lost,
}

/// An envelope that was not accepted. Its callback was not called.
pub struct Refused<F> {
    /// The envelope.
    pub envelope: Envelope,
    /// The callback.
    pub on_outcome: F,
    /// Why.
    pub why: Why,
}

impl<F> std::fmt::Debug for Refused<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refused").field("why", &self.why).finish_non_exhaustive()
    }
}

/// Why an envelope was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The limit of what waits for that node is reached.
    #[error("the queue for the node is full")]
    Full,
    /// The envelope is larger than [`ENVELOPE_MAX`], and will never be accepted.
    #[error("an envelope of {size} bytes is larger than the limit of {ENVELOPE_MAX}")]
    TooLarge {
        /// What it counts.
        size: usize,
    },
    /// This node is shutting down.
    #[error("the channel is closed")]
    Closed,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn an_envelope_is_never_larger_than_it_counts() {
        let envelope = Envelope {
            shard: Shard(1023),
            epoch: u64::MAX,
            entity: Bytes::from(vec![b'e'; 3071]),
            body: Bytes::from(vec![b'b'; ENVELOPE_MAX - 3071 - OVERHEAD]),
            number: u64::MAX,
        };
        assert_eq!(envelope.size(), ENVELOPE_MAX);
        let frame =
            wire::Forth { envelopes: vec![envelope.to_wire()], seen: u64::MAX, ..wire::Forth::default() };
        assert!(frame.envelopes[0].encoded_len() <= envelope.size());
        assert!(frame.encoded_len() <= MESSAGE_MAX);
        assert_eq!(Envelope::from_wire(envelope.to_wire()), Some(envelope.clone()));
        assert_eq!(Envelope::from_wire(wire::Envelope { shard: 1024, ..envelope.to_wire() }), None);
    }
}
