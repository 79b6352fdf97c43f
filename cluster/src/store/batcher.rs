//! Group commit: the writes of many users in one transaction.
//!
//! One commit is under way at a time, and one begins at most every [`Settings::pace`]; what comes meanwhile gathers and goes
//! together. So a write that comes alone does not wait, and under load the groups grow by themselves (measured: see the
//! settings). Writes are committed, and their callbacks called, in the order of submission; what builds on a refused one is refused
//! (see [`Line`]). Bodies are set and clear with keys made before, and edits that may be done twice (see [`Edit`]): repeating them is
//! harmless.
//!
//! Length: gathering, committing and repeating a group share one state and one order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics::{gauge, histogram};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Class, Error, Op, Ops, Options, Result, Standing, Store, awake, op, runner};
use crate::entity::Shard;
use crate::invariant;

mod writes;

pub use writes::{Edit, Line, Writes};

const PACE: Duration = Duration::from_millis(8);
/// The pause before a commit in doubt is repeated.
const DOUBT: Duration = Duration::from_millis(200);
/// The longest that one such attempt may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Limits of a batcher.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bodies that may wait.
    pub queue: usize,
    /// Their bytes.
    pub queue_bytes: usize,
    /// Bodies of one commit.
    pub group: usize,
    /// The least time from the beginning of one commit to that of the next: a write that finds no commit under way begins
    /// one at once, what comes after it gathers. At 1,000 archived messages a second, 3, 6 and 9 ms cost 2.36, 2.14 and
    /// 1.98 s of CPU per 10,000 messages, at a median latency of 3.4, 5.5 and 7.1 ms and a 99th percentile below 15 ms.
    pub pace: Duration,
    /// How long a body may wait for the commits before it, and how long a commit may take: in time in which this process runs.
    pub deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { queue: 100_000, queue_bytes: 64_000_000, group: 1000, pace: PACE, deadline: runner::DEADLINE }
    }
}

type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// Writes that wait, or are being committed.
struct Body {
    writes: Writes,
    /// The epoch of the shard when they were handed over: what was meant for one must not be written in a later one, when
    /// others have written in between.
    epoch: Option<u32>,
}

impl Body {
    /// Whether the shard is this node's as it was when they were handed over.
    fn is_of_now(&self, store: &Store) -> bool {
        self.writes.is_empty() || (self.epoch.is_some() && self.epoch == store.epoch(self.writes.shard))
    }
}

const BROKEN: Error = Error::new(Class::Unavailable, "what these writes build on was refused");

const ELSEWHERE: Error = Error::new(Class::Fenced, "the shard is not this node's any more");

struct Waiting {
    body: Body,
    size: usize,
    since: Instant,
    /// [`Queue::spent`] then.
    spent: Duration,
    done: Done,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    closed: bool,
    /// A group is being committed.
    busy: bool,
    /// How long commits have taken in all, as far as this process ran meanwhile.
    spent: Duration,
}

struct Shared {
    store: Store,
    standing: watch::Receiver<Standing>,
    settings: Settings,
    queue: Mutex<Queue>,
    work: Notify,
}

/// Commits the writes of many in groups. Cheap to clone; when the last clone goes, what waits is still committed.
#[derive(Clone)]
pub struct Batcher(Arc<Front>);

/// What the clones share; its end is the end of the batcher.
struct Front(Arc<Shared>);

impl Drop for Front {
    fn drop(&mut self) {
        self.0.queue.lock().closed = true;
        self.0.work.notify_one();
    }
}

impl Batcher {
    /// Starts a batcher on `store`. Must be called within a tokio runtime.
    pub fn start(store: Store, settings: Settings) -> Self {
        let (queue, work) = (Mutex::default(), Notify::new());
        let standing = store.standing();
        let shared = Arc::new(Shared { store: store.clone(), standing, settings, queue, work });
        tokio::spawn(run(Arc::clone(&shared), store));
        Self(Arc::new(Front(shared)))
    }

    /// Hands writes over; `done` gets the outcome, on the batcher's task: it must be quick and not block. After success
    /// the writes are durable. On failure they are not, unless the fence says that the shard is another node's
    /// ([`Class::Fenced`]); until either is known there is no answer.
    ///
    /// # Errors
    /// At once, and then `done` is never called: [`Class::TooLarge`] or [`Class::Misuse`], or [`Class::Unavailable`] if too much
    /// waits.
    pub fn submit(&self, writes: Writes, done: impl FnOnce(Result<()>) + Send + 'static) -> Result<()> {
        let size = writes.check()?;
        let shared = &self.0.0;
        let epoch = shared.store.epoch(writes.shard);
        let refused = writes.line.as_ref().map(|line| line.refused.clone());
        let done = Box::new(move |result: Result<()>| {
            // Those of another home's epoch are nobody's any more.
            let counts = result.as_ref().is_err_and(|error| error.class != Class::Fenced);
            if let Some(refused) = refused.filter(|_| counts) {
                refused.fetch_add(1, Ordering::Release);
            }
            done(result);
        });
        let body = Body { writes, epoch };
        let mut queue = shared.queue.lock();
        let full =
            queue.waiting.len() >= shared.settings.queue || queue.bytes + size > shared.settings.queue_bytes;
        if full {
            return Err(Error::new(Class::Unavailable, "too many writes wait for the store"));
        }
        queue.bytes += size;
        let (since, spent) = (Instant::now(), queue.spent);
        queue.waiting.push_back(Waiting { body, size, since, spent, done });
        let first = queue.waiting.len() == 1;
        drop(queue);
        if first {
            shared.work.notify_one();
        }
        Ok(())
    }

    /// The same for a caller that can wait.
    ///
    /// # Errors
    /// Those of [`Batcher::submit`], at once or later.
    pub async fn write(&self, writes: Writes) -> Result<()> {
        let (done, outcome) = oneshot::channel();
        self.submit(writes, |result| drop(done.send(result)))?;
        let ended = || Error::new(Class::MaybeCommitted, "the batcher ended");
        outcome.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Waits until everything submitted before is answered.
    ///
    /// # Errors
    /// If the batcher ended, or what came right before failed.
    pub async fn flush(&self) -> Result<()> {
        if self.0.0.is_idle() {
            return Ok(());
        }
        self.write(Writes { ops: Ops::new(), edits: Vec::new(), shard: Shard(0), line: None }).await
    }

    /// Bodies that wait now.
    pub fn waiting(&self) -> usize {
        self.0.0.queue.lock().waiting.len()
    }
}

/// The batcher's task.
async fn run(shared: Arc<Shared>, store: Store) {
    let mut next = Instant::now();
    loop {
        let (empty, closed) = {
            let queue = shared.queue.lock();
            (queue.waiting.is_empty(), queue.closed)
        };
        if empty && closed {
            return;
        }
        if empty {
            shared.work.notified().await;
            continue;
        }
        if next > Instant::now() {
            sleep_until(next).await;
        }
        next = Instant::now() + shared.settings.pace;
        let group = shared.take();
        let (bodies, dones) = shared.split(group);
        if bodies.is_empty() {
            shared.queue.lock().busy = false;
            continue;
        }
        let ((), spent) = awake::measured(write(&store, (bodies, dones), shared.settings.deadline)).await;
        let mut queue = shared.queue.lock();
        (queue.busy, queue.spent) = (false, queue.spent + spent);
    }
}

/// Bodies, and the waiter for each.
type Group = (Vec<Body>, Vec<Done>);

/// Commits a group and tells each its outcome. When some of it is not to be had, the others do not fail with it: the group is halved
/// until what is refused stands alone.
async fn write(store: &Store, group: Group, deadline: Duration) {
    let mut parts = vec![group];
    while let Some((bodies, dones)) = parts.pop().map(unbroken) {
        if bodies.is_empty() {
            continue;
        }
        let Some((refusal, (mut bodies, mut dones))) = settle(store, bodies, dones, deadline).await else {
            continue;
        };
        let half = bodies.len() / 2;
        tracing::debug!(error = %refusal, bodies = bodies.len(), "a group was refused and is halved");
        let behind = (bodies.split_off(half), dones.split_off(half));
        parts.push(behind);
        parts.push((bodies, dones)); // comes first: the order stays
    }
}

/// Without those that build on what was refused; their waiters hear so.
fn unbroken((bodies, dones): Group) -> Group {
    let broken = |body: &Body| body.writes.line.as_ref().is_some_and(Line::is_broken);
    if !bodies.iter().any(broken) {
        return (bodies, dones);
    }
    let (mut whole, mut waiting) = (Vec::with_capacity(bodies.len()), Vec::with_capacity(dones.len()));
    for (body, done) in bodies.into_iter().zip(dones) {
        if broken(&body) {
            done(Err(BROKEN));
        } else {
            whole.push(body);
            waiting.push(done);
        }
    }
    (whole, waiting)
}

/// Whether an error is about what is written, so that it may be another body's.
fn is_of_one(class: Class) -> bool {
    // A damaged row is found by the edit that reads it.
    matches!(class, Class::TooLarge | Class::Misuse | Class::Full | Class::Corrupt)
}

/// Commits a group and tells each its outcome, or gives back a group of several that was refused because of what some of them write.
///
/// When the fence refuses it because some of its shards are not this node's any more, only their writes fail. After a commit of
/// which nobody knows whether it happened, and may still, it is repeated until the store has answered: its writers could do nothing
/// with such an outcome, and what comes next must not be overtaken by it.
async fn settle(
    store: &Store,
    mut bodies: Vec<Body>,
    mut dones: Vec<Done>,
    mut deadline: Duration,
) -> Option<(Error, Group)> {
    let mut doubt = false;
    loop {
        invariant!("batcher_one_answer", bodies.len() == dones.len(), "{} of {}", dones.len(), bodies.len());
        let outcome = commit(store, &bodies, deadline).await;
        // The shard may have gone meanwhile, and may have come back; but a later epoch does not become an earlier one.
        let grows =
            |body: &Body| body.epoch.zip(store.epoch(body.writes.shard)).is_none_or(|(was, is)| was <= is);
        invariant!("epochs_of_writes_grow", !cfg!(debug_assertions) || bodies.iter().all(grows));
        let class = outcome.as_ref().err().map(|error| error.class);
        let again = class.is_some_and(|class| class.repeats() && (doubt || class == Class::MaybeCommitted));
        if let Err(error) = outcome.as_ref()
            && again
        {
            if !std::mem::replace(&mut doubt, true) {
                let bodies = bodies.len();
                tracing::warn!(%error, bodies, "the store did not report whether these writes are stored; these and all later writes wait until the store answers");
            }
            sleep(DOUBT).await;
            // A disk may be as slow as this, and no other commit is tried meanwhile.
            deadline = (deadline * 2).min(PATIENCE);
        }
        let refused = outcome.as_ref().err().filter(|error| is_of_one(error.class) && bodies.len() > 1);
        if let Some(error) = refused {
            return Some((error.clone(), (bodies, dones)));
        }
        let answer = |dones: Vec<Done>| dones.into_iter().for_each(|done| done(outcome.clone()));
        if !again && class != Some(Class::Fenced) {
            if let Err(error) = &outcome {
                tracing::warn!(%error, bodies = bodies.len(), "the store rejected these writes; the requests behind them get an error");
            }
            answer(dones);
            return None;
        }
        let stays: Vec<bool> = bodies.iter().map(|body| body.is_of_now(store)).collect();
        let partly = stays.contains(&false) && stays.contains(&true);
        if !again && !partly {
            answer(dones);
            return None;
        }
        let mut stay = stays.iter();
        bodies.retain(|_| stay.next().copied().unwrap_or_default());
        let (left, lost): (Vec<_>, Vec<_>) = dones.into_iter().zip(stays).partition(|(_, stays)| *stays);
        lost.into_iter().for_each(|(done, _)| done(Err(ELSEWHERE)));
        dones = left.into_iter().map(|(done, _)| done).collect();
        if bodies.is_empty() {
            return None;
        }
    }
}

/// All bodies in one transaction.
async fn commit(store: &Store, bodies: &[Body], deadline: Duration) -> Result<()> {
    let changing = bodies.iter().filter(|body| !body.writes.is_empty());
    let mut shards: Vec<Shard> = changing.map(|body| body.writes.shard).collect();
    shards.sort_unstable();
    shards.dedup();
    histogram!("rookery_store_batch_size", "of" => "bodies")
        .record(u32::try_from(bodies.len()).unwrap_or(u32::MAX));
    let options = Options { shards, deadline, operation: None };
    store
        .write(options, |tx| {
            for op in bodies.iter().flat_map(|body| &body.writes.ops) {
                match op {
                    Op::Set { key, value } => tx.put(key.clone(), value.clone()),
                    other => other.apply(&mut **tx),
                }
            }
            if bodies.iter().all(|body| body.writes.edits.is_empty()) {
                return Box::pin(std::future::ready(Ok(())));
            }
            Box::pin(async move {
                for edit in bodies.iter().flat_map(|body| &body.writes.edits) {
                    edit.run(&mut **tx).await?;
                }
                Ok(())
            })
        })
        .await
}

impl Shared {
    /// Whether everything submitted is answered.
    fn is_idle(&self) -> bool {
        let queue = self.queue.lock();
        queue.waiting.is_empty() && !queue.busy
    }

    /// The next group, as large as one commit may be.
    fn take(&self) -> Vec<Waiting> {
        let mut group = Vec::new();
        let mut bytes = 0;
        let mut queue = self.queue.lock();
        let full = *self.standing.borrow() == Standing::Full;
        let mut grows = None;
        while let Some(next) = queue.waiting.front() {
            if group.len() >= self.settings.group || bytes + next.size > runner::BUDGET {
                break;
            }
            // What is refused then goes apart from what is taken.
            if full {
                let next = op::grow(&next.body.writes.ops);
                if *grows.get_or_insert(next) != next {
                    break;
                }
            }
            bytes += next.size;
            queue.bytes -= next.size;
            group.extend(queue.waiting.pop_front());
        }
        let counted = !queue.waiting.is_empty() || queue.bytes == 0;
        invariant!("batcher_counted", counted, "{} bytes of nothing", queue.bytes);
        queue.busy = true;
        let left = u32::try_from(queue.waiting.len()).unwrap_or(u32::MAX);
        drop(queue);
        gauge!("rookery_store_queue_length", "queue" => "bodies").set(left);
        group
    }

    /// Refuses those that waited too long for the store: their clients were told, or have gone. Whether this process was stopped for
    /// a while says nothing of the store.
    fn split(&self, group: Vec<Waiting>) -> (Vec<Body>, Vec<Done>) {
        let (now, spent, deadline) = (Instant::now(), self.queue.lock().spent, self.settings.deadline);
        let is_late = |since: Instant, before: Duration| {
            since + deadline < now && spent.saturating_sub(before) >= deadline
        };
        let (mut bodies, mut dones) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
        let mut late = 0;
        for Waiting { body, since, spent: before, done, .. } in group {
            if !body.is_of_now(&self.store) {
                done(Err(ELSEWHERE));
            } else if !body.writes.is_empty() && is_late(since, before) {
                late += 1;
                done(Err(Error::new(Class::Unavailable, "the store was too slow for this write")));
            } else {
                bodies.push(body);
                dones.push(done);
            }
        }
        if late > 0 {
            tracing::warn!(
                bodies = late,
                "these writes were not stored in time; the requests behind them get an error"
            );
        }
        (bodies, dones)
    }
}

#[cfg(test)]
mod tests;
