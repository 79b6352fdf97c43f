//! What an ended session has left goes to another one, whose home dies or moves before the client has confirmed: nothing of it
//! comes twice to that client, and what that client never confirms is left once more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/nodes.rs"]
mod nodes;
mod support;
#[path = "support/talk.rs"]
mod talk;

use nodes::Nodes;
use support::Client;
use talk::chat;

const LEFT: usize = 3;

/// The messages that come before one that is sent now.
async fn messages(orchard: &mut Client, client: &mut Client) -> Vec<String> {
    orchard.send(&chat(&format!("{}@localhost", client.user.local().unwrap()), "end"));
    let mut all = Vec::new();
    loop {
        let got = client.until("<body>").await;
        if got.contains("<body>end<") {
            return all;
        }
        all.push(got);
    }
}

/// A tablet that was sent what the phone had left, has confirmed nothing, and has had two more homes.
async fn moved(dies: bool) -> (Nodes, String, Client, Client) {
    let mut world = Nodes::start(3).await;
    let (romeo, juliet) = (world.user(0, "romeo").await, world.user(2, "juliet").await);
    let mut phone = world.nodes[0].phone(&juliet).await;
    phone.quiet = true;
    let mut orchard = world.nodes[0].phone(&romeo).await;
    for n in 0..LEFT {
        orchard.send(&chat(&format!("{juliet}@localhost"), &format!("m{n}-")));
    }
    for n in 0..LEFT {
        phone.until(&format!("<body>m{n}-")).await;
    }
    phone.quit();
    orchard.settled().await;
    let mut tablet = world.nodes[1].bind(&juliet, "tablet").await;
    tablet.resumable().await;
    tablet.quiet = true;
    tablet.send("<presence/>");
    for n in 0..LEFT {
        tablet.until(&format!("<body>m{n}-")).await;
    }
    for dies in [dies, false] {
        let home = world.nodes.iter().position(|node| node.is_home(&juliet)).unwrap();
        if dies {
            world.kill(home);
        } else {
            assert!(world.nodes[home].hand_over().await.unwrap());
        }
        // By now its messages are numbered anew.
        tablet.comes().await;
    }
    (world, juliet, orchard, tablet)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_comes_once_over_the_deaths_and_moves_of_homes() {
    for dies in [false, true] {
        let (world, juliet, mut orchard, mut tablet) = moved(dies).await;
        tablet.quiet = false;
        tablet.ack();
        tablet.written();
        assert_eq!(messages(&mut orchard, &mut tablet).await, Vec::<String>::new(), "dies: {dies}");
        // The mark behind the page is written, and the home has heard that.
        tablet.comes().await;
        tablet.settled().await;
        tablet.quit();
        let mut laptop = world.nodes[0].phone(&juliet).await;
        assert_eq!(messages(&mut orchard, &mut laptop).await, Vec::<String>::new(), "dies: {dies}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_and_never_confirmed_is_left_again() {
    for dies in [false, true] {
        let (world, juliet, mut orchard, tablet) = moved(dies).await;
        tablet.quit();
        let mut laptop = world.nodes[0].bind(&juliet, "laptop").await;
        laptop.resumable().await;
        laptop.send("<presence/>");
        for n in 0..LEFT {
            laptop.until(&format!("<body>m{n}-")).await;
        }
        assert_eq!(messages(&mut orchard, &mut laptop).await, Vec::<String>::new(), "dies: {dies}");
    }
}
