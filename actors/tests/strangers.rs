//! What others may do to an account, and learn of it: blocked people, people who ask for a subscription, people who guess names.
//!
//! Length: one test for each thing that a stranger can send or learn.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

mod support;

use rookery_actors::options::Archive;
use rookery_cluster::entity::Entity;
use rookery_cluster::tables::roster;
use support::{Client, World};

fn ask(to: &str, status: &str) -> String {
    format!("<presence to='{to}@localhost' type='subscribe'><status>{status}</status></presence>")
}

fn chat(to: &str, body: &str) -> String {
    format!("<message to='{to}@localhost' type='chat'><body>{body}</body></message>")
}

async fn blocking(client: &mut Client, what: &str, who: &str) {
    client.send(&format!(
        "<iq type='set' id='b'><{what} xmlns='urn:xmpp:blocking'><item jid='{who}@localhost'/></{what}></iq>"
    ));
    let done = client.until("id='b'").await;
    assert!(done.contains("type='result'"), "{done}");
}

async fn rows(world: &World, name: &str) -> Vec<roster::Item> {
    let user = &Entity::new(format!("{name}@localhost"));
    let rows = world.store.read(|tx| Box::pin(async move { roster::load(&mut **tx, user, 10_000).await }));
    rows.await.unwrap().rows
}

#[tokio::test]
async fn a_request_of_somebody_blocked_is_not_kept() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    blocking(&mut juliet, "block", "romeo").await;
    romeo.send(&ask("juliet", "while she is there"));
    romeo.settled().await;
    juliet.nothing().await;
    juliet.quit();
    romeo.send(&ask("juliet", "while she is away"));
    romeo.settled().await;
    assert_eq!(rows(&world, "juliet").await, []);
    let mut juliet = world.online("juliet", "balcony").await;
    juliet.nothing().await;
    blocking(&mut juliet, "unblock", "romeo").await;
    juliet.nothing().await;
    romeo.send(&ask("juliet", "afterwards"));
    juliet.expect("afterwards").await;
}

#[tokio::test]
async fn a_request_made_before_the_block_is_not_shown_and_a_new_one_is_not_swallowed() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    romeo.send(&ask("juliet", "before"));
    romeo.settled().await;
    let mut juliet = world.online("juliet", "balcony").await;
    juliet.expect("before").await;
    blocking(&mut juliet, "block", "romeo").await;
    let mut other = world.online("juliet", "window").await;
    other.expect("juliet@localhost/balcony").await;
    other.nothing().await;
    blocking(&mut other, "unblock", "romeo").await;
    romeo.send(&ask("juliet", "afterwards"));
    other.expect("afterwards").await;
}

/// As an older version left it: the request lies beside the block.
#[tokio::test]
async fn a_stored_request_is_hidden_by_a_block_and_shown_when_that_ends() {
    let world = World::new().await;
    let (juliet, now) = (&Entity::new("juliet@localhost"), 1);
    let item = &roster::Item {
        pending_in: Some(bytes::Bytes::from_static(
            b"<presence type='subscribe' from='romeo@localhost' to='juliet@localhost'><status>old</status></presence>",
        )),
        ..roster::Item::unlisted("romeo@localhost")
    };
    let wrote = world.store.write(Default::default(), |tx| {
        Box::pin(async move {
            rookery_cluster::tables::blocks::add(&mut **tx, juliet, "romeo@localhost", now);
            roster::keep(&mut **tx, juliet, item)
        })
    });
    wrote.await.unwrap();
    let mut juliet = world.online("juliet", "balcony").await;
    juliet.nothing().await;
    blocking(&mut juliet, "unblock", "nurse").await;
    juliet.nothing().await;
    juliet.send("<iq type='set' id='u'><unblock xmlns='urn:xmpp:blocking'/></iq>");
    juliet.expect("<status>old</status>").await;
    juliet.expect("id='u'").await;
}

#[tokio::test]
async fn somebody_blocked_is_not_answered_by_an_approval() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    juliet.send("<presence to='romeo@localhost' type='subscribed'/>");
    blocking(&mut juliet, "block", "romeo").await;
    romeo.send(&ask("juliet", ""));
    romeo.settled().await;
    romeo.nothing().await;
    let kept = rows(&world, "juliet").await;
    assert!(kept[0].approved && kept[0].subscription() == roster::Subscription::None, "{kept:?}");
    // The approval waits for the day when the block ends.
    blocking(&mut juliet, "unblock", "romeo").await;
    romeo.send(&ask("juliet", ""));
    romeo.until("type='subscribed'").await;
}

async fn offline_messages(archive: Archive) {
    let world = World::with(|options| options.archive = archive).await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut nurse = world.online("nurse", "hall").await;
    for n in 0..3 {
        romeo.send(&chat("juliet", &format!("romeo {n}")));
        romeo.settled().await;
        nurse.send(&chat("juliet", &format!("nurse {n}")));
        nurse.settled().await;
    }
    let mut juliet = world.bind("juliet", "balcony").await;
    blocking(&mut juliet, "block", "romeo").await;
    juliet.send("<presence/>");
    juliet.expect("<presence").await;
    for n in 0..3 {
        juliet.expect(&format!("nurse {n}")).await;
    }
    juliet.nothing().await;
    juliet.quit();
    let mut juliet = world.online("juliet", "balcony").await;
    juliet.nothing().await;
}

#[tokio::test]
async fn archived_messages_of_somebody_blocked_since_are_not_delivered() {
    offline_messages(Archive::Always).await;
}

#[tokio::test]
async fn queued_messages_of_somebody_blocked_since_are_not_delivered() {
    offline_messages(Archive::Never).await;
}

#[tokio::test]
async fn what_a_session_ends_without_goes_to_no_other_once_its_sender_is_blocked() {
    for archive in [Archive::Always, Archive::Never] {
        let world = World::with(|options| options.archive = archive).await;
        let mut phone = world.bind("juliet", "phone").await;
        phone.resumable().await;
        phone.send("<presence/>");
        phone.expect("<presence").await;
        phone.settled().await;
        phone.lose();
        for name in ["romeo", "nurse"] {
            let mut client = world.online(name, "x").await;
            client.send(&chat("juliet", &format!("of {name}")));
            client.settled().await;
        }
        let mut window = world.bind("juliet", "window").await;
        blocking(&mut window, "block", "romeo").await;
        window.send("<presence/>");
        let mut seen = window.comes().await;
        let mut again = world.online("juliet", "phone").await;
        while !seen.iter().any(|got| got.contains("of nurse")) {
            seen.extend(window.comes().await);
            seen.extend(again.comes().await);
        }
        seen.extend(window.comes().await);
        seen.extend(again.comes().await);
        assert!(!seen.iter().any(|got| got.contains("of romeo")), "{seen:?}");
    }
}

#[tokio::test]
async fn what_is_held_back_of_somebody_blocked_since_is_dropped() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut nurse = world.online("nurse", "hall").await;
    let mut juliet = world.bind("juliet", "balcony").await;
    juliet.resumable().await;
    juliet.send("<presence/>");
    juliet.expect("<presence").await;
    juliet.link().csi(false);
    juliet.nothing().await;
    for (client, status) in [(&mut romeo, "of romeo"), (&mut nurse, "of the nurse")] {
        client.send(&format!("<presence to='juliet@localhost'><status>{status}</status></presence>"));
        client.nothing().await;
    }
    let mut other = world.bind("juliet", "window").await;
    blocking(&mut other, "block", "romeo").await;
    juliet.link().csi(true);
    juliet.expect("of the nurse").await;
    juliet.nothing().await;
    // Its count is that of its session.
    juliet.settled().await;
    juliet.lose();
    let mut juliet = world.resume(&juliet).await.expect("resumed");
    juliet.expect("<resumed").await;
    nurse.send(&chat("juliet", "hi"));
    juliet.expect("hi").await;
    juliet.nothing().await;
}

#[tokio::test]
async fn requests_are_few_and_short_and_come_in_portions() {
    let world = World::with(|options| options.limits.requests = 40).await;
    let long = "x".repeat(100_000);
    for n in 0..60 {
        let name = format!("s{n:02}");
        world.account(&name).await;
        let mut stranger = world.bind(&name, "x").await;
        stranger.send(&ask("juliet", &format!("{n} {long}")));
        stranger.settled().await;
        stranger.quit();
    }
    let kept = rows(&world, "juliet").await;
    let bytes: usize = kept.iter().filter_map(|item| item.pending_in.as_ref()).map(bytes::Bytes::len).sum();
    assert!(kept.len() == 40 && bytes < 40 * 1_200, "{} requests, {bytes} bytes", kept.len());
    let mut juliet = world.bind("juliet", "balcony").await;
    juliet.resumable().await;
    juliet.quiet = true;
    juliet.send("<presence/>");
    juliet.expect("from='juliet@localhost/balcony'").await;
    // The oldest have made room.
    let (mut next, mut left) = (20, 40);
    for portion in [16, 16, 8] {
        for _ in 0..portion {
            let got = juliet.expect(&format!("<status>{next} xxx")).await;
            assert!(got.contains(&format!("from='s{next}@localhost'")) && got.len() < 1_200, "{got}");
            next += 1;
        }
        left -= portion;
        juliet.nothing().await;
        juliet.ack();
    }
    assert_eq!(left, 0);
    juliet.nothing().await;
}

/// A connected user sees the requests come whole; and memory forgets the requests that the store has forgotten.
#[tokio::test]
async fn who_is_there_sees_requests_whole_and_later_those_that_are_left() {
    let world = World::with(|options| options.limits.requests = 2).await;
    let mut juliet = world.online("juliet", "balcony").await;
    for name in ["romeo", "nurse", "tybalt"] {
        world.account(name).await;
        let mut stranger = world.bind(name, "x").await;
        stranger.send(&ask("juliet", &"y".repeat(5_000)));
        let got = juliet.expect("type='subscribe'").await;
        assert!(got.contains(name) && got.len() > 5_000, "{got}");
    }
    let mut other = world.bind("juliet", "window").await;
    other.send("<presence/>");
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(other.recv().await);
    }
    other.nothing().await;
    let asked: Vec<_> = seen.iter().filter(|got| got.contains("type='subscribe'")).collect();
    assert!(asked.len() == 2 && asked[0].contains("nurse@") && asked[1].contains("tybalt@"), "{asked:?}");
    other.send("<presence to='nurse@localhost' type='unsubscribed'/>");
    other.settled().await;
    let left: Vec<_> = rows(&world, "juliet").await.into_iter().map(|item| item.jid).collect();
    assert_eq!(left, ["tybalt@localhost"]);
}

#[tokio::test]
async fn no_way_into_the_roster_passes_its_limits() {
    let world = World::with(|options| {
        options.limits.roster_items = 3;
        options.limits.roster_bytes = 20_000;
    })
    .await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    let set = |jid: &str, groups: usize| {
        let groups: String =
            (0..groups).map(|n| format!("<group>{n}{}</group>", "g".repeat(1_000))).collect();
        format!(
            "<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='{jid}'>{groups}</item></query></iq>"
        )
    };
    juliet.send(&set("a@localhost", 5));
    juliet.expect("not-acceptable").await;
    for n in ["a", "b", "c"] {
        juliet.send(&format!("<presence to='{n}@localhost' type='subscribed'/>"));
    }
    juliet.nothing().await;
    for kind in ["subscribed", "subscribe"] {
        juliet.send(&format!("<presence id='p' to='d@localhost' type='{kind}'/>"));
        juliet.expect("resource-constraint").await;
    }
    // A request can't be accepted either while there is no room.
    romeo.send(&ask("juliet", ""));
    juliet.expect("type='subscribe'").await;
    juliet.send("<presence id='p' to='romeo@localhost' type='subscribed'/>");
    juliet.expect("resource-constraint").await;
    // Nothing is remembered of senders that got no answer.
    for n in 0..20 {
        for kind in ["unsubscribe", "unsubscribed"] {
            juliet.send(&format!("<presence to='n{n}@localhost' type='{kind}'/>"));
        }
    }
    juliet.settled().await;
    assert_eq!(rows(&world, "juliet").await.len(), 4, "three contacts and a request");
    for jid in ["a@localhost", "b@localhost", "c@localhost"] {
        juliet.send(&set(jid, 4));
        juliet.expect("id='s'").await;
    }
    let long = "l".repeat(1_000);
    for n in 0..10 {
        romeo.send(&format!(
            "<iq type='set' id='s{n}'><query xmlns='jabber:iq:roster'><item jid='{n}{long}@localhost' name='{long}'/></query></iq>"
        ));
    }
    // She is one of his three.
    for _ in 0..2 {
        romeo.expect("type='result'").await;
    }
    romeo.expect("resource-constraint").await;
}

#[tokio::test]
async fn all_contacts_together_have_their_limit_in_bytes() {
    let world = World::with(|options| options.limits.roster_bytes = 10_000).await;
    let mut juliet = world.bind("juliet", "balcony").await;
    let set = |n: usize, name: usize| {
        format!(
            "<iq type='set' id='s{n}'><query xmlns='jabber:iq:roster'><item jid='c{n}@b' name='{}'/></query></iq>",
            "n".repeat(name)
        )
    };
    for n in 0..9 {
        juliet.send(&set(n, 1_000));
        juliet.expect("type='result'").await;
    }
    juliet.send(&set(9, 1_000));
    juliet.expect("resource-constraint").await;
    juliet.send(&set(0, 1_023));
    juliet.expect("type='result'").await;
    juliet.send(&set(0, 1));
    juliet.expect("type='result'").await;
    juliet.send(&set(9, 1_000));
    juliet.expect("type='result'").await;
}

#[tokio::test]
async fn strangers_do_not_learn_who_is_there() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let juliet = world.online("juliet", "balcony").await;
    for (kind, payload) in [
        ("get", "<query xmlns='jabber:iq:last'/>"),
        ("get", "<query xmlns='jabber:iq:private'><x xmlns='urn:x'/></query>"),
        ("set", "<query xmlns='jabber:iq:private'><x xmlns='urn:x'/></query>"),
        ("set", "<query xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<metadata xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<prefs xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<query xmlns='jabber:iq:roster'/>"),
        ("set", "<query xmlns='jabber:iq:roster'/>"),
        ("get", "<blocklist xmlns='urn:xmpp:blocking'/>"),
        ("set", "<vCard xmlns='vcard-temp'/>"),
        ("get", "<vCard xmlns='vcard-temp'/>"),
        ("get", "<query xmlns='jabber:iq:register'/>"),
        ("set", "<query xmlns='jabber:iq:register'><remove/></query>"),
        ("get", "<ping xmlns='urn:xmpp:ping'/>"),
        ("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
        ("get", "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>"),
        ("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>"),
        ("get", "<query xmlns='http://jabber.org/protocol/disco#items' node='n'/>"),
        ("set", "<query xmlns='http://jabber.org/protocol/disco#items'/>"),
        ("get", "<x xmlns='urn:x'/>"),
    ] {
        for resource in ["", "/nowhere"] {
            let mut answers = Vec::new();
            for name in ["juliet", "nobody"] {
                romeo.send(&format!(
                    "<iq type='{kind}' id='q' to='{name}@localhost{resource}'>{payload}</iq>"
                ));
                answers.push(romeo.expect("id='q'").await.replace(name, "somebody"));
            }
            assert_eq!(answers[0], answers[1], "{payload}");
        }
    }
    // What leaves no trace with her tells nothing of others.
    juliet.quit();
    for message in [
        "<message to='N@localhost' type='headline'><body>news</body></message>",
        "<message to='N@localhost' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
        "<message to='N@localhost'/>",
        "<message to='N@localhost/x' type='chat'/>",
        "<presence to='N@localhost'/>",
        "<presence to='N@localhost' type='subscribe'/>",
        "<presence to='N@localhost' type='unsubscribe'/>",
        "<presence to='N@localhost' type='probe'/>",
    ] {
        for name in ["juliet", "nobody"] {
            romeo.send(&message.replace('N', name));
            romeo.nothing().await;
        }
    }
    for name in ["juliet", "nobody"] {
        romeo
            .send(&format!("<message to='{name}@localhost/x' type='normal' id='m'><body>x</body></message>"));
        romeo.expect("service-unavailable").await;
    }
}

#[tokio::test]
async fn who_never_was_available_tells_only_those_whom_it_told() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut nurse = world.online("nurse", "hall").await;
    let mut juliet = world.online("juliet", "balcony").await;
    romeo.send(&ask("juliet", ""));
    juliet.expect("type='subscribe'").await;
    juliet.send("<presence to='romeo@localhost' type='subscribed'/>");
    romeo.until("from='juliet@localhost/balcony'").await;
    let mut secret = world.bind("juliet", "secret").await;
    secret.send("<presence type='unavailable'/>");
    secret.send("<presence to='nurse@localhost/hall'/>");
    nurse.expect("juliet@localhost/secret").await;
    secret.send("<presence type='unavailable'><status>bye</status></presence>");
    nurse.expect("bye").await;
    secret.settled().await;
    romeo.nothing().await;
    juliet.nothing().await;
    secret.quit();
    nurse.nothing().await;
}

#[tokio::test]
async fn a_store_that_is_away_is_told_as_such() {
    let world = World::new().await;
    let mut juliet = world.online("juliet", "balcony").await;
    juliet.nothing().await;
    world.faults.set_reachable(false);
    juliet.send("<presence id='p' to='romeo@localhost' type='subscribe'/>");
    let got = juliet.expect("resource-constraint").await;
    assert!(got.contains("type='wait'"), "{got}");
    for request in [
        "<iq type='get' id='q'><query xmlns='jabber:iq:roster'/></iq>",
        "<iq type='set' id='q'><query xmlns='jabber:iq:roster'><item jid='a@b'/></query></iq>",
        "<iq type='set' id='q'><query xmlns='jabber:iq:roster'><item jid='a@b' subscription='remove'/></query></iq>",
    ] {
        juliet.send(request);
        let got = juliet.expect("resource-constraint").await;
        assert!(got.contains("type='wait'"), "{got}");
    }
}
