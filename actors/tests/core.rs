//! What the user and session actors promise, without a socket: delivery, order, resumption, offline messages,
//! subscriptions. The dialogue scripts in `tests/` show the same through the whole server.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use rookery_actors::options::Archive;
use support::{Client, World};

fn chat(to: &str, id: &str) -> String {
    format!("<message to='{to}' type='chat' id='{id}'><body>{id}</body></message>")
}

#[tokio::test]
async fn a_chat_reaches_the_other_and_is_settled() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    romeo.send(&chat("juliet@localhost", "m1"));
    let got = juliet.expect("<body>m1</body>").await;
    assert!(got.contains("romeo@localhost/orchard"), "{got}");
    romeo.settled().await;
    juliet.nothing().await;
    romeo.nothing().await;
}

#[tokio::test]
async fn nobody_there_gets_an_error() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    romeo.send(&chat("nobody@localhost", "m1"));
    romeo.expect("service-unavailable").await;
    romeo.send(&chat("someone@elsewhere.example", "m2"));
    romeo.expect("remote-server-not-found").await;
    romeo.settled().await;
}

#[tokio::test]
async fn order_is_kept_over_a_thousand_messages() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    for n in 0..1_000 {
        romeo.send(&chat("juliet@localhost", &format!("m{n}")));
        if n % 100 == 99 {
            romeo.settled().await;
        }
        juliet.expect(&format!("<body>m{n}</body>")).await;
    }
}

async fn offline_messages_wait(archive: Archive) {
    let world = World::with(|o| o.archive = archive).await;
    let mut romeo = world.online("romeo", "orchard").await;
    for n in 0..250 {
        romeo.send(&chat("juliet@localhost", &format!("m{n}")));
        romeo.settled().await;
    }
    let mut juliet = world.online("juliet", "balcony").await;
    for n in 0..250 {
        let got = juliet.expect(&format!("<body>m{n}</body>")).await;
        assert!(got.contains("urn:xmpp:delay"), "{got}");
    }
    romeo.send(&chat("juliet@localhost", "live"));
    let live = juliet.expect("<body>live</body>").await;
    assert!(!live.contains("urn:xmpp:delay"), "{live}");
    // The last page is confirmed when what was sent after it is answered.
    juliet.nothing().await;
    juliet.quit();
    let mut again = world.online("juliet", "window").await;
    again.nothing().await;
}

#[tokio::test]
async fn offline_messages_wait_in_the_archive() {
    offline_messages_wait(Archive::Always).await;
}

#[tokio::test]
async fn offline_messages_wait_in_the_queue() {
    offline_messages_wait(Archive::Never).await;
}

#[tokio::test]
async fn a_client_that_dies_while_it_drains_loses_nothing() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    for n in 0..30 {
        romeo.send(&chat("juliet@localhost", &format!("m{n}")));
    }
    romeo.settled().await;
    let mut juliet = world.bind("juliet", "balcony").await;
    juliet.link().enable(false, None);
    juliet.expect("<enabled").await;
    juliet.send("<presence/>");
    juliet.expect("<presence").await;
    for n in 0..10 {
        juliet.expect(&format!("<body>m{n}</body>")).await;
    }
    juliet.lose(); // without a word about what has arrived
    let mut again = world.online("juliet", "balcony").await;
    for n in 0..30 {
        again.expect(&format!("<body>m{n}</body>")).await;
    }
    again.nothing().await;
}

async fn resumes(world: &World, romeo: &mut Client) {
    let mut juliet = world.bind("juliet", "balcony").await;
    juliet.resumable().await;
    juliet.send("<presence/>");
    juliet.expect("<presence").await;
    romeo.send(&chat("juliet@localhost", "before"));
    juliet.expect("before").await;
    juliet.lose();
    for n in 0..5 {
        romeo.send(&chat("juliet@localhost/balcony", &format!("m{n}")));
    }
    romeo.settled().await;
    let mut juliet = world.resume(&juliet).await.expect("resumed");
    juliet.expect("<resumed").await;
    for n in 0..5 {
        juliet.expect(&format!("<body>m{n}</body>")).await;
    }
    juliet.nothing().await;
    juliet.ack();
    juliet.quit();
}

#[tokio::test]
async fn a_session_is_resumed_without_loss_or_doubles() {
    for archive in [Archive::Always, Archive::Never] {
        let world = World::with(|o| o.archive = archive).await;
        let mut romeo = world.online("romeo", "orchard").await;
        resumes(&world, &mut romeo).await;
        resumes(&world, &mut romeo).await;
        let mut juliet = world.online("juliet", "window").await;
        juliet.nothing().await;
    }
}

#[tokio::test]
async fn a_stolen_resumption_id_is_worth_nothing() {
    let world = World::new().await;
    let mut juliet = world.bind("juliet", "balcony").await;
    juliet.resumable().await;
    juliet.lose();
    let mut thief = Client { user: "nurse@localhost".parse().unwrap(), ..juliet };
    assert!(world.resume(&thief).await.is_none());
    thief.user = "juliet@localhost".parse().unwrap();
    thief.id = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into();
    assert!(world.resume(&thief).await.is_none());
}

#[tokio::test]
async fn a_session_outlives_the_process() {
    let world = World::new().await;
    let mut romeo = world.bind("romeo", "orchard").await;
    romeo.resumable().await;
    romeo.send("<presence/>");
    romeo.expect("<presence").await;
    let mut juliet = world.bind("juliet", "balcony").await;
    juliet.resumable().await;
    juliet.send("<presence/>");
    juliet.expect("<presence").await;
    romeo.send(&chat("juliet@localhost", "acked"));
    juliet.expect("acked").await;
    juliet.ack();
    // Her session has taken the ack before it takes her next stanza, and its record is written before what comes later.
    juliet.nothing().await;
    for other in ["one", "two"] {
        romeo.send(&chat("nurse@localhost", other));
        romeo.settled().await;
    }
    // Her client gets the second and has not said so when the process ends; the third does not reach it.
    for body in ["unacked", "lost"] {
        romeo.send(&chat("juliet@localhost", body));
    }
    juliet.expect("unacked").await;
    let first = juliet.expect("lost").await;
    juliet.handled -= 1;
    romeo.settled().await;
    let world = world.restart().await;
    // Her count says so now: only the third comes again, with the same stanza-id.
    let mut juliet = world.resume(&juliet).await.expect("resumed after the restart");
    juliet.expect("<resumed").await;
    let again = juliet.expect("<message").await;
    assert!(again.contains("lost"), "{again}");
    let id = |text: &str| text.split("stanza-id").nth(1).and_then(|s| s.split('/').next().map(str::to_owned));
    assert_eq!(id(&first), id(&again));
    juliet.nothing().await;
    let mut nurse = world.bind("nurse", "kitchen").await;
    nurse.send(&chat("juliet@localhost", "after"));
    juliet.expect("after").await;
    let mut romeo = world.resume(&romeo).await.expect("resumed after the restart");
    romeo.expect("<resumed").await;
    romeo.nothing().await;
}

#[tokio::test]
async fn what_was_sent_before_the_crash_is_not_taken_twice() {
    let world = World::new().await;
    let mut romeo = world.bind("romeo", "orchard").await;
    romeo.resumable().await;
    for n in 0..3 {
        romeo.send(&chat("juliet@localhost", &format!("m{n}")));
    }
    romeo.settled().await;
    let world = world.restart().await;
    let mut romeo = world.resume(&romeo).await.expect("resumed");
    let resumed = romeo.expect("<resumed").await;
    let h: usize =
        resumed.split("h=").nth(1).unwrap()[1..].split(['\'', '"']).next().unwrap().parse().unwrap();
    // What the server does not claim to have, the client sends again.
    for n in h..3 {
        romeo.send(&chat("juliet@localhost", &format!("m{n}")));
    }
    romeo.settled().await;
    let mut juliet = world.online("juliet", "balcony").await;
    for n in 0..3 {
        juliet.expect(&format!("<body>m{n}</body>")).await;
    }
    juliet.nothing().await;
}

/// What the tests of restarts rely on.
#[tokio::test]
async fn a_host_that_was_killed_writes_nothing_any_more() {
    let world = World::new().await;
    let mut old = world.bind("romeo", "orchard").await;
    let world = world.restart().await;
    old.send(&chat("juliet@localhost", "ghost"));
    old.settled().await;
    let mut juliet = world.online("juliet", "balcony").await;
    juliet.nothing().await;
}

#[tokio::test]
async fn the_newer_session_wins_the_resource() {
    let world = World::new().await;
    let mut old = world.online("juliet", "balcony").await;
    let mut new = world.online("juliet", "balcony").await;
    old.expect("Conflict").await;
    new.nothing().await;
}

#[tokio::test]
async fn subscriptions_are_symmetric_and_show_presence() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.online("juliet", "balcony").await;
    for client in [&mut romeo, &mut juliet] {
        client.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
        client.expect("jabber:iq:roster").await;
    }
    romeo.send("<presence to='juliet@localhost' type='subscribe'/>");
    romeo.expect("subscribe").await; // the push: none, ask
    juliet.expect("subscribe").await;
    juliet.send("<presence to='romeo@localhost' type='subscribed'/>");
    juliet.expect("'from'").await;
    romeo.expect("subscribed").await;
    romeo.expect("'to'").await;
    romeo.expect("juliet@localhost/balcony").await; // her presence
    juliet.send("<presence><show>away</show></presence>");
    romeo.expect("away").await;
    juliet.quit();
    romeo.expect("unavailable").await;
}

#[tokio::test]
async fn a_message_that_nobody_confirms_is_acked_only_when_it_is_queued() {
    let world = World::with(|o| o.archive = Archive::Never).await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.bind("juliet", "balcony").await;
    juliet.resumable().await;
    juliet.send("<presence/>");
    juliet.expect("<presence").await;
    romeo.send(&chat("juliet@localhost", "m1"));
    romeo.settled().await; // a second or two later, from the offline queue
    let world = world.restart().await;
    let mut juliet = world.online("juliet", "window").await;
    juliet.until("<body>m1</body>").await;
}

#[tokio::test]
async fn a_contact_who_did_not_outlive_the_process_is_no_ghost() {
    let world = World::new().await;
    let mut romeo = world.bind("romeo", "orchard").await;
    romeo.resumable().await;
    romeo.send("<presence/>");
    romeo.expect("<presence").await;
    let mut juliet = world.online("juliet", "balcony").await;
    romeo.send("<presence to='juliet@localhost' type='subscribe'/>");
    juliet.until("'subscribe'").await;
    juliet.send("<presence to='romeo@localhost' type='subscribed'/>");
    romeo.until("juliet@localhost/balcony").await;
    romeo.ack();
    romeo.settled().await;
    // Hers can't be resumed, so nobody tells him that it has gone, unless the new process does.
    let world = world.restart().await;
    let mut romeo = world.resume(&romeo).await.expect("resumed");
    let gone = romeo.until("unavailable").await;
    assert!(gone.contains("from='juliet@localhost'"), "{gone}");
}

#[tokio::test]
async fn what_an_inactive_client_was_spared_survives_its_connection() {
    let world = World::new().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut juliet = world.bind("juliet", "balcony").await;
    juliet.resumable().await;
    juliet.send("<presence/>");
    juliet.expect("<presence").await;
    juliet.link().csi(false);
    juliet.nothing().await;
    romeo.send("<presence to='juliet@localhost'><status>held back</status></presence>");
    romeo.nothing().await;
    juliet.lose();
    let mut juliet = world.resume(&juliet).await.expect("resumed");
    juliet.expect("<resumed").await;
    juliet.expect("held back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_active_client_gets_every_presence() {
    let world = World::new().await;
    let mut phone = world.online("romeo", "phone").await;
    let mut home = world.online("romeo", "home").await;
    phone.until("romeo@localhost/home").await;
    for _ in 0..200 {
        phone.link().csi(false);
        phone.nothing().await;
        home.send("<presence><show>dnd</show></presence>");
        phone.link().csi(true);
        phone.expect("dnd").await;
        home.send("<presence><show>away</show></presence>");
        home.send("<presence><show>xa</show></presence>");
        phone.expect("away").await;
        phone.expect("xa").await;
    }
}
