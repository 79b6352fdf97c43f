//! Sessions that end while something is on its way to them, is being stored, or is being written down: nothing of it is lost,
//! nothing comes twice, and it comes in order.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/gate.rs"]
mod gate;
mod support;
#[path = "support/talk.rs"]
mod talk;

use gate::{Gate, Shut, gated};
use rookery_actors::Host;
use rookery_actors::options::Archive;
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::Store;
use rookery_cluster::store::keys::Kind;
use rookery_cluster::tables::sessions;
use support::{Client, World};
use talk::{chat, kick, no_message, phone, recorded, resumable, says, sleeps};

const QUIET: &str = "<presence><priority>-1</priority></presence>";

/// Closes its stream, and the session has ended: a bystander whom it told that it is there hears so.
async fn gone(world: &World, mut client: Client) {
    let mut nurse = world.bind("nurse", "bystander").await;
    client.send("<presence to='nurse@localhost/bystander'/>");
    nurse.expect("<presence").await;
    client.quit();
    nurse.expect("type='unavailable'").await;
    nurse.quit();
}

/// The client closes its stream in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_while_a_client_quits_is_not_lost() {
    let world = World::new().await;
    for round in 0..40 {
        let name = &format!("j{round}");
        world.account(name).await;
        let mut juliet = world.bind(name, "phone").await;
        juliet.resumable().await;
        juliet.quiet = true;
        juliet.send("<presence/>");
        juliet.expect("<presence").await;
        let mut romeo = world.bind("romeo", "orchard").await;
        for n in 0..20 {
            romeo.send(&chat(&format!("{name}@localhost"), &format!("m{n}-")));
        }
        for _ in 0..round * 4 {
            tokio::task::yield_now().await; // another moment each time
        }
        juliet.quit();
        romeo.settled().await;
        romeo.nothing().await;
        let mut tablet = world.online(name, "tablet").await;
        for n in 0..20 {
            let got = tablet.until("<body>").await;
            assert!(got.contains(&format!("<body>m{n}-</body>")), "round {round} message {n}: {got}");
        }
        no_message(&mut tablet).await;
    }
}

/// The message is owed to a session that ends before it is stored.
#[tokio::test]
async fn what_is_being_stored_when_its_session_ends_goes_to_another_device() {
    for to in ["juliet@localhost", "juliet@localhost/phone"] {
        for managed in [false, true] {
            let (world, gate) = gated(Archive::Always).await;
            let mut juliet = world.bind("juliet", "phone").await;
            if managed {
                juliet.resumable().await;
            }
            juliet.send("<presence/>");
            juliet.expect("<presence").await;
            let mut romeo = world.bind("romeo", "orchard").await;
            gate.shut(Shut::Commits(Kind::Archive));
            romeo.send(&chat(to, "one"));
            gate.holds(1).await;
            gone(&world, juliet).await;
            gate.open();
            romeo.settled().await;
            let mut tablet = world.online("juliet", "tablet").await;
            tablet.until("<body>one</body>").await;
            no_message(&mut tablet).await;
        }
    }
}

/// What a session that has ended would have got, it has not got.
#[tokio::test]
async fn an_ended_session_has_nothing_of_what_is_stored_later() {
    for empty in [false, true] {
        let (world, gate) = gated(Archive::Always).await;
        let desk = sleeps(resumable(&world, "juliet", "desk", "<presence/>").await).await;
        let mut tablet = world.online("juliet", "tablet").await;
        tablet.until("desk").await;
        let mut romeo = world.bind("romeo", "orchard").await;
        if empty {
            gone(&world, tablet).await;
            romeo.send(&chat("juliet@localhost", "one"));
        } else {
            gate.shut(Shut::Commits(Kind::Archive));
            romeo.send(&chat("juliet@localhost", "one"));
            gate.holds(1).await;
            gone(&world, tablet).await;
            gate.open();
        }
        romeo.settled().await;
        // Only the desk was handed it, and it never comes back.
        kick(&world, "juliet@localhost/desk").await;
        let mut phone = world.online("juliet", "phone").await;
        phone.until("<body>one</body>").await;
        drop(desk);
    }
}

/// A page of offline messages was read before another session left one that belongs to it.
#[tokio::test]
async fn what_a_session_leaves_while_a_page_is_written_is_not_passed_over() {
    let (world, gate) = gated(Archive::Always).await;
    says(&world, "juliet@localhost", &["first"]).await;
    sleeps(resumable(&world, "juliet", "watch", QUIET).await).await;
    says(&world, "juliet@localhost/watch", &["left"]).await;
    says(&world, "juliet@localhost", &["last"]).await;
    recorded(&world).await;
    let mut tablet = world.bind("juliet", "tablet").await;
    tablet.resumable().await;
    recorded(&world).await;
    gate.shut(Shut::Commits(Kind::Session));
    tablet.send("<presence/>");
    tablet.expect("<presence").await;
    // Its record, or the numbers of the page.
    gate.holds(1).await;
    kick(&world, "juliet@localhost/watch").await;
    tablet.until("type='unavailable'").await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await; // both come to wait for what is being stored
    }
    gate.open();
    let mut got = Vec::new();
    while got.len() < 3 {
        let stanza = tablet.until("<body>").await;
        got.push(stanza.split("<body>").nth(1).unwrap().split('<').next().unwrap().to_owned());
    }
    got.sort();
    assert_eq!(got, ["first", "last", "left"]);
    no_message(&mut tablet).await;
}

/// A device confirms all that waited while a session's end is being written down.
#[tokio::test]
async fn what_is_confirmed_while_a_session_leaves_something_does_not_come_again() {
    let (world, gate) = gated(Archive::Always).await;
    sleeps(resumable(&world, "juliet", "watch", QUIET).await).await;
    says(&world, "juliet@localhost/watch", &["left"]).await;
    says(&world, "juliet@localhost", &["third", "fourth"]).await;
    recorded(&world).await;
    let mut tablet = world.bind("juliet", "tablet").await;
    tablet.resumable().await;
    tablet.quiet = true;
    tablet.send("<presence/>");
    tablet.until("<body>fourth</body>").await;
    gate.shut(Shut::Commits(Kind::Archive));
    kick(&world, "juliet@localhost/watch").await;
    gate.holds(1).await;
    tablet.quiet = false;
    tablet.ack();
    tablet.until("type='unavailable'").await;
    tablet.ack();
    tablet.nothing().await;
    gate.open();
    let got = tablet.until("<body>").await;
    assert!(got.contains("left"), "{got}");
    no_message(&mut tablet).await;
    tablet.quit();
    let mut desk = world.online("juliet", "desk").await;
    no_message(&mut desk).await;
}

/// A session that takes the place of another gets what that had not confirmed before what comes now (as MongooseIM's issues
/// 2007 and 2378 have it). Where nothing is archived, once it is available.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_session_leaves_its_messages_in_order() {
    for archive in [Archive::Always, Archive::Never] {
        for round in 0..20 {
            let world = World::with(|options| options.archive = archive).await;
            let mut juliet = phone(&world, "juliet").await;
            juliet.nothing().await;
            juliet.quiet = true;
            let mut romeo = world.bind("romeo", "orchard").await;
            let send = |romeo: &mut Client, n| romeo.send(&chat("juliet@localhost", &format!("m{n}-")));
            (0..5).for_each(|n| send(&mut romeo, n));
            juliet.until("<body>m4-</body>").await;
            let mut again = world.bind("juliet", "phone").await;
            again.send("<presence/>");
            if archive == Archive::Never {
                again.expect("<presence").await;
            }
            (5..30).for_each(|n| send(&mut romeo, n));
            for n in 0..30 {
                let got = again.until("<body>").await;
                assert!(got.contains(&format!("<body>m{n}-</body>")), "{archive:?} {round} {n}: {got}");
            }
            again.nothing().await;
        }
    }
}

/// As it is with offline messages, and with what is held back for an inactive client.
#[tokio::test]
async fn what_a_sleeping_session_has_of_somebody_blocked_since_is_not_shown() {
    for archive in [Archive::Always, Archive::Never] {
        let world = World::with(|options| options.archive = archive).await;
        let juliet = sleeps(phone(&world, "juliet").await).await;
        let mut romeo = world.bind("romeo", "orchard").await;
        romeo.send(&chat("juliet@localhost", "blocked"));
        romeo.send("<presence to='juliet@localhost/phone'><status>blocked</status></presence>");
        romeo.send("<message to='juliet@localhost/phone' type='headline'><body>blocked</body></message>");
        romeo.settled().await;
        let mut desk = world.bind("juliet", "desk").await;
        desk.send("<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='romeo@localhost'/></block></iq>");
        desk.until("id='b'").await;
        let mut nurse = world.bind("nurse", "kitchen").await;
        nurse.send(&chat("juliet@localhost", "seen"));
        let mut juliet = world.resume(&juliet).await.unwrap();
        juliet.expect("<resumed").await;
        let got = juliet.until("<body>").await;
        assert!(got.contains("seen"), "{archive:?} {got}");
    }
}

/// Juliet's sessions that the store has.
async fn on_record(world: &World) -> usize {
    let user = &Entity::new("juliet@localhost");
    let found = world.store.read(|tx| Box::pin(async move { sessions::load(&mut **tx, user, 100).await }));
    found.await.unwrap().rows.len()
}

/// Everything that can happen while the gate is shut has happened.
async fn quiet() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

/// A session ends while its record is being written, and is to be written once more: nobody would remove what comes then.
#[tokio::test]
async fn the_record_of_a_session_that_has_ended_is_not_written_again() {
    let (world, gate) = gated(Archive::Always).await;
    let mut juliet = phone(&world, "juliet").await;
    recorded(&world).await;
    assert_eq!(on_record(&world).await, 1);
    gate.shut(Shut::Commits(Kind::Session));
    juliet.send("<presence><status>here</status></presence>");
    juliet.until("here").await;
    gate.holds(1).await;
    juliet.lose();
    kick(&world, "juliet@localhost/phone").await;
    quiet().await;
    gate.open();
    recorded(&world).await;
    assert_eq!(on_record(&world).await, 0);
}

/// The same while its client comes back after a restart.
#[tokio::test]
async fn a_session_that_ends_while_it_is_resumed_leaves_no_record() {
    let world = World::new().await;
    let juliet = sleeps(phone(&world, "juliet").await).await;
    recorded(&world).await;
    world.faults.set_reachable(false);
    let gate = Gate::new(world.memory.clone());
    let store = Store::new(gate.clone(), Seams::system());
    let host = Host::start(world.options.clone(), store.clone(), Seams::system()).await.unwrap();
    let world = World { store, host, ..world };
    let _tablet = world.online("juliet", "tablet").await; // she is loaded
    recorded(&world).await;
    gate.shut(Shut::Reads(Kind::Session));
    let ends = async {
        quiet().await;
        kick(&world, "juliet@localhost/phone").await;
        recorded(&world).await;
        gate.open();
    };
    let (resumed, ()) = tokio::join!(world.resume(&juliet), ends);
    assert!(resumed.is_none());
    recorded(&world).await;
    assert_eq!(on_record(&world).await, 0);
}
