//! The way to whatever has a home, on this node or another.
//!
//! - `route`: where a stanza goes, and where its error goes. `shard_queue`: what is sent to a shard, in order, again after its
//!   home has changed. `early`: what comes for a shard before this node knows that the shard is its own.
//! - `fan_out`: a presence for contacts. `broadcast`: a stanza for the occupants of a room. `wire`: what goes
//!   between nodes, from and to what it is here. `untold`: presence for which a queue has no room. `knows`: which nodes understand what.

#[cfg_attr(not(feature = "toys"), allow(dead_code))]
// rooms will send this way; until then the toy room does
pub(crate) mod broadcast;
pub(crate) mod early;
pub(crate) mod fan_out;
mod knows;
pub(crate) mod route;
pub(crate) mod shard_queue;
pub(crate) mod stored;
pub(crate) mod untold;
pub(crate) mod wire;
