//! Three nodes: sessions whose home is elsewhere, messages between nodes, and what happens when one dies or leaves.
//!
//! Length: each way in which a node can die or leave, with the same three nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/nodes.rs"]
mod nodes;
mod support;

use nodes::Nodes;

fn chat(to: &str, body: &str) -> String {
    format!("<message to='{to}@localhost' type='chat' id='{body}'><body>{body}</body></message>")
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_cross_nodes_wherever_the_sessions_are() {
    let world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let juliet = world.user(1, "juliet").await;
    // Each is connected to a node that is not its home.
    let mut phone = world.nodes[2].phone(&juliet).await;
    let mut orchard = world.nodes[1].phone(&romeo).await;
    for n in 0..300 {
        orchard.send(&chat(&juliet, &format!("m{n}-")));
        phone.send(&chat(&romeo, &format!("r{n}-")));
        if n % 100 == 99 {
            orchard.settled().await;
            phone.settled().await;
        }
    }
    for n in 0..300 {
        phone.until(&format!("<body>m{n}-</body>")).await;
        orchard.until(&format!("<body>r{n}-</body>")).await;
    }
    phone.nothing().await;
    orchard.nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_the_node_of_its_socket() {
    let mut world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let juliet = world.user(1, "juliet").await;
    let mut phone = world.nodes[2].phone(&juliet).await;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    orchard.send(&chat(&juliet, "before"));
    phone.until("before").await;
    phone.forget();
    world.kill(2);
    for n in 0..20 {
        orchard.send(&chat(&juliet, &format!("m{n}-")));
    }
    let mut phone = world.nodes[0].resume(&phone).await.expect("resumed");
    phone.expect("<resumed").await;
    for n in 0..20 {
        phone.until(&format!("<body>m{n}-</body>")).await;
    }
    phone.nothing().await;
    orchard.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_outlives_the_home_of_its_session() {
    let mut world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let juliet = world.user(2, "juliet").await;
    let mut phone = world.nodes[1].phone(&juliet).await;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    for n in 0..10 {
        orchard.send(&chat(&juliet, &format!("m{n}-")));
        phone.send(&chat(&romeo, &format!("r{n}-")));
    }
    world.kill(2);
    for n in 10..30 {
        orchard.send(&chat(&juliet, &format!("m{n}-")));
        phone.send(&chat(&romeo, &format!("r{n}-")));
    }
    for n in 0..30 {
        phone.until(&format!("<body>m{n}-</body>")).await;
        orchard.until(&format!("<body>r{n}-</body>")).await;
    }
    phone.settled().await;
    orchard.settled().await;
    phone.nothing().await;
    orchard.nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_comes_back_when_socket_and_home_are_gone() {
    let mut world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let juliet = world.user(2, "juliet").await;
    let mut phone = world.nodes[2].phone(&juliet).await;
    phone.told().await; // else it would have to send its presence again
    let mut orchard = world.nodes[0].phone(&romeo).await;
    for n in 0..10 {
        orchard.send(&chat(&juliet, &format!("m{n}-")));
    }
    for n in 0..5 {
        phone.until(&format!("<body>m{n}-</body>")).await;
    }
    phone.forget();
    world.kill(2);
    for n in 10..20 {
        orchard.send(&chat(&juliet, &format!("m{n}-")));
    }
    let mut phone = world.nodes[0].resume(&phone).await.expect("resumed");
    phone.expect("<resumed").await;
    for n in 5..20 {
        phone.until(&format!("<body>m{n}-</body>")).await;
    }
    phone.nothing().await;
    orchard.settled().await;
}

/// One verdict per message: an error whose way to the sender was not done when its home died is not followed by another, nor
/// by a delivery.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dying_home_has_refused_is_not_judged_again() {
    let mut world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let juliet = world.user(2, "juliet").await;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    orchard.quiet = true; // it has the error, and does not say so
    orchard.send(&format!("<message to='{juliet}@localhost/gone' id='m'><body>m</body></message>"));
    let error = orchard.until("type='error'").await;
    assert!(error.contains("service-unavailable"), "{error}");
    world.kill(2);
    let mut phone = world.nodes[0].phone(&juliet).await;
    orchard.send(&chat(&juliet, "later"));
    phone.until("<body>later</body>").await;
    orchard.quiet = false;
    orchard.ack();
    orchard.settled().await;
    orchard.nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_a_node_that_leaves() {
    let world = Nodes::start(3).await;
    let romeo = world.user(2, "romeo").await;
    let juliet = world.user(2, "juliet").await;
    // One with its socket at the home that leaves, one elsewhere.
    let mut phone = world.nodes[2].phone(&juliet).await;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    for n in 0..10 {
        orchard.send(&chat(&juliet, &format!("m{n}-")));
        phone.send(&chat(&romeo, &format!("r{n}-")));
    }
    let left = world.nodes[2].hand_over();
    for n in 10..200 {
        orchard.send(&chat(&juliet, &format!("m{n}-")));
        phone.send(&chat(&romeo, &format!("r{n}-")));
        tokio::task::yield_now().await;
    }
    for n in 0..200 {
        phone.until(&format!("<body>m{n}-</body>")).await;
        orchard.until(&format!("<body>r{n}-</body>")).await;
    }
    assert!(left.await.unwrap());
    assert_eq!(world.nodes[2].holds(), 0);
    phone.settled().await;
    orchard.settled().await;
    phone.nothing().await;
    orchard.nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_home_has_told_outlives_that_home_too() {
    let mut world = Nodes::start(4).await;
    let romeo = world.user(0, "romeo").await;
    let juliet = world.user(3, "juliet").await;
    let mut phone = world.nodes[1].phone(&juliet).await;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    for n in 0..10 {
        orchard.send(&chat(&juliet, &format!("m{n}-")));
        phone.until(&format!("<body>m{n}-</body>")).await;
    }
    phone.ack();
    world.kill(3);
    for n in 10..20 {
        orchard.send(&chat(&juliet, &format!("m{n}-")));
        phone.until(&format!("<body>m{n}-</body>")).await;
        phone.send(&chat(&romeo, &format!("r{n}-")));
    }
    phone.ack();
    phone.settled().await;
    orchard.settled().await;
    // Whatever was told is written down; then the next home goes, and the node of the socket with it.
    let home = world.nodes.iter().position(|node| node.is_home(&juliet)).unwrap();
    let told = phone.told().await;
    assert!(told >= 11, "{told}");
    phone.forget();
    world.kill(home.max(1));
    if home != 1 && home != 0 {
        world.kill(1);
    }
    let mut phone = world.nodes[0].resume(&phone).await.expect("resumed");
    let resumed = phone.expect("<resumed").await;
    let h = resumed.split("h=").nth(1).unwrap();
    let h: u32 = h[1..].split(['\'', '"']).next().unwrap().parse().unwrap();
    assert!(h >= told, "{h} {told}");
    orchard.send(&chat(&juliet, "last"));
    let next = phone.until("<body>").await;
    assert!(next.contains("last"), "{next}");
}

/// A session may come to the node of its socket, which is simpler than any other, and go on from there.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_moves_on_from_the_node_of_its_socket() {
    let world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    let mut phones = Vec::new();
    for n in 0..8 {
        let name = world.user(2, &format!("juliet{n}-")).await;
        phones.push(world.nodes[1].phone(&name).await);
    }
    for (at, round) in [(2, "first"), (1, "second")] {
        assert!(world.nodes[at].hand_over().await.unwrap());
        for phone in &mut phones {
            orchard.send(&chat(phone.user.local().unwrap(), round));
            phone.send(&chat(&romeo, round));
        }
        for phone in &mut phones {
            phone.until(&format!("<body>{round}</body>")).await;
            orchard.until(&format!("<body>{round}</body>")).await;
        }
    }
    // More than is on its way without the client's socket taking any.
    for phone in &mut phones {
        for n in 0..300 {
            orchard.send(&chat(phone.user.local().unwrap(), &format!("m{n}-")));
        }
        orchard.settled().await;
        phone.until("<body>m299-</body>").await;
        phone.settled().await;
        phone.nothing().await;
    }
}

/// `<enable/>` and what follows it are on their way when the home dies, and something was settled before.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_enable_is_not_skipped_when_the_home_dies() {
    let mut world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    // Several: the next home is the node of the socket for some, and not for others.
    let mut phones = Vec::new();
    for n in 0..8 {
        let juliet = world.user(2, &format!("juliet{n}-")).await;
        let mut phone = world.nodes[1].bind(&juliet, "phone").await;
        phone.nothing().await;
        phone.settled().await;
        phones.push(phone);
    }
    world.kill(2);
    for phone in &mut phones {
        phone.with(|link| link.enable(true, None));
        for body in ["first", "second", "third"] {
            phone.send(&chat(&romeo, body));
        }
    }
    for phone in &mut phones {
        phone.until("<enabled").await;
        assert_eq!(phone.told().await, 3);
    }
    for _ in 0..3 * phones.len() {
        orchard.until("<body>").await;
    }
    orchard.nothing().await;
}

/// What was offline is with the client, which has not confirmed it, when its home dies or gives it up.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_offline_is_sent_once_whatever_becomes_of_the_home() {
    for dies in [true, false] {
        let mut world = Nodes::start(3).await;
        let romeo = world.user(0, "romeo").await;
        let juliet = world.user(2, "juliet").await;
        let mut orchard = world.nodes[0].phone(&romeo).await;
        for n in 0..5 {
            orchard.send(&chat(&juliet, &format!("m{n}-")));
        }
        orchard.settled().await;
        let mut phone = world.nodes[1].bind(&juliet, "phone").await;
        phone.resumable().await;
        phone.quiet = true;
        phone.send("<presence/>");
        phone.until("<body>m4-</body>").await;
        if dies {
            world.kill(2);
        } else {
            assert!(world.nodes[2].hand_over().await.unwrap());
        }
        phone.quiet = false;
        phone.ack();
        orchard.send(&chat(&juliet, "last"));
        assert!(phone.until("<body>").await.contains("last"), "dies {dies}");
    }
}

/// The same for a client without XEP-0198, which gets its offline messages page by page: that it has written out what the
/// last home had sent says nothing about the page of the next.
#[tokio::test(flavor = "multi_thread")]
async fn every_page_comes_once_when_the_home_moves_between_two() {
    const MANY: usize = 250;
    let world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let juliet = world.user(2, "juliet").await;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    for n in 0..MANY {
        orchard.send(&chat(&juliet, &format!("m{n}-")));
    }
    orchard.settled().await;
    let mut phone = world.nodes[1].bind(&juliet, "phone").await;
    phone.quiet = true;
    phone.send("<presence/>");
    phone.until("<body>m99-</body>").await;
    assert!(world.nodes[2].hand_over().await.unwrap());
    phone.nothing().await; // says the next home
    assert_eq!(phone.marks.len(), 2, "one of each home");
    phone.quiet = false;
    phone.written();
    for n in 100..MANY {
        let got = phone.until("<body>").await;
        assert!(got.contains(&format!("<body>m{n}-</body>")), "{n}: {got}");
    }
    phone.nothing().await;
}

/// What the next home sends first may be faster than its word that it is the home. That it was written out must be heard all the
/// same: until then a session is served from the archive, and nothing comes to it live.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_resumption_hears_what_comes_after_a_move() {
    let world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    let (mut names, mut phones) = (Vec::new(), Vec::new());
    for n in 0..32 {
        let juliet = world.user(2, &format!("juliet{n}-")).await;
        let mut phone = world.nodes[1].bind(&juliet, "phone").await;
        phone.send("<presence/>");
        phone.expect("<presence").await;
        names.push(juliet);
        phones.push(tokio::spawn(async move {
            for body in ["after", "later"] {
                phone.until(&format!("<body>{body}</body>")).await;
            }
        }));
    }
    assert!(world.nodes[2].hand_over().await.unwrap());
    for body in ["after", "later"] {
        names.iter().for_each(|juliet| orchard.send(&chat(juliet, body)));
        orchard.settled().await;
    }
    for phone in phones {
        phone.await.unwrap();
    }
}

/// More answers wait for a client than may be on their way between two nodes, when the home gives its session up.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_lost_when_a_slow_client_moves() {
    let world = Nodes::start(3).await;
    let mut phones = Vec::new();
    for n in 0..4 {
        let juliet = world.user(2, &format!("juliet{n}-")).await;
        let mut phone = world.nodes[1].bind(&juliet, "phone").await;
        phone.resumable().await;
        for n in 0..400 {
            let ping = "<ping xmlns='urn:xmpp:ping'/>";
            phone.send(&format!("<iq type='get' id='p{n}-' to='{juliet}@localhost'>{ping}</iq>"));
        }
        phones.push(phone);
    }
    // By now the others have been answered.
    phones[3].until("p399-").await;
    let left = world.nodes[2].hand_over();
    for phone in &mut phones[..3] {
        for n in 0..400 {
            phone.until(&format!("p{n}-")).await;
        }
    }
    assert!(left.await.unwrap());
    for phone in &mut phones {
        phone.nothing().await;
    }
}

/// What comes while a session is not available is for any device, and comes with its first presence; also when its home dies
/// meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_the_first_presence_comes_once_after_the_home_died() {
    let mut world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let mut phones = Vec::new();
    for n in 0..8 {
        let juliet = world.user(2, &format!("juliet{n}-")).await;
        let mut phone = world.nodes[1].bind(&juliet, "phone").await;
        phone.resumable().await;
        phones.push(phone);
    }
    let mut orchard = world.nodes[0].phone(&romeo).await;
    world.kill(2);
    for n in 0..5 {
        for phone in &phones {
            orchard.send(&chat(phone.user.local().unwrap(), &format!("m{n}-")));
        }
    }
    orchard.settled().await;
    for phone in &mut phones {
        phone.send("<presence/>");
        phone.settled().await;
        orchard.send(&chat(phone.user.local().unwrap(), "last"));
        let mut came = Vec::new();
        while came.last().is_none_or(|id| id != "last") {
            let stanza = phone.until("<body>").await;
            came.push(stanza.split("<body>").nth(1).unwrap().split('<').next().unwrap().to_owned());
        }
        assert_eq!(came, ["m0-", "m1-", "m2-", "m3-", "m4-", "last"]);
    }
}

/// Others take the shards of a node that lives, as when it has slept: its clients are told to come back, and go on. A client that is
/// connected elsewhere notices nothing, and no client gets an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_shards_sends_its_clients_to_the_next() {
    const MANY: u32 = 50;
    let world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let juliet = world.user(2, "juliet").await;
    let nurse = world.user(2, "nurse").await;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    let mut phone = world.nodes[2].phone(&juliet).await;
    let mut tablet = world.nodes[1].phone(&nurse).await;
    phone.told().await;
    tablet.told().await;
    let (cluster, dead) = (world.nodes[0].cluster.clone(), world.nodes[2].name.clone());
    let evicted = world.nodes[0].handle().spawn(async move { cluster.mesh().evict(&dead, true).await });
    // Some of them are on their way to the store.
    for n in 0..MANY {
        phone.send(&chat(&romeo, &format!("r{n}-")));
    }
    evicted.await.unwrap().unwrap();
    let closed = loop {
        let got = phone.recv().await;
        assert!(!got.contains("type='error'"), "{got}");
        if got.starts_with("close ") {
            break got;
        }
    };
    assert!(closed.contains("SystemShutdown") && closed.contains(rookery_actors::ELSEWHERE), "{closed}");
    phone.forget();
    let mut phone = world.nodes[0].resume(&phone).await.expect("resumed");
    let resumed = phone.expect("<resumed").await;
    let h = resumed.split("h=").nth(1).unwrap();
    let h: u32 = h[1..].split(['\'', '"']).next().unwrap().parse().unwrap();
    // Its presence was the first.
    for n in h.saturating_sub(1)..MANY {
        phone.send(&chat(&romeo, &format!("r{n}-")));
    }
    for n in 0..MANY {
        let got = orchard.until("<body>").await;
        assert!(got.contains(&format!("<body>r{n}-</body>")), "{n}: {got}");
    }
    orchard.nothing().await;
    for name in [&juliet, &nurse] {
        orchard.send(&chat(name, "after"));
    }
    phone.until("<body>after</body>").await;
    tablet.until("<body>after</body>").await;
    tablet.settled().await;
}
