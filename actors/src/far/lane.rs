//! Parcels to a shard: in order, and again after its home has changed.
//!
//! As long as all goes well a parcel is sent at once. When one comes back, the lane stalls: what is sent meanwhile waits behind
//! it; when nothing is under way any more, all of it goes to the home that the shard has then.
//!
//! Nothing overtakes: who has taken a number of a session takes no smaller one. What is under way to a home that is none any
//! more may be so for long (that node lives, and cannot be reached); it is called back and goes, before all that came
//! later, to the next home, which knows what the former one has taken.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rookery_cluster::entity::{Entity, SHARDS, Shard};
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
    entity: Bytes,
    body: Bytes,
    deadline: Instant,
    then: Then,
}

struct Flight {
    seq: u64,
    parcel: Parcel,
    /// The home it goes to, in which epoch.
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
        self.flying.iter().any(|flight| flight.target != *target)
    }

    /// Calls back what is under way to another home. What comes of it there does not count any more.
    fn call_back(&mut self, target: &(NodeId, u64)) {
        let (strays, rest) = self.flying.drain(..).partition(|flight| flight.target != *target);
        self.flying = rest;
        let strays: VecDeque<Flight> = strays;
        for flight in strays {
            self.stalled = true;
            metrics::counter!("rookery_parcels_called_back_total").increment(1);
            self.wait(flight.parcel);
        }
    }
}

pub(super) struct Lanes(Vec<Mutex<Lane>>);

impl Lanes {
    pub(super) fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    fn of(&self, shard: Shard) -> Option<&Mutex<Lane>> {
        self.0.get(usize::from(shard.0))
    }

    /// Whether what is sent now has to wait.
    pub(super) fn is_stalled(&self, shard: Shard) -> bool {
        self.of(shard).is_some_and(|lane| lane.lock().stalled)
    }

    /// How many parcels wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.iter().map(|lane| lane.lock().waiting.len()).sum()
    }
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
        let entity = Entity::new(user.as_str());
        let shard = entity.shard();
        let mut parcel = Parcel {
            order: 0,
            entity: Bytes::copy_from_slice(entity.as_str().as_bytes()),
            body: wire::encode(what),
            deadline: Instant::now() + PATIENCE,
            then: Box::new(then),
        };
        let Some(lane) = far.lanes.of(shard) else { return };
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
        if let Err(parcel) = self.fly(shard, parcel) {
            let mut lane = lane.lock();
            lane.stalled = true;
            lane.wait(parcel);
            drop(lane);
            far.wake.notify_one();
        }
    }

    /// Sends a parcel to where the shard is now, if that is anywhere.
    fn fly(&self, shard: Shard, parcel: Parcel) -> Result<(), Parcel> {
        let Some(far) = self.far() else { return Err(parcel) };
        let Some(lane) = far.lanes.of(shard) else { return Err(parcel) };
        let home = far.home(shard);
        let Some(target) = far.target(&home) else { return Err(parcel) };
        let (entity, body) = (parcel.entity.clone(), parcel.body.clone());
        let seq = {
            let mut lane = lane.lock();
            let again = lane.refused.as_ref().is_some_and(|(node, epoch, at)| {
                (node, *epoch) == (&target.0, target.1) && *at > Instant::now()
            });
            if again {
                return Err(parcel);
            }
            if lane.strays(&target) {
                return Err(parcel);
            }
            lane.next += 1;
            let seq = lane.next;
            lane.flying.push_back(Flight { seq, parcel, target: target.clone(), failed: false });
            seq
        };
        let host = self.clone();
        let (node, epoch) = target.clone();
        let told = move |outcome| host.landed(shard, seq, target, outcome);
        if matches!(home, Home::Here { .. }) {
            let me = far.cluster.mesh().node().clone();
            self.receive(&me, far.cluster.mesh().generation(), shard, &body, Reply::here(told));
            return Ok(());
        }
        tracing::trace!(shard = shard.0, seq, %node, "a parcel goes");
        let sent = far.cluster.peers().peer(&node).send(Envelope::new(shard, epoch, entity, body), told);
        match sent {
            Ok(()) => Ok(()),
            Err(refused) => {
                tracing::debug!(%node, why = %refused.why, "a parcel waits");
                // The callback was not called.
                let mut lane = lane.lock();
                let at = lane.flying.iter().position(|flight| flight.seq == seq);
                match at.and_then(|at| lane.flying.remove(at)) {
                    Some(flight) => Err(flight.parcel),
                    None => Ok(()),
                }
            }
        }
    }

    /// What became of a parcel.
    fn landed(&self, shard: Shard, seq: u64, target: (NodeId, u64), outcome: Outcome) {
        let Some(far) = self.far() else { return };
        let Some(slot) = far.lanes.of(shard) else { return };
        let mut lane = slot.lock();
        let Some(at) = lane.flying.iter().position(|flight| flight.seq == seq) else { return };
        let done = match outcome {
            Outcome::Taken(reply) => lane.flying.remove(at).map(|flight| (flight.parcel.then, reply)),
            Outcome::NotOwner { .. } | Outcome::Lost => {
                if let Some(flight) = lane.flying.get_mut(at) {
                    flight.failed = true;
                }
                tracing::trace!(shard = shard.0, seq, ?target, "a parcel comes back");
                lane.stalled = true;
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

    /// Sends what waits in lanes whose shards have homes; what has waited too long fails.
    pub(super) fn flush_lanes(&self) {
        let Some(far) = self.far() else { return };
        for shard in (0..SHARDS).map(Shard) {
            let Some(slot) = far.lanes.of(shard) else { continue };
            let mut lane = slot.lock();
            if !lane.flying.is_empty()
                && let Some(target) = far.target(&far.home(shard))
            {
                lane.call_back(&target);
            }
            let stalled = lane.stalled;
            drop(lane);
            if stalled {
                self.flush_lane(shard);
            }
        }
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("rookery_queue_length", "queue" => "lanes").set(far.lanes.waiting() as f64);
    }

    fn flush_lane(&self, shard: Shard) {
        let Some(slot) = self.far().and_then(|far| far.lanes.of(shard)) else { return };
        let now = Instant::now();
        let mut late = Vec::new();
        {
            let mut lane = slot.lock();
            if lane.flushing || !lane.flying.is_empty() {
                return;
            }
            while lane.waiting.front().is_some_and(|parcel| parcel.deadline <= now) {
                late.extend(lane.waiting.pop_front());
            }
            lane.flushing = true;
        }
        for parcel in late {
            (parcel.then)(self, Err(Failed));
        }
        loop {
            let parcel = {
                let mut lane = slot.lock();
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
            if let Err(parcel) = self.fly(shard, parcel) {
                let mut lane = slot.lock();
                lane.wait(parcel);
                lane.flushing = false;
                return;
            }
        }
    }
}
