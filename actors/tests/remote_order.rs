//! What a contact elsewhere sends takes effect in its order, whatever the store does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/far.rs"]
mod far;
mod support;

use far::{Far, item};
use rookery_cluster::store::faults::Fault;
use support::World;

/// A request could not be stored at once, and is taken back before it is tried again.
#[tokio::test]
async fn a_request_that_is_tried_again_does_not_come_behind_what_took_it_back() {
    let world = World::with(far::far).await;
    let far = Far::of(&world);
    let mut nurse = world.online("nurse", "phone").await;
    nurse.settled().await;
    let say = |contact: &str, kind: &str| {
        far.send(&format!("<presence from='{contact}' to='nurse@localhost' type='{kind}'/>"));
    };
    let struck = world.faults.struck();
    world.faults.script([Fault::Refused]);
    say("juliet@far.example", "subscribe");
    world.faults.strikes_after(struck).await;
    say("juliet@far.example", "unsubscribe");
    // Others do not wait for that.
    say("tybalt@far.example", "subscribe");
    assert!(nurse.until("type='subscribe'").await.contains("tybalt@"));
    assert!(nurse.until("type='subscribe'").await.contains("juliet@"));
    nurse.until("type='unsubscribe'").await;
    let row = item(&world, "nurse", "juliet@far.example").await;
    assert!(row.is_none_or(|row| row.pending_in.is_none()));
}
