//! The way to whatever has a home, on this node or another.
//!
//! - `shard_queue`: what is sent to a shard, in order, again after its home has changed. `receive`: what other nodes send.
//! - `fan_out`: presence for many. `wire`: what goes between nodes, from and to what it is here.

pub(crate) mod fan_out;
pub(crate) mod receive;
pub(crate) mod shard_queue;
pub(crate) mod stored;
pub(crate) mod wire;
