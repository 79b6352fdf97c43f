//! The home of a user died that had replaced a session by a newer one with the same resource (RFC 6120 section 7.7.2.2), before
//! the older one's record was removed: the newer one stays, and nobody sees anything of the older one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/nodes.rs"]
mod nodes;
mod support;
#[path = "support/talk.rs"]
mod talk;

use std::sync::Arc;

use nodes::Nodes;
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::{self, Store};
use rookery_cluster::tables::{roster, sessions};
use support::{Client, World};
use talk::{chat, recorded, resumable, sleeps};

/// The two see each other. Before their first session.
async fn friends(store: &Store, one: &str, other: &str) {
    for (user, contact) in [(one, other), (other, one)] {
        let user = &Entity::new(format!("{user}@localhost"));
        let jid = format!("{contact}@localhost");
        let item =
            &roster::Item { jid, subscription: roster::Subscription::Both.into(), ..Default::default() };
        let made = store.write(store::Options::default(), |tx| {
            Box::pin(async move { roster::put(&mut **tx, user, item) })
        });
        made.await.unwrap();
    }
}

/// The records of a user's phones.
async fn phones(store: &Store, name: &str) -> Vec<sessions::Stored> {
    let user = &Entity::new(format!("{name}@localhost"));
    let found = store.read(|tx| Box::pin(async move { sessions::load(&mut **tx, user, 100).await }));
    found.await.unwrap().rows.into_iter().filter(|row| row.record.resource == "phone").collect()
}

/// The record of the one phone there is, with this status.
async fn written(store: &Store, name: &str, status: &str) -> sessions::Stored {
    loop {
        let is_it = |row: &sessions::Stored| String::from_utf8_lossy(&row.record.presence).contains(status);
        match &phones(store, name).await[..] {
            [row] if is_it(row) => return row.clone(),
            _ => tokio::task::yield_now().await,
        }
    }
}

/// As if the home had died before it removed this; `lost` it had not written yet.
async fn put_back(store: &Store, row: &sessions::Stored, lost: Option<&sessions::Stored>) {
    let put = store.write(store::Options::default(), |tx| {
        Box::pin(async move {
            sessions::put(&mut **tx, &row.user, &row.sid, &row.record)?;
            sessions::put_cursor(&mut **tx, &row.user, &row.sid, &row.cursor);
            if let Some(lost) = lost {
                sessions::clear(&mut **tx, &lost.user, &lost.sid);
            }
            Ok(())
        })
    });
    put.await.unwrap();
}

/// Enables resumption, and shows itself to friends, and to the nurse, which is no friend.
async fn appears(mut client: Client, status: &str) -> Client {
    client.resumable().await;
    for to in [" to='nurse@localhost/hall'", ""] {
        client.send(&format!("<presence{to}><status>{status}</status></presence>"));
    }
    client.until(status).await;
    client.settled().await;
    client
}

/// What a client has seen of the phone so far.
async fn seen(client: &mut Client) -> Vec<String> {
    client.send("<iq type='get' id='end' to='localhost'><query xmlns='urn:x'/></iq>");
    let mut seen = Vec::new();
    loop {
        let got = client.recv().await;
        if got.contains("id='end'") {
            return seen;
        }
        if got.starts_with("<presence") && got.contains("@localhost/phone'") {
            seen.push(got);
        }
    }
}

#[tokio::test]
async fn of_two_with_one_resource_on_record_the_newer_one_stays() {
    let world = World::new().await;
    friends(&world.store, "romeo", "juliet").await;
    let mut nurse = resumable(&world, "nurse", "hall", "<presence/>").await;
    let mut older = appears(world.bind("juliet", "phone").await, "old").await;
    let row = written(&world.store, "juliet", "old").await;
    assert_eq!(row.record.directed, ["nurse@localhost/hall"]);
    let newer = sleeps(appears(world.bind("juliet", "phone").await, "new").await).await;
    written(&world.store, "juliet", "new").await;
    while !support::closed(&older.recv().await) {}
    nurse.until("new").await;
    let nurse = sleeps(nurse).await;
    put_back(&world.store, &row, None).await;
    recorded(&world).await;
    let world = world.restart().await;
    let mut romeo = world.online("romeo", "orchard").await;
    let mut tablet = world.online("juliet", "tablet").await;
    assert!(world.resume(&older).await.is_none());
    recorded(&world).await;
    for client in [&mut romeo, &mut tablet] {
        let seen = seen(client).await;
        assert!(!seen.is_empty() && seen.iter().all(|got| got.contains("new")), "{seen:?}");
    }
    let mut nurse = world.resume(&nurse).await.expect("resumed");
    let seen = seen(&mut nurse).await;
    assert!(seen.iter().all(|got| got.contains("new")), "{seen:?}");
    assert_eq!(phones(&world.store, "juliet").await.len(), 1);
    let mut newer = world.resume(&newer).await.expect("resumed");
    newer.expect("<resumed").await;
    romeo.send(&chat("juliet@localhost/phone", "hello"));
    newer.until("hello").await;
}

/// The newer one was not on record yet, and its connection brings it to the next home.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_brings_the_newer_one_where_the_older_one_is_on_record() {
    let mut world = Nodes::start(3).await;
    let (juliet, romeo) = (world.user(2, "juliet").await, world.user(0, "romeo").await);
    world.account("nurse").await;
    let store = Store::new(Arc::clone(&world.db) as Arc<_>, Seams::system());
    friends(&store, &romeo, &juliet).await;
    let mut orchard = world.nodes[0].bind(&romeo, "orchard").await;
    orchard.send("<presence/>");
    let mut tablet = world.nodes[0].bind(&juliet, "tablet").await;
    tablet.send("<presence/>");
    tablet.settled().await;
    let mut older = appears(world.nodes[0].bind(&juliet, "phone").await, "old").await;
    let row = written(&store, &juliet, "old").await;
    let mut newer = appears(world.nodes[1].bind(&juliet, "phone").await, "new").await;
    let lost = written(&store, &juliet, "new").await;
    newer.ack();
    newer.told().await;
    while !support::closed(&older.recv().await) {}
    for client in [&mut orchard, &mut tablet] {
        client.until("new").await;
    }
    put_back(&store, &row, Some(&lost)).await;
    world.kill(2);
    orchard.send(&chat(&format!("{juliet}@localhost/phone"), "hello"));
    newer.until("hello").await;
    assert!(world.nodes[0].resume(&older).await.is_none());
    newer.send("<presence><status>still here</status></presence>");
    for client in [&mut orchard, &mut tablet] {
        // What comes last is the newer one's.
        loop {
            let got = client.until("/phone'").await;
            assert!(!got.contains("old"), "{got}");
            if got.contains("still here") {
                break;
            }
        }
        assert!(seen(client).await.is_empty());
    }
    written(&store, &juliet, "still here").await;
    // The newer session is resumed as any other.
    newer.ack();
    newer.settled().await;
    newer.lose();
    let mut newer = world.nodes[0].resume(&newer).await.expect("resumed");
    newer.expect("<resumed").await;
    orchard.send(&chat(&format!("{juliet}@localhost/phone"), "again"));
    newer.until("again").await;
}
