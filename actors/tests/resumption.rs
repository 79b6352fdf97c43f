//! Resumption where it is hard: more unconfirmed than a pipe holds, a replay or a resumption that is cut short, carbons
//! during a replay, chat states for a phone that sleeps.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use rookery_actors::options::Archive;
use rookery_actors::{Authenticated, NotResumed, Pipe};
use rookery_cluster::store::faults::Fault;
use support::{Client, World};

fn chat(to: &str, body: &str) -> String {
    format!("<message to='{to}' type='chat' id='{body}'><body>{body}</body></message>")
}

/// Available and resumable, with nothing to read.
async fn phone(world: &World, name: &str) -> Client {
    let mut client = world.bind(name, "phone").await;
    client.resumable().await;
    client.send("<presence/>");
    client.expect("<presence").await;
    client
}

#[tokio::test]
async fn more_than_a_pipe_holds_comes_back() {
    const MANY: usize = 1_300;
    let world = World::with(|options| options.limits.unacked_stanzas = 2 * MANY).await;
    let mut juliet = phone(&world, "juliet").await;
    juliet.lose();
    let mut romeo = world.bind("romeo", "orchard").await;
    for n in 0..MANY {
        romeo.send(&chat("juliet@localhost", &format!("m{n}-")));
    }
    romeo.settled().await;
    let mut juliet = world.resume(&juliet).await.unwrap();
    juliet.expect("<resumed").await;
    for n in 0..MANY {
        juliet.expect(&format!("<body>m{n}-</body>")).await;
    }
    juliet.nothing().await;
}

/// What sessions have changed is written before what comes later.
async fn recorded(world: &World) {
    let mut nurse = world.bind("nurse", "kitchen").await;
    for other in ["one", "two"] {
        nurse.send(&chat("romeo@localhost", other));
        nurse.settled().await;
    }
}

/// Juliet's phone was sent three messages and got none of them when the process ended.
async fn three_missed() -> (World, Client) {
    let world = World::new().await;
    let mut juliet = phone(&world, "juliet").await;
    let mut romeo = world.bind("romeo", "orchard").await;
    for body in ["one", "two", "three"] {
        romeo.send(&chat("juliet@localhost", body));
    }
    romeo.settled().await;
    let handled = juliet.handled;
    juliet.until("three").await;
    recorded(&world).await;
    juliet.handled = handled;
    (world.restart().await, juliet)
}

#[tokio::test]
async fn a_replay_that_is_cut_short_leaves_the_rest_offline() {
    let (world, juliet) = three_missed().await;
    let resumed = world.resume(&juliet).await.unwrap();
    // Nothing was read of what came; the stream is closed at once.
    resumed.quit();
    let mut tablet = world.online("juliet", "tablet").await;
    for body in ["one", "two", "three"] {
        tablet.until(body).await;
    }
    tablet.nothing().await;
}

#[tokio::test]
async fn a_resumption_whose_connection_has_gone_can_be_tried_again() {
    let (world, juliet) = three_missed().await;
    {
        let who = Authenticated::by_sasl(juliet.user.clone());
        let gone = world.host.resume(who, &juliet.id, juliet.handled, support::conn(), Pipe::new());
        let mut gone = Box::pin(gone);
        // The resumption is asked for, and nobody waits for the answer.
        assert!(poll_once(&mut gone).is_none());
    }
    let mut juliet = loop {
        if let Some(juliet) = world.resume(&juliet).await {
            break juliet;
        }
    };
    juliet.expect("<resumed").await;
    for body in ["one", "two", "three"] {
        juliet.until(body).await;
    }
    let mut romeo = world.bind("romeo", "garden").await;
    romeo.send(&chat("juliet@localhost", "four"));
    juliet.until("four").await;
}

/// The session is there, but nobody can say so: its client must not be told that it is lost.
#[tokio::test]
async fn a_store_that_does_not_answer_costs_no_session() {
    let (world, juliet) = three_missed().await;
    let ask = || {
        let who = Authenticated::by_sasl(juliet.user.clone());
        world.host.resume(who, &juliet.id, juliet.handled, support::conn(), Pipe::new())
    };
    // The user is not loaded yet; and then it is, but that its session goes on can't be written.
    world.faults.set_reachable(false);
    assert_eq!(ask().await.err(), Some(NotResumed::Unable));
    world.faults.set_reachable(true);
    let mut romeo = world.bind("romeo", "garden").await;
    romeo.send(&chat("juliet@localhost", "four"));
    romeo.settled().await;
    world.faults.set_reachable(false);
    assert_eq!(ask().await.err(), Some(NotResumed::Unable));
    world.faults.set_reachable(true);
    let mut juliet = world.resume(&juliet).await.unwrap();
    juliet.expect("<resumed").await;
    for body in ["one", "two", "three", "four"] {
        juliet.until(body).await;
    }
}

/// The store has done what it never answered. The number of that message is taken: were something else sent in its place, a client
/// that comes back after a crash would seem to have it.
#[tokio::test]
async fn what_is_stored_without_an_answer_comes_before_what_is_behind_it() {
    let world = World::new().await;
    let mut juliet = phone(&world, "juliet").await;
    recorded(&world).await;
    let mut romeo = world.bind("romeo", "orchard").await;
    world.faults.script([Fault::Mute]);
    romeo.send(&chat("juliet@localhost", "one"));
    romeo.send(&format!("<presence to='{}'/>", juliet.link().jid()));
    juliet.expect("<body>one</body>").await;
    juliet.expect("<presence").await;
    assert_eq!(world.faults.struck(), 1);
    romeo.settled().await;
}

/// What the other tests rely on.
#[tokio::test]
#[should_panic(expected = "got this twice")]
async fn a_message_that_comes_twice_fails_a_test() {
    let world = World::new().await;
    let mut juliet = phone(&world, "juliet").await;
    let mut romeo = world.bind("romeo", "orchard").await;
    romeo.send(&chat("juliet@localhost", "one"));
    juliet.until("one").await;
    // Her count says that she has not got it, and she knows that she has.
    juliet.handled -= 1;
    let mut again = world.resume(&juliet).await.unwrap();
    again.got = juliet.got;
    again.until("two").await;
}

/// Polls once; the outcome if there is one.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn what_the_other_device_sends_during_a_replay_is_seen() {
    let world = World::new().await;
    let mut phone = phone(&world, "juliet").await;
    phone.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    phone.expect("id='c'").await;
    phone.nothing().await;
    recorded(&world).await;
    let world = world.restart().await;
    let mut desk = world.online("juliet", "desk").await;
    let mut phone = world.resume(&phone).await.unwrap();
    // While the phone is served from the store, the desk goes on writing.
    for n in 0..200 {
        desk.send(&chat("romeo@localhost", &format!("m{n}-")));
    }
    desk.settled().await;
    phone.expect("<resumed").await;
    for n in 0..200 {
        phone.until(&format!("<body>m{n}-</body>")).await;
    }
}

#[tokio::test]
async fn nobody_waits_for_a_chat_state_to_arrive() {
    let world = World::with(|options| options.archive = Archive::Never).await;
    let mut juliet = phone(&world, "juliet").await;
    juliet.lose();
    let mut romeo = phone(&world, "romeo").await;
    romeo.send("<message to='juliet@localhost' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>");
    romeo.settled().await;
}

#[tokio::test]
async fn what_comes_after_the_last_offline_page_is_kept() {
    let world = World::new().await;
    let mut romeo = world.bind("romeo", "orchard").await;
    romeo.send(&chat("juliet@localhost", "before"));
    romeo.settled().await;
    let mut juliet = world.bind("juliet", "phone").await;
    juliet.resumable().await;
    juliet.send("<presence/>");
    // All is sent, and not confirmed; then she goes away, and a message comes.
    juliet.quiet = true;
    juliet.until("before").await;
    juliet.send("<presence type='unavailable'/>");
    juliet.settled().await;
    romeo.send(&chat("juliet@localhost", "meanwhile"));
    romeo.settled().await;
    juliet.ack();
    juliet.send("<presence/>");
    juliet.until("meanwhile").await;
    romeo.send(&chat("juliet@localhost", "after"));
    juliet.until("after").await;
    juliet.nothing().await;
}

#[tokio::test]
async fn what_an_old_connection_still_says_is_said_to_nobody() {
    let world = World::new().await;
    let mut old = phone(&world, "juliet").await;
    let mut romeo = world.online("romeo", "orchard").await;
    for body in ["one", "two", "three"] {
        romeo.send(&chat("juliet@localhost", body));
        old.until(body).await;
    }
    old.ack();
    let mut new = world.resume(&old).await.unwrap();
    new.expect("<resumed").await;
    // As from a node that was out of reach: a count of long ago, and a message that the client sends again by the new one.
    old.link().down_ack(1);
    old.send(&chat("romeo@localhost", "ghost"));
    new.send(&chat("romeo@localhost", "alive"));
    assert!(romeo.until("<body>").await.contains("alive"));
    new.nothing().await;
    romeo.nothing().await;
}

/// A connection that was lost may have said what its client has, and be heard only after the client has come back with more.
#[tokio::test]
async fn a_count_of_the_connection_before_ends_nothing() {
    let world = World::new().await;
    let mut juliet = phone(&world, "juliet").await;
    let mut romeo = world.bind("romeo", "orchard").await;
    for body in ["one", "two"] {
        romeo.send(&chat("juliet@localhost", body));
        juliet.expect(body).await;
    }
    juliet.ack();
    let behind = juliet.handled - 1;
    juliet.with(|link| link.down_ack(behind));
    juliet.nothing().await;
}

/// What is held back and what is replaced by something newer is counted as the client counts (as Conversations' issue 2661 has it).
#[tokio::test]
async fn counts_hold_with_client_states() {
    let world = World::new().await;
    let mut juliet = phone(&world, "juliet").await;
    juliet.nothing().await;
    let mut romeo = world.bind("romeo", "orchard").await;
    for round in 0..4 {
        juliet.with(|link| link.csi(false));
        for n in 0..5 {
            romeo.send(&format!("<presence to='juliet@localhost/phone'><status>p{n}</status></presence>"));
            romeo.send("<message to='juliet@localhost/phone' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>");
        }
        romeo.send(&chat("juliet@localhost", &format!("r{round}")));
        romeo.send("<presence to='juliet@localhost/phone'><status>behind</status></presence>");
        romeo.settled().await;
        if round % 2 == 0 {
            juliet.until(&format!("r{round}")).await;
            juliet.ack();
        }
        juliet.ack();
        juliet.settled().await;
        juliet.lose();
        juliet = world.resume(&juliet).await.expect("resumed");
        juliet.expect("<resumed").await;
        if round % 2 == 1 {
            let mut presence = 0;
            loop {
                let got = juliet.recv().await;
                presence += usize::from(got.contains("<presence"));
                if got.contains("<body>") {
                    break;
                }
            }
            assert!(presence <= 2);
        }
        juliet.until("behind").await;
        juliet.nothing().await;
    }
}
