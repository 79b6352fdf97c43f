//! What a session lets its user see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

use crate::connection::budget::{Account, Waits};

/// What a session lets its user see at any time.
pub(crate) struct Shared {
    /// Whether it has a connection.
    pub(crate) connected: AtomicBool,
    /// How many of the stanzas that it was handed it will never send, since a newer one took their place (XEP-0352).
    pub(crate) dropped: AtomicU32,
    /// How much waits for it.
    pub(crate) waits: Waits,
}

impl Shared {
    /// For a new session, or for one that has just come from the store.
    pub(crate) fn new(connected: bool, budget: &Account) -> Arc<Self> {
        let waits = budget.session();
        Arc::new(Self { connected: connected.into(), dropped: AtomicU32::new(0), waits })
    }
}
