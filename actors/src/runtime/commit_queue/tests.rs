//! The queue with a toy: an actor whose steps are numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rookery_cluster::entity::Shard;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::faults::{Fault, Faults};
use rookery_cluster::store::memory::Memory;
use rookery_cluster::store::{self, BatcherSettings, Fence, Fut, Mutate as _, Store, Transaction};

use tokio::sync::oneshot;

use super::super::actor::{Active, Idle};
use super::*;

static LIMIT: Limit = Limit { name: "toy_steps", steps: 4 };

/// What became of the steps, in the order in which they were taken.
type Taken = Arc<Mutex<Vec<(u32, Outcome)>>>;

struct Toy {
    commits: CommitQueue<u32>,
    taken: Taken,
    /// Writes a step again that the store did not take.
    insists: bool,
}

enum Msg {
    /// Commits this step.
    Add(u32),
    /// The same after this was done.
    Prepare(u32, Preparation),
    /// Says when all before is submitted.
    Read(oneshot::Sender<()>),
    /// There is no such entity any more.
    Refuse,
    /// Does this step in order.
    Follow(u32),
    Committed(Committed),
    /// Goes elsewhere.
    Leave,
}

impl From<Committed> for Msg {
    fn from(committed: Committed) -> Self {
        Self::Committed(committed)
    }
}

fn writes(step: u32) -> Ops {
    let mut ops = Ops::new();
    ops.put(Bytes::from(format!("step{step}")), Bytes::new());
    ops
}

impl Actor for Toy {
    type Msg = Msg;
    const QUEUE: u32 = 100;

    fn handle(&mut self, msg: Msg, me: &Handle<Self>) {
        let full = match msg {
            Msg::Add(step) => self.commits.commit(me, writes(step), step),
            Msg::Prepare(step, prepare) => {
                let commit = Commit { ops: writes(step), prepare: vec![prepare] };
                self.commits.commit(me, commit, step)
            }
            Msg::Read(told) => {
                let submitted = self.commits.all_submitted();
                tokio::spawn(async move {
                    if let Some(submitted) = submitted {
                        submitted.await.unwrap();
                    }
                    told.send(()).unwrap();
                });
                Ok(())
            }
            Msg::Refuse => {
                self.commits.refuse_held();
                Ok(())
            }
            Msg::Follow(step) => self.commits.follow(step),
            Msg::Committed(committed) => {
                self.commits.answered(committed);
                Ok(())
            }
            Msg::Leave => {
                let left = self.commits.take_all();
                self.taken.lock().extend(left.into_iter().map(|step| (step, Outcome::Elsewhere)));
                Ok(())
            }
        };
        if let Err(step) = full {
            self.taken.lock().push((step, Outcome::Never));
        }
        if self.insists
            && let Some((step, Outcome::Later)) = self.commits.front()
        {
            let ops = writes(*step);
            let seq = self.commits.hold_front();
            self.commits.submit(me, seq, ops);
        }
        while let Some(Settled { step, outcome, .. }) = self.commits.next() {
            self.taken.lock().push((step, outcome));
        }
    }

    fn idle(&self) -> Idle {
        Idle::Stay
    }
}

/// A node that owns all shards, in an epoch that the test sets.
struct Owner(AtomicU32);

impl Fence for Owner {
    fn join<'a>(&'a self, _: &'a mut dyn Transaction, _: &'a [Shard], _: u32) -> Fut<'a, store::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn epoch(&self, _: Shard) -> Option<u32> {
        Some(self.0.load(Ordering::Relaxed))
    }
}

struct Scene {
    store: Store,
    toy: Handle<Toy>,
    taken: Taken,
    faults: Arc<Faults>,
    owner: Arc<Owner>,
    wheel: Wheel,
}

impl Scene {
    fn new(insists: bool) -> Self {
        let faults = Arc::new(Faults::new(Arc::new(Memory::new())));
        let owner = Arc::new(Owner(AtomicU32::new(1)));
        let store = Store::fenced(faults.clone(), Seams::system(), owner.clone());
        let settings = BatcherSettings { pace: Duration::from_secs(1), ..BatcherSettings::default() };
        let (batcher, wheel, taken) =
            (Batcher::start(store.clone(), settings), Wheel::new(), Taken::default());
        let commits = CommitQueue::new(Entity::new("toy"), batcher, wheel.clone(), &LIMIT);
        let toy = Handle::new(Toy { commits, taken: taken.clone(), insists }, &Active::new());
        Self { store, toy, taken, faults, owner, wheel }
    }

    fn send(&self, msgs: impl IntoIterator<Item = Msg>) {
        for msg in msgs {
            assert!(self.toy.cast(msg).is_ok());
        }
    }

    /// Waits until so many steps were taken.
    async fn taken(&self, count: usize) -> Vec<(u32, Outcome)> {
        while self.taken.lock().len() < count {
            // The clock stands while anything runs, and then goes on to the next timer.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.taken.lock().clone()
    }
}

use Outcome::{Elsewhere, Later, Never, Stored};

#[tokio::test(start_paused = true)]
async fn steps_are_taken_in_order_each_after_its_commit() {
    let scene = Scene::new(false);
    scene.faults.script([Fault::Latency(Duration::from_secs(1))]);
    scene.send([Msg::Add(1), Msg::Follow(2), Msg::Add(3), Msg::Follow(4)]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(*scene.taken.lock(), [], "the commit is under way");
    assert_eq!(scene.taken(4).await, [(1, Stored), (2, Stored), (3, Stored), (4, Stored)]);
    scene.send([Msg::Follow(5)]);
    assert_eq!(scene.taken(5).await.last(), Some(&(5, Stored)), "nothing waits: at once");
}

#[tokio::test(start_paused = true)]
async fn what_builds_on_a_refused_write_is_refused_until_the_writer_has_heard() {
    let scene = Scene::new(false);
    scene.faults.script([Fault::Unreachable]);
    scene.faults.set_reachable(false);
    scene.send([Msg::Add(1), Msg::Follow(2)]);
    // The first commit has begun; this one waits for the next.
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.send([Msg::Add(3)]);
    let taken = scene.taken(3).await;
    assert_eq!(taken, [(1, Later), (2, Stored), (3, Later)]);
    scene.faults.set_reachable(true);
    scene.send([Msg::Add(4)]);
    assert_eq!(scene.taken(4).await.last(), Some(&(4, Stored)));
}

#[tokio::test(start_paused = true)]
async fn what_the_store_never_takes_is_said_so() {
    let scene = Scene::new(true);
    scene.faults.script([Fault::Refused]);
    scene.send([Msg::Add(1)]);
    assert_eq!(scene.taken(1).await, [(1, Never)]);
    scene.send([Msg::Add(2)]);
    assert_eq!(scene.taken(2).await.last(), Some(&(2, Stored)));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_must_be_stored_holds_the_others_until_it_is() {
    let scene = Scene::new(true);
    scene.faults.set_reachable(false);
    scene.send([Msg::Add(1), Msg::Follow(2)]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*scene.taken.lock(), []);
    scene.faults.set_reachable(true);
    assert_eq!(scene.taken(2).await, [(1, Stored), (2, Stored)]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_gives_the_step_back() {
    let scene = Scene::new(false);
    scene.send((1..=6).map(Msg::Add));
    let taken = scene.taken(6).await;
    assert_eq!(taken, [(5, Never), (6, Never), (1, Stored), (2, Stored), (3, Stored), (4, Stored)]);
}

#[tokio::test(start_paused = true)]
async fn of_what_the_fence_refused_nothing_is_said_for_a_while() {
    for leaves in [false, true] {
        let scene = Scene::new(false);
        scene.send([Msg::Add(1)]);
        assert_eq!(scene.taken(1).await, [(1, Stored)]);
        scene.send([Msg::Add(2), Msg::Follow(3)]);
        tokio::time::sleep(Duration::from_millis(100)).await;
        scene.owner.0.store(2, Ordering::Relaxed); // the shard was elsewhere meanwhile
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(scene.taken.lock().len(), 1, "the wheel has not turned");
        let after = if leaves {
            // The actor has heard that it lives elsewhere: the answer finds nothing.
            scene.send([Msg::Leave]);
            [(2, Elsewhere), (3, Elsewhere)]
        } else {
            [(2, Elsewhere), (3, Stored)]
        };
        (0..6).for_each(|_| scene.wheel.tick());
        assert_eq!(scene.taken(3).await[1..], after);
    }
}

/// A preparation that ends when the test says so, with an edit that notes `key`.
fn prepares(key: &'static [u8]) -> (oneshot::Sender<store::Result<()>>, Preparation) {
    let (end, wait) = oneshot::channel();
    let wait = Mutex::new(Some(wait));
    let prepare: Preparation = Arc::new(move || {
        let wait = wait.lock().take().unwrap();
        Box::pin(async move {
            wait.await.unwrap()?;
            let edit = move |tx: &mut dyn Transaction| {
                tx.set(key, b"");
            };
            Ok(vec![Edit::new(move |tx| {
                edit(tx);
                Box::pin(std::future::ready(Ok(())))
            })])
        })
    });
    (end, prepare)
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_preparation_is_written_behind_it() {
    let scene = Scene::new(false);
    let (end, prepare) = prepares(b"edit");
    let (told, mut read) = oneshot::channel();
    scene.send([Msg::Add(1), Msg::Prepare(2, prepare), Msg::Add(3), Msg::Read(told), Msg::Follow(4)]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*scene.taken.lock(), [(1, Stored)]);
    assert!(read.try_recv().is_err() && scene.store.get(b"step3").await.unwrap().is_none());
    end.send(Ok(())).unwrap();
    assert_eq!(scene.taken(4).await, [(1, Stored), (2, Stored), (3, Stored), (4, Stored)]);
    for key in ["step2", "step3", "edit"] {
        assert!(scene.store.get(key.as_bytes()).await.unwrap().is_some(), "{key}");
    }
    read.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_preparation_that_fails_is_the_end_of_its_own_step_only() {
    let scene = Scene::new(false);
    let (end, fails) = prepares(b"edit");
    let (gone, panics) = prepares(b"edit");
    end.send(Err(store::Error::new(Class::Unavailable, "not now"))).unwrap();
    drop(gone);
    scene.send([Msg::Prepare(1, fails), Msg::Prepare(2, panics), Msg::Add(3)]);
    assert_eq!(scene.taken(3).await, [(1, Later), (2, Never), (3, Stored)]);
    assert!(scene.store.get(b"step1").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn nothing_held_is_written_for_an_entity_that_is_gone() {
    let scene = Scene::new(false);
    let (end, prepare) = prepares(b"edit");
    scene.send([Msg::Prepare(1, prepare), Msg::Add(2), Msg::Refuse]);
    assert_eq!(scene.taken(2).await, [(1, Never), (2, Never)]);
    drop(end.send(Ok(())));
    scene.send([Msg::Add(3)]);
    assert_eq!(scene.taken(3).await.last(), Some(&(3, Stored)));
    assert!(scene.store.get(b"step1").await.unwrap().is_none());
    assert!(scene.store.get(b"step2").await.unwrap().is_none());
}
