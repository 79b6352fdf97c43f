//! Shards that other nodes took from this one.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Shards that others have taken, and what was here of them. The log says so in one line, when all of it has stopped.
pub(crate) struct LostShards {
    shards: usize,
    users: usize,
    sessions: AtomicUsize,
    stanzas: AtomicUsize,
}

impl LostShards {
    /// So many shards, on which so many actors lived here.
    pub(crate) fn new(shards: usize, users: usize) -> Self {
        Self { shards, users, sessions: AtomicUsize::new(0), stanzas: AtomicUsize::new(0) }
    }

    /// A user had so many sessions, and so many stanzas that waited for the store.
    pub(crate) fn add(&self, sessions: usize, stanzas: usize) {
        self.sessions.fetch_add(sessions, Ordering::Relaxed);
        self.stanzas.fetch_add(stanzas, Ordering::Relaxed);
    }
}

impl Drop for LostShards {
    fn drop(&mut self) {
        if self.users == 0 {
            return;
        }
        tracing::warn!(
            shards = self.shards,
            users = self.users,
            sessions = *self.sessions.get_mut(),
            stanzas = *self.stanzas.get_mut(),
            "other nodes have taken over shards of this node, because its heartbeats stopped: sessions continue on those nodes, \
             clients of this node are told to reconnect, and unacknowledged stanzas are sent again. No action is needed"
        );
    }
}
