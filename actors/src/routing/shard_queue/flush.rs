//! What waits in the queues of shards goes on when they have homes again.

use tokio::time::Instant;

use super::{Failed, Host, QueueId, ShardQueues, queue_ids};

impl Host {
    /// Sends what waits in queues whose shards have homes; what has waited too long fails. Whether anything still waits.
    pub(crate) fn flush_queues(&self) -> bool {
        let Some(placement) = self.placement() else { return false };
        let queues = self.state::<ShardQueues>();
        let mut waiting = 0;
        for id in queue_ids() {
            let Some(slot) = queues.of(id) else { continue };
            let mut queue = slot.lock();
            if !queue.flying.is_empty()
                && let Some(target) = placement.target(&placement.home(id.shard))
            {
                queue.call_back(&target);
            }
            let stalled = queue.stalled;
            drop(queue);
            if stalled {
                self.flush_queue(id);
                waiting += slot.lock().waiting.len();
            }
        }
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("rookery_queue_length", "queue" => "lanes").set(waiting as f64);
        waiting > 0
    }

    fn flush_queue(&self, id: QueueId) {
        let queues = self.state::<ShardQueues>();
        let Some(slot) = queues.of(id) else { return };
        let now = Instant::now();
        let mut late = Vec::new();
        {
            let mut queue = slot.lock();
            // Neither what waits nor what has no outcome holds the others up for ever.
            while queue.flying.front().is_some_and(|flight| flight.payload.deadline <= now) {
                late.extend(queue.flying.pop_front().map(|flight| flight.payload));
            }
            while queue.waiting.front().is_some_and(|payload| payload.deadline <= now) {
                late.extend(queue.waiting.pop_front());
            }
            queue.prove(now);
            let busy = queue.flushing || (!queue.proven && !queue.flying.is_empty());
            queue.flushing |= !busy;
            drop(queue);
            for payload in late {
                (payload.then)(self, Err(Failed));
            }
            if busy {
                return;
            }
        }
        loop {
            let payload = {
                let mut queue = slot.lock();
                if !queue.proven && !queue.flying.is_empty() {
                    // The first has gone; when it is taken, the rest follows.
                    queue.flushing = false;
                    return;
                }
                match queue.waiting.pop_front() {
                    // One of those that were just sent has come back: the rest stays behind it.
                    Some(payload) if queue.flying.iter().any(|flight| flight.failed) => {
                        queue.wait(payload);
                        queue.flushing = false;
                        return;
                    }
                    Some(payload) => payload,
                    None => {
                        queue.flushing = false;
                        queue.stalled = queue.flying.iter().any(|flight| flight.failed);
                        return;
                    }
                }
            };
            let gone = self.aim(id, payload, true).and_then(|entered| self.fly(entered));
            if let Err(payload) = gone {
                let mut queue = slot.lock();
                queue.wait(payload);
                queue.flushing = false;
                return;
            }
        }
    }
}
