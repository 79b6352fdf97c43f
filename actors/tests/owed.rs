//! Which sessions get a message (RFC 6121 section 8.5), live, from the store and after a session has ended: full JIDs of resources
//! that are gone, sessions that sleep, are replaced or expire, negative priorities, carbons.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;
#[path = "support/talk.rs"]
mod talk;

use std::time::Duration;

use support::World;
use talk::{carbons, chat, kick, no_message, phone, recorded, resumable, says, sleeps};

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

/// What only a sleeping session was to get is not lost with it, whichever sessions are there by then.
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
    while world.faults.failed() == 0 {
        tokio::task::yield_now().await; // until the page is asked for
    }
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

/// A message to a full JID is being committed when its session becomes available and gets what is offline.
#[tokio::test]
async fn what_is_being_committed_when_a_drain_begins_comes_with_it() {
    let world = World::new().await;
    says(&world, "juliet@localhost", &["offline"]).await;
    let mut juliet = world.bind("juliet", "phone").await;
    let mut romeo = world.bind("romeo", "garden").await;
    for n in 0..20 {
        romeo.send(&chat("juliet@localhost/phone", &format!("m{n}-")));
        juliet.send("<presence/>");
        juliet.until(&format!("<body>m{n}-</body>")).await;
        juliet.send("<presence type='unavailable'/>");
        says(&world, "juliet@localhost", &["again"]).await;
    }
}

/// What a session leaves goes to another device, and the offline cursor goes back for it: what that device, or any other, got
/// from there before does not come again.
#[tokio::test]
async fn what_was_offline_does_not_come_again_for_what_a_session_left() {
    for restart in [false, true] {
        let world = World::new().await;
        // Two that take messages to their full JIDs only, and sleep.
        let quiet = "<presence><priority>-1</priority></presence>";
        for (resource, body) in [("watch", "first"), ("phone", "second")] {
            sleeps(resumable(&world, "juliet", resource, quiet).await).await;
            says(&world, &format!("juliet@localhost/{resource}"), &[body]).await;
        }
        says(&world, "juliet@localhost", &["third", "fourth"]).await;
        recorded(&world).await;
        let mut tablet = world.online("juliet", "tablet").await;
        for body in ["third", "fourth"] {
            tablet.until(&format!("<body>{body}</body>")).await;
        }
        no_message(&mut tablet).await;
        tablet.quit();
        recorded(&world).await;
        let world = if restart { world.restart().await } else { world };
        // The later first: the cursor goes back twice.
        let mut desk = world.online("juliet", "desk").await;
        no_message(&mut desk).await;
        for (resource, body) in [("phone", "second"), ("watch", "first")] {
            kick(&world, &format!("juliet@localhost/{resource}")).await;
            let got = desk.until("<message").await;
            assert!(got.contains(body), "{got}");
            no_message(&mut desk).await;
        }
        says(&world, "juliet@localhost", &["live"]).await;
        desk.until("<body>live</body>").await;
        desk.quit();
        let mut last = world.online("juliet", "last").await;
        no_message(&mut last).await;
    }
}

/// A session takes messages only since it is served what it had missed: what is offline comes before what is new.
#[tokio::test]
async fn what_is_offline_comes_before_what_is_new_during_a_replay() {
    let world = World::new().await;
    let quiet = "<presence><priority>-1</priority></presence>";
    let juliet = sleeps(resumable(&world, "juliet", "phone", quiet).await).await;
    says(&world, "juliet@localhost", &["offline"]).await;
    says(&world, "juliet@localhost/phone", &["missed"]).await;
    recorded(&world).await;
    let world = world.restart().await;
    let mut juliet = world.resume(&juliet).await.unwrap();
    juliet.quiet = true;
    juliet.until("<body>missed</body>").await;
    juliet.send("<presence/>");
    juliet.until("<presence").await;
    says(&world, "juliet@localhost", &["new"]).await;
    juliet.quiet = false;
    juliet.ack();
    for body in ["offline", "new"] {
        let got = juliet.until("<message").await;
        assert!(got.contains(&format!("<body>{body}</body>")), "{got}");
    }
    no_message(&mut juliet).await;
}
