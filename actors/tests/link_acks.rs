//! What is acknowledged is safe: the other server has confirmed it, or the store has it. And nobody waits long for either, nor does
//! anything go back because another server is slow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/foreign.rs"]
mod foreign;
#[path = "support/nodes.rs"]
mod nodes;
mod support;

use std::sync::Arc;
use std::time::Duration;

use foreign::{Foreign, Ways, unreachable};
use nodes::Nodes;
use rookery_actors::Options;
use rookery_actors::link::stream::Pair;
use rookery_actors::options::Federation;
use rookery_cluster::entity::Entity;
use rookery_cluster::tables::roster::{self, Item, Subscription};
use rookery_proto::xmpp::jid::BareJid;
use support::{Client, World};

fn federated(options: &mut Options) {
    options.federation = Some(Federation::default());
}

async fn world(ways: Ways) -> (World, Arc<Foreign>) {
    let foreign = Foreign::new(ways);
    let world = World::with(federated).await;
    foreign.serves(&world.host);
    (world, foreign)
}

async fn romeo(world: &World) -> Client {
    let mut romeo = world.bind("romeo", "phone").await;
    romeo.resumable().await;
    romeo
}

fn iq(id: &str) -> String {
    format!("<iq to='foreign.example' type='set' id='{id}'><q xmlns='urn:q'/></iq>")
}

fn chat(n: usize) -> String {
    format!("<message to='juliet@foreign.example' type='chat' id='{n}'><body>m{n}.</body></message>")
}

fn count(foreign: &Foreign, part: &str) -> usize {
    foreign.all().iter().filter(|got| got.contains(part)).count()
}

/// A request that left the socket, and was lost with the stream and the process: its sender was told nothing, and has it still.
#[tokio::test]
async fn a_request_is_acknowledged_when_the_other_server_has_it() {
    for managed in [true, false] {
        let (world, foreign) = world(Ways { managed, ..Ways::default() }).await;
        let mut romeo = romeo(&world).await;
        romeo.send(&iq("one"));
        foreign.got("id='one'").await;
        romeo.settled().await;
        foreign.change(|ways| ways.takes = false);
        let (read, before) = (foreign.bytes_read(), romeo.told().await);
        romeo.send(&iq("two"));
        foreign.read(read + 50).await;
        romeo.nothing().await;
        let acked = romeo.with(|link| link.ledger().settled());
        assert_eq!(acked, before, "nobody has it");
    }
}

/// The other server is slow to confirm: the request is stored, with its number, and comes once.
#[tokio::test]
async fn a_request_that_is_not_confirmed_soon_is_stored() {
    let (world, foreign) = world(Ways { confirms: false, ..Ways::default() }).await;
    let mut romeo = romeo(&world).await;
    romeo.send(&iq("one"));
    foreign.got("id='one'").await;
    romeo.told().await;
    foreign.change(|ways| ways.takes = false);
    let read = foreign.bytes_read();
    romeo.send(&iq("two"));
    foreign.read(read + 50).await;
    romeo.told().await;
    romeo.forget();
    let world = world.restart().await;
    foreign.cut();
    foreign.change(|ways| (ways.takes, ways.confirms) = (true, true));
    foreign.serves(&world.host);
    foreign.got("id='two'").await;
    assert_eq!((count(&foreign, "id='one'"), count(&foreign, "id='two'"), foreign.resumed()), (1, 1, 1));
}

/// Nobody waits for a server that is away, and whoever has left a room there does not stay in it.
#[tokio::test]
async fn presence_for_a_server_that_is_away_holds_nobody_up() {
    let (world, foreign) = world(Ways { away: Some(unreachable()), ..Ways::default() }).await;
    let mut romeo = romeo(&world).await;
    romeo.send("<presence to='room@foreign.example/r'/>");
    romeo.send("<presence to='room@foreign.example/r' type='unavailable'/>");
    romeo.told().await;
    romeo.forget();
    let world = world.restart().await;
    foreign.change(|ways| ways.away = None);
    foreign.serves(&world.host);
    foreign.got("type='unavailable'").await;
}

/// The same of the presence that a user tells to all contacts, for which no sender waits.
#[tokio::test(start_paused = true)]
async fn the_last_word_to_all_contacts_outlives_the_process() {
    let (world, foreign) = world(Ways { away: Some(unreachable()), ..Ways::default() }).await;
    let (user, both) = (&Entity::new("romeo@localhost"), Subscription::Both.into());
    let item = &Item { jid: "juliet@foreign.example".into(), subscription: both, ..Item::default() };
    let put = world
        .store
        .write(Default::default(), |tx| Box::pin(async move { roster::put(&mut **tx, user, item) }));
    put.await.unwrap();
    world.online("romeo", "phone").await.quit();
    tokio::time::sleep(Duration::from_secs(5)).await; // the clock is paused, and goes on
    let world = world.restart().await;
    foreign.change(|ways| ways.away = None);
    foreign.serves(&world.host);
    foreign.got("to='juliet@foreign.example' type='unavailable'").await;
}

/// A server that resumes a stream with more than it was ever sent is not believed.
#[tokio::test]
async fn a_count_that_is_too_high_loses_nothing() {
    let (world, foreign) = world(Ways::default()).await;
    let mut romeo = romeo(&world).await;
    for n in 0..10 {
        romeo.send(&chat(n));
    }
    foreign.got("m9.").await;
    foreign.change(|ways| ways.takes = false);
    let read = foreign.bytes_read();
    for n in 10..20 {
        romeo.send(&chat(n));
    }
    romeo.settled().await;
    foreign.read(read + 500).await;
    foreign.miscount(100);
    foreign.change(|ways| ways.takes = true);
    foreign.cut();
    foreign.got("m19.").await;
    for n in 0..20 {
        assert!(count(&foreign, &format!("m{n}.")) > 0, "m{n} is lost");
    }
}

/// What waits for a server because that is slow has not waited for one that cannot be reached.
#[tokio::test(start_paused = true)]
async fn a_slow_server_whose_stream_is_lost_gets_what_has_waited_long() {
    let limit = Duration::from_secs(5);
    let federation = Federation { memory_bytes: 8 << 10, queue: limit, ..Federation::default() };
    let foreign = Foreign::new(Ways::default());
    let world = World::with(|options| options.federation = Some(federation)).await;
    foreign.serves(&world.host);
    let mut romeo = romeo(&world).await;
    romeo.send(&chat(0));
    foreign.got("m0.").await;
    foreign.change(|ways| ways.reads = false);
    for n in 1..600 {
        romeo.send(&chat(n));
        if n % 100 == 0 {
            romeo.settled().await;
        }
    }
    tokio::time::sleep(limit + Duration::from_millis(100)).await; // the clock is paused, and goes on
    foreign.change(|ways| ways.reads = true);
    foreign.got("m100.").await;
    foreign.cut();
    foreign.got("m599.").await;
    let all: Vec<String> = (0..600).map(|n| format!("m{n}.")).collect();
    assert_eq!(foreign.bodies(), all);
    romeo.nothing().await;
}

fn home_of_link(world: &Nodes) -> usize {
    let pair = Pair::new(&BareJid::parse("localhost").unwrap(), &foreign::domain()).unwrap();
    (0..world.nodes.len()).find(|at| world.nodes[*at].host.is_home(pair.entity())).unwrap()
}

/// The home of the link dies with what it had written and nobody had read: all of it comes by the next home.
#[tokio::test(flavor = "multi_thread")]
async fn what_had_left_a_home_that_died_is_sent_by_the_next() {
    for managed in [true, false] {
        let mut world = Nodes::with(3, federated).await;
        let foreign = Foreign::new(Ways { managed, ..Ways::default() });
        world.nodes.iter().for_each(|node| foreign.serves(&node.host));
        let link = home_of_link(&world);
        let name = world.user((link + 1) % 3, "romeo").await;
        let mut romeo = world.nodes[(link + 1) % 3].phone(&name).await;
        // Answers to pings come to a node that lives.
        foreign.serves(&world.nodes[(link + 1) % 3].host);
        romeo.send(&iq("one"));
        foreign.got("id='one'").await;
        romeo.settled().await;
        foreign.change(|ways| ways.takes = false);
        let read = foreign.bytes_read();
        romeo.send(&iq("two"));
        romeo.send("<presence to='room@foreign.example/r' type='unavailable'/>");
        foreign.read(read + 150).await;
        world.kill(link);
        foreign.change(|ways| ways.takes = true);
        foreign.got("id='two'").await;
        foreign.got("type='unavailable'").await;
        romeo.settled().await;
    }
}

/// The link goes in order while the other server confirms nothing: what it was sent is not sent again, and the order stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_moves_takes_along_what_is_not_confirmed() {
    let world = Nodes::with(3, federated).await;
    let foreign = Foreign::new(Ways { confirms: false, ..Ways::default() });
    world.nodes.iter().for_each(|node| foreign.serves(&node.host));
    let link = home_of_link(&world);
    let name = world.user((link + 1) % 3, "romeo").await;
    let mut romeo = world.nodes[(link + 1) % 3].phone(&name).await;
    romeo.send(&iq("one"));
    foreign.got("id='one'").await;
    foreign.change(|ways| ways.reads = false);
    romeo.send(&iq("two"));
    romeo.send("<message to='juliet@foreign.example' type='chat'><body>last</body></message>");
    let moved = world.nodes[link].hand_over();
    assert!(moved.await.unwrap());
    foreign.change(|ways| (ways.reads, ways.confirms) = (true, true));
    let got = foreign.got("<body>last").await;
    let place = |part: &str| got.iter().position(|got| got.contains(part)).unwrap();
    assert!(place("id='two'") < place("<body>last"), "{got:#?}");
    romeo.settled().await;
    assert_eq!((count(&foreign, "id='one'"), count(&foreign, "id='two'"), foreign.resumed()), (1, 1, 1));
}
