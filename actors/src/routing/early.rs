//! Payloads that come too early: another node has read in the store that a shard is this node's, and this node has not heard
//! yet that its claim was taken. They wait for that, in order, since to refuse the first and take the second would turn
//! them round.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::Home;
use rookery_cluster::mesh::peer::NodeId;
use tokio::time::Instant;

use super::wire::What;
use crate::connection::reply::Reply;
use crate::host::Host;

/// How long they wait: longer than an answer of the store takes.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many wait for a shard.
const MOST: usize = 4_096;

struct Payload {
    from: NodeId,
    generation: u64,
    what: What,
    reply: Reply,
}

struct Queue {
    since: Instant,
    payloads: VecDeque<Payload>,
    /// Somebody takes them.
    taken: bool,
}

#[derive(Default)]
pub(crate) struct Early(Mutex<BTreeMap<Shard, Queue>>);

impl Host {
    /// The epoch of a shard, as far as this node knows: all if the shard is its own.
    fn known_epoch(&self, shard: Shard) -> u64 {
        let Some(placement) = self.placement() else { return u64::MAX };
        match placement.home(shard) {
            Home::Here { .. } => u64::MAX,
            Home::There { epoch, .. } => u64::from(epoch.0).max(placement.frozen(shard).into()),
            Home::Nobody => placement.frozen(shard).into(),
        }
    }

    /// Whether a payload waits, see [`Host::early`].
    pub(crate) fn is_early(&self, shard: Shard, epoch: u64) -> bool {
        self.state::<Early>().0.lock().contains_key(&shard) || epoch > self.known_epoch(shard)
    }

    /// Keeps a payload that comes too early; gives it back if it does not, or if there is no room.
    pub(crate) fn early(
        &self,
        from: &NodeId,
        generation: u64,
        (shard, epoch): (Shard, u64),
        what: What,
        reply: Reply,
    ) -> Option<(What, Reply)> {
        let Some(placement) = self.placement() else { return Some((what, reply)) };
        let early = self.state::<Early>();
        let mut early = early.0.lock();
        let payload = Payload { from: from.clone(), generation, what, reply };
        if let Some(queue) = early.get_mut(&shard) {
            if queue.payloads.len() >= MOST {
                return Some((payload.what, payload.reply)); // refused, it comes again, and what follows it
            }
            queue.payloads.push_back(payload);
            return None;
        }
        if epoch <= self.known_epoch(shard) {
            return Some((payload.what, payload.reply));
        }
        metrics::counter!("rookery_parcels_early_total").increment(1);
        let queue = Queue { since: Instant::now(), payloads: VecDeque::from([payload]), taken: false };
        early.insert(shard, queue);
        placement.wake.notify_one();
        None
    }

    /// The shard is this node's now, or will not be: what has waited is taken, or goes back.
    pub(crate) fn take_early(&self, shard: Shard) {
        let all = self.state::<Early>();
        if let Some(queue) = all.0.lock().get_mut(&shard)
            && std::mem::replace(&mut queue.taken, true)
        {
            return;
        }
        loop {
            // One at a time, without the lock: what comes meanwhile goes behind.
            let payload = {
                let mut early = all.0.lock();
                let Some(queue) = early.get_mut(&shard) else { return };
                let Some(payload) = queue.payloads.pop_front() else {
                    early.remove(&shard);
                    return;
                };
                payload
            };
            self.take(&payload.from, payload.generation, shard, payload.what, payload.reply);
        }
    }

    /// Whether any wait; those that have waited for too long go back.
    pub(crate) fn look_early(&self) -> bool {
        let Some(placement) = self.placement() else { return false };
        let waiting: Vec<(Shard, bool)> = {
            let early = self.state::<Early>();
            let early = early.0.lock();
            early.iter().map(|(shard, queue)| (*shard, queue.since.elapsed() > PATIENCE)).collect()
        };
        for (shard, late) in &waiting {
            if *late || placement.is_here(*shard) {
                self.take_early(*shard);
            }
        }
        !waiting.is_empty()
    }
}
