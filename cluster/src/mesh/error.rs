//! What can be wrong with joining, draining and evicting.

use super::NodeId;
use crate::store;

/// See the module.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The times of the configuration do not fit each other.
    #[error(
        "the heartbeat interval must be less than half the lease; the lease must be shorter than the death time and than 5 s"
    )]
    Timing,
    /// There is no such node.
    #[error("there is no node {0}")]
    NoNode(NodeId),
    /// The node is not in a state from which it can be changed so.
    #[error("node {0} is {1}")]
    State(NodeId, &'static str),
    /// The node is to be evicted, and beats.
    #[error("node {0} still sends heartbeats: drain the node, or evict it with force")]
    Beats(NodeId),
}
