//! Sessions and connections that are not on the same node, and how a session is taken over.
//!
//! - `connection_proxy`: stands at the session's node for a connection elsewhere.
//! - `session_proxy`: stands at the connection's node for a session elsewhere. `open`: such a connection begins.
//! - `reattach`: connections whose session has lost its home find the next.
//!
//! # At the connection's node
//!
//! Where the session is, as a connection knows that ([`session_proxy::At`]). The edges are functions of
//! [`session_proxy::State`]; nothing else changes the state.
//!
//! ```text
//!   bind_away, resume_away                   Session::leave: the session was on this node
//!            │                                                │ moved
//!            ▼                                                ▼
//!      ┌──────────┐  found (1)   ┌──────────┐  look (2)  ┌─────────┐   ask (3)    ┌─────────┐
//!      │  Asking  │─────────────►│   Home   │───────────►│ Looking │─────────────►│ Looking │
//!      └─────┬────┘              └──┬────▲──┘            │         │◄─────────────│  asked  │
//!            │                      │    │               └────┬────┘ not_found (4)└──┬───┬──┘
//!            │                      │    └────────────────────┼──────────────────────┘   │
//!            │ (7)                  │ (7)        found (5)    │ (8)                      │ (6)
//!            ▼                      ▼                         ▼                          ▼
//!      ┌─────────────────────────────────────────────────────────────────────────────────────┐
//!      │                                     Over (end)                                      │
//!      └─────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! 1. The home has answered the first request (`SessionProxy::settle`).
//! 2. The home says that the session moves (`take`); or it has not taken something (`lost`); or the map names another home, and the
//!    old one is dead or has said nothing for some seconds (`look_at`).
//! 3. The map names a home, and that is asked to take the session over (`look_at`, `State::attach`).
//! 4. The home has not taken the session, or has not answered.
//! 5. Another node has the session (`Host::attached`): what was not settled is sent again.
//! 6. This node has the session (`Host::attached_here`): the connection leads to it again, without a proxy. Or the session is
//!    over or has another connection (`give_up`).
//! 7. The connection has ended, and the home knows (`closed`, `forget`). Between two homes that is kept for the next one.
//! 8. No home took the session in time, or nothing is known by which to bring it back (`give_up`).
//!
//! Each *look* and each *not found* begins an attempt with a number of its own; what comes for an older attempt says nothing.
//!
//! # At the session's home
//!
//! The states of a [`Session`](super::Session).
//!
//! ```text
//!        bind                                  restore: from its record, or from a connection's capsule
//!          │                                                      │
//!          ▼           closed                                     ▼
//!    ┌───────────┐───────────────►┌─────────┐               ┌──────────┐
//!    │ connected │     resume     │ waiting │               │ restored │
//!    │           │◄───────────────└────┬────┘               └─┬──────┬─┘
//!    │           │     attach          │ expire               │      │ resume, claim: the store is asked
//!    │           │◄────────────────────┼──────────────────────┘      ▼
//!    │           │     claimed         │                      ┌──────────┐
//!    │           │◄────────────────────┼──────────────────────│ claiming │
//!    └──┬─────┬──┘                     ▼                      └──────────┘
//!       │     │        end        ┌─────────┐
//!  hold │     └──────────────────►│  Ended  │
//!       ▼                         └─────────┘
//!    ┌──────┐  leave  ┌──────┐
//!    │ held │────────►│ Left │  Its connection looks for the next home: one on this node by `moved` (above), one elsewhere
//!    └──────┘         └──────┘  because it is sent `Down::Moved`.
//! ```
//!
//! *Waiting* is a session without a pipe, *restored* one with the record that it came from, *claiming* the same with a client that
//! waits, *held* one whose [`Route`](super::handle::Route) is held. A restored session that nobody comes for ends as a waiting one
//! does. `lose` leads to *Left* from everywhere: another node has the session already, and nobody is told.

pub(crate) mod connection_proxy;
pub(crate) mod open;
pub(crate) mod reattach;
pub(crate) mod session_proxy;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rookery_cluster::mesh::peer::NodeId;

use crate::host::Host;
use connection_proxy::ConnectionProxy;
pub(crate) use session_proxy::{Carried, Item, SessionProxy};

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
