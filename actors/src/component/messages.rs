//! What the home of a component is sent.

use bytes::Bytes;
use rookery_cluster::mesh::peer::NodeId;
use tokio::sync::oneshot;

use crate::host::kind::Inbound;

/// A connection as its home names it: the node that has it, if that is another one, with its generation, and its number there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ConnId {
    pub(crate) node: Option<(NodeId, u64)>,
    pub(crate) number: u64,
}

/// A connection offers itself, or says that it is still there.
pub(crate) struct Offer {
    pub(crate) conn: ConnId,
    /// The home that it knows.
    pub(crate) serving: u64,
    pub(crate) users: Vec<u64>,
    pub(crate) gone: bool,
    /// Told which home this is.
    pub(crate) reply: oneshot::Sender<u64>,
}

pub(crate) enum Msg {
    In(Box<Inbound>),
    Offer(Box<Offer>),
    /// What became of a stanza that a connection was handed.
    Outcome {
        conn: ConnId,
        number: u64,
        /// The component's answer, if the server itself has asked; else nothing. `None`: the connection has not taken it.
        taken: Option<Bytes>,
    },
    Tick,
    Leave(oneshot::Sender<()>),
    Lose,
    Nothing,
}

impl ConnId {
    /// The connection in eight bytes, for [`Balance`](super::balance::Balance). Numbers are drawn at random for each node.
    pub(super) fn key(&self) -> u64 {
        self.number
    }
}
