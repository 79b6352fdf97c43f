//! Whether the node takes work. The node is ready when no reason stands against it; each part of the node raises and clears
//! its own reason, and a load balancer reads the sum at `/readyz`.

use std::sync::Arc;

use tokio::sync::watch;

/// Why a node takes no work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The node has not opened its listeners yet.
    Starting = 1,
    /// The node was told to stop, and gives its work away.
    Draining = 2,
    /// The store does not answer.
    StoreUnavailable = 4,
    /// The node has not reached the store for so long that it cannot prove that it still belongs to the cluster.
    Parked = 8,
    /// The node is new in the cluster, and has no work yet.
    Joining = 16,
    /// The disk of its store is nearly full: it stores nothing new.
    StoreFull = 32,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::Joining,
        Self::Draining,
        Self::StoreUnavailable,
        Self::StoreFull,
        Self::Parked,
    ];

    /// The word at `/readyz` and in `rookery status`.
    pub fn text(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::StoreUnavailable => "store unavailable",
            Self::Parked => "parked",
            Self::Joining => "joining",
            Self::StoreFull => "store full",
        }
    }
}

/// The node's readiness. Clones share it.
#[derive(Debug, Clone)]
pub struct Health(Arc<watch::Sender<u8>>);

impl Health {
    /// A node that is [`Reason::Starting`].
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Reason::Starting as u8)))
    }

    /// Raises a reason; does nothing if it stands already.
    pub fn raise(&self, reason: Reason) {
        self.0.send_if_modified(|bits| change(bits, *bits | reason as u8));
    }

    /// Clears a reason; does nothing if it does not stand.
    pub fn clear(&self, reason: Reason) {
        self.0.send_if_modified(|bits| change(bits, *bits & !(reason as u8)));
    }

    /// The reasons that stand now; empty if the node is ready.
    pub fn reasons(&self) -> Vec<Reason> {
        let bits = *self.0.borrow();
        Reason::ALL.into_iter().filter(|&reason| bits & reason as u8 != 0).collect()
    }

    /// Whether the node takes work.
    pub fn is_ready(&self) -> bool {
        *self.0.borrow() == 0
    }

    /// Waits until the node is ready.
    pub async fn ready(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.0.subscribe().wait_for(|&bits| bits == 0).await;
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// Stores `new` and tells whether that changed anything; the metric follows.
fn change(bits: &mut u8, new: u8) -> bool {
    let changed = *bits != new;
    *bits = new;
    metrics::gauge!("rookery_ready").set(if new == 0 { 1.0 } else { 0.0 });
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_every_reason_is_cleared() {
        let health = Health::new();
        assert_eq!(health.reasons(), [Reason::Starting]);
        health.raise(Reason::StoreUnavailable);
        health.raise(Reason::StoreUnavailable);
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.ready().await }
        });
        health.clear(Reason::Starting);
        assert_eq!(health.reasons(), [Reason::StoreUnavailable]);
        assert!(!health.is_ready());
        health.clear(Reason::StoreUnavailable);
        waiting.await.unwrap();
        assert!(health.is_ready());
    }
}
