//! Payloads to a shard: in order, and again after its home has changed.
//!
//! As long as all goes well a payload is sent at once. When one comes back, the queue stalls: what is sent meanwhile waits behind
//! it; when nothing is under way any more, all of it goes to the home that the shard has then.
//!
//! Nothing overtakes. What is under way to a home that is none any more may be so for long (that node lives, and cannot be
//! reached): it is called back and goes, before all that came later, to the next home, which knows what the former one has
//! taken.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rookery_cluster::entity::{SHARDS, Shard};
use rookery_cluster::mesh::Home;
use rookery_cluster::mesh::peer::{Envelope, NodeId, Outcome};
use rookery_proto::xmpp::jid::BareJid;
use tokio::time::Instant;

use super::wire::{self, What};
use crate::connection::reply::Reply;
use crate::host::Host;
use crate::placement::{Placement, shard_of};

/// A payload was not taken by anybody in time, or there is no room for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failed;

/// How long a payload waits for a home: longer than it takes to find a node dead and its shards another owner.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many payloads may wait in a queue.
const WAITING: usize = 4_096;

/// A home that did not take a payload is asked again after this, if the map still names it.
const AGAIN: Duration = Duration::from_millis(250);

type Then = Box<dyn FnOnce(&Host, Result<Bytes, Failed>) + Send>;

struct Payload {
    /// Its place among those of the queue.
    order: u64,
    body: Bytes,
    deadline: Instant,
    then: Then,
}

struct Flight {
    seq: u64,
    payload: Payload,
    /// The home it goes to, in which epoch. All that are under way go to one.
    target: (NodeId, u64),
    failed: bool,
}

#[derive(Default)]
struct ShardQueue {
    flying: VecDeque<Flight>,
    waiting: VecDeque<Payload>,
    next: u64,
    orders: u64,
    stalled: bool,
    /// The last number that was given when it stalled. Once one after that is taken, the rest may follow at once.
    stalled_at: u64,
    proven: bool,
    /// Somebody sends what waits.
    flushing: bool,
    /// The node that did not take a payload, in which epoch, and when to ask again.
    refused: Option<(NodeId, u64, Instant)>,
}

impl ShardQueue {
    /// Back to its place.
    fn wait(&mut self, payload: Payload) {
        let at = self.waiting.partition_point(|other| other.order < payload.order);
        self.waiting.insert(at, payload);
    }

    /// Whether something is under way to another home than this one.
    fn strays(&self, target: &(NodeId, u64)) -> bool {
        self.flying.front().is_some_and(|flight| flight.target != *target)
    }

    /// Calls back what is under way to another home. What comes of it there does not count any more.
    fn call_back(&mut self, target: &(NodeId, u64)) {
        if !self.strays(target) {
            return;
        }
        self.stall();
        while let Some(flight) = self.flying.pop_back() {
            metrics::counter!("rookery_parcels_called_back_total").increment(1);
            self.wait(flight.payload);
        }
    }

    fn stall(&mut self) {
        (self.stalled, self.proven, self.stalled_at) = (true, false, self.next);
    }

    /// Numbers grow, so they are in order.
    fn flight(&self, seq: u64) -> Option<usize> {
        self.flying.binary_search_by_key(&seq, |flight| flight.seq).ok()
    }
}

/// Each shard has two: requests for sessions do not wait behind stanzas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct QueueId {
    shard: Shard,
    requests: bool,
}

pub(crate) struct ShardQueues(Vec<Mutex<ShardQueue>>);

impl Default for ShardQueues {
    fn default() -> Self {
        Self((0..2 * SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl ShardQueues {
    fn of(&self, id: QueueId) -> Option<&Mutex<ShardQueue>> {
        self.0.get(usize::from(id.shard.0) * 2 + usize::from(id.requests))
    }

    /// Whether what is sent now has to wait.
    pub(crate) fn is_stalled(&self, shard: Shard) -> bool {
        self.of(QueueId { shard, requests: false }).is_some_and(|queue| queue.lock().stalled)
    }
}

fn queue_ids() -> impl Iterator<Item = QueueId> {
    (0..SHARDS).flat_map(|n| [false, true].map(|requests| QueueId { shard: Shard(n), requests }))
}

impl Placement {
    /// Whom a payload is for, and in which epoch.
    fn target(&self, home: &Home) -> Option<(NodeId, u64)> {
        match home {
            Home::Nobody => None,
            Home::Here { epoch } => Some((self.cluster.mesh().node().clone(), u64::from(epoch.0))),
            Home::There { node, epoch, .. } => Some((node.clone(), u64::from(epoch.0))),
        }
    }
}

impl Host {
    /// Whether something may go straight to that entity: its home is this node, and nothing that came before waits.
    pub(crate) fn is_open(&self, entity: &BareJid) -> bool {
        self.placement().is_none_or(|placement| {
            let shard = shard_of(entity);
            placement.is_here(shard) && !self.is_stalled(shard)
        })
    }

    /// Whether what is sent now to that shard has to wait behind what came before.
    pub(crate) fn is_stalled(&self, shard: Shard) -> bool {
        self.state::<ShardQueues>().is_stalled(shard)
    }

    /// Sends to the home of `user`, wherever that is; `then` is told the answer.
    pub(crate) fn send(
        &self,
        user: &BareJid,
        what: What,
        then: impl FnOnce(&Self, Result<Bytes, Failed>) + Send + 'static,
    ) {
        let Some(placement) = self.placement() else { return then(self, Err(Failed)) };
        // A component's connection must not wait behind the stanzas that wait for it.
        let requests = matches!(what, What::Bind(_) | What::Resume(_) | What::Order(_) | What::Serve(_));
        let id = QueueId { shard: Shard::of(user.as_str()), requests };
        let mut payload = Payload {
            order: 0,
            body: wire::encode(what),
            deadline: Instant::now() + PATIENCE,
            then: Box::new(then),
        };
        let queues = self.state::<ShardQueues>();
        let Some(queue) = queues.of(id) else { return };
        {
            let mut queue = queue.lock();
            queue.orders += 1;
            payload.order = queue.orders;
            if queue.stalled && queue.waiting.len() < WAITING {
                queue.waiting.push_back(payload);
                return;
            }
            if queue.stalled {
                drop(queue);
                metrics::counter!("rookery_limits_hit_total", "limit" => "lane").increment(1);
                return (payload.then)(self, Err(Failed));
            }
        }
        if let Err(payload) = self.fly(id, payload, false) {
            let mut queue = queue.lock();
            if !queue.stalled {
                queue.stall();
            }
            queue.wait(payload);
            drop(queue);
            placement.wake.notify_one();
        }
    }

    /// Sends a payload to where the shard is now, if that is anywhere; not past others that wait, unless it is the first of
    /// them (`flush`).
    fn fly(&self, id: QueueId, payload: Payload, flush: bool) -> Result<(), Payload> {
        let Some(placement) = self.placement() else { return Err(payload) };
        let queues = self.state::<ShardQueues>();
        let Some(queue) = queues.of(id) else { return Err(payload) };
        let shard = id.shard;
        let home = placement.home(shard);
        let Some(target) = placement.target(&home) else { return Err(payload) };
        let body = payload.body.clone();
        let seq = {
            let mut queue = queue.lock();
            let again = queue.refused.as_ref().is_some_and(|(node, epoch, at)| {
                (node, *epoch) == (&target.0, target.1) && *at > Instant::now()
            });
            if again || (queue.stalled && !flush) || queue.strays(&target) {
                return Err(payload);
            }
            queue.next += 1;
            let seq = queue.next;
            queue.flying.push_back(Flight { seq, payload, target: target.clone(), failed: false });
            seq
        };
        let host = self.clone();
        let (node, epoch) = target.clone();
        let told = move |outcome| host.landed(id, seq, target, outcome);
        if matches!(home, Home::Here { .. }) {
            let me = placement.cluster.mesh().node().clone();
            self.receive(&me, placement.cluster.mesh().generation(), shard, &body, Reply::here(told));
            return Ok(());
        }
        tracing::trace!(?id, seq, %node, "a payload goes");
        let sent =
            placement.cluster.peers().peer(&node).send(Envelope::new(shard, epoch, Bytes::new(), body), told);
        match sent {
            Ok(()) => Ok(()),
            Err(refused) => {
                tracing::debug!(%node, why = %refused.why, "a payload waits");
                // The callback was not called.
                let mut queue = queue.lock();
                match queue.flight(seq).and_then(|at| queue.flying.remove(at)) {
                    Some(flight) => Err(flight.payload),
                    None => Ok(()),
                }
            }
        }
    }

    /// What became of a payload.
    fn landed(&self, id: QueueId, seq: u64, target: (NodeId, u64), outcome: Outcome) {
        let Some(placement) = self.placement() else { return };
        let queues = self.state::<ShardQueues>();
        let Some(slot) = queues.of(id) else { return };
        let mut queue = slot.lock();
        let Some(at) = queue.flight(seq) else { return };
        let done = match outcome {
            Outcome::Taken(reply) => {
                queue.proven |= seq > queue.stalled_at;
                queue.flying.remove(at).map(|flight| (flight.payload.then, reply))
            }
            Outcome::NotOwner { .. } | Outcome::Lost => {
                if let Some(flight) = queue.flying.get_mut(at) {
                    flight.failed = true;
                }
                tracing::trace!(?id, seq, ?target, "a payload comes back");
                queue.stall();
                queue.refused = Some((target.0, target.1, Instant::now() + AGAIN));
                metrics::counter!("rookery_parcels_again_total").increment(1);
                None
            }
        };
        let ready = queue.stalled && queue.flying.iter().all(|flight| flight.failed);
        if ready {
            let queue = &mut *queue;
            while let Some(flight) = queue.flying.pop_back() {
                queue.wait(flight.payload);
            }
        }
        drop(queue);
        if let Some((then, reply)) = done {
            then(self, Ok(reply));
        }
        if ready {
            placement.wake.notify_one();
        }
    }

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
            let busy = queue.flushing || !queue.flying.is_empty();
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
            if let Err(payload) = self.fly(id, payload, true) {
                let mut queue = slot.lock();
                queue.wait(payload);
                queue.flushing = false;
                return;
            }
        }
    }
}
