//! Joining, sharing, moving, leaving.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::*;
use super::world::*;

#[tokio::test(start_paused = true)]
async fn three_nodes_share_all_shards_evenly() {
    let world = World::of(&["a", "b", "c"]).await;
    let mut shares = world.shares();
    shares.sort_unstable();
    assert_eq!(shares, [341, 341, 342]);
    // All agree where each shard is at home.
    for shard in (0..1024).map(Shard) {
        let homes: Vec<String> = world
            .nodes()
            .map(|(name, node)| match node.mesh.map().home(shard) {
                Home::Here { epoch } => format!("{name} {epoch}"),
                Home::There { node, epoch, .. } => format!("{node} {epoch}"),
                Home::Nobody => "nobody".into(),
            })
            .collect();
        assert!(homes.windows(2).all(|pair| pair[0] == pair[1]) && homes[0] != "nobody", "{homes:?}");
    }
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_takes_its_share_and_little_else_moves() {
    let mut world = World::of(&["a", "b", "c"]).await;
    let before: Vec<Home> = (0..1024).map(|n| world.mesh("a").map().home(Shard(n))).collect();
    let joined = world.join("d").await;
    pass(Duration::from_secs(3)).await;
    // The node owns nothing, and the others move nothing, before it is activated.
    assert_eq!((joined.mesh.standing(), joined.mesh.map().held().count()), (Standing::Joining, 0));
    assert_eq!(world.mesh("a").status().moving, 0);
    drop(joined);
    world.start("d").await;
    world.settled().await;
    assert_eq!(world.shares(), [256; 4]);
    let after: Vec<Home> = (0..1024).map(|n| world.mesh("a").map().home(Shard(n))).collect();
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert!((256..=256 * 13 / 10).contains(&moved), "{moved}");
    // Each that moved was handed to its new owner, by the old one, once.
    let mut handed: Vec<_> = world.nodes().flat_map(|(_, node)| node.handoffs.done.lock().clone()).collect();
    handed.retain(|(shard, _, to)| {
        to.as_ref() == Some(&id("d")) && before[usize::from(shard.0)] != Home::Nobody
    });
    handed.sort_by_key(|(shard, ..)| *shard);
    handed.dedup_by_key(|(shard, ..)| *shard);
    assert_eq!(handed.len(), 256);
    world.check();
}

/// A node of an older version that writes another's row, as when an operator drains that one by way of it, drops what it does not know.
#[tokio::test(start_paused = true)]
async fn what_a_node_knows_is_said_again_when_another_has_dropped_it() {
    let world = World::of(&["a", "b"]).await;
    let knows = |of: &str| {
        let map = world.mesh("a").map();
        map.member(&id(of)).is_some_and(|member| member.status.says(|knows| knows.payload("x")))
    };
    assert!(knows("b") && !knows("c"));
    let store = Store::new(world.memory.clone(), seams(9));
    let dropped = store.write(Options::default(), |tx| {
        Box::pin(async move {
            let status = nodes::status(&mut **tx, &id("b")).await?.unwrap();
            nodes::put_status(&mut **tx, &id("b"), &Status { knows: None, ..status });
            nodes::bump(&mut **tx);
            Ok(())
        })
    });
    dropped.await.unwrap();
    world.mesh("a").refresh_now().await;
    assert!(!knows("b"));
    pass(Duration::from_secs(3)).await;
    assert!(knows("b"));
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_is_empty_and_can_come_back() {
    let world = World::of(&["a", "b", "c"]).await;
    let mut events = world.mesh("c").events();
    // Another node asks for it; it learns with its next beat.
    world.mesh("a").drain(&id("c")).await.unwrap();
    world.until("drained", Duration::from_secs(20), || world.shares()[2] == 0).await;
    world.settled().await;
    assert_eq!((world.shares(), world.mesh("c").standing()), (vec![512, 512, 0], Standing::Draining));
    let table = world.mesh("b").status();
    assert_eq!(table.nodes[2].state, State::Draining);
    let mut told = Vec::new();
    while !told.contains(&Event::Standing(Standing::Draining)) {
        told.push(events.next().await);
    }
    // The node still beats and writes what needs no shard.
    assert!(world.mesh("c").lease().holds());
    write_plain(&world.mesh("c").store()).await.unwrap();
    world.mesh("b").undrain(&id("c")).await.unwrap();
    world.until("back", Duration::from_secs(20), || world.shares()[2] > 300).await;
    world.settled().await;
    assert!(matches!(world.mesh("b").undrain(&id("c")).await, Ok(())), "asking twice changes nothing");
    assert!(matches!(world.mesh("b").drain(&id("x")).await, Err(Error::NoNode(_))));
    world.check();
}

#[tokio::test(start_paused = true)]
async fn who_leaves_hands_over_and_is_dead_by_itself() {
    let world = World::of(&["a", "b", "c"]).await;
    let before = tokio::time::Instant::now();
    let store = world.mesh("c").store();
    let shard = held_by(world.mesh("c"));
    world.mesh("c").leave().await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    assert_eq!((world.mesh("c").standing(), world.mesh("c").lease().is_over()), (Standing::Left, true));
    assert_eq!(write(&store, shard, b"late").await.unwrap_err().class, Class::Fenced);
    world.settled().await;
    assert_eq!(world.shares(), [512, 512, 0]);
    assert_eq!(world.mesh("a").status().nodes[2].state, State::Dead);
    // The last one leaves what it has to nobody.
    world.mesh("b").leave().await.unwrap();
    world.settled().await;
    world.mesh("a").leave().await.unwrap();
    let done = world.node("a").handoffs.done.lock();
    assert_eq!(done.iter().filter(|(_, _, to)| to.is_none()).count(), 1024);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_handoff_that_never_ends_does_not_hold_up_a_drain() {
    let world = World::of(&["a", "b"]).await;
    world.node("b").handoffs.stuck.store(true, Ordering::Relaxed);
    let before = tokio::time::Instant::now();
    world.mesh("b").leave().await.unwrap();
    let longest = world.timing.drain + world.timing.handoff * 2;
    assert!(before.elapsed() <= longest + Duration::from_secs(1), "{:?}", before.elapsed());
    world.settled().await;
    assert_eq!(world.shares(), [1024, 0]);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_restart_takes_over_from_its_former_self_at_once() {
    let mut world = World::of(&["a", "b"]).await;
    // The old process is still there and knows nothing.
    let before = world.join("b").await;
    let old = world.kill("b").unwrap();
    let shard = held_by(&old.mesh);
    assert_eq!(before.mesh.generation(), old.mesh.generation() + 1);
    assert_eq!(write(&old.mesh.store(), shard, b"late").await.unwrap_err().class, Class::Fenced);
    drop(before);
    world.start("b").await;
    let took = world.until("shared", Duration::from_secs(5), || world.shares()[1] == 512).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(world.mesh("b").generation(), old.mesh.generation() + 2);
    let mut events = old.mesh.events();
    while events.next().await != Event::Standing(Standing::Fenced) {}
    world.settled().await;
    world.check();
}

#[tokio::test(start_paused = true)]
async fn events_tell_the_difference_to_what_is_known() {
    let mut world = World::of(&["a"]).await;
    let mut events = world.mesh("a").events();
    let Event::Gained(gained) = events.next().await else { panic!("first what is held") };
    assert_eq!(gained.len(), 1024);
    assert_eq!(events.next().await, Event::Lease(true));
    assert_eq!(events.next().await, Event::Standing(Standing::Active));
    world.start("b").await;
    world.settled().await;
    // Nobody asked for long: one answer.
    let Event::Lost(lost) = events.next().await else { panic!("what b has got") };
    assert_eq!(lost.len(), 512);
    world.node("a").faults.set_reachable(false);
    assert_eq!(events.next().await, Event::Lease(false));
    pass(Duration::from_secs(10)).await;
    world.node("a").faults.set_reachable(true);
    let Event::Lost(lost) = events.next().await else { panic!("lost at death") };
    assert_eq!(lost.len(), 512);
    assert_eq!(events.next().await, Event::Standing(Standing::Fenced));
}

#[tokio::test(start_paused = true)]
async fn a_node_at_rest_asks_little_of_the_store() {
    let world = World::of(&["a", "b", "c"]).await;
    pass(Duration::from_secs(5)).await;
    let before = world.node("a").gate.counts();
    pass(Duration::from_secs(100)).await;
    let after = world.node("a").gate.counts();
    let (reads, commits) = (after.0 - before.0, after.1 - before.1);
    // A beat (a read and a commit), a look at the others, and now and then at the version row; for each second.
    assert!(
        (95..=106).contains(&commits) && (225..=245).contains(&reads),
        "{reads} reads, {commits} commits"
    );
}

#[tokio::test(start_paused = true)]
async fn a_thousand_shards_are_taken_in_well_under_a_second_from_a_store_that_takes_its_time() {
    let mut world = World::of(&["a", "b"]).await;
    world.mesh("a").drain(&id("a")).await.unwrap();
    world.until("moved", Duration::from_secs(60), || world.shares()[1] == 1024).await;
    world.mesh("a").undrain(&id("a")).await.unwrap();
    // Killed before it gave anything back; reads take 2 ms, commits 6 ms more.
    *world.node("a").gate.latency.lock() = Duration::from_millis(2);
    let held = world.mesh("b").map().held().count();
    assert!(held > 900, "{held}");
    drop(world.kill("b"));
    let dead = || world.mesh("a").map().member(&id("b")).unwrap().status.state() == State::Dead;
    world.until("dead", Duration::from_secs(10), dead).await;
    let took = world.until("taken", Duration::from_secs(5), || world.shares() == [1024]).await;
    println!("{held} shards taken in {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_was_dead_for_long_is_forgotten_and_may_come_back() {
    let mut world = World::of(&["a", "b"]).await;
    let old = world.kill("b").unwrap();
    old.gate.freeze(true);
    pass(world.timing.forget + Duration::from_secs(20)).await;
    assert_eq!(world.mesh("a").status().nodes.len(), 1);
    world.start("b").await;
    world.settled().await;
    assert_eq!(world.shares(), [512, 512]);
    // Its former self, back after so long, is not taken for it.
    assert!(world.mesh("b").generation() > old.mesh.generation());
    old.gate.freeze(false);
    let shard = held_by(world.mesh("b"));
    assert!(write(&old.mesh.store(), shard, b"late").await.is_err());
    world.until("fenced", Duration::from_secs(3), || old.mesh.standing() == Standing::Fenced).await;
    assert_eq!(stored(&world, shard).await, None);
    world.check();
}
