//! What the batcher does when the store refuses, or does not answer.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::seams::Seams;
use crate::store::faults::{Fault, Faults};
use crate::store::memory::Memory;
use crate::store::runner::Fence;
use bytes::Bytes;

use crate::entity::Entity;
use crate::store::{Fut, Isolation, Mutate as _, Transaction};

/// Whether a commit without an answer was done or not, its writer hears nothing until the store has said; then it is done.
#[tokio::test(start_paused = true)]
async fn a_commit_in_doubt_has_no_outcome_until_the_store_says() {
    for fault in [Fault::Mute, Fault::Hang, Fault::UnknownDone, Fault::UnknownLost] {
        let faults = Arc::new(Faults::new(Arc::new(Memory::new())));
        let store = Store::new(faults.clone(), Seams::system());
        let batcher = Batcher::start(store.clone(), Settings::default());
        faults.script([fault]);
        let mut ops = Ops::new();
        ops.put(Bytes::from_static(b"key"), Bytes::from_static(b"value"));
        let mut write = std::pin::pin!(batcher.write(Writes::new(&Entity::new("juliet@localhost"), ops)));
        let a_bit = Duration::from_millis(1);
        assert!(tokio::time::timeout(a_bit, write.as_mut()).await.is_err(), "{fault:?}");
        faults.set_reachable(false);
        // Long after every deadline.
        let early = tokio::time::timeout(Duration::from_secs(60), write.as_mut()).await;
        assert!(early.is_err(), "{fault:?}: {early:?}");
        faults.set_reachable(true);
        write.await.unwrap();
        assert_eq!(store.get(b"key").await.unwrap().as_deref(), Some(b"value".as_slice()));
    }
}

/// A node that owns everything, in an epoch that the test sets.
struct Owner(AtomicU32);

impl Fence for Owner {
    fn join<'a>(&'a self, _: &'a mut dyn Transaction, _: &'a [Shard], _: u32) -> Fut<'a, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn epoch(&self, _: Shard) -> Option<u32> {
        Some(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_meant_for_another_epoch_is_not_written() {
    let owner = Arc::new(Owner(AtomicU32::new(1)));
    let store = Store::fenced(Arc::new(Memory::new()), Seams::system(), owner.clone());
    let pace = Duration::from_secs(1);
    let batcher = Batcher::start(store.clone(), Settings { pace, ..Settings::default() });
    let entity = Entity::new("juliet@localhost");
    let write = |key: &'static [u8]| {
        let mut ops = Ops::new();
        ops.put(Bytes::from_static(key), Bytes::new());
        batcher.write(Writes::new(&entity, ops))
    };
    write(b"first").await.unwrap();
    // This waits for its turn, and meanwhile the shard goes and comes back.
    let second = write(b"second");
    let change = async { owner.0.store(3, Ordering::Relaxed) };
    let (second, ()) = tokio::join!(second, change);
    assert_eq!(second.unwrap_err().class, Class::Fenced);
    write(b"third").await.unwrap();
    let there = [b"first".as_slice(), b"second", b"third"].map(|key| store.get(key));
    let [first, second, third] = there;
    assert!(first.await.unwrap().is_some() && third.await.unwrap().is_some());
    assert_eq!(second.await.unwrap(), None);
}

/// A process that was stopped while writes waited has not heard that the store is slow.
#[tokio::test(start_paused = true)]
async fn a_stopped_process_refuses_nothing_when_it_goes_on() {
    let store = Store::new(Arc::new(Memory::new()), Seams::system());
    let pace = Duration::from_secs(1);
    let batcher = Batcher::start(store.clone(), Settings { pace, ..Settings::default() });
    let entity = Entity::new("juliet@localhost");
    batcher.write(Writes::new(&entity, put("first".to_owned()))).await.unwrap();
    let second = batcher.write(Writes::new(&entity, put("second".to_owned())));
    let stop = tokio::time::advance(Duration::from_secs(60));
    let (second, ()) = tokio::join!(second, stop);
    second.unwrap();
    assert!(store.get(b"second").await.unwrap().is_some());
}

fn put(key: String) -> Ops {
    let mut ops = Ops::new();
    ops.put(key.into(), Bytes::from_static(b"value"));
    ops
}

/// Removals of ranges cost a transaction more than their bytes. A thousand of them were one group that the store refused whole.
#[tokio::test(start_paused = true)]
async fn a_group_is_counted_as_the_store_counts() {
    let store = Store::new(Arc::new(Memory::new()), Seams::system());
    let batcher = Batcher::start(store, Settings::default());
    let entity = Entity::new("juliet@localhost");
    let (outcome, mut outcomes) = tokio::sync::mpsc::channel(2_000);
    for _ in 0..1_500 {
        let mut ops = Ops::new();
        ops.delete_range(Bytes::from_static(b"a"), Bytes::from(vec![b'b'; 600]));
        let outcome = outcome.clone();
        batcher.submit(Writes::new(&entity, ops), move |done| drop(outcome.try_send(done))).unwrap();
    }
    for _ in 0..1_500 {
        outcomes.recv().await.unwrap().unwrap();
    }
}

/// What the store refuses is one body; those of its group are written, in their order.
#[tokio::test(start_paused = true)]
async fn a_refused_body_fails_alone() {
    let faults = Arc::new(Faults::new(Arc::new(Memory::new())));
    let store = Store::new(faults.clone(), Seams::system());
    let batcher = Batcher::start(store.clone(), Settings::default());
    let entity = Entity::new("juliet@localhost");
    let (outcome, mut outcomes) = tokio::sync::mpsc::channel(8);
    // All four; the first two; the others; the third; the fourth.
    faults.script([Fault::Refused, Fault::None, Fault::Refused, Fault::Refused, Fault::None]);
    for name in ["a", "b", "c", "d"] {
        let outcome = outcome.clone();
        let done = move |done: Result<()>| {
            outcome.try_send((name, done.err().map(|e| e.class))).unwrap();
        };
        batcher.submit(Writes::new(&entity, put(name.into())), done).unwrap();
    }
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(outcomes.recv().await.unwrap());
    }
    assert_eq!(told, [("a", None), ("b", None), ("c", Some(Class::TooLarge)), ("d", None)]);
    for (name, there) in [("b", true), ("c", false), ("d", true)] {
        assert_eq!(store.get(name.as_bytes()).await.unwrap().is_some(), there, "{name}");
    }
}

/// What builds on a refused body is refused with it, until its writer has heard; those of others are written.
#[tokio::test(start_paused = true)]
async fn what_builds_on_a_refused_body_is_refused() {
    let faults = Arc::new(Faults::new(Arc::new(Memory::new())));
    let store = Store::new(faults.clone(), Seams::system());
    let batcher = Batcher::start(store.clone(), Settings::default());
    let entity = Entity::new("juliet@localhost");
    let mut line = Line::default();
    let writes = |name: &str, line: &Line| Writes::new(&entity, put(name.to_owned())).in_line(line);
    let (outcome, mut outcomes) = tokio::sync::mpsc::channel(8);
    faults.script([Fault::Refused, Fault::Refused, Fault::None]);
    let other = Line::default();
    for (name, line) in [("a", &line), ("b", &other), ("c", &line)] {
        let outcome = outcome.clone();
        let done = move |done: Result<()>| outcome.try_send((name, done.is_ok())).unwrap();
        batcher.submit(writes(name, line), done).unwrap();
    }
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(outcomes.recv().await.unwrap());
    }
    told.sort_unstable();
    assert_eq!(told, [("a", false), ("b", true), ("c", false)]);
    // Of one of the two it has heard, of the other not yet.
    line.heard();
    assert!(batcher.write(writes("d", &line)).await.is_err());
    (0..2).for_each(|_| line.heard());
    batcher.write(writes("e", &line)).await.unwrap();
    for (name, there) in [("a", false), ("b", true), ("c", false), ("d", false), ("e", true)] {
        assert_eq!(store.get(name.as_bytes()).await.unwrap().is_some(), there, "{name}");
    }
}

/// What could never be committed is refused at once, and spoils no group.
#[tokio::test]
async fn a_broken_rule_is_refused_at_once() {
    let batcher = Batcher::start(Store::new(Arc::new(Memory::new()), Seams::system()), Settings::default());
    let mut ops = Ops::new();
    ops.delete_range(Bytes::from_static(b"b"), Bytes::from_static(b"a"));
    let refused = batcher.submit(Writes::new(&Entity::new("juliet@localhost"), ops), |_| ());
    assert_eq!(refused.unwrap_err().class, Class::Misuse);
}

/// What an edit finds is what the bodies of its own group have written, and those before.
#[tokio::test(start_paused = true)]
async fn edits_see_what_is_stored_and_are_committed_with_their_writes() {
    let store = Store::new(Arc::new(Memory::new()), Seams::system());
    let batcher = Batcher::start(store.clone(), Settings::default());
    let entity = Entity::new("juliet@localhost");
    let set = |key: &'static [u8], value: &'static [u8]| {
        let mut ops = Ops::new();
        ops.put(Bytes::from_static(key), Bytes::from_static(value));
        Writes::new(&entity, ops)
    };
    let double = Edit::new(|tx| {
        Box::pin(async move {
            let value = tx.get(b"a", Isolation::Serializable).await?.unwrap_or_default();
            tx.set(b"b", &[&value[..], &value[..]].concat());
            Ok(())
        })
    });
    let first = batcher.write(set(b"a", b"1"));
    let second = batcher.write(set(b"c", b"3").with_edits(vec![double]));
    let (first, second) = tokio::join!(first, second);
    first.unwrap();
    second.unwrap();
    assert_eq!(store.get(b"b").await.unwrap().as_deref(), Some(b"11".as_slice()));
}

/// One that cannot be done is refused alone, and nothing of it is written.
#[tokio::test(start_paused = true)]
async fn an_edit_that_fails_takes_its_own_writes_with_it_and_no_others() {
    let store = Store::new(Arc::new(Memory::new()), Seams::system());
    let batcher = Batcher::start(store.clone(), Settings::default());
    let entity = Entity::new("juliet@localhost");
    let set = |key: &'static [u8]| {
        let mut ops = Ops::new();
        ops.put(Bytes::from_static(key), Bytes::new());
        Writes::new(&entity, ops)
    };
    let fails = Edit::new(|_| Box::pin(std::future::ready(Err(Error::new(Class::Corrupt, "damaged")))));
    let writes = [set(b"a"), set(b"b").with_edits(vec![fails]), set(b"c")];
    let [a, b, c] = writes.map(|writes| batcher.write(writes));
    let (a, b, c) = tokio::join!(a, b, c);
    assert!(a.is_ok() && c.is_ok());
    assert_eq!(b.unwrap_err().class, Class::Corrupt);
    assert!(store.get(b"a").await.unwrap().is_some() && store.get(b"c").await.unwrap().is_some());
    assert!(store.get(b"b").await.unwrap().is_none());
}
