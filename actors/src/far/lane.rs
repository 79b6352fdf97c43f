//! Parcels to a shard: in order, and again after its home has changed.
//!
//! As long as all goes well a parcel is sent at once. When one comes back, the lane stalls: what is sent meanwhile waits behind
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

use super::Far;
use super::receive::Reply;
use super::wire::{self, What};
use crate::host::Host;

/// A parcel was not taken by anybody in time, or there is no room for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failed;

/// How long a parcel waits for a home: longer than it takes to find a node dead and its shards another owner.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many parcels may wait in a lane.
const WAITING: usize = 4_096;

/// A home that did not take a parcel is asked again after this, if the map still names it.
const AGAIN: Duration = Duration::from_millis(250);

type Then = Box<dyn FnOnce(&Host, Result<Bytes, Failed>) + Send>;

struct Parcel {
    /// Its place among those of the lane.
    order: u64,
    body: Bytes,
    deadline: Instant,
    then: Then,
}

struct Flight {
    seq: u64,
    parcel: Parcel,
    /// The home it goes to, in which epoch. All that are under way go to one.
    target: (NodeId, u64),
    failed: bool,
}

#[derive(Default)]
struct Lane {
    flying: VecDeque<Flight>,
    waiting: VecDeque<Parcel>,
    next: u64,
    orders: u64,
    stalled: bool,
    /// The last number that was given when it stalled. Once one after that is taken, the rest may follow at once.
    stalled_at: u64,
    proven: bool,
    /// Somebody sends what waits.
    flushing: bool,
    /// Who did not take something, in which epoch, and when to ask again.
    refused: Option<(NodeId, u64, Instant)>,
}

impl Lane {
    /// Back to its place.
    fn wait(&mut self, parcel: Parcel) {
        let at = self.waiting.partition_point(|other| other.order < parcel.order);
        self.waiting.insert(at, parcel);
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
            self.wait(flight.parcel);
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
struct Way {
    shard: Shard,
    requests: bool,
}

pub(super) struct Lanes(Vec<Mutex<Lane>>);

impl Lanes {
    pub(super) fn new() -> Self {
        Self((0..2 * SHARDS).map(|_| Mutex::default()).collect())
    }

    fn of(&self, way: Way) -> Option<&Mutex<Lane>> {
        self.0.get(usize::from(way.shard.0) * 2 + usize::from(way.requests))
    }

    /// Whether what is sent now has to wait.
    pub(super) fn is_stalled(&self, shard: Shard) -> bool {
        self.of(Way { shard, requests: false }).is_some_and(|lane| lane.lock().stalled)
    }
}

fn ways() -> impl Iterator<Item = Way> {
    (0..SHARDS).flat_map(|n| [false, true].map(|requests| Way { shard: Shard(n), requests }))
}

impl Far {
    /// Whom a parcel is for, and in which epoch.
    fn target(&self, home: &Home) -> Option<(NodeId, u64)> {
        match home {
            Home::Nobody => None,
            Home::Here { epoch } => Some((self.cluster.mesh().node().clone(), u64::from(epoch.0))),
            Home::There { node, epoch, .. } => Some((node.clone(), u64::from(epoch.0))),
        }
    }
}

impl Host {
    /// Sends to the home of `user`, wherever that is; `then` is told the answer.
    pub(crate) fn send(
        &self,
        user: &BareJid,
        what: What,
        then: impl FnOnce(&Self, Result<Bytes, Failed>) + Send + 'static,
    ) {
        let Some(far) = self.far() else { return then(self, Err(Failed)) };
        let requests = matches!(what, What::Bind(_) | What::Resume(_) | What::Order(_));
        let way = Way { shard: Shard::of(user.as_str()), requests };
        let mut parcel = Parcel {
            order: 0,
            body: wire::encode(what),
            deadline: Instant::now() + PATIENCE,
            then: Box::new(then),
        };
        let Some(lane) = far.lanes.of(way) else { return };
        {
            let mut lane = lane.lock();
            lane.orders += 1;
            parcel.order = lane.orders;
            if lane.stalled && lane.waiting.len() < WAITING {
                lane.waiting.push_back(parcel);
                return;
            }
            if lane.stalled {
                drop(lane);
                metrics::counter!("rookery_limits_hit_total", "limit" => "lane").increment(1);
                return (parcel.then)(self, Err(Failed));
            }
        }
        if let Err(parcel) = self.fly(way, parcel, false) {
            let mut lane = lane.lock();
            if !lane.stalled {
                lane.stall();
            }
            lane.wait(parcel);
            drop(lane);
            far.wake.notify_one();
        }
    }

    /// Sends a parcel to where the shard is now, if that is anywhere; not past others that wait, unless it is the first of
    /// them (`flush`).
    fn fly(&self, way: Way, parcel: Parcel, flush: bool) -> Result<(), Parcel> {
        let Some(far) = self.far() else { return Err(parcel) };
        let Some(lane) = far.lanes.of(way) else { return Err(parcel) };
        let shard = way.shard;
        let home = far.home(shard);
        let Some(target) = far.target(&home) else { return Err(parcel) };
        let body = parcel.body.clone();
        let seq = {
            let mut lane = lane.lock();
            let again = lane.refused.as_ref().is_some_and(|(node, epoch, at)| {
                (node, *epoch) == (&target.0, target.1) && *at > Instant::now()
            });
            if again || (lane.stalled && !flush) || lane.strays(&target) {
                return Err(parcel);
            }
            lane.next += 1;
            let seq = lane.next;
            lane.flying.push_back(Flight { seq, parcel, target: target.clone(), failed: false });
            seq
        };
        let host = self.clone();
        let (node, epoch) = target.clone();
        let told = move |outcome| host.landed(way, seq, target, outcome);
        if matches!(home, Home::Here { .. }) {
            let me = far.cluster.mesh().node().clone();
            self.receive(&me, far.cluster.mesh().generation(), shard, &body, Reply::here(told));
            return Ok(());
        }
        tracing::trace!(?way, seq, %node, "a parcel goes");
        let sent =
            far.cluster.peers().peer(&node).send(Envelope::new(shard, epoch, Bytes::new(), body), told);
        match sent {
            Ok(()) => Ok(()),
            Err(refused) => {
                tracing::debug!(%node, why = %refused.why, "a parcel waits");
                // The callback was not called.
                let mut lane = lane.lock();
                match lane.flight(seq).and_then(|at| lane.flying.remove(at)) {
                    Some(flight) => Err(flight.parcel),
                    None => Ok(()),
                }
            }
        }
    }

    /// What became of a parcel.
    fn landed(&self, way: Way, seq: u64, target: (NodeId, u64), outcome: Outcome) {
        let Some(far) = self.far() else { return };
        let Some(slot) = far.lanes.of(way) else { return };
        let mut lane = slot.lock();
        let Some(at) = lane.flight(seq) else { return };
        let done = match outcome {
            Outcome::Taken(reply) => {
                lane.proven |= seq > lane.stalled_at;
                lane.flying.remove(at).map(|flight| (flight.parcel.then, reply))
            }
            Outcome::NotOwner { .. } | Outcome::Lost => {
                if let Some(flight) = lane.flying.get_mut(at) {
                    flight.failed = true;
                }
                tracing::trace!(?way, seq, ?target, "a parcel comes back");
                lane.stall();
                lane.refused = Some((target.0, target.1, Instant::now() + AGAIN));
                metrics::counter!("rookery_parcels_again_total").increment(1);
                None
            }
        };
        let ready = lane.stalled && lane.flying.iter().all(|flight| flight.failed);
        if ready {
            let lane = &mut *lane;
            while let Some(flight) = lane.flying.pop_back() {
                lane.wait(flight.parcel);
            }
        }
        drop(lane);
        if let Some((then, reply)) = done {
            then(self, Ok(reply));
        }
        if ready {
            far.wake.notify_one();
        }
    }

    /// Sends what waits in lanes whose shards have homes; what has waited too long fails. Whether anything still waits.
    pub(super) fn flush_lanes(&self) -> bool {
        let Some(far) = self.far() else { return false };
        let mut waiting = 0;
        for way in ways() {
            let Some(slot) = far.lanes.of(way) else { continue };
            let mut lane = slot.lock();
            if !lane.flying.is_empty()
                && let Some(target) = far.target(&far.home(way.shard))
            {
                lane.call_back(&target);
            }
            let stalled = lane.stalled;
            drop(lane);
            if stalled {
                self.flush_lane(way);
                waiting += slot.lock().waiting.len();
            }
        }
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("rookery_queue_length", "queue" => "lanes").set(waiting as f64);
        waiting > 0
    }

    fn flush_lane(&self, way: Way) {
        let Some(slot) = self.far().and_then(|far| far.lanes.of(way)) else { return };
        let now = Instant::now();
        let mut late = Vec::new();
        {
            let mut lane = slot.lock();
            // Neither what waits nor what has no outcome holds the others up for ever.
            while lane.flying.front().is_some_and(|flight| flight.parcel.deadline <= now) {
                late.extend(lane.flying.pop_front().map(|flight| flight.parcel));
            }
            while lane.waiting.front().is_some_and(|parcel| parcel.deadline <= now) {
                late.extend(lane.waiting.pop_front());
            }
            let busy = lane.flushing || !lane.flying.is_empty();
            lane.flushing |= !busy;
            drop(lane);
            for parcel in late {
                (parcel.then)(self, Err(Failed));
            }
            if busy {
                return;
            }
        }
        loop {
            let parcel = {
                let mut lane = slot.lock();
                if !lane.proven && !lane.flying.is_empty() {
                    // The first has gone; when it is taken, the rest follows.
                    lane.flushing = false;
                    return;
                }
                match lane.waiting.pop_front() {
                    // One of those that were just sent has come back: the rest stays behind it.
                    Some(parcel) if lane.flying.iter().any(|flight| flight.failed) => {
                        lane.wait(parcel);
                        lane.flushing = false;
                        return;
                    }
                    Some(parcel) => parcel,
                    None => {
                        lane.flushing = false;
                        lane.stalled = lane.flying.iter().any(|flight| flight.failed);
                        return;
                    }
                }
            };
            if let Err(parcel) = self.fly(way, parcel, true) {
                let mut lane = slot.lock();
                lane.wait(parcel);
                lane.flushing = false;
                return;
            }
        }
    }
}
