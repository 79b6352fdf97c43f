//! What the store says of itself, and what readiness makes of it.

use std::sync::Arc;

use rookery_cluster::store::Standing;
use rookery_ops::health::{Health, Reason};
use tokio::sync::watch;

/// Keeps readiness in step with the store. Returns when the store is lost, with the reason: then the process is to end, and to be
/// started anew.
pub async fn follow(mut standing: watch::Receiver<Standing>, health: Health) -> Arc<str> {
    loop {
        let now = standing.borrow_and_update().clone();
        let reasons =
            [(Reason::StoreFull, now == Standing::Full), (Reason::StoreUnavailable, now == Standing::Broken)];
        for (reason, stands) in reasons {
            if stands {
                health.raise(reason);
            } else {
                health.clear(reason);
            }
        }
        if let Standing::Lost(why) = now {
            health.raise(Reason::StoreUnavailable);
            return why;
        }
        if standing.changed().await.is_err() {
            // The store is closed, or its standing never changes.
            return std::future::pending().await;
        }
    }
}

/// Ends when the store is lost, with the reason.
pub async fn lost(mut standing: watch::Receiver<Standing>) -> Arc<str> {
    loop {
        if let Standing::Lost(why) = &*standing.borrow_and_update() {
            return why.clone();
        }
        if standing.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_follows_the_store() {
        let (store, health) = (watch::Sender::new(Standing::Full), Health::new());
        health.clear(Reason::Starting);
        let follower = tokio::spawn(follow(store.subscribe(), health.clone()));
        let steps = [
            (Standing::Full, vec![Reason::StoreFull]),
            (Standing::Broken, vec![Reason::StoreUnavailable]),
            (Standing::Well, vec![]),
            (Standing::Lost("damaged".into()), vec![Reason::StoreUnavailable]),
        ];
        for (standing, reasons) in steps {
            store.send_replace(standing);
            while health.reasons() != reasons {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(&*follower.await.unwrap(), "damaged");
        assert_eq!(&*lost(store.subscribe()).await, "damaged");
    }
}
