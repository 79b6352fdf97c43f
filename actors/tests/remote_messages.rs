//! Messages and requests between users here and people on another server: archives, carbons, offline users, blocks, errors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/far.rs"]
mod far;
mod support;

use far::{Far, JULIET, scene};
use rookery_actors::options::Archive;
use rookery_cluster::entity::Entity;
use rookery_cluster::tables::archive;
use rookery_proto::xmpp::error::Condition;
use support::{Client, World};

fn chat(from: &str, to: &str, body: &str) -> String {
    format!("<message from='{from}' to='{to}' type='chat' id='{body}'><body>{body}</body></message>")
}

fn says(body: &str) -> String {
    format!("<message to='{JULIET}' type='chat' id='{body}'><body>{body}</body></message>")
}

fn error(from: &str, to: &str, id: &str, kind: &str) -> String {
    format!(
        "<message from='{from}' to='{to}' type='error' id='{id}'><error type='{kind}'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
    )
}

/// The bodies in a user's archive.
async fn archived(world: &World, name: &str) -> Vec<String> {
    let user = &Entity::new(format!("{name}@localhost"));
    let read = world.store.read(|tx| {
        Box::pin(async move {
            let all = archive::Query::all(1_000);
            archive::page(&mut **tx, archive::Collection::Archive, user, &all).await
        })
    });
    let bodies = read.await.unwrap().entries.into_iter().map(|(_, entry)| {
        let text = String::from_utf8(entry.stanza.to_vec()).unwrap();
        text.split("<body>").nth(1).and_then(|rest| rest.split('<').next()).unwrap_or_default().to_owned()
    });
    bodies.collect()
}

/// The archive comes to this.
async fn becomes(world: &World, name: &str, bodies: &[&str]) {
    let same = async {
        while archived(world, name).await != bodies {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await; // the store gives no event
        }
    };
    let within = tokio::time::timeout(std::time::Duration::from_secs(10), same).await;
    assert!(within.is_ok(), "{:?} instead of {bodies:?}", archived(world, name).await);
}

async fn blocking(client: &mut Client, what: &str, who: &str) {
    client.send(&format!(
        "<iq type='set' id='b'><{what} xmlns='urn:xmpp:blocking'><item jid='{who}'/></{what}></iq>"
    ));
    client.until("id='b'").await;
}

#[tokio::test]
async fn messages_are_archived_and_copied_both_ways() {
    let (world, far) = scene(Archive::Always).await;
    let mut phone = world.online("romeo", "phone").await;
    let mut desk = world.online("romeo", "desk").await;
    desk.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    desk.until("id='c'").await;
    phone.until("romeo@localhost/desk").await;
    phone.send(&says("to her"));
    let got = far.expect("<body>to her</body>").await;
    assert!(got.contains("from='romeo@localhost/phone' to='juliet@far.example'"), "{got}");
    let copy = desk.expect("<sent xmlns='urn:xmpp:carbons:2'>").await;
    assert!(copy.contains("to her"), "{copy}");
    far.send(&chat("juliet@far.example/b", "romeo@localhost/phone", "to him"));
    let got = phone.expect("<body>to him</body>").await;
    assert!(got.contains("by='romeo@localhost'"), "{got}");
    let copy = desk.expect("<received xmlns='urn:xmpp:carbons:2'>").await;
    assert!(copy.contains("to him"), "{copy}");
    phone.settled().await;
    assert_eq!(archived(&world, "romeo").await, ["to her", "to him"]);
    far.nothing().await;
}

#[tokio::test]
async fn messages_wait_for_who_is_away() {
    for archive in [Archive::Always, Archive::Never] {
        let (world, far) = scene(archive).await;
        far.send(&chat("juliet@far.example/b", "romeo@localhost", "one"));
        far.send(&chat("juliet@far.example/b", "romeo@localhost/gone", "two"));
        far.send("<message from='juliet@far.example/b' to='romeo@localhost' type='headline' id='h'><body>news</body></message>");
        far.nothing().await;
        let mut phone = world.online("romeo", "phone").await;
        for body in ["one", "two"] {
            let got = phone.expect(&format!("<body>{body}</body>")).await;
            assert!(got.contains("urn:xmpp:delay"), "{got}");
        }
        phone.nothing().await;
    }
}

#[tokio::test]
async fn a_message_that_the_link_refuses_is_archived_nowhere() {
    let world = World::with(far::near).await;
    let far = Far::of(&world);
    let mut phone = world.online("romeo", "phone").await;
    phone.send(&says("before"));
    far.expect("before").await;
    far.refuses(Some(Condition::RemoteServerNotFound));
    phone.send(&says("refused"));
    let got = phone.expect("type='error'").await;
    assert!(got.contains("remote-server-not-found") && got.contains("id='refused'"), "{got}");
    far.refuses(None);
    phone.send(&says("after"));
    far.expect("after").await;
    becomes(&world, "romeo", &["before", "after"]).await;
    phone.settled().await;
}

/// The link, or the other server, says so later.
#[tokio::test]
async fn a_message_that_was_acknowledged_and_is_refused_later_leaves_the_archive() {
    let (world, far) = scene(Archive::Always).await;
    let mut phone = world.online("romeo", "phone").await;
    let mut desk = world.online("romeo", "desk").await;
    phone.until("romeo@localhost/desk").await;
    desk.until("romeo@localhost/phone").await;
    for body in ["one", "two", "three"] {
        phone.send(&says(body));
        far.expect(body).await;
    }
    phone.settled().await;
    // Not by a warning, nor by somebody else, nor for another id.
    far.send(&error("juliet@far.example/b", "romeo@localhost/phone", "one", "continue"));
    far.send(&error("other@far.example", "romeo@localhost/phone", "one", "cancel"));
    far.send(&error(JULIET, "romeo@localhost/phone", "four", "cancel"));
    far.send(&error("juliet@far.example/b", "romeo@localhost/phone", "two", "cancel"));
    for id in ["one", "one", "four", "two"] {
        phone.expect(&format!("id='{id}'")).await;
    }
    becomes(&world, "romeo", &["one", "three"]).await;
    desk.nothing().await;
    // The session has gone: the archive is put right all the same.
    phone.quit();
    desk.expect("type='unavailable'").await;
    far.send(&error(JULIET, "romeo@localhost/phone", "three", "cancel"));
    becomes(&world, "romeo", &["one"]).await;
    desk.expect("id='three'").await;
    desk.nothing().await;
    // A new home of his remembers nothing of what he has sent.
    let world = world.restart().await;
    let far = Far::of(&world);
    far.send(&error(JULIET, "romeo@localhost/phone", "one", "cancel"));
    becomes(&world, "romeo", &[]).await;
}

/// As a link does that gives up, or a server that has stood still.
#[tokio::test]
async fn many_that_are_refused_at_once_leave_the_archive_of_a_user_who_was_just_read() {
    let (world, far) = scene(Archive::Always).await;
    let mut phone = world.online("romeo", "phone").await;
    let bodies: Vec<String> = (0..50).map(|n| format!("b{n}")).collect();
    for body in &bodies {
        phone.send(&says(body));
        far.expect(&format!(">{body}<")).await;
    }
    phone.settled().await;
    let world = world.restart().await;
    let far = Far::of(&world);
    for body in bodies.iter().skip(1) {
        far.send(&error(JULIET, "romeo@localhost/phone", body, "wait"));
    }
    becomes(&world, "romeo", &["b0"]).await;
}

#[tokio::test]
async fn what_has_long_been_said_cannot_be_taken_back() {
    let (world, far) = scene(Archive::Always).await;
    let user = &Entity::new("romeo@localhost");
    let stanza = format!("<message from='romeo@localhost/phone' {}", &says("old")[9..]);
    let entry = &archive::Entry {
        with: JULIET.into(),
        direction: archive::Direction::Out.into(),
        stanza: stanza.into_bytes().into(),
        ..archive::Entry::default()
    };
    let wrote = world.store.write(Default::default(), |tx| {
        Box::pin(async move {
            let id = archive::ArchiveId::first_at(1_700_000_000_000_000);
            archive::append(&mut **tx, archive::Collection::Archive, user, id, entry, None).map(|_| ())
        })
    });
    wrote.await.unwrap();
    far.send(&error(JULIET, "romeo@localhost/phone", "old", "cancel"));
    let mut phone = world.online("romeo", "phone").await;
    phone.send(&says("new"));
    far.expect("new").await;
    phone.settled().await;
    far.send(&error(JULIET, "romeo@localhost/phone", "new", "cancel"));
    becomes(&world, "romeo", &["old"]).await;
}

#[tokio::test]
async fn a_block_holds_for_an_address_and_for_a_domain_both_ways() {
    for what in [JULIET, "far.example"] {
        let (world, far) = scene(Archive::Always).await;
        let mut phone = world.online("romeo", "phone").await;
        blocking(&mut phone, "block", what).await;
        phone.send(&says("out"));
        let refused = phone.expect("type='error'").await;
        assert!(
            refused.contains("not-acceptable") && refused.contains("urn:xmpp:blocking:errors"),
            "{refused}"
        );
        far.send(&chat("juliet@far.example/b", "romeo@localhost", "in"));
        // As from an account that does not exist.
        let there = far.expect("type='error'").await;
        far.send(&chat("juliet@far.example/b", "nobody@localhost", "in"));
        let nobody = far.expect("type='error'").await;
        assert_eq!(there.replace("romeo", "nobody"), nobody);
        for id in ["version", "vCard"] {
            let child = if id == "version" {
                "<query xmlns='jabber:iq:version'/>"
            } else {
                "<vCard xmlns='vcard-temp'/>"
            };
            far.send(&format!(
                "<iq from='juliet@far.example/b' to='romeo@localhost' type='get' id='{id}'>{child}</iq>"
            ));
            far.expect("service-unavailable").await;
        }
        phone.settled().await;
        assert_eq!(archived(&world, "romeo").await, [""; 0]);
        phone.nothing().await;
        // Another address of that domain is heard, unless the domain is blocked.
        far.send(&chat("other@far.example/b", "romeo@localhost", "hello"));
        if what == JULIET {
            drop(phone.expect("hello").await)
        } else {
            drop(far.expect("service-unavailable").await)
        }
        blocking(&mut phone, "unblock", what).await;
        far.send(&chat("juliet@far.example/b", "romeo@localhost", "again"));
        phone.expect("again").await;
    }
}

/// What waits for a user who is away is not delivered once its sender is blocked.
#[tokio::test]
async fn a_block_hides_what_waits() {
    for archive in [Archive::Always, Archive::Never] {
        let (world, far) = scene(archive).await;
        far.send(&chat("juliet@far.example/b", "romeo@localhost", "hidden"));
        far.send(&chat("nurse@near.example/b", "romeo@localhost", "shown"));
        far.nothing().await;
        let mut phone = world.bind("romeo", "phone").await;
        blocking(&mut phone, "block", "far.example").await;
        phone.send("<presence/>");
        phone.until("<presence").await;
        phone.expect("shown").await;
        phone.nothing().await;
    }
}

#[tokio::test]
async fn requests_go_and_come_back_to_the_session_that_has_asked() {
    let world = World::with(far::near).await;
    let far = Far::of(&world);
    let mut phone = world.online("romeo", "phone").await;
    let mut desk = world.online("romeo", "desk").await;
    phone.until("romeo@localhost/desk").await;
    desk.until("romeo@localhost/phone").await;
    phone.send(&format!("<iq to='{JULIET}' type='get' id='q1'><vCard xmlns='vcard-temp'/></iq>"));
    far.expect("from='romeo@localhost/phone' to='juliet@far.example' id='q1'").await;
    far.send(&format!("<iq from='{JULIET}' to='romeo@localhost/phone' type='result' id='q1'><vCard xmlns='vcard-temp'/></iq>"));
    phone.expect("id='q1'").await;
    desk.send(
        "<iq to='far.example' type='get' id='q2'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    );
    far.expect("to='far.example' id='q2'").await;
    far.send("<iq from='far.example' to='romeo@localhost/desk' type='error' id='q2'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>");
    desk.expect("service-unavailable").await;
    far.refuses(Some(Condition::RemoteServerTimeout));
    phone.send("<iq to='far.example' type='get' id='q3'><ping xmlns='urn:xmpp:ping'/></iq>");
    phone.expect("remote-server-timeout").await;
    far.refuses(None);
    // A request to a client, answered by it.
    far.send("<iq from='juliet@far.example/b' to='romeo@localhost/desk' type='get' id='q4'><query xmlns='jabber:iq:version'/></iq>");
    desk.expect("id='q4'").await;
    desk.send("<iq to='juliet@far.example/b' type='result' id='q4'/>");
    far.expect("id='q4' type='result'").await;
    // Answers that nobody has asked for go nowhere.
    far.send(&format!("<iq from='{JULIET}' to='romeo@localhost' type='result' id='q5'/>"));
    far.send(&format!("<iq from='{JULIET}' to='localhost' type='result' id='q5'/>"));
    far.nothing().await;
    phone.nothing().await;
    desk.nothing().await;
}

/// What strangers elsewhere may ask of the server and of an account, and that they do not learn which accounts exist.
#[tokio::test]
async fn strangers_learn_what_anybody_may_know() {
    let (world, far) = scene(Archive::Always).await;
    let mut phone = world.online("romeo", "phone").await;
    let ask = |to: &str, method: &str, child: &str| {
        format!("<iq from='s@far.example/x' to='{to}' type='{method}' id='1'>{child}</iq>")
    };
    for (child, wanted) in [
        ("<query xmlns='http://jabber.org/protocol/disco#info'/>", "category='server' type='im'"),
        ("<query xmlns='http://jabber.org/protocol/disco#items'/>", "type='result'"),
        ("<query xmlns='jabber:iq:version'/>", "type='result'"),
        ("<query xmlns='jabber:iq:last'/>", "seconds="),
        ("<ping xmlns='urn:xmpp:ping'/>", "type='result'"),
        ("<time xmlns='urn:xmpp:time'/>", "type='result'"),
        ("<query xmlns='jabber:iq:register'/>", "service-unavailable"),
        ("<blocklist xmlns='urn:xmpp:blocking'/>", "service-unavailable"),
    ] {
        far.send(&ask("localhost", "get", child));
        far.expect(wanted).await;
    }
    for (method, child, wanted) in [
        ("get", "<vCard xmlns='vcard-temp'/>", "-"),
        ("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", "service-unavailable"),
        ("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", "disco#items'/>"),
        ("get", "<query xmlns='jabber:iq:last'/>", "service-unavailable"),
        ("get", "<ping xmlns='urn:xmpp:ping'/>", "service-unavailable"),
        ("get", "<query xmlns='jabber:iq:roster'/>", "service-unavailable"),
        ("set", "<query xmlns='urn:xmpp:mam:2'/>", "service-unavailable"),
        ("set", "<query xmlns='jabber:iq:roster'><item jid='a@b'/></query>", "service-unavailable"),
        ("set", "<vCard xmlns='vcard-temp'/>", "service-unavailable"),
        ("set", "<block xmlns='urn:xmpp:blocking'><item jid='a@b'/></block>", "service-unavailable"),
        ("get", "<query xmlns='jabber:iq:private'><x xmlns='urn:x'/></query>", "service-unavailable"),
        ("get", "<nothing xmlns='urn:x'/>", "service-unavailable"),
    ] {
        far.send(&ask("romeo@localhost", method, child));
        let there = far.recv().await;
        far.send(&ask("nobody@localhost", method, child));
        let nobody = far.recv().await;
        assert!(wanted == "-" || there.contains(wanted), "{child}: {there}");
        assert_eq!(there.replace("romeo", "nobody"), nobody, "{child}");
    }
    // Nor by messages that an account would forget.
    for to in ["nurse@localhost", "nobody@localhost", "nurse@localhost/x", "nobody@localhost/x"] {
        far.send(&format!("<message from='s@far.example/x' to='{to}' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"));
        far.send(&format!(
            "<message from='s@far.example/x' to='{to}' type='headline'><body>x</body></message>"
        ));
        far.nothing().await;
    }
    phone.nothing().await;
}

/// A sender that asks too much is told so, and others are answered.
#[tokio::test]
async fn the_requests_of_one_stranger_are_bounded() {
    let (_world, far) = scene(Archive::Always).await;
    let ask = |from: &str, id: &str| {
        format!(
            "<iq from='{from}@far.example/x' to='romeo@localhost' type='get' id='{id}'><vCard xmlns='vcard-temp'/></iq>"
        )
    };
    for n in 0..100 {
        far.send(&ask("greedy", &format!("g{n}")));
    }
    far.send(&ask("modest", "m"));
    let (mut refused, mut modest) = (0, false);
    for _ in 0..101 {
        let got = far.recv().await;
        refused += usize::from(got.contains("resource-constraint"));
        modest |= got.contains("id='m'") && !got.contains("resource-constraint");
    }
    assert!(refused > 50 && modest, "{refused} refused, modest answered: {modest}");
}
