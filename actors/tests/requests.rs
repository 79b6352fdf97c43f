//! Requests and answers between clients come once, whichever node dies: their connection or the store knows which a client has had.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/nodes.rs"]
mod nodes;
mod support;
#[path = "support/talk.rs"]
mod talk;

use std::sync::Arc;
use std::time::Duration;

use nodes::Nodes;
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::Store;
use rookery_cluster::tables::{archive, sessions};
use support::{Client, World};

/// More than one: the next home is the node of the socket for some, and not for others.
const PAIRS: usize = 6;

fn ask(to: &str, id: &str) -> String {
    format!("<iq type='get' id='{id}-' to='{to}'><ask xmlns='urn:x'/></iq>")
}

fn answer(to: &str, id: &str) -> String {
    format!("<iq type='result' id='{id}-' to='{to}'/>")
}

fn chat(to: &str, body: &str) -> String {
    talk::chat(&format!("{to}@localhost"), body)
}

/// Everything until what contains `last`; nothing of it may contain `twice`.
async fn once(client: &mut Client, twice: &str, last: &str) {
    loop {
        let got = client.recv().await;
        assert!(!got.contains(twice), "{} got this twice: {got}", client.user);
        if got.contains(last) {
            return;
        }
    }
}

/// What a resumed client is told that the server has.
async fn resumed(client: &mut Client) -> u32 {
    let resumed = client.expect("<resumed").await;
    let h = resumed.split("h=").nth(1).unwrap();
    h[1..].split(['\'', '"']).next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_comes_once_when_the_home_of_who_is_asked_dies() {
    let mut world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    let mut phones = Vec::new();
    for n in 0..PAIRS {
        let juliet = world.user(2, &format!("juliet{n}-")).await;
        let mut phone = world.nodes[1].phone(&juliet).await;
        phone.quiet = true;
        orchard.send(&ask(&format!("{juliet}@localhost/phone"), "first"));
        phone.until("first-").await;
        phones.push(phone);
    }
    // Nobody has confirmed the requests: they are sent again to the next homes.
    world.kill(2);
    for phone in &mut phones {
        orchard.send(&ask(&format!("{}/phone", phone.user), "second"));
        once(phone, "first-", "second-").await;
        for id in ["first", "second"] {
            phone.send(&answer(&format!("{romeo}@localhost/phone"), id));
            orchard.until(&format!("{id}-")).await;
        }
    }
    orchard.settled().await;
    orchard.nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_once_when_the_home_of_who_asked_dies() {
    let mut world = Nodes::start(3).await;
    let juliet = world.user(0, "juliet").await;
    let mut phone = world.nodes[0].phone(&juliet).await;
    let mut orchards = Vec::new();
    for n in 0..PAIRS {
        let romeo = world.user(2, &format!("romeo{n}-")).await;
        let mut orchard = world.nodes[1].phone(&romeo).await;
        orchard.send(&ask(&format!("{juliet}@localhost/phone"), "first"));
        phone.until("first-").await;
        orchard.quiet = true;
        phone.send(&answer(&format!("{romeo}@localhost/phone"), "first"));
        orchard.until("first-").await;
        orchards.push(orchard);
    }
    world.kill(2);
    for orchard in &mut orchards {
        phone.send(&ask(&format!("{}/phone", orchard.user), "last"));
        once(orchard, "first-", "last-").await;
        // The same request is another one, and is answered.
        orchard.quiet = false;
        orchard.ack();
        orchard.send(&ask(&format!("{juliet}@localhost/phone"), "first"));
        phone.until("first-").await;
        phone.send(&answer(&format!("{}/phone", orchard.user), "first"));
        orchard.until("first-").await;
    }
    phone.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_comes_once_when_the_home_that_said_it_dies() {
    let mut world = Nodes::start(3).await;
    let juliet = world.user(2, "juliet").await;
    let romeo = world.user(0, "romeo").await;
    let mut orchard = world.nodes[1].phone(&romeo).await;
    orchard.quiet = true;
    orchard.send(&ask(&format!("{juliet}@localhost/gone"), "first"));
    orchard.until("first-").await;
    world.kill(2);
    orchard.send(&ask(&format!("{juliet}@localhost/gone"), "second"));
    once(&mut orchard, "first-", "second-").await;
}

/// Nobody confirms the request, so it is put into the offline queue. The next home does not know that, but finds it there.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_confirms_leaves_the_queue_after_its_home_has_died() {
    let mut world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let juliet = world.user(2, "juliet").await;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    let mut phone = world.nodes[1].phone(&juliet).await;
    phone.quiet = true;
    orchard.send(&ask(&format!("{juliet}@localhost/phone"), "first"));
    phone.until("first-").await;
    let store = Store::new(Arc::clone(&world.db) as Arc<_>, Seams::system());
    queued(&store, &juliet, 1).await;
    world.kill(2);
    phone.quiet = false;
    orchard.send(&chat(&juliet, "last"));
    once(&mut phone, "first-", "<body>last</body>").await;
    phone.ack();
    queued(&store, &juliet, 0).await;
}

/// So many stanzas lie in the offline queue of a user.
async fn queued(store: &Store, name: &str, count: usize) {
    let user = Entity::new(format!("{name}@localhost"));
    let look = async {
        loop {
            let read = store.read(|tx| {
                let user = user.clone();
                Box::pin(async move {
                    archive::page(&mut **tx, archive::Collection::Queue, &user, &archive::Query::all(9)).await
                })
            });
            if read.await.unwrap().entries.len() == count {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), look).await.expect("the queue is otherwise");
}

/// A session's record is as it should be.
async fn record(world: &World, name: &str, is: impl Fn(&sessions::Cursor) -> bool) {
    let user = Entity::new(format!("{name}@localhost"));
    let look = async {
        loop {
            let read = world.store.read(|tx| {
                let user = user.clone();
                Box::pin(async move { sessions::load(&mut **tx, &user, 9).await })
            });
            if read.await.unwrap().rows.iter().any(|stored| is(&stored.cursor)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), look).await.expect("the record is otherwise");
}

/// The server is killed: nobody remembers what clients had, but for what their sessions' records say.
#[tokio::test(flavor = "multi_thread")]
async fn requests_and_answers_come_once_after_a_crash() {
    let world = World::new().await;
    let mut orchard = talk::phone(&world, "romeo").await;
    let mut phone = talk::phone(&world, "juliet").await;
    (phone.quiet, orchard.quiet) = (true, true);
    let request = ask("juliet@localhost/phone", "first");
    let said = answer("romeo@localhost/phone", "first");
    orchard.send(&request);
    phone.until("first-").await;
    record(&world, "juliet", |cursor| !cursor.recent.is_empty()).await;
    phone.send(&said);
    orchard.until("first-").await;
    record(&world, "romeo", |cursor| !cursor.recent.is_empty()).await;
    let (lost_orchard, lost_phone) = (orchard, phone);
    let world = world.restart().await;
    let mut phone = world.resume(&lost_phone).await.expect("resumed");
    resumed(&mut phone).await;
    phone.send(&said);
    let mut orchard = world.resume(&lost_orchard).await.expect("resumed");
    // Its presence was the first.
    if resumed(&mut orchard).await < 2 {
        orchard.send(&request);
    }
    phone.send(&chat("romeo", "last"));
    once(&mut orchard, "first-", "<body>last</body>").await;
    orchard.send(&ask("juliet@localhost/phone", "second"));
    once(&mut phone, "first-", "second-").await;
}

/// A request is settled while its client is away: it is not asked again after a crash.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_settled_while_a_client_is_away_is_written_down() {
    let world = World::new().await;
    let mut orchard = talk::phone(&world, "romeo").await;
    let mut phone = talk::phone(&world, "juliet").await;
    phone.quiet = true;
    orchard.send(&ask("juliet@localhost/phone", "first"));
    phone.until("first-").await;
    orchard.lose();
    record(&world, "romeo", |cursor| cursor.up_handled == 1).await; // its presence
    phone.send(&answer("romeo@localhost/phone", "first"));
    record(&world, "romeo", |cursor| cursor.up_handled == 2).await;
}

/// Presence is nowhere but on its way: the next home says anew what a client sees, also of contacts it does not hear any more, and
/// of entities that have shown themselves to it alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_anew_whom_it_sees_when_its_home_has_died() {
    let mut world = Nodes::start(3).await;
    let juliet = world.user(2, "juliet").await;
    let (romeo, nurse) = (world.user(0, "romeo").await, world.user(0, "nurse").await);
    let mut phone = world.nodes[1].phone(&juliet).await;
    for name in [&romeo, &nurse] {
        let item = format!("<item jid='{name}@localhost'/>");
        phone.send(&format!("<iq type='set' id='r'><query xmlns='jabber:iq:roster'>{item}</query></iq>"));
    }
    phone.settled().await;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    orchard.send(&format!("<presence to='{juliet}@localhost'/>"));
    phone.until(&format!("<presence from='{romeo}@localhost/phone'")).await;
    phone.ack();
    world.kill(2);
    let mut due = vec![
        format!("<presence from='{romeo}@localhost' to='{juliet}@localhost/phone' type='unavailable'"),
        format!("<presence from='{nurse}@localhost' to='{juliet}@localhost/phone' type='unavailable'"),
        format!("<presence from='{romeo}@localhost/phone' to='{juliet}@localhost/phone'"),
    ];
    while !due.is_empty() {
        let got = phone.until("<presence").await;
        due.retain(|due| !got.starts_with(due));
    }
}
