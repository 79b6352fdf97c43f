//! What a room says comes once to each session, and in the room's order, whichever node dies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/nodes.rs"]
mod nodes;
mod support;

use nodes::Nodes;
use support::Client;

/// A room whose home is this node.
fn room(world: &Nodes, node: usize) -> String {
    let name = |n: &u32| format!("room{n}@rooms.localhost");
    let is_home = |name: &String| {
        world.nodes[node].host.is_home(&rookery_proto::xmpp::jid::BareJid::parse(name).unwrap())
    };
    (0..).map(|n| name(&n)).find(is_home).unwrap()
}

fn say(room: &str, body: &str) -> String {
    format!("<message to='{room}' type='groupchat' id='{body}'><body>{body}</body></message>")
}

async fn join(client: &mut Client, room: &str, nick: &str) {
    client.send(&format!("<presence to='{room}/{nick}'/>"));
    client.until(&format!("<presence from='{room}/{nick}'")).await;
}

/// The lines that come, up to and with the one that is called `last`.
async fn lines(client: &mut Client, last: &str) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let got = client.recv().await;
        let Some(body) = got.split("<body>").nth(1).and_then(|rest| rest.split('<').next()) else { continue };
        all.push(body.to_owned());
        if body == last {
            return all;
        }
    }
}

/// Several recipients: the next home is the node of the socket for some, and not for others.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_comes_once_when_the_home_of_an_occupant_dies() {
    for quiet in [true, false] {
        let mut world = Nodes::start(3).await;
        let romeo = world.user(0, "romeo").await;
        let mut romeo = world.nodes[0].phone(&romeo).await;
        let room = room(&world, 0);
        join(&mut romeo, &room, "romeo").await;
        let mut phones = Vec::new();
        for n in 0..6 {
            let juliet = world.user(2, &format!("juliet{n}-")).await;
            let mut phone = world.nodes[1].phone(&juliet).await;
            join(&mut phone, &room, &juliet).await;
            phones.push(phone);
        }
        let before: Vec<String> = (0..5).map(|n| format!("before{n}")).collect();
        before.iter().for_each(|line| romeo.send(&say(&room, line)));
        for phone in &mut phones {
            // Nobody confirms them, or nobody has heard that somebody has: they are sent again to the next homes.
            phone.quiet = quiet;
            assert_eq!(lines(phone, "before4").await, before);
        }
        world.kill(2);
        let after: Vec<String> = (0..5).map(|n| format!("after{n}")).collect();
        after.iter().for_each(|line| romeo.send(&say(&room, line)));
        for phone in &mut phones {
            phone.quiet = false;
            phone.ack(); // what comes now comes behind what waited
            assert_eq!(lines(phone, "after4").await, after);
            phone.settled().await;
        }
        romeo.settled().await;
    }
}
