//! What waits in the store for another server is sent, also if the store is away when the next process looks for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/foreign.rs"]
mod foreign;
#[path = "support/gate.rs"]
mod gate;
mod support;

use std::time::Duration;

use foreign::{Foreign, Ways, unreachable};
use gate::{Gate, Shut};
use rookery_actors::Host;
use rookery_actors::options::Federation;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::Store;
use rookery_cluster::store::keys::Kind;
use support::World;

#[tokio::test(start_paused = true)]
async fn a_link_that_could_not_be_read_is_read_again() {
    let foreign = Foreign::new(Ways { away: Some(unreachable()), ..Ways::default() });
    let world = World::with(|options| options.federation = Some(Federation::default())).await;
    foreign.serves(&world.host);
    let mut romeo = world.bind("romeo", "phone").await;
    romeo.resumable().await;
    for n in 0..20 {
        romeo.send(&format!(
            "<message to='juliet@foreign.example' type='chat' id='{n}'><body>m{n}.</body></message>"
        ));
    }
    romeo.told().await;
    romeo.forget();
    let (memory, options) = world.die();
    let gate = Gate::new(memory);
    gate.shut(Shut::Reads(Kind::LinkQueue));
    let host =
        Host::start(options, Store::new(gate.clone(), Seams::system()), Seams::system()).await.unwrap();
    foreign.change(|ways| ways.away = None);
    foreign.serves(&host);
    // The clock is paused, and goes on: longer than a read may take.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(foreign.all().is_empty());
    gate.open();
    foreign.got("m19.").await;
    let all: Vec<String> = (0..20).map(|n| format!("m{n}.")).collect();
    assert_eq!(foreign.bodies(), all);
}
