//! People on another server and users on several nodes: what a home had begun when it died, and presence that crosses once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/far.rs"]
mod far;
#[path = "support/nodes.rs"]
mod nodes;
mod support;

use std::sync::Arc;
use std::time::Duration;

use far::Far;
use nodes::Nodes;
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::{Options, Store};
use rookery_cluster::tables::roster::{self, Item, Subscription};

const JULIET: &str = "juliet@far.example";

fn store(world: &Nodes) -> Store {
    Store::new(Arc::clone(&world.db) as Arc<_>, Seams::system())
}

fn contact(jid: &str, subscription: Subscription) -> Item {
    Item { jid: jid.into(), subscription: subscription.into(), ..Item::default() }
}

async fn put(world: &Nodes, user: &str, items: &[Item]) {
    let user = &Entity::new(format!("{user}@localhost"));
    let store = store(world);
    let write = store.write(Options::default(), |tx| {
        Box::pin(async move { items.iter().try_for_each(|item| roster::put(&mut **tx, user, item)) })
    });
    write.await.unwrap();
}

/// The row of the contact, once nobody has to be told any more.
async fn told(world: &Nodes, user: &str) -> Option<Item> {
    let (user, store) = (&Entity::new(format!("{user}@localhost")), store(world));
    let told = async {
        loop {
            let read = store.read(|tx| Box::pin(async move { roster::get(&mut **tx, user, JULIET).await }));
            match read.await.unwrap() {
                // The store gives no event.
                Some(item) if item.untold != 0 => tokio::time::sleep(Duration::from_millis(10)).await,
                item => return item,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("the contact was told")
}

/// Nodes whose links lead to one far server, which speaks to the node `at`.
async fn scene(at: usize) -> (Nodes, Far) {
    let world = Nodes::with(3, far::far).await;
    let far = Far::of_nodes(world.nodes.iter().map(|node| &node.host), at);
    (world, far)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_goes_between_any_node_and_another_server() {
    let (world, far) = scene(2).await;
    let romeo = world.user(0, "romeo").await;
    let mut phone = world.nodes[1].phone(&romeo).await;
    phone.send(&format!("<presence to='{JULIET}' type='subscribe'/>"));
    far.until("type='subscribe'").await;
    for kind in ["subscribed", "subscribe"] {
        far.send(&format!("<presence from='{JULIET}' to='{romeo}@localhost' type='{kind}'/>"));
        phone.until(&format!("type='{kind}'")).await;
    }
    phone.send(&format!("<presence to='{JULIET}' type='subscribed'/>"));
    far.until("type='subscribed'").await;
    far.until(&format!("from='{romeo}@localhost/phone' to='{JULIET}'")).await;
    assert_eq!(told(&world, &romeo).await, Some(contact(JULIET, Subscription::Both)));
    phone.send(&format!("<message to='{JULIET}' type='chat' id='m'><body>hi</body></message>"));
    far.until("<body>hi</body>").await;
    far.send(&format!(
        "<message from='{JULIET}/b' to='{romeo}@localhost' type='chat'><body>ho</body></message>"
    ));
    phone.until("<body>ho</body>").await;
    far.send(&format!("<presence from='{JULIET}/b' to='{romeo}@localhost' type='probe'/>"));
    far.until(&format!("from='{romeo}@localhost/phone' to='{JULIET}/b'")).await;
}

/// To contacts behind links on several nodes, each of them once.
#[tokio::test(flavor = "multi_thread")]
async fn presence_comes_to_each_contact_once() {
    let (world, far) = scene(0).await;
    let romeo = world.user(0, "romeo").await;
    let contacts: Vec<String> = (0..60).map(|n| format!("c{n}@far{}.example", n % 12)).collect();
    let items: Vec<Item> = contacts.iter().map(|jid| contact(jid, Subscription::From)).collect();
    put(&world, &romeo, &items).await;
    let mut phone = world.nodes[1].phone(&romeo).await;
    for show in ["", "<show>away</show>"] {
        if !show.is_empty() {
            phone.send(&format!("<presence>{show}</presence>"));
        }
        let mut came = Vec::new();
        while came.len() < contacts.len() {
            let got = far.recv().await;
            assert!(got.contains(show), "{got}");
            came.push(got.split("to='").nth(1).unwrap().split('\'').next().unwrap().to_owned());
        }
        let (mut came, mut all) = (came, contacts.clone());
        came.sort();
        all.sort();
        assert_eq!(came, all);
    }
    phone.settled().await;
    // A message behind it: nothing of it came twice.
    phone.send("<message to='c0@far0.example' type='chat'><body>end</body></message>");
    far.expect("<body>end</body>").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_whose_home_died_before_the_contact_was_told_is_told_by_the_next() {
    let (mut world, far) = scene(2).await;
    let romeo = world.user(0, "romeo").await;
    let mut phone = world.nodes[1].phone(&romeo).await;
    phone.settled().await;
    phone.told().await;
    // Committed, and nothing else.
    let untold = Item { ask_subscribe: true, untold: 0x100 | 1, ..contact(JULIET, Subscription::None) };
    put(&world, &romeo, &[untold]).await;
    world.kill(0);
    let asked = far.until("type='subscribe'").await;
    assert!(asked.contains(&format!("from='{romeo}@localhost' to='{JULIET}'")), "{asked}");
    let row = told(&world, &romeo).await;
    assert_eq!(row, Some(Item { ask_subscribe: true, ..contact(JULIET, Subscription::None) }));
}

/// A session that outlives its home asks again for the presence of contacts elsewhere, and shows itself to them.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_outlives_its_home_learns_anew_who_is_there() {
    let (mut world, far) = scene(2).await;
    let romeo = world.user(0, "romeo").await;
    put(&world, &romeo, &[contact(JULIET, Subscription::Both)]).await;
    let mut phone = world.nodes[1].phone(&romeo).await;
    far.until("type='probe'").await;
    far.send(&format!("<presence from='{JULIET}/b' to='{romeo}@localhost'><status>here</status></presence>"));
    phone.until("here").await;
    phone.told().await;
    world.kill(0);
    phone.until(&format!("<presence from='{JULIET}' to='{romeo}@localhost/phone' type='unavailable'")).await;
    far.until("type='probe'").await;
    far.send(&format!(
        "<presence from='{JULIET}/b' to='{romeo}@localhost/phone'><status>still</status></presence>"
    ));
    phone.until("still").await;
}
