//! What the nodes of a cluster share: the store, and the seams through which the rest of Rookery sees
//! time, chance and placement. Nothing in here knows a feature of XMPP.
//!
//! - [`seams`]: clock and randomness, passed in, never global.
//! - [`invariant`]: what is always true; checked where it must hold.
//! - [`entity`]: what is placed (users, rooms, links) and on which of the 1024 shards it lies.
//! - [`mesh`]: the nodes of a cluster: which live, which owns which shard, and the channel between them.
//! - [`store`]: the transaction trait in FoundationDB's verbs, its engines, and the one runner.
//! - [`tables`]: typed functions over a transaction, one file per table. A table never commits.

pub mod entity;
pub mod invariant;
pub mod mesh;
pub mod seams;
pub mod store;
pub mod tables;
