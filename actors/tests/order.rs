//! What a session sends takes effect in the order in which it was sent (RFC 6120 section 10.1), however slow the store is; and
//! neither the user's other sessions nor strangers wait for that, nor the user for them.
//!
//! Length: each kind of request behind each kind of change, on the same slow store.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/gate.rs"]
mod gate;
#[path = "support/nodes.rs"]
mod nodes;
mod support;

use gate::{Gate, Shut, gated};
use nodes::Nodes;
use rookery_actors::options::Archive;
use rookery_cluster::entity::Entity;
use rookery_cluster::store;
use rookery_cluster::store::keys::Kind;
use rookery_cluster::tables::roster;
use support::{Client, World};

/// A case is tried that often: the order must not be luck.
const TIMES: usize = 20;

/// The two see each other. Before their first session.
async fn friends(world: &World, one: &str, other: &str) {
    for (user, contact) in [(one, other), (other, one)] {
        let user = Entity::new(format!("{user}@localhost"));
        let jid = format!("{contact}@localhost");
        let item =
            &roster::Item { jid, subscription: roster::Subscription::Both.into(), ..Default::default() };
        let user = &user;
        let made = world.store.write(store::Options::default(), |tx| {
            Box::pin(async move { roster::put(&mut **tx, user, item) })
        });
        made.await.unwrap();
    }
}

fn chat(to: &str, id: &str) -> String {
    format!("<message to='{to}@localhost' type='chat' id='{id}'><body>{id}</body></message>")
}

fn iq(type_: &str, id: &str, child: &str) -> String {
    format!("<iq type='{type_}' id='{id}'>{child}</iq>")
}

fn blocking(name: &str) -> String {
    iq("set", name, &format!("<{name} xmlns='urn:xmpp:blocking'><item jid='juliet@localhost'/></{name}>"))
}

fn prefs(default: &str) -> String {
    let prefs = format!("<prefs xmlns='urn:xmpp:mam:2' default='{default}'><always/><never/></prefs>");
    iq("set", "prefs", &prefs)
}

const PRESENCE: &str = "<presence><status>for friends</status></presence>";
const HISTORY: &str = "<iq type='set' id='history'><query xmlns='urn:xmpp:mam:2'/></iq>";

/// Everything that was sent before has been taken by the user: a ping depends on nothing, so it is answered at once.
async fn taken(client: &mut Client) -> Vec<String> {
    client.send("<iq type='get' id='taken' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
    let mut before = Vec::new();
    loop {
        match client.recv().await {
            pong if pong.contains("id='taken'") => return before,
            other => before.push(other),
        }
    }
}

/// Sends all of it at once to a store that waits at `shut`; when all is taken, the store goes on.
async fn in_one_write(client: &mut Client, gate: &Gate, shut: Shut, stanzas: &[&str]) {
    gate.shut(shut);
    for stanza in stanzas {
        client.send(stanza);
    }
    let before = taken(client).await;
    assert!(before.is_empty(), "done before the store has: {before:?}");
    gate.open();
}

#[tokio::test]
async fn a_message_to_somebody_just_blocked_is_not_sent() {
    for _ in 0..TIMES {
        let (world, gate) = gated(Archive::Always).await;
        let mut romeo = world.online("romeo", "orchard").await;
        let mut juliet = world.online("juliet", "balcony").await;
        let sent = [&blocking("block"), chat("juliet", "late").as_str()].map(|s: &str| s.to_owned());
        let sent: Vec<&str> = sent.iter().map(String::as_str).collect();
        in_one_write(&mut romeo, &gate, Shut::Reads(Kind::Block), &sent).await;
        romeo.expect("id='block' type='result'").await;
        romeo.expect("<not-acceptable").await;
        romeo.settled().await;
        juliet.nothing().await;
    }
}

#[tokio::test]
async fn a_message_to_somebody_just_unblocked_is_sent() {
    for _ in 0..TIMES {
        let (world, gate) = gated(Archive::Always).await;
        let mut romeo = world.online("romeo", "orchard").await;
        let mut juliet = world.online("juliet", "balcony").await;
        romeo.send(&blocking("block"));
        romeo.expect("type='result'").await;
        let (unblock, message) = (blocking("unblock"), chat("juliet", "again"));
        in_one_write(&mut romeo, &gate, Shut::Commits(Kind::Block), &[&unblock, &message]).await;
        romeo.expect("id='unblock' type='result'").await;
        juliet.expect("<body>again</body>").await;
    }
}

/// A contact that is shut out by `act` does not see the presence that comes after it.
async fn presence_after(act: &str, shut: Shut) {
    for _ in 0..TIMES {
        let (world, gate) = gated(Archive::Always).await;
        friends(&world, "romeo", "juliet").await;
        let mut juliet = world.online("juliet", "balcony").await;
        let mut romeo = world.bind("romeo", "orchard").await;
        romeo.send("<presence/>");
        juliet.expect("<presence from='romeo@localhost/orchard'").await;
        romeo.settled().await;
        romeo.until("from='juliet@localhost/balcony'").await;
        in_one_write(&mut romeo, &gate, shut, &[act, PRESENCE]).await;
        romeo.until("for friends").await; // its own
        romeo.settled().await;
        juliet.send("<iq type='get' id='end' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
        loop {
            let got = juliet.recv().await;
            assert!(!got.contains("for friends"), "after {act}: {got}");
            if got.contains("id='end'") {
                break;
            }
        }
    }
}

#[tokio::test]
async fn somebody_just_blocked_does_not_see_the_new_presence() {
    presence_after(&blocking("block"), Shut::Commits(Kind::Block)).await;
}

#[tokio::test]
async fn somebody_who_may_no_longer_see_it_does_not_see_the_new_presence() {
    let act = "<presence to='juliet@localhost' type='unsubscribed'/>";
    presence_after(act, Shut::Commits(Kind::Roster)).await;
}

#[tokio::test]
async fn somebody_just_removed_does_not_see_the_new_presence() {
    let remove =
        "<query xmlns='jabber:iq:roster'><item jid='juliet@localhost' subscription='remove'/></query>";
    presence_after(&iq("set", "remove", remove), Shut::Commits(Kind::Roster)).await;
}

#[tokio::test]
async fn preferences_hold_for_the_message_behind_them() {
    for (operator, default, kept) in [(Archive::Always, "never", false), (Archive::Never, "always", true)] {
        for _ in 0..TIMES {
            let (world, gate) = gated(operator).await;
            let mut romeo = world.online("romeo", "orchard").await;
            let (prefs, message) = (prefs(default), chat("juliet", "kept"));
            in_one_write(&mut romeo, &gate, Shut::Commits(Kind::MamPrefs), &[&prefs, &message]).await;
            romeo.expect(&format!("default='{default}'")).await;
            romeo.settled().await;
            romeo.send(HISTORY);
            let first = romeo.recv().await;
            assert_eq!(first.contains("<body>kept</body>"), kept, "{default}: {first}");
        }
    }
}

#[tokio::test]
async fn what_was_sent_is_found_in_the_archive_at_once() {
    let metadata = "<iq type='get' id='metadata'><metadata xmlns='urn:xmpp:mam:2'/></iq>";
    let last = "<iq type='set' id='last'><query xmlns='urn:xmpp:mam:2'>\
                <set xmlns='http://jabber.org/protocol/rsm'><max>1</max><before/></set></query></iq>";
    for n in 0..TIMES {
        let (world, gate) = gated(Archive::Always).await;
        let mut romeo = world.online("romeo", "orchard").await;
        // To somebody else, and to oneself.
        let message = chat(if n % 2 == 0 { "juliet" } else { "romeo" }, "just now");
        let shut = Shut::Commits(Kind::Archive);
        in_one_write(&mut romeo, &gate, shut, &[&message, HISTORY, last, metadata]).await;
        for id in ["id='history'", "id='last'"] {
            let result = romeo.until("urn:xmpp:mam:2").await;
            assert!(result.contains("<body>just now</body>"), "{id}: {result}");
            let fin = romeo.until("<fin").await;
            assert!(fin.contains(id), "{fin}");
        }
        let ends = romeo.until("<metadata").await;
        assert!(ends.contains("<start") && ends.contains("<end"), "{ends}");
        romeo.settled().await;
    }
}

#[tokio::test]
async fn what_was_set_is_what_is_got() {
    let blocked = "<iq type='get' id='get'><blocklist xmlns='urn:xmpp:blocking'/></iq>";
    let wanted = "<iq type='get' id='get'><prefs xmlns='urn:xmpp:mam:2'/></iq>";
    for _ in 0..TIMES {
        let (world, gate) = gated(Archive::Always).await;
        let mut romeo = world.online("romeo", "orchard").await;
        let cases = [
            (blocking("block"), Shut::Commits(Kind::Block), blocked, "juliet@localhost"),
            (prefs("never"), Shut::Commits(Kind::MamPrefs), wanted, "default='never'"),
        ];
        for (set, shut, get, new) in cases {
            in_one_write(&mut romeo, &gate, shut, &[&set, get]).await;
            romeo.expect("type='result'").await;
            let got = romeo.expect("id='get'").await;
            assert!(got.contains(new), "{got}");
        }
    }
}

#[tokio::test]
async fn the_roster_comes_before_the_presence_of_contacts() {
    let private = iq("set", "private", "<query xmlns='jabber:iq:private'><x xmlns='urn:x'>1</x></query>");
    let roster = iq("get", "roster", "<query xmlns='jabber:iq:roster'/>");
    for _ in 0..TIMES {
        let (world, gate) = gated(Archive::Always).await;
        friends(&world, "romeo", "juliet").await;
        let _juliet = world.online("juliet", "balcony").await;
        let mut romeo = world.bind("romeo", "orchard").await;
        let shut = Shut::Commits(Kind::Private);
        in_one_write(&mut romeo, &gate, shut, &[&private, &roster, "<presence/>"]).await;
        romeo.expect("id='private' type='result'").await;
        romeo.expect("id='roster' type='result'").await;
        romeo.until("<presence from='juliet@localhost/balcony'").await;
    }
}

#[tokio::test]
async fn a_client_that_says_good_bye_is_heard_out() {
    let private = iq("set", "private", "<query xmlns='jabber:iq:private'><x xmlns='urn:x'>1</x></query>");
    let bye = "<presence type='unavailable'><status>to the church</status></presence>";
    for _ in 0..TIMES {
        let (world, gate) = gated(Archive::Always).await;
        friends(&world, "romeo", "juliet").await;
        let mut juliet = world.online("juliet", "balcony").await;
        let mut home = world.bind("romeo", "home").await;
        let mut romeo = world.online("romeo", "orchard").await;
        juliet.expect("<presence from='romeo@localhost/orchard'").await;
        romeo.until("from='juliet@localhost/balcony'").await;
        gate.shut(Shut::Commits(Kind::Private));
        for stanza in [private.as_str(), &chat("juliet", "adieu"), bye] {
            romeo.send(stanza);
        }
        romeo.quit();
        taken(&mut home).await;
        // A second session of the same name takes nothing of that away.
        let mut romeo = world.bind("romeo", "orchard").await;
        taken(&mut romeo).await;
        gate.open();
        juliet.until("<body>adieu</body>").await;
    }
}

#[tokio::test]
async fn the_last_words_are_told_and_remembered() {
    let private = iq("set", "private", "<query xmlns='jabber:iq:private'><x xmlns='urn:x'>1</x></query>");
    let bye = "<presence type='unavailable'><status>to the church</status></presence>";
    let (world, gate) = gated(Archive::Always).await;
    friends(&world, "romeo", "juliet").await;
    let mut juliet = world.online("juliet", "balcony").await;
    let mut romeo = world.online("romeo", "orchard").await;
    juliet.expect("<presence from='romeo@localhost/orchard'").await;
    gate.shut(Shut::Commits(Kind::Private));
    romeo.send(&private);
    romeo.send(bye);
    romeo.quit();
    let mut other = world.bind("romeo", "other").await;
    taken(&mut other).await;
    gate.open();
    let gone = juliet.expect("type='unavailable'").await;
    assert!(gone.contains("to the church"), "{gone}");
    juliet.send("<iq type='get' id='last' to='romeo@localhost'><query xmlns='jabber:iq:last'/></iq>");
    juliet.expect("to the church").await;
}

#[tokio::test]
async fn other_sessions_and_what_depends_on_nothing_do_not_wait() {
    let (world, gate) = gated(Archive::Always).await;
    let mut orchard = world.online("romeo", "orchard").await;
    let mut home = world.online("romeo", "home").await;
    orchard.expect("home").await;
    home.expect("orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    gate.shut(Shut::Reads(Kind::Block));
    let answer = "<iq type='result' id='x' to='localhost'/>";
    for stanza in [blocking("block").as_str(), &chat("juliet", "held"), answer] {
        orchard.send(stanza);
    }
    assert!(taken(&mut orchard).await.is_empty());
    home.send(&chat("juliet", "free"));
    juliet.expect("<body>free</body>").await;
    home.send("<iq type='get' id='card'><vCard xmlns='vcard-temp'/></iq>");
    home.expect("id='card'").await; // its reads neither
    juliet.send(&chat("romeo", "in"));
    for session in [&mut orchard, &mut home] {
        session.expect("<body>in</body>").await;
    }
    assert!(orchard.link().ledger().open() >= 2, "what waits is not acknowledged");
    gate.open();
    orchard.expect("id='block' type='result'").await;
    orchard.expect("<not-acceptable").await;
    orchard.settled().await;
}

#[tokio::test]
async fn what_follows_a_read_does_not_wait_for_it() {
    let (world, gate) = gated(Archive::Never).await; // so that messages do not wait for the store themselves
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    gate.shut(Shut::Reads(Kind::Vcard));
    let card = |n: usize| iq("get", &format!("card{n}"), "<vCard xmlns='vcard-temp'/>");
    for n in 0..3 {
        romeo.send(&card(n));
    }
    romeo.send(&chat("juliet", "at once"));
    juliet.expect("<body>at once</body>").await;
    // More than a few do hold it up.
    for n in 3..20 {
        romeo.send(&card(n));
    }
    romeo.send(&chat("juliet", "behind"));
    assert!(taken(&mut romeo).await.is_empty());
    juliet.nothing().await;
    gate.open();
    for n in 0..20 {
        romeo.expect(&format!("id='card{n}'")).await;
    }
    juliet.expect("<body>behind</body>").await;
    romeo.settled().await;
}

#[tokio::test]
async fn what_waits_has_a_bound_and_an_answer() {
    let (world, gate) = gated(Archive::Always).await;
    let mut romeo = world.online("romeo", "orchard").await;
    gate.shut(Shut::Reads(Kind::Block));
    romeo.send(&blocking("block"));
    for n in 0..6 {
        romeo.send(&chat("nurse", &format!("{n}{}", "x".repeat(100_000))));
    }
    let refused = taken(&mut romeo).await;
    assert!(!refused.is_empty() && refused.len() < 3, "a megabyte waits, not more and not much less");
    assert!(
        refused.iter().all(|error| error.contains("<resource-constraint") && error.contains("type='wait'"))
    );
    gate.open();
    romeo.settled().await;
}

#[tokio::test]
async fn subscriptions_are_made_or_answered() {
    for _ in 0..3 {
        let (world, gate) = gated(Archive::Always).await;
        for n in 0..40 {
            world.account(&format!("friend{n}")).await;
        }
        let mut romeo = world.online("romeo", "orchard").await;
        let mut nurse = world.online("nurse", "queue").await;
        gate.shut(Shut::Reads(Kind::Vcard));
        // A stranger asks for far more than it gets, and holds nobody up.
        for n in 0..300 {
            nurse.send(&format!(
                "<iq type='get' id='n{n}' to='romeo@localhost'><vCard xmlns='vcard-temp'/></iq>"
            ));
        }
        for _ in 0..292 {
            let error = nurse.recv().await;
            assert!(error.contains("<resource-constraint") && error.contains("type='wait'"), "{error}");
        }
        let mut juliet = world.online("juliet", "balcony").await;
        juliet.send("<iq type='get' id='j' to='romeo@localhost'><vCard xmlns='vcard-temp'/></iq>");
        for n in 0..40 {
            romeo.send(&format!("<presence to='friend{n}@localhost' type='subscribe'/>"));
        }
        romeo.settled().await;
        romeo.send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>");
        let roster = romeo.until("id='roster'").await;
        assert_eq!(roster.matches("ask='subscribe'").count(), 40, "{roster}");
        gate.open();
        juliet.expect("id='j'").await;
        for _ in 0..8 {
            nurse.expect("service-unavailable").await;
        }
        nurse.settled().await;
    }
}

#[tokio::test]
async fn changes_by_others_do_not_hold_up_one_s_own() {
    let (world, gate) = gated(Archive::Always).await;
    let mut romeo = world.online("romeo", "orchard").await;
    romeo.send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>");
    romeo.expect("id='roster'").await;
    gate.shut(Shut::Reads(Kind::RosterVersion));
    let mut friends = Vec::new();
    for n in 0..40 {
        world.account(&format!("friend{n}")).await;
        let mut friend = world.online(&format!("friend{n}"), "home").await;
        friend.send("<presence to='romeo@localhost' type='subscribe'/>");
        friend.settled().await;
        friends.push(friend);
    }
    romeo.send(&iq("set", "own", "<query xmlns='jabber:iq:private'><x xmlns='urn:x'>1</x></query>"));
    assert!(taken(&mut romeo).await.is_empty());
    gate.open();
    let mut before = 0;
    while !romeo.recv().await.contains("id='own'") {
        before += 1;
    }
    assert!(before <= 2, "{before} changes of others went first");
    for _ in before..40 {
        romeo.expect("type='subscribe'").await;
    }
    romeo.settled().await;
}

/// Every message has come once, in order, whatever its session waited for when its user moved.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_moves_with_its_user() {
    let world = Nodes::start(2).await;
    let romeo = world.user(0, "romeo").await;
    let juliet = world.user(1, "juliet").await;
    let mut orchard = world.nodes[1].phone(&romeo).await;
    let mut garden = world.nodes[0].bind(&romeo, "garden").await;
    let mut balcony = world.nodes[1].phone(&juliet).await;
    let put = |n: usize| {
        let item = format!("<query xmlns='jabber:iq:roster'><item jid='friend{n}@localhost'/></query>");
        iq("set", &format!("set{n}"), &item)
    };
    for n in 0..40 {
        for (client, name) in [(&mut orchard, "o"), (&mut garden, "g")] {
            client.send(&put(n));
            client.send(&chat(&juliet, &format!("{name}{n}.")));
        }
    }
    let moved = world.nodes[0].hand_over();
    let (mut o, mut g) = (0, 0);
    while o < 40 || g < 40 {
        let got = balcony.until("<body>").await;
        if got.contains(&format!("<body>o{o}.<")) {
            o += 1;
        } else {
            assert!(got.contains(&format!("<body>g{g}.<")), "after o{o} and g{g}: {got}");
            g += 1;
        }
    }
    orchard.settled().await;
    garden.settled().await;
    moved.await.unwrap();
    balcony.nothing().await;
}
