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
use crate::host::kind::{KindId, USER};
use crate::placement::{Placement, shard_of};

mod body;
mod flush;

pub(super) use body::Body;

/// A payload was not taken by anybody in time, or there is no room for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failed;

/// How long a payload waits for a home: longer than it takes to find a node dead and its shards another owner.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many payloads may wait in a queue.
const WAITING: usize = 4_096;

/// A home that did not take a payload is asked again after this, if the map still names it.
const AGAIN: Duration = Duration::from_millis(250);

/// A home that has had a payload for so long, and has not given the payload back, has taken it. The answer may be much later: a
/// component answers when its connection has confirmed.
const SILENT: Duration = Duration::from_secs(1);

type Then = Box<dyn FnOnce(&Host, Result<Bytes, Failed>) + Send>;

struct Payload {
    /// Its place among those of the queue.
    order: u64,
    body: Body,
    /// The kind of the entity: a node that does not know it cannot take the payload.
    kind: KindId,
    deadline: Instant,
    then: Then,
}

struct Flight {
    seq: u64,
    payload: Payload,
    /// The home it goes to, in which epoch. All that are under way go to one.
    target: (NodeId, u64),
    since: Instant,
    failed: bool,
}

#[derive(Default)]
struct ShardQueue {
    flying: VecDeque<Flight>,
    waiting: VecDeque<Payload>,
    next: u64,
    orders: u64,
    stalled: bool,
    /// The last number that was given when it stalled. Once one after that is taken, by an answer or by silence, the rest may
    /// follow at once.
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

    /// The home that the queue tries has refused nothing for long: the rest follows without an answer.
    fn prove(&mut self, now: Instant) {
        let silent = self.flying.front().is_some_and(|flight| flight.since + SILENT <= now);
        self.proven |= silent && self.flying.iter().all(|flight| !flight.failed);
    }

    fn stall(&mut self) {
        (self.stalled, self.proven, self.stalled_at) = (true, false, self.next);
    }

    /// Numbers grow, so they are in order.
    fn flight(&self, seq: u64) -> Option<usize> {
        self.flying.binary_search_by_key(&seq, |flight| flight.seq).ok()
    }
}

/// Which of a shard's queues. None waits behind another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    /// Stanzas for users.
    Users,
    /// Requests for sessions.
    Requests,
    /// Stanzas for all other kinds: while an older node, which does not know their kind, is the home, they wait.
    Others,
}

impl Lane {
    const ALL: [Self; 3] = [Self::Users, Self::Requests, Self::Others];

    fn of(kind: KindId) -> Self {
        if kind == USER { Self::Users } else { Self::Others }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct QueueId {
    shard: Shard,
    lane: Lane,
}

/// A payload that is under way: the code that has entered it sends it, and says by [`Host::landed`] what became of it.
pub(super) struct Entered {
    id: QueueId,
    seq: u64,
    /// The node that it goes to, and the epoch of the shard there.
    pub(super) target: (NodeId, u64),
}

pub(crate) struct ShardQueues(Vec<Mutex<ShardQueue>>);

impl Default for ShardQueues {
    fn default() -> Self {
        Self((0..3 * SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl ShardQueues {
    fn of(&self, id: QueueId) -> Option<&Mutex<ShardQueue>> {
        self.0.get(usize::from(id.shard.0) * Lane::ALL.len() + id.lane as usize)
    }

    /// Whether what is sent now has to wait.
    fn is_stalled(&self, id: QueueId) -> bool {
        self.of(id).is_some_and(|queue| queue.lock().stalled)
    }
}

fn queue_ids() -> impl Iterator<Item = QueueId> {
    (0..SHARDS).flat_map(|n| Lane::ALL.map(|lane| QueueId { shard: Shard(n), lane }))
}

impl Placement {
    /// The node that a payload is for, and the epoch.
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
    pub(crate) fn is_open(&self, kind: KindId, entity: &BareJid) -> bool {
        self.placement().is_none_or(|placement| {
            let id = QueueId { shard: shard_of(entity), lane: Lane::of(kind) };
            placement.is_here(id.shard) && !self.state::<ShardQueues>().is_stalled(id)
        })
    }

    /// Whether what is sent now to users of that shard has to wait behind what came before.
    pub(crate) fn is_stalled(&self, shard: Shard) -> bool {
        self.state::<ShardQueues>().is_stalled(QueueId { shard, lane: Lane::Users })
    }

    /// Sends to the home of `user`, wherever that is; `then` is told the answer.
    pub(crate) fn send(
        &self,
        user: &BareJid,
        what: What,
        then: impl FnOnce(&Self, Result<Bytes, Failed>) + Send + 'static,
    ) {
        self.send_to_kind(USER, user, what, then);
    }

    /// The same for an entity of any kind.
    pub(super) fn send_to_kind(
        &self,
        kind: KindId,
        entity: &BareJid,
        what: What,
        then: impl FnOnce(&Self, Result<Bytes, Failed>) + Send + 'static,
    ) {
        // A component's connection must not wait behind the stanzas that wait for it.
        let requests = matches!(what, What::Bind(_) | What::Resume(_) | What::Order(_) | What::Serve(_));
        let lane = if requests { Lane::Requests } else { Lane::of(kind) };
        let id = QueueId { shard: shard_of(entity), lane };
        let body = Body::Bytes(wire::encode(what));
        if let Some(entered) = self.enter_in(id, kind, body, Box::new(then)) {
            self.launch(entered);
        }
    }

    /// Enters a stanza for a user as under way to the user's home. Where something waits, the stanza goes by itself, later.
    pub(super) fn enter_queue(
        &self,
        user: &BareJid,
        body: Body,
        then: impl FnOnce(&Self, Result<Bytes, Failed>) + Send + 'static,
    ) -> Option<Entered> {
        let id = QueueId { shard: shard_of(user), lane: Lane::Users };
        self.enter_in(id, USER, body, Box::new(then))
    }

    fn enter_in(&self, id: QueueId, kind: KindId, body: Body, then: Then) -> Option<Entered> {
        let Some(placement) = self.placement() else {
            then(self, Err(Failed));
            return None;
        };
        let mut payload = Payload { order: 0, body, kind, deadline: Instant::now() + PATIENCE, then };
        let queues = self.state::<ShardQueues>();
        let queue = queues.of(id)?;
        {
            let mut queue = queue.lock();
            queue.orders += 1;
            payload.order = queue.orders;
            if queue.stalled && queue.waiting.len() < WAITING {
                queue.waiting.push_back(payload);
                return None;
            }
            if queue.stalled {
                drop(queue);
                metrics::counter!("rookery_limits_hit_total", "limit" => "lane").increment(1);
                (payload.then)(self, Err(Failed));
                return None;
            }
        }
        match self.aim(id, payload, false) {
            Ok(entered) => Some(entered),
            Err(payload) => {
                self.hold(id, payload);
                placement.wake.notify_one();
                None
            }
        }
    }

    /// A payload waits, and what follows waits behind it.
    fn hold(&self, id: QueueId, payload: Payload) {
        let queues = self.state::<ShardQueues>();
        let Some(queue) = queues.of(id) else { return };
        let mut queue = queue.lock();
        if !queue.stalled {
            queue.stall();
        }
        queue.wait(payload);
    }

    /// Enters a payload as under way to where the shard is now, if that is anywhere; not past others that wait, unless it is the
    /// first of them (`flush`).
    fn aim(&self, id: QueueId, payload: Payload, flush: bool) -> Result<Entered, Payload> {
        let Some(placement) = self.placement() else { return Err(payload) };
        let queues = self.state::<ShardQueues>();
        let Some(queue) = queues.of(id) else { return Err(payload) };
        let Some(target) = placement.target(&placement.home(id.shard)) else { return Err(payload) };
        if payload.kind != USER && !self.node_knows_kind(&target.0, payload.kind) {
            return Err(payload); // the shard may move to a node that does
        }
        let mut queue = queue.lock();
        let again = queue
            .refused
            .as_ref()
            .is_some_and(|(node, epoch, at)| (node, *epoch) == (&target.0, target.1) && *at > Instant::now());
        if again || (queue.stalled && !flush) || queue.strays(&target) {
            return Err(payload);
        }
        queue.next += 1;
        let seq = queue.next;
        let since = Instant::now();
        queue.flying.push_back(Flight { seq, payload, target: target.clone(), since, failed: false });
        Ok(Entered { id, seq, target })
    }

    /// Sends what has been entered, by itself.
    pub(super) fn launch(&self, entered: Entered) {
        if let (id, Err(payload)) = (entered.id, self.fly(entered)) {
            self.hold(id, payload);
            if let Some(placement) = self.placement() {
                placement.wake.notify_one();
            }
        }
    }

    /// The same; if it cannot be sent now, it comes back.
    fn fly(&self, entered: Entered) -> Result<(), Payload> {
        let Some(placement) = self.placement() else { return Ok(()) };
        let queues = self.state::<ShardQueues>();
        let Some(queue) = queues.of(entered.id) else { return Ok(()) };
        let Entered { id, seq, target: (node, epoch) } = &entered;
        let (id, seq, node, epoch) = (*id, *seq, node.clone(), *epoch);
        // Called back meanwhile, it goes from where it waits.
        let body = {
            let queue = queue.lock();
            let Some(flight) = queue.flight(seq).and_then(|at| queue.flying.get(at)) else { return Ok(()) };
            flight.payload.body.bytes()
        };
        let host = self.clone();
        let told = move |outcome| host.landed(entered, outcome);
        if node == *placement.cluster.mesh().node() {
            let reply = Reply::here(told);
            self.receive(&node, placement.cluster.mesh().generation(), id.shard, &body, reply);
            return Ok(());
        }
        tracing::trace!(?id, seq, %node, "a payload goes");
        let envelope = Envelope::new(id.shard, epoch, Bytes::new(), body);
        match placement.cluster.peers().peer(&node).send(envelope, told) {
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
    pub(super) fn landed(&self, Entered { id, seq, target }: Entered, outcome: Outcome) {
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
}
