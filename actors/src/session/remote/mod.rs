//! Sessions and connections that are not on the same node.
//!
//! - `connection_proxy`: stands at the session's node for a connection elsewhere.
//! - `session_proxy`: stands at the connection's node for a session elsewhere.
//! - `reattach`: connections whose session has lost its home find the next.

pub(crate) mod connection_proxy;
pub(crate) mod reattach;
pub(crate) mod session_proxy;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rookery_cluster::mesh::peer::NodeId;

use crate::host::Host;
use connection_proxy::ConnectionProxy;

pub(crate) use session_proxy::{Item, SessionProxy, Tail};

/// The proxies of a node.
#[derive(Default)]
pub(crate) struct Remote {
    /// Connections of this node whose sessions are elsewhere, or on their way.
    pub(crate) session_proxies: Mutex<HashMap<u64, Arc<SessionProxy>>>,
    next_connection: AtomicU64,
    /// Sessions of this node whose connections are elsewhere.
    pub(crate) connection_proxies: Mutex<HashMap<(NodeId, u64), Arc<ConnectionProxy>>>,
}

impl Remote {
    /// `first`: the name of the first connection, random, so that none is named as one of a former process.
    pub(crate) fn count_from(&self, first: u64) {
        self.next_connection.store(first, Ordering::Relaxed);
    }

    /// A name for a connection.
    pub(crate) fn next_connection(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }
}

impl Host {
    /// The proxies of this node.
    pub(crate) fn remote(&self) -> Arc<Remote> {
        self.state()
    }
}
