//! A new password ends what was opened with the old one; and a session that sleeps does not keep its user out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/nodes.rs"]
mod nodes;
mod support;

use std::sync::Arc;

use nodes::Nodes;

use rookery_actors::auth::credentials;
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::Store;
use rookery_cluster::tables::sessions;
use rookery_proto::xmpp::jid::BareJid;
use support::{Client, World};

async fn on_record(store: &Store, name: &str) -> usize {
    let user = &Entity::new(format!("{name}@localhost"));
    let found = store.read(|tx| Box::pin(async move { sessions::load(&mut **tx, user, 100).await }));
    found.await.unwrap().rows.len()
}

/// One that waits to be resumed.
async fn asleep(world: &World, resource: &str) -> Client {
    let mut phone = world.bind("juliet", resource).await;
    phone.resumable().await;
    phone.send("<presence/>");
    phone.until(&format!("from='juliet@localhost/{resource}'")).await;
    phone.settled().await;
    phone.lose();
    phone
}

fn set_password(password: &str) -> String {
    format!(
        "<iq type='set' id='p' to='localhost'><query xmlns='jabber:iq:register'><username>juliet</username>\
         <password>{password}</password></query></iq>"
    )
}

#[tokio::test]
async fn who_changes_the_password_stays_alone() {
    let world = World::with(|options| {
        options.iterations = 4_096;
        options.limits.password_changes_per_hour = 1;
    })
    .await;
    let sleeper = asleep(&world, "phone").await;
    let mut other = world.bind("juliet", "window").await;
    let mut juliet = world.bind("juliet", "balcony").await;
    juliet.resumable().await;
    juliet.send(&set_password("new"));
    juliet.until("type='result'").await;
    let end = other.recv().await;
    assert!(end.contains("NotAuthorized"), "{end}");
    assert!(world.resume(&sleeper).await.is_none());
    juliet.nothing().await;
    juliet.settled().await;
    // The one that changed it goes on, and sleeps and wakes as before.
    juliet.lose();
    let mut juliet = world.resume(&juliet).await.expect("resumed");
    juliet.expect("<resumed").await;
    juliet.send(&set_password("newer"));
    let error = juliet.until("id='p'").await;
    assert!(error.contains("resource-constraint") && error.contains("type='wait'"), "{error}");
}

/// Should the home die just then, the next one finds nothing to bring back.
#[tokio::test]
async fn nothing_is_left_on_record_by_the_commit_itself() {
    let world = World::new().await;
    let _sleeper = asleep(&world, "phone").await;
    while on_record(&world.store, "juliet").await == 0 {
        tokio::task::yield_now().await;
    }
    let user = &Entity::new("juliet@localhost");
    let set = world.store.write(Default::default(), |tx| {
        Box::pin(async move { credentials::replace(&mut **tx, user, &[], None, 1).await })
    });
    assert!(set.await.unwrap());
    assert_eq!(on_record(&world.store, "juliet").await, 0);
    assert!(world.host.password_set(&BareJid::parse("juliet@localhost").unwrap()).await);
    assert_eq!(world.host.sessions_here("juliet@localhost").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_ends_them_through_any_node() {
    let world = Nodes::start(3).await;
    let juliet = world.user(1, "juliet").await;
    let mut live = world.nodes[2].bind(&juliet, "window").await;
    let mut phone = world.nodes[2].phone(&juliet).await;
    phone.settled().await;
    phone.lose();
    let jid = BareJid::parse(&format!("{juliet}@localhost")).unwrap();
    let host = world.nodes[0].host.clone();
    let told = world.nodes[0].handle().spawn(async move { host.password_set(&jid).await });
    assert!(told.await.unwrap());
    loop {
        let got = live.recv().await;
        if got.contains("NotAuthorized") {
            break;
        }
        assert!(!support::closed(&got), "{got}");
    }
    assert!(world.nodes[1].resume(&phone).await.is_none());
    let store = Store::new(Arc::clone(&world.db) as Arc<_>, Seams::system());
    while on_record(&store, &juliet).await > 0 {
        tokio::task::yield_now().await;
    }
}

/// The home dies between the commit of a new password and the end of the sessions: what was opened with the old one is not
/// brought back by its connection on another node.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_elsewhere_does_not_bring_an_old_session_back() {
    let mut world = Nodes::start(3).await;
    let juliet = world.user(2, "juliet").await;
    let mut phone = world.nodes[0].phone(&juliet).await;
    let mut window = world.nodes[1].bind(&juliet, "window").await;
    for client in [&mut phone, &mut window] {
        client.settled().await;
    }
    let store = Store::new(Arc::clone(&world.db) as Arc<_>, Seams::system());
    let (user, now) = (&Entity::new(format!("{juliet}@localhost")), Seams::system().clock.now_micros());
    let set = store.write(Default::default(), |tx| {
        Box::pin(async move { credentials::replace(&mut **tx, user, &[], None, now).await })
    });
    assert!(set.await.unwrap());
    world.kill(2);
    for client in [&mut phone, &mut window] {
        while !support::closed(&client.recv().await) {}
    }
    assert!(world.nodes[1].resume(&phone).await.is_none());
}

#[tokio::test]
async fn the_oldest_session_that_sleeps_makes_room() {
    let world = World::with(|options| options.limits.sessions_per_user = 3).await;
    let old = asleep(&world, "one").await;
    let young = asleep(&world, "two").await;
    let mut third = world.online("juliet", "three").await;
    let mut fourth = world.online("juliet", "four").await;
    third.until("from='juliet@localhost/four'").await;
    assert!(world.resume(&old).await.is_none());
    let _young = world.resume(&young).await.expect("resumed");
    // No session with a connection is put out.
    let who = rookery_actors::Authenticated::by_sasl(third.user.clone());
    let fifth = world.host.bind(who, Some("five"), support::conn(), rookery_actors::Pipe::new()).await;
    assert!(fifth.is_err());
    third.nothing().await;
    fourth.until("from='juliet@localhost/two'").await;
}
