//! Rosters of users on several nodes: what a home has committed and died before it told anybody is told by the next.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/nodes.rs"]
mod nodes;
mod support;

use std::sync::Arc;
use std::time::Duration;

use nodes::Nodes;
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::keys::{Key, Kind};
use rookery_cluster::store::{Database as _, Options, Store};
use rookery_cluster::tables::roster::{self, Item, Subscription};
use support::Client;

const GET: &str = "<iq type='get' id='get'><query xmlns='jabber:iq:roster'/></iq>";

fn store(world: &Nodes) -> Store {
    Store::new(Arc::clone(&world.db) as Arc<_>, Seams::system())
}

fn entity(name: &str) -> Entity {
    Entity::new(format!("{name}@localhost"))
}

fn item(name: &str, subscription: Subscription) -> Item {
    Item { jid: format!("{name}@localhost"), subscription: subscription.into(), ..Item::default() }
}

/// What the transaction of a subscription does to both rosters, by a home that then dies. No item: it is removed.
async fn commit(world: &Nodes, romeo: (&str, Option<Item>), juliet: (&str, Item)) {
    let ((one, mine), (other, theirs)) = (romeo, juliet);
    store(world)
        .write(Options::default(), |tx| {
            let (mine, theirs) = (mine.clone(), theirs.clone());
            Box::pin(async move {
                let (one, contact) = (entity(one), format!("{other}@localhost"));
                match mine {
                    Some(item) => roster::put(&mut **tx, &one, &Item { untold: 7, ..item })?,
                    None => {
                        roster::remove(&mut **tx, &one, &contact).await?;
                        let left = Item { untold: 7, ..Item::unlisted(&contact) };
                        roster::keep(&mut **tx, &one, &left)?;
                    }
                }
                roster::put(&mut **tx, &entity(other), &theirs)
            })
        })
        .await
        .unwrap();
}

/// The row of a contact, once nobody has to be told any more.
async fn told(world: &Nodes, of: &str, contact: &str) -> Option<Item> {
    let (of, contact) = (entity(of), format!("{contact}@localhost"));
    // A value's only part.
    let key = [&Key::of(Kind::Roster, &of).text(&contact).finish()[..], &[0, 0]].concat();
    let told = async {
        loop {
            let mut tx = world.db.begin();
            let item = roster::get(&mut *tx, &of, &contact).await.unwrap();
            let changed = tx.watch(&key);
            tx.commit().await.unwrap();
            match item {
                Some(item) if item.untold != 0 => changed.await.unwrap(),
                item => return item,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("the contact was told")
}

async fn with_roster(mut client: Client) -> Client {
    client.send(GET);
    client.until("type='result'").await;
    client
}

/// Romeo is at home on the first node, Juliet on the second; both are connected to the third.
async fn scene() -> (Nodes, [String; 2], [Client; 2]) {
    let world = Nodes::start(3).await;
    let romeo = world.user(0, "romeo").await;
    let juliet = world.user(1, "juliet").await;
    let orchard = with_roster(world.nodes[2].phone(&romeo).await).await;
    let balcony = with_roster(world.nodes[2].phone(&juliet).await).await;
    (world, [romeo, juliet], [orchard, balcony])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_whose_home_died_is_told_to_both() {
    let (mut world, [romeo, juliet], [mut orchard, mut balcony]) = scene().await;
    // He has let her see him, and his home has died before it said so.
    let (his, hers) = (item(&juliet, Subscription::From), item(&romeo, Subscription::To));
    commit(&world, (&romeo, Some(his)), (&juliet, hers)).await;
    world.kill(0);
    let push = balcony.until("jabber:iq:roster").await;
    assert!(push.contains(&romeo) && push.contains("subscription='to'"), "{push}");
    balcony.until(&format!("<presence from='{romeo}@localhost/phone'")).await;
    let push = orchard.until("jabber:iq:roster").await;
    assert!(push.contains(&juliet) && push.contains("subscription='from'"), "{push}");
    let row = told(&world, &romeo, &juliet).await;
    assert_eq!(row, Some(item(&juliet, Subscription::From)));
    orchard.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_whose_home_died_when_it_removed_somebody_is_not_seen_for_ever() {
    let (mut world, [romeo, juliet], [mut orchard, mut balcony]) = scene().await;
    balcony.send(&format!("<presence to='{romeo}@localhost' type='subscribe'/>"));
    orchard.until("type='subscribe'").await;
    orchard.send(&format!("<presence to='{juliet}@localhost' type='subscribed'/>"));
    balcony.until(&format!("<presence from='{romeo}@localhost/phone'")).await;
    told(&world, &romeo, &juliet).await;
    orchard.settled().await;
    // Everybody has everything; then he removes her.
    orchard.told().await;
    balcony.told().await;
    commit(&world, (&romeo, None), (&juliet, item(&romeo, Subscription::None))).await;
    world.kill(0);
    balcony
        .until(&format!("<presence from='{romeo}@localhost' to='{juliet}@localhost' type='unavailable'"))
        .await;
    let push = balcony.until("jabber:iq:roster").await;
    assert!(push.contains(&romeo) && push.contains("subscription='none'"), "{push}");
    let push = orchard.until("subscription='remove'").await;
    assert!(push.contains(&juliet), "{push}");
    assert_eq!(told(&world, &romeo, &juliet).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_died_with_socket_and_home_comes_with_the_resumption() {
    let (mut world, [romeo, _], [mut orchard, _balcony]) = scene().await;
    orchard.told().await;
    // Pushed to a client that does not confirm it any more.
    let mut other = with_roster(world.nodes[0].bind(&romeo, "other").await).await;
    orchard.forget();
    other.send(
        "<iq type='set' id='set'><query xmlns='jabber:iq:roster'><item jid='nurse@localhost'/></query></iq>",
    );
    other.until("jabber:iq:roster").await;
    world.kill(2);
    world.kill(0);
    let mut orchard = world.nodes[0].resume(&orchard).await.expect("resumed");
    orchard.expect("<resumed").await;
    let push = orchard.until("jabber:iq:roster").await;
    assert!(push.contains("nurse@localhost"), "{push}");
}
