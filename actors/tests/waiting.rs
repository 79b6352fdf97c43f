//! What waits for clients that do not read, or fall behind: it has a limit in bytes, for each session, account and node.
//! What is archived follows from the archive, and ends no session.
//!
//! Length: one test for each limit and for each kind of stanza that waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/nodes.rs"]
mod nodes;
mod support;

use nodes::Nodes;
use rookery_actors::Options;
use rookery_actors::options::Archive;
use support::{Client, World};

fn chat(to: &str, id: &str, bytes: usize) -> String {
    let body = "x".repeat(bytes);
    format!("<message to='{to}' type='chat' id='{id}'><body>{id}:{body}</body></message>")
}

/// Available and resumable, with nothing to read.
async fn phone(world: &World, name: &str) -> Client {
    let mut client = world.bind(name, "phone").await;
    client.resumable().await;
    client.send("<presence/>");
    client.expect("<presence").await;
    client
}

/// So little that a few messages of some kB are too much.
fn little(options: &mut Options) {
    options.limits.unacked_bytes = 100_000;
}

/// The messages from `first` to `last`, in order, and nothing else.
async fn all(client: &mut Client, numbers: std::ops::Range<usize>) {
    for n in numbers {
        client.expect(&format!("<body>m{n}:")).await;
    }
}

#[tokio::test]
async fn a_client_that_confirms_gets_any_amount_of_messages() {
    let world = World::with(little).await;
    let mut juliet = phone(&world, "juliet").await;
    let mut romeo = world.online("romeo", "orchard").await;
    for n in 0..40 {
        romeo.send(&chat("juliet@localhost", &format!("m{n}"), 20_000));
    }
    romeo.settled().await;
    assert!(world.host.waiting_bytes() < 150_000, "{}", world.host.waiting_bytes());
    all(&mut juliet, 0..40).await;
    juliet.nothing().await;
    // She has caught up, and is sent what comes as it comes.
    romeo.send(&chat("juliet@localhost", "m40", 10));
    all(&mut juliet, 40..41).await;
    juliet.nothing().await;
}

#[tokio::test]
async fn a_sleeping_session_outlives_any_amount_of_messages() {
    let world = World::with(little).await;
    let mut juliet = phone(&world, "juliet").await;
    let mut romeo = world.online("romeo", "orchard").await;
    juliet.lose();
    for n in 0..40 {
        romeo.send(&chat("juliet@localhost/phone", &format!("m{n}"), 20_000));
    }
    romeo.settled().await;
    let mut juliet = world.resume(&juliet).await.expect("resumed");
    juliet.expect("<resumed").await;
    all(&mut juliet, 0..25).await;
    // She goes to sleep again in the middle of it.
    juliet.lose();
    romeo.send(&chat("juliet@localhost", "m40", 10));
    romeo.settled().await;
    let mut juliet = world.resume(&juliet).await.expect("resumed");
    juliet.expect("<resumed").await;
    all(&mut juliet, 25..41).await;
    juliet.nothing().await;
}

#[tokio::test]
async fn what_waits_in_the_archive_outlives_the_process() {
    let world = World::with(little).await;
    let mut juliet = phone(&world, "juliet").await;
    let mut romeo = world.online("romeo", "orchard").await;
    juliet.lose();
    for n in 0..40 {
        romeo.send(&chat("juliet@localhost", &format!("m{n}"), 20_000));
    }
    romeo.settled().await;
    let mut juliet = world.resume(&juliet).await.expect("resumed");
    juliet.expect("<resumed").await;
    all(&mut juliet, 0..25).await;
    juliet.ack();
    juliet.lose();
    // What the session has written down by now is what comes before this.
    let mut nurse = world.bind("nurse", "kitchen").await;
    for other in ["one", "two"] {
        nurse.send(&chat("romeo@localhost", other, 1));
        nurse.settled().await;
    }
    let world = world.restart().await;
    let mut juliet = world.resume(&juliet).await.expect("resumed after the restart");
    juliet.expect("<resumed").await;
    all(&mut juliet, 25..40).await;
    juliet.nothing().await;
}

#[tokio::test]
async fn copies_follow_from_the_archive_too() {
    let world = World::with(little).await;
    let mut desk = phone(&world, "juliet").await;
    desk.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    desk.expect("id='c'").await;
    let mut juliet = world.online("juliet", "balcony").await;
    desk.expect("balcony").await;
    let mut romeo = world.online("romeo", "orchard").await;
    juliet.expect("phone").await;
    // Half of them to her other session, which sends the other half.
    for n in 0..20 {
        romeo.send(&chat("juliet@localhost/balcony", &format!("m{}", 2 * n), 20_000));
        romeo.settled().await;
        juliet.expect(&format!("m{}:", 2 * n)).await;
        juliet.send(&chat("romeo@localhost", &format!("m{}", 2 * n + 1), 20_000));
        juliet.settled().await;
        romeo.expect(&format!("m{}:", 2 * n + 1)).await;
    }
    for n in 0..40 {
        let copy = desk.expect(&format!("<body>m{n}:")).await;
        assert!(copy.contains("urn:xmpp:carbons:2"), "{copy}");
    }
    desk.nothing().await;
}

#[tokio::test]
async fn without_stream_management_it_is_the_same() {
    let world = World::with(little).await;
    let mut juliet = world.online("juliet", "balcony").await;
    let mut romeo = world.online("romeo", "orchard").await;
    for n in 0..40 {
        romeo.send(&chat("juliet@localhost", &format!("m{n}"), 20_000));
    }
    romeo.settled().await;
    assert!(world.host.waiting_bytes() < 150_000, "{}", world.host.waiting_bytes());
    all(&mut juliet, 0..40).await;
    juliet.nothing().await;
}

#[tokio::test]
async fn what_was_offline_is_not_forgotten_when_a_session_falls_behind_its_end() {
    let world = World::with(little).await;
    let mut romeo = world.online("romeo", "orchard").await;
    for n in 0..3 {
        romeo.send(&chat("juliet@localhost", &format!("m{n}"), 10));
    }
    romeo.settled().await;
    let mut juliet = world.bind("juliet", "phone").await;
    juliet.resumable().await;
    juliet.quiet = true;
    juliet.send("<presence/>");
    juliet.expect("<presence").await;
    all(&mut juliet, 0..3).await;
    // All of it is sent and not confirmed; more comes than there is room for.
    for n in 3..30 {
        romeo.send(&chat("juliet@localhost", &format!("m{n}"), 20_000));
    }
    romeo.settled().await;
    juliet.quiet = false;
    juliet.ack();
    all(&mut juliet, 3..30).await;
    juliet.nothing().await;
    juliet.ack();
    juliet.nothing().await;
    juliet.quit();
    let mut again = world.online("juliet", "tablet").await;
    again.nothing().await;
}

/// Three who write without a pause, and one who falls behind and catches up again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn falling_behind_and_catching_up_loses_nothing_and_repeats_nothing() {
    const EACH: usize = 150;
    let world = World::with(little).await;
    let mut juliet = phone(&world, "juliet").await;
    let mut writers = Vec::new();
    for name in ["romeo", "nurse"] {
        let mut writer = world.bind(name, "r").await;
        writers.push(tokio::spawn(async move {
            for n in 0..EACH {
                writer.send(&chat("juliet@localhost", &format!("{}-{n}", writer.user), 4_000));
                if n % 10 == 9 {
                    writer.settled().await;
                }
            }
            writer
        }));
    }
    let mut next = std::collections::HashMap::new();
    for got in 0..2 * EACH {
        if got % 40 == 39 {
            juliet.lose();
            juliet = {
                let resumed = world.resume(&juliet).await.expect("resumed");
                juliet.waiting.clear();
                resumed
            };
            juliet.expect("<resumed").await;
        }
        let text = juliet.expect("<body>").await;
        let (_, body) = text.split_once("<body>").unwrap();
        let (from, n) = body.split_once(':').unwrap().0.rsplit_once('-').unwrap();
        let next = next.entry(from.to_owned()).or_insert(0);
        assert_eq!(n.parse(), Ok(*next), "from {from}");
        *next += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    juliet.nothing().await;
}

const VCARD: usize = 100_000;

async fn with_vcard(client: &mut Client) {
    let note = "v".repeat(VCARD);
    client.send(&format!(
        "<iq type='set' id='card'><vCard xmlns='vcard-temp'><NOTE>{note}</NOTE></vCard></iq>"
    ));
    client.expect("id='card'").await;
}

fn ask(n: usize) -> String {
    format!("<iq type='get' id='v{n}'><vCard xmlns='vcard-temp'/></iq>")
}

/// All of them ask so often; nothing is read meanwhile. An account's queue of operations is never full.
async fn ask_and_do_not_read(clients: &mut [Client], times: usize) {
    for n in 0..times {
        for client in &mut *clients {
            client.send(&ask(n));
        }
        if n % 10 < 9 {
            continue;
        }
        for client in &mut *clients {
            let pipe = client.pipe.clone();
            while client.link().ledger().open() > 0 {
                client.link().ledger().wait(&pipe);
                if client.link().ledger().open() > 0 {
                    pipe.ready().await;
                }
            }
        }
    }
}

#[tokio::test]
async fn who_does_not_read_is_refused_what_there_is_no_room_for() {
    let world = World::new().await;
    let mut reader = world.bind("juliet", "reader").await;
    with_vcard(&mut reader).await;
    let mut idle = Vec::new();
    for n in 0..6 {
        idle.push(world.bind("juliet", &format!("idle{n}")).await);
    }
    ask_and_do_not_read(&mut idle, 100).await;
    // 60 MB were asked for.
    let waiting = world.host.waiting_bytes();
    assert!(waiting < 8_000_000, "{waiting}");
    // A client that reads is served, whatever the others let lie.
    for n in 0..100 {
        reader.send(&ask(n));
        reader.expect("<NOTE>").await;
    }
    for client in &mut idle {
        let (mut answers, mut refused) = (0, 0);
        for _ in 0..100 {
            let answer = client.expect("<iq").await;
            answers += usize::from(answer.contains("<NOTE>"));
            refused += usize::from(answer.contains("resource-constraint") && answer.contains("'wait'"));
        }
        assert!(answers > 5 && answers + refused == 100, "{answers} answers, {refused} refused");
    }
    // Read, nothing waits.
    for client in &mut idle {
        client.send(&ask(100));
        client.expect("<NOTE>").await;
    }
    assert_eq!(world.host.waiting_bytes(), 0);
}

#[tokio::test]
async fn sessions_of_an_account_share_a_limit_and_so_do_accounts() {
    for (account, node) in [(600_000, usize::MAX), (usize::MAX, 600_000)] {
        let world = World::with(|options| {
            options.limits.waiting_bytes_per_account = account;
            options.limits.waiting_bytes = node;
        })
        .await;
        let mut juliet = world.bind("juliet", "reader").await;
        let mut romeo = world.bind("romeo", "reader").await;
        with_vcard(&mut juliet).await;
        with_vcard(&mut romeo).await;
        let mut idle = Vec::new();
        for n in 0..4 {
            idle.push(world.bind(["juliet", "romeo"][n % 2], &format!("idle{n}")).await);
        }
        ask_and_do_not_read(&mut idle, 50).await;
        let waiting = world.host.waiting_bytes();
        assert!(waiting < 1_600_000, "{waiting}");
        for reader in [&mut juliet, &mut romeo] {
            reader.send(&ask(0));
            reader.expect("<NOTE>").await;
        }
    }
}

#[tokio::test]
async fn a_stranger_cannot_fill_a_session_with_what_is_not_archived() {
    for archive in [Archive::Always, Archive::Never] {
        let world = World::with(|options| {
            little(options);
            options.archive = archive;
        })
        .await;
        let mut juliet = phone(&world, "juliet").await;
        juliet.lose();
        let mut romeo = world.online("romeo", "orchard").await;
        let long = "y".repeat(5_000);
        for n in 0..50 {
            let to = "to='juliet@localhost/phone'";
            romeo.send(&format!("<message {to} type='headline'><body>{long}</body></message>"));
            romeo.send(&format!("<presence {to}><status>{long}</status></presence>"));
            romeo.send(&format!("<iq {to} type='result' id='r{n}'><x xmlns='u'>{long}</x></iq>"));
            romeo.send(&format!("<iq {to} type='get' id='g{n}'><x xmlns='u'>{long}</x></iq>"));
        }
        // The last of the requests is refused, and not kept.
        let refused = romeo.until("g49").await;
        assert!(refused.contains("resource-constraint"), "{refused}");
        romeo.settled().await;
        let mut juliet = world.resume(&juliet).await.expect("resumed");
        juliet.expect("<resumed").await;
        juliet.until("g0").await;
    }
}

/// More is sent to a client that does not read than may be moved with its session; then its home dies, or gives it up.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_fell_behind_goes_on_at_its_next_home() {
    for dies in [true, false] {
        let mut world = Nodes::start(3).await;
        let romeo = world.user(0, "romeo").await;
        let juliet = world.user(2, "juliet").await;
        // One with its socket elsewhere, one at the home that gives it up, one that sleeps.
        let mut far = world.nodes[1].phone(&juliet).await;
        let mut near = world.nodes[if dies { 1 } else { 2 }].bind(&juliet, "near").await;
        near.resumable().await;
        near.send("<presence/>");
        near.until("near").await;
        let mut sleeps = world.nodes[0].bind(&juliet, "sleeps").await;
        sleeps.resumable().await;
        sleeps.send("<presence/>");
        sleeps.until("sleeps").await;
        sleeps.told().await;
        sleeps.lose();
        let mut orchard = world.nodes[0].phone(&romeo).await;
        for n in 0..50 {
            orchard.send(&chat(&format!("{juliet}@localhost"), &format!("m{n}"), 60_000));
        }
        orchard.settled().await;
        if dies {
            world.kill(2);
        } else {
            assert!(world.nodes[2].hand_over().await.unwrap());
        }
        let mut sleeps = world.nodes[0].resume(&sleeps).await.expect("resumed");
        sleeps.expect("<resumed").await;
        for client in [&mut far, &mut near, &mut sleeps] {
            let mut next = 0;
            while next < 50 {
                let got = client.until("<body>m").await;
                assert!(got.contains(&format!("<body>m{next}:")), "{next} in {}", &got[..200]);
                next += 1;
            }
            client.settled().await;
        }
    }
}

/// However small they are, and also from a sender whose request for a subscription waits.
#[tokio::test]
async fn many_small_stanzas_of_a_stranger_end_no_session() {
    for archive in [Archive::Always, Archive::Never] {
        let world = World::with(|options| {
            options.limits.unacked_stanzas = 100;
            options.archive = archive;
        })
        .await;
        let mut juliet = phone(&world, "juliet").await;
        juliet.lose();
        let mut romeo = world.online("romeo", "orchard").await;
        romeo.send("<presence to='juliet@localhost' type='subscribe'/>");
        let to = "to='juliet@localhost/phone'";
        for n in 0..50 {
            romeo.send(&format!("<presence {to}/>"));
            romeo.send(&format!("<message {to} type='headline'><body>x</body></message>"));
            romeo.send(&format!("<iq {to} type='result' id='r{n}'/>"));
            let state = "<active xmlns='http://jabber.org/protocol/chatstates'/>";
            romeo.send(&format!("<message {to} type='chat'>{state}</message>"));
            romeo.send(&chat("juliet@localhost", &format!("m{n}"), 1));
        }
        romeo.settled().await;
        let mut juliet = world.resume(&juliet).await.expect("resumed");
        juliet.expect("<resumed").await;
        for n in 0..9 {
            juliet.until(&format!("<body>m{n}:")).await;
        }
    }
}
