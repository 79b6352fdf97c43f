//! Nodes of two versions in one cluster: a node that does not say what it knows is sent nothing that the version before did not know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/nodes.rs"]
mod nodes;
mod support;

use nodes::{Dropped, Nodes};
use support::Client;

fn room(world: &Nodes, node: usize) -> String {
    let name = |n: &u32| format!("room{n}@rooms.localhost");
    let is_home = |name: &String| {
        world.nodes[node].host.is_home(&rookery_proto::xmpp::jid::BareJid::parse(name).unwrap())
    };
    (0..).map(|n| name(&n)).find(is_home).unwrap()
}

async fn join(client: &mut Client, room: &str) {
    client.send(&format!("<presence to='{room}/{}'/>", client.user.local().unwrap_or_default()));
    client.until(&format!("<presence from='{room}/")).await;
}

/// What a room sends goes to users on an older node one by one, to others in one.
#[tokio::test(flavor = "multi_thread")]
async fn users_on_an_older_node_hear_rooms() {
    let dropped = Dropped::default();
    let world = Nodes::start_with(3, Some(dropped.clone())).await;
    let room = room(&world, 0);
    let mut clients = Vec::new();
    for node in [0, 1, 2, 2] {
        let name = world.user(node, &format!("u{}x", clients.len())).await;
        let mut client = world.nodes[(node + 1) % 3].phone(&name).await;
        join(&mut client, &room).await;
        clients.push(client);
    }
    for n in 0..20 {
        let says = &mut clients[n % 4];
        says.send(&format!("<message to='{room}' type='chat' id='m{n}'><body>m{n}-</body></message>"));
        says.settled().await;
    }
    for client in &mut clients {
        for n in 0..20 {
            client.until(&format!("<body>m{n}-</body>")).await;
        }
    }
    assert!(dropped.lock().unwrap().is_empty(), "{:?}", dropped.lock().unwrap());
}

/// No room lives on an older node: a sender to such a room is told to try again, and can when the room's shard has moved.
#[tokio::test(flavor = "multi_thread")]
async fn rooms_wait_for_a_node_that_knows_them() {
    let dropped = Dropped::default();
    let world = Nodes::start_with(3, Some(dropped.clone())).await;
    let room = room(&world, 2);
    let romeo = world.user(0, "romeo").await;
    let mut romeo = world.nodes[0].phone(&romeo).await;
    let message = |n| format!("<message to='{room}' type='chat' id='m{n}'><body>m{n}-</body></message>");
    romeo.send(&format!("<presence to='{room}/romeo'/>"));
    romeo.send(&message(1));
    let error = romeo.until("id='m1'").await;
    assert!(error.contains("type='wait'") && error.contains("resource-constraint"), "{error}");
    romeo.settled().await;
    assert!(world.nodes[2].hand_over().await.unwrap());
    // Until the node of the sender has read so, the room is still where it was.
    let cluster = world.nodes[0].cluster.clone();
    world.nodes[0].handle().spawn(async move { cluster.mesh().refresh_now().await }).await.unwrap();
    join(&mut romeo, &room).await;
    romeo.send(&message(2));
    romeo.until("<body>m2-</body>").await;
    assert!(dropped.lock().unwrap().is_empty(), "{:?}", dropped.lock().unwrap());
}
