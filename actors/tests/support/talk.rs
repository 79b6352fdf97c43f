//! What clients do again and again in tests of which session gets what.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use rookery_cluster::tables::archive;
use rookery_proto::xmpp::jid::Jid;

use crate::support::{Client, World};

pub fn chat(to: &str, body: &str) -> String {
    format!("<message to='{to}' type='chat' id='{body}'><body>{body}</body></message>")
}

pub async fn resumable(world: &World, name: &str, resource: &str, presence: &str) -> Client {
    let mut client = world.bind(name, resource).await;
    client.resumable().await;
    client.send(presence);
    client.expect("<presence").await;
    client
}

pub async fn phone(world: &World, name: &str) -> Client {
    resumable(world, name, "phone", "<presence/>").await
}

pub async fn carbons(client: &mut Client) {
    client.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    client.until("id='c'").await;
}

/// Its connection is lost, and the server knows.
pub async fn sleeps(mut client: Client) -> Client {
    client.ack();
    client.settled().await;
    client.lose();
    client
}

/// What the session has changed is written before what comes later.
pub async fn recorded(world: &World) {
    let mut nurse = world.bind("nurse", "kitchen").await;
    for other in ["one", "two"] {
        nurse.send(&chat("romeo@localhost", other));
        nurse.settled().await;
    }
}

/// No message waits for it.
pub async fn no_message(client: &mut Client) {
    client.send("<iq type='get' id='end' to='localhost'><query xmlns='urn:x'/></iq>");
    loop {
        let got = client.recv().await;
        assert!(!got.contains("<message"), "{got}");
        if got.contains("id='end'") {
            return;
        }
    }
}

pub async fn kick(world: &World, jid: &str) {
    assert_eq!(world.host.kick(&Jid::parse(jid).unwrap(), "it is over").await, 1);
}

pub async fn says(world: &World, to: &str, bodies: &[&str]) {
    let mut romeo = world.bind("romeo", "orchard").await;
    for body in bodies {
        romeo.send(&chat(to, body));
    }
    romeo.settled().await;
    romeo.nothing().await; // no error either
}

/// Nothing comes but the answer to a request.
pub async fn no_more(client: &mut Client) {
    client.send("<iq type='get' id='end' to='localhost'><query xmlns='urn:x'/></iq>");
    client.expect("id='end'").await;
}

/// How much lies in a user's offline queue.
pub async fn queue(world: &World, name: &str) -> usize {
    let user = rookery_cluster::entity::Entity::new(format!("{name}@localhost"));
    let read = world.store.read(|tx| {
        let user = user.clone();
        Box::pin(async move {
            let query = archive::Query::all(100);
            archive::page(&mut **tx, archive::Collection::Queue, &user, &query).await
        })
    });
    read.await.unwrap().entries.len()
}
