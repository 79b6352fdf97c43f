//! Components over several nodes: connections anywhere, homes that die and move, and what is on its way meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/component.rs"]
mod component;
#[path = "support/nodes.rs"]
mod nodes;
mod support;

use component::{Component, configure};
use nodes::Nodes;
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::Store;
use rookery_cluster::tables::roster::{self, Item, Subscription};
use rookery_proto::xmpp::jid::BareJid;
use support::Client;

/// Three nodes with a component whose home is the node `home`.
async fn world(home: usize) -> (Nodes, String) {
    let world = Nodes::start(3).await;
    let is_home = |name: &String| world.nodes[home].host.is_home(&BareJid::parse(name).unwrap());
    let name = (0..).map(|n| format!("gate{n}.localhost")).find(is_home).unwrap();
    for node in &world.nodes {
        let mut options = (*node.host.options()).clone();
        configure(&mut options, &name, |_| {});
        node.host.reload(options);
    }
    (world, name)
}

fn connect(world: &Nodes, node: usize, name: &str) -> Component {
    let node = &world.nodes[node];
    Component::connect(&node.host, name, node.handle(), true)
}

fn say(client: &mut Client, name: &str, n: usize) {
    client.send(&format!("<message to='x@{name}' type='chat' id='m{n}'><body>n{n}-</body></message>"));
}

/// What a connection got of one user's messages: numbers, in order.
fn numbers(got: &[String], user: &str) -> Vec<usize> {
    let from = format!("from='{user}@");
    let own = got.iter().filter(|text| text.contains(&from) && text.contains("<body>"));
    own.map(|text| text.split("<body>n").nth(1).unwrap().split('-').next().unwrap().parse().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_found_wherever_it_is_and_answers_from_there() {
    let (world, name) = world(1).await;
    let romeo = world.user(0, "romeo").await;
    let mut romeo = world.nodes[0].phone(&romeo).await;
    let mut gate = connect(&world, 2, &name);
    for n in 0..50 {
        say(&mut romeo, &name, n);
    }
    for n in 0..50 {
        assert!(gate.until("<body>").await.contains(&format!("n{n}-")));
    }
    romeo.settled().await;
    for n in 0..50 {
        gate.send(&format!(
            "<message from='x@{name}' to='{}' type='chat' id='b{n}'><body>b{n}-</body></message>",
            romeo.user
        ));
    }
    for n in 0..50 {
        romeo.until(&format!("<body>b{n}-")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_home_dies_and_nothing_is_lost_or_comes_twice() {
    let (mut world, name) = world(2).await;
    let (one, two) = (world.user(0, "romeo").await, world.user(1, "juliet").await);
    let mut romeo = world.nodes[0].phone(&one).await;
    let mut juliet = world.nodes[1].phone(&two).await;
    let mut gate = connect(&world, 0, &name);
    for n in 0..20 {
        say(&mut romeo, &name, n);
        say(&mut juliet, &name, n);
    }
    romeo.settled().await;
    for n in 20..40 {
        say(&mut romeo, &name, n);
        say(&mut juliet, &name, n);
    }
    world.kill(2);
    for n in 40..60 {
        say(&mut romeo, &name, n);
        say(&mut juliet, &name, n);
    }
    romeo.settled().await;
    juliet.settled().await;
    let got = gate.rest();
    let all: Vec<usize> = (0..60).collect();
    for user in [&one, &two] {
        let own = numbers(&got, user);
        assert_eq!(own, all, "{user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_home_moves_and_users_stay_with_their_connections() {
    let (world, name) = world(2).await;
    let mut users = Vec::new();
    for n in 0..6 {
        let user = world.user(n % 2, &format!("user{n}x")).await;
        users.push((world.nodes[n % 2].phone(&user).await, user));
    }
    let mut gates = [connect(&world, 0, &name), connect(&world, 1, &name)];
    for (client, _) in &mut users {
        say(client, &name, 0);
        client.settled().await;
    }
    let moved = world.nodes[2].hand_over();
    for n in 1..40 {
        users.iter_mut().for_each(|(client, _)| say(client, &name, n));
    }
    assert!(moved.await.unwrap());
    for n in 40..60 {
        users.iter_mut().for_each(|(client, _)| say(client, &name, n));
    }
    for (client, _) in &mut users {
        client.settled().await;
    }
    let got: Vec<Vec<String>> = gates.iter_mut().map(Component::rest).collect();
    let all: Vec<usize> = (0..60).collect();
    for (_, user) in &users {
        let mut sums: Vec<Vec<usize>> = got.iter().map(|got| numbers(got, user)).collect();
        sums.sort_by_key(Vec::len);
        assert_eq!((&sums[0], &sums[1]), (&Vec::new(), &all), "{user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_of_a_connection_dies_and_another_takes_its_users() {
    let (mut world, name) = world(0).await;
    let (one, two) = (world.user(0, "romeo").await, world.user(1, "juliet").await);
    let mut romeo = world.nodes[0].phone(&one).await;
    let mut juliet = world.nodes[1].phone(&two).await;
    let mut lost = connect(&world, 2, &name);
    say(&mut romeo, &name, 0);
    romeo.settled().await;
    let mut gate = connect(&world, 1, &name);
    say(&mut juliet, &name, 0);
    juliet.settled().await;
    // What was confirmed before the death came there.
    let before = lost.rest();
    lost.forget();
    world.kill(2);
    for n in 1..40 {
        say(&mut romeo, &name, n);
        say(&mut juliet, &name, n);
    }
    romeo.settled().await;
    juliet.settled().await;
    let got: Vec<String> = before.into_iter().chain(gate.rest()).collect();
    for user in [&one, &two] {
        assert_eq!(numbers(&got, user), (0..40).collect::<Vec<_>>(), "{user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_gives_back_what_it_did_not_confirm() {
    let (world, name) = world(1).await;
    let romeo = world.user(0, "romeo").await;
    let mut romeo = world.nodes[0].phone(&romeo).await;
    // Deaf to pings: nothing of what it reads is confirmed.
    let node = &world.nodes[2];
    let mut rude = Component::connect(&node.host, &name, node.handle(), false);
    for n in 0..30 {
        say(&mut romeo, &name, n);
    }
    for _ in 0..30 {
        rude.until("<body>").await;
    }
    rude.cut();
    let mut gate = connect(&world, 0, &name);
    romeo.settled().await;
    assert_eq!(numbers(&gate.rest(), romeo.user.local().unwrap()), (0..30).collect::<Vec<_>>());
}

/// The connection confirms nothing, so the new home answers for nothing: what follows must not wait for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_connection_does_not_hold_up_what_goes_to_the_next_home() {
    let (mut world, name) = world(1).await;
    let romeo = world.user(0, "romeo").await;
    let mut romeo = world.nodes[0].phone(&romeo).await;
    let node = &world.nodes[2];
    let mut rude = Component::connect(&node.host, &name, node.handle(), false);
    say(&mut romeo, &name, 0);
    rude.until("<body>n0-").await;
    world.kill(1);
    for n in 1..30 {
        say(&mut romeo, &name, n);
    }
    for n in 1..30 {
        rude.until(&format!("<body>n{n}-")).await;
    }
    rude.cut();
    let mut gate = connect(&world, 0, &name);
    romeo.settled().await;
    assert_eq!(numbers(&gate.rest(), romeo.user.local().unwrap()), (0..30).collect::<Vec<_>>());
}

/// The component's home, its only connection, and what both knew, are gone together.
#[tokio::test(flavor = "multi_thread")]
async fn users_hear_that_a_component_has_died_with_its_node() {
    let (mut world, name) = world(2).await;
    let user = world.user(0, "romeo").await;
    let (own, friend) = (&Entity::new(format!("{user}@localhost")), format!("friend@{name}"));
    let item = &Item { jid: friend.clone(), subscription: Subscription::Both.into(), ..Item::default() };
    let store = Store::new(world.db.clone(), Seams::system());
    let put =
        store.write(Default::default(), |tx| Box::pin(async move { roster::put(&mut **tx, own, item) }));
    put.await.unwrap();
    let mut gate = connect(&world, 2, &name);
    let mut romeo = world.nodes[0].phone(&user).await;
    gate.until("type='probe'").await;
    gate.send(&format!("<presence from='{friend}/x' to='{user}@localhost'/>"));
    romeo.until(&format!("from='{friend}/x'")).await;
    gate.forget();
    world.kill(2);
    let gone = romeo.until("type='unavailable'").await;
    assert!(gone.contains(&format!("from='{friend}'")), "{gone}");
}
