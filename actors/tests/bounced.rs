//! A message that had left for another server comes back, and the session that had sent it has gone: somebody hears of that.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/far.rs"]
mod far;
mod support;
#[path = "support/talk.rs"]
mod talk;

use far::{Far, JULIET, scene};
use rookery_actors::Ledger;
use rookery_actors::options::Archive;
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;
use support::{Client, World};
use talk::{carbons, kick, no_message, phone, queue, resumable, sleeps};

/// She is sent a message that is acknowledged.
async fn says(phone: &mut Client, far: &Far, id: &str) {
    phone.send(&format!("<message to='{JULIET}' type='chat' id='{id}'><body>{id}</body></message>"));
    far.expect(&format!("<body>{id}</body>")).await;
    phone.settled().await;
}

/// It comes back to the session that has sent it, and its server waits until that is safe.
fn comes_back(world: &World, id: &str) {
    let error = format!(
        "<message from='{JULIET}' to='romeo@localhost/phone' type='error' id='{id}'><error type='wait'><remote-server-timeout xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
    );
    let error = Stanza::parse(error.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).unwrap();
    let far = BareJid::parse("far.example").unwrap();
    world.host.from_remote(&far, error, Ledger::new(0).enter(), None).unwrap();
}

async fn hears(client: &mut Client, id: &str) {
    let got = client.until("<message").await;
    assert!(got.contains(&format!("id='{id}'")) && got.contains("remote-server-timeout"), "{got}");
    assert!(!got.contains("urn:xmpp:carbons:2"), "{got}");
}

/// So much lies in his queue.
async fn queued(world: &World, wanted: usize) {
    let same = async {
        while queue(world, "romeo").await != wanted {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await; // the store gives no event
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), same).await.expect("another number is queued");
}

#[tokio::test]
async fn when_its_session_has_gone_another_device_hears_of_it() {
    for archive in [Archive::Always, Archive::Never] {
        let (world, far) = scene(archive).await;
        let mut one = phone(&world, "romeo").await;
        says(&mut one, &far, "first").await;
        says(&mut one, &far, "second").await;
        one.quit();
        // Nobody is there: the next one hears of it.
        comes_back(&world, "first");
        far.nothing().await;
        let mut desk = world.online("romeo", "desk").await;
        hears(&mut desk, "first").await;
        comes_back(&world, "second");
        hears(&mut desk, "second").await;
        desk.nothing().await;
        queued(&world, 0).await;
        desk.quit();
        let mut tablet = world.online("romeo", "tablet").await;
        no_message(&mut tablet).await;
    }
}

/// As long as it may be resumed, the error waits for it alone.
#[tokio::test]
async fn when_its_session_ends_asleep_another_device_hears_of_it() {
    for (restarts, there) in [(false, true), (false, false), (true, true), (true, false)] {
        let (mut world, far) = scene(Archive::Always).await;
        let mut one = phone(&world, "romeo").await;
        says(&mut one, &far, "lost").await;
        sleeps(one).await;
        comes_back(&world, "lost");
        queued(&world, 1).await;
        if restarts {
            world = world.restart().await;
        }
        let mut desk = world.bind("romeo", "desk").await;
        if there {
            desk.send("<presence/>");
            no_message(&mut desk).await;
        }
        kick(&world, "romeo@localhost/phone").await;
        if !there {
            desk.send("<presence/>");
        }
        hears(&mut desk, "lost").await;
        no_message(&mut desk).await;
        queued(&world, 0).await;
        desk.quit();
        let mut tablet = world.online("romeo", "tablet").await;
        no_message(&mut tablet).await;
    }
}

#[tokio::test]
async fn a_session_that_comes_back_hears_of_it_alone() {
    let (world, far) = scene(Archive::Always).await;
    let mut one = phone(&world, "romeo").await;
    says(&mut one, &far, "lost").await;
    let one = sleeps(one).await;
    comes_back(&world, "lost");
    queued(&world, 1).await;
    let mut desk = world.online("romeo", "desk").await;
    let mut one = world.resume(&one).await.unwrap();
    hears(&mut one, "lost").await;
    one.ack();
    queued(&world, 0).await;
    one.quit();
    no_message(&mut desk).await;
}

/// A copy (XEP-0280) is as good; unless it is lost as well.
#[tokio::test]
async fn who_has_had_a_copy_hears_of_it_once() {
    for confirms in [true, false] {
        let (world, far) = scene(Archive::Always).await;
        let mut one = phone(&world, "romeo").await;
        let mut desk =
            resumable(&world, "romeo", "desk", "<presence><priority>-1</priority></presence>").await;
        carbons(&mut desk).await;
        says(&mut one, &far, "lost").await;
        desk.until("<sent xmlns='urn:xmpp:carbons:2'>").await;
        desk.ack();
        one.ack();
        one.settled().await;
        (one.quiet, desk.quiet) = (true, true);
        comes_back(&world, "lost");
        one.until("remote-server-timeout").await;
        desk.until("<received xmlns='urn:xmpp:carbons:2'>").await;
        if confirms {
            desk.quiet = false;
            desk.ack();
            desk.settled().await;
        }
        for resource in ["phone", "desk"] {
            kick(&world, &format!("romeo@localhost/{resource}")).await;
        }
        let mut tablet = world.online("romeo", "tablet").await;
        if !confirms {
            hears(&mut tablet, "lost").await;
        }
        no_message(&mut tablet).await;
        queued(&world, 0).await;
    }
}

/// A warning, and what nobody can know by an id, is for the session that it names.
#[tokio::test]
async fn what_says_nothing_of_a_lost_message_goes_nowhere_else() {
    let (world, far) = scene(Archive::Always).await;
    let mut desk = world.online("romeo", "desk").await;
    for (id, kind) in [("id='warned'", "continue"), ("", "cancel")] {
        far.send(&format!(
            "<message from='{JULIET}' to='romeo@localhost/phone' type='error' {id}><error type='{kind}'><remote-server-timeout xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
        ));
    }
    far.send(&format!(
        "<message from='{JULIET}' to='romeo@localhost' type='error' id='bare'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
    ));
    far.nothing().await;
    no_message(&mut desk).await;
    assert_eq!(queue(&world, "romeo").await, 0);
}
