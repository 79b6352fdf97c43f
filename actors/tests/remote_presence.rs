//! Presence between users here and people on another server: probes, broadcast, directed presence, what strangers learn.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/far.rs"]
mod far;
mod support;

use far::{Far, put};
use rookery_cluster::tables::roster::{Item, Subscription};
use support::{Client, World};

const JULIET: &str = "juliet@far.example";

async fn scene(subscription: Subscription) -> (World, Far) {
    let world = World::with(far::far).await;
    let far = Far::of(&world);
    let item = Item { jid: JULIET.into(), subscription: subscription.into(), ..Item::default() };
    put(&world, "romeo", &item).await;
    (world, far)
}

fn probe(from: &str, to: &str) -> String {
    format!("<presence from='{from}' to='{to}' type='probe' id='p1'/>")
}

async fn blocking(client: &mut Client, what: &str, who: &str) {
    client.send(&format!(
        "<iq type='set' id='b'><{what} xmlns='urn:xmpp:blocking'><item jid='{who}'/></{what}></iq>"
    ));
    client.until("id='b'").await;
}

#[tokio::test]
async fn a_login_probes_and_shows_and_an_end_takes_back() {
    let (world, far) = scene(Subscription::Both).await;
    let mut phone = world.online("romeo", "phone").await;
    let shown = far.expect("from='romeo@localhost/phone' to='juliet@far.example'").await;
    assert!(!shown.contains("type="), "{shown}");
    far.expect("<presence from='romeo@localhost/phone' to='juliet@far.example' type='probe'/>").await;
    far.nothing().await;
    // The answers are for the session that has asked, later presence for all.
    let mut desk = world.online("romeo", "desk").await;
    far.until("type='probe'").await;
    desk.until("phone").await;
    phone.until("desk").await;
    far.send(&format!(
        "<presence from='{JULIET}/b' to='romeo@localhost/desk'><status>answer</status></presence>"
    ));
    desk.expect("answer").await;
    phone.nothing().await;
    far.send(&format!("<presence from='{JULIET}/b' to='romeo@localhost'><status>news</status></presence>"));
    desk.expect("news").await;
    phone.expect("news").await;
    // A session that ends without a word.
    phone.quit();
    let gone = far.expect("type='unavailable'").await;
    assert!(gone.contains("from='romeo@localhost/phone' to='juliet@far.example'"), "{gone}");
    far.nothing().await;
    // Nothing is remembered of others' presence.
    desk.until("unavailable").await;
    let mut tablet = world.online("romeo", "tablet").await;
    tablet.expect("romeo@localhost/desk").await;
    tablet.nothing().await;
}

#[tokio::test]
async fn probes_are_answered_from_what_holds() {
    let (world, far) = scene(Subscription::From).await;
    // Nobody is there.
    far.send(&probe(&format!("{JULIET}/b"), "romeo@localhost"));
    let absent = far.expect("type='unavailable'").await;
    assert!(
        absent.contains("from='romeo@localhost' to='juliet@far.example/b'") && absent.contains("id='p1'"),
        "{absent}"
    );
    let mut phone = world.online("romeo", "phone").await;
    far.expect("romeo@localhost/phone").await;
    phone.send("<presence><show>chat</show></presence>");
    far.expect("<show>chat</show>").await;
    let _invisible = world.bind("romeo", "desk").await;
    far.send(&probe(JULIET, "romeo@localhost"));
    let there = far.expect("<show>chat</show>").await;
    assert!(there.contains("from='romeo@localhost/phone' to='juliet@far.example'"), "{there}");
    far.nothing().await;
    far.send(&probe(JULIET, "romeo@localhost/phone"));
    far.expect("<show>chat</show>").await;
    far.send(&probe(JULIET, "romeo@localhost/elsewhere"));
    far.expect("from='romeo@localhost/elsewhere' to='juliet@far.example' id='p1' type='unavailable'").await;
    far.nothing().await;
    // A probe learns that the user has gone, since when and with which last status.
    phone.send("<presence type='unavailable'><status>to bed</status></presence>");
    far.expect("to bed").await;
    let told = loop {
        far.send(&probe(&format!("{JULIET}/b"), "romeo@localhost"));
        let told = far.expect("type='unavailable'").await;
        if told.contains("<status>") {
            break told; // it is written in the background
        }
    };
    assert!(
        told.contains("<status>to bed</status><delay xmlns='urn:xmpp:delay' from='romeo@localhost'"),
        "{told}"
    );
}

/// Section 4.3.2, first rule; and nobody learns which accounts exist.
#[tokio::test]
async fn who_may_not_see_a_user_gets_the_answer_of_no_user() {
    let (world, far) = scene(Subscription::To).await;
    world.account("guarded").await;
    let mut guarded = world.online("guarded", "x").await;
    blocking(&mut guarded, "block", "far.example").await;
    let _phone = world.online("romeo", "phone").await;
    far.until("type='probe'").await;
    for account in ["romeo", "nobody", "guarded"] {
        far.send(&probe(&format!("{JULIET}/b"), &format!("{account}@localhost")));
        let answer = far.expect("type='unsubscribed'").await;
        assert_eq!(
            answer,
            format!(
                "<presence from='{account}@localhost' to='juliet@far.example/b' id='p1' type='unsubscribed'/>"
            )
        );
    }
    // The other way round too, and nothing else is answered.
    for account in ["nobody", "juliet", "guarded"] {
        for kind in ["subscribe", "subscribed", "unsubscribe", "unsubscribed"] {
            far.send(&format!("<presence from='s@far.example' to='{account}@localhost' type='{kind}'/>"));
        }
        far.send(&format!("<presence from='s@far.example' to='{account}@localhost'/>"));
        far.nothing().await;
    }
    // An approval is not cancelled by a probe.
    let item = Item { jid: "n@far.example".into(), approved: true, ..Item::default() };
    put(&world, "nurse", &item).await;
    far.send(&probe("n@far.example", "nurse@localhost"));
    far.expect("type='unsubscribed'").await;
    assert_eq!(far::item(&world, "nurse", "n@far.example").await, Some(item));
}

#[tokio::test]
async fn directed_presence_ends_with_its_session() {
    let (world, far) = scene(Subscription::None).await;
    let mut phone = world.bind("romeo", "phone").await;
    phone
        .send("<presence to='room@far.example/romeo'><x xmlns='http://jabber.org/protocol/muc'/></presence>");
    far.expect("to='room@far.example/romeo'").await;
    far.send(
        "<presence from='room@far.example/romeo' to='romeo@localhost/phone'><status>in</status></presence>",
    );
    phone.expect("<status>in</status>").await;
    // An entity that was shown presence may ask for it.
    far.send(&probe("room@far.example/romeo", "romeo@localhost/phone"));
    far.expect("from='romeo@localhost/phone' to='room@far.example/romeo'").await;
    phone.quit();
    far.expect("<presence from='romeo@localhost/phone' to='room@far.example/romeo' type='unavailable'/>")
        .await;
    far.nothing().await;
    // One that is taken back is forgotten.
    let mut phone = world.bind("romeo", "phone").await;
    phone.send("<presence to='room@far.example/romeo'/>");
    phone.send("<presence to='room@far.example/romeo' type='unavailable'/>");
    far.expect("room@far.example").await;
    far.expect("type='unavailable'").await;
    phone.quit();
    far.nothing().await;
}

#[tokio::test]
async fn a_block_by_address_or_by_domain_ends_presence_both_ways() {
    for what in [JULIET, "far.example"] {
        let (world, far) = scene(Subscription::Both).await;
        let mut phone = world.online("romeo", "phone").await;
        far.until("type='probe'").await;
        phone.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
        phone.until("id='r'").await;
        far.send("<presence from='s@far.example' to='romeo@localhost' type='subscribe'/>");
        phone.expect("type='subscribe'").await;
        blocking(&mut phone, "block", what).await;
        let gone = far.expect("type='unavailable'").await;
        assert!(gone.contains("from='romeo@localhost/phone' to='juliet@far.example'"), "{gone}");
        phone.send("<presence><show>away</show></presence>");
        phone.until("away").await;
        far.send(&format!("<presence from='{JULIET}/b' to='romeo@localhost'/>"));
        far.send(&probe(&format!("{JULIET}/b"), "romeo@localhost"));
        far.nothing().await;
        phone.nothing().await;
        // What waited for an answer is forgotten with the domain.
        let waits = far::item(&world, "romeo", "s@far.example").await.is_some();
        assert_eq!(waits, what == JULIET);
        // A request is not heard of, and the end of a subscription is believed.
        far.send(&format!("<presence from='{JULIET}' to='romeo@localhost' type='unsubscribe'/>"));
        let push = phone.expect("jabber:iq:roster").await;
        assert!(push.contains("subscription='to'"), "{push}");
        far.send(&format!("<presence from='{JULIET}' to='romeo@localhost' type='subscribe'/>"));
        far.nothing().await;
        phone.nothing().await;
        blocking(&mut phone, "unblock", what).await;
        far.send(&format!("<presence from='{JULIET}' to='romeo@localhost' type='subscribe'/>"));
        phone.expect("type='subscribe'").await;
    }
}

#[tokio::test]
async fn a_client_that_is_not_looked_at_hears_the_last_presence_when_it_is() {
    let (world, far) = scene(Subscription::To).await;
    let mut phone = world.bind("romeo", "phone").await;
    phone.resumable().await;
    phone.send("<presence/>");
    phone.expect("<presence").await;
    far.expect("type='probe'").await;
    phone.link().csi(false);
    phone.nothing().await;
    for status in ["one", "two"] {
        far.send(&format!(
            "<presence from='{JULIET}/b' to='romeo@localhost'><status>{status}</status></presence>"
        ));
    }
    far.nothing().await;
    phone.link().csi(true);
    phone.expect("two").await;
    phone.nothing().await;
}
