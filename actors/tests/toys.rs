//! Kinds of actors other than users: an echo room and an echo component, over three nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/nodes.rs"]
mod nodes;
mod support;

use nodes::Nodes;
use support::Client;

/// A room whose home is this node.
fn room(world: &Nodes, node: usize) -> String {
    let name = |n: &u32| format!("room{n}@rooms.localhost");
    let is_home = |name: &String| {
        world.nodes[node].host.is_home(&rookery_proto::xmpp::jid::BareJid::parse(name).unwrap())
    };
    (0..).map(|n| name(&n)).find(is_home).unwrap()
}

fn say(room: &str, body: &str) -> String {
    format!("<message to='{room}' type='groupchat' id='{body}'><body>{body}</body></message>")
}

async fn join(client: &mut Client, room: &str, resource: &str) {
    client.send(&format!("<presence to='{room}/{resource}'/>"));
    client.until(&format!("<presence from='{room}/{resource}'")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_goes_on_after_its_node_has_died() {
    let mut world = Nodes::start(3).await;
    let (romeo, juliet) = (world.user(0, "romeo").await, world.user(1, "juliet").await);
    let mut romeo = world.nodes[0].phone(&romeo).await;
    let mut juliet = world.nodes[1].phone(&juliet).await;
    let room = room(&world, 2);
    join(&mut romeo, &room, "phone").await;
    join(&mut juliet, &room, "phone").await;
    for n in 0..20 {
        romeo.send(&say(&room, &format!("before{n}-")));
    }
    romeo.settled().await;
    for n in 20..40 {
        romeo.send(&say(&room, &format!("before{n}-")));
    }
    world.kill(2);
    for n in 40..60 {
        romeo.send(&say(&room, &format!("before{n}-")));
        juliet.send(&say(&room, &format!("other{n}-")));
    }
    for n in 0..60 {
        juliet.until(&format!("<body>before{n}-</body>")).await;
    }
    for n in 40..60 {
        romeo.until(&format!("<body>other{n}-</body>")).await;
    }
    romeo.settled().await;
    juliet.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_moves_with_its_shard() {
    let world = Nodes::start(3).await;
    let (romeo, juliet) = (world.user(0, "romeo").await, world.user(1, "juliet").await);
    let mut romeo = world.nodes[0].phone(&romeo).await;
    let mut juliet = world.nodes[1].phone(&juliet).await;
    let room = room(&world, 2);
    join(&mut romeo, &room, "phone").await;
    join(&mut juliet, &room, "phone").await;
    let moved = world.nodes[2].hand_over();
    for n in 0..100 {
        romeo.send(&say(&room, &format!("m{n}-")));
    }
    for n in 0..100 {
        juliet.until(&format!("<body>m{n}-</body>")).await;
    }
    assert!(moved.await.unwrap());
    romeo.settled().await;
    // A sender that has not joined is told so, and a room answers no requests.
    juliet.send(&format!("<presence to='{room}/phone' type='unavailable'/>"));
    juliet.send(&say(&room, "outside"));
    juliet.until("not-acceptable").await;
    juliet.send(&format!("<iq to='{room}' type='get' id='ask'><query xmlns='jabber:iq:version'/></iq>"));
    juliet.until("service-unavailable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_answers_at_every_address_of_its_name() {
    let world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    for node in 0..3 {
        let mut romeo = world.nodes[node].phone(&romeo).await;
        for to in ["echo.localhost", "anybody@echo.localhost", "anybody@echo.localhost/there"] {
            romeo.send(&format!("<message to='{to}' type='chat' id='1'><body>{to}</body></message>"));
            romeo.until(&format!("from='{to}'")).await;
            romeo.send(&format!("<iq to='{to}' type='get' id='2'><ping xmlns='urn:xmpp:ping'/></iq>"));
            romeo.until("type='result'").await;
        }
        romeo.settled().await;
        romeo.quit();
    }
}

/// The server lists its services, and answers for the name of a service as for itself.
#[tokio::test(flavor = "multi_thread")]
async fn services_are_items_of_the_domain() {
    let world = Nodes::start(1).await;
    let romeo = world.user(0, "romeo").await;
    let mut romeo = world.nodes[0].phone(&romeo).await;
    romeo.send(
        "<iq to='localhost' type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>",
    );
    let items = romeo.until("disco#items").await;
    assert!(items.contains("rooms.localhost") && items.contains("echo.localhost"), "{items}");
}
