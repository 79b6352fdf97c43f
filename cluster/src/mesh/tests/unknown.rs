//! Commits of which nobody knows whether they happened.

use std::time::Duration;

use super::super::*;
use super::world::*;
use crate::store::faults::Fault;

const UNKNOWN: [&[Fault]; 4] = [
    &[Fault::UnknownDone],
    &[Fault::UnknownLost],
    &[Fault::UnknownLate],
    &[Fault::UnknownDone, Fault::Conflict, Fault::UnknownLate, Fault::UnknownLost],
];

#[tokio::test(start_paused = true)]
async fn a_claim_holds_what_the_store_says_whatever_became_of_the_first_attempt() {
    for script in UNKNOWN {
        let world = World::of(&["a", "b"]).await;
        let (core, faults) = (&world.mesh("a").core, &world.node("a").faults);
        let shard = held_by(world.mesh("a"));
        let before = world.mesh("a").map().epoch(shard).unwrap();
        core.guard.forget([shard]);
        faults.script(script.iter().copied());
        assert_eq!(core.claim(&[shard]).await.unwrap(), 1);
        let epoch = world.mesh("a").map().epoch(shard).unwrap();
        assert!(epoch > before);
        // What arrives late changes nothing any more.
        assert!(faults.release().await.into_iter().all(|late| late.is_err()), "{script:?}");
        core.read_map().await.unwrap();
        let map = world.mesh("b").map();
        world.mesh("b").refresh_now().await;
        let home = world.mesh("b").map().home(shard);
        assert_eq!(
            home,
            Home::There { node: id("a"), generation: world.mesh("a").generation(), epoch },
            "{script:?}"
        );
        assert_eq!((world.mesh("a").map().epoch(shard), map.epoch(shard)), (Some(epoch), None));
        write(&world.mesh("a").store(), shard, b"x").await.unwrap();
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_given_up_in_doubt_is_made_again() {
    let world = World::of(&["a", "b"]).await;
    let (core, faults) = (&world.mesh("a").core, &world.node("a").faults);
    let shard = held_by(world.mesh("a"));
    let before = world.mesh("a").map().epoch(shard).unwrap();
    core.guard.forget([shard]);
    core.publish(None);
    // The commit never answers; the call ends at its deadline. Meanwhile the node's own rounds claim the shard.
    faults.script([Fault::Hang]);
    assert_eq!(core.claim(&[shard]).await.unwrap_err().class, Class::MaybeCommitted);
    world
        .until("claimed", Duration::from_secs(5), || world.mesh("a").map().epoch(shard) > Some(before))
        .await;
    write(&world.mesh("a").store(), shard, b"x").await.unwrap();
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_release_in_doubt_ends_with_one_owner() {
    for script in UNKNOWN {
        let mut world = World::of(&["a"]).await;
        world.node("a").faults.script(script.iter().copied());
        world.start("b").await;
        world.settled().await;
        assert_eq!(world.shares(), [512, 512]);
        assert!(world.node("a").faults.release().await.into_iter().all(|late| late.is_err()), "{script:?}");
        pass(Duration::from_secs(5)).await;
        assert_eq!(world.shares(), [512, 512]);
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_vote_counts_once_whatever_became_of_the_first_attempt() {
    for script in UNKNOWN {
        let mut world = World::of(&["a", "b", "c"]).await;
        let b = world.kill("b").unwrap().mesh.generation();
        let core = &world.mesh("a").core;
        let store = &core.store;
        let beat =
            store.read(|tx| Box::pin(async move { nodes::beat(&mut **tx, &id("b")).await })).await.unwrap();
        world.node("a").faults.script(script.iter().copied());
        // Twice the vote of one node is one vote …
        assert!(!core.vote(&id("b"), b, beat, 2).await.unwrap());
        assert!(!core.vote(&id("b"), b, beat, 2).await.unwrap());
        // … and the second one's makes the death, also if it does not hear of it.
        world.node("c").faults.script(script.iter().copied());
        assert!(world.mesh("c").core.vote(&id("b"), b, beat, 2).await.unwrap());
        for name in ["a", "c"] {
            assert!(
                world.node(name).faults.release().await.into_iter().all(|late| late.is_err()),
                "{script:?}"
            );
        }
        world.settled().await;
        assert_eq!(world.shares(), [512, 512]);
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_in_doubt_has_one_generation() {
    for script in UNKNOWN {
        let store = |world: &World, seed| {
            let faults = std::sync::Arc::new(crate::store::faults::Faults::new(world.memory.clone()));
            faults.script(script.iter().copied());
            Store::new(faults, seams(seed))
        };
        let world = World::new(1);
        let config = Config {
            node: id("a"),
            address: String::new(),
            public: String::new(),
            zone: String::new(),
            weight: 1,
            version: String::new(),
            knows: Knows::default(),
            timing: Timing::default(),
        };
        assert_eq!(announce(&store(&world, 1), &config).await.unwrap(), 1, "{script:?}");
        assert_eq!(announce(&store(&world, 2), &config).await.unwrap(), 2, "{script:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn beats_in_doubt_keep_the_node_alive() {
    let world = World::of(&["a", "b"]).await;
    let script = UNKNOWN.concat();
    world.node("b").faults.script(script.iter().copied().cycle().take(40));
    pass(Duration::from_secs(15)).await;
    assert!(world.node("b").faults.struck() > 20);
    world.node("b").faults.release().await;
    assert_eq!(world.mesh("b").standing(), Standing::Active);
    assert_eq!(world.shares(), [512, 512]);
    world.check();
}
