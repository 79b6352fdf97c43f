//! What is settled is durable, what is refused leaves nothing, and each is said once: answers, errors and requests that are
//! archived nowhere, and both halves of a message.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;
#[path = "support/talk.rs"]
mod talk;

use support::World;
use talk::{chat, kick, no_message, no_more, phone, queue, recorded, sleeps};

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

/// Nothing tells a blocked contact whether the other is there (as ejabberd's pull requests 1086 and 1087 have it).
#[tokio::test]
async fn the_blocked_cannot_tell_whether_somebody_is_there() {
    let world = World::new().await;
    let mut juliet = world.online("juliet", "desk").await;
    juliet.send(
        "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='romeo@localhost'/></block></iq>",
    );
    juliet.until("id='b'").await;
    let mut romeo = world.bind("romeo", "orchard").await;
    let ask = [
        "<iq type='get' id='1' to='juliet@localhost'><query xmlns='jabber:iq:last'/></iq>",
        "<iq type='get' id='1' to='juliet@localhost/desk'><query xmlns='jabber:iq:last'/></iq>",
        "<iq type='get' id='1' to='juliet@localhost'><vCard xmlns='vcard-temp'/></iq>",
        "<iq type='get' id='1' to='juliet@localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
        "<iq type='get' id='1' to='juliet@localhost'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<message to='juliet@localhost' id='1' type='chat'><body>x</body></message>",
        "<message to='juliet@localhost/desk' id='1' type='chat'><body>x</body></message>",
        "<message to='juliet@localhost/desk' id='1'><body>x</body></message>",
    ];
    let mut answers = Vec::new();
    for there in [true, false] {
        let mut got = Vec::new();
        for ask in ask {
            romeo.send(ask);
            got.push(romeo.until("id='1'").await);
        }
        answers.push(got);
        if there {
            juliet.send("<presence type='unavailable'/>");
            juliet.settled().await;
            juliet.quit();
            juliet = world.bind("nurse", "x").await;
        }
    }
    assert_eq!(answers[0], answers[1]);
}

/// A stanza was lost inside the server, and a message behind it was refused. The client must send both again: it has the error, or
/// that waits for it, and it comes once.
#[tokio::test]
async fn what_is_sent_again_is_not_refused_again() {
    for (lost, has_error) in [(true, false), (true, true), (false, false), (false, true)] {
        let world = World::new().await;
        let mut romeo = phone(&world, "romeo").await;
        romeo.nothing().await;
        romeo.ack();
        let told = romeo.told().await;
        let handled = romeo.handled;
        romeo.with(|link| drop(link.ledger().enter()));
        romeo.send(&chat("nobody@localhost", "refused"));
        romeo.until("service-unavailable").await;
        if !has_error {
            romeo.handled = handled;
        }
        if lost {
            romeo.lose(); // the error goes into the offline queue
        }
        let mut romeo = world.resume(&romeo).await.unwrap();
        let resumed = romeo.expect("<resumed").await;
        assert!(resumed.contains(&format!("h='{told}'")), "{told}: {resumed}");
        if !has_error {
            romeo.expect("service-unavailable").await;
        }
        for (to, body) in [("juliet@localhost", "lost"), ("nobody@localhost", "refused")] {
            romeo.send(&chat(to, body));
        }
        romeo.ack();
        romeo.settled().await;
        no_more(&mut romeo).await;
        romeo.ack();
        assert_eq!(romeo.told().await, told + 3);
        // Something else in the place of a message is looked at.
        romeo.send(&chat("nobody@localhost", "refused"));
        romeo.expect("service-unavailable").await;
    }
}
