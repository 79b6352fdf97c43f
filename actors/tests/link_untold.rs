//! Presence for which a link has no room is not lost, and nobody is bothered with errors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/far.rs"]
mod far;
#[path = "support/foreign.rs"]
mod foreign;
mod support;

use foreign::{Foreign, Ways, unreachable};
use rookery_actors::options::Federation;
use rookery_cluster::tables::roster::{Item, Subscription};
use support::World;

const CONTACTS: usize = 60;

/// What a contact has heard last.
fn last(foreign: &Foreign, n: usize) -> String {
    let to = format!("to='c{n}@foreign.example'");
    let presence = |got: &&String| got.contains(&to) && !got.contains("probe");
    foreign.all().iter().rfind(presence).cloned().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn contacts_hear_what_holds_when_there_is_room() {
    let foreign = Foreign::new(Ways { away: Some(unreachable()), ..Ways::default() });
    let small = Federation { memory_bytes: 8_000, ..Federation::default() };
    let world = World::with(|options| options.federation = Some(small)).await;
    foreign.serves(&world.host);
    for n in 0..CONTACTS {
        let both = Subscription::Both.into();
        let jid = format!("c{n}@foreign.example");
        far::put(&world, "romeo", &Item { jid, subscription: both, ..Item::default() }).await;
    }
    let mut romeo = world.bind("romeo", "phone").await;
    romeo.send("<presence/>");
    romeo.send("<presence><show>away</show></presence>");
    romeo.until("<show>away").await;
    foreign.change(|ways| ways.away = None);
    for n in 0..CONTACTS {
        foreign.got(&format!("to='c{n}@foreign.example'><show>away")).await;
    }
    for n in 0..CONTACTS {
        foreign.got(&format!("to='c{n}@foreign.example' type='probe'")).await;
    }
    let came = romeo.comes().await;
    assert!(!came.iter().any(|came| came.contains("type='error'")), "{came:#?}");
    // The server reads nothing, and the user goes.
    foreign.change(|ways| ways.reads = false);
    romeo.send("<presence><show>dnd</show></presence>");
    romeo.quit();
    let _nurse = world.online("nurse", "phone").await;
    foreign.change(|ways| ways.reads = true);
    for n in 0..CONTACTS {
        foreign.got(&format!("to='c{n}@foreign.example' type='unavailable'")).await;
        assert!(last(&foreign, n).contains("type='unavailable'"), "{}", last(&foreign, n));
    }
}
