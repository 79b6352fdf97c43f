//! XEP-0424 on both sides of a conversation: which retractions count, where the message is by then, and what happens when the store
//! does not answer.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/gate.rs"]
mod gate;
mod support;
#[path = "support/talk.rs"]
mod talk;

use gate::{Shut, gated};
use rookery_actors::options::Archive;
use rookery_cluster::entity::Entity;
use rookery_cluster::store;
use rookery_cluster::store::keys::Kind;
use rookery_cluster::tables::archive::{self, Clock, Collection, Entry};
use support::{Client, World};
use talk::{chat, no_message, no_more, phone, queue, recorded};

fn retract(to: &str, id: &str, original: &str) -> String {
    format!(
        "<message to='{to}' type='chat' id='{id}'><retract xmlns='urn:xmpp:message-retract:1' id='{original}'/></message>"
    )
}

/// What an archive holds, each message in a word: its body, `~id` for a retraction, `-id by id` for a tombstone.
async fn history(client: &mut Client) -> Vec<String> {
    found(client, "").await
}

/// What an archive holds that matches a query's form.
async fn found(client: &mut Client, form: &str) -> Vec<String> {
    client.send(&format!("<iq type='set' id='mam'><query xmlns='urn:xmpp:mam:2'>{form}</query></iq>"));
    results(client).await
}

/// The answer to a query.
async fn results(client: &mut Client) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let got = client.until("urn:xmpp:mam:2").await;
        if got.contains("<fin") {
            return found;
        }
        found.push(word(&got));
    }
}

fn word(got: &str) -> String {
    let inner = got.split("<message").last().unwrap();
    let id = |of: &str| of.split(" id='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    if let Some((_, rest)) = inner.split_once("<retracted") {
        assert!(rest.contains(" stamp='") && !inner.contains("<body>"), "{got}");
        format!("-{} by {}", id(inner), id(rest))
    } else if let Some((_, rest)) = inner.split_once("<retract ") {
        format!("~{}", id(rest))
    } else {
        let (_, body) = inner.split_once("<body>").expect(got);
        body.split('<').next().unwrap().to_owned()
    }
}

/// The next message, in the same words.
async fn hears(client: &mut Client) -> String {
    word(&client.until("<message").await)
}

#[tokio::test]
async fn only_its_author_retracts_a_message() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    let mut nurse = world.online("nurse", "kitchen").await;
    romeo.send(&chat("juliet@localhost", "m"));
    assert_eq!(hears(&mut juliet).await, "m");
    nurse.send(&retract("juliet@localhost", "r1", "m"));
    assert_eq!(hears(&mut juliet).await, "~m");
    juliet.send(&retract("romeo@localhost", "r2", "m"));
    assert_eq!(hears(&mut romeo).await, "~m");
    // Nor does he retract it in another conversation.
    romeo.send(&retract("nurse@localhost", "r3", "m"));
    assert_eq!(hears(&mut nurse).await, "~m");
    assert_eq!(history(&mut juliet).await, ["m", "~m", "~m"]);
    assert_eq!(history(&mut romeo).await, ["m", "~m", "~m"]);
    // Another of his devices does.
    let mut garden = world.online("romeo", "garden").await;
    garden.send(&retract("juliet@localhost/balcony", "r4", "m"));
    assert_eq!(hears(&mut juliet).await, "~m");
    assert_eq!(history(&mut juliet).await, ["-m by r4", "~m", "~m", "~m"]);
    assert_eq!(history(&mut romeo).await, ["-m by r4", "~m", "~m", "~m"]);
}

#[tokio::test]
async fn what_is_retracted_twice_or_is_not_there_or_is_a_retraction() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    // Of two with one id the newer is meant.
    for stanza in [
        chat("juliet@localhost", "m"),
        chat("juliet@localhost", "m"),
        retract("juliet@localhost", "r1", "m"),
        retract("juliet@localhost", "r2", "m"),
        retract("juliet@localhost", "r3", "r1"),
        retract("juliet@localhost", "r4", "r4"),
        retract("juliet@localhost", "r5", "other"),
    ] {
        romeo.send(&stanza);
        juliet.until("<message").await;
    }
    for client in [&mut romeo, &mut juliet] {
        let found = ["m", "-m by r1", "~m", "~m", "~r1", "~r4", "~other"];
        assert_eq!(history(client).await, found, "{}", client.user);
    }
}

#[tokio::test]
async fn no_id_is_too_long_for_a_message_and_long_ones_leave_no_tombstone() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    let huge = "x".repeat(100_000);
    for id in ["m", &huge] {
        romeo.send(&format!(
            "<message to='juliet@localhost' type='chat' id='{id}'><body>said</body></message>"
        ));
    }
    romeo.send(&retract("juliet@localhost", "r", &huge));
    romeo.send(&retract("juliet@localhost", &huge, "m"));
    for _ in 0..4 {
        juliet.until("<message").await;
    }
    for client in [&mut romeo, &mut juliet] {
        assert_eq!(history(client).await, ["said", "said", &format!("~{huge}"), "~m"]);
    }
}

/// A note to oneself is archived once.
#[tokio::test]
async fn a_message_to_oneself_is_retracted_too() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    romeo.send(&chat("romeo@localhost", "m"));
    romeo.send(&retract("romeo@localhost", "r", "m"));
    assert_eq!([hears(&mut romeo).await, hears(&mut romeo).await], ["m", "~m"]);
    assert_eq!(history(&mut romeo).await, ["-m by r", "~m"]);
}

#[tokio::test]
async fn who_was_away_hears_of_the_retraction_only() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    romeo.send(&chat("juliet@localhost", "m"));
    romeo.send(&chat("juliet@localhost", "n"));
    romeo.send(&retract("juliet@localhost", "r", "m"));
    romeo.settled().await;
    let mut juliet = world.online("juliet", "balcony").await;
    assert_eq!([hears(&mut juliet).await, hears(&mut juliet).await], ["n", "~m"]);
    no_message(&mut juliet).await;
    assert_eq!(history(&mut juliet).await, ["-m by r", "n", "~m"]);
}

/// Where nothing is archived, the message may wait in the offline queue.
#[tokio::test]
async fn a_message_in_the_offline_queue_becomes_a_tombstone() {
    let world = World::with(|options| options.archive = Archive::Never).await;
    let mut romeo = world.online("romeo", "orchard").await;
    romeo.send(&chat("juliet@localhost", "m"));
    romeo.send(&chat("juliet@localhost", "n"));
    romeo.send(&retract("juliet@localhost", "r", "m"));
    romeo.settled().await;
    assert_eq!(queue(&world, "juliet").await, 3);
    let mut juliet = world.online("juliet", "balcony").await;
    let heard = [hears(&mut juliet).await, hears(&mut juliet).await, hears(&mut juliet).await];
    assert_eq!(heard, ["-m by r", "n", "~m"]);
    no_message(&mut juliet).await;
    // What was delivered and is stored nowhere cannot be taken back.
    romeo.send(&chat("juliet@localhost", "o"));
    romeo.send(&retract("juliet@localhost", "r2", "o"));
    assert_eq!([hears(&mut juliet).await, hears(&mut juliet).await], ["o", "~o"]);
    world.host.shutdown().await;
    assert_eq!(queue(&world, "juliet").await, 0);
}

#[tokio::test]
async fn a_message_from_before_a_restart_is_found() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    romeo.send(&chat("juliet@localhost", "m"));
    romeo.settled().await;
    romeo.nothing().await;
    let world = world.restart().await;
    let mut romeo = world.online("romeo", "orchard").await;
    romeo.send(&retract("juliet@localhost", "r", "m"));
    romeo.settled().await;
    assert_eq!(history(&mut romeo).await, ["-m by r", "~m"]);
    let world = world.restart().await;
    let mut juliet = world.online("juliet", "balcony").await;
    assert_eq!(hears(&mut juliet).await, "~m");
    assert_eq!(history(&mut juliet).await, ["-m by r", "~m"]);
}

/// Five thousand rows are read back, and no more.
#[tokio::test]
async fn old_messages_are_not_looked_for() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    for body in ["old", "young"] {
        romeo.send(&chat("juliet@localhost", body));
    }
    romeo.settled().await;
    romeo.quit();
    world.host.shutdown().await;
    let entity = &Entity::new("romeo@localhost");
    let newest = world.store.read(|tx| Box::pin(archive::last_id(&mut **tx, Collection::Archive, entity)));
    let newest = newest.await.unwrap().unwrap();
    let filler = &Entry { with: "nurse@localhost".into(), ..Entry::default() };
    let mut clock = Clock::after(Some(newest));
    let ids: Vec<_> = (0..4_999).map(|_| clock.next(newest.micros, newest.epoch)).collect();
    for ids in ids.chunks(1_000) {
        let written = world.store.write(store::Options::default(), |tx| {
            Box::pin(async move {
                for id in ids {
                    archive::append(&mut **tx, Collection::Archive, entity, *id, filler, Some(id.day()))?;
                }
                Ok(())
            })
        });
        written.await.unwrap();
    }
    let world = world.restart().await;
    let mut romeo = world.online("romeo", "orchard").await;
    for (id, original) in [("r1", "young"), ("r2", "old")] {
        romeo.send(&retract("juliet@localhost", id, original));
    }
    romeo.settled().await;
    let with = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>\
                <field var='with'><value>juliet@localhost</value></field></x>";
    assert_eq!(found(&mut romeo, with).await, ["old", "-young by r1", "~young", "~old"]);
}

/// What comes behind a retraction waits until its message is found: live messages, queries, and devices that come.
#[tokio::test]
async fn what_comes_behind_a_retraction_stays_behind_it() {
    let (world, gate) = gated(Archive::Always).await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    let mut nurse = world.online("nurse", "kitchen").await;
    romeo.send(&chat("juliet@localhost", "m"));
    assert_eq!(hears(&mut juliet).await, "m");
    romeo.settled().await;
    gate.shut(Shut::Reads(Kind::Archive));
    romeo.send(&retract("juliet@localhost", "r", "m"));
    for body in ["n", "o"] {
        romeo.send(&chat("juliet@localhost", body));
    }
    nurse.send(&chat("juliet@localhost", "p"));
    // Both ask for what they have just said and heard, before it is stored.
    let ask = "<iq type='set' id='mam'><query xmlns='urn:xmpp:mam:2'/></iq>";
    romeo.send(ask);
    juliet.send("<presence type='unavailable'/>");
    juliet.send("<presence/>");
    gate.open();
    let mut heard = Vec::new();
    while heard.len() < 4 {
        heard.push(hears(&mut juliet).await);
    }
    heard.retain(|word| word != "p"); // which may come between
    assert_eq!(heard, ["~m", "n", "o"]);
    assert_eq!(results(&mut romeo).await, ["-m by r", "~m", "n", "o"]);
    let mut kept = history(&mut juliet).await;
    kept.retain(|word| word != "p");
    assert_eq!(kept, ["-m by r", "~m", "n", "o"]);
    romeo.settled().await;
    no_more(&mut romeo).await;
}

/// The same for a user that nobody was there for: a device that comes meanwhile gets all of it, once.
#[tokio::test]
async fn a_device_that_comes_meanwhile_misses_nothing() {
    for archive in [Archive::Always, Archive::Never] {
        let (world, gate) = gated(archive).await;
        let place = if archive == Archive::Always { Kind::Archive } else { Kind::Queue };
        let mut romeo = world.online("romeo", "orchard").await;
        romeo.send(&chat("juliet@localhost", "m"));
        romeo.settled().await;
        gate.shut(Shut::Reads(place));
        romeo.send(&retract("juliet@localhost", "r", "m"));
        romeo.send(&chat("juliet@localhost", "n"));
        // Her home has both when it answers what comes behind them.
        romeo.send("<iq type='get' id='v' to='juliet@localhost'><vCard xmlns='vcard-temp'/></iq>");
        let mut juliet = world.bind("juliet", "balcony").await;
        juliet.send("<presence/>");
        gate.open();
        romeo.until("id='v'").await;
        let tombstone = (archive == Archive::Never).then_some("-m by r");
        for word in tombstone.into_iter().chain(["~m", "n"]) {
            assert_eq!(hears(&mut juliet).await, word);
        }
        no_message(&mut juliet).await;
        romeo.settled().await;
    }
}

/// What waits behind retractions gets other numbers where something before it goes elsewhere than was foreseen: a client whose
/// server is killed then gets nothing twice, and misses nothing.
#[tokio::test]
async fn what_is_held_back_is_numbered_as_it_is_sent() {
    let (world, gate) = gated(Archive::Always).await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut nurse = world.bind("nurse", "kitchen").await;
    let mut tablet = world.online("juliet", "tablet").await;
    let mut juliet = phone(&world, "juliet").await;
    for id in ["m1", "m2"] {
        romeo.send(&chat("juliet@localhost", id));
        assert_eq!(hears(&mut juliet).await, id);
        assert_eq!(hears(&mut tablet).await, id);
    }
    romeo.settled().await;
    gate.shut(Shut::Reads(Kind::Archive));
    for stanza in [
        &retract("juliet@localhost", "r1", "m1"),
        "<message to='juliet@localhost' type='headline' id='h'><body>news</body></message>",
        &retract("juliet@localhost", "r2", "m2"),
        &chat("juliet@localhost", "o"),
        "<iq type='get' id='v' to='juliet@localhost'><query xmlns='urn:x'/></iq>",
    ] {
        romeo.send(stanza);
    }
    romeo.until("id='v'").await; // her home has them all
    juliet.send("<presence type='unavailable'/>");
    juliet.send("<presence to='nurse@localhost/kitchen'/>");
    nurse.until("<presence").await; // and knows that the phone takes no news any more
    gate.open();
    for word in ["~m1", "news", "~m2", "o"] {
        assert_eq!(hears(&mut tablet).await, word);
    }
    for word in ["~m1", "~m2", "o"] {
        assert_eq!(hears(&mut juliet).await, word);
    }
    romeo.settled().await;
    recorded(&world).await;
    juliet.forget();
    let world = world.restart().await;
    let mut juliet = world.resume(&juliet).await.unwrap();
    juliet.expect("<resumed").await;
    no_message(&mut juliet).await;
    assert_eq!(history(&mut juliet).await, ["-m1 by r1", "-m2 by r2", "~m1", "~m2", "o"]);
}

/// A retraction that is not stored is refused like any message, and changes nothing on either side.
#[tokio::test]
async fn a_store_that_fails_leaves_the_message() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    romeo.send(&chat("juliet@localhost", "m"));
    assert_eq!(hears(&mut juliet).await, "m");
    romeo.settled().await;
    world.faults.set_reachable(false);
    romeo.send(&retract("juliet@localhost", "r", "m"));
    let refused = romeo.until("type='error'").await;
    assert!(refused.contains("id='r'") && refused.contains("type='wait'"), "{refused}");
    world.faults.set_reachable(true);
    romeo.settled().await;
    for client in [&mut romeo, &mut juliet] {
        assert_eq!(history(client).await, ["m"], "{}", client.user);
    }
    romeo.send(&retract("juliet@localhost", "r2", "m"));
    assert_eq!(hears(&mut juliet).await, "~m");
    for client in [&mut romeo, &mut juliet] {
        assert_eq!(history(client).await, ["-m by r2", "~m"], "{}", client.user);
    }
}
