//! What the fence lets through, at what cost, and what not: each case of the argument in `fence.rs`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::world::*;
use crate::store::batcher::Settings;
use crate::store::faults::Fault;
use crate::store::{Batcher, Isolation, Op, Ops, Transaction, Writes};

#[tokio::test(start_paused = true)]
async fn an_owners_write_costs_one_commit_and_no_read() {
    let world = World::of(&["a", "b"]).await;
    let (shard, store) = (held_by(world.mesh("a")), world.mesh("a").store());
    for value in [b"1", b"2", b"3"] {
        let before = world.node("a").gate.counts();
        write(&store, shard, value).await.unwrap();
        let after = world.node("a").gate.counts();
        assert_eq!((after.0 - before.0, after.1 - before.1), (0, 1));
    }
    assert_eq!(stored(&world, shard).await.unwrap(), b"3".as_slice());
}

#[tokio::test(start_paused = true)]
async fn what_was_claimed_after_the_last_beat_is_written_at_the_second_attempt() {
    let world = World::of(&["a", "b"]).await;
    let core = &world.mesh("a").core;
    let shard = held_by(world.mesh("a"));
    // Given up and claimed again, with no beat in between.
    core.guard.forget([shard]);
    assert_eq!(core.claim(&[shard]).await.unwrap(), 1);
    // What was written at the version of the claim conflicts, the claim as well; from then on nothing does.
    for (value, cost) in [(b"x", (2, 2)), (b"y", (0, 1))] {
        let before = world.node("a").gate.counts();
        write(&world.mesh("a").store(), shard, value).await.unwrap();
        let after = world.node("a").gate.counts();
        assert_eq!((after.0 - before.0, after.1 - before.1), cost);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_sees_what_this_node_wrote_before_it() {
    let world = World::of(&["a"]).await;
    let (shard, store) = (held_by(world.mesh("a")), world.mesh("a").store());
    for expected in [None, Some(b"1".as_slice()), Some(b"2".as_slice())] {
        let next: &[u8] = if expected.is_none() { b"1" } else { b"2" };
        let key = row(shard);
        let key = &key;
        let seen = store.write(Options { shards: vec![shard], ..Options::default() }, |tx| {
            Box::pin(async move {
                // A read that conflicts with nothing, at a version that nobody asked the store for.
                let seen = tx.get_at(key).await?;
                tx.set(key, next);
                Ok(seen)
            })
        });
        assert_eq!(seen.await.unwrap().as_deref(), expected);
    }
}

trait Peek {
    fn get_at<'a>(&'a mut self, key: &'a [u8]) -> Fut<'a, crate::store::Result<Option<Bytes>>>;
}

impl Peek for crate::store::Tx<'_> {
    fn get_at<'a>(&'a mut self, key: &'a [u8]) -> Fut<'a, crate::store::Result<Option<Bytes>>> {
        Transaction::get(&mut **self, key, Isolation::Snapshot)
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_under_way_does_not_outlive_a_release() {
    let world = World::of(&["a", "b"]).await;
    let (shard, store) = (held_by(world.mesh("b")), world.mesh("b").store());
    let (gate, epoch) = (world.node("b").gate.clone(), world.mesh("b").map().epoch(shard));
    gate.freeze(true);
    let late = tokio::spawn(async move { write(&store, shard, b"late").await });
    pass(Duration::from_millis(1)).await;
    // Everything of b hangs; what its release would write is written past the gate.
    let plain = Store::new(world.memory.clone(), seams(1));
    let released = plain.write(Options::default(), |tx| {
        Box::pin(async move {
            let owner = nodes::owners_of(&mut **tx, &[shard]).await?.remove(0).unwrap();
            nodes::put_owner(&mut **tx, shard, &nodes::Owner { released: true, ..owner });
            Ok(())
        })
    });
    released.await.unwrap();
    gate.freeze(false);
    assert_eq!(late.await.unwrap().unwrap_err().class, Class::Fenced);
    assert_eq!(stored(&world, shard).await, None);
    // The write that met the truth has the map read; b claims again, in another epoch.
    let claimed = || world.mesh("b").map().epoch(shard) > epoch;
    world.until("claimed again", Duration::from_secs(9), claimed).await;
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_write_for_a_shard_of_another_does_not_reach_the_store() {
    let world = World::of(&["a", "b"]).await;
    let before = world.node("a").gate.counts();
    let theirs = write(&world.mesh("a").store(), held_by(world.mesh("b")), b"x").await;
    assert_eq!(theirs.unwrap_err().class, Class::Fenced);
    assert_eq!(world.node("a").gate.counts(), before);
}

#[tokio::test(start_paused = true)]
async fn the_dead_write_nothing() {
    let world = World::of(&["a", "b"]).await;
    let (shard, store) = (held_by(world.mesh("b")), world.mesh("b").store());
    world.mesh("a").evict(&id("b"), true).await.unwrap();
    // The node has not beaten since; neither kind of write goes through.
    assert_eq!(write(&store, shard, b"x").await.unwrap_err().class, Class::Fenced);
    assert_eq!(write_plain(&store).await.unwrap_err().class, Class::Fenced);
    assert_eq!(stored(&world, shard).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_changes_costs_one_more_attempt_and_no_error() {
    let world = World::of(&["a", "b"]).await;
    let (shard, store) = (held_by(world.mesh("a")), world.mesh("a").store());
    world.mesh("b").drain(&id("a")).await.unwrap();
    let before = world.node("a").gate.counts();
    write(&store, shard, b"1").await.unwrap();
    write(&store, shard, b"2").await.unwrap();
    let after = world.node("a").gate.counts();
    // The first met the new status, read status and owner, and proved a newer version for the second.
    assert_eq!((after.0 - before.0, after.1 - before.1), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_version_too_old_and_a_conflict_cost_one_more_attempt() {
    let world = World::of(&["a"]).await;
    let (shard, store) = (held_by(world.mesh("a")), world.mesh("a").store());
    world.memory.pass(Duration::from_secs(6)); // as if the version had aged in the store alone
    write(&store, shard, b"1").await.unwrap();
    world.node("a").faults.script([Fault::TooOld, Fault::Conflict]);
    write(&store, shard, b"2").await.unwrap();
    assert_eq!(stored(&world, shard).await.unwrap(), b"2".as_slice());
}

#[tokio::test(start_paused = true)]
async fn in_a_group_only_the_writes_for_lost_shards_fail() {
    let world = World::of(&["a", "b"]).await;
    let batcher = Batcher::start(world.mesh("a").store(), Settings::default());
    let (own, other) = (held_by(world.mesh("a")), held_by(world.mesh("b")));
    let tell = Arc::new(Mutex::new(Vec::new()));
    for shard in [own, other, own] {
        let ops = Ops::from_iter([Op::Set { key: row(shard), value: Bytes::from_static(b"x") }]);
        let tell = tell.clone();
        let done =
            move |result: crate::store::Result<()>| tell.lock().push((shard, result.map_err(|e| e.class)));
        batcher.submit(Writes { ops, edits: Vec::new(), shard, line: None }, done).unwrap();
    }
    batcher.flush().await.unwrap();
    let told = tell.lock().clone();
    assert_eq!(told, [(other, Err(Class::Fenced)), (own, Ok(())), (own, Ok(()))]);
    assert_eq!((stored(&world, own).await.is_some(), stored(&world, other).await), (true, None));
}
