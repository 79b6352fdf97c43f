//! Nodes that fall silent.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::*;
use super::world::*;

/// From the beginning of the silence until a says that b is dead, and until all shards are taken.
async fn takeover(world: &World, silent: &str, sum: usize) -> (Duration, Duration) {
    let dead = || world.mesh("a").map().member(&id(silent)).unwrap().status.state() == State::Dead;
    let detected = world.until("dead", Duration::from_secs(30), dead).await;
    let living =
        || world.nodes().filter(|(name, _)| *name != silent).map(|(_, node)| node.mesh.map().held().count());
    let taken = world.until("taken", Duration::from_secs(5), || living().sum::<usize>() == sum).await;
    (detected, taken)
}

fn soon(world: &World, detected: Duration) {
    let death = world.timing.death;
    // The last beat was committed up to a second before the silence began.
    let times = death - Duration::from_millis(1100)..death + Duration::from_secs(2);
    assert!(times.contains(&detected), "{detected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_dead_in_time_and_its_shards_are_taken() {
    let mut world = World::of(&["a", "b", "c"]).await;
    let epochs: Vec<u32> = world.mesh("b").map().held().map(|(_, epoch)| epoch.0).collect();
    let shards: Vec<Shard> = world.mesh("b").map().held().map(|(shard, _)| shard).collect();
    let gone = world.kill("b").unwrap();
    let store = gone.mesh.store();
    drop(gone.mesh); // its tasks end
    let (detected, taken) = takeover(&world, "b", 1024).await;
    soon(&world, detected);
    assert!(taken < Duration::from_secs(1), "{taken:?}");
    for (shard, epoch) in shards.iter().zip(epochs) {
        let now = world.nodes().find_map(|(_, node)| node.mesh.map().epoch(*shard)).unwrap();
        assert!(now.0 > epoch);
    }
    assert_eq!(write(&store, shards[0], b"late").await.unwrap_err().class, Class::Unavailable);
    assert_eq!(stored(&world, shards[0]).await, None);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stood_still_cannot_write_and_learns_that_it_is_dead() {
    let world = World::of(&["a", "b", "c"]).await;
    let shard = held_by(world.mesh("b"));
    // One write is on its way to the store when the process stops, another begins when it goes on.
    let (gate, store) = (world.node("b").gate.clone(), world.mesh("b").store());
    gate.freeze(true);
    let late = tokio::spawn({
        let store = store.clone();
        async move { write(&store, shard, b"late").await }
    });
    pass(Duration::from_millis(1)).await;
    let (detected, taken) = takeover(&world, "b", 1024).await;
    soon(&world, detected);
    assert!(taken < Duration::from_secs(1), "{taken:?}");
    let owner = ["a", "c"].into_iter().find(|name| world.mesh(name).map().epoch(shard).is_some()).unwrap();
    write(&world.mesh(owner).store(), shard, b"new").await.unwrap();
    gate.freeze(false);
    assert!(late.await.unwrap().is_err());
    assert!(write(&store, shard, b"later").await.is_err());
    world.until("fenced", Duration::from_secs(3), || world.mesh("b").standing() == Standing::Fenced).await;
    assert_eq!(write(&store, shard, b"latest").await.unwrap_err().class, Class::Fenced);
    assert_eq!(stored(&world, shard).await.unwrap(), b"new".as_slice());
    assert_eq!(world.mesh("b").map().held().count(), 0);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_from_the_store_stops_before_the_others_take_over() {
    let world = World::of(&["a", "b", "c"]).await;
    let (shard, store) = (held_by(world.mesh("b")), world.mesh("b").store());
    let mut lease = world.mesh("b").lease().watch();
    assert!(*lease.borrow_and_update());
    let before = tokio::time::Instant::now();
    world.node("b").faults.set_reachable(false);
    lease.changed().await.unwrap();
    let stopped = before.elapsed();
    assert!(!*lease.borrow() && !world.mesh("b").lease().holds());
    assert!(stopped <= world.timing.lease && stopped > world.timing.lease - Duration::from_millis(1200));
    // Without its lease it does not even ask the store.
    let asked = world.node("b").gate.counts();
    let written = write(&store, shard, b"late").await.unwrap_err();
    assert_eq!(written.class, Class::Unavailable);
    let (reads, commits) = world.node("b").gate.counts();
    assert!(reads - asked.0 <= 60 && commits - asked.1 <= 60, "beats and map only");
    world.until("taken", Duration::from_secs(8), || world.shares()[0] + world.shares()[2] == 1024).await;
    world.node("b").faults.set_reachable(true);
    world.until("fenced", Duration::from_secs(3), || world.mesh("b").standing() == Standing::Fenced).await;
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_ends_the_lease_at_most_for_a_while() {
    let world = World::of(&["a", "b"]).await;
    let (shard, store) = (held_by(world.mesh("b")), world.mesh("b").store());
    world.node("b").faults.set_reachable(false);
    world.until("parked", Duration::from_secs(5), || !world.mesh("b").lease().holds()).await;
    // The write waits for the lease to come back.
    let waiting = tokio::spawn(async move { write(&store, shard, b"waited").await });
    pass(Duration::from_millis(200)).await;
    world.node("b").faults.set_reachable(true);
    waiting.await.unwrap().unwrap();
    assert!(world.mesh("b").lease().holds());
    pass(Duration::from_secs(10)).await;
    assert_eq!((world.shares(), world.mesh("b").standing()), (vec![512, 512], Standing::Active));
    world.check();
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_one_can_bury_the_other() {
    let mut world = World::of(&["a", "b"]).await;
    drop(world.kill("b"));
    let (detected, taken) = takeover(&world, "b", 1024).await;
    soon(&world, detected);
    assert!(taken < Duration::from_secs(1), "{taken:?}");
    world.check();
}

#[tokio::test(start_paused = true)]
async fn of_four_nodes_three_may_die_at_once_or_in_a_row() {
    let mut world = World::of(&["a", "b", "c", "d"]).await;
    for name in ["b", "c", "d"] {
        drop(world.kill(name));
        pass(Duration::from_millis(700)).await;
    }
    let took = world.until("taken", Duration::from_secs(20), || world.shares() == [1024]).await;
    assert!(took < Duration::from_secs(7), "{took:?}");
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stood_still_for_all_kills_nobody() {
    let world = World::of(&["a", "b", "c"]).await;
    let shares = world.shares();
    world.nodes().for_each(|(_, node)| node.faults.set_reachable(false));
    pass(Duration::from_secs(20)).await;
    assert!(world.nodes().all(|(_, node)| !node.mesh.lease().holds()));
    for (_, node) in world.nodes() {
        // They come back one after the other.
        node.faults.set_reachable(true);
        pass(Duration::from_secs(2)).await;
    }
    pass(Duration::from_secs(10)).await;
    assert_eq!(world.shares(), shares);
    assert!(world.nodes().all(|(_, node)| node.mesh.standing() == Standing::Active));
    world.check();
}

#[tokio::test(start_paused = true)]
async fn who_answers_and_does_not_beat_is_given_more_time_and_not_for_ever() {
    let mut world = World::of(&["a", "b", "c"]).await;
    world.network.liars.store(true, Ordering::Relaxed);
    drop(world.kill("b"));
    let (detected, _) = takeover(&world, "b", 1024).await;
    let patience = world.timing.patience;
    assert!(detected > patience - Duration::from_secs(2) && detected < patience + Duration::from_secs(2));
    world.check();
}

#[tokio::test(start_paused = true)]
async fn votes_for_an_older_beat_count_for_nothing() {
    let world = World::of(&["a", "b", "c"]).await;
    let (core, other) = (&world.mesh("a").core, &world.mesh("c").core);
    let beat = || async {
        let store = &core.store;
        store.read(|tx| Box::pin(async move { nodes::beat(&mut **tx, &id("b")).await })).await.unwrap()
    };
    let b = world.mesh("b").generation();
    let old = beat().await;
    assert!(!core.vote(&id("b"), b, old, 2).await.unwrap());
    pass(Duration::from_secs(2)).await; // b beats
    let new = beat().await;
    assert_ne!(old, new);
    assert!(!other.vote(&id("b"), b, old, 2).await.unwrap(), "it has beaten since");
    assert!(!other.vote(&id("b"), b, new, 2).await.unwrap(), "the other vote is about another beat");
    // The same voter twice is one vote; another makes two.
    assert!(!other.vote(&id("b"), b, new, 2).await.unwrap());
    assert!(core.vote(&id("b"), b, new, 2).await.unwrap());
    world.until("fenced", Duration::from_secs(3), || world.mesh("b").standing() == Standing::Fenced).await;
    // A dead node has no vote.
    let voted = world.mesh("b").core.vote(&id("c"), world.mesh("c").generation(), new, 1).await;
    assert_eq!(voted.unwrap_err().class, Class::Fenced);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_bury_a_node_but_not_by_mistake() {
    let mut world = World::of(&["a", "b", "c"]).await;
    pass(Duration::from_secs(8)).await;
    assert!(matches!(world.mesh("a").evict(&id("b"), false).await, Err(Error::Beats(_))));
    assert!(matches!(world.mesh("a").evict(&id("x"), false).await, Err(Error::NoNode(_))));
    world.mesh("a").evict(&id("b"), true).await.unwrap();
    world.until("fenced", Duration::from_secs(2), || world.mesh("b").standing() == Standing::Fenced).await;
    drop(world.kill("b"));
    world.settled().await;
    assert_eq!(world.shares(), [512, 512]);
    world.check();
}
