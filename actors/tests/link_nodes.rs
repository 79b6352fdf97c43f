//! Links to other servers in a cluster: the next home goes on where the last one stopped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/foreign.rs"]
mod foreign;
#[path = "support/nodes.rs"]
mod nodes;
mod support;

use std::sync::Arc;

use foreign::{Foreign, Ways};
use nodes::Nodes;
use rookery_actors::Options;
use rookery_actors::link::stream::Pair;
use rookery_actors::options::Federation;
use rookery_proto::xmpp::jid::BareJid;

fn federated(options: &mut Options) {
    options.federation = Some(Federation::default());
}

/// The link has room for one message of a sender.
fn narrow(options: &mut Options) {
    options.federation = Some(Federation { queue_stanzas: 2, ..Federation::default() });
}

fn chat(n: usize) -> String {
    format!("<message to='juliet@foreign.example' type='chat' id='{n}'><body>m{n}.</body></message>")
}

fn bodies(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("m{n}.")).collect()
}

/// The node that is the home of the link.
fn home_of_link(world: &Nodes) -> usize {
    let pair = Pair::new(&BareJid::parse("localhost").unwrap(), &foreign::domain()).unwrap();
    (0..world.nodes.len()).find(|at| world.nodes[*at].host.is_home(pair.entity())).unwrap()
}

fn serve_all(foreign: &Arc<Foreign>, world: &Nodes) {
    for node in &world.nodes {
        foreign.serves(&node.host);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_home_goes_on_with_the_stream() {
    let mut world = Nodes::with(3, federated).await;
    let foreign = Foreign::new(Ways::default());
    serve_all(&foreign, &world);
    let link = home_of_link(&world);
    let name = world.user((link + 1) % 3, "romeo").await;
    let mut romeo = world.nodes[(link + 1) % 3].phone(&name).await;
    foreign.change(|ways| ways.confirms = false);
    for n in 0..50 {
        romeo.send(&chat(n));
    }
    foreign.got("m49.").await;
    foreign.change(|ways| ways.takes = false);
    for n in 50..100 {
        romeo.send(&chat(n));
    }
    world.kill(link);
    foreign.change(|ways| (ways.takes, ways.confirms) = (true, true));
    for n in 100..150 {
        romeo.send(&chat(n));
    }
    foreign.got("m149.").await;
    romeo.settled().await;
    assert_eq!(foreign.bodies(), bodies(0..150));
    assert_eq!(foreign.resumed(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_moves_with_its_shard() {
    let world = Nodes::with(3, federated).await;
    let foreign = Foreign::new(Ways::default());
    serve_all(&foreign, &world);
    let link = home_of_link(&world);
    let name = world.user((link + 1) % 3, "romeo").await;
    let mut romeo = world.nodes[(link + 1) % 3].phone(&name).await;
    for n in 0..50 {
        romeo.send(&chat(n));
    }
    let moved = world.nodes[link].hand_over();
    for n in 50..150 {
        romeo.send(&chat(n));
    }
    assert!(moved.await.unwrap());
    foreign.got("m149.").await;
    romeo.settled().await;
    assert_eq!(foreign.bodies(), bodies(0..150));
}

/// The home of the link is cut off from the store, and lives: the next home goes on with the stream, and nobody takes that away again.
#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_is_cut_off_opens_no_stream() {
    let world = Nodes::with(3, federated).await;
    let foreign = Foreign::new(Ways { confirms: false, ..Ways::default() });
    serve_all(&foreign, &world);
    let link = home_of_link(&world);
    let name = world.user((link + 1) % 3, "romeo").await;
    let mut romeo = world.nodes[(link + 1) % 3].phone(&name).await;
    romeo.send(&chat(0));
    foreign.got("m0.").await;
    romeo.settled().await;
    let (cut_off, other) = (&world.nodes[link], Foreign::new(Ways::default()));
    cut_off.faults.set_reachable(false);
    cut_off.cluster.mesh().lease().watch().wait_for(|holds| !holds).await.unwrap();
    other.serves(&cut_off.host);
    foreign.change(|ways| ways.confirms = true);
    foreign.cut();
    romeo.send(&chat(1));
    foreign.got("m1.").await;
    romeo.settled().await;
    assert_eq!((foreign.bodies(), foreign.resumed(), other.dials()), (bodies(0..2), 1, 0));
}

/// The link had refused a message, and the home of its sender died with the error. The message came again, and was taken behind what its sender
/// had sent later.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_does_not_come_behind_what_was_sent_later() {
    for link_dies in [false, true] {
        let mut world = Nodes::with(3, narrow).await;
        let foreign = Foreign::new(Ways { confirms: false, ..Ways::default() });
        serve_all(&foreign, &world);
        let (link, home) = (home_of_link(&world), (home_of_link(&world) + 1) % 3);
        let name = world.user(home, "romeo").await;
        let mut romeo = world.nodes[(link + 2) % 3].phone(&name).await;
        let ask = |id: &str| {
            format!("<iq to='juliet@foreign.example' type='get' id='{id}'><query xmlns='urn:x'/></iq>")
        };
        romeo.send(&chat(0));
        foreign.got("m0.").await;
        romeo.settled().await;
        // His home cannot write what he sends, and what he is to be told waits for that.
        world.nodes[home].faults.set_reachable(false);
        romeo.send(&chat(1));
        romeo.send(&ask("refused by now"));
        foreign.got("refused by now").await;
        foreign.change(|ways| ways.confirms = true);
        foreign.cut();
        romeo.send(&ask("room by now"));
        foreign.got("room by now").await;
        romeo.send(&chat(2));
        foreign.got("m2.").await;
        let name_of_link = world.nodes[link].name.clone();
        world.kill(home);
        if link_dies {
            let link = world.nodes.iter().position(|node| node.name == name_of_link).unwrap();
            world.kill(link);
        }
        romeo.settled().await;
        assert_eq!(foreign.bodies(), ["m0.", "m2."], "the link dies: {link_dies}");
        let got = romeo.until("id='1'").await;
        assert!(got.contains("type='error'") && got.contains("resource-constraint"), "{got}");
    }
}
