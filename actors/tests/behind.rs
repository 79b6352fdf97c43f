//! What a session leaves that ends while a message for it is on its way to the store.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/gate.rs"]
mod gate;
mod support;
#[path = "support/talk.rs"]
mod talk;

use gate::{Shut, gated};
use rookery_actors::options::Archive;
use rookery_cluster::store::keys::Kind;
use support::{Client, World};
use talk::{carbons, chat, no_message, phone, resumable, sleeps};

/// Takes messages to its full JID only.
async fn watch(world: &World, resource: &str) -> Client {
    resumable(world, "juliet", resource, "<presence><priority>-1</priority></presence>").await
}

/// Her phone is replaced while a message to it waits for the store, and has come to no session. One that has copies gets one;
/// else it is for the first that takes messages.
#[tokio::test]
async fn what_was_being_stored_for_a_session_that_was_replaced_is_not_lost() {
    for with_copies in [false, true] {
        let (world, gate) = gated(Archive::Always).await;
        let phone = phone(&world, "juliet").await;
        sleeps(phone).await;
        let mut desk = watch(&world, "desk").await;
        let mut watch = watch(&world, "watch").await;
        if with_copies {
            carbons(&mut watch).await;
        }
        let mut romeo = world.bind("romeo", "orchard").await;
        gate.shut(Shut::Commits(Kind::Archive));
        romeo.send(&chat("juliet@localhost/phone", "late"));
        // When this comes, the message is with her user.
        romeo.send("<iq type='get' id='then' to='juliet@localhost/desk'><ask xmlns='urn:x'/></iq>");
        desk.until("id='then'").await;
        let mut phone = world.online("juliet", "phone").await;
        gate.open();
        romeo.settled().await;
        let got = if with_copies { &mut watch } else { &mut phone };
        let got = got.until("<message").await;
        assert!(got.contains("<body>late</body>") && got.contains("<received") == with_copies, "{got}");
        for other in [&mut phone, &mut watch, &mut desk] {
            no_message(other).await;
        }
    }
}
