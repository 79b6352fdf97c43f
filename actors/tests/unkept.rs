//! Where nothing is archived: messages come in order, once to each device, and no more of them wait than may.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;
#[path = "support/talk.rs"]
mod talk;

use rookery_actors::options::Archive;
use support::World;
use talk::{carbons, chat, kick, no_message, phone, queue, recorded, resumable, says, sleeps};

async fn never() -> World {
    World::with(|options| options.archive = Archive::Never).await
}

/// What a session has not confirmed goes to another device when it ends; not to one that was sent it too.
#[tokio::test]
async fn what_another_device_has_does_not_come_again() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum How {
        Both,
        Carbon,
        Queued,
    }
    for how in [How::Both, How::Carbon, How::Queued] {
        for first in ["phone", "tablet"] {
            println!("{how:?}, first {first}");
            let world = never().await;
            let second = if first == "phone" { "tablet" } else { "phone" };
            let one = resumable(&world, "juliet", first, "<presence/>").await;
            let two = resumable(&world, "juliet", second, "<presence/>").await;
            let (phone, mut tablet) = if first == "phone" { (one, two) } else { (two, one) };
            if how == How::Carbon {
                carbons(&mut tablet).await;
            }
            let mut phone = phone;
            no_message(&mut phone).await;
            let phone = sleeps(phone).await;
            let to = if how == How::Carbon { "juliet@localhost/phone" } else { "juliet@localhost" };
            let mut romeo = world.bind("romeo", "orchard").await;
            romeo.send(&chat(to, "both"));
            tablet.until("<body>both</body>").await;
            if how == How::Queued {
                // The tablet is slow to confirm it, and the sender is told that it is handled before.
                romeo.settled().await;
            }
            tablet.ack();
            romeo.settled().await;
            kick(&world, "juliet@localhost/phone").await;
            tablet.until("type='unavailable'").await;
            no_message(&mut tablet).await;
            says(&world, "juliet@localhost", &["later"]).await;
            tablet.until("<body>later</body>").await;
            tablet.ack();
            tablet.quit();
            let mut desk = world.online("juliet", "desk").await;
            no_message(&mut desk).await;
            drop(phone);
        }
    }
}

/// The last of those that were sent it sees to it.
#[tokio::test]
async fn what_no_client_has_goes_to_another_device() {
    let world = never().await;
    for resource in ["phone", "tablet"] {
        let mut client = resumable(&world, "juliet", resource, "<presence/>").await;
        no_message(&mut client).await;
        sleeps(client).await;
    }
    says(&world, "juliet@localhost", &["one"]).await;
    for resource in ["phone", "tablet"] {
        kick(&world, &format!("juliet@localhost/{resource}")).await;
    }
    let mut desk = world.online("juliet", "desk").await;
    desk.until("<body>one</body>").await;
    no_message(&mut desk).await;
    desk.quit();
    recorded(&world).await;
    assert_eq!(queue(&world, "juliet").await, 0);
}

/// So does the last of them if it was sent a copy: the message itself goes on.
#[tokio::test]
async fn what_no_client_has_goes_to_another_device_if_the_last_had_a_copy() {
    for first in ["phone", "tablet"] {
        let world = never().await;
        let mut phone = phone(&world, "juliet").await;
        let mut tablet = resumable(&world, "juliet", "tablet", "<presence/>").await;
        carbons(&mut tablet).await;
        for client in [&mut phone, &mut tablet] {
            no_message(client).await;
            client.ack();
            client.quiet = true;
        }
        let mut romeo = world.bind("romeo", "orchard").await;
        romeo.send(&chat("juliet@localhost/phone", "one"));
        phone.until("<body>one</body>").await;
        tablet.until("<body>one</body>").await;
        let last = if first == "phone" { "tablet" } else { "phone" };
        for resource in [first, last] {
            kick(&world, &format!("juliet@localhost/{resource}")).await;
        }
        let mut desk = world.online("juliet", "desk").await;
        let got = desk.until("<body>one</body>").await;
        assert!(!got.contains("urn:xmpp:carbons:2"), "{got}");
        no_message(&mut desk).await;
        desk.quit();
        recorded(&world).await;
        assert_eq!(queue(&world, "juliet").await, 0);
    }
}

/// How many wait is known when the user comes back into memory.
#[tokio::test]
async fn the_limit_of_offline_messages_outlives_the_process() {
    let world = World::with(|options| {
        options.archive = Archive::Never;
        options.limits.offline_messages = 5;
    })
    .await;
    says(&world, "juliet@localhost", &["a", "b", "c", "d", "e"]).await;
    let world = world.restart().await;
    let mut romeo = world.bind("romeo", "orchard").await;
    romeo.send(&chat("juliet@localhost", "f"));
    romeo.expect("service-unavailable").await;
    assert_eq!(queue(&world, "juliet").await, 5);
    let mut juliet = world.online("juliet", "phone").await;
    for body in ["a", "b", "c", "d", "e"] {
        juliet.expect(&format!("<body>{body}</body>")).await;
    }
    juliet.nothing().await;
    romeo.send(&chat("juliet@localhost", "g"));
    juliet.expect("<body>g</body>").await;
}

/// What comes while a session is being served what was offline comes behind that, and no more of it than may wait.
#[tokio::test]
async fn what_comes_during_the_drain_comes_behind_it() {
    for devices in [1, 2] {
        let world = World::with(|options| {
            options.archive = Archive::Never;
            options.limits.offline_messages = 160;
        })
        .await;
        let many: Vec<String> = (0..150).map(|n| format!("m{n}-")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        says(&world, "juliet@localhost", &many).await;
        let mut tablet =
            resumable(&world, "juliet", "tablet", "<presence><priority>-1</priority></presence>").await;
        let mut juliet = world.bind("juliet", "phone").await;
        juliet.resumable().await;
        juliet.quiet = true;
        juliet.send("<presence/>");
        juliet.until("<body>m99-</body>").await;
        if devices == 2 {
            tablet.send("<presence/>");
            tablet.until("from='juliet@localhost/tablet' to='juliet@localhost/tablet'/>").await;
        }
        says(&world, "juliet@localhost", &["live"]).await;
        if devices == 1 {
            let mut romeo = world.bind("romeo", "orchard").await;
            for n in 0..20 {
                romeo.send(&chat("juliet@localhost", &format!("x{n}-")));
            }
            romeo.until("resource-constraint").await;
        } else {
            tablet.until("<body>live</body>").await;
        }
        juliet.quiet = false;
        juliet.ack();
        for body in many[100..].iter().chain(&["live"]) {
            let got = juliet.until("<body>").await;
            assert!(got.contains(&format!("<body>{body}</body>")), "{body}: {got}");
        }
        if devices == 2 {
            no_message(&mut juliet).await;
            no_message(&mut tablet).await;
        }
    }
}

/// The same behind what waits for a session that has come back from its record, whichever other sessions are there.
#[tokio::test]
async fn what_comes_for_a_session_that_sleeps_over_a_restart_comes_behind_what_waits() {
    for login in [false, true] {
        let world = never().await;
        let juliet = sleeps(phone(&world, "juliet").await).await;
        says(&world, "juliet@localhost", &["one", "two"]).await;
        recorded(&world).await;
        let world = world.restart().await;
        says(&world, "juliet@localhost", &["three"]).await;
        if login {
            // A device that is there comes before one that may not come back.
            let mut desk = world.online("juliet", "desk").await;
            for body in ["one", "two", "three"] {
                desk.until(&format!("<body>{body}</body>")).await;
            }
            no_message(&mut desk).await;
            desk.quit();
        }
        let mut juliet = world.resume(&juliet).await.unwrap();
        juliet.expect("<resumed").await;
        for body in ["one", "two", "three"].into_iter().filter(|_| !login) {
            let got = juliet.until("<body>").await;
            assert!(got.contains(body), "{body}: {got}");
        }
        no_message(&mut juliet).await;
        recorded(&world).await;
        assert_eq!(queue(&world, "juliet").await, 0);
    }
}

/// If it never comes back, that goes to another device.
#[tokio::test]
async fn what_waits_behind_for_a_session_that_never_comes_back_goes_to_another_device() {
    let world = never().await;
    sleeps(phone(&world, "juliet").await).await;
    says(&world, "juliet@localhost", &["one"]).await;
    recorded(&world).await;
    let world = world.restart().await;
    says(&world, "juliet@localhost/phone", &["two"]).await;
    let mut desk = world.bind("juliet", "desk").await;
    kick(&world, "juliet@localhost/phone").await;
    desk.send("<presence/>");
    for body in ["one", "two"] {
        desk.until(&format!("<body>{body}</body>")).await;
    }
    no_message(&mut desk).await;
}
