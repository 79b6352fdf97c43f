//! How long a node may still believe that it belongs to the cluster.
//!
//! The lease runs from the start of the last good beat, on this node's own monotonic clock, and is shorter than the time after
//! which others may take the node for dead. The store is guarded by the fence; the lease is for effects that the store
//! does not see: sockets, presence, answers from memory. A lease that ended comes back with the next good beat, unless
//! the node was declared dead.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use metrics::counter;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// See the module.
pub struct Lease {
    /// From here the times are counted.
    zero: Instant,
    /// Microseconds from `zero` to its end; 0 = there was no beat yet.
    until: AtomicU64,
    /// The lease will never be renewed.
    over: AtomicBool,
    /// How often it began anew.
    term: AtomicU64,
    renewed: Notify,
    held: watch::Sender<bool>,
}

impl Lease {
    pub(crate) fn new() -> Self {
        Self {
            zero: Instant::now(),
            until: AtomicU64::new(0),
            over: AtomicBool::new(false),
            term: AtomicU64::new(0),
            renewed: Notify::new(),
            held: watch::Sender::new(false),
        }
    }

    /// Whether it holds now: two atomic reads and the clock.
    pub fn holds(&self) -> bool {
        !self.over.load(Ordering::Acquire) && Instant::now() < self.until()
    }

    /// Whether it is over for good: the node was declared dead, or has left.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Says when it ends and when it is renewed after that. The value may lag behind [`Lease::holds`] by as long as it takes
    /// to wake a task.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.held.subscribe()
    }

    /// How often it began anew: what was seen in another term was perhaps seen through a store that stood still.
    pub(crate) fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    fn until(&self) -> Instant {
        self.zero + Duration::from_micros(self.until.load(Ordering::Acquire))
    }

    /// A beat was good that began at `start`.
    pub(crate) fn renew(&self, start: Instant, length: Duration) {
        if !self.holds() {
            self.term.fetch_add(1, Ordering::AcqRel);
        }
        let micros = (start + length).saturating_duration_since(self.zero).as_micros();
        self.until.fetch_max(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::AcqRel);
        self.publish();
        self.renewed.notify_one();
    }

    /// Ends it for good.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.publish();
        self.renewed.notify_one();
    }

    fn publish(&self) {
        self.held.send_if_modified(|held| {
            // Asked under the lock, so that of two who publish the later tells the later state.
            let before = std::mem::replace(held, self.holds());
            if before && !*held && !self.is_over() {
                counter!("rookery_mesh_leases_lost_total").increment(1);
                tracing::info!("lease lost: no heartbeat was committed in time; this node serves nothing until the next heartbeat succeeds");
            }
            before != *held
        });
    }

    /// Tells the watchers when the lease ends. Runs until the lease is over for good.
    pub(crate) async fn keep(&self) {
        while !self.is_over() {
            if self.holds() {
                sleep_until(self.until()).await;
                self.publish();
            } else {
                self.renewed.notified().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(4);

    #[tokio::test(start_paused = true)]
    async fn it_ends_by_itself_and_comes_back() {
        let lease = Arc::new(Lease::new());
        let mut watch = lease.watch();
        let keeper = tokio::spawn({
            let lease = lease.clone();
            async move { lease.keep().await }
        });
        assert!(!lease.holds() && !*watch.borrow());
        let start = Instant::now();
        lease.renew(start, LENGTH);
        assert!(lease.holds() && *watch.borrow_and_update());
        tokio::time::advance(Duration::from_secs(1)).await;
        lease.renew(start + Duration::from_secs(1), LENGTH);
        // What began before does not shorten it.
        lease.renew(start, LENGTH);
        watch.changed().await.unwrap();
        assert_eq!((start.elapsed().as_secs(), lease.holds(), lease.term()), (5, false, 1));
        assert!(!*watch.borrow_and_update());
        lease.renew(Instant::now(), LENGTH);
        watch.changed().await.unwrap();
        assert_eq!((lease.holds(), *watch.borrow_and_update(), lease.term()), (true, true, 2));
        lease.end();
        lease.renew(Instant::now(), LENGTH);
        assert!(!lease.holds() && !*watch.borrow());
        keeper.await.unwrap();
    }
}
