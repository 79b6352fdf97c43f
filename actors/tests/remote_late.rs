//! Another server that cannot be reached: what its link gives up after a while is put right at the sender.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/foreign.rs"]
mod foreign;
mod support;

use std::sync::Arc;
use std::time::Duration;

use foreign::{Foreign, Ways, is_error, unreachable};
use rookery_actors::options::Federation;
use rookery_cluster::entity::Entity;
use rookery_cluster::tables::archive;
use support::{Client, World};

const JULIET: &str = "juliet@foreign.example";

/// Nobody answers, and stanzas go back after two seconds.
async fn scene() -> (World, Arc<Foreign>) {
    let foreign = Foreign::new(Ways { away: Some(unreachable()), ..Ways::default() });
    let world = World::with(|options| {
        options.federation = Some(Federation { queue: Duration::from_secs(2), ..Federation::default() });
    })
    .await;
    foreign.serves(&world.host);
    (world, foreign)
}

async fn phone(world: &World) -> Client {
    let mut phone = world.bind("romeo", "phone").await;
    phone.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    phone.until("id='r'").await;
    phone.send("<presence/>");
    phone.until("<presence from='romeo@localhost/phone'").await;
    phone
}

async fn archived(world: &World) -> usize {
    let user = &Entity::new("romeo@localhost");
    let read = world.store.read(|tx| {
        Box::pin(async move {
            archive::page(&mut **tx, archive::Collection::Archive, user, &archive::Query::all(1_000)).await
        })
    });
    read.await.unwrap().entries.len()
}

/// All of them, though there are more than the newest that are looked for in the store.
#[tokio::test]
async fn messages_that_were_acknowledged_and_come_back_leave_the_archive() {
    let (world, foreign) = scene().await;
    let mut phone = phone(&world).await;
    for n in 0..400 {
        phone.send(&format!("<message to='{JULIET}' type='chat' id='m{n}'><body>{n}</body></message>"));
    }
    phone.settled().await;
    for n in 0..400 {
        let error = phone.until(&format!("id='m{n}'")).await;
        assert!(is_error(&error, "remote-server-timeout"), "{error}");
    }
    let empty = async {
        while archived(&world).await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await; // the store gives no event
        }
    };
    tokio::time::timeout(Duration::from_secs(20), empty).await.expect("the archive is put right");
    assert_eq!(foreign.all(), [""; 0]);
}

#[tokio::test]
async fn a_subscription_that_came_back_is_told_again_at_the_next_login() {
    let (world, foreign) = scene().await;
    let mut desk = world.bind("romeo", "desk").await;
    let mut one = phone(&world).await;
    one.send(&format!("<presence to='{JULIET}' type='subscribe' id='s'/>"));
    let error = one.until("type='error'").await;
    assert!(is_error(&error, "remote-server-timeout") && error.contains("id='s'"), "{error}");
    one.send(&format!("<presence to='{JULIET}' type='unsubscribe' id='u'/>"));
    let error = one.until("type='error'").await;
    assert!(is_error(&error, "remote-server-timeout") && error.contains("id='u'"), "{error}");
    one.quit();
    desk.nothing().await;
    foreign.change(|ways| ways.away = None);
    let _two = phone(&world).await;
    let got = foreign.got("type='unsubscribed'").await;
    let kinds: Vec<bool> = got.iter().map(|got| got.contains("type='unsubscribe'")).collect();
    assert_eq!(kinds, [true, false], "{got:?}");
}
