//! Who gets a message (RFC 6121 section 8.5), live, from the store and after a session has ended: full JIDs of resources
//! that are gone, sessions that sleep, are replaced or expire, negative priorities, carbons.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use rookery_cluster::tables::archive;
use rookery_proto::xmpp::jid::Jid;
use support::{Client, World};

fn chat(to: &str, body: &str) -> String {
    format!("<message to='{to}' type='chat' id='{body}'><body>{body}</body></message>")
}

async fn resumable(world: &World, name: &str, resource: &str, presence: &str) -> Client {
    let mut client = world.bind(name, resource).await;
    client.resumable().await;
    client.send(presence);
    client.expect("<presence").await;
    client
}

async fn phone(world: &World, name: &str) -> Client {
    resumable(world, name, "phone", "<presence/>").await
}

async fn carbons(client: &mut Client) {
    client.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    client.until("id='c'").await;
}

/// Its connection is lost, and the server knows.
async fn sleeps(mut client: Client) -> Client {
    client.ack();
    client.settled().await;
    client.lose();
    client
}

/// What the session has changed is written before what comes later.
async fn recorded(world: &World) {
    let mut nurse = world.bind("nurse", "kitchen").await;
    for other in ["one", "two"] {
        nurse.send(&chat("romeo@localhost", other));
        nurse.settled().await;
    }
}

/// No message waits for it.
async fn no_message(client: &mut Client) {
    client.send("<iq type='get' id='end' to='localhost'><query xmlns='urn:x'/></iq>");
    loop {
        let got = client.recv().await;
        assert!(!got.contains("<message"), "{got}");
        if got.contains("id='end'") {
            return;
        }
    }
}

async fn kick(world: &World, jid: &str) {
    assert_eq!(world.host.kick(&Jid::parse(jid).unwrap(), "it is over").await, 1);
}

async fn says(world: &World, to: &str, bodies: &[&str]) {
    let mut romeo = world.bind("romeo", "orchard").await;
    for body in bodies {
        romeo.send(&chat(to, body));
    }
    romeo.settled().await;
    romeo.nothing().await; // no error either
}

/// RFC 6121 section 8.5.3.2.1, where the session comes back from its record.
#[tokio::test]
async fn a_chat_to_a_resource_that_is_gone_comes_after_a_restart() {
    for with_carbons in [false, true] {
        let world = World::new().await;
        let mut juliet = phone(&world, "juliet").await;
        if with_carbons {
            carbons(&mut juliet).await;
        }
        let juliet = sleeps(juliet).await;
        says(&world, "juliet@localhost/gone", &["one"]).await;
        says(&world, "juliet@localhost", &["two"]).await;
        says(&world, "juliet@localhost/phone", &["three"]).await;
        recorded(&world).await;
        let world = world.restart().await;
        let mut juliet = world.resume(&juliet).await.unwrap();
        juliet.expect("<resumed").await;
        for body in ["one", "two", "three"] {
            let got = juliet.until("<body>").await;
            assert!(got.contains(body) && !got.contains("<received"), "{got}");
        }
        juliet.nothing().await;
    }
}

#[tokio::test]
async fn a_chat_to_a_resource_that_is_gone_comes_during_the_offline_drain() {
    let world = World::new().await;
    let many: Vec<String> = (0..101).map(|n| format!("m{n}-")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    says(&world, "juliet@localhost", &many).await;
    let mut juliet = world.bind("juliet", "phone").await;
    juliet.resumable().await;
    juliet.quiet = true;
    juliet.send("<presence/>");
    for body in &many[..100] {
        juliet.until(&format!("<body>{body}</body>")).await;
    }
    says(&world, "juliet@localhost/gone", &["gone"]).await;
    juliet.quiet = false;
    juliet.ack();
    juliet.until("<body>m100-</body>").await;
    juliet.until("<body>gone</body>").await;
    juliet.nothing().await;
}

#[tokio::test]
async fn a_burst_to_a_resource_that_is_gone_meets_a_login() {
    let world = World::new().await;
    for round in 0..5 {
        says(&world, "juliet@localhost", &["offline"]).await;
        let mut romeo = world.bind("romeo", "orchard").await;
        for n in 0..20 {
            romeo.send(&chat("juliet@localhost/gone", &format!("r{round}m{n}-")));
        }
        let mut juliet = world.bind("juliet", "phone").await;
        juliet.send("<presence/>");
        for n in 20..40 {
            romeo.send(&chat("juliet@localhost/gone", &format!("r{round}m{n}-")));
        }
        juliet.until("<body>offline</body>").await;
        for n in 0..40 {
            juliet.until(&format!("<body>r{round}m{n}-</body>")).await;
        }
        juliet.nothing().await;
        juliet.quit();
    }
}

/// What only a sleeping session was to get is not lost with it, whoever is there by then.
#[tokio::test]
async fn what_a_session_had_not_got_goes_to_another_device() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum End {
        Expired,
        Replaced,
    }
    for end in [End::Expired, End::Replaced] {
        for full in [false, true] {
            for restart in [false, true] {
                println!("{end:?}, full JID: {full}, restart: {restart}");
                let resume = if end == End::Expired && !restart { 1 } else { 600 };
                let world = World::with(|o| o.resume = Duration::from_secs(resume)).await;
                let mut juliet = phone(&world, "juliet").await;
                juliet.nothing().await;
                sleeps(juliet).await;
                let to = if full { "juliet@localhost/phone" } else { "juliet@localhost" };
                says(&world, to, &["missed"]).await;
                recorded(&world).await;
                let world = if restart { world.restart().await } else { world };
                let mut tablet = world.online("juliet", "tablet").await;
                if resume > 1 {
                    carbons(&mut tablet).await; // to see a copy now would not be to have had one then
                    no_message(&mut tablet).await;
                }
                if end == End::Expired && restart {
                    kick(&world, "juliet@localhost/phone").await;
                } else if end == End::Replaced {
                    let mut phone = world.online("juliet", "phone").await;
                    phone.until("tablet").await;
                }
                let got = tablet.until("<message").await;
                assert!(got.contains("missed") && got.contains("urn:xmpp:delay"), "{got}");
                // Once: it is offline for no device any more.
                no_message(&mut tablet).await;
                says(&world, "juliet@localhost", &["later"]).await;
                tablet.until("<body>later</body>").await;
                tablet.quit();
                let mut desk = world.online("juliet", "desk").await;
                no_message(&mut desk).await;
            }
        }
    }
}

/// What another device has got live is not offline when the first one ends.
#[tokio::test]
async fn what_another_device_has_got_does_not_come_again() {
    let world = World::new().await;
    let mut tablet = resumable(&world, "juliet", "tablet", "<presence/>").await;
    carbons(&mut tablet).await;
    let phone = sleeps(phone(&world, "juliet").await).await;
    says(&world, "juliet@localhost", &["both"]).await;
    says(&world, "juliet@localhost/phone", &["copied"]).await;
    tablet.until("<body>both</body>").await;
    tablet.until("<received").await;
    tablet.nothing().await;
    tablet.ack();
    // One that came later and saw neither, and one that has seen both and goes before the phone expires.
    tablet.quit();
    let mut desk = world.online("juliet", "desk").await;
    kick(&world, "juliet@localhost/phone").await;
    desk.until("type='unavailable'").await;
    desk.nothing().await;
    drop(phone);
    says(&world, "juliet@localhost", &["later"]).await;
    let got = desk.until("<body>").await;
    assert!(got.contains("later"), "{got}");
    desk.nothing().await;
}

/// A message to the full JID of a session that was not available, or had a negative priority, was its own.
#[tokio::test]
async fn what_a_session_got_by_its_full_jid_is_not_offline() {
    let world = World::new().await;
    for presence in ["", "<presence><priority>-1</priority></presence>"] {
        says(&world, "juliet@localhost", &["offline"]).await;
        let mut phone = world.bind("juliet", "phone").await;
        phone.resumable().await;
        if !presence.is_empty() {
            phone.send(presence);
            phone.expect("<presence").await;
        }
        says(&world, "juliet@localhost/phone", &["mine"]).await;
        phone.until("<body>mine</body>").await;
        phone.nothing().await;
        let mut tablet = world.online("juliet", "tablet").await;
        tablet.until("<body>offline</body>").await;
        tablet.nothing().await;
        phone.send("<presence/>");
        no_message(&mut phone).await;
        tablet.quit();
        phone.quit();
    }
}

/// Two sessions sleep over a restart; each gets what was for it, and what both were to get comes to both.
#[tokio::test]
async fn sessions_that_sleep_over_a_restart_get_what_each_was_to_get() {
    let world = World::new().await;
    let mut quiet =
        resumable(&world, "juliet", "quiet", "<presence><priority>-1</priority></presence>").await;
    carbons(&mut quiet).await;
    let quiet = sleeps(quiet).await;
    let one = sleeps(resumable(&world, "juliet", "one", "<presence/>").await).await;
    says(&world, "juliet@localhost", &["first"]).await;
    let two = sleeps(resumable(&world, "juliet", "two", "<presence/>").await).await;
    says(&world, "juliet@localhost/gone", &["second"]).await;
    says(&world, "juliet@localhost/quiet", &["third"]).await;
    recorded(&world).await;
    let world = world.restart().await;
    for (lost, messages, copies) in [
        (one, &["first", "second"][..], &[][..]),
        (two, &["second"], &[]),
        (quiet, &["third"], &["first", "second"]),
    ] {
        let mut client = world.resume(&lost).await.unwrap();
        client.expect("<resumed").await;
        client.send("<iq type='get' id='end' to='localhost'><query xmlns='urn:x'/></iq>");
        let (mut got, mut copied) = (Vec::new(), Vec::new());
        let wanted = messages.len() + copies.len();
        let mut ended = false;
        while got.len() + copied.len() < wanted || !ended {
            let stanza = client.recv().await;
            ended |= stanza.contains("id='end'");
            let Some((_, rest)) = stanza.split_once("<body>") else { continue };
            let body = rest.split('<').next().unwrap().to_owned();
            if stanza.contains("<received") { copied.push(body) } else { got.push(body) }
        }
        assert_eq!((got, copied), (owned(messages), owned(copies)), "{}", lost.id);
        client.nothing().await;
    }
}

/// A private message is copied to no device, also when that comes back from the store.
#[tokio::test]
async fn a_private_message_is_not_copied_after_a_restart() {
    let world = World::new().await;
    let mut tablet = resumable(&world, "juliet", "tablet", "<presence/>").await;
    carbons(&mut tablet).await;
    let mut phone = phone(&world, "juliet").await;
    no_message(&mut phone).await;
    let tablet = sleeps(tablet).await;
    let private = "<body>private</body><private xmlns='urn:xmpp:carbons:2'/>";
    let mut romeo = world.bind("romeo", "orchard").await;
    romeo.send(&format!("<message to='juliet@localhost/phone' type='chat' id='p'>{private}</message>"));
    romeo.settled().await;
    phone.until("private").await;
    phone.send(&format!("<message to='romeo@localhost' type='chat' id='q'>{private}</message>"));
    phone.settled().await;
    says(&world, "juliet@localhost", &["last"]).await;
    recorded(&world).await;
    let world = world.restart().await;
    let mut tablet = world.resume(&tablet).await.unwrap();
    let got = tablet.until("<body>").await;
    assert!(got.contains("last"), "{got}");
}

/// The store does not answer while a session is served from it: what is left comes when it does.
#[tokio::test]
async fn a_store_that_fails_during_a_drain_is_asked_again() {
    let world = World::new().await;
    let many: Vec<String> = (0..150).map(|n| format!("m{n}-")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    says(&world, "juliet@localhost", &many).await;
    let mut juliet = world.bind("juliet", "phone").await;
    juliet.resumable().await;
    juliet.quiet = true;
    juliet.send("<presence/>");
    juliet.until("<body>m99-</body>").await;
    says(&world, "juliet@localhost", &["live"]).await;
    world.faults.set_reachable(false);
    juliet.quiet = false;
    juliet.ack();
    juliet.nothing().await;
    tokio::time::sleep(Duration::from_millis(100)).await; // the page is asked for
    world.faults.set_reachable(true);
    for body in many[100..].iter().chain(&["live"]) {
        juliet.until(&format!("<body>{body}</body>")).await;
    }
    juliet.nothing().await;
}

/// Directed presence is taken back after a restart too (RFC 6121 section 4.6.3).
#[tokio::test]
async fn directed_presence_outlives_the_process() {
    let world = World::new().await;
    let mut juliet = phone(&world, "juliet").await;
    let mut romeo = resumable(&world, "romeo", "orchard", "<presence/>").await;
    juliet.send("<presence to='romeo@localhost/orchard'/>");
    romeo.until("juliet@localhost/phone").await;
    let (juliet, romeo) = (sleeps(juliet).await, sleeps(romeo).await);
    recorded(&world).await;
    let world = world.restart().await;
    let mut romeo = world.resume(&romeo).await.unwrap();
    let juliet = world.resume(&juliet).await.unwrap();
    juliet.quit();
    let got = romeo.until("juliet@localhost/phone").await;
    assert!(got.contains("unavailable"), "{got}");
}

/// A contact that went while a session slept is no ghost, also when that contact's user is in memory.
#[tokio::test]
async fn a_contact_that_left_during_a_restart_is_no_ghost() {
    let world = World::new().await;
    let mut juliet = phone(&world, "juliet").await;
    let mut romeo = phone(&world, "romeo").await;
    juliet.send("<presence to='romeo@localhost' type='subscribe'/>");
    romeo.until("type='subscribe'").await;
    romeo.send("<presence to='juliet@localhost' type='subscribed'/>");
    juliet.until("from='romeo@localhost/phone'").await;
    juliet.nothing().await;
    let juliet = sleeps(juliet).await;
    // He is there, with a session that is not available.
    romeo.send("<presence type='unavailable'/>");
    romeo.settled().await;
    sleeps(romeo).await;
    recorded(&world).await;
    let world = world.restart().await;
    let mut juliet = world.resume(&juliet).await.unwrap();
    let got = juliet.until("from='romeo@localhost").await;
    assert!(got.contains("unavailable"), "{got}");
}

fn owned(bodies: &[&str]) -> Vec<String> {
    bodies.iter().map(ToString::to_string).collect()
}

/// Answers, errors and headlines for a session that sleeps; a restart in order.
#[tokio::test]
async fn what_is_archived_nowhere_outlives_the_process_too() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let juliet = sleeps(phone(&world, "juliet").await).await;
    for stanza in [
        "<iq to='juliet@localhost/phone' type='result' id='answer'/>",
        "<iq to='juliet@localhost/phone' type='get' id='question'><query xmlns='urn:x'/></iq>",
        "<message to='juliet@localhost/phone' type='error' id='error'><error type='wait'/></message>",
        "<message to='juliet@localhost/phone' type='headline' id='headline'><body>news</body></message>",
        "<message to='juliet@localhost/phone' type='chat' id='state'><active xmlns='http://jabber.org/protocol/chatstates'/></message>",
    ] {
        romeo.send(stanza);
    }
    romeo.settled().await;
    world.host.shutdown().await;
    let world = world.restart().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.resume(&juliet).await.unwrap();
    juliet.expect("<resumed").await;
    for id in ["answer", "question", "error", "headline"] {
        juliet.until(&format!("id='{id}'")).await;
    }
    juliet.send("<iq to='romeo@localhost/orchard' type='result' id='question'/>");
    romeo.until("id='question'").await;
    no_more(&mut juliet).await;
    // Each came once, and lies nowhere any more.
    juliet.quit();
    let mut tablet = world.online("juliet", "tablet").await;
    no_message(&mut tablet).await;
    recorded(&world).await;
    assert_eq!(queue(&world, "juliet").await, 0);
}

/// The same when it is killed: what was settled is durable.
#[tokio::test]
async fn what_was_settled_outlives_a_kill() {
    let world = World::new().await;
    let mut romeo = phone(&world, "romeo").await;
    let juliet = sleeps(phone(&world, "juliet").await).await;
    for id in ["q1", "q2"] {
        romeo.send(&format!(
            "<iq to='juliet@localhost/phone' type='get' id='{id}'><query xmlns='urn:x'/></iq>"
        ));
    }
    romeo.settled().await;
    recorded(&world).await;
    let world = world.restart().await;
    // One resumes and gets them; the requests of one that never comes back are answered.
    let mut romeo = world.resume(&romeo).await.unwrap();
    romeo.expect("<resumed").await;
    kick(&world, "juliet@localhost/phone").await;
    for id in ["q1", "q2"] {
        let got = romeo.until(&format!("id='{id}'")).await;
        assert!(got.contains("recipient-unavailable"), "{got}");
    }
    assert!(world.resume(&juliet).await.is_none());
    recorded(&world).await;
    assert_eq!(queue(&world, "juliet").await, 0);
}

/// Nothing comes but the answer to a request.
async fn no_more(client: &mut Client) {
    client.send("<iq type='get' id='end' to='localhost'><query xmlns='urn:x'/></iq>");
    client.expect("id='end'").await;
}

/// How much lies in a user's offline queue.
async fn queue(world: &World, name: &str) -> usize {
    let user = rookery_cluster::entity::Entity::new(format!("{name}@localhost"));
    let read = world.store.read(|tx| {
        let user = user.clone();
        Box::pin(async move {
            let query = archive::Query::all(100);
            archive::page(&mut **tx, archive::Shelf::Queue, &user, &query).await
        })
    });
    read.await.unwrap().entries.len()
}

/// A request whose answer was on its way when the server was killed is not called handled: its client asks again.
#[tokio::test]
async fn a_request_is_handled_when_its_answer_has_come() {
    let world = World::new().await;
    let mut juliet = phone(&world, "juliet").await;
    juliet.nothing().await;
    juliet.ack();
    let before = juliet.told().await;
    // She asks, and her connection takes the answer, which does not come through.
    juliet.quiet = true;
    let handled = juliet.handled;
    juliet.send("<iq type='get' id='lost' to='localhost'><query xmlns='urn:x'/></iq>");
    juliet.until("id='lost'").await;
    // She asks what is handled, and may be told as soon as the record says so.
    let pipe = juliet.pipe.clone();
    juliet.with(|link| link.ledger().wait(&pipe));
    recorded(&world).await;
    juliet.handled = handled;
    let world = world.restart().await;
    let mut juliet = world.resume(&juliet).await.unwrap();
    let resumed = juliet.expect("<resumed").await;
    assert!(resumed.contains(&format!("h='{before}'")), "{before}: {resumed}");
}

/// One verdict per message: what is refused is delivered nowhere and archived nowhere, and is said once.
#[tokio::test]
async fn what_is_refused_is_refused_once_and_everywhere() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    romeo.send(&chat("juliet@localhost", "before"));
    juliet.until("before").await;
    romeo.settled().await;
    world.faults.set_reachable(false);
    for body in ["one", "two"] {
        romeo.send(&chat("juliet@localhost", body));
    }
    for body in ["one", "two"] {
        let got = romeo.until("type='error'").await;
        assert!(got.contains(&format!("id='{body}'")) && got.contains("type='wait'"), "{got}");
    }
    world.faults.set_reachable(true);
    romeo.settled().await;
    no_more(&mut romeo).await;
    romeo.send(&chat("juliet@localhost", "after"));
    let got = juliet.until("<body>").await;
    assert!(got.contains("after"), "{got}");
    romeo.settled().await;
    for client in [&mut romeo, &mut juliet] {
        client.send("<iq type='set' id='mam'><query xmlns='urn:xmpp:mam:2'/></iq>");
        let mut found = Vec::new();
        loop {
            let got = client.recv().await;
            if got.contains("id='mam'") {
                break;
            }
            found
                .extend(got.split_once("<body>").map(|(_, rest)| rest.split('<').next().unwrap().to_owned()));
        }
        assert_eq!(found, ["before", "after"], "{}", client.user);
    }
}

/// The same where the store is well, and the recipient is not to be had.
#[tokio::test]
async fn what_nobody_takes_leaves_the_sender_s_archive() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    romeo.send(&chat("nobody@localhost", "lost"));
    romeo.until("service-unavailable").await;
    romeo.send(&chat("juliet@localhost", "kept"));
    romeo.settled().await;
    romeo.send("<iq type='set' id='mam'><query xmlns='urn:xmpp:mam:2'/></iq>");
    assert!(romeo.until("<body>").await.contains("kept"));
    romeo.until("id='mam'").await;
}
