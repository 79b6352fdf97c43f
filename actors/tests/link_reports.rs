//! What users of other servers have reported about links to other servers, tried here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/foreign.rs"]
mod foreign;
mod support;

use std::sync::Arc;
use std::time::Duration;

use foreign::{Foreign, Ways, unreachable};
use rookery_actors::options::Federation;
use support::{Client, World};

async fn world(ways: Ways, federation: Federation) -> (World, Arc<Foreign>, Client) {
    let foreign = Foreign::new(ways);
    let world = World::with(|options| options.federation = Some(federation)).await;
    foreign.serves(&world.host);
    let romeo = world.online("romeo", "phone").await;
    (world, foreign, romeo)
}

fn chat(n: usize) -> String {
    format!("<message to='juliet@foreign.example' type='chat' id='{n}'><body>m{n}.</body></message>")
}

fn bodies(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("m{n}.")).collect()
}

/// processone/ejabberd 1746: presence that is sent while an idle stream is being closed is not lost. With a server that confirms, and with
/// one that has lost the stream when it is used next.
#[tokio::test(start_paused = true)]
async fn what_comes_as_a_stream_is_closed_is_not_lost() {
    for managed in [true, false] {
        let idle = Federation { idle: Duration::from_secs(10), ..Federation::default() };
        let (_world, foreign, mut romeo) = world(Ways { managed, ..Ways::default() }, idle).await;
        for n in 0..8 {
            romeo.send(&format!("<presence to='room@foreign.example/r{n}'/>"));
            romeo.send(&chat(n));
            foreign.got(&format!("m{n}.")).await;
            // The clock is paused, and goes on: around the moment at which the stream is closed.
            tokio::time::sleep(Duration::from_millis(9_700 + 100 * n as u64)).await;
        }
        assert_eq!(foreign.bodies(), bodies(0..8));
        for n in 0..8 {
            let came = foreign.all().iter().filter(|got| got.contains(&format!("/r{n}'"))).count();
            assert_eq!(came, 1, "{n}");
        }
        romeo.settled().await;
    }
}

/// igniterealtime/Openfire OF-2322: one stream is opened, however much waits for it. And processone/ejabberd 511: the first message of all is
/// delivered, though the other server has never called.
#[tokio::test(start_paused = true)]
async fn one_stream_is_opened_for_all_that_waits() {
    let (_world, foreign, mut romeo) = world(Ways::default(), Federation::default()).await;
    for n in 0..200 {
        romeo.send(&chat(n));
        if n == 100 {
            foreign.got("m0.").await;
        }
    }
    foreign.got("m199.").await;
    assert_eq!((foreign.bodies(), foreign.dials()), (bodies(0..200), 1));
}

/// processone/ejabberd 3636: a server that was away for very long is found again, and soon after somebody writes there.
#[tokio::test(start_paused = true)]
async fn a_server_that_was_away_for_a_day_is_found_again() {
    let short = Federation { queue: Duration::from_secs(30), ..Federation::default() };
    let (_world, foreign, mut romeo) =
        world(Ways { away: Some(unreachable()), ..Ways::default() }, short).await;
    // The clock is paused, and goes on: a message every twenty minutes, each of which comes back.
    for n in 0..72 {
        romeo.send(&chat(n));
        romeo.until("remote-server-timeout").await;
        tokio::time::sleep(Duration::from_secs(900)).await;
    }
    foreign.change(|ways| ways.away = None);
    let begun = tokio::time::Instant::now();
    romeo.send(&chat(72));
    foreign.got("m72.").await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(foreign.bodies(), ["m72."]);
}
